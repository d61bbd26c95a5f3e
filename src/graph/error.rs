//! What can go wrong between a request to Graph and the last byte of its answer.

use std::fmt;
use std::time::Duration;

use super::address::Foreign;
use super::list::List;
use super::refusal::{Reason, Refusal};
use crate::http::fault::{Fault, root_cause};
use crate::http::host_of;
use crate::report::Trouble;
use crate::retry::Advice;

/// How much is told of what a parser says.
const MALFORMED: usize = 200;

/// What was asked of Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A list, the first page or a further one.
    List(List),
    /// The post-incident review of an issue.
    Report,
    /// The list of a post's attachments.
    Attachments,
    /// One of them.
    Attachment,
    /// All of them in one file.
    Archive,
}

impl Operation {
    /// What to do where there is no such thing.
    const fn missing(self) -> &'static str {
        match self {
            Self::List(_) => "open a support request with Microsoft if this repeats",
            Self::Report => {
                "check the id; Microsoft has a review only of an issue whose status is `postIncidentReviewPublished` \
                 (`tenantry health --history`)"
            }
            Self::Attachments | Self::Attachment | Self::Archive => {
                "check the id; a post has attachments only if it says so (`hasAttachments`)"
            }
        }
    }

    /// The application permission that it needs.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::List(list) => list.role(),
            Self::Report => List::Issues.role(),
            Self::Attachments | Self::Attachment | Self::Archive => List::Messages.role(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(list) => write!(f, "listing {list}"),
            Self::Report => f.write_str("fetching a post-incident review"),
            Self::Attachments => f.write_str("listing the attachments of a post"),
            Self::Attachment => f.write_str("fetching an attachment"),
            Self::Archive => f.write_str("fetching the attachments of a post"),
        }
    }
}

/// A request that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The way to Graph failed, or broke off.
    #[error("{operation}: {}", fault.told("the Graph host"))]
    Transport {
        /// What was asked.
        operation: Operation,
        /// How it failed.
        fault: Fault,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// Graph answered with an error.
    #[error("{}: {}", .0.operation, .0)]
    Refused(Box<Refusal>),
    /// The answer points elsewhere. Redirects are not followed: the token stays here.
    #[error("{operation}: the answer is a redirect to `{to}` (status {status}), which is not followed")]
    Redirected {
        /// What was asked.
        operation: Operation,
        /// The status of the answer.
        status: u16,
        /// The host that it points to.
        to: String,
    },
    /// Graph gave an address that may not see the token: nothing was sent there.
    #[error("{operation}: `{host}` is not asked, because {why}")]
    ForeignLink {
        /// What would have been asked.
        operation: Operation,
        /// The host of the address, or its beginning if it has none.
        host: String,
        /// What is wrong with it.
        why: Foreign,
    },
    /// The pages of a listing lead in a circle, or do not end.
    #[error("{operation}: page {page} of the listing leads back to an earlier one, or the listing does not end")]
    PageLoop {
        /// What was asked.
        operation: Operation,
        /// The number of the page, the first being 1.
        page: usize,
    },
    /// The answer is larger than allowed.
    #[error("{operation}: the answer has more than {limit} bytes")]
    TooLarge {
        /// What was asked.
        operation: Operation,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The answer comes, but so slowly that it would hold its place for ever.
    #[error("{operation}: the answer did not come within {} seconds", within.as_secs())]
    TooSlow {
        /// What was asked.
        operation: Operation,
        /// The time spent waiting for it.
        within: Duration,
    },
    /// A successful answer does not hold what it should.
    #[error("{operation}: the answer is not one of Microsoft Graph")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

impl GraphError {
    /// A failure to send the request, or to receive the answer's body if that had `begun`.
    pub(super) fn transport(operation: Operation, error: reqwest::Error, begun: bool) -> Self {
        Self::Transport { operation, fault: Fault::of(&error, begun), source: error.without_url() }
    }

    /// An address that is not used.
    pub(super) fn foreign(operation: Operation, address: &str, why: Foreign) -> Self {
        Self::ForeignLink { operation, host: host_of(address), why }
    }

    /// Graph's refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The stable label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Transport { fault, .. } => fault.kind(),
            Self::Refused(refusal) => refusal.reason.kind(),
            Self::Redirected { .. } => "graph_redirected",
            Self::ForeignLink { .. } => "graph_foreign_link",
            Self::PageLoop { .. } => "graph_page_loop",
            Self::TooLarge { .. } => "graph_too_large",
            Self::TooSlow { .. } => "graph_too_slow",
            Self::Malformed { .. } => "graph_malformed_answer",
        }
    }

    /// What the caller does next. [`Advice::RenewToken`] is good once: if the new token is refused too, a person must act.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let Self::Refused(refusal) = self else { return Advice::Retry { after: None } };
        match refusal.reason {
            Reason::TokenRefused => Advice::RenewToken,
            Reason::Throttled => Advice::Throttled { after: refusal.wait },
            Reason::RoleMissing | Reason::Forbidden => Advice::PauseTenant,
            Reason::NotFound | Reason::Unavailable | Reason::Unknown => Advice::Retry { after: refusal.wait },
        }
    }

    /// What the operator is told.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let support = "open a support request with Microsoft if this repeats";
        let (remedy, needs_operator) = match self {
            Self::Transport { fault, .. } => (fault.remedy(), false),
            Self::Refused(refusal) => match refusal.reason {
                Reason::RoleMissing => (
                    "add the role to the app registration (`tenantry cert manifest` prints it), and let the customer's \
                     administrator consent again; or set `enabled = false` in `[health]`",
                    true,
                ),
                Reason::Forbidden => ("ask the customer's administrator what keeps the app from it", true),
                Reason::TokenRefused => {
                    ("let the customer's administrator consent to the app again; check the tenant's `cloud`", true)
                }
                Reason::Throttled | Reason::Unavailable => ("", false),
                Reason::NotFound => (refusal.operation.missing(), false),
                Reason::Unknown => (support, false),
            },
            Self::Redirected { .. } => {
                ("check whether a proxy or a sign-in page on the way answers in Graph's place", true)
            }
            Self::ForeignLink { .. } => (
                "check the tenant's `cloud`; if it is right, report this to Microsoft: Graph gave an address outside of it",
                true,
            ),
            Self::PageLoop { .. } | Self::TooLarge { .. } => (support, true),
            Self::TooSlow { .. } => ("check this host's line to Microsoft", false),
            Self::Malformed { .. } => ("if this repeats, check whether a proxy on the way changes answers", false),
        };
        let mut cause = self.to_string();
        // The operator reads one sentence: with what the libraries below know, where they know more.
        if let Self::Transport { fault: Fault::Tls | Fault::Dns | Fault::Connect | Fault::Proxy, source, .. } = self
            && let Some(root) = root_cause(source)
        {
            cause = format!("{cause} ({root})");
        }
        if let Self::Malformed { source, .. } = self {
            let told: String = source.to_string().chars().take(MALFORMED).collect();
            cause = format!("{cause} ({told})");
        }
        let refusal = self.refusal();
        Trouble {
            kind: self.kind().to_owned(),
            cause,
            remedy: remedy.to_owned(),
            code: refusal.and_then(|refusal| refusal.code.clone()),
            correlation_id: refusal.and_then(|refusal| refusal.request_id.clone()),
            needs_operator,
            shared: false,
        }
    }
}
