//! The way to the running daemon.

use std::path::Path;

use anyhow::Context as _;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::http;
use crate::web::admin::Info;
use crate::web::reload::{ReloadRequest, Reloaded};

const SILENT: &str = "the daemon does not answer on its admin socket";

/// A daemon that runs on the store that the configuration names.
#[derive(Debug)]
pub(super) struct RunningDaemon {
    client: reqwest::Client,
}

impl RunningDaemon {
    /// Finds the daemon; `None` if nobody listens, or if whoever does keeps another store.
    pub(super) async fn find(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(found) = Self::at(&settings.admin_socket()).await? else { return Ok(None) };
        let info: Info = found.get("info").await?;
        Ok(same_store(&info.store, &settings.store.path).then_some(found))
    }

    /// The daemon behind this socket; `None` if nobody listens.
    pub(super) async fn at(path: &Path) -> anyhow::Result<Option<Self>> {
        match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Ok(Some(Self { client: http::admin_client(path)? })),
            // A socket file without a listener is what a killed daemon leaves behind.
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "cannot open the daemon's socket `{}`: run this as root or as a member of its group",
                    path.display()
                )
            }),
        }
    }

    /// Asks for a reload. `Err` inside is why the new configuration was refused.
    pub(super) async fn reload(&self, request: &ReloadRequest) -> anyhow::Result<Result<Reloaded, String>> {
        let answer = self.client.post("http://tenantry/v1/reload").json(request).send().await.context(SILENT)?;
        if answer.status() == StatusCode::CONFLICT {
            return Ok(Err(answer.text().await?));
        }
        Ok(Ok(understood("reload", answer).await?.json().await?))
    }

    /// Asks for a value.
    pub(super) async fn get<T: DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        Ok(get(&self.client, what, &()).await?.json().await?)
    }

    /// Asks for a stream, and says more than fits into an address.
    pub(super) async fn post_stream(&self, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        let answer = self.client.post(format!("http://tenantry/v1/{what}")).json(request).send().await;
        understood(what, answer.context(SILENT)?).await
    }

    /// Asks for a stream.
    pub(super) async fn stream(&self, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        get(&self.client, what, request).await
    }
}

async fn get(client: &reqwest::Client, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
    let answer = client.get(format!("http://tenantry/v1/{what}")).query(request).send().await;
    understood(what, answer.context(SILENT)?).await
}

async fn understood(what: &str, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
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
