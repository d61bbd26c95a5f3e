//! The Office 365 Management Activity API on the wire: subscriptions, listings, notifications, blobs.
//!
//! [`ActivityClient`] makes exactly one HTTP request per call and answers with domain words or a typed
//! [`ActivityError`]; it never retries, waits or remembers. What to do next is the error's `advice()`; who waits,
//! and for how long, is decided in [`tenant`](crate::tenant).
//!
//! # The files
//!
//! - [`client`]: the requests, and what every answer has in common.
//! - `address`: which addresses may see a token; the `PublisherIdentifier` on every request.
//! - [`window`]: the service's times, written and read.
//! - [`subscriptions`], [`content`], `link`: what the answers of the lists mean, and the way through their pages.
//! - [`blob`], `body`, `gunzip`: bodies as streams, with limits on both sides of the compression.
//! - `whole`: answers that are read as a whole, and the room that they take.
//! - [`error`], [`refusal`], [`codes`], `headers`: what can go wrong, and what the service says about it.
//!
//! # Invariants
//!
//! - A bearer token goes only to the management host of the tenant's cloud, over its scheme, on a path of that
//!   tenant. A page link or content URI that says otherwise is refused before anything is sent.
//! - `PublisherIdentifier` is on every request, next pages and blobs included: without it all publishers share one
//!   quota ("API throttling", activity API reference).
//! - A body is handed on only as it was sent: a broken, truncated or unknown encoding is an error, and the end of
//!   the stream is told only after `Content-Length` or the last chunk, and gzip's checksum and length, have been
//!   verified.
//! - Nothing that the service sends makes this module allocate more than its limits or panic.
//! - The `Date` of an answer that is the service's own (what was asked for, or an error in JSON) is shown to
//!   [`ServiceTime`](crate::clock::ServiceTime); that of a page of something on the way is not.

mod address;
pub mod blob;
mod blob_address;
mod body;
pub mod client;
pub mod codes;
pub mod content;
pub mod error;
mod gunzip;
mod headers;
mod link;
pub mod refusal;
pub mod subscriptions;
mod whole;
pub mod window;
#[cfg(test)]
mod wire_tests;

pub use address::Foreign;
pub use blob::BlobBody;
pub use blob_address::{ContentAddress, NotAnAddress};
pub use client::{ActivityClient, Limits};
pub use codes::Reason;
pub use content::{DlpSensitiveType, Notification, Page, RefusedEntry};
pub use error::{ActivityError, Fault, Operation, Side};
pub use gunzip::GunzipError;
pub use link::PageLink;
pub use refusal::Refusal;
pub use subscriptions::{Subscription, Webhook, WebhookState};
pub use window::Window;
