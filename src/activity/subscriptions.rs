//! Subscriptions as the service lists them, and webhooks as they are asked for.

use jiff::Timestamp;
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
