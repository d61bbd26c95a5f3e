//! Certificates that expire soon, or have expired: told at the start, after a reload, and every day until somebody acts.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::config::{ListenerTls, Settings};
use crate::event;
use crate::report::Report;

/// How often it is told.
pub(super) const EVERY: Duration = Duration::from_hours(24);

/// Tells of each app whose certificate will not last, and of those that listeners show now, with file, thumbprint, and what
/// to do: the journal, and `status`.
pub(super) fn tell(settings: &Settings, shown: [Option<&ListenerTls>; 2], report: &Report, now: Timestamp) {
    let mut told = Vec::new();
    for expiry in settings.expiries(now) {
        warn!(message_id = event::CERTIFICATE_EXPIRES, "{expiry}");
        told.push(expiry.to_string());
    }
    for expiry in shown.into_iter().flatten().filter_map(|tls| tls.expiry(now)) {
        warn!(message_id = event::LISTENER_CERTIFICATE_EXPIRES, "{expiry}");
        told.push(expiry.to_string());
    }
    report.warn(told);
}
