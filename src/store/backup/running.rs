//! A backup of a store that is open and goes on being written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::error::StoreError;
use super::super::facade::Store;
use super::super::partitions::Partition;
use super::BackupError;
use super::frame::{Frame, Have};
use super::send::{line, send_sealed};

/// How long sealing may take; a partition of 2 GiB takes seconds.
const SEALING: Duration = Duration::from_mins(10);

/// Partitions that are written no more, and hold everything that was acknowledged before.
#[derive(Debug)]
pub struct Sealed(Vec<Arc<Partition>>);

impl Store {
    /// Seals what was stored so far, with the state's snapshot in it: it begins a new partition, as midnight does.
    pub async fn seal(&self) -> Result<Sealed, BackupError> {
        if !self.put_snapshot().await? {
            // There is no partition yet.
            self.roll().await?;
            self.put_snapshot().await?;
        }
        self.roll().await?;
        let mut partitions = self.holdings().partitions.list();
        partitions.pop();
        // What is damaged is never sealed, and what retention drops is not needed.
        let waits = |one: &&Arc<Partition>| {
            one.sealed().is_none() && one.unreadable().is_none() && !one.is_damaged() && !one.is_ending()
        };
        let mut ticks = self.holdings().sealings.subscribe();
        let sealing = async {
            while partitions.iter().any(|one| waits(&one)) {
                ticks.changed().await.map_err(|_| StoreError::Closed)?;
            }
            Ok(())
        };
        if let Ok(sealed) = tokio::time::timeout(SEALING, sealing).await {
            return sealed.map(|()| Sealed(partitions)).map_err(BackupError::Store);
        }
        let name = partitions.iter().find(waits).map_or_else(String::new, |one| one.name.to_string());
        Err(BackupError::Unsealed { name })
    }

    /// Sends what is sealed and not in `have`. Blocking, with bounded memory, for as long as `out` takes. Why it fails, or
    /// why nothing was sealed, is the stream's last line.
    pub fn send_backup(
        &self,
        sealed: Result<Sealed, BackupError>,
        have: &Have,
        out: &mut dyn FnMut(Bytes) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let sent = sealed.and_then(|sealed| send_sealed(self.holdings(), &sealed.0, have, out));
        if let Err(error) = &sent {
            let why = match error {
                BackupError::Store(error) => error.trouble().to_string(),
                error => error.to_string(),
            };
            // Whoever has gone need not be told.
            let _ = out(line(&Frame::Failed { why })?);
        }
        sent
    }
}
