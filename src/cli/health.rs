//! `tenantry health`: what Microsoft says of its services, for each tenant; and what it has put into files beside that.

mod fetch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;

use super::out::print;
use super::socket::{Place, SocketArgs, Source};
use super::{Exit, opening, selection};
use crate::clock::{Clock as _, SystemClock};
use crate::content::TenantId;
use crate::health::{Change, Field, Health};
use crate::report::Trouble;

/// The arguments of `tenantry health`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "What is collected, `[health]` in the configuration says; it is off unless it is switched on there.\n\n\
                        Examples:\n  tenantry health --tenant contoso\n  tenantry health --history --tenant contoso\n  \
                        tenantry health --json | jq '.[] | {name, issues: [.issues[].id]}'\n  \
                        tenantry health report EX226792 --tenant contoso"
)]
pub struct HealthArgs {
    /// What to fetch, instead of showing what is kept.
    #[command(subcommand)]
    pub command: Option<HealthCommand>,
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Show what changed from one revision to the next too
    #[arg(long)]
    pub history: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// What Microsoft has put into files.
#[derive(Debug, Subcommand)]
pub enum HealthCommand {
    /// Fetch the post-incident review of an issue
    Report(fetch::ReportArgs),
    /// Fetch the attachments of a post of the Message Center
    Attachments(fetch::AttachmentsArgs),
}

/// One tenant's.
#[derive(Debug, Serialize)]
struct OfTenant {
    tenant: TenantId,
    name: String,
    #[serde(flatten)]
    health: Health,
}

/// Prints the health of the tenants, one after the other: there may be thousands.
pub async fn health(config: &Path, args: HealthArgs) -> anyhow::Result<Exit> {
    match args.command {
        Some(HealthCommand::Report(args)) => return fetch::report(config, args).await,
        Some(HealthCommand::Attachments(args)) => return fetch::attachments(config, args).await,
        None => {}
    }
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let wanted = args.tenant.iter().map(|text| selection::tenant(&names, text)).collect::<Result<Vec<_>, _>>()?;
    let tenants: Vec<_> = if wanted.is_empty() { names.keys().copied().collect() } else { wanted };
    let mut shown = Shown { json: args.json, printed: 0 };
    match &source {
        Source::Daemon(daemon) => {
            for tenant in tenants {
                let path = format!("/{tenant}/health?history={}", args.history);
                let health: Health = daemon.tenants(Method::GET, &path, None::<&()>).await?;
                shown.tenant(&names, tenant, health)?;
            }
        }
        Source::Store => {
            let enabled = place.client.outline.health;
            let Some(store) = opening::to_read(&place.client, "tenantry health").await? else {
                for tenant in tenants {
                    shown.tenant(&names, tenant, Health { enabled, ..Health::default() })?;
                }
                return shown.finish();
            };
            let now = SystemClock.now();
            for tenant in tenants {
                let (opened, history) = (store.clone(), args.history);
                let read = tokio::task::spawn_blocking(move || Health::read(&opened, tenant, history, now));
                tokio::select! {
                    health = read => shown.tenant(&names, tenant, Health { enabled, ..health?? })?,
                    () = opening::gives_way(&store) => {
                        let message = format!("not all tenants are shown: {}", opening::GIVEN_WAY);
                        return Err(super::Ended { exit: Exit::TryAgain, message }.into());
                    }
                }
            }
            store.close().await?;
        }
    }
    shown.finish()
}

struct Shown {
    json: bool,
    printed: usize,
}

impl Shown {
    fn tenant(&mut self, names: &BTreeMap<TenantId, String>, tenant: TenantId, health: Health) -> anyhow::Result<()> {
        let name = names.get(&tenant).cloned().unwrap_or_else(|| tenant.to_string());
        let text = if self.json {
            let before = if self.printed == 0 { "[\n" } else { ",\n" };
            format!("{before}{}", serde_json::to_string_pretty(&OfTenant { tenant, name, health })?)
        } else {
            format!("{}{}", if self.printed == 0 { "" } else { "\n" }, render(&name, &health))
        };
        self.printed += 1;
        Ok(print(&text)?)
    }

    fn finish(self) -> anyhow::Result<Exit> {
        match (self.json, self.printed) {
            (true, 0) => print("[]\n")?,
            (true, _) => print("\n]\n")?,
            (false, _) => {}
        }
        Ok(Exit::Done)
    }
}

/// What to do where health is off.
const SWITCH_ON: &str = "set `enabled = true` under `[health]` and run `tenantry reload`";

/// As people read it.
fn render(name: &str, health: &Health) -> String {
    let mut text = format!("{}\n", clean(name));
    // Writing to a string cannot fail.
    let mut line = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    for Trouble { cause, remedy, .. } in &health.troubles {
        line(format!("trouble: {}", clean(cause)));
        if !remedy.is_empty() {
            line(format!("to do: {}", clean(remedy)));
        }
    }
    let nothing = health.services.is_empty() && health.issues.is_empty() && health.messages.is_empty();
    match (health.enabled, nothing) {
        (false, true) => line(format!("not collected; {SWITCH_ON}")),
        (false, false) => line(format!("not collected any more, what follows may be old; {SWITCH_ON}")),
        (true, true) => line("nothing is known yet".to_owned()),
        (true, false) => {}
    }
    let (well, ill): (Vec<_>, Vec<_>) = health.services.iter().partition(|service| service.is_well());
    for service in ill {
        line(format!("{:<32}{} since {}", clean(&service.service), clean(&service.status), moment(service.since)));
    }
    if !well.is_empty() {
        line(format!("{} of {} services work", well.len(), health.services.len()));
    }
    for issue in &health.issues {
        line(format!(
            "{:<12}{}: {} ({}, changed {})",
            clean(&issue.id),
            clean(&issue.service),
            clean(&issue.title),
            clean(&issue.status),
            moment(issue.modified)
        ));
    }
    for message in &health.messages {
        let act = message.act_by.map(|at| format!(", act by {}", moment(Some(at))));
        line(format!(
            "{:<12}{} ({}, changed {}{})",
            clean(&message.id),
            clean(&message.title),
            clean(&message.category),
            moment(message.modified),
            act.unwrap_or_default()
        ));
    }
    for Change { at, id, title, fields, .. } in health.changes.iter().flatten() {
        let what = if fields.is_empty() { "first seen".to_owned() } else { listed(fields) };
        line(format!("{}  {:<12}{}: {what}", moment(*at), clean(id), clean(title)));
    }
    text
}

fn listed(fields: &[Field]) -> String {
    let told = fields.iter().map(|field| match (&field.from, &field.to) {
        (None, None) => format!("{} changed", clean(&field.name)),
        (from, to) => {
            let word = |value: &Option<String>| value.as_deref().map_or_else(|| "…".to_owned(), clean);
            format!("{} {} → {}", clean(&field.name), word(from), word(to))
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What others wrote must not steer a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Issue, Service};

    #[test]
    fn what_is_ill_is_told_in_lines_that_steer_no_terminal() {
        let at = Some("2026-11-26T12:00:00Z".parse().unwrap());
        let service = |service: &str, status: &str| Service {
            id: service.to_owned(),
            service: service.to_owned(),
            status: status.to_owned(),
            since: at,
        };
        let issue = Issue {
            id: "EX1".to_owned(),
            title: "Mail\u{1b}[31m is late".to_owned(),
            service: "Exchange Online".to_owned(),
            status: "investigating".to_owned(),
            classification: "incident".to_owned(),
            started: at,
            modified: at,
        };
        let health = Health {
            enabled: true,
            services: vec![service("Exchange Online", "serviceDegradation"), service("Teams", "serviceOperational")],
            issues: vec![issue],
            ..Health::default()
        };
        assert_eq!(
            render("contoso", &health),
            "contoso\n  Exchange Online                 serviceDegradation since 2026-11-26 12:00:00Z\n  \
             1 of 2 services work\n  \
             EX1         Exchange Online: Mail [31m is late (investigating, changed 2026-11-26 12:00:00Z)\n"
        );
        let on = Health { enabled: true, ..Health::default() };
        assert!(render("contoso", &on).contains("nothing is known yet"));
        assert!(render("contoso", &Health::default()).contains("not collected; set `enabled = true` under `[health]`"));
        let stale = Health { enabled: false, ..health };
        assert!(render("contoso", &stale).contains("not collected any more"));
    }
}
