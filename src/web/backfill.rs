//! `POST /v1/tenants/{id}/backfill`: a span is listed again, and what is not stored yet is queued. A [`Wish`] leads to a
//! [`Backfilled`](crate::tenant::backfill::Backfilled), when all of it was listed or could not be.
//!
//! What is refused is told in a sentence: 404 of a tenant that nobody knows, 409 of one that is not collected, 422 of a span that
//! Microsoft does not list. What Microsoft did not list of a content type stands in the answer.
//!
//! **Invariant:** it is answered on the admin socket, and nowhere else.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use crate::store::StoreError;
use crate::tenant::Keeper;
use crate::tenant::backfill::{BackfillError, Wish};
use crate::tenant::roster::Refusal;

/// This request.
pub fn routes(keeper: Keeper) -> Router {
    Router::new().route("/v1/tenants/{id}/backfill", post(backfill)).with_state(keeper)
}

async fn backfill(State(keeper): State<Keeper>, Path(id): Path<String>, Json(wish): Json<Wish>) -> Response {
    let listed = async {
        let id = id.parse().map_err(|error: crate::content::NotAGuid| Refusal::Impossible(error.to_string()))?;
        keeper.backfill(id)?.list(&wish).await
    };
    match listed.await {
        Ok(backfilled) => Json(backfilled).into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &BackfillError) -> Response {
    let status = match error {
        BackfillError::Refused(Refusal::Unknown { .. }) => StatusCode::NOT_FOUND,
        BackfillError::NotCollected { .. } => StatusCode::CONFLICT,
        BackfillError::Refused(_)
        | BackfillError::NotWanted { .. }
        | BackfillError::TooOld { .. }
        | BackfillError::Empty { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        BackfillError::Store(StoreError::Closed) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response();
        }
        BackfillError::Store(store) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}: {}", store.trouble())).into_response();
        }
    };
    (status, error.to_string()).into_response()
}
