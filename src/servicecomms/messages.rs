//! `Messages`: incidents and posts. What is kept is read twice: first what tells which are asked for, then those whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::board::Board;
use super::entities::{Detail, Message, MessageHistory, Post, kind, row};
use super::filter::{Operand, Property};
use super::request::Request;
use super::{LARGEST, ReadError, object, text, time, words};
use crate::content::ContentType;
use crate::store::{Query, Record, Store};

/// Where a record stands in the store.
type Place = (ContentType, u64, u32);

/// What tells whether an item is asked for, of its last revision.
#[derive(Debug)]
struct Entry {
    place: Place,
    id: String,
    service: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    resolved: bool,
    modified: Option<Timestamp>,
}

impl Entry {
    fn of(place: Place, fields: &Map<String, Value>) -> Self {
        Self {
            place,
            id: text(fields, "id").to_owned(),
            service: text(fields, "service").to_owned(),
            start: time(fields, "startDateTime"),
            end: time(fields, "endDateTime"),
            resolved: fields.get("isResolved").and_then(Value::as_bool).unwrap_or(false),
            modified: time(fields, "lastModifiedDateTime"),
        }
    }

    /// Whether something about it is as young as that, or it goes on: an incident that lasts longer than a week is not over.
    fn is_since(&self, since: Timestamp) -> bool {
        let goes_on = self.end.is_none() && !self.resolved;
        goes_on || [self.start, self.end, self.modified].into_iter().flatten().any(|time| time >= since)
    }
}

/// The items, each in its last revision.
#[derive(Debug, Default)]
struct Index(BTreeMap<(ContentType, String), Entry>);

impl Index {
    fn take(&mut self, place: Place, json: &[u8]) {
        let Some(fields) = object(json) else { return };
        let entry = Entry::of(place, &fields);
        let key = (place.0, entry.id.clone());
        if self.0.get(&key).is_none_or(|known| known.modified <= entry.modified) {
            self.0.insert(key, entry);
        }
    }

    /// Where those stand that are asked for, the one that was changed last first.
    fn wanted(self, request: &Request, ids: &BTreeMap<&str, &str>, now: Timestamp) -> Vec<Place> {
        let since = request.since(now);
        let is_wanted = |entry: &Entry| {
            let id = || ids.get(entry.service.as_str()).map(|id| (*id).to_owned());
            let of = |property| match property {
                Property::Workload => id().map_or(Operand::Null, Operand::Text),
                Property::MessageType => Operand::Text(kind(entry.place.0).to_owned()),
                Property::Id => Operand::Text(entry.id.clone()),
                Property::StartTime => entry.start.map_or(Operand::Null, Operand::Time),
                Property::EndTime => entry.end.map_or(Operand::Null, Operand::Time),
                Property::StatusTime => Operand::Null,
            };
            since.is_none_or(|since| entry.is_since(since)) && request.wants(&of)
        };
        let mut entries: Vec<_> = self.0.into_values().filter(is_wanted).collect();
        entries.sort_by(|one, other| (other.modified, &one.id).cmp(&(one.modified, &other.id)));
        request.page(entries).into_iter().map(|entry| entry.place).collect()
    }
}

/// Reads those that are asked for. Blocking.
pub(super) fn read(
    store: &Store,
    query: &Query,
    request: &Request,
    now: Timestamp,
) -> Result<Vec<Map<String, Value>>, ReadError> {
    let (mut board, mut index) = (Board::new(request.first_day(now)), Index::default());
    store.for_each_record(query, |record: Record<'_>| {
        if record.content_type == ContentType::HealthServices {
            board.take(record.content_type, record.content_id.as_str(), record.json);
        } else {
            index.take((record.content_type, record.seq, record.index), record.json);
        }
        ControlFlow::Continue(())
    })?;
    let ids = board.ids();
    let wanted = index.wanted(request, &ids, now);
    let order: BTreeMap<_, _> = wanted.iter().enumerate().map(|(at, place)| (*place, at)).collect();
    let (mut rows, mut bytes) = (BTreeMap::new(), 0);
    store.for_each_record(query, |record: Record<'_>| {
        let Some(at) = order.get(&(record.content_type, record.seq, record.index)) else {
            return ControlFlow::Continue(());
        };
        bytes += record.json.len();
        if bytes > LARGEST {
            return ControlFlow::Break(());
        }
        if let Some(fields) = object(record.json) {
            let message = if record.content_type == ContentType::HealthIssues {
                incident(&fields, &ids)
            } else {
                post(&fields, &ids)
            };
            rows.insert(*at, row(message));
        }
        ControlFlow::Continue(())
    })?;
    if bytes > LARGEST { Err(ReadError::TooLarge) } else { Ok(rows.into_values().collect()) }
}

/// A text, if there is one.
fn some(fields: &Map<String, Value>, name: &str) -> Option<String> {
    Some(text(fields, name).to_owned()).filter(|text| !text.is_empty())
}

fn entries<'f>(fields: &'f Map<String, Value>, name: &str) -> impl Iterator<Item = &'f Value> {
    fields.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// What issues and posts have in common.
fn common(fields: &Map<String, Value>, content_type: ContentType) -> Message {
    let detail = |detail: &Value| {
        let fields = detail.as_object()?;
        Some(Detail { name: text(fields, "name").to_owned(), value: text(fields, "value").to_owned() })
    };
    Message {
        id: text(fields, "id").to_owned(),
        name: text(fields, "id").to_owned(),
        title: text(fields, "title").to_owned(),
        message_type: kind(content_type),
        start_time: some(fields, "startDateTime"),
        end_time: some(fields, "endDateTime"),
        last_updated_time: some(fields, "lastModifiedDateTime"),
        additional_details: entries(fields, "details").filter_map(detail).collect(),
        ..Message::default()
    }
}

fn incident(fields: &Map<String, Value>, ids: &BTreeMap<&str, &str>) -> Message {
    let history = |post: &Value| {
        let fields = post.as_object()?;
        let told = fields.get("description").and_then(Value::as_object);
        Some(MessageHistory {
            published_time: some(fields, "createdDateTime"),
            message_text: told.map(|told| text(told, "content")).unwrap_or_default().to_owned(),
        })
    };
    let service = text(fields, "service");
    Message {
        status: words::status_display(text(fields, "status")),
        messages: entries(fields, "posts").filter_map(history).collect(),
        workload: ids.get(service).map(|id| (*id).to_owned()),
        workload_display_name: some(fields, "service"),
        feature: some(fields, "feature"),
        feature_display_name: some(fields, "featureGroup"),
        classification: some(fields, "classification").map(|text| words::pascal(&text)),
        impact_description: some(fields, "impactDescription"),
        ..common(fields, ContentType::HealthIssues)
    }
}

fn post(fields: &Map<String, Value>, ids: &BTreeMap<&str, &str>) -> Message {
    let texts = |name: &str| entries(fields, name).filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let services = texts("services");
    let body = fields.get("body").and_then(Value::as_object);
    let common = common(fields, ContentType::HealthMessages);
    let link = |name: &str| {
        let named = common.additional_details.iter().find(|detail| detail.name.eq_ignore_ascii_case(name));
        named.map(|detail| detail.value.clone()).unwrap_or_default()
    };
    let flag = |fields: Option<&Map<String, Value>>, name: &str| {
        fields.and_then(|fields| fields.get(name)).and_then(Value::as_bool).unwrap_or(false)
    };
    let view = fields.get("viewPoint").and_then(Value::as_object);
    let post = Post {
        action_required_by_date: some(fields, "actionRequiredByDateTime"),
        blog_link: link("BlogLink"),
        category: words::category(text(fields, "category")),
        external_link: link("ExternalLink"),
        help_link: link("HelpLink"),
        is_dismissed: flag(view, "isArchived"),
        is_major_change: flag(Some(fields), "isMajorChange"),
        is_read: flag(view, "isRead"),
        message_tag_names: texts("tags"),
        ..Post::default()
    };
    Message {
        messages: vec![MessageHistory {
            published_time: some(fields, "startDateTime"),
            message_text: body.map(|body| text(body, "content")).unwrap_or_default().to_owned(),
        }],
        severity: some(fields, "severity").map(|text| words::pascal(&text)),
        affected_workload_names: services
            .iter()
            .filter_map(|of| ids.get(of.as_str()))
            .map(|id| (*id).to_owned())
            .collect(),
        affected_workload_display_names: services,
        post: Some(post),
        ..common
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::request::Operation;
    use super::*;

    const IDS: [(&str, &str); 1] = [("Exchange Online", "Exchange")];

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_issue_is_an_incident_of_the_old_form() {
        let issue = json!({
            "id": "EX1", "title": "Mail is late", "service": "Exchange Online", "status": "serviceRestored",
            "classification": "incident", "isResolved": true, "impactDescription": "Mail came late.",
            "feature": "Mailflow", "featureGroup": "E-Mail timely delivery",
            "startDateTime": "2026-11-13T21:00:00Z", "endDateTime": null, "lastModifiedDateTime": "2026-11-14T18:20:24.767Z",
            "details": [{"name": "NotifyInApp", "value": "True"}],
            "posts": [{"createdDateTime": "2026-11-13T21:30:00.5Z", "postType": "regular",
                       "description": {"contentType": "html", "content": "We look into it."}}],
        });
        assert_eq!(
            Value::Object(row(incident(&fields(&issue), &IDS.into()))),
            json!({
                "Id": "EX1", "Name": "EX1", "Title": "Mail is late", "MessageType": "Incident",
                "StartTime": "2026-11-13T21:00:00Z", "EndTime": null, "LastUpdatedTime": "2026-11-14T18:20:24.767Z",
                "Status": "Service restored",
                "Messages": [{"PublishedTime": "2026-11-13T21:30:00.5Z", "MessageText": "We look into it."}],
                "Workload": "Exchange", "WorkloadDisplayName": "Exchange Online",
                "Feature": "Mailflow", "FeatureDisplayName": "E-Mail timely delivery",
                "Classification": "Incident", "Severity": null, "ImpactDescription": "Mail came late.",
                "UserFunctionalImpact": null, "ActionType": null,
                "AdditionalDetails": [{"Name": "NotifyInApp", "Value": "True"}],
                "AffectedTenantCount": 0, "AffectedUserCount": null,
                "AffectedWorkloadNames": [], "AffectedWorkloadDisplayNames": [],
                "PostIncidentDocumentUrl": null, "TenantParams": [],
            })
        );
    }

    #[test]
    fn a_post_is_a_message_of_the_message_center() {
        let told = json!({
            "id": "MC1", "title": "Faster", "category": "stayInformed", "severity": "normal", "tags": ["Updated message"],
            "isMajorChange": true, "actionRequiredByDateTime": null, "services": ["Exchange Online", "Unknown"],
            "startDateTime": "2026-11-01T18:51:00Z", "endDateTime": "2027-06-01T08:00:00Z",
            "lastModifiedDateTime": "2026-11-08T01:10:06.843Z", "viewPoint": null,
            "details": [{"name": "ExternalLink", "value": "https://support.example"}],
            "body": {"contentType": "html", "content": "<p>Faster.</p>"},
        });
        let row = Value::Object(row(post(&fields(&told), &IDS.into())));
        assert_eq!(
            row,
            json!({
                "Id": "MC1", "Name": "MC1", "Title": "Faster", "MessageType": "MessageCenter",
                "StartTime": "2026-11-01T18:51:00Z", "EndTime": "2027-06-01T08:00:00Z",
                "LastUpdatedTime": "2026-11-08T01:10:06.843Z", "Status": "",
                "Messages": [{"PublishedTime": "2026-11-01T18:51:00Z", "MessageText": "<p>Faster.</p>"}],
                "Workload": null, "WorkloadDisplayName": null, "Feature": null, "FeatureDisplayName": null,
                "Classification": null, "Severity": "Normal", "ImpactDescription": null, "UserFunctionalImpact": null,
                "ActionType": null, "AdditionalDetails": [{"Name": "ExternalLink", "Value": "https://support.example"}],
                "AffectedTenantCount": 0, "AffectedUserCount": null,
                "AffectedWorkloadNames": ["Exchange"], "AffectedWorkloadDisplayNames": ["Exchange Online", "Unknown"],
                "PostIncidentDocumentUrl": null, "TenantParams": [],
                "ActionRequiredByDate": null, "AnnouncementId": 0, "AppliesTo": null, "BlogLink": "",
                "Category": "Stay Informed", "ExternalLink": "https://support.example", "FeatureName": null,
                "FlightName": null, "HelpLink": "", "IsDismissed": false, "IsMajorChange": true, "IsRead": false,
                "MessageTagNames": ["Updated message"], "Milestone": "", "MilestoneDate": null, "PreviewDuration": null,
            })
        );
    }

    #[test]
    fn what_goes_on_is_listed_however_old_it_is() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let mut index = Index::default();
        let mut place = 0;
        let mut add = |content_type, id: &str, start: &str, end: Option<&str>, modified: &str| {
            place += 1;
            let json = json!({
                "id": id, "service": "Exchange Online", "startDateTime": start, "endDateTime": end,
                "lastModifiedDateTime": modified, "isResolved": end.is_some(),
            });
            index.take((content_type, place, 0), json.to_string().as_bytes());
        };
        let (old, new) = ("2026-10-01T00:00:00Z", "2026-11-26T00:00:00Z");
        add(ContentType::HealthIssues, "open", old, None, old);
        add(ContentType::HealthIssues, "over", old, Some(old), old);
        add(ContentType::HealthIssues, "ended", old, Some(new), "2026-11-26T01:00:00Z");
        add(ContentType::HealthMessages, "post", old, Some("2027-01-01T00:00:00Z"), "2026-11-26T02:00:00Z");
        // Its revisions come in any order.
        add(ContentType::HealthMessages, "post", old, Some(old), old);
        let wanted = |query: &str| {
            let index = Index(
                index
                    .0
                    .iter()
                    .map(|(key, of)| (key.clone(), Entry { id: of.id.clone(), service: of.service.clone(), ..*of }))
                    .collect(),
            );
            let places = index.wanted(&Request::read(Operation::Messages, query).unwrap(), &IDS.into(), now);
            places.into_iter().map(|(_, seq, _)| seq).collect::<Vec<_>>()
        };
        assert_eq!(wanted(""), [4, 3, 1]);
        assert_eq!(wanted("$top=1&$skip=1"), [3]);
        assert_eq!(wanted("$filter=Workload eq 'Exchange'"), [4, 3, 1]);
        assert_eq!(wanted("$filter=MessageType eq 'Incident'"), [3, 1]);
        assert_eq!(wanted("$filter=StartTime ge 2026-09-01"), [4, 3, 1, 2]);
        assert_eq!(wanted("$filter=Id eq 'over'"), [2]);
    }
}
