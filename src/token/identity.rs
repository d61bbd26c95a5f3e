//! The managed identity of a host in Azure, as what proves the app.
//!
//! A user-assigned managed identity gets tokens without a secret from a service at the host itself: the instance metadata
//! service ("How to use managed identities for Azure resources on an Azure VM to acquire an access token"), or the one of App
//! Service and Container Apps ("REST endpoint reference"). Its own tokens are good in its home tenant only; a
//! multi-tenant app that trusts the identity ("Configure an application to trust a managed identity") takes its token for
//! [`Cloud::exchange_audience`](crate::cloud::Cloud::exchange_audience) in place of an assertion, and is then let in
//! wherever a customer has consented.
//!
//! One token serves all tenants of the app until shortly before its end; whoever comes meanwhile waits for the one request.
//! The service may be busy with itself, so that some of its answers are tried again here, within seconds; what lasts longer
//! is the caller's [`Advice`].
//!
//! **Invariant:** the service is asked without a proxy, and its header stays between it and us.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::header::{HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::answer::{self, Grant, NoGrant, Refusal, Unusable};
use super::endpoint::{self, Incoming, TransportError};
use super::federated::Borrowed;
use super::{TokenError, renewal};
use crate::http::{Http, HttpError, Timeouts};
use crate::retry::{Advice, Backoff};

/// Where the instance metadata service is: a link-local address, which leaves no host.
pub const METADATA: &str = "http://169.254.169.254";

/// Tries of one fetch, as Microsoft's libraries have them,
const TRIES: usize = 3;
/// and while the service says that it is being updated, which takes up to 70 seconds.
const TRIES_UPDATING: usize = 7;
const UPDATING: Duration = Duration::from_secs(10);
/// A longer wait than this is the caller's.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// For so long a failure is everyone's: a thousand tenants do not ask one after the other.
const FAILED: Duration = Duration::from_secs(10);

/// Which of the host's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By its client id.
    Client(Uuid),
    /// By its object (principal) id.
    Object(Uuid),
    /// By its resource id: `/subscriptions/…/userAssignedIdentities/NAME`.
    Resource(String),
}

impl FromStr for Identity {
    type Err = &'static str;

    /// `GUID`, `object_id:GUID` or `resource_id:/subscriptions/…`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "it is no identity; write its client id, `object_id:` and its object id, or `resource_id:` and \
                              its resource id (`/subscriptions/…`); a system-assigned one cannot prove an app";
        let guid = |text: &str| Uuid::try_parse(text).map_err(|_| WANTED);
        match text.split_once(':') {
            None => Ok(Self::Client(guid(text)?)),
            Some(("client_id", id)) => Ok(Self::Client(guid(id)?)),
            Some(("object_id", id)) => Ok(Self::Object(guid(id)?)),
            Some(("resource_id", id)) if id.to_lowercase().starts_with("/subscriptions/") => {
                Ok(Self::Resource(id.to_owned()))
            }
            Some(_) => Err(WANTED),
        }
    }
}

/// As a configuration has it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(id) => write!(f, "{id}"),
            Self::Object(id) => write!(f, "object_id:{id}"),
            Self::Resource(id) => write!(f, "resource_id:{id}"),
        }
    }
}

/// Who hands out its tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum Service {
    /// The instance metadata service at this address.
    Metadata(Url),
    /// The service of App Service, Functions and Container Apps, with what callers must show it.
    AppService(Url, HeaderValue),
}

impl Service {
    fn request(&self, identity: &Identity, audience: &str) -> (Url, HeaderName, HeaderValue) {
        let (mut url, header, value, names, version) = match self {
            Self::Metadata(base) => {
                let mut url = base.clone();
                url.set_path("/metadata/identity/oauth2/token");
                let names = ["client_id", "object_id", "msi_res_id"];
                (url, "metadata", HeaderValue::from_static("true"), names, "2018-02-01")
            }
            Self::AppService(endpoint, header) => {
                let names = ["client_id", "principal_id", "mi_res_id"];
                (endpoint.clone(), "x-identity-header", header.clone(), names, "2019-08-01")
            }
        };
        let (name, id) = match identity {
            Identity::Client(id) => (names[0], id.to_string()),
            Identity::Object(id) => (names[1], id.to_string()),
            Identity::Resource(id) => (names[2], id.clone()),
        };
        let mut query = url.query_pairs_mut();
        query.append_pair("api-version", version).append_pair("resource", audience).append_pair(name, &id);
        drop(query);
        (url, HeaderName::from_static(header), value)
    }

    /// Its address without the rest.
    fn host(&self) -> String {
        match self {
            Self::Metadata(url) | Self::AppService(url, _) => url.origin().ascii_serialization(),
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(_) => write!(f, "the instance metadata service at {}", self.host()),
            Self::AppService(..) => write!(f, "the identity endpoint at {}", self.host()),
        }
    }
}

/// How the service is reached: the seam where tests put theirs.
pub(super) trait Local: fmt::Debug + Send + Sync + 'static {
    fn get(
        &self,
        url: Url,
        header: (HeaderName, HeaderValue),
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Incoming, IdentityError>>;
}

/// Without a proxy, and made when it is needed first.
#[derive(Debug, Default)]
struct Direct(OnceLock<reqwest::Client>);

impl Local for Direct {
    fn get(
        &self,
        url: Url,
        (name, value): (HeaderName, HeaderValue),
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Incoming, IdentityError>> {
        Box::pin(async move {
            let client = if let Some(client) = self.0.get() {
                client
            } else {
                // It is on this host, or it is not there at all.
                let timeouts = Timeouts {
                    connect: Duration::from_secs(2),
                    stall: Duration::from_secs(10),
                    total: Duration::from_secs(20),
                };
                let client = Http::direct(timeouts).map_err(IdentityError::Client)?.control;
                self.0.get_or_init(|| client)
            };
            let response = client.get(url).header(name, value).send().await.map_err(TransportError::NoAnswer)?;
            Ok(endpoint::receive(response, now).await?)
        })
    }
}

/// Why the service has no token for us.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("there is no client to ask with")]
    Client(#[source] HttpError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("it answered {} {}", .0.status, .0.description.as_deref().or(.0.error.as_deref()).unwrap_or("without a word"))]
    Refused(Box<Refusal>, Option<Duration>),
    #[error("its answer cannot be used: {0}")]
    Unusable(Unusable),
    #[error("its token is no JWT")]
    NoJwt,
}

impl IdentityError {
    /// What to do next. 404, 410, 429 and 5xx pass, as the page on retries has it, and so does what is
    /// not the service's own word; other refusals are about us.
    pub(super) fn advice(&self) -> Advice {
        match self {
            Self::Refused(refusal, _) if refusal.status == 410 => Advice::Retry { after: Some(UPDATING) },
            Self::Refused(refusal, after) if !refusal.json || matches!(refusal.status, 404 | 429 | 500..) => {
                Advice::Retry { after: *after }
            }
            Self::Refused(..) | Self::Client(_) => Advice::PauseApp,
            Self::Transport(_) | Self::Unusable(_) | Self::NoJwt => Advice::Retry { after: None },
        }
    }

    const fn tries(&self) -> usize {
        match self {
            Self::Refused(refusal, _) if refusal.status == 410 => TRIES_UPDATING,
            _ => TRIES,
        }
    }
}

/// A managed identity; one for each app that proves itself with it. Two are equal if they ask for the same at the same place.
pub struct ManagedIdentity {
    identity: Identity,
    service: Service,
    local: Box<dyn Local>,
    kept: Mutex<HashMap<String, Kept>>,
}

/// What is known for one audience.
#[derive(Debug, Default)]
struct Kept {
    token: Option<Token>,
    failed: Option<(Instant, TokenError)>,
}

#[derive(Debug)]
struct Token {
    borrowed: Borrowed,
    renew_at: Instant,
    usable_until: Instant,
}

impl ManagedIdentity {
    /// Nothing is asked for yet.
    #[must_use]
    pub fn new(identity: Identity, service: Service) -> Self {
        Self::with_local(identity, service, Box::<Direct>::default())
    }

    pub(super) fn with_local(identity: Identity, service: Service, local: Box<dyn Local>) -> Self {
        Self { identity, service, local, kept: Mutex::default() }
    }

    /// What the configuration calls it.
    #[must_use]
    pub fn name(&self) -> String {
        self.identity.to_string()
    }

    /// Who hands out its tokens.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Its token for `audience`, kept or new.
    pub(super) async fn token(&self, audience: &str, now: Timestamp) -> Result<Borrowed, TokenError> {
        let mut all = self.kept.lock().await;
        let kept = all.entry(audience.to_owned()).or_default();
        let at = Instant::now();
        if let Some(token) = kept.token.as_ref().filter(|token| at < token.renew_at) {
            return Ok(token.borrowed.clone());
        }
        // Better an old one than none.
        let usable = kept.token.as_ref().filter(|token| at < token.usable_until).map(|token| token.borrowed.clone());
        if let Some((_, error)) = kept.failed.as_ref().filter(|(until, _)| at < *until) {
            return usable.ok_or_else(|| error.clone());
        }
        match self.fetch(audience, now).await {
            Ok((borrowed, grant)) => {
                let renew_in = renewal::renew_in(grant.life, grant.refresh_in, grant.life, 0.0);
                let usable_until = at + renewal::usable_for(grant.life);
                kept.token = Some(Token { borrowed: borrowed.clone(), renew_at: at + renew_in, usable_until });
                kept.failed = None;
                Ok(borrowed)
            }
            Err(error) => {
                let error = TokenError::managed_identity(error, &self.name(), &self.service);
                kept.failed = Some((Instant::now() + FAILED, error.clone()));
                usable.ok_or(error)
            }
        }
    }

    /// The next one is asked for anew.
    pub(super) async fn forget(&self) {
        for kept in self.kept.lock().await.values_mut() {
            kept.token = None;
        }
    }

    async fn fetch(&self, audience: &str, now: Timestamp) -> Result<(Borrowed, Grant), IdentityError> {
        let mut pace = Backoff::between(Duration::from_secs(1), Duration::from_secs(4));
        let mut tries = 1;
        loop {
            let error = match self.ask(audience, now).await {
                Ok(granted) => return Ok(granted),
                Err(error) => error,
            };
            let Advice::Retry { after } = error.advice() else { return Err(error) };
            if tries >= error.tries() || after.is_some_and(|after| after > LONGEST_WAIT) {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pace.failed(after)).await;
        }
    }

    async fn ask(&self, audience: &str, now: Timestamp) -> Result<(Borrowed, Grant), IdentityError> {
        let (url, name, mut value) = self.service.request(&self.identity, audience);
        value.set_sensitive(true);
        // A header of digits and letters, or there would be no service.
        let shown = value.to_str().unwrap_or_default().to_owned();
        let concealed = if name == "metadata" { "" } else { &shown };
        let incoming = self.local.get(url, (name, value), now).await?;
        match answer::read(&incoming, now, &[concealed]) {
            Ok(grant) => {
                let borrowed = Borrowed::new(grant.token.expose()).map_err(|_| IdentityError::NoJwt)?;
                Ok((borrowed, grant))
            }
            Err(NoGrant::Refused(refusal)) => Err(IdentityError::Refused(refusal, incoming.retry_after)),
            Err(NoGrant::Unusable(unusable)) => Err(IdentityError::Unusable(unusable)),
        }
    }
}

impl PartialEq for ManagedIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.service == other.service
    }
}

impl Eq for ManagedIdentity {}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentity")
            .field("identity", &self.identity)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
