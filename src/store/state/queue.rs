//! Which entries are retrieved next.
//!
//! A tenant has two queues: of what is to be retrieved, and of what is stored and is to be looked at again. They are
//! worked off by the same rules, and neither knows of the other.
//!
//! First those that expire within 24 hours, then the newest and the oldest in turn: the newest because somebody waits
//! for them, the oldest because they will be gone first. The turn is kept from call to call.
//!
//! Urgent entries are found without reading the whole queue. Content lives seven days as a rule, so what expires soon
//! is at the old end; what lives shorter than that is remembered by its expiry in the [`super::book`].
//!
//! What a scan has passed by, because it is handed out or deferred, later scans do not look at again.
//!
//! The scan reads while the writer writes. An entry is first marked as handed out, then read again by its key: if the
//! writer has removed or deferred it meanwhile, that read tells.

use std::collections::{BinaryHeap, HashMap};
use std::ops::Bound;
use std::sync::PoisonError;

use jiff::Timestamp;

use super::super::database::{Database, Rows};
use super::super::error::StoreError;
use super::super::{QueueEntry, is_due};
use super::book::{self, Book};
use super::keys::{self, Place, kind};
use super::{Queue, Unreadable, records};
use crate::content::TenantId;
use crate::event;

/// What a call hands out.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) entries: Vec<QueueEntry>,
    /// Entries that cannot be understood; they are marked as handed out and should be removed.
    pub(super) unreadable: Vec<Place>,
}

/// The books of all queues, by tenant and whether it is the queue of what is to be looked at again.
pub(super) type Books = HashMap<(TenantId, bool), Book>;

/// Reads all queues once, and says what memory should know of them.
pub(super) fn read_books(database: &Database, remembered: usize) -> Result<(Books, Vec<Unreadable>), StoreError> {
    let mut books = Books::new();
    let mut unreadable = Vec::new();
    for row in database.scan_prefix([kind::QUEUE])?.chain(database.scan_prefix([kind::AGAIN])?) {
        let (key, value) = row?;
        let Some((tenant, place)) = Place::from_key(&key) else {
            unreadable.push((key, records::Undecodable("its key is not a queue entry's".to_owned())));
            continue;
        };
        match records::decode_entry(&value) {
            Ok(entry) => {
                books.entry((tenant, place.again)).or_insert_with(|| Book::new(remembered)).add(place, &entry);
            }
            Err(error) => unreadable.push((key, error)),
        }
    }
    Ok((books, unreadable))
}

/// The earliest creation in one of a tenant's queues.
pub(super) fn oldest(database: &Database, tenant: TenantId, again: bool) -> Result<Option<Timestamp>, StoreError> {
    let first = database.scan_prefix(keys::queue(tenant, again))?.next().transpose()?;
    Ok(first.and_then(|(key, _)| Place::from_key(&key)).map(|(_, place)| place.created()))
}

/// Hands out up to `limit` entries. Blocking.
pub(super) fn take(
    database: &Database,
    tenant: TenantId,
    of: &Queue,
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
    of: &'a Queue,
    limit: usize,
    now: Timestamp,
    taken: Taken,
}

impl Take<'_> {
    fn all(&mut self) -> Result<(), StoreError> {
        let scan = {
            let mut book = self.of.book();
            book.wake(self.now);
            book.deferred.needs_scan()
        };
        if scan {
            self.scan_deferred()?;
            self.of.book().wake(self.now);
        }
        self.early()?;
        self.old_and_urgent()?;
        self.in_turn()
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.taken.entries.len())
    }

    /// The urgent ones that the order of creation does not lead to.
    fn early(&mut self) -> Result<(), StoreError> {
        let horizon = book::urgent_horizon(self.now);
        let mut last = None;
        while self.room() > 0 {
            let next = self.of.book().early_after(last, horizon, self.now);
            let Some((_, place)) = next else { break };
            last = next;
            // It may turn out to be deferred, which memory had no room for, or has forgotten because its time had come
            // before the clock was set back: then it is the next one's turn.
            self.hand_out(place)?;
        }
        Ok(())
    }

    /// The urgent ones at the old end, oldest first.
    fn old_and_urgent(&mut self) -> Result<(), StoreError> {
        let last = book::last_urgent_creation(self.now);
        let Some(mut rows) = self.between_edges()? else { return self.ready_and_urgent(None, last) };
        let mut contiguous = true;
        while self.room() > 0 {
            let Some((key, value)) = rows.next().transpose()? else { break };
            let Some((_, place)) = Place::from_key(&key) else { continue };
            if place.created() > last {
                break;
            }
            if self.passes(place, true, contiguous) {
                continue;
            }
            contiguous = false;
            self.ready_and_urgent(Some(place), last)?;
            if self.room() > 0 && self.is_urgent(&value) {
                self.hand_out(place)?;
            }
        }
        self.ready_and_urgent(None, last)
    }

    /// The urgent ones of those that no scan needs to look for, up to a place.
    fn ready_and_urgent(&mut self, before: Option<Place>, last: Timestamp) -> Result<(), StoreError> {
        let mut after = None;
        while self.room() > 0 {
            let next = self.of.book().ready_after(after);
            let Some(place) = next else { break };
            if place.created() > last || before.is_some_and(|before| place >= before) {
                break;
            }
            after = Some(place);
            let urgent = self.database.get(place.key(self.tenant))?.is_some_and(|value| self.is_urgent(&value));
            if urgent {
                self.hand_out(place)?;
            }
        }
        Ok(())
    }

    /// The newest and the oldest in turn.
    fn in_turn(&mut self) -> Result<(), StoreError> {
        while self.room() > 0 {
            let oldest = self.of.book().oldest_is_next();
            let found = self.next_between(oldest)?;
            let ready = self.of.book().ready(oldest);
            let place = match (found, ready) {
                (Some(found), Some(ready)) if oldest => found.min(ready),
                (Some(found), Some(ready)) => found.max(ready),
                (Some(place), None) | (None, Some(place)) => place,
                (None, None) => break,
            };
            if self.hand_out(place)? {
                self.of.book().turn();
            } else if found == Some(place) {
                // Deferred, which memory had no room for, or removed: it is not looked at again.
                self.of.book().advance(oldest, place);
            }
        }
        Ok(())
    }

    /// What an entry says that cannot be understood is handed out, and so found out.
    fn is_urgent(&self, value: &[u8]) -> bool {
        let horizon = book::urgent_horizon(self.now);
        records::decode_entry(value).map_or(true, |entry| entry.blob.content_expiration < horizon)
    }

    /// The entries that only a scan finds; `None` if the edges have met.
    fn between_edges(&self) -> Result<Option<Rows>, StoreError> {
        let (front, back) = self.of.book().edges();
        if let (Some(front), Some(back)) = (front, back)
            && front >= back
        {
            return Ok(None);
        }
        let first = match front {
            Some(place) => Bound::Excluded(place.key(self.tenant)),
            None => Bound::Included(keys::queue(self.tenant, self.of.again)),
        };
        let last = match back {
            Some(place) => Bound::Excluded(place.key(self.tenant)),
            None => Bound::Included(keys::after_queue(self.tenant, self.of.again)),
        };
        self.database.range((first, last)).map(Some)
    }

    /// The oldest or the newest entry between the edges that may be handed out.
    fn next_between(&self, oldest: bool) -> Result<Option<Place>, StoreError> {
        let Some(mut rows) = self.between_edges()? else { return Ok(None) };
        while let Some(row) = if oldest { rows.next() } else { rows.next_back() } {
            let (key, _) = row?;
            if let Some((_, place)) = Place::from_key(&key)
                && !self.passes(place, oldest, true)
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Whether a scan passes an entry by; if so, and if it has passed all before, the edge follows.
    fn passes(&self, place: Place, from_front: bool, contiguous: bool) -> bool {
        let mut book = self.of.book();
        let passes = !book.is_free(&place, self.now);
        if passes && contiguous {
            book.advance(from_front, place);
        }
        passes
    }

    /// Marks an entry and reads it; false if it is not to be handed out after all.
    fn hand_out(&mut self, place: Place) -> Result<bool, StoreError> {
        if !self.of.book().hand_out(place, self.now) {
            return Ok(false);
        }
        let value = match self.database.get(place.key(self.tenant)) {
            Ok(value) => value,
            Err(error) => {
                self.of.book().take_back(place, None);
                return Err(error);
            }
        };
        match value.map(|value| records::decode_entry(&value)) {
            Some(Ok(entry)) if entry.not_before.is_none_or(|until| is_due(until, self.now)) => {
                self.taken.entries.push(QueueEntry { again: place.again, ..entry });
                Ok(true)
            }
            // Deferred, which memory had no room for.
            Some(Ok(entry)) => {
                self.of.book().take_back(place, entry.not_before);
                Ok(false)
            }
            Some(Err(error)) => {
                tracing::error!(
                    message_id = event::STORE_DAMAGED,
                    tenant = %self.tenant,
                    created = %place.created(),
                    %error,
                    "a queue entry cannot be understood and is removed; the next sweep lists it again"
                );
                self.taken.unreadable.push(place);
                Ok(false)
            }
            None => {
                self.of.book().clear(&place);
                Ok(false)
            }
        }
    }

    /// Finds the deferred entries that memory had no room for.
    fn scan_deferred(&self) -> Result<(), StoreError> {
        self.of.book().deferred.begin_scan();
        let mut first = BinaryHeap::new();
        let mut cut = None;
        let most = self.of.book().remembered();
        let scanned = self.each_deferred(|until, place| {
            first.push((until, place));
            if first.len() > most {
                cut = first.pop().map(|(until, _)| until).into_iter().chain(cut).min();
            }
        });
        let mut book = self.of.book();
        if scanned.is_err() {
            // Nothing is known of them any more: the next call scans again.
            cut = Some(self.now);
        }
        for (until, place) in first {
            if !book.is_out(&place) {
                book.deferred.insert_scanned(place, until);
            }
        }
        if let Some(cut) = cut {
            book.deferred.end_at(cut);
        }
        scanned
    }

    /// Offers the entries whose time has come, and calls for those that are deferred, unless they are handed out.
    fn each_deferred(&self, mut call: impl FnMut(Timestamp, Place)) -> Result<(), StoreError> {
        for row in self.database.scan_prefix(keys::queue(self.tenant, self.of.again))? {
            let (key, value) = row?;
            let Some((_, place)) = Place::from_key(&key) else { continue };
            let Ok(QueueEntry { not_before: Some(until), .. }) = records::decode_entry(&value) else { continue };
            let mut book = self.of.book();
            if book.is_out(&place) {
                continue;
            }
            if !is_due(until, self.now) {
                call(until, place);
            } else if book.deferred.time(&place).is_none() {
                book.offer(place);
            }
        }
        Ok(())
    }
}
