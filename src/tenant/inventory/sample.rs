//! A few of many, each as likely as any other, without knowing how many there are.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use crate::content::ContentBlob;

/// How many.
pub(super) const SIZE: usize = 8;

/// Those with the smallest hashes. The same blob counts once, however often it is offered.
#[derive(Debug)]
pub(super) struct Sample {
    /// Makes another choice each time.
    salt: i128,
    chosen: BTreeMap<[u8; 32], ContentBlob>,
}

impl Sample {
    /// None yet; another choice than at any other time.
    pub(super) fn new(at: Timestamp) -> Self {
        Self { salt: at.as_nanosecond(), chosen: BTreeMap::new() }
    }

    /// One of the many.
    pub(super) fn offer(&mut self, blob: ContentBlob) {
        let mut hash = [0; 32];
        let salted = [&self.salt.to_be_bytes()[..], blob.content_id.as_str().as_bytes()].concat();
        hash.copy_from_slice(digest(&SHA256, &salted).as_ref());
        self.chosen.insert(hash, blob);
        if self.chosen.len() > SIZE {
            self.chosen.pop_last();
        }
    }

    /// Those that were chosen.
    pub(super) fn blobs(self) -> impl Iterator<Item = ContentBlob> {
        self.chosen.into_values()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::content::ContentType;

    #[test]
    fn it_holds_a_few_and_others_at_other_times() {
        let chosen = |seconds| {
            let at = Timestamp::from_second(seconds).unwrap();
            let mut sample = Sample::new(at);
            for id in (0..1000).chain(0..1000) {
                sample.offer(ContentBlob {
                    content_id: format!("blob-{id}").into(),
                    content_type: ContentType::General,
                    content_uri: String::new(),
                    content_created: at,
                    content_expiration: at,
                });
            }
            sample.blobs().map(|blob| blob.content_id).collect::<HashSet<_>>()
        };
        assert_eq!((chosen(1).len(), chosen(2).len()), (SIZE, SIZE));
        assert_ne!(chosen(1), chosen(2));
    }
}
