//! The service's times, written and read.
//!
//! Requests carry `YYYY-MM-DDTHH:MM:SS` in UTC ("List available content", activity API reference). Answers carry
//! `2015-05-23T17:35:00.000Z`, in practice with none to seven digits of fraction, and times without a zone, which
//! are UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Unit};

/// A span of `contentCreated`: start inclusive, end exclusive, at most 24 hours, in the service's time.
///
/// The wire knows whole seconds only: a start between two seconds is sent as the earlier one and an end as the
/// later one, so that no moment of the span goes unasked. A planner that uses whole seconds gets what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first moment.
    pub start: Timestamp,
    /// The moment after the last.
    pub end: Timestamp,
}

impl Window {
    /// `startTime` and `endTime` as the wire has them.
    pub(super) fn wire(&self) -> (String, String) {
        (wire_time(floor(self.start)), wire_time(ceil(self.end)))
    }
}

fn floor(time: Timestamp) -> Timestamp {
    // Euclidean, so that times before 1970 round the same way.
    let nanoseconds = time.as_nanosecond().rem_euclid(1_000_000_000);
    Timestamp::from_nanosecond(time.as_nanosecond() - nanoseconds).unwrap_or(time)
}

fn ceil(time: Timestamp) -> Timestamp {
    let down = floor(time);
    if down == time { time } else { down.checked_add(SignedDuration::from_secs(1)).unwrap_or(time) }
}

fn wire_time(time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::UTC).datetime();
    let time = time.round(Unit::Second).unwrap_or(time);
    format!("{time:.0}")
}

/// Reads a time of an answer; `None` if it is none.
pub(super) fn read_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // Longer than any form of a time: not worth a parser's attention.
    if text.len() > 64 {
        return None;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // A `[zone]` annotation or a bare time of day would parse as well, but is not what the service writes.
    let time: DateTime = text.parse().ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn windows_are_sent_in_whole_seconds_that_cover_them() {
        for (start, end, wire) in [
            ("2026-11-22T12:00:00Z", "2026-11-22T12:05:00Z", ("2026-11-22T12:00:00", "2026-11-22T12:05:00")),
            (
                "2026-11-22T12:00:00.9Z",
                "2026-11-22T12:04:59.000000001Z",
                ("2026-11-22T12:00:00", "2026-11-22T12:05:00"),
            ),
            (
                "2026-12-31T23:59:59.999999999Z",
                "2026-12-31T23:59:59.5Z",
                ("2026-12-31T23:59:59", "2027-01-01T00:00:00"),
            ),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.5Z", ("1969-12-31T23:59:59", "1970-01-01T00:00:00")),
        ] {
            let window = Window { start: at(start), end: at(end) };
            assert_eq!(window.wire(), (wire.0.to_owned(), wire.1.to_owned()), "{start}..{end}");
        }
    }

    #[test]
    fn times_come_with_and_without_fraction_and_zone() {
        for (text, meant) in [
            ("2015-05-23T17:35:00.000Z", "2015-05-23T17:35:00Z"),
            ("2015-05-23T17:35:00Z", "2015-05-23T17:35:00Z"),
            ("2015-05-23T17:35:00", "2015-05-23T17:35:00Z"),
            ("2015-05-23T17:35", "2015-05-23T17:35:00Z"),
            ("2015-05-23", "2015-05-23T00:00:00Z"),
            ("2020-02-20T10:46:42.0000000Z", "2020-02-20T10:46:42Z"),
            ("2020-02-20T10:46:42.1234567Z", "2020-02-20T10:46:42.1234567Z"),
            ("2020-02-20T10:46:42.1234567", "2020-02-20T10:46:42.1234567Z"),
            ("2020-02-20T10:46:42.1", "2020-02-20T10:46:42.1Z"),
            ("2020-02-20T10:46:42+01:00", "2020-02-20T09:46:42Z"),
            (" 2020-02-20T10:46:42Z ", "2020-02-20T10:46:42Z"),
        ] {
            assert_eq!(read_time(text), Some(at(meant)), "{text}");
        }
        for text in ["", "yesterday", "2020-02-30T00:00:00Z", "1582412345", "10:46:42", "20-02-20T10:46:42", "null"] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_not(text in ".{0,80}") {
            let _ = read_time(&text);
        }

        #[test]
        fn what_is_sent_covers_what_was_meant(nanoseconds in 0i128..4_102_444_800_000_000_000, span in 0i64..86_400_000_000_000) {
            let start = Timestamp::from_nanosecond(nanoseconds).unwrap();
            let end = start + SignedDuration::from_nanos(span);
            let (from, to) = Window { start, end }.wire();
            let (from, to) = (read_time(&from).unwrap(), read_time(&to).unwrap());
            prop_assert!(from <= start && start.duration_since(from) < SignedDuration::from_secs(1));
            prop_assert!(to >= end && to.duration_since(end) < SignedDuration::from_secs(1));
        }
    }
}
