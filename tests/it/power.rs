//! Power cuts: ext4 on a loop device is shut down in the middle, which loses dirty pages and metadata that was not
//! committed, and mounted again. Needs root, and a kernel with loop devices and ext4; else the test says why it is
//! skipped, which CI accepts only if the kernel refuses root to mount. A drive whose cache lies is not modelled.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tenantry_simulator::{BlobSpec, ContentType, Feed, Scenario};

use crate::phases::{Met, PARTITION, Phase, reach};
use crate::skip::no_file_system;
use crate::world::{World, tenant, tenant_id};

/// A file system of its own in a file.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let command = Command::new(program).env("LC_ALL", "C").args(arguments).output();
    let output = command.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Disk {
    fn new(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("disk.img"), mounted: dir.join("store") };
        let image = disk.image.to_str().unwrap();
        std::fs::File::create(&disk.image)
            .and_then(|file| file.set_len(16 << 30))
            .map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&disk.mounted).unwrap();
        // Cuts the power, later.
        run("python3", &["--version"])?;
        run("mkfs.ext4", &["-q", "-F", image])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        // Frequent commits of the journal would hide what was not synced; five seconds is the default.
        run("mount", &["-o", "loop,commit=5", self.image.to_str().unwrap(), self.mounted.to_str().unwrap()])
    }

    /// Gets ready to cut the power: what takes time is done before.
    fn arm(&self) -> Switch {
        let script = "import fcntl, os, struct, sys\n\
                      fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                      print(flush=True)\n\
                      sys.stdin.readline()\n\
                      fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))\n";
        let mut process = Command::new("python3")
            .args(["-c", script, self.mounted.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        process.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        Switch(process)
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[self.mounted.to_str().unwrap()])
    }
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: the file system stops as if the power were cut.
struct Switch(Child);

impl Switch {
    fn cut(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success(), "the power was not cut");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failed test; in a good one it is unmounted.
        let _ = run("umount", &["-l", self.mounted.to_str().unwrap()]);
    }
}

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
    let disk = match Disk::new(world.dir.path()) {
        Ok(disk) => disk,
        Err(reason) => return no_file_system(&format!("no loop device with ext4 can be made here: {reason}")),
    };
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
