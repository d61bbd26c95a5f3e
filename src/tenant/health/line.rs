//! The way to Graph of one tenant, which everybody shares who asks for it: who collects its health, who looks for a cause,
//! and who fetches something for an operator.
//!
//! **Invariants:** what Graph grants an app for a tenant is counted in one place; a wait that Graph asked for holds for all,
//! and outlives the process where there is a store; a refused token is replaced once for each question.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::debug;

use crate::content::TenantId;
use crate::graph::{GraphClient, GraphError, Quota};
use crate::report::{Trouble, span};
use crate::retry::{Advice, Backoff, Stage};
use crate::store::{StoreError, WaitKey};
use crate::tenant::gate::{Gate, LONGEST};
use crate::tenant::waits::Waits;
use crate::token::{AccessToken, TokenError, TokenSource};

/// A way to Graph; clones are the same.
#[derive(Debug, Clone)]
pub struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenant: TenantId,
    client: GraphClient,
    token: TokenSource,
    gate: Gate,
    /// `None` where nothing can be kept.
    waits: Option<Waits>,
    quota: Mutex<Quota>,
    /// How long Graph throttles, if it does not say.
    throttled: Mutex<Backoff>,
}

/// Why Graph did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is no token.
    #[error("no token for Microsoft Graph")]
    Token(#[source] TokenError),
    /// Graph did not answer, or answered with an error.
    #[error("Microsoft Graph did not do as asked")]
    Graph(#[source] Box<GraphError>),
    /// Graph has asked for a wait, or its quota is spent until then.
    #[error("Microsoft Graph is not to be asked yet")]
    Held(Instant),
}

impl Unanswered {
    /// What a person reads who waits for the answer.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Token(error) => error.trouble(),
            Self::Graph(error) => error.trouble(),
            Self::Held(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                let left = span(i64::try_from(left).unwrap_or(i64::MAX));
                let cause =
                    format!("Microsoft Graph wants to be left alone, or its quota is spent, for another {left}");
                Trouble { remedy: "try again then".to_owned(), ..Trouble::passing("graph_held", cause) }
            }
        }
    }
}

impl Line {
    /// One with this token.
    pub(in crate::tenant) fn new(
        tenant: TenantId,
        client: GraphClient,
        token: TokenSource,
        waits: Option<Waits>,
    ) -> Self {
        Self(Arc::new(Inner {
            tenant,
            client,
            token,
            gate: Gate::default(),
            waits,
            quota: Mutex::default(),
            throttled: Mutex::new(Backoff::new(Stage::Health)),
        }))
    }

    /// What is asked.
    #[must_use]
    pub fn client(&self) -> &GraphClient {
        &self.0.client
    }

    /// With what.
    #[must_use]
    pub fn token(&self) -> &TokenSource {
        &self.0.token
    }

    /// Until when Graph wants to be left alone.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.0.gate.closed_until()
    }

    /// Takes up the wait that an earlier process was asked for.
    pub(in crate::tenant) async fn restore(&self) -> Result<(), StoreError> {
        let Some(waits) = &self.0.waits else { return Ok(()) };
        if let Some(left) = waits.restore().await?.get(&WaitKey::Health) {
            self.0.gate.close_for(*left);
        }
        Ok(())
    }

    /// Forgets waits that are over.
    pub(super) async fn forget_over(&self) {
        if let Some(waits) = &self.0.waits {
            waits.forget_over().await;
        }
    }

    /// Sends one request, with a token that is good, within quota and gate. A refused token is replaced once.
    pub async fn ask<T, F: Future<Output = Result<T, GraphError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Unanswered> {
        let Inner { tenant, token: source, gate, quota, throttled, .. } = &*self.0;
        let mut replaced = false;
        loop {
            let token = source.token().await.map_err(Unanswered::Token)?;
            if let Some(until) = gate.closed_until() {
                return Err(Unanswered::Held(until));
            }
            lock(quota).spend(Instant::now()).map_err(Unanswered::Held)?;
            let error = match request(token.clone()).await {
                Ok(answer) => {
                    lock(throttled).succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.obey(&error).await;
            if error.advice() != Advice::RenewToken || std::mem::replace(&mut replaced, true) {
                return Err(Unanswered::Graph(Box::new(error)));
            }
            debug!(%tenant, error = %error, "token for Graph refused");
            source.refused(&token).await;
            let next = source.token().await.map_err(Unanswered::Token)?;
            if next.generation() == token.generation() {
                return Err(Unanswered::Graph(Box::new(error)));
            }
        }
    }

    /// Closes the gate for a wait that an answer asked for, and remembers it.
    async fn obey(&self, error: &GraphError) {
        let Inner { tenant, gate, waits, throttled, .. } = &*self.0;
        let wait = match error.advice() {
            Advice::Throttled { after } => lock(throttled).failed(after),
            _ => match error.refusal().and_then(|refusal| refusal.wait).filter(|wait| !wait.is_zero()) {
                Some(wait) => wait,
                None => return,
            },
        };
        gate.close_for(wait);
        let until = Instant::now() + wait.min(LONGEST);
        if let Some(waits) = waits
            && let Err(error) = waits.extend(WaitKey::Health, until).await
        {
            debug!(%tenant, %error, "wait not remembered");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
