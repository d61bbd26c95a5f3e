//! `tenantry doctor`: why does no data arrive, and what to do about it?
//!
//! The daemon looks, if it runs: it has the credentials, the tokens and the way to Microsoft. Else this command does so by
//! itself, by the configuration, and then needs to read the credentials.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::count::count;
use super::out::{self, notice, print_outcome};
use super::socket::{Place, SocketArgs, Source};
use super::table::wrap;
use super::{Ended, Exit, opening, selection};
use crate::clock::{ServiceTime, SharedClock, SystemClock};
use crate::config;
use crate::content::TenantId;
use crate::doctor::{Diagnosis, Doctor, Examined, Finding, Seen, State};
use crate::http::Http;
use crate::report::StatusSnapshot;
use crate::tenant::Patient;
use crate::token::AppAlarms;
use crate::web::doctor::DoctorRequest;

/// Up to this many tenants are shown link by link.
const IN_FULL: usize = 3;
/// So many tenants of a finding are named.
const NAMED: usize = 10;

/// The arguments of `tenantry doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "For each tenant: clock, DNS, proxy, TLS, authority, credential, token, service, roles, audit log, \
                        subscriptions, listing, a blob, lag, quota, certificate, service health, and what the daemon knows. \
                        Nothing is started, changed or stored.\n\n\
                        Exit codes: 0 all well, 2 something is wrong\n\n\
                        Examples:\n  tenantry doctor\n  tenantry doctor --tenant contoso\n  \
                        tenantry doctor --json | jq '.findings[]'"
)]
pub struct DoctorArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Looks, and prints what was found.
pub async fn doctor(config: &Path, args: DoctorArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let diagnosis = match source {
        Source::Daemon(daemon) => {
            let status: StatusSnapshot = daemon.get("status").await?;
            let names = status.tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
            daemon.examine(&DoctorRequest { tenants: wanted(&names, &args.tenant)? }).await?
        }
        Source::Store => alone(config, &place, &args.tenant).await?,
    };
    print_outcome(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&diagnosis)?)
    } else {
        render(&diagnosis, out::screen().map_or(usize::MAX, |(columns, _)| columns))
    })?;
    Ok(if diagnosis.findings.is_empty() { Exit::Done } else { Exit::Findings })
}

/// Who is meant; nobody means all.
fn wanted(names: &BTreeMap<TenantId, String>, texts: &[String]) -> anyhow::Result<Vec<TenantId>> {
    let wanted = texts.iter().map(|text| {
        let id = selection::tenant(names, text)?;
        if names.contains_key(&id) {
            return Ok(id);
        }
        Err(Ended { exit: Exit::Usage, message: format!("nobody knows the tenant `{id}`") }.into())
    });
    wanted.collect()
}

/// Without a daemon: by the configuration and the store's register, with tokens of its own.
async fn alone(config: &Path, place: &Place, texts: &[String]) -> anyhow::Result<Diagnosis> {
    let settings = config::load(config)?;
    let roster = opening::stopped_roster(&place.client).await?;
    let wanted = wanted(&roster.names(), texts)?;
    notice("no daemon runs, so that nothing is collected; looking without it");
    let failed = |error: &dyn std::fmt::Display| Ended { exit: Exit::Config, message: error.to_string() };
    let http = Http::new(&settings.network).map_err(|error| failed(&error))?;
    let clock: SharedClock = Arc::new(SystemClock);
    let time = ServiceTime::new(Arc::clone(&clock));
    let apps = AppAlarms::new();
    let members = roster.members().filter(|member| wanted.is_empty() || wanted.contains(&member.id));
    let patients = members.map(|member| Patient::apart(&settings, member, &http, (&clock, &time), &apps)).collect();
    Ok(Doctor::new(http, clock).examine(patients).await)
}

/// A sentence, a paragraph for each finding, and how far the tenants' chains hold.
fn render(diagnosis: &Diagnosis, columns: usize) -> String {
    let mut lines = wrap(&summary(diagnosis), "", columns);
    for finding in &diagnosis.findings {
        lines.push(String::new());
        lines.extend(paragraph(finding, columns));
    }
    if diagnosis.tenants.len() <= IN_FULL {
        for tenant in &diagnosis.tenants {
            lines.push(String::new());
            lines.extend(chain(tenant, columns));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn summary(diagnosis: &Diagnosis) -> String {
    // One that cannot be collected is trouble; one that is not to be is none.
    let looked: Vec<_> = diagnosis.tenants.iter().filter(|tenant| tenant.enabled || tenant.broken.is_some()).collect();
    let idle = diagnosis.tenants.len() - looked.len();
    let troubled = looked.iter().filter(|tenant| tenant.broken.is_some()).count();
    let tenants = count(looked.len() as u64, "tenant");
    let idle = if idle > 0 { format!(", {idle} not collected") } else { String::new() };
    match (looked.len(), troubled) {
        (0, _) => format!("no tenant to look at{idle}"),
        (_, 0) => format!("{tenants}, all well{idle}"),
        (all, troubled) => {
            let findings = count(diagnosis.findings.len() as u64, "finding");
            format!("{tenants}: {} well, {troubled} with trouble, {findings}{idle}", all - troubled)
        }
    }
}

fn paragraph(finding: &Finding, columns: usize) -> Vec<String> {
    let Finding { link, trouble, tenants } = finding;
    let mut lines = wrap(&format!("{}: {}", link.as_str(), trouble.cause), "", columns);
    let remedy = match trouble.remedy.as_str() {
        "" => "nothing, it is tried again by itself; if it stays, open a support request with Microsoft",
        remedy => remedy,
    };
    lines.extend(wrap(&format!("to do: {remedy}"), "  ", columns));
    let mut facts: Vec<_> = trouble.code.iter().cloned().collect();
    facts.extend(trouble.correlation_id.as_ref().map(|id| format!("correlation id {id}")));
    if !facts.is_empty() {
        lines.extend(wrap(&facts.join(", "), "  ", columns));
    }
    let mut names: Vec<_> = tenants.iter().take(NAMED).map(|tenant| tenant.name.clone()).collect();
    if let Some(more) = tenants.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    lines.extend(wrap(&format!("{}: {}", count(tenants.len() as u64, "tenant"), names.join(", ")), "  ", columns));
    lines
}

/// A line per link.
fn chain(tenant: &Examined, columns: usize) -> Vec<String> {
    if !tenant.enabled {
        return vec![format!("{}: not collected", tenant.name)];
    }
    let mut lines = vec![format!("{}:", tenant.name)];
    for Seen { link, state, fact } in &tenant.links {
        let word = match state {
            State::Sound => "ok",
            State::Unknown => "?",
            State::Broken => "broken",
            State::NotReached => "-",
        };
        // The cause of what is broken stands above.
        let fact = if *state == State::Broken { "" } else { fact };
        let line = format!("  {word:<7} {:<14}", link.as_str());
        let mut told = wrap(fact, "", columns.saturating_sub(line.len()).max(20)).into_iter();
        lines.push(format!("{line}{}", told.next().unwrap_or_default()).trim_end().to_owned());
        lines.extend(told.map(|more| format!("{:width$}{}", "", more.trim_start(), width = line.len())));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Link, Name};
    use crate::report::Trouble;

    fn id(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    fn examined(number: u8, broken: Option<Link>) -> Examined {
        let seen = |link: Link| {
            let state = match broken.map(|broken| link.cmp(&broken)) {
                None | Some(std::cmp::Ordering::Less) => State::Sound,
                Some(std::cmp::Ordering::Equal) => State::Broken,
                Some(std::cmp::Ordering::Greater) => State::NotReached,
            };
            Seen { link, state, fact: if state == State::Sound { "a fact".to_owned() } else { String::new() } }
        };
        let links = Link::ALL.map(seen).into();
        Examined { id: id(number), name: format!("tenant-{number}"), enabled: true, broken, links }
    }

    fn diagnosis(tenants: u8) -> Diagnosis {
        let names: Vec<_> = (1..=tenants).map(|n| Name { id: id(n), name: format!("tenant-{n}") }).collect();
        let trouble = Trouble {
            code: Some("AADSTS7000222".to_owned()),
            correlation_id: Some("11111111-2222-3333-4444-555555555555".to_owned()),
            ..Trouble::for_operator("secret_expired", "the client secret of the app 7 has expired", "make a new one")
        };
        Diagnosis {
            at: "2026-11-22T12:00:00Z".parse().unwrap(),
            daemon: true,
            findings: vec![Finding { link: Link::Credential, trouble, tenants: names }],
            tenants: (1..=tenants).map(|n| examined(n, Some(Link::Credential))).collect(),
        }
    }

    #[test]
    fn a_finding_says_what_to_do_and_whom_it_concerns() {
        let text = render(&diagnosis(1), usize::MAX);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..7],
            [
                "1 tenant: 0 well, 1 with trouble, 1 finding",
                "",
                "credential: the client secret of the app 7 has expired",
                "  to do: make a new one",
                "  AADSTS7000222, correlation id 11111111-2222-3333-4444-555555555555",
                "  1 tenant: tenant-1",
                "",
            ]
        );
        assert_eq!(lines[7..9], ["tenant-1:", "  ok      clock         a fact"]);
        assert_eq!(lines[13..15], ["  broken  credential", "  -       token"]);
        assert!(
            render(&diagnosis(1), 40).lines().all(|line| line.chars().count() <= 48),
            "as narrow as the longest id"
        );
    }

    #[test]
    fn many_tenants_are_not_shown_link_by_link() {
        let text = render(&diagnosis(12), usize::MAX);
        assert!(text.contains("12 tenants: 0 well, 12 with trouble, 1 finding\n"), "{text}");
        assert!(text.contains("tenant-9, tenant-10, 2 more\n") && !text.contains("ok      clock"), "{text}");
    }

    #[test]
    fn all_well_is_a_sentence() {
        let tenants: Vec<_> = (1..=4).map(|n| Examined { enabled: n != 4, ..examined(n, None) }).collect();
        let well = Diagnosis { findings: Vec::new(), tenants, ..diagnosis(1) };
        assert_eq!(render(&well, 80), "3 tenants, all well, 1 not collected\n");
        let none = Diagnosis { tenants: Vec::new(), ..well };
        assert_eq!(render(&none, 80), "no tenant to look at\n");
    }
}
