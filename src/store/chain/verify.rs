//! Walks a tenant's chain and says where it is broken.
//!
//! Altered, missing, replaced, out of order: each is another finding, because each calls for another answer. What the
//! store took away itself is whole partitions, and so the business of whoever walks those. The walk decides from headers alone; whoever calls it has compared the bodies' digests.

use std::collections::BTreeMap;

use super::{Link, link};
use crate::content::{ContentType, TenantId};
use crate::store::header::BlobHeader;

/// Names a blob in a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// Its content type.
    pub content_type: ContentType,
    /// Its number in the content type.
    pub seq: u64,
}

/// What is wrong with a chain, or notable about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainBreak {
    /// The header does not give the link that it carries: a field was changed after it was stored.
    Altered(At),
    /// Blobs with these numbers (inclusive) stood here and are gone, and no anchor says why.
    Missing {
        /// Their content type.
        content_type: ContentType,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
    },
    /// The blob continues another chain than the one before it, although no number is missing: it or what stood
    /// before it was replaced, or blobs of another content type are gone.
    Gap(At),
    /// The number was there before: the blob was put in or moved.
    Disordered(At),
}

/// Walks one tenant's headers in the order in which they were stored and says where the chain is broken. It holds
/// no header, so a chain of any length is verified in constant memory.
#[derive(Debug)]
pub(crate) struct ChainVerifier {
    tenant: TenantId,
    tip: Link,
    next_seq: BTreeMap<ContentType, u64>,
}

impl ChainVerifier {
    /// Starts behind the link `from`, which is [`genesis`](super::genesis) for a whole chain. `next_seq` are the numbers to come; of
    /// a content type that is not in it, the first number seen is taken.
    pub(crate) fn new(tenant: TenantId, from: Link, next_seq: BTreeMap<ContentType, u64>) -> Self {
        Self { tenant, tip: from, next_seq }
    }

    /// The next header; says what is wrong with it, which is nothing as a rule.
    pub(crate) fn next(&mut self, header: &BlobHeader) -> Vec<ChainBreak> {
        let mut breaks = Vec::new();
        let at = At { content_type: header.content_type, seq: header.seq };
        let connected = header.previous == self.tip;
        let altered = link(self.tenant, header) != header.link;
        if altered {
            breaks.push(ChainBreak::Altered(at));
        }

        let expected = self.next_seq.get(&at.content_type).copied().unwrap_or(at.seq);
        if at.seq > expected && !altered {
            breaks.push(ChainBreak::Missing { content_type: at.content_type, first: expected, last: at.seq - 1 });
        } else if at.seq < expected && !altered {
            breaks.push(ChainBreak::Disordered(at));
        } else if !connected && !altered {
            breaks.push(ChainBreak::Gap(at));
        }

        // An altered header's number proves nothing: the count goes on as if it were the one that was due.
        let next = if altered { expected.saturating_add(1) } else { expected.max(at.seq.saturating_add(1)) };
        self.next_seq.insert(at.content_type, next);
        self.tip = header.link;
        breaks
    }

    /// After the last header: whether the chain ends at `head`, the link that was noted elsewhere as the last one. If
    /// not, its last blobs are gone or were replaced.
    pub(crate) fn ends_at(&self, head: Link) -> bool {
        self.tip == head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::chain::genesis;
    use crate::store::header::tests::example;

    fn tenant() -> TenantId {
        TenantId::from_bytes([7; 16])
    }

    /// A chain over two content types: seq 1, 2, 3… of each in turn.
    fn chain(length: u64) -> Vec<BlobHeader> {
        let mut previous = genesis(tenant());
        (0..length)
            .map(|n| {
                let content_type = if n % 2 == 0 { ContentType::Exchange } else { ContentType::SharePoint };
                let mut header = BlobHeader { content_type, seq: n / 2 + 1, previous, ..example() };
                header.link = link(tenant(), &header);
                previous = header.link;
                header
            })
            .collect()
    }

    fn verify(headers: &[BlobHeader]) -> (Vec<ChainBreak>, ChainVerifier) {
        let next_seq = BTreeMap::from([(ContentType::Exchange, 1), (ContentType::SharePoint, 1)]);
        let mut verifier = ChainVerifier::new(tenant(), genesis(tenant()), next_seq);
        (headers.iter().flat_map(|header| verifier.next(header)).collect(), verifier)
    }

    fn breaks(headers: &[BlobHeader]) -> Vec<ChainBreak> {
        verify(headers).0
    }

    fn at(header: &BlobHeader) -> At {
        At { content_type: header.content_type, seq: header.seq }
    }

    #[test]
    fn an_untouched_chain_has_no_break() {
        let headers = chain(9);
        let (breaks, verifier) = verify(&headers);
        assert_eq!(breaks, []);
        assert!(verifier.ends_at(headers[8].link));
    }

    #[test]
    fn an_altered_header_is_named_and_the_rest_still_verified() {
        let mut headers = chain(6);
        headers[2].duplicates.clear();
        assert_eq!(breaks(&headers), [ChainBreak::Altered(at(&headers[2]))]);
        let mut headers = chain(6);
        headers[2].seq = 900;
        assert_eq!(breaks(&headers), [ChainBreak::Altered(at(&headers[2]))]);
    }

    #[test]
    fn a_replaced_blob_with_a_fitting_link_shows_at_the_next_one() {
        let mut headers = chain(6);
        headers[2].records = 1;
        headers[2].link = link(tenant(), &headers[2]);
        assert_eq!(breaks(&headers), [ChainBreak::Gap(at(&headers[3]))]);
    }

    #[test]
    fn removed_blobs_are_named_by_their_numbers() {
        let mut headers = chain(8);
        headers.drain(2..6); // Exchange 2, 3 and SharePoint 2, 3
        let missing = |content_type| ChainBreak::Missing { content_type, first: 2, last: 3 };
        assert_eq!(breaks(&headers), [missing(ContentType::Exchange), missing(ContentType::SharePoint)]);
        // The last one of a content type leaves no number behind, but its place in the chain.
        let mut headers = chain(3);
        headers.remove(1);
        assert_eq!(breaks(&headers), [ChainBreak::Gap(at(&headers[1]))]);
    }

    #[test]
    fn a_missing_end_shows_against_the_noted_head() {
        let mut headers = chain(5);
        let head = headers.pop().unwrap().link;
        let (breaks, verifier) = verify(&headers);
        assert_eq!(breaks, []);
        assert!(!verifier.ends_at(head));
    }

    #[test]
    fn a_repeated_blob_is_out_of_order() {
        let mut headers = chain(4);
        headers.insert(3, headers[0].clone());
        assert_eq!(breaks(&headers), [ChainBreak::Disordered(at(&headers[0])), ChainBreak::Gap(at(&headers[4]))]);
    }
}
