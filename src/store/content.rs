//! Content, as the rest of the store uses it: opened, written through one thread, and closed.
//!
//! [`BlobWriter`] receives a body on the caller's task: checks it, hashes it, takes out the record ids, cuts and
//! compresses it. What is compressed waits in memory until the writer has it on the disk, and takes its share of a
//! budget of [`IN_FLIGHT`] bytes meanwhile. Who finds the budget spent first hands over what he holds: so nobody waits
//! for memory while he holds memory that nobody else can free.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::anchors::Anchors;
use super::durable;
use super::error::StoreError;
use super::holdings::Holdings;
use super::intake::{Intake, Part, Tools};
use super::job::{Answer, Job, Parts, Received, UploadId};
use super::partition::{self, Label};
use super::partitions::{Partition, Partitions};
use super::purge::{self, Purges};
use super::roll::{self, Sealer};
use super::seen::SeenKey;
use super::snapshot;
use super::state::records::Undecodable;
use super::writer::Writer;
use super::{Fetched, IntakeError, Stored};
use crate::clock::ServiceTime;
use crate::content::{ContentBlob, ContentId, TenantId};

/// Compressed bytes that may wait for the writer.
const IN_FLIGHT: usize = 32 << 20;
/// Bytes that the ids of records may take until they are stored, besides what every body may have. The largest body's
/// fit.
const IDS_IN_FLIGHT: usize = 128 << 20;
/// What every body may have, and the steps in which more is taken.
const ID_STEP: usize = 256 << 10;
/// A body of more compressed bytes than this is handed over in several steps.
const AHEAD: usize = 1 << 20;
/// What a job takes besides its parts.
const JOB: usize = 2048;
/// The longest content id and the longest URI that are taken: they stand in one value of the store.
const MAX_NAME: usize = 8192;

/// How content is opened.
#[derive(Debug, Clone)]
pub(crate) struct ContentOptions {
    /// The store's directory.
    pub(crate) store: PathBuf,
    /// Bytes on the disk at which a partition is full.
    pub(crate) partition_bytes: u64,
    /// The key of the hashes of what was seen.
    pub(crate) seen_key: SeenKey,
}

/// Open content; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) holdings: Arc<Holdings>,
    /// Absent if it was opened only to be read.
    writing: Option<Arc<Writing>>,
}

#[derive(Debug)]
struct Writing {
    jobs: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
    ids: Arc<Semaphore>,
    uploads: AtomicU64,
    tools: Tools,
    ended: watch::Receiver<Option<StoreError>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Content {
    /// Opens content to write it. Blocking. What a crash left half done is finished or removed.
    pub(crate) fn open(options: &ContentOptions, time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        let content = options.store.join("content");
        durable::make_directory(&content)?;
        let anchors = Anchors::read(&content)?;
        let purges = Arc::new(Purges::read(&content)?);
        purge::finish_exchanges(&content)?;
        clear_leftovers(&content, &anchors)?;
        let partitions = Partitions::new(content.clone(), find_partitions(&content, options.seen_key)?, purges);
        let holdings = Arc::new(Holdings::new(options.store.clone(), time, options.seen_key, partitions, anchors));
        load_seen(&holdings)?;

        let sealer = Sealer::start(Arc::clone(&holdings))?;
        let (jobs, queue) = mpsc::channel();
        let mut writer = Writer::new(Arc::clone(&holdings), queue, options.partition_bytes, sealer);
        writer.open_newest()?;
        writer.seal_what_is_not();
        holdings.load_day()?;

        let (end, ended) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("store-content".to_owned())
            .spawn(move || {
                let mut ending = Ending { end, orderly: false };
                writer.run();
                ending.orderly = true;
            })
            .map_err(|error| StoreError::Thread { name: "store-content", source: Arc::new(error) })?;
        let writing = Writing {
            jobs,
            budget: Arc::new(Semaphore::new(IN_FLIGHT)),
            ids: Arc::new(Semaphore::new(IDS_IN_FLIGHT)),
            uploads: AtomicU64::new(0),
            tools: Tools::default(),
            ended,
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self { holdings, writing: Some(Arc::new(writing)) })
    }

    /// Opens content only to read it: nothing is made, sealed, moved or removed, and a partition is opened when a
    /// query needs it.
    pub(crate) fn open_to_read(options: &ContentOptions, time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        let content = options.store.join("content");
        let anchors = Anchors::read(&content)?;
        let purges = Arc::new(Purges::read(&content)?);
        let partitions = Partitions::new(content.clone(), find_partitions(&content, options.seen_key)?, purges);
        let mut holdings = Holdings::new(options.store.clone(), time, options.seen_key, partitions, anchors);
        holdings.read_only();
        Ok(Self { holdings: Arc::new(holdings), writing: None })
    }

    /// Begins to receive a body.
    pub(crate) fn receive(&self, tenant: TenantId, blob: &ContentBlob, fetched: Fetched, kind: Kind) -> BlobWriter {
        let revision = matches!(kind, Kind::Revision);
        let defect = match kind {
            Kind::GivenUp(why) => Some(why),
            Kind::Records | Kind::Revision => None,
        };
        let (upload, tools) = match &self.writing {
            Some(writing) => (writing.uploads.fetch_add(1, Ordering::Relaxed), writing.tools.clone()),
            None => (0, Tools::default()),
        };
        BlobWriter {
            content: self.clone(),
            upload,
            tenant,
            life: self.holdings.purges().life(tenant),
            blob: blob.clone(),
            fetched,
            revision,
            intake: Some(Intake::new(&tools, self.holdings.seen_key, tenant, defect)),
            parts: Parts::default(),
            ids: IdMemory::default(),
            receiving: Some(Receiving::new(&self.holdings)),
        }
    }

    /// As what these content ids are stored, durably. Blocking.
    pub(crate) fn find_stored(&self, tenant: TenantId, ids: &[ContentId]) -> Result<Vec<As>, StoreError> {
        let recent = self.holdings.recent();
        let find = |id| {
            Ok(match self.holdings.find_content(&recent, tenant, id)? {
                None => As::Nothing,
                Some(header) if header.defect.is_some() => As::Defect,
                Some(header) if header.revision > 0 => As::Revised,
                Some(header) if header.is_young() => As::Young,
                Some(_) => As::Records,
            })
        };
        ids.iter().map(find).collect()
    }

    /// Takes the state's snapshot and puts it into the newest partition; it goes along when the next one begins. False if
    /// there is no partition yet. Blocking.
    pub(crate) fn put_snapshot(&self, take: impl FnOnce() -> Result<Vec<u8>, StoreError>) -> Result<bool, StoreError> {
        let _one = self.holdings.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let uncleared = self.holdings.purges().uncleared();
        // It was made just now.
        let undecodable = |error: Undecodable| StoreError::Undecodable {
            path: self.holdings.store.clone(),
            what: "the snapshot",
            why: error.to_string(),
        };
        let bytes = snapshot::without(take()?, |tenant| uncleared.contains(&tenant)).map_err(undecodable)?;
        let owners = snapshot::owners(&bytes).map_err(undecodable)?;
        let (done, answer) = oneshot::channel();
        self.send(Job::Snapshot { bytes, owners, done })?;
        answer.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// The newest snapshot that can be read. Blocking.
    pub(crate) fn snapshot(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.holdings.snapshot()
    }

    /// Hides a tenant, durably, and answers which purge erases it.
    pub(crate) async fn begin_purge(&self, tenant: TenantId) -> Result<u32, StoreError> {
        self.ask(|done| Job::Purge { tenant, done }).await
    }

    /// Begins a new partition.
    pub(crate) async fn roll(&self) -> Result<(), StoreError> {
        self.ask(|done| Job::Roll { done }).await
    }

    /// Writes what was handed over, and closes.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let closed = self.ask(|done| Job::Close { done }).await;
        let thread = writing.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its databases are closed when it has ended.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        closed
    }

    /// Resolves when the writer's thread comes by: it does not hang. Whether it can write is another question.
    pub(crate) async fn pulse(&self) {
        let (done, turned) = oneshot::channel();
        if self.send(Job::Pulse { done }).is_ok() {
            // One that has ended does not hang.
            _ = turned.await;
        }
    }

    /// Resolves when the writer has ended although nobody asked it to.
    pub(crate) async fn failed(&self) -> StoreError {
        if let Some(writing) = &self.writing
            && let Ok(ended) = writing.ended.clone().wait_for(Option::is_some).await
            && let Some(error) = &*ended
        {
            return error.clone();
        }
        std::future::pending().await
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(job(done))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let writing = self.writing.as_ref().ok_or(StoreError::Closed)?;
        writing.jobs.send(job).map_err(|_| StoreError::Closed)
    }
}

/// As what a content id is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// It is not.
    Nothing,
    /// As an array of records.
    Records,
    /// The same, but fetched so early that it may be a part.
    Young,
    /// As an array of records, and as another one that the service had when it was looked at again.
    Revised,
    /// As bytes that were given up on.
    Defect,
}

/// What a body is received as.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A JSON array of records; one that is stored already is not stored again.
    Records,
    /// The same, but another body than the one stored is stored besides it.
    Revision,
    /// Whatever it is: it is given up on, for this reason.
    GivenUp(String),
}

/// Tells how the writer's thread ended.
struct Ending {
    end: watch::Sender<Option<StoreError>>,
    orderly: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.orderly {
            let why = if std::thread::panicking() { "it panicked" } else { "nobody closed the store" };
            self.end.send_replace(Some(StoreError::WriterEnded { writer: "content", why: why.to_owned() }));
        }
    }
}

/// Counts the bodies that are on their way, so that a group knows whether it is worth waiting.
#[derive(Debug)]
struct Receiving(Arc<Holdings>);

impl Receiving {
    fn new(holdings: &Arc<Holdings>) -> Self {
        holdings.receiving.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(holdings))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reception of one body: push the decoded bytes, then finish. Dropped before that, nothing becomes visible.
#[derive(Debug)]
pub struct BlobWriter {
    content: Content,
    upload: UploadId,
    tenant: TenantId,
    life: u32,
    blob: ContentBlob,
    fetched: Fetched,
    revision: bool,
    /// Until it has finished.
    intake: Option<Intake>,
    /// Compressed, and not handed over yet.
    parts: Parts,
    ids: IdMemory,
    receiving: Option<Receiving>,
}

/// The share that the ids of a body have in the memory for all.
///
/// Nobody waits for it, since whoever waits would hold what another waits for: a body that finds it spent is refused,
/// and comes again.
#[derive(Debug, Default)]
pub(crate) struct IdMemory(Vec<OwnedSemaphorePermit>);

impl IdMemory {
    /// Takes as much as `bytes` need beyond what every body may have.
    fn hold(&mut self, bytes: usize, writing: Option<&Writing>) -> Result<(), StoreError> {
        let Some(writing) = writing else { return Err(StoreError::Closed) };
        while (self.0.len() + 1) * ID_STEP < bytes {
            let step = u32::try_from(ID_STEP).unwrap_or(u32::MAX);
            let permit = Arc::clone(&writing.ids).try_acquire_many_owned(step).map_err(|_| StoreError::Crowded)?;
            self.0.push(permit);
        }
        Ok(())
    }
}

impl BlobWriter {
    /// Takes the next bytes of the body, after Content-Encoding is undone. Memory stays bounded: parts of large
    /// bodies go to the store ahead of the header.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), IntakeError> {
        let mut parts = Vec::new();
        if let Some(intake) = &mut self.intake {
            for piece in bytes.chunks(ID_STEP) {
                intake.push(piece, &mut parts)?;
                self.ids.hold(intake.id_bytes(), self.content.writing.as_deref())?;
            }
        }
        self.hold(parts).await
    }

    /// The body is complete: stores it and returns when it would survive a power cut.
    /// `Malformed` leaves nothing behind.
    ///
    /// # Panics
    ///
    /// If storing it made the writer panic: whoever brings what does that is to count it.
    pub async fn finish(mut self) -> Result<Stored, IntakeError> {
        self.check_names()?;
        let mut parts = Vec::new();
        // Only this takes it, and this takes `self`.
        let Some(intake) = self.intake.take() else { return Err(StoreError::Closed.into()) };
        let body = intake.finish(&mut parts)?;
        self.hold(parts).await?;
        let parts = std::mem::take(&mut self.parts);
        let received = Box::new(Received {
            tenant: self.tenant,
            life: self.life,
            blob: self.blob.clone(),
            fetched: self.fetched.clone(),
            revision: self.revision,
            body,
            _ids: std::mem::take(&mut self.ids),
        });
        self.receiving = None;
        let upload = self.upload;
        match self.content.ask(|done| Job::Blob { upload, received, parts, done }).await {
            // As if it had been here: who counts panics counts it against this blob.
            Err(StoreError::Panicked { why }) => panic!("{why}"),
            done => Ok(done?),
        }
    }

    /// The names stand in one value of the store, which has its limit; the service's are below 300 bytes.
    fn check_names(&self) -> Result<(), IntakeError> {
        for (what, text) in [
            ("content id", self.blob.content_id.as_str()),
            ("URI", &self.blob.content_uri),
            ("URI", &self.fetched.from),
        ] {
            if text.len() > MAX_NAME {
                return Err(IntakeError::Malformed {
                    at: 0,
                    what: format!("its {what} is longer than {MAX_NAME} bytes"),
                });
            }
        }
        Ok(())
    }

    /// Takes memory for compressed parts; hands over what it holds when that is much, or when memory is short.
    async fn hold(&mut self, parts: Vec<Part>) -> Result<(), IntakeError> {
        let writing = self.content.writing.clone().ok_or(StoreError::Closed)?;
        for part in parts {
            let bytes = u32::try_from(part.compressed.len() + JOB).unwrap_or(u32::MAX);
            let permit = if let Ok(permit) = Arc::clone(&writing.budget).try_acquire_many_owned(bytes) {
                permit
            } else {
                self.hand_over()?;
                let permit = Arc::clone(&writing.budget).acquire_many_owned(bytes).await;
                permit.map_err(|_| StoreError::Closed)?
            };
            self.parts.hold(part.compressed, permit);
            // However many receive at a time, and however slowly, together they hold no more than half of the budget.
            let receiving = self.content.holdings.receiving.load(Ordering::Relaxed).max(1);
            if self.parts.bytes() >= AHEAD.min(IN_FLIGHT / 2 / receiving) {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Parts go ahead of their header.
    fn hand_over(&mut self) -> Result<(), StoreError> {
        if self.parts.frames.is_empty() {
            return Ok(());
        }
        let parts = self.parts.split();
        self.content.send(Job::Parts { upload: self.upload, of: (self.tenant, self.life), parts })
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.parts.first > 0 {
            // If the store is closed meanwhile, the next opening removes them.
            drop(self.content.send(Job::Abandon { upload: self.upload }));
        }
    }
}

/// Removes what was never used or is being dropped, and finishes dropping what an anchor says is dropped.
fn clear_leftovers(content: &Path, anchors: &Anchors) -> Result<(), StoreError> {
    let listing = partition::list(content)?;
    for path in listing.others {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if [".new-", ".purging-", ".dropping-"].iter().any(|prefix| name.starts_with(prefix)) {
            durable::remove_directory(&path)?;
        }
    }
    for (_, directory) in listing.partitions {
        if Label::read(&directory).is_ok_and(|label| anchors.has_dropped(label.ordinal)) {
            roll::remove(&directory)?;
        }
    }
    Ok(())
}

/// The partitions that are there, oldest first; those whose label cannot be read are marked.
fn find_partitions(content: &Path, key: SeenKey) -> Result<Vec<Arc<Partition>>, StoreError> {
    let mut found: Vec<Arc<Partition>> = Vec::new();
    for (name, directory) in partition::list(content)?.partitions {
        let after = found.last().map_or(0, |before| before.ordinal);
        let partition = match Label::read(&directory) {
            Ok(Label { name: Some(own), .. }) if own != name.to_string() => {
                let why = format!("this is the partition `{own}` under another name");
                let error = StoreError::Damaged { path: directory.clone(), why };
                Partition::unreadable_one(name, after + 1, directory, key, &error)
            }
            Ok(label) if label.ordinal > after => {
                let partition = Partition::new(name, label.ordinal, Some(label.begun()), directory, key);
                match partition::read_sealed(&partition.directory) {
                    Ok(Some(sums)) => partition.seal(sums),
                    // It is sealed again.
                    Ok(None) | Err(StoreError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
                partition
            }
            Ok(label) => {
                let why = format!("its ordinal {} is not greater than that of the one before", label.ordinal);
                let error = StoreError::Damaged { path: directory.clone(), why };
                Partition::unreadable_one(name, after + 1, directory, key, &error)
            }
            Err(error @ StoreError::Damaged { .. }) => {
                Partition::unreadable_one(name, after + 1, directory, key, &error)
            }
            Err(error) => return Err(error),
        };
        found.push(Arc::new(partition));
    }
    Ok(found)
}

/// Makes what was seen in the last days known again; the newest partition is read when it is opened to write. What the
/// disk does not give is asked for again when it is needed.
fn load_seen(holdings: &Holdings) -> Result<(), StoreError> {
    for partition in holdings.recent().iter().skip(1) {
        match holdings.remember(partition) {
            Err(error) if error.may_last() => {
                tracing::warn!(partition = %partition.name, error = error.trouble().cause, "what was seen cannot be read");
            }
            done => done?,
        }
    }
    Ok(())
}
