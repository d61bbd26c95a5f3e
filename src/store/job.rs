//! What is asked of the writer of content, and what bodies are handed over in.

use std::collections::BTreeSet;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::content::IdMemory;
use super::error::StoreError;
use super::intake::Body;
use super::{Fetched, Stored};
use crate::content::{ContentBlob, TenantId};

/// The reception of one body, as the writer knows it.
pub(crate) type UploadId = u64;

/// Compressed parts, in their order, with the memory that they may take.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// How many went before these.
    pub(crate) first: u32,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

impl Parts {
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(Vec::len).sum()
    }

    pub(crate) fn hold(&mut self, part: Vec<u8>, permit: OwnedSemaphorePermit) {
        self.frames.push(part);
        self.permits.push(permit);
    }

    /// Takes out what is here; those to come are counted on.
    pub(crate) fn split(&mut self) -> Self {
        let parts = std::mem::take(self);
        self.first = parts.first + u32::try_from(parts.frames.len()).unwrap_or(u32::MAX);
        parts
    }
}

/// A body that is complete.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) tenant: TenantId,
    /// Which of the tenant's lives it is of: how often it had been purged when this was begun.
    pub(crate) life: u32,
    pub(crate) blob: ContentBlob,
    pub(crate) fetched: Fetched,
    /// Whether another body under a stored content id is stored as a further revision.
    pub(crate) revision: bool,
    pub(crate) body: Body,
    /// Given back with it.
    pub(crate) _ids: IdMemory,
}

/// What is asked of the writer.
#[derive(Debug)]
pub(crate) enum Job {
    /// Parts that go ahead of their header, and whose, in which of the tenant's lives.
    Parts { upload: UploadId, of: (TenantId, u32), parts: Parts },
    /// The receiver gives up.
    Abandon { upload: UploadId },
    /// The last parts and all that the header says.
    Blob { upload: UploadId, received: Box<Received>, parts: Parts, done: Answer<Stored> },
    /// The state's snapshot, and whom it names. The answer is whether there is a partition to hold it.
    Snapshot { bytes: Vec<u8>, owners: BTreeSet<TenantId>, done: Answer<bool> },
    /// Asks whether the thread still turns.
    Pulse { done: oneshot::Sender<()> },
    /// Hides a tenant from now on. The answer is the purge that erases it.
    Purge { tenant: TenantId, done: Answer<u32> },
    /// Starts a new partition.
    Roll { done: Answer<()> },
    /// Writes what came before, and ends.
    Close { done: Answer<()> },
}

/// Where the answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;
