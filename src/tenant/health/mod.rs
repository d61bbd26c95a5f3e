//! A tenant's service health and Message Center, collected beside its audit records and apart from them.
//!
//! ```text
//! watch ─► for each list that is due: reach (since when?) ─► listing (pages, passes) ─► store, then the watermark
//! ```
//!
//! Graph keeps no history: an item that is changed again before it was listed was never there for us. What was listed is
//! kept in every revision, as content of its own types ([`ContentType::HEALTH`](crate::content::ContentType::HEALTH)), so that chain, digests, retention,
//! backup, purge and `verify` hold for it as they do for audit records:
//!
//! - A revision of an issue or of a message is a blob of one record, named by the item and the time of its last change.
//! - The overview of services has no times: all of it is one blob, stored when it differs from the newest one.
//!
//! **Invariants:** nothing here delays, stops or fails the collection of audit records: it has its own token, gate, waits
//! and supervisor, and few tenants list at a time; a list that is refused leaves the others alone; the watermark of a list
//! moves when everything that justified it is durable; a revision is stored once.

mod listing;
mod reach;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub(super) use self::watch::supervise;
use super::course::Course;
use super::gate::Gate;
use super::waits::Waits;
use crate::clock::ServiceTime;
use crate::config::Health;
use crate::content::TenantId;
use crate::graph::{GraphClient, GraphError, List, Quota};
use crate::report::{TenantReport, Trouble};
use crate::retry::{Advice, Backoff, Stage};
use crate::store::{IntakeError, Store, StoreError, WaitKey, Watermark};
use crate::token::{AccessToken, TokenError, TokenSource};

/// So many tenants are listed by Graph at a time: their pages are large.
pub(super) const AT_A_TIME: usize = 8;

/// What one tenant's health is collected with.
#[derive(Debug)]
pub(super) struct Station {
    tenant: TenantId,
    settings: Health,
    client: GraphClient,
    token: TokenSource,
    store: Store,
    time: Arc<ServiceTime>,
    report: TenantReport,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    course: Arc<Course>,
    gate: Gate,
    waits: Waits,
    quota: Mutex<Quota>,
    /// How long Graph throttles, if it does not say.
    throttled: Mutex<Backoff>,
    marks: Mutex<BTreeMap<List, Watermark>>,
}

/// What a station is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tenant: TenantId,
    pub(super) settings: Health,
    pub(super) client: GraphClient,
    pub(super) token: TokenSource,
    pub(super) store: Store,
    pub(super) time: Arc<ServiceTime>,
    pub(super) report: TenantReport,
    pub(super) places: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    /// Of the tenant's tree: what is collected beside it is waited for too.
    pub(super) course: Arc<Course>,
}

/// Why a list was not listed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is no token.
    #[error("no token for Microsoft Graph")]
    Token(#[source] TokenError),
    /// Graph did not answer, or answered with an error.
    #[error("Microsoft Graph did not do as asked")]
    Graph(#[source] Box<GraphError>),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// Graph has asked for a wait, or its quota is spent until then.
    #[error("Microsoft Graph is not to be asked yet")]
    Held(Instant),
    /// The tenant is being stopped: nothing more is sent.
    #[error("the tenant's collection is being stopped")]
    Stopping,
}

impl Failure {
    /// What the operator reads; nothing where nothing is wrong.
    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Token(error) => Some(error.trouble()),
            Self::Graph(error) => Some(error.trouble()),
            Self::Store(error) => Some(error.trouble()),
            Self::Held(_) | Self::Stopping => None,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        Self::Store(match error {
            IntakeError::Store(error) => (*error).clone(),
            // What may be no record is taken in as bytes.
            IntakeError::Malformed { .. } => StoreError::Closed,
        })
    }
}

impl Station {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { tenant, settings, client, token, store, time, report, places, stop, course } = parts;
        Arc::new(Self {
            waits: Waits::of_health(tenant, store.clone(), Arc::clone(&time)),
            tenant,
            settings,
            client,
            token,
            store,
            time,
            report,
            places,
            stop,
            course,
            gate: Gate::default(),
            quota: Mutex::default(),
            throttled: Mutex::new(Backoff::new(Stage::Health)),
            marks: Mutex::default(),
        })
    }

    /// Reads what outlived the last process or the last run.
    async fn restore(&self) -> Result<(), StoreError> {
        let known = self.store.watermarks(self.tenant).await?;
        let marks = List::ALL.into_iter().filter_map(|list| Some((list, *known.get(&list.content_type())?)));
        *lock(&self.marks) = marks.collect();
        if let Some(left) = self.waits.restore().await?.get(&WaitKey::Health) {
            self.gate.close_for(*left);
        }
        Ok(())
    }

    fn mark(&self, list: List) -> Watermark {
        lock(&self.marks).get(&list).copied().unwrap_or_default()
    }

    fn set_mark(&self, list: List, mark: Watermark) {
        lock(&self.marks).insert(list, mark);
        self.store.set_watermark(self.tenant, list.content_type(), mark);
    }

    /// Sends one request, with a token that is good, within quota and gate. A refused token is replaced once.
    async fn ask<T, F: Future<Output = Result<T, GraphError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        let mut replaced = false;
        loop {
            let token = self.unless_stopped(self.token.token()).await?.map_err(Failure::Token)?;
            if let Some(until) = self.gate.closed_until() {
                return Err(Failure::Held(until));
            }
            lock(&self.quota).spend(Instant::now()).map_err(Failure::Held)?;
            let error = match self.unless_stopped(request(token.clone())).await? {
                Ok(answer) => {
                    self.course.advance();
                    lock(&self.throttled).succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.obey(&error).await;
            if error.advice() != Advice::RenewToken || std::mem::replace(&mut replaced, true) {
                return Err(Failure::Graph(Box::new(error)));
            }
            debug!(tenant = %self.tenant, error = %error, "token for Graph refused");
            self.token.refused(&token).await;
            let next = self.unless_stopped(self.token.token()).await?.map_err(Failure::Token)?;
            if next.generation() == token.generation() {
                return Err(Failure::Graph(Box::new(error)));
            }
        }
    }

    /// Closes the gate for a wait that an answer asked for, and remembers it.
    async fn obey(&self, error: &GraphError) {
        let wait = match error.advice() {
            Advice::Throttled { after } => lock(&self.throttled).failed(after),
            _ => match error.refusal().and_then(|refusal| refusal.wait).filter(|wait| !wait.is_zero()) {
                Some(wait) => wait,
                None => return,
            },
        };
        self.gate.close_for(wait);
        let until = Instant::now() + wait.min(super::gate::LONGEST);
        if let Err(error) = self.waits.extend(WaitKey::Health, until).await {
            debug!(tenant = %self.tenant, %error, "wait not remembered");
        }
    }

    /// Waits for something, unless the tenant is stopped meanwhile.
    async fn unless_stopped<T>(&self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Failure::Stopping),
            waited = wait => Ok(waited),
        }
    }

    /// How far apart polls are.
    fn poll(&self) -> Duration {
        crate::retry::jittered(self.settings.poll_interval, 0.05)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
