//! What is to be dropped because it is too old, or because there is too much. Pure: what stands on the disk comes in,
//! how much of it goes comes out.
//!
//! Whole partitions go, the oldest first, since that is the only way in which the engine gives space back; no more than
//! those of one day at a time, so that a wrong setting can be noticed before it has cost everything. What was begun
//! within nine days stays whatever is configured: repeated records and content that is listed again are recognised with
//! it, and would be stored twice.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::partition::PartitionName;

/// At most one day goes in this time.
const PACE: SignedDuration = SignedDuration::from_hours(1);

/// For how long, and how much of it, content is kept; `None`: without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// From when it was stored.
    pub time: Option<Duration>,
    /// Bytes of all partitions on the disk.
    pub bytes: Option<u64>,
}

/// A partition, as far as this matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) name: PartitionName,
    /// On the disk.
    pub(super) bytes: u64,
    /// When the last blob in it was stored, if it is known.
    pub(super) stored: Option<Timestamp>,
    /// Something that comes now may have been seen in it.
    pub(super) recent: bool,
}

/// What came of looking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retained {
    /// The partitions that were dropped, oldest first.
    pub dropped: Vec<String>,
    /// Why they were.
    pub reason: Option<Reason>,
    /// Bytes above the limit that cannot be given back because they are too young.
    pub excess: u64,
}

/// Why partitions are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They are older than content is to be kept.
    Age,
    /// There is more than is to be kept.
    Size,
}

impl Reason {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

/// How many of the oldest are to go, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) count: usize,
    pub(super) reason: Option<Reason>,
    pub(super) excess: u64,
}

/// Decides about partitions, oldest first, of which the last is the one that is written. `dropped_at`: when the last one was dropped.
pub(super) fn decide(list: &[Standing], keep: Keep, dropped_at: Option<Timestamp>, now: Timestamp) -> Decision {
    let total: u64 = list.iter().map(|one| one.bytes).sum();
    let over = keep.bytes.map_or(0, |most| total.saturating_sub(most));
    let Some((_, older)) = list.split_last() else { return Decision::default() };
    let free = older.iter().take_while(|one| !one.recent).count();
    let droppable = &older[..free];
    let excess = over.saturating_sub(droppable.iter().map(|one| one.bytes).sum());
    let too_soon = dropped_at.is_some_and(|at| (SignedDuration::ZERO..PACE).contains(&now.duration_since(at)));
    let Some(first) = droppable.first().filter(|_| !too_soon) else {
        return Decision { excess, ..Decision::default() };
    };
    let of_the_day: Vec<_> = droppable.iter().take_while(|one| one.name.date == first.name.date).collect();
    let aged = of_the_day.iter().take_while(|one| keep.time.is_some_and(|time| is_older(one, time, now))).count();
    let mut given = 0;
    let surplus = of_the_day.iter().take_while(|one| (given < over, given += one.bytes).0).count();
    let reason = if aged >= surplus { Reason::Age } else { Reason::Size };
    let count = aged.max(surplus);
    Decision { count, reason: (count > 0).then_some(reason), excess }
}

/// Whether all in it was stored longer ago than this. Where that is not known, its day ends with midnight.
fn is_older(one: &Standing, time: Duration, now: Timestamp) -> bool {
    let midnight = || one.name.date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let Some(stored) = one.stored.or_else(midnight) else { return false };
    SignedDuration::try_from(time).is_ok_and(|time| now.duration_since(stored) > time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(day: i64, hour: i64) -> Timestamp {
        Timestamp::from_second(1_790_035_200 + day * 86_400 + hour * 3600).unwrap()
    }

    /// The partition of a day, with its last blob stored at noon.
    fn one(day: i64, number: u32, bytes: u64, today: i64) -> Standing {
        let date = at(day, 0).to_zoned(TimeZone::UTC).date();
        Standing { name: PartitionName { date, number }, bytes, stored: Some(at(day, 12)), recent: today - day <= 9 }
    }

    /// Day 0 has two partitions of 10 bytes, the days 1 to 20 one each; it is noon on day 20.
    fn list() -> Vec<Standing> {
        let days = (1..=20).map(|day| one(day, 1, 10, 20));
        [one(0, 1, 10, 20), one(0, 2, 10, 20)].into_iter().chain(days).collect()
    }

    fn decided(time: Option<u32>, bytes: Option<u64>, last: Option<Timestamp>) -> (usize, Option<Reason>, u64) {
        let keep = Keep { time: time.map(|days| DAY * days), bytes };
        let Decision { count, reason, excess } = decide(&list(), keep, last, at(20, 12));
        (count, reason, excess)
    }

    #[test]
    fn the_oldest_day_goes_when_it_is_too_old_or_there_is_too_much() {
        for (time, bytes, count, reason) in [
            (None, None, 0, None),
            (Some(20), None, 0, None),
            (Some(19), None, 2, Some(Reason::Age)),
            // However much is too old: one day at a time.
            (Some(9), None, 2, Some(Reason::Age)),
            (None, Some(220), 0, None),
            (None, Some(219), 1, Some(Reason::Size)),
            (None, Some(209), 2, Some(Reason::Size)),
            (None, Some(50), 2, Some(Reason::Size)),
            (Some(19), Some(219), 2, Some(Reason::Age)),
        ] {
            let decided = decided(time, bytes, None);
            assert_eq!((decided.0, decided.1), (count, reason), "{time:?} {bytes:?}");
        }
        // Of the 220 bytes those of the days 0 to 10 may go; what is too young to go is told.
        for (bytes, excess) in [(220, 0), (100, 0), (99, 1), (60, 40)] {
            assert_eq!(decided(None, Some(bytes), None).2, excess, "{bytes}");
        }
    }

    #[test]
    fn no_more_than_a_day_goes_within_an_hour() {
        assert_eq!(decided(Some(10), None, Some(at(20, 12))).0, 0);
        assert_eq!(decided(Some(10), None, Some(at(20, 11) + SignedDuration::from_secs(1))).0, 0);
        assert_eq!(decided(Some(10), None, Some(at(20, 11))).0, 2);
        // A time that has stepped back must not keep everything for ever.
        assert_eq!(decided(Some(10), None, Some(at(25, 0))).0, 2);
    }

    #[test]
    fn what_is_not_sealed_is_as_old_as_the_end_of_its_day() {
        let keep = Keep { time: Some(DAY * 19), bytes: None };
        let unknown: Vec<_> = list().into_iter().map(|one| Standing { stored: None, ..one }).collect();
        assert_eq!(decide(&unknown, keep, None, at(20, 0)).count, 0);
        assert_eq!(decide(&unknown, keep, None, at(20, 1)).count, 2);
        assert_eq!(decide(&[], keep, None, at(20, 0)), Decision::default());
    }

    proptest! {
        #[test]
        fn it_never_takes_what_is_young_nor_more_than_is_needed(
            days in prop::collection::vec((0_i64..3, 0_u64..50), 0..40),
            time in prop::option::of(9_u32..40), bytes in prop::option::of(0_u64..1500),
        ) {
            let mut day = 0;
            let today: i64 = days.iter().map(|(step, _)| step).sum();
            let list: Vec<_> = (1..).zip(&days).map(|(number, (step, bytes))| {
                day += step;
                one(day, number, *bytes, today)
            }).collect();
            let keep = Keep { time: time.map(|days| DAY * days), bytes };
            let now = at(today, 12);
            let Decision { count, reason, excess } = decide(&list, keep, None, now);
            prop_assert!(count == 0 || count < list.len(), "never the newest");
            prop_assert_eq!(count > 0, reason.is_some());
            let (gone, rest) = list.split_at(count);
            for one in gone {
                prop_assert!(!one.recent);
                prop_assert_eq!(one.name.date, gone[0].name.date);
                let left: u64 = rest.iter().map(|one| one.bytes).sum::<u64>() + one.bytes;
                let old = time.is_some_and(|days| now.duration_since(one.stored.unwrap()) > SignedDuration::try_from(DAY * days).unwrap());
                prop_assert!(old || bytes.is_some_and(|most| left > most || gone.last() != Some(one)));
            }
            // What it leaves although it should go, it tells or takes the next time.
            let left: u64 = rest.iter().map(|one| one.bytes).sum();
            if let Some(most) = bytes {
                let may_go: u64 = rest.iter().take(rest.len().saturating_sub(1)).take_while(|one| !one.recent).map(|one| one.bytes).sum();
                prop_assert_eq!(excess > 0, left > most && left - may_go > most);
            }
        }
    }
}
