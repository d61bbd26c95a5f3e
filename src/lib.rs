//! Tenantry collects the audit records of every Microsoft 365 tenant it is given, loses nothing, and hands them on.
//!
//! # The way of the data
//!
//! ```text
//! scheduler tick ─► plan windows ─► list pages ─► queue new content (durable) ─┐
//!                                                                              ▼
//!            retrieve blob (bounded, fair, throttle-aware) ─► store (durable) ─► read: export, tail
//! ```
//!
//! # The parts, in reading order
//!
//! Dependencies point one way: `cli → tenant → token, activity, store → content, cloud, clock, retry`.
//!
//! - [`content`]: the domain's words: tenant, content type, content blob.
//! - [`clock`]: the host's time and the service's. Nothing else asks what time it is.
//! - [`retry`]: what to do after an error, and how long to wait.
//! - [`cloud`]: the table of clouds. Nothing else knows a host name.
//! - [`config`]: the configuration as written, merged and validated.
//! - [`token`]: certificates, client assertions, the token endpoint and the renewal loop.
//! - [`activity`]: the Management Activity API on the wire.
//! - [`store`]: what is kept, and how it survives. Nothing else names sled.
//! - [`report`]: what the operator is told.
//! - [`tenant`]: one supervised task tree per tenant.
//! - [`lifecycle`]: signals, systemd, an orderly end.
//! - [`cli`]: one file per command; `run` is the only place where the parts are put together.

pub mod content;
pub mod clock;
pub mod retry;
pub mod cloud;
pub mod secret;
pub mod http;
pub mod config;
pub mod token;
pub mod activity;
pub mod store;
pub mod report;
pub mod tenant;
pub mod export;
pub mod web;
pub mod logging;
pub mod lifecycle;
pub mod cli;
