//! The body of a notification: a JSON array of objects, taken apart one by one. Pure.
//!
//! **Invariant:** memory is bounded by the body's length, whatever it holds: entries are counted as they are reached.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Blobs in one notification.
const MOST: usize = 1_000;
/// Bytes of one entry; those of the service have some 700.
const LONGEST_ENTRY: usize = 16 * 1024;

/// The entries; `None` if it is no array of so many objects at most.
pub(super) fn entries(body: &[u8]) -> Option<Vec<Value>> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let entries = parser.deserialize_seq(Entries).ok()?;
    parser.end().ok()?;
    Some(entries)
}

/// Whether it is a validation with this code.
pub(super) fn validates(body: &[u8], code: &str) -> bool {
    body.len() <= LONGEST_ENTRY
        && serde_json::from_slice::<Value>(body)
            .is_ok_and(|body| body.get("validationCode").is_some_and(|of| of == code))
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Value>, A::Error> {
        let mut entries = Vec::new();
        while let Some(raw) = elements.next_element::<&RawValue>()? {
            if entries.len() == MOST || raw.get().len() > LONGEST_ENTRY || !raw.get().starts_with('{') {
                return Err(A::Error::custom("it is no notification"));
            }
            entries.push(serde_json::from_str(raw.get()).map_err(A::Error::custom)?);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_array_of_objects_is_none() {
        assert_eq!(entries(b"[]"), Some(Vec::new()));
        assert_eq!(entries(br#" [ {"a": 1}, {} ] "#).unwrap().len(), 2);
        let many = |count| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(entries(many(MOST).as_bytes()).unwrap().len(), MOST);
        assert_eq!(entries(many(MOST + 1).as_bytes()), None);
        let long = format!(r#"[{{"a":"{}"}}]"#, "x".repeat(LONGEST_ENTRY));
        for body in ["", "{}", "null", "[1]", "[[]]", "[{}", "[{}]x", "[{},]", "[{}] []", "\u{feff}[]", &long] {
            assert_eq!(entries(body.as_bytes()), None, "{body:.40}");
        }
        assert_eq!(entries(b"[{\"a\":\"\xff\"}]"), None);
    }

    #[test]
    fn a_validation_says_its_code_twice() {
        assert!(validates(br#"{"validationCode":"abc"}"#, "abc"));
        for body in ["", "[]", "{}", r#"{"validationCode":"abd"}"#, r#"{"validationCode":1}"#] {
            assert!(!validates(body.as_bytes(), "abc"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = entries(&body);
            let _ = validates(&body, "abc");
        }
    }
}
