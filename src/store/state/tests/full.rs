//! A disk that is full, for real: the operating system refuses what sled writes.
//!
//! The limit on a file's size stands in for the disk's. It holds for a whole process, so the test runs itself as one
//! that has it.

use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

use super::*;
use crate::store::database::Doing;
use crate::store::database::faults::{self, How};

const DIRECTORY: &str = "TENANTRY_TEST_FULL_DISK";

fn limit(bytes: Option<u64>) {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, rustix::process::Rlimit { current: bytes, ..limit }).unwrap();
}

/// The process whose disk is full. Run as a test of its own it has nothing to do.
#[tokio::test]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    // Its default is to end the process; handled, writing fails instead.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).unwrap();
    let (state, events) = State::open(Path::new(&directory), &StateOptions::new(noon()), &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    let listed = |n: usize| -> Vec<ContentBlob> {
        (0..200)
            .map(|part| ContentBlob { content_uri: "x".repeat(2_000), ..blob(&format!("{n}-{part}"), seconds(n)) })
            .collect()
    };
    limit(Some(12 << 20));
    let mut acknowledged = 0;
    let error = loop {
        match state.enqueue(tenant(1), Tier::Poll, listed(acknowledged), noon()).await {
            Ok(enqueued) => assert_eq!(enqueued.new, 200),
            Err(error) => break error,
        }
        acknowledged += 1;
        assert!(acknowledged < 100, "the limit does not hold");
    };
    assert_eq!((error.kind(), error.exit_code()), ("disk_full", 75), "{error:?}");
    // As long as it is full, everybody is told so, and reading goes on once the database is open again.
    let error = state.remember_wait(tenant(1), WaitKey::Paused, Some(wait(noon()))).await.unwrap_err();
    assert!(["disk_full", "suspended"].contains(&error.kind()), "{error:?}");

    limit(None);
    let began = std::time::Instant::now();
    while let Err(error) = state.enqueue(tenant(1), Tier::Poll, listed(acknowledged), noon()).await {
        assert!(began.elapsed() < Duration::from_mins(1), "the writer does not recover: {error:?}");
    }
    acknowledged += 1;
    assert_eq!(state.queue_depth(tenant(1)).entries, acknowledged as u64 * 200);
    state.close().await.unwrap();

    let (state, events) = State::open(Path::new(&directory), &StateOptions::new(noon()), &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    assert_eq!(take(&state, tenant(1), usize::MAX, noon()).await.len(), acknowledged * 200);
    println!("recovered");
}

#[test]
fn a_full_disk_is_told_waited_out_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::state::tests::full::child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, dir.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("recovered"), "{said}");
    assert!(!dir.path().join("aside").exists());
}

#[tokio::test]
async fn the_waits_grow_until_a_write_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let began = std::time::Instant::now();
    faults::fail(dir.path(), Doing::Write, 4, How::Disk);
    while faults::left(dir.path()) > 0 {
        drop(state.enqueue(tenant(1), Tier::Poll, vec![blob("a", hours(1))], noon()).await);
    }
    while state.enqueue(tenant(1), Tier::Poll, vec![blob("b", hours(1))], noon()).await.is_err() {}
    // A quarter of a second, a half, one and two, each less a fifth at most.
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    state.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_fails_is_none_and_the_state_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // The first copy cannot be written. The others can, but there is something in the place of the new pointer.
    let copy = dir.path().join("state-2.new");
    faults::fail(&copy, Doing::Write, 1, How::Disk);
    let obstacle = dir.path().join("state.making");
    let options = StateOptions { copy_every: Duration::ZERO, size_check: Duration::ZERO, ..StateOptions::new(noon()) };
    open(&dir).close().await.unwrap();
    std::fs::create_dir(&obstacle).unwrap();
    let (state, events) = State::open(dir.path(), &options, &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    let before = state.shared.database().directory().to_owned();
    for name in ["a", "b", "c"] {
        queue(&state, tenant(1), vec![blob(name, hours(1))]).await;
    }
    assert_eq!((state.shared.database().directory(), faults::left(&copy)), (&*before, 0));

    std::fs::remove_dir(&obstacle).unwrap();
    while state.shared.database().directory() == before {
        state.settle().await.unwrap();
    }
    state.close().await.unwrap();
    let state = open(&dir);
    assert_eq!(take(&state, tenant(1), 9, noon()).await.len(), 3);
}
