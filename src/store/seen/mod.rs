//! Answers "was this record, or this content blob, stored before?"
//!
//! Every partition has one [`Seen`]: a set of pairs of a 64-bit keyed hash ([`SeenKey`]) and the number of the blob
//! where the thing stands. The newest pairs are in a table in memory; a full table is written down as a sorted
//! run, and of a run memory holds a filter of ten bits an entry and the first hash of every block. Asking costs a
//! cache line per run, and a read of a kilobyte and a half where something may be found. When the partition is rolled,
//! all runs become one, `seen.run`.
//!
//! An answer is a suspicion: two names can have one hash. Whoever asks looks into the blob's own ids before anything
//! is flagged. The other way round there is no doubt: what was inserted is found.
//!
//! # After a crash
//!
//! The runs are made from the partition's ids and can be made again. Every run says below which blob number all is
//! in it or in those before it; after opening, the caller inserts what stands in blobs from that number on. A run
//! that is missing, cut short, made with another key or otherwise damaged is removed with all that came after it,
//! and reported; so the caller inserts more. Inserting what is there already does no harm.
//!
//! **Invariants:** a run is durable before the table that it was made from is emptied, and before the runs that it
//! replaces are removed; nothing read from a run is used before its checksum has been compared.

mod filter;
mod key;
pub mod measure;
mod merge;
mod run;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::key::{SeenHash, SeenKey};
use self::merge::Merge;
use self::run::{Run, RunName};
use self::table::Table;
use super::durable;
use super::error::StoreError;

/// The table is written down at this many entries; it takes six megabytes then.
const FLUSH_AT: usize = 256 << 10;
/// When there are this many runs of one table each, they become one, so that few filters need to be asked.
const MERGE_AT: usize = 8;
/// At most so many blobs are remembered for one hash, in the table and in each run: the first ones.
const SAME_HASH: usize = 8;

/// Why the index cannot answer or be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeenError {
    /// A run is damaged: [`Seen::discard`] it and insert everything again.
    #[error("the index file `{}` is damaged: {why}", path.display())]
    Damaged {
        /// The run.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SeenError {
    /// As an error of the store.
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            Self::Damaged { path, why } => StoreError::Damaged { path, why: why.to_owned() },
            Self::Store(error) => error,
        }
    }
}

/// What was found at opening.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The contents of all blobs below this number are in the index; those from it on must be inserted.
    pub covered_to: u32,
    /// What could not be used, and was removed.
    pub damaged: Vec<SeenError>,
}

/// The index of one partition.
#[derive(Debug)]
pub(crate) struct Seen {
    directory: PathBuf,
    key: SeenKey,
    table: Table,
    /// In the order in which they were written.
    runs: Vec<Run>,
    knows: Knows,
    /// Changes when the runs are others.
    version: u64,
}

/// How much of what was seen an index in memory knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knows {
    /// All of it.
    All,
    /// What could be read of a damaged partition.
    Part,
    /// Nothing: it was not read, or its memory was freed.
    Nothing,
}

/// No two indices, and no two versions of one, have the same.
fn new_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A merged run that is durable, but not used yet.
#[derive(Debug)]
pub(crate) struct Merged {
    run: Run,
    /// How many of the last runs it was made from, besides the table.
    runs: usize,
    /// Of the index that it was made from.
    version: u64,
    /// Whether it is the only one from now on.
    sealed: bool,
}

impl Seen {
    /// An index with nothing in it, which writes its runs into `directory`.
    pub(crate) fn empty(directory: &Path, key: SeenKey) -> Self {
        let (table, runs) = (Table::default(), Vec::new());
        Self { directory: directory.to_owned(), key, table, runs, knows: Knows::All, version: new_version() }
    }

    /// One that is not in memory.
    pub(crate) fn forgotten(directory: &Path, key: SeenKey) -> Self {
        Self { knows: Knows::Nothing, ..Self::empty(directory, key) }
    }

    /// How much it knows.
    pub(crate) fn knows(&self) -> Knows {
        self.knows
    }

    /// The rest could not be read.
    pub(crate) fn knows_only_a_part(&mut self) {
        self.knows = Knows::Part;
    }

    /// Opens the runs that are there. Reads their filters, not their entries.
    pub(crate) fn open(directory: &Path, key: SeenKey) -> Result<(Self, Opened), StoreError> {
        let mut opened = Opened::default();
        let mut found = Vec::new();
        for path in durable::entries(directory)? {
            match RunName::of(&path) {
                Some(RunName::Making) => durable::remove_file(&path)?,
                Some(RunName::Run) => match Run::open(&path, key) {
                    Ok(run) => found.push(run),
                    Err(SeenError::Store(error)) => return Err(error),
                    Err(damaged) => {
                        durable::remove_file(&path)?;
                        opened.damaged.push(damaged);
                    }
                },
                None => {}
            }
        }
        // A merged run comes before those that it was made from.
        found.sort_by_key(|run| (run.first(), std::cmp::Reverse((run.last(), run.complete_to()))));
        let mut seen = Self::empty(directory, key);
        for run in found {
            let next = seen.next();
            if run.last() < next {
                run.remove()?;
            } else if run.first() == next {
                opened.covered_to = run.complete_to();
                seen.runs.push(run);
            } else {
                let path = run.path().to_owned();
                opened.damaged.push(SeenError::Damaged { path, why: "a file that belongs before it is missing" });
                run.remove()?;
            }
        }
        Ok((seen, opened))
    }

    /// Remembers that something with this hash stands in this blob, which must be durable before the next
    /// [`flush_if_full`](Self::flush_if_full).
    pub(crate) fn insert(&mut self, hash: SeenHash, blob_no: u32) {
        self.table.insert(hash, blob_no);
    }

    /// The blobs in which something with this hash may stand, in ascending order, and no others of the first
    /// [`SAME_HASH`]. Empty as a rule.
    pub(crate) fn candidates(&self, hash: SeenHash) -> Result<Vec<u32>, SeenError> {
        let mut blobs = Vec::new();
        self.table.find(hash, &mut blobs);
        for run in &self.runs {
            run.find(hash, &mut blobs)?;
        }
        blobs.sort_unstable();
        blobs.dedup();
        Ok(blobs)
    }

    /// Writes the table down if it is full. All blobs below `complete_to` are durable and inserted, whatever became
    /// of those above it.
    pub(crate) fn flush_if_full(&mut self, complete_to: u32) -> Result<(), SeenError> {
        if self.table.len() >= FLUSH_AT { self.flush(complete_to) } else { Ok(()) }
    }

    /// Writes the table down, so that nothing needs to be inserted again at the next opening.
    pub(crate) fn flush(&mut self, complete_to: u32) -> Result<(), SeenError> {
        if self.knows == Knows::Part {
            // What is missing would be said to be there.
            return Ok(());
        }
        if self.table.is_empty() && self.runs.last().is_some_and(|run| run.complete_to() >= complete_to) {
            return Ok(());
        }
        let path = RunName::path(&self.directory, self.next(), self.next());
        let merged = self.write(self.runs.len(), &path, complete_to)?;
        self.adopt(merged)?;
        let singles = self.runs.iter().rev().take_while(|run| run.first() == run.last()).count();
        if singles >= MERGE_AT {
            let from = self.runs.len() - singles;
            let path = RunName::path(&self.directory, self.runs[from].first(), self.next() - 1);
            match self.write(from, &path, complete_to) {
                Ok(merged) => drop(self.adopt(merged)?),
                // No harm to the run just written; whoever asks for what is damaged is told so.
                Err(SeenError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes one run of everything, for a partition that has been rolled. Questions are answered meanwhile; the
    /// result takes effect with [`adopt`](Self::adopt), before anything else is inserted.
    pub(crate) fn merge(&self, complete_to: u32) -> Result<Merged, SeenError> {
        let merged = self.write(0, &RunName::sealed(&self.directory), complete_to)?;
        Ok(Merged { sealed: true, ..merged })
    }

    /// Replaces what the merged run was made from by it. False if that is not there any more: the index was made again
    /// meanwhile, or forgotten.
    pub(crate) fn adopt(&mut self, merged: Merged) -> Result<bool, StoreError> {
        if merged.version != self.version {
            return Ok(false);
        }
        self.version = new_version();
        if merged.sealed {
            self.table = Table::default();
        } else {
            self.table.clear();
        }
        let replaced: Vec<Run> = self.runs.drain(self.runs.len() - merged.runs..).collect();
        let kept = merged.run.path().to_owned();
        self.runs.push(merged.run);
        for run in replaced {
            if run.path() != kept {
                run.remove()?;
            }
        }
        Ok(true)
    }

    /// Removes everything, after damage: the caller inserts it again.
    pub(crate) fn discard(&mut self) -> Result<(), StoreError> {
        self.knows = Knows::All;
        self.version = new_version();
        self.table.clear();
        self.runs.drain(..).try_for_each(Run::remove)
    }

    /// Bytes of memory that this takes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.table.bytes() + self.runs.iter().map(Run::resident_bytes).sum::<usize>()
    }

    /// The number of the next run.
    fn next(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.last() + 1)
    }

    /// Makes one run of those from `from` on and of the table.
    fn write(&self, from: usize, path: &Path, complete_to: u32) -> Result<Merged, SeenError> {
        let runs = &self.runs[from..];
        let first = runs.first().map_or(self.next(), Run::first);
        // The table alone makes a further run; with others, it goes into the last of their numbers.
        let last = if runs.is_empty() { first } else { self.next() - 1 };
        let merge = Merge::of(runs, self.table.sorted())?;
        let run = Run::write(path, self.key, (first, last), complete_to, merge)?;
        Ok(Merged { run, runs: runs.len(), version: self.version, sealed: false })
    }
}

#[cfg(test)]
mod tests;
