//! Who is collected, kept up to date: the one place that changes the store's register of tenants, and that lets the
//! [`Registry`] follow.
//!
//! A reload brings another configuration, a command or a consent another register; each leads to one [`Roster`], which is
//! applied at once.
//!
//! **Invariants:**
//!
//! - Whatever is applied is the newest of both: configuration and register are read, joined and applied under one lock,
//!   which nobody holds while waiting. So a reload never waits for the store.
//! - One change of the register at a time, durable before it is applied, and carried out to its end whether or not somebody
//!   waits for the answer.
//! - Nobody else writes enrolments and holds while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::backfill::{Backfill, BackfillError, not_collected};
use super::content::{self, ContentError, Investigator};
use super::errand::{Errand, ErrandError};
use super::farewell::Stopped;
use super::health::errand::HealthErrand;
use super::hook::Hooks;
use super::inventory::{self, Inventory};
use super::registry::{Changes, Registry};
use super::roster::{Member, NewTenant, Refusal, Removal, Roster};
use crate::clock::ServiceTime;
use crate::config::Settings;
use crate::content::TenantId;
use crate::event;
use crate::report::{TenantOrigin, Trouble};
use crate::store::{Enrolment, Purge, Store, StoreError};

/// One for the process; clones are the same.
#[derive(Debug, Clone)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    registry: Arc<Registry>,
    time: Arc<ServiceTime>,
    /// Whose turn it is to change the register.
    turn: tokio::sync::Mutex<()>,
    books: Mutex<Books>,
}

/// What is in effect.
#[derive(Debug)]
struct Books {
    settings: Arc<Settings>,
    enrolments: BTreeMap<TenantId, Enrolment>,
    held: BTreeMap<TenantId, Timestamp>,
    /// It is being removed: its tasks are to end before it is gone.
    leaving: Option<(TenantId, Timestamp)>,
    roster: Roster,
}

impl Books {
    /// Joins what is known anew, and lets the registry follow.
    fn apply(&mut self, registry: &Registry) -> Changes {
        let enrolments: Vec<_> = self.enrolments.values().cloned().collect();
        let mut held = self.held.clone();
        held.extend(self.leaving.filter(|(id, _)| !self.held.contains_key(id)));
        self.roster = Roster::join(&self.settings.outline(), &enrolments, &held);
        registry.apply(&self.settings, &self.roster)
    }

    /// It was removed; its hold too, or not.
    fn forget(&mut self, id: TenantId, its_hold_too: bool) {
        self.leaving = None;
        self.enrolments.remove(&id);
        if its_hold_too {
            self.held.remove(&id);
        }
    }
}

/// A tenant that is gone from the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its directory id, by which its records are found.
    pub id: TenantId,
    /// What it was called.
    pub name: String,
    /// The file that goes on naming it, so that it is collected as that says.
    pub still: Option<TenantOrigin>,
    /// The subscriptions that were stopped, if that was asked for.
    pub stopped: Vec<Stopped>,
    /// How far the erasing of what is stored has come, if that was asked for.
    pub purge: Option<Purge>,
}

/// Why the register is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// What was asked for cannot be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The register cannot be written.
    #[error("the register of tenants cannot be written")]
    Store(#[from] StoreError),
    /// The subscriptions that were to be stopped cannot be listed.
    #[error(
        "the subscriptions of `{name}` cannot be stopped: {trouble}; nothing was removed; without `--stop-subscriptions` it \
         can be"
    )]
    NotAsked {
        /// What the tenant is called.
        name: String,
        /// Why not.
        trouble: Box<Trouble>,
    },
    /// Not all subscriptions could be stopped.
    #[error("{}", not_stopped(name, stopped))]
    NotStopped {
        /// What the tenant is called.
        name: String,
        /// What became of each.
        stopped: Vec<Stopped>,
    },
}

fn not_stopped(name: &str, stopped: &[Stopped]) -> String {
    let mut lines = vec![format!(
        "not all subscriptions of `{name}` were stopped; nothing was removed, and collecting goes on; try again, or leave \
         out `--stop-subscriptions`"
    )];
    lines.extend(stopped.iter().map(|one| match &one.trouble {
        Some(trouble) => format!("{}: {trouble}", one.content_type),
        None => format!("{}: stopped", one.content_type),
    }));
    lines.join("\n")
}

/// Why a tenant's Activity API cannot be asked.
fn why_not(settings: &Settings, member: &Member) -> Trouble {
    let without = settings.clouds.get(&member.cloud).is_some_and(|cloud| cloud.management.is_none());
    let no_api = || {
        let cause = format!("its cloud `{}` has no Management Activity API", member.cloud);
        without.then(|| Trouble::for_operator("no_activity_api", cause, ""))
    };
    member.trouble.clone().or_else(no_api).unwrap_or_else(not_configured)
}

fn not_configured() -> Trouble {
    Trouble::for_operator("app_unknown", "its app or its cloud is not configured", "")
}

impl Keeper {
    /// Reads the register, joins it with the settings, and lets the registry follow.
    pub async fn start(
        store: Store,
        registry: Arc<Registry>,
        time: Arc<ServiceTime>,
        settings: Arc<Settings>,
    ) -> Result<Self, StoreError> {
        let enrolments = store.enrolments().await?.into_iter().map(|of| (of.tenant, of)).collect();
        let held = store.held().await?;
        let mut books = Books { settings, enrolments, held, leaving: None, roster: Roster::default() };
        books.apply(&registry);
        let turn = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Inner { store, registry, time, turn, books: Mutex::new(books) })))
    }

    /// Goes on with these settings. Returns at once.
    #[must_use]
    pub fn follow(&self, settings: Arc<Settings>) -> Changes {
        let mut books = self.books();
        books.settings = settings;
        books.apply(&self.0.registry)
    }

    /// The settings in effect.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.books().settings)
    }

    /// All tenants that are known now.
    #[must_use]
    pub fn roster(&self) -> Roster {
        self.books().roster.clone()
    }

    /// What can ask something of a tenant's service for an operator.
    pub fn errand(&self, id: TenantId) -> Result<Errand, ErrandError> {
        let settings = self.settings();
        let member = self.roster().member(id)?.clone();
        let name = member.name.clone();
        let Some(farewell) = self.0.registry.farewell(&settings, &member) else {
            return Err(ErrandError::Unable { name, trouble: Box::new(why_not(&settings, &member)) });
        };
        let is_collected = member.enabled && member.held.is_none();
        Ok(Errand {
            farewell,
            name,
            collected: if is_collected { member.content_types } else { BTreeSet::new() },
            webhook: Hooks::of(&settings.public).map(|hooks| hooks.of_tenant(id)),
            now: self.0.time.now(),
        })
    }

    /// What can fetch something of Graph's for an operator.
    pub async fn health_errand(&self, id: TenantId) -> Result<HealthErrand, ErrandError> {
        let settings = self.settings();
        let member = self.roster().member(id)?.clone();
        let name = member.name.clone();
        match self.0.registry.line_of(&settings, &member).await? {
            Some(line) => Ok(HealthErrand::new(line, id, name)),
            None => Err(ErrandError::Unable { name, trouble: Box::new(member.trouble.unwrap_or_else(not_configured)) }),
        }
    }

    /// Takes a tenant's inventory.
    pub async fn take_inventory(&self, id: TenantId) -> Result<Inventory, ErrandError> {
        let member = self.roster().member(id)?.clone();
        let now = self.0.time.now();
        if let Some(not_taken) = inventory::not_taken(&member, now) {
            return Ok(not_taken);
        }
        match self.0.registry.stocktaker(id) {
            Some(stocktaker) => Ok(stocktaker.take().await?),
            None => Ok(inventory::not_configured(&member, now)),
        }
    }

    /// What can list a tenant's content again for an operator.
    pub fn backfill(&self, id: TenantId) -> Result<Backfill, BackfillError> {
        let member = self.roster().member(id)?.clone();
        self.0.registry.backfill(id).ok_or_else(|| not_collected(&member))
    }

    /// What can fetch a blob of a tenant for an operator.
    pub fn investigator(&self, id: TenantId) -> Result<Investigator, ContentError> {
        let member = self.roster().member(id)?.clone();
        self.0.registry.investigator(id).ok_or_else(|| content::not_collected(&member))
    }

    /// Adds a tenant that an operator names, and begins to collect it.
    pub async fn add(&self, new: NewTenant) -> Result<Member, KeeperError> {
        self.change(async move |keeper: Self| {
            let enrolment = {
                let books = keeper.books();
                books.roster.add(&books.settings.outline(), new, keeper.0.time.now())?
            };
            keeper.put(enrolment).await
        })
        .await
    }

    /// Enrols a tenant whose administrator has consented, and begins to collect it; an earlier enrolment is replaced. Where
    /// a file names the tenant, the file goes on saying what holds.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Member, KeeperError> {
        self.change(async move |keeper: Self| keeper.put(enrolment).await).await
    }

    /// Removes a tenant from the register. Its subscriptions may be stopped first, after its tasks have ended; if one of them
    /// is not, the tenant stays. What was collected stays, or is hidden from now on and erased in the background.
    pub async fn remove(&self, id: TenantId, how: Removal) -> Result<Removed, KeeperError> {
        self.change(async move |keeper: Self| {
            let removed = keeper.take_out(id, how).await;
            if removed.is_err() && keeper.books().leaving.is_some() {
                keeper.update(|books| books.leaving = None);
            }
            removed
        })
        .await
    }

    /// Pauses a tenant until it is resumed, over restarts and reloads. One that is paused stays so since then.
    pub async fn pause(&self, id: TenantId) -> Result<Member, KeeperError> {
        self.hold(id, true).await
    }

    /// Lets a tenant be collected again.
    pub async fn resume(&self, id: TenantId) -> Result<Member, KeeperError> {
        self.hold(id, false).await
    }

    async fn hold(&self, id: TenantId, held: bool) -> Result<Member, KeeperError> {
        self.change(async move |keeper: Self| {
            let member = keeper.books().roster.member(id)?.clone();
            if member.held.is_some() == held {
                return Ok(member);
            }
            let since = held.then(|| keeper.0.time.now());
            keeper.0.store.hold(id, since).await?;
            keeper.update(|books| match since {
                Some(since) => drop(books.held.insert(id, since)),
                None => drop(books.held.remove(&id)),
            });
            if held {
                info!(message_id = event::TENANT_HELD, tenant = %id, name = %member.name, "tenant paused by an operator");
            } else {
                info!(message_id = event::TENANT_RESUMED, tenant = %id, name = %member.name, "tenant resumed by an operator");
            }
            Ok(Member { held: since, ..member })
        })
        .await
    }

    /// Keeps an enrolment, durably, and lets the registry follow.
    async fn put(&self, enrolment: Enrolment) -> Result<Member, KeeperError> {
        let (id, how) = (enrolment.tenant, enrolment.how);
        self.0.store.enrol(enrolment.clone()).await?;
        self.update(|books| drop(books.enrolments.insert(id, enrolment)));
        let member = self.books().roster.member(id)?.clone();
        info!(
            message_id = event::TENANT_ENROLLED,
            tenant = %id,
            name = %member.name,
            how = how.as_str(),
            cloud = member.cloud,
            app = member.section(),
            "tenant enrolled"
        );
        Ok(member)
    }

    async fn take_out(&self, id: TenantId, how: Removal) -> Result<Removed, KeeperError> {
        let member = self.books().roster.remove(id, how)?.cloned();
        if member.is_none() && !self.0.store.knows(id).await? {
            return Err(Refusal::NothingToPurge { id }.into());
        }
        let stopped = match &member {
            Some(member) if how.stop_subscriptions => self.stop_subscriptions(member).await?,
            _ => Vec::new(),
        };
        let still = member.as_ref().and_then(Member::file).cloned();
        let name = member.map_or_else(|| id.to_string(), |member| member.name);
        let purge = if how.purge {
            let purge = self.purge(id).await?;
            info!(message_id = event::TENANT_REMOVED, tenant = %id, name, "tenant removed; what was collected is being erased");
            Some(purge)
        } else {
            self.0.store.forget_enrolment(id).await?;
            // Whoever adds it again wants it to be collected.
            let let_go = if still.is_none() { self.0.store.hold(id, None).await } else { Ok(()) };
            self.update(|books| books.forget(id, still.is_none() && let_go.is_ok()));
            info!(message_id = event::TENANT_REMOVED, tenant = %id, name, "tenant removed; what was collected stays");
            let_go?;
            None
        };
        Ok(Removed { id, name, still, stopped, purge })
    }

    /// Lets the tenant's tasks end, and has all that is stored of it erased.
    async fn purge(&self, id: TenantId) -> Result<Purge, KeeperError> {
        self.leaves(id).await;
        let purged = self.0.store.purge(id).await;
        let is_asked = || self.0.store.purges().iter().any(|purge| purge.tenant == id && purge.done_at.is_none());
        // After an error it may have been asked for all the same, and is gone on with.
        if purged.is_ok() || is_asked() {
            self.update(|books| books.forget(id, true));
        }
        Ok(purged?)
    }

    /// Resolves when nobody works for the tenant any more. It is left as leaving.
    async fn leaves(&self, id: TenantId) {
        self.update(|books| books.leaving = Some((id, self.0.time.now())));
        let drain = self.settings().daemon.drain;
        self.0.registry.has_left(id, drain).await;
    }

    /// Lets the tenant's tasks end, and stops its subscriptions. It is left as leaving.
    async fn stop_subscriptions(&self, member: &Member) -> Result<Vec<Stopped>, KeeperError> {
        let settings = self.settings();
        let name = || member.name.clone();
        let Some(farewell) = self.0.registry.farewell(&settings, member) else {
            return Err(KeeperError::NotAsked { name: name(), trouble: Box::new(why_not(&settings, member)) });
        };
        self.leaves(member.id).await;
        let stopped = farewell.stop_subscriptions().await;
        let stopped = stopped.map_err(|trouble| KeeperError::NotAsked { name: name(), trouble: Box::new(trouble) })?;
        if stopped.iter().any(|one| one.trouble.is_some()) {
            return Err(KeeperError::NotStopped { name: name(), stopped });
        }
        Ok(stopped)
    }

    /// Takes note of a change, and lets the registry follow.
    fn update(&self, change: impl FnOnce(&mut Books)) {
        let mut books = self.books();
        change(&mut books);
        books.apply(&self.0.registry);
    }

    /// Changes the register in turn, to the end even if nobody waits for it.
    async fn change<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, KeeperError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KeeperError>> + Send + 'static,
    {
        let keeper = self.clone();
        let work = work(self.clone());
        let task = tokio::spawn(async move {
            let _turn = keeper.0.turn.lock().await;
            work.await
        });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
