//! What is wrong with an app is wrong for all of its tenants: it is believed, said and probed once.
//!
//! A thousand tenants may share one app. When its secret expires, the journal gets one alarm instead of a thousand
//! lines, and Entra one request per interval instead of a thousand.
//!
//! - **Believing.** One tenant's word is not enough: a certificate that was uploaded a minute ago is unknown to one of
//!   Entra's sites and known to another, and that tenant must not stop the rest. An app's trouble is believed when
//!   two tenants have met it, or its only one. Until one of them had a token, and after a first complaint, requests
//!   go one at a time, so that two are enough to find out. That a tenant does not know the app is that tenant's trouble,
//!   unless three say so and no tenant ever had a token: then the client id is wrong.
//! - **Probing.** While the alarm lasts, one tenant's request at a time is let through as a probe, at growing
//!   intervals; those who have not met the trouble themselves go first.
//! - **The end.** A token clears the alarm, and the tenants that waited ask for theirs, a little spread out.
//!
//! **Invariant:** nobody waits for another tenant's *request* for longer than five seconds: a stalled answer delays only
//! the tenant that it is for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::entra::{APP_UNKNOWN, Scope};
use super::renewal::FLOOR;
use super::rollover::Rollover;
use super::{Applicant, Credential, TokenError};
use crate::clock::ServiceTime;
use crate::event;
use crate::report::Trouble;
use crate::report::announce::{History, Line};
use crate::retry::{Backoff, jittered};

/// How long a tenant waits for the outcome of another one's request before it sends its own.
const TURN: Duration = Duration::from_secs(5);
/// The first interval between two probes.
const FIRST_PROBE: Duration = Duration::from_mins(5);
/// The longest: a token that was due for renewal at 45 minutes of an hour outlives one such wait, so a tenant whose
/// credential is good after all collects without a gap.
const LONGEST_PROBE: Duration = Duration::from_mins(15);
/// What is found out on this host (a file that is missing) is looked at sooner: nobody else is asked.
const FIRST_LOOK: Duration = Duration::from_secs(30);
const LONGEST_LOOK: Duration = Duration::from_mins(2);
/// After a probe that met other trouble (a timeout, say) the next one follows soon.
const NEXT_PROBE: Duration = Duration::from_mins(1);
/// For how long a tenant that has met the trouble lets others probe first.
const DEFERENCE: Duration = Duration::from_secs(10);
/// So many tenants must not know an app, and none must ever have known it, before its client id is doubted;
const STRANGERS: usize = 3;
/// of many, one in so many: the first three of a thousand may happen to be those that have not consented.
const STRANGERS_IN: usize = 20;
/// After the alarm, each waiting tenant adds this to the time over which all of them ask again,
const SPREAD_EACH: Duration = Duration::from_millis(100);
/// which is no longer than this.
const SPREAD: Duration = Duration::from_mins(1);

/// The alarms of all apps. One for the process.
#[derive(Debug, Default)]
pub struct AppAlarms {
    apps: Mutex<Vec<Weak<AppHealth>>>,
}

/// One app's alarm, for `status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppAlarm {
    /// The app's name in the configuration; empty for `[app]`.
    pub app: String,
    /// Its client id.
    pub client_id: String,
    /// The authority that refuses it.
    pub authority: String,
    /// What is wrong, and what to do.
    pub trouble: Trouble,
    /// How many tenants use the app.
    pub tenants: usize,
}

impl AppAlarms {
    /// No alarm.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What is wrong with apps at the moment.
    #[must_use]
    pub fn alarms(&self) -> Vec<AppAlarm> {
        self.living().iter().filter_map(|app| app.alarm()).collect()
    }

    /// Which certificates of an app its authority refuses, as its tenants have found out.
    pub(super) fn rollover(&self, who: &Applicant) -> Arc<Rollover> {
        let authority = who.authority();
        let is_its = |key: &AppKey| {
            key.client_id == who.client_id && key.authority == authority && key.credential == who.credential
        };
        let found = self.living().into_iter().find(|app| is_its(&app.key));
        found.map_or_else(Arc::default, |app| Arc::clone(&app.rollover))
    }

    /// Somebody looks whether an app still is as it was: of each that is refused, the next request is a probe, unless one was
    /// sent less than [`FLOOR`] ago.
    pub fn look_again(&self) {
        for app in self.living() {
            let now = Instant::now();
            if let Standing::Bad(alarm) = &mut *app.standing()
                && !alarm.probing
                && now >= alarm.probed + FLOOR
            {
                // Nobody defers to others now.
                alarm.next_probe = alarm.next_probe.min(now.checked_sub(DEFERENCE).unwrap_or(now));
            }
        }
    }

    fn living(&self) -> Vec<Arc<AppHealth>> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.iter().filter_map(Weak::upgrade).collect()
    }

    /// A place among the tenants of an app.
    pub(super) fn join(&self, key: &AppKey, time: &Arc<ServiceTime>) -> Member {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|app| app.strong_count() > 0);
        let found = apps.iter().filter_map(Weak::upgrade).find(|app| app.key == *key);
        let app = found.unwrap_or_else(|| {
            let app = Arc::new(AppHealth::new(key.clone(), Arc::clone(time)));
            apps.push(Arc::downgrade(&app));
            app
        });
        app.members.fetch_add(1, Ordering::Relaxed);
        let id = app.next_id.fetch_add(1, Ordering::Relaxed);
        Member { app, id }
    }
}

/// Which requests are one app's in the eyes of Entra. The audience belongs to it because a malformed one is also an
/// app-wide error, but one cloud's; the credential because a new one deserves a new beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppKey {
    pub(super) app: String,
    pub(super) client_id: String,
    pub(super) authority: String,
    pub(super) audience: String,
    pub(super) credential: Credential,
}

/// One app's health.
#[derive(Debug)]
struct AppHealth {
    key: AppKey,
    time: Arc<ServiceTime>,
    members: AtomicUsize,
    next_id: AtomicU64,
    rollover: Arc<Rollover>,
    standing: Mutex<Standing>,
    /// Who does not know the app; `None` once any tenant had a token.
    strangers: Mutex<Option<BTreeSet<MemberId>>>,
    /// Changes whenever a turn ends or the standing changes.
    turns: watch::Sender<u64>,
}

type MemberId = u64;

#[derive(Debug)]
enum Standing {
    /// Tokens are granted.
    Good,
    /// Nothing is known yet, or one tenant complained: requests go one at a time.
    Unsure { complaint: Option<MemberId>, turn: Option<Instant> },
    /// The app's trouble is believed.
    Bad(Box<Alarm>),
}

#[derive(Debug)]
struct Alarm {
    error: TokenError,
    raised: Instant,
    pace: Backoff,
    next_probe: Instant,
    /// When the last request was let through.
    probed: Instant,
    probing: bool,
    /// Who has met the trouble; forgotten once everyone has.
    failed: BTreeSet<MemberId>,
    history: History,
}

/// Whether a request may be sent.
#[derive(Debug)]
pub(super) enum Admission {
    /// Yes.
    Go(Permit),
    /// Another tenant's request will tell; ask again when its turn has ended, or at this moment.
    Turn(Instant),
    /// No: the app's trouble, and when to ask again.
    Wait(TokenError, Instant),
}

/// A tenant's place among those of its app.
#[derive(Debug)]
pub(super) struct Member {
    app: Arc<AppHealth>,
    id: MemberId,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.app.members.fetch_sub(1, Ordering::Relaxed);
        if let Some(strangers) = &mut *self.app.strangers() {
            strangers.remove(&self.id);
        }
    }
}

impl Member {
    /// Asks for leave to send a request.
    pub(super) fn admit(&self) -> Admission {
        let now = Instant::now();
        let permit = || Permit { app: Arc::clone(&self.app), id: self.id, sent: now, settled: false };
        match &mut *self.app.standing() {
            Standing::Good => Admission::Go(permit()),
            Standing::Unsure { turn: Some(since), .. } if now < *since + TURN => Admission::Turn(*since + TURN),
            Standing::Unsure { turn, .. } => {
                // When a turn brings no outcome in time everybody goes: it is not begun anew for the next one.
                turn.get_or_insert(now);
                Admission::Go(permit())
            }
            Standing::Bad(alarm) => {
                let again = alarm.failed.contains(&self.id);
                let mine = alarm.next_probe + if again { DEFERENCE } else { Duration::ZERO };
                if now >= mine && !alarm.probing {
                    (alarm.probing, alarm.probed) = (true, now);
                    return Admission::Go(permit());
                }
                // A probe's outcome moves everyone on; the moment is for the case that there will be none.
                let until = if alarm.probing { now + NEXT_PROBE } else { mine };
                Admission::Wait(alarm.error.clone(), until)
            }
        }
    }

    /// Changes when it is worth asking again.
    pub(super) fn turns(&self) -> watch::Receiver<u64> {
        self.app.turns.subscribe()
    }

    /// Which of its certificates signs.
    pub(super) fn rollover(&self) -> &Rollover {
        &self.app.rollover
    }

    /// Whether the app's trouble is believed.
    pub(super) fn is_bad(&self) -> bool {
        matches!(*self.app.standing(), Standing::Bad(_))
    }

    /// A wait that is this tenant's share of spreading out after an alarm.
    pub(super) fn spread(&self) -> Duration {
        let others = u32::try_from(self.app.members().saturating_sub(1)).unwrap_or(u32::MAX);
        jittered(SPREAD_EACH.saturating_mul(others).min(SPREAD), 1.0)
    }
}

/// Leave to send one request. Its outcome must be told; a request that was dropped counts as no outcome.
#[derive(Debug)]
pub(super) struct Permit {
    app: Arc<AppHealth>,
    id: MemberId,
    sent: Instant,
    settled: bool,
}

impl Permit {
    /// A token was granted.
    pub(super) fn granted(mut self) {
        self.settled = true;
        self.app.granted(self.sent);
    }

    /// The request failed; returns the error, as the app's where it is believed to be.
    pub(super) fn failed(mut self, error: TokenError) -> TokenError {
        self.settled = true;
        if error.kind() == APP_UNKNOWN && self.app.is_unknown_to(self.id) {
            let error = error.known_to_none(&self.app.key.client_id);
            return self.app.known_to_none(self.id, self.sent, error);
        }
        if error.scope() == Scope::App {
            self.app.complaint(self.id, self.sent, error)
        } else {
            self.app.inconclusive(self.sent);
            error
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.app.inconclusive(self.sent);
        }
    }
}

/// How soon to ask again.
fn pace(error: &TokenError) -> Backoff {
    if error.is_local() {
        Backoff::between(FIRST_LOOK, LONGEST_LOOK)
    } else {
        Backoff::between(FIRST_PROBE, LONGEST_PROBE)
    }
}

impl AppHealth {
    fn new(key: AppKey, time: Arc<ServiceTime>) -> Self {
        Self {
            key,
            time,
            members: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            rollover: Arc::default(),
            strangers: Mutex::new(Some(BTreeSet::new())),
            standing: Mutex::new(Standing::Unsure { complaint: None, turn: None }),
            turns: watch::Sender::new(0),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, Option<BTreeSet<MemberId>>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    fn alarm(&self) -> Option<AppAlarm> {
        let Standing::Bad(alarm) = &*self.standing() else { return None };
        Some(AppAlarm {
            app: self.key.app.clone(),
            client_id: self.key.client_id.clone(),
            authority: self.key.authority.clone(),
            trouble: alarm.error.trouble(),
            tenants: self.members(),
        })
    }

    fn granted(&self, sent: Instant) {
        *self.strangers() = None;
        let mut standing = self.standing();
        match &*standing {
            Standing::Good => return,
            // A token that was asked for before the alarm says nothing about what came after; but one tenant that knows
            // the app, whenever it was asked, refutes that none does.
            Standing::Bad(alarm) if sent < alarm.raised && alarm.error.kind() != APP_UNKNOWN => return,
            Standing::Bad(alarm) => {
                let kind = alarm.error.kind();
                info!(
                    message_id = event::APP_RECOVERED,
                    app = self.key.app,
                    client_id = self.key.client_id,
                    tenants = self.members(),
                    kind,
                    "app works again"
                );
            }
            Standing::Unsure { .. } => {}
        }
        *standing = Standing::Good;
        drop(standing);
        self.next_turn();
    }

    fn inconclusive(&self, sent: Instant) {
        match &mut *self.standing() {
            Standing::Good => return,
            // Nothing speaks against the app: no reason to go on one at a time.
            standing @ Standing::Unsure { complaint: None, .. } => *standing = Standing::Good,
            Standing::Unsure { turn, .. } => *turn = None,
            Standing::Bad(alarm) if sent < alarm.raised || !alarm.probing => return,
            Standing::Bad(alarm) => {
                alarm.probing = false;
                alarm.next_probe = Instant::now() + jittered(NEXT_PROBE, 0.2);
            }
        }
        self.next_turn();
    }

    /// A tenant does not know the app. Whether enough of them have said so to doubt the client id.
    fn is_unknown_to(&self, tenant: MemberId) -> bool {
        self.strangers().as_mut().is_some_and(|strangers| {
            strangers.insert(tenant);
            strangers.len() >= STRANGERS.max(self.members() / STRANGERS_IN)
        })
    }

    /// Several tenants do not know the app, and none ever did: the client id is wrong more likely than each of them.
    fn known_to_none(&self, by: MemberId, sent: Instant, error: TokenError) -> TokenError {
        let mut standing = self.standing();
        if !matches!(&*standing, Standing::Bad(_)) {
            let error = self.raise(&mut standing, by, error);
            drop(standing);
            self.next_turn();
            return error;
        }
        drop(standing);
        self.complaint(by, sent, error)
    }

    fn complaint(&self, by: MemberId, sent: Instant, error: TokenError) -> TokenError {
        let now = Instant::now();
        let alone = self.members() <= 1;
        let mut standing = self.standing();
        let error = match &mut *standing {
            Standing::Bad(alarm) => {
                let error = error.of_app();
                // What was sent before the alarm is one of its causes, not a probe.
                if sent >= alarm.raised && alarm.probing {
                    alarm.probing = false;
                    if alarm.error.is_local() != error.is_local() {
                        alarm.pace = pace(&error);
                    }
                    alarm.error = error.clone();
                    if alarm.failed.len() >= self.members() {
                        alarm.failed.clear();
                    }
                    alarm.failed.insert(by);
                    alarm.next_probe = now + alarm.pace.failed(error.asked());
                    self.say(&mut alarm.history, &error, now);
                }
                error
            }
            Standing::Unsure { complaint: Some(other), .. } if *other != by => self.raise(&mut standing, by, error),
            _ if alone => self.raise(&mut standing, by, error),
            Standing::Good | Standing::Unsure { .. } => {
                *standing = Standing::Unsure { complaint: Some(by), turn: None };
                error
            }
        };
        drop(standing);
        self.next_turn();
        error
    }

    fn raise(&self, standing: &mut Standing, by: MemberId, error: TokenError) -> TokenError {
        let now = Instant::now();
        let error = error.of_app();
        let mut pace = pace(&error);
        let next_probe = now + pace.failed(error.asked());
        let mut history = History::default();
        self.say(&mut history, &error, now);
        *standing = Standing::Bad(Box::new(Alarm {
            error: error.clone(),
            raised: now,
            pace,
            next_probe,
            probed: now,
            probing: false,
            failed: BTreeSet::from([by]),
            history,
        }));
        error
    }

    /// Writes the alarm to the journal, when it is new and then seldom.
    fn say(&self, history: &mut History, error: &TokenError, now: Instant) {
        let trouble = error.trouble();
        if history.met(None, &trouble, now, self.time.now()) == Line::Quiet {
            return;
        }
        let AppKey { app, client_id, authority, .. } = &self.key;
        let attempt = history.attempts(None);
        error!(
            message_id = event::APP_REFUSED,
            app,
            client_id,
            authority,
            tenants = self.members(),
            kind = trouble.kind,
            error_code = trouble.code.as_deref(),
            correlation_id = trouble.correlation_id.as_deref(),
            attempt,
            "{trouble}"
        );
    }

    fn next_turn(&self) {
        self.turns.send_modify(|turn| *turn += 1);
    }
}
