//! The host's clock is stepped while the daemon runs; the service's is not.

use std::path::{Path, PathBuf};

use tenantry_simulator::{BlobSpec, ContentType, Scenario};

use crate::skip::skip;
use crate::world::{World, tenant, tenant_id};

/// Debian's libfaketime, for programs with threads.
pub(crate) fn libfaketime() -> Option<PathBuf> {
    ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_hosts_clock_lose_nothing() {
    let Some(library) = libfaketime() else { return skip("libfaketime is not installed (package faketime)") };
    let world = World::new(
        Scenario::new(21).tenant(tenant(1, 10, 6.0)),
        "[collect]\npoll_interval = \"1s\"\noverlap = \"1m\"\n",
    );
    let file = world.dir.path().join("faketime");
    let step = |to: &str| write_whole(&file, to);
    step("+0");
    let mut daemon = world.run_with(|command| {
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    daemon.wait_collected(&world).await;
    let mut stored = 40;
    for to in ["+1h", "-1h", "+30d", "-30d", "+0"] {
        step(to);
        daemon
            .wait("the daemon has seen the step", |status| {
                let ahead = status["host_ahead_by_seconds"].as_i64().unwrap_or(0);
                match to {
                    "+1h" => (3500..3700).contains(&ahead),
                    "-1h" => (-3700..-3500).contains(&ahead),
                    "+30d" => ahead > 29 * 86_400,
                    "-30d" => ahead < -29 * 86_400,
                    _ => ahead.abs() < 60,
                }
            })
            .await;
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::SharePoint).count(3).records(5));
        stored += 3;
        daemon
            .wait("what came after the step is stored", |status| {
                status["tenants"][0]["stored_today"]["blobs"].as_u64() == Some(stored)
            })
            .await;
        world.assert_collected();
    }
    assert!(daemon.stop().await.success());
    // A start with the clock far off loses nothing either.
    step("+30d");
    let mut daemon = world.run_with(|command| {
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).count(2).records(5));
    daemon.wait("collection goes on", |status| status["tenants"][0]["content"]["Audit.General"]["blobs"] == 2).await;
    world.assert_collected();
    let partitions: Vec<_> = std::fs::read_dir(world.store().join("content")).unwrap().collect();
    assert!(partitions.len() <= 2, "the host's clock made partitions: {partitions:?}");
    assert!(daemon.stop().await.success());
}

/// The library reads the file at any moment: it must never see half of it.
fn write_whole(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{text}\n")).unwrap();
    std::fs::rename(&new, path).unwrap();
}
