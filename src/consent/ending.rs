//! How a way through sign-in and consent ends before its end: what the customer reads on the page, and what the operator
//! reads in the journal, of the same thing.
//!
//! The page says what happened and what to do next, for somebody who knows nothing of us. The operator's line says the
//! same in the words of the table of Entra's refusals, with Microsoft's code.

use super::callback::Refused;
use crate::cloud::Cloud;
use crate::content::TenantId;
use crate::report::Trouble;
use crate::store::StoreError;
use crate::token::entra;

/// Why it went no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// There is no such link.
    NoSuchInvite,
    /// The link is no longer good.
    Expired,
    /// The link was used.
    Used,
    /// Somebody is using it.
    InUse,
    /// This browser was not sent to Microsoft, or was too long ago, or has come back before.
    NotBegunHere,
    /// The administrator has not consented.
    Declined,
    /// Whoever signed in is no administrator.
    NotAdministrator,
    /// It was a personal account.
    Personal,
    /// It was another organisation's administrator.
    WrongTenant {
        /// Whose.
        signed_in: TenantId,
    },
    /// That organisation is collected already.
    AlreadyBound {
        /// Which.
        tenant: TenantId,
    },
    /// What Microsoft's answer says cannot be trusted.
    Untrusted {
        /// Why not.
        why: String,
    },
    /// Consent came back for another tenant than the one that was signed in for.
    OtherTenant {
        /// For whom it was.
        signed_in: TenantId,
    },
    /// Microsoft refuses.
    Refused(Box<Trouble>),
    /// Microsoft, or we, are not able to go on for the moment.
    Unavailable(Box<Trouble>),
}

/// What a page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What happened.
    pub title: &'static str,
    /// The same in a sentence or two.
    pub text: String,
    /// What to do next.
    pub next: &'static str,
}

const ASK_AGAIN: &str = "Ask whoever sent you the link for a new one.";
const OPEN_AGAIN: &str = "Open the link that you were sent once more, and start again.";

impl Ending {
    /// What Microsoft says on the way back.
    pub(super) fn of_refusal(refused: &Refused, what: &Subject<'_>) -> Self {
        let verdict = entra::judge(400, true, Some(&refused.error), &refused.codes);
        match verdict.kind {
            _ if refused.cancelled => Self::Declined,
            "consent_declined" => Self::Declined,
            "consent_needs_admin" => Self::NotAdministrator,
            _ if refused.codes.is_empty() && refused.error == "access_denied" => Self::Declined,
            _ => Self::Refused(Box::new(what.trouble(&verdict, refused.codes.first().copied()))),
        }
    }

    /// The stable label.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::NoSuchInvite => "no_such_invite",
            Self::Expired => "invite_expired",
            Self::Used => "invite_used",
            Self::InUse => "invite_in_use",
            Self::NotBegunHere => "not_begun_here",
            Self::Declined => "consent_declined",
            Self::NotAdministrator => "consent_needs_admin",
            Self::Personal => "personal_account",
            Self::WrongTenant { .. } => "wrong_tenant",
            Self::AlreadyBound { .. } => "tenant_bound",
            Self::Untrusted { .. } => "id_token_untrusted",
            Self::OtherTenant { .. } => "other_tenant",
            Self::Refused(trouble) | Self::Unavailable(trouble) => &trouble.kind,
        }
    }

    /// The status of the page.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NoSuchInvite => 404,
            Self::Expired | Self::Used => 410,
            Self::InUse | Self::AlreadyBound { .. } => 409,
            Self::Unavailable(_) => 503,
            Self::Declined | Self::NotAdministrator | Self::Personal | Self::WrongTenant { .. } => 403,
            Self::NotBegunHere | Self::Untrusted { .. } | Self::OtherTenant { .. } | Self::Refused(_) => 400,
        }
    }

    /// What the customer reads.
    #[must_use]
    pub fn words(&self) -> Words {
        let words = |title, text: &str, next| Words { title, text: text.to_owned(), next };
        match self {
            Self::NoSuchInvite => words(
                "There is no such link",
                "The address is not that of an invitation. Perhaps a part of it was lost on the way.",
                "Open the whole link from the message that you were sent.",
            ),
            Self::Expired => words("The link has expired", "Invitations are good for a limited time.", ASK_AGAIN),
            Self::Used => words(
                "The link was used",
                "The invitation has done what it was for, and cannot be used again.",
                "There is nothing left to do. If you did not expect this, tell whoever sent you the link.",
            ),
            Self::InUse => words(
                "The link is being used",
                "Consent was given with this invitation, and the access is being set up.",
                "Wait for it in the window in which consent was given, or come back in half an hour.",
            ),
            Self::NotBegunHere => words(
                "This sign-in did not begin here",
                "Nothing was changed. The sign-in took too long, was begun in another browser, was completed before, or \
                 did not come from us.",
                OPEN_AGAIN,
            ),
            Self::Declined => words(
                "You have not consented",
                "Nothing was changed, and no access was given.",
                "If you want to consent after all, open the link that you were sent once more.",
            ),
            Self::NotAdministrator => words(
                "An administrator must consent",
                "The account that you signed in with may not consent for your organisation. Nothing was changed.",
                "Forward the link to a Global Administrator of your organisation, or sign in with such an account.",
            ),
            Self::Personal => words(
                "This is a personal account",
                "Personal Microsoft accounts have no audit log. Nothing was changed.",
                "Open the link once more, and sign in with an administrator's account of your organisation.",
            ),
            Self::WrongTenant { .. } => words(
                "This is another organisation",
                "The invitation is for another organisation than the one that you signed in to. Nothing was changed.",
                "Open the link once more, and choose an administrator's account of the organisation that was invited.",
            ),
            Self::AlreadyBound { .. } => words(
                "Your organisation is connected already",
                "There is nothing to consent to: its audit log is being collected.",
                "If you did not expect this, tell whoever sent you the link.",
            ),
            Self::Untrusted { .. } | Self::OtherTenant { .. } => words(
                "The answer cannot be trusted",
                "What came back does not prove which organisation you signed in to. Nothing was set up here.",
                OPEN_AGAIN,
            ),
            Self::Refused(trouble) => Words {
                title: "Microsoft refuses",
                text: format!("{}.", capital(&trouble.cause)),
                next: "Tell whoever sent you the link what this page says.",
            },
            Self::Unavailable(_) => words(
                "This does not work at the moment",
                "Microsoft, or this service, cannot be reached. Nothing was changed.",
                "Try again in a few minutes: open the link that you were sent once more.",
            ),
        }
    }

    /// What the operator reads; `None` of what anybody can bring about who knows no link.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let told = |cause: &str, remedy: &str| Some(Trouble::for_operator(self.kind(), cause, remedy));
        match self {
            Self::NoSuchInvite | Self::NotBegunHere => None,
            Self::Expired => {
                told("the link of the invite was opened after it had expired", "send a new one if that is meant")
            }
            Self::Used | Self::InUse => told(
                "the link of the invite was opened once more",
                "if that was not the customer, ask who else has had the link; nothing was changed",
            ),
            Self::Declined => told(
                "the customer's administrator has not consented",
                "ask the customer; the link is good for another try",
            ),
            Self::NotAdministrator => told(
                "who signed in may not consent for the organisation",
                "let a Global Administrator of the customer open the link",
            ),
            Self::Personal => told(
                "who signed in did so with a personal account",
                "let an administrator of the customer sign in with an account of the organisation",
            ),
            Self::WrongTenant { signed_in } => told(
                &format!("who signed in is of the tenant {signed_in}, and the invite is for another one"),
                "let an administrator of the invited tenant sign in; or, if that one is meant, send another invite",
            ),
            Self::AlreadyBound { tenant } => told(
                &format!("the tenant {tenant} is collected already"),
                "withdraw the invite; or, if the tenant is to come by consent, remove it first (`tenantry tenant remove`)",
            ),
            Self::Untrusted { why } => told(
                &format!("the id_token of the sign-in is not believed: {why}"),
                "let the customer try again; if it stays, look for something on the way that changes answers",
            ),
            Self::OtherTenant { signed_in } => told(
                &format!("consent came back for another tenant than {signed_in}, which was signed in to"),
                "let the customer try again; nothing was set up, and such an answer may have been made up",
            ),
            Self::Refused(trouble) | Self::Unavailable(trouble) => Some(Trouble::clone(trouble)),
        }
    }
}

/// The store cannot say, or keep, what it should.
pub(super) fn unavailable(error: &StoreError) -> Ending {
    Ending::Unavailable(Box::new(error.trouble()))
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// `None` before it is known.
    pub(super) tenant: Option<TenantId>,
    pub(super) client_id: &'a str,
    pub(super) cloud: &'a Cloud,
}

impl Subject<'_> {
    fn trouble(&self, verdict: &entra::Verdict, code: Option<u32>) -> Trouble {
        let subject = entra::Subject {
            tenant: self.tenant,
            client: self.client_id,
            cloud: &self.cloud.name,
            authority: self.cloud.authority.as_str().trim_end_matches('/'),
            audience: self.cloud.audience(),
            thumbprint: "",
        };
        let fill = |sentence: &str| entra::fill(&sentence.replace("{consent}", "the link of the invite"), &subject);
        Trouble {
            code: verdict.code.or(code).map(|code| format!("AADSTS{code}")),
            ..Trouble::for_operator(verdict.kind, fill(verdict.cause), fill(verdict.remedy))
        }
    }
}

/// A sentence begins with a capital letter.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(error: &str, codes: &[u32], cancelled: bool) -> Ending {
        let cloud = Cloud::preset("worldwide").unwrap();
        let subject = Subject { tenant: None, client_id: "the-app", cloud: &cloud };
        Ending::of_refusal(&Refused { error: error.to_owned(), codes: codes.to_owned(), cancelled }, &subject)
    }

    #[test]
    fn microsofts_codes_have_pages_of_their_own() {
        for (error, codes, cancelled, kind) in [
            ("access_denied", &[65004][..], false, "consent_declined"),
            ("consent_required", &[65004], false, "consent_declined"),
            ("access_denied", &[], false, "consent_declined"),
            ("permission_denied", &[], true, "consent_declined"),
            ("access_denied", &[90094], false, "consent_needs_admin"),
            ("invalid_request", &[650_051], false, "permission_invalid"),
            ("invalid_request", &[50011], false, "redirect_uri"),
            ("unauthorized_client", &[700_016], false, "app_unknown"),
            ("server_error", &[], false, "entra_unavailable"),
            ("whatever", &[1], false, "entra_unknown"),
        ] {
            assert_eq!(refused(error, codes, cancelled).kind(), kind, "{error} {codes:?}");
        }
        let told = refused("unauthorized_client", &[700_016], false).trouble().unwrap();
        assert_eq!(told.code.as_deref(), Some("AADSTS700016"));
        assert_eq!(told.cause, "the tenant of the account that signed in does not know the app the-app");
        assert!(told.remedy.contains("the link of the invite") && !told.remedy.contains('{'), "{}", told.remedy);
    }

    #[test]
    fn every_ending_says_what_happened_and_what_to_do() {
        let tenant = TenantId::from_bytes([7; 16]);
        let trouble = Trouble::for_operator("some_kind", "the app is a single-tenant app", "mend it");
        for ending in [
            Ending::NoSuchInvite,
            Ending::Expired,
            Ending::Used,
            Ending::InUse,
            Ending::NotBegunHere,
            Ending::Declined,
            Ending::NotAdministrator,
            Ending::Personal,
            Ending::WrongTenant { signed_in: tenant },
            Ending::AlreadyBound { tenant },
            Ending::Untrusted { why: "it is forged".to_owned() },
            Ending::OtherTenant { signed_in: tenant },
            Ending::Refused(Box::new(trouble.clone())),
            Ending::Unavailable(Box::new(trouble)),
        ] {
            let Words { title, text, next } = ending.words();
            for sentence in [&text, next] {
                assert!(sentence.ends_with('.') && sentence.len() > 20, "{ending:?}: {sentence}");
            }
            assert!(!title.ends_with('.') && ending.status() >= 400, "{ending:?}");
            // A customer is told of no other tenant's id.
            assert!(!text.contains(&tenant.to_string()), "{text}");
            let anybodys = matches!(ending, Ending::NoSuchInvite | Ending::NotBegunHere);
            assert_eq!(ending.trouble().is_none(), anybodys, "{ending:?}");
            assert!(ending.trouble().is_none_or(|told| told.kind == ending.kind()), "{ending:?}");
        }
    }
}
