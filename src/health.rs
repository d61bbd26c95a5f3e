//! What Microsoft says of its own services, put together from the revisions that are kept: how it stands, and what changed.
//!
//! Pure, apart from the reading in [`Health::read`]: revisions go in one by one, in any order that the store has them, and
//! come out as the last one of each item, and as changes from one to the next. Memory holds of each item what is shown,
//! and of its fields a digest, not the texts.
//!
//! Microsoft writes the values of its enumerations in more than one case; they are compared without it, and shown as they
//! were sent.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::content::{ContentType, TenantId};
use crate::report::Trouble;
use crate::store::{Query, Record, Store, StoreError};

/// A value that is longer is named as changed, and not shown.
const SHOWN: usize = 120;
/// What says only that something else has changed.
const SILENT: [&str; 1] = ["lastModifiedDateTime"];

/// What is known of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is collected at all, as the configuration says.
    #[serde(default = "collected")]
    pub enabled: bool,
    /// Every service and its state, by name.
    pub services: Vec<Service>,
    /// Issues that are not resolved, those changed last first.
    pub issues: Vec<Issue>,
    /// Posts of the Message Center that have not expired, those changed last first.
    pub messages: Vec<Message>,
    /// What changed from one revision to the next, oldest first; only if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// What keeps it from being collected at the moment, as far as the daemon knows.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

/// What an older daemon does not say.
const fn collected() -> bool {
    true
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Microsoft's name for it, such as `Exchange`.
    pub id: String,
    /// What people call it.
    pub service: String,
    /// Its state, such as `serviceOperational`.
    pub status: String,
    /// Since when it was seen in this state.
    pub since: Option<Timestamp>,
}

impl Service {
    /// Whether it works.
    #[must_use]
    pub fn is_well(&self) -> bool {
        ["serviceOperational", "serviceRestored", "falsePositive", "postIncidentReviewPublished"]
            .iter()
            .any(|well| well.eq_ignore_ascii_case(&self.status))
    }
}

/// An incident or an advisory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Such as `EX226792`.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// The service that it affects.
    pub service: String,
    /// Its state.
    pub status: String,
    /// `incident` or `advisory`.
    pub classification: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it was last changed.
    pub modified: Option<Timestamp>,
}

/// A post of the Message Center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Such as `MC172851`.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// `planForChange`, `stayInformed` or `preventOrFixIssue`.
    pub category: String,
    /// `normal`, `high` or `critical`.
    pub severity: String,
    /// The services that it is about.
    pub services: Vec<String>,
    /// By when something must be done.
    pub act_by: Option<Timestamp>,
    /// When it was last changed.
    pub modified: Option<Timestamp>,
}

/// What a revision brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When: as the item says, or when it was seen.
    pub at: Option<Timestamp>,
    /// As what it is stored.
    pub content_type: ContentType,
    /// The item.
    pub id: String,
    /// What it is about, or the service's name.
    pub title: String,
    /// The fields that are other than before; none of an item that is new.
    pub fields: Vec<Field>,
}

/// A field that changed. A value that is long, or no text and no number, is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it was.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

/// A value as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    digest: u64,
    text: Option<String>,
}

impl Trace {
    fn of(value: &Value) -> Self {
        let mut hasher = siphasher::sip::SipHasher13::new();
        value.to_string().hash(&mut hasher);
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            // Posts are told by their number.
            Value::Array(all) => Some(format!("{} entries", all.len())),
            Value::Null | Value::Object(_) => None,
        };
        Self { digest: hasher.finish(), text: text.filter(|text| text.chars().count() <= SHOWN) }
    }
}

/// An item in its revision.
#[derive(Debug, Clone)]
struct Revision {
    at: Option<Timestamp>,
    title: String,
    traces: BTreeMap<String, Trace>,
    shown: Shown,
}

#[derive(Debug, Clone)]
enum Shown {
    Service(Service),
    Issue(Issue, bool),
    Message(Message, Option<Timestamp>),
}

/// Puts revisions together.
#[derive(Debug, Default)]
struct Fold {
    history: bool,
    items: BTreeMap<(ContentType, String), Vec<Revision>>,
}

impl Fold {
    /// Takes a record of health; one that is no object, or not of health, says nothing.
    fn take(&mut self, content_type: ContentType, content_id: &str, json: &[u8]) {
        let Ok(Value::Object(fields)) = serde_json::from_slice(json) else { return };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = text("id");
        let at = match content_type {
            ContentType::HealthServices => seen_at(content_id),
            _ => time(&fields, "lastModifiedDateTime"),
        };
        let Some(shown) = shown(content_type, &fields, at) else { return };
        let title = if content_type == ContentType::HealthServices { text("service") } else { text("title") };
        let traces =
            if self.history || content_type == ContentType::HealthServices { traces(&fields) } else { BTreeMap::new() };
        let revision = Revision { at, title, traces, shown };
        let revisions = self.items.entry((content_type, id)).or_default();
        // The store has them nearly in order.
        let place = revisions.partition_point(|known| known.at <= at);
        revisions.insert(place, revision);
        if content_type == ContentType::HealthServices {
            forget_same(revisions);
        }
        if !self.history {
            revisions.drain(..revisions.len() - 1);
        }
    }

    fn finish(self, now: Timestamp) -> Health {
        let mut health = Health { changes: self.history.then(Vec::new), ..Health::default() };
        for ((content_type, id), revisions) in self.items {
            if let Some(changes) = &mut health.changes {
                changes.extend(changes_of(content_type, &id, &revisions));
            }
            match revisions.into_iter().last().map(|last| last.shown) {
                Some(Shown::Service(service)) => health.services.push(service),
                Some(Shown::Issue(issue, false)) => health.issues.push(issue),
                Some(Shown::Message(message, end)) if end.is_none_or(|end| end > now) => health.messages.push(message),
                Some(Shown::Issue(_, true) | Shown::Message(..)) | None => {}
            }
        }
        health.services.sort_by_cached_key(|service| service.service.to_lowercase());
        health.issues.sort_by(|one, other| (other.modified, &other.id).cmp(&(one.modified, &one.id)));
        health.messages.sort_by(|one, other| (other.modified, &other.id).cmp(&(one.modified, &one.id)));
        if let Some(changes) = &mut health.changes {
            changes.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        }
        health
    }
}

/// A service is in every overview that is kept; of those in which it is the same, the first tells since when.
fn forget_same(revisions: &mut Vec<Revision>) {
    revisions.dedup_by(|later, earlier| later.traces == earlier.traces);
}

impl Health {
    /// Reads what is kept of a tenant. Blocking.
    ///
    /// # Errors
    /// If the store cannot be read, or not all of it.
    pub fn read(store: &Store, tenant: TenantId, history: bool, now: Timestamp) -> Result<Self, StoreError> {
        let query = Query { tenants: vec![tenant], content_types: ContentType::HEALTH.to_vec(), ..Query::default() };
        let mut fold = Fold { history, ..Fold::default() };
        store.for_each_record(&query, |record: Record<'_>| {
            fold.take(record.content_type, record.content_id.as_str(), record.json);
            ControlFlow::Continue(())
        })?;
        Ok(fold.finish(now))
    }
}

/// The time in the name of an overview.
pub(crate) fn seen_at(content_id: &str) -> Option<Timestamp> {
    content_id.rsplit_once('@').and_then(|(_, time)| time.parse().ok())
}

fn time(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    fields.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn traces(fields: &Map<String, Value>) -> BTreeMap<String, Trace> {
    let told = fields.iter().filter(|(name, _)| !SILENT.contains(&name.as_str()));
    told.map(|(name, value)| (name.clone(), Trace::of(value))).collect()
}

fn shown(content_type: ContentType, fields: &Map<String, Value>, at: Option<Timestamp>) -> Option<Shown> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, title, status) = (text("id"), text("title"), text("status"));
    Some(match content_type {
        ContentType::HealthServices => Shown::Service(Service { id, service: text("service"), status, since: at }),
        ContentType::HealthIssues => {
            let resolved = fields.get("isResolved").and_then(Value::as_bool).unwrap_or(false);
            let issue = Issue {
                id,
                title,
                service: text("service"),
                status,
                classification: text("classification"),
                started: time(fields, "startDateTime"),
                modified: at,
            };
            Shown::Issue(issue, resolved)
        }
        ContentType::HealthMessages => {
            let services = fields.get("services").and_then(Value::as_array).into_iter().flatten();
            let message = Message {
                id,
                title,
                category: text("category"),
                severity: text("severity"),
                services: services.filter_map(|service| service.as_str().map(str::to_owned)).collect(),
                act_by: time(fields, "actionRequiredByDateTime"),
                modified: at,
            };
            Shown::Message(message, time(fields, "endDateTime"))
        }
        _ => return None,
    })
}

fn changes_of<'r>(
    content_type: ContentType,
    id: &'r str,
    revisions: &'r [Revision],
) -> impl Iterator<Item = Change> + 'r {
    let none = BTreeMap::new();
    revisions.iter().enumerate().map(move |(place, revision)| {
        let before = place.checked_sub(1).map_or(&none, |before| &revisions[before].traces);
        let names: std::collections::BTreeSet<_> = before.keys().chain(revision.traces.keys()).collect();
        let field = |name: &String| {
            let (from, to) = (before.get(name), revision.traces.get(name));
            let text = |trace: Option<&Trace>| trace.and_then(|trace| trace.text.clone());
            (from != to).then(|| Field { name: name.clone(), from: text(from), to: text(to) })
        };
        let fields = if place == 0 { Vec::new() } else { names.into_iter().filter_map(field).collect() };
        Change { at: revision.at, content_type, id: id.to_owned(), title: revision.title.clone(), fields }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn fold(history: bool, records: &[(ContentType, &str, Value)]) -> Health {
        let mut fold = Fold { history, ..Fold::default() };
        for (content_type, id, json) in records {
            fold.take(*content_type, id, json.to_string().as_bytes());
        }
        fold.finish(at("2026-11-26T12:00:00Z"))
    }

    fn issue(hour: u8, status: &str, resolved: bool, posts: usize) -> (ContentType, &'static str, Value) {
        let json = json!({
            "id": "EX1", "title": "Mail is late", "service": "Exchange Online", "status": status,
            "classification": "incident", "isResolved": resolved, "posts": vec!["x"; posts],
            "startDateTime": "2026-11-26T01:00:00Z", "lastModifiedDateTime": format!("2026-11-26T{hour:02}:00:00Z"),
        });
        (ContentType::HealthIssues, "issues/EX1", json)
    }

    #[test]
    fn the_last_revision_counts_whatever_the_order() {
        let open = [issue(2, "investigating", false, 1), issue(4, "serviceDegradation", false, 2)];
        let mut turned = open.clone();
        turned.reverse();
        for records in [&open, &turned] {
            let health = fold(false, records);
            assert_eq!(health.issues.len(), 1);
            assert_eq!(health.issues[0].status, "serviceDegradation");
            assert_eq!(health.changes, None);
        }
        assert!(fold(false, &[open[0].clone(), issue(5, "serviceRestored", true, 3)]).issues.is_empty());
    }

    #[test]
    fn changes_name_the_fields_and_what_they_were() {
        let health = fold(true, &[issue(2, "investigating", false, 1), issue(4, "serviceRestored", true, 2)]);
        let changes = health.changes.unwrap();
        assert_eq!(
            changes.iter().map(|change| change.at.unwrap()).collect::<Vec<_>>(),
            [at("2026-11-26T02:00:00Z"), at("2026-11-26T04:00:00Z")]
        );
        assert!(changes[0].fields.is_empty(), "it is new");
        let told: Vec<_> = changes[1]
            .fields
            .iter()
            .map(|field| (field.name.as_str(), field.from.as_deref(), field.to.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("isResolved", Some("false"), Some("true")),
                ("posts", Some("1 entries"), Some("2 entries")),
                ("status", Some("investigating"), Some("serviceRestored")),
            ]
        );
    }

    #[test]
    fn a_service_is_in_its_state_since_it_was_first_seen_in_it() {
        let seen = |hour: u8, status: &str, id: &'static str| {
            let _ = hour;
            (ContentType::HealthServices, id, json!({"id": "Exchange", "service": "Exchange Online", "status": status}))
        };
        let records = [
            seen(1, "ServiceOperational", "healthOverviews/all@2026-11-26T01:00:00Z"),
            seen(2, "serviceDegradation", "healthOverviews/all@2026-11-26T02:00:00Z"),
            seen(3, "ServiceOperational", "healthOverviews/all@2026-11-26T03:00:00Z"),
            seen(4, "ServiceOperational", "healthOverviews/all@2026-11-26T04:00:00Z"),
        ];
        for history in [false, true] {
            let health = fold(history, &records);
            assert_eq!(health.services.len(), 1);
            let service = &health.services[0];
            assert!(service.is_well());
            assert_eq!(service.since, Some(at("2026-11-26T03:00:00Z")));
            assert_eq!(health.changes.map_or(3, |changes| changes.len()), 3);
        }
    }

    #[test]
    fn what_has_ended_is_not_shown_and_what_is_no_object_says_nothing() {
        let message = |id: &'static str, end: Value| {
            let json = json!({"id": id, "title": "t", "endDateTime": end, "services": ["Teams", 7]});
            (ContentType::HealthMessages, id, json)
        };
        let records = [
            message("MC1", json!("2026-11-26T11:00:00Z")),
            message("MC2", json!("2026-11-26T13:00:00Z")),
            message("MC3", Value::Null),
            (ContentType::HealthMessages, "x", json!(17)),
            (ContentType::Exchange, "x", json!({"id": "y"})),
        ];
        let health = fold(true, &records);
        assert_eq!(health.messages.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["MC3", "MC2"]);
        assert_eq!(health.messages[0].services, ["Teams"]);
    }
}
