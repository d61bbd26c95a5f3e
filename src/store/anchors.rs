//! Why partitions are no longer here: what retention dropped, and what was moved aside as damaged.
//!
//! A missing partition that no anchor speaks of has been lost or taken away. The anchors stand in a small file of
//! their own, `content/anchors` (JSON), because they must outlive every database of the store; the journal has them
//! too. An anchor is written before the partition goes.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::StoreError;
use super::partition::{read_json, write_json};
use super::partitions::Partition;

use crate::event;

/// Partitions that are gone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The ordinals of the first and the last of them.
    pub ordinals: (u32, u32),
    /// The name of the last of them.
    pub partition: String,
    /// Why they are gone.
    pub reason: Gone,
    /// When that was decided.
    pub at: Timestamp,
    /// One digest over the last links of all chains at the end of the last of them, in hexadecimal, if that could be read:
    /// what stands in the journal for the partition that was begun next.
    #[serde(default)]
    pub heads: Option<String>,
}

/// Why a partition is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// Retention dropped it.
    Dropped,
    /// It was damaged and moved aside.
    Damaged {
        /// What was wrong, in the engine's words.
        why: String,
        /// Where it is now, once it was moved.
        moved_to: Option<PathBuf>,
    },
}

/// The anchors, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Anchors {
    path: PathBuf,
    list: Vec<Anchor>,
}

impl Anchors {
    pub(crate) fn read(content: &Path) -> Result<Self, StoreError> {
        let path = content.join("anchors");
        match read_json(&path) {
            Ok(list) => Ok(Self { path, list: list.unwrap_or_default() }),
            // Written whole or not at all: this is damage or somebody's hand. Collecting goes on without it.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(message_id = event::STORE_DAMAGED, %error, "the anchors of dropped partitions cannot be read; `verify` will call them lost");
                durable::rename(&path, &durable::with_suffix(&path, ".damaged"))?;
                Ok(Self { path, list: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn list(&self) -> &[Anchor] {
        &self.list
    }

    /// Writes down that a partition goes. Neighbours that retention dropped become one entry.
    pub(crate) fn add(
        &mut self,
        partition: &Partition,
        reason: Gone,
        heads: Option<String>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let (ordinal, partition) = (partition.ordinal, partition.name.to_string());
        let mut list = self.list.clone();
        match list.last_mut() {
            // The same again, with what has become known since.
            Some(known) if known.ordinals == (ordinal, ordinal) && known.partition == partition => {
                known.reason = reason;
            }
            Some(before)
                if reason == Gone::Dropped && before.reason == Gone::Dropped && before.ordinals.1 + 1 == ordinal =>
            {
                before.ordinals.1 = ordinal;
                before.partition = partition;
                before.at = at;
                before.heads = heads;
            }
            _ => list.push(Anchor { ordinals: (ordinal, ordinal), partition, reason, at, heads }),
        }
        write_json(&self.path, &list)?;
        self.list = list;
        Ok(())
    }

    /// Why the partition with this ordinal is gone, if it is.
    pub(crate) fn about(&self, ordinal: u32) -> Option<&Anchor> {
        self.list.iter().find(|anchor| (anchor.ordinals.0..=anchor.ordinals.1).contains(&ordinal))
    }

    /// Whether retention has dropped the partition with this ordinal.
    pub(crate) fn has_dropped(&self, ordinal: u32) -> bool {
        self.about(ordinal).is_some_and(|anchor| anchor.reason == Gone::Dropped)
    }

    /// The last ordinal that an anchor speaks of.
    pub(crate) fn last_ordinal(&self) -> Option<u32> {
        self.list.iter().map(|anchor| anchor.ordinals.1).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seen::SeenKey;

    #[test]
    fn what_is_gone_stays_known() {
        let dir = tempfile::tempdir().unwrap();
        let of = |ordinal, name: &str| {
            let directory = dir.path().join(name);
            Partition::new(name.parse().unwrap(), ordinal, None, directory, SeenKey::new([0; 16]))
        };
        let at = "2026-11-22T13:50:00Z".parse().unwrap();
        let mut anchors = Anchors::read(dir.path()).unwrap();
        anchors.add(&of(1, "2026-11-20.001"), Gone::Dropped, Some("a".into()), at).unwrap();
        anchors.add(&of(2, "2026-11-20.002"), Gone::Dropped, Some("b".into()), at).unwrap();
        let damaged = |moved_to| Gone::Damaged { why: "x".into(), moved_to };
        anchors.add(&of(5, "2026-11-22.001"), damaged(None), None, at).unwrap();
        anchors.add(&of(5, "2026-11-22.001"), damaged(Some("/aside".into())), None, at).unwrap();

        let anchors = Anchors::read(dir.path()).unwrap();
        assert_eq!(anchors.list().len(), 2);
        assert_eq!(anchors.about(1).unwrap().reason, Gone::Dropped);
        assert_eq!(anchors.about(2).unwrap().partition, "2026-11-20.002");
        assert_eq!(anchors.about(2).unwrap().heads.as_deref(), Some("b"));
        assert_eq!(anchors.about(3), None);
        assert_eq!(anchors.about(5).unwrap().reason, damaged(Some("/aside".into())));
        assert_eq!(anchors.last_ordinal(), Some(5));
    }
}
