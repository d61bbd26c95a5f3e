//! `tenantry demo`: the real daemon against a simulated Microsoft cloud.
//!
//! The daemon runs as a process of its own with a configuration file, as it would in earnest; what this command adds is
//! the cloud, a certificate, and someone who looks at the status and exports a record.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tenantry_simulator::{App, Cloud, Scenario};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::Exit;
use super::out::{self, print};
use super::socket::RunningDaemon;
use super::table::{self, Room};
use crate::config::{self, Client};
use crate::lifecycle::{Lifecycle, Request};
use crate::report::StatusSnapshot;

/// The arguments of `tenantry demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End when every tenant has arrived and a record was shown, instead of going on until Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// The demo has a configuration of its own; this is here so that it is not offered, and for `--daemon-of`.
    #[arg(long, hide = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Become the daemon of the demo that runs as this process.
    #[arg(long, hide = true, value_name = "PID")]
    pub daemon_of: Option<u32>,
}

/// How long the three tenants may take to arrive; they take seconds.
const PATIENCE: Duration = Duration::from_secs(100);
/// How often the status is looked at: numbers are to be seen growing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where nothing is drawn over, the table is shown this seldom.
const TABLE_EVERY: Duration = Duration::from_secs(10);

/// Runs until it is interrupted.
pub async fn demo(args: DemoArgs) -> anyhow::Result<Exit> {
    if let (Some(config), Some(demo)) = (&args.config, args.daemon_of) {
        return become_daemon(config, demo);
    }
    let mut lifecycle = Lifecycle::start()?;
    let mut demo = Demo::start()?;
    let shown = tokio::select! {
        shown = demo.show(&args) => shown,
        // The terminal sends Ctrl-C to the daemon too; a second request is not needed.
        () = stop_requested(&mut lifecycle) => Ok(()),
    };
    demo.stop().await?;
    shown?;
    say("\nThe demo has ended; nothing is left of it.\n")?;
    Ok(Exit::Done)
}

/// Goes on as `tenantry run`, which is told to stop when the demo ends, however it ends.
fn become_daemon(config: &Path, demo: u32) -> anyhow::Result<Exit> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get().cast_unsigned() != demo) {
        return Ok(Exit::Failed);
    }
    Err(std::process::Command::new(std::env::current_exe()?).arg("--config").arg(config).arg("run").exec())
        .context("cannot start the daemon")
}

async fn stop_requested(lifecycle: &mut Lifecycle) {
    while lifecycle.next().await == Request::Reload {}
}

struct Demo {
    cloud: Cloud,
    daemon: Child,
    client: Client,
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
        let client = config::load_client(&config);
        let log = fs::File::create(dir.path().join("log"))?;
        let daemon = Command::new(std::env::current_exe()?)
            .args(["demo", "--daemon-of", &std::process::id().to_string(), "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the daemon")?;
        Ok(Self { cloud, daemon, client, config, dir })
    }

    /// Shows the status until every tenant has arrived, then a record, then the status again.
    async fn show(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let ends = if args.once { "" } else { " Ctrl-C ends it." };
        say(&format!(
            "A simulated Microsoft cloud answers at {}, and the real daemon collects from its three tenants. \
             Configuration and store are in {} and go with the demo.{ends}\n\n",
            self.cloud.url(),
            self.dir.path().display()
        ))?;
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
        let program = std::env::current_exe()?;
        let here = std::env::current_dir().unwrap_or_default();
        let program = program.strip_prefix(here).unwrap_or(&program).display();
        // Short lines, which no terminal breaks, so that they can be copied.
        print(&format!(
            "While this runs, try in another terminal, from the same directory:\n\n\
             export TENANTRY_CONFIG={config}\n{program} status\n{program} tail\n\n",
            config = self.config.display(),
        ))?;
        let mut screen = Screen::default();
        loop {
            if let Some(snapshot) = self.status().await? {
                screen.show(&snapshot, false)?;
            }
        }
    }

    /// The status, a moment later.
    async fn status(&mut self) -> anyhow::Result<Option<StatusSnapshot>> {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(ended) = self.daemon.try_wait()? {
            bail!("the daemon ended with {ended}; its log:\n{}", self.log());
        }
        match RunningDaemon::find(&self.client).await? {
            Some(daemon) => Ok(Some(daemon.get("status").await?)),
            None => Ok(None),
        }
    }

    /// Exports the newest records of one tenant through the command that a user would type, and shows the last one.
    async fn show_record(&self) -> anyhow::Result<()> {
        let tenant = self.client.outline.tenants.values().next().context("the demo has tenants")?;
        let arguments = ["export", "--tenant", &tenant.name, "--content-type", "Audit.Exchange"];
        let output =
            Command::new(std::env::current_exe()?).arg("--config").arg(&self.config).args(arguments).output().await?;
        if !output.status.success() {
            bail!("the export failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let records = String::from_utf8(output.stdout)?;
        let last = records.lines().last().context("the export is empty")?;
        print(&format!(
            "\n$ tenantry export --tenant '{}' --content-type Audit.Exchange | tail -n 1 | jq .\n{}\n\n\
             {} records of that tenant and type so far.\n\n",
            tenant.name,
            pretty(last),
            records.lines().count(),
        ))?;
        Ok(())
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
    // For this user alone, as whatever this program makes.
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

/// A record as `jq .` shows it: a line for each field, in the order in which they stand in it.
fn pretty(json: &str) -> String {
    let (mut text, mut depth, mut rest) = (String::new(), 0_usize, json.trim());
    while let Some(character) = rest.chars().next() {
        if character == '"' {
            let (string, after) = rest.split_at(string_length(rest));
            // With no more escapes than needed.
            let plain = serde_json::from_str::<String>(string).and_then(|plain| serde_json::to_string(&plain));
            text.push_str(plain.as_deref().unwrap_or(string));
            rest = after;
            continue;
        }
        rest = &rest[character.len_utf8()..];
        match character {
            '{' | '[' if !rest.starts_with(['}', ']']) => {
                depth += 1;
                text.push(character);
                new_line(&mut text, depth);
            }
            '}' | ']' if !text.ends_with(['{', '[']) => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => text.push(character),
        }
    }
    text
}

/// How long the string is that `json` begins with, quotes included.
fn string_length(json: &str) -> usize {
    let mut escaped = false;
    let end = json.char_indices().skip(1).find(|(_, character)| {
        let ends = *character == '"' && !escaped;
        escaped = *character == '\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |(at, _)| at + 1)
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

/// Draws over the last drawing on a terminal; elsewhere shows the table every few seconds.
#[derive(Default)]
struct Screen {
    lines: usize,
    shown: Option<Instant>,
}

impl Screen {
    fn show(&mut self, snapshot: &StatusSnapshot, last: bool) -> anyhow::Result<()> {
        if let Some((columns, lines)) = out::screen() {
            let text = table::render(snapshot, Room { columns, lines: lines.saturating_sub(1) });
            let over = if self.lines > 0 { format!("\x1b[{}A\r\x1b[J", self.lines) } else { String::new() };
            print(&format!("{over}{text}\n"))?;
            self.lines = text.lines().count();
        } else if last || self.shown.is_none_or(|shown| shown.elapsed() >= TABLE_EVERY) {
            print(&format!("{}\n\n", table::render(snapshot, Room::UNLIMITED)))?;
            self.shown = Some(Instant::now());
        }
        Ok(())
    }
}

/// Prints sentences, broken between words where the terminal ends.
fn say(text: &str) -> anyhow::Result<()> {
    let columns = out::screen().map_or(usize::MAX, |(columns, _)| columns);
    let wrapped: Vec<_> = text.split('\n').flat_map(|line| table::wrap(line, "", columns)).collect();
    Ok(print(&wrapped.join("\n"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_as_jq_shows_it() {
        let record = r#"{"Z":"a{\"\\","\u0050":"a\/b","B":{"x":[1,{}],"e":[]},"A":null}"#;
        let shown = "{\n  \"Z\": \"a{\\\"\\\\\",\n  \"P\": \"a/b\",\n  \"B\": {\n    \"x\": [\n      1,\n      {}\n    ],\n    \"e\": []\n  },\n  \
                     \"A\": null\n}";
        assert_eq!(pretty(record), shown);
    }
}
