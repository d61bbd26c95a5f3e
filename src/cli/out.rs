//! Standard output: the one way in which commands print results, and the errors of whatever they write to.
//!
//! **Invariant:** a reader that has gone is a quiet end; nothing here panics, whatever the output is.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use super::Exit;

/// What a command writes cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has seen enough.
    #[error("nobody reads the output any more")]
    Closed,
    /// It is full, or refuses for another reason.
    #[error("cannot write to {to}")]
    Failed {
        /// A file's name in backticks, or what it is.
        to: String,
        /// Why not.
        source: io::Error,
    },
}

impl OutputError {
    /// What is wrong with writing to `to`.
    pub(super) fn new(to: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed { to: to.into(), source } }
    }

    /// The exit code that it deserves.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Closed => Exit::Done,
            Self::Failed { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Exit::Permission,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Exit::TryAgain,
                _ => Exit::Failed,
            },
        }
    }

    /// Whether the end that this error leads to is a usual one.
    pub(super) fn is_quiet_end(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Self::Closed)))
    }
}

/// What errors call it.
pub(super) const STANDARD_OUTPUT: &str = "standard output";

/// Prints `text` as it is.
pub(super) fn print(text: &str) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| OutputError::new(STANDARD_OUTPUT, error))
}

/// The same for the last words of a command whose outcome stands: that nobody reads them changes nothing about it.
pub(super) fn print_outcome(text: &str) -> Result<(), OutputError> {
    match print(text) {
        Err(OutputError::Closed) => Ok(()),
        printed => printed,
    }
}

/// Says a word to the person at the terminal, on standard error; results never go there.
pub(super) fn notice(text: &str) {
    // Nothing is left to tell if even this cannot be printed.
    let _ = writeln!(io::stderr(), "tenantry: {text}");
}

/// Resolves when nobody reads standard output any more, if it is a pipe. What writes only now and then would not notice.
pub(super) async fn closed() {
    let (told, hears) = oneshot::channel();
    let watching = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
        let out = io::stdout();
        // No event is asked for: an error is told in any case.
        let mut watched = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
        while let Ok(_) | Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {
            if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                let _ = told.send(());
                return;
            }
        }
    });
    // Without the thread, the next writing notices.
    if watching.is_err() || hears.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The columns and lines of the terminal that standard output is.
pub(super) fn screen() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A terminal that does not know its size says zero.
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}
