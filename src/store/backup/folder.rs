//! The folder that a backup is written to.
//!
//! A partition is written under `.partial-<name>` and gets its name when all of it is durable. One that takes the place of
//! another waits for the end, so that a backup that is broken off leaves the one before as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::super::durable;
use super::super::error::StoreError;
use super::super::partition::{self, PartitionName, read_json, write_json};
use super::frame::{End, Frame, Have};
use super::{BackupError, FileSum, Manifest, Summing, VERSION, identity};

/// What lies in a backup's folder.
const ENTRIES: &[&str] = &["format", "content", "manifest", ".lock", "format.making", "manifest.making"];
/// The longest line of a stream.
const LONGEST: usize = 64 << 20;

/// What came of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The moment of which it is.
    pub at: Timestamp,
    /// How many partitions it holds.
    pub partitions: usize,
    /// How many of them were copied now.
    pub copied: usize,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Partitions that retention has dropped from the store, and that went from the folder too.
    pub removed: Vec<String>,
    /// Partitions that the store has lost. They are no part of the backup, and stay where they are.
    pub stray: Vec<String>,
}

type Files = BTreeMap<String, FileSum>;

/// A folder that a backup is being written to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    /// What the earlier manifest says.
    before: Files,
    format: Option<String>,
    coming: Option<Coming>,
    /// Partitions that have come, with their files.
    came: BTreeMap<PartitionName, Files>,
    /// Those of them that wait to take another's place.
    waiting: BTreeSet<PartitionName>,
    end: Option<End>,
    /// The beginning of a line.
    line: Vec<u8>,
    /// How many bytes of a file are still to come before the next line.
    left: usize,
}

/// The partition that is being written.
#[derive(Debug)]
struct Coming {
    name: PartitionName,
    directory: PathBuf,
    files: Files,
    file: Option<Receiving>,
}

struct Receiving {
    path: String,
    file: File,
    summing: Summing,
}

impl std::fmt::Debug for Receiving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiving").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Folder {
    /// Opens the folder of an earlier backup, or makes one. The folder above must be there: it may be a disk that is not
    /// mounted.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        match fs::create_dir(path) {
            Ok(()) => durable::sync_parent(path).map_err(BackupError::Folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(BackupError::Folder(StoreError::make_directory(path, error))),
        }
        for entry in durable::entries(path).map_err(BackupError::Folder)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !ENTRIES.contains(&name.as_str()) {
                return Err(BackupError::Foreign { path: path.to_owned(), what: name });
            }
        }
        let lock = take_lock(path)?;
        let content = path.join("content");
        let prepare = || -> Result<Files, StoreError> {
            durable::make_directory(&content)?;
            for other in partition::list(&content)?.others {
                if other.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".partial-")) {
                    durable::remove_directory(&other)?;
                }
            }
            // One that cannot be read counts for nothing: all digests are taken anew.
            match read_json::<Manifest>(&path.join("manifest")) {
                Ok(manifest) => Ok(manifest.map(|manifest| manifest.files).unwrap_or_default()),
                Err(StoreError::Damaged { .. }) => Ok(Files::new()),
                Err(error) => Err(error),
            }
        };
        let before = prepare().map_err(BackupError::Folder)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            before,
            format: None,
            coming: None,
            came: BTreeMap::new(),
            waiting: BTreeSet::new(),
            end: None,
            line: Vec::new(),
            left: 0,
        })
    }

    /// What it holds whole.
    pub fn have(&self) -> Result<Have, BackupError> {
        let mut have = Have::new();
        for (name, directory) in self.partitions()? {
            if let Some(identity) = identity(&directory).map_err(|error| unreadable(&directory, error))? {
                have.insert(name.to_string(), identity);
            }
        }
        Ok(have)
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.write(piece)?;
                self.left -= piece.len();
                bytes = rest;
            } else if let Some(at) = memchr::memchr(b'\n', bytes) {
                self.line.extend_from_slice(&bytes[..at]);
                bytes = &bytes[at + 1..];
                let line = std::mem::take(&mut self.line);
                let frame = serde_json::from_slice(&line).map_err(|error| unintelligible(&error.to_string()))?;
                self.take(frame)?;
            } else {
                self.line.extend_from_slice(bytes);
                bytes = &[];
                if self.line.len() > LONGEST {
                    return Err(unintelligible("a line has no end"));
                }
            }
        }
        Ok(())
    }

    /// The stream has ended: if it was whole, so is the backup from now on.
    pub fn finish(mut self) -> Result<Made, BackupError> {
        let (Some(end), Some(format)) = (self.end.take(), self.format.take()) else {
            return Err(BackupError::BrokenOff { why: "the stream broke off".to_owned() });
        };
        let mut names = BTreeSet::new();
        for name in &end.partitions {
            names.insert(parse(name)?);
        }
        let mut files = Files::new();
        for name in &names {
            files.extend(self.files_of(*name)?.into_iter().map(|(path, sum)| (format!("content/{name}/{path}"), sum)));
        }
        files.insert("format".to_owned(), FileSum::of_bytes(format.as_bytes()));
        files.insert("content/anchors".to_owned(), FileSum::of_bytes(end.anchors.as_bytes()));
        if let Some(purges) = &end.purges {
            files.insert("content/purges".to_owned(), FileSum::of_bytes(purges.as_bytes()));
        }
        let bytes = self.came.values().flat_map(BTreeMap::values).map(|sum| sum.bytes).sum();
        let (removed, stray) = self.settle(&names, &format, &end, files).map_err(BackupError::Folder)?;
        let copied = self.came.keys().filter(|name| names.contains(name)).count();
        Ok(Made { at: end.at, partitions: names.len(), copied, bytes, removed, stray })
    }

    /// Puts everything in its place, the manifest last, and removes what retention has dropped. Answers what it removed and
    /// what is there besides.
    fn settle(
        &self,
        names: &BTreeSet<PartitionName>,
        format: &str,
        end: &End,
        files: Files,
    ) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let content = self.path.join("content");
        for name in &self.waiting {
            let directory = content.join(name.to_string());
            durable::remove_directory(&directory)?;
            durable::rename(&partial(&content, *name), &directory)?;
        }
        durable::write_file(&self.path.join("format"), format.as_bytes())?;
        durable::write_file(&content.join("anchors"), end.anchors.as_bytes())?;
        if let Some(purges) = &end.purges {
            durable::write_file(&content.join("purges"), purges.as_bytes())?;
        }
        let program = concat!("tenantry ", env!("CARGO_PKG_VERSION")).to_owned();
        write_json(&self.path.join("manifest"), &Manifest { version: VERSION, program, at: end.at, files })?;

        let anchors = super::super::anchors::Anchors::read(&content)?;
        let (mut removed, mut stray) = (Vec::new(), Vec::new());
        for (name, directory) in partition::list(&content)?.partitions {
            if names.contains(&name) {
                continue;
            }
            let label = partition::Label::read(&directory).ok();
            if label.is_some_and(|label| anchors.has_dropped(label.ordinal)) {
                durable::remove_directory(&directory)?;
                removed.push(name.to_string());
            } else {
                stray.push(name.to_string());
            }
        }
        Ok((removed, stray))
    }

    /// The files of a partition that belongs to the backup.
    fn files_of(&self, name: PartitionName) -> Result<Files, BackupError> {
        if let Some(files) = self.came.get(&name) {
            return Ok(files.clone());
        }
        let directory = self.path.join("content").join(name.to_string());
        let sum = |path: &Path| FileSum::of_file(path, |_| Ok(())).map_err(|error| unreadable(path, error));
        let prefix = format!("content/{name}/");
        let known = self.before.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let known: Files = known.map(|(path, sum)| (path[prefix.len()..].to_owned(), sum.clone())).collect();
        let mut same = true;
        for path in ["partition", "sealed"] {
            same &= known.get(path) == Some(&sum(&directory.join(path))?);
        }
        if same {
            return Ok(known);
        }
        // It came whole in a run that did not reach its end.
        let mut files = Files::new();
        for (path, _) in super::send::stand(&directory).map_err(BackupError::Folder)? {
            let sum = sum(&directory.join(&path))?;
            files.insert(path, sum);
        }
        Ok(files)
    }

    fn take(&mut self, frame: Frame) -> Result<(), BackupError> {
        match frame {
            Frame::Begin { format } => self.begin(format),
            Frame::Partition { name } => {
                let name = parse(&name)?;
                let directory = partial(&self.path.join("content"), name);
                let make = || durable::remove_directory(&directory).and_then(|()| durable::make_directory(&directory));
                make().map_err(BackupError::Folder)?;
                self.coming = Some(Coming { name, directory, files: Files::new(), file: None });
                Ok(())
            }
            Frame::File { path } => self.coming()?.begin(path),
            Frame::Bytes(bytes) => {
                self.left = bytes;
                Ok(())
            }
            Frame::Whole => self.whole(),
            Frame::Changed => {
                if let Some(coming) = self.coming.take() {
                    durable::remove_directory(&coming.directory).map_err(BackupError::Folder)?;
                }
                Ok(())
            }
            Frame::Failed { why } => Err(BackupError::BrokenOff { why }),
            Frame::End(end) => {
                self.end = Some(end);
                Ok(())
            }
        }
    }

    /// From the first moment it is known whose backup this is.
    fn begin(&mut self, format: String) -> Result<(), BackupError> {
        let path = self.path.join("format");
        match fs::read_to_string(&path) {
            Ok(known) if store_of(&known) == store_of(&format) => {}
            Ok(_) => return Err(BackupError::OtherStore { path: self.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                durable::write_file(&path, format.as_bytes()).map_err(BackupError::Folder)?;
            }
            Err(error) => return Err(unreadable(&path, error)),
        }
        self.format = Some(format);
        Ok(())
    }

    fn whole(&mut self) -> Result<(), BackupError> {
        self.coming()?.close()?;
        let Some(Coming { name, directory, files, .. }) = self.coming.take() else { return Ok(()) };
        durable::sync_tree(&directory).map_err(BackupError::Folder)?;
        let to = self.path.join("content").join(name.to_string());
        if to.exists() {
            self.waiting.insert(name);
        } else {
            durable::rename(&directory, &to).map_err(BackupError::Folder)?;
        }
        self.came.insert(name, files);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let coming = self.coming()?;
        let file = coming.file.as_mut().ok_or_else(|| unintelligible("bytes of no file"))?;
        file.summing.add(bytes);
        let written = file.file.write_all(bytes);
        written.map_err(|error| BackupError::Folder(StoreError::write(&coming.directory.join(&file.path), error)))
    }

    fn coming(&mut self) -> Result<&mut Coming, BackupError> {
        self.coming.as_mut().ok_or_else(|| unintelligible("a file of no partition"))
    }

    fn partitions(&self) -> Result<Vec<(PartitionName, PathBuf)>, BackupError> {
        partition::list(&self.path.join("content")).map(|list| list.partitions).map_err(BackupError::Folder)
    }
}

impl Coming {
    fn begin(&mut self, path: String) -> Result<(), BackupError> {
        self.close()?;
        if path.is_empty() || !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(unintelligible(&format!("a file named `{path}`")));
        }
        let to = self.directory.join(&path);
        if let Some(above) = to.parent() {
            durable::make_directory(above).map_err(BackupError::Folder)?;
        }
        let file = File::create(&to).map_err(|error| BackupError::Folder(StoreError::write(&to, error)))?;
        self.file = Some(Receiving { path, file, summing: Summing::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), BackupError> {
        let Some(Receiving { path, file, summing }) = self.file.take() else { return Ok(()) };
        let synced = file.sync_all();
        synced.map_err(|error| BackupError::Folder(StoreError::sync(&self.directory.join(&path), error)))?;
        self.files.insert(path, summing.sum());
        Ok(())
    }
}

fn take_lock(folder: &Path) -> Result<File, BackupError> {
    let path = folder.join(".lock");
    let failed = |error| BackupError::Folder(StoreError::write(&path, error));
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::Busy { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn partial(content: &Path, name: PartitionName) -> PathBuf {
    content.join(format!(".partial-{name}"))
}

/// The store's id in the file `format`; its other keys may change with a version.
fn store_of(format: &str) -> Option<serde_json::Value> {
    serde_json::from_str::<serde_json::Value>(format).ok()?.get("store").cloned()
}

fn parse(name: &str) -> Result<PartitionName, BackupError> {
    name.parse().map_err(|()| unintelligible(&format!("a partition named `{name}`")))
}

fn unintelligible(why: &str) -> BackupError {
    BackupError::Unintelligible { why: why.to_owned() }
}

fn unreadable(path: &Path, error: io::Error) -> BackupError {
    BackupError::Folder(StoreError::read(path, error))
}
