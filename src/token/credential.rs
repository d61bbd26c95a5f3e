//! What an app proves itself with.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Certificate, Federated};
use crate::secret::Secret;

/// How a client assertion is signed ("Microsoft identity platform application authentication certificate
/// credentials").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Signing {
    /// RSASSA-PSS with SHA-256; the certificate is named by `x5t#S256`.
    #[default]
    #[serde(rename = "PS256")]
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; the certificate is named by `x5t`: the form of Microsoft's 2019 page.
    #[serde(rename = "RS256")]
    Rs256,
}

/// What an app proves itself with. Two are equal if Entra could not tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Certificates, one of which signs; several while one replaces another.
    Certificates {
        /// Never empty; the newest first.
        list: Vec<Arc<Certificate>>,
        /// How assertions are signed.
        signing: Signing,
    },
    /// A client secret: the value, not its id.
    Secret(Secret),
    /// Tokens of somebody else whom the app registration trusts.
    Federated(Federated),
}

impl Credential {
    /// Certificates in any order; `None` if there are none.
    #[must_use]
    pub fn certificates(mut list: Vec<Arc<Certificate>>, signing: Signing) -> Option<Self> {
        // By the end of validity where the beginning is the same: a renewed certificate is the one that lasts.
        list.sort_by_key(|certificate| std::cmp::Reverse((certificate.not_before(), certificate.not_after())));
        (!list.is_empty()).then_some(Self::Certificates { list, signing })
    }

    /// The certificate that signs first at `now`: the newest that is valid, else the newest, so that Entra's refusal
    /// says what is wrong with it; `None` for what is no certificate.
    #[must_use]
    pub fn certificate(&self, now: Timestamp) -> Option<&Arc<Certificate>> {
        self.candidates(now).into_iter().next()
    }

    /// Those that may sign at `now`, in the order in which they are tried: the valid ones, the newest first; if there is
    /// none, the newest of all.
    #[must_use]
    pub fn candidates(&self, now: Timestamp) -> Vec<&Arc<Certificate>> {
        let Self::Certificates { list, .. } = self else { return Vec::new() };
        let valid: Vec<_> = list.iter().filter(|certificate| certificate.is_valid(now)).collect();
        if valid.is_empty() { list.first().into_iter().collect() } else { valid }
    }
}
