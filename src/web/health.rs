//! `/healthz`: the process answers. `/readyz`: it does its work, by evidence, or what is missing for that.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::admin::Service;
use crate::report::StatusSnapshot;

/// Whether the daemon does its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// Nothing is missing.
    pub(super) ready: bool,
    /// What is missing, and where to look.
    pub(super) missing: Vec<String>,
}

impl Readiness {
    fn new(missing: &[&str]) -> Self {
        Self { ready: missing.is_empty(), missing: missing.iter().map(|text| (*text).to_owned()).collect() }
    }

    /// The store is open, or nobody could ask for this. A tenant has a token that is valid now, and one was listed
    /// since the daemon started. Without an enabled tenant there is nothing to wait for.
    pub(super) fn of(status: &StatusSnapshot) -> Self {
        let active = || status.tenants.iter().filter(|tenant| !tenant.state.is_off());
        let token = active().any(|tenant| tenant.token_until.is_some_and(|until| until > status.at));
        let listing = active().any(|tenant| tenant.last_poll.is_some());
        let missing = [(token, NO_TOKEN), (listing, NO_LISTING)];
        let missing: Vec<_> = missing.into_iter().filter(|(there, _)| !there).map(|(_, text)| text).collect();
        Self::new(if active().next().is_none() { &[] } else { &missing })
    }
}

const OPENING: &str = "the store is being opened: a large one may take minutes";
const NO_TOKEN: &str = "no tenant has a valid token: `tenantry status` says why";
const NO_LISTING: &str = "no listing has succeeded yet: `tenantry status` says why";

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

/// It answers, so that it is alive.
pub(super) async fn healthz() -> &'static str {
    "alive\n"
}

pub(super) async fn readyz(State(service): State<Arc<Service>>) -> Readiness {
    Readiness::of(&service.report.snapshot())
}

pub(super) async fn not_yet() -> Readiness {
    Readiness::new(&[OPENING])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::TenantId;
    use crate::report::{TenantState, TenantStatus};

    #[test]
    fn ready_is_a_valid_token_and_a_listing_of_any_tenant() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let (before, after) = ("2026-11-22T11:59:59Z".parse().unwrap(), "2026-11-22T12:00:01Z".parse().unwrap());
        let tenant = |state, token_until, last_poll| TenantStatus {
            token_until,
            last_poll,
            ..TenantStatus::new(TenantId::from_bytes([1; 16]), "contoso", state)
        };
        let (starting, off) = (TenantState::Starting, TenantState::Disabled);
        for (tenants, missing) in [
            (vec![], vec![]),
            (vec![tenant(off, None, None)], vec![]),
            (vec![tenant(starting, None, None)], vec![NO_TOKEN, NO_LISTING]),
            (vec![tenant(starting, Some(after), None)], vec![NO_LISTING]),
            (vec![tenant(starting, Some(before), Some(now))], vec![NO_TOKEN]),
            (vec![tenant(starting, Some(after), None), tenant(starting, None, Some(now))], vec![]),
            (vec![tenant(off, Some(after), Some(now)), tenant(starting, None, None)], vec![NO_TOKEN, NO_LISTING]),
        ] {
            let status = StatusSnapshot {
                running: true,
                version: String::new(),
                at: now,
                started: None,
                host_ahead_by_seconds: None,
                sentence: String::new(),
                pause: None,
                warnings: Vec::new(),
                tenants,
            };
            let readiness = Readiness::of(&status);
            assert_eq!(readiness.missing, missing, "{status:?}");
            assert_eq!(readiness.ready, missing.is_empty());
        }
    }
}
