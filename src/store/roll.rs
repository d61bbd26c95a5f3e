//! Making, sealing and dropping partitions, and what happens when the newest is damaged.
//!
//! **Making.** Under `.new-<name>`: the label, the database, and as its first batch the heads of all chains, the
//! state's snapshot and the parts of bodies that are still arriving. When all of it is durable the directory gets its
//! name. What a crash leaves behind under the other name was never used, and is removed at the next start.
//!
//! **Sealing.** In the background, after the writer has moved on: leftovers of bodies that moved with it are removed,
//! the index of what was seen is written down, and last of all the file `sealed`. An error in between is made up for
//! after a while, a crash at the next start.
//!
//! **Dropping.** An anchor first; then the directory is renamed to `.dropping-<name>` once nobody reads it, or once those
//! who do have had their time, and removed. The next start goes on where a crash has stopped.
//!
//! **Damage of the newest.** If it shows while it is read, the partition stays where it is, as an older one does, and
//! another is begun. If it cannot be opened: an anchor, then the directory is moved to `aside/`, never removed; numbers go on behind a
//! floor that no number of the lost partition can have reached, and the chains start again from a link that only the
//! last known one gives.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::anchors::Gone;
use super::chain::heads_digest;
use super::database::{self, Access, Database};
use super::durable;
use super::error::StoreError;
use super::holdings::Holdings;
use super::job::UploadId;
use super::keys::BlobNumber;
use super::newest::{CACHE, Newest, Upload};
use super::partition::{self, Label, PartitionName};
use super::partitions::Partition;
use super::retention::{self, Decision, Keep, Retained, Standing};
use super::seen::Seen;
use super::tree::{Changes, Head, Position, Tree};
use super::writer::Writer;
use crate::content::TenantId;
use crate::event;
use crate::retry::{Backoff, Stage};

/// For how long readers of a partition that is to be dropped may go on.
const PATIENCE: Duration = Duration::from_mins(10);
/// How many keys are removed in one batch: sled keeps a batch in memory.
const REMOVALS: usize = 1000;
/// Copying goes in batches of about this size.
const COPY_BYTES: usize = 4 << 20;
/// A database takes about this much more than what is put into it, until it has been measured.
const OVERHEAD: f64 = 1.9;
/// How far apart the numbers before and after a lost partition are at least.
const FLOOR_STEP: u32 = 32;
const RESTART: &[u8] = b"tenantry chain restart v1\0";

/// The day in UTC.
pub(super) fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// What the files will take, from what has been put into them and from what they took when they were measured.
pub(super) fn estimated_size(put: u64, measured: (u64, u64)) -> u64 {
    let (put_then, size_then) = measured;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    let since = (put.saturating_sub(put_then) as f64 * OVERHEAD) as u64;
    size_then + since
}

/// The link from which a tenant's chain goes on after the partition before the one with this ordinal was lost.
pub(super) fn restart_link(tenant: TenantId, known: &[u8; 32], ordinal: u32) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [RESTART, tenant.as_bytes(), known, &ordinal.to_be_bytes()] {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What a new partition begins with.
struct Beginning<'a> {
    name: PartitionName,
    label: Label,
    heads: HashMap<TenantId, Head>,
    snapshot: Option<Vec<u8>>,
    uploads: Vec<(UploadId, Upload)>,
    /// Where the parts of the uploads are.
    from: Option<&'a Tree>,
}

impl Writer {
    /// Opens the partition that is written, or begins another if that is not possible. Nothing happens if there is
    /// none yet: the first blob makes it.
    ///
    /// Damage that shows only when it is read leaves the partition where it is, marked: the next blob goes into another.
    pub(super) fn open_newest(&mut self) -> Result<(), StoreError> {
        let Some(partition) = self.holdings.partitions.newest() else { return self.begin_after_the_only_one() };
        let next = partition.ordinal + 1;
        // Only a partition that has had a successor is sealed.
        if partition.sealed().is_some() || self.holdings.anchors().about(next).is_some() {
            tracing::error!(
                message_id = event::STORE_DAMAGED,
                partition = %partition.name,
                "the partition after this one is gone; what the service still holds is collected again"
            );
            let heads = self.holdings.last_known_heads()?;
            return self.begin_again(partition.name, next, heads);
        }
        let opened = match partition.unreadable() {
            Some(error) => Err(error),
            None => Newest::open(&partition, self.holdings.partitions.veil(partition.ordinal)),
        };
        // If a reader had it open, it is the writer's now.
        self.holdings.partitions.forget(partition.ordinal);
        match opened {
            Ok((newest, heads)) => {
                let removed = newest.tree.open_blobs().and_then(|blobs| remove_open(&newest.tree, blobs));
                removed.or_else(|error| partition.pass_over(error))?;
                if !newest.tree.database.is_open() {
                    newest.tree.database.reopen()?;
                }
                self.holdings.remember_anew(&partition)?;
                self.holdings.set_heads(heads);
                self.stored_to = self.stored_to.max(newest.stored_to);
                self.newest = Some(newest);
                Ok(())
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Undecodable { .. })) => {
                self.replace_damaged(&partition, &error)
            }
            Err(error) => Err(error),
        }
    }

    /// No partition is here. If there was one it was moved aside, and numbers go on behind those that it gave.
    fn begin_after_the_only_one(&mut self) -> Result<(), StoreError> {
        let lost = self.holdings.anchors().list().last().cloned();
        match lost.and_then(|lost| Some((lost.partition.parse().ok()?, lost.ordinals.1))) {
            Some((name, ordinal)) => self.begin_again(name, ordinal + 1, HashMap::new()),
            None => Ok(()),
        }
    }

    /// The time that is the store's: the service's, and never before what is stored already.
    pub(super) fn stamp(&mut self) -> Timestamp {
        let now = self.holdings.time.confirmed().unwrap_or_else(|| self.holdings.time.now());
        self.stored_to = self.stored_to.max(now);
        self.stored_to
    }

    /// Whether the day of the newest partition is over. Nobody knows while the service has not confirmed the time.
    pub(super) fn is_new_day(&self) -> bool {
        let newest = self.newest.as_ref().map(|newest| newest.partition.name.date);
        newest.zip(self.holdings.time.confirmed()).is_some_and(|(newest, now)| day_of(now) > newest)
    }

    /// Goes on in a new partition, of today or of the newest's day.
    pub(super) fn roll(&mut self) -> Result<(), StoreError> {
        let (now, stored_from) = (self.holdings.time.now(), self.stamp());
        let before = self.newest.as_ref().map(|newest| newest.partition.name);
        let confirmed = self.holdings.time.confirmed().map(day_of);
        let day = confirmed.or(before.map(|before| before.date)).unwrap_or_else(|| day_of(now));
        let (name, ordinal) = self.holdings.next_partition(before, day)?;
        let heads: HashMap<_, _> =
            self.holdings.heads().iter().map(|(tenant, head)| (*tenant, head.carried())).collect();
        let mut uploads: Vec<_> = self.uploads.iter().map(|(id, upload)| (*id, *upload)).collect();
        uploads.sort_unstable_by_key(|(_, upload)| upload.blob);
        let (snapshot, floor) = match &self.newest {
            Some(newest) => (self.holdings.snapshot_in(&newest.partition)?, newest.floor),
            None => (None, 0),
        };
        let beginning = Beginning {
            name,
            label: Label::new(name, ordinal, self.holdings.begin(now), floor, stored_from),
            heads,
            snapshot,
            uploads,
            from: self.newest.as_ref().map(|newest| &*newest.tree),
        };
        let (newest, uploads) = self.begin(beginning)?;
        let old = self.newest.replace(newest);
        self.uploads = uploads;
        if let Some(old) = old {
            let partition = Arc::clone(&old.partition);
            // Closed before the sealer opens it again, with the smaller cache.
            drop(old);
            self.sealer.seal(partition);
        }
        self.holdings.forget_what_is_old();
        // The copy outside of the store: whoever rebuilds the chains cannot change what the journal says of them.
        let tenants = self.holdings.heads().len();
        let heads = heads_digest(self.holdings.heads().iter().map(|(tenant, head)| (*tenant, head.start.link)));
        tracing::info!(message_id = event::PARTITION_BEGUN, partition = %name, tenants, heads, "a new partition of the store was begun");
        Ok(())
    }

    /// The newest partition cannot be opened: moves it out of the way and begins another. It stays in the list until it
    /// has been moved, so that the next attempt finds the same one.
    fn replace_damaged(&mut self, lost: &Arc<Partition>, error: &StoreError) -> Result<(), StoreError> {
        let now = self.holdings.time.now();
        let why = error.to_string();
        let gone = |moved_to| Gone::Damaged { why: why.clone(), moved_to };
        let heads = self.holdings.heads_in(lost);
        self.holdings.anchors().add(lost, gone(None), heads.clone(), now)?;
        let aside = self.holdings.store.join("aside");
        let moved_to = database::move_aside(&lost.directory, &aside, "damaged", now)?;
        self.holdings.partitions.remove(lost.ordinal);
        // Who reads it has it open still, and hears of it at the next step.
        lost.end(Duration::ZERO);
        tracing::error!(
            message_id = event::STORE_DAMAGED,
            partition = %lost.name,
            moved_to = %moved_to.display(),
            cause = why,
            heads,
            "the newest partition of the store is damaged and was moved aside; what the service still holds is \
             collected again"
        );
        self.holdings.anchors().add(lost, gone(Some(moved_to)), heads, now)?;
        let heads = self.holdings.last_known_heads()?;
        self.begin_again(lost.name, lost.ordinal + 1, heads)
    }

    /// Begins a partition after one that is lost; no name is given twice.
    fn begin_again(
        &mut self,
        after: PartitionName,
        ordinal: u32,
        known: HashMap<TenantId, Head>,
    ) -> Result<(), StoreError> {
        let (name, free) = self.holdings.next_partition(Some(after), after.date)?;
        let ordinal = ordinal.max(free);
        let restarted = |tenant, known: Head| {
            let start = Position { link: restart_link(tenant, &known.now.link, ordinal), ..known.now };
            Head { now: start.clone(), start }
        };
        let heads = known.into_iter().map(|(tenant, head)| (tenant, restarted(tenant, head))).collect();
        let floor = u64::from(ordinal) << FLOOR_STEP;
        let sealed = |partition: Arc<Partition>| Some(partition.sealed()?.stored.0?.1);
        let stored = self.holdings.partitions.list().into_iter().filter_map(sealed).max();
        self.stored_to = self.stored_to.max(stored.unwrap_or(Timestamp::MIN));
        let stored_from = self.stamp();
        let label = Label::new(name, ordinal, self.holdings.begin(self.holdings.time.now()), floor, stored_from);
        let snapshot = self.holdings.snapshot()?;
        let beginning = Beginning { name, label, heads, snapshot, uploads: Vec::new(), from: None };
        let (newest, _) = self.begin(beginning)?;
        self.newest = Some(newest);
        self.uploads.clear();
        Ok(())
    }

    /// Makes a partition and opens it. From its renaming on it is the newest, whatever comes of opening it: the next
    /// attempt opens it again.
    fn begin(&self, beginning: Beginning<'_>) -> Result<(Newest, HashMap<UploadId, Upload>), StoreError> {
        let content = self.holdings.partitions.content();
        let directory = content.join(beginning.name.to_string());
        let (making, uploads) = make(content, &beginning)?;
        let renamed = durable::rename(&making, &directory);
        if let Err(error) = &renamed
            && making.exists()
        {
            return Err(error.clone());
        }
        let (begun, key) = (Some(beginning.label.begun()), self.holdings.seen_key);
        let partition = Partition::new(beginning.name, beginning.label.ordinal, begun, directory, key);
        *partition.seen_mut() = Seen::empty(&partition.directory, key);
        let partition = Arc::new(partition);
        self.holdings.begun(Arc::clone(&partition), beginning.heads);
        let veil = self.holdings.partitions.veil(partition.ordinal);
        let (mut newest, _) = renamed.and_then(|()| Newest::open(&partition, veil))?;
        newest.pending = uploads.values().map(|upload| upload.blob).collect();
        Ok((newest, uploads))
    }
}

/// Makes the directory of a new partition under its working name.
fn make(content: &Path, beginning: &Beginning<'_>) -> Result<(PathBuf, HashMap<UploadId, Upload>), StoreError> {
    let making = content.join(format!(".new-{}", beginning.name));
    durable::remove_directory(&making)?;
    durable::make_directory(&making)?;
    beginning.label.write(&making)?;
    let database = Database::open(&making.join("db"), Access { cache_bytes: CACHE, create: true, tidy: true })?;

    let mut changes = Changes::default();
    for (tenant, head) in &beginning.heads {
        changes.put_head(*tenant, head);
    }
    if let Some(snapshot) = &beginning.snapshot {
        changes.put_snapshot(snapshot, 0);
    }
    let mut sums = partition::Sums::default();
    let mut moved = HashMap::new();
    for (id, upload) in &beginning.uploads {
        let blob = sums.take_number();
        changes.put_open(blob);
        moved.insert(*id, Upload { blob, ..*upload });
    }
    changes.put_sums(&sums);
    database.commit(std::mem::take(&mut changes.batch))?;
    for (id, upload) in &beginning.uploads {
        let to = moved[id].blob;
        for part in 0..upload.parts {
            let bytes = beginning.from.map(|from| from.part(upload.blob, part)).transpose()?.flatten();
            let missing = || StoreError::Undecodable {
                path: making.clone(),
                what: "a body that is still arriving",
                why: "a part of it is missing".to_owned(),
            };
            changes.put_part(to, part, &bytes.ok_or_else(missing)?);
            if changes.batch.bytes() >= COPY_BYTES {
                database.commit(std::mem::take(&mut changes.batch))?;
            }
        }
    }
    if !changes.batch.is_empty() {
        database.commit(changes.batch)?;
    }
    // Closed before its directory is renamed: sled keeps the path for its snapshots.
    drop(database);
    durable::sync_tree(&making)?;
    Ok((making, moved))
}

/// Removes the parts of bodies that never got a header.
pub(super) fn remove_open(tree: &Tree, blobs: impl IntoIterator<Item = BlobNumber>) -> Result<(), StoreError> {
    for blob in blobs {
        loop {
            let keys = tree.part_keys(blob, REMOVALS)?;
            let last = keys.len() < REMOVALS;
            let mut changes = Changes::default();
            for key in keys {
                changes.batch.remove(key);
            }
            if last {
                changes.remove_open(blob);
            }
            tree.database.commit(changes.batch)?;
            if last {
                break;
            }
        }
    }
    Ok(())
}

/// The thread that seals.
#[derive(Debug)]
pub(super) struct Sealer {
    partitions: Option<mpsc::Sender<Arc<Partition>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    pub(super) fn start(holdings: Arc<Holdings>) -> Result<Self, StoreError> {
        let (sender, partitions) = mpsc::channel::<Arc<Partition>>();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("store-seal".to_owned())
            .spawn(move || seal_all(&holdings, &partitions, &stop))
            .map_err(|error| StoreError::Thread { name: "store-seal", source: Arc::new(error) })?;
        Ok(Self { partitions: Some(sender), stopping, thread: Some(thread) })
    }

    pub(super) fn seal(&self, partition: Arc<Partition>) {
        if let Some(partitions) = &self.partitions {
            // The thread ends only with the writer, or by a panic, and then the next start seals.
            drop(partitions.send(partition));
        }
    }

    /// Ends after the partition that is being sealed; the next start seals the others.
    pub(super) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.partitions = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Seals what comes. What cannot be sealed for now is tried again, with growing intervals.
fn seal_all(holdings: &Holdings, partitions: &mpsc::Receiver<Arc<Partition>>, stop: &AtomicBool) {
    let mut waiting: Vec<Arc<Partition>> = Vec::new();
    let mut backoff = Backoff::new(Stage::Store);
    let mut wait = Duration::ZERO;
    loop {
        let next = if waiting.is_empty() {
            partitions.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            partitions.recv_timeout(wait)
        };
        match next {
            Ok(partition) => waiting.push(partition),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|partition| {
            let Err(error) = (if stop.load(Ordering::Relaxed) { Ok(()) } else { seal(holdings, partition) }) else {
                return false;
            };
            wait = backoff.failed(None);
            if backoff.attempts().is_power_of_two() {
                // Nothing is lost: it is only slower to read.
                let error = error.trouble().cause;
                tracing::warn!(partition = %partition.name, error, "a partition could not be sealed yet");
            }
            true
        });
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if waiting.is_empty() {
            backoff.succeeded();
        }
    }
}

/// Seals a partition, unless it is damaged or goes; what may pass is an error.
fn seal(holdings: &Holdings, partition: &Arc<Partition>) -> Result<(), StoreError> {
    if partition.sealed().is_some() || partition.unreadable().is_some() {
        return Ok(());
    }
    let sealed = holdings.partitions.read(partition).and_then(|reading| {
        remove_open(&reading, reading.open_blobs()?)?;
        let sums = reading.sums()?;
        holdings.merge_seen(partition, &reading, sums.next_blob)?;
        partition::write_sealed(&partition.directory, &sums)?;
        Ok(sums)
    });
    // After a failed write it is closed; who reads it next opens it again.
    holdings.partitions.forget(partition.ordinal);
    match sealed {
        Ok(sums) => partition.seal(sums),
        Err(error) => partition.pass_over(error)?,
    }
    holdings.sealings.send_modify(|count| *count += 1);
    Ok(())
}

/// Drops the partitions of the days before `before`, except the newest; returns their names.
#[cfg(test)]
pub(super) fn drop_partitions(
    holdings: &Holdings,
    before: Date,
    patience: Duration,
) -> Result<Vec<String>, StoreError> {
    let list = holdings.partitions.list();
    let count = list.iter().take_while(|partition| partition.name.date < before).count();
    drop_oldest(holdings, count, patience)
}

/// Drops so many of the oldest partitions, but never the newest; returns their names.
fn drop_oldest(holdings: &Holdings, count: usize, patience: Duration) -> Result<Vec<String>, StoreError> {
    let mut list = holdings.partitions.list();
    list.pop();
    let mut dropped = Vec::new();
    for partition in list.iter().take(count) {
        let heads = holdings.heads_in(partition);
        holdings.anchors().add(partition, Gone::Dropped, heads.clone(), holdings.time.now())?;
        // Who writes it anew gives up, and puts nothing in its place.
        partition.end(patience);
        let _moving = holdings.moving();
        holdings.partitions.remove(partition.ordinal);
        remove(&partition.directory)?;
        tracing::info!(message_id = event::PARTITION_DROPPED, partition = %partition.name, heads, "a partition was dropped");
        dropped.push(partition.name.to_string());
    }
    Ok(dropped)
}

/// Drops what is not to be kept at this time, which the service has confirmed.
pub(super) fn retain(holdings: &Holdings, keep: Keep, now: Timestamp) -> Result<Retained, StoreError> {
    let list = holdings.partitions.list();
    let recent: HashSet<u32> = holdings.recent().iter().map(|partition| partition.ordinal).collect();
    let mut standing = Vec::with_capacity(list.len());
    for partition in &list {
        standing.push(Standing {
            name: partition.name,
            bytes: durable::size(&partition.directory)?,
            stored: partition.sealed().and_then(|sums| Some(sums.stored.0?.1)),
            recent: recent.contains(&partition.ordinal),
        });
    }
    let dropped_at =
        holdings.anchors().list().iter().filter(|anchor| anchor.reason == Gone::Dropped).map(|one| one.at).max();
    let Decision { count, reason, excess } = retention::decide(&standing, keep, dropped_at, now);
    let dropped = drop_oldest(holdings, count, PATIENCE)?;
    Ok(Retained { dropped, reason, excess })
}

/// Removes a partition's directory: out of sight at once, then piece by piece.
pub(super) fn remove(directory: &Path) -> Result<(), StoreError> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let dropping = directory.with_file_name(format!(".dropping-{name}"));
    durable::rename(directory, &dropping)?;
    durable::remove_directory(&dropping)
}
