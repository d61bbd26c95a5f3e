//! Looking after the disk: what is kept, and what happens when there is no room.

use std::fs;

use tenantry_simulator::Scenario;

use crate::phases::PARTITION;
use crate::world::{World, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_would_cost_recent_partitions_drops_nothing_and_says_so() {
    let world = World::new(Scenario::new(95).tenant(tenant(1, 25, 3.0)), "");
    world.set("store", "partition_size", PARTITION);
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    // It takes effect with a reload.
    world.set("store", "keep_at_most", "\"1 MiB\"");
    let reloaded = world.tenantry(&["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert!(!String::from_utf8_lossy(&reloaded.stdout).contains("restart"));
    daemon.wait_log("raise `store.keep_at_most`").await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
    assert!(!fs::read_to_string(world.dir.path().join("log")).unwrap().contains("a partition was dropped"));
}

#[test]
fn a_time_that_would_forget_what_is_repeated_is_refused_with_the_reason() {
    let world = World::new(Scenario::new(96).tenant(tenant(1, 0, 1.0)), "");
    world.set("store", "keep_for", "\"8d\"");
    let output = world.tenantry(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("store.keep_for: 8d is too low") && told.contains("stored twice"), "{told}");
    assert!(told.contains("set at least 9d"), "{told}");
}
