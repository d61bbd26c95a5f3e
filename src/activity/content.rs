//! What the listings mean: content blobs, notifications, pages.
//!
//! A listing is a JSON array of small objects. Each entry is read on its own: one that is malformed, of an unknown
//! content type, too large to be kept, or whose `contentUri` may not see the tenant's token is reported among the page's
//! [`refused`](Page::refused) entries and spoils no other. It is never dropped without a word: what the service
//! lists is stored, or its loss is reported, under a name in any case.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::Address;
use super::error::Operation;
use super::link::PageLink;
use super::whole::PAGE;
use super::window::read_time;
use crate::content::{ContentBlob, ContentId, ContentType};
use crate::http::room::Place;

/// "Content older than 7 days cannot be retrieved" (AF20051, activity API reference).
const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Ids have about 120 bytes; they become keys of the store.
const LONGEST_ID: usize = 1024;
/// URIs have about 250 bytes; they are kept with the blob.
const LONGEST_URI: usize = 4096;
/// What is shown of a refused entry.
const EXCERPT: usize = 300;
/// An entry has about 400 bytes; one of more than this is not looked into.
const LONGEST_ENTRY: usize = 64 * 1024;
/// More entries than a page of 8 MiB has room for, if they are what they should be.
const MOST_ENTRIES: usize = 20_000;
/// A page with more entries than this that cannot be collected is no page.
const MOST_REFUSED: usize = 1000;

/// One page of a listing, of content or of a webhook's notifications.
///
/// It keeps its place in the process's [`Room`](crate::http::room::Room): drop it before asking for the next one.
#[derive(Debug)]
pub struct Page<T = ContentBlob> {
    /// What is listed, in the service's order.
    pub entries: Vec<T>,
    /// What is listed and cannot be collected.
    pub refused: Vec<RefusedEntry>,
    /// Where the listing goes on. Only a page without a link is the last; an empty one need not be.
    pub next: Option<PageLink>,
    /// The `Date` of the answer: nothing that became available later is known to be in it.
    pub date: Option<Timestamp>,
    /// `None` if nothing is listed.
    pub(super) _place: Option<Place>,
}

/// An entry of a listing that cannot be collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEntry {
    /// The blob's name. If it has no good one, one that is made of the entry, and is the same whenever the same is listed.
    pub content_id: ContentId,
    /// A stable label: `malformed`, `unknown_content_type` or `foreign_uri`.
    pub kind: &'static str,
    /// What is wrong with it, in words.
    pub reason: String,
    /// The entry itself, cut to 300 characters.
    pub entry: String,
    /// Where it is said to be, cut to 300 characters; empty if nothing is said.
    pub content_uri: String,
    /// When it became available, if that can be read.
    pub content_created: Option<Timestamp>,
    /// When the service deletes it, if that can be read.
    pub content_expiration: Option<Timestamp>,
}

impl RefusedEntry {
    fn new(raw: &str, value: Option<&Value>, (kind, reason): Refused) -> Self {
        let (content_created, content_expiration) = value.map_or((None, None), read_life);
        Self {
            content_id: value.and_then(|value| read_id(value).ok()).unwrap_or_else(|| made_name(raw)),
            kind,
            reason,
            entry: excerpt(raw),
            content_uri: value.and_then(|value| value.get("contentUri")?.as_str()).map(excerpt).unwrap_or_default(),
            content_created,
            content_expiration,
        }
    }
}

/// One line of a text, not too long.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A name for what has none.
fn made_name(entry: &str) -> ContentId {
    use std::fmt::Write as _;
    let digest = digest(&SHA256, entry.as_bytes());
    let mut name = "unnamed-".to_owned();
    for byte in &digest.as_ref()[..16] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.into()
}

/// One attempt to notify a webhook ("List notifications", activity API reference).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The blob that it told of.
    pub blob: ContentBlob,
    /// When it was sent.
    pub sent: Option<Timestamp>,
    /// `success` or `failed`, as written.
    pub status: Option<String>,
}

/// The friendly name of a GUID in DLP records ("Retrieve resource friendly names", activity API reference).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct DlpSensitiveType {
    /// The sensitive information type's GUID, as written.
    pub id: String,
    /// Its name in the language asked for.
    pub name: String,
}

/// What a listing can be of.
pub(super) trait Listed: Sized {
    /// The operation that asks for the first page.
    const OPERATION: Operation;
    /// The last part of its address.
    const PATH: &str;
    /// What its answer is.
    const EXPECTED: &str;

    /// Reads an entry.
    fn read(entry: &Value, asked: ContentType, address: &Address) -> Result<Self, Refused>;
}

impl Listed for ContentBlob {
    const OPERATION: Operation = Operation::ListContent;
    const PATH: &str = "subscriptions/content";
    const EXPECTED: &str = "a list of content";

    fn read(entry: &Value, asked: ContentType, address: &Address) -> Result<Self, Refused> {
        read_blob(entry, asked, address)
    }
}

impl Listed for Notification {
    const OPERATION: Operation = Operation::ListNotifications;
    const PATH: &str = "subscriptions/notifications";
    const EXPECTED: &str = "a list of notifications";

    fn read(entry: &Value, asked: ContentType, address: &Address) -> Result<Self, Refused> {
        let blob = read_blob(entry, asked, address)?;
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let sent = text("notificationSent").and_then(read_time);
        Ok(Self { blob, sent, status: text("notificationStatus").map(str::to_owned) })
    }
}

/// Why an entry is refused: label and words.
type Refused = (&'static str, String);

/// What the body of a listing holds.
#[derive(Debug)]
pub(super) struct Entries<T> {
    pub(super) good: Vec<T>,
    pub(super) refused: Vec<RefusedEntry>,
}

impl<T: Listed> Entries<T> {
    /// Reads a page. Only an array is one: nothing at all, `null` or an object may be the answer of something on the way,
    /// and would pass for an empty listing.
    pub(super) fn read(body: &[u8], asked: ContentType, address: &Address) -> Result<Self, serde_json::Error> {
        let text = read_text(body)?;
        let mut entries = Self { good: Vec::new(), refused: Vec::new() };
        let mut parser = serde_json::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
        parser.deserialize_seq(Each(|raw: &RawValue| entries.add(raw.get(), asked, address)))?;
        parser.end()?;
        Ok(entries)
    }

    fn add(&mut self, raw: &str, asked: ContentType, address: &Address) -> Result<(), String> {
        if self.good.len() + self.refused.len() == MOST_ENTRIES {
            return Err(format!("it has more than {MOST_ENTRIES} entries"));
        }
        let value = if raw.len() <= LONGEST_ENTRY {
            serde_json::from_str::<Value>(raw).map_err(|error| format!("the entry cannot be read: {error}"))
        } else {
            Err(format!("the entry is longer than {LONGEST_ENTRY} bytes"))
        };
        let result = match &value {
            Ok(value) => T::read(value, asked, address),
            Err(why) => Err(("malformed", why.clone())),
        };
        match result {
            Ok(entry) => self.good.push(entry),
            Err(refused) if self.refused.len() == MOST_REFUSED => {
                return Err(format!(
                    "it has more than {MOST_REFUSED} entries that cannot be collected; of the last one, {}",
                    refused.1
                ));
            }
            Err(refused) => self.refused.push(RefusedEntry::new(raw, value.as_ref().ok(), refused)),
        }
        Ok(())
    }
}

/// Bytes that are not UTF-8 spoil the entry that holds them, not the page, unless there are many of them: each becomes
/// three.
fn read_text(body: &[u8]) -> Result<Cow<'_, str>, serde_json::Error> {
    let length: usize = body.utf8_chunks().map(|chunk| chunk.valid().len() + 3 * chunk.invalid().len()).sum();
    if length > body.len() && length as u64 > PAGE.max_decompressed {
        return Err(serde::de::Error::custom("it is not UTF-8"));
    }
    Ok(String::from_utf8_lossy(body))
}

/// Hands on each element of an array as it is reached, so that there is never a list of all.
struct Each<F>(F);

impl<'de, F: FnMut(&'de RawValue) -> Result<(), String>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

fn read_blob(entry: &Value, asked: ContentType, address: &Address) -> Result<ContentBlob, Refused> {
    let blob = read_fields(entry, asked)?;
    address.given(&blob.content_uri).map_err(|why| {
        ("foreign_uri", format!("its `contentUri` is not used (`{}`): {why}", super::error::host_of(&blob.content_uri)))
    })?;
    Ok(blob)
}

/// Reads one blob of a notification. Nothing but a header vouches for it, so that it is taken by the letter: its address
/// must be that of this very content, or the body of another would be stored under its name.
pub(super) fn read_notified(entry: &Value, address: &Address) -> Result<ContentBlob, Refused> {
    let content_type = match entry.get("contentType").and_then(Value::as_str).map(str::parse) {
        Some(Ok(content_type)) => content_type,
        Some(Err(error)) => return Err(("unknown_content_type", format!("{error}"))),
        None => return Err(("malformed", "`contentType` is missing".to_owned())),
    };
    let blob = read_blob(entry, content_type, address)?;
    let path = blob.content_uri.split(['?', '#']).next().unwrap_or_default();
    if path.rsplit_once("/activity/feed/audit/").is_none_or(|(_, last)| last != blob.content_id.as_str()) {
        return Err(("foreign_uri", "its `contentUri` is not that of its `contentId`".to_owned()));
    }
    Ok(blob)
}

/// All but the question whether its address may be asked.
fn read_fields(entry: &Value, asked: ContentType) -> Result<ContentBlob, Refused> {
    let malformed = |what: &str| ("malformed", what.to_owned());
    if !entry.is_object() {
        return Err(malformed("the entry is not an object"));
    }
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let content_type = match entry.get("contentType") {
        // What was asked for is what is listed.
        None | Some(Value::Null) => asked,
        Some(Value::String(text)) => text.parse().map_err(|error| ("unknown_content_type", format!("{error}")))?,
        Some(_) => return Err(malformed("`contentType` is not a text")),
    };
    let content_id = read_id(entry)?;
    let content_uri = text("contentUri").ok_or_else(|| malformed("`contentUri` is missing"))?;
    if content_uri.len() > LONGEST_URI {
        return Err(malformed("`contentUri` is longer than 4096 bytes"));
    }
    let (created, expiration) = read_life(entry);
    let created = created.ok_or_else(|| malformed("`contentCreated` is missing or not a time"))?;
    let expiration = expiration.ok_or_else(|| malformed("`contentCreated` is not a time of this age"))?;
    Ok(ContentBlob {
        content_id,
        content_type,
        content_uri: content_uri.to_owned(),
        content_created: created,
        content_expiration: expiration,
    })
}

/// From when until when the service holds a blob; what is missing is filled in.
fn read_life(entry: &Value) -> (Option<Timestamp>, Option<Timestamp>) {
    let time = |name: &str| entry.get(name).and_then(Value::as_str).and_then(read_time);
    let expiration = time("contentExpiration");
    let created = time("contentCreated").or_else(|| expiration?.checked_sub(LIFE).ok());
    (created, expiration.or_else(|| created?.checked_add(LIFE).ok()))
}

fn read_id(entry: &Value) -> Result<ContentId, Refused> {
    let malformed = |what: &str| ("malformed", what.to_owned());
    let id = entry.get("contentId").and_then(Value::as_str).ok_or_else(|| malformed("`contentId` is missing"))?;
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(malformed("`contentId` is empty or longer than 1024 bytes"));
    }
    // It is written to journals and tables.
    if id.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        return Err(malformed("`contentId` holds characters that are no text"));
    }
    Ok(id.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cloud::Cloud;

    const FEED: &str = "https://manage.office.com/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed";

    fn address() -> Address {
        Address {
            management: Cloud::preset("worldwide").unwrap().management.unwrap(),
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            publisher: "46b472a7-c68e-4adf-8ade-3db49497518e".parse().unwrap(),
        }
    }

    fn read(body: &[u8]) -> Result<Entries<ContentBlob>, serde_json::Error> {
        Entries::read(body, ContentType::General, &address())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A good entry with some fields changed or, if null, removed.
    fn entry(changes: &Value) -> Value {
        let id = "20200702020621634014687$20200702020621634014687$audit_exchange$Audit_Exchange$emea0036";
        let mut entry = json!({
            "contentType": "Audit.Exchange", "contentId": id, "contentUri": format!("{FEED}/audit/{id}"),
            "contentCreated": "2020-07-02T02:06:21.634Z", "contentExpiration": "2020-07-09T02:06:21.634Z",
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                entry.as_object_mut().unwrap().remove(name);
            } else {
                entry[name] = value.clone();
            }
        }
        entry
    }

    #[test]
    fn a_blob_as_listed() {
        let page = read(json!([entry(&json!({}))]).to_string().as_bytes()).unwrap();
        assert_eq!(page.refused, []);
        let [blob] = &page.good[..] else { panic!("{:?}", page.good) };
        assert_eq!(blob.content_type, ContentType::Exchange);
        let id = "20200702020621634014687$20200702020621634014687$audit_exchange$Audit_Exchange$emea0036";
        assert_eq!(blob.content_id.as_str(), id);
        assert_eq!(blob.content_uri, format!("{FEED}/audit/{id}"), "the URI is kept as it was listed");
        assert_eq!(blob.content_created, at("2020-07-02T02:06:21.634Z"));
        assert_eq!(blob.content_expiration, at("2020-07-09T02:06:21.634Z"));
    }

    #[test]
    fn what_is_missing_is_filled_in_where_that_is_safe() {
        for (changes, created, expires) in [
            (json!({"contentExpiration": null}), "2020-07-02T02:06:21.634Z", "2020-07-09T02:06:21.634Z"),
            (json!({"contentExpiration": "never"}), "2020-07-02T02:06:21.634Z", "2020-07-09T02:06:21.634Z"),
            (json!({"contentCreated": null}), "2020-07-02T02:06:21.634Z", "2020-07-09T02:06:21.634Z"),
            (
                json!({"contentCreated": "2020-07-02T02:06:21", "contentExpiration": null}),
                "2020-07-02T02:06:21Z",
                "2020-07-09T02:06:21Z",
            ),
            (
                json!({"contentExpiration": "2020-07-22T00:00:00.0000000Z"}),
                "2020-07-02T02:06:21.634Z",
                "2020-07-22T00:00:00Z",
            ),
        ] {
            let page = read(json!([entry(&changes)]).to_string().as_bytes()).unwrap();
            assert_eq!(page.good.len(), 1, "{changes}: {:?}", page.refused);
            assert_eq!(page.good[0].content_created, at(created), "{changes}");
            assert_eq!(page.good[0].content_expiration, at(expires), "{changes}");
        }
        let page = read(json!([entry(&json!({"contentType": null}))]).to_string().as_bytes()).unwrap();
        assert_eq!(page.good[0].content_type, ContentType::General, "what was asked for is what is listed");
    }

    #[test]
    fn an_entry_that_cannot_be_collected_is_reported_and_spoils_no_other() {
        for (changes, kind) in [
            (json!({"contentId": null}), "malformed"),
            (json!({"contentId": ""}), "malformed"),
            (json!({"contentId": 7}), "malformed"),
            (json!({"contentId": "a\nb"}), "malformed"),
            (json!({"contentId": "x".repeat(1025)}), "malformed"),
            (json!({"contentUri": null}), "malformed"),
            (json!({"contentUri": format!("{FEED}/audit/{}", "x".repeat(40_000))}), "malformed"),
            (json!({"contentCreated": null, "contentExpiration": null}), "malformed"),
            (json!({"contentCreated": "9999-12-31T00:00:00Z", "contentExpiration": null}), "malformed"),
            (json!({"contentType": 4}), "malformed"),
            (json!({"contentType": "Audit.Everything"}), "unknown_content_type"),
            (
                json!({"contentUri": "https://attacker.example/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed/audit/1"}),
                "foreign_uri",
            ),
            (
                json!({"contentUri": "http://manage.office.com/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed/audit/1"}),
                "foreign_uri",
            ),
            (
                json!({"contentUri": "https://manage.office.com/api/v1.0/f28ab78a-d401-4060-8012-736e373933eb/activity/feed/audit/1"}),
                "foreign_uri",
            ),
            (json!({"contentUri": ""}), "foreign_uri"),
        ] {
            let bad = entry(&changes);
            let good = entry(&json!({}));
            let page = read(json!([good, bad, good]).to_string().as_bytes()).unwrap();
            assert_eq!(page.good.len(), 2, "{changes}");
            let [refused] = &page.refused[..] else { panic!("{changes}: {:?}", page.refused) };
            assert_eq!(refused.kind, kind, "{refused:?}");
            let good_id = !changes.as_object().unwrap().contains_key("contentId");
            assert_eq!(!refused.content_id.as_str().starts_with("unnamed-"), good_id, "{refused:?}");
            let again = read(json!([bad]).to_string().as_bytes()).unwrap();
            assert_eq!(again.refused, page.refused, "the same is called the same");
            assert!(refused.entry.starts_with('{') && refused.entry.len() <= 300, "{refused:?}");
            assert!(refused.content_uri.len() <= 300, "{refused:?}");
        }
        let page = read(br#"[null, 7, "x", [], {}, {"a":1,"a":2}]"#).unwrap();
        assert_eq!((page.good.len(), page.refused.len()), (0, 6));
        let mut body = json!([entry(&json!({})), entry(&json!({"contentId": "damaged-?"}))]).to_string().into_bytes();
        let at = body.windows(9).position(|window| window == b"damaged-?").unwrap() + 8;
        body[at] = 0xff;
        let page = read(&body).unwrap();
        assert_eq!((page.good.len(), page.refused.len()), (1, 1), "bytes that are no text spoil one entry");
    }

    #[test]
    fn only_an_array_is_a_listing() {
        for body in [&b"[]"[..], b" [ ]\r\n", b"\xef\xbb\xbf[]"] {
            let page = read(body).unwrap();
            assert_eq!((page.good.len(), page.refused.len()), (0, 0));
        }
        let nothing = [&b""[..], b" \r\n", b"\xef\xbb\xbf", b"null"];
        let others = [&b"{}"[..], b"[", b"[{}", b"[,]", b"<html>", b"\"x\"", b"7", b"[] []", br#"{"error":{}}"#];
        for body in nothing.into_iter().chain(others) {
            assert!(read(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_page_is_bounded_in_all_that_it_can_hold() {
        let list = |entry: &str, count: usize| format!("[{}]", vec![entry; count].join(",")).into_bytes();
        let good = entry(&json!({})).to_string();
        assert_eq!(read(&list(&good, MOST_ENTRIES)).unwrap().good.len(), MOST_ENTRIES);
        let error = read(&list(&good, MOST_ENTRIES + 1)).unwrap_err();
        assert!(error.to_string().contains("more than 20000 entries"), "{error}");

        assert_eq!(read(&list("0", MOST_REFUSED)).unwrap().refused.len(), MOST_REFUSED);
        let error = read(&list("0", 4 << 20)).unwrap_err();
        assert!(error.to_string().contains("more than 1000 entries that cannot be collected"), "{error}");

        // Of an entry as large as the page, no more is kept than of any other.
        let page = read(format!("[[{}0],{good}]", "0,".repeat(4 << 20)).as_bytes()).unwrap();
        assert_eq!((page.good.len(), page.refused.len()), (1, 1));
        assert!(page.refused[0].reason.contains("longer than 65536 bytes"), "{:?}", page.refused);

        // What is no text would be three times as long as text.
        let mut body = b"[\"".to_vec();
        body.resize(4 << 20, 0xff);
        body.extend(b"\"]");
        let error = read(&body).unwrap_err();
        assert!(error.to_string().contains("not UTF-8"), "{error}");
    }

    #[test]
    fn notifications_tell_of_blobs() {
        let entry = entry(&json!({"notificationSent": "2015-05-23T17:36:00.000Z", "notificationStatus": "success"}));
        let body = json!([entry, 1]).to_string();
        let page = Entries::<Notification>::read(body.as_bytes(), ContentType::General, &address()).unwrap();
        assert_eq!((page.good.len(), page.refused.len()), (1, 1));
        assert_eq!(page.good[0].sent, Some(at("2015-05-23T17:36:00Z")));
        assert_eq!(page.good[0].status.as_deref(), Some("success"));
        assert_eq!(page.good[0].blob.content_type, ContentType::Exchange);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_page_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in "\\[(\\{(\"[a-zA-Z]{0,16}\":(\"[^\"\\\\]{0,20}\"|null|[0-9]{1,5}),?){0,5}\\},?){0,4}\\]?",
        ) {
            let _ = (read(&bytes), read(text.as_bytes()));
        }

        #[test]
        fn every_entry_is_either_collected_or_reported(
            entries in proptest::collection::vec(
                (any::<bool>(), "contentType|contentId|contentUri|contentCreated", ".{0,40}"), 0..20,
            ),
        ) {
            let listed: Vec<_> = entries
                .iter()
                .map(|(good, name, value)| entry(&if *good { json!({}) } else { json!({name: value}) }))
                .collect();
            let page = read(Value::from(listed).to_string().as_bytes()).unwrap();
            prop_assert_eq!(page.good.len() + page.refused.len(), entries.len());
            prop_assert!(page.good.len() >= entries.iter().filter(|(good, ..)| *good).count());
        }
    }
}
