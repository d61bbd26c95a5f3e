//! A small HTTP/1.1 server that can misbehave at any byte.
//!
//! Requests are read whole (bodies up to 1 MiB). Answers are written with the header names spelled as given, and may
//! be reset, truncated, stalled or sent in drips ([`Wire`]), which is why no web framework is used.

mod connection;
mod door;
mod request;
mod response;

pub(crate) use connection::{Handler, Sent};
pub(crate) use door::{Door, Latch};
pub(crate) use request::{Request, percent_decoded};
pub(crate) use response::{Body, Response, Wire};
