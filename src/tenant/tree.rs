//! What all tasks of one tenant's tree share, and the one way in which they speak to the management API.
//!
//! [`Tree::ask`] wraps every request: a valid token, an open gate, then the request; a refused token is renewed once,
//! a wait that was read closes the gate before anything else happens.
//!
//! **Invariants:** no request leaves without passing the gate at the last moment; nothing here belongs to two tenants
//! except the store, the process's slots and the clock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::failure::Failure;
use super::gate::Gate;
use super::limit::Limit;
use super::slots::{Place, Slots};
use crate::activity::{ActivityClient, ActivityError, Reason};
use crate::clock::ServiceTime;
use crate::config::Collect;
use crate::content::{ContentType, TenantId};
use crate::report::{TenantReport, Trouble};
use crate::retry::{Advice, Backoff, REMEMBERED, Stage};
use crate::store::{Store, StoreError, WaitKey, Watermark};
use crate::token::{AccessToken, TokenSource};

/// A wait is remembered for this much longer, so that others that end a moment later need not be written down.
const SPARE: Duration = Duration::from_millis(500);

/// A driver that is so late hangs: what it does itself between two waits is a matter of milliseconds.
const STALLED: Duration = Duration::from_mins(1);

/// One tenant's tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) tenant: TenantId,
    pub(super) content_types: BTreeSet<ContentType>,
    pub(super) collect: Collect,
    pub(super) client: ActivityClient,
    pub(super) token: TokenSource,
    pub(super) store: Store,
    pub(super) time: Arc<ServiceTime>,
    pub(super) report: TenantReport,
    pub(super) gate: Gate,
    pub(super) slots: Slots,
    /// Its settings were changed: what it was paused for may be mended.
    mended: bool,
    /// Cancelled when the tree is to end.
    pub(super) stop: CancellationToken,
    /// Something may be retrieved: new entries in the queue, or room for one more retrieval.
    pub(super) work: Notify,
    /// The queue has entries that were not there when it was last found empty.
    queued: AtomicBool,
    limit: Mutex<Limit>,
    fetching: AtomicUsize,
    /// Retrievals that failed since a body last came whole.
    failures: AtomicUsize,
    /// Records of other tenants among the stored ones.
    foreign: AtomicU64,
    /// How long the service throttles, if it does not say.
    throttled: Mutex<Backoff>,
    /// Until when the store knows the gate to be closed.
    remembered: tokio::sync::Mutex<Option<Instant>>,
    marks: Mutex<BTreeMap<ContentType, Watermark>>,
    cooldowns: Mutex<BTreeMap<ContentType, Instant>>,
    troubled: Mutex<HashSet<(Stage, Option<ContentType>)>>,
    /// Entries that are listed wrongly may be on record.
    refused: AtomicBool,
    /// When its driver will look around, whatever happens; `None` while it has none.
    wakes: Mutex<Option<Instant>>,
}

/// What a tree is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tenant: TenantId,
    pub(super) content_types: BTreeSet<ContentType>,
    pub(super) collect: Collect,
    pub(super) client: ActivityClient,
    pub(super) token: TokenSource,
    pub(super) store: Store,
    pub(super) time: Arc<ServiceTime>,
    pub(super) report: TenantReport,
    pub(super) slots: Slots,
    pub(super) mended: bool,
}

impl Tree {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { tenant, content_types, collect, client, token, store, time, report, slots, mended } = parts;
        Arc::new(Self {
            limit: Mutex::new(Limit::new(collect.concurrency_per_tenant)),
            tenant,
            content_types,
            collect,
            client,
            token,
            store,
            time,
            report,
            slots,
            mended,
            stop: CancellationToken::new(),
            gate: Gate::default(),
            wakes: Mutex::default(),
            work: Notify::new(),
            queued: AtomicBool::new(true),
            fetching: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            foreign: AtomicU64::new(0),
            throttled: Mutex::new(Backoff::new(Stage::List)),
            remembered: tokio::sync::Mutex::default(),
            marks: Mutex::default(),
            cooldowns: Mutex::default(),
            troubled: Mutex::default(),
            refused: AtomicBool::new(false),
        })
    }

    /// The driver will look around at `moment`, or it has ended.
    pub(super) fn set_wake(&self, moment: Option<Instant>) {
        *self.wakes.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// Whether the driver should have looked around long before `now`, and has not.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let wakes = *self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        wakes.is_some_and(|moment| now.saturating_duration_since(moment) > STALLED)
    }

    /// Reads what outlived the last process or the last run of the tree. Answers how long the tenant is paused yet.
    pub(super) async fn restore(&self) -> Result<Option<Duration>, StoreError> {
        *lock(&self.marks) = self.store.watermarks(self.tenant).await?;
        let letters = self.store.dead_letters(self.tenant).await?;
        self.report.dead_letters(letters);
        self.refused.store(letters > 0, Ordering::Relaxed);
        let now = self.time.host();
        let mut paused = None;
        for (key, until) in self.store.waits(self.tenant).await? {
            let Ok(left) = Duration::try_from(until.duration_since(now)) else { continue };
            match key {
                WaitKey::Throttled => self.gate.close_for(left),
                WaitKey::SubscriptionStart(content_type) => self.cool_down(content_type, left),
                WaitKey::Paused => paused = Some(left),
                WaitKey::Token => self.token.hold(left),
            }
        }
        Ok(paused.filter(|left| !left.is_zero()).filter(|_| !self.mended))
    }

    /// Sends one request of the tenant: with its token, through its gate. A refused token is replaced once, if that
    /// may be done now.
    pub(super) async fn ask<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        self.ask_holding(None, request).await
    }

    /// The same with a slot, which is held from before the request is sent and given back while nothing comes.
    pub(super) async fn ask_holding<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        mut place: Option<&mut Place>,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        let mut refused: Option<AccessToken> = None;
        loop {
            let token = self.unless_stopped(self.token.token()).await?.map_err(Failure::Token)?;
            if self.gate.closed_until().is_some() {
                // Whoever waits here holds no slot.
                if let Some(place) = &mut place {
                    place.give_back();
                }
                self.unless_stopped(self.gate.open()).await?;
                // The token may have ended meanwhile.
                continue;
            }
            let answer = match &mut place {
                Some(place) => {
                    if !place.is_taken() {
                        self.unless_stopped(place.take()).await?;
                        continue;
                    }
                    place.during(request(token.clone())).await
                }
                None => request(token.clone()).await,
            };
            let error = match answer {
                Ok(answer) => {
                    lock(&self.throttled).succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.obey_wait(&error).await;
            match (error.advice(), refused) {
                (Advice::RenewToken, None) => {
                    debug!(tenant = %self.tenant, error = %error, "token refused");
                    if self.token.refused(&token).await {
                        return Err(Failure::Refused(Box::new(error)));
                    }
                    let next = self.token.token().await.map_err(Failure::Token)?;
                    if next.generation() == token.generation() {
                        // Too early for a new one; the pace of whoever asked brings us back.
                        return Err(Failure::Service(Box::new(error)));
                    }
                    refused = Some(token);
                }
                (Advice::RenewToken, Some(_)) => {
                    self.token.refused(&token).await;
                    return Err(Failure::Refused(Box::new(error)));
                }
                _ => return Err(Failure::Service(Box::new(error))),
            }
        }
    }

    /// Waits for something that comes before a request; what is sent already is not broken off.
    async fn unless_stopped<T>(&self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Failure::Stopping),
            waited = wait => Ok(waited),
        }
    }

    /// Closes the gate for a wait that an answer asked for, and remembers a long one.
    async fn obey_wait(&self, error: &ActivityError) {
        if matches!(error.advice(), Advice::Throttled { .. }) {
            self.report.throttled();
        }
        let wait = match error.advice() {
            // Requests that were under way together are answered by the same throttling.
            Advice::Throttled { after } if self.gate.closed_until().is_some() => after,
            Advice::Throttled { after } => {
                let mut limit = self.limit();
                let sent = limit.sent();
                if limit.throttled(sent) {
                    self.report.concurrency(limit.now());
                }
                Some(lock(&self.throttled).failed(after))
            }
            // The cool-down between two start requests holds for these only.
            _ if error.refusal().is_some_and(|refusal| refusal.reason == Reason::StartCooldown) => None,
            _ => error.wait().filter(|wait| !wait.is_zero()),
        };
        let Some(wait) = wait else { return };
        self.gate.close_for(wait);
        // The driver sleeps by the gate.
        self.work.notify_one();
        debug!(tenant = %self.tenant, seconds = wait.as_secs_f64(), "the service asked for a wait");
        if wait > REMEMBERED || !matches!(error.advice(), Advice::Throttled { after: None }) {
            self.remember_gate().await;
        }
    }

    /// Writes down until when the gate is closed, unless the store knows. Requests that were under way together are told
    /// to wait together: one of them writes for all, and the others go on when it has.
    async fn remember_gate(&self) {
        let mut remembered = self.remembered.lock().await;
        let Some(until) = self.gate.closed_until().filter(|until| remembered.is_none_or(|known| known < *until)) else {
            return;
        };
        let wait = until.saturating_duration_since(Instant::now()) + SPARE;
        match self.remember(WaitKey::Throttled, Some(wait)).await {
            Ok(()) => *remembered = Some(until + SPARE),
            // The gate is closed all the same; only a restart would not know of it.
            Err(error) => debug!(tenant = %self.tenant, %error, "wait not remembered"),
        }
    }

    /// Remembers a wait from now on, for the next process too; `None` forgets it. By the host's clock, since that is the
    /// one that the next process has when it starts.
    pub(super) async fn remember(&self, key: WaitKey, wait: Option<Duration>) -> Result<(), StoreError> {
        let until = wait.map(|wait| later(self.time.host(), wait));
        self.store.remember_wait(self.tenant, key, until).await
    }

    /// New entries are in the queue.
    pub(super) fn queued(&self) {
        self.queued.store(true, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Whether there may be entries that the last look did not see.
    pub(super) fn take_queued_sign(&self) -> bool {
        self.queued.swap(false, Ordering::Relaxed)
    }

    /// An entry is listed wrongly.
    pub(super) fn note_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether entries that are listed wrongly may be on record: of most tenants never, and looking is spared.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The limit on retrievals.
    pub(super) fn limit(&self) -> MutexGuard<'_, Limit> {
        lock(&self.limit)
    }

    /// Marks the part of a retrieval in which the service sends.
    pub(super) fn fetching(self: &Arc<Self>) -> Fetching {
        self.fetching.fetch_add(1, Ordering::Relaxed);
        Fetching(Arc::clone(self))
    }

    /// How many retrievals are in that part.
    pub(super) fn fetching_now(&self) -> usize {
        self.fetching.load(Ordering::Relaxed)
    }

    /// A body came whole. Counted here and not when it is durable: failures are known sooner than that.
    pub(super) fn fetched(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A retrieval failed: how many did since a body last came whole.
    pub(super) fn fetch_failed(&self) -> usize {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts records of other tenants: how many there were before, and how many there are now.
    pub(super) fn count_foreign(&self, records: u32) -> (u64, u64) {
        let before = self.foreign.fetch_add(u64::from(records), Ordering::Relaxed);
        (before, before + u64::from(records))
    }

    pub(super) fn mark(&self, content_type: ContentType) -> Watermark {
        lock(&self.marks).get(&content_type).copied().unwrap_or_default()
    }

    /// Changes a watermark. The tiers of a content type change different parts of it at the same time.
    pub(super) fn set_mark(&self, content_type: ContentType, change: impl FnOnce(&mut Watermark)) {
        let mut marks = lock(&self.marks);
        let mark = marks.entry(content_type).or_default();
        change(mark);
        self.store.set_watermark(self.tenant, content_type, *mark);
    }

    /// No start request for this content type for so long.
    pub(super) fn cool_down(&self, content_type: ContentType, wait: Duration) {
        // A time that stepped since the wait was remembered cannot make it longer than Microsoft's own.
        let until = Instant::now() + wait.min(super::subscription::LONGEST_COOLDOWN);
        let mut cooldowns = lock(&self.cooldowns);
        let cooldown = cooldowns.entry(content_type).or_insert(until);
        *cooldown = until.max(*cooldown);
    }

    pub(super) fn end_cool_down(&self, content_type: ContentType) {
        lock(&self.cooldowns).remove(&content_type);
    }

    pub(super) fn cooling_until(&self, content_type: ContentType) -> Option<Instant> {
        lock(&self.cooldowns).get(&content_type).copied().filter(|until| *until > Instant::now())
    }

    /// A stage met a failure, with one content type or with all.
    pub(super) fn failed(&self, stage: Stage, content_type: Option<ContentType>, failure: &Failure) {
        let own = failure.stage(stage);
        // A missing token and a failing store are trouble for all content types.
        self.troubled(own, content_type.filter(|_| own == stage), &failure.trouble());
    }

    pub(super) fn troubled(&self, stage: Stage, content_type: Option<ContentType>, trouble: &Trouble) {
        lock(&self.troubled).insert((stage, content_type));
        self.report.trouble(stage, Some(trouble));
    }

    /// A stage works. Its trouble is over when it works for all content types.
    pub(super) fn works(&self, stage: Stage, content_type: Option<ContentType>) {
        let over = {
            let mut troubled = lock(&self.troubled);
            troubled.remove(&(stage, content_type));
            !troubled.iter().any(|(other, _)| *other == stage)
        };
        if over {
            self.report.trouble(stage, None);
        }
    }

    pub(super) fn has_trouble(&self, stage: Stage) -> bool {
        lock(&self.troubled).iter().any(|(other, _)| *other == stage)
    }
}

/// Held while the service sends; its end makes room for the next retrieval.
#[derive(Debug)]
pub(super) struct Fetching(Arc<Tree>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.fetch_sub(1, Ordering::Relaxed);
        self.0.work.notify_one();
    }
}

/// `time` plus `by`, or the end of time.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
