//! All that the state has of one tenant, wherever it stands.

use super::super::database::{Database, Slice};
use super::super::error::StoreError;
use super::keys::{self, kind};
use super::{records, writer};
use crate::content::TenantId;

/// How many keys are removed in one batch: sled keeps a batch in memory.
const REMOVALS: usize = 1000;

/// Whether there is anything.
pub(super) fn is_there(database: &Database, tenant: TenantId) -> Result<bool, StoreError> {
    for prefix in prefixes(tenant) {
        if !find(database, tenant, &prefix, 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes it, durably, piece by piece: each piece is gone or there, and the next attempt goes on.
pub(super) fn remove(database: &Database, tenant: TenantId) -> Result<(), StoreError> {
    for prefix in prefixes(tenant) {
        loop {
            let theirs = find(database, tenant, &prefix, REMOVALS)?;
            if theirs.is_empty() {
                break;
            }
            writer::remove(database, theirs.iter())?;
        }
    }
    Ok(())
}

/// The beginnings of its keys; invites stand under ids of their own.
fn prefixes(tenant: TenantId) -> impl Iterator<Item = Vec<u8>> {
    keys::OF_TENANTS.into_iter().map(move |kind| keys::head(kind, tenant)).chain([vec![kind::INVITE]])
}

/// Some of its keys that begin so.
fn find(database: &Database, tenant: TenantId, prefix: &[u8], limit: usize) -> Result<Vec<Slice>, StoreError> {
    let mut theirs = Vec::new();
    for row in database.scan_prefix(prefix)? {
        let (key, value) = row?;
        if records::owner(&key, &value, |of| of == tenant).is_some() {
            theirs.push(key);
            if theirs.len() >= limit {
                break;
            }
        }
    }
    Ok(theirs)
}
