//! Looking after the disk: what is kept, and what happens when there is no room, or nothing can be written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Endpoint, Feed, Scenario, Tenant};
use uuid::Uuid;

use crate::phases::PARTITION;
use crate::volume::{Volume, run};
use crate::world::{Daemon, World, offered, tenant, tenant_id};

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

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A world whose store is on a small disk of its own; none where that cannot be made.
fn small(scenario: Scenario, reserve: &str, partition: &str) -> Option<(World, Volume)> {
    let world = World::new(scenario, "");
    world.set("store", "partition_size", partition);
    world.set("store", "reserve", reserve);
    let disk = Volume::at(&world.store(), 4096 * MIB)?;
    Some((world, disk))
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

fn waiting(status: &Value) -> u64 {
    status["tenants"][0]["queue"]["entries"].as_u64().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

fn log_of(world: &World) -> String {
    fs::read_to_string(world.dir.path().join("log")).unwrap_or_default()
}

/// What must be true at the end, whatever the disk did.
async fn assert_nothing_was_lost(world: World, disk: Volume, mut daemon: Daemon) {
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
    let verified = world.tenantry(&["verify", "--store-only"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(!world.store().join("aside").exists(), "this is no damage");
    assert!(world.dead_letters().await.is_empty());
    disk.unmount().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_pauses_before_the_disk_is_full_and_goes_on_by_itself() {
    let Some((world, disk)) = small(Scenario::new(97).tenant(busy(40)), "\"90 MiB\"", PARTITION) else { return };
    let mut daemon = world.run();
    daemon.wait("it stores", |status| stored(status) > 0).await;
    disk.fill(80 * MIB);
    let until = |status: &Value| {
        let oldest: jiff::Timestamp = status["tenants"][0]["queue"]["oldest"].as_str()?.parse().unwrap();
        let gone = oldest + jiff::SignedDuration::from_hours(7 * 24);
        Some(format!(
            " content blobs wait, and Microsoft holds the oldest of them until {}",
            gone.strftime("%F %H:%M UTC")
        ))
    };
    // What was under way ends first, and the sentence is a second old.
    let status = daemon.wait("it pauses, and says until when Microsoft holds what waits", |status| {
        let sentence = status["sentence"].as_str().unwrap();
        is_paused(status) && until(status).is_some_and(|until| sentence.contains(&until))
    });
    let status = status.await;
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("collecting from 1 tenant is paused: the store's file system has "), "{sentence}");
    assert!(sentence.contains(" left, and `store.reserve` is 90 MiB; "), "{sentence}");
    let tenant = &status["tenants"][0];
    assert_eq!((&tenant["state"], &tenant["trouble"]["kind"]), (&"paused".into(), &"disk_short".into()));
    daemon.wait_log("collecting is paused: the store's file system has ").await;
    assert!(!log_of(&world).contains("cannot be written"), "the disk was full before\n{}", log_of(&world));
    assert!(disk.free() > MIB, "{} bytes are left", disk.free());
    let told = said(&world.tenantry(&["status"]));
    assert!(told.contains(": free space on it, or move the store to a larger one"), "{told}");

    // The end waits for no slot, and the next process knows at once.
    assert!(daemon.stop().await.success());
    assert!(!log_of(&world).contains("abandoned"), "{}", log_of(&world));
    let mut daemon = world.run();
    daemon
        .wait("it is paused again, and lists", |status| {
            is_paused(status) && !status["tenants"][0]["last_poll"].is_null()
        })
        .await;
    // A lower reserve takes effect with a reload,
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, text.replace("90 MiB", "20 MiB")).unwrap();
    let reloaded = world.tenantry(&["reload"]);
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    daemon.wait("it goes on", |status| !is_paused(status)).await;
    daemon.wait_log("collecting goes on").await;
    // and so does space.
    fs::write(&world.config, text).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    daemon.wait("it pauses again", is_paused).await;
    disk.clear();
    daemon.wait("it goes on again", |status| !is_paused(status)).await;
    assert_nothing_was_lost(world, disk, daemon).await;
}

/// A blob of which most does not get smaller, so that little work fills a disk.
fn large(random: &mut fastrand::Rng) -> BlobSpec {
    let id = Uuid::from_u128(random.u128(..));
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(1_000_000).collect();
    BlobSpec::new(tenant_id(1), ContentType::General).body(&format!(r#"[{{"Id":"{id}","Noise":"{noise}"}}]"#))
}

/// Which writes have met a full disk, as the log tells: of a path, what it is a part of.
fn met(log: &str) -> BTreeMap<&'static str, usize> {
    let sites = [
        ("/state-", "state"),
        ("/state`", "state's pointer"),
        ("/content/.new-", "new partition"),
        ("seen", "index of what was seen"),
        ("sealed", "seal"),
        ("/db`", "content"),
    ];
    let mut met = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("space")) {
        if let Some((_, site)) = sites.iter().find(|(part, _)| line.contains(part)) {
            *met.entry(*site).or_default() += 1;
        }
    }
    met
}

/// Fills the disk up, but for so many KiB at a time, under a daemon whose partitions are of this size.
#[expect(clippy::print_stderr, reason = "the figures belong to the test's output")]
async fn fill_again_and_again(seed: u64, partition: &str, all_large: usize, all_left: &[u64], sites: &[&str]) {
    let Some((world, disk)) = small(Scenario::new(seed).tenant(busy(60)), "\"1 KiB\"", partition) else { return };
    let mut daemon = world.run();
    let (mut random, mut longest) = (fastrand::Rng::with_seed(seed), Duration::ZERO);
    for left in all_left {
        let before = stored(&daemon.wait("it answers", |_| true).await);
        daemon.wait("it stores", |status| stored(status) > before).await;
        let logged = daemon.log().len();
        disk.fill(left * KIB);
        let began = Instant::now();
        for _ in 0..all_large {
            world.cloud.control().add_blobs(large(&mut random));
        }
        let log = world.dir.path().join("log");
        let full = daemon.wait("it meets the full disk, and the tenant is told of it", |status| {
            let log = fs::read_to_string(&log).unwrap();
            let met = is_paused(status) || log[logged..].contains("cannot be written");
            met && !status["tenants"][0]["trouble"].is_null()
        });
        let full = full.await;
        let kind = full["tenants"][0]["trouble"]["kind"].as_str().unwrap();
        assert!(["disk_short", "store_disk_full", "store_suspended"].contains(&kind), "{full:#}");
        let full = stored(&full);
        disk.clear();
        let (was_full, cleared) = (began.elapsed(), Instant::now());
        daemon.wait("it goes on", |status| !is_paused(status) && stored(status) > full).await;
        let resumed = cleared.elapsed();
        // Waits grow with the time that it has lasted, and with nothing else.
        assert!(resumed < 4 * was_full + Duration::from_secs(10), "{resumed:?} after {was_full:?}\n{}", daemon.log());
        longest = longest.max(resumed);
        eprintln!("{left} KiB left: {:?}, {resumed:?} after {was_full:?}", met(&daemon.log()[logged..]));
    }
    let met = met(&daemon.log());
    eprintln!("full disks were met by {met:?}, and at most {longest:?} later it went on");
    for site in sites {
        assert!(met.contains_key(site), "{site} is not among {met:?}");
    }
    assert_nothing_was_lost(world, disk, daemon).await;
}

/// What is left decides which write is the first to find no room: of a small file, of a new partition's database, of the
/// index of one that is sealed.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_once_loses_nothing_while_partitions_are_begun_and_sealed() {
    let left = [0, 4, 8, 12, 16, 20, 24, 32, 64, 4096, 8300, 9000];
    fill_again_and_again(98, PARTITION, 3, &left, &["new partition", "seal"]).await;
}

/// Here it is that of a batch, of parts that are sent ahead, of the state.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_once_loses_nothing_while_blobs_are_stored() {
    let left = [0, 4, 64, 200, 512, 1024, 3000, 6000];
    // So many take more than what the database of a partition has allotted to itself ahead.
    fill_again_and_again(106, "\"256 MiB\"", 12, &left, &["content"]).await;
}

/// The state: nothing is retrieved, since more is to be kept free than there is, and the queue is all that grows.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures belong to the test's output")]
async fn a_disk_that_is_full_at_once_loses_nothing_of_what_is_listed() {
    let Some((world, disk)) = small(Scenario::new(107).tenant(busy(10)), "\"1 TiB\"", PARTITION) else { return };
    let mut daemon = world.run();
    daemon.wait("it lists", |status| is_paused(status) && waiting(status) > 0).await;
    for left in [0, 64, 1024] {
        let logged = daemon.log().len();
        disk.fill(left * KIB);
        let log = world.dir.path().join("log");
        let says_so = || fs::read_to_string(&log).unwrap()[logged..].contains("the state cannot be written");
        let mut lots = 0;
        while !says_so() {
            world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).count(2000).records(1));
            lots += 1;
            let listed = offered(&world.cloud.ledger(), tenant_id(1));
            daemon.wait("they are queued, or cannot be", |status| waiting(status) >= listed || says_so()).await;
        }
        disk.clear();
        let listed = offered(&world.cloud.ledger(), tenant_id(1));
        daemon.wait("all that is listed is queued", |status| waiting(status) >= listed).await;
        eprintln!("{left} KiB left: {:?} after {lots} times 2000 blobs", met(&daemon.log()[logged..]));
    }
    daemon.wait_log("the state can be written again").await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    assert!(!world.store().join("aside").exists(), "this is no damage");
    disk.unmount().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures belong to the test's output")]
async fn a_start_on_a_full_disk_says_so_and_succeeds_when_there_is_space() {
    let Some((world, disk)) = small(Scenario::new(100).tenant(tenant(1, 20, 3.0)), "\"1 KiB\"", PARTITION) else {
        return;
    };
    // The service allows a subscription to be started once in a while, and not as often as this starts.
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    daemon.kill();
    for store in ["there", "gone"] {
        if store == "gone" {
            for entry in fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { fs::remove_dir_all(entry).unwrap() } else { fs::remove_file(entry).unwrap() }
            }
        }
        let mut refused = 0;
        for left in [0, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 128, 512, 4096, 8192, 8300, 9000, 12000, 16384, 17000] {
            disk.fill(left * KIB);
            let logged = log_of(&world).len();
            let mut daemon = world.run();
            match daemon.started_or_ended().await {
                Some(ended) => {
                    let log = &log_of(&world)[logged..];
                    assert_eq!(ended.code(), Some(75), "{left} KiB left: {log}");
                    assert!(log.contains("No space left on device"), "{left} KiB left: {log}");
                    assert!(log.contains("; free space on the store's file system, or move"), "{left} KiB left: {log}");
                    refused += 1;
                }
                // What it does there goes on where it was, even after an end without warning.
                None => daemon.kill(),
            }
            disk.clear();
        }
        eprintln!("a start on a full disk with a store that is {store} was refused {refused} times");
        assert!(refused > 0);
        assert!(!world.store().join("aside").exists(), "this is no damage");
        let mut daemon = world.run();
        daemon.wait_collected(&world).await;
        daemon.kill();
    }
    let daemon = world.run();
    assert_nothing_was_lost(world, disk, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_elsewhere_for_people_is_whole_or_not_there() {
    let world = World::new(Scenario::new(104).tenant(tenant(1, 40, 3.0)), "");
    world.set("store", "partition_size", PARTITION);
    let Some(disk) = Volume::at(&world.dir.path().join("elsewhere"), 200 * MIB) else { return };
    let folder = Path::new(disk.path()).join("backup");
    let file = Path::new(disk.path()).join("records.ndjson");
    let (backup, export) =
        (["store", "backup", folder.to_str().unwrap()], ["export", "--output", file.to_str().unwrap()]);
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let mut running = Some(daemon);
    // First the daemon is asked, then there is none.
    for _ in 0..2 {
        for left in [0, 4, 64, 512, 4096, 8200, 9000, 12000] {
            disk.fill(left * KIB);
            let refused = world.tenantry(&backup);
            let told = said(&refused);
            assert_eq!(refused.status.code(), Some(75), "{left} KiB left: {told}");
            assert!(told.contains("space"), "{left} KiB left: {told}");
            assert!(!folder.join("manifest").exists(), "{left} KiB left: it is no whole backup");
            disk.clear();
        }
        for left in [0, 4, 16, 64] {
            disk.fill(left * KIB);
            let refused = world.tenantry(&export);
            let told = said(&refused);
            assert_eq!(refused.status.code(), Some(75), "{left} KiB left: {told}");
            assert!(told.contains("space"), "{left} KiB left: {told}");
            disk.clear();
            let others: Vec<_> = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(others.iter().all(|name| name == "lost+found" || name == "backup"), "{others:?}");
        }
        // With space, what was broken off is completed.
        for command in [&backup[..], &export] {
            let done = world.tenantry(command);
            assert!(done.status.success(), "{}", said(&done));
        }
        fs::remove_file(&file).unwrap();
        match running.take() {
            Some(daemon) => {
                assert!(daemon.stop().await.success());
                fs::remove_dir_all(&folder).unwrap();
            }
            None => break,
        }
    }
    fs::remove_dir_all(world.store()).unwrap();
    let restored = world.tenantry(&["store", "restore", folder.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", said(&restored));
    world.assert_collected_by(&ledger);
    disk.unmount().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_mounted_read_only_loses_nothing() {
    let Some((world, disk)) = small(Scenario::new(99).tenant(busy(60)), "\"1 KiB\"", PARTITION) else { return };
    let mut daemon = world.run();
    daemon.wait("it stores", |status| stored(status) > 0).await;
    // The kernel refuses to do this to a mount with files that are open for writing; so another one is laid over it, by
    // which all that is opened from then on cannot be written.
    let aside = world.dir.path().join("read-only");
    fs::create_dir(&aside).unwrap();
    let aside = aside.to_str().unwrap();
    run("mount", &["--bind", disk.path(), aside]).unwrap();
    run("mount", &["-o", "remount,bind,ro", aside]).unwrap();
    run("mount", &["--bind", aside, disk.path()]).unwrap();
    run("umount", &[aside]).unwrap();
    let status = daemon.wait("it pauses", is_paused).await;
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.contains("the store's file system is mounted read-only; "), "{sentence}");
    daemon.wait("something waits", |status| waiting(status) > 0).await;
    daemon.wait_log("collecting is paused: the store's file system is mounted read-only").await;
    run("umount", &["-l", disk.path()]).unwrap();
    let before = stored(&daemon.wait("it goes on", |status| !is_paused(status)).await);
    daemon.wait("it stores again", |status| stored(status) > before).await;
    assert_nothing_was_lost(world, disk, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_everything_is_told_of_and_loses_nothing() {
    let Some((world, disk)) = small(Scenario::new(105).tenant(busy(60)), "\"1 KiB\"", PARTITION) else { return };
    for _ in 0..3 {
        let mut daemon = world.run();
        let before = stored(&daemon.wait("it runs", |_| true).await);
        daemon.wait("it stores", |status| stored(status) > before).await;
        let logged = daemon.log().len();
        disk.arm().cut();
        let log = world.dir.path().join("log");
        let told = daemon.wait("the tenant and the journal are told of it", |status| {
            let kind = status["tenants"][0]["trouble"]["kind"].as_str();
            let log = fs::read_to_string(&log).unwrap();
            kind.is_some_and(|kind| kind.starts_with("store_"))
                && log[logged..].contains(" cannot be written")
                && log[logged..].contains("check the disk and the file system (`dmesg`)")
        });
        told.await;
        // It ends when it is told to, with nothing to be written to.
        daemon.stop().await;
        disk.unmount().unwrap();
        disk.mount().unwrap();
        assert!(!world.store().join("aside").exists(), "this is no damage");
    }
    let daemon = world.run();
    assert_nothing_was_lost(world, disk, daemon).await;
}

/// The state can be read and written, and the guard sees no trouble: only what is retrieved cannot be stored.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figure belongs to the test's output")]
async fn what_cannot_be_stored_is_not_asked_for_at_full_speed() {
    let world = World::new(Scenario::new(108).tenant(busy(0)), "");
    world.set("store", "partition_size", PARTITION);
    let mut daemon = world.run();
    daemon.wait("it stores", |status| stored(status) > 0).await;
    assert!(daemon.stop().await.success());
    let (content, before) = (world.store().join("content"), world.dir.path().join("before"));
    fs::rename(&content, &before).unwrap();
    let Some(disk) = Volume::at(&content, 400 * MIB) else { return };
    run("cp", &["-a", before.join(".").to_str().unwrap(), disk.path()]).unwrap();
    let mut daemon = world.run();
    let before = stored(&daemon.wait("it runs", |_| true).await);
    daemon.wait("it stores there", |status| stored(status) > before).await;
    disk.fill(0);
    let cannot = daemon.wait("content cannot be stored", |status| {
        let kind = status["tenants"][0]["trouble"]["kind"].as_str();
        kind.is_some_and(|kind| kind.starts_with("store_"))
    });
    cannot.await;
    let asked = || world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    let (before, since) = (asked(), Instant::now());
    daemon.wait("some time passes", |_| since.elapsed() > Duration::from_secs(25)).await;
    let asked = asked() - before;
    eprintln!("{asked} blobs were asked for in 25 seconds in which none could be stored");
    assert!(asked < 120, "{asked} requests\n{}", daemon.log());
    disk.clear();
    assert_nothing_was_lost(world, disk, daemon).await;
}
