//! The process is killed while it writes, rolls and seals; what it had acknowledged is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::store::keys;

const DIRECTORY: &str = "TENANTRY_TEST_KILLED";
const NOW: &str = "2026-11-22T10:00:00Z";
const ROUNDS: u64 = 8;

/// The content with this number: every seventh is large and goes to the store in many parts.
fn content(number: u32) -> (TenantId, ContentBlob, Vec<u8>) {
    let blob = blob(ContentType::SharePoint, &format!("content-{number}"), NOW);
    let ids: Vec<u32> = (number * 7..number * 7 + 10).collect();
    let mut body = body(&ids);
    if number.is_multiple_of(7) {
        let filler = noise(2_500_000, number.into());
        body.pop();
        body.extend_from_slice(format!(",{{\"n\":1,\"filler\":\"{filler}\"}}]").as_bytes());
    }
    (tenant(u8::try_from(number % 3).unwrap() + 1), blob, body)
}

/// Stores one content after the other, four at a time, until it is killed; says what is acknowledged.
async fn child(directory: &Path) {
    let store = open_at(directory, NOW);
    let stored: u32 = (1..4).map(|of| store.stored_today(tenant(of)).blobs).sum::<u64>().try_into().unwrap();
    let tasks = (0..4).map(|task| {
        let store = store.clone();
        async move {
            // Some of what was acknowledged is tried again.
            for number in (stored.saturating_sub(10)..).filter(|number| number % 4 == task) {
                let (tenant, blob, body) = content(number);
                let stored = put(store.receive(tenant, &blob, fetched(NOW), None), &body).await;
                println!("\nacked {number} {}", stored.seq);
                if number % 23 == 0 {
                    store.roll().await.unwrap();
                }
            }
        }
    });
    futures_util::future::join_all(tasks).await;
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return runtime.block_on(child(Path::new(&directory)));
    }
    let dir = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::killed::what_was_acknowledged_survives_being_killed", "--exact", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Half of the rounds end at a random moment, the others while some blob or other is on its way.
        let (by_time, by_count) = (Duration::from_millis(random.u64(20..2000)), random.usize(1..60));
        let (enough, killing) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            let patience = if round % 2 == 0 { by_time } else { Duration::from_mins(1) };
            let _told_or_late = killing.recv_timeout(patience);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut count = 0;
        for line in lines {
            let Ok(line) = line else { break };
            let mut words = line.split_whitespace();
            if words.next() == Some("acked")
                && let (Some(Ok(number)), Some(Ok(seq))) = (words.next().map(str::parse), words.next().map(str::parse))
            {
                let before = acknowledged.insert(number, seq);
                assert!(before.is_none_or(|before| before == seq), "{number} was stored twice");
                count += 1;
                if count == by_count {
                    enough.send(()).unwrap_or_default();
                }
            }
        }
        killer.join().unwrap();
        runtime.block_on(check(dir.path(), &acknowledged, round));
    }
    println!("{} acknowledged", acknowledged.len());
    assert!(!acknowledged.is_empty(), "the child had no time to store anything");
}

async fn check(directory: &Path, acknowledged: &BTreeMap<u32, u64>, round: u64) {
    let store = open_at(directory, NOW);
    for (&number, &seq) in acknowledged {
        let (tenant, blob, body) = content(number);
        assert_eq!(stored_body(&store, tenant, ContentType::SharePoint, seq), body, "round {round}, content {number}");
        assert!(store.is_stored(tenant, &blob.content_id).await.unwrap());
    }
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "round {round}: {verified:?}");
    assert!(verified.blobs >= acknowledged.len() as u64);
    let mut ids = BTreeSet::new();
    for of in 1..4 {
        for (seq, header) in store.read_after(tenant(of), ContentType::SharePoint, 0, 10_000).unwrap() {
            let id = header.unwrap().content_id;
            assert!(ids.insert((of, id.clone())), "round {round}: `{id}` (now {seq}) was stored twice");
        }
    }
    // Nothing is left of bodies that were on their way.
    let partitions = &store.holdings().partitions;
    let Some(newest) = partitions.newest() else { return store.close().await.unwrap() };
    let reading = partitions.read(&newest).unwrap();
    assert_eq!(reading.open_blobs().unwrap(), Vec::<u32>::new());
    let mut blobs = BTreeSet::new();
    reading.for_each_index(0, |blob, _| assert!(blobs.insert(blob))).unwrap();
    for row in reading.database.scan_prefix([keys::PART]).unwrap() {
        let (key, part) = row.unwrap();
        let (blob, _) = keys::parse_numbered_twice(keys::PART, &key).unwrap();
        assert!(part.is_empty() || blobs.contains(&blob), "round {round}: parts of a blob that is not there");
    }
    drop(reading);
    store.close().await.unwrap();
}
