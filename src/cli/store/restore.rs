//! `tenantry store restore`: a store out of a backup.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::super::out::print_outcome;
use super::super::socket::RunningDaemon;
use super::super::{Ended, Exit, opening};
use super::{count, told};
use crate::config;
use crate::store::{self, Restored};

/// The arguments of `tenantry store restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every file of the backup is compared with its SHA-256 before anything is written. `store.path` must be \
                        missing or empty: nothing that is stored is ever replaced. If it is a link, as systemd makes one \
                        for a service whose user is dynamic, that is about what the link leads to: move that away, and \
                        leave the link.\n\n\
                        Examples:\n  systemctl stop tenantry\n  \
                        mv /var/lib/private/tenantry /var/lib/private/tenantry.damaged\n  \
                        tenantry store restore /mnt/backup/tenantry && systemctl start tenantry"
)]
pub struct RestoreArgs {
    /// The folder that `tenantry store backup` has written
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Restores a backup to the store's path and says what is there now.
pub(super) async fn restore(config: &Path, args: RestoreArgs) -> anyhow::Result<Exit> {
    let client = config::load_client(config);
    if let Some(problems) = &client.problems {
        return Err(problems.clone().into());
    }
    if RunningDaemon::find(&client).await?.is_some() {
        let message = format!(
            "a daemon runs on the store `{}`: stop it (`systemctl stop tenantry`), move its store away, and run this again",
            client.store.path.display()
        );
        return Err(Ended { exit: Exit::TryAgain, message }.into());
    }
    let (folder, path) = (args.folder, client.store.path.clone());
    let restore = move || store::restore(&folder, &path, &opening::lock_request("tenantry store restore"));
    let restored = tokio::task::spawn_blocking(restore).await.context("restoring panicked")?.map_err(told)?;
    print_outcome(&render(&restored))?;
    Ok(Exit::Done)
}

fn render(restored: &Restored) -> String {
    let Restored { store, at, partitions, unsealed, blobs, records, stored } = restored;
    let day = |at: &jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let span = stored.map_or_else(String::new, |(from, to)| format!(", stored from {} to {}", day(&from), day(&to)));
    let more = if *unsealed > 0 { " and what the last partition holds" } else { "" };
    format!(
        "`{}` holds what was stored on {}: {}, {blobs} content blobs with {records} records{more}{span}\n\
         the next start rebuilds the state from it and lists the last seven days again; nothing that is here is fetched again\n\
         `tenantry verify --store-only` reads all of it\n",
        store.display(),
        day(at),
        count(*partitions, "partition"),
    )
}
