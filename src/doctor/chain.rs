//! The links between this host and a tenant's records, and the walk along them. Pure: whoever looks is a [`Probe`].

use serde::{Deserialize, Serialize};

use crate::report::Trouble;

/// What must hold for records to arrive, in the order in which each needs the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// This host's clock is right.
    Clock,
    /// The authority's name is resolved.
    Dns,
    /// The proxy leads there, if there is one.
    Proxy,
    /// Its certificate is one that is believed.
    Tls,
    /// It answers.
    Authority,
    /// It accepts the app and its credential.
    Credential,
    /// It grants a token for the tenant.
    Token,
    /// The Activity API answers.
    Service,
    /// The token carries the roles.
    Roles,
    /// Unified audit logging is on.
    AuditLog,
    /// Every content type that is collected has its subscription.
    Subscriptions,
    /// Content can be listed.
    Listing,
    /// A blob can be retrieved.
    Blob,
    /// What is listed is retrieved soon.
    Lag,
    /// The service does not throttle.
    Quota,
    /// The app's certificate lasts.
    Certificate,
    /// Graph answers, with the roles for service health and the Message Center.
    Health,
    /// The daemon has no trouble left with the tenant.
    Collection,
}

impl Link {
    /// All of them, in order.
    pub const ALL: [Self; 18] = [
        Self::Clock,
        Self::Dns,
        Self::Proxy,
        Self::Tls,
        Self::Authority,
        Self::Credential,
        Self::Token,
        Self::Service,
        Self::Roles,
        Self::AuditLog,
        Self::Subscriptions,
        Self::Listing,
        Self::Blob,
        Self::Lag,
        Self::Quota,
        Self::Certificate,
        Self::Health,
        Self::Collection,
    ];

    /// What people read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Dns => "DNS",
            Self::Proxy => "proxy",
            Self::Tls => "TLS",
            Self::Authority => "authority",
            Self::Credential => "credential",
            Self::Token => "token",
            Self::Service => "service",
            Self::Roles => "roles",
            Self::AuditLog => "audit log",
            Self::Subscriptions => "subscriptions",
            Self::Listing => "listing",
            Self::Blob => "a blob",
            Self::Lag => "lag",
            Self::Quota => "quota",
            Self::Certificate => "certificate",
            Self::Health => "health",
            Self::Collection => "collection",
        }
    }
}

/// What a look at a link came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds; what is worth knowing of it, or nothing.
    Sound(String),
    /// It cannot be told, for this reason; the walk goes on.
    Unknown(String),
    /// A link is broken: this one, one before it that nobody could look at for itself, or one behind it that the same
    /// answer tells of.
    Broken(Link, Trouble),
}

impl Verdict {
    pub(super) fn sound(fact: impl Into<String>) -> Self {
        Self::Sound(fact.into())
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }
}

/// Whoever looks at the links of one tenant, in their order.
pub(super) trait Probe {
    fn look(&mut self, link: Link) -> impl Future<Output = Verdict> + Send;
}

/// How a link was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds.
    Sound,
    /// It cannot be told.
    Unknown,
    /// It does not hold.
    Broken,
    /// A link before it is broken: nobody looked.
    NotReached,
}

/// A link and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub link: Link,
    /// How.
    pub state: State,
    /// What is worth knowing of it; of a broken one, the cause.
    pub fact: String,
}

/// A chain that was walked along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// Every link, in order.
    pub(super) links: Vec<Seen>,
    /// The first that is broken, and why.
    pub(super) broken: Option<(Link, Trouble)>,
}

/// Looks at link after link until one is broken.
pub(super) async fn walk(probe: &mut (impl Probe + Send)) -> Chain {
    let mut links = Vec::with_capacity(Link::ALL.len());
    let mut broken = None;
    for link in Link::ALL {
        let (state, fact) = match probe.look(link).await {
            Verdict::Sound(fact) => (State::Sound, fact),
            Verdict::Unknown(why) => (State::Unknown, why),
            Verdict::Broken(at, trouble) => {
                broken = Some((at, trouble));
                break;
            }
        };
        links.push(Seen { link, state, fact });
    }
    if let Some((at, trouble)) = &broken {
        // What a later look found out of an earlier link counts.
        links.retain(|seen| seen.link < *at);
        for link in &Link::ALL[links.len()..] {
            let (state, fact) = match link.cmp(at) {
                std::cmp::Ordering::Less => (State::Unknown, String::new()),
                std::cmp::Ordering::Equal => (State::Broken, trouble.cause.clone()),
                std::cmp::Ordering::Greater => (State::NotReached, String::new()),
            };
            links.push(Seen { link: *link, state, fact });
        }
    }
    Chain { links, broken }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds `broken` when it looks at a link, and cannot tell of `unknown`.
    struct Told {
        looked: Vec<Link>,
        unknown: Link,
        when: Option<Link>,
        broken: Link,
    }

    impl Probe for Told {
        async fn look(&mut self, link: Link) -> Verdict {
            self.looked.push(link);
            if self.when == Some(link) {
                return Verdict::Broken(self.broken, Trouble::passing("kind", "cause"));
            }
            if link == self.unknown { Verdict::unknown("why") } else { Verdict::sound("fact") }
        }
    }

    #[tokio::test]
    async fn the_walk_ends_at_the_first_broken_link_wherever_it_was_found_out() {
        for (when, broken) in [
            (Link::Token, Link::Token),
            // Asking for a token tells that the clock is wrong, or that the service refuses the role.
            (Link::Credential, Link::Clock),
            (Link::Service, Link::AuditLog),
            (Link::Collection, Link::Collection),
            (Link::Clock, Link::Clock),
        ] {
            let mut probe = Told { looked: Vec::new(), unknown: Link::Dns, when: Some(when), broken };
            let chain = walk(&mut probe).await;
            assert_eq!(probe.looked.last(), Some(&when), "nothing is looked at behind what is broken");
            assert_eq!(chain.broken, Some((broken, Trouble::passing("kind", "cause"))));
            let order: Vec<_> = chain.links.iter().map(|seen| seen.link).collect();
            assert_eq!(order, Link::ALL, "each link once, in order");
            for seen in &chain.links {
                let expected = match seen.link.cmp(&broken) {
                    std::cmp::Ordering::Less if seen.link == Link::Dns || seen.link >= when => (State::Unknown, ""),
                    std::cmp::Ordering::Less => (State::Sound, "fact"),
                    std::cmp::Ordering::Equal => (State::Broken, "cause"),
                    std::cmp::Ordering::Greater => (State::NotReached, ""),
                };
                let fact = if seen.fact == "why" { "" } else { &seen.fact };
                assert_eq!((seen.state, fact), expected, "{when:?} {broken:?} {:?}", seen.link);
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_told_ends_nothing() {
        let mut probe = Told { looked: Vec::new(), unknown: Link::Blob, when: None, broken: Link::Clock };
        let chain = walk(&mut probe).await;
        assert_eq!((probe.looked, chain.broken), (Link::ALL.to_vec(), None));
        assert_eq!(chain.links.iter().filter(|seen| seen.state == State::Unknown).count(), 1);
    }

    #[test]
    fn the_order_of_the_links_is_that_of_their_list() {
        assert!(Link::ALL.is_sorted());
    }
}
