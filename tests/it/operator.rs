//! The operators' listener, asked as Prometheus, a probe and a stranger would.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::StatusCode;
use reqwest::header::{HOST, WWW_AUTHENTICATE};
use serde_json::Value;
use tenantry_simulator::{Effect, Endpoint, ErrorBody, Fault, Scenario, Throttle, ThrottleShape, When};

use crate::skip::skip;
use crate::world::{World, tenant, tenant_id};

const ANY_PORT: &str = "[operator]\nlisten = \"127.0.0.1:0\"\n";

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

async fn get(url: &str, path: &str) -> (StatusCode, String) {
    let answer = client().get(format!("{url}{path}")).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_a_token_and_a_listing_and_says_what_is_missing() {
    let world = World::new(Scenario::new(81).tenant(tenant(1, 3, 1.0)), ANY_PORT);
    let fail = |on, effect| Fault { tenant: None, on: vec![on], content_type: None, when: When::Always, effect };
    let unavailable = Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None };
    world.cloud.control().add_fault(fail(Endpoint::Token, unavailable.clone()));
    let mut daemon = world.run();
    let url = daemon.operator().await;
    assert_eq!(get(&url, "/healthz").await.0, StatusCode::OK, "alive as soon as it listens");
    daemon.wait("the store is open", |_| true).await;
    let (status, text) = get(&url, "/readyz").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(told["missing"].as_array().unwrap().len(), 2, "{told}");

    world.cloud.control().clear_faults();
    world.cloud.control().add_fault(fail(Endpoint::List, unavailable));
    daemon.wait("there is a token", |status| !status["tenants"][0]["token_until"].is_null()).await;
    let (status, text) = get(&url, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("no listing has succeeded yet") && !text.contains("no tenant has a valid token"), "{text}");

    world.cloud.control().clear_faults();
    daemon.wait("there is a listing", |status| !status["tenants"][0]["last_poll"].is_null()).await;
    assert_eq!(get(&url, "/readyz").await, (StatusCode::OK, r#"{"ready":true,"missing":[]}"#.to_owned()));
    let (status, text) = get(&url, "/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["tenants"][0]["name"], "tenant-1");
    for (path, expected) in [
        ("/", StatusCode::NOT_FOUND),
        ("/v1/export?query={}&format=ndjson", StatusCode::FORBIDDEN),
        ("/v1/tail?query={}", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(get(&url, path).await.0, expected, "{path}");
    }
    let reload = client().post(format!("{url}/v1/reload")).body("{}").send().await.unwrap();
    assert_eq!(reload.status(), StatusCode::NOT_FOUND, "nothing can be changed from here");
    let foreign = client().get(format!("{url}/v1/status")).header(HOST, "attacker.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_it_guards_and_a_reload_changes_it() {
    let with_token = format!("{ANY_PORT}token_file = \"token\"\n");
    let world = World::new(Scenario::new(82).tenant(tenant(1, 3, 1.0)), &with_token);
    let file = world.dir.path().join("token");
    let (first, second) = ("first-token-of-this-test", "second-token-of-this-test");
    std::fs::write(&file, first).unwrap();
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let url = daemon.operator().await;
    let client = client();
    let ask = async |path: &str, token: &str| {
        let answer = client.get(format!("{url}{path}")).bearer_auth(token).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    assert_eq!(get(&url, "/readyz").await.0, StatusCode::OK, "a probe has no token");
    let refused = client.get(format!("{url}/v1/status")).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(ask("/v1/status", second).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("/v1/status", first).await.0, StatusCode::OK);
    let all = serde_json::to_string(&tenantry::store::Query::default()).unwrap();
    let (status, records) = ask(&format!("/v1/export?query={all}&format=ndjson"), first).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(records.lines().count(), ledger.expected_ids(tenant_id(1)).len());

    std::fs::write(&file, second).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    // The connection that was kept alive ends with the settings that let it in.
    let start = std::time::Instant::now();
    while ask("/v1/status", second).await.0 != StatusCode::OK {
        assert!(start.elapsed() < crate::world::PATIENCE, "the new token is not taken");
    }
    assert_eq!(ask("/v1/status", first).await.0, StatusCode::UNAUTHORIZED);
    assert!(!daemon.log().contains("-token-of-this-test"), "a token is in the log");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_address_is_an_error_line_and_a_reload_moves_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let world =
        World::new(Scenario::new(83).tenant(tenant(1, 3, 1.0)), &format!("[operator]\nlisten = \"{address}\"\n"));
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.log().contains("metrics and health cannot be served at this address"), "{}", daemon.log());
    let text = std::fs::read_to_string(&world.config).unwrap();
    std::fs::write(&world.config, text.replace(&address.to_string(), "127.0.0.1:0")).unwrap();
    daemon.signal(Signal::SIGHUP);
    let url = daemon.operator().await;
    assert_eq!(get(&url, "/healthz").await.0, StatusCode::OK);
    let text = std::fs::read_to_string(&world.config).unwrap();
    std::fs::write(&world.config, text.replace("127.0.0.1:0", "off")).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    let start = std::time::Instant::now();
    while client().get(format!("{url}/healthz")).send().await.is_ok() {
        assert!(start.elapsed() < crate::world::PATIENCE, "it still listens");
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_stall_hold_nothing_up() {
    let world = World::new(Scenario::new(84).tenant(tenant(1, 3, 1.0)), ANY_PORT);
    let mut daemon = world.run();
    let url = daemon.operator().await;
    daemon.wait("it is listed", |status| !status["tenants"][0]["last_poll"].is_null()).await;
    let address = url.strip_prefix("http://").unwrap();
    // As many as there are places: half say nothing, half send a head without an end.
    let mut stalled: Vec<_> = (0..64)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(get(&url, "/healthz").await.0, StatusCode::OK, "they were sent away");
    for stream in &mut stalled {
        stream.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
        let mut answer = String::new();
        // Some are reset, others closed; none is answered.
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains("200"), "{answer}");
    }
    assert!(daemon.stop().await.success());
}

/// A sample's value; panics unless the page has it once.
#[track_caller]
fn value(page: &str, sample: &str) -> f64 {
    let values: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')).collect();
    assert_eq!(values.len(), 1, "{sample} in\n{page}");
    values[0].parse().unwrap()
}

/// The sum of a family's samples that have `labels`.
fn sum(page: &str, family: &str, labels: &str) -> f64 {
    let samples = page.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(labels));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
async fn metrics_are_zero_at_first_and_then_what_the_cloud_offered() {
    let world = World::new(Scenario::new(85).tenant(tenant(1, 10, 2.0)).tenant(tenant(2, 4, 2.0)), ANY_PORT);
    let control = world.cloud.control();
    control.add_fault(Fault {
        tenant: None,
        on: vec![Endpoint::Token],
        content_type: None,
        when: When::Always,
        effect: Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None },
    });
    let mut daemon = world.run();
    let url = daemon.operator().await;
    daemon
        .wait("both tenants have asked for a token", |status| {
            let tenants = status["tenants"].as_array().unwrap();
            tenants.len() == 2 && tenants.iter().all(|tenant| !tenant["trouble"].is_null())
        })
        .await;
    let (status, page) = get(&url, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let first = tenant_id(1).to_string();
    let exchange = format!("{{tenant=\"{first}\",content_type=\"Audit.Exchange\"}}");
    for zero in [
        "tenantry_blobs_stored_total{content_type=\"Audit.Exchange\"}".to_owned(),
        "tenantry_dead_letters_total{content_type=\"DLP.All\"}".to_owned(),
        "tenantry_throttled_total".to_owned(),
        "tenantry_last_listed_oldest_timestamp_seconds".to_owned(),
        format!("tenantry_tenant_last_listed_timestamp_seconds{exchange}"),
        format!("tenantry_tenant_blobs_stored_total{exchange}"),
        format!("tenantry_tenant_token_expiry_timestamp_seconds{{tenant=\"{first}\"}}"),
    ] {
        assert!(value(&page, &zero).abs() < f64::EPSILON, "{zero}");
    }
    assert!(value(&page, "tenantry_failures_total{stage=\"token\"}") >= 2.0);
    assert!((value(&page, "tenantry_tenants_without_token") - 2.0).abs() < f64::EPSILON);

    control.clear_faults();
    control.add_fault(Fault {
        tenant: Some(tenant_id(2)),
        on: vec![Endpoint::List],
        content_type: None,
        when: When::First(2),
        effect: Effect::Throttled(Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(1) }),
    });
    let ledger = daemon.wait_collected(&world).await;
    let (_, page) = get(&url, "/metrics").await;
    for (number, blobs) in [(1, 40.0), (2, 16.0)] {
        let tenant = format!("tenant=\"{}\"", tenant_id(number));
        let stored = sum(&page, "tenantry_tenant_blobs_stored_total", &tenant);
        assert!((stored - blobs).abs() < f64::EPSILON, "{tenant}: {stored} of {blobs}");
        let records = sum(&page, "tenantry_tenant_records_stored_total", &tenant);
        let offered = ledger.expected_ids(tenant_id(number)).len() as f64;
        assert!((records - offered).abs() < f64::EPSILON, "{tenant}: {records} of {offered}");
    }
    assert!((sum(&page, "tenantry_blobs_stored_total", "") - 56.0).abs() < f64::EPSILON);
    assert!(sum(&page, "tenantry_tenant_throttled_total", &tenant_id(2).to_string()) >= 1.0, "{page}");
    assert!(sum(&page, "tenantry_tenant_throttled_total", &first).abs() < f64::EPSILON);
    assert!(value(&page, "tenantry_last_listed_oldest_timestamp_seconds") > 1.7e9);
    assert!(value(&page, "tenantry_store_flush_seconds_count") > 0.0);
    assert!(value(&page, "tenantry_store_bytes{part=\"content\"}") > 1000.0);
    assert!(page.contains(&format!(
        "tenantry_tenant_info{{tenant=\"{first}\",name=\"tenant-1\",cloud=\"simulated\",app=\"app\"}} 1"
    )));
    lint(&page);
    assert!(daemon.stop().await.success());
}

/// Prometheus' own judge of names, units and form.
fn lint(page: &str) {
    let promtool = std::env::var_os("TENANTRY_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let started =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut judge) = started else {
        return skip("there is no promtool; it comes with Prometheus, and TENANTRY_TEST_PROMTOOL may name it");
    };
    judge.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let judged = judge.wait_with_output().unwrap();
    assert!(judged.status.success(), "{}\n{page}", String::from_utf8_lossy(&judged.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_the_tenant_in_trouble_is_shown_and_the_sums_hold_all() {
    let scenario = (1..=4).fold(Scenario::new(86), |scenario, number| scenario.tenant(tenant(number, 2, 1.0)));
    let world = World::new(scenario, &format!("{ANY_PORT}tenant_labels = 1\n"));
    world.cloud.control().add_fault(Fault {
        tenant: Some(tenant_id(3)),
        on: vec![Endpoint::Token],
        content_type: None,
        when: When::Always,
        effect: Effect::Entra { code: 700_016, retry_after_s: None },
    });
    let mut daemon = world.run();
    let collected = |tenant: &Value| tenant["stored_today"]["blobs"] == 8;
    daemon
        .wait("three tenants are collected, one is in trouble", |status| {
            let tenants = status["tenants"].as_array().unwrap();
            tenants.iter().filter(|tenant| collected(tenant)).count() == 3
                && tenants.iter().any(|tenant| !tenant["trouble"].is_null())
        })
        .await;
    let (_, page) = get(&daemon.operator().await, "/metrics").await;
    assert!((sum(&page, "tenantry_blobs_stored_total", "") - 24.0).abs() < f64::EPSILON);
    assert!(page.contains("tenantry_tenant_info{") && page.contains(&tenant_id(3).to_string()), "{page}");
    for other in [1, 2, 4] {
        assert!(!page.contains(&tenant_id(other).to_string()), "{page}");
    }
    assert!(daemon.stop().await.success());
}
