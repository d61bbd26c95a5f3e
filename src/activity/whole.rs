//! Answers that are read as a whole: lists, pages of listings, the answers to subscription requests.
//!
//! **Invariants:** such an answer has a [`Place`] from its first byte on, and no more than [`SMALL`] bytes of it are in
//! memory before it has one for a large answer; whoever sends it slowly loses the place to others.

use std::time::Duration;

use tokio::time::timeout;

use super::body::{Body, Limits};
use super::error::{ActivityError, Operation};
use crate::http::room::{Place, Room, SMALL, Share};

/// The largest page of a listing. A usual one has some hundred entries of some 400 bytes.
pub(super) const PAGE: Limits = Limits { max_compressed: 8 << 20, max_decompressed: 8 << 20 };
/// Everything else, which has a few kilobytes.
pub(super) const LIST: Limits = Limits { max_compressed: 256 << 10, max_decompressed: 256 << 10 };

/// How long an answer may take to come once it has a place, and again once it has one for a large answer.
const WITHIN: Duration = Duration::from_secs(30);

/// An answer, and the room that it takes.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) place: Place,
}

impl Whole {
    /// Reads `body` to its end. An empty one is empty, whatever encoding it claims.
    pub(super) async fn read(
        mut body: Body,
        operation: Operation,
        room: &Room,
        share: &Share,
    ) -> Result<Self, ActivityError> {
        // Who announces an answer and sends nothing of it holds no place.
        body.begin().await?;
        let mut place = room.take().await;
        let mut bytes = Vec::new();
        let mut ended = within(body.read_on(&mut bytes, SMALL)).await;
        if let Some(Ok(false)) = ended {
            room.grow(&mut place, share).await;
            ended = within(body.read_on(&mut bytes, usize::MAX)).await;
        }
        match ended {
            Some(ended) => ended.map(|_| Self { bytes, place }),
            None => Err(ActivityError::TooSlow { operation, received: body.received(), waited: WITHIN }),
        }
    }
}

/// `None` if it takes too long.
async fn within<T>(reading: impl Future<Output = T>) -> Option<T> {
    timeout(WITHIN, reading).await.ok()
}
