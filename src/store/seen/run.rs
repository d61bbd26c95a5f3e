//! A sorted run of entries in a file.
//!
//! # Format
//!
//! ```text
//! magic         8 bytes, names the format's version
//! blocks        of 128 entries (the last one of fewer): hash (8 bytes), blob number (4 bytes), ascending;
//!               a checksum (8 bytes) behind each
//! fence         the first hash of each block (8 bytes each)
//! filter        the words of the filter (8 bytes each)
//! footer        entries, blocks, words of the filter, first and last number of the run, complete_to, the key's
//!               fingerprint, the checksum of fence and filter, the checksum of the footer (8 bytes each); magic
//! ```
//!
//! Numbers are little-endian. The footer comes last, so that a file that was cut short has none. Checksums are
//! SipHash-1-3 with a key of zeros: against accidents, not against someone who writes to the store. Fence and filter
//! are read and checked when the run is opened, a block when it is read.
//!
//! A run is written under another name, synced, renamed, and its directory synced; no run is ever changed.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

use super::filter::Filter;
use super::merge::Merge;
use super::{SeenError, SeenHash, SeenKey};
use crate::store::durable;
use crate::store::error::StoreError;

const MAGIC: [u8; 8] = *b"TTYSEEN1";
const ENTRY: usize = 12;
const SUM: usize = 8;
/// Entries in a block.
const BLOCK: usize = 128;
const BLOCK_BYTES: usize = BLOCK * ENTRY + SUM;
const FOOTER: usize = 9 * 8 + MAGIC.len();
/// Blocks that are read at once when all are wanted.
const STRETCH: usize = 32;
/// Words that are read at once.
const WORDS_AT_ONCE: usize = 8 << 10;

/// What a file in the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunName {
    Run,
    /// The beginning of a run that was never finished.
    Making,
}

const MAKING: &str = ".making";

impl RunName {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if !name.starts_with("seen") {
            return None;
        }
        match path.extension()?.to_str()? {
            "run" => Some(Self::Run),
            "making" => Some(Self::Making),
            _ => None,
        }
    }

    pub(super) fn path(directory: &Path, first: u32, last: u32) -> PathBuf {
        directory.join(format!("seen-{first:05}-{last:05}.run"))
    }

    pub(super) fn sealed(directory: &Path) -> PathBuf {
        directory.join("seen.run")
    }
}

/// A run whose filter and fence are in memory. Its file is opened each time it is read, so that a store of nine days holds
/// no more files open than one of a day.
#[derive(Debug)]
pub(super) struct Run {
    path: PathBuf,
    footer: Footer,
    fence: Vec<u64>,
    filter: Filter,
}

/// The footer's numbers, in their order in the file.
#[derive(Debug, Clone, Copy)]
struct Footer {
    entries: u64,
    blocks: u64,
    words: u64,
    first: u32,
    last: u32,
    complete_to: u32,
    fingerprint: u64,
    /// Of fence and filter.
    sum: u64,
}

impl Footer {
    fn encode(&self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        let numbers = [
            self.entries,
            self.blocks,
            self.words,
            self.first.into(),
            self.last.into(),
            self.complete_to.into(),
            self.fingerprint,
            self.sum,
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&bytes[..8 * 8]);
        bytes[8 * 8..9 * 8].copy_from_slice(&sum.to_le_bytes());
        bytes[9 * 8..].copy_from_slice(&MAGIC);
        bytes
    }

    fn decode(bytes: &[u8; FOOTER]) -> Result<Self, &'static str> {
        if bytes[9 * 8..] != MAGIC {
            return Err("it has no footer");
        }
        let number = |at: usize| u64_at(bytes, at * 8);
        if number(8) != checksum(&bytes[..8 * 8]) {
            return Err("its footer does not match its checksum");
        }
        let short = |at: usize| u32::try_from(number(at)).map_err(|_| "its footer is out of range");
        let footer = Self {
            entries: number(0),
            blocks: number(1),
            words: number(2),
            first: short(3)?,
            last: short(4)?,
            complete_to: short(5)?,
            fingerprint: number(6),
            sum: number(7),
        };
        let sound = footer.blocks == footer.entries.div_ceil(BLOCK as u64) && footer.first <= footer.last;
        sound.then_some(footer).ok_or("its footer contradicts itself")
    }

    /// Where the fence begins.
    fn fence(&self) -> Option<u64> {
        let entries = self.entries.checked_mul(ENTRY as u64)?;
        entries.checked_add(self.blocks.checked_mul(SUM as u64)?)?.checked_add(MAGIC.len() as u64)
    }

    /// Bytes of the whole file.
    fn file_size(&self) -> Option<u64> {
        let words = self.blocks.checked_add(self.words)?.checked_mul(8)?;
        self.fence()?.checked_add(words)?.checked_add(FOOTER as u64)
    }
}

impl Run {
    /// Writes a run, durably.
    pub(super) fn write(
        path: &Path,
        key: SeenKey,
        (first, last): (u32, u32),
        complete_to: u32,
        mut entries: Merge<'_>,
    ) -> Result<Self, SeenError> {
        let making = durable::with_suffix(path, MAKING);
        let failed = |error| StoreError::write(&making, error);
        let file = File::create(&making).map_err(failed)?;
        let mut out = BufWriter::with_capacity(STRETCH * BLOCK_BYTES, &file);
        let mut filter = Filter::for_entries(entries.most());
        let mut fence = Vec::new();
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut count = 0_u64;
        out.write_all(&MAGIC).map_err(failed)?;
        while let Some((hash, blob)) = entries.next()? {
            if block.is_empty() {
                fence.push(hash);
            }
            filter.insert(hash);
            block.extend_from_slice(&hash.to_le_bytes());
            block.extend_from_slice(&blob.to_le_bytes());
            count += 1;
            if block.len() == BLOCK * ENTRY {
                end_block(&mut out, &mut block).map_err(failed)?;
            }
        }
        if !block.is_empty() {
            end_block(&mut out, &mut block).map_err(failed)?;
        }
        fence.shrink_to_fit();

        let mut sum = checksum_of_nothing();
        for word in fence.iter().chain(filter.words()) {
            sum.write(&word.to_le_bytes());
            out.write_all(&word.to_le_bytes()).map_err(failed)?;
        }
        let footer = Footer {
            entries: count,
            blocks: fence.len() as u64,
            words: filter.words().len() as u64,
            first,
            last,
            complete_to,
            fingerprint: key.fingerprint(),
            sum: sum.finish(),
        };
        out.write_all(&footer.encode()).and_then(|()| out.flush()).map_err(failed)?;
        drop(out);
        file.sync_all().map_err(|error| StoreError::sync(&making, error))?;
        durable::rename(&making, path)?;
        Ok(Self { path: path.to_owned(), footer, fence, filter })
    }

    /// Reads what of a run is kept in memory, and checks it: all but its entries.
    pub(super) fn open(path: &Path, key: SeenKey) -> Result<Self, SeenError> {
        let read = |error| SeenError::Store(StoreError::read(path, error));
        let damaged = |why| SeenError::Damaged { path: path.to_owned(), why };
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let Some(behind) = size.checked_sub(FOOTER as u64) else { return Err(damaged("it is cut short")) };
        let mut bytes = [0; FOOTER];
        file.read_exact_at(&mut bytes, behind).map_err(read)?;
        let footer = Footer::decode(&bytes).map_err(damaged)?;
        if footer.fingerprint != key.fingerprint() {
            return Err(damaged("it was made with another key"));
        }
        let start = footer.fence().filter(|_| footer.file_size() == Some(size));
        let Some(start) = start else { return Err(damaged("its size is not what it says")) };

        let mut sum = checksum_of_nothing();
        let fence = read_words(&file, start, footer.blocks, &mut sum).map_err(read)?;
        let words = read_words(&file, start + 8 * footer.blocks, footer.words, &mut sum).map_err(read)?;
        if sum.finish() != footer.sum || !fence.is_sorted() {
            return Err(damaged("its filter does not match its checksum"));
        }
        let filter = Filter::from_words(words).ok_or_else(|| damaged("it has no filter"))?;
        Ok(Self { path: path.to_owned(), footer, fence, filter })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entries(&self) -> u64 {
        self.footer.entries
    }

    /// Its number, or the first of the numbers of those that it was made from.
    pub(super) fn first(&self) -> u32 {
        self.footer.first
    }

    /// Its number, or the last one.
    pub(super) fn last(&self) -> u32 {
        self.footer.last
    }

    /// All blobs below this one are in this run or in those before it.
    pub(super) fn complete_to(&self) -> u32 {
        self.footer.complete_to
    }

    pub(super) fn resident_bytes(&self) -> usize {
        size_of::<Self>() + (self.fence.capacity() + self.filter.words().len()) * 8
    }

    /// Adds the blobs that stand under this hash.
    pub(super) fn find(&self, hash: SeenHash, blobs: &mut Vec<u32>) -> Result<(), SeenError> {
        let hash = hash.get();
        if !self.filter.may_contain(hash) {
            return Ok(());
        }
        // Equal hashes can run over the end of a block, so the one before the first that begins with it counts too.
        let behind = self.fence.partition_point(|&first| first <= hash);
        let from = self.fence[..behind].partition_point(|&first| first < hash).saturating_sub(1);
        let mut bytes = Vec::new();
        for block in from..behind {
            self.read_blocks(block, 1, &mut bytes)?;
            let entries = bytes.chunks_exact(ENTRY).map(entry);
            blobs.extend(entries.filter(|&(other, _)| other == hash).map(|(_, blob)| blob));
        }
        Ok(())
    }

    /// All entries, in order.
    pub(super) fn read_all(&self) -> Entries<'_> {
        Entries { run: self, block: 0, bytes: Vec::new(), at: 0 }
    }

    /// Removes the file.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        durable::remove_file(&self.path)
    }

    /// Reads `count` blocks from this one on, as many as there are, and leaves their entries in `bytes`.
    fn read_blocks(&self, block: usize, count: usize, bytes: &mut Vec<u8>) -> Result<(), SeenError> {
        let entries = usize::try_from(self.footer.entries).expect("the fence of all is in memory");
        let count = count.min(self.fence.len() - block);
        let here = (entries - block * BLOCK).min(count * BLOCK);
        bytes.resize(here * ENTRY + count * SUM, 0);
        let at = (MAGIC.len() + block * BLOCK_BYTES) as u64;
        let read = File::open(&self.path).and_then(|file| file.read_exact_at(bytes, at));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            _ => StoreError::read(&self.path, error).into(),
        })?;
        let mut kept = 0;
        let mut read = 0;
        while read < bytes.len() {
            let sum = (read + BLOCK * ENTRY).min(bytes.len() - SUM);
            if checksum(&bytes[read..sum]) != u64_at(bytes, sum) {
                return Err(self.damaged("a block does not match its checksum"));
            }
            bytes.copy_within(read..sum, kept);
            kept += sum - read;
            read = sum + SUM;
        }
        bytes.truncate(kept);
        Ok(())
    }

    fn damaged(&self, why: &'static str) -> SeenError {
        SeenError::Damaged { path: self.path.clone(), why }
    }
}

/// Reads a run from front to back.
pub(super) struct Entries<'a> {
    run: &'a Run,
    block: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl Entries<'_> {
    pub(super) fn next(&mut self) -> Result<Option<(u64, u32)>, SeenError> {
        if self.at == self.bytes.len() {
            if self.block == self.run.fence.len() {
                return Ok(None);
            }
            self.run.read_blocks(self.block, STRETCH, &mut self.bytes)?;
            self.block = (self.block + STRETCH).min(self.run.fence.len());
            self.at = 0;
        }
        let next = entry(&self.bytes[self.at..]);
        self.at += ENTRY;
        Ok(Some(next))
    }
}

fn end_block(out: &mut impl Write, block: &mut Vec<u8>) -> io::Result<()> {
    let sum = checksum(block);
    block.extend_from_slice(&sum.to_le_bytes());
    out.write_all(block)?;
    block.clear();
    Ok(())
}

fn read_words(file: &File, mut at: u64, count: u64, sum: &mut SipHasher13) -> io::Result<Vec<u64>> {
    let count = usize::try_from(count).map_err(io::Error::other)?;
    let mut words = Vec::with_capacity(count);
    let mut bytes = vec![0; count.min(WORDS_AT_ONCE) * 8];
    while words.len() < count {
        let bytes = &mut bytes[..(count - words.len()).min(WORDS_AT_ONCE) * 8];
        file.read_exact_at(bytes, at)?;
        sum.write(bytes);
        words.extend(bytes.chunks_exact(8).map(|word| u64_at(word, 0)));
        at += bytes.len() as u64;
    }
    Ok(words)
}

fn entry(bytes: &[u8]) -> (u64, u32) {
    let blob = bytes[8..ENTRY].try_into().expect("four bytes");
    (u64_at(bytes, 0), u32::from_le_bytes(blob))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn checksum_of_nothing() -> SipHasher13 {
    SipHasher13::new_with_keys(0, 0)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = checksum_of_nothing();
    hasher.write(bytes);
    hasher.finish()
}
