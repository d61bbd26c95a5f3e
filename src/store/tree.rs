//! A partition's database in the store's words: what stands under which key, encoded and decoded.
//!
//! Reading is for everybody, and shows nothing of tenants that were purged ([`Veil`]); [`Changes`] is for the writer alone,
//! and becomes true as one batch.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::chain;
use super::database::{Batch, Database, Rows, Slice};
use super::error::StoreError;
use super::header::BlobHeader;
use super::keys::{self, BlobNumber};
use super::partition::Sums;
use super::purge::Veil;
use crate::content::{ContentId, ContentType, TenantId, Tier};

/// The first byte of a header's value that says: in pieces. Formats of headers start at 1.
const IN_PIECES: u8 = 0;

/// Where a tenant's chain and numbers stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The link of the tenant's last blob.
    pub(crate) link: [u8; 32],
    /// How many blobs the chain has had.
    pub(crate) length: u64,
    /// The last number given, by the code of the content type.
    pub(crate) last: BTreeMap<u8, u64>,
}

/// A tenant's position now, and as it was when the partition began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) start: Position,
    pub(crate) now: Position,
}

impl Head {
    /// Before the tenant's first blob, which is numbered behind these.
    pub(crate) fn first(tenant: TenantId, last: BTreeMap<u8, u64>) -> Self {
        let start = Position { link: chain::genesis(tenant), length: 0, last };
        Self { now: start.clone(), start }
    }

    /// The head with which the next partition begins.
    pub(crate) fn carried(&self) -> Self {
        Self { start: self.now.clone(), now: self.now.clone() }
    }
}

/// Whose blob a number is, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobIndex {
    pub(crate) tenant: TenantId,
    pub(crate) content_type: ContentType,
    pub(crate) seq: u64,
    pub(crate) content_id: ContentId,
    /// The packed record ids, in the order of the records.
    pub(crate) ids: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct IndexStart<'a> {
    tenant: [u8; 16],
    content_type: u8,
    seq: u64,
    content_id: &'a str,
    pieces: u32,
}

/// What was stored in one hour of one tenant's content type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Blobs.
    pub blobs: u64,
    /// Records in them, duplicates included.
    pub records: u64,
    /// Bytes of the bodies as received.
    pub bytes: u64,
    /// Records that are copies of others.
    pub duplicates: u64,
    /// Blobs that the listing of the last minutes had missed.
    pub recent: u64,
    /// Blobs that only the sweep found.
    pub sweep: u64,
    /// Bodies kept although they are no JSON array of records.
    pub defects: u64,
}

impl Ledger {
    /// What one blob adds.
    pub(crate) fn of(header: &BlobHeader) -> Self {
        let only_if = |yes: bool| u64::from(yes);
        Self {
            blobs: 1,
            records: header.records.into(),
            bytes: header.bytes,
            duplicates: header.duplicates.len() as u64,
            recent: only_if(header.fetched.tier == Tier::Recent),
            sweep: only_if(header.fetched.tier == Tier::Sweep),
            defects: only_if(header.defect.is_some()),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.blobs += other.blobs;
        self.records += other.records;
        self.bytes += other.bytes;
        self.duplicates += other.duplicates;
        self.recent += other.recent;
        self.sweep += other.sweep;
        self.defects += other.defects;
    }
}

/// A partition's open database.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) database: Database,
    veil: Veil,
}

impl Tree {
    pub(crate) fn new(database: Database, veil: Veil) -> Self {
        Self { database, veil }
    }

    /// The same with all that is in it, also of tenants that were purged.
    pub(crate) fn unveiled(&self) -> Self {
        Self::new(self.database.clone(), Veil::lifted())
    }

    pub(crate) fn sums(&self) -> Result<Sums, StoreError> {
        Ok(self.value("the partition's sums", [keys::SUMS])?.unwrap_or_default())
    }

    pub(crate) fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        let mut heads = Vec::new();
        for row in self.database.scan_prefix([keys::HEAD])? {
            let (key, value) = row?;
            let tenant = keys::parse_head(&key).ok_or_else(|| self.undecodable("a chain's key", "its length"))?;
            if self.veil.hides(tenant) {
                continue;
            }
            heads.push((tenant, self.decode("a chain's head", &value)?));
        }
        Ok(heads)
    }

    pub(crate) fn head(&self, tenant: TenantId) -> Result<Option<Head>, StoreError> {
        if self.veil.hides(tenant) {
            return Ok(None);
        }
        self.value("a chain's head", keys::head(tenant))
    }

    pub(crate) fn header(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        seq: u64,
    ) -> Result<Option<BlobHeader>, StoreError> {
        if self.veil.hides(tenant) {
            return Ok(None);
        }
        let value = self.database.get(keys::header(tenant, content_type, seq))?;
        value.map(|value| self.decode_header(&value)).transpose()
    }

    /// The headers from one key to another (inclusive), in the order of tenant, content type and number.
    pub(crate) fn headers(&self, from: [u8; 26], to: [u8; 26]) -> Result<Headers<'_>, StoreError> {
        Ok(Headers { tree: self, rows: self.database.range(from..=to)? })
    }

    /// All headers.
    pub(crate) fn all_headers(&self) -> Result<Headers<'_>, StoreError> {
        Ok(Headers { tree: self, rows: self.database.scan_prefix([keys::HEADER])? })
    }

    /// The tenants that have blobs here.
    pub(crate) fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let heads = self.heads()?;
        Ok(heads
            .into_iter()
            .filter(|(_, head)| head.now.length > head.start.length)
            .map(|(tenant, _)| tenant)
            .collect())
    }

    pub(crate) fn index(&self, blob: BlobNumber) -> Result<Option<BlobIndex>, StoreError> {
        let Some(value) = self.database.get(keys::index(blob, 0))? else { return Ok(None) };
        let (mut index, pieces) = self.decode_index(&value)?;
        if self.veil.hides(index.tenant) {
            return Ok(None);
        }
        for piece in 1..=pieces {
            let more = self.database.get(keys::index(blob, piece))?;
            let more = more.ok_or_else(|| self.undecodable("a blob's index", "a piece of it is missing"))?;
            index.ids.extend_from_slice(&more);
        }
        Ok(Some(index))
    }

    /// Calls `each` with every blob's index, in the order of their numbers, from `first` on.
    pub(crate) fn for_each_index(
        &self,
        first: BlobNumber,
        mut each: impl FnMut(BlobNumber, BlobIndex),
    ) -> Result<(), StoreError> {
        let mut each = |blob, index: BlobIndex| {
            if !self.veil.hides(index.tenant) {
                each(blob, index);
            }
        };
        let mut current: Option<(BlobNumber, BlobIndex)> = None;
        for row in self.database.range(&keys::index(first, 0)[..]..&[keys::INDEX + 1][..])? {
            let (key, value) = row?;
            let (blob, piece) = keys::parse_numbered_twice(keys::INDEX, &key)
                .ok_or_else(|| self.undecodable("the key of a blob's index", "its length"))?;
            match &mut current {
                Some((number, index)) if *number == blob && piece > 0 => index.ids.extend_from_slice(&value),
                _ => {
                    let (index, _) = self.decode_index(&value)?;
                    if let Some((number, index)) = current.replace((blob, index)) {
                        each(number, index);
                    }
                }
            }
        }
        if let Some((number, index)) = current {
            each(number, index);
        }
        Ok(())
    }

    /// Whose blob this is the first piece of an index of; `None` if that cannot be understood.
    pub(crate) fn owner_in_index(value: &[u8]) -> Option<TenantId> {
        let (start, _) = postcard::take_from_bytes::<IndexStart<'_>>(value).ok()?;
        Some(TenantId::from_bytes(start.tenant))
    }

    pub(crate) fn part(&self, blob: BlobNumber, part: u32) -> Result<Option<Slice>, StoreError> {
        Ok(self.database.get(keys::part(blob, part))?.filter(|part| !part.is_empty()))
    }

    /// The numbers of the blobs whose parts went ahead and whose header never came.
    pub(crate) fn open_blobs(&self) -> Result<Vec<BlobNumber>, StoreError> {
        let mut blobs = Vec::new();
        for row in self.database.scan_prefix([keys::OPEN])? {
            let (key, _) = row?;
            let blob = keys::parse_numbered(keys::OPEN, &key);
            blobs.push(blob.ok_or_else(|| self.undecodable("the key of an open blob", "its length"))?);
        }
        Ok(blobs)
    }

    /// The keys of a blob's parts that are here, at most `limit` of them.
    pub(crate) fn part_keys(&self, blob: BlobNumber, limit: usize) -> Result<Vec<Slice>, StoreError> {
        let rows = self.database.range(keys::part(blob, 0)..=keys::part(blob, u32::MAX))?;
        rows.take(limit).map(|row| row.map(|(key, _)| key)).collect()
    }

    /// In how many pieces the snapshot is.
    pub(crate) fn snapshot_pieces(&self) -> Result<u32, StoreError> {
        self.database.scan_prefix([keys::SNAPSHOT])?.try_fold(0, |count, row| row.map(|_| count + 1))
    }

    pub(crate) fn snapshot(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut snapshot = None;
        for row in self.database.scan_prefix([keys::SNAPSHOT])? {
            snapshot.get_or_insert_with(Vec::new).extend_from_slice(&row?.1);
        }
        Ok(snapshot)
    }

    /// Whether a snapshot that was replaced named the tenant.
    pub(crate) fn is_former(&self, tenant: TenantId) -> Result<bool, StoreError> {
        Ok(self.database.get(keys::former(tenant))?.is_some())
    }

    pub(crate) fn ledger(
        &self,
        hour: u32,
        tenant: TenantId,
        content_type: ContentType,
    ) -> Result<Option<Ledger>, StoreError> {
        if self.veil.hides(tenant) {
            return Ok(None);
        }
        self.value("an hour's ledger", keys::ledger(hour, tenant, content_type))
    }

    /// The ledgers of the hours from `from` to `to`, the latter excluded.
    pub(crate) fn ledgers(
        &self,
        from: u32,
        to: u32,
        mut each: impl FnMut(u32, TenantId, ContentType, Ledger),
    ) -> Result<(), StoreError> {
        let from = [&[keys::LEDGER][..], &from.to_be_bytes()].concat();
        let to = [&[keys::LEDGER][..], &to.to_be_bytes()].concat();
        for row in self.database.range(from..to)? {
            let (key, value) = row?;
            let (hour, tenant, content_type) =
                keys::parse_ledger(&key).ok_or_else(|| self.undecodable("the key of a ledger", "its length"))?;
            if !self.veil.hides(tenant) {
                each(hour, tenant, content_type, self.decode("an hour's ledger", &value)?);
            }
        }
        Ok(())
    }

    fn decode_index(&self, value: &[u8]) -> Result<(BlobIndex, u32), StoreError> {
        let (start, ids) = postcard::take_from_bytes::<IndexStart<'_>>(value)
            .map_err(|error| self.undecodable("a blob's index", error))?;
        let content_type = ContentType::from_code(start.content_type)
            .ok_or_else(|| self.undecodable("a blob's index", "its content type is unknown"))?;
        let index = BlobIndex {
            tenant: TenantId::from_bytes(start.tenant),
            content_type,
            seq: start.seq,
            content_id: start.content_id.into(),
            ids: ids.to_vec(),
        };
        Ok((index, start.pieces))
    }

    fn decode_header(&self, value: &[u8]) -> Result<BlobHeader, StoreError> {
        let header = match value {
            [IN_PIECES, place @ ..] => {
                let (blob, pieces): (u32, u32) = self.decode("a blob's header", place)?;
                let mut whole = Vec::new();
                for piece in 0..pieces {
                    let bytes = self.database.get(keys::header_piece(blob, piece))?;
                    let bytes = bytes.ok_or_else(|| self.undecodable("a blob's header", "a piece of it is missing"))?;
                    whole.extend_from_slice(&bytes);
                }
                BlobHeader::decode(&whole)
            }
            whole => BlobHeader::decode(whole),
        };
        header.map_err(|error| self.undecodable("a blob's header", error))
    }

    fn value<T: DeserializeOwned>(&self, what: &'static str, key: impl AsRef<[u8]>) -> Result<Option<T>, StoreError> {
        self.database.get(key)?.map(|value| self.decode(what, &value)).transpose()
    }

    fn decode<T: DeserializeOwned>(&self, what: &'static str, value: &[u8]) -> Result<T, StoreError> {
        postcard::from_bytes(value).map_err(|error| self.undecodable(what, error))
    }

    pub(crate) fn undecodable(&self, what: &'static str, why: impl fmt::Display) -> StoreError {
        StoreError::Undecodable { path: self.database.directory().to_owned(), what, why: why.to_string() }
    }
}

/// Headers in the order of their keys.
#[derive(Debug)]
pub(crate) struct Headers<'a> {
    tree: &'a Tree,
    rows: Rows,
}

impl Iterator for Headers<'_> {
    /// One that cannot be understood is an error of its own; the next may be read.
    type Item = Result<(TenantId, u64, Result<BlobHeader, StoreError>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = match self.rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            };
            let Some((tenant, _, seq)) = keys::parse_header(&key) else {
                return Some(Err(self.tree.undecodable("the key of a blob's header", "its form")));
            };
            if !self.tree.veil.hides(tenant) {
                return Some(Ok((tenant, seq, self.tree.decode_header(&value))));
            }
        }
    }
}

/// Writes that become true together.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) batch: Batch,
}

impl Changes {
    pub(crate) fn put_part(&mut self, blob: BlobNumber, part: u32, bytes: &[u8]) {
        self.batch.insert(&keys::part(blob, part), bytes);
    }

    /// Room for the first parts of blobs to come, whose numbers nobody has been given yet.
    pub(crate) fn keep_room(&mut self, blobs: Range<BlobNumber>) {
        for blob in blobs {
            self.batch.insert_ahead(&keys::part(blob, 0));
        }
    }

    pub(crate) fn put_open(&mut self, blob: BlobNumber) {
        self.batch.insert(&keys::open(blob), &[]);
    }

    pub(crate) fn remove_open(&mut self, blob: BlobNumber) {
        self.batch.remove(&keys::open(blob));
    }

    pub(crate) fn put_header(&mut self, tenant: TenantId, header: &BlobHeader) -> Result<(), String> {
        let key = keys::header(tenant, header.content_type, header.seq);
        let whole = header.encode().map_err(|error| error.to_string())?;
        if whole.len() <= keys::PIECE_BYTES {
            self.batch.insert(&key, whole);
            return Ok(());
        }
        let mut pieces = 0_u32;
        for piece in whole.chunks(keys::PIECE_BYTES) {
            self.batch.insert(&keys::header_piece(header.blob_no, pieces), piece);
            pieces += 1;
        }
        let place = encode(&(header.blob_no, pieces));
        self.batch.insert(&key, [&[IN_PIECES][..], &place].concat());
        Ok(())
    }

    pub(crate) fn put_index(&mut self, blob: BlobNumber, index: &BlobIndex) {
        let first = index.ids.len().min(keys::PIECE_BYTES);
        let mut pieces = 0;
        for piece in index.ids[first..].chunks(keys::PIECE_BYTES) {
            pieces += 1;
            self.batch.insert(&keys::index(blob, pieces), piece);
        }
        let mut value = encode(&IndexStart {
            tenant: *index.tenant.as_bytes(),
            content_type: index.content_type.code(),
            seq: index.seq,
            content_id: index.content_id.as_str(),
            pieces,
        });
        value.extend_from_slice(&index.ids[..first]);
        self.batch.insert(&keys::index(blob, 0), value);
    }

    pub(crate) fn put_head(&mut self, tenant: TenantId, head: &Head) {
        self.batch.insert(&keys::head(tenant), encode(head));
    }

    pub(crate) fn put_sums(&mut self, sums: &Sums) {
        self.batch.insert(&[keys::SUMS], encode(sums));
    }

    pub(crate) fn put_ledger(&mut self, hour: u32, tenant: TenantId, content_type: ContentType, ledger: &Ledger) {
        self.batch.insert(&keys::ledger(hour, tenant, content_type), encode(ledger));
    }

    /// Puts the snapshot in the place of one that has `before` pieces; returns how many this one has.
    pub(crate) fn put_snapshot(&mut self, snapshot: &[u8], before: u32) -> u32 {
        let mut pieces = 0;
        for piece in snapshot.chunks(keys::PIECE_BYTES) {
            self.batch.insert(&keys::snapshot(pieces), piece);
            pieces += 1;
        }
        for piece in pieces..before {
            self.batch.remove(&keys::snapshot(piece));
        }
        pieces
    }

    /// Writes down whom a snapshot that is replaced named and the next one does not: the log has it still.
    pub(crate) fn put_formers<'a>(&mut self, formers: impl Iterator<Item = &'a TenantId>) {
        for tenant in formers {
            self.batch.insert(&keys::former(*tenant), b"");
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes: no maps of unknown length, no failing `Serialize`")
}

/// The hour in which a time lies, counted from 1970.
pub(crate) fn hour_of(time: Timestamp) -> u32 {
    u32::try_from(time.as_second().div_euclid(3600)).unwrap_or(0)
}
