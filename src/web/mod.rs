//! What the daemon serves: the admin socket, over which the command line talks to it, and the operators' listener.

mod access;
pub mod admin;
mod connections;
pub mod doctor;
pub mod framed;
mod health;
pub mod metrics;
pub mod operator;
pub mod records;
pub mod reload;
pub mod store;
pub mod tenants;
mod tls;
