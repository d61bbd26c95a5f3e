//! Tokens of others in place of an assertion, and the identities of machines.

use serde_json::{Value, json};
use tenantry_simulator::{
    App, Cloud, Effect, Endpoint, ErrorBody, Fault, Federated, Issuer, Jwk, ManagedIdentity, Scenario, TOKEN_EXCHANGE,
    Tenant,
};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::browser::{get, part};
use crate::client::*;

const ISSUER: &str = "https://kubernetes.example/cluster";
const SUBJECT: &str = "system:serviceaccount:audit:tenantry";
const IDENTITY: Uuid = Uuid::from_u128(0x1d);
const OBJECT: Uuid = Uuid::from_u128(0x0b);
const HOME: Uuid = Uuid::from_u128(0x40e);

fn jwk(identity: &Identity, kid: &str) -> Jwk {
    let (_, certificate) = X509Certificate::from_der(&identity.der).unwrap();
    match certificate.public_key().parsed().unwrap() {
        PublicKey::RSA(public) => Jwk::rsa(kid, public.modulus, public.exponent),
        other => panic!("{other:?}"),
    }
}

fn ask(cloud: &Cloud, tenant: Uuid, assertion: &str) -> u64 {
    let app = APP.to_string();
    let fields = [
        ("client_id", app.as_str()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
        ("scope", "https://manage.office.com/.default"),
        ("grant_type", "client_credentials"),
    ];
    let answer = token_request(cloud, &format!("{tenant}/oauth2/v2.0/token"), &fields);
    if answer.status == 200 { 0 } else { answer.json()["error_codes"][0].as_u64().unwrap() }
}

#[test]
fn an_app_takes_the_tokens_of_whom_it_trusts() {
    let (cluster, stranger) = (Identity::new(30), Identity::new(30));
    let scenario = Scenario::new(1)
        .app(App::new(APP).federated(Federated::new(ISSUER, SUBJECT)))
        .issuer(Issuer { issuer: ISSUER.to_owned(), keys: vec![jwk(&cluster, "k1")] })
        .tenant(Tenant::new(TENANT, "Contoso"))
        .tenant(Tenant::new(OTHER, "Fabrikam"));
    let cloud = Cloud::start(scenario).unwrap();
    let now = cloud.ledger().at.as_second();
    let sound = || {
        let claims = json!({ "iss": ISSUER, "sub": SUBJECT, "aud": [TOKEN_EXCHANGE], "iat": now, "exp": now + 3600 });
        (json!({ "alg": "RS256", "kid": "k1" }), claims)
    };
    let code = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut header, mut claims) = sound();
        change(&mut header, &mut claims);
        ask(&cloud, TENANT, &cluster.sign(&header, &claims))
    };
    assert_eq!(code(&|_, _| ()), 0);
    let (header, claims) = sound();
    assert_eq!(ask(&cloud, OTHER, &cluster.sign(&header, &claims)), 0, "at every tenant");
    assert_eq!(ask(&cloud, TENANT, &stranger.sign(&header, &claims)), 50013, "signed by somebody else");
    assert_eq!(code(&|_, c| c["iss"] = json!("https://kubernetes.example/other")), 700_211);
    assert_eq!(code(&|_, c| c["iss"] = json!("https://Kubernetes.example/cluster")), 7_002_137);
    assert_eq!(code(&|_, c| c["aud"] = json!("api://other")), 700_212);
    assert_eq!(code(&|_, c| c["sub"] = json!("system:serviceaccount:audit:other")), 700_213);
    assert_eq!(code(&|_, c| c["sub"] = json!(SUBJECT.to_uppercase())), 7_002_138);
    assert_eq!(code(&|_, c| c["exp"] = json!(now - 301)), 700_024);
    assert_eq!(code(&|h, _| h["kid"] = json!("k2")), 50013);
    assert_eq!(code(&|h, _| h["alg"] = json!("PS256")), 50013, "only RS256");
    cloud.control().set_app(App::new(APP));
    assert_eq!(code(&|_, _| ()), 70021, "nobody is trusted");
    let requests = cloud.ledger().token_requests;
    assert!(requests.iter().all(|request| request.credential == "federated"), "{requests:?}");
}

fn machine() -> Cloud {
    let identity = ManagedIdentity {
        tenant: HOME,
        client_id: IDENTITY,
        object_id: OBJECT,
        resource_id: "/subscriptions/1/identities/tenantry".to_owned(),
    };
    let scenario = Scenario::new(1)
        .app(App::new(APP))
        .managed_identity(identity)
        .tenant(Tenant::new(TENANT, "Contoso"))
        .tenant(Tenant::new(HOME, "Home"));
    let cloud = Cloud::start(scenario).unwrap();
    let issuer = format!("{}/{HOME}/v2.0", cloud.authority_url());
    cloud.control().set_app(App::new(APP).federated(Federated::new(&issuer, &OBJECT.to_string())));
    cloud
}

fn instance(cloud: &Cloud, query: &str, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}/metadata/identity/oauth2/token?{query}", cloud.authority_url());
    send("GET", &url, headers, &[]).unwrap()
}

#[test]
fn a_machine_gets_the_tokens_of_its_identity() {
    let cloud = machine();
    let exchange = format!("resource={}", encoded(TOKEN_EXCHANGE));
    let version = "api-version=2018-02-01";
    let metadata = [("Metadata", "true")];
    let answer = instance(&cloud, &format!("{version}&{exchange}&client_id={IDENTITY}"), &metadata);
    let body = answer.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!("86399")));
    assert_eq!((&body["refresh_token"], &body["resource"]), (&json!(""), &json!(TOKEN_EXCHANGE)));
    assert!(body["expires_on"].is_string() && body["not_before"].is_string());
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(part(token, 1)["sub"], json!(OBJECT));
    assert_eq!(ask(&cloud, TENANT, token), 0, "the app trusts it");
    cloud.control().set_app(App::new(APP));
    assert_eq!(ask(&cloud, TENANT, token), 70021);

    let refused = |query: &str, headers: &[(&str, &str)]| {
        let answer = instance(&cloud, query, headers);
        assert_eq!(answer.status, 400);
        answer.json()["error"].as_str().unwrap().to_owned()
    };
    let whole = format!("{version}&{exchange}");
    assert_eq!(refused(&whole, &[]), "bad_request_102");
    assert_eq!(refused(&whole, &[("Metadata", "true"), ("X-Forwarded-For", "192.0.2.1")]), "bad_request");
    assert_eq!(refused(&exchange, &metadata), "bad_request_100");
    assert_eq!(refused(version, &metadata), "invalid_request");
    assert_eq!(refused(&format!("{whole}&client_id={APP}"), &metadata), "invalid_request");
    assert_eq!(refused(&format!("{version}&resource=https%3A%2F%2Fnowhere.example"), &metadata), "invalid_resource");

    // A token for a resource is one of the identity's own tenant.
    let own = instance(&cloud, &format!("{version}&resource=https://manage.office.com&object_id={OBJECT}"), &metadata);
    let client =
        Client { url: cloud.url(), tenant: HOME, token: own.json()["access_token"].as_str().unwrap().to_owned() };
    assert_eq!(client.get(&format!("{}/subscriptions/list", client.root())).status, 200);
    let gone = Effect::Status { status: 410, body: ErrorBody::Json, retry_after_s: None };
    cloud.control().add_fault(Fault::new(gone).on([Endpoint::ManagedIdentity]).first(1));
    assert_eq!([1, 2].map(|_| instance(&cloud, &whole, &metadata).status), [410, 200]);
    assert!(cloud.ledger().violations.is_empty(), "{:?}", cloud.ledger().violations);
}

#[test]
fn an_app_service_gets_them_in_its_own_way() {
    let cloud = machine();
    let whole = format!("resource={}&api-version=2019-08-01&principal_id={OBJECT}", encoded(TOKEN_EXCHANGE));
    let url = format!("{}/msi/token?{whole}", cloud.authority_url());
    assert_eq!(get(&url).status, 401);
    let body = send("GET", &url, &[("X-IDENTITY-HEADER", "simulated")], &[]).unwrap().json();
    assert!(body["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > cloud.ledger().at.as_second());
    assert!(body["expires_in"].is_null());
    assert_eq!(body["client_id"], json!(IDENTITY));
    assert_eq!(ask(&cloud, TENANT, body["access_token"].as_str().unwrap()), 0);
    let older = url.replace("2019-08-01", "2017-09-01");
    assert_eq!(send("GET", &older, &[("X-IDENTITY-HEADER", "simulated")], &[]).unwrap().status, 400);
}
