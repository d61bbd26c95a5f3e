//! The one place where HTTP clients are built.
//!
//! **Invariants:** redirects are never followed (a token goes only where it was meant to go); nothing is
//! decompressed behind our back (the activity module counts bytes on both sides); blobs use another connection
//! pool than tokens and listings, so that a flood of one cannot starve the other; HTTP/1.1 only, one answer per
//! connection at a time, because the streams of one HTTP/2 connection share a flow-control window and one dead
//! peer: a tenant that stalls there would hold up all the others.

use std::time::Duration;

/// The user agent that Microsoft sees.
pub const USER_AGENT: &str = concat!("tenantry/", env!("CARGO_PKG_VERSION"));

/// How long an answer may stand still: five seconds are too few for busy tenants.
pub const STALL: Duration = Duration::from_mins(1);

/// How long a token request, a subscription request or a page of a listing may take as a whole.
pub const TOTAL: Duration = Duration::from_mins(2);

/// The limits in time of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For name resolution, TCP and TLS together.
    pub connect: Duration,
    /// How long an answer may stand still, its headers and each part of its body.
    pub stall: Duration,
    /// The whole of a request on [`Http::control`]; blobs have a minimum pace instead.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(15), stall: STALL, total: TOTAL }
    }
}

/// The two pools.
#[derive(Debug, Clone)]
pub struct Http {
    /// For tokens, subscriptions and listings.
    pub control: reqwest::Client,
    /// For blobs.
    pub blobs: reqwest::Client,
}

impl Http {
    /// Both clients with the usual limits, through the proxies that the environment names; fails if the host's
    /// root certificates cannot be loaded.
    pub fn new() -> Result<Self, reqwest::Error> {
        Self::with(Timeouts::default())
    }

    /// Both clients with other limits.
    pub fn with(timeouts: Timeouts) -> Result<Self, reqwest::Error> {
        Ok(Self { control: builder(timeouts).timeout(timeouts.total).build()?, blobs: builder(timeouts).build()? })
    }

    /// Both clients without a proxy, for a cloud on this very host (the demo, tests).
    pub fn direct(timeouts: Timeouts) -> Result<Self, reqwest::Error> {
        Ok(Self {
            control: builder(timeouts).timeout(timeouts.total).no_proxy().build()?,
            blobs: builder(timeouts).no_proxy().build()?,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
fn builder(timeouts: Timeouts) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        // No referer: there is nobody whom it concerns.
        .referer(false)
        .http1_only()
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.stall)
        .pool_idle_timeout(Duration::from_secs(90))
        // As many as there are places for blobs by default and then some: a handshake costs more than an idle socket.
        .pool_max_idle_per_host(96)
        .retry(reqwest::retry::never())
}

/// A client for the daemon's admin socket at `path`. Answers may take as long as they like: `tail` never ends.
#[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
pub fn admin_client(path: &std::path::Path) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().user_agent(USER_AGENT).unix_socket(path).no_proxy().build()
}
