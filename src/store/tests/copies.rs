//! Of every record one copy comes, whatever is asked for and whatever can be read.

use super::*;
use crate::store::keys;
use crate::store::tree::Changes;

const NOW: &str = "2026-11-22T10:00:00Z";

async fn store_as(store: &Store, content_type: ContentType, id: &str, ids: &[u32]) -> Stored {
    put(store.receive(tenant(1), &blob(content_type, id, NOW), fetched(NOW), None), &body(ids)).await
}

/// What an export gives, in order, although something may be damaged.
fn found(store: &Store, content_types: &[ContentType]) -> Vec<u32> {
    let query = Query { content_types: content_types.to_vec(), ..Query::default() };
    let mut found = Vec::new();
    // What is damaged is told; here it is of interest what comes.
    drop(store.for_each_record(&query, |record| {
        let value: serde_json::Value = serde_json::from_slice(record.json).unwrap();
        found.push(u32::try_from(value["n"].as_u64().unwrap()).unwrap());
        ControlFlow::Continue(())
    }));
    found.sort_unstable();
    found
}

/// Takes a blob's body away in one of the partitions.
fn ruin_body(store: &Store, partition: usize, content_type: ContentType, seq: u64) {
    let reading = store.holdings().partitions.read(&store.holdings().partitions.list()[partition]).unwrap();
    let header = reading.header(tenant(1), content_type, seq).unwrap().unwrap();
    let mut changes = Changes::default();
    changes.batch.remove(&keys::part(header.blob_no, 0));
    reading.database.commit(changes.batch).unwrap();
}

#[tokio::test]
async fn a_copy_comes_if_its_original_is_not_asked_for() {
    use ContentType::{Exchange, General, SharePoint};
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    store_as(&store, General, "a", &[1, 2]).await;
    store_as(&store, Exchange, "b", &[1, 3]).await;
    store_as(&store, Exchange, "c", &[1]).await;
    store.roll().await.unwrap();
    store_as(&store, SharePoint, "d", &[1, 3, 4]).await;
    store_as(&store, Exchange, "e", &[1, 3, 4]).await;
    for (asked, expected) in [
        (&[][..], &[1, 2, 3, 4][..]),
        (&[General], &[1, 2]),
        (&[Exchange], &[1, 3, 4]),
        (&[SharePoint], &[1, 3, 4]),
        (&[SharePoint, Exchange], &[1, 3, 4]),
        (&[General, Exchange], &[1, 2, 3, 4]),
        (&[ContentType::Dlp], &[]),
    ] {
        assert_eq!(found(&store, asked), expected, "{asked:?}");
    }
    // And so with those who read on from a cursor.
    let mut followed = Vec::new();
    let among = [SharePoint];
    store
        .for_each_record_after(tenant(1), SharePoint, 0, &among, |record| {
            followed.push(record.duplicate);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(followed, [false, false, false]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_comes_if_the_blob_of_its_original_is_damaged() {
    use ContentType::{Exchange, SharePoint};
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    // The original comes after its copy in the order of reading, and before the one in the next partition.
    store_as(&store, SharePoint, "a", &[1, 2]).await;
    store_as(&store, Exchange, "b", &[1, 3]).await;
    store.roll().await.unwrap();
    store_as(&store, Exchange, "c", &[1, 2, 3]).await;
    assert_eq!(found(&store, &[]), [1, 2, 3]);
    ruin_body(&store, 0, SharePoint, 1);
    assert_eq!(found(&store, &[]), [1, 2, 3]);
    ruin_body(&store, 0, Exchange, 1);
    assert_eq!(found(&store, &[]), [1, 2, 3]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn of_many_copies_one_comes_whichever_partitions_can_be_read() {
    const COPIES: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    for number in 0..COPIES {
        if number > 0 {
            store.roll().await.unwrap();
        }
        store_as(&store, ContentType::Exchange, &format!("copy-{number}"), &[7]).await;
    }
    store.close().await.unwrap();
    let database = |number: usize| dir.path().join(format!("content/2026-11-22.{:03}/db/db", number + 1));
    // The newest stays: it would be moved aside.
    for unreadable in 0..1_usize << (COPIES - 1) {
        let whole: Vec<_> = (0..COPIES).map(|number| std::fs::read(database(number)).unwrap()).collect();
        for number in (0..COPIES).filter(|number| unreadable & (1 << number) != 0) {
            std::fs::write(database(number), vec![0x5a; 3 << 20]).unwrap();
        }
        let store =
            Store::open_to_read(&options(dir.path()), Arc::new(ServiceTime::new(SetClock::new(time(NOW))))).unwrap();
        assert_eq!(found(&store, &[]), [7], "unreadable: {unreadable:b}");
        store.close().await.unwrap();
        for (number, bytes) in whole.iter().enumerate() {
            std::fs::write(database(number), bytes).unwrap();
        }
    }
}
