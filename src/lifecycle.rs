//! Signals, systemd, and an orderly end.
//!
//! SIGTERM and SIGINT ask for a soft stop: nothing new is begun and what is under way may finish within the drain
//! limit. A second one is a hard stop: the process ends at once, which loses nothing, since nothing was acknowledged
//! before it was durable. SIGHUP asks for a reload. A stop during the start ends it at once, a reload follows it. Systemd hears `READY=1` once the daemon collects, `RELOADING=1`
//! around a reload, `STOPPING=1` with the soft stop, the report's sentence as `STATUS=`, and `WATCHDOG=1` as long as
//! the store's writers and the scheduler make progress.
//!
//! **Invariant:** nothing else in the crate handles signals or speaks to systemd.

use std::io;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::event;

/// What the operator, or systemd on their behalf, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Stop in order.
    Stop,
    /// Stop now.
    StopNow,
    /// Read the configuration again.
    Reload,
}

/// The process's signals, as requests in the order in which they came.
#[derive(Debug)]
pub struct Lifecycle {
    requests: mpsc::UnboundedReceiver<Request>,
    handle: Handle,
}

impl Lifecycle {
    /// Takes over SIGTERM, SIGINT and SIGHUP from here on.
    pub fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        // Unbounded, because a signal must never be lost or block; a person sends a handful.
        let (sender, requests) = mpsc::unbounded_channel();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stopping = false;
            for signal in signals.forever() {
                let request = match (signal, stopping) {
                    (SIGHUP, _) => Request::Reload,
                    (_, false) => Request::Stop,
                    (_, true) => Request::StopNow,
                };
                stopping |= request == Request::Stop;
                if sender.send(request).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, handle })
    }

    /// The next request. Cancel safe.
    pub async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            // The thread ends only with this value; without it nobody can ask for anything any more.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Lifecycle {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Systemd's ear. Without `NOTIFY_SOCKET` every call does nothing.
#[derive(Debug, Default)]
pub struct Systemd {
    told: String,
}

impl Systemd {
    /// The daemon collects.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The report's sentence; repeated calls with the same one are free.
    pub fn status(&mut self, sentence: &str) {
        if self.told != sentence {
            sentence.clone_into(&mut self.told);
            notify(&[NotifyState::Status(sentence)]);
        }
    }

    /// A reload begins; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "cannot tell systemd of the reload"),
        }
    }

    /// The soft stop begins and may take `limit`.
    pub fn stopping(limit: Duration) {
        let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// Feeds the watchdog.
    pub fn alive() {
        notify(&[NotifyState::Watchdog]);
    }

    /// How long the watchdog waits for a beat. `None` if the unit has no watchdog.
    #[must_use]
    pub fn watchdog_limit() -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    /// The start goes on and may take `longer`.
    pub fn starting(longer: Duration) {
        notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(longer.as_micros()).unwrap_or(u32::MAX))]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd's notify socket does not take the message");
    }
}

/// Logs how the process ends, for the reader of the journal.
pub fn log_end(code: u8) {
    if code == 0 {
        info!(message_id = event::STOPPED, "stopped");
    } else {
        tracing::error!(message_id = event::FAILED, exit_code = code, "stopped because of the error above");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_become_requests_and_a_second_stop_is_a_hard_one() {
        let mut lifecycle = Lifecycle::start().unwrap();
        for (signal, request) in
            [(SIGHUP, Request::Reload), (SIGTERM, Request::Stop), (SIGHUP, Request::Reload), (SIGINT, Request::StopNow)]
        {
            signal_hook::low_level::raise(signal).unwrap();
            assert_eq!(lifecycle.next().await, request);
        }
    }
}
