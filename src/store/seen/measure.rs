//! Measures the index, for `tenantry-bench seen`: what a record costs in memory and on the disk, and how fast it is
//! asked.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Seen, SeenError, SeenHash, SeenKey};
use crate::store::durable;
use crate::store::error::StoreError;

/// Records in a blob.
const RECORDS: u64 = 10;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Entries in all partitions together.
    pub entries: u64,
    /// Bytes of memory that the index takes.
    pub resident: u64,
    /// Bytes of its files.
    pub on_disk: u64,
    /// How long it took to insert and seal everything.
    pub built: Duration,
    /// How long a question takes whose answer is no.
    pub absent: Duration,
    /// How many of a million of these questions were answered with a suspicion.
    pub suspicions: u64,
    /// How long a question takes whose answer is yes.
    pub present: Duration,
}

/// Builds the indices of `partitions` sealed partitions with `entries` entries together in a directory, and asks all of
/// them `questions` times.
pub fn measure(directory: &Path, partitions: u32, entries: u64, questions: u64) -> Result<Figures, StoreError> {
    let began = Instant::now();
    let each = entries / u64::from(partitions.max(1));
    let mut indices = Vec::new();
    let mut on_disk = 0;
    for partition in 0..partitions {
        let directory = directory.join(format!("{partition:03}"));
        durable::make_directory(&directory)?;
        indices.push(build(&directory, u64::from(partition) * each, each).map_err(SeenError::into_store)?);
        on_disk += durable::size(&directory)?;
    }
    let built = began.elapsed();
    let entries = each * u64::from(partitions);
    let (absent, suspected) = ask(&indices, questions, |question| entries + question)?;
    let (present, found) = ask(&indices, questions, |question| question.wrapping_mul(7919) % entries.max(1))?;
    if found < questions && entries > 0 {
        let why = format!("{found} of {questions} entries were found");
        return Err(StoreError::Damaged { path: directory.to_owned(), why });
    }
    Ok(Figures {
        entries,
        resident: indices.iter().map(Seen::resident_bytes).sum::<usize>() as u64,
        on_disk,
        built,
        absent,
        suspicions: suspected * 1_000_000 / questions.max(1),
        present,
    })
}

fn build(directory: &Path, first: u64, entries: u64) -> Result<Seen, SeenError> {
    let mut seen = Seen::empty(directory, SeenKey::new([7; 16]));
    let blob = |number: u64| u32::try_from(number / RECORDS).unwrap_or(u32::MAX);
    for number in 0..entries {
        seen.insert(hash(first + number), blob(number));
        if number % RECORDS == RECORDS - 1 {
            seen.flush_if_full(blob(number) + 1)?;
        }
    }
    let merged = seen.merge(blob(entries) + 1)?;
    seen.adopt(merged)?;
    Ok(seen)
}

/// The mean time of a question to all indices, and how many were answered with a suspicion.
fn ask(indices: &[Seen], questions: u64, number: impl Fn(u64) -> u64) -> Result<(Duration, u64), StoreError> {
    let began = Instant::now();
    let mut suspected = 0;
    for question in 0..questions {
        let hash = hash(number(question));
        for seen in indices {
            suspected += u64::from(!seen.candidates(hash).map_err(SeenError::into_store)?.is_empty());
        }
    }
    Ok((began.elapsed() / u32::try_from(questions.max(1)).unwrap_or(u32::MAX), suspected))
}

/// Spreads numbers over the whole range, each onto another hash, as good as `SipHash` does.
fn hash(number: u64) -> SeenHash {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    SeenHash::new(mixed ^ (mixed >> 31)).unwrap_or(SeenHash::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_costs_eleven_bits_of_memory_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let figures = measure(dir.path(), 4, 800_000, 20_000).unwrap();
        assert_eq!(figures.entries, 800_000);
        assert!(figures.resident * 8 < figures.entries * 11, "{figures:?}");
        // A hundredth passes each of the four filters; a suspicion needs an entry with the whole hash.
        assert_eq!(figures.suspicions, 0);
    }
}
