//! Why something that a tenant's task wanted did not come about, and whose trouble that is.

use crate::activity::ActivityError;
use crate::report::Trouble;
use crate::retry::{Advice, Stage};
use crate::store::StoreError;
use crate::token::TokenError;

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
    /// The tree is being stopped: nothing more is sent.
    #[error("the tenant's collection is being stopped")]
    Stopping,
}

impl Failure {
    /// What to do next.
    pub(super) fn advice(&self) -> Advice {
        match self {
            Self::Token(error) => error.advice(),
            Self::Service(error) => match error.advice() {
                // It was renewed already, or could not be yet.
                Advice::RenewToken => Advice::Retry { after: None },
                advice => advice,
            },
            Self::Refused(_) => Advice::PauseTenant,
            Self::Store(_) | Self::Stopping => Advice::Retry { after: None },
        }
    }

    /// Whether the service refused the token, and there is no other one yet.
    pub(super) fn is_refused_token(&self) -> bool {
        matches!(self, Self::Service(error) if error.advice() == Advice::RenewToken)
    }

    /// What the operator reads.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Token(error) => error.trouble(),
            Self::Service(error) | Self::Refused(error) => error.trouble(),
            Self::Store(error) => error.trouble(),
            Self::Stopping => Trouble::passing("stopping", self.to_string()),
        }
    }

    /// Which stage's trouble it is, when it was met at `stage`.
    pub(super) const fn stage(&self, stage: Stage) -> Stage {
        match self {
            Self::Token(_) => Stage::Token,
            Self::Service(_) | Self::Refused(_) | Self::Stopping => stage,
            Self::Store(_) => Stage::Store,
        }
    }
}
