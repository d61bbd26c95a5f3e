//! `tenantry verify`: what Microsoft lists and is not held is named and collected, and so is what is changed behind the
//! daemon's back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use std::time::Duration;
use tenantry_simulator::{BlobSpec, ContentType, Effect, Endpoint, Fault, Scenario};

use crate::phases::PARTITION;
use crate::tenants::{ends, said};
use crate::world::{Daemon, World, tenant, tenant_id};

/// The partitions on the disk, oldest first.
pub(crate) fn partitions(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.store().join("content")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| name(path).starts_with('2')).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The exit code, the text and the findings; the text and the JSON must agree.
fn verify(world: &World) -> (i32, String, Vec<Value>) {
    let text = world.tenantry(&["verify", "--store-only"]);
    let json = world.tenantry(&["verify", "--store-only", "--json"]);
    assert_eq!(text.status.code(), json.status.code(), "{}", String::from_utf8_lossy(&text.stderr));
    let verified: Value = serde_json::from_slice(&json.stdout).unwrap();
    let findings = verified["findings"].as_array().unwrap().clone();
    (text.status.code().unwrap(), String::from_utf8(text.stdout).unwrap(), findings)
}

/// A store of several partitions, and a copy of it to damage again and again.
async fn collected() -> (World, PathBuf) {
    let world = World::new(Scenario::new(91).tenant(tenant(1, 25, 3.0)), "");
    world.set("store", "partition_size", PARTITION);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let (code, text, findings) = verify(&world);
    assert_eq!((code, findings.len()), (0, 0), "while the daemon runs: {text}");
    assert!(daemon.stop().await.success());
    assert!(partitions(&world).len() >= 3, "{:?}", partitions(&world));
    let good = world.dir.path().join("good");
    copy(&world.store(), &good);
    (world, good)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(name(&path));
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(&path, &target).unwrap() }
    }
}

/// Puts the store back as it was, and damages it.
fn damage(world: &World, good: &Path, how: impl FnOnce(&[PathBuf])) -> (i32, String, Vec<Value>) {
    fs::remove_dir_all(world.store()).unwrap();
    copy(good, &world.store());
    how(&partitions(world));
    verify(world)
}

/// The partition's database, to be changed as only somebody who knows it could.
fn open(partition: &Path) -> sled::Db {
    sled::Config::new().path(partition.join("db")).segment_size(8 << 20).open().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_removed_or_exchanged_is_named() {
    let (world, good) = collected().await;
    let (code, text, findings) = damage(&world, &good, |_| {});
    assert_eq!((code, findings.len()), (0, 0), "{text}");
    assert!(text.contains("sound: everything is there"), "{text}");
    // The heads that the journal was told.
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    for partition in partitions(&world) {
        let line = text.lines().find(|line| line.trim_start().starts_with(&name(&partition))).unwrap();
        let digest = line.split_whitespace().last().unwrap();
        let told = format!("partition={} ", name(&partition));
        assert!(log.lines().any(|line| line.contains(&told) && line.contains(digest)), "{line}\n{log}");
    }

    // One byte of the file, in the middle of a body.
    let (code, text, findings) = damage(&world, &good, |partitions| {
        let path = partitions[1].join("db/db");
        let mut bytes = fs::read(&path).unwrap();
        let frame = memchr::memmem::find_iter(&bytes, &[0x28, 0xb5, 0x2f, 0xfd]).nth(3).unwrap();
        bytes[frame + 40] ^= 1;
        fs::write(&path, bytes).unwrap();
    });
    assert_eq!(code, 2, "{text}");
    let second = name(&partitions(&world)[1]);
    assert!(findings.iter().all(|finding| finding["partition"] == *second), "{text}");
    assert!(findings.iter().any(|finding| finding["kind"].as_str().unwrap().starts_with("lost")), "{text}");

    // A byte of a stored value, by somebody who knows how: the header's time of fetching, say.
    let (code, text, findings) = damage(&world, &good, |partitions| {
        let db = open(&partitions[0]);
        let (key, value) = db.scan_prefix(b"H").next().unwrap().unwrap();
        let at = memchr::memmem::find(&value, b"/audit").unwrap_or(value.len() / 2);
        let mut value = value.to_vec();
        value[at + 1] ^= 1;
        db.insert(key, value).unwrap();
        db.flush().unwrap();
    });
    assert_eq!((code, &findings[0]["kind"]), (2, &Value::from("altered")), "{text}");
    assert_eq!(findings[0]["blob"]["tenant"], tenant_id(1).to_string());
    assert!(text.contains("altered (") && text.contains("(tenant-1)") && text.contains("to do: "), "{text}");
    let all = world.tenantry(&["verify"]);
    ends(&all, 2, "the store has 1 finding about it");

    // A blob, header and all.
    let (code, text, findings) = damage(&world, &good, |partitions| {
        let db = open(&partitions[1]);
        let key = db.scan_prefix(b"H").keys().nth(1).unwrap().unwrap();
        db.remove(key).unwrap();
        db.flush().unwrap();
    });
    assert_eq!((code, &findings[0]["kind"]), (2, &Value::from("gap")), "{text}");
    assert_eq!(findings[0]["partition"], *second);

    // Two directories exchanged.
    let (code, text, findings) = damage(&world, &good, |partitions| {
        let aside = partitions[0].with_file_name("aside");
        fs::rename(&partitions[0], &aside).unwrap();
        fs::rename(&partitions[1], &partitions[0]).unwrap();
        fs::rename(&aside, &partitions[1]).unwrap();
    });
    assert_eq!((code, findings.len()), (2, 2), "{text}");
    for partition in &partitions(&world)[..2] {
        let of = |finding: &&Value| finding["partition"] == *name(partition) && finding["kind"] == "lost_partition";
        let finding = findings.iter().find(of).unwrap_or_else(|| panic!("{text}"));
        assert!(finding["why"].as_str().unwrap().contains("under another name"), "{text}");
    }

    // A directory, the first, one in between or the last.
    let all = partitions(&world).len();
    for gone in [0, 1, all - 1] {
        let (code, text, findings) = damage(&world, &good, |partitions| fs::remove_dir_all(&partitions[gone]).unwrap());
        assert_eq!(code, 2, "{text}");
        let ordinals: Vec<_> = findings.iter().map(|finding| finding["ordinal"].as_u64()).collect();
        assert_eq!(ordinals, [Some(gone as u64 + 1)], "{text}");
    }
}

/// One more kind of damage: a store whose days were exchanged for those of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_days_directory_of_another_store_is_named() {
    let (world, good) = collected().await;
    let other = World::new(Scenario::new(94).tenant(tenant(1, 25, 3.0)), "");
    other.set("store", "partition_size", PARTITION);
    let mut daemon = other.run();
    daemon.wait_collected(&other).await;
    assert!(daemon.stop().await.success());
    let (theirs, ours) = (partitions(&other), partitions(&world));
    assert_eq!(name(&theirs[1]), name(&ours[1]), "the same day, and as many blobs");
    let (code, text, findings) = damage(&world, &good, |partitions| {
        fs::remove_dir_all(&partitions[1]).unwrap();
        copy(&theirs[1], &partitions[1]);
    });
    assert_eq!(code, 2, "{text}");
    let named = |finding: &Value| finding["partition"] == *name(&ours[1]) || finding["partition"] == *name(&ours[2]);
    assert!(!findings.is_empty() && findings.iter().any(named), "{text}");
    // The tenant's sentence says so too, and what is gone is missed.
    let output = world.tenantry(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(all["tenants"][0]["complete"], false);
}

/// What `tenantry verify --json` says of the only tenant.
fn inventory(world: &World, code: i32) -> Value {
    let output = world.tenantry(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(all["tenants"].as_array().unwrap().len(), 1, "{all:#}");
    all["tenants"][0].clone()
}

fn named(inventory: &Value, what: &str) -> BTreeSet<String> {
    let blobs = inventory[what]["blobs"].as_array().unwrap();
    blobs.iter().map(|blob| blob["content_id"].as_str().unwrap().to_owned()).collect()
}

/// The content ids of blobs, as the cloud has them.
fn ids(world: &World, numbers: &[u64]) -> BTreeSet<String> {
    let ledger = world.cloud.ledger();
    let named = ledger.blobs.iter().filter(|blob| numbers.contains(&blob.number));
    named.map(|blob| blob.content_id.clone()).collect()
}

fn late(content_type: ContentType, hours: f64, count: u32) -> BlobSpec {
    BlobSpec::new(tenant_id(1), content_type)
        .count(count)
        .records(3)
        .created_ago(Duration::from_secs_f64(hours * 3600.0))
}

/// Waits until what is there now has been polled again.
async fn polled(daemon: &mut Daemon, world: &World) {
    let lists = || world.cloud.ledger().requests(tenant_id(1), Endpoint::List);
    let now = lists();
    daemon.wait("more polls", move |_| lists() > now + 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_longer_tiers_configured_away_exactly_the_late_blobs_are_missing() {
    const POLLS_ONLY: &str =
        "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"6h\"\nrecent_span = \"6h\"\nsweep_interval = \"3d\"\n";
    let world = World::new(Scenario::new(92).tenant(tenant(1, 10, 6.0)).page_size(4), POLLS_ONLY);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    ends(&world.tenantry(&["verify"]), 0, "tenant-1: complete: 40 blobs listed, all stored");

    let control = world.cloud.control();
    let hours = control.add_blobs(late(ContentType::Exchange, 2.9, 3).apart(Duration::from_mins(50)));
    let days = control.add_blobs(late(ContentType::General, 120.0, 2));
    let all = ids(&world, &[&hours[..], &days[..]].concat());
    polled(&mut daemon, &world).await;
    let found = inventory(&world, 2);
    assert_eq!((named(&found, "missing"), &found["complete"]), (all.clone(), &Value::from(false)), "{found:#}");
    assert_eq!([&found["listed"], &found["stored"], &found["missing"]["count"]], [45, 40, 5], "{found:#}");
    for id in &all {
        assert!(found["sentence"].as_str().unwrap().contains(id.as_str()), "{id} is not in {}", found["sentence"]);
    }
    assert!(daemon.log().contains("neither stored nor queued"), "{}", daemon.log());
    // They were queued, so that they are collected, and count as found late.
    daemon.wait_collected(&world).await;
    ends(&world.tenantry(&["verify", "--tenant", "tenant-1"]), 0, "tenant-1: complete: 45 blobs listed, all stored");
    let ledger: Value = serde_json::from_slice(&world.tenantry(&["ledger", "--json"]).stdout).unwrap();
    let late_sweep = ledger.as_array().unwrap().iter().map(|line| line["late_sweep"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(late_sweep, 5, "{ledger:#}");
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_it_lists_by_itself_and_queues_for_the_next_one() {
    let world = World::new(Scenario::new(95).tenant(tenant(1, 4, 3.0)), "");
    ends(&world.tenantry(&["verify"]), 1, "there is no store");
    ends(&world.tenantry(&["verify", "--store-only"]), 1, "there is no store");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    ends(&world.tenantry(&["verify"]), 0, "tenant-1: complete: 16 blobs listed, all stored");
    ends(&world.tenantry(&["verify", "--tenant", "nobody"]), 64, "no tenant is named");

    let control = world.cloud.control();
    // Older than what is not listed yet, and younger than what the poll lists again.
    control.add_blobs(late(ContentType::SharePoint, 0.01, 2));
    let missed = control.add_blobs(late(ContentType::Exchange, 100.0, 2));
    let found = inventory(&world, 2);
    assert_eq!((named(&found, "missing"), &found["awaited"]), (ids(&world, &missed), &Value::from(2)), "{found:#}");
    let waiting = inventory(&world, 0);
    assert_eq!((&waiting["waiting"], &waiting["stored"]), (&Value::from(2), &Value::from(16)), "{waiting:#}");

    // A content type that cannot be listed is told, and the others are compared.
    let refused = Effect::Af { code: "AF20022".to_owned(), status: 400, message: None };
    let refused = Fault { content_type: Some(ContentType::General), ..Fault::new(refused).on([Endpoint::List]) };
    control.add_fault(refused);
    ends(&world.tenantry(&["verify"]), 2, "Audit.General cannot be listed in full: ");
    control.clear_faults();

    let fetched = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    assert_eq!(fetched, 16, "it collects nothing by itself");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    ends(&world.tenantry(&["verify"]), 0, "tenant-1: complete: 20 blobs listed, all stored");
    ends(&world.tenantry(&["tenant", "pause", "tenant-1"]), 0, "");
    ends(&world.tenantry(&["verify"]), 0, "tenant-1: not verified at Microsoft: an operator has paused it");
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_blobs_are_found_by_their_tiers_and_then_all_is_complete() {
    let tiers = |sweep: &str| {
        format!("[collect]\npoll_interval = \"1s\"\nrecent_interval = \"3s\"\nsweep_interval = \"{sweep}\"\n")
    };
    let world = World::new(Scenario::new(96).tenant(tenant(1, 5, 6.0)), &tiers("3d"));
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let control = world.cloud.control();
    let soon = |spec: BlobSpec| spec.visible_in(Duration::from_secs(2));
    // Up to three hours after their time.
    for (content_type, hours) in
        [(ContentType::Exchange, 2.9), (ContentType::SharePoint, 1.5), (ContentType::General, 0.3)]
    {
        control.add_blobs(soon(late(content_type, hours, 4)));
    }
    let ledger = || -> Vec<Value> { serde_json::from_slice(&world.tenantry(&["ledger", "--json"]).stdout).unwrap() };
    let sum = |of: &str| ledger().iter().map(|line| line[of].as_u64().unwrap()).sum::<u64>();
    daemon.wait("the recent tier has found them", |_| sum("stored") == 32).await;
    assert!(daemon.stop().await.success());

    // And days.
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], &tiers("5s"));
    let mut daemon = world.run();
    control.add_blobs(soon(late(ContentType::Exchange, 120.0, 3)));
    control.add_blobs(soon(late(ContentType::AzureActiveDirectory, 150.0, 2)));
    daemon.wait("the sweep has found them", |_| sum("stored") == 37).await;
    ends(&world.tenantry(&["verify"]), 0, "tenant-1: complete: 37 blobs listed, all stored");
    assert_eq!((sum("stored"), sum("late_recent"), sum("late_sweep")), (37, 12, 5), "{:#?}", ledger());
    assert!(daemon.stop().await.success());
    world.assert_collected();
}
