//! What is asked of one tenant's chain, and what the answers mean.
//!
//! What this asks anew decides; what the daemon knows is told only where asking would do harm (starting a subscription),
//! and at the end, when everything that was asked is well and the daemon still has trouble.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::chain::{Link, Probe, Verdict};
use super::knocks::Knocks;
use super::placement::{no_token, refused};
use crate::activity::{ActivityError, Reason, Subscription, Window};
use crate::content::{ContentBlob, ContentType};
use crate::graph::List;
use crate::report::{TenantStatus, Trouble, clock_trouble, span};
use crate::retry::{Advice, Stage};
use crate::tenant::health::line::Unanswered;
use crate::tenant::{Means, Patient};
use crate::token::{AccessToken, Certificate, Credential};

/// How far back content is listed; the service allows no more in one request.
const LISTED: SignedDuration = SignedDuration::from_hours(23);
/// Content that waits longer than this is late,
const LATE: i64 = 3600;
/// and so is a tenant that was not listed for so long.
const UNLISTED: i64 = 1800;

/// A look at one tenant.
pub(super) struct Examination<'p> {
    patient: &'p Patient,
    knocks: &'p Knocks,
    /// Known once it was asked for.
    token: Option<AccessToken>,
    /// A refused token was replaced.
    replaced: bool,
    subscriptions: BTreeMap<ContentType, Subscription>,
    /// The youngest that was listed.
    blob: Option<ContentBlob>,
}

impl<'p> Examination<'p> {
    pub(super) fn new(patient: &'p Patient, knocks: &'p Knocks) -> Self {
        Self { patient, knocks, token: None, replaced: false, subscriptions: BTreeMap::new(), blob: None }
    }

    fn status(&self) -> Option<TenantStatus> {
        self.patient.report.as_ref().map(crate::report::TenantReport::status)
    }

    /// What the daemon has met at a stage and not got over, with this content type or with all.
    fn known(&self, stage: Stage, content_type: ContentType) -> Option<Trouble> {
        let troubles = self.patient.report.as_ref()?.troubles();
        let fits = |about: Option<ContentType>| about.is_none_or(|about| about == content_type);
        troubles.into_iter().find(|(at, about, _)| *at == stage && fits(*about)).map(|(_, _, trouble)| trouble)
    }

    /// The links as far as the authority: one knock tells of all of them.
    async fn way(&self, means: &Means, link: Link) -> Verdict {
        let cloud = &means.cloud;
        let host = cloud.authority.host_str().unwrap_or_default();
        let knock = self.knocks.at(cloud).await;
        if let Err(error) = &knock {
            let Verdict::Broken(at, trouble) = no_token(error) else { return no_token(error) };
            // As far as the knock came, the way is good.
            if at == link {
                return Verdict::Broken(at, trouble);
            }
        }
        let (route, by_proxy) = self.knocks.route(cloud);
        match (link, knock) {
            (Link::Clock, Ok(Some(ahead))) => match clock_trouble(ahead) {
                Some(trouble) => Verdict::Broken(Link::Clock, trouble),
                None => Verdict::sound("right within a minute"),
            },
            (Link::Clock, _) => Verdict::unknown("the authority tells no time"),
            (Link::Dns, _) if by_proxy => Verdict::sound("the proxy's business"),
            (Link::Dns, _) => Verdict::sound(host),
            (Link::Proxy, _) => Verdict::sound(route),
            (Link::Tls, _) if cloud.authority.scheme() == "http" => Verdict::sound("none: it is this very host"),
            (Link::Tls, _) => Verdict::sound("its certificate is believed"),
            _ => Verdict::sound(cloud.authority.as_str().trim_end_matches('/')),
        }
    }

    async fn credential(&mut self, means: &Means) -> Verdict {
        match means.token.look_again().await {
            Ok(token) => self.token = Some(token),
            Err(error) => return no_token(&error),
        }
        let credential = &means.app.credential;
        if matches!(credential, Credential::Secret(_)) {
            return Verdict::sound("a client secret");
        }
        let signs = credential.certificate(self.knocks.now());
        let thumbprint = |certificate: &Arc<Certificate>| {
            format!("the certificate with the SHA-1 thumbprint {}", certificate.sha1_hex())
        };
        Verdict::sound(signs.map(thumbprint).unwrap_or_default())
    }

    /// Sends a request with the tenant's token, which is replaced once if it is refused.
    async fn ask<T, F: Future<Output = Result<T, ActivityError>> + Send>(
        &mut self,
        means: &Means,
        asked: Link,
        request: impl Fn(AccessToken) -> F,
    ) -> Result<T, Verdict> {
        loop {
            if means.gate.closed_until().is_some() {
                return Err(self.held());
            }
            let Some(token) = self.token.clone() else { return Err(Verdict::unknown("there is no token")) };
            let error = match request(token.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.advice() != Advice::RenewToken || std::mem::replace(&mut self.replaced, true) {
                return Err(refused(&error, asked));
            }
            means.token.refused(&token).await;
            match means.token.token().await {
                Ok(next) if next.generation() != token.generation() => self.token = Some(next),
                Ok(_) => return Err(refused(&error, asked)),
                Err(error) => return Err(no_token(&error)),
            }
        }
    }

    /// The service wants to be left alone.
    fn held(&self) -> Verdict {
        let open = self.patient.report.as_ref().map(crate::report::TenantReport::troubles).unwrap_or_default();
        let known = open.into_iter().map(|(_, _, trouble)| trouble).find(|trouble| trouble.kind == "throttled");
        let (cause, remedy) = Reason::Throttled.words();
        let trouble =
            known.unwrap_or_else(|| Trouble { remedy: remedy.to_owned(), ..Trouble::passing("throttled", cause) });
        Verdict::Broken(Link::Quota, trouble)
    }

    async fn service(&mut self, means: &Means) -> Verdict {
        let (Some(client), Some(management)) = (&means.client, &means.cloud.management) else { return without() };
        let request = |token| {
            let client = client.clone();
            async move { client.list_subscriptions(&token).await }
        };
        match self.ask(means, Link::Service, request).await {
            Ok(listed) => {
                self.subscriptions = listed.into_iter().map(|listed| (listed.content_type, listed)).collect();
                Verdict::sound(management.host.as_str().trim_end_matches('/'))
            }
            Err(verdict) => verdict,
        }
    }

    /// The service has accepted the token, whatever can be read in it.
    fn roles(&self) -> Verdict {
        match self.token.as_ref().and_then(AccessToken::claims) {
            Some(claims) if !claims.roles.is_empty() => Verdict::sound(claims.roles.join(", ")),
            _ => Verdict::sound("accepted"),
        }
    }

    /// The content types without a subscription that can be listed.
    fn missing<'a>(&'a self, means: &'a Means) -> impl Iterator<Item = ContentType> + 'a {
        let enabled = |of: &ContentType| self.subscriptions.get(of).is_some_and(|subscription| subscription.enabled);
        means.content_types.iter().filter(move |of| !enabled(of)).copied()
    }

    /// Only a start request tells whether the audit log is on: what the daemon's was told counts while a subscription is
    /// missing.
    fn audit_log(&self, means: &Means) -> Verdict {
        let off = Reason::AuditLogOff.kind();
        let mut known = self.missing(means).filter_map(|missing| self.known(Stage::Subscribe, missing));
        match (known.find(|trouble| trouble.kind == off), self.missing(means).next()) {
            (Some(trouble), _) => Verdict::Broken(Link::AuditLog, trouble),
            (None, None) => Verdict::sound("on"),
            (None, Some(_)) => Verdict::unknown("only starting a subscription tells"),
        }
    }

    fn subscribed(&self, means: &Means) -> Verdict {
        if let Some(missing) = self.missing(means).next() {
            let known = self.known(Stage::Subscribe, missing);
            return Verdict::Broken(Link::Subscriptions, known.unwrap_or_else(|| self.unsubscribed(missing)));
        }
        let webhooks = self.subscriptions.values().filter_map(|subscription| {
            let webhook = subscription.webhook.as_ref()?;
            let status = webhook.status.as_deref().unwrap_or("of unknown status");
            Some(format!("; {} has a webhook, {status}", subscription.content_type))
        });
        let count = means.content_types.len();
        Verdict::sound(std::iter::once(format!("{count} of {count} enabled")).chain(webhooks).collect::<String>())
    }

    fn unsubscribed(&self, missing: ContentType) -> Trouble {
        let reason = match self.subscriptions.get(&missing) {
            Some(_) => Reason::SubscriptionDisabled,
            None => Reason::NotSubscribed,
        };
        let (cause, remedy) = reason.words();
        let own = if self.patient.report.is_some() {
            "the daemon starts it; Microsoft wants 15 minutes between two attempts"
        } else {
            "start the daemon, which starts it (`systemctl start tenantry`)"
        };
        let remedy = if remedy.is_empty() { own } else { remedy };
        Trouble { remedy: remedy.to_owned(), ..Trouble::passing(reason.kind(), format!("{missing}: {cause}")) }
    }

    async fn listing(&mut self, means: &Means) -> Verdict {
        let end = self.knocks.now();
        let Ok(start) = end.checked_sub(LISTED) else {
            return Verdict::unknown("this host's clock is at its beginning");
        };
        let Some(client) = means.client.clone() else { return without() };
        let mut entries = 0;
        for &of in &means.content_types {
            let request = |token| {
                let client = client.clone();
                async move { client.list_content(&token, of, Window { start, end }).await }
            };
            let page = match self.ask(means, Link::Listing, request).await {
                Ok(page) => page,
                Err(verdict) => return verdict,
            };
            entries += page.entries.len();
            let youngest = page.entries.into_iter().max_by_key(|blob| blob.content_created);
            let known = self.blob.as_ref().map(|blob| blob.content_created);
            if let Some(youngest) = youngest.filter(|youngest| Some(youngest.content_created) > known) {
                self.blob = Some(youngest);
            }
        }
        Verdict::sound(match entries {
            0 => "nothing became available within a day".to_owned(),
            _ => format!("{entries} blobs on the first pages of a day"),
        })
    }

    /// The beginning of one blob.
    async fn blob(&mut self, means: &Means) -> Verdict {
        let Some(blob) = self.blob.clone() else {
            return Verdict::unknown("nothing was listed; the first content takes up to 12 hours to appear");
        };
        let Some(client) = means.client.clone() else { return without() };
        let request = |token| {
            let (client, blob) = (client.clone(), blob.clone());
            async move {
                let mut body = client.fetch_blob(&token, &blob).await?;
                Ok(body.chunk().await?.is_some_and(|chunk| chunk.trim_ascii_start().first() == Some(&b'[')))
            }
        };
        match self.ask(means, Link::Blob, request).await {
            Ok(true) => Verdict::sound(format!("one of {}", blob.content_type)),
            Ok(false) => Verdict::unknown("one was retrieved that does not begin as records do"),
            Err(verdict) => verdict,
        }
    }

    fn lag(&self) -> Verdict {
        self.status().map_or_else(|| Verdict::unknown("no daemon runs"), |status| lag(&status, self.knocks.now()))
    }

    fn quota(&self) -> Verdict {
        match self.status().map(|status| status.throttled) {
            Some(0) | None => Verdict::sound("not throttled"),
            Some(times) => Verdict::sound(format!("throttled {times} times since the daemon started")),
        }
    }

    fn certificate(&self, means: &Means) -> Verdict {
        let now = self.knocks.now();
        if let Some(problem) = means.app.expiry(now) {
            let (cause, remedy) = problem.message.rsplit_once("; ").unwrap_or((&problem.message, ""));
            return Verdict::Broken(Link::Certificate, Trouble::for_operator("certificate_expires", cause, remedy));
        }
        Verdict::sound(match means.app.credential.certificate(now) {
            Some(certificate) => format!("until {:.0}", certificate.not_after()),
            None => "no certificate".to_owned(),
        })
    }

    /// It is not collected, because somebody wants it so, or because it cannot be.
    fn at_rest(&self) -> Verdict {
        match (&self.patient.unable, self.status()) {
            (Some(trouble), _) => Verdict::Broken(Link::Collection, trouble.clone()),
            (None, Some(status)) => Verdict::unknown(status.state.as_str()),
            (None, None) => Verdict::unknown("it is not collected"),
        }
    }

    /// Everything that was asked is well; if the daemon has trouble all the same, that is what there is to tell.
    fn collection(&self) -> Verdict {
        match self.status() {
            None => Verdict::unknown("no daemon runs"),
            Some(status) => match status.trouble {
                Some(known) => Verdict::Broken(Link::Collection, known.trouble),
                None => Verdict::sound(status.state.as_str()),
            },
        }
    }
}

/// A link that is none where there are no audit records.
fn without() -> Verdict {
    Verdict::unknown("its cloud has no Management Activity API")
}

/// The list of services, and the newest posts: each list has a role of its own.
async fn health(means: &Means, now: Timestamp) -> Verdict {
    let Some(line) = &means.line else { return Verdict::sound("not collected") };
    for (list, since) in [(List::Services, None), (List::Messages, Some(now))] {
        let asked = line.ask(|token| async move { line.client().list(&token, list, since).await }).await;
        match asked {
            Ok(_) => {}
            Err(Unanswered::Held(_)) => return Verdict::unknown("Microsoft Graph wants to be left alone for a while"),
            Err(unanswered) => return Verdict::Broken(Link::Health, unanswered.trouble()),
        }
    }
    Verdict::sound(means.cloud.graph.as_str().trim_end_matches('/'))
}

fn granted(means: &Means) -> Verdict {
    let until = means.token.status().valid_until;
    Verdict::sound(until.map_or_else(String::new, |until| format!("valid until {until:.0}")))
}

/// Whether what became available is retrieved soon, as the daemon reports it.
fn lag(status: &TenantStatus, now: Timestamp) -> Verdict {
    let unlisted = status.last_poll.map(|at| now.duration_since(at).as_secs());
    if let Some(unlisted) = unlisted.filter(|unlisted| *unlisted >= UNLISTED && status.trouble.is_none()) {
        let cause = format!("the daemon has not listed the tenant for {}", span(unlisted));
        let remedy = "see what it does (`journalctl -u tenantry`)";
        return Verdict::Broken(Link::Lag, Trouble::for_operator("unlisted", cause, remedy));
    }
    let waits = status.queue.entries;
    match status.lag_seconds {
        Some(lag) if lag >= LATE && waits > 0 => {
            let cause = format!("{waits} blobs wait to be retrieved, the oldest for {}", span(lag));
            let remedy = "if `tenantry status` does not show the queue shrink, raise `concurrency_per_tenant` and \
                          `concurrency` in `[collect]`";
            Verdict::Broken(Link::Lag, Trouble { remedy: remedy.to_owned(), ..Trouble::passing("behind", cause) })
        }
        Some(lag) => Verdict::sound(format!("{}, {waits} waiting", span(lag))),
        None => Verdict::sound(format!("{waits} waiting")),
    }
}

impl Probe for Examination<'_> {
    async fn look(&mut self, link: Link) -> Verdict {
        let Some(means) = self.patient.means.clone() else { return self.at_rest() };
        match link {
            Link::Clock | Link::Dns | Link::Proxy | Link::Tls | Link::Authority => self.way(&means, link).await,
            Link::Credential => self.credential(&means).await,
            Link::Token => granted(&means),
            Link::Service => self.service(&means).await,
            Link::Roles => self.roles(),
            Link::AuditLog | Link::Subscriptions | Link::Blob | Link::Lag if means.client.is_none() => without(),
            Link::AuditLog => self.audit_log(&means),
            Link::Subscriptions => self.subscribed(&means),
            Link::Listing => self.listing(&means).await,
            Link::Blob => self.blob(&means).await,
            Link::Lag => self.lag(),
            Link::Quota => self.quota(),
            Link::Certificate => self.certificate(&means),
            Link::Health => health(&means, self.knocks.now()).await,
            Link::Collection => self.collection(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::TenantId;
    use crate::report::{TenantState, TroubleStatus};
    use crate::store::QueueDepth;

    #[test]
    fn what_waits_for_hours_and_what_was_not_listed_is_late() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let trouble = TroubleStatus { trouble: Trouble::passing("reset", "cause"), since: now, attempts: 1 };
        for (listed, waits, lag_seconds, trouble, told) in [
            (None, 0, None, None, Verdict::sound("0 waiting")),
            (Some(60), 0, Some(90), None, Verdict::sound("1m 30s, 0 waiting")),
            // The last one that was stored was late; nothing waits any more.
            (Some(60), 0, Some(LATE), None, Verdict::sound("1h 0m, 0 waiting")),
            (Some(60), 3, Some(LATE - 1), None, Verdict::sound("59m 59s, 3 waiting")),
            (
                Some(60),
                3,
                Some(LATE),
                None,
                Verdict::Broken(
                    Link::Lag,
                    Trouble {
                        remedy:
                            "if `tenantry status` does not show the queue shrink, raise `concurrency_per_tenant` and \
                                 `concurrency` in `[collect]`"
                                .to_owned(),
                        ..Trouble::passing("behind", "3 blobs wait to be retrieved, the oldest for 1h 0m")
                    },
                ),
            ),
            (
                Some(UNLISTED),
                0,
                None,
                None,
                Verdict::Broken(
                    Link::Lag,
                    Trouble::for_operator(
                        "unlisted",
                        "the daemon has not listed the tenant for 30m 0s",
                        "see what it does (`journalctl -u tenantry`)",
                    ),
                ),
            ),
            // Its trouble says why, in its own words.
            (Some(UNLISTED), 0, None, Some(trouble), Verdict::sound("0 waiting")),
        ] {
            let mut status = TenantStatus::new(TenantId::from_bytes([1; 16]), "contoso", TenantState::Collecting);
            status.last_poll = listed.map(|ago| now - SignedDuration::from_secs(ago));
            status.queue = QueueDepth { entries: waits, oldest: None };
            (status.lag_seconds, status.trouble) = (lag_seconds, trouble);
            assert_eq!(lag(&status, now), told);
        }
    }
}
