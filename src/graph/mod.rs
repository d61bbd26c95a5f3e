//! Service communications of Microsoft Graph on the wire: the state of services, their issues, the Message Center.
//!
//! [`GraphClient`] makes exactly one HTTP request per call and answers with domain words or a typed [`GraphError`]; it
//! never retries, waits or remembers. What to do next is the error's `advice()`; who waits, and for how long, is decided
//! in [`tenant`](crate::tenant). Sources: "Working with service communications API in Microsoft Graph" and its pages for
//! `healthOverviews`, `issues` and `messages`, "serviceHealthIssue: incidentReport", "List attachments"; "Microsoft Graph service-specific throttling limits".
//!
//! # The files
//!
//! - [`list`]: the three lists, and the role that each needs.
//! - [`client`]: the requests, and what every answer has in common.
//! - [`page`]: what an answer holds: items, as they were sent, and the way to the next page.
//! - [`file`](mod@file): what is fetched on request: post-incident reviews and attachments.
//! - `address`: which addresses may see a token.
//! - [`error`], [`refusal`]: what can go wrong, and what Graph says about it.
//! - [`quota`]: how many requests Graph grants, counted before they are sent.
//!
//! # Invariants
//!
//! - A bearer token goes only to the Graph host of the tenant's cloud, over its scheme, and to no other part of it than
//!   service communications. An `@odata.nextLink` that says otherwise is refused before anything is sent.
//! - An item is handed on as the bytes that were sent.
//! - Nothing that Graph sends makes this module allocate more than its limits or panic.
//! - The `Date` of an answer is not shown to [`ServiceTime`](crate::clock::ServiceTime): the time by which audit content
//!   is collected is that of its own service.

mod address;
pub mod client;
pub mod error;
pub mod file;
pub mod list;
pub mod page;
pub mod quota;
pub mod refusal;

pub use address::Foreign;
pub use client::GraphClient;
pub use error::{GraphError, Operation};
pub use file::{Attachment, File};
pub use list::List;
pub use page::{Item, Page, PageLink};
pub use quota::Quota;
pub use refusal::{Reason, Refusal};
