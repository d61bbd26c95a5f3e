//! `tenantry store stats`: what is stored, and how much of the disk it takes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{Cell, Table};
use serde::Serialize;

use super::super::out::print_outcome;
use super::super::sheet::{moment, number, sheet};
use super::super::socket::{Place, SocketArgs, Source};
use super::super::{Exit, opening};
use super::{no_store, size};
use crate::config::Client;
use crate::store::{PartitionStats, Stats};

/// The arguments of `tenantry store stats`.
#[derive(Debug, Args)]
#[command(after_help = "Every partition is opened, which takes seconds with many of them.\n\n\
                        Examples:\n  tenantry store stats\n  \
                        tenantry store stats --json | jq '.tenants[] | select(.dead_letters > 0)'")]
pub struct StatsArgs {
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// All of it, as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    store: PathBuf,
    /// How many bytes as received are one byte of content as stored.
    compression: Option<f64>,
    keep_for_seconds: Option<u64>,
    keep_at_most_bytes: Option<u64>,
    #[serde(flatten)]
    stats: &'a Stats,
}

/// Prints the store in numbers.
pub(super) async fn stats(config: &Path, args: StatsArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let client = &place.client;
    let stats: Stats = match place.source().await? {
        Source::Daemon(daemon) => daemon.work_out("store/stats").await?,
        Source::Store => {
            let Some(store) = opening::to_read(client, "tenantry store stats").await? else {
                return Err(no_store(&client.store.path));
            };
            let stats = store.stats().await;
            store.close().await?;
            stats?
        }
    };
    if args.json {
        let keep = client.store.keep;
        let shown = Shown {
            store: client.store.path.clone(),
            compression: stats.compression(),
            keep_for_seconds: keep.time.map(|time| time.as_secs()),
            keep_at_most_bytes: keep.bytes,
            stats: &stats,
        };
        print_outcome(&format!("{}\n", serde_json::to_string_pretty(&shown)?))?;
    } else {
        print_outcome(&render(&stats, client))?;
    }
    Ok(Exit::Done)
}

fn render(stats: &Stats, client: &Client) -> String {
    let Stats { content_bytes, state_bytes, free_bytes, .. } = stats;
    let mut text = format!(
        "`{}`: content {}, state {}, free on its disk {}\n",
        client.store.path.display(),
        size(*content_bytes),
        size(*state_bytes),
        size(*free_bytes)
    );
    // Writing to a string cannot fail.
    if let Some(ratio) = stats.compression() {
        let _ = writeln!(text, "bodies are compressed to one {ratio:.1}th of what was received");
    }
    let keep = client.store.keep;
    let time = keep.time.map(|time| format!("for {} days", time.as_secs() / 86_400));
    let bytes = keep.bytes.map(|bytes| format!("up to {}", size(bytes)));
    let kept: Vec<_> = time.into_iter().chain(bytes).collect();
    let kept = if kept.is_empty() { "without a limit".to_owned() } else { kept.join(", ") };
    let _ = writeln!(text, "kept {kept} (`keep_for` and `keep_at_most` under `[store]`)\n");
    let _ = writeln!(text, "{}\n\n{}", partitions(stats), tenants(stats, client));
    for one in &stats.partitions {
        if let Some(why) = &one.damaged {
            let _ = writeln!(text, "\n{}: {why}", one.name);
        }
    }
    text
}

fn partitions(stats: &Stats) -> Table {
    let mut table = sheet(["partition", "on disk", "blobs", "records", "received", "stored from", "to"]);
    for one in &stats.partitions {
        let PartitionStats { blobs, records, bytes, stored_from, stored_to, .. } = one;
        let mark = match (&one.damaged, one.sealed) {
            (Some(_), _) => " (damaged)",
            (None, true) => "",
            (None, false) => " (open)",
        };
        table.add_row([
            Cell::new(format!("{}{mark}", one.name)),
            number(size(one.disk_bytes)),
            number(blobs.to_string()),
            number(records.to_string()),
            number(size(*bytes)),
            Cell::new(moment(*stored_from)),
            Cell::new(moment(*stored_to)),
        ]);
    }
    table
}

fn tenants(stats: &Stats, client: &Client) -> Table {
    let mut table = sheet(["tenant", "blobs", "records", "copies", "received", "given up"]);
    for (id, one) in &stats.tenants {
        let name = client.outline.tenants.get(id).map_or_else(|| id.to_string(), |tenant| tenant.name.clone());
        table.add_row([
            Cell::new(name),
            number(one.blobs.to_string()),
            number(one.records.to_string()),
            number(one.duplicates.to_string()),
            number(size(one.bytes)),
            number(one.dead_letters.to_string()),
        ]);
    }
    table
}
