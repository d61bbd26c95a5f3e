//! Which tenants are collected: follows configuration and roster, at start and whenever one of them changes.
//!
//! A change touches only what it means: a tenant that is new is started, one that is gone is stopped, one whose
//! settings differ is stopped and started again, and all others go on without noticing. A tenant that is disabled, held or
//! gone keeps its data and its state and resumes from it. A token is kept over a restart of its tenant's tree unless
//! the cloud has changed; with another app or credential the next one is asked for soon.
//!
//! **Invariants:** never two trees for one tenant: the next one starts when the last one has ended. A tenant that is
//! stopped sends nothing more; what it is receiving is finished within a limit, or abandoned, which loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::backfill::Backfill;
use super::content::Investigator;
use super::course::{Assignment, Course, Headway};
use super::farewell::Farewell;
use super::gate::Gate;
use super::glossary;
use super::health::line::Line;
use super::health::{self, Station};
use super::hook::Hooks;
use super::inventory::{self, Inventory, Stocktaker};
use super::patient::{Means, Patient};
use super::plan;
use super::roster::{Member, Roster};
use super::slots::Slots;
use super::subscriber::Subscriber;
use super::supervisor::supervise;
use super::tree::{Parts, Tree};
use super::waits::Waits;
use crate::activity::{ActivityClient, Limits};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::Cloud;
use crate::config::{App, Collect, Dlp, Health, Settings, Tenant, TokenSettings};
use crate::content::{ContentType, TenantId};
use crate::graph::GraphClient;
use crate::http::Http;
use crate::report::{Report, Rest, TenantReport};
use crate::store::{Store, StoreError};
use crate::token::{AppAlarms, TokenRequest, TokenSource};

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

/// What is started for a tenant.
struct Starting {
    tenant: TenantId,
    tree: Option<Arc<Tree>>,
    station: Option<Arc<Station>>,
    line: Option<Line>,
    course: Arc<Course>,
    stop: CancellationToken,
}

/// What a tenant's tasks have in common: their end, and whether they have come to it.
struct Way {
    stop: CancellationToken,
    course: Arc<Course>,
}

/// All that makes a tree what it is: if this is the same after a reload, the tree goes on.
#[derive(Debug, Clone, PartialEq)]
struct Order {
    identity: Identity,
    publisher: Uuid,
    content_types: BTreeSet<ContentType>,
    collect: Collect,
    /// What is notified of new content.
    hooks: Option<Hooks>,
    /// Which names of sensitive information types are wanted, if any are.
    dlp: Option<Dlp>,
    health: Health,
}

impl Order {
    fn new(settings: &Settings, tenant: &Tenant, app: &Arc<App>) -> Self {
        Self {
            identity: Identity { cloud: Arc::clone(&tenant.cloud), app: Arc::clone(app), token: settings.token },
            publisher: app.publisher_id.unwrap_or_else(|| tenant.id.uuid()),
            content_types: tenant.content_types.clone(),
            collect: settings.collect,
            hooks: Hooks::of(&settings.public),
            dlp: Some(&settings.dlp)
                .filter(|dlp| tenant.content_types.contains(&ContentType::Dlp) && !dlp.languages.is_empty())
                .cloned(),
            health: settings.health,
        }
    }
}

/// All that makes a token what it is.
#[derive(Debug, Clone, PartialEq)]
struct Identity {
    cloud: Arc<Cloud>,
    app: Arc<App>,
    token: TokenSettings,
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
                    let request = token_request(id, &order.identity);
                    let token = token.filter(|token| token.follow(&request, &self.shared.apps));
                    let token = token.unwrap_or_else(|| self.token_source(request));
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

    /// The tenants, for whoever looks for a cause. Their names are those of the report.
    #[must_use]
    pub fn patients(&self) -> Vec<Patient> {
        let books = self.books();
        let patient = |(id, entry): (&TenantId, &Entry)| {
            let report = self.shared.report.known(*id)?;
            let means = match entry {
                Entry::Collecting { order, running, token } => Some(Means {
                    cloud: Arc::clone(&order.identity.cloud),
                    app: Arc::clone(&order.identity.app),
                    content_types: order.content_types.clone(),
                    token: token.clone(),
                    client: running.tree.as_ref().map(|tree| tree.client.clone()),
                    gate: running.tree.as_ref().map(|tree| tree.gate.clone()).unwrap_or_default(),
                    line: running.line.clone(),
                }),
                Entry::Resting(..) => None,
            };
            let unable = match entry {
                Entry::Resting(Rest::Unable(trouble, _), _) => Some(trouble.clone()),
                _ => None,
            };
            Some(Patient { tenant: *id, name: report.name(), means, unable, report: Some(report) })
        };
        books.tenants.iter().filter_map(patient).collect()
    }

    /// How far the tenants have come that are collected in a run that ends by itself.
    #[must_use]
    pub fn headway(&self) -> BTreeMap<TenantId, Headway> {
        let books = self.books();
        let of = |(id, entry): (&TenantId, &Entry)| {
            let course = &entry.running()?.course;
            Some((*id, course.headway(self.shared.store.queue_depth(*id).entries)))
        };
        books.tenants.iter().filter_map(of).collect()
    }

    /// A tenant that is collected, for whoever receives its notifications.
    #[must_use]
    pub fn subscriber(&self, id: TenantId) -> Option<Subscriber> {
        match self.books().tenants.get(&id)? {
            Entry::Collecting { order, running, .. } => {
                let tree = Arc::clone(running.tree.as_ref()?);
                Some(Subscriber { tree, client_id: order.identity.app.client_id.clone() })
            }
            Entry::Resting(..) => None,
        }
    }

    /// What takes a tenant's inventory, if it is collected.
    pub(super) fn stocktaker(&self, id: TenantId) -> Option<Stocktaker> {
        Some(Stocktaker { tree: self.running_tree(id)?, apart: false })
    }

    /// The same of one that nobody collects at the moment, although these settings would have it collected.
    fn stocktaker_apart(&self, settings: &Settings, member: &Member) -> Option<Stocktaker> {
        let tenant = member.tenant(settings)?;
        let order = Order::new(settings, &tenant, settings.apps.get(&tenant.app)?);
        let token = self.token_source(token_request(tenant.id, &order.identity));
        let report = self.shared.report.tenant(tenant.id, &member.name);
        Some(Stocktaker { tree: self.tree(tenant.id, &order, token, report, false)?, apart: true })
    }

    /// Takes a tenant's inventory while no daemon runs: by itself, with a token of its own.
    pub async fn take_inventory_apart(&self, settings: &Settings, member: &Member) -> Result<Inventory, StoreError> {
        let now = self.shared.time.now();
        match inventory::not_taken(member, now) {
            Some(not_taken) => Ok(not_taken),
            None => match self.stocktaker_apart(settings, member) {
                Some(stocktaker) => stocktaker.take().await,
                None => Ok(inventory::not_configured(member, now)),
            },
        }
    }

    /// A tenant that is collected, for whoever wants a span of it to be listed again.
    #[must_use]
    pub fn backfill(&self, id: TenantId) -> Option<Backfill> {
        Some(Backfill { tree: self.running_tree(id)? })
    }

    /// A tenant that is collected, for whoever wants a blob of it to be fetched.
    #[must_use]
    pub fn investigator(&self, id: TenantId) -> Option<Investigator> {
        Some(Investigator { tree: self.running_tree(id)? })
    }

    /// What collects a tenant's audit records, if anything does.
    fn running_tree(&self, id: TenantId) -> Option<Arc<Tree>> {
        self.books().tenants.get(&id)?.running()?.tree.clone()
    }

    /// Lets the apps that are refused be asked about again, each by one tenant.
    pub fn look_again(&self) {
        self.shared.apps.look_again();
    }

    /// What can speak for a tenant that is to be collected no longer; `None` if it cannot be collected with these settings.
    /// It has the token of the tenant, and gate and waits of its tree, if there are such.
    pub(super) fn farewell(&self, settings: &Settings, member: &Member) -> Option<Farewell> {
        let tenant = member.tenant(settings)?;
        let order = Order::new(settings, &tenant, settings.apps.get(&tenant.app)?);
        let time = order.identity.cloud.time(&self.shared.time);
        let waits = || Arc::new(Waits::new(tenant.id, self.shared.store.clone(), time));
        let client = self.client(tenant.id, &order)?;
        let (token, gate, waits) = match self.books().tenants.get(&tenant.id) {
            Some(Entry::Collecting { token, running: Running { tree: Some(tree), .. }, .. }) => {
                (Some(token.clone()), tree.gate.clone(), Arc::clone(&tree.waits))
            }
            Some(Entry::Collecting { token, .. }) => (Some(token.clone()), Gate::default(), waits()),
            Some(Entry::Resting(_, token)) => (token.clone(), Gate::default(), waits()),
            None => (None, Gate::default(), waits()),
        };
        let request = token_request(tenant.id, &order.identity);
        let token = token.filter(|token| token.follow(&request, &self.shared.apps));
        let token = token.unwrap_or_else(|| self.token_source(request));
        Some(Farewell::new(client, token, gate, waits))
    }

    /// The way to Graph of a tenant: that of its tasks if they have one, else one with a token that is kept for it. `None` if
    /// it cannot be collected with these settings.
    pub(super) async fn line_of(&self, settings: &Settings, member: &Member) -> Result<Option<Line>, StoreError> {
        let Some(tenant) = member.tenant(settings) else { return Ok(None) };
        let Some(app) = settings.apps.get(&tenant.app) else { return Ok(None) };
        let order = Order::new(settings, &tenant, app);
        let line = {
            let mut books = self.books();
            let token = match books.tenants.get(&tenant.id) {
                Some(Entry::Collecting { token, .. }) => Some(token.clone()),
                Some(Entry::Resting(_, token)) => token.clone(),
                None => None,
            };
            let request = token_request(tenant.id, &order.identity);
            let token = token.filter(|token| token.follow(&request, &self.shared.apps));
            let token = token.unwrap_or_else(|| self.token_source(request));
            self.line(tenant.id, &order.identity, &token, &mut books)
        };
        line.restore().await?;
        Ok(Some(line))
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

    /// Who lists nothing lists no health either.
    fn collects_health(&self, order: &Order) -> bool {
        order.health.enabled && matches!(self.assignment, Assignment::Always | Assignment::Once)
    }

    /// With all that is to be listed.
    fn course(&self, order: &Order) -> Course {
        let health = if self.collects_health(order) { &ContentType::HEALTH[..] } else { &[] };
        Course::new(self.assignment, &order.content_types.iter().chain(health).copied().collect())
    }

    fn token_source(&self, request: TokenRequest) -> TokenSource {
        let Shared { http, clock, time, apps, .. } = &self.shared;
        let time = request.cloud.time(time);
        TokenSource::new(request, http.control.clone(), Arc::clone(clock), time, apps)
    }

    fn tree(
        &self,
        tenant: TenantId,
        order: &Order,
        token: TokenSource,
        report: TenantReport,
        mended: bool,
    ) -> Option<Arc<Tree>> {
        let Shared { store, time, .. } = &self.shared;
        Some(Tree::new(Parts {
            tenant,
            content_types: order.content_types.clone(),
            collect: order.collect,
            webhook: order.hooks.as_ref().map(|hooks| hooks.of_tenant(tenant)),
            dlp: order.dlp.clone(),
            client: self.client(tenant, order)?,
            token,
            store: store.clone(),
            time: order.identity.cloud.time(time),
            report,
            slots: self.slots.clone(),
            mended,
            course: Arc::new(self.course(order)),
        }))
    }

    /// `None` in a cloud without an Activity API.
    fn client(&self, tenant: TenantId, order: &Order) -> Option<ActivityClient> {
        let bytes = order.collect.max_blob_bytes;
        let limits = Limits { max_compressed: bytes, max_decompressed: bytes };
        let cloud = &order.identity.cloud;
        let (management, time) = (cloud.management.clone()?, cloud.time(&self.shared.time));
        Some(ActivityClient::new(management, tenant, order.publisher, self.shared.http.clone(), time, limits))
    }

    /// The way to Graph: the one that is known, or one with the token that was kept for it. Where a cloud has nothing but
    /// Graph, its `token` is the tenant's.
    fn line(&self, tenant: TenantId, identity: &Identity, token: &TokenSource, books: &mut Books) -> Line {
        if let Some((known, line)) = books.lines.get(&tenant)
            && known == identity
        {
            return line.clone();
        }
        let cloud = &identity.cloud;
        let token = if cloud.management.is_none() {
            token.clone()
        } else {
            let request = graph_token_request(tenant, identity);
            let kept = books.graph_tokens.remove(&tenant).filter(|token| token.follow(&request, &self.shared.apps));
            let token = kept.unwrap_or_else(|| self.token_source(request));
            books.graph_tokens.insert(tenant, token.clone());
            token
        };
        let Shared { store, time, http, .. } = &self.shared;
        let time = cloud.time(time);
        let client = GraphClient::new(Arc::clone(cloud), http.clone(), Arc::clone(&time));
        let line = Line::new(tenant, client, token, Some(Waits::of_health(tenant, store.clone(), time)));
        books.lines.insert(tenant, (identity.clone(), line.clone()));
        line
    }

    fn station(&self, tenant: TenantId, order: &Order, line: Line, report: TenantReport, way: Way) -> Arc<Station> {
        let Shared { store, time, .. } = &self.shared;
        let Way { stop, course } = way;
        let cloud = &order.identity.cloud;
        Station::new(health::Parts {
            tenant,
            settings: order.health,
            line,
            store: store.clone(),
            time: cloud.time(time),
            report,
            places: Arc::clone(&self.health),
            stop,
            course,
            alone: cloud.management.is_none(),
        })
    }

    /// Starts a tree, and beside it the collection of health and of names, once `last` has ended, which it must within `drain`.
    fn start(&self, parts: Starting, last: Option<Running>, delay: Duration, drain: Duration) -> Running {
        let Starting { tenant, tree, station, line, course, stop } = parts;
        let started = tree.clone();
        let watched = Watched { tenant, stop: stop.clone(), failed: self.failed.clone() };
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let (_watched, _end) = (watched, end);
            if let Some(mut last) = last
                && timeout(drain, &mut last.task).await.is_err()
            {
                last.task.abort();
                _ = last.task.await;
            }
            let health = async {
                if let Some(station) = station {
                    health::supervise(station, delay).await;
                }
            };
            let audit = async {
                if let Some(tree) = started {
                    tokio::join!(supervise(Arc::clone(&tree), delay), glossary::supervise(tree, delay));
                }
            };
            tokio::join!(audit, health);
        });
        Running { tree, line, course, stop, task, ended }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn token_request(tenant: TenantId, identity: &Identity) -> TokenRequest {
    let Identity { cloud, app, token } = identity;
    TokenRequest {
        cloud: Arc::clone(cloud),
        tenant,
        audience: cloud.audience().to_owned(),
        endpoint: token.endpoint,
        app: app.name.clone(),
        client_id: app.client_id.clone(),
        credential: app.credential.clone(),
        renew_after: token.renew_after,
    }
}

fn graph_token_request(tenant: TenantId, identity: &Identity) -> TokenRequest {
    TokenRequest { audience: identity.cloud.graph_audience.clone(), ..token_request(tenant, identity) }
}

/// The time over which so many tenants start.
fn spread(starting: usize, settings: &Settings) -> Duration {
    let together = u32::try_from(starting.saturating_sub(1)).unwrap_or(u32::MAX);
    SPREAD_EACH.saturating_mul(together).min(settings.daemon.start_spread).min(settings.collect.poll_interval)
}

/// Notices when a supervisor ends unasked.
#[derive(Debug)]
struct Watched {
    tenant: TenantId,
    stop: CancellationToken,
    failed: watch::Sender<Option<TenantId>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.failed.send_replace(Some(self.tenant));
        }
    }
}
