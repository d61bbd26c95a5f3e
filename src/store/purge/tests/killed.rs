//! The process is killed while it stores, purges, and writes partitions anew; what it had acknowledged holds.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

const DIRECTORY: &str = "TENANTRY_TEST_PURGE_KILLED";
const ROUNDS: u32 = 8;

/// The purged tenant's and another's content with this number.
async fn store_both(store: &Store, number: u32) {
    let ids: Vec<u32> = (number * 5..number * 5 + 20).collect();
    let filler = if number.is_multiple_of(5) { 1_200_000 } else { 20_000 };
    for of in [purged(), tenant(2)] {
        store_one(store, of, KINDS[0], number, &ids, filler).await;
    }
}

/// Stores, and purges one of them, again and again, until it is killed; says what is acknowledged.
async fn child(directory: &Path) {
    let store = open_at(directory, NOW);
    let mut number = u32::try_from(store.heads().get(&(tenant(2), KINDS[0])).copied().unwrap_or(0)).unwrap();
    let purging = async {
        loop {
            match store.go_on_purging(0).await.unwrap() {
                Progress::Idle => store.purges_asked().changed().await.unwrap(),
                Progress::Done(purge) => println!("\ndone {}", purge.id),
                Progress::GoesOn | Progress::Short { .. } => {}
            }
        }
    };
    let storing = async {
        loop {
            for _ in 0..6 {
                store_both(&store, number).await;
                println!("\nstored {number}");
                number += 1;
                if number.is_multiple_of(4) {
                    store.roll().await.unwrap();
                }
            }
            let purge = store.purge(purged()).await.unwrap();
            println!("\npurged {} {number}", purge.id);
        }
    };
    tokio::join!(purging, storing);
}

#[test]
fn what_was_acknowledged_holds_when_it_is_killed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return runtime.block_on(child(Path::new(&directory)));
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // How many of the other's were stored, and from which number on the purged tenant's are of its last life.
    let (mut stored, mut purges, mut from) = (0_u32, 0_u32, 0_u32);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "store::purge::tests::killed::what_was_acknowledged_holds_when_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // At a random moment after a purge was acknowledged, so that the background is at work.
        let (after, patience) = (random.usize(1..3), Duration::from_millis(random.u64(0..600)));
        let (enough, killing) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            let _told = killing.recv_timeout(Duration::from_mins(1));
            let _late = killing.recv_timeout(patience);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut count = 0;
        for line in lines {
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["stored", number] => stored = stored.max(number.parse::<u32>().unwrap() + 1),
                ["purged", id, number] => {
                    (purges, from) = (id.parse().unwrap(), number.parse().unwrap());
                    count += 1;
                    if count == after {
                        enough.send(()).unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
        drop(enough);
        killer.join().unwrap();
        runtime.block_on(check(dir.path(), stored, purges, from, round));
    }
    assert!(purges > 3, "{purges} purges were acknowledged");
    // Once at rest, nothing is left.
    runtime.block_on(async {
        let store = open_at(dir.path(), NOW);
        let parts = parts(&store);
        store.purge(purged()).await.unwrap();
        go_on(&store).await;
        verified(&store);
        store.close().await.unwrap();
        assert!(parts.iter().any(|part| part.len() > 200), "there is nothing to look for");
        assert_erased(dir.path(), &parts);
    });
}

async fn check(directory: &Path, stored: u32, purges: u32, from: u32, round: u32) {
    let store = open_at(directory, NOW);
    let known = store.purges();
    assert!(known.len() >= purges as usize, "round {round}: {known:?}");
    for number in 0..stored {
        let id = name(tenant(2), number).as_str().into();
        assert!(store.is_stored(tenant(2), &id).await.unwrap(), "round {round}: {number} is gone");
    }
    let headers = store.read_after(tenant(2), KINDS[0], 0, 100_000).unwrap();
    let names: BTreeSet<_> = headers.iter().map(|(_, header)| header.as_ref().unwrap().content_id.clone()).collect();
    assert_eq!(names.len(), headers.len(), "round {round}: something was stored twice");
    // If one more was asked for and not acknowledged, there is less.
    if known.len() == purges as usize {
        let mine = store.read_after(purged(), KINDS[0], 0, 100_000).unwrap();
        let mine: BTreeSet<_> = mine.into_iter().map(|(_, header)| header.unwrap().content_id.to_string()).collect();
        let expected: BTreeSet<_> = (from..stored).map(|number| name(purged(), number)).collect();
        assert!(mine.is_superset(&expected), "round {round}");
        let old = (0..from).map(|number| name(purged(), number)).filter(|name| mine.contains(name));
        assert_eq!(old.collect::<Vec<_>>(), Vec::<String>::new(), "round {round}: what was purged is there");
    }
    verified(&store);
    store.close().await.unwrap();
}
