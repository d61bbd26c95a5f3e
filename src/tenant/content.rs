//! One content blob by its address, for an investigator: as the service hands it out now, beside what is stored of it.
//!
//! **Invariants:** an address that may not see the tenant's token is refused before anything is sent, a request for a token
//! included; the tenant's own gate holds; nothing is stored by it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::failure::Failure;
use super::roster::{Member, Refusal};
use super::tree::Tree;
use crate::activity::{BlobBody, ContentAddress};
use crate::content::{ContentBlob, ContentType};
use crate::report::{Trouble, span};
use crate::store::{BlobHeader, StoreError};

/// A wait that is longer than this is told and not waited for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Fetches for one tenant.
#[derive(Debug, Clone)]
pub struct Investigator {
    pub(super) tree: Arc<Tree>,
}

/// What is stored under a content id: the newest revision, of the last nine days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredContent {
    /// Of which type it is.
    pub content_type: ContentType,
    /// Its number among the tenant's blobs of that type.
    pub seq: u64,
    /// Lower-case hexadecimal SHA-256 of the body.
    pub sha256: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// How many other bodies were stored before it, when the service was found to serve another one.
    pub revision: u16,
}

impl From<BlobHeader> for StoredContent {
    fn from(header: BlobHeader) -> Self {
        let BlobHeader { content_type, seq, sha256, bytes, stored_at, revision, .. } = header;
        Self { content_type, seq, sha256: hexadecimal(&sha256), bytes, stored_at, revision }
    }
}

/// A digest as people compare it.
#[must_use]
pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A blob that is being received.
#[derive(Debug)]
pub struct Content {
    /// What is stored of it.
    pub stored: Option<StoredContent>,
    body: BlobBody,
}

/// Why there is no blob.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Nobody knows the tenant.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its token may not go there.
    #[error("`{name}`: nothing was asked for, since its token may not go there: {trouble}")]
    Foreign {
        /// What the tenant is called.
        name: String,
        /// Why not.
        trouble: Box<Trouble>,
    },
    /// Nobody collects it.
    #[error("`{name}` is not collected, so that Microsoft is not asked for it: {why}")]
    NotCollected {
        /// What the tenant is called.
        name: String,
        /// Why not, and what to do.
        why: String,
    },
    /// The service did not hand it out.
    #[error("Microsoft does not hand it out to `{name}`: {trouble}")]
    NotDone {
        /// What the tenant is called.
        name: String,
        /// Why not.
        trouble: Box<Trouble>,
    },
    /// What is stored cannot be read.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

impl Investigator {
    /// Asks for the blob at this address.
    pub async fn fetch(&self, address: &ContentAddress) -> Result<Content, ContentError> {
        let tree = &self.tree;
        let name = || tree.report.name();
        if let Err(error) = tree.client.may_be_asked(&address.uri) {
            return Err(ContentError::Foreign { name: name(), trouble: Box::new(error.trouble()) });
        }
        let stored = tree.store.find_blob(tree.tenant, &address.content_id).await?.map(StoredContent::from);
        // The tenant's tasks may not have begun.
        tree.restore_waits().await?;
        let not_done = |trouble| ContentError::NotDone { name: name(), trouble: Box::new(trouble) };
        if let Some(until) = tree.gate.closed_until().filter(|until| *until > Instant::now() + LONGEST_WAIT) {
            let left = until.saturating_duration_since(Instant::now());
            let left = span(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
            let told = format!("it has asked to be left alone for another {left}: ask again then");
            return Err(not_done(Trouble::passing("throttled", told)));
        }
        let (client, blob) = (&tree.client, &self.blob(address));
        let answer = tree.ask(None, |token| async move { client.fetch_blob(&token, blob).await }).await;
        let body = answer.map_err(|failure: Failure| not_done(failure.trouble()))?;
        Ok(Content { stored, body })
    }

    /// As a request needs it, which asks for nothing but the address.
    fn blob(&self, address: &ContentAddress) -> ContentBlob {
        let now = self.tree.time.now();
        ContentBlob {
            content_id: address.content_id.clone(),
            content_type: ContentType::General,
            content_uri: address.uri.clone(),
            content_created: now,
            content_expiration: now,
        }
    }
}

/// Nothing of a member is collected.
#[must_use]
pub fn not_collected(member: &Member) -> ContentError {
    ContentError::NotCollected { name: member.name.clone(), why: member.why_not_collected() }
}

impl Content {
    /// The next bytes as received; `None` once all of the body has come, and its end is verified.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        match self.body.chunk().await {
            Ok(chunk) => Ok(chunk.map(Bytes::copy_from_slice)),
            Err(error) => Err(error.trouble()),
        }
    }
}
