//! Keeps one tenant's tree running: a panic anywhere in it restarts it, after growing waits.
//!
//! **Invariant:** no panic of a tenant's tasks passes this place; the process and the other tenants do not notice.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::driver::{Panicked, drive};
use super::tree::Tree;
use crate::event;
use crate::report::Trouble;
use crate::retry::{Backoff, Stage};

/// A tree that ran for this long before it panicked starts over with the shortest wait.
const STABLE: Duration = Duration::from_mins(10);

/// Runs the tree until it is stopped, after `delay`.
pub(super) async fn supervise(tree: Arc<Tree>, delay: Duration) {
    let stop = tree.stop.clone();
    if until_stopped(&stop, delay).await {
        return;
    }
    let told = Arc::clone(&tree);
    restarting(
        &stop,
        || {
            // What an earlier tree was retrieving when it died is nobody's now.
            let released = tree.store.release_all(tree.tenant);
            if released > 0 {
                debug!(tenant = %tree.tenant, released, "entries of the queue may be handed out again");
            }
            drive(Arc::clone(&tree))
        },
        |Panicked(message), wait| {
            error!(
                message_id = event::TENANT_PANICKED,
                tenant = %told.tenant,
                error = message,
                seconds = wait.as_secs_f64(),
                "the tenant's tasks panicked and start again; please report this"
            );
            told.report.restarted();
            let cause = format!("the tenant's tasks panicked and start again: {message}");
            told.troubled(Stage::Restart, None, &Trouble::passing("panic", cause));
        },
    )
    .await;
}

/// Runs `run` again and again until it ends in order, or `stop` says so.
pub(super) async fn restarting<R: Future<Output = Result<(), Panicked>>>(
    stop: &CancellationToken,
    mut run: impl FnMut() -> R,
    mut tell: impl FnMut(&Panicked, Duration),
) {
    let mut backoff = Backoff::new(Stage::Restart);
    loop {
        let begun = Instant::now();
        // Nothing of a run outlives it, except what is guarded against poisoning.
        let ended = AssertUnwindSafe(async { run().await }).catch_unwind().await;
        let panicked = match ended {
            Ok(Ok(())) => return,
            Ok(Err(panicked)) => panicked,
            Err(payload) => Panicked(panic_text(payload.as_ref())),
        };
        if begun.elapsed() >= STABLE {
            backoff.succeeded();
        }
        let wait = backoff.failed(None);
        tell(&panicked, wait);
        if until_stopped(stop, wait).await {
            return;
        }
    }
}

/// Waits; true if it was stopped meanwhile.
async fn until_stopped(stop: &CancellationToken, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = sleep(wait) => false,
    }
}

/// What a panic says.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Runs that each take `secs` and then panic, in one of the two ways, until the seventh ends in order.
    async fn waits(secs: u64) -> Vec<(String, Duration)> {
        let stop = CancellationToken::new();
        let (runs, told) = (Cell::new(0), RefCell::new(Vec::new()));
        let run = || {
            runs.set(runs.get() + 1);
            let number = runs.get();
            async move {
                sleep(Duration::from_secs(secs)).await;
                match number {
                    7 => Ok(()),
                    even if even % 2 == 0 => Err(Panicked(format!("task {even}"))),
                    odd => panic!("driver {odd}"),
                }
            }
        };
        restarting(&stop, run, |panicked, wait| told.borrow_mut().push((panicked.0.clone(), wait))).await;
        assert_eq!(runs.get(), 7);
        told.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn it_starts_again_after_growing_waits() {
        let told = waits(1).await;
        let texts: Vec<_> = told.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["driver 1", "task 2", "driver 3", "task 4", "driver 5", "task 6"]);
        assert!(told[0].1 < Duration::from_secs(2) && told[5].1 > Duration::from_secs(20), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tree_that_ran_for_long_starts_again_soon() {
        let told = waits(STABLE.as_secs()).await;
        assert!(told.iter().all(|(_, wait)| *wait < Duration::from_secs(2)), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_stopped_while_it_waits() {
        let stop = CancellationToken::new();
        let started = Instant::now();
        let run = || async { Err(Panicked("again".to_owned())) };
        restarting(&stop, run, |_, _| stop.cancel()).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
