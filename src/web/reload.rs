//! `POST /v1/reload`: the configuration is read again, on behalf of `tenantry reload`.
//!
//! The body is a [`ReloadRequest`]; the answer is [`Reloaded`], or 409 with what is wrong with the new configuration:
//! then the daemon goes on with the one that it has.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::admin::Service;

/// How to reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadRequest {
    /// Let it remove more than 10 tenants and more than 10 % of them.
    pub allow_removal: bool,
}

/// A new configuration is in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file that the daemon reads.
    pub config: PathBuf,
    /// How many tenants there are, those included that came by consent or by command.
    pub tenants: usize,
    /// How many of them are new,
    pub added: usize,
    /// are gone,
    pub removed: usize,
    /// or have other settings than before.
    pub changed: usize,
    /// The keys whose new value only a restart applies.
    pub needs_restart: Vec<String>,
    /// What can be used but should be looked at.
    pub warnings: Vec<String>,
}

/// Somebody wants a reload, and to know its outcome.
#[derive(Debug)]
pub struct Order {
    /// How.
    pub request: ReloadRequest,
    /// The outcome, or what is wrong with the new configuration.
    pub answer: oneshot::Sender<Result<Reloaded, String>>,
}

pub(super) async fn reload(State(service): State<Arc<Service>>, request: Json<ReloadRequest>) -> Response {
    let (answer, outcome) = oneshot::channel();
    let ordered = service.reloads.send(Order { request: request.0, answer }).await;
    match (ordered, outcome.await) {
        (Ok(()), Ok(Ok(reloaded))) => Json(reloaded).into_response(),
        (Ok(()), Ok(Err(problem))) => (StatusCode::CONFLICT, problem).into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
    }
}
