//! Which tenants have series of their own: all of them up to a limit, else those that need attention most.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::report::{StatusSnapshot, TenantStatus};

/// How many are shown when there are too many to show all.
pub(super) const WORST: usize = 20;

/// The enabled tenants that are shown, in the order of their ids. Those that are switched off are as somebody wants
/// them, and would only raise alarms.
pub(super) fn shown(snapshot: &StatusSnapshot, limit: usize) -> Vec<&TenantStatus> {
    let enabled = snapshot.tenants.iter().filter(|tenant| !tenant.state.is_off());
    let mut tenants: Vec<_> = enabled.collect();
    if tenants.len() > limit {
        tenants.sort_by_cached_key(|tenant| (Reverse(need(tenant, snapshot.at)), tenant.id));
        tenants.truncate(WORST.min(limit));
        tenants.sort_by_key(|tenant| tenant.id);
    }
    tenants
}

/// How much a tenant needs attention: first those whose trouble waits for a person, then those with another trouble,
/// then by the seconds for which what it lacks most has been waiting: a listing of one of its content types, or the
/// oldest blob that is queued.
fn need(tenant: &TenantStatus, now: Timestamp) -> (bool, bool, i64) {
    let since = |at: Option<Timestamp>| at.map_or(i64::MAX, |at| now.duration_since(at).as_secs());
    let unlisted = tenant.content.values().map(|content| since(content.last_listed)).max().unwrap_or(0);
    let waiting = tenant.queue.oldest.map_or(0, |oldest| since(Some(oldest)));
    let needs_operator = tenant.trouble.as_ref().is_some_and(|trouble| trouble.trouble.needs_operator);
    (needs_operator, tenant.trouble.is_some(), unlisted.max(waiting))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::content::{ContentType, TenantId};
    use crate::report::{ContentStatus, TenantState, Trouble, TroubleStatus};
    use crate::store::QueueDepth;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn ago(minutes: i64) -> Timestamp {
        now() - SignedDuration::from_mins(minutes)
    }

    /// Listed a minute ago, nothing queued.
    fn well(number: u16) -> TenantStatus {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let mut tenant = TenantStatus::new(TenantId::from_bytes(id), "", TenantState::Collecting);
        let content = ContentStatus { last_listed: Some(ago(1)), ..ContentStatus::default() };
        tenant.content = ContentType::AUDIT.into_iter().map(|content_type| (content_type, content)).collect();
        tenant
    }

    fn troubled(number: u16, trouble: Trouble) -> TenantStatus {
        TenantStatus { trouble: Some(TroubleStatus { trouble, since: now(), attempts: 1 }), ..well(number) }
    }

    fn snapshot(tenants: Vec<TenantStatus>) -> StatusSnapshot {
        StatusSnapshot {
            running: true,
            version: String::new(),
            at: now(),
            started: None,
            host_ahead_by_seconds: None,
            sentence: String::new(),
            pause: None,
            warnings: Vec::new(),
            tenants,
        }
    }

    fn numbers(tenants: &[&TenantStatus]) -> Vec<u16> {
        tenants.iter().map(|tenant| u16::from_be_bytes([tenant.id.as_bytes()[0], tenant.id.as_bytes()[1]])).collect()
    }

    #[test]
    fn a_person_is_needed_before_trouble_before_lag() {
        let mut unlisted = well(4);
        unlisted.content.get_mut(&ContentType::Exchange).unwrap().last_listed = Some(ago(40));
        let mut never = well(3);
        never.content.get_mut(&ContentType::General).unwrap().last_listed = None;
        let queue = |oldest| QueueDepth { entries: 1, oldest: Some(oldest) };
        let queued = TenantStatus { queue: queue(ago(30)), ..well(5) };
        let lately = TenantStatus { queue: queue(ago(0)), ..well(6) };
        let worst_first = [
            troubled(1, Trouble::for_operator("secret_expired", "it has expired", "make a new one")),
            troubled(2, Trouble::passing("http_503", "the service answers 503")),
            never,
            unlisted,
            queued,
            well(7),
        ];
        for pair in worst_first.windows(2) {
            assert!(need(&pair[0], now()) > need(&pair[1], now()), "{pair:#?}");
        }
        assert_eq!(need(&lately, now()), need(&well(7), now()), "a blob that just came is no lag");
    }

    #[test]
    fn all_are_shown_up_to_the_limit_and_beyond_it_the_worst_twenty() {
        let off = TenantStatus { state: TenantState::Disabled, ..well(0) };
        let mut tenants: Vec<_> = std::iter::once(off).chain((1..=200).map(well)).collect();
        assert_eq!(numbers(&shown(&snapshot(tenants.clone()), 200)), (1..=200).collect::<Vec<_>>());
        tenants.push(well(201));
        let bad: Vec<u16> = (0..19).map(|number| 7 + number * 10).collect();
        for number in &bad {
            tenants[usize::from(*number)] = troubled(*number, Trouble::passing("http_503", "the service answers 503"));
        }
        let first_of_equals = [vec![1], bad].concat();
        assert_eq!(numbers(&shown(&snapshot(tenants.clone()), 200)), first_of_equals);
        assert_eq!(shown(&snapshot(tenants.clone()), 3).len(), 3);
        assert_eq!(shown(&snapshot(tenants), 0).len(), 0);
    }
}
