//! A disk that is full: a clear error, nothing acknowledged that is not durable, and on it goes when there is space.
//!
//! Needs a small file system of its own, and so root and `tmpfs`; else the test says why it does nothing, which CI
//! accepts only if the kernel refuses root to mount.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::*;
use crate::store::{IntakeError, StoreError, WaitKey};

const KIND: ContentType = ContentType::Exchange;
const NOW: &str = "2026-11-22T10:00:00Z";
/// Room for the two databases and a partition or two more.
const SIZE: &str = "size=72m";

/// A file system that is soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .env("LC_ALL", "C")
            .args(["-t", "tmpfs", "-o", SIZE, "tenantry-test"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    /// Takes all the space there is, but for `left` bytes.
    fn fill(&self, left: usize) {
        use std::io::Write as _;
        let mut ballast = fs::File::create(self.0.path().join("ballast")).unwrap();
        let mut written = 0_usize;
        let piece = vec![7; 1 << 16];
        while let Ok(more) = ballast.write(&piece) {
            written += more;
        }
        ballast.set_len(written.saturating_sub(left) as u64).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

/// Says why the test does nothing here.
///
/// CI runs as root, so there it is a failure not to be root, or to have asked for nonsense. Only if the kernel refuses
/// to mount, and refuses root, there is nothing that CI could do about it: containers are often forbidden to mount.
/// That is a skip in CI too.
fn skip(reason: &str) {
    // What `mount` says, in the C locale, for want of a privilege, when a security module forbids it, and when the
    // kernel has no `tmpfs`. What is not known is no refusal, so that CI fails and somebody reads it.
    let refusals =
        [": permission denied.", ": Operation not permitted", ": cannot mount ", ": unknown filesystem type "];
    let refused = refusals.iter().any(|refusal| reason.contains(refusal));
    let excused = rustix::process::geteuid().is_root() && reason.starts_with("mount: ") && refused;
    assert!(excused || std::env::var_os("TENANTRY_TEST_NO_SKIP").is_none(), "skipped in CI: {reason}");
    eprintln!("SKIPPED: no small file system can be mounted here: {reason}");
}

/// The content with this number: some go to the store in many parts.
fn content(number: u32) -> (ContentBlob, Vec<u8>) {
    let mut body = body(&[number * 2, number * 2 + 1]);
    let filler = noise(if number.is_multiple_of(3) { 1_500_000 } else { 200_000 }, number.into());
    body.pop();
    body.extend_from_slice(format!(",{{\"n\":{},\"filler\":\"{filler}\"}}]", 1_000_000 + number).as_bytes());
    (blob(KIND, &format!("content-{number}"), "2026-11-22T09:00:00Z"), body)
}

async fn try_store(store: &Store, number: u32) -> Result<Stored, Arc<StoreError>> {
    let (of, body) = content(number);
    match try_put(store.receive(tenant(1), &of, fetched(NOW), None), &body).await {
        Ok(stored) => Ok(stored),
        Err(IntakeError::Store(error)) => Err(error),
        Err(error) => panic!("{error:?}"),
    }
}

/// Tries until it works: the writers open their databases again after a while.
async fn until_stored(store: &Store, number: u32) -> Stored {
    let trying = async {
        loop {
            match try_store(store, number).await {
                Ok(stored) => return stored,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(2), trying).await.expect("the store does not recover")
}

/// Queues contents until the disk refuses, and answers those that were acknowledged.
async fn queue_until_full(store: &Store, first: u32) -> (BTreeSet<String>, StoreError) {
    let mut queued = BTreeSet::new();
    for page in 0..10_000_u32 {
        let listed: Vec<_> = (0..50)
            .map(|at| {
                let name = format!("queued-{first}-{page}-{at}-{}", noise(1500, (page * 50 + at).into()));
                blob(KIND, &name, "2026-11-22T09:00:00Z")
            })
            .collect();
        let names: Vec<_> = listed.iter().map(|blob| blob.content_id.to_string()).collect();
        match store.enqueue(tenant(1), Tier::Poll, listed).await {
            Ok(enqueued) => {
                assert_eq!(enqueued.new, 50);
                queued.extend(names);
            }
            Err(error) => return (queued, error),
        }
    }
    panic!("the disk does not get full");
}

fn assert_says_full(error: &StoreError) {
    assert_eq!((error.kind(), error.exit_code()), ("disk_full", 75), "{error:?}");
    assert!(error.remedy().contains("free space"), "{error:?}");
}

/// What was acknowledged is there, whole and once, and nothing else that was not offered.
async fn assert_sound(store: &Store, acknowledged: &[(u32, u64)], queued: &BTreeSet<String>) {
    for &(number, seq) in acknowledged {
        assert_eq!(stored_body(store, tenant(1), KIND, seq), content(number).1, "content {number}");
    }
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    let mut ids = BTreeSet::new();
    for (seq, header) in store.read_after(tenant(1), KIND, 0, 10_000).unwrap() {
        assert!(ids.insert(header.unwrap().content_id), "{seq} was stored before");
    }
    let mut found = BTreeSet::new();
    loop {
        let taken = store.take_queued(tenant(1), 500, time(NOW)).await.unwrap();
        if taken.is_empty() {
            break;
        }
        found.extend(taken.into_iter().map(|entry| entry.blob.content_id.to_string()));
    }
    let lost: Vec<_> = queued.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} queue entries are lost", lost.len(), queued.len());
    assert!(!store.holdings().store.join("aside").exists(), "a full disk is no damage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_to_be_full_and_loses_nothing() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let store = open_at(&disk.store(), NOW);
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        acknowledged.push((number, try_store(&store, number).await.unwrap().seq));
    }
    store
        .remember_wait(tenant(1), WaitKey::Throttled, Some(crate::store::Wait { from: time(NOW), until: time(NOW) }))
        .await
        .unwrap();
    let mut next = 6;
    let mut queued = BTreeSet::new();
    // With a little left and with nothing: it gets full in the middle of a body, of a segment, of a batch.
    for left in [3 << 20, 200_000, 0] {
        disk.fill(left);
        let refused = loop {
            match try_store(&store, next).await {
                Ok(stored) => acknowledged.push((next, stored.seq)),
                Err(error) => break error,
            }
            next += 1;
            assert!(next < 2000, "the disk does not get full");
        };
        assert_says_full(&refused);
        let (more, refused) = queue_until_full(&store, next).await;
        queued.extend(more);
        assert_says_full(&refused);
        let (wait, until) =
            (WaitKey::Paused, crate::store::Wait { from: time(NOW), until: time("2026-11-23T00:00:00Z") });
        let waited = store.remember_wait(tenant(1), wait.clone(), Some(until)).await;
        // A new partition cannot be begun either, and leaves nothing behind that would count.
        assert!(store.roll().await.is_err());
        disk.free();
        acknowledged.push((next, until_stored(&store, next).await.seq));
        next += 1;
        let trying = async {
            while store.remember_wait(tenant(1), WaitKey::Throttled, Some(until)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), trying).await.expect("the state does not recover");
        let waits = store.waits(tenant(1)).await.unwrap();
        assert!(waited.is_err() || waits.get(&wait) == Some(&until), "{waits:?}");
    }
    assert_sound(&store, &acknowledged, &queued).await;
    store.close().await.unwrap();
    let store = open_at(&disk.store(), NOW);
    assert_sound(&store, &acknowledged, &queued).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_on_a_full_disk_opens_when_there_is_space() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let store = open_at(&disk.store(), NOW);
        assert_sound(&store, &acknowledged, &BTreeSet::new()).await;
        disk.fill(100_000 * round);
        let mut number = u32::try_from(round).unwrap() * 1000;
        let refused = loop {
            match try_store(&store, number).await {
                Ok(stored) => acknowledged.push((number, stored.seq)),
                Err(error) => break error,
            }
            number += 1;
        };
        assert_says_full(&refused);
        // What cannot be written is said; what was acknowledged does not depend on it.
        drop(store.close().await);
        let time = Arc::new(ServiceTime::new(SetClock::new(time(NOW))));
        match Store::open(&options(&disk.store()), time) {
            // It needs no space, or has found some.
            Ok(store) => drop(store.close().await),
            Err(error) => assert_says_full(&error),
        }
        disk.free();
    }
    let store = open_at(&disk.store(), NOW);
    assert_sound(&store, &acknowledged, &BTreeSet::new()).await;
    assert!(until_stored(&store, 9000).await.new);
    store.close().await.unwrap();
}
