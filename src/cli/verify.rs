//! `tenantry verify`: is everything that was stored still there, and as it was stored?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;

use super::count::{count, size};
use super::out::print_outcome;
use super::progress::Progress;
use super::socket::{Place, SocketArgs, Source};
use super::{Ended, Exit, opening};
use crate::config::Client;
use crate::content::TenantId;
use crate::store::{Finding, FindingKind, StoreError, Verification};

/// The arguments of `tenantry verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every body is read and compared with its digest, every chain is followed, and parts and records \
                        are counted; this takes as long as reading the whole store. Exit code 2 means findings.\n\n\
                        Examples:\n  tenantry verify --store-only\n  \
                        tenantry verify --store-only --json | jq '.findings[] | select(.kind == \"altered\")'"
)]
pub struct VerifyArgs {
    /// Compare what is stored with the digests that were taken when it was stored. Comparing it with what Microsoft
    /// still holds will come later; until then this must be given
    #[arg(long)]
    pub store_only: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Verifies the store and prints what was found.
pub async fn verify(config: &Path, args: VerifyArgs) -> anyhow::Result<Exit> {
    if !args.store_only {
        let message = "comparing with what Microsoft still holds comes with a later version: write `tenantry verify \
                       --store-only`, which compares what is stored with the digests taken when it was stored";
        return Err(Ended { exit: Exit::Usage, message: message.to_owned() }.into());
    }
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let progress = Progress::of_work("reading the whole store");
    let verified = match &source {
        Source::Daemon(daemon) => daemon.work_out("store/verify").await,
        Source::Store => without_daemon(&place.client).await,
    };
    progress.clear();
    let verified = verified?;
    print_outcome(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&verified)?)
    } else {
        render(&verified, &names)
    })?;
    Ok(if verified.is_sound() { Exit::Done } else { Exit::Findings })
}

async fn without_daemon(client: &Client) -> anyhow::Result<Verification> {
    let Some(store) = opening::to_read(client, "tenantry verify").await? else {
        let message = format!("there is no store at `{}` yet: nothing was collected", client.store.path.display());
        return Err(Ended { exit: Exit::Failed, message }.into());
    };
    let verifying = tokio::task::spawn_blocking({
        let reader = store.clone();
        // A daemon that has waited long enough gets the store.
        let given_way = opening::giving_way(&store);
        move || reader.verify_while(|| !given_way.is_cancelled())
    });
    let verified = verifying.await.context("verifying panicked")?;
    let wanted = store.someone_waits();
    store.close().await?;
    match verified {
        Err(StoreError::Closed) if wanted => {
            Err(Ended { exit: Exit::TryAgain, message: opening::GIVEN_WAY.to_owned() }.into())
        }
        verified => Ok(verified?),
    }
}

/// What was read, the digests, and the findings by what they mean.
fn render(verified: &Verification, names: &BTreeMap<TenantId, String>) -> String {
    let mut text = format!(
        "read {}: {}, {}, {}\n",
        count(verified.partitions, "partition"),
        count(verified.blobs, "blob"),
        count(verified.records, "record"),
        size(verified.bytes)
    );
    if !verified.heads.is_empty() {
        text.push_str(
            "\nthe chains' heads at the beginning of each partition; the journal has the same digests \
             (`HEADS`, in the lines \"a new partition of the store was begun\"):\n",
        );
        for of in &verified.heads {
            line(&mut text, format_args!("  {}  {}", of.partition, of.heads));
        }
        line(&mut text, format_args!("  now             {}", verified.heads_now));
    }
    let mut kinds: BTreeMap<FindingKind, Vec<&Finding>> = BTreeMap::new();
    for finding in &verified.findings {
        kinds.entry(finding.kind()).or_default().push(finding);
    }
    for (kind, findings) in kinds {
        line(&mut text, format_args!("\n{} ({}): {}", kind.as_str(), findings.len(), kind.meaning()));
        if !kind.remedy().is_empty() {
            line(&mut text, format_args!("  to do: {}", kind.remedy()));
        }
        for finding in findings {
            line(&mut text, format_args!("  {}", named(&finding.to_string(), names)));
        }
    }
    if verified.more > 0 {
        line(&mut text, format_args!("\n{} not listed", count(verified.more, "further finding")));
    }
    text.push_str(if verified.is_sound() {
        "\nsound: everything is there, as it was stored\n"
    } else {
        "\nnot sound: see above\n"
    });
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// With the tenants' names beside their ids.
fn named(finding: &str, names: &BTreeMap<TenantId, String>) -> String {
    names.iter().fold(finding.to_owned(), |text, (id, name)| {
        let id = format!("`{id}`");
        text.replace(&id, &format!("{id} ({name})"))
    })
}
