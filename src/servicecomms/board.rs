//! How services stand and stood: overviews, and the issues that name services.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::entities::{FeatureGroupStatus, FeatureStatus, Service, WorkloadStatus, row};
use super::filter::{Operand, Property};
use super::request::Request;
use super::{object, text, time, words};
use crate::content::ContentType;
use crate::health::seen_at;

/// What is known of services since a day.
#[derive(Debug)]
pub(super) struct Board {
    since: Timestamp,
    first_day: Date,
    services: BTreeMap<String, Seen>,
    /// When the newest overview was seen.
    newest: Option<Timestamp>,
    issues: BTreeMap<String, Issue>,
}

/// A service, as overviews had it.
#[derive(Debug, Default)]
struct Seen {
    name: String,
    status: String,
    last: Option<Timestamp>,
    /// The last state before the first day,
    before: Option<(Timestamp, String)>,
    /// and those since.
    since: BTreeMap<Timestamp, String>,
}

/// An issue in its last revision.
#[derive(Debug, Default)]
struct Issue {
    service: String,
    status: String,
    feature: String,
    group: String,
    start: Option<Timestamp>,
    /// When it ended; of one that is resolved and does not say it, when that was told.
    end: Option<Timestamp>,
    resolved: bool,
    modified: Option<Timestamp>,
}

impl Issue {
    fn of(fields: &Map<String, Value>) -> Self {
        let resolved = fields.get("isResolved").and_then(Value::as_bool).unwrap_or(false);
        let modified = time(fields, "lastModifiedDateTime");
        Self {
            service: text(fields, "service").to_owned(),
            status: text(fields, "status").to_owned(),
            feature: text(fields, "feature").to_owned(),
            group: text(fields, "featureGroup").to_owned(),
            start: time(fields, "startDateTime"),
            end: time(fields, "endDateTime").or(modified.filter(|_| resolved)),
            resolved,
            modified,
        }
    }

    /// Whether it went on at some moment between the two.
    fn is_of(&self, from: Timestamp, to: Timestamp) -> bool {
        self.start.is_none_or(|start| start < to) && self.end.is_none_or(|end| end >= from)
    }
}

impl Board {
    pub(super) fn new(first_day: Date) -> Self {
        let since = midnight(first_day).unwrap_or(Timestamp::MIN);
        Self { since, first_day, services: BTreeMap::new(), newest: None, issues: BTreeMap::new() }
    }

    /// Takes a record of health in; one that is no object says nothing.
    pub(super) fn take(&mut self, content_type: ContentType, content_id: &str, json: &[u8]) {
        let Some(fields) = object(json) else { return };
        let id = text(&fields, "id").to_owned();
        match (content_type, seen_at(content_id)) {
            (ContentType::HealthServices, Some(at)) => self.overview(id, at, &fields),
            (ContentType::HealthIssues, _) => {
                let issue = Issue::of(&fields);
                let known = self.issues.entry(id).or_default();
                if known.modified <= issue.modified {
                    *known = issue;
                }
            }
            _ => {}
        }
    }

    fn overview(&mut self, id: String, at: Timestamp, fields: &Map<String, Value>) {
        let status = text(fields, "status").to_owned();
        self.newest = self.newest.max(Some(at));
        let seen = self.services.entry(id).or_default();
        if seen.last <= Some(at) {
            seen.last = Some(at);
            text(fields, "service").clone_into(&mut seen.name);
            seen.status.clone_from(&status);
        }
        if at >= self.since {
            seen.since.insert(at, status);
        } else if seen.before.as_ref().is_none_or(|(before, _)| *before <= at) {
            seen.before = Some((at, status));
        }
    }

    /// The services of the newest overview: one that is not in it is no service of the tenant any more.
    fn current(&self) -> impl Iterator<Item = (&String, &Seen)> {
        self.services.iter().filter(|(_, seen)| seen.last == self.newest)
    }

    /// What overviews call the services of these names.
    pub(super) fn ids(&self) -> BTreeMap<&str, &str> {
        self.current().map(|(id, seen)| (seen.name.as_str(), id.as_str())).collect()
    }

    pub(super) fn services(&self) -> Vec<Map<String, Value>> {
        let service = |(id, seen): (&String, &Seen)| Service {
            id: id.clone(),
            display_name: seen.name.clone(),
            ..Service::default()
        };
        self.current().map(|of| row(service(of))).collect()
    }

    /// How they stand, as Graph said at `confirmed`, or when it was stored.
    pub(super) fn status(&self, request: &Request, confirmed: Option<Timestamp>) -> Vec<Map<String, Value>> {
        let at = confirmed.max(self.newest);
        let status = |(id, seen): (&String, &Seen)| {
            let open: Vec<_> = self.of_service(&seen.name).filter(|(_, issue)| !issue.resolved).collect();
            let named: Vec<_> = open
                .iter()
                .map(|(_, issue)| *issue)
                .filter(|issue| !(issue.feature.is_empty() && issue.group.is_empty()))
                .collect();
            WorkloadStatus {
                incident_ids: open.iter().map(|(id, _)| (*id).clone()).collect(),
                feature_status: named.iter().map(|of| FeatureStatus::new(&of.feature, &of.group, &of.status)).collect(),
                feature_group_status_collection: named
                    .iter()
                    .map(|of| FeatureGroupStatus::new(&of.feature, &of.group, &of.status))
                    .collect(),
                ..workload(id, &seen.name, &seen.status, at)
            }
        };
        let wanted = self.current().filter(|(id, _)| request.wants(&of(id, at)));
        wanted.map(|of| row(status(of))).collect()
    }

    /// How they stood, the last day first.
    pub(super) fn history(&self, request: &Request, now: Timestamp) -> Vec<Map<String, Value>> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let mut days: Vec<_> =
            self.first_day.series(jiff::Span::new().days(1)).take_while(|day| *day <= today).collect();
        days.reverse();
        let mut rows = Vec::new();
        for (id, seen) in self.current() {
            for day in &days {
                let Some(from) = midnight(*day) else { continue };
                let to = from + SignedDuration::from_hours(24);
                let Some(status) = seen.worst(from, to).filter(|_| request.wants(&of(id, Some(from)))) else {
                    continue;
                };
                let incident = |(id, issue): (&String, &Issue)| issue.is_of(from, to).then(|| id.clone());
                rows.push(row(WorkloadStatus {
                    incident_ids: self.of_service(&seen.name).filter_map(incident).collect(),
                    ..workload(id, &seen.name, status, Some(from))
                }));
            }
        }
        rows
    }

    fn of_service<'b>(&'b self, name: &'b str) -> impl Iterator<Item = (&'b String, &'b Issue)> {
        self.issues.iter().filter(move |(_, issue)| issue.service.eq_ignore_ascii_case(name))
    }
}

impl Seen {
    /// The worst state that it was in between the two: that in which it was seen last before counts too.
    fn worst(&self, from: Timestamp, to: Timestamp) -> Option<&str> {
        let earlier = self.since.range(..from).next_back().map(|(_, status)| status);
        let earlier = earlier.or(self.before.as_ref().map(|(_, status)| status));
        let within = self.since.range(from..to).map(|(_, status)| status);
        earlier.into_iter().chain(within).map(String::as_str).min_by_key(|status| words::rank(status))
    }
}

fn workload(id: &str, name: &str, status: &str, at: Option<Timestamp>) -> WorkloadStatus {
    WorkloadStatus {
        id: id.to_owned(),
        workload: id.to_owned(),
        workload_display_name: name.to_owned(),
        status: words::status(status),
        status_display_name: words::status_display(status),
        status_time: at,
        status_date: at,
        ..WorkloadStatus::default()
    }
}

/// What a row can be filtered by.
fn of(id: &str, at: Option<Timestamp>) -> impl Fn(Property) -> Operand {
    move |property| match property {
        Property::Workload | Property::Id => Operand::Text(id.to_owned()),
        Property::StatusTime => at.map_or(Operand::Null, Operand::Time),
        Property::StartTime | Property::EndTime | Property::MessageType => Operand::Null,
    }
}

fn midnight(day: Date) -> Option<Timestamp> {
    day.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::request::Operation;
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-11-27T13:00:00Z";

    /// Exchange was ill from the 24th to the 26th; Teams is in no overview any more.
    fn board(request: &Request) -> Board {
        let mut board = Board::new(request.first_day(at(NOW)));
        let overview = |time: &str, all: &[(&str, &str, &str)]| {
            let records =
                all.iter().map(|(id, service, status)| json!({"id": id, "service": service, "status": status}));
            (format!("healthOverviews/all@{time}"), records.collect::<Vec<_>>())
        };
        let well = ("SharePoint", "SharePoint Online", "ServiceOperational");
        for (id, records) in [
            overview("2026-11-26T08:00:00Z", &[("Exchange", "Exchange Online", "serviceRestored"), well]),
            overview(
                "2026-11-10T08:00:00Z",
                &[("Exchange", "Exchange Online", "serviceOperational"), ("Teams", "Teams", "serviceOperational")],
            ),
            overview("2026-11-24T09:00:00Z", &[("Exchange", "Exchange Online", "serviceDegradation"), well]),
        ] {
            for record in records {
                board.take(ContentType::HealthServices, &id, record.to_string().as_bytes());
            }
        }
        for (id, resolved, modified, end) in [
            ("EX1", false, "2026-11-24T09:00:00Z", Value::Null),
            ("EX1", true, "2026-11-26T08:00:00Z", json!("2026-11-26T07:00:00Z")),
            ("EX2", false, "2026-11-27T09:00:00Z", Value::Null),
        ] {
            let issue = json!({
                "id": id, "service": "Exchange Online", "status": "investigating", "isResolved": resolved,
                "feature": "Mailflow", "featureGroup": "E-Mail timely delivery", "lastModifiedDateTime": modified,
                "startDateTime": if id == "EX1" { "2026-11-24T08:00:00Z" } else { "2026-11-27T08:00:00Z" }, "endDateTime": end,
            });
            board.take(ContentType::HealthIssues, "issues/x", issue.to_string().as_bytes());
        }
        board.take(ContentType::HealthIssues, "issues/x", b"17");
        board
    }

    fn request(operation: Operation, query: &str) -> Request {
        Request::read(operation, query).unwrap()
    }

    #[test]
    fn services_are_those_of_the_newest_overview() {
        let rows = board(&request(Operation::Services, "")).services();
        let expected = [("Exchange", "Exchange Online"), ("SharePoint", "SharePoint Online")];
        assert_eq!(
            json!(rows),
            json!(
                expected.map(|(id, name)| json!({"Id": id, "DisplayName": name, "FeatureNames": [], "Features": []}))
            )
        );
    }

    #[test]
    fn the_status_of_now_has_the_issues_that_are_open() {
        let request = request(Operation::CurrentStatus, "$filter=Workload eq 'Exchange'");
        let rows = board(&request).status(&request, Some(at(NOW)));
        assert_eq!(
            json!(rows),
            json!([{
                "Id": "Exchange", "Workload": "Exchange", "WorkloadDisplayName": "Exchange Online",
                "Status": "ServiceRestored", "StatusDisplayName": "Service restored", "StatusTime": NOW, "StatusDate": NOW,
                "IncidentIds": ["EX2"],
                "FeatureStatus": [{
                    "FeatureDisplayName": "E-Mail timely delivery", "FeatureName": "Mailflow",
                    "FeatureServiceStatus": "Investigating", "FeatureServiceStatusDisplayName": "Investigating",
                }],
                "FeatureGroupStatusCollection": [{
                    "Feature": "Mailflow", "FeatureGroupDisplayName": "E-Mail timely delivery", "FeatureStatus": "Investigating",
                }],
            }])
        );
    }

    #[test]
    fn a_day_has_its_worst_state_and_its_issues() {
        let told = |query: &str| {
            let request = request(Operation::HistoricalStatus, query);
            let rows = board(&request).history(&request, at(NOW));
            let told = |row: &Map<String, Value>| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                let ids: Vec<_> =
                    row["IncidentIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
                format!("{} {} {} {}", text("Workload"), &text("StatusTime")[..10], text("Status"), ids.join(" "))
            };
            rows.iter().map(|row| told(row).trim().to_owned()).collect::<Vec<_>>()
        };
        let week = told("");
        assert_eq!(
            week[..7],
            [
                "Exchange 2026-11-27 ServiceRestored EX2",
                "Exchange 2026-11-26 ServiceDegradation EX1",
                "Exchange 2026-11-25 ServiceDegradation EX1",
                "Exchange 2026-11-24 ServiceDegradation EX1",
                "Exchange 2026-11-23 ServiceOperational",
                "Exchange 2026-11-22 ServiceOperational",
                "Exchange 2026-11-21 ServiceOperational",
            ]
        );
        // Of SharePoint nothing is known before the 24th.
        assert_eq!(week[7..].len(), 4, "{week:?}");
        let filtered = told("$filter=StatusTime ge 2026-11-01 and StatusTime lt 2026-11-12 and Workload eq 'Exchange'");
        assert_eq!(filtered, ["Exchange 2026-11-11 ServiceOperational", "Exchange 2026-11-10 ServiceOperational"]);
    }
}
