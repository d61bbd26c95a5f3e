//! The cut: from one moment on, in the order of all that is stored, a tenant is hidden.
//!
//! The writer of content makes it, between two batches: what it has acknowledged before stands before the cut, and what it
//! is asked for after that stands behind it.

use super::super::chain::to_hex;
use super::super::error::StoreError;
use super::super::writer::Writer;
use super::Chain;
use super::record::Record;
use crate::content::TenantId;
use crate::event;

impl Writer {
    /// Hides a tenant, durably, and answers which purge erases it. One that is not done yet is gone on with, if nothing was
    /// stored since.
    pub(in crate::store) fn begin_purge(&mut self, tenant: TenantId) -> Result<u32, StoreError> {
        let holdings = std::sync::Arc::clone(&self.holdings);
        let head = holdings.heads().get(&tenant).cloned();
        let purges = holdings.purges();
        // A partition that is gone had an ordinal too, and none is given twice.
        let newest = holdings.partitions.newest().map(|newest| newest.ordinal);
        let through = newest.or(holdings.anchors().last_ordinal()).unwrap_or(0);
        let arriving = self.uploads.values().any(|upload| upload.tenant == tenant);
        let asked_at = holdings.time.now();
        let last = head.as_ref().map_or_else(|| purges.last_numbers(tenant), |head| head.now.last.clone());
        let chain = head.map(|head| Chain { link: to_hex(&head.now.link), length: head.now.length });
        let (id, new) = purges.change(|records| {
            let known = records.iter_mut().rev().find(|record| record.tenant == tenant && record.done_at.is_none());
            if let Some(record) = known.filter(|_| chain.is_none() && !arriving) {
                (record.cleared, record.copied) = (false, false);
                return (record.id, false);
            }
            let id = records.last().map_or(1, |last| last.id + 1);
            records.push(Record {
                id,
                tenant,
                asked_at,
                through,
                last,
                chain,
                cleared: false,
                copied: false,
                below: through + 1,
                rewritten: 0,
                blobs: 0,
                records: 0,
                bytes: 0,
                given_back: 0,
                remains: Vec::new(),
                done_at: None,
            });
            (id, true)
        })?;
        holdings.forget_tenant(tenant);
        let gone: Vec<_> = self.uploads.extract_if(|_, upload| upload.tenant == tenant).collect();
        if let Some(newest) = &mut self.newest {
            for (_, upload) in gone {
                // Sealing the partition removes its parts.
                newest.pending.remove(&upload.blob);
            }
        }
        // Whoever has asked may not wait for the answer.
        purges.tell();
        if new {
            tracing::info!(message_id = event::PURGE_BEGUN, %tenant, purge = id, "a tenant is being purged: nothing of it is shown any more, and it is erased in the background");
        }
        Ok(id)
    }
}
