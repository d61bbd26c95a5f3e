//! Receives a body into the store: as an array of records, or as bytes that are kept as they are, or as whichever of the
//! two it turns out to be.

use crate::store::{BlobWriter, IntakeError, Stored};

/// A body on its way into the store.
#[derive(Debug)]
pub(super) enum Reception {
    /// It must be an array of records.
    Records(Box<BlobWriter>),
    /// It is kept whatever it is.
    Kept {
        /// Reads it as records, as long as it can be read; `None` if it is not to be looked at.
        records: Option<Box<BlobWriter>>,
        /// Keeps it as it is,
        bytes: Box<BlobWriter>,
        /// for this reason.
        reason: String,
    },
}

/// What a body was stored as.
#[derive(Debug)]
pub(super) enum Received {
    /// An array of records.
    Records(Stored),
    /// Bytes, for this reason.
    Bytes(Stored, String),
}

impl Reception {
    /// Takes the next bytes.
    pub(super) async fn push(&mut self, chunk: &[u8]) -> Result<(), IntakeError> {
        match self {
            Self::Records(records) => records.push(chunk).await,
            Self::Kept { records, bytes, .. } => {
                if let Some(reading) = records {
                    match reading.push(chunk).await {
                        Err(IntakeError::Malformed { .. }) => *records = None,
                        read => read?,
                    }
                }
                bytes.push(chunk).await
            }
        }
    }

    /// The body is complete. Returns when it is durable.
    pub(super) async fn finish(self) -> Result<Received, IntakeError> {
        match self {
            Self::Records(records) => records.finish().await.map(Received::Records),
            Self::Kept { records, bytes, reason } => {
                if let Some(records) = records {
                    match records.finish().await {
                        Err(IntakeError::Malformed { .. }) => {}
                        read => return read.map(Received::Records),
                    }
                }
                Ok(Received::Bytes(bytes.finish().await?, reason))
            }
        }
    }
}
