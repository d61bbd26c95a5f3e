//! Which tenants are collected: follows configuration and roster, at start and whenever one of them changes.
//!
//! A change touches only what it means: a tenant that is new is started, one that is gone is stopped, one whose
//! settings differ is stopped and started again, and all others go on without noticing. A tenant that is disabled, held or
//! gone keeps its data and its state and resumes from it. A token is kept over a restart of its tenant's tree unless
//! the cloud has changed; with another app or credential the next one is asked for soon.
//!
//! **Invariants:** never two trees for one tenant: the next one starts when the last one has ended. A tenant that is
//! stopped sends nothing more; what it is receiving is finished within a limit, or abandoned, which loses nothing.
//!
//! `making` says what a tenant's settings come to, `asked` what others need of one.

mod asked;
mod making;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::making::{Identity, Order, Starting, Way, token_request};
use super::course::{Assignment, Course};
use super::health;
use super::health::line::Line;
use super::plan;
use super::roster::{Member, Roster};
use super::slots::Slots;
use super::tree::Tree;
use crate::clock::{ServiceTime, SharedClock};
use crate::config::{Collect, Settings, Tenant};
use crate::content::TenantId;
use crate::http::Http;
use crate::report::{Report, Rest};
use crate::store::Store;
use crate::token::{AppAlarms, TokenSource};

/// Each tenant that starts, anew or with other settings, adds this to the time over which all of them start, so that a
/// few start at once and a thousand do not.
const SPREAD_EACH: Duration = Duration::from_millis(100);

/// How often a scheduler that does not turn is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What all trees of the process share, and whoever brings tenants.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where content, queue and watermarks are kept.
    pub store: Store,
    /// What the operator is told.
    pub report: Arc<Report>,
    /// The two connection pools.
    pub http: Http,
    /// The service's time; the tenants go by that of their cloud.
    pub time: Arc<ServiceTime>,
    /// The host's time.
    pub clock: SharedClock,
    /// The alarms of apps.
    pub apps: Arc<AppAlarms>,
}

/// What a configuration changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Tenants that were not known.
    pub added: Vec<TenantId>,
    /// Tenants that are no longer known.
    pub removed: Vec<TenantId>,
    /// Tenants with other settings than before.
    pub changed: Vec<TenantId>,
    /// How many tenants are as they were.
    pub unchanged: usize,
}

/// The tenants and their trees. One for the process.
#[derive(Debug)]
pub struct Registry {
    shared: Shared,
    slots: Slots,
    /// For those who are listing by Graph.
    health: Arc<Semaphore>,
    books: Mutex<Books>,
    /// The tenant whose supervisor ended although nobody stopped it.
    failed: watch::Sender<Option<TenantId>>,
    /// What the trees are to do.
    assignment: Assignment,
}

#[derive(Debug, Default)]
struct Books {
    tenants: BTreeMap<TenantId, Entry>,
    /// The tokens for Graph, which are kept as those for the management API are.
    graph_tokens: BTreeMap<TenantId, TokenSource>,
    /// The ways to Graph, so that what was asked there counts whoever asks next.
    lines: BTreeMap<TenantId, (Identity, Line)>,
    /// Trees of tenants that are gone, on their way to their end.
    leaving: BTreeMap<TenantId, Running>,
    /// Nothing is started any more.
    closed: bool,
}

#[derive(Debug)]
enum Entry {
    /// It is collected.
    Collecting { order: Box<Order>, running: Running, token: TokenSource },
    /// It is not, for this reason. The token that it had is kept: a pause of seconds must not cost another one.
    Resting(Rest, Option<TokenSource>),
}

impl Entry {
    fn is(&self, goal: &Goal) -> bool {
        match (self, goal) {
            (Self::Collecting { order, .. }, Goal::Collect(goal)) => order == goal,
            (Self::Resting(rest, _), Goal::Rest(goal)) => rest == goal,
            _ => false,
        }
    }

    const fn running(&self) -> Option<&Running> {
        match self {
            Self::Collecting { running, .. } => Some(running),
            Self::Resting(..) => None,
        }
    }

    fn stopped(self) -> (Option<Running>, Option<TokenSource>) {
        match self {
            Self::Collecting { running, token, .. } => {
                running.stop.cancel();
                (Some(running), Some(token))
            }
            Self::Resting(_, token) => (None, token),
        }
    }
}

/// What is to become of a tenant.
#[derive(Debug)]
enum Goal {
    Collect(Box<Order>),
    Rest(Rest),
}

impl Goal {
    fn of(settings: &Settings, member: &Member) -> Self {
        if let Some(trouble) = &member.trouble {
            return Self::Rest(Rest::Unable(trouble.clone(), member.held));
        }
        let collects =
            |tenant: &Tenant| tenant.enabled && (tenant.cloud.management.is_some() || settings.health.enabled);
        match (member.tenant(settings).filter(collects), member.held) {
            (Some(_), Some(since)) => Self::Rest(Rest::Held(since)),
            (Some(tenant), None) => match settings.apps.get(&tenant.app) {
                Some(app) => Self::Collect(Box::new(Order::new(settings, &tenant, app))),
                None => Self::Rest(Rest::Disabled),
            },
            (None, _) => Self::Rest(Rest::Disabled),
        }
    }
}

/// A tree that was started.
#[derive(Debug)]
struct Running {
    /// `None` where there are no audit records to collect.
    tree: Option<Arc<Tree>>,
    /// The way to Graph, if its health is collected.
    line: Option<Line>,
    course: Arc<Course>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
}

impl Registry {
    /// Knows no tenant yet.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self {
            shared,
            slots: Slots::new(Collect::default().concurrency),
            health: Arc::new(Semaphore::new(health::AT_A_TIME)),
            books: Mutex::default(),
            failed: watch::Sender::new(None),
            assignment: Assignment::Always,
        }
    }

    /// The same for a run that ends by itself. Nobody hears notifications, so that none are asked for, and webhooks are left
    /// as they are.
    #[must_use]
    pub fn assigned(shared: Shared, assignment: Assignment) -> Self {
        Self { assignment, ..Self::new(shared) }
    }

    /// Makes the trees what `settings` and `roster` say. Returns at once; trees end and start in the background.
    pub fn apply(&self, settings: &Settings, roster: &Roster) -> Changes {
        self.slots.resize(settings.collect.concurrency);
        let mut changes = Changes::default();
        let mut books = self.books();
        if books.closed {
            return changes;
        }
        let gone: Vec<_> = books.tenants.keys().filter(|id| !roster.contains(**id)).copied().collect();
        for id in gone {
            if let (Some(running), _) = books.tenants.remove(&id).map_or((None, None), Entry::stopped) {
                books.leaving.insert(id, running);
            }
            books.graph_tokens.remove(&id);
            books.lines.remove(&id);
            self.shared.report.remove(id);
            changes.removed.push(id);
        }
        books.leaving.retain(|_, running| !running.task.is_finished());

        let goals: Vec<_> = roster.members().map(|member| (member, self.goal(settings, member))).collect();
        let is_same = |id: TenantId, goal: &Goal| books.tenants.get(&id).is_some_and(|entry| entry.is(goal));
        let starts = |(member, goal): &&(&Member, Goal)| matches!(goal, Goal::Collect(_)) && !is_same(member.id, goal);
        let starting = goals.iter().filter(starts).count();
        self.shared.report.expect(goals.len(), starting > 0);
        let spread = spread(starting, settings);
        for (member, goal) in goals {
            let id = member.id;
            let report = self.shared.report.tenant(id, &member.name);
            report.describe(&member.origins, &member.cloud, &member.section(), &member.content_types);
            if books.tenants.get(&id).is_some_and(|entry| entry.is(&goal)) {
                changes.unchanged += 1;
                continue;
            }
            let before = books.tenants.remove(&id);
            let known = before.is_some();
            if known {
                changes.changed.push(id);
            } else {
                report.stored_before(self.shared.store.stored_today(id));
                changes.added.push(id);
            }
            report.forget_troubles();
            let (running, token) = before.map_or((None, None), Entry::stopped);
            // A tenant that comes back while it is leaving waits for its old tree too.
            let last = running.or_else(|| books.leaving.remove(&id));
            let entry = match goal {
                Goal::Collect(order) => {
                    report.starts();
                    let token = self.token(token_request(id, &order.identity), token);
                    let tree = self.tree(id, &order, token.clone(), report.clone(), known);
                    let delay = plan::spread(id, None, spread);
                    let (stop, course) = match &tree {
                        Some(tree) => (tree.stop.clone(), Arc::clone(&tree.course)),
                        None => (CancellationToken::new(), Arc::new(self.course(&order))),
                    };
                    let line = self.collects_health(&order).then(|| self.line(id, &order.identity, &token, &mut books));
                    // Where there is nothing but Graph, an errand may have made it before.
                    let only = line.as_ref().filter(|_| order.identity.cloud.management.is_none());
                    let token = only.map_or(token, |line| line.token().clone());
                    let way = Way { stop: stop.clone(), course: Arc::clone(&course) };
                    let station = line.clone().map(|line| self.station(id, &order, line, report, way));
                    let parts = Starting { tenant: id, tree, station, line, course, stop };
                    let running = self.start(parts, last, delay, settings.daemon.drain);
                    Entry::Collecting { order, running, token }
                }
                Goal::Rest(rest) => {
                    report.rests(&rest);
                    if let Some(last) = last {
                        books.leaving.insert(id, last);
                    }
                    Entry::Resting(rest, token)
                }
            };
            books.tenants.insert(id, entry);
        }
        if !(changes.added.is_empty() && changes.removed.is_empty() && changes.changed.is_empty()) {
            info!(
                added = changes.added.len(),
                removed = changes.removed.len(),
                changed = changes.changed.len(),
                unchanged = changes.unchanged,
                "tenants follow the configuration"
            );
        }
        changes
    }

    /// Lets the apps that are refused be asked about again, each by one tenant.
    pub fn look_again(&self) {
        self.shared.apps.look_again();
    }

    /// Returns when a tenant that is collected no longer has no tasks left; those that take longer than `limit` are
    /// abandoned, which loses nothing.
    pub(super) async fn has_left(&self, id: TenantId, limit: Duration) {
        let leaving = self.books().leaving.get(&id).map(|last| (last.ended.clone(), last.task.abort_handle()));
        let Some((ended, task)) = leaving else { return };
        if timeout(limit, ended.cancelled()).await.is_err() {
            task.abort();
            ended.cancelled().await;
        }
    }

    /// Whether retrievals begin. What is listed is queued all the same, so that it is known what waits.
    pub fn let_retrieve(&self, go_on: bool) {
        if go_on { self.slots.open() } else { self.slots.close() }
    }

    /// Stops all trees: nothing new is sent; what is being received may take `limit` to become durable, then it is
    /// abandoned. Returns when none is left.
    pub async fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut running: Vec<Running> = {
            let mut books = self.books();
            books.closed = true;
            let Books { tenants, leaving, .. } = &mut *books;
            let current = std::mem::take(tenants).into_values().filter_map(|entry| entry.stopped().0);
            current.chain(std::mem::take(leaving).into_values()).collect()
        };
        for running in &running {
            running.stop.cancel();
        }
        let mut abandoned = 0;
        for Running { task, .. } in &mut running {
            if timeout_at(deadline, &mut *task).await.is_err() {
                task.abort();
                // Its end is at its next await; the outcome is of no interest any more.
                _ = task.await;
                abandoned += 1;
            }
        }
        if abandoned > 0 {
            warn!(
                tenants = abandoned,
                "retrievals were abandoned at the end of the drain limit; they will be repeated"
            );
        }
    }

    /// Resolves when a tenant's supervisor has ended although nobody stopped it, which no panic of a tenant's tasks
    /// can bring about: the daemon stops, failing.
    pub async fn failed(&self) -> TenantId {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(tenant) = *failed.borrow_and_update() {
                return tenant;
            }
            // The sender lives in `self`.
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves when the scheduler is seen to turn: at most half of the tenants' drivers hang. One that hangs by itself is
    /// that tenant's trouble, and no reason to stop the others.
    pub async fn pulse(&self) {
        while self.is_stalled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_stalled(&self) -> bool {
        let now = Instant::now();
        let books = self.books();
        let running: Vec<_> = books.tenants.values().filter_map(Entry::running).collect();
        let trees: Vec<_> = running.into_iter().filter_map(|running| running.tree.as_ref()).collect();
        let stalled = trees.iter().filter(|tree| tree.is_stalled(now)).count();
        stalled * 2 > trees.len()
    }

    fn goal(&self, settings: &Settings, member: &Member) -> Goal {
        match Goal::of(settings, member) {
            Goal::Collect(order) if self.assignment != Assignment::Always => {
                let dlp = order.dlp.clone().filter(|_| self.assignment == Assignment::Once);
                Goal::Collect(Box::new(Order { hooks: None, dlp, ..*order }))
            }
            goal => goal,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time over which so many tenants start.
fn spread(starting: usize, settings: &Settings) -> Duration {
    let together = u32::try_from(starting.saturating_sub(1)).unwrap_or(u32::MAX);
    SPREAD_EACH.saturating_mul(together).min(settings.daemon.start_spread).min(settings.collect.poll_interval)
}
