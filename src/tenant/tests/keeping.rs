//! The keeper: one writer, whose changes are carried out whatever becomes of those who asked for them.

use futures_util::FutureExt as _;

use super::*;
use crate::store::{Enrolled, Enrolment};
use crate::tenant::Keeper;

async fn keeper(world: &World) -> Keeper {
    let Shared { store, time, .. } = &world.shared;
    let settings = Arc::new(world.settings.clone());
    Keeper::start(store.clone(), Arc::clone(&world.registry), Arc::clone(time), settings).await.unwrap()
}

fn held(world: &World) -> bool {
    world.status(tenant(1)).state == TenantState::Held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_on_when_nobody_waits_for_it_and_a_reload_waits_for_none() {
    let world = World::new(scenario().tenant(offering(1, 2, 1.0)), |_| {});
    let keeper = keeper(&world).await;
    world.collected().await;
    let id = TenantId::from(tenant(1));
    assert!(keeper.pause(id).now_or_never().is_none(), "it waits for the disk");
    world.until("the pause", held).await;
    let since = keeper.roster().member(id).unwrap().held;
    assert_eq!(world.shared.store.held().await.unwrap().get(&id).copied(), since);

    // Another change is under way, and waits for the disk: a reload in the meantime loses nothing of it.
    let mut resuming = Box::pin(keeper.resume(id));
    assert!((&mut resuming).now_or_never().is_none());
    let mut settings = world.settings.clone();
    settings.tenants.get_mut(&id).unwrap().name = "contoso".to_owned();
    let changes = keeper.follow(Arc::new(settings));
    assert_eq!(changes.removed.len() + changes.added.len(), 0);
    resuming.await.unwrap();
    let member = keeper.roster().member(id).unwrap().clone();
    assert_eq!((member.name.as_str(), member.held), ("contoso", None));
    world.collected().await;
    drop(keeper);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_keeper_finds_what_the_last_one_was_told() {
    let world = World::new(scenario().tenant(offering(1, 2, 1.0)).tenant(offering(2, 2, 1.0)), |settings| {
        settings.tenants.remove(&tenant(2).into());
    });
    let first = keeper(&world).await;
    let enrolment = Enrolment {
        tenant: tenant(2).into(),
        name: "second".to_owned(),
        cloud: "simulated".to_owned(),
        app: String::new(),
        content_types: ContentType::AUDIT.into(),
        how: Enrolled::Consent,
        at: world.shared.time.now(),
    };
    let member = first.enrol(enrolment.clone()).await.unwrap();
    assert_eq!((member.name.as_str(), member.is_enrolled()), ("second", true));
    first.pause(tenant(1).into()).await.unwrap();
    world.until("the second tenant", |world| world.stored(tenant(2)).len() == 8).await;

    let next = keeper(&world).await;
    assert_eq!(next.roster(), first.roster());
    // Another consent of the same tenant takes the place of the first.
    let again = Enrolment { content_types: [ContentType::Exchange].into(), ..enrolment };
    next.enrol(again.clone()).await.unwrap();
    assert_eq!(world.shared.store.enrolments().await.unwrap(), [again]);
    assert_eq!(world.status(tenant(2)).content.into_keys().collect::<Vec<_>>(), [ContentType::Exchange]);
    drop((first, next));
    world.stop().await;
}
