//! The record of the purges: the file `content/purges`, and what memory knows of it.
//!
//! It is written as a whole, like the anchors, and beside them, because it must outlive every database of the store. A
//! record is never removed: it is the receipt, and what hides what could not be erased.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::super::durable;
use super::super::error::StoreError;
use super::super::partition::{read_json, write_json};
use super::{Chain, Remains};
use crate::content::TenantId;
use crate::event;

/// The version of the file. A program that knows less refuses the store.
const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    purges: Vec<Record>,
}

/// One purge, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Counts the purges of the store, from 1.
    pub(crate) id: u32,
    pub(crate) tenant: TenantId,
    /// In the service's time.
    pub(crate) asked_at: Timestamp,
    /// The cut: the ordinal of the last partition that can hold anything of what is erased.
    pub(crate) through: u32,
    /// The last number of each content type, by its code: those that come later are greater.
    pub(crate) last: BTreeMap<u8, u64>,
    /// Where the tenant's chain stood, if anything was ever stored.
    pub(crate) chain: Option<Chain>,
    /// Its rows have left the state.
    pub(crate) cleared: bool,
    /// The state has been copied since, so that its old files are gone.
    pub(crate) copied: bool,
    /// The partitions up to the cut have been seen to, from this ordinal on.
    pub(crate) below: u32,
    /// Partitions that were written anew without it.
    pub(crate) rewritten: u32,
    pub(crate) blobs: u64,
    pub(crate) records: u64,
    /// Of the bodies as they were received.
    pub(crate) bytes: u64,
    /// By how much the partitions became smaller.
    pub(crate) given_back: u64,
    pub(crate) remains: Vec<Remains>,
    pub(crate) done_at: Option<Timestamp>,
}

/// What was erased from a partition: its label keeps that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Erasure {
    /// By which purge.
    pub(crate) purge: u32,
    pub(crate) tenant: TenantId,
    pub(crate) blobs: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// By how much the partition became smaller; counted with one of the tenants that were erased together.
    pub(crate) given_back: u64,
    /// The link at which its chain stood at the partition's beginning, in hexadecimal; `None` before the first blob.
    pub(crate) start: Option<String>,
    /// The same at its end.
    pub(crate) end: Option<String>,
}

impl Record {
    /// Takes what was erased from a partition into the sums.
    pub(crate) fn add(&mut self, erased: &Erasure) {
        self.rewritten += 1;
        self.blobs += erased.blobs;
        self.records += erased.records;
        self.bytes += erased.bytes;
        self.given_back += erased.given_back;
    }

    /// Whether the partition with this ordinal could not be read.
    pub(crate) fn leaves(&self, ordinal: u32) -> bool {
        self.remains.iter().any(|one| matches!(one, Remains::Partition { ordinal: of, .. } if *of == ordinal))
    }

    /// Whether the partition with this ordinal is still to be seen to.
    pub(crate) fn wants(&self, ordinal: u32) -> bool {
        self.done_at.is_none() && ordinal <= self.through && ordinal < self.below
    }
}

/// The purges of a store. Readers are never held up by the disk.
#[derive(Debug)]
pub(crate) struct Purges {
    path: PathBuf,
    known: RwLock<Known>,
    /// One writes at a time.
    writing: Mutex<()>,
    /// Ticks when a purge is asked for.
    asked: watch::Sender<u64>,
    /// Partitions that were seen to since the store was opened.
    tried: Mutex<BTreeSet<u32>>,
}

#[derive(Debug, Default)]
struct Known {
    records: Vec<Record>,
    /// Up to which ordinal a tenant is hidden, and how often it was purged.
    cuts: HashMap<TenantId, (u32, u32)>,
    /// The last cut.
    last: Option<u32>,
}

impl Known {
    fn new(records: Vec<Record>) -> Self {
        let mut cuts: HashMap<TenantId, (u32, u32)> = HashMap::new();
        for record in &records {
            let (through, times) = cuts.entry(record.tenant).or_default();
            *through = record.through.max(*through);
            *times += 1;
        }
        let last = records.iter().map(|record| record.through).max();
        Self { records, cuts, last }
    }
}

impl Purges {
    pub(crate) fn read(content: &Path) -> Result<Self, StoreError> {
        let path = content.join("purges");
        let file = match read_json::<File>(&path) {
            Ok(file) => file.unwrap_or_default(),
            // Written whole or not at all: this is damage or somebody's hand. Collecting goes on without it.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(message_id = event::STORE_DAMAGED, %error, "the record of purged tenants cannot be read: what was hidden and not yet erased shows again; purge those tenants once more");
                durable::rename(&path, &durable::with_suffix(&path, ".damaged"))?;
                File::default()
            }
            Err(error) => return Err(error),
        };
        if file.version > VERSION {
            return Err(StoreError::UnknownFormat { path, found: file.version, known: VERSION });
        }
        Ok(Self {
            path,
            known: RwLock::new(Known::new(file.purges)),
            writing: Mutex::default(),
            asked: watch::Sender::new(0),
            tried: Mutex::default(),
        })
    }

    /// Whether what the partition with this ordinal holds of a tenant is not to be seen.
    pub(crate) fn hides(&self, tenant: TenantId, ordinal: u32) -> bool {
        self.known().cuts.get(&tenant).is_some_and(|(through, _)| ordinal <= *through)
    }

    /// The tenants that are hidden in the partition with this ordinal, each with the purge that erases it there: the first
    /// that is not done.
    pub(crate) fn hidden_in(&self, ordinal: u32) -> BTreeMap<TenantId, u32> {
        let mut hidden = BTreeMap::new();
        let known = self.known();
        let here = known.records.iter().filter(|record| ordinal <= record.through);
        for record in here.clone().filter(|record| record.done_at.is_none()).chain(here.rev()) {
            hidden.entry(record.tenant).or_insert(record.id);
        }
        hidden
    }

    /// Whether a partition with this ordinal stands before a cut: nothing more is to be stored in it.
    pub(crate) fn end(&self, ordinal: u32) -> bool {
        self.known().last.is_some_and(|last| ordinal <= last)
    }

    /// How often a tenant was purged: what was begun before the last time is none of its present life.
    pub(crate) fn life(&self, tenant: TenantId) -> u32 {
        self.known().cuts.get(&tenant).map_or(0, |(_, times)| *times)
    }

    /// The last numbers that a tenant had given when it was purged.
    pub(crate) fn last_numbers(&self, tenant: TenantId) -> BTreeMap<u8, u64> {
        let known = self.known();
        if !known.cuts.contains_key(&tenant) {
            return BTreeMap::new();
        }
        let last = known.records.iter().rev().find(|record| record.tenant == tenant);
        last.map(|record| record.last.clone()).unwrap_or_default()
    }

    /// The tenants whose rows are still to leave the state.
    pub(crate) fn uncleared(&self) -> BTreeSet<TenantId> {
        self.known().records.iter().filter(|record| !record.cleared).map(|record| record.tenant).collect()
    }

    pub(crate) fn list(&self) -> Vec<Record> {
        self.known().records.clone()
    }

    pub(crate) fn get(&self, id: u32) -> Option<Record> {
        self.known().records.iter().find(|record| record.id == id).cloned()
    }

    /// Whether any is not done.
    pub(crate) fn are_pending(&self) -> bool {
        self.known().records.iter().any(|record| record.done_at.is_none())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Somebody has asked for one.
    pub(crate) fn tell(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// A partition has been seen to.
    pub(crate) fn tried(&self, ordinal: u32) {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).insert(ordinal);
    }

    /// Whether it has, since the store was opened.
    pub(crate) fn was_tried(&self, ordinal: u32) -> bool {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).contains(&ordinal)
    }

    /// Changes the records: on the disk first, then for everybody.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Vec<Record>) -> T) -> Result<T, StoreError> {
        let _writing = self.writing();
        let mut records = self.list();
        let done = change(&mut records);
        if records == self.known().records {
            return Ok(done);
        }
        let file = File { version: VERSION, purges: records };
        write_json(&self.path, &file)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::new(file.purges);
        Ok(done)
    }

    /// Changes one of them.
    pub(crate) fn change_one(&self, id: u32, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        self.change(|records| {
            if let Some(record) = records.iter_mut().find(|record| record.id == id) {
                change(record);
            }
        })
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records as they go with a backup that holds the partitions up to an ordinal, and that was begun when they were
/// `before`: what has been seen to meanwhile may have been copied before that. JSON; `None` if there are none.
pub(crate) fn for_backup(before: &[Record], now: Vec<Record>, last: u32) -> Result<Option<String>, serde_json::Error> {
    let as_it_was = |record: Record| {
        let known = before.iter().find(|known| known.id == record.id).cloned();
        // Behind the last partition that goes along, a store that is made of the backup begins anew.
        let through = record.through.min(last);
        let asked = Record {
            below: through + 1,
            // The state is no part of a backup, and nobody's rows come back with it.
            cleared: true,
            rewritten: 0,
            blobs: 0,
            records: 0,
            bytes: 0,
            given_back: 0,
            remains: Vec::new(),
            done_at: None,
            ..record
        };
        Record { through, ..known.unwrap_or(asked) }
    };
    let purges: Vec<_> = now.into_iter().map(as_it_was).collect();
    if purges.is_empty() {
        return Ok(None);
    }
    serde_json::to_string_pretty(&File { version: VERSION, purges }).map(Some)
}
