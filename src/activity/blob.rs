//! The body of a content blob: decoded bytes as they come, evidence of what was sent.
//!
//! Memory does not grow with the blob: one chunk is held at a time.

use jiff::Timestamp;

use super::body::Body;
use super::error::ActivityError;

/// A blob that is being received. Dropping it before its end closes the connection.
#[derive(Debug)]
pub struct BlobBody {
    body: Body,
    date: Option<Timestamp>,
    from: String,
    says_json: bool,
}

impl BlobBody {
    pub(super) fn new(body: Body, date: Option<Timestamp>, from: String, says_json: bool) -> Self {
        Self { body, date, from, says_json }
    }

    /// Whether the answer says that it is JSON, or does not say what it is. A page that a proxy answers with says
    /// otherwise; what says otherwise and is an array of records all the same is one.
    #[must_use]
    pub fn says_json(&self) -> bool {
        self.says_json
    }

    /// The next decoded bytes, at most 128 KiB; `None` once all of the body has come and its end is verified:
    /// `Content-Length` or the last chunk, gzip's checksum and length. Until then nothing that was handed out may
    /// be taken for a blob. After an error the body is good for nothing more.
    pub async fn chunk(&mut self) -> Result<Option<&[u8]>, ActivityError> {
        self.body.chunk().await
    }

    /// The `Date` of the answer: when the service handed it out.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.date
    }

    /// The address that was asked, as it was sent; there are no secrets in it.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Bytes that came over the wire so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.body.received()
    }

    /// Bytes handed out so far.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.body.decoded()
    }
}
