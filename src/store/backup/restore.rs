//! Making a store out of a backup.
//!
//! Everything is read and compared with the manifest before anything is touched. Then the files are copied to
//! `.restoring/` in the store's directory, and when they are durable `content` gets its name, and `format` last: a store that
//! has content and no format is not opened by anybody, and the next restore finishes it.
//!
//! The last partition of a running daemon's backup is sealed, and a store whose last one is sealed has lost the next. It
//! comes back as one that is still written: nothing was lost after it, and the chains go on from where they stand there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::super::durable;
use super::super::error::StoreError;
use super::super::lock::{LockRequest, StoreLock};
use super::super::partition::{self, PartitionName, read_json};
use super::{BackupError, FileSum, Manifest, VERSION};

/// What may be in a store's directory to which a backup is restored.
const EMPTY: &[&str] = &["lock", "waiting", RESTORING];
const RESTORING: &str = ".restoring";

/// What a store holds that was made out of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Where it is: the store's path, or what that leads to.
    pub store: PathBuf,
    /// The moment that the backup is of.
    pub at: Timestamp,
    /// How many partitions.
    pub partitions: usize,
    /// How many of them have not been summed up: that of a store at rest that was still written.
    pub unsealed: usize,
    /// Content blobs in the others.
    pub blobs: u64,
    /// Records in those.
    pub records: u64,
    /// When the first and the last of those were stored.
    pub stored: Option<(Timestamp, Timestamp)>,
}

/// Restores the backup in `folder` to the directory of a store that holds nothing. Blocking: reads everything twice.
pub fn restore(folder: &Path, path: &Path, lock: &LockRequest) -> Result<Restored, BackupError> {
    let store = &place(path)?;
    let manifest = read_manifest(folder)?;
    if !is_half_restored(store)? {
        refuse_used(store)?;
    }
    check(folder, &manifest)?;
    let restored = Restored { store: store.clone(), ..sum_up(folder, &manifest)? };

    let _lock = StoreLock::take(store, lock)?;
    let making = store.join(RESTORING);
    if !is_half_restored(store)? {
        refuse_used(store)?;
        durable::remove_directory(&making)?;
        copy(folder, &manifest, &making)?;
        durable::sync_tree(&making)?;
        give_to_owner(store)?;
        durable::rename(&making.join("content"), &store.join("content"))?;
    }
    durable::rename(&making.join("format"), &store.join("format"))?;
    durable::remove_directory(&making)?;
    Ok(restored)
}

/// Where the store with this path is, or has to be. systemd makes the path of a service whose user is dynamic a link to
/// `private/` beside it. Whoever moved that directory away has left a link that leads nowhere; whoever moved the link has
/// left the directory, and beside it systemd does not start the service with any other.
fn place(path: &Path) -> Result<PathBuf, StoreError> {
    // Without a slash at its end, which would stand for what a link leads to.
    let path: PathBuf = path.components().collect();
    let failed = |error| Err(StoreError::read(&path, error));
    let above = path.parent().unwrap_or(Path::new(""));
    match fs::read_link(&path) {
        Ok(target) => match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(above.join(target)),
            Err(error) => failed(error),
            Ok(there) => Ok(there),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let private = above.join("private").join(path.file_name().unwrap_or_default());
            Ok(if private.is_dir() { private } else { path })
        }
        // It is no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(path),
        Err(error) => failed(error),
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest, BackupError> {
    let path = folder.join("manifest");
    let not_whole = |why: String| BackupError::NotWhole { path: folder.to_owned(), why };
    let manifest: Manifest = match read_json(&path) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Err(not_whole("it has no `manifest`".to_owned())),
        Err(StoreError::Damaged { why, .. }) => return Err(not_whole(format!("its `manifest` cannot be read: {why}"))),
        Err(error) => return Err(BackupError::Folder(error)),
    };
    if manifest.version > VERSION {
        let version = manifest.version;
        return Err(StoreError::UnknownFormat { path, found: version, known: VERSION }.into());
    }
    let inside = |path: &String| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(path) = manifest.files.keys().find(|path| !inside(path)) {
        return Err(not_whole(format!("its `manifest` names `{path}`")));
    }
    if !manifest.files.contains_key("format") || !manifest.files.contains_key("content/anchors") {
        return Err(not_whole("its `manifest` leaves out what every store has".to_owned()));
    }
    Ok(manifest)
}

/// Every file is the one that was written.
fn check(folder: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for (path, expected) in &manifest.files {
        compare(&folder.join(path), expected, |_| Ok(()))?;
    }
    Ok(())
}

/// Reads a file of the backup; `take` gets what is in it.
fn compare(
    path: &Path,
    expected: &FileSum,
    take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), BackupError> {
    let altered = |why: &str| BackupError::Altered { path: path.to_owned(), why: why.to_owned() };
    let mut take = take;
    let mut failed = None;
    let read = FileSum::of_file(path, |piece| {
        take(piece).map_err(|error| {
            failed = Some(error);
            io::Error::other("it cannot be copied")
        })
    });
    match (read, failed) {
        (_, Some(error)) => Err(error.into()),
        (Ok(found), None) if found == *expected => Ok(()),
        (Ok(found), None) if found.bytes != expected.bytes => {
            Err(altered(&format!("it has {} bytes instead of {}", found.bytes, expected.bytes)))
        }
        (Ok(_), None) => Err(altered("its SHA-256 is another one")),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Err(altered("it is missing")),
        (Err(error), None) => Err(BackupError::Folder(StoreError::read(path, error))),
    }
}

/// The partitions that the manifest names, in their order.
fn partitions(manifest: &Manifest) -> Vec<PartitionName> {
    let name = |path: &String| path.strip_prefix("content/")?.strip_suffix("/partition")?.parse().ok();
    let mut names: Vec<PartitionName> = manifest.files.keys().filter_map(name).collect();
    names.sort_unstable();
    names
}

fn sum_up(folder: &Path, manifest: &Manifest) -> Result<Restored, BackupError> {
    let names = partitions(manifest);
    let mut restored = Restored { at: manifest.at, partitions: names.len(), ..Restored::default() };
    let mut stored = partition::Span::default();
    for name in names {
        let directory = folder.join("content").join(name.to_string());
        match partition::read_sealed(&directory).map_err(BackupError::Folder)? {
            Some(sums) => {
                restored.blobs += sums.blobs;
                restored.records += sums.records;
                stored.join(sums.stored);
            }
            None => restored.unsealed += 1,
        }
    }
    restored.stored = stored.0;
    Ok(restored)
}

fn copy(folder: &Path, manifest: &Manifest, to: &Path) -> Result<(), BackupError> {
    let left_out = partitions(manifest).last().map(|last| format!("content/{last}/sealed"));
    for (path, expected) in &manifest.files {
        if Some(path) == left_out.as_ref() {
            continue;
        }
        let to = to.join(path);
        if let Some(above) = to.parent() {
            durable::make_directory(above)?;
        }
        let failed = |error| StoreError::write(&to, error);
        let mut file = File::create(&to).map_err(failed)?;
        compare(&folder.join(path), expected, |piece| file.write_all(piece).map_err(failed))?;
    }
    Ok(())
}

/// Whether a restore has been broken off between its last two steps.
fn is_half_restored(store: &Path) -> Result<bool, StoreError> {
    let there = |path: &str| {
        let path = store.join(path);
        fs::exists(&path).map_err(|error| StoreError::read(&path, error))
    };
    Ok(there("content")? && !there("format")? && there(&format!("{RESTORING}/format"))?)
}

fn refuse_used(store: &Path) -> Result<(), BackupError> {
    for entry in durable::entries(store)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !EMPTY.contains(&name.as_str()) {
            return Err(BackupError::Used { path: store.to_owned(), what: name });
        }
    }
    Ok(())
}

/// What root has made belongs to whom the store's directory belongs to, so that the service can open it.
fn give_to_owner(store: &Path) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(store).map_err(|error| StoreError::read(store, error))?;
    let mut below = durable::entries(store)?;
    while let Some(path) = below.pop() {
        let failed = |error| StoreError::write(&path, error);
        lchown(&path, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
        if fs::symlink_metadata(&path).map_err(failed)?.is_dir() {
            below.extend(durable::entries(&path)?);
        }
    }
    Ok(())
}
