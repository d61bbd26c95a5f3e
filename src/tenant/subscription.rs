//! Subscriptions: looked at first, started only where one is missing or disabled.
//!
//! Microsoft wants 15 minutes between two start requests ("Working with the Office 365 Management Activity API",
//! "Start a subscription"). The cool-down of a content type is written to the store at the last moment before its start
//! request is sent, when there is a token and the gate is open, so that it counts from there, and that a daemon that is
//! restarted, even by a crash, does not ask again too soon. While audit logging is off in a
//! tenant, its start is tried again each time the cool-down ends.
//!
//! Where a webhook is wanted, an enabled subscription whose webhook is another, or disabled, nulled or about to expire, is
//! started again with it, at the same pace. What is missing is first started without: a webhook that the service cannot
//! reach would keep the subscription from being started, and content is listed whatever becomes of the webhook.
//!
//! **Invariants:** nothing here stops a subscription: what becomes available between a stop and the next start can
//! never be retrieved. The subscription of a content type that is no longer configured is left as it is; other
//! software of the tenant may rely on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::failure::{Failure, Reaction};
use super::gate::LONGEST;
use super::hook::Shown;
use super::tree::Tree;
use crate::activity::{ActivityError, Fault, Reason, Subscription, Webhook, WebhookState};
use crate::content::ContentType;
use crate::event;
use crate::retry::Stage;
use crate::store::WaitKey;

/// When to look again after a start that was not carried out.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// A wait in words may be rounded.
pub(super) const ROUNDED: Duration = Duration::from_secs(5);

/// How a content type's subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Enabled: it can be listed.
    Enabled,
    /// Enabled just now: the first content may take up to twelve hours to appear.
    Started,
    /// Enabled, and its webhook does not serve; no start request before this moment.
    Unhooked(Instant),
    /// Not enabled; no start request before this moment.
    Missing(Instant),
}

/// Looks at the subscriptions of all configured content types and starts what is missing. `doubted` are those which
/// a listing found missing or disabled, whatever the list of subscriptions says.
pub(super) async fn check(
    tree: Arc<Tree>,
    doubted: BTreeSet<ContentType>,
) -> Result<BTreeMap<ContentType, Standing>, Failure> {
    let span = info_span!("tenant.subscribe", tenant = %tree.tenant);
    async move {
        let client = &tree.client;
        let listed = tree.ask(None, |token| async move { client.list_subscriptions(&token).await }).await?;
        tree.works(Stage::Subscribe, None);
        let enabled: BTreeMap<_, _> =
            listed.iter().filter(|listed| listed.enabled).map(|listed| (listed.content_type, listed)).collect();
        let mut standings = BTreeMap::new();
        for &content_type in &tree.content_types {
            let listed = enabled.get(&content_type).filter(|_| !doubted.contains(&content_type));
            let standing = match (listed, &tree.webhook) {
                (Some(listed), Some(wanted)) if !is_served(&tree, listed, wanted) => {
                    hook(&tree, content_type, wanted, listed.webhook.as_ref()).await?
                }
                (Some(_), _) => {
                    tree.works(Stage::Subscribe, Some(content_type));
                    Standing::Enabled
                }
                (None, _) => start(&tree, content_type).await?,
            };
            standings.insert(content_type, standing);
        }
        Ok(standings)
    }
    .instrument(span)
    .await
}

/// Whether notifications of a subscription come to us, as far as the service tells.
fn is_served(tree: &Tree, listed: &Subscription, wanted: &Webhook) -> bool {
    let (Some(webhook), now) = (&listed.webhook, tree.time.now()) else { return false };
    webhook.serves(wanted, now)
        || webhook.reaches(wanted, now)
            && webhook
                .auth_id
                .as_ref()
                .is_some_and(|auth_id| tree.shown(listed.content_type, |shown| shown.stands_for_ours(auth_id)))
}

/// Starts one subscription, if its cool-down is over. Fails only if nothing of the tenant can go on.
async fn start(tree: &Tree, content_type: ContentType) -> Result<Standing, Failure> {
    let cooldown = Cooldown { tree, content_type };
    let started = ask(&cooldown, None).await?;
    if started == Some(true) {
        debug!(%content_type, "subscription started");
        tree.works(Stage::Subscribe, Some(content_type));
        return Ok(Standing::Started);
    }
    Ok(Standing::Missing(cooldown.moment().await))
}

/// Starts a subscription that is enabled once more, for its webhook.
async fn hook(
    tree: &Tree,
    content_type: ContentType,
    webhook: &Webhook,
    before: Option<&WebhookState>,
) -> Result<Standing, Failure> {
    let cooldown = Cooldown { tree, content_type };
    if cooldown.ends().await.is_none()
        && let Some(before) = before.filter(|before| before.address != webhook.address.as_str())
    {
        warn!(
            tenant = %tree.tenant,
            name = %tree.report.name(),
            %content_type,
            address = before.address,
            "notifications went elsewhere; they are asked for at `[public] url` now"
        );
    }
    if ask(&cooldown, Some(webhook)).await? == Some(true) {
        tree.shown(content_type, |shown| *shown = Shown::Given);
        info!(
            message_id = event::WEBHOOK_REGISTERED,
            tenant = %tree.tenant,
            name = %tree.report.name(),
            %content_type,
            before = before.map_or("none", |before| before.status.as_deref().unwrap_or("unknown")),
            "Microsoft notifies of new content"
        );
        tree.works(Stage::Subscribe, Some(content_type));
        return Ok(Standing::Enabled);
    }
    Ok(Standing::Unhooked(cooldown.moment().await))
}

/// Sends a start request, if its cool-down is over: whether the subscription is enabled by it; `None` if nothing was
/// carried out. Fails only if nothing of the tenant can go on.
async fn ask(cooldown: &Cooldown<'_>, webhook: Option<&Webhook>) -> Result<Option<bool>, Failure> {
    let Cooldown { tree, content_type } = *cooldown;
    if cooldown.ends().await.is_some() {
        return Ok(None);
    }
    let client = &tree.client;
    let request = |token| async move { client.start_subscription(&token, content_type, webhook).await };
    let wait = tree.start_cooldown();
    let answer = tree.ask_after(Some(content_type), || cooldown.last(wait), request).await;
    let failure = match answer {
        Ok(subscription) => {
            if !subscription.enabled {
                debug!(%content_type, status = ?subscription.status, "subscription started, and not enabled");
            }
            return Ok(Some(subscription.enabled));
        }
        Err(failure) => failure,
    };
    debug!(%content_type, error = %failure.trouble().cause, "subscription not started");
    match (failure.reaction(), &failure) {
        // Nothing was sent, and nothing else of the tenant will be.
        (Reaction::Stop | Reaction::AwaitToken | Reaction::AwaitStore, _) => {
            cooldown.has_not_begun().await?;
            return Err(failure);
        }
        (_, Failure::Service(error)) if never_sent(error) => cooldown.has_not_begun().await?,
        (_, Failure::Service(error)) if not_carried_out(error) => cooldown.last(SOON).await?,
        (Reaction::Again { after }, Failure::Service(error)) if is_cooldown(error) => {
            if let Some(wait) = after {
                cooldown.last(wait + ROUNDED).await?;
            }
            // Somebody else asked, or we did before we could remember it: nothing is wrong.
            return Ok(None);
        }
        _ => {}
    }
    tree.failed(Stage::Subscribe, Some(content_type), &failure);
    Ok(None)
}

/// The time after a start request of one content type in which no other is sent, by this process or the next.
struct Cooldown<'a> {
    tree: &'a Tree,
    content_type: ContentType,
}

impl Cooldown<'_> {
    fn key(&self) -> WaitKey {
        WaitKey::SubscriptionStart(self.content_type)
    }

    /// When it ends, if it lasts.
    async fn ends(&self) -> Option<Instant> {
        self.tree.waits.until(&self.key()).await
    }

    /// It lasts for so long from now on.
    async fn last(&self, wait: Duration) -> Result<(), Failure> {
        self.tree.waits.remember(self.key(), wait.min(LONGEST)).await.map_err(Failure::Store)
    }

    /// No start request was sent: none has to be waited for.
    async fn has_not_begun(&self) -> Result<(), Failure> {
        match self.ends().await {
            Some(_) => self.tree.waits.forget(self.key()).await.map_err(Failure::Store),
            None => Ok(()),
        }
    }

    /// When a start request may be sent again.
    async fn moment(&self) -> Instant {
        self.ends().await.unwrap_or_else(|| Instant::now() + SOON)
    }
}

/// Whether the request cannot have reached the service.
pub(super) fn never_sent(error: &ActivityError) -> bool {
    matches!(error, ActivityError::Transport { fault: Fault::Dns | Fault::Connect | Fault::Proxy | Fault::Tls, .. })
}

/// The service failed, or took no requests at all. Should it have counted the start all the same, the next one is
/// answered with the wait that is left; should the start have had its effect, the list shows it before.
pub(super) fn not_carried_out(error: &ActivityError) -> bool {
    let passing = [Reason::ServiceFailed, Reason::Unavailable, Reason::RequestTimedOut, Reason::Throttled];
    error.refusal().is_some_and(|refusal| passing.contains(&refusal.reason))
}

pub(super) fn is_cooldown(error: &ActivityError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::StartCooldown)
}
