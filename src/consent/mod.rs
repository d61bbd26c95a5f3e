//! Consent: how a customer's tenant comes to be collected without anybody typing its id.
//!
//! An operator makes an [invite](wanted) and sends its link. The customer's administrator opens it, [reads](welcome) who
//! asks for what, signs in at Microsoft, and consents there. Then the tenant must [prove](proof) itself, and is taken in.
//! [`desk`] is where all of that comes together; the pages are in [`web`](crate::web).
//!
//! - [`address`]: where browsers are sent, and where they come back to.
//! - [`visits`]: the browsers on their way.
//! - [`callback`]: what they bring back. Believed by nobody.
//! - [`id_token`], [`keys`]: who has signed in, by what the cloud has signed. [`legacy`]: the same with the flow of 2019.
//!   [`identity`] asks for it.
//! - [`case`]: an invite, with its app and its cloud of today.
//! - [`proof`], [`proving`]: from the consent to the tenant that is collected.
//! - [`register`], [`wanted`]: invites, as operators see them.
//! - [`ending`]: how it can end before its end, for the customer and for the operator.
//! - [`journey`]: what the customer watches until the tenant is collected.
//!
//! **Invariants:** a tenant is never bound by what a browser says; a link is good once, for one tenant; a tenant is nobody
//! else's; no secret, code, verifier or token is in a log, a page or an error.

pub mod address;
mod callback;
mod case;
pub mod desk;
pub mod ending;
mod id_token;
mod identity;
pub mod journey;
mod keys;
mod legacy;
mod proof;
mod proving;
mod register;
mod visits;
pub mod wanted;
pub mod welcome;

pub use desk::{Desk, Next};
pub use ending::Ending;

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
