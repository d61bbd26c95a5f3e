//! What everything that collects stands on, with a daemon and without one: clocks, the way to Microsoft, and what the tenants'
//! tasks share.

use std::sync::Arc;

use super::{Ended, Exit};
use crate::clock::{ServiceTime, SharedClock, SystemClock};
use crate::config::Settings;
use crate::http::Http;
use crate::report::Report;
use crate::store::Store;
use crate::tenant::Shared;
use crate::token::AppAlarms;

/// What is there before the store is.
pub(super) struct Ground {
    pub(super) clock: SharedClock,
    pub(super) time: Arc<ServiceTime>,
    pub(super) http: Http,
}

impl Ground {
    /// By these settings.
    pub(super) fn of(settings: &Settings) -> Result<Self, Ended> {
        let clock: SharedClock = Arc::new(SystemClock);
        let time = Arc::new(ServiceTime::new(Arc::clone(&clock)));
        let http =
            Http::new(&settings.network).map_err(|error| Ended { exit: Exit::Config, message: error.to_string() })?;
        Ok(Self { clock, time, http })
    }

    /// What the tenants' tasks share, with this store.
    pub(super) fn shared(&self, store: Store) -> Shared {
        Shared {
            store,
            report: Report::new(Arc::clone(&self.time)),
            http: self.http.clone(),
            time: Arc::clone(&self.time),
            clock: Arc::clone(&self.clock),
            apps: AppAlarms::new(),
        }
    }
}
