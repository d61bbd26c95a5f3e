//! Access tokens: they look like Entra's, are opaque to clients and carry a code that only this cloud can make.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Claims of an access token (v1 format, as the Management APIs take).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    pub(crate) iss: String,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
    pub(crate) appid: String,
    /// `1` for a secret, `2` for a certificate.
    pub(crate) appidacr: String,
    pub(crate) oid: Uuid,
    /// Absent if no role is granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) roles: Vec<String>,
    /// Delegated permissions, in a token for somebody who has signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scp: Option<String>,
    pub(crate) tid: Uuid,
    /// The tenant's generation of tokens; an earlier one is revoked.
    pub(crate) uti: u64,
    pub(crate) ver: String,
}

/// Makes a token.
pub(crate) fn write(claims: &Claims, key: &hmac::Key) -> String {
    // Strings and numbers always serialize.
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
    let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256","kid":"simulated"}"#));
    let code = hmac::sign(key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(code.as_ref()))
}

/// Reads a token; `None` if this cloud did not make it. Times and revocation are the caller's business.
pub(crate) fn read(token: &str, key: &hmac::Key) -> Option<Claims> {
    let (signed, code) = token.rsplit_once('.')?;
    hmac::verify(key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(code).ok()?).ok()?;
    let (_, payload) = signed.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_tokens_are_read() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        let claims = Claims {
            aud: "https://manage.office.com".to_owned(),
            iss: "i".to_owned(),
            iat: 1,
            nbf: 1,
            exp: 2,
            appid: "a".to_owned(),
            appidacr: "2".to_owned(),
            oid: Uuid::from_u128(1),
            roles: Vec::new(),
            scp: None,
            tid: Uuid::from_u128(2),
            uti: 0,
            ver: "1.0".to_owned(),
        };
        let token = write(&claims, &key);
        assert_eq!(read(&token, &key), Some(claims));
        assert_eq!(read(&token, &hmac::Key::new(hmac::HMAC_SHA256, b"other")), None);
        assert_eq!(read(&format!("{token}x"), &key), None);
        assert_eq!(read("", &key), None);
    }
}
