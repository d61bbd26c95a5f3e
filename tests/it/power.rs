//! Power cuts: ext4 on a loop device is shut down in the middle, which loses dirty pages and metadata that was not
//! committed, and mounted again. Needs root, and a kernel with loop devices and ext4; else the test says why it is
//! skipped, which CI accepts only if the kernel refuses root to mount. A drive whose cache lies is not modelled.

use tenantry_simulator::{BlobSpec, ContentType, Feed, Scenario};

use crate::phases::{Met, PARTITION, Phase, reach};
use crate::volume::Volume;
use crate::world::{World, tenant, tenant_id};

/// Power cuts of a test: few in CI, more in the long run.
fn rounds() -> u32 {
    std::env::var("TENANTRY_TEST_POWER_CUTS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut one = tenant(1, 0, 1.0);
    one.feeds = ContentType::AUDIT
        .map(|content_type| Feed::new(content_type).backlog(120, 6.0).records(2, 20).live_every_ms(300))
        .to_vec();
    // One partition holds little, so that cuts meet roll-overs and the opening of several partitions.
    let world = World::new(
        Scenario::new(51).tenant(one),
        "[collect]\npoll_interval = \"1s\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n\
         [daemon]\nstart_spread = \"0s\"\n",
    );
    world.set("store", "partition_size", PARTITION);
    let Some(disk) = Volume::at(&world.store(), 16 << 30) else { return };
    let rounds = rounds();
    let mut met = Met::default();
    let mut random = fastrand::Rng::with_seed(u64::from(rounds));
    for round in 0..rounds {
        let large = BlobSpec::new(tenant_id(1), ContentType::General).count(1).body_bytes(4_000_000);
        world.cloud.control().add_blobs(large);
        let switch = disk.arm();
        let daemon = world.run();
        // Every other time what runs, syncs and is written back goes on until the very moment.
        let freeze = round / 4 % 2 == 0;
        met.count(reach(&world.store(), &daemon, Phase::of_round(round), &mut random, freeze));
        switch.cut();
        daemon.kill_dead_or_alive();
        disk.unmount().unwrap();
        disk.mount().unwrap();
        if round % 5 == 4 {
            world.assert_store_is_sound().await;
        }
    }
    met.conclude("power cut", rounds);
    let mut daemon = world.run();
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_store_is_sound().await;
    world.assert_collected_by(&ledger);
    assert!(!world.store().join("aside").exists(), "a power cut made a database unreadable");
    disk.unmount().unwrap();
}
