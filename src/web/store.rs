//! What the command line asks the daemon about the store, because the daemon holds its lock.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/store/verify?query=…` | [`Verification`](crate::store::Verification) of the query's tenants or all, when everything has been read |
//! | `GET /v1/store/stats` | [`Stats`](crate::store::Stats), when every partition has been opened |
//! | `GET /v1/store/ledger?query=…` | a [`LedgerLine`](crate::store::LedgerLine) for each hour in which anything of what the [`Query`] asks for was available |
//! | `GET /v1/store/gaps?query=…` | a [`GapLine`](crate::store::GapLine) for each span that was not listed when it should have been |
//! | `GET /v1/store/purges` | a [`Purge`](crate::store::Purge) for each that was ever asked for, the oldest first |
//! | `POST /v1/store/backup` | what is stored now, as a [stream](crate::store::backup::frame) of what the caller does not have |
//!
//! **Invariant:** whoever hangs up is no longer worked for.

use axum::body::{Body, Bytes};
use axum::extract::{Query as Asked, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admin::unreadable;
use super::records::{WAITING, pieces};
use crate::store::{BackupError, Have, Query, Store, StoreError};

/// What a caller has of a backup.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackupRequest {
    /// The partitions that need not be sent.
    pub have: Have,
}

/// Whom a verification is about.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// A [`Query`] as JSON, of which the tenants count; none: all.
    #[serde(default)]
    pub query: Option<String>,
}

/// Which hours, or gaps, are asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LedgerRequest {
    /// A [`Query`] as JSON.
    pub query: String,
}

#[derive(Debug, Clone)]
struct Service {
    store: Store,
    stop: CancellationToken,
}

/// These requests, answered from `store` until `stop`.
pub(super) fn routes(store: Store, stop: CancellationToken) -> Router {
    Router::new()
        .route("/v1/store/verify", get(verify))
        .route("/v1/store/stats", get(stats))
        .route("/v1/store/ledger", get(ledger))
        .route("/v1/store/gaps", get(gaps))
        .route("/v1/store/purges", get(purges))
        .route("/v1/store/backup", post(backup))
        .with_state(Service { store, stop })
}

async fn verify(State(service): State<Service>, Asked(request): Asked<VerifyRequest>) -> Response {
    let query = match request.query.as_deref().map(serde_json::from_str::<Query>).transpose() {
        Ok(query) => query.unwrap_or_default(),
        Err(error) => return unreadable(&error),
    };
    answer(&service, move |store, stop| store.verify_while(&query.tenants, || !stop.is_cancelled())).await
}

async fn stats(State(service): State<Service>) -> Response {
    tokio::select! {
        stats = service.store.stats() => match stats {
            Ok(stats) => Json(stats).into_response(),
            Err(error) => refused(&error),
        },
        () = service.stop.cancelled() => refused(&StoreError::Closed),
    }
}

async fn ledger(State(service): State<Service>, Asked(request): Asked<LedgerRequest>) -> Response {
    let query = match serde_json::from_str::<Query>(&request.query) {
        Ok(query) => query,
        Err(error) => return unreadable(&error),
    };
    tokio::select! {
        ledger = service.store.ledger(query) => match ledger {
            Ok(ledger) => Json(ledger).into_response(),
            Err(error) => refused(&error),
        },
        () = service.stop.cancelled() => refused(&StoreError::Closed),
    }
}

async fn gaps(State(service): State<Service>, Asked(request): Asked<LedgerRequest>) -> Response {
    let query = match serde_json::from_str::<Query>(&request.query) {
        Ok(query) => query,
        Err(error) => return unreadable(&error),
    };
    tokio::select! {
        gaps = service.store.gaps(query, true) => match gaps {
            Ok(gaps) => Json(gaps).into_response(),
            Err(error) => refused(&error),
        },
        () = service.stop.cancelled() => refused(&StoreError::Closed),
    }
}

async fn purges(State(service): State<Service>) -> Response {
    Json(service.store.purges()).into_response()
}

/// Seals and sends. What goes wrong is told in the stream, which has no end then.
async fn backup(State(service): State<Service>, Json(request): Json<BackupRequest>) -> Response {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let Service { store, stop } = service;
        let sealed = tokio::select! {
            sealed = store.seal() => sealed,
            () = stop.cancelled() => Err(StoreError::Closed.into()),
            () = sender.closed() => return,
        };
        // Who waits for the end is the stream's reader.
        drop(tokio::task::spawn_blocking(move || {
            let mut out = |piece: Bytes| {
                if stop.is_cancelled() {
                    return Err(StoreError::Closed.into());
                }
                sender.blocking_send(Ok(piece)).map_err(|_| BackupError::HungUp)
            };
            match store.send_backup(sealed, &request.have, &mut out) {
                Ok(()) => tracing::info!("a backup was sent"),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a backup ended early"),
            }
        }));
    });
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces(receiver))).into_response()
}

/// Blocking work for one request; it is told to end when the caller hangs up or the daemon stops.
async fn answer<T: Serialize + Send + 'static>(
    service: &Service,
    work: impl FnOnce(Store, CancellationToken) -> Result<T, StoreError> + Send + 'static,
) -> Response {
    let (store, stop) = (service.store.clone(), service.stop.child_token());
    let _ends_with_the_request = stop.clone().drop_guard();
    match tokio::task::spawn_blocking(move || work(store, stop)).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(error)) => refused(&error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("it panicked: {error}")).into_response(),
    }
}

fn refused(error: &StoreError) -> Response {
    match error {
        StoreError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
        error => (StatusCode::INTERNAL_SERVER_ERROR, error.trouble().to_string()).into_response(),
    }
}
