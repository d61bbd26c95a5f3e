//! Following the configuration: what a reload does not change goes on undisturbed.

use super::*;
use crate::config::TokenSettings;

/// The requests for tokens of each of the first `count` tenants: a tree that goes on asks for none.
fn tokens(world: &World, count: u128) -> Vec<u64> {
    let ledger = world.cloud.summary();
    (1..=count).map(|number| ledger.requests(tenant(number), Endpoint::Token)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_touches_only_what_it_changes() {
    let scenario = (1..=4).fold(scenario(), |scenario, number| scenario.tenant(offering(number, 5, 1.0)));
    let world = World::new(scenario, |settings| _ = settings.tenants.remove(&tenant(4).into()));
    world.collected().await;
    assert_eq!(world.apply(&world.settings), Changes { unchanged: 3, ..Changes::default() });

    // One is renamed, one gets another content type, one is gone, one is new.
    let mut settings = world.settings.clone();
    let id = |number| TenantId::from(tenant(number));
    settings.tenants.get_mut(&id(1)).unwrap().name = "contoso".to_owned();
    settings.tenants.get_mut(&id(2)).unwrap().content_types = [ContentType::Exchange].into();
    let gone = settings.tenants.remove(&id(3)).unwrap();
    let new = Tenant { id: id(4), name: "new".to_owned(), ..gone.clone() };
    settings.tenants.insert(id(4), new);
    let changes = world.apply(&settings);
    let expected = Changes { added: vec![id(4)], removed: vec![id(3)], changed: vec![id(2)], unchanged: 1 };
    assert_eq!(changes, expected);
    world.until("the new tenant", |world| world.stored(tenant(4)).len() == 20).await;
    assert_eq!(world.status(tenant(1)).name, "contoso");
    assert_eq!(tokens(&world, 4), [1, 1, 1, 1]);
    assert!(world.shared.report.snapshot().tenants.iter().all(|status| status.id != id(3)));

    // Content of a type that is no longer configured is left alone, and so is its subscription.
    let control = world.cloud.control();
    for content_type in FEEDS {
        control.add_blobs(BlobSpec::new(tenant(2), content_type).records(2));
        control.add_blobs(BlobSpec::new(tenant(3), content_type).records(2));
    }
    world.until("its one content type", |world| world.stored(tenant(2)).len() == 21).await;
    let lists = |world: &World| world.cloud.summary().requests(tenant(1), Endpoint::List);
    let now = lists(&world);
    world.until("more polls", |world| lists(world) > now + 12).await;
    assert_eq!((world.stored(tenant(2)).len(), world.stored(tenant(3)).len()), (21, 20));
    assert_eq!(world.cloud.ledger().requests(tenant(2), Endpoint::Stop), 0);

    // The one that was gone comes back and resumes: nothing is fetched twice.
    settings.tenants.insert(id(3), gone);
    world.apply(&settings);
    world.until("its new content", |world| world.stored(tenant(3)).len() == 24).await;
    assert_eq!(world.cloud.ledger().requests(tenant(3), Endpoint::Blob), 24);
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_tenant_sends_nothing_and_resumes() {
    let world = World::new(scenario().tenant(offering(1, 5, 1.0)), |_| {});
    world.collected().await;
    let mut off = world.settings.clone();
    off.tenants.values_mut().for_each(|tenant| tenant.enabled = false);
    world.apply(&off);
    assert_eq!(world.status(tenant(1)).state, TenantState::Disabled);
    world.until("the last answer", |world| world.cloud.summary().tenants[&tenant(1)].in_flight == 0).await;
    let before = world.cloud.ledger().requests(tenant(1), Endpoint::List);
    world.cloud.control().add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(2).records(2));
    // Three polls' time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = world.cloud.ledger().requests(tenant(1), Endpoint::List);
    assert!(after <= before + 4, "{before} to {after}: only what was under way");
    assert_eq!(world.status(tenant(1)).state, TenantState::Disabled);
    world.apply(&world.settings);
    world.collected().await;
    assert_eq!(
        tokens(&world, 1),
        [1],
        "half a minute is between two requests for a token, whatever happens in between"
    );
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_changes_of_an_app_keeps_the_tokens() {
    let world = World::new(scenario().tenant(offering(1, 3, 1.0)).tenant(offering(2, 3, 1.0)), |_| {});
    world.collected().await;
    let mut settings = world.settings.clone();
    settings.collect.poll_interval = Duration::from_millis(200);
    assert_eq!(world.apply(&settings).changed.len(), 2);
    world.cloud.control().add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).records(2));
    world.collected().await;
    assert_eq!(tokens(&world, 2), [1, 1]);

    // Neither a token's pace nor a credential that Entra does not know costs a token that is valid.
    settings.token = TokenSettings { renew_after: Duration::from_mins(30), ..settings.token };
    assert_eq!(world.apply(&settings).changed.len(), 2);
    for app in settings.apps.values_mut() {
        *app = Arc::new(App { credential: Credential::Secret("wr0ng".to_owned().into()), ..App::clone(app) });
    }
    assert_eq!(world.apply(&settings).changed.len(), 2);
    for number in [1, 2] {
        world.cloud.control().add_blobs(BlobSpec::new(tenant(number), FEEDS[0]).records(2));
    }
    world.collected().await;
    assert_eq!(tokens(&world, 2), [1, 1], "the next request is half a minute after the last one");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_being_received_and_abandons_what_takes_too_long() {
    use tenantry_simulator::{Effect, Fault, Point};
    let slow = Effect::Stall { at: Point::MidBody, for_ms: Some(700) };
    let stuck = Effect::Stall { at: Point::MidBody, for_ms: None };
    let scenario = scenario()
        .tenant(offering(1, 20, 1.0).subscribed())
        .tenant(offering(2, 20, 1.0).subscribed())
        .fault(Fault::new(slow).tenant(tenant(1)).on([Endpoint::Blob]))
        .fault(Fault::new(stuck).tenant(tenant(2)).on([Endpoint::Blob]));
    let world = World::new(scenario, |_| {});
    let fetching =
        |world: &World, number| world.cloud.summary().tenants.get(&tenant(number)).map_or(0, |t| t.in_flight);
    world.until("retrievals", |world| fetching(world, 1) >= 2 && fetching(world, 2) >= 2).await;
    world.until("a blob", |world| !world.stored(tenant(1)).is_empty()).await;
    let begun = std::time::Instant::now();
    world.registry.drain(Duration::from_secs(2)).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let stored = world.stored(tenant(1)).len();
    assert!(stored > 0);
    assert_eq!(world.stored(tenant(2)).len(), 0);

    // Nothing is lost: the next registry takes up what was left.
    world.cloud.control().clear_faults();
    let World { cloud, settings, shared, dir, .. } = world;
    let world = World { cloud, settings, registry: Arc::new(Registry::new(shared.clone())), shared, dir };
    world.apply(&world.settings);
    world.collected().await;
    world.assert_faithful();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_was_drained_starts_nothing() {
    let world = World::new(scenario().tenant(offering(1, 1, 1.0)), |_| {});
    world.collected().await;
    world.registry.drain(Duration::from_secs(5)).await;
    assert_eq!(world.apply(&world.settings), Changes::default());
    world.stop().await;
}
