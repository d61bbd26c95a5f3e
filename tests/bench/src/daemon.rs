//! The daemon, as an operator would run it.

use std::fmt::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cloud::{CLIENT_ID, Cloud, SECRET};
use crate::measure::Figures;

/// A running daemon on a store of its own.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    started: Instant,
    client: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with every tenant of `cloud`.
    pub(crate) fn start(cloud: &Cloud, poll_interval: &str, content_types: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (url, store) = (&cloud.url, dir.path().join("store"));
        let mut config = format!(
            "[app]\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"{SECRET}\"\n\
             [clouds.bench]\nauthority = \"{url}\"\nmanagement = \"{url}\"\n\
             [store]\npath = \"{}\"\n[collect]\npoll_interval = \"{poll_interval}\"\n\
             [operator]\nlisten = \"off\"\n",
            store.display()
        );
        for tenant in &cloud.tenants {
            write!(config, "[[tenants]]\nid = \"{tenant}\"\ncloud = \"bench\"\ncontent_types = {content_types:?}\n")?;
        }
        let file = dir.path().join("tenantry.toml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let process = Command::new(crate::sibling("tenantry")?)
            .arg("--config")
            .arg(&file)
            .arg("run")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the daemon")?;
        #[expect(clippy::disallowed_methods, reason = "the ban keeps the daemon's requests in one place")]
        let client = reqwest::Client::builder().unix_socket(store.join("admin.sock")).build()?;
        Ok(Self { process, started: Instant::now(), client, dir })
    }

    /// Waits until its status is what it should be.
    pub(crate) async fn wait(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let mut last = Value::Null;
        while self.started.elapsed() < limit {
            if let Some(status) = self.process.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", self.log());
            }
            if let Ok(answer) = self.client.get("http://tenantry/v1/status").send().await {
                last = answer.json().await?;
                if done(&last) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("it took longer than {limit:?} until {what}; last status:\n{last:#}\n{}", self.log())
    }

    /// What it has used so far.
    pub(crate) fn figures(&self) -> anyhow::Result<Figures> {
        Figures::of(self.process.id(), self.started)
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let told = Command::new("kill").arg(self.process.id().to_string()).status()?;
        anyhow::ensure!(told.success(), "cannot signal the daemon");
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
