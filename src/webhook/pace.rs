//! How often a tenant may be notified. Pure, but for the clock that is handed in.
//!
//! Microsoft batches what becomes available, so that a tenant is notified a few times a second at most; more than that is
//! a flood, whoever sends it, and what is refused comes again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::content::TenantId;

/// Notifications a second, on average,
const RATE: f64 = 20.0;
/// and so many at once.
const BURST: f64 = 200.0;

/// What each tenant has left. It holds collected tenants only, so that their number bounds it.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<TenantId, Left>>);

#[derive(Debug, Clone, Copy)]
struct Left {
    notifications: f64,
    at: Instant,
}

impl Pace {
    /// A notification comes: whether the tenant may be notified now.
    pub(super) fn admits(&self, tenant: TenantId, now: Instant) -> bool {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = tenants.entry(tenant).or_insert(Left { notifications: BURST, at: now });
        let gained = now.saturating_duration_since(left.at).as_secs_f64() * RATE;
        left.notifications = (left.notifications + gained).min(BURST);
        left.at = now;
        let admits = left.notifications >= 1.0;
        if admits {
            left.notifications -= 1.0;
        }
        admits
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
        let admitted = (0..10_000).filter(|ms| pace.admits(flooded, at(*ms))).count();
        assert!((395..=405).contains(&admitted), "the burst, and 20 a second for 10 s: {admitted}");
        assert!(pace.admits(other, at(10_000)));
        assert!(pace.admits(flooded, at(10_100)), "it goes on");
    }
}
