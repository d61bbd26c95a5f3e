//! The simulated cloud as its users see it: over HTTP.

mod activity;
mod browser;
mod chance;
mod client;
mod consent;
mod control;
mod custody;
mod faults;
mod federated;
mod hooks;
mod graph;
mod openid;
mod process;
mod signin;
mod token;
