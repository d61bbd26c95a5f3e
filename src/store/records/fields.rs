//! The fields of a record that the store reads ("Office 365 Management Activity API schema", Common schema).
//!
//! A record is evidence first: whatever its fields hold, it is kept. So a field that is missing, or not of the type
//! that the schema says, is simply not there; a key that is repeated is no error, and its last value counts, as it
//! does for most readers of JSON.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::quick;

/// A record's fields, as they stand in it: each the bytes of a JSON value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    id: Option<&'a [u8]>,
    creation_time: Option<&'a [u8]>,
    organization_id: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Reads the fields of a record that was checked when it was stored; none if it is no record.
    pub(crate) fn read(record: &'a [u8]) -> Self {
        quick::read(record).or_else(|| Self::judge(record).ok()).map(|(fields, _)| fields).unwrap_or_default()
    }

    /// Reads the object that `bytes` begin with: its fields and its length. Everything in it is checked, save that
    /// strings are valid UTF-8. An object without an end is an error, too, but not every such error says so.
    pub(super) fn judge(bytes: &'a [u8]) -> Result<(Self, usize), serde_json::Error> {
        let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Judged<'a>>();
        let judged = stream.next().unwrap_or_else(|| Err(serde::de::Error::custom("there is no object")))?;
        let length = stream.byte_offset();
        if judged.escaped_key {
            serde_json::from_slice::<IgnoredAny>(&bytes[..length])?;
        }
        Ok((judged.fields, length))
    }

    /// Sets the field with this name to the JSON value.
    pub(super) fn set(&mut self, name: Name, value: &'a [u8]) {
        match name {
            Name::Id => self.id = Some(value),
            Name::CreationTime => self.creation_time = Some(value),
            Name::OrganizationId => self.organization_id = Some(value),
            #[cfg(debug_assertions)]
            Name::FaultPoint => fault_point(value),
            Name::Other => {}
        }
    }

    /// `Id`: the record's own name, a GUID as a rule. `None` if it is missing or not a string.
    pub(crate) fn id(&self) -> Option<Cow<'a, str>> {
        self.id.and_then(text)
    }

    /// `CreationTime`: when the user's action took place, in UTC. The service writes it without a zone; one that
    /// stands there is respected. `None` if it is missing or cannot be read as a time.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        time(&self.creation_time.and_then(text)?)
    }

    /// `OrganizationId`: the tenant, if it is a GUID other than the nil one (which says "none").
    pub(crate) fn organization(&self) -> Option<Uuid> {
        let text = self.organization_id.and_then(text)?;
        Uuid::try_parse(&text).ok().filter(|uuid| text.len() == 36 && !uuid.is_nil())
    }
}

/// How many bytes of `bytes` precede the place that `error` names by line and column.
pub(super) fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    let lines = error.line().saturating_sub(1);
    let line = if lines == 0 { 0 } else { memchr::memchr_iter(b'\n', bytes).nth(lines - 1).map_or(0, |at| at + 1) };
    (line + error.column().saturating_sub(1)).min(bytes.len())
}

/// The string that a JSON value is. An escape that stands for no character (half a surrogate pair) leaves the string
/// as it is written: it still names its record, and no other.
fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let json = std::str::from_utf8(value).ok()?;
    let written = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', written.as_bytes()).is_none() {
        return Some(Cow::Borrowed(written));
    }
    Some(serde_json::from_str::<String>(json).map_or(Cow::Borrowed(written), Cow::Owned))
}

fn time(text: &str) -> Option<Timestamp> {
    let (_, of_day) = text.split_once(['T', 't', ' '])?;
    if of_day.contains(['Z', 'z', '+', '-', '[']) {
        return text.parse().ok();
    }
    TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()
}

/// A key, which is read as bytes since it may hold an escape that stands for no character. Read so, `serde_json`
/// lets control characters pass, which JSON does not allow; where there was an escape, that is looked into later.
struct Key {
    name: Name,
    escaped: bool,
}

/// The keys that matter.
#[derive(Clone, Copy)]
pub(super) enum Name {
    Id,
    CreationTime,
    OrganizationId,
    #[cfg(debug_assertions)]
    FaultPoint,
    Other,
}

impl Name {
    pub(super) fn of(key: &[u8]) -> Self {
        match key {
            b"Id" => Self::Id,
            b"CreationTime" => Self::CreationTime,
            b"OrganizationId" => Self::OrganizationId,
            #[cfg(debug_assertions)]
            b"TenantryFaultPoint" => Self::FaultPoint,
            _ => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_bytes<E: serde::de::Error>(self, key: &'de [u8]) -> Result<Key, E> {
                if key.iter().any(|&byte| byte < b' ') {
                    return Err(E::custom("control character in a key"));
                }
                Ok(Key { name: Name::of(key), escaped: false })
            }

            fn visit_bytes<E>(self, key: &[u8]) -> Result<Key, E> {
                Ok(Key { name: Name::of(key), escaped: true })
            }
        }
        deserializer.deserialize_bytes(Keys)
    }
}

/// Fields, as `serde_json` finds them.
struct Judged<'a> {
    fields: Fields<'a>,
    escaped_key: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Judged<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Judged<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record, which is an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Judged<'de>, A::Error> {
                let mut judged = Judged { fields: Fields::default(), escaped_key: false };
                while let Some(key) = map.next_key::<Key>()? {
                    judged.escaped_key |= key.escaped;
                    if let Name::Other = key.name {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        judged.fields.set(key.name, map.next_value::<&RawValue>()?.get().as_bytes());
                    }
                }
                Ok(judged)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// In builds for tests, a record can ask for a panic here: what a bug in this code would do to the tenant.
#[cfg(debug_assertions)]
fn fault_point(value: &[u8]) {
    assert_ne!(value, b"\"panic\"", "the record asked for it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Fields<'_> {
        Fields::judge(json.as_bytes()).unwrap().0
    }

    #[test]
    fn the_fields_are_found_wherever_they_stand() {
        let fields = read(
            r#"{"x":[{"Id":"inner"}],"Id":"a","CreationTime":"2026-11-22T10:00:00","OrganizationId":"11111111-2222-3333-4444-555555555555"}"#,
        );
        assert_eq!(fields.id().as_deref(), Some("a"));
        assert_eq!(fields.created(), Some("2026-11-22T10:00:00Z".parse().unwrap()));
        assert_eq!(fields.organization(), Some("11111111-2222-3333-4444-555555555555".parse().unwrap()));
    }

    #[test]
    fn a_field_of_another_type_is_not_there() {
        for value in ["1", "null", "{}", "[\"a\"]", "true", "-1.5e3"] {
            let json = format!(r#"{{"Id":{value},"CreationTime":{value},"OrganizationId":{value}}}"#);
            let fields = read(&json);
            assert_eq!((fields.id(), fields.created(), fields.organization()), (None, None, None));
        }
        assert_eq!(read("{}").id(), None);
        assert_eq!(read(r#"{"Id":""}"#).id().as_deref(), Some(""));
    }

    #[test]
    fn escapes_are_undone_in_keys_and_values() {
        assert_eq!(read(r#"{"\u0049d":"a\u00e9\n"}"#).id().as_deref(), Some("aé\n"));
        // Half a surrogate pair is no character: the string stays as written.
        assert_eq!(read(r#"{"\ud800":1,"Id":"\ud800x"}"#).id().as_deref(), Some(r"\ud800x"));
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        assert_eq!(read(r#"{"Id":"a","Id":1,"Id":"b"}"#).id().as_deref(), Some("b"));
        assert_eq!(read(r#"{"Id":"a","Id":null}"#).id(), None);
    }

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        for (text, expected) in [
            ("2026-11-22T10:00:00", Some("2026-11-22T10:00:00Z")),
            ("2026-11-22T10:00:00Z", Some("2026-11-22T10:00:00Z")),
            ("2026-11-22T10:00:00.1234567", Some("2026-11-22T10:00:00.1234567Z")),
            ("2026-11-22T10:00:00.123Z", Some("2026-11-22T10:00:00.123Z")),
            ("2026-11-22T10:00:00+02:00", Some("2026-11-22T08:00:00Z")),
            ("0001-01-01T00:00:00", Some("0001-01-01T00:00:00Z")),
            ("2026-13-22T10:00:00", None),
            ("yesterday", None),
            ("", None),
            ("9999-12-31T23:59:59", None),
        ] {
            let json = format!(r#"{{"CreationTime":"{text}"}}"#);
            assert_eq!(read(&json).created(), expected.map(|time| time.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn an_organization_is_a_guid_in_any_case_but_nil() {
        let organization = |text: &str| read(&format!(r#"{{"OrganizationId":"{text}"}}"#)).organization();
        let expected = Some("aaaaaaaa-2222-3333-4444-555555555555".parse().unwrap());
        assert_eq!(organization("aaaaaaaa-2222-3333-4444-555555555555"), expected);
        assert_eq!(organization("AAAAAAAA-2222-3333-4444-555555555555"), expected);
        for none in ["", "contoso", "00000000-0000-0000-0000-000000000000", "aaaaaaaa222233334444555555555555"] {
            assert_eq!(organization(none), None, "{none}");
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "the record asked for it")]
    fn the_fault_point_panics_in_test_builds() {
        let _ = read(r#"{"TenantryFaultPoint":"panic"}"#);
    }
}
