//! Which addresses may see a token for Graph, and how a request is addressed.
//!
//! **Invariant:** every URL that leaves this module is on the Graph host of the tenant's cloud (scheme, host and port),
//! under `/v1.0/admin/serviceAnnouncement/`. Apart from that, path and query of a link that Graph gave are sent as given.

use std::sync::Arc;

use jiff::Timestamp;
use url::Url;

use super::list::List;
use crate::cloud::Cloud;

/// Longer addresses are not followed; those of Graph have some 200 bytes.
const LONGEST: usize = 8 * 1024;

const BASE: &str = "/v1.0/admin/serviceAnnouncement";

/// Why an address that Graph gave is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It is no absolute URL, or absurdly long.
    #[error("it is not a URL")]
    NotAUrl,
    /// It is not on the Graph host, or on another scheme or port.
    #[error("it is not on the Graph host of the tenant's cloud")]
    OtherHost,
    /// It is on the Graph host, but leads to something else than the list.
    #[error("it does not lead to a further page of the list")]
    OtherList,
}

/// Service communications on the Graph host.
#[derive(Debug, Clone)]
pub(super) struct Address(pub(super) Arc<Cloud>);

impl Address {
    /// The first page of a list; of what has changed at or after `since`, if that is given and the list knows of time.
    pub(super) fn list(&self, list: List, since: Option<Timestamp>) -> Url {
        let mut url = self.0.graph.clone();
        url.set_path(&format!("{BASE}/{}", list.path()));
        if let Some(since) = since.filter(|_| list.has_times()) {
            url.set_query(Some(&format!(
                "$filter=lastModifiedDateTime%20ge%20{}",
                since.strftime("%Y-%m-%dT%H:%M:%SZ")
            )));
        }
        url
    }

    /// What stands at this path, of which each part is one: what is none is escaped.
    pub(super) fn of(&self, path: &[&str]) -> Url {
        let mut url = self.0.graph.clone();
        url.set_path(BASE);
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.extend(path);
        }
        url
    }

    /// A link to a further page of a list, if it may see the token.
    pub(super) fn next(&self, list: List, text: &str) -> Result<Url, Foreign> {
        if text.len() > LONGEST {
            return Err(Foreign::NotAUrl);
        }
        let mut url = Url::parse(text).map_err(|_| Foreign::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !self.0.is_graph(&url) {
            return Err(Foreign::OtherHost);
        }
        if !url.path().trim_end_matches('/').eq_ignore_ascii_case(&format!("{BASE}/{}", list.path())) {
            return Err(Foreign::OtherList);
        }
        url.set_fragment(None);
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://graph.microsoft.com";

    fn address() -> Address {
        Address(Arc::new(Cloud::preset("worldwide").unwrap()))
    }

    #[test]
    fn lists_are_addressed_as_documented() {
        let since = Some("2025-01-25T00:00:00.5Z".parse().unwrap());
        let base = format!("{HOST}{BASE}");
        for (list, since, expected) in [
            (List::Messages, None, format!("{base}/messages")),
            (List::Issues, since, format!("{base}/issues?$filter=lastModifiedDateTime%20ge%202025-01-25T00:00:00Z")),
            (List::Services, since, format!("{base}/healthOverviews")),
        ] {
            assert_eq!(address().list(list, since).as_str(), expected);
        }
    }

    #[test]
    fn a_part_of_a_path_stays_one() {
        let base = format!("{HOST}{BASE}");
        for (id, expected) in [("EX1", "EX1"), ("../users", "..%2Fusers"), ("a?b#c", "a%3Fb%23c")] {
            assert_eq!(address().of(&["issues", id, "x"]).as_str(), format!("{base}/issues/{expected}/x"));
        }
    }

    #[test]
    fn a_link_is_followed_only_to_the_same_list_on_the_same_host() {
        let next = |text: &str| address().next(List::Issues, text);
        for good in ["issues?$skip=100", "issues?%24skip=100&$filter=a%20ge%20b", "Issues/?$skiptoken=x"] {
            let text = format!("{HOST}{BASE}/{good}");
            assert_eq!(next(&text).unwrap().as_str(), text);
        }
        for (bad, why) in [
            ("issues?$skip=100".to_owned(), Foreign::NotAUrl),
            (format!("{HOST}{BASE}/issues?{}", "x".repeat(LONGEST)), Foreign::NotAUrl),
            (format!("http://graph.microsoft.com{BASE}/issues"), Foreign::OtherHost),
            (format!("https://graph.microsoft.com:8443{BASE}/issues"), Foreign::OtherHost),
            (format!("https://graph.microsoft.com@attacker.example{BASE}/issues"), Foreign::OtherHost),
            (format!("https://user@graph.microsoft.com{BASE}/issues"), Foreign::OtherHost),
            (format!("https://graph.microsoft.us{BASE}/issues"), Foreign::OtherHost),
            (format!("{HOST}{BASE}/messages"), Foreign::OtherList),
            (format!("{HOST}{BASE}/issues/EX1"), Foreign::OtherList),
            (format!("{HOST}{BASE}/issues/../../../users"), Foreign::OtherList),
            (format!("{HOST}/v1.0/users"), Foreign::OtherList),
        ] {
            assert_eq!(next(&bad), Err(why), "{bad}");
        }
    }
}
