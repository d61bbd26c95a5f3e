//! `tenantry tenant remove --purge` and `tenantry tenant purges`: a customer is erased, and nobody else notices.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tenantry_simulator::{Effect, Endpoint, Fault, Point, Scenario};

use crate::consent::{CONTOSO, House, started};
use crate::tenants::{add, collecting, ends, exported, is_left_alone, listed, of, running, said, world};
use crate::world::{World, assert_no_violations, tenant, tenant_id};

fn purges(world: &World, more: &[&str]) -> Vec<Value> {
    let output = world.tenantry(&[&["tenant", "purges", "--json"], more].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The second tenant is on no list, and nobody has records of it.
#[track_caller]
fn assert_gone(world: &World) {
    assert_eq!(listed(world, 2), Value::Null);
    let all = world.exported(&[]);
    let id = tenant_id(2).to_string();
    ends(&world.tenantry(&["export", "--tenant", &id]), 1, "is not configured and has no records");
    let theirs = world.cloud.ledger().expected_ids(tenant_id(2));
    assert!(!all.is_empty() && all.iter().all(|record| !theirs.contains(record)));
}

/// The files below a directory that hold these bytes.
fn holders(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holders(&path, bytes));
        } else if entry.file_type().unwrap().is_file() {
            let text = fs::read(&path).unwrap();
            if text.windows(bytes.len()).any(|window| window == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_erased_and_a_receipt_stays() {
    let world = world(Scenario::new(411).tenant(tenant(1, 2, 1.0)).tenant(tenant(2, 3, 1.0)), "");
    let mut daemon = running(&world).await;
    ends(&world.tenantry(&["tenant", "purges"]), 0, "nothing was purged");
    ends(&add(&world, 2, "Second"), 0, "is added");
    daemon.wait_collected(&world).await;
    collecting(&mut daemon, 2).await;
    let (others, theirs) = (exported(&world, 1), exported(&world, 2));
    assert!(!theirs.is_empty() && !holders(&world.store(), tenant_id(2).as_bytes()).is_empty());

    // A person says so, and is told what it means.
    let asked = world.tenantry(&["tenant", "remove", "second", "--purge"]);
    ends(&asked, 64, "add `--yes`");
    ends(&asked, 64, &format!("its {} records in 12 blobs", theirs.len()));
    ends(&asked, 64, "would be erased, and nothing but a backup brings them back");
    assert_eq!(exported(&world, 2), theirs);

    let removed = world.tenantry(&["tenant", "remove", "second", "--purge", "--yes"]);
    ends(&removed, 0, "from now on nothing of it is shown, and it is being erased");
    assert_gone(&world);
    // What is left of it is told by the daemon that comes after this one.
    daemon.kill();
    let mut daemon = running(&world).await;
    assert_gone(&world);
    let table = world.tenantry(&["tenant", "purges", "--wait"]);
    ends(&table, 0, &tenant_id(2).to_string());
    ends(&table, 0, "not erased by purge 1: backups that were begun before");

    let [receipt] = &purges(&world, &[])[..] else { panic!("{}", said(&table)) };
    assert_eq!((receipt["blobs"].as_u64(), receipt["left"].as_u64()), (Some(12), Some(0)), "{receipt:#}");
    assert_eq!(receipt["records"].as_u64(), Some(theirs.len() as u64), "{receipt:#}");
    assert!(receipt["done_at"].is_string() && receipt["chain"]["length"] == 12, "{receipt:#}");
    assert!(purges(&world, &[&tenant_id(1).to_string()]).is_empty());
    assert_eq!(exported(&world, 1), others);
    ends(&world.tenantry(&["verify", "--store-only"]), 0, "");
    is_left_alone(&world, 2).await;
    ends(
        &world.tenantry(&["tenant", "remove", &tenant_id(2).to_string(), "--purge", "--yes"]),
        64,
        "nothing of it is stored; `tenantry tenant purges` shows",
    );

    // It comes back as if it had never been here.
    ends(&add(&world, 2, "Again"), 0, "is added");
    daemon.wait_collected(&world).await;
    assert_eq!(exported(&world, 2), theirs);
    assert!(daemon.stop().await.success());
    assert_eq!(world.cloud.ledger().requests(tenant_id(2), Endpoint::Blob), 24, "each blob once before and once after");
    assert_no_violations(&world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_it_is_hidden_at_once_and_erased_on_request() {
    let world = world(Scenario::new(412).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    let mut daemon = running(&world).await;
    ends(&add(&world, 2, "Second"), 0, "is added");
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let others = exported(&world, 1);
    assert!(!holders(&world.store(), tenant_id(2).as_bytes()).is_empty());

    ends(
        &world.tenantry(&["tenant", "remove", "tenant-1", "--purge", "--yes"]),
        1,
        "would be collected again: remove its",
    );
    ends(
        &world.tenantry(&["tenant", "remove", "second", "--purge", "--yes"]),
        0,
        "it is erased when the daemon runs, or at once by `tenantry tenant purges --wait`",
    );
    assert_gone(&world);
    assert!(purges(&world, &[])[0]["done_at"].is_null());
    let [receipt] = &purges(&world, &["--wait"])[..] else { panic!("one was asked for") };
    assert_eq!((receipt["blobs"].as_u64(), receipt["left"].as_u64()), (Some(4), Some(0)), "{receipt:#}");
    // The record of purges names it in text, and nothing else does.
    let holders = holders(&world.store(), tenant_id(2).as_bytes());
    assert_eq!(holders, Vec::<String>::new());
    assert_eq!(exported(&world, 1), others);
    let mut daemon = running(&world).await;
    collecting(&mut daemon, 1).await;
    assert_eq!(of(&daemon.status().await.unwrap(), tenant_id(2)), &Value::Null);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_names_is_purged_when_the_file_names_it_no_longer() {
    let world = world(Scenario::new(413).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    let both = [1, 2].map(|number| (tenant_id(number), format!("tenant-{number}")));
    world.configure(&both, "");
    let mut daemon = running(&world).await;
    daemon.wait_collected(&world).await;
    let purge = |tenant: &str| world.tenantry(&["tenant", "remove", tenant, "--purge", "--yes"]);
    let refused = purge("tenant-2");
    ends(&refused, 1, "so that what Microsoft still holds of it would be collected again");
    ends(&refused, 1, &format!("and then `tenantry tenant remove --purge {}`", tenant_id(2)));
    assert!(!exported(&world, 2).is_empty());

    world.configure(&both[..1], "");
    ends(&world.tenantry(&["reload"]), 0, "1 removed");
    ends(&purge(&tenant_id(3).to_string()), 64, "nothing of it is stored");
    ends(&purge(&tenant_id(2).to_string()), 0, "from now on nothing of it is shown");
    assert_eq!(purges(&world, &["--wait"])[0]["blobs"].as_u64(), Some(4));
    assert_gone(&world);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_arriving_neither_holds_up_a_purge_nor_comes_after_it() {
    // One never ends; the other ends while the purge waits for it.
    for (seed, for_ms) in [(414, None), (415, Some(1500))] {
        let world = world(
            Scenario::new(seed).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 2, 1.0)),
            "[daemon]\ndrain = \"5s\"\n",
        );
        let mut daemon = running(&world).await;
        let stall = Effect::Stall { at: Point::MidBody, for_ms };
        world.cloud.control().add_fault(Fault::new(stall).tenant(tenant_id(2)).on([Endpoint::Blob]));
        ends(&add(&world, 2, "Second"), 0, "is added");
        let arriving = || world.cloud.summary().requests(tenant_id(2), Endpoint::Blob);
        daemon.wait("a body is arriving", |_| arriving() > 0).await;
        let purge = || world.tenantry(&["tenant", "remove", &tenant_id(2).to_string(), "--purge", "--yes"]);
        ends(&purge(), 0, "from now on nothing of it is shown");
        is_left_alone(&world, 2).await;
        let receipts = purges(&world, &["--wait"]);
        let complete = receipts.iter().map(|receipt| receipt["blobs"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(complete > 0, for_ms.is_some(), "{receipts:#?}");
        assert_gone(&world);
        ends(&purge(), 64, "nothing of it is stored");
        collecting(&mut daemon, 1).await;
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_purged_while_its_consent_is_proved_is_not_enrolled() {
    let house = House::new("");
    let control = house.world.cloud.control();
    // The first try of the proof is in vain, and the second comes half a minute later.
    control.set_entra(|entra| entra.replication_ms = 5_000);
    let mut daemon = started(&house.world).await;
    let link = house.invite(&[]);
    crate::secrets::consent(&house, &link).await;
    let contoso = tenant_id(CONTOSO).to_string();
    let invites = || house.world.tenantry(&["tenant", "invites", "--json"]);
    daemon.wait("the proof is waited for", |_| said(&invites()).contains("\"proving\"")).await;
    let asked = house.world.cloud.ledger().token_requests.len();
    ends(&house.world.tenantry(&["tenant", "remove", &contoso, "--purge", "--yes"]), 0, "from now on nothing of it is");
    daemon.wait_log("the invite was erased meanwhile").await;
    assert!(house.world.cloud.ledger().token_requests.len() > asked, "the proof was there");
    assert!(!said(&invites()).contains(&contoso) && !said(&invites()).contains("\"open\""), "{}", said(&invites()));
    assert!(!said(&house.world.tenantry(&["tenant", "list"])).contains(&contoso));
    assert!(daemon.stop().await.success());
}
