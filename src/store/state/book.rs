//! What is kept in memory of a tenant's queue: counts, bounds, and which entries are not to be handed out now.
//!
//! The queue itself is in the database. A [`Book`] is rebuilt from it by one scan, and none of it grows with the
//! queue: entries handed out are as many as there are retrievals under way, and of the others only so many of a kind
//! are kept ([`REMEMBERED`] unless told otherwise); the rest is found by scanning.
//!
//! So that a tenant all of whose retrievals fail does not have its whole queue read again and again, the book knows two
//! *edges*. An entry at or outside an edge is handed out, or deferred, or [`ready`](Book::ready): no scan needs to look
//! there. Between the edges entries are as the database has them.
//!
//! Nothing here does I/O or asks for the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use jiff::{SignedDuration, Timestamp};

use super::super::{QueueDepth, QueueEntry, is_due};
use super::keys::Place;

/// How many deferred, how many ready and how many early entries of a tenant are kept in memory.
pub(super) const REMEMBERED: usize = 10_000;

/// Entries that expire within this time go first.
pub(super) const URGENT: SignedDuration = SignedDuration::from_hours(24);

/// Content lives seven days as a rule ("List available content", activity API reference). What lives at least this
/// long expires in the order in which it was created, or nearly; what does not is *early*, and remembered as such.
const USUAL_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24 - 1);

/// A tenant's queue, as far as it is in memory.
#[derive(Debug)]
pub(super) struct Book {
    /// How many of a kind are kept.
    remembered: usize,
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
    /// Entries at or outside the edges that may be handed out.
    ready: BTreeSet<Place>,
    /// The edge at the old end.
    front: Option<Place>,
    /// The edge at the new end.
    back: Option<Place>,
}

impl Book {
    /// The book of an empty queue, which keeps `remembered` entries of a kind.
    pub(super) fn new(remembered: usize) -> Self {
        Self {
            remembered,
            entries: 0,
            oldest: None,
            out: HashSet::new(),
            completing: HashSet::new(),
            oldest_next: false,
            deferred: Timed::new(remembered),
            early: Timed::new(REMEMBERED),
            ready: BTreeSet::new(),
            front: None,
            back: None,
        }
    }

    /// How many entries of a kind are kept.
    pub(super) const fn remembered(&self) -> usize {
        self.remembered
    }

    /// Counts an entry that is in the database now.
    pub(super) fn add(&mut self, place: Place, entry: &QueueEntry) {
        self.entries += 1;
        let created = place.created();
        self.oldest = Some(self.oldest.map_or(created, |oldest| oldest.min(created)));
        match entry.not_before {
            Some(until) => self.deferred.insert(place, until),
            None => self.offer(place),
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
        self.ready.remove(place);
        self.early.remove(place);
        self.oldest.is_some_and(|oldest| place.created() <= oldest)
    }

    /// Marks an entry as handed out, unless memory says that it is not to be.
    pub(super) fn hand_out(&mut self, place: Place, now: Timestamp) -> bool {
        self.ready.remove(&place);
        let free = self.is_free(&place, now);
        if free {
            self.deferred.remove(&place);
            self.out.insert(place);
        }
        free
    }

    /// Takes an entry back.
    pub(super) fn take_back(&mut self, place: Place, not_before: Option<Timestamp>) {
        if self.completing.contains(&place) {
            return;
        }
        self.out.remove(&place);
        match not_before {
            Some(until) => self.deferred.insert(place, until),
            None => self.offer(place),
        }
    }

    /// An entry has another address now: it is due, unless it is handed out.
    pub(super) fn readdress(&mut self, place: Place, not_before: Option<Timestamp>) {
        if !self.is_out(&place) {
            self.take_back(place, not_before);
        }
    }

    /// Takes back all that is handed out, and says how many that were.
    pub(super) fn take_all_back(&mut self) -> usize {
        let (stay, back): (HashSet<_>, HashSet<_>) =
            self.out.drain().partition(|place| self.completing.contains(place));
        self.out = stay;
        for place in &back {
            self.offer(*place);
        }
        back.len()
    }

    /// Makes sure that an entry which may be handed out is found.
    pub(super) fn offer(&mut self, place: Place) {
        let between = self.front.is_none_or(|front| place > front) && self.back.is_none_or(|back| place < back);
        if between {
            return;
        }
        self.ready.insert(place);
        if self.ready.len() > self.remembered {
            self.ready.clear();
            self.front = None;
            self.back = None;
        }
    }

    /// What was deferred and is due may be handed out.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(place) = self.deferred.pop_due(now) {
            self.offer(place);
        }
    }

    /// The first and the last place between which a scan must look; both are outside.
    pub(super) const fn edges(&self) -> (Option<Place>, Option<Place>) {
        (self.front, self.back)
    }

    /// A scan from this end has come to an entry that is not to be handed out: it need not look there again.
    pub(super) fn advance(&mut self, from_front: bool, place: Place) {
        if from_front {
            self.front = self.front.max(Some(place));
        } else {
            self.back = Some(self.back.map_or(place, |back| back.min(place)));
        }
    }

    /// The oldest or the newest of those that no scan needs to look for.
    pub(super) fn ready(&self, oldest: bool) -> Option<Place> {
        if oldest { self.ready.first().copied() } else { self.ready.last().copied() }
    }

    /// The next of them after a place.
    pub(super) fn ready_after(&self, place: Option<Place>) -> Option<Place> {
        match place {
            Some(place) => self.ready.range((Bound::Excluded(place), Bound::Unbounded)).next().copied(),
            None => self.ready.first().copied(),
        }
    }

    /// The entry is done with and will be removed; false if that is known already.
    pub(super) fn complete(&mut self, place: Place) -> bool {
        self.out.insert(place);
        self.deferred.remove(&place);
        self.ready.remove(&place);
        self.completing.insert(place)
    }

    /// Forgets the marks of an entry, whatever they are.
    pub(super) fn clear(&mut self, place: &Place) {
        self.out.remove(place);
        self.completing.remove(place);
    }

    /// Whether an entry is handed out, or on its way out of the queue.
    pub(super) fn is_out(&self, place: &Place) -> bool {
        self.out.contains(place)
    }

    /// Whether an entry may be handed out at `now`, as far as memory says: the database may say that it is deferred.
    pub(super) fn is_free(&self, place: &Place, now: Timestamp) -> bool {
        !self.out.contains(place) && self.deferred.time(place).is_none_or(|until| is_due(until, now))
    }

    /// The next early entry after this one, by its expiry, that expires before `horizon` and may be handed out at `now`,
    /// as far as memory says.
    pub(super) fn early_after(
        &self,
        last: Option<(Timestamp, Place)>,
        horizon: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, Place)> {
        let first = last.map_or(Bound::Unbounded, Bound::Excluded);
        let expiring = self.early.order.range((first, Bound::Unbounded)).take_while(|(expires, _)| *expires < horizon);
        expiring.copied().find(|(_, place)| self.is_free(place, now))
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
            self.out.insert(*place);
            self.deferred.remove(place);
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

/// Entries by a time of theirs: so many of those whose time comes first.
#[derive(Debug)]
pub(super) struct Timed {
    most: usize,
    times: BTreeMap<Place, Timestamp>,
    order: BTreeSet<(Timestamp, Place)>,
    /// Some are not kept; none of their times comes before this.
    beyond: Option<Timestamp>,
}

impl Timed {
    fn new(most: usize) -> Self {
        Self { most, times: BTreeMap::new(), order: BTreeSet::new(), beyond: None }
    }

    pub(super) fn insert(&mut self, place: Place, time: Timestamp) {
        self.remove(&place);
        if self.beyond.is_some_and(|beyond| time >= beyond) {
            return;
        }
        self.times.insert(place, time);
        self.order.insert((time, place));
        if self.order.len() > self.most
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

    /// Removes one that is due: the first, or the last if its time is beyond belief.
    fn pop_due(&mut self, now: Timestamp) -> Option<Place> {
        let ends = [self.order.first(), self.order.last()];
        let (time, place) = *ends.into_iter().flatten().find(|(time, _)| is_due(*time, now))?;
        self.order.remove(&(time, place));
        self.times.remove(&place);
        Some(place)
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

    /// Some were not told, none of them before `time`.
    pub(super) fn end_at(&mut self, time: Timestamp) {
        self.beyond = self.beyond.into_iter().chain([time]).min();
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
        let mut deferred = Timed::new(REMEMBERED);
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
            let mut deferred = Timed::new(8);
            let mut truth = BTreeMap::new();
            for (n, until, insert) in steps {
                if insert {
                    deferred.insert(place(n), at(until));
                    truth.insert(n, at(until));
                } else {
                    deferred.remove(&place(n));
                    truth.remove(&n);
                }
                let first = truth.values().min();
                prop_assert!(first.is_none_or(|first| deferred.first().is_some_and(|told| told <= *first)));
                prop_assert_eq!(deferred.times.len(), deferred.order.len());
                prop_assert!(deferred.order.len() <= 8);
                if !deferred.needs_scan() && !truth.is_empty() {
                    prop_assert_eq!(deferred.first(), truth.values().min().copied());
                }
            }
        }
    }

    #[test]
    fn an_entry_that_is_done_with_is_not_taken_back() {
        let mut book = Book { entries: 2, ..Book::new(REMEMBERED) };
        assert!(book.hand_out(place(1), at(0)) && !book.hand_out(place(1), at(0)));
        assert!(book.complete(place(1)) && !book.complete(place(1)));
        assert_eq!(book.depth().entries, 1);
        book.take_back(place(1), Some(at(5)));
        assert!(!book.is_free(&place(1), at(9)));
        assert_eq!(book.deferred.first(), None);
        assert!(book.hand_out(place(2), at(0)));
        assert_eq!(book.take_all_back(), 1);
        assert!(book.is_free(&place(2), at(9)) && !book.is_free(&place(1), at(9)));
    }

    #[test]
    fn what_comes_back_at_or_outside_an_edge_is_ready() {
        let mut book = Book::new(REMEMBERED);
        book.advance(true, place(10));
        book.advance(true, place(4));
        book.advance(false, place(20));
        assert_eq!(book.edges(), (Some(place(10)), Some(place(20))));
        book.take_back(place(10), None);
        book.take_back(place(15), None);
        book.take_back(place(3), Some(at(100)));
        assert_eq!((book.ready(true), book.ready(false)), (Some(place(10)), Some(place(10))));
        book.wake(at(99));
        assert_eq!(book.ready(true), Some(place(10)));
        book.wake(at(100));
        assert_eq!((book.ready(true), book.ready(false)), (Some(place(3)), Some(place(10))));
        assert_eq!((book.ready_after(None), book.ready_after(Some(place(3)))), (Some(place(3)), Some(place(10))));
        assert!(book.hand_out(place(3), at(100)));
        assert_eq!(book.ready(true), Some(place(10)));
    }

    #[test]
    fn more_ready_ones_than_memory_keeps_are_left_to_a_scan() {
        let mut book = Book::new(100);
        book.advance(true, place(50_000));
        for n in 0..=100_u32 {
            assert_eq!(book.ready.len(), n as usize);
            book.take_back(place(n), None);
        }
        assert_eq!((book.ready.len(), book.edges()), (0, (None, None)));
    }
}
