//! The service's time: this machine's, shifted.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Gives the service's time.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    offset_ms: AtomicI64,
    date_offset_ms: AtomicI64,
}

impl Clock {
    pub(crate) fn new(offset_ms: i64, date_offset_ms: i64) -> Self {
        Self {
            started: Instant::now(),
            offset_ms: AtomicI64::new(offset_ms),
            date_offset_ms: AtomicI64::new(date_offset_ms),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the simulated service reads the time of day")]
    /// The service's time, in whole milliseconds as its documents show times.
    pub(crate) fn now(&self) -> Timestamp {
        let shifted = shift(Timestamp::now(), self.offset_ms.load(Ordering::Relaxed));
        Timestamp::from_millisecond(shifted.as_millisecond()).unwrap_or(shifted)
    }

    /// What the `Date` header says.
    pub(crate) fn date_header(&self) -> String {
        self.date_in(0)
    }

    /// What it will say in so many seconds.
    pub(crate) fn date_in(&self, seconds: u64) -> String {
        let ahead = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let date = shift(shift(self.now(), self.date_offset_ms.load(Ordering::Relaxed)), ahead);
        date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Time since the start, never stepping.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn set_offset(&self, ms: i64) {
        self.offset_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn set_date_offset(&self, ms: i64) {
        self.date_offset_ms.store(ms, Ordering::Relaxed);
    }
}

/// `time` moved by milliseconds; stays put at the ends of the calendar.
pub(crate) fn shift(time: Timestamp, ms: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_millis(ms)).unwrap_or(time)
}

/// As in listings: `2015-05-23T17:35:00.000Z`.
pub(crate) fn with_millis(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// As in next-page links: seven fraction digits.
pub(crate) fn with_ticks(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string()
}
