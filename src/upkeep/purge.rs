//! Tenants that were purged are erased: the store knows how and what is next, here it is asked for, and told.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::config::{StoreSettings, size};
use crate::event;
use crate::retry::{Backoff, Stage};
use crate::store::{Progress, Store, StoreError};

/// How often is looked whether there is room.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// How often is told that there is none.
const TELL_EVERY: Duration = Duration::from_hours(24);

/// Goes on with what was asked for, before this start too, for ever.
pub(super) async fn look_after(store: Store, mut settings: watch::Receiver<StoreSettings>) {
    let mut asked = store.purges_asked();
    let mut backoff = Backoff::new(Stage::Store);
    let mut told: Option<Instant> = None;
    loop {
        let reserve = settings.borrow_and_update().reserve_bytes;
        asked.mark_unchanged();
        let went = store.go_on_purging(reserve).await;
        if went.is_ok() {
            backoff.succeeded();
        }
        let wait = match went {
            Ok(Progress::GoesOn | Progress::Done(_)) => {
                if told.take().is_some() {
                    info!("there is room again, and purging goes on");
                }
                continue;
            }
            Ok(Progress::Idle) => None,
            Ok(Progress::Short { needed, free }) => {
                if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    warn!(
                        message_id = event::PURGE_WAITS,
                        needed = size::about(needed),
                        free = size::about(free),
                        "there is too little room to write a partition anew without a tenant that was purged; the tenant \
                         stays hidden, and purging goes on when there is room"
                    );
                }
                Some(LOOK_EVERY)
            }
            // The daemon is on its way to its end.
            Err(StoreError::Closed) => return std::future::pending().await,
            Err(error) => {
                let wait = backoff.failed(None);
                if backoff.attempts().is_power_of_two() {
                    error!(
                        message_id = event::STORE_UNWRITABLE,
                        cause = error.trouble().cause,
                        remedy = error.remedy(),
                        attempt = backoff.attempts(),
                        "a tenant that was purged could not be erased yet; it stays hidden, and that is tried again"
                    );
                }
                Some(wait)
            }
        };
        tokio::select! {
            () = pause(wait) => {}
            _ = asked.changed() => {}
            // Without a sender, the daemon is on its way to its end.
            changed = settings.changed() => if changed.is_err() { std::future::pending().await },
        }
    }
}

/// Until something is asked for, or for so long.
async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{ServiceTime, SetClock};
    use crate::content::{ContentBlob, ContentType, TenantId, Tier};
    use crate::store::{Fetched, Options};

    fn open(path: &std::path::Path) -> Store {
        let options = Options {
            path: path.to_owned(),
            partition_bytes: 2 << 30,
            lock_wait: Duration::from_secs(10),
            purpose: "test",
        };
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        Store::open(&options, Arc::new(ServiceTime::new(SetClock::new(now)))).unwrap()
    }

    async fn store_one(store: &Store, tenant: TenantId) {
        let at = "2026-11-22T10:00:00Z".parse().unwrap();
        let blob = ContentBlob {
            content_id: "content".into(),
            content_type: ContentType::Exchange,
            content_uri: "https://manage.office.com/x".to_owned(),
            content_created: at,
            content_expiration: at,
        };
        let fetched = Fetched { at, from: "https://manage.office.com/x".to_owned(), tier: Tier::Poll };
        let mut writer = store.receive(tenant, &blob, fetched, None);
        writer.push(b"[{\"Id\":\"1\"}]").await.unwrap();
        writer.finish().await.unwrap();
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waiting = async {
            while !is_so() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn it_goes_on_with_what_was_asked_for_before_and_with_what_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let store = open(dir.path());
        store_one(&store, first).await;
        store_one(&store, second).await;
        store.purge(first).await.unwrap();
        store.close().await.unwrap();

        let store = open(dir.path());
        let short = StoreSettings { reserve_bytes: u64::MAX / 2, ..StoreSettings::default() };
        let settings = watch::Sender::new(short.clone());
        let task = tokio::spawn(look_after(store.clone(), settings.subscribe()));
        let are_done = |store: &Store| store.purges().iter().filter(|purge| purge.done_at.is_some()).count();
        // What of it needs no room is done; with room, the rest.
        let receiver = settings.subscribe();
        assert_eq!((are_done(&store), receiver.borrow().reserve_bytes), (0, u64::MAX / 2));
        settings.send_replace(StoreSettings { reserve_bytes: 0, ..short });
        until("the first is not erased", || are_done(&store) == 1).await;
        store.purge(second).await.unwrap();
        until("the second is not erased", || are_done(&store) == 2).await;
        assert!(store.purges().iter().all(|purge| (purge.blobs, purge.left) == (1, 0)));
        task.abort();
        drop(task.await);
        store.close().await.unwrap();
    }
}
