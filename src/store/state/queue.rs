//! Which entries are retrieved next.
//!
//! First those that expire within 24 hours, then the newest and the oldest in turn: the newest because somebody waits
//! for them, the oldest because they will be gone first. The turn is kept from call to call.
//!
//! Urgent entries are found without reading the whole queue. Content lives seven days as a rule, so what expires soon
//! is at the old end; what lives shorter than that is remembered by its expiry in the [book](super::book).
//!
//! The scan reads while the writer writes. An entry is first marked as handed out, then read again by its key: if the
//! writer has removed or deferred it meanwhile, that read tells.

use std::collections::{BinaryHeap, HashMap};
use std::sync::PoisonError;

use jiff::Timestamp;

use super::super::QueueEntry;
use super::super::database::{Database, Rows};
use super::super::error::StoreError;
use super::book::{self, Book};
use super::keys::{self, Place, kind};
use super::{Tenant, Unreadable, records};
use crate::content::TenantId;

/// What a call hands out.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) entries: Vec<QueueEntry>,
    /// Entries that cannot be understood; they are marked as handed out and should be removed.
    pub(super) unreadable: Vec<Place>,
}

/// Reads the whole queue once, and says what memory should know of it.
pub(super) fn read_books(database: &Database) -> Result<(HashMap<TenantId, Book>, Vec<Unreadable>), StoreError> {
    let mut books: HashMap<TenantId, Book> = HashMap::new();
    let mut unreadable = Vec::new();
    for row in database.scan_prefix([kind::QUEUE])? {
        let (key, value) = row?;
        let Some((tenant, place)) = Place::from_key(&key) else {
            unreadable.push((key, records::Undecodable("its key is not a queue entry's".to_owned())));
            continue;
        };
        match records::decode_entry(&value) {
            Ok(entry) => books.entry(tenant).or_default().add(place, &entry),
            Err(error) => unreadable.push((key, error)),
        }
    }
    Ok((books, unreadable))
}

/// The earliest creation in a tenant's queue.
pub(super) fn oldest(database: &Database, tenant: TenantId) -> Result<Option<Timestamp>, StoreError> {
    let first = database.scan_prefix(keys::head(kind::QUEUE, tenant))?.next().transpose()?;
    Ok(first.and_then(|(key, _)| Place::from_key(&key)).map(|(_, place)| place.created()))
}

/// Hands out up to `limit` entries. Blocking.
pub(super) fn take(
    database: &Database,
    tenant: TenantId,
    of: &Tenant,
    limit: usize,
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let _turn = of.taking.lock().unwrap_or_else(PoisonError::into_inner);
    let mut take = Take { database, tenant, of, limit, now, taken: Taken::default() };
    let done = take.all();
    if done.is_err() {
        // The caller learns of none of them.
        let mut book = of.book();
        for entry in &take.taken.entries {
            book.take_back(super::place(entry), entry.not_before);
        }
    }
    done.map(|()| take.taken)
}

struct Take<'a> {
    database: &'a Database,
    tenant: TenantId,
    of: &'a Tenant,
    limit: usize,
    now: Timestamp,
    taken: Taken,
}

impl Take<'_> {
    fn all(&mut self) -> Result<(), StoreError> {
        if self.of.book().deferred.needs_scan() {
            self.scan_deferred()?;
        }
        self.early()?;
        self.old_and_urgent()?;
        self.in_turn()
    }

    fn is_full(&self) -> bool {
        self.taken.entries.len() >= self.limit
    }

    /// The urgent ones that the order of creation does not lead to.
    fn early(&mut self) -> Result<(), StoreError> {
        if self.is_full() {
            return Ok(());
        }
        let places = self.of.book().early_before(book::urgent_horizon(self.now), self.now, self.limit);
        for place in places {
            self.hand_out(place)?;
        }
        Ok(())
    }

    /// The urgent ones at the old end.
    fn old_and_urgent(&mut self) -> Result<(), StoreError> {
        if self.is_full() {
            return Ok(());
        }
        let from = keys::head(kind::QUEUE, self.tenant);
        let to = keys::queue_from(self.tenant, book::last_urgent_creation(self.now));
        let horizon = book::urgent_horizon(self.now);
        for row in self.database.range(from..to)? {
            if self.is_full() {
                break;
            }
            let (key, value) = row?;
            let Some((_, place)) = Place::from_key(&key) else { continue };
            if !self.of.book().is_free(&place, self.now) {
                continue;
            }
            // What cannot be understood is handed out, and so found out.
            let urgent = records::decode_entry(&value).map_or(true, |entry| entry.blob.content_expiration < horizon);
            if urgent {
                self.hand_out(place)?;
            }
        }
        Ok(())
    }

    /// The newest and the oldest in turn.
    fn in_turn(&mut self) -> Result<(), StoreError> {
        if self.is_full() {
            return Ok(());
        }
        let mut rows = self.database.scan_prefix(keys::head(kind::QUEUE, self.tenant))?;
        while !self.is_full() {
            let oldest = self.of.book().oldest_is_next();
            let Some(place) = self.next_free(&mut rows, oldest)? else { break };
            if self.hand_out(place)? {
                self.of.book().turn();
            }
        }
        Ok(())
    }

    fn next_free(&self, rows: &mut Rows, oldest: bool) -> Result<Option<Place>, StoreError> {
        while let Some(row) = if oldest { rows.next() } else { rows.next_back() } {
            let (key, _) = row?;
            if let Some((_, place)) = Place::from_key(&key)
                && self.of.book().is_free(&place, self.now)
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Marks an entry and reads it; false if it is not to be handed out after all.
    fn hand_out(&mut self, place: Place) -> Result<bool, StoreError> {
        {
            let mut book = self.of.book();
            if !book.is_free(&place, self.now) || !book.hand_out(place) {
                return Ok(false);
            }
        }
        let value = match self.database.get(place.key(self.tenant)) {
            Ok(value) => value,
            Err(error) => {
                self.of.book().take_back(place, None);
                return Err(error);
            }
        };
        match value.map(|value| records::decode_entry(&value)) {
            Some(Ok(entry)) if entry.not_before.is_none_or(|until| until <= self.now) => {
                self.taken.entries.push(entry);
                Ok(true)
            }
            // Deferred, which memory had no room for.
            Some(Ok(entry)) => {
                self.of.book().take_back(place, entry.not_before);
                Ok(false)
            }
            Some(Err(error)) => {
                tracing::error!(
                    tenant = %self.tenant,
                    created = %place.created(),
                    %error,
                    "a queue entry cannot be understood and is removed; the next sweep lists it again"
                );
                self.taken.unreadable.push(place);
                Ok(false)
            }
            None => {
                self.of.book().take_back(place, None);
                Ok(false)
            }
        }
    }

    /// Finds the deferred entries that memory had no room for.
    fn scan_deferred(&self) -> Result<(), StoreError> {
        self.of.book().deferred.begin_scan();
        let scanned = self.first_deferred();
        let mut book = self.of.book();
        match scanned {
            Ok(found) => {
                for (until, place) in found {
                    if book.is_free(&place, Timestamp::MAX) {
                        book.deferred.insert_scanned(place, until);
                    }
                }
                Ok(())
            }
            Err(error) => {
                // Nothing is known of them any more: the next call scans again.
                book.deferred.scan_failed(self.now);
                Err(error)
            }
        }
    }

    /// The deferred entries whose time comes first: one more than memory keeps, so that it knows if there are more.
    fn first_deferred(&self) -> Result<BinaryHeap<(Timestamp, Place)>, StoreError> {
        let mut first = BinaryHeap::new();
        for row in self.database.scan_prefix(keys::head(kind::QUEUE, self.tenant))? {
            let (key, value) = row?;
            let Some((_, place)) = Place::from_key(&key) else { continue };
            if let Ok(QueueEntry { not_before: Some(until), .. }) = records::decode_entry(&value) {
                first.push((until, place));
                if first.len() > book::REMEMBERED + 1 {
                    first.pop();
                }
            }
        }
        Ok(first)
    }
}
