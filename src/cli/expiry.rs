//! Certificates that expire soon, or have expired: told at the start, after a reload, and every day until somebody acts.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::config::Settings;
use crate::event;

/// How often it is told.
pub(super) const EVERY: Duration = Duration::from_hours(24);

/// Tells of each app whose certificate will not last, with its file, its thumbprint, and what to do.
pub(super) fn tell(settings: &Settings, now: Timestamp) {
    for expiry in settings.expiries(now) {
        warn!(message_id = event::CERTIFICATE_EXPIRES, "{expiry}");
    }
}
