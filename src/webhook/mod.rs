//! Notifications of new content, as Microsoft posts them ("Receive notifications", activity API reference): one address
//! for all tenants.
//!
//! A notification makes content come earlier, and nothing else: polling lists all of it, so that one that is lost, late,
//! refused or forged costs no record. What is asked of one, in this order:
//!
//! 1. that its header `Webhook-AuthID` was signed here for a tenant that is collected ([`Hooks`](crate::tenant::Hooks)),
//!    before a byte of its body is read;
//! 2. that the tenant is not notified too often ([`pace`]), that there is room for a body, and that the tenant has less than
//!    [`MOST_WAITING`] blobs to retrieve;
//! 3. that its body is an array of limited length, all of it of this tenant and the app that it is collected as;
//! 4. that each blob's address may see the tenant's token, and is that of the content that it names.
//!
//! What fails the second point is answered with 503, so that it is sent again later; what fails another is answered as an
//! address that does not exist. One entry that is wrong spoils the whole: whoever sends it is not Microsoft. Content of a
//! type that is not collected is passed over.
//!
//! What is good is in the queue, durably, before the answer is 200. The queue knows that only a notification has named it:
//! unless a listing does too, what cannot be retrieved is dropped and counted.
//!
//! **Invariants:** nothing here sends anything; memory is bounded, whoever calls; no answer tells a caller without proof
//! that there is anything at this address.

mod body;
pub mod pace;
mod receiver;

pub use self::receiver::{Answer, Caller, LARGEST, MOST_WAITING, Receiver};
