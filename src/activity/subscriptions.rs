//! Subscriptions as the service lists them, and webhooks as they are asked for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::Url;

use crate::content::ContentType;
use crate::secret::Secret;

use super::window::read_time;

/// A tenant's subscription to a content type ("List current subscriptions", activity API reference).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// To what.
    pub content_type: ContentType,
    /// Whether content can be listed and retrieved. The reference's own sample has an entry without a status: what
    /// is listed is taken for enabled unless it says otherwise, and a listing's error tells the truth soon enough.
    pub enabled: bool,
    /// The status as written.
    pub status: Option<String>,
    /// The webhook that is notified, if any.
    pub webhook: Option<WebhookState>,
}

/// A webhook as the service has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookState {
    /// `enabled`, `disabled` or `expired`, as written.
    pub status: Option<String>,
    /// Where notifications are sent.
    pub address: String,
    /// Until when, if limited.
    pub expiration: Option<Timestamp>,
    /// What notifications carry as proof of their origin, if the service tells.
    pub auth_id: Option<Secret>,
}

/// How long before its end a webhook is asked for again: longer than from one look at the subscriptions to the next.
const ENDS_SOON: Duration = Duration::from_hours(2);

impl WebhookState {
    /// Whether notifications reach what was asked for, with its auth id as far as that is shown, and will until after the
    /// next look.
    #[must_use]
    pub fn serves(&self, wanted: &Webhook, now: Timestamp) -> bool {
        self.reaches(wanted, now)
            && match (&self.auth_id, &wanted.auth_id) {
                (Some(listed), Some(wanted)) => listed == wanted || is_hidden(listed),
                // Not every list tells it.
                (None, _) | (_, None) => true,
            }
    }

    /// The same, whatever is shown of its auth id.
    #[must_use]
    pub fn reaches(&self, wanted: &Webhook, now: Timestamp) -> bool {
        let lasts =
            |until: Timestamp| until.duration_since(now) > SignedDuration::try_from(ENDS_SOON).unwrap_or_default();
        self.status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("enabled"))
            && self.address == wanted.address.as_str()
            && self.expiration.is_none_or(lasts)
    }
}

/// Whether a text plainly stands for one that is not shown, as in `a1b2****`: what proves anything is written in letters,
/// digits and a few marks, and no list has a reason to write other characters.
fn is_hidden(listed: &Secret) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=');
    !listed.expose().chars().all(plain)
}

/// A webhook as it is asked for ("Start a subscription", activity API reference).
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where notifications are to be sent, over HTTPS.
    pub address: Url,
    /// What every notification is to carry as proof of its origin.
    pub auth_id: Option<Secret>,
    /// Until when; without it, until stopped.
    pub expiration: Option<Timestamp>,
}

impl Webhook {
    /// The body of a start request.
    pub(super) fn body(&self) -> Vec<u8> {
        let expiration = self.expiration.map_or_else(String::new, |time| format!("{time:.0}"));
        let auth_id = self.auth_id.as_ref().map(Secret::expose);
        json!({"webhook": {"address": self.address.as_str(), "authId": auth_id, "expiration": expiration}})
            .to_string()
            .into_bytes()
    }
}

impl Subscription {
    /// What a start request leads to when the service says that there is nothing to do.
    pub(super) fn enabled(content_type: ContentType) -> Self {
        Self { content_type, enabled: true, status: None, webhook: None }
    }

    /// Reads one entry; `None` if it names no content type known here.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let status = text(entry, "status");
        let webhook = entry.get("webhook").filter(|webhook| webhook.is_object()).map(|webhook| WebhookState {
            status: text(webhook, "status"),
            address: text(webhook, "address").unwrap_or_default(),
            expiration: text(webhook, "expiration").as_deref().and_then(read_time),
            auth_id: text(webhook, "authId").filter(|text| !text.is_empty()).map(Secret::from),
        });
        Some(Self {
            content_type: entry.get("contentType")?.as_str()?.parse().ok()?,
            enabled: status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("enabled")),
            status,
            // An empty object is how some answers say `null`.
            webhook: webhook.filter(|webhook| !webhook.address.is_empty() || webhook.status.is_some()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_as_listed() {
        let entry = json!({"contentType": "Audit.SharePoint", "status": "enabled", "webhook": {
            "status": "enabled", "address": "https://webhook.example/o365/", "authId": "x", "expiration": null}});
        let subscription = Subscription::read(&entry).unwrap();
        assert_eq!(subscription.content_type, ContentType::SharePoint);
        assert!(subscription.enabled);
        let webhook = subscription.webhook.unwrap();
        assert_eq!((webhook.status.as_deref(), webhook.expiration), (Some("enabled"), None));

        for (entry, enabled) in [
            (json!({"contentType": "Audit.Exchange", "webhook": null}), Some(true)),
            (json!({"contentType": "Audit.Exchange", "status": "Enabled", "webhook": {}}), Some(true)),
            (json!({"contentType": "Audit.Exchange", "status": "disabled"}), Some(false)),
            (json!({"contentType": "Audit.Exchange", "status": "suspended"}), Some(false)),
            (json!({"contentType": "Audit.Exchange", "status": null}), Some(true)),
            (json!({"contentType": "Audit.Everything", "status": "enabled"}), None),
            (json!({}), None),
            (json!(null), None),
            (json!([1]), None),
            (json!("Audit.Exchange"), None),
        ] {
            let read = Subscription::read(&entry);
            assert_eq!(read.as_ref().map(|subscription| subscription.enabled), enabled, "{entry}");
            assert!(read.is_none_or(|subscription| subscription.webhook.is_none()));
        }
    }

    #[test]
    fn a_webhook_that_no_longer_serves_is_told_from_one_that_does() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let wanted = Webhook {
            address: "https://collector.example/webhook".parse().unwrap(),
            auth_id: Some(Secret::from("s3cr3t".to_owned())),
            expiration: None,
        };
        for (hook, serves) in [
            (json!({"status": "enabled", "address": "https://collector.example/webhook", "authId": "s3cr3t"}), true),
            (json!({"address": "https://collector.example/webhook", "expiration": ""}), true),
            (json!({"status": "disabled", "address": "https://collector.example/webhook"}), false),
            (json!({"status": "expired", "address": "https://collector.example/webhook"}), false),
            (json!({"status": "enabled", "address": "https://other.example/webhook"}), false),
            (json!({"status": "enabled", "address": "https://collector.example/webhook", "authId": "another"}), false),
            (json!({"status": "enabled", "address": "https://collector.example/webhook", "authId": "s3****"}), true),
            (json!({"status": "enabled", "address": "https://collector.example/webhook", "authId": "••••••"}), true),
            (json!({"status": "enabled", "address": "https://other.example/webhook", "authId": "******"}), false),
            (json!({"address": "https://collector.example/webhook", "expiration": "2026-11-22T13:00:00Z"}), false),
            (json!({"address": "https://collector.example/webhook", "expiration": "2026-11-23T12:00:00Z"}), true),
        ] {
            let entry = json!({"contentType": "Audit.Exchange", "status": "enabled", "webhook": hook});
            let state = Subscription::read(&entry).unwrap().webhook.unwrap();
            assert_eq!(state.serves(&wanted, now), serves, "{entry}");
            assert!(!format!("{state:?}").contains("s3cr3t"));
        }
    }

    #[test]
    fn a_webhook_is_asked_for_as_documented_and_keeps_its_secret() {
        let webhook = Webhook {
            address: "https://webhook.example/o365/".parse().unwrap(),
            auth_id: Some(Secret::from("s3cr3t".to_owned())),
            expiration: None,
        };
        let body: Value = serde_json::from_slice(&webhook.body()).unwrap();
        let meant =
            json!({"webhook": {"address": "https://webhook.example/o365/", "authId": "s3cr3t", "expiration": ""}});
        assert_eq!(body, meant);
        assert!(!format!("{webhook:?}").contains("s3cr3t"));
    }
}
