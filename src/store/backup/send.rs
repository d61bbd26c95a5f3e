//! Sending: a store's partitions as a stream.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

use super::super::anchors::Anchors;
use super::super::error::StoreError;
use super::super::lock::{LockRequest, StoreLock};
use super::super::partition::{self, Label, PartitionName};
use super::super::partitions::{Partition, Reading};
use super::super::purge::{Purges, Record, for_backup};
use super::super::{durable, holdings::Holdings};
use super::frame::{End, Frame, Have};
use super::{BackupError, PIECE, identity};

/// How often a partition is sent, if its files change meanwhile.
const ATTEMPTS: usize = 3;

/// Takes a piece of the stream; an error ends it.
pub(super) type Out<'a> = &'a mut dyn FnMut(Bytes) -> Result<(), BackupError>;

/// Sends these partitions of a store that is open. Each is read while it is sent; one that retention drops is left out.
pub(super) fn send_sealed(
    holdings: &Holdings,
    partitions: &[Arc<Partition>],
    have: &Have,
    out: Out<'_>,
) -> Result<(), BackupError> {
    let mut sending = Sending::begin(&holdings.store, holdings.purges().list(), have, out)?;
    for partition in partitions {
        if sending.is_there(partition.name, partition.ordinal, &partition.directory)? {
            continue;
        }
        let reading = match holdings.partitions.read(partition) {
            Ok(reading) => Some(reading),
            Err(StoreError::PartitionDropped { .. }) => continue,
            // Nobody opens it; what there is of it is copied as it lies.
            Err(StoreError::Damaged { .. } | StoreError::Undecodable { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let go_on = || {
            // Not between two directories of that name.
            drop(holdings.moving());
            reading.as_ref().map_or(Ok(()), Reading::go_on)
        };
        sending.partition(partition.name, partition.ordinal, &partition.directory, &go_on)?;
    }
    // An anchor is written before its partition goes: with these, it is known of each whether it still counts.
    let anchors = holdings.anchors().clone();
    sending.end(&anchors, holdings.purges().list(), holdings.time.now())
}

/// Sends all partitions of a store that nobody has open. `may_go_on` is asked in between. Takes the store's lock, and makes
/// no other file there.
pub fn send_at_rest(
    store: &Path,
    lock: &LockRequest,
    have: &Have,
    out: &mut dyn FnMut(Bytes) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let lock_held = StoreLock::take(store, lock)?;
    let content = store.join("content");
    let anchors = Anchors::read(&content)?;
    let purges = Purges::read(&content)?.list();
    let mut sending = Sending::begin(store, purges.clone(), have, out)?;
    for (name, directory) in partition::list(&content)?.partitions {
        let ordinal = Label::read(&directory).map_or(0, |label| label.ordinal);
        // A daemon goes first; what was copied so far need not be copied again.
        let go_on = || if lock_held.someone_waits() { Err(StoreError::Closed) } else { Ok(()) };
        if !sending.is_there(name, ordinal, &directory)? {
            sending.partition(name, ordinal, &directory, &go_on)?;
        }
    }
    sending.end(&anchors, purges, lock.holder.since)
}

struct Sending<'a> {
    have: &'a Have,
    out: Out<'a>,
    /// When it was begun.
    purges: Vec<Record>,
    /// With their ordinals.
    sent: Vec<(PartitionName, u32)>,
}

impl<'a> Sending<'a> {
    fn begin(store: &Path, purges: Vec<Record>, have: &'a Have, out: Out<'a>) -> Result<Self, BackupError> {
        let path = store.join("format");
        let format = fs::read_to_string(&path).map_err(|error| StoreError::read(&path, error))?;
        let mut sending = Self { have, out, purges, sent: Vec::new() };
        sending.frame(&Frame::Begin { format })?;
        Ok(sending)
    }

    /// Whether the partition need not be sent.
    fn is_there(&mut self, name: PartitionName, ordinal: u32, directory: &Path) -> Result<bool, BackupError> {
        let known = identity(directory).map_err(|error| StoreError::read(directory, error))?;
        let there = known.is_some() && self.have.get(&name.to_string()) == known.as_ref();
        if there {
            self.sent.push((name, ordinal));
        }
        Ok(there)
    }

    fn partition(
        &mut self,
        name: PartitionName,
        ordinal: u32,
        directory: &Path,
        go_on: &dyn Fn() -> Result<(), StoreError>,
    ) -> Result<(), BackupError> {
        for _ in 0..ATTEMPTS {
            self.frame(&Frame::Partition { name: name.to_string() })?;
            match self.files(directory, go_on) {
                Ok(true) => {
                    self.sent.push((name, ordinal));
                    return self.frame(&Frame::Whole);
                }
                Ok(false) => self.frame(&Frame::Changed)?,
                Err(BackupError::Store(StoreError::PartitionDropped { .. })) => return self.frame(&Frame::Changed),
                Err(error) => return Err(error),
            }
        }
        Err(BackupError::Changing { name: name.to_string() })
    }

    /// Sends the files; answers whether they stood still meanwhile.
    fn files(&mut self, directory: &Path, go_on: &dyn Fn() -> Result<(), StoreError>) -> Result<bool, BackupError> {
        go_on()?;
        let before = stand(directory)?;
        for path in before.keys() {
            self.frame(&Frame::File { path: path.clone() })?;
            let path = directory.join(path);
            let failed = |error| StoreError::read(&path, error);
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(failed(error).into()),
            };
            loop {
                go_on()?;
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).map_err(failed)?;
                if read == 0 {
                    break;
                }
                piece.truncate(read);
                self.frame(&Frame::Bytes(read))?;
                (self.out)(piece.into())?;
            }
        }
        go_on()?;
        Ok(stand(directory)? == before)
    }

    fn end(mut self, anchors: &Anchors, purges: Vec<Record>, at: Timestamp) -> Result<(), BackupError> {
        let there = self.sent.iter().filter(|(_, ordinal)| !anchors.has_dropped(*ordinal));
        let partitions = there.map(|(name, _)| name.to_string()).collect();
        let anchors = serde_json::to_string_pretty(anchors.list()).map_err(|error| unwritable(&error))?;
        let last = self.sent.iter().map(|(_, ordinal)| *ordinal).max().unwrap_or(0);
        let purges = for_backup(&self.purges, purges, last).map_err(|error| unwritable(&error))?;
        self.frame(&Frame::End(End { at, partitions, anchors, purges }))
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), BackupError> {
        (self.out)(line(frame)?)
    }
}

/// A frame as it is sent.
pub(super) fn line(frame: &Frame) -> Result<Bytes, BackupError> {
    let mut line = serde_json::to_vec(frame).map_err(|error| unwritable(&error))?;
    line.push(b'\n');
    Ok(line.into())
}

fn unwritable(error: &serde_json::Error) -> BackupError {
    BackupError::Unintelligible { why: error.to_string() }
}

/// The files of a partition, and what changes when one of them is written.
pub(super) fn stand(directory: &Path) -> Result<BTreeMap<String, (u64, Option<SystemTime>)>, StoreError> {
    let mut found = BTreeMap::new();
    let mut below = vec![(directory.to_owned(), String::new())];
    while let Some((directory, prefix)) = below.pop() {
        for path in durable::entries(&directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let relative = format!("{prefix}{name}");
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => below.push((path.clone(), format!("{relative}/"))),
                // What is being written under another name is no part of it.
                Ok(_) if name.ends_with(".making") || name.ends_with(".generating") => {}
                Ok(meta) => {
                    found.insert(relative, (meta.len(), meta.modified().ok()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::read(&path, error)),
            }
        }
    }
    Ok(found)
}
