//! (a seam until `token` has these)

use std::sync::Arc;

use crate::secret::Secret;

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate;

/// How a client assertion is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signing {
    /// RSASSA-PSS with `x5t#S256`.
    #[default]
    Ps256,
    /// PKCS#1 v1.5 with `x5t`.
    Rs256,
}

/// How an app proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// By a certificate.
    Certificates {
        /// Newest first.
        list: Vec<Arc<Certificate>>,
        /// How.
        signing: Signing,
    },
    /// By a secret.
    Secret(Secret),
}
