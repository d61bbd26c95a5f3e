//! What can go wrong between a request and the last byte of its answer.

use std::fmt;
use std::time::Duration;

use super::address::Foreign;
use super::gunzip::GunzipError;
use super::refusal::Refusal;
pub use crate::http::fault::Fault;
use crate::http::fault::root_cause;
pub(super) use crate::http::host_of;
use crate::report::Trouble;
use crate::retry::Advice;

/// How much is told of what a parser says.
const MALFORMED: usize = 200;

/// What was asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Listing the subscriptions.
    ListSubscriptions,
    /// Starting a subscription.
    StartSubscription,
    /// Stopping a subscription.
    StopSubscription,
    /// Listing content, the first page.
    ListContent,
    /// Listing content or notifications, a further page.
    NextPage,
    /// Listing notifications, the first page.
    ListNotifications,
    /// Retrieving a content blob.
    FetchBlob,
    /// Asking for the names of DLP's sensitive types.
    DlpSensitiveTypes,
}

impl Operation {
    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListSubscriptions => "list_subscriptions",
            Self::StartSubscription => "start_subscription",
            Self::StopSubscription => "stop_subscription",
            Self::ListContent => "list_content",
            Self::NextPage => "next_page",
            Self::ListNotifications => "list_notifications",
            Self::FetchBlob => "fetch_blob",
            Self::DlpSensitiveTypes => "dlp_sensitive_types",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ListSubscriptions => "listing subscriptions",
            Self::StartSubscription => "starting a subscription",
            Self::StopSubscription => "stopping a subscription",
            Self::ListContent => "listing content",
            Self::NextPage => "listing the next page",
            Self::ListNotifications => "listing notifications",
            Self::FetchBlob => "retrieving a blob",
            Self::DlpSensitiveTypes => "reading the sensitive types",
        })
    }
}

/// On which side of the compression a limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// As it came over the wire.
    Compressed,
    /// Decoded.
    Decompressed,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compressed => "on the wire",
            Self::Decompressed => "decompressed",
        })
    }
}

/// A request that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ActivityError {
    /// The way to the service failed, or broke off.
    #[error("{operation}: {}", fault.told("the management host"))]
    Transport {
        /// What was asked.
        operation: Operation,
        /// How it failed.
        fault: Fault,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// The service answered with an error.
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
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// The service gave an address that may not see this tenant's token: nothing was sent there.
    #[error("{operation}: `{host}` is not asked, because {why}")]
    ForeignUri {
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
    /// The body is larger than allowed.
    #[error("{operation}: the answer has more than {limit} bytes {side}")]
    TooLarge {
        /// What was asked.
        operation: Operation,
        /// Where the limit was passed.
        side: Side,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The body comes, but so slowly that it would hold its place for ever.
    #[error("{operation}: only {received} bytes came within {} seconds", waited.as_secs())]
    TooSlow {
        /// What was asked.
        operation: Operation,
        /// The bytes that came.
        received: u64,
        /// The time spent waiting for them.
        waited: Duration,
    },
    /// The body is encoded in a way that was not asked for.
    #[error("{operation}: the answer has the unknown Content-Encoding `{encoding}`")]
    Encoding {
        /// What was asked.
        operation: Operation,
        /// What the header says.
        encoding: String,
    },
    /// The body says that it is gzip, and is not, or not all of it.
    #[error("{operation}: the answer cannot be decompressed")]
    Gzip {
        /// What was asked.
        operation: Operation,
        /// What is wrong with it.
        #[source]
        source: GunzipError,
    },
    /// A successful answer does not hold what it should.
    #[error("{operation}: the answer is not {expected}")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// What it should have been.
        expected: &'static str,
        /// What the parser says, if it came so far.
        #[source]
        source: Option<serde_json::Error>,
    },
}

impl ActivityError {
    /// A failure to send the request or to receive the head of its answer.
    pub(super) fn sending(operation: Operation, error: reqwest::Error) -> Self {
        Self::Transport { operation, fault: Fault::of(&error, false), source: error.without_url() }
    }

    /// A failure to receive the body.
    pub(super) fn receiving(operation: Operation, error: reqwest::Error) -> Self {
        Self::Transport { operation, fault: Fault::of(&error, true), source: error.without_url() }
    }

    /// An address that is not used.
    pub(super) fn foreign(operation: Operation, address: &str, why: Foreign) -> Self {
        Self::ForeignUri { operation, host: host_of(address), why }
    }

    /// What was asked.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Refused(refusal) => refusal.operation,
            Self::Transport { operation, .. }
            | Self::Redirected { operation, .. }
            | Self::ForeignUri { operation, .. }
            | Self::PageLoop { operation, .. }
            | Self::TooLarge { operation, .. }
            | Self::TooSlow { operation, .. }
            | Self::Encoding { operation, .. }
            | Self::Gzip { operation, .. }
            | Self::Malformed { operation, .. } => *operation,
        }
    }

    /// The service's refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// How long the answer asks to be left alone, whoever gave it.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.wait,
            Self::Redirected { wait, .. } => *wait,
            _ => None,
        }
    }

    /// The stable label, for metrics and filters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Transport { fault, .. } => fault.kind(),
            Self::Refused(refusal) => refusal.reason.kind(),
            Self::Redirected { .. } => "redirected",
            Self::ForeignUri { .. } => "foreign_uri",
            Self::PageLoop { .. } => "page_loop",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::Encoding { .. } => "unknown_encoding",
            Self::Gzip { .. } => "bad_gzip",
            Self::Malformed { .. } => "malformed_answer",
        }
    }

    /// What the caller does next.
    ///
    /// [`Advice::RenewToken`] is good once: if the new token is refused too, the tenant is paused with this error's
    /// [`trouble`](Self::trouble) (for `AF10001`, the content type: `DLP.All` needs a role of its own).
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Refused(refusal) => refusal.reason.advice(refusal.operation, refusal.wait),
            // Such a blob will not become another one.
            Self::ForeignUri { operation: Operation::FetchBlob, .. }
            | Self::TooLarge { operation: Operation::FetchBlob, .. } => Advice::GiveUp,
            Self::ForeignUri { .. } | Self::PageLoop { .. } => Advice::RelistWindow,
            Self::Redirected { wait, .. } => Advice::Retry { after: *wait },
            Self::Transport { .. }
            | Self::TooLarge { .. }
            | Self::TooSlow { .. }
            | Self::Encoding { .. }
            | Self::Gzip { .. }
            | Self::Malformed { .. } => Advice::Retry { after: None },
        }
    }

    /// What the operator is told.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let (remedy, needs_operator) = match self {
            Self::Transport { fault, .. } => (fault.remedy(), false),
            Self::Refused(refusal) => (refusal.reason.row().remedy, refusal.reason.row().needs_operator),
            Self::Redirected { .. } => {
                ("check whether a proxy or a sign-in page on the way answers in the service's place", true)
            }
            Self::ForeignUri { .. } => (
                "check the tenant's `cloud`; if it is right, report this to Microsoft: the service gave an address outside of it",
                true,
            ),
            Self::TooLarge { operation: Operation::FetchBlob, .. } => (
                "raise `max_blob_size` in `[collect]` and reload: it is collected when it is next listed, until it expires",
                true,
            ),
            Self::PageLoop { .. } | Self::TooLarge { .. } => {
                ("open a support request with Microsoft if this repeats", true)
            }
            Self::Encoding { .. } => ("check whether a proxy on the way encodes answers", true),
            Self::TooSlow { .. } => ("check this host's line to the service", false),
            Self::Gzip { .. } | Self::Malformed { .. } => {
                ("if this repeats, check whether a proxy on the way changes answers", false)
            }
        };
        let mut cause = self.to_string();
        // The operator reads one sentence: with what the libraries below know, where they know more.
        if let Self::Transport { fault: Fault::Tls | Fault::Dns | Fault::Connect | Fault::Proxy, source, .. } = self
            && let Some(root) = root_cause(source)
        {
            cause = format!("{cause} ({root})");
        }
        if let Self::Malformed { source: Some(source), .. } = self {
            // It may quote what it has read.
            let told: String = source.to_string().chars().take(MALFORMED).collect();
            cause = format!("{cause} ({told})");
        }
        let refusal = self.refusal();
        Trouble {
            kind: self.kind().to_owned(),
            cause,
            remedy: remedy.to_owned(),
            code: refusal.and_then(|refusal| refusal.code.clone()),
            correlation_id: refusal.and_then(|refusal| refusal.correlation_id.clone()),
            needs_operator,
            shared: false,
        }
    }
}
