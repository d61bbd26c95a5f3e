//! A provider of others (`oidc-provider`) judges our client assertions: proof that they are what the standards say, and not only what
//! our own simulator takes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use rsa::pkcs1::RsaPublicKey;
use rsa::pkcs1::der::Decode as _;
use serde_json::json;
use tenantry::clock::{Clock as _, SystemClock};
use tenantry::token::{Certificate, Signing, assertion};
use url::Url;

use crate::skip::skip;

const CLIENT: &str = "0a990000-0000-4000-8000-000000000001";

/// A certificate with its key, and the public half as others have it.
fn certificate(name: &str) -> (Certificate, serde_json::Value) {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let issued = params.self_signed(&key).unwrap();
    let public = RsaPublicKey::from_der(key.der_bytes()).unwrap();
    let jwk = json!({"kty": "RSA", "use": "sig", "n": URL_SAFE_NO_PAD.encode(public.modulus.as_bytes()),
                     "e": URL_SAFE_NO_PAD.encode(public.public_exponent.as_bytes())});
    let certificate = Certificate::from_pem(issued.pem().as_bytes(), Some(key.serialize_pem().as_bytes()));
    (certificate.unwrap(), jwk)
}

/// The provider; it ends with its standard input, and at the latest with this.
struct Judge {
    child: Child,
    endpoint: Url,
}

impl Judge {
    fn start(packages: &Path, key: &Path, signing: &str) -> Self {
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oidc-judge.mjs"))
            .args([packages, key])
            .args([CLIENT, signing])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let endpoint =
            lines.find_map(|line| Url::parse(&line).ok().filter(Url::has_host)).expect("it tells its address");
        // It must be able to go on talking.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint }
    }

    /// Asks for a token with this assertion: the status, and the provider's word.
    #[expect(
        clippy::disallowed_methods,
        reason = "the ban keeps requests to Microsoft in one place; this is a test's own"
    )]
    async fn ask(&self, assertion: &str) -> (u16, serde_json::Value) {
        let form = [
            ("client_id", CLIENT),
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(self.endpoint.clone()).form(&form).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_provider_takes_our_assertion_once_and_nothing_like_it() {
    // CI installs the packages and says where they are.
    let Some(packages) = std::env::var_os("TENANTRY_TEST_NPM") else {
        return skip("TENANTRY_TEST_NPM names no folder with the packages of tests/simulator/openid/package.json");
    };
    let folder = tempfile::tempdir().unwrap();
    let ((ours, public), (other, _)) = (certificate("ours"), certificate("other"));
    let key = folder.path().join("key.json");
    std::fs::write(&key, public.to_string()).unwrap();
    for (signing, algorithm) in [(Signing::Ps256, "PS256"), (Signing::Rs256, "RS256")] {
        let judge = Judge::start(Path::new(&packages), &key, algorithm);
        let now = SystemClock.now();
        let sign = |certificate: &Certificate, client: &str, audience: &Url, at: Timestamp| {
            assertion::sign(certificate, signing, client, audience, at).unwrap().expose().to_owned()
        };
        let good = sign(&ours, CLIENT, &judge.endpoint, now);
        let (status, answer) = judge.ask(&good).await;
        assert_eq!((status, &answer["token_type"]), (200, &json!("Bearer")), "{algorithm}: {answer}");

        // That it judges.
        let elsewhere: Url = "https://login.example/tid/oauth2/v2.0/token".parse().unwrap();
        let mut tampered: Vec<_> = sign(&ours, CLIENT, &judge.endpoint, now).split('.').map(str::to_owned).collect();
        tampered[1] = sign(&ours, CLIENT, &judge.endpoint, now).split('.').nth(1).unwrap().to_owned();
        let hour = SignedDuration::from_hours(1);
        for (what, assertion) in [
            ("the same again", good),
            ("for another address", sign(&ours, CLIENT, &elsewhere, now)),
            ("by another key", sign(&other, CLIENT, &judge.endpoint, now)),
            ("of another client", sign(&ours, "0a990000-0000-4000-8000-000000000002", &judge.endpoint, now)),
            ("of an hour ago", sign(&ours, CLIENT, &judge.endpoint, now - hour)),
            ("of an hour ahead", sign(&ours, CLIENT, &judge.endpoint, now + hour)),
            ("with other claims than were signed", tampered.join(".")),
        ] {
            let (status, answer) = judge.ask(&assertion).await;
            assert!(
                matches!(status, 400 | 401) && answer["error"].is_string(),
                "{algorithm}: {what}: {status} {answer}"
            );
        }
        let fresh = sign(&ours, CLIENT, &judge.endpoint, SystemClock.now());
        assert_eq!(judge.ask(&fresh).await.0, 200, "{algorithm}: a fresh one is as good as the first");
    }
}
