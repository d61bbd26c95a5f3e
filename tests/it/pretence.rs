//! What looks like an answer, a loss or an order, and is none.

use serde_json::Value;
use tenantry_simulator::{
    BadEntry, BadJson, BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Scenario, When,
};

use crate::world::{World, tenant, tenant_id};

/// Only the watermark decides what is listed again: neither the recent span nor a sweep would find what it passed over.
const WATERMARK_ONLY: &str = "[collect]\npoll_interval = \"1s\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n";

fn blobs(status: &Value) -> Option<u64> {
    status["tenants"][0]["stored_today"]["blobs"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_all_is_no_empty_listing() {
    let empty = Fault::new(Effect::BadJson(BadJson::Empty)).on([Endpoint::List]).first(12);
    // The first windows that are listed are the oldest.
    let world = World::new(Scenario::new(81).tenant(tenant(1, 40, 6.9)).fault(empty), WATERMARK_ONLY);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_page_for_a_while_costs_time_only() {
    let page = Fault::new(Effect::ProxyPage).on([Endpoint::List, Endpoint::Blob, Endpoint::Subscriptions]);
    let world = World::new(Scenario::new(82).tenant(tenant(1, 10, 3.0)), WATERMARK_ONLY);
    let mut daemon = world.run();
    daemon.wait("collection has begun", |status| blobs(status) > Some(0)).await;
    let fault = world.cloud.control().add_fault(page);
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).count(5).records(4));
    daemon.wait("the pages are told", |status| !status["tenants"][0]["trouble"].is_null()).await;
    world.cloud.control().remove_fault(fault);
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
    world.assert_store_is_sound().await;
    assert!(world.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_a_host_leads_to_the_next_page() {
    let relative = Fault::new(Effect::RelativeNextPage).on([Endpoint::List]);
    let world = World::new(Scenario::new(83).page_size(3).tenant(tenant(1, 10, 1.0)).fault(relative), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_counts_from_its_header_though_the_body_never_comes() {
    let silent = |on| Fault::new(Effect::ThrottledThenSilent { retry_after_s: 4 }).on([on]).first(1);
    let scenario = Scenario::new(84).tenant(tenant(1, 10, 1.0));
    let world = World::new(scenario.fault(silent(Endpoint::List)).fault(silent(Endpoint::Blob)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    assert!(world.cloud.ledger().faults.iter().all(|(_, _, struck)| *struck == 1));
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_before_all_time_is_none() {
    let senseless = Fault::new(Effect::BadEntry(BadEntry::NoExpiration)).on([Endpoint::List]);
    let stumble = Effect::Status { status: 500, body: ErrorBody::Json, retry_after_s: None };
    let stumble = Fault::new(stumble).on([Endpoint::Blob]).when(When::Every(2));
    // The first entry of each page is spoiled.
    let scenario = Scenario::new(85).page_size(1).tenant(tenant(1, 6, 1.0)).fault(senseless).fault(stumble);
    let world = World::new(scenario, "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    assert!(world.dead_letters().await.is_empty());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_that_is_refused_speaks_for_no_subscription() {
    let world = World::new(Scenario::new(86).tenant(tenant(1, 8, 1.0)), "");
    let control = world.cloud.control();
    let victim = world.cloud.ledger().blobs[3].clone();
    let disabled = Effect::Af { code: "AF20023".to_owned(), status: 400, message: None };
    let fault = control.add_fault(Fault::new(disabled).on([Endpoint::Blob]).when(When::Blob(victim.number)));
    let mut daemon = world.run();
    daemon.wait("the others are stored", |status| blobs(status) == Some(31)).await;
    // It is tried more than once, and its content type is listed and retrieved all the same.
    let struck = || world.cloud.summary().faults[0].2;
    daemon.wait("it is tried again", |_| struck() >= 3).await;
    control.add_blobs(BlobSpec::new(tenant_id(1), victim.content_type).count(2).records(3));
    daemon.wait("what comes later is stored", |status| blobs(status) == Some(33)).await;
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Start), 4, "one start for each type");
    control.remove_fault(fault);
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
}
