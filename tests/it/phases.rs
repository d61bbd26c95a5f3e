//! What a daemon was doing when it was cut off, told from its store: so that a test cuts where it means to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Daemon, PATIENCE};

/// What a daemon does with its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It has the lock, and recovers what an earlier end has left behind.
    Opening,
    /// It stores blobs.
    Collecting,
    /// Roll-over: the next partition is being made.
    Making,
    /// Roll-over: the last partition is being sealed.
    Sealing,
}

const ALL: [Phase; 4] = [Phase::Opening, Phase::Collecting, Phase::Making, Phase::Sealing];
/// A test of at least so many rounds must have met every phase.
const MANY: u32 = 8;
/// An empty partition takes one segment of 8 MiB; one of this size is full after about thirty small blobs.
pub(crate) const PARTITION: &str = "\"8400 KiB\"";

impl Phase {
    /// What this round is about.
    pub(crate) fn of_round(round: u32) -> Self {
        ALL[round as usize % ALL.len()]
    }

    /// What the daemon is doing, as its store and its log show.
    fn now(store: &Path, daemon: &Daemon) -> Option<Self> {
        let lock = fs::read(store.join("lock")).ok()?;
        let holder: Value = serde_json::from_slice(&lock).ok()?;
        if holder["pid"] != daemon.pid() {
            return None;
        }
        if !daemon.has_started() {
            return Some(Self::Opening);
        }
        let content = store.join("content");
        let mut names: Vec<String> = fs::read_dir(&content)
            .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        if names.iter().any(|name| name.starts_with(".new-")) {
            return Some(Self::Making);
        }
        names.retain(|name| name.starts_with('2'));
        names.sort_by_key(|name| {
            name.split_once('.').map(|(date, number)| (date.to_owned(), number.parse::<u32>().ok()))
        });
        names.pop();
        let unsealed = names.iter().any(|name| !content.join(name).join("sealed").exists());
        Some(if unsealed { Self::Sealing } else { Self::Collecting })
    }
}

/// Rounds by the phase in which they ended.
#[derive(Debug, Default)]
pub(crate) struct Met(BTreeMap<Phase, u32>);

impl Met {
    /// Counts a round; one that ended before the daemon had the lock counts for nothing.
    pub(crate) fn count(&mut self, phase: Option<Phase>) {
        if let Some(phase) = phase {
            *self.0.entry(phase).or_default() += 1;
        }
    }

    /// Says what was met; in many rounds, everything must have been.
    #[expect(clippy::print_stderr, reason = "the figures belong to the test's output")]
    pub(crate) fn conclude(&self, what: &str, rounds: u32) {
        eprintln!("{what}: {rounds} rounds, ended while {:?}", self.0);
        for phase in ALL {
            assert!(rounds < MANY || self.0.contains_key(&phase), "no {what} while {phase:?} in {rounds} rounds");
        }
    }
}

/// To the microsecond, which tokio's time is not; what it is for is a moment, not a condition.
#[expect(clippy::disallowed_methods, reason = "the moment of a cut is random, and inside of a phase of milliseconds")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Lets the daemon of this store come into the phase, and go on in it for a random time; says where it is then. With `freeze` it is
/// stopped there, so that the answer is exact; else it goes on, and the answer is a moment old.
pub(crate) fn reach(
    store: &Path,
    daemon: &Daemon,
    phase: Phase,
    random: &mut fastrand::Rng,
    freeze: bool,
) -> Option<Phase> {
    let began = Instant::now();
    // How long to stay inside of the phase at most; halved whenever that was too long.
    let mut longest = match phase {
        Phase::Opening => Duration::from_millis(100),
        Phase::Collecting => Duration::from_millis(1500),
        Phase::Making | Phase::Sealing => Duration::from_millis(40),
    };
    loop {
        let mut now = Phase::now(store, daemon);
        if now == Some(phase) {
            pause(longest.mul_f64(random.f64()));
            if freeze {
                daemon.signal(Signal::SIGSTOP);
            }
            now = Phase::now(store, daemon);
            if now == Some(phase) || began.elapsed() > PATIENCE {
                return now;
            }
            // Too late: the next one is another chance.
            if freeze {
                daemon.signal(Signal::SIGCONT);
            }
            longest /= 2;
        }
        // It opens its store only once.
        if phase == Phase::Opening && now.is_some_and(|now| now != phase) {
            return now;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{phase:?} does not come\n{}", daemon.log());
        pause(Duration::from_micros(300));
    }
}
