//! Blobs that are fetched before they are whole.

use tenantry_simulator::{Effect, Fault, When};

use super::*;

/// A tenant without content. Where sweeps are as near as that, a blob is looked at again after so many seconds.
fn after(seconds: u64, scenario: Scenario) -> World {
    World::new(scenario.tenant(offering(1, 0, 1.0).subscribed()), |settings| {
        settings.collect.sweep_interval = Duration::from_secs(seconds);
    })
}

/// Partial until shortly before that: windows end three seconds ago, and a slow machine takes its time.
const PARTIAL: Duration = Duration::from_secs(14);
const WHOLE: u64 = 15;

fn spec() -> BlobSpec {
    BlobSpec::new(tenant(1), FEEDS[0]).records(6)
}

fn grown(world: &World) -> u64 {
    world.status(tenant(1)).content.values().map(|content| content.grown).sum()
}

fn fetched(world: &World) -> u64 {
    world.cloud.ledger().requests(tenant(1), Endpoint::Blob)
}

/// Nothing is to be retrieved or looked at again.
fn is_done(world: &World) -> bool {
    let (store, id) = (&world.shared.store, TenantId::from(tenant(1)));
    store.next_deferred(id).is_none() && store.queue_depth(id).entries == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_grown_is_stored_besides_what_was_there() {
    let world = after(WHOLE, scenario());
    world.cloud.control().add_blobs(spec().partial_for(PARTIAL));
    let is_half = |status: &TenantStatus| (status.stored_today.blobs, status.queue.entries) == (1, 0);
    world.until("its first half", |world| is_half(&world.status(tenant(1)))).await;
    let lag = world.status(tenant(1)).lag_seconds;
    world.until("all of it", |world| grown(world) == 1).await;
    world.until("the end", is_done).await;
    let headers = world.headers(tenant(1));
    let of: Vec<_> = headers.iter().map(|header| (header.revision, header.records, header.duplicates.len())).collect();
    assert_eq!(of, [(0, 3, 0), (1, 6, 3)]);
    let sha256 = headers[1].sha256.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    assert_eq!(world.cloud.ledger().blobs[0].sha256(), sha256);
    let status = world.status(tenant(1));
    assert_eq!(status.lag_seconds, lag, "a second look says nothing of the lag");
    assert_eq!((status.stored_today.blobs, status.stored_today.duplicates, status.dead_letters), (2, 3, 0));
    // Looked at twice, and never a third time, whatever is listed.
    let listed = world.cloud.ledger().requests(tenant(1), Endpoint::List);
    world.until("more listings", |world| world.cloud.ledger().requests(tenant(1), Endpoint::List) > listed + 12).await;
    assert_eq!(fetched(&world), 2);
    assert!(world.shared.store.verify().unwrap().is_sound());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_not_grown_is_stored_once_and_what_is_old_is_fetched_once() {
    let world = after(WHOLE, scenario());
    world.cloud.control().add_blobs(spec().count(3));
    world.cloud.control().add_blobs(spec().count(4).created_ago(Duration::from_mins(5)));
    world.collected().await;
    world.until("second looks", |world| fetched(world) == 10 && is_done(world)).await;
    world.assert_faithful();
    assert_eq!((grown(&world), world.status(tenant(1)).stored_today.blobs), (0, 7));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_two_minutes_and_is_no_backlog_meanwhile() {
    let world = World::new(scenario().tenant(offering(1, 0, 1.0).subscribed()), |_| {});
    let control = world.cloud.control();
    control.add_blobs(spec().created_ago(Duration::from_mins(1)));
    world.collected().await;
    let id = TenantId::from(tenant(1));
    world.until("the deferral", |world| world.shared.store.next_deferred(id).is_some()).await;
    let created = world.cloud.ledger().blobs[0].content_created;
    let wait = world.shared.store.next_deferred(id).unwrap().duration_since(created);
    assert!(wait >= jiff::SignedDuration::from_mins(2) && wait <= jiff::SignedDuration::from_secs(125), "{wait}");
    // The report is brought up to date after the store.
    world
        .until("health", |world| {
            let status = world.status(tenant(1));
            (status.state, status.queue.entries, status.queue.oldest) == (TenantState::Collecting, 0, None)
        })
        .await;
    assert!(world.shared.store.next_deferred(id).is_some(), "it still waits for its second look");
    assert_eq!(fetched(&world), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_by_then_stays_as_it_is_without_a_dead_letter() {
    let gone = Effect::Af { code: "AF20051".to_owned(), status: 400, message: None };
    let gone = Fault::new(gone).on([Endpoint::Blob]).when(When::Requests(vec![2, 3]));
    let world = after(WHOLE, scenario().fault(gone));
    world.cloud.control().add_blobs(spec().partial_for(Duration::from_mins(10)));
    world.until("two refusals", |world| fetched(world) == 3 && is_done(world)).await;
    let id = TenantId::from(tenant(1));
    assert_eq!(world.shared.store.dead_letters(id).await.unwrap(), 0);
    let status = world.status(tenant(1));
    assert_eq!((status.dead_letters, status.stored_today.blobs, status.trouble), (0, 1, None));
    assert_eq!(world.headers(tenant(1)).len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_that_cannot_be_read_is_taken_again() {
    let world = after(WHOLE, scenario());
    let bad = Effect::BadJson(tenantry_simulator::BadJson::NotAnArray);
    let bad = Fault::new(bad).on([Endpoint::Blob]).when(When::Requests(vec![2, 3]));
    world.cloud.control().add_fault(bad);
    world.cloud.control().add_blobs(spec().partial_for(PARTIAL));
    world.until("all of it", |world| grown(world) == 1 && is_done(world)).await;
    let headers = world.headers(tenant(1));
    assert!(headers.iter().all(|header| header.defect.is_none()), "{headers:#?}");
    assert_eq!((headers.len(), fetched(&world)), (2, 4));
    world.stop().await;
}
