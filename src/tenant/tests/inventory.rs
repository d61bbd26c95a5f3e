//! What Microsoft lists, compared with what is held.

use std::collections::BTreeSet as Set;

use jiff::SignedDuration;
use tenantry_simulator::{BadEntry, Effect, Fault, When};

use super::*;
use crate::store::GapLine;
use crate::store::{Query, Why};
use crate::tenant::inventory::{Inventory, Named};

/// Nothing but polls lists again for hours.
fn polls_only(settings: &mut Settings) {
    settings.collect.recent_interval = Duration::from_hours(6);
    settings.collect.sweep_interval = Duration::from_hours(24);
}

async fn take(world: &World) -> Inventory {
    world.registry.stocktaker(tenant(1).into()).unwrap().take().await.unwrap()
}

fn ids(named: &Named) -> Set<String> {
    assert_eq!(named.count, named.blobs.len() as u64);
    named.blobs.iter().map(|blob| blob.content_id.as_str().to_owned()).collect()
}

fn of(world: &World, numbers: &[u64]) -> Set<String> {
    let blobs = world.cloud.ledger().blobs;
    numbers.iter().map(|number| blobs[usize::try_from(*number).unwrap()].content_id.clone()).collect()
}

fn spec() -> BlobSpec {
    BlobSpec::new(tenant(1), FEEDS[1]).records(3)
}

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_and_not_held_is_named_and_collected() {
    let world = World::new(scenario().tenant(offering(1, 8, 6.0)).page_size(3), polls_only);
    world.collected().await;
    let whole = take(&world).await;
    assert!(whole.is_sound(), "{}", whole.sentence());
    assert_eq!((whole.listed, whole.stored, whole.waiting, whole.awaited), (32, 32, 0, 0), "{}", whole.sentence());

    let control = world.cloud.control();
    let late =
        [control.add_blobs(spec().count(5).created_ago(hours(3))), control.add_blobs(spec().created_ago(hours(120)))];
    let late = late.concat();
    let partial = take(&world).await;
    assert!(!partial.is_sound());
    assert_eq!((ids(&partial.missing), partial.stored), (of(&world, &late), 32), "{}", partial.sentence());
    world.collected().await;
    world.assert_faithful();
    let after = take(&world).await;
    assert!(after.is_sound() && after.stored == 38, "{}", after.sentence());
    let lines = world.shared.store.ledger(Query::default()).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.what.late_sweep).sum::<u64>(), 6);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_poll_lists_is_no_false_alarm() {
    let world = World::new(scenario().tenant(offering(1, 2, 1.0)), |settings| {
        polls_only(settings);
        settings.collect.poll_interval = hours(1);
    });
    world.collected().await;
    let stood = world.cloud.ledger().requests(tenant(1), Endpoint::Blob);
    world.cloud.control().add_blobs(spec().count(3).created_ago(Duration::from_secs(10)));
    let inventory = take(&world).await;
    assert!(inventory.is_sound(), "{}", inventory.sentence());
    assert_eq!((inventory.listed, inventory.stored, inventory.awaited), (11, 8, 3), "{}", inventory.sentence());
    assert_eq!(world.cloud.ledger().requests(tenant(1), Endpoint::Blob), stood);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_was_lost_or_cannot_be_listed_is_told_apart() {
    let world = World::new(scenario().tenant(offering(1, 3, 1.0)), polls_only);
    world.collected().await;
    let control = world.cloud.control();
    let down = Effect::Status { status: 500, body: tenantry_simulator::ErrorBody::Json, retry_after_s: None };
    let down = control.add_fault(Fault::new(down).on([Endpoint::Blob]));
    let two = control.add_blobs(spec().count(2));
    let depth = |world: &World| world.shared.store.queue_depth(TenantId::from(tenant(1))).entries;
    world.until("two that wait", |world| depth(world) == 2).await;
    let waiting = take(&world).await;
    assert_eq!((waiting.waiting, waiting.is_sound()), (2, true), "{}", waiting.sentence());

    // Listed until the last moment, and gone when it is fetched.
    let gone = Effect::Af { code: "AF20051".to_owned(), status: 400, message: None };
    control.remove_fault(down);
    control.add_fault(Fault::new(gone).on([Endpoint::Blob]));
    let letters = |world: &World| world.status(tenant(1)).dead_letters;
    world.until("two dead letters", |world| letters(world) == 2).await;
    let lost = take(&world).await;
    assert_eq!((ids(&lost.lost), lost.is_sound()), (of(&world, &two), false), "{}", lost.sentence());
    assert!(lost.lost.blobs.iter().all(|blob| blob.why.contains("AF20051") || !blob.why.is_empty()), "{lost:#?}");

    // One content type refuses, and the others are compared all the same.
    let refused = Effect::Af { code: "AF20022".to_owned(), status: 400, message: None };
    let refused = Fault { content_type: Some(FEEDS[3]), ..Fault::new(refused).on([Endpoint::List]) };
    control.add_fault(refused);
    let unlisted = take(&world).await;
    let types: Vec<_> = unlisted.unlisted.iter().map(|one| one.content_type).collect();
    assert_eq!((types, unlisted.listed), (vec![ContentType::General], 11), "{}", unlisted.sentence());
    assert!(unlisted.told().contains("Audit.General cannot be listed in full: "), "{}", unlisted.told());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_for() {
    let world = World::new(scenario().tenant(offering(1, 3, 1.0)), |settings| {
        polls_only(settings);
        settings.collect.poll_interval = hours(1);
    });
    world.collected().await;
    let control = world.cloud.control();
    let throttled =
        tenantry_simulator::Throttle { shape: tenantry_simulator::ThrottleShape::Forbidden, retry_after_s: Some(2) };
    control.add_fault(Fault::new(Effect::Throttled(throttled)).on([Endpoint::List]).when(When::First(2)));
    let begun = std::time::Instant::now();
    let inventory = take(&world).await;
    assert!(inventory.is_sound() && inventory.listed == 12, "{}", inventory.sentence());
    assert!(begun.elapsed() >= Duration::from_secs(2), "it did not wait");
    assert_eq!(world.cloud.ledger().violations.len(), 0, "{:#?}", world.cloud.ledger().violations);

    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_wrongly_is_told_until_it_is_listed_rightly() {
    let world = World::new(scenario().tenant(offering(1, 0, 1.0).subscribed()), polls_only);
    world.until("polls", |world| world.cloud.ledger().requests(tenant(1), Endpoint::List) > 8).await;
    let control = world.cloud.control();
    control.add_fault(Fault::new(Effect::BadEntry(BadEntry::LongUri)).on([Endpoint::List]));
    let wrongly = control.add_blobs(spec().created_ago(hours(2)));
    let inventory = take(&world).await;
    assert_eq!(
        (ids(&inventory.refused), inventory.is_sound()),
        (of(&world, &wrongly), false),
        "{}",
        inventory.sentence()
    );
    control.clear_faults();
    let rightly = take(&world).await;
    assert_eq!((ids(&rightly.missing), rightly.refused.count), (of(&world, &wrongly), 0), "{}", rightly.sentence());
    world.collected().await;
    assert_eq!(world.shared.store.dead_letters(tenant(1).into()).await.unwrap(), 0);
    assert!(take(&world).await.is_sound());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grew_after_the_second_look_is_found_and_stored() {
    let world = World::new(scenario().tenant(offering(1, 0, 1.0).subscribed()), |settings| {
        settings.collect.sweep_interval = Duration::from_secs(4);
    });
    let control = world.cloud.control();
    control.add_blobs(spec().records(6).partial_for(Duration::from_secs(14)));
    control.add_blobs(spec().count(3).records(2));
    let id = TenantId::from(tenant(1));
    let fetched = |world: &World| world.cloud.ledger().requests(tenant(1), Endpoint::Blob);
    let idle = |world: &World| {
        world.shared.store.next_deferred(id).is_none() && world.shared.store.queue_depth(id).entries == 0
    };
    world.until("second looks that saw no more", |world| fetched(world) == 8 && idle(world)).await;
    assert_eq!(world.headers(tenant(1)).len(), 4);
    world
        .until("the rest of it", |world| {
            let ledger = world.cloud.ledger();
            ledger.blobs[0].partial_until.unwrap() < ledger.at
        })
        .await;
    let inventory = take(&world).await;
    assert_eq!((ids(&inventory.grown), inventory.compared), (of(&world, &[0]), 4), "{}", inventory.sentence());
    assert!(!inventory.is_sound());
    let headers = world.headers(tenant(1));
    let revised: Vec<_> = headers.iter().filter(|header| header.revision == 1).map(|header| header.records).collect();
    assert_eq!(revised, [6]);
    let again = take(&world).await;
    assert!(again.is_sound() && again.compared == 3, "{}", again.sentence());
    assert!(world.shared.store.verify().unwrap().is_sound());
    world.stop().await;
}

async fn gaps(world: &World) -> Vec<GapLine> {
    world.shared.store.gaps(Query::default(), true).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_clock_leaves_gaps_that_are_filled() {
    // Of tokens, which end by the service's clock, other tests tell.
    let scenario = scenario().token_lifetime(hours(24));
    let world = World::new(scenario.tenant(offering(1, 3, 1.0)), |settings| {
        // The first sweep comes within the recent interval.
        settings.collect.recent_interval = Duration::from_secs(1);
        settings.collect.sweep_interval = Duration::from_secs(2);
    });
    world.collected().await;
    assert_eq!(gaps(&world).await, []);
    let control = world.cloud.control();
    let step = |hours: i64| control.set_clock_offset_ms(hours * 3_600_000);
    let filled = async |why: &str| {
        let waiting = async {
            loop {
                let gaps = gaps(&world).await;
                let fits = |line: &&GapLine| line.gap.cause.contains(why) && line.gap.filled.is_some();
                if gaps.iter().filter(fits).count() == 4 {
                    return gaps;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await.ok();
        let Some(found) = found else { panic!("{why}: {:#?}", gaps(&world).await) };
        found
    };
    step(2);
    let ahead = filled("went on by").await;
    assert!(ahead.iter().all(|line| line.gap.why == Why::Clock), "{ahead:#?}");
    for line in &ahead {
        let long = line.gap.to.duration_since(line.gap.from);
        assert!((SignedDuration::from_mins(110)..SignedDuration::from_mins(130)).contains(&long), "{line:#?}");
    }
    step(0);
    let back = filled("was set back by").await;
    assert!(back.iter().all(|line| line.gap.why == Why::Clock), "{back:#?}");
    // They are on record.
    let kept = world.shared.store.gaps_of(tenant(1).into()).await.unwrap();
    assert_eq!(kept.values().map(|gaps| gaps.list().len()).collect::<Vec<_>>(), [2; 4]);
    world.stop().await;
}
