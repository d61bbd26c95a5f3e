//! How often a tenant may be notified. Pure, but for the clock that is handed in.
//!
//! Microsoft batches what becomes available, so that a tenant is notified a few times a second at most, and grants a tenant
//! some 2,000 requests a minute, so that more blobs than that could not be retrieved either; more is a flood, whoever sends
//! it, and what is refused comes again. The limits are each tenant's own: however many tenants there are, each is taken at
//! this pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::content::TenantId;

/// Notifications a second, on average,
const RATE: f64 = 20.0;
/// and so many at once.
const BURST: f64 = 200.0;
/// So many of a tenant's are read or queued at a time: what waits for a slow body or a slow disk is not all that there is
/// room for.
const UNDER_WAY: usize = 16;

/// What each tenant has left. It holds collected tenants only, so that their number bounds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Arc<Mutex<HashMap<TenantId, Left>>>);

#[derive(Debug, Clone, Copy)]
struct Left {
    notifications: f64,
    at: Instant,
    under_way: usize,
}

/// A notification that is being taken.
#[derive(Debug)]
pub(super) struct Turn {
    tenant: TenantId,
    pace: Pace,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(left) = self.pace.tenants().get_mut(&self.tenant) {
            left.under_way -= 1;
        }
    }
}

impl Pace {
    /// A notification comes; `None` if the tenant may not be notified now.
    pub(super) fn admits(&self, tenant: TenantId, now: Instant) -> Option<Turn> {
        let mut tenants = self.tenants();
        let left = tenants.entry(tenant).or_insert(Left { notifications: BURST, at: now, under_way: 0 });
        let gained = now.saturating_duration_since(left.at).as_secs_f64() * RATE;
        left.notifications = (left.notifications + gained).min(BURST);
        left.at = now;
        if left.notifications < 1.0 || left.under_way == UNDER_WAY {
            return None;
        }
        left.notifications -= 1.0;
        left.under_way += 1;
        Some(Turn { tenant, pace: self.clone() })
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_other_tenant_does_not_notice() {
        let (pace, start) = (Pace::default(), Instant::now());
        let (flooded, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let at = |ms| start + Duration::from_millis(ms);
        let admitted = (0..10_000).filter(|ms| pace.admits(flooded, at(*ms)).is_some()).count();
        assert!((395..=405).contains(&admitted), "the burst, and 20 a second for 10 s: {admitted}");
        assert!(pace.admits(other, at(10_000)).is_some());
        assert!(pace.admits(flooded, at(10_100)).is_some(), "it goes on");
    }

    #[test]
    fn a_thousand_a_second_of_many_tenants_are_no_flood() {
        let (pace, start) = (Pace::default(), Instant::now());
        let tenant = |ms: u64| TenantId::from_bytes([u8::try_from(ms % 60).unwrap(); 16]);
        let refused = (0..60_000).filter(|ms| pace.admits(tenant(*ms), start + Duration::from_millis(*ms)).is_none());
        assert_eq!(refused.count(), 0);
    }

    #[test]
    fn what_is_not_done_with_leaves_room_for_others() {
        let (pace, now) = (Pace::default(), Instant::now());
        let (slow, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let mut turns: Vec<_> = std::iter::from_fn(|| pace.admits(slow, now)).collect();
        assert_eq!(turns.len(), UNDER_WAY);
        assert!(pace.admits(other, now).is_some());
        turns.pop();
        assert!(pace.admits(slow, now).is_some());
    }
}
