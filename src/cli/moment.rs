//! A moment as it is written on a command line.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::config::duration;

/// A point in time, or one so and so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This time.
    At(Timestamp),
    /// This long before now.
    Ago(Duration),
}

impl Moment {
    /// The point in time, if it is `now` now; never before the first one that can be told.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok()).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a time as `2026-11-22T08:00:00Z`, a date as `2026-11-22` (its midnight in UTC), or a span ago as `2h` or `7d`"
)]
pub struct NotAMoment;

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        // A civil time without an offset parses as a date too, with its hours cut off: ten characters are a date.
        if text.len() == 10
            && let Ok(date) = text.parse::<Date>()
            && let Ok(midnight) = date.to_zoned(TimeZone::UTC)
        {
            return Ok(Self::At(midnight.timestamp()));
        }
        duration::parse(text.strip_suffix(" ago").unwrap_or(text)).map(Self::Ago).map_err(|_| NotAMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00Z"),
            ("2026-11-22T08:00:00.5+02:00", "2026-11-22T06:00:00.5Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2h", "2026-11-22T10:00:00Z"),
            ("7d", "2026-11-15T12:00:00Z"),
            ("90 minutes ago", "2026-11-22T10:30:00Z"),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().resolve(now).to_string(), expected, "{text}");
        }
        for text in ["", "yesterday", "2026-11-22T08:00:00", "2026-13-01", "7", "-2h", "1 month"] {
            assert_eq!(text.parse::<Moment>(), Err(NotAMoment), "{text}");
        }
    }
}
