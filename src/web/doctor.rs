//! `POST /v1/doctor`: the running daemon looks why no data arrives, on behalf of `tenantry doctor`.
//!
//! The body is a [`DoctorRequest`]; the answer is a [`Diagnosis`], when all have been looked at.
//!
//! **Invariant:** one examination at a time: the next caller waits for its turn, and whoever hangs up is no longer worked
//! for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::content::TenantId;
use crate::doctor::{Diagnosis, Doctor};
use crate::tenant::Registry;

/// Whom to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoctorRequest {
    /// Directory ids; none means all.
    pub tenants: Vec<TenantId>,
}

/// The doctor, and whom it may be asked about.
#[derive(Debug, Clone)]
pub struct Surgery {
    doctor: Doctor,
    registry: Arc<Registry>,
    turn: Arc<Mutex<()>>,
}

impl Surgery {
    /// For the tenants of `registry`.
    #[must_use]
    pub fn new(doctor: Doctor, registry: Arc<Registry>) -> Self {
        Self { doctor, registry, turn: Arc::default() }
    }

    /// This request, answered until `stop`.
    pub fn routes(self, stop: CancellationToken) -> Router {
        Router::new().route("/v1/doctor", post(examine)).with_state((self, stop))
    }
}

async fn examine(
    State((surgery, stop)): State<(Surgery, CancellationToken)>,
    Json(request): Json<DoctorRequest>,
) -> Response {
    let examined = async {
        let _turn = surgery.turn.lock().await;
        let mut patients = surgery.registry.patients();
        if !request.tenants.is_empty() {
            patients.retain(|patient| request.tenants.contains(&patient.tenant));
        }
        surgery.registry.look_again();
        Diagnosis { daemon: true, ..surgery.doctor.examine(patients).await }
    };
    tokio::select! {
        diagnosis = examined => Json(diagnosis).into_response(),
        () = stop.cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping").into_response(),
    }
}
