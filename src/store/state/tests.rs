//! The state as a whole: against a plain map, killed, damaged, lost, and copied.

#[cfg(unix)]
mod full;
mod kill;
mod loss;
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::store::{Enrolled, Enrolment};

/// A Sunday noon.
fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// An hour's wait.
fn wait(until: Timestamp) -> Wait {
    Wait { from: until - hours(1), until }
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn seconds(seconds: usize) -> SignedDuration {
    SignedDuration::from_secs(seconds.try_into().unwrap())
}

fn tenant(n: u8) -> TenantId {
    TenantId::from_bytes([n; 16])
}

/// A blob that was created `age` before noon and lives seven days.
fn blob(id: &str, age: SignedDuration) -> ContentBlob {
    ContentBlob {
        content_id: id.into(),
        content_type: ContentType::General,
        content_uri: format!("https://manage.office.com/api/v1.0/activity/feed/audit/{id}"),
        content_created: noon() - age,
        content_expiration: noon() - age + hours(7 * 24),
    }
}

fn open(dir: &TempDir) -> State {
    let (state, events) = State::open(dir.path(), &StateOptions::new(noon()), &|| Ok(None)).unwrap();
    assert_eq!(events, []);
    state
}

async fn queue(state: &State, tenant: TenantId, blobs: Vec<ContentBlob>) -> Enqueued {
    state.enqueue(tenant, Tier::Poll, blobs, noon()).await.unwrap()
}

async fn take(state: &State, tenant: TenantId, limit: usize, now: Timestamp) -> Vec<QueueEntry> {
    state.take_queued(tenant, false, limit, now).await.unwrap()
}

fn ids(entries: &[QueueEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.blob.content_id.as_str()).collect()
}

#[tokio::test]
async fn urgent_ones_go_first_then_the_newest_and_the_oldest_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let mut listed: Vec<_> = (0..10).map(|age| blob(&format!("{age}h"), hours(age))).collect();
    listed.push(blob("6.5d", hours(6 * 24 + 12)));
    listed.push(blob("6.2d", hours(6 * 24 + 5)));
    // Created in the middle, expires before all others.
    listed.push(ContentBlob { content_expiration: noon() + hours(1), ..blob("short", hours(5)) });
    assert_eq!(queue(&state, tenant(1), listed.clone()).await, Enqueued { new: 13, known: 0 });
    assert_eq!(queue(&state, tenant(1), listed).await, Enqueued { new: 0, known: 13 });
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth { entries: 13, oldest: Some(noon() - hours(6 * 24 + 12)) });

    assert_eq!(ids(&take(&state, tenant(1), 2, noon()).await), ["short", "6.5d"]);
    assert_eq!(ids(&take(&state, tenant(1), 4, noon()).await), ["6.2d", "0h", "9h", "1h"]);
    assert_eq!(ids(&take(&state, tenant(1), 3, noon()).await), ["8h", "2h", "7h"]);
    assert_eq!(ids(&take(&state, tenant(1), 9, noon()).await), ["3h", "6h", "4h", "5h"]);
    assert_eq!(ids(&take(&state, tenant(1), 9, noon()).await), [""; 0]);
    assert_eq!(ids(&take(&state, tenant(2), 9, noon()).await), [""; 0]);
    assert_eq!(state.release_all(tenant(1)), 13);
    assert_eq!(take(&state, tenant(1), 99, noon()).await.len(), 13);
}

#[tokio::test]
async fn what_is_deferred_comes_when_its_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("a", hours(1)), blob("b", hours(2))]).await;
    for mut entry in take(&state, tenant(1), 9, noon()).await {
        entry.attempts += 1;
        entry.last_error = Some("the answer ended early".to_owned());
        let wait = if entry.blob.content_id.as_str() == "a" { 2 } else { 1 };
        entry.not_before = Some(noon() + hours(wait));
        state.defer(tenant(1), entry).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(state.next_deferred(tenant(1)), Some(noon() + hours(1)));
        assert_eq!(ids(&take(&state, tenant(1), 9, noon()).await), [""; 0]);
        state.settle().await.unwrap();
    }
    let due = take(&state, tenant(1), 9, noon() + hours(1)).await;
    assert_eq!((ids(&due), due[0].attempts), (vec!["b"], 1));
    assert_eq!(state.next_deferred(tenant(1)), Some(noon() + hours(2)));
    state.close().await.unwrap();

    let state = open(&dir);
    assert_eq!(state.next_deferred(tenant(1)), Some(noon() + hours(1)));
    assert_eq!(ids(&take(&state, tenant(1), 9, noon() + hours(2)).await), ["a", "b"]);
}

#[tokio::test]
async fn what_was_deferred_before_the_time_stepped_back_is_not_put_off_until_its_content_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("a", hours(1)), blob("b", hours(2)), blob("c", hours(3))]).await;
    for mut entry in take(&state, tenant(1), 9, noon()).await {
        let wait = match entry.blob.content_id.as_str() {
            "a" => 24,
            "b" => 30 * 24,
            _ => 31 * 24,
        };
        entry.not_before = Some(noon() + hours(wait));
        state.defer(tenant(1), entry).await.unwrap();
    }
    state.settle().await.unwrap();
    let due = async |state: &State, now| {
        let taken = take(state, tenant(1), 9, now).await;
        taken.into_iter().map(|entry| entry.blob.content_id.to_string()).collect::<BTreeSet<_>>()
    };
    let set = |ids: [&str; 2]| BTreeSet::from(ids.map(str::to_owned));
    assert_eq!(due(&state, noon() + hours(29 * 24)).await, set(["a", "c"]));
    assert_eq!(state.release_all(tenant(1)), 2);
    assert_eq!(due(&state, noon()).await, set(["b", "c"]));
    state.close().await.unwrap();

    let state = open(&dir);
    assert_eq!(due(&state, noon()).await, set(["b", "c"]));
}

#[tokio::test]
async fn more_deferred_entries_than_memory_keeps_are_found_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let count = book::REMEMBERED + 500;
    let listed = (0..count).map(|n| blob(&n.to_string(), seconds(n))).collect();
    queue(&state, tenant(1), listed).await;
    let taken = take(&state, tenant(1), count, noon()).await;
    assert_eq!(taken.len(), count);
    let defers = taken.into_iter().enumerate().map(|(n, mut entry)| {
        entry.not_before = Some(noon() + seconds(60 + n));
        state.defer(tenant(1), entry)
    });
    futures_util::future::try_join_all(defers).await.unwrap();

    let at = |n: usize| noon() + seconds(60 + n);
    assert_eq!(state.next_deferred(tenant(1)), Some(at(0)));
    assert_eq!(ids(&take(&state, tenant(1), count, at(0) - SignedDuration::from_secs(1)).await), [""; 0]);
    let first = take(&state, tenant(1), count, at(book::REMEMBERED - 1)).await;
    assert_eq!(first.len(), book::REMEMBERED);
    // The rest is not in memory. It says so, and finds it.
    assert_eq!(state.next_deferred(tenant(1)), Some(at(book::REMEMBERED)));
    assert_eq!(ids(&take(&state, tenant(1), count, at(book::REMEMBERED - 1)).await), [""; 0]);
    assert_eq!(state.next_deferred(tenant(1)), Some(at(book::REMEMBERED)));
    assert_eq!(take(&state, tenant(1), count, at(count)).await.len(), 500);
    assert_eq!(state.next_deferred(tenant(1)), None);
}

#[tokio::test]
async fn a_dead_letter_leaves_the_queue_and_stays_dead() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("gone", hours(1))]).await;
    let entry = take(&state, tenant(1), 9, noon()).await.remove(0);
    let changes = state.snapshot_changes();
    state.dead_letter(tenant(1), entry.clone(), "the content has expired", noon()).await.unwrap();
    assert!(state.snapshot_changes() > changes);
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth::default());
    for _ in 0..2 {
        assert_eq!(queue(&state, tenant(1), vec![blob("gone", hours(1))]).await, Enqueued { new: 0, known: 1 });
        state.settle().await.unwrap();
    }
    assert_eq!(queue(&state, tenant(2), vec![blob("gone", hours(1))]).await, Enqueued { new: 1, known: 0 });
    assert!(state.is_dead_letter(tenant(1), &"gone".into()).await.unwrap());
    let letters = state.dead_letters(tenant(1), 10).await.unwrap();
    assert_eq!(letters, [DeadLetter { entry, reason: "the content has expired".to_owned(), at: noon() }]);
}

/// What `refuse` is given for a blob.
fn wrongly_listed(blob: ContentBlob) -> DeadLetter {
    let entry = QueueEntry {
        blob,
        tier: Tier::Poll,
        queued_at: noon(),
        attempts: 0,
        panics: 0,
        malformed: 0,
        not_before: None,
        last_error: None,
        again: false,
    };
    DeadLetter { entry, reason: "foreign_uri".to_owned(), at: noon() }
}

#[tokio::test]
async fn what_is_listed_wrongly_is_a_dead_letter_until_it_is_listed_rightly() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("queued", hours(1))]).await;
    let listed = |ids: &[&str]| ids.iter().map(|id| wrongly_listed(blob(id, hours(1)))).collect::<Vec<_>>();
    let changes = state.snapshot_changes();
    let refused = state.refuse(tenant(1), listed(&["a", "queued", "b", "a"])).await.unwrap();
    assert_eq!(refused, Refused { new: vec!["a".into(), "b".into()], standing: 3 });
    assert!(state.snapshot_changes() > changes);
    let snapshot = state.snapshot(noon()).unwrap();
    state.close().await.unwrap();

    let state = open(&dir);
    let refused = state.refuse(tenant(1), listed(&["a"])).await.unwrap();
    assert_eq!(refused, Refused { new: Vec::new(), standing: 1 }, "it was counted before the restart");
    // It is queued all the same when it is listed rightly, and what is withdrawn is named.
    assert_eq!(queue(&state, tenant(1), vec![blob("a", hours(1))]).await, Enqueued { new: 1, known: 0 });
    let withdrawn = state.withdraw(tenant(1), vec!["queued".into(), "a".into()]).await.unwrap();
    assert_eq!(withdrawn, ["a".into()]);
    assert_eq!(state.withdraw(tenant(1), vec!["a".into()]).await.unwrap(), []);
    let letters = state.dead_letters(tenant(1), 10).await.unwrap();
    assert_eq!(letters, listed(&["b"]));
    state.close().await.unwrap();

    std::fs::remove_dir_all(dir.path().join("state-1")).unwrap();
    let (state, _) = State::open(dir.path(), &StateOptions::new(noon()), &|| Ok(Some(snapshot.clone()))).unwrap();
    assert_eq!(state.dead_letters(tenant(1), 10).await.unwrap().len(), 2, "a lost state knows of them");
}

#[tokio::test]
async fn what_is_set_aside_is_queued_when_it_is_listed_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("large", hours(1))]).await;
    let entry = take(&state, tenant(1), 9, noon()).await.remove(0);
    state.set_aside(tenant(1), entry, "too large", noon()).await.unwrap();
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth::default());
    assert_eq!(state.dead_letters(tenant(1), 10).await.unwrap()[0].reason, "too large");
    assert_eq!(queue(&state, tenant(1), vec![blob("large", hours(1))]).await, Enqueued { new: 1, known: 0 });
    assert_eq!(state.withdraw(tenant(1), vec!["large".into()]).await.unwrap(), ["large".into()]);
    assert_eq!(state.count_dead_letters(tenant(1)).await.unwrap(), 0);
    assert_eq!(take(&state, tenant(1), 9, noon()).await.len(), 1);
}

#[tokio::test]
async fn what_only_a_notification_names_is_a_promise_once_a_listing_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let notify = async |blobs| state.enqueue(tenant(1), Tier::Webhook, blobs, noon()).await.unwrap();
    let moved =
        || ContentBlob { content_uri: "https://manage.office.com/elsewhere/a".to_owned(), ..blob("a", hours(1)) };
    let both = || vec![blob("a", hours(1)), blob("b", hours(2))];
    assert_eq!(notify(both()).await, Enqueued { new: 2, known: 0 });
    assert_eq!(notify(vec![moved()]).await, Enqueued { new: 0, known: 1 }, "and it says nothing new");
    let mut taken = take(&state, tenant(1), 9, noon()).await;
    taken.sort_by_key(|entry| entry.blob.content_id.clone());
    assert_eq!((ids(&taken), taken[0].tier), (vec!["a", "b"], Tier::Webhook));
    assert_eq!(taken[0].blob, blob("a", hours(1)));

    // It is listed while it is being retrieved.
    assert_eq!(queue(&state, tenant(1), vec![blob("a", hours(1))]).await, Enqueued { new: 0, known: 1 });
    assert!(!state.drop_unlisted(tenant(1), taken[0].clone()).await.unwrap());
    assert!(state.drop_unlisted(tenant(1), taken[1].clone()).await.unwrap());
    assert_eq!(state.queue_depth(tenant(1)).entries, 1);
    assert_eq!(state.count_dead_letters(tenant(1)).await.unwrap(), 0);
    let again = take(&state, tenant(1), 9, noon()).await;
    assert_eq!((ids(&again), again[0].tier), (vec!["a"], Tier::Poll));
    // Who was handed it before that does not make it a rumour again.
    let rumour = QueueEntry { attempts: 1, not_before: Some(noon()), ..taken[0].clone() };
    state.defer(tenant(1), rumour).await.unwrap();
    let again = take(&state, tenant(1), 9, noon()).await;
    assert_eq!((again[0].tier, again[0].attempts), (Tier::Poll, 1));

    // What was dropped is queued when it is listed, and what was given up for good is not by a notification.
    assert_eq!(queue(&state, tenant(1), vec![blob("b", hours(2))]).await, Enqueued { new: 1, known: 0 });
    state.dead_letter(tenant(1), again[0].clone(), "gone", noon()).await.unwrap();
    assert_eq!(notify(vec![moved()]).await, Enqueued { new: 0, known: 1 });
    assert_eq!(queue(&state, tenant(1), vec![moved()]).await, Enqueued { new: 1, known: 0 });
    state.close().await.unwrap();
    let state = open(&dir);
    assert_eq!(state.queue_depth(tenant(1)).entries, 2);
}

#[tokio::test]
async fn what_is_listed_at_another_address_is_retrieved_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let at = |id: &str, host: &str| ContentBlob { content_uri: format!("https://{host}/{id}"), ..blob(id, hours(1)) };
    queue(&state, tenant(1), ["deferred", "taken", "dead"].map(|id| at(id, "old")).into()).await;
    for entry in take(&state, tenant(1), 9, noon()).await {
        match entry.blob.content_id.as_str() {
            "dead" => state.dead_letter(tenant(1), entry, "foreign", noon()).await.unwrap(),
            "deferred" => {
                let entry = QueueEntry { attempts: 7, not_before: Some(noon() + hours(9)), ..entry };
                state.defer(tenant(1), entry).await.unwrap();
            }
            _ => {}
        }
    }
    let new = ["deferred", "taken", "dead"].map(|id| at(id, "new"));
    assert_eq!(queue(&state, tenant(1), new.clone().into()).await, Enqueued { new: 1, known: 2 });
    let ids = new.map(|blob| blob.content_id);
    assert_eq!(state.withdraw(tenant(1), ids.into()).await.unwrap(), ["dead".into()]);
    assert_eq!(state.count_dead_letters(tenant(1)).await.unwrap(), 0);

    let mut entries = take(&state, tenant(1), 9, noon()).await;
    entries.sort_by_key(|entry| entry.blob.content_id.clone());
    let found = entries.iter().map(|entry| (entry.blob.content_uri.as_str(), entry.attempts)).collect::<Vec<_>>();
    assert_eq!(found, [("https://new/dead", 0), ("https://new/deferred", 7)]);

    // The one that is handed out fails where it was: that says nothing about where it is.
    let failed = QueueEntry { not_before: Some(noon() + hours(9)), ..wrongly_listed(at("taken", "old")).entry };
    state.defer(tenant(1), failed).await.unwrap();
    assert_eq!(take(&state, tenant(1), 9, noon()).await[0].blob.content_uri, "https://new/taken");
}

#[tokio::test]
async fn nothing_is_written_when_nothing_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("a", hours(1))]).await;
    state.remember_wait(tenant(1), WaitKey::Paused, Some(wait(noon()))).await.unwrap();
    state.settle().await.unwrap();
    let log = || std::fs::read(dir.path().join("state-1/db")).unwrap();
    let (before, changes) = (log(), state.snapshot_changes());
    queue(&state, tenant(1), vec![blob("a", hours(1))]).await;
    state.remember_wait(tenant(1), WaitKey::Paused, Some(wait(noon()))).await.unwrap();
    state.remember_wait(tenant(1), WaitKey::Throttled, None).await.unwrap();
    state.set_watermark(tenant(1), ContentType::General, Watermark { listed_to: Some(noon()), ..Watermark::default() });
    assert!(before == log(), "an empty poll has written something");
    assert_eq!(changes, state.snapshot_changes());

    // The tenant's next batch takes the watermark along.
    queue(&state, tenant(1), vec![blob("b", hours(1))]).await;
    assert!(state.shared.loose().watermarks(tenant(1)).is_empty());
    assert_eq!(state.watermarks(tenant(1)).await.unwrap()[&ContentType::General].listed_to, Some(noon()));
}

#[tokio::test]
async fn a_watermark_that_has_waited_long_is_written_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions { watermark_wait: Duration::from_millis(30), ..StateOptions::new(noon()) };
    let (state, _) = State::open(dir.path(), &options, &|| Ok(None)).unwrap();
    let watermark = Watermark { recent_at: Some(noon()), ..Watermark::default() };
    state.set_watermark(tenant(1), ContentType::Dlp, watermark);
    let began = std::time::Instant::now();
    while !state.shared.loose().watermarks(tenant(1)).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "the watermark is never written");
        tokio::task::yield_now().await;
    }
    assert_eq!(state.watermarks(tenant(1)).await.unwrap()[&ContentType::Dlp], watermark);
}

#[tokio::test]
async fn five_hundred_blobs_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let listed: Vec<_> = (0..500).map(|n| blob(&n.to_string(), SignedDuration::from_secs(n))).collect();
    let database = state.shared.database();
    let mut draft = draft::Draft::new(&database);
    let enqueued = draft.enqueue(tenant(1), Tier::Sweep, listed, noon()).unwrap();
    assert_eq!((enqueued.new, draft.batch.len()), (500, 500));
}

#[tokio::test]
async fn what_changes_the_register_changes_the_snapshot_and_a_repetition_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let held = async |since| {
        let before = state.snapshot_changes();
        state.hold(tenant(1), since).await.unwrap();
        state.snapshot_changes() - before
    };
    assert_eq!((held(Some(noon())).await, held(Some(noon())).await, held(None).await, held(None).await), (1, 0, 1, 0));
    let enrolment = Enrolment {
        tenant: tenant(1),
        name: "x".repeat(20_000),
        cloud: "worldwide".to_owned(),
        app: String::new(),
        content_types: ContentType::AUDIT.into(),
        how: Enrolled::Command,
        at: noon(),
    };
    let refused = state.enrol(&enrolment).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(state.enrolments().await.unwrap(), []);
    let before = state.snapshot_changes();
    state.enrol(&Enrolment { name: "Contoso".to_owned(), ..enrolment }).await.unwrap();
    assert_eq!(state.snapshot_changes(), before + 1);
}

#[tokio::test]
async fn an_entry_that_is_too_large_hurts_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let hostile = ContentBlob { content_uri: "x".repeat(1 << 20), ..blob("huge", hours(1)) };
    let (refused, taken) = tokio::join!(
        state.enqueue(tenant(1), Tier::Poll, vec![blob("small", hours(1)), hostile], noon()),
        state.enqueue(tenant(2), Tier::Poll, vec![blob("other", hours(1))], noon()),
    );
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(taken.unwrap(), Enqueued { new: 1, known: 0 });
    assert_eq!(state.queue_depth(tenant(1)).entries, 0);
}

#[tokio::test]
async fn after_a_failed_write_the_writer_recovers_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), (0..6).map(|n| blob(&n.to_string(), hours(n))).collect()).await;
    let taken = take(&state, tenant(1), 2, noon()).await;
    state.settle().await.unwrap();
    // What a failed write leaves behind: a closed database.
    state.shared.database().close();
    state.complete(tenant(1), &taken[0]);
    let refused = state.enqueue(tenant(1), Tier::Poll, vec![blob("new", hours(1))], noon()).await;
    assert!(matches!(refused, Err(StoreError::Suspended { .. })), "{refused:?}");

    let began = std::time::Instant::now();
    while state.enqueue(tenant(1), Tier::Poll, vec![blob("new", hours(1))], noon()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the writer does not recover");
    }
    state.settle().await.unwrap();
    assert_eq!(state.queue_depth(tenant(1)), QueueDepth { entries: 6, oldest: Some(noon() - hours(5)) });
    assert_eq!(take(&state, tenant(1), 99, noon()).await.len(), 5, "one is still handed out, one is completed");
}

#[tokio::test]
async fn a_closed_state_says_so_and_has_not_failed() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    state.set_note(tenant(1), Some(b"all is well".to_vec()));
    state.close().await.unwrap();
    state.close().await.unwrap();
    let error = state.enqueue(tenant(1), Tier::Poll, vec![blob("a", hours(1))], noon()).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error:?}");
    let failed = tokio::time::timeout(Duration::from_millis(20), state.failed()).await;
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(open(&dir).notes().await.unwrap()[&tenant(1)], b"all is well");
}

#[tokio::test]
async fn damage_that_a_reader_meets_ends_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let damage = StoreError::Damaged { path: dir.path().to_owned(), why: "a test says so".to_owned() };
    let read = state.read({
        let damage = damage.clone();
        move |_| Err::<(), _>(damage)
    });
    assert!(matches!(read.await, Err(StoreError::Damaged { .. })));
    assert!(matches!(state.failed().await, StoreError::Damaged { .. }));
    let error = state.settle().await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn entries_that_cannot_be_understood_are_removed_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    queue(&state, tenant(1), vec![blob("good", hours(1)), blob("bad", hours(2))]).await;
    let bad = Place::of(noon() - hours(2), &"bad".into()).key(tenant(1));
    let spoil = |database: &Database| {
        let mut batch = super::super::database::Batch::default();
        batch.insert(bad.as_slice(), b"\x09nonsense".as_slice());
        database.commit(batch).unwrap();
    };
    spoil(&state.shared.database());
    assert_eq!(ids(&take(&state, tenant(1), 9, noon()).await), ["good"]);
    state.settle().await.unwrap();
    assert!(!state.shared.database().contains(&bad).unwrap());

    spoil(&state.shared.database());
    state.close().await.unwrap();
    let (state, events) = State::open(dir.path(), &StateOptions::new(noon()), &|| Ok(None)).unwrap();
    assert!(matches!(&events[..], [Event::EntriesRemoved { count: 1, .. }]), "{events:?}");
    assert_eq!(queue(&state, tenant(1), vec![blob("bad", hours(2))]).await, Enqueued { new: 1, known: 0 });
}

#[tokio::test]
async fn a_thousand_tenants_open_fast() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let tenants: Vec<_> = (0..1000_u16)
        .map(|n| {
            let mut bytes = [7; 16];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            TenantId::from_bytes(bytes)
        })
        .collect();
    let all = tenants.iter().map(|tenant| {
        let listed = (0..20).map(|n| blob(&n.to_string(), hours(n))).collect();
        state.enqueue(*tenant, Tier::Poll, listed, noon())
    });
    futures_util::future::try_join_all(all).await.unwrap();
    state.close().await.unwrap();
    let began = std::time::Instant::now();
    let state = open(&dir);
    let took = began.elapsed();
    assert_eq!(state.queued_tenants().len(), 1000);
    assert!(took < Duration::from_secs(5), "opening took {took:?}");
}
