//! The gate between one tenant's tasks and the management API: closed while the service has asked for a wait.
//!
//! Every request of a tenant passes its gate at the last moment before it is sent. Whoever reads a wait closes the
//! gate before doing anything else.
//!
//! **Invariants:** once a wait was read, no request to the tenant's management API is begun before it ends, by this
//! process or the next: the tree writes it to the store as soon as it is read; a wait is never shortened. The gate is
//! closed as soon as the head of an answer names a wait; the answer's words come later. Requests that are under way when the gate closes are not called back: the service has them,
//! except those that are still connecting, which are sent when they are connected.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest wait that is obeyed. The service keeps content for seven days: a header that says to stay away for
/// longer than this would lose data, and is asked about again once a day.
pub use crate::http::headers::LONGEST_WAIT as LONGEST;

/// One tenant's gate; open at first. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<Option<Instant>>>);

impl Gate {
    /// The service asked to be left alone for this long, counted from now.
    pub fn close_for(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST);
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = Some(closed.map_or(until, |before| before.max(until)));
    }

    /// Until when it is closed; `None` if a request may be sent now.
    #[must_use]
    pub fn closed_until(&self) -> Option<Instant> {
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.is_some_and(|until| until <= Instant::now()) {
            *closed = None;
        }
        *closed
    }

    /// Waits until a request may be sent. Whoever waits for something else afterwards asks again.
    pub async fn open(&self) {
        while let Some(until) = self.closed_until() {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_before_the_wait_ends() {
        let gate = Gate::default();
        assert_eq!(gate.closed_until(), None);
        let start = Instant::now();
        gate.close_for(30 * SECOND);
        gate.close_for(10 * SECOND);
        assert_eq!(gate.closed_until(), Some(start + 30 * SECOND), "a wait is never shortened");
        gate.open().await;
        assert!(start.elapsed() >= 30 * SECOND);
        assert_eq!(gate.closed_until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_read_by_another_task_holds_those_that_wait_already() {
        let gate = Arc::new(Gate::default());
        gate.close_for(10 * SECOND);
        let start = Instant::now();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move {
                gate.open().await;
                start.elapsed()
            }
        });
        tokio::time::sleep(5 * SECOND).await;
        gate.close_for(60 * SECOND);
        assert!(waiting.await.unwrap() >= 65 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_wait_ends_after_a_day() {
        let gate = Gate::default();
        gate.close_for(Duration::MAX);
        assert_eq!(gate.closed_until(), Some(Instant::now() + LONGEST));
    }
}
