//! `tenantry verify --store-only`: what is changed behind the daemon's back is named.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Scenario};

use crate::phases::PARTITION;
use crate::world::{World, tenant, tenant_id};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_yet_it_says() {
    let world = World::new(Scenario::new(92).tenant(tenant(1, 0, 1.0)), "");
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange));
    let output = world.tenantry(&["verify"]);
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("--store-only"), "{told}");
    let output = world.tenantry(&["verify", "--store-only"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("there is no store"), "{told}");
}
