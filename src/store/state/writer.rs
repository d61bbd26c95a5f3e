//! The thread that writes the state.
//!
//! Tasks come through a bounded channel. The thread takes what is there, up to 32 tasks or 50 ms (2 ms if nobody else
//! comes), makes one batch of it, commits it, lets memory take note, and answers. What nobody waits for goes along:
//! completions and notes with the next group or within a second, a tenant's watermarks with its next batch or after ten
//! minutes.
//!
//! After a failed write the answer to the group is the error, and the database is reopened with waits that grow until a
//! write succeeds. The thread ends when the state is closed or dropped, or when the database turns out to be damaged.
//!
//! Between groups it looks after the database's size, see [`super::generation`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::super::database::{self, Batch, Database, Slice};
use super::super::error::StoreError;
use super::super::{Enqueued, QueueEntry, Refused, Watermark};
use super::draft::{Draft, Effect};
use super::generation::{self, Found, Generation};
use super::keys::{self, Place, kind};
use super::{DeadLetter, Shared, StateOptions, of_tenant, queue};
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier};
use crate::event;
use crate::retry::{Backoff, Stage};

/// Tasks in one batch.
const GROUP: usize = 32;
/// For how long tasks are gathered for one batch.
const GATHER: Duration = Duration::from_millis(50);
/// For how long the next task is waited for.
const ALONE: Duration = Duration::from_millis(2);
/// Tasks that may wait for the thread; whoever has more to do waits before sending.
const WAITING: usize = 256;
/// How long completions and notes wait for a task to go with.
const LOOSE_WAIT: Duration = Duration::from_millis(500);
/// How often the thread looks around when nothing comes.
const IDLE: Duration = Duration::from_secs(10);
/// How often it is looked for blob files, which sled never syncs.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// A copy is due when the database is this many times as large as what is live in it.
const SLACK: u64 = 4;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Work that somebody waits for.
#[derive(Debug)]
pub(super) enum Task {
    Enqueue {
        tenant: TenantId,
        tier: Tier,
        listed: Vec<ContentBlob>,
        queued_at: Timestamp,
        answer: Answer<Enqueued>,
    },
    Defer {
        tenant: TenantId,
        entry: QueueEntry,
        answer: Answer<()>,
    },
    LookAgain {
        tenant: TenantId,
        entry: QueueEntry,
        answer: Answer<()>,
    },
    DeadLetter {
        tenant: TenantId,
        letter: DeadLetter,
        for_good: bool,
        answer: Answer<()>,
    },
    /// Drops what only a notification named.
    DropUnlisted {
        tenant: TenantId,
        entry: QueueEntry,
        answer: Answer<bool>,
    },
    /// These are listed wrongly.
    Refuse {
        tenant: TenantId,
        letters: Vec<DeadLetter>,
        answer: Answer<Refused>,
    },
    /// These are listed rightly.
    Withdraw {
        tenant: TenantId,
        ids: Vec<ContentId>,
        answer: Answer<Vec<ContentId>>,
    },
    /// Puts a value, or removes it.
    Put {
        /// Whose it is, if it is anybody's.
        tenant: Option<TenantId>,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        answer: Answer<()>,
    },
    /// Removes all that is a tenant's.
    Purge {
        tenant: TenantId,
        answer: Answer<()>,
    },
    /// Goes on in a copy.
    Copy {
        answer: Answer<()>,
    },
    /// Writes all that is pending.
    Settle {
        answer: Answer<()>,
    },
}

/// Work that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// Entries that are to leave the queue.
    pub(super) completed: Vec<(TenantId, Place)>,
    /// Notes that are not written yet; `None` removes one.
    pub(super) notes: BTreeMap<TenantId, Option<Vec<u8>>>,
    watermarks: BTreeMap<TenantId, BTreeMap<ContentType, Watermark>>,
    /// Since when the first watermark of a tenant waits.
    waiting: HashMap<TenantId, Instant>,
}

impl Loose {
    pub(super) fn set_watermark(&mut self, tenant: TenantId, content_type: ContentType, watermark: Watermark) {
        self.watermarks.entry(tenant).or_default().insert(content_type, watermark);
        self.waiting.entry(tenant).or_insert_with(Instant::now);
    }

    pub(super) fn watermarks(&self, tenant: TenantId) -> BTreeMap<ContentType, Watermark> {
        self.watermarks.get(&tenant).cloned().unwrap_or_default()
    }

    /// Those whose watermarks wait.
    pub(super) fn listed_tenants(&self) -> impl Iterator<Item = TenantId> {
        self.watermarks.keys().copied()
    }

    /// Forgets what is a tenant's.
    fn forget(&mut self, tenant: TenantId) {
        self.completed.retain(|(of, _)| *of != tenant);
        self.notes.remove(&tenant);
        self.watermarks.remove(&tenant);
        self.waiting.remove(&tenant);
    }

    /// The tenants whose watermarks have waited for this long.
    fn overdue(&self, wait: Duration) -> Vec<TenantId> {
        self.waiting.iter().filter(|(_, since)| since.elapsed() >= wait).map(|(tenant, _)| *tenant).collect()
    }

    /// Forgets what has been written, unless it was set anew meanwhile.
    fn written(&mut self, watermarks: &[(TenantId, ContentType, Watermark)], notes: &[(TenantId, Option<Vec<u8>>)]) {
        for (tenant, content_type, watermark) in watermarks {
            if let Some(of) = self.watermarks.get_mut(tenant) {
                if of.get(content_type) == Some(watermark) {
                    of.remove(content_type);
                }
                if of.is_empty() {
                    self.watermarks.remove(tenant);
                    self.waiting.remove(tenant);
                } else {
                    self.waiting.insert(*tenant, Instant::now());
                }
            }
        }
        for (tenant, note) in notes {
            if self.notes.get(tenant) == Some(note) {
                self.notes.remove(tenant);
            }
        }
    }
}

enum Message {
    Task(Task, OwnedSemaphorePermit),
    /// There is loose work.
    Wake,
    /// Asks whether the thread still turns.
    Pulse(oneshot::Sender<()>),
    /// A reader has found the database damaged.
    Damaged(StoreError),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The way to the thread; cheap to clone. When the last one is gone the thread writes what is pending and ends.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    messages: mpsc::Sender<Message>,
    permits: Arc<Semaphore>,
    woken: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    ended: watch::Receiver<Option<StoreError>>,
}

impl Writer {
    pub(super) fn start(
        shared: Arc<Shared>,
        store: &Path,
        options: &StateOptions,
        found: Found,
    ) -> Result<Self, StoreError> {
        let (messages, received) = mpsc::channel();
        let (end, ended) = watch::channel(None);
        let permits = Arc::new(Semaphore::new(WAITING));
        let woken = Arc::new(AtomicBool::new(false));
        let changes = Arc::new(AtomicU64::new(0));
        let now = Instant::now();
        let thread = Thread {
            received,
            end: End { end, permits: Arc::clone(&permits) },
            shared,
            store: store.to_owned(),
            options: options.clone(),
            database: found.database,
            generation: found.generation,
            since: found.since,
            started: now,
            checked: now,
            looked: now,
            loose_due: None,
            trouble: None,
            woken: Arc::clone(&woken),
            changes: Arc::clone(&changes),
        };
        std::thread::Builder::new()
            .name("store-state".to_owned())
            .spawn(move || thread.work())
            .map_err(|error| StoreError::Thread { name: "store-state", source: Arc::new(error) })?;
        Ok(Self { messages, permits, woken, changes, ended })
    }

    /// Hands the thread a task, after waiting for room.
    pub(super) async fn send(&self, task: Task) -> Result<(), StoreError> {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Err(self.ended()) };
        self.messages.send(Message::Task(task, permit)).map_err(|_| self.ended())
    }

    /// Tells the thread of loose work.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // If the thread has ended there is nobody to tell.
            drop(self.messages.send(Message::Wake));
        }
    }

    /// Resolves when the thread comes by, or has ended.
    pub(super) async fn pulse(&self) {
        let (done, turned) = oneshot::channel();
        if self.messages.send(Message::Pulse(done)).is_ok() {
            _ = turned.await;
        }
    }

    /// Tells the thread of damage: it ends, and the next start moves the state aside.
    pub(super) fn report_damage(&self, error: StoreError) {
        drop(self.messages.send(Message::Damaged(error)));
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        if self.messages.send(Message::Close(answer)).is_err() {
            return match self.ended() {
                StoreError::Closed => Ok(()),
                error => Err(error),
            };
        }
        match answered.await {
            Ok(answer) => answer,
            Err(_) => match self.ended() {
                StoreError::Closed => Ok(()),
                error => Err(error),
            },
        }
    }

    pub(super) async fn failed(&self) -> StoreError {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => Some(self.ended()),
        };
        match end {
            Some(StoreError::Closed) | None => std::future::pending().await,
            Some(error) => error,
        }
    }

    /// Why nobody answers.
    pub(super) fn ended(&self) -> StoreError {
        self.ended.borrow().clone().unwrap_or(StoreError::Closed)
    }

    pub(super) fn snapshot_changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

/// Tells everybody that the thread has ended, a panic included, before their messages are dropped.
struct End {
    end: watch::Sender<Option<StoreError>>,
    permits: Arc<Semaphore>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.end.send_if_modified(|end| {
            let silent = end.is_none();
            if silent {
                let why = if std::thread::panicking() { "it panicked" } else { "it stopped" };
                *end = Some(StoreError::WriterEnded { writer: "state", why: why.to_owned() });
            }
            silent
        });
        self.permits.close();
    }
}

struct Thread {
    // Declared, and so dropped, before the messages: who asks learns why nobody answers.
    end: End,
    received: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    store: PathBuf,
    options: StateOptions,
    database: Database,
    generation: Generation,
    since: Timestamp,
    started: Instant,
    /// When the size was looked at.
    checked: Instant,
    /// When it was looked for blob files.
    looked: Instant,
    /// When loose work is written even if no task comes.
    loose_due: Option<Instant>,
    /// The waits since a write failed, until one succeeds, and the kind of failure that was told last.
    trouble: Option<(Backoff, String)>,
    woken: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
}

/// Why the thread ends.
enum Stop {
    /// It was asked to; what is pending was written, or could not be.
    Closed,
    Failed(StoreError),
}

impl Thread {
    fn work(mut self) {
        let reason = match self.run() {
            Stop::Closed => StoreError::Closed,
            Stop::Failed(error) => {
                tracing::error!(message_id = event::STORE_UNWRITABLE, %error, remedy = error.remedy(), "the state's writer has ended");
                error
            }
        };
        self.database.close();
        self.end.end.send_replace(Some(reason));
    }

    fn run(&mut self) -> Stop {
        loop {
            let mut tasks = Vec::new();
            let closing = self.gather(&mut tasks);
            if let Closing::Failed(error) = closing {
                for task in tasks {
                    task.refuse(&error);
                }
                return Stop::Failed(error);
            }
            let own = tasks.pop_if(|task| matches!(task, Task::Purge { .. } | Task::Copy { .. }));
            let all = !matches!(closing, Closing::No);
            let loose_due = self.loose_due.is_some_and(|due| due <= Instant::now());
            let overdue = self.shared.loose().overdue(self.options.watermark_wait);
            if !tasks.is_empty() || loose_due || !overdue.is_empty() || all {
                let written = self.write(tasks, &overdue, all);
                match (written, closing) {
                    (written, Closing::Asked(answer)) => {
                        if let Some(task) = own {
                            task.refuse(&StoreError::Closed);
                        }
                        self.database.close();
                        drop(answer.send(written));
                        return Stop::Closed;
                    }
                    (_, Closing::Dropped) => return Stop::Closed,
                    (Ok(()), _) => {}
                    (Err(error), _) => {
                        if let Some(task) = own {
                            task.refuse(&error);
                        }
                        if let Some(stop) = self.recover(error) {
                            return stop;
                        }
                        continue;
                    }
                }
            }
            if let Some(stop) = own.and_then(|task| self.alone(task)) {
                return stop;
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                self.watch_for_blobs();
            }
            if self.checked.elapsed() >= self.options.size_check {
                self.checked = Instant::now();
                if let Err(error) = self.look_after() {
                    return Stop::Failed(error);
                }
            }
        }
    }

    /// Takes the tasks of one group.
    fn gather(&mut self, tasks: &mut Vec<Task>) -> Closing {
        let now = Instant::now();
        let idle = IDLE.min(self.options.watermark_wait).min(self.options.size_check);
        let mut wait = self.loose_due.map_or(idle, |due| due.saturating_duration_since(now));
        let mut began = None;
        loop {
            match self.received.recv_timeout(wait) {
                // The permit goes: there is room for another task.
                Ok(Message::Task(task @ (Task::Purge { .. } | Task::Copy { .. }), _permit)) => {
                    tasks.push(task);
                    return Closing::No;
                }
                Ok(Message::Task(task, _permit)) => tasks.push(task),
                Ok(Message::Wake) => {
                    let due = *self.loose_due.get_or_insert_with(|| Instant::now() + LOOSE_WAIT);
                    if tasks.is_empty() {
                        wait = due.saturating_duration_since(Instant::now());
                        continue;
                    }
                }
                Ok(Message::Pulse(done)) => {
                    _ = done.send(());
                    if tasks.is_empty() {
                        return Closing::No;
                    }
                }
                Ok(Message::Damaged(error)) => return Closing::Failed(error),
                Ok(Message::Close(answer)) => return Closing::Asked(answer),
                Err(RecvTimeoutError::Timeout) => return Closing::No,
                Err(RecvTimeoutError::Disconnected) => return Closing::Dropped,
            }
            let began = *began.get_or_insert_with(Instant::now);
            if tasks.len() >= GROUP || began.elapsed() >= GATHER {
                return Closing::No;
            }
            wait = ALONE;
        }
    }

    /// Does what cannot go along with others, after all that came before.
    fn alone(&mut self, task: Task) -> Option<Stop> {
        match task {
            Task::Purge { tenant, answer } => {
                self.shared.loose().forget(tenant);
                let purged = of_tenant::remove(&self.database, tenant);
                if purged.is_ok() {
                    self.shared.forget(tenant);
                    self.changes.fetch_add(1, Ordering::AcqRel);
                }
                drop(answer.send(purged.clone()));
                purged.err().and_then(|error| self.recover(error))
            }
            Task::Copy { answer } => match self.copy(self.now()) {
                Ok(copied) => {
                    drop(answer.send(copied));
                    None
                }
                Err(error) => {
                    drop(answer.send(Err(error.clone())));
                    Some(Stop::Failed(error))
                }
            },
            task => unreachable!("it goes along with others: {task:?}"),
        }
    }

    /// Writes a group as one batch, and answers. `all` takes every watermark along.
    fn write(&mut self, tasks: Vec<Task>, overdue: &[TenantId], all: bool) -> Result<(), StoreError> {
        self.loose_due = None;
        self.woken.store(false, Ordering::Release);
        let all = all || tasks.iter().any(|task| matches!(task, Task::Settle { .. }));
        let (completed, notes) = {
            let mut loose = self.shared.loose();
            let notes: Vec<_> = loose.notes.iter().map(|(tenant, note)| (*tenant, note.clone())).collect();
            (std::mem::take(&mut loose.completed), notes)
        };
        let database = self.database.clone();
        let mut draft = Draft::new(&database);
        let drafted = loose_ends(&mut draft, &completed, &notes);
        let answers: Vec<_> = tasks.into_iter().map(|task| task.draft(&mut draft)).collect();

        let watermarks = self.watermarks_for(&draft, overdue, all);
        for (tenant, content_type, watermark) in &watermarks {
            draft.watermark(*tenant, *content_type, watermark);
        }
        let Draft { batch, effects, changes_snapshot, damage, .. } = draft;
        let idle = batch.is_empty();
        let committed = match damage.into_inner() {
            Some(damage) => Err(damage),
            None => drafted.and_then(|()| if idle { Ok(()) } else { database.commit(batch) }),
        };
        match &committed {
            Ok(()) => {
                self.shared.loose().written(&watermarks, &notes);
                self.take_note(&effects);
                if !idle && let Some((trouble, _)) = self.trouble.take() {
                    let attempts = trouble.attempts();
                    tracing::info!(message_id = event::STORE_WRITABLE, attempts, "the state can be written again");
                }
                if changes_snapshot {
                    self.changes.fetch_add(1, Ordering::AcqRel);
                }
            }
            Err(_) => self.shared.loose().completed.extend(completed),
        }
        for answer in answers {
            answer(committed.as_ref().err());
        }
        committed
    }

    /// The watermarks that go with this batch.
    fn watermarks_for(
        &self,
        draft: &Draft<'_>,
        overdue: &[TenantId],
        all: bool,
    ) -> Vec<(TenantId, ContentType, Watermark)> {
        let loose = self.shared.loose();
        let going = |tenant: &TenantId| all || draft.tenants.contains(tenant) || overdue.contains(tenant);
        loose
            .watermarks
            .iter()
            .filter(|(tenant, _)| going(tenant))
            .flat_map(|(tenant, of)| of.iter().map(|(content_type, watermark)| (*tenant, *content_type, *watermark)))
            .collect()
    }

    /// Memory follows what is durable now.
    fn take_note(&self, effects: &[Effect]) {
        let mut oldest_gone = Vec::new();
        for effect in effects {
            match effect {
                Effect::Added(tenant, place, entry) => self.shared.tenant(*tenant).book_of(place).add(*place, entry),
                Effect::Removed(tenant, place) => {
                    let queue = (*tenant, place.again);
                    if self.shared.tenant(*tenant).book_of(place).remove(place) && !oldest_gone.contains(&queue) {
                        oldest_gone.push(queue);
                    }
                }
                Effect::Deferred(tenant, place, not_before) => {
                    self.shared.tenant(*tenant).book_of(place).take_back(*place, *not_before);
                }
                Effect::Readdressed(tenant, place, not_before) => {
                    self.shared.tenant(*tenant).book_of(place).readdress(*place, *not_before);
                }
                Effect::Absent(tenant, place) => self.shared.tenant(*tenant).book_of(place).clear(place),
            }
        }
        for (tenant, again) in oldest_gone {
            match queue::oldest(&self.database, tenant, again) {
                Ok(oldest) => self.shared.tenant(tenant).queue(again).book().oldest = oldest,
                // It is told a little too old, until the next entry is removed.
                Err(error) => tracing::warn!(%tenant, %error, "cannot tell the oldest entry of the queue"),
            }
        }
    }

    /// Reopens the database after a failed write. `Some` if that is not to be.
    fn recover(&mut self, error: StoreError) -> Option<Stop> {
        if matches!(error, StoreError::Damaged { .. }) {
            return Some(Stop::Failed(error));
        }
        let mut current = error;
        loop {
            self.database.close();
            let wait = self.put_off(&current);
            if let Some(stop) = self.refuse_for(wait, &current) {
                return Some(stop);
            }
            let reopened =
                self.database.reopen().and_then(|()| queue::read_books(&self.database, self.options.remembered));
            match reopened {
                Ok((books, _)) => {
                    self.shared.replace_books(books);
                    self.loose_due = Some(Instant::now());
                    return None;
                }
                Err(error @ StoreError::Damaged { .. }) => return Some(Stop::Failed(error)),
                Err(error) => current = error,
            }
        }
    }

    /// Counts a failure, and says how long to wait. The journal hears of the first few, then with growing intervals, and of
    /// another kind of failure at once.
    fn put_off(&mut self, error: &StoreError) -> Duration {
        let kind = error.trouble().kind;
        let (trouble, told) = self.trouble.get_or_insert_with(|| (Backoff::new(Stage::Store), kind.clone()));
        let wait = trouble.failed(None);
        if trouble.attempts().is_power_of_two() || *told != kind {
            *told = kind;
            tracing::error!(
                message_id = event::STORE_UNWRITABLE,
                error = %error.trouble().cause,
                remedy = error.remedy(),
                attempt = trouble.attempts(),
                "the state cannot be written; trying again"
            );
        }
        wait
    }

    /// Answers every task with the error, for this long.
    fn refuse_for(&mut self, time: Duration, error: &StoreError) -> Option<Stop> {
        let until = Instant::now() + time;
        loop {
            match self.received.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Task(task, _permit)) => task.refuse(error),
                Ok(Message::Wake) => {}
                Ok(Message::Pulse(done)) => _ = done.send(()),
                Ok(Message::Damaged(error)) => return Some(Stop::Failed(error)),
                Ok(Message::Close(answer)) => {
                    drop(answer.send(Err(error.clone())));
                    return Some(Stop::Closed);
                }
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(Stop::Closed),
            }
        }
    }

    /// Looks at the size, and copies the state if that is due. An error means that the writer must end.
    fn look_after(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        match self.copy_is_due(now) {
            // What is in its way was told.
            Ok(true) => self.copy(now).map(drop),
            Ok(false) => Ok(()),
            Err(error) => {
                tracing::warn!(error = %error.trouble().cause, "cannot tell the state's size");
                Ok(())
            }
        }
    }

    fn watch_for_blobs(&self) {
        if self.database.blobs_present().unwrap_or(false) {
            database::tell_of_blobs(self.database.directory());
        }
    }

    fn copy_is_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        if now.duration_since(self.since) >= signed(self.options.copy_every) {
            return Ok(true);
        }
        let size = self.database.size_on_disk()?;
        Ok(size > self.options.copy_above && size / SLACK > generation::live_bytes(&self.database)?)
    }

    /// Copies the state into a new directory and goes on there, or says why it stays where it is. An error means that the
    /// writer must end.
    fn copy(&mut self, now: Timestamp) -> Result<Result<(), StoreError>, StoreError> {
        let began = Instant::now();
        let next = self.generation.next();
        let directory = next.directory(&self.store);
        let access = self.options.access();
        let copied = generation::copy(&self.store, &self.database, next, access, now)
            .and_then(|()| Database::open(&directory, access));
        let pointed = match copied {
            Ok(database) => match generation::point_to(&self.store, next, now) {
                // Nobody knows which of the two the next start finds, and only now do they hold the same.
                Err(error) if generation::is_pointed_to(&self.store, next) => return Err(error),
                pointed => pointed.map(|()| database),
            },
            Err(error) => Err(error),
        };
        let database = match pointed {
            Ok(database) => database,
            Err(error) => {
                tracing::warn!(error = %error.trouble().cause, remedy = error.remedy(), "cannot copy the state; it stays where it is");
                // The next copy has the same number.
                if directory.exists()
                    && let Err(error) = generation::drop_directory(&directory)
                {
                    tracing::warn!(error = %error.trouble().cause, "the copy of the state is removed at the next start");
                }
                return Ok(Err(error));
            }
        };
        let before = self.database.size_on_disk().unwrap_or_default();
        let old = self.database.directory().to_owned();
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = database.clone();
        self.database = database;
        self.generation = next;
        self.since = now;
        if let Err(error) = generation::drop_directory(&old) {
            tracing::warn!(error = %error.trouble().cause, "the state's old directory is removed at the next start");
        }
        tracing::info!(
            generation = next.0,
            before,
            after = self.database.size_on_disk().unwrap_or_default(),
            milliseconds = began.elapsed().as_millis(),
            "copied the state to a smaller database"
        );
        Ok(Ok(()))
    }

    /// The time, counted on from the one given at opening.
    fn now(&self) -> Timestamp {
        self.options.now.checked_add(signed(self.started.elapsed())).unwrap_or(self.options.now)
    }
}

/// Whether and how the thread is to end after this group.
enum Closing {
    No,
    Failed(StoreError),
    Asked(oneshot::Sender<Result<(), StoreError>>),
    Dropped,
}

/// An answer that waits for the commit: it is given the error of that, or none.
type Waiting = Box<dyn FnOnce(Option<&StoreError>)>;

impl Task {
    /// Adds the task to the batch; what comes back answers it after the commit.
    fn draft(self, draft: &mut Draft<'_>) -> Waiting {
        match self {
            Self::Enqueue { tenant, tier, listed, queued_at, answer } => {
                waiting(answer, draft.enqueue(tenant, tier, listed, queued_at))
            }
            Self::Defer { tenant, entry, answer } => waiting(answer, draft.defer(tenant, &entry)),
            Self::LookAgain { tenant, entry, answer } => waiting(answer, draft.look_again(tenant, entry)),
            Self::DeadLetter { tenant, letter, for_good, answer } => {
                waiting(answer, draft.dead_letter(tenant, &letter, for_good))
            }
            Self::DropUnlisted { tenant, entry, answer } => waiting(answer, draft.drop_unlisted(tenant, &entry)),
            Self::Refuse { tenant, letters, answer } => waiting(answer, draft.refuse(tenant, &letters)),
            Self::Withdraw { tenant, ids, answer } => waiting(answer, draft.withdraw(tenant, ids)),
            Self::Put { tenant, key, value, answer } => waiting(answer, draft.set(tenant, key, value)),
            Self::Settle { answer } => waiting(answer, Ok(())),
            Self::Purge { .. } | Self::Copy { .. } => unreachable!("it is done alone"),
        }
    }

    fn refuse(self, error: &StoreError) {
        // Who does not wait any more needs no answer.
        match self {
            Self::Enqueue { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::DropUnlisted { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Refuse { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Withdraw { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Defer { answer, .. }
            | Self::LookAgain { answer, .. }
            | Self::DeadLetter { answer, .. }
            | Self::Put { answer, .. }
            | Self::Purge { answer, .. }
            | Self::Copy { answer }
            | Self::Settle { answer } => drop(answer.send(Err(error.clone()))),
        }
    }
}

fn waiting<T: 'static>(answer: Answer<T>, drafted: Result<T, StoreError>) -> Waiting {
    Box::new(move |failed| {
        drop(answer.send(match failed {
            Some(error) => Err(error.clone()),
            None => drafted,
        }));
    })
}

fn loose_ends(
    draft: &mut Draft<'_>,
    completed: &[(TenantId, Place)],
    notes: &[(TenantId, Option<Vec<u8>>)],
) -> Result<(), StoreError> {
    for (tenant, place) in completed {
        draft.complete(*tenant, *place)?;
    }
    for (tenant, note) in notes {
        draft.set(Some(*tenant), keys::head(kind::NOTE, *tenant), note.clone())?;
    }
    Ok(())
}

/// Removes keys, durably.
pub(super) fn remove<'a>(database: &Database, keys: impl Iterator<Item = &'a Slice>) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for key in keys {
        batch.remove(key);
    }
    database.commit(batch)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
