//! Fair weather: what is offered is collected, once, and as soon as may be.

use super::*;
use crate::report::ContentStatus;

#[tokio::test(flavor = "multi_thread")]
async fn three_tenants_are_collected_whole() {
    let scenario = (1..=3).fold(scenario(), |scenario, number| scenario.tenant(offering(number, 40, 6.5)));
    let world = World::new(scenario.page_size(7), |_| {});
    world.collected().await;
    for number in 1..=3 {
        assert_eq!(world.stored(tenant(number)).len(), 160);
        let settled = |status: TenantStatus| (status.state, status.queue.entries) == (TenantState::Collecting, 0);
        world.until("the state", |world| settled(world.status(tenant(number)))).await;
        let status = world.status(tenant(number));
        assert_eq!((status.stored_today.blobs, status.dead_letters), (160, 0));
        assert_eq!(status.trouble, None);
    }
    // What becomes available later arrives by itself, with the next poll.
    world.cloud.control().add_blobs(BlobSpec::new(tenant(2), FEEDS[1]).count(5).records(4));
    world.collected().await;
    world.assert_faithful();
    let ledger = world.cloud.ledger();
    for number in 1..=3 {
        assert_eq!(ledger.requests(tenant(number), Endpoint::Start), 4, "each started once");
        assert_eq!(ledger.requests(tenant(number), Endpoint::Token), 1);
        assert!(ledger.tenants[&tenant(number)].most_in_flight <= 8 + 5 + 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_collects_nothing_twice_and_starts_no_subscription_again() {
    let world = World::new(scenario().tenant(offering(1, 20, 3.0)), |_| {});
    world.collected().await;
    let World { cloud, settings, registry, shared, dir } = world;
    registry.drain(Duration::from_secs(5)).await;
    drop(registry);
    shared.store.close().await.unwrap();
    let before = cloud.ledger();

    let (registry, shared) = super::registry(&dir);
    let world = World { cloud, settings, registry, shared, dir };
    world.apply(&world.settings);
    world.cloud.control().add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(3).records(2));
    world.collected().await;
    let after = world.cloud.ledger();
    assert_eq!(after.requests(tenant(1), Endpoint::Blob), before.requests(tenant(1), Endpoint::Blob) + 3);
    assert_eq!(after.requests(tenant(1), Endpoint::Start), 4);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_listed_late_are_found_by_the_wider_tiers() {
    // Available hours ago by their date, and listed only from now on: beyond the overlap of the poll.
    let world = World::new(scenario().tenant(offering(1, 3, 0.1)), |settings| {
        settings.collect.overlap = Duration::from_mins(1);
        settings.collect.recent_interval = Duration::from_secs(1);
        settings.collect.sweep_interval = Duration::from_secs(2);
    });
    world.collected().await;
    let late = |world: &World| {
        let content = world.status(tenant(1)).content;
        let sum = |count: fn(&ContentStatus) -> u64| content.values().map(count).sum::<u64>();
        (sum(|content| content.late_recent), sum(|content| content.late_sweep))
    };
    // On a slow machine the wider tiers may come before the first poll.
    let before = late(&world);
    let control = world.cloud.control();
    let hours = |hours| Duration::from_hours(hours);
    control.add_blobs(BlobSpec::new(tenant(1), FEEDS[2]).count(2).records(2).created_ago(hours(2)));
    control.add_blobs(BlobSpec::new(tenant(1), FEEDS[3]).count(3).records(2).created_ago(hours(100)));
    world.collected().await;
    let (recent, sweep) = late(&world);
    assert_eq!(recent + sweep, before.0 + before.1 + 5, "{:#?}", world.status(tenant(1)));
    assert!(sweep >= before.1 + 3, "{:#?}", world.status(tenant(1)));
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_tenant_asks_for_lists_and_nothing_else() {
    let world = World::new(scenario().tenant(offering(1, 0, 1.0)), |_| {});
    world.until("ten polls", |world| world.cloud.summary().requests(tenant(1), Endpoint::List) >= 40 + 24).await;
    let ledger = world.cloud.ledger();
    assert_eq!(ledger.requests(tenant(1), Endpoint::Token), 1);
    assert_eq!(ledger.requests(tenant(1), Endpoint::Subscriptions), 1);
    assert_eq!(ledger.requests(tenant(1), Endpoint::Blob), 0);
    assert_eq!(world.status(tenant(1)).state, TenantState::Waiting, "the first content may take twelve hours");
    assert!(ledger.violations.is_empty(), "{:#?}", ledger.violations);
    world.stop().await;
}
