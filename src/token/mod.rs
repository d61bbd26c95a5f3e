//! Access tokens: who we are to Entra, and how a token is kept fresh.
//!
//! One [`TokenSource`] per (cloud, tenant, app, audience) holds the one token that everything which speaks for that
//! tenant uses. It lives in memory only.
//!
//! - [`certificate`]: a certificate and its key, read from PEM or PKCS#12 and checked.
//! - [`credential`]: what an app proves itself with: certificates, or a client secret.
//! - [`source`]: the token of one tenant: single flight, renewal, refusals.
//!
//! **Invariants:** at least [`FLOOR`](renewal::FLOOR) between two requests for one token, whatever happens; a token
//! that is still valid outlives a failed renewal; no secret, key, assertion or token appears in `Debug`, an error
//! or a log line.

pub mod certificate;
pub mod credential;
pub mod source;

pub use certificate::{Certificate, CertificateError};
pub use credential::{Credential, Signing};
pub use source::{AccessToken, AppAlarms, TokenError, TokenRequest, TokenSource, TokenStatus};
