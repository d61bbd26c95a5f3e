//! What single blobs have been answered in this run of the tree that is not written down with their entries. Pure.
//!
//! An answer may speak of the tenant and mean the blob: one that is always throttled would close the tenant's gate for
//! ever. And one word that content is gone may be that of a server that does not have it yet. So such answers are
//! counted, blob by blob.
//!
//! **Invariant:** memory is bounded: of more than [`MOST`] blobs the counts begin anew, which costs requests only.

use std::collections::{HashMap, HashSet};

use crate::content::ContentId;

/// Blobs that are kept count of.
const MOST: usize = 4096;

/// The counts of one tenant's blobs.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    counts: HashMap<ContentId, Counts>,
    malformed: HashSet<ContentId>,
    aside: HashSet<ContentId>,
}

#[derive(Debug, Default)]
struct Counts {
    throttled: u32,
    gone: u32,
}

impl Strikes {
    /// Its retrieval was answered with a wait for the tenant: how often by now.
    pub(super) fn throttled(&mut self, id: &ContentId) -> u32 {
        let counts = self.counts(id);
        counts.throttled += 1;
        counts.throttled
    }

    /// The service says that it is gone: how often by now.
    pub(super) fn gone(&mut self, id: &ContentId) -> u32 {
        let counts = self.counts(id);
        counts.gone += 1;
        counts.gone
    }

    /// Its body cannot be read: how many there are of those now.
    pub(super) fn malformed(&mut self, id: &ContentId) -> usize {
        if self.malformed.len() < MOST {
            self.malformed.insert(id.clone());
        }
        self.malformed.len()
    }

    /// It is done with. True if it was the last whose body could not be read.
    pub(super) fn forget(&mut self, id: &ContentId) -> bool {
        self.counts.remove(id);
        self.malformed.remove(id) && self.malformed.is_empty()
    }

    /// It cannot be collected with the settings that this tree has. False if there are too many of those already.
    pub(super) fn set_aside(&mut self, id: &ContentId) -> bool {
        let room = self.aside.len() < MOST;
        if room {
            self.aside.insert(id.clone());
        }
        room
    }

    /// Whether it cannot be collected with the settings that this tree has.
    pub(super) fn is_aside(&self, id: &ContentId) -> bool {
        self.aside.contains(id)
    }

    fn counts(&mut self, id: &ContentId) -> &mut Counts {
        if self.counts.len() >= MOST && !self.counts.contains_key(id) {
            self.counts.clear();
        }
        self.counts.entry(id.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_is_counted_by_itself_until_it_is_done_with() {
        let mut strikes = Strikes::default();
        let (a, b) = ("a".into(), "b".into());
        assert_eq!([strikes.throttled(&a), strikes.throttled(&a), strikes.throttled(&b)], [1, 2, 1]);
        assert_eq!([strikes.gone(&a), strikes.gone(&b)], [1, 1]);
        assert_eq!([strikes.malformed(&a), strikes.malformed(&b), strikes.malformed(&a)], [1, 2, 2]);
        assert!(!strikes.forget(&a) && strikes.forget(&b) && !strikes.forget(&b));
        assert_eq!(strikes.throttled(&a), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut strikes = Strikes::default();
        let ids: Vec<ContentId> = (0..2 * MOST).map(|id| id.to_string().into()).collect();
        assert!(ids.iter().all(|id| strikes.throttled(id) == 1 && strikes.malformed(id) <= MOST));
        assert_eq!(ids.iter().filter(|id| strikes.set_aside(id)).count(), MOST);
        assert!(strikes.counts.len() <= MOST && strikes.is_aside(&ids[0]));
    }
}
