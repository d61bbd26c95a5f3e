//! `tenantry verify`: has everything that Microsoft still holds been collected, and is everything that was stored still there
//! and as it was stored?
//!
//! The daemon asks Microsoft, with the tokens that it has. While none runs, this command does so by itself, and then needs to
//! read the credentials.

mod alone;
mod told;

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use url::form_urlencoded;

use super::out::print_outcome;
use super::progress::Progress;
use super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::{Ended, Exit, selection};
use crate::content::TenantId;
use crate::store::{Query, Verification};
use crate::tenant::inventory::Inventory;

/// So many tenants are listed at a time; the daemon takes no more.
const AT_A_TIME: usize = crate::web::inventory::AT_A_TIME;

/// The arguments of `tenantry verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "The last seven days are listed once more at Microsoft, for every tenant and content type that is \
                        collected, and compared with what is stored, queued or given up; what is missing is named, and queued. \
                        Some of the blobs that were fetched within two minutes of their creation are fetched again. Then \
                        every body is read and compared with its digest, every chain is followed, and parts and records \
                        are counted; this takes as long as reading the whole store. Throttling is waited for. Exit code 2 \
                        means findings.\n\n\
                        Examples:\n  tenantry verify\n  tenantry verify --tenant contoso\n  \
                        tenantry verify --json | jq '.tenants[] | select(.complete | not) | .sentence'\n  \
                        tenantry verify --store-only --json | jq '.findings[] | select(.kind == \"altered\")'"
)]
pub struct VerifyArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Do not ask Microsoft: only compare what is stored with the digests that were taken when it was stored
    #[arg(long)]
    pub store_only: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Verifies, and prints what was found.
pub async fn verify(config: &Path, args: VerifyArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let wanted: BTreeSet<_> =
        args.tenant.iter().map(|text| selection::tenant(&names, text)).collect::<Result<_, _>>()?;
    if args.store_only {
        let progress = Progress::of_work("reading the store");
        let verified = match &source {
            Source::Daemon(daemon) => of_store(daemon, &wanted).await,
            Source::Store => alone::of_store(&place.client, &wanted).await,
        };
        progress.clear();
        let verified = verified?;
        print_outcome(&if args.json {
            format!("{}\n", serde_json::to_string_pretty(&verified)?)
        } else {
            told::of_store(&verified, &names)
        })?;
        return Ok(if verified.is_sound() { Exit::Done } else { Exit::Findings });
    }
    if let Some(stranger) = wanted.iter().find(|id| !names.contains_key(id)) {
        let message = format!("nobody knows the tenant `{stranger}`: `--store-only` verifies what is stored of it");
        return Err(Ended { exit: Exit::Usage, message }.into());
    }
    let progress = Progress::of_work("listing what Microsoft holds, and reading the store");
    let done = match &source {
        Source::Daemon(daemon) => {
            let tenants: Vec<_> = names.keys().filter(|id| wanted.is_empty() || wanted.contains(id)).copied().collect();
            tokio::try_join!(of_tenants(daemon, tenants), of_store(daemon, &wanted))
        }
        Source::Store => alone::all(config, &place.client, &wanted).await,
    };
    progress.clear();
    let (inventories, verified) = done?;
    let all = told::All::new(inventories, verified);
    print_outcome(&if args.json { format!("{}\n", serde_json::to_string_pretty(&all)?) } else { all.render(&names) })?;
    Ok(if all.is_sound() { Exit::Done } else { Exit::Findings })
}

/// The daemon lists.
async fn of_tenants(daemon: &RunningDaemon, tenants: Vec<TenantId>) -> anyhow::Result<Vec<Inventory>> {
    let taken = stream::iter(tenants).map(|id| daemon.take_inventory(id)).buffered(AT_A_TIME);
    taken.try_collect().await
}

/// The daemon reads its store.
async fn of_store(daemon: &RunningDaemon, wanted: &BTreeSet<TenantId>) -> anyhow::Result<Verification> {
    let query = Query { tenants: wanted.iter().copied().collect(), ..Query::default() };
    let query = serde_json::to_string(&query)?;
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
    daemon.work_out(&format!("store/verify?{query}")).await
}
