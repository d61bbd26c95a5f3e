//! A simulated cloud, a configuration for it, and the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::Value;
use tempfile::TempDir;
use tenantry_simulator::{App, Cloud, ContentType, Feed, Ledger, Scenario, Tenant};
use uuid::Uuid;

/// The app registration of every world.
pub(crate) const APP: Uuid = Uuid::from_u128(0x0a99_0000_0000_4000_8000_0000_0000_0001);
/// What requests must carry as `PublisherIdentifier`.
pub(crate) const PUBLISHER: Uuid = Uuid::from_u128(0x0b15_0000_0000_4000_8000_0000_0000_0001);

/// The audience of the management host: not its address, so that a token for another one shows.
pub(crate) const AUDIENCE: &str = "https://manage.simulated.example";

/// Nothing that a test waits for takes this long on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The id of the tenant with this number.
pub(crate) const fn tenant_id(number: u32) -> Uuid {
    Uuid::from_u128(0x7e4a_0000_0000_4000_8000_0000_0000_0000 + number as u128)
}

/// A tenant with the same backlog in each of the four audit types.
pub(crate) fn tenant(number: u32, blobs: u32, days: f64) -> Tenant {
    ContentType::AUDIT
        .into_iter()
        .fold(Tenant::new(tenant_id(number), &format!("tenant-{number}")), |tenant, content_type| {
            tenant.feed(Feed::new(content_type).backlog(blobs, days).records(3, 12))
        })
}

/// A cloud and a configuration directory.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) dir: TempDir,
    pub(crate) config: PathBuf,
}

impl World {
    /// Starts the cloud with an app and its certificate, and configures all tenants of the scenario. `extra` is added
    /// to the configuration.
    pub(crate) fn new(scenario: Scenario, extra: &str) -> Self {
        Self::with_app(scenario, extra, |app| app)
    }

    /// The same with an app that is registered as `register` says.
    pub(crate) fn with_app(scenario: Scenario, extra: &str, register: impl FnOnce(App) -> App) -> Self {
        let dir = TempDir::with_prefix("tenantry-it-").unwrap();
        let certificate = certificate(dir.path());
        let tenants: Vec<_> = scenario.tenants.iter().map(|tenant| (tenant.id, tenant.name.clone())).collect();
        let app = register(App::new(APP).certificate(certificate));
        let scenario = scenario.app(app).publisher(PUBLISHER);
        let cloud = Cloud::start(scenario.apart().audience(AUDIENCE)).unwrap();
        let config = dir.path().join("tenantry.toml");
        let world = Self { cloud, dir, config };
        world.configure(&tenants, extra);
        world
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, tenants: &[(Uuid, String)], extra: &str) {
        use std::fmt::Write as _;
        let (authority, management) = (self.cloud.authority_url(), self.cloud.url());
        let graph = self.cloud.graph_url();
        let mut text = format!(
            "[app]\nclient_id = \"{APP}\"\npublisher_id = \"{PUBLISHER}\"\n\
             certificate_file = \"app.crt\"\nprivate_key_file = \"app.key\"\n\
             [clouds.simulated]\nauthority = \"{authority}\"\nmanagement = \"{management}\"\n\
             management_audience = \"{AUDIENCE}\"\n\
             graph = \"{graph}\"\ngraph_audience = \"https://graph.microsoft.com\"\n\
             [store]\npath = \"store\"\n{extra}\n"
        );
        if !extra.contains("[collect]") {
            text.push_str("[collect]\npoll_interval = \"1s\"\n");
        }
        // Many daemons run at once, and only those that a test asks over TCP need to be heard there.
        if !extra.contains("[operator]") {
            text.push_str("[operator]\nlisten = \"off\"\n");
        }
        for (id, name) in tenants {
            write!(text, "[[tenants]]\nid = \"{id}\"\nname = \"{name}\"\ncloud = \"simulated\"\n").unwrap();
        }
        fs::write(&self.config, text).unwrap();
    }

    /// Adds a key to a section of the configuration.
    pub(crate) fn set(&self, section: &str, key: &str, value: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        let header = format!("[{section}]\n");
        assert!(text.contains(&header), "the configuration has no {header}");
        fs::write(&self.config, text.replace(&header, &format!("{header}{key} = {value}\n"))).unwrap();
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A command with this world's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.arg("--config").arg(&self.config).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn tenantry(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts the daemon.
    pub(crate) fn run(&self) -> Daemon {
        self.run_with(|_| {})
    }

    /// Starts the daemon as `change` wants it.
    pub(crate) fn run_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let log = self.dir.path().join("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(Stdio::null()).stderr(file);
        change(&mut command);
        let logged = fs::metadata(&log).unwrap().len();
        let child = command.spawn().unwrap();
        Daemon { child, log, logged, socket: self.store().join("admin.sock") }
    }

    /// The ids of all records that an export writes, by tenant of the record.
    pub(crate) fn exported(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.tenantry(&[&["export"], arguments].concat());
        assert!(output.status.success(), "export: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["Id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The ids of records that were offered and are not exported.
    fn missing(&self, ledger: &Ledger) -> Vec<String> {
        let exported: BTreeSet<_> = self.exported(&[]).into_iter().collect();
        let tenants: BTreeSet<_> = ledger.blobs.iter().map(|blob| blob.tenant).collect();
        let expected = tenants.into_iter().flat_map(|tenant| ledger.expected_ids(tenant));
        expected.filter(|id| !exported.contains(id)).collect()
    }

    /// Every record that is offered now is exported exactly once, and the cloud saw nothing that Microsoft forbids.
    #[track_caller]
    pub(crate) fn assert_collected(&self) {
        self.assert_collected_by(&self.cloud.ledger());
    }

    /// The same for what was offered when the ledger was read; later records may be there too.
    #[track_caller]
    pub(crate) fn assert_collected_by(&self, ledger: &Ledger) {
        let now = self.cloud.ledger();
        let tenants = ledger.blobs.iter().map(|blob| blob.tenant).collect();
        self.assert_collected_of(tenants, ledger);
        assert_no_violations(&now);
    }

    /// Of these tenants, every record that was offered when the ledger was read is exported exactly once.
    #[track_caller]
    pub(crate) fn assert_collected_of(&self, tenants: BTreeSet<Uuid>, ledger: &Ledger) {
        let now = self.cloud.ledger();
        for tenant in tenants {
            let mut exported = self.exported(&["--tenant", &tenant.to_string()]);
            let copies = exported.len();
            exported.sort();
            exported.dedup();
            assert_eq!(exported.len(), copies, "tenant {tenant}: some records were exported more than once");
            let (expected, possible) = (ledger.expected_ids(tenant), now.expected_ids(tenant));
            let exported: BTreeSet<_> = exported.into_iter().collect();
            let missing: Vec<_> = expected.difference(&exported).collect();
            let extra: Vec<_> = exported.difference(&possible).collect();
            assert!(
                missing.is_empty() && extra.is_empty(),
                "tenant {tenant}: {} of {} missing, {} too many",
                missing.len(),
                expected.len(),
                extra.len()
            );
        }
    }
}

/// Nothing was seen that Microsoft's documents forbid, nor bad manners.
#[track_caller]
pub(crate) fn assert_no_violations(ledger: &Ledger) {
    let told: BTreeMap<_, _> =
        ledger.violations.iter().chain(&ledger.warnings).map(|remark| (&remark.what, remark.at)).collect();
    assert!(told.is_empty(), "the cloud saw violations or bad manners: {told:#?}");
    assert_eq!(ledger.violations_dropped, 0);
    for (tenant, book) in &ledger.tenants {
        let others: Vec<_> = book.publishers.keys().filter(|seen| **seen != PUBLISHER.to_string()).collect();
        assert!(others.is_empty(), "tenant {tenant}: PublisherIdentifier {others:?}");
    }
}

/// How many blobs a tenant has by now.
pub(crate) fn offered(ledger: &Ledger, tenant: Uuid) -> u64 {
    ledger.offered(tenant).count() as u64
}

/// How far what is waited for has come; more is closer.
enum Progress {
    At(u64),
    Done,
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    /// Bytes that earlier runs have logged.
    logged: u64,
    socket: PathBuf,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its log says so far (of earlier runs in this world too).
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has opened its store and begun its work, as its log says.
    pub(crate) fn has_started(&self) -> bool {
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.logged)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text.contains("INFO started ")
    }

    /// The base URL of its operators' listener, as this run's log tells it last.
    pub(crate) async fn operator(&self) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            let log = &log[usize::try_from(self.logged).unwrap()..];
            if let Some((_, told)) = log.rsplit_once("operators' listener address=") {
                return format!("http://{}", told.split_whitespace().next().unwrap());
            }
            assert!(start.elapsed() < PATIENCE, "no listener in\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its status, if it answers.
    pub(crate) async fn status(&self) -> Option<Value> {
        ask(&self.socket, "status").await
    }

    /// Waits until the status is what it should be.
    #[track_caller]
    pub(crate) fn wait<'a>(
        &'a mut self,
        what: &'a str,
        done: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        self.wait_within(PATIENCE, what, done)
    }

    /// The same with another patience.
    #[track_caller]
    pub(crate) fn wait_within<'a>(
        &'a mut self,
        patience: Duration,
        what: &'a str,
        done: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        self.wait_for(patience, what, move |status| if done(status) { Progress::Done } else { Progress::At(0) })
    }

    /// Waits until it is done, with patience as long as it comes closer.
    #[track_caller]
    fn wait_for<'a>(
        &'a mut self,
        patience: Duration,
        what: &'a str,
        progress: impl Fn(&Value) -> Progress + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (mut since, mut reached) = (Instant::now(), 0);
            let mut last = Value::Null;
            while since.elapsed() < patience {
                if let Some(ended) = self.child.try_wait().unwrap() {
                    panic!("{caller}: the daemon ended with {ended}\n{}", self.log());
                }
                if let Some(status) = self.status().await {
                    match progress(&status) {
                        Progress::Done => return status,
                        Progress::At(now) if now > reached => (since, reached) = (Instant::now(), now),
                        Progress::At(_) => {}
                    }
                    last = status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{caller}: no progress for {patience:?} until {what}; last status {last:#}\n{}", self.log());
        }
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub(crate) fn wait_log<'a>(&'a self, text: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            while !self.log().contains(text) {
                assert!(start.elapsed() < PATIENCE, "{caller}: `{text}` does not appear in\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// What it wrote to a piped standard error, after its end.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Waits until every tenant has stored all that `world` offers right now, and answers the ledger of that moment.
    #[track_caller]
    pub(crate) fn wait_collected<'a>(&'a mut self, world: &'a World) -> impl Future<Output = Ledger> + 'a {
        let ledger = world.cloud.ledger();
        let tenants: BTreeSet<_> = ledger.blobs.iter().map(|blob| blob.tenant).collect();
        let expected: BTreeMap<String, u64> =
            tenants.into_iter().map(|tenant| (tenant.to_string(), offered(&ledger, tenant))).collect();
        let all: u64 = expected.values().sum();
        let log = self.log.clone();
        let stored = self.wait_for(PATIENCE, "everything offered is stored", move |status| {
            let blobs = |tenant: &Value| {
                let expected = expected.get(tenant["id"].as_str()?)?;
                Some(tenant["stored_today"]["blobs"].as_u64()?.min(*expected))
            };
            let stored = status["tenants"].as_array().unwrap().iter().filter_map(blobs).sum();
            if stored == all { Progress::Done } else { Progress::At(stored) }
        });
        async move {
            stored.await;
            // Later blobs count too: what must be there is compared by name.
            let start = Instant::now();
            while !world.missing(&ledger).is_empty() {
                if start.elapsed() >= PATIENCE {
                    let missing: BTreeSet<_> = world.missing(&ledger).into_iter().collect();
                    let of = ledger.blobs.iter().filter(|blob| blob.record_ids().iter().any(|id| missing.contains(id)));
                    let blobs: Vec<_> = of.take(5).map(|blob| format!("{blob:?}")).collect();
                    panic!(
                        "{} records are still missing, of {blobs:#?}\n{}",
                        missing.len(),
                        fs::read_to_string(log).unwrap()
                    );
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            ledger
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the daemon had ended by itself\n{}", self.log());
    }

    /// The end of a daemon whose disk is gone: it may have noticed and ended by itself.
    pub(crate) fn kill_dead_or_alive(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// SIGTERM, and the end that follows.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it answers, or has ended.
    pub(crate) async fn started_or_ended(&mut self) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if self.status().await.is_some() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon neither starts nor ends\n{}", self.log());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon does not end\n{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failed test; in a good one it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
async fn ask(socket: &Path, what: &str) -> Option<Value> {
    let client = reqwest::Client::builder().unix_socket(socket).timeout(Duration::from_secs(10)).build().unwrap();
    client.get(format!("http://tenantry/v1/{what}")).send().await.ok()?.json().await.ok()
}

/// Writes `app.crt` and `app.key`; one key serves all tests of a run, since making one takes a while.
fn certificate(dir: &Path) -> Vec<u8> {
    static MADE: OnceLock<(String, String, Vec<u8>)> = OnceLock::new();
    let (certificate, key, der) = MADE.get_or_init(|| {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tenantry tests");
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
    });
    fs::write(dir.join("app.crt"), certificate).unwrap();
    fs::write(dir.join("app.key"), key).unwrap();
    der.clone()
}
