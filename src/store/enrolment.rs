//! Tenants that came by consent or by command, and the invites that lead there, as the store keeps them.
//!
//! They are what an operator and a customer have agreed on, so that nobody can give them back: they are durable when
//! acknowledged, and go into the state's snapshot at once. Of an invite's link the store has the hash of its secret only:
//! whoever reads the store can not open it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content::{ContentType, TenantId};

/// A tenant that came by consent or by command, and not from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its directory id.
    pub tenant: TenantId,
    /// What logs and tables call it.
    pub name: String,
    /// The name of the cloud it lives in. The configuration may have it no longer.
    pub cloud: String,
    /// The name of its app; `""` is `[app]`. The configuration may have it no longer.
    pub app: String,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// How it came.
    pub how: Enrolled,
    /// When, in the service's time.
    pub at: Timestamp,
}

/// How a tenant came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Enrolled {
    /// Its administrator followed an invite and consented.
    Consent = 1,
    /// An operator added it.
    Command = 2,
}

impl Enrolled {
    /// The word for tables and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Command => "command",
        }
    }

    /// The number that the store's values hold; it never changes its meaning.
    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Consent, Self::Command].into_iter().find(|how| how.code() == code)
    }
}

/// The SHA-256 of the secret in an invite's link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InviteId([u8; 32]);

impl InviteId {
    /// The id of the invite whose link carries this secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(id)
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first twelve hexadecimal digits: nobody has so many invites that two of them begin alike.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InviteId {
    type Err = NotAnInviteId;

    fn from_str(text: &str) -> Result<Self, NotAnInviteId> {
        let mut id = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAnInviteId);
        }
        for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NotAnInviteId)?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for InviteId {
    type Error = NotAnInviteId;

    fn try_from(text: String) -> Result<Self, NotAnInviteId> {
        text.parse()
    }
}

impl From<InviteId> for String {
    fn from(id: InviteId) -> Self {
        id.to_string()
    }
}

/// A text that is no invite's id. It is not shown: it may be the secret of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invite's id has 64 hexadecimal digits")]
pub struct NotAnInviteId;

/// An invite that an operator has made for a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The hash of its secret.
    pub id: InviteId,
    /// What the tenant will be called.
    pub name: String,
    /// The only tenant that may follow it, if it is pinned to one.
    pub tenant: Option<TenantId>,
    /// The name of the cloud in which the customer signs in.
    pub cloud: String,
    /// The name of the app that is consented to; `""` is `[app]`.
    pub app: String,
    /// What will be collected.
    pub content_types: BTreeSet<ContentType>,
    /// When it was made.
    pub made: Timestamp,
    /// When it ceases to be followed.
    pub expires: Timestamp,
    /// How far it has come.
    pub stage: InviteStage,
}

/// How far an invite has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InviteStage {
    /// Nobody has followed it to the end.
    Open,
    /// This tenant's administrator has consented, and it is being proven that its records can be collected.
    Proving {
        /// Whose.
        tenant: TenantId,
        /// Since when.
        since: Timestamp,
    },
    /// This tenant was enrolled by it, and nobody else will be.
    Done {
        /// Which.
        tenant: TenantId,
        /// When.
        at: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invites_id_is_the_hash_of_its_secret_in_hexadecimal() {
        let id = InviteId::of(b"abc");
        // FIPS 180-2, appendix B.1.
        assert_eq!(id.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(id.short(), "ba7816bf8f01");
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(serde_json::from_value::<InviteId>(serde_json::to_value(id).unwrap()).unwrap(), id);
        for bad in ["", "ba7816bf8f01", &format!("{id}0"), &id.to_string().replace('b', "+"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<InviteId>(), Err(NotAnInviteId), "{bad}");
        }
    }
}
