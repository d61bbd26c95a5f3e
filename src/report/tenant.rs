//! One tenant's part of the report: its tasks say what happened, and the journal hears of changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use prometheus::{Histogram, HistogramOpts};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::announce::{History, Line};
use super::status::{
    ContentStatus, NotificationFate, StoredToday, TenantOrigin, TenantState, TenantStatus, Totals, TroubleStatus,
};
use super::trouble::Trouble;
use crate::clock::ServiceTime;
use crate::content::{ContentId, ContentType, TenantId, Tier};
use crate::event;
use crate::retry::Stage;
use crate::store::{QueueDepth, Stored};

/// A handle; clones speak for the same tenant.
#[derive(Debug, Clone)]
pub struct TenantReport(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    time: Arc<ServiceTime>,
    started: Instant,
    all: Arc<All>,
    current: Mutex<Current>,
}

/// Why a tenant is not collected from, for as long as nobody changes that.
#[derive(Debug, Clone, PartialEq)]
pub enum Rest {
    /// It is switched off in the configuration.
    Disabled,
    /// An operator holds it since then.
    Held(Timestamp),
    /// It cannot be collected for this trouble, and an operator holds it besides.
    Unable(Trouble, Option<Timestamp>),
}

/// What the parts of the report have in common.
#[derive(Debug)]
pub(super) struct All {
    /// There are so many tenants that a healthy one gets no line of its own.
    pub(super) quiet: AtomicBool,
    /// Taken after a tenant's own lock, never before.
    totals: Mutex<Totals>,
    /// Why nothing is retrieved. Taken after a tenant's own lock, never before.
    pause: Mutex<Option<TroubleStatus>>,
    /// What a person should do in time. Taken after a tenant's own lock, never before.
    warnings: Mutex<Vec<String>>,
    /// Seconds from availability to stored.
    pub(super) lag: Histogram,
}

impl All {
    pub(super) fn new() -> Self {
        let lag = HistogramOpts::new(LAG.0, LAG.1).buckets(LAG_BUCKETS.to_vec());
        let lag = Histogram::with_opts(lag).expect("the name and the buckets are well formed");
        let (totals, pause, warnings) = Default::default();
        Self { quiet: AtomicBool::new(false), totals, pause, warnings, lag }
    }

    pub(super) fn notified(&self, fate: NotificationFate, count: usize) {
        *self.totals().notifications.entry(fate).or_default() += u64::try_from(count).unwrap_or(u64::MAX);
    }

    pub(super) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pause(&self) -> MutexGuard<'_, Option<TroubleStatus>> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn warnings(&self) -> MutexGuard<'_, Vec<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The histogram's name and what it tells.
const LAG: (&str, &str) = (
    "tenantry_lag_seconds",
    "From the availability of a content blob to its being stored, of blobs that became available while the daemon ran.",
);
/// A minute and a half is usual; the service itself may take a day.
const LAG_BUCKETS: [f64; 9] = [15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];

#[derive(Debug)]
struct Current {
    status: TenantStatus,
    day: Option<civil::Date>,
    last_lag: Option<Duration>,
    hour: Hour,
    troubles: HashMap<Stage, History>,
    /// It is not collected from: its last tasks, on their way to their end, know nothing of it.
    resting: bool,
    /// Why it cannot be.
    unable: Option<TroubleStatus>,
    /// It has been started, and not been in any other state since.
    arriving: bool,
    /// The journal has heard, in this run of its tasks, that it is up to date, or need not hear of it.
    told_collecting: bool,
    noted: Noted,
    noted_at: Option<Instant>,
}

/// What the store was given last to keep of a tenant's trouble.
#[derive(Debug, Default, PartialEq)]
enum Noted {
    /// Nothing by this process.
    #[default]
    Unknown,
    /// That there is none.
    Well,
    /// A trouble of this kind and code.
    Trouble(String, Option<String>),
}

/// A note for the store.
#[derive(Debug)]
pub(super) enum Note {
    Well,
    Trouble(TroubleStatus),
}

/// A tenant's note changes this often at most: what flaps is not written each time.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// What one hour brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hour {
    pub(super) blobs: u64,
    pub(super) records: u64,
    pub(super) duplicates: u64,
    /// Blobs that had grown.
    pub(super) grown: u64,
    pub(super) longest_lag: Duration,
}

impl TenantReport {
    pub(super) fn new(id: TenantId, name: &str, time: Arc<ServiceTime>, all: Arc<All>) -> Self {
        let status = TenantStatus::new(id, name, TenantState::Starting);
        let current = Current {
            status,
            day: None,
            last_lag: None,
            hour: Hour::default(),
            troubles: HashMap::new(),
            resting: false,
            unable: None,
            arriving: false,
            told_collecting: false,
            noted: Noted::default(),
            noted_at: None,
        };
        Self(Arc::new(Inner { time, started: Instant::now(), all, current: Mutex::new(current) }))
    }

    /// Whose report this is.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.current().status.id
    }

    /// The tenant's name in the configuration.
    #[must_use]
    pub fn name(&self) -> String {
        self.current().status.name.clone()
    }

    pub(super) fn rename(&self, name: &str) {
        name.clone_into(&mut self.current().status.name);
    }

    /// Where it comes from, and what is said of it there.
    pub fn describe(&self, origins: &[TenantOrigin], cloud: &str, app: &str, content_types: &BTreeSet<ContentType>) {
        let status = &mut self.current().status;
        origins.clone_into(&mut status.origins);
        cloud.clone_into(&mut status.cloud);
        app.clone_into(&mut status.app);
        status.content.retain(|content_type, _| content_types.contains(content_type));
        for content_type in content_types {
            status.content.entry(*content_type).or_default();
        }
    }

    /// The tenant is in this state now. A change is a line in the journal only where a person wants to know of it:
    /// the troubles that lead to most changes have lines of their own, and many tenants that start share one.
    pub fn state(&self, state: TenantState) {
        let mut current = self.current();
        if current.resting {
            return;
        }
        current.status.state = state;
        current.arriving &= state == TenantState::Starting;
        if state != TenantState::Collecting || std::mem::replace(&mut current.told_collecting, true) {
            return;
        }
        if !self.0.all.quiet.load(Ordering::Relaxed) {
            info!(message_id = event::TENANT_COLLECTING, tenant = %current.status.id, name = %current.status.name, "collecting");
        }
    }

    /// The tenant is not collected from until it [starts](Self::starts).
    pub fn rests(&self, why: &Rest) {
        let since = self.0.time.now();
        let mut current = self.current();
        let (state, held, trouble) = match why {
            Rest::Disabled => (TenantState::Disabled, None, None),
            Rest::Held(since) => (TenantState::Held, Some(*since), None),
            Rest::Unable(trouble, None) => (TenantState::Paused, None, Some(trouble)),
            Rest::Unable(trouble, held) => (TenantState::Held, *held, Some(trouble)),
        };
        (current.status.state, current.status.held) = (state, held);
        (current.resting, current.arriving) = (true, false);
        // It goes with the tasks.
        current.status.token_until = None;
        let known = current.unable.take().filter(|known| Some(&known.trouble) == trouble);
        if let (Some(trouble), None) = (trouble, &known) {
            let status = &current.status;
            error!(message_id = event::TENANT_NEEDS_OPERATOR, tenant = %status.id, name = %status.name, kind = trouble.kind, "{trouble}");
        }
        let new = || trouble.map(|trouble| TroubleStatus { trouble: trouble.clone(), since, attempts: 1 });
        current.unable = known.or_else(new);
    }

    /// The tenant's tasks start.
    pub fn starts(&self) {
        let mut current = self.current();
        (current.resting, current.unable, current.status.held) = (false, None, None);
        current.status.state = TenantState::Starting;
        (current.arriving, current.told_collecting) = (true, false);
    }

    /// A stage works, with one content type or with all. If more than one had trouble, the line names the last of them.
    pub fn works(&self, stage: Stage, content_type: Option<ContentType>) {
        let mut current = self.current();
        // Success is the usual case: it costs a look-up.
        let Some(history) = current.troubles.get_mut(&stage) else { return };
        let Some(over) = history.well(content_type, Instant::now()).filter(|over| !over.trouble.shared) else { return };
        let (status, content_type) = (&current.status, content_type.map(ContentType::as_str));
        info!(message_id = event::TENANT_RECOVERED, tenant = %status.id, name = %status.name, stage = stage.as_str(), content_type, kind = over.trouble.kind, attempts = over.attempts, "works again");
    }

    /// A stage met `trouble`, with one content type or with all. The line stands for all types that meet the same, and
    /// names the first of them.
    pub fn troubled(&self, stage: Stage, content_type: Option<ContentType>, trouble: &Trouble) {
        let now = Instant::now();
        let mut current = self.current();
        if current.resting {
            return;
        }
        *current.status.failures.entry(stage).or_default() += 1;
        *self.0.all.totals().failures.entry(stage).or_default() += 1;
        let history = current.troubles.entry(stage).or_default();
        let line = history.met(content_type, trouble, now, self.0.time.now());
        let attempt = history.attempts(content_type);
        if line == Line::Quiet || trouble.shared {
            return;
        }
        let (status, content_type) = (&current.status, content_type.map(ContentType::as_str));
        let (error_code, correlation_id) = (trouble.code.as_deref(), trouble.correlation_id.as_deref());
        if trouble.needs_operator {
            error!(message_id = event::TENANT_NEEDS_OPERATOR, tenant = %status.id, name = %status.name, stage = stage.as_str(), content_type, kind = trouble.kind, error_code, correlation_id, attempt, "{trouble}");
        } else {
            warn!(message_id = event::TENANT_TROUBLED, tenant = %status.id, name = %status.name, stage = stage.as_str(), content_type, kind = trouble.kind, error_code, correlation_id, attempt, "{trouble}");
        }
    }

    /// Forgets all trouble without a word: with other settings it may be over or not, and the next tasks find out anew.
    pub fn forget_troubles(&self) {
        self.current().troubles.clear();
    }

    /// The troubles that go on, as they were met last, in the order of the stages.
    #[must_use]
    pub fn troubles(&self) -> Vec<(Stage, Option<ContentType>, Trouble)> {
        let current = self.current();
        let stage = |stage: Stage| {
            let slots = current.troubles.get(&stage).into_iter().flat_map(History::slots);
            slots.map(move |(content_type, slot)| (stage, content_type, slot.trouble.clone()))
        };
        Stage::ALL.into_iter().flat_map(stage).collect()
    }

    /// Whether a stage has trouble that goes on.
    #[must_use]
    pub fn has_trouble(&self, stage: Stage) -> bool {
        self.current().troubles.get(&stage).is_some_and(History::is_open)
    }

    /// What is no window of audit content was listed, of a tenant that has nothing else to be listed.
    pub fn polled(&self, at: Timestamp) {
        let mut current = self.current();
        current.status.last_poll = current.status.last_poll.max(Some(at));
    }

    /// A window was listed in full and brought `new` blobs. `at` is the service's time.
    pub fn listed(&self, content_type: ContentType, tier: Tier, at: Timestamp, new: usize) {
        let mut current = self.current();
        current.status.last_poll = current.status.last_poll.max(Some(at));
        let new = u64::try_from(new).unwrap_or(u64::MAX);
        self.count(&mut current, content_type, |content| {
            content.listings += 1;
            content.last_listed = content.last_listed.max(Some(at));
            match tier {
                // A notification lists nothing.
                Tier::Poll | Tier::Webhook => {}
                Tier::Recent => content.late_recent += new,
                Tier::Sweep => content.late_sweep += new,
            }
        });
    }

    /// A blob is durable, `lag` after it became available.
    pub fn stored(&self, content_type: ContentType, stored: &Stored, lag: Duration) {
        let mut current = self.current();
        self.took_in(&mut current, content_type, stored);
        // What was there before says for how long nobody collected, not how fast this is.
        if lag <= self.0.started.elapsed() {
            current.last_lag = Some(lag);
            current.hour.longest_lag = current.hour.longest_lag.max(lag);
            self.0.all.lag.observe(lag.as_secs_f64());
        }
    }

    /// A blob had another body when it was looked at again, and that is durable too. It says nothing of how fast this is.
    pub fn grown(&self, content_type: ContentType, stored: &Stored) {
        let mut current = self.current();
        self.took_in(&mut current, content_type, stored);
        current.hour.grown += 1;
        self.count(&mut current, content_type, |content| content.grown += 1);
    }

    fn took_in(&self, current: &mut Current, content_type: ContentType, stored: &Stored) {
        let now = self.0.time.now();
        current.turn_day(now);
        current.hour.blobs += 1;
        current.hour.records += u64::from(stored.records);
        current.hour.duplicates += u64::from(stored.duplicates);
        let today = &mut current.status.stored_today;
        today.blobs += 1;
        today.records += u64::from(stored.records);
        today.duplicates += u64::from(stored.duplicates);
        today.bytes += stored.bytes;
        self.count(current, content_type, |content| {
            content.blobs += 1;
            content.records += u64::from(stored.records);
            content.duplicates += u64::from(stored.duplicates);
            content.foreign += u64::from(stored.foreign);
            content.bytes += stored.bytes;
            content.last_stored = Some(now);
        });
    }

    /// What the store already holds of today, read when the tenant starts.
    pub fn stored_before(&self, today: StoredToday) {
        let now = self.0.time.now();
        let mut current = self.current();
        current.turn_day(now);
        current.status.stored_today = today;
    }

    /// How many dead letters the store holds, read when the tenant starts.
    pub fn dead_letters(&self, count: u64) {
        self.current().status.dead_letters = count;
    }

    /// The service lists an entry that cannot be collected as it is listed. It is kept as a dead letter in the store,
    /// until it is listed rightly.
    pub fn listed_wrongly(
        &self,
        content_type: ContentType,
        content_id: &ContentId,
        kind: &str,
        reason: &str,
        entry: &str,
    ) {
        let mut current = self.current();
        current.status.dead_letters += 1;
        self.count(&mut current, content_type, |content| content.dead_letters += 1);
        let status = &current.status;
        error!(
            message_id = event::CONTENT_LISTED_WRONGLY,
            tenant = %status.id,
            name = %status.name,
            %content_type,
            %content_id,
            kind,
            entry,
            reason,
            "the service lists an entry that cannot be collected; it is a dead letter, and is asked for again until it is listed rightly"
        );
    }

    /// What was listed wrongly, or was given up, is listed so that it can be collected: its dead letter is withdrawn.
    pub fn letter_withdrawn(&self, content_type: ContentType, content_id: &ContentId) {
        let mut current = self.current();
        current.status.dead_letters = current.status.dead_letters.saturating_sub(1);
        let status = &current.status;
        info!(message_id = event::CONTENT_LISTED_RIGHTLY, tenant = %status.id, name = %status.name, %content_type, %content_id, "content is listed rightly now, its dead letter is withdrawn");
    }

    /// A blob was given up: its loss is reported here and kept as a dead letter in the store.
    pub fn dead_letter(&self, content_type: ContentType, content_id: &ContentId, reason: &str) {
        let mut current = self.current();
        current.status.dead_letters += 1;
        self.count(&mut current, content_type, |content| content.dead_letters += 1);
        let status = &current.status;
        error!(message_id = event::CONTENT_GIVEN_UP, tenant = %status.id, name = %status.name, %content_type, %content_id, reason, "content blob given up, see its dead letter");
    }

    /// A span of time was not listed before Microsoft ceased to list it: what became available in it and was not
    /// retrieved is lost.
    pub fn lost(&self, content_type: ContentType, from: Timestamp, to: Timestamp) {
        let mut current = self.current();
        self.count(&mut current, content_type, |content| content.gaps += 1);
        let status = &current.status;
        error!(
            message_id = event::CONTENT_LOST,
            tenant = %status.id,
            name = %status.name,
            %content_type,
            %from,
            %to,
            "content of this span is lost: it was not listed in time, and Microsoft lists only the last seven days"
        );
    }

    /// So many blobs that notifications named fared like this.
    pub fn notified(&self, fate: NotificationFate, count: usize) {
        self.0.all.notified(fate, count);
    }

    /// What waits to be retrieved.
    pub fn queue(&self, depth: QueueDepth) {
        self.current().status.queue = depth;
    }

    /// Until when the token is valid.
    pub fn token(&self, until: Option<Timestamp>) {
        self.current().status.token_until = until;
    }

    /// The service throttles it.
    pub fn throttled(&self) {
        self.current().status.throttled += 1;
        self.0.all.totals().throttled += 1;
    }

    /// How many retrievals may run at a time.
    pub fn concurrency(&self, limit: usize) {
        self.current().status.concurrency = Some(limit);
    }

    /// The tenant's tasks ended by a panic and will start again.
    pub fn restarted(&self) {
        let mut current = self.current();
        current.status.restarts += 1;
        self.0.all.totals().restarts += 1;
        if !current.resting {
            current.status.state = TenantState::Restarting;
        }
    }

    /// What `status` shows of this tenant.
    #[must_use]
    pub fn status(&self) -> TenantStatus {
        let now = self.0.time.now();
        let mut current = self.current();
        current.turn_day(now);
        let mut status = current.status.clone();
        let waiting = status.queue.oldest.map(|oldest| now.duration_since(oldest).as_secs().max(0));
        let last = current.last_lag.and_then(|lag| i64::try_from(lag.as_secs()).ok());
        status.lag_seconds = waiting.or(last);
        status.trouble = current.worst_trouble();
        // What needs a person and is the tenant's own is not hidden by what all have.
        let own = status.trouble.as_ref().is_some_and(|known| known.trouble.needs_operator && !known.trouble.shared);
        if !own
            && !current.resting
            && let Some(pause) = &*self.0.all.pause()
        {
            status.state = TenantState::Paused;
            status.trouble = Some(pause.clone());
        }
        status
    }

    /// What `status` should know of the tenant's trouble while no daemon runs, if that has changed: the trouble, or that
    /// there is none. Seldom, save at the `last` time: then, whatever goes on.
    pub(super) fn take_note(&self, last: bool) -> Option<Note> {
        let now = Instant::now();
        let mut current = self.current();
        let worst = current.worst_trouble();
        let noted = match &worst {
            Some(worst) => Noted::Trouble(worst.trouble.kind.clone(), worst.trouble.code.clone()),
            None => Noted::Well,
        };
        // What an earlier process has noted stands until something is known of the tenant.
        let unknown =
            worst.is_none() && current.noted == Noted::Unknown && current.status.state == TenantState::Starting;
        let same = current.noted == noted && !(last && worst.is_some());
        let early = current.noted_at.is_some_and(|at| now - at < NOTE_EVERY) && !last;
        if unknown || same || early {
            return None;
        }
        (current.noted, current.noted_at) = (noted, Some(now));
        Some(worst.map_or(Note::Well, Note::Trouble))
    }

    pub(super) fn is_arriving(&self) -> bool {
        self.current().arriving
    }

    /// It is not collected because somebody wants that.
    pub(super) fn is_off(&self) -> bool {
        self.current().status.state.is_off()
    }

    /// It has a token, and was listed by this process.
    pub(super) fn is_proven(&self) -> bool {
        let current = self.current();
        current.status.token_until.is_some() && current.status.last_poll.is_some()
    }

    pub(super) fn is_troubled(&self) -> bool {
        let current = self.current();
        current.unable.is_some() || current.troubles.values().any(History::is_open)
    }

    pub(super) fn waiting(&self) -> QueueDepth {
        self.current().status.queue
    }

    pub(super) fn take_hour(&self) -> Hour {
        std::mem::take(&mut self.current().hour)
    }

    /// Counts for the tenant, unless it no longer collects that type, and for all tenants.
    fn count(&self, current: &mut Current, content_type: ContentType, add: impl Fn(&mut ContentStatus)) {
        if let Some(content) = current.status.content.get_mut(&content_type) {
            add(content);
        }
        add(self.0.all.totals().content.entry(content_type).or_default());
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// What keeps it from being collected at all; else, of those that go on, the one that needs a person most, and has for
    /// the longest time. That of its health, and of names, is told when there is none with its audit records.
    fn worst_trouble(&self) -> Option<TroubleStatus> {
        if let Some(unable) = &self.unable {
            return Some(unable.clone());
        }
        let open = self.troubles.iter().flat_map(|(stage, history)| history.open().map(move |known| (*stage, known)));
        let (_, worst) = open.max_by_key(|(stage, known)| {
            (
                !matches!(stage, Stage::Health | Stage::Names),
                known.trouble.needs_operator,
                std::cmp::Reverse(known.since),
            )
        })?;
        Some(TroubleStatus { trouble: worst.trouble.clone(), since: worst.since, attempts: worst.attempts })
    }

    /// "Today" begins at midnight UTC.
    fn turn_day(&mut self, now: Timestamp) {
        let today = now.to_zoned(TimeZone::UTC).date();
        if self.day != Some(today) {
            self.day = Some(today);
            self.status.stored_today = StoredToday::default();
        }
    }
}
