//! The retired Service Communications API as a script asks it: fields and types are those of Microsoft's old reference.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tenantry::clock::{Clock as _, SystemClock};
use tenantry_simulator::{ACTIVITY_READ, Board, Endpoint, MESSAGES_READ, Scenario};

use crate::operator::client;
use crate::world::{APP, Daemon, PATIENCE, World, assert_no_violations, tenant, tenant_id};

const TOKEN: &str = "a-token-for-the-script";
const OPERATOR: &str = "[operator]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
const HEALTH: &str = "[health]\nenabled = true\npoll_interval = \"300ms\"\n[daemon]\nstart_spread = \"0s\"\n";

/// The entities of the reference, by operation: what each property is. Of a list, what is in it.
const REFERENCE: [(&str, &[(&str, &str)]); 4] = [
    ("Services", &[("Id", "text"), ("DisplayName", "text"), ("FeatureNames", "list")]),
    ("CurrentStatus", WORKLOAD_STATUS),
    ("HistoricalStatus", WORKLOAD_STATUS),
    (
        "Messages",
        &[
            ("Id", "text"),
            ("Name", "text"),
            ("Title", "text"),
            ("StartTime", "time"),
            ("EndTime", "time or null"),
            ("Status", "text"),
            ("Messages", "list"),
            ("LastUpdatedTime", "time"),
            ("Workload", "text or null"),
            ("WorkloadDisplayName", "text or null"),
            ("Feature", "text or null"),
            ("FeatureDisplayName", "text or null"),
            ("MessageType", "text"),
        ],
    ),
];
const WORKLOAD_STATUS: &[(&str, &str)] = &[
    ("Id", "text"),
    ("Workload", "text"),
    ("StatusTime", "time"),
    ("StatusDate", "time"),
    ("WorkloadDisplayName", "text"),
    ("Status", "text"),
    ("IncidentIds", "list"),
    ("FeatureGroupStatusCollection", "list"),
];

fn world(scenario: Scenario, extra: &str) -> World {
    let world = World::new(scenario, &format!("{extra}{OPERATOR}"));
    std::fs::write(world.dir.path().join("token"), TOKEN).unwrap();
    world
}

/// Asks as a script does that has taken another token for the one it had.
async fn ask(url: &str, path: &str) -> (StatusCode, Value) {
    let request = client().get(format!("{url}/api/v1.0/{path}")).bearer_auth(TOKEN);
    let answer = request.header("Accept", "application/json;odata.metadata=none").send().await.unwrap();
    let media = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(media.starts_with("application/json"), "{media}: {text}");
    (status, serde_json::from_str(&text).unwrap())
}

/// The rows, once they are as they should be.
async fn rows(daemon: &mut Daemon, path: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let url = daemon.operator().await;
    daemon.wait("it answers", |_| true).await;
    let start = Instant::now();
    loop {
        let (status, answer) = ask(&url, path).await;
        let rows = answer["value"].as_array().cloned().unwrap_or_default();
        if status == StatusCode::OK && done(&rows) {
            assert_eq!(answer.as_object().unwrap().len(), 1, "{answer:#}");
            return rows;
        }
        assert!(start.elapsed() < PATIENCE, "{path}: {status} {answer:#}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[track_caller]
fn assert_documented(operation: &str, rows: &[Value]) {
    let (_, fields) = REFERENCE.iter().find(|(name, _)| *name == operation).unwrap();
    assert!(!rows.is_empty(), "{operation}");
    for row in rows {
        for (name, kind) in *fields {
            let value = row.get(*name).unwrap_or_else(|| panic!("{operation} has no {name}: {row:#}"));
            let time = |value: &Value| value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok());
            let fits = match *kind {
                "text" => value.is_string(),
                "time" => time(value),
                "list" => value.is_array(),
                "text or null" => value.is_string() || value.is_null(),
                "time or null" => time(value) || value.is_null(),
                other => panic!("{other}"),
            };
            assert!(fits, "{operation}: {name} is no {kind}: {row:#}");
        }
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn ago(hours: i64) -> String {
    (now() - SignedDuration::from_hours(hours)).to_string()
}

/// An incident that goes on, and a post, of which all that the old API had is said.
fn announce(world: &World, start: &str, posted: &str) {
    let control = world.cloud.control();
    control.set_service(tenant_id(1), "Exchange", "serviceDegradation");
    control.announce(
        tenant_id(1),
        Board::Issues,
        json!({
            "id": "EX20119", "title": "Archives cannot be opened", "service": "Exchange Online", "status": "restoringService",
            "classification": "incident", "origin": "microsoft", "isResolved": false, "startDateTime": start,
            "endDateTime": null, "impactDescription": "Archives cannot be opened in the browser.", "feature": "Access",
            "featureGroup": "E-Mail and calendar access", "details": [{"name": "NotifyInApp", "value": "True"}],
            "posts": [
                {"createdDateTime": start, "postType": "regular", "description": {"contentType": "html", "content": "We look."}},
                {"createdDateTime": posted, "postType": "regular", "description": {"contentType": "html", "content": "A fix comes."}},
            ],
        }),
    );
    control.announce(
        tenant_id(1),
        Board::Messages,
        json!({
            "id": "MC172851", "title": "Files open faster", "category": "planForChange", "severity": "high",
            "tags": ["Updated message"], "isMajorChange": true, "actionRequiredByDateTime": "2027-01-01T00:00:00Z",
            "services": ["SharePoint Online"], "startDateTime": start, "endDateTime": "2027-06-01T08:00:00Z",
            "details": [{"name": "ExternalLink", "value": "https://support.example"}], "viewPoint": null,
            "body": {"contentType": "html", "content": "<p>Faster.</p>"},
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_how_they_stand_are_in_the_form_of_the_old_reference() {
    let world = world(Scenario::new(721).tenant(tenant(1, 1, 0.5)), HEALTH);
    announce(&world, &ago(30), &ago(20));
    let mut daemon = world.run();
    let tenant = tenant_id(1).to_string();

    let services = rows(&mut daemon, &format!("{tenant}/ServiceComms/Services"), |rows| rows.len() == 3).await;
    assert_documented("Services", &services);
    let exchange = json!({"Id": "Exchange", "DisplayName": "Exchange Online", "FeatureNames": [], "Features": []});
    assert_eq!(services[0], exchange);

    // By the name that the tenant has here, and in other letters.
    let path = "TENANT-1/servicecomms/currentstatus";
    let open = |rows: &[Value]| rows.iter().any(|row| row["IncidentIds"] == json!(["EX20119"]));
    let status = rows(&mut daemon, path, open).await;
    assert_documented("CurrentStatus", &status);
    let row = status.iter().find(|row| row["Id"] == "Exchange").unwrap();
    let time = |row: &Value| row["StatusTime"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(now().duration_since(time(row)).as_mins() < 5, "{row:#}");
    assert_eq!(row["StatusTime"], row["StatusDate"]);
    let mut rest = row.clone();
    rest.as_object_mut().unwrap().retain(|name, _| !name.starts_with("StatusTime") && !name.starts_with("StatusDate"));
    assert_eq!(
        rest,
        json!({
            "Id": "Exchange", "Workload": "Exchange", "WorkloadDisplayName": "Exchange Online",
            "Status": "ServiceDegradation", "StatusDisplayName": "Service degradation", "IncidentIds": ["EX20119"],
            "FeatureStatus": [{
                "FeatureName": "Access", "FeatureDisplayName": "E-Mail and calendar access",
                "FeatureServiceStatus": "RestoringService", "FeatureServiceStatusDisplayName": "Restoring service",
            }],
            "FeatureGroupStatusCollection": [{
                "Feature": "Access", "FeatureGroupDisplayName": "E-Mail and calendar access",
                "FeatureStatus": "RestoringService",
            }],
        })
    );
    let well = status.iter().find(|row| row["Id"] == "SharePoint").unwrap();
    assert_eq!((&well["Status"], &well["IncidentIds"]), (&json!("ServiceOperational"), &json!([])));

    let history = rows(&mut daemon, &format!("{tenant}/ServiceComms/HistoricalStatus"), open).await;
    assert_documented("HistoricalStatus", &history);
    let today = history.iter().find(|row| row["Workload"] == "Exchange").unwrap();
    assert_eq!(today["Status"], "ServiceDegradation");
    assert!(today["StatusTime"].as_str().unwrap().ends_with("T00:00:00Z"), "{today:#}");

    // What was asked for here was asked of nobody else.
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    assert_eq!(ledger.requests(tenant_id(1), Endpoint::GraphFile), 0);
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_in_the_form_of_the_old_reference() {
    let world = world(Scenario::new(724).tenant(tenant(1, 1, 0.5)), HEALTH);
    let (start, posted) = (ago(30), ago(20));
    announce(&world, &start, &posted);
    let mut daemon = world.run();
    let tenant = tenant_id(1).to_string();
    rows(&mut daemon, &format!("{tenant}/ServiceComms/Services"), |rows| rows.len() == 3).await;
    let both = |rows: &[Value]| rows.len() == 2;
    let messages = rows(&mut daemon, &format!("{tenant}/ServiceComms/Messages"), both).await;
    assert_documented("Messages", &messages);
    let of = |id: &str| {
        let mut row = messages.iter().find(|row| row["Id"] == id).unwrap().clone();
        assert!(row.as_object_mut().unwrap().remove("LastUpdatedTime").unwrap().is_string());
        row
    };
    assert_eq!(
        of("EX20119"),
        json!({
            "Id": "EX20119", "Name": "EX20119", "Title": "Archives cannot be opened", "MessageType": "Incident",
            "StartTime": start, "EndTime": null, "Status": "Restoring service",
            "Messages": [
                {"PublishedTime": start, "MessageText": "We look."}, {"PublishedTime": posted, "MessageText": "A fix comes."},
            ],
            "Workload": "Exchange", "WorkloadDisplayName": "Exchange Online", "Feature": "Access",
            "FeatureDisplayName": "E-Mail and calendar access", "Classification": "Incident", "Severity": null,
            "ImpactDescription": "Archives cannot be opened in the browser.", "UserFunctionalImpact": null,
            "ActionType": null, "AdditionalDetails": [{"Name": "NotifyInApp", "Value": "True"}], "AffectedTenantCount": 0,
            "AffectedUserCount": null, "AffectedWorkloadNames": [], "AffectedWorkloadDisplayNames": [],
            "PostIncidentDocumentUrl": null, "TenantParams": [],
        })
    );
    assert_eq!(
        of("MC172851"),
        json!({
            "Id": "MC172851", "Name": "MC172851", "Title": "Files open faster", "MessageType": "MessageCenter",
            "StartTime": start, "EndTime": "2027-06-01T08:00:00Z", "Status": "",
            "Messages": [{"PublishedTime": start, "MessageText": "<p>Faster.</p>"}], "Workload": null,
            "WorkloadDisplayName": null, "Feature": null, "FeatureDisplayName": null, "Classification": null,
            "Severity": "High", "ImpactDescription": null, "UserFunctionalImpact": null, "ActionType": null,
            "AdditionalDetails": [{"Name": "ExternalLink", "Value": "https://support.example"}], "AffectedTenantCount": 0,
            "AffectedUserCount": null, "AffectedWorkloadNames": ["SharePoint"],
            "AffectedWorkloadDisplayNames": ["SharePoint Online"], "PostIncidentDocumentUrl": null, "TenantParams": [],
            "ActionRequiredByDate": "2027-01-01T00:00:00Z", "AnnouncementId": 0, "AppliesTo": null, "BlogLink": "",
            "Category": "Plan for Change", "ExternalLink": "https://support.example", "FeatureName": null,
            "FlightName": null, "HelpLink": "", "IsDismissed": false, "IsMajorChange": true, "IsRead": false,
            "MessageTagNames": ["Updated message"], "Milestone": "", "MilestoneDate": null, "PreviewDuration": null,
        })
    );

    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_that_scripts_send_are_understood() {
    let world = world(Scenario::new(725).tenant(tenant(1, 1, 0.5)), HEALTH);
    announce(&world, &ago(30), &ago(20));
    let mut daemon = world.run();
    let tenant = tenant_id(1).to_string();
    rows(&mut daemon, &format!("{tenant}/ServiceComms/Services"), |rows| rows.len() == 3).await;
    rows(&mut daemon, &format!("{tenant}/ServiceComms/Messages"), |rows| rows.len() == 2).await;
    let url = daemon.operator().await;
    for (path, expected) in [
        ("Messages?$filter=Workload%20eq%20'Exchange'", json!(["EX20119"])),
        ("Messages?$filter=Id eq 'MC172851'", json!(["MC172851"])),
        (
            "Messages?$filter=MessageType eq Microsoft.Office365ServiceComms.ExposedContracts.MessageType'Incident'",
            json!(["EX20119"]),
        ),
        ("Messages?$filter=MessageType eq 'PlannedMaintenance'", json!([])),
        ("Messages?$filter=StartTime ge 2026-01-01T00:00:00Z and EndTime le 2026-01-02", json!([])),
        ("Messages?$top=0", json!([])),
        ("Messages?$skip=2", json!([])),
        ("CurrentStatus?$filter=Workload eq 'SharePoint'&$select=Id", json!(["SharePoint"])),
        ("HistoricalStatus?$filter=StatusTime ge 2030-01-01", json!([])),
    ] {
        let (status, answer) = ask(&url, &format!("{tenant}/ServiceComms/{path}")).await;
        let ids: Vec<_> = answer["value"].as_array().unwrap().iter().map(|row| row["Id"].clone()).collect();
        assert_eq!((status, json!(ids)), (StatusCode::OK, expected), "{path}");
    }
    let (_, selected) =
        ask(&url, &format!("{tenant}/ServiceComms/Messages?$select=Title,Status&$filter=Id eq 'EX20119'")).await;
    assert_eq!(selected, json!({"value": [{"Title": "Archives cannot be opened", "Status": "Restoring service"}]}));

    assert!(daemon.stop().await.success());
}

/// The form of errors that the reference shows.
#[track_caller]
fn assert_refused((status, answer): (StatusCode, Value), expected: u16, told: &str) {
    let error = &answer["error"];
    assert_eq!(status, expected, "{answer:#}");
    assert!(error["code"].is_string() && error["message"].as_str().unwrap().contains(told), "{told}: {answer:#}");
    assert_eq!((answer.as_object().unwrap().len(), error.as_object().unwrap().len()), (1, 2), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_in_the_old_form_and_never_as_all_well() {
    let messages_only = tenant(1, 1, 0.5).consent(APP, &[ACTIVITY_READ, MESSAGES_READ]);
    let world = world(Scenario::new(722).tenant(messages_only), HEALTH);
    let post = json!({"id": "MC1", "title": "t", "services": [], "startDateTime": ago(3)});
    world.cloud.control().announce(tenant_id(1), Board::Messages, post);
    let mut daemon = world.run();
    daemon.wait("the missing role is told", |status| !status["tenants"][0]["trouble"].is_null()).await;
    let posts = "tenant-1/ServiceComms/Messages?$filter=MessageType eq 'MessageCenter'";
    rows(&mut daemon, posts, |rows| rows.len() == 1).await;
    let url = daemon.operator().await;
    for (path, status, told) in [
        ("tenant-1/ServiceComms/CurrentStatus", 404, "ServiceHealth.Read.All"),
        ("tenant-1/ServiceComms/Services", 404, "Health.Services"),
        // Without incidents, the list of all messages would say that there are none.
        ("tenant-1/ServiceComms/Messages", 404, "ServiceHealth.Read.All"),
        ("nobody/ServiceComms/Services", 404, "there is no tenant `nobody`"),
        ("00000000-0000-0000-0000-000000000001/ServiceComms/Services", 404, "there is no tenant"),
        ("tenant-1/ServiceComms/Everything", 404, "CurrentStatus"),
        ("tenant-1/Other/Services", 404, "ServiceComms"),
        ("tenant-1/ServiceComms/Messages?$filter=Title eq 'x'", 400, "cannot be filtered by"),
        ("tenant-1/ServiceComms/Messages?$top=101", 400, "100 is the most"),
        ("tenant-1/ServiceComms/CurrentStatus?$select=Nothing", 400, "no property"),
        ("tenant-1/ServiceComms/Services?$orderby=Id", 400, "no such option"),
    ] {
        assert_refused(ask(&url, path).await, status, told);
    }
    // Whoever shows nothing is refused by the listener itself, and so is who wants to change anything.
    let plain = format!("{url}/api/v1.0/tenant-1/ServiceComms/Services");
    assert_eq!(client().get(&plain).send().await.unwrap().status(), 401);
    assert_eq!(client().get(&plain).bearer_auth("another").send().await.unwrap().status(), 401);
    assert_eq!(client().post(&plain).bearer_auth(TOKEN).send().await.unwrap().status(), 405);
    assert!(daemon.stop().await.success());

    let world = self::world(Scenario::new(723).tenant(tenant(1, 1, 0.5)), "");
    let mut daemon = world.run();
    daemon.wait("it answers", |_| true).await;
    let refused = ask(&daemon.operator().await, "tenant-1/ServiceComms/Services").await;
    assert_refused(refused, 404, "set `enabled = true` under `[health]`");
    assert!(daemon.stop().await.success());
}
