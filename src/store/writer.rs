//! The writer of content: one thread that makes blobs visible and durable.
//!
//! Bodies arrive received, checked, hashed, cut and compressed; here they get their number, their link in the chain
//! and the marks of their duplicates, and are written in groups: up to [`GROUP`] blobs or [`GROUP_WAIT`], one batch,
//! one sync, then all are acknowledged. The memory of what waits here is bounded by whoever sends: every part comes
//! with its share of one budget of bytes.
//!
//! Parts of large bodies come ahead of their header. They are written at once and can be read by nobody; a key says
//! that they are there, until the header comes in the last batch or they are removed: when the receiver gives up, or at
//! the next opening.
//!
//! **Invariants:** a number, once given, is never followed by a smaller one in the same tenant's content type, and
//! readers see a blob only when it is durable; whatever is acknowledged survives a power cut; after an error nothing
//! that was not acknowledged is relied upon: the writer forgets what it knows and reads it again from the disk.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Stored;
use super::before::Before;
use super::chain;
use super::confirm::Indices;
use super::database::{self, panic_text};
use super::error::StoreError;
use super::header::{BlobHeader, Place};
use super::holdings::Holdings;
use super::job::{Job, Parts, Received, UploadId};
use super::newest::{Newest, Upload};
use super::roll::{self, Sealer};
use super::stage::{Known, Stage};
use super::tree::{BlobIndex, Head, Ledger, Tree, hour_of};
use crate::content::{ContentType, TenantId};
use crate::event;
use crate::retry::{Backoff, Stage as RetryStage};

/// The most blobs in one batch.
const GROUP: usize = 32;
/// The longest that a blob waits for others to be written with.
const GROUP_WAIT: Duration = Duration::from_millis(50);
/// How long the next one may take to come before those that are there are written.
const GROUP_GAP: Duration = Duration::from_millis(4);
/// A group is written in several batches if it is larger.
const BATCH_BYTES: usize = 4 << 20;
/// How often the writer looks after itself when nothing comes.
const IDLE: Duration = Duration::from_secs(30);
/// How often the files of the database are looked at.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How many records a batch holds at most, or one blob.
const BATCH_RECORDS: usize = 50_000;

/// What a bug here would do, in tests: a blob of this name makes the writer panic.
#[cfg(test)]
pub(super) const PANICS: &str = "makes the writer panic";

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) holdings: Arc<Holdings>,
    pub(super) jobs: Receiver<Job>,
    pub(super) partition_bytes: u64,
    /// Nothing before the first blob, and after an error until everything has been read again.
    pub(super) newest: Option<Newest>,
    pub(super) uploads: HashMap<UploadId, Upload>,
    /// Received in vain: their content was stored already.
    discards: Vec<Upload>,
    pub(super) sealer: Sealer,
    /// The last time that was given to a blob as that of its storing: never a smaller one follows.
    pub(super) stored_to: Timestamp,
    /// How many blobs there were in the last group.
    together: usize,
    trouble: Option<Suspended>,
    looked: Instant,
}

/// Why a blob is not staged.
enum Refused {
    /// It concerns this one only.
    Blob(StoreError),
    /// Nothing can be written.
    All(StoreError),
}

/// Writing failed: until when nothing is tried.
#[derive(Debug)]
struct Suspended {
    error: StoreError,
    backoff: Backoff,
    again: Instant,
    /// The partition that was written, so that it stays open for its readers, or closed for all, until it is opened again.
    tree: Option<Arc<Tree>>,
}

impl Writer {
    pub(super) fn new(holdings: Arc<Holdings>, jobs: Receiver<Job>, partition_bytes: u64, sealer: Sealer) -> Self {
        Self {
            holdings,
            jobs,
            partition_bytes,
            newest: None,
            uploads: HashMap::new(),
            discards: Vec::new(),
            sealer,
            stored_to: Timestamp::MIN,
            together: 0,
            trouble: None,
            looked: Instant::now(),
        }
    }

    /// Works until the store is closed or nobody is left who could ask for anything.
    pub(super) fn run(mut self) {
        loop {
            let Some(mut group) = self.next_group() else { break };
            let closing = match group.pop_if(|job| matches!(job, Job::Close { .. })) {
                Some(Job::Close { done }) => Some(done),
                _ => None,
            };
            self.work(group);
            if let Some(done) = closing {
                if let Some(newest) = self.newest.take()
                    && let Err(error) = newest.flush_seen()
                {
                    tracing::debug!(%error, "an index was not written; the next opening makes it again");
                }
                self.sealer.stop();
                drop(done.send(Ok(())));
                return;
            }
        }
        self.sealer.stop();
    }

    /// What is to be written together. A group ends with `Close` or `Roll` if one comes.
    fn next_group(&mut self) -> Option<Vec<Job>> {
        let mut group = match self.jobs.recv_timeout(IDLE) {
            Ok(Job::Pulse { done }) => {
                _ = done.send(());
                return Some(Vec::new());
            }
            Ok(job) => vec![job],
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let until = Instant::now() + GROUP_WAIT;
        let (mut blobs, mut bytes) = (0, 0);
        loop {
            match group.last() {
                Some(Job::Blob { parts, .. }) => {
                    blobs += 1;
                    bytes += parts.bytes();
                }
                Some(Job::Parts { parts, .. }) => bytes += parts.bytes(),
                Some(Job::Snapshot { .. } | Job::Abandon { .. } | Job::Pulse { .. }) | None => {}
                Some(Job::Roll { .. } | Job::Purge { .. } | Job::Close { .. }) => break,
            }
            if blobs >= GROUP || bytes >= 2 * BATCH_BYTES {
                break;
            }
            // Nobody is on the way, and the last one came alone: waiting would only delay those who are here.
            let expected = blobs > 0 && (self.together > 1 || self.holdings.receiving.load(Ordering::Relaxed) > 0);
            let wait =
                if expected { until.saturating_duration_since(Instant::now()).min(GROUP_GAP) } else { Duration::ZERO };
            match self.jobs.recv_timeout(wait) {
                Ok(Job::Pulse { done }) => _ = done.send(()),
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        self.together = blobs;
        Some(group)
    }

    /// Does what a group asks for; whatever happens, everybody gets an answer.
    fn work(&mut self, group: Vec<Job>) {
        if let Some(trouble) = &self.trouble
            && (Instant::now() < trouble.again || group.is_empty())
        {
            let error = trouble.error.clone();
            return refuse(group, &error);
        }
        let mut rest = group;
        let mut stage = Stage::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.attempt(&mut rest, &mut stage)));
        let error = match outcome {
            Ok(Ok(())) => {
                if self.trouble.take().is_some() {
                    tracing::info!(message_id = event::STORE_WRITABLE, "the store can be written again");
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(panic) => StoreError::WriterEnded { writer: "content", why: panic_text(panic.as_ref()).to_owned() },
        };
        // One panic is not everybody's.
        let error = match error {
            StoreError::Panicked { .. } => self.incomplete(),
            error => error,
        };
        stage.refuse(&error);
        refuse(rest, &error);
        self.suspend(error);
    }

    fn suspend(&mut self, error: StoreError) {
        // What is in memory may be ahead of the disk or behind it.
        let written = self.newest.take();
        if let Some(newest) = &written
            && matches!(error, StoreError::Damaged { .. } | StoreError::Undecodable { .. })
        {
            newest.partition.complain(&error);
        }
        self.uploads.clear();
        self.discards.clear();
        let (mut backoff, before) = match self.trouble.take() {
            Some(trouble) => (trouble.backoff, trouble.tree),
            None => (Backoff::new(RetryStage::Store), None),
        };
        let tree = written.map(|newest| newest.tree).or(before);
        let wait = backoff.failed(None);
        // The first few, then with growing intervals.
        if backoff.attempts().is_power_of_two() {
            let cause = error.trouble().cause;
            tracing::error!(
                message_id = event::STORE_UNWRITABLE,
                cause,
                remedy = error.remedy(),
                attempt = backoff.attempts(),
                "the store cannot be written"
            );
        }
        self.trouble = Some(Suspended { error, backoff, again: Instant::now() + wait, tree });
    }

    fn watch_for_blobs(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        if let Some(newest) = &self.newest
            && newest.tree.database.blobs_present().unwrap_or(false)
        {
            database::tell_of_blobs(newest.tree.database.directory());
        }
    }

    fn attempt(&mut self, group: &mut Vec<Job>, stage: &mut Stage) -> Result<(), StoreError> {
        self.watch_for_blobs();
        if self.newest.is_none() && !group.is_empty() {
            self.open_newest()?;
            self.seal_what_is_not();
        }
        let mut indices = Indices::default();
        while !group.is_empty() {
            // A job stays in the group until it is staged, so that it is answered if staging fails.
            if matches!(group[0], Job::Parts { .. } | Job::Blob { .. }) {
                self.make_room(stage)?;
            }
            let job = group.remove(0);
            match job {
                Job::Parts { upload, of, parts } => self.stage_parts(upload, of, &parts, stage),
                Job::Blob { upload, received, parts, done } => {
                    let opened = self.uploads.remove(&upload);
                    if received.life != self.holdings.purges().life(received.tenant) {
                        self.discards.extend(opened);
                        drop(done.send(Err(StoreError::Purged { tenant: received.tenant })));
                        continue;
                    }
                    if opened.map_or(0, |upload| upload.parts) != parts.first {
                        // What went ahead was lost to a write error.
                        drop(done.send(Err(self.incomplete())));
                        continue;
                    }
                    let staging = || self.stage_blob(opened, &received, &parts, stage, &mut indices);
                    // What makes it panic will do so again: that counts against this blob, the others come again.
                    let staged = catch_unwind(AssertUnwindSafe(staging)).unwrap_or_else(|panic| {
                        Err(Refused::All(StoreError::Panicked { why: panic_text(panic.as_ref()).to_owned() }))
                    });
                    match staged {
                        Ok(stored) => stage.done.push((done, stored)),
                        Err(Refused::Blob(error)) => drop(done.send(Err(error))),
                        Err(Refused::All(error)) => {
                            drop(done.send(Err(error.clone())));
                            return Err(error);
                        }
                    }
                }
                Job::Abandon { upload } => {
                    if let Some(open) = self.uploads.remove(&upload) {
                        // Its parts may still be in the batch.
                        self.commit(stage)?;
                        self.discard(open)?;
                    }
                }
                Job::Snapshot { bytes, owners, done } => {
                    if let Some(newest) = &mut self.newest {
                        newest.put_snapshot(&mut stage.changes, &bytes, owners);
                    }
                    stage.snapshots.push((done, self.newest.is_some()));
                }
                Job::Roll { done } => {
                    let rolled = self.commit(stage).and_then(|()| self.roll());
                    drop(done.send(rolled.clone()));
                    rolled?;
                }
                Job::Purge { tenant, done } => {
                    let begun = self.commit(stage).and_then(|()| self.begin_purge(tenant));
                    drop(done.send(begun.clone()));
                    begun?;
                }
                Job::Pulse { .. } | Job::Close { .. } => unreachable!("it was taken out of the group"),
            }
            if stage.changes.batch.bytes() >= BATCH_BYTES || stage.records.len() >= BATCH_RECORDS {
                self.commit(stage)?;
            }
        }
        self.commit(stage)
    }

    /// Removes the parts of a body that nobody will ask for.
    fn discard(&mut self, open: Upload) -> Result<(), StoreError> {
        let Some(newest) = &mut self.newest else { return Ok(()) };
        newest.pending.remove(&open.blob);
        roll::remove_open(&newest.tree, [open.blob])
    }

    /// Sees to it that there is a partition for what is stored now.
    fn make_room(&mut self, stage: &mut Stage) -> Result<(), StoreError> {
        let new_day = self.is_new_day();
        let due = match &mut self.newest {
            None => true,
            Some(newest) => {
                new_day
                    || newest.partition.is_damaged()
                    || self.holdings.purges().end(newest.partition.ordinal)
                    || newest.is_full(self.partition_bytes)?
            }
        };
        if due {
            self.commit(stage)?;
            self.roll()?;
        }
        Ok(())
    }

    fn stage_parts(&mut self, upload: UploadId, (tenant, life): (TenantId, u32), parts: &Parts, stage: &mut Stage) {
        let Some(newest) = &mut self.newest else { return };
        if life != self.holdings.purges().life(tenant) {
            return;
        }
        if parts.first == 0 {
            let blob = newest.take_number();
            stage.changes.put_open(blob);
            self.uploads.insert(upload, Upload { tenant, blob, parts: 0 });
        }
        let Some(open) = self.uploads.get_mut(&upload) else { return };
        for part in &parts.frames {
            stage.changes.put_part(open.blob, open.parts, part);
            open.parts += 1;
        }
    }

    fn stage_blob(
        &mut self,
        opened: Option<Upload>,
        received: &Received,
        parts: &Parts,
        stage: &mut Stage,
        indices: &mut Indices,
    ) -> Result<Stored, Refused> {
        #[cfg(test)]
        assert_ne!(received.blob.content_id.as_str(), PANICS, "a blob that makes the writer panic");
        let (tenant, content_type) = (received.tenant, received.blob.content_type);
        let name = (tenant, received.blob.content_id.clone());
        let before = match Before::of(received, &self.holdings, &self.holdings.recent(), stage, indices) {
            Ok(before) => before,
            // The partition that is written is closed: that is everybody's trouble.
            Err(error @ StoreError::Suspended { .. }) => return Err(Refused::All(error)),
            Err(error) => {
                self.discards.extend(opened);
                return Err(Refused::Blob(error));
            }
        };
        let revision = match &before.known {
            Some(known) if before.is_stored(received) => {
                self.discards.extend(opened);
                return Ok(known.stored.clone());
            }
            Some(known) => known.revision.saturating_add(1),
            None => 0,
        };

        let Upload { blob, parts: ahead, .. } = match opened {
            Some(open) => open,
            None => Upload { tenant, blob: self.newest_mut().take_number(), parts: 0 },
        };
        let (stored_at, seq) = (self.stamp(), self.next_seq(tenant, content_type, stage));
        let newest = self.newest.as_mut().expect("`make_room` has seen to it");
        let body = &received.body;
        let this = Place { partition: newest.partition.ordinal, content_type, seq };
        let duplicates = before.mark(this, blob, stage);
        let mut count = ahead;
        for part in &parts.frames {
            stage.changes.put_part(blob, count, part);
            count += 1;
        }
        if ahead > 0 {
            stage.changes.remove_open(blob);
        }

        let head = match stage.heads.entry(tenant) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.holdings.head(tenant)),
        };
        head.now.last.insert(content_type.code(), seq);
        let mut header = BlobHeader {
            content_type,
            seq,
            blob_no: blob,
            content_id: received.blob.content_id.clone(),
            content_uri: received.blob.content_uri.clone(),
            content_created: received.blob.content_created,
            content_expiration: received.blob.content_expiration,
            fetched: received.fetched.clone(),
            stored_at,
            bytes: body.bytes,
            compressed: body.compressed,
            parts: count,
            records: body.records,
            sha256: body.sha256,
            created_min: body.created_min,
            created_max: body.created_max,
            previous: head.now.link,
            link: [0; 32],
            revision,
            duplicates,
            foreign: body.foreign.clone(),
            defect: body.defect.clone(),
        };
        header.link = chain::link(tenant, &header);
        head.now.link = header.link;
        head.now.length += 1;
        newest.sums.add(&header);
        let put = stage.changes.put_header(tenant, &header);
        put.map_err(|why| Refused::All(newest.tree.undecodable("a blob's header", why)))?;
        stage.changes.put_index(
            blob,
            &BlobIndex {
                tenant,
                content_type,
                seq: header.seq,
                content_id: header.content_id.clone(),
                ids: body.ids.clone(),
            },
        );
        stage.seen.push((self.holdings.seen_key.content(tenant, &name.1), blob));
        stage.blobs.push(blob);
        stage.added.push((hour_of(header.stored_at), tenant, content_type, Ledger::of(&header)));
        let known = Known::of(&header);
        let stored = Stored { new: true, ..known.stored.clone() };
        stage.content.insert(name, known);
        Ok(stored)
    }

    /// The number of the tenant's next blob.
    fn next_seq(&self, tenant: TenantId, content_type: ContentType, stage: &Stage) -> u64 {
        let last = |head: &Head| head.now.last.get(&content_type.code()).copied();
        let last = stage.heads.get(&tenant).map_or_else(|| last(&self.holdings.head(tenant)), last);
        last.unwrap_or(0).max(self.newest().floor) + 1
    }

    /// Writes what is staged and, when that is durable, tells everybody. After an error those who wait are still in
    /// the stage.
    fn commit(&mut self, stage: &mut Stage) -> Result<(), StoreError> {
        if let Some(newest) = &mut self.newest {
            newest.write(stage)?;
        }
        std::mem::take(stage).settle(&self.holdings);
        for open in std::mem::take(&mut self.discards) {
            self.discard(open)?;
        }
        Ok(())
    }

    /// What was sent ahead of a body is gone.
    fn incomplete(&self) -> StoreError {
        let newest = self.newest.as_ref().map(|newest| newest.partition.directory.clone());
        StoreError::Suspended { path: newest.unwrap_or_else(|| self.holdings.store.clone()) }
    }

    fn newest(&self) -> &Newest {
        self.newest.as_ref().expect("there is a partition before anything is staged")
    }

    fn newest_mut(&mut self) -> &mut Newest {
        self.newest.as_mut().expect("there is a partition before anything is staged")
    }

    /// Partitions that a crash has kept from being sealed.
    pub(super) fn seal_what_is_not(&self) {
        let mut list = self.holdings.partitions.list();
        list.pop();
        for partition in list {
            if partition.sealed().is_none() && partition.unreadable().is_none() {
                self.sealer.seal(partition);
            }
        }
    }
}

fn refuse(group: Vec<Job>, error: &StoreError) {
    for job in group {
        match job {
            Job::Parts { .. } | Job::Abandon { .. } | Job::Pulse { .. } => {}
            Job::Blob { done, .. } => drop(done.send(Err(error.clone()))),
            Job::Snapshot { done, .. } => drop(done.send(Err(error.clone()))),
            Job::Purge { done, .. } => drop(done.send(Err(error.clone()))),
            Job::Roll { done, .. } | Job::Close { done } => drop(done.send(Err(error.clone()))),
        }
    }
}
