//! Tokens as Microsoft signs them, and as an attacker would like them to be believed.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::*;

const CLIENT: &str = "aaaaaaaa-1111-2222-3333-444444444444";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "22222222-2222-3333-4444-555555555555";
const PERSONAL: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const NOW: i64 = 1_795_348_800;

static CLOUD_KEY: LazyLock<Pair> = LazyLock::new(Pair::new);
static PERSONAL_KEY: LazyLock<Pair> = LazyLock::new(Pair::new);
static FOREIGN_KEY: LazyLock<Pair> = LazyLock::new(Pair::new);

/// Both in PEM.
struct Pair {
    key: String,
    public: String,
}

impl Pair {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        Self { key: key.serialize_pem(), public: key.public_key_pem() }
    }
}

fn components(pair: &Pair) -> (String, String) {
    use rsa::pkcs8::DecodePublicKey as _;
    use rsa::traits::PublicKeyParts as _;
    let key = rsa::RsaPublicKey::from_public_key_pem(&pair.public).unwrap();
    (URL_SAFE_NO_PAD.encode(key.n().to_bytes_be()), URL_SAFE_NO_PAD.encode(key.e().to_bytes_be()))
}

fn published() -> Value {
    let key = |kid: &str, pair: &Pair, issuer: &str| {
        let (n, e) = components(pair);
        json!({"kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e, "issuer": issuer})
    };
    json!({"keys": [
        key("cloud", &CLOUD_KEY, "https://login.microsoftonline.com/{tenantid}/v2.0"),
        key("personal", &PERSONAL_KEY, &format!("https://login.microsoftonline.com/{PERSONAL}/v2.0")),
        {"kty": "EC", "kid": "curve", "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB", "issuer": "x"},
        {"kty": "RSA", "use": "enc", "kid": "wrapping", "n": "AQAB", "e": "AQAB", "issuer": "x"},
    ]})
}

fn keys() -> SigningKeys {
    SigningKeys::read(published().to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({
        "aud": CLIENT, "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "tid": TENANT, "ver": "2.0",
        "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "nonce": "the-nonce", "sub": "s", "oid": "o",
        "preferred_username": "admin@contoso.example",
    })
}

fn signed(kid: &str, pair: &Pair, claims: &Value) -> Secret {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
    let key = EncodingKey::from_rsa_pem(pair.key.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, claims, &key).unwrap().into()
}

fn judged(token: &Secret) -> Result<SignedIn, Untrusted> {
    let cloud = Cloud::preset("worldwide").unwrap();
    let nonce = Secret::from("the-nonce".to_owned());
    let now = Timestamp::from_second(NOW + 10).unwrap();
    validate(token, &keys(), &Expected { cloud: &cloud, client_id: CLIENT, nonce: &nonce, now })
}

fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[test]
fn a_sound_token_says_whose_administrator_it_is() {
    let expected = SignedIn { tenant: TENANT.parse().unwrap(), account: Some("admin@contoso.example".to_owned()) };
    assert_eq!(judged(&signed("cloud", &CLOUD_KEY, &claims())), Ok(expected));
    for harmless in
        [json!({"nbf": null}), json!({"nbf": NOW + 290}), json!({"exp": NOW - 280}), json!({"nbf": NOW - 9999})]
    {
        assert!(judged(&signed("cloud", &CLOUD_KEY, &with(&harmless))).is_ok(), "{harmless}");
    }
}

#[test]
fn each_claim_that_is_not_what_it_must_be_is_refused_by_name() {
    let of = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    for (change, expected) in [
        (json!({"aud": OTHER}), Untrusted::Audience),
        (json!({"aud": [CLIENT]}), Untrusted::Malformed),
        (json!({"aud": null}), Untrusted::Malformed),
        (json!({"ver": "1.0"}), Untrusted::Version),
        (json!({"ver": null}), Untrusted::Version),
        (json!({"tid": null}), Untrusted::NoTenant),
        (json!({"tid": "contoso.example"}), Untrusted::NoTenant),
        (json!({"tid": "{tenantid}", "iss": of("{tenantid}")}), Untrusted::NoTenant),
        (json!({"tid": PERSONAL, "iss": of(PERSONAL)}), Untrusted::Personal),
        (json!({"tid": OTHER}), Untrusted::Issuer),
        (json!({"iss": of(OTHER)}), Untrusted::Issuer),
        (json!({"iss": format!("https://sts.windows.net/{TENANT}/")}), Untrusted::Issuer),
        (
            json!({"iss": format!("https://login.microsoftonline.com.attacker.example/{TENANT}/v2.0")}),
            Untrusted::Issuer,
        ),
        (json!({"iss": format!("{}/", of(TENANT))}), Untrusted::Issuer),
        (json!({"exp": NOW - 300}), Untrusted::Time),
        (json!({"exp": null}), Untrusted::Malformed),
        (json!({"exp": "soon"}), Untrusted::Malformed),
        (json!({"nbf": NOW + 320}), Untrusted::Time),
        (json!({"nonce": "another"}), Untrusted::Nonce),
        (json!({"nonce": ""}), Untrusted::Nonce),
        (json!({"nonce": null}), Untrusted::Nonce),
    ] {
        assert_eq!(judged(&signed("cloud", &CLOUD_KEY, &with(&change))), Err(expected), "{change}");
    }
}

#[test]
fn only_a_key_of_the_cloud_that_may_speak_for_the_tenant_is_believed() {
    assert_eq!(judged(&signed("cloud", &FOREIGN_KEY, &claims())), Err(Untrusted::Signature));
    assert_eq!(judged(&signed("foreign", &FOREIGN_KEY, &claims())), Err(Untrusted::UnknownKey));
    assert_eq!(judged(&signed("personal", &PERSONAL_KEY, &claims())), Err(Untrusted::KeyIssuer));
    for unusable in ["curve", "broken", "wrapping"] {
        assert_eq!(judged(&signed(unusable, &CLOUD_KEY, &claims())), Err(Untrusted::UnknownKey), "{unusable}");
    }
    let nameless = jsonwebtoken::encode(
        &Header::new(Algorithm::RS256),
        &claims(),
        &EncodingKey::from_rsa_pem(CLOUD_KEY.key.as_bytes()).unwrap(),
    );
    assert_eq!(judged(&nameless.unwrap().into()), Err(Untrusted::NoKey));
}

#[test]
fn nothing_but_rs256_is_a_signature() {
    // With the public key as a shared secret, which everybody knows.
    for secret in [CLOUD_KEY.public.as_bytes(), components(&CLOUD_KEY).0.as_bytes(), CLIENT.as_bytes()] {
        let header = Header { kid: Some("cloud".to_owned()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(judged(&token.into()), Err(Untrusted::Algorithm("HS256".to_owned())));
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for (algorithm, signature) in [("none", ""), ("None", ""), ("nOnE", "AAAA"), ("", "")] {
        let token = format!("{}.{}.{signature}", part(&json!({"alg": algorithm, "kid": "cloud"})), part(&claims()));
        assert_eq!(judged(&token.into()), Err(Untrusted::Algorithm(algorithm.to_owned())), "{algorithm}");
    }
    // A key in the header is not looked at.
    let (n, e) = components(&FOREIGN_KEY);
    let header = json!({"alg": "RS256", "kid": "cloud", "jku": "https://attacker.example/keys",
        "jwk": {"kty": "RSA", "n": n, "e": e}});
    let good = signed("cloud", &FOREIGN_KEY, &claims());
    let signature = good.expose().rsplit('.').next().unwrap();
    let token = format!("{}.{}.{signature}", part(&header), part(&claims()));
    assert_eq!(judged(&token.into()), Err(Untrusted::Signature));
}

#[test]
fn what_is_no_token_is_refused_whatever_it_is() {
    let good = signed("cloud", &CLOUD_KEY, &claims());
    for cut in (0..good.expose().len()).step_by(7) {
        assert!(judged(&good.expose()[..cut].to_owned().into()).is_err(), "{cut}");
    }
    for wrong in ["", ".", "..", "...", "a.b.c", "e30.e30.e30"] {
        assert_eq!(judged(&wrong.to_owned().into()), Err(Untrusted::Malformed), "{wrong}");
    }
    let long = with(&json!({"x": "y".repeat(LONGEST)}));
    assert_eq!(judged(&signed("cloud", &CLOUD_KEY, &long)), Err(Untrusted::Malformed));
}
