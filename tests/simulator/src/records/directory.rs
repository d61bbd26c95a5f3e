//! `Audit.AzureActiveDirectory`: sign-ins and directory changes.

use super::json::Json;
use super::{Common, Event};

const CHANGES: [&str; 9] = [
    "Update user.",
    "Add member to role.",
    "Add member to group.",
    "Update application.",
    "Consent to application.",
    "Add service principal.",
    "Update StsRefreshTokenValidFrom Timestamp.",
    "Update application \u{2013} Certificates and secrets management ",
    "Add app role assignment grant to user.",
];

pub(super) fn write(json: &mut Json<'_>, event: &mut Event<'_>) {
    if event.percent(60) { sign_in(json, event) } else { change(json, event) }
}

fn sign_in(json: &mut Json<'_>, event: &mut Event<'_>) {
    let person = event.person();
    let ip = event.address();
    let failed = event.percent(15);
    let user_key = event.known().to_string();
    let object =
        event.one(&["00000003-0000-0ff1-ce00-000000000000", "00000002-0000-0ff1-ce00-000000000000", "Unknown"]);
    event.common(
        json,
        &Common {
            operation: if failed { "UserLoginFailed" } else { "UserLoggedIn" },
            record_type: 15,
            workload: "AzureActiveDirectory",
            user: &person.upn,
            user_key: &user_key,
            user_type: 0,
            result: Some(if failed { "Failed" } else { "Success" }),
            object: Some(object),
            client_ip: Some(&ip),
        },
    );
    json.number("AzureActiveDirectoryEventType", 1);
    let agent = event.agent();
    let request = event.one(&["OAuth2:Authorize", "OAuth2:Token", "Login:login", "SAS:ProcessAuth", "Cmsi:Cmsi"]);
    json.list("ExtendedProperties", |l| {
        l.pair("ResultStatusDetail", if failed { "UserError" } else { "Success" });
        l.pair("UserAgent", agent);
        l.pair("RequestType", request);
    });
    json.list("ModifiedProperties", |_| ());
    json.list("Actor", |l| {
        l.item(|j| {
            j.text("ID", &user_key);
            j.number("Type", 0);
        });
        l.item(|j| {
            j.text("ID", &person.upn);
            j.number("Type", 5);
        });
    });
    json.guid("ActorContextId", event.tenant);
    json.text("ActorIpAddress", &ip);
    json.guid("InterSystemsId", event.known());
    json.guid("IntraSystemId", event.guid());
    json.text("SupportTicketId", "");
    json.list("Target", |l| {
        l.item(|j| {
            j.text("ID", object);
            j.number("Type", 0);
        });
    });
    json.guid("TargetContextId", event.tenant);
    json.guid("ApplicationId", event.known());
    let (system, browser) =
        event.one(&[("Windows10", "Edge"), ("MacOs", "Safari"), ("Ios", "Mobile Safari"), ("Linux", "Firefox")]);
    let session = event.known().to_string();
    json.list("DeviceProperties", |l| {
        l.pair("OS", system);
        l.pair("BrowserType", browser);
        l.pair("IsCompliantAndManaged", if system == "Windows10" { "True" } else { "False" });
        l.pair("SessionId", &session);
    });
    let error = if failed { event.one(&["50126", "50053", "50074", "500121"]) } else { "0" };
    json.text("ErrorNumber", error);
    if failed {
        json.text(
            "LogonError",
            event.one(&["InvalidUserNameOrPassword", "IdsLocked", "UserStrongAuthClientAuthNRequiredInterrupt"]),
        );
    }
}

fn change(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&CHANGES);
    let actor = event.person();
    let target = event.person();
    let service = event.percent(30);
    let user = if service { format!("ServicePrincipal_{}", event.guid()) } else { actor.upn.clone() };
    let user_key = if service { "Not Available".to_owned() } else { format!("{}@{}", actor.puid, event.domain) };
    event.common(
        json,
        &Common {
            operation,
            record_type: 8,
            workload: "AzureActiveDirectory",
            user: &user,
            user_key: &user_key,
            user_type: if service { 4 } else { 0 },
            result: Some("Success"),
            object: Some(if operation.contains("application") { "Not Available" } else { &target.upn }),
            client_ip: None,
        },
    );
    json.number("AzureActiveDirectoryEventType", 1);
    let details = format!(
        "{{\"User-Agent\":\"{}\",\"AppId\":\"{}\"}}",
        event.one(&["EvoSTS", "Microsoft Azure Graph Client Library 2.1.1", "Swagger-Codegen/1.4.0.0/csharp"]),
        event.guid()
    );
    json.list("ExtendedProperties", |l| {
        l.pair("additionalDetails", &details);
        l.pair("extendedAuditEventCategory", if operation.contains("application") { "Application" } else { "User" });
    });
    // The schema's list of names, old and new values, holding JSON as text.
    let new = format!("[\r\n  \"{}\"\r\n]", event.happened());
    let old = format!("[\r\n  \"{}\"\r\n]", crate::clock::shift(event.happened(), -86_400_000));
    json.list("ModifiedProperties", |l| {
        match operation {
            "Update StsRefreshTokenValidFrom Timestamp." => l.change("StsRefreshTokensValidFrom", &new, &old),
            "Add member to role." => {
                l.change("Role.DisplayName", "Security Reader", "");
                l.change("Role.WellKnownObjectName", "SecurityReaders", "");
            }
            "Add member to group." => l.change("Group.DisplayName", "Einkauf & Logistik", ""),
            _ => {
                l.change("LastDirSyncTime", &new, &old);
                l.change("DisplayName", &format!("[\r\n  \"{}\"\r\n]", target.name), "[]");
            }
        }
        l.change("Included Updated Properties", "LastDirSyncTime, DisplayName", "");
    });
    let ids = [event.known(), event.known()];
    json.list("Actor", |l| {
        for (id, kind) in [
            (user.as_str(), 5),
            (actor.puid.as_str(), 3),
            (&format!("User_{}", ids[0]), 2),
            (&ids[0].to_string(), 2),
            ("User", 2),
        ] {
            l.item(|j| {
                j.text("ID", id);
                j.number("Type", kind);
            });
        }
    });
    json.guid("ActorContextId", event.tenant);
    json.guid("InterSystemsId", event.known());
    json.guid("IntraSystemId", event.guid());
    json.text("SupportTicketId", "");
    json.list("Target", |l| {
        for (id, kind) in
            [(&format!("User_{}", ids[1]), 2), (&ids[1].to_string(), 2), (&target.upn, 5), (&target.puid, 3)]
        {
            l.item(|j| {
                j.text("ID", id);
                j.number("Type", kind);
            });
        }
    });
    json.guid("TargetContextId", event.tenant);
}
