//! The one place where HTTP clients are built.
//!
//! **Invariants:** redirects are never followed (a token goes only where it was meant to go); nothing is
//! decompressed behind our back (the activity module counts bytes on both sides); blobs use another connection
//! pool than tokens and listings, so that a flood of one cannot starve the other.

use std::time::Duration;

/// The user agent that Microsoft sees.
pub const USER_AGENT: &str = concat!("tenantry/", env!("CARGO_PKG_VERSION"));

/// How long an answer may stand still: five seconds are too few for busy tenants, a minute is what peers ended at.
pub const STALL: Duration = Duration::from_secs(60);

/// The two pools.
#[derive(Debug, Clone)]
pub struct Http {
    /// For tokens, subscriptions and listings.
    pub control: reqwest::Client,
    /// For blobs.
    pub blobs: reqwest::Client,
}

impl Http {
    /// Builds both clients; fails if the host's root certificates cannot be loaded.
    pub fn new() -> Result<Self, reqwest::Error> {
        // A whole listing page or token answer is small; what takes longer than two minutes is not coming.
        let control = builder().timeout(Duration::from_secs(120)).build()?;
        let blobs = builder().build()?;
        Ok(Self { control, blobs })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(STALL)
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_max_idle_per_host(32)
        .retry(reqwest::retry::never())
}
