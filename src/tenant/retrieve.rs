//! The retrieval of one content blob, from the queue's entry to what became of it.
//!
//! The body is pushed into the store as it comes; when all of it is durable the entry is completed. What fails is
//! deferred, durably and with growing waits, until the blob expires. What cannot succeed becomes a dead letter with
//! its reason; where there are bytes, they are kept: a body that is still no JSON array of records on the blob's last
//! day, and one that has made the parser panic three times, are stored unparsed, as defects.
//!
//! A blob that is fetched within two minutes of its `contentCreated` may be a part. It is fetched at once all the same,
//! because lag matters, and looked at again when these are over: another body is stored as a further revision. What can
//! only be looked at again in vain is left as it is, with a warning and without a dead letter: it is stored.
//!
//! What only a notification has named is tried like anything else, and dropped where that would be given up, or when a
//! sweep of all that the service holds has not named it: a count tells of it, and no dead letter. If it is there after all,
//! a listing names it.
//!
//! **Invariants:** memory does not grow with the blob; an entry leaves the queue only when its blob is durable or its
//! loss is on record and reported; a body that can be read is stored as records, whatever came before it; a failure
//! that says nothing about the blob counts nothing against it, unless the same blob meets it again and again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{Instrument as _, debug, info_span, warn};

use super::failure::{Failure, Reaction};
use super::life::{doubtful_wait, failed_wait, has_ended, is_last_chance};
use super::plan::later;
use super::reception::{Received, Reception};
use super::tree::{Fetching, Tree};
use crate::activity::{ActivityError, Operation};
use crate::content::{ContentBlob, ContentType, Tier};
use crate::event;
use crate::report::{NotificationFate, Trouble};
use crate::retry::{Stage, jittered};
use crate::store::{Fetched, IntakeError, QueueEntry, StoreError, Stored};

/// After so many panics, the body is kept without looking at it,
const PANICS: u32 = 3;
/// and after so many, not even that is tried.
const HOPELESS: u32 = 6;
/// At which attempt the operator is told: a stumble is no news.
const TELLING: u32 = 3;
/// A blob that has met so many of the tenant's throttlings is put off by itself: it may be the one that brings them on.
const THROTTLED: u32 = 3;
/// How often the service must say that content is gone, and how long after the first time it is asked again.
const GONE: u32 = 2;
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// Within so long after it is whole a blob is looked at again: many are created at the same moment.
const SPREAD: Duration = Duration::from_secs(5);

/// What became of a retrieval, in the eyes of the tree.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The service has answered for this blob, and the entry was seen to: the way is good.
    Answered,
    /// The way failed; the entry waits for another attempt.
    Failed,
    /// The entry was seen to, and nothing was learnt about the way.
    PutOff,
    /// The entry's address is of another cloud: it waits until it is listed again.
    Stale,
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

impl Problem {
    /// The store did not take the body. What does not even say that it is JSON is no blob, but the page of something on
    /// the way, and says nothing about the blob.
    fn of_intake(error: &IntakeError, says_json: bool) -> Self {
        match error {
            IntakeError::Malformed { .. } if says_json => Self::Malformed(error.to_string()),
            IntakeError::Malformed { .. } => Self::Failure(Failure::Service(Box::new(ActivityError::Malformed {
                operation: Operation::FetchBlob,
                expected: "JSON, nor does it say that it is",
                source: None,
            }))),
            IntakeError::Store(error) => Self::Failure(Failure::Store(StoreError::clone(error))),
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
        // A crash may have come between the bytes of a defect and its dead letter: then only the letter is to be written.
        if is_promised(&entry) && (entry.panics >= PANICS || entry.malformed > 0) {
            match tree.store.is_stored(tree.tenant, &entry.blob.content_id).await {
                Ok(false) => {}
                Ok(true) => return wind_up(&tree, entry).await,
                Err(error) => return Outcome::Released(Failure::Store(error)),
            }
        }
        let outcome = match fetch(&tree, &entry, fetching).await {
            Ok((received, young)) => finish(&tree, entry, received, young).await,
            Err(problem) => settle(&tree, entry, problem).await,
        };
        outcome.unwrap_or_else(|error| Outcome::Released(Failure::Store(error)))
    }
    .instrument(span)
    .await
}

/// The bytes of a defect are stored.
async fn wind_up(tree: &Tree, entry: QueueEntry) -> Outcome {
    let reason = kept_unparsed(&panics(&entry).unwrap_or_else(|| malformed(&entry)));
    match give_up(tree, entry, &reason).await {
        Ok(()) => Outcome::PutOff,
        Err(error) => Outcome::Released(Failure::Store(error)),
    }
}

fn kept_unparsed(defect: &str) -> String {
    format!("{defect}; its bytes are kept unparsed")
}

/// Why the body is kept without looking at it, if it is.
fn panics(entry: &QueueEntry) -> Option<String> {
    (entry.panics >= PANICS).then(|| format!("reading the body made the program panic {} times", entry.panics))
}

/// Why a body that cannot be read is kept.
fn malformed(entry: &QueueEntry) -> String {
    let last = entry.last_error.as_deref().unwrap_or("the body is not a JSON array of records");
    format!("{last}, {} times", entry.malformed.saturating_add(1))
}

/// Fetches again what is stored, out of turn, and compares: another body is stored as a further revision, and then what this
/// answers is new. It waits at the tenant's gate and for a slot as any retrieval does, and leaves the queue alone.
pub(super) async fn compare(tree: &Arc<Tree>, blob: &ContentBlob) -> Result<Stored, Trouble> {
    let entry = QueueEntry {
        blob: blob.clone(),
        tier: Tier::Sweep,
        queued_at: tree.time.now(),
        attempts: 0,
        panics: 0,
        malformed: 0,
        not_before: None,
        last_error: None,
        again: true,
    };
    let stored = loop {
        match fetch(tree, &entry, tree.fetching()).await {
            Ok((Received::Records(stored) | Received::Bytes(stored, _), _)) => break stored,
            Err(Problem::Failure(Failure::Held)) => tree.gate.open().await,
            Err(Problem::Failure(failure)) => return Err(failure.trouble()),
            Err(Problem::Malformed(error)) => return Err(Trouble::passing("malformed_body", error)),
        }
    };
    if stored.new {
        tree.report.grown(blob.content_type, &stored);
        if stored.foreign > 0 {
            tell_foreign(tree, &stored);
        }
    }
    Ok(stored)
}

/// Answers what the body was stored as, and whether the blob was so young that it may be a part.
async fn fetch(tree: &Tree, entry: &QueueEntry, fetching: Fetching) -> Result<(Received, bool), Problem> {
    let (client, blob) = (&tree.client, &entry.blob);
    let mut place = tree.slots.place(tree.tenant);
    let request = |token| async move { client.fetch_blob(&token, blob).await };
    let (mut body, sent) = tree.ask_holding(blob.content_type, &mut place, request).await?;
    let says_json = body.says_json();
    let now = tree.time.now();
    let at = body.date().unwrap_or(now);
    // Of two clocks that differ, neither is to hide that it was.
    let young = at.min(now) < whole_at(tree, entry);
    let fetched = || Fetched { at, from: body.from().to_owned(), tier: entry.tier };
    let receive = |defect| Box::new(tree.store.receive(tree.tenant, blob, fetched(), defect));
    let mut reception = if entry.again {
        Reception::Records(Box::new(tree.store.receive_revision(tree.tenant, blob, fetched())))
    } else if let Some(reason) = panics(entry).filter(|_| is_promised(entry)) {
        Reception::Kept { records: None, bytes: receive(Some(reason.clone())), reason }
    } else if says_json && is_promised(entry) && is_last_chance(entry, tree.time.now(), tree.time.host()) {
        let reason = malformed(entry);
        Reception::Kept { records: Some(receive(None)), bytes: receive(Some(reason.clone())), reason }
    } else {
        Reception::Records(receive(None))
    };
    while let Some(chunk) = place.during(body.chunk()).await.map_err(|error| Failure::Service(Box::new(error)))? {
        place.take().await;
        tree.course.advance();
        reception.push(chunk).await.map_err(|error| Problem::of_intake(&error, says_json))?;
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
    let received = reception.finish().await.map_err(|error| Problem::of_intake(&error, says_json))?;
    Ok((received, young))
}

/// When the blob is whole.
fn whole_at(tree: &Tree, entry: &QueueEntry) -> Timestamp {
    later(entry.blob.content_created, tree.collect.whole_after())
}

/// The blob is durable.
async fn finish(tree: &Tree, entry: QueueEntry, received: Received, young: bool) -> Result<Outcome, StoreError> {
    let (stored, defect) = match received {
        Received::Records(stored) => (stored, None),
        Received::Bytes(stored, reason) => (stored, Some(reason)),
    };
    let content_type = entry.blob.content_type;
    tree.course.advance();
    if stored.new && entry.again {
        tree.report.grown(content_type, &stored);
    } else if stored.new {
        let lag = Duration::try_from(tree.time.now().duration_since(entry.blob.content_created));
        tree.report.stored(content_type, &stored, lag.unwrap_or_default());
    }
    if stored.new && stored.foreign > 0 {
        tell_foreign(tree, &stored);
    }
    if stored.new && content_type == ContentType::Dlp {
        tree.dlp_stored.notify_one();
    }
    let (bytes, records, new, again) = (stored.bytes, stored.records, stored.new, entry.again);
    debug!(seq = stored.seq, bytes, records, new, again, "stored");
    if let Some(defect) = defect {
        give_up(tree, entry, &kept_unparsed(&defect)).await?;
    } else {
        done_with(tree, &entry);
        if young && !entry.again {
            tree.course.took_young();
            let not_before = later(whole_at(tree, &entry), jittered(SPREAD, 1.0));
            tree.store.look_again(tree.tenant, QueueEntry { not_before: Some(not_before), ..entry }).await?;
        } else {
            tree.store.complete(tree.tenant, &entry);
        }
    }
    tree.works(Stage::Retrieve, Some(content_type));
    tree.works(Stage::Store, None);
    Ok(Outcome::Answered)
}

/// The blob needs no more attention, or none before it is looked at again.
fn done_with(tree: &Tree, entry: &QueueEntry) {
    if tree.strikes().forget(&entry.blob.content_id) {
        tree.works(Stage::Retrieve, None);
    }
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

/// The body was not stored.
async fn settle(tree: &Tree, mut entry: QueueEntry, problem: Problem) -> Result<Outcome, StoreError> {
    let (failure, wait, outcome) = match problem {
        Problem::Malformed(error) => return not_readable(tree, entry, error).await,
        Problem::Failure(failure) => {
            let id = &entry.blob.content_id;
            let own = failed_wait(entry.attempts + 1);
            let (wait, outcome) = match failure.reaction() {
                Reaction::Stop | Reaction::AwaitStore => return Ok(Outcome::Released(failure)),
                Reaction::AwaitToken => return release(tree, entry, failure).await,
                Reaction::AwaitGate if matches!(failure, Failure::Held) => return release(tree, entry, failure).await,
                // The gate is closed, and that is not the blob's fault, unless it is.
                Reaction::AwaitGate => {
                    let times = tree.strikes().throttled(id);
                    if times < THROTTLED {
                        return release(tree, entry, failure).await;
                    }
                    (doubtful_wait(times - THROTTLED + 1), Outcome::PutOff)
                }
                Reaction::Again { after } => (own.max(after.unwrap_or_default()), Outcome::Failed),
                Reaction::AwaitOtherToken | Reaction::Relist | Reaction::Pause { .. } => (own, Outcome::Failed),
                // Whether the subscription is in doubt is for the listing to say, which goes on all the while.
                Reaction::CheckSubscription => (own, Outcome::Answered),
                Reaction::Gone { sure: true } => {
                    if tree.strikes().gone(id) >= GONE {
                        entry.attempts += 1;
                        let reason = failure.trouble().to_string();
                        entry.last_error = Some(reason.clone());
                        give_up(tree, entry, &reason).await?;
                        return Ok(Outcome::Answered);
                    }
                    (own.max(jittered(ASK_AGAIN, 0.2)), Outcome::Answered)
                }
                Reaction::Gone { sure: false } => (doubtful_wait(entry.attempts + 1), Outcome::Answered),
                Reaction::TooLarge => {
                    set_aside(tree, entry, &failure.trouble().to_string()).await?;
                    return Ok(Outcome::Answered);
                }
                // Another listing does not help: of what is stored, it changes nothing.
                Reaction::Readdress if entry.again => {
                    give_up(tree, entry, &failure.trouble().to_string()).await?;
                    return Ok(Outcome::PutOff);
                }
                Reaction::Readdress => (doubtful_wait(entry.attempts + 1), Outcome::Stale),
            };
            (failure, wait, outcome)
        }
    };
    let trouble = failure.trouble();
    entry.attempts += 1;
    entry.last_error = Some(trouble.cause.clone());
    debug!(error = trouble.cause, seconds = wait.as_secs_f64(), "retrieval failed");
    let Some(entry) = give_up_if_over(tree, entry, &trouble).await? else { return Ok(Outcome::PutOff) };
    if entry.attempts >= TELLING {
        tree.troubled(Stage::Retrieve, Some(entry.blob.content_type), &trouble);
    }
    defer(tree, entry, wait).await?;
    Ok(outcome)
}

/// A body came whole, and is no array of records.
async fn not_readable(tree: &Tree, mut entry: QueueEntry, error: String) -> Result<Outcome, StoreError> {
    entry.malformed += 1;
    entry.attempts += 1;
    entry.last_error = Some(error.clone());
    let wait = doubtful_wait(entry.malformed);
    debug!(error, seconds = wait.as_secs_f64(), "a body that cannot be read");
    let blobs = tree.strikes().malformed(&entry.blob.content_id);
    let cause = format!(
        "the bodies of {blobs} content blob(s) cannot be read and are fetched again, hourly in the end, until they can be or \
         are about to expire; the last one: {error}"
    );
    let trouble = Trouble::passing("malformed_body", cause);
    let Some(entry) = give_up_if_over(tree, entry, &trouble).await? else { return Ok(Outcome::Answered) };
    if entry.malformed >= TELLING {
        tree.troubled(Stage::Retrieve, None, &trouble);
    }
    defer(tree, entry, wait).await?;
    Ok(Outcome::Answered)
}

/// Nothing was learnt about the blob, except what the clock says.
async fn release(tree: &Tree, entry: QueueEntry, failure: Failure) -> Result<Outcome, StoreError> {
    match give_up_if_over(tree, entry, &failure.trouble()).await? {
        Some(_) => Ok(Outcome::Released(failure)),
        None => Ok(Outcome::PutOff),
    }
}

async fn defer(tree: &Tree, mut entry: QueueEntry, wait: Duration) -> Result<(), StoreError> {
    entry.not_before = Some(later(tree.time.now(), wait));
    tree.store.defer(tree.tenant, entry).await
}

/// Whether its loss would be one: a listing has named it, and it is not stored.
fn is_promised(entry: &QueueEntry) -> bool {
    !entry.again && entry.tier != Tier::Webhook
}

/// Whether all that the service holds was listed since a notification named it, and it was not among that.
fn is_unlisted(tree: &Tree, entry: &QueueEntry) -> bool {
    let swept = tree.mark(entry.blob.content_type).sweep_at;
    entry.tier == Tier::Webhook && !entry.again && swept.is_some_and(|swept| swept > entry.queued_at)
}

/// Gives the entry up if the service has deleted the content by now; else it is handed back.
async fn give_up_if_over(tree: &Tree, entry: QueueEntry, last: &Trouble) -> Result<Option<QueueEntry>, StoreError> {
    if is_unlisted(tree, &entry) {
        give_up(tree, entry, &format!("no listing names it; the last failure: {last}")).await?;
        return Ok(None);
    }
    if !has_ended(&entry, tree.time.confirmed(), tree.time.host()) {
        return Ok(Some(entry));
    }
    let reason = format!("it expired before it could be retrieved; the last failure: {last}");
    give_up(tree, entry, &reason).await?;
    Ok(None)
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
    let most = if is_promised(&entry) { HOPELESS } else { PANICS };
    if entry.panics >= most {
        let parsed = if is_promised(&entry) { ", without parsing too" } else { "" };
        let reason = format!("its retrieval panicked {} times{parsed}: {message}", entry.panics);
        return give_up(tree, entry, &reason).await;
    }
    let wait = failed_wait(entry.attempts);
    defer(tree, entry, wait).await
}

async fn give_up(tree: &Tree, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
    if entry.again {
        leave(tree, &entry, reason);
        return Ok(());
    }
    if entry.tier == Tier::Webhook {
        return drop_unlisted(tree, entry, reason).await;
    }
    tree.store.dead_letter(tree.tenant, entry.clone(), reason).await?;
    tell_given_up(tree, &entry, reason);
    Ok(())
}

/// Nobody but a notification has named the entry.
async fn drop_unlisted(tree: &Tree, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
    let (id, content_type) = (entry.blob.content_id.clone(), entry.blob.content_type);
    if tree.store.drop_unlisted(tree.tenant, entry.clone()).await? {
        debug!(reason, "what only a notification has named is dropped");
        tree.report.notified(NotificationFate::Unlisted, 1);
        done_with(tree, &entry);
        tree.works(Stage::Retrieve, Some(content_type));
    } else {
        debug!(content_id = %id, "a listing has named it meanwhile: it is tried as one that is promised");
        tree.queued();
    }
    Ok(())
}

/// Gives the entry up until it is listed again by a tree with other settings: this one would fail again.
async fn set_aside(tree: &Tree, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
    if !is_promised(&entry) || !tree.strikes().set_aside(&entry.blob.content_id) {
        return give_up(tree, entry, reason).await;
    }
    tree.store.set_aside(tree.tenant, entry.clone(), reason).await?;
    tree.course.put_aside();
    tell_given_up(tree, &entry, reason);
    Ok(())
}

/// It is stored as it was fetched at first, and stays like that.
fn leave(tree: &Tree, entry: &QueueEntry, reason: &str) {
    let blob = &entry.blob;
    warn!(
        message_id = event::CONTENT_PERHAPS_PARTIAL,
        tenant = %tree.tenant,
        name = %tree.report.name(),
        content_type = %blob.content_type,
        content_id = %blob.content_id,
        reason,
        "a content blob was fetched within two minutes of its creation and cannot be looked at again; it may be stored in part"
    );
    tree.store.complete(tree.tenant, entry);
    done_with(tree, entry);
    tree.works(Stage::Retrieve, Some(blob.content_type));
}

fn tell_given_up(tree: &Tree, entry: &QueueEntry, reason: &str) {
    let content_type = entry.blob.content_type;
    tree.course.advance();
    tree.note_letters();
    tree.report.dead_letter(content_type, &entry.blob.content_id, reason);
    // Nothing is being tried any more.
    done_with(tree, entry);
    tree.works(Stage::Retrieve, Some(content_type));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_by_its_own_word_says_nothing_about_the_blob() {
        let error = || IntakeError::Malformed { at: 0, what: "`<` is not an array".to_owned() };
        let Problem::Malformed(told) = Problem::of_intake(&error(), true) else { panic!("the blob's own") };
        assert!(told.contains("not a JSON array"), "{told}");
        let Problem::Failure(failure) = Problem::of_intake(&error(), false) else { panic!("the way's") };
        assert_eq!(failure.reaction(), Reaction::Again { after: None });
        assert!(failure.trouble().remedy.contains("proxy"), "{:?}", failure.trouble());
    }
}
