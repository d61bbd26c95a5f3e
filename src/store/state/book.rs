//! What is kept in memory of a tenant's queue: counts, bounds, and which entries are not to be handed out now.
//!
//! The queue itself is in the database. A [`Book`] is rebuilt from it by one scan, and none of it grows with the
//! queue: entries handed out are as many as there are retrievals under way, and of the deferred and of those that
//! expire early only the first [`REMEMBERED`] are kept; the others are found by scanning.
//!
//! Nothing here does I/O or asks for the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::super::{QueueDepth, QueueEntry};
use super::keys::Place;

/// How many deferred, and how many early entries of a tenant are kept in memory.
pub(super) const REMEMBERED: usize = 10_000;

/// Entries that expire within this time go first.
pub(super) const URGENT: SignedDuration = SignedDuration::from_hours(24);

/// Content lives seven days as a rule ("List available content", activity API reference). What lives at least this
/// long expires in the order in which it was created, or nearly; what does not is *early*, and remembered as such.
const USUAL_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24 - 1);

/// A tenant's queue, as far as it is in memory.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Entries in the database.
    pub(super) entries: u64,
    /// The earliest creation among them.
    pub(super) oldest: Option<Timestamp>,
    /// Handed out, or on their way out of the queue: not to be handed out (again).
    out: HashSet<Place>,
    /// Those of them that are done with, but not yet removed.
    completing: HashSet<Place>,
    /// Whose turn it is after the urgent ones: the newest entry's or the oldest's.
    oldest_next: bool,
    pub(super) deferred: Timed,
    early: Timed,
}

impl Book {
    /// Counts an entry that is in the database now.
    pub(super) fn add(&mut self, place: Place, entry: &QueueEntry) {
        self.entries += 1;
        let created = place.created();
        self.oldest = Some(self.oldest.map_or(created, |oldest| oldest.min(created)));
        if let Some(until) = entry.not_before {
            self.deferred.insert(place, until);
        }
        if is_early(entry) {
            self.early.insert(place, entry.blob.content_expiration);
        }
    }

    /// Forgets an entry that is no longer in the database. Says whether it may have been the oldest.
    pub(super) fn remove(&mut self, place: &Place) -> bool {
        self.entries = self.entries.saturating_sub(1);
        self.clear(place);
        self.deferred.remove(place);
        self.early.remove(place);
        self.oldest.is_some_and(|oldest| place.created() <= oldest)
    }

    /// Marks an entry as handed out; false if it is already.
    pub(super) fn hand_out(&mut self, place: Place) -> bool {
        let free = self.out.insert(place);
        if free {
            self.deferred.remove(&place);
        }
        free
    }

    /// Takes an entry back.
    pub(super) fn take_back(&mut self, place: Place, not_before: Option<Timestamp>) {
        if self.completing.contains(&place) {
            return;
        }
        self.out.remove(&place);
        if let Some(until) = not_before {
            self.deferred.insert(place, until);
        }
    }

    /// Takes back all that is handed out, and says how many that were.
    pub(super) fn take_all_back(&mut self) -> usize {
        let before = self.out.len();
        self.out.retain(|place| self.completing.contains(place));
        before - self.out.len()
    }

    /// The entry is done with and will be removed; false if that is known already.
    pub(super) fn complete(&mut self, place: Place) -> bool {
        self.out.insert(place);
        self.deferred.remove(&place);
        self.completing.insert(place)
    }

    /// Forgets the marks of an entry, whatever they are.
    pub(super) fn clear(&mut self, place: &Place) {
        self.out.remove(place);
        self.completing.remove(place);
    }

    /// Whether an entry may be handed out at `now`, as far as memory says.
    pub(super) fn is_free(&self, place: &Place, now: Timestamp) -> bool {
        !self.out.contains(place) && self.deferred.time(place).is_none_or(|until| until <= now)
    }

    /// Up to `limit` early entries that expire before `horizon` and may be handed out at `now`, soonest first.
    pub(super) fn early_before(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Vec<Place> {
        let expiring = self.early.order.iter().take_while(|(expires, _)| *expires < horizon);
        expiring.map(|(_, place)| *place).filter(|place| self.is_free(place, now)).take(limit).collect()
    }

    /// Whether the next of those that are not urgent is the oldest.
    pub(super) const fn oldest_is_next(&self) -> bool {
        self.oldest_next
    }

    /// It was somebody's turn.
    pub(super) const fn turn(&mut self) {
        self.oldest_next = !self.oldest_next;
    }

    pub(super) fn depth(&self) -> QueueDepth {
        let entries = self.entries.saturating_sub(self.completing.len() as u64);
        QueueDepth { entries, oldest: self.oldest.filter(|_| entries > 0) }
    }

    /// Takes over what only memory knows from the book before a failed write.
    pub(super) fn inherit(&mut self, before: &Self) {
        for place in &before.out {
            self.hand_out(*place);
        }
        self.completing.clone_from(&before.completing);
        self.oldest_next = before.oldest_next;
    }
}

/// Whether the order of creation does not lead to this entry in time.
fn is_early(entry: &QueueEntry) -> bool {
    entry.blob.content_expiration.duration_since(entry.blob.content_created) < USUAL_LIFE
}

/// Entries created after this are urgent only if they are early.
pub(super) fn last_urgent_creation(now: Timestamp) -> Timestamp {
    now.checked_add(URGENT).and_then(|horizon| horizon.checked_sub(USUAL_LIFE)).unwrap_or(Timestamp::MIN)
}

/// What expires before this is urgent.
pub(super) fn urgent_horizon(now: Timestamp) -> Timestamp {
    now.checked_add(URGENT).unwrap_or(Timestamp::MAX)
}

/// Entries by a time of theirs: those whose time comes first, at most [`REMEMBERED`] of them.
#[derive(Debug, Default)]
pub(super) struct Timed {
    times: BTreeMap<Place, Timestamp>,
    order: BTreeSet<(Timestamp, Place)>,
    /// Some are not kept; none of their times comes before this.
    beyond: Option<Timestamp>,
}

impl Timed {
    pub(super) fn insert(&mut self, place: Place, time: Timestamp) {
        self.remove(&place);
        if self.beyond.is_some_and(|beyond| time >= beyond) {
            return;
        }
        self.times.insert(place, time);
        self.order.insert((time, place));
        if self.order.len() > REMEMBERED
            && let Some((time, place)) = self.order.pop_last()
        {
            self.times.remove(&place);
            self.beyond = Some(time);
        }
    }

    /// As [`insert`](Self::insert), unless a newer time is known already.
    pub(super) fn insert_scanned(&mut self, place: Place, time: Timestamp) {
        if !self.times.contains_key(&place) {
            self.insert(place, time);
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        if let Some(time) = self.times.remove(place) {
            self.order.remove(&(time, *place));
        }
    }

    /// An entry's time, if it is kept.
    pub(super) fn time(&self, place: &Place) -> Option<Timestamp> {
        self.times.get(place).copied()
    }

    /// The first time; never later than the true one.
    pub(super) fn first(&self) -> Option<Timestamp> {
        let kept = self.order.first().map(|(time, _)| *time);
        kept.into_iter().chain(self.beyond).min()
    }

    /// Whether the first is not kept: only a scan can tell.
    pub(super) fn needs_scan(&self) -> bool {
        self.beyond.is_some_and(|beyond| self.order.first().is_none_or(|(time, _)| *time > beyond))
    }

    /// A scan begins: what is not kept will be told by it.
    pub(super) const fn begin_scan(&mut self) {
        self.beyond = None;
    }

    /// The scan did not come to its end: there may be some at any time from `now` on.
    pub(super) fn scan_failed(&mut self, now: Timestamp) {
        self.beyond = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn place(n: u32) -> Place {
        Place::of(at(i64::from(n)), &format!("blob-{n}").into())
    }

    #[test]
    fn only_the_first_deferred_are_kept_and_a_scan_finds_the_rest() {
        let mut deferred = Timed::default();
        let all: Vec<(Place, Timestamp)> =
            (0..12_000_u32).map(|n| (place(n), at(i64::from((n * 7_919) % 12_000)))).collect();
        for (place, until) in &all {
            deferred.insert(*place, *until);
        }
        assert_eq!(deferred.times.len(), REMEMBERED);
        for second in 0..10_000 {
            assert_eq!(deferred.first(), Some(at(second)));
            let (_, first) = *deferred.order.first().unwrap();
            deferred.remove(&first);
        }
        assert!(deferred.needs_scan());
        assert_eq!(deferred.first(), Some(at(10_000)));
        deferred.begin_scan();
        for (place, until) in all.iter().filter(|(_, until)| *until >= at(10_000)) {
            deferred.insert_scanned(*place, *until);
        }
        assert!(!deferred.needs_scan());
        assert_eq!((deferred.times.len(), deferred.first()), (2_000, Some(at(10_000))));
    }

    proptest! {
        /// Whatever happens, memory never names a later first time than the true one.
        #[test]
        fn the_first_deferred_is_never_told_too_late(
            steps in proptest::collection::vec((0_u32..30, 0_i64..50, any::<bool>()), 0..200),
        ) {
            let mut deferred = Timed::default();
            let mut truth = BTreeMap::new();
            for (n, until, insert) in steps {
                if insert {
                    deferred.insert(place(n), at(until));
                    truth.insert(n, at(until));
                } else {
                    deferred.remove(&place(n));
                    truth.remove(&n);
                }
                prop_assert_eq!(deferred.first(), truth.values().min().copied());
                prop_assert_eq!(deferred.times.len(), deferred.order.len());
            }
        }
    }

    #[test]
    fn an_entry_that_is_done_with_is_not_taken_back() {
        let mut book = Book::default();
        book.entries = 2;
        assert!(book.hand_out(place(1)) && !book.hand_out(place(1)));
        assert!(book.complete(place(1)) && !book.complete(place(1)));
        assert_eq!(book.depth().entries, 1);
        book.take_back(place(1), Some(at(5)));
        assert!(!book.is_free(&place(1), at(9)));
        assert_eq!(book.deferred.first(), None);
        assert!(book.hand_out(place(2)));
        assert_eq!(book.take_all_back(), 1);
        assert!(book.is_free(&place(2), at(9)) && !book.is_free(&place(1), at(9)));
    }
}
