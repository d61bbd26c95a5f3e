//! The one long-lived future of a tenant's tree: sleeps until something is due, and spawns short tasks for it.
//!
//! An idle tenant costs one timer and, per poll and content type, one short task. The driver decides nothing about
//! windows, waits or errors by itself: [`schedule`](super::schedule) says what is due, the tasks say what came of it.
//!
//! **Invariant:** a panic of a listing or of the driver ends this run of the tree and nothing else.

mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::backlog::{self, Backlog, Word};
use super::failure::{Failure, ODD_ANSWERS, Reaction};
use super::plan;
use super::poll::{self, Listed, Setback};
use super::schedule::{Due, Schedule};
use super::subscription::{self, Standing};
use super::tree::Tree;
use crate::content::{ContentType, Tier};
use crate::report::{TenantState, Trouble};
use crate::retry::{Backoff, REMEMBERED, Stage, jittered};
use crate::store::{QueueDepth, StoreError, WaitKey};

/// The driver looks around this often, whatever happens.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// Without a token nothing is tried for this long, unless the renewal brings one.
const TOKENLESS: Duration = Duration::from_mins(1);
/// A tenant with this many blobs to retrieve, or one that has waited for this long, is catching up.
const BACKLOG: (u64, SignedDuration) = (200, SignedDuration::from_mins(30));
/// Content that was last listed so long ago is not up to date.
const BEHIND: SignedDuration = SignedDuration::from_mins(30);

/// A pause outlives a restart, for this long at most: whoever restarts may just have mended its cause.
const LONGEST_PAUSE_KEPT: Duration = Duration::from_mins(5);
/// The report is brought up to date this often at most: hundreds of blobs a second need it no oftener.
const TELL_EVERY: Duration = Duration::from_millis(50);

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
    backlog: Backlog,
    /// No request before this moment, for want of a token.
    tokenless_until: Option<Instant>,
    /// `None` while a check of the subscriptions is under way.
    check_due: Option<Instant>,
    check_pace: Backoff,
    doubted: BTreeSet<ContentType>,
    /// Subscriptions started in this run whose first content has not been listed yet.
    awaited: BTreeSet<ContentType>,
    /// What is being listed again because time has stepped back behind this mark: once for each mark.
    stepped_back: BTreeMap<ContentType, Option<Timestamp>>,
    paused_until: Option<Instant>,
    pause: Backoff,
    listed_once: bool,
    /// When the report was last brought up to date,
    told: Instant,
    /// and whether something has happened since.
    untold: bool,
}

/// The run ended by a panic with this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

/// Runs the tree until it is stopped, or panics.
pub(super) async fn drive(tree: Arc<Tree>) -> Result<(), Panicked> {
    let mut pace = Backoff::new(Stage::Store);
    let paused = loop {
        match tree.restore().await {
            Ok(paused) => break paused,
            Err(error) => tree.troubled(Stage::Store, None, &error.trouble()),
        }
        tokio::select! {
            () = tree.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pace.failed(None)) => {}
        }
    };
    tree.works(Stage::Store, None);
    let mut driver = Driver::new(Arc::clone(&tree));
    // Who starts a run that ends wants it to be looked at now.
    if let Some(wait) = paused.filter(|_| !tree.course.ends()) {
        driver.pause_again(wait);
    }
    let ended = driver.run().await;
    tree.set_wake(None);
    ended
}

impl Driver {
    fn new(tree: Arc<Tree>) -> Self {
        let now = Instant::now();
        let marks = tree.content_types.iter().map(|content_type| (*content_type, tree.mark(*content_type)));
        let (assignment, time) = (tree.course.assignment, tree.time.now());
        let mut schedule = Schedule::new(tree.tenant, marks, tree.collect, assignment, (now, time));
        if tree.has_letters() {
            // What was given up for a setting may be collected with this one.
            tree.content_types.iter().for_each(|content_type| schedule.sweep_soon(*content_type, now));
        }
        Self {
            schedule,
            chores: JoinSet::new(),
            backlog: Backlog::new(Arc::clone(&tree)),
            tokenless_until: None,
            check_due: (!tree.course.is_idle()).then_some(now),
            // Looking costs nothing; starting has its own cool-down.
            check_pace: Backoff::new(Stage::List),
            doubted: BTreeSet::new(),
            awaited: BTreeSet::new(),
            stepped_back: BTreeMap::new(),
            paused_until: None,
            pause: Backoff::new(Stage::Paused),
            listed_once: false,
            told: now.checked_sub(TELL_EVERY).unwrap_or(now),
            untold: true,
            tree,
        }
    }

    async fn run(mut self) -> Result<(), Panicked> {
        let tree = Arc::clone(&self.tree);
        let mut tokens = tree.token.changes();
        let mut token_waits = tree.token.waits();
        if !tree.course.is_idle() {
            let tree = Arc::clone(&tree);
            self.chores.spawn(async move { tree.token.renew().await });
        }
        loop {
            tree.waits.forget_over().await;
            self.begin_chores();
            if !tree.course.is_idle() && !self.is_held(Instant::now()) {
                self.backlog.begin().await;
            }
            self.tell();
            self.tell_headway();
            let wake = self.next_wake();
            tree.set_wake(Some(wake));
            tokio::select! {
                () = tree.stop.cancelled() => break,
                Some(done) = self.chores.join_next() => match done {
                    Ok(Chore::Checked(result)) => self.checked(result).await,
                    Ok(Chore::Listed(due, result)) => self.listed(due, result),
                    Err(error) => return Err(Panicked(backlog::message(error))),
                },
                Some(ended) = self.backlog.next() => {
                    if let Some((content_type, word)) = self.backlog.settle(ended).await {
                        self.heard(content_type, &word);
                    }
                }
                () = tree.work.notified() => {}
                _ = tokens.changed() => {
                    // What was refused with the token before is tried again with this one.
                    self.tokenless_until = None;
                    self.backlog.resume();
                    self.schedule.retry_refused(Instant::now());
                    tree.works(Stage::Token, None);
                    self.tree.tell_token();
                }
                // The source lives as long as the tree.
                _ = token_waits.changed() => {
                    // Also while the token before is good, or is refused: nobody else tells why there is no other one.
                    self.tree.tell_token();
                    let until = *token_waits.borrow_and_update();
                    self.remember_token_wait(until).await;
                }
                () = sleep_until(wake) => {}
            }
        }
        // The cool-down after a start request counts whether or not its answer is heard: one that was sent is heard, or else
        // the next process would not know that the subscription is started.
        while self.check_due.is_none() && !tree.course.is_idle() {
            match self.chores.join_next().await {
                Some(Ok(Chore::Listed(..))) => {}
                Some(Ok(Chore::Checked(_)) | Err(_)) | None => break,
            }
        }
        // What is being listed will be listed again; what is being received is finished, if it comes in time.
        self.chores.shutdown().await;
        self.backlog.finish().await;
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
        if !plan::stepped_back(&mark, time) {
            self.stepped_back.remove(&content_type);
        // The mark moves when answers justify that; until then, once is enough.
        } else if self.stepped_back.insert(content_type, mark.listed_to) != Some(mark.listed_to) {
            debug!(tenant = %self.tree.tenant, %content_type, ?mark, %time, "time has stepped back: listing all again");
            // What the host's clock says before any answer is no correction.
            if let (Some(now), Some(stood)) = (self.tree.time.confirmed(), mark.listed_to) {
                self.tree.interruptions.stepped_back(content_type, now, stood);
            }
            self.tree.set_mark(content_type, |mark| (mark.recent_at, mark.sweep_at) = (None, None));
            self.schedule.list_all_again(content_type, now);
        }
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
                let mut next = now + jittered(self.tree.check_every(), 0.05);
                for (content_type, standing) in standings {
                    match standing {
                        Standing::Enabled => self.schedule.set_ready(content_type, true),
                        Standing::Started => {
                            self.schedule.set_ready(content_type, true);
                            self.awaited.insert(content_type);
                            // Without its webhook, which may be asked for as soon as another start may.
                            if self.tree.webhook.is_some() {
                                next = next.min(now + self.tree.start_cooldown() + Duration::from_secs(1));
                            }
                        }
                        // It is listed all the same.
                        Standing::Unhooked(until) => {
                            self.schedule.set_ready(content_type, true);
                            next = next.min(until.max(now + Duration::from_secs(1)));
                        }
                        // The list may lack what can be listed: only a listing that is refused says that it cannot be.
                        Standing::Missing(until) => next = next.min(until.max(now + Duration::from_secs(1))),
                    }
                }
                self.check_due = Some(next);
                return;
            }
            Err(failure) => failure,
        };
        debug!(tenant = %self.tree.tenant, error = %failure.trouble().cause, "subscriptions not checked");
        let reaction = failure.reaction();
        let soon = matches!(reaction, Reaction::Pause { odd: true }) && self.check_pace.attempts() < ODD_ANSWERS;
        if !soon {
            self.tree.failed(Stage::Subscribe, None, &failure);
        }
        self.check_due = Some(match reaction {
            Reaction::AwaitToken => {
                self.tokenless(now);
                now
            }
            Reaction::Again { after } => now + self.check_pace.failed(after),
            // The gate says when.
            Reaction::AwaitGate => now,
            Reaction::Pause { .. } if !soon => {
                let wait = self.pause.failed(None);
                self.paused_until = Some(now + wait);
                self.remember_pause(Some(wait)).await;
                now + wait
            }
            Reaction::Stop
            | Reaction::Pause { .. }
            | Reaction::AwaitStore
            | Reaction::AwaitOtherToken
            | Reaction::Relist
            | Reaction::CheckSubscription
            | Reaction::Gone { .. }
            | Reaction::TooLarge
            | Reaction::Readdress => now + self.check_pace.failed(None),
        });
    }

    /// The tenant was paused when the process ended. What for is found out by the next look at it.
    fn pause_again(&mut self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE_KEPT);
        let trouble = Trouble::passing(
            "paused",
            "the tenant was paused before the restart, and is looked at again in some minutes",
        );
        self.tree.troubled(Stage::Subscribe, None, &trouble);
        self.pause.failed(None);
        self.paused_until = Some(until);
        self.check_due = Some(until);
    }

    async fn remember_pause(&mut self, wait: Option<Duration>) {
        let waits = &self.tree.waits;
        let remembered = match wait.filter(|wait| *wait > REMEMBERED) {
            Some(wait) => waits.remember(WaitKey::Paused, wait).await,
            None => waits.forget(WaitKey::Paused).await,
        };
        self.tell_store(remembered);
    }

    /// Entra has asked for a wait.
    async fn remember_token_wait(&self, until: Option<Instant>) {
        let waits = &self.tree.waits;
        // Who runs this once more wants to know whether what was wrong still is.
        let until = until.map(|until| if self.tree.course.ends() { self.tree.token.earliest() } else { until });
        let remembered = match until {
            Some(until) => waits.remember(WaitKey::Token, until.saturating_duration_since(Instant::now())).await,
            None => waits.forget(WaitKey::Token).await,
        };
        self.tell_store(remembered);
    }

    fn tell_store(&self, done: Result<(), StoreError>) {
        if let Err(error) = done {
            self.tree.troubled(Stage::Store, None, &error.trouble());
        }
    }

    fn listed(&mut self, due: Due, result: Result<Listed, Setback>) {
        let Due { content_type, tier, .. } = due;
        let now = Instant::now();
        let setback = match result {
            Ok(listed) => {
                if listed.astray && tier != Tier::Poll {
                    self.schedule.failed(content_type, tier, None, None, now);
                } else {
                    self.schedule.succeeded(content_type, tier, listed.whole, now);
                }
                if listed.refused > 0 {
                    self.schedule.sweep_soon(content_type, now);
                }
                self.tree.course.refused(content_type, listed.refused);
                self.doubted.remove(&content_type);
                if listed.new + listed.known > 0 {
                    self.awaited.remove(&content_type);
                }
                if !self.listed_once {
                    self.listed_once = true;
                    self.tree.works(Stage::Restart, None);
                }
                if tier == Tier::Poll {
                    self.tree.tell_token();
                }
                return;
            }
            Err(setback) => setback,
        };
        let Setback { failure, resume } = setback;
        debug!(tenant = %self.tree.tenant, %content_type, error = %failure.trouble().cause, "listing failed");
        self.tree.failed(Stage::List, Some(content_type), &failure);
        match failure.reaction() {
            Reaction::AwaitToken => {
                self.tokenless(now);
                self.schedule.put_off(content_type, tier, resume, now);
            }
            Reaction::Stop | Reaction::AwaitGate => self.schedule.put_off(content_type, tier, resume, now),
            Reaction::CheckSubscription => {
                self.schedule.put_off(content_type, tier, resume, now);
                self.doubt(content_type, now);
            }
            Reaction::Pause { .. } => {
                self.schedule.block(content_type, now);
                self.schedule.put_off(content_type, tier, resume, now);
            }
            Reaction::Again { after } => self.schedule.failed(content_type, tier, resume, after, now),
            Reaction::AwaitOtherToken => {
                self.schedule.failed(content_type, tier, resume, None, now);
                self.schedule.refused(content_type, tier);
            }
            // The window is begun anew by the next activation, with the start that is right then.
            Reaction::AwaitStore
            | Reaction::Relist
            | Reaction::Gone { .. }
            | Reaction::TooLarge
            | Reaction::Readdress => self.schedule.failed(content_type, tier, resume, None, now),
        }
    }

    fn tokenless(&mut self, now: Instant) {
        self.tokenless_until = Some(now + TOKENLESS);
        self.tree.tell_token();
    }

    /// A retrieval says something of more than its blob.
    fn heard(&mut self, content_type: ContentType, word: &Word) {
        let now = Instant::now();
        match word {
            Word::Trouble(failure) => {
                self.tree.failed(Stage::Retrieve, Some(content_type), failure);
                if failure.reaction() == Reaction::AwaitToken {
                    self.tokenless(now);
                }
            }
            Word::Stale => self.schedule.sweep_soon(content_type, now),
        }
    }

    /// The service says that the subscription is missing or disabled, whatever it said before.
    fn doubt(&mut self, content_type: ContentType, now: Instant) {
        self.doubted.insert(content_type);
        self.schedule.set_ready(content_type, false);
        if let Some(due) = &mut self.check_due {
            *due = (*due).min(now);
        }
    }

    /// When the driver looks again if nothing happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let held = [self.tokenless_until, self.paused_until, self.tree.gate.closed_until()].into_iter().flatten().max();
        let telling = self.untold.then_some(self.told + TELL_EVERY);
        if let Some(until) = held {
            return telling.map_or(until, |telling| telling.min(until));
        }
        let queued = if self.tree.course.is_idle() { None } else { self.backlog.next_wake() };
        let wakes = [self.check_due, self.schedule.next_due(), queued, telling];
        wakes.into_iter().flatten().min().unwrap_or(now + LOOK_EVERY)
    }

    /// Shows where the tenant stands, unless that was done a moment ago.
    fn tell(&mut self) {
        let now = Instant::now();
        self.untold = now < self.told + TELL_EVERY;
        if self.untold {
            return;
        }
        self.told = now;
        let tree = &self.tree;
        let depth = tree.store.queue_depth(tree.tenant);
        tree.report.queue(depth);
        tree.report.state(self.state(depth));
    }

    fn state(&self, depth: QueueDepth) -> TenantState {
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
        if self.schedule.is_idle_by_refusal(now) {
            return if tree.report.has_trouble(Stage::Subscribe) || tree.report.has_trouble(Stage::List) {
                TenantState::Paused
            } else {
                TenantState::Starting
            };
        }
        if self.schedule.is_failing() || tree.report.has_trouble(Stage::Store) {
            return TenantState::Failing;
        }
        let waits_long = depth.oldest.is_some_and(|oldest| time.duration_since(oldest) > BACKLOG.1);
        let is_behind = tree
            .content_types
            .iter()
            .any(|content_type| tree.mark(*content_type).listed_to.is_some_and(|to| time.duration_since(to) > BEHIND));
        if depth.entries > BACKLOG.0 || waits_long {
            return TenantState::CatchingUp;
        }
        if self.schedule.is_fresh() {
            return TenantState::Starting;
        }
        if is_behind {
            return TenantState::CatchingUp;
        }
        if self.awaited.len() == tree.content_types.len() {
            return TenantState::Waiting;
        }
        TenantState::Collecting
    }
}
