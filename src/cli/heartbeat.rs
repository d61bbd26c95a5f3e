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

/// Beats for ever: four times in the watchdog's limit, so that a beat that is a little late costs nothing.
pub(super) async fn beat(store: &Store, registry: &Registry) {
    let watchdog = Systemd::watchdog_limit();
    let every = watchdog.map_or(UNWATCHED, |limit| limit / 4);
    loop {
        of("store", store.pulse(), every).await;
        of("scheduler", registry.pulse(), every).await;
        Systemd::alive();
        sleep(every).await;
    }
}

/// Waits for a part's proof, and says so if it takes too long.
async fn of(part: &str, pulse: impl Future<Output = ()>, patience: Duration) {
    tokio::pin!(pulse);
    if timeout(patience, &mut pulse).await.is_ok() {
        return;
    }
    let since = Instant::now();
    error!(
        message_id = event::WEDGED,
        part, "the {part} makes no progress; if that lasts, systemd restarts the service"
    );
    pulse.await;
    info!(part, seconds = since.elapsed().as_secs(), "the {part} makes progress again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_holds_the_beat_until_it_turns_again() {
        let start = Instant::now();
        of("store", std::future::ready(()), Duration::from_secs(30)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        of("store", sleep(Duration::from_mins(3)), Duration::from_secs(30)).await;
        assert_eq!(start.elapsed(), Duration::from_mins(3));
        let hung = timeout(Duration::from_hours(1), of("store", std::future::pending(), Duration::from_secs(30))).await;
        assert!(hung.is_err(), "no beat without proof");
    }
}
