//! Where the state lies: `state-<n>/`, and the pointer file `state` that says which.
//!
//! sled never gives space back, so the state is copied now and then: into `state-<n+1>.new/`, which is made durable,
//! closed and renamed to `state-<n+1>/`; then the pointer is switched by a rename; then the old one is renamed to
//! `state-<n>.dropping/` and removed. A new state after a loss is made in the same way. So a directory whose name has no
//! suffix is complete, one with a suffix is nobody's, and a crash between any two steps leaves either the old state or
//! the new one, which hold the same.
//!
//! What happens at opening:
//!
//! | found | done |
//! |---|---|
//! | nothing at all | a new state; fed from a snapshot if there is one, and then it was lost |
//! | the pointer, its directory | opened; other generations are leftovers of a copy, and removed |
//! | the pointer, not its directory | [`Event::Missing`]; another generation if there is one, else a new state |
//! | no pointer, or one that says nothing | [`Event::PointerLost`]; the newest generation; others are moved aside |
//! | a damaged directory | [`Event::MovedAside`]; a new state |
//!
//! A new state after a loss is fed from the newest snapshot ([`Event::Restored`]); the queue and the watermarks are
//! not in it, because listing the last seven days again brings them back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::database::{self, Access, Batch, Database};
use super::super::durable;
use super::super::error::StoreError;
use super::super::snapshot;
use super::Event;
use super::keys::kind;
use super::records;

/// How many bytes a batch of a copy holds.
const COPY_BYTES: usize = 4 << 20;
/// How many entries a batch of a copy holds.
const COPY_ENTRIES: usize = 5_000;
/// Dead letters, and invites that have expired, are younger than this when a copy is made, or left out: that is far longer
/// than the service lists what a letter is about, and than anybody asks what became of an invite.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(90 * 24);

/// One directory that the state has been in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Generation(pub(in crate::store) u64);

impl Generation {
    pub(in crate::store) fn directory(self, store: &Path) -> PathBuf {
        store.join(format!("state-{}", self.0))
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn from_name(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("state-")?;
        let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        if canonical { digits.parse().ok().map(Self) } else { None }
    }
}

/// What the pointer file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    directory: String,
    since: Timestamp,
}

/// The state's database, found or made.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) database: Database,
    pub(super) generation: Generation,
    /// When it was made.
    pub(super) since: Timestamp,
}

/// Opens the state that the pointer names, or sets things right.
pub(super) fn open(
    store: &Path,
    access: Access,
    now: Timestamp,
    snapshot: &dyn Fn() -> Result<Option<Vec<u8>>, StoreError>,
    events: &mut Vec<Event>,
) -> Result<Found, StoreError> {
    remove_unfinished(store)?;
    let mut present = generations(store)?;
    let pointed = read_pointer(store)?;
    let pointed_to = match pointed {
        Pointed::At(generation, _) => Some(generation),
        Pointed::Nowhere(_) => None,
    };
    // Numbers are never used twice, so that a name in the journal means one directory.
    let unused = present.last().copied().max(pointed_to).unwrap_or(Generation(0)).next();
    let (chosen, since) = match pointed {
        Pointed::At(generation, since) if present.contains(&generation) => (Some(generation), since),
        Pointed::At(generation, since) => {
            events.push(Event::Missing { directory: generation.directory(store) });
            (present.last().copied(), since)
        }
        Pointed::Nowhere(why) => {
            if !present.is_empty() || why.is_some() {
                let why = why.unwrap_or_else(|| "it is missing".to_owned());
                events.push(Event::PointerLost { path: store.join("state"), why });
            }
            (present.last().copied(), now)
        }
    };
    if let Some(generation) = chosen {
        let directory = generation.directory(store);
        // All of it is read: damage that shows only later would end the daemon again and again.
        let opened = Database::open(&directory, Access { create: false, ..access })
            .and_then(|database| live_bytes(&database).map(|_| database));
        match opened {
            Ok(database) => {
                present.retain(|other| *other != generation);
                for other in present {
                    let directory = other.directory(store);
                    if pointed_to.is_some() {
                        drop_directory(&directory)?;
                    } else {
                        move_aside(store, &directory, "unknown", "the pointer does not name it", now, events)?;
                    }
                }
                point_to(store, generation, since)?;
                return Ok(Found { database, generation, since });
            }
            Err(StoreError::Damaged { why, .. }) => {
                move_aside(store, &directory, "damaged", &why, now, events)?;
            }
            Err(error) => return Err(error),
        }
    }
    let generation = unused;
    let mut restored = None;
    build(store, generation, access, |database| {
        if let Some(bytes) = snapshot()? {
            match snapshot::restore(&bytes) {
                Ok((batch, counts)) => {
                    for batch in batch {
                        database.commit(batch)?;
                    }
                    restored = Some(Event::Restored { counts });
                }
                Err(error) => restored = Some(Event::SnapshotUnreadable { why: error.to_string() }),
            }
        }
        Ok(())
    })?;
    if restored.is_some() && events.is_empty() {
        events.push(Event::Missing { directory: store.join("state") });
    }
    events.extend(restored);
    let database = Database::open(&generation.directory(store), Access { create: false, ..access })?;
    point_to(store, generation, now)?;
    Ok(Found { database, generation, since: now })
}

/// Makes a generation completely, or not at all; closed when this returns.
fn build(
    store: &Path,
    generation: Generation,
    access: Access,
    fill: impl FnOnce(&Database) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let directory = generation.directory(store);
    let new = durable::with_suffix(&directory, ".new");
    durable::remove_directory(&new)?;
    let database = Database::open(&new, Access { create: true, ..access })?;
    let filled = fill(&database);
    database.close();
    filled?;
    durable::sync_tree(&new)?;
    durable::rename(&new, &directory)
}

/// Copies what is live in `from` into a new generation, complete and durable, not yet pointed to. A failure leaves
/// nothing that counts.
pub(super) fn copy(
    store: &Path,
    from: &Database,
    generation: Generation,
    access: Access,
    now: Timestamp,
) -> Result<(), StoreError> {
    let copied = build(store, generation, access, |to| {
        let mut batch = Batch::default();
        for row in from.range::<&[u8]>(..)? {
            let (key, value) = row?;
            if is_outdated(&key, &value, now) {
                continue;
            }
            batch.insert(key, value);
            if batch.len() >= COPY_ENTRIES || batch.bytes() >= COPY_BYTES {
                to.commit(std::mem::take(&mut batch))?;
            }
        }
        to.commit(batch)
    });
    if copied.is_err() {
        // Most likely the disk is full: what is half made helps nobody.
        let unfinished = durable::with_suffix(&generation.directory(store), ".new");
        drop(durable::remove_directory(&unfinished));
    }
    copied
}

/// Whether a copy leaves this out: waits that ended, dead letters and invites of long ago.
fn is_outdated(key: &[u8], value: &[u8], now: Timestamp) -> bool {
    match key.first() {
        Some(&kind::WAIT) => records::decode_wait(value).is_ok_and(|wait| wait.until < now),
        Some(&(kind::LETTER | kind::REFUSED)) => {
            records::decode_letter(value).is_ok_and(|letter| now.duration_since(letter.at) > KEPT)
        }
        Some(&kind::INVITE) => {
            records::decode_invite(key, value).is_ok_and(|invite| now.duration_since(invite.expires) > KEPT)
        }
        _ => false,
    }
}

/// Switches the pointer, durably. If this fails when it has been switched, either generation may be the one that the next
/// start finds.
pub(super) fn point_to(store: &Path, generation: Generation, since: Timestamp) -> Result<(), StoreError> {
    let path = store.join("state");
    let pointer = Pointer { directory: format!("state-{}", generation.0), since };
    let text = serde_json::to_vec(&pointer).map_err(|error| StoreError::write(&path, error.into()))?;
    if fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    durable::write_file(&path, &text)
}

/// Whether the pointer may name this generation: it does, or cannot be read.
pub(super) fn is_pointed_to(store: &Path, generation: Generation) -> bool {
    match read_pointer(store) {
        Ok(Pointed::At(pointed, _)) => pointed == generation,
        Ok(Pointed::Nowhere(_)) | Err(_) => true,
    }
}

/// Removes a generation that is no longer pointed to.
pub(super) fn drop_directory(directory: &Path) -> Result<(), StoreError> {
    let dropping = durable::with_suffix(directory, ".dropping");
    durable::remove_directory(&dropping)?;
    durable::rename(directory, &dropping)?;
    durable::remove_directory(&dropping)
}

/// Bytes of keys and values: what the state would need at least.
pub(super) fn live_bytes(database: &Database) -> Result<u64, StoreError> {
    database.range::<&[u8]>(..)?.map(|row| row.map(|(key, value)| (key.len() + value.len()) as u64)).sum()
}

fn move_aside(
    store: &Path,
    directory: &Path,
    reason: &str,
    why: &str,
    now: Timestamp,
    events: &mut Vec<Event>,
) -> Result<(), StoreError> {
    let to = database::move_aside(directory, &store.join("aside"), reason, now)?;
    events.push(Event::MovedAside { from: directory.to_owned(), to, why: why.to_owned() });
    Ok(())
}

/// Removes what a crash has left half made or half removed.
fn remove_unfinished(store: &Path) -> Result<(), StoreError> {
    for path in durable::entries(store)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = name.split_once('.').is_some_and(|(stem, suffix)| {
            Generation::from_name(stem).is_some() && ["new", "new.making", "dropping"].contains(&suffix)
        });
        if unfinished {
            durable::remove_directory(&path)?;
        }
    }
    Ok(())
}

/// The complete generations, in order.
fn generations(store: &Path) -> Result<Vec<Generation>, StoreError> {
    let mut found: Vec<Generation> = durable::entries(store)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Generation::from_name(&path.file_name()?.to_string_lossy()))
        .collect();
    found.sort_unstable();
    Ok(found)
}

enum Pointed {
    At(Generation, Timestamp),
    /// There is no pointer, or one that says nothing, and why.
    Nowhere(Option<String>),
}

fn read_pointer(store: &Path) -> Result<Pointed, StoreError> {
    let path = store.join("state");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pointed::Nowhere(None)),
        Err(error) => return Err(StoreError::read(&path, error)),
    };
    Ok(match serde_json::from_slice::<Pointer>(&text) {
        Ok(pointer) => match Generation::from_name(&pointer.directory) {
            Some(generation) => Pointed::At(generation, pointer.since),
            None => Pointed::Nowhere(Some(format!("it names `{}`", pointer.directory))),
        },
        Err(error) => Pointed::Nowhere(Some(error.to_string())),
    })
}
