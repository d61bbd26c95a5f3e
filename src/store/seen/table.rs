//! The newest entries, in memory: a hash table with open addressing, twelve bytes a slot.

use super::{SAME_HASH, SeenHash};

/// Slots of the smallest table that holds anything.
const SMALLEST: usize = 1 << 10;

/// Pairs of a hash and a blob number; a hash may have several.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Zero: free. The length is a power of two, or zero.
    hashes: Vec<u64>,
    blobs: Vec<u32>,
    entries: usize,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.hashes.capacity() * 8 + self.blobs.capacity() * 4
    }

    /// Adds the pair, unless it is there or the hash has [`SAME_HASH`] blobs already: a name that is repeated
    /// without end must not make one long row of slots.
    pub(super) fn insert(&mut self, hash: SeenHash, blob: u32) {
        if self.entries >= self.hashes.len() / 4 * 3 {
            self.grow();
        }
        let mut same = 0;
        let mut slot = self.home(hash.get());
        while self.hashes[slot] != 0 {
            if self.hashes[slot] == hash.get() {
                same += 1;
                if self.blobs[slot] == blob || same == SAME_HASH {
                    return;
                }
            }
            slot = self.behind(slot);
        }
        self.put(slot, hash.get(), blob);
    }

    pub(super) fn find(&self, hash: SeenHash, blobs: &mut Vec<u32>) {
        if self.entries == 0 {
            return;
        }
        let mut slot = self.home(hash.get());
        while self.hashes[slot] != 0 {
            if self.hashes[slot] == hash.get() {
                blobs.push(self.blobs[slot]);
            }
            slot = self.behind(slot);
        }
    }

    /// All pairs, in ascending order.
    pub(super) fn sorted(&self) -> Vec<(u64, u32)> {
        let mut entries = Vec::with_capacity(self.entries);
        entries.extend(self.hashes.iter().copied().zip(self.blobs.iter().copied()).filter(|&(hash, _)| hash != 0));
        entries.sort_unstable();
        entries
    }

    /// Empties it, and keeps the memory for as many again.
    pub(super) fn clear(&mut self) {
        self.hashes.fill(0);
        self.entries = 0;
    }

    fn grow(&mut self) {
        let slots = (self.hashes.len() * 2).max(SMALLEST);
        let old = std::mem::replace(self, Self { hashes: vec![0; slots], blobs: vec![0; slots], entries: 0 });
        for (hash, blob) in old.hashes.into_iter().zip(old.blobs).filter(|&(hash, _)| hash != 0) {
            let mut slot = self.home(hash);
            while self.hashes[slot] != 0 {
                slot = self.behind(slot);
            }
            self.put(slot, hash, blob);
        }
    }

    fn put(&mut self, slot: usize, hash: u64, blob: u32) {
        self.hashes[slot] = hash;
        self.blobs[slot] = blob;
        self.entries += 1;
    }

    /// Where the search for a hash begins: its upper bits.
    fn home(&self, hash: u64) -> usize {
        let bits = self.hashes.len().trailing_zeros();
        usize::try_from(hash >> (64 - bits)).expect("below the number of slots")
    }

    fn behind(&self, slot: usize) -> usize {
        (slot + 1) & (self.hashes.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(table: &Table, hash: u64) -> Vec<u32> {
        let mut blobs = Vec::new();
        table.find(SeenHash::new(hash).unwrap(), &mut blobs);
        blobs.sort_unstable();
        blobs
    }

    #[test]
    fn hashes_that_begin_alike_are_kept_apart_and_wrap_around() {
        let mut table = Table::default();
        assert_eq!(find(&table, 1), [0; 0]);
        for low in 0..100 {
            table.insert(SeenHash::new(u64::MAX - low).unwrap(), u32::try_from(low).unwrap());
        }
        for low in 0..100 {
            assert_eq!(find(&table, u64::MAX - low), [u32::try_from(low).unwrap()]);
        }
        assert_eq!(find(&table, u64::MAX - 100), [0; 0]);
        assert!(table.sorted().is_sorted());
    }

    #[test]
    fn a_hash_keeps_its_first_blobs_and_no_pair_twice() {
        let mut table = Table::default();
        for blob in [5, 5, 6, 5] {
            table.insert(SeenHash::MIN, blob);
        }
        assert_eq!((find(&table, 1), table.len()), (vec![5, 6], 2));
        for blob in 10..10_000 {
            table.insert(SeenHash::MIN, blob);
        }
        assert_eq!(table.len(), SAME_HASH);
        assert_eq!(find(&table, 1)[..2], [5, 6]);
        table.clear();
        assert_eq!(find(&table, 1), [0; 0]);
    }
}
