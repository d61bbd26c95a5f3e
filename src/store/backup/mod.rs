//! A backup: a folder that holds what a store held at one moment, without its state.
//!
//! ```text
//! FOLDER/
//!     format                  as in the store
//!     content/
//!         anchors             as in the store
//!         purges              as in the store, if a tenant was purged
//!         2026-11-22.001/     a partition, as in the store
//!         .partial-…          one on its way in
//!     manifest                JSON: every file of the backup, with its size and SHA-256; written last
//!     .lock                   held while somebody writes here
//! ```
//!
//! Content is the truth, so that this is all: what Microsoft cannot give back of the state stands in the newest partition
//! ([`snapshot`](super::snapshot)), and a store without a state is fed from there.
//!
//! **From a running daemon** ([`running`]): the state's snapshot is written into the newest partition, another is begun, and
//! when that one is sealed everything that is sealed is sent as a stream ([`frame`]). Nothing is locked meanwhile: sealed
//! files do not change, and who copies them reads the partition, so that retention waits for him as for any reader.
//! **From a store at rest** ([`send`]): the same stream, of all partitions as they are, while the store's lock is held.
//! **Into a folder** ([`folder`]): a partition that is there whole is not sent again. **Back** ([`restore`](mod@restore)).
//!
//! **Invariant:** what the manifest names was there, whole and durable, before the manifest was. A folder whose files are
//! not those of its manifest is nothing that can be restored from, and a further run makes it one.

pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod restore;
pub(crate) mod running;
pub(crate) mod send;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

pub use self::folder::{Folder, Made};
pub use self::frame::Have;
pub use self::restore::{Restored, restore};
pub use self::running::Sealed;
pub use self::send::send_at_rest;

/// The version of the manifest. A program that knows less refuses it.
const VERSION: u32 = 1;
/// Files are read in pieces of this size.
const PIECE: usize = 256 << 10;

/// Why there is no backup, or nothing was restored from one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store that is backed up, or restored into, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup's folder cannot be used.
    #[error("the backup's folder cannot be used: {}: make room or give access there, and run this again", .0.trouble().cause)]
    Folder(StoreError),
    /// The folder holds something else.
    #[error("`{}` holds `{what}`, which is no part of a backup: name an empty folder, or the one of an earlier backup", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
    /// The folder holds a backup of another store.
    #[error("`{}` is the backup of another store: name another folder", path.display())]
    OtherStore {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else writes to the folder.
    #[error("another process writes to the backup `{}`: let it finish, then run this again", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The files of a partition do not stand still.
    #[error("the files of the partition `{name}` change while they are copied: run this again")]
    Changing {
        /// The partition.
        name: String,
    },
    /// A partition was not sealed in time.
    #[error("the partition `{name}` could not be sealed in time: the journal says why; run this again")]
    Unsealed {
        /// The partition.
        name: String,
    },
    /// The stream ended before its end.
    #[error("the backup is not complete ({why}): run this again, it goes on with what is missing")]
    BrokenOff {
        /// As far as is known.
        why: String,
    },
    /// The stream holds something else than it should.
    #[error("what the daemon sends cannot be understood ({why}): use the same version of Tenantry as the daemon")]
    Unintelligible {
        /// What it is.
        why: String,
    },
    /// Nobody takes what is sent.
    #[error("nobody takes the backup any more")]
    HungUp,
    /// The folder is no whole backup.
    #[error("`{}` is not a whole backup ({why}): let `tenantry store backup` complete it, or use another one; nothing was changed", path.display())]
    NotWhole {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file of the backup is not the one that was written.
    #[error("`{}` is not as it was backed up ({why}): use another backup; nothing was changed", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// What is different.
        why: String,
    },
    /// There is something where a backup should be restored to.
    #[error("the store `{}` is in use: it holds `{what}`. Move it away, or set another `path` under `[store]`, and run this again", path.display())]
    Used {
        /// The store.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
}

/// The file `manifest`: what belongs to the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Its version.
    pub(crate) version: u32,
    /// The program that wrote it.
    pub(crate) program: String,
    /// The moment of which this is what the store held.
    pub(crate) at: Timestamp,
    /// Every file, by its path in the folder.
    pub(crate) files: BTreeMap<String, FileSum>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSum {
    /// Its size.
    pub(crate) bytes: u64,
    /// SHA-256 of its contents, in hexadecimal.
    pub(crate) sha256: String,
}

/// Adds up a file's contents as they come.
struct Summing {
    bytes: u64,
    sha256: Context,
}

impl Summing {
    fn new() -> Self {
        Self { bytes: 0, sha256: Context::new(&SHA256) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    fn sum(self) -> FileSum {
        FileSum { bytes: self.bytes, sha256: hex(self.sha256.finish().as_ref()) }
    }
}

impl FileSum {
    fn of_bytes(bytes: &[u8]) -> Self {
        let mut summing = Summing::new();
        summing.add(bytes);
        summing.sum()
    }

    /// Reads a file; `take` gets what is in it.
    fn of_file(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut summing = Summing::new();
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(summing.sum()),
                read => {
                    summing.add(&piece[..read]);
                    take(&piece[..read])?;
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// By what a sealed partition is known: its label and its sums, which no other one of the store has. `None` if it is not
/// sealed.
fn identity(partition: &Path) -> io::Result<Option<String>> {
    let mut both = Vec::new();
    for name in ["partition", "sealed"] {
        match std::fs::read(partition.join(name)) {
            Ok(bytes) => both.extend(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(FileSum::of_bytes(&both).sha256))
}
