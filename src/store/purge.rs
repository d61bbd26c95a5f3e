//! Erasing one tenant: out of sight at once, its bytes off the disk in the background, and a receipt that stays.
//!
//! sled never gives space back and keeps in its log what was removed, so a partition that held anything of the tenant is
//! written anew without it, beside the old one, and takes its place. How long that takes depends on how much others have
//! stored; nobody waits for it.
//!
//! # What is old and what is new
//!
//! A purge is a *cut* between two partitions. Asked for, it is written down with the ordinal of the newest partition, its
//! `through`; the writer begins the next one, without the tenant's head. What a partition up to the cut holds of the
//! tenant is old: hidden for good, by whoever and whenever it is read ([`veil`]). What stands behind the cut came later: a
//! tenant that is added again has a chain that begins at its genesis, and nothing that is stored before is known of it.
//! Its numbers go on behind those that it had, because cursors stand on numbers; the record keeps the last of each.
//! A body that was being received at the cut is refused when it is complete ([`StoreError::Purged`]), and what it had
//! sent ahead is not taken along.
//!
//! # On the disk
//!
//! ```text
//! content/
//!     purges                  JSON: the purges, oldest first                          (record)
//!     2026-11-22.001/
//!         partition           its label says what was erased from it, and by which purge
//!     .purging-2026-11-22.001 the partition, being written anew: nobody's
//!     .purged-2026-11-22.001  the same, whole and durable: it is the partition from now on
//!     .dropping-…             the old one, on its way out
//! ```
//!
//! A partition's log has snapshots of the state that were replaced, too: whom the next one does not name any more is written
//! down beside it, and so the partition names him still.
//!
//! A partition that names the tenant nowhere is written anew too, once, if it has given numbers to bodies that are not in it:
//! one that was broken off lies in sled's log still, and nothing tells whose it was.
//!
//! A store without `purges` has none. A program that does not know the file shows again what has not been erased yet.
//!
//! # In which order
//!
//! | | what is done | after a crash behind it |
//! |---|---|---|
//! | 1 | the record, with the cut | the tenant is hidden; 2 at opening, before anybody sees the state |
//! | 2 | its rows leave the state; the record says so | 3 before the next blob is stored |
//! | 3 | the next partition is begun | **acknowledged**; the background goes on from here |
//! | 4 | the state is copied to a new generation, so that no log holds its rows | the copy again |
//! | 5 | for each partition up to the cut, newest first: `.purging-P` is filled, read back and compared, made durable | it is removed, and P written again |
//! | 6 | it is renamed to `.purged-P` | 7 |
//! | 7 | P is renamed to `.dropping-P`, `.purged-P` to P | if there is no P, `.purged-P` becomes P; then `.dropping-P` is removed |
//! | 8 | the record says what was erased from P | found in the label of P |
//! | 9 | when none is left: the receipt, in the record and in the journal | again |
//!
//! # Who reads meanwhile
//!
//! The two renames happen while nobody can open the partition; who has the old one open reads it to the end, without the
//! tenant, since the veil is asked for every row. The old files are gone when the last of those readers is. The next
//! partition waits ten minutes for them, then goes on; they get no error, because what others have stored is not dropped.
//! Who copies the files for a backup sees that they have changed, and copies them again.
//!
//! # What is in the new partition
//!
//! Every row of the others, byte for byte and under the same key: headers, indices, parts, ledgers, heads; so chains,
//! numbers and the names of copies stand as they stood. Not the tenant's, nor parts that belong to no blob. The state's
//! snapshot without its rows. The sums, less what went. The index of what was seen is made anew from what is left: its
//! hashes are keyed, but who has the key could ask it whether an id was the tenant's. The label keeps, of each erased
//! tenant, the links at which its chain stood at the partition's beginning and end: a digest tells nothing of what it is a
//! digest of, and with these the digests that the journal has of all heads can still be compared ([`verify`](super::verify)).
//!
//! # What stays, and the receipt says so
//!
//! Partitions that cannot be read (they stay where they are, marked and hidden, and are tried again at each start), what was
//! moved to `aside/`, and backups that were made before; a backup that is made after holds none of it, since the files are
//! others. The record itself: the tenant's id, times, counts, last numbers and links. Records of others that name the
//! tenant are theirs.
//!
//! **Invariants:** nothing of the tenant is shown once it is acknowledged; no row of another tenant is changed or lost by
//! whatever crash or error; a partition is replaced only by one that was read back from the disk and has all that is to
//! stay; a purge ends with a receipt. While there is less room than the partition takes and the reserve, it waits.

mod cut;
mod exchange;
mod record;
mod rewrite;
mod veil;
mod work;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(super) use self::exchange::finish as finish_exchanges;
pub(super) use self::record::{Erasure, Purges, Record, for_backup};
pub(super) use self::veil::Veil;
use super::StoreError;
use super::facade::Store;
use super::holdings::Holdings;
use crate::content::TenantId;

/// A purge, how far it has come, and in the end its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Counts the purges of the store, from 1.
    pub id: u32,
    /// Who is erased.
    pub tenant: TenantId,
    /// When that was asked for, in the service's time: from then on nothing of it is shown.
    pub asked_at: Timestamp,
    /// When all that can be erased was; until then the rest is what was done so far.
    pub done_at: Option<Timestamp>,
    /// Partitions that are still to be looked at.
    pub left: u64,
    /// Partitions that held something of the tenant and were written anew.
    pub partitions: u32,
    /// Content blobs that were erased.
    pub blobs: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their bodies, as they were received.
    pub bytes: u64,
    /// Bytes on the disk that were given back.
    pub given_back: u64,
    /// Where the tenant's chain stood when it was erased; `None` if nothing was stored.
    pub chain: Option<Chain>,
    /// What is not erased, and why; known when it is done.
    pub remains: Vec<Remains>,
}

/// The head of an erased chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The link of the last blob, in hexadecimal.
    pub link: String,
    /// How many blobs the chain had.
    pub length: u64,
}

/// Something of a purged tenant that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Remains {
    /// A partition that cannot be read whole. What it holds stays hidden.
    Partition {
        /// Its name.
        partition: String,
        /// Its ordinal.
        ordinal: u32,
        /// Why it could not be written anew.
        why: String,
    },
    /// Blobs in a partition that was written anew, of which nothing tells any more that they were the tenant's.
    Blobs {
        /// Its name.
        partition: String,
        /// How many.
        count: usize,
    },
    /// Something that was damaged and moved aside. Nothing in it is used.
    Aside {
        /// Where it is.
        path: PathBuf,
    },
    /// Backups that were made before, wherever they are.
    Backups {
        /// Before when: those that are begun after it hold nothing of the tenant.
        before: Timestamp,
    },
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { partition, why, .. } => write!(
                f,
                "the partition `{partition}` cannot be written anew ({why}): it stays hidden, and is tried again at each start"
            ),
            Self::Blobs { partition, count } => write!(
                f,
                "in the partition `{partition}`, {count} blobs are damaged so that nothing tells whose they are: nobody can read them, and they go with it"
            ),
            Self::Aside { path } => write!(
                f,
                "`{}` was damaged and may hold something of the tenant: remove it when it is of no more use",
                path.display()
            ),
            Self::Backups { before } => {
                write!(f, "backups that were begun before {before} hold the tenant: back up anew, and remove those")
            }
        }
    }
}

/// What the work on the purges has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is to be done until a purge is asked for.
    Idle,
    /// Something was done, and there is more to do.
    GoesOn,
    /// There is not enough room on the disk to go on.
    Short {
        /// Bytes that must be free, the reserve included.
        needed: u64,
        /// Bytes that are.
        free: u64,
    },
    /// A purge is done, and this is its receipt.
    Done(Box<Purge>),
}

impl Purge {
    fn of(record: Record, holdings: &Holdings) -> Self {
        let list = holdings.partitions.list();
        let left = list.iter().filter(|partition| record.wants(partition.ordinal)).count();
        let mut remains = record.remains;
        // What retention has dropped since does not remain.
        remains.retain(|one| match one {
            Remains::Partition { ordinal, .. } => list.iter().any(|partition| partition.ordinal == *ordinal),
            Remains::Blobs { partition, .. } => list.iter().any(|one| one.name.to_string() == *partition),
            Remains::Aside { .. } | Remains::Backups { .. } => true,
        });
        Self {
            left: left as u64,
            id: record.id,
            tenant: record.tenant,
            asked_at: record.asked_at,
            done_at: record.done_at,
            partitions: record.rewritten,
            blobs: record.blobs,
            records: record.records,
            bytes: record.bytes,
            given_back: record.given_back,
            chain: record.chain,
            remains,
        }
    }
}

/// Here something has been made durable, below the store's directory or there: where tests look at what a crash would
/// leave.
#[cfg(test)]
fn phase(path: &Path, name: &'static str) {
    tests::phases::met(path, name);
}

/// Nobody looks.
#[cfg(not(test))]
const fn phase(_: &Path, _: &'static str) {}

/// Erasing.
impl Store {
    /// Erases a tenant: when this returns, nothing of it is shown any more, not after a power cut either, and its rows of
    /// the state are gone. Its partitions are written anew by [`go_on_purging`](Self::go_on_purging). Asked for twice, it is
    /// one purge, unless something was stored in between.
    ///
    /// Whoever collects for the tenant has ended before this is called, and nobody adds it again before this has returned.
    /// After an error it may have been asked for all the same; then it is gone on with as if this had returned.
    pub async fn purge(&self, tenant: TenantId) -> Result<Purge, StoreError> {
        let id = self.content().begin_purge(tenant).await?;
        phase(&self.holdings().store, "recorded");
        self.clear_purged().await?;
        phase(&self.holdings().store, "cleared");
        // The next blob begins the next partition, whoever's it is, if this cannot.
        if let Err(error) = self.leave_the_cut_behind().await {
            tracing::debug!(%error, "the partition behind the cut is begun later");
        }
        let record = self.holdings().purges().get(id).ok_or(StoreError::Closed)?;
        Ok(Purge::of(record, self.holdings()))
    }

    /// Whether there is anything of a tenant that a purge would erase.
    pub async fn knows(&self, tenant: TenantId) -> Result<bool, StoreError> {
        Ok(self.holdings().heads().contains_key(&tenant) || self.state().knows(tenant).await?)
    }

    /// All purges that were ever asked for, oldest first: those that are done are receipts.
    #[must_use]
    pub fn purges(&self) -> Vec<Purge> {
        let records = self.holdings().purges().list();
        records.into_iter().map(|record| Purge::of(record, self.holdings())).collect()
    }

    /// Ticks when a purge is asked for.
    #[must_use]
    pub fn purges_asked(&self) -> watch::Receiver<u64> {
        self.holdings().purges().subscribe()
    }
}
