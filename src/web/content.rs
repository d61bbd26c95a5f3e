//! `POST /v1/tenants/{id}/content`: one content blob by its address, as Microsoft hands it out now. The answer is the body in
//! [frames](super::framed), which tell why it is not whole; what is stored of it stands in the header [`STORED`].
//!
//! What is refused is told in a sentence: 404 of a tenant that nobody knows, 409 of one that is not collected, 422 of an address
//! to which the tenant's token may not go, 424 of what Microsoft did not hand out.
//!
//! **Invariant:** it is answered on the admin socket, and nowhere else.

use std::io;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::framed;
use crate::activity::ContentAddress;
use crate::store::StoreError;
use crate::tenant::Keeper;
use crate::tenant::content::{Content, ContentError};
use crate::tenant::roster::Refusal;

/// A [`StoredContent`](crate::tenant::content::StoredContent) as JSON; not there if nothing is stored.
pub const STORED: HeaderName = HeaderName::from_static("tenantry-stored");

/// Which blob is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRequest {
    /// Where Microsoft says that it is.
    pub content_uri: String,
}

/// This request.
pub fn routes(keeper: Keeper) -> Router {
    Router::new().route("/v1/tenants/{id}/content", post(content)).with_state(keeper)
}

async fn content(
    State(keeper): State<Keeper>,
    Path(id): Path<String>,
    Json(request): Json<ContentRequest>,
) -> Response {
    let fetched = async {
        let id = id.parse().map_err(|error: crate::content::NotAGuid| Refusal::Impossible(error.to_string()))?;
        let address: ContentAddress = request
            .content_uri
            .parse()
            .map_err(|error: crate::activity::NotAnAddress| Refusal::Impossible(error.to_string()))?;
        keeper.investigator(id)?.fetch(&address).await
    };
    match fetched.await {
        Ok(content) => answer(content),
        Err(error) => refused(&error),
    }
}

fn answer(content: Content) -> Response {
    let stored = content.stored.as_ref().and_then(|stored| serde_json::to_string(stored).ok());
    let pieces = stream::unfold(Some(content), async |content| {
        let mut content = content?;
        match content.chunk().await {
            Ok(chunk) => Some((Ok(chunk?), Some(content))),
            Err(trouble) => Some((Err(io::Error::other(trouble.to_string())), None)),
        }
    });
    let body = Body::from_stream(framed::frames(pieces));
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response();
    if let Some(stored) = stored.and_then(|stored| HeaderValue::from_str(&stored).ok()) {
        response.headers_mut().insert(STORED, stored);
    }
    response
}

fn refused(error: &ContentError) -> Response {
    let status = match error {
        ContentError::Refused(Refusal::Unknown { .. }) => StatusCode::NOT_FOUND,
        ContentError::NotCollected { .. } => StatusCode::CONFLICT,
        ContentError::Refused(_) | ContentError::Foreign { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ContentError::NotDone { .. } => StatusCode::FAILED_DEPENDENCY,
        ContentError::Store(StoreError::Closed) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response();
        }
        ContentError::Store(store) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}: {}", store.trouble())).into_response();
        }
    };
    (status, error.to_string()).into_response()
}
