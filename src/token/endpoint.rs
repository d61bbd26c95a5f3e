//! The token endpoint on the wire: one POST of a form, one answer of limited size.
//!
//! The form ("OAuth 2.0 client credentials flow on the Microsoft identity platform") is `client_id`, what is asked for
//! (`grant_type` and what belongs to it), and the secret or the assertion. Each request carries a fresh
//! `client-request-id`, which Entra returns as the correlation id.
//!
//! **Invariant:** the form goes to the one address that is asked and nowhere else: redirects are not followed, and the
//! assertion is good for that address only.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};
use url::Url;
use url::form_urlencoded;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::http::{Pool, headers};
use crate::secret::Secret;

/// Larger than any answer of Entra by far.
const LARGEST_ANSWER: usize = 256 * 1024;

/// What proves who asks, ready to be sent.
pub(super) enum Proof {
    /// A client secret.
    Secret(Secret),
    /// A signed client assertion.
    Assertion(Secret),
}

impl Proof {
    /// What no error may repeat.
    pub(super) const fn text(&self) -> &Secret {
        match self {
            Self::Secret(text) | Self::Assertion(text) => text,
        }
    }
}

/// One request.
pub(super) struct Outgoing {
    pub(super) url: Url,
    pub(super) request_id: Uuid,
    pub(super) form: Secret,
    /// The service's time as it is thought to be, for an answer that tells none.
    pub(super) now: Timestamp,
}

impl Outgoing {
    /// `fields` say what is asked for.
    pub(super) fn new(url: Url, client_id: &str, fields: &[(&str, &str)], proof: &Proof, now: Timestamp) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", client_id);
        form.extend_pairs(fields);
        match proof {
            Proof::Secret(secret) => form.append_pair("client_secret", secret.expose()),
            Proof::Assertion(assertion) => form
                .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
                .append_pair("client_assertion", assertion.expose()),
        };
        Self { url, request_id: Uuid::new_v4(), form: Secret::from(form.finish()), now }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("url", &self.url.as_str())
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// One answer. Its body may be a token: there is no `Debug`.
#[derive(Default)]
pub(super) struct Incoming {
    pub(super) status: u16,
    pub(super) date: Option<Timestamp>,
    pub(super) retry_after: Option<Duration>,
    /// The host that a redirect points to.
    pub(super) redirect: Option<String>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("the request for a token got no answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("the answer to the request for a token broke off")]
    BrokeOff(#[source] reqwest::Error),
    #[error("the answer to the request for a token is longer than {LARGEST_ANSWER} bytes")]
    TooLong,
}

/// How a request gets to Entra: the seam where tests put theirs.
pub(super) trait Transport: fmt::Debug + Send + Sync + 'static {
    fn post(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, TransportError>>;
}

impl Transport for Pool {
    fn post(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, TransportError>> {
        let client = self.client();
        Box::pin(async move {
            let response = client
                .post(outgoing.url)
                .header(ACCEPT, "application/json")
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(HeaderName::from_static("client-request-id"), outgoing.request_id.to_string())
                .body(outgoing.form.expose().to_owned())
                .send()
                .await
                .map_err(TransportError::NoAnswer)?;
            receive(response, outgoing.now).await
        })
    }
}

/// The whole of an answer, within the limit; `now` is for one that tells no time.
pub(super) async fn receive(mut response: reqwest::Response, now: Timestamp) -> Result<Incoming, TransportError> {
    let mut incoming = read_headers(response.status().as_u16(), response.headers(), now);
    while let Some(chunk) = response.chunk().await.map_err(TransportError::BrokeOff)? {
        if incoming.body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(TransportError::TooLong);
        }
        incoming.body.extend_from_slice(&chunk);
    }
    Ok(incoming)
}

fn read_headers(status: u16, headers: &HeaderMap, now: Timestamp) -> Incoming {
    Incoming {
        status,
        date: headers::date(headers),
        retry_after: headers::retry_after(headers, now),
        redirect: (headers.get(LOCATION).and_then(|location| location.to_str().ok()))
            .filter(|_| (300..400).contains(&status))
            .and_then(|location| Url::parse(location).ok())
            .and_then(|url| url.host_str().map(str::to_owned)),
        body: Zeroizing::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(outgoing: &Outgoing) -> Vec<(String, String)> {
        form_urlencoded::parse(outgoing.form.expose().as_bytes()).into_owned().collect()
    }

    #[test]
    fn the_form_with_either_proof() {
        let proof = Proof::Secret(Secret::from("s&cr=t +~".to_owned()));
        let url = Url::parse("https://login.example/tid/oauth2/v2.0/token").unwrap();
        let asked = [("grant_type", "client_credentials"), ("scope", "https://manage.office.com/.default")];
        let outgoing = Outgoing::new(url.clone(), "id", &asked, &proof, Timestamp::UNIX_EPOCH);
        let expected = [
            ("client_id", "id"),
            ("grant_type", "client_credentials"),
            ("scope", "https://manage.office.com/.default"),
            ("client_secret", "s&cr=t +~"),
        ];
        assert_eq!(form(&outgoing), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        let proof = Proof::Assertion(Secret::from("a.b.c".to_owned()));
        let outgoing = Outgoing::new(url, "id", &[], &proof, Timestamp::UNIX_EPOCH);
        let expected = [
            ("client_id", "id"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", "a.b.c"),
        ];
        assert_eq!(form(&outgoing), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!format!("{outgoing:?}").contains("a.b.c"));
    }

    #[test]
    fn a_wait_is_read_with_a_date_and_without() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "Sun, 22 Nov 2026 14:00:00 GMT".parse().unwrap());
        assert_eq!(read_headers(429, &headers, now).retry_after, Some(Duration::from_hours(2)), "by our own time");
        headers.insert("date", "Sun, 22 Nov 2026 13:00:00 GMT".parse().unwrap());
        assert_eq!(read_headers(429, &headers, now).retry_after, Some(Duration::from_hours(1)));
        headers.append("retry-after", "7200".parse().unwrap());
        assert_eq!(read_headers(429, &headers, now).retry_after, Some(Duration::from_hours(2)), "the longest");
    }

    #[test]
    fn a_redirect_is_noticed_and_only_its_host_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, "https://portal.example/login?token=x".parse().unwrap());
        assert_eq!(read_headers(302, &headers, Timestamp::UNIX_EPOCH).redirect.as_deref(), Some("portal.example"));
        assert_eq!(read_headers(200, &headers, Timestamp::UNIX_EPOCH).redirect, None);
    }
}
