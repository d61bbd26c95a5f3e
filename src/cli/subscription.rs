//! `tenantry subscription`: what a tenant is subscribed to at Microsoft, and changes of that by hand.
//!
//! The daemon starts what it needs by itself; this is for looking, and for what it leaves alone.

use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::out::{print, print_outcome};
use super::sheet::{moment, sheet};
use super::socket::{Place, RunningDaemon, SocketArgs};
use super::{Exit, selection};
use crate::content::{ContentType, TenantId};
use crate::tenant::errand::{ListedSubscription, ListedWebhook};
use crate::tenant::farewell::Stopped;

/// The arguments of `tenantry subscription`.
#[derive(Debug, Args)]
pub struct SubscriptionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SubscriptionCommand,
}

/// The commands about subscriptions.
#[derive(Debug, Subcommand)]
pub enum SubscriptionCommand {
    /// List the subscriptions of a tenant, and where their notifications go
    List(ListArgs),
    /// Start a subscription, with or without the webhook; Microsoft wants 15 minutes between two starts
    Start(StartArgs),
    /// Stop a subscription whose content is not collected
    Stop(StopArgs),
}

/// The arguments of `tenantry subscription list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry subscription list contoso\n  \
                        tenantry subscription list contoso --json | jq '.[] | select(.webhook.serves | not)'")]
pub struct ListArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The arguments of `tenantry subscription start`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --webhook, a webhook that the subscription has is dropped; the daemon registers its own again.\n\n\
                        Examples:\n  tenantry subscription start contoso Audit.Exchange\n  \
                        tenantry subscription start contoso DLP.All --webhook"
)]
pub struct StartArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// To what
    #[arg(value_name = "CONTENT TYPE")]
    pub content_type: ContentType,
    /// Let Microsoft notify this daemon of new content
    #[arg(long)]
    pub webhook: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The arguments of `tenantry subscription stop`.
#[derive(Debug, Args)]
#[command(
    after_help = "What becomes available between a stop and the next start can never be retrieved, by nobody: other software \
                        of the same app loses it too.\n\n\
                        Examples:\n  tenantry subscription stop contoso DLP.All"
)]
pub struct StopArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// To what
    #[arg(value_name = "CONTENT TYPE")]
    pub content_type: ContentType,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Does what is asked.
pub async fn subscription(config: &Path, args: SubscriptionArgs) -> anyhow::Result<Exit> {
    match args.command {
        SubscriptionCommand::List(args) => list(config, args).await,
        SubscriptionCommand::Start(args) => start(config, args).await,
        SubscriptionCommand::Stop(args) => stop(config, args).await,
    }
}

/// The daemon, which alone has tokens, and the tenant that is meant.
pub(super) async fn find(
    config: &Path,
    socket: SocketArgs,
    tenant: &str,
) -> anyhow::Result<(RunningDaemon, TenantId, String)> {
    let (daemon, names) = Place::of(config, socket)?.daemon_with_tokens().await?;
    let id = selection::tenant(&names, tenant)?;
    let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    Ok((daemon, id, name))
}

async fn list(config: &Path, args: ListArgs) -> anyhow::Result<Exit> {
    let (daemon, id, name) = find(config, args.socket, &args.tenant).await?;
    let what = format!("/{id}/subscriptions");
    let listed: Vec<ListedSubscription> = daemon.tenants(Method::GET, &what, None::<&()>).await?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&listed)?))?;
    } else if listed.is_empty() {
        print_outcome(&format!("`{name}` has no subscriptions\n"))?;
    } else {
        print(&render(&listed))?;
    }
    Ok(Exit::Done)
}

async fn start(config: &Path, args: StartArgs) -> anyhow::Result<Exit> {
    let (daemon, id, name) = find(config, args.socket, &args.tenant).await?;
    let what = format!("/{id}/subscriptions/{}/start?webhook={}", args.content_type, args.webhook);
    let started: ListedSubscription = daemon.tenants(Method::POST, &what, None::<&()>).await?;
    let how = if started.enabled { "started" } else { "asked for, and not enabled" };
    print_outcome(&format!("the subscription of `{name}` to {} is {how}\n", started.content_type))?;
    Ok(if started.enabled { Exit::Done } else { Exit::Failed })
}

async fn stop(config: &Path, args: StopArgs) -> anyhow::Result<Exit> {
    let (daemon, id, name) = find(config, args.socket, &args.tenant).await?;
    let what = format!("/{id}/subscriptions/{}/stop", args.content_type);
    let stopped: Stopped = daemon.tenants(Method::POST, &what, None::<&()>).await?;
    print_outcome(&format!("the subscription of `{name}` to {} is stopped\n", stopped.content_type))?;
    Ok(Exit::Done)
}

fn render(listed: &[ListedSubscription]) -> String {
    let mut table = sheet(["content type", "subscription", "collected", "webhook", "notifies", "until"]);
    for subscription in listed {
        let told = |webhook: &ListedWebhook| {
            let status = webhook.status.clone().unwrap_or_else(|| "unknown".to_owned());
            if webhook.serves { format!("{status}, ours") } else { status }
        };
        let webhook = subscription.webhook.as_ref();
        table.add_row([
            subscription.content_type.to_string(),
            if subscription.enabled { "enabled" } else { "disabled" }.to_owned(),
            if subscription.collected { "yes" } else { "no" }.to_owned(),
            webhook.map_or_else(|| "-".to_owned(), told),
            webhook.map_or_else(|| "-".to_owned(), |webhook| webhook.address.clone()),
            moment(webhook.and_then(|webhook| webhook.expiration)),
        ]);
    }
    format!("{table}\n")
}
