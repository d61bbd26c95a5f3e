//! `/metrics`, in the text format of Prometheus.
//!
//! Everything is read when it is asked for, from what `status` shows ([`report`](crate::report)) and from the store:
//! there are no second books that could differ. A family `tenantry_…` is about all tenants together, and there
//! whatever their number; a family `tenantry_tenant_…` has a series for each tenant that is
//! [shown](attention::shown). What counts up starts at zero with the daemon and never falls; a moment that has not
//! been yet is 0.
//!
//! **Invariant:** the number of series does not grow with the number of tenants beyond `[operator] tenant_labels`, and
//! no async thread computes them.

mod all;
mod attention;
mod page;
mod tenants;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use prometheus::TEXT_FORMAT;
use tokio::sync::watch;

use self::page::Page;
use super::admin::Service;
use super::public::Shown;
use crate::config::Settings;
use crate::report::Report;
use crate::store::{Sizes, Store};
use crate::tls::Tls;
use crate::token::Credential;

/// When each app's last certificate expires, by the section that describes the app. Those that expire first, if there
/// are many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates(Vec<(String, Timestamp)>);

/// As many apps have their own series.
const APPS: usize = 200;

impl Certificates {
    /// Those that these settings name.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let expiry = |credential: &Credential| match credential {
            Credential::Certificates { list, .. } => list.iter().map(|certificate| certificate.not_after()).max(),
            Credential::Secret(_) | Credential::Federated(_) => None,
        };
        let mut all: Vec<_> =
            settings.apps.values().filter_map(|app| Some((app.section(), expiry(&app.credential)?))).collect();
        all.sort_by_key(|(_, expires)| *expires);
        all.truncate(APPS);
        Self(all)
    }
}

/// What the numbers are read from.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) service: Arc<Service>,
    /// Of the apps.
    pub(super) certificates: Certificates,
    /// What the operators' listener shows at the moment, if it speaks TLS.
    pub(super) tls: Option<watch::Receiver<Tls>>,
    /// The same of the customers' listener.
    pub(super) public: Option<Shown>,
    pub(super) tenant_labels: usize,
}

impl Metrics {
    /// Blocking: looks at the store's files.
    fn read(&self) -> Result<String, prometheus::Error> {
        // Without sizes the rest is as true; whoever writes the store says what is wrong with its disk.
        let sizes = Sizes::of(&self.service.info.store).ok();
        let operator = self.tls.as_ref().map(|tls| tls.borrow().certificate().not_after());
        let public = self.public.as_ref().and_then(Shown::not_after);
        let listeners = [("operator", operator), ("public", public)];
        page(&self.service.report, sizes, &self.certificates, listeners, self.tenant_labels).text()
    }
}

fn page(
    report: &Report,
    sizes: Option<Sizes>,
    certificates: &Certificates,
    listeners: [(&'static str, Option<Timestamp>); 2],
    tenant_labels: usize,
) -> Page {
    let snapshot = report.snapshot();
    let mut page = Page::default();
    all::process(&mut page, &snapshot);
    all::totals(&mut page, &report.totals(), &snapshot);
    page.histogram(&report.lag());
    page.histogram(&Store::flush_times());
    if let Some(sizes) = sizes {
        all::store(&mut page, sizes);
    }
    let expiries = certificates.0.iter().map(|(app, expires)| ([("app", app.as_str())], page::moment(*expires)));
    page.gauges("tenantry_certificate_expiry_timestamp_seconds", all::CERTIFICATE_EXPIRY, expiries);
    let expiries = listeners
        .into_iter()
        .filter_map(|(listener, expires)| Some(([("listener", listener)], page::moment(expires?))));
    page.gauges("tenantry_listener_certificate_expiry_timestamp_seconds", all::LISTENER_EXPIRY, expiries);
    tenants::tenants(&mut page, &attention::shown(&snapshot, tenant_labels), snapshot.at);
    page
}

pub(super) async fn metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match tokio::task::spawn_blocking(move || metrics.read()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        failed => {
            tracing::warn!(?failed, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::{ServiceTime, SetClock};
    use crate::content::{ContentType, TenantId};
    use crate::report::TenantReport;
    use crate::store::Stored;

    fn report() -> Arc<Report> {
        Report::new(Arc::new(ServiceTime::new(SetClock::new("2026-11-24T12:00:00Z".parse().unwrap()))))
    }

    fn tenant(report: &Report, number: u32) -> TenantReport {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let tenant = report.tenant(TenantId::from_bytes(id), &format!("tenant-{number}"));
        tenant.describe(&[], "worldwide", "app", &ContentType::AUDIT.into());
        tenant
    }

    fn stored(tenant: &TenantReport) {
        let stored = Stored { seq: 1, bytes: 1000, records: 10, duplicates: 2, foreign: 1, new: true };
        tenant.stored(ContentType::Exchange, &stored, Duration::from_secs(40));
    }

    fn text(report: &Report, tenant_labels: usize) -> String {
        let certificates = Certificates(vec![("app".to_owned(), "2027-01-01T00:00:00Z".parse().unwrap())]);
        let listener = "2027-01-02T00:00:00Z".parse().unwrap();
        page(
            report,
            Some(Sizes::default()),
            &certificates,
            [("operator", Some(listener)), ("public", None)],
            tenant_labels,
        )
        .text()
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_documentation_names_every_family() {
        let report = report();
        let contoso = tenant(&report, 1);
        let trouble = crate::report::Trouble::passing("http_503", "it answers 503");
        contoso.troubled(crate::retry::Stage::List, None, &trouble);
        let text = text(&report, 200);
        let told: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# "))
            .map(|line| line.strip_prefix("# TYPE ").map_or_else(|| line.to_owned(), |kind| format!("{kind}\n")))
            .collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/metrics.txt");
        let documented = std::fs::read_to_string(file).unwrap();
        assert_eq!(
            documented.lines().collect::<Vec<_>>(),
            told.join("\n").lines().collect::<Vec<_>>(),
            "packaging/metrics.txt should be what is on the right"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_there_at_zero_and_nothing_falls_when_a_tenant_goes() {
        let report = report();
        let contoso = tenant(&report, 1);
        let start = text(&report, 200);
        for line in [
            "tenantry_blobs_stored_total{content_type=\"Audit.Exchange\"} 0",
            "tenantry_failures_total{stage=\"token\"} 0",
            "tenantry_tenants{state=\"failing\"} 0",
            "tenantry_lag_seconds_count 0",
            "tenantry_tenant_records_stored_total{tenant=\"00000001-0707-0707-0707-070707070707\",content_type=\"Audit.General\"} 0",
            "tenantry_tenant_last_listed_timestamp_seconds{tenant=\"00000001-0707-0707-0707-070707070707\",content_type=\"Audit.General\"} 0",
            "tenantry_certificate_expiry_timestamp_seconds{app=\"app\"} 1798761600",
            "tenantry_listener_certificate_expiry_timestamp_seconds{listener=\"operator\"} 1798848000",
        ] {
            assert!(start.lines().any(|known| known == line), "no {line} in\n{start}");
        }
        stored(&contoso);
        report.remove(contoso.id());
        // Its tasks are on their way to their end.
        stored(&contoso);
        let after = text(&report, 200);
        for line in [
            "tenantry_blobs_stored_total{content_type=\"Audit.Exchange\"} 2",
            "tenantry_records_stored_total{content_type=\"Audit.Exchange\"} 20",
            "tenantry_duplicate_records_total{content_type=\"Audit.Exchange\"} 4",
            "tenantry_foreign_records_total{content_type=\"Audit.Exchange\"} 2",
            "tenantry_stored_bytes_total{content_type=\"Audit.Exchange\"} 2000",
        ] {
            assert!(after.lines().any(|known| known == line), "no {line} in\n{after}");
        }
        assert!(!after.contains("tenantry_tenant_info"), "{after}");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::print_stderr, reason = "the time is for the reader of the test's output")]
    async fn ten_thousand_tenants_are_a_page_of_the_worst_twenty_and_the_sums() {
        let report = report();
        for number in 0..10_000 {
            stored(&tenant(&report, number));
        }
        let begun = Instant::now();
        let text = text(&report, 200);
        eprintln!("10000 tenants: {:?}, {} bytes", begun.elapsed(), text.len());
        assert!(text.contains("tenantry_blobs_stored_total{content_type=\"Audit.Exchange\"} 10000\n"));
        let shown: BTreeSet<_> = text.split("tenant=\"").skip(1).map(|rest| &rest[..36]).collect();
        assert_eq!(shown.len(), attention::WORST);
    }
}
