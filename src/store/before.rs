//! What was stored before a blob: under its content id, and of its records.
//!
//! First all of it is looked up, which may fail, and then refuses this blob and no other; then the copies are marked,
//! which cannot fail, in the stage and for the blob's header.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use super::confirm::{Indices, WithThis};
use super::error::StoreError;
use super::header::{Duplicate, Place};
use super::holdings::Holdings;
use super::ids::{PackedIds, RecordId};
use super::job::Received;
use super::keys::BlobNumber;
use super::partitions::Partition;
use super::seen::SeenHash;
use super::stage::{Known, Stage};
use crate::content::TenantId;

/// A record of a tenant, with the keyed hash that was made when its body was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordName {
    hash: SeenHash,
    tenant: TenantId,
    id: RecordId,
}

impl Hash for RecordName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash.get());
    }
}

/// Takes the hash that a [`RecordName`] brings: nobody outside can aim at its collisions, and the writer, of which there
/// is one for all tenants, does not hash every record a second time.
#[derive(Debug, Default)]
pub(super) struct AsBrought(u64);

impl Hasher for AsBrought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a record's name brings one number")
    }
}

/// Records, and all blobs that have them.
pub(super) type Records = HashMap<RecordName, Arc<[Place]>, BuildHasherDefault<AsBrought>>;

/// What was stored before a blob.
pub(super) struct Before {
    /// The newest revision under its content id.
    pub(super) known: Option<Known>,
    records: Vec<Asked>,
}

/// A record of the blob that has an id.
struct Asked {
    /// Its place in the blob.
    record: u32,
    name: RecordName,
    /// The durable blobs that have it. Not asked for if the stage knows.
    earlier: Option<Arc<[Place]>>,
}

impl Before {
    /// Looks it up: in this batch, and in the partitions of the last days. Nothing is staged.
    pub(super) fn of(
        received: &Received,
        holdings: &Holdings,
        recent: &[Arc<Partition>],
        stage: &Stage,
        indices: &mut Indices,
    ) -> Result<Self, StoreError> {
        let tenant = received.tenant;
        let name = (tenant, received.blob.content_id.clone());
        let known = match stage.content.get(&name) {
            Some(known) => Some(known.clone()),
            None => holdings.find_content(recent, tenant, &name.1)?.map(|header| Known::of(&header)),
        };
        let mut before = Self { known, records: Vec::new() };
        if before.is_stored(received) {
            return Ok(before);
        }
        let ids = PackedIds::decode(&received.body.ids).expect("the intake has packed them");
        before.records.reserve(received.body.hashes.len());
        for (record, (id, hash)) in (0..).zip(ids.iter().zip(&received.body.hashes)) {
            let (Some(id), Some(hash)) = (id, *hash) else { continue };
            let name = RecordName { hash, tenant, id };
            let earlier = match stage.records.get(&name) {
                Some(_) => None,
                None => indices.find_record(holdings, recent, tenant, &name.id, hash)?,
            };
            before.records.push(Asked { record, name, earlier });
        }
        Ok(before)
    }

    /// Whether there is nothing to store.
    pub(super) fn is_stored(&self, received: &Received) -> bool {
        self.known.as_ref().is_some_and(|known| !received.revision || known.sha256 == received.body.sha256)
    }

    /// Stages the records of the blob that gets this place and number. Answers those that are copies of records in other
    /// blobs, or in this one.
    ///
    /// A copy of what stands in an older partition is noted too: when that partition has been dropped, this one is the
    /// original for those to come.
    pub(super) fn mark(self, this: Place, blob: BlobNumber, stage: &mut Stage) -> Vec<Duplicate> {
        let mut with_this = WithThis::new(this);
        let mut duplicates = Vec::new();
        // One of each content type is noted, since that may be all that is asked for.
        let is_noted = |place: &Place| place.partition == this.partition && place.content_type == this.content_type;
        stage.records.reserve(self.records.len());
        for Asked { record, name, earlier } in self.records {
            let hash = name.hash;
            let (earlier, places) = match (stage.records.entry(name), earlier) {
                (Entry::Vacant(entry), None) => {
                    entry.insert(with_this.alone());
                    stage.seen.push((hash, blob));
                    continue;
                }
                (Entry::Vacant(entry), Some(earlier)) => (earlier, entry.insert(with_this.alone())),
                (Entry::Occupied(entry), _) => {
                    let places = entry.into_mut();
                    (Arc::clone(places), places)
                }
            };
            if !earlier.iter().any(is_noted) {
                stage.seen.push((hash, blob));
            }
            *places = with_this.after(&earlier, |_| true);
            duplicates.push(Duplicate { record, earlier });
        }
        duplicates
    }
}
