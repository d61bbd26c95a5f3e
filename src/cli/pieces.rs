//! A framed answer of the daemon, piece by piece.

use bytes::Bytes;

use super::socket::broke_off;
use crate::web::framed::Frames;

/// What is still to come of an answer.
pub(super) struct Pieces {
    answer: reqwest::Response,
    frames: Frames,
}

impl Pieces {
    pub(super) fn of(answer: reqwest::Response) -> Self {
        Self { answer, frames: Frames::default() }
    }

    /// The next piece; `None` if there was no other, and else why it is not whole.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(piece) = self.frames.piece() {
                return Ok(Some(piece));
            }
            match self.answer.chunk().await.map_err(|error| broke_off(&error).to_string())? {
                Some(bytes) => self.frames.push(&bytes),
                None => {
                    return match std::mem::take(&mut self.frames).finish() {
                        Ok(()) => Ok(None),
                        Err(Some(reason)) => Err(format!("the daemon says: {reason}")),
                        Err(None) => Err("the daemon broke off; run it again".to_owned()),
                    };
                }
            }
        }
    }
}
