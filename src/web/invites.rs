//! Invites, on the admin socket only: who can make one can have a tenant collected.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/invites` | [`InviteStatus`](crate::consent::wanted::InviteStatus) of each, the newest first |
//! | `POST /v1/invites` | [`Invited`](crate::consent::wanted::Invited) for what is [`Wanted`]; 409 with why not |
//! | `DELETE /v1/invites/ID` | 204 when the link leads nowhere any more; 404 if there is no such invite |

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};

use crate::consent::Desk;
use crate::consent::wanted::{Unwanted, Wanted};
use crate::store::{InviteId, StoreError};

/// These requests, answered by `desk`.
pub fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/invites", get(list).post(invite))
        .route("/v1/invites/{id}", delete(withdraw))
        .with_state(desk)
}

async fn list(State(desk): State<Arc<Desk>>) -> Response {
    match desk.invites().await {
        Ok(invites) => Json(invites).into_response(),
        Err(error) => failed(&error),
    }
}

async fn invite(State(desk): State<Arc<Desk>>, Json(wanted): Json<Wanted>) -> Response {
    match desk.invite(wanted).await {
        Ok(invited) => Json(invited).into_response(),
        Err(Unwanted::Store(error)) => failed(&error),
        Err(unwanted) => (StatusCode::CONFLICT, unwanted.to_string()).into_response(),
    }
}

async fn withdraw(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<InviteId>() else { return missing() };
    match desk.withdraw(id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => missing(),
        Err(error) => failed(&error),
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "there is no such invite; `tenantry tenant invites` lists those that there are")
        .into_response()
}

fn failed(error: &StoreError) -> Response {
    match error {
        StoreError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
        error => (StatusCode::INTERNAL_SERVER_ERROR, error.trouble().to_string()).into_response(),
    }
}
