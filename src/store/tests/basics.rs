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

async fn store_ids(store: &Store, id: &str, at: &str, ids: &[u32]) -> Stored {
    store.tell(time(at));
    put(store.receive(tenant(1), &blob(EXCHANGE, id, "2026-11-22T09:00:00Z"), fetched(at), None), &body(ids)).await
}

#[tokio::test]
async fn the_day_and_the_size_begin_partitions_and_time_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { partition_bytes: 16 << 20, ..options(dir.path()) };
    let store = open_with(&small, "2026-11-22T10:00:00Z");
    store_ids(&store, "a", "2026-11-22T23:00:00Z", &[1]).await;
    assert_eq!(store.newest_partition(), "2026-11-22.001");
    store_ids(&store, "b", "2026-11-23T00:00:00Z", &[2]).await;
    assert_eq!(store.newest_partition(), "2026-11-23.001");
    store_ids(&store, "c", "2026-11-21T00:00:00Z", &[3]).await;
    assert_eq!(store.newest_partition(), "2026-11-23.001");
    for number in 0..20_u32 {
        let writer = store.receive(
            tenant(2),
            &blob(EXCHANGE, &format!("big-{number}"), "2026-11-22T09:00:00Z"),
            fetched("2026-11-23T00:00:01Z"),
            None,
        );
        put(writer, &incompressible(2_000_000 + number as usize)).await;
    }
    assert!(store.newest_partition().as_str() > "2026-11-23.002", "{}", store.newest_partition());
    let verified = store.verify().unwrap();
    assert!(verified.is_sound() && verified.blobs == 23, "{verified:?}");
    assert_eq!(
        store.read_after(tenant(2), EXCHANGE, 3, 5).unwrap().iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [4, 5, 6, 7, 8]
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn copies_are_known_for_nine_days() {
    let dir = tempfile::tempdir().unwrap();
    // The store is closed in between; both clocks agree when it is opened again.
    let open = |now: &str| {
        let service = Arc::new(ServiceTime::new(SetClock::new(time(now))));
        service.observe(time(now));
        Store::open(&options(dir.path()), service).unwrap()
    };
    let (one, ten, twenty) = ("2026-11-01T10:00:00Z", "2026-11-10T10:00:00Z", "2026-11-20T10:00:00Z");
    let store = open(one);
    store_ids(&store, "a", one, &[1, 2]).await;
    store.close().await.unwrap();
    let store = open(ten);
    assert_eq!(store_ids(&store, "b", ten, &[2, 3, 3]).await.duplicates, 2);
    store.close().await.unwrap();
    // Ten days after the copy, nineteen after the original: the copy is what is recognised.
    let store = open(twenty);
    assert_eq!(store_ids(&store, "c", twenty, &[1, 2, 3]).await.duplicates, 2);
    assert!(!store.is_stored(tenant(1), &"a".into()).await.unwrap());
    assert!(store.is_stored(tenant(1), &"b".into()).await.unwrap());
    store.close().await.unwrap();
    let store = open("2026-12-31T10:00:00Z");
    assert_eq!(store_ids(&store, "d", "2026-11-20T10:00:01Z", &[1, 2, 3, 4]).await.duplicates, 3);
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3, 1, 4]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn another_body_is_a_further_revision_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    let at = "2026-11-22T10:00:00Z";
    store_ids(&store, "a", at, &[1, 2]).await;
    assert_eq!(
        store_ids(&store, "a", at, &[1, 2, 3]).await,
        Stored { seq: 1, bytes: body(&[1, 2]).len() as u64, records: 2, duplicates: 0, foreign: 0, new: false }
    );
    let again = blob(EXCHANGE, "a", "2026-11-22T09:00:00Z");
    let same = put(store.receive_revision(tenant(1), &again, fetched(at)), &body(&[1, 2])).await;
    assert_eq!((same.seq, same.new), (1, false));
    for seq in [2, 2] {
        let other = put(store.receive_revision(tenant(1), &again, fetched(at)), &body(&[1, 2, 3])).await;
        assert_eq!((other.seq, other.records, other.duplicates), (seq, 3, 2));
    }
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3]);
    let headers = store.read_after(tenant(1), EXCHANGE, 0, 10).unwrap();
    assert_eq!(headers.into_iter().map(|(_, header)| header.unwrap().revision).collect::<Vec<_>>(), [0, 1]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_array_of_records_is_kept_only_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    let html = b"<html>busy</html>";
    let of = blob(EXCHANGE, "a", "2026-11-22T09:00:00Z");
    let at = || fetched("2026-11-22T10:00:00Z");
    let error = try_put(store.receive(tenant(1), &of, at(), None), html).await.unwrap_err();
    assert!(matches!(error, IntakeError::Malformed { at: 0, .. }), "{error:?}");
    // One that turns out to be malformed after megabytes of it have gone to the store.
    let mut cut_short = incompressible(5_000_000);
    cut_short.pop();
    let error = try_put(store.receive(tenant(1), &of, at(), None), &cut_short).await.unwrap_err();
    assert!(matches!(error, IntakeError::Malformed { .. }), "{error:?}");
    assert!(!store.is_stored(tenant(1), &of.content_id).await.unwrap());

    let stored = put(store.receive(tenant(1), &of, at(), Some("no JSON".to_owned())), html).await;
    assert_eq!((stored.seq, stored.records, stored.bytes), (1, 0, 17));
    assert_eq!(stored_body(&store, tenant(1), EXCHANGE, 1), html);
    assert_eq!(exported(&store, &Query::default()), Vec::<u32>::new());
    let long = ContentBlob { content_id: "x".repeat(9000).into(), ..of };
    let error = try_put(store.receive(tenant(1), &long, at(), None), b"[]").await.unwrap_err();
    assert!(matches!(error, IntakeError::Malformed { .. }), "{error:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_body_on_its_way_goes_along_into_the_next_partition() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    store_ids(&store, "a", "2026-11-22T10:00:00Z", &[1]).await;
    let whole = incompressible(6_000_000);
    let mut large = store.receive(
        tenant(2),
        &blob(EXCHANGE, "large", "2026-11-22T09:00:00Z"),
        fetched("2026-11-22T10:00:00Z"),
        None,
    );
    let mut given_up =
        store.receive(tenant(3), &blob(EXCHANGE, "up", "2026-11-22T09:00:00Z"), fetched("2026-11-22T10:00:00Z"), None);
    for piece in whole[..4_000_000].chunks(100_000) {
        large.push(piece).await.unwrap();
        given_up.push(piece).await.unwrap();
    }
    // Two partitions later, of which one begins in the middle of a group.
    store.roll().await.unwrap();
    store_ids(&store, "b", "2026-11-23T10:00:00Z", &[2]).await;
    drop(given_up);
    for piece in whole[4_000_000..].chunks(100_000) {
        large.push(piece).await.unwrap();
    }
    assert_eq!(large.finish().await.unwrap().seq, 1);
    assert_eq!(store.newest_partition(), "2026-11-23.001");
    assert_eq!(stored_body(&store, tenant(2), EXCHANGE, 1), whole);
    store.close().await.unwrap();

    // Neither the way there nor what was given up leaves anything behind.
    let store = open_at(dir.path(), "2026-11-23T10:00:00Z");
    let mut parts = 0;
    for partition in store.holdings().partitions.list() {
        let reading = store.holdings().partitions.read(&partition).unwrap();
        for row in reading.database.scan_prefix([crate::store::keys::PART]).unwrap() {
            let (key, part) = row.unwrap();
            if part.is_empty() {
                // Room for what is to come.
                continue;
            }
            let (blob, _) = crate::store::keys::parse_numbered_twice(crate::store::keys::PART, &key).unwrap();
            assert!(reading.index(blob).unwrap().is_some(), "{}: part of no blob", partition.name);
            parts += 1;
        }
        assert_eq!(reading.open_blobs().unwrap(), Vec::<u32>::new(), "{}", partition.name);
    }
    assert!(parts > 40, "{parts}");
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn room_is_kept_for_the_next_blobs_and_never_taken_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let bodies: Vec<_> = (0..5).map(|number| body(&[number, 100 + number])).collect();
    for (number, bytes) in (0..).zip(&bodies) {
        let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
        let name = format!("blob-{number}");
        let blob = blob(EXCHANGE, &name, "2026-11-22T09:59:00Z");
        put(store.receive(tenant(1), &blob, fetched("2026-11-22T10:00:00Z"), None), bytes).await;
        let newest = store.holdings().partitions.newest().unwrap();
        let reading = store.holdings().partitions.read(&newest).unwrap();
        let kept: Vec<u32> = reading
            .database
            .scan_prefix([crate::store::keys::PART])
            .unwrap()
            .map(Result::unwrap)
            .filter(|(_, part)| part.is_empty())
            .map(|(key, _)| crate::store::keys::parse_numbered_twice(crate::store::keys::PART, &key).unwrap().0)
            .collect();
        assert!(kept.len() >= 64 && kept.iter().copied().eq((number + 1..).take(kept.len())), "{kept:?}");
        assert_eq!(reading.part(number + 1, 0).unwrap(), None);
        drop(reading);
        for (seq, bytes) in (1..).zip(&bodies[..=number as usize]) {
            assert_eq!(&stored_body(&store, tenant(1), EXCHANGE, seq), bytes);
        }
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_bodies_at_once_share_the_memory_and_all_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    // Those that stall hold what they have; the others must get through all the same.
    let mut stalled = Vec::new();
    for number in 0..40_u8 {
        let of = blob(EXCHANGE, &format!("stalled-{number}"), "2026-11-22T09:00:00Z");
        let mut writer = store.receive(tenant(number), &of, fetched("2026-11-22T10:00:00Z"), None);
        writer.push(&incompressible(1_500_000)).await.unwrap();
        stalled.push(writer);
    }
    let bodies = (0..20_u8).map(|number| {
        let of = blob(EXCHANGE, &format!("through-{number}"), "2026-11-22T09:00:00Z");
        let writer = store.receive(tenant(100 + number), &of, fetched("2026-11-22T10:00:00Z"), None);
        async move { put(writer, &incompressible(3_000_000 + usize::from(number))).await }
    });
    let stored = tokio::time::timeout(Duration::from_mins(2), futures_util::future::join_all(bodies)).await.unwrap();
    assert!(stored.iter().all(|stored| stored.new && stored.seq == 1));
    drop(stalled);
    assert!(store.verify().unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test]
async fn readers_learn_of_what_is_new_and_where_they_stood() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T12:00:00Z");
    let mut changes = store.changes();
    assert!(!changes.has_changed().unwrap());
    for (number, at) in [(1, "2026-11-21T10:00:00Z"), (2, "2026-11-22T10:00:00Z"), (3, "2026-11-22T11:00:00Z")] {
        store_ids(&store, &format!("c{number}"), at, &[number]).await;
        changes.changed().await.unwrap();
    }
    let key = (tenant(1), EXCHANGE);
    assert_eq!(store.heads()[&key], 3);
    for (since, expected) in [
        ("2026-11-20T00:00:00Z", None),
        ("2026-11-21T12:00:00Z", Some(1)),
        ("2026-11-22T10:30:00Z", Some(2)),
        ("2026-11-23T00:00:00Z", Some(3)),
    ] {
        let heads = store.heads_at(time(since)).await.unwrap();
        assert_eq!(heads.get(&key).copied().filter(|seq| *seq > 0), expected, "{since}");
    }
    let mut seen = Vec::new();
    let last = store
        .for_each_record_after(tenant(1), EXCHANGE, 1, &[], |record| {
            seen.push(record.seq);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((last, seen), (3, vec![2, 3]));
    let last = store.for_each_record_after(tenant(1), EXCHANGE, 1, &[], |_| ControlFlow::Break(())).unwrap();
    assert_eq!(last, 1, "the blob was not read whole");
    assert_eq!((store.stored_today(tenant(1)).blobs, store.stored_today(tenant(1)).records), (2, 2));
    store.close().await.unwrap();
}

#[tokio::test]
async fn queries_choose_by_the_time_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T12:00:00Z");
    // Created at 08:00:01, :02, … available at 09:00, stored at 10:00 and, in another partition, a day later.
    store_ids(&store, "a", "2026-11-22T10:00:00Z", &[1, 2, 3]).await;
    store_ids(&store, "b", "2026-11-23T10:00:00Z", &[4, 3600 + 2]).await;
    let other = blob(ContentType::General, "c", "2026-11-22T09:30:00Z");
    put(store.receive(tenant(2), &other, fetched("2026-11-23T10:00:00Z"), None), &body(&[5])).await;
    let query = |by, since: &str, until: &str| Query {
        by,
        since: Some(time(since)),
        until: Some(time(until)),
        ..Query::default()
    };
    let ask = |query: &Query| exported(&store, query);
    assert_eq!(ask(&query(TimeBasis::Created, "2026-11-22T08:00:02Z", "2026-11-22T08:00:04Z")), [2, 3, 3602]);
    assert_eq!(ask(&query(TimeBasis::Available, "2026-11-22T09:00:00Z", "2026-11-22T09:30:00Z")), [1, 2, 3, 4, 3602]);
    assert_eq!(ask(&query(TimeBasis::Stored, "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z")), [4, 3602, 5]);
    assert_eq!(ask(&Query { content_types: vec![ContentType::General], ..Query::default() }), [5]);
    assert_eq!(ask(&Query { tenants: vec![tenant(2), tenant(7)], ..Query::default() }), [5]);
    store.close().await.unwrap();

    let time = Arc::new(ServiceTime::new(SetClock::new(time("2026-11-23T12:00:00Z"))));
    let store = Store::open_to_read(&options(dir.path()), time).unwrap();
    assert_eq!(exported(&store, &Query::default()), [1, 2, 3, 4, 3602, 5]);
    assert_eq!(store.heads()[&(tenant(1), EXCHANGE)], 2);
    assert_eq!(store.stored_today(tenant(1)).records, 2);
    let refused = try_put(store.receive(tenant(1), &other, fetched("2026-11-23T10:00:00Z"), None), b"[]").await;
    assert!(matches!(refused, Err(IntakeError::Store(_))), "{refused:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_stored_is_neither_queued_nor_handed_out_and_a_lost_state_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    let (a, b) = (blob(EXCHANGE, "a", "2026-11-22T09:00:00Z"), blob(EXCHANGE, "b", "2026-11-22T09:00:00Z"));
    let listed = store.enqueue(tenant(1), Tier::Poll, vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!((listed.new, listed.known), (2, 0));
    // Stored, and killed before the entry was removed.
    store_ids(&store, "a", "2026-11-22T10:00:00Z", &[1]).await;
    let taken = store.take_queued(tenant(1), 10, time("2026-11-22T10:00:00Z")).await.unwrap();
    assert_eq!(taken.iter().map(|entry| entry.blob.content_id.as_str()).collect::<Vec<_>>(), ["b"]);
    store.dead_letter(tenant(1), taken[0].clone(), "gone").await.unwrap();
    let listed = store.enqueue(tenant(1), Tier::Sweep, vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!((listed.new, listed.known), (0, 2));
    let until = crate::store::Wait { from: time("2026-11-22T11:00:00Z"), until: time("2026-11-22T12:00:00Z") };
    store.remember_wait(tenant(1), crate::store::WaitKey::Throttled, Some(until)).await.unwrap();
    store.roll().await.unwrap();
    store.close().await.unwrap();

    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("state") {
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
    }
    let store = open_at(dir.path(), "2026-11-22T10:00:00Z");
    assert_eq!(store.waits(tenant(1)).await.unwrap(), [(crate::store::WaitKey::Throttled, until)].into());
    assert_eq!(store.dead_letters(tenant(1)).await.unwrap(), 1);
    let listed = store.enqueue(tenant(1), Tier::Sweep, vec![a, b]).await.unwrap();
    assert_eq!((listed.new, listed.known), (0, 2));
    store.close().await.unwrap();
}
