//! Whose store it is: one process at a time.
//!
//! The lock is the operating system's lock on `<store>/lock`; it ends with the process, however that ends. What the
//! file says (JSON: pid, purpose, since when) only serves the message to those who must wait.
//!
//! A daemon that waits holds a second lock, `<store>/waiting`. A command that reads the store offline asks for it
//! from time to time ([`StoreLock::someone_waits`]) and gives way: the daemon waits 30 s, a reader looks at least every
//! 10 s.
//!
//! **Invariant:** nothing else in the store is opened, made or removed by a process that does not hold this lock.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::StoreError;

/// How often another process's lock is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Who holds a store, as its lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// What it does: `tenantry run`, `tenantry export`.
    pub purpose: String,
    /// Since when, by the host's clock.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {}, since {})", self.purpose, self.pid, self.since)
    }
}

/// Who asks for the lock, and how.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// What the lock file will say of us.
    pub holder: Holder,
    /// How long to wait for another process.
    pub wait: Duration,
    /// Whether offline readers shall give way to us while we wait: true for the daemon.
    pub urgent: bool,
}

/// The store is ours until this is dropped.
#[derive(Debug)]
pub struct StoreLock {
    directory: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl StoreLock {
    /// Makes the store's directory if it is missing, and takes its lock. Blocking, for at most the time that the
    /// request says.
    pub fn take(directory: &Path, request: &LockRequest) -> Result<Self, StoreError> {
        durable::make_directory(directory)?;
        usable(directory)?;
        let path = directory.join("lock");
        let failed = |error: io::Error| StoreError::LockFile { path: path.clone(), source: Arc::new(error) };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let asked = Instant::now();
        let mut waiting = None;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if asked.elapsed() < request.wait => {
                    if request.urgent && waiting.is_none() {
                        waiting = announce_waiting(directory)?;
                    }
                    pause(ASK_EVERY);
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = read_holder(&path).map(Box::new);
                    return Err(StoreError::InUse { path, holder, waited: request.wait });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        describe(&file, &request.holder).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), _file: file })
    }

    /// Whether a daemon waits for this store: an offline reader ends what it does and drops the lock.
    #[must_use]
    pub fn someone_waits(&self) -> bool {
        // Waiting daemons share that lock; only while nobody has it can it be had alone.
        match File::open(self.directory.join("waiting")) {
            Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }
}

/// Says in the lock file who holds it.
fn describe(mut file: &File, holder: &Holder) -> io::Result<()> {
    let text = serde_json::to_vec(holder)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.flush()
}

/// Reads what the lock file says. It may be caught half written; then it says nothing.
fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Takes a share of the waiting lock; `None` if a reader is just looking at it: try again.
fn announce_waiting(directory: &Path) -> Result<Option<File>, StoreError> {
    let path = directory.join("waiting");
    let failed = |error: io::Error| StoreError::LockFile { path: path.clone(), source: Arc::new(error) };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether this process may list, make and remove files here. Asked first, so that the answer names the directory and
/// not the first file that the store happens to need.
fn usable(directory: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};
        access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| StoreError::Forbidden { path: directory.to_owned(), source: Arc::new(error.into()) })?;
    }
    Ok(())
}

/// Waits for another process, which cannot be waited for in any better way than by asking again.
#[expect(clippy::disallowed_methods, reason = "another process's lock sends no signal when it is free")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(purpose: &str, wait: Duration) -> LockRequest {
        LockRequest {
            holder: Holder {
                pid: std::process::id(),
                purpose: purpose.to_owned(),
                since: "2026-11-22T12:00:00Z".parse().unwrap(),
            },
            wait,
            urgent: purpose == "tenantry run",
        }
    }

    #[test]
    fn the_second_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("made/for/it");
        let first = StoreLock::take(&store, &request("tenantry export", Duration::ZERO)).unwrap();
        let error = StoreLock::take(&store, &request("tenantry tail", Duration::from_millis(120))).unwrap_err();
        assert_eq!((error.exit_code(), error.kind()), (75, "in_use"));
        assert!(error.to_string().contains("`tenantry export`"), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");

        drop(first);
        StoreLock::take(&store, &request("tenantry tail", Duration::ZERO)).unwrap();
    }

    #[test]
    fn a_reader_sees_a_waiting_daemon_and_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().to_owned();
        let reader = StoreLock::take(&store, &request("tenantry export", Duration::ZERO)).unwrap();
        assert!(!reader.someone_waits());
        // Another reader waits for its turn; that is no reason to stop.
        StoreLock::take(&store, &request("tenantry tail", Duration::from_millis(60))).unwrap_err();
        assert!(!reader.someone_waits());

        let daemon = std::thread::spawn({
            let store = store.clone();
            move || StoreLock::take(&store, &request("tenantry run", Duration::from_secs(30))).unwrap()
        });
        let began = Instant::now();
        while !reader.someone_waits() {
            assert!(began.elapsed() < Duration::from_secs(10), "the waiting daemon is not seen");
            pause(Duration::from_millis(5));
        }
        drop(reader);
        let daemon = daemon.join().unwrap();
        assert!(!daemon.someone_waits());
        assert_eq!(read_holder(&store.join("lock")).unwrap().purpose, "tenantry run");
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_may_not_be_used_is_a_matter_of_permission() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o555)).unwrap();
        // Permissions do not bind root, whom some build machines run tests as.
        let Err(error) = StoreLock::take(&store, &request("tenantry run", Duration::ZERO)) else {
            assert!(rustix::process::geteuid().is_root());
            return;
        };
        assert_eq!(error.exit_code(), 77);
        assert!(error.to_string().contains("store`"), "{error}");
    }
}
