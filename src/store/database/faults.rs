//! What tests make fail: calls of sled in the databases below a directory, as a disk would.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Doing, StoreError, fault};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum How {
    /// The disk cannot be read or written.
    Disk,
    /// The same, but what was to be done is done.
    DoneAndDisk,
    /// What is there does not hold together.
    Damage,
}

#[derive(Debug)]
struct Fault {
    below: PathBuf,
    doing: Doing,
    times: usize,
    how: How,
}

static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

fn faults() -> MutexGuard<'static, Vec<Fault>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, so many calls fail.
pub(in crate::store) fn fail(below: &Path, doing: Doing, times: usize, how: How) {
    faults().push(Fault { below: below.to_owned(), doing, times, how });
}

/// How many calls are still to fail.
pub(in crate::store) fn left(below: &Path) -> usize {
    faults().iter().filter(|fault| fault.below == below).map(|fault| fault.times).sum()
}

/// Nothing fails any more.
pub(in crate::store) fn end(below: &Path) {
    faults().retain(|fault| fault.below != below);
}

/// Whether this call is to fail, and how.
pub(super) fn next(path: &Path, doing: Doing) -> Option<How> {
    let mut faults = faults();
    let due = |fault: &&mut Fault| path.starts_with(&fault.below) && fault.doing == doing && fault.times > 0;
    let fault = faults.iter_mut().find(due)?;
    fault.times -= 1;
    Some(fault.how)
}

impl How {
    pub(super) fn error(self, path: &Path, doing: Doing) -> StoreError {
        match self {
            // Input/output error.
            Self::Disk | Self::DoneAndDisk => fault(path.to_owned(), doing, io::Error::from_raw_os_error(5)),
            Self::Damage => StoreError::Damaged { path: path.to_owned(), why: "a test says so".to_owned() },
        }
    }
}
