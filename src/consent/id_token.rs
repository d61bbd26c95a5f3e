//! Whether an `id_token` is Microsoft's word for whose administrator has signed in.
//!
//! The token came from the token endpoint over TLS, which alone would do (`OpenID` Connect Core 3.1.3.7, point 6). It is
//! checked all the same, as if it had come from anywhere, in this order: an RS256 signature (never `none`, never a shared
//! secret) by a key of the cloud's; that this key may speak for the tenant that the token names ("Validate the signing
//! key issuer"); issuer, audience, times, version; and the nonce of this very sign-in. What a header offers as a key or
//! as the address of one is not looked at.
//!
//! **Invariant:** a tenant id that leaves here was signed for. Nothing else that a browser brings is believed.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use uuid::{Uuid, uuid};

use crate::cloud::Cloud;
use crate::content::TenantId;
use crate::secret::Secret;

/// The tenant of personal Microsoft accounts, which have no audit log that anybody could consent for.
pub(super) const PERSONAL_ACCOUNTS: Uuid = uuid!("9188040d-6c67-4c5b-b112-36a304b66dad");
/// How far clocks may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);
/// Larger than any token by far; what is longer is not looked at.
const LONGEST: usize = 64 * 1024;
/// In a key's issuer, this stands for the tenant.
const ANY_TENANT: &str = "{tenantid}";

/// The keys of a cloud, by their ids.
#[derive(Debug, Default)]
pub(super) struct SigningKeys(HashMap<String, SigningKey>);

#[derive(Debug)]
struct SigningKey {
    key: DecodingKey,
    issuer: String,
}

/// As they are published.
#[derive(Deserialize)]
struct Published {
    keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    issuer: Option<String>,
}

impl SigningKeys {
    /// Reads a document of keys. Those of other kinds are left out, and so are those that do not say for whom they sign.
    pub(super) fn read(document: &[u8]) -> Result<Self, serde_json::Error> {
        let published: Published = serde_json::from_slice(document)?;
        let rsa = published
            .keys
            .into_iter()
            .filter(|key| key.kty == "RSA" && key.usage.as_deref().is_none_or(|usage| usage == "sig"));
        let keys = rsa.filter_map(|key| {
            let decoded = DecodingKey::from_rsa_components(&key.n?, &key.e?).ok()?;
            Some((key.kid?, SigningKey { key: decoded, issuer: key.issuer? }))
        });
        Ok(Self(keys.collect()))
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }
}

/// What a token must be for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) client_id: &'a str,
    /// Of this sign-in.
    pub(super) nonce: &'a Secret,
    /// The service's time.
    pub(super) now: Timestamp,
}

/// Who has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedIn {
    pub(super) tenant: TenantId,
    /// What the person is called, for people to read: Microsoft says that nothing may be decided by it.
    pub(super) account: Option<String>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    #[error("it is no signed token")]
    Malformed,
    #[error("it is signed with `{0}`, and only RS256 is believed")]
    Algorithm(String),
    #[error("it names no key")]
    NoKey,
    #[error("it is signed with a key that the cloud does not publish")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is for another app")]
    Audience,
    #[error("its version is not 2.0")]
    Version,
    #[error("it names no tenant")]
    NoTenant,
    #[error("it is for a personal account")]
    Personal,
    #[error("its issuer is not the tenant's that it names")]
    Issuer,
    #[error("the key that signed it may not speak for the tenant that it names")]
    KeyIssuer,
    #[error("it is outside its time")]
    Time,
    #[error("it belongs to another sign-in")]
    Nonce,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    #[serde(default)]
    tid: Option<String>,
    #[serde(default)]
    ver: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    preferred_username: Option<String>,
}

/// The id of the key that a token says it is signed with, if it is a token that could be believed.
pub(super) fn key_id(token: &Secret) -> Result<String, Untrusted> {
    if token.expose().len() > LONGEST {
        return Err(Untrusted::Malformed);
    }
    let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| unsigned(token))?;
    if header.alg != Algorithm::RS256 {
        return Err(Untrusted::Algorithm(format!("{:?}", header.alg)));
    }
    header.kid.ok_or(Untrusted::NoKey)
}

/// Whose administrator has signed in, by a token that is what is `expected`.
pub(super) fn validate(token: &Secret, keys: &SigningKeys, expected: &Expected<'_>) -> Result<SignedIn, Untrusted> {
    let id = key_id(token)?;
    let signer = keys.0.get(&id).ok_or(Untrusted::UnknownKey)?;
    // The library checks the signature; the claims are checked here, by the service's time and each by name.
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = match jsonwebtoken::decode::<Claims>(token.expose(), &signer.key, &validation) {
        Ok(decoded) => decoded.claims,
        Err(error) => {
            use jsonwebtoken::errors::ErrorKind;
            return Err(match error.kind() {
                ErrorKind::InvalidSignature => Untrusted::Signature,
                _ => Untrusted::Malformed,
            });
        }
    };
    if claims.aud != expected.client_id {
        return Err(Untrusted::Audience);
    }
    if claims.ver.as_deref() != Some("2.0") {
        return Err(Untrusted::Version);
    }
    let tenant: TenantId = claims.tid.and_then(|tid| tid.parse().ok()).ok_or(Untrusted::NoTenant)?;
    if tenant.uuid() == PERSONAL_ACCOUNTS {
        return Err(Untrusted::Personal);
    }
    if claims.iss != expected.cloud.issuer(&tenant.to_string()) {
        return Err(Untrusted::Issuer);
    }
    if signer.issuer.replace(ANY_TENANT, &tenant.to_string()) != claims.iss {
        return Err(Untrusted::KeyIssuer);
    }
    let (now, leeway) = (expected.now.as_second(), LEEWAY.as_secs());
    let has_ended = claims.exp.saturating_add(leeway) < now;
    let has_not_begun = claims.nbf.is_some_and(|begins| begins.saturating_sub(leeway) > now);
    if has_ended || has_not_begun {
        return Err(Untrusted::Time);
    }
    if !claims.nonce.is_some_and(|nonce| expected.nonce.is(&nonce)) {
        return Err(Untrusted::Nonce);
    }
    Ok(SignedIn { tenant, account: claims.preferred_username })
}

/// Why a header could not be read: what is not signed at all is called by its name.
fn unsigned(token: &Secret) -> Untrusted {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let header = token.expose().split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let algorithm = header.and_then(|header| {
        let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
        header.get("alg")?.as_str().map(|name| name.chars().take(20).collect())
    });
    algorithm.map_or(Untrusted::Malformed, Untrusted::Algorithm)
}

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod tests;
