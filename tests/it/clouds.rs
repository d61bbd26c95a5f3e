//! A cloud that has Graph and no Management Activity API, as China's: service health is collected, and nothing else asked for.

use serde_json::{Value, json};
use tenantry_simulator::{Board, Endpoint, HEALTH_READ, MESSAGES_READ, Scenario};

use crate::operator::client;
use crate::tenants::{add, ends};
use crate::world::{APP, World, assert_no_violations, tenant, tenant_id};

const HEALTH: &str = "[health]\nenabled = true\npoll_interval = \"300ms\"\n[daemon]\nstart_spread = \"0s\"\n\
                      [operator]\nlisten = \"127.0.0.1:0\"\n";

/// The simulated cloud without its management host. Two tenants, of which the files name the first.
fn world(seed: u64, extra: &str) -> World {
    let of = |number| tenant(number, 1, 0.5).consent(APP, &[HEALTH_READ, MESSAGES_READ]);
    let world = World::new(Scenario::new(seed).tenant(of(1)).tenant(of(2)), extra);
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], extra);
    let text = std::fs::read_to_string(&world.config).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("management"));
    std::fs::write(&world.config, kept.flat_map(|line| [line, "\n"]).collect::<String>()).unwrap();
    world
}

fn change(world: &World, from: &str, to: &str) {
    let text = std::fs::read_to_string(&world.config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&world.config, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_without_an_activity_api_gives_service_health() {
    let world = world(741, HEALTH);
    world.cloud.control().announce(
        tenant_id(1),
        Board::Issues,
        json!({"id": "EX1", "service": "s", "isResolved": false}),
    );
    let mut daemon = world.run();
    let status = daemon.wait("it is collected", |status| status["tenants"][0]["state"] == "collecting").await;
    assert_eq!((&status["tenants"][0]["content"], &status["tenants"][0]["trouble"]), (&json!({}), &Value::Null));
    let ready = client().get(format!("{}/readyz", daemon.operator().await)).send().await.unwrap();
    assert_eq!(ready.status(), 200, "a list of Graph's is a listing");
    let health = world.tenantry(&["health", "--json"]);
    let health: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!(health[0]["issues"][0]["id"], "EX1", "{health:#}");

    // What the doctor cannot look at is not broken, and nobody speaks of subscriptions.
    ends(&world.tenantry(&["doctor"]), 0, "its cloud has no Management Activity API");
    ends(&world.tenantry(&["subscription", "list", "tenant-1"]), 64, "has no Management Activity API");
    ends(&world.tenantry(&["health", "report", "EX1", "-o", "-"]), 1, "postIncidentReviewPublished");

    // Another one is added, without content types or not at all.
    let audit = world.tenantry(&[
        "tenant",
        "add",
        &tenant_id(2).to_string(),
        "--name",
        "x",
        "--cloud",
        "simulated",
        "--content-type",
        "Audit.General",
    ]);
    ends(&audit, 64, "no audit records can be collected there");
    ends(&add(&world, 2, "tenant-2"), 0, "is added");
    let both = |status: &Value| (0..2).all(|at| status["tenants"][at]["state"] == "collecting");
    daemon.wait("both are collected", both).await;
    // Switched off, there is nothing left to collect of it: that is told, and the file's tenant is a mistake.
    change(&world, "enabled = true", "enabled = false");
    ends(&world.tenantry(&["reload"]), 78, "nothing would be; set `enabled = true` under `[health]`");
    assert!(daemon.stop().await.success());
    ends(&world.tenantry(&["doctor"]), 78, "nothing would be");
    change(&world, "enabled = false", "enabled = true");
    ends(&world.tenantry(&["doctor"]), 0, "2 tenants, all well");
    let status = world.tenantry(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["tenants"][0]["last_poll"].is_string(), "{status:#}");

    let ledger = world.cloud.ledger();
    assert!(ledger.token_requests.iter().all(|asked| asked.audience.contains("graph")), "{:?}", ledger.token_requests);
    for number in [1, 2] {
        let asked = |endpoint| ledger.requests(tenant_id(number), endpoint);
        assert_eq!((asked(Endpoint::Subscriptions), asked(Endpoint::List)), (0, 0));
    }
    assert_no_violations(&ledger);
}

#[test]
fn audit_records_where_there_are_none_are_refused() {
    let world = world(742, HEALTH);
    ends(&world.tenantry(&["check"]), 0, "valid: 1 tenant");
    change(&world, "cloud = \"simulated\"\n", "cloud = \"simulated\"\ncontent_types = [\"Audit.Exchange\"]\n");
    ends(&world.tenantry(&["check"]), 78, "the cloud `simulated` has no Management Activity API");
    change(&world, "content_types = [\"Audit.Exchange\"]", "content_types = []");
    ends(&world.tenantry(&["check"]), 0, "valid: 1 tenant");
    change(
        &world,
        "cloud = \"simulated\"\ncontent_types = []",
        "cloud = \"china\"\ncontent_types = [\"Audit.General\"]",
    );
    ends(&world.tenantry(&["check"]), 78, "the cloud `china` has no Management Activity API");
}
