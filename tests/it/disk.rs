//! Looking after the disk: what is kept, and what happens when there is no room.

use std::fs;

use serde_json::Value;
use tenantry_simulator::{ContentType, Feed, Scenario, Tenant};

use crate::phases::PARTITION;
use crate::skip::no_file_system;
use crate::volume::{Volume, run};
use crate::world::{World, tenant, tenant_id};

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

const MIB: u64 = 1 << 20;

/// A world whose store is on a small disk of its own; none where that cannot be made.
fn small(scenario: Scenario, reserve: &str) -> Option<(World, Volume)> {
    let world = World::new(scenario, "");
    world.set("store", "partition_size", PARTITION);
    world.set("store", "reserve", reserve);
    match Volume::new(world.dir.path(), 600 * MIB) {
        Ok(disk) => Some((world, disk)),
        Err(reason) => {
            no_file_system(&format!("no loop device with ext4 can be made here: {reason}"));
            None
        }
    }
}

/// A tenant to whom something happens all the time.
fn busy(backlog: u32) -> Tenant {
    ContentType::AUDIT.into_iter().fold(Tenant::new(tenant_id(1), "tenant-1"), |tenant, content_type| {
        tenant.feed(Feed::new(content_type).backlog(backlog, 6.0).records(2, 20).live_every_ms(400))
    })
}

fn is_paused(status: &Value) -> bool {
    !status["pause"].is_null()
}

fn stored(status: &Value) -> u64 {
    status["tenants"][0]["stored_today"]["blobs"].as_u64().unwrap()
}

/// What must be true at the end, whatever the disk did.
async fn assert_nothing_was_lost(world: World, disk: Volume, mut daemon: crate::world::Daemon) {
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
    assert!(!world.store().join("aside").exists(), "a full disk is no damage");
    assert!(world.dead_letters().await.is_empty());
    disk.unmount().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_pauses_before_the_disk_is_full_and_goes_on_by_itself() {
    let scenario = Scenario::new(97).tenant(tenant(1, 80, 3.0));
    let Some((world, disk)) = small(scenario, "\"90 MiB\"") else { return };
    disk.fill(190 * MIB);
    let mut daemon = world.run();
    let status = daemon.wait("it pauses", |status| is_paused(status) && stored(status) > 0).await;
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("collecting from 1 tenant is paused: the store's file system has "), "{sentence}");
    assert!(sentence.contains("content blobs wait, and Microsoft holds the oldest of them until 20"), "{sentence}");
    let tenant = &status["tenants"][0];
    assert_eq!((&tenant["state"], &tenant["trouble"]["kind"]), (&"paused".into(), &"disk_short".into()));
    daemon.wait_log("collecting is paused: the store's file system has ").await;
    assert!(disk.free() > 40 * MIB, "{} bytes are left", disk.free());
    let told = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(told.contains("to do: free space on it, or move the store to a larger one"), "{told}");

    // The end waits for no slot, and the next process knows at once.
    assert!(daemon.stop().await.success());
    assert!(!daemon_log(&world).contains("abandoned"), "{}", daemon_log(&world));
    let mut daemon = world.run();
    daemon
        .wait("it is paused again, and lists", |status| {
            is_paused(status) && !status["tenants"][0]["last_poll"].is_null()
        })
        .await;
    // A lower reserve takes effect with a reload,
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, text.replace("90 MiB", "60 MiB")).unwrap();
    let reloaded = world.tenantry(&["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    daemon.wait_log("collecting goes on").await;
    // and space at once.
    disk.clear();
    daemon.wait("it goes on", |status| !is_paused(status)).await;
    assert_nothing_was_lost(world, disk, daemon).await;
}

fn daemon_log(world: &World) -> String {
    fs::read_to_string(world.dir.path().join("log")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_once_loses_nothing_wherever_that_is_met() {
    let Some((world, disk)) = small(Scenario::new(98).tenant(busy(60)), "\"1 KiB\"") else { return };
    let mut daemon = world.run();
    // What is left decides which write is the first to find no room: of a small file, of the state, of a new partition.
    for left in [0, 64 << 10, MIB, 3 * MIB, 9 * MIB, 20 * MIB] {
        let before = stored(&daemon.wait("it answers", |_| true).await);
        daemon.wait("it stores", |status| stored(status) > before).await;
        let said = daemon.log().len();
        disk.fill(left);
        let log = world.dir.path().join("log");
        daemon
            .wait("it meets the full disk", |status| {
                let log = fs::read_to_string(&log).unwrap();
                is_paused(status) || log[said..].contains("cannot be written")
            })
            .await;
        let full = daemon.wait("the tenant is told of it", |status| !status["tenants"][0]["trouble"].is_null()).await;
        let kind = full["tenants"][0]["trouble"]["kind"].as_str().unwrap();
        assert!(["disk_short", "store_disk_full", "store_suspended"].contains(&kind), "{full:#}");
        disk.clear();
        let full = stored(&full);
        daemon.wait("it goes on", |status| !is_paused(status) && stored(status) > full).await;
    }
    assert_nothing_was_lost(world, disk, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_loses_nothing() {
    let Some((world, disk)) = small(Scenario::new(99).tenant(busy(60)), "\"1 KiB\"") else { return };
    let mut daemon = world.run();
    daemon.wait("it stores", |status| stored(status) > 0).await;
    // The kernel refuses to do this to a mount with files that are open for writing; so another one is laid over it, by
    // which all that is opened from then on cannot be written.
    run("mount", &["--bind", disk.path(), disk.path()]).unwrap();
    run("mount", &["-o", "remount,bind,ro", disk.path()]).unwrap();
    let status = daemon.wait("it pauses", is_paused).await;
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.contains("the store's file system is mounted read-only; "), "{sentence}");
    daemon.wait("something waits", |status| status["tenants"][0]["queue"]["entries"].as_u64() > Some(0)).await;
    run("umount", &["-l", disk.path()]).unwrap();
    let before = stored(&daemon.wait("it goes on", |status| !is_paused(status)).await);
    daemon.wait("it stores again", |status| stored(status) > before).await;
    assert_nothing_was_lost(world, disk, daemon).await;
}
