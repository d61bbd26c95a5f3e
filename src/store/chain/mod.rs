//! The chain of digests that shows whether a tenant's blobs are still all there, and as they were stored.
//!
//! Every stored blob has a *link*: SHA-256 over the link of the tenant's blob before it and over everything that
//! the header says of this one, the digest of the body included. Whoever alters a header breaks its own link,
//! whoever replaces or removes a blob breaks the connection to the next one. What the store itself takes away
//! (retention, a partition moved aside) is covered by an [anchor](super::anchors), so that it is told apart from what is
//! gone without a reason.
//!
//! The digest runs over the domain-separated canonical string of [`link`], not over the stored bytes: compression,
//! parts, the number in the partition and the format of the header may change without touching the chain.
//!
//! **Invariant:** the canonical string of [`DOMAIN`] never changes; a further field needs a further domain. (The first one
//! knew of a copy only the partition of its original, and was never released.)
//!
//! Deliberately absent: protection against someone who can write to the store *and* has no outside copy of the
//! heads against them. They can compute the whole chain anew; the heads in the journal are that outside copy.

pub(crate) mod verify;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::header::BlobHeader;
use crate::content::TenantId;

/// SHA-256 of a blob and of all before it.
pub(crate) type Link = [u8; 32];

const DOMAIN: &[u8] = b"tenantry chain link v2\0";
const GENESIS: &[u8] = b"tenantry chain genesis v1\0";

/// The link before a tenant's first blob.
#[must_use]
pub(crate) fn genesis(tenant: TenantId) -> Link {
    let mut string = Canonical::new(GENESIS);
    string.fixed(tenant.as_bytes());
    string.link()
}

/// The link that this header must have: covers every field but `link` itself and those that only say how the store
/// laid the blob down (`blob_no`, `compressed`, `parts`).
///
/// Fixed-size fields are written as they are, numbers big-endian; a text is preceded by its length in eight bytes;
/// an optional field by one byte, 0 or 1; a list by its length. So no two headers give the same string.
#[must_use]
pub(crate) fn link(tenant: TenantId, header: &BlobHeader) -> Link {
    let mut string = Canonical::new(DOMAIN);
    string.fixed(&header.previous);
    string.fixed(tenant.as_bytes());
    string.fixed(&[header.content_type.code()]);
    string.number(header.seq);
    string.text(header.content_id.as_str());
    string.text(&header.content_uri);
    string.time(header.content_created);
    string.time(header.content_expiration);
    string.time(header.fetched.at);
    string.text(&header.fetched.from);
    string.fixed(&[header.fetched.tier as u8]);
    string.time(header.stored_at);
    string.number(header.bytes);
    string.number(header.records.into());
    string.fixed(&header.sha256);
    string.option(header.created_min, Canonical::time);
    string.option(header.created_max, Canonical::time);
    string.number(header.revision.into());
    string.number(header.duplicates.len() as u64);
    for duplicate in &header.duplicates {
        string.number(duplicate.record.into());
        string.number(duplicate.earlier.len() as u64);
        for place in &*duplicate.earlier {
            string.number(place.partition.into());
            string.fixed(&[place.content_type.code()]);
            string.number(place.seq);
        }
    }
    string.number(header.foreign.len() as u64);
    for &record in &header.foreign {
        string.number(record.into());
    }
    string.option(header.defect.as_deref(), Canonical::text);
    string.link()
}

/// One digest over the links of all tenants, in hexadecimal.
pub(crate) fn heads_digest(links: impl IntoIterator<Item = (TenantId, Link)>) -> String {
    let sorted: BTreeMap<TenantId, Link> = links.into_iter().collect();
    let mut context = digest::Context::new(&digest::SHA256);
    for (tenant, link) in &sorted {
        context.update(tenant.as_bytes());
        context.update(link);
    }
    to_hex(context.finish().as_ref())
}

/// A digest in hexadecimal.
pub(crate) fn to_hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Undoes [`to_hex`] for a link.
pub(crate) fn from_hex(text: &str) -> Option<Link> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut link = [0; 32];
    for (byte, pair) in link.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(link)
}

/// A byte string on its way into the digest.
struct Canonical(digest::Context);

impl Canonical {
    fn new(domain: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(domain);
        Self(context)
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.fixed(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.fixed(text.as_bytes());
    }

    fn time(&mut self, time: Timestamp) {
        self.fixed(&time.as_second().to_be_bytes());
        self.fixed(&time.subsec_nanosecond().to_be_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.fixed(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn link(self) -> Link {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentType;
    use crate::store::header::tests::{copy, example};

    fn tenant() -> TenantId {
        TenantId::from_bytes([7; 16])
    }

    fn half(bytes: &[u8]) -> u128 {
        u128::from_be_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn the_link_of_an_example_never_changes() {
        let mut header = BlobHeader { previous: genesis(tenant()), ..example() };
        header.link = [0; 32];
        let link = link(tenant(), &header);
        let hex = format!("{:032x}{:032x}", half(&link[..16]), half(&link[16..]));
        assert_eq!(hex, "85f3b236db345e9b2fb0792a305fc8ed769ccb193f487eee51e442c0e9c1f250");
    }

    #[test]
    fn every_field_of_evidence_is_in_the_link() {
        let mut base = BlobHeader { previous: genesis(tenant()), ..example() };
        base.link = link(tenant(), &base);
        let change = |change: &dyn Fn(&mut BlobHeader)| {
            let mut header = base.clone();
            change(&mut header);
            link(tenant(), &header)
        };
        let second = jiff::SignedDuration::from_secs(1);
        let mut links = vec![
            base.link,
            change(&|header| header.content_type = ContentType::Dlp),
            change(&|header| header.seq += 1),
            change(&|header| header.content_id = "other".into()),
            change(&|header| header.content_uri.push('x')),
            change(&|header| header.content_created += second),
            change(&|header| header.content_expiration += second),
            change(&|header| header.fetched.at += second),
            change(&|header| header.fetched.from.push('x')),
            change(&|header| header.fetched.tier = crate::content::Tier::Sweep),
            change(&|header| header.stored_at += second),
            change(&|header| header.bytes += 1),
            change(&|header| header.records += 1),
            change(&|header| header.sha256[31] ^= 1),
            change(&|header| header.created_min = None),
            change(&|header| header.created_max = None),
            change(&|header| header.previous[0] ^= 1),
            change(&|header| header.revision += 1),
            change(&|header| header.duplicates.push(copy(100, 1))),
            change(&|header| header.duplicates[0].earlier = header.duplicates[1].earlier.clone()),
            change(&|header| header.foreign.clear()),
            change(&|header| header.defect = None),
            link(TenantId::from_bytes([8; 16]), &base),
        ];
        links.sort_unstable();
        let count = links.len();
        links.dedup();
        assert_eq!(links.len(), count);
        // How the blob was laid down is not evidence: a rewritten partition keeps its chain.
        assert_eq!(change(&|header| (header.blob_no, header.parts, header.compressed) = (1, 2, 3)), base.link);
    }
}
