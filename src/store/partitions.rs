//! The partitions that are there, and which of them are open.
//!
//! The newest is held open by the writer. Of the older ones, which are only read, at most [`KEPT_OPEN`] stay open when
//! nobody reads them, with a small cache each, and none for longer than [`IDLE`]. A partition that turns out to be damaged stays where it is and is
//! marked: reading passes over it, and says so.
//!
//! **Invariant:** whoever holds a [`Reading`] reads what was there when he began, or gets an error: [`Partition::end`]
//! waits for him for a while, and what he has open he can read to the end of that step even when it has been removed.
//! Reading a sealed partition does not change its files, so that they can be copied while others read.
//! A partition that is written is open once, for the writer and all readers: after an error it is opened again in the
//! same place. Other files can take the place of a partition's that is sealed ([`Partitions::exchange`]): who has the old
//! ones open reads them to the end, and whoever opens it then has the new ones.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use super::database::{Access, Database};
use super::error::StoreError;
use super::partition::{PartitionName, Sums};
use super::purge::{Purges, Veil};
use super::recent::Moment;
use super::seen::{Seen, SeenKey};
use super::tree::Tree;

use crate::event;

/// How many older partitions stay open when nobody reads them.
const KEPT_OPEN: usize = 4;
/// How long one of them stays open that nobody reads; whoever opens any partition closes it then.
const IDLE: Duration = Duration::from_mins(10);
/// sled's cache for one of them.
pub(super) const OLD_CACHE: u64 = 8 << 20;
/// How often who waits for readers asks whether he is to go on.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A partition that is there.
pub(crate) struct Partition {
    pub(crate) name: PartitionName,
    pub(crate) ordinal: u32,
    pub(crate) directory: PathBuf,
    /// When it was begun, if its label says so.
    pub(crate) begun: Option<Moment>,
    /// What was seen in it; forgotten until somebody asks, and again when it is too old to matter.
    seen: RwLock<Seen>,
    /// Its database, if anybody has it open. Locked while it is being opened, so that it is opened once.
    open: Mutex<Weak<Tree>>,
    inner: Mutex<Inner>,
    /// Tells when the last reader has gone.
    left: Condvar,
    /// How often its database was opened to read it.
    #[cfg(test)]
    pub(crate) openings: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    readers: usize,
    /// The sums of a sealed partition.
    sealed: Option<Sums>,
    /// Why it cannot be read.
    unreadable: Option<StoreError>,
    /// Something in it is, and that has been said.
    damaged: bool,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd)]
enum Ending {
    #[default]
    No,
    /// Nobody begins to read it any more.
    Asked,
    /// Those that still read it get an error.
    Now,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("name", &self.name).field("ordinal", &self.ordinal).finish_non_exhaustive()
    }
}

impl Partition {
    pub(crate) fn new(
        name: PartitionName,
        ordinal: u32,
        begun: Option<Moment>,
        directory: PathBuf,
        key: SeenKey,
    ) -> Self {
        Self {
            name,
            ordinal,
            begun,
            seen: RwLock::new(Seen::forgotten(&directory, key)),
            directory,
            open: Mutex::default(),
            inner: Mutex::default(),
            left: Condvar::new(),
            #[cfg(test)]
            openings: std::sync::atomic::AtomicUsize::default(),
        }
    }

    /// One that cannot be opened, for this reason.
    pub(crate) fn unreadable_one(
        name: PartitionName,
        ordinal: u32,
        directory: PathBuf,
        key: SeenKey,
        error: &StoreError,
    ) -> Self {
        let partition = Self::new(name, ordinal, None, directory, key);
        partition.mark_unreadable(error);
        partition
    }

    /// Where its database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.join("db")
    }

    /// Opens it to write. What somebody has open is opened again in its place, and whoever reads goes on with that: sled
    /// opens nothing twice.
    pub(crate) fn open_to_write(&self, cache_bytes: u64, veil: Veil) -> Result<Arc<Tree>, StoreError> {
        let access = Access { cache_bytes, create: false, tidy: true };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.upgrade() {
            tree.database.reopen_with(access)?;
            return Ok(tree);
        }
        let database = Database::open(&self.database(), access)?;
        let tree = Arc::new(Tree::new(database, veil));
        *open = Arc::downgrade(&tree);
        Ok(tree)
    }

    /// The sums, if it is sealed.
    pub(crate) fn sealed(&self) -> Option<Sums> {
        self.inner().sealed.clone()
    }

    pub(crate) fn seal(&self, sums: Sums) {
        self.inner().sealed = Some(sums);
    }

    /// Why it cannot be read, if it cannot.
    pub(crate) fn unreadable(&self) -> Option<StoreError> {
        self.inner().unreadable.clone()
    }

    /// Marks it as one that cannot be opened.
    pub(crate) fn mark_unreadable(&self, error: &StoreError) {
        self.complain(error);
        self.inner().unreadable.get_or_insert_with(|| error.clone());
    }

    /// Whether something in it is damaged, as far as is known. Nothing more is written to such a one.
    pub(crate) fn is_damaged(&self) -> bool {
        self.inner().damaged
    }

    /// Damage, and that it was dropped, is no reason to stop; everything else is an error.
    pub(crate) fn pass_over(&self, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::PartitionDropped { .. } => Ok(()),
            StoreError::Damaged { .. } | StoreError::Undecodable { .. } => {
                self.complain(&error);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Marks it as damaged, and says so once.
    pub(crate) fn complain(&self, error: &StoreError) {
        if !std::mem::replace(&mut self.inner().damaged, true) {
            tracing::error!(
                message_id = event::STORE_DAMAGED,
                partition = %self.name,
                cause = %error,
                remedy = error.remedy(),
                "a partition of the store is damaged; it stays where it is, and what cannot be read is passed over"
            );
        }
    }

    pub(crate) fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seen_mut(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody begin to read it, and waits up to `patience` for those who do. Who reads it then gets an error at the
    /// next step; that may never come, and nobody waits for it.
    pub(crate) fn end(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut inner = self.inner();
        inner.ending = Ending::Asked;
        while inner.readers > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.left.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.ending = Ending::Now;
    }

    /// Waits until nobody has this database of the partition open any more, as long as `go_on` says so; false if it ends
    /// before that.
    pub(crate) fn wait_until_closed(&self, tree: &Weak<Tree>, go_on: impl Fn() -> bool) -> bool {
        let mut inner = self.inner();
        while tree.strong_count() > 0 {
            if !go_on() {
                return false;
            }
            inner = self.left.wait_timeout(inner, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether it is about to be removed: nobody begins to read it.
    pub(crate) fn is_ending(&self) -> bool {
        self.inner().ending > Ending::No
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> StoreError {
        StoreError::PartitionDropped { name: self.name.to_string() }
    }
}

/// A partition that is being read: it is open while this lives.
#[derive(Debug)]
pub(crate) struct Reading {
    partition: Arc<Partition>,
    // Dropped with the guard, before the reader is counted out.
    tree: Option<Arc<Tree>>,
}

impl Reading {
    /// The partition's name.
    pub(crate) fn name(&self) -> String {
        self.partition.name.to_string()
    }

    /// The partition's ordinal.
    pub(crate) fn ordinal(&self) -> u32 {
        self.partition.ordinal
    }

    /// Whether reading may go on; asked between the parts of a body.
    pub(crate) fn go_on(&self) -> Result<(), StoreError> {
        if self.partition.inner().ending == Ending::Now { Err(self.partition.gone()) } else { Ok(()) }
    }
}

impl std::ops::Deref for Reading {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        self.tree.as_ref().expect("it is taken out by `drop` only")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.tree = None;
        self.partition.inner().readers -= 1;
        self.partition.left.notify_all();
    }
}

/// An older partition that is kept open.
#[derive(Debug)]
struct Kept {
    ordinal: u32,
    used: Instant,
    _tree: Arc<Tree>,
}

/// All partitions, oldest first.
#[derive(Debug)]
pub(crate) struct Partitions {
    content: PathBuf,
    /// Who is not shown any more.
    purges: Arc<Purges>,
    list: RwLock<Vec<Arc<Partition>>>,
    /// The older ones that are kept open, most recently used last.
    kept: Mutex<VecDeque<Kept>>,
}

impl Partitions {
    pub(crate) fn new(content: PathBuf, list: Vec<Arc<Partition>>, purges: Arc<Purges>) -> Self {
        Self { content, purges, list: RwLock::new(list), kept: Mutex::default() }
    }

    pub(crate) fn purges(&self) -> &Arc<Purges> {
        &self.purges
    }

    /// What hides those who were purged from who reads the partition with this ordinal.
    pub(crate) fn veil(&self, ordinal: u32) -> Veil {
        Veil::over(&self.purges, ordinal)
    }

    /// The directory that holds them.
    pub(crate) fn content(&self) -> &Path {
        &self.content
    }

    pub(crate) fn list(&self) -> Vec<Arc<Partition>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn newest(&self) -> Option<Arc<Partition>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// The partition with this ordinal, if it is there.
    pub(crate) fn by_ordinal(&self, ordinal: u32) -> Option<Arc<Partition>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.binary_search_by_key(&ordinal, |partition| partition.ordinal).ok().map(|at| Arc::clone(&list[at]))
    }

    /// Whether what stands in the partition with this ordinal can be read, as far as is known.
    pub(crate) fn is_readable(&self, ordinal: u32) -> bool {
        self.by_ordinal(ordinal).is_some_and(|partition| partition.unreadable().is_none() && !partition.is_ending())
    }

    pub(crate) fn push(&self, partition: Arc<Partition>) {
        self.list.write().unwrap_or_else(PoisonError::into_inner).push(partition);
    }

    /// Takes a partition out of the list, and closes it as soon as nobody reads it.
    pub(crate) fn remove(&self, ordinal: u32) {
        self.list.write().unwrap_or_else(PoisonError::into_inner).retain(|partition| partition.ordinal != ordinal);
        self.forget(ordinal);
    }

    /// Closes an older partition as soon as nobody reads it.
    pub(crate) fn forget(&self, ordinal: u32) {
        self.kept().retain(|kept| kept.ordinal != ordinal);
    }

    /// Opens a partition to read it. Damage marks it; other errors may pass.
    pub(crate) fn read(&self, partition: &Arc<Partition>) -> Result<Reading, StoreError> {
        {
            let mut inner = partition.inner();
            if inner.ending > Ending::No {
                return Err(partition.gone());
            }
            if let Some(error) = &inner.unreadable {
                return Err(error.clone());
            }
            inner.readers += 1;
        }
        let mut reading = Reading { partition: Arc::clone(partition), tree: None };
        match self.open(partition) {
            Ok(tree) => reading.tree = Some(tree),
            // It has been removed meanwhile.
            Err(_) if partition.inner().ending == Ending::Now => return Err(partition.gone()),
            Err(error) => return Err(error),
        }
        Ok(reading)
    }

    fn open(&self, partition: &Partition) -> Result<Arc<Tree>, StoreError> {
        let mut open = partition.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.upgrade() {
            // Sealing it has failed; the newest is the writer's business.
            if !tree.database.is_open() && self.newest().is_none_or(|newest| newest.ordinal != partition.ordinal) {
                tree.database.reopen()?;
            }
            self.keep(partition, &tree, false);
            return Ok(tree);
        }
        #[cfg(test)]
        partition.openings.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let access = Access { cache_bytes: OLD_CACHE, create: false, tidy: false };
        match Database::open(&partition.database(), access) {
            Ok(database) => {
                let tree = Arc::new(Tree::new(database, self.veil(partition.ordinal)));
                *open = Arc::downgrade(&tree);
                self.keep(partition, &tree, true);
                Ok(tree)
            }
            Err(error) => {
                if matches!(error, StoreError::Damaged { .. }) {
                    partition.mark_unreadable(&error);
                }
                Err(error)
            }
        }
    }

    /// Puts other files in the place of those of a sealed partition, while nobody can open it. Who has them open reads
    /// them to the end; that is whom the answer knows of. After an error they are the partition's still.
    pub(crate) fn exchange(
        &self,
        partition: &Partition,
        key: SeenKey,
        exchange: impl FnOnce() -> Result<Sums, StoreError>,
    ) -> Result<Weak<Tree>, StoreError> {
        // In the order in which they are taken when what was seen is read.
        let mut seen = partition.seen_mut();
        let mut open = partition.open.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = exchange()?;
        self.forget(partition.ordinal);
        *seen = Seen::forgotten(&partition.directory, key);
        partition.seal(sums);
        Ok(std::mem::take(&mut *open))
    }

    /// Notes the use of a partition; `new` ones push the least recently used out.
    fn keep(&self, partition: &Partition, tree: &Arc<Tree>, new: bool) {
        let ordinal = partition.ordinal;
        let used = Instant::now();
        let mut kept = self.kept();
        let was_kept = kept.iter().position(|kept| kept.ordinal == ordinal).and_then(|place| kept.remove(place));
        if new || was_kept.is_some() {
            kept.push_back(Kept { ordinal, used, _tree: Arc::clone(tree) });
        }
        let idle = kept.iter().take_while(|kept| used.duration_since(kept.used) > IDLE).count();
        let surplus = kept.len().saturating_sub(KEPT_OPEN);
        let out: Vec<_> = kept.drain(..idle.max(surplus)).collect();
        // Closing takes its time; others may use the list meanwhile.
        drop(kept);
        drop(out);
    }

    /// Lets those that are kept open have been used so much earlier.
    #[cfg(test)]
    pub(crate) fn rest(&self, time: Duration) {
        for kept in self.kept().iter_mut() {
            kept.used -= time;
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
