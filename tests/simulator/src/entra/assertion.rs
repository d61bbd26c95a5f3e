//! Checks client assertions the way Entra does.
//!
//! Accepted, because shipping Microsoft libraries send them: times as integers, floats or strings; thumbprints padded,
//! unpadded or in the standard alphabet; a missing `nbf` or `iat`; `x5c` in any form; a repeated `jti`.
//! Refused: a wrong audience, tenant, issuer or subject; times out of range; an unregistered or expired certificate; a
//! bad signature; an algorithm the app does not take.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::refusal::Refusal;
use super::registration::{Certificate, Registration};
use crate::blob::hex;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// What an assertion is checked against.
pub(crate) struct Expectation<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) app: &'a Registration,
    /// Accepted values of `aud`.
    pub(crate) audiences: &'a [String],
    /// The service's time in Unix seconds.
    pub(crate) now: i64,
    pub(crate) leeway: i64,
}

/// An accepted assertion.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) algorithm: String,
    /// `aud` as sent; empty if it was a list.
    pub(crate) audience: String,
    pub(crate) jti: Option<String>,
    /// Seconds from the first to the last moment of validity, if both are given.
    pub(crate) lifetime: Option<i64>,
}

/// Checks an assertion.
pub(crate) fn check(assertion: &str, expected: &Expectation<'_>) -> Result<Accepted, Refusal> {
    let malformed = || Refusal::with(50027, "JWT token is invalid or malformed.");
    let parts: Vec<&str> = assertion.split('.').collect();
    let [head, payload, signature] = parts[..] else {
        return Err(malformed());
    };
    let header: Value = decoded(head).ok_or_else(malformed)?;
    let claims: Value = decoded(payload).ok_or_else(malformed)?;
    let algorithm = header["alg"].as_str().unwrap_or_default();
    let verification: &'static dyn VerificationAlgorithm = match algorithm {
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        other => {
            return Err(Refusal::with(
                50027,
                format!("JWT token is invalid or malformed. The algorithm '{other}' is not supported."),
            ));
        }
    };
    if !expected.app.algorithms.iter().any(|a| a == algorithm) {
        return Err(Refusal::with(
            50027,
            format!(
                "JWT token is invalid or malformed. The algorithm '{algorithm}' is not accepted for this application."
            ),
        ));
    }
    let certificate = certificate(&header, expected)?;
    let signature = URL.decode(signature).map_err(|_| malformed())?;
    let signed = &assertion[..head.len() + 1 + payload.len()];
    if UnparsedPublicKey::new(verification, &certificate.public_key).verify(signed.as_bytes(), &signature).is_err() {
        return Err(not_accepted("Client assertion contains an invalid signature", &certificate.sha1, expected));
    }
    check_claims(&claims, expected)?;
    let not_before = number(&claims["nbf"]).or_else(|| number(&claims["iat"]));
    let lifetime = not_before.and_then(|from| number(&claims["exp"]).map(|to| to - from));
    let text = |name: &str| claims[name].as_str().map(str::to_owned);
    Ok(Accepted {
        algorithm: algorithm.to_owned(),
        audience: text("aud").unwrap_or_default(),
        jti: text("jti"),
        lifetime,
    })
}

fn certificate<'a>(header: &Value, expected: &Expectation<'a>) -> Result<&'a Certificate, Refusal> {
    let thumbprint =
        |name: &str| header[name].as_str().and_then(|t| URL.decode(t).or_else(|_| STANDARD.decode(t)).ok());
    let (found, named) = match (thumbprint("x5t#S256"), thumbprint("x5t")) {
        (Some(sha256), _) => (expected.app.certificates.iter().find(|c| c.sha256 == sha256), sha256),
        (None, Some(sha1)) => (expected.app.certificates.iter().find(|c| c.sha1 == sha1), sha1),
        (None, None) => {
            return Err(Refusal::with(
                50027,
                "JWT token is invalid or malformed. The header has no certificate thumbprint.",
            ));
        }
    };
    let certificate = found.ok_or_else(|| not_accepted("The key was not found.", &named, expected))?;
    if certificate.not_after < expected.now {
        return Err(not_accepted("The key used is expired.", &named, expected));
    }
    Ok(certificate)
}

fn not_accepted(reason: &str, thumbprint: &[u8], expected: &Expectation<'_>) -> Refusal {
    let found = if expected.app.certificates.is_empty() {
        ", Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app"
    } else {
        ""
    };
    let text = format!(
        "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {reason}, Thumbprint of key used by client: '{}'{found} Id '{}'.",
        hex(thumbprint).to_uppercase(),
        expected.client_id
    );
    Refusal::with(700_027, text)
}

fn check_claims(claims: &Value, expected: &Expectation<'_>) -> Result<(), Refusal> {
    let audience_fits = match &claims["aud"] {
        Value::String(aud) => expected.audiences.iter().any(|a| a.eq_ignore_ascii_case(aud)),
        Value::Array(list) => {
            list.len() == 1
                && list[0].as_str().is_some_and(|aud| expected.audiences.iter().any(|a| a.eq_ignore_ascii_case(aud)))
        }
        _ => false,
    };
    if !audience_fits {
        return Err(Refusal::with(
            700_023,
            format!(
                "Client assertion audience claim does not match Realm issuer. Audience in the assertion: {}",
                claims["aud"]
            ),
        ));
    }
    for name in ["iss", "sub"] {
        if !claims[name].as_str().is_some_and(|id| id.eq_ignore_ascii_case(expected.client_id)) {
            return Err(Refusal::with(
                700_021,
                format!(
                    "Client assertion application identifier doesn't match 'client_id' parameter. Claim '{name}': {}",
                    claims[name]
                ),
            ));
        }
    }
    within_times(claims, expected.now, expected.leeway)
}

/// Whether a token is valid now.
pub(super) fn within_times(claims: &Value, now: i64, leeway: i64) -> Result<(), Refusal> {
    // A missing nbf counts as 0, as the texts of real refusals show.
    let from = number(&claims["nbf"]).unwrap_or(0);
    let Some(until) = number(&claims["exp"]) else {
        return Err(Refusal::with(50027, "JWT token is invalid or malformed. It has no expiry."));
    };
    if now + leeway < from || now - leeway >= until {
        let time = |seconds: i64| {
            jiff::Timestamp::from_second(seconds)
                .map_or_else(|_| seconds.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string())
        };
        return Err(Refusal::with(
            700_024,
            format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of assertion {}.",
                time(now),
                time(from),
                time(until)
            ),
        ));
    }
    Ok(())
}

/// A part of a token.
pub(super) fn decoded(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL.decode(part).ok()?).ok()
}

/// A `NumericDate` as integer, float or string.
fn number(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a time in seconds")]
    let whole = |seconds: f64| seconds as i64;
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(whole)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse().ok().map(whole)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_dates_come_in_three_forms() {
        assert_eq!(number(&serde_json::json!(17)), Some(17));
        assert_eq!(number(&serde_json::json!(17.9)), Some(17));
        assert_eq!(number(&serde_json::json!("17")), Some(17));
        assert_eq!(number(&serde_json::json!("17.5")), Some(17));
        assert_eq!(number(&Value::Null), None);
    }

    #[test]
    fn thumbprints_come_in_three_forms() {
        for form in ["-_8", "-_8=", "+/8", "+/8="] {
            let bytes = URL.decode(form).or_else(|_| STANDARD.decode(form)).unwrap();
            assert_eq!(bytes, [0xfb, 0xff], "{form}");
        }
    }
}
