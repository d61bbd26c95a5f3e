//! What the headers of any answer say about time, read without trust: a header that cannot be read is as good as none.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// A longer wait than this is not believed: a day later it is asked again. Content lives seven days.
pub const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The moment of the answer.
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(read_date)
}

/// How long to wait, from now; the longest, if several waits are named. A wait until a moment is measured by the answer's
/// own `Date`, or by `ours` if it has none.
#[must_use]
pub fn retry_after(headers: &HeaderMap, ours: Timestamp) -> Option<Duration> {
    let now = date(headers).unwrap_or(ours);
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| read_wait(value.to_str().ok()?.trim(), now)).max()
}

fn read_wait(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
        Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LONGEST_WAIT)
    } else {
        // A moment in the past asks for no wait.
        Duration::try_from(read_date(text)?.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Reads the three forms of a date that HTTP knows. The day of the week is not checked: it says nothing more.
fn read_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    if let Ok(time) = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text) {
        return Some(time);
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].iter().find_map(|form| {
        let time: DateTime = strtime::parse(form, text).ok()?.to_datetime().ok()?;
        time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn dates_in_the_three_forms_of_http() {
        let date = |text: &'static str| date(&HeaderMap::from_iter([(DATE, HeaderValue::from_static(text))]));
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(date(text), Some(at("1994-11-06T08:49:37Z")), "{text}");
        }
        for text in ["", "now", "Sun, 31 Feb 1994 08:49:37 GMT", "1994-11-06", "Sun, 06 Nov 1994"] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn waits_in_seconds_and_until_a_moment() {
        const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
        // `Date`, the waits, and what is meant at ten past noon by our own clock.
        for (dated, waits, meant) in [
            (None, &["120"][..], Some(120)),
            (None, &[" 0 "], Some(0)),
            (None, &["1.2"], Some(2)),
            (Some(NOON), &["Sun, 06 Nov 1994 12:02:00 GMT"], Some(120)),
            (Some(NOON), &["Sun, 06 Nov 1994 11:00:00 GMT"], Some(0)),
            (None, &["Sun, 06 Nov 1994 12:12:00 GMT"], Some(120)),
            (Some("soon"), &["Sun, 06 Nov 1994 12:12:00 GMT"], Some(120)),
            (None, &["18446744073709551615"], Some(86_400)),
            (None, &["99999999999999999999999"], Some(86_400)),
            (None, &["1e300"], Some(86_400)),
            (None, &["Sun, 06 Nov 2094 12:00:00 GMT"], Some(86_400)),
            (None, &["10", "30", "20"], Some(30)),
            (Some(NOON), &["soon", "10", "Sun, 06 Nov 1994 12:02:00 GMT"], Some(120)),
            (None, &[], None),
            (None, &["-5"], None),
            (None, &["soon"], None),
            (None, &["NaN"], None),
            (None, &["inf"], None),
        ] {
            let mut headers = HeaderMap::new();
            for wait in waits {
                headers.append(RETRY_AFTER, HeaderValue::from_static(wait));
            }
            if let Some(dated) = dated {
                headers.insert(DATE, HeaderValue::from_static(dated));
            }
            let wait = retry_after(&headers, at("1994-11-06T12:10:00Z"));
            assert_eq!(wait, meant.map(Duration::from_secs), "{dated:?} {waits:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(DATE, value.clone()), (RETRY_AFTER, value)]);
                prop_assert!(retry_after(&headers, Timestamp::UNIX_EPOCH).is_none_or(|wait| wait <= LONGEST_WAIT));
            }
        }
    }
}
