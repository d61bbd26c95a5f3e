//! What an operator asks for by hand: that a span be listed again (`tenantry backfill`), and one blob by its address
//! (`tenantry fetch`); by the daemon, and without one.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{
    Blob, BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Ledger, Scenario, Throttle, ThrottleShape,
};

use crate::world::{World, assert_no_violations, tenant, tenant_id};

/// Nothing is listed again within a test, save the last minute at a start.
const SLOW: &str = "[collect]\npoll_interval = \"1h\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n";
const HOUR: Duration = Duration::from_hours(1);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ends(output: &Output, code: i32, told: &str) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", String::from_utf8_lossy(&output.stdout), said(output));
    assert!(said(output).contains(told) && !said(output).contains("panicked"), "{}", said(output));
}

/// What a backfill finds, knows and queues, of all types.
#[track_caller]
fn backfill(world: &World, arguments: &[&str], code: i32) -> (Value, [u64; 3]) {
    let output = world.tenantry(&[&["backfill", "--tenant", "tenant-1", "--json"], arguments].concat());
    ends(&output, code, "");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum = |name: &str| {
        found["content"].as_object().unwrap().values().map(|content| content[name].as_u64().unwrap()).sum()
    };
    let sums = ["found", "known", "queued"].map(sum);
    (found, sums)
}

fn late(world: &World, blobs: u32, hours: u32) {
    let late = BlobSpec::new(tenant_id(1), ContentType::Exchange).count(blobs).records(3).created_ago(hours * HOUR);
    world.cloud.control().add_blobs(late);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_listed_again_and_only_what_is_not_stored_is_queued() {
    let world = World::new(Scenario::new(221).tenant(tenant(1, 10, 6.0)).page_size(4), SLOW);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    late(&world, 3, 50);
    let fetched = |world: &World| world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    let before = fetched(&world);
    let (_, sums) = backfill(&world, &["--since", "20h"], 0);
    assert_eq!((sums[2], sums[0]), (0, sums[1]), "that is not where the late ones are");
    let (found, sums) = backfill(&world, &["--since", "7d", "--wait"], 0);
    assert_eq!(sums, [43, 40, 3], "{found:#}");
    assert_eq!((fetched(&world), &found["content"]["Audit.Exchange"]["queued"]), (before + 3, &Value::from(3)));
    let (_, sums) = backfill(&world, &["--since", "7d"], 0);
    assert_eq!(sums, [43, 43, 0], "again, it is all known");
    world.assert_collected();
    // Of one type and between two times.
    late(&world, 2, 30);
    let (_, sums) = backfill(&world, &["--since", "40h", "--until", "29h", "--content-type", "Audit.General"], 0);
    assert_eq!(sums[2], 0);
    let told = world.tenantry(&["backfill", "--tenant", "tenant-1", "--since", "40h", "--until", "29h", "--wait"]);
    ends(&told, 0, "");
    assert!(String::from_utf8_lossy(&told.stdout).contains(" known, 2 queued\n"), "{told:?}");
    assert_eq!(fetched(&world), before + 5);
    let ledger = world.tenantry(&["ledger", "--json"]);
    let hours: Vec<Value> = serde_json::from_slice(&ledger.stdout).unwrap();
    let late: u64 = hours.iter().map(|hour| hour["late_sweep"].as_u64().unwrap()).sum();
    assert_eq!(late, 5, "they were found by listing again");
    assert!(daemon.stop().await.success());
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_it_is_listed_all_the_same() {
    let world = World::new(Scenario::new(222).tenant(tenant(1, 5, 3.0)).tenant(tenant(2, 5, 3.0)), SLOW);
    assert!(world.tenantry(&["collect-once"]).status.success());
    late(&world, 4, 60);
    let fetched = |world: &World| world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    let before = fetched(&world);
    let queued = world.tenantry(&["backfill", "--tenant", "tenant-1", "--since", "3d"]);
    ends(&queued, 0, "no daemon runs: 4 blobs wait");
    assert_eq!(fetched(&world), before, "whoever does not wait wants nothing to be retrieved");
    backfill(&world, &["--since", "3d", "--wait"], 0);
    assert_eq!(fetched(&world), before + 4);
    let (_, sums) = backfill(&world, &["--since", "3d"], 0);
    assert_eq!((sums[0], sums[2], fetched(&world)), (sums[1], 0, before + 4), "it is all known");
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listed_is_told() {
    let world = World::new(Scenario::new(223).tenant(tenant(1, 2, 1.0)), SLOW);
    let asked = |arguments: &[&str]| world.tenantry(&[&["backfill"], arguments].concat());
    let refusals = |world: &World| {
        let asked = |arguments: &[&str]| world.tenantry(&[&["backfill"], arguments].concat());
        let old = asked(&["--tenant", "tenant-1", "--since", "8d"]);
        ends(&old, 64, "Microsoft lists what became available in the last seven days");
        ends(&asked(&["--tenant", "tenant-1", "--since", "1h", "--until", "2h"]), 64, "there is nothing to list");
        ends(&asked(&["--tenant", "nobody", "--since", "1h"]), 64, "no tenant is named `nobody`");
        let dlp = asked(&["--tenant", "tenant-1", "--since", "1h", "--content-type", "DLP.All"]);
        ends(&dlp, 64, "DLP.All of `tenant-1` is not collected");
    };
    let listed = || world.cloud.ledger().requests(tenant_id(1), Endpoint::List);
    refusals(&world);
    assert_eq!(listed(), 0);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let before = listed();
    refusals(&world);
    assert_eq!(listed(), before);

    // One type fails, and keeps none of the others.
    let down = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None };
    world.cloud.control().add_fault(Fault::new(down).on([Endpoint::List]).content_type(ContentType::General));
    late(&world, 1, 10);
    let (found, sums) = backfill(&world, &["--since", "12h"], 75);
    assert_eq!(sums[2], 1, "{found:#}");
    assert!(found["content"]["Audit.General"]["trouble"]["cause"].as_str().unwrap().contains("503"), "{found:#}");
    world.cloud.control().clear_faults();
    // A long wait is told, and not broken.
    let wait = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(900) };
    world.cloud.control().add_fault(Fault::new(Effect::Throttled(wait)).on([Endpoint::List]).first(1));
    let (found, _) = backfill(&world, &["--since", "12h"], 75);
    let before = listed();
    let (again, _) = backfill(&world, &["--since", "12h"], 75);
    assert!(again.to_string().contains("Microsoft has asked to be left alone for another 1"), "{found:#} {again:#}");
    assert_eq!(listed(), before);
    assert_no_violations(&world.cloud.ledger());
    assert!(world.tenantry(&["tenant", "pause", "tenant-1"]).status.success());
    ends(&asked(&["--tenant", "tenant-1", "--since", "1h"]), 1, "an operator has paused it");
    assert!(daemon.stop().await.success());
    ends(&asked(&["--tenant", "tenant-1", "--since", "1h"]), 1, "an operator has paused it");
}

fn address(world: &World, blob: &Blob) -> String {
    let (management, tenant, id) = (world.cloud.url(), blob.tenant, &blob.content_id);
    format!("{management}/api/v1.0/{tenant}/activity/feed/audit/{id}")
}

fn first(ledger: &Ledger) -> &Blob {
    ledger.blobs.iter().find(|blob| blob.tenant == tenant_id(1)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_fetched_as_it_is_and_compared_with_what_is_stored() {
    let scenario = Scenario::new(224).tenant(tenant(1, 2, 1.0).subscribed()).tenant(tenant(2, 1, 1.0));
    let world = World::new(scenario, SLOW);
    let (body, big) = (r#"[ {"Id":"first","Note":"as  it is"} ]"#, 3_000_000);
    let control = world.cloud.control();
    let numbers =
        control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(body).created_ago(5 * HOUR));
    control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).body_bytes(big).created_ago(5 * HOUR));
    let ledger = world.cloud.ledger();
    let literal = &ledger.blobs[usize::try_from(numbers[0]).unwrap()];
    let large = ledger.blobs.last().unwrap();
    let fetch = |blob: &Blob, more: &[&str]| world.tenantry(&[&["fetch", &address(&world, blob)], more].concat());

    // Without a daemon: nothing is stored yet, and nothing is by it.
    let alone = fetch(literal, &[]);
    ends(&alone, 0, "it is not stored");
    assert_eq!((alone.stdout.as_slice(), said(&alone).contains(&literal.sha256())), (body.as_bytes(), true));
    let stored = |world: &World| world.exported(&[]).len();
    assert_eq!(stored(&world), 0);
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Start), 0, "nor is anything started");

    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let asked = fetch(literal, &["--tenant", "tenant-1"]);
    ends(&asked, 0, "the same is stored as Audit.Exchange");
    assert_eq!(asked.stdout, body.as_bytes());
    let file = world.dir.path().join("blob.json");
    let to_file = fetch(large, &["-o", file.to_str().unwrap()]);
    ends(&to_file, 0, "the same is stored as Audit.General");
    assert!(to_file.stdout.is_empty());
    assert_eq!(fs::read(&file).unwrap(), ledger.body(large.number));

    // What was never listed here.
    control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(1).created_ago(50 * HOUR));
    let unseen = world.cloud.ledger();
    ends(&fetch(unseen.blobs.last().unwrap(), &[]), 0, "it is not stored");
    // A body that breaks off is none.
    let cut = control.add_fault(Fault::new(Effect::Truncate { chunked: true }).on([Endpoint::Blob]));
    fs::remove_file(&file).unwrap();
    ends(&fetch(large, &["-o", file.to_str().unwrap()]), 75, "the body is not complete");
    assert!(!file.exists());
    control.remove_fault(cut);
    control.expire_blobs([literal.number]);
    ends(&fetch(literal, &[]), 1, "Microsoft does not hand it out to `tenant-1`");
    assert!(daemon.stop().await.success());
    assert_no_violations(&world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_nowhere_but_to_its_own_host_and_tenant() {
    let world = World::new(Scenario::new(225).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), SLOW);
    let ledger = world.cloud.ledger();
    let good = address(&world, first(&ledger));
    let foreign = good.replace(&world.cloud.url(), &world.cloud.url().replace("127.0.0.1", "127.0.0.2"));
    assert_ne!(foreign, good);
    let unknown = good.replace(&tenant_id(1).to_string(), &tenant_id(9).to_string());
    let refusals = || {
        let requests = |world: &World| {
            let ledger = world.cloud.ledger();
            let tenants = ledger.tenants.values().map(|book| book.requests.values().sum::<u64>()).sum::<u64>();
            (tenants, ledger.token_requests.len(), ledger.foreign_requests)
        };
        let before = requests(&world);
        for uri in
            [&foreign, "https://attacker.example/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed/audit/1"]
        {
            let tenant = uri.contains(&tenant_id(1).to_string());
            let told = if tenant { "its token may not go there" } else { "no file names the tenant" };
            ends(&world.tenantry(&["fetch", uri]), 64, told);
        }
        ends(&world.tenantry(&["fetch", &unknown]), 64, "no file names the tenant");
        ends(&world.tenantry(&["fetch", &good, "--tenant", "tenant-2"]), 64, "the address is of the tenant");
        ends(&world.tenantry(&["fetch", "https://manage.office.com/"]), 64, "is not the address of a content blob");
        (before, requests(&world))
    };
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let (before, after) = refusals();
    assert_eq!(before, after);
    assert!(daemon.stop().await.success());
    let (before, after) = refusals();
    assert_eq!(before, after, "not even a token is asked for");
}
