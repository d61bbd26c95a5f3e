//! The webhook that Microsoft is asked to notify: one address for all tenants, and a proof of origin for each. Pure.
//!
//! The service sends a text of ours, the *auth id*, with every notification. Ours names the tenant and is signed for it
//! with a key that stands in a file of the operator's: `TENANT.HMAC`. So it can be checked before a byte of the body is
//! read, needs no place in the store, and is worth nothing for another tenant: whoever may see one tenant's subscriptions,
//! because the app is the customer's own, can forge that tenant's notifications and no other's.
//!
//! The address ends in an id of the key. So a webhook that was registered with another key has another address, and that is
//! seen even where the service does not show auth ids as they are ([`Shown`]).
//!
//! **Invariant:** the key is in memory only, and never written.

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use crate::activity::Webhook;
use crate::config::Public;
use crate::content::TenantId;
use crate::secret::Secret;

/// Where notifications come in, under `[public] url`; the id of the key follows.
pub const PATH: &str = "/webhook";

/// What the signatures are about: the key signs nothing else.
const PURPOSE: &[u8] = b"tenantry webhook auth id 1\0";
/// What the key's id is made of.
const KEY_ID: &[u8] = b"tenantry webhook key id 1\0";
/// Characters of the id, which tells keys apart and keeps no secret.
const KEY_ID_LENGTH: usize = 8;

/// The address and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    address: Url,
    key: Secret,
}

impl Hooks {
    /// Those that these settings ask for, if they do.
    #[must_use]
    pub fn of(settings: &Public) -> Option<Self> {
        let (key, _) = settings.webhook_key.as_ref()?;
        let mut hooks = Self { address: settings.url.clone()?, key: key.clone() };
        let id = URL_SAFE_NO_PAD.encode(hmac::sign(&hooks.key(), KEY_ID));
        hooks.address.set_path(&format!("{PATH}/{}", &id[..KEY_ID_LENGTH]));
        Some(hooks)
    }

    /// The webhook of one tenant. It has no end: what would end it is repaired.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> Webhook {
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key(), &signed(tenant)));
        Webhook {
            address: self.address.clone(),
            auth_id: Some(Secret::from(format!("{tenant}.{tag}"))),
            expiration: None,
        }
    }

    /// Whose auth id this is; `None` if it is none of ours. The signature is compared in constant time.
    #[must_use]
    pub fn tenant_of(&self, auth_id: &str) -> Option<TenantId> {
        let (tenant, tag) = auth_id.split_once('.')?;
        let tenant: TenantId = tenant.parse().ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key(), &signed(tenant), &tag).ok()?;
        Some(tenant)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(HMAC_SHA256, self.key.expose().as_bytes())
    }
}

/// How the service shows the auth id of a webhook that was asked for here. It may hide it, and then there is nothing to
/// compare: what it shows after it was given ours stands for ours, as long as it shows the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Ours was given to it since it was last looked at.
    Given,
    /// Like this.
    As(Secret),
}

impl Shown {
    /// Whether an auth id that is listed, and is not ours as it is written, stands for ours.
    pub(super) fn stands_for_ours(&mut self, listed: &Secret) -> bool {
        match self {
            Self::Unknown => false,
            Self::As(known) => known == listed,
            Self::Given => {
                *self = Self::As(listed.clone());
                true
            }
        }
    }
}

fn signed(tenant: TenantId) -> Vec<u8> {
    [PURPOSE, tenant.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(key: &str) -> Hooks {
        let settings = Public {
            url: Some("https://collector.example".parse().unwrap()),
            webhook_key: Some((Secret::from(key.to_owned()), "key".into())),
            ..Public::default()
        };
        Hooks::of(&settings).unwrap()
    }

    #[test]
    fn an_auth_id_is_good_for_its_tenant_and_its_key_alone() {
        let (ours, others) = (hooks("0123456789abcdef0123456789abcdef"), hooks("another key of that length or so"));
        let (tenant, other) = (TenantId::from_bytes([7; 16]), TenantId::from_bytes([8; 16]));
        let webhook = ours.of_tenant(tenant);
        let (before, id) = webhook.address.as_str().rsplit_once('/').unwrap();
        assert_eq!((before, id.len()), ("https://collector.example/webhook", KEY_ID_LENGTH));
        assert_eq!(webhook.address, ours.of_tenant(other).address, "one for all tenants");
        assert_ne!(webhook.address, others.of_tenant(tenant).address, "another for another key");
        let auth_id = webhook.auth_id.unwrap();
        let text = auth_id.expose();
        assert_eq!(ours.tenant_of(text), Some(tenant));
        assert_eq!(others.tenant_of(text), None, "of another key");
        let (_, tag) = text.split_once('.').unwrap();
        for forged in [
            format!("{other}.{tag}"),
            format!("{tenant}."),
            format!("{tenant}"),
            format!("{tenant}.{}", &tag[1..]),
            format!("{tenant}.{tag}A"),
            tag.to_owned(),
            String::new(),
        ] {
            assert_eq!(ours.tenant_of(&forged), None, "{forged}");
        }
        assert!(!format!("{ours:?}").contains("0123456789"));
    }

    #[test]
    fn what_is_shown_after_ours_was_given_stands_for_ours_until_it_is_another() {
        let (stars, other) = (Secret::from("abc123".to_owned()), Secret::from("def456".to_owned()));
        let mut shown = Shown::default();
        assert!(!shown.stands_for_ours(&stars), "somebody else's, as far as anybody knows");
        shown = Shown::Given;
        assert!(shown.stands_for_ours(&stars) && shown.stands_for_ours(&stars));
        assert!(!shown.stands_for_ours(&other));
        assert!(shown.stands_for_ours(&stars));
    }

    #[test]
    fn without_a_key_there_is_no_webhook() {
        let url = Some("https://collector.example".parse().unwrap());
        assert_eq!(Hooks::of(&Public { url, ..Public::default() }), None);
    }
}
