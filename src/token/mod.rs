//! Access tokens: who we are to Entra, and how a token is kept fresh.
//!
//! One [`TokenSource`] per (cloud, tenant, app, audience) holds the one token that everything which speaks for that
//! tenant uses. It lives in memory only.
//!
//! - [`x509`]: what a certificate says to everyone.
//! - [`certificate`]: a certificate and its key, read from PEM or PKCS#12 and checked.
//! - [`credential`]: what an app proves itself with: certificates, a client secret, or tokens of somebody else.
//! - [`federated`]: those tokens; [`identity`]: the host's managed identity, which is one of their sources.
//! - [`assertion`]: the signed statement that proves possession of a certificate's key.
//! - `endpoint`, `answer`: the token endpoint on the wire, and what it answered.
//! - [`entra`]: the table of Entra's refusals: whom they concern, what happened, what to do.
//! - [`applicant`]: an app at an authority: proves itself, asks, and says what a refusal means, whatever is asked for.
//! - `request`: the question for a tenant's token.
//! - [`redeem`]: an authorization code, traded for what the authority says.
//! - `rollover`: which of several certificates signs while Entra does not know all of them.
//! - [`renewal`]: when a token is renewed. Pure.
//! - [`app`]: what is wrong with an app is wrong for all of its tenants; it is said and probed once.
//! - `claims`: what a token says of itself, for diagnosis only.
//! - `knock`: whether the authority is there.
//! - [`source`]: the token of one tenant: single flight, renewal, refusals.
//!
//! **Invariants:** at least [`FLOOR`](renewal::FLOOR) between two requests for one token, whatever happens; a token
//! that is still valid outlives a failed renewal and a change of the app's credential; no secret, key, assertion or token appears in `Debug`, an error
//! or a log line.

pub mod x509;
pub mod certificate;
pub mod credential;
pub mod federated;
pub mod identity;
pub mod assertion;
mod endpoint;
mod answer;
pub mod entra;
pub mod renewal;
mod error;
pub mod applicant;
mod request;
pub mod redeem;
mod rollover;
pub mod app;
mod claims;
mod knock;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;

pub use app::{AppAlarm, AppAlarms};
pub use applicant::Applicant;
pub use certificate::{Certificate, CertificateError};
pub use claims::Claims;
pub use credential::{Credential, Signing};
pub use error::TokenError;
pub use federated::Federated;
pub use identity::{Identity, ManagedIdentity, Service};
pub use knock::knock;
pub use redeem::{Redeemed, Redeemer, Redemption};
pub use request::TokenRequest;
pub use source::{AccessToken, TokenSource, TokenStatus};
pub use x509::PublicCertificate;
