//! `tenantry run`: the daemon, and the only place where the parts are put together.
//!
//! The order of the start is the order of what needs what: settings, log, store (with its lock), admin socket, tenants,
//! and readiness when a tenant has a token and was listed, or after a minute. The order of the end is the reverse. A shared part that ends unexpectedly (the
//! store's writers, the admin socket, a tenant's supervisor) stops the daemon in that order too, with a failing exit
//! code, so that systemd starts it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ground::Ground;
use super::reloading::{self, Answer, Reload, Reloads};
use super::{Exit, expiry, heartbeat, opening, socket};
use crate::clock::ServiceTime;
use crate::config::{self, Settings, StoreSettings};
use crate::consent::Desk;
use crate::doctor::Doctor;
use crate::event;
use crate::http::Http;
use crate::lifecycle::{self, Lifecycle, Request, Systemd};
use crate::logging::{self, LogLevel};
use crate::report::Report;
use crate::store::Store;
use crate::tenant::{Keeper, Registry};
use crate::upkeep;
use crate::web::admin::AdminSocket;
use crate::web::doctor::Surgery;
use crate::web::graph;
use crate::web::inventory;
use crate::web::invites;
use crate::web::operator::OperatorListener;
use crate::web::public::PublicListener;
use crate::web::reload::{Order, ReloadRequest, Reloaded};
use crate::web::servicecomms::ServiceComms;
use crate::web::subscriptions;
use crate::web::tenants;
use crate::web::{backfill, content};
use crate::webhook::Receiver;

/// How often the sentence that systemd shows is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked for the proof that the daemon collects,
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// and for how long readiness waits for it. A daemon that cannot reach Microsoft is of use all the same: it hands out
/// what it has and collects when it can, so that ending it would help nobody.
const PROVEN_BY: Duration = Duration::from_mins(1);
/// How much longer a start may take each time that systemd is told that it goes on, and how often it is told.
const STARTING: (Duration, Duration) = (Duration::from_mins(1), Duration::from_secs(20));
/// How long it may take to leave a start as it is.
const ABANDON: Duration = Duration::from_secs(5);

/// The arguments of `tenantry run`.
#[derive(Debug, Args)]
#[command(after_help = "Signals: SIGTERM and SIGINT stop in order, a second one at once; SIGHUP does what \
                        `tenantry reload` does.\n\n\
                        Examples:\n  tenantry run\n  tenantry run --config ./tenantry.toml")]
pub struct RunArgs {
    /// Let a reload remove more than 10 tenants and more than 10 % of them; otherwise such a reload is refused,
    /// because a file that is missing looks the same
    #[arg(long)]
    pub allow_removal: bool,
}

/// Runs until it is told to stop.
pub async fn run(config: &Path, args: RunArgs) -> anyhow::Result<Exit> {
    let settings = config::load(config)?;
    let level = logging::start(settings.log.format, &settings.log.level)?;
    let mut lifecycle = Lifecycle::start()?;
    for warning in &settings.warnings {
        warn!(message_id = event::SETTING_WARNING, "{warning}");
    }
    let mut reloads = Reloads::default();
    let daemon = {
        let start = Daemon::start(config, settings, args.allow_removal, level);
        tokio::pin!(start);
        loop {
            tokio::select! {
                daemon = &mut start => break daemon,
                request = lifecycle.next() => match request {
                    // What is being started was read before.
                    Request::Reload => reloads.want(),
                    // A start that waits for the store's lock or reads a large store need not be waited for: nothing was
                    // acknowledged yet.
                    Request::Stop | Request::StopNow => {
                        Systemd::stopping(ABANDON);
                        info!("stopping before the start is complete");
                        lifecycle::log_end(Exit::Done as u8);
                        return Ok(Exit::Done);
                    }
                },
            }
        }
    };
    match daemon {
        Ok(daemon) => {
            let exit = daemon.serve(&mut lifecycle, reloads).await;
            lifecycle::log_end(exit as u8);
            Ok(exit)
        }
        Err(start) => {
            error!(message_id = event::FAILED, "cannot start: {}", super::told(&start));
            // The journal has it; standard error, which may be the same place, need not say it again.
            Ok(Exit::of(&start))
        }
    }
}

/// Opening a large store may take longer than a unit allows for a start.
async fn extend_start() {
    let (longer, every) = STARTING;
    let mut telling = interval(every);
    loop {
        telling.tick().await;
        Systemd::starting(longer);
    }
}

/// Everything that runs.
struct Daemon {
    config: PathBuf,
    settings: Arc<Settings>,
    allow_removal: bool,
    level: LogLevel,
    report: Arc<Report>,
    time: Arc<ServiceTime>,
    store: Store,
    http: Http,
    registry: Arc<Registry>,
    keeper: Keeper,
    systemd: Systemd,
    /// Why the last new configuration was refused, if it was.
    refused: Option<String>,
    /// What those who look after the disk go by.
    upkeep: watch::Sender<StoreSettings>,
    orders: mpsc::Receiver<Order>,
    stop_admin: CancellationToken,
    admin: JoinHandle<()>,
    operator: OperatorListener,
    desk: Arc<Desk>,
    public: PublicListener,
}

impl Daemon {
    async fn start(config: &Path, settings: Settings, allow_removal: bool, level: LogLevel) -> anyhow::Result<Self> {
        let ground = Ground::of(&settings)?;
        let (time, http, clock) = (Arc::clone(&ground.time), ground.http.clone(), Arc::clone(&ground.clock));
        let stop_admin = CancellationToken::new();
        // Before the store: that a long opening is a start and no hang can be seen then.
        let operator = OperatorListener::start(&settings, stop_admin.clone());
        let store = tokio::select! {
            store = opening::for_daemon(&settings, Arc::clone(&time)) => store?,
            () = extend_start() => unreachable!("it has no end"),
        };
        let shared = ground.shared(store.clone());
        let report = Arc::clone(&shared.report);
        // One caller at a time: the next one waits for its turn.
        let (order, orders) = mpsc::channel(1);
        let admin = AdminSocket::bind(
            &settings.admin_socket(),
            &settings.store.path,
            Arc::clone(&report),
            store.clone(),
            order,
            stop_admin.clone(),
        )
        .map_err(|error| socket::not_made(&settings.admin_socket(), &error))?;
        let registry = Arc::new(Registry::new(shared.clone()));
        let settings = Arc::new(settings);
        let keeper =
            Keeper::start(store.clone(), Arc::clone(&registry), Arc::clone(&time), Arc::clone(&settings)).await?;
        let desk = Desk::new(shared, keeper.clone());
        desk.resume().await?;
        let receiver = Receiver::new(Arc::clone(&registry), Arc::clone(&report));
        let public = PublicListener::start(&settings, Arc::clone(&desk), receiver, stop_admin.clone());
        let comms = ServiceComms::new(keeper.clone(), Arc::clone(&report), store.clone());
        operator.open(admin.service(), public.shown(), comms);
        let commands = tenants::routes(keeper.clone(), Arc::clone(&report), store.clone());
        let surgery = Surgery::new(Doctor::new(http.clone(), clock), Arc::clone(&registry));
        let commands = commands.merge(subscriptions::routes(keeper.clone())).merge(graph::routes(keeper.clone()));
        let commands = commands.merge(inventory::routes(keeper.clone(), stop_admin.clone()));
        let commands = commands.merge(backfill::routes(keeper.clone())).merge(content::routes(keeper.clone()));
        let commands = commands.merge(invites::routes(Arc::clone(&desk))).merge(surgery.routes(stop_admin.clone()));
        let admin = tokio::spawn(admin.serve(commands));
        let tenants = keeper.roster().members().len();
        info!(
            message_id = event::STARTED,
            version = env!("CARGO_PKG_VERSION"),
            store = %settings.store.path.display(),
            tenants,
            "started"
        );
        if tenants == 0 {
            warn!(
                message_id = event::SETTING_WARNING,
                "there are no tenants, so that nothing is collected: name one in a file as `[[tenants]]` with an `id`, or \
                 run `tenantry tenant add`"
            );
        }
        let config = config.to_owned();
        let upkeep = watch::Sender::new(settings.store.clone());
        Ok(Self {
            config,
            settings,
            allow_removal,
            level,
            report,
            time,
            store,
            http,
            registry,
            keeper,
            systemd: Systemd::default(),
            refused: None,
            upkeep,
            orders,
            stop_admin,
            admin,
            operator,
            desk,
            public,
        })
    }

    /// Runs until somebody asks for the end or a shared part fails.
    async fn serve(mut self, lifecycle: &mut Lifecycle, mut reloads: Reloads) -> Exit {
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let report = Arc::clone(&self.report);
        let summaries = report.summarise();
        let (store, registry) = (self.store.clone(), Arc::clone(&self.registry));
        let beats = heartbeat::beat(&store, &registry);
        let proof = timeout(PROVEN_BY, proven(&report));
        let upkeep = upkeep::look_after(
            self.store.clone(),
            Arc::clone(&self.registry),
            Arc::clone(&self.report),
            self.upkeep.subscribe(),
        );
        let mut certificates = interval(expiry::EVERY);
        tokio::pin!(summaries, beats, proof, upkeep);
        let mut ready = false;
        let exit = loop {
            if reloads.take_wanted() {
                self.begin_reload(&mut reloads, ReloadRequest::default(), None, ready);
            }
            tokio::select! {
                request = lifecycle.next() => match request {
                    Request::Reload => reloads.want(),
                    Request::Stop => break Exit::Done,
                    Request::StopNow => return Exit::Failed,
                },
                Some(Order { request, answer }) = self.orders.recv(), if reloads.is_idle() => {
                    self.begin_reload(&mut reloads, request, Some(answer), ready);
                }
                (reload, settings) = reloads.read() => {
                    self.end_reload(reload, settings);
                    certificates.reset_immediately();
                }
                _ = certificates.tick() => {
                    let (operator, public) = (self.operator.settings(), self.public.settings());
                    let shown = [operator.tls.as_ref(), public.tls.as_ref()];
                    expiry::tell(&self.settings, shown, &report, self.time.now());
                }
                proof = &mut proof, if !ready => {
                    ready = true;
                    if proof.is_ok() {
                        info!(message_id = event::READY, "collects: a tenant has a token and was listed");
                    } else {
                        warn!(seconds = PROVEN_BY.as_secs(), "no tenant could be listed so far; going on");
                    }
                    self.systemd.status(&self.sentence());
                    self.systemd.ready();
                }
                failure = self.store.failed() => {
                    error!(message_id = event::FAILED, error = &failure as &dyn std::error::Error, "the store has failed");
                    break Exit::TryAgain;
                }
                tenant = self.registry.failed() => {
                    error!(message_id = event::FAILED, %tenant, "the supervisor of a tenant has ended unexpectedly");
                    break Exit::Failed;
                }
                served = &mut self.admin => {
                    error!(message_id = event::FAILED, ?served, "the admin socket has ended");
                    break Exit::Failed;
                }
                () = self.operator.ended() => {
                    error!(message_id = event::FAILED, "the operators' listener has ended");
                    break Exit::Failed;
                }
                () = self.public.ended() => {
                    error!(message_id = event::FAILED, "the customers' listener has ended");
                    break Exit::Failed;
                }
                _ = status.tick() => {
                    self.systemd.status(&self.sentence());
                    self.leave_notes(false);
                }
                () = &mut upkeep => unreachable!("looking after the disk has no end"),
                () = &mut beats => unreachable!("the beats have no end"),
                () = &mut summaries => unreachable!("the summaries have no end"),
            }
        };
        self.stop(lifecycle, exit).await
    }

    /// What systemd shows.
    fn sentence(&self) -> String {
        let sentence = self.report.sentence();
        match &self.refused {
            Some(why) => format!("{sentence}; the new configuration was refused: {why}"),
            None => sentence,
        }
    }

    /// Begins to read the configuration again.
    fn begin_reload(&self, reloads: &mut Reloads, request: ReloadRequest, answer: Option<Answer>, ready: bool) {
        // Before it is ready, the end of a reload would be taken for readiness.
        if ready {
            self.systemd.reloading();
        }
        reloads.begin(request, answer, ready, reloading::load(self.config.clone()));
    }

    /// The configuration was read; whatever is wrong with it, the old one stays in effect.
    fn end_reload(&mut self, reload: Reload, settings: anyhow::Result<Settings>) {
        let Reload { request, answer, told, .. } = reload;
        let outcome = settings.and_then(|settings| self.follow(settings, &request));
        let outcome = outcome.map_err(|problem| format!("{problem:#}"));
        if let Err(problem) = &outcome {
            error!(message_id = event::RELOAD_REFUSED, "the configuration stays as it was: {problem}");
        }
        self.refused = outcome.as_ref().err().and_then(|problem| problem.lines().next().map(str::to_owned));
        if told {
            self.systemd.status(&self.sentence());
            self.systemd.ready();
        }
        if let Some(answer) = answer {
            // Who asked may have gone; the journal has the outcome.
            drop(answer.send(outcome));
        }
    }

    fn follow(&mut self, settings: Settings, request: &ReloadRequest) -> anyhow::Result<Reloaded> {
        if !self.allow_removal && !request.allow_removal {
            settings.removal_guard(&self.settings)?;
        }
        if settings.network != self.settings.network {
            self.http.follow(&settings.network)?;
        }
        for warning in &settings.warnings {
            warn!(message_id = event::SETTING_WARNING, "{warning}");
        }
        let needs_restart = settings.needs_restart(&self.settings);
        for key in &needs_restart {
            warn!(message_id = event::RESTART_NEEDED, key, "the new value of `{key}` takes effect with a restart");
        }
        self.level.set(&settings.log.level)?;
        let warnings = settings.warnings.iter().map(ToString::to_string).collect();
        let settings = Arc::new(settings.keep_what_needs_restart(&self.settings));
        let changes = self.keeper.follow(Arc::clone(&settings));
        self.operator.follow(&settings);
        self.public.follow(&settings);
        let tenants = self.keeper.roster().members().len();
        info!(message_id = event::RELOADED, tenants, "configuration read again");
        let reloaded = Reloaded {
            config: self.config.clone(),
            tenants,
            added: changes.added.len(),
            removed: changes.removed.len(),
            changed: changes.changed.len(),
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
            warnings,
        };
        self.settings = settings;
        self.upkeep.send_replace(self.settings.store.clone());
        Ok(reloaded)
    }

    /// Leaves in the store what `status` shows of troubles while no daemon runs.
    fn leave_notes(&self, last: bool) {
        for (tenant, note) in self.report.take_notes(last) {
            self.store.set_note(tenant, note);
        }
    }

    /// Lets what is under way finish, within the drain limit; a second request to stop ends it at once.
    async fn stop(mut self, lifecycle: &mut Lifecycle, exit: Exit) -> Exit {
        let limit = self.settings.daemon.drain;
        Systemd::stopping(limit);
        info!(limit_s = limit.as_secs(), "stopping");
        self.leave_notes(true);
        let orderly = async {
            self.desk.close();
            self.registry.drain(limit).await;
            self.stop_admin.cancel();
            // Readers are told by the token; one that does not read any more must not hold up the end.
            let _ = timeout(Duration::from_secs(2), self.admin).await;
            let _ = timeout(Duration::from_secs(2), self.operator.ended()).await;
            let _ = timeout(Duration::from_secs(2), self.public.ended()).await;
            if let Err(error) = self.store.close().await {
                error!(
                    message_id = event::FAILED,
                    error = &error as &dyn std::error::Error,
                    "the store did not close in order; what it acknowledged is safe"
                );
            }
        };
        tokio::select! {
            () = orderly => exit,
            () = hard_stop(lifecycle) => {
                warn!("stopped at once; what was acknowledged is safe");
                Exit::Failed
            }
        }
    }
}

/// Resolves when it is proven that the daemon collects.
async fn proven(report: &Report) {
    let mut look = interval(LOOK_EVERY);
    while !report.is_proven() {
        look.tick().await;
    }
}

async fn hard_stop(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await != Request::StopNow {}
}
