//! How far back is remembered what was seen.
//!
//! What comes now may have been seen before in the partitions of the last [`REMEMBERED`]: Microsoft keeps content for
//! seven days, and repeats records "even days later". No clock can be asked how long ago a partition was written: the
//! service's and the host's may both be stepped, by a month if need be, and what was forgotten too soon is stored
//! twice. So the store reckons how much time has passed *at least*, and labels every partition with that time
//! ([`Moment::reckoned`]):
//!
//! - while it is open, by monotonic time, which nobody steps;
//! - while it was closed, by the clock that says less, the service's or the host's, and not at all before the service
//!   has told the time.
//!
//! To forget frees memory and nothing else: a partition that turns out to be recent after all is read again. When time
//! goes uncounted, some more partitions are remembered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::clock::ServiceTime;

/// For how long a record or a content id is looked for.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(9 * 24);

/// When a partition was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By the service's clock.
    pub(crate) service: Timestamp,
    /// By the host's.
    pub(crate) host: Timestamp,
    /// The service's time when the store's first partition was begun, and what has passed since at least.
    pub(crate) reckoned: Timestamp,
}

impl Moment {
    /// How much time has passed at least since then. A clock that said less than what was reckoned was behind.
    fn passed_until(self, service: Timestamp, host: Timestamp) -> SignedDuration {
        let since = |then: Timestamp, now: Timestamp| now.duration_since(then.max(self.reckoned));
        since(self.service, service).min(since(self.host, host)).max(SignedDuration::ZERO)
    }
}

/// Counts the time that has passed at least.
#[derive(Debug)]
pub(crate) struct Reckoning(Mutex<State>);

#[derive(Debug)]
struct State {
    opened: Instant,
    /// What the newest label said when the store was opened.
    last: Option<Moment>,
    /// The reckoned time of opening, as soon as it is known how long the store was closed.
    base: Option<Timestamp>,
}

impl State {
    fn now(&mut self, time: &ServiceTime) -> Option<Timestamp> {
        let open = SignedDuration::try_from(self.opened.elapsed()).unwrap_or(SignedDuration::ZERO);
        if let (None, Some(last), true) = (self.base, self.last, time.host_ahead_by().is_some()) {
            let closed = last.passed_until(time.now(), time.host()) - open;
            self.base = Some(last.reckoned + closed.max(SignedDuration::ZERO));
        }
        let base = self.base.or(self.last.map(|last| last.reckoned))?;
        Some(base + open)
    }
}

impl Reckoning {
    /// Goes on from the newest label that can be read.
    pub(crate) fn new(last: Option<Moment>) -> Self {
        Self(Mutex::new(State { opened: Instant::now(), last, base: None }))
    }

    /// The label of a partition that is begun now, at this time of the service's.
    pub(crate) fn begin(&self, service: Timestamp, time: &ServiceTime) -> Moment {
        let mut state = self.state();
        let reckoned = state.now(time).unwrap_or_else(|| {
            let open = SignedDuration::try_from(state.opened.elapsed()).unwrap_or(SignedDuration::ZERO);
            state.base = Some(service - open);
            service
        });
        Moment { service, host: time.host(), reckoned }
    }

    /// The first of the partitions that are recent, from when each was begun, oldest first (`None`: nobody knows).
    pub(crate) fn first_recent(&self, begun: &[Option<Moment>], time: &ServiceTime) -> usize {
        self.state().now(time).map_or(0, |now| first_recent(begun, now))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition was written until the next one was begun: it is old if one behind it was begun too long ago.
fn first_recent(begun: &[Option<Moment>], now: Timestamp) -> usize {
    let old = |moment: Moment| now.duration_since(moment.reckoned) > REMEMBERED;
    begun.iter().rposition(|moment| moment.is_some_and(old)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::{SetClock, SharedClock};
    use proptest::prelude::*;

    fn day(days: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + days * 86_400).unwrap()
    }

    fn first(days: &[i64], now: i64) -> usize {
        let begun = |&days| Some(Moment { service: day(0), host: day(0), reckoned: day(days) });
        first_recent(&days.iter().map(begun).collect::<Vec<_>>(), day(now))
    }

    #[test]
    fn a_partition_is_old_nine_days_after_the_next_was_begun() {
        let days: Vec<_> = (0..30).collect();
        assert_eq!(first(&days, 29), 19);
        assert_eq!(first(&days, 38), 28);
        // However long nothing was stored, what was stored last is recent.
        assert_eq!(first(&days, 500), 29);
        assert_eq!((first(&[], 5), first(&[0], 500)), (0, 0));
        // A label that cannot be read makes nothing old.
        let begun = [None, Some(Moment { service: day(0), host: day(0), reckoned: day(0) }), None];
        assert_eq!((first_recent(&begun, day(9)), first_recent(&begun, day(10))), (0, 1));
    }

    /// What the clocks say, and how many days the store is closed and open before they say it.
    type Step = (i64, i64, i64, i64);

    /// Begins a partition after each step, and answers what was reckoned since the first, in days.
    async fn reckon(steps: &[Step]) -> Vec<i64> {
        let mut reckoning = Reckoning::new(None);
        let mut labels: Vec<Moment> = Vec::new();
        for &(service, host, closed, open) in steps {
            if closed > 0 {
                reckoning = Reckoning::new(labels.last().copied());
            }
            tokio::time::advance(Duration::from_hours(24 * open.unsigned_abs())).await;
            let time = ServiceTime::new(SetClock::new(day(host)) as SharedClock);
            time.observe(day(service));
            labels.push(reckoning.begin(day(service), &time));
        }
        let first = labels[0].reckoned;
        labels.iter().map(|label| label.reckoned.duration_since(first).as_hours() / 24).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn monotonic_time_counts_while_open_and_the_slower_clock_while_closed() {
        // Open: whatever the clocks say.
        assert_eq!(reckon(&[(0, 0, 0, 0), (30, 1, 0, 1), (-28, 2, 0, 1), (33, 33, 0, 1)]).await, [0, 1, 2, 3]);
        // Closed: the one that says less, and never back.
        assert_eq!(reckon(&[(0, 0, 0, 0), (5, 5, 5, 0)]).await, [0, 5]);
        assert_eq!(reckon(&[(0, 0, 0, 0), (35, 5, 5, 0), (7, 7, 2, 0)]).await, [0, 5, 5]);
        assert_eq!(reckon(&[(0, 0, 0, 0), (5, -25, 5, 0), (7, 7, 2, 0)]).await, [0, 0, 2]);
        // One was behind, and is right again when the other is ahead.
        assert_eq!(reckon(&[(0, 0, 0, 0), (-30, 0, 0, 0), (1, 31, 1, 0)]).await, [0, 0, 1]);
        assert_eq!(reckon(&[(0, 0, 0, 0), (0, -30, 0, 0), (31, 1, 1, 0)]).await, [0, 0, 1]);
        // Both, one after the other; what passed while it was open is not counted twice.
        assert_eq!(reckon(&[(0, 0, 0, 0), (3, 3, 1, 2), (4, 4, 0, 1)]).await, [0, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_host_alone_is_not_believed() {
        let clock = SetClock::new(day(400));
        let time = ServiceTime::new(Arc::clone(&clock) as SharedClock);
        let last = Moment { service: day(3), host: day(3), reckoned: day(3) };
        let reckoning = Reckoning::new(Some(last));
        let begun: Vec<_> = (0..4).map(|at| Some(Moment { reckoned: day(at), ..last })).collect();
        assert_eq!(reckoning.first_recent(&begun, &time), 0);
        time.observe(day(4));
        assert_eq!(reckoning.first_recent(&begun, &time), 0);
        tokio::time::advance(Duration::from_hours(24 * 7)).await;
        assert_eq!(reckoning.first_recent(&begun, &time), 1);
    }

    proptest! {
        /// As long as one clock is right while the store is closed, no more is reckoned than has passed.
        #[test]
        fn no_more_is_reckoned_than_has_passed(
            steps in prop::collection::vec((-400_i64..400, 0_i64..20, 0_i64..20), 1..12),
            host_is_right in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let mut passed = 0;
            let steps: Vec<Step> = steps
                .into_iter()
                .map(|(lie, closed, open)| {
                    passed += closed + open;
                    if host_is_right { (lie, passed, closed, open) } else { (passed, lie, closed, open) }
                })
                .collect();
            let reckoned = runtime.block_on(reckon(&steps));
            let mut passed = 0;
            for (step, reckoned) in steps.iter().zip(&reckoned).skip(1) {
                passed += step.2 + step.3;
                prop_assert!(*reckoned <= passed, "{} of {}", reckoned, passed);
            }
            prop_assert!(reckoned.is_sorted());
        }
    }
}
