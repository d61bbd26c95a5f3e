//! The families about all tenants together, the process and the store.

use super::page::{Page, moment_or_zero, number};
use crate::content::ContentType;
use crate::report::{ContentStatus, NotificationFate, StatusSnapshot, TenantState, TenantStatus, Totals};
use crate::retry::Stage;
use crate::store::Sizes;

/// What the certificates' family tells.
pub(super) const CERTIFICATE_EXPIRY: &str =
    "When the last certificate of an app expires, by the section of the configuration that names it.";

/// What that of the listeners tells.
pub(super) const LISTENER_EXPIRY: &str = "When the certificate that a listener shows expires.";

const STATES: [TenantState; 10] = [
    TenantState::Starting,
    TenantState::Collecting,
    TenantState::CatchingUp,
    TenantState::Throttled,
    TenantState::Waiting,
    TenantState::Paused,
    TenantState::Disabled,
    TenantState::Held,
    TenantState::Failing,
    TenantState::Restarting,
];

/// What the daemon is, and where its tenants stand.
pub(super) fn process(page: &mut Page, snapshot: &StatusSnapshot) {
    page.gauges("tenantry_build_info", "The daemon's version.", [([("version", snapshot.version.as_str())], 1.0)]);
    page.gauge("tenantry_start_timestamp_seconds", "When the daemon started.", moment_or_zero(snapshot.started));
    page.gauge(
        "tenantry_clock_ahead_seconds",
        "How far this host's clock is ahead of Microsoft's.",
        snapshot.host_ahead_by_seconds.map_or(0.0, |ahead| number(ahead.unsigned_abs()).copysign(sign(ahead))),
    );
    let count = |wanted: &dyn Fn(&TenantStatus) -> bool| {
        number(snapshot.tenants.iter().filter(|tenant| wanted(tenant)).count() as u64)
    };
    page.gauges(
        "tenantry_tenants",
        "Tenants by what their collection is doing.",
        STATES.map(|state| ([("state", state.as_str())], count(&|tenant| tenant.state == state))),
    );
    let troubled = |needs_operator| {
        count(&|tenant| tenant.trouble.as_ref().is_some_and(|known| known.trouble.needs_operator == needs_operator))
    };
    page.gauges(
        "tenantry_tenants_troubled",
        "Tenants with a trouble that goes on, by whether it stays until a person acts.",
        [([("needs_operator", "true")], troubled(true)), ([("needs_operator", "false")], troubled(false))],
    );
    page.gauge(
        "tenantry_tenants_without_token",
        "Enabled tenants without a token that is valid now.",
        count(&|tenant| is_enabled(tenant) && tenant.token_until.is_none_or(|until| until <= snapshot.at)),
    );
    let listed = snapshot
        .tenants
        .iter()
        .filter(|tenant| is_enabled(tenant))
        .flat_map(|tenant| tenant.content.values().map(|content| content.last_listed));
    page.gauge(
        "tenantry_last_listed_oldest_timestamp_seconds",
        "When the content type that waits longest, of all enabled tenants, was last listed; 0 if one never was.",
        moment_or_zero(listed.min().flatten()),
    );
    let queued = snapshot.tenants.iter().map(|tenant| tenant.queue.entries).sum();
    page.gauge("tenantry_queue_blobs", "Content blobs that wait to be retrieved.", number(queued));
    let oldest = snapshot.tenants.iter().filter_map(|tenant| tenant.queue.oldest).min();
    page.gauge(
        "tenantry_queue_oldest_age_seconds",
        "How long ago the oldest blob that waits became available; Microsoft holds it for seven days.",
        oldest.map_or(0.0, |oldest| snapshot.at.duration_since(oldest).as_secs_f64().max(0.0)),
    );
    page.gauge(
        "tenantry_collection_paused",
        "Whether nothing is retrieved because the store has no room.",
        if snapshot.pause.is_some() { 1.0 } else { 0.0 },
    );
    let letters = snapshot.tenants.iter().map(|tenant| tenant.dead_letters).sum();
    page.gauge("tenantry_dead_letters", "Dead letters that the store holds.", number(letters));
}

fn sign(of: i64) -> f64 {
    if of < 0 { -1.0 } else { 1.0 }
}

fn is_enabled(tenant: &TenantStatus) -> bool {
    !tenant.state.is_off()
}

type Count = (&'static str, &'static str, fn(&ContentStatus) -> u64);

/// What is counted by content type: the end of the name, what it is, and where it stands.
pub(super) const COUNTS: [Count; 10] = [
    ("listings_total", "Windows of time that were listed in full", |content| content.listings),
    ("blobs_stored_total", "Content blobs stored", |content| content.blobs),
    ("records_stored_total", "Records stored", |content| content.records),
    ("stored_bytes_total", "Bytes of content stored, before compression", |content| content.bytes),
    ("duplicate_records_total", "Records stored that are flagged as copies", |content| content.duplicates),
    ("foreign_records_total", "Records stored that name another tenant", |content| content.foreign),
    ("late_blobs_total", "Content blobs that the first listing of their window did not have", |content| {
        content.late_recent + content.late_sweep
    }),
    ("grown_blobs_total", "Content blobs that had been fetched in part and were stored again, whole", |content| {
        content.grown
    }),
    ("dead_letters_total", "Content blobs given up, or listed in a way that they cannot be collected", |content| {
        content.dead_letters
    }),
    ("lost_windows_total", "Spans of time lost because they were not listed in time", |content| content.gaps),
];

/// What happened since the start, of all tenants. Numbers that only rise are not sums over those that are there now.
pub(super) fn totals(page: &mut Page, totals: &Totals, snapshot: &StatusSnapshot) {
    let none = ContentStatus::default();
    for (name, what, count) in COUNTS {
        let samples = ContentType::ALL.map(|content_type| {
            let content = totals.content.get(&content_type).unwrap_or(&none);
            ([("content_type", content_type.as_str())], count(content))
        });
        page.counters(&format!("tenantry_{name}"), &format!("{what}."), samples);
    }
    page.counters(
        "tenantry_failures_total",
        "Attempts that met a trouble, by stage.",
        Stage::ALL.map(|stage| ([("stage", stage.as_str())], totals.failures.get(&stage).copied().unwrap_or(0))),
    );
    page.counters(
        "tenantry_notifications_total",
        "Notifications that were refused, and blobs that notifications named, by what became of them.",
        NotificationFate::ALL
            .map(|fate| ([("outcome", fate.as_str())], totals.notifications.get(&fate).copied().unwrap_or(0))),
    );
    page.counter("tenantry_throttled_total", "Answers by which the service throttled a tenant.", totals.throttled);
    page.counter("tenantry_restarts_total", "Restarts of a tenant's tasks after a panic.", totals.restarts);
    let concurrency = snapshot.tenants.iter().filter_map(|tenant| tenant.concurrency).sum::<usize>();
    page.gauge(
        "tenantry_concurrency_limit",
        "Retrievals that throttling leaves to all tenants together, before the limit of the process.",
        number(concurrency as u64),
    );
}

/// What the store takes.
pub(super) fn store(page: &mut Page, sizes: Sizes) {
    page.gauges(
        "tenantry_store_bytes",
        "Bytes of the store on its disk.",
        [([("part", "content")], number(sizes.content)), ([("part", "state")], number(sizes.state))],
    );
    page.gauge("tenantry_store_partitions", "Partitions of the store.", number(sizes.partitions));
    page.gauge("tenantry_store_free_bytes", "Bytes that are left on the store's disk.", number(sizes.free));
}
