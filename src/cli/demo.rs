//! `tenantry demo`: the real daemon against a simulated Microsoft cloud.
//!
//! The daemon runs as a process of its own with a configuration file, as it would in earnest; what this command adds is
//! the cloud, a certificate, and someone who looks at the status and exports a record.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tenantry_simulator::{App, Cloud, Scenario};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::socket::RunningDaemon;
use super::{Exit, status};
use crate::config::{self, Settings};
use crate::lifecycle::{Lifecycle, Request};
use crate::report::StatusSnapshot;

/// The arguments of `tenantry demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End when every tenant has arrived and a record was shown, instead of going on until Ctrl-C
    #[arg(long)]
    pub once: bool,
}

/// How long the three tenants may take to arrive; they take seconds.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs until it is interrupted.
pub async fn demo(args: DemoArgs) -> anyhow::Result<Exit> {
    let mut lifecycle = Lifecycle::start()?;
    let mut demo = Demo::start()?;
    say(&format!(
        "A simulated Microsoft cloud answers at {}, and the real daemon collects from its three tenants.\n\
         Configuration and store are in {} and go with the demo. Ctrl-C ends it.\n",
        demo.cloud.url(),
        demo.dir.path().display()
    ))?;
    let shown = tokio::select! {
        shown = demo.show(&args) => shown,
        // The terminal sends Ctrl-C to the daemon too; a second request is not needed.
        () = stop_requested(&mut lifecycle) => Ok(()),
    };
    demo.stop().await?;
    say("\nThe demo has ended; nothing is left of it.\n")?;
    shown.map(|()| Exit::Done)
}

async fn stop_requested(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await == Request::Reload {}
}

struct Demo {
    cloud: Cloud,
    daemon: Child,
    settings: Settings,
    config: PathBuf,
    dir: tempfile::TempDir,
}

impl Demo {
    fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tenantry-demo-").tempdir()?;
        let client_id = Uuid::new_v4();
        let certificate = certificate(dir.path())?;
        let scenario = Scenario::demo();
        let tenants: Vec<_> = scenario.tenants.iter().map(|tenant| (tenant.id, tenant.name.clone())).collect();
        let cloud = Cloud::start(scenario.app(App::new(client_id).certificate(certificate)))?;
        let config = dir.path().join("tenantry.toml");
        fs::write(&config, configuration(&cloud.url(), client_id, &tenants))?;
        let settings = config::load(&config)?;
        let log = fs::File::create(dir.path().join("log"))?;
        let daemon = Command::new(std::env::current_exe()?)
            .arg("--config")
            .arg(&config)
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the daemon")?;
        Ok(Self { cloud, daemon, settings, config, dir })
    }

    /// Shows the status until every tenant has arrived, then a record, then the status again.
    async fn show(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let mut screen = Screen::default();
        let arrived = tokio::time::timeout(PATIENCE, async {
            loop {
                let Some(snapshot) = self.status().await? else { continue };
                let arrived = has_arrived(&snapshot);
                screen.show(&snapshot, arrived)?;
                if arrived {
                    return anyhow::Ok(());
                }
            }
        });
        arrived.await.with_context(|| format!("the tenants did not arrive; the daemon's log:\n{}", self.log()))??;
        self.show_record().await?;
        if args.once {
            return Ok(());
        }
        say(&format!(
            "While this runs, try in another terminal:\n\n  \
             {exe} --config {config} status\n  {exe} --config {config} tail\n",
            exe = std::env::current_exe()?.display(),
            config = self.config.display(),
        ))?;
        let mut screen = Screen::default();
        loop {
            if let Some(snapshot) = self.status().await? {
                screen.show(&snapshot, false)?;
            }
        }
    }

    /// The status, a second later.
    async fn status(&mut self) -> anyhow::Result<Option<StatusSnapshot>> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(ended) = self.daemon.try_wait()? {
            bail!("the daemon ended with {ended}; its log:\n{}", self.log());
        }
        match RunningDaemon::find(&self.settings).await? {
            Some(daemon) => Ok(Some(daemon.get("status").await?)),
            None => Ok(None),
        }
    }

    /// Exports the newest records of one tenant through the command that a user would type, and shows the last one.
    async fn show_record(&self) -> anyhow::Result<()> {
        let tenant = self.settings.tenants.values().next().context("the demo has tenants")?;
        let arguments = ["export", "--tenant", &tenant.name, "--content-type", "Audit.Exchange"];
        let output =
            Command::new(std::env::current_exe()?).arg("--config").arg(&self.config).args(arguments).output().await?;
        if !output.status.success() {
            bail!("the export failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let records = String::from_utf8(output.stdout)?;
        let last = records.lines().last().context("the export is empty")?;
        let record: serde_json::Value = serde_json::from_str(last)?;
        say(&format!(
            "\n$ tenantry export --tenant '{}' --content-type Audit.Exchange | tail -n 1 | jq .\n{}\n\n\
             {} records of that tenant and type so far.\n",
            tenant.name,
            serde_json::to_string_pretty(&record)?,
            records.lines().count(),
        ))
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.daemon.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by the same Ctrl-C already.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        self.daemon.wait().await?;
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Every tenant has records, and nothing waits.
fn has_arrived(snapshot: &StatusSnapshot) -> bool {
    snapshot.tenants.iter().all(|tenant| {
        tenant.stored_today.records > 0 && tenant.queue.entries == 0 && tenant.content.values().all(|of| of.blobs > 0)
    })
}

/// A key and a self-signed certificate, as an operator would make them; answers the certificate's DER.
fn certificate(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "tenantry demo");
    let certificate = params.self_signed(&key)?;
    fs::write(dir.join("demo.crt"), certificate.pem())?;
    fs::write(dir.join("demo.key"), key.serialize_pem())?;
    Ok(certificate.der().to_vec())
}

fn configuration(url: &str, client_id: Uuid, tenants: &[(Uuid, String)]) -> String {
    let mut text = format!(
        "[app]\nclient_id = \"{client_id}\"\ncertificate_file = \"demo.crt\"\nprivate_key_file = \"demo.key\"\n\n\
         [clouds.simulated]\nauthority = \"{url}\"\nmanagement = \"{url}\"\n\n\
         [collect]\npoll_interval = \"2s\"\n\n[store]\npath = \"store\"\n\n[operator]\nlisten = \"off\"\n"
    );
    for (id, name) in tenants {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[[tenants]]\nid = \"{id}\"\nname = \"{name}\"\ncloud = \"simulated\"\n");
    }
    text
}

/// Draws over the last drawing on a terminal; elsewhere shows the table every few seconds.
#[derive(Default)]
struct Screen {
    lines: usize,
    turns: usize,
}

impl Screen {
    fn show(&mut self, snapshot: &StatusSnapshot, last: bool) -> anyhow::Result<()> {
        let text = status::render(snapshot);
        let terminal = io::stdout().is_terminal();
        if terminal && self.lines > 0 {
            say(&format!("\x1b[{}A\x1b[J", self.lines))?;
        }
        if terminal || last || self.turns.is_multiple_of(10) {
            say(&text)?;
            self.lines = text.lines().count();
        }
        self.turns += 1;
        Ok(())
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
