//! Why something that a tenant's task wanted did not come about, whose trouble that is, and what follows from it.
//!
//! [`Reaction`] is the one place where an error becomes a decision: the tasks match it without a catch-all, so that what
//! is new here is thought about there.

use std::time::Duration;

use crate::activity::{ActivityError, Operation, Reason};
use crate::report::Trouble;
use crate::retry::{Advice, Stage};
use crate::store::StoreError;
use crate::token::TokenError;

/// An odd answer is asked about again so often before it pauses anything: one page of a proxy must not stop a tenant.
pub(super) const ODD_ANSWERS: u32 = 3;

/// Why a request, or what follows from its answer, failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no token.
    #[error("no token")]
    Token(#[source] TokenError),
    /// The service did not answer, or answered with an error.
    #[error("the service did not do as asked")]
    Service(#[source] Box<ActivityError>),
    /// The service refuses tokens: this one, and the one before it or after it.
    #[error("the service refuses the tenant's tokens")]
    Refused(#[source] Box<ActivityError>),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The gate has closed before the request was sent.
    #[error("the service has asked for a wait")]
    Held,
    /// The tree is being stopped: nothing more is sent.
    #[error("the tenant's collection is being stopped")]
    Stopping,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The tree ends. Nothing was sent, and nothing is wrong.
    Stop,
    /// There is no token: nothing is tried until there is one.
    AwaitToken,
    /// The store failed: again, at its pace.
    AwaitStore,
    /// The tenant's gate is closed, and says until when.
    AwaitGate,
    /// The token was refused, and there is no other yet: again with the next one, or after a growing wait.
    AwaitOtherToken,
    /// Passing trouble of this one request: again after a growing wait, and no sooner than the service asked.
    Again {
        /// What the service asked for.
        after: Option<Duration>,
    },
    /// The window or its pages are no longer good: list it anew.
    Relist,
    /// The subscription is missing or disabled, says the service.
    CheckSubscription,
    /// A person must act.
    Pause {
        /// There is no word of the service's own in the answer: it may be that of something on the way.
        odd: bool,
    },
    /// The service does not have this content.
    Gone {
        /// It says so with its own code.
        sure: bool,
    },
    /// The content is larger than is allowed here.
    TooLarge,
    /// The content's address is not this cloud's: it was listed before the configuration changed.
    Readdress,
}

impl Failure {
    /// What follows from it.
    pub(super) fn reaction(&self) -> Reaction {
        match self {
            Self::Token(_) => Reaction::AwaitToken,
            Self::Service(error) => reaction_to(error),
            Self::Refused(_) => Reaction::Pause { odd: false },
            Self::Store(_) => Reaction::AwaitStore,
            Self::Held => Reaction::AwaitGate,
            Self::Stopping => Reaction::Stop,
        }
    }

    /// What the operator reads.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Token(error) => error.trouble(),
            Self::Service(error) | Self::Refused(error) => error.trouble(),
            Self::Store(error) => error.trouble(),
            Self::Held => Trouble::passing("throttled", self.to_string()),
            Self::Stopping => Trouble::passing("stopping", self.to_string()),
        }
    }

    /// Which stage's trouble it is, when it was met at `stage`.
    pub(super) const fn stage(&self, stage: Stage) -> Stage {
        match self {
            Self::Token(_) => Stage::Token,
            Self::Service(_) | Self::Refused(_) | Self::Held | Self::Stopping => stage,
            Self::Store(_) => Stage::Store,
        }
    }
}

fn reaction_to(error: &ActivityError) -> Reaction {
    match error {
        ActivityError::TooLarge { operation: Operation::FetchBlob, .. } => return Reaction::TooLarge,
        ActivityError::ForeignUri { operation: Operation::FetchBlob, .. } => return Reaction::Readdress,
        _ => {}
    }
    match error.advice() {
        Advice::Retry { after } => Reaction::Again { after },
        Advice::Throttled { .. } => Reaction::AwaitGate,
        Advice::RenewToken => Reaction::AwaitOtherToken,
        Advice::RelistWindow => Reaction::Relist,
        Advice::CheckSubscription => Reaction::CheckSubscription,
        Advice::PauseTenant | Advice::PauseApp => Reaction::Pause { odd: is_odd(error) },
        Advice::GiveUp => Reaction::Gone { sure: is_sure(error) },
    }
}

/// Whether an answer that would pause a tenant says nothing that only the service could say.
fn is_odd(error: &ActivityError) -> bool {
    error.refusal().is_some_and(|refusal| {
        refusal.code.is_none() && matches!(refusal.reason, Reason::Forbidden | Reason::NotFound | Reason::Unknown)
    })
}

/// Whether it is the service's code that says so, and not a bare status.
fn is_sure(error: &ActivityError) -> bool {
    error.refusal().is_some_and(|refusal| {
        refusal.code.as_deref().and_then(Reason::of_code).is_some_and(|reason| reason == refusal.reason)
    })
}
