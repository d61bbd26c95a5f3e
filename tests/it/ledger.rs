//! `tenantry ledger`: the hours of what was available, as the cloud itself counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Effect, Endpoint, Fault, Scenario};
use uuid::Uuid;

use crate::tenants::{ends, said};
use crate::world::{World, tenant, tenant_id};

/// The lines, with the exit code that they come with.
fn ledger(world: &World, code: i32, more: &[&str]) -> Vec<Value> {
    let output = world.tenantry(&[&["ledger", "--json"], more].concat());
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Blobs and records by tenant, content type and hour.
type Hours = BTreeMap<(String, String, String), (u64, u64)>;

fn told(lines: &[Value]) -> Hours {
    let text = |line: &Value, of: &str| line[of].as_str().unwrap().to_owned();
    let key = |line: &Value| (text(line, "tenant"), text(line, "content_type"), text(line, "hour"));
    let sums = |line: &Value| (line["stored"].as_u64().unwrap(), line["records"].as_u64().unwrap());
    lines.iter().map(|line| (key(line), sums(line))).collect()
}

/// What the cloud has offered, in the same hours.
fn offered(world: &World, tenants: &[Uuid]) -> Hours {
    let ledger = world.cloud.ledger();
    let mut hours = Hours::new();
    for tenant in tenants {
        for blob in ledger.offered(*tenant) {
            let second = blob.content_created.as_second();
            let hour = Timestamp::from_second(second - second.rem_euclid(3600)).unwrap();
            let key = (tenant.to_string(), blob.content_type.to_string(), hour.to_string());
            let records = serde_json::from_slice::<Vec<Value>>(&ledger.body(blob.number)).unwrap().len() as u64;
            let sums = hours.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + records);
        }
    }
    hours
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_has_what_the_cloud_has_offered_with_a_daemon_and_without() {
    let world = World::new(Scenario::new(501).tenant(tenant(1, 12, 3.0)).tenant(tenant(2, 5, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let all = [tenant_id(1), tenant_id(2)];
    let lines = ledger(&world, 0, &[]);
    assert_eq!(told(&lines), offered(&world, &all));
    assert_eq!(told(&ledger(&world, 0, &["--tenant", "tenant-2"])), offered(&world, &all[1..]));
    let exchange = told(&ledger(&world, 0, &["--content-type", "Audit.Exchange"]));
    let expected =
        offered(&world, &all).into_iter().filter(|((_, of, _), _)| of == "Audit.Exchange").collect::<Hours>();
    assert_eq!(exchange, expected);
    let table = world.tenantry(&["ledger", "--tenant", "tenant-1"]);
    ends(&table, 0, &format!("tenant-1 ({})", tenant_id(1)));
    ends(&table, 0, "█");
    assert!(daemon.stop().await.success());
    assert_eq!(ledger(&world, 0, &[]), lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_was_lost_stands_in_its_hour() {
    let world = World::new(Scenario::new(502).tenant(tenant(1, 2, 0.5)), "");
    let control = world.cloud.control();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let silent =
        Fault::new(Effect::Status { status: 500, body: tenantry_simulator::ErrorBody::Json, retry_after_s: None });
    control.add_fault(silent.on([Endpoint::Blob]));
    let late = control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(2).records(3));
    let sum = |lines: &[Value], of: &str| lines.iter().map(|line| line[of].as_u64().unwrap()).sum::<u64>();
    daemon.wait("both wait", |_| sum(&ledger(&world, 0, &[]), "waiting") == 2).await;
    ends(&world.tenantry(&["ledger"]), 0, "…");
    control.expire_blobs([late[0]]);
    control.clear_faults();
    daemon
        .wait("one is stored, and one is gone", |status| {
            let tenant = &status["tenants"][0];
            tenant["dead_letters"] == 1 && tenant["queue"]["entries"] == 0
        })
        .await;
    let lines = ledger(&world, 2, &[]);
    assert_eq!((sum(&lines, "lost"), sum(&lines, "waiting"), sum(&lines, "stored")), (1, 0, 9), "{lines:#?}");
    ends(&world.tenantry(&["ledger"]), 2, "✗");
    assert!(daemon.stop().await.success());
}

/// The gaps among the lines.
fn gaps(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["gap"].is_object()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn interruptions_stand_there_with_their_cause_and_what_filled_them() {
    let world = World::new(Scenario::new(503).tenant(tenant(1, 0, 1.0)), "");
    let control = world.cloud.control();
    let some = |count, minutes| {
        let ago = Duration::from_mins(minutes);
        control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(count).created_ago(ago));
    };
    let behind = |hours: i64| control.set_clock_offset_ms(-hours * 3_600_000);
    behind(6);
    let mut daemon = world.run();
    let listed = |status: &Value| {
        let types = status["tenants"][0]["content"].as_object().unwrap();
        types.len() == 4 && types.values().all(|content| content["last_listed"].is_string())
    };
    daemon.wait("all is listed", listed).await;
    some(2, 1);
    daemon.wait_collected(&world).await;
    assert_eq!(gaps(&ledger(&world, 0, &[])).len(), 0);
    assert!(daemon.stop().await.success());

    // By this host's clock, nobody has listed for six hours.
    let lines = ledger(&world, 0, &[]);
    let going_on = gaps(&lines);
    assert_eq!(going_on.len(), 4, "{lines:#?}");
    for line in going_on {
        let gap = &line["gap"];
        assert_eq!((&gap["why"], &gap["goes_on"]), (&Value::from("not_running"), &Value::from(true)), "{line:#}");
    }
    ends(&world.tenantry(&["ledger"]), 0, "to now (6h 0m): the daemon does not run; goes on");

    // Three hours later somebody does, and finds what became available meanwhile.
    behind(3);
    some(3, 90);
    let mut daemon = world.run();
    let filled = |why: &str| {
        let lines = ledger(&world, 0, &[]);
        let fits = |line: &&&Value| line["gap"]["why"] == why && line["gap"]["filled"]["by"] == "Poll";
        gaps(&lines).iter().filter(fits).count()
    };
    daemon.wait("the gaps are filled", |_| filled("not_running") == 4).await;
    ends(&world.tenantry(&["ledger"]), 0, "the daemon did not run; filled ");
    // Not of today: midnight may have come.
    let stored =
        || told(&ledger(&world, 0, &[]).into_iter().filter(|line| line["hour"].is_string()).collect::<Vec<_>>());
    daemon.wait("all is stored", |_| stored().values().map(|(blobs, _)| blobs).sum::<u64>() == 5).await;

    // What ails it when it ends is what kept it from listing, as far as anybody knows.
    let refused = Effect::Af { code: "AF20010".to_owned(), status: 400, message: None };
    control.add_fault(Fault::new(refused).on([Endpoint::List, Endpoint::Subscriptions]));
    daemon.wait("it is in trouble", |status| status["tenants"][0]["trouble"].is_object()).await;
    assert!(daemon.stop().await.success());
    behind(0);
    control.clear_faults();
    let mut daemon = world.run();
    daemon.wait("these gaps are filled too", |_| filled("trouble") == 4).await;
    assert_eq!(gaps(&ledger(&world, 0, &[])).len(), 8, "and nothing else is noted");
    assert!(daemon.stop().await.success());
    assert_eq!(gaps(&ledger(&world, 0, &[])).len(), 8);
}
