//! The control interface over HTTP, and clocks.

use serde_json::json;
use tenantry_simulator::{Cloud, ContentType, Effect, Endpoint, Fault, Feed, Ledger, Outcome, Point, Tenant};

use crate::client::*;

#[test]
fn what_control_does_can_be_done_over_http() {
    let feed = Feed::new(ContentType::General).backlog(4, 1.0);
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").feed(feed))).unwrap();
    let sim = |method: &str, path: &str, body: &str| {
        send(method, &format!("{}/_sim/{path}", cloud.url()), &[], body.as_bytes()).unwrap()
    };
    let added = sim(
        "POST",
        "control",
        &json!({ "add_blobs": { "tenant": TENANT, "content_type": "Audit.General", "count": 2 } }).to_string(),
    );
    assert_eq!(serde_json::from_slice::<Outcome>(&added.body).unwrap().blobs, [4, 5]);
    let fault =
        json!({ "add_fault": { "on": ["token"], "when": { "first": 1 }, "effect": { "entra": { "code": 90033 } } } });
    assert_eq!(sim("POST", "control", &fault.to_string()).json()["fault"], 1);
    assert_eq!(token_by_secret(&cloud, TENANT, SECRET, "https://manage.office.com/.default").status, 503);
    assert_eq!(token_by_secret(&cloud, TENANT, SECRET, "https://manage.office.com/.default").status, 200);
    let ledger: Ledger = serde_json::from_slice(&sim("GET", "ledger", "").body).unwrap();
    assert_eq!(ledger.blobs.len(), 6);
    assert_eq!(ledger.faults, [(1, 2, 1)]);
    assert_eq!(ledger.body(5), sim("GET", "body?blob=5", "").body);
    let expected = String::from_utf8(sim("GET", &format!("expected?tenant={TENANT}"), "").body).unwrap();
    assert_eq!(
        expected.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>(),
        ledger.expected_ids(TENANT)
    );
    let digests = String::from_utf8(sim("GET", &format!("sha256?tenant={TENANT}"), "").body).unwrap();
    assert!(digests.lines().any(|l| *l
        == format!(
            "{} {} {}",
            ledger.blobs[3].content_id,
            ledger.blobs[3].sha256(),
            ledger.blobs[3].record_ids().len()
        )));
    assert_eq!(sim("POST", "control", r#"{"unknown":1}"#).status, 400);
    assert!(serde_json::from_slice::<Ledger>(&sim("GET", "ledger?blobs=false", "").body).unwrap().blobs.is_empty());
}

#[tokio::test]
async fn a_cloud_may_live_in_a_task_and_frees_its_port_when_dropped() {
    let cloud = Cloud::start(scenario()).unwrap();
    let address = cloud.url().trim_start_matches("http://").parse().unwrap();
    drop(cloud);
    let again = Cloud::start_at(scenario(), address).expect("the port is free");
    assert_eq!(again.url(), format!("http://{address}"));
}

#[test]
fn many_clients_are_served_at_once() {
    let feed = Feed::new(ContentType::General).backlog(50, 0.9);
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").feed(feed).subscribed())).unwrap();
    let client = Client::new(&cloud, TENANT);
    let entries = client.list_all(ContentType::General, "");
    cloud.control().add_fault(Fault::new(Effect::Stall { at: Point::MidBody, for_ms: Some(200) }).on([Endpoint::Blob]));
    std::thread::scope(|scope| {
        for entry in &entries {
            scope.spawn(|| assert_eq!(client.get(entry["contentUri"].as_str().unwrap()).status, 200));
        }
    });
    let ledger = cloud.ledger();
    assert!(ledger.tenants[&TENANT].most_in_flight > 10, "{}", ledger.tenants[&TENANT].most_in_flight);
    assert_eq!(ledger.blobs.iter().map(|b| b.fetched).sum::<u32>(), 50);
    assert_eq!(ledger.tenants[&TENANT].in_flight, 0);
}

#[test]
fn clocks_can_be_shifted_apart() {
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C"))).unwrap();
    let date = || {
        let answer = token_by_secret(&cloud, TENANT, SECRET, "https://manage.office.com/.default");
        jiff::fmt::rfc2822::parse(answer.header("date").unwrap()).unwrap().timestamp()
    };
    let before = cloud.ledger().at;
    cloud.control().set_clock_offset_ms(3_600_000);
    assert!(cloud.ledger().at.duration_since(before).as_secs() >= 3600);
    assert!(date().duration_since(before).as_secs() >= 3599);
    cloud.control().set_date_offset_ms(-3_600_000);
    assert!(date().duration_since(before).as_secs() < 60);
}
