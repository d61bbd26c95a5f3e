//! Walks a tenant's chain and says where it is broken.
//!
//! Altered, missing, replaced, out of order, taken away by the store itself: each is another finding, because each
//! calls for another answer. The walk decides from headers alone; whoever calls it has compared the bodies' digests.

use std::collections::BTreeMap;

use super::{Link, link};
use crate::content::{ContentType, TenantId};
use crate::store::header::BlobHeader;

/// A stretch of a tenant's chain that the store took away itself, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The link before the stretch.
    pub before: Link,
    /// The last link of the stretch.
    pub last: Link,
    /// The highest `seq` in the stretch, per content type.
    pub last_seq: BTreeMap<ContentType, u64>,
    /// Why it is gone.
    pub reason: AnchorReason,
}

/// Why a stretch of the chain is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnchorReason {
    /// Retention or a purge removed it, as it was told to.
    Dropped,
    /// Its partition was damaged and moved aside.
    Lost,
}

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
    /// An anchor covers a stretch before this blob. Of these only [`AnchorReason::Lost`] is a loss.
    Anchored(AnchorReason, At),
    /// The chain ends elsewhere than the head that was noted: its last blobs are gone or were replaced.
    WrongEnd,
}

/// Walks one tenant's headers in the order in which they were stored and says where the chain is broken. It holds
/// no header, so a chain of any length is verified in constant memory.
#[derive(Debug)]
pub(crate) struct ChainVerifier {
    tenant: TenantId,
    tip: Link,
    next_seq: BTreeMap<ContentType, u64>,
    anchors: BTreeMap<Link, Anchor>,
}

impl ChainVerifier {
    /// Starts behind the link `from`, which is [`genesis`](super::genesis) for a whole chain. `next_seq` are the numbers to come; of
    /// a content type that is not in it, the first number seen is taken.
    pub(crate) fn new(
        tenant: TenantId,
        from: Link,
        next_seq: BTreeMap<ContentType, u64>,
        anchors: impl IntoIterator<Item = Anchor>,
    ) -> Self {
        let anchors = anchors.into_iter().map(|anchor| (anchor.before, anchor)).collect();
        Self { tenant, tip: from, next_seq, anchors }
    }

    /// The next header; says what is wrong with it, which is nothing as a rule.
    pub(crate) fn next(&mut self, header: &BlobHeader) -> Vec<ChainBreak> {
        let mut breaks = Vec::new();
        let at = At { content_type: header.content_type, seq: header.seq };
        if header.previous != self.tip {
            self.bridge(header.previous, at, &mut breaks);
        }
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

    /// After the last header: `head` is the link that was noted elsewhere as the last one, if it was.
    pub(crate) fn finish(mut self, head: Option<Link>) -> Option<ChainBreak> {
        let head = head?;
        // What was stored last may itself have been taken away.
        while self.tip != head
            && let Some(anchor) = self.anchors.remove(&self.tip)
        {
            self.tip = anchor.last;
        }
        (self.tip != head).then_some(ChainBreak::WrongEnd)
    }

    /// Follows anchors from the tip to `previous`; leaves the tip alone if they do not lead there. An anchor is
    /// taken out as it is used, so that a ring of them ends.
    fn bridge(&mut self, previous: Link, at: At, breaks: &mut Vec<ChainBreak>) {
        let mut used = Vec::new();
        let mut tip = self.tip;
        while tip != previous {
            let Some(anchor) = self.anchors.remove(&tip) else { break };
            tip = anchor.last;
            used.push(anchor);
        }
        if tip != previous {
            self.anchors.extend(used.into_iter().map(|anchor| (anchor.before, anchor)));
            return;
        }
        self.tip = tip;
        for anchor in used {
            for (content_type, last) in anchor.last_seq {
                let next = self.next_seq.entry(content_type).or_default();
                *next = (*next).max(last.saturating_add(1));
            }
            breaks.push(ChainBreak::Anchored(anchor.reason, at));
        }
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

    fn verify(headers: &[BlobHeader], anchors: Vec<Anchor>, head: Option<Link>) -> Vec<ChainBreak> {
        let next_seq = BTreeMap::from([(ContentType::Exchange, 1), (ContentType::SharePoint, 1)]);
        let mut verifier = ChainVerifier::new(tenant(), genesis(tenant()), next_seq, anchors);
        let mut breaks: Vec<_> = headers.iter().flat_map(|header| verifier.next(header)).collect();
        breaks.extend(verifier.finish(head));
        breaks
    }

    fn at(header: &BlobHeader) -> At {
        At { content_type: header.content_type, seq: header.seq }
    }

    #[test]
    fn an_untouched_chain_has_no_break() {
        let headers = chain(9);
        assert_eq!(verify(&headers, vec![], Some(headers[8].link)), []);
    }

    #[test]
    fn an_altered_header_is_named_and_the_rest_still_verified() {
        let mut headers = chain(6);
        headers[2].duplicates.clear();
        assert_eq!(verify(&headers, vec![], Some(headers[5].link)), [ChainBreak::Altered(at(&headers[2]))]);
        let mut headers = chain(6);
        headers[2].seq = 900;
        assert_eq!(verify(&headers, vec![], None), [ChainBreak::Altered(at(&headers[2]))]);
    }

    #[test]
    fn a_replaced_blob_with_a_fitting_link_shows_at_the_next_one() {
        let mut headers = chain(6);
        headers[2].records = 1;
        headers[2].link = link(tenant(), &headers[2]);
        assert_eq!(verify(&headers, vec![], None), [ChainBreak::Gap(at(&headers[3]))]);
    }

    #[test]
    fn removed_blobs_are_named_by_their_numbers() {
        let mut headers = chain(8);
        headers.drain(2..6); // Exchange 2, 3 and SharePoint 2, 3
        let missing = |content_type| ChainBreak::Missing { content_type, first: 2, last: 3 };
        assert_eq!(verify(&headers, vec![], None), [missing(ContentType::Exchange), missing(ContentType::SharePoint)]);
        // The last one of a content type leaves no number behind, but its place in the chain.
        let mut headers = chain(3);
        headers.remove(1);
        assert_eq!(verify(&headers, vec![], None), [ChainBreak::Gap(at(&headers[1]))]);
    }

    #[test]
    fn a_missing_end_shows_against_the_noted_head() {
        let mut headers = chain(5);
        let head = headers.pop().unwrap().link;
        assert_eq!(verify(&headers, vec![], Some(head)), [ChainBreak::WrongEnd]);
        assert_eq!(verify(&headers, vec![], None), []);
    }

    #[test]
    fn a_repeated_blob_is_out_of_order() {
        let mut headers = chain(4);
        headers.insert(3, headers[0].clone());
        let breaks = verify(&headers, vec![], None);
        assert_eq!(breaks, [ChainBreak::Disordered(at(&headers[0])), ChainBreak::Gap(at(&headers[4]))]);
    }

    #[test]
    fn anchors_explain_what_the_store_took_away_itself() {
        let mut headers = chain(10);
        let head = headers[9].link;
        let anchor = |range: &[BlobHeader], reason| Anchor {
            before: range[0].previous,
            last: range[range.len() - 1].link,
            last_seq: range.iter().map(|header| (header.content_type, header.seq)).collect(),
            reason,
        };
        let anchors = vec![anchor(&headers[0..2], AnchorReason::Dropped), anchor(&headers[2..5], AnchorReason::Lost)];
        headers.drain(..5);
        assert_eq!(
            verify(&headers, anchors.clone(), Some(head)),
            [
                ChainBreak::Anchored(AnchorReason::Dropped, at(&headers[0])),
                ChainBreak::Anchored(AnchorReason::Lost, at(&headers[0])),
            ]
        );
        // An anchor does not cover more than its stretch.
        headers.remove(0);
        assert_ne!(verify(&headers, anchors, Some(head)), []);
        // Everything taken away: the anchor itself leads to the head.
        let all = chain(4);
        assert_eq!(verify(&[], vec![anchor(&all, AnchorReason::Dropped)], Some(all[3].link)), []);
    }

    #[test]
    fn a_ring_of_anchors_ends() {
        let ring = |before, last| Anchor { before, last, last_seq: BTreeMap::new(), reason: AnchorReason::Dropped };
        let start = genesis(tenant());
        let headers = chain(3);
        let anchors = vec![ring(start, [1; 32]), ring([1; 32], start)];
        assert_eq!(verify(&headers[1..], anchors, Some([9; 32])).last(), Some(&ChainBreak::WrongEnd));
    }
}
