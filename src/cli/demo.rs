//! `tenantry demo`: the real daemon against a simulated Microsoft cloud.

use clap::Args;

use super::Exit;

/// The arguments of `tenantry demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs until it is interrupted.
pub async fn demo(_args: DemoArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`tenantry demo` is not built yet")
}
