//! The last that is asked of a tenant's service when an operator removes the tenant: that its subscriptions be stopped.
//!
//! **Invariants:** only an operator's explicit wish leads here: what becomes available between a stop and the next start can
//! never be retrieved, and other software of the same app may rely on the subscriptions. A wait that the service asked for
//! holds here too; nobody waits for its end, since a person waits for the answer.

use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::failure::Failure;
use super::gate::Gate;
use super::waits::Waits;
use crate::activity::{ActivityClient, ActivityError};
use crate::content::ContentType;
use crate::report::Trouble;
use crate::retry::Advice;
use crate::store::WaitKey;
use crate::token::{AccessToken, TokenSource};

/// Speaks for a tenant whose tasks have ended.
#[derive(Debug)]
pub(super) struct Farewell {
    client: ActivityClient,
    token: TokenSource,
    gate: Gate,
    waits: Waits,
}

/// What became of one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// To what.
    pub content_type: ContentType,
    /// Why it was not stopped, if it was not.
    pub trouble: Option<Trouble>,
}

impl Farewell {
    /// With the token and the gate of the tenant's tasks, if it had any.
    pub(super) fn new(client: ActivityClient, token: TokenSource, gate: Gate, waits: Waits) -> Self {
        let at_once = gate.clone();
        Self { client: client.telling(move |wait| at_once.close_for(wait)), token, gate, waits }
    }

    /// Stops every subscription that the service lists as enabled, each whatever becomes of the others. Fails if they
    /// cannot be listed.
    pub(super) async fn stop_subscriptions(&self) -> Result<Vec<Stopped>, Trouble> {
        let stopped = self.stop_all().await;
        // What was asked for here must be known to whoever asks next.
        if let Some(until) = self.gate.closed_until()
            && let Err(error) = self.waits.extend(WaitKey::Throttled, until).await
        {
            debug!(tenant = %self.client.tenant(), %error, "wait not remembered");
        }
        stopped.map_err(|failure| failure.trouble())
    }

    async fn stop_all(&self) -> Result<Vec<Stopped>, Failure> {
        for (key, left) in self.waits.restore().await.map_err(Failure::Store)? {
            match key {
                WaitKey::Throttled => self.gate.close_for(left),
                WaitKey::Token => self.token.hold(left),
                WaitKey::SubscriptionStart(_) | WaitKey::Paused | WaitKey::Health => {}
            }
        }
        let client = &self.client;
        let listed = self.ask(|token| async move { client.list_subscriptions(&token).await }).await?;
        let mut stopped = Vec::new();
        for content_type in listed.iter().filter(|listed| listed.enabled).map(|listed| listed.content_type) {
            let asked = self.ask(|token| async move { client.stop_subscription(&token, content_type).await }).await;
            if asked.is_ok() {
                info!(tenant = %client.tenant(), %content_type, "subscription stopped");
            }
            stopped.push(Stopped { content_type, trouble: asked.err().map(|failure| failure.trouble()) });
        }
        Ok(stopped)
    }

    /// Asks once; a second time only with another token, where the service refuses the first.
    async fn ask<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        let token = self.token.token().await.map_err(Failure::Token)?;
        let error = match self.send(&request, token.clone()).await {
            Err(Failure::Service(error)) if error.advice() == Advice::RenewToken => error,
            answer => return answer,
        };
        self.token.refused(&token).await;
        let next = self.token.token().await.map_err(Failure::Token)?;
        if next.generation() == token.generation() {
            Err(Failure::Refused(error))
        } else {
            self.send(&request, next).await
        }
    }

    async fn send<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        request: &impl Fn(AccessToken) -> F,
        token: AccessToken,
    ) -> Result<T, Failure> {
        if self.gate.closed_until().is_some() {
            return Err(Failure::Held);
        }
        request(token).await.map_err(|error| Failure::Service(Box::new(error)))
    }
}
