//! `/v1/tenants/{id}/health/…`: what is fetched of Microsoft Graph for an operator, and kept nowhere.
//!
//! | request | answer |
//! |---|---|
//! | `GET …/issues/{issue}/report` | the post-incident review of an issue |
//! | `GET …/messages/{message}/attachments` | the [`Attachment`](crate::graph::Attachment)s of a post |
//! | `GET …/messages/{message}/attachments/{attachment}` | one of them |
//! | `GET …/messages/{message}/archive` | all of them in one file |
//!
//! Files are handed on as they come; [`MEDIA`] tells their media type in Microsoft's words. One that Microsoft does not send
//! whole is cut off. What is refused is told as for [`subscriptions`](super::subscriptions).
//!
//! **Invariant:** these are answered on the admin socket, and nowhere else.

use std::io;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use tracing::warn;

use super::subscriptions::answer;
use crate::graph::File;
use crate::tenant::Keeper;
use crate::tenant::errand::ErrandError;
use crate::tenant::health::errand::HealthErrand;
use crate::tenant::roster::Refusal;

/// The header that tells a file's media type.
pub const MEDIA: &str = "graph-content-type";

/// These requests.
pub fn routes(keeper: Keeper) -> Router {
    Router::new()
        .route("/v1/tenants/{id}/health/issues/{issue}/report", get(report))
        .route("/v1/tenants/{id}/health/messages/{message}/attachments", get(attachments))
        .route("/v1/tenants/{id}/health/messages/{message}/attachments/{attachment}", get(attachment))
        .route("/v1/tenants/{id}/health/messages/{message}/archive", get(archive))
        .with_state(keeper)
}

async fn report(State(keeper): State<Keeper>, Path((id, issue)): Path<(String, String)>) -> Response {
    let file = async { errand(&keeper, &id).await?.report(&issue).await };
    answer(file.await.map(handed_on))
}

async fn attachments(State(keeper): State<Keeper>, Path((id, message)): Path<(String, String)>) -> Response {
    let listed = async { errand(&keeper, &id).await?.attachments(&message).await };
    answer(listed.await.map(|listed| Json(listed).into_response()))
}

async fn attachment(
    State(keeper): State<Keeper>,
    Path((id, message, attachment)): Path<(String, String, String)>,
) -> Response {
    let file = async { errand(&keeper, &id).await?.attachment(&message, &attachment).await };
    answer(file.await.map(handed_on))
}

async fn archive(State(keeper): State<Keeper>, Path((id, message)): Path<(String, String)>) -> Response {
    let file = async { errand(&keeper, &id).await?.archive(&message).await };
    answer(file.await.map(handed_on))
}

async fn errand(keeper: &Keeper, id: &str) -> Result<HealthErrand, ErrandError> {
    let id = id.parse().map_err(|error: crate::content::NotAGuid| Refusal::Impossible(error.to_string()))?;
    keeper.health_errand(id).await
}

/// The file as it comes.
fn handed_on(file: File) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/octet-stream") });
    if let Some(media) = file.content_type.as_deref().and_then(|media| HeaderValue::from_str(media).ok()) {
        headers.insert(HeaderName::from_static(MEDIA), media);
    }
    let pieces = stream::try_unfold(file, async |mut file| match file.chunk().await {
        Ok(piece) => Ok(piece.map(|piece| (piece, file))),
        Err(error) => {
            warn!("a file of Microsoft Graph is not handed on whole: {}", error.trouble());
            Err(io::Error::other(error))
        }
    });
    (headers, Body::from_stream(pieces)).into_response()
}
