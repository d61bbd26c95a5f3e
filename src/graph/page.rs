//! What an answer holds: the items of one page, as they were sent, and the link to the next page.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::list::List;
use crate::http::room::Place;

/// A listing of more pages than this, at a hundred items each, does not end.
pub(super) const MOST_PAGES: usize = 1000;
/// A longer id is no name; those of Microsoft have some ten characters.
const LONGEST_ID: usize = 200;

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// In the order of the answer.
    pub items: Vec<Item>,
    /// Where it goes on.
    pub next: Option<PageLink>,
    /// When it was answered, by Graph's own clock.
    pub date: Option<Timestamp>,
    /// The room that it takes.
    pub(super) _place: Place,
}

/// An item in one of its revisions.
#[derive(Debug, Clone)]
pub struct Item {
    /// Microsoft's name for it, such as `EX226792`, `MC172851` or `Exchange`.
    pub id: String,
    /// When it was last changed, if it says so.
    pub modified: Option<Timestamp>,
    /// The JSON object exactly as received.
    pub json: Box<RawValue>,
}

impl Item {
    fn read(json: Box<RawValue>) -> Self {
        let fields = serde_json::from_str::<Fields>(json.get()).unwrap_or_default();
        let id = fields.id.filter(|id| !id.is_empty() && id.len() <= LONGEST_ID && !id.contains(char::is_control));
        let id = id.unwrap_or_else(|| format!("sha256-{}", digest_of(&json)));
        Self { id, modified: fields.modified.and_then(|text| text.parse().ok()), json }
    }

    /// The name of this revision: the item's and when it was last changed, or the digest of what it says if it does not
    /// tell.
    #[must_use]
    pub fn revision(&self) -> String {
        match self.modified {
            Some(modified) => format!("{}@{modified}", self.id),
            None => format!("{}@sha256-{}", self.id, digest_of(&self.json)),
        }
    }
}

fn digest_of(json: &RawValue) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, json.get().as_bytes()))
}

/// A field of another type than documented is as good as none: the item is kept all the same.
#[derive(Debug, Default, Deserialize)]
struct Fields {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "lastModifiedDateTime")]
    modified: Option<String>,
}

/// A link to a further page, as Graph gave it; it is checked when it is followed, so that the items of the page that named
/// it are not lost with a bad link. It knows those that led to it: one that leads back is noticed.
#[derive(Debug, Clone)]
pub struct PageLink {
    pub(super) text: String,
    pub(super) list: List,
    pub(super) trail: Vec<String>,
}

impl PageLink {
    /// The number of the page that it leads to; the first page of a listing is 1.
    #[must_use]
    pub fn page(&self) -> usize {
        self.trail.len() + 1
    }

    /// Whether it leads back, or the listing does not end.
    pub(super) fn is_endless(&self) -> bool {
        self.trail.len() >= MOST_PAGES || self.trail.contains(&self.text)
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    value: Vec<Box<RawValue>>,
    #[serde(default, rename = "@odata.nextLink")]
    next: Option<String>,
}

/// The items of an answer and its link; `trail` are the addresses of the listing's pages so far, this one's included.
pub(super) fn read(
    bytes: &[u8],
    list: List,
    trail: Vec<String>,
) -> Result<(Vec<Item>, Option<PageLink>), serde_json::Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Answer { value, next } = serde_json::from_slice(bytes)?;
    let items = value.into_iter().map(Item::read).collect();
    let next = next.filter(|text| !text.is_empty()).map(|text| PageLink { text, list, trail });
    Ok((items, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_kept_as_they_were_sent_and_named_by_what_they_say() {
        let body = br#"{"@odata.context":"x","value":[
            {"id":"EX1","lastModifiedDateTime":"2020-11-20T17:56:31.390Z", "title" : "a\u0041 1.0"},
            {"id":"EX1","lastModifiedDateTime":"2020-11-20T17:56:31.39Z"},
            {"service":"Exchange Online","id":"Exchange"},
            {"lastModifiedDateTime":"2020-11-20T17:56:31Z"},
            {"id":7,"lastModifiedDateTime":"never"},
            17
        ]}"#;
        let (items, next) = read(body, List::Issues, Vec::new()).unwrap();
        assert!(next.is_none());
        assert_eq!(
            items[0].json.get(),
            r#"{"id":"EX1","lastModifiedDateTime":"2020-11-20T17:56:31.390Z", "title" : "a\u0041 1.0"}"#
        );
        let names: Vec<_> = items.iter().map(Item::revision).collect();
        assert_eq!(names[0], "EX1@2020-11-20T17:56:31.39Z");
        assert_eq!(names[0], names[1], "the same moment, written otherwise");
        assert!(names[2].starts_with("Exchange@sha256-"), "{names:?}");
        assert!(names[3].starts_with("sha256-") && names[3].ends_with("@2020-11-20T17:56:31Z"), "{names:?}");
        assert!(names[4].starts_with("sha256-") && names[5].starts_with("sha256-"), "{names:?}");
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for bad in ["", "null", "[]", "{}", r#"{"value":{}}"#, r#"{"value":[}"#, "<html>"] {
            assert!(read(bad.as_bytes(), List::Issues, Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listing_that_leads_back_or_never_ends_is_noticed() {
        let link = |trail: Vec<String>| PageLink { text: "b".to_owned(), list: List::Issues, trail };
        assert!(!link(vec!["a".to_owned()]).is_endless());
        assert!(link(vec!["a".to_owned(), "b".to_owned()]).is_endless());
        assert!(link((0..MOST_PAGES).map(|n| n.to_string()).collect()).is_endless());
    }
}
