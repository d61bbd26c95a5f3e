//! `id_token`s, sound and forged.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::{Keyring, SigningKey};
use super::people::{Account, personal};
use super::registration::Registration;
use crate::scenario::{CONSUMERS, Forgery};

/// Role template of global administrators.
const GLOBAL_ADMINISTRATOR: &str = "62e90394-69f5-4237-9190-012177145e10";
/// Role template that everybody has.
const USER: &str = "b79fbf4d-3ef9-4689-8143-76b194e85509";

/// Entra dates a token five minutes back and lets it live for an hour from now.
const BACKDATED_S: i64 = 300;
const LIFETIME_S: i64 = 3600;

/// What an `id_token` says.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    pub(super) account: &'a Account,
    pub(super) client: Uuid,
    pub(super) app: &'a Registration,
    pub(super) nonce: Option<&'a str>,
    pub(super) version: u8,
    /// The authority's base address.
    pub(super) authority: &'a str,
    pub(super) now: i64,
    /// Whether to name administrator roles.
    pub(super) wids: bool,
    /// Whether to sign.
    pub(super) signed: bool,
}

/// Makes an `id_token`.
pub(super) fn write(keys: &Keyring, statement: &Statement<'_>, forgery: Option<Forgery>) -> String {
    let personal = personal();
    let statement = match forgery {
        Some(Forgery::Personal) => Statement { account: &personal, ..*statement },
        Some(Forgery::Version1) => Statement { version: 1, ..*statement },
        _ => *statement,
    };
    let mut claims = statement.claims();
    if let Some(forgery) = forgery {
        spoil(&mut claims, forgery, &statement);
    }
    let current = keys.current();
    let own = if statement.account.tenant == CONSUMERS { keys.consumers() } else { &*current };
    let stranger = || keys.stranger();
    let head = |key: &SigningKey| header("RS256", &key.kid);
    match forgery {
        Some(Forgery::HmacClientId) => by_hmac(&own.kid, &claims, statement.client.to_string().as_bytes()),
        Some(Forgery::HmacSecret) => {
            let secret = statement.app.secrets.first().map(|secret| secret.value.clone()).unwrap_or_default();
            by_hmac(&own.kid, &claims, secret.as_bytes())
        }
        Some(Forgery::HmacPublicKey) => by_hmac(&own.kid, &claims, own.pem().as_bytes()),
        Some(Forgery::Unsigned) => format!("{}.", joined(&header("none", &own.kid), &claims)),
        Some(Forgery::UnsignedButSealed) => sealed(&header("none", &own.kid), &claims, own),
        Some(Forgery::UnknownKey) => sealed(&head(stranger()), &claims, stranger()),
        Some(Forgery::WrongKey) => sealed(&head(own), &claims, stranger()),
        Some(Forgery::CarriedKey) => {
            let mut head = head(stranger());
            head["jwk"] = json!({ "kty": "RSA", "kid": stranger().kid, "n": stranger().jwk.n, "e": stranger().jwk.e });
            head["jku"] = json!(format!("{}/common/discovery/v2.0/keys", statement.authority));
            sealed(&head, &claims, stranger())
        }
        Some(Forgery::ConsumerKey) => sealed(&head(keys.consumers()), &claims, keys.consumers()),
        Some(Forgery::Tampered) => {
            let sound = sealed(&head(own), &claims, own);
            claims["oid"] = json!(Uuid::from_u128(1));
            let seal = sound.rsplit('.').next().unwrap_or_default();
            format!("{}.{seal}", joined(&head(own), &claims))
        }
        _ if statement.signed => sealed(&head(own), &claims, own),
        _ => format!("{}.", joined(&json!({ "typ": "JWT", "alg": "none" }), &claims)),
    }
}

/// A token signed with RS256.
pub(super) fn sealed(header: &Value, claims: &Value, key: &SigningKey) -> String {
    let signed = joined(header, claims);
    format!("{signed}.{}", key.sign(&signed))
}

/// The header of a token.
pub(super) fn header(algorithm: &str, kid: &str) -> Value {
    json!({ "typ": "JWT", "alg": algorithm, "kid": kid })
}

fn by_hmac(kid: &str, claims: &Value, key: &[u8]) -> String {
    let signed = joined(&header("HS256", kid), claims);
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(code))
}

fn joined(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

impl Statement<'_> {
    fn claims(&self) -> Value {
        let account = self.account;
        let tenant = account.tenant;
        let from = self.now - BACKDATED_S;
        let mut claims = json!({
            "aud": self.client,
            "iat": from,
            "nbf": from,
            "exp": self.now + LIFETIME_S,
            "name": account.name,
            "oid": account.object_id(),
            "sub": account.subject(self.client),
            "tid": tenant,
            "uti": URL_SAFE_NO_PAD.encode(Uuid::new_v4()),
        });
        if self.version == 1 {
            claims["iss"] = json!(format!("https://sts.windows.net/{tenant}/"));
            claims["ver"] = json!("1.0");
            claims["amr"] = json!(["pwd"]);
            claims["unique_name"] = json!(account.upn);
            claims["upn"] = json!(account.upn);
        } else {
            claims["iss"] = json!(format!("{}/{tenant}/v2.0", self.authority));
            claims["ver"] = json!("2.0");
            claims["preferred_username"] = json!(account.upn);
        }
        if let Some(nonce) = self.nonce {
            claims["nonce"] = json!(nonce);
        }
        if self.wids && tenant != CONSUMERS {
            claims["wids"] = if account.admin { json!([GLOBAL_ADMINISTRATOR, USER]) } else { json!([USER]) };
        }
        claims
    }
}

/// Makes claims wrong.
fn spoil(claims: &mut Value, forgery: Forgery, statement: &Statement<'_>) {
    let other = Uuid::from_u128(0xbad);
    let mut remove = |name: &str| _ = claims.as_object_mut().and_then(|all| all.remove(name));
    match forgery {
        Forgery::Nonce => claims["nonce"] = json!("another"),
        Forgery::NoNonce => remove("nonce"),
        Forgery::Audience => claims["aud"] = json!(other),
        Forgery::Audiences => claims["aud"] = json!([statement.client, other]),
        Forgery::Expired => shift(claims, -2 * LIFETIME_S),
        Forgery::NotYetValid => shift(claims, LIFETIME_S + BACKDATED_S),
        Forgery::Issuer => {
            let tenant = statement.account.tenant.to_string();
            let issuer = claims["iss"].as_str().unwrap_or_default().replace(&tenant, &other.to_string());
            claims["iss"] = json!(issuer);
        }
        Forgery::ForeignHost => {
            claims["iss"] = json!(format!("https://login.attacker.example/{}/v2.0", statement.account.tenant));
        }
        Forgery::NoTenant => remove("tid"),
        Forgery::TenantTemplate => {
            claims["tid"] = json!("{tenantid}");
            claims["iss"] = json!(format!("{}/{{tenantid}}/v2.0", statement.authority));
        }
        Forgery::Long(kib) => claims["padding"] = json!("x".repeat(kib as usize * 1024)),
        _ => {}
    }
}

fn shift(claims: &mut Value, seconds: i64) {
    for name in ["iat", "nbf", "exp"] {
        claims[name] = json!(claims[name].as_i64().unwrap_or_default() + seconds);
    }
}
