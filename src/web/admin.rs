//! The admin socket: HTTP with JSON over a Unix socket, for the command line on the same host.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/info` | version, process id and store of the daemon |
//! | `GET /v1/openapi.yaml` | the description of all this, for programs |
//! | `GET /v1/status` | [`StatusSnapshot`](crate::report::StatusSnapshot) |
//! | `POST /v1/reload` | the configuration is read again ([`reload`]) |
//! | `POST /v1/doctor` | why no data arrives ([`doctor`](super::doctor)) |
//! | `GET /v1/export?…` | records as text, the same as an export without the daemon |
//! | `GET /v1/tail?…`, `POST /v1/tail` | records as NDJSON as they are stored, until the caller hangs up |
//! | `/v1/store/…` | the store itself, see [`store`](super::store) |
//! | `/v1/tenants…` | who is collected, and changes of that, see [`tenants`](super::tenants) |
//! | `/v1/tenants/{id}/health/…` | what is fetched of Microsoft Graph by hand, see [`graph`](super::graph) |
//! | `POST /v1/tenants/{id}/inventory` | what Microsoft holds of a tenant is compared with what is stored, see [`inventory`](super::inventory) |
//! | `POST /v1/tenants/{id}/backfill` | a span is listed again, see [`backfill`](super::backfill) |
//! | `POST /v1/tenants/{id}/content` | a blob by its address, see [`content`](super::content) |
//! | `/v1/tenants/{id}/subscriptions…`, `…/notifications` | what is asked of Microsoft by hand, see [`subscriptions`](super::subscriptions) |
//!
//! The socket is 0660 and belongs to the service's group: who may open it may read every record. Where the store's directory
//! holds it, that is the store's owner.
//!
//! **Invariant:** a slow reader holds a few hundred kilobytes and one reading thread, nothing else: collection goes on.
//! One that takes nothing at all for a quarter of an hour is disconnected, since it also holds the partition it reads.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query as UrlQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connections::{self, Allowance};
use super::framed;
use super::records::{self, Cursor, Until};
use super::reload::{self, Order};
use crate::export::{Form, Format};
use crate::language::Language;
use crate::report::Report;
use crate::store::{Query, Store};

/// What callers are allowed. `tenantry export | less` takes nothing as long as somebody reads a page.
const ALLOWANCE: Allowance = Allowance { of: "admin socket", connections: 256, stall: Duration::from_mins(15) };

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The directory of its store; a caller checks that it is the one that it means.
    pub store: PathBuf,
}

/// What to export, as the command line asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportRequest {
    /// What to read, as JSON: URL parameters have no lists.
    pub query: String,
    /// How to write it.
    pub format: Format,
    /// In which language names of sensitive information types are put beside their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dlp_names: Option<Language>,
    /// Whether the answer comes in [frames](super::framed), which tell why it is not whole.
    #[serde(default)]
    pub framed: bool,
}

/// What to follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TailRequest {
    /// What to read, as JSON.
    pub query: String,
    /// Where an earlier tail ended, as JSON: the [`Cursor`] that it was told. Of hundreds of tenants it is too long for
    /// an address: then the request is posted.
    pub from: Option<String>,
    /// In which language names of sensitive information types are put beside their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dlp_names: Option<Language>,
}

/// The cursor of a hundred thousand tenants fits.
const LONGEST_TAIL_REQUEST: usize = 64 << 20;

/// Serves the socket at `path` until `stop`. The socket file is removed at the end.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    service: Arc<Service>,
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Service {
    pub(super) info: Info,
    pub(super) report: Arc<Report>,
    pub(super) store: Store,
    pub(super) reloads: mpsc::Sender<Order>,
    stop: CancellationToken,
}

impl AdminSocket {
    /// Binds the socket. The store's lock is held by now, so that a socket file left there is nobody's. Its folder is made
    /// if it is missing: who starts this by hand has nobody who made `/run/tenantry`.
    pub fn bind(
        path: &Path,
        store_path: &Path,
        report: Arc<Report>,
        store: Store,
        reloads: mpsc::Sender<Order>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        let info = Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            store: store_path.to_owned(),
        };
        let service = Arc::new(Service { info, report, store, reloads, stop });
        Ok(Self { listener, path: path.to_owned(), service })
    }

    /// What the answers are made of, for the operators' listener.
    #[must_use]
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Answers requests until the daemon stops, `more` among them; answers under way are then cut off, and their readers
    /// told.
    pub async fn serve(mut self, more: Router) {
        let stop = self.service.stop.clone();
        let store = super::store::routes(self.service.store.clone(), stop.clone());
        let router = reading().merge(records_of_tenants()).route("/v1/reload", post(reload::reload));
        let router = router.with_state(self.service).merge(store).merge(more);
        connections::serve(&mut self.listener, None, router, ALLOWANCE, &stop).await;
        // Somebody else may have removed it already; then it is gone all the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What shows the daemon's state.
pub(super) fn reading() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/openapi.yaml", get(description))
        .route("/v1/status", get(status))
}

/// What hands out records.
pub(super) fn records_of_tenants() -> Router<Arc<Service>> {
    let posted = post(tail_posted).layer(DefaultBodyLimit::max(LONGEST_TAIL_REQUEST));
    Router::new().route("/v1/export", get(export)).route("/v1/tail", get(tail).merge(posted))
}

async fn info(State(service): State<Arc<Service>>) -> Json<Info> {
    Json(service.info.clone())
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], include_str!("../../packaging/openapi.yaml")).into_response()
}

/// Of thousands of tenants it is megabytes, which would hold up an async thread.
async fn status(State(service): State<Arc<Service>>) -> Response {
    let written = tokio::task::spawn_blocking(move || Json(service.report.snapshot()).into_response());
    written.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn export(State(service): State<Arc<Service>>, UrlQuery(request): UrlQuery<ExportRequest>) -> Response {
    let query = match serde_json::from_str::<Query>(&request.query) {
        Ok(query) => query,
        Err(error) => return unreadable(&error),
    };
    let tenants = Arc::new(service.report.names());
    let form = Form { format: request.format, tenants, dlp_names: request.dlp_names };
    let records = records::export(&service.store, query, form, &service.stop);
    if request.framed {
        stream("application/octet-stream", framed::frames(records))
    } else {
        stream(media(request.format), records)
    }
}

async fn tail(State(service): State<Arc<Service>>, UrlQuery(request): UrlQuery<TailRequest>) -> Response {
    let from = request.from.as_deref().map(serde_json::from_str::<Cursor>).transpose();
    let (query, from) = match (serde_json::from_str::<Query>(&request.query), from) {
        (Ok(query), Ok(from)) => (query, from),
        (Err(error), _) | (_, Err(error)) => return unreadable(&error),
    };
    let from = from.map(|from| from.into_iter().map(|(tenant, of, next, sent)| ((tenant, of), (next, sent))).collect());
    let records = records::tail(&service.store, query, request.dlp_names, from, Until::Stopped, &service.stop);
    stream(media(Format::Ndjson), records)
}

async fn tail_posted(service: State<Arc<Service>>, Json(request): Json<TailRequest>) -> Response {
    tail(service, UrlQuery(request)).await
}

pub(super) fn unreadable(error: &serde_json::Error) -> Response {
    (StatusCode::BAD_REQUEST, format!("the query cannot be read: {error}")).into_response()
}

const fn media(format: Format) -> &'static str {
    match format {
        Format::Ndjson => "application/x-ndjson",
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
    }
}

fn stream(media: &'static str, records: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, media)], Body::from_stream(records)).into_response()
}
