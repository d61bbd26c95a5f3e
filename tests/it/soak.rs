//! Days of the daemon in minutes: daemon and cloud run under libfaketime, many times as fast as the host's clock.
//!
//! What must not grow is measured: the journal with the healthy tenants, memory and open files with time. What waits on a
//! condition variable is not made faster, nor is the disk: a pause of 20 ms of this host is 20 s of the daemon's day, so
//! that a factor is only as good as the machine. With more than about a thousand the daemon's time limits (15 s for a
//! connection) come too close to the host's own pauses.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_simulator::Ledger;

use crate::clock::libfaketime;
use crate::skip::{not_here, skip};
use crate::world::{APP, PATIENCE, tenant_id};

const SECRET: &str = "a secret of the simulated cloud";
const MIB: u64 = 1 << 20;

/// Which share of the whole time is run; `None` if this run is not for it.
fn share() -> Option<f64> {
    std::env::var("TENANTRY_TEST_SOAK").ok().map(|share| share.parse().unwrap())
}

/// What is run.
struct Soak {
    tenants: u32,
    content_types: &'static [&'static str],
    /// How often each content type of each tenant has a new blob.
    content_every: Duration,
    poll_interval: &'static str,
    time: Duration,
    /// How much faster than the host's clock.
    factor: u32,
}

/// What a process holds at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Resident memory, in bytes.
    memory: u64,
    /// Open files, and what else is no connection.
    files: u64,
    /// Connections, of which many are open in the middle of a poll and few between two.
    connections: u64,
    /// Bytes that it has logged.
    logged: u64,
}

/// A process under libfaketime that ends with the test.
struct Fast(Child);

impl Drop for Fast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fast(program: &Path, library: &Path, factor: u32) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library).env("FAKETIME", format!("+0 x{factor}")).env("NO_FAKE_STAT", "1");
    command
}

/// A running daemon and its cloud.
struct Running {
    daemon: Fast,
    _cloud: Fast,
    url: String,
    config: PathBuf,
    log: PathBuf,
    _dir: TempDir,
}

impl Soak {
    fn start(&self, library: &Path) -> Running {
        let dir = TempDir::with_prefix("tenantry-soak-").unwrap();
        let scenario = dir.path().join("scenario.json");
        fs::write(&scenario, self.scenario().to_string()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_tenantry"));
        let simulator = program.with_file_name("tenantry-simulator");
        assert!(simulator.exists(), "`cargo test --workspace` builds {}", simulator.display());
        let mut cloud = fast(&simulator, library, self.factor);
        cloud.arg("--until-stdin-closes").arg("--scenario").arg(&scenario);
        let mut cloud = Fast(cloud.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(cloud.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();

        let (config, log) = (dir.path().join("tenantry.toml"), dir.path().join("log"));
        fs::write(&config, self.config(&url)).unwrap();
        let mut daemon = fast(program, library, self.factor);
        daemon.arg("--config").arg(&config).arg("run").stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = Fast(daemon.stderr(File::create(&log).unwrap()).spawn().unwrap());
        Running { daemon, _cloud: cloud, url, config, log, _dir: dir }
    }

    fn scenario(&self) -> Value {
        let every = u64::try_from(self.content_every.as_millis()).unwrap();
        let feeds: Vec<_> = self
            .content_types
            .iter()
            .map(|name| json!({ "content_type": name, "live_every_ms": every, "records": [2, 6] }))
            .collect();
        let tenants: Vec<_> = (1..=self.tenants)
            .map(|n| {
                json!({ "id": tenant_id(n), "name": format!("t{n}"), "domain": format!("t{n}.example"),
                              "feeds": feeds, "subscribed": self.content_types })
            })
            .collect();
        json!({
            "seed": 71,
            "apps": [{ "client_id": APP, "secrets": [{ "value": SECRET }] }],
            "tenants": tenants,
            "service": { "request_log": 0 },
        })
    }

    fn config(&self, url: &str) -> String {
        let mut text = format!(
            "[app]\nclient_id = \"{APP}\"\nclient_secret = \"{SECRET}\"\n\
             [clouds.simulated]\nauthority = \"{url}\"\nmanagement = \"{url}\"\n\
             [store]\npath = \"store\"\n[operator]\nlisten = \"off\"\n[log]\nformat = \"json\"\n\
             [collect]\npoll_interval = \"{}\"\n",
            self.poll_interval
        );
        for n in 1..=self.tenants {
            let (id, types) = (tenant_id(n), self.content_types);
            write!(
                text,
                "[[tenants]]\nid = \"{id}\"\nname = \"t{n}\"\ncloud = \"simulated\"\ncontent_types = {types:?}\n"
            )
            .unwrap();
        }
        text
    }

    /// Runs the share of the whole time and answers what was measured at each of its hundredths.
    async fn run(&self, running: &mut Running, share: f64) -> Vec<Sample> {
        let real = self.time.mul_f64(share) / self.factor;
        let mut samples = Vec::new();
        for _ in 0..100 {
            tokio::time::sleep(real / 100).await;
            if let Some(ended) = running.daemon.0.try_wait().unwrap() {
                panic!("the daemon ended with {ended}\n{}", running.told());
            }
            samples.push(running.sample());
        }
        samples
    }
}

impl Running {
    fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn sample(&self) -> Sample {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.0.id()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        // One that was closed meanwhile is none.
        let open: Vec<_> = fs::read_dir(process.join("fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let is_connection = |file: &&PathBuf| file.to_string_lossy().starts_with("socket:");
        let connections = open.iter().filter(is_connection).count() as u64;
        Sample {
            memory: kib << 10,
            files: open.len() as u64 - connections,
            connections,
            logged: fs::metadata(&self.log).unwrap().len(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the ban keeps requests to Microsoft in one place; this is a test's own"
    )]
    async fn simulator(&self, path: &str, command: Option<Value>) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/_sim/{path}", self.url);
        let request = match command {
            Some(command) => client.post(url).body(command.to_string()),
            None => client.get(url),
        };
        request.send().await.unwrap().text().await.unwrap()
    }

    /// All that was offered is exported, and nothing else; the cloud saw nothing that is forbidden.
    async fn assert_complete(&self, soak: &Soak) {
        self.simulator("control", Some(json!({ "pause": true }))).await;
        let mut expected = std::collections::BTreeSet::new();
        for n in 1..=soak.tenants {
            let ids = self.simulator(&format!("expected?tenant={}", tenant_id(n)), None).await;
            expected.extend(ids.lines().map(str::to_owned));
        }
        assert!(expected.len() > soak.tenants as usize, "nothing was offered");
        let start = Instant::now();
        loop {
            let export = Command::new(env!("CARGO_BIN_EXE_tenantry"))
                .arg("--config")
                .arg(&self.config)
                .arg("export")
                .output()
                .unwrap();
            assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
            let text = String::from_utf8(export.stdout).unwrap();
            let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["Id"].as_str().unwrap().to_owned();
            let exported: Vec<_> = text.lines().map(id).collect();
            let distinct: std::collections::BTreeSet<_> = exported.iter().cloned().collect();
            assert_eq!(distinct.len(), exported.len(), "records are exported twice");
            if distinct == expected {
                break;
            }
            let missing = expected.difference(&distinct).count();
            let extra = distinct.difference(&expected).count();
            assert!(extra == 0 && start.elapsed() < PATIENCE, "{missing} missing, {extra} too many\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let ledger: Ledger = serde_json::from_str(&self.simulator("ledger?blobs=false", None).await).unwrap();
        assert!(
            ledger.violations.is_empty() && ledger.warnings.is_empty(),
            "{:?}",
            (ledger.violations, ledger.warnings)
        );
    }
}

/// After the first tenth, memory and open files do not grow: the last third has no more than the first of what follows it.
#[track_caller]
fn assert_flat(samples: &[Sample], what: &str) {
    let parts = [&samples[..10], &samples[10..40], &samples[40..70], &samples[70..]];
    let most = |of: fn(&Sample) -> u64| parts.map(|part| part.iter().map(of).max().unwrap());
    let memory = most(|sample| sample.memory);
    let (files, connections) = (most(|sample| sample.files), most(|sample| sample.connections));
    let told = format!(
        "{what}: memory {:?} KiB, files {files:?}, connections {connections:?}, journal {} bytes",
        memory.map(|bytes| bytes >> 10),
        samples[99].logged
    );
    #[expect(clippy::print_stderr, reason = "the figures belong to the test's output")]
    {
        eprintln!("{told}");
    }
    // Pages that the allocator keeps.
    assert!(memory[3] <= memory[1] + memory[1] / 10 + 2 * MIB, "{told}");
    assert!(files[3] <= files[1] + 8, "{told}");
    // A moment of many shows in one part and not in another; what is not closed adds up over hundreds of polls.
    assert!(connections[3] <= connections[1] + connections[1] / 2 + 8, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_of_twenty_tenants_fills_neither_journal_nor_memory() {
    let Some(share) = share() else { return not_here("it takes ten minutes: .ci/long runs it") };
    let Some(library) = libfaketime() else { return skip("libfaketime is not installed (package faketime)") };
    let soak = Soak {
        tenants: 20,
        content_types: &["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General"],
        content_every: Duration::from_hours(1),
        poll_interval: "10m",
        time: Duration::from_hours(7 * 24),
        factor: 1000,
    };
    let mut running = soak.start(&library);
    let samples = soak.run(&mut running, share).await;
    assert_flat(&samples, "a week of 20 tenants");
    let days = soak.time.as_secs_f64() * share / 86_400.0;
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let a_day = samples[99].logged as f64 / days;
    assert!(a_day <= 2e6, "{a_day} bytes a day\n{}", running.told());
    running.assert_complete(&soak).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hours_of_a_thousand_tenants_leave_the_journal_as_it_is() {
    let Some(share) = share() else { return not_here("it takes ten minutes: .ci/long runs it") };
    let Some(library) = libfaketime() else { return skip("libfaketime is not installed (package faketime)") };
    let soak = Soak {
        tenants: 1000,
        content_types: &["Audit.Exchange"],
        content_every: Duration::from_mins(30),
        poll_interval: "2m",
        time: Duration::from_hours(2),
        factor: 15,
    };
    let mut running = soak.start(&library);
    let samples = soak.run(&mut running, share).await;
    assert_flat(&samples, "two hours of 1,000 tenants");
    // A line for the summary of an hour, and what a start and a partition tell: nothing that 1,000 tenants multiply.
    let lines = running.told().lines().count();
    assert!(lines < 50, "{lines} lines\n{}", running.told());
    running.assert_complete(&soak).await;
}
