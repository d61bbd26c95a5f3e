//! `tenantry tenant list`: a line per tenant, and where it comes from.

use std::path::Path;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};

use super::super::Exit;
use super::super::out::{print, print_outcome};
use super::super::socket::{Place, SocketArgs};
use super::{moment, since};
use crate::web::tenants::ListedTenant;

/// The arguments of `tenantry tenant list`.
#[derive(Debug, Args)]
#[command(after_help = "`from` is a file with its line, `consent` or `command`; of two, the first says what holds.\n\
                        `since` is when it was paused, when its trouble began, or else when it was enrolled.\n\n\
                        Examples:\n  tenantry tenant list\n  \
                        tenantry tenant list --json | jq -r '.[] | select(.held) | .name'")]
pub struct ListArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn list(config: &Path, args: ListArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let mut tenants = place.tenants(&source).await?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&tenants)?))?;
    } else if tenants.is_empty() {
        print_outcome("there are no tenants: no file names one, and none was enrolled\n")?;
    } else {
        tenants.sort_by_cached_key(|tenant| tenant.name.to_lowercase());
        print(&render(&tenants))?;
    }
    Ok(Exit::Done)
}

/// The table, and a paragraph for each tenant that cannot be collected until a person acts.
fn render(tenants: &[ListedTenant]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["name", "id", "from", "cloud", "app", "state", "since"]);
    for tenant in tenants {
        let origins: Vec<_> = tenant.origins.iter().map(ToString::to_string).collect();
        table.add_row([
            tenant.name.clone(),
            tenant.id.to_string(),
            origins.join(", "),
            tenant.cloud.clone(),
            tenant.app.clone(),
            tenant.state.as_str().to_owned(),
            since(tenant).map_or_else(|| "-".to_owned(), moment),
        ]);
    }
    let needy = tenants.iter().filter_map(|tenant| {
        let trouble = &tenant.trouble.as_ref().filter(|trouble| trouble.trouble.needs_operator)?.trouble;
        Some(format!("\n{}: {trouble}\n", tenant.name))
    });
    std::iter::once(format!("{table}\n")).chain(needy).collect()
}
