//! The simulated cloud as its users see it: over HTTP.

mod activity;
mod chance;
mod client;
mod control;
mod custody;
mod faults;
mod process;
mod token;
