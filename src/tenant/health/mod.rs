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
//! Whoever asks Graph does so over the tenant's [`line`](mod@line); what an operator has fetched is an [`errand`]'s business.
//!
//! **Invariants:** nothing here delays, stops or fails the collection of audit records: it has its own token, gate, waits
//! and supervisor, and few tenants list at a time; a list that is refused leaves the others alone; the watermark of a list
//! moves when everything that justified it is durable; a revision is stored once.

pub mod errand;
pub mod line;
mod listing;
mod reach;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::line::{Line, Unanswered};
pub(super) use self::watch::supervise;
use super::course::Course;
use crate::clock::ServiceTime;
use crate::config::Health;
use crate::content::TenantId;
use crate::graph::{GraphError, List};
use crate::report::{TenantReport, Trouble};
use crate::store::{IntakeError, Store, StoreError, Watermark};
use crate::token::{AccessToken, TokenError};

/// So many tenants are listed by Graph at a time: their pages are large.
pub(super) const AT_A_TIME: usize = 8;

/// What one tenant's health is collected with.
#[derive(Debug)]
pub(super) struct Station {
    tenant: TenantId,
    settings: Health,
    line: Line,
    store: Store,
    time: Arc<ServiceTime>,
    report: TenantReport,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    course: Arc<Course>,
    /// Nothing else is collected of the tenant: where it stands is told here.
    alone: bool,
    marks: Mutex<BTreeMap<List, Watermark>>,
}

/// What a station is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tenant: TenantId,
    pub(super) settings: Health,
    pub(super) line: Line,
    pub(super) store: Store,
    pub(super) time: Arc<ServiceTime>,
    pub(super) report: TenantReport,
    pub(super) places: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    /// That of the tenant's tree, if it has one: what is collected beside it is waited for too.
    pub(super) course: Arc<Course>,
    pub(super) alone: bool,
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

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Token(error) => Self::Token(error),
            Unanswered::Graph(error) => Self::Graph(error),
            Unanswered::Held(until) => Self::Held(until),
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
        let Parts { tenant, settings, line, store, time, report, places, stop, course, alone } = parts;
        let marks = Mutex::default();
        Arc::new(Self { tenant, settings, line, store, time, report, places, stop, course, alone, marks })
    }

    /// Reads what outlived the last process or the last run.
    async fn restore(&self) -> Result<(), StoreError> {
        let known = self.store.watermarks(self.tenant).await?;
        let marks = List::ALL.into_iter().filter_map(|list| Some((list, *known.get(&list.content_type())?)));
        *lock(&self.marks) = marks.collect();
        self.line.restore().await
    }

    fn mark(&self, list: List) -> Watermark {
        lock(&self.marks).get(&list).copied().unwrap_or_default()
    }

    fn set_mark(&self, list: List, mark: Watermark) {
        lock(&self.marks).insert(list, mark);
        self.store.set_watermark(self.tenant, list.content_type(), mark);
    }

    /// Sends one request over the line, unless the tenant is stopped.
    async fn ask<T, F: Future<Output = Result<T, GraphError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        let answer = self.unless_stopped(self.line.ask(request)).await??;
        self.course.advance();
        Ok(answer)
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
