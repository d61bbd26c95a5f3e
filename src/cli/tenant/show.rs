//! `tenantry tenant show`: all that is known of a tenant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::super::count::count;
use super::super::out::print;
use super::super::socket::{Place, SocketArgs, Source};
use super::super::{Exit, opening};
use super::{find, in_store, moment, refused};
use crate::clock::{Clock as _, SystemClock};
use crate::content::TenantId;
use crate::report::TenantOrigin;
use crate::tenant::roster::Refusal;
use crate::web::tenants::ShownTenant;

/// The arguments of `tenantry tenant show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry tenant show contoso\n  \
                        tenantry tenant show contoso --json | jq .watermarks")]
pub struct ShowArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn show(config: &Path, args: ShowArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let (id, _) = find(&place, &source, &args.tenant).await?;
    let shown: ShownTenant = match &source {
        Source::Daemon(daemon) => daemon.tenants(Method::GET, &format!("/{id}"), None::<&()>).await?,
        Source::Store => {
            let shown = in_store(&place.client, "tenantry tenant show", async |store, roster| {
                let member = roster.member(id).map_err(|refusal| refused(&refusal))?;
                let note = store.notes().await?.remove(&id);
                let status = opening::stopped_tenant(member, Some(store), note.as_deref(), SystemClock.now()).await?;
                Ok(ShownTenant::of(status, store).await?)
            });
            match shown.await? {
                Some(shown) => shown,
                None => without_store(&place, id).await?,
            }
        }
    };
    print(&if args.json { format!("{}\n", serde_json::to_string_pretty(&shown)?) } else { render(&shown) })?;
    Ok(Exit::Done)
}

/// What the configuration says.
async fn without_store(place: &Place, id: TenantId) -> anyhow::Result<ShownTenant> {
    let status = opening::stopped_status(&place.client).await?.tenants.into_iter().find(|tenant| tenant.id == id);
    let status = status.ok_or_else(|| refused(&Refusal::Unknown { id }))?;
    Ok(ShownTenant { status, watermarks: BTreeMap::new(), stored: BTreeMap::new() })
}

fn render(shown: &ShownTenant) -> String {
    let ShownTenant { status, watermarks, stored } = shown;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    let dash = || "-".to_owned();
    line("name", status.name.clone());
    line("id", status.id.to_string());
    for origin in &status.origins {
        let also = if Some(origin) == status.origins.first() { "from" } else { "and from" };
        line(also, told(origin));
    }
    line("cloud", status.cloud.clone());
    line("app", format!("[{}]", status.app));
    line("state", status.state.as_str().to_owned());
    if let Some(since) = status.held {
        line("paused", format!("by an operator since {}", moment(since)));
    }
    line("token until", status.token_until.map_or_else(dash, moment));
    line("last poll", status.last_poll.map_or_else(dash, moment));
    let oldest = status.queue.oldest.map(|oldest| format!(", the oldest of {}", moment(oldest)));
    line("queue", format!("{}{}", count(status.queue.entries, "blob"), oldest.unwrap_or_default()));
    let today = &status.stored_today;
    line("stored today", format!("{} in {}", count(today.records, "record"), count(today.blobs, "blob")));
    line("dead letters", status.dead_letters.to_string());
    text.push('\n');
    for content_type in status.content.keys() {
        let listed = watermarks.get(content_type).and_then(|watermark| watermark.listed_to);
        let sweep = watermarks.get(content_type).and_then(|watermark| watermark.sweep_at);
        let _ = writeln!(
            text,
            "{:<28}listed up to {}, last sweep {}, {} stored in all",
            content_type.as_str(),
            listed.map_or_else(dash, moment),
            sweep.map_or_else(dash, moment),
            count(stored.get(content_type).copied().unwrap_or(0), "blob")
        );
    }
    if let Some(known) = &status.trouble {
        let trouble = &known.trouble;
        let _ = write!(text, "\ntrouble since {}: {}\n", moment(known.since), trouble.cause);
        if !trouble.remedy.is_empty() {
            let _ = writeln!(text, "to do: {}", trouble.remedy);
        }
        for (name, value) in [("code", &trouble.code), ("correlation id", &trouble.correlation_id)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{name} {value}");
            }
        }
    }
    text
}

fn told(origin: &TenantOrigin) -> String {
    match origin {
        TenantOrigin::File { .. } => origin.to_string(),
        TenantOrigin::Consent { at } => format!("consent, on {}", moment(*at)),
        TenantOrigin::Command { at } => format!("`tenantry tenant add`, on {}", moment(*at)),
    }
}
