//! Files that survive a power cut: what is written, made, renamed or removed here is so on the disk when the call
//! returns.
//!
//! A new file is durable only when the file *and* the directory that names it are synced; a rename only when the
//! directory is. Nothing here knows what the files are for.
//!
//! What is made here belongs to its owner alone: records are nobody else's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Makes a file's data and size durable.
pub(super) fn sync_file(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| StoreError::sync(path, error))
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    sync_file(path)
}

/// Makes everything below `path`, and its name, durable.
pub(super) fn sync_tree(path: &Path) -> Result<(), StoreError> {
    for entry in entries(path)? {
        if entry.is_dir() { sync_tree(&entry)? } else { sync_file(&entry)? }
    }
    sync_directory(path)?;
    sync_parent(path)
}

/// Makes a file's or directory's name durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes a directory and those above it, each durable in the one above, for its owner alone.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    match make() {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                make_directory(parent)?;
                make().map_err(|error| StoreError::make_directory(path, error))?;
                sync_parent(path)
            }
            _ => Err(StoreError::make_directory(path, error)),
        },
        Err(error) => Err(StoreError::make_directory(path, error)),
    }
}

/// Puts a small file there, whole: after a power cut it has the old contents or the new ones.
pub(super) fn write_file(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let making = with_suffix(path, ".making");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    write().map_err(|error| StoreError::write(path, error))?;
    rename(&making, path)
}

/// Renames within a file system, durably. A directory that is not empty is never replaced.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::rename(from, to, error))?;
    if from.parent() != to.parent() {
        sync_parent(from)?;
    }
    sync_parent(to)
}

/// Removes a directory with all that is in it. What is not there is as good as removed.
pub(super) fn remove_directory(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::remove(path, error)),
    }
}

/// Removes a file. What is not there is as good as removed.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::remove(path, error)),
    }
}

/// What a directory holds, in the order of the names; nothing if it is not there.
pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect() };
    match list() {
        Ok(mut paths) => {
            paths.sort_unstable();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::list(path, error)),
    }
}

/// Bytes in the files below a directory. Files that vanish meanwhile count as nothing.
pub(super) fn size(path: &Path) -> Result<u64, StoreError> {
    let mut sum = 0;
    for entry in entries(path)? {
        sum += match fs::symlink_metadata(&entry) {
            Ok(metadata) if metadata.is_dir() => size(&entry)?,
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StoreError::read(&entry, error)),
        };
    }
    Ok(sum)
}

/// `path` with `suffix` at the end of its last name.
#[must_use]
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_file(&path, b"one").unwrap();
        // What a power cut between writing and renaming leaves behind.
        fs::write(with_suffix(&path, ".making"), b"half of a longer one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(dir.path()).unwrap(), [path]);
    }

    #[test]
    fn directories_are_made_with_those_above_and_removed_with_those_below() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        make_directory(&deep).unwrap();
        make_directory(&deep).unwrap();
        write_file(&deep.join("x"), &[0; 1000]).unwrap();
        sync_tree(&dir.path().join("a")).unwrap();
        assert_eq!(size(dir.path()).unwrap(), 1000);
        remove_directory(&dir.path().join("a")).unwrap();
        remove_directory(&dir.path().join("a")).unwrap();
        assert_eq!(entries(dir.path()).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(entries(&deep).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        make_directory(&deep).unwrap();
        write_file(&deep.join("x"), b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&dir.path().join("a")), mode(&deep), mode(&deep.join("x"))], [0o700, 0o700, 0o600]);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = make_directory(&file.join("below")).unwrap_err();
        assert!(matches!(error, StoreError::MakeDirectory { .. }), "{error:?}");
        assert!(error.to_string().contains("file/below"), "{error}");
    }
}
