//! What is fetched on request: files, handed on piece by piece, and the list of a post's attachments.
//!
//! Sources: "serviceHealthIssue: incidentReport"; "List attachments" and "Get serviceAnnouncementAttachment", by which the
//! bytes of an attachment are at `…/attachments/{id}/content`.

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::client::chunk;
use super::error::{GraphError, Operation};

/// The largest file: a review is a document, and Microsoft's posts carry tables and pictures.
pub const LARGEST: u64 = 256 << 20;
/// A longer media type is none.
const LONGEST_TYPE: usize = 200;

/// A file that is being received.
#[derive(Debug)]
pub struct File {
    operation: Operation,
    response: Response,
    received: u64,
    /// Its media type, as Graph tells it.
    pub content_type: Option<String>,
}

impl File {
    pub(super) fn new(operation: Operation, response: Response) -> Self {
        let told = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = told.filter(|told| told.len() <= LONGEST_TYPE).map(str::to_owned);
        Self { operation, response, received: 0, content_type }
    }

    /// The next bytes; `None` at the end of the whole file.
    ///
    /// # Errors
    /// If it breaks off, stands still, or has more than [`LARGEST`] bytes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, GraphError> {
        chunk(self.operation, &mut self.response, &mut self.received, LARGEST).await
    }
}

/// An attachment of a post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// By which it is fetched.
    pub id: String,
    /// What it is called; Microsoft puts whole sentences here.
    #[serde(default)]
    pub name: Option<String>,
    /// Its media type.
    #[serde(default, alias = "contentType")]
    pub content_type: Option<String>,
    /// How many bytes it has.
    #[serde(default)]
    pub size: Option<u64>,
    /// When it was last changed.
    #[serde(default, alias = "lastModifiedDateTime")]
    pub modified: Option<Timestamp>,
}

pub(super) fn attachments(bytes: &[u8]) -> Result<Vec<Attachment>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Answer {
        value: Vec<Attachment>,
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice::<Answer>(bytes).map(|answer| answer.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_read_as_documented() {
        let body = br#"{"@odata.context": "x", "value": [
            {"contentType": "application/csv", "isInline": false, "lastModifiedDateTime": "2021-09-21T04:07:15.9720778Z",
             "name": "table.csv", "size": 44583, "id": "30356a46"},
            {"id": "fdd33417"}
        ]}"#;
        let read = attachments(body).unwrap();
        assert_eq!((read[0].size, read[0].name.as_deref()), (Some(44583), Some("table.csv")));
        assert_eq!(read[0].content_type.as_deref(), Some("application/csv"));
        assert_eq!((read[1].id.as_str(), read[1].modified), ("fdd33417", None));
        for bad in ["", "[]", "{}", r#"{"value": [{"name": "no id"}]}"#] {
            assert!(attachments(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
