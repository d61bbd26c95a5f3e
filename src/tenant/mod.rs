//! One supervised task tree per tenant: what to list and when, what to retrieve, and what to do when it fails.
//!
//! ```text
//! registry ─► supervisor ─► driver ─┬─► subscription   list first, start only what is missing
//!  (config)    (panics)    (due?)   ├─► poll           list windows, queue what is new, move the watermark
//!                                   ├─► retrieve       fetch a blob, hand it to the store, complete its entry,
//!                                   │                  or look again when it is whole
//!                                   └─► token renewal
//! ```
//!
//! Deciding is apart from doing. Pure, with tables and properties beside them:
//!
//! - [`plan`]: which windows to list; how far an answer moves the watermark.
//! - [`schedule`]: when which tier of which content type is due.
//! - [`limit`]: how many blobs at a time; additive increase, multiplicative decrease.
//! - `life`: for how long a blob is worth trying.
//! - [`course`]: whether a run that ends by itself has come to its end.
//! - `strikes`: what single blobs have been answered.
//! - `gaps`: when nobody listed, why, and what filled the gap.
//! - [`hook`]: where Microsoft is asked to notify, and what proves that it did.
//! - `failure`: what can keep the tasks from their work, and what follows from it.
//! - [`roster`]: who is to be collected: files, enrolments and an operator's holds, joined.
//!
//! What tasks wait for:
//!
//! - [`gate`]: no request of a tenant before a wait that was read is over.
//! - [`slots`]: the process's places for blobs, fair across tenants.
//! - `waits`: those of them that outlive the process.
//!
//! Beside a tenant's tree, and apart from it, `health` collects what Graph tells of Microsoft 365 itself, and `glossary`
//! what sensitive information types are called.
//!
//! The tasks: `tree` (what they share), `subscription`, `poll`, `retrieve` and `reception` (of its body), `backlog` (the
//! retrievals), `driver`, `supervisor`, [`registry`]; above them [`keeper`], which alone changes who is collected, and
//! `farewell`, which stops the subscriptions of who is no longer. What an operator asks for goes to the service by an
//! [`errand`], [`inventory`] (which compares what Microsoft lists with what is held), [`backfill`] (which lists a span again) or
//! [`content`] (which fetches a blob by its address). A [`patient`] is what of all this is shown to a doctor,
//! a [`subscriber`] what is shown to whoever receives notifications.
//!
//! **Invariants:** a tenant's trouble, a panic included, stays in its tree; nothing is sent before its gate is open;
//! the watermark follows what is durably queued; an entry leaves the queue only when its blob is durable or its loss is
//! on record; an idle tenant costs a timer and a few short tasks per poll.

pub mod course;
pub mod plan;
mod schedule;
pub mod limit;
pub mod gate;
pub mod slots;
mod failure;
mod gaps;
pub mod hook;
mod life;
mod waits;
mod strikes;
mod reception;
mod tree;
mod subscription;
mod poll;
mod retrieve;
pub mod inventory;
mod backlog;
mod driver;
mod supervisor;
pub mod health;
mod glossary;
pub mod roster;
pub mod farewell;
pub mod errand;
pub mod backfill;
pub mod content;
pub mod patient;
pub mod subscriber;
pub mod registry;
pub mod keeper;

pub use self::course::{Assignment, Headway, Verdict};
pub use self::hook::Hooks;
pub use self::keeper::Keeper;
pub use self::patient::{Means, Patient};
pub use self::registry::{Changes, Registry, Shared};
pub use self::roster::Roster;
pub use self::subscriber::Subscriber;

#[cfg(test)]
mod tests;
