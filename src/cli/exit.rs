//! How a command ends: the exit codes, and which of them an error deserves.
//!
//! The numbers above 63 are those of `sysexits.h`, so that service managers and scripts read them without a manual.
//! A unit file's `RestartPreventExitStatus=` names 64, 77 and 78: trying again does not help there.

use std::process::ExitCode;

use super::out::OutputError;
use crate::config::ConfigErrors;
use crate::store::StoreError;

/// The exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, and no other code fits.
    Failed = 1,
    /// Done, and there is something to look at.
    Findings = 2,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The daemon or a service cannot be reached (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// Trying again later may help: the store is in use, the disk is full, the network is down (`EX_TEMPFAIL`).
    TryAgain = 75,
    /// The operating system refused access (`EX_NOPERM`).
    Permission = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The code that `error` deserves: that of the first of its causes that has one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failed)
    }

    /// Whether what led to it may pass by itself.
    pub(super) const fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::TryAgain)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(ended) = cause.downcast_ref::<Ended>() {
            return Some(ended.exit);
        }
        if let Some(error) = cause.downcast_ref::<OutputError>() {
            return Some(error.exit());
        }
        if let Some(errors) = cause.downcast_ref::<ConfigErrors>() {
            return Some(if errors.only_permissions() { Self::Permission } else { Self::Config });
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            let own = [Self::Permission, Self::Config].into_iter().find(|exit| *exit as u8 == error.exit_code());
            return Some(own.unwrap_or(Self::TryAgain));
        }
        None
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code: for a command that can say more than "failed".
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    /// The code.
    pub exit: Exit,
    /// What happened and what to do, in one sentence without a full stop.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::config::{Place, Problem};

    #[test]
    fn an_error_leads_to_its_exit_code_through_its_context() {
        let problem = |permission| Problem { permission, ..Problem::new(Place::file("a".as_ref(), None), "k", "m") };
        let of = |problems| Exit::of(&anyhow::Error::new(ConfigErrors::new(problems)).context("while starting"));
        assert_eq!(of(vec![problem(false)]), Exit::Config);
        assert_eq!(of(vec![problem(true), problem(true)]), Exit::Permission);
        assert_eq!(of(vec![problem(true), problem(false)]), Exit::Config);

        let ended = Err::<(), _>(Ended { exit: Exit::TryAgain, message: "the store is in use".to_owned() });
        assert_eq!(Exit::of(&ended.context("opening").unwrap_err()), Exit::TryAgain);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything else")), Exit::Failed);
    }
}
