//! The token endpoint.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tenantry_simulator::{App, Cloud, Effect, Endpoint, Fault, Scenario, Tenant};
use uuid::Uuid;

use crate::client::*;

const SCOPE: &str = "https://manage.office.com/.default";

struct Setting {
    cloud: Cloud,
    identity: Identity,
    now: i64,
}

impl Setting {
    fn new() -> Self {
        let identity = Identity::new(30);
        let app = App::new(APP).certificate(identity.der.clone()).secret(SECRET).expired_secret("old");
        let cloud =
            Cloud::start(Scenario::new(1).app(app).tenant(Tenant::new(TENANT, "Contoso").domain("contoso.example")))
                .unwrap();
        let now = cloud.ledger().at.as_second();
        Self { cloud, identity, now }
    }

    fn header(&self) -> Value {
        let thumbprint = digest::digest(&digest::SHA256, &self.identity.der);
        json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint) })
    }

    fn claims(&self) -> Value {
        claims(&format!("{}/{TENANT}/oauth2/v2.0/token", self.cloud.url()), self.now)
    }

    fn ask(&self, assertion: &str) -> Answer {
        let fields = [
            ("client_id", APP.to_string()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
            ("client_assertion", assertion.to_owned()),
            ("scope", SCOPE.to_owned()),
            ("grant_type", "client_credentials".to_owned()),
        ];
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        token_request(&self.cloud, &format!("{TENANT}/oauth2/v2.0/token"), &fields)
    }

    /// The AADSTS code of the answer to an assertion changed by `change`; 0 if it was accepted.
    fn code(&self, change: impl FnOnce(&mut Value, &mut Value)) -> u64 {
        let (mut header, mut claims) = (self.header(), self.claims());
        change(&mut header, &mut claims);
        aadsts(&self.ask(&self.identity.sign(&header, &claims)))
    }
}

fn aadsts(answer: &Answer) -> u64 {
    if answer.status == 200 {
        assert!(answer.json()["access_token"].is_string());
        return 0;
    }
    let body = answer.json();
    let code = body["error_codes"][0].as_u64().expect("a code");
    let description = body["error_description"].as_str().unwrap();
    assert!(
        description.starts_with(&format!("AADSTS{code}: ")) && description.contains("\r\nCorrelation ID: "),
        "{description}"
    );
    code
}

#[test]
fn an_assertion_in_any_form_that_microsofts_libraries_send_is_accepted() {
    let setting = Setting::new();
    let now = setting.now;
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &setting.identity.der);
    let sha256 = digest::digest(&digest::SHA256, &setting.identity.der);
    assert_eq!(setting.code(|_, _| ()), 0, "our own form");
    assert_eq!(setting.code(|h, _| h["x5t#S256"] = json!(URL_SAFE.encode(sha256))), 0, "padded");
    assert_eq!(setting.code(|h, _| h["x5t#S256"] = json!(STANDARD.encode(sha256))), 0, "standard alphabet");
    assert_eq!(setting.code(|h, _| *h = json!({ "alg": "RS256", "x5t": URL_SAFE_NO_PAD.encode(sha1) })), 0, "RS256");
    assert_eq!(setting.code(|h, _| *h = json!({ "alg": "RS256", "x5t": STANDARD.encode(sha1) })), 0, "RS256, standard");
    assert_eq!(
        setting.code(|_, c| {
            c["exp"] = serde_json::from_str(&format!("{}.5", now + 600)).unwrap();
            c.as_object_mut().unwrap().remove("nbf");
        }),
        0,
        "MSAL Python"
    );
    assert_eq!(
        setting.code(|_, c| {
            c["exp"] = json!((now + 600).to_string());
            c["nbf"] = json!(now.to_string());
            c.as_object_mut().unwrap().remove("iat");
        }),
        0,
        "MSAL.NET"
    );
    assert_eq!(setting.code(|h, _| h["x5c"] = json!("MII\r\nB")), 0, "x5c as text");
    assert_eq!(setting.code(|h, _| h["x5c"] = json!(["MIIB"])), 0, "x5c as list");
    for audience in [
        format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"),
        format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        format!("https://login.windows.net/{TENANT}/oauth2/token"),
    ] {
        assert_eq!(setting.code(|_, c| c["aud"] = json!(audience)), 0, "{audience}");
    }
    let strange = setting.cloud.ledger().warnings;
    assert!(strange.len() == 3 && strange.iter().all(|w| w.what.contains(", sent to ")), "{strange:?}");
    let again = setting.identity.sign(&setting.header(), &setting.claims());
    assert_eq!((aadsts(&setting.ask(&again)), aadsts(&setting.ask(&again))), (0, 0), "a jti used again");
    let ledger = setting.cloud.ledger();
    assert_eq!(ledger.warnings.iter().filter(|w| w.what.contains("was used again")).count(), 1);
    assert!(
        ledger.token_requests.iter().any(|t| t.credential == "RS256")
            && ledger.token_requests.iter().all(|t| t.refused.is_none())
    );
}

#[test]
fn a_wrong_assertion_is_refused_with_entras_code() {
    let setting = Setting::new();
    let now = setting.now;
    assert_eq!(setting.code(|_, c| c["aud"] = json!("https://login.example/x")), 700_023);
    assert_eq!(
        setting.code(|_, c| c["aud"] = json!(format!("{}/{OTHER}/oauth2/v2.0/token", setting.cloud.url()))),
        700_023
    );
    assert_eq!(setting.code(|_, c| c["iss"] = json!(OTHER)), 700_021);
    assert_eq!(setting.code(|_, c| c["sub"] = json!(OTHER)), 700_021);
    assert_eq!(setting.code(|_, c| c["exp"] = json!(now - 301)), 700_024);
    assert_eq!(setting.code(|_, c| c["nbf"] = json!(now + 320)), 700_024);
    assert_eq!(setting.code(|_, c| c["exp"] = Value::Null), 50027);
    assert_eq!(setting.code(|h, _| h["x5t#S256"] = json!(URL_SAFE_NO_PAD.encode([7; 32]))), 700_027);
    assert_eq!(setting.code(|h, _| h["alg"] = json!("HS256")), 50027);
    assert_eq!(setting.code(|h, _| h["alg"] = json!("none")), 50027);
    let stranger = Identity::new(30).sign(&setting.header(), &setting.claims());
    assert_eq!(aadsts(&setting.ask(&stranger)), 700_027, "signed by another key");
    let good = setting.identity.sign(&setting.header(), &setting.claims());
    let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
    parts[1] = URL_SAFE_NO_PAD.encode(claims("https://login.microsoftonline.com", now).to_string());
    assert_eq!(aadsts(&setting.ask(&parts.join("."))), 700_027, "tampered");
    assert_eq!(aadsts(&setting.ask("not.a-jwt")), 50027);
    let text = setting.ask(&stranger).json()["error_description"].as_str().unwrap().to_owned();
    assert!(text.contains("Thumbprint of key used by client: '"), "{text}");
}

#[test]
fn an_expired_certificate_and_a_revoked_one_are_refused() {
    let mut setting = Setting::new();
    let expired = Identity::new(-1);
    setting
        .cloud
        .control()
        .set_app(App::new(APP).certificate(expired.der.clone()).certificate(setting.identity.der.clone()));
    assert_eq!(setting.code(|_, _| ()), 0);
    setting.cloud.control().revoke_certificates(APP);
    assert_eq!(setting.code(|_, _| ()), 700_027);
    setting.cloud.control().set_app(App::new(APP).certificate(expired.der.clone()));
    setting.identity = expired;
    let answer = setting.ask(&setting.identity.sign(&setting.header(), &setting.claims()));
    assert_eq!(aadsts(&answer), 700_027);
    assert!(answer.json()["error_description"].as_str().unwrap().contains("The key used is expired"));
}

#[test]
fn secrets_work_in_the_form_and_in_the_header() {
    let setting = Setting::new();
    let ask = |secret: &str| aadsts(&token_by_secret(&setting.cloud, TENANT, secret, SCOPE));
    assert_eq!(ask(SECRET), 0);
    assert_eq!(ask("wrong"), 7_000_215);
    assert_eq!(ask("old"), 7_000_222);
    assert_eq!(ask(""), 7_000_218);
    let basic = format!("Basic {}", STANDARD.encode(format!("{APP}:{}", encoded(SECRET))));
    let body = form(&[("scope", SCOPE), ("grant_type", "client_credentials")]);
    let url = format!("{}/{TENANT}/oauth2/v2.0/token", setting.cloud.url());
    assert_eq!(aadsts(&send("POST", &url, &[("Authorization", &basic)], body.as_bytes()).unwrap()), 0);
}

#[test]
fn v2_answers_with_numbers_and_v1_with_strings() {
    let setting = Setting::new();
    setting.cloud.control().set_token_lifetime(Duration::from_secs(4242), Some(Duration::from_secs(2121)));
    let v2 = token_by_secret(&setting.cloud, TENANT, SECRET, SCOPE).json();
    assert_eq!((&v2["expires_in"], &v2["refresh_in"]), (&json!(4242), &json!(2121)));
    let id = APP.to_string();
    let fields = [
        ("client_id", id.as_str()),
        ("client_secret", SECRET),
        ("resource", "https://manage.office.com"),
        ("grant_type", "client_credentials"),
    ];
    let v1 = token_request(&setting.cloud, &format!("{TENANT}/oauth2/token"), &fields).json();
    assert_eq!((&v1["expires_in"], &v1["resource"]), (&json!("4242"), &json!("https://manage.office.com")));
    assert!(v1["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > setting.now);
    assert!(v1["refresh_in"].is_null());
    // Each endpoint wants its own parameter.
    let path = format!("{TENANT}/oauth2/v2.0/token");
    assert_eq!(aadsts(&token_request(&setting.cloud, &path, &fields)), 901_002);
    assert_eq!(
        aadsts(&token_request(&setting.cloud, &format!("{TENANT}/oauth2/token"), &[fields[0], fields[1], fields[3]])),
        900_144
    );
    assert_eq!(aadsts(&token_request(&setting.cloud, "contoso.example/oauth2/token", &fields)), 0, "by domain");
}

#[test]
fn scopes_tenants_and_apps_are_checked() {
    let setting = Setting::new();
    let ask = |tenant: &str, client: &str, scope: &str| {
        let fields =
            [("client_id", client), ("client_secret", SECRET), ("scope", scope), ("grant_type", "client_credentials")];
        aadsts(&token_request(&setting.cloud, &format!("{tenant}/oauth2/v2.0/token"), &fields))
    };
    let (tenant, app) = (TENANT.to_string(), APP.to_string());
    assert_eq!(ask(&tenant, &app, "https://manage.office.com/ActivityFeed.Read"), 1_002_012);
    assert_eq!(ask(&tenant, &app, "https://manage.office.com/.default https://graph.microsoft.com/.default"), 70011);
    assert_eq!(ask(&tenant, &app, "https://nowhere.example/.default"), 500_011);
    assert_eq!(ask(&tenant, &app, ""), 900_144);
    assert_eq!(ask(&OTHER.to_string(), &app, SCOPE), 90002);
    assert_eq!(ask("nonsense", &app, SCOPE), 900_023);
    assert_eq!(ask("unknown.example", &app, SCOPE), 90002);
    assert_eq!(ask("common", &app, SCOPE), 9_001_023);
    assert_eq!(ask(&tenant, &OTHER.to_string(), SCOPE), 700_016);
    assert_eq!(ask(&tenant, &app, &format!("{}/.default", setting.cloud.url())), 0, "its own address is a resource");
    let fields = [("client_id", app.as_str()), ("client_secret", SECRET), ("scope", SCOPE), ("grant_type", "password")];
    assert_eq!(aadsts(&token_request(&setting.cloud, &format!("{TENANT}/oauth2/v2.0/token"), &fields)), 70003);
}

#[test]
fn consent_decides_about_roles() {
    let cloud =
        Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").without_consent()).tenant(Tenant::new(OTHER, "D")))
            .unwrap();
    let list = |client: &Client| client.get(&format!("{}/subscriptions/list", client.root()));
    assert_eq!(aadsts(&token_by_secret(&cloud, TENANT, SECRET, SCOPE)), 7_000_229);
    cloud.control().grant(TENANT, APP, &[]);
    let without = Client::new(&cloud, TENANT);
    let answer = list(&without);
    assert_eq!((answer.status, answer.code().as_str()), (401, "AF10001"));
    assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with("The permission set () sent"));
    cloud.control().grant(TENANT, APP, &["ActivityFeed.Read"]);
    assert_eq!(list(&without).status, 401, "the old token has no role");
    let with = Client::new(&cloud, TENANT);
    assert_eq!(list(&with).status, 200);
    let dlp = with.list(tenantry_simulator::ContentType::Dlp, "");
    assert_eq!((dlp.status, dlp.code().as_str()), (401, "AF10001"), "DLP wants a role of its own");
    cloud.control().withdraw_consent(OTHER, APP);
    assert_eq!(aadsts(&token_by_secret(&cloud, OTHER, SECRET, SCOPE)), 7_000_229);
}

#[test]
fn every_code_can_be_had_on_demand() {
    let setting = Setting::new();
    for (code, status) in
        [(50196, 400), (53003, 400), (90033, 503), (90055, 429), (700_016, 400), (7_000_112, 400), (500_011, 400)]
    {
        let fault = setting
            .cloud
            .control()
            .add_fault(Fault::new(Effect::Entra { code, retry_after_s: Some(7) }).on([Endpoint::Token]));
        let answer = token_by_secret(&setting.cloud, TENANT, SECRET, SCOPE);
        assert_eq!((aadsts(&answer), answer.status), (u64::from(code), status));
        assert_eq!(answer.header("retry-after"), Some("7"));
        setting.cloud.control().remove_fault(fault);
    }
    let ledger = setting.cloud.ledger();
    assert_eq!(ledger.token_requests[0].refused, Some(50196));
    assert_eq!(ledger.token_requests[0].audience, "https://manage.office.com");
    assert_eq!(ledger.requests(TENANT, Endpoint::Token), 7);
}

#[test]
fn metadata_names_the_host_that_the_client_knows() {
    let setting = Setting::new();
    let url = format!("{}/{TENANT}/v2.0/.well-known/openid-configuration", setting.cloud.url());
    let own = send("GET", &url, &[], &[]).unwrap().json();
    assert_eq!(own["token_endpoint"], format!("{}/{TENANT}/oauth2/v2.0/token", setting.cloud.url()));
    let rewired = send("GET", &url, &[("Host", "login.microsoftonline.com")], &[]).unwrap().json();
    assert_eq!(rewired["token_endpoint"], format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"));
    assert_eq!(rewired["issuer"], format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    let unknown = url.replace(&TENANT.to_string(), &Uuid::from_u128(3).to_string());
    assert_eq!(aadsts(&send("GET", &unknown, &[], &[]).unwrap()), 90002);
}
