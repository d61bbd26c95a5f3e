//! What the daemon serves. So far the admin socket, over which the command line talks to it.

pub mod admin;
pub mod records;
pub mod reload;
pub mod store;
