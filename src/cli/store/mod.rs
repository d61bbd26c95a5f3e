//! `tenantry store`: looking after what was collected.

mod backup;
mod restore;
mod stats;

use std::path::Path;

use clap::{Args, Subcommand};

use super::{Ended, Exit};
use crate::store::{BackupError, StoreError};

/// The arguments of `tenantry store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands about the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show what is stored, and how much of the disk it takes
    Stats(stats::StatsArgs),
    /// Copy everything that is stored into a folder, while the daemon runs or not
    Backup(backup::BackupArgs),
    /// Make a store out of a backup, while no daemon runs
    Restore(restore::RestoreArgs),
}

/// Does what is asked.
pub async fn store(config: &Path, args: StoreArgs) -> anyhow::Result<Exit> {
    match args.command {
        StoreCommand::Stats(args) => stats::stats(config, args).await,
        StoreCommand::Backup(args) => backup::backup(config, args).await,
        StoreCommand::Restore(args) => restore::restore(config, args).await,
    }
}

/// The error with the exit code that it deserves. A fault of the backup's folder has a remedy of its own.
fn told(error: BackupError) -> anyhow::Error {
    let exit = match &error {
        BackupError::Store(StoreError::Closed) => {
            let message = "the backup is not complete: a daemon is starting and needs the store; run this again, the \
                           daemon will answer";
            return Ended { exit: Exit::TryAgain, message: message.to_owned() }.into();
        }
        BackupError::Folder(fault) if fault.kind() == "permission" => Exit::Permission,
        BackupError::Folder(_)
        | BackupError::Busy { .. }
        | BackupError::Changing { .. }
        | BackupError::Unsealed { .. }
        | BackupError::BrokenOff { .. } => Exit::TryAgain,
        _ => Exit::Failed,
    };
    match error {
        BackupError::Store(error) => error.into(),
        error => Ended { exit, message: error.to_string() }.into(),
    }
}

/// There is nothing to look at.
fn no_store(path: &Path) -> anyhow::Error {
    let message = format!("there is no store at `{}` yet: nothing was collected", path.display());
    Ended { exit: Exit::Failed, message }.into()
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `1 partition`, `2 partitions`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
