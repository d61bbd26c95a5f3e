//! `tenantry cert`: the certificate by which the app proves who it is.

mod manifest;
mod new;
mod pair;
mod show;
mod subject;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Exit;
use super::out::OutputError;

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
pub fn cert(config: &Path, args: &CertArgs) -> anyhow::Result<Exit> {
    match &args.command {
        CertCommand::New(args) => new::new(args),
        CertCommand::Show(args) => show::show(config, args),
        CertCommand::Manifest(args) => manifest::manifest(config, args),
    }
}

/// The error of writing to `path`, with its exit code.
fn unwritten(path: &Path, error: std::io::Error) -> OutputError {
    OutputError::new(format!("`{}`", path.display()), error)
}
