//! A tenant as whoever receives its notifications sees it: what is known of it, and its queue.
//!
//! **Invariant:** what is queued here is no promise: an entry that no listing confirms is dropped when it cannot be
//! retrieved, and never becomes a dead letter.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::Value;
use uuid::Uuid;

use super::tree::Tree;
use crate::content::{ContentBlob, ContentType, Tier};
use crate::store::{Enqueued, StoreError};

/// The service holds content for seven days; what it notifies of is new.
const OLDEST: SignedDuration = SignedDuration::from_hours(8 * 24);
/// How far clocks may differ.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// A tenant that is collected.
#[derive(Debug, Clone)]
pub struct Subscriber {
    pub(super) tree: Arc<Tree>,
    /// Of the app that it is collected as.
    pub(super) client_id: String,
}

impl Subscriber {
    /// Whether it is collected as this app.
    #[must_use]
    pub fn is_of(&self, client_id: &str) -> bool {
        match (Uuid::try_parse(&self.client_id), Uuid::try_parse(client_id)) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        }
    }

    /// What is collected.
    #[must_use]
    pub fn content_types(&self) -> &BTreeSet<ContentType> {
        &self.tree.content_types
    }

    /// One entry of a notification, if it is of content that may be fetched with this tenant's token and that the service
    /// may hold now; else a label.
    pub fn read(&self, entry: &Value) -> Result<ContentBlob, &'static str> {
        let blob = self.tree.client.read_notified(entry)?;
        let age = self.tree.time.now().duration_since(blob.content_created);
        if age > OLDEST || age < -AHEAD {
            return Err("malformed");
        }
        Ok(blob)
    }

    /// How many blobs wait to be retrieved.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.tree.store.queue_depth(self.tree.tenant).entries
    }

    /// Queues what is neither queued, stored nor given up; durable when this returns.
    pub async fn queue(&self, blobs: Vec<ContentBlob>) -> Result<Enqueued, StoreError> {
        let enqueued = self.tree.store.enqueue(self.tree.tenant, Tier::Webhook, blobs).await?;
        if enqueued.new > 0 {
            self.tree.queued();
        }
        Ok(enqueued)
    }
}
