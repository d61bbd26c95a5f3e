//! A backup as a stream: lines of JSON, each a [`Frame`], and behind [`Frame::Bytes`] as many bytes as it says.
//!
//! ```text
//! {"begin":{"format":"…"}}
//! {"partition":{"name":"2026-11-22.001"}}
//! {"file":{"path":"db/db"}}
//! {"bytes":262144}
//! …the bytes
//! "whole"
//! {"end":{"at":"…","partitions":["2026-11-22.001"],"anchors":"…"}}
//! ```
//!
//! **Invariant:** a stream without `end` is a beginning. Nothing says beforehand how long anything will be, so that whoever
//! sends can say at any moment that a partition has changed or that there is no more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a folder holds whole: the partitions by their names, and by what they are known.
pub type Have = BTreeMap<String, String>;

/// A line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame {
    /// Whose backup this is: the file `format`.
    Begin { format: String },
    /// A partition comes.
    Partition { name: String },
    /// A file of it comes, by its path in the partition.
    File { path: String },
    /// So many bytes of the file follow.
    Bytes(usize),
    /// All files of the partition have come, and did not change meanwhile.
    Whole,
    /// The partition changed or went away: what has come of it is nothing. It may come again.
    Changed,
    /// There is no more, for this reason.
    Failed { why: String },
    /// Everything has come.
    End(End),
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// The moment, in the service's time.
    pub(super) at: Timestamp,
    /// All partitions, those that were not sent because they are there included.
    pub(super) partitions: Vec<String>,
    /// Partitions that retention has dropped before that moment, as the file `content/anchors` has it.
    pub(super) anchors: String,
    /// Tenants that were purged, as the file `content/purges` has it, if any were: what a partition still holds of them stays
    /// hidden, and is erased, in a store that is made of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) purges: Option<String>,
}
