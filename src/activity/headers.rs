//! What the headers of an answer say about pages and requests, read without trust: a header that cannot be read is as
//! good as none. What they say about time is read by [`http::headers`](crate::http::headers).

use reqwest::header::{CONTENT_TYPE, HeaderMap};

/// The names under which the next page is announced: the activity API reference says `NextPageUri`, its
/// troubleshooting page `NextPageUrl`; header names have no case.
const NEXT_PAGE: [&str; 2] = ["nextpageuri", "nextpageurl"];

/// Where the service puts the id of a request, in the order in which they are believed.
const REQUEST_ID: [&str; 5] =
    ["mise-correlation-id", "x-ms-correlation-id", "request-id", "x-ms-request-id", "client-request-id"];

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
        .flat_map(|name| headers.get_all(*name))
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
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_next_page_has_two_names_in_any_case() {
        for name in ["NextPageUri", "nextpageuri", "NEXTPAGEURI", "Nextpageuri", "NextPageUrl", "nextpageurl"] {
            assert_eq!(next_page(&headers(&[(name, "https://a/b?c$d")])).as_deref(), Some("https://a/b?c$d"), "{name}");
        }
        assert_eq!(next_page(&headers(&[("NextPageUrl", "old"), ("NextPageUri", "new")])).as_deref(), Some("new"));
        assert_eq!(next_page(&headers(&[("NextPageUri", "  "), ("NextPageUrl", "b")])).as_deref(), Some("b"));
        let twice = [("NextPageUri", ""), ("NextPageUri", "c"), ("NextPageUrl", "d")];
        assert_eq!(next_page(&headers(&twice)).as_deref(), Some("c"), "an empty one hides none");
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
                for name in ["nextpageuri", "nextpageurl", "request-id"] {
                    headers.insert(HeaderName::from_static(name), value.clone());
                }
                let _ = (next_page(&headers), correlation_id(&headers));
            }
        }
    }
}
