//! Enrolments, holds and invites outlive the state that they are kept in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::store::{Enrolled, Enrolment, Invite, InviteId, InviteStage};

const NOW: &str = "2026-11-22T12:00:00Z";

fn enrolment() -> Enrolment {
    Enrolment {
        tenant: tenant(2),
        name: "Fabrikam".to_owned(),
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: ContentType::AUDIT.into(),
        how: Enrolled::Command,
        at: time(NOW),
    }
}

fn invite() -> Invite {
    Invite {
        id: InviteId::of(b"secret"),
        name: "Contoso".to_owned(),
        tenant: None,
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: ContentType::AUDIT.into(),
        made: time(NOW),
        expires: time("2026-11-25T12:00:00Z"),
        stage: InviteStage::Open,
    }
}

async fn register(store: &Store) {
    store.enrol(enrolment()).await.unwrap();
    store.hold(tenant(1), Some(time(NOW))).await.unwrap();
    store.put_invite(invite()).await.unwrap();
}

async fn assert_registered(store: &Store) {
    assert_eq!(store.enrolments().await.unwrap(), [enrolment()]);
    assert_eq!(store.held().await.unwrap(), BTreeMap::from([(tenant(1), time(NOW))]));
    assert_eq!(store.invite(invite().id).await.unwrap(), Some(invite()));
}

fn lose_the_state(path: &Path) {
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        match entry.file_name().to_string_lossy() {
            name if name == "state" => std::fs::remove_file(entry.path()).unwrap(),
            name if name.starts_with("state-") => std::fs::remove_dir_all(entry.path()).unwrap(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_register_is_in_the_partitions_as_soon_as_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store.tell(time(NOW));
    let listed = blob(ContentType::General, "first", "2026-11-22T11:00:00Z");
    put(store.receive(tenant(1), &listed, fetched(NOW), None), &body(&[1])).await;
    register(&store).await;
    // Far sooner than the minute after which it is looked at anyway.
    let copied = async || {
        store
            .read_holdings(|holdings| {
                let snapshot = holdings.snapshot()?.map(|bytes| crate::store::snapshot::restore(&bytes).unwrap().1);
                Ok(snapshot.is_some_and(|counts| (counts.enrolments, counts.held, counts.invites) == (1, 1, 1)))
            })
            .await
            .unwrap()
    };
    let began = Instant::now();
    while !copied().await {
        assert!(began.elapsed() < Duration::from_secs(30), "the register is not copied");
        tokio::task::yield_now().await;
    }
    store.close().await.unwrap();
    lose_the_state(dir.path());

    let store = open_at(dir.path(), NOW);
    assert_registered(&store).await;
    store.forget_enrolment(tenant(2)).await.unwrap();
    store.hold(tenant(1), None).await.unwrap();
    store.remove_invite(invite().id).await.unwrap();
    store.close().await.unwrap();
    lose_the_state(dir.path());

    let store = open_at(dir.path(), NOW);
    assert_eq!(store.enrolments().await.unwrap(), [], "what was forgotten does not come back");
    assert_eq!(store.held().await.unwrap(), BTreeMap::new());
    assert_eq!(store.invites().await.unwrap(), []);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_command_without_a_daemon_writes_the_register_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store.close().await.unwrap();
    let reading =
        Store::open_to_read(&options(dir.path()), Arc::new(ServiceTime::new(SetClock::new(time(NOW))))).unwrap();
    register(&reading).await;
    reading.close().await.unwrap();
    let store = open_at(dir.path(), NOW);
    assert_registered(&store).await;
    store.close().await.unwrap();
}
