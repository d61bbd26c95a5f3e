//! What can go wrong in the store, one variant per operation that failed.
//!
//! Every error knows three things besides its text: a stable label ([`StoreError::kind`]), what the operator can do
//! ([`StoreError::remedy`]) and the exit code that it deserves at start ([`StoreError::exit_code`]). Errors are cheap
//! to clone, because one failed write is the answer to everybody whose work was in that batch.
//!
//! **Invariant:** only [`StoreError::Damaged`] and [`StoreError::Undecodable`] ever lead to a directory being moved aside. A full disk, an I/O error,
//! missing permission, a held lock and slowness never do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::lock::Holder;
use crate::content::TenantId;
use crate::report::Trouble;

/// An operating system's error, shared by all who wait for the same write.
pub type Fault = Arc<io::Error>;

/// A store that cannot be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A directory could not be made.
    #[error("cannot make the directory `{}`", path.display())]
    MakeDirectory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A directory could not be listed.
    #[error("cannot list the directory `{}`", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A small file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A small file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A file or directory could not be made durable.
    #[error("cannot make `{}` durable", path.display())]
    Sync {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A file or directory could not be renamed.
    #[error("cannot rename `{}` to `{}`", from.display(), to.display())]
    Rename {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A file or directory that is no longer needed could not be removed.
    #[error("cannot remove `{}`", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// The directory is there, but this process may not use it.
    #[error("this process may not read and write `{}`", path.display())]
    Forbidden {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// The lock file could not be used (which is not the same as: somebody else holds it).
    #[error("cannot use the lock file `{}`", path.display())]
    LockFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// Another process holds the store.
    #[error("the store is in use: {} holds `{}`, waited {} s", holder_text(holder.as_deref()), path.display(), waited.as_secs())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as the lock file says.
        holder: Option<Box<Holder>>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file that names the format cannot be understood.
    #[error("`{}` does not say the store's format: {why}", path.display())]
    UnreadableFormat {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store was written by a newer Tenantry.
    #[error("`{}` has format {found}, this program knows formats up to {known}", path.display())]
    UnknownFormat {
        /// The file that says so.
        path: PathBuf,
        /// The store's version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A step from one format to the next failed.
    #[error("cannot take the store `{}` from format {from} to format {to}", path.display())]
    Migrate {
        /// The store.
        path: PathBuf,
        /// From which version.
        from: u32,
        /// To which version.
        to: u32,
        /// Why not.
        source: Arc<StoreError>,
    },
    /// A database could not be opened because of the operating system.
    #[error("cannot open the database `{}`", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A database's own lock is held although the store's lock is ours.
    #[error("the database `{}` is locked by another process", path.display())]
    DatabaseInUse {
        /// Its directory.
        path: PathBuf,
    },
    /// A database was made with settings or by a version that this program cannot use.
    #[error("the database `{}` cannot be used by this program: {why}", path.display())]
    Incompatible {
        /// Its directory.
        path: PathBuf,
        /// In the engine's words.
        why: String,
    },
    /// A database's files do not hold together.
    #[error("the database `{}` is damaged: {why}", path.display())]
    Damaged {
        /// Its directory.
        path: PathBuf,
        /// In the engine's words.
        why: String,
    },
    /// A database could not be read because of the operating system.
    #[error("cannot read the database `{}`", path.display())]
    ReadDatabase {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// A batch could not be made durable: it may be there or not after the database is reopened.
    #[error("cannot write the database `{}`", path.display())]
    WriteDatabase {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// The database is closed after a failed write, until it can be opened again.
    #[error("the database `{}` is closed since a write to it failed", path.display())]
    Suspended {
        /// Its directory.
        path: PathBuf,
    },
    /// A key and value are larger than the store may hold in one piece. The caller cuts them.
    #[error("an entry of {bytes} bytes is too large for the database `{}`: at most {most}", path.display())]
    TooLarge {
        /// The database's directory.
        path: PathBuf,
        /// Bytes of key and value.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A value that was read back cannot be understood.
    #[error("{what} in `{}` cannot be understood: {why}", path.display())]
    Undecodable {
        /// The database's directory.
        path: PathBuf,
        /// What it should have been.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The partition was dropped by retention while it was read, or before.
    #[error("the partition `{name}` was dropped")]
    PartitionDropped {
        /// Its name.
        name: String,
    },
    /// Something that is stored could not be read and was left out of what was read.
    #[error("what was read is not complete: {partitions} partitions and {blobs} blobs are damaged, first {first}")]
    Incomplete {
        /// How many partitions could not be read.
        partitions: usize,
        /// How many blobs of the others.
        blobs: u64,
        /// Where the first damage is, and what.
        first: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// A writer thread ended although nobody closed the store.
    #[error("the store's {writer} writer has ended: {why}")]
    WriterEnded {
        /// Which.
        writer: &'static str,
        /// What it left behind.
        why: String,
    },
    /// The tenant was purged while this was being received.
    #[error("tenant `{tenant}` was purged meanwhile")]
    Purged {
        /// Which.
        tenant: TenantId,
    },
    /// Storing this blob made the writer panic.
    #[error("storing it made the program panic: {why}")]
    Panicked {
        /// What the panic said.
        why: String,
    },
    /// So many records are being received that there is no memory for the ids of more; it comes again.
    #[error("there is no memory for the ids of the records that are being received")]
    Crowded,
    /// A thread could not be started.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why not.
        source: Fault,
    },
}

fn holder_text(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

impl StoreError {
    /// The operating system's error at the bottom, if there is one.
    #[must_use]
    pub fn fault(&self) -> Option<&io::Error> {
        match self {
            Self::MakeDirectory { source, .. }
            | Self::List { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Sync { source, .. }
            | Self::Rename { source, .. }
            | Self::Remove { source, .. }
            | Self::Forbidden { source, .. }
            | Self::LockFile { source, .. }
            | Self::Open { source, .. }
            | Self::ReadDatabase { source, .. }
            | Self::WriteDatabase { source, .. }
            | Self::Thread { source, .. } => Some(source),
            Self::Migrate { source, .. } => source.fault(),
            Self::InUse { .. }
            | Self::UnreadableFormat { .. }
            | Self::UnknownFormat { .. }
            | Self::DatabaseInUse { .. }
            | Self::Incompatible { .. }
            | Self::Damaged { .. }
            | Self::Suspended { .. }
            | Self::TooLarge { .. }
            | Self::Undecodable { .. }
            | Self::PartitionDropped { .. }
            | Self::Incomplete { .. }
            | Self::Closed
            | Self::Purged { .. }
            | Self::Panicked { .. }
            | Self::Crowded
            | Self::WriterEnded { .. } => None,
        }
    }

    /// Whether it is the disk that does not give what it holds. Want of memory or of file descriptors passes.
    pub(super) fn may_last(&self) -> bool {
        let passes = |fault: &io::Error| {
            let code = fault.raw_os_error().map(Errno::from_raw_os_error);
            matches!(code, Some(Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE))
        };
        self.kind() == "io" && self.fault().is_some_and(|fault| !passes(fault))
    }

    /// A stable label, for metrics and filters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InUse { .. } | Self::DatabaseInUse { .. } => "in_use",
            Self::UnreadableFormat { .. } | Self::UnknownFormat { .. } | Self::Incompatible { .. } => "format",
            Self::Damaged { .. } | Self::Undecodable { .. } | Self::Incomplete { .. } => "damaged",
            Self::PartitionDropped { .. } => "dropped",
            Self::MakeDirectory { source, .. }
                if matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) =>
            {
                "path"
            }
            Self::Suspended { .. } => "suspended",
            Self::TooLarge { .. } => "too_large",
            Self::Closed => "closed",
            Self::WriterEnded { .. } => "writer_ended",
            Self::Purged { .. } => "purged",
            Self::Panicked { .. } => "panicked",
            Self::Crowded => "crowded",
            _ => match self.fault().map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => "permission",
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
                    "disk_full"
                }
                _ => "io",
            },
        }
    }

    /// The exit code when the store cannot be opened: 77 for missing permission, 78 where trying again cannot help (a
    /// format that this program does not know, a path that cannot be a directory), 75 for everything that may pass:
    /// lock, disk, I/O.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            "permission" => 77,
            "format" | "path" => 78,
            _ => 75,
        }
    }

    /// What the operator can do, in one sentence without a full stop; empty if there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "stop the other process, or let it finish; while the daemon runs, ask it through its admin socket"
            }
            Self::DatabaseInUse { .. } => "find the process that has the directory open (`fuser -v`) and stop it",
            Self::UnknownFormat { .. } => "run the Tenantry version that wrote this store, or a newer one",
            Self::UnreadableFormat { .. } => "restore this file from a backup of the store",
            Self::Incompatible { .. } => "run the Tenantry version that wrote this store",
            Self::Damaged { .. } | Self::Incomplete { .. } => {
                "keep the directory for inspection and check the disk; content that the service still holds is collected again"
            }
            _ if self.fault().is_some_and(|fault| fault.kind() == io::ErrorKind::ReadOnlyFilesystem) => {
                "find out why the file system is read-only (`dmesg`), and mount it so that it can be written"
            }
            _ => match self.kind() {
                "permission" => {
                    "make the store's directory and everything in it readable and writable by the user that Tenantry runs as"
                }
                "path" => {
                    "move away what is in the place of the store's directory, or set another `path` under `[store]`"
                }
                "disk_full" => "free space on the store's file system, or move the store to a larger one",
                "io" => "check the disk and the file system (`dmesg`)",
                _ => "",
            },
        }
    }

    /// The same, as the operator reads it elsewhere.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let cause = match self.fault() {
            Some(fault) => format!("{self}: {fault}"),
            None => self.to_string(),
        };
        let kind = format!("store_{}", self.kind());
        // One store serves all tenants: the journal hears of it once.
        let passes = matches!(self, Self::Suspended { .. } | Self::Crowded | Self::Closed | Self::Purged { .. });
        let trouble =
            if passes { Trouble::passing(&kind, cause) } else { Trouble::for_operator(&kind, cause, self.remedy()) };
        Trouble { shared: true, ..trouble }
    }

    pub(super) fn make_directory(path: &Path, source: io::Error) -> Self {
        Self::MakeDirectory { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn list(path: &Path, source: io::Error) -> Self {
        Self::List { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn sync(path: &Path, source: io::Error) -> Self {
        Self::Sync { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn rename(from: &Path, to: &Path, source: io::Error) -> Self {
        Self::Rename { from: from.to_owned(), to: to.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn remove(path: &Path, source: io::Error) -> Self {
        Self::Remove { path: path.to_owned(), source: Arc::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_cause_and_not_the_operation() {
        let path = Path::new("/var/lib/tenantry");
        let failing = |kind: io::ErrorKind| StoreError::write(path, io::Error::from(kind));
        for (error, kind, code) in [
            (failing(io::ErrorKind::PermissionDenied), "permission", 77),
            (failing(io::ErrorKind::ReadOnlyFilesystem), "permission", 77),
            (failing(io::ErrorKind::StorageFull), "disk_full", 75),
            (failing(io::ErrorKind::QuotaExceeded), "disk_full", 75),
            (failing(io::ErrorKind::Other), "io", 75),
            (StoreError::InUse { path: path.into(), holder: None, waited: Duration::ZERO }, "in_use", 75),
            (StoreError::make_directory(path, io::ErrorKind::NotADirectory.into()), "path", 78),
            (StoreError::make_directory(path, io::ErrorKind::PermissionDenied.into()), "permission", 77),
            (StoreError::UnknownFormat { path: path.into(), found: 9, known: 1 }, "format", 78),
            (StoreError::Damaged { path: path.into(), why: "x".into() }, "damaged", 75),
        ] {
            assert_eq!((error.kind(), error.exit_code()), (kind, code), "{error:?}");
            assert!(!error.remedy().is_empty(), "{error:?} tells the operator nothing");
        }
    }

    #[test]
    fn what_is_read_only_is_no_matter_of_owners() {
        let error = StoreError::write(Path::new("/s/db"), io::ErrorKind::ReadOnlyFilesystem.into());
        assert!(error.remedy().contains("mount it"), "{}", error.remedy());
    }

    #[test]
    fn a_text_does_not_repeat_its_source_and_a_trouble_holds_both() {
        let error = StoreError::sync(Path::new("/s/db"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.to_string(), "cannot make `/s/db` durable");
        let trouble = error.trouble();
        assert_eq!(trouble.cause, "cannot make `/s/db` durable: no storage space");
        assert_eq!(trouble.kind, "store_disk_full");
    }
}
