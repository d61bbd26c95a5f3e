//! `/v1/tenants`: who is collected, and commands that change it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/tenants` | a [`ListedTenant`] for each |
//! | `POST /v1/tenants` | [`NewTenant`]: an operator adds one; 201 with a [`ChangedTenant`] |
//! | `GET /v1/tenants/{id}` | all that is known of one: [`ShownTenant`] |
//! | `DELETE /v1/tenants/{id}?stop_subscriptions=…&purge=…` | [`Removed`](crate::tenant::keeper::Removed) |
//! | `GET /v1/tenants/{id}/health?history=…` | what Microsoft says of its services: [`Health`] |
//! | `POST /v1/tenants/{id}/pause`, `…/resume` | [`ChangedTenant`] |
//!
//! What is refused is told in a sentence: 404 of a tenant that nobody knows, 409 of what a file or an enrolment says
//! otherwise, 422 of what cannot be collected, 424 of subscriptions that Microsoft did not stop.
//!
//! **Invariant:** these are answered on the admin socket, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, TenantId};
use crate::health::Health;
use crate::report::{Report, TenantOrigin, TenantState, TenantStatus, TroubleStatus};
use crate::retry::Stage;
use crate::store::{Store, StoreError, Watermark};
use crate::tenant::Keeper;
use crate::tenant::keeper::KeeperError;
use crate::tenant::roster::{NewTenant, Refusal, Removal};

/// A tenant, as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedTenant {
    /// Its directory id.
    pub id: TenantId,
    /// What it is called.
    pub name: String,
    /// Where it comes from; the first says what holds.
    pub origins: Vec<TenantOrigin>,
    /// Its cloud.
    pub cloud: String,
    /// The section of the configuration that holds its app.
    pub app: String,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// What it is doing.
    pub state: TenantState,
    /// Since when an operator holds it.
    pub held: Option<Timestamp>,
    /// The worst trouble that goes on.
    pub trouble: Option<TroubleStatus>,
}

impl From<TenantStatus> for ListedTenant {
    fn from(status: TenantStatus) -> Self {
        let TenantStatus { id, name, origins, cloud, app, content, state, held, trouble, .. } = status;
        Self { id, name, origins, cloud, app, content_types: content.into_keys().collect(), state, held, trouble }
    }
}

/// All that is known of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownTenant {
    /// What `status` shows of it.
    #[serde(flatten)]
    pub status: TenantStatus,
    /// How far the listing of its content types has come.
    pub watermarks: BTreeMap<ContentType, Watermark>,
    /// How many blobs of each content type were stored in all, those that retention has dropped included.
    pub stored: BTreeMap<ContentType, u64>,
}

impl ShownTenant {
    /// With what the store knows.
    pub async fn of(status: TenantStatus, store: &Store) -> Result<Self, StoreError> {
        let id = status.id;
        let watermarks = store.watermarks(id).await?;
        let heads = store.heads().into_iter();
        let stored = heads.filter(|((tenant, _), _)| *tenant == id).map(|((_, of), blobs)| (of, blobs)).collect();
        Ok(Self { status, watermarks, stored })
    }
}

/// A tenant that was added, paused or resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangedTenant {
    /// As it is now.
    pub tenant: ListedTenant,
    /// What should be known about it.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Service {
    keeper: Keeper,
    report: Arc<Report>,
    store: Store,
}

/// These requests.
pub fn routes(keeper: Keeper, report: Arc<Report>, store: Store) -> Router {
    Router::new()
        .route("/v1/tenants", get(list).post(add))
        .route("/v1/tenants/{id}", get(show).delete(remove))
        .route("/v1/tenants/{id}/health", get(health))
        .route("/v1/tenants/{id}/pause", post(pause))
        .route("/v1/tenants/{id}/resume", post(resume))
        .with_state(Service { keeper, report, store })
}

/// Of thousands of tenants it is megabytes, which would hold up an async thread.
async fn list(State(service): State<Service>) -> Response {
    let written = tokio::task::spawn_blocking(move || {
        let tenants = service.report.snapshot().tenants.into_iter();
        Json(tenants.map(ListedTenant::from).collect::<Vec<_>>()).into_response()
    });
    written.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn show(State(service): State<Service>, Path(id): Path<String>) -> Response {
    let shown = async {
        let status = service.status(known(&id)?)?;
        Ok::<_, KeeperError>(ShownTenant::of(status, &service.store).await?)
    };
    answer(StatusCode::OK, shown.await)
}

/// How health is asked for.
#[derive(Debug, Clone, Copy, Deserialize)]
struct HealthRequest {
    #[serde(default)]
    history: bool,
}

async fn health(State(service): State<Service>, Path(id): Path<String>, Query(how): Query<HealthRequest>) -> Response {
    let read = async {
        let id = known(&id)?;
        service.status(id)?;
        let (store, now) = (service.store.clone(), SystemClock.now());
        let read = tokio::task::spawn_blocking(move || Health::read(&store, id, how.history, now)).await;
        // A task that ends without an answer was ended by the daemon's end, or has panicked, which the journal tells.
        let read = read.unwrap_or(Err(StoreError::Closed))?;
        let troubles = service.report.known(id).map(|report| report.troubles()).unwrap_or_default();
        let troubles = troubles.into_iter().filter(|(stage, ..)| *stage == Stage::Health).map(|(.., trouble)| trouble);
        let mut troubles: Vec<_> = troubles.collect();
        troubles.dedup();
        Ok::<_, KeeperError>(Health { enabled: service.keeper.settings().health.enabled, troubles, ..read })
    };
    answer(StatusCode::OK, read.await)
}

async fn add(State(service): State<Service>, Json(new): Json<NewTenant>) -> Response {
    let added = async {
        let member = service.keeper.add(new).await?;
        let mut notes = Vec::new();
        if !service.keeper.roster().namesakes(member.id, &member.name).is_empty() {
            notes.push(format!("another tenant is called `{}` too; commands will ask for the id instead", member.name));
        }
        if member.held.is_some() {
            notes.push("it was paused by an operator when it was last known, and still is".to_owned());
        }
        Ok(ChangedTenant { tenant: service.status(member.id)?.into(), notes })
    };
    answer(StatusCode::CREATED, added.await)
}

async fn remove(State(service): State<Service>, Path(id): Path<String>, Query(how): Query<Removal>) -> Response {
    let removed = async { service.keeper.remove(known(&id)?, how).await };
    answer(StatusCode::OK, removed.await)
}

async fn pause(State(service): State<Service>, Path(id): Path<String>) -> Response {
    let paused = async {
        let id = known(&id)?;
        service.keeper.pause(id).await?;
        Ok(ChangedTenant { tenant: service.status(id)?.into(), notes: Vec::new() })
    };
    answer(StatusCode::OK, paused.await)
}

async fn resume(State(service): State<Service>, Path(id): Path<String>) -> Response {
    let resumed = async {
        let id = known(&id)?;
        service.keeper.resume(id).await?;
        Ok(ChangedTenant { tenant: service.status(id)?.into(), notes: Vec::new() })
    };
    answer(StatusCode::OK, resumed.await)
}

impl Service {
    fn status(&self, id: TenantId) -> Result<TenantStatus, KeeperError> {
        self.report.status_of(id).ok_or_else(|| Refusal::Unknown { id }.into())
    }
}

/// A path that names no tenant at all.
fn known(id: &str) -> Result<TenantId, KeeperError> {
    id.parse().map_err(|error: crate::content::NotAGuid| Refusal::Impossible(error.to_string()).into())
}

fn answer<T: Serialize>(done: StatusCode, outcome: Result<T, KeeperError>) -> Response {
    let error = match outcome {
        Ok(outcome) => return (done, Json(outcome)).into_response(),
        Err(error) => error,
    };
    let status = match &error {
        KeeperError::Refused(Refusal::Unknown { .. } | Refusal::NothingToPurge { .. }) => StatusCode::NOT_FOUND,
        KeeperError::Refused(Refusal::Impossible(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        KeeperError::Refused(_) => StatusCode::CONFLICT,
        KeeperError::NotAsked { .. } | KeeperError::NotStopped { .. } => StatusCode::FAILED_DEPENDENCY,
        KeeperError::Store(StoreError::Closed) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response();
        }
        KeeperError::Store(store) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}: {}", store.trouble())).into_response();
        }
    };
    (status, error.to_string()).into_response()
}
