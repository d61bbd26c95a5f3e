//! What the daemon serves: the admin socket, over which the command line talks to it, the operators' listener, and the
//! customers'.

mod access;
pub mod admin;
pub mod backfill;
mod connections;
pub mod content;
pub mod doctor;
pub mod framed;
pub mod graph;
mod health;
mod listener;
pub mod inventory;
pub mod invites;
pub mod metrics;
pub mod operator;
mod pages;
pub mod public;
pub mod records;
pub mod reload;
pub mod servicecomms;
pub mod store;
pub mod subscriptions;
pub mod tenants;
mod tls;
