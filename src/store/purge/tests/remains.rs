//! What keeps a tenant from being erased, and what is said of it.

use bytes::Bytes;

use super::*;
use crate::store::lock::{Holder, LockRequest};
use crate::store::{Folder, restore};

const OLDEST: &str = "content/2026-11-22.001/db/db";

#[tokio::test]
async fn what_cannot_be_read_stays_hidden_and_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let (before, parts) = (others(&store).await, parts(&store));
    store.close().await.unwrap();
    let path = dir.path().join(OLDEST);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, vec![0x5a; 3 << 20]).unwrap();
    fs::create_dir_all(dir.path().join("aside/2026-11-21.001-damaged")).unwrap();

    let store = open_at(dir.path(), NOW);
    store.purge(purged()).await.unwrap();
    let done = go_on(&store).await;
    assert_eq!((done.len(), done[0].partitions, done[0].left), (1, 3, 0));
    let [Remains::Partition { partition, .. }, Remains::Aside { path: aside }, Remains::Backups { .. }] =
        &done[0].remains[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!((partition.as_str(), aside.ends_with("2026-11-21.001-damaged")), ("2026-11-22.001", true));
    assert_eq!(fs::read(&path).unwrap(), vec![0x5a; 3 << 20], "it stays for whoever can mend it");
    store.close().await.unwrap();

    // Somebody has mended it: what is in it is hidden, and then erased.
    fs::write(&path, whole).unwrap();
    let store = open_at(dir.path(), NOW);
    assert_eq!(shown(&store, purged()).await, nothing());
    assert_eq!(others(&store).await, before);
    assert_eq!(go_on(&store).await, []);
    let mended = store.purges().remove(0);
    assert_eq!((mended.partitions, mended.blobs, mended.done_at), (4, 9, done[0].done_at));
    assert!(matches!(mended.remains[..], [Remains::Aside { .. }, Remains::Backups { .. }]), "{mended:?}");
    assert_eq!(others(&store).await, before);
    verified(&store);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
}

/// A header of another tenant that nobody understands goes over as it lies, and so does all that stands under its number.
#[tokio::test]
async fn what_is_damaged_of_others_is_kept_as_it_is() {
    use crate::store::keys;
    use crate::store::tree::Changes;
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let first = std::sync::Arc::clone(&store.holdings().partitions.list()[0]);
    let rows = |store: &Store| {
        let reading = store.holdings().partitions.read(&store.holdings().partitions.list()[0]).unwrap();
        let rows = reading.database.range::<&[u8]>(..).unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<BTreeMap<_, _>>()
    };
    let reading = store.holdings().partitions.read(&first).unwrap();
    let header = reading.header(tenant(2), KINDS[0], 1).unwrap().unwrap();
    let mut changes = Changes::default();
    changes.batch.insert(&keys::header(tenant(2), KINDS[0], 1), b"nonsense");
    changes.batch.insert(&keys::index(header.blob_no, 0), b"nonsense");
    reading.database.commit(changes.batch).unwrap();
    drop(reading);
    let before = rows(&store);
    store.purge(purged()).await.unwrap();
    let done = go_on(&store).await;
    assert_eq!((done[0].blobs, done[0].partitions), (9, 4));
    let after = rows(&store);
    let of_others = |key: &[u8]| {
        let blob = |prefix| keys::parse_numbered_twice(prefix, key).map(|(blob, _)| blob);
        keys::parse_header(key).is_some_and(|(of, ..)| of != purged())
            || blob(keys::PART) == Some(header.blob_no)
            || blob(keys::INDEX) == Some(header.blob_no)
    };
    let stays = before.iter().filter(|(key, value)| of_others(key) && !value.is_empty());
    assert!(stays.clone().count() > 4);
    for (key, value) in stays {
        assert_eq!(after.get(key), Some(value), "{key:?}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn it_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let before = others(&store).await;
    store.purge(purged()).await.unwrap();
    for _ in 0..2 {
        let progress = store.go_on_purging(u64::MAX / 2).await.unwrap();
        let Progress::Short { needed, free } = progress else { panic!("{progress:?}") };
        assert!(needed > u64::MAX / 2 && free < needed);
        assert_eq!((store.purges()[0].left, store.purges()[0].partitions), (4, 0));
        assert_eq!(shown(&store, purged()).await, nothing());
    }
    assert_eq!(go_on(&store).await.len(), 1);
    assert_eq!(others(&store).await, before);
    store.close().await.unwrap();
}

/// Copies a store into a folder, as `tenantry store backup` does.
async fn back_up(store: &Store, folder: &Path) {
    let mut to = Folder::open(folder).unwrap();
    let have = to.have().unwrap();
    let sealed = store.seal().await;
    let mut out = |bytes: Bytes| to.push(&bytes);
    store.send_backup(sealed, &have, &mut out).unwrap();
    to.finish().unwrap();
}

pub(super) fn lock() -> LockRequest {
    let holder = Holder { pid: std::process::id(), purpose: "test".to_owned(), since: time(NOW) };
    LockRequest { holder, wait: std::time::Duration::ZERO, urgent: false }
}

pub(super) fn restored(folder: &Path, to: &Path) -> Store {
    restore(folder, to, &lock()).unwrap();
    open_at(to, NOW)
}

#[tokio::test]
async fn a_backup_that_is_made_after_holds_nothing_and_one_from_meanwhile_hides_it() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, store) = (dir.path().join("backup"), open_at(&dir.path().join("store"), NOW));
    fill(&store).await;
    let (before, parts) = (others(&store).await, parts(&store));
    back_up(&store, &folder).await;
    assert!(!traces(&folder, &parts).is_empty());

    // Half of the partitions are still to be written anew.
    store.purge(purged()).await.unwrap();
    for _ in 0..2 {
        store.go_on_purging(0).await.unwrap();
    }
    back_up(&store, &folder).await;
    assert!(!traces(&folder, &parts).is_empty());
    let copy = dir.path().join("copy");
    let copied = restored(&folder, &copy);
    assert_eq!(shown(&copied, purged()).await, nothing());
    let exports = |shown: &[Shown]| shown.iter().map(|one| one.exported.clone()).collect::<Vec<_>>();
    assert_eq!(exports(&others(&copied).await), exports(&before));
    store_one(&copied, purged(), KINDS[0], 1, &[1], 0).await;
    assert_eq!(shown(&copied, purged()).await.exported, [1]);
    assert_eq!(go_on(&copied).await.len(), 1);
    assert_eq!(shown(&copied, purged()).await.exported, [1]);
    verified(&copied);
    copied.purge(purged()).await.unwrap();
    go_on(&copied).await;
    copied.close().await.unwrap();
    assert_erased(&copy, &parts);

    let done = go_on(&store).await;
    back_up(&store, &folder).await;
    assert_eq!(traces(&folder, &parts), BTreeSet::new(), "the files were replaced");
    let again = dir.path().join("again");
    let copied = restored(&folder, &again);
    assert_eq!(exports(&others(&copied).await), exports(&before));
    assert_eq!(copied.purges(), done);
    verified(&copied);
    copied.close().await.unwrap();
    store.close().await.unwrap();
}

/// It was enrolled for a while, and nothing of it was ever stored: the snapshot that named it was replaced by one that does
/// not, and lies in the partition's log still.
#[tokio::test]
async fn a_snapshot_that_was_replaced_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    let of_others = async |number| store_one(&store, tenant(2), KINDS[0], number, &[number], 30_000).await;
    of_others(1).await;
    fill_state(&store, purged()).await;
    let first = std::sync::Arc::clone(&store.holdings().partitions.list()[0]);
    let snapshot = store.holdings().partitions.read(&first).unwrap().unveiled().snapshot().unwrap().unwrap();
    store.state().purge(purged()).await.unwrap();
    store.put_snapshot().await.unwrap();
    for number in 2..4 {
        of_others(number).await;
        store.roll().await.unwrap();
    }
    of_others(4).await;
    let before = shown(&store, tenant(2)).await;
    let parts = [snapshot];
    assert!(parts[0].len() > 200 && !traces(dir.path(), &parts).is_empty());

    store.enrol(enrolment(purged())).await.unwrap();
    store.purge(purged()).await.unwrap();
    let done = go_on(&store).await;
    // The first partition, whose snapshot was replaced, and the newest at the time, whose was too.
    assert_eq!((done[0].blobs, done[0].partitions), (0, 2));
    assert_eq!(shown(&store, tenant(2)).await, before);
    verified(&store);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
}
