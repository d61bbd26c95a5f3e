//! The retrieval of one content blob, from the queue's entry to what became of it.
//!
//! The body is pushed into the store as it comes; when all of it is durable the entry is completed. What fails is
//! deferred, durably and with growing waits, until the blob expires. What cannot succeed becomes a dead letter with
//! its reason; where there are bytes, they are kept: a body that is no JSON array of records after five fetches, and
//! one that has made the parser panic three times, are stored unparsed, as defects.
//!
//! A blob that is fetched within two minutes of its `contentCreated` may be partial. It is fetched at once all the
//! same, because lag matters; looking again later is another part's work.
//!
//! **Invariants:** memory does not grow with the blob; an entry leaves the queue only when its blob is durable or its
//! loss is on record and reported; a failure that says nothing about the blob counts nothing against it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{Instrument as _, debug, info_span, warn};

use super::failure::Failure;
use super::tree::{Fetching, Tree, later};
use crate::event;
use crate::report::Trouble;
use crate::retry::{Advice, Stage, jittered};
use crate::store::{Fetched, IntakeError, QueueEntry, StoreError, Stored};

/// After so many bodies that are no JSON array of records, the next one is kept as it is.
const MALFORMED: u32 = 5;
/// After so many panics, the body is kept without looking at it,
const PANICS: u32 = 3;
/// and after so many, not even that is tried.
const HOPELESS: u32 = 6;
/// At which attempt the operator is told: a stumble is no news.
const TELLING: u32 = 3;

/// What became of a retrieval, in the eyes of the tree.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The blob is durable, and the entry out of the queue.
    Done,
    /// The entry has become a dead letter.
    GivenUp,
    /// The entry waits for another attempt.
    Deferred,
    /// Nothing was learnt about the blob: its entry is to be released.
    Released(Failure),
}

enum Problem {
    Failure(Failure),
    Malformed(String),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Malformed { .. } => Self::Malformed(error.to_string()),
            IntakeError::Store(error) => Self::Failure(Failure::Store(StoreError::clone(&error))),
        }
    }
}

/// Retrieves one blob. `fetching` ends when all of the body has come: what is waiting to become durable makes room
/// for the next request.
pub(super) async fn retrieve(tree: Arc<Tree>, entry: QueueEntry, fetching: Fetching) -> Outcome {
    let span = info_span!(
        "blob.fetch",
        tenant = %tree.tenant,
        content_type = %entry.blob.content_type,
        content_id = %entry.blob.content_id,
        attempt = entry.attempts + 1,
    );
    async move {
        let defect = defect(&entry);
        if let Some(defect) = &defect {
            match was_kept(&tree, &entry, defect).await {
                Ok(false) => {}
                Ok(true) => return Outcome::Done,
                Err(error) => return Outcome::Released(Failure::Store(error)),
            }
        }
        let outcome = match fetch(&tree, &entry, defect.clone(), fetching).await {
            Ok(stored) => finish(&tree, entry, stored, defect).await,
            Err(problem) => settle(&tree, entry, problem).await,
        };
        outcome.unwrap_or_else(|error| Outcome::Released(Failure::Store(error)))
    }
    .instrument(span)
    .await
}

/// A crash may have come between the bytes of a defect and its dead letter: then only the letter is to be written.
async fn was_kept(tree: &Tree, entry: &QueueEntry, defect: &str) -> Result<bool, StoreError> {
    let kept = tree.store.is_stored(tree.tenant, &entry.blob.content_id).await?;
    if kept {
        give_up(tree, entry.clone(), &kept_unparsed(defect)).await?;
    }
    Ok(kept)
}

fn kept_unparsed(defect: &str) -> String {
    format!("{defect}; its bytes are kept unparsed")
}

/// Why the body is kept unparsed, if it is.
fn defect(entry: &QueueEntry) -> Option<String> {
    if entry.panics >= PANICS {
        Some(format!("reading the body made the program panic {} times", entry.panics))
    } else if entry.malformed >= MALFORMED {
        let last = entry.last_error.as_deref().unwrap_or("the body is not a JSON array of records");
        Some(format!("{last}, {} times", entry.malformed))
    } else {
        None
    }
}

async fn fetch(tree: &Tree, entry: &QueueEntry, defect: Option<String>, fetching: Fetching) -> Result<Stored, Problem> {
    let (client, blob) = (&tree.client, &entry.blob);
    let mut place = tree.slots.place(tree.tenant);
    let sent = tree.limit().sent();
    let mut body =
        tree.ask_holding(Some(&mut place), |token| async move { client.fetch_blob(&token, blob).await }).await?;
    let at = body.date().unwrap_or_else(|| tree.time.now());
    let fetched = Fetched { at, from: body.from().to_owned(), tier: entry.tier };
    let mut writer = tree.store.receive(tree.tenant, blob, fetched, defect);
    while let Some(chunk) = place.during(body.chunk()).await.map_err(|error| Failure::Service(Box::new(error)))? {
        place.take().await;
        writer.push(chunk).await?;
        place.make_way().await;
    }
    tree.fetched();
    {
        let mut limit = tree.limit();
        let before = limit.now();
        limit.succeeded(sent);
        if limit.now() != before {
            tree.report.concurrency(limit.now());
        }
    }
    // What waits to become durable needs neither a slot nor the room of a body.
    drop((place, fetching, body));
    Ok(writer.finish().await?)
}

/// The blob is durable.
async fn finish(tree: &Tree, entry: QueueEntry, stored: Stored, defect: Option<String>) -> Result<Outcome, StoreError> {
    let content_type = entry.blob.content_type;
    if stored.new {
        let lag = Duration::try_from(tree.time.now().duration_since(entry.blob.content_created));
        tree.report.stored(content_type, &stored, lag.unwrap_or_default());
    }
    if stored.foreign > 0 {
        tell_foreign(tree, &stored);
    }
    debug!(seq = stored.seq, bytes = stored.bytes, records = stored.records, new = stored.new, "stored");
    match defect {
        Some(defect) => give_up(tree, entry, &kept_unparsed(&defect)).await?,
        None => tree.store.complete(tree.tenant, &entry),
    }
    tree.works(Stage::Retrieve, Some(content_type));
    tree.works(Stage::Store, None);
    Ok(Outcome::Done)
}

/// Told at the first such record, the tenth, the hundredth and so on: a tenant that has one may have many.
fn tell_foreign(tree: &Tree, stored: &Stored) {
    let (before, total) = tree.count_foreign(stored.foreign);
    if before.checked_ilog10() < total.checked_ilog10() {
        warn!(
            message_id = event::RECORDS_FOREIGN,
            tenant = %tree.tenant,
            name = %tree.report.name(),
            foreign = total,
            "records name another tenant in `OrganizationId`; they are stored and flagged"
        );
    }
}

/// The blob was not stored.
async fn settle(tree: &Tree, mut entry: QueueEntry, problem: Problem) -> Result<Outcome, StoreError> {
    let (wait, trouble, telling) = match problem {
        Problem::Malformed(error) => {
            entry.malformed += 1;
            let trouble = Trouble::passing("malformed_body", error);
            (malformed_wait(entry.malformed), trouble, entry.malformed >= TELLING)
        }
        Problem::Failure(failure) => {
            let asked = match failure.advice() {
                Advice::GiveUp => {
                    entry.attempts += 1;
                    let reason = failure.trouble().to_string();
                    entry.last_error = Some(reason.clone());
                    give_up(tree, entry, &reason).await?;
                    return Ok(Outcome::GivenUp);
                }
                // The gate is closed; or the tree must do something first. None of it is the blob's fault.
                Advice::Throttled { .. } | Advice::PauseApp | Advice::CheckSubscription => {
                    return Ok(Outcome::Released(failure));
                }
                _ if matches!(failure, Failure::Token(_) | Failure::Store(_) | Failure::Stopping) => {
                    return Ok(Outcome::Released(failure));
                }
                Advice::Retry { after } => after,
                Advice::RenewToken | Advice::RelistWindow | Advice::PauseTenant => None,
            };
            let wait = failed_wait(entry.attempts + 1).max(asked.unwrap_or_default());
            (wait, failure.trouble(), entry.attempts + 1 >= TELLING)
        }
    };
    entry.attempts += 1;
    entry.last_error = Some(trouble.cause.clone());
    debug!(error = trouble.cause, seconds = wait.as_secs_f64(), "retrieval failed");
    if has_expired(&entry, tree.time.confirmed(), tree.time.host()) {
        let reason = format!("it expired before it could be retrieved; the last failure: {trouble}");
        give_up(tree, entry, &reason).await?;
        return Ok(Outcome::GivenUp);
    }
    if telling {
        tree.troubled(Stage::Retrieve, Some(entry.blob.content_type), &trouble);
    }
    entry.not_before = Some(later(tree.time.now(), wait));
    tree.store.defer(tree.tenant, entry).await?;
    Ok(Outcome::Deferred)
}

/// The retrieval of this entry panicked.
pub(super) async fn panicked(tree: &Tree, mut entry: QueueEntry, message: &str) -> Result<(), StoreError> {
    entry.panics += 1;
    entry.attempts += 1;
    entry.last_error = Some(format!("the retrieval panicked: {message}"));
    debug!(
        tenant = %tree.tenant,
        content_id = %entry.blob.content_id,
        attempt = entry.attempts,
        error = message,
        "the retrieval of a blob panicked"
    );
    let cause = format!("reading a blob made the program panic: {message}");
    let remedy = "report this; a blob that does it three times is kept unparsed, see its dead letter";
    let trouble = Trouble::for_operator("blob_panic", cause, remedy);
    tree.troubled(Stage::Retrieve, Some(entry.blob.content_type), &trouble);
    if entry.panics >= HOPELESS {
        let reason = format!("its retrieval panicked {} times, without parsing too: {message}", entry.panics);
        return give_up(tree, entry, &reason).await;
    }
    entry.not_before = Some(later(tree.time.now(), failed_wait(entry.attempts)));
    tree.store.defer(tree.tenant, entry).await
}

async fn give_up(tree: &Tree, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
    let (content_type, content_id) = (entry.blob.content_type, entry.blob.content_id.clone());
    tree.store.dead_letter(tree.tenant, entry, reason).await?;
    tree.report.dead_letter(content_type, &content_id, reason);
    // Nothing is being tried any more.
    tree.works(Stage::Retrieve, Some(content_type));
    Ok(())
}

/// Whether the service has deleted the content by now. Only a time that the service confirms and that the host's clock
/// bears out can say so: either may step, and what is given up too early is lost. What is tried for too long costs
/// requests only, and the service itself says when content has expired.
fn has_expired(entry: &QueueEntry, confirmed: Option<Timestamp>, host: Timestamp) -> bool {
    confirmed.is_some_and(|now| entry.blob.content_expiration < now.min(host))
}

/// After the `failures`-th failed retrieval: from a second to ten minutes, doubling.
fn failed_wait(failures: u32) -> Duration {
    growing(Duration::from_secs(1), 2, failures)
}

/// After the `bodies`-th malformed body: from two seconds, fourfold, so that five of them take ten minutes.
fn malformed_wait(bodies: u32) -> Duration {
    growing(Duration::from_secs(2), 4, bodies)
}

fn growing(first: Duration, factor: u32, failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_mins(10);
    let wait = factor.checked_pow(failures.saturating_sub(1)).and_then(|times| first.checked_mul(times));
    jittered(wait.unwrap_or(LONGEST).min(LONGEST), 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentBlob, ContentType, Tier};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry() -> QueueEntry {
        QueueEntry {
            blob: ContentBlob {
                content_id: "a".into(),
                content_type: ContentType::General,
                content_uri: String::new(),
                content_created: at("2026-11-15T12:00:00Z"),
                content_expiration: at("2026-11-22T12:00:00Z"),
            },
            tier: Tier::Poll,
            queued_at: at("2026-11-15T12:00:00Z"),
            attempts: 0,
            panics: 0,
            malformed: 0,
            not_before: None,
            last_error: None,
        }
    }

    #[test]
    fn waits_grow_to_ten_minutes() {
        for (failures, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (40, 600), (u32::MAX, 600)] {
            let wait = failed_wait(failures);
            let most = Duration::from_secs(most);
            assert!(wait <= most && wait >= most.mul_f64(0.79), "{failures}: {wait:?}");
        }
        let all: Duration = (1..=MALFORMED).map(malformed_wait).sum();
        assert!(all > Duration::from_mins(8) && all < Duration::from_mins(12), "{all:?}");
    }

    #[test]
    fn bytes_are_kept_unparsed_after_five_bad_bodies_or_three_panics() {
        assert_eq!(defect(&entry()), None);
        assert_eq!(defect(&QueueEntry { malformed: 4, panics: 2, attempts: 100, ..entry() }), None);
        let malformed = QueueEntry { malformed: 5, last_error: Some("byte 7: no array".into()), ..entry() };
        assert_eq!(defect(&malformed).unwrap(), "byte 7: no array, 5 times");
        let panicking = QueueEntry { panics: 3, ..malformed };
        assert_eq!(defect(&panicking).unwrap(), "reading the body made the program panic 3 times");
    }

    #[test]
    fn only_a_confirmed_time_that_the_host_bears_out_lets_content_expire() {
        let (before, expiry, after) = ("2026-11-15T12:00:00Z", "2026-11-22T12:00:00Z", "2026-11-22T12:00:01Z");
        let month_on = "2026-12-22T12:00:00Z";
        for (confirmed, host, expired) in [
            (None, before, false),
            (None, month_on, false),
            (Some(expiry), expiry, false),
            (Some(expiry), month_on, false),
            (Some(after), expiry, false),
            (Some(month_on), before, false),
            (Some(before), month_on, false),
            (Some(after), after, true),
            (Some(after), month_on, true),
            (Some(month_on), after, true),
        ] {
            assert_eq!(has_expired(&entry(), confirmed.map(at), at(host)), expired, "{confirmed:?}, {host}");
        }
    }
}
