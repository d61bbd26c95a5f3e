//! Measures the daemon from outside, as whole processes, side by side with a bare client.
//!
//! The simulated cloud runs in a process of its own, whose CPU is not counted; it compresses its bodies before the
//! measurement begins. CPU and peak memory are the kernel's figures for the measured process. The two sides take
//! turns, and the ratios are those of each turn, so that a machine whose speed drifts compares them fairly.
//!
//! ```text
//! cargo build --release --workspace && target/release/tenantry-bench all
//! ```

mod client;
mod cloud;
mod daemon;
mod measure;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::cloud::Cloud;
use crate::daemon::Daemon;
use crate::measure::{Figures, median};

#[derive(Parser)]
#[command(about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The backlog, the large blob and the idle tenants, one after the other.
    All,
    /// About 1 GB of JSON in 10,000 gzip-served blobs of one tenant, against the bare client.
    Backlog {
        /// How many blobs.
        #[arg(long, default_value_t = 10_000)]
        blobs: u32,
        /// Turns of both sides.
        #[arg(long, default_value_t = 3)]
        turns: usize,
    },
    /// One blob of 250 MB.
    LargeBlob,
    /// 1,000 mostly idle tenants with five content types, poll 60 s.
    Idle {
        /// How many tenants.
        #[arg(long, default_value_t = 1000)]
        tenants: u32,
        /// Seconds to measure, after the start has been spread out.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// The index "seen before?": bits per entry, time per question, memory.
    Seen {
        /// How many entries, over ten sealed partitions. The design's figure is 110000000.
        #[arg(long, default_value_t = 11_000_000)]
        entries: u64,
        /// How often all partitions are asked.
        #[arg(long, default_value_t = 1_000_000)]
        questions: u64,
    },
    /// The bare client itself: downloads and decompresses every blob to one file, with one fsync at the end.
    #[command(hide = true)]
    Client {
        url: String,
        tenant: String,
        client_id: String,
        secret: String,
        content_type: String,
        concurrency: usize,
        output: PathBuf,
    },
}

/// The content types, Microsoft's names.
const CONTENT_TYPES: [&str; 5] =
    ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All"];
const CONCURRENCY: usize = 8;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::All => {
            backlog(10_000, 3).await?;
            large_blob().await?;
            idle(1000, 120).await
        }
        Command::Backlog { blobs, turns } => backlog(blobs, turns).await,
        Command::LargeBlob => large_blob().await,
        Command::Idle { tenants, seconds } => idle(tenants, seconds).await,
        Command::Seen { entries, questions } => seen(entries, questions),
        Command::Client { url, tenant, client_id, secret, content_type, concurrency, output } => {
            client::run(&client::Job { url, tenant, client_id, secret, content_type, concurrency, output }).await
        }
    }
}

async fn backlog(blobs: u32, turns: usize) -> anyhow::Result<()> {
    let body_bytes = 100_000;
    let tenant = cloud::tenant(
        1,
        &json!([{
            "content_type": "Audit.SharePoint", "backlog": blobs, "backlog_days": 5.0, "body_bytes": body_bytes,
        }]),
    );
    println!(
        "backlog: {blobs} blobs of about {} kB of JSON, gzip, one tenant, {CONCURRENCY} at a time",
        body_bytes / 1000
    );
    let mut cloud = Cloud::start(json!({ "seed": 1, "precompress_mib": 600, "tenants": [tenant] })).await?;
    let mut ratios = Vec::new();
    for turn in 1..=turns {
        let daemon = collect_all(&mut cloud, u64::from(blobs)).await?;
        let client = client::measure(&cloud, CONTENT_TYPES[2], CONCURRENCY).await?;
        println!("  turn {turn}: tenantry    {daemon}");
        println!("          bare client {client}");
        ratios.push((
            daemon.wall.as_secs_f64() / client.wall.as_secs_f64(),
            daemon.cpu.as_secs_f64() / client.cpu.as_secs_f64(),
            daemon.peak_mib,
        ));
    }
    println!(
        "  median: time {:.2} x the client's (at most 2), CPU {:.2} x (at most 3), peak memory {:.0} MiB (under 200)\n",
        median(ratios.iter().map(|r| r.0)),
        median(ratios.iter().map(|r| r.1)),
        median(ratios.iter().map(|r| r.2)),
    );
    Ok(())
}

async fn large_blob() -> anyhow::Result<()> {
    let tenant = cloud::tenant(
        1,
        &json!([{
            "content_type": "Audit.SharePoint", "backlog": 1, "backlog_days": 1.0, "body_bytes": 250_000_000,
        }]),
    );
    println!("large blob: one blob of 250 MB of JSON");
    let mut cloud = Cloud::start(json!({ "seed": 2, "tenants": [tenant] })).await?;
    let figures = collect_all(&mut cloud, 1).await?;
    println!("  tenantry    {figures} (under 200 MiB)\n");
    Ok(())
}

async fn idle(tenants: u32, seconds: u64) -> anyhow::Result<()> {
    let feeds = json!(CONTENT_TYPES.map(|content_type| json!({ "content_type": content_type })));
    let all: Vec<_> = (1..=tenants).map(|number| cloud::tenant(number, &feeds)).collect();
    println!("idle: {tenants} tenants with {} content types, poll 60 s", CONTENT_TYPES.len());
    let cloud = Cloud::start(json!({ "seed": 3, "tenants": all })).await?;
    let mut daemon = Daemon::start(&cloud, "60s", &CONTENT_TYPES)?;
    daemon
        .wait(Duration::from_mins(5), "every tenant has listed every content type", |status| {
            status["tenants"].as_array().is_some_and(|all| {
                all.iter().all(|tenant| {
                    tenant["content"].as_object().is_some_and(|types| {
                        types.len() == CONTENT_TYPES.len() && types.values().all(|one| !one["last_listed"].is_null())
                    })
                })
            })
        })
        .await?;
    // The sweeps and spans of the first minutes are over when a whole poll interval has passed.
    tokio::time::sleep(Duration::from_secs(90)).await;
    let before = daemon.figures()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = daemon.figures()?;
    let share = after.cpu.checked_sub(before.cpu).unwrap().as_secs_f64()
        / after.wall.checked_sub(before.wall).unwrap().as_secs_f64()
        * 100.0;
    println!(
        "  over {seconds} s: {share:.1} % of a core (at most 6), resident {:.0} MiB, peak {:.0} MiB (at most 100)\n",
        after.resident_mib, after.peak_mib
    );
    daemon.stop().await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn seen(entries: u64, questions: u64) -> anyhow::Result<()> {
    println!("seen: {entries} entries in 10 sealed partitions, {questions} questions to all of them");
    let dir = tempfile::tempdir()?;
    let figures = tenantry::store::measure::measure(dir.path(), 10, entries, questions)?;
    let per_entry = |bytes: u64| bytes as f64 * 8.0 / figures.entries as f64;
    let resident = std::fs::read_to_string("/proc/self/status")?;
    let resident = resident.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim();
    println!(
        "  memory {:.1} MiB, {:.2} bits an entry (process: {resident}); on disk {:.1} bits an entry",
        figures.resident as f64 / f64::from(1 << 20),
        per_entry(figures.resident),
        per_entry(figures.on_disk),
    );
    println!(
        "  built in {:.1} s; per second {:.0} questions answered no ({} of a million suspected), {:.0} answered yes\n",
        figures.built.as_secs_f64(),
        1.0 / figures.absent.as_secs_f64(),
        figures.suspicions,
        1.0 / figures.present.as_secs_f64(),
    );
    Ok(())
}

/// Starts the daemon on an empty store and waits until it has stored `blobs`.
async fn collect_all(cloud: &mut Cloud, blobs: u64) -> anyhow::Result<Figures> {
    // Each turn begins as the first did: nothing subscribed lately, no throttling left over.
    let mut daemon = Daemon::start(cloud, "10s", &CONTENT_TYPES[2..3])?;
    daemon
        .wait(Duration::from_mins(10), "every blob is stored", |status| {
            status["tenants"][0]["stored_today"]["blobs"].as_u64() == Some(blobs)
        })
        .await?;
    let figures = daemon.figures()?;
    let stored = daemon.stop().await?;
    ensure!(stored.success(), "the daemon ended with {stored}");
    Ok(figures)
}

/// A binary beside this one.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "`{}` is missing: run `cargo build --release --workspace` first", path.display());
    path.canonicalize().context("cannot resolve the binary's path")
}
