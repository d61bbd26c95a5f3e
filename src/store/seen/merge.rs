//! Several sorted sources as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::run::{Entries, Run};
use super::{SAME_HASH, SeenError};

/// The entries of some runs and of a table, in ascending order, each pair once and at most [`SAME_HASH`] pairs of a
/// hash. Memory holds one stretch of blocks of each run.
pub(super) struct Merge<'a> {
    runs: Vec<Entries<'a>>,
    table: std::vec::IntoIter<(u64, u32)>,
    /// The next entry of each source; the table is the source behind the runs.
    heads: BinaryHeap<Reverse<((u64, u32), usize)>>,
    most: u64,
    last: Option<(u64, u32)>,
    same: usize,
}

impl<'a> Merge<'a> {
    pub(super) fn of(runs: &'a [Run], table: Vec<(u64, u32)>) -> Result<Self, SeenError> {
        let most = runs.iter().map(Run::entries).sum::<u64>() + table.len() as u64;
        let mut merge = Self {
            runs: runs.iter().map(Run::read_all).collect(),
            table: table.into_iter(),
            heads: BinaryHeap::new(),
            most,
            last: None,
            same: 0,
        };
        for source in 0..=merge.runs.len() {
            merge.advance(source)?;
        }
        Ok(merge)
    }

    /// How many entries it has at most.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, u32)>, SeenError> {
        while let Some(Reverse((entry, source))) = self.heads.pop() {
            self.advance(source)?;
            match self.last {
                Some(last) if last == entry => continue,
                Some((hash, _)) if hash == entry.0 => self.same += 1,
                _ => self.same = 1,
            }
            self.last = Some(entry);
            if self.same <= SAME_HASH {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn advance(&mut self, source: usize) -> Result<(), SeenError> {
        let next = match self.runs.get_mut(source) {
            Some(run) => run.next()?,
            None => self.table.next(),
        };
        self.heads.extend(next.map(|entry| Reverse((entry, source))));
        Ok(())
    }
}
