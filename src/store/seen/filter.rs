//! Says quickly that a hash is *not* in a run.
//!
//! A Bloom filter in blocks of 512 bits, one cache line: the upper half of the hash chooses the block, the lower half
//! seven bits in it. At ten bits an entry about one hash in a hundred that is not there passes. Runs are sorted by
//! hash, so that the filter is filled from front to back while a run is written.

/// Bits per entry, at most (above 51 entries).
const BITS: u64 = 10;
/// Bits that are set per entry.
const PROBES: u32 = 7;
/// 64-bit words in a block.
pub(super) const WORDS: usize = 8;

/// The filter of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(Vec<u64>);

impl Filter {
    /// A filter for this many entries, with nothing in it.
    pub(super) fn for_entries(entries: u64) -> Self {
        let blocks = (entries * BITS / (WORDS as u64 * 64)).max(1);
        Self(vec![0; usize::try_from(blocks).expect("fits in memory, as the entries' blobs do") * WORDS])
    }

    /// The filter with these words, of which there is at least one block.
    pub(super) fn from_words(words: Vec<u64>) -> Option<Self> {
        (!words.is_empty() && words.len().is_multiple_of(WORDS)).then_some(Self(words))
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let start = self.block(hash);
        for (word, bit) in bits(hash) {
            self.0[start + word] |= bit;
        }
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let start = self.block(hash);
        let block = &self.0[start..start + WORDS];
        bits(hash).all(|(word, bit)| block[word] & bit != 0)
    }

    /// Where the block of a hash starts: ascends with the hash.
    fn block(&self, hash: u64) -> usize {
        let blocks = (self.0.len() / WORDS) as u64;
        // The product of 32 bits and the number of blocks, shifted down, is below that number.
        usize::try_from(((hash >> 32) * blocks) >> 32).expect("below the number of blocks") * WORDS
    }
}

/// Nine bits of the spread lower half for each probe.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let spread = (hash & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| {
        let nine = spread >> (1 + probe * 9) & 511;
        ((nine >> 6) as usize, 1 << (nine & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_passes_and_little_else() {
        let mut random = fastrand::Rng::with_seed(3);
        let entries: Vec<u64> = std::iter::repeat_with(|| random.u64(..)).take(200_000).collect();
        let mut filter = Filter::for_entries(200_000);
        for &hash in &entries {
            filter.insert(hash);
        }
        assert!(entries.iter().all(|&hash| filter.may_contain(hash)));
        let others = 200_000;
        let passed = (0..others).filter(|_| filter.may_contain(random.u64(..))).count();
        assert!(passed * 1000 < others * 15, "{passed} of {others} pass");
        assert!(filter.words().len() as u64 * 64 <= 200_000 * BITS);
    }

    #[test]
    fn blocks_ascend_with_the_hash_and_reach_to_the_end() {
        let filter = Filter::for_entries(5_000);
        let last = filter.words().len() - WORDS;
        assert_eq!((filter.block(0), filter.block(u64::MAX)), (0, last));
        assert!((0..1000_u64).map(|step| filter.block(step << 54)).is_sorted());
        assert!(Filter::from_words(vec![]).is_none() && Filter::from_words(vec![0; 9]).is_none());
    }
}
