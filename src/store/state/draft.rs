//! One batch in the making: what a group of tasks writes, and what memory takes note of once that is durable.
//!
//! Tasks of one group see each other's writes. A task that fails leaves nothing in the batch: its neighbours, which
//! are other tenants' as a rule, do not suffer from it.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::super::database::{Batch, Database};
use super::super::error::StoreError;
use super::super::{Enqueued, QueueEntry, Refused, Watermark};
use super::keys::{self, Place, kind};
use super::{DeadLetter, records};
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier};

/// Bytes that a queue entry may have: far more than ids and URIs of the service take.
const MAX_QUEUED: usize = 32 << 10;

/// What memory takes note of after the commit.
#[derive(Debug)]
pub(super) enum Effect {
    Added(TenantId, Place, QueueEntry),
    Removed(TenantId, Place),
    Deferred(TenantId, Place, Option<Timestamp>),
    /// It is not in the queue; nothing but its marks is to be forgotten.
    Absent(TenantId, Place),
}

pub(super) struct Draft<'a> {
    database: &'a Database,
    pub(super) batch: Batch,
    pub(super) effects: Vec<Effect>,
    /// Whose data is in the batch.
    pub(super) tenants: BTreeSet<TenantId>,
    /// Whether a snapshot would differ afterwards.
    pub(super) changes_snapshot: bool,
    /// What showed while reading that the database is damaged.
    pub(super) damage: Cell<Option<StoreError>>,
    /// What the batch makes of keys that are read while it is made: present with this value, or gone.
    written: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self {
            database,
            batch: Batch::default(),
            effects: Vec::new(),
            tenants: BTreeSet::new(),
            changes_snapshot: false,
            damage: Cell::new(None),
            written: HashMap::new(),
        }
    }

    pub(super) fn enqueue(
        &mut self,
        tenant: TenantId,
        tier: Tier,
        listed: Vec<ContentBlob>,
        queued_at: Timestamp,
    ) -> Result<Enqueued, StoreError> {
        let mut enqueued = Enqueued::default();
        let mut new = HashMap::new();
        for blob in listed {
            let place = Place::of(blob.content_created, &blob.content_id);
            let key = place.key(tenant);
            let known =
                new.contains_key(&key) || self.has(&key)? || self.has(&keys::letter(tenant, &blob.content_id))?;
            if known {
                enqueued.known += 1;
                continue;
            }
            let entry = QueueEntry {
                blob,
                tier,
                queued_at,
                attempts: 0,
                panics: 0,
                malformed: 0,
                not_before: None,
                last_error: None,
            };
            let value = records::encode_entry(&entry);
            if value.len() > MAX_QUEUED {
                return Err(StoreError::TooLarge {
                    path: self.database.directory().to_owned(),
                    bytes: value.len(),
                    most: MAX_QUEUED,
                });
            }
            new.insert(key, (place, entry, value));
            enqueued.new += 1;
        }
        for (key, (place, entry, value)) in new {
            self.put(tenant, key, value);
            self.effects.push(Effect::Added(tenant, place, entry));
        }
        Ok(enqueued)
    }

    /// The entry is done with.
    pub(super) fn complete(&mut self, tenant: TenantId, place: Place) -> Result<(), StoreError> {
        let key = place.key(tenant);
        if self.has(&key)? {
            self.remove(tenant, key);
            self.effects.push(Effect::Removed(tenant, place));
        } else {
            self.effects.push(Effect::Absent(tenant, place));
        }
        Ok(())
    }

    pub(super) fn defer(&mut self, tenant: TenantId, entry: &QueueEntry) -> Result<(), StoreError> {
        let place = super::place(entry);
        let key = place.key(tenant);
        // One that has left the queue does not come back.
        if self.has(&key)? {
            self.put(tenant, key, records::encode_entry(entry));
            self.effects.push(Effect::Deferred(tenant, place, entry.not_before));
        } else {
            self.effects.push(Effect::Absent(tenant, place));
        }
        Ok(())
    }

    pub(super) fn dead_letter(&mut self, tenant: TenantId, letter: &DeadLetter) -> Result<(), StoreError> {
        self.complete(tenant, super::place(&letter.entry))?;
        let key = keys::letter(tenant, &letter.entry.blob.content_id);
        self.put(tenant, key, records::encode_letter(letter));
        Ok(())
    }

    /// Puts what is listed wrongly on record, unless it is on its way or was given up.
    pub(super) fn refuse(&mut self, tenant: TenantId, letters: &[DeadLetter]) -> Result<Refused, StoreError> {
        let mut refused = Refused::default();
        for letter in letters {
            let id = &letter.entry.blob.content_id;
            let key = keys::refused(tenant, id);
            if self.has(&key)? {
                refused.standing += 1;
                continue;
            }
            if self.has(&super::place(&letter.entry).key(tenant))? || self.has(&keys::letter(tenant, id))? {
                continue;
            }
            self.put(tenant, key, records::encode_letter(letter));
            refused.standing += 1;
            refused.new.push(id.clone());
        }
        Ok(refused)
    }

    /// Withdraws what is on record as listed wrongly.
    pub(super) fn withdraw(&mut self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<ContentId>, StoreError> {
        let mut withdrawn = Vec::new();
        for id in ids {
            let key = keys::refused(tenant, &id);
            if self.has(&key)? {
                self.remove(tenant, key);
                withdrawn.push(id);
            }
        }
        Ok(withdrawn)
    }

    /// Puts a value, or removes it; nothing is written if that is how it is.
    pub(super) fn set(&mut self, tenant: TenantId, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        let same = match self.written.get(&key) {
            Some(written) => *written == value,
            None => self.noted(self.database.get(&key))?.as_deref() == value.as_deref(),
        };
        match value {
            _ if same => {}
            Some(value) => self.put(tenant, key, value),
            None => self.remove(tenant, key),
        }
        Ok(())
    }

    pub(super) fn watermark(&mut self, tenant: TenantId, content_type: ContentType, watermark: &Watermark) {
        self.put(tenant, keys::watermark(tenant, content_type), records::encode_watermark(watermark));
    }

    fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        match self.written.get(key) {
            Some(written) => Ok(written.is_some()),
            None => self.noted(self.database.contains(key)),
        }
    }

    /// Keeps an error that concerns everybody and not only this task.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Damaged { .. }) = &read {
            self.damage.set(Some(error.clone()));
        }
        read
    }

    fn put(&mut self, tenant: TenantId, key: Vec<u8>, value: Vec<u8>) {
        self.note(tenant, &key);
        self.batch.insert(key.as_slice(), value.as_slice());
        self.written.insert(key, Some(value));
    }

    fn remove(&mut self, tenant: TenantId, key: Vec<u8>) {
        self.note(tenant, &key);
        self.batch.remove(key.as_slice());
        self.written.insert(key, None);
    }

    fn note(&mut self, tenant: TenantId, key: &[u8]) {
        self.tenants.insert(tenant);
        self.changes_snapshot |= matches!(key.first(), Some(&(kind::WAIT | kind::LETTER | kind::REFUSED)));
    }
}
