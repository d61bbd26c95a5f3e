//! Reading what is stored, while the writer goes on.
//!
//! Bodies stream part by part: memory holds one part, the record under way and a page of headers, whatever the size of
//! the store. Partitions and blobs whose times cannot match are passed over, sealed partitions without being opened.
//!
//! **Invariants:** nothing is read before it is durable, so that no cursor can stand on what a power cut would take;
//! of every record exactly one copy comes unless all are asked for: a copy is left out while one of the blobs that had
//! the record before is asked for by its content type, is there, and can be read.
//!
//! What cannot be read is passed over and listed in [`Read`]: the caller says so and ends with an error.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::StoreError;
use super::header::{BlobHeader, Duplicate, Place};
use super::holdings::Holdings;
use super::intake::Unpack;
use super::keys;
use super::partition::{Span, Sums};
use super::partitions::{Partition, Reading};
use super::records::fields::Fields;
use super::records::reader::{ReadError, RecordReader};
use super::{Heads, Query, Record, TimeBasis};
use crate::content::{ContentType, TenantId};
use crate::event;

/// How many headers are read at a time.
const PAGE: usize = 64;
/// How many blobs that cannot be read are listed; the others are only counted.
const LISTED: usize = 100;
/// Of so many blobs it is noted whether they can be read.
const NOTED: usize = 10_000;

/// What came of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Records handed out.
    pub records: u64,
    /// Whether the receiver of the records ended it.
    pub ended: bool,
    /// Partitions that are damaged and were passed over, and why.
    pub unreadable: Vec<(String, String)>,
    /// How many blobs could not be read to their end.
    pub damaged_blobs: u64,
    /// The first of them.
    pub damaged: Vec<Damaged>,
}

impl Read {
    fn is_damaged(&mut self, blob: Damaged) {
        self.damaged_blobs += 1;
        if self.damaged.len() < LISTED {
            self.damaged.push(blob);
        }
    }

    /// An error if anything was passed over.
    pub(crate) fn complete(&self) -> Result<(), StoreError> {
        let first = match (self.unreadable.first(), self.damaged.first()) {
            (Some((partition, why)), _) => format!("the partition `{partition}`: {why}"),
            (None, Some(blob)) => {
                format!("blob {} of {} of tenant `{}`: {}", blob.seq, blob.content_type, blob.tenant, blob.why)
            }
            (None, None) => return Ok(()),
        };
        Err(StoreError::Incomplete { partitions: self.unreadable.len(), blobs: self.damaged_blobs, first })
    }
}

/// A blob that could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub content_type: ContentType,
    /// Its number.
    pub seq: u64,
    /// What is wrong.
    pub why: String,
}

impl Query {
    /// Whether a partition with these sums can hold what is asked for.
    fn meets_partition(&self, sums: &Sums) -> bool {
        self.meets(match self.by {
            TimeBasis::Created => sums.created,
            TimeBasis::Available => sums.available,
            TimeBasis::Stored => sums.stored,
        })
    }

    fn meets_blob(&self, header: &BlobHeader) -> bool {
        self.meets(match self.by {
            TimeBasis::Created => Span::new(header.created_min, header.created_max),
            TimeBasis::Available => Span::at(header.content_created),
            TimeBasis::Stored => Span::at(header.stored_at),
        })
    }

    fn meets(&self, span: Span) -> bool {
        (self.since.is_none() && self.until.is_none()) || span.meets(self.since, self.until)
    }

    /// Whether a moment is between its times.
    pub(super) fn meets_time(&self, at: Timestamp) -> bool {
        self.meets(Span::at(at))
    }

    /// Whether each record's own time must be looked at: the blob's are not all in the range.
    fn splits(&self, header: &BlobHeader) -> bool {
        let inside = |time: Option<Timestamp>| time.is_some_and(|time| self.meets(Span::at(time)));
        self.by == TimeBasis::Created
            && (self.since.is_some() || self.until.is_some())
            // Records without a time do not count in the blob's, and do not match either: all must be looked at.
            && !(inside(header.created_min) && inside(header.created_max) && header.records == 1)
    }

    fn content_types(&self) -> Vec<ContentType> {
        if self.content_types.is_empty() { ContentType::ALL.to_vec() } else { self.content_types.clone() }
    }
}

/// Hands out every record that the query asks for: oldest partition first, then by tenant, content type and number.
pub(crate) fn for_each_record(
    holdings: &Holdings,
    query: &Query,
    mut each: impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<Read, StoreError> {
    let mut read = Read::default();
    let mut list = holdings.partitions.list();
    // Nobody begins to read what retention is about to remove.
    list.retain(|partition| !partition.is_ending());
    let mut originals = Originals::new(holdings, &list, query);
    for partition in &list {
        if partition.sealed().is_some_and(|sums| !query.meets_partition(&sums)) {
            continue;
        }
        let done = holdings
            .partitions
            .read(partition)
            .and_then(|reading| read_partition(holdings, &reading, query, &mut originals, &mut read, &mut each));
        match done {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => {
                read.ended = true;
                break;
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Undecodable { .. })) => {
                partition.complain(&error);
                originals.readable.remove(&partition.ordinal);
                read.unreadable.push((partition.name.to_string(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Hands out the header of every blob that the query asks for, oldest partition first.
pub(crate) fn for_each_header(
    holdings: &Holdings,
    query: &Query,
    read: &mut Read,
    mut each: impl FnMut(TenantId, &BlobHeader),
) -> Result<(), StoreError> {
    for partition in holdings.partitions.list() {
        if partition.is_ending() || partition.sealed().is_some_and(|sums| !query.meets_partition(&sums)) {
            continue;
        }
        let done = holdings
            .partitions
            .read(&partition)
            .and_then(|reading| read_headers(holdings, &reading, query, read, &mut each));
        match done {
            Ok(()) => {}
            Err(error @ (StoreError::Damaged { .. } | StoreError::Undecodable { .. })) => {
                partition.complain(&error);
                read.unreadable.push((partition.name.to_string(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_headers(
    holdings: &Holdings,
    reading: &Reading,
    query: &Query,
    read: &mut Read,
    each: &mut impl FnMut(TenantId, &BlobHeader),
) -> Result<(), StoreError> {
    let mut tenants = reading.tenants()?;
    tenants.retain(|tenant| query.tenants.is_empty() || query.tenants.contains(tenant));
    for (tenant, content_type) in
        tenants.into_iter().flat_map(|tenant| query.content_types().into_iter().map(move |of| (tenant, of)))
    {
        let mut after = 0;
        loop {
            let page = page(reading, tenant, content_type, (after, holdings.last_seq(tenant, content_type)), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (seq, header) in page {
                match header {
                    Ok(header) if query.meets_blob(&header) => each(tenant, &header),
                    Ok(_) => {}
                    Err(StoreError::Undecodable { what, why, .. }) => {
                        read.is_damaged(Damaged { tenant, content_type, seq, why: format!("{what}: {why}") });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// Which of the blobs that marks name come themselves: what is a copy of such a one is left out.
///
/// Only what the partition or the content type says of a blob is known beforehand. What has been passed is known; of the
/// blobs that are still to come in the same partition, which are in other content types, those that are named are read.
struct Originals {
    /// What is there now: an original that is dropped while this goes on has been handed out already.
    readable: HashSet<u32>,
    /// In the order in which they come.
    content_types: Vec<ContentType>,
    /// The partition and the content type that are being read.
    at: (u32, ContentType),
    /// Blobs that could not be read to their end. Copies of the records before that come twice: better than never.
    damaged: HashSet<(TenantId, Place)>,
    /// Whether blobs that are still to come can be read.
    looked_at: HashMap<(TenantId, Place), bool>,
}

impl Originals {
    fn new(holdings: &Holdings, list: &[Arc<Partition>], query: &Query) -> Self {
        let ordinals = list.iter().map(|partition| partition.ordinal);
        Self {
            readable: ordinals.filter(|&ordinal| holdings.partitions.is_readable(ordinal)).collect(),
            content_types: query.content_types(),
            at: (0, ContentType::General),
            damaged: HashSet::new(),
            looked_at: HashMap::new(),
        }
    }

    /// A blob of the partition and content type that are being read is damaged.
    fn are_damaged(&mut self, tenant: TenantId, seq: u64) {
        let (partition, content_type) = self.at;
        if self.damaged.len() < NOTED {
            self.damaged.insert((tenant, Place { partition, content_type, seq }));
        } else {
            self.readable.remove(&partition);
        }
    }

    /// Whether one of those that had the record before comes.
    fn come(&mut self, reading: &Reading, tenant: TenantId, mark: &Duplicate) -> Result<bool, StoreError> {
        for place in &*mark.earlier {
            if self.comes(reading, tenant, *place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn comes(&mut self, reading: &Reading, tenant: TenantId, place: Place) -> Result<bool, StoreError> {
        let when = |content_type| self.content_types.iter().position(|one| *one == content_type);
        let Some(turn) = when(place.content_type) else { return Ok(false) };
        if !self.readable.contains(&place.partition) || self.damaged.contains(&(tenant, place)) {
            return Ok(false);
        }
        if place.partition != self.at.0 || Some(turn) <= when(self.at.1) {
            return Ok(true);
        }
        if let Some(known) = self.looked_at.get(&(tenant, place)) {
            return Ok(*known);
        }
        let can_be_read = match reading.header(tenant, place.content_type, place.seq) {
            Ok(Some(header)) => is_whole(reading, &header)?,
            Ok(None) | Err(StoreError::Undecodable { .. }) => false,
            Err(error) => return Err(error),
        };
        if self.looked_at.len() >= NOTED {
            self.looked_at.clear();
        }
        self.looked_at.insert((tenant, place), can_be_read);
        Ok(can_be_read)
    }
}

/// Whether a body can be read to its end.
fn is_whole(reading: &Reading, header: &BlobHeader) -> Result<bool, StoreError> {
    let mut reader = RecordReader::new(Body::new(reading, header));
    loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(ReadError::Malformed(_) | ReadError::Part(StoreError::Undecodable { .. })) => return Ok(false),
            Err(ReadError::Part(error)) => return Err(error),
        }
    }
}

fn read_partition(
    holdings: &Holdings,
    reading: &Reading,
    query: &Query,
    originals: &mut Originals,
    read: &mut Read,
    each: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut tenants = reading.tenants()?;
    if !query.tenants.is_empty() {
        tenants.retain(|tenant| query.tenants.contains(tenant));
    }
    for tenant in tenants {
        for content_type in query.content_types() {
            originals.at = (reading.ordinal(), content_type);
            let mut after = 0;
            loop {
                let durable = holdings.last_seq(tenant, content_type);
                let page = page(reading, tenant, content_type, (after, durable), PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                for (seq, header) in page {
                    let done = header.and_then(|header| {
                        if !query.meets_blob(&header) {
                            return Ok(ControlFlow::Continue(()));
                        }
                        let mut is_copy = |mark: &Duplicate| originals.come(reading, tenant, mark);
                        read_records(reading, tenant, &header, query, &mut is_copy, &mut read.records, each)
                    });
                    match done {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                        Err(StoreError::Undecodable { what, why, .. }) => {
                            originals.are_damaged(tenant, seq);
                            read.is_damaged(Damaged { tenant, content_type, seq, why: format!("{what}: {why}") });
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Some headers after a number, as far as they are durable. Read at once, so that no iterator keeps the database from
/// being opened again after a write error.
pub type Page = Vec<(u64, Result<BlobHeader, StoreError>)>;

/// The headers in a partition after a number and up to the last durable one, as far as they fit on a page.
fn page(
    reading: &Reading,
    tenant: TenantId,
    content_type: ContentType,
    (after, durable): (u64, u64),
    limit: usize,
) -> Result<Page, StoreError> {
    reading.go_on()?;
    if durable <= after {
        return Ok(Vec::new());
    }
    let (from, to) = (keys::header(tenant, content_type, after + 1), keys::header(tenant, content_type, durable));
    let headers = reading.headers(from, to)?;
    headers.take(limit).map(|row| row.map(|(_, seq, header)| (seq, header))).collect()
}

/// Hands out the records of one blob.
fn read_records(
    reading: &Reading,
    tenant: TenantId,
    header: &BlobHeader,
    query: &Query,
    is_copy: &mut dyn FnMut(&Duplicate) -> Result<bool, StoreError>,
    count: &mut u64,
    each: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    if header.defect.is_some() {
        // Kept as evidence; nobody has found records in it.
        return Ok(ControlFlow::Continue(()));
    }
    let splits = query.splits(header);
    let mut duplicates = header.duplicates.iter().peekable();
    let mut reader = RecordReader::new(Body::new(reading, header));
    loop {
        let (index, json) = match reader.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(ControlFlow::Continue(())),
            Err(ReadError::Part(error)) => return Err(error),
            Err(ReadError::Malformed(malformed)) => return Err(reading.undecodable("a body", malformed)),
        };
        let mark = duplicates.next_if(|duplicate| duplicate.record == index);
        let duplicate = mark.map_or(Ok(false), &mut *is_copy)?;
        if duplicate && !query.include_duplicates {
            continue;
        }
        if splits {
            let created = Fields::read(json).created();
            if !created.is_some_and(|created| query.meets(Span::at(created))) {
                continue;
            }
        }
        *count += 1;
        let content_id = &header.content_id;
        let record =
            Record { tenant, content_type: header.content_type, content_id, seq: header.seq, index, json, duplicate };
        if each(record).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// A body's bytes, part by part, decompressed.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    reading: &'a Reading,
    blob: keys::BlobNumber,
    parts: u32,
    next: u32,
    unpack: Unpack,
}

impl<'a> Body<'a> {
    pub(crate) fn new(reading: &'a Reading, header: &BlobHeader) -> Self {
        Self { reading, blob: header.blob_no, parts: header.parts, next: 0, unpack: Unpack::new() }
    }

    fn part(&mut self, number: u32) -> Result<Vec<u8>, StoreError> {
        self.reading.go_on()?;
        let part = self.reading.part(self.blob, number)?;
        let part = part.ok_or_else(|| self.reading.undecodable("a part of a body", "it is missing"))?;
        let raw = self.unpack.part(&part).map_err(|error| self.reading.undecodable("a part of a body", error))?;
        Ok(raw.to_vec())
    }
}

impl Iterator for Body<'_> {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.parts {
            return None;
        }
        let part = self.part(self.next);
        // After an error there is nothing more to come.
        self.next = if part.is_ok() { self.next + 1 } else { self.parts };
        Some(part)
    }
}

/// The partition in which a blob stands, and its header.
fn find(
    holdings: &Holdings,
    tenant: TenantId,
    content_type: ContentType,
    seq: u64,
) -> Result<Option<(Reading, BlobHeader)>, StoreError> {
    if seq > holdings.last_seq(tenant, content_type) {
        return Ok(None);
    }
    for partition in holdings.partitions.list().iter().rev() {
        let found = holdings
            .partitions
            .read(partition)
            .and_then(|reading| Ok(reading.header(tenant, content_type, seq)?.map(|header| (reading, header))));
        match found {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            // It is this blob that is damaged.
            Err(error @ StoreError::Undecodable { .. }) => return Err(error),
            Err(error) => partition.pass_over(error)?,
        }
    }
    Ok(None)
}

/// A blob's header, and its body, byte for byte, in pieces. `None` if there is no such blob.
pub(crate) fn read_blob(
    holdings: &Holdings,
    tenant: TenantId,
    content_type: ContentType,
    seq: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<Option<BlobHeader>, StoreError> {
    let Some((reading, header)) = find(holdings, tenant, content_type, seq)? else { return Ok(None) };
    for part in Body::new(&reading, &header) {
        each(&part?);
    }
    Ok(Some(header))
}

/// What is read after a cursor: one tenant's content type, and how far it was durable when the reading began.
///
/// That is asked before the partitions are listed: so whatever is read stands in one of them, also when a partition is
/// begun meanwhile.
#[derive(Debug, Clone, Copy)]
struct Following {
    tenant: TenantId,
    content_type: ContentType,
    durable: u64,
}

/// The records of the blobs after a number, those marked that are copies of what stands in a blob of one of the content
/// types in `among` (empty: any) in a partition that can be read; answers the last number whose
/// blob was read whole. Goes through the partitions once, whatever is stored meanwhile.
pub(crate) fn for_each_record_after(
    holdings: &Holdings,
    tenant: TenantId,
    content_type: ContentType,
    after: u64,
    among: &[ContentType],
    mut each: impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<u64, StoreError> {
    let following = Following { tenant, content_type, durable: holdings.last_seq(tenant, content_type) };
    let mut last = after;
    for partition in following.partitions(holdings, after)? {
        match following.read(holdings, &partition, &mut last, among, &mut each) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => partition.pass_over(error)?,
        }
    }
    Ok(last)
}

/// Up to `limit` blobs after a number, in their order. A header that cannot be understood is an error of its own.
pub(crate) fn read_after(
    holdings: &Holdings,
    tenant: TenantId,
    content_type: ContentType,
    after: u64,
    limit: usize,
) -> Result<Page, StoreError> {
    let following = Following { tenant, content_type, durable: holdings.last_seq(tenant, content_type) };
    let mut found = Vec::new();
    for partition in following.partitions(holdings, after)? {
        if found.len() >= limit {
            break;
        }
        let page = holdings
            .partitions
            .read(&partition)
            .and_then(|reading| page(&reading, tenant, content_type, (after, following.durable), limit - found.len()));
        match page {
            Ok(page) => found.extend(page),
            Err(error) => partition.pass_over(error)?,
        }
    }
    Ok(found)
}

impl Following {
    /// The partitions that can hold what comes after a number, oldest first.
    ///
    /// Opens few to find the first of them: the newest, where a cursor is as a rule, then by halves.
    fn partitions(&self, holdings: &Holdings, after: u64) -> Result<Vec<Arc<Partition>>, StoreError> {
        if self.durable <= after {
            return Ok(Vec::new());
        }
        let mut list = holdings.partitions.list();
        // All from `high` on begin after the number, and `low` does not, unless it is the oldest.
        let (mut low, mut high) = (0, list.len());
        let mut probe = high.saturating_sub(1);
        while low < probe {
            if self.begins_by(holdings, &list[probe], after)? {
                low = probe;
            } else {
                high = probe;
            }
            probe = low.midpoint(high);
        }
        list.drain(..low);
        Ok(list)
    }

    /// Whether nothing after this number stands in an older partition. It is not known of one that cannot be read: then
    /// more is read than need be.
    fn begins_by(&self, holdings: &Holdings, partition: &Arc<Partition>, after: u64) -> Result<bool, StoreError> {
        match holdings.partitions.read(partition).and_then(|reading| reading.head(self.tenant)) {
            Ok(head) => {
                // Without a head it is older than the tenant's first blob.
                let before = head.and_then(|head| head.start.last.get(&self.content_type.code()).copied());
                Ok(before.unwrap_or(0) <= after)
            }
            Err(error) => partition.pass_over(error).map(|()| false),
        }
    }

    /// Hands out what stands in one partition after `last`, and moves that on.
    fn read(
        &self,
        holdings: &Holdings,
        partition: &Arc<Partition>,
        last: &mut u64,
        among: &[ContentType],
        each: &mut impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let Self { tenant, content_type, durable } = *self;
        let query = Query { include_duplicates: true, ..Query::default() };
        let reading = holdings.partitions.read(partition)?;
        loop {
            let page = page(&reading, tenant, content_type, (*last, durable), PAGE)?;
            if page.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            for (seq, header) in page {
                let read = header.and_then(|header| {
                    let is_asked = |place: &Place| among.is_empty() || among.contains(&place.content_type);
                    let comes = |place: &Place| is_asked(place) && holdings.partitions.is_readable(place.partition);
                    let mut is_copy = |mark: &Duplicate| Ok(mark.earlier.iter().any(comes));
                    read_records(&reading, tenant, &header, &query, &mut is_copy, &mut 0, each)
                });
                match read {
                    // What retention drops in between is not mourned.
                    Ok(ControlFlow::Continue(())) | Err(StoreError::PartitionDropped { .. }) => {}
                    Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                    Err(error @ (StoreError::Undecodable { .. } | StoreError::Damaged { .. })) => {
                        tracing::error!(message_id = event::STORE_DAMAGED, %tenant, %content_type, seq, %error, "a stored blob is damaged and was passed over");
                    }
                    Err(error) => return Err(error),
                }
                *last = seq;
            }
        }
    }
}

/// The last numbers that were stored before a time: in every content type the one before the first that was not.
pub(crate) fn heads_at(holdings: &Holdings, since: Timestamp) -> Result<Heads, StoreError> {
    let mut heads = holdings.last_numbers();
    for partition in holdings.partitions.list() {
        if partition.sealed().is_some_and(|sums| !sums.stored.meets(Some(since), None)) {
            continue;
        }
        let read = holdings.partitions.read(&partition).and_then(|reading| {
            for row in reading.all_headers()? {
                let (tenant, seq, header) = row?;
                if let Ok(header) = header
                    && header.stored_at >= since
                    && let Some(last) = heads.get_mut(&(tenant, header.content_type))
                {
                    *last = seq.saturating_sub(1).min(*last);
                }
            }
            Ok(())
        });
        if let Err(error) = read {
            partition.pass_over(error)?;
        }
    }
    Ok(heads)
}
