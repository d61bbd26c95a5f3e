//! `tenantry tenant`: who is collected.
//!
//! A running daemon is asked, and follows at once. Without one, the store's register is changed as the daemon would change
//! it, and the next start follows.

mod add;
mod invite;
mod list;
mod pause;
mod purges;
mod remove;
mod show;

use std::path::Path;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::opening::Reading;
use super::socket::{Place, Source};
use super::{Ended, Exit, opening, selection};
use crate::config::Client;
use crate::content::TenantId;
use crate::store::Store;
use crate::tenant::Roster;
use crate::tenant::roster::Refusal;
use crate::web::tenants::ListedTenant;

/// The arguments of `tenantry tenant`.
#[derive(Debug, Args)]
pub struct TenantArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TenantCommand,
}

/// The commands about tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Print a link by which a customer's administrator connects a tenant
    Invite(invite::InviteArgs),
    /// List the invites and what has become of them, or withdraw one
    Invites(invite::InvitesArgs),
    /// List the tenants, those of files and those that were enrolled
    List(list::ListArgs),
    /// Show all that is known of a tenant
    Show(show::ShowArgs),
    /// Add a tenant that needs no consent page, such as one's own
    Add(add::AddArgs),
    /// Remove a tenant that was enrolled; what was collected stays, or with --purge is erased
    Remove(remove::RemoveArgs),
    /// Show how far the erasing of tenants has come, and the receipts
    Purges(purges::PurgesArgs),
    /// Ask nothing of a tenant until it is resumed, over restarts and reloads
    Pause(pause::PauseArgs),
    /// Let a tenant be collected again
    Resume(pause::PauseArgs),
}

/// Does what is asked.
pub async fn tenant(config: &Path, args: TenantArgs) -> anyhow::Result<Exit> {
    match args.command {
        TenantCommand::Invite(args) => invite::invite(Place::of(config, args.socket.clone())?, args).await,
        TenantCommand::Invites(args) => invite::invites(Place::of(config, args.socket.clone())?, args).await,
        TenantCommand::List(args) => list::list(config, args).await,
        TenantCommand::Show(args) => show::show(config, args).await,
        TenantCommand::Add(args) => add::add(config, args).await,
        TenantCommand::Remove(args) => remove::remove(config, args).await,
        TenantCommand::Purges(args) => purges::purges(config, args).await,
        TenantCommand::Pause(args) => pause::pause(config, args).await,
        TenantCommand::Resume(args) => pause::resume(config, args).await,
    }
}

/// The tenant that is meant, by its id or its name, and what it is called.
async fn find(place: &Place, source: &Source, text: &str) -> anyhow::Result<(TenantId, String)> {
    let names = place.names(source).await?;
    let id = selection::tenant(&names, text)?;
    let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    Ok((id, name))
}

/// Work on the register while no daemon runs. `None`: there is no store.
async fn in_store<T>(
    client: &Client,
    purpose: &'static str,
    work: impl AsyncFnOnce(&Store, Roster) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    within(client, opening::to_read(client, purpose).await?, work).await
}

/// The same for what changes more than the register.
async fn in_whole_store<T>(
    client: &Client,
    purpose: &'static str,
    work: impl AsyncFnOnce(&Store, Roster) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    within(client, opening::to_write(client, purpose).await?, work).await
}

async fn within<T>(
    client: &Client,
    store: Option<Reading>,
    work: impl AsyncFnOnce(&Store, Roster) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let Some(store) = store else { return Ok(None) };
    let done = match opening::roster(client, Some(&store)).await {
        Ok(roster) => work(&store, roster).await,
        Err(error) => Err(error),
    };
    store.close().await?;
    done.map(Some)
}

/// There is nothing to write into.
fn no_store(client: &Client) -> anyhow::Error {
    let message = format!(
        "there is no store at `{}` yet, in which it would be written down: start the daemon once",
        client.store.path.display()
    );
    Ended { exit: Exit::Failed, message }.into()
}

/// The refusal with the exit code that it deserves.
fn refused(refusal: &Refusal) -> anyhow::Error {
    let exit = match refusal {
        Refusal::Unknown { .. } | Refusal::NothingToPurge { .. } | Refusal::Impossible(_) => Exit::Usage,
        Refusal::Known { .. }
        | Refusal::InFile { .. }
        | Refusal::StillInFile { .. }
        | Refusal::NotPurgedInFile { .. } => Exit::Failed,
    };
    Ended { exit, message: refusal.to_string() }.into()
}

/// Since when a tenant is as it is, as far as that is known: when it was paused, when its trouble began, when it was
/// enrolled.
fn since(tenant: &ListedTenant) -> Option<Timestamp> {
    let trouble = tenant.trouble.as_ref().map(|trouble| trouble.since);
    let enrolled = tenant.origins.iter().find_map(crate::report::TenantOrigin::enrolled);
    tenant.held.or(trouble).or(enrolled)
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
