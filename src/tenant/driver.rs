//! The one long-lived future of a tenant's tree: sleeps until something is due, and spawns short tasks for it.
//!
//! An idle tenant costs one timer and, per poll and content type, one short task. The driver decides nothing about
//! windows, waits or errors by itself: [`schedule`](super::schedule) says what is due, the tasks say what came of it.
//!
//! **Invariants:** a panic of a listing or of the driver ends this run of the tree and nothing else; a panic of a
//! retrieval is that blob's; every entry taken from the queue is completed, deferred, given up or released, whatever
//! ends the run.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::plan;
use super::poll::{self, Listed, Setback};
use super::retrieve::{self, Outcome};
use super::schedule::{Due, Schedule};
use super::subscription::{self, Standing};
use super::tree::{Failure, Tree, later};
use crate::content::{ContentType, Tier};
use crate::report::TenantState;
use crate::retry::{Advice, Backoff, REMEMBERED, Stage, jittered};
use crate::store::{QueueEntry, StoreError, WaitKey};

/// Subscriptions are looked at this often while nothing seems wrong with them.
const CHECK_EVERY: Duration = Duration::from_hours(1);
/// Without a token nothing is tried for this long, unless the renewal brings one.
const TOKENLESS: Duration = Duration::from_mins(1);
/// Entries taken from the queue at a time: enough to keep the retrievals busy, few enough to take account of what is
/// queued meanwhile.
const LOT: usize = 16;
/// Retrievals of one tenant whose body has come and is on its way to the disk, at most: one group of the writer's.
const UNDER_WAY: usize = 40;
/// After so many failed retrievals in a row, only one at a time is tried.
const STRAINED: usize = 8;
/// A tenant with this many blobs to retrieve, or one that has waited for this long, is catching up.
const BACKLOG: (u64, SignedDuration) = (200, SignedDuration::from_mins(30));
/// Content that was last listed so long ago is not up to date.
const BEHIND: SignedDuration = SignedDuration::from_mins(30);

/// What a short task came to.
#[derive(Debug)]
enum Chore {
    Checked(Result<BTreeMap<ContentType, Standing>, Failure>),
    Listed(Due, Result<Listed, Setback>),
}

/// One run of a tenant's tree.
#[derive(Debug)]
pub(super) struct Driver {
    tree: Arc<Tree>,
    schedule: Schedule,
    chores: JoinSet<Chore>,
    retrievals: JoinSet<Outcome>,
    under_way: HashMap<Id, QueueEntry>,
    /// Taken from the queue and not begun.
    taken: VecDeque<QueueEntry>,
    /// The queue may have entries for us.
    look: bool,
    /// Not before this moment, after the queue had none.
    looked_at: Instant,
    /// No retrieval before this moment.
    hold_until: Option<Instant>,
    strain: Backoff,
    store_pace: Backoff,
    /// No request before this moment, for want of a token.
    tokenless_until: Option<Instant>,
    /// `None` while a check of the subscriptions is under way.
    check_due: Option<Instant>,
    check_pace: Backoff,
    doubted: BTreeSet<ContentType>,
    /// Subscriptions started in this run whose first content has not been listed yet.
    awaited: BTreeSet<ContentType>,
    paused_until: Option<Instant>,
    pause: Backoff,
    listed_once: bool,
}

/// The run ended by a panic with this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

/// Runs the tree until it is stopped, or panics.
pub(super) async fn drive(tree: Arc<Tree>) -> Result<(), Panicked> {
    let mut pace = Backoff::new(Stage::Store);
    while let Err(error) = tree.restore().await {
        tree.troubled(Stage::Store, None, &error.trouble());
        tokio::select! {
            () = tree.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pace.failed(None)) => {}
        }
    }
    tree.works(Stage::Store, None);
    Driver::new(tree).run().await
}

impl Driver {
    fn new(tree: Arc<Tree>) -> Self {
        let now = Instant::now();
        let marks = tree.content_types.iter().map(|content_type| (*content_type, tree.mark(*content_type)));
        let schedule = Schedule::new(tree.tenant, marks, tree.collect, now, tree.time.now());
        Self {
            schedule,
            chores: JoinSet::new(),
            retrievals: JoinSet::new(),
            under_way: HashMap::new(),
            taken: VecDeque::new(),
            look: true,
            looked_at: now,
            hold_until: None,
            strain: Backoff::between(Duration::from_secs(1), Duration::from_secs(15)),
            store_pace: Backoff::new(Stage::Store),
            tokenless_until: None,
            check_due: Some(now),
            // Looking costs nothing; starting has its own cool-down.
            check_pace: Backoff::new(Stage::List),
            doubted: BTreeSet::new(),
            awaited: BTreeSet::new(),
            paused_until: None,
            pause: Backoff::new(Stage::Paused),
            listed_once: false,
            tree,
        }
    }

    async fn run(mut self) -> Result<(), Panicked> {
        let tree = Arc::clone(&self.tree);
        let mut tokens = tree.token.changes();
        self.chores.spawn({
            let tree = Arc::clone(&tree);
            async move { tree.token.renew().await }
        });
        loop {
            self.begin_chores();
            self.begin_retrievals().await;
            self.tell();
            let wake = self.next_wake();
            tokio::select! {
                () = tree.stop.cancelled() => break,
                Some(done) = self.chores.join_next() => match done {
                    Ok(Chore::Checked(result)) => self.checked(result).await,
                    Ok(Chore::Listed(due, result)) => self.listed(due, result),
                    Err(error) => return Err(Panicked(message(error))),
                },
                Some(done) = self.retrievals.join_next_with_id() => self.retrieved(done).await,
                () = tree.work.notified() => {}
                _ = tokens.changed() => {
                    // What was refused with the token before is tried again with this one.
                    self.tokenless_until = None;
                    self.hold_until = None;
                    self.strain.succeeded();
                    self.schedule.retry_refused(Instant::now());
                    tree.works(Stage::Token, None);
                    self.tell_token();
                }
                () = sleep_until(wake) => {}
            }
        }
        // What is being listed will be listed again; what is being received is finished, if it comes in time.
        self.chores.shutdown().await;
        self.release_taken();
        while let Some(done) = self.retrievals.join_next_with_id().await {
            self.retrieved(done).await;
        }
        Ok(())
    }

    /// Whether requests may be sent at all.
    fn is_held(&mut self, now: Instant) -> bool {
        for until in [&mut self.tokenless_until, &mut self.paused_until] {
            if until.is_some_and(|moment| moment <= now) {
                *until = None;
            }
        }
        self.tokenless_until.is_some() || self.paused_until.is_some() || self.tree.gate.closed_until().is_some()
    }

    fn begin_chores(&mut self) {
        let now = Instant::now();
        if self.is_held(now) {
            return;
        }
        if self.check_due.is_some_and(|due| due <= now) {
            self.check_due = None;
            let (tree, doubted) = (Arc::clone(&self.tree), self.doubted.clone());
            self.chores.spawn(async move { Chore::Checked(subscription::check(tree, doubted).await) });
        }
        while let Some(due) = self.schedule.start(now) {
            let Due { content_type, tier, resume } = due;
            if tier == Tier::Poll {
                self.watch_time(content_type, now);
            }
            let tree = Arc::clone(&self.tree);
            self.chores.spawn(async move { Chore::Listed(due, poll::list(tree, content_type, tier, resume).await) });
        }
    }

    /// When the service's time has stepped back behind what is on record, the longer spans are listed again at once.
    fn watch_time(&mut self, content_type: ContentType, now: Instant) {
        let time = self.tree.time.now();
        let mark = self.tree.mark(content_type);
        if plan::stepped_back(&mark, time) {
            debug!(tenant = %self.tree.tenant, %content_type, ?mark, %time, "time has stepped back: listing all again");
            self.tree.set_mark(content_type, |mark| (mark.recent_at, mark.sweep_at) = (None, None));
            self.schedule.list_all_again(content_type, now);
        }
    }

    async fn begin_retrievals(&mut self) {
        self.look |= self.tree.take_queued_sign();
        let now = Instant::now();
        if self.is_held(now) || self.hold_until.is_some_and(|until| until > now) {
            return;
        }
        self.hold_until = None;
        if self.tree.store.next_deferred(self.tree.tenant).is_some_and(|at| at <= self.tree.time.now()) {
            self.look = true;
        }
        let most = if self.strain.attempts() > 0 { 1 } else { self.tree.limit().now() };
        while self.tree.fetching_now() < most && self.under_way.len() < UNDER_WAY {
            if self.taken.is_empty() && !self.take(now).await {
                return;
            }
            let Some(entry) = self.taken.pop_front() else { return };
            let task = retrieve::retrieve(Arc::clone(&self.tree), entry.clone(), self.tree.fetching());
            let id = self.retrievals.spawn(task).id();
            self.under_way.insert(id, entry);
        }
    }

    /// Takes a lot from the queue; false if there is nothing to do.
    async fn take(&mut self, now: Instant) -> bool {
        if !self.look || now < self.looked_at {
            return false;
        }
        match self.tree.store.take_queued(self.tree.tenant, LOT, self.tree.time.now()).await {
            Ok(lot) => {
                self.store_pace.succeeded();
                // Fewer than asked for: that was all.
                self.look = lot.len() == LOT;
                if lot.is_empty() {
                    // Deferred entries are compared by another clock than this task's sleep.
                    self.looked_at = now + Duration::from_millis(100);
                }
                self.taken.extend(lot);
                !self.taken.is_empty()
            }
            Err(error) => {
                self.store_failed(&error);
                false
            }
        }
    }

    fn store_failed(&mut self, error: &StoreError) {
        self.tree.troubled(Stage::Store, None, &error.trouble());
        self.hold_until = Some(Instant::now() + self.store_pace.failed(None));
    }

    async fn checked(&mut self, result: Result<BTreeMap<ContentType, Standing>, Failure>) {
        let now = Instant::now();
        let failure = match result {
            Ok(standings) => {
                self.check_pace.succeeded();
                if self.pause.attempts() > 0 {
                    self.pause.succeeded();
                    self.remember_pause(None).await;
                }
                let mut next = now + jittered(CHECK_EVERY, 0.05);
                for (content_type, standing) in standings {
                    self.schedule.set_ready(content_type, !matches!(standing, Standing::Missing(_)));
                    match standing {
                        Standing::Enabled => {}
                        Standing::Started => _ = self.awaited.insert(content_type),
                        Standing::Missing(until) => next = next.min(until.max(now + Duration::from_secs(1))),
                    }
                }
                self.check_due = Some(next);
                return;
            }
            Err(failure) => failure,
        };
        self.tree.failed(Stage::Subscribe, None, &failure);
        debug!(tenant = %self.tree.tenant, error = %failure.trouble().cause, "subscriptions not checked");
        self.check_due = Some(match (&failure, failure.advice()) {
            (Failure::Token(_), _) => {
                self.tokenless(now);
                now
            }
            (_, Advice::Retry { after }) => now + self.check_pace.failed(after),
            // The gate says when.
            (_, Advice::Throttled { .. }) => now,
            (_, Advice::RenewToken | Advice::RelistWindow | Advice::CheckSubscription | Advice::GiveUp) => {
                now + self.check_pace.failed(None)
            }
            (_, Advice::PauseTenant | Advice::PauseApp) => {
                let wait = self.pause.failed(None);
                self.paused_until = Some(now + wait);
                self.remember_pause(Some(wait)).await;
                now + wait
            }
        });
    }

    async fn remember_pause(&mut self, wait: Option<Duration>) {
        let until = wait.filter(|wait| *wait > REMEMBERED).map(|wait| later(self.tree.time.now(), wait));
        if let Err(error) = self.tree.store.remember_wait(self.tree.tenant, WaitKey::Paused, until).await {
            self.store_failed(&error);
        }
    }

    fn listed(&mut self, due: Due, result: Result<Listed, Setback>) {
        let Due { content_type, tier, .. } = due;
        let now = Instant::now();
        let setback = match result {
            Ok(listed) => {
                self.schedule.succeeded(content_type, tier, listed.whole, now);
                if listed.refused > 0 {
                    self.schedule.sweep_soon(content_type, now);
                }
                self.doubted.remove(&content_type);
                if listed.new + listed.known > 0 {
                    self.awaited.remove(&content_type);
                }
                if !self.listed_once {
                    self.listed_once = true;
                    self.tree.works(Stage::Restart, None);
                }
                if tier == Tier::Poll {
                    self.tell_token();
                }
                return;
            }
            Err(setback) => setback,
        };
        let Setback { failure, resume } = setback;
        debug!(tenant = %self.tree.tenant, %content_type, error = %failure.trouble().cause, "listing failed");
        if !matches!(failure, Failure::Stopping) {
            self.tree.failed(Stage::List, Some(content_type), &failure);
        }
        match (&failure, failure.advice()) {
            (Failure::Token(_), _) => {
                self.tokenless(now);
                self.schedule.put_off(content_type, tier, resume, now);
            }
            (_, Advice::Throttled { .. }) => self.schedule.put_off(content_type, tier, resume, now),
            (_, Advice::CheckSubscription) => {
                self.doubted.insert(content_type);
                self.schedule.set_ready(content_type, false);
                self.schedule.put_off(content_type, tier, resume, now);
                if let Some(due) = &mut self.check_due {
                    *due = (*due).min(now);
                }
            }
            (_, Advice::PauseTenant | Advice::PauseApp) => {
                self.schedule.block(content_type, now);
                self.schedule.put_off(content_type, tier, resume, now);
            }
            (_, Advice::Retry { after }) => {
                self.schedule.failed(content_type, tier, resume, after, now);
                if failure.is_refused_token() {
                    self.schedule.refused(content_type, tier);
                }
            }
            // The window is begun anew by the next activation, with the start that is right then.
            (_, Advice::RelistWindow | Advice::RenewToken | Advice::GiveUp) => {
                self.schedule.failed(content_type, tier, resume, None, now);
            }
        }
    }

    fn tokenless(&mut self, now: Instant) {
        self.tokenless_until = Some(now + TOKENLESS);
        self.tell_token();
    }

    async fn retrieved(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(entry) = self.under_way.remove(&id) else { return };
        let now = Instant::now();
        match outcome {
            Ok(Outcome::Done) => {
                self.strain.succeeded();
                self.store_pace.succeeded();
            }
            Ok(Outcome::Deferred) => {
                // Those that were under way together are one sign, not several.
                if self.tree.fetch_failed() >= STRAINED && self.hold_until.is_none() {
                    self.hold_until = Some(now + self.strain.failed(None));
                }
            }
            Ok(Outcome::Released(failure)) => {
                self.tree.store.release(self.tree.tenant, &entry);
                self.look = true;
                self.released(&failure, now);
            }
            Err(error) => {
                let panicked = retrieve::panicked(&self.tree, entry.clone(), &message(error)).await;
                if let Err(error) = panicked {
                    self.tree.store.release(self.tree.tenant, &entry);
                    self.store_failed(&error);
                }
            }
        }
    }

    /// A retrieval met trouble that is not its blob's.
    fn released(&mut self, failure: &Failure, now: Instant) {
        debug!(tenant = %self.tree.tenant, error = %failure.trouble().cause, "retrieval put off");
        match (failure, failure.advice()) {
            (Failure::Store(error), _) => self.store_failed(error),
            (Failure::Token(_), _) => {
                self.tree.failed(Stage::Retrieve, None, failure);
                self.tokenless(now);
            }
            // The gate says when.
            (Failure::Stopping, _) | (_, Advice::Throttled { .. }) => {}
            _ => {
                self.tree.failed(Stage::Retrieve, None, failure);
                self.hold_until = Some(now + self.strain.failed(None));
                if failure.advice() == Advice::CheckSubscription
                    && let Some(due) = &mut self.check_due
                {
                    *due = (*due).min(now);
                }
            }
        }
    }

    /// When the driver looks again if nothing happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let held = [self.tokenless_until, self.paused_until, self.tree.gate.closed_until()].into_iter().flatten().max();
        if let Some(until) = held {
            return until;
        }
        let deferred = self.tree.store.next_deferred(self.tree.tenant).map(|at| {
            let left = Duration::try_from(at.duration_since(self.tree.time.now())).unwrap_or_default();
            // A time that steps must not put it off for longer than this.
            (now + left.min(Duration::from_mins(10))).max(self.looked_at)
        });
        let looking = self.look.then_some(self.looked_at);
        let room = self.under_way.len() < UNDER_WAY && self.tree.fetching_now() == 0;
        // With retrievals under way, the end of one of them is what to wait for.
        let work = [deferred, looking].into_iter().flatten().min().filter(|_| room);
        let work = work.map(|work| self.hold_until.map_or(work, |until| until.max(work)));
        let held_lot = (!self.taken.is_empty()).then_some(self.hold_until).flatten();
        let wakes = [self.check_due, self.schedule.next_due(), work, held_lot];
        wakes.into_iter().flatten().min().unwrap_or(now + CHECK_EVERY)
    }

    /// Shows where the tenant stands.
    fn tell(&mut self) {
        let tree = &self.tree;
        let depth = tree.store.queue_depth(tree.tenant);
        tree.report.queue(depth);
        tree.report.state(self.state(depth));
    }

    fn state(&self, depth: crate::store::QueueDepth) -> TenantState {
        let now = Instant::now();
        let tree = &self.tree;
        let time = tree.time.now();
        if self.paused_until.is_some() {
            return TenantState::Paused;
        }
        if self.tokenless_until.is_some() {
            let person = tree.token.status().last_error.is_some_and(|trouble| trouble.needs_operator);
            return if person { TenantState::Paused } else { TenantState::Failing };
        }
        if tree.gate.closed_until().is_some() {
            return TenantState::Throttled;
        }
        if !self.listed_once && self.check_due.is_none() {
            return TenantState::Starting;
        }
        if self.schedule.is_idle_by_refusal(now) {
            return if tree.has_trouble(Stage::Subscribe) || tree.has_trouble(Stage::List) {
                TenantState::Paused
            } else {
                TenantState::Starting
            };
        }
        if self.schedule.is_failing() || tree.has_trouble(Stage::Store) {
            return TenantState::Failing;
        }
        if !self.listed_once {
            return TenantState::Starting;
        }
        let waits_long = depth.oldest.is_some_and(|oldest| time.duration_since(oldest) > BACKLOG.1);
        let is_behind = tree
            .content_types
            .iter()
            .any(|content_type| tree.mark(*content_type).listed_to.is_some_and(|to| time.duration_since(to) > BEHIND));
        if depth.entries > BACKLOG.0 || waits_long || is_behind {
            return TenantState::CatchingUp;
        }
        if self.awaited.len() == tree.content_types.len() {
            return TenantState::Waiting;
        }
        TenantState::Collecting
    }

    fn tell_token(&self) {
        let tree = &self.tree;
        let status = tree.token.status();
        tree.report.token(status.valid_until);
        match status.last_error {
            Some(trouble) => tree.troubled(Stage::Token, None, &trouble),
            None => tree.works(Stage::Token, None),
        }
    }

    fn release_taken(&mut self) {
        for entry in self.taken.drain(..) {
            self.tree.store.release(self.tree.tenant, &entry);
        }
    }
}

impl Drop for Driver {
    /// Whatever ended the run: what it had taken may be taken again.
    fn drop(&mut self) {
        self.release_taken();
        for entry in self.under_way.values() {
            self.tree.store.release(self.tree.tenant, entry);
        }
    }
}

/// What a task that did not end well says.
fn message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => super::supervisor::panic_text(payload.as_ref()),
        Err(error) => error.to_string(),
    }
}
