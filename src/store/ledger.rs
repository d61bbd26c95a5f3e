//! What the service made available, hour by hour, and what became of it: a reckoning over headers, queue and dead letters,
//! made when somebody asks, so that it cannot say something else than they do.
//!
//! An hour is that of a blob's `contentCreated`. Every blob that was listed is in exactly one of the four places: stored,
//! waiting, given up, or refused because of how it is listed; blobs that retention has dropped are in none.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::facade::Store;
use super::header::BlobHeader;
use super::holdings::Holdings;
use super::read::Read;
use super::{Query, TimeBasis};
use crate::content::{ContentType, TenantId, Tier};

/// Seconds of an hour.
const HOUR: i64 = 3600;

/// What became of what was available in an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hour {
    /// Blobs that are stored.
    pub stored: u64,
    /// Records in them, copies included.
    pub records: u64,
    /// Bytes of their bodies as received.
    pub bytes: u64,
    /// Records that are copies of others.
    pub duplicates: u64,
    /// Blobs that the listing of the last minutes had missed, found by that of the last hours.
    pub late_recent: u64,
    /// Blobs that only the sweep of seven days found.
    pub late_sweep: u64,
    /// Bodies that are stored again since the service serves another one by now; not counted above.
    pub revisions: u64,
    /// Bodies that are kept although they are no JSON array of records; each blob is counted as lost.
    pub defects: u64,
    /// Blobs that wait to be retrieved.
    pub waiting: u64,
    /// Blobs that were given up: expired, gone or not to be had; each is a dead letter with its reason.
    pub lost: u64,
    /// Blobs that are listed so that they cannot be retrieved.
    pub refused: u64,
}

impl Hour {
    /// Blobs that were listed.
    #[must_use]
    pub const fn listed(&self) -> u64 {
        self.stored + self.waiting + self.lost + self.refused
    }

    /// Takes another hour along.
    pub const fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.records += other.records;
        self.bytes += other.bytes;
        self.duplicates += other.duplicates;
        self.late_recent += other.late_recent;
        self.late_sweep += other.late_sweep;
        self.revisions += other.revisions;
        self.defects += other.defects;
        self.waiting += other.waiting;
        self.lost += other.lost;
        self.refused += other.refused;
    }

    fn of(header: &BlobHeader) -> Self {
        if header.revision > 0 {
            return Self { revisions: 1, ..Self::default() };
        }
        if header.defect.is_some() {
            return Self { defects: 1, ..Self::default() };
        }
        Self {
            stored: 1,
            records: header.records.into(),
            bytes: header.bytes,
            duplicates: header.duplicates.len() as u64,
            late_recent: u64::from(header.fetched.tier == Tier::Recent),
            late_sweep: u64::from(header.fetched.tier == Tier::Sweep),
            ..Self::default()
        }
    }
}

/// An hour of a tenant's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub content_type: ContentType,
    /// When it begins.
    pub hour: Timestamp,
    /// What became of it.
    #[serde(flatten)]
    pub what: Hour,
}

/// The hours in which anything was available, by whose they are.
pub(super) type Ledgers = BTreeMap<(TenantId, ContentType, Timestamp), Hour>;

/// The hour in which a moment lies.
pub(super) fn hour_of(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(HOUR)).unwrap_or(at)
}

impl Store {
    /// The hours of what `query` asks for, in which anything was available: of these tenants and content types, between
    /// these times of availability. An error if a partition or a blob that it could be about cannot be read.
    pub async fn ledger(&self, query: Query) -> Result<Vec<LedgerLine>, StoreError> {
        let query = Query { by: TimeBasis::Available, ..query };
        let tenants: BTreeSet<TenantId> = if query.tenants.is_empty() {
            let of_blobs = self.heads().into_keys().map(|(tenant, _)| tenant);
            let of_letters = self.all_dead_letters().await?.into_keys();
            of_blobs.chain(self.state().queued_tenants()).chain(of_letters).collect()
        } else {
            query.tenants.iter().copied().collect()
        };
        let asked = query.clone();
        // In this order, what is stored meanwhile is missed, and nothing counted twice.
        let mut ledgers = self.read_holdings(move |holdings| of_headers(holdings, &asked)).await?;
        // What is stored leaves the queue a moment later.
        self.state().settle().await?;
        for tenant in tenants {
            for (content_type, at, what) in self.state().outstanding(tenant).await? {
                let is_asked = query.content_types.is_empty() || query.content_types.contains(&content_type);
                if is_asked && query.meets_time(at) {
                    ledgers.entry((tenant, content_type, hour_of(at))).or_default().add(&what);
                }
            }
        }
        let line = |((tenant, content_type, hour), what)| LedgerLine { tenant, content_type, hour, what };
        Ok(ledgers.into_iter().map(line).collect())
    }
}

/// Blocking: reads the headers of all partitions that can match.
fn of_headers(holdings: &Holdings, query: &Query) -> Result<Ledgers, StoreError> {
    let mut ledgers = Ledgers::new();
    let mut read = Read::default();
    super::read::for_each_header(holdings, query, &mut read, |tenant, header| {
        let key = (tenant, header.content_type, hour_of(header.content_created));
        ledgers.entry(key).or_default().add(&Hour::of(header));
    })?;
    read.complete()?;
    Ok(ledgers)
}
