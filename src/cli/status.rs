//! `tenantry status`: how each tenant is doing.

use std::path::Path;

use clap::Args;

use super::Exit;

/// The arguments of `tenantry status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry status\n  tenantry status --watch\n  \
                        tenantry status --json | jq '.tenants[] | select(.trouble)'")]
pub struct StatusArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Show it again and again until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Prints the status of the running daemon, or what the store knows if it does not run.
pub async fn status(_config: &Path, _args: StatusArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`tenantry status` is not built yet")
}
