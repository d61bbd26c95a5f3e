//! The process's slots for retrieving blobs, shared fairly among tenants.
//!
//! A free slot goes to the waiting tenant that holds the fewest; among equals to the one that got a slot the longest
//! ago, which is round-robin. A retrieval looks between two chunks whether it should make way, so a tenant that has
//! taken all slots while it was alone gives up what is more than its share as soon as another one waits.
//! A retrieval that receives nothing for [`STALLED`] gives its slot back and takes one again when bytes arrive:
//! a service that stalls one tenant's answers stalls that tenant only.
//!
//! Slots can be closed, when what is retrieved would find no room. Then no retrieval begins; those that have begun go on
//! to their end, and get back the slot that they gave away.
//!
//! **Invariants:** never more slots are held than there are; a slot whose holder ends, fails, panics or is cancelled
//! is free at once; nobody waits while a slot is free and may be given out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::content::TenantId;

/// A retrieval that receives nothing for this long gives its slot back.
pub const STALLED: Duration = Duration::from_secs(2);

/// All slots of the process; clones share them.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    total: usize,
    held: usize,
    /// No retrieval begins.
    closed: bool,
    /// Tenants that hold slots or wait for one.
    tenants: BTreeMap<TenantId, Account>,
    /// Counts the slots given out.
    given: u64,
}

#[derive(Debug, Default)]
struct Account {
    held: usize,
    waiting: VecDeque<Waiting>,
    /// The value of [`Books::given`] when the tenant last got a slot.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    sender: oneshot::Sender<Slot>,
    /// It has held a slot before.
    has_begun: bool,
}

/// The right to retrieve one blob, returned when dropped.
#[derive(Debug)]
struct Slot {
    slots: Slots,
    tenant: TenantId,
}

impl Slots {
    /// As many slots as blobs may be retrieved at a time.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Mutex::new(Books {
            total: total.max(1),
            held: 0,
            closed: false,
            tenants: BTreeMap::new(),
            given: 0,
        })))
    }

    /// Changes their number. What is held stays held; the surplus is not given out again.
    pub fn resize(&self, total: usize) {
        self.books().total = total.max(1);
        self.give_out();
    }

    /// No retrieval begins any more. What has begun goes on.
    pub fn close(&self) {
        self.books().closed = true;
    }

    /// Retrievals begin again.
    pub fn open(&self) {
        self.books().closed = false;
        self.give_out();
    }

    /// A place to hold one of `tenant`'s slots, empty at first.
    #[must_use]
    pub fn place(&self, tenant: TenantId) -> Place {
        Place { slots: self.clone(), tenant, slot: None, has_begun: false }
    }

    async fn acquire(&self, tenant: TenantId, has_begun: bool) -> Slot {
        loop {
            let (sender, receiver) = oneshot::channel();
            self.books().tenants.entry(tenant).or_default().waiting.push_back(Waiting { sender, has_begun });
            self.give_out();
            // The sender is dropped only with the books themselves, which `self` keeps.
            if let Ok(slot) = receiver.await {
                return slot;
            }
        }
    }

    /// Gives free slots to those that wait.
    fn give_out(&self) {
        loop {
            let next = self.books().take_next();
            let Some((tenant, waiting)) = next else { return };
            // A receiver that is gone drops the slot, which gives it out again: the books must not be locked here.
            drop(waiting.sender.send(Slot { slots: self.clone(), tenant }));
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Books a free slot for the tenant whose turn it is.
    fn take_next(&mut self) -> Option<(TenantId, Waiting)> {
        if self.held >= self.total {
            return None;
        }
        let closed = self.closed;
        loop {
            let (tenant, account, at) = self
                .tenants
                .iter_mut()
                .filter_map(|(tenant, account)| {
                    let at = account.waiting.iter().position(|waiting| waiting.may_go_on(closed))?;
                    Some((*tenant, account, at))
                })
                .min_by_key(|(_, account, _)| (account.held, account.last))?;
            let Some(waiting) = account.waiting.remove(at) else { continue };
            if waiting.sender.is_closed() {
                // Cancelled while it waited.
                self.forget_if_idle(tenant);
                continue;
            }
            self.given += 1;
            account.held += 1;
            account.last = self.given;
            self.held += 1;
            return Some((tenant, waiting));
        }
    }

    fn put_back(&mut self, tenant: TenantId) {
        self.held -= 1;
        if let Some(account) = self.tenants.get_mut(&tenant) {
            account.held -= 1;
        }
        self.forget_if_idle(tenant);
    }

    fn forget_if_idle(&mut self, tenant: TenantId) {
        if self.tenants.get(&tenant).is_some_and(|account| account.held == 0 && account.waiting.is_empty()) {
            self.tenants.remove(&tenant);
        }
    }

    /// Whether `tenant` holds more than its share while another one waits: at least two more than one that waits,
    /// so that a slot that changes hands makes things more even and not merely different.
    fn must_make_way(&self, tenant: TenantId) -> bool {
        let held = self.tenants.get(&tenant).map_or(0, |account| account.held);
        let waits = |waiting: &Waiting| !waiting.sender.is_closed() && waiting.may_go_on(self.closed);
        held > 1
            && self.tenants.iter().any(|(other, account)| {
                *other != tenant && account.held + 1 < held && account.waiting.iter().any(waits)
            })
    }
}

impl Waiting {
    fn may_go_on(&self, closed: bool) -> bool {
        !closed || self.has_begun
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.books().put_back(self.tenant);
        self.slots.give_out();
    }
}

/// Where one retrieval holds its slot, while it has one.
#[derive(Debug)]
pub struct Place {
    slots: Slots,
    tenant: TenantId,
    slot: Option<Slot>,
    /// It has held a slot.
    has_begun: bool,
}

impl Place {
    /// Takes a slot unless it holds one.
    pub async fn take(&mut self) {
        if self.slot.is_none() {
            self.slot = Some(self.slots.acquire(self.tenant, self.has_begun).await);
            self.has_begun = true;
        }
    }

    /// Whether it holds one.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.slot.is_some()
    }

    /// Gives the slot back.
    pub fn give_back(&mut self) {
        self.slot = None;
    }

    /// Makes way for a tenant that holds less, and waits for its turn again.
    pub async fn make_way(&mut self) {
        if self.slot.is_some() && self.slots.books().must_make_way(self.tenant) {
            self.give_back();
            self.take().await;
        }
    }

    /// Runs one step of the retrieval; if it takes longer than [`STALLED`], the slot is given back meanwhile. The
    /// caller takes one again for what it does with the outcome.
    pub async fn during<F: Future>(&mut self, step: F) -> F::Output {
        tokio::pin!(step);
        if let Ok(output) = tokio::time::timeout(STALLED, &mut step).await {
            return output;
        }
        self.give_back();
        step.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn tenant(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    fn held(slots: &Slots, number: u8) -> usize {
        slots.books().tenants.get(&tenant(number)).map_or(0, |account| account.held)
    }

    async fn taken(slots: &Slots, number: u8) -> Place {
        let mut place = slots.place(tenant(number));
        place.take().await;
        place
    }

    /// A tenant with endless work: `many` retrievals at a time, each of ten chunks, a chunk a second.
    fn busy(slots: &Slots, number: u8, many: usize, done: &Arc<AtomicUsize>) {
        for _ in 0..many {
            let (slots, done) = (slots.clone(), Arc::clone(done));
            tokio::spawn(async move {
                loop {
                    let mut place = taken(&slots, number).await;
                    for _ in 0..10 {
                        place.during(sleep(Duration::from_secs(1))).await;
                        place.take().await;
                        place.make_way().await;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_slot_goes_to_the_tenant_that_holds_the_fewest() {
        let slots = Slots::new(2);
        let (first, second) = (taken(&slots, 1).await, taken(&slots, 1).await);
        let waiting_long = tokio::spawn({
            let slots = slots.clone();
            async move { taken(&slots, 1).await }
        });
        sleep(MOMENT).await;
        let waiting_short = tokio::spawn({
            let slots = slots.clone();
            async move { taken(&slots, 2).await }
        });
        sleep(MOMENT).await;
        drop(first);
        let _of_two = waiting_short.await.unwrap();
        assert!(!waiting_long.is_finished());
        drop(second);
        waiting_long.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_gives_way_to_its_share_as_soon_as_others_wait() {
        let slots = Slots::new(8);
        let done: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        busy(&slots, 1, 50, &done[0]);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(held(&slots, 1), 8, "alone, it may use all");
        busy(&slots, 2, 50, &done[1]);
        busy(&slots, 3, 1, &done[2]);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(held(&slots, 3), 1, "one that wants little has it at once");
        let (one, two) = (held(&slots, 1), held(&slots, 2));
        assert!(one.abs_diff(two) <= 1 && one + two == 7, "{one} and {two}");
        let before: Vec<_> = done.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        sleep(Duration::from_secs(1000)).await;
        let rate: Vec<_> = done.iter().zip(before).map(|(count, b)| count.load(Ordering::Relaxed) - b).collect();
        assert!(rate[2] >= 95, "{rate:?}");
        assert!(rate[0].abs_diff(rate[1]) <= 100, "seven slots for two: they differ by one slot's work, {rate:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_retrieval_holds_no_slot() {
        let slots = Slots::new(1);
        tokio::spawn({
            let slots = slots.clone();
            async move {
                let mut place = taken(&slots, 1).await;
                place.during(sleep(Duration::from_mins(1))).await;
                place.take().await;
                sleep(Duration::from_mins(1)).await;
            }
        });
        sleep(MOMENT).await;
        let start = Instant::now();
        let other = taken(&slots, 2).await;
        assert!(start.elapsed() <= STALLED);
        sleep(Duration::from_mins(1)).await;
        assert_eq!(held(&slots, 1), 0, "it waits for a slot when bytes arrive");
        drop(other);
        sleep(MOMENT).await;
        assert_eq!(held(&slots, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_and_panicking_holders_leave_no_trace() {
        let slots = Slots::new(1);
        let place = taken(&slots, 1).await;
        // Cancelled while waiting, and after the slot was sent but before it was received.
        assert!(timeout(MOMENT, taken(&slots, 2)).await.is_err());
        {
            let mut late = Box::pin(taken(&slots, 3));
            assert!(futures_util::poll!(&mut late).is_pending());
            drop(place);
            assert_eq!(held(&slots, 3), 1, "granted");
        }
        let panicking = tokio::spawn({
            let slots = slots.clone();
            async move {
                let _place = taken(&slots, 4).await;
                panic!("on purpose");
            }
        });
        assert!(panicking.await.unwrap_err().is_panic());
        let _last = taken(&slots, 5).await;
        let books = slots.books();
        assert_eq!((books.held, books.tenants.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn resizing_takes_effect_as_slots_come_back() {
        let slots = Slots::new(1);
        let first = taken(&slots, 1).await;
        slots.resize(2);
        let second = taken(&slots, 1).await;
        slots.resize(1);
        drop(first);
        assert!(timeout(MOMENT, taken(&slots, 2)).await.is_err());
        drop(second);
        taken(&slots, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_closed_what_has_begun_goes_on_and_nothing_begins() {
        let slots = Slots::new(1);
        let mut begun = taken(&slots, 1).await;
        slots.close();
        slots.resize(2);
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { taken(&slots, 1).await }
        });
        let other = tokio::spawn({
            let slots = slots.clone();
            async move { taken(&slots, 2).await }
        });
        // It stalls, and gives its slot away meanwhile.
        begun.during(sleep(Duration::from_secs(5))).await;
        assert!(!begun.is_taken());
        timeout(MOMENT, begun.take()).await.expect("what has begun gets its slot back");
        begun.make_way().await;
        assert!(begun.is_taken());
        drop(begun);
        sleep(MOMENT).await;
        assert!(!waiting.is_finished() && !other.is_finished());
        // Whoever gives up waiting leaves no trace.
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        slots.open();
        drop(timeout(MOMENT, other).await.expect("all begins again").unwrap());
        // The cancelled one was looked at by now.
        drop(taken(&slots, 1).await);
        let books = slots.books();
        assert_eq!((books.held, books.tenants.len()), (0, 0));
    }
}
