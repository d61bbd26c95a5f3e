//! From one page of a listing to the next.

use std::sync::{Arc, Mutex, PoisonError};

use url::{ParseError, Url};

use crate::content::ContentType;

/// A listing of more pages than this, at a hundred blobs and more each, does not end.
const MOST_PAGES: usize = 20_000;

/// A link to a further page, as the service gave it. It is checked when it is followed, so that the entries of the
/// page that named it are not lost with a bad link.
///
/// All links of one listing know the pages that led to them: one that leads back is noticed. Following the same
/// link again, after an error, is no circle.
#[derive(Debug, Clone)]
pub struct PageLink {
    text: String,
    content_type: ContentType,
    /// How many pages come before the one it leads to.
    before: usize,
    trail: Trail,
}

impl PartialEq for PageLink {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PageLink {}

impl PageLink {
    /// `from` is the address of the page that gave it: a link may name no more than the rest of its own.
    pub(super) fn new(text: String, from: &Url, content_type: ContentType, before: usize, trail: Trail) -> Self {
        let text = match Url::parse(&text) {
            Err(ParseError::RelativeUrlWithoutBase) => from.join(&text).map_or(text, String::from),
            _ => text,
        };
        Self { text, content_type, before, trail }
    }

    /// The link as given, if it is whole, or with what it leaves out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What is listed.
    #[must_use]
    pub fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// The number of the page that it leads to; the first page of a listing is 1.
    #[must_use]
    pub fn page(&self) -> usize {
        self.before + 1
    }

    pub(super) fn before(&self) -> usize {
        self.before
    }

    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }
}

/// The addresses of a listing's pages, in their order, as hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail(Arc<Mutex<Vec<u64>>>);

impl Trail {
    /// Takes note of the address of a page; false if an earlier page has it too, or there are too many pages.
    pub(super) fn step(&self, before: usize, address: &str) -> bool {
        // Fixed keys: nothing is gained by making two links of one's own service collide.
        let hash = std::hash::Hasher::finish(&{
            let mut hasher = siphasher::sip::SipHasher13::new();
            std::hash::Hasher::write(&mut hasher, address.as_bytes());
            hasher
        });
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was noted for this page and later ones was an attempt that is being repeated.
        pages.truncate(before);
        if pages.len() >= MOST_PAGES || pages.contains(&hash) {
            return false;
        }
        pages.push(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: &str = "https://manage.office.com/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed";

    #[test]
    fn a_link_may_leave_out_what_it_shares_with_its_page() {
        let from = Url::parse(&format!("{FEED}/subscriptions/content?contentType=Audit.General")).unwrap();
        let host = "https://manage.office.com";
        for (given, meant) in [
            (
                format!("{FEED}/subscriptions/content?nextPage=a$b"),
                format!("{FEED}/subscriptions/content?nextPage=a$b"),
            ),
            ("?nextPage=a$b".to_owned(), format!("{FEED}/subscriptions/content?nextPage=a$b")),
            ("content?nextPage=2".to_owned(), format!("{FEED}/subscriptions/content?nextPage=2")),
            (FEED.strip_prefix(host).unwrap().to_owned() + "/x?y", format!("{FEED}/x?y")),
            ("//attacker.example/x".to_owned(), "https://attacker.example/x".to_owned()),
            ("https://".to_owned(), "https://".to_owned()),
        ] {
            let link = PageLink::new(given.clone(), &from, ContentType::General, 1, Trail::default());
            assert_eq!(link.as_str(), meant, "{given}");
        }
    }

    #[test]
    fn a_trail_notices_circles_and_endless_listings_but_allows_a_second_try() {
        let trail = Trail::default();
        assert!(trail.step(0, "a") && trail.step(1, "b") && trail.step(2, "c"));
        assert!(!trail.step(3, "a") && !trail.step(3, "b") && !trail.step(3, "c"));
        assert!(trail.step(2, "c") && trail.step(1, "b") && trail.step(2, "c"), "the same pages again");
        assert!(trail.step(3, "d"));

        let trail = Trail::default();
        let pages = (0..=MOST_PAGES).take_while(|page| trail.step(*page, &page.to_string())).count();
        assert_eq!(pages, MOST_PAGES);
    }
}
