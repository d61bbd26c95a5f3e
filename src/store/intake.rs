//! Takes in a body: everything that costs processor time before the writer sees it.
//!
//! The decoded bytes go in as they arrive; out come compressed [`Part`]s, which may go to the store at once, and at
//! the end the [`Body`] with all that the header, the index of ids and the index of duplicates need. A body that is
//! not a JSON array of records is [`Malformed`] and nothing of it may be kept, unless it is taken in as a
//! defective one, whose bytes are kept whatever they are.
//!
//! # Parts
//!
//! A part is one `zstd` frame of at most [`MAX_COMPRESSED`] bytes that holds at most [`MAX_RAW`] bytes of the body,
//! which is the parts' contents in a row. It ends with a record where one ends near the place; a record may run
//! over any number of parts. Text compresses six- to sevenfold at level 1, so parts are cut at half a megabyte and
//! smaller ones are tried when the result is too large; what does not compress at all still fits at [`ALWAYS_FITS`].
//!
//! **Invariant:** memory is bounded by [`MAX_RAW`], the record that is under way ([`MAX_RECORD`]), the ids (about 24
//! bytes a record, [`MAX_RECORDS`] and [`MAX_ID_BYTES`] at most) and the parts that the caller has not taken.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use jiff::Timestamp;
use uuid::Uuid;
use zstd::bulk::{Compressor, Decompressor};

use super::header::MAX_RECORDS;
use super::ids::{IdPacker, RecordId};
use super::records::{MAX_RECORD, Malformed, Record, Records};
use super::seen::{SeenHash, SeenKey};
use crate::content::TenantId;

/// The most bytes that a part takes, compressed: what sled stores without making a file of its own.
pub(crate) const MAX_COMPRESSED: usize = 96 << 10;
/// The most bytes of the body in a part.
pub(crate) const MAX_RAW: usize = 512 << 10;
/// Bytes that fit into a part even if they do not compress.
const ALWAYS_FITS: usize = 92 << 10;
/// Level 1 gives 6.8 times at 890 MB/s on audit records, level 3 less at 520 MB/s.
const LEVEL: i32 = 1;
/// Places where a record ends are noted at this distance.
const NOTE_ENDS: usize = 4 << 10;
/// Bytes are looked at in pieces of this size, so that a large push does not make the buffer large.
const PIECE: usize = 64 << 10;
/// The most bytes that a blob's packed ids may take.
const MAX_ID_BYTES: usize = 64 << 20;
/// Buffers and compressors are kept for the next body up to this number and size.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 1 << 20;

const _: () = assert!(ALWAYS_FITS + (ALWAYS_FITS >> 8) + (((128 << 10) - ALWAYS_FITS) >> 11) <= MAX_COMPRESSED);
const _: () = assert!(MAX_RECORD > MAX_RAW);

/// A piece of a body, compressed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Bytes of the body in it.
    pub raw_len: u32,
    /// The `zstd` frame.
    pub compressed: Vec<u8>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes in {})", self.raw_len, self.compressed.len())
    }
}

/// A complete body, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// Bytes.
    pub bytes: u64,
    /// Bytes of all parts.
    pub compressed: u64,
    /// Number of parts.
    pub parts: u32,
    /// Number of records.
    pub records: u32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// The packed [ids](super::ids) of the records.
    pub ids: Vec<u8>,
    /// Under what each record is looked up; `None` for one without an id.
    pub hashes: Vec<Option<SeenHash>>,
    /// The smallest `CreationTime`.
    pub created_min: Option<Timestamp>,
    /// The largest one.
    pub created_max: Option<Timestamp>,
    /// The indices of records whose `OrganizationId` is another tenant's.
    pub foreign: Vec<u32>,
    /// Why the bytes were not read as records, if they were not.
    pub defect: Option<String>,
}

/// What bodies are taken in with, used again and again: buffers and compressors. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tools(Arc<Mutex<ToolBox>>);

#[derive(Default)]
struct ToolBox {
    buffers: Vec<Vec<u8>>,
    compressors: Vec<Compress>,
}

/// A `zstd` context and the buffer that a part is compressed into.
struct Compress {
    compressor: Compressor<'static>,
    output: Vec<u8>,
}

impl Tools {
    fn take<T>(&self, from: impl FnOnce(&mut ToolBox) -> &mut Vec<T>) -> Option<T> {
        from(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)).pop()
    }

    fn put<T>(&self, tool: T, into: impl FnOnce(&mut ToolBox) -> &mut Vec<T>) {
        let mut tools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = into(&mut tools);
        if place.len() < KEPT {
            place.push(tool);
        }
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tools")
    }
}

impl Compress {
    fn new() -> Self {
        let compressor = Compressor::new(LEVEL).expect("`zstd` makes a context unless memory is exhausted");
        Self { compressor, output: Vec::with_capacity(MAX_COMPRESSED) }
    }

    /// `None` if the result would be too large.
    fn part(&mut self, raw: &[u8]) -> Option<Part> {
        self.output.clear();
        // The output has room for MAX_COMPRESSED bytes and does not grow: `zstd` stops when that is full.
        self.compressor.compress_to_buffer(raw, &mut self.output).ok().filter(|&size| size <= MAX_COMPRESSED)?;
        let raw_len = u32::try_from(raw.len()).expect("a part holds at most MAX_RAW bytes");
        Some(Part { raw_len, compressed: self.output.as_slice().to_vec() })
    }
}

/// One body on its way in.
pub(crate) struct Intake {
    tools: Tools,
    tenant: TenantId,
    key: SeenKey,
    defect: Option<String>,
    /// Holds the bytes that are in no part yet.
    raw: Records,
    sha256: digest::Context,
    /// Bytes of the body so far.
    bytes: u64,
    compressed: u64,
    parts: u32,
    /// Bytes of the body that the next part tries to hold.
    target: usize,
    /// Where records end among the bytes that are in no part yet, about every [`NOTE_ENDS`].
    ends: Vec<usize>,
    found: Found,
}

/// What was found in the records so far.
struct Found {
    records: u32,
    ids: IdPacker,
    hashes: Vec<Option<SeenHash>>,
    created: Option<(Timestamp, Timestamp)>,
    foreign: Vec<u32>,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, bytes, parts, .. } = self;
        write!(f, "Intake({tenant}, {} records, {bytes} bytes, {parts} parts)", self.found.records)
    }
}

impl Intake {
    /// Begins a body of this tenant. With a `defect`, the bytes are kept whatever they are, and this is why.
    pub(crate) fn new(tools: &Tools, key: SeenKey, tenant: TenantId, defect: Option<String>) -> Self {
        Self {
            raw: Records::new(tools.take(|tools| &mut tools.buffers).unwrap_or_default()),
            tools: tools.clone(),
            tenant,
            key,
            defect,
            sha256: digest::Context::new(&digest::SHA256),
            bytes: 0,
            compressed: 0,
            parts: 0,
            target: MAX_RAW,
            ends: Vec::new(),
            found: Found { records: 0, ids: IdPacker::new(), hashes: Vec::new(), created: None, foreign: Vec::new() },
        }
    }

    /// Takes the next bytes of the body, after Content-Encoding is undone; appends the parts that are ready.
    pub(crate) fn push(&mut self, decoded: &[u8], out: &mut Vec<Part>) -> Result<(), Malformed> {
        self.sha256.update(decoded);
        for piece in decoded.chunks(PIECE) {
            self.bytes += piece.len() as u64;
            self.raw.push(piece);
            if self.defect.is_some() {
                self.raw.skip();
            } else {
                self.read_records()?;
            }
            while self.raw.complete() > self.target {
                self.cut(out);
            }
        }
        Ok(())
    }

    /// Bytes of memory that the ids of the records take, which stay until the body is stored.
    pub(crate) fn id_bytes(&self) -> usize {
        self.found.ids.bytes() + self.found.hashes.len() * size_of::<Option<SeenHash>>()
    }

    /// The body is over: appends its last parts and says what it was.
    pub(crate) fn finish(mut self, out: &mut Vec<Part>) -> Result<Body, Malformed> {
        if self.defect.is_none() {
            self.raw.finish()?;
        }
        while !self.raw.bytes().is_empty() {
            self.cut(out);
        }
        let buffer = self.raw.into_buffer();
        if buffer.capacity() <= KEPT_BYTES {
            self.tools.put(buffer, |tools| &mut tools.buffers);
        }
        let Found { records, ids, hashes, created, foreign } = self.found;
        Ok(Body {
            bytes: self.bytes,
            compressed: self.compressed,
            parts: self.parts,
            records,
            sha256: self.sha256.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"),
            ids: ids.finish(),
            hashes,
            created_min: created.map(|(min, _)| min),
            created_max: created.map(|(_, max)| max),
            foreign,
            defect: self.defect,
        })
    }

    fn read_records(&mut self) -> Result<(), Malformed> {
        while let Some(record) = self.raw.next()? {
            let fits = self.found.add(&record, self.key, self.tenant);
            let end = self.raw.complete();
            if !fits {
                let at = self.bytes - (self.raw.bytes().len() - end) as u64;
                return Err(Malformed { at, what: "it holds more records than a blob can".into() });
            }
            if end >= self.ends.last().map_or(0, |last| last + NOTE_ENDS) {
                self.ends.push(end);
            }
        }
        Ok(())
    }

    /// Makes a part of the oldest bytes.
    fn cut(&mut self, out: &mut Vec<Part>) {
        let mut compress = self.tools.take(|tools| &mut tools.compressors).unwrap_or_else(Compress::new);
        let part = loop {
            let raw = &self.raw.bytes()[..self.cut_at(self.target)];
            if let Some(part) = compress.part(raw) {
                break part;
            }
            assert!(self.target > ALWAYS_FITS, "`zstd` fails at this size only if memory is exhausted");
            self.target = (self.target / 2).max(ALWAYS_FITS);
        };
        self.tools.put(compress, |tools| &mut tools.compressors);

        let raw_len = part.raw_len as usize;
        if part.compressed.len() < MAX_COMPRESSED / 3 && raw_len > self.target / 2 {
            self.target = (self.target * 2).min(MAX_RAW);
        }
        self.compressed += part.compressed.len() as u64;
        self.parts += 1;
        out.push(part);
        self.raw.release(raw_len);
        self.ends.retain_mut(|end| {
            let behind = *end > raw_len;
            *end = end.saturating_sub(raw_len);
            behind
        });
    }

    /// Where to cut: all that is there if it fits, else where the last record ends that fits, if that is near, else
    /// anywhere.
    fn cut_at(&self, limit: usize) -> usize {
        let all = self.raw.bytes().len();
        if all <= limit {
            return all;
        }
        let fitting = self.ends.partition_point(|&end| end <= limit);
        match self.ends[..fitting].last() {
            Some(&end) if end > limit - limit / 4 => end,
            _ => limit.min(self.raw.complete()),
        }
    }
}

impl Found {
    /// Adds the next record; false if the blob has too many.
    fn add(&mut self, record: &Record<'_>, key: SeenKey, tenant: TenantId) -> bool {
        if self.records == MAX_RECORDS || self.ids.len() > MAX_ID_BYTES {
            return false;
        }
        let id = record.fields.id().map(|id| RecordId::new(&id));
        self.ids.push(id.as_ref());
        self.hashes.push(id.map(|id| key.record(tenant, &id)));
        if let Some(time) = record.fields.created() {
            let (min, max) = self.created.get_or_insert((time, time));
            *min = time.min(*min);
            *max = time.max(*max);
        }
        if record.fields.organization().is_some_and(|organization: Uuid| organization != tenant.uuid()) {
            self.foreign.push(self.records);
        }
        self.records += 1;
        true
    }
}

/// Opens parts again, one after the other into the same memory.
pub(crate) struct Unpack {
    decompressor: Decompressor<'static>,
    raw: Vec<u8>,
}

impl Unpack {
    /// Ready for the first part.
    pub(crate) fn new() -> Self {
        let decompressor = Decompressor::new().expect("`zstd` makes a context unless memory is exhausted");
        Self { decompressor, raw: Vec::new() }
    }

    /// The bytes of the body that this `zstd` frame holds. An error if it is none, or holds more than a part may.
    pub(crate) fn part(&mut self, compressed: &[u8]) -> std::io::Result<&[u8]> {
        self.raw.clear();
        self.raw.reserve_exact(MAX_RAW);
        self.decompressor.decompress_to_buffer(compressed, &mut self.raw)?;
        Ok(&self.raw)
    }
}

impl fmt::Debug for Unpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpack")
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::store::ids::PackedIds;
    use crate::store::records::tests::array;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";

    fn intake(defect: Option<&str>) -> Intake {
        Intake::new(&Tools::default(), SeenKey::new([1; 16]), TENANT.parse().unwrap(), defect.map(str::to_owned))
    }

    fn take_in(body: &[u8], cut: usize, defect: Option<&str>) -> Result<(Body, Vec<Part>), Malformed> {
        let mut intake = intake(defect);
        let mut parts = Vec::new();
        for piece in body.chunks(cut) {
            intake.push(piece, &mut parts)?;
        }
        let body = intake.finish(&mut parts)?;
        Ok((body, parts))
    }

    fn unpack(parts: &[Part]) -> Vec<u8> {
        let mut unpack = Unpack::new();
        let mut body = Vec::new();
        for part in parts {
            assert!(part.compressed.len() <= MAX_COMPRESSED && part.raw_len as usize <= MAX_RAW, "{part:?}");
            let raw = unpack.part(&part.compressed).unwrap();
            assert_eq!(raw.len(), part.raw_len as usize);
            body.extend_from_slice(raw);
        }
        body
    }

    fn sha256(body: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, body).as_ref().to_vec()
    }

    /// Records of about `length` bytes that compress like audit records, or not at all.
    fn records(count: usize, length: usize, compressible: bool) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut body = String::from("[");
        for index in 0..count {
            let comma = if index == 0 { "" } else { "," };
            write!(body, "{comma}{{\"Id\":\"{}\",\"Text\":\"", uuid::Uuid::from_u128(random.u128(..))).unwrap();
            let end = body.len() + length;
            while body.len() < end {
                if compressible {
                    body.push_str("Operation FileAccessed ");
                } else {
                    body.push(random.char(' '..'\u{10ffff}'));
                }
                if body.ends_with(['"', '\\']) {
                    body.pop();
                }
            }
            body.push_str("\"}");
        }
        body.push(']');
        body.into_bytes()
    }

    #[test]
    fn a_body_is_summed_up() {
        let body = br#"[{"Id":"0123abcd-0000-4000-8000-00000000000a","CreationTime":"2026-11-22T10:00:00","OrganizationId":"11111111-2222-3333-4444-555555555555"},
            {"Id":"x","CreationTime":"2026-11-22T09:00:00","OrganizationId":"99999999-2222-3333-4444-555555555555"},
            {"CreationTime":"never","OrganizationId":""}]"#;
        let (sum, parts) = take_in(body, 7, None).unwrap();
        assert_eq!((sum.bytes, sum.records, sum.parts), (body.len() as u64, 3, 1));
        assert_eq!(sum.compressed, parts[0].compressed.len() as u64);
        assert_eq!(sum.sha256[..], sha256(body));
        assert_eq!(sum.created_min, Some("2026-11-22T09:00:00Z".parse().unwrap()));
        assert_eq!(sum.created_max, Some("2026-11-22T10:00:00Z".parse().unwrap()));
        assert_eq!(sum.foreign, [1]);
        let ids: Vec<_> = PackedIds::decode(&sum.ids).unwrap().iter().collect();
        assert_eq!(ids, [Some(RecordId::new("0123abcd-0000-4000-8000-00000000000a")), Some(RecordId::new("x")), None]);
        let key = SeenKey::new([1; 16]);
        let hashes: Vec<_> =
            ids.iter().map(|id| id.as_ref().map(|id| key.record(TENANT.parse().unwrap(), id))).collect();
        assert_eq!(sum.hashes, hashes);
        assert_eq!(unpack(&parts), body);
    }

    #[test]
    fn an_empty_array_is_a_body() {
        let (sum, parts) = take_in(b"[]", 1, None).unwrap();
        assert_eq!((sum.records, sum.created_min, parts.len()), (0, None, 1));
    }

    #[test]
    fn what_is_no_array_is_refused_but_kept_as_a_defect() {
        for body in [&b"null"[..], b"[{}", b"", b"<html>", b"[{\"a\":1}]]", &vec![0xff; 200_000]] {
            assert!(take_in(body, 9000, None).is_err());
            let (sum, parts) = take_in(body, 9000, Some("given up")).unwrap();
            assert_eq!((sum.records, sum.defect.as_deref()), (0, Some("given up")));
            assert_eq!(sum.sha256[..], sha256(body));
            assert_eq!(unpack(&parts), body);
            assert_eq!(sum.parts as usize, parts.len());
        }
    }

    #[test]
    fn large_bodies_are_cut_where_records_end() {
        let body = records(4000, 1000, true);
        let (sum, parts) = take_in(&body, 100_000, None).unwrap();
        assert_eq!(sum.records, 4000);
        assert_eq!(unpack(&parts), body);
        assert!((7..=10).contains(&parts.len()), "{parts:?}");
        let mut at = 0;
        for part in &parts[..parts.len() - 1] {
            at += part.raw_len as usize;
            assert_eq!(&body[at - 1..=at], b"},", "cut inside a record");
        }
    }

    #[test]
    fn what_does_not_compress_fits_in_more_parts() {
        for (count, length) in [(600, 2000), (1, 3_000_000), (20, 60_000)] {
            let body = records(count, length, false);
            let (sum, parts) = take_in(&body, 10_000, None).unwrap();
            assert_eq!(unpack(&parts), body);
            assert_eq!(sum.parts as usize, parts.len());
            assert!(parts.len() <= body.len() / (ALWAYS_FITS / 2) + 1, "{parts:?}");
        }
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_500_000).collect();
        assert_eq!(unpack(&take_in(&noise, 70_000, Some("noise")).unwrap().1), noise);
    }

    #[test]
    fn memory_stays_with_what_is_in_no_part() {
        let mut intake = intake(None);
        let mut parts = Vec::new();
        let body = records(3000, 1000, true);
        for piece in body.chunks(20_000) {
            intake.push(piece, &mut parts).unwrap();
            assert!(intake.raw.bytes().len() <= MAX_RAW + PIECE + 2000);
        }
        // However much is pushed at once.
        let mut intake = self::intake(None);
        intake.push(&body, &mut parts).unwrap();
        assert!(intake.raw.bytes().len() <= MAX_RAW + PIECE + 2000);
        intake.finish(&mut parts).unwrap();
    }

    #[test]
    fn too_many_records_are_refused() {
        let mut intake = intake(None);
        let mut parts = Vec::new();
        intake.found.records = MAX_RECORDS - 1;
        intake.push(b"[{},", &mut parts).unwrap();
        assert_eq!(intake.push(b"{}", &mut parts).unwrap_err().at, 6);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn tools_survive_a_body_that_panics() {
        let tools = Tools::default();
        let tenant = TENANT.parse().unwrap();
        let mut parts = Vec::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut intake = Intake::new(&tools, SeenKey::new([1; 16]), tenant, None);
            intake.push(br#"[{"TenantryFaultPoint":"panic"}]"#, &mut parts)
        }));
        assert!(panicked.is_err());
        let mut intake = Intake::new(&tools, SeenKey::new([1; 16]), tenant, None);
        intake.push(b"[{}]", &mut parts).unwrap();
        assert_eq!(intake.finish(&mut parts).unwrap().records, 1);
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_pieces(body in array(), cut in 1_usize..80) {
            let whole = take_in(&body, body.len(), None).unwrap();
            let pieces = take_in(&body, cut, None).unwrap();
            prop_assert_eq!(unpack(&whole.1), body);
            prop_assert_eq!(whole, pieces);
        }
    }
}
