//! The partition that is written: its open tree, and all that its writer knows of it by heart.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;

use super::durable;
use super::error::StoreError;
use super::keys::BlobNumber;
use super::partition::{Label, Sums};
use super::partitions::Partition;
use super::purge::Veil;
use super::roll;
use super::seen::SeenError;
use super::snapshot;
use super::stage::Stage;
use super::tree::{Changes, Head, Ledger, Tree};
use crate::content::{ContentType, TenantId};

/// sled's cache for the partition that is written.
pub(super) const CACHE: u64 = 32 << 20;
/// Room is kept for at least as many blobs ahead.
///
/// sled keeps at most sixteen entries in a page and writes all of a page again when it is parted: a part of a body that
/// makes a new entry is so written three to four times. Put in the place of an entry that is there, it is written once.
const ROOM: BlobNumber = 64;
/// How often the size of the partition is measured: each time this much more has been written.
const MEASURE_EVERY: u64 = 64 << 20;

/// The partition that is written.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) partition: Arc<Partition>,
    pub(super) tree: Arc<Tree>,
    pub(super) sums: Sums,
    snapshot_pieces: u32,
    /// Whom the snapshot names.
    snapshot_owners: BTreeSet<TenantId>,
    /// No number of any tenant is this or smaller: what was given before a partition was lost.
    pub(super) floor: u64,
    /// Nothing was stored after this when it was opened.
    pub(super) stored_to: Timestamp,
    /// Numbers that were given to blobs that are not durable yet.
    pub(super) pending: BTreeSet<BlobNumber>,
    /// There is room for the blobs below this number.
    room: BlobNumber,
    /// The ledgers that were written last.
    ledgers: HashMap<(u32, TenantId, ContentType), Ledger>,
    /// Compressed bytes at the last measurement, and what the files took then.
    pub(super) measured: (u64, u64),
}

impl Newest {
    /// Opens the partition for writing, and learns what stands in it.
    pub(super) fn open(partition: &Arc<Partition>, veil: Veil) -> Result<(Self, HashMap<TenantId, Head>), StoreError> {
        // An error when it was renamed may have left its name undurable.
        durable::sync_parent(&partition.directory)?;
        let label = Label::read(&partition.directory)?;
        let tree = partition.open_to_write(CACHE, veil)?;
        let sums = tree.sums()?;
        let heads = tree.heads()?.into_iter().collect();
        let snapshot_pieces = tree.snapshot_pieces()?;
        // One that cannot be understood names nobody, and is replaced.
        let snapshot_owners = tree.snapshot()?.and_then(|bytes| snapshot::owners(&bytes).ok()).unwrap_or_default();
        let size = tree.database.size_on_disk()?;
        let measured = (sums.compressed, size);
        let stored = sums.stored.0.map(|(_, last)| last);
        let stored_to = label.stored_from.unwrap_or(label.created).max(stored.unwrap_or(Timestamp::MIN));
        let room = sums.next_blob;
        let partition = Arc::clone(partition);
        Ok((
            Self {
                partition,
                tree,
                sums,
                snapshot_pieces,
                snapshot_owners,
                floor: label.floor,
                stored_to,
                pending: BTreeSet::new(),
                room,
                ledgers: HashMap::new(),
                measured,
            },
            heads,
        ))
    }

    /// Puts the snapshot in the place of the one before.
    pub(super) fn put_snapshot(&mut self, changes: &mut Changes, bytes: &[u8], owners: BTreeSet<TenantId>) {
        changes.put_formers(self.snapshot_owners.difference(&owners));
        self.snapshot_pieces = changes.put_snapshot(bytes, self.snapshot_pieces);
        self.snapshot_owners = owners;
    }

    /// A number for a blob whose first part is about to be written.
    pub(super) fn take_number(&mut self) -> BlobNumber {
        let blob = self.sums.take_number();
        self.pending.insert(blob);
        blob
    }

    /// All blobs below this number are durable, or never will be.
    pub(super) fn complete_to(&self) -> BlobNumber {
        self.pending.first().copied().unwrap_or(self.sums.next_blob)
    }

    /// Writes down what was seen, so that the next opening need not find it out.
    pub(super) fn flush_seen(&self) -> Result<(), StoreError> {
        self.partition.seen_mut().flush(self.complete_to()).map_err(SeenError::into_store)
    }

    /// Whether it has reached the size at which the next begins. Measuring is for every now and then.
    pub(super) fn is_full(&mut self, limit: u64) -> Result<bool, StoreError> {
        if self.sums.compressed.saturating_sub(self.measured.0) >= MEASURE_EVERY.min(limit / 8) {
            self.measured = (self.sums.compressed, self.tree.database.size_on_disk()?);
        }
        Ok(roll::estimated_size(self.sums.compressed, self.measured) >= limit)
    }

    pub(super) fn write(&mut self, stage: &mut Stage) -> Result<(), StoreError> {
        if stage.added.is_empty() && stage.changes.batch.is_empty() {
            return Ok(());
        }
        // Before anything is written: what fails here fails nothing that is durable.
        self.partition.seen_mut().flush_if_full(self.complete_to()).map_err(SeenError::into_store)?;
        let mut ledgers = HashMap::new();
        for &(hour, tenant, content_type, added) in &stage.added {
            let ledger = match ledgers.entry((hour, tenant, content_type)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.ledger(hour, tenant, content_type)?),
            };
            ledger.add(&added);
        }
        let mut changes = std::mem::take(&mut stage.changes);
        for (&(hour, tenant, content_type), ledger) in &ledgers {
            changes.put_ledger(hour, tenant, content_type, ledger);
        }
        for (&tenant, head) in &stage.heads {
            changes.put_head(tenant, head);
        }
        changes.put_sums(&self.sums);
        let room = self.room_to_keep();
        changes.keep_room(room.clone());
        self.tree.database.commit(changes.batch)?;
        self.room = room.end;
        let mut seen = self.partition.seen_mut();
        for &(hash, blob) in &stage.seen {
            seen.insert(hash, blob);
        }
        for blob in &stage.blobs {
            self.pending.remove(blob);
        }
        self.ledgers = ledgers;
        Ok(())
    }

    /// The blobs to come for which there is to be room, besides those for which there is.
    pub(super) fn room_to_keep(&self) -> Range<BlobNumber> {
        let first = self.room.max(self.sums.next_blob);
        let enough = self.sums.next_blob.saturating_add(ROOM);
        first..if first < enough { enough.saturating_add(ROOM) } else { first }
    }

    pub(super) fn ledger(&self, hour: u32, tenant: TenantId, content_type: ContentType) -> Result<Ledger, StoreError> {
        match self.ledgers.get(&(hour, tenant, content_type)) {
            Some(ledger) => Ok(*ledger),
            None => Ok(self.tree.ledger(hour, tenant, content_type)?.unwrap_or_default()),
        }
    }
}

/// A body whose parts have begun to arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload {
    pub(super) tenant: TenantId,
    pub(super) blob: BlobNumber,
    pub(super) parts: u32,
}
