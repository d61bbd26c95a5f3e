//! Writes a partition anew, beside the old one, without the tenants that are hidden in it.
//!
//! Rows go over as they lie, key and value, in their order; nothing is decoded that stays. Then the new database is closed,
//! opened again and read, and its rows must have the digest of those that were to go over.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::super::chain::to_hex;
use super::super::database::{Access, Batch, Database};
use super::super::durable;
use super::super::error::StoreError;
use super::super::holdings::{Holdings, see};
use super::super::keys::{self, BlobNumber};
use super::super::partition::{self, Label, Span, Sums};
use super::super::partitions::{OLD_CACHE, Partition, Reading};
use super::super::seen::{Seen, SeenError};
use super::super::snapshot;
use super::super::tree::{Changes, Tree};
use super::exchange::{making, whole};
use super::phase;
use super::record::Erasure;
use super::work::{Broken, Work};
use crate::content::TenantId;

/// Copying goes in batches of about this size.
const COPY_BYTES: usize = 4 << 20;
/// And of at most so many rows.
const COPY_ROWS: usize = 5_000;
/// After so many batches it is asked whether there is still room.
const LOOK_EVERY: u32 = 16;

/// What a partition holds of those who are hidden, and what else there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    erased: BTreeMap<TenantId, Erasure>,
    blobs: HashSet<BlobNumber>,
    /// Bytes of what is erased, as stored.
    compressed: u64,
    /// The times of what stays; `None` if some of it cannot be understood.
    spans: Option<[Span; 3]>,
    /// Headers of theirs that cannot be understood, and whose blobs nothing else names.
    pub(super) unnamed: usize,
    snapshot: Snapshot,
}

/// What becomes of the state's snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
enum Snapshot {
    /// It holds nothing of theirs.
    #[default]
    Stays,
    /// Without what it held of theirs.
    Becomes(Vec<u8>),
    /// One that cannot be understood is of no use, and may hold anything.
    Goes,
}

impl Inventory {
    /// Whether there is anything to erase.
    pub(super) fn is_empty(&self) -> bool {
        self.erased.is_empty() && self.blobs.is_empty() && self.snapshot == Snapshot::Stays
    }

    /// Finds out what there is of those who are `hidden` here, each by a purge.
    pub(super) fn take(tree: &Tree, hidden: &BTreeMap<TenantId, u32>) -> Result<Self, StoreError> {
        let mut found = Self::default();
        found.take_heads(tree, hidden)?;
        found.take_snapshot(tree, hidden)?;
        // A head is written with the first blob: without one there is no need to read everything.
        if found.is_empty() {
            return Ok(found);
        }
        let undecodable = found.take_headers(tree, hidden)?;
        let named = found.blobs.len();
        found.take_indices(tree, hidden)?;
        found.unnamed = undecodable.saturating_sub(found.blobs.len() - named);
        Ok(found)
    }

    /// Whether numbers were given to bodies that are not here: they were broken off, or moved on with the writer, and what
    /// of them was written before lies in the log still. Nothing tells whose they were.
    pub(super) fn has_gaps(tree: &Tree) -> Result<bool, StoreError> {
        let mut blobs = 0;
        for row in tree.database.scan_prefix([keys::INDEX])? {
            blobs += u32::from(matches!(keys::parse_numbered_twice(keys::INDEX, &row?.0), Some((_, 0))));
        }
        Ok(blobs < tree.sums()?.next_blob)
    }

    fn of(&mut self, tenant: TenantId, purge: u32) -> &mut Erasure {
        self.erased.entry(tenant).or_insert(Erasure {
            purge,
            tenant,
            blobs: 0,
            records: 0,
            bytes: 0,
            given_back: 0,
            start: None,
            end: None,
        })
    }

    fn take_heads(&mut self, tree: &Tree, hidden: &BTreeMap<TenantId, u32>) -> Result<(), StoreError> {
        for (&tenant, &purge) in hidden {
            if let Some(head) = tree.head(tenant)? {
                let erasure = self.of(tenant, purge);
                erasure.start = (head.start.length > 0).then(|| to_hex(&head.start.link));
                erasure.end = Some(to_hex(&head.now.link));
            } else if tree.database.scan_prefix(keys::header_prefix(tenant))?.next().transpose()?.is_some()
                || tree.is_former(tenant)?
            {
                self.of(tenant, purge);
            }
        }
        Ok(())
    }

    fn take_snapshot(&mut self, tree: &Tree, hidden: &BTreeMap<TenantId, u32>) -> Result<(), StoreError> {
        let Some(bytes) = tree.snapshot()? else { return Ok(()) };
        match snapshot::split(bytes, |tenant| hidden.contains_key(&tenant)) {
            Ok((_, owners)) if owners.is_empty() => {}
            Ok((rest, owners)) => {
                self.snapshot = Snapshot::Becomes(rest);
                for tenant in owners {
                    self.of(tenant, hidden[&tenant]);
                }
            }
            Err(_) => self.snapshot = Snapshot::Goes,
        }
        Ok(())
    }

    /// Answers how many of their headers cannot be understood.
    fn take_headers(&mut self, tree: &Tree, hidden: &BTreeMap<TenantId, u32>) -> Result<usize, StoreError> {
        let (mut undecodable, mut spans) = (0, Some([Span::default(); 3]));
        for row in tree.all_headers()? {
            let (tenant, _, header) = row?;
            match (hidden.get(&tenant), header) {
                (Some(&purge), Ok(header)) => {
                    let erasure = self.of(tenant, purge);
                    erasure.blobs += 1;
                    erasure.records += u64::from(header.records);
                    erasure.bytes += header.bytes;
                    self.compressed += header.compressed;
                    self.blobs.insert(header.blob_no);
                }
                (Some(&purge), Err(_)) => {
                    self.of(tenant, purge).blobs += 1;
                    undecodable += 1;
                }
                (None, Ok(header)) => {
                    let mut sums = Sums::default();
                    sums.add(&header);
                    for (span, more) in spans.iter_mut().flatten().zip([sums.created, sums.available, sums.stored]) {
                        span.join(more);
                    }
                }
                (None, Err(_)) => spans = None,
            }
        }
        self.spans = spans;
        Ok(undecodable)
    }

    fn take_indices(&mut self, tree: &Tree, hidden: &BTreeMap<TenantId, u32>) -> Result<(), StoreError> {
        for row in tree.database.scan_prefix([keys::INDEX])? {
            let (key, value) = row?;
            if let Some((blob, 0)) = keys::parse_numbered_twice(keys::INDEX, &key)
                && Tree::owner_in_index(&value).is_some_and(|tenant| hidden.contains_key(&tenant))
            {
                self.blobs.insert(blob);
            }
        }
        Ok(())
    }

    /// Whether a row goes over as it is. Sums and snapshot are written anew; a body that never got a header is nobody's; what
    /// earlier snapshots named is not in the new log.
    fn stays(&self, key: &[u8], value: &[u8], open: &HashSet<BlobNumber>) -> bool {
        let Some(&kind) = key.first() else { return true };
        let blob = || keys::parse_numbered_twice(kind, key).map(|(blob, _)| blob);
        let is_theirs = |tenant: Option<TenantId>| tenant.is_some_and(|tenant| self.erased.contains_key(&tenant));
        match kind {
            keys::SUMS | keys::SNAPSHOT | keys::OPEN | keys::FORMER => false,
            keys::HEADER_PIECE | keys::INDEX => blob().is_none_or(|blob| !self.blobs.contains(&blob)),
            keys::PART => {
                !value.is_empty() && blob().is_none_or(|blob| !self.blobs.contains(&blob) && !open.contains(&blob))
            }
            keys::HEADER => !is_theirs(keys::parse_header(key).map(|(tenant, ..)| tenant)),
            keys::LEDGER => !is_theirs(keys::parse_ledger(key).map(|(_, tenant, _)| tenant)),
            keys::HEAD => !is_theirs(keys::parse_head(key)),
            _ => true,
        }
    }

    fn sums(&self, before: &Sums) -> Sums {
        let all = |of: fn(&Erasure) -> u64| self.erased.values().map(of).sum::<u64>();
        let [created, available, stored] = self.spans.unwrap_or([before.created, before.available, before.stored]);
        Sums {
            next_blob: before.next_blob,
            blobs: before.blobs.saturating_sub(all(|one| one.blobs)),
            records: before.records.saturating_sub(all(|one| one.records)),
            bytes: before.bytes.saturating_sub(all(|one| one.bytes)),
            compressed: before.compressed.saturating_sub(self.compressed),
            created,
            available,
            stored,
        }
    }
}

/// A digest over rows in their order.
struct RowSum(digest::Context);

impl RowSum {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        for bytes in [key, value] {
            self.0.update(&(bytes.len() as u64).to_be_bytes());
            self.0.update(bytes);
        }
    }

    fn finish(self) -> digest::Digest {
        self.0.finish()
    }
}

/// Writes a partition anew: when this returns, `.purged-P` is whole and durable.
pub(super) fn write_anew(
    holdings: &Holdings,
    partition: &Arc<Partition>,
    reading: &Reading,
    mut found: Inventory,
    work: &Work,
) -> Result<(), Broken> {
    let directory = making(&partition.directory);
    durable::remove_directory(&directory)?;
    durable::remove_directory(&whole(&partition.directory))?;
    durable::make_directory(&directory)?;
    let tree = reading.unveiled();
    let sums = found.sums(&tree.sums().map_err(Broken::unreadable)?);

    let written = fill(&directory, &tree, &found, &sums, partition, work)?;
    phase(&directory, "written");
    let database = Database::open(&directory.join("db"), access(false))?;
    let read_back = read_back(&database, partition, work)?;
    if read_back.as_ref() != written.as_ref() {
        let why = "what was written anew is read back as something else".to_owned();
        return Err(StoreError::Damaged { path: directory, why }.into());
    }
    if holdings.recent().iter().any(|recent| recent.ordinal == partition.ordinal) {
        see_anew(holdings, &directory, database.clone(), sums.next_blob)?;
    }
    // Closed before its directory is renamed.
    drop(database);

    let label = Label::read(&partition.directory).map_err(Broken::unreadable)?;
    let given_back = durable::size(&partition.directory)?.saturating_sub(durable::size(&directory)?);
    if let Some(first) = found.erased.values_mut().next() {
        first.given_back = given_back;
    }
    let erased = label.erased.iter().cloned().chain(found.erased.into_values()).collect();
    Label { erased, anew: true, ..label }.write(&directory)?;
    partition::write_sealed(&directory, &sums)?;
    durable::sync_tree(&directory)?;
    phase(&directory, "durable");
    durable::rename(&directory, &whole(&partition.directory))?;
    phase(&directory, "whole");
    Ok(())
}

const fn access(create: bool) -> Access {
    Access { cache_bytes: OLD_CACHE, create, tidy: false }
}

/// Copies what stays; answers the digest of it.
fn fill(
    directory: &Path,
    tree: &Tree,
    found: &Inventory,
    sums: &Sums,
    partition: &Partition,
    work: &Work,
) -> Result<digest::Digest, Broken> {
    let database = Database::open(&directory.join("db"), access(true))?;
    let open: HashSet<_> = tree.open_blobs().map_err(Broken::unreadable)?.into_iter().collect();
    let (mut digest, mut batch, mut batches) = (RowSum::new(), Batch::default(), 0_u32);
    for row in tree.database.range::<&[u8]>(..).map_err(Broken::unreadable)? {
        let (key, value) = row.map_err(Broken::unreadable)?;
        if !found.stays(&key, &value, &open) {
            continue;
        }
        digest.add(&key, &value);
        batch.insert(key, value);
        if batch.bytes() >= COPY_BYTES || batch.len() >= COPY_ROWS {
            database.commit(std::mem::take(&mut batch))?;
            phase(directory, "filling");
            work.go_on(partition)?;
            batches += 1;
            if batches.is_multiple_of(LOOK_EVERY) {
                work.has_room(0)?;
            }
        }
    }
    let mut changes = Changes { batch };
    changes.put_sums(sums);
    let snapshot = match &found.snapshot {
        Snapshot::Stays => tree.snapshot().map_err(Broken::unreadable)?,
        Snapshot::Becomes(rest) => Some(rest.clone()),
        Snapshot::Goes => None,
    };
    if let Some(snapshot) = snapshot {
        changes.put_snapshot(&snapshot, 0);
    }
    database.commit(changes.batch)?;
    Ok(digest.finish())
}

/// The digest of what is in the new database, as the disk gives it back.
fn read_back(database: &Database, partition: &Partition, work: &Work) -> Result<digest::Digest, Broken> {
    let mut digest = RowSum::new();
    for (at, row) in database.range::<&[u8]>(..)?.enumerate() {
        let (key, value) = row?;
        if !matches!(key.first(), Some(&(keys::SUMS | keys::SNAPSHOT))) {
            digest.add(&key, &value);
        }
        if at % COPY_ROWS == 0 {
            work.go_on(partition)?;
        }
    }
    Ok(digest.finish())
}

/// Makes the index of what was seen, of what is left.
fn see_anew(
    holdings: &Holdings,
    directory: &Path,
    database: Database,
    next_blob: BlobNumber,
) -> Result<(), StoreError> {
    let tree = Tree::new(database, super::Veil::lifted());
    let mut seen = Seen::empty(directory, holdings.seen_key);
    match see(&mut seen, holdings.seen_key, &tree, 0) {
        // An index of another's is damaged, which is known where it was copied from; whoever needs to know reads it again.
        Err(StoreError::Undecodable { .. }) => return seen.discard(),
        seen => seen?,
    }
    let merged = seen.merge(next_blob).map_err(SeenError::into_store)?;
    seen.adopt(merged)?;
    Ok(())
}

/// Removes what is half made: after an error that will pass, it is made anew.
pub(super) fn tidy_up(partition: &Partition) {
    if let Err(error) = fs::remove_dir_all(making(&partition.directory))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "a partition that is half written anew is removed later");
    }
}
