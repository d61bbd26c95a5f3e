//! Works off the tenant's queue: takes entries in small lots, retrieves as many at a time as the limit allows, and sees
//! to it that each ends well or is put back. What is only to be looked at again comes when nothing else is due.
//!
//! **Invariants:** memory does not grow with the queue; every entry taken is completed, deferred, given up or released,
//! whatever ends the run; a panic of a retrieval is that blob's and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::debug;

use super::failure::{Failure, Reaction};
use super::retrieve::{self, Outcome};
use super::supervisor::panic_text;
use super::tree::Tree;
use crate::content::ContentType;
use crate::retry::{Backoff, Stage};
use crate::store::{QueueEntry, StoreError, is_due};

/// Entries taken from the queue at a time: enough to keep the retrievals busy, few enough to take account of what is
/// queued meanwhile.
const LOT: usize = 32;
/// Retrievals of one tenant under way at most, those included whose body has come and is on its way to the disk: some
/// groups of the writer's, so that it never waits for us. The store bounds the memory that they take.
const UNDER_WAY: usize = 128;
/// After so many failed retrievals in a row, only one at a time is tried,
const STRAINED: usize = 8;
/// at intervals that grow from the first of these to the second.
const STRAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How soon after an empty answer the queue is asked again: deferred entries are compared by another clock than ours.
const EMPTY: Duration = Duration::from_millis(100);
/// A time that steps must not put a deferred entry off for longer than this.
const LONGEST_SLEEP: Duration = Duration::from_mins(10);

/// What the retrieval of one blob says of more than that blob.
#[derive(Debug)]
pub(super) enum Word {
    /// It met trouble that is the tenant's.
    Trouble(Failure),
    /// Its address is of another cloud: it, and others with it, must be listed again.
    Stale,
}

/// The retrievals of one run of a tenant's tree.
#[derive(Debug)]
pub(super) struct Backlog {
    tree: Arc<Tree>,
    retrievals: JoinSet<Outcome>,
    under_way: HashMap<Id, QueueEntry>,
    /// Taken from the queue and not begun.
    taken: VecDeque<QueueEntry>,
    /// The queue may have entries for us.
    look: bool,
    /// Not before this moment.
    look_at: Instant,
    /// No retrieval before this moment.
    hold_until: Option<Instant>,
    strain: Backoff,
    store_pace: Backoff,
}

impl Backlog {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            retrievals: JoinSet::new(),
            under_way: HashMap::new(),
            taken: VecDeque::new(),
            look: true,
            look_at: Instant::now(),
            hold_until: None,
            strain: Backoff::between(STRAIN.0, STRAIN.1),
            store_pace: Backoff::new(Stage::Store),
        }
    }

    /// Begins as many retrievals as may be under way.
    pub(super) async fn begin(&mut self) {
        self.look |= self.tree.take_queued_sign();
        let now = Instant::now();
        if self.hold_until.is_some_and(|until| until > now) {
            return;
        }
        self.hold_until = None;
        if self.tree.store.next_deferred(self.tree.tenant).is_some_and(|at| is_due(at, self.tree.time.now())) {
            self.look = true;
        }
        let most = if self.strain.attempts() > 0 { 1 } else { self.tree.limit().now() };
        while self.tree.fetching_now() < most && self.under_way.len() < UNDER_WAY {
            if self.taken.is_empty() {
                self.take(now).await;
            }
            let Some(entry) = self.taken.pop_front() else { return };
            let task = retrieve::retrieve(Arc::clone(&self.tree), entry.clone(), self.tree.fetching());
            let id = self.retrievals.spawn(task).id();
            self.under_way.insert(id, entry);
        }
    }

    async fn take(&mut self, now: Instant) {
        if !self.look || now < self.look_at {
            return;
        }
        match self.tree.store.take_queued(self.tree.tenant, LOT, self.tree.time.now()).await {
            // That the state can be read says nothing of whether content can be written: the store's pace goes on.
            Ok(lot) => {
                // Fewer than asked for, of what is not only looked at again: that was all.
                self.look = lot.len() == LOT || lot.iter().any(|entry| entry.again);
                if lot.is_empty() {
                    self.look_at = now + EMPTY;
                }
                self.taken.extend(lot);
            }
            Err(error) => self.store_failed(&error),
        }
    }

    /// Waits for the next retrieval to end; `None` at once if none is under way.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        self.retrievals.join_next_with_id().await
    }

    /// Sees to the entry of a retrieval that has ended. Answers what concerns more than the blob.
    pub(super) async fn settle(&mut self, ended: Ended) -> Option<(ContentType, Word)> {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        let entry = self.under_way.remove(&id)?;
        match outcome {
            Ok(Outcome::Answered) => {
                self.tree.fetched();
                self.strain.succeeded();
                self.store_pace.succeeded();
            }
            Ok(Outcome::PutOff) => {}
            Ok(Outcome::Stale) => return Some((entry.blob.content_type, Word::Stale)),
            Ok(Outcome::Failed) => {
                // Those that were under way together are one sign, not several.
                if self.tree.fetch_failed() >= STRAINED && self.hold_until.is_none() {
                    self.hold();
                }
            }
            Ok(Outcome::Released(failure)) => {
                let content_type = entry.blob.content_type;
                self.release(&entry);
                return self.released(failure).map(|failure| (content_type, Word::Trouble(failure)));
            }
            Err(error) => {
                if let Err(error) = retrieve::panicked(&self.tree, entry.clone(), &message(error)).await {
                    self.release(&entry);
                    self.store_failed(&error);
                }
            }
        }
        None
    }

    /// A retrieval met trouble that says nothing about its blob. Answers trouble that is not seen to here.
    fn released(&mut self, failure: Failure) -> Option<Failure> {
        debug!(tenant = %self.tree.tenant, error = %failure.trouble().cause, "retrieval put off");
        match (failure.reaction(), failure) {
            (_, Failure::Store(error)) => {
                self.store_failed(&error);
                None
            }
            // The tree ends, or the gate says when.
            (Reaction::Stop | Reaction::AwaitGate, _) => None,
            (_, failure) => {
                self.hold();
                Some(failure)
            }
        }
    }

    fn hold(&mut self) {
        self.hold_until = Some(Instant::now() + self.strain.failed(None));
    }

    fn store_failed(&mut self, error: &StoreError) {
        self.tree.troubled(Stage::Store, None, &error.trouble());
        // A group of the writer's fails as one: that is one sign, not as many as there were blobs in it.
        if self.hold_until.is_none() {
            self.hold_until = Some(Instant::now() + self.store_pace.failed(None));
        }
    }

    /// Forgets what held the retrievals: there is another token.
    pub(super) fn resume(&mut self) {
        self.hold_until = None;
        self.strain.succeeded();
    }

    /// When [`begin`](Self::begin) has something to do although nothing happens until then.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        // The end of a retrieval is an event of its own.
        if self.tree.fetching_now() > 0 || self.under_way.len() >= UNDER_WAY {
            return None;
        }
        let now = Instant::now();
        let deferred = self.tree.store.next_deferred(self.tree.tenant).map(|at| {
            let left = at.duration_since(self.tree.time.now());
            let left = if is_due(at, self.tree.time.now()) { Duration::ZERO } else { left.unsigned_abs() };
            (now + left.min(LONGEST_SLEEP)).max(self.look_at)
        });
        let looking = self.look.then_some(self.look_at);
        let begun = (!self.taken.is_empty()).then_some(now);
        let work = [deferred, looking, begun].into_iter().flatten().min()?;
        Some(self.hold_until.map_or(work, |until| until.max(work)))
    }

    /// When the next retrieval is tried, if that is not now.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let (now, time) = (Instant::now(), self.tree.time.now());
        let next = self.tree.store.next_retry(self.tree.tenant).filter(|at| !is_due(*at, time));
        let next = next.map(|at| now + at.duration_since(time).unsigned_abs());
        next.max(self.hold_until.filter(|until| *until > now))
    }

    /// Whether entries were taken and have not been seen to.
    pub(super) fn is_busy(&self) -> bool {
        !(self.taken.is_empty() && self.under_way.is_empty())
    }

    /// Ends in order: begins nothing more and waits for what is under way.
    pub(super) async fn finish(mut self) {
        self.release_taken();
        while let Some(ended) = self.next().await {
            self.settle(ended).await;
        }
    }

    fn release(&mut self, entry: &QueueEntry) {
        self.tree.store.release(self.tree.tenant, entry);
        self.look = true;
    }

    fn release_taken(&mut self) {
        for entry in self.taken.drain(..) {
            self.tree.store.release(self.tree.tenant, &entry);
        }
    }
}

/// A retrieval that has ended.
pub(super) type Ended = Result<(Id, Outcome), JoinError>;

impl Drop for Backlog {
    /// Whatever ended the run: what it had taken may be taken again.
    fn drop(&mut self) {
        self.release_taken();
        for entry in self.under_way.values() {
            self.tree.store.release(self.tree.tenant, entry);
        }
    }
}

/// What a task that did not end well says.
pub(super) fn message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => panic_text(payload.as_ref()),
        Err(error) => error.to_string(),
    }
}
