//! Where records name sensitive information types, and how names are put beside the ids. Pure.
//!
//! Records of `DLP.All` carry a `SensitiveType` in each `SensitiveInformation` ("`SensitiveInformation` complex type", activity
//! API schema); those of endpoints, in `Audit.General`, a `SensitiveInfoTypeId`. An object that has such a member is given
//! one more, [`NAME`], at its end. That is a name which the schema does not have: what Microsoft itself says in
//! `SensitiveInformationTypeName`, where it does, stays, and so does every other byte.
//!
//! **Invariant:** nothing but such members is added, and nothing is changed; a record that cannot be followed to its end is
//! handed on as it is from there.

use memchr::{memchr2, memmem};
use uuid::Uuid;

/// The member that is added.
pub const NAME: &str = "SensitiveTypeName";
/// The members that hold ids.
const IDS: [&[u8]; 3] = [b"SensitiveType", b"SensitiveInfoTypeId", b"SensitiveInformationTypeId"];
/// What all of them have in common: most records do not.
const COMMON: &[u8] = b"Sensitive";
/// Records are not nested as deep as this.
const DEEPEST: usize = 128;

/// Appends the record to `out`, with the names that `name_of` knows.
pub fn add_names<'n>(record: &[u8], mut name_of: impl FnMut(Uuid) -> Option<&'n str>, out: &mut Vec<u8>) {
    let mut copied = 0;
    each(record, |at, id| {
        let Some(name) = name_of(id) else { return };
        out.extend_from_slice(&record[copied..at]);
        copied = at;
        // A string is never refused.
        if let Ok(name) = serde_json::to_string(name) {
            out.extend_from_slice(format!(",\"{NAME}\":{name}").as_bytes());
        }
    });
    out.extend_from_slice(&record[copied..]);
}

/// Whether there may be ids in it at all. Cheap.
#[must_use]
pub fn may_have_ids(record: &[u8]) -> bool {
    memmem::find(record, COMMON).is_some()
}

/// Hands out the id of each object that has one and no [`NAME`] yet, with the place of the object's end. Of ids that are
/// repeated in one object, the last one counts.
pub fn each(record: &[u8], mut take: impl FnMut(usize, Uuid)) {
    if !may_have_ids(record) {
        return;
    }
    let mut open: Vec<Frame> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = record.get(at) {
        match byte {
            b'"' => {
                let Some(length) = string(&record[at + 1..]) else { return };
                let text = &record[at + 1..at + 1 + length];
                if let Some(frame) = open.last_mut() {
                    frame.take(text);
                }
                at += length + 1;
            }
            b'{' | b'[' if open.len() == DEEPEST => return,
            b'{' | b'[' => open.push(Frame { of: byte, key: None, id: None, named: false }),
            b',' => {
                if let Some(frame) = open.last_mut() {
                    frame.key = None;
                }
            }
            b'}' | b']' => {
                let Some(frame) = open.pop() else { return };
                if let (Some(id), false) = (frame.id, frame.named) {
                    take(at, id);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// An object or an array whose end has not been reached.
struct Frame {
    of: u8,
    /// Whose value is next; `None` where a key is.
    key: Option<Key>,
    id: Option<Uuid>,
    named: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Other,
}

impl Frame {
    /// A string stands in it, as a key or as a value.
    fn take(&mut self, text: &[u8]) {
        if self.of != b'{' {
            return;
        }
        match self.key {
            None => {
                self.named |= text == NAME.as_bytes();
                self.key = Some(if IDS.contains(&text) { Key::Id } else { Key::Other });
            }
            Some(Key::Id) => self.id = Uuid::try_parse_ascii(text).ok().filter(|_| text.len() == 36),
            Some(Key::Other) => {}
        }
    }
}

/// How many bytes the string has whose first quote was just read; `None` if it does not end.
fn string(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CARD: &str = "50842eb7-edc8-4019-85dd-5a5c1f2bb085";
    const DEBIT: &str = "0e9b3178-9678-47dd-a509-37222ca96b42";

    fn named(record: &str) -> String {
        let mut out = Vec::new();
        let name = |id: Uuid| match id.to_string().as_str() {
            CARD => Some("Credit \"Card\" Number"),
            DEBIT => Some("EU-Debitkarte"),
            _ => None,
        };
        add_names(record.as_bytes(), name, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_name_stands_at_the_end_of_the_object_that_has_the_id() {
        let record = format!(
            r#"{{"Id":"x","PolicyDetails":[{{"Rules":[{{"ConditionsMatched":{{"SensitiveInformation":[{{"Confidence":85,"SensitiveType":"{CARD}","Count":1}},{{"SensitiveType":"{}","SensitiveInformationTypeName":"Debit"}}]}}}}]}}]}}"#,
            DEBIT.to_uppercase()
        );
        let expected = format!(
            r#"{{"Id":"x","PolicyDetails":[{{"Rules":[{{"ConditionsMatched":{{"SensitiveInformation":[{{"Confidence":85,"SensitiveType":"{CARD}","Count":1,"SensitiveTypeName":"Credit \"Card\" Number"}},{{"SensitiveType":"{}","SensitiveInformationTypeName":"Debit","SensitiveTypeName":"EU-Debitkarte"}}]}}}}]}}]}}"#,
            DEBIT.to_uppercase()
        );
        assert_eq!(named(&record), expected);
    }

    #[test]
    fn only_members_of_these_names_with_an_id_that_is_known_are_named() {
        for (record, added) in [
            (format!(r#"{{"SensitiveType":"{CARD}"}}"#), true),
            (format!(r#"{{"SensitiveInfoTypeId":"{CARD}"}}"#), true),
            (format!(r#"{{"SensitiveInformationTypeId" : "{CARD}" }}"#), true),
            (format!(r#"{{"SensitiveType":"{CARD}","x":{{"a":["SensitiveType","{CARD}"]}}}}"#), true),
            (format!(r#"{{"SensitiveType":"{CARD}","SensitiveTypeName":"as it came"}}"#), false),
            (format!(r#"{{"SensitiveTypeName":null,"SensitiveType":"{CARD}"}}"#), false),
            (format!(r#"{{"SensitiveType":"{CARD}","SensitiveType":"another"}}"#), false),
            (format!(r#"{{"SensitiveType":["{CARD}"]}}"#), false),
            (format!(r#"{{"SensitiveType":{{"id":"{CARD}"}}}}"#), false),
            (format!(r#"["SensitiveType","{CARD}"]"#), false),
            (format!(r#"{{"a":"SensitiveType","b":"{CARD}"}}"#), false),
            (format!(r#"{{"a":"{{\"SensitiveType\":\"{CARD}\"}}"}}"#), false),
            (r#"{"SensitiveType":"50842eb7edc8401985dd5a5c1f2bb085"}"#.to_owned(), false),
            (r#"{"SensitiveType":"12345678-9678-47dd-a509-37222ca96b42"}"#.to_owned(), false),
            (format!(r#"{{"Other":"{CARD}"}}"#), false),
            // None of these are records: what is stored is handed on whatever it is.
            (format!(r#"{{"SensitiveType":"{CARD}"#), false),
            (format!(r#"}}{{"SensitiveType":"{CARD}"}}"#), false),
            (format!("{}{{\"SensitiveType\":\"{CARD}\"}}", "[".repeat(DEEPEST)), false),
        ] {
            let out = named(&record);
            assert_eq!(out != record, added, "{record}");
            if added {
                let mut value: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert_eq!(value.as_object_mut().unwrap().remove(NAME), Some("Credit \"Card\" Number".into()), "{out}");
                assert_eq!(value, serde_json::from_str::<serde_json::Value>(&record).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn without_the_members_that_were_added_a_record_is_as_it_was(
            record in crate::store::records::tests::json(),
            mark in any::<bool>(),
        ) {
            let id = if mark { CARD } else { "unknown" };
            let record = serde_json::json!({ "before": record, "SensitiveType": id, "after": record });
            let text = serde_json::to_string(&record).unwrap();
            let out = named(&text);
            let mut value: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(value.as_object_mut().unwrap().remove(NAME).is_some(), mark);
            prop_assert_eq!(value, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\Sx0 "#.to_vec()), 0..200)) {
            let record = [br#"{"SensitiveType":"#.as_slice(), &bytes].concat();
            let mut out = Vec::new();
            add_names(&record, |_| Some("x"), &mut out);
            prop_assert!(out.len() >= record.len());
        }
    }
}
