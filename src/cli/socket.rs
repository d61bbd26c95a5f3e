//! The way to the running daemon.
//!
//! **Invariant:** nobody waits for ever for a daemon that hangs: the head of every answer must come within seconds, save
//! where the daemon must read the whole store first.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::out::notice;
use super::{Ended, Exit, opening};
use crate::config::{self, Client};
use crate::content::TenantId;
use crate::doctor::Diagnosis;
use crate::http;
use crate::report::StatusSnapshot;
use crate::tenant::inventory::Inventory;
use crate::web::admin::{Info, TailRequest};
use crate::web::doctor::DoctorRequest;
use crate::web::reload::{ReloadRequest, Reloaded};
use crate::web::tenants::ListedTenant;

/// How long the head of an answer may take; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a reload may take, which reads thousands of files.
const RELOAD: Duration = Duration::from_mins(2);
/// How long a change of the tenants may take: one that stops subscriptions waits for the tenant's tasks, for a token, and for
/// Microsoft's answers.
const CHANGE: Duration = Duration::from_mins(10);

/// Where to find the daemon.
#[derive(Debug, Clone, Args)]
pub struct SocketArgs {
    /// The daemon's socket, if it is not where the configuration says; that daemon alone is asked then
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// A daemon that answers.
#[derive(Debug)]
pub(super) struct RunningDaemon {
    client: reqwest::Client,
    socket: PathBuf,
    info: Info,
}

/// Whom a command asks.
#[derive(Debug)]
pub(super) enum Source {
    /// The daemon.
    Daemon(RunningDaemon),
    /// The store, since no daemon runs.
    Store,
}

/// What a command goes by to find whom it asks. Paths in it are not relative: reading the store changes the directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) client: Client,
    socket: Option<PathBuf>,
}

impl Place {
    /// Reads what it needs of the configuration.
    pub(super) fn of(config: &Path, args: SocketArgs) -> anyhow::Result<Self> {
        let socket = args.socket.map(std::path::absolute).transpose()?;
        Ok(Self { client: config::load_client(config), socket })
    }

    /// Finds the daemon, or says that the store is to be read.
    pub(super) async fn source(&self) -> anyhow::Result<Source> {
        if let Some(socket) = &self.socket {
            return match RunningDaemon::at(socket).await? {
                Some(daemon) => Ok(Source::Daemon(daemon)),
                None => Err(unavailable(format!("no daemon listens at `{}`", socket.display()))),
            };
        }
        match (RunningDaemon::find(&self.client).await?, &self.client.problems) {
            (Some(daemon), None) => Ok(Source::Daemon(daemon)),
            (Some(daemon), Some(_)) => {
                notice(&format!(
                    "the configuration cannot be used (`tenantry check` says why); asking the daemon that keeps `{}`",
                    daemon.info.store.display()
                ));
                Ok(Source::Daemon(daemon))
            }
            (None, None) => Ok(Source::Store),
            (None, Some(problems)) => Err(problems.clone().into()),
        }
    }

    /// All tenants, as the source knows them.
    pub(super) async fn tenants(&self, source: &Source) -> anyhow::Result<Vec<ListedTenant>> {
        match source {
            Source::Daemon(daemon) => daemon.tenants(Method::GET, "", None::<&()>).await,
            Source::Store => {
                let tenants = opening::stopped_status(&self.client).await?.tenants;
                Ok(tenants.into_iter().map(ListedTenant::from).collect())
            }
        }
    }

    /// The daemon, which alone has tokens, and what the tenants are called.
    pub(super) async fn daemon_with_tokens(&self) -> anyhow::Result<(RunningDaemon, BTreeMap<TenantId, String>)> {
        let source = self.source().await?;
        let names = self.names(&source).await?;
        match source {
            Source::Daemon(daemon) => Ok((daemon, names)),
            Source::Store => {
                let message = "no daemon is running, and Microsoft is asked with its tokens: start it".to_owned();
                Err(Ended { exit: Exit::Unavailable, message }.into())
            }
        }
    }

    /// What the tenants are called, as the source knows it.
    pub(super) async fn names(&self, source: &Source) -> anyhow::Result<BTreeMap<TenantId, String>> {
        match source {
            Source::Daemon(daemon) => {
                let status: StatusSnapshot = daemon.get("status").await?;
                Ok(status.tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect())
            }
            Source::Store => opening::stopped_names(&self.client).await,
        }
    }
}

impl RunningDaemon {
    /// Finds the daemon; `None` if nobody listens, or if whoever does keeps another store.
    pub(super) async fn find(client: &Client) -> anyhow::Result<Option<Self>> {
        let found = Self::at(&client.socket).await?;
        Ok(found.filter(|found| client.problems.is_some() || same_store(&found.info.store, &client.store.path)))
    }

    /// The daemon behind this socket; `None` if nobody listens.
    pub(super) async fn at(socket: &Path) -> anyhow::Result<Option<Self>> {
        match tokio::net::UnixStream::connect(socket).await {
            Ok(_) => {}
            // A socket file without a listener is what a killed daemon leaves behind.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(unusable(socket, &error).into()),
        }
        let client = http::admin_client(socket)?;
        let info = json(socket, "info", ask(socket, ANSWER, client.get(address("info"))).await?).await?;
        Ok(Some(Self { client, socket: socket.to_owned(), info }))
    }

    /// Asks for a reload. `Err` inside is why the new configuration was refused.
    pub(super) async fn reload(&self, request: &ReloadRequest) -> anyhow::Result<Result<Reloaded, String>> {
        let answer = ask(&self.socket, RELOAD, self.client.post(address("reload")).json(request)).await?;
        if answer.status() == StatusCode::CONFLICT {
            return Ok(Err(answer.text().await.map_err(|error| broke_off(&error))?));
        }
        Ok(Ok(json(&self.socket, "reload", answer).await?))
    }

    /// Asks about tenants, or for a change of them; `what` follows `/v1/tenants`. What is refused is told in the daemon's
    /// own words.
    pub(super) async fn tenants<T: DeserializeOwned>(
        &self,
        method: Method,
        what: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        let what = format!("tenants{what}");
        let request = self.client.request(method, address(&what));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = not_refused(&what, ask(&self.socket, CHANGE, request).await?).await?;
        json(&self.socket, &what, answer).await
    }

    /// Asks for a file that has to do with a tenant; `what` follows `/v1/tenants`.
    pub(super) async fn file(&self, what: &str) -> anyhow::Result<reqwest::Response> {
        let what = format!("tenants{what}");
        let answer = ask(&self.socket, CHANGE, self.client.get(address(&what))).await?;
        understood(&what, not_refused(&what, answer).await?).await
    }

    /// Asks for something of a tenant that comes as a stream.
    pub(super) async fn of_tenant(
        &self,
        tenant: TenantId,
        what: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<reqwest::Response> {
        let what = format!("tenants/{tenant}/{what}");
        let answer = ask(&self.socket, CHANGE, self.client.post(address(&what)).json(body)).await?;
        understood(&what, not_refused(&what, answer).await?).await
    }

    /// Has a tenant's inventory taken, which takes as long as Microsoft wants to be waited for.
    pub(super) async fn take_inventory(&self, id: TenantId) -> anyhow::Result<Inventory> {
        let what = format!("tenants/{id}/inventory");
        let answer = ask(&self.socket, Duration::MAX, self.client.post(address(&what))).await?;
        json(&self.socket, &what, not_refused(&what, answer).await?).await
    }

    /// Asks for a value.
    pub(super) async fn get<T: DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        json(&self.socket, what, ask(&self.socket, ANSWER, self.client.get(address(what))).await?).await
    }

    /// Asks for a change, and for what comes of it.
    pub(super) async fn post<T: DeserializeOwned>(&self, what: &str, request: &impl Serialize) -> anyhow::Result<T> {
        json(&self.socket, what, ask(&self.socket, ANSWER, self.client.post(address(what)).json(request)).await?).await
    }

    /// Has something taken away.
    pub(super) async fn delete(&self, what: &str) -> anyhow::Result<()> {
        understood(what, ask(&self.socket, ANSWER, self.client.delete(address(what))).await?).await.map(drop)
    }

    /// Asks why no data arrives, which takes as long as the slowest of the answers that are waited for.
    pub(super) async fn examine(&self, request: &DoctorRequest) -> anyhow::Result<Diagnosis> {
        let request = self.client.post(address("doctor")).json(request);
        json(&self.socket, "doctor", ask(&self.socket, Duration::MAX, request).await?).await
    }

    /// Asks for a value that takes as long as reading the store.
    pub(super) async fn work_out<T: DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        json(&self.socket, what, ask(&self.socket, Duration::MAX, self.client.get(address(what))).await?).await
    }

    /// Asks for a stream, and says more than fits into an address. Its beginning takes as long as sealing a partition.
    pub(super) async fn post_stream(&self, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        let request = self.client.post(address(what)).json(request);
        understood(what, ask(&self.socket, Duration::MAX, request).await?).await
    }

    /// Asks for a stream.
    pub(super) async fn stream(&self, what: &str, request: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        understood(what, ask(&self.socket, ANSWER, self.client.get(address(what)).query(request)).await?).await
    }

    /// Asks to follow what is stored.
    pub(super) async fn tail(&self, request: &TailRequest) -> anyhow::Result<reqwest::Response> {
        understood("tail", ask(&self.socket, ANSWER, self.client.post(address("tail")).json(request)).await?).await
    }
}

fn address(what: &str) -> String {
    format!("http://tenantry/v1/{what}")
}

/// Sends a request and waits for the head of its answer.
async fn ask(socket: &Path, patience: Duration, request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let hangs = |why: String| {
        unavailable(format!(
            "the daemon does not answer on `{}` ({why}): see what it does (`journalctl -u tenantry`), and restart it if \
             that lasts",
            socket.display()
        ))
    };
    match timeout(patience, request.send()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(hangs(chain(&error))),
        Err(_) => Err(hangs(format!("waited {} s", patience.as_secs()))),
    }
}

async fn json<T: DeserializeOwned>(socket: &Path, what: &str, answer: reqwest::Response) -> anyhow::Result<T> {
    let body = timeout(RELOAD, understood(what, answer).await?.bytes()).await;
    let body = match body {
        Ok(body) => body.map_err(|error| broke_off(&error))?,
        Err(_) => return Err(unavailable(format!("the daemon stopped answering on `{}`", socket.display()))),
    };
    serde_json::from_slice(&body).with_context(|| format!("the daemon's answer to `{what}` is of another version"))
}

/// The answer, unless it is a refusal in the daemon's own words.
async fn not_refused(what: &str, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let exit = match answer.status() {
        StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        StatusCode::CONFLICT | StatusCode::FAILED_DEPENDENCY => Exit::Failed,
        _ => return Ok(answer),
    };
    let text = answer.text().await.map_err(|error| broke_off(&error))?;
    if text.is_empty() {
        let message = format!("the daemon does not know `{what}`: it is of another version; restart it");
        return Err(Ended { exit: Exit::Unavailable, message }.into());
    }
    Err(Ended { exit, message: text }.into())
}

async fn understood(what: &str, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    // That is what it answers when it ends.
    let exit = if status == StatusCode::SERVICE_UNAVAILABLE { Exit::TryAgain } else { Exit::Failed };
    Err(Ended { exit, message: format!("the daemon refuses `{what}` ({status}): {text}") }.into())
}

/// The daemon has gone in the middle of an answer.
pub(super) fn broke_off(error: &reqwest::Error) -> Ended {
    let message = format!("the daemon broke off ({}): is it stopping? try again", chain(error));
    Ended { exit: Exit::TryAgain, message }
}

/// Why a socket at `path` can be neither opened nor made.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Ended {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => Ended {
            exit: Exit::Permission,
            message: format!("cannot open the daemon's socket `{path}`: run this as root or as a member of its group"),
        },
        ErrorKind::InvalidInput => Ended {
            exit: Exit::Config,
            message: format!(
                "the path of the daemon's socket `{path}` is too long for a socket: set a shorter `socket` under \
                 `[daemon]`"
            ),
        },
        // Its queue of those who wait is full.
        ErrorKind::WouldBlock => Ended {
            exit: Exit::Unavailable,
            message: format!("the daemon does not answer on `{path}`: restart it if that lasts"),
        },
        _ => Ended { exit: Exit::Failed, message: format!("cannot use the daemon's socket `{path}`: {error}") },
    }
}

/// Why the daemon cannot make its socket at `path`.
pub(super) fn not_made(path: &Path, error: &io::Error) -> Ended {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Ended {
            exit: Exit::Permission,
            message: format!(
                "cannot make the daemon's socket `{}`: {error}: run this as a service or as root, or set `socket` under \
                 `[daemon]` to a path where this user may make it",
                path.display()
            ),
        },
        _ => unusable(path, error),
    }
}

fn unavailable(message: String) -> anyhow::Error {
    Ended { exit: Exit::Unavailable, message }.into()
}

/// What is at the bottom of it: what stands above names an address that nobody has written.
fn chain(error: &reqwest::Error) -> String {
    let error: &dyn std::error::Error = error;
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

fn same_store(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}
