//! `POST /v1/tenants/{id}/inventory`: what Microsoft still holds of a tenant is compared with what is stored, on behalf of
//! `tenantry verify`.
//!
//! The answer is an [`Inventory`](crate::tenant::inventory::Inventory), when all has been listed, which may take as long as
//! Microsoft wants to be waited for; 404 of a tenant that nobody knows.
//!
//! **Invariant:** [`AT_A_TIME`] at a time: others wait for their turn, and whoever hangs up is no longer worked for.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::subscriptions::answer;
use crate::content::{NotAGuid, TenantId};
use crate::tenant::Keeper;
use crate::tenant::roster::Refusal;

/// How many tenants' inventories are taken at a time: a few, so that one that is throttled holds up nobody for long.
pub const AT_A_TIME: usize = 8;

#[derive(Debug, Clone)]
struct Service {
    keeper: Keeper,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
}

/// This request, answered until `stop`.
pub fn routes(keeper: Keeper, stop: CancellationToken) -> Router {
    let service = Service { keeper, turns: Arc::new(Semaphore::new(AT_A_TIME)), stop };
    Router::new().route("/v1/tenants/{id}/inventory", post(take)).with_state(service)
}

async fn take(State(service): State<Service>, Path(id): Path<String>) -> Response {
    let taken = async {
        let id: TenantId = id.parse().map_err(|error: NotAGuid| Refusal::Impossible(error.to_string()))?;
        // It is never closed.
        let _turn = service.turns.acquire().await;
        service.keeper.take_inventory(id).await
    };
    tokio::select! {
        taken = taken => answer(taken.map(|inventory| Json(inventory).into_response())),
        () = service.stop.cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
    }
}
