//! SIGKILL at random moments, and state that is lost.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Effect, Endpoint, Fault, Feed, Scenario, Throttle, ThrottleShape};

use crate::phases::{Met, PARTITION, Phase, reach};
use crate::world::{World, tenant, tenant_id};

/// Rounds of a test that repeats: few on a laptop, more in CI, 100 in the long run.
pub(crate) fn rounds(default: u32) -> u32 {
    std::env::var("TENANTRY_TEST_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// Only the watermark decides what is listed again: neither the recent span nor a sweep would find what it passed over.
const WATERMARK_ONLY: &str = "[collect]\npoll_interval = \"1s\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n\
     [daemon]\nstart_spread = \"0s\"\n";

/// Checks what a kill has left behind: by what the program says of it, and by the store's own invariants. Answers the
/// records that it exports now, which are never fewer than `before`. The next daemon finds the store as the kill left it,
/// not as a check that has opened it leaves it.
pub(crate) async fn checked_after_a_kill(world: &World, before: BTreeSet<String>) -> BTreeSet<String> {
    let (store, untouched) = (world.store(), world.dir.path().join("untouched"));
    let copied = Command::new("cp").arg("-a").arg(&store).arg(&untouched).status().unwrap();
    assert!(copied.success());
    let verified = world.tenantry(&["verify", "--store-only"]);
    let told = [verified.stdout, verified.stderr].concat();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&told));
    let exported = world.exported(&[]);
    let records = exported.len();
    let exported: BTreeSet<_> = exported.into_iter().collect();
    assert_eq!(exported.len(), records, "records are exported twice");
    assert_eq!(before.difference(&exported).count(), 0, "records are gone that an earlier export had");
    // Bodies, repeated blobs, and watermarks that are ahead of the data.
    world.assert_store_is_sound().await;
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&untouched, &store).unwrap();
    exported
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_nothing_and_stores_nothing_twice() {
    let rounds = rounds(8);
    let mut met = Met::default();
    // What is checked after a kill is all that is there: a store that has lived through this many makes room for a new one.
    for first in (0..rounds).step_by(10) {
        be_killed(first..rounds.min(first + 10), &mut met).await;
    }
    met.conclude("SIGKILL", rounds);
}

/// A store that lives through these rounds.
async fn be_killed(rounds: Range<u32>, met: &mut Met) {
    let mut scenario = Scenario::new(31 + u64::from(rounds.start)).page_size(11);
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
    world.set("store", "partition_size", PARTITION);
    let mut exported = BTreeSet::new();
    let mut random = fastrand::Rng::with_seed(u64::from(rounds.end));
    for round in rounds {
        let large = BlobSpec::new(tenant_id(1), ContentType::SharePoint).count(1).body_bytes(4_000_000);
        world.cloud.control().add_blobs(large);
        let daemon = world.run();
        met.count(reach(&world.store(), &daemon, Phase::of_round(round), &mut random, true));
        daemon.kill();
        exported = checked_after_a_kill(&world, exported).await;
    }
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_was_read_is_waited_for_by_the_next_process_too() {
    let seconds = 15;
    let throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(seconds) };
    let throttled = Fault::new(Effect::Throttled(throttle)).tenant(tenant_id(1)).on([Endpoint::List]).first(1);
    let busy = Effect::Entra { code: 90033, retry_after_s: Some(seconds) };
    let busy = Fault::new(busy).tenant(tenant_id(2)).on([Endpoint::Token]).first(1);
    let scenario = (1..=3).fold(Scenario::new(33), |s, n| s.tenant(tenant(n, 2, 1.0)));
    let world = World::new(scenario.fault(throttled).fault(busy), "[daemon]\nstart_spread = \"0s\"\n");
    let mut daemon = world.run();
    let named = |status: &Value, name: &str, what: &dyn Fn(&Value) -> bool| {
        status["tenants"].as_array().is_some_and(|all| all.iter().any(|tenant| tenant["name"] == name && what(tenant)))
    };
    let told = |status: &Value| {
        named(status, "tenant-1", &|tenant| tenant["state"] == "throttled")
            && named(status, "tenant-2", &|tenant| tenant["trouble"]["code"] == "AADSTS90033")
    };
    daemon.wait("both have read their waits", told).await;
    let read = Instant::now();
    // The state is written in the order in which it is asked to: when this is stored, the waits are.
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(3), ContentType::Exchange).records(3));
    let third = |blobs| {
        move |status: &Value| {
            named(status, "tenant-3", &|tenant| tenant["stored_today"]["blobs"].as_u64() >= Some(blobs))
        }
    };
    daemon.wait("the other tenant goes on", third(9)).await;
    daemon.kill();
    let asked = || {
        let ledger = world.cloud.ledger();
        let feed = [Endpoint::Subscriptions, Endpoint::Start, Endpoint::List, Endpoint::Blob];
        (feed.map(|of| ledger.requests(tenant_id(1), of)), ledger.requests(tenant_id(2), Endpoint::Token))
    };
    let before = asked();

    let mut daemon = world.run();
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(3), ContentType::Exchange).records(3));
    daemon.wait("the other tenant goes on again", third(10)).await;
    assert!(read.elapsed().as_secs() < seconds - 1, "too slow a machine: the waits are over");
    assert_eq!(asked(), before);
    daemon.wait_collected(&world).await;
    assert!(read.elapsed().as_secs() >= seconds - 1);
    world.assert_collected();
    assert!(daemon.stop().await.success());
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
