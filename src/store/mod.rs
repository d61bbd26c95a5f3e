//! The store: the only place that names sled. CONTRACT SKELETON, bodies follow.
//!
//! Everything above sees this small API in domain words. Blocking work happens on the store's two writer threads
//! and in `spawn_blocking`; async callers only await.

pub mod error;
mod durable;
pub mod lock;
mod format;
mod database;
pub(crate) mod header;
pub(crate) mod chain;
pub(crate) mod records;
pub(crate) mod ids;
pub(crate) mod intake;
pub(crate) mod seen;
mod state;
mod snapshot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::error::StoreError;
pub use self::snapshot::Counts;
pub use self::state::{DeadLetter, Event};
use crate::clock::ServiceTime;
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that holds it; made if missing.
    pub path: PathBuf,
    /// A partition is rolled at this many bytes on disk (2 GiB), and at midnight UTC.
    pub partition_bytes: u64,
    /// How long to wait for another process's lock: 30 s for the daemon.
    pub lock_wait: Duration,
    /// What the lock file says of its holder (`tenantry run`, `tenantry export`).
    pub purpose: &'static str,
}

/// The open store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<()>);

/// A content blob waiting to be retrieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// As it was listed.
    pub blob: ContentBlob,
    /// The tier that listed it first.
    pub tier: Tier,
    /// When it was queued, in the service's time.
    pub queued_at: Timestamp,
    /// How many retrievals failed.
    pub attempts: u32,
    /// How many of them by a panic.
    pub panics: u32,
    /// How many of them by a body that was complete but no JSON array of records.
    pub malformed: u32,
    /// Not before this time (service's time).
    pub not_before: Option<Timestamp>,
    /// The last failure, for `status` and the dead letter.
    pub last_error: Option<String>,
}

/// How far the listing of a tenant's content type has come. All in the service's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Everything listed as available before this is queued or stored.
    pub listed_to: Option<Timestamp>,
    /// When the recent span was last listed in full.
    pub recent_at: Option<Timestamp>,
    /// When the whole seven days were last listed in full.
    pub sweep_at: Option<Timestamp>,
}

/// What became of a listing's entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Queued now.
    pub new: usize,
    /// Already queued, stored or a dead letter.
    pub known: usize,
}

/// A wait that outlives the process, per tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WaitKey {
    /// No start request for this content type: Microsoft wants 15 minutes between two.
    SubscriptionStart(ContentType),
    /// The service throttles the tenant.
    Throttled,
    /// The tenant is paused until a person has acted.
    Paused,
}

/// How much waits to be retrieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDepth {
    /// Entries.
    pub entries: u64,
    /// The earliest `contentCreated` among them.
    pub oldest: Option<Timestamp>,
}

/// Where and when a body was fetched; kept in the blob's header as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// When, in the service's time, confirmed by the answer's `Date`.
    pub at: Timestamp,
    /// The URI that was asked, without query secrets (content URIs have none).
    pub from: String,
    /// The tier that found it.
    pub tier: Tier,
}

/// A blob that is now durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number in its tenant's content type.
    pub seq: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Records in it.
    pub records: u32,
    /// Records flagged as duplicates.
    pub duplicates: u32,
    /// Records whose `OrganizationId` is another tenant's.
    pub foreign: u32,
    /// False if this content id was stored before: nothing was written.
    pub new: bool,
}

/// Why a body could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The body is not a complete JSON array of records; `at` is the byte where it stops being one.
    #[error("the body is not a JSON array of records (byte {at}: {what})")]
    Malformed {
        /// Byte offset.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// The store cannot write.
    #[error("the store cannot write")]
    Store(#[source] Arc<StoreError>),
}

/// The reception of one body: push the decoded bytes, then finish. Dropped before that, nothing becomes visible.
#[derive(Debug)]
pub struct BlobWriter(());

impl BlobWriter {
    /// Takes the next bytes of the body, after Content-Encoding is undone. Memory stays bounded: parts of large
    /// bodies go to the store ahead of the header.
    pub async fn push(&mut self, _bytes: &[u8]) -> Result<(), IntakeError> {
        unimplemented!()
    }

    /// The body is complete: stores it and returns when it would survive a power cut.
    /// `Malformed` leaves nothing behind.
    pub async fn finish(self) -> Result<Stored, IntakeError> {
        unimplemented!()
    }
}

impl Store {
    /// Opens or makes the store. Blocking: takes the lock, opens state and the newest partition, rebuilds what is lost.
    pub fn open(_options: &Options, _time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Writes what is under way and closes the databases.
    pub async fn close(self) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Resolves when a writer thread has ended although nobody closed the store: the daemon stops, failing.
    pub async fn failed(&self) -> StoreError {
        unimplemented!()
    }

    /// Begins to receive the body of `blob`. With `parse` false the bytes are kept whatever they are
    /// (`defect` says why): for bodies that are given up on.
    #[must_use]
    pub fn receive(
        &self,
        _tenant: TenantId,
        _blob: &ContentBlob,
        _fetched: Fetched,
        _defect: Option<String>,
    ) -> BlobWriter {
        unimplemented!()
    }

    /// Whether this content id is stored in a partition of the last nine days.
    pub async fn is_stored(&self, _tenant: TenantId, _content_id: &ContentId) -> Result<bool, StoreError> {
        unimplemented!()
    }

    /// Queues what is neither queued, stored nor a dead letter, and returns when it is durable.
    pub async fn enqueue(
        &self,
        _tenant: TenantId,
        _tier: Tier,
        _listed: Vec<ContentBlob>,
    ) -> Result<Enqueued, StoreError> {
        unimplemented!()
    }

    /// Moves a watermark; it becomes durable with the next batch, or after ten minutes. Never before anything
    /// that `enqueue` has acknowledged.
    pub fn set_watermark(&self, _tenant: TenantId, _content_type: ContentType, _watermark: Watermark) {
        unimplemented!()
    }

    /// The tenant's watermarks, the newest set ones.
    pub async fn watermarks(&self, _tenant: TenantId) -> Result<BTreeMap<ContentType, Watermark>, StoreError> {
        unimplemented!()
    }

    /// Up to `limit` entries to retrieve next: those that expire within 24 h first, then newest and oldest in
    /// turn; entries handed out and not yet completed, deferred or released are left out, and so are those deferred
    /// beyond `now`. Entries whose content is stored already are completed on the way.
    pub async fn take_queued(
        &self,
        _tenant: TenantId,
        _limit: usize,
        _now: Timestamp,
    ) -> Result<Vec<QueueEntry>, StoreError> {
        unimplemented!()
    }

    /// When the first deferred entry of the tenant may be tried again.
    #[must_use]
    pub fn next_deferred(&self, _tenant: TenantId) -> Option<Timestamp> {
        unimplemented!()
    }

    /// The entry is stored: it leaves the queue (soon, not durably before this returns).
    pub fn complete(&self, _tenant: TenantId, _entry: &QueueEntry) {
        unimplemented!()
    }

    /// The entry was not retrieved and nothing was learnt: it may be handed out again.
    pub fn release(&self, _tenant: TenantId, _entry: &QueueEntry) {
        unimplemented!()
    }

    /// The retrieval failed: `entry` carries the new attempts, error and `not_before`.
    pub async fn defer(&self, _tenant: TenantId, _entry: QueueEntry) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The entry is given up: it leaves the queue and becomes a dead letter with its reason, durably.
    pub async fn dead_letter(&self, _tenant: TenantId, _entry: QueueEntry, _reason: &str) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// How much the tenant has queued.
    #[must_use]
    pub fn queue_depth(&self, _tenant: TenantId) -> QueueDepth {
        unimplemented!()
    }

    /// Remembers a wait, durably when this returns; `None` forgets it.
    pub async fn remember_wait(
        &self,
        _tenant: TenantId,
        _key: WaitKey,
        _until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The tenant's remembered waits.
    pub async fn waits(&self, _tenant: TenantId) -> Result<BTreeMap<WaitKey, Timestamp>, StoreError> {
        unimplemented!()
    }
}

/// Which time `since` and `until` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeBasis {
    /// The records' `CreationTime`.
    #[default]
    Created,
    /// The blob's `contentCreated`.
    Available,
    /// When the blob was stored.
    Stored,
}

/// What to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// These tenants; empty: all.
    pub tenants: Vec<TenantId>,
    /// These content types; empty: all.
    pub content_types: Vec<ContentType>,
    /// Not before (inclusive).
    pub since: Option<Timestamp>,
    /// Before (exclusive).
    pub until: Option<Timestamp>,
    /// Which time that is.
    pub by: TimeBasis,
    /// Flagged copies too.
    pub include_duplicates: bool,
}

/// One record, verbatim.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub content_type: ContentType,
    /// The blob that it stands in.
    pub content_id: &'a ContentId,
    /// The blob's number.
    pub seq: u64,
    /// Its place in the blob, from 0.
    pub index: u32,
    /// The JSON object exactly as received (it may hold line breaks between tokens).
    pub json: &'a [u8],
    /// A copy of a record that is stored elsewhere.
    pub duplicate: bool,
}

/// The last visible number of each tenant's content types.
pub type Heads = BTreeMap<(TenantId, ContentType), u64>;

/// Appends a record with the white space between its tokens left out; literals stay as they are.
pub fn minify(_json: &[u8], _out: &mut Vec<u8>) {
    unimplemented!("records.rs provides this")
}

/// What the commands and the admin socket call. Replace with the real bodies where they belong.
impl Store {
    /// Opens what a query needs while no daemon runs. Blocking. The path may be `.`.
    pub fn open_to_read(_options: &Options, _time: Arc<ServiceTime>) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Reads what `query` asks for, until `take` breaks off. Blocking, with bounded memory.
    pub fn for_each_record(
        &self,
        _query: &Query,
        _take: impl FnMut(Record<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Reads the records of the blobs after `after`, and answers the last number that was read whole. Blocking.
    pub fn for_each_record_after(
        &self,
        _tenant: TenantId,
        _content_type: ContentType,
        _after: u64,
        _take: impl FnMut(Record<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// The last visible number of each tenant's content types. Cheap.
    #[must_use]
    pub fn heads(&self) -> Heads {
        unimplemented!()
    }

    /// The last numbers that were stored before `since`.
    pub async fn heads_at(&self, _since: Timestamp) -> Result<Heads, StoreError> {
        unimplemented!()
    }

    /// Ticks after blobs have become visible.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }

    /// What was stored since midnight UTC. Cheap.
    #[must_use]
    pub fn stored_today(&self, _tenant: TenantId) -> crate::report::StoredToday {
        unimplemented!()
    }

    /// How many dead letters the tenant has.
    pub async fn dead_letters(&self, _tenant: TenantId) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// Whether a daemon waits for this store's lock: a command gives way.
    #[must_use]
    pub fn someone_waits(&self) -> bool {
        unimplemented!()
    }
}
