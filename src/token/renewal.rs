//! When a token is renewed, and how soon it may be asked for again. Pure: durations come in, a duration goes out.

use std::time::Duration;

/// The least time between two requests for one token, whatever happens.
pub const FLOOR: Duration = Duration::from_secs(30);
/// Up to this share of the wait is taken off, so that many tenants do not fall into step.
pub const JITTER: f64 = 0.05;
/// Microsoft's libraries count a token as spent when it has less than this left; we renew before.
const RESERVE: Duration = Duration::from_mins(5);
/// A token with less than this left is not handed out: the request that carries it must arrive in time.
const LAST_USE: Duration = Duration::from_mins(1);
/// A life longer than this is not believed (tokens under continuous access evaluation last up to 28 hours, "Access
/// tokens in the Microsoft identity platform").
pub const LONGEST_LIFE: Duration = Duration::from_hours(48);
/// The longest wait that Entra is obeyed in: a longer one would cost content, which lives seven days.
pub use crate::http::headers::LONGEST_WAIT as LONGEST_ASKED;
/// The longest of our own waits that outlives the process: whoever restarts it may just have mended the cause.
pub const LONGEST_REMEMBERED: Duration = Duration::from_mins(5);
/// A token that was accepted for this long before it was refused does not belong to a storm of refusals.
pub const SETTLED: Duration = Duration::from_mins(5);

/// How long after the token was asked for the next one is asked for: `renew_after`, what the service suggests
/// (`refresh_in`), or what the token's life allows, whichever comes first; less a share of `jitter` (0 to 1).
#[must_use]
pub fn renew_in(life: Duration, refresh_in: Option<Duration>, renew_after: Duration, jitter: f64) -> Duration {
    // A short token has no five minutes to spare; half of its life leaves time for a second attempt.
    let by_life = life.saturating_sub(RESERVE).max(life / 2);
    let latest = renew_after.min(refresh_in.unwrap_or(Duration::MAX)).min(by_life);
    latest.mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0)).max(FLOOR)
}

/// How long after it was asked for a token is handed out: to a minute before its end, or of a token that lives for
/// less than four minutes to the last quarter.
#[must_use]
pub fn usable_for(life: Duration) -> Duration {
    life.saturating_sub(LAST_USE.min(life / 4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    const RENEW_AFTER: Duration = secs(45 * 60);

    #[test]
    fn the_moment_of_renewal() {
        for (what, life, refresh_in, renew_after, expected) in [
            ("an hour", 3600, None, 2700, 2700),
            ("ninety minutes", 5400, None, 2700, 2700),
            ("fifty minutes: five minutes before its end", 3000, None, 2700, 2700),
            ("forty minutes: five minutes before its end", 2400, None, 2700, 2100),
            ("ten minutes: five minutes is also its half", 600, None, 2700, 300),
            ("eight minutes: half of its life", 480, None, 2700, 240),
            ("two minutes: half of its life", 120, None, 2700, 60),
            ("forty seconds: the floor", 40, None, 2700, 30),
            ("a day", 86_400, None, 2700, 2700),
            ("a day, and an operator with patience", 86_400, None, 100_000, 86_100),
            ("a day, and Entra suggests half of it", 86_400, Some(43_200), 100_000, 43_200),
            ("Entra suggests sooner", 3600, Some(1200), 2700, 1200),
            ("Entra suggests at once", 3600, Some(0), 2700, 30),
            ("Entra suggests after the end", 3600, Some(9999), 9999, 3300),
        ] {
            let renewal = renew_in(secs(life), refresh_in.map(secs), secs(renew_after), 0.0);
            assert_eq!(renewal, secs(expected), "{what}");
        }
        assert_eq!(renew_in(secs(3600), None, RENEW_AFTER, 1.0), secs(2565), "5 % of jitter");
    }

    #[test]
    fn the_last_use() {
        assert_eq!(usable_for(secs(3600)), secs(3540));
        assert_eq!(usable_for(secs(240)), secs(180));
        assert_eq!(usable_for(secs(120)), secs(90));
        assert_eq!(usable_for(Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_renewal_comes_in_time(
            life in 40_u64..172_800, refresh_in in proptest::option::of(0_u64..200_000),
            renew_after in 60_u64..200_000, jitter in 0.0_f64..=1.0,
        ) {
            let life = secs(life);
            let renewal = renew_in(life, refresh_in.map(secs), secs(renew_after), jitter);
            prop_assert!(renewal >= FLOOR, "{renewal:?}: never sooner than the floor");
            prop_assert!(renewal <= secs(renew_after), "{renewal:?}: never later than configured");
            prop_assert!(renewal <= usable_for(life), "{renewal:?}: before the last use");
            if life >= secs(60) {
                prop_assert!(life.saturating_sub(renewal) >= (life / 2).min(RESERVE), "{renewal:?}: time for a second attempt");
            }
            if let Some(refresh_in) = refresh_in {
                prop_assert!(renewal <= secs(refresh_in).max(FLOOR), "{renewal:?}: as the service suggests");
            }
            let unjittered = renew_in(life, refresh_in.map(secs), secs(renew_after), 0.0);
            prop_assert!(renewal >= unjittered.mul_f64(0.949_999), "{renewal:?}: at most 5 % sooner");
        }
    }
}
