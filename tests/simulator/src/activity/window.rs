//! The time window of a listing: which are allowed, and how times are written.
//!
//! "List available content", activity API reference: both ends or neither, at most 24 hours apart, the start at most 7
//! days ago; neither means the last 24 hours. The service was found to tolerate an hour more and ends in the future.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A window: start inclusive, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// Why a window is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A time of this parameter cannot be read (AF20002).
    Unreadable(&'static str),
    /// Only one end is given (AF20030).
    OneEnd,
    /// Start not before end (AF20055).
    Backwards,
    /// More than 24 hours (AF20030).
    TooLong,
    /// Start too long ago (AF20055).
    TooOld,
}

/// A window with what the reference forbids about it although it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) window: Window,
    pub(super) tolerated: Option<Refused>,
}

/// Reads and checks the two parameters.
pub(super) fn window(
    start: Option<&str>,
    end: Option<&str>,
    now: Timestamp,
    grace: SignedDuration,
    long_partial: bool,
) -> Result<Allowed, Refused> {
    let (start, end) = match (start, end) {
        (None, None) => {
            return Ok(Allowed { window: Window { start: now - DAY, end: now }, tolerated: None });
        }
        (Some(start), Some(end)) => (start, end),
        _ => return Err(Refused::OneEnd),
    };
    let start = read(start).ok_or(Refused::Unreadable("startTime"))?;
    let end = read(end).ok_or(Refused::Unreadable("endTime"))?;
    if start >= end {
        return Err(Refused::Backwards);
    }
    let age = now.duration_since(start);
    if age > WEEK + grace {
        return Err(Refused::TooOld);
    }
    let mut tolerated = (age > WEEK).then_some(Refused::TooOld);
    let mut window = Window { start, end };
    if end.duration_since(start) > DAY {
        if !long_partial {
            return Err(Refused::TooLong);
        }
        tolerated = Some(Refused::TooLong);
        window.end = start + DAY;
    }
    Ok(Allowed { window, tolerated })
}

/// A time as the reference allows it, and with the fraction and `Z` that the service accepts too.
fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    let time: DateTime = match text.len() {
        10 => text.parse::<Date>().ok()?.at(0, 0, 0, 0),
        16 => format!("{text}:00").parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn ask(start: Option<&str>, end: Option<&str>) -> Result<Allowed, Refused> {
        window(start, end, now(), HOUR, false)
    }

    #[test]
    fn times_are_read_in_all_forms() {
        let expected: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        for form in [
            "2026-11-22",
            "2026-11-22T00:00",
            "2026-11-22T00:00:00",
            "2026-11-22T00:00:00Z",
            "2026-11-22T00:00:00.0000000Z",
            "2026-11-22T00:00:00.000",
        ] {
            assert_eq!(read(form), Some(expected), "{form}");
        }
        for form in ["yesterday", "2026-11-32", "", "1700000000"] {
            assert_eq!(read(form), None, "{form}");
        }
    }

    #[test]
    fn windows_keep_the_documented_rules() {
        let day = ask(None, None).unwrap().window;
        assert_eq!((day.start, day.end), (now() - DAY, now()));
        assert_eq!(ask(Some("2026-11-22"), None), Err(Refused::OneEnd));
        assert_eq!(ask(None, Some("2026-11-22")), Err(Refused::OneEnd));
        assert_eq!(ask(Some("2026-11-22"), Some("2026-11-22")), Err(Refused::Backwards));
        assert_eq!(ask(Some("2026-11-20"), Some("2026-11-21T00:00:01")), Err(Refused::TooLong));
        assert!(ask(Some("2026-11-20"), Some("2026-11-21")).is_ok());
        assert_eq!(ask(Some("2026-11-15T10:59:59"), Some("2026-11-15T12:00")), Err(Refused::TooOld));
        assert_eq!(ask(Some("2026-11-15T11:30"), Some("2026-11-15T12:00")).unwrap().tolerated, Some(Refused::TooOld));
        assert_eq!(ask(Some("2026-11-15T12:00"), Some("2026-11-15T13:00")).unwrap().tolerated, None);
        assert!(ask(Some("2026-11-22T11:00"), Some("2026-11-22T18:00")).is_ok(), "an end in the future is tolerated");
        assert_eq!(ask(Some("x"), Some("2026-11-22")), Err(Refused::Unreadable("startTime")));
    }

    #[test]
    fn long_windows_may_be_partial() {
        let allowed = window(Some("2026-11-19"), Some("2026-11-22"), now(), HOUR, true).unwrap();
        assert_eq!(allowed.window.end.duration_since(allowed.window.start), DAY);
        assert_eq!(allowed.tolerated, Some(Refused::TooLong));
    }
}
