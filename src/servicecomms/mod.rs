//! The retired Office 365 Service Communications API, answered from what is kept: for scripts that were written for it.
//!
//! Microsoft has ended that API; Graph's service communications, which the daemon collects, are its successor. Here what is
//! kept of Graph takes the old form again. Pure, apart from the reading of the store in [`read`].
//!
//! ```text
//! request ($filter, $select, $top, $skip) ─► board (overviews, issues) or messages ─► entities ─► {"value": […]}
//! ```
//!
//! Sources: "Office 365 Service Communications API reference" for the operations, their options, the documented fields and
//! the form of errors; answers of the old API that published clients were tested with, for the fields that it had beside
//! those (`StatusDisplayName`, `FeatureStatus`, `Classification` and so on). An entity has both.
//!
//! # What stands where
//!
//! | old | of Graph | |
//! |---|---|---|
//! | `Services`: `Id`, `DisplayName` | overview: `id`, `service` | |
//! | `Services`: `FeatureNames`, `Features` | | empty: Graph lists no features |
//! | `CurrentStatus`: `Id`, `Workload`, `WorkloadDisplayName` | overview: `id`, `id`, `service` | |
//! | `Status`, `StatusDisplayName` of a service | overview: `status` | by the table of [`words`] |
//! | `StatusTime`, `StatusDate` | | when Graph was last seen to say so; of `HistoricalStatus` the day |
//! | `IncidentIds` | issues of the service: `id` | those that are not resolved; of `HistoricalStatus` those of the day |
//! | `FeatureStatus`, `FeatureGroupStatusCollection` | issues that are not resolved: `feature`, `featureGroup`, `status` | only features that an issue names; empty in `HistoricalStatus` |
//! | `HistoricalStatus` | overviews that are kept | per service and UTC day the worst state seen; days of which nothing is kept are left out |
//! | `Messages` of the type `Incident` | issue | |
//! | `Messages` of the type `MessageCenter` | post of the Message Center | |
//! | `Messages` of the type `PlannedMaintenance` | | Graph has none |
//! | `Id`, `Name`, `Title`, `StartTime`, `EndTime`, `LastUpdatedTime` | `id`, `id`, `title`, `startDateTime`, `endDateTime`, `lastModifiedDateTime` | times as they were sent |
//! | `Status` of an incident | `status` | as `StatusDisplayName`; of a post empty, as it was |
//! | `Messages[]`: `PublishedTime`, `MessageText` | `posts[]`: `createdDateTime`, `description.content`; of a post `startDateTime`, `body.content` | |
//! | `Workload`, `WorkloadDisplayName` | `service`, whose `id` the overview tells | null of a post, as it was |
//! | `Feature`, `FeatureDisplayName` | `feature`, `featureGroup` | |
//! | `AffectedWorkloadNames`, `AffectedWorkloadDisplayNames` | `services` of a post | names without an `id` in the overview are left out of the first |
//! | `Classification`, `ImpactDescription` | `classification`, `impactDescription` | null of a post |
//! | `Severity`, `Category`, `IsMajorChange`, `MessageTagNames`, `ActionRequiredByDate` | `severity`, `category`, `isMajorChange`, `tags`, `actionRequiredByDateTime` of a post | `Severity` null of an incident |
//! | `AdditionalDetails`; `ExternalLink`, `BlogLink`, `HelpLink` | `details`, and those of these names | links empty if there are none |
//! | `ActionType`, `AffectedUserCount`, `AppliesTo`, `FeatureName`, `FlightName`, `MilestoneDate`, `PostIncidentDocumentUrl`, `PreviewDuration`, `UserFunctionalImpact` | | null |
//! | `AffectedTenantCount`, `AnnouncementId`; `IsDismissed`, `IsRead`; `Milestone`, `TenantParams` | `viewPoint` of a post, if it has one | 0, false, empty: what the old API itself answered, and no null for clients whose types know none |
//!
//! The reference's sample of `Messages` has the values of `Workload` and `WorkloadDisplayName` the wrong way round; here they
//! are as in its other samples, and as the API answered.
//!
//! **Invariants:** nothing is asked of Microsoft; nothing is made up where Graph says nothing; memory is bounded by what one
//! answer may have ([`MOST`] messages, [`LARGEST`] bytes), not by what is kept.

mod board;
mod entities;
mod filter;
mod messages;
mod request;
mod tokens;
pub mod words;

use std::ops::ControlFlow;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::content::{ContentType, TenantId};
use crate::store::{Query, Record, Store, StoreError};

use self::board::Board;
pub use self::request::{BadRequest, Operation, Request};

/// `$top` of `Messages`, if it is not given, and at most.
pub const MOST: usize = 100;
/// What the messages of one answer may have in Graph's form, in bytes.
pub const LARGEST: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be read, or not all of it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It would be too large.
    #[error("the messages that are asked for have more than {} MiB; ask for fewer by `$top`, and for the next ones by `$skip`", LARGEST >> 20)]
    TooLarge,
}

/// Reads what is kept of a tenant, and answers in the old form; `confirmed` is when Graph last said how its services stand.
/// Blocking.
pub fn read(
    store: &Store,
    tenant: TenantId,
    request: &Request,
    confirmed: Option<Timestamp>,
    now: Timestamp,
) -> Result<Value, ReadError> {
    let query =
        |types: &[ContentType]| Query { tenants: vec![tenant], content_types: types.to_vec(), ..Query::default() };
    let rows = match request.operation {
        Operation::Messages => messages::read(store, &query(&ContentType::HEALTH), request, now)?,
        operation => {
            let mut board = Board::new(request.first_day(now));
            let types = [ContentType::HealthServices, ContentType::HealthIssues];
            store.for_each_record(&query(&types), |record: Record<'_>| {
                board.take(record.content_type, record.content_id.as_str(), record.json);
                ControlFlow::Continue(())
            })?;
            let rows = match operation {
                Operation::Services => board.services(),
                Operation::HistoricalStatus => board.history(request, now),
                Operation::CurrentStatus | Operation::Messages => board.status(request, confirmed),
            };
            request.page(rows)
        }
    };
    Ok(json!({ "value": rows.into_iter().map(|row| request.selected(row)).collect::<Vec<_>>() }))
}

/// A field that is a text.
fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A field that is a time.
fn time(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    text(fields, name).parse().ok()
}

/// The JSON object of a record, if it is one.
fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}
