//! Tokens from the simulated Entra: every credential, both endpoints, every refusal, every fault.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use tenantry::clock::{Clock as _, ServiceTime, SystemClock};
use tenantry::cloud::{Cloud, Management, TokenEndpoint};
use tenantry::http::{Http, Timeouts};
use tenantry::retry::Advice;
use tenantry::secret::Secret;
use tenantry::token::{AppAlarms, Certificate, Credential, Signing, TokenError, TokenRequest, TokenSource};
use tenantry_simulator::{
    App, BadJson, Effect, Endpoint, ErrorBody, Fault, Point, Scenario, Tenant, Throttle, ThrottleShape,
};
use uuid::Uuid;

const APP: Uuid = Uuid::from_u128(0xa609_9727_6b7b_482c_b509_1df3_09ac_c563);
const TENANT: Uuid = Uuid::from_u128(0x4146_3f53_8812_40f4_890f_865b_f6e3_5190);

/// A certificate that is registered with the app, and everything that a source needs.
struct Setup {
    simulator: tenantry_simulator::Cloud,
    certificate: Arc<Certificate>,
    pkcs12: Vec<u8>,
    cloud: Arc<Cloud>,
    http: Http,
    time: Arc<ServiceTime>,
}

/// What differs from one source to the next.
struct Asking {
    tenant: Uuid,
    endpoint: TokenEndpoint,
    client_id: String,
    credential: Credential,
}

fn setup(change: impl FnOnce(Scenario) -> Scenario) -> Setup {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "tenantry tests");
    let issued = params.self_signed(&key).unwrap();
    let certificate = Certificate::from_pem(issued.pem().as_bytes(), Some(key.serialize_pem().as_bytes())).unwrap();

    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(
        "id",
        PrivateKey::from_der(key.serialized_der()).unwrap(),
        [p12_keystore::Certificate::from_der(issued.der()).unwrap()],
    );
    store.add_entry("app", KeyStoreEntry::PrivateKeyChain(chain));

    let scenario = Scenario::new(11)
        .app(App::new(APP).certificate(certificate.der()).secret("s3cret"))
        .tenant(Tenant::new(TENANT, "Contoso"));
    let simulator = tenantry_simulator::Cloud::start(change(scenario)).unwrap();
    let url: url::Url = simulator.url().parse().unwrap();
    let cloud = Cloud {
        name: "simulated".to_owned(),
        authority: url.clone(),
        management: Some(Management { host: url.clone(), audience: "https://manage.office.com".to_owned() }),
        graph: url,
        graph_audience: "https://graph.microsoft.com".to_owned(),
    };
    let timeouts = Timeouts { stall: Duration::from_secs(2), total: Duration::from_secs(4), ..Timeouts::default() };
    Setup {
        simulator,
        certificate: Arc::new(certificate),
        pkcs12: store.writer("pässword").write().unwrap(),
        cloud: Arc::new(cloud),
        http: Http::direct(timeouts).unwrap(),
        time: Arc::new(ServiceTime::new(Arc::new(SystemClock))),
    }
}

impl Setup {
    fn certificates(&self, signing: Signing) -> Credential {
        Credential::certificates(vec![Arc::clone(&self.certificate)], signing).unwrap()
    }

    fn asking(&self) -> Asking {
        Asking {
            tenant: TENANT,
            endpoint: TokenEndpoint::V2,
            client_id: APP.to_string(),
            credential: self.certificates(Signing::Ps256),
        }
    }

    fn source(&self, asking: Asking) -> TokenSource {
        let request = TokenRequest {
            cloud: Arc::clone(&self.cloud),
            tenant: asking.tenant.into(),
            audience: self.cloud.audience().to_owned(),
            endpoint: asking.endpoint,
            app: String::new(),
            client_id: asking.client_id,
            credential: asking.credential,
            renew_after: Duration::from_mins(45),
        };
        let time = Arc::clone(&self.time);
        TokenSource::new(request, self.http.control.clone(), Arc::new(SystemClock), time, &AppAlarms::new())
    }

    async fn refusal(&self, asking: Asking) -> TokenError {
        self.source(asking).token().await.expect_err("it must be refused")
    }
}

fn secret(value: &str) -> Credential {
    Credential::Secret(Secret::from(value.to_owned()))
}

#[tokio::test]
async fn every_credential_at_both_endpoints() {
    let setup = setup(|scenario| scenario);
    let pkcs12 = Certificate::from_pkcs12(&setup.pkcs12, &Secret::from("pässword".to_owned())).unwrap();
    assert_eq!(pkcs12, *setup.certificate);
    let pkcs12 = Credential::certificates(vec![Arc::new(pkcs12)], Signing::Ps256).unwrap();
    let ways = [
        (TokenEndpoint::V2, setup.certificates(Signing::Ps256), (2, "PS256")),
        (TokenEndpoint::V2, setup.certificates(Signing::Rs256), (2, "RS256")),
        (TokenEndpoint::V1, setup.certificates(Signing::Rs256), (1, "RS256")),
        (TokenEndpoint::V1, setup.certificates(Signing::Ps256), (1, "PS256")),
        (TokenEndpoint::V2, secret("s3cret"), (2, "secret")),
        (TokenEndpoint::V1, secret("s3cret"), (1, "secret")),
        (TokenEndpoint::V2, pkcs12, (2, "PS256")),
    ];
    let expected: Vec<_> = ways.iter().map(|(.., seen)| *seen).collect();
    for (endpoint, credential, seen) in ways {
        let source = setup.source(Asking { endpoint, credential, ..setup.asking() });
        let token = source.token().await.unwrap_or_else(|error| panic!("{seen:?}: {}", error.trouble()));
        assert!(token.authorization().to_str().unwrap().starts_with("Bearer ey"));
        assert_eq!(token.valid_until() - token.issued(), Duration::from_secs(3599), "{seen:?}");
    }
    let ledger = setup.simulator.ledger();
    let seen: Vec<_> = ledger
        .token_requests
        .iter()
        .map(|request| {
            assert_eq!((request.refused, &request.client_id[..]), (None, &APP.to_string()[..]));
            assert_eq!((request.tenant, &request.audience[..]), (Some(TENANT), "https://manage.office.com"));
            (request.version, &request.credential[..])
        })
        .collect();
    assert_eq!(seen, expected);
    assert!(
        ledger.violations.is_empty() && ledger.warnings.is_empty(),
        "{:?} {:?}",
        ledger.violations,
        ledger.warnings
    );
}

#[tokio::test]
async fn the_service_decides_how_long_a_token_lives() {
    let setup = setup(|scenario| scenario.token_lifetime(Duration::from_hours(24)));
    setup.simulator.control().set_token_lifetime(Duration::from_hours(24), Some(Duration::from_mins(10)));
    let source = setup.source(setup.asking());
    let token = source.token().await.unwrap();
    assert_eq!(token.valid_until() - token.issued(), Duration::from_hours(24));
    let status = source.status();
    let life = status.valid_until.unwrap().duration_since(status.renews_at.unwrap());
    assert!(life >= SignedDuration::from_secs(85_790), "renewed when Entra suggests, after ten minutes: {life}");
}

#[tokio::test]
async fn what_entra_refuses_by_itself() {
    let setup = setup(|scenario| {
        let app = scenario.apps[0].client_id;
        let mut scenario = scenario.tenant(Tenant::new(Uuid::from_u128(2), "without consent").without_consent());
        scenario.apps[0] = App::new(app).secret("s3cret").expired_secret("0ld");
        scenario
    });
    let thumbprint = setup.certificate.sha1_hex().to_owned();
    let none = Uuid::from_u128(3);
    let without_consent = Uuid::from_u128(2);
    for (asking, kind, advice, words) in [
        (setup.asking(), "certificate_unknown", Advice::PauseApp, format!("SHA-1 thumbprint {thumbprint}")),
        (
            Asking { credential: secret("0ld"), ..setup.asking() },
            "secret_expired",
            Advice::PauseApp,
            "make a new secret".to_owned(),
        ),
        (
            Asking { credential: secret("wr0ng"), ..setup.asking() },
            "secret_invalid",
            Advice::PauseApp,
            "configure the secret's value, not its id".to_owned(),
        ),
        (
            Asking { credential: secret("s3cret"), tenant: none, ..setup.asking() },
            "tenant_unknown",
            Advice::PauseTenant,
            "check the tenant's `id` and its `cloud` (now `simulated`)".to_owned(),
        ),
        (
            Asking { credential: secret("s3cret"), client_id: none.to_string(), ..setup.asking() },
            "app_unknown",
            Advice::PauseTenant,
            "check the client id".to_owned(),
        ),
    ] {
        let error = setup.refusal(asking).await;
        let trouble = error.trouble();
        assert_eq!((error.kind(), error.advice()), (kind, advice), "{trouble}");
        assert!(trouble.needs_operator && trouble.remedy.contains(&words), "{trouble}");
        assert!(trouble.code.unwrap().starts_with("AADSTS"));
        let correlation = trouble.correlation_id.unwrap();
        Uuid::try_parse(&correlation).unwrap_or_else(|_| panic!("`{correlation}` is the request's id"));
    }
    let consent =
        setup.refusal(Asking { credential: secret("s3cret"), tenant: without_consent, ..setup.asking() }).await;
    assert!(matches!(consent.kind(), "consent_missing" | "app_unknown"), "{}", consent.trouble());
    assert!(
        consent.trouble().remedy.contains(&format!("{without_consent}/adminconsent?client_id={APP}")),
        "{}",
        consent.trouble()
    );
}

/// Code, label, whether it is the app's, a part of the remedy: the whole of the table.
#[rustfmt::skip]
const CODES: &[(u32, &str, bool, &str)] = &[
    (7_000_215, "secret_invalid", true, "the secret's value, not its id"),
    (7_000_222, "secret_expired", true, "make a new secret"),
    (700_027, "certificate_unknown", true, "upload the public certificate"),
    (50_012, "assertion_invalid", true, "upload the public certificate"),
    (700_030, "assertion_invalid", true, "upload the public certificate"),
    (700_024, "clock", true, "set this host's clock"),
    (50_027, "assertion_malformed", true, "`[clouds.*]`"),
    (50_013, "assertion_malformed", true, "`[clouds.*]`"),
    (700_021, "assertion_malformed", true, "`[clouds.*]`"),
    (700_023, "assertion_malformed", true, "`[clouds.*]`"),
    (7_000_218, "credential_missing", true, "proxy"),
    (7_000_216, "credential_missing", true, "proxy"),
    (650_051, "permission_invalid", true, "API permissions"),
    (650_056, "permissions_missing", true, "ActivityFeed.Read"),
    (50_194, "app_single_tenant", true, "AzureADMultipleOrgs"),
    (50_011, "redirect_uri", true, "Authentication"),
    (700_211, "federated_mismatch", true, "letter by letter"),
    (700_212, "federated_mismatch", true, "letter by letter"),
    (700_213, "federated_mismatch", true, "letter by letter"),
    (7_002_137, "federated_mismatch", true, "letter by letter"),
    (7_002_138, "federated_mismatch", true, "letter by letter"),
    (70_021, "federated_mismatch", true, "letter by letter"),
    (70_011, "scope_malformed", true, "`[clouds.*]`"),
    (1_002_012, "scope_malformed", true, "`[clouds.*]`"),
    (901_002, "scope_malformed", true, "`[clouds.*]`"),
    (50_049, "authority_unknown", true, "`[clouds.*]`"),
    (700_016, "app_unknown", false, "adminconsent?client_id="),
    (70_001, "app_unknown", false, "adminconsent?client_id="),
    (1_000_031, "app_unknown", false, "adminconsent?client_id="),
    (7_000_229, "consent_missing", false, "adminconsent?client_id="),
    (65_001, "consent_missing", false, "adminconsent?client_id="),
    (90_002, "tenant_unknown", false, "its `cloud` (now `simulated`)"),
    (900_023, "tenant_malformed", false, "correct the tenant's `id`"),
    (90_038, "wrong_cloud", false, "(now `simulated`)"),
    (900_382, "wrong_cloud", false, "(now `simulated`)"),
    (900_432, "wrong_cloud", false, "(now `simulated`)"),
    (500_011, "resource_unknown", false, "subscription"),
    (50_001, "resource_unknown", false, "subscription"),
    (650_052, "resource_unsubscribed", false, "subscription"),
    (65_004, "consent_declined", false, "adminconsent?client_id="),
    (90_094, "consent_needs_admin", false, "adminconsent?client_id="),
    (53_003, "conditional_access", false, "public address that this host's requests come from"),
    (530_032, "blocked", false, "sign-in log"),
    (530_034, "blocked", false, "sign-in log"),
    (53_011, "blocked", false, "sign-in log"),
    (7_000_112, "app_disabled", false, "Enterprise applications"),
    (50_034, "sign_in_account", false, "administrator's account"),
    (50_020, "sign_in_account", false, "administrator's account"),
    (50_059, "sign_in_account", false, "administrator's account"),
    (54_005, "code_spent", false, "start the consent again"),
    (70_008, "code_spent", false, "start the consent again"),
    (700_005, "code_spent", false, "start the consent again"),
    (501_481, "code_spent", false, "start the consent again"),
];

#[tokio::test]
async fn every_code_says_its_cause_and_remedy() {
    let setup = setup(|scenario| {
        CODES.iter().fold(scenario, |scenario, (code, ..)| {
            let tenant = Uuid::from_u128((*code).into());
            scenario
                .tenant(Tenant::new(tenant, "refused"))
                .fault(Fault::new(Effect::Entra { code: *code, retry_after_s: None }).tenant(tenant))
        })
    });
    for (code, kind, app, remedy) in CODES {
        let error = setup.refusal(Asking { tenant: Uuid::from_u128((*code).into()), ..setup.asking() }).await;
        let trouble = error.trouble();
        assert_eq!(error.kind(), *kind, "{trouble}");
        assert_eq!(error.advice(), if *app { Advice::PauseApp } else { Advice::PauseTenant }, "{trouble}");
        assert_eq!(trouble.code, Some(format!("AADSTS{code}")));
        assert!(trouble.remedy.contains(remedy), "AADSTS{code}: `{remedy}` is not in: {trouble}");
        assert!(trouble.needs_operator && !trouble.cause.is_empty() && !trouble.to_string().contains('{'), "{trouble}");
        assert_eq!(trouble.shared, *app);
    }
}

#[tokio::test]
async fn passing_trouble_passes() {
    let cases: [(Effect, &str, u64); 14] = [
        (Effect::Entra { code: 90_033, retry_after_s: None }, "entra_transient", 24),
        (Effect::Entra { code: 90_033, retry_after_s: Some(120) }, "entra_transient", 120),
        (Effect::Entra { code: 50_196, retry_after_s: None }, "entra_loop", 600),
        (Effect::Entra { code: 90_055, retry_after_s: None }, "entra_throttled", 60),
        (
            Effect::Throttled(Throttle { shape: ThrottleShape::PlainText, retry_after_s: Some(60) }),
            "entra_throttled",
            60,
        ),
        (Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: Some(90) }, "entra_unavailable", 90),
        (Effect::Status { status: 502, body: ErrorBody::Empty, retry_after_s: None }, "entra_unavailable", 24),
        (Effect::Status { status: 403, body: ErrorBody::Html, retry_after_s: None }, "entra_not_json", 24),
        (Effect::Redirect { status: 302 }, "entra_not_json", 24),
        (Effect::BadJson(BadJson::Garbage), "entra_not_json", 24),
        (Effect::BadJson(BadJson::Cut), "entra_not_json", 24),
        (Effect::Truncate { chunked: false }, "broken_off", 24),
        (Effect::Reset(Point::BeforeHeaders), "connection", 24),
        (Effect::Stall { at: Point::BeforeHeaders, for_ms: None }, "timeout", 24),
    ];
    let setup = setup(|scenario| {
        (1..).zip(&cases).fold(scenario, |scenario, (number, (effect, ..))| {
            let tenant = Uuid::from_u128(number);
            let fault = Fault::new(effect.clone()).tenant(tenant).on([Endpoint::Token]);
            scenario.tenant(Tenant::new(tenant, "troubled")).fault(fault)
        })
    });
    for (number, (effect, kind, least)) in (1..).zip(&cases) {
        let error = setup.refusal(Asking { tenant: Uuid::from_u128(number), ..setup.asking() }).await;
        let trouble = error.trouble();
        assert_eq!(error.kind(), *kind, "{effect:?}: {trouble}");
        assert!(!trouble.needs_operator && !trouble.shared && !trouble.cause.is_empty(), "{effect:?}: {trouble}");
        let Advice::Retry { after: Some(after) } = error.advice() else { panic!("{effect:?}: {error:?}") };
        assert!(after >= Duration::from_secs(*least - 1), "{effect:?}: {after:?}");
    }
    assert_eq!(setup.simulator.ledger().foreign_requests, 0, "the assertion went nowhere else");
}

#[tokio::test]
async fn a_cloud_that_is_not_there() {
    let setup = setup(|scenario| scenario);
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cloud = Cloud { authority: format!("http://{nowhere}").parse().unwrap(), ..Cloud::clone(&setup.cloud) };
    let setup = Setup { cloud: Arc::new(cloud), ..setup };
    let error = setup.refusal(setup.asking()).await;
    assert_eq!(error.kind(), "unreachable");
    let trouble = error.trouble();
    assert!(trouble.cause.starts_with(&format!("http://{nowhere} cannot be reached (")), "{trouble}");
    assert!(trouble.cause.contains("refused"), "{trouble}");
}

#[tokio::test]
async fn a_host_whose_clock_is_wrong() {
    let setup = setup(|scenario| scenario);
    setup.simulator.control().set_clock_offset_ms(-3_600_000);
    let error = setup.refusal(setup.asking()).await;
    let trouble = error.trouble();
    assert_eq!(error.kind(), "clock", "{trouble}");
    assert!(matches!(error.advice(), Advice::Retry { .. }), "the time is known now: {error:?}");
    let theirs: Timestamp = trouble.cause.rsplit(' ').next().unwrap().parse().unwrap();
    let off = SystemClock.now().duration_since(theirs) - SignedDuration::from_hours(1);
    assert!(off.abs() < SignedDuration::from_mins(2), "Entra's time is shown: {trouble}");

    // The next source of the process signs by Microsoft's time.
    setup.source(setup.asking()).token().await.unwrap_or_else(|error| panic!("{}", error.trouble()));
    let ledger = setup.simulator.ledger();
    let refused: Vec<_> = ledger.token_requests.iter().map(|request| request.refused).collect();
    assert_eq!(refused, [Some(700_024), None]);
}
