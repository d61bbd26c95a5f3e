//! `tenantry notifications`: Microsoft's own history of its attempts to notify, to find out why a webhook is silent.

use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::Exit;
use super::moment::Moment;
use super::out::{print, print_outcome};
use super::sheet::{moment, sheet};
use super::socket::SocketArgs;
use super::subscription::find;
use crate::clock::{Clock as _, SystemClock};
use crate::content::ContentType;
use crate::tenant::errand::Notified;

/// The arguments of `tenantry notifications`.
#[derive(Debug, Args)]
#[command(
    after_help = "An attempt that failed was not answered with 200 in time; Microsoft tries again, and disables a webhook that \
                        goes on failing. What was notified is collected by polling too.\n\n\
                        Examples:\n  tenantry notifications contoso Audit.Exchange\n  \
                        tenantry notifications contoso Audit.Exchange --since 7d --failed"
)]
pub struct NotificationsArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Of what
    #[arg(value_name = "CONTENT TYPE")]
    pub content_type: ContentType,
    /// From when on; Microsoft tells of seven days
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: Moment,
    /// Only the attempts that failed
    #[arg(long)]
    pub failed: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Prints the attempts.
pub async fn notifications(config: &Path, args: NotificationsArgs) -> anyhow::Result<Exit> {
    let (daemon, id, name) = find(config, args.socket, &args.tenant).await?;
    let since = args.since.resolve(SystemClock.now());
    let what = format!("/{id}/notifications?content_type={}&since={since}", args.content_type);
    let mut listed: Vec<Notified> = daemon.tenants(Method::GET, &what, None::<&()>).await?;
    listed.retain(|notified| !args.failed || notified.status.as_deref() != Some("success"));
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&listed)?))?;
    } else if listed.is_empty() {
        print_outcome(&format!(
            "Microsoft tells of no such attempts to notify of {} of `{name}`\n",
            args.content_type
        ))?;
    } else {
        let mut table = sheet(["sent", "status", "available", "content"]);
        for notified in &listed {
            table.add_row([
                moment(notified.sent),
                notified.status.clone().unwrap_or_else(|| "unknown".to_owned()),
                moment(Some(notified.content_created)),
                notified.content_id.to_string(),
            ]);
        }
        print(&format!("{table}\n"))?;
    }
    Ok(Exit::Done)
}
