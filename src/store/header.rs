//! What the store keeps beside a blob's body: its header.
//!
//! A blob exists once its header is written, which happens last and in the batch that makes it visible. The header
//! says what the service called the blob, when and where it was fetched, what stands in it (bytes, records, digest)
//! and how it hangs in its tenant's [chain](super::chain).
//!
//! # Format
//!
//! One byte of format version, then the version's fields in `postcard`'s encoding. Times are whole seconds since
//! 1970 and nanoseconds, exact and about six bytes each; index lists are runs, so that a blob that is nothing but
//! copies costs no more than one that has none. Version 2 names of every copy the blobs that had the record before;
//! version 1 named one partition, and was never released. A new version gets a new `WireV…` and an arm in
//! [`BlobHeader::decode`]; an old one is never changed.
//!
//! **Invariant:** decoding is total: whatever the bytes are, it answers with a header or an error, and it never
//! allocates more than the number of records calls for.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fetched;
use crate::content::{ContentId, ContentType, Tier, WHOLE_AFTER};

/// The format that is written.
const VERSION: u8 = 2;

/// The most records that a header may speak of; above it the bytes are taken for damage.
pub(crate) const MAX_RECORDS: u32 = 1 << 21;

/// A stored blob, without its body. The tenant stands in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobHeader {
    /// What it holds.
    pub content_type: ContentType,
    /// Its number among the tenant's blobs of this content type.
    pub seq: u64,
    /// Its number in the partition.
    pub blob_no: u32,
    /// The service's name for it.
    pub content_id: ContentId,
    /// Where the service said it is.
    pub content_uri: String,
    /// When it became available.
    pub content_created: Timestamp,
    /// When the service deletes it.
    pub content_expiration: Timestamp,
    /// When and from where it was fetched.
    pub fetched: Fetched,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Bytes of the body.
    pub bytes: u64,
    /// Bytes that the body's parts take, compressed.
    pub compressed: u64,
    /// Number of parts.
    pub parts: u32,
    /// Number of records.
    pub records: u32,
    /// SHA-256 of the body.
    pub sha256: [u8; 32],
    /// The smallest `CreationTime` of the records, if any has one that can be read.
    pub created_min: Option<Timestamp>,
    /// The largest one.
    pub created_max: Option<Timestamp>,
    /// The link of the tenant's blob before this one.
    pub previous: [u8; 32],
    /// This blob's link.
    pub link: [u8; 32],
    /// 0 for the body that was stored first, then counted up when the service is found to serve another one.
    pub revision: u16,
    /// The records that are copies, by ascending index.
    pub duplicates: Vec<Duplicate>,
    /// The indices of the records whose `OrganizationId` is another tenant's, ascending.
    pub foreign: Vec<u32>,
    /// Why the body was kept without being read as records, if it was.
    pub defect: Option<String>,
}

/// A record that is a copy of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The index of the record in its blob.
    pub record: u32,
    /// The tenant's blobs that had it before, in the order in which they were stored; many records share one list. The
    /// copy is left out while one of them comes itself.
    pub earlier: Arc<[Place]>,
}

/// A blob of the tenant, as long as the store lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The ordinal of the partition in which it stands.
    pub partition: u32,
    /// What it holds.
    pub content_type: ContentType,
    /// Its number.
    pub seq: u64,
}

/// Bytes that are not a header that can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Written by another version of Tenantry.
    #[error(
        "the blob header has format `{0}`, this version of tenantry reads format `{VERSION}`: run the version that wrote the store, or a newer one"
    )]
    UnknownVersion(u8),
    /// Not an encoded header.
    #[error("the blob header is damaged")]
    Damaged(#[source] postcard::Error),
    /// An encoded header whose fields contradict each other.
    #[error("the blob header is damaged: {0}")]
    Inconsistent(&'static str),
    /// A value that the format cannot hold.
    #[error("the blob header cannot be encoded")]
    Encode(#[source] postcard::Error),
}

impl BlobHeader {
    /// Whether it was fetched so early that it may be a part of the blob.
    pub(crate) fn is_young(&self) -> bool {
        let whole_at = self.content_created.checked_add(WHOLE_AFTER).unwrap_or(Timestamp::MAX);
        self.fetched.at < whole_at
    }

    /// The bytes to store.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        if !self.duplicates.is_sorted_by(|a, b| a.record < b.record) || !self.foreign.is_sorted_by(|a, b| a < b) {
            return Err(HeaderError::Inconsistent("its marks are not in order"));
        }
        let wire = WireV2 {
            content_type: self.content_type.code(),
            seq: self.seq,
            blob_no: self.blob_no,
            content_id: self.content_id.as_str(),
            content_uri: &self.content_uri,
            content_created: self.content_created.into(),
            content_expiration: self.content_expiration.into(),
            fetched_at: self.fetched.at.into(),
            fetched_from: (self.fetched.from != self.content_uri).then_some(self.fetched.from.as_str()),
            tier: self.fetched.tier as u8,
            stored_at: self.stored_at.into(),
            bytes: self.bytes,
            compressed: self.compressed,
            parts: self.parts,
            records: self.records,
            sha256: self.sha256,
            created_min: self.created_min.map(Into::into),
            created_max: self.created_max.map(Into::into),
            previous: self.previous,
            link: self.link,
            revision: self.revision,
            duplicates: duplicate_runs(&self.duplicates),
            foreign: foreign_runs(&self.foreign),
            defect: self.defect.as_deref(),
        };
        let mut bytes = Vec::with_capacity(512);
        bytes.push(VERSION);
        postcard::to_extend(&wire, bytes).map_err(HeaderError::Encode)
    }

    /// Reads stored bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some((&version, body)) = bytes.split_first() else {
            return Err(HeaderError::Inconsistent("it is empty"));
        };
        if version != VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        let (wire, rest) = postcard::take_from_bytes::<WireV2<'_>>(body).map_err(HeaderError::Damaged)?;
        if !rest.is_empty() {
            return Err(HeaderError::Inconsistent("bytes follow it"));
        }
        wire.header()
    }
}

/// A time: whole seconds since 1970 and nanoseconds, both of the same sign.
#[derive(Serialize, Deserialize)]
struct Stamp(i64, i32);

impl From<Timestamp> for Stamp {
    fn from(time: Timestamp) -> Self {
        Self(time.as_second(), time.subsec_nanosecond())
    }
}

impl Stamp {
    fn time(self) -> Result<Timestamp, HeaderError> {
        Timestamp::new(self.0, self.1).map_err(|_| HeaderError::Inconsistent("a time is out of range"))
    }
}

/// `(records that are not copies, copies after them, the places of all their originals)`.
type DuplicateRun = (u32, u32, Vec<PlaceWire>);
/// `(partition, content type, number)`.
type PlaceWire = (u32, u8, u64);
/// `(records of the tenant, records of others after them)`.
type ForeignRun = (u32, u32);

#[derive(Serialize, Deserialize)]
struct WireV2<'a> {
    content_type: u8,
    seq: u64,
    blob_no: u32,
    content_id: &'a str,
    content_uri: &'a str,
    content_created: Stamp,
    content_expiration: Stamp,
    fetched_at: Stamp,
    /// `None`: the content URI.
    fetched_from: Option<&'a str>,
    tier: u8,
    stored_at: Stamp,
    bytes: u64,
    compressed: u64,
    parts: u32,
    records: u32,
    sha256: [u8; 32],
    created_min: Option<Stamp>,
    created_max: Option<Stamp>,
    previous: [u8; 32],
    link: [u8; 32],
    revision: u16,
    duplicates: Vec<DuplicateRun>,
    foreign: Vec<ForeignRun>,
    defect: Option<&'a str>,
}

impl WireV2<'_> {
    fn header(self) -> Result<BlobHeader, HeaderError> {
        if self.records > MAX_RECORDS {
            return Err(HeaderError::Inconsistent("it counts more records than a blob can hold"));
        }
        let mut duplicates = Vec::new();
        let mut runs = Vec::with_capacity(self.duplicates.len());
        for (gap, length, earlier) in self.duplicates {
            let earlier: Option<Arc<[Place]>> = earlier.into_iter().map(place).collect();
            runs.push(((gap, length), earlier.ok_or(HeaderError::Inconsistent("a copy's content type is unknown"))?));
        }
        for_each_index(runs.into_iter(), self.records, |record, earlier| {
            duplicates.push(Duplicate { record, earlier });
        })?;
        let mut foreign = Vec::new();
        for_each_index(self.foreign.into_iter().map(|run| (run, ())), self.records, |record, ()| foreign.push(record))?;
        Ok(BlobHeader {
            content_type: ContentType::from_code(self.content_type)
                .ok_or(HeaderError::Inconsistent("its content type is unknown"))?,
            seq: self.seq,
            blob_no: self.blob_no,
            content_id: self.content_id.into(),
            content_uri: self.content_uri.to_owned(),
            content_created: self.content_created.time()?,
            content_expiration: self.content_expiration.time()?,
            fetched: Fetched {
                at: self.fetched_at.time()?,
                from: self.fetched_from.unwrap_or(self.content_uri).to_owned(),
                tier: tier(self.tier)?,
            },
            stored_at: self.stored_at.time()?,
            bytes: self.bytes,
            compressed: self.compressed,
            parts: self.parts,
            records: self.records,
            sha256: self.sha256,
            created_min: self.created_min.map(Stamp::time).transpose()?,
            created_max: self.created_max.map(Stamp::time).transpose()?,
            previous: self.previous,
            link: self.link,
            revision: self.revision,
            duplicates,
            foreign,
            defect: self.defect.map(str::to_owned),
        })
    }
}

fn tier(code: u8) -> Result<Tier, HeaderError> {
    Tier::from_code(code).ok_or(HeaderError::Inconsistent("its tier is unknown"))
}

fn place((partition, content_type, seq): PlaceWire) -> Option<Place> {
    Some(Place { partition, content_type: ContentType::from_code(content_type)?, seq })
}

fn duplicate_runs(duplicates: &[Duplicate]) -> Vec<DuplicateRun> {
    let mut runs = Vec::new();
    let mut next = 0;
    for chunk in duplicates.chunk_by(|a, b| a.record + 1 == b.record && a.earlier == b.earlier) {
        let (first, length) = (&chunk[0], length_of(chunk));
        let earlier = first.earlier.iter().map(|place| (place.partition, place.content_type.code(), place.seq));
        runs.push((first.record - next, length, earlier.collect()));
        next = first.record + length;
    }
    runs
}

fn foreign_runs(foreign: &[u32]) -> Vec<ForeignRun> {
    let mut runs = Vec::new();
    let mut next = 0;
    for chunk in foreign.chunk_by(|a, b| a + 1 == *b) {
        let length = length_of(chunk);
        runs.push((chunk[0] - next, length));
        next = chunk[0] + length;
    }
    runs
}

fn length_of<T>(chunk: &[T]) -> u32 {
    u32::try_from(chunk.len()).expect("record indices are u32 and ascend, so there are no more of them than that")
}

/// Walks the indices that the runs stand for; every one must be below `records`.
fn for_each_index<T: Clone>(
    runs: impl Iterator<Item = ((u32, u32), T)>,
    records: u32,
    mut each: impl FnMut(u32, T),
) -> Result<(), HeaderError> {
    const BEYOND: HeaderError = HeaderError::Inconsistent("it marks a record that the blob does not hold");
    let mut next = 0_u32;
    for ((gap, length), value) in runs {
        let first = next.checked_add(gap).ok_or(BEYOND)?;
        next = first.checked_add(length).filter(|&end| length > 0 && end <= records).ok_or(BEYOND)?;
        (first..next).for_each(|record| each(record, value.clone()));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A copy of what stands in the first Exchange blob of this partition and in a later one.
    pub(crate) fn copy(record: u32, partition: u32) -> Duplicate {
        let place = |partition, content_type, seq| Place { partition, content_type, seq };
        let places = [place(partition, ContentType::Exchange, 1), place(partition + 1, ContentType::Dlp, 1 << 40)];
        Duplicate { record, earlier: places.into() }
    }

    /// A header with something in every field.
    pub(crate) fn example() -> BlobHeader {
        let uri = "https://manage.office.com/api/v1.0/11111111-2222-3333-4444-555555555555/activity/feed/audit/20261122100000$a$b";
        BlobHeader {
            content_type: ContentType::SharePoint,
            seq: 41,
            blob_no: 7,
            content_id: "20261122100000$a$b".into(),
            content_uri: uri.to_owned(),
            content_created: "2026-11-22T10:00:00.123Z".parse().unwrap(),
            content_expiration: "2026-11-29T10:00:00.123Z".parse().unwrap(),
            fetched: Fetched { at: "2026-11-22T10:01:00Z".parse().unwrap(), from: uri.to_owned(), tier: Tier::Recent },
            stored_at: "2026-11-22T10:01:01.5Z".parse().unwrap(),
            bytes: 124_000,
            compressed: 18_000,
            parts: 1,
            records: 100,
            sha256: [1; 32],
            created_min: Some("2026-11-22T09:00:00Z".parse().unwrap()),
            created_max: Some("0001-01-01T00:00:00.0000001Z".parse().unwrap()),
            previous: [2; 32],
            link: [3; 32],
            revision: 1,
            duplicates: vec![copy(0, 9), copy(99, 10)],
            foreign: vec![3, 4, 5],
            defect: Some("unexpected end".to_owned()),
        }
    }

    #[test]
    fn every_field_comes_back() {
        let mut header = example();
        assert_eq!(BlobHeader::decode(&header.encode().unwrap()).unwrap(), header);
        header.fetched.from = "https://manage.office.com/elsewhere".to_owned();
        header.created_min = None;
        header.defect = None;
        header.duplicates.clear();
        assert_eq!(BlobHeader::decode(&header.encode().unwrap()).unwrap(), header);
    }

    #[test]
    fn another_format_is_named_with_the_remedy() {
        let mut bytes = example().encode().unwrap();
        bytes[0] = 9;
        let error = BlobHeader::decode(&bytes).unwrap_err();
        assert!(matches!(error, HeaderError::UnknownVersion(9)));
        assert_eq!(
            error.to_string(),
            "the blob header has format `9`, this version of tenantry reads format `2`: run the version that wrote the store, or a newer one"
        );
        assert!(BlobHeader::decode(&[]).is_err());
    }

    #[test]
    fn a_blob_of_copies_costs_as_little_as_one_without() {
        let none = BlobHeader { duplicates: vec![], foreign: vec![], records: 300_000, ..example() };
        let all = BlobHeader {
            duplicates: (0..none.records).map(|record| copy(record, 5)).collect(),
            foreign: (0..none.records).collect(),
            ..none.clone()
        };
        let (none, encoded) = (none.encode().unwrap(), all.encode().unwrap());
        assert!(encoded.len() <= none.len() + 32, "{} and {}", encoded.len(), none.len());
        assert_eq!(BlobHeader::decode(&encoded).unwrap(), all);
        assert!(none.len() < 450, "{}", none.len());
    }

    #[test]
    fn truncated_or_extended_bytes_are_errors() {
        let bytes = example().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(BlobHeader::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(BlobHeader::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn marks_beyond_the_records_are_damage_and_allocate_nothing() {
        let beyond = BlobHeader { records: 99, ..example() };
        assert!(matches!(BlobHeader::decode(&beyond.encode().unwrap()), Err(HeaderError::Inconsistent(_))));
        let flood = BlobHeader { records: u32::MAX, foreign: vec![], duplicates: vec![], ..example() };
        assert!(matches!(BlobHeader::decode(&flood.encode().unwrap()), Err(HeaderError::Inconsistent(_))));
    }

    proptest! {
        #[test]
        fn marks_come_back(
            marks in prop::collection::btree_map(0_u32..500, 0_u32..3, 0..200),
            foreign in prop::collection::btree_set(0_u32..500, 0..200),
        ) {
            let header = BlobHeader {
                records: 500,
                duplicates: marks.into_iter().map(|(record, partition)| copy(record, partition)).collect(),
                foreign: foreign.into_iter().collect(),
                ..example()
            };
            prop_assert_eq!(BlobHeader::decode(&header.encode().unwrap()).unwrap(), header);
        }

        #[test]
        fn any_bytes_give_a_header_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..400) {
            let _ = BlobHeader::decode(&bytes);
            let mut real = example().encode().unwrap();
            let at = at % real.len();
            real[at] = bytes.pop().unwrap_or_default();
            let _ = BlobHeader::decode(&real);
        }
    }
}
