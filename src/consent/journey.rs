//! What the browser that consented watches: how its tenant comes alive.

use super::ending::{Words, capital};
use super::proof::{Point, Proof};
use crate::report::{TenantState, TenantStatus, Trouble};

/// What the page of progress says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journey {
    /// The operator's name for the customer.
    pub customer: String,
    /// As whom the administrator has signed in.
    pub account: Option<String>,
    /// Who asked.
    pub organisation: Option<String>,
    /// Whom to ask.
    pub contact: Option<String>,
    /// What has been reached, in order.
    pub steps: Vec<(&'static str, Reached)>,
    /// What it means.
    pub words: Words,
    /// Whether it changes by itself.
    pub goes_on: bool,
}

/// Whether a step has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It has.
    Yes,
    /// It is being waited for.
    Soon,
    /// Not yet.
    NotYet,
    /// It failed.
    No,
}

const SIGNED_IN: &str = "You signed in";
const CONSENTED: &str = "You gave consent";
const TOKEN: &str = "Microsoft grants access";
const API: &str = "The audit log answers";
const COLLECTING: &str = "Collecting has begun";

const KEEP_OPEN: &str = "You need not do anything. This page follows by itself; you may also close it.";

/// What is seen of a proof, and of the tenant's status once it is collected.
pub(super) fn watched(proof: &Proof, status: Option<&TenantStatus>) -> (Vec<(&'static str, Reached)>, Words, bool) {
    use Reached::{No, NotYet, Soon, Yes};
    let steps = |token, api, collecting| {
        vec![(SIGNED_IN, Yes), (CONSENTED, Yes), (TOKEN, token), (API, api), (COLLECTING, collecting)]
    };
    match proof {
        Proof::Asking { point, trouble, replicating } => {
            let steps = match point {
                Point::Token => steps(Soon, NotYet, NotYet),
                Point::Api => steps(Yes, Soon, NotYet),
            };
            (steps, asking(trouble.as_ref(), *replicating), true)
        }
        Proof::Failed(trouble) => (steps(No, NotYet, NotYet), failed(trouble), false),
        Proof::Given => match status {
            Some(TenantStatus { trouble: Some(known), .. }) if known.trouble.kind == AUDIT_LOG_OFF => {
                (steps(Yes, Yes, No), audit_log_off(), true)
            }
            Some(TenantStatus { trouble: Some(known), .. }) if known.trouble.needs_operator => {
                (steps(Yes, Yes, No), troubled(&known.trouble), true)
            }
            Some(status) if status.state == TenantState::Collecting => (steps(Yes, Yes, Yes), done(), false),
            _ => (steps(Yes, Yes, Soon), asking(None, false), true),
        },
    }
}

/// The label of a trouble that the customer can mend ([`activity`](crate::activity)).
const AUDIT_LOG_OFF: &str = "audit_log_off";

fn asking(trouble: Option<&Trouble>, replicating: bool) -> Words {
    let text = match trouble {
        None => "Thank you. The access is being checked.".to_owned(),
        Some(_) if replicating => {
            "Thank you. Microsoft is passing your consent on to all of its sites, which takes some minutes, and half an \
             hour at most."
                .to_owned()
        }
        Some(trouble) => format!("The access does not work yet: {}. It is tried again.", trouble.cause),
    };
    Words { title: "Setting up the access", text, next: KEEP_OPEN }
}

fn failed(trouble: &Trouble) -> Words {
    Words {
        title: "The access does not work",
        text: format!("{}.", capital(&trouble.cause)),
        next: "Tell whoever sent you the link what this page says. The link is good for another try.",
    }
}

fn troubled(trouble: &Trouble) -> Words {
    Words {
        title: "Something is in the way",
        text: format!("The access works, and collecting does not yet: {}.", trouble.cause),
        next: "Whoever sent you the link sees the same, and what to do about it. It goes on by itself when it is mended.",
    }
}

fn audit_log_off() -> Words {
    Words {
        title: "The audit log is switched off",
        text: "The access works, but your organisation records nothing: unified audit logging is off.".to_owned(),
        next: "Turn it on in the Microsoft Purview portal (Audit, Start recording user and admin activity), or in Exchange \
               Online PowerShell with Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true. It takes up to an \
               hour; collecting then begins by itself.",
    }
}

fn done() -> Words {
    Words {
        title: "Done",
        text: "The access works, and the audit log is being collected. The first records may take up to twelve hours."
            .to_owned(),
        next: "You can close this page. The access can be withdrawn at any time in Entra, under Enterprise applications.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_is_asked_for_says_what_is_waited_for() {
        let trouble = Trouble::for_operator("some_kind", "the tenant does not know the app", "mend it");
        for (point, replicating, title, part) in [
            (Point::Token, true, "Setting up the access", "passing your consent on"),
            (Point::Token, false, "Setting up the access", "the tenant does not know the app"),
            (Point::Api, true, "Setting up the access", "passing your consent on"),
        ] {
            let proof = Proof::Asking { point, trouble: Some(trouble.clone()), replicating };
            let (steps, words, goes_on) = watched(&proof, None);
            assert!(goes_on && words.title == title && words.text.contains(part), "{words:?}");
            assert_eq!(steps.iter().filter(|(_, reached)| *reached == Reached::Soon).count(), 1);
        }
        let (steps, words, goes_on) = watched(&Proof::Failed(trouble), None);
        assert!(!goes_on && words.text == "The tenant does not know the app.", "{words:?}");
        assert_eq!(steps[2], (TOKEN, Reached::No));
        let (steps, _, goes_on) = watched(&Proof::Given, None);
        assert!(goes_on);
        assert_eq!(steps[4], (COLLECTING, Reached::Soon));
    }
}
