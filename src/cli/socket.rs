//! The way to the running daemon.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::http;
use crate::web::admin::Info;

/// A daemon that runs on the store that the configuration names.
#[derive(Debug)]
pub(super) struct RunningDaemon {
    client: reqwest::Client,
}

impl RunningDaemon {
    /// Finds the daemon; `None` if nobody listens, or if whoever does keeps another store.
    pub(super) async fn find(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let path = settings.admin_socket();
        match tokio::net::UnixStream::connect(&path).await {
            Ok(_) => {}
            // A socket file without a listener is what a killed daemon leaves behind.
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot open the daemon's socket `{}`: run this as root or as a member of its group",
                        path.display()
                    )
                });
            }
        }
        let client = http::admin_client(&path)?;
        let info: Info = get(&client, "info", &()).await?.json().await?;
        Ok(same_store(&info.store, &settings.store.path).then_some(Self { client }))
    }

    /// Asks for a value.
    pub(super) async fn get<T: DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        Ok(get(&self.client, what, &()).await?.json().await?)
    }

    /// Asks for a stream.
    pub(super) async fn stream(&self, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        get(&self.client, what, request).await
    }
}

async fn get(client: &reqwest::Client, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
    let answer = client.get(format!("http://tenantry/v1/{what}")).query(request).send().await;
    let answer = answer.context("the daemon does not answer on its admin socket")?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    anyhow::bail!("the daemon refuses `{what}` ({status}): {text}")
}

fn same_store(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}
