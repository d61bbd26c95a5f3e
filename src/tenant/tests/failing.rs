//! Foul weather: throttling, refusals, bad bodies, panics, clocks.

use jiff::SignedDuration;
use tenantry_simulator::{
    BadEntry, BadJson, Effect, ErrorBody, Fault, Point, SubscriptionStatus, Throttle, ThrottleShape, When,
};

use super::*;
use crate::clock::{Clock as _, SharedClock};
use crate::report::Trouble;
use crate::store::{DeadLetter, Wait, WaitKey, Watermark};

fn trouble(world: &World, number: u128) -> Option<Trouble> {
    world.status(tenant(number)).trouble.map(|status| status.trouble)
}

async fn dead_letters(world: &World, number: u128) -> Vec<DeadLetter> {
    world.shared.store.list_dead_letters(tenant(number).into(), 100).await.unwrap()
}

fn throttling(shape: ThrottleShape, number: u128, every: u64) -> Fault {
    Fault::new(Effect::Throttled(Throttle { shape, retry_after_s: Some(1) }))
        .tenant(tenant(number))
        .when(When::Every(every))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_tenant_waits_and_no_other_does() {
    let shapes = [ThrottleShape::Forbidden, ThrottleShape::TooManyRequests, ThrottleShape::Sentence];
    let scenario = shapes
        .into_iter()
        .zip([29, 37, 43])
        .fold(scenario().tenant(offering(1, 30, 2.0)).tenant(offering(2, 30, 2.0)), |scenario, (shape, every)| {
            scenario.fault(throttling(shape, 1, every))
        });
    let world = World::new(scenario, |_| {});
    world.until("the other tenant", |world| world.stored(tenant(2)).len() == 120).await;
    world.collected().await;
    world.assert_faithful();
    let throttled = |number| {
        let statuses = &world.cloud.ledger().tenants[&tenant(number)].statuses;
        statuses
            .values()
            .flatten()
            .filter(|(status, _)| matches!(status, 403 | 429))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    assert!(throttled(1) > 0 && throttled(2) == 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_wait_outlives_the_process() {
    let wait = Effect::Throttled(Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(1800) });
    let faulty = scenario().tenant(offering(1, 5, 1.0).subscribed()).fault(Fault::new(wait).on([Endpoint::List]));
    let world = World::new(faulty, |_| {});
    world.until("the wait", |world| world.status(tenant(1)).state == TenantState::Throttled).await;
    let World { cloud, settings, registry, shared, dir } = world;
    registry.drain(Duration::from_secs(5)).await;
    let waits = shared.store.waits(tenant(1).into()).await.unwrap();
    assert!(waits[&WaitKey::Throttled].until > shared.time.now() + Duration::from_secs(1700));
    drop(registry);
    shared.store.close().await.unwrap();
    let before = cloud.ledger();

    let (registry, shared) = super::registry(&dir);
    let world = World { cloud, settings, registry, shared, dir };
    world.apply(&world.settings);
    world.until("the wait", |world| world.status(tenant(1)).state == TenantState::Throttled).await;
    world.until("a token", |world| world.status(tenant(1)).token_until.is_some()).await;
    let after = world.cloud.ledger();
    for endpoint in [Endpoint::Subscriptions, Endpoint::List, Endpoint::Blob] {
        assert_eq!(after.requests(tenant(1), endpoint), before.requests(tenant(1), endpoint), "{endpoint:?}");
    }
    assert!(after.violations.is_empty(), "{:#?}", after.violations);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_is_off_is_explained_and_started_after_the_cooldown() {
    let world = World::new(scenario().tenant(offering(1, 4, 1.0).audit_log_off()), |_| {});
    world.until("the trouble", |world| trouble(world, 1).is_some_and(|trouble| trouble.kind == "audit_log_off")).await;
    world.until("the state", |world| world.status(tenant(1)).state == TenantState::Paused).await;
    let told = trouble(&world, 1).unwrap();
    assert!(told.needs_operator && told.remedy.contains("Set-AdminAuditLogConfig"), "{told:?}");

    // It is turned on; a restart does not shorten the cool-down.
    world.cloud.control().set_audit_log(tenant(1), true);
    let World { cloud, settings, registry, shared, dir } = world;
    registry.drain(Duration::from_secs(5)).await;
    drop(registry);
    shared.store.close().await.unwrap();
    let (registry, shared) = super::registry(&dir);
    let world = World { cloud, settings, registry, shared, dir };
    let looks = world.cloud.ledger().requests(tenant(1), Endpoint::Subscriptions);
    world.apply(&world.settings);
    world.until("a look", |world| world.cloud.summary().requests(tenant(1), Endpoint::Subscriptions) > looks).await;
    world.registry.drain(Duration::from_secs(5)).await;
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Start), 4, "one for each content type");
    let waits = world.shared.store.waits(tenant(1).into()).await.unwrap();
    assert_eq!(waits.len(), 4, "{waits:?}");
    for (key, wait) in waits {
        assert!(wait.until > world.shared.time.now() + Duration::from_mins(14), "{key:?}");
        // A quarter of an hour later.
        world.shared.store.remember_wait(tenant(1).into(), key, None).await.unwrap();
    }
    world.cloud.control().apply(simulator::Command::SetStartCooldown(0));
    let World { cloud, settings, shared, dir, .. } = world;
    let world = World { cloud, settings, registry: Arc::new(Registry::new(shared.clone())), shared, dir };
    world.apply(&world.settings);
    world.collected().await;
    world.until("the end of the trouble", |world| trouble(world, 1).is_none()).await;
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooldown_begins_when_its_start_request_is_sent_and_not_while_it_waits() {
    let busy = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: Some(600) };
    let busy = Fault::new(busy).on([Endpoint::Start]).when(When::First(1));
    let world = World::new(scenario().tenant(offering(1, 2, 1.0)).fault(busy), |_| {});
    world.until("the wait", |world| world.status(tenant(1)).state == TenantState::Throttled).await;
    let cooling = async |shared: &Shared| {
        let waits = shared.store.waits(tenant(1).into()).await.unwrap();
        waits.into_keys().filter(|key| matches!(key, WaitKey::SubscriptionStart(_))).count()
    };
    assert!(cooling(&world.shared).await <= 1, "the others wait for the gate, and have sent nothing");
    let before = trouble(&world, 1);
    world.registry.drain(Duration::from_secs(5)).await;
    assert!(cooling(&world.shared).await <= 1, "nothing was sent at the end");
    assert_eq!(trouble(&world, 1), before, "and nothing is wrong with that");
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Start), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_two_hours_between_two_starts_outlives_the_process_in_full() {
    let dir = TempDir::with_prefix("tenantry-tree-").unwrap();
    let (_, shared) = super::registry(&dir);
    let id = TenantId::from(tenant(1));
    let from = shared.time.now();
    let wait = Wait { from, until: from + SignedDuration::from_hours(2) };
    for content_type in ContentType::AUDIT {
        let key = WaitKey::SubscriptionStart(content_type);
        shared.store.remember_wait(id, key, Some(wait)).await.unwrap();
    }
    // One that a clock a month ahead wrote, and one that is over.
    let ahead = from + SignedDuration::from_hours(24 * 30);
    let throttled = Wait { from: ahead, until: ahead + SignedDuration::from_secs(2) };
    shared.store.remember_wait(id, WaitKey::Throttled, Some(throttled)).await.unwrap();
    let over = Wait { from: from - SignedDuration::from_hours(2), until: from - SignedDuration::from_hours(1) };
    shared.store.remember_wait(id, WaitKey::Token, Some(over)).await.unwrap();
    shared.store.close().await.unwrap();

    let world = World::at(scenario().tenant(offering(1, 2, 1.0)), dir, |_| {});
    world.until("a look", |world| world.cloud.summary().requests(tenant(1), Endpoint::Subscriptions) > 0).await;
    world.until("the state", |world| world.status(tenant(1)).state == TenantState::Starting).await;
    world.registry.drain(Duration::from_secs(5)).await;
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Start), 0);
    let waits = world.shared.store.waits(id).await.unwrap();
    assert_eq!(waits.len(), 4, "those that are over are forgotten: {waits:?}");
    assert!(waits.values().all(|left| *left == wait), "{waits:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_somebody_disabled_is_enabled_again_once() {
    let world = World::new(scenario().tenant(offering(1, 4, 1.0).subscribed()), |_| {});
    world.collected().await;
    let control = world.cloud.control();
    control.set_subscription(tenant(1), FEEDS[0], SubscriptionStatus::Disabled);
    world.until("a start", |world| world.cloud.summary().requests(tenant(1), Endpoint::Start) == 1).await;
    control.add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(2).records(2));
    world.collected().await;

    // Whoever does it again is not fought against: the next start waits for its cool-down, other types go on.
    control.set_subscription(tenant(1), FEEDS[0], SubscriptionStatus::Disabled);
    let told = |trouble: Trouble| trouble.code.as_deref() == Some("AF20023");
    world.until("the trouble", |world| trouble(world, 1).is_some_and(told)).await;
    control.add_blobs(BlobSpec::new(tenant(1), FEEDS[1]).count(2).records(2));
    world.until("other types", |world| world.stored(tenant(1)).len() == 20).await;
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Start), 1);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_panics_the_parser_is_kept_unparsed_and_hurts_nobody() {
    let world = World::new(scenario().tenant(offering(1, 10, 1.0)), |_| {});
    let hostile = world.cloud.control().add_blobs(BlobSpec::new(tenant(1), FEEDS[3]).count(2).fault_point("panic"));
    world.until("the others", |world| world.stored(tenant(1)).len() >= 40).await;
    world.until("the dead letters", |world| world.status(tenant(1)).dead_letters == 2).await;
    let ledger = world.cloud.ledger();
    for letter in dead_letters(&world, 1).await {
        assert_eq!((letter.entry.panics, letter.entry.attempts), (3, 3));
        assert!(letter.reason.contains("panic 3 times"), "{}", letter.reason);
    }
    let defects: Vec<_> = world.headers(tenant(1)).into_iter().filter(|header| header.defect.is_some()).collect();
    assert_eq!(defects.len(), 2);
    for defect in defects {
        let mut bytes = Vec::new();
        let read = world.shared.store.read_blob(tenant(1).into(), defect.content_type, defect.seq, |part| {
            bytes.extend_from_slice(part);
        });
        assert!(read.unwrap().is_some());
        let blob = ledger.blob_named(tenant(1), defect.content_id.as_str()).unwrap();
        assert!(hostile.contains(&blob.number));
        assert_eq!(bytes, blob.body());
        assert_eq!(blob.fetched, 4, "three times in vain, and once to keep it");
    }
    world.until("an empty queue", |world| world.status(tenant(1)).queue.entries == 0).await;
    assert_eq!(world.status(tenant(1)).restarts, 0, "a blob's panic is not the tree's");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_expires_before_it_can_be_retrieved_is_reported_lost() {
    let down = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None };
    let world = World::new(scenario().tenant(offering(1, 3, 1.0)).fault(Fault::new(down).on([Endpoint::Blob])), |_| {});
    world.until("the queue", |world| world.status(tenant(1)).queue.entries == 12).await;
    let control = world.cloud.control();
    let expired: Vec<_> = world.cloud.ledger().offered(tenant(1)).take(5).map(|blob| blob.number).collect();
    control.expire_blobs(expired.iter().copied());
    control.clear_faults();
    world.until("the dead letters", |world| world.status(tenant(1)).dead_letters == 5).await;
    world.until("the others", |world| world.stored(tenant(1)).len() == 7).await;
    let ledger = world.cloud.ledger();
    let lost: BTreeSet<_> = ledger.lost(tenant(1)).map(|blob| blob.content_id.clone()).collect();
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters.iter().map(|letter| letter.entry.blob.content_id.to_string()).collect::<BTreeSet<_>>(), lost);
    assert!(letters.iter().all(|letter| letter.reason.contains("expired")), "{letters:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trouble_of_listing_and_retrieving_passes() {
    use Endpoint::{Blob, List, Subscriptions};
    let every = |endpoint, every, effect| Fault::new(effect).on([endpoint]).when(When::Every(every));
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let af = |code: &str, status| Effect::Af { code: code.to_owned(), status, message: None };
    let faults = [
        Fault::new(status(500, ErrorBody::Empty)).on([Subscriptions]).when(When::First(1)),
        every(List, 11, status(503, ErrorBody::Html)),
        every(List, 13, Effect::Reset(Point::MidBody)),
        every(List, 17, Effect::EmptyPage),
        every(List, 19, Effect::Truncate { chunked: true }),
        every(List, 23, af("AF20031", 400)),
        every(List, 29, Effect::Denied),
        every(List, 31, Effect::NextPageHeader("NEXTPAGEURL".to_owned())),
        every(Blob, 11, status(500, ErrorBody::Json)),
        every(Blob, 13, Effect::Reset(Point::BeforeHeaders)),
        every(Blob, 17, Effect::Truncate { chunked: false }),
        every(Blob, 19, Effect::BadJson(BadJson::Cut)),
        every(Blob, 23, Effect::DamagedGzip),
        every(Blob, 29, Effect::Denied),
        every(Blob, 31, Effect::Stall { at: Point::MidBody, for_ms: Some(2500) }),
    ];
    let scenario = faults.into_iter().fold(scenario().tenant(offering(1, 40, 6.0)), Scenario::fault);
    let world = World::new(scenario.page_size(5), |_| {});
    world.collected().await;
    world.assert_faithful();
    let ledger = world.cloud.ledger();
    assert!(ledger.faults.iter().all(|(_, _, struck)| *struck > 0), "a fault never struck: {:?}", ledger.faults);
    assert!(ledger.requests(tenant(1), Endpoint::Token) <= 2, "401s renewed the token too often");
    assert_eq!(world.status(tenant(1)).dead_letters, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_addresses_are_reported_and_never_followed() {
    let faults = [
        Fault::new(Effect::ForeignContentUri).on([Endpoint::List]).content_type(FEEDS[0]),
        Fault::new(Effect::ForeignNextPage).on([Endpoint::List]).content_type(FEEDS[1]),
    ];
    let scenario = faults.into_iter().fold(scenario().tenant(offering(1, 6, 0.05)), Scenario::fault);
    let world = World::new(scenario, |settings| settings.collect.recent_interval = Duration::from_secs(1));
    let told = |trouble: Trouble| trouble.kind == "foreign_uri" && trouble.needs_operator;
    world.until("the refused link", |world| trouble(world, 1).is_some_and(told)).await;
    // The first page's entries are good, and so are the other content types.
    world.until("what is good", |world| world.stored(tenant(1)).len() == 18).await;
    world.until("the dead letters", |world| world.status(tenant(1)).dead_letters == 6).await;
    let lists = world.cloud.summary().requests(tenant(1), Endpoint::List);
    world.until("more polls", |world| world.cloud.summary().requests(tenant(1), Endpoint::List) > lists + 20).await;
    assert_eq!(world.status(tenant(1)).dead_letters, 6, "each is counted once, and not with every listing");
    let letters = dead_letters(&world, 1).await;
    let ids: BTreeSet<_> = letters.iter().map(|letter| letter.entry.blob.content_id.to_string()).collect();
    let ledger = world.cloud.ledger();
    let offered = ledger.offered(tenant(1)).filter(|blob| blob.content_type == FEEDS[0]);
    assert_eq!(ids, offered.map(|blob| blob.content_id.clone()).collect());
    for letter in letters {
        assert!(letter.reason.contains("is not on the management host"), "{}", letter.reason);
    }
    let mark = world.shared.store.watermarks(tenant(1).into()).await.unwrap();
    assert_eq!(
        mark.get(&ContentType::AUDIT[1]).and_then(|mark| mark.listed_to),
        None,
        "what was not listed is not marked"
    );
    // What is listed rightly later is collected.
    world.cloud.control().clear_faults();
    world.until("the others", |world| world.stored(tenant(1)).len() == 24).await;
    world.until("no dead letter", |world| world.status(tenant(1)).dead_letters == 0).await;
    assert_eq!(dead_letters(&world, 1).await, []);
    assert_eq!(world.cloud.ledger().foreign_requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_entry_costs_its_page_nothing_and_is_on_record() {
    for (how, named) in [(BadEntry::LongUri, true), (BadEntry::LongId, false), (BadEntry::NoId, false)] {
        let fault = Fault::new(Effect::BadEntry(how)).on([Endpoint::List]).content_type(FEEDS[0]);
        let scenario = scenario().tenant(offering(1, 6, 0.05)).fault(fault);
        let world = World::new(scenario, |settings| settings.collect.recent_interval = Duration::from_secs(1));
        // Windows adjoin: the first entry of each of the one or two that hold something.
        let good = |world: &World| world.stored(tenant(1)).len() as u64;
        let on_record = |world: &World| world.status(tenant(1)).dead_letters;
        world.until("all the others", |world| good(world) >= 22 && good(world) + on_record(world) == 24).await;
        let letters = dead_letters(&world, 1).await;
        for letter in &letters {
            let id = letter.entry.blob.content_id.to_string();
            let known = world.cloud.ledger().blob_named(tenant(1), &id).is_some();
            assert_eq!(known, named, "{how:?}: {letter:#?}");
            assert!(id.len() <= 1024 && letter.entry.blob.content_uri.len() <= 300, "{how:?}: {letter:#?}");
        }
        world.cloud.control().clear_faults();
        world.collected().await;
        // Of what has no name, nobody can tell that it is listed rightly now.
        let left = if named { 0 } else { letters.len() as u64 };
        world.until("the end of the others", |world| on_record(world) == left).await;
        world.assert_faithful();
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_stalls_delays_nobody_else() {
    let stall = Effect::Stall { at: Point::AfterHeaders, for_ms: None };
    let scenario = scenario()
        .tenant(offering(1, 50, 1.0).subscribed())
        .tenant(offering(2, 50, 1.0).subscribed())
        .fault(Fault::new(stall).tenant(tenant(1)).on([Endpoint::Blob]));
    // So few slots that the stalled retrievals could hold them all.
    let world = World::new(scenario, |settings| settings.collect.concurrency = 4);
    world.until("the other tenant", |world| world.stored(tenant(2)).len() == 200).await;
    assert_eq!(world.stored(tenant(1)).len(), 0);
    world.cloud.control().clear_faults();
    world.collected().await;
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_restarts_the_tree_and_shows() {
    let world = World::new(scenario().tenant(offering(90, 10, 1.0)).tenant(offering(91, 10, 1.0)), |_| {});
    world.collected().await;
    super::super::poll::panic_once_for(tenant(90).into());
    world.until("the restart", |world| world.status(tenant(90)).restarts == 1).await;
    world.cloud.control().add_blobs(BlobSpec::new(tenant(90), FEEDS[0]).count(2).records(2));
    world.collected().await;
    world.until("the end of the trouble", |world| trouble(world, 90).is_none()).await;
    world.assert_faithful();
    assert_eq!(world.status(tenant(91)).restarts, 0);
    assert_eq!(world.cloud.ledger().requests(tenant(90), Endpoint::Token), 1, "the token outlives the tree");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refused_tokens_asks_for_few() {
    let denied = Fault::new(Effect::Denied).when(When::Between(2000, 10_000));
    let denied = denied.on([Endpoint::List, Endpoint::Blob, Endpoint::Subscriptions]);
    let world = World::new(scenario().tenant(offering(1, 10, 1.0)).fault(denied), |_| {});
    world.collected().await;
    world.until("the storm", |world| trouble(world, 1).is_some_and(|trouble| trouble.kind == "token_refused")).await;
    world.until("the end of the storm", |world| trouble(world, 1).is_none()).await;
    world.cloud.control().add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(2).records(2));
    world.collected().await;
    assert!(world.cloud.ledger().requests(tenant(1), Endpoint::Token) <= 2);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_service_refuses_the_token_it_shows_why_there_is_no_other_one() {
    let world = World::new(scenario().tenant(offering(1, 1, 1.0)), |_| {});
    world.collected().await;
    // The next request is thirty seconds after the first.
    world.cloud.control().set_app(simulator::App::new(APP).secret("another"));
    world.cloud.control().revoke_tokens(tenant(1));
    world.until("the cause", |world| trouble(world, 1).is_some_and(|trouble| trouble.needs_operator)).await;
    let trouble = trouble(&world, 1).unwrap();
    assert_eq!(trouble.code.as_deref(), Some("AADSTS7000215"), "{trouble:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_names_the_remedy_and_leaves_the_others_alone() {
    let mut scenario = scenario().tenant(offering(1, 5, 1.0)).tenant(offering(2, 5, 1.0));
    // Consent was given to nothing.
    scenario.tenants[0] = scenario.tenants[0].clone().consent(APP, &[]);
    let world = World::new(scenario, |_| {});
    world.until("the other tenant", |world| world.stored(tenant(2)).len() == 20).await;
    let told = |trouble: Trouble| trouble.code.as_deref() == Some("AF10001") && trouble.needs_operator;
    world.until("the trouble", |world| trouble(world, 1).is_some_and(told)).await;
    assert!(world.cloud.ledger().requests(tenant(1), Endpoint::Token) <= 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_downtime_put_out_of_reach_is_reported_lost() {
    let dir = TempDir::with_prefix("tenantry-tree-").unwrap();
    let (_, shared) = super::registry(&dir);
    let days = |days: i64| shared.time.now() - SignedDuration::from_hours(24 * days);
    for (content_type, ago) in ContentType::AUDIT.into_iter().zip([10, 3, 3, 3]) {
        let mark = Watermark { listed_to: Some(days(ago)), ..Watermark::default() };
        shared.store.set_watermark(tenant(1).into(), content_type, mark);
    }
    shared.store.close().await.unwrap();
    let world = World::at(scenario().tenant(offering(1, 10, 2.0).subscribed()), dir, |_| {});
    world.collected().await;
    let content = world.status(tenant(1)).content;
    let gaps: Vec<_> = ContentType::AUDIT.iter().map(|content_type| content[content_type].gaps).collect();
    assert_eq!(gaps, [1, 0, 0, 0]);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_services_time_lose_nothing() {
    // Tokens that no step lets expire: this is not about them.
    let scenario = scenario().token_lifetime(Duration::from_hours(24 * 365)).tenant(offering(1, 10, 1.0));
    let world = World::new(scenario, |settings| settings.collect.recent_interval = Duration::from_secs(1));
    world.collected().await;
    let control = world.cloud.control();
    let hour = 3_600_000;
    let month = 30 * 24 * hour;
    for offset in [hour, 0, -hour, 0, month, 0, -month, 0] {
        control.set_clock_offset_ms(offset);
        let near = |world: &World| {
            let ahead = world.shared.time.host_ahead_by().unwrap().as_millis() + i128::from(offset);
            ahead.abs() < 5000
        };
        world.until("the service's time", near).await;
        world.new_blobs_are_stored().await;
    }
    world.assert_stored_as_offered();
    // A window that was planned before the service's time is a month off is out of bounds when it arrives.
    let ledger = world.cloud.ledger();
    let others: Vec<_> =
        ledger.violations.iter().filter(|remark| !remark.what.contains("a window the reference forbids")).collect();
    assert!(others.is_empty() && ledger.foreign_requests == 0, "{others:#?}");
    assert_eq!(world.status(tenant(1)).dead_letters, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_while_the_services_date_is_a_month_off_is_collected_after_it() {
    let down = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None };
    let scenario = scenario().token_lifetime(Duration::from_hours(24 * 365)).tenant(offering(1, 3, 1.0));
    let world = World::new(scenario.fault(Fault::new(down).on([Endpoint::Blob])), |_| {});
    world.until("the queue", |world| world.status(tenant(1)).queue.entries == 12).await;
    let control = world.cloud.control();
    let month = SignedDuration::from_hours(30 * 24);
    for ahead in [month, SignedDuration::ZERO] {
        control.set_date_offset_ms(i64::try_from(ahead.as_millis()).unwrap());
        let near = |world: &World| (world.shared.time.host_ahead_by().unwrap() + ahead).abs().as_secs() < 5;
        world.until("the service's time", near).await;
        if ahead == month {
            // The first may have been under way before; of so many failures in a row only one is tried at a time.
            let asked = || world.cloud.ledger().requests(tenant(1), Endpoint::Blob);
            let failed = asked() + 2;
            world.until("a failure", |_| asked() >= failed).await;
        }
    }
    control.clear_faults();
    world.collected().await;
    assert_eq!(world.status(tenant(1)).dead_letters, 0);
    world.assert_stored_as_offered();
    world.stop().await;
}

/// A host's clock that is set while it runs.
#[derive(Debug, Default)]
struct Stepping(std::sync::atomic::AtomicI64);

impl crate::clock::Clock for Stepping {
    fn now(&self) -> jiff::Timestamp {
        let hours = self.0.load(std::sync::atomic::Ordering::Relaxed);
        SystemClock.now() + SignedDuration::from_hours(hours)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_hosts_clock_move_nothing() {
    let clock = Arc::new(Stepping::default());
    let scenario = scenario().tenant(offering(1, 10, 1.0));
    let world = World::with(scenario, TempDir::new().unwrap(), Arc::clone(&clock) as SharedClock, |settings| {
        settings.collect.recent_interval = Duration::from_secs(1);
    });
    world.collected().await;
    for hours in [1, 0, -1, 30 * 24, 0, -30 * 24, 0] {
        clock.0.store(hours, std::sync::atomic::Ordering::Relaxed);
        world.new_blobs_are_stored().await;
        assert!((world.shared.time.now() - SystemClock.now()).get_seconds().abs() < 5);
    }
    world.collected().await;
    world.assert_faithful();
    world.stop().await;
}
