//! What is too old, or too much, is dropped: the store's retention decides, here it is asked for, in time, and told.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use crate::config::{StoreSettings, size};
use crate::event;
use crate::store::{Keep, Retained, Store};

/// How often is looked whether something is to be dropped.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// The first look waits until the service has told the time.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often is told what only a person can change.
const TELL_EVERY: Duration = Duration::from_hours(24);

/// Sees to it that nothing is kept for too long, for ever.
pub(super) async fn look_after(store: Store, mut settings: watch::Receiver<StoreSettings>) {
    let (mut told, mut before) = (None, Keep::default());
    let mut wait = FIRST_LOOK;
    loop {
        tokio::select! {
            () = sleep(wait) => wait = LOOK_EVERY,
            // Without a sender, the daemon is on its way to its end.
            changed = settings.changed() => if changed.is_err() { std::future::pending().await },
        }
        let keep = settings.borrow_and_update().keep;
        if keep != before {
            (told, before) = (None, keep);
        }
        if keep == Keep::default() {
            continue;
        }
        match store.retain(keep).await {
            Ok(retained) => tell(&retained, keep, &mut told),
            Err(error) => error!(
                message_id = event::STORE_UNWRITABLE,
                cause = error.trouble().cause,
                remedy = error.remedy(),
                "what is not to be kept could not be dropped; trying again"
            ),
        }
    }
}

fn tell(retained: &Retained, keep: Keep, told: &mut Option<Instant>) {
    if let Some(reason) = retained.reason {
        let (count, reason) = (retained.dropped.len(), reason.as_str());
        info!(
            partitions = count,
            reason,
            last = retained.dropped.last(),
            "retention has dropped what is not to be kept"
        );
    }
    let most = keep.bytes.unwrap_or(u64::MAX);
    if retained.excess == 0 {
        *told = None;
    } else if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
        *told = Some(Instant::now());
        error!(
            message_id = event::STORE_OVERFULL,
            limit = size::display(most),
            excess = size::display(retained.excess),
            "what was stored within nine days takes more than `store.keep_at_most`, and is kept all the same, because \
             what the service repeats is recognised with it: raise `store.keep_at_most`"
        );
    }
}
