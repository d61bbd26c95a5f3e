//! The token of one tenant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Credential;
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::TenantId;
use crate::report::Trouble;
use crate::retry::Advice;

/// What is asked for, and by whom.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Where the tenant lives.
    pub cloud: Arc<Cloud>,
    /// Whose data the token opens.
    pub tenant: TenantId,
    /// What the token is for: the cloud's management or Graph audience.
    pub audience: String,
    /// Which of the two token endpoints.
    pub endpoint: TokenEndpoint,
    /// The app's name in the configuration; empty for `[app]`.
    pub app: String,
    /// The app's client id.
    pub client_id: String,
    /// What the app proves itself with.
    pub credential: Credential,
    /// The longest time that a token is used before a new one is asked for.
    pub renew_after: Duration,
}

/// A bearer token.
#[derive(Clone)]
pub struct AccessToken {
    authorization: HeaderValue,
    issued: Instant,
    valid_until: Instant,
    generation: u64,
}

impl AccessToken {
    /// The value of the `Authorization` header, marked sensitive.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// The moment before it was asked for.
    #[must_use]
    pub const fn issued(&self) -> Instant {
        self.issued
    }

    /// When it ends, counted from [`issued`](Self::issued).
    #[must_use]
    pub const fn valid_until(&self) -> Instant {
        self.valid_until
    }

    /// Counts the tokens of its source, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// How the source of a token fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenStatus {
    /// When the current token ends.
    pub valid_until: Option<Timestamp>,
    /// When the next request for a token is planned.
    pub renews_at: Option<Timestamp>,
    /// Why the last request failed; `None` after one that succeeded.
    pub last_error: Option<Trouble>,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no token")]
pub struct TokenError {
    advice: Advice,
    trouble: Arc<Trouble>,
}

impl TokenError {
    /// A stable label, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        "token"
    }

    /// What the caller does next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        self.advice
    }

    /// What the operator reads.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        Trouble::clone(&self.trouble)
    }
}

/// The alarms of apps: what is wrong with an app is wrong for all of its tenants, and is said and probed once.
#[derive(Debug, Default)]
pub struct AppAlarms {}

impl AppAlarms {
    /// No alarm.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

/// The token of one tenant, for one audience; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    changes: watch::Sender<u64>,
}

impl TokenSource {
    /// A source that has asked for nothing yet. `http` is [`Http::control`](crate::http::Http::control).
    #[must_use]
    pub fn new(
        _request: TokenRequest,
        _http: reqwest::Client,
        _clock: SharedClock,
        _time: Arc<ServiceTime>,
        _apps: &Arc<AppAlarms>,
    ) -> Self {
        Self { inner: Arc::new(Inner { changes: watch::Sender::new(0) }) }
    }

    /// The current token while it is valid; else waits for the one request in flight, or makes it.
    #[expect(clippy::unused_async, reason = "the signature, ahead of the work")]
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        todo!("the token endpoint")
    }

    /// A 401: renews once for this token's generation; later calls for the same generation only wait for that.
    #[expect(clippy::unused_async, reason = "the signature, ahead of the work")]
    pub async fn refused(&self, _token: &AccessToken) {
        todo!("the token endpoint")
    }

    /// Renews the token for ever; a task of the tenant's tree.
    #[expect(clippy::unused_async, reason = "the signature, ahead of the work")]
    pub async fn renew(&self) -> ! {
        todo!("the renewal loop")
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        TokenStatus::default()
    }

    /// The generation of the current token, and when it changes; 0 before the first.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}
