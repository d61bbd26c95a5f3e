//! What an operator asks of a tenant's service by hand: which subscriptions there are, that one be started or stopped, and
//! what became of notifications.
//!
//! **Invariants:** it is asked with the tenant's own token and stops at its own gate, and the cool-down between two start
//! requests is that of the tenant's tasks. A subscription whose content is collected is not stopped: what becomes available
//! until it is started again can never be retrieved.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::info;

use super::failure::Failure;
use super::farewell::{Farewell, Stopped};
use super::roster::Refusal;
use super::subscription::{ROUNDED, SOON, is_cooldown, never_sent, not_carried_out};
use super::tree::COOLDOWN;
use crate::activity::{Subscription, Webhook, Window};
use crate::content::{ContentId, ContentType};
use crate::report::{Trouble, span};
use crate::store::{StoreError, WaitKey};

/// The longest span that the service lists at once.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far back it lists.
const OLDEST: SignedDuration = SignedDuration::from_mins(7 * 24 * 60 - 5);
/// Attempts that are handed out.
const MOST: usize = 20_000;

/// Speaks for one tenant.
#[derive(Debug)]
pub struct Errand {
    pub(super) farewell: Farewell,
    /// What it is called.
    pub(super) name: String,
    /// What is collected now.
    pub(super) collected: BTreeSet<ContentType>,
    pub(super) webhook: Option<Webhook>,
    pub(super) now: Timestamp,
}

/// A subscription as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedSubscription {
    /// To what.
    pub content_type: ContentType,
    /// Whether it gives content.
    pub enabled: bool,
    /// Whether its content is collected.
    pub collected: bool,
    /// What is notified, if anything.
    pub webhook: Option<ListedWebhook>,
}

/// A webhook as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedWebhook {
    /// Where notifications go.
    pub address: String,
    /// `enabled`, `disabled` or `expired`, as written.
    pub status: Option<String>,
    /// Until when, if limited.
    pub expiration: Option<Timestamp>,
    /// Whether notifications reach this daemon.
    pub serves: bool,
}

/// One attempt to notify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// Of what.
    pub content_type: ContentType,
    /// Which blob.
    pub content_id: ContentId,
    /// When that became available.
    pub content_created: Timestamp,
    /// When it was sent.
    pub sent: Option<Timestamp>,
    /// `success` or `failed`, as written.
    pub status: Option<String>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// Nobody can speak for the tenant.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its app or its cloud is not configured.
    #[error("`{name}` cannot be asked: {trouble}")]
    Unable {
        /// What the tenant is called.
        name: String,
        /// Why not.
        trouble: Box<Trouble>,
    },
    /// The service did not do it.
    #[error("Microsoft did not do it for `{name}`: {trouble}")]
    NotDone {
        /// What the tenant is called.
        name: String,
        /// Why not.
        trouble: Box<Trouble>,
    },
    /// Another start was asked for a moment ago.
    #[error("a start was asked for a moment ago, and Microsoft wants 15 minutes between two: again in {}", left(*wait))]
    TooSoon {
        /// How long yet.
        wait: Duration,
    },
    /// The content is collected.
    #[error(
        "the subscription of `{name}` to {content_type} is not stopped, since its content is collected: what becomes available \
         until it is started again could never be retrieved. Take {content_type} from its `content_types`, or pause the tenant, \
         first"
    )]
    Collected {
        /// What the tenant is called.
        name: String,
        /// Which.
        content_type: ContentType,
    },
    /// There is nothing that could be notified.
    #[error("no webhook is configured: set `webhook_key_file` and an `https` address as `url` under `[public]`")]
    NoWebhook,
    /// What has to outlive the process could not be written.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

/// How long no start request may follow on one that failed; `None` if it cannot have reached the service.
fn cooldown_after(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::Token(_) | Failure::Store(_) | Failure::Held | Failure::Stopping => None,
        Failure::Service(error) if never_sent(error) => None,
        Failure::Service(error) if not_carried_out(error) => Some(SOON),
        Failure::Service(error) if is_cooldown(error) => Some(error.wait().map_or(COOLDOWN, |wait| wait + ROUNDED)),
        Failure::Service(_) | Failure::Refused(_) => Some(COOLDOWN),
    }
}

fn left(wait: Duration) -> String {
    span(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX))
}

impl Errand {
    /// The subscriptions of content types that are known here.
    pub async fn subscriptions(&self) -> Result<Vec<ListedSubscription>, ErrandError> {
        let listed = self.farewell.list_subscriptions().await.map_err(|trouble| self.not_done(trouble))?;
        Ok(listed.into_iter().map(|subscription| self.shown(subscription)).collect())
    }

    /// Starts one, with the webhook or as it is.
    pub async fn start(&self, content_type: ContentType, hooked: bool) -> Result<ListedSubscription, ErrandError> {
        let webhook = if hooked { Some(self.webhook.as_ref().ok_or(ErrandError::NoWebhook)?) } else { None };
        let waits = self.farewell.waits();
        let key = WaitKey::SubscriptionStart(content_type);
        waits.restore().await?;
        if let Some(until) = waits.until(&key).await {
            return Err(ErrandError::TooSoon { wait: until.saturating_duration_since(Instant::now()) });
        }
        // Before it is sent, so that a daemon that is killed meanwhile does not ask again too soon.
        waits.remember(key.clone(), COOLDOWN).await?;
        let started = match self.farewell.start_subscription(content_type, webhook).await {
            Ok(started) => started,
            Err(failure) => {
                match cooldown_after(&failure) {
                    Some(wait) => waits.remember(key, wait).await?,
                    None => waits.forget(key).await?,
                }
                return Err(self.not_done(failure.trouble()));
            }
        };
        info!(tenant = %self.farewell.tenant(), name = self.name, %content_type, webhook = hooked, "subscription started by an operator");
        Ok(self.shown(started))
    }

    /// Stops one whose content is not collected.
    pub async fn stop(&self, content_type: ContentType) -> Result<Stopped, ErrandError> {
        if self.collected.contains(&content_type) {
            return Err(ErrandError::Collected { name: self.name.clone(), content_type });
        }
        self.farewell.stop_subscription(content_type).await.map_err(|trouble| self.not_done(trouble))?;
        info!(tenant = %self.farewell.tenant(), name = self.name, %content_type, "subscription stopped by an operator");
        Ok(Stopped { content_type, trouble: None })
    }

    /// The attempts to notify since then, as the service lists them: those of seven days at most, and not more than 20,000.
    pub async fn notifications(
        &self,
        content_type: ContentType,
        since: Timestamp,
    ) -> Result<Vec<Notified>, ErrandError> {
        // The wire knows whole seconds: of others, a day would become a second longer than that.
        let whole = |time: Timestamp, more: i64| Timestamp::from_second(time.as_second() + more).unwrap_or(time);
        let mut start = whole(since.max(self.now.checked_sub(OLDEST).unwrap_or(since)), 0);
        let until = whole(self.now, 1);
        let mut all = Vec::new();
        while start < until && all.len() < MOST {
            let end = start.checked_add(DAY).map_or(until, |end| end.min(until));
            let window = Window { start, end };
            let listed = self.farewell.list_notifications(content_type, window, MOST - all.len()).await;
            all.extend(listed.map_err(|trouble| self.not_done(trouble))?.into_iter().map(|notification| Notified {
                content_type: notification.blob.content_type,
                content_id: notification.blob.content_id,
                content_created: notification.blob.content_created,
                sent: notification.sent,
                status: notification.status,
            }));
            start = end;
        }
        Ok(all)
    }

    fn not_done(&self, trouble: Trouble) -> ErrandError {
        ErrandError::NotDone { name: self.name.clone(), trouble: Box::new(trouble) }
    }

    fn shown(&self, subscription: Subscription) -> ListedSubscription {
        let webhook = subscription.webhook.map(|webhook| ListedWebhook {
            serves: self.webhook.as_ref().is_some_and(|wanted| webhook.serves(wanted, self.now)),
            address: webhook.address,
            status: webhook.status,
            expiration: webhook.expiration,
        });
        let Subscription { content_type, enabled, .. } = subscription;
        ListedSubscription { content_type, enabled, collected: self.collected.contains(&content_type), webhook }
    }
}
