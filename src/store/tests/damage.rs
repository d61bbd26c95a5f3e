//! Damage, loss and trouble with the disk: what is told apart, what stays, and what is never removed.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::store::database::Doing;
use crate::store::database::faults::{self, How};
use crate::store::verify::Finding;
use crate::store::{Gone, IntakeError, StoreError, roll};

const KIND: ContentType = ContentType::Exchange;
const NOW: &str = "2026-11-22T10:00:00Z";

async fn store_one(store: &Store, id: &str, at: &str, ids: &[u32]) -> Stored {
    store.tell(time(at));
    put(store.receive(tenant(1), &blob(KIND, id, NOW), fetched(at), None), &body(ids)).await
}

/// Three partitions with two blobs each: records 1 to 6, and one copy of 1 in the last.
async fn three_partitions(path: &Path) {
    let store = open_at(path, NOW);
    for (partition, day) in ["2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z", NOW].into_iter().enumerate() {
        let first = u32::try_from(partition).unwrap() * 2 + 1;
        store_one(&store, &format!("a{partition}"), day, &[first]).await;
        let ids = if partition == 2 { vec![1, first + 1] } else { vec![first + 1] };
        store_one(&store, &format!("b{partition}"), day, &ids).await;
    }
    store.close().await.unwrap();
}

/// A partition of which only the name matters.
fn named(ordinal: u32, name: &str) -> crate::store::partitions::Partition {
    let key = crate::store::seen::SeenKey::new([0; 16]);
    crate::store::partitions::Partition::new(name.parse().unwrap(), ordinal, None, name.into(), key)
}

fn ruin(partition: &Path) {
    fs::write(partition.join("db/db"), vec![0x5a; 3 << 20]).unwrap();
}

fn exported_in_part(store: &Store) -> (Vec<u32>, Result<(), StoreError>) {
    let mut found = Vec::new();
    let read = store.for_each_record(&Query::default(), |record| {
        let value: serde_json::Value = serde_json::from_slice(record.json).unwrap();
        found.push(u32::try_from(value["n"].as_u64().unwrap()).unwrap());
        ControlFlow::Continue(())
    });
    (found, read)
}

#[tokio::test]
async fn a_newest_partition_that_is_damaged_is_moved_aside_and_numbers_go_on_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    ruin(&dir.path().join("content/2026-11-22.001"));

    let store = open_at(dir.path(), NOW);
    let aside: Vec<_> = fs::read_dir(dir.path().join("aside")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].join("db/db").exists(), "nothing of it is removed");
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3, 4]);
    let anchors = store.anchors();
    assert_eq!((anchors.len(), anchors[0].ordinals), (1, (3, 3)));
    assert!(matches!(&anchors[0].reason, Gone::Damaged { moved_to: Some(path), .. } if *path == aside[0]));
    assert_eq!(store.newest_partition(), "2026-11-22.002");

    // What was lost is stored again; no number is given twice, nor to a tenant that only the lost partition knew.
    let again = store_one(&store, "a2", NOW, &[5]).await;
    assert_eq!((again.seq, again.new), ((4 << 32) + 1, true));
    let other = put(store.receive(tenant(9), &blob(KIND, "x", NOW), fetched(NOW), None), &body(&[70])).await;
    assert_eq!(other.seq, (4 << 32) + 1);
    store.roll().await.unwrap();
    assert_eq!(store_one(&store, "b2", NOW, &[1, 6]).await.seq, (4 << 32) + 2);
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3, 4, 5, 70, 6]);

    let verified = store.verify().unwrap();
    assert!(matches!(&verified.findings[..], [Finding::LostPartition { ordinal: 3, .. }]), "{verified:?}");
    store.close().await.unwrap();
    let store = open_at(dir.path(), NOW);
    assert_eq!(store.verify().unwrap(), verified);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_crash_after_moving_aside_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let content = dir.path().join("content");
    // As after the anchor and the move, but before the next partition; and the one before was not sealed yet.
    let mut anchors = crate::store::anchors::Anchors::read(&content).unwrap();
    let damaged = Gone::Damaged { why: "x".to_owned(), moved_to: None };
    anchors.add(&named(3, "2026-11-22.001"), damaged, None, time(NOW)).unwrap();
    fs::create_dir(dir.path().join("aside")).unwrap();
    fs::rename(content.join("2026-11-22.001"), dir.path().join("aside/x")).unwrap();
    fs::remove_file(content.join("2026-11-21.001/sealed")).unwrap();

    let store = open_at(dir.path(), NOW);
    assert_eq!(store_one(&store, "new", NOW, &[80]).await.seq, (4 << 32) + 1);
    let verified = store.verify().unwrap();
    assert!(matches!(&verified.findings[..], [Finding::LostPartition { ordinal: 3, .. }]), "{verified:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_older_partition_that_is_damaged_stays_and_its_copies_take_its_place() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let first = dir.path().join("content/2026-11-20.001");
    ruin(&first);
    let before = fs::read(first.join("db/db")).unwrap();

    let store = open_at(dir.path(), NOW);
    let (found, read) = exported_in_part(&store);
    // The copy of record 1 is now the only one.
    assert_eq!(found, [3, 4, 5, 1, 6]);
    let error = read.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { partitions: 1, blobs: 0, .. }), "{error:?}");
    assert!(error.to_string().contains("2026-11-20.001"), "{error}");
    assert_eq!(store_one(&store, "more", NOW, &[9]).await.seq, 7);
    let verified = store.verify().unwrap();
    assert!(matches!(&verified.findings[..], [Finding::LostPartition { ordinal: 1, .. }]), "{verified:?}");
    store.close().await.unwrap();
    assert_eq!(fs::read(first.join("db/db")).unwrap(), before, "it is left as it is");
}

#[tokio::test]
async fn a_partition_that_vanishes_is_lost_and_not_dropped() {
    for (gone, ordinal) in [("2026-11-21.001", 2), ("2026-11-22.001", 3)] {
        let dir = tempfile::tempdir().unwrap();
        three_partitions(dir.path()).await;
        fs::remove_dir_all(dir.path().join("content").join(gone)).unwrap();
        let store = open_at(dir.path(), NOW);
        let seq = store_one(&store, "more", NOW, &[9]).await.seq;
        assert_eq!(seq, if ordinal == 3 { (3 << 32) + 1 } else { 7 });
        let verified = store.verify().unwrap();
        let lost =
            matches!(&verified.findings[..], [Finding::LostPartition { ordinal: found, .. }] if *found == ordinal);
        assert!(lost, "{verified:?}");
        assert!(!verified.is_sound());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_label_that_cannot_be_read_is_damage_and_a_newer_format_is_not() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let label = dir.path().join("content/2026-11-22.001/partition");
    let text = fs::read_to_string(&label).unwrap();
    fs::write(&label, text.replace("\"format\": 1", "\"format\": 99")).unwrap();
    let time = Arc::new(ServiceTime::new(SetClock::new(time(NOW))));
    let error = Store::open(&options(dir.path()), time).unwrap_err();
    assert!(matches!(error, StoreError::UnknownFormat { found: 99, .. }), "{error:?}");
    assert_eq!(error.exit_code(), 78);
    assert!(!dir.path().join("aside").exists());

    fs::write(&label, &text[..10]).unwrap();
    let store = open_at(dir.path(), NOW);
    assert_eq!(store.anchors().len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_locked_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let held = fs::File::open(dir.path().join("content/2026-11-22.001/db/db")).unwrap();
    held.lock().unwrap();
    let time = Arc::new(ServiceTime::new(SetClock::new(time(NOW))));
    let error = Store::open(&options(dir.path()), time).unwrap_err();
    assert!(matches!(error, StoreError::DatabaseInUse { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 75);
    assert!(!dir.path().join("aside").exists());
    drop(held);
    open_at(dir.path(), NOW).close().await.unwrap();
}

#[tokio::test]
async fn after_a_write_error_the_writer_opens_again_and_nothing_is_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    // A body of which parts went ahead is lost with the write error, and says so.
    let mut large = store.receive(tenant(1), &blob(KIND, "large", NOW), fetched(NOW), None);
    let body_of_large = incompressible(3_000_000);
    large.push(&body_of_large).await.unwrap();
    let partitions = &store.holdings().partitions;
    partitions.read(&partitions.newest().unwrap()).unwrap().database.close();

    let writer = store.receive(tenant(1), &blob(KIND, "two", NOW), fetched(NOW), None);
    let error = try_put(writer, &body(&[2])).await.unwrap_err();
    assert!(matches!(error, IntakeError::Store(_)), "{error:?}");
    assert!(!store.is_stored(tenant(1), &"two".into()).await.unwrap_or(false));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let two = loop {
        let writer = store.receive(tenant(1), &blob(KIND, "two", NOW), fetched(NOW), None);
        match try_put(writer, &body(&[2])).await {
            Ok(stored) => break stored,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(two.seq, 2);
    assert!(matches!(large.finish().await, Err(IntakeError::Store(_))));
    let writer = store.receive(tenant(1), &blob(KIND, "large", NOW), fetched(NOW), None);
    assert_eq!(put(writer, &body_of_large).await.seq, 3);
    let verified = store.verify().unwrap();
    assert!(verified.is_sound() && verified.blobs == 3, "{verified:?}");
    store.close().await.unwrap();
}

/// Tries until it works: the writer opens again after a while.
async fn until_stored(store: &Store, id: &str, at: &str, ids: &[u32]) -> Stored {
    let trying = async {
        loop {
            let writer = store.receive(tenant(1), &blob(KIND, id, NOW), fetched(at), None);
            match try_put(writer, &body(ids)).await {
                Ok(stored) => return stored,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), trying).await.expect("the store does not recover")
}

#[tokio::test]
async fn a_reader_does_not_keep_the_writer_from_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    faults::fail(dir.path(), Doing::Write, 1, How::Disk);
    let writer = store.receive(tenant(1), &blob(KIND, "two", NOW), fetched(NOW), None);
    try_put(writer, &body(&[2])).await.unwrap_err();
    // A reader looks at the partition while nobody writes it; what comes of that is another question.
    for _ in 0..3 {
        drop(store.is_stored(tenant(1), &"one".into()).await);
    }
    assert_eq!(until_stored(&store, "two", NOW, &[2]).await.seq, 2);
    assert!(store.is_stored(tenant(1), &"one".into()).await.unwrap());
    assert_eq!(exported(&store, &Query::default()), [1, 2]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_written_and_not_acknowledged_is_not_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    faults::fail(dir.path(), Doing::Write, 1, How::DoneAndDisk);
    let writer = store.receive(tenant(1), &blob(KIND, "two", NOW), fetched(NOW), None);
    try_put(writer, &body(&[2])).await.unwrap_err();
    let two = until_stored(&store, "two", NOW, &[2]).await;
    assert_eq!((two.seq, two.new), (2, false));
    assert_eq!(store_one(&store, "three", NOW, &[2]).await.duplicates, 1);
    assert_eq!(exported(&store, &Query::default()), [1, 2]);
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_partition_that_was_begun_and_not_opened_is_the_newest_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    // Made, renamed, and then the disk refuses.
    let second = dir.path().join("content/2026-11-22.002");
    faults::fail(&second, Doing::Open, 1, How::Disk);
    assert!(store.roll().await.is_err());
    assert!(second.exists() && faults::left(&second) == 0);
    assert_eq!(until_stored(&store, "two", NOW, &[2]).await.seq, 2);
    assert_eq!(store.newest_partition(), "2026-11-22.002");
    until_sealed(&store).await;
    store.roll().await.unwrap();
    assert_eq!(store_one(&store, "three", NOW, &[1, 3]).await.seq, 3);
    assert_eq!(store.newest_partition(), "2026-11-22.003");
    store.close().await.unwrap();
    let store = open_at(dir.path(), NOW);
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3]);
    let verified = store.verify().unwrap();
    assert!(verified.is_sound() && verified.partitions == 3, "{verified:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn no_name_and_no_ordinal_that_lies_on_the_disk_is_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    // Somebody puts one back.
    let other = dir.path().join("content/2026-11-22.002");
    fs::create_dir(&other).unwrap();
    let label = fs::read_to_string(dir.path().join("content/2026-11-22.001/partition")).unwrap();
    let label = label.replace("\"ordinal\": 1", "\"ordinal\": 7").replace("22.001", "22.002");
    fs::write(other.join("partition"), label).unwrap();
    store.roll().await.unwrap();
    let newest = store.holdings().partitions.newest().unwrap();
    assert_eq!((newest.name.to_string().as_str(), newest.ordinal), ("2026-11-22.003", 8));
    store.close().await.unwrap();
}

/// Something in the newest partition that shows only when it is read after opening.
fn ruin_one_entry(store: &Store, changes: impl FnOnce(&mut crate::store::tree::Changes)) {
    let partitions = &store.holdings().partitions;
    let reading = partitions.read(&partitions.newest().unwrap()).unwrap();
    let mut batch = crate::store::tree::Changes::default();
    changes(&mut batch);
    reading.database.commit(batch.batch).unwrap();
}

#[tokio::test]
async fn damage_that_shows_after_opening_leaves_the_partition_where_it_is() {
    use crate::store::keys;
    type Ruin = fn(&mut crate::store::tree::Changes);
    let ruins: [(&str, Ruin); 3] = [
        ("open blobs", |changes| changes.batch.insert(&[keys::OPEN, 1], &[])),
        ("ids", |changes| changes.batch.insert(&keys::index(1, 0), &[0xff])),
        ("the day", |changes| changes.batch.insert([&[keys::LEDGER][..], &495_000_u32.to_be_bytes()].concat(), &[])),
    ];
    for (what, ruin) in ruins {
        let dir = tempfile::tempdir().unwrap();
        // The hour of the ledger's key.
        let now = time("1970-01-01T00:00:00Z") + jiff::SignedDuration::from_hours(495_000);
        let store = open_at(dir.path(), &now.to_string());
        store_one(&store, "one", &now.to_string(), &[1]).await;
        store_one(&store, "two", &now.to_string(), &[2]).await;
        ruin_one_entry(&store, ruin);
        store.close().await.unwrap();
        // What was seen is not written down.
        for entry in fs::read_dir(dir.path().join(format!("content/{}", roll::day_of(now)) + ".001")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "run") {
                fs::remove_file(path).unwrap();
            }
        }
        for ordinal in [2, 2] {
            let store = open_at(dir.path(), &now.to_string());
            let stored = store_one(&store, "three", &now.to_string(), &[3]).await;
            assert_eq!(stored.seq, 3, "{what}");
            assert_eq!(store.holdings().partitions.newest().unwrap().ordinal, ordinal, "{what}");
            assert_eq!(exported(&store, &Query::default()), [1, 2, 3], "{what}");
            assert!(store.anchors().is_empty() && !dir.path().join("aside").exists(), "{what}");
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn damage_that_a_reader_meets_in_the_newest_partition_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    faults::fail(&dir.path().join("content"), Doing::Read, 1, How::Damage);
    let listed = store.enqueue(tenant(1), Tier::Poll, vec![blob(KIND, "one", NOW)]).await.unwrap();
    assert_eq!((listed.new, faults::left(&dir.path().join("content"))), (1, 0));
    assert_eq!(store_one(&store, "two", NOW, &[2]).await.seq, 2);
    assert_eq!(store.newest_partition(), "2026-11-22.002");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_seal_that_fails_is_made_up_for_and_readers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    // A body is on its way, so that sealing has something to remove.
    let mut large = store.receive(tenant(1), &blob(KIND, "large", NOW), fetched(NOW), None);
    large.push(&incompressible(3_000_000)).await.unwrap();
    store_one(&store, "two", NOW, &[2]).await;
    let first = dir.path().join("content/2026-11-22.001");
    let held = store.holdings().partitions.list()[0].clone();
    faults::fail(&first, Doing::Write, 3, How::Disk);
    store.roll().await.unwrap();
    // Somebody reads it all the while, so that it is never closed by itself.
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    let mut readings = Vec::new();
    while faults::left(&first) > 0 || held.sealed().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "it is not sealed: {} faults left", faults::left(&first));
        readings.push(store.holdings().partitions.read(&held).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(readings);
    drop(large);
    assert_eq!(exported(&store, &Query::default()), [1, 2]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_does_not_give_an_old_place_refuses_what_asks_for_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    store.roll().await.unwrap();
    until_sealed(&store).await;
    let first = dir.path().join("content/2026-11-22.001");
    // It is open and its index is in memory; what is to confirm a copy cannot be read.
    drop(store.holdings().partitions.read(&store.holdings().partitions.list()[0]).unwrap());
    faults::fail(&first, Doing::Read, usize::MAX / 2, How::Disk);
    for attempt in 1..=2 {
        let asks = store.receive(tenant(1), &blob(KIND, "copy", NOW), fetched(NOW), None);
        let other = store.receive(tenant(2), &blob(KIND, &format!("other-{attempt}"), NOW), fetched(NOW), None);
        let (copy, other_body) = (body(&[1, 2]), body(&[70 + attempt]));
        let (refused, stored) = tokio::join!(try_put(asks, &copy), try_put(other, &other_body));
        assert!(matches!(refused, Err(IntakeError::Store(_))), "{attempt}: {refused:?}");
        let stored = stored.unwrap();
        assert_eq!((stored.seq, stored.new), (u64::from(attempt), true));
    }
    // Better stored twice than not at all.
    let copy = store_one(&store, "copy", NOW, &[1, 2]).await;
    assert_eq!((copy.seq, copy.duplicates), (2, 0));
    faults::end(&first);
    assert_eq!(store_one(&store, "more", NOW, &[2]).await.duplicates, 1);
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_only_partition_that_is_lost_leaves_its_numbers_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    store.close().await.unwrap();
    // As after the anchor and the move, but before the next partition.
    let content = dir.path().join("content");
    let mut anchors = crate::store::anchors::Anchors::read(&content).unwrap();
    let damaged = Gone::Damaged { why: "x".to_owned(), moved_to: None };
    anchors.add(&named(1, "2026-11-22.001"), damaged, None, time(NOW)).unwrap();
    fs::remove_dir_all(content.join("2026-11-22.001")).unwrap();
    let store = open_at(dir.path(), NOW);
    assert_eq!(store_one(&store, "one", NOW, &[1]).await.seq, (2 << 32) + 1);
    assert_eq!(store.newest_partition(), "2026-11-22.002");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_partition_that_cannot_be_moved_aside_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let store = open_at(dir.path(), NOW);
    let (newest, aside) = (dir.path().join("content/2026-11-22.001"), dir.path().join("aside"));
    fs::write(&aside, b"in the way").unwrap();
    faults::fail(&newest, Doing::Write, 1, How::Disk);
    faults::fail(&newest, Doing::Open, 2, How::Damage);
    let trying = async {
        while faults::left(&newest) > 1 {
            let writer = store.receive(tenant(1), &blob(KIND, "more", NOW), fetched(NOW), None);
            assert!(try_put(writer, &body(&[9])).await.is_err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), trying).await.expect("it is not opened again");
    assert!(newest.exists(), "it was not moved, and not forgotten either");
    fs::remove_file(&aside).unwrap();
    assert_eq!(until_stored(&store, "more", NOW, &[9]).await.seq, (4 << 32) + 1);
    let anchors = store.anchors();
    assert!(matches!(&anchors[..], [anchor] if anchor.ordinals == (3, 3)), "{anchors:?}");
    assert!(matches!(&anchors[0].reason, Gone::Damaged { moved_to: Some(path), .. } if path.starts_with(&aside)));
    assert!(!newest.exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_the_disk_does_not_give_is_not_replaced_by_an_empty_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    let wait = crate::store::Wait { from: time(NOW), until: time("2026-11-22T12:00:00Z") };
    store.remember_wait(tenant(1), crate::store::WaitKey::Throttled, Some(wait)).await.unwrap();
    store.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("state-1")).unwrap();
    fs::remove_file(dir.path().join("state")).unwrap();
    // The newest is read well until the snapshot is asked for: the reads before that are those of its opening.
    let content = dir.path().join("content");
    let open = || Store::open(&options(dir.path()), Arc::new(ServiceTime::new(SetClock::new(time(NOW)))));
    let store = crate::store::content::Content::open(
        &options(dir.path()).content().unwrap(),
        Arc::new(ServiceTime::new(SetClock::new(time(NOW)))),
    )
    .unwrap();
    faults::fail(&content, Doing::Read, usize::MAX / 2, How::Disk);
    let error = store.snapshot().unwrap_err();
    let state =
        crate::store::state::State::open(dir.path(), &crate::store::state::StateOptions::new(time(NOW)), &|| {
            store.snapshot()
        });
    assert_eq!((error.exit_code(), state.unwrap_err().kind()), (75, "io"));
    faults::end(&content);
    store.close().await.unwrap();
    drop(store);
    let store = open().unwrap();
    assert_eq!(store.waits(tenant(1)).await.unwrap(), [(crate::store::WaitKey::Throttled, wait)].into());
    store.close().await.unwrap();
}

#[tokio::test]
async fn after_content_was_lost_there_has_been_no_sweep() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let swept = |at: &str| crate::store::Watermark { sweep_at: Some(time(at)), ..Default::default() };
    let store = open_at(dir.path(), NOW);
    store.set_watermark(tenant(1), KIND, swept("2026-11-22T09:00:00Z"));
    store.close().await.unwrap();
    ruin(&dir.path().join("content/2026-11-22.001"));
    let store = open_at(dir.path(), NOW);
    assert_eq!(store.watermarks(tenant(1)).await.unwrap()[&KIND].sweep_at, None);
    store.set_watermark(tenant(1), KIND, swept("2026-11-22T11:00:00Z"));
    assert!(store.watermarks(tenant(1)).await.unwrap()[&KIND].sweep_at.is_some());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_makes_the_writer_panic_panics_whoever_brought_it_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    let bringing = tokio::spawn({
        let writer = store.receive(tenant(2), &blob(KIND, crate::store::writer::PANICS, NOW), fetched(NOW), None);
        async move { try_put(writer, &body(&[9])).await }
    });
    let panic = bringing.await.unwrap_err().into_panic();
    assert!(crate::store::database::panic_text(panic.as_ref()).contains("makes the writer panic"));
    assert_eq!(until_stored(&store, "two", NOW, &[2]).await.seq, 2);
    assert_eq!(exported(&store, &Query::default()), [1, 2]);
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn ids_of_records_have_a_share_of_memory_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    // As many records as a blob can hold, in few bytes: what is remembered of each costs more than it does.
    let mut hostile = vec![b'['];
    hostile.extend(b"{},".repeat(1_500_000));
    let mut held = Vec::new();
    let error = loop {
        let name = format!("hostile-{}", held.len());
        let mut writer = store.receive(tenant(1), &blob(KIND, &name, NOW), fetched(NOW), None);
        match writer.push(&hostile).await {
            Ok(()) => held.push(writer),
            Err(error) => break error,
        }
        assert!(held.len() < 20, "nothing bounds the memory");
    };
    assert!(matches!(&error, IntakeError::Store(error) if error.kind() == "crowded"), "{error:?}");
    // Others get through, and it comes again.
    store_one(&store, "one", NOW, &[1]).await;
    held.clear();
    let mut writer = store.receive(tenant(1), &blob(KIND, "again", NOW), fetched(NOW), None);
    writer.push(&hostile).await.unwrap();
    writer.push(b"{}]").await.unwrap();
    assert_eq!(writer.finish().await.unwrap().records, 1_500_001);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_changed_or_removed_behind_the_stores_back_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    for number in 1..=6 {
        store_one(&store, &format!("c{number}"), NOW, &[number, number + 100]).await;
    }
    assert!(store.verify().unwrap().is_sound());
    let partitions = &store.holdings().partitions;
    let reading = partitions.read(&partitions.newest().unwrap()).unwrap();
    let header = |seq| reading.header(tenant(1), KIND, seq).unwrap().unwrap();

    let mut changes = crate::store::tree::Changes::default();
    // 1: the body of another blob; 2: no body; 3: a header that was changed; 5: no header; 6: no index.
    let other = reading.part(header(4).blob_no, 0).unwrap().unwrap();
    changes.put_part(header(1).blob_no, 0, &other);
    changes.batch.remove(&crate::store::keys::part(header(2).blob_no, 0));
    let mut third = header(3);
    third.fetched.at += jiff::SignedDuration::from_hours(1);
    changes.put_header(tenant(1), &third).unwrap();
    changes.batch.remove(&crate::store::keys::header(tenant(1), KIND, 5));
    changes.batch.remove(&crate::store::keys::index(header(6).blob_no, 0));
    reading.database.commit(changes.batch).unwrap();
    drop(reading);

    let found: BTreeSet<_> = store
        .verify()
        .unwrap()
        .findings
        .into_iter()
        .map(|finding| match finding {
            Finding::Altered { blob, .. } => ("altered", blob.seq),
            Finding::LostPart { blob, .. } => ("lost", blob.seq),
            Finding::Gap { blob, .. } => ("gap", blob.seq),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(found, [("altered", 1), ("lost", 2), ("altered", 3), ("gap", 5), ("lost", 6)].into());
    // What can be read is read, and what cannot is said.
    let (records, read) = exported_in_part(&store);
    assert_eq!(records.len(), 8, "{records:?}");
    assert!(matches!(read, Err(StoreError::Incomplete { partitions: 0, blobs: 1, .. })), "{read:?}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_begun_and_stored_while_it_is_verified_is_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_one(&store, "one", NOW, &[1]).await;
    store_one(&store, "two", NOW, &[2]).await;
    let runtime = tokio::runtime::Handle::current();
    let verified = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            let begun = std::cell::Cell::new(false);
            store.verify_while(&[], || {
                if !begun.replace(true) {
                    runtime.block_on(async {
                        store_one(&store, "three", NOW, &[3]).await;
                        store.roll().await.unwrap();
                        until_sealed(&store).await;
                        store_one(&store, "four", NOW, &[4]).await;
                    });
                }
                true
            })
        }
    });
    let verified = verified.await.unwrap().unwrap();
    assert!(verified.is_sound() && verified.findings.is_empty() && verified.blobs == 2, "{verified:?}");
    assert_eq!(store.verify().unwrap().blobs, 4);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_waits_for_readers_and_then_goes_on_without_them() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let store = open_at(dir.path(), NOW);
    let (started, start) = std::sync::mpsc::channel();
    let (go_on, going_on) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn({
        let store = store.clone();
        move || {
            let mut first = true;
            store.for_each_record(&Query::default(), |_| {
                if std::mem::take(&mut first) {
                    started.send(()).unwrap();
                    going_on.recv().unwrap();
                }
                ControlFlow::Continue(())
            })
        }
    });
    start.recv().unwrap();
    let partitions = &store.holdings().partitions;
    let held = partitions.read(&partitions.list()[0]).unwrap();
    let dropping = std::thread::spawn({
        let store = store.clone();
        move || roll::drop_partitions(store.holdings(), "2026-11-22".parse().unwrap(), Duration::from_millis(50))
    });
    // Who begins now does not meet what is about to go.
    while !partitions.list()[0].is_ending() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (found, read) = exported_in_part(&store);
    assert!(found.ends_with(&[5, 1, 6]) && read.is_ok(), "{found:?} {read:?}");
    // It has its patience and no more, although one reader stalls and another holds on.
    assert_eq!(dropping.join().unwrap().unwrap(), ["2026-11-20.001", "2026-11-21.001"]);
    assert!(!dir.path().join("content/2026-11-20.001").exists());
    assert!(matches!(held.go_on().unwrap_err(), StoreError::PartitionDropped { .. }));
    drop(held);
    go_on.send(()).unwrap();
    let error = reader.join().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::PartitionDropped { .. }), "{error:?}");

    assert_eq!(exported(&store, &Query::default()), [5, 1, 6], "the copy takes the place of the original");
    let verified = store.verify().unwrap();
    assert!(verified.is_sound());
    assert!(
        matches!(&verified.findings[..], [Finding::Dropped { ordinals, .. }] if *ordinals == (1..=2)),
        "{verified:?}"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_crash_while_dropping_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    three_partitions(dir.path()).await;
    let content = dir.path().join("content");
    let mut anchors = crate::store::anchors::Anchors::read(&content).unwrap();
    anchors.add(&named(1, "2026-11-20.001"), Gone::Dropped, None, time(NOW)).unwrap();
    anchors.add(&named(2, "2026-11-21.001"), Gone::Dropped, None, time(NOW)).unwrap();
    fs::rename(content.join("2026-11-20.001"), content.join(".dropping-2026-11-20.001")).unwrap();
    fs::create_dir(content.join(".new-2026-11-23.001")).unwrap();
    let store = open_at(dir.path(), NOW);
    let left: BTreeSet<String> =
        fs::read_dir(&content).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["2026-11-22.001", "anchors"].map(str::to_owned).into());
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

/// Overwrites a byte of the first entry of each index file; the filter still says that something is there.
fn ruin_runs(partition: &Path) -> usize {
    let names = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
    let runs: Vec<_> = names.filter(|path| path.extension().is_some_and(|extension| extension == "run")).collect();
    for run in &runs {
        let mut bytes = fs::read(run).unwrap();
        bytes[10] ^= 0x40;
        fs::write(run, bytes).unwrap();
    }
    runs.len()
}

async fn until_sealed(store: &Store) {
    let partition = store.holdings().partitions.list()[0].clone();
    let sealed = async {
        while partition.sealed().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sealed).await.expect("the partition is not sealed");
}

#[tokio::test]
async fn a_damaged_index_is_made_again_when_its_partition_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    for first in [1, 11] {
        let store = open_at(dir.path(), NOW);
        for number in first..first + 10 {
            store_one(&store, &format!("c{number}"), NOW, &[number]).await;
        }
        store.close().await.unwrap();
    }
    let partition = dir.path().join("content/2026-11-22.001");
    assert_eq!(ruin_runs(&partition), 2);
    let store = open_at(dir.path(), NOW);
    store_one(&store, "c21", NOW, &[21]).await;
    store.roll().await.unwrap();
    until_sealed(&store).await;
    store.close().await.unwrap();

    // One run has it all, those that were in the damaged ones included, and is read without the database.
    let (seen, opened) = crate::store::seen::Seen::open(&partition, store_key(dir.path())).unwrap();
    assert_eq!((opened.covered_to, opened.damaged.len()), (21, 0));
    drop(seen);
    let store = open_at(dir.path(), NOW);
    for number in 1..=21 {
        assert!(!store_one(&store, &format!("c{number}"), NOW, &[number]).await.new, "c{number} was stored twice");
        let copy = store_one(&store, &format!("copy-{number}"), NOW, &[number]).await;
        assert_eq!((copy.new, copy.duplicates), (true, 1), "{number}");
    }
    store.close().await.unwrap();
}

fn store_key(store: &Path) -> crate::store::seen::SeenKey {
    crate::store::seen::SeenKey::new(crate::store::format::Format::open(store).unwrap().seen_key)
}

#[tokio::test]
async fn a_damaged_index_that_is_asked_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    for number in 1..=10 {
        store_one(&store, &format!("c{number}"), NOW, &[number]).await;
    }
    store.close().await.unwrap();
    assert_eq!(ruin_runs(&dir.path().join("content/2026-11-22.001")), 1);
    let store = open_at(dir.path(), NOW);
    for number in 1..=10 {
        assert!(!store_one(&store, &format!("c{number}"), NOW, &[number]).await.new, "c{number} was stored twice");
    }
    store.close().await.unwrap();
}
