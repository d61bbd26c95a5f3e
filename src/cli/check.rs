//! `tenantry check`: is the configuration valid, and what is in effect?

use std::path::Path;

use clap::Args;

use super::Exit;
use crate::config;

/// The arguments of `tenantry check`.
#[derive(Debug, Args)]
pub struct CheckArgs {}

/// Validates the configuration and prints it.
pub fn check(config: &Path, _args: &CheckArgs) -> anyhow::Result<Exit> {
    config::load(config)?;
    Ok(Exit::Done)
}
