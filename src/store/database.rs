//! One sled database, used so that it keeps what it has acknowledged.
//!
//! sled 0.34.7 has atomic batches, but its `flush` does not sync the file, it writes large pages to files that it
//! never syncs, it can leave a half-written snapshot behind that no later opening gets past, and it panics on some
//! kinds of damage. [`Database`] is the only place that knows:
//!
//! - **Durability.** [`commit`](Database::commit) is one batch, `flush`, then `sync_data` on the `db` file. What it
//!   has returned `Ok` for survives a power cut.
//! - **No blob files.** Segments of 8 MiB make a leaf page of up to 2 MiB stay in the log. A leaf holds at most 19
//!   entries (16, and up to 3 of a neighbour that is merged into it), so that entries of at most [`MAX_ENTRY`] bytes never
//!   make one; larger ones are refused.
//! - **Making.** A new database is made under `<name>.making`, synced with all its files, and renamed: a directory
//!   with the final name was made completely, and one whose `db` is missing is damaged, not new.
//! - **Opening.** Half-written snapshots are removed; sled runs in a thread of its own under `catch_unwind`; slowness
//!   is reported and waited out. Damage (sled says so, panics, or reads past the end of its file) is
//!   [`StoreError::Damaged`]; everything that comes from the operating system is another error, and no reason to move
//!   anything.
//! - **Write errors.** sled's errors are sticky: after one the database is closed, reads and writes answer
//!   [`StoreError::Suspended`], and the writer calls [`reopen`](Database::reopen) until that works. What the failed batch
//!   held may be there afterwards or not, but all of it or nothing.
//!
//! All calls block; async code goes through the store's threads or `spawn_blocking`.

#[cfg(test)]
pub(super) mod faults;

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::{Histogram, HistogramOpts};

use super::durable;
use super::error::StoreError;
use super::lock::pause;

use crate::event;

/// Bytes of one key and its value, together, that the store may hold in one piece.
pub(super) const MAX_ENTRY: usize = 106 * 1024;

/// The unit in which sled writes its log. It is kept in the database and can never change.
const SEGMENT_BYTES: usize = 8 << 20;
/// How long sled's own lock may still be held by handles of this process that are on their way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How soon it is asked for again.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Bytes of a key or a value, shared with the cache.
pub(super) type Slice = sled::IVec;

/// Writes that become visible and durable together.
#[derive(Debug, Default, Clone)]
pub(super) struct Batch {
    inner: sled::Batch,
    ahead: Vec<Slice>,
    entries: usize,
    bytes: usize,
    largest: usize,
}

impl Batch {
    /// Puts `value` at `key`, over whatever is there.
    pub(super) fn insert(&mut self, key: impl Into<Slice>, value: impl Into<Slice>) {
        let (key, value) = (key.into(), value.into());
        let bytes = key.len() + value.len();
        self.largest = self.largest.max(bytes);
        self.bytes += bytes;
        self.entries += 1;
        self.inner.insert(key, value);
    }

    /// Removes what is at `key`, if anything is.
    pub(super) fn remove(&mut self, key: impl Into<Slice>) {
        self.entries += 1;
        self.inner.remove(key);
    }

    /// Puts nothing at `key`, over whatever is there, before the batch is applied and in the order of the calls. Whether
    /// it is there after a crash has nothing to do with the rest.
    pub(super) fn insert_ahead(&mut self, key: impl Into<Slice>) {
        self.ahead.push(key.into());
    }

    /// How many writes it holds.
    #[must_use]
    pub(super) const fn len(&self) -> usize {
        self.entries
    }

    /// Whether it holds none.
    #[must_use]
    pub(super) const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of keys and values put.
    #[must_use]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// Bytes of sled's page cache; the process needs about two to three times as much.
    pub(super) cache_bytes: u64,
    /// Whether a missing database is made; otherwise a missing one is an error.
    pub(super) create: bool,
    /// Whether sled looks twice a second for segments that hold little and writes what is in them elsewhere. Without that,
    /// the files of a database to which nothing is written do not change.
    pub(super) tidy: bool,
}

/// How long batches took to become durable, in all databases of the process: they share the disk that it tells of.
pub(super) static FLUSHES: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "From handing a batch to the store's database to its being durable.";
    let options = HistogramOpts::new("tenantry_store_flush_seconds", help);
    let buckets = vec![0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0];
    Histogram::with_opts(options.buckets(buckets)).expect("the name and the buckets are well formed")
});

/// An open database; cheap to clone, all clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Of the next opening.
    access: Mutex<Access>,
    /// Empty after a failed write, until `reopen` works.
    open: RwLock<Option<Arc<Handle>>>,
}

/// sled's handle and the file that must be synced after its flush.
#[derive(Debug)]
struct Handle {
    /// `None` only while it is being dropped.
    sled: Option<sled::Db>,
    log: File,
}

impl Handle {
    fn sled(&self) -> &sled::Db {
        self.sled.as_ref().expect("it is taken out by `drop` only")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let sled = self.sled.take();
        // After an I/O error sled's last handle may panic; that must not take a reader down.
        drop(catch_unwind(AssertUnwindSafe(move || drop(sled))));
    }
}

impl Database {
    /// Opens the database in `directory`, or makes it. Blocking; a slow opening is reported and waited out.
    pub(super) fn open(directory: &Path, access: Access) -> Result<Self, StoreError> {
        if access.create && !exists(directory)? {
            make(directory, access)?;
        }
        let handle = open_existing(directory, access)?;
        // sled has renamed its snapshot and perhaps removed the older one.
        durable::sync_directory(directory)?;
        Ok(Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                access: Mutex::new(access),
                open: RwLock::new(Some(Arc::new(handle))),
            }),
        })
    }

    /// Where it is.
    #[must_use]
    pub(super) fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Applies a batch as one, and returns when it would survive a power cut. One writer at a time.
    ///
    /// After an error (other than [`StoreError::TooLarge`], which writes nothing) the database is closed:
    /// [`reopen`](Self::reopen) it.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.largest > MAX_ENTRY {
            return Err(StoreError::TooLarge {
                path: self.shared.directory.clone(),
                bytes: batch.largest,
                most: MAX_ENTRY,
            });
        }
        let handle = self.handle()?;
        let begun = Instant::now();
        let written = self.guarded(Doing::Write, || {
            for key in batch.ahead {
                handle.sled().insert(key, Slice::default())?;
            }
            handle.sled().apply_batch(batch.inner)?;
            handle.sled().flush()?;
            // `flush` has only waited for the pages it wrote: neither the file's size nor the drive's cache.
            handle.log.sync_data()?;
            FLUSHES.observe(begun.elapsed().as_secs_f64());
            Ok(())
        });
        drop(handle);
        if written.is_err() {
            self.close();
        }
        written
    }

    /// The value at `key`.
    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, StoreError> {
        let handle = self.handle()?;
        self.guarded(Doing::Read, || handle.sled().get(key))
    }

    /// Whether there is a value at `key`.
    pub(super) fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool, StoreError> {
        let handle = self.handle()?;
        self.guarded(Doing::Read, || handle.sled().contains_key(key))
    }

    /// The entries in a range of keys, in their order, from either end. It sees what is written meanwhile, or not.
    ///
    /// While it lives the database cannot be reopened or compacted: do not keep it.
    pub(super) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Rows, StoreError> {
        let handle = self.handle()?;
        let entries = self.guarded(Doing::Read, || Ok(handle.sled().range(range)))?;
        Ok(Rows { entries, database: self.clone(), _handle: handle })
    }

    /// The entries whose keys begin with `prefix`, in their order, from either end.
    pub(super) fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Rows, StoreError> {
        let handle = self.handle()?;
        let entries = self.guarded(Doing::Read, || Ok(handle.sled().scan_prefix(prefix)))?;
        Ok(Rows { entries, database: self.clone(), _handle: handle })
    }

    /// Closes and opens again after a failed write. The caller waits between attempts.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        self.close();
        let access = *self.access();
        let handle = open_existing(&self.shared.directory, access)?;
        durable::sync_directory(&self.shared.directory)?;
        *self.shared.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(handle));
        Ok(())
    }

    /// The same, in this way from now on.
    pub(super) fn reopen_with(&self, access: Access) -> Result<(), StoreError> {
        *self.access() = access;
        self.reopen()
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.shared.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it for all clones. Readers that are in the middle of a range finish it.
    pub(super) fn close(&self) {
        let handle = self.shared.open.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(handle);
    }

    /// Whether it is open, that is, no write has failed since it was opened last.
    pub(super) fn is_open(&self) -> bool {
        self.shared.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Bytes of its files.
    pub(super) fn size_on_disk(&self) -> Result<u64, StoreError> {
        durable::size(&self.shared.directory)
    }

    /// Whether sled has made blob files, which it never syncs: an alarm, since it cannot happen by what is written here.
    pub(super) fn blobs_present(&self) -> Result<bool, StoreError> {
        blobs_present(&self.shared.directory)
    }

    fn handle(&self) -> Result<Arc<Handle>, StoreError> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| StoreError::Suspended { path: self.shared.directory.clone() })
    }

    fn guarded<T>(&self, doing: Doing, work: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        guarded(&self.shared.directory, doing, work)
    }
}

/// Entries in the order of their keys.
pub(super) struct Rows {
    // Declared, and so dropped, before the handle: the last handle is the one that catches sled's panics.
    entries: sled::Iter,
    database: Database,
    _handle: Arc<Handle>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("database", &self.database.shared.directory).finish_non_exhaustive()
    }
}

impl Iterator for Rows {
    type Item = Result<(Slice, Slice), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entries = &mut self.entries;
        self.database.guarded(Doing::Read, || entries.next().transpose()).transpose()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entries = &mut self.entries;
        self.database.guarded(Doing::Read, || entries.next_back().transpose()).transpose()
    }
}

/// Moves a damaged database out of the way, into `aside`, under a name that says when and why; returns where it is
/// now. Never removes anything.
pub(super) fn move_aside(directory: &Path, aside: &Path, reason: &str, now: Timestamp) -> Result<PathBuf, StoreError> {
    durable::make_directory(aside)?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let when = now.strftime("%Y%m%dT%H%M%SZ");
    for attempt in 1_u32.. {
        let again = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let target = aside.join(format!("{name}-{reason}-{when}{again}"));
        if !exists(&target)? {
            durable::rename(directory, &target)?;
            return Ok(target);
        }
    }
    unreachable!("four thousand million directories of that name")
}

/// What is being done, for the error's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Open,
    Read,
    Write,
}

/// Makes a new database under another name first: one that a crash leaves half made is simply made again.
fn make(directory: &Path, access: Access) -> Result<(), StoreError> {
    let making = durable::with_suffix(directory, ".making");
    durable::remove_directory(&making)?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        durable::make_directory(parent)?;
    }
    let handle = start(&making, access)?;
    guarded(&making, Doing::Write, || handle.sled().flush().map(drop))?;
    drop(handle);
    durable::sync_tree(&making)?;
    durable::rename(&making, directory)
}

fn open_existing(directory: &Path, access: Access) -> Result<Handle, StoreError> {
    if !exists(directory)? {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        return Err(StoreError::Open { path: directory.to_owned(), source: Arc::new(missing) });
    }
    if !exists(&directory.join("db"))? {
        // sled would make an empty one in its place.
        return Err(StoreError::Damaged { path: directory.to_owned(), why: "its file `db` is missing".to_owned() });
    }
    remove_unfinished_snapshots(directory)?;
    if blobs_present(directory)? {
        tell_of_blobs(directory);
    }
    // A process that died, or a write that failed, may have left what is not durable, and who reads it believes it.
    durable::sync_file(&directory.join("db"))?;
    start(directory, access)
}

/// sled never syncs what it writes to files of their own, and what is written here never makes it do so.
pub(super) fn tell_of_blobs(directory: &Path) {
    tracing::error!(
        message_id = event::STORE_AT_RISK,
        database = %directory.display(),
        "the database has blob files, which are not safe from a power cut; please report this"
    );
}

/// Removes what sled leaves behind when it is killed while it writes a snapshot: the next opening would take it for
/// the newest one and fail for ever. The older snapshot and the log are still there.
fn remove_unfinished_snapshots(directory: &Path) -> Result<(), StoreError> {
    for path in durable::entries(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

fn blobs_present(directory: &Path) -> Result<bool, StoreError> {
    Ok(!durable::entries(&directory.join("blobs"))?.is_empty())
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    fs::exists(path).map_err(|error| StoreError::read(path, error))
}

/// Lets sled open a directory, in a thread of its own, and waits for it, again and again if handles of this process
/// still hold sled's lock.
fn start(directory: &Path, access: Access) -> Result<Handle, StoreError> {
    let began = Instant::now();
    loop {
        match start_once(directory, access) {
            Err(StoreError::DatabaseInUse { .. }) if began.elapsed() < LOCK_PATIENCE => pause(LOCK_AGAIN),
            done => return done,
        }
    }
}

fn start_once(directory: &Path, access: Access) -> Result<Handle, StoreError> {
    let megabytes = durable::size(directory)? / 1_000_000;
    let deadline = Duration::from_secs(60 + megabytes / 50);
    let (answer, answered) = mpsc::sync_channel(1);
    let path = directory.to_owned();
    std::thread::Builder::new()
        .name("store-open".to_owned())
        .spawn(move || {
            let opened = guarded(&path, Doing::Open, || {
                let sled = sled::Config::new()
                    .path(&path)
                    .mode(sled::Mode::LowSpace)
                    .cache_capacity(access.cache_bytes)
                    .segment_size(SEGMENT_BYTES)
                    .use_compression(false)
                    .flush_every_ms(access.tidy.then_some(500))
                    .open()?;
                let log = OpenOptions::new().read(true).write(true).open(path.join("db"))?;
                Ok(Handle { sled: Some(sled), log })
            });
            // Nobody is left to answer to if the opener was cancelled; then the handle is dropped here.
            drop(answer.send(opened));
        })
        .map_err(|error| StoreError::Thread { name: "store-open", source: Arc::new(error) })?;
    let began = Instant::now();
    loop {
        match answered.recv_timeout(deadline) {
            Ok(opened) => return opened,
            Err(RecvTimeoutError::Timeout) => tracing::warn!(
                database = %directory.display(),
                megabytes,
                seconds = began.elapsed().as_secs(),
                "the database takes unusually long to open; still waiting"
            ),
            Err(RecvTimeoutError::Disconnected) => {
                let why = "the thread that opened it ended without an answer".to_owned();
                return Err(StoreError::Damaged { path: directory.to_owned(), why });
            }
        }
    }
}

/// Calls sled, and sorts what comes of it: an answer, damage, or the operating system's error.
fn guarded<T>(path: &Path, doing: Doing, work: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    #[cfg(test)]
    if let Some(how) = faults::next(path, doing) {
        if how == faults::How::DoneAndDisk {
            drop(work());
        }
        return Err(how.error(path, doing));
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| sorted(path, doing, error)),
        Err(panic) => Err(sorted_panic(path, doing, panic.as_ref())),
    }
}

fn sorted(path: &Path, doing: Doing, error: sled::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock on") => {
            StoreError::DatabaseInUse { path }
        }
        // sled reads where its index points to. If the file ends before that, the two do not belong together.
        sled::Error::Io(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            StoreError::Damaged { path, why: error.to_string() }
        }
        sled::Error::Io(error) => fault(path, doing, error),
        sled::Error::Unsupported(why) => StoreError::Incompatible { path, why },
        sled::Error::Corruption { at: Some(at), .. } => {
            StoreError::Damaged { path, why: format!("corrupted data at {at:?}") }
        }
        sled::Error::Corruption { at: None, .. } => StoreError::Damaged { path, why: "corrupted data".to_owned() },
        other => StoreError::Damaged { path, why: other.to_string() },
    }
}

/// A panic means damage, unless it comes from unwrapping one of the operating system's errors.
fn sorted_panic(path: &Path, doing: Doing, panic: &(dyn Any + Send)) -> StoreError {
    let text = panic_text(panic);
    match os_error(text) {
        Some(error) => fault(path.to_owned(), doing, error),
        None => StoreError::Damaged { path: path.to_owned(), why: text.to_owned() },
    }
}

/// What a panic says.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text")
}

/// The operating system's error in the `Debug` text of an `io::Error`: `Os { code: 28, kind: StorageFull, .. }`.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, rest) = text.split_once("Os { code: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(io::Error::from_raw_os_error(digits.parse().ok()?))
}

fn fault(path: PathBuf, doing: Doing, error: io::Error) -> StoreError {
    let source = Arc::new(error);
    match doing {
        Doing::Open => StoreError::Open { path, source },
        Doing::Read => StoreError::ReadDatabase { path, source },
        Doing::Write => StoreError::WriteDatabase { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom, Write as _};

    const ACCESS: Access = Access { cache_bytes: 8 << 20, create: true, tidy: true };

    fn batch(range: std::ops::Range<u32>, size: usize) -> Batch {
        let mut batch = Batch::default();
        for n in range {
            // Bytes that differ, so that nothing is found equal by chance.
            let value: Vec<u8> = (0..size).map(|at| at.wrapping_mul(n as usize | 1).to_le_bytes()[1]).collect();
            batch.insert(&n.to_be_bytes(), value);
        }
        batch
    }

    fn keys(rows: Rows) -> Vec<u32> {
        rows.map(|row| u32::from_be_bytes(row.unwrap().0.as_ref().try_into().unwrap())).collect()
    }

    #[test]
    fn what_is_committed_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content/2026-11-22.001");
        let database = Database::open(&path, ACCESS).unwrap();
        database.commit(batch(0..100, 50)).unwrap();
        let mut removals = Batch::default();
        removals.remove(&7_u32.to_be_bytes());
        database.commit(removals).unwrap();
        drop(database);

        let database = Database::open(&path, Access { create: false, ..ACCESS }).unwrap();
        assert!(!database.contains(7_u32.to_be_bytes()).unwrap());
        assert_eq!(database.get(8_u32.to_be_bytes()).unwrap().unwrap().len(), 50);
        let from = 90_u32.to_be_bytes();
        assert_eq!(keys(database.range(from..).unwrap()), (90..100).collect::<Vec<_>>());
        let last = database.range::<&[u8]>(..).unwrap().next_back().unwrap().unwrap();
        assert_eq!(last.0.as_ref(), 99_u32.to_be_bytes());
        assert_eq!(keys(database.scan_prefix([0, 0, 0]).unwrap()).len(), 99);
        assert_eq!(durable::entries(path.parent().unwrap()).unwrap(), [path]);
    }

    #[test]
    fn a_missing_one_is_made_only_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state-1");
        let error = Database::open(&path, Access { create: false, ..ACCESS }).unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        // A crash while it is being made leaves this.
        fs::create_dir(durable::with_suffix(&path, ".making")).unwrap();
        fs::write(durable::with_suffix(&path, ".making").join("conf"), [0; 40]).unwrap();
        Database::open(&path, ACCESS).unwrap();
    }

    #[test]
    fn a_half_written_snapshot_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db-1");
        let database = Database::open(&path, ACCESS).unwrap();
        database.commit(batch(0..100, 50)).unwrap();
        drop(database);
        fs::write(path.join("snap.7FFFFFFFFFFFFFFF.generating"), b"half").unwrap();
        let database = Database::open(&path, ACCESS).unwrap();
        assert_eq!(keys(database.range::<&[u8]>(..).unwrap()).len(), 100);
    }

    /// Whatever is done to the files: opened with a prefix of what was written, or damage; never an I/O error, a hang
    /// or a panic.
    #[test]
    fn damage_is_told_from_trouble_with_the_disk() {
        type Harm = fn(&Path);
        let harms: [(&str, bool, Harm); 6] = [
            ("no log", true, |path| fs::remove_file(path.join("db")).unwrap()),
            ("garbage in the middle of the log", true, |path| {
                let mut file = OpenOptions::new().write(true).open(path.join("db")).unwrap();
                let middle = file.metadata().unwrap().len() / 2;
                file.seek(SeekFrom::Start(middle)).unwrap();
                file.write_all(&vec![0xa5; 100_000]).unwrap();
            }),
            ("garbage only", true, |path| fs::write(path.join("db"), vec![0x5a; 3 << 20]).unwrap()),
            ("a log cut short", true, |path| {
                let file = OpenOptions::new().write(true).open(path.join("db")).unwrap();
                file.set_len(file.metadata().unwrap().len() / 3).unwrap();
            }),
            ("a broken snapshot", true, |path| {
                for entry in durable::entries(path).unwrap() {
                    if entry.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                        fs::write(entry, b"nonsense that is longer than a checksum").unwrap();
                    }
                }
            }),
            ("settings of zeros", true, |path| fs::write(path.join("conf"), [0; 60]).unwrap()),
        ];
        for (name, must_fail, harm) in harms {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db-1");
            for round in 0..3 {
                let database = Database::open(&path, ACCESS).unwrap();
                for part in 0..10 {
                    let first = round * 1000 + part * 100;
                    database.commit(batch(first..first + 100, 1000)).unwrap();
                }
            }
            harm(&path);
            let outcome = Database::open(&path, ACCESS)
                .and_then(|database| database.range::<&[u8]>(..)?.map(|row| row.map(|_| 1)).sum::<Result<u32, _>>());
            match outcome {
                Err(StoreError::Damaged { why, .. }) => eprintln!("{name}: {why}"),
                Ok(rows) if !must_fail => eprintln!("{name}: {rows} rows"),
                other => panic!("{name}: {other:?}"),
            }
            let aside = dir.path().join("aside");
            let now = "2026-11-22T13:50:00Z".parse().unwrap();
            let moved = move_aside(&path, &aside, "damaged", now).unwrap();
            assert_eq!(moved, aside.join("db-1-damaged-20261122T135000Z"));
            Database::open(&path, ACCESS).unwrap();
            let moved = move_aside(&path, &aside, "damaged", now).unwrap();
            assert_eq!(moved, aside.join("db-1-damaged-20261122T135000Z-2"));
        }
    }

    #[test]
    fn a_lock_held_by_another_is_not_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db-1");
        drop(Database::open(&path, ACCESS).unwrap());
        let other = File::open(path.join("db")).unwrap();
        other.lock().unwrap();
        let error = Database::open(&path, ACCESS).unwrap_err();
        assert!(matches!(error, StoreError::DatabaseInUse { .. }), "{error:?}");
        assert_eq!(error.exit_code(), 75);
        drop(other);
        Database::open(&path, ACCESS).unwrap();
    }

    #[test]
    fn no_permission_and_a_full_disk_are_not_damage_even_as_a_panic() {
        let path = Path::new("/s/state-1");
        let text =
            "called `Result::unwrap()` on an `Err` value: Io(Os { code: 28, kind: StorageFull, message: \"x\" })";
        let error = sorted_panic(path, Doing::Open, &text.to_owned());
        assert_eq!(error.kind(), "disk_full");
        let error = sorted_panic(path, Doing::Open, &"tried to serialize Uninitialized");
        assert_eq!(error.kind(), "damaged");
        let error = sorted(path, Doing::Write, io::Error::from_raw_os_error(13).into());
        assert_eq!((error.kind(), error.exit_code()), ("permission", 77));
        let error = sorted(path, Doing::Read, io::Error::from(io::ErrorKind::UnexpectedEof).into());
        assert_eq!(error.kind(), "damaged");
    }

    #[test]
    fn the_largest_entries_make_no_blob_files_and_larger_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("db-1"), ACCESS).unwrap();
        let most = MAX_ENTRY - 4;
        database.commit(batch(0..60, most)).unwrap();
        // Leaves with few entries are merged into their neighbours.
        let mut removals = Batch::default();
        for n in (0..60_u32).filter(|n| n % 5 != 0) {
            removals.remove(&n.to_be_bytes());
        }
        database.commit(removals).unwrap();
        database.commit(batch(0..60, most)).unwrap();
        assert!(!database.blobs_present().unwrap());
        assert!(database.size_on_disk().unwrap() > 60 * most as u64);

        let error = database.commit(batch(0..1, most + 1)).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
        assert!(database.is_open(), "a refused batch is no failed write");
    }

    #[test]
    fn after_a_failed_write_it_is_closed_until_it_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("db-1"), ACCESS).unwrap();
        database.commit(batch(0..10, 10)).unwrap();
        let reader = database.clone();
        let rows = reader.range::<&[u8]>(..).unwrap();
        database.close();
        assert!(matches!(reader.get([0]).unwrap_err(), StoreError::Suspended { .. }));
        assert!(matches!(database.commit(batch(0..1, 1)).unwrap_err(), StoreError::Suspended { .. }));
        assert_eq!(keys(rows).len(), 10, "a reader finishes what it began");
        database.reopen().unwrap();
        database.commit(batch(10..20, 10)).unwrap();
        assert_eq!(keys(reader.range::<&[u8]>(..).unwrap()).len(), 20);
    }
}
