//! `Audit.SharePoint`: files, pages, lists and sharing in `SharePoint` and `OneDrive`.

use super::json::Json;
use super::{Common, Event};

const FILES: [(&str, &str); 8] = [
    ("Quartalsbericht Q3.xlsx", "xlsx"),
    ("契約書 最終版.docx", "docx"),
    ("Präsentation für Kunden.pptx", "pptx"),
    ("site plan (rev 4).pdf", "pdf"),
    ("export 2026-10.csv", "csv"),
    ("Čerpání rozpočtu.xlsx", "xlsx"),
    ("IMG_20261102_101355.heic", "heic"),
    ("README", ""),
];

const OPERATIONS: [(&str, i64); 10] = [
    ("FileAccessed", 6),
    ("FilePreviewed", 6),
    ("FileModified", 6),
    ("FileDownloaded", 6),
    ("FileSyncDownloadedFull", 6),
    ("PageViewed", 4),
    ("ListViewed", 36),
    ("SharingSet", 14),
    ("AddedToGroup", 14),
    ("FolderModified", 6),
];

pub(super) fn write(json: &mut Json<'_>, event: &mut Event<'_>) {
    let (operation, record_type) = event.one(&OPERATIONS);
    let person = event.person();
    let (file, extension) = event.one(&FILES);
    let personal = event.percent(40);
    let company = event.domain.split('.').next().unwrap_or(event.domain);
    let site = if personal {
        format!(
            "https://{company}-my.sharepoint.example/personal/{}_{}/",
            person.local.replace('.', "_"),
            event.domain.replace('.', "_")
        )
    } else {
        format!(
            "https://{company}.sharepoint.example/sites/{}/",
            event.one(&["Finance", "Projekt-Süd", "HR", "Engineering"])
        )
    };
    let folder = event.one(&["Documents", "Shared Documents/2026/Verträge", "Documents/Apps", "Shared Documents"]);
    let object = match operation {
        "PageViewed" => format!("{site}SitePages/Home.aspx"),
        "ListViewed" => format!("{site}_layouts/15/viewlsts.aspx"),
        "AddedToGroup" | "SharingSet" => format!("{site}{folder}"),
        _ => format!("{site}{folder}/{file}"),
    };
    let ip = event.address();
    let key = format!("i:0h.f|membership|{}@live.com", person.puid.to_lowercase());
    event.common(
        json,
        &Common {
            operation,
            record_type,
            workload: if personal { "OneDrive" } else { "SharePoint" },
            user: &person.upn,
            user_key: &key,
            user_type: 0,
            result: None,
            object: Some(&object),
            client_ip: Some(&ip),
        },
    );
    json.guid("ApplicationId", event.known());
    json.text(
        "ApplicationDisplayName",
        event.one(&[
            "SharePoint Online Web Client Extensibility",
            "OneDrive SyncEngine",
            "Office 365 Search Service",
            "Microsoft Teams Web Client",
        ]),
    );
    json.text("AuthenticationType", event.one(&["FormsCookieAuth", "OAuth"]));
    json.text("BrowserName", event.one(&["Edge", "Chrome", "Safari", ""]));
    json.text("BrowserVersion", "130.0.0.0");
    json.guid("CorrelationId", event.guid());
    json.text("EventSource", "SharePoint");
    json.text("GeoLocation", event.one(&["EUR", "NAM", "APC"]));
    json.flag("IsManagedDevice", event.happened().as_second() % 3 == 0);
    json.text(
        "ItemType",
        if operation.starts_with("File") {
            "File"
        } else if operation == "PageViewed" {
            "Page"
        } else {
            "Folder"
        },
    );
    json.guid("ListId", event.known());
    json.guid("ListItemUniqueId", event.guid());
    json.text("Platform", event.one(&["WinDesktop", "MacOS", "iOS", "NotSpecified"]));
    json.guid("Site", event.known());
    json.text("UserAgent", event.agent());
    json.guid("WebId", event.known());
    match operation {
        "ListViewed" => {
            json.flag("FromApp", false);
            json.number("ItemCount", event.rng.i64(..40_000).abs());
            json.text("ListBaseTemplateType", "101");
            json.text("ListTitle", "Dokumente");
            json.flag("IsDocLib", true);
        }
        "SharingSet" | "AddedToGroup" => {
            let guest = format!("guest_{}#ext#@{}", event.hex(6).to_lowercase(), event.domain);
            json.text("TargetUserOrGroupType", "Guest");
            json.text("TargetUserOrGroupName", &guest);
            json.text("EventData", "<Group>Site Members</Group>");
            json.guid("UniqueSharingId", event.guid());
            json.list("ModifiedProperties", |l| l.change("Permission", "Read", "None"));
        }
        _ => {}
    }
    json.text("SiteUrl", &site);
    if operation.starts_with("File") {
        json.text("SourceFileExtension", extension);
        json.text("SourceFileName", file);
        json.text("SourceRelativeUrl", folder);
        json.number("FileSizeBytes", event.rng.i64(100..4_000_000_000));
        json.flag("HighPriorityMediaProcessing", false);
    }
}
