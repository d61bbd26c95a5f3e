//! What the headers of an answer say, read without trust: a header that cannot be read is as good as none.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};

/// A longer wait than this is not believed: a day later the tenant is asked again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The names under which the next page is announced: the activity API reference says `NextPageUri`, its
/// troubleshooting page `NextPageUrl`; header names have no case.
const NEXT_PAGE: [&str; 2] = ["nextpageuri", "nextpageurl"];

/// Where the service puts the id of a request, in the order in which they are believed.
const REQUEST_ID: [&str; 5] =
    ["mise-correlation-id", "x-ms-correlation-id", "request-id", "x-ms-request-id", "client-request-id"];

/// The moment at which the service answered.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(read_http_date)
}

/// How long to wait, from now; `answered` is the answer's own `Date`, by which a wait until a moment is measured.
pub(super) fn retry_after(headers: &HeaderMap, answered: Option<Timestamp>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
        Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LONGEST_WAIT)
    } else {
        // A moment in the past asks for no wait.
        Duration::try_from(read_http_date(text)?.duration_since(answered?)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Whether the body is said to be JSON, or nothing is said.
pub(super) fn says_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.is_empty() || essence.rsplit(['/', '+']).next() == Some("json")
    })
}

/// The link to the next page, as given.
pub(super) fn next_page(headers: &HeaderMap) -> Option<String> {
    NEXT_PAGE
        .iter()
        .filter_map(|name| headers.get(*name))
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
        .find(|text| !text.is_empty())
}

/// Microsoft's id of the request, for a support request.
pub(super) fn correlation_id(headers: &HeaderMap) -> Option<String> {
    REQUEST_ID
        .iter()
        .filter_map(|name| headers.get(*name)?.to_str().ok())
        .map(str::trim)
        // It is shown to people and kept: an id, not an essay.
        .find(|text| !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(str::to_owned)
}

/// Reads the three forms of a date that HTTP knows.
fn read_http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    if let Ok(time) = rfc2822::DateTimeParser::new().parse_timestamp(text) {
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
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_a_body_is_said_to_be() {
        for (said, json) in [
            ("application/json; charset=utf-8", true),
            ("Application/JSON", true),
            ("text/json", true),
            ("application/problem+json", true),
            ("", true),
            ("text/html; charset=utf-8", false),
            ("text/plain", false),
            ("application/octet-stream", false),
        ] {
            assert_eq!(says_json(&headers(&[("content-type", said)])), json, "{said}");
        }
        assert!(says_json(&HeaderMap::new()));
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    #[test]
    fn dates_in_the_three_forms_of_http() {
        let meant: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(date(&headers(&[("Date", text)])), Some(meant), "{text}");
        }
        for text in ["", "now", "Sun, 31 Feb 1994 08:49:37 GMT", "1994-11-06", "Sun, 06 Nov 1994"] {
            assert_eq!(date(&headers(&[("date", text)])), None, "{text}");
        }
    }

    #[test]
    fn waits_in_seconds_and_until_a_moment() {
        let answered = "1994-11-06T08:49:37Z".parse().ok();
        for (text, answered, meant) in [
            ("120", None, Some(120)),
            (" 0 ", None, Some(0)),
            ("1.2", None, Some(2)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", answered, Some(120)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", answered, Some(0)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", None, None),
            ("18446744073709551615", None, Some(86_400)),
            ("99999999999999999999999", None, Some(86_400)),
            ("1e300", None, Some(86_400)),
            ("-5", None, None),
            ("soon", None, None),
            ("NaN", None, None),
            ("inf", None, None),
        ] {
            let wait = retry_after(&headers(&[("Retry-After", text)]), answered);
            assert_eq!(wait, meant.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), answered), None);
    }

    #[test]
    fn the_next_page_has_two_names_in_any_case() {
        for name in ["NextPageUri", "nextpageuri", "NEXTPAGEURI", "Nextpageuri", "NextPageUrl", "nextpageurl"] {
            assert_eq!(next_page(&headers(&[(name, "https://a/b?c$d")])).as_deref(), Some("https://a/b?c$d"), "{name}");
        }
        assert_eq!(next_page(&headers(&[("NextPageUrl", "old"), ("NextPageUri", "new")])).as_deref(), Some("new"));
        assert_eq!(next_page(&headers(&[("NextPageUri", "  "), ("NextPageUrl", "b")])).as_deref(), Some("b"));
        assert_eq!(next_page(&headers(&[("NextPage", "x")])), None);
    }

    #[test]
    fn correlation_ids_are_short_and_plain() {
        let id = "0000aaaa-11bb-cccc-dd22-eeeeee333333";
        assert_eq!(correlation_id(&headers(&[("mise-correlation-id", id)])).as_deref(), Some(id));
        assert_eq!(correlation_id(&headers(&[("x-ms-request-id", "b"), ("Request-Id", "a")])).as_deref(), Some("a"));
        assert_eq!(correlation_id(&headers(&[("request-id", "a b")])), None);
        assert_eq!(correlation_id(&headers(&[("request-id", &"x".repeat(129))])), None);
    }

    proptest! {
        #[test]
        fn any_header_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                for name in ["date", "retry-after", "nextpageuri", "nextpageurl", "request-id"] {
                    headers.insert(HeaderName::from_static(name), value.clone());
                }
                let _ = (date(&headers), retry_after(&headers, Some(Timestamp::UNIX_EPOCH)));
                let _ = (next_page(&headers), correlation_id(&headers));
            }
        }
    }
}
