//! Collection end to end, in fair weather and in foul.

use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{
    BadEntry, BadJson, BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, Point, Quirks, Scenario,
    Throttle, ThrottleShape, When,
};

use crate::world::{World, assert_no_violations, tenant, tenant_id};

#[tokio::test(flavor = "multi_thread")]
async fn three_tenants_are_collected_and_exported() {
    let scenario = (1..=3).fold(Scenario::new(1), |scenario, number| scenario.tenant(tenant(number, 30, 6.5)));
    let world = World::new(scenario.page_size(7), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    world.assert_collected();
    let running = world.exported(&[]);

    // What becomes available later arrives by itself.
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(2), ContentType::Exchange).count(5).records(4));
    daemon.wait_collected(&world).await;
    world.assert_collected();
    assert_eq!(world.exported(&[]).len(), running.len() + 20);

    // Without the daemon the store answers, and the same.
    let mut before = world.exported(&[]);
    let status = daemon.stop().await;
    assert!(status.success(), "{status}");
    let mut after = world.exported(&[]);
    before.sort();
    after.sort();
    assert_eq!(before, after);
    let status = world.tenantry(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["running"], false);
    assert_eq!(status["tenants"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_collects_nothing_twice() {
    let world = World::new(Scenario::new(2).tenant(tenant(1, 20, 3.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let fetched = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    assert_eq!(fetched, 80);

    let mut daemon = world.run();
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).count(1).records(3));
    daemon
        .wait("the new blob is stored", |status| status["tenants"][0]["stored_today"]["blobs"].as_u64() >= Some(81))
        .await;
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob), fetched + 1);
    world.assert_collected();
    assert!(daemon.stop().await.success());
}

/// A fault on some kinds of request.
fn fault(on: &[Endpoint], when: When, effect: Effect) -> Fault {
    Fault { tenant: None, on: on.to_vec(), content_type: None, when, effect }
}

/// Everything that goes wrong at Microsoft, each a few times.
fn every_fault() -> Vec<Fault> {
    use Endpoint::{Blob, List, Start, Subscriptions, Token};
    let some = |every| When::Every(every);
    let throttled = |shape, retry_after_s| Effect::Throttled(Throttle { shape, retry_after_s });
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    vec![
        fault(&[Token], When::First(1), status(503, ErrorBody::Html)),
        fault(&[Subscriptions], When::First(1), status(500, ErrorBody::Empty)),
        fault(&[Start], When::Requests(vec![2]), status(503, ErrorBody::Json)),
        fault(&[List], some(23), status(500, ErrorBody::Json)),
        fault(&[List], some(31), status(408, ErrorBody::Empty)),
        fault(&[List], some(37), status(503, ErrorBody::Html)),
        fault(&[List], some(41), Effect::Reset(Point::BeforeHeaders)),
        fault(&[List], some(43), Effect::Reset(Point::MidBody)),
        fault(&[List], some(47), Effect::BadJson(BadJson::Cut)),
        fault(&[List], some(53), Effect::BadJson(BadJson::NotAnArray)),
        fault(&[List], some(59), Effect::Truncate { chunked: true }),
        fault(&[List], some(61), Effect::Denied),
        fault(&[Blob], some(17), status(500, ErrorBody::Json)),
        fault(&[Blob], some(19), Effect::Reset(Point::AfterHeaders)),
        fault(&[Blob], some(23), Effect::Reset(Point::MidBody)),
        fault(&[Blob], some(29), Effect::Truncate { chunked: false }),
        fault(&[Blob], some(31), Effect::Truncate { chunked: true }),
        fault(&[Blob], some(37), Effect::BadJson(BadJson::Garbage)),
        fault(&[Blob], some(41), Effect::BadJson(BadJson::NotAnArray)),
        fault(&[Blob], some(43), Effect::DamagedGzip),
        fault(&[Blob], some(47), Effect::Stall { at: Point::MidBody, for_ms: Some(3000) }),
        fault(&[Blob], some(53), Effect::Denied),
        fault(&[Blob], some(59), Effect::ContentType("text/html".to_owned())),
        fault(&[Blob], some(61), Effect::Encoding { gzip: false }),
        fault(&[Blob], When::Requests(vec![40]), throttled(ThrottleShape::Forbidden, None)),
        fault(&[Blob], When::Requests(vec![90]), throttled(ThrottleShape::TooManyRequests, Some(2))),
        fault(&[List], When::Requests(vec![30]), throttled(ThrottleShape::Sentence, Some(2))),
        fault(&[List], When::Requests(vec![60]), throttled(ThrottleShape::PlainText, Some(1))),
        fault(&[List], When::Requests(vec![100]), throttled(ThrottleShape::Dated, Some(3))),
        fault(&[Blob], When::Requests(vec![140]), throttled(ThrottleShape::Dated, Some(2))),
        fault(&[List], some(7), Effect::ForeignContentUri).tenant(tenant_id(3)),
        fault(&[List], some(11), Effect::BadEntry(BadEntry::LongUri)).tenant(tenant_id(3)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_fault_on_nothing_is_lost_and_nothing_comes_twice() {
    let quirks = Quirks {
        duplicates: 0.1,
        same_instant: 0.2,
        listed_within_ms: 2000,
        partial_for_ms: 0,
        late: 0.1,
        late_hours: 1.0,
        ..Quirks::default()
    };
    let mut scenario = Scenario::new(3).page_size(9);
    for number in 1..=3 {
        let mut one = tenant(number, 0, 1.0);
        // A part of a blob that is listed wrongly may never be listed again: the two are not for the same tenant.
        let ranges = if number < 3 { 0.2 } else { 0.0 };
        // Shorter than the overlap of the polls: a longer one is whole only for the wider tiers.
        let quirks = Quirks { ranges, range_ms: 180_000, ..quirks.clone() };
        one.feeds = ContentType::AUDIT
            .map(|content_type| {
                Feed::new(content_type).backlog(40, 6.0).records(2, 9).live_every_ms(1500).quirks(quirks.clone())
            })
            .to_vec();
        scenario = scenario.tenant(one);
    }
    let scenario = every_fault().into_iter().fold(scenario, Scenario::fault);
    let world = World::new(scenario, "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"5s\"\n");
    let mut daemon = world.run();
    let seen = |status: &Value| {
        status["tenants"].as_array().is_some_and(|all| {
            all.len() == 3 && all.iter().all(|tenant| tenant["stored_today"]["blobs"].as_u64() >= Some(160))
        })
    };
    daemon.wait("the backlog is stored", seen).await;
    world.cloud.control().clear_faults();
    let ledger = daemon.wait_collected(&world).await;
    let parts = ledger.blobs.iter().filter(|blob| blob.part_of.is_some() && blob.fetched > 0).count();
    assert!(parts > 0, "no window has cut a blob");
    let none = |status: &Value| {
        status["tenants"].as_array().is_some_and(|all| all.iter().all(|tenant| tenant["dead_letters"] == 0))
    };
    daemon.wait("what was listed wrongly was listed rightly again", none).await;
    assert!(daemon.log().contains("is listed rightly now"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
    world.assert_collected_by(&ledger);
    world.assert_store_is_sound().await;
    assert_eq!(world.cloud.ledger().foreign_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_never_goes_to_another_host() {
    let world = World::new(
        Scenario::new(4).tenant(tenant(1, 10, 1.0)),
        "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"3s\"\n",
    );
    let control = world.cloud.control();
    control.add_fault(fault(&[Endpoint::List], When::Every(2), Effect::ForeignContentUri));
    control.add_fault(fault(&[Endpoint::List], When::Every(3), Effect::ForeignNextPage));
    control.add_fault(fault(&[Endpoint::Blob], When::Every(3), Effect::Redirect { status: 302 }));
    let mut daemon = world.run();
    daemon
        .wait("it has listed and fetched for a while", |status| {
            status["tenants"][0]["stored_today"]["blobs"].as_u64() >= Some(5)
        })
        .await;
    control.clear_faults();
    daemon.wait_collected(&world).await;
    assert_eq!(world.cloud.ledger().foreign_requests, 0);
    world.assert_collected();
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_blob_becomes_a_dead_letter_and_the_rest_is_collected() {
    let world = World::new(Scenario::new(5).tenant(tenant(1, 8, 2.0)), "");
    let victim = world.cloud.ledger().blobs[3].clone();
    // Listed, but gone when it is fetched.
    world.cloud.control().add_fault(Fault {
        tenant: None,
        on: vec![Endpoint::Blob],
        content_type: Some(victim.content_type),
        when: When::First(1),
        effect: Effect::Af { code: "AF20051".to_owned(), status: 400, message: None },
    });
    let mut daemon = world.run();
    let status = daemon
        .wait("one blob is given up and the others are stored", |status| {
            let tenant = &status["tenants"][0];
            tenant["dead_letters"] == 1 && tenant["stored_today"]["blobs"] == 31 && tenant["queue"]["entries"] == 0
        })
        .await;
    assert_eq!(status["tenants"].as_array().unwrap().len(), 1);
    assert!(daemon.log().contains("AF20051"), "{}", daemon.log());
    // A dead letter stays one: listing the blob again brings nothing.
    let fetched = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    let listed = world.cloud.ledger().requests(tenant_id(1), Endpoint::List);
    while world.cloud.ledger().requests(tenant_id(1), Endpoint::List) < listed + 8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob), fetched);
    assert_no_violations(&world.cloud.ledger());
    assert!(daemon.stop().await.success());
}
