//! The state lost, damaged, or caught by a crash in the middle of being copied.

use std::fs;

use super::super::super::durable;
use super::super::generation::{self, Generation};
use super::*;
use crate::store::{Enrolled, Enrolment, Invite, InviteId, InviteStage};

fn enrolment() -> Enrolment {
    Enrolment {
        tenant: tenant(2),
        name: "Fabrikam".to_owned(),
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: ContentType::AUDIT.into(),
        how: Enrolled::Consent,
        at: noon(),
    }
}

/// Of which the 90 days after its end are over, or are not.
fn invite(secret: &str, over: bool) -> Invite {
    let expires = noon() - hours(if over { 91 } else { 89 } * 24);
    Invite {
        id: InviteId::of(secret.as_bytes()),
        name: secret.to_owned(),
        tenant: Some(tenant(3)),
        cloud: "worldwide".to_owned(),
        app: "mssp".to_owned(),
        content_types: ContentType::AUDIT.into(),
        made: expires - hours(72),
        expires,
        stage: InviteStage::Done { tenant: tenant(3), at: noon() },
    }
}

/// A state with something of every kind in it.
async fn fill(state: &State) {
    queue(state, tenant(1), (0..5).map(|n| blob(&n.to_string(), hours(n))).collect()).await;
    let entry = take(state, tenant(1), 1, noon()).await.remove(0);
    state.dead_letter(tenant(1), entry, "refused", noon()).await.unwrap();
    state.remember_wait(tenant(1), WaitKey::Paused, Some(wait(noon() + hours(5)))).await.unwrap();
    state.remember_wait(tenant(2), WaitKey::Throttled, Some(wait(noon() - hours(5)))).await.unwrap();
    state.enrol(&enrolment()).await.unwrap();
    state.hold(tenant(1), Some(noon())).await.unwrap();
    state.put_invite(&invite("open", false)).await.unwrap();
    state.set_watermark(tenant(1), ContentType::Dlp, Watermark { sweep_at: Some(noon()), ..Watermark::default() });
    state.settle().await.unwrap();
}

async fn assert_whole(state: &State) {
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth { entries: 4, oldest: Some(noon() - hours(4)) });
    assert_eq!(state.watermarks(tenant(1)).await.unwrap().len(), 1);
    assert_kept(state).await;
}

/// What a snapshot brings back.
async fn assert_kept(state: &State) {
    assert_eq!(state.waits(tenant(1)).await.unwrap(), BTreeMap::from([(WaitKey::Paused, wait(noon() + hours(5)))]));
    assert!(state.is_dead_letter(tenant(1), &"0".into()).await.unwrap());
    assert_eq!(state.enrolments().await.unwrap(), [enrolment()]);
    assert_eq!(state.held().await.unwrap(), BTreeMap::from([(tenant(1), noon())]));
    assert_eq!(state.invites().await.unwrap(), [invite("open", false)]);
}

fn reopen(dir: &TempDir, snapshot: Option<&[u8]>) -> (State, Vec<Event>) {
    State::open(dir.path(), &StateOptions::new(noon()), &|| Ok(snapshot.map(<[u8]>::to_vec))).unwrap()
}

fn names(dir: &TempDir) -> Vec<String> {
    let paths = durable::entries(dir.path()).unwrap();
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_lost_state_is_made_anew_from_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fill(&state).await;
    let snapshot = state.snapshot(noon()).unwrap();
    state.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("state-1")).unwrap();

    let (state, events) = reopen(&dir, Some(&snapshot));
    let counts = Counts { enrolments: 1, held: 1, invites: 1, waits: 1, letters: 1 };
    assert_eq!(events, [Event::Missing { directory: dir.path().join("state-1") }, Event::Restored { counts }]);
    assert_kept(&state).await;
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth::default());
    state.close().await.unwrap();
    assert_eq!(names(&dir), ["state", "state-2"]);

    // Everything of it deleted: only the snapshot tells that there was a state.
    fs::remove_dir_all(dir.path().join("state-2")).unwrap();
    fs::remove_file(dir.path().join("state")).unwrap();
    let (state, events) = reopen(&dir, Some(&snapshot));
    assert!(matches!(&events[..], [Event::Missing { .. }, Event::Restored { .. }]), "{events:?}");
    assert_kept(&state).await;
    state.close().await.unwrap();

    fs::remove_dir_all(dir.path().join("state-1")).unwrap();
    let (_, events) = reopen(&dir, Some(b"\x01nonsense"));
    assert!(matches!(&events[..], [Event::Missing { .. }, Event::SnapshotUnreadable { .. }]), "{events:?}");
}

#[tokio::test]
async fn a_damaged_state_is_moved_aside_and_never_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fill(&state).await;
    let snapshot = state.snapshot(noon()).unwrap();
    state.close().await.unwrap();
    let damaged = vec![0x5a; 3 << 20];
    fs::write(dir.path().join("state-1/db"), &damaged).unwrap();

    let (state, events) = reopen(&dir, Some(&snapshot));
    let [Event::MovedAside { from, to, .. }, Event::Restored { .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*from, dir.path().join("state-1"));
    assert_eq!(*to, dir.path().join("aside/state-1-damaged-20261122T120000Z"));
    assert!(fs::read(to.join("db")).unwrap() == damaged);
    assert!(events[0].is_alarm() && events[0].to_string().contains("listed again"));
    assert_kept(&state).await;
    state.close().await.unwrap();
    assert_eq!(reopen(&dir, None).1, []);
}

#[tokio::test]
async fn trouble_with_the_disk_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fill(&state).await;
    state.close().await.unwrap();
    let other = fs::File::open(dir.path().join("state-1/db")).unwrap();
    other.lock().unwrap();
    let error = State::open(dir.path(), &StateOptions::new(noon()), &|| Ok(None)).unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("in_use", 75));
    drop(other);
    assert_eq!(names(&dir), ["state", "state-1"]);
    assert_whole(&open(&dir)).await;
}

#[tokio::test]
async fn a_lost_pointer_is_told_and_the_newest_state_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fill(&state).await;
    state.close().await.unwrap();
    for text in [None, Some(""), Some(r#"{"directory":"state-01","since":"2026-11-22T12:00:00Z"}"#)] {
        match text {
            None => fs::remove_file(dir.path().join("state")).unwrap(),
            Some(text) => fs::write(dir.path().join("state"), text).unwrap(),
        }
        let (state, events) = reopen(&dir, None);
        assert!(matches!(&events[..], [Event::PointerLost { .. }]), "{events:?}");
        assert_whole(&state).await;
        state.close().await.unwrap();
        assert_eq!(reopen(&dir, None).1, []);
    }
}

/// The steps of a copy, one after the other; whatever comes after each is a crash.
#[tokio::test]
async fn a_crash_at_any_step_of_a_copy_loses_nothing() {
    const STEPS: usize = 7;
    for crash_after in 0..STEPS {
        let dir = tempfile::tempdir().unwrap();
        let state = open(&dir);
        fill(&state).await;
        state.close().await.unwrap();
        let store = dir.path();
        let (old, new) = (store.join("state-1"), store.join("state-2"));
        let access = StateOptions::new(noon()).access();
        let steps: [&dyn Fn(); STEPS] = [
            &|| {
                // A new database that is not even made.
                fs::create_dir(store.join("state-2.new.making")).unwrap();
                fs::write(store.join("state-2.new.making/conf"), b"").unwrap();
            },
            &|| {
                // A copy of a part.
                let database = Database::open(&store.join("state-2.new"), access).unwrap();
                database.close();
            },
            &|| {
                let database = Database::open(&old, access).unwrap();
                generation::copy(store, &database, Generation(2), access, noon()).unwrap();
                database.close();
                assert!(new.is_dir());
            },
            &|| fs::write(store.join("state.making"), b"{\"direc").unwrap(),
            &|| generation::point_to(store, Generation(2), noon()).unwrap(),
            &|| durable::rename(&old, &store.join("state-1.dropping")).unwrap(),
            &|| fs::remove_file(store.join("state-1.dropping/db")).unwrap(),
        ];
        for step in &steps[..=crash_after] {
            step();
        }
        let state = open(&dir);
        assert_whole(&state).await;
        queue(&state, tenant(1), vec![blob("later", hours(0))]).await;
        state.close().await.unwrap();
        let found = if crash_after < 4 { "state-1" } else { "state-2" };
        let left: Vec<_> = names(&dir).into_iter().filter(|name| name.starts_with("state-")).collect();
        assert_eq!(left, [found], "after step {crash_after}");
        assert_eq!(open(&dir).queue_depth(tenant(1)).entries, 5);
    }
}

#[tokio::test]
async fn the_writer_copies_a_state_that_has_grown_far_beyond_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fill(&state).await;
    state.put_invite(&invite("long over", true)).await.unwrap();
    for round in 0..12 {
        let listed = (0..500)
            .map(|n| ContentBlob {
                content_uri: format!("https://manage.office.com/{}", "x".repeat(5_000)),
                ..blob(&format!("{round}-{n}"), SignedDuration::from_secs(n))
            })
            .collect();
        queue(&state, tenant(3), listed).await;
        for entry in take(&state, tenant(3), 500, noon()).await {
            state.complete(tenant(3), &entry);
        }
        state.settle().await.unwrap();
    }
    let before = state.shared.database().size_on_disk().unwrap();
    state.close().await.unwrap();

    // An empty database has 8 MiB, one segment.
    let options =
        StateOptions { copy_above: 9 << 20, size_check: Duration::from_millis(5), ..StateOptions::new(noon()) };
    let (state, events) = State::open(dir.path(), &options, &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    let began = std::time::Instant::now();
    while !dir.path().join("state-2").exists() || dir.path().join("state-1").exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", names(&dir));
        // Reading and writing go on meanwhile.
        state.set_note(tenant(1), Some(b"x".to_vec()));
        state.settle().await.unwrap();
    }
    assert_whole(&state).await;
    assert_eq!(state.waits(tenant(2)).await.unwrap(), BTreeMap::new(), "a wait that has ended is left out");
    let after = state.shared.database().size_on_disk().unwrap();
    assert!(after < before, "{after} bytes after, {before} before, {:?}", names(&dir));
    state.close().await.unwrap();
    assert_whole(&open(&dir)).await;
}
