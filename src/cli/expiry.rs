//! Certificates that expire soon, or have expired: told at the start, after a reload, and every day until somebody acts.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::config::{Operator, Settings};
use crate::event;
use crate::report::Report;

/// How often it is told.
pub(super) const EVERY: Duration = Duration::from_hours(24);

/// Tells of each app whose certificate will not last, and of the listener's, with file, thumbprint, and what to do: the
/// journal, and `status`. `operator` has the certificate that is shown now.
pub(super) fn tell(settings: &Settings, operator: &Operator, report: &Report, now: Timestamp) {
    let mut told = Vec::new();
    for expiry in settings.expiries(now) {
        warn!(message_id = event::CERTIFICATE_EXPIRES, "{expiry}");
        told.push(expiry.to_string());
    }
    if let Some(expiry) = operator.tls.as_ref().and_then(|tls| tls.expiry(now)) {
        warn!(message_id = event::LISTENER_CERTIFICATE_EXPIRES, "{expiry}");
        told.push(expiry.to_string());
    }
    report.warn(told);
}
