//! What the token endpoint answered: a token, or a refusal. Pure: an answer comes in.
//!
//! Numbers arrive as numbers (v2) or as strings (v1), `refresh_in` is optional, unknown fields are none of our
//! business. A refusal is `error`, `error_description`, `error_codes`, `trace_id`, `correlation_id` ("Microsoft Entra
//! authentication and authorization error codes"); where the codes are missing, they are read off the description.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::endpoint::Incoming;
use super::renewal::LONGEST_LIFE;
use crate::secret::Secret;

/// Entra's own words are quoted up to this many characters.
const LONGEST_QUOTE: usize = 300;

/// A token.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) token: Secret,
    /// Counted from the moment before the request was sent.
    pub(super) life: Duration,
    pub(super) refresh_in: Option<Duration>,
}

/// An answer that is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) json: bool,
    pub(super) error: Option<String>,
    pub(super) codes: Vec<u32>,
    /// Entra's own words, shortened, on one line.
    pub(super) description: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) redirect: Option<String>,
}

/// Why a token that was granted cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has no `access_token`")]
    NoToken,
    #[error("its `access_token` has characters that no token has")]
    OddToken,
    #[error("its `token_type` is not Bearer")]
    NotBearer,
    #[error("it does not say for how long the token is valid")]
    NoLife,
    #[error("the token has expired already")]
    Expired,
}

/// The two that are no token.
#[derive(Debug)]
pub(super) enum NoGrant {
    Refused(Box<Refusal>),
    Unusable(Unusable),
}

#[derive(Deserialize)]
struct Fields {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
    refresh_in: Option<Value>,
    error: Option<Value>,
}

/// Reads an answer. `now` is the service's time, for answers that only say at what time the token ends; `concealed`
/// is what we sent to prove who we are, which no error repeats, even if the answer does.
pub(super) fn read(incoming: &Incoming, now: Timestamp, concealed: &[&str]) -> Result<Grant, NoGrant> {
    if incoming.status != 200 {
        return Err(NoGrant::Refused(Box::new(refusal(incoming, concealed))));
    }
    match serde_json::from_slice::<Fields>(&incoming.body) {
        // A refusal that came with the wrong status.
        Ok(Fields { access_token: None, error: Some(_), .. }) => {
            Err(NoGrant::Refused(Box::new(refusal(incoming, concealed))))
        }
        Ok(fields) => grant(fields, incoming.date.unwrap_or(now)).map_err(NoGrant::Unusable),
        Err(_) => Err(NoGrant::Refused(Box::new(refusal(incoming, concealed)))),
    }
}

fn grant(fields: Fields, now: Timestamp) -> Result<Grant, Unusable> {
    let token = Secret::from(fields.access_token.unwrap_or_default());
    if token.expose().is_empty() {
        return Err(Unusable::NoToken);
    }
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unusable::OddToken);
    }
    if !fields.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("Bearer")) {
        return Err(Unusable::NotBearer);
    }
    let seconds = match (number(fields.expires_in.as_ref()), number(fields.expires_on.as_ref())) {
        (Some(seconds), _) => seconds,
        (None, Some(moment)) => moment.saturating_sub(now.as_second()),
        (None, None) => return Err(Unusable::NoLife),
    };
    let life = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or(Unusable::Expired)?;
    let refresh_in = number(fields.refresh_in.as_ref()).and_then(|seconds| u64::try_from(seconds).ok());
    Ok(Grant {
        token,
        life: Duration::from_secs(life).min(LONGEST_LIFE),
        refresh_in: refresh_in.map(Duration::from_secs),
    })
}

/// Reads an answer that is no token.
pub(super) fn refusal(incoming: &Incoming, concealed: &[&str]) -> Refusal {
    let quote = |words: &str| quote(words, concealed);
    let body: Option<Value> = serde_json::from_slice(&incoming.body).ok().filter(Value::is_object);
    let text = |name: &str| body.as_ref()?.get(name)?.as_str().filter(|text| !text.is_empty());
    let description = text("error_description");
    let mut codes: Vec<u32> = body
        .as_ref()
        .and_then(|body| body.get("error_codes")?.as_array())
        .map(|codes| codes.iter().filter_map(|code| u32::try_from(number(Some(code))?).ok()).collect())
        .unwrap_or_default();
    if codes.is_empty() {
        codes.extend(description.and_then(code_in));
    }
    let id = |name: &str, label: &str| {
        text(name).or_else(|| description.and_then(|description| labelled(description, label))).map(quote)
    };
    Refusal {
        status: incoming.status,
        json: body.is_some(),
        error: text("error").map(quote),
        codes,
        correlation_id: id("correlation_id", "Correlation ID: "),
        trace_id: id("trace_id", "Trace ID: "),
        description: description.map(quote),
        redirect: incoming.redirect.clone(),
    }
}

/// A number that may be written as a string.
fn number(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked against bounds that an i64 holds")]
fn whole(number: f64) -> Option<i64> {
    (number.abs() < 1e15).then_some(number as i64)
}

/// The number in `AADSTS700027: …`.
fn code_in(description: &str) -> Option<u32> {
    let (_, rest) = description.split_once("AADSTS")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The word after `label`.
fn labelled<'a>(description: &'a str, label: &str) -> Option<&'a str> {
    description.split_once(label)?.1.split_whitespace().next()
}

/// Words of the answer, fit for a line of a log: the first sentences, without the ids that follow them.
fn quote(words: &str, concealed: &[&str]) -> String {
    let words = (concealed.iter().filter(|secret| !secret.is_empty()))
        .fold(words.to_owned(), |words, secret| words.replace(secret, "[redacted]"));
    let end = words.find("Trace ID:").filter(|end| *end > 0).unwrap_or(words.len());
    let line: String = words[..end]
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(LONGEST_QUOTE)
        .collect();
    line.trim_end().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Incoming {
        Incoming { status, body: body.as_bytes().to_vec().into(), ..Incoming::default() }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_431_655_494).unwrap()
    }

    fn granted(body: &str) -> Result<(u64, Option<u64>), Unusable> {
        match read(&answer(200, body), now(), &[""]) {
            Ok(grant) => {
                assert_eq!(grant.token.expose(), "eyJ0");
                assert!(!format!("{grant:?}").contains("eyJ0"));
                Ok((grant.life.as_secs(), grant.refresh_in.map(|wait| wait.as_secs())))
            }
            Err(NoGrant::Unusable(unusable)) => Err(unusable),
            Err(NoGrant::Refused(refusal)) => panic!("{refusal:?}"),
        }
    }

    #[test]
    fn tokens_of_every_shape() {
        for (body, expected) in [
            (r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJ0"}"#, (3599, None)),
            (
                r#"{"token_type":"Bearer","expires_in":"3599","ext_expires_in":"0","expires_on":"1431659094",
                    "not_before":"1431655194","resource":"https://manage.office.com","access_token":"eyJ0"}"#,
                (3599, None),
            ),
            (r#"{"token_type":"bearer","expires_on":"1431659094","access_token":"eyJ0"}"#, (3600, None)),
            (
                r#"{"token_type":"Bearer","expires_in":86399,"refresh_in":43199,"access_token":"eyJ0"}"#,
                (86_399, Some(43_199)),
            ),
            (
                r#"{"token_type":"Bearer","expires_in":"86399.5","refresh_in":"43199","access_token":"eyJ0"}"#,
                (86_399, Some(43_199)),
            ),
            (
                r#"{"token_type":"Bearer","expires_in":1e12,"refresh_in":-1,"access_token":"eyJ0","new":{"field":[]}}"#,
                (172_800, None),
            ),
        ] {
            assert_eq!(granted(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn tokens_that_cannot_be_used() {
        for (body, expected) in [
            (r#"{"token_type":"Bearer","expires_in":3599}"#, Unusable::NoToken),
            (r#"{"token_type":"Bearer","expires_in":3599,"access_token":""}"#, Unusable::NoToken),
            (r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a\r\nX: b"}"#, Unusable::OddToken),
            (r#"{"token_type":"pop","expires_in":3599,"access_token":"eyJ0"}"#, Unusable::NotBearer),
            (r#"{"expires_in":3599,"access_token":"eyJ0"}"#, Unusable::NotBearer),
            (r#"{"token_type":"Bearer","access_token":"eyJ0"}"#, Unusable::NoLife),
            (r#"{"token_type":"Bearer","expires_in":true,"access_token":"eyJ0"}"#, Unusable::NoLife),
            (r#"{"token_type":"Bearer","expires_in":0,"access_token":"eyJ0"}"#, Unusable::Expired),
            (r#"{"token_type":"Bearer","expires_on":1431655000,"access_token":"eyJ0"}"#, Unusable::Expired),
        ] {
            assert_eq!(granted(body), Err(expected), "{body}");
        }
    }

    fn refused(status: u16, body: &str) -> Refusal {
        match read(&answer(status, body), now(), &["hunter2"]) {
            Err(NoGrant::Refused(refusal)) => *refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_as_documented() {
        let refusal = refused(
            400,
            r#"{"error":"invalid_scope","error_description":"AADSTS70011: The provided value for the input parameter 'scope' is not valid.\r\nTrace ID: 0000aaaa-11bb-cccc-dd22-eeeeee333333\r\nCorrelation ID: aaaa0000-bb11-2222-33cc-444444dddddd\r\nTimestamp: 2016-01-09 02:02:12Z",
                "error_codes":[70011],"timestamp":"2016-01-09 02:02:12Z","trace_id":"0000aaaa-11bb-cccc-dd22-eeeeee333333",
                "correlation_id":"aaaa0000-bb11-2222-33cc-444444dddddd","error_uri":"https://login.microsoftonline.com/error?code=70011"}"#,
        );
        assert_eq!(refusal.error.as_deref(), Some("invalid_scope"));
        assert_eq!(refusal.codes, [70_011]);
        assert_eq!(
            refusal.description.as_deref(),
            Some("AADSTS70011: The provided value for the input parameter 'scope' is not valid")
        );
        assert_eq!(refusal.correlation_id.as_deref(), Some("aaaa0000-bb11-2222-33cc-444444dddddd"));
        assert_eq!(refusal.trace_id.as_deref(), Some("0000aaaa-11bb-cccc-dd22-eeeeee333333"));
    }

    #[test]
    fn refusals_of_odd_shape() {
        let described = refused(
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired. Trace ID: t Correlation ID: c Timestamp: x"}"#,
        );
        assert_eq!(described.codes, [7_000_222], "read off the description");
        assert_eq!((described.trace_id.as_deref(), described.correlation_id.as_deref()), (Some("t"), Some("c")));
        assert_eq!(refused(400, r#"{"error_codes":["700016",1.0,null,-3]}"#).codes, [700_016, 1]);

        let with_200 = refused(200, r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired."}"#);
        assert_eq!((with_200.error.as_deref(), &with_200.codes[..]), (Some("invalid_client"), &[7_000_222][..]));
        for (status, body) in [
            (429, "Too Many Requests"),
            (200, "<html>please sign in</html>"),
            (502, "<html>Bad Gateway</html>"),
            (503, ""),
            (403, "[1]"),
            (200, "\"text\""),
        ] {
            let refusal = refused(status, body);
            assert!(!refusal.json && refusal.codes.is_empty() && refusal.description.is_none(), "{body}");
        }
        let echo = refused(400, r#"{"error":"invalid_client","error_description":"no hunter2 Trace ID: hunter2"}"#);
        assert!(!format!("{echo:?}").contains("hunter2"), "{echo:?}");
        assert_eq!(echo.description.as_deref(), Some("no [redacted]"));
        let long = refused(400, &format!(r#"{{"error":"{}\u0007","error_codes":7}}"#, "ü".repeat(5000)));
        assert_eq!(long.error.unwrap().chars().count(), LONGEST_QUOTE);
    }
}
