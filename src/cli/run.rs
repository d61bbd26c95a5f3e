//! `tenantry run`: the daemon, and the only place where the parts are put together.
//!
//! The order of the start is the order of what needs what: settings, log, store (with its lock), tenants, admin
//! socket, and only then readiness. The order of the end is the reverse. A shared part that ends unexpectedly (the
//! store's writers, the admin socket, a tenant's supervisor) stops the daemon in that order too, with a failing exit
//! code, so that systemd starts it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Ended, Exit, opening};
use crate::clock::{ServiceTime, SharedClock, SystemClock};
use crate::config::{self, Settings};
use crate::http::Http;
use crate::lifecycle::{self, Lifecycle, Request, Systemd};
use crate::logging::{self, LogLevel};
use crate::report::Report;
use crate::store::Store;
use crate::tenant::{Registry, Shared};
use crate::token::AppAlarms;
use crate::web::admin::AdminSocket;

/// How often the sentence that systemd shows is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The arguments of `tenantry run`.
#[derive(Debug, Args)]
#[command(after_help = "Signals: SIGTERM and SIGINT stop in order, a second one at once; SIGHUP reads the \
                        configuration again and keeps the old one if the new one has a problem.\n\n\
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
        warn!("{warning}");
    }
    // A stop that comes while the store's lock is waited for must not wait for it.
    let daemon = tokio::select! {
        daemon = Daemon::start(config, settings, args.allow_removal, level) => daemon,
        () = stop_requested(&mut lifecycle) => return Ok(Exit::Done),
    };
    match daemon {
        Ok(daemon) => {
            let exit = daemon.serve(&mut lifecycle).await;
            lifecycle::log_end(exit as u8);
            Ok(exit)
        }
        Err(start) => {
            error!("cannot start: {start:#}");
            // The journal has it; standard error, which may be the same place, need not say it again.
            Ok(Exit::of(&start))
        }
    }
}

async fn stop_requested(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await == Request::Reload {}
}

/// Everything that runs.
struct Daemon {
    config: PathBuf,
    settings: Settings,
    allow_removal: bool,
    level: LogLevel,
    report: Arc<Report>,
    store: Store,
    registry: Registry,
    systemd: Systemd,
    stop_admin: CancellationToken,
    admin: JoinHandle<std::io::Result<()>>,
}

impl Daemon {
    async fn start(config: &Path, settings: Settings, allow_removal: bool, level: LogLevel) -> anyhow::Result<Self> {
        let clock: SharedClock = Arc::new(SystemClock);
        let time = Arc::new(ServiceTime::new(Arc::clone(&clock)));
        let http = Http::new().map_err(|error| Ended {
            exit: Exit::Failed,
            message: format!("the HTTP client cannot be built ({error}): are the host's CA certificates installed?"),
        })?;
        let store = opening::for_daemon(&settings, Arc::clone(&time)).await?;
        let report = Report::new(Arc::clone(&time));
        let stop_admin = CancellationToken::new();
        let admin = AdminSocket::bind(
            &settings.admin_socket(),
            &settings.store.path,
            Arc::clone(&report),
            store.clone(),
            stop_admin.clone(),
        )?;
        let admin = tokio::spawn(admin.serve());
        let registry = Registry::new(Shared {
            store: store.clone(),
            report: Arc::clone(&report),
            http,
            time,
            clock,
            apps: AppAlarms::new(),
        });
        registry.apply(&settings);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            store = %settings.store.path.display(),
            tenants = settings.tenants.len(),
            "started"
        );
        let config = config.to_owned();
        let systemd = Systemd::default();
        Ok(Self { config, settings, allow_removal, level, report, store, registry, systemd, stop_admin, admin })
    }

    /// Runs until somebody asks for the end or a shared part fails.
    async fn serve(mut self, lifecycle: &mut Lifecycle) -> Exit {
        self.systemd.ready();
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let watchdog = self.systemd.watchdog_interval();
        let mut feed = interval(watchdog.unwrap_or(Duration::from_hours(1)));
        let report = Arc::clone(&self.report);
        let summaries = report.summarise();
        tokio::pin!(summaries);
        let exit = loop {
            tokio::select! {
                request = lifecycle.next() => match request {
                    Request::Reload => self.reload(),
                    Request::Stop => break Exit::Done,
                    Request::StopNow => return Exit::Failed,
                },
                failure = self.store.failed() => {
                    error!(error = &failure as &dyn std::error::Error, "the store has failed");
                    break Exit::TryAgain;
                }
                tenant = self.registry.failed() => {
                    error!(%tenant, "the supervisor of a tenant has ended unexpectedly");
                    break Exit::Failed;
                }
                served = &mut self.admin => {
                    error!(?served, "the admin socket has ended");
                    break Exit::Failed;
                }
                _ = status.tick() => {
                    self.systemd.status(&self.report.sentence());
                    self.leave_notes(false);
                }
                _ = feed.tick(), if watchdog.is_some() => self.systemd.alive(),
                () = &mut summaries => unreachable!("the summaries have no end"),
            }
        };
        self.stop(lifecycle, exit).await
    }

    /// Reads the configuration again; whatever is wrong with it, the old one stays in effect.
    fn reload(&mut self) {
        self.systemd.reloading();
        match self.try_reload() {
            Ok(()) => {}
            Err(problem) => error!("the configuration stays as it was: {problem:#}"),
        }
        self.systemd.ready();
    }

    fn try_reload(&mut self) -> anyhow::Result<()> {
        let settings = config::load(&self.config)?;
        if !self.allow_removal {
            settings.removal_guard(&self.settings)?;
        }
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        for key in settings.needs_restart(&self.settings) {
            warn!(key, "the new value of `{key}` takes effect with a restart");
        }
        self.level.set(&settings.log.level)?;
        self.registry.apply(&settings);
        info!(tenants = settings.tenants.len(), "configuration read again");
        self.settings = settings;
        Ok(())
    }

    /// Leaves in the store what `status` shows of troubles while no daemon runs.
    fn leave_notes(&self, last: bool) {
        for (tenant, note) in self.report.take_notes(last) {
            self.store.set_note(tenant, note);
        }
    }

    /// Lets what is under way finish, within the drain limit; a second request to stop ends it at once.
    async fn stop(self, lifecycle: &mut Lifecycle, exit: Exit) -> Exit {
        let limit = self.settings.daemon.drain;
        self.systemd.stopping(limit);
        info!(limit_s = limit.as_secs(), "stopping");
        self.leave_notes(true);
        let orderly = async {
            self.registry.drain(limit).await;
            self.stop_admin.cancel();
            // Readers are told by the token; one that does not read any more must not hold up the end.
            let _ = timeout(Duration::from_secs(2), self.admin).await;
            if let Err(error) = self.store.close().await {
                error!(
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

async fn hard_stop(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await != Request::StopNow {}
}
