//! Whose clock: the host's, and the service's.
//!
//! Nothing else in the crate asks the operating system for the time of day. Waiting and measuring use tokio's
//! monotonic time, which tests pause; the time of day comes from a [`Clock`], which tests set.
//!
//! **Invariants:** [`ServiceTime`] is anchored to *monotonic* time, so that a step of the host's clock, by an hour
//! or by a month, moves no window, no partition and no retention. What one cloud's hosts say moves the windows of that
//! cloud's tenants only.

use std::collections::{BTreeMap, VecDeque};
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
///
/// There is one for the process, which the store goes by, and one for each cloud [`of`](Self::of) it, which the tenants
/// of that cloud go by. That of the process is what most of the clouds say, as far as they agree: the lower median of
/// those that were heard within the hour, of Microsoft's own if there is one among them.
#[derive(Debug)]
pub struct ServiceTime {
    clock: SharedClock,
    /// The monotonic moment that the offsets count from.
    origin: Instant,
    seen: Mutex<Seen>,
    clouds: Mutex<BTreeMap<String, (Standing, Arc<Self>)>>,
}

/// Whose clocks a cloud's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Microsoft's: one of the presets.
    Microsoft,
    /// Somebody's, under a name and with hosts of their own.
    Own,
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
        Self { clock, origin: Instant::now(), seen: Mutex::default(), clouds: Mutex::default() }
    }

    /// The time of the cloud with this management host; the same one for all that ask.
    #[must_use]
    pub fn of(&self, host: &str, standing: Standing) -> Arc<Self> {
        let mut clouds = self.clouds.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (standing, Arc::new(Self::new(Arc::clone(&self.clock))));
        Arc::clone(&clouds.entry(host.to_owned()).or_insert_with(new).1)
    }

    /// Takes note of the `Date` header of an answer that has just arrived. Its resolution is one second.
    pub fn observe(&self, date: Timestamp) {
        self.observe_at(date, Instant::now());
    }

    /// The same of one that arrived a moment ago: it was found out since that it is the service's own.
    pub fn observe_at(&self, date: Timestamp, arrived: Instant) {
        let age = arrived.saturating_duration_since(self.origin);
        let offset = date.as_duration() - SignedDuration::try_from(age).unwrap_or(SignedDuration::ZERO);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.offsets.len() == SAMPLES {
            seen.offsets.pop_front();
        }
        seen.offsets.push_back(offset);
        seen.last = seen.last.max(Some(arrived));
    }

    /// The service's time now, or the host's while no answer has been seen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.estimate().map_or_else(|| self.clock.now(), |estimate| estimate.now)
    }

    /// The service's time now if a `Date` within the hour confirms it. New partitions and retention wait for this.
    #[must_use]
    pub fn confirmed(&self) -> Option<Timestamp> {
        self.estimate().filter(|estimate| estimate.confirmed).map(|estimate| estimate.now)
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
        self.estimate().map(|estimate| self.clock.now().duration_since(estimate.now))
    }

    fn estimate(&self) -> Option<Estimate> {
        let clouds = self.clouds.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = clouds.values().filter_map(|(standing, time)| Some((*standing, time.heard()?)));
        let all: Vec<_> = heard.chain(self.heard().map(|own| (Standing::Microsoft, own))).collect();
        let rank = |(standing, estimate): &(Standing, Estimate)| (!estimate.confirmed, *standing);
        let best = all.iter().map(rank).min()?;
        let agreed = lower_median(all.iter().filter(|heard| rank(heard) == best).map(|(_, estimate)| estimate.now))?;
        Some(Estimate { now: agreed, confirmed: !best.0 })
    }

    /// What is known from answers shown to this very one.
    fn heard(&self) -> Option<Estimate> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let age = SignedDuration::try_from(self.origin.elapsed()).ok()?;
        let offset = lower_median(seen.offsets.iter().copied())?;
        let now = Timestamp::from_duration(offset.checked_add(age)?).ok()?;
        Some(Estimate { now, confirmed: seen.last?.elapsed() <= CONFIRMED_FOR })
    }
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    now: Timestamp,
    /// A `Date` within the hour says so.
    confirmed: bool,
}

/// The lower median: an answer that says too early a time only makes a window end early, which costs a poll; one that
/// says too late a time could make a window end in the future.
fn lower_median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
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

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_is_late_moves_no_other_and_not_the_store() {
        let host = SetClock::new(at("2026-11-22T12:00:00Z"));
        let store = ServiceTime::new(host);
        let worldwide = store.of("https://manage.office.com", Standing::Microsoft);
        let own = store.of("https://manage.example", Standing::Own);
        for _ in 0..20 {
            own.observe(at("2026-11-22T10:00:00Z"));
        }
        assert_eq!(worldwide.confirmed(), None, "nobody else's word counts");
        assert_eq!(worldwide.now(), at("2026-11-22T12:00:00Z"));
        assert_eq!(store.confirmed(), Some(at("2026-11-22T10:00:00Z")), "the only word there is");

        worldwide.observe(at("2026-11-22T12:00:05Z"));
        assert_eq!(own.now(), at("2026-11-22T10:00:00Z"));
        assert_eq!(worldwide.now(), at("2026-11-22T12:00:05Z"));
        assert_eq!(store.confirmed(), Some(at("2026-11-22T12:00:05Z")), "Microsoft's word goes first");
        assert!(Arc::ptr_eq(&own, &store.of("https://manage.example", Standing::Own)));

        // Who has not been heard for an hour is asked last.
        tokio::time::advance(Duration::from_mins(61)).await;
        assert_eq!(store.confirmed(), None);
        assert_eq!(store.now(), at("2026-11-22T13:01:05Z"));
        own.observe(at("2026-11-22T11:01:00Z"));
        assert_eq!(store.confirmed(), Some(at("2026-11-22T11:01:00Z")));
    }

    #[tokio::test(start_paused = true)]
    async fn clouds_that_disagree_are_outvoted() {
        let store = ServiceTime::new(SetClock::new(at("2026-11-22T12:00:00Z")));
        for (cloud, date) in
            [("a", "2026-11-22T12:00:00Z"), ("b", "2026-11-22T12:00:01Z"), ("c", "2036-11-22T12:00:00Z")]
        {
            store.of(cloud, Standing::Microsoft).observe(at(date));
        }
        assert_eq!(store.now(), at("2026-11-22T12:00:01Z"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_its_time_tells_the_time_of_its_head() {
        let service = ServiceTime::new(SetClock::new(at("2026-11-22T12:00:00Z")));
        let arrived = Instant::now();
        tokio::time::advance(Duration::from_secs(30)).await;
        service.observe_at(at("2026-11-22T12:00:00Z"), arrived);
        assert_eq!(service.now(), at("2026-11-22T12:00:30Z"));
    }
}
