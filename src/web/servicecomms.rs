//! `/api/v1.0/{tenant}/ServiceComms/…`: the retired Office 365 Service Communications API, read-only, for scripts that were
//! written for it.
//!
//! | request | answer |
//! |---|---|
//! | `GET …/Services` | the services of the tenant |
//! | `GET …/CurrentStatus` | how they stand |
//! | `GET …/HistoricalStatus` | how they stood, day by day |
//! | `GET …/Messages` | incidents and posts of the Message Center |
//!
//! `{tenant}` is the tenant's id or its name; names and options are those of
//! [`servicecomms`], and so is the form of what is answered. Errors have the old form too:
//! `{"error": {"code": …, "message": …}}`, with 400 for options that make no sense, 404 for a tenant that nobody knows and
//! for what is not collected. A list that lacks what could not be collected is not answered: it would read as "all well".
//!
//! **Invariant:** this is served by the operators' listener alone, and costs what an export costs ([`access`](super::access)).

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, TenantId};
use crate::report::Report;
use crate::retry::Stage;
use crate::servicecomms::{self, BadRequest, Operation, ReadError, Request};
use crate::store::{Store, StoreError};
use crate::tenant::Keeper;

/// So many answers are put together at a time: each reads what is kept of a tenant.
const AT_A_TIME: usize = 2;

const AREA: &str = "ServiceComms";

/// What the answers are made of.
#[derive(Debug, Clone)]
pub struct ServiceComms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: Keeper,
    report: Arc<Report>,
    store: Store,
    places: Semaphore,
}

/// Why there is no answer.
#[derive(Debug)]
enum Refusal {
    NoSuchPath,
    NoSuchTenant(String),
    NotCollected(String),
    Bad(String),
    Stopping,
    Failed(String),
}

impl ServiceComms {
    /// One that answers what `store` keeps of the tenants that `keeper` knows.
    #[must_use]
    pub fn new(keeper: Keeper, report: Arc<Report>, store: Store) -> Self {
        Self(Arc::new(Inner { keeper, report, store, places: Semaphore::new(AT_A_TIME) }))
    }

    /// These requests.
    pub(super) fn routes(&self) -> Router {
        Router::new().route("/api/v1.0/{tenant}/{area}/{operation}", get(answer)).with_state(self.clone())
    }

    async fn answer(&self, tenant: &str, request: Request) -> Result<serde_json::Value, Refusal> {
        let Inner { store, places, .. } = &*self.0;
        let tenant = self.find(tenant)?;
        let watermarks = store.watermarks(tenant).await?;
        self.is_collected(tenant, |of| watermarks.get(&of).is_some_and(|mark| mark.listed_to.is_some()), &request)?;
        let confirmed = watermarks.get(&ContentType::HealthServices).and_then(|mark| mark.listed_to);
        // Nobody closes it.
        let _place = places.acquire().await;
        let (store, now) = (store.clone(), SystemClock.now());
        let read =
            tokio::task::spawn_blocking(move || servicecomms::read(&store, tenant, &request, confirmed, now)).await;
        // A task that ends without an answer was ended by the daemon's end, or has panicked, which the journal tells.
        Ok(read.unwrap_or(Err(StoreError::Closed.into()))?)
    }

    /// The tenant of this id, or of this name if there is one only.
    fn find(&self, text: &str) -> Result<TenantId, Refusal> {
        let roster = self.0.keeper.roster();
        if let Some(id) = text.parse().ok().filter(|id| roster.contains(*id)) {
            return Ok(id);
        }
        let named = roster.members().filter(|member| member.name.to_lowercase() == text.to_lowercase());
        match named.map(|member| member.id).collect::<Vec<_>>()[..] {
            [id] => Ok(id),
            [] => Err(Refusal::NoSuchTenant(format!(
                "there is no tenant `{text}`; name it by its directory id, or as `tenantry tenant list` does"
            ))),
            [..] => {
                Err(Refusal::NoSuchTenant(format!("several tenants are called `{text}`; name it by its directory id")))
            }
        }
    }

    /// Whether all that is needed has been listed at least once.
    fn is_collected(
        &self,
        tenant: TenantId,
        is_listed: impl Fn(ContentType) -> bool,
        request: &Request,
    ) -> Result<(), Refusal> {
        if !self.0.keeper.settings().health.enabled {
            let why = "service health is not collected; set `enabled = true` under `[health]` in the configuration";
            return Err(Refusal::NotCollected(why.to_owned()));
        }
        let Some(missing) = request.needs().into_iter().find(|of| !is_listed(*of)) else { return Ok(()) };
        let troubles = self.0.report.known(tenant).map(|report| report.troubles()).unwrap_or_default();
        let mut about =
            troubles.into_iter().filter(|(stage, of, _)| *stage == Stage::Health && of.is_none_or(|of| of == missing));
        let why =
            about.next().map_or_else(|| "it has not been listed yet".to_owned(), |(.., trouble)| trouble.to_string());
        Err(Refusal::NotCollected(format!("nothing of {missing} is collected so far: {why}")))
    }
}

async fn answer(
    State(comms): State<ServiceComms>,
    Path((tenant, area, operation)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let answered = async {
        let operation = Operation::named(&operation).filter(|_| area.eq_ignore_ascii_case(AREA));
        let request = Request::read(operation.ok_or(Refusal::NoSuchPath)?, &query.unwrap_or_default())?;
        comms.answer(&tenant, request).await
    };
    let (status, body) = match answered.await {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => refusal.told(),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json; odata.metadata=none"),
        (HeaderName::from_static("odata-version"), "4.0"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, Json(body)).into_response()
}

impl Refusal {
    /// As the reference has it: an example of its `code` is a code and a sentence in one.
    fn told(self) -> (StatusCode, serde_json::Value) {
        let (status, code, message) = match self {
            Self::NoSuchPath => (
                StatusCode::NOT_FOUND,
                "NotFound",
                "there are Services, CurrentStatus, HistoricalStatus and Messages of ServiceComms here".to_owned(),
            ),
            Self::NoSuchTenant(message) => (StatusCode::NOT_FOUND, "TenantNotFound", message),
            Self::NotCollected(message) => (StatusCode::NOT_FOUND, "NotCollected", message),
            Self::Bad(message) => (StatusCode::BAD_REQUEST, "BadRequest", message),
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the daemon is stopping".to_owned())
            }
            Self::Failed(message) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "AF5000.  An internal server error occurred.", message)
            }
        };
        (status, json!({ "error": { "code": code, "message": message } }))
    }
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        Self::Bad(bad.0)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::Stopping,
            error => Self::Failed(format!("Retry the request. {}", error.trouble())),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::TooLarge => Self::Bad(error.to_string()),
        }
    }
}
