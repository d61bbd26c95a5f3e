//! One thing at a time.

use super::*;

const EXCHANGE: ContentType = ContentType::Exchange;

#[tokio::test]
async fn what_is_stored_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    let (one, two) = (body(&[1, 2, 3]), body(&(1000..9000).collect::<Vec<_>>()));
    let first = blob(EXCHANGE, "one", "2026-11-22T09:59:00Z");
    let stored = put(store.receive(tenant(1), &first, fetched("2026-11-22T10:00:00Z"), None), &one).await;
    assert_eq!((stored.seq, stored.records, stored.duplicates, stored.new), (1, 3, 0, true));
    let second = blob(EXCHANGE, "two", "2026-11-22T09:58:00Z");
    let stored = put(store.receive(tenant(1), &second, fetched("2026-11-22T10:00:01Z"), None), &two).await;
    assert_eq!((stored.seq, stored.records, stored.bytes), (2, 8000, two.len() as u64));
    assert!(store.is_stored(tenant(1), &first.content_id).await.unwrap());
    assert!(!store.is_stored(tenant(2), &first.content_id).await.unwrap());
    store.close().await.unwrap();

    let store = open_at(dir.path(), "2026-11-22T11:00:00Z");
    assert_eq!(stored_body(&store, tenant(1), EXCHANGE, 1), one);
    assert_eq!(stored_body(&store, tenant(1), EXCHANGE, 2), two);
    assert_eq!(exported(&store, &Query::default()).len(), 8003);
    assert!(store.is_stored(tenant(1), &second.content_id).await.unwrap());
    let again = put(store.receive(tenant(1), &second, fetched("2026-11-22T11:00:01Z"), None), &two).await;
    assert_eq!((again.seq, again.new, again.records), (2, false, 8000));
    assert_eq!(store.stored_today(tenant(1)).blobs, 2);
    store.close().await.unwrap();
}
