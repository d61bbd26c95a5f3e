//! The state: what is to be fetched, how far the listing has come, what must be waited for, what was given up; who was
//! enrolled, held and invited.
//!
//! It is one database ([`generation`] says where), written by one thread ([`writer`]) and read by anybody. What is in
//! it: [`keys`] and [`records`]. Content is elsewhere and is the truth: an entry of the queue whose content is stored
//! is merely not yet removed.
//!
//! What holds:
//!
//! - **Durable when acknowledged.** `enqueue`, `defer`, `look_again`, `dead_letter`, `refuse`, `remember_wait` and all that
//!   changes the register return when a power cut could not undo them.
//! - **A watermark never precedes what it stands for.** It is kept in memory and written with the tenant's next batch, or
//!   after ten minutes; both come after every batch that was acknowledged before it was set.
//! - **Once at a time.** An entry that [`State::take_queued`] has handed out is not handed out again before it is
//!   released, deferred, or all of its tenant's are ([`State::release_all`], when its tasks have died).
//! - **Memory does not grow with the queue** ([`book`]), and nothing is written when nothing has changed.
//! - **A failed write fails the work in its batch, and nothing else.** The writer reopens the database with growing waits;
//!   until then every write is answered with the error. Damage that shows while running ends the writer
//!   ([`State::failed`]); the next start moves the state aside and makes a new one.

pub(in crate::store) mod book;
mod draft;
mod gaps;
mod generation;
pub(in crate::store) mod keys;
mod of_tenant;
mod queue;
pub(in crate::store) mod records;
mod register;
mod types;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::database::{Access, Database, Slice};
use super::error::StoreError;
use super::fate::{Fate, Noted};
use super::ledger::{self, Hour};
use super::snapshot::{self, Counts};
use super::{Enqueued, QueueDepth, QueueEntry, Refused, Wait, WaitKey, Watermark};
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier};

use self::book::Book;
use self::keys::{Place, kind};
use self::queue::Books;
use self::records::Undecodable;
use self::writer::{Loose, Task, Writer};

/// Bytes that a tenant's note may have.
const MAX_NOTE: usize = 16 << 10;

/// How a state is opened.
#[derive(Debug, Clone)]
pub(super) struct StateOptions {
    /// sled's page cache.
    pub(super) cache_bytes: u64,
    /// The time, the service's if it is known.
    pub(super) now: Timestamp,
    /// How long a watermark may wait for a batch.
    pub(super) watermark_wait: Duration,
    /// How often the size on disk is looked at.
    pub(super) size_check: Duration,
    /// Below this size on disk, only age makes a copy.
    pub(super) copy_above: u64,
    /// A copy is made at this age.
    pub(super) copy_every: Duration,
    /// How many deferred entries of a tenant are kept in memory.
    pub(super) remembered: usize,
    /// Tenants that were purged while the state could not be written.
    pub(super) purged: BTreeSet<TenantId>,
}

impl StateOptions {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            cache_bytes: 16 << 20,
            now,
            watermark_wait: Duration::from_mins(10),
            size_check: Duration::from_hours(1),
            copy_above: 64 << 20,
            copy_every: Duration::from_hours(7 * 24),
            remembered: book::REMEMBERED,
            purged: BTreeSet::new(),
        }
    }

    const fn access(&self) -> Access {
        Access { cache_bytes: self.cache_bytes, create: true, tidy: true }
    }
}

/// Something that happened while the state was opened, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The state was there once and is not any more.
    Missing {
        /// Where it should be.
        directory: PathBuf,
    },
    /// The file that says which directory is the state's is lost.
    PointerLost {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A directory that cannot be used was moved.
    MovedAside {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
        /// Why.
        why: String,
    },
    /// A new state was fed from a snapshot.
    Restored {
        /// What was in it.
        counts: Counts,
    },
    /// The snapshot could not be understood; the new state is empty.
    SnapshotUnreadable {
        /// Why not.
        why: String,
    },
    /// Queue entries could not be understood and were removed: the next sweep lists them again.
    EntriesRemoved {
        /// How many.
        count: usize,
        /// Why the first could not be understood.
        why: String,
    },
}

impl Event {
    /// Whether something is wrong that a person should look at.
    #[must_use]
    pub(super) const fn is_alarm(&self) -> bool {
        !matches!(self, Self::Restored { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { directory } => write!(
                f,
                "the state `{}` is missing; the last seven days are listed again, nothing that is stored is fetched again",
                directory.display()
            ),
            Self::PointerLost { path, why } => {
                write!(f, "`{}` does not say where the state is: {why}; the newest one found is used", path.display())
            }
            Self::MovedAside { from, to, why } => write!(
                f,
                "`{}` cannot be used ({why}) and was moved to `{}`; the last seven days are listed again, nothing that is stored is fetched again; check the disk and keep the directory for inspection",
                from.display(),
                to.display()
            ),
            Self::Restored { counts } => write!(
                f,
                "the new state was fed from the newest snapshot: {} enrolled tenants, {} paused, {} invites, {} waits, \
                 {} dead letters",
                counts.enrolments, counts.held, counts.invites, counts.waits, counts.letters
            ),
            Self::SnapshotUnreadable { why } => {
                write!(f, "the newest snapshot cannot be understood ({why}); the new state begins empty")
            }
            Self::EntriesRemoved { count, why } => write!(
                f,
                "{count} entries of the content queue cannot be understood ({why}) and were removed; the next sweep lists them again"
            ),
        }
    }
}

/// Content that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The entry as it was; its last error is in it.
    pub entry: QueueEntry,
    /// Why it was given up.
    pub reason: String,
    /// When, in the service's time.
    pub at: Timestamp,
}

/// The open state; cheap to clone. Dropping the last clone writes what is pending, without waiting for it.
#[derive(Debug, Clone)]
pub(super) struct State {
    shared: Arc<Shared>,
    writer: Writer,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    database: RwLock<Database>,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    loose: Mutex<Loose>,
    /// How many entries of a kind a book keeps.
    remembered: usize,
    /// Whether anything may be on record as given up, set aside or listed wrongly, which is rare.
    letters: AtomicBool,
}

/// A tenant's queues in memory.
#[derive(Debug)]
struct Tenant {
    /// Of what is to be retrieved.
    first: Queue,
    /// Of what is stored, and is to be looked at again.
    again: Queue,
}

/// One of them.
#[derive(Debug)]
struct Queue {
    /// Which.
    again: bool,
    book: Mutex<Book>,
    /// One scan of the queue at a time.
    taking: Mutex<()>,
}

impl State {
    /// Opens the state in the store's directory, or makes it. `snapshot` is asked for only if there is none: it returns
    /// the newest bytes of [`State::snapshot`] that were kept elsewhere. Blocking.
    pub(super) fn open(
        store: &Path,
        options: &StateOptions,
        snapshot: &dyn Fn() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(Self, Vec<Event>), StoreError> {
        let mut events = Vec::new();
        let found = generation::open(store, options.access(), options.now, snapshot, &mut events)?;
        for tenant in &options.purged {
            of_tenant::remove(&found.database, *tenant)?;
        }
        let (books, unreadable) = queue::read_books(&found.database, options.remembered)?;
        let any = |kind| Ok::<_, StoreError>(found.database.scan_prefix([kind])?.next().transpose()?.is_some());
        let letters = any(kind::LETTER)? || any(kind::REFUSED)?;
        let shared = Arc::new(Shared {
            database: RwLock::new(found.database.clone()),
            tenants: RwLock::default(),
            loose: Mutex::default(),
            remembered: options.remembered,
            letters: AtomicBool::new(letters),
        });
        shared.replace_books(books);
        if let Some((_, why)) = unreadable.first() {
            events.push(Event::EntriesRemoved { count: unreadable.len(), why: why.to_string() });
            writer::remove(&found.database, unreadable.iter().map(|(key, _)| key))?;
        }
        let writer = Writer::start(Arc::clone(&shared), store, options, found)?;
        Ok((Self { shared, writer }, events))
    }

    /// Writes what is pending and closes the database.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await
    }

    /// Resolves when the writer has ended although nobody closed the state.
    pub(super) async fn failed(&self) -> StoreError {
        self.writer.failed().await
    }

    /// Queues what is neither queued nor a dead letter, in one batch, durably. What is stored already the caller leaves
    /// out; if it misses one, it is recognised when it is taken.
    pub(super) async fn enqueue(
        &self,
        tenant: TenantId,
        tier: Tier,
        listed: Vec<ContentBlob>,
        queued_at: Timestamp,
    ) -> Result<Enqueued, StoreError> {
        if listed.is_empty() {
            return Ok(Enqueued::default());
        }
        self.ask(|answer| Task::Enqueue { tenant, tier, listed, queued_at, answer }).await
    }

    /// Moves a watermark: see the module's promise.
    pub(super) fn set_watermark(&self, tenant: TenantId, content_type: ContentType, watermark: Watermark) {
        self.shared.loose().set_watermark(tenant, content_type, watermark);
    }

    /// The tenant's watermarks, the newest set ones.
    pub(super) async fn watermarks(&self, tenant: TenantId) -> Result<BTreeMap<ContentType, Watermark>, StoreError> {
        self.read(move |shared| {
            // What was pending is written before it is forgotten: looking here first finds it in one of the two.
            let pending = shared.loose().watermarks(tenant);
            let database = shared.database();
            let mut watermarks = BTreeMap::new();
            for row in database.scan_prefix(keys::head(kind::WATERMARK, tenant))? {
                let (key, value) = row?;
                if let Some(content_type) = keys::content_type_of(&key) {
                    let watermark = decoded(&database, "a watermark", records::decode_watermark(&value))?;
                    watermarks.insert(content_type, watermark);
                }
            }
            watermarks.extend(pending);
            Ok(watermarks)
        })
        .await
    }

    /// Up to `limit` entries to retrieve next: those that expire within 24 h first, then newest and oldest in turn.
    /// Left out are those handed out and those deferred beyond `now`. `again`: of what is to be looked at again.
    pub(super) async fn take_queued(
        &self,
        tenant: TenantId,
        again: bool,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        let Some(of) = self.shared.known(tenant) else { return Ok(Vec::new()) };
        let state = self.clone();
        self.read(move |shared| {
            let taken = queue::take(&shared.database(), tenant, of.queue(again), limit, now)?;
            for place in taken.unreadable {
                state.complete_place(tenant, place);
            }
            Ok(taken.entries)
        })
        .await
    }

    /// When the first deferred entry of the tenant may be tried again; never later than that.
    pub(super) fn next_deferred(&self, tenant: TenantId) -> Option<Timestamp> {
        let known = self.shared.known(tenant)?;
        let [first, again] = [&known.first, &known.again].map(|queue| queue.book().deferred.first());
        first.into_iter().chain(again).min()
    }

    /// The same of what is to be retrieved, without what is to be looked at again.
    pub(super) fn next_retry(&self, tenant: TenantId) -> Option<Timestamp> {
        self.shared.known(tenant)?.first.book().deferred.first()
    }

    /// The entry's content is stored: it leaves the queue, with one of the next batches.
    pub(super) fn complete(&self, tenant: TenantId, entry: &QueueEntry) {
        self.complete_place(tenant, place(entry));
    }

    fn complete_place(&self, tenant: TenantId, place: Place) {
        if self.shared.tenant(tenant).book_of(&place).complete(place) {
            self.shared.loose().completed.push((tenant, place));
            self.writer.wake();
        }
    }

    /// The entry was not retrieved and nothing was learnt: it may be handed out again.
    pub(super) fn release(&self, tenant: TenantId, entry: &QueueEntry) {
        let place = place(entry);
        self.shared.tenant(tenant).book_of(&place).take_back(place, entry.not_before);
    }

    /// The tenant's tasks are gone, and what they had was lost with them: all of it may be handed out again. Returns how
    /// many entries that are.
    pub(super) fn release_all(&self, tenant: TenantId) -> usize {
        let all = |tenant: Arc<Tenant>| [&tenant.first, &tenant.again].map(|queue| queue.book().take_all_back());
        self.shared.known(tenant).map_or(0, |tenant| all(tenant).into_iter().sum())
    }

    /// The retrieval failed: `entry` carries the new attempts, error and `not_before`. Durable.
    pub(super) async fn defer(&self, tenant: TenantId, entry: QueueEntry) -> Result<(), StoreError> {
        self.ask(|answer| Task::Defer { tenant, entry, answer }).await
    }

    /// The entry's content is stored, and is to be looked at again from its `not_before` on: it goes from the one queue to
    /// the other, in one batch. Durable.
    pub(super) async fn look_again(&self, tenant: TenantId, entry: QueueEntry) -> Result<(), StoreError> {
        self.ask(|answer| Task::LookAgain { tenant, entry, answer }).await
    }

    /// The entry is given up: it leaves the queue and becomes a dead letter, in one batch, durably. It is not queued again
    /// unless it is listed at another address.
    pub(super) async fn dead_letter(
        &self,
        tenant: TenantId,
        entry: QueueEntry,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let letter = DeadLetter { entry, reason: reason.to_owned(), at };
        self.shared.letters.store(true, Ordering::Release);
        self.ask(|answer| Task::DeadLetter { tenant, letter, for_good: true, answer }).await
    }

    /// Only a notification has named the entry: it leaves the queue without a trace, durably. False if a listing has named
    /// it meanwhile: then it stays, and may be handed out again.
    pub(super) async fn drop_unlisted(&self, tenant: TenantId, entry: QueueEntry) -> Result<bool, StoreError> {
        self.ask(|answer| Task::DropUnlisted { tenant, entry, answer }).await
    }

    /// The same as [`State::dead_letter`], but the dead letter keeps nothing from being queued, and [`State::withdraw`]
    /// withdraws it.
    pub(super) async fn set_aside(
        &self,
        tenant: TenantId,
        entry: QueueEntry,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let letter = DeadLetter { entry, reason: reason.to_owned(), at };
        self.shared.letters.store(true, Ordering::Release);
        self.ask(|answer| Task::DeadLetter { tenant, letter, for_good: false, answer }).await
    }

    /// These are listed in a way that they cannot be fetched: each that is neither queued nor a dead letter becomes one
    /// that a right listing withdraws. Durable. What is stored already the caller leaves out.
    pub(super) async fn refuse(&self, tenant: TenantId, letters: Vec<DeadLetter>) -> Result<Refused, StoreError> {
        if letters.is_empty() {
            return Ok(Refused::default());
        }
        self.shared.letters.store(true, Ordering::Release);
        self.ask(|answer| Task::Refuse { tenant, letters, answer }).await
    }

    /// These are listed rightly: withdraws the dead letters of those that were not before or were set aside, and of those
    /// that are queued again, and says which. Durable.
    pub(super) async fn withdraw(&self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<ContentId>, StoreError> {
        if ids.is_empty() || !self.shared.letters.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let on_record = self
            .read(move |shared| {
                let database = shared.database();
                let mut found = Vec::new();
                for id in ids {
                    if database.contains(keys::refused(tenant, &id))? || database.contains(keys::letter(tenant, &id))? {
                        found.push(id);
                    }
                }
                Ok(found)
            })
            .await?;
        if on_record.is_empty() {
            return Ok(on_record);
        }
        self.ask(|answer| Task::Withdraw { tenant, ids: on_record, answer }).await
    }

    /// Up to `limit` of the tenant's dead letters, in no particular order.
    pub(super) async fn dead_letters(&self, tenant: TenantId, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let rows = database.scan_prefix(keys::head(kind::LETTER, tenant))?;
            let refused = database.scan_prefix(keys::head(kind::REFUSED, tenant))?;
            rows.chain(refused)
                .take(limit)
                .map(|row| decoded(&database, "a dead letter", records::decode_letter(&row?.1)))
                .collect()
        })
        .await
    }

    /// What is known here of each of these.
    pub(super) async fn noted(&self, tenant: TenantId, blobs: Vec<ContentBlob>) -> Result<Vec<Noted>, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let letter = |key: Vec<u8>| {
                let value = database.get(key)?;
                let read = value.map(|value| decoded(&database, "a dead letter", records::decode_letter(&value)));
                read.transpose()
            };
            let noted = |blob: ContentBlob| {
                let place = Place::of(blob.content_created, &blob.content_id);
                if let Some(value) = database.get(place.key(tenant))? {
                    let entry = decoded(&database, "a queue entry", records::decode_entry(&value))?;
                    return Ok(Noted::As(Fate::Queued { since: entry.queued_at, last_error: entry.last_error }));
                }
                if database.contains(place.in_queue(true).key(tenant))? {
                    return Ok(Noted::Again);
                }
                if shared.letters.load(Ordering::Acquire) {
                    if let Some(letter) = letter(keys::letter(tenant, &blob.content_id))? {
                        return Ok(Noted::As(Fate::GivenUp(letter.reason)));
                    }
                    if let Some(letter) = letter(keys::refused(tenant, &blob.content_id))? {
                        return Ok(Noted::As(Fate::SetAside(letter.reason)));
                    }
                }
                Ok(Noted::Nothing)
            };
            blobs.into_iter().map(noted).collect()
        })
        .await
    }

    /// What of the tenant is not stored, hour by hour: of what content type, in which hour available, and why it is not.
    pub(super) async fn outstanding(
        &self,
        tenant: TenantId,
    ) -> Result<Vec<(ContentType, Timestamp, Hour)>, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let mut hours: BTreeMap<(ContentType, Timestamp), Hour> = BTreeMap::new();
            let mut add = |blob: &ContentBlob, one: Hour| {
                hours.entry((blob.content_type, ledger::hour_of(blob.content_created))).or_default().add(&one);
            };
            for row in database.scan_prefix(keys::head(kind::QUEUE, tenant))? {
                let entry = decoded(&database, "a queue entry", records::decode_entry(&row?.1))?;
                add(&entry.blob, Hour { waiting: 1, ..Hour::default() });
            }
            let kinds = [
                (kind::LETTER, Hour { lost: 1, ..Hour::default() }),
                (kind::REFUSED, Hour { refused: 1, ..Hour::default() }),
            ];
            for (kind, one) in kinds {
                for row in database.scan_prefix(keys::head(kind, tenant))? {
                    let letter = decoded(&database, "a dead letter", records::decode_letter(&row?.1))?;
                    add(&letter.entry.blob, one);
                }
            }
            Ok(hours.into_iter().map(|((content_type, hour), what)| (content_type, hour, what)).collect())
        })
        .await
    }

    /// How many dead letters the tenant has; none of them is read.
    pub(super) async fn count_dead_letters(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let mut count = 0;
            for kind in [kind::LETTER, kind::REFUSED] {
                for row in database.scan_prefix(keys::head(kind, tenant))? {
                    row?;
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
    }

    /// The same for all tenants that have any.
    pub(super) async fn count_all_dead_letters(&self) -> Result<BTreeMap<TenantId, u64>, StoreError> {
        self.read(|shared| {
            let database = shared.database();
            let mut counts = BTreeMap::new();
            for row in database.scan_prefix([kind::LETTER])?.chain(database.scan_prefix([kind::REFUSED])?) {
                if let Some(tenant) = keys::tenant(&row?.0) {
                    *counts.entry(tenant).or_default() += 1;
                }
            }
            Ok(counts)
        })
        .await
    }

    /// Whether the content was given up.
    #[cfg(test)]
    pub(super) async fn is_dead_letter(&self, tenant: TenantId, id: &ContentId) -> Result<bool, StoreError> {
        let key = keys::letter(tenant, id);
        self.read(move |shared| shared.database().contains(key)).await
    }

    /// How much the tenant has to retrieve, entries handed out included; what is stored, and is only to be looked at
    /// again, is not.
    pub(super) fn queue_depth(&self, tenant: TenantId) -> QueueDepth {
        self.shared.known(tenant).map(|tenant| tenant.first.book().depth()).unwrap_or_default()
    }

    /// The tenants that have something queued.
    pub(super) fn queued_tenants(&self) -> Vec<TenantId> {
        let tenants = self.shared.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().filter(|(_, tenant)| tenant.first.book().depth().entries > 0).map(|(id, _)| *id).collect()
    }

    /// Remembers a wait, durably; `None` forgets it.
    pub(super) async fn remember_wait(
        &self,
        tenant: TenantId,
        key: WaitKey,
        wait: Option<Wait>,
    ) -> Result<(), StoreError> {
        let (key, value) = (keys::wait(tenant, &key), wait.map(records::encode_wait));
        self.ask(|answer| Task::Put { tenant: Some(tenant), key, value, answer }).await
    }

    /// The tenant's remembered waits, those that have ended included.
    pub(super) async fn waits(&self, tenant: TenantId) -> Result<BTreeMap<WaitKey, Wait>, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let mut waits = BTreeMap::new();
            for row in database.scan_prefix(keys::head(kind::WAIT, tenant))? {
                let (key, value) = row?;
                if let Some(wait) = keys::wait_key(&key) {
                    waits.insert(wait, decoded(&database, "a wait", records::decode_wait(&value))?);
                }
            }
            Ok(waits)
        })
        .await
    }

    /// Leaves a note for whoever asks for the status while the daemon is not there; written with one of the next
    /// batches. At most 16 KiB; a larger one is not taken.
    pub(super) fn set_note(&self, tenant: TenantId, note: Option<Vec<u8>>) {
        if note.as_ref().is_some_and(|note| note.len() > MAX_NOTE) {
            tracing::warn!(%tenant, "a note for the offline status is too large, and not taken");
            return;
        }
        self.shared.loose().notes.insert(tenant, note);
        self.writer.wake();
    }

    /// The note of one tenant.
    pub(super) async fn note(&self, tenant: TenantId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |shared| {
            if let Some(pending) = shared.loose().notes.get(&tenant) {
                return Ok(pending.clone());
            }
            Ok(shared.database().get(keys::head(kind::NOTE, tenant))?.map(|note| note.to_vec()))
        })
        .await
    }

    /// The notes of all tenants.
    pub(super) async fn notes(&self) -> Result<BTreeMap<TenantId, Vec<u8>>, StoreError> {
        self.read(|shared| {
            let pending = shared.loose().notes.clone();
            let mut notes = BTreeMap::new();
            for row in shared.database().scan_prefix([kind::NOTE])? {
                let (key, value) = row?;
                if let Some(tenant) = keys::tenant(&key) {
                    notes.insert(tenant, value.to_vec());
                }
            }
            for (tenant, note) in pending {
                match note {
                    Some(note) => drop(notes.insert(tenant, note)),
                    None => drop(notes.remove(&tenant)),
                }
            }
            Ok(notes)
        })
        .await
    }

    /// What Microsoft cannot give back, to be kept elsewhere. Blocking.
    pub(super) fn snapshot(&self, now: Timestamp) -> Result<Vec<u8>, StoreError> {
        snapshot::take(&self.shared.database(), now)
    }

    /// Grows whenever a snapshot would differ from the one before.
    pub(super) fn snapshot_changes(&self) -> u64 {
        self.writer.snapshot_changes()
    }

    /// Whether there is anything of a tenant.
    pub(super) async fn knows(&self, tenant: TenantId) -> Result<bool, StoreError> {
        self.read(move |shared| of_tenant::is_there(&shared.database(), tenant)).await
    }

    /// Removes all that is a tenant's, durably, what is pending included. Nobody works for it any more.
    pub(super) async fn purge(&self, tenant: TenantId) -> Result<(), StoreError> {
        self.ask(|answer| Task::Purge { tenant, answer }).await
    }

    /// Copies the state, so that the files that held what was removed are gone.
    pub(super) async fn copy(&self) -> Result<(), StoreError> {
        self.ask(|answer| Task::Copy { answer }).await
    }

    /// Waits until everything set, completed and noted before is durable.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        self.ask(|answer| Task::Settle { answer }).await
    }

    /// Resolves when the writer's thread comes by: it does not hang. Whether it can write is another question.
    pub(super) async fn pulse(&self) {
        self.writer.pulse().await;
    }

    /// Sends the writer a task and waits for its answer.
    async fn ask<T>(&self, task: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Task) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.writer.send(task(answer)).await?;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(self.writer.ended()),
        }
    }

    /// Reads in a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(done) => {
                if let Err(error @ StoreError::Damaged { .. }) = &done {
                    self.writer.report_damage(error.clone());
                }
                done
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down.
                Err(_) => Err(StoreError::Closed),
            },
        }
    }
}

impl Shared {
    fn database(&self) -> Database {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn loose(&self) -> std::sync::MutexGuard<'_, Loose> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant, if anything was ever queued for it.
    fn known(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    fn tenant(&self, tenant: TenantId) -> Arc<Tenant> {
        if let Some(known) = self.known(tenant) {
            return known;
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Tenant::new(self.remembered))))
    }

    /// Forgets a tenant.
    fn forget(&self, tenant: TenantId) {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }

    /// Puts what was read from the database in the place of what memory has, except for what only memory knows.
    fn replace_books(&self, mut books: Books) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        for (id, _) in books.keys() {
            tenants.entry(*id).or_insert_with(|| Arc::new(Tenant::new(self.remembered)));
        }
        for (id, tenant) in tenants.iter() {
            for queue in [&tenant.first, &tenant.again] {
                let mut book = queue.book();
                let mut read = books.remove(&(*id, queue.again)).unwrap_or_else(|| Book::new(self.remembered));
                read.inherit(&book);
                *book = read;
            }
        }
    }
}

impl Tenant {
    /// With empty queues.
    fn new(remembered: usize) -> Self {
        let queue = |again| Queue { again, book: Mutex::new(Book::new(remembered)), taking: Mutex::default() };
        Self { first: queue(false), again: queue(true) }
    }

    const fn queue(&self, again: bool) -> &Queue {
        if again { &self.again } else { &self.first }
    }

    /// The book in which a place is.
    fn book_of(&self, place: &Place) -> std::sync::MutexGuard<'_, Book> {
        self.queue(place.again).book()
    }
}

impl Queue {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(entry: &QueueEntry) -> Place {
    Place::of(entry.blob.content_created, &entry.blob.content_id).in_queue(entry.again)
}

/// A value read back, or what is wrong with it.
fn decoded<T>(database: &Database, what: &'static str, value: Result<T, Undecodable>) -> Result<T, StoreError> {
    value.map_err(|error| StoreError::Undecodable {
        path: database.directory().to_owned(),
        what,
        why: error.to_string(),
    })
}

/// A key and why its value cannot be understood.
type Unreadable = (Slice, Undecodable);

#[cfg(test)]
mod tests;
