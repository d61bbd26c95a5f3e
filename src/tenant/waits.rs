//! The waits of one tenant that outlive the process, and which of them the store knows.
//!
//! They are written by the host's clock, since that is the one that the next process has when it starts, and with the
//! moment at which they were written, so that a clock that was set back makes no wait longer than it was. One that is
//! over is removed, so that no clock brings it back.
//!
//! **Invariant:** what is remembered here is durable; memory has at most one moment for each kind of wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::gate::LONGEST;
use super::plan::later;
use crate::clock::ServiceTime;
use crate::content::TenantId;
use crate::store::{Store, StoreError, Wait, WaitKey};

/// A wait is remembered for this much longer, so that others that end a moment later need not be written down.
const SPARE: Duration = Duration::from_millis(500);

/// Whose waits they are. Each has those that it writes and no others: what one takes for over, the other may have
/// written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The collection of audit records.
    Tree,
    /// The collection of health.
    Health,
}

impl Whose {
    fn has(self, key: &WaitKey) -> bool {
        (self == Self::Health) == (*key == WaitKey::Health)
    }
}

/// The remembered waits of one tenant.
#[derive(Debug)]
pub(super) struct Waits {
    tenant: TenantId,
    store: Store,
    time: Arc<ServiceTime>,
    of: Whose,
    /// Until when, as far as the store knows.
    known: Mutex<BTreeMap<WaitKey, Instant>>,
}

impl Waits {
    pub(super) fn new(tenant: TenantId, store: Store, time: Arc<ServiceTime>) -> Self {
        Self { tenant, store, time, of: Whose::Tree, known: Mutex::default() }
    }

    /// Those for Graph.
    pub(super) fn of_health(tenant: TenantId, store: Store, time: Arc<ServiceTime>) -> Self {
        Self { of: Whose::Health, ..Self::new(tenant, store, time) }
    }

    /// Reads what outlived the last process: how long each lasts yet.
    pub(super) async fn restore(&self) -> Result<BTreeMap<WaitKey, Duration>, StoreError> {
        let mut known = self.known.lock().await;
        let now = self.time.host();
        let mut all = BTreeMap::new();
        for (key, wait) in self.store.waits(self.tenant).await? {
            if !self.of.has(&key) {
                continue;
            }
            match wait.left(now) {
                Some(left) => {
                    let left = left.min(LONGEST);
                    known.insert(key.clone(), Instant::now() + left);
                    all.insert(key, left);
                }
                None => self.store.remember_wait(self.tenant, key, None).await?,
            }
        }
        Ok(all)
    }

    /// Until when a wait lasts, if it is not over.
    pub(super) async fn until(&self, key: &WaitKey) -> Option<Instant> {
        self.known.lock().await.get(key).copied().filter(|until| *until > Instant::now())
    }

    /// Remembers a wait from now on, in the place of one that may be there.
    pub(super) async fn remember(&self, key: WaitKey, wait: Duration) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        self.write(&mut known, key, wait).await
    }

    /// Remembers that a wait lasts until then, unless one that ends later is known. Who is told to wait together with
    /// others waits here while one of them writes for all.
    pub(super) async fn extend(&self, key: WaitKey, until: Instant) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        if known.get(&key).is_some_and(|known| *known >= until) {
            return Ok(());
        }
        self.write(&mut known, key, until.saturating_duration_since(Instant::now()) + SPARE).await
    }

    /// Forgets a wait.
    pub(super) async fn forget(&self, key: WaitKey) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        self.store.remember_wait(self.tenant, key.clone(), None).await?;
        known.remove(&key);
        Ok(())
    }

    /// Forgets those that are over, unless somebody is just writing one.
    pub(super) async fn forget_over(&self) {
        let Ok(mut known) = self.known.try_lock() else { return };
        let now = Instant::now();
        let over: Vec<_> = known.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        for key in over {
            known.remove(&key);
            // The next process sees by itself that it is over, unless its clock is wrong.
            if let Err(error) = self.store.remember_wait(self.tenant, key, None).await {
                debug!(tenant = %self.tenant, %error, "a wait that is over is not forgotten");
            }
        }
    }

    async fn write(
        &self,
        known: &mut BTreeMap<WaitKey, Instant>,
        key: WaitKey,
        wait: Duration,
    ) -> Result<(), StoreError> {
        let (from, until) = (self.time.host(), Instant::now() + wait);
        let written = Wait { from, until: later(from, wait) };
        self.store.remember_wait(self.tenant, key.clone(), Some(written)).await?;
        known.insert(key, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::clock::SetClock;
    use crate::content::ContentType;
    use crate::store::Options;

    const START: WaitKey = WaitKey::SubscriptionStart(ContentType::Exchange);
    const MINUTES: Duration = Duration::from_mins(20);

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        let options = Options {
            path: dir.path().to_owned(),
            partition_bytes: 2 << 30,
            lock_wait: Duration::from_secs(10),
            purpose: "a test",
        };
        Store::open(&options, Arc::new(ServiceTime::new(SetClock::new(noon())))).unwrap()
    }

    fn at(store: &Store, now: Timestamp) -> Waits {
        Waits::new(TenantId::from_bytes([1; 16]), store.clone(), Arc::new(ServiceTime::new(SetClock::new(now))))
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_makes_no_wait_longer() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let waits = at(&store, noon());
        waits.remember(START, MINUTES).await.unwrap();
        waits.extend(WaitKey::Throttled, Instant::now() + 2 * MINUTES).await.unwrap();
        waits.extend(WaitKey::Throttled, Instant::now() + MINUTES).await.unwrap();
        for (hours, minutes) in [(-24 * 30, [20, 40]), (0, [20, 40])] {
            let left = at(&store, noon() + SignedDuration::from_hours(hours)).restore().await.unwrap();
            let left: Vec<_> = left.values().map(|left| left.as_secs() / 60).collect();
            assert_eq!(left, minutes, "{hours} hours");
        }
        let later = at(&store, noon() + SignedDuration::from_mins(30)).restore().await.unwrap();
        assert_eq!(later.keys().collect::<Vec<_>>(), [&WaitKey::Throttled]);
        // The one that was over is gone for good.
        let back = at(&store, noon() - SignedDuration::from_hours(24 * 30)).restore().await.unwrap();
        assert_eq!(back.keys().collect::<Vec<_>>(), [&WaitKey::Throttled]);
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let waits = at(&store, noon());
        waits.remember(START, Duration::ZERO).await.unwrap();
        waits.remember(WaitKey::Paused, MINUTES).await.unwrap();
        assert_eq!(waits.until(&START).await, None);
        assert!(waits.until(&WaitKey::Paused).await.is_some());
        waits.forget_over().await;
        let tenant = TenantId::from_bytes([1; 16]);
        assert_eq!(store.waits(tenant).await.unwrap().into_keys().collect::<Vec<_>>(), [WaitKey::Paused]);
        waits.forget(WaitKey::Paused).await.unwrap();
        assert!(store.waits(tenant).await.unwrap().is_empty());
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn the_waits_of_health_and_those_of_the_tree_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let tenant = TenantId::from_bytes([1; 16]);
        let health = Waits::of_health(tenant, store.clone(), Arc::new(ServiceTime::new(SetClock::new(noon()))));
        health.remember(WaitKey::Health, MINUTES).await.unwrap();
        at(&store, noon()).remember(WaitKey::Paused, MINUTES).await.unwrap();
        // To whom both are over by the clock.
        let later = noon() + SignedDuration::from_hours(1);
        assert!(at(&store, later).restore().await.unwrap().is_empty());
        assert_eq!(store.waits(tenant).await.unwrap().into_keys().collect::<Vec<_>>(), [WaitKey::Health]);
        let next = Waits::of_health(tenant, store.clone(), Arc::new(ServiceTime::new(SetClock::new(noon()))));
        assert_eq!(next.restore().await.unwrap().into_keys().collect::<Vec<_>>(), [WaitKey::Health]);
        store.close().await.unwrap();
    }
}
