//! The guard: while the store has too little room, nothing is retrieved.
//!
//! A full disk loses nothing, since what was not written stays in the queue; but what is retrieved in vain is asked for
//! again and again, other programs on the disk fail too, and there is no room left to write down what Microsoft lists.
//! So retrievals are held up before that: none begins, those under way end, and listing goes on, so that it is known
//! what waits. How long that can go on is for Microsoft to say, who deletes content after seven days.
//!
//! The file system is asked every second, which is cheap and notices a full disk as soon as a writer does. What a writer
//! says of the disk is not asked: it would say nothing more as long as nothing is written.
//!
//! **Invariants:** whatever the order of looks, retrievals are held up while there is less room than the reserve, and go
//! on when there is a quarter more; nobody is waited for, and a disk that does not answer changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info};

use crate::config::{StoreSettings, size};
use crate::event;
use crate::report::announce::{History, Line};
use crate::report::{Report, Trouble};
use crate::store::{QueueDepth, Room, StoreError};
use crate::tenant::Registry;

/// How often the file system is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// "Content older than 7 days cannot be retrieved" (AF20051, activity API reference).
const HELD_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Why nothing is to be retrieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// So much is left.
    Room { free: u64, reserve: u64 },
    /// Nothing can be written, whatever is left.
    ReadOnly,
}

/// How much must be free for retrievals to go on: what ends as soon as it begins would begin and end for ever.
const fn enough(reserve: u64) -> u64 {
    reserve.saturating_add(reserve / 4)
}

/// Decides, after a look at the file system. `held`: retrievals are held up already.
fn want(held: bool, room: Room, reserve: u64) -> Option<Want> {
    let least = if held { enough(reserve) } else { reserve };
    if room.read_only {
        Some(Want::ReadOnly)
    } else if room.free < least {
        Some(Want::Room { free: room.free, reserve })
    } else {
        None
    }
}

impl Want {
    /// In the words that every view shows.
    fn trouble(self, waiting: QueueDepth) -> Trouble {
        let waits = match held_until(waiting) {
            Some(until) => format!(
                "{} content blobs wait, and Microsoft holds the oldest of them until {}",
                waiting.entries,
                until.strftime("%Y-%m-%d %H:%M UTC")
            ),
            None => "nothing waits so far".to_owned(),
        };
        let (kind, cause, remedy) = match self {
            Self::Room { free, reserve } => (
                "disk_short",
                format!(
                    "the store's file system has {} left, and `store.reserve` is {}",
                    size::about(free),
                    size::display(reserve)
                ),
                format!(
                    "free space on it, or move the store to a larger one; collecting goes on by itself when {} are free",
                    size::display(enough(reserve))
                ),
            ),
            Self::ReadOnly => (
                "disk_read_only",
                "the store's file system is mounted read-only".to_owned(),
                "find out why (`dmesg`), and mount it so that it can be written; collecting goes on by itself then"
                    .to_owned(),
            ),
        };
        Trouble { shared: true, ..Trouble::for_operator(kind, format!("{cause}; {waits}"), remedy) }
    }
}

/// When Microsoft deletes the oldest of what waits.
fn held_until(waiting: QueueDepth) -> Option<Timestamp> {
    waiting.oldest.map(|oldest| oldest.saturating_add(HELD_FOR).unwrap_or(Timestamp::MAX))
}

/// Stands guard, for ever.
pub(super) async fn stand(registry: Arc<Registry>, report: Arc<Report>, mut settings: watch::Receiver<StoreSettings>) {
    let mut history = History::default();
    let mut held = false;
    loop {
        let (path, reserve) = {
            let settings = settings.borrow_and_update();
            (settings.path.clone(), settings.reserve_bytes)
        };
        match look(&path).await {
            Ok(room) => {
                let want = want(held, room, reserve);
                held = want.is_some();
                registry.let_retrieve(!held);
                follow(want, room, &report, &mut history);
            }
            // Who writes to it says what is wrong with it.
            Err(error) => {
                debug!(error = error.trouble().cause, "the store's file system does not say what room it has");
            }
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            // Without a sender, the daemon is on its way to its end.
            changed = settings.changed() => if changed.is_err() { std::future::pending().await },
        }
    }
}

/// A disk that hangs must not hold up the daemon.
async fn look(path: &Path) -> Result<Room, StoreError> {
    let path = path.to_owned();
    match tokio::task::spawn_blocking(move || Room::of(&path)).await {
        Ok(room) => room,
        // The process ends.
        Err(_) => std::future::pending().await,
    }
}

/// Shows and tells what was decided.
fn follow(want: Option<Want>, room: Room, report: &Report, history: &mut History) {
    let now = Instant::now();
    let Some(want) = want else {
        report.pause(None);
        if history.well(None, now).is_some() {
            info!(
                message_id = event::COLLECTION_RESUMED,
                free = size::about(room.free),
                "the store's file system has room again, collecting goes on"
            );
        }
        return;
    };
    let waiting = report.waiting();
    let trouble = want.trouble(waiting);
    if history.met(None, &trouble, now, report.now()) != Line::Quiet {
        error!(
            message_id = event::COLLECTION_PAUSED,
            kind = trouble.kind,
            free = size::about(room.free),
            waiting = waiting.entries,
            held_until = held_until(waiting).map(tracing::field::display),
            "collecting is paused: {trouble}"
        );
    }
    report.pause(Some(trouble));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(free: u64) -> Room {
        Room { free, read_only: false }
    }

    #[test]
    fn it_holds_below_the_reserve_and_lets_go_a_quarter_above_it() {
        for (held, free, holds) in [
            (false, GIB, false),
            (false, GIB - 1, true),
            (false, 0, true),
            (true, GIB, true),
            (true, GIB + GIB / 4 - 1, true),
            (true, GIB + GIB / 4, false),
        ] {
            let decided = want(held, room(free), GIB);
            assert_eq!(decided, holds.then_some(Want::Room { free, reserve: GIB }), "{held} {free}");
        }
        for held in [false, true] {
            assert_eq!(want(held, Room { free: u64::MAX, read_only: true }, GIB), Some(Want::ReadOnly));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_it_never_runs_short_and_never_stays_held(
            looks in prop::collection::vec((0..4 * GIB, any::<bool>(), 1..2 * GIB), 1..100)
        ) {
            let mut held = false;
            for (free, read_only, reserve) in looks {
                let before = held;
                held = want(held, Room { free, read_only }, reserve).is_some();
                prop_assert!(held || !read_only && free >= reserve);
                prop_assert!(!held || read_only || free < enough(reserve));
                if !read_only && (reserve..enough(reserve)).contains(&free) {
                    prop_assert_eq!(held, before);
                }
            }
        }
    }

    #[test]
    fn it_says_how_much_waits_until_when_and_what_to_do() {
        let waiting = QueueDepth { entries: 1234, oldest: Some("2026-11-22T12:00:30Z".parse().unwrap()) };
        let short = Want::Room { free: 812 << 20, reserve: GIB };
        assert_eq!(
            short.trouble(waiting).to_string(),
            "the store's file system has 812 MiB left, and `store.reserve` is 1 GiB; 1234 content blobs wait, and \
             Microsoft holds the oldest of them until 2026-11-29 12:00 UTC: free space on it, or move the store to a \
             larger one; collecting goes on by itself when 1280 MiB are free"
        );
        assert_eq!(
            Want::ReadOnly.trouble(QueueDepth::default()).to_string(),
            "the store's file system is mounted read-only; nothing waits so far: find out why (`dmesg`), and mount it \
             so that it can be written; collecting goes on by itself then"
        );
    }
}
