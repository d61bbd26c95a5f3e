//! One vocabulary for what to do after an error, and one policy for how long to wait.
//!
//! Every error that a stage can meet answers [`advice()`](Advice); the driver of that stage obeys it. Waits grow
//! by the `backoff` crate's exponential policy, are jittered, and never undercut what the service asked for.
//!
//! **Invariant:** nothing in this module sleeps or does I/O; a wait that the service asked for, and one of our own that
//! is longer than [`REMEMBERED`], is written to the store by its owner, so that a restart does not shorten it.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use serde::{Deserialize, Serialize};

/// Waits of our own that are longer than this survive a restart.
pub const REMEMBERED: Duration = Duration::from_mins(1);

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Passing trouble of this one request: try it again, no sooner than the service asked.
    Retry {
        /// What the service asked for (`Retry-After`, or the wait named in a message).
        after: Option<Duration>,
    },
    /// The service throttles the whole tenant: send it nothing until then, and ask for less.
    Throttled {
        /// What the service asked for.
        after: Option<Duration>,
    },
    /// The token was refused: get a new one, once.
    RenewToken,
    /// The page link is no longer good: list the window again from its first page.
    RelistWindow,
    /// The subscription is missing or disabled: look at it again, then start what is missing.
    CheckSubscription,
    /// A person must act: pause the tenant, say so, look again at long intervals.
    PauseTenant,
    /// A person must act on the app registration or this host: one alarm for all tenants that it affects.
    PauseApp,
    /// It cannot succeed any more (the content is gone): a dead letter.
    GiveUp,
}

/// The stages of the way of the data, each with its own pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asking the token endpoint.
    Token,
    /// Starting and listing subscriptions.
    Subscribe,
    /// Listing content.
    List,
    /// Retrieving a blob.
    Retrieve,
    /// Writing to the store.
    Store,
    /// Waiting for a person: a tenant or an app is paused.
    Paused,
    /// Restarting a tenant's task tree after a panic.
    Restart,
    /// Asking Graph for service health and the Message Center.
    Health,
    /// Asking what sensitive information types are called.
    Names,
}

impl Stage {
    /// All of them, in the order of the way.
    pub const ALL: [Self; 9] = [
        Self::Token,
        Self::Subscribe,
        Self::List,
        Self::Retrieve,
        Self::Store,
        Self::Paused,
        Self::Restart,
        Self::Health,
        Self::Names,
    ];

    /// The word for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subscribe => "subscribe",
            Self::List => "list",
            Self::Retrieve => "retrieve",
            Self::Store => "store",
            Self::Paused => "paused",
            Self::Restart => "restart",
            Self::Health => "health",
            Self::Names => "names",
        }
    }

    /// The first and the longest wait.
    const fn pace(self) -> (Duration, Duration) {
        match self {
            // "At least 30 s between two requests for one token" is the floor; Entra's loop detection wants patience.
            Self::Token => (Duration::from_secs(30), Duration::from_mins(15)),
            Self::Subscribe => (Duration::from_secs(30), Duration::from_mins(30)),
            Self::List => (Duration::from_secs(2), Duration::from_mins(5)),
            Self::Retrieve => (Duration::from_secs(1), Duration::from_mins(10)),
            Self::Store => (Duration::from_millis(250), Duration::from_mins(1)),
            Self::Paused => (Duration::from_mins(5), Duration::from_hours(1)),
            Self::Restart => (Duration::from_secs(1), Duration::from_mins(5)),
            Self::Health => (Duration::from_secs(10), Duration::from_mins(30)),
            Self::Names => (Duration::from_secs(10), Duration::from_hours(1)),
        }
    }
}

/// The waits of one thing that keeps failing.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(stage: Stage) -> Self {
        let (first, longest) = stage.pace();
        Self::between(first, longest)
    }

    /// A pace of its own: waits double from `first` to `longest`.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        let mut policy = ExponentialBackoff {
            initial_interval: first,
            current_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: 0.2,
            // How long to go on is the caller's decision: content is retried until it expires.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        policy.reset();
        Self { policy, longest, attempts: 0 }
    }

    /// How many attempts have failed in a row.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Counts a failure and says how long to wait: the growing interval with up to 20 % jitter either way, or
    /// what the service asked for plus up to 10 %, whichever is longer.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let own = self.policy.next_backoff().unwrap_or(self.longest);
        match asked {
            // Later than asked, never earlier, and not all tenants in the same second.
            Some(asked) => own.max(asked.mul_f64(1.0 + 0.1 * fastrand::f64())),
            None => own,
        }
    }

    /// It worked: the next failure starts at the beginning.
    pub fn succeeded(&mut self) {
        self.policy.reset();
        self.attempts = 0;
    }
}

/// The wait after the `failures`-th failure in a row, for what is counted elsewhere: from `first` to `longest`, each
/// `factor` times the one before, less up to a fifth.
#[must_use]
pub fn growing(first: Duration, factor: u32, longest: Duration, failures: u32) -> Duration {
    let wait = factor.checked_pow(failures.saturating_sub(1)).and_then(|times| first.checked_mul(times));
    jittered(wait.unwrap_or(longest).min(longest), 0.2)
}

/// `interval` less up to `share` of it, so that many periodic works do not fall into step.
#[must_use]
pub fn jittered(interval: Duration, share: f64) -> Duration {
    interval.mul_f64(1.0 - share.clamp(0.0, 1.0) * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::between(Duration::from_secs(1), Duration::from_mins(1));
        let waits: Vec<_> = (0..20).map(|_| backoff.failed(None)).collect();
        assert!(waits[0] >= Duration::from_millis(800) && waits[0] <= Duration::from_millis(1200), "{waits:?}");
        assert!(waits[19] >= Duration::from_secs(48) && waits[19] <= Duration::from_secs(72), "{waits:?}");
        assert_eq!(backoff.attempts(), 20);
        backoff.succeeded();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.failed(None) <= Duration::from_millis(1200));
    }

    #[test]
    fn a_wait_is_never_shorter_than_the_service_asked() {
        let mut backoff = Backoff::new(Stage::List);
        for _ in 0..50 {
            backoff.succeeded();
            let wait = backoff.failed(Some(Duration::from_mins(2)));
            assert!(wait >= Duration::from_mins(2) && wait <= Duration::from_secs(132), "{wait:?}");
        }
    }

    #[test]
    fn jitter_only_shortens() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(100), 0.05);
            assert!(wait <= Duration::from_secs(100) && wait >= Duration::from_secs(95));
        }
    }
}
