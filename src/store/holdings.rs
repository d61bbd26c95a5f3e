//! What the store holds, as far as it is kept in memory: the partitions, where every tenant's chain stands, the
//! day's sums, and the anchors. The writer changes it, when what it says is durable; everybody reads it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::watch;

use super::Heads;
use super::anchors::{Anchors, Gone};
use super::chain;
use super::error::StoreError;
use super::header::BlobHeader;
use super::ids::PackedIds;
use super::keys::BlobNumber;
use super::partition::{self, Label, PartitionName};
use super::partitions::{Partition, Partitions};
use super::purge::Purges;
use super::recent::{Moment, Reckoning};
use super::seen::{Knows, Seen, SeenError, SeenHash, SeenKey};
use super::snapshot;
use super::tree::{Head, Ledger, Tree, hour_of};
use crate::clock::ServiceTime;
use crate::content::{ContentId, ContentType, TenantId};
use crate::event;

/// See the module.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// The store's directory.
    pub(crate) store: PathBuf,
    pub(crate) time: Arc<ServiceTime>,
    /// The key of the hashes of what was seen.
    pub(crate) seen_key: SeenKey,
    pub(crate) partitions: Partitions,
    reckoning: Reckoning,
    /// Of durable blobs only: readers go no further than these.
    heads: RwLock<HashMap<TenantId, Head>>,
    day: Mutex<Day>,
    anchors: Mutex<Anchors>,
    /// Counts the blobs stored since the store was opened.
    pub(crate) stored: watch::Sender<u64>,
    /// Ticks when a partition has been sealed, or turned out to be one that cannot be.
    pub(crate) sealings: watch::Sender<u64>,
    /// Set if there is no writer: then all that is on the disk is durable, and what the writer would know is read
    /// when it is asked for.
    read_only: Option<Once>,
    /// What the disk did not give when it was asked whether something was stored before, and how often.
    unread: Mutex<HashMap<(u32, Option<BlobNumber>), u32>>,
    /// How many bodies are being received and have not been handed over.
    pub(crate) receiving: AtomicUsize,
    /// Held by who takes the state's snapshot and hands it over, and by who notes that a tenant's rows have left the state:
    /// so that no snapshot that was taken before is written down after.
    pub(crate) copying: Mutex<()>,
    /// Held by who removes a partition's directory or puts another in its place.
    moving: Mutex<()>,
}

/// What is stored at one moment.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Whether the newest of them is.
    pub(crate) sealed: bool,
    /// In the newest of them.
    pub(crate) heads: HashMap<TenantId, Head>,
    /// The last ordinal that an anchor names.
    pub(crate) anchored: Option<u32>,
}

/// Sums of one day, by the service's time of storing.
#[derive(Debug, Default)]
struct Day {
    /// Days since 1970.
    number: u32,
    sums: BTreeMap<(TenantId, ContentType), Ledger>,
}

impl Day {
    /// A later day starts from nothing; what belongs to an earlier one is no longer of interest.
    fn add(&mut self, hour: u32, tenant: TenantId, content_type: ContentType, ledger: &Ledger) {
        let number = hour / HOURS;
        if number > self.number {
            *self = Self { number, sums: BTreeMap::new() };
        }
        if number == self.number {
            self.sums.entry((tenant, content_type)).or_default().add(ledger);
        }
    }
}

/// Of a day.
const HOURS: u32 = 24;
/// How often an index is read or made again, or the disk asked, before nothing is expected of it.
const ATTEMPTS: u32 = 3;
/// Of so many places it is known that the disk does not give them; then counting begins anew.
const PLACES: usize = 10_000;

impl Holdings {
    pub(crate) fn new(
        store: PathBuf,
        time: Arc<ServiceTime>,
        seen_key: SeenKey,
        partitions: Partitions,
        anchors: Anchors,
    ) -> Self {
        let reckoning = Reckoning::new(partitions.list().iter().rev().find_map(|partition| partition.begun));
        Self {
            store,
            time,
            seen_key,
            partitions,
            reckoning,
            heads: RwLock::default(),
            day: Mutex::default(),
            anchors: Mutex::new(anchors),
            stored: watch::Sender::new(0),
            sealings: watch::Sender::new(0),
            read_only: None,
            unread: Mutex::default(),
            receiving: AtomicUsize::new(0),
            copying: Mutex::default(),
            moving: Mutex::default(),
        }
    }

    /// Who was purged.
    pub(crate) fn purges(&self) -> &Arc<Purges> {
        self.partitions.purges()
    }

    /// Directories of partitions stay where they are while this is held.
    pub(crate) fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn heads(&self) -> RwLockReadGuard<'_, HashMap<TenantId, Head>> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a partition's label says; its directory may be exchanged for another meanwhile.
    pub(crate) fn label(&self, partition: &Partition) -> Result<Label, StoreError> {
        let _moving = self.moving();
        Label::read(&partition.directory)
    }

    /// Where a tenant's chain stands; before its first blob, behind the numbers of a life that was purged.
    pub(crate) fn head(&self, tenant: TenantId) -> Head {
        let known = self.heads().get(&tenant).cloned();
        known.unwrap_or_else(|| Head::first(tenant, self.purges().last_numbers(tenant)))
    }

    /// Forgets a tenant that was purged.
    pub(crate) fn forget_tenant(&self, tenant: TenantId) {
        self.heads.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
        self.day().sums.retain(|(of, _), _| *of != tenant);
    }

    /// The last number in a tenant's content type whose blob is durable; no number is greater if there is no writer.
    pub(crate) fn last_seq(&self, tenant: TenantId, content_type: ContentType) -> u64 {
        if self.read_only.is_some() {
            return u64::MAX;
        }
        let heads = self.heads();
        heads.get(&tenant).and_then(|head| head.now.last.get(&content_type.code())).copied().unwrap_or(0)
    }

    /// The last numbers of all tenants' content types.
    pub(crate) fn last_numbers(&self) -> Heads {
        self.catch_up();
        let mut numbers = Heads::new();
        for (tenant, head) in &*self.heads() {
            for (code, seq) in &head.now.last {
                if let Some(content_type) = ContentType::from_code(*code) {
                    numbers.insert((*tenant, content_type), *seq);
                }
            }
        }
        numbers
    }

    pub(crate) fn set_heads(&self, heads: HashMap<TenantId, Head>) {
        *self.heads.write().unwrap_or_else(PoisonError::into_inner) = heads;
    }

    pub(crate) fn add_heads(&self, heads: HashMap<TenantId, Head>) {
        self.heads.write().unwrap_or_else(PoisonError::into_inner).extend(heads);
    }

    /// Adds what has become durable to the day's sums.
    pub(crate) fn add_to_day(&self, added: &[(u32, TenantId, ContentType, Ledger)]) {
        let mut day = self.day();
        for (hour, tenant, content_type, ledger) in added {
            day.add(*hour, *tenant, *content_type, ledger);
        }
    }

    /// What was stored since midnight UTC.
    pub(crate) fn stored_today(&self, tenant: TenantId) -> Ledger {
        self.catch_up();
        let today = hour_of(self.time.now()) / HOURS;
        let day = self.day();
        let mut sum = Ledger::default();
        if day.number == today {
            for content_type in ContentType::ALL {
                if let Some(ledger) = day.sums.get(&(tenant, content_type)) {
                    sum.add(ledger);
                }
            }
        }
        sum
    }

    /// Sums up the day from the partitions that have something of it. Blocking.
    pub(crate) fn load_day(&self) -> Result<(), StoreError> {
        let today = hour_of(self.time.now()) / HOURS;
        let begin = Timestamp::from_second(i64::from(today) * i64::from(HOURS) * 3600).unwrap_or(Timestamp::MIN);
        let mut day = Day { number: today, sums: BTreeMap::new() };
        for partition in self.partitions.list() {
            if partition.sealed().is_some_and(|sums| !sums.stored.meets(Some(begin), None)) {
                continue;
            }
            let summed = self.partitions.read(&partition).and_then(|reading| {
                reading.ledgers(today * HOURS, (today + 1) * HOURS, |hour, tenant, content_type, ledger| {
                    day.add(hour, tenant, content_type, &ledger);
                })
            });
            if let Err(error) = summed {
                if error.may_last() {
                    tracing::warn!(partition = %partition.name, error = error.trouble().cause, "what was stored today is counted without a partition that cannot be read");
                } else {
                    partition.pass_over(error)?;
                }
            }
        }
        *self.day() = day;
        Ok(())
    }

    fn day(&self) -> MutexGuard<'_, Day> {
        self.day.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn anchors(&self) -> MutexGuard<'_, Anchors> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no writer.
    pub(crate) fn read_only(&mut self) {
        self.read_only = Some(Once::new());
    }

    /// Without a writer: reads what it would have in memory.
    fn catch_up(&self) {
        let Some(read) = &self.read_only else { return };
        read.call_once(|| {
            let read = self.last_known_heads().and_then(|heads| {
                self.set_heads(heads);
                self.load_day()
            });
            if let Err(error) = read {
                tracing::error!(message_id = event::STORE_DAMAGED, %error, "where the store stands cannot be read");
            }
        });
    }

    /// The heads at the end of the newest partition that can be read.
    pub(crate) fn last_known_heads(&self) -> Result<HashMap<TenantId, Head>, StoreError> {
        for partition in self.partitions.list().iter().rev() {
            match self.partitions.read(partition).and_then(|reading| reading.heads()) {
                Ok(heads) => return Ok(heads.into_iter().collect()),
                Err(error) => partition.pass_over(error)?,
            }
        }
        Ok(HashMap::new())
    }

    /// The name and the ordinal of a partition that is begun on this day: behind all that are here, that lie on the disk,
    /// and that are known to be gone. None is given twice, even if somebody else's lies there.
    pub(crate) fn next_partition(
        &self,
        after: Option<PartitionName>,
        day: Date,
    ) -> Result<(PartitionName, u32), StoreError> {
        let known = self.partitions.list();
        let mut last = after.max(known.last().map(|partition| partition.name));
        let mut ordinal = known.last().map(|partition| partition.ordinal).max(self.anchors().last_ordinal());
        for (name, directory) in partition::list(self.partitions.content())?.partitions {
            if known.iter().any(|partition| partition.name == name) {
                continue;
            }
            last = last.max(Some(name));
            ordinal = ordinal.max(Label::read(&directory).ok().map(|label| label.ordinal));
        }
        Ok((PartitionName::after(last, day), ordinal.map_or(1, |last| last + 1)))
    }

    /// A partition was begun, and from here the chains go on: everybody sees both or neither.
    pub(crate) fn begun(&self, partition: Arc<Partition>, heads: HashMap<TenantId, Head>) {
        let mut now = self.heads.write().unwrap_or_else(PoisonError::into_inner);
        self.partitions.push(partition);
        *now = heads;
    }

    /// One digest over where the chains stand at the end of a partition, if that can be read; with those of tenants that
    /// were purged since, as the journal has it.
    pub(crate) fn heads_in(&self, partition: &Arc<Partition>) -> Option<String> {
        let heads = self.partitions.read(partition).and_then(|reading| reading.unveiled().heads()).ok()?;
        let erased = self.label(partition).map(|label| label.erased).unwrap_or_default();
        let erased = erased.iter().filter_map(|erased| Some((erased.tenant, chain::from_hex(erased.end.as_ref()?)?)));
        Some(chain::heads_digest(heads.into_iter().map(|(tenant, head)| (tenant, head.now.link)).chain(erased)))
    }

    /// When content was lost the last time, as far as is known.
    pub(crate) fn lost_at(&self) -> Option<Timestamp> {
        let anchors = self.anchors();
        anchors.list().iter().filter(|anchor| anchor.reason != Gone::Dropped).map(|anchor| anchor.at).max()
    }

    /// What is stored at one moment: the partitions, whether the newest was sealed, where the chains stand in it, and the
    /// last ordinal that an anchor names.
    pub(crate) fn standing(&self) -> Standing {
        let heads = self.heads();
        let partitions = self.partitions.list();
        let sealed = partitions.last().is_some_and(|newest| newest.sealed().is_some());
        Standing { partitions, sealed, heads: heads.clone(), anchored: self.anchors().last_ordinal() }
    }

    /// The state's snapshot, from the newest partition that has one and can be read.
    pub(crate) fn snapshot(&self) -> Result<Option<Vec<u8>>, StoreError> {
        for partition in self.partitions.list().iter().rev() {
            let snapshot = self.snapshot_in(partition)?;
            if snapshot.is_some() {
                return Ok(snapshot);
            }
        }
        Ok(None)
    }

    /// The state's snapshot in this partition, if there is one that can be read; without rows of who is hidden there.
    pub(crate) fn snapshot_in(&self, partition: &Arc<Partition>) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.partitions.read(partition).and_then(|reading| reading.snapshot());
        let read = read.or_else(|error| partition.pass_over(error).map(|()| None))?;
        let hidden = self.purges().hidden_in(partition.ordinal);
        // Of one that cannot be understood nobody knows whose rows it holds.
        Ok(read.and_then(|bytes| snapshot::without(bytes, |tenant| hidden.contains_key(&tenant)).ok()))
    }

    /// The newest revision of a content id in these partitions.
    pub(crate) fn find_content(
        &self,
        among: &[Arc<Partition>],
        tenant: TenantId,
        content_id: &ContentId,
    ) -> Result<Option<BlobHeader>, StoreError> {
        let hash = self.seen_key.content(tenant, content_id);
        for partition in among {
            let suspects = self.suspects(partition, hash)?;
            if suspects.is_empty() {
                continue;
            }
            let found = self.newest_revision(partition, suspects, tenant, content_id)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn newest_revision(
        &self,
        partition: &Arc<Partition>,
        suspects: Vec<BlobNumber>,
        tenant: TenantId,
        content_id: &ContentId,
    ) -> Result<Option<BlobHeader>, StoreError> {
        let mut newest: Option<BlobHeader> = None;
        for blob in suspects {
            let header = self.partitions.read(partition).and_then(|tree| match tree.index(blob)? {
                Some(index) if index.tenant == tenant && index.content_id == *content_id => {
                    tree.header(tenant, index.content_type, index.seq)
                }
                _ => Ok(None),
            });
            match header {
                Ok(Some(header)) if newest.as_ref().is_none_or(|newest| newest.revision < header.revision) => {
                    newest = Some(header);
                }
                // What cannot be understood is nothing that could be shown: better stored twice than not at all.
                Ok(_) | Err(StoreError::Undecodable { .. }) => {}
                Err(error) => self.confirms_nothing(partition, Some(blob), error)?,
            }
        }
        Ok(newest)
    }

    /// What stands in this blob, or in the partition, would tell whether something was stored before, and cannot be read.
    ///
    /// Damage confirms nothing. Neither does, after [`ATTEMPTS`], what the disk does not give of a partition that is no
    /// longer written: better stored twice than not at all. Until then the error is for whoever asked, and for nobody
    /// else.
    pub(crate) fn confirms_nothing(
        &self,
        partition: &Partition,
        blob: Option<BlobNumber>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let Err(error) = partition.pass_over(error) else { return Ok(()) };
        let written = self.partitions.newest().is_some_and(|newest| newest.ordinal == partition.ordinal);
        if written || !error.may_last() {
            return Err(error);
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.len() >= PLACES {
            unread.clear();
        }
        let failures = unread.entry((partition.ordinal, blob)).or_default();
        *failures += 1;
        if *failures < ATTEMPTS {
            return Err(error);
        }
        if *failures == ATTEMPTS {
            tracing::error!(
                message_id = event::STORE_DAMAGED,
                partition = %partition.name,
                cause = error.trouble().cause,
                remedy = error.remedy(),
                "a partition of the store cannot be read in part; what stands there is not recognised when it comes again"
            );
        }
        Ok(())
    }

    /// Those in which what comes now may have been seen before, newest first.
    pub(crate) fn recent(&self) -> Vec<Arc<Partition>> {
        let mut list = self.partitions.list();
        let begun: Vec<_> = list.iter().map(|partition| partition.begun).collect();
        list.drain(..self.reckoning.first_recent(&begun, &self.time));
        list.reverse();
        list
    }

    /// What the label of a partition says that is begun at this time of the service's.
    pub(crate) fn begin(&self, at: Timestamp) -> Moment {
        self.reckoning.begin(at, &self.time)
    }

    /// Frees the memory of what was seen too long ago.
    pub(crate) fn forget_what_is_old(&self) {
        let mut list = self.partitions.list();
        list.truncate(list.len() - self.recent().len());
        for partition in list {
            *partition.seen_mut() = Seen::forgotten(&partition.directory, self.seen_key);
        }
    }

    /// Sees to it that what was seen in a partition is in memory.
    pub(crate) fn remember(&self, partition: &Arc<Partition>) -> Result<(), StoreError> {
        let mut seen = partition.seen_mut();
        if seen.knows() == Knows::Nothing { self.load_seen(partition, &mut seen) } else { Ok(()) }
    }

    /// Reads what was seen in a partition, whatever is in memory: after a failed write more may stand there than was
    /// acknowledged.
    pub(crate) fn remember_anew(&self, partition: &Arc<Partition>) -> Result<(), StoreError> {
        self.load_seen(partition, &mut partition.seen_mut())
    }

    /// The blobs of a partition in which something with this hash may stand. A damaged index is made again.
    pub(crate) fn suspects(&self, partition: &Arc<Partition>, hash: SeenHash) -> Result<Vec<BlobNumber>, StoreError> {
        let found = self.look_up(partition, hash);
        found.or_else(|error| self.confirms_nothing(partition, None, error).map(|()| Vec::new()))
    }

    fn look_up(&self, partition: &Arc<Partition>, hash: SeenHash) -> Result<Vec<BlobNumber>, StoreError> {
        for _ in 0..ATTEMPTS {
            let found = {
                let seen = partition.seen();
                (seen.knows() != Knows::Nothing).then(|| seen.candidates(hash))
            };
            match found {
                Some(Ok(blobs)) => return Ok(blobs),
                // To read it would mean to write, too; and nobody stores anything.
                None if self.read_only.is_some() => return Ok(Vec::new()),
                // It was too old as far as was known when it might have been read.
                None => self.remember(partition)?,
                Some(Err(SeenError::Store(error))) => return Err(error),
                Some(Err(damaged @ SeenError::Damaged { .. })) => {
                    tracing::warn!(partition = %partition.name, %damaged, "an index is made again");
                    let mut seen = partition.seen_mut();
                    seen.discard()?;
                    let reading = self.partitions.read(partition);
                    let made = reading.and_then(|reading| see(&mut seen, self.seen_key, &reading, 0));
                    made.or_else(|error| part_seen(partition, &mut seen, error))?;
                }
            }
        }
        partition.seen().candidates(hash).map_err(SeenError::into_store)
    }

    /// Makes one run of what was seen in a partition that is being sealed. Questions are answered meanwhile. A damaged
    /// index is made again from the partition.
    pub(crate) fn merge_seen(
        &self,
        partition: &Arc<Partition>,
        tree: &Tree,
        complete_to: BlobNumber,
    ) -> Result<(), StoreError> {
        let mut made_again = false;
        loop {
            let merged = {
                let seen = partition.seen();
                // What is too old is not in memory, and what is not complete must not be said to be.
                if seen.knows() != Knows::All {
                    return Ok(());
                }
                seen.merge(complete_to)
            };
            match merged {
                Ok(merged) => {
                    if partition.seen_mut().adopt(merged)? {
                        return Ok(());
                    }
                    // Somebody else has made it again, or it was forgotten.
                }
                Err(damaged @ SeenError::Damaged { .. }) if !made_again => {
                    tracing::warn!(partition = %partition.name, %damaged, "an index is made again");
                    let mut seen = partition.seen_mut();
                    seen.discard()?;
                    if let Err(error) = see(&mut seen, self.seen_key, tree, 0) {
                        seen.knows_only_a_part();
                        return Err(error);
                    }
                    made_again = true;
                }
                Err(error) => return Err(error.into_store()),
            }
        }
    }

    /// Makes known again what was seen in a partition: from its runs, and from its database what those do not have.
    fn load_seen(&self, partition: &Arc<Partition>, known: &mut Seen) -> Result<(), StoreError> {
        let (mut seen, opened) = Seen::open(&partition.directory, self.seen_key)?;
        for damaged in &opened.damaged {
            tracing::warn!(partition = %partition.name, %damaged, "an index is made again");
        }
        // The sums of a sealed partition say whether anything is missing without opening it.
        let mut rest = Ok(());
        if partition.sealed().is_none_or(|sums| sums.next_blob > opened.covered_to) {
            let reading = self.partitions.read(partition);
            rest = reading.and_then(|reading| see(&mut seen, self.seen_key, &reading, opened.covered_to));
        }
        match rest {
            Ok(()) => *known = seen,
            Err(error) => {
                part_seen(partition, &mut seen, error)?;
                *known = seen;
            }
        }
        Ok(())
    }
}

/// What was seen in a partition cannot be read in full. If that will not pass, a part of it has to do.
fn part_seen(partition: &Partition, seen: &mut Seen, error: StoreError) -> Result<(), StoreError> {
    partition.pass_over(error)?;
    seen.knows_only_a_part();
    Ok(())
}

/// Learns from a partition's database what was seen in the blobs from `first` on.
pub(super) fn see(seen: &mut Seen, key: SeenKey, tree: &Tree, first: BlobNumber) -> Result<(), StoreError> {
    // Of bodies that are still arriving the header comes later.
    let open = tree.open_blobs()?.first().copied().unwrap_or(BlobNumber::MAX);
    let mut failed = Ok(());
    tree.for_each_index(first, |blob, index| {
        seen.insert(key.content(index.tenant, &index.content_id), blob);
        // What cannot be understood confirms nothing either.
        if let Ok(ids) = PackedIds::decode(&index.ids) {
            for id in ids.iter().flatten() {
                seen.insert(key.record(index.tenant, &id), blob);
            }
        }
        if failed.is_ok() {
            failed = seen.flush_if_full(open.min(blob + 1));
        }
    })?;
    failed.map_err(SeenError::into_store)
}
