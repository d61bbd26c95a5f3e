//! Subscriptions: looked at first, started only where one is missing or disabled.
//!
//! Microsoft wants 15 minutes between two start requests ("Working with the Office 365 Management Activity API",
//! "Start a subscription"). The cool-down of a content type is written to the store at the last moment before its start
//! request is sent, when there is a token and the gate is open, so that it counts from there, and that a daemon that is
//! restarted, even by a crash, does not ask again too soon. While audit logging is off in a
//! tenant, its start is tried again each time the cool-down ends.
//!
//! **Invariants:** nothing here stops a subscription: what becomes available between a stop and the next start can
//! never be retrieved. The subscription of a content type that is no longer configured is left as it is; other
//! software of the tenant may rely on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, info_span};

use super::failure::{Failure, Reaction};
use super::gate::LONGEST;
use super::tree::Tree;
use crate::activity::{ActivityError, Fault, Reason};
use crate::content::ContentType;
use crate::retry::Stage;
use crate::store::WaitKey;

/// Microsoft's wait between two start requests of a content type, and half a minute for clocks that differ.
const COOLDOWN: Duration = Duration::from_secs(15 * 60 + 30);
/// When to look again after a start that was not carried out.
const SOON: Duration = Duration::from_secs(30);
/// A wait in words may be rounded.
const ROUNDED: Duration = Duration::from_secs(5);

/// How a content type's subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Enabled: it can be listed.
    Enabled,
    /// Enabled just now: the first content may take up to twelve hours to appear.
    Started,
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
        let enabled: BTreeSet<_> =
            listed.iter().filter(|listed| listed.enabled).map(|listed| listed.content_type).collect();
        let mut standings = BTreeMap::new();
        for &content_type in &tree.content_types {
            let standing = if enabled.contains(&content_type) && !doubted.contains(&content_type) {
                tree.works(Stage::Subscribe, Some(content_type));
                Standing::Enabled
            } else {
                start(&tree, content_type).await?
            };
            standings.insert(content_type, standing);
        }
        Ok(standings)
    }
    .instrument(span)
    .await
}

/// Starts one subscription, if its cool-down is over. Fails only if nothing of the tenant can go on.
async fn start(tree: &Tree, content_type: ContentType) -> Result<Standing, Failure> {
    let cooldown = Cooldown { tree, content_type };
    if let Some(until) = cooldown.ends().await {
        return Ok(Standing::Missing(until));
    }
    let client = &tree.client;
    let request = |token| async move { client.start_subscription(&token, content_type, None).await };
    let answer = tree.ask_after(Some(content_type), || cooldown.last(COOLDOWN), request).await;
    let failure = match answer {
        Ok(subscription) if subscription.enabled => {
            debug!(%content_type, "subscription started");
            tree.works(Stage::Subscribe, Some(content_type));
            return Ok(Standing::Started);
        }
        Ok(subscription) => {
            debug!(%content_type, status = ?subscription.status, "subscription started, and not enabled");
            return Ok(cooldown.standing().await);
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
            return Ok(cooldown.standing().await);
        }
        _ => {}
    }
    tree.failed(Stage::Subscribe, Some(content_type), &failure);
    Ok(cooldown.standing().await)
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

    async fn standing(&self) -> Standing {
        Standing::Missing(self.ends().await.unwrap_or_else(|| Instant::now() + SOON))
    }
}

fn never_sent(error: &ActivityError) -> bool {
    matches!(error, ActivityError::Transport { fault: Fault::Dns | Fault::Connect | Fault::Proxy | Fault::Tls, .. })
}

/// The service failed, or took no requests at all. Should it have counted the start all the same, the next one is
/// answered with the wait that is left; should the start have had its effect, the list shows it before.
fn not_carried_out(error: &ActivityError) -> bool {
    let passing = [Reason::ServiceFailed, Reason::Unavailable, Reason::RequestTimedOut, Reason::Throttled];
    error.refusal().is_some_and(|refusal| passing.contains(&refusal.reason))
}

fn is_cooldown(error: &ActivityError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::StartCooldown)
}
