//! The operators' listener with TLS: what it shows, what it demands, and files that change under it.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use reqwest::tls::{Certificate, Identity, TlsInfo, Version};
use reqwest::{ClientBuilder, StatusCode};
use tenantry_simulator::Scenario;

use crate::world::{Daemon, PATIENCE, World, tenant, tenant_id};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate by `authority` for `purpose`, and its key, both PEM. It ends with the year 2100.
fn issued(authority: &Authority, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["tenantry.example".to_owned()]).unwrap();
    params.extended_key_usages.push(purpose);
    params.not_after = date_time_ymd(2101, 1, 1);
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A world whose listener shows a certificate by this authority, which is in `ca.pem`.
fn world(seed: u64, authority: &Authority, keys: &str) -> World {
    let listener = "[operator]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"l.crt\"\nprivate_key_file = \"l.key\"\n";
    let world = World::new(Scenario::new(seed).tenant(tenant(1, 3, 1.0)), &format!("{listener}{keys}"));
    show(&world, &issued(authority, ExtendedKeyUsagePurpose::ServerAuth));
    fs::write(world.dir.path().join("ca.pem"), authority.pem()).unwrap();
    world
}

/// Puts a certificate and its key in the place of what the listener shows.
fn show(world: &World, (certificate, key): &(String, String)) {
    fs::write(world.dir.path().join("l.key"), key).unwrap();
    fs::write(world.dir.path().join("l.crt"), certificate).unwrap();
}

/// Trusts this authority, knows where `tenantry.example` is, and makes a connection for each request.
#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
fn client(trusted: &Authority, address: SocketAddr) -> ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .pool_max_idle_per_host(0)
        .tls_info(true)
        .tls_certs_only([Certificate::from_pem(trusted.pem().as_bytes()).unwrap()])
        .resolve("tenantry.example", address)
}

fn identity(authority: &Authority) -> Identity {
    let (certificate, key) = issued(authority, ExtendedKeyUsagePurpose::ClientAuth);
    Identity::from_pem([certificate, key].concat().as_bytes()).unwrap()
}

async fn listens(daemon: &Daemon) -> SocketAddr {
    daemon.operator().await.strip_prefix("http://").unwrap().parse().unwrap()
}

/// The status and text of an answer, and the certificate that was shown with it.
async fn get(client: ClientBuilder, path: &str) -> Result<(StatusCode, String, Vec<u8>), reqwest::Error> {
    let answer = client.build().unwrap().get(format!("https://tenantry.example{path}")).send().await?;
    let shown = answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
    Ok((answer.status(), answer.text().await?, shown))
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

/// Waits until the listener shows this certificate to who connects.
async fn until_shown(daemon: &Daemon, client: impl Fn() -> ClientBuilder, certificate: &str) {
    let start = Instant::now();
    while get(client(), "/healthz").await.unwrap().2 != der(certificate) {
        assert!(start.elapsed() < PATIENCE, "the new certificate is not shown\n{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_tls_to_who_trusts_its_authority_and_nothing_else() {
    let (ours, others) = (authority("ours"), authority("others"));
    let world = world(401, &ours, "");
    let checked = world.tenantry(&["check"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains("for tenantry.example, valid from") && text.contains(" to 2101-01-01T00:00:00Z"), "{text}");
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let address = listens(&daemon).await;
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = client(&ours, address).tls_version_min(version).tls_version_max(version);
        let (status, page, _) = get(client, "/metrics").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        let expiry = "tenantry_listener_certificate_expiry_timestamp_seconds{listener=\"operator\"} 4133980800";
        assert!(page.lines().any(|line| line == expiry), "{page}");
    }
    let all = serde_json::to_string(&tenantry::store::Query::default()).unwrap();
    let export = format!("/v1/export?query={all}&format=ndjson");
    let refused = get(client(&ours, address), &export).await.unwrap();
    assert_eq!(refused.0, StatusCode::FORBIDDEN, "who has shown nothing gets no records");
    assert!(!ledger.expected_ids(tenant_id(1)).is_empty());
    assert!(get(client(&others, address), "/healthz").await.is_err(), "another authority's certificate is not shown");

    // Plain HTTP is ended, without a line in the journal.
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(!daemon.log().contains("a caller of the operators' listener"), "{}", daemon.log());

    // Until a reload takes the certificate away.
    let text = fs::read_to_string(&world.config).unwrap();
    let without = text.replace("certificate_file = \"l.crt\"\nprivate_key_file = \"l.key\"\n", "");
    assert_ne!(text, without);
    fs::write(&world.config, without).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    let start = Instant::now();
    let plainly = client(&ours, address).build().unwrap();
    while plainly.get(format!("http://{address}/healthz")).send().await.is_err() {
        assert!(start.elapsed() < PATIENCE, "it does not speak plain HTTP\n{}", daemon.log());
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_of_the_right_authority_is_refused() {
    let (ours, callers, others) = (authority("ours"), authority("callers"), authority("others"));
    let world = world(402, &ours, "client_ca_file = \"callers.pem\"\n");
    let file = world.dir.path().join("callers.pem");
    fs::write(&file, callers.pem()).unwrap();
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let address = listens(&daemon).await;
    assert!(get(client(&ours, address), "/healthz").await.is_err(), "no certificate");
    assert!(get(client(&ours, address).identity(identity(&others)), "/healthz").await.is_err(), "of another authority");
    let right = identity(&callers);
    let with = |identity: &Identity| client(&ours, address).identity(identity.clone());
    let (status, page, _) = get(with(&right), "/metrics").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("tenantry_build_info"), "{page}");
    let all = serde_json::to_string(&tenantry::store::Query::default()).unwrap();
    let (status, records, _) = get(with(&right), &format!("/v1/export?query={all}&format=ndjson")).await.unwrap();
    assert_eq!((status, records.lines().count()), (StatusCode::OK, ledger.expected_ids(tenant_id(1)).len()));

    // Who is connected must leave when another authority is demanded.
    let kept = with(&right).pool_max_idle_per_host(1).build().unwrap();
    assert!(kept.get("https://tenantry.example/healthz").send().await.unwrap().text().await.is_ok());
    fs::write(&file, others.pem()).unwrap();
    let start = Instant::now();
    while kept.get("https://tenantry.example/healthz").send().await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "who is not let in any more stays\n{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(get(with(&identity(&others)), "/healthz").await.unwrap().0, StatusCode::OK);
    assert!(get(with(&right), "/healthz").await.is_err());
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_holds_nobody_up() {
    let ours = authority("ours");
    let world = world(403, &ours, "");
    let daemon = world.run();
    let address = listens(&daemon).await;
    let is_open = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let start = Instant::now();
    loop {
        let mut stalled = TcpStream::connect(address).unwrap();
        // The head of a record, and no more.
        stalled.write_all(&[22, 3, 1, 2, 0]).unwrap();
        assert_eq!(get(client(&ours, address), "/healthz").await.unwrap().0, StatusCode::OK);
        if is_open(&mut stalled) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "nobody is answered until who stalls has been sent away");
    }
    // As many as there are places.
    let stalled: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(get(client(&ours, address), "/healthz").await.unwrap().0, StatusCode::OK, "they were sent away");
    drop(stalled);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_and_one_that_cannot_be_used_is_not() {
    let ours = authority("ours");
    let world = world(404, &ours, "");
    let first = fs::read_to_string(world.dir.path().join("l.crt")).unwrap();
    let daemon = world.run();
    let address = listens(&daemon).await;
    let client = || client(&ours, address);
    until_shown(&daemon, client, &first).await;

    let second = issued(&ours, ExtendedKeyUsagePurpose::ServerAuth);
    show(&world, &second);
    until_shown(&daemon, client, &second.0).await;
    daemon.wait_log("goes on with the certificates that its files hold now").await;

    // Half of a renewal: a certificate without its key.
    let third = issued(&ours, ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(world.dir.path().join("l.crt"), &third.0).unwrap();
    daemon.wait_log("keeps the certificate that it has").await;
    assert!(daemon.log().contains("the private key does not belong to the certificate"), "{}", daemon.log());
    assert_eq!(get(client(), "/healthz").await.unwrap().2, der(&second.0));
    let reload = world.tenantry(&["reload"]);
    assert!(!reload.status.success(), "a reload says the same");
    assert_eq!(get(client(), "/healthz").await.unwrap().2, der(&second.0));
    assert_eq!(daemon.log().matches("keeps the certificate that it has").count(), 1, "once: {}", daemon.log());

    // The other half.
    show(&world, &third);
    until_shown(&daemon, client, &third.0).await;
    // A reload reads the files at once.
    let fourth = issued(&ours, ExtendedKeyUsagePurpose::ServerAuth);
    show(&world, &fourth);
    assert!(world.tenantry(&["reload"]).status.success());
    until_shown(&daemon, client, &fourth.0).await;
    assert!(!daemon.log().contains("PRIVATE KEY"));
    assert!(daemon.stop().await.success());
}
