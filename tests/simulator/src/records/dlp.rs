//! `DLP.All`: matches of data loss prevention rules.

use super::json::Json;
use super::{Common, Event};

/// Sensitive information types, as in `resources/dlpSensitiveTypes`: invented ids, and their names in English and German.
const SENSITIVE_TYPES: [(&str, &str, &str); 4] = [
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a001", "Payment Card Number", "Zahlungskartennummer"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a002", "EU Passport Number", "EU-Reisepassnummer"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a003", "IBAN", "IBAN"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a004", "German Tax Identification Number", "Steuer-Identifikationsnummer"),
];

/// Ids and names in a language: German where it is asked for, else English.
pub(crate) fn sensitive_types(language: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let german = language.split('-').next().is_some_and(|language| language.eq_ignore_ascii_case("de"));
    SENSITIVE_TYPES.into_iter().map(move |(id, english, other)| (id, if german { other } else { english }))
}

pub(super) fn write(json: &mut Json<'_>, event: &mut Event<'_>) {
    let operation = event.one(&["DlpRuleMatch", "DlpRuleMatch", "DlpRuleUndo", "DlpInfo", "DlpRuleException"]);
    let person = event.person();
    let recipient = format!("kontakt@{}", event.one(&["partner.example", "kunde.example", "lieferant.example"]));
    let mail = event.percent(60);
    let object = if mail {
        format!("<{}@mail.{}>", event.hex(32), event.domain)
    } else {
        format!("https://{}/sites/Finance/Shared Documents/Ü.xlsx", event.domain)
    };
    event.common(
        json,
        &Common {
            operation,
            record_type: if mail { 13 } else { 11 },
            workload: if mail { "Exchange" } else { "SharePoint" },
            user: &person.upn,
            user_key: &person.puid,
            user_type: 4,
            result: None,
            object: Some(&object),
            client_ip: None,
        },
    );
    json.guid("IncidentId", event.guid());
    if mail {
        let size = event.rng.i64(3_000..12_000_000);
        json.object("ExchangeMetaData", |j| {
            j.list("CC", |_| ());
            j.number("FileSize", size);
            j.text("From", &person.upn);
            j.text("MessageID", &object);
            j.number("RecipientCount", 1);
            j.text("Subject", "Zahlungsdaten 11/2026");
            j.list("To", |l| l.item_text(&recipient));
        });
    } else {
        json.object("SharePointMetaData", |j| {
            j.text("FileName", "Ü.xlsx");
            j.text("FilePathUrl", &object);
            j.text("From", &person.upn);
            j.text("SiteCollectionUrl", &format!("https://{}/sites/Finance", event.domain));
        });
    }
    let (id, name, _) = event.one(&SENSITIVE_TYPES);
    let (policy, rule) = (event.known(), event.known());
    let count = event.rng.i64(1..60);
    let confidence = event.one(&[65, 75, 85, 100]);
    let location = event.one(&["Message Body", "Anhang.xlsx", "Document"]);
    json.list("PolicyDetails", |l| {
        l.item(|p| {
            p.guid("PolicyId", policy);
            p.text("PolicyName", "Finanzdaten EU");
            p.list("Rules", |rules| {
                rules.item(|r| {
                    r.list("Actions", |a| a.item_text("GenerateIncidentReport"));
                    r.object("ConditionsMatched", |c| {
                        c.text("ConditionMatchedInNewScheme", "True");
                        c.list("SensitiveInformation", |s| {
                            s.item(|i| {
                                i.number("Confidence", confidence);
                                i.number("Count", count);
                                i.text("Location", location);
                                // The schema does not promise it.
                                if confidence > 70 {
                                    i.text("SensitiveInformationTypeName", name);
                                }
                                i.text("SensitiveType", id);
                                i.number("UniqueCount", count);
                            });
                        });
                    });
                    r.guid("RuleId", rule);
                    r.text("RuleMode", "Enable");
                    r.text("RuleName", "viele Treffer");
                    r.text("Severity", if count > 20 { "High" } else { "Low" });
                });
            });
        });
    });
    json.flag("SensitiveInfoDetectionIsIncluded", true);
}
