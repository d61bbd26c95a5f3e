//! How many requests Graph grants an app for one tenant, counted before they are sent. Pure: time comes in.
//!
//! "240 requests per 60 seconds, 800 requests per hour" for each app and tenant ("Microsoft Graph service-specific
//! throttling limits", service communications). What is counted here stays a little below, since others may ask for the
//! same app, and the windows of Graph need not be ours.
//!
//! **Invariant:** in no span of a minute are more than [`A_MINUTE`] requests allowed, and in no span of an hour more than
//! [`AN_HOUR`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The most in a minute.
pub const A_MINUTE: usize = 220;
/// The most in an hour.
pub const AN_HOUR: usize = 760;

const LIMITS: [(usize, Duration); 2] = [(A_MINUTE, Duration::from_mins(1)), (AN_HOUR, Duration::from_hours(1))];

/// The requests of the last hour.
#[derive(Debug, Default)]
pub struct Quota(VecDeque<Instant>);

impl Quota {
    /// Counts a request at `now` if it is allowed; else answers when the next one is.
    ///
    /// # Errors
    /// The moment to come back at.
    pub fn spend(&mut self, now: Instant) -> Result<(), Instant> {
        while self.0.front().is_some_and(|sent| now.duration_since(*sent) >= LIMITS[1].1) {
            self.0.pop_front();
        }
        let full = |(most, span): &(usize, Duration)| {
            let earliest = self.0.len().checked_sub(*most).and_then(|at| self.0.get(at))?;
            Some(*earliest + *span).filter(|free| *free > now)
        };
        if let Some(free) = LIMITS.iter().filter_map(full).max() {
            return Err(free);
        }
        self.0.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_has_more_requests_than_are_granted() {
        let start = Instant::now();
        let (mut quota, mut now, mut sent) = (Quota::default(), start, Vec::new());
        while sent.len() < 2 * AN_HOUR {
            match quota.spend(now) {
                Ok(()) => sent.push(now),
                Err(free) => {
                    assert!(free > now, "it says when to come back");
                    now = free;
                }
            }
        }
        for (most, span) in LIMITS {
            for (at, first) in sent.iter().enumerate() {
                assert!(sent.get(at + most).is_none_or(|next| next.duration_since(*first) >= span), "{at} of {most}");
            }
        }
        assert!(now.duration_since(start) < Duration::from_hours(2), "and no fewer than can be");
    }
}
