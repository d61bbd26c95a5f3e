//! `tenantry run`: the daemon.

use std::path::Path;

use clap::Args;

use super::Exit;

/// The arguments of `tenantry run`.
#[derive(Debug, Args)]
#[command(after_help = "Signals: SIGTERM and SIGINT stop in order, a second one at once; SIGHUP reads the \
                        configuration again and keeps the old one if the new one has a problem.\n\n\
                        Examples:\n  tenantry run\n  tenantry run --config ./tenantry.toml")]
pub struct RunArgs {
    /// Let a reload remove more than 10 tenants and more than 10 % of them; otherwise such a reload is refused,
    /// because a file that is missing looks the same
    #[arg(long)]
    pub allow_removal: bool,
}

/// Runs until it is told to stop.
pub async fn run(_config: &Path, _args: RunArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`tenantry run` is not built yet")
}
