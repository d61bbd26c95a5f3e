//! Whose clock: the host's, and the service's.
//!
//! Nothing else in the crate asks the operating system for the time of day. Waiting and measuring use tokio's
//! monotonic time, which tests pause; the time of day comes from a [`Clock`], which tests set.
//!
//! **Invariant:** [`ServiceTime`] is anchored to *monotonic* time, so that a step of the host's clock, by an hour
//! or by a month, moves no window, no partition and no retention.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The time of day, as the host tells it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The host's time of day.
    fn now(&self) -> Timestamp;
}

/// A clock that is handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the host for the time of day")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands where it is put and follows tokio's (pausable) time from there.
#[derive(Debug)]
pub struct SetClock(Mutex<(Timestamp, Instant)>);

impl SetClock {
    /// A clock that says `now` now.
    #[must_use]
    pub fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new((now, Instant::now()))))
    }

    /// Steps the clock to `now`.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (now, Instant::now());
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let (set, at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set + SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::ZERO)
    }
}

/// How many `Date` headers the median is taken over.
const SAMPLES: usize = 9;
/// For how long a `Date` confirms the time.
const CONFIRMED_FOR: Duration = Duration::from_hours(1);

/// The service's time: monotonic time plus the median offset of the `Date` headers seen last.
///
/// Before the first `Date` it is the host's clock, and [`confirmed`](Self::confirmed) says so by being `None`.
#[derive(Debug)]
pub struct ServiceTime {
    clock: SharedClock,
    /// The monotonic moment that the offsets count from.
    origin: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// `Date` minus the monotonic age of the process, one for each of the last answers.
    offsets: VecDeque<SignedDuration>,
    last: Option<Instant>,
}

impl ServiceTime {
    /// No `Date` seen yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, origin: Instant::now(), seen: Mutex::default() }
    }

    /// Takes note of the `Date` header of an answer that has just arrived. Its resolution is one second.
    pub fn observe(&self, date: Timestamp) {
        let age = self.origin.elapsed();
        let offset = date.as_duration() - SignedDuration::try_from(age).unwrap_or(SignedDuration::ZERO);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.offsets.len() == SAMPLES {
            seen.offsets.pop_front();
        }
        seen.offsets.push_back(offset);
        seen.last = Some(Instant::now());
    }

    /// The service's time now, or the host's while no answer has been seen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.estimate().map_or_else(|| self.clock.now(), |(now, _)| now)
    }

    /// The service's time now if a `Date` within the hour confirms it. New partitions and retention wait for this.
    #[must_use]
    pub fn confirmed(&self) -> Option<Timestamp> {
        self.estimate().and_then(|(now, age)| (age <= CONFIRMED_FOR).then_some(now))
    }

    /// What the host's clock says, right or wrong: for what is compared after a restart, before the service has said a
    /// time.
    #[must_use]
    pub fn host(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the host's clock is ahead of the service's (negative: behind); `None` before the first answer.
    #[must_use]
    pub fn host_ahead_by(&self) -> Option<SignedDuration> {
        self.estimate().map(|(now, _)| self.clock.now().duration_since(now))
    }

    fn estimate(&self) -> Option<(Timestamp, Duration)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offsets: Vec<_> = seen.offsets.iter().copied().collect();
        offsets.sort_unstable();
        // The lower median: an answer that says too early a time only makes a window end early, which costs a
        // poll; one that says too late a time could make a window end in the future.
        let median = *offsets.get(offsets.len().checked_sub(1)? / 2)?;
        let age = SignedDuration::try_from(self.origin.elapsed()).ok()?;
        let now = Timestamp::from_duration(median.checked_add(age)?).ok()?;
        Some((now, seen.last?.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_tells_the_time_whatever_the_host_says() {
        let host = SetClock::new(at("2026-11-22T12:00:00Z"));
        let service = ServiceTime::new(host.clone());
        assert_eq!(service.now(), at("2026-11-22T12:00:00Z"));
        assert_eq!(service.confirmed(), None);

        service.observe(at("2026-11-22T12:10:00Z"));
        host.set(at("2027-01-01T00:00:00Z"));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(service.now(), at("2026-11-22T12:11:00Z"));
        assert_eq!(service.confirmed(), Some(at("2026-11-22T12:11:00Z")));
        assert!(service.host_ahead_by().unwrap() > SignedDuration::from_hours(24 * 30));

        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(service.confirmed(), None, "an hour without an answer confirms nothing");
        assert_eq!(service.now(), at("2026-11-22T13:11:00Z"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_wrong_date_among_many_moves_nothing() {
        let service = ServiceTime::new(SetClock::new(at("2026-11-22T12:00:00Z")));
        for _ in 0..8 {
            service.observe(at("2026-11-22T12:00:00Z"));
        }
        service.observe(at("2036-11-22T12:00:00Z"));
        assert_eq!(service.now(), at("2026-11-22T12:00:00Z"));
    }
}
