//! What all tasks of one tenant's tree share, and the one way in which they speak to the management API.
//!
//! [`Tree::ask`] wraps every request: a valid token, an open gate, then the request; a refused token is renewed once,
//! a wait that was read closes the gate before anything else happens.
//!
//! **Invariants:** no request leaves without passing the gate at the last moment; nothing here belongs to two tenants
//! except the store, the process's slots and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::course::Course;
use super::failure::Failure;
use super::gaps::Interruptions;
use super::gate::Gate;
use super::hook::Shown;
use super::limit::{Limit, Sent};
use super::slots::{Place, Slots};
use super::strikes::Strikes;
use super::waits::Waits;
use crate::activity::{ActivityClient, ActivityError, Reason, Webhook};
use crate::clock::ServiceTime;
use crate::config::{Collect, Dlp};
use crate::content::{ContentType, TenantId};
use crate::report::{TenantReport, Trouble};
use crate::retry::{Advice, Backoff, REMEMBERED, Stage};
use crate::store::{Store, StoreError, WaitKey, Watermark};
use crate::token::{AccessToken, TokenSource};

/// A driver that is so late hangs: what it does itself between two waits is a matter of milliseconds.
const STALLED: Duration = Duration::from_mins(1);

/// How often the subscriptions are looked at.
const CHECK_EVERY: Duration = Duration::from_hours(1);
/// Microsoft's wait between two start requests of a content type, and half a minute for clocks that differ.
pub(super) const COOLDOWN: Duration = Duration::from_secs(15 * 60 + 30);

/// One tenant's tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) tenant: TenantId,
    pub(super) content_types: BTreeSet<ContentType>,
    pub(super) collect: Collect,
    /// What its subscriptions are to notify, if anything.
    pub(super) webhook: Option<Webhook>,
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
    /// The names of sensitive information types that are wanted, if any are.
    pub(super) dlp: Option<Dlp>,
    /// Content of `DLP.All` has been stored.
    pub(super) dlp_stored: Notify,
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
    /// How many failures of the token's source have been told.
    token_failures: AtomicU64,
    /// How long the service throttles, if it does not say.
    throttled: Mutex<Backoff>,
    /// The waits that the next process knows of too.
    pub(super) waits: Arc<Waits>,
    /// How the service shows the auth ids of our webhooks.
    shown: Mutex<BTreeMap<ContentType, Shown>>,
    /// For what a new token did not bring the missing role.
    roleless: Mutex<BTreeSet<Option<ContentType>>>,
    marks: Mutex<BTreeMap<ContentType, Watermark>>,
    /// When nobody listed, and why.
    pub(super) interruptions: Interruptions,
    /// Dead letters may be on record.
    letters: AtomicBool,
    /// What single blobs have been answered.
    strikes: Mutex<Strikes>,
    /// When its driver will look around, whatever happens; `None` while it has none.
    wakes: Mutex<Option<Instant>>,
    /// What it is to do, and how far it has come.
    pub(super) course: Arc<Course>,
}

/// What a tree is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tenant: TenantId,
    pub(super) content_types: BTreeSet<ContentType>,
    pub(super) collect: Collect,
    pub(super) webhook: Option<Webhook>,
    pub(super) dlp: Option<Dlp>,
    pub(super) client: ActivityClient,
    pub(super) token: TokenSource,
    pub(super) store: Store,
    pub(super) time: Arc<ServiceTime>,
    pub(super) report: TenantReport,
    pub(super) slots: Slots,
    pub(super) mended: bool,
    pub(super) course: Arc<Course>,
}

impl Tree {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { tenant, content_types, collect, webhook, dlp, client, token, store, time, .. } = parts;
        let Parts { report, slots, mended, course, .. } = parts;
        let gate = Gate::default();
        let at_once = gate.clone();
        let client = client.telling(move |wait| at_once.close_for(wait));
        Arc::new(Self {
            limit: Mutex::new(Limit::new(collect.concurrency_per_tenant)),
            waits: Arc::new(Waits::new(tenant, store.clone(), Arc::clone(&time))),
            course,
            tenant,
            content_types,
            collect,
            webhook,
            dlp,
            dlp_stored: Notify::new(),
            client,
            token,
            store,
            time,
            report,
            slots,
            mended,
            stop: CancellationToken::new(),
            gate,
            wakes: Mutex::default(),
            work: Notify::new(),
            queued: AtomicBool::new(true),
            fetching: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            foreign: AtomicU64::new(0),
            token_failures: AtomicU64::new(u64::MAX),
            throttled: Mutex::new(Backoff::new(Stage::List)),
            marks: Mutex::default(),
            shown: Mutex::default(),
            interruptions: Interruptions::default(),
            roleless: Mutex::default(),
            letters: AtomicBool::new(false),
            strikes: Mutex::default(),
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
        self.interruptions.restore(self).await?;
        let letters = self.store.dead_letters(self.tenant).await?;
        self.report.dead_letters(letters);
        self.letters.store(letters > 0, Ordering::Relaxed);
        let waits = self.restore_waits().await?;
        Ok(waits.get(&WaitKey::Paused).copied().filter(|_| !self.mended))
    }

    /// Heeds the waits that outlived the last process. Answers how long each lasts yet.
    pub(super) async fn restore_waits(&self) -> Result<BTreeMap<WaitKey, Duration>, StoreError> {
        let waits = self.waits.restore().await?;
        for (key, left) in &waits {
            match key {
                WaitKey::Throttled => self.gate.close_for(*left),
                WaitKey::Token => self.token.hold(*left),
                // The former are looked up when a subscription is to be started.
                // That of Graph is read by whoever asks it.
                WaitKey::SubscriptionStart(_) | WaitKey::Paused | WaitKey::Health => {}
            }
        }
        Ok(waits)
    }

    /// Whether the tenant was known before its tasks were started with these settings.
    pub(super) const fn is_mended(&self) -> bool {
        self.mended
    }

    /// How often the subscriptions are looked at while nothing seems wrong with them. No sweep is oftener than that, save on
    /// loopback, where the repair of a webhook need not take an hour.
    pub(super) fn check_every(&self) -> Duration {
        self.hastened(CHECK_EVERY)
    }

    /// How long no start request follows on another of the same content type.
    pub(super) fn start_cooldown(&self) -> Duration {
        self.hastened(COOLDOWN)
    }

    fn hastened(&self, wait: Duration) -> Duration {
        if self.webhook.is_some() { wait.min(self.collect.sweep_interval) } else { wait }
    }

    /// Sends one request of the tenant about one content type or none: with its token, through its gate. A refused token
    /// is replaced once, if that may be done now.
    pub(super) async fn ask<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        about: Option<ContentType>,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        self.ask_after(about, || std::future::ready(Ok(())), request).await
    }

    /// The same, with what is to be done at the last moment before the request is sent.
    pub(super) async fn ask_after<T, P, F>(
        &self,
        about: Option<ContentType>,
        prepare: impl Fn() -> P,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure>
    where
        P: Future<Output = Result<(), Failure>>,
        F: Future<Output = Result<T, ActivityError>>,
    {
        let mut turn = Turn { about, refused: None };
        loop {
            let token = self.unless_stopped(self.token.token()).await?.map_err(Failure::Token)?;
            if self.gate.closed_until().is_some() {
                self.unless_stopped(self.gate.open()).await?;
                // The token may have ended meanwhile.
                continue;
            }
            prepare().await?;
            // It took its time: a wait may have been read meanwhile, or the end have come.
            if self.gate.closed_until().is_some() || self.stop.is_cancelled() {
                continue;
            }
            let sent = self.limit().sent();
            if let Some(answer) = self.heed(&mut turn, token.clone(), sent, request(token).await).await? {
                return Ok(answer);
            }
        }
    }

    /// The same for a retrieval, which holds a slot from before the request is sent, and gives it back while nothing
    /// comes. It does not wait at the gate: when that opens, as many begin as the limit then allows.
    pub(super) async fn ask_holding<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        about: ContentType,
        place: &mut Place,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<(T, Sent), Failure> {
        let mut turn = Turn { about: Some(about), refused: None };
        loop {
            let token = self.unless_stopped(self.token.token()).await?.map_err(Failure::Token)?;
            if self.gate.closed_until().is_some() {
                return Err(Failure::Held);
            }
            if !place.is_taken() {
                self.unless_stopped(place.take()).await?;
                continue;
            }
            let sent = self.limit().sent();
            let answer = place.during(request(token.clone())).await;
            if let Some(answer) = self.heed(&mut turn, token, sent, answer).await? {
                return Ok((answer, sent));
            }
        }
    }

    /// Does what every answer asks for. `None`: the token was replaced, and the request is to be sent again.
    async fn heed<T>(
        &self,
        turn: &mut Turn,
        token: AccessToken,
        sent: Sent,
        answer: Result<T, ActivityError>,
    ) -> Result<Option<T>, Failure> {
        let error = match answer {
            Ok(answer) => {
                lock(&self.throttled).succeeded();
                lock(&self.roleless).remove(&turn.about);
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        self.obey_wait(&error, sent).await;
        if error.advice() != Advice::RenewToken {
            return Err(Failure::Service(Box::new(error)));
        }
        let roleless = error.refusal().is_some_and(|refusal| refusal.reason == Reason::PermissionMissing);
        if turn.refused.is_some() {
            self.token.refused(&token).await;
            if roleless {
                lock(&self.roleless).insert(turn.about);
            }
            return Err(Failure::Refused(Box::new(error)));
        }
        // A role that the last new token did not bring comes with a later one, in its own time.
        if roleless && lock(&self.roleless).contains(&turn.about) {
            return Err(Failure::Refused(Box::new(error)));
        }
        debug!(tenant = %self.tenant, error = %error, "token refused");
        if self.token.refused(&token).await {
            return Err(Failure::Refused(Box::new(error)));
        }
        let next = self.token.token().await.map_err(Failure::Token)?;
        if next.generation() == token.generation() {
            // Too early for a new one; the pace of whoever asked brings us back.
            return Err(Failure::Service(Box::new(error)));
        }
        turn.refused = Some(token);
        Ok(None)
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
    async fn obey_wait(&self, error: &ActivityError, sent: Sent) {
        let wait = match error.advice() {
            Advice::Throttled { after } => {
                self.report.throttled();
                let mut limit = self.limit();
                // Requests that were under way together are answered by the same throttling.
                if limit.is_current(sent) {
                    if limit.throttled(sent) {
                        self.report.concurrency(limit.now());
                    }
                    Some(lock(&self.throttled).failed(after))
                } else {
                    after
                }
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
            let Some(until) = self.gate.closed_until() else { return };
            // The gate is closed all the same; only a restart would not know of it.
            if let Err(error) = self.waits.extend(WaitKey::Throttled, until).await {
                debug!(tenant = %self.tenant, %error, "wait not remembered");
            }
        }
    }

    /// Looks at, or changes, how the service shows the auth id of a webhook.
    pub(super) fn shown<T>(&self, content_type: ContentType, look: impl FnOnce(&mut Shown) -> T) -> T {
        look(lock(&self.shown).entry(content_type).or_default())
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

    /// There is a dead letter.
    pub(super) fn note_letters(&self) {
        self.letters.store(true, Ordering::Relaxed);
    }

    /// Whether dead letters may be on record that a listing withdraws: of most tenants never, and looking is spared.
    pub(super) fn has_letters(&self) -> bool {
        self.letters.load(Ordering::Relaxed)
    }

    /// What single blobs have been answered.
    pub(super) fn strikes(&self) -> MutexGuard<'_, Strikes> {
        lock(&self.strikes)
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

    /// A stage met a failure, with one content type or with all.
    pub(super) fn failed(&self, stage: Stage, content_type: Option<ContentType>, failure: &Failure) {
        match failure {
            Failure::Stopping => return,
            Failure::Token(_) => return self.tell_token(),
            Failure::Service(_) | Failure::Refused(_) | Failure::Store(_) | Failure::Held => {}
        }
        let own = failure.stage(stage);
        // A missing token and a failing store are trouble for all content types.
        self.troubled(own, content_type.filter(|_| own == stage), &failure.trouble());
    }

    pub(super) fn troubled(&self, stage: Stage, content_type: Option<ContentType>, trouble: &Trouble) {
        self.interruptions.troubled(stage, content_type, trouble);
        self.report.troubled(stage, content_type, trouble);
    }

    /// A stage works, with one content type or with all.
    pub(super) fn works(&self, stage: Stage, content_type: Option<ContentType>) {
        self.report.works(stage, content_type);
    }

    /// Shows how the token fares. Of a failure the source's outcomes are counted, and not those who wait for one.
    pub(super) fn tell_token(&self) {
        let status = self.token.status();
        self.report.token(status.valid_until);
        match status.last_error {
            Some(trouble) => {
                if self.token_failures.swap(status.failures, Ordering::Relaxed) != status.failures {
                    self.troubled(Stage::Token, None, &trouble);
                }
            }
            None => self.works(Stage::Token, None),
        }
    }
}

/// One request on its way to an answer.
struct Turn {
    about: Option<ContentType>,
    /// The token that was refused.
    refused: Option<AccessToken>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
