//! The keys of a partition's one tree, and the small values that no other module owns.
//!
//! One tree with a prefix byte instead of several: a batch over one tree is atomic and costs half of a transaction
//! over many. Numbers are big endian, so that the order of keys is the order of numbers and what is written next
//! to each other stands next to each other.
//!
//! | key | value |
//! |---|---|
//! | `F` tenant 16 | nothing: a snapshot that had something of the tenant was replaced here by one that has not |
//! | `G` blob u32, piece u32 | a piece of a header that is too large for one value |
//! | `H` tenant 16, content type u8, seq u64 | the blob's header, or where its pieces are |
//! | `I` blob u32, piece u32 | piece 0: whose blob it is; then, over all pieces, its packed record ids |
//! | `L` hour u32, tenant 16, content type u8 | what was stored in that hour |
//! | `M` | the partition's sums |
//! | `O` blob u32 | nothing: parts of this blob went ahead of its header |
//! | `P` blob u32, part u32 | one compressed part of a body; nothing: room for the part of a blob to come |
//! | `S` piece u32 | the state's snapshot, cut into pieces |
//! | `X` tenant 16 | the head of the tenant's chain |
//!
//! A blob's number (`blob`) counts within its partition and is given when the first part is written; it is not the
//! order in which blobs become visible, `seq` is.

use crate::content::{ContentType, TenantId};

/// The number of a blob within its partition.
pub(crate) type BlobNumber = u32;

pub(crate) const FORMER: u8 = b'F';
pub(crate) const HEADER_PIECE: u8 = b'G';
pub(crate) const HEADER: u8 = b'H';
pub(crate) const INDEX: u8 = b'I';
pub(crate) const LEDGER: u8 = b'L';
pub(crate) const SUMS: u8 = b'M';
pub(crate) const OPEN: u8 = b'O';
pub(crate) const PART: u8 = b'P';
pub(crate) const SNAPSHOT: u8 = b'S';
pub(crate) const HEAD: u8 = b'X';

/// Values larger than this are cut into pieces, far below what one entry of the database may hold.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

pub(crate) fn open(blob: BlobNumber) -> [u8; 5] {
    numbered(OPEN, blob)
}

pub(crate) fn snapshot(piece: u32) -> [u8; 5] {
    numbered(SNAPSHOT, piece)
}

pub(crate) fn part(blob: BlobNumber, part: u32) -> [u8; 9] {
    numbered_twice(PART, blob, part)
}

pub(crate) fn header_piece(blob: BlobNumber, piece: u32) -> [u8; 9] {
    numbered_twice(HEADER_PIECE, blob, piece)
}

pub(crate) fn index(blob: BlobNumber, piece: u32) -> [u8; 9] {
    numbered_twice(INDEX, blob, piece)
}

pub(crate) fn head(tenant: TenantId) -> [u8; 17] {
    of_tenant(HEAD, tenant)
}

pub(crate) fn former(tenant: TenantId) -> [u8; 17] {
    of_tenant(FORMER, tenant)
}

pub(crate) fn header(tenant: TenantId, content_type: ContentType, seq: u64) -> [u8; 26] {
    let mut key = [HEADER; 26];
    key[1..17].copy_from_slice(tenant.as_bytes());
    key[17] = content_type.code();
    key[18..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The prefix of all headers of a tenant.
pub(crate) fn header_prefix(tenant: TenantId) -> [u8; 17] {
    of_tenant(HEADER, tenant)
}

fn of_tenant(kind: u8, tenant: TenantId) -> [u8; 17] {
    let mut key = [kind; 17];
    key[1..].copy_from_slice(tenant.as_bytes());
    key
}

pub(crate) fn ledger(hour: u32, tenant: TenantId, content_type: ContentType) -> [u8; 22] {
    let mut key = [LEDGER; 22];
    key[1..5].copy_from_slice(&hour.to_be_bytes());
    key[5..21].copy_from_slice(tenant.as_bytes());
    key[21] = content_type.code();
    key
}

/// What the key of a head says.
pub(crate) fn parse_head(key: &[u8]) -> Option<TenantId> {
    let (&HEAD, tenant) = key.split_first()? else { return None };
    Some(TenantId::from_bytes(tenant.try_into().ok()?))
}

/// What the key of a header says.
pub(crate) fn parse_header(key: &[u8]) -> Option<(TenantId, ContentType, u64)> {
    let (&HEADER, rest) = key.split_first()? else { return None };
    let (tenant, rest) = rest.split_first_chunk::<16>()?;
    let (code, seq) = rest.split_first()?;
    let seq = u64::from_be_bytes(seq.try_into().ok()?);
    Some((TenantId::from_bytes(*tenant), ContentType::from_code(*code)?, seq))
}

/// What the key of an hour's ledger says.
pub(crate) fn parse_ledger(key: &[u8]) -> Option<(u32, TenantId, ContentType)> {
    let (&LEDGER, rest) = key.split_first()? else { return None };
    let (hour, rest) = rest.split_first_chunk::<4>()?;
    let (tenant, code) = rest.split_first_chunk::<16>()?;
    let [code] = *code else { return None };
    Some((u32::from_be_bytes(*hour), TenantId::from_bytes(*tenant), ContentType::from_code(code)?))
}

/// What the key of an open blob or a piece of the snapshot says.
pub(crate) fn parse_numbered(prefix: u8, key: &[u8]) -> Option<u32> {
    let (&first, number) = key.split_first()?;
    (first == prefix).then_some(u32::from_be_bytes(number.try_into().ok()?))
}

/// What the key of a part or of an index piece says.
pub(crate) fn parse_numbered_twice(prefix: u8, key: &[u8]) -> Option<(u32, u32)> {
    let (&first, rest) = key.split_first()?;
    let (outer, inner) = rest.split_first_chunk::<4>()?;
    (first == prefix).then_some((u32::from_be_bytes(*outer), u32::from_be_bytes(inner.try_into().ok()?)))
}

fn numbered(prefix: u8, number: u32) -> [u8; 5] {
    let mut key = [prefix; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn numbered_twice(prefix: u8, outer: u32, inner: u32) -> [u8; 9] {
    let mut key = [prefix; 9];
    key[1..5].copy_from_slice(&outer.to_be_bytes());
    key[5..].copy_from_slice(&inner.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_were_made_of_and_sort_by_number() {
        let tenant = TenantId::from_bytes([7; 16]);
        assert_eq!(parse_head(&head(tenant)), Some(tenant));
        let key = header(tenant, ContentType::Dlp, 1 << 40);
        assert_eq!(parse_header(&key), Some((tenant, ContentType::Dlp, 1 << 40)));
        assert!(header(tenant, ContentType::Dlp, 255) < header(tenant, ContentType::Dlp, 256));
        let key = ledger(490_000, tenant, ContentType::Exchange);
        assert_eq!(parse_ledger(&key), Some((490_000, tenant, ContentType::Exchange)));
        assert_eq!(parse_numbered(OPEN, &open(9)), Some(9));
        assert_eq!(parse_numbered(SNAPSHOT, &open(9)), None);
        assert_eq!(parse_numbered_twice(PART, &part(3, 70_000)), Some((3, 70_000)));
        assert!(part(3, 255) < part(3, 256) && part(3, u32::MAX) < part(4, 0));
        assert_eq!(parse_header(&key), None);
        assert_eq!(parse_head(&[]), None);
    }
}
