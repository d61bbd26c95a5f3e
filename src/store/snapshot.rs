//! What the state holds and Microsoft cannot give back, as bytes that survive elsewhere.
//!
//! The queue and the watermarks come back by listing the last seven days again. These do not: who was enrolled, held and
//! invited; waits (a start request sent too early is refused, a paused tenant would be asked again) and dead letters (without
//! them a blob that cannot be read is tried all over again), and when listing was interrupted and why. Of the dead letters the newest [`LETTERS`] go along, since each
//! is worth a few retrievals and no more. Output cursors will join them.
//!
//! The form: one version byte, then zstd over postcard of the state's own keys and values, which carry their own
//! versions. It can exceed what a database holds in one piece; who writes it cuts it.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::database::{Batch, Database};
use super::error::StoreError;
use super::state::keys::kind;
use super::state::records::{self, Undecodable};
use crate::content::TenantId;

/// How many dead letters a snapshot holds.
pub(super) const LETTERS: usize = 500;
/// No snapshot is larger than this when unpacked.
const MOST_BYTES: usize = 256 << 20;
const VERSION: u8 = 1;
/// Entries per batch when they are put back.
const BATCH: usize = 5_000;

/// What was in a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tenants that came by consent or by command.
    pub enrolments: usize,
    /// Tenants that an operator has paused.
    pub held: usize,
    /// Invites.
    pub invites: usize,
    /// Waits that had not ended.
    pub waits: usize,
    /// Dead letters.
    pub letters: usize,
}

#[derive(Serialize, Deserialize)]
struct Row(Vec<u8>, Vec<u8>);

/// Whether a snapshot holds what has this key.
pub(super) fn holds(key: &[u8]) -> bool {
    let held = [kind::ENROLMENT, kind::HELD, kind::INVITE, kind::GAPS, kind::WAIT, kind::LETTER, kind::REFUSED];
    key.first().is_some_and(|kind| held.contains(kind))
}

/// Takes a snapshot. Blocking: reads all of these kinds.
pub(super) fn take(database: &Database, now: Timestamp) -> Result<Vec<u8>, StoreError> {
    let mut rows = Vec::new();
    for kind in [kind::ENROLMENT, kind::HELD, kind::INVITE, kind::GAPS] {
        for row in database.scan_prefix([kind])? {
            let (key, value) = row?;
            rows.push(Row(key.to_vec(), value.to_vec()));
        }
    }
    for row in database.scan_prefix([kind::WAIT])? {
        let (key, value) = row?;
        if records::decode_wait(&value).is_ok_and(|wait| wait.until > now) {
            rows.push(Row(key.to_vec(), value.to_vec()));
        }
    }
    let mut newest = BinaryHeap::with_capacity(LETTERS + 1);
    for row in database.scan_prefix([kind::LETTER])?.chain(database.scan_prefix([kind::REFUSED])?) {
        let (key, value) = row?;
        if let Ok(letter) = records::decode_letter(&value) {
            newest.push(Reverse((letter.at, key, value)));
            if newest.len() > LETTERS {
                newest.pop();
            }
        }
    }
    rows.extend(newest.into_iter().map(|Reverse((_, key, value))| Row(key.to_vec(), value.to_vec())));
    let packed = pack(&rows).map_err(|error| StoreError::Undecodable {
        path: database.directory().to_owned(),
        what: "the snapshot",
        why: error.to_string(),
    })?;
    Ok(packed)
}

/// The same without the rows of tenants that are gone.
pub(super) fn without(bytes: Vec<u8>, is_gone: impl Fn(TenantId) -> bool) -> Result<Vec<u8>, Undecodable> {
    split(bytes, is_gone).map(|(rest, _)| rest)
}

/// The same, and whose rows they were.
pub(super) fn split(
    bytes: Vec<u8>,
    is_gone: impl Fn(TenantId) -> bool,
) -> Result<(Vec<u8>, BTreeSet<TenantId>), Undecodable> {
    let mut rows = unpack(&bytes)?;
    let mut owners = BTreeSet::new();
    rows.retain(|Row(key, value)| {
        let owner = records::owner(key, value, &is_gone);
        owners.extend(owner);
        owner.is_none()
    });
    let bytes = if owners.is_empty() { bytes } else { pack(&rows).map_err(|error| Undecodable(error.to_string()))? };
    Ok((bytes, owners))
}

/// Of whom there is something in a snapshot.
pub(super) fn owners(bytes: &[u8]) -> Result<BTreeSet<TenantId>, Undecodable> {
    let owners = RefCell::new(BTreeSet::new());
    for Row(key, value) in unpack(bytes)? {
        // An invite may be of two.
        records::owner(&key, &value, |tenant| {
            owners.borrow_mut().insert(tenant);
            false
        });
    }
    Ok(owners.into_inner())
}

/// What to write into a new state.
pub(super) fn restore(bytes: &[u8]) -> Result<(Vec<Batch>, Counts), Undecodable> {
    let rows = unpack(bytes)?;
    let mut counts = Counts::default();
    let mut batches = Vec::new();
    for rows in rows.chunks(BATCH) {
        let mut batch = Batch::default();
        for Row(key, value) in rows {
            match key.first() {
                Some(&kind::ENROLMENT) => counts.enrolments += 1,
                Some(&kind::HELD) => counts.held += 1,
                Some(&kind::INVITE) => counts.invites += 1,
                // A note, of which nobody needs to know how many there are.
                Some(&kind::GAPS) => {}
                Some(&kind::WAIT) => counts.waits += 1,
                Some(&(kind::LETTER | kind::REFUSED)) => counts.letters += 1,
                other => return Err(Undecodable(format!("it holds something of kind {other:?}"))),
            }
            batch.insert(key.as_slice(), value.as_slice());
        }
        batches.push(batch);
    }
    Ok((batches, counts))
}

fn pack(rows: &[Row]) -> std::io::Result<Vec<u8>> {
    let plain = postcard::to_allocvec(rows).map_err(std::io::Error::other)?;
    let mut packed = zstd::bulk::compress(&plain, 1)?;
    packed.insert(0, VERSION);
    Ok(packed)
}

fn unpack(bytes: &[u8]) -> Result<Vec<Row>, Undecodable> {
    match bytes.split_first() {
        Some((&VERSION, packed)) => {
            let undecodable = |why: String| Undecodable(why);
            let size = zstd::zstd_safe::get_frame_content_size(packed)
                .map_err(|_| undecodable("it is not zstd".to_owned()))?
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size <= MOST_BYTES)
                .ok_or_else(|| undecodable("it does not say a size that it can have".to_owned()))?;
            let plain = zstd::bulk::decompress(packed, size).map_err(|error| undecodable(error.to_string()))?;
            postcard::from_bytes(&plain).map_err(|error| undecodable(error.to_string()))
        }
        Some((version, _)) => Err(Undecodable(format!("version {version} is not known"))),
        None => Err(Undecodable("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_an_error_and_not_a_part_of_the_rows() {
        let rows: Vec<Row> = (0..100_u8).map(|n| Row(vec![kind::WAIT, n], vec![n; 20])).collect();
        let bytes = pack(&rows).unwrap();
        let (batches, counts) = restore(&bytes).unwrap();
        assert_eq!((batches.len(), batches[0].len(), counts.waits), (1, 100, 100));
        for cut in 0..bytes.len() {
            assert!(restore(&bytes[..cut]).is_err(), "{cut} bytes of {}", bytes.len());
        }
        let mut newer = bytes;
        newer[0] = 9;
        assert_eq!(restore(&newer).unwrap_err().to_string(), "version 9 is not known");
        let foreign = pack(&[Row(vec![kind::QUEUE], vec![])]).unwrap();
        assert!(restore(&foreign).unwrap_err().to_string().contains("something of kind"));
    }
}
