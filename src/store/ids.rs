//! The ids of a blob's records, packed.
//!
//! A record's `Id` names it across blobs: the service repeats records, and two records of a tenant with the same
//! `Id` are copies of each other. Ids are compared exactly as they are written, upper and lower case apart. Nearly
//! all are GUIDs in lower case, which take sixteen bytes.
//!
//! # Format
//!
//! One byte says the kind, then the ids stand in the order of the records.
//! - `1`: all are GUIDs in canonical lower case, 16 bytes each.
//! - `2`: each has a tag. `0`: the record has no id. `1`: a GUID, 16 bytes. `2`: a text, one byte of length, then
//!   UTF-8. `3`: a text longer than [`LONGEST_TEXT`], its SHA-256, 32 bytes.

use aws_lc_rs::digest;

const ALL_GUIDS: u8 = 1;
const TAGGED: u8 = 2;

const NONE: u8 = 0;
const GUID: u8 = 1;
const TEXT: u8 = 2;
const DIGEST: u8 = 3;

/// The longest id that is kept as a text, in bytes; a longer one is known by its digest, so that ids cannot fill
/// the memory.
const LONGEST_TEXT: usize = 64;

/// A record's name, comparable and small.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RecordId {
    /// Written as a canonical GUID in lower case.
    Guid([u8; 16]),
    /// Written otherwise.
    Text(Box<str>),
    /// SHA-256 of a long text.
    Digest([u8; 32]),
}

impl RecordId {
    /// The name that is written `text`.
    pub(crate) fn new(text: &str) -> Self {
        if let Some(guid) = canonical_guid(text.as_bytes()) {
            Self::Guid(guid)
        } else if text.len() <= LONGEST_TEXT {
            Self::Text(text.into())
        } else {
            let digest = digest::digest(&digest::SHA256, text.as_bytes());
            Self::Digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
        }
    }

    /// Its tag and its bytes: together they are equal only for equal ids.
    pub(crate) fn tagged(&self) -> (u8, &[u8]) {
        match self {
            Self::Guid(guid) => (GUID, guid),
            Self::Text(text) => (TEXT, text.as_bytes()),
            Self::Digest(digest) => (DIGEST, digest),
        }
    }
}

/// The sixteen bytes of a GUID written as `12345678-90ab-cdef-1234-567890abcdef`, and in no other way.
fn canonical_guid(text: &[u8]) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let text: &[u8; 36] = text.try_into().ok()?;
    if HYPHENS.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut guid = [0; 16];
    let mut at = 0;
    let mut bad = 0;
    for byte in &mut guid {
        if HYPHENS.contains(&at) {
            at += 1;
        }
        let (high, low) = (NIBBLES[usize::from(text[at])], NIBBLES[usize::from(text[at + 1])]);
        bad |= high | low;
        *byte = high << 4 | low;
        at += 2;
    }
    (bad & 0xf0 == 0).then_some(guid)
}

/// What a digit is worth; above 15 if it is none.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

/// Packs the ids of a blob as its records are found.
#[derive(Debug)]
pub(crate) struct IdPacker(Vec<u8>);

impl IdPacker {
    /// A blob without records so far.
    pub(crate) fn new() -> Self {
        Self(vec![ALL_GUIDS])
    }

    /// How many bytes it takes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The next record's id, if it has one.
    pub(crate) fn push(&mut self, id: Option<&RecordId>) {
        let packed = &mut self.0;
        if packed[0] == ALL_GUIDS {
            if let Some(RecordId::Guid(guid)) = id {
                packed.extend_from_slice(guid);
                return;
            }
            let guids = std::mem::replace(packed, vec![TAGGED]);
            for guid in guids[1..].chunks_exact(16) {
                packed.push(GUID);
                packed.extend_from_slice(guid);
            }
        }
        match id.map(RecordId::tagged) {
            None => packed.push(NONE),
            Some((tag, bytes)) => {
                packed.push(tag);
                if tag == TEXT {
                    packed.push(u8::try_from(bytes.len()).expect("a text has at most LONGEST_TEXT bytes"));
                }
                packed.extend_from_slice(bytes);
            }
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The packed ids.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.shrink_to_fit();
        self.0
    }
}

/// Bytes that are no packed ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packed record ids are damaged (byte {0})")]
pub(crate) struct DamagedIds(pub usize);

/// The packed ids of a blob, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedIds<'a> {
    kind: u8,
    ids: &'a [u8],
}

impl<'a> PackedIds<'a> {
    /// Reads stored bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DamagedIds> {
        let Some((&kind, ids)) = bytes.split_first() else { return Err(DamagedIds(0)) };
        let mut rest = ids;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            (_, rest) = split_id(kind, rest).ok_or(DamagedIds(at))?;
        }
        if kind != ALL_GUIDS && kind != TAGGED {
            return Err(DamagedIds(0));
        }
        Ok(Self { kind, ids })
    }

    /// The ids in the order of the records, `None` for a record without.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<RecordId>> + use<'a> {
        self.raw().map(|(tag, bytes)| match tag {
            GUID => bytes.try_into().ok().map(RecordId::Guid),
            TEXT => std::str::from_utf8(bytes).ok().map(|text| RecordId::Text(text.into())),
            DIGEST => bytes.try_into().ok().map(RecordId::Digest),
            _ => None,
        })
    }

    fn raw(&self) -> impl Iterator<Item = Tagged<'a>> + use<'a> {
        let Self { kind, ids: mut rest } = *self;
        std::iter::from_fn(move || {
            let (id, behind) = split_id(kind, rest)?;
            rest = behind;
            Some(id)
        })
    }
}

/// A tag and the bytes that belong to it.
type Tagged<'a> = (u8, &'a [u8]);

/// The first id and what follows it.
fn split_id(kind: u8, bytes: &[u8]) -> Option<(Tagged<'_>, &[u8])> {
    let (tag, rest) =
        if kind == ALL_GUIDS { (GUID, bytes) } else { bytes.split_first().map(|(&tag, rest)| (tag, rest))? };
    let (length, rest) = match tag {
        NONE => (0, rest),
        GUID => (16, rest),
        TEXT => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        DIGEST => (32, rest),
        _ => return None,
    };
    let (id, rest) = rest.split_at_checked(length)?;
    (tag != TEXT || std::str::from_utf8(id).is_ok()).then_some(((tag, id), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(ids: &[Option<&str>]) -> Vec<u8> {
        let mut packer = IdPacker::new();
        for id in ids {
            packer.push(id.map(RecordId::new).as_ref());
        }
        packer.finish()
    }

    const A: &str = "0123abcd-0000-4000-8000-00000000000a";
    const B: &str = "0123abcd-0000-4000-8000-00000000000b";

    #[test]
    fn guids_take_sixteen_bytes() {
        let packed = pack(&[Some(A), Some(B)]);
        assert_eq!(packed.len(), 1 + 2 * 16);
        assert_eq!(packed[1..17], *uuid::Uuid::try_parse(A).unwrap().as_bytes());
        let ids = PackedIds::decode(&packed).unwrap();
        assert!(ids.iter().eq([Some(RecordId::new(A)), Some(RecordId::new(B))]));
    }

    #[test]
    fn an_id_is_what_is_written() {
        let upper = A.to_uppercase();
        for other in [
            upper.as_str(),
            &A.replace('-', ""),
            &format!("{{{A}}}"),
            &A.replace('a', "g"),
            &A.replacen('-', "0", 1),
            "",
        ] {
            assert!(matches!(RecordId::new(other), RecordId::Text(_)), "{other}");
            let packed = pack(&[Some(A), None, Some(other), Some(other)]);
            let ids = PackedIds::decode(&packed).unwrap();
            let expected = [Some(RecordId::new(A)), None, Some(RecordId::new(other)), Some(RecordId::new(other))];
            assert!(ids.iter().eq(expected));
            assert_ne!(RecordId::new(other), RecordId::new(A));
        }
    }

    #[test]
    fn a_long_id_is_known_by_its_digest() {
        let (long, longer) = ("x".repeat(LONGEST_TEXT + 1), "x".repeat(1 << 20));
        let packed = pack(&[Some(&long), Some(&longer)]);
        assert_eq!(packed.len(), 1 + 2 * 33);
        assert_eq!(PackedIds::decode(&packed).unwrap().iter().nth(1), Some(Some(RecordId::new(&longer))));
        assert_ne!(RecordId::new(&longer), RecordId::new(&long));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(PackedIds::decode(&[]).is_err());
        assert!(PackedIds::decode(&[9]).is_err());
        assert_eq!(PackedIds::decode(&pack(&[])).unwrap().iter().count(), 0);
        for ids in [&[Some(A)][..], &[Some(A), Some("text")], &[Some("x")]] {
            let packed = pack(ids);
            assert!(PackedIds::decode(&packed[..packed.len() - 1]).is_err());
        }
        assert!(PackedIds::decode(&[TAGGED, TEXT, 1, 0xff]).is_err());
        assert!(PackedIds::decode(&[TAGGED, 7]).is_err());
    }

    proptest! {
        #[test]
        fn ids_come_back(ids in prop::collection::vec(prop::option::of(prop_oneof![
            any::<u128>().prop_map(|id| uuid::Uuid::from_u128(id).to_string()),
            any::<u128>().prop_map(|id| uuid::Uuid::from_u128(id).to_string().to_uppercase()),
            any::<String>(),
            "[0-9a-f-]{36}",
        ]), 0..40)) {
            let ids: Vec<_> = ids.iter().map(Option::as_deref).collect();
            let packed = pack(&ids);
            let packed = PackedIds::decode(&packed).unwrap();
            let expected: Vec<_> = ids.iter().map(|id| id.map(RecordId::new)).collect();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn guids_are_those_of_the_uuid_crate(text in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-fA-F]{12}") {
            let canonical = uuid::Uuid::try_parse(&text).unwrap();
            prop_assert_eq!(
                canonical_guid(text.as_bytes()),
                (canonical.to_string() == text).then_some(canonical.into_bytes())
            );
        }

        #[test]
        fn any_bytes_give_ids_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(ids) = PackedIds::decode(&bytes) {
                ids.iter().for_each(drop);
            }
        }
    }
}
