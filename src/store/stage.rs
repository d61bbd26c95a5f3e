//! What one batch of the writer will make true, and who is told of it then.

use std::collections::HashMap;

use super::Stored;
use super::before::Records;
use super::error::StoreError;
use super::header::BlobHeader;
use super::holdings::Holdings;
use super::job::Answer;
use super::keys::BlobNumber;
use super::seen::SeenHash;
use super::tree::{Changes, Head, Ledger};
use crate::content::{ContentId, ContentType, TenantId};

/// What one batch will make true.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) changes: Changes,
    pub(super) heads: HashMap<TenantId, Head>,
    /// What was stored, to be added to the day's sums.
    pub(super) added: Vec<(u32, TenantId, ContentType, Ledger)>,
    pub(super) content: HashMap<(TenantId, ContentId), Known>,
    /// The records in it, and all blobs that have them.
    pub(super) records: Records,
    pub(super) seen: Vec<(SeenHash, BlobNumber)>,
    /// The numbers of its blobs.
    pub(super) blobs: Vec<BlobNumber>,
    pub(super) done: Vec<(Answer<Stored>, Stored)>,
    pub(super) snapshots: Vec<(Answer<bool>, bool)>,
}

impl Stage {
    /// It is durable: first everybody can see it, then those who waited hear of it.
    pub(super) fn settle(mut self, holdings: &Holdings) {
        holdings.add_heads(std::mem::take(&mut self.heads));
        holdings.add_to_day(&self.added);
        let new = self.done.iter().filter(|(_, stored)| stored.new).count();
        if new > 0 {
            holdings.stored.send_modify(|count| *count += new as u64);
        }
        for (done, stored) in self.done.drain(..) {
            drop(done.send(Ok(stored)));
        }
        for (done, written) in self.snapshots.drain(..) {
            drop(done.send(Ok(written)));
        }
    }

    pub(super) fn refuse(&mut self, error: &StoreError) {
        for (done, _) in self.done.drain(..) {
            drop(done.send(Err(error.clone())));
        }
        for (done, _) in self.snapshots.drain(..) {
            drop(done.send(Err(error.clone())));
        }
    }
}

/// A blob that was stored before under the same content id.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) stored: Stored,
    pub(super) sha256: [u8; 32],
    pub(super) revision: u16,
}

impl Known {
    pub(super) fn of(header: &BlobHeader) -> Self {
        let count = |marks: usize| u32::try_from(marks).unwrap_or(u32::MAX);
        let stored = Stored {
            seq: header.seq,
            bytes: header.bytes,
            records: header.records,
            duplicates: count(header.duplicates.len()),
            foreign: count(header.foreign.len()),
            new: false,
        };
        Self { stored, sha256: header.sha256, revision: header.revision }
    }
}
