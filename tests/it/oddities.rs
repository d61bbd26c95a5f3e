//! What the real service was seen to do beside its documents: none of it may cost a record, or a request too many.

use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{
    BlobSpec, ContentType, Departure, Endpoint, Host, Quirks, Scenario, Tenant, TenantMismatch, Throttle, ThrottleShape,
};

use crate::world::{World, assert_no_violations, tenant, tenant_id};

/// All that is not live is asked for again and again.
const EAGER: &str = "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"3s\"\nsweep_interval = \"6s\"\n";

/// Subscriptions that are there already.
fn subscribed(number: u32, blobs: u32, days: f64) -> Tenant {
    tenant(number, blobs, days).subscribed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_insist_is_no_reason_to_be_careless() {
    let mut scenario = (1..=3).fold(Scenario::new(61), |scenario, number| scenario.tenant(subscribed(number, 12, 6.8)));
    // The path's tenant is not looked at, windows that are too long end early without a word, and whoever does not say
    // who it is gets nothing.
    scenario.service.tenant_mismatch = TenantMismatch::ServeTokenTenant;
    scenario.service.long_windows_partial = true;
    scenario.service.unidentified_per_minute = Some(0);
    // What is subscribed is listed without saying that it is enabled.
    scenario.service.sparse_list = true;
    let world = World::new(scenario, EAGER);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
    world.assert_store_is_sound().await;
    let ledger = world.cloud.ledger();
    for number in 1..=3 {
        let id = tenant_id(number);
        assert_eq!(ledger.requests(id, Endpoint::Start), 0, "there was nothing to start");
        let refused = ledger.tenants[&id].statuses.values().flatten().filter(|(status, _)| **status != 200).count();
        assert_eq!(refused, 0, "{:?}", ledger.tenants[&id].statuses);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_name_another_tenant_are_counted() {
    let mut one = tenant(1, 20, 2.0);
    for feed in &mut one.feeds {
        feed.quirks = Quirks { foreign_organization: 0.4, ..Quirks::default() };
    }
    let world = World::new(Scenario::new(62).tenant(one).tenant(tenant(2, 5, 1.0)), "");
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let status = daemon.status().await.unwrap();
    for tenant in status["tenants"].as_array().unwrap() {
        for content_type in ContentType::AUDIT {
            let of = ledger.blobs.iter().filter(|blob| tenant["id"] == blob.tenant.to_string().as_str());
            let inserts = of.filter(|blob| blob.content_type == content_type).flat_map(|blob| &blob.recipe.inserts);
            let foreign = inserts.filter(|insert| matches!(insert.what, Departure::Organization(_))).count();
            assert_eq!(tenant["content"][content_type.name()]["foreign"], foreign, "{content_type} of {tenant:#}");
            assert!(foreign > 0 || tenant["name"] == "tenant-2", "the quirk did not strike");
        }
    }
    assert!(daemon.log().contains("name another tenant"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_requests_is_kept_to_and_costs_the_others_nothing() {
    let mut scenario = Scenario::new(63).tenant(tenant(1, 15, 1.0).requests_per_minute(50)).tenant(tenant(2, 15, 1.0));
    scenario.service.throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(10) };
    let world = World::new(scenario, "[collect]\npoll_interval = \"30s\"\n");
    let mut daemon = world.run();
    let of = |status: &Value, id: uuid::Uuid| {
        let tenants = status["tenants"].as_array().unwrap();
        let found = tenants.iter().find(|tenant| tenant["id"] == id.to_string().as_str()).unwrap();
        (found["stored_today"]["blobs"].as_u64().unwrap(), found["throttled"].as_u64().unwrap())
    };
    let beside = daemon.wait("the other tenant has all", |status| of(status, tenant_id(2)).0 == 60).await;
    assert!(of(&beside, tenant_id(1)).0 < 60, "the budget was no limit: {beside:#}");
    daemon.wait_collected(&world).await;
    let status = daemon.status().await.unwrap();
    assert!(of(&status, tenant_id(1)).1 > 0 && of(&status, tenant_id(2)).1 == 0, "{status:#}");
    assert!(daemon.stop().await.success());
    world.assert_collected();
    assert!(world.cloud.ledger().answers(tenant_id(1), Endpoint::Blob, 429) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_refuse_connections_cost_time_and_nothing_else() {
    // Tokens that live 40 s are renewed after 20 and are gone before the authority is back.
    let scenario = Scenario::new(64).tenant(tenant(1, 10, 1.0)).token_lifetime(Duration::from_secs(40));
    let world = World::new(scenario, EAGER);
    let control = world.cloud.control();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let add = || control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(3).records(4));
    let trouble = |status: &Value| status["tenants"][0]["trouble"]["kind"].as_str().map(str::to_owned);

    control.set_reachable(Host::Management, false);
    add();
    daemon.wait("no connection is told", |status| trouble(status).is_some()).await;
    control.set_reachable(Host::Management, true);
    daemon.wait_collected(&world).await;

    control.set_reachable(Host::Authority, false);
    daemon
        .wait("there is no token any more", |status| {
            let until = status["tenants"][0]["token_until"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
            trouble(status).is_some() && until.is_none_or(|until| until < world.cloud.summary().at)
        })
        .await;
    add();
    let listed = world.cloud.ledger().requests(tenant_id(1), Endpoint::List);
    control.set_reachable(Host::Authority, true);
    daemon.wait_collected(&world).await;
    daemon.wait("all is well again", |status| trouble(status).is_none()).await;
    assert!(world.cloud.ledger().requests(tenant_id(1), Endpoint::List) > listed);
    assert!(daemon.stop().await.success());
    world.assert_collected();
    assert_no_violations(&world.cloud.ledger());
}
