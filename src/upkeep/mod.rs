//! Looking after the disk: what is too old, or too much, is dropped; tenants that were purged are erased; and nothing is
//! retrieved that would find no room.
//!
//! Three tasks for the process, [`retention`], [`purge`] and [`guard`]. What is decided is decided by pure parts; here it is asked for,
//! in time, and told. A new configuration is followed at once.

mod guard;
mod purge;
mod retention;

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::StoreSettings;
use crate::report::Report;
use crate::store::Store;
use crate::tenant::Registry;

/// Looks after the disk, for ever.
pub async fn look_after(
    store: Store,
    registry: Arc<Registry>,
    report: Arc<Report>,
    settings: watch::Receiver<StoreSettings>,
) {
    let guard = guard::stand(registry, report, settings.clone());
    let purge = purge::look_after(store.clone(), settings.clone());
    tokio::join!(retention::look_after(store, settings), purge, guard);
}
