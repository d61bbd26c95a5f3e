//! The families with a series for each tenant that is shown. `tenant` is the directory id, which neither changes nor
//! repeats; `tenantry_tenant_info` has the name, to be joined in a query.

use jiff::Timestamp;

use super::all::COUNTS;
use super::page::{Page, moment_or_zero, number};
use crate::content::ContentType;
use crate::report::{ContentStatus, TenantStatus};
use crate::retry::Stage;

/// A tenant with its id as text.
type Shown<'a> = (String, &'a TenantStatus);

pub(super) fn tenants(page: &mut Page, tenants: &[&TenantStatus], now: Timestamp) {
    let tenants: Vec<Shown<'_>> = tenants.iter().map(|tenant| (tenant.id.to_string(), *tenant)).collect();
    let info = tenants.iter().map(|(id, tenant)| {
        let (name, cloud) = (tenant.name.as_str(), tenant.cloud.as_str());
        ([("tenant", id.as_str()), ("name", name), ("cloud", cloud), ("app", tenant.app.as_str())], 1.0)
    });
    page.gauges("tenantry_tenant_info", "A tenant's name, cloud and app in the configuration.", info);
    let states = tenants.iter().map(|(id, tenant)| ([("tenant", id.as_str()), ("state", tenant.state.as_str())], 1.0));
    page.gauges("tenantry_tenant_state_info", "What a tenant's collection is doing.", states);
    let troubles = tenants.iter().filter_map(|(id, tenant)| {
        let trouble = &tenant.trouble.as_ref()?.trouble;
        Some(([("tenant", id.as_str()), ("kind", trouble.kind.as_str())], 1.0))
    });
    page.gauges("tenantry_tenant_trouble_info", "The kind of a trouble that goes on.", troubles);
    gauges(page, &tenants, now);
    contents(page, &tenants);
    let throttled = tenants.iter().map(|(id, tenant)| ([("tenant", id.as_str())], tenant.throttled));
    page.counters("tenantry_tenant_throttled_total", "Answers by which the service throttled a tenant.", throttled);
    let failures = tenants.iter().flat_map(|(id, tenant)| {
        Stage::ALL.map(|stage| {
            let count = tenant.failures.get(&stage).copied().unwrap_or(0);
            ([("tenant", id.as_str()), ("stage", stage.as_str())], count)
        })
    });
    page.counters("tenantry_tenant_failures_total", "Attempts that met a trouble, by stage, of a tenant.", failures);
}

fn gauges(page: &mut Page, tenants: &[Shown<'_>], now: Timestamp) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&TenantStatus) -> f64| {
        page.gauges(name, help, tenants.iter().map(|(id, tenant)| ([("tenant", id.as_str())], value(tenant))));
    };
    let flag = |is: bool| f64::from(u8::from(is));
    each("tenantry_tenant_troubled", "Whether a tenant has a trouble that goes on.", &|tenant| {
        flag(tenant.trouble.is_some())
    });
    each("tenantry_tenant_needs_operator", "Whether its trouble stays until a person acts.", &|tenant| {
        flag(tenant.trouble.as_ref().is_some_and(|known| known.trouble.needs_operator))
    });
    each(
        "tenantry_tenant_token_expiry_timestamp_seconds",
        "Until when a tenant's token is valid; 0 if it has none.",
        &|tenant| moment_or_zero(tenant.token_until),
    );
    each(
        "tenantry_tenant_lag_seconds",
        "From availability to stored: of a tenant's oldest blob that waits, else of the last one stored.",
        &|tenant| number(tenant.lag_seconds.and_then(|lag| u64::try_from(lag).ok()).unwrap_or(0)),
    );
    each("tenantry_tenant_queue_blobs", "Content blobs of a tenant that wait to be retrieved.", &|tenant| {
        number(tenant.queue.entries)
    });
    each(
        "tenantry_tenant_queue_oldest_age_seconds",
        "How long ago a tenant's oldest blob that waits became available.",
        &|tenant| tenant.queue.oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0)),
    );
    each("tenantry_tenant_dead_letters", "Dead letters of a tenant that the store holds.", &|tenant| {
        number(tenant.dead_letters)
    });
}

fn contents(page: &mut Page, tenants: &[Shown<'_>]) {
    fn of<'a>((id, tenant): &'a Shown<'a>) -> impl Iterator<Item = ([(&'a str, &'a str); 2], &'a ContentStatus)> {
        let labels = |content_type: ContentType| [("tenant", id.as_str()), ("content_type", content_type.as_str())];
        tenant.content.iter().map(move |(content_type, content)| (labels(*content_type), content))
    }
    page.gauges(
        "tenantry_tenant_last_listed_timestamp_seconds",
        "When a tenant's content type was last listed with success since the start; 0 if it was not.",
        tenants.iter().flat_map(of).map(|(labels, content)| (labels, moment_or_zero(content.last_listed))),
    );
    page.gauges(
        "tenantry_tenant_last_stored_timestamp_seconds",
        "When a blob of a tenant's content type was last stored since the start; 0 if none was.",
        tenants.iter().flat_map(of).map(|(labels, content)| (labels, moment_or_zero(content.last_stored))),
    );
    for (name, what, count) in COUNTS {
        let samples = tenants.iter().flat_map(of).map(|(labels, content)| (labels, count(content)));
        page.counters(&format!("tenantry_tenant_{name}"), &format!("{what}, of a tenant."), samples);
    }
}
