//! One batch in the making: what a group of tasks writes, and what memory takes note of once that is durable.
//!
//! Tasks of one group see each other's writes. A task that fails leaves nothing in the batch: its neighbours, which
//! are other tenants' as a rule, do not suffer from it.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::super::database::{Batch, Database};
use super::super::error::StoreError;
use super::super::{Enqueued, QueueEntry, Refused, Watermark, snapshot};
use super::keys::{self, Place};
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
    /// It has another address now: it is due, unless it is handed out.
    Readdressed(TenantId, Place, Option<Timestamp>),
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
        let mut moved = Vec::new();
        for blob in listed {
            let place = Place::of(blob.content_created, &blob.content_id);
            let key = place.key(tenant);
            if let Some(queued) = self.get(&key)? {
                enqueued.known += 1;
                // What cannot be understood is seen to when it is its turn. A notification says nothing new of what is known.
                if tier != Tier::Webhook
                    && let Ok(queued) = records::decode_entry(&queued)
                    && let Some(entry) = listed_again(queued, tier, blob)
                {
                    moved.push((key, place, entry.not_before, self.encoded(&entry)?));
                }
                continue;
            }
            if new.contains_key(&key) || self.is_given_up(tenant, &blob, tier)? {
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
                again: false,
            };
            let value = self.encoded(&entry)?;
            new.insert(key, (place, entry, value));
            enqueued.new += 1;
        }
        for (key, (place, entry, value)) in new {
            self.put(tenant, key, value);
            self.effects.push(Effect::Added(tenant, place, entry));
        }
        for (key, place, not_before, value) in moved {
            self.put(tenant, key, value);
            self.effects.push(Effect::Readdressed(tenant, place, not_before));
        }
        Ok(enqueued)
    }

    /// Whether the blob was given up at this address, for good. A notification at another address changes nothing.
    fn is_given_up(&self, tenant: TenantId, blob: &ContentBlob, tier: Tier) -> Result<bool, StoreError> {
        let Some(value) = self.get(&keys::letter(tenant, &blob.content_id))? else { return Ok(false) };
        let letter = records::decode_letter(&value);
        Ok(letter.is_ok_and(|letter| tier == Tier::Webhook || letter.entry.blob.content_uri == blob.content_uri))
    }

    fn encoded(&self, entry: &QueueEntry) -> Result<Vec<u8>, StoreError> {
        let value = records::encode_entry(entry);
        if value.len() > MAX_QUEUED {
            let path = self.database.directory().to_owned();
            return Err(StoreError::TooLarge { path, bytes: value.len(), most: MAX_QUEUED });
        }
        Ok(value)
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
        let Some(value) = self.get(&key)? else {
            self.effects.push(Effect::Absent(tenant, place));
            return Ok(());
        };
        let mut entry = entry.clone();
        if let Ok(queued) = records::decode_entry(&value) {
            // A listing may have confirmed it since it was handed out.
            entry.tier = queued.tier;
            // It failed at the address that it had then, and has been listed at another one since.
            if queued.blob.content_uri != entry.blob.content_uri {
                entry = readdressed(entry, queued.blob.content_uri);
            }
        }
        self.put(tenant, key, records::encode_entry(&entry));
        self.effects.push(Effect::Deferred(tenant, place, entry.not_before));
        Ok(())
    }

    /// The entry goes over to the queue of what is to be looked at again. Failures of its retrieval were not those of the
    /// second look.
    pub(super) fn look_again(&mut self, tenant: TenantId, entry: QueueEntry) -> Result<(), StoreError> {
        let before = super::place(&entry);
        let place = before.in_queue(true);
        self.complete(tenant, before)?;
        let entry = QueueEntry { attempts: 0, panics: 0, malformed: 0, last_error: None, again: true, ..entry };
        let key = place.key(tenant);
        let known = self.has(&key)?;
        let value = self.encoded(&entry)?;
        self.put(tenant, key, value);
        self.effects.push(if known {
            Effect::Deferred(tenant, place, entry.not_before)
        } else {
            Effect::Added(tenant, place, entry)
        });
        Ok(())
    }

    /// Drops an entry that only a notification named. False if a listing has named it meanwhile: then it stays, and may be
    /// handed out again.
    pub(super) fn drop_unlisted(&mut self, tenant: TenantId, entry: &QueueEntry) -> Result<bool, StoreError> {
        let place = super::place(entry);
        let listed = match self.get(&place.key(tenant))? {
            Some(value) => records::decode_entry(&value).is_ok_and(|queued| queued.tier != Tier::Webhook),
            None => false,
        };
        if listed {
            self.effects.push(Effect::Deferred(tenant, place, None));
        } else {
            self.complete(tenant, place)?;
        }
        Ok(!listed)
    }

    /// Gives the entry up: for good, or until it is listed again.
    pub(super) fn dead_letter(
        &mut self,
        tenant: TenantId,
        letter: &DeadLetter,
        for_good: bool,
    ) -> Result<(), StoreError> {
        self.complete(tenant, super::place(&letter.entry))?;
        let id = &letter.entry.blob.content_id;
        let key = if for_good { keys::letter(tenant, id) } else { keys::refused(tenant, id) };
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

    /// Withdraws the dead letters of what is listed rightly now, and of what is queued again.
    pub(super) fn withdraw(&mut self, tenant: TenantId, ids: Vec<ContentId>) -> Result<Vec<ContentId>, StoreError> {
        let mut withdrawn = Vec::new();
        for id in ids {
            let (refused, letter) = (keys::refused(tenant, &id), keys::letter(tenant, &id));
            if self.has(&refused)? {
                self.remove(tenant, refused);
            } else if self.is_queued_again(tenant, &letter)? {
                self.remove(tenant, letter);
            } else {
                continue;
            }
            withdrawn.push(id);
        }
        Ok(withdrawn)
    }

    /// Whether there is such a dead letter, and its content in the queue.
    fn is_queued_again(&self, tenant: TenantId, letter: &[u8]) -> Result<bool, StoreError> {
        let Some(value) = self.get(letter)? else { return Ok(false) };
        match records::decode_letter(&value) {
            Ok(letter) => self.has(&super::place(&letter.entry).key(tenant)),
            Err(_) => Ok(false),
        }
    }

    /// Puts a value, or removes it; nothing is written if that is how it is.
    pub(super) fn set(
        &mut self,
        tenant: Option<TenantId>,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
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

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.noted(self.database.get(key))?.map(|value| value.to_vec())),
        }
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

    fn put(&mut self, tenant: impl Into<Option<TenantId>>, key: Vec<u8>, value: Vec<u8>) {
        self.note(tenant.into(), &key);
        self.batch.insert(key.as_slice(), value.as_slice());
        self.written.insert(key, Some(value));
    }

    fn remove(&mut self, tenant: impl Into<Option<TenantId>>, key: Vec<u8>) {
        self.note(tenant.into(), &key);
        self.batch.remove(key.as_slice());
        self.written.insert(key, None);
    }

    fn note(&mut self, tenant: Option<TenantId>, key: &[u8]) {
        self.tenants.extend(tenant);
        self.changes_snapshot |= snapshot::holds(key);
    }
}

/// The entry as a listing has it now, if that says anything new: another address, or that it is there at all.
fn listed_again(mut queued: QueueEntry, tier: Tier, blob: ContentBlob) -> Option<QueueEntry> {
    let confirmed = queued.tier == Tier::Webhook;
    let moved = queued.blob.content_uri != blob.content_uri;
    if confirmed {
        queued.tier = tier;
        queued.blob.content_expiration = blob.content_expiration;
        queued.blob.content_type = blob.content_type;
    }
    if moved || confirmed { Some(readdressed(queued, blob.content_uri)) } else { None }
}

/// The entry at another address, where it may be retrieved at once: the cloud's hosts were changed, as a rule.
fn readdressed(mut entry: QueueEntry, content_uri: String) -> QueueEntry {
    entry.blob.content_uri = content_uri;
    // A time that is due, so that whoever sleeps until an entry is finds it.
    entry.not_before = Some(entry.queued_at);
    entry
}
