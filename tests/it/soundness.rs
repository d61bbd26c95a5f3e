//! What must hold of a store whatever happened to the daemon, checked through the library while no daemon runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tenantry::clock::{ServiceTime, SystemClock};
use tenantry::content::{ContentId, ContentType, TenantId};
use tenantry::store::{Options, Store};
use uuid::Uuid;

use crate::world::World;

/// A blob as it is stored.
pub(crate) struct StoredBlob {
    pub(crate) tenant: Uuid,
    pub(crate) content_type: ContentType,
    pub(crate) content_id: ContentId,
    pub(crate) content_created: Timestamp,
    pub(crate) stored_at: Timestamp,
    pub(crate) body: Vec<u8>,
    pub(crate) defect: Option<String>,
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

fn blobs(store: &Store) -> Vec<StoredBlob> {
    let mut all = Vec::new();
    for ((tenant, content_type), head) in store.heads() {
        let mut after = 0;
        while after < head {
            let page = store.read_after(tenant, content_type, after, 64).unwrap();
            assert!(!page.is_empty(), "{tenant} {content_type}: nothing after {after}, but {head} is the last");
            for (seq, header) in page {
                let header = header.unwrap_or_else(|error| panic!("{tenant} {content_type} {seq}: {error:?}"));
                let mut body = Vec::new();
                store.read_blob(tenant, content_type, seq, |piece| body.extend_from_slice(piece)).unwrap().unwrap();
                after = seq;
                all.push(StoredBlob {
                    tenant: tenant.uuid(),
                    content_type,
                    content_id: header.content_id,
                    content_created: header.content_created,
                    stored_at: header.stored_at,
                    body,
                    defect: header.defect,
                });
            }
        }
    }
    all
}

impl World {
    /// Every blob that is stored, with its body.
    pub(crate) fn stored_blobs(&self) -> Vec<StoredBlob> {
        blobs(&open(self))
    }

    /// Every stored body is what was offered, byte for byte; no blob is stored twice; and whatever became available
    /// before a watermark is stored or queued.
    pub(crate) async fn assert_store_is_sound(&self) {
        let ledger = self.cloud.ledger();
        let store = open(self);
        let mut stored = HashSet::new();
        for blob in blobs(&store) {
            let offered = ledger
                .blob_named(blob.tenant, blob.content_id.as_str())
                .unwrap_or_else(|| panic!("{} was never offered", blob.content_id));
            assert_eq!(offered.content_type.to_string(), blob.content_type.to_string());
            assert!(blob.defect.is_some() || offered.body() == blob.body, "{}: another body", blob.content_id);
            assert!(stored.insert((blob.tenant, blob.content_id.clone())), "{} is stored twice", blob.content_id);
        }
        let tenants: BTreeSet<Uuid> = ledger.blobs.iter().map(|blob| blob.tenant).collect();
        for tenant in tenants {
            let id = TenantId::from(tenant);
            let watermarks: BTreeMap<String, Option<Timestamp>> = store
                .watermarks(id)
                .await
                .unwrap()
                .into_iter()
                .map(|(content_type, watermark)| (content_type.to_string(), watermark.listed_to))
                .collect();
            let far = ledger.at + Duration::from_hours(720);
            let mut queued = HashSet::new();
            loop {
                let entries = store.take_queued(id, 256, far).await.unwrap();
                if entries.is_empty() {
                    break;
                }
                queued.extend(entries.into_iter().map(|entry| entry.blob.content_id));
            }
            for blob in ledger.offered(tenant) {
                let listed_to = watermarks.get(&blob.content_type.to_string()).copied().flatten();
                if listed_to.is_none_or(|to| blob.content_created >= to) {
                    continue;
                }
                let content_id = ContentId::from(blob.content_id.as_str());
                assert!(
                    queued.contains(&content_id) || stored.contains(&(tenant, content_id)),
                    "{} became available before the watermark {listed_to:?} and is neither stored nor queued",
                    blob.content_id
                );
            }
        }
        store.close().await.unwrap();
    }
}
