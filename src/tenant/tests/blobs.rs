//! Single blobs that go wrong: what is tried again, for how long, and what is given up.

use jiff::SignedDuration;
use tenantry_simulator::{BadJson, Effect, ErrorBody, Fault, Throttle, ThrottleShape, When};

use super::*;
use crate::content::{ContentBlob, Tier};
use crate::store::{DeadLetter, QueueEntry};

async fn dead_letters(world: &World) -> Vec<DeadLetter> {
    world.shared.store.list_dead_letters(tenant(1).into(), 100).await.unwrap()
}

/// A world whose one tenant offers one blob, which is queued as `change` has it before anything is collected.
async fn with_queued(spec: BlobSpec, faults: &[Fault], change: impl FnOnce(&mut QueueEntry)) -> World {
    let dir = TempDir::with_prefix("tenantry-tree-").unwrap();
    let world = World::at(scenario().tenant(offering(1, 0, 1.0).subscribed()), dir, |settings| {
        settings.tenants.values_mut().for_each(|tenant| tenant.enabled = false);
    });
    for fault in faults {
        world.cloud.control().add_fault(fault.clone());
    }
    world.cloud.control().add_blobs(spec);
    queue_offered(&world, change).await;
    world.apply(&enabled(&world));
    world
}

/// Queues what is offered, as `change` has it.
async fn queue_offered(world: &World, change: impl FnOnce(&mut QueueEntry)) {
    let (store, id) = (&world.shared.store, TenantId::from(tenant(1)));
    let ledger = world.cloud.ledger();
    let offered = ledger.offered(tenant(1)).next().unwrap();
    let listed = ContentBlob {
        content_id: offered.content_id.as_str().into(),
        content_type: ContentType::AUDIT[0],
        content_uri: format!("{}/api/v1.0/{id}/activity/feed/audit/{}", world.cloud.url(), offered.content_id),
        content_created: offered.content_created,
        content_expiration: offered.content_expiration,
    };
    let mut entry = QueueEntry {
        blob: listed,
        tier: Tier::Poll,
        queued_at: world.shared.time.now(),
        attempts: 0,
        panics: 0,
        malformed: 0,
        not_before: None,
        last_error: None,
        again: false,
    };
    change(&mut entry);
    store.enqueue(id, Tier::Poll, vec![entry.blob.clone()]).await.unwrap();
    store.take_queued(id, 1, world.shared.time.now()).await.unwrap();
    store.defer(id, entry).await.unwrap();
}

fn enabled(world: &World) -> Settings {
    let mut settings = world.settings.clone();
    settings.tenants.values_mut().for_each(|tenant| tenant.enabled = true);
    settings
}

/// The entry of the one blob, when its retrieval has failed and everything has stopped.
async fn deferred(world: &World) -> QueueEntry {
    let (store, id) = (&world.shared.store, TenantId::from(tenant(1)));
    world.until("the deferral", |world| world.shared.store.next_deferred(id).is_some()).await;
    world.registry.drain(Duration::from_secs(5)).await;
    let later = world.shared.time.now() + SignedDuration::from_hours(2);
    store.take_queued(id, 1, later).await.unwrap().remove(0)
}

fn waits_for(entry: &QueueEntry, world: &World) -> SignedDuration {
    entry.not_before.unwrap().duration_since(world.shared.time.now())
}

fn on_blobs(effect: Effect) -> Fault {
    Fault::new(effect).on([Endpoint::Blob])
}

fn af(code: &str) -> Effect {
    Effect::Af { code: code.to_owned(), status: 400, message: None }
}

fn spec() -> BlobSpec {
    BlobSpec::new(tenant(1), FEEDS[0]).records(3)
}

const NO_ARRAY: &str = "{\"not\": \"an array\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_good_body_is_stored_as_records_however_many_bad_ones_came_before_it() {
    for (age, malformed) in [(1, 5), (165, 5), (165, 500)] {
        let spec = spec().created_ago(Duration::from_hours(age));
        let world = with_queued(spec, &[], |entry| entry.malformed = malformed).await;
        world.collected().await;
        world.assert_faithful();
        assert_eq!(dead_letters(&world).await, []);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_array_is_asked_for_again_while_there_is_time() {
    let world = with_queued(spec().body(NO_ARRAY), &[], |entry| (entry.malformed, entry.attempts) = (5, 5)).await;
    let told =
        |world: &World| world.status(tenant(1)).trouble.is_some_and(|told| told.trouble.kind == "malformed_body");
    world.until("the trouble", told).await;
    // Another blob of the type works; the trouble stands.
    let good = world.cloud.control().add_blobs(spec());
    let id = world.cloud.ledger().blobs[usize::try_from(good[0]).unwrap()].content_id.clone();
    world.until("the good one", |world| world.stored(tenant(1)).contains(&id)).await;
    assert!(told(&world), "{:#?}", world.status(tenant(1)));
    let entry = deferred(&world).await;
    assert_eq!(entry.malformed, 6);
    let wait = waits_for(&entry, &world);
    assert!(wait > SignedDuration::from_mins(20) && wait < SignedDuration::from_hours(1), "{wait}");
    assert_eq!((world.status(tenant(1)).dead_letters, world.stored(tenant(1)).len()), (0, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_array_on_its_last_day_is_kept_unparsed() {
    let spec = spec().body(NO_ARRAY).created_ago(Duration::from_hours(165));
    let world = with_queued(spec, &[], |entry| entry.malformed = 5).await;
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    let header = world.headers(tenant(1)).remove(0);
    assert!(header.defect.unwrap().contains("not a JSON array"));
    assert_eq!((header.bytes, header.records), (NO_ARRAY.len() as u64, 0));
    assert!(dead_letters(&world).await[0].reason.contains("kept unparsed"));
    assert_eq!(world.status(tenant(1)).trouble, None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_is_no_bad_body() {
    let page = on_blobs(Effect::Status { status: 200, body: ErrorBody::Html, retry_after_s: None });
    // On its last day, and it would be kept: but this is no evidence of what the service has.
    let old = spec().created_ago(Duration::from_hours(165));
    let world = with_queued(old, &[page.first(3)], |entry| entry.malformed = 5).await;
    world.collected().await;
    world.assert_faithful();
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Blob), 4);
    assert_eq!(dead_letters(&world).await, []);
    let always = on_blobs(Effect::Status { status: 200, body: ErrorBody::Html, retry_after_s: None });
    world.cloud.control().add_fault(always);
    world.cloud.control().add_blobs(spec());
    let entry = deferred(&world).await;
    assert!(entry.malformed == 0 && entry.attempts > 0, "{entry:?}");
    world.stop().await;
}

fn spec_large() -> BlobSpec {
    BlobSpec::new(tenant(1), FEEDS[0]).body_bytes(300_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_collected_when_more_is_allowed() {
    let world = World::new(scenario().tenant(offering(1, 2, 1.0)), |settings| {
        settings.collect.max_blob_bytes = 100_000;
        settings.collect.recent_interval = Duration::from_millis(500);
    });
    world.collected().await;
    world.cloud.control().add_blobs(spec_large());
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    assert!(dead_letters(&world).await[0].reason.contains("max_blob_size"));
    let lists = world.cloud.summary().requests(tenant(1), Endpoint::List);
    world.until("more listings", |world| world.cloud.summary().requests(tenant(1), Endpoint::List) > lists + 20).await;
    let asked = world.cloud.ledger().requests(tenant(1), Endpoint::Blob);
    assert!(asked <= 9, "{asked}: not with every listing");

    let mut settings = world.settings.clone();
    settings.collect.max_blob_bytes = 1_000_000;
    world.apply(&settings);
    world.collected().await;
    world.until("no dead letter", |world| world.status(tenant(1)).dead_letters == 0).await;
    assert_eq!(dead_letters(&world).await, []);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_with_another_host_is_retrieved_from_the_one_that_lists_it() {
    let world = with_queued(spec(), &[], |entry| {
        entry.blob.content_uri = entry.blob.content_uri.replace("http://", "http://old.");
        entry.attempts = 2;
    })
    .await;
    world.collected().await;
    assert_eq!(dead_letters(&world).await, []);
    assert_eq!(world.cloud.ledger().foreign_requests, 0);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_404_is_not_the_end_of_a_blob_that_lives() {
    for body in [ErrorBody::Empty, ErrorBody::Text] {
        let missing = on_blobs(Effect::Status { status: 404, body, retry_after_s: None });
        let world = with_queued(spec(), &[missing.first(2)], |_| {}).await;
        world.collected().await;
        assert_eq!(dead_letters(&world).await, []);
        world.assert_faithful();
        world.stop().await;
    }
    // Of one whose time is over it is the end.
    let missing = on_blobs(Effect::Status { status: 404, body: ErrorBody::Empty, retry_after_s: None });
    let spec = spec().created_ago(Duration::from_hours(169)).expires_in(Duration::from_secs(1));
    let world = with_queued(spec, &[missing], |_| {}).await;
    world.until("a confirmed time", |world| world.shared.time.confirmed().is_some()).await;
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    assert!(dead_letters(&world).await[0].reason.contains("expired before"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_content_is_gone_is_believed_the_second_time() {
    let world = with_queued(spec(), &[on_blobs(af("AF20051")).first(1)], |_| {}).await;
    world.collected().await;
    assert_eq!(dead_letters(&world).await, []);
    world.cloud.control().clear_faults();
    world.cloud.control().add_fault(on_blobs(af("AF20050")));
    world.cloud.control().add_blobs(spec());
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Blob), 4);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiration_of_the_year_one_makes_no_stumble_a_loss() {
    let down = on_blobs(Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None });
    let world = with_queued(spec(), &[down.first(3)], |entry| {
        entry.blob.content_expiration = "0001-01-01T00:00:00Z".parse().unwrap();
    })
    .await;
    world.collected().await;
    assert_eq!(dead_letters(&world).await, []);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_speaks_of_the_subscription_does_not_end_it() {
    for code in ["AF20022", "AF20023"] {
        let poison = on_blobs(af(code)).content_type(FEEDS[0]);
        let world = World::new(scenario().tenant(offering(1, 3, 1.0).subscribed()).fault(poison), |_| {});
        world.until("the others", |world| world.stored(tenant(1)).len() == 9).await;
        let lists = |world: &World| world.cloud.summary().requests(tenant(1), Endpoint::List);
        let before = lists(&world);
        world.until("more polls", |world| lists(world) > before + 12).await;
        let ledger = world.cloud.ledger();
        assert_eq!(ledger.requests(tenant(1), Endpoint::Start), 0, "its listing works");
        assert_eq!(ledger.requests(tenant(1), Endpoint::Subscriptions), 1);
        world.cloud.control().clear_faults();
        world.collected().await;
        world.assert_faithful();
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_throttled_again_and_again_waits_by_itself() {
    let wait = Effect::Throttled(Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(1) });
    let world = with_queued(spec(), &[on_blobs(wait).content_type(FEEDS[0])], |_| {}).await;
    // Its waits grow, since a tenant that is throttled is no fault of a blob's, and a blob that brings it on is.
    let id = TenantId::from(tenant(1));
    world
        .until("a longer wait", |world| {
            let left = world.shared.store.next_deferred(id).map(|at| at.duration_since(world.shared.time.now()));
            left > Some(SignedDuration::from_secs(15))
        })
        .await;
    let asked = world.cloud.ledger().requests(tenant(1), Endpoint::Blob);
    assert!((5..=6).contains(&asked), "{asked}");
    let entry = deferred(&world).await;
    assert!(entry.attempts > 0, "{entry:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_blob_whose_time_is_over_is_given_up() {
    let wait = Effect::Throttled(Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(1) });
    let spec = spec().created_ago(Duration::from_hours(169)).expires_in(Duration::from_secs(1));
    let world = with_queued(spec, &[on_blobs(wait)], |_| {}).await;
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    assert!(dead_letters(&world).await[0].reason.contains("expired before"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_a_defect_and_its_dead_letter_leaves_the_letter_to_be_written() {
    let dir = TempDir::with_prefix("tenantry-tree-").unwrap();
    let world = World::at(scenario().tenant(offering(1, 1, 1.0).subscribed()), dir, |settings| {
        settings.tenants.values_mut().for_each(|tenant| tenant.enabled = false);
    });
    let mut listed = None;
    queue_offered(&world, |entry| {
        (entry.attempts, entry.malformed) = (5, 5);
        listed = Some(entry.blob.clone());
    })
    .await;
    let (store, id) = (&world.shared.store, TenantId::from(tenant(1)));
    let fetched = crate::store::Fetched { at: world.shared.time.now(), from: String::new(), tier: Tier::Poll };
    let mut writer = store.receive(id, &listed.unwrap(), fetched, Some("no array".to_owned()));
    writer.push(b"{}").await.unwrap();
    assert!(writer.finish().await.unwrap().new);
    // Here the process died.
    assert_eq!(dead_letters(&world).await, []);

    world.apply(&enabled(&world));
    world.until("the dead letter", |world| world.status(tenant(1)).dead_letters == 1).await;
    world.until("an empty queue", |world| world.status(tenant(1)).queue.entries == 0).await;
    assert!(dead_letters(&world).await[0].reason.contains("kept unparsed"));
    world.until("the others", |world| world.stored(tenant(1)).len() == 4).await;
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Blob), 3, "its bytes are there");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lists_well_goes_on_although_the_list_of_subscriptions_lacks_it() {
    let world = World::new(scenario().tenant(offering(1, 3, 1.0)), |_| {});
    world.collected().await;
    let control = world.cloud.control();
    control.add_fault(Fault::new(Effect::EmptyPage).on([Endpoint::Subscriptions]));
    let down = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None };
    control.add_fault(Fault::new(down).on([Endpoint::Start]));
    let looks = world.cloud.ledger().requests(tenant(1), Endpoint::Subscriptions);
    // A change of its pace, and so a new look at its subscriptions.
    let mut settings = world.settings.clone();
    settings.collect.poll_interval = Duration::from_millis(200);
    world.apply(&settings);
    world.until("a look", |world| world.cloud.ledger().requests(tenant(1), Endpoint::Subscriptions) > looks).await;
    let lists = |world: &World| world.cloud.summary().requests(tenant(1), Endpoint::List);
    let before = lists(&world);
    world.until("polls after it", |world| lists(world) > before + 12).await;
    control.add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(2).records(2));
    world.collected().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_answer_pauses_nothing() {
    let odd = |endpoint, status| {
        let effect = Effect::Status { status, body: ErrorBody::Html, retry_after_s: None };
        Fault::new(effect).on([endpoint]).when(When::First(2))
    };
    let faults = [odd(Endpoint::Subscriptions, 403), odd(Endpoint::List, 404)];
    let scenario = faults.into_iter().fold(scenario().tenant(offering(1, 3, 1.0)), Scenario::fault);
    let world = World::new(scenario, |_| {});
    world.collected().await;
    assert_ne!(world.status(tenant(1)).state, TenantState::Paused);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_for_single_blobs_is_not_asked_slowly() {
    // More than enough failures in a row to be taken for a service that is ill.
    let world = World::new(
        scenario().tenant(offering(1, 30, 1.0)).fault(on_blobs(Effect::BadJson(BadJson::NotAnArray)).first(40)),
        |_| {},
    );
    world.until("the others", |world| world.stored(tenant(1)).len() >= 80).await;
    world.until("all", |world| world.stored(tenant(1)).len() == 120).await;
    world.assert_faithful();
    world.stop().await;
}
