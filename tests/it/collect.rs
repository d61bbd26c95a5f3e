//! Collection end to end, in fair weather and in foul.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{
    BadEntry, BadJson, BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, LeftOut, Point, Quirks,
    Scenario, Throttle, ThrottleShape, When,
};
use uuid::Uuid;

use crate::world::{Daemon, World, assert_no_violations, tenant, tenant_id};

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

/// Everything that goes wrong at Microsoft, each again and again or at a certain time.
fn every_fault() -> Vec<Fault> {
    use Endpoint::{Blob, List, Start, Subscriptions, Token};
    let some = |every| When::Every(every);
    let throttled = |shape, retry_after_s| Effect::Throttled(Throttle { shape, retry_after_s });
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let af = |code: &str, status| Effect::Af { code: code.to_owned(), status, message: None };
    let at = |number| When::Requests(vec![number]);
    let link = |name: &str| Effect::NextPageHeader(name.to_owned());
    let for_ever = |at| Effect::Stall { at, for_ms: None };
    vec![
        fault(&[Token], When::First(1), status(503, ErrorBody::Html)),
        fault(&[Subscriptions], When::First(1), status(500, ErrorBody::Empty)),
        fault(&[Start], at(2), status(503, ErrorBody::Json)),
        // Links to further pages, while there is a backlog of several pages.
        fault(&[List], at(9), link("NextPageUrl")),
        fault(&[List], at(11), link("nextpageuri")),
        fault(&[List], at(13), link("Nextpageuri")),
        fault(&[List], some(14), Effect::EmptyPage),
        fault(&[List], at(15), af("AF20031", 400)),
        fault(&[List], some(83), Effect::ForeignNextPage),
        fault(&[List], some(23), status(500, ErrorBody::Json)),
        fault(&[List], some(31), status(408, ErrorBody::Empty)),
        fault(&[List], some(37), status(503, ErrorBody::Html)),
        fault(&[List], some(41), Effect::Reset(Point::BeforeHeaders)),
        fault(&[List], some(43), Effect::Reset(Point::MidBody)),
        fault(&[List], some(47), Effect::BadJson(BadJson::Cut)),
        fault(&[List], some(53), Effect::BadJson(BadJson::NotAnArray)),
        fault(&[List], some(59), Effect::Truncate { chunked: true }),
        // A token that is refused twice in a short time is a reason to pause: once is what passes.
        fault(&[List], at(61), Effect::Denied),
        fault(&[List], some(67), Effect::Redirect { status: 307 }),
        fault(&[List], some(71), Effect::LeaveOut(LeftOut::Half)),
        fault(&[List], some(73), Effect::LeaveOut(LeftOut::Listed)),
        fault(&[List], some(79), Effect::RepeatedEntry),
        fault(&[List], at(40), for_ever(Point::BeforeHeaders)),
        fault(&[List], at(50), for_ever(Point::MidBody)),
        fault(&[Blob], some(17), status(500, ErrorBody::Json)),
        fault(&[Blob], some(19), Effect::Reset(Point::AfterHeaders)),
        fault(&[Blob], some(23), Effect::Reset(Point::MidBody)),
        fault(&[Blob], some(29), Effect::Truncate { chunked: false }),
        fault(&[Blob], some(31), Effect::Truncate { chunked: true }),
        fault(&[Blob], some(37), Effect::BadJson(BadJson::Garbage)),
        fault(&[Blob], some(41), Effect::BadJson(BadJson::NotAnArray)),
        fault(&[Blob], some(43), Effect::DamagedGzip),
        fault(&[Blob], some(47), Effect::Stall { at: Point::MidBody, for_ms: Some(3000) }),
        fault(&[Blob], at(60), for_ever(Point::AfterHeaders)),
        fault(&[Blob], at(70), for_ever(Point::MidBody)),
        fault(&[Blob], at(53), Effect::Denied),
        fault(&[Blob], some(61), Effect::Encoding { gzip: false }),
        fault(&[Blob], some(67), Effect::Redirect { status: 302 }),
        fault(&[Blob], some(71), Effect::BadJson(BadJson::Empty)),
        fault(&[Blob], at(40), throttled(ThrottleShape::Forbidden, None)),
        fault(&[Blob], at(90), throttled(ThrottleShape::TooManyRequests, Some(2))),
        fault(&[List], at(30), throttled(ThrottleShape::Sentence, Some(2))),
        fault(&[List], at(60), throttled(ThrottleShape::PlainText, Some(1))),
        fault(&[List], at(100), throttled(ThrottleShape::Dated, Some(3))),
        fault(&[Blob], at(140), throttled(ThrottleShape::Dated, Some(2))),
        // A body under another name is whole, and counts as delivered: not for the tenant whose content expires.
        fault(&[Blob], some(7), Effect::ContentType("text/html".to_owned())).tenant(tenant_id(1)),
        fault(&[List], some(7), Effect::ForeignContentUri).tenant(tenant_id(3)),
        fault(&[List], some(11), Effect::BadEntry(BadEntry::LongUri)).tenant(tenant_id(3)),
    ]
}

/// Whose part of a blob some windows cut off,
const CUT: u32 = 1;
/// whose content expires while all this goes on,
const EXPIRES: u32 = 2;
/// and whose content is listed wrongly. A part, or what expires, may never be listed rightly again: the three are apart.
const WRONGLY: u32 = 3;

fn in_foul_weather() -> Scenario {
    let quirks = Quirks {
        duplicates: 0.1,
        same_instant: 0.2,
        listed_within_ms: 2000,
        late: 0.1,
        late_hours: 1.0,
        ..Quirks::default()
    };
    (1..=3).fold(Scenario::new(3).page_size(5), |scenario, number| {
        // Shorter than the overlap of the polls: a longer one is whole only for the wider tiers.
        let ranges = if number == CUT { 0.2 } else { 0.0 };
        let expiring = if number == EXPIRES { 0.1 } else { 0.0 };
        // What is fetched in part and expires before it is whole is lost to everybody, and no dead letter.
        // Windows end three seconds ago, and a second look comes after the interval of the sweeps.
        let partial_for_ms = if number == EXPIRES { 0 } else { 15_000 };
        let quirks =
            Quirks { ranges, range_ms: 180_000, expiring, expires_in_ms: 60_000, partial_for_ms, ..quirks.clone() };
        let mut one = tenant(number, 0, 1.0);
        one.feeds = ContentType::AUDIT
            .map(|content_type| {
                Feed::new(content_type).backlog(40, 6.0).records(2, 9).live_every_ms(1500).quirks(quirks.clone())
            })
            .to_vec();
        scenario.tenant(one)
    })
}

/// Waits until each of these faults has struck.
async fn until_struck(daemon: &mut Daemon, world: &World, faults: &BTreeSet<u64>) {
    daemon
        .wait("every fault has struck", |_| {
            let counts = world.cloud.summary().faults;
            let struck = counts.iter().filter(|(fault, _, struck)| *struck > 0 && faults.contains(fault)).count();
            struck == faults.len()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_fault_on_nothing_is_lost_and_nothing_comes_twice() {
    let world = World::new(
        in_foul_weather(),
        "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"5s\"\nsweep_interval = \"20s\"\n",
    );
    let control = world.cloud.control();
    // Some of what expires is never delivered, whatever else goes wrong: what of it is listed is certain to be lost.
    let ledger = world.cloud.ledger();
    let soon = ledger.at + Duration::from_mins(2);
    let expiring: Vec<_> = ledger.blobs.iter().filter(|blob| blob.content_expiration < soon).collect();
    assert!(expiring.len() > 4 && expiring.iter().all(|blob| blob.tenant == tenant_id(EXPIRES)), "{}", expiring.len());
    let last_expiry = expiring.iter().map(|blob| blob.content_expiration).max().unwrap();
    let (mut never, mut outages): (BTreeSet<(Uuid, String)>, Vec<u64>) = Default::default();
    for blob in expiring.iter().step_by(3) {
        let outage = Effect::Status { status: 502, body: ErrorBody::Text, retry_after_s: None };
        outages.push(control.add_fault(Fault::new(outage).on([Endpoint::Blob]).when(When::Blob(blob.number))));
        never.insert((blob.tenant, blob.content_id.clone()));
    }
    let faults: BTreeSet<u64> = every_fault().into_iter().map(|fault| control.add_fault(fault)).collect();

    let mut daemon = world.run();
    let count = |status: &Value, number: u32, what: fn(&Value) -> Option<u64>| {
        let all = status["tenants"].as_array().into_iter().flatten();
        let id = tenant_id(number).to_string();
        all.filter(|tenant| tenant["id"] == id.as_str()).find_map(what).unwrap_or(0)
    };
    let stored = |tenant: &Value| tenant["stored_today"]["blobs"].as_u64();
    let dead = |tenant: &Value| tenant["dead_letters"].as_u64();
    daemon
        .wait("the backlog is stored", |status| {
            [(CUT, 160), (EXPIRES, 160 - expiring.len() as u64), (WRONGLY, 160)]
                .into_iter()
                .all(|(number, least)| count(status, number, stored) >= least)
        })
        .await;
    // New content goes on coming, so that each fault strikes in the end.
    // Now the service says itself that it is gone.
    daemon.wait("what expires has expired", |_| world.cloud.summary().at > last_expiry).await;
    for fault in outages {
        control.remove_fault(fault);
    }
    until_struck(&mut daemon, &world, &faults).await;
    for fault in &faults {
        control.remove_fault(*fault);
    }
    control.pause();
    // What has failed often is asked for again after ten minutes at most.
    daemon
        .wait_within(
            Duration::from_mins(12),
            "what has expired undelivered is given up, and all else is stored",
            |status| {
                let waiting = |number| count(status, number, |tenant| tenant["queue"]["entries"].as_u64());
                [CUT, EXPIRES, WRONGLY].into_iter().all(|number| waiting(number) == 0)
                    && count(status, EXPIRES, dead) == world.cloud.ledger().lost(tenant_id(EXPIRES)).count() as u64
            },
        )
        .await;
    let collected = daemon.wait_collected(&world).await;
    let parts = collected.blobs.iter().filter(|blob| blob.part_of.is_some() && blob.fetched > 0).count();
    assert!(parts > 0, "no window has cut a blob");
    daemon
        .wait("what was listed wrongly was listed rightly again", |status| {
            count(status, CUT, dead) == 0 && count(status, WRONGLY, dead) == 0
        })
        .await;
    // The sweeps are near, and so are the second looks.
    let grown = |tenant: &Value| {
        let content = tenant["content"].as_object()?;
        content.values().map(|content| content["grown"].as_u64()).sum::<Option<u64>>()
    };
    daemon.wait("what was fetched in part was found to have grown", |status| count(status, WRONGLY, grown) > 0).await;
    let log = daemon.log();
    assert!(log.contains("is listed rightly now"), "{log}");
    assert!(daemon.stop().await.success());

    world.assert_collected_by(&collected);
    world.assert_store_is_sound().await;
    assert_eq!(world.cloud.ledger().foreign_requests, 0);
    // What is lost is exactly what could not be had, it is kept as a dead letter, and it was told.
    let ledger = world.cloud.ledger();
    let lost: BTreeSet<_> =
        ledger.lost(tenant_id(EXPIRES)).map(|blob| (blob.tenant, blob.content_id.clone())).collect();
    let listed = |(tenant, id): &&(Uuid, String)| ledger.blob_named(*tenant, id).is_some_and(|blob| blob.listed > 0);
    let never: BTreeSet<_> = never.iter().filter(listed).cloned().collect();
    assert!(!never.is_empty() && lost.is_superset(&never), "{never:?} was to be lost, and not {lost:?}");
    assert_eq!(world.dead_letters().await, lost);
    for (_, content_id) in &lost {
        let told = log.lines().any(|line| line.contains("content blob given up") && line.contains(content_id.as_str()));
        assert!(told, "nothing is told of {content_id}");
    }
    // Copies are there for who asks for them, and flagged: an export without them has one of each.
    let mut copies: HashMap<String, u32> = HashMap::new();
    for id in world.exported(&["--include-duplicates"]) {
        *copies.entry(id).or_default() += 1;
    }
    let mut repeated = 0;
    for (id, times) in
        (1..=3).flat_map(|number| collected.occurrences(tenant_id(number))).filter(|(_, times)| *times > 1)
    {
        repeated += 1;
        let there = copies.get(&id).copied().unwrap_or(0);
        assert!(there > 1, "{id} was offered {times} times and is there {there} times");
    }
    assert!(repeated > 0, "nothing was repeated");
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
    let gone = Effect::Af { code: "AF20051".to_owned(), status: 400, message: None };
    world.cloud.control().add_fault(Fault::new(gone).on([Endpoint::Blob]).when(When::Blob(victim.number)));
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
