//! An answer and how it is put on the wire.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::faults::Point;
use crate::ledger::Wait;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) wire: Wire,
    /// What it tells the client to wait.
    pub(crate) wait: Option<Wait>,
    /// The blob that the client has whole once the answer is sent to the end.
    pub(crate) delivers: Option<u64>,
    /// The blobs that the client has heard of then.
    pub(crate) lists: Vec<u64>,
    /// The revisions of Graph's items that it has been told of then.
    pub(crate) announces: Vec<u64>,
    /// How long it takes to be made.
    pub(crate) latency: Duration,
}

/// A body.
pub(crate) enum Body {
    /// Sent with `Content-Length`.
    Whole(Bytes),
    /// Sent in chunks as they are made.
    Stream(Box<dyn Iterator<Item = Bytes> + Send>),
}

/// What goes wrong on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Wire {
    /// Nothing.
    #[default]
    Sound,
    /// RST at this point.
    Reset(Point),
    /// The connection closes half way through the body.
    Truncate {
        /// Framed in chunks or with a length.
        chunked: bool,
    },
    /// A pause at this point, for ever or for a time.
    Stall(Point, Option<Duration>),
    /// The body in pieces of so many bytes, each after a pause.
    Drip(usize, Duration),
}

impl Response {
    /// An answer with a body of some type.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = if content_type.is_empty() {
            Vec::new()
        } else {
            vec![("Content-Type".to_owned(), content_type.to_owned())]
        };
        Self {
            status,
            headers,
            body: Body::Whole(body.into()),
            wire: Wire::Sound,
            wait: None,
            delivers: None,
            lists: Vec::new(),
            announces: Vec::new(),
            latency: Duration::ZERO,
        }
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        // The cloud's own types have string keys only; they always serialize.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self::new(status, "application/json; charset=utf-8", body)
    }

    /// An empty answer.
    pub(crate) fn empty(status: u16) -> Self {
        Self::new(status, "", Bytes::new())
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Replaces a header.
    pub(crate) fn set_header(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    /// The body made whole.
    pub(crate) fn whole(&mut self) -> Bytes {
        match std::mem::replace(&mut self.body, Body::Whole(Bytes::new())) {
            Body::Whole(bytes) => bytes,
            Body::Stream(chunks) => chunks
                .fold(Vec::new(), |mut all, chunk| {
                    all.extend_from_slice(&chunk);
                    all
                })
                .into(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// The reason phrase of a status.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
