//! The store: what was collected, and what is still to be. The only place that names sled.
//!
//! Everything above sees [`Store`] and domain words. Blocking work happens on the store's own threads and in
//! `spawn_blocking`; async callers only await.
//!
//! # Guarantees
//!
//! - What is acknowledged survives a power cut, and what is read was acknowledged.
//! - A blob is stored once, whole, and byte for byte as it was received, or not at all.
//! - Each tenant's content type numbers its blobs without ever giving a smaller number later.
//! - Of every record that was repeated within nine days, one copy is unmarked as long as it can be read; and no step of
//!   one clock makes the store forget what it has seen ([`recent`]).
//! - Damage never removes anything and never stops collecting; a full disk, an I/O error, missing permission or a held
//!   lock never moves anything.
//!
//! # On the disk
//!
//! ```text
//! lock  waiting               whose store it is                           (lock)
//! format                      JSON: version, store id, key of the hashes  (format)
//! content/                    the truth, one partition after the other
//!     anchors                 JSON: why partitions are gone               (anchors)
//!     purges                  JSON: tenants that were erased              (purge)
//!     2026-11-22.001/         a partition                                 (partition)
//!         partition           JSON: format, ordinal, floor of numbers
//!         sealed              JSON: sums, once it is written no more
//!         db/                 sled: one tree                              (keys, tree)
//!         seen.run, …         what was seen here                          (seen)
//!     .new-…  .dropping-…     on their way in and out                     (roll)
//!     .purging-…  .purged-…   without a tenant, on their way in           (purge)
//! state                       JSON: which of the following is it          (state)
//! state-7/                    sled: queue, watermarks, waits, dead letters, enrolments, invites, names of types, gaps
//! aside/                      what was damaged; nothing in it is used
//! ```
//!
//! A partition is begun at midnight UTC, by the time that the service has confirmed, and when it is full; a blob goes
//! into the newest. What is in a partition is decided when it is stored: header ([`header`]), parts of the body
//! ([`intake`]), packed record ids ([`ids`]), link of the tenant's chain ([`chain`]), counts of the hour.
//! Versions: every file and value says its own; `format` says the whole store's, and the steps from one to the next are
//! listed there.
//!
//! # The parts
//!
//! A body is received on the caller's task (`content`, [`intake`], [`records`]), made visible by one thread (`writer`,
//! with `job`, `stage`, `before`, `confirm`, `newest`, `roll`) and read by anybody (`read`, `verify`) from open partitions (`partitions`, `holdings`). The state has a
//! thread of its own (`state`), and the register of tenants is a part of it (`enrolment`, `registration`). The `ledger` is a reckoning over both, with the `gaps` that are noted; `fate` tells what became of
//! content that is listed. [`purge`] takes a tenant out of all of it. [`backup`] copies it all elsewhere and back. `database` makes sled keep its promises; `durable` does the same for files.

pub mod error;
mod durable;
pub mod lock;
mod format;
mod database;

pub(crate) mod records;
pub(crate) mod ids;
pub(crate) mod header;
pub(crate) mod chain;
pub(crate) mod intake;
pub(crate) mod seen;

mod keys;
mod tree;
mod partition;
mod partitions;
mod recent;
mod anchors;
mod holdings;
mod job;
mod stage;
mod confirm;
mod before;
mod newest;
mod writer;
mod roll;
mod retention;
mod purge;
mod content;
mod read;
mod verify;

mod state;
mod enrolment;
mod registration;
mod sizes;
mod snapshot;
mod facade;
mod fate;
mod gaps;
mod ledger;
mod stats;
pub(crate) mod backup;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::anchors::{Anchor, Gone};
pub use self::backup::{BackupError, Folder, Have, Made, Restored, Sealed, restore, send_at_rest};
pub use self::content::BlobWriter;
pub use self::enrolment::{Enrolled, Enrolment, Invite, InviteId, InviteStage, NotAnInviteId};
pub use self::error::StoreError;
pub use self::facade::Store;
pub use self::fate::Fate;
pub use self::gaps::{Filled, Gap, GapLine, Gaps, LEAST as LEAST_GAP, Why};
pub use self::header::{BlobHeader, Duplicate, Place};
pub use self::ledger::{Hour, LedgerLine};
pub use self::purge::{Chain, Progress, Purge, Remains};
pub use self::read::Page;
pub use self::records::minify::minify;
pub use self::retention::{Keep, Reason, Retained};
pub use self::seen::measure;
pub use self::sizes::{Room, Sizes};
pub use self::state::DeadLetter;
pub use self::stats::{PartitionStats, Stats, TenantStats};
pub use self::verify::{BlobName, Finding, Kind as FindingKind, PartitionHeads, Verification};
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
    /// Not before this time (service's time), unless that is [beyond belief](is_due).
    pub not_before: Option<Timestamp>,
    /// The last failure, for `status` and the dead letter.
    pub last_error: Option<String>,
    /// Its content is stored, and is to be looked at again: it was fetched so young that it may be a part.
    #[serde(skip)]
    pub again: bool,
}

/// No entry is deferred for longer than this: a day is the longest that a service is obeyed, and an hour is to spare.
const LONGEST_DEFERRAL: SignedDuration = SignedDuration::from_hours(25);

/// Whether what was deferred until a time is due. What would have to wait for too long is: the service's time was
/// ahead when it was deferred and has stepped back since, and until then the content could be gone.
pub(crate) fn is_due(until: Timestamp, now: Timestamp) -> bool {
    until <= now || until.duration_since(now) > LONGEST_DEFERRAL
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

/// What became of entries that are listed wrongly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Those that are on record now and were not before.
    pub new: Vec<ContentId>,
    /// How many are on record. The others are queued, stored or given up: how they are listed now is of no interest.
    pub standing: usize,
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
    /// The token endpoint asked for a wait.
    Token,
    /// Graph asked for a wait.
    Health,
}

/// A wait that was written down, by the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// When it was.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Wait {
    /// How long it lasts yet: not longer than it did when it was written, whatever became of the clock since. `None` if
    /// it is over.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until.duration_since(now).min(self.until.duration_since(self.from));
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}

/// What a tenant's sensitive information types are called in one language. An organisation has types of its own beside
/// Microsoft's, so that each tenant has its own list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensitiveTypes {
    /// When the service said so.
    pub fetched_at: Timestamp,
    /// The name of each id.
    pub names: BTreeMap<Uuid, String>,
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

impl From<StoreError> for IntakeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
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
    /// These content types; empty: all that can be subscribed to.
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
