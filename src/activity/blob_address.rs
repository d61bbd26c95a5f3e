//! The address of a content blob, as somebody writes it who has it from a listing, a record or a log.

use std::str::FromStr;

use url::{Url, form_urlencoded};

use crate::content::{ContentId, TenantId};

/// `https://…/api/v1.0/{tenant}/activity/feed/audit/{contentId}` ("Retrieve content", activity API reference). That its
/// host may be asked is not known by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentAddress {
    /// As written.
    pub uri: String,
    /// Whose content it is.
    pub tenant: TenantId,
    /// The blob's name.
    pub content_id: ContentId,
}

/// A text that is no address of a content blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a content blob; it looks like \
     `https://manage.office.com/api/v1.0/TENANT-ID/activity/feed/audit/CONTENT-ID`"
)]
pub struct NotAnAddress(pub String);

impl FromStr for ContentAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let read = || {
            let url = Url::parse(text).ok()?;
            let segments: Vec<_> = url.path_segments()?.collect();
            let [api, _, tenant, activity, feed, audit, id] = segments[..] else { return None };
            let known = [(api, "api"), (activity, "activity"), (feed, "feed"), (audit, "audit")];
            let is_blob = known.iter().all(|(written, meant)| written.eq_ignore_ascii_case(meant)) && !id.is_empty();
            Some(Self { uri: text.to_owned(), tenant: tenant.parse().ok()?, content_id: decoded(id).into() })
                .filter(|_| is_blob)
        };
        read().ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

/// Without the escapes of an address.
fn decoded(segment: &str) -> String {
    // What has a meaning in a form has none in a path.
    let escaped = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";

    #[test]
    fn an_address_names_its_tenant_and_its_blob() {
        let id = "20200702020621634014687$20200702020621634014687$audit_exchange$Audit_Exchange$emea0036";
        for (written, meant) in [(id.to_owned(), id), (id.replace('$', "%24"), id), ("a+b=c&d".to_owned(), "a+b=c&d")] {
            let text = format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/{written}");
            let address: ContentAddress = text.parse().unwrap();
            assert_eq!((address.content_id.as_str(), address.tenant.to_string().as_str()), (meant, TENANT));
            assert_eq!(address.uri, text);
        }
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            String::new(),
            "20200702020621634014687".to_owned(),
            format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/"),
            format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions/content"),
            format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/audit/a/b"),
            "https://manage.office.com/api/v1.0/contoso/activity/feed/audit/a".to_owned(),
            format!("mailto:api/v1.0/{TENANT}/activity/feed/audit/a"),
        ] {
            assert_eq!(text.parse::<ContentAddress>(), Err(NotAnAddress(text.clone())), "{text}");
        }
    }
}
