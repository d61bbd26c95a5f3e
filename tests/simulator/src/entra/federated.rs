//! Tokens of others that an app takes in place of its own assertion (workload identity federation).
//!
//! Entra compares issuer, subject and audience with the app's federated credentials to the letter, and takes RS256 only.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::assertion::{decoded, within_times};
use super::machine::EXCHANGE_ID;
use super::refusal::Refusal;
use crate::scenario::{Federated, Jwk, TOKEN_EXCHANGE};

/// Whether an assertion is somebody else's: its issuer has an address, while an app goes by its id.
pub(super) fn is_foreign(assertion: &str) -> bool {
    let claims = assertion.split('.').nth(1).and_then(decoded);
    claims.is_some_and(|claims| claims["iss"].as_str().is_some_and(|issuer| issuer.contains("://")))
}

/// Checks somebody else's token; `keys` are those of an issuer, if it is known.
pub(super) fn check(
    assertion: &str,
    trusted: &[Federated],
    keys: impl FnOnce(&str) -> Option<Vec<Jwk>>,
    now: i64,
    leeway: i64,
) -> Result<(), Refusal> {
    let malformed = || Refusal::with(50027, "JWT token is invalid or malformed.");
    let parts: Vec<&str> = assertion.split('.').collect();
    let [head, payload, signature] = parts[..] else { return Err(malformed()) };
    let header = decoded(head).ok_or_else(malformed)?;
    let claims = decoded(payload).ok_or_else(malformed)?;
    matching(&claims, trusted)?;
    let unverified =
        |reason: &str| Refusal::with(50013, format!("Assertion failed signature validation. [Reason - {reason}.]"));
    if header["alg"] != "RS256" {
        return Err(unverified("The algorithm is not supported"));
    }
    let known = keys(claims["iss"].as_str().unwrap_or_default()).unwrap_or_default();
    let key = known.iter().find(|key| header["kid"] == key.kid).ok_or_else(|| unverified("The key was not found"))?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
    let public = RsaPublicKeyComponents { n: bytes(&key.n)?, e: bytes(&key.e)? };
    let signed = &assertion[..head.len() + 1 + payload.len()];
    public
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &bytes(signature)?)
        .map_err(|_| unverified("The signature is wrong"))?;
    within_times(&claims, now, leeway)
}

/// Whether one of the app's credentials names issuer, subject and audience, and if not, which of them none names.
fn matching(claims: &Value, trusted: &[Federated]) -> Result<(), Refusal> {
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    let (issuer, subject) = (text("iss"), text("sub"));
    let refuse = |code: u32, part: &str, value: &str| {
        Refusal::with(
            code,
            format!(
                "No matching federated identity record found for presented assertion {part} '{value}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
            ),
        )
    };
    if trusted.is_empty() {
        return Err(refuse(70021, "issuer", issuer));
    }
    let of_issuer: Vec<_> = trusted.iter().filter(|credential| credential.issuer == issuer).collect();
    if of_issuer.is_empty() {
        let but_for_case = trusted.iter().any(|credential| credential.issuer.eq_ignore_ascii_case(issuer));
        return Err(refuse(if but_for_case { 7_002_137 } else { 700_211 }, "issuer", issuer));
    }
    let of_subject: Vec<_> = of_issuer.iter().filter(|credential| credential.subject == subject).collect();
    if of_subject.is_empty() {
        let but_for_case = of_issuer.iter().any(|credential| credential.subject.eq_ignore_ascii_case(subject));
        return Err(refuse(if but_for_case { 7_002_138 } else { 700_213 }, "subject", subject));
    }
    let audience = match &claims["aud"] {
        Value::Array(list) if list.len() == 1 => list[0].as_str().unwrap_or_default(),
        other => other.as_str().unwrap_or_default(),
    };
    // A managed identity's token names the exchange by its application id.
    let audience = if audience == EXCHANGE_ID { TOKEN_EXCHANGE } else { audience };
    if of_subject.iter().any(|credential| credential.audience == audience) {
        Ok(())
    } else {
        Err(refuse(700_212, "audience", audience))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_which_part_nothing_matches() {
        let trusted = [Federated::new("https://issuer.example/a", "system:me")];
        let code = |issuer: &str, subject: &str, audience: &str| {
            let claims = json!({ "iss": issuer, "sub": subject, "aud": audience });
            matching(&claims, &trusted).err().map_or(0, |refusal| refusal.code)
        };
        let issuer = "https://issuer.example/a";
        assert_eq!(code(issuer, "system:me", TOKEN_EXCHANGE), 0);
        assert_eq!(code(issuer, "system:me", EXCHANGE_ID), 0);
        assert_eq!(code("https://issuer.example/b", "system:me", TOKEN_EXCHANGE), 700_211);
        assert_eq!(code("https://Issuer.example/a", "system:me", TOKEN_EXCHANGE), 7_002_137);
        assert_eq!(code(issuer, "system:you", TOKEN_EXCHANGE), 700_213);
        assert_eq!(code(issuer, "System:me", TOKEN_EXCHANGE), 7_002_138);
        assert_eq!(code(issuer, "system:me", "api://other"), 700_212);
        assert_eq!(matching(&json!({ "iss": issuer }), &[]).unwrap_err().code, 70021);
    }
}
