//! How many blobs of one tenant are retrieved at a time: additive increase, multiplicative decrease. Pure.
//!
//! The service does not say how much it allows a tenant (2,000 requests a minute is its stated baseline, more for larger
//! plans). So a tenant starts with two retrievals at a time, gains one after each full round of successes, and halves
//! when the service throttles it.
//!
//! **Invariant:** requests that were under way when the limit was halved are answered by the same throttling; they do
//! not halve it again.

/// The limit of one tenant.
#[derive(Debug)]
pub struct Limit {
    most: usize,
    now: usize,
    /// Successes since the limit last changed.
    round: usize,
    /// Counts the halvings; a request remembers the one that it was sent after.
    epoch: u64,
}

/// What a request remembers of the limit it was sent under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent(u64);

impl Limit {
    /// Begins with two at a time, or `most` if that is less.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, now: most.min(2), round: 0, epoch: 0 }
    }

    /// How many retrievals may be under way.
    #[must_use]
    pub const fn now(&self) -> usize {
        self.now
    }

    /// Marks a request that is sent now.
    #[must_use]
    pub const fn sent(&self) -> Sent {
        Sent(self.epoch)
    }

    /// Whether the limit has not been halved since the request was sent.
    #[must_use]
    pub const fn is_current(&self, sent: Sent) -> bool {
        sent.0 == self.epoch
    }

    /// The request was answered.
    pub fn succeeded(&mut self, sent: Sent) {
        if !self.is_current(sent) {
            return;
        }
        self.round += 1;
        if self.round >= self.now && self.now < self.most {
            self.now += 1;
            self.round = 0;
        }
    }

    /// The request was throttled. True if that changed the limit.
    pub fn throttled(&mut self, sent: Sent) -> bool {
        if !self.is_current(sent) {
            return false;
        }
        self.epoch += 1;
        self.round = 0;
        let before = self.now;
        self.now = (self.now / 2).max(1);
        self.now != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(limit: &mut Limit) {
        for _ in 0..limit.now() {
            let sent = limit.sent();
            limit.succeeded(sent);
        }
    }

    #[test]
    fn it_gains_one_a_round_up_to_the_most() {
        let mut limit = Limit::new(4);
        let seen: Vec<_> = (0..5)
            .map(|_| {
                let now = limit.now();
                round(&mut limit);
                now
            })
            .collect();
        assert_eq!(seen, [2, 3, 4, 4, 4]);
        assert_eq!(Limit::new(1).now(), 1);
        assert_eq!(Limit::new(0).now(), 1);
    }

    #[test]
    fn one_throttling_halves_once_however_many_requests_it_answers() {
        let mut limit = Limit::new(8);
        (0..10).for_each(|_| round(&mut limit));
        assert_eq!(limit.now(), 8);
        let under_way: Vec<_> = (0..8).map(|_| limit.sent()).collect();
        assert!(limit.throttled(under_way[0]));
        assert!(under_way[1..].iter().all(|sent| !limit.throttled(*sent)));
        assert_eq!(limit.now(), 4);
        limit.succeeded(under_way[7]);
        for expected in [2, 1, 1] {
            let sent = limit.sent();
            limit.throttled(sent);
            assert_eq!(limit.now(), expected);
        }
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_the_most(most in 0_usize..20, events in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut limit = Limit::new(most);
            for good in events {
                let before = limit.now();
                let sent = limit.sent();
                if good {
                    limit.succeeded(sent);
                    prop_assert!(limit.now() == before || limit.now() == before + 1);
                } else {
                    limit.throttled(sent);
                    prop_assert_eq!(limit.now(), (before / 2).max(1));
                }
                prop_assert!((1..=most.max(1)).contains(&limit.now()));
            }
        }
    }
}
