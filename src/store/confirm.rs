//! Confirms by the ids of older blobs what the index of hashes suspects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::StoreError;
use super::holdings::Holdings;
use super::ids::{PackedIds, RecordId};
use super::keys::BlobNumber;
use super::partitions::Partition;
use super::seen::SeenHash;
use crate::content::TenantId;

/// About how many ids of older blobs are kept while a group is checked for duplicates.
const INDEXED_IDS: usize = 100_000;

/// The ids of older blobs, read to confirm what the index of hashes suspects.
#[derive(Debug, Default)]
pub(super) struct Indices {
    known: HashMap<(u32, BlobNumber), Option<Confirming>>,
    ids: usize,
}

/// Whose blob it is, and its ids.
#[derive(Debug)]
struct Confirming {
    tenant: TenantId,
    ids: HashSet<RecordId>,
}

impl Indices {
    /// The ordinal of the newest of these partitions in which the record stands.
    pub(super) fn find_record(
        &mut self,
        holdings: &Holdings,
        among: &[Arc<Partition>],
        tenant: TenantId,
        id: &RecordId,
        hash: SeenHash,
    ) -> Result<Option<u32>, StoreError> {
        for partition in among {
            let suspects = holdings.suspects(partition, hash)?;
            for blob in suspects {
                let confirming = self.get(holdings, partition, blob)?;
                if confirming.is_some_and(|blob| blob.tenant == tenant && blob.ids.contains(id)) {
                    return Ok(Some(partition.ordinal));
                }
            }
        }
        Ok(None)
    }

    /// `None` if it cannot be read, and so confirms nothing.
    fn get(
        &mut self,
        holdings: &Holdings,
        partition: &Arc<Partition>,
        blob: BlobNumber,
    ) -> Result<Option<&Confirming>, StoreError> {
        let place = (partition.ordinal, blob);
        if !self.known.contains_key(&place) {
            let index = match holdings.partitions.read(partition).and_then(|reading| reading.index(blob)) {
                Ok(index) => index,
                Err(StoreError::Undecodable { .. }) => None,
                Err(error) => {
                    holdings.confirms_nothing(partition, Some(blob), error)?;
                    None
                }
            };
            if self.ids >= INDEXED_IDS {
                *self = Self::default();
            }
            let confirming = index.map(|index| Confirming {
                tenant: index.tenant,
                ids: PackedIds::decode(&index.ids)
                    .map_or_else(|_| HashSet::new(), |ids| ids.iter().flatten().collect()),
            });
            self.ids += 1 + confirming.as_ref().map_or(0, |confirming| confirming.ids.len());
            self.known.insert(place, confirming);
        }
        Ok(self.known.get(&place).and_then(Option::as_ref))
    }
}
