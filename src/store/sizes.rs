//! How much the store takes of its disk, and what room it has there.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use super::durable;
use super::error::StoreError;

/// Bytes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of what was collected.
    pub content: u64,
    /// How many partitions that are.
    pub partitions: u64,
    /// Of queue, watermarks and dead letters.
    pub state: u64,
    /// What the store's user may still write.
    pub free: u64,
}

impl Sizes {
    /// Of the store in this directory. Blocking: asks for the size of every file.
    pub fn of(store: &Path) -> Result<Self, StoreError> {
        let mut sizes = Self::default();
        for entry in durable::entries(store)? {
            match entry.file_name().map(|name| name.to_string_lossy()) {
                Some(name) if name == "content" => {
                    sizes.content = durable::size(&entry)?;
                    let partitions = durable::entries(&entry)?.into_iter().filter(|path| path.is_dir());
                    sizes.partitions = partitions.count().try_into().unwrap_or(u64::MAX);
                }
                Some(name) if name.starts_with("state-") => sizes.state += durable::size(&entry)?,
                _ => {}
            }
        }
        sizes.free = Room::of(store)?.free;
        Ok(sizes)
    }
}

/// What the file system has for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the store's user may still write.
    pub free: u64,
    /// It is mounted so that nobody may write to it, as ext4 does by itself after an error.
    pub read_only: bool,
}

impl Room {
    /// Of the store in this directory. Blocking, and cheap on a disk that answers.
    pub fn of(store: &Path) -> Result<Self, StoreError> {
        let disk = rustix::fs::statvfs(store).map_err(|error| StoreError::read(store, error.into()))?;
        Ok(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            read_only: disk.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_measured_by_itself() {
        let store = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("content/a/db", 7), ("content/b/db", 5), ("content/anchors", 3), ("state-3/db", 11), ("lock", 100)]
        {
            let path = store.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        }
        let sizes = Sizes::of(store.path()).unwrap();
        assert_eq!((sizes.content, sizes.partitions, sizes.state), (15, 2, 11));
        assert!(sizes.free > 0);
    }
}
