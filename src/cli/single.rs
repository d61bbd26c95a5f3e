//! A run that ends by itself: what of the daemon collects, without what listens.
//!
//! Tenants' trees, tokens, pace, retries and the store are the daemon's own; this puts them together, waits until they have
//! come to their end ([`course`](crate::tenant::course)), and ends them in order. It gives way to a daemon that waits for the store. Whatever ends it,
//! what was acknowledged is durable, and the next run goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};
use tracing::{error, warn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::ground::Ground;
use super::opening::{self, GIVEN_WAY, Reading};
use super::socket::{Place, Source};
use super::{Ended, Exit, selection};
use crate::config::{self, Settings, StoreSettings};
use crate::content::TenantId;
use crate::event;
use crate::lifecycle::{Lifecycle, Request};
use crate::logging;
use crate::report::StatusSnapshot;
use crate::store::Store;
use crate::tenant::{Assignment, Headway, Registry, Roster, Shared, Verdict};
use crate::upkeep;

/// How often it is looked how far the tenants have come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Who waits for the store for longer than this is a daemon, not a command,
const PATIENT: Duration = Duration::from_secs(6);
/// and goes on waiting until what is under way has had this time to finish.
const HURRIED: Duration = Duration::from_secs(10);

/// The parts, running.
pub(super) struct Single {
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Shared,
    pub(super) roster: Roster,
    /// How many dead letters the tenants had at the beginning.
    pub(super) letters: BTreeMap<TenantId, u64>,
    settings: Settings,
    store: Reading,
    lifecycle: Lifecycle,
    upkeep: watch::Sender<StoreSettings>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// There is nothing more to wait for.
    Over,
    /// Somebody stopped it.
    Stopped,
    /// A daemon needs the store.
    GaveWay,
    /// A part that is everybody's has failed, as the log says.
    Failed(Exit),
}

/// How far the tenants are, with what they have stored so far.
pub(super) struct Look {
    pub(super) tenants: BTreeMap<TenantId, (Headway, Verdict)>,
    pub(super) status: StatusSnapshot,
}

impl Look {
    fn is_over(&self) -> bool {
        self.tenants.values().all(|(_, verdict)| *verdict != Verdict::Working)
    }
}

/// Refuses to run beside a daemon.
pub(super) async fn without_a_daemon(place: &Place, instead: &str) -> anyhow::Result<()> {
    match place.source().await? {
        Source::Store => Ok(()),
        Source::Daemon(_) => {
            let message = format!(
                "a daemon keeps the store at `{}` and collects already: {instead}",
                place.client.store.path.display()
            );
            Err(Ended { exit: Exit::TryAgain, message }.into())
        }
    }
}

impl Single {
    /// Opens the store and lets the tenants begin: these, or all if none is named. What is logged goes to `log`.
    pub(super) async fn start(
        config: &Path,
        purpose: &'static str,
        assignment: Assignment,
        tenants: &[String],
        log: BoxMakeWriter,
    ) -> anyhow::Result<Self> {
        let settings = config::load(config)?;
        logging::start_to(settings.log.format, &settings.log.level, log)?;
        let mut lifecycle = Lifecycle::start()?;
        for warning in &settings.warnings {
            warn!(message_id = event::SETTING_WARNING, "{warning}");
        }
        let ground = Ground::of(&settings)?;
        let store = tokio::select! {
            store = opening::to_collect(&settings.store, purpose, Arc::clone(&ground.time)) => store?,
            () = stop(&mut lifecycle) => return Err(stopped().into()),
        };
        let shared = ground.shared((*store).clone());
        let registry = Arc::new(Registry::assigned(shared.clone(), assignment));
        let begun = async {
            let roster = Roster::join(&settings.outline(), &store.enrolments().await?, &store.held().await?);
            anyhow::Ok((chosen(roster, tenants)?, store.all_dead_letters().await?))
        };
        let (roster, letters) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                store.close().await?;
                return Err(error);
            }
        };
        registry.apply(&settings, &roster);
        // The directories above it may be closed to its owner, who this is now.
        let of_store = StoreSettings { path: store.path().to_owned(), ..settings.store.clone() };
        let upkeep = watch::Sender::new(of_store);
        Ok(Self { registry, shared, roster, letters, settings, store, lifecycle, upkeep })
    }

    /// Waits until no tenant is to be waited for; `show` sees how far they are.
    pub(super) async fn wait(&mut self, patience: Duration, mut show: impl FnMut(&Look)) -> (Ending, Look) {
        let upkeep = upkeep::look_after(
            self.shared.store.clone(),
            Arc::clone(&self.registry),
            Arc::clone(&self.shared.report),
            self.upkeep.subscribe(),
        );
        let mut wanted = None;
        tokio::pin!(upkeep);
        let mut looking = interval(LOOK_EVERY);
        let ending = loop {
            tokio::select! {
                _ = looking.tick() => {
                    let look = self.look(patience);
                    show(&look);
                    if look.is_over() {
                        return (Ending::Over, look);
                    }
                    let now = Instant::now();
                    wanted = self.shared.store.someone_waits().then(|| wanted.unwrap_or(now));
                    if wanted.is_some_and(|since| now.duration_since(since) >= PATIENT) {
                        break Ending::GaveWay;
                    }
                }
                ending = ended(&mut self.lifecycle, &self.shared.store, &self.registry) => break ending,
                () = &mut upkeep => unreachable!("looking after the disk has no end"),
            }
        };
        (ending, self.look(patience))
    }

    /// Does some work, unless something ends the run before that is done.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::select! {
            done = work => Ok(done),
            ending = ended(&mut self.lifecycle, &self.shared.store, &self.registry) => Err(ending),
        }
    }

    /// How far the tenants are.
    pub(super) fn look(&self, patience: Duration) -> Look {
        let now = Instant::now();
        let headway = self.registry.headway();
        let others = headway.values().map(|headway| headway.advanced).max().unwrap_or(now);
        let judged = |(id, headway): (TenantId, Headway)| {
            let verdict = headway.judge(now, others, patience);
            (id, (headway, verdict))
        };
        Look { tenants: headway.into_iter().map(judged).collect(), status: self.shared.report.snapshot() }
    }

    /// Ends in order: what is under way may finish within the drain limit, unless somebody stops it once more. Answers what
    /// there is at the end, with what waits then.
    pub(super) async fn end(self, ending: Ending) -> anyhow::Result<StatusSnapshot> {
        let Self { registry, shared, settings, store, mut lifecycle, upkeep, .. } = self;
        drop(upkeep);
        let drain = settings.daemon.drain;
        let drain = if ending == Ending::GaveWay { drain.min(HURRIED) } else { drain };
        tokio::select! {
            () = registry.drain(drain) => {}
            () = stop(&mut lifecycle) => {
                let message = "stopped at once; what was acknowledged is safe, and the next run goes on from there";
                return Err(Ended { exit: Exit::Failed, message: message.to_owned() }.into());
            }
        }
        for (tenant, note) in shared.report.take_notes(true) {
            store.set_note(tenant, note);
        }
        let mut status = shared.report.snapshot();
        for tenant in &mut status.tenants {
            tenant.queue = store.queue_depth(tenant.id);
        }
        drop((registry, shared));
        store.close().await?;
        Ok(status)
    }
}

/// The tenants that are named, or all.
fn chosen(roster: Roster, wanted: &[String]) -> anyhow::Result<Roster> {
    if wanted.is_empty() {
        return Ok(roster);
    }
    let names = roster.names();
    let mut ids = BTreeSet::new();
    for text in wanted {
        let id = selection::tenant(&names, text)?;
        if let Err(refusal) = roster.member(id) {
            return Err(Ended { exit: Exit::Usage, message: refusal.to_string() }.into());
        }
        ids.insert(id);
    }
    Ok(roster.only(&ids))
}

/// Resolves when somebody stops it, or when a part that is everybody's has failed.
async fn ended(lifecycle: &mut Lifecycle, store: &Store, registry: &Registry) -> Ending {
    tokio::select! {
        () = stop(lifecycle) => Ending::Stopped,
        failure = store.failed() => {
            error!(message_id = event::FAILED, error = &failure as &dyn std::error::Error, "the store has failed");
            Ending::Failed(Exit::TryAgain)
        }
        tenant = registry.failed() => {
            error!(message_id = event::FAILED, %tenant, "the supervisor of a tenant has ended unexpectedly");
            Ending::Failed(Exit::Failed)
        }
    }
}

/// Resolves when somebody stops it.
async fn stop(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await == Request::Reload {}
}

fn stopped() -> Ended {
    Ended { exit: Exit::TryAgain, message: "stopped before anything was collected".to_owned() }
}

impl Ending {
    /// Why it is not known whether there is more, in a sentence; `None` if it is.
    pub(super) fn told(self) -> Option<&'static str> {
        match self {
            Self::Over => None,
            Self::Stopped => {
                Some("stopped before all was collected; nothing is lost, and the next run goes on from here")
            }
            Self::GaveWay => Some(GIVEN_WAY),
            Self::Failed(_) => Some("ended because of the error above; nothing that was acknowledged is lost"),
        }
    }
}
