//! For how long a blob is worth trying, and when its bytes are kept although nothing can be read in them. Pure.
//!
//! The service says of each blob when it deletes it. That is believed within reason: a listing has been seen to name
//! other spans than the documented seven days, and one that names the year 1 must not make the first stumble a loss.

use std::time::Duration;

use jiff::Timestamp;

use super::plan::{earlier, later};
use crate::retry::growing;
use crate::store::QueueEntry;

/// "Content older than 7 days cannot be retrieved" (AF20051, activity API reference): no content is given up sooner.
const LIFE: Duration = Duration::from_hours(7 * 24);
/// A longer life than this is not believed.
const LONGEST_LIFE: Duration = Duration::from_hours(30 * 24);
/// After so many bodies that are no JSON array of records,
const MALFORMED: u32 = 5;
/// one that comes this long before the blob's end is kept as it is;
const LAST_DAY: Duration = Duration::from_hours(24);
/// and one that comes this long before, after one.
const LAST_HOUR: Duration = Duration::from_hours(1);

/// When the service deletes the blob, as far as it can be believed.
fn end(entry: &QueueEntry) -> Timestamp {
    let created = entry.blob.content_created;
    let end = entry.blob.content_expiration.clamp(later(created, LIFE), later(created, LONGEST_LIFE));
    // What was over when it was listed is not what the listing meant.
    if end > entry.queued_at { end } else { later(entry.queued_at, LIFE) }
}

/// Whether the service has deleted the content by now. Only a time that the service confirms and that the host's clock
/// bears out can say so: either may step, and what is given up too early is lost. What is tried for too long costs
/// requests only, and the service itself says when content has expired.
pub(super) fn has_ended(entry: &QueueEntry, confirmed: Option<Timestamp>, host: Timestamp) -> bool {
    confirmed.is_some_and(|now| end(entry) < now.min(host))
}

/// Whether the next body is evidence that must be kept whatever it is: it may be the last that comes. A body that can be
/// read is stored as what it is all the same.
pub(super) fn is_last_chance(entry: &QueueEntry, now: Timestamp, host: Timestamp) -> bool {
    let within = |span| now.min(host) >= earlier(end(entry), span);
    entry.malformed >= MALFORMED && within(LAST_DAY) || entry.malformed > 0 && within(LAST_HOUR)
}

/// After the `failures`-th failed retrieval: from a second to ten minutes, doubling.
pub(super) fn failed_wait(failures: u32) -> Duration {
    growing(Duration::from_secs(1), 2, Duration::from_mins(10), failures)
}

/// After the `answers`-th answer that says something about the blob itself, and may not be the last word: from two
/// seconds to an hour, fourfold.
pub(super) fn doubtful_wait(answers: u32) -> Duration {
    growing(Duration::from_secs(2), 4, Duration::from_hours(1), answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentBlob, ContentType, Tier};

    const CREATED: &str = "2026-11-15T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(expiration: &str) -> QueueEntry {
        QueueEntry {
            blob: ContentBlob {
                content_id: "a".into(),
                content_type: ContentType::General,
                content_uri: String::new(),
                content_created: at(CREATED),
                content_expiration: at(expiration),
            },
            tier: Tier::Poll,
            queued_at: at(CREATED),
            attempts: 0,
            panics: 0,
            malformed: 0,
            not_before: None,
            last_error: None,
            again: false,
        }
    }

    #[test]
    fn waits_grow_to_ten_minutes_and_to_an_hour() {
        for (failures, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (40, 600), (u32::MAX, 600)] {
            let wait = failed_wait(failures);
            let most = Duration::from_secs(most);
            assert!(wait <= most && wait >= most.mul_f64(0.79), "{failures}: {wait:?}");
        }
        for (answers, most) in [(1, 2), (2, 8), (5, 512), (6, 2048), (7, 3600), (u32::MAX, 3600)] {
            let wait = doubtful_wait(answers);
            let most = Duration::from_secs(most);
            assert!(wait <= most && wait >= most.mul_f64(0.79), "{answers}: {wait:?}");
        }
    }

    #[test]
    fn only_a_confirmed_time_that_the_host_bears_out_lets_content_expire() {
        let (before, expiry, after) = (CREATED, "2026-11-22T12:00:00Z", "2026-11-22T12:00:01Z");
        let month_on = "2026-12-22T12:00:00Z";
        for (confirmed, host, expired) in [
            (None, before, false),
            (None, month_on, false),
            (Some(expiry), expiry, false),
            (Some(expiry), month_on, false),
            (Some(after), expiry, false),
            (Some(month_on), before, false),
            (Some(before), month_on, false),
            (Some(after), after, true),
            (Some(after), month_on, true),
            (Some(month_on), after, true),
        ] {
            let ended = has_ended(&entry(expiry), confirmed.map(at), at(host));
            assert_eq!(ended, expired, "{confirmed:?}, {host}");
        }
    }

    #[test]
    fn an_expiration_that_makes_no_sense_is_not_believed() {
        for (expiration, end_at) in [
            ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z"),
            ("2026-12-05T12:00:00Z", "2026-12-05T12:00:00Z"),
            ("0001-01-01T00:00:00Z", "2026-11-22T12:00:00Z"),
            (CREATED, "2026-11-22T12:00:00Z"),
            ("9999-12-30T00:00:00Z", "2026-12-15T12:00:00Z"),
        ] {
            assert_eq!(end(&entry(expiration)), at(end_at), "{expiration}");
        }
        let mut from_the_year_one = entry("0001-01-01T00:00:00Z");
        from_the_year_one.blob.content_created = at("0001-01-01T00:00:00Z");
        assert_eq!(end(&from_the_year_one), at("2026-11-22T12:00:00Z"), "seven days after it was listed");
    }

    #[test]
    fn bytes_that_cannot_be_read_are_kept_on_the_last_day() {
        let now = |text| (at(text), at(text));
        let last = |malformed, (now, host)| {
            is_last_chance(&QueueEntry { malformed, ..entry("2026-11-22T12:00:00Z") }, now, host)
        };
        assert!(!last(1000, now("2026-11-21T11:59:59Z")), "there is time left");
        assert!(last(5, now("2026-11-21T12:00:00Z")));
        assert!(!last(4, now("2026-11-21T12:00:00Z")));
        assert!(last(1, now("2026-11-22T11:00:00Z")));
        assert!(!last(0, now("2026-11-22T11:00:00Z")), "nothing is wrong with it");
        assert!(!last(5, (at("2026-12-21T12:00:00Z"), at("2026-11-16T12:00:00Z"))), "one of the clocks is wrong");
    }
}
