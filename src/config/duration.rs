//! Spans of time as people write them: `90s`, `45m`, `6h`, `7d`, `1h 30m`. A day has 24 hours, a week seven days.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// What is wanted.
pub(super) const WANTED: &str = "a span of time with its unit, such as `90s`, `45m`, `6h` or `7d`";

/// A text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write {WANTED}")]
pub struct NotADuration;

/// Reads a span of time. Months and years have no fixed length and are refused, negative spans as well.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let span: Span = text.trim().parse().map_err(|_| NotADuration)?;
    let signed: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| NotADuration)?;
    Duration::try_from(signed).map_err(|_| NotADuration)
}

/// What someone meant by a text that is no span of time, where that can be told.
pub(super) fn meant(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-')
        && let Ok(span) = parse(rest)
    {
        return Some(format!("`{text}` is negative; write it as `{}`", display(span)));
    }
    let number = text.strip_suffix('M')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("the `M` of `{text}` stands for months; did you mean `{number}m`?"))
}

/// The span as [`parse`] reads it, in the fewest units: `7d`, `1h30m`, `250ms`.
#[must_use]
pub fn display(duration: Duration) -> String {
    let mut text = String::new();
    let mut rest = duration.as_nanos();
    for (unit, nanos) in [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        let count = rest / nanos;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
            rest -= count * nanos;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_of_time() {
        for (text, seconds) in [
            ("90s", 90),
            ("45m", 2700),
            ("6h", 21600),
            ("7d", 604_800),
            ("1w", 604_800),
            ("1h 30m", 5400),
            ("2 hours", 7200),
            ("0s", 0),
            ("PT5M", 300),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "60", "soon", "-5m", "5m ago", "1 month", "1y", "1.5.2h", "5 m x"] {
            assert_eq!(parse(text), Err(NotADuration), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn the_fewest_units() {
        for (seconds, text) in [(0, "0s"), (90, "1m30s"), (2700, "45m"), (604_800, "7d"), (90_000, "1d1h")] {
            assert_eq!(display(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_was_meant() {
        assert_eq!(meant("-5m").as_deref(), Some("`-5m` is negative; write it as `5m`"));
        assert_eq!(meant("45M").as_deref(), Some("the `M` of `45M` stands for months; did you mean `45m`?"));
        for text in ["", "M", "xM", "-", "-x", "soon"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read_back(millis in 0..10_000_000_000_u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&display(duration)), Ok(duration));
        }
    }
}
