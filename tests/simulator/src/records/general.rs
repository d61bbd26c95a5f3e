//! `Audit.General`: Teams, Power BI, the compliance centre and other workloads.

use super::json::Json;
use super::{Common, Event};

pub(super) fn write(json: &mut Json<'_>, event: &mut Event<'_>) {
    match event.rng.u32(..100) {
        0..=49 => teams(json, event),
        50..=69 => power_bi(json, event),
        70..=84 => alert(json, event),
        _ => compliance(json, event),
    }
}

fn teams(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&[
        "MessageSent",
        "MemberAdded",
        "MemberRoleChanged",
        "TeamsSessionStarted",
        "ChannelAdded",
        "MeetingParticipantDetail",
    ]);
    let person = event.person();
    let members = [event.person(), event.person(), event.person()];
    let ip = event.address();
    let key = event.known().to_string();
    event.common(
        json,
        &Common {
            operation,
            record_type: 25,
            workload: "MicrosoftTeams",
            user: &person.upn,
            user_key: &key,
            user_type: 0,
            result: None,
            object: None,
            client_ip: Some(&ip),
        },
    );
    json.text("CommunicationType", event.one(&["Team", "OneOnOne", "GroupChat"]));
    let roles = [event.rng.i64(..2).abs(), 1, 2];
    json.list("Members", |l| {
        for (member, role) in members.iter().zip(roles) {
            l.item(|j| {
                j.text("DisplayName", member.name);
                j.number("Role", role);
                j.text("UPN", &member.upn);
            });
        }
    });
    json.text("TeamGuid", &format!("19:{}@thread.tacv2", event.hex(32).to_lowercase()));
    json.text("ItemName", event.one(&["Général", "Projekt Süd", "announcements 📣", "运营"]));
    json.text("TeamName", event.one(&["Vertrieb", "Ops & Infra", "経営会議"]));
    json.guid("AADGroupId", event.known());
    // Yammer and Teams carry identifiers beyond the exact range of a double.
    json.number("MessageId", event.rng.i64(1_700_000_000_000_000_000..i64::MAX));
    let (system, language) = event.one(&[("Windows", "de-de"), ("Mac", "en-us"), ("Android", "ja-jp")]);
    let session = event.known().to_string();
    json.list("ExtraProperties", |l| {
        for (name, value) in
            [("TimeZone", "Europe/Berlin"), ("OsName", system), ("UserTenant", session.as_str()), ("Locale", language)]
        {
            l.item(|j| {
                j.text("Key", name);
                j.text("Value", value);
            });
        }
    });
    if operation == "MessageSent" {
        let domain = event.domain;
        let urls: Vec<String> =
            (0..event.rng.usize(..3)).map(|_| format!("https://{domain}/r/{}", event.opaque(24))).collect();
        json.list("MessageURLs", |l| {
            for url in &urls {
                l.item_text(url);
            }
        });
        json.text("MessageVersion", &event.happened().as_millisecond().to_string());
    }
}

fn power_bi(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&["ViewReport", "ExportReport", "RefreshDataset", "ViewDashboard"]);
    let person = event.person();
    let ip = event.address();
    let report = event.one(&["Umsatz / Region", "Lagerbestand", "Churn – 12 Monate", "売上"]);
    event.common(
        json,
        &Common {
            operation,
            record_type: 20,
            workload: "PowerBI",
            user: &person.upn,
            user_key: &person.puid,
            user_type: 0,
            result: None,
            object: Some(report),
            client_ip: Some(&ip),
        },
    );
    json.text("Activity", operation);
    json.text("UserAgent", event.agent());
    json.text("ItemName", report);
    json.text("WorkSpaceName", event.one(&["Controlling", "Sales EMEA"]));
    json.text("DatasetName", report);
    json.text("ReportName", report);
    json.text("CapacityName", "Shared On Premium - Reserved");
    json.guid("CapacityId", event.known());
    json.guid("WorkspaceId", event.known());
    json.guid("ReportId", event.known());
    json.guid("DatasetId", event.known());
    json.flag("IsSuccess", true);
    json.text("ReportType", "PowerBIReport");
    json.guid("RequestId", event.guid());
    json.guid("ActivityId", event.guid());
    json.raw("RefreshEnforcementPolicy", "0");
    json.raw("Duration", &format!("{}.{:06}", event.rng.u32(..90), event.rng.u32(..1_000_000)));
}

fn alert(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&["AlertTriggered", "AlertEntityGenerated", "AlertUpdated"]);
    let person = event.person();
    event.common(
        json,
        &Common {
            operation,
            record_type: 40,
            workload: "SecurityComplianceCenter",
            user: "SecurityComplianceAlerts",
            user_key: "SecurityComplianceAlerts",
            user_type: 4,
            result: Some("Succeeded"),
            object: Some(&person.upn),
            client_ip: None,
        },
    );
    json.guid("AlertId", event.guid());
    json.list("AlertLinks", |l| l.item(|j| j.text("AlertLinkHref", "")));
    json.text("AlertType", "System");
    json.text("Category", event.one(&["ThreatManagement", "AccessGovernance", "DataLossPrevention"]));
    json.text("Comments", "New alert");
    // A JSON document as text, as the service has it.
    let data = format!(
        "{{\"etype\":\"User\",\"eid\":\"{}\",\"tid\":\"{}\",\"ts\":\"{}\",\"te\":\"{}\",\"op\":\"ElevationOfExchangeAdminPrivilege\",\"tdc\":\"{}\",\"suid\":\"{}\",\"ut\":\"Admin\",\"lon\":\"{}\"}}",
        person.upn,
        event.tenant,
        event.happened(),
        event.happened(),
        event.rng.u32(1..9),
        person.upn,
        operation
    );
    json.text("Data", &data);
    json.text("EntityType", "User");
    json.text(
        "Name",
        event.one(&[
            "Elevation of Exchange admin privilege",
            "Creation of forwarding/redirect rule",
            "Unusual volume of file deletion",
        ]),
    );
    json.guid("PolicyId", event.known());
    json.text("Severity", event.one(&["Low", "Informational", "High"]));
    json.text("Source", "Office 365 Security & Compliance");
    json.text("Status", "Active");
}

fn compliance(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&[
        "Get-DlpCompliancePolicy",
        "Get-ComplianceTag",
        "New-ComplianceSearch",
        "Get-RetentionCompliancePolicy",
    ]);
    let person = event.person();
    let ip = event.address();
    event.common(
        json,
        &Common {
            operation,
            record_type: 18,
            workload: "SecurityComplianceCenter",
            user: &person.upn,
            user_key: &person.puid,
            user_type: 2,
            result: Some("True"),
            object: Some(operation),
            client_ip: Some(&ip),
        },
    );
    json.number("SecurityComplianceCenterEventType", 0);
    json.text("ClientApplication", "EMC");
    json.text("CmdletVersion", "15.20.8114.021");
    json.text("EffectiveOrganization", event.domain);
    json.text("NonPIIParameters", "-DistributionDetail:\"True\" -Confirm:\"False\"");
    // Here the schema has one string where others have a list.
    let session = event.guid();
    let parameters = format!(
        "-Identity \"{} / {}\" -DistributionDetail \"True\" -SessionId \"{session}\"",
        event.domain, person.name
    );
    json.text("Parameters", &parameters);
    json.text("StartTime", &event.happened().strftime("%Y-%m-%dT%H:%M:%S").to_string());
    json.text("UserServicePlan", "");
    json.text(
        "RelativeUrl",
        &format!("/DataInsights/DataInsightsService.svc/Find/MtpStatus?tenantid={}", event.tenant),
    );
    json.text("ResultCount", &event.rng.u32(..900).to_string());
}
