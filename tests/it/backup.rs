//! Backups: made while the daemon collects, broken off, damaged, and restored.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry_simulator::{Endpoint, Scenario};

use crate::phases::PARTITION;
use crate::world::{PATIENCE, World, tenant, tenant_id};

impl World {
    fn backup(&self, folder: &Path) -> Output {
        self.tenantry(&["store", "backup", folder.to_str().unwrap()])
    }

    fn restore(&self, folder: &Path) -> Output {
        self.tenantry(&["store", "restore", folder.to_str().unwrap()])
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store goes; what is exported from now on is what a restore brought.
    fn lose_store(&self) {
        fs::remove_dir_all(self.store()).unwrap();
    }

    /// Two tenants, and partitions that are full after some thirty blobs.
    fn of_two(seed: u64) -> Self {
        let world = World::new(Scenario::new(seed).tenant(tenant(1, 40, 3.0)).tenant(tenant(2, 25, 5.0)), "");
        world.set("store", "partition_size", PARTITION);
        world
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

#[track_caller]
fn refusal(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn blobs_stored(status: &Value) -> u64 {
    let tenants = status["tenants"].as_array().unwrap();
    tenants.iter().filter_map(|tenant| tenant["stored_today"]["blobs"].as_u64()).sum()
}

fn fetched(world: &World) -> [u64; 2] {
    let ledger = world.cloud.ledger();
    [1, 2].map(|number| ledger.requests(tenant_id(number), Endpoint::Blob))
}

/// The partitions that a folder holds under their names, with the time of their newest file.
fn partitions(folder: &Path) -> BTreeSet<(String, std::time::SystemTime)> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let all = fs::read_dir(folder.join("content")).unwrap().map(|entry| entry.unwrap().path());
    let theirs = all.filter(|path| path.is_dir() && !name(path).starts_with('.'));
    theirs.map(|path| (name(&path), fs::metadata(path.join("db/db")).unwrap().modified().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_collecting_and_a_restored_store_fetches_nothing_that_it_holds() {
    let world = World::of_two(101);
    let folder = world.folder("backup");
    let mut daemon = world.run();
    daemon.wait("something is stored", |status| blobs_stored(status) >= 30).await;
    let first = said(&world.backup(&folder));
    assert!(first.contains("is a backup of"), "{first}");
    let early = partitions(&folder);
    assert!(!early.is_empty());
    let ledger = daemon.wait_collected(&world).await;

    // What is there is not copied again.
    let second = said(&world.backup(&folder));
    let late = partitions(&folder);
    assert!(early.is_subset(&late) && early.len() < late.len(), "{early:?} {late:?}");
    let copied = late.len() - early.len();
    assert!(second.contains(&format!("{} partitions, of which {copied} (", late.len())), "{second}");

    let refused = refusal(&world.restore(&folder), 75);
    assert!(refused.contains("a daemon runs on the store"), "{refused}");
    let stats: Value = serde_json::from_str(&said(&world.tenantry(&["store", "stats", "--json"]))).unwrap();
    assert!(daemon.stop().await.success());
    world.assert_collected_by(&ledger);
    let before = fetched(&world);
    let exported = world.exported(&[]);

    let refused = refusal(&world.restore(&folder), 1);
    assert!(refused.contains("Move it away"), "{refused}");
    world.lose_store();
    let restored = said(&world.restore(&folder));
    assert!(restored.contains("nothing that is here is fetched again"), "{restored}");
    said(&world.tenantry(&["verify", "--store-only"]));
    assert_eq!(world.exported(&[]).into_iter().collect::<BTreeSet<_>>(), exported.into_iter().collect::<BTreeSet<_>>());
    let again: Value = serde_json::from_str(&said(&world.tenantry(&["store", "stats", "--json"]))).unwrap();
    assert_eq!(stats["tenants"], again["tenants"]);
    assert_eq!(stats["tenants"][tenant_id(1).to_string()]["blobs"], 160);
    assert_eq!(stats["tenants"].as_object().unwrap().len(), 2);

    let logged = fs::metadata(world.folder("log")).unwrap().len();
    let mut daemon = world.run();
    let listed = |tenant: &Value| tenant["last_poll"].is_string() && tenant["queue"]["entries"] == 0;
    daemon.wait("all is listed again", |status| status["tenants"].as_array().unwrap().iter().all(listed)).await;
    daemon.wait_collected(&world).await;
    assert_eq!(fetched(&world), before);
    assert!(daemon.stop().await.success());
    assert_eq!(fetched(&world), before);
    let log = fs::read_to_string(world.folder("log")).unwrap().split_off(usize::try_from(logged).unwrap());
    assert!(!log.contains("ERROR"), "{log}");
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
    said(&world.tenantry(&["verify", "--store-only"]));
}

/// Breaks off backups in the middle until one was not whole, and answers its folder.
async fn torn(world: &World, name: &str, mut break_off: impl AsyncFnMut(&mut std::process::Child)) -> PathBuf {
    let start = Instant::now();
    for round in 0.. {
        let folder = world.folder(&format!("{name}-{round}"));
        let mut command = world.command(&["store", "backup", folder.to_str().unwrap()]);
        let mut backup = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = || {
            let entries = fs::read_dir(folder.join("content")).into_iter().flatten();
            entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().starts_with(".partial-"))
        };
        while !begun() && backup.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "no backup begins");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        break_off(&mut backup).await;
        if !folder.join("manifest").exists() {
            return folder;
        }
        assert!(start.elapsed() < PATIENCE, "every backup was faster");
    }
    unreachable!("rounds have no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_broken_off_is_not_taken_for_a_whole_one_and_a_further_run_completes_it() {
    let world = World::of_two(102);
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    let killed = torn(&world, "killed", async |backup| {
        backup.kill().unwrap();
        backup.wait().unwrap();
    })
    .await;
    let mut running = Some(daemon);
    let alone = torn(&world, "alone", async |backup| {
        // The next round begins with a daemon that runs.
        running.take().unwrap().kill();
        let ended = backup.wait().unwrap();
        assert!(ended.success() || ended.code() == Some(75), "{ended}");
        let mut next = world.run();
        next.wait("it runs again", |status| blobs_stored(status) > 0).await;
        running = Some(next);
    })
    .await;

    for (folder, at_rest) in [(&killed, false), (&alone, true)] {
        if at_rest {
            assert!(running.take().unwrap().stop().await.success());
        }
        let elsewhere = fs::read_to_string(&world.config).unwrap();
        fs::write(&world.config, elsewhere.replace("path = \"store\"", "path = \"elsewhere\"")).unwrap();
        let refused = refusal(&world.restore(folder), 1);
        assert!(refused.contains("is not a whole backup"), "{refused}");
        assert!(!world.folder("elsewhere").exists());
        fs::write(&world.config, &elsewhere).unwrap();
        said(&world.backup(folder));
    }
    for folder in [&killed, &alone] {
        world.lose_store();
        said(&world.restore(folder));
        said(&world.tenantry(&["verify", "--store-only"]));
        world.assert_collected_by(&ledger);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_which_a_byte_has_changed_is_refused_with_the_files_name() {
    let world = World::of_two(103);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let folder = world.folder("backup");
    said(&world.backup(&folder));
    world.lose_store();

    let (first, _) = partitions(&folder).pop_first().unwrap();
    let file = folder.join("content").join(first).join("db/db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refused = refusal(&world.restore(&folder), 1);
    assert!(refused.contains(file.to_str().unwrap()) && refused.contains("SHA-256"), "{refused}");
    assert!(!world.store().exists(), "nothing was touched");

    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    said(&world.restore(&folder));
    let refused = refusal(&world.backup(&world.store().join("backup")), 64);
    assert!(refused.contains("lies in the store"), "{refused}");
    let refused = refusal(&world.backup(&world.folder("")), 1);
    assert!(refused.contains("which is no part of a backup"), "{refused}");
    world.assert_store_is_sound().await;
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_link_is_restored_to_where_the_link_leads() {
    let world = World::of_two(104);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let folder = world.folder("backup");
    said(&world.backup(&folder));
    // As systemd keeps the state of a service whose user is dynamic.
    let (link, private, damaged) = (world.store(), world.folder("private/store"), world.folder("private/damaged"));
    fs::create_dir(world.folder("private")).unwrap();
    fs::rename(&link, &private).unwrap();
    symlink("private/store", &link).unwrap();

    let names_it = format!("the store `{}` is in use", private.canonicalize().unwrap().display());
    let refused = refusal(&world.restore(&folder), 1);
    assert!(refused.contains(&names_it), "{refused}");
    // The link alone was moved, and what it led to is what systemd would find.
    fs::rename(&link, world.folder("moved")).unwrap();
    let refused = refusal(&world.restore(&folder), 1);
    assert!(refused.contains("private/store` is in use"), "{refused}");
    fs::rename(world.folder("moved"), &link).unwrap();

    fs::rename(&private, &damaged).unwrap();
    let restored = said(&world.restore(&folder));
    assert!(restored.contains("private/store` holds what was stored"), "{restored}");
    assert!(link.is_symlink() && private.join("content").is_dir());
    world.assert_store_is_sound().await;
    world.assert_collected();

    // Nothing is left of either: a directory of the path's own name, which systemd moves to its place.
    fs::remove_file(&link).unwrap();
    fs::remove_dir_all(&private).unwrap();
    said(&world.restore(&folder));
    assert!(!link.is_symlink() && !private.exists());
    world.assert_collected();
}
