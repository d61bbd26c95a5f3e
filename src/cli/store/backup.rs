//! `tenantry store backup`: everything that is stored, in a folder.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nix::unistd::Uid;

use super::super::out::print_outcome;
use super::super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::super::{Ended, Exit, opening};
use super::{count, no_store, size, told};
use crate::config::Client;
use crate::store::{BackupError, Folder, Made, send_at_rest};
use crate::web::store::BackupRequest;

/// The arguments of `tenantry store backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "The folder then holds all that was acknowledged when the command began, and a `manifest` with the SHA-256 \
                        of every file, written last. Run again with the same folder, it copies only what is new, goes on \
                        where an earlier run was broken off, and removes what retention has dropped from the store. It holds \
                        every record that was collected, and no secret.\n\n\
                        Examples:\n  tenantry store backup /mnt/backup/tenantry\n  \
                        tenantry store backup /mnt/backup/tenantry && rsync -a --delete /mnt/backup/tenantry elsewhere:"
)]
pub struct BackupArgs {
    /// The folder to write to: an empty one, one that an earlier backup made, or one to be made
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Makes a backup, or brings one up to date, and says what came of it.
pub(super) async fn backup(config: &Path, args: BackupArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let client = &place.client;
    let folder = std::path::absolute(&args.folder)?;
    refuse_inside(&folder, &client.store.path)?;
    let made = match place.source().await? {
        Source::Daemon(daemon) => from_daemon(&daemon, &folder).await?,
        Source::Store => at_rest(client, folder.clone()).await?,
    };
    print_outcome(&render(&made, &folder))?;
    Ok(Exit::Done)
}

async fn from_daemon(daemon: &RunningDaemon, folder: &Path) -> anyhow::Result<Made> {
    let mut folder = Folder::open(folder).map_err(told)?;
    let request = BackupRequest { have: folder.have().map_err(told)? };
    let mut answer = daemon.post_stream("store/backup", &request).await?;
    let broken_off =
        |error: reqwest::Error| told(BackupError::BrokenOff { why: format!("the daemon broke off: {error}") });
    while let Some(piece) = answer.chunk().await.map_err(broken_off)? {
        folder.push(&piece).map_err(told)?;
    }
    folder.finish().map_err(told)
}

/// Reads the store's files as whoever runs this, who may be the only one that can write the backup.
async fn at_rest(client: &Client, folder: PathBuf) -> anyhow::Result<Made> {
    let store = client.store.path.clone();
    if !store.join("format").is_file() {
        return Err(no_store(&store));
    }
    let copy = move || {
        let mut folder = Folder::open(&folder)?;
        let have = folder.have()?;
        let request = opening::lock_request("tenantry store backup");
        send_at_rest(&store, &request, &have, &mut |piece| folder.push(&piece))?;
        let made = folder.finish()?;
        Ok((made, store))
    };
    let copied = tokio::task::spawn_blocking(copy).await.context("copying the store panicked")?;
    let (made, store) = copied.map_err(told)?;
    if Uid::effective().is_root() {
        // Usually it was there; if not, the service must be able to take it.
        let owner = std::fs::metadata(&store)?;
        chown(store.join("lock"), Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(made)
}

/// A backup in the store would be part of the next one, and lost with it.
fn refuse_inside(folder: &Path, store: &Path) -> anyhow::Result<()> {
    let place = |path: &Path| path.ancestors().find_map(|above| above.canonicalize().ok());
    let (Some(to), Ok(store)) = (place(folder), store.canonicalize()) else { return Ok(()) };
    if !to.starts_with(&store) {
        return Ok(());
    }
    let message = format!(
        "`{}` lies in the store `{}`: name a folder elsewhere, best on another disk",
        folder.display(),
        store.display()
    );
    Err(Ended { exit: Exit::Usage, message }.into())
}

fn render(made: &Made, folder: &Path) -> String {
    let (partitions, bytes) = (count(made.partitions, "partition"), size(made.bytes));
    let (copied, at) = (made.copied, made.at.strftime("%Y-%m-%d %H:%M:%S UTC"));
    let mut text = format!(
        "`{}` is a backup of {at}: {partitions}, of which {copied} ({bytes}) were copied now\n",
        folder.display()
    );
    // Writing to a string cannot fail.
    if !made.removed.is_empty() {
        let _ = writeln!(text, "retention has dropped {}, which went from the backup too", made.removed.join(", "));
    }
    if !made.stray.is_empty() {
        let _ = writeln!(
            text,
            "the store has lost {}, of which the folder has copies from an earlier backup; they are no part of this one and \
             stay where they are: keep them elsewhere",
            made.stray.join(", ")
        );
    }
    text
}
