//! The store as everything above it sees it: content and state behind one lock, in domain words.
//!
//! Content is the truth. So content is opened first, and a state that is missing is fed from the snapshot that content
//! keeps; what the queue of the state holds is compared with content before it is handed out, so that nothing that is
//! stored is fetched again; and the removal of a queue entry is asked for only when its content is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::Histogram;
use tokio::sync::watch;

use super::content::{As, BlobWriter, Content, ContentOptions, Kind};
use super::database::FLUSHES;
use super::error::StoreError;
use super::format::Format;
use super::holdings::Holdings;
use super::lock::{Holder, LockRequest, StoreLock};
use super::read::{self, Page};
use super::retention::{Keep, Retained};
use super::roll;
use super::seen::SeenKey;
use super::state::{DeadLetter, State, StateOptions};
use super::tree::Ledger;
use super::verify;
use super::{
    Anchor, BlobHeader, Enqueued, Fetched, Heads, Options, Query, QueueDepth, QueueEntry, Record, Refused,
    SensitiveTypes, Verification, Wait, WaitKey, Watermark,
};
use crate::clock::ServiceTime;
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier, WHOLE_AFTER};
use crate::event;
use crate::language::Language;
use crate::report::StoredToday;

/// So many of what is to be looked at again are handed out at a time: what is new meanwhile waits for no more of them.
const SECOND_LOOKS: usize = 4;

/// So many headers are read at a time.
const HEADERS: usize = 256;

/// How often what Microsoft cannot give back is copied from the state into the newest partition, if it has changed.
const SNAPSHOT_EVERY: Duration = Duration::from_mins(1);

/// The open store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    content: Content,
    state: State,
    time: Arc<ServiceTime>,
    snapshots: Mutex<Option<Snapshots>>,
    /// Held by who works on a purge.
    purging: Arc<tokio::sync::Mutex<()>>,
    /// Held by who begins the partition behind a cut.
    cutting: tokio::sync::Mutex<()>,
    /// Whether the store is being closed: who works on a purge breaks off.
    closing: watch::Sender<bool>,
    // Dropped last: until then nobody else may open any of it.
    lock: Mutex<Option<StoreLock>>,
}

/// Opening and closing.
impl Store {
    /// Opens or makes the store. Blocking: takes the lock, opens the newest partition and the state, rebuilds what is
    /// lost.
    pub fn open(options: &Options, time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        Self::open_locked(options, time, true)
    }

    /// The same for whoever must not make others give way: it waits like a reader.
    pub fn open_in_turn(options: &Options, time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        Self::open_locked(options, time, false)
    }

    fn open_locked(options: &Options, time: Arc<ServiceTime>, urgent: bool) -> Result<Self, StoreError> {
        let lock = StoreLock::take(&options.path, &options.lock_request(&time, urgent))?;
        let content = Content::open(&options.content()?, Arc::clone(&time))?;
        let state = open_state(options, &content, &time)?;
        content.holdings.purges().change(|records| records.iter_mut().for_each(|record| record.cleared = true))?;
        let snapshots = Snapshots::start(&content, &state, &time)?;
        Ok(Self::new(content, state, time, Some(snapshots), lock))
    }

    /// Opens what a query needs while no daemon runs. Blocking. The path may be `.`.
    pub fn open_to_read(options: &Options, time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        let lock = StoreLock::take(&options.path, &options.lock_request(&time, false))?;
        let content = Content::open_to_read(&options.content()?, Arc::clone(&time))?;
        let state = open_state(options, &content, &time)?;
        Ok(Self::new(content, state, time, None, lock))
    }

    fn new(
        content: Content,
        state: State,
        time: Arc<ServiceTime>,
        snapshots: Option<Snapshots>,
        lock: StoreLock,
    ) -> Self {
        let (snapshots, lock) = (Mutex::new(snapshots), Mutex::new(Some(lock)));
        let (purging, cutting, closing) = (Arc::default(), tokio::sync::Mutex::default(), watch::Sender::new(false));
        Self(Arc::new(Inner { content, state, time, snapshots, purging, cutting, closing, lock }))
    }

    /// Writes what is under way and closes the databases.
    pub async fn close(self) -> Result<(), StoreError> {
        self.0.closing.send_replace(true);
        let _purging = self.0.purging.lock().await;
        let settled = self.0.state.settle().await;
        let snapshots = self.0.snapshots.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(snapshots) = snapshots {
            drop(tokio::task::spawn_blocking(move || snapshots.stop()).await);
        }
        let content = self.0.content.close().await;
        let state = self.0.state.close().await;
        self.lock().take();
        settled.and(content).and(state)
    }

    /// Resolves when a writer thread has ended although nobody closed the store: the daemon stops, failing.
    pub async fn failed(&self) -> StoreError {
        tokio::select! {
            error = self.0.content.failed() => error,
            error = self.0.state.failed() => error,
        }
    }

    /// Resolves when both writers' threads have come by: they do not hang. A store that cannot be written, because the
    /// disk is full for example, has a pulse.
    pub async fn pulse(&self) {
        tokio::join!(self.0.content.pulse(), self.0.state.pulse());
    }

    /// Whether a daemon waits for this store's lock: a command gives way.
    #[must_use]
    pub fn someone_waits(&self) -> bool {
        self.lock().as_ref().is_some_and(StoreLock::someone_waits)
    }

    /// The service's time, as far as it is known.
    pub(super) fn now(&self) -> Timestamp {
        self.0.time.now()
    }

    /// The service says this time, often enough to be believed.
    #[cfg(test)]
    pub(super) fn tell(&self, now: Timestamp) {
        (0..9).for_each(|_| self.0.time.observe(now));
    }

    pub(super) fn holdings(&self) -> &Holdings {
        &self.0.content.holdings
    }

    pub(super) fn content(&self) -> &Content {
        &self.0.content
    }

    pub(super) fn state(&self) -> &State {
        &self.0.state
    }

    pub(super) fn purging(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.0.purging
    }

    pub(super) fn cutting(&self) -> &tokio::sync::Mutex<()> {
        &self.0.cutting
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    /// Has what Microsoft cannot give back copied into the newest partition now, and not within the minute. Returns before
    /// that is done.
    pub(super) fn copy_soon(&self) {
        if let Some(snapshots) = &*self.0.snapshots.lock().unwrap_or_else(PoisonError::into_inner) {
            snapshots.prompt();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoreLock>> {
        self.0.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what Microsoft cannot give back from the state into the newest partition. False if there is none.
    pub(super) async fn put_snapshot(&self) -> Result<bool, StoreError> {
        self.0.state.settle().await?;
        let (state, now) = (self.0.state.clone(), self.0.time.now());
        self.read(move |content| content.put_snapshot(|| state.snapshot(now))).await
    }

    /// Blocking work on what is there, away from the async workers.
    pub(super) async fn read_holdings<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Holdings) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(move |content| work(&content.holdings)).await
    }

    /// Blocking work on content, away from the async workers.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Content) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let content = self.0.content.clone();
        match tokio::task::spawn_blocking(move || work(&content)).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

/// Storing.
impl Store {
    /// Begins to receive the body of `blob`. With a `defect` the bytes are kept whatever they are, and this is why: for
    /// bodies that are given up on.
    #[must_use]
    pub fn receive(
        &self,
        tenant: TenantId,
        blob: &ContentBlob,
        fetched: Fetched,
        defect: Option<String>,
    ) -> BlobWriter {
        let kind = defect.map_or(Kind::Records, Kind::GivenUp);
        self.0.content.receive(tenant, blob, fetched, kind)
    }

    /// The same for a body that was fetched again: if it is another one than the one stored, it is stored as a further
    /// revision.
    #[must_use]
    pub fn receive_revision(&self, tenant: TenantId, blob: &ContentBlob, fetched: Fetched) -> BlobWriter {
        self.0.content.receive(tenant, blob, fetched, Kind::Revision)
    }

    /// Whether this content id is stored in a partition of the last nine days.
    pub async fn is_stored(&self, tenant: TenantId, content_id: &ContentId) -> Result<bool, StoreError> {
        let stored = self.are_stored(tenant, vec![content_id.clone()]).await?;
        Ok(stored.first().copied().unwrap_or(false))
    }

    /// The header of what is stored under a content id in the partitions of the last nine days, of the newest revision.
    pub async fn find_blob(&self, tenant: TenantId, content_id: &ContentId) -> Result<Option<BlobHeader>, StoreError> {
        let content_id = content_id.clone();
        let find = move |holdings: &Holdings| holdings.find_content(&holdings.recent(), tenant, &content_id);
        self.read_holdings(find).await
    }

    /// Whether each of these content ids is stored: of those that may have been stored more than a week ago (`true`) in any
    /// partition, of the others in one of the last nine days.
    pub async fn are_kept(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        ids: Vec<(ContentId, bool)>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut kept = self.are_stored(tenant, ids.iter().map(|(id, _)| id.clone()).collect()).await?;
        let order: Vec<_> = ids.iter().map(|(id, _)| id.clone()).collect();
        let missing = ids.into_iter().zip(&kept).filter(|((_, old), kept)| *old && !**kept).map(|((id, _), _)| id);
        let missing: BTreeSet<_> = missing.collect();
        if missing.is_empty() || !self.heads().contains_key(&(tenant, content_type)) {
            return Ok(kept);
        }
        self.read(move |content| {
            let (mut after, mut found) = (0, BTreeSet::new());
            loop {
                let page = read::read_after(&content.holdings, tenant, content_type, after, HEADERS)?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                let ids = page.into_iter().filter_map(|(_, header)| Some(header.ok()?.content_id));
                found.extend(ids.filter(|id| missing.contains(id)));
            }
            Ok(found)
        })
        .await
        .map(|found| {
            kept.iter_mut().zip(order).for_each(|(kept, id)| *kept |= found.contains(&id));
            kept
        })
    }

    /// The body that was stored last of a tenant's content type, if it is still there. It must be a small one.
    pub async fn newest_body(
        &self,
        tenant: TenantId,
        content_type: ContentType,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(last) = self.heads().get(&(tenant, content_type)).copied() else { return Ok(None) };
        self.read(move |content| {
            let mut body = Vec::new();
            let header = read::read_blob(&content.holdings, tenant, content_type, last, |piece| body.extend(piece))?;
            Ok(header.map(|_| body))
        })
        .await
    }

    async fn are_stored(&self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<bool>, StoreError> {
        Ok(self.find_stored(tenant, ids).await?.into_iter().map(|stored| stored != As::Nothing).collect())
    }

    pub(super) async fn find_stored(&self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<As>, StoreError> {
        self.read(move |content| content.find_stored(tenant, &ids)).await
    }

    /// Begins a new partition, whatever the day and the size.
    pub async fn roll(&self) -> Result<(), StoreError> {
        self.0.content.roll().await
    }

    /// Drops what is not to be kept, one day's partitions in an hour at most; nothing while the service has not confirmed
    /// the time within the hour.
    pub async fn retain(&self, keep: Keep) -> Result<Retained, StoreError> {
        let Some(now) = self.0.time.confirmed() else { return Ok(Retained::default()) };
        self.read(move |content| roll::retain(&content.holdings, keep, now)).await
    }

    /// Why partitions that were there are gone.
    #[must_use]
    pub fn anchors(&self) -> Vec<Anchor> {
        self.0.content.holdings.anchors().list().to_vec()
    }
}

/// What is to be fetched, and how far the listing has come.
impl Store {
    /// Queues what is neither queued, stored nor given up, and returns when it is durable. What is queued, or was given
    /// up, at another address than it is listed at now is to be retrieved from there.
    pub async fn enqueue(
        &self,
        tenant: TenantId,
        tier: Tier,
        listed: Vec<ContentBlob>,
    ) -> Result<Enqueued, StoreError> {
        let ids = listed.iter().map(|blob| blob.content_id.clone()).collect();
        let stored = self.are_stored(tenant, ids).await?;
        let known = stored.iter().filter(|stored| **stored).count();
        let new = listed.into_iter().zip(stored).filter(|(_, stored)| !stored).map(|(blob, _)| blob).collect();
        let enqueued = self.0.state.enqueue(tenant, tier, new, self.0.time.now()).await?;
        Ok(Enqueued { known: enqueued.known + known, ..enqueued })
    }

    /// Moves a watermark; it becomes durable with the next batch, or after ten minutes. Never before anything that
    /// `enqueue` has acknowledged.
    pub fn set_watermark(&self, tenant: TenantId, content_type: ContentType, watermark: Watermark) {
        self.0.state.set_watermark(tenant, content_type, watermark);
    }

    /// The tenant's watermarks, the newest set ones. What was listed before content was lost is to be listed again: after
    /// that there has been no sweep.
    pub async fn watermarks(&self, tenant: TenantId) -> Result<BTreeMap<ContentType, Watermark>, StoreError> {
        let lost = self.0.content.holdings.lost_at();
        let mut watermarks = self.0.state.watermarks(tenant).await?;
        for watermark in watermarks.values_mut() {
            watermark.sweep_at = watermark.sweep_at.filter(|at| lost.is_none_or(|lost| lost < *at));
        }
        Ok(watermarks)
    }

    /// Up to `limit` entries to retrieve next: those that expire within 24 h first, then newest and oldest in turn;
    /// entries handed out and not yet completed, deferred or released are left out, and so are those deferred beyond
    /// `now`. Entries whose content is stored already are completed on the way, except those that are stored as defects:
    /// their dead letters are still to be written.
    ///
    /// If nothing is to be retrieved, some of what is to be [looked at again](Self::look_again). An entry whose process
    /// ended before it said so is found out by what is stored.
    pub async fn take_queued(
        &self,
        tenant: TenantId,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        let first = self.take_from(tenant, false, limit, now).await?;
        if first.is_empty() { self.take_from(tenant, true, limit.min(SECOND_LOOKS), now).await } else { Ok(first) }
    }

    async fn take_from(
        &self,
        tenant: TenantId,
        again: bool,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        let mut ready = Vec::new();
        loop {
            let taken = self.0.state.take_queued(tenant, again, limit - ready.len(), now).await?;
            let before = ready.len() + taken.len();
            if let Err(error) = self.sort_out(tenant, taken, &mut ready).await {
                for entry in &ready {
                    self.release(tenant, entry);
                }
                return Err(error);
            }
            // Those that were stored made room for others.
            if ready.len() == before || ready.len() >= limit {
                return Ok(ready);
            }
        }
    }

    /// Of entries that were taken, those that are to be fetched, by what is stored. After an error, all that are not among
    /// them are released.
    async fn sort_out(
        &self,
        tenant: TenantId,
        taken: Vec<QueueEntry>,
        ready: &mut Vec<QueueEntry>,
    ) -> Result<(), StoreError> {
        let ids = taken.iter().map(|entry| entry.blob.content_id.clone()).collect();
        let stored = match self.find_stored(tenant, ids).await {
            Ok(stored) => stored,
            Err(error) => {
                for entry in &taken {
                    self.release(tenant, entry);
                }
                return Err(error);
            }
        };
        let mut failed = Ok(());
        for (entry, stored) in taken.into_iter().zip(stored) {
            match (entry.again, stored) {
                (false, As::Records | As::Revised) | (true, As::Revised | As::Defect) => self.complete(tenant, &entry),
                // The process ended before it could say so.
                (false, As::Young) => {
                    let whole_at = entry.blob.content_created.checked_add(WHOLE_AFTER).unwrap_or(Timestamp::MAX);
                    let young = QueueEntry { not_before: Some(whole_at), ..entry.clone() };
                    if let Err(error) = self.look_again(tenant, young).await {
                        self.release(tenant, &entry);
                        failed = Err(error);
                    }
                }
                // What is to be looked at again and is not there any more was lost to damage: it is stored anew.
                (false, As::Nothing | As::Defect) | (true, As::Nothing | As::Records | As::Young) => ready.push(entry),
            }
        }
        failed
    }

    /// When the first deferred entry of the tenant may be tried again.
    #[must_use]
    pub fn next_deferred(&self, tenant: TenantId) -> Option<Timestamp> {
        self.0.state.next_deferred(tenant)
    }

    /// When the first deferred entry that is to be retrieved may be tried again: what is only to be looked at again does not
    /// count.
    #[must_use]
    pub fn next_retry(&self, tenant: TenantId) -> Option<Timestamp> {
        self.0.state.next_retry(tenant)
    }

    /// The entry is stored: it leaves the queue (soon, not durably before this returns).
    pub fn complete(&self, tenant: TenantId, entry: &QueueEntry) {
        self.0.state.complete(tenant, entry);
    }

    /// The entry was not retrieved and nothing was learnt: it may be handed out again.
    pub fn release(&self, tenant: TenantId, entry: &QueueEntry) {
        self.0.state.release(tenant, entry);
    }

    /// The tenant's tasks are gone, and what they had been handed was lost with them: all of it may be handed out again.
    /// Returns how many entries that are.
    #[must_use]
    pub fn release_all(&self, tenant: TenantId) -> usize {
        self.0.state.release_all(tenant)
    }

    /// The entry's content is stored, but was fetched so early that it may be a part: it is handed out again from its
    /// `not_before` on, marked as such. What is fetched then goes to [`receive_revision`](Self::receive_revision).
    pub async fn look_again(&self, tenant: TenantId, entry: QueueEntry) -> Result<(), StoreError> {
        self.0.state.look_again(tenant, entry).await
    }

    /// The retrieval failed: `entry` carries the new attempts, error and `not_before`.
    pub async fn defer(&self, tenant: TenantId, entry: QueueEntry) -> Result<(), StoreError> {
        self.0.state.defer(tenant, entry).await
    }

    /// The entry is given up: it leaves the queue and becomes a dead letter with its reason, durably. It is queued again
    /// only if it is listed at another address.
    pub async fn dead_letter(&self, tenant: TenantId, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
        self.0.state.dead_letter(tenant, entry, reason, self.0.time.now()).await
    }

    /// Only a notification has named the entry, and it is given up: it leaves the queue, durably, and there is no dead
    /// letter of what nobody promised. False if a listing has named it meanwhile: then it stays, and is handed out again.
    pub async fn drop_unlisted(&self, tenant: TenantId, entry: QueueEntry) -> Result<bool, StoreError> {
        self.0.state.drop_unlisted(tenant, entry).await
    }

    /// The entry is given up until it is listed again: as [`dead_letter`](Self::dead_letter), but nothing keeps it from
    /// being queued, and [`withdraw`](Self::withdraw) is for then.
    pub async fn set_aside(&self, tenant: TenantId, entry: QueueEntry, reason: &str) -> Result<(), StoreError> {
        self.0.state.set_aside(tenant, entry, reason, self.0.time.now()).await
    }

    /// The service lists these in a way that they cannot be fetched, for these reasons. Each that is neither queued, stored
    /// nor given up becomes a dead letter, durably when this returns. It does not keep the content from being queued when
    /// it is listed rightly; [`withdraw`](Self::withdraw) is for then.
    pub async fn refuse(
        &self,
        tenant: TenantId,
        tier: Tier,
        listed: Vec<(ContentBlob, String)>,
    ) -> Result<Refused, StoreError> {
        let ids = listed.iter().map(|(blob, _)| blob.content_id.clone()).collect();
        let stored = self.are_stored(tenant, ids).await?;
        let at = self.0.time.now();
        let letter = |(blob, reason)| {
            let entry = QueueEntry {
                blob,
                tier,
                queued_at: at,
                attempts: 0,
                panics: 0,
                malformed: 0,
                not_before: None,
                last_error: None,
                again: false,
            };
            DeadLetter { entry, reason, at }
        };
        let letters = listed.into_iter().zip(stored).filter(|(_, stored)| !stored).map(|(listed, _)| letter(listed));
        self.0.state.refuse(tenant, letters.collect()).await
    }

    /// These are listed rightly now: the dead letters that [`refuse`](Self::refuse) or [`set_aside`](Self::set_aside) made
    /// of some of them are withdrawn, and those of what is queued again, durably, and these are named.
    pub async fn withdraw(&self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<ContentId>, StoreError> {
        self.0.state.withdraw(tenant, ids).await
    }

    /// How many dead letters the tenant has.
    pub async fn dead_letters(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.0.state.count_dead_letters(tenant).await
    }

    /// The same for all tenants that have any.
    pub async fn all_dead_letters(&self) -> Result<BTreeMap<TenantId, u64>, StoreError> {
        self.0.state.count_all_dead_letters().await
    }

    /// Up to `limit` of the tenant's dead letters, in no particular order.
    pub async fn list_dead_letters(&self, tenant: TenantId, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.0.state.dead_letters(tenant, limit).await
    }

    /// How much the tenant has queued: what is stored, and is only to be looked at again, does not count.
    #[must_use]
    pub fn queue_depth(&self, tenant: TenantId) -> QueueDepth {
        self.0.state.queue_depth(tenant)
    }

    /// Remembers a wait, durably when this returns; `None` forgets it.
    pub async fn remember_wait(&self, tenant: TenantId, key: WaitKey, wait: Option<Wait>) -> Result<(), StoreError> {
        self.0.state.remember_wait(tenant, key, wait).await
    }

    /// The tenant's remembered waits.
    pub async fn waits(&self, tenant: TenantId) -> Result<BTreeMap<WaitKey, Wait>, StoreError> {
        self.0.state.waits(tenant).await
    }

    /// Keeps what a tenant's sensitive information types are called in a language, durably when this returns, in the place
    /// of what was kept.
    pub async fn keep_sensitive_types(
        &self,
        tenant: TenantId,
        language: &Language,
        types: &SensitiveTypes,
    ) -> Result<(), StoreError> {
        self.0.state.keep_sensitive_types(tenant, language, types).await
    }

    /// What a tenant's sensitive information types are called in a language, as far as it is known. Blocking.
    pub fn sensitive_types(&self, tenant: TenantId, language: &Language) -> Result<Option<SensitiveTypes>, StoreError> {
        self.0.state.sensitive_types(tenant, language)
    }

    /// Leaves a note of at most 16 KiB for whoever asks for the status while the daemon is not there.
    pub fn set_note(&self, tenant: TenantId, note: Option<Vec<u8>>) {
        self.0.state.set_note(tenant, note);
    }

    /// The note of one tenant.
    pub async fn note(&self, tenant: TenantId) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.state.note(tenant).await
    }

    /// The notes of all tenants.
    pub async fn notes(&self) -> Result<BTreeMap<TenantId, Vec<u8>>, StoreError> {
        self.0.state.notes().await
    }
}

/// Reading.
impl Store {
    /// Reads what `query` asks for, until `take` breaks off: oldest partition first, then by tenant, content type and
    /// number. Blocking, with bounded memory. What is damaged is passed over, and then the answer is
    /// [`StoreError::Incomplete`] although everything else was handed out.
    pub fn for_each_record(
        &self,
        query: &Query,
        take: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        read::for_each_record(&self.0.content.holdings, query, take)?.complete()
    }

    /// Reads the records of the blobs after `after`, and answers the last number that was read whole. Marked are copies of
    /// what stands in the content types `among` (empty: all). Blocking. Blobs that are damaged are passed over, and the
    /// journal says so.
    pub fn for_each_record_after(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        after: u64,
        among: &[ContentType],
        take: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        read::for_each_record_after(&self.0.content.holdings, tenant, content_type, after, among, take)
    }

    /// A blob's header, and its body in pieces, byte for byte as it was received; `None` if there is no such blob.
    /// Blocking.
    pub fn read_blob(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        seq: u64,
        take: impl FnMut(&[u8]),
    ) -> Result<Option<BlobHeader>, StoreError> {
        read::read_blob(&self.0.content.holdings, tenant, content_type, seq, take)
    }

    /// Up to `limit` blobs after a number, in their order; one that is damaged is an error of its own. Blocking.
    pub fn read_after(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        seq: u64,
        limit: usize,
    ) -> Result<Page, StoreError> {
        read::read_after(&self.0.content.holdings, tenant, content_type, seq, limit)
    }

    /// Reads everything and says whether it is still there and as it was stored. Blocking, for as long as that takes.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        self.verify_while(&[], || true)
    }

    /// The same of these tenants (none: of all), while `go_on` says so; when it does not, the answer is
    /// [`StoreError::Closed`]. Whether the partitions are there is looked at whoever is meant.
    pub fn verify_while(&self, only: &[TenantId], go_on: impl Fn() -> bool) -> Result<Verification, StoreError> {
        verify::verify(&self.0.content.holdings, only, &go_on)
    }

    /// The last visible number of each tenant's content types. Cheap.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.0.content.holdings.last_numbers()
    }

    /// The last numbers that were stored before `since`.
    pub async fn heads_at(&self, since: Timestamp) -> Result<Heads, StoreError> {
        self.read(move |content| read::heads_at(&content.holdings, since)).await
    }

    /// How long batches took to become durable.
    #[must_use]
    pub fn flush_times() -> Histogram {
        FLUSHES.clone()
    }

    /// Ticks after blobs have become visible.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.content.holdings.stored.subscribe()
    }

    /// What was stored since midnight UTC. Cheap.
    #[must_use]
    pub fn stored_today(&self, tenant: TenantId) -> StoredToday {
        let Ledger { blobs, records, bytes, duplicates, .. } = self.0.content.holdings.stored_today(tenant);
        StoredToday { blobs, records, duplicates, bytes }
    }
}

impl Options {
    fn lock_request(&self, time: &ServiceTime, urgent: bool) -> LockRequest {
        LockRequest {
            holder: Holder { pid: std::process::id(), purpose: self.purpose.to_owned(), since: time.now() },
            wait: self.lock_wait,
            urgent,
        }
    }

    pub(super) fn content(&self) -> Result<ContentOptions, StoreError> {
        Ok(ContentOptions {
            store: self.path.clone(),
            partition_bytes: self.partition_bytes,
            seen_key: SeenKey::new(Format::open(&self.path)?.seen_key),
        })
    }
}

fn open_state(options: &Options, content: &Content, time: &ServiceTime) -> Result<State, StoreError> {
    // A snapshot that the disk does not give now is not one that is missing: an empty state would soon take its place.
    let purged = content.holdings.purges().uncleared();
    let state_options = StateOptions { purged, ..StateOptions::new(time.now()) };
    let (state, events) = State::open(&options.path, &state_options, &|| content.snapshot())?;
    for happened in &events {
        if happened.is_alarm() {
            tracing::error!(message_id = event::STORE_DAMAGED, "{happened}");
        } else {
            tracing::info!("{happened}");
        }
    }
    Ok(state)
}

/// The thread that copies what Microsoft cannot give back into the newest partition.
#[derive(Debug)]
struct Snapshots {
    /// Its end is the thread's.
    prompts: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Snapshots {
    fn start(content: &Content, state: &State, time: &Arc<ServiceTime>) -> Result<Self, StoreError> {
        let (prompts, prompted) = mpsc::channel();
        let (content, state, time) = (content.clone(), state.clone(), Arc::clone(time));
        let thread = std::thread::Builder::new()
            .name("store-snapshot".to_owned())
            .spawn(move || {
                let mut copied = None;
                loop {
                    let goes_on = prompted.recv_timeout(SNAPSHOT_EVERY) != Err(RecvTimeoutError::Disconnected);
                    // One copy serves all who have prompted so far.
                    while prompted.try_recv().is_ok() {}
                    let changes = state.snapshot_changes();
                    if copied != Some(changes) {
                        let taken = content.put_snapshot(|| state.snapshot(time.now()));
                        match taken {
                            Ok(true) => copied = Some(changes),
                            // Nothing was ever stored: there is no partition to put it into.
                            Ok(false) => {}
                            // Whoever cannot write says so.
                            Err(error) => tracing::debug!(%error, "the state's snapshot was not copied"),
                        }
                    }
                    if !goes_on {
                        return;
                    }
                }
            })
            .map_err(|error| StoreError::Thread { name: "store-snapshot", source: Arc::new(error) })?;
        Ok(Self { prompts, thread })
    }

    fn prompt(&self) {
        // If the thread has ended, the store is being closed, and it has copied a last time.
        let _ = self.prompts.send(());
    }

    /// Copies a last time.
    fn stop(self) {
        drop(self.prompts);
        drop(self.thread.join());
    }
}
