//! Reloads, one after another, beside the daemon's own work: files may take as long as their file system likes.
//!
//! **Invariants:** one configuration is read at a time, in the order in which it was asked for; a signal that comes while
//! one is read is obeyed after it, since what is being read may be older; nothing else waits for a read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{self, Settings};
use crate::event;
use crate::web::reload::{ReloadRequest, Reloaded};

/// How long reading takes before it is told.
const SLOW: Duration = Duration::from_secs(30);

/// Who hears of the outcome.
pub(super) type Answer = oneshot::Sender<Result<Reloaded, String>>;

/// The reload under way, and whether a further one is wanted.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    wanted: bool,
    current: Option<Reload>,
}

/// A reload whose configuration is being read.
pub(super) struct Reload {
    pub(super) request: ReloadRequest,
    /// `None` if a signal asked.
    pub(super) answer: Option<Answer>,
    /// Systemd was told that it has begun.
    pub(super) told: bool,
    reading: BoxFuture<'static, anyhow::Result<Settings>>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("request", &self.request).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Reloads {
    /// A signal asks for one, now or once the one under way is done.
    pub(super) const fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether none is under way.
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Whether one is to begin that a signal asked for. It is taken for begun.
    pub(super) const fn take_wanted(&mut self) -> bool {
        self.is_idle() && std::mem::replace(&mut self.wanted, false)
    }

    /// Begins one; none may be under way.
    pub(super) fn begin(
        &mut self,
        request: ReloadRequest,
        answer: Option<Answer>,
        told: bool,
        reading: impl Future<Output = anyhow::Result<Settings>> + Send + 'static,
    ) {
        self.current = Some(Reload { request, answer, told, reading: Box::pin(reading) });
    }

    /// Resolves when the one under way has been read. Cancel safe.
    pub(super) async fn read(&mut self) -> (Reload, anyhow::Result<Settings>) {
        let read = match &mut self.current {
            Some(reload) => reload.reading.as_mut().await,
            None => std::future::pending().await,
        };
        match self.current.take() {
            Some(reload) => (reload, read),
            None => unreachable!("it was there a line ago"),
        }
    }
}

/// Reads the configuration on a thread of its own.
pub(super) async fn load(config: PathBuf) -> anyhow::Result<Settings> {
    let path = config.clone();
    let mut reading = spawn_blocking(move || config::load(&path));
    let read = if let Ok(read) = timeout(SLOW, &mut reading).await {
        read
    } else {
        warn!(
            message_id = event::SETTING_WARNING,
            seconds = SLOW.as_secs(),
            "reading `{}` takes long: check the file systems of the configuration and of the files that it names; the old \
             one stays in effect until it has been read",
            config.display()
        );
        reading.await
    };
    Ok(read.context("reading the configuration panicked")??)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn reloads_follow_one_another_and_a_signal_meanwhile_is_not_lost() {
        let mut reloads = Reloads::default();
        assert!(!reloads.take_wanted());
        assert!(reloads.read().now_or_never().is_none(), "nothing is under way");

        // Its files are on a mount that hangs.
        let (mount, hung) = oneshot::channel::<()>();
        let reading = async {
            hung.await.unwrap();
            anyhow::bail!("not there")
        };
        reloads.begin(ReloadRequest { allow_removal: true }, None, true, reading);
        assert!(!reloads.is_idle());
        for _ in 0..3 {
            reloads.want();
        }
        assert!(!reloads.take_wanted(), "one at a time");
        assert!(reloads.read().now_or_never().is_none());
        assert!(!reloads.is_idle(), "whoever stops waiting does not stop it");

        mount.send(()).unwrap();
        let (reload, read) = reloads.read().await;
        assert!(reload.request.allow_removal && reload.told && read.is_err());
        assert!(reloads.is_idle() && reloads.take_wanted(), "the signal is obeyed now");
        assert!(!reloads.take_wanted(), "once");
    }
}
