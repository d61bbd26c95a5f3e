//! Reviews of incidents and attachments of posts, fetched of Graph by command.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tenantry_simulator::{
    ACTIVITY_READ, Board, Effect, Endpoint, Fault, HEALTH_READ, Scenario, Throttle, ThrottleShape,
};

use crate::tenants::{ends, running};
use crate::world::{APP, World, assert_no_violations, tenant, tenant_id};

const REVIEWED: &str = "postIncidentReviewPublished";

/// A reviewed issue, one that is not, a post with attachments and one without. Health is not collected.
fn world(scenario: Scenario) -> World {
    let world = World::new(scenario, "");
    let control = world.cloud.control();
    control.announce(tenant_id(1), Board::Issues, json!({"id": "EX1", "status": REVIEWED, "isResolved": true}));
    control.announce(tenant_id(1), Board::Issues, json!({"id": "EX2", "status": "investigating", "isResolved": false}));
    control.announce(tenant_id(1), Board::Messages, json!({"id": "MC1", "title": "t", "hasAttachments": true}));
    control.announce(tenant_id(1), Board::Messages, json!({"id": "MC2", "title": "t", "hasAttachments": false}));
    world
}

fn names(world: &World, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(world.dir.path().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_and_none_is_overwritten() {
    let world = world(Scenario::new(731).tenant(tenant(1, 1, 0.5)));
    let mut daemon = running(&world).await;
    let path = |name: &str| world.dir.path().join(name).to_str().unwrap().to_owned();
    let (review, folder) = (path("review.docx"), path("new/attachments"));

    ends(&world.tenantry(&["health", "report", "EX1", "-o", &review]), 0, "written, 13 bytes");
    assert_eq!(fs::read(&review).unwrap(), b"PIR of EX1 \0\x01");
    fs::write(&review, "mine").unwrap();
    ends(&world.tenantry(&["health", "report", "EX1", "-o", &review]), 64, "exists already");
    assert_eq!(fs::read(&review).unwrap(), b"mine");
    assert_eq!(world.tenantry(&["health", "report", "EX1", "-o", "-"]).stdout, b"PIR of EX1 \0\x01");
    fs::create_dir(path("here")).unwrap();
    let output = world.command(&["health", "report", "EX1"]).current_dir(path("here")).output().unwrap();
    ends(&output, 0, "`EX1.bin` written");

    ends(
        &world.tenantry(&["health", "attachments", "MC1", "-o", &folder, "--tenant", "tenant-1"]),
        0,
        "written, 20 bytes",
    );
    let expected = ["MC1-1-A-table-for-this-message-is-within-the-Message-Center.csv", "MC1-2-outside.txt"];
    assert_eq!(names(&world, "new/attachments"), expected.map(str::to_owned).into());
    assert_eq!(fs::read(format!("{folder}/{}", expected[1])).unwrap(), b"attachment 2 of MC1\n");
    ends(&world.tenantry(&["health", "attachments", "MC1", "-o", &folder]), 64, "exists already");
    ends(&world.tenantry(&["health", "attachments", "MC1", "-o", &folder, "--archive"]), 0, "MC1.zip` written");
    ends(&world.tenantry(&["health", "attachments", "MC1", "--list"]), 0, "application/csv");
    let listed = world.tenantry(&["health", "attachments", "MC1", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[1]["size"]), (2, &json!(20)));

    // What is not there, and what is no id.
    ends(&world.tenantry(&["health", "report", "EX2", "-o", "-"]), 1, REVIEWED);
    ends(&world.tenantry(&["health", "report", "EX9", "-o", "-"]), 1, "Microsoft Graph does not know it");
    ends(&world.tenantry(&["health", "attachments", "MC2"]), 1, "`MC2` has no attachments");
    ends(&world.tenantry(&["health", "attachments", "MC9"]), 1, "hasAttachments");
    ends(&world.tenantry(&["health", "report", "../users"]), 64, "is no id");
    ends(&world.tenantry(&["health", "report", "EX1", "--tenant", "nobody"]), 64, "nobody");

    // A wait holds for whoever asks next.
    let throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(600) };
    world.cloud.control().add_fault(Fault::new(Effect::Throttled(throttle)).on([Endpoint::GraphFile]));
    ends(&world.tenantry(&["health", "report", "EX1", "-o", "-"]), 1, "throttles the app");
    world.cloud.control().clear_faults();
    ends(&world.tenantry(&["health", "report", "EX1", "-o", "-"]), 1, "wants to be left alone");
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    ends(&world.tenantry(&["health", "report", "EX1"]), 69, "no daemon is running");
    let ledger = world.cloud.ledger();
    let of_graph = ledger.token_requests.iter().filter(|asked| asked.audience.contains("graph")).count();
    assert_eq!(of_graph, 1, "one token for all that was asked");
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_come_whole_is_not_left_behind() {
    for (seed, chunked) in [(732, true), (733, false)] {
        let world = world(Scenario::new(seed).tenant(tenant(1, 1, 0.5)));
        world.cloud.control().add_fault(Fault::new(Effect::Truncate { chunked }).on([Endpoint::GraphFile]));
        let daemon = running(&world).await;
        fs::create_dir(world.dir.path().join("here")).unwrap();
        let output = world.command(&["health", "report", "EX1"]).current_dir(world.dir.path().join("here")).output();
        ends(&output.unwrap(), 75, "did not come whole");
        assert_eq!(names(&world, "here"), BTreeSet::new());
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_is_named_and_two_tenants_must_be_told_apart() {
    let one = tenant(1, 1, 0.5).consent(APP, &[ACTIVITY_READ, HEALTH_READ]);
    let world = world(Scenario::new(734).tenant(one).tenant(tenant(2, 1, 0.5)));
    let mut daemon = running(&world).await;
    let one = ["--tenant", "tenant-1"];
    let attachments = world.tenantry(&[&["health", "attachments", "MC1"], &one[..]].concat());
    ends(&attachments, 1, "ServiceMessage.Read.All");
    ends(&attachments, 1, "consent again");
    ends(&world.tenantry(&[&["health", "report", "EX1", "-o", "-"], &one[..]].concat()), 0, "PIR of EX1");
    ends(&world.tenantry(&["health", "report", "EX1"]), 64, "there are 2 tenants");
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
}
