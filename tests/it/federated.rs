//! Apps without a secret of their own: a federated token file, and a managed identity, at the simulated cloud and host.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use serde_json::json;
use tenantry_simulator::{App, Effect, Endpoint, ErrorBody, Fault, Federated, Issuer, Jwk, ManagedIdentity, Scenario};
use uuid::Uuid;

use crate::world::{APP, AUDIENCE, PUBLISHER, World, tenant, tenant_id};

const ISSUER: &str = "https://kubernetes.example";
const SUBJECT: &str = "system:serviceaccount:collectors:tenantry";
const EXCHANGE: &str = "api://AzureADTokenExchange";
const IDENTITY: Uuid = Uuid::from_u128(0x1de1_0000_0000_4000_8000_0000_0000_0001);
const OBJECT: Uuid = Uuid::from_u128(0x1de1_0000_0000_4000_8000_0000_0000_0002);
const HOME: Uuid = Uuid::from_u128(0x1de1_0000_0000_4000_8000_0000_0000_0003);

/// The key of the issuer.
static KEY: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());

/// The issuer, as Entra finds it.
fn issuer() -> Issuer {
    use rsa::pkcs1::RsaPublicKey;
    use rsa::pkcs1::der::Decode as _;
    let key = RsaPublicKey::from_der(KEY.der_bytes()).unwrap();
    let jwk = Jwk::rsa("k1", key.modulus.as_bytes(), key.public_exponent.as_bytes());
    Issuer { issuer: ISSUER.to_owned(), keys: vec![jwk] }
}

/// A token as the issuer signs it.
fn signed(subject: &str, audience: &str, life: i64) -> String {
    #[expect(clippy::disallowed_methods, reason = "the issuer is somebody else, with a clock of its own")]
    let now = Timestamp::now().as_second();
    let claims = json!({"iss": ISSUER, "sub": subject, "aud": [audience], "iat": now - 60, "nbf": now - 60,
                        "exp": now + life, "jti": Uuid::new_v4()});
    let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::RS256) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_rsa_pem(KEY.serialize_pem().as_bytes()).unwrap()).unwrap()
}

/// Puts a token where the old one was, as a kubelet does: at once.
fn replace(path: &Path, token: &str) {
    let partial = path.with_extension("partial");
    fs::write(&partial, token).unwrap();
    fs::rename(partial, path).unwrap();
}

/// A world whose app proves itself as `how` says, and has no certificate.
fn world(scenario: Scenario, app: App, how: &str) -> World {
    let dir = tempfile::TempDir::with_prefix("tenantry-it-").unwrap();
    let tenants: Vec<_> = scenario.tenants.iter().map(|tenant| (tenant.id, tenant.name.clone())).collect();
    let scenario = scenario.app(app).publisher(PUBLISHER);
    let cloud = tenantry_simulator::Cloud::start(scenario.apart().audience(AUDIENCE)).unwrap();
    let config = dir.path().join("tenantry.toml");
    let world = World { cloud, dir, config };
    world.configure(&tenants, "");
    let text = fs::read_to_string(&world.config).unwrap();
    let certificate = "certificate_file = \"app.crt\"\nprivate_key_file = \"app.key\"\n";
    assert!(text.contains(certificate));
    fs::write(&world.config, text.replace(certificate, how)).unwrap();
    world
}

fn credentials(world: &World) -> Vec<(String, Option<u32>)> {
    let ledger = world.cloud.ledger();
    ledger.token_requests.iter().map(|request| (request.credential.clone(), request.refused)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_comes_late_and_is_replaced_proves_the_app() {
    let app = App::new(APP).federated(Federated::new(ISSUER, SUBJECT));
    let scenario = Scenario::new(151).tenant(tenant(1, 1, 1.0)).issuer(issuer());
    let world = world(scenario, app, "");
    let file = world.dir.path().join("token");
    let mut daemon = world.run_with(|command| {
        // As the workload identity webhook sets them.
        command.env("AZURE_FEDERATED_TOKEN_FILE", &file);
    });
    let status = daemon
        .wait("the missing file is told", |status| {
            status["tenants"][0]["trouble"]["trouble"]["kind"] == "federated_token_missing"
                || status["tenants"][0]["trouble"]["kind"] == "federated_token_missing"
        })
        .await;
    assert!(status.to_string().contains(file.to_str().unwrap()), "{status}");
    assert_eq!(world.cloud.ledger().token_requests.len(), 0, "nothing is asked without a proof");
    replace(&file, &signed(SUBJECT, EXCHANGE, 3600));
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    assert_eq!(credentials(&world), [("federated".to_owned(), None)]);
    world.assert_collected();
    let token = fs::read_to_string(&file).unwrap();
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(token.split('.').all(|part| !log.contains(part)), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_registration_does_not_trust_is_told_by_its_claims() {
    let app = App::new(APP).federated(Federated::new(ISSUER, SUBJECT));
    let scenario = Scenario::new(152).tenant(tenant(1, 1, 1.0)).issuer(issuer());
    let world = world(scenario, app, "federated_token_file = \"token\"\n");
    let file = world.dir.path().join("token");
    let other = "system:serviceaccount:collectors:other";
    replace(&file, &signed(other, EXCHANGE, 3600));
    let mut daemon = world.run();
    let told = daemon.wait("the mismatch is told", |status| status.to_string().contains("AADSTS700213")).await;
    let trouble = told["tenants"][0]["trouble"].to_string();
    for words in [ISSUER, other, EXCHANGE, "letter by letter"] {
        assert!(trouble.contains(words), "`{words}` is not in {trouble}");
    }
    assert!(daemon.stop().await.success());
}

fn managed() -> ManagedIdentity {
    ManagedIdentity { tenant: HOME, client_id: IDENTITY, object_id: OBJECT, resource_id: String::new() }
}

/// The issuer of an identity's tokens: the authority at its home, as the simulator names itself.
fn trusting(world: &World) {
    let issuer = format!("{}/{HOME}/v2.0", world.cloud.authority_url().trim_end_matches('/'));
    world.cloud.control().set_app(App::new(APP).federated(Federated::new(&issuer, &OBJECT.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_proves_the_app_whoever_hands_out_its_tokens() {
    for app_service in [false, true] {
        // The host's service is not ready at first, and says so twice.
        let busy =
            Effect::Status { status: if app_service { 500 } else { 404 }, body: ErrorBody::Empty, retry_after_s: None };
        let mut scenario = Scenario::new(153)
            .tenant(tenant(1, 1, 1.0))
            .tenant(tenant(2, 1, 1.0))
            .managed_identity(managed())
            .fault(Fault::new(busy).on([Endpoint::ManagedIdentity]).first(2));
        scenario.identity_header = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a".to_owned();
        let world = world(scenario, App::new(APP), &format!("managed_identity = \"{IDENTITY}\"\n"));
        trusting(&world);
        let host = world.cloud.authority_url();
        let mut daemon = world.run_with(|command| {
            // Whoever asks through it has left the host.
            command.env("HTTP_PROXY", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9");
            if app_service {
                let endpoint = format!("{}/msi/token", host.trim_end_matches('/'));
                command.env("IDENTITY_ENDPOINT", endpoint);
                command.env("IDENTITY_HEADER", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a");
            } else {
                command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &host);
            }
        });
        daemon.wait_collected(&world).await;
        assert!(daemon.stop().await.success());
        assert_eq!(credentials(&world), vec![("federated".to_owned(), None); 2], "one token serves both tenants");
        world.assert_collected();
        let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
        assert!(!log.contains("853b9a84"), "{log}");
        let part = URL_SAFE_NO_PAD.encode("{\"typ\":\"JWT\"");
        assert!(!log.contains(&part[..12]), "a token is in the log: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_host_does_not_have_is_told_with_its_remedy() {
    let scenario = Scenario::new(154).tenant(tenant(1, 1, 1.0)).managed_identity(managed());
    let world = world(scenario, App::new(APP), &format!("managed_identity = \"{HOME}\"\n"));
    let host = world.cloud.authority_url();
    let mut daemon = world.run_with(|command| {
        command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &host);
    });
    let told =
        daemon.wait("the refusal is told", |status| status.to_string().contains("managed_identity_refused")).await;
    let trouble = told["tenants"][0]["trouble"].to_string();
    for words in ["Identity not found", "assign this user-assigned identity to the host", &HOME.to_string()] {
        assert!(trouble.contains(words), "`{words}` is not in {trouble}");
    }
    assert_eq!(world.cloud.ledger().token_requests.len(), 0);
    assert_eq!(told["tenants"][0]["id"], tenant_id(1).to_string());
    assert!(daemon.stop().await.success());
}
