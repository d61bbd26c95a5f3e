//! Subscriptions: looked at first, started only where one is missing or disabled.
//!
//! Microsoft wants 15 minutes between two start requests ("Working with the Office 365 Management Activity API",
//! "Start a subscription"). The cool-down of a content type is written to the store before its start request is sent,
//! so that a daemon that is restarted, even by a crash, does not ask again too soon. While audit logging is off in a
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

use super::failure::Failure;
use super::tree::Tree;
use crate::activity::{ActivityError, Fault, Reason};
use crate::content::ContentType;
use crate::retry::{Advice, Stage};
use crate::store::WaitKey;

/// Microsoft's wait between two start requests of a content type, and half a minute for clocks that differ.
const COOLDOWN: Duration = Duration::from_secs(15 * 60 + 30);
/// When to look again after a start that was not carried out.
const SOON: Duration = Duration::from_secs(30);
/// A remembered cool-down is not longer than this, whatever happened to the clocks since; the service may name one
/// itself that is longer than its documentation says.
pub(super) const LONGEST_COOLDOWN: Duration = Duration::from_hours(1);

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
        let listed = tree.ask(|token| async move { client.list_subscriptions(&token).await }).await?;
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
    if let Some(until) = tree.cooling_until(content_type) {
        return Ok(Standing::Missing(until));
    }
    cool_down(tree, content_type, COOLDOWN).await?;
    let client = &tree.client;
    let answer = tree.ask(|token| async move { client.start_subscription(&token, content_type, None).await }).await;
    let failure = match answer {
        Ok(subscription) if subscription.enabled => {
            debug!(%content_type, "subscription started");
            tree.works(Stage::Subscribe, Some(content_type));
            return Ok(Standing::Started);
        }
        Ok(subscription) => {
            debug!(%content_type, status = ?subscription.status, "subscription started, and not enabled");
            return Ok(standing(tree, content_type));
        }
        Err(failure) => failure,
    };
    debug!(%content_type, error = %failure.trouble().cause, "subscription not started");
    match &failure {
        // Without a token nothing was sent, and nothing else of the tenant will be.
        Failure::Token(_) => {
            forget(tree, content_type).await?;
            return Err(failure);
        }
        Failure::Service(error) if never_sent(error) => forget(tree, content_type).await?,
        Failure::Service(error) if not_carried_out(error) => {
            forget(tree, content_type).await?;
            cool_down(tree, content_type, SOON).await?;
        }
        Failure::Service(error) if is_cooldown(error) => {
            if let Advice::Retry { after: Some(wait) } = error.advice() {
                cool_down(tree, content_type, wait + Duration::from_secs(5)).await?;
            }
            // Somebody else asked, or we did before we could remember it: nothing is wrong.
            return Ok(standing(tree, content_type));
        }
        _ => {}
    }
    tree.failed(Stage::Subscribe, Some(content_type), &failure);
    Ok(standing(tree, content_type))
}

fn standing(tree: &Tree, content_type: ContentType) -> Standing {
    Standing::Missing(tree.cooling_until(content_type).unwrap_or_else(|| Instant::now() + SOON))
}

async fn cool_down(tree: &Tree, content_type: ContentType, wait: Duration) -> Result<(), Failure> {
    tree.cool_down(content_type, wait);
    remember(tree, content_type, Some(wait)).await
}

/// No start request was sent: none has to be waited for.
async fn forget(tree: &Tree, content_type: ContentType) -> Result<(), Failure> {
    tree.end_cool_down(content_type);
    remember(tree, content_type, None).await
}

async fn remember(tree: &Tree, content_type: ContentType, wait: Option<Duration>) -> Result<(), Failure> {
    tree.remember(WaitKey::SubscriptionStart(content_type), wait).await.map_err(Failure::Store)
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
