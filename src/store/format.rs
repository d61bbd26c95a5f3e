//! What the store on disk is: the file `format`, JSON, written once when the store is made.
//!
//! ```json
//! {"format": 1, "store": "5c0e…", "seen_key": "9f86d081884c7d659a2feaa0c55ad015"}
//! ```
//!
//! - `format`: the version of everything below the directory. A store of an older version is taken to this one step
//!   by step; each step may be repeated, because a crash can fall between its end and the note that it is done.
//! - `store`: the store's id, so that two stores are told apart.
//! - `seen_key`: the key of the keyed hashes in the index of seen ids, so that nobody outside can aim at collisions.
//!
//! A store whose `format` is missing although it holds content is not opened: with a new key nothing stored before
//! would be recognised, and everything the service still holds would be stored again.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::durable;
use super::error::StoreError;

/// Takes a store from one version to the next. It can be called again after a crash.
type Step = fn(&Path) -> Result<(), StoreError>;

/// The steps: the first goes from version 1 to version 2.
const STEPS: &[Step] = &[];

/// A store's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// The store's id.
    pub(super) store: Uuid,
    /// The key of the hashes of seen ids.
    pub(super) seen_key: [u8; 16],
    /// Whether the store was made just now.
    pub(super) new: bool,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    store: Uuid,
    seen_key: String,
}

impl Format {
    /// Reads the format, taking an older store to this version; a store that holds nothing yet gets one.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, STEPS)
    }

    fn open_with(directory: &Path, steps: &[Step]) -> Result<Self, StoreError> {
        let path = directory.join("format");
        let unreadable = |why: &str| StoreError::UnreadableFormat { path: path.clone(), why: why.to_owned() };
        let version = |steps: usize| u32::try_from(steps + 1).unwrap_or(u32::MAX);
        let newest = version(steps.len());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !durable::entries(&directory.join("content"))?.is_empty() {
                    return Err(unreadable("it is missing although the store holds content"));
                }
                let format = Self { store: Uuid::new_v4(), seen_key: random_key(&path)?, new: true };
                format.write(&path, newest)?;
                return Ok(format);
            }
            Err(error) => return Err(StoreError::read(&path, error)),
        };
        let file: File = serde_json::from_slice(&text).map_err(|error| unreadable(&error.to_string()))?;
        let seen_key =
            from_hex(&file.seen_key).ok_or_else(|| unreadable("`seen_key` is not sixteen bytes in hexadecimal"))?;
        if file.format == 0 {
            return Err(unreadable("there is no format 0"));
        }
        if file.format > newest {
            return Err(StoreError::UnknownFormat { path, found: file.format, known: newest });
        }
        let format = Self { store: file.store, seen_key, new: false };
        for (index, step) in steps.iter().enumerate().skip(file.format as usize - 1) {
            let (from, to) = (version(index), version(index + 1));
            tracing::info!(store = %directory.display(), from, to, "taking the store to a newer format");
            step(directory).and_then(|()| format.write(&path, to)).map_err(|source| StoreError::Migrate {
                path: directory.to_owned(),
                from,
                to,
                source: Arc::new(source),
            })?;
        }
        Ok(format)
    }

    fn write(&self, path: &Path, version: u32) -> Result<(), StoreError> {
        let file = File { format: version, store: self.store, seen_key: to_hex(&self.seen_key) };
        let text = serde_json::to_vec(&file).map_err(|error| StoreError::write(path, error.into()))?;
        durable::write_file(path, &text)
    }
}

fn random_key(path: &Path) -> Result<[u8; 16], StoreError> {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| StoreError::write(path, io::Error::other("the system gives no random bytes")))?;
    Ok(key)
}

fn to_hex(key: &[u8; 16]) -> String {
    key.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok())?.map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_id_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = Format::open(dir.path()).unwrap();
        assert!(made.new);
        let found = Format::open(dir.path()).unwrap();
        assert_eq!(found, Format { new: false, ..made.clone() });
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Format::open(other.path()).unwrap().seen_key, made.seen_key);
    }

    #[test]
    fn what_this_program_does_not_know_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("format");
        for (text, says) in [
            (
                r#"{"format":9,"store":"5c0e1fb0-0000-4000-8000-000000000000","seen_key":"00112233445566778899aabbccddeeff"}"#,
                "has format 9, this program knows formats up to 1",
            ),
            (
                r#"{"format":1,"store":"5c0e1fb0-0000-4000-8000-000000000000","seen_key":"+0112233445566778899aabbccddeeff"}"#,
                "`seen_key` is not sixteen bytes",
            ),
            (
                r#"{"format":0,"store":"5c0e1fb0-0000-4000-8000-000000000000","seen_key":"00112233445566778899aabbccddeeff"}"#,
                "no format 0",
            ),
            ("", "does not say the store's format"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Format::open(dir.path()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.exit_code(), 78);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(dir.path().join("content/2026-11-22.001")).unwrap();
        let error = Format::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("missing although"), "{error}");
    }

    #[test]
    fn an_older_store_is_taken_step_by_step_and_a_failed_step_is_repeated() {
        fn two(directory: &Path) -> Result<(), StoreError> {
            durable::write_file(&directory.join("two"), b"")
        }
        fn three(directory: &Path) -> Result<(), StoreError> {
            durable::rename(&directory.join("two"), &directory.join("three"))
        }
        fn fails(directory: &Path) -> Result<(), StoreError> {
            Err(StoreError::write(directory, io::ErrorKind::StorageFull.into()))
        }
        let dir = tempfile::tempdir().unwrap();
        let made = Format::open(dir.path()).unwrap();
        let error = Format::open_with(dir.path(), &[two, fails]).unwrap_err();
        assert!(error.to_string().contains("from format 2 to format 3"), "{error}");
        assert_eq!(error.exit_code(), 75);
        assert!(dir.path().join("two").exists());
        let format = Format::open_with(dir.path(), &[fails, three]).unwrap();
        assert_eq!((format.store, format.seen_key), (made.store, made.seen_key));
        assert!(dir.path().join("three").exists());
        let error = Format::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::UnknownFormat { found: 3, known: 1, .. }), "{error:?}");
    }
}
