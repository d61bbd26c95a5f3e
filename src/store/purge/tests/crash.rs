//! The power is cut wherever something has been made durable: whoever opens the store then goes on from there.

use std::sync::{Arc, Mutex};

use super::*;
use crate::clock::{ServiceTime, SetClock};
use crate::store::{Folder, send_at_rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_goes_on_from_wherever_it_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let (before, parts) = (others(&store).await, parts(&store));
    let copies: Arc<Mutex<Vec<(&'static str, tempfile::TempDir)>>> = Arc::default();
    let (of, into) = (dir.path().to_owned(), Arc::clone(&copies));
    let mut met: BTreeMap<&'static str, u32> = BTreeMap::new();
    let counted = Mutex::new(std::mem::take(&mut met));
    phases::watch(dir.path(), move |phase| {
        let mut counted = counted.lock().unwrap();
        let times = counted.entry(phase).or_default();
        *times += 1;
        // The newest partition and the one with the large bodies.
        if *times <= 2 {
            into.lock().unwrap().push((phase, copy_of_a_moment(&of)));
        }
    });
    store.purge(purged()).await.unwrap();
    let done = go_on(&store).await;
    phases::end(dir.path());
    store.close().await.unwrap();
    let receipt = |purge: &Purge| {
        let Purge { partitions, blobs, records, bytes, ref chain, .. } = *purge;
        (partitions, blobs, records, bytes, chain.clone())
    };

    let copies = std::mem::take(&mut *copies.lock().unwrap());
    let phases: BTreeSet<_> = copies.iter().map(|(phase, _)| *phase).collect();
    let all = [
        "recorded",
        "cleared",
        "behind the cut",
        "copied",
        "filling",
        "written",
        "durable",
        "whole",
        "between the renames",
        "exchanged",
        "settled",
    ];
    assert_eq!(phases, BTreeSet::from(all));
    for (phase, copy) in copies {
        let time = Arc::new(ServiceTime::new(SetClock::new(time(NOW))));
        let reading = Store::open_to_read(&options(copy.path()), Arc::clone(&time)).unwrap();
        assert_eq!(shown(&reading, purged()).await, nothing(), "{phase}, read");
        verified(&reading);
        assert_eq!(exported(&reading, &Query::default()).len(), 2 * before[0].exported.len(), "{phase}, read");
        reading.close().await.unwrap();

        if phase == "between the renames" {
            let folder = tempfile::tempdir().unwrap();
            let mut to = Folder::open(folder.path()).unwrap();
            let have = to.have().unwrap();
            send_at_rest(copy.path(), &remains::lock(), &have, &mut |bytes| to.push(&bytes)).unwrap();
            to.finish().unwrap();
            let into = tempfile::tempdir().unwrap();
            let restored = remains::restored(folder.path(), into.path());
            assert_eq!(others(&restored).await[0].exported, before[0].exported);
            assert_eq!(shown(&restored, purged()).await, nothing());
            restored.close().await.unwrap();
        }

        let store = open_at(copy.path(), NOW);
        assert_eq!(shown(&store, purged()).await, nothing(), "{phase}");
        assert_eq!(others(&store).await, before, "{phase}");
        verified(&store);
        // Before the work goes on, somebody stores something.
        store_one(&store, tenant(2), KINDS[0], 500, &[1, 2, 500_000], 0).await;
        store_one(&store, purged(), KINDS[0], 500, &[1, 2, 500_000], 0).await;
        let anew = shown(&store, purged()).await;
        assert_eq!((anew.blobs.len(), anew.exported.len()), (1, 3), "{phase}");
        let others_now = others(&store).await;
        assert_eq!(others_now[0].exported.len(), before[0].exported.len() + 1, "{phase}");
        let resumed = go_on(&store).await;
        assert_eq!(
            resumed.iter().map(receipt).collect::<Vec<_>>(),
            done.iter().map(receipt).collect::<Vec<_>>(),
            "{phase}"
        );
        assert_eq!(shown(&store, purged()).await, anew, "{phase}");
        assert_eq!(others(&store).await, others_now, "{phase}");
        verified(&store);
        store.purge(purged()).await.unwrap();
        go_on(&store).await;
        store.close().await.unwrap();
        assert_erased(copy.path(), &parts);
        let left = fs::read_dir(copy.path().join("content")).unwrap();
        let left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy().starts_with('.'))
            .collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "{phase}");
    }
}
