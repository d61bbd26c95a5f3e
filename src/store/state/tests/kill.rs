//! The writing process killed at random moments: what it has acknowledged is there.
//!
//! This test binary runs itself as the process that is killed. The child says on its output what it was promised, line
//! by line; the parent kills it after a random number of lines and looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

const DIRECTORY: &str = "TENANTRY_TEST_STATE";
const FIRST: &str = "TENANTRY_TEST_FIRST";
const ROUNDS: u32 = 8;

/// The process that is killed. Run as a test of its own it has nothing to do.
#[tokio::test]
async fn child() {
    let (Ok(directory), Ok(first)) = (std::env::var(DIRECTORY), std::env::var(FIRST)) else { return };
    let first: u32 = first.parse().unwrap();
    // The harness has begun a line with the test's name.
    println!();
    let (state, events) = State::open(&PathBuf::from(directory), &StateOptions::new(noon()), &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    for n in first.. {
        let listed = (0..4).map(|part| blob(&format!("{n}.{part}"), SignedDuration::from_secs(i64::from(n)))).collect();
        queue(&state, tenant(1), listed).await;
        println!("queued {n}");
        let watermark =
            Watermark { listed_to: Some(noon() + SignedDuration::from_secs(i64::from(n))), ..Watermark::default() };
        state.set_watermark(tenant(1), ContentType::General, watermark);
        for (part, mut entry) in take(&state, tenant(1), 3, noon()).await.into_iter().enumerate() {
            let id = entry.blob.content_id.clone();
            match part {
                0 => {
                    // Nothing is promised when this returns; it may have happened.
                    println!("completing {id}");
                    state.complete(tenant(1), &entry);
                }
                1 => {
                    println!("giving-up {id}");
                    state.dead_letter(tenant(1), entry, "refused", noon()).await.unwrap();
                    println!("dead {id}");
                }
                _ => {
                    entry.attempts += 1;
                    entry.not_before = Some(noon() + hours(1));
                    let attempts = entry.attempts;
                    state.defer(tenant(1), entry).await.unwrap();
                    println!("deferred {id} {attempts}");
                }
            }
        }
    }
}

#[derive(Default)]
struct Promised {
    queued: u32,
    done: BTreeSet<String>,
    dead: BTreeSet<String>,
    attempts: BTreeMap<String, u32>,
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = Promised::default();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::state::tests::kill::child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, dir.path())
            .env(FIRST, (promised.queued + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = fastrand::usize(1..120);
        let mut heard = 0;
        let mut killed = false;
        // After the kill the rest of what it said is still in the pipe.
        for line in lines.by_ref() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            match (words.next().unwrap(), words.next()) {
                ("queued", Some(n)) => promised.queued = n.parse().unwrap(),
                ("completing" | "giving-up", Some(id)) => drop(promised.done.insert(id.to_owned())),
                ("dead", Some(id)) => drop(promised.dead.insert(id.to_owned())),
                ("deferred", Some(id)) => {
                    promised.attempts.insert(id.to_owned(), words.next().unwrap().parse().unwrap());
                }
                _ => continue,
            }
            heard += 1;
            if heard >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "round {round}: the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();
        check(&dir, &mut promised).await;
    }
    assert!(promised.queued > 0 && !promised.dead.is_empty());
}

async fn check(dir: &TempDir, promised: &mut Promised) {
    let state = open(dir);
    let queued: BTreeMap<String, QueueEntry> = take(&state, tenant(1), usize::MAX, noon() + hours(9))
        .await
        .into_iter()
        .map(|entry| (entry.blob.content_id.to_string(), entry))
        .collect();
    let letters: BTreeSet<String> = state
        .dead_letters(tenant(1), usize::MAX)
        .await
        .unwrap()
        .into_iter()
        .map(|letter| letter.entry.blob.content_id.to_string())
        .collect();
    let there = |n: u32| {
        (0..4)
            .map(move |part| format!("{n}.{part}"))
            .all(|id| queued.contains_key(&id) || letters.contains(&id) || promised.done.contains(&id))
    };
    for n in 1..=promised.queued {
        assert!(there(n), "batch {n} was acknowledged and is not there");
    }
    for id in &promised.dead {
        assert!(letters.contains(id) && !queued.contains_key(id), "`{id}` was given up");
    }
    for (id, attempts) in &promised.attempts {
        let found = queued.get(id).map(|entry| entry.attempts);
        assert!(found.is_none_or(|found| found >= *attempts), "`{id}` has lost an attempt: {found:?} of {attempts}");
        assert!(found.is_some() || promised.done.contains(id), "`{id}` was deferred and is gone");
    }
    // No half batch, and no watermark without what it stands for.
    let watermark = state.watermarks(tenant(1)).await.unwrap().get(&ContentType::General).copied().unwrap_or_default();
    if let Some(listed_to) = watermark.listed_to {
        let n = u32::try_from(listed_to.duration_since(noon()).as_secs()).unwrap();
        assert!((1..=n).all(there), "the watermark {n} is ahead of the data");
    }
    let unpromised = promised.queued + 1;
    let parts = (0..4).filter(|part| queued.contains_key(&format!("{unpromised}.{part}"))).count();
    assert!(parts == 0 || parts == 4, "half a batch: {parts} of 4");
    if parts == 4 {
        promised.queued = unpromised;
    }
    assert_eq!(state.queue_depth(tenant(1)).entries, queued.len() as u64);
    state.close().await.unwrap();
}
