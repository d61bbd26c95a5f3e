//! The last that is asked of a tenant's service when an operator removes the tenant: that its subscriptions be stopped. And
//! the way in which anything is asked once for a person ([`errand`](super::errand)).
//!
//! **Invariants:** only an operator's explicit wish stops anything: what becomes available between a stop and the next start can
//! never be retrieved, and other software of the same app may rely on the subscriptions. A wait that the service asked for
//! holds here too; nobody waits for its end, since a person waits for the answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::failure::Failure;
use super::gate::Gate;
use super::waits::Waits;
use crate::activity::{ActivityClient, ActivityError, Notification, Subscription, Webhook, Window};
use crate::content::{ContentType, TenantId};
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
    waits: Arc<Waits>,
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
    pub(super) fn new(client: ActivityClient, token: TokenSource, gate: Gate, waits: Arc<Waits>) -> Self {
        let at_once = gate.clone();
        Self { client: client.telling(move |wait| at_once.close_for(wait)), token, gate, waits }
    }

    /// Stops every subscription that the service lists as enabled, each whatever becomes of the others. Fails if they
    /// cannot be listed.
    pub(super) async fn stop_subscriptions(&self) -> Result<Vec<Stopped>, Trouble> {
        let stopped = self.stop_all().await;
        self.remember().await;
        stopped.map_err(|failure| failure.trouble())
    }

    /// The tenant that it speaks for.
    pub(super) fn tenant(&self) -> TenantId {
        self.client.tenant()
    }

    /// The waits that outlive the process, and between two start requests.
    pub(super) fn waits(&self) -> &Waits {
        &self.waits
    }

    /// The subscriptions, as the service lists them.
    pub(super) async fn list_subscriptions(&self) -> Result<Vec<Subscription>, Trouble> {
        let client = &self.client;
        self.once(|token| async move { client.list_subscriptions(&token).await }).await
    }

    /// Starts one, whose cool-down is over. The failure says whether the request may have reached the service.
    pub(super) async fn start_subscription(
        &self,
        content_type: ContentType,
        webhook: Option<&Webhook>,
    ) -> Result<Subscription, Failure> {
        let client = &self.client;
        self.try_once(|token| async move { client.start_subscription(&token, content_type, webhook).await }).await
    }

    /// Stops one.
    pub(super) async fn stop_subscription(&self, content_type: ContentType) -> Result<(), Trouble> {
        let client = &self.client;
        self.once(|token| async move { client.stop_subscription(&token, content_type).await }).await
    }

    /// Up to `most` attempts to notify of one window.
    pub(super) async fn list_notifications(
        &self,
        content_type: ContentType,
        window: Window,
        most: usize,
    ) -> Result<Vec<Notification>, Trouble> {
        let client = &self.client;
        let first = |token| async move { client.list_notifications(&token, content_type, window).await };
        let mut page = self.once(first).await?;
        let mut all = Vec::new();
        loop {
            all.append(&mut page.entries);
            all.truncate(most);
            let Some(link) = page.next.filter(|_| all.len() < most) else { return Ok(all) };
            let link = &link;
            page = self.once(|token| async move { client.next_notifications(&token, link).await }).await?;
        }
    }

    /// Asks by itself, with what is known of waits, and remembers what comes of it.
    async fn once<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Trouble> {
        self.try_once(request).await.map_err(|failure| failure.trouble())
    }

    async fn try_once<T, F: Future<Output = Result<T, ActivityError>>>(
        &self,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Failure> {
        let asked = async {
            self.restore().await?;
            self.ask(request).await
        };
        let answer = asked.await;
        self.remember().await;
        answer
    }

    async fn restore(&self) -> Result<(), Failure> {
        for (key, left) in self.waits.restore().await.map_err(Failure::Store)? {
            match key {
                WaitKey::Throttled => self.gate.close_for(left),
                WaitKey::Token => self.token.hold(left),
                WaitKey::SubscriptionStart(_) | WaitKey::Paused | WaitKey::Health => {}
            }
        }
        Ok(())
    }

    /// What was asked for here must be known to whoever asks next.
    async fn remember(&self) {
        if let Some(until) = self.gate.closed_until()
            && let Err(error) = self.waits.extend(WaitKey::Throttled, until).await
        {
            debug!(tenant = %self.client.tenant(), %error, "wait not remembered");
        }
    }

    async fn stop_all(&self) -> Result<Vec<Stopped>, Failure> {
        self.restore().await?;
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
