//! Tenantry collects the audit records of every Microsoft 365 tenant it is given, loses nothing, and hands them on.
//!
//! # The way of the data
//!
//! ```text
//! scheduler tick ─► plan windows ─► list pages ─► queue new content (durable) ─┐
//! webhook POST ─► check ─► queue new content (durable) ─► 200 ─────────────────┤
//!                                                                              ▼
//!            retrieve blob (bounded, fair, throttle-aware) ─► store (durable) ─► read: export, tail
//! ```
//!
//! # What holds
//!
//! 1. Nothing is acknowledged before it is durable: a watermark, a queue entry's removal and a command's answer follow
//!    what would survive a power cut.
//! 2. Every content blob that Microsoft lists is stored, or its loss is a dead letter with its reason and an error line.
//!    What only a notification names is no promise: unless a listing confirms it, it is dropped and counted.
//! 3. Late blobs are found: recent windows are listed again, and a sweep lists all that the service still holds. Blobs
//!    that were fetched so young that they may be parts are looked at again. What is held can be compared with what the
//!    service still lists, and spans in which nobody listed are on record.
//! 4. Bodies are kept exactly as received, with a SHA-256 that is chained per tenant.
//! 5. Copies of a record are flagged, not dropped; an export carries one of each.
//! 6. A tenant's trouble, a panic included, stays in its own task tree, and nobody waits for a tenant that stalls.
//! 7. A token goes only to the host it was issued for; redirects are not followed.
//! 8. Memory is bounded, whatever the size of a blob, a backlog or the number of tenants.
//! 9. Secrets have no `Display`, a silent `Debug`, and are never stored.
//! 10. What needs a person is said in the same words in the journal, in `status` and by `doctor`, with what to do.
//!
//! # The parts, in reading order
//!
//! Dependencies point one way: `cli → web → consent, webhook, doctor → tenant → token, activity, graph, store → report, retry,
//! clock, content, language`. Nothing lower knows anything higher.
//!
//! - [`content`]: the domain's words: tenant, content type, content blob.
//! - [`language`]: in which names are asked for.
//! - [`sensitive`]: where records name sensitive information types.
//! - [`clock`]: the host's time and the service's, cloud by cloud. Nothing else asks what time it is.
//! - [`retry`]: what to do after an error, and how long to wait.
//! - [`cloud`]: the table of clouds. Nothing else knows a host name.
//! - [`permissions`]: what an app registration asks customers for.
//! - [`secret`]: texts that must never be seen.
//! - [`http`]: the one place where HTTP clients are built; whose certificates are believed, and how the way to a service
//!   fails; what headers say of time; room for what is read as a whole.
//! - [`tls`]: what a listener of ours shows and demands: certificates, keys and CAs as bytes.
//! - [`config`]: the configuration as written, merged and validated.
//! - [`token`]: certificates, client assertions, federated tokens, the token endpoint and the renewal loop.
//! - [`activity`]: the Management Activity API on the wire. It retries nothing.
//! - [`graph`]: Graph's service communications on the wire. It retries nothing either.
//! - [`store`]: what is kept, and how it survives. Nothing else names sled.
//! - [`event`]: the identities of what an operator filters or alerts on in the journal.
//! - [`report`]: what the operator is told.
//! - [`tenant`]: who is collected, from files and from the store's register; one supervised task tree per tenant: listing,
//!   retrieval, subscriptions.
//! - [`upkeep`]: looking after the disk.
//! - [`doctor`]: why no data arrives, link by link.
//! - [`health`]: what Microsoft says of its services, put together from the revisions that are kept.
//! - [`servicecomms`]: the same in the form of the retired Service Communications API.
//! - [`export`]: records as text, the same for the daemon and the command line.
//! - [`consent`]: invites, sign-in, consent and proof: how a tenant comes without anybody typing its id.
//! - [`webhook`]: notifications of new content, checked and queued.
//! - [`web`]: the admin socket, the operators' listener, and the customers' pages.
//! - [`logging`], [`lifecycle`]: the journal; signals, systemd, an orderly end.
//! - [`cli`]: one file per command; `run` is the only place where the parts are put together, and `single` where those of them
//!   are that collect, for a run that ends by itself.
//!
//! Deliberately absent: a queue in memory (what waits is in the store), a retry outside [`retry`]'s vocabulary, a
//! second way to build an HTTP client, a clock read that a test cannot set.

// Tests tell what they do; a command's results go through `cli::out`, which knows what to do when nobody reads them.
#![cfg_attr(not(test), deny(clippy::print_stdout))]

pub mod content;
pub mod language;
pub mod sensitive;
pub mod clock;
pub mod retry;
pub mod cloud;
pub mod permissions;
pub mod secret;
pub mod http;
pub mod tls;
pub mod config;
pub mod token;
pub mod activity;
pub mod graph;
pub mod store;
pub mod event;
pub mod report;
pub mod tenant;
pub mod upkeep;
pub mod doctor;
pub mod health;
pub mod servicecomms;
pub mod export;
pub mod consent;
pub mod webhook;
pub mod web;
pub mod logging;
pub mod lifecycle;
pub mod cli;
