//! `Audit.Exchange`: administrator cmdlets and mailbox access.

use super::json::Json;
use super::{Common, Event};

const CMDLETS: [(&str, &[&str]); 6] = [
    (
        "Set-Mailbox",
        &[
            "HiddenFromAddressListsEnabled",
            "ProhibitSendQuota",
            "ForwardingSmtpAddress",
            "DeliverToMailboxAndForward",
            "AuditEnabled",
        ],
    ),
    ("New-InboxRule", &["Name", "From", "SubjectContainsWords", "MoveToFolder", "StopProcessingRules", "MarkAsRead"]),
    ("Add-MailboxPermission", &["User", "AccessRights", "InheritanceType", "AutoMapping"]),
    ("Set-TransportRule", &["Name", "SentToScope", "SetSCL", "Mode", "Comments"]),
    ("Set-User", &["DisplayName", "Office", "Manager", "Company", "Department"]),
    (
        "Set-OwaMailboxPolicy",
        &["ExternalImageProxyEnabled", "FeedbackEnabled", "IRMEnabled", "DirectFileAccessOnPublicComputersEnabled"],
    ),
];

const FOLDERS: [&str; 6] =
    ["\\Inbox", "\\Sent Items", "\\Deleted Items", "\\Drafts", "\\Inbox\\Facturación", "\\Archiv\\Verträge"];

const SUBJECTS: [&str; 5] = [
    "Re: Angebot 2026/117",
    "Протокол встречи",
    "契約書の確認",
    "Fwd: \"Invoice\" has been shared with you",
    "Budget ½ Jahr – Entwurf",
];

pub(super) fn write(json: &mut Json<'_>, event: &mut Event<'_>) {
    if event.percent(30) { cmdlet(json, event) } else { mailbox(json, event) }
}

fn server(event: &mut Event<'_>) -> String {
    format!(
        "{}{:04} (15.20.{}.{:03})",
        event.one(&["AM0PR07MB", "DB9PR03MB", "SN6PR12MB", "SYBPR01MB"]),
        event.rng.u32(..10_000),
        8100 + event.rng.u32(..60),
        event.rng.u32(..40)
    )
}

fn cmdlet(json: &mut Json<'_>, event: &mut Event<'_>) {
    let (operation, parameters) = event.one(&CMDLETS);
    let person = event.person();
    let target = event.person();
    let system = event.percent(40);
    let user = if system { "NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)" } else { &person.upn };
    let ip = event.address();
    let object = format!(
        "EURPR07A004.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/{}/{}",
        event.domain, target.local
    );
    event.common(
        json,
        &Common {
            operation,
            record_type: 1,
            workload: "Exchange",
            user,
            user_key: if system { user } else { &person.puid },
            user_type: if system { 3 } else { 2 },
            result: Some("True"),
            object: Some(&object),
            client_ip: (!system).then_some(ip.as_str()),
        },
    );
    json.text("AppId", "");
    json.text("ClientAppId", "");
    json.flag("ExternalAccess", system);
    json.text("OrganizationName", event.domain);
    json.text("OriginatingServer", &server(event));
    let gigabytes = 10 + event.rng.u64(..90);
    let quota = format!("{gigabytes} GB ({} bytes)", thousands(gigabytes * 1024 * 1024 * 1024));
    let note =
        event.one(&["Nur für Rechnungen / invoices", "see ticket #48213", "{\"rule\":\"a\\b\"}", "自動仕分け", "*"]);
    json.list("Parameters", |l| {
        l.pair("Identity", &object);
        for name in parameters {
            let value = match *name {
                "ProhibitSendQuota" => quota.as_str(),
                "User" | "From" | "Manager" => &person.upn,
                "ForwardingSmtpAddress" => "smtp:archive@partner.example",
                "AccessRights" => "FullAccess",
                "Name" | "Comments" | "SubjectContainsWords" | "DisplayName" | "Office" => note,
                "MoveToFolder" => "RSS Subscriptions",
                "SetSCL" => "-1",
                _ => "True",
            };
            l.pair(name, value);
        }
        l.pair("Force", "False");
    });
    json.guid("RequestId", event.guid());
}

fn mailbox(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&[
        "MailItemsAccessed",
        "MailItemsAccessed",
        "Send",
        "Create",
        "Update",
        "MoveToDeletedItems",
        "SoftDelete",
        "HardDelete",
    ]);
    let person = event.person();
    let delegated = event.percent(15).then(|| event.person());
    let owner = delegated.as_ref().unwrap_or(&person);
    let ip = event.address();
    event.common(
        json,
        &Common {
            operation,
            record_type: if operation == "MailItemsAccessed" {
                50
            } else if operation.ends_with("Delete") {
                3
            } else {
                2
            },
            workload: "Exchange",
            user: &person.upn,
            user_key: &person.puid,
            user_type: 0,
            result: Some(if event.happened().as_second() % 17 == 0 { "PartiallySucceeded" } else { "Succeeded" }),
            object: None,
            client_ip: Some(&ip),
        },
    );
    json.guid("AppId", event.known());
    json.text("ClientIPAddress", &ip);
    json.text(
        "ClientInfoString",
        event.one(&[
            "Client=REST;Client=RESTSystem;;",
            "Client=MSExchangeRPC",
            "Client=OWA;Action=ViaProxy",
            "Client=ActiveSync;Outlook-iOS-Android/1.0",
        ]),
    );
    json.flag("ExternalAccess", false);
    json.number("InternalLogonType", 0);
    let delegate = owner.upn != person.upn;
    json.number("LogonType", if delegate { 2 } else { 0 });
    let sid = format!("S-1-5-21-1187618197-3565232716-1376570662-{}", 25_000_000 + person.local.len() * 7919);
    json.text("LogonUserSid", &sid);
    json.guid("MailboxGuid", event.known());
    json.text("MailboxOwnerSid", &sid);
    json.text("MailboxOwnerUPN", &owner.upn);
    json.text("OrganizationName", event.domain);
    json.text("OriginatingServer", &format!("{}\r\n", server(event)));
    json.guid("SessionId", event.known());
    // Bigger than a double can hold exactly.
    json.number("MailboxItemChangeNumber", event.rng.i64(9_007_199_254_740_993..i64::MAX));
    if operation == "MailItemsAccessed" { accessed(json, event) } else { affected(json, event, operation) }
}

/// The end of a `MailItemsAccessed`.
fn accessed(json: &mut Json<'_>, event: &mut Event<'_>) {
    let (parent, path) = folder(event);
    let sync = event.percent(20);
    json.list("OperationProperties", |l| {
        l.pair("MailAccessType", if sync { "Sync" } else { "Bind" });
        l.pair("IsThrottled", "False");
    });
    let domain = event.domain;
    let items: Vec<String> =
        (0..=event.rng.usize(..6)).map(|_| format!("<{}.PROD@mail.{domain}>", event.hex(16))).collect();
    json.list("Folders", |l| {
        l.item(|folder| {
            folder.list("FolderItems", |list| {
                for id in &items {
                    list.item(|j| j.text("InternetMessageId", id));
                }
            });
            folder.text("Id", &parent);
            folder.text("Path", path);
        });
    });
    json.number("OperationCount", i64::try_from(items.len()).unwrap_or(0));
}

/// The end of an operation on an item.
fn affected(json: &mut Json<'_>, event: &mut Event<'_>, operation: &str) {
    let (parent, path) = folder(event);
    let subject = event.one(&SUBJECTS);
    let id = format!("RgAAAAD{}BwBAAAAAAEMAAB{}", event.prefix(38), event.opaque(12));
    let message = format!("<{}.PROD@mail.{}>", event.hex(16), event.domain);
    let size = event.rng.i64(2_000..9_000_000);
    let item = |j: &mut Json<'_>| {
        j.text("Id", &id);
        j.text("InternetMessageId", &message);
        j.object("ParentFolder", |p| {
            p.text("Id", &parent);
            p.text("Path", path);
        });
        j.number("SizeInBytes", size);
        j.text("Subject", subject);
    };
    if operation.ends_with("Delete") || operation == "MoveToDeletedItems" {
        json.list("AffectedItems", |l| l.item(item));
        json.flag("CrossMailboxOperation", false);
        json.object("Folder", |j| {
            j.text("Id", &parent);
            j.text("Path", path);
        });
        return;
    }
    json.object("Item", item);
    if operation == "Update" {
        // Here the schema has a list of plain names.
        json.list("ModifiedProperties", |l| {
            for name in ["RecipientsTo", "HasAttachment", "AllAttachmentsHidden"] {
                l.item_text(name);
            }
        });
    }
}

fn folder(event: &mut Event<'_>) -> (String, &'static str) {
    (format!("LgAAAAD{}AQBAAAAAAEMAAA{}", event.prefix(38), event.opaque(1)), event.one(&FOLDERS))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
