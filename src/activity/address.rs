//! Which addresses may see a token, and how a request is addressed.
//!
//! **Invariant:** every URL that leaves this module is on the management host of the tenant's cloud (scheme, host
//! and port), under `/api/{version}/{tenant}/activity/feed/`, and carries our `PublisherIdentifier` exactly once.
//! Apart from that, path and query of an address that the service gave are sent as given: ids and page links hold
//! `$` and are opaque.

use url::{Url, form_urlencoded};
use uuid::Uuid;

use crate::cloud::Management;
use crate::content::TenantId;

/// Longer addresses are not followed; those of the service have some 300 bytes.
const LONGEST: usize = 8 * 1024;

const PUBLISHER: &str = "PublisherIdentifier";

/// Why an address that the service gave is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It is no absolute URL, or absurdly long.
    #[error("it is not a URL")]
    NotAUrl,
    /// It is not on the management host, or on another scheme or port.
    #[error("it is not on the management host of the tenant's cloud")]
    OtherHost,
    /// It is on the management host, but not under this tenant's activity feed.
    #[error("it is not in this tenant's activity feed")]
    OtherTenant,
}

/// A tenant's part of the management host.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) management: Management,
    pub(super) tenant: TenantId,
    pub(super) publisher: Uuid,
}

impl Address {
    /// The address of an operation; `parameters` are of our own making and need no escapes.
    pub(super) fn operation(&self, path: &str, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.management.host.clone();
        url.set_path(&format!("/api/v1.0/{}/activity/feed/{path}", self.tenant));
        let mut query = String::new();
        for (name, value) in parameters {
            query.push_str(name);
            query.push('=');
            query.push_str(value);
            query.push('&');
        }
        query.push_str(PUBLISHER);
        query.push('=');
        query.push_str(&self.publisher.to_string());
        url.set_query(Some(&query));
        url
    }

    /// The address that the service gave, if it may see this tenant's token, with our `PublisherIdentifier`.
    pub(super) fn given(&self, text: &str) -> Result<Url, Foreign> {
        if text.len() > LONGEST {
            return Err(Foreign::NotAUrl);
        }
        let mut url = Url::parse(text).map_err(|_| Foreign::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !self.management.has(&url) {
            return Err(Foreign::OtherHost);
        }
        if !self.is_own_feed(&url) {
            return Err(Foreign::OtherTenant);
        }
        url.set_fragment(None);
        self.sign(&mut url);
        Ok(url)
    }

    /// `/api/{version}/{tenant}/activity/feed/{something}`: the documents' samples have both `v1.0` and `v1`.
    fn is_own_feed(&self, url: &Url) -> bool {
        let Some(mut segments) = url.path_segments() else { return false };
        let mut next = || segments.next().unwrap_or_default();
        next().eq_ignore_ascii_case("api")
            && !next().is_empty()
            && next().parse::<TenantId>().is_ok_and(|tenant| tenant == self.tenant)
            && next().eq_ignore_ascii_case("activity")
            && next().eq_ignore_ascii_case("feed")
            && !next().is_empty()
    }

    /// Puts our `PublisherIdentifier` into the query, in place of any other: page links come back without it.
    /// The other parameters stay as they are, byte for byte.
    fn sign(&self, url: &mut Url) {
        let own = self.publisher.to_string();
        let given = url.query().unwrap_or_default();
        let mut publishers = given.split('&').filter(|pair| is_publisher(pair));
        let signed = publishers
            .next()
            .and_then(|pair| pair.split_once('='))
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case(PUBLISHER) && value == own);
        if signed && publishers.next().is_none() {
            return;
        }
        let mut query = String::with_capacity(given.len() + PUBLISHER.len() + 40);
        for pair in given.split('&').filter(|pair| !pair.is_empty() && !is_publisher(pair)) {
            query.push_str(pair);
            query.push('&');
        }
        query.push_str(PUBLISHER);
        query.push('=');
        query.push_str(&own);
        url.set_query(Some(&query));
    }
}

/// Whether a pair of a query is called `PublisherIdentifier` by whoever reads it: case and escapes make no difference.
fn is_publisher(pair: &str) -> bool {
    form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| name.eq_ignore_ascii_case(PUBLISHER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cloud::Cloud;

    const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";
    const PUBLISHER_ID: &str = "46b472a7-c68e-4adf-8ade-3db49497518e";

    fn address() -> Address {
        Address {
            management: Cloud::preset("worldwide").unwrap().management.unwrap(),
            tenant: TENANT.parse().unwrap(),
            publisher: PUBLISHER_ID.parse().unwrap(),
        }
    }

    #[test]
    fn operations_are_addressed_as_documented() {
        assert_eq!(
            address().operation("subscriptions/list", &[]).as_str(),
            format!(
                "https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions/list?PublisherIdentifier={PUBLISHER_ID}"
            )
        );
        assert_eq!(
            address()
                .operation(
                    "subscriptions/content",
                    &[
                        ("contentType", "Audit.SharePoint"),
                        ("startTime", "2026-11-22T12:00:00"),
                        ("endTime", "2026-11-22T12:05:00")
                    ]
                )
                .as_str(),
            format!(
                "https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions/content?contentType=Audit.SharePoint&startTime=2026-11-22T12:00:00&endTime=2026-11-22T12:05:00&PublisherIdentifier={PUBLISHER_ID}"
            )
        );
    }

    #[test]
    fn links_are_signed_and_otherwise_sent_as_given() {
        let feed = format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed");
        let upper = TENANT.to_uppercase();
        for (given, sent) in [
            // As seen on the wire: lower-case names, seven digits, no publisher.
            (
                format!(
                    "{feed}/subscriptions/content?contenttype=Audit.General&endtime=2020-02-20T10:46:42.0000000Z&nextpage=20200220001806300068349$20200219104642000000000$na0022"
                ),
                format!(
                    "{feed}/subscriptions/content?contenttype=Audit.General&endtime=2020-02-20T10:46:42.0000000Z&nextpage=20200220001806300068349$20200219104642000000000$na0022&PublisherIdentifier={PUBLISHER_ID}"
                ),
            ),
            // Ours already: not touched.
            (
                format!("{feed}/subscriptions/content?PublisherIdentifier={PUBLISHER_ID}&nextPage=1"),
                format!("{feed}/subscriptions/content?PublisherIdentifier={PUBLISHER_ID}&nextPage=1"),
            ),
            // Somebody else's, in whatever case, or twice.
            (
                format!("{feed}/subscriptions/content?publisheridentifier=0&nextPage=1"),
                format!("{feed}/subscriptions/content?nextPage=1&PublisherIdentifier={PUBLISHER_ID}"),
            ),
            (
                format!(
                    "{feed}/subscriptions/content?PublisherIdentifier={PUBLISHER_ID}&nextPage=1&PublisherIdentifier=0"
                ),
                format!("{feed}/subscriptions/content?nextPage=1&PublisherIdentifier={PUBLISHER_ID}"),
            ),
            // Escaped.
            (
                format!("{feed}/subscriptions/content?%50ublisherIdentifier=0&nextPage=1"),
                format!("{feed}/subscriptions/content?nextPage=1&PublisherIdentifier={PUBLISHER_ID}"),
            ),
            (
                format!("{feed}/subscriptions/content?publisher%49dentifier={PUBLISHER_ID}&nextPage=%31"),
                format!("{feed}/subscriptions/content?nextPage=%31&PublisherIdentifier={PUBLISHER_ID}"),
            ),
            // The version and the case of the tenant differ in the documents' samples.
            (
                format!(
                    "https://manage.office.com/api/v1/{upper}/activity/feed/subscriptions/content?nextPage=2015101900R022885001761"
                ),
                format!(
                    "https://manage.office.com/api/v1/{upper}/activity/feed/subscriptions/content?nextPage=2015101900R022885001761&PublisherIdentifier={PUBLISHER_ID}"
                ),
            ),
            // Escapes stay escapes and `$` stays `$`, in path and query.
            (
                format!("{feed}/audit/a$b%24c$audit_exchange$Audit_Exchange$emea0036"),
                format!(
                    "{feed}/audit/a$b%24c$audit_exchange$Audit_Exchange$emea0036?PublisherIdentifier={PUBLISHER_ID}"
                ),
            ),
            (format!("{feed}/audit/a#b"), format!("{feed}/audit/a?PublisherIdentifier={PUBLISHER_ID}")),
            (format!("{feed}/audit/a?"), format!("{feed}/audit/a?PublisherIdentifier={PUBLISHER_ID}")),
        ] {
            assert_eq!(address().given(&given).unwrap().as_str(), sent, "{given}");
        }
    }

    #[test]
    fn foreign_addresses_never_see_a_token() {
        let path = format!("api/v1.0/{TENANT}/activity/feed/audit/1");
        for (given, why) in [
            (String::new(), Foreign::NotAUrl),
            ("audit/1".to_owned(), Foreign::NotAUrl),
            (format!("/{path}"), Foreign::NotAUrl),
            (format!("//manage.office.com/{path}"), Foreign::NotAUrl),
            (format!("https://manage.office.com/{path}{}", "x".repeat(9000)), Foreign::NotAUrl),
            (format!("http://manage.office.com/{path}"), Foreign::OtherHost),
            (format!("https://manage.office.com:8443/{path}"), Foreign::OtherHost),
            (format!("https://manage.office.com.attacker.example/{path}"), Foreign::OtherHost),
            (format!("https://manage.office.com@attacker.example/{path}"), Foreign::OtherHost),
            (format!("https://attacker.example\\@manage.office.com/{path}"), Foreign::OtherHost),
            (format!("https://attacker.example#@manage.office.com/{path}"), Foreign::OtherHost),
            (format!("https://user:pass@manage.office.com/{path}"), Foreign::OtherHost),
            (format!("https://manage-gcc.office.com/{path}"), Foreign::OtherHost),
            (format!("ftp://manage.office.com/{path}"), Foreign::OtherHost),
            (format!("file:///{path}"), Foreign::OtherHost),
            (format!("data:text/plain,https://manage.office.com/{path}"), Foreign::OtherHost),
            ("https://manage.office.com/".to_owned(), Foreign::OtherTenant),
            (format!("https://manage.office.com/{path}/../../../../../v1.0/other"), Foreign::OtherTenant),
            (format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/"), Foreign::OtherTenant),
            (format!("https://manage.office.com/api/v1.0/{TENANT}/ServiceComms/Messages"), Foreign::OtherTenant),
            (
                "https://manage.office.com/api/v1.0/f28ab78a-d401-4060-8012-736e373933eb/activity/feed/audit/1"
                    .to_owned(),
                Foreign::OtherTenant,
            ),
            (
                format!(
                    "https://manage.office.com/api/v1.0/{TENANT}/%2e%2e/f28ab78a-d401-4060-8012-736e373933eb/activity/feed/audit/1"
                ),
                Foreign::OtherTenant,
            ),
        ] {
            assert_eq!(address().given(&given), Err(why), "{given}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_given_what_is_sent_is_ours(
            text in ".{0,200}",
            suffix in "[ -~]{0,80}",
            query in "(&?(PublisherIdentifier|%50ublisheridentifie%72|x)(=[a-z0-9]{0,3})?){0,4}",
        ) {
            let feed = format!("https://manage.office.com/api/v1.0/{TENANT}/activity/feed/");
            for given in [
                text,
                format!("{feed}{suffix}"),
                format!("{feed}audit/1?{query}"),
                format!("https://manage.office.com{suffix}"),
            ] {
                if let Ok(url) = address().given(&given) {
                    prop_assert_eq!(url.host_str(), Some("manage.office.com"));
                    prop_assert_eq!(url.scheme(), "https");
                    prop_assert!(url.path().to_ascii_lowercase().starts_with("/api/"));
                    let publishers: Vec<_> = url
                        .query_pairs()
                        .filter(|(name, _)| name.eq_ignore_ascii_case("PublisherIdentifier"))
                        .map(|(_, value)| value.into_owned())
                        .collect();
                    prop_assert_eq!(publishers, [PUBLISHER_ID], "{}", url);
                    prop_assert_eq!(address().given(url.as_str()), Ok(url), "signing twice changes nothing");
                }
            }
        }
    }
}
