//! `tenantry tenant invite` and `invites`: links by which customers connect their tenants.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::to_string_pretty;

use super::super::count::count;
use super::super::out::print_outcome;
use super::super::sheet::{moment, sheet};
use super::super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::super::{Ended, Exit};
use crate::config::duration;
use crate::consent::wanted::{InviteState, InviteStatus, Invited, Wanted};
use crate::content::{ContentType, TenantId, subscribable};

/// The arguments of `tenantry tenant invite`.
#[derive(Debug, Args)]
#[command(after_help = "The link is shown once; the store has only its hash. It is good once, for one tenant: whose \
                        administrator signs in and consents. `[public]` must be configured.\n\n\
                        Examples:\n  tenantry tenant invite --name contoso\n  \
                        tenantry tenant invite --name contoso --tenant-id 11111111-2222-3333-4444-555555555555 --expires 24h")]
pub struct InviteArgs {
    /// What the tenant will be called
    #[arg(long)]
    pub name: String,
    /// The only tenant that may follow the link: its Directory (tenant) ID
    #[arg(long, value_name = "GUID")]
    pub tenant_id: Option<TenantId>,
    /// The cloud in which the customer signs in; `worldwide` unless named
    #[arg(long)]
    pub cloud: Option<String>,
    /// The app that is consented to, a NAME of `[apps.NAME]`; unless named that of the cloud, or `[app]`
    #[arg(long)]
    pub app: Option<String>,
    /// What will be collected; repeat it for several. The four `Audit` types unless named
    #[arg(long, value_name = "TYPE", value_parser = subscribable)]
    pub content_type: Vec<ContentType>,
    /// For how long the link is good: 5m to 30d
    #[arg(long, value_name = "SPAN", default_value = "72h", value_parser = duration::parse)]
    pub expires: Duration,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The arguments of `tenantry tenant invites`.
#[derive(Debug, Args)]
pub struct InvitesArgs {
    /// Let the link of this invite lead nowhere: its id, or how it begins
    #[arg(long, value_name = "ID")]
    pub withdraw: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Makes an invite and prints its link.
pub(super) async fn invite(place: Place, args: InviteArgs) -> anyhow::Result<Exit> {
    let wanted = Wanted {
        name: args.name,
        tenant: args.tenant_id,
        cloud: args.cloud,
        app: args.app,
        content_types: args.content_type.into_iter().collect::<BTreeSet<_>>(),
        expires_in: Some(args.expires.as_secs()),
    };
    let invited: Invited = daemon(&place).await?.post("invites", &wanted).await?;
    if args.json {
        print_outcome(&format!("{}\n", to_string_pretty(&invited)?))?;
        return Ok(Exit::Done);
    }
    print_outcome(&format!(
        "{}\n\nSend this link to an administrator of {}. It is good once, until {:.0}, and is not shown again.\n\
         `tenantry tenant invites` follows what becomes of it; `--withdraw {}` ends it.\n",
        invited.link,
        wanted.name.trim(),
        invited.expires,
        invited.id.short()
    ))?;
    Ok(Exit::Done)
}

/// Lists invites, or withdraws one.
pub(super) async fn invites(place: Place, args: InvitesArgs) -> anyhow::Result<Exit> {
    let daemon = daemon(&place).await?;
    let invites: Vec<InviteStatus> = daemon.get("invites").await?;
    if let Some(begin) = args.withdraw {
        let found: Vec<_> =
            invites.iter().filter(|invite| !begin.is_empty() && invite.id.to_string().starts_with(&begin)).collect();
        let [invite] = found.as_slice() else {
            let message = match found.len() {
                0 => format!("there is no invite whose id begins with `{begin}`; `tenantry tenant invites` lists them"),
                several => format!("{several} invites have ids that begin with `{begin}`; write more of it"),
            };
            return Err(Ended { exit: Exit::Usage, message }.into());
        };
        daemon.delete(&format!("invites/{}", invite.id)).await?;
        print_outcome(&format!("the link for {} leads nowhere any more\n", invite.name))?;
        return Ok(Exit::Done);
    }
    if args.json {
        print_outcome(&format!("{}\n", to_string_pretty(&invites)?))?;
        return Ok(Exit::Done);
    }
    if invites.is_empty() {
        print_outcome("there are no invites; `tenantry tenant invite --name NAME` makes one\n")?;
        return Ok(Exit::Done);
    }
    let mut table = sheet(["invite", "name", "state", "tenant", "expires"]);
    for invite in &invites {
        let tenant = invite.tenant.map_or_else(|| "-".to_owned(), |tenant| tenant.to_string());
        let expires = match invite.state {
            InviteState::Open | InviteState::Expired => moment(Some(invite.expires)),
            InviteState::Proving | InviteState::Done => "-".to_owned(),
        };
        table.add_row([invite.id.short(), invite.name.clone(), invite.state.as_str().to_owned(), tenant, expires]);
    }
    let mut text = table.to_string();
    for invite in &invites {
        if let Some(trouble) = &invite.trouble {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{}: {trouble}", invite.name);
        }
    }
    let open = invites.iter().filter(|invite| invite.state == InviteState::Open).count();
    let _ = writeln!(text, "\n{}, {open} open", count(invites.len() as u64, "invite"));
    print_outcome(&text)?;
    Ok(Exit::Done)
}

/// Links lead to the daemon's pages.
async fn daemon(place: &Place) -> anyhow::Result<RunningDaemon> {
    match place.source().await? {
        Source::Daemon(daemon) => Ok(daemon),
        Source::Store => Err(Ended {
            exit: Exit::Unavailable,
            message: "no daemon is running, so that a link would lead nowhere; start it (`systemctl start tenantry`)"
                .to_owned(),
        }
        .into()),
    }
}
