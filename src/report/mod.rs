//! What the operator is told: one state per tenant, and the same words for a trouble in the journal, in `status`, in
//! `doctor` and on the page.
//!
//! The parts of a tenant's tree tell their [`TenantReport`] what happened; `status`, systemd's `STATUS=` and the hourly
//! summary read the [`Report`]. The journal gets a line when something changes and then at growing intervals
//! ([`announce`]), never one per attempt. What `status` shows of a trouble while no daemon runs are notes, which the
//! daemon fetches here and leaves in the store.
//!
//! **Invariant:** nothing here waits or does I/O apart from logging; memory is a fixed size per tenant.

pub(crate) mod announce;
mod status;
mod tenant;
mod trouble;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::Histogram;
use tokio::time::Instant;
use tracing::info;

pub use self::status::{
    ContentStatus, NotificationFate, StatusSnapshot, StoredToday, TenantOrigin, TenantState, TenantStatus, Totals,
    TroubleStatus,
};
pub use self::tenant::{Rest, TenantReport};
pub use self::trouble::{Trouble, clock_trouble, span};

use self::tenant::{All, Note};

use crate::clock::ServiceTime;
use crate::content::TenantId;
use crate::event;
use crate::store::QueueDepth;

/// Up to this many tenants get a line of their own when they start and in the hourly summary.
const TENANT_LINES: usize = 20;
/// How often it is looked whether the tenants that start have started.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Those that have not by then are told as such: one that the service refuses in silence keeps nobody waiting.
const STARTED_BY: Duration = Duration::from_mins(10);

/// What is told only if there is any.
fn not_zero(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Every tenant's status. One for the process.
#[derive(Debug)]
pub struct Report {
    time: Arc<ServiceTime>,
    started: Timestamp,
    tenants: Mutex<BTreeMap<TenantId, TenantReport>>,
    all: Arc<All>,
    /// Since when tenants are starting whose start has not been summed up.
    starting: Mutex<Option<Instant>>,
}

impl Report {
    /// Knows no tenant yet.
    #[must_use]
    pub fn new(time: Arc<ServiceTime>) -> Arc<Self> {
        let started = time.now();
        Arc::new(Self {
            time,
            started,
            tenants: Mutex::default(),
            all: Arc::new(All::new()),
            starting: Mutex::default(),
        })
    }

    /// The tenant's part of the report, made if it is new, renamed if it is known.
    pub fn tenant(&self, id: TenantId, name: &str) -> TenantReport {
        let mut tenants = self.tenants();
        let new = || TenantReport::new(id, name, Arc::clone(&self.time), Arc::clone(&self.all));
        let tenant = tenants.entry(id).or_insert_with(new);
        tenant.rename(name);
        tenant.clone()
    }

    /// The part of a tenant that is known.
    #[must_use]
    pub fn known(&self, id: TenantId) -> Option<TenantReport> {
        self.tenants().get(&id).cloned()
    }

    /// There will be so many tenants, and some of them start if `start` says so. Told before any of them does.
    pub fn expect(&self, tenants: usize, start: bool) {
        self.all.quiet.store(tenants > TENANT_LINES, Ordering::Relaxed);
        if !start {
            return;
        }
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        starting.get_or_insert_with(Instant::now);
    }

    /// Forgets a tenant that is no longer known.
    pub fn remove(&self, id: TenantId) {
        self.tenants().remove(&id);
    }

    /// Nothing is retrieved from any tenant, for this reason; or all is as usual again.
    pub fn pause(&self, why: Option<Trouble>) {
        let mut pause = self.all.pause();
        let since = pause.as_ref().map_or_else(|| self.time.now(), |known| known.since);
        *pause = why.map(|trouble| TroubleStatus { trouble, since, attempts: 1 });
    }

    /// What a person should do before it becomes a trouble, in place of what was told before.
    pub fn warn(&self, warnings: Vec<String>) {
        *self.all.warnings() = warnings;
    }

    /// What waits to be retrieved, of all tenants.
    #[must_use]
    pub fn waiting(&self) -> QueueDepth {
        self.tenants().values().filter(|tenant| !tenant.is_off()).map(TenantReport::waiting).fold(
            QueueDepth::default(),
            |sum, depth| QueueDepth {
                entries: sum.entries + depth.entries,
                oldest: sum.oldest.into_iter().chain(depth.oldest).min(),
            },
        )
    }

    /// The service's time, by which troubles are dated.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// All that `status` shows.
    #[must_use]
    pub fn snapshot(&self) -> StatusSnapshot {
        let tenants: Vec<_> = self.tenants().values().map(TenantReport::status).collect();
        let pause = self.all.pause().clone();
        StatusSnapshot {
            running: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: self.time.now(),
            started: Some(self.started),
            host_ahead_by_seconds: self.time.host_ahead_by().map(|ahead| ahead.as_secs()),
            sentence: sentence(&tenants, pause.as_ref()),
            pause,
            warnings: self.all.warnings().clone(),
            tenants,
        }
    }

    /// What `status` shows of one tenant, if it is known.
    #[must_use]
    pub fn status_of(&self, id: TenantId) -> Option<TenantStatus> {
        let tenant = self.tenants().get(&id).cloned();
        tenant.map(|tenant| tenant.status())
    }

    /// What the tenants are called.
    #[must_use]
    pub fn names(&self) -> BTreeMap<TenantId, String> {
        self.tenants().iter().map(|(id, tenant)| (*id, tenant.name())).collect()
    }

    /// What happened since the daemon started. Read after a [`snapshot`](Self::snapshot) it is never less than that.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.all.totals().clone()
    }

    /// So many notifications, or blobs that they named, fared like this.
    pub fn notified(&self, fate: NotificationFate, count: usize) {
        self.all.notified(fate, count);
    }

    /// How long blobs took from being available to being stored.
    #[must_use]
    pub fn lag(&self) -> Histogram {
        self.all.lag.clone()
    }

    /// The one sentence for systemd's `STATUS=`; `status` shows the same.
    #[must_use]
    pub fn sentence(&self) -> String {
        let tenants: Vec<_> = self.tenants().values().map(TenantReport::status).collect();
        sentence(&tenants, self.all.pause().as_ref())
    }

    /// Whether it is proven that the daemon collects: one tenant has a token and has been listed. Without a tenant there
    /// is nothing to prove.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let tenants = self.tenants();
        let mut active = tenants.values().filter(|tenant| !tenant.is_off()).peekable();
        active.peek().is_none() || active.any(TenantReport::is_proven)
    }

    /// What the store should keep for a `status` without a daemon, where that has changed. `last`: the daemon ends.
    #[must_use]
    pub fn take_notes(&self, last: bool) -> Vec<(TenantId, Option<Vec<u8>>)> {
        let tenants = self.tenants();
        let changed = tenants.iter().filter_map(|(id, tenant)| Some((*id, tenant.take_note(last)?)));
        let written = |note| match note {
            Note::Well => None,
            Note::Trouble(trouble) => trouble.to_note(),
        };
        changed.map(|(id, note)| (id, written(note))).collect()
    }

    /// Writes the summary line every hour, and one when many tenants have started, for ever.
    pub async fn summarise(&self) {
        let hour = Duration::from_hours(1);
        let mut next = Instant::now() + hour;
        loop {
            tokio::time::sleep_until(next.min(Instant::now() + LOOK_EVERY)).await;
            self.log_start();
            if Instant::now() >= next {
                next += hour;
                self.log_summary();
            }
        }
    }

    /// One line for all tenants that have started.
    fn log_start(&self) {
        let Some(since) = self.starting() else { return };
        let tenants: Vec<_> = self.tenants().values().cloned().collect();
        let starting = tenants.iter().filter(|tenant| tenant.is_arriving()).count();
        if starting > 0 && since.elapsed() < STARTED_BY {
            return;
        }
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.all.quiet.load(Ordering::Relaxed) {
            let troubled = tenants.iter().filter(|tenant| tenant.is_troubled()).count();
            info!(tenants = tenants.len(), troubled, starting, "the tenants have started");
        }
    }

    fn starting(&self) -> Option<Instant> {
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_summary(&self) {
        let tenants: Vec<_> = self.tenants().values().cloned().collect();
        let taken: Vec<_> = tenants.iter().map(|tenant| (tenant, tenant.take_hour())).collect();
        let troubled = tenants.iter().filter(|tenant| tenant.is_troubled()).count();
        info!(
            message_id = event::SUMMARY,
            tenants = tenants.len(),
            troubled,
            blobs = taken.iter().map(|(_, hour)| hour.blobs).sum::<u64>(),
            records = taken.iter().map(|(_, hour)| hour.records).sum::<u64>(),
            duplicates = taken.iter().map(|(_, hour)| hour.duplicates).sum::<u64>(),
            grown = not_zero(taken.iter().map(|(_, hour)| hour.grown).sum()),
            queued = tenants.iter().map(|tenant| tenant.waiting().entries).sum::<u64>(),
            longest_lag_s = taken.iter().map(|(_, hour)| hour.longest_lag.as_secs()).max().unwrap_or(0),
            "collected in the last hour"
        );
        if tenants.len() <= TENANT_LINES {
            for (tenant, hour) in taken {
                info!(
                    message_id = event::TENANT_SUMMARY,
                    tenant = %tenant.id(),
                    name = %tenant.name(),
                    state = tenant.status().state.as_str(),
                    blobs = hour.blobs,
                    records = hour.records,
                    grown = not_zero(hour.grown),
                    longest_lag_s = hour.longest_lag.as_secs(),
                    "tenant in the last hour"
                );
            }
        }
    }

    fn tenants(&self) -> MutexGuard<'_, BTreeMap<TenantId, TenantReport>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sentence(tenants: &[TenantStatus], pause: Option<&TroubleStatus>) -> String {
    let active: Vec<_> = tenants.iter().filter(|tenant| !tenant.state.is_off()).collect();
    let held = tenants.iter().filter(|tenant| tenant.state == TenantState::Held).count();
    let troubled: Vec<_> = active.iter().filter_map(|tenant| Some((tenant, tenant.trouble.as_ref()?))).collect();
    let plural = if active.len() == 1 { "" } else { "s" };
    if let Some(pause) = pause.filter(|_| !active.is_empty()) {
        return format!("collecting from {} tenant{plural} is paused: {}", active.len(), pause.trouble);
    }
    let mut text = match (active.len(), troubled.len()) {
        (0, _) if held > 0 => "collecting from no tenant".to_owned(),
        (0, _) => "no tenants configured".to_owned(),
        (count, 0) => format!("collecting from {count} tenant{plural}, all well"),
        (count, bad) => format!("collecting from {count} tenant{plural}, {} well, {bad} with trouble", count - bad),
    };
    if held > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {held} paused by an operator");
    }
    // Systemd shows one line: the first trouble that a person must act on says the most.
    let worst = troubled.iter().find(|(_, trouble)| trouble.trouble.needs_operator).or(troubled.first());
    if let Some((tenant, trouble)) = worst {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}: {}", tenant.name, trouble.trouble);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;
    use crate::retry::Stage;

    fn report() -> Arc<Report> {
        Report::new(Arc::new(ServiceTime::new(SetClock::new("2026-11-22T12:00:00Z".parse().unwrap()))))
    }

    fn tenant_id(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn the_sentence_counts_tenants_and_names_the_trouble_that_needs_a_person() {
        let report = report();
        assert_eq!(report.sentence(), "no tenants configured");
        let contoso = report.tenant(tenant_id(1), "contoso");
        assert_eq!(report.sentence(), "collecting from 1 tenant, all well");
        let fabrikam = report.tenant(tenant_id(2), "fabrikam");
        report.tenant(tenant_id(3), "off").rests(&Rest::Disabled);

        contoso.troubled(Stage::List, None, &Trouble::passing("http_503", "the service answers 503"));
        fabrikam.troubled(
            Stage::Token,
            None,
            &Trouble::for_operator("secret_expired", "the client secret has expired", "make a new one"),
        );
        assert_eq!(
            report.sentence(),
            "collecting from 2 tenants, 0 well, 2 with trouble; fabrikam: the client secret has expired: make a new one"
        );
        contoso.works(Stage::List, None);
        fabrikam.works(Stage::Token, None);
        assert_eq!(report.sentence(), "collecting from 2 tenants, all well");
        let since = report.now();
        fabrikam.rests(&Rest::Held(since));
        assert_eq!(report.sentence(), "collecting from 1 tenant, all well, 1 paused by an operator");
        contoso.rests(&Rest::Held(since));
        assert_eq!(report.sentence(), "collecting from no tenant, 2 paused by an operator");
        assert!(report.is_proven(), "there is nothing to prove");
    }

    #[tokio::test(start_paused = true)]
    async fn what_keeps_a_tenant_from_being_collected_is_its_trouble_until_it_starts() {
        let report = report();
        let contoso = report.tenant(tenant_id(1), "contoso");
        let lacking = Trouble::for_operator("app_unknown", "there is no app", "write it");
        contoso.rests(&Rest::Unable(lacking.clone(), None));
        contoso.forget_troubles();
        contoso.troubled(Stage::List, None, &Trouble::passing("reset", "a last word of its tasks"));
        let status = contoso.status();
        assert_eq!((status.state, status.held), (TenantState::Paused, None));
        assert_eq!(status.trouble.map(|known| known.trouble), Some(lacking.clone()));
        assert_eq!(
            report.sentence(),
            "collecting from 1 tenant, 0 well, 1 with trouble; contoso: there is no app: write it"
        );
        assert!(!report.is_proven());
        assert_eq!(report.take_notes(true).len(), 1, "`status` shows it without a daemon too");

        // An operator's pause does not hide it.
        contoso.rests(&Rest::Unable(lacking.clone(), Some(report.now())));
        let status = contoso.status();
        assert_eq!((status.state, status.held), (TenantState::Held, Some(report.now())));
        assert_eq!(status.trouble.map(|known| known.trouble), Some(lacking));
        contoso.starts();
        let status = contoso.status();
        assert_eq!((status.state, status.held, status.trouble), (TenantState::Starting, None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_everybodys_trouble_unless_they_have_one_that_is_their_own() {
        let report = report();
        let why = Trouble::for_operator("disk_short", "no room", "make room");
        report.pause(Some(why.clone()));
        assert_eq!(report.sentence(), "no tenants configured");
        let contoso = report.tenant(tenant_id(1), "contoso");
        let fabrikam = report.tenant(tenant_id(2), "fabrikam");
        report.tenant(tenant_id(3), "off").rests(&Rest::Disabled);
        contoso.state(TenantState::Collecting);
        contoso.queue(QueueDepth { entries: 3, oldest: Some("2026-11-22T11:00:00Z".parse().unwrap()) });
        let expired = Trouble::for_operator("secret_expired", "the secret has expired", "make a new one");
        fabrikam.troubled(Stage::Token, None, &expired);
        fabrikam.queue(QueueDepth { entries: 4, oldest: Some("2026-11-22T10:00:00Z".parse().unwrap()) });
        assert_eq!(report.waiting(), QueueDepth { entries: 7, oldest: Some("2026-11-22T10:00:00Z".parse().unwrap()) });
        let snapshot = report.snapshot();
        assert_eq!(snapshot.sentence, "collecting from 2 tenants is paused: no room: make room");
        assert_eq!(snapshot.pause.as_ref().map(|pause| &pause.trouble), Some(&why));
        let shown = |at: usize| snapshot.tenants[at].trouble.as_ref().map(|known| known.trouble.kind.as_str());
        assert_eq!((shown(0), shown(1), shown(2)), (Some("disk_short"), Some("secret_expired"), None));
        assert_eq!(
            (snapshot.tenants[0].state, snapshot.tenants[2].state),
            (TenantState::Paused, TenantState::Disabled)
        );
        report.pause(None);
        assert_eq!((contoso.status().state, contoso.status().trouble), (TenantState::Collecting, None));
        assert_eq!(report.snapshot().pause, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_is_left_when_the_trouble_changes_and_seldom() {
        let report = report();
        let contoso = report.tenant(tenant_id(1), "contoso");
        let notes = |last| {
            let notes = report.take_notes(last);
            notes
                .into_iter()
                .map(|(_, note)| note.map(|note| TroubleStatus::from_note(&note).unwrap()))
                .collect::<Vec<_>>()
        };
        contoso.starts();
        assert_eq!(notes(false), [], "what an earlier process noted stands while nothing is known");
        let off = Trouble::for_operator("audit_log_off", "x".repeat(100_000), "turn it on");
        contoso.troubled(Stage::Subscribe, None, &off);
        let told = notes(false).remove(0).unwrap().trouble;
        assert_eq!((told.kind.as_str(), told.remedy.as_str()), ("audit_log_off", "turn it on"));
        assert_eq!(told.cause.len(), 1000);
        assert_eq!(notes(false), []);
        // It flaps.
        for second in 1..NOTES {
            if second % 2 == 0 {
                contoso.troubled(Stage::Subscribe, None, &off);
            } else {
                contoso.works(Stage::Subscribe, None);
            }
            contoso.state(TenantState::Collecting);
            assert_eq!(notes(false), [], "at {second} s");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        contoso.troubled(Stage::Subscribe, None, &off);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(notes(false), [], "it is the same as the last one noted");
        assert_eq!(notes(true).remove(0).unwrap().attempts, 1 + NOTES / 2, "the end tells all that is known");
        contoso.works(Stage::Subscribe, None);
        assert_eq!(notes(false), []);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(notes(false), [None]);
        assert_eq!(notes(false), []);
    }

    /// Seconds within which a note is not written again.
    const NOTES: u64 = 60;

    #[tokio::test(start_paused = true)]
    async fn a_disabled_tenant_stays_so_whatever_its_last_tasks_say() {
        let report = report();
        let contoso = report.tenant(tenant_id(1), "contoso");
        contoso.state(TenantState::Collecting);
        contoso.rests(&Rest::Disabled);
        contoso.state(TenantState::Collecting);
        contoso.restarted();
        contoso.troubled(Stage::List, None, &Trouble::passing("reset", "cause"));
        let status = contoso.status();
        assert_eq!((status.state, status.trouble), (TenantState::Disabled, None));
        contoso.starts();
        contoso.state(TenantState::Collecting);
        assert_eq!(contoso.status().state, TenantState::Collecting);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_starts_nobody_is_not_summed_up() {
        let report = report();
        report.expect(30, false);
        assert_eq!(report.starting(), None);
        report.expect(30, true);
        assert!(report.starting().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_are_forgotten_without_being_over() {
        let report = report();
        let contoso = report.tenant(tenant_id(1), "contoso");
        let trouble = Trouble::passing("reset", "cause");
        contoso.troubled(Stage::List, None, &trouble);
        contoso.forget_troubles();
        assert!(!contoso.has_trouble(Stage::List) && contoso.status().trouble.is_none());
        contoso.troubled(Stage::List, None, &trouble);
        assert_eq!(contoso.status().trouble.unwrap().attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_survives_json() {
        let report = report();
        let contoso = report.tenant(tenant_id(1), "contoso");
        contoso.troubled(Stage::List, None, &Trouble::passing("http_503", "the service answers 503"));
        let snapshot = report.snapshot();
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<StatusSnapshot>(&json).unwrap(), snapshot);
    }
}
