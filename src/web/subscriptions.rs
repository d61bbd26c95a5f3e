//! `/v1/tenants/{id}/subscriptions` and `…/notifications`: what an operator asks of a tenant's service by hand.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/tenants/{id}/subscriptions` | a [`ListedSubscription`](crate::tenant::errand::ListedSubscription) for each |
//! | `POST /v1/tenants/{id}/subscriptions/{type}/start?webhook=…` | the one that was started |
//! | `POST /v1/tenants/{id}/subscriptions/{type}/stop` | [`Stopped`](crate::tenant::farewell::Stopped) |
//! | `GET /v1/tenants/{id}/notifications?content_type=…&since=…` | a [`Notified`](crate::tenant::errand::Notified) for each attempt |
//!
//! What is refused is told in a sentence: 404 of a tenant that nobody knows, 409 of what is collected or was asked for a
//! moment ago, 422 of what is not configured, 424 of what Microsoft did not do.
//!
//! **Invariant:** these are answered on the admin socket, and nowhere else.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content::{ContentType, subscribable};
use crate::store::StoreError;
use crate::tenant::Keeper;
use crate::tenant::errand::{Errand, ErrandError};
use crate::tenant::roster::Refusal;

/// How a subscription is to be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// Whether new content is to be notified.
    pub webhook: bool,
}

/// Which attempts to notify are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Of what.
    pub content_type: ContentType,
    /// From when on.
    pub since: Timestamp,
}

/// These requests.
pub fn routes(keeper: Keeper) -> Router {
    Router::new()
        .route("/v1/tenants/{id}/subscriptions", get(list))
        .route("/v1/tenants/{id}/subscriptions/{type}/start", post(start))
        .route("/v1/tenants/{id}/subscriptions/{type}/stop", post(stop))
        .route("/v1/tenants/{id}/notifications", get(notifications))
        .with_state(keeper)
}

async fn list(State(keeper): State<Keeper>, Path(id): Path<String>) -> Response {
    let listed = async { errand(&keeper, &id)?.subscriptions().await };
    answer(listed.await.map(|listed| Json(listed).into_response()))
}

async fn start(
    State(keeper): State<Keeper>,
    Path((id, content_type)): Path<(String, String)>,
    Query(how): Query<Start>,
) -> Response {
    let started = async { errand(&keeper, &id)?.start(known(&content_type)?, how.webhook).await };
    answer(started.await.map(|started| Json(started).into_response()))
}

async fn stop(State(keeper): State<Keeper>, Path((id, content_type)): Path<(String, String)>) -> Response {
    let stopped = async { errand(&keeper, &id)?.stop(known(&content_type)?).await };
    answer(stopped.await.map(|stopped| Json(stopped).into_response()))
}

async fn notifications(State(keeper): State<Keeper>, Path(id): Path<String>, Query(wanted): Query<Wanted>) -> Response {
    let of = || known(wanted.content_type.as_str());
    let listed = async { errand(&keeper, &id)?.notifications(of()?, wanted.since).await };
    answer(listed.await.map(|listed| Json(listed).into_response()))
}

fn errand(keeper: &Keeper, id: &str) -> Result<Errand, ErrandError> {
    keeper.errand(id.parse().map_err(|error: crate::content::NotAGuid| Refusal::Impossible(error.to_string()))?)
}

fn known(content_type: &str) -> Result<ContentType, ErrandError> {
    Ok(subscribable(content_type).map_err(|error| Refusal::Impossible(error.to_string()))?)
}

pub(super) fn answer(outcome: Result<Response, ErrandError>) -> Response {
    let error = match outcome {
        Ok(response) => return response,
        Err(error) => error,
    };
    let status = match &error {
        ErrandError::Refused(Refusal::Unknown { .. }) => StatusCode::NOT_FOUND,
        ErrandError::Refused(_) | ErrandError::Unable { .. } | ErrandError::NoWebhook => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrandError::TooSoon { .. } | ErrandError::Collected { .. } => StatusCode::CONFLICT,
        ErrandError::NotDone { .. } => StatusCode::FAILED_DEPENDENCY,
        ErrandError::Store(StoreError::Closed) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response();
        }
        ErrandError::Store(store) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}: {}", store.trouble())).into_response();
        }
    };
    (status, error.to_string()).into_response()
}
