//! What became of content that the service lists: for whoever compares the two.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::content::As;
use super::error::StoreError;
use super::facade::Store;
use crate::content::{ContentBlob, TenantId};

/// What became of a content blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is stored.
    Stored {
        /// It was fetched so early that it may be a part, and no other body of it was found since; none is awaited either.
        young: bool,
    },
    /// It waits to be retrieved.
    Queued {
        /// Since when, in the service's time.
        since: Timestamp,
        /// What kept it last.
        last_error: Option<String>,
    },
    /// It was given up for good, for this reason.
    GivenUp(String),
    /// It was put aside until it is listed again, or rightly, for this reason.
    SetAside(String),
    /// Nothing is known of it.
    Unknown,
}

/// What the state knows of a content blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is in the queue, or was given up.
    As(Fate),
    /// It is stored, and is to be looked at again.
    Again,
    /// Nothing.
    Nothing,
}

impl Store {
    /// What became of each of these, of which the service lists only what was created within the last seven days. One that
    /// is on its way from the listing to the queue may be unknown for a moment.
    pub async fn fates(&self, tenant: TenantId, blobs: Vec<ContentBlob>) -> Result<Vec<Fate>, StoreError> {
        let ids = blobs.iter().map(|blob| blob.content_id.clone()).collect();
        // In this order: what leaves the queue meanwhile is stored by then.
        let noted = self.state().noted(tenant, blobs).await?;
        let stored = self.find_stored(tenant, ids).await?;
        Ok(noted.into_iter().zip(stored).map(fate).collect())
    }
}

fn fate((noted, stored): (Noted, As)) -> Fate {
    match (noted, stored) {
        // Once it is stored as records it is of no interest what was thought of it before.
        (Noted::Again, As::Young) | (_, As::Records | As::Revised) => Fate::Stored { young: false },
        (_, As::Young) => Fate::Stored { young: true },
        (Noted::As(fate), As::Nothing | As::Defect) => fate,
        (_, As::Defect) => Fate::GivenUp("its bytes are kept unparsed".to_owned()),
        (_, As::Nothing) => Fate::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_stored_and_bytes_that_are_kept_are_a_loss() {
        let lost = || Noted::As(Fate::GivenUp("it expired".to_owned()));
        let young = |young| Fate::Stored { young };
        for (noted, stored, is) in [
            (Noted::Nothing, As::Nothing, Fate::Unknown),
            (Noted::Nothing, As::Records, young(false)),
            (Noted::Nothing, As::Young, young(true)),
            (Noted::Again, As::Young, young(false)),
            (Noted::Again, As::Nothing, Fate::Unknown),
            (Noted::Nothing, As::Revised, young(false)),
            (lost(), As::Nothing, Fate::GivenUp("it expired".to_owned())),
            (lost(), As::Defect, Fate::GivenUp("it expired".to_owned())),
            (Noted::Nothing, As::Defect, Fate::GivenUp("its bytes are kept unparsed".to_owned())),
            (lost(), As::Records, young(false)),
        ] {
            assert_eq!(fate((noted.clone(), stored)), is, "{noted:?}, {stored:?}");
        }
    }
}
