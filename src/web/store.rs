//! What the command line asks the daemon about the store, because the daemon holds its lock.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/store/verify` | [`Verification`](crate::store::Verification), when everything has been read |
//!
//! **Invariant:** whoever hangs up is no longer worked for.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

#[derive(Debug, Clone)]
struct Service {
    store: Store,
    stop: CancellationToken,
}

/// These requests, answered from `store` until `stop`.
pub(super) fn routes(store: Store, stop: CancellationToken) -> Router {
    Router::new().route("/v1/store/verify", get(verify)).with_state(Service { store, stop })
}

async fn verify(State(service): State<Service>) -> Response {
    answer(&service, |store, stop| store.verify_while(|| !stop.is_cancelled())).await
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
        Ok(Err(StoreError::Closed)) => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.trouble().to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("it panicked: {error}")).into_response(),
    }
}
