//! What was fetched young is looked at again, once, whenever the process ends; what is found then is stored besides it.

use super::*;
use crate::store::QueueEntry;

const EXCHANGE: ContentType = ContentType::Exchange;
const CREATED: &str = "2026-11-22T10:00:00Z";
/// Two minutes later a blob is whole.
const WHOLE: &str = "2026-11-22T10:02:00Z";
const YOUNG: &str = "2026-11-22T10:01:59Z";

async fn queue(store: &Store, ids: &[&str]) {
    let listed = ids.iter().map(|id| blob(EXCHANGE, id, CREATED)).collect();
    store.enqueue(tenant(1), Tier::Poll, listed).await.unwrap();
}

async fn take(store: &Store, now: &str) -> Vec<QueueEntry> {
    store.take_queued(tenant(1), 10, time(now)).await.unwrap()
}

fn names(entries: &[QueueEntry]) -> Vec<(&str, bool)> {
    entries.iter().map(|entry| (entry.blob.content_id.as_str(), entry.again)).collect()
}

async fn store_first(store: &Store, id: &str, at: &str, ids: &[u32]) {
    put(store.receive(tenant(1), &blob(EXCHANGE, id, CREATED), fetched(at), None), &body(ids)).await;
}

async fn store_again(store: &Store, id: &str, ids: &[u32]) -> Stored {
    put(store.receive_revision(tenant(1), &blob(EXCHANGE, id, CREATED), fetched(WHOLE)), &body(ids)).await
}

/// Nothing waits to be retrieved, and no listing of them is news.
async fn assert_stored(store: &Store, ids: &[&str]) {
    assert_eq!(store.queue_depth(tenant(1)).entries, 0);
    let listed = ids.iter().map(|id| blob(EXCHANGE, id, CREATED)).collect();
    let listed = store.enqueue(tenant(1), Tier::Sweep, listed).await.unwrap();
    assert_eq!((listed.new, listed.known), (0, ids.len()));
}

async fn look_again(store: &Store, entry: QueueEntry) {
    let entry = QueueEntry { not_before: Some(time(WHOLE)), attempts: 3, ..entry };
    store.look_again(tenant(1), entry).await.unwrap();
}

#[tokio::test]
async fn it_is_handed_out_again_when_its_time_has_come_over_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), CREATED);
    queue(&store, &["a"]).await;
    let entry = take(&store, CREATED).await.remove(0);
    assert!(!entry.again);
    store_first(&store, "a", CREATED, &[1]).await;
    look_again(&store, entry).await;
    assert_stored(&store, &["a"]).await;
    assert_eq!((take(&store, YOUNG).await, store.next_deferred(tenant(1))), (vec![], Some(time(WHOLE))));
    store.close().await.unwrap();

    let store = open_at(dir.path(), CREATED);
    assert_stored(&store, &["a"]).await;
    assert_eq!((take(&store, YOUNG).await, store.next_deferred(tenant(1))), (vec![], Some(time(WHOLE))));
    let again = take(&store, WHOLE).await;
    assert_eq!((names(&again), again[0].attempts), (vec![("a", true)], 0), "its failures were others");
    assert_eq!(take(&store, WHOLE).await, [], "once at a time");
    // It cannot be reached yet, then it can.
    let entry = QueueEntry { not_before: Some(time("2026-11-22T10:03:00Z")), attempts: 1, ..again[0].clone() };
    store.defer(tenant(1), entry).await.unwrap();
    assert_eq!(take(&store, WHOLE).await, []);
    assert_stored(&store, &["a"]).await;
    let again = take(&store, "2026-11-22T10:03:00Z").await;
    assert_eq!((names(&again), again[0].attempts), (vec![("a", true)], 1));
    assert_eq!(store.release_all(tenant(1)), 1);
    let again = take(&store, "2026-11-22T10:03:00Z").await;
    // It had not grown: nothing is written, and it is done with.
    assert!(!store_again(&store, "a", &[1]).await.new);
    store.complete(tenant(1), &again[0]);
    assert_eq!(take(&store, "2026-11-22T12:00:00Z").await, []);
    store.close().await.unwrap();
    let store = open_at(dir.path(), CREATED);
    assert_eq!((take(&store, "2026-11-22T12:00:00Z").await, store.next_deferred(tenant(1))), (vec![], None));
    assert_stored(&store, &["a"]).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn whenever_the_process_ends_it_looks_again_or_has_done_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), CREATED);
    queue(&store, &["young", "whole"]).await;
    store_first(&store, "young", YOUNG, &[1, 2]).await;
    store_first(&store, "whole", WHOLE, &[3]).await;
    store.close().await.unwrap();

    // It ended before it could say that it would look again.
    let store = open_at(dir.path(), CREATED);
    assert_eq!(take(&store, YOUNG).await, []);
    assert_stored(&store, &["young", "whole"]).await;
    assert_eq!(store.next_deferred(tenant(1)), Some(time(WHOLE)));
    assert_eq!(names(&take(&store, WHOLE).await), [("young", true)]);
    let grown = store_again(&store, "young", &[1, 2, 4]).await;
    assert_eq!((grown.new, grown.records, grown.duplicates), (true, 3, 2));
    store.close().await.unwrap();

    // It ended before it could say that it had.
    let store = open_at(dir.path(), CREATED);
    assert_eq!(take(&store, WHOLE).await, []);
    assert_stored(&store, &["young", "whole"]).await;
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3, 4]);
    store.close().await.unwrap();
    let store = open_at(dir.path(), CREATED);
    assert_eq!(store.next_deferred(tenant(1)), None);
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_new_goes_first_and_waits_for_few() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), CREATED);
    let young = ["a", "b", "c", "d", "e", "f"];
    queue(&store, &young).await;
    for entry in take(&store, CREATED).await {
        store_first(&store, entry.blob.content_id.as_str(), CREATED, &[]).await;
        look_again(&store, entry).await;
    }
    queue(&store, &["new"]).await;
    assert_eq!(names(&take(&store, WHOLE).await), [("new", false)]);
    assert_eq!(store.queue_depth(tenant(1)).entries, 1);
    let (some, others) = (take(&store, WHOLE).await, take(&store, WHOLE).await);
    assert_eq!((some.len(), others.len()), (4, 2));
    assert!(some.iter().chain(&others).all(|entry| entry.again));
    store.close().await.unwrap();
}
