//! SIGKILL at random moments, and state that is lost.

use std::fs;
use std::time::Duration;

use tenantry_simulator::{BlobSpec, ContentType, Endpoint, Feed, Scenario};

use crate::world::{World, tenant, tenant_id};

/// Rounds of a test that repeats: few on a laptop, more in CI, 100 in the long run.
fn rounds(default: u32) -> u32 {
    std::env::var("TENANTRY_TEST_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// Only the watermark decides what is listed again: neither the recent span nor a sweep would find what it passed over.
const WATERMARK_ONLY: &str = "[collect]\npoll_interval = \"1s\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n\
     [daemon]\nstart_spread = \"0s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_nothing_and_stores_nothing_twice() {
    let mut scenario = Scenario::new(31).page_size(11);
    for number in 1..=2 {
        let mut one = tenant(number, 0, 1.0);
        one.feeds = ContentType::AUDIT
            .map(|content_type| Feed::new(content_type).backlog(150, 6.0).records(2, 20).live_every_ms(400))
            .to_vec();
        // Bodies of several parts, so that a kill meets one half written.
        one.feeds.push(Feed::new(ContentType::Dlp).backlog(0, 1.0));
        scenario = scenario.tenant(one);
    }
    // Small partitions, so that kills meet a roll-over too.
    let world = World::new(scenario, WATERMARK_ONLY);
    world.set("store", "partition_size", "\"20 MiB\"");
    let rounds = rounds(8);
    let mut random = fastrand::Rng::with_seed(u64::from(rounds));
    for round in 0..rounds {
        let large = BlobSpec::new(tenant_id(1), ContentType::SharePoint).count(1).body_bytes(16_000_000);
        world.cloud.control().add_blobs(large);
        let daemon = world.run();
        // Now and then at once, while it opens its store.
        let longest = if round % 4 == 0 { 300 } else { 2500 };
        tokio::time::sleep(Duration::from_millis(random.u64(0..longest))).await;
        daemon.kill();
        if round % 5 == 4 {
            world.assert_store_is_sound().await;
        }
    }
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_was_deleted_is_rebuilt_and_nothing_is_collected_twice() {
    let world = World::new(Scenario::new(32).tenant(tenant(1, 25, 6.0)), "[daemon]\nstart_spread = \"0s\"\n");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let fetched = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    assert_eq!(fetched, 100);

    for (round, how) in ["deleted", "corrupt"].into_iter().enumerate() {
        for entry in fs::read_dir(world.store()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match how {
                "deleted" if name == "state" => fs::remove_file(&path).unwrap(),
                "deleted" if name.starts_with("state-") => fs::remove_dir_all(&path).unwrap(),
                "corrupt" if name.starts_with("state-") => scribble(&path.join("db")),
                _ => {}
            }
        }
        let mut daemon = world.run();
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(1).records(3));
        let blobs = 101 + round as u64;
        daemon
            .wait("the new blob is stored", |status| {
                status["tenants"][0]["stored_today"]["blobs"].as_u64() == Some(blobs)
                    && status["tenants"][0]["queue"]["entries"] == 0
            })
            .await;
        assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob), blobs, "state {how}");
        assert!(daemon.stop().await.success());
        world.assert_store_is_sound().await;
        world.assert_collected();
    }
    let aside = fs::read_dir(world.store().join("aside")).unwrap().count();
    assert!(aside >= 1, "the corrupt state was moved aside, not deleted");
}

/// Overwrites the beginning of every segment.
fn scribble(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    for chunk in bytes.chunks_mut(4096) {
        let end = chunk.len().min(512);
        chunk[..end].fill(0xA5);
    }
    fs::write(path, bytes).unwrap();
}
