//! Confirms by the ids of older blobs what the index of hashes suspects.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::StoreError;
use super::header::{BlobHeader, Place};
use super::holdings::Holdings;
use super::ids::{PackedIds, RecordId};
use super::keys::BlobNumber;
use super::partitions::Partition;
use super::seen::SeenHash;
use super::tree::BlobIndex;
use crate::content::TenantId;

/// About how many ids of older blobs are kept while a group is checked for duplicates.
const INDEXED_IDS: usize = 100_000;
/// At most so many blobs are named for one record.
const PLACES: usize = 16;

/// The ids of older blobs, read to confirm what the index of hashes suspects.
#[derive(Debug, Default)]
pub(super) struct Indices {
    known: HashMap<(u32, BlobNumber), Option<Confirming>>,
    ids: usize,
}

/// Whose blob it is, and its ids, each with the blobs that have the record, this one last.
#[derive(Debug)]
struct Confirming {
    tenant: TenantId,
    ids: HashMap<RecordId, Arc<[Place]>>,
}

impl Indices {
    /// The blobs in which the record stands, as far as the newest one of these partitions that has it knows.
    pub(super) fn find_record(
        &mut self,
        holdings: &Holdings,
        among: &[Arc<Partition>],
        tenant: TenantId,
        id: &RecordId,
        hash: SeenHash,
    ) -> Result<Option<Arc<[Place]>>, StoreError> {
        for partition in among {
            // The last one knows of those before it.
            for blob in holdings.suspects(partition, hash)?.into_iter().rev() {
                let confirming = self.get(holdings, partition, blob)?.filter(|blob| blob.tenant == tenant);
                if let Some(places) = confirming.and_then(|blob| blob.ids.get(id)) {
                    return Ok(Some(Arc::clone(places)));
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
            let read = holdings.partitions.read(partition).and_then(|reading| {
                let Some(index) = reading.index(blob)? else { return Ok(None) };
                let header = reading.header(index.tenant, index.content_type, index.seq)?;
                Ok(header.map(|header| (index, header)))
            });
            let read = match read {
                Ok(read) => read,
                Err(StoreError::Undecodable { .. }) => None,
                Err(error) => {
                    holdings.confirms_nothing(partition, Some(blob), error)?;
                    None
                }
            };
            if self.ids >= INDEXED_IDS {
                *self = Self::default();
            }
            let confirming = read.map(|(index, header)| Confirming::new(holdings, partition.ordinal, &index, &header));
            self.ids += 1 + confirming.as_ref().map_or(0, |confirming| confirming.ids.len());
            self.known.insert(place, confirming);
        }
        Ok(self.known.get(&place).and_then(Option::as_ref))
    }
}

impl Confirming {
    fn new(holdings: &Holdings, partition: u32, index: &BlobIndex, header: &BlobHeader) -> Self {
        let this = Place { partition, content_type: index.content_type, seq: index.seq };
        let mut with_this = WithThis::new(this);
        // What has been dropped since matters to nobody.
        let is_there = |place: &Place| holdings.partitions.by_ordinal(place.partition).is_some();
        let mut marks = header.duplicates.iter().peekable();
        let mut ids = HashMap::new();
        if let Ok(packed) = PackedIds::decode(&index.ids) {
            for (record, id) in (0..).zip(packed.iter()) {
                let mark = marks.next_if(|mark| mark.record == record);
                let Some(id) = id else { continue };
                let places = match mark {
                    Some(mark) => with_this.after(&mark.earlier, is_there),
                    None => with_this.alone(),
                };
                ids.entry(id).or_insert(places);
            }
        }
        Self { tenant: index.tenant, ids }
    }
}

/// Lists of blobs that have a record, with one blob at the end. Most records of a blob share one list.
pub(super) struct WithThis {
    this: Place,
    alone: Arc<[Place]>,
    lists: HashMap<Arc<[Place]>, Arc<[Place]>>,
}

impl WithThis {
    pub(super) fn new(this: Place) -> Self {
        Self { this, alone: [this].into(), lists: HashMap::new() }
    }

    /// Only this one has it.
    pub(super) fn alone(&self) -> Arc<[Place]> {
        Arc::clone(&self.alone)
    }

    /// After those before it that are still there: the first and the last ones, if they are many.
    pub(super) fn after(&mut self, earlier: &Arc<[Place]>, is_there: impl Fn(&Place) -> bool) -> Arc<[Place]> {
        if let Some(list) = self.lists.get(earlier) {
            return Arc::clone(list);
        }
        let mut list: Vec<Place> =
            earlier.iter().copied().filter(|place| *place != self.this && is_there(place)).collect();
        if list.len() >= PLACES {
            list.drain(1..=list.len() + 1 - PLACES);
        }
        list.push(self.this);
        let list: Arc<[Place]> = list.into();
        self.lists.insert(Arc::clone(earlier), Arc::clone(&list));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentType;

    #[test]
    fn of_many_places_the_first_and_the_last_are_named() {
        let place = |seq| Place { partition: 1, content_type: ContentType::Exchange, seq };
        let mut list: Arc<[Place]> = [place(1)].into();
        for seq in 2..100 {
            list = WithThis::new(place(seq)).after(&list, |place| place.seq != 3);
            assert!(list.len() <= PLACES && list.last() == Some(&place(seq)) && list[0] == place(1), "{list:?}");
        }
        assert_eq!(list.len(), PLACES);
        assert_eq!(list[1], place(99 - PLACES as u64 + 2));
        assert_eq!(WithThis::new(place(99)).after(&list, |_| true), list, "twice in one blob");
    }
}
