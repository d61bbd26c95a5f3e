//! What must hold of a store whatever happened to the daemon, checked through the library while no daemon runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tenantry::clock::{ServiceTime, SystemClock};
use tenantry::content::{ContentId, TenantId};
use tenantry::store::{Options, Store};
use uuid::Uuid;

use crate::world::World;

/// When a blob came.
pub(crate) struct StoredBlob {
    pub(crate) tenant: Uuid,
    pub(crate) content_created: Timestamp,
    pub(crate) stored_at: Timestamp,
}

fn open(world: &World) -> Store {
    let options = Options {
        path: world.store(),
        partition_bytes: 2 << 30,
        lock_wait: Duration::from_secs(10),
        purpose: "a test",
    };
    let time = Arc::new(ServiceTime::new(Arc::new(SystemClock)));
    Store::open(&options, time).unwrap_or_else(|error| panic!("the store does not open: {error:?}"))
}

impl World {
    /// Every blob that is stored.
    pub(crate) fn stored_blobs(&self) -> Vec<StoredBlob> {
        let store = open(self);
        let mut blobs = Vec::new();
        for (tenant, content_type) in store.heads().into_keys() {
            for (_, header) in store.read_after(tenant, content_type, 0, usize::MAX).unwrap() {
                let header = header.unwrap();
                let (content_created, stored_at) = (header.content_created, header.stored_at);
                blobs.push(StoredBlob { tenant: tenant.uuid(), content_created, stored_at });
            }
        }
        blobs
    }

    /// What was given up.
    pub(crate) async fn dead_letters(&self) -> BTreeSet<(Uuid, String)> {
        let store = open(self);
        let tenants: BTreeSet<_> = self.cloud.ledger().blobs.iter().map(|blob| blob.tenant).collect();
        let mut found = BTreeSet::new();
        for tenant in tenants {
            let letters = store.list_dead_letters(TenantId::from(tenant), 10_000).await.unwrap();
            found.extend(letters.into_iter().map(|letter| (tenant, letter.entry.blob.content_id.to_string())));
        }
        store.close().await.unwrap();
        found
    }

    /// Every stored body is what was offered, byte for byte, or is to be looked at again; no blob is stored twice, save one
    /// that was fetched in part; and whatever became available before a watermark is stored or queued.
    pub(crate) async fn assert_store_is_sound(&self) {
        let ledger = self.cloud.ledger();
        let store = open(self);
        // It reads every body, and compares it with the digest in its header.
        let verified = store.verify().unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        let tenants: BTreeSet<Uuid> = ledger.blobs.iter().map(|blob| blob.tenant).collect();
        let (mut queued, mut again) = (HashSet::new(), HashSet::new());
        let far = ledger.at + Duration::from_hours(720);
        for tenant in &tenants {
            loop {
                let entries = store.take_queued(TenantId::from(*tenant), 256, far).await.unwrap();
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    let of = if entry.again { &mut again } else { &mut queued };
                    of.insert((*tenant, entry.blob.content_id));
                }
            }
        }
        let mut stored = HashMap::new();
        let mut revisions = 0;
        for (tenant, content_type) in store.heads().into_keys() {
            for (seq, header) in store.read_after(tenant, content_type, 0, usize::MAX).unwrap() {
                let header = header.unwrap_or_else(|error| panic!("{tenant} {content_type} {seq}: {error:?}"));
                let offered = ledger
                    .blob_named(tenant.uuid(), header.content_id.as_str())
                    .unwrap_or_else(|| panic!("{} was never offered", header.content_id));
                assert_eq!(offered.content_type.to_string(), content_type.to_string());
                let digest = offered.sha256();
                let byte = |at: usize| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap();
                let right = header.defect.is_some() || header.sha256 == std::array::from_fn(byte);
                let id = (tenant.uuid(), header.content_id);
                if header.revision == 0 {
                    assert!(!stored.contains_key(&id), "{} is stored twice", id.1);
                } else {
                    revisions += 1;
                    assert_eq!(
                        (header.revision, stored.get(&id)),
                        (1, Some(&false)),
                        "{} had not to be fetched again",
                        id.1
                    );
                }
                stored.insert(id, right);
            }
        }
        let wrong = stored.iter().find(|(id, right)| !**right && !again.contains(*id));
        assert_eq!(wrong, None, "another body, and nobody will look again");
        assert_eq!(stored.len() as u64 + revisions, verified.blobs);
        for tenant in tenants {
            let id = TenantId::from(tenant);
            let watermarks: BTreeMap<String, Option<Timestamp>> = store
                .watermarks(id)
                .await
                .unwrap()
                .into_iter()
                .map(|(content_type, watermark)| (content_type.to_string(), watermark.listed_to))
                .collect();
            for blob in ledger.offered(tenant) {
                let listed_to = watermarks.get(&blob.content_type.to_string()).copied().flatten();
                if listed_to.is_none_or(|to| blob.content_created >= to) {
                    continue;
                }
                let is_here = |id: &str| {
                    let id = (tenant, ContentId::from(id));
                    queued.contains(&id) || stored.contains_key(&id)
                };
                // Windows may have cut it: then its parts hold all of it.
                let parts = ledger.blobs.iter().filter(|part| part.part_of == Some(blob.number));
                let in_parts: HashSet<_> = parts
                    .filter(|part| is_here(&part.content_id))
                    .flat_map(tenantry_simulator::Blob::record_ids)
                    .collect();
                assert!(
                    is_here(&blob.content_id) || blob.record_ids().iter().all(|id| in_parts.contains(id)),
                    "{} became available before the watermark {listed_to:?} and is neither stored nor queued: {blob:?}",
                    blob.content_id
                );
            }
        }
        store.close().await.unwrap();
    }
}
