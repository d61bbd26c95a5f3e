//! The simulated cloud, in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};

/// The app that every tenant has consented to.
pub(crate) const CLIENT_ID: &str = "0badc0de-0000-4000-8000-000000000001";
/// Its secret: the cost of signing an assertion an hour is not what is measured.
pub(crate) const SECRET: &str = "a secret of the simulated cloud";

/// A running simulator.
#[derive(Debug)]
pub(crate) struct Cloud {
    process: Child,
    pub(crate) url: String,
    pub(crate) tenants: Vec<String>,
    _dir: tempfile::TempDir,
}

/// A tenant of the scenario.
pub(crate) fn tenant(number: u32, feeds: &Value) -> Value {
    let id = format!("7e4a47ee-0000-4000-8000-{number:012x}");
    json!({ "id": id, "name": format!("tenant-{number}"), "domain": format!("t{number}.example"), "feeds": feeds })
}

impl Cloud {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(mut scenario: Value) -> anyhow::Result<Self> {
        scenario["apps"] = json!([{ "client_id": CLIENT_ID, "secrets": [{ "value": SECRET }] }]);
        // The measured side starts a subscription in each turn; the service's cool-down is not what is measured.
        scenario["service"] = json!({ "start_cooldown_s": 0, "request_log": 0 });
        let tenants = scenario["tenants"].as_array().context("no tenants")?.iter();
        let tenants = tenants.filter_map(|tenant| tenant["id"].as_str().map(str::to_owned)).collect();
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("scenario.json");
        std::fs::write(&file, scenario.to_string())?;
        let mut process = Command::new(crate::sibling("tenantry-simulator")?)
            .args(["--listen", "127.0.0.1:0", "--scenario"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the simulator")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        })
        .await??;
        let first: Value = serde_json::from_str(&line).context("the simulator's first line is not JSON")?;
        let url = first["url"].as_str().context("the simulator names no url")?.to_owned();
        Ok(Self { process, url, tenants, _dir: dir })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
