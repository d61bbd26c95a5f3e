//! Is everything still there, and as it was stored?
//!
//! Every partition and tenant is walked: the chain of headers, and of every blob its parts, its digest, its number of
//! records and its index. Four things are told apart:
//!
//! - **dropped**: retention took a partition away, and an anchor says so. That is in order.
//! - **lost**: a partition is damaged, was moved aside, or is gone without an anchor; or parts of a body are gone.
//! - **gap**: a partition is there, but blobs that stood in it, by number or by chain, are not.
//! - **altered**: what is there is not what was stored.
//!
//! Memory holds the links of one tenant's blobs in one partition, about eighty bytes a blob.
//!
//! Deliberately absent: protection against someone who can write to the store and rebuilds the whole chain. That takes
//! a copy of the heads kept elsewhere: their digest at the beginning of every partition is in the journal.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::anchors::Gone;
use super::chain::verify::{ChainBreak, ChainVerifier};
use super::chain::{Link, from_hex, heads_digest};
use super::error::StoreError;
use super::header::BlobHeader;
use super::holdings::{Holdings, Standing};
use super::ids::PackedIds;
use super::keys;
use super::partition::Label;
use super::partitions::{Partition, Reading};
use super::read::Body;
use super::records::reader::{ReadError, RecordReader};
use super::roll::restart_link;
use super::tree::{Head, Position};
use crate::content::{ContentType, TenantId};

/// How many findings are kept; further ones are only counted.
const KEPT: usize = 10_000;

/// What came of verifying.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Partitions that were read.
    pub partitions: u64,
    /// Blobs that were read.
    pub blobs: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The digests of all chains' heads at the beginning of each partition, for comparing with those in the journal.
    pub heads: Vec<PartitionHeads>,
    /// The same digest at the end of the newest partition: what the next one would begin with.
    pub heads_now: String,
    /// What was found, oldest partition first.
    pub findings: Vec<Finding>,
    /// How many further findings there are.
    pub more: u64,
}

impl Verification {
    /// Whether nothing is wrong: what retention dropped is in order.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.more == 0 && self.findings.iter().all(|finding| matches!(finding, Finding::Dropped { .. }))
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < KEPT {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// Where all chains stood when a partition was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionHeads {
    /// The partition's name.
    pub partition: String,
    /// One digest over the heads of all tenants' chains, in hexadecimal.
    pub heads: String,
}

/// What findings have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What is there is not what was stored.
    Altered,
    /// Blobs are gone from a partition that is there.
    Gap,
    /// A partition or a part of a blob cannot be read or is gone.
    Lost,
    /// Retention dropped partitions. That is in order.
    Dropped,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Gap => "gap",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Altered => "what is there is not what was stored: it was changed behind Tenantry's back",
            Self::Gap => {
                "blobs that were stored here are gone, and the chain shows it: they were taken out or replaced"
            }
            Self::Lost => "this was stored and cannot be read any more: it is damaged, or was removed from the disk",
            Self::Dropped => "retention removed these, as it was told to; that is in order",
        }
    }

    /// What to do about it; empty if there is nothing to do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Altered | Self::Gap => {
                "keep a copy of the store's directory as evidence, find out who could write to it, compare the digests \
                 with those in the journal, and restore from a backup"
            }
            Self::Lost => {
                "check the disk (`dmesg`), put a directory back that was moved, or restore from a backup; what the \
                 service still holds is collected again"
            }
            Self::Dropped => "",
        }
    }
}

/// Something that is not there, or not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// Retention dropped these partitions.
    Dropped {
        /// Their ordinals.
        ordinals: RangeInclusive<u32>,
        /// The name of the last one.
        partition: String,
        /// When the last one was dropped.
        at: Timestamp,
    },
    /// A partition cannot be read or is gone.
    LostPartition {
        /// Its ordinal.
        ordinal: u32,
        /// Its name, if that is known.
        partition: Option<String>,
        /// What is known of it.
        why: String,
    },
    /// A part of a body, or the index of a blob, is gone.
    LostPart {
        /// The partition that it stands in.
        partition: String,
        /// Which blob.
        blob: BlobName,
        /// What is gone.
        why: String,
    },
    /// Blobs are gone from a partition that is there.
    Gap {
        /// The partition that it stands in.
        partition: String,
        /// Whose, what, and the first number that is gone or the one behind the gap.
        blob: BlobName,
        /// What tells.
        why: String,
    },
    /// A blob is not as it was stored.
    Altered {
        /// The partition that it stands in.
        partition: String,
        /// Which blob.
        blob: BlobName,
        /// What does not fit.
        why: String,
    },
}

impl Finding {
    /// Whose blob it names, if it names one.
    #[must_use]
    pub const fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Dropped { .. } | Self::LostPartition { .. } => None,
            Self::LostPart { blob, .. } | Self::Gap { blob, .. } | Self::Altered { blob, .. } => Some(blob.tenant),
        }
    }

    /// Which of the four it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Dropped { .. } => Kind::Dropped,
            Self::LostPartition { .. } | Self::LostPart { .. } => Kind::Lost,
            Self::Gap { .. } => Kind::Gap,
            Self::Altered { .. } => Kind::Altered,
        }
    }
}

/// Names a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobName {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub content_type: ContentType,
    /// Its number.
    pub seq: u64,
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blob {} of {} of tenant `{}`", self.seq, self.content_type, self.tenant)
    }
}

/// Without the kind, which stands above.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped { ordinals, partition, at } => {
                let count = ordinals.end() - ordinals.start() + 1;
                write!(f, "{count} partitions up to `{partition}`, the last at {at}")
            }
            Self::LostPartition { partition: Some(partition), why, .. } => write!(f, "partition `{partition}`: {why}"),
            Self::LostPartition { ordinal, partition: None, why } => write!(f, "partition number {ordinal}: {why}"),
            Self::LostPart { partition, blob, why }
            | Self::Gap { partition, blob, why }
            | Self::Altered { partition, blob, why } => write!(f, "partition `{partition}`: {blob}: {why}"),
        }
    }
}

/// Verifies all that is stored when it begins, of these tenants (none: of all), while `go_on` says so; when it does not, the
/// answer is [`StoreError::Closed`]. Blocking, for as long as it takes to read everything.
pub(crate) fn verify(
    holdings: &Holdings,
    only: &[TenantId],
    go_on: &dyn Fn() -> bool,
) -> Result<Verification, StoreError> {
    let mut found = Verification::default();
    let asked = Asked { only, go_on };
    let mut before: Option<(u32, HashMap<TenantId, Position>)> = None;
    let Standing { partitions: list, sealed, heads, anchored } = holdings.standing();
    for (at, partition) in list.iter().enumerate() {
        let first_missing = before.as_ref().map_or(1, |(ordinal, _)| ordinal + 1);
        missing(holdings, first_missing..partition.ordinal, &mut found);
        // Without a writer, what stands on the disk is durable.
        let durable = (at + 1 == list.len() && !heads.is_empty()).then_some(&heads);
        match verify_partition(holdings, partition, durable, before.as_ref(), asked, &mut found) {
            Ok(positions) => {
                found.partitions += 1;
                before = Some((partition.ordinal, positions));
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Undecodable { .. })) => {
                let name = Some(partition.name.to_string());
                let why = error.to_string();
                found.add(Finding::LostPartition { ordinal: partition.ordinal, partition: name, why });
                // Nothing is known of where the chains stood at its end.
                before = Some((partition.ordinal, HashMap::new()));
            }
            // Retention came in between.
            Err(StoreError::PartitionDropped { .. }) => before = Some((partition.ordinal, HashMap::new())),
            Err(error) => return Err(error),
        }
    }
    let links = before.iter().flat_map(|(_, positions)| positions).map(|(tenant, position)| (*tenant, position.link));
    found.heads_now = heads_digest(links);
    // Only a partition that has had a successor is sealed, and numbers that an anchor names were given.
    let given = list.last().filter(|_| sealed).map(|newest| newest.ordinal + 1).max(anchored);
    let end = list.last().map_or(0, |newest| newest.ordinal);
    missing(holdings, end + 1..given.unwrap_or(0) + 1, &mut found);
    Ok(found)
}

/// What is to be verified, and for how long.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Of whom; nobody means all.
    only: &'a [TenantId],
    go_on: &'a dyn Fn() -> bool,
}

impl Asked<'_> {
    fn means(self, tenant: TenantId) -> bool {
        self.only.is_empty() || self.only.contains(&tenant)
    }
}

/// Partitions that are not there.
fn missing(holdings: &Holdings, ordinals: std::ops::Range<u32>, found: &mut Verification) {
    let mut ordinal = ordinals.start;
    while ordinal < ordinals.end {
        let anchor = holdings.anchors().about(ordinal).cloned();
        let last = match anchor {
            Some(anchor) if anchor.reason == Gone::Dropped => {
                let last = anchor.ordinals.1.min(ordinals.end - 1);
                let ordinals = ordinal..=last;
                found.add(Finding::Dropped { ordinals, partition: anchor.partition, at: anchor.at });
                last
            }
            Some(anchor) => {
                let why = match &anchor.reason {
                    Gone::Damaged { why, moved_to: Some(path) } => {
                        format!("it was damaged ({why}) and moved to `{}`", path.display())
                    }
                    _ => "it was damaged and moved aside".to_owned(),
                };
                found.add(Finding::LostPartition { ordinal, partition: Some(anchor.partition), why });
                ordinal
            }
            None => {
                let why = "it is gone, and nothing says why".to_owned();
                found.add(Finding::LostPartition { ordinal, partition: None, why });
                ordinal
            }
        };
        ordinal = last + 1;
    }
}

fn verify_partition(
    holdings: &Holdings,
    partition: &Arc<Partition>,
    durable: Option<&HashMap<TenantId, Head>>,
    before: Option<&(u32, HashMap<TenantId, Position>)>,
    asked: Asked<'_>,
    found: &mut Verification,
) -> Result<HashMap<TenantId, Position>, StoreError> {
    let reading = holdings.partitions.read(partition)?;
    let Label { floor, erased, .. } = holdings.label(partition)?;
    // While it is written, only what was durable at the beginning counts.
    let heads: HashMap<TenantId, Head> = match durable {
        Some(heads) => heads.clone(),
        None => reading.heads()?.into_iter().collect(),
    };
    // With those that were purged since, as the journal has it.
    let mut all = heads.clone();
    for (tenant, head) in reading.unveiled().heads()? {
        if holdings.purges().hides(tenant, partition.ordinal) {
            all.insert(tenant, head);
        }
    }
    let starts = all.iter().filter(|(_, head)| head.start.length > 0).map(|(tenant, head)| (*tenant, head.start.link));
    let erased = erased.iter().filter_map(|one| Some((one.tenant, from_hex(one.start.as_ref()?)?)));
    let starts = starts.chain(erased);
    found.heads.push(PartitionHeads { partition: partition.name.to_string(), heads: heads_digest(starts) });
    if let Some((ordinal, positions)) = before
        && ordinal + 1 == partition.ordinal
    {
        continues(partition, positions, &heads, asked, found);
    }
    for (&tenant, head) in heads.iter().filter(|(tenant, _)| asked.means(**tenant)) {
        verify_tenant(&reading, tenant, head, floor, asked.go_on, found)?;
    }
    Ok(heads.into_iter().map(|(tenant, head)| (tenant, head.now)).collect())
}

/// Whether every chain goes on where the partition before left it.
fn continues(
    partition: &Partition,
    before: &HashMap<TenantId, Position>,
    heads: &HashMap<TenantId, Head>,
    asked: Asked<'_>,
    found: &mut Verification,
) {
    let mut lost = false;
    for (&tenant, position) in before.iter().filter(|(tenant, _)| asked.means(**tenant)) {
        let start = heads.get(&tenant).map(|head| &head.start);
        if start.is_some_and(|start| start == position) {
            continue;
        }
        if start.is_some_and(|start| start.link == restart_link(tenant, &position.link, partition.ordinal)) {
            lost = true;
            continue;
        }
        let (content_type, seq) = last_of(position);
        let why = format!("the chain does not go on in `{}` where the partition before left it", partition.name);
        found.add(Finding::Gap {
            partition: partition.name.to_string(),
            blob: BlobName { tenant, content_type, seq },
            why,
        });
    }
    if lost {
        let why = format!("the partition that stood before `{}` is gone, and nothing says why", partition.name);
        found.add(Finding::LostPartition { ordinal: partition.ordinal, partition: None, why });
    }
}

fn last_of(position: &Position) -> (ContentType, u64) {
    let last = position.last.iter().max_by_key(|(_, seq)| **seq);
    let known = last.and_then(|(code, seq)| Some((ContentType::from_code(*code)?, *seq)));
    known.unwrap_or((ContentType::General, 0))
}

/// What the order of a tenant's blobs is found out from.
struct Node {
    content_type: ContentType,
    seq: u64,
    blob: keys::BlobNumber,
    previous: Link,
    link: Link,
}

fn verify_tenant(
    reading: &Reading,
    tenant: TenantId,
    head: &Head,
    floor: u64,
    go_on: &dyn Fn() -> bool,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let partition = reading.name();
    let mut nodes = Vec::new();
    for content_type in ContentType::STORED {
        let last = head.now.last.get(&content_type.code()).copied().unwrap_or(0);
        let (from, to) = (keys::header(tenant, content_type, 0), keys::header(tenant, content_type, last));
        for row in reading.headers(from, to)? {
            let (_, seq, header) = row?;
            match header {
                Ok(BlobHeader { blob_no, previous, link, .. }) => {
                    nodes.push(Node { content_type, seq, blob: blob_no, previous, link });
                }
                Err(error) => {
                    let blob = BlobName { tenant, content_type, seq };
                    found.add(Finding::Altered { partition: partition.clone(), blob, why: error.to_string() });
                }
            }
        }
    }
    let next = |content_type: ContentType| {
        let last = head.start.last.get(&content_type.code()).copied().unwrap_or(0);
        (content_type, last.max(floor) + 1)
    };
    let next_seq: BTreeMap<_, _> = ContentType::STORED.into_iter().map(next).collect();
    let mut chain = ChainVerifier::new(tenant, head.start.link, next_seq);
    for node in in_order(nodes, head.start.link) {
        may_go_on(reading, go_on)?;
        let blob = BlobName { tenant, content_type: node.content_type, seq: node.seq };
        let Some(header) = reading.header(tenant, node.content_type, node.seq)? else { continue };
        if (header.content_type, header.seq) != (node.content_type, node.seq) {
            let why = "its header is another blob's".to_owned();
            found.add(Finding::Altered { partition: partition.clone(), blob, why });
            continue;
        }
        for broken in chain.next(&header) {
            found.add(finding(&partition, tenant, broken));
        }
        found.blobs += 1;
        found.records += u64::from(header.records);
        found.bytes += header.bytes;
        verify_blob(reading, blob, &header, go_on, found)?;
    }
    if !chain.ends_at(head.now.link) {
        let (content_type, seq) = last_of(&head.now);
        let why = "the chain does not end where it ended: its last blobs are gone or were replaced".to_owned();
        found.add(Finding::Gap { partition, blob: BlobName { tenant, content_type, seq }, why });
    }
    Ok(())
}

/// In the order of the chain; where that is broken, on with the oldest that nothing leads to.
fn in_order(nodes: Vec<Node>, start: Link) -> Vec<Node> {
    let mut by_previous: HashMap<Link, Vec<Node>> = HashMap::new();
    for node in nodes {
        by_previous.entry(node.previous).or_default().push(node);
    }
    let mut ordered: Vec<Node> = Vec::new();
    let mut tip = start;
    loop {
        while let Some(nodes) = by_previous.get_mut(&tip)
            && let Some(node) = nodes.pop()
        {
            if nodes.is_empty() {
                by_previous.remove(&tip);
            }
            tip = node.link;
            ordered.push(node);
        }
        by_previous.retain(|_, nodes| !nodes.is_empty());
        let links: std::collections::HashSet<Link> = by_previous.values().flatten().map(|node| node.link).collect();
        let all = || by_previous.iter().filter_map(|(previous, nodes)| Some((previous, nodes.first()?.blob)));
        let beginning = all().filter(|(previous, _)| !links.contains(*previous)).min_by_key(|(_, blob)| *blob);
        match beginning.or_else(|| all().min_by_key(|(_, blob)| *blob)) {
            Some((previous, _)) => tip = *previous,
            None => return ordered,
        }
    }
}

fn finding(partition: &str, tenant: TenantId, broken: ChainBreak) -> Finding {
    let partition = partition.to_owned();
    let name = |content_type, seq| BlobName { tenant, content_type, seq };
    match broken {
        ChainBreak::Altered(at) => Finding::Altered {
            partition,
            blob: name(at.content_type, at.seq),
            why: "its header was changed after it was stored".to_owned(),
        },
        ChainBreak::Missing { content_type, first, last } => Finding::Gap {
            partition,
            blob: name(content_type, first),
            why: format!("blobs {first} to {last} are gone"),
        },
        ChainBreak::Gap(at) => Finding::Gap {
            partition,
            blob: name(at.content_type, at.seq),
            why: "it does not go on where the blob before it ended: that was replaced or is gone".to_owned(),
        },
        ChainBreak::Disordered(at) => Finding::Altered {
            partition,
            blob: name(at.content_type, at.seq),
            why: "its number was given before".to_owned(),
        },
    }
}

/// Whether neither the partition is to go nor who asked has gone.
fn may_go_on(reading: &Reading, go_on: &dyn Fn() -> bool) -> Result<(), StoreError> {
    reading.go_on()?;
    if go_on() { Ok(()) } else { Err(StoreError::Closed) }
}

/// The body and the index of one blob.
fn verify_blob(
    reading: &Reading,
    blob: BlobName,
    header: &BlobHeader,
    go_on: &dyn Fn() -> bool,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let partition = reading.name();
    let altered = |why: &str| Finding::Altered { partition: partition.clone(), blob, why: why.to_owned() };
    let lost = |why: String| Finding::LostPart { partition: partition.clone(), blob, why };
    match reading.index(header.blob_no) {
        Ok(None) => found.add(lost("its index is gone".to_owned())),
        Ok(Some(index)) => {
            let named = (index.tenant, index.content_type, index.seq) == (blob.tenant, blob.content_type, blob.seq)
                && index.content_id == header.content_id;
            let ids = PackedIds::decode(&index.ids).map(|ids| ids.iter().count());
            if !named || ids.is_ok_and(|ids| ids != header.records as usize) || ids.is_err() {
                found.add(altered("its index is another blob's or was changed"));
            }
        }
        Err(StoreError::Undecodable { why, .. } | StoreError::Damaged { why, .. }) => found.add(lost(why)),
        Err(error) => return Err(error),
    }

    let mut sha256 = digest::Context::new(&digest::SHA256);
    let mut bytes = 0_u64;
    let mut parts = Body::new(reading, header).map(|part| {
        may_go_on(reading, go_on)?;
        let part = part?;
        sha256.update(&part);
        bytes += part.len() as u64;
        Ok(part)
    });
    let mut malformed = false;
    let mut records = header.records;
    let read = if header.defect.is_some() {
        Ok(())
    } else {
        count_records(&mut parts).map(|count| {
            malformed = count.is_none();
            records = count.unwrap_or(0);
        })
    };
    // The digest is over all of it, also of what is no array of records.
    match read.and_then(|()| parts.try_for_each(|part| part.map(drop))) {
        Ok(()) => {
            if sha256.finish().as_ref() != header.sha256 || bytes != header.bytes {
                found.add(altered("its body is not the one that was stored"));
            } else if malformed || records != header.records {
                found.add(altered("its body does not hold as many records as its header says"));
            }
        }
        Err(StoreError::Undecodable { why, .. } | StoreError::Damaged { why, .. }) => found.add(lost(why)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// How many records there are; `None` if it is no array of records.
fn count_records(parts: impl Iterator<Item = Result<Vec<u8>, StoreError>>) -> Result<Option<u32>, StoreError> {
    let mut reader = RecordReader::new(parts);
    let mut count = 0;
    loop {
        match reader.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return Ok(Some(count)),
            Err(ReadError::Part(error)) => return Err(error),
            Err(ReadError::Malformed(_)) => return Ok(None),
        }
    }
}
