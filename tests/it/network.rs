//! `[network]` from outside: the real binary, a proxy, and a cloud whose CA no host knows.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use tenantry_simulator::{App, Scenario};
use uuid::Uuid;

use crate::way::{Authority, Proxy, Rule, authority, front};
use crate::world::{World, tenant};

/// A second app, with a secret: the simulated cloud takes assertions only for its own address.
const APP: Uuid = Uuid::from_u128(0x0a99_0000_0000_4000_8000_0000_0000_0002);
pub(crate) const LOGIN: &str = "login.simulated.example";
const SECRET: &str = "s3cret-0f-the-app";
/// `user:pr0xy-password`.
const SHOWN: &str = "Basic dXNlcjpwcjB4eS1wYXNzd29yZA==";

/// A world whose authority is known by a name only, and the front that speaks TLS for it.
pub(crate) async fn world(seed: u64, authority: &Authority) -> (World, SocketAddr) {
    let scenario = Scenario::new(seed).app(App::new(APP).secret(SECRET)).tenant(tenant(1, 2, 1.0));
    let world =
        World::new(scenario, "[network]\nroot_certificates_file = \"ca.pem\"\n[collect]\npoll_interval = \"10s\"\n");
    let text = fs::read_to_string(&world.config).unwrap();
    let own = world.cloud.authority_url();
    let text = text
        .replace(&format!("authority = \"{own}\""), &format!("authority = \"https://{LOGIN}\""))
        .replace(&crate::world::APP.to_string(), &APP.to_string())
        .replace(
            "certificate_file = \"app.crt\"\nprivate_key_file = \"app.key\"\n",
            "client_secret_file = \"secret\"\n",
        );
    fs::write(&world.config, text).unwrap();
    fs::write(world.dir.path().join("secret"), SECRET).unwrap();
    fs::write(world.dir.path().join("ca.pem"), authority.pem()).unwrap();
    let front = front(authority, LOGIN, own.strip_prefix("http://").unwrap().parse().unwrap()).await;
    (world, front)
}

fn trouble(status: &Value) -> (&str, String) {
    let trouble = &status["tenants"][0]["trouble"];
    let text = format!(
        "{}: {}",
        trouble["cause"].as_str().unwrap_or_default(),
        trouble["remedy"].as_str().unwrap_or_default()
    );
    (trouble["kind"].as_str().unwrap_or_default(), text)
}

fn refused(why: &str) -> String {
    format!(
        "https://{LOGIN} cannot be reached, since the proxy does not connect us ({why}): check the proxy that `tenantry \
         check` names: its address, the credentials for it, and that it lets this host through"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_or_is_not_there_is_named() {
    let ca = authority("Private Root");
    let (world, front) = world(500, &ca).await;
    let proxy = Proxy::start(front, Rule::Refuse).await;
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, why) in [
        (proxy.address, "it refuses".to_owned()),
        (gone, "it cannot be reached: Connection refused (os error 111)".to_owned()),
    ] {
        let mut daemon = world.run_with(|command| {
            command.env("TENANTRY__NETWORK__PROXY", address.to_string()).env("HTTPS_PROXY", "http://overruled.example");
        });
        let status = daemon.wait("the proxy's trouble", |status| trouble(status).0 == "proxy").await;
        assert_eq!(trouble(&status).1, refused(&why));
        assert!(daemon.stop().await.success());
        // The next daemon need not wait for what this one has asked.
        fs::remove_dir_all(world.store()).unwrap();
    }
    assert!(world.cloud.ledger().token_requests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_through_the_proxy_and_a_private_ca_and_a_reload_follows() {
    let ca = authority("Private Root");
    let (world, front) = world(501, &ca).await;
    let proxy = Proxy::start(front, Rule::Demand(SHOWN)).await;
    let password = |text: &str| fs::write(world.dir.path().join("proxy.password"), text).unwrap();
    password("user:other\n");
    world.set("network", "proxy", &format!("\"http://{}\"", proxy.address));
    world.set("network", "proxy_credentials_file", "\"proxy.password\"");
    let mut daemon = world.run();
    let status = daemon.wait("the proxy's 407", |status| trouble(status).0 == "proxy").await;
    assert_eq!(trouble(&status).1, refused("it wants credentials, or others than it was shown (407)"));
    password("user:pr0xy-password\n");
    assert!(world.tenantry(&["reload"]).status.success());
    daemon.wait_collected(&world).await;

    let asked = proxy.asked();
    assert!(asked.iter().all(|host| *host == format!("{LOGIN}:443")), "only the authority is elsewhere: {asked:?}");
    let checked = String::from_utf8(world.tenantry(&["check"]).stdout).unwrap();
    for line in [
        &format!("# https://{LOGIN} is reached through http://{}, by `proxy` under `[network]`", proxy.address),
        &format!("# {} is reached directly, since it is this very host", world.cloud.url()),
        "# believes CN=Private Root",
    ] {
        assert!(checked.lines().any(|shown| shown == line), "{line} is not in\n{checked}");
    }
    let told = format!("{checked}{}", daemon.log());
    for secret in ["pr0xy-password", SHOWN, SECRET, &SHOWN[6..]] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_tls_on_the_way_is_named() {
    let (ca, other) = (authority("Private Root"), authority("Corporate Inspection"));
    let (world, _) = world(502, &ca).await;
    let own = world.cloud.authority_url().strip_prefix("http://").unwrap().parse().unwrap();
    let between = front(&other, LOGIN, own).await;
    let proxy = Proxy::start(between, Rule::Lead).await;
    let mut daemon = world.run_with(|command| {
        command.env("HTTPS_PROXY", format!("http://user:s3cret-0f-env@{}", proxy.address));
    });
    let status = daemon.wait("the CA that nobody knows", |status| trouble(status).0 == "tls").await;
    assert_eq!(
        trouble(&status).1,
        format!(
            "https://{LOGIN} cannot be spoken to by TLS (the certificate that is shown for `{LOGIN}`, issued by \
             `CN=Corporate Inspection`, is by a CA that neither this host nor `root_certificates_file` knows): if something \
             on the way opens TLS, name its CA in `root_certificates_file` under `[network]`; else check this host's root \
             certificates and its clock"
        )
    );
    assert!(world.cloud.ledger().token_requests.is_empty(), "the secret went nowhere");
    // Its CA is believed after a reload.
    fs::write(world.dir.path().join("ca.pem"), format!("{}{}", ca.pem(), other.pem())).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    daemon.wait_collected(&world).await;
    assert!(!daemon.log().contains("s3cret-0f-env"));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_cannot_be_read_leave_the_old_ones_in_effect() {
    let ca = authority("Private Root");
    let (world, front) = world(503, &ca).await;
    let proxy = Proxy::start(front, Rule::Lead).await;
    world.set("network", "proxy", &format!("\"http://{}\"", proxy.address));
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    fs::write(world.dir.path().join("ca.pem"), "nothing").unwrap();
    let refused = world.tenantry(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("network.root_certificates_file: ") && said.contains("there is no certificate in it"),
        "{said}"
    );
    assert!(daemon.stop().await.success());
}
