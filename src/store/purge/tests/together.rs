//! What goes on in the store while a tenant is purged.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::*;
use crate::store::{IntakeError, roll};

/// Who reads a partition when another takes its place reads on, sees nothing of who was purged, and misses nothing of the
/// others; and the old files are there until he ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_reads_meanwhile_reads_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let (before, everything) = (others(&store).await, exported(&store, &Query::default()));
    let (begun, has_begun) = mpsc::channel::<()>();
    let (go, may_go) = mpsc::channel::<()>();
    let reading = store.clone();
    let reader = std::thread::spawn(move || {
        let (mut seen, mut of_purged) = (Vec::new(), 0);
        reading
            .for_each_record(&Query { include_duplicates: true, ..Query::default() }, |record| {
                // In the middle of the first tenant's second blob.
                if seen.len() == 20 {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                }
                of_purged += usize::from(record.tenant == purged());
                seen.push(record.tenant);
                ControlFlow::Continue(())
            })
            .map(|()| (seen, of_purged))
    });
    has_begun.recv().unwrap();
    store.purge(purged()).await.unwrap();
    // The last partition to be written anew is the one that is read.
    let (exchanged, has_exchanged) = mpsc::channel();
    let counted = Mutex::new(0);
    phases::watch(dir.path(), move |phase| {
        if phase == "exchanged" {
            let mut count = counted.lock().unwrap();
            *count += 1;
            if *count == 4 {
                exchanged.send(()).unwrap();
            }
        }
    });
    let working = store.clone();
    let worker = tokio::spawn(async move { go_on(&working).await });
    tokio::task::spawn_blocking(move || has_exchanged.recv().unwrap()).await.unwrap();
    // Whoever begins now reads the new one.
    assert_eq!(others(&store).await, before);
    assert!(!worker.is_finished(), "it waits for the reader");
    go.send(()).unwrap();
    let (seen, of_purged) = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap().unwrap();
    assert_eq!(worker.await.unwrap().len(), 1);
    phases::end(dir.path());
    let others: usize = before.iter().map(|one| one.everything).sum();
    assert_eq!(seen.iter().filter(|of| **of != purged()).count(), others);
    assert!(of_purged < everything.len() / 3, "{of_purged} were handed out");
    store.close().await.unwrap();
}

/// What was being received is refused when it is complete, and leaves nothing behind.
#[tokio::test]
async fn what_arrives_across_the_cut_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    store.roll().await.unwrap();
    store_one(&store, tenant(2), KINDS[0], 90, &[1], 0).await;
    // Records that are small, so that parts of the body can go ahead of its end.
    let large = |of: TenantId| {
        let listed = blob(KINDS[0], &name(of, 600), NOW);
        let seed = u64::from(of.as_bytes()[0]) * 1000;
        let records = (0..40).map(|at| format!("{{\"n\":{at},\"x\":\"{}\"}}", noise(100_000, seed + at)));
        let body = format!("[{}]", records.collect::<Vec<_>>().join(","));
        (store.receive(of, &listed, fetched(NOW), None), body.into_bytes())
    };
    let (mut mine, body_of_mine) = large(purged());
    let (mut another, body_of_another) = large(tenant(2));
    mine.push(&body_of_mine[..3_500_000]).await.unwrap();
    another.push(&body_of_another[..3_500_000]).await.unwrap();
    // Whoever comes after them is stored when what they have sent ahead has been written.
    store_one(&store, tenant(3), KINDS[0], 91, &[1], 0).await;
    let newest = store.holdings().partitions.newest().unwrap();
    let reading = store.holdings().partitions.read(&newest).unwrap();
    let ahead = reading.open_blobs().unwrap();
    assert_eq!(ahead.len(), 2);
    let mut parts = parts(&store);
    parts.extend((0..3).map(|part| reading.part(ahead[0], part).unwrap().unwrap().to_vec()));
    drop(reading);

    store.purge(purged()).await.unwrap();
    mine.push(&body_of_mine[3_500_000..]).await.unwrap();
    let refused = mine.finish().await.unwrap_err();
    let IntakeError::Store(error) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, StoreError::Purged { tenant } if tenant == purged()), "{error:?}");
    another.push(&body_of_another[3_500_000..]).await.unwrap();
    assert!(another.finish().await.unwrap().new);
    assert_eq!(shown(&store, purged()).await, nothing());
    go_on(&store).await;
    verified(&store);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
}

/// Retention takes partitions away that were still to be written anew.
#[tokio::test]
async fn what_is_dropped_meanwhile_needs_not_be_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let parts = parts(&store);
    store.purge(purged()).await.unwrap();
    store.go_on_purging(0).await.unwrap();
    store.tell(time("2026-11-24T10:00:00Z"));
    store_one(&store, tenant(2), KINDS[0], 700, &[1], 0).await;
    let tomorrow = "2026-11-23".parse().unwrap();
    let dropped = roll::drop_partitions(store.holdings(), tomorrow, Duration::from_mins(1)).unwrap();
    assert_eq!(dropped.len(), 5);
    let done = go_on(&store).await;
    assert_eq!((done.len(), done[0].partitions, done[0].left), (1, 1, 0));
    verified(&store);
    store.close().await.unwrap();
    assert_erased(dir.path(), &parts);
}

/// The store is closed while a partition is being written anew: nothing is waited for, and the next opening goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closing_breaks_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    let before = others(&store).await;
    store.purge(purged()).await.unwrap();
    let closing = Arc::new(Mutex::new(None::<tokio::task::JoinHandle<Result<(), StoreError>>>));
    let (runtime, other, begun) = (tokio::runtime::Handle::current(), store.clone(), Arc::clone(&closing));
    phases::watch(dir.path(), move |phase| {
        let mut begun = begun.lock().unwrap();
        if phase == "filling" && begun.is_none() {
            let (store, mut told) = (other.clone(), other.closing());
            *begun = Some(runtime.spawn(store.close()));
            runtime.block_on(async { told.wait_for(|closing| *closing).await.map(drop) }).unwrap();
        }
    });
    let error = loop {
        if let Err(error) = store.go_on_purging(0).await {
            break error;
        }
    };
    assert!(matches!(error, StoreError::Closed), "{error:?}");
    phases::end(dir.path());
    let ended = closing.lock().unwrap().take().unwrap();
    ended.await.unwrap().unwrap();
    drop(store);

    let store = open_at(dir.path(), NOW);
    assert_eq!(others(&store).await, before);
    assert_eq!(go_on(&store).await.len(), 1);
    assert_eq!(others(&store).await, before);
    store.close().await.unwrap();
}

/// A purge whose rows could not be removed yet, since the state could not be written, takes nothing along that comes after it.
#[tokio::test]
async fn whoever_is_enrolled_after_a_purge_stays_though_the_purge_was_not_done_with_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), NOW);
    fill(&store).await;
    store.content().begin_purge(purged()).await.unwrap();
    store.enrol(Enrolment { name: "again".to_owned(), ..enrolment(purged()) }).await.unwrap();
    assert_eq!(go_on(&store).await.len(), 1);
    store.close().await.unwrap();
    let store = open_at(dir.path(), NOW);
    let enrolled = store.enrolments().await.unwrap();
    let names: Vec<_> = enrolled.iter().filter(|one| one.tenant == purged()).map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["again"]);
    assert_eq!(invites_of(&store, purged()).await, 0);
    store.close().await.unwrap();
}
