//! What stands in for the index of what was seen until that lands: right, but not frugal.

use std::collections::HashMap;

use super::seen::SeenHash;

#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<SeenHash, Vec<u32>>);

impl Seen {
    pub(crate) fn find(&self, hash: SeenHash) -> Vec<u32> {
        self.0.get(&hash).cloned().unwrap_or_default()
    }

    pub(crate) fn insert(&mut self, hash: SeenHash, blob: u32) {
        self.0.entry(hash).or_default().push(blob);
    }
}
