//! The flow of Microsoft's page of 2019: who signs in has consented, and the token that comes of it says for which tenant
//! ("Get started with Office 365 Management APIs", "Request access tokens from Azure AD").
//!
//! Its `id_token` may be unsigned, so that the tenant is read from the access token. That is sound for one reason alone: it
//! came over TLS from the authority's own endpoint, for a code, a verifier and a proof of the app that nobody else has.
//!
//! **Invariant:** nothing that a browser brought is read here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::id_token::{PERSONAL_ACCOUNTS, SignedIn, Untrusted};
use crate::content::TenantId;
use crate::secret::Secret;

/// How far clocks may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// What a token must be for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) client_id: &'a str,
    pub(super) audience: &'a str,
    pub(super) now: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    appid: String,
    tid: Option<String>,
    exp: i64,
    #[serde(default)]
    upn: Option<String>,
}

/// Whose administrator has signed in.
pub(super) fn read(token: Option<&Secret>, expected: &Expected<'_>) -> Result<SignedIn, Untrusted> {
    let part = token.and_then(|token| token.expose().split('.').nth(1)).ok_or(Untrusted::Malformed)?;
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|_| Untrusted::Malformed)?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|_| Untrusted::Malformed)?;
    let bare = |audience: &str| audience.trim_end_matches('/').to_owned();
    if bare(&claims.aud) != bare(expected.audience) || claims.appid != expected.client_id {
        return Err(Untrusted::Audience);
    }
    if claims.exp.saturating_add(LEEWAY.as_secs()) < expected.now.as_second() {
        return Err(Untrusted::Time);
    }
    let tenant: TenantId = claims.tid.and_then(|tid| tid.parse().ok()).ok_or(Untrusted::NoTenant)?;
    if tenant.uuid() == PERSONAL_ACCOUNTS {
        return Err(Untrusted::Personal);
    }
    Ok(SignedIn { tenant, account: claims.upn })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";

    fn judged(claims: &Value) -> Result<SignedIn, Untrusted> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = Secret::from(format!("{}.{}.x", part(&json!({"alg": "RS256"})), part(claims)));
        let now = Timestamp::from_second(1_000).unwrap();
        read(Some(&token), &Expected { client_id: "app", audience: "https://manage.office.com", now })
    }

    #[test]
    fn the_authoritys_own_token_says_whose_it_is() {
        let sound =
            json!({"aud": "https://manage.office.com/", "appid": "app", "tid": TENANT, "exp": 900, "upn": "a@b"});
        assert_eq!(judged(&sound), Ok(SignedIn { tenant: TENANT.parse().unwrap(), account: Some("a@b".to_owned()) }));
        for (name, value, expected) in [
            ("aud", json!("https://graph.microsoft.com"), Untrusted::Audience),
            ("appid", json!("another"), Untrusted::Audience),
            ("tid", json!("contoso.example"), Untrusted::NoTenant),
            ("tid", json!("9188040d-6c67-4c5b-b112-36a304b66dad"), Untrusted::Personal),
            ("exp", json!(600), Untrusted::Time),
            ("exp", json!("x"), Untrusted::Malformed),
        ] {
            let mut claims = sound.clone();
            claims[name] = value;
            assert_eq!(judged(&claims), Err(expected), "{claims}");
        }
        let now = Timestamp::UNIX_EPOCH;
        let expected = Expected { client_id: "app", audience: "x", now };
        for wrong in ["", "opaque", "a.b.c", "a.e30.c"] {
            assert_eq!(read(Some(&wrong.to_owned().into()), &expected), Err(Untrusted::Malformed), "{wrong}");
        }
        assert_eq!(read(None, &expected), Err(Untrusted::Malformed));
    }
}
