//! A partition that was written anew takes the place of the old one.
//!
//! What is named `.purged-P` is whole, durable, and has all of P that is to stay. It takes two renames, since no file
//! system that is in use everywhere exchanges two directories in one step; between the two there is no P, and whoever opens
//! the store then, finishes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::super::durable;
use super::super::error::StoreError;
use super::super::holdings::Holdings;
use super::super::partition::{self, PURGED};
use super::super::partitions::Partition;
use super::phase;
use super::work::{Broken, Work};

/// The name of a partition that is being written anew.
pub(super) fn making(directory: &Path) -> PathBuf {
    beside(directory, ".purging-")
}

/// The same when it is whole.
pub(super) fn whole(directory: &Path) -> PathBuf {
    beside(directory, PURGED)
}

fn beside(directory: &Path, prefix: &str) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!("{prefix}{name}"))
}

/// Finishes what a crash has left between two renames. Nobody has the partitions open.
pub(in crate::store) fn finish(content: &Path) -> Result<(), StoreError> {
    for path in durable::entries(content)? {
        if let Some(name) = partition::purged(&path) {
            take_place(&content.join(name.to_string()))?;
        }
    }
    Ok(())
}

/// The two renames. If the first is done and the second is not, it is undone or, failing that, made up for later: by
/// whoever comes next.
fn take_place(directory: &Path) -> Result<(), StoreError> {
    let (whole, dropping) = (whole(directory), beside(directory, ".dropping-"));
    if directory.exists() {
        durable::remove_directory(&dropping)?;
        durable::rename(directory, &dropping)?;
    }
    phase(directory, "between the renames");
    match durable::rename(&whole, directory) {
        Err(error) if whole.exists() => {
            // Others wait for what they have stored.
            drop(durable::rename(&dropping, directory));
            Err(error)
        }
        // It has its name, which a power cut may take again: whoever opens the store then, gives it back.
        Err(error) => {
            tracing::debug!(%error, "a name is not durable yet");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Lets a partition be what was written anew of it, and waits for those who read the old one, for a while.
pub(super) fn exchange(holdings: &Holdings, partition: &Arc<Partition>, work: &Work) -> Result<(), Broken> {
    let directory = &partition.directory;
    let old = {
        let _moving = holdings.moving();
        if partition.is_ending() {
            durable::remove_directory(&whole(directory))?;
            return Err(Broken::Gone);
        }
        holdings.partitions.exchange(partition, holdings.seen_key, || {
            let sums = partition::read_sealed(&whole(directory))?.ok_or_else(|| StoreError::Damaged {
                path: whole(directory),
                why: "what was written anew has no sums".to_owned(),
            })?;
            take_place(directory)?;
            Ok(sums)
        })?
    };
    phase(directory, "exchanged");
    // Who has files of it open keeps their bytes until he closes them.
    durable::remove_directory(&beside(directory, ".dropping-"))?;
    let since = Instant::now();
    if !partition.wait_until_closed(&old, || work.may_wait(since)) {
        tracing::warn!(partition = %partition.name, "somebody still reads a partition as it was before a tenant was purged; its bytes go when he ends");
    }
    Ok(())
}
