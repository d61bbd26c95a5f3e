//! `tenantry tenant pause` and `resume`: an operator's hold, which lasts until it is let go.

use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::super::Exit;
use super::super::out::print_outcome;
use super::super::socket::{Place, SocketArgs, Source};
use super::{find, in_store, no_store, refused};
use crate::clock::{Clock as _, SystemClock};
use crate::web::tenants::ChangedTenant;

/// The arguments of `tenantry tenant pause` and `resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Microsoft holds content for seven days: what becomes available while a tenant is paused is collected \
                        when it is resumed before then.\n\n\
                        Examples:\n  tenantry tenant pause contoso\n  tenantry tenant resume contoso"
)]
pub struct PauseArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn pause(config: &Path, args: PauseArgs) -> anyhow::Result<Exit> {
    let name = hold(config, args, true).await?;
    print_outcome(&format!("`{name}` is paused; `tenantry tenant resume` lets it go on\n"))?;
    Ok(Exit::Done)
}

pub(super) async fn resume(config: &Path, args: PauseArgs) -> anyhow::Result<Exit> {
    let name = hold(config, args, false).await?;
    print_outcome(&format!("`{name}` is not paused any more\n"))?;
    Ok(Exit::Done)
}

async fn hold(config: &Path, args: PauseArgs, held: bool) -> anyhow::Result<String> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let (id, name) = find(&place, &source, &args.tenant).await?;
    match &source {
        Source::Daemon(daemon) => {
            let what = format!("/{id}/{}", if held { "pause" } else { "resume" });
            let changed: ChangedTenant = daemon.tenants(Method::POST, &what, None::<&()>).await?;
            Ok(changed.tenant.name)
        }
        Source::Store => {
            let done = in_store(&place.client, "tenantry tenant pause", async |store, roster| {
                let member = roster.member(id).map_err(|refusal| refused(&refusal))?;
                if member.held.is_some() != held {
                    store.hold(id, held.then(|| SystemClock.now())).await?;
                }
                Ok(())
            });
            done.await?.ok_or_else(|| no_store(&place.client))?;
            Ok(name)
        }
    }
}
