//! `tenantry tail`: new records as they are stored.

use std::path::Path;

use clap::Args;

use super::Exit;
use super::moment::Moment;
use crate::content::ContentType;

/// The arguments of `tenantry tail`.
#[derive(Debug, Args)]
#[command(after_help = "Records are written one a line as JSON, in the order in which they are stored.\n\n\
                        Examples:\n  tenantry tail --tenant contoso\n  \
                        tenantry tail --since 10m --content-type Audit.AzureActiveDirectory | jq .Operation")]
pub struct TailArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Only this content type, such as Audit.Exchange; may be repeated [default: all]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Vec<ContentType>,
    /// Begin with what was stored since this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
}

/// Follows the store until it is interrupted.
pub async fn tail(_config: &Path, _args: TailArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`tenantry tail` is not built yet")
}
