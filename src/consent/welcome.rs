//! What a customer is told before signing in: who asks, for what, and why.

use crate::content::ContentType;
use crate::store::Invite;

/// What the page before the sign-in says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The operator's name for the customer.
    pub customer: String,
    /// Who asks.
    pub organisation: Option<String>,
    /// Whom to ask.
    pub contact: Option<String>,
    /// What is asked for.
    pub permissions: Vec<Permission>,
    /// The host at which the customer will sign in.
    pub sign_in_at: String,
    /// Until when the link is good.
    pub expires: jiff::Timestamp,
}

/// A permission, as Microsoft names it on the page of consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// Its name.
    pub name: &'static str,
    /// Whose.
    pub api: &'static str,
    /// What it is needed for.
    pub why: &'static str,
}

const ACTIVITY: Permission = Permission {
    name: "ActivityFeed.Read",
    api: "Office 365 Management APIs",
    why: "to read the audit log of your organisation: who did what, when, in Exchange, SharePoint, Entra ID and the others",
};

const DLP: Permission = Permission {
    name: "ActivityFeed.ReadDlp",
    api: "Office 365 Management APIs",
    why: "to read data loss prevention events, which can contain the sensitive text that was found",
};

/// What collecting these needs. What the app registration asks for beyond it, Microsoft's page shows.
pub(super) fn permissions(invite: &Invite) -> Vec<Permission> {
    let dlp = invite.content_types.contains(&ContentType::Dlp).then_some(DLP);
    std::iter::once(ACTIVITY).chain(dlp).collect()
}
