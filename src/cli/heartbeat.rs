//! Feeds systemd's watchdog from the progress of the parts that everything hangs on: a hung store, or a scheduler that
//! no longer turns, gets the service restarted.
//!
//! **Invariant:** no beat without proof; a part that fails and says so is alive.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};

use crate::event;
use crate::lifecycle::Systemd;
use crate::store::Store;
use crate::tenant::Registry;

/// How often the parts are looked at where no watchdog asks.
const UNWATCHED: Duration = Duration::from_secs(30);

/// For how long a part whose hang was told is told of only if it hangs for longer than this many times the patience, and
/// to how much that grows: a slow disk is no news each time.
const QUIET: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(6));
const LONGER: u32 = 3;

/// Beats for ever: four times in the watchdog's limit, so that a beat that is a little late costs nothing.
pub(super) async fn beat(store: &Store, registry: &Registry) {
    let watchdog = Systemd::watchdog_limit();
    let every = watchdog.map_or(UNWATCHED, |limit| limit / 4);
    let (mut of_store, mut of_scheduler) = (Part::new("store"), Part::new("scheduler"));
    loop {
        of_store.proves(store.pulse(), every).await;
        of_scheduler.proves(registry.pulse(), every).await;
        Systemd::alive();
        sleep(every).await;
    }
}

/// A part that must turn, and how it is told that it does not.
#[derive(Debug)]
struct Part {
    name: &'static str,
    quiet: Duration,
    /// Until when it is told only of a hang that lasts.
    quiet_until: Option<Instant>,
}

impl Part {
    const fn new(name: &'static str) -> Self {
        Self { name, quiet: QUIET.0, quiet_until: None }
    }

    /// Waits for the proof, and says so if it takes too long.
    async fn proves(&mut self, pulse: impl Future<Output = ()>, patience: Duration) {
        tokio::pin!(pulse);
        let asked = Instant::now();
        let told_lately = self.quiet_until.is_some_and(|until| asked < until);
        // Before the watchdog ends it, it is told in any case.
        let patience = if told_lately { patience * LONGER } else { patience };
        if timeout(patience, &mut pulse).await.is_ok() {
            return;
        }
        let part = self.name;
        error!(
            message_id = event::WEDGED,
            part, "the {part} makes no progress; if that lasts, systemd restarts the service"
        );
        pulse.await;
        info!(part, seconds = asked.elapsed().as_secs(), "the {part} makes progress again");
        // Twice as quiet as the last time, unless it was well for twice as long as that.
        let now = Instant::now();
        let relapse = self.quiet_until.is_some_and(|until| now < until + self.quiet * 2);
        self.quiet = if relapse { (self.quiet * 2).min(QUIET.1) } else { QUIET.0 };
        self.quiet_until = Some(now + self.quiet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_holds_the_beat_until_it_turns_again() {
        let start = Instant::now();
        let mut part = Part::new("store");
        part.proves(std::future::ready(()), PATIENCE).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        part.proves(sleep(Duration::from_mins(3)), PATIENCE).await;
        assert_eq!(start.elapsed(), Duration::from_mins(3));
        let hung = timeout(Duration::from_hours(1), part.proves(std::future::pending(), PATIENCE)).await;
        assert!(hung.is_err(), "no beat without proof");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_is_told_of_at_growing_intervals_and_a_hang_always() {
        let mut part = Part::new("store");
        let mut told = Vec::new();
        let start = Instant::now();
        // Each beat is a little late, for a day.
        while start.elapsed() < Duration::from_hours(24) {
            let before = part.quiet_until;
            part.proves(sleep(PATIENCE + Duration::from_secs(5)), PATIENCE).await;
            if part.quiet_until != before {
                told.push(start.elapsed());
            }
            sleep(PATIENCE).await;
        }
        let pauses: Vec<_> = told.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert!((5..20).contains(&told.len()), "{told:?}");
        assert!(pauses.is_sorted_by(|one, next| *next >= one.mul_f64(0.9)), "{pauses:?}");

        let before = part.quiet_until;
        part.proves(sleep(PATIENCE * 4), PATIENCE).await;
        assert_ne!(part.quiet_until, before, "what lasts is told");

        sleep(QUIET.1 * 4).await;
        part.proves(sleep(PATIENCE * 2), PATIENCE).await;
        assert_eq!(part.quiet, QUIET.0, "what was well for long begins anew");
    }
}
