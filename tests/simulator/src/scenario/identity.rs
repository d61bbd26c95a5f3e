//! Who signs in, what an app may be consented to, what is trusted in place of a secret, and how sign-in goes wrong.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tenant of all personal accounts, which belongs to no customer.
pub const CONSUMERS: Uuid = Uuid::from_u128(0x9188_040d_6c67_4c5b_b112_36a3_04b6_6dad);

/// A personal account; every cloud has it.
pub const PERSONAL_ACCOUNT: &str = "someone@personal.example";

/// The audience of a federated credential in the public cloud.
pub const TOKEN_EXCHANGE: &str = "api://AzureADTokenExchange";

/// Somebody who can sign in to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// User principal name: `name@domain`.
    pub upn: String,
    /// Display name.
    pub name: String,
    /// Whether this is an administrator, who may consent for everybody.
    #[serde(default)]
    pub admin: bool,
}

impl Person {
    /// An administrator.
    #[must_use]
    pub fn admin(upn: &str) -> Self {
        Self { upn: upn.to_owned(), name: named(upn), admin: true }
    }

    /// Somebody who is none.
    #[must_use]
    pub fn user(upn: &str) -> Self {
        Self { admin: false, ..Self::admin(upn) }
    }
}

fn named(upn: &str) -> String {
    upn.split('@').next().unwrap_or_default().to_owned()
}

/// A federated identity credential of an app: whose tokens it takes in place of its own assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federated {
    /// `iss` of the token, to the letter.
    pub issuer: String,
    /// `sub` of the token, to the letter.
    pub subject: String,
    /// `aud` of the token, to the letter.
    #[serde(default = "token_exchange")]
    pub audience: String,
}

impl Federated {
    /// A credential for [`TOKEN_EXCHANGE`].
    #[must_use]
    pub fn new(issuer: &str, subject: &str) -> Self {
        Self { issuer: issuer.to_owned(), subject: subject.to_owned(), audience: token_exchange() }
    }
}

fn token_exchange() -> String {
    TOKEN_EXCHANGE.to_owned()
}

/// Somebody else who issues tokens, with the keys that Entra would find in its metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// Its public keys.
    pub keys: Vec<Jwk>,
}

/// A public RSA key as JSON Web Key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Name of the key.
    pub kid: String,
    /// Modulus in base64url.
    pub n: String,
    /// Exponent in base64url.
    pub e: String,
}

impl Jwk {
    /// A key from its numbers, big-endian.
    #[must_use]
    pub fn rsa(kid: &str, modulus: &[u8], exponent: &[u8]) -> Self {
        let number = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[zeros..])
        };
        Self { kid: kid.to_owned(), n: number(modulus), e: number(exponent) }
    }
}

/// A managed identity, whose tokens this machine can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedIdentity {
    /// Its tenant; need not be one of the scenario's.
    pub tenant: Uuid,
    /// Client id.
    pub client_id: Uuid,
    /// Object (principal) id: the subject of its tokens.
    pub object_id: Uuid,
    /// Azure resource id.
    #[serde(default)]
    pub resource_id: String,
}

/// How a refused or cancelled admin consent comes back to the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentError {
    /// As seen: `access_denied`, `admin_consent=True` all the same, no `tenant`.
    #[default]
    Seen,
    /// As documented for the v2 endpoint: `consent_required`, with `tenant`.
    Documented,
    /// As seen elsewhere: `access_denied`, without a description.
    Bare,
}

/// How a consent shows before the directory has replicated it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// One after the other, a third of the time each.
    #[default]
    InStages,
    /// The app is unknown (AADSTS700016).
    UnknownApp,
    /// The tenant has no service principal of it (AADSTS7000229).
    NoPrincipal,
    /// There is a token without roles, which the Activity API refuses (AF10001).
    NoRoles,
}

/// What is wrong with an `id_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgery {
    /// HS256 with the client id as key.
    HmacClientId,
    /// HS256 with the app's first client secret as key.
    HmacSecret,
    /// HS256 with the signing key's public half (PEM) as key, under its name.
    HmacPublicKey,
    /// `alg: none`, no signature.
    Unsigned,
    /// `alg: none` with the signature of the sound token.
    UnsignedButSealed,
    /// Signed by a key that is published nowhere, under its own name.
    UnknownKey,
    /// Signed by that key under the name of the published one.
    WrongKey,
    /// Signed by that key, which the header carries along (`jwk`, `jku`).
    CarriedKey,
    /// A work account's token, signed by the key of the personal accounts.
    ConsumerKey,
    /// Claims changed after signing.
    Tampered,
    /// Another `nonce` than the one asked for.
    Nonce,
    /// No `nonce`.
    NoNonce,
    /// For another client.
    Audience,
    /// For this client and another one.
    Audiences,
    /// Ran out an hour ago.
    Expired,
    /// Valid in an hour.
    NotYetValid,
    /// `iss` is another tenant's, `tid` this one's.
    Issuer,
    /// `iss` is this tenant at another host.
    ForeignHost,
    /// A token as the v1 endpoint makes it.
    Version1,
    /// No `tid`.
    NoTenant,
    /// `tid` is `{tenantid}` and `iss` the template of the metadata, to the letter.
    TenantTemplate,
    /// A sound token of a personal account, whoever signed in.
    Personal,
    /// So many KiB of a claim that nobody knows.
    Long(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_no_leading_zeros() {
        assert_eq!(Jwk::rsa("k", &[0, 0xff], &[1, 0, 1]), Jwk { kid: "k".into(), n: "_w".into(), e: "AQAB".into() });
    }
}
