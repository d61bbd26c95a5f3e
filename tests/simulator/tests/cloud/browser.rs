//! What a browser does at Entra's pages, without one.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::collections::BTreeMap;
use tenantry_simulator::{App, Cloud, Person, Scenario, Tenant};

use crate::client::*;

pub(crate) const BACK: &str = "https://collector.example/consent/callback/public";
pub(crate) const ADMIN: &str = "admin@contoso.example";
pub(crate) const USER: &str = "user@contoso.example";
pub(crate) const OTHER_ADMIN: &str = "admin@fabrikam.example";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// Two tenants that have not consented, and an app that people can be sent back to.
pub(crate) fn two_tenants() -> Scenario {
    Scenario::new(1)
        .app(App::new(APP).name("Collector").secret(SECRET).redirect_uri(BACK))
        .tenant(
            Tenant::new(TENANT, "Contoso")
                .domain("contoso.example")
                .person(Person::admin(ADMIN))
                .person(Person::user(USER))
                .without_consent(),
        )
        .tenant(Tenant::new(OTHER, "Fabrikam").domain("fabrikam.example").without_consent())
}

/// Joins parameters; a later one replaces an earlier one of the same name, and an empty one leaves it out.
pub(crate) fn query(parameters: &[(&str, &str)]) -> String {
    let last: BTreeMap<_, _> = parameters.iter().copied().collect();
    let kept: Vec<_> = last.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    form(&kept)
}

/// A sign-in at the v2 endpoint, with some parameters changed.
pub(crate) fn sign_in(cloud: &Cloud, directory: &str, changed: &[(&str, &str)]) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()));
    let app = APP.to_string();
    let mut parameters = vec![
        ("client_id", app.as_str()),
        ("response_type", "code"),
        ("redirect_uri", BACK),
        ("scope", "openid profile"),
        ("state", "s & t"),
        ("nonce", "n0nce"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    parameters.extend_from_slice(changed);
    format!("{}/{directory}/oauth2/v2.0/authorize?{}", cloud.authority_url(), query(&parameters))
}

pub(crate) fn get(url: &str) -> Answer {
    send("GET", url, &[], &[]).expect("an answer")
}

/// Clicks: posts what an element of the page posts.
pub(crate) fn click(url: &str, fields: &[(&str, &str)]) -> Answer {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    send("POST", url, &headers, form(fields).as_bytes()).expect("an answer")
}

/// Where a browser is sent back to, and with what.
pub(crate) fn back(answer: &Answer) -> BTreeMap<String, String> {
    let location = answer.header("location").unwrap_or_else(|| panic!("{} {}", answer.status, text(answer)));
    assert_eq!(answer.status, 302);
    let (to, query) = location.split_once('?').expect("a query");
    assert_eq!(to, BACK);
    fields(query)
}

pub(crate) fn fields(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').expect("a pair"));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("hexadecimal")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).expect("UTF-8")
}

pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The number after AADSTS on a page that is a dead end; 0 on any other.
pub(crate) fn code_on(answer: &Answer) -> u32 {
    let page = text(answer);
    let code = page.split("data-code=\"").nth(1).and_then(|rest| rest.split('"').next());
    code.map_or(0, |code| {
        assert!(answer.status == 400 && page.contains(&format!("AADSTS{code}: ")), "{page}");
        code.parse().expect("a number")
    })
}

/// Redeems a code at the v2 endpoint, with some fields changed.
pub(crate) fn redeem(cloud: &Cloud, directory: &str, code: &str, changed: &[(&str, &str)]) -> Answer {
    let app = APP.to_string();
    let mut fields = vec![
        ("client_id", app.as_str()),
        ("client_secret", SECRET),
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];
    fields.extend_from_slice(changed);
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    token_request(cloud, &format!("{directory}/oauth2/v2.0/token"), &fields)
}

/// Signs somebody in and returns the `id_token`.
pub(crate) fn id_token(cloud: &Cloud, person: &str) -> String {
    let code = back(&click(&sign_in(cloud, "organizations", &[]), &[("account", person)]))["code"].clone();
    let answer = redeem(cloud, "organizations", &code, &[]);
    answer.json()["id_token"].as_str().unwrap_or_else(|| panic!("{}", text(&answer))).to_owned()
}

/// A part of a token.
pub(crate) fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// The published key that a token names and that has signed it.
pub(crate) fn key_of(cloud: &Cloud, token: &str) -> Option<Value> {
    let keys = get(&format!("{}/organizations/discovery/v2.0/keys", cloud.authority_url())).json();
    let header = part(token, 0);
    let key = keys["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?.clone();
    let number = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let (signed, signature) = token.rsplit_once('.')?;
    let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).is_ok().then_some(key)
}
