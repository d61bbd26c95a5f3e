//! `tenantry tenant purges`: how far the erasing of tenants has come, and the receipts.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::super::count::{count, size};
use super::super::out::{print, print_outcome};
use super::super::progress::Progress;
use super::super::sheet::{moment, number, sheet};
use super::super::socket::{Place, SocketArgs, Source};
use super::super::{Ended, Exit, opening};
use super::{in_store, in_whole_store};
use crate::content::TenantId;
use crate::store::{self, Purge, Store};

/// What others are told that want the store meanwhile.
const PURPOSE: &str = "tenantry tenant purges";
/// How often the daemon is asked again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The arguments of `tenantry tenant purges`.
#[derive(Debug, Args)]
#[command(
    after_help = "A purge is done when every partition that named the tenant was written anew without it. Its receipt says how \
                        much that was, and what a purge cannot reach.\n\n\
                        Examples:\n  tenantry tenant purges\n  tenantry tenant purges --wait\n  \
                        tenantry tenant purges --json | jq '.[] | select(.done_at == null) | .left'"
)]
pub struct PurgesArgs {
    /// Only those of the tenant with this id
    #[arg(value_name = "ID")]
    pub tenant: Option<TenantId>,
    /// Return when all of them are done. Without a daemon the work is done here
    #[arg(long)]
    pub wait: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn purges(config: &Path, args: PurgesArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let progress = args.wait.then(|| Progress::of_work("erasing"));
    let mut purges = match place.source().await? {
        Source::Daemon(daemon) => loop {
            let purges: Vec<Purge> = daemon.get("store/purges").await?;
            if !args.wait || purges.iter().all(|purge| purge.done_at.is_some()) {
                break purges;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        },
        Source::Store => {
            let (client, reserve) = (&place.client, place.client.store.reserve_bytes);
            let purges = if args.wait {
                in_whole_store(client, PURPOSE, async |store, _| {
                    tokio::select! {
                        finished = finish(store, reserve) => finished.map(|()| store.purges()),
                        () = opening::gives_way(store) => {
                            let message = "a daemon is starting and goes on with it; run it again to wait for that";
                            Err(Ended { exit: Exit::TryAgain, message: message.to_owned() }.into())
                        }
                    }
                })
                .await?
            } else {
                in_store(client, PURPOSE, async |store, _| Ok(store.purges())).await?
            };
            purges.unwrap_or_default()
        }
    };
    if let Some(progress) = progress {
        progress.clear();
    }
    purges.retain(|purge| args.tenant.is_none_or(|tenant| purge.tenant == tenant));
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&purges)?))?;
    } else if purges.is_empty() {
        print_outcome("nothing was purged; `tenantry tenant remove --purge` erases a tenant\n")?;
    } else {
        print(&render(&purges))?;
    }
    Ok(Exit::Done)
}

/// Does what is left to do, as far as there is room.
async fn finish(store: &Store, reserve: u64) -> anyhow::Result<()> {
    loop {
        match store.go_on_purging(reserve).await? {
            store::Progress::Idle => return Ok(()),
            store::Progress::GoesOn | store::Progress::Done(_) => {}
            store::Progress::Short { needed, free } => {
                let message = format!(
                    "there is too little room to write a partition anew: {} must be free (`reserve` under `[store]` \
                     included), {} are; free some, and run it again; what is to be erased stays hidden",
                    size(needed),
                    size(free)
                );
                return Err(Ended { exit: Exit::TryAgain, message }.into());
            }
        }
    }
}

/// A row for each, and below it what is not erased.
fn render(purges: &[Purge]) -> String {
    let mut table = sheet(["purge", "tenant", "asked", "done", "blobs", "records", "as received", "given back"]);
    for purge in purges {
        let done = match purge.done_at {
            Some(at) => moment(Some(at)),
            None => format!("{} left", count(purge.left, "partition")),
        };
        table.add_row([
            number(purge.id.to_string()),
            purge.tenant.to_string().into(),
            moment(Some(purge.asked_at)).into(),
            done.into(),
            number(purge.blobs.to_string()),
            number(purge.records.to_string()),
            number(size(purge.bytes)),
            number(size(purge.given_back)),
        ]);
    }
    let mut text = format!("{table}\n");
    for purge in purges {
        for remains in &purge.remains {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nnot erased by purge {}: {remains}", purge.id);
        }
    }
    text
}
