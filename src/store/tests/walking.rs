//! Reading on from a cursor: everything once and in order, with few partitions opened for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

const KIND: ContentType = ContentType::Exchange;
const NOW: &str = "2026-11-22T10:00:00Z";
/// More than stay open when nobody reads them.
const PARTITIONS: u32 = 12;
/// The second tenant has its first blob in this partition, and one in every third from there.
const LATER: u32 = 4;

async fn store_one(store: &Store, number: u8, id: u32) -> Stored {
    let of = blob(KIND, &format!("{number}-{id}"), "2026-11-22T09:00:00Z");
    put(store.receive(tenant(number), &of, fetched(NOW), None), &body(&[id])).await
}

/// Two blobs of the first tenant in each partition, each with its number as its only record.
async fn many_partitions(path: &Path) -> Store {
    let store = open_at(path, NOW);
    for partition in 0..PARTITIONS {
        if partition > 0 {
            store.roll().await.unwrap();
        }
        for id in [2 * partition + 1, 2 * partition + 2] {
            assert_eq!(store_one(&store, 1, id).await.seq, u64::from(id));
        }
        if partition >= LATER && (partition - LATER).is_multiple_of(3) {
            store_one(&store, 2, 1000 + partition).await;
        }
    }
    store.close().await.unwrap();
    open_at(path, NOW)
}

/// The numbers of the records after a cursor, and where that stands then.
fn walk(store: &Store, number: u8, after: u64) -> (Vec<u64>, u64) {
    let mut found = Vec::new();
    let last = store.for_each_record_after(tenant(number), KIND, after, &[], |record| {
        found.push(record.seq);
        ControlFlow::Continue(())
    });
    (found, last.unwrap())
}

/// How often each partition was opened since this was asked last.
fn openings(store: &Store) -> Vec<usize> {
    let list = store.holdings().partitions.list();
    list.iter().map(|partition| partition.openings.swap(0, Ordering::Relaxed)).collect()
}

#[tokio::test]
async fn a_walk_opens_each_partition_once_and_a_few_to_find_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_partitions(dir.path()).await;
    let halves = PARTITIONS.ilog2() as usize + 1;
    let last = u64::from(2 * PARTITIONS);
    for after in [0, 1, 5, last / 2] {
        openings(&store);
        assert_eq!(walk(&store, 1, after), ((after + 1..=last).collect(), last), "after {after}");
        let opened = openings(&store);
        let first = usize::try_from(after / 2).unwrap();
        assert!(opened.iter().all(|times| *times <= 2), "after {after}: {opened:?}");
        let most = opened.len() - first + halves;
        assert!(opened.iter().sum::<usize>() <= most, "after {after}: {opened:?}, more than {most}");
    }
    // Who has read everything but the last opens nothing but the newest, which the writer has open.
    assert_eq!(walk(&store, 1, last - 1), (vec![last], last));
    assert_eq!(openings(&store).iter().sum::<usize>(), 0);
    store.close().await.unwrap();

    // Without a writer it is not known where the store ends.
    let store =
        Store::open_to_read(&options(dir.path()), Arc::new(ServiceTime::new(SetClock::new(time(NOW))))).unwrap();
    openings(&store);
    assert_eq!(walk(&store, 1, 0), ((1..=last).collect(), last));
    let opened = openings(&store);
    assert!(opened.iter().sum::<usize>() <= opened.len() + halves, "{opened:?}");
    store.close().await.unwrap();
}

/// The partitions of which a file is open in this process.
fn held(store: &Store) -> BTreeSet<String> {
    let content = store.holdings().partitions.content().to_owned();
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let name = |path: PathBuf| Some(path.strip_prefix(&content).ok()?.iter().next()?.to_str()?.to_owned());
    open.filter_map(name).collect()
}

#[tokio::test]
async fn what_nobody_reads_for_a_while_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_partitions(dir.path()).await;
    let last = u64::from(2 * PARTITIONS);
    // What was seen in all of them is asked for, too.
    store_one(&store, 1, 2 * PARTITIONS + 1).await;
    walk(&store, 1, 0);
    assert!((2..=6).contains(&held(&store).len()), "{:?}", held(&store));

    let partitions = &store.holdings().partitions;
    let newest = partitions.newest().unwrap();
    for (minutes, closes) in [(9, false), (2, true)] {
        partitions.rest(Duration::from_mins(minutes));
        drop(partitions.read(&newest).unwrap());
        let only_newest = held(&store) == BTreeSet::from([newest.name.to_string()]);
        assert_eq!(only_newest, closes, "{:?}", held(&store));
    }
    assert_eq!(walk(&store, 1, 0).0.len() as u64, last + 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_cursor_is_read_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_partitions(dir.path()).await;
    for (number, last) in [(1, u64::from(2 * PARTITIONS)), (2, u64::from((PARTITIONS - LATER).div_ceil(3))), (3, 0)] {
        for after in 0..=last + 1 {
            let expected: Vec<_> = (after + 1..=last).collect();
            assert_eq!(walk(&store, number, after), (expected.clone(), last.max(after)), "{number} after {after}");
            for limit in [1, 1000] {
                let page = store.read_after(tenant(number), KIND, after, limit).unwrap();
                let page: Vec<_> = page.into_iter().map(|(seq, header)| (seq, header.unwrap().seq)).collect();
                let expected: Vec<_> = expected.iter().take(limit).map(|seq| (*seq, *seq)).collect();
                assert_eq!(page, expected, "{number} after {after}, {limit}");
            }
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_stored_during_a_walk_comes_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_partitions(dir.path()).await;
    let end = u64::from(2 * PARTITIONS);
    let (arrived, arrival) = tokio::sync::oneshot::channel();
    let (go_on, going_on) = std::sync::mpsc::channel::<()>();
    let walking = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            let mut arrived = Some(arrived);
            let mut found = Vec::new();
            let last = store.for_each_record_after(tenant(1), KIND, end - 3, &[], |record| {
                found.push(record.seq);
                if record.seq == end
                    && let Some(arrived) = arrived.take()
                {
                    arrived.send(()).unwrap();
                    going_on.recv().unwrap();
                }
                ControlFlow::Continue(())
            });
            (found, last.unwrap())
        }
    });
    arrival.await.unwrap();
    // One more in the partition that is being read, and one in the next.
    store_one(&store, 1, 2 * PARTITIONS + 1).await;
    store.roll().await.unwrap();
    store_one(&store, 1, 2 * PARTITIONS + 2).await;
    go_on.send(()).unwrap();
    let (found, last) = walking.await.unwrap();
    assert_eq!((found, last), (vec![end - 2, end - 1, end], end));
    assert_eq!(walk(&store, 1, last), (vec![end + 1, end + 2], end + 2));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_walk_passes_over_partitions_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_partitions(dir.path()).await;
    store.close().await.unwrap();
    let ruined = [0, PARTITIONS / 2, PARTITIONS / 2 + 1, PARTITIONS - 2];
    for partition in ruined {
        let name = format!("content/2026-11-22.{:03}/db/db", partition + 1);
        std::fs::write(dir.path().join(name), vec![0x5a; 3 << 20]).unwrap();
    }
    let store = open_at(dir.path(), NOW);
    let last = u64::from(2 * PARTITIONS);
    for after in [0, 1, 2, 9, 11, 13, 15, 19, 21, 22] {
        let readable = |seq: &u64| !ruined.contains(&u32::try_from((seq - 1) / 2).unwrap());
        let expected = (after + 1..=last).filter(readable).collect();
        assert_eq!(walk(&store, 1, after), (expected, last), "after {after}");
    }
    store.close().await.unwrap();
}
