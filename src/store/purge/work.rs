//! The work on the purges, one partition at a time.
//!
//! What is next is found out from the records and from what lies on the disk, each time: so it makes no difference whether
//! the step before was taken by this process. Which partition it is, newest first: the cut was made at the newest.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::database::panic_text;
use super::super::durable;
use super::super::error::StoreError;
use super::super::facade::Store;
use super::super::holdings::Holdings;
use super::super::partition::Label;
use super::super::partitions::Partition;
use super::super::sizes::Room;
use super::exchange::{exchange, whole};
use super::record::Record;
use super::rewrite::{Inventory, tidy_up, write_anew};
use super::{Progress, Purge, Remains, phase};
use crate::event;

/// For how long who reads the old partition is waited for.
const PATIENCE: Duration = Duration::from_mins(10);
/// For how long a partition that is being sealed is waited for.
const SEALING: Duration = Duration::from_mins(1);

/// Why a partition was not written anew.
#[derive(Debug)]
pub(super) enum Broken {
    /// The store is being closed.
    Closing,
    /// Retention drops the partition.
    Gone,
    /// There is not enough room.
    Short { needed: u64, free: u64 },
    /// The old one cannot be read, and that will not pass.
    Unreadable(StoreError),
    /// Something that may pass.
    Failed(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Broken {
    /// What an error says that came of reading the old partition.
    pub(super) fn unreadable(error: StoreError) -> Self {
        match error {
            StoreError::PartitionDropped { .. } => Self::Gone,
            error @ (StoreError::Damaged { .. } | StoreError::Undecodable { .. } | StoreError::Incompatible { .. }) => {
                Self::Unreadable(error)
            }
            error if error.may_last() => Self::Unreadable(error),
            error => Self::Failed(error),
        }
    }
}

/// Under which conditions the work goes on.
pub(super) struct Work {
    store: std::path::PathBuf,
    /// Bytes that are to stay free.
    reserve: u64,
    closing: watch::Receiver<bool>,
}

impl Work {
    /// Whether neither the store is closed nor the partition dropped.
    pub(super) fn go_on(&self, partition: &Partition) -> Result<(), Broken> {
        if *self.closing.borrow() {
            return Err(Broken::Closing);
        }
        if partition.is_ending() { Err(Broken::Gone) } else { Ok(()) }
    }

    /// Whether there is room for so much more than the reserve.
    pub(super) fn has_room(&self, bytes: u64) -> Result<(), Broken> {
        let (free, needed) = (Room::of(&self.store)?.free, self.reserve.saturating_add(bytes));
        if free < needed { Err(Broken::Short { needed, free }) } else { Ok(()) }
    }

    /// Whether readers are still waited for, since then.
    pub(super) fn may_wait(&self, since: Instant) -> bool {
        !*self.closing.borrow() && since.elapsed() < PATIENCE
    }
}

impl Store {
    /// Goes on with the purges, by at most one partition, as long as its file system has more room than `reserve` bytes.
    /// An error may pass: the next call goes on. [`StoreError::Closed`] when the store is being closed.
    pub async fn go_on_purging(&self, reserve: u64) -> Result<Progress, StoreError> {
        let purging = Arc::clone(self.purging()).lock_owned().await;
        let purges = Arc::clone(self.holdings().purges());
        if *self.closing().borrow() {
            return Err(StoreError::Closed);
        }
        if purges.are_pending() {
            self.clear_purged().await?;
            self.leave_the_cut_behind().await?;
            self.copy_state().await?;
        }
        let Some(partition) = next(self.holdings()) else {
            return match purges.list().into_iter().find(|record| record.done_at.is_none()) {
                Some(record) => self.read_holdings(move |holdings| finish(holdings, record.id)).await,
                None => Ok(Progress::Idle),
            };
        };
        if !self.is_sealed(&partition).await? {
            return Ok(Progress::GoesOn);
        }
        let closing = self.closing();
        self.read_holdings(move |holdings| {
            let _purging = purging;
            let work = Work { store: holdings.store.clone(), reserve, closing };
            see_to(holdings, &partition, &work)
        })
        .await
    }

    /// The rows of those who were purged leave the state, and the records say so.
    pub(in crate::store) async fn clear_purged(&self) -> Result<(), StoreError> {
        let uncleared = self.holdings().purges().uncleared();
        if uncleared.is_empty() {
            return Ok(());
        }
        for tenant in &uncleared {
            self.state().purge(*tenant).await?;
        }
        self.read_holdings(move |holdings| {
            let _copying = holdings.copying.lock().unwrap_or_else(PoisonError::into_inner);
            holdings.purges().change(|records| {
                for record in records.iter_mut().filter(|record| uncleared.contains(&record.tenant)) {
                    record.cleared = true;
                }
            })
        })
        .await
    }

    /// Begins the partition behind the cut, if that has not been done, with a snapshot of the state as it is now.
    pub(super) async fn leave_the_cut_behind(&self) -> Result<(), StoreError> {
        let _once = self.cutting().lock().await;
        let newest = self.holdings().partitions.newest();
        if newest.is_some_and(|newest| self.holdings().purges().end(newest.ordinal)) {
            self.roll().await?;
            self.put_snapshot().await?;
            phase(&self.holdings().store, "behind the cut");
        }
        Ok(())
    }

    async fn copy_state(&self) -> Result<(), StoreError> {
        let wanting = |record: &Record| record.done_at.is_none() && !record.copied;
        let ids: Vec<u32> =
            self.holdings().purges().list().iter().filter(|one| wanting(one)).map(|one| one.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.state().copy().await?;
        phase(&self.holdings().store, "copied");
        self.read_holdings(move |holdings| {
            holdings.purges().change(|records| {
                for record in records.iter_mut().filter(|record| ids.contains(&record.id)) {
                    record.copied = true;
                }
            })
        })
        .await
    }

    /// Waits until a partition is sealed, or cannot be; false if that takes long.
    async fn is_sealed(&self, partition: &Arc<Partition>) -> Result<bool, StoreError> {
        let waits = || {
            partition.sealed().is_none()
                && partition.unreadable().is_none()
                && !partition.is_damaged()
                && !partition.is_ending()
        };
        let (mut ticks, mut closing) = (self.holdings().sealings.subscribe(), self.closing());
        let sealing = async {
            while waits() {
                tokio::select! {
                    ticked = ticks.changed() => ticked.map_err(|_| StoreError::Closed)?,
                    _ = closing.wait_for(|closing| *closing) => return Err(StoreError::Closed),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(SEALING, sealing).await {
            Ok(sealed) => sealed.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// The partition that is to be seen to: the newest that any purge wants, else one that could not be read when it was tried
/// last, before the store was opened.
fn next(holdings: &Holdings) -> Option<Arc<Partition>> {
    let (purges, list) = (holdings.purges(), holdings.partitions.list());
    let records = purges.list();
    let wanted = |partition: &&Arc<Partition>| records.iter().any(|record| record.wants(partition.ordinal));
    if let Some(partition) = list.iter().rev().find(wanted) {
        return Some(Arc::clone(partition));
    }
    let left = |ordinal: u32| records.iter().any(|record| record.done_at.is_some() && record.leaves(ordinal));
    list.iter().find(|one| left(one.ordinal) && !purges.was_tried(one.ordinal)).cloned()
}

/// Writes a partition anew, if it holds anything that is hidden, and notes what came of it.
fn see_to(holdings: &Holdings, partition: &Arc<Partition>, work: &Work) -> Result<Progress, StoreError> {
    // A purge that is asked for meanwhile has its own turn.
    let known = holdings.purges().list().last().map_or(0, |record| record.id);
    let left = match without_panic(partition, || erase(holdings, partition, work)) {
        Ok(Erased::All) => Left::Nothing,
        Ok(Erased::Unnamed(count)) => Left::Blobs(count),
        // What was written anew before may know nothing of the latest purges.
        Ok(Erased::Earlier) => return Ok(Progress::GoesOn),
        Err(Broken::Gone) => Left::Gone,
        Err(Broken::Unreadable(error)) => {
            tidy_up(partition);
            partition.complain(&error);
            let cause = error.trouble().cause;
            tracing::error!(
                message_id = event::PURGE_INCOMPLETE,
                partition = %partition.name,
                cause,
                remedy = error.remedy(),
                "a partition cannot be written anew without the tenants that were purged: it stays where it is, and they \
                 stay hidden in it"
            );
            Left::All(cause)
        }
        Err(broken) => {
            tidy_up(partition);
            return match broken {
                Broken::Short { needed, free } => Ok(Progress::Short { needed, free }),
                Broken::Failed(error) => Err(error),
                Broken::Closing | Broken::Gone | Broken::Unreadable(_) => Err(StoreError::Closed),
            };
        }
    };
    holdings.purges().tried(partition.ordinal);
    settle(holdings, partition, known, &left)?;
    phase(&partition.directory, "settled");
    Ok(Progress::GoesOn)
}

/// A partition that makes this panic is one that cannot be read, and no reason not to erase the others.
fn without_panic<T>(partition: &Partition, work: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = panic_text(panic.as_ref()).to_owned();
        Err(Broken::Unreadable(StoreError::Damaged { path: partition.directory.clone(), why }))
    })
}

/// What was erased of what is hidden in a partition.
enum Erased {
    All,
    /// All but so many blobs, of which nothing tells whose they are.
    Unnamed(usize),
    /// What was hidden when it was written anew, in a step before this one.
    Earlier,
}

fn erase(holdings: &Holdings, partition: &Arc<Partition>, work: &Work) -> Result<Erased, Broken> {
    work.go_on(partition)?;
    if whole(&partition.directory).exists() {
        return exchange(holdings, partition, work).map(|()| Erased::Earlier);
    }
    let reading = holdings.partitions.read(partition).map_err(Broken::unreadable)?;
    let hidden = holdings.purges().hidden_in(partition.ordinal);
    let found = Inventory::take(&reading.unveiled(), &hidden).map_err(Broken::unreadable)?;
    // Once it has been written anew, its files hold nothing but its rows.
    let may_hide = || {
        let anew = holdings.label(partition).map_err(Broken::unreadable)?.anew;
        Ok::<_, Broken>(
            !anew && !hidden.is_empty() && Inventory::has_gaps(&reading.unveiled()).map_err(Broken::unreadable)?,
        )
    };
    if found.is_empty() && !may_hide()? {
        return Ok(Erased::All);
    }
    let unnamed = found.unnamed;
    work.has_room(durable::size(&partition.directory)?)?;
    write_anew(holdings, partition, &reading, found, work)?;
    drop(reading);
    exchange(holdings, partition, work)?;
    Ok(if unnamed > 0 { Erased::Unnamed(unnamed) } else { Erased::All })
}

/// What is left in a partition of what is hidden there.
enum Left {
    Nothing,
    Blobs(usize),
    /// It cannot be read, for this reason.
    All(String),
    /// The partition is gone.
    Gone,
}

/// Notes in the records up to `known` what the partition's label says was erased, what is left, and that it has been seen
/// to.
fn settle(holdings: &Holdings, partition: &Partition, known: u32, left: &Left) -> Result<(), StoreError> {
    let erased = match left {
        Left::Gone => Vec::new(),
        Left::Nothing | Left::Blobs(_) | Left::All(_) => {
            Label::read(&partition.directory).map(|label| label.erased).unwrap_or_default()
        }
    };
    let (ordinal, name) = (partition.ordinal, partition.name.to_string());
    holdings.purges().change(|records| {
        for record in records.iter_mut().filter(|record| record.id <= known) {
            let wanted = record.wants(ordinal);
            if !wanted && !record.leaves(ordinal) {
                continue;
            }
            record.remains.retain(|one| !matches!(one, Remains::Partition { ordinal: of, .. } if *of == ordinal));
            let id = record.id;
            erased.iter().filter(|erasure| erasure.purge == id).for_each(|erasure| record.add(erasure));
            match left {
                Left::Nothing | Left::Gone => {}
                Left::Blobs(count) => record.remains.push(Remains::Blobs { partition: name.clone(), count: *count }),
                Left::All(why) => {
                    record.remains.push(Remains::Partition { partition: name.clone(), ordinal, why: why.clone() });
                }
            }
            if wanted {
                record.below = ordinal;
            }
        }
    })
}

/// Nothing of a purge is left to be done: writes the receipt.
fn finish(holdings: &Holdings, id: u32) -> Result<Progress, StoreError> {
    let aside = durable::entries(&holdings.store.join("aside"))?;
    let at = holdings.time.now();
    holdings.purges().change_one(id, |record| {
        record.remains.extend(aside.into_iter().map(|path| Remains::Aside { path }));
        record.remains.push(Remains::Backups { before: at });
        record.done_at = Some(at);
    })?;
    let record = holdings.purges().get(id).ok_or(StoreError::Closed)?;
    let purge = Purge::of(record, holdings);
    tracing::info!(
        message_id = event::PURGE_DONE,
        tenant = %purge.tenant,
        purge = purge.id,
        partitions = purge.partitions,
        blobs = purge.blobs,
        records = purge.records,
        bytes = purge.bytes,
        given_back = purge.given_back,
        remains = purge.remains.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        "a tenant was purged"
    );
    Ok(Progress::Done(Box::new(purge)))
}
