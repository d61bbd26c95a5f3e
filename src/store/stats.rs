//! What the store holds, in numbers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::StoreError;
use super::facade::Store;
use super::holdings::Holdings;
use super::sizes::Sizes;
use super::tree::Ledger;
use crate::content::TenantId;

/// The store in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The partitions, oldest first.
    pub partitions: Vec<PartitionStats>,
    /// The tenants of which anything is stored or was given up.
    pub tenants: BTreeMap<TenantId, TenantStats>,
    /// Bytes of content on the disk.
    pub content_bytes: u64,
    /// Bytes of the state on the disk.
    pub state_bytes: u64,
    /// Bytes that the store's user may still write.
    pub free_bytes: u64,
}

/// A partition in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStats {
    /// Its name.
    pub name: String,
    /// Its bytes on the disk.
    pub disk_bytes: u64,
    /// Whether it is written no more.
    pub sealed: bool,
    /// Why it cannot be read, if it cannot; then the rest is not known.
    pub damaged: Option<String>,
    /// Content blobs in it.
    pub blobs: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes of the bodies as received.
    pub bytes: u64,
    /// Bytes of the bodies as stored.
    pub compressed: u64,
    /// When the first of them was stored.
    pub stored_from: Option<Timestamp>,
    /// When the last of them was stored.
    pub stored_to: Option<Timestamp>,
}

/// A tenant in numbers, over all partitions that can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantStats {
    /// Content blobs.
    pub blobs: u64,
    /// Records in them.
    pub records: u64,
    /// Records that are copies of others.
    pub duplicates: u64,
    /// Bytes of the bodies as received.
    pub bytes: u64,
    /// Content that was given up.
    pub dead_letters: u64,
}

impl Stats {
    /// How many bytes as received are one byte of compressed content; `None` without content.
    #[must_use]
    pub fn compression(&self) -> Option<f64> {
        let sum = |of: fn(&PartitionStats) -> u64| self.partitions.iter().map(of).sum::<u64>();
        #[expect(clippy::cast_precision_loss, reason = "a ratio with one decimal place")]
        let ratio = |bytes: u64, compressed: u64| bytes as f64 / compressed as f64;
        let compressed = sum(|one| one.compressed);
        (compressed > 0).then(|| ratio(sum(|one| one.bytes), compressed))
    }
}

impl Store {
    /// The store in numbers.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.read_holdings(sum_up).await?;
        for (tenant, dead_letters) in self.all_dead_letters().await? {
            stats.tenants.entry(tenant).or_default().dead_letters = dead_letters;
        }
        Ok(stats)
    }
}

/// Reads the sums and the ledgers of all partitions. Blocking: opens each.
fn sum_up(holdings: &Holdings) -> Result<Stats, StoreError> {
    let Sizes { content, state, free, .. } = Sizes::of(&holdings.store)?;
    let mut stats = Stats { content_bytes: content, state_bytes: state, free_bytes: free, ..Stats::default() };
    for partition in holdings.partitions.list() {
        let mut one = PartitionStats {
            name: partition.name.to_string(),
            disk_bytes: durable::size(&partition.directory)?,
            sealed: partition.sealed().is_some(),
            ..PartitionStats::default()
        };
        let read = holdings.partitions.read(&partition).and_then(|reading| {
            let mut tenants: BTreeMap<TenantId, Ledger> = BTreeMap::new();
            reading.ledgers(0, u32::MAX, |_, tenant, _, ledger| tenants.entry(tenant).or_default().add(&ledger))?;
            let sums = partition.sealed().map_or_else(|| reading.sums(), Ok)?;
            Ok((sums, tenants))
        });
        match read {
            Ok((sums, tenants)) => {
                (one.blobs, one.records, one.bytes, one.compressed) =
                    (sums.blobs, sums.records, sums.bytes, sums.compressed);
                (one.stored_from, one.stored_to) = sums.stored.0.unzip();
                for (tenant, ledger) in tenants {
                    let sums = stats.tenants.entry(tenant).or_default();
                    sums.blobs += ledger.blobs;
                    sums.records += ledger.records;
                    sums.duplicates += ledger.duplicates;
                    sums.bytes += ledger.bytes;
                }
            }
            // It went while it was looked at.
            Err(StoreError::PartitionDropped { .. }) => continue,
            Err(error) => {
                one.damaged = Some(error.trouble().cause);
                partition.pass_over(error)?;
            }
        }
        stats.partitions.push(one);
    }
    Ok(stats)
}
