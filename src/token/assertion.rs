//! The client assertion: a short-lived JWT by which an app proves that it holds a registered certificate's key
//! ("Microsoft identity platform application authentication certificate credentials").
//!
//! Header: `typ` JWT, `alg` PS256 with `x5t#S256`, or RS256 with `x5t`. Claims: `iss` = `sub` = the client id, `aud` =
//! the very address it is sent to, so that it is good nowhere else, a fresh `jti`, and whole seconds for the times.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use url::Url;
use uuid::Uuid;

use super::{Certificate, Signing};
use crate::secret::Secret;

/// How long an assertion is good for. The page above allows five to ten minutes; each is used once, at once.
pub const LIFE: Duration = Duration::from_mins(10);

/// An assertion could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the client assertion cannot be signed with the certificate `{subject}`")]
pub struct AssertionError {
    subject: String,
    source: jsonwebtoken::errors::Error,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Signs an assertion for `audience`, good from `now` on.
pub fn sign(
    certificate: &Certificate,
    signing: Signing,
    client_id: &str,
    audience: &Url,
    now: Timestamp,
) -> Result<Secret, AssertionError> {
    let mut header = Header::new(match signing {
        Signing::Ps256 => Algorithm::PS256,
        Signing::Rs256 => Algorithm::RS256,
    });
    match signing {
        Signing::Ps256 => header.x5t_s256 = Some(certificate.x5t_s256().to_owned()),
        Signing::Rs256 => header.x5t = Some(certificate.x5t().to_owned()),
    }
    let now = now.as_second();
    let claims = Claims {
        aud: audience.as_str(),
        iss: client_id,
        sub: client_id,
        jti: Uuid::new_v4(),
        iat: now,
        nbf: now,
        exp: now.saturating_add_unsigned(LIFE.as_secs()),
    };
    jsonwebtoken::encode(&header, &claims, certificate.key())
        .map(Secret::from)
        .map_err(|source| AssertionError { subject: certificate.subject().to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::{Value, json};

    use super::*;
    use crate::token::testing;

    fn part(assertion: &Secret, index: usize) -> Value {
        let text = assertion.expose().split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn an_assertion_as_entra_wants_it() {
        let pair = testing::pair("CN=assertions");
        let certificate = Certificate::from_pem(pair.certificate.as_bytes(), Some(pair.key.as_bytes())).unwrap();
        let audience = Url::parse("https://login.microsoftonline.com/tid/oauth2/v2.0/token").unwrap();
        let now = "2026-11-22T12:00:00.75Z".parse().unwrap();
        for (signing, algorithm, header) in [
            (
                Signing::Ps256,
                Algorithm::PS256,
                json!({"typ": "JWT", "alg": "PS256", "x5t#S256": certificate.x5t_s256()}),
            ),
            (Signing::Rs256, Algorithm::RS256, json!({"typ": "JWT", "alg": "RS256", "x5t": certificate.x5t()})),
        ] {
            let assertion = sign(&certificate, signing, "client", &audience, now).unwrap();
            assert_eq!(part(&assertion, 0), header, "nothing but this in the header");
            let mut claims: BTreeMap<String, Value> = serde_json::from_value(part(&assertion, 1)).unwrap();
            let jti = claims.remove("jti").unwrap();
            assert_eq!(Uuid::try_parse(jti.as_str().unwrap()).unwrap().get_version_num(), 4);
            let expected = json!({
                "aud": "https://login.microsoftonline.com/tid/oauth2/v2.0/token", "iss": "client", "sub": "client",
                "iat": 1_795_348_800, "nbf": 1_795_348_800, "exp": 1_795_349_400,
            });
            assert_eq!(serde_json::to_value(&claims).unwrap(), expected, "whole seconds, ten minutes");

            let public = DecodingKey::from_rsa_pem(pair.public.as_bytes()).unwrap();
            let mut validation = Validation::new(algorithm);
            validation.validate_exp = false;
            validation.set_audience(&[audience.as_str()]);
            jsonwebtoken::decode::<Value>(assertion.expose(), &public, &validation).unwrap();

            let again = sign(&certificate, signing, "client", &audience, now).unwrap();
            assert_ne!(part(&again, 1)["jti"], jti, "a fresh `jti` every time");
        }
    }
}
