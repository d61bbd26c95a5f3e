//! `tenantry cert`: the certificate by which the app proves who it is.

mod manifest;
mod new;
mod pair;
mod show;
mod subject;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Exit;
use super::out::{OutputError, notice};
use super::socket::{Place, SocketArgs};
use crate::config::Settings;
use crate::content::TenantId;
use crate::report::TenantOrigin;
use crate::web::tenants::ListedTenant;

/// The arguments of `tenantry cert`.
#[derive(Debug, Args)]
pub struct CertArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CertCommand,
}

/// The commands about certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a key and a self-signed certificate for the app registration
    New(new::NewArgs),
    /// Show certificates as Entra shows them: those of the configuration and who uses them, or those in files
    Show(show::ShowArgs),
    /// Print the app registration's manifest: certificates, permissions, redirect URIs
    Manifest(manifest::ManifestArgs),
}

/// Does what is asked.
pub async fn cert(config: &Path, args: &CertArgs) -> anyhow::Result<Exit> {
    match &args.command {
        CertCommand::New(args) => new::new(args),
        CertCommand::Show(args) => show::show(config, args).await,
        CertCommand::Manifest(args) => manifest::manifest(config, args).await,
    }
}

/// Whose tokens a certificate is for.
#[derive(Debug)]
struct User {
    id: TenantId,
    name: String,
    cloud: String,
    /// `app` or `apps.NAME`.
    app: String,
}

/// The tenants of the configuration, and those that were enrolled, as the daemon or the store knows them.
async fn users(config: &Path, settings: &Settings) -> Vec<User> {
    let mut users: Vec<_> = settings
        .tenants
        .values()
        .map(|tenant| {
            let app = settings.apps.get(&tenant.app).map_or_else(String::new, |app| app.section());
            User { id: tenant.id, name: tenant.name.clone(), cloud: tenant.cloud.name.clone(), app }
        })
        .collect();
    match enrolled(config).await {
        Ok(enrolled) => users.extend(enrolled.into_iter().filter(|one| !settings.tenants.contains_key(&one.id))),
        Err(error) => notice(&format!("tenants that were enrolled are left out: {error:#}")),
    }
    users
}

async fn enrolled(config: &Path) -> anyhow::Result<Vec<User>> {
    let place = Place::of(config, SocketArgs { socket: None })?;
    let tenants = place.tenants(&place.source().await?).await?.into_iter();
    let enrolled = tenants.filter(|one| !matches!(one.origins.first(), Some(TenantOrigin::File { .. })));
    Ok(enrolled.map(|ListedTenant { id, name, cloud, app, .. }| User { id, name, cloud, app }).collect())
}

/// The error of writing to `path`, with its exit code.
fn unwritten(path: &Path, error: std::io::Error) -> OutputError {
    OutputError::new(format!("`{}`", path.display()), error)
}
