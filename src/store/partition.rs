//! One partition: a directory with a sled database, and what is known of it without opening that.
//!
//! ```text
//! content/2026-11-22.001/
//!     partition   JSON: format, ordinal, when it was made by which clock; written before the directory gets its name
//!     sealed      JSON: the sums of a partition that is written no more
//!     seen-*      runs of the index "seen before?"
//!     db/         sled
//! ```
//!
//! The name's date is that of the service's time when the partition was made, and orders the partitions together
//! with the number behind it. The *ordinal* counts partitions over the store's life and is never given twice: blobs
//! name by it the partitions of those that had a record before.
//!
//! **Invariant:** a database is open at most once in the process, however many read from it; whoever reads holds
//! it open, and nothing removes a partition that is held.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::StoreError;
use super::header::BlobHeader;
use super::purge::Erasure;
use super::recent::Moment;

/// The version of what stands in a partition. A program that knows less refuses it.
pub(crate) const FORMAT: u32 = 1;

/// The directory name of a partition: `2026-11-22.001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionName {
    /// The day on which it was made.
    pub(crate) date: Date,
    /// Counts the partitions of the day, from 1.
    pub(crate) number: u32,
}

impl PartitionName {
    /// The name of the partition that follows `newest` when it is `today`: never an older date than the newest has.
    pub(crate) fn after(newest: Option<Self>, today: Date) -> Self {
        match newest {
            Some(newest) if newest.date >= today => Self { date: newest.date, number: newest.number + 1 },
            _ => Self { date: today, number: 1 },
        }
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.date, self.number)
    }
}

impl FromStr for PartitionName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (date, number) = text.split_once('.').ok_or(())?;
        let name = Self { date: date.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? };
        // One partition, one spelling: `2026-11-22.1` is somebody's copy.
        if name.to_string() == text { Ok(name) } else { Err(()) }
    }
}

/// What the file `partition` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) format: u32,
    /// The directory's name, so that one that was exchanged for another is noticed; missing in the first stores.
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) ordinal: u32,
    /// In the service's time.
    pub(crate) created: Timestamp,
    /// What the host's clock said then. This and the next are missing in the first stores: then they are the same.
    #[serde(default)]
    pub(crate) host: Option<Timestamp>,
    /// What the store reckoned then: see [`recent`](super::recent).
    #[serde(default)]
    pub(crate) reckoned: Option<Timestamp>,
    /// Every number given here is greater.
    pub(crate) floor: u64,
    /// Nothing here was stored before this time. Missing in the first stores: then since it was made.
    #[serde(default)]
    pub(crate) stored_from: Option<Timestamp>,
    /// What was erased from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) erased: Vec<Erasure>,
    /// It was written anew when it was sealed: its files hold nothing but its rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) anew: bool,
}

impl Label {
    pub(crate) fn new(name: PartitionName, ordinal: u32, begun: Moment, floor: u64, stored_from: Timestamp) -> Self {
        let Moment { service, host, reckoned } = begun;
        Self {
            format: FORMAT,
            name: Some(name.to_string()),
            ordinal,
            created: service,
            host: Some(host),
            reckoned: Some(reckoned),
            floor,
            stored_from: Some(stored_from),
            erased: Vec::new(),
            anew: false,
        }
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("partition");
        let label: Self = read_json(&path)?.ok_or_else(|| damaged(&path, "it is missing"))?;
        if label.format > FORMAT {
            return Err(StoreError::UnknownFormat { path, found: label.format, known: FORMAT });
        }
        Ok(label)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        write_json(&dir.join("partition"), self)
    }

    /// When the partition was begun.
    pub(crate) fn begun(&self) -> Moment {
        let same = self.created;
        Moment { service: same, host: self.host.unwrap_or(same), reckoned: self.reckoned.unwrap_or(same) }
    }
}

/// The sums over a partition: enough to pass over it without opening it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    /// The number that the next blob gets.
    pub(crate) next_blob: u32,
    pub(crate) blobs: u64,
    pub(crate) records: u64,
    /// Of the bodies as received.
    pub(crate) bytes: u64,
    /// Of the parts as stored.
    pub(crate) compressed: u64,
    /// Over the records' `CreationTime`.
    pub(crate) created: Span,
    /// Over the blobs' `contentCreated`.
    pub(crate) available: Span,
    /// Over the times of storing.
    pub(crate) stored: Span,
}

impl Sums {
    /// A number for a blob whose first part is about to be written.
    pub(crate) fn take_number(&mut self) -> u32 {
        self.next_blob += 1;
        self.next_blob - 1
    }

    /// Counts a blob.
    pub(crate) fn add(&mut self, header: &BlobHeader) {
        self.blobs += 1;
        self.records += u64::from(header.records);
        self.bytes += header.bytes;
        self.compressed += header.compressed;
        self.created.join(Span::new(header.created_min, header.created_max));
        self.available.join(Span::at(header.content_created));
        self.stored.join(Span::at(header.stored_at));
    }
}

/// The first and last of some times, if there were any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span(pub(crate) Option<(Timestamp, Timestamp)>);

impl Span {
    pub(crate) fn new(from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        Self(from.zip(to))
    }

    pub(crate) fn at(time: Timestamp) -> Self {
        Self(Some((time, time)))
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.0 = match (self.0, other.0) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    /// Whether a time in it can be in `[since, until)`.
    pub(crate) fn meets(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
        self.0.is_some_and(|(first, last)| {
            since.is_none_or(|since| last >= since) && until.is_none_or(|until| first < until)
        })
    }
}

/// The sums of a sealed partition; `None` if it has not been sealed.
pub(crate) fn read_sealed(dir: &Path) -> Result<Option<Sums>, StoreError> {
    read_json(&dir.join("sealed"))
}

/// Seals a partition: from now on it is only read.
pub(crate) fn write_sealed(dir: &Path, sums: &Sums) -> Result<(), StoreError> {
    write_json(&dir.join("sealed"), sums)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::read(path, error)),
    }
}

pub(crate) fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StoreError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| StoreError::write(path, error.into()))?;
    durable::write_file(path, &text)
}

fn damaged(path: &Path, why: impl fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), why: why.to_string() }
}

/// What precedes the name of a partition that was written anew and is to take the place of the old one.
pub(crate) const PURGED: &str = ".purged-";

/// Of which partition this is the directory that was written anew.
pub(crate) fn purged(path: &Path) -> Option<PartitionName> {
    path.file_name()?.to_str()?.strip_prefix(PURGED)?.parse().ok()
}

/// What lies in `content`.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The partitions, oldest first.
    pub(crate) partitions: Vec<(PartitionName, PathBuf)>,
    /// Everything else.
    pub(crate) others: Vec<PathBuf>,
}

/// Lists what lies in `content`. A partition that a crash has left between its old files and those that were to take their
/// place is where the new ones are.
pub(crate) fn list(content: &Path) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for path in durable::entries(content)? {
        match path.file_name().and_then(|name| name.to_str()).map(str::parse) {
            Some(Ok(name)) if path.is_dir() => listing.partitions.push((name, path)),
            _ => listing.others.push(path),
        }
    }
    let is_there = |name: PartitionName| fs::exists(content.join(name.to_string())).unwrap_or(true);
    let instead = |path: &PathBuf| purged(path).filter(|name| !is_there(*name));
    let taken: Vec<PathBuf> = listing.others.extract_if(.., |path| instead(path).is_some()).collect();
    listing.partitions.extend(taken.into_iter().filter_map(|path| Some((purged(&path)?, path))));
    listing.partitions.sort_unstable();
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> PartitionName {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_partition_is_never_older_than_the_newest() {
        let today = "2026-11-22".parse().unwrap();
        assert_eq!(PartitionName::after(None, today).to_string(), "2026-11-22.001");
        assert_eq!(PartitionName::after(Some(name("2026-11-21.004")), today).to_string(), "2026-11-22.001");
        assert_eq!(PartitionName::after(Some(name("2026-11-22.004")), today).to_string(), "2026-11-22.005");
        assert_eq!(PartitionName::after(Some(name("2026-12-22.004")), today).to_string(), "2026-12-22.005");
        assert!(name("2026-11-22.1000") > name("2026-11-22.999"));
    }

    #[test]
    fn only_the_one_spelling_is_a_partition() {
        for other in [".new-2026-11-22.001", "2026-11-22.1", "2026-11-22", "2026-11-32.001", "2026-11-22.001.bak", ""] {
            assert_eq!(other.parse::<PartitionName>(), Err(()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_partition_after_another_sorts_after_it(
            days in 0_i64..4000, number in 1_u32..2000, step in -400_i64..400,
        ) {
            let first: Date = "2026-01-01".parse().unwrap();
            let plus = |days: i64| first.checked_add(jiff::Span::new().days(days)).unwrap();
            let newest = PartitionName { date: plus(days), number };
            prop_assert!(PartitionName::after(Some(newest), plus(days + step)) > newest);
            prop_assert_eq!(newest.to_string().parse(), Ok(newest));
        }

        #[test]
        fn a_span_meets_what_one_of_its_times_meets(times in prop::collection::vec(0_i64..50, 0..5), a in 0_i64..50, b in 0_i64..50) {
            let at = |seconds| Timestamp::from_second(seconds).unwrap();
            let mut span = Span::default();
            for time in &times {
                span.join(Span::at(at(*time)));
            }
            let (since, until) = (a.min(b), a.max(b));
            // It may say yes too often (it knows only the ends), never no.
            if times.iter().any(|time| (since..until).contains(time)) {
                prop_assert!(span.meets(Some(at(since)), Some(at(until))));
            }
            prop_assert_eq!(span.meets(None, None), !times.is_empty());
        }
    }
}
