//! `tenantry backfill`: a span of a tenant is listed again, and what is not stored yet is queued and retrieved.
//!
//! The daemon does it, if it runs. Else this command opens the store and does by itself what the daemon would.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use tokio::time::sleep;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use url::form_urlencoded;

use super::count::count;
use super::moment::Moment;
use super::out::{notice, print_outcome};
use super::progress::Progress;
use super::selection;
use super::sheet::{number, sheet};
use super::single::{Ending, Single};
use super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::{Ended, Exit};
use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, NotSubscribable, TenantId, subscribable};
use crate::report::StatusSnapshot;
use crate::store::{Hour, LedgerLine, Query, Store, TimeBasis};
use crate::tenant::Assignment;
use crate::tenant::backfill::{BackfillError, Backfilled, Found, Wish, not_collected};

/// How often it is looked whether all is stored.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long a run of one's own waits for what does not come.
const PATIENCE: Duration = Duration::from_mins(2);

/// The arguments of `tenantry backfill`.
#[derive(Debug, Args)]
#[command(
    after_help = "Microsoft lists what became available in the last seven days; times are those of availability. What is \
                        stored, queued or given up already is known and left alone, so that this may be run again. The daemon \
                        sweeps the seven days by itself every six hours.\n\n\
                        Exit codes: 0 all of it was listed, and with --wait stored, 1 something needs a person, or was given \
                        up, 75 the rest cannot be had now: run it again\n\n\
                        Examples:\n  tenantry backfill --tenant contoso --since 7d --wait\n  \
                        tenantry backfill --tenant contoso --since 2026-11-22T08:00:00Z --until 2026-11-22T12:00:00Z \
                        --content-type Audit.Exchange"
)]
pub struct BackfillArgs {
    /// The tenant, by its id or its name
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: String,
    /// List what became available at or after this time
    #[arg(long, value_name = "TIME")]
    pub since: Moment,
    /// List what became available before this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Only this content type, such as Audit.Exchange; may be repeated [default: all that are collected]
    #[arg(long, value_name = "TYPE", value_parser = audit)]
    pub content_type: Vec<ContentType>,
    /// Wait until what was available in that time is stored
    #[arg(long)]
    pub wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

fn audit(text: &str) -> Result<ContentType, NotSubscribable> {
    subscribable(text)
}

/// Lists, and says what was found.
pub async fn backfill(config: &Path, args: BackfillArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket.clone())?;
    match place.source().await? {
        Source::Daemon(daemon) => by_daemon(daemon, &args).await,
        Source::Store => alone(config, &args).await,
    }
}

fn wish(args: &BackfillArgs, now: Timestamp) -> Wish {
    Wish {
        since: args.since.resolve(now),
        until: args.until.map(|until| until.resolve(now)),
        content_types: args.content_type.iter().copied().collect(),
    }
}

async fn by_daemon(daemon: RunningDaemon, args: &BackfillArgs) -> anyhow::Result<Exit> {
    let status: StatusSnapshot = daemon.get("status").await?;
    let names = status.tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
    let id = selection::tenant(&names, &args.tenant)?;
    let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    let lost = async |query: &Query| anyhow::Ok(in_daemon(&daemon, query).await?.lost);
    let wish = wish(args, SystemClock.now());
    let before = if args.wait { lost(&query(id, &wish.content_types, wish.since, wish.until)).await? } else { 0 };
    let progress = Progress::of_work("listing");
    let backfilled: anyhow::Result<Backfilled> =
        daemon.tenants(Method::POST, &format!("/{id}/backfill"), Some(&wish)).await;
    progress.clear();
    let backfilled = backfilled?;
    tell(&name, &backfilled, args.json)?;
    if !args.wait {
        return Ok(listed(&backfilled));
    }
    let query = of(id, &backfilled);
    let progress = Progress::of_work("waiting until it is stored");
    let what = loop {
        let what = in_daemon(&daemon, &query).await?;
        if what.waiting == 0 {
            break what;
        }
        sleep(LOOK_EVERY).await;
    };
    progress.clear();
    Ok(stored(&what, before).unwrap_or_else(|| listed(&backfilled)))
}

async fn in_daemon(daemon: &RunningDaemon, query: &Query) -> anyhow::Result<Hour> {
    let query = serde_json::to_string(query)?;
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
    Ok(sum(&daemon.work_out::<Vec<LedgerLine>>(&format!("store/ledger?{query}")).await?))
}

async fn alone(config: &Path, args: &BackfillArgs) -> anyhow::Result<Exit> {
    let tenants = [args.tenant.clone()];
    let log = BoxMakeWriter::new(io::stderr);
    // Who does not wait wants it to be queued, and no more.
    let assignment = if args.wait { Assignment::Queue } else { Assignment::Nothing };
    let mut single = Single::start(config, "tenantry backfill", assignment, &tenants, log).await?;
    let done = with(&mut single, args).await;
    let ending = match &done {
        Ok((ending, _)) => *ending,
        Err(_) => Ending::Over,
    };
    single.end(ending).await?;
    let (ending, exit) = done?;
    if let Some(told) = ending.told() {
        notice(told);
    }
    Ok(match ending {
        Ending::Over => exit,
        Ending::Failed(exit) => exit,
        Ending::Stopped | Ending::GaveWay => Exit::TryAgain,
    })
}

async fn with(single: &mut Single, args: &BackfillArgs) -> anyhow::Result<(Ending, Exit)> {
    let Some(member) = single.roster.members().next().cloned() else { return Ok((Ending::Over, Exit::Done)) };
    let wish = wish(args, single.shared.report.now());
    let Some(backfill) = single.registry.backfill(member.id) else { return Err(ended(&not_collected(&member))) };
    let store = single.shared.store.clone();
    let before = in_store(&store, &query(member.id, &wish.content_types, wish.since, wish.until)).await?.lost;
    // What is stored while it is listed would be known or not by chance.
    single.registry.let_retrieve(false);
    let backfilled = match single.during(backfill.list(&wish)).await {
        Ok(backfilled) => backfilled.map_err(|error| ended(&error))?,
        Err(ending) => return Ok((ending, Exit::TryAgain)),
    };
    tell(&member.name, &backfilled, args.json)?;
    let query = of(member.id, &backfilled);
    if !args.wait {
        let waiting = in_store(&store, &query).await?.waiting;
        if waiting > 0 {
            notice(&format!(
                "no daemon runs: {} until `tenantry run` or `tenantry collect-once` retrieves them, or this with `--wait`",
                if waiting == 1 { "1 blob waits".to_owned() } else { format!("{waiting} blobs wait") }
            ));
        }
        return Ok((Ending::Over, listed(&backfilled)));
    }
    let progress = Progress::of_work("retrieving");
    let (ending, look) = single.wait(PATIENCE, |_| {}).await;
    progress.clear();
    let what = in_store(&store, &query).await?;
    if what.waiting > 0 && ending == Ending::Over {
        let why = look.status.tenants.iter().find_map(|tenant| tenant.trouble.as_ref());
        let why = why.map(|known| format!(": {}", known.trouble)).unwrap_or_default();
        notice(&format!("{} cannot be retrieved now{why}", count(what.waiting, "blob")));
    }
    Ok((ending, stored(&what, before).unwrap_or_else(|| listed(&backfilled))))
}

async fn in_store(store: &Store, query: &Query) -> anyhow::Result<Hour> {
    Ok(sum(&store.ledger(query.clone()).await?))
}

fn ended(error: &BackfillError) -> anyhow::Error {
    let exit = match error {
        BackfillError::NotCollected { .. } => Exit::Failed,
        BackfillError::Store(_) => Exit::TryAgain,
        _ => Exit::Usage,
    };
    Ended { exit, message: error.to_string() }.into()
}

/// What was available in the span that was listed.
fn of(tenant: TenantId, backfilled: &Backfilled) -> Query {
    query(tenant, &backfilled.content.keys().copied().collect(), backfilled.since, Some(backfilled.until))
}

fn query(tenant: TenantId, content_types: &BTreeSet<ContentType>, since: Timestamp, until: Option<Timestamp>) -> Query {
    let content_types = content_types.iter().copied().collect();
    Query {
        tenants: vec![tenant],
        content_types,
        since: Some(since),
        until,
        by: TimeBasis::Available,
        ..Query::default()
    }
}

fn sum(lines: &[LedgerLine]) -> Hour {
    lines.iter().fold(Hour::default(), |mut sum, line| {
        sum.add(&line.what);
        sum
    })
}

/// What the listing deserves.
fn listed(backfilled: &Backfilled) -> Exit {
    let found = || backfilled.content.values();
    let person = |found: &Found| found.trouble.as_ref().is_some_and(|trouble| trouble.needs_operator);
    if found().any(person) || found().any(|found| found.refused > 0) {
        Exit::Failed
    } else if found().any(|found| found.trouble.is_some()) {
        Exit::TryAgain
    } else {
        Exit::Done
    }
}

/// What became of what was found, if that is nothing good.
fn stored(what: &Hour, lost_before: u64) -> Option<Exit> {
    if what.lost > lost_before {
        notice(&format!("{} given up meanwhile; the log says which and why", count(what.lost - lost_before, "blob")));
        return Some(Exit::Failed);
    }
    (what.waiting > 0).then_some(Exit::TryAgain)
}

fn tell(name: &str, backfilled: &Backfilled, json: bool) -> anyhow::Result<()> {
    let text = if json { format!("{}\n", serde_json::to_string_pretty(backfilled)?) } else { render(name, backfilled) };
    Ok(print_outcome(&text)?)
}

fn render(name: &str, backfilled: &Backfilled) -> String {
    let at = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut lines = vec![format!("`{name}` from {} to {}", at(backfilled.since), at(backfilled.until))];
    let mut table = sheet(["content type", "found", "known", "queued"]);
    let mut all = Found::default();
    for (content_type, found) in &backfilled.content {
        table.add_row([
            content_type.to_string().into(),
            number(found.found.to_string()),
            number(found.known.to_string()),
            number(found.queued.to_string()),
        ]);
        all.found += found.found;
        all.known += found.known;
        all.queued += found.queued;
    }
    lines.push(table.to_string());
    let mut troubles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (content_type, found) in &backfilled.content {
        if found.refused > 0 {
            let what = "entries are listed so that nobody could retrieve them, and are dead letters; the log says how";
            troubles.entry(what.to_owned()).or_default().push(content_type.to_string());
        }
        if let Some(trouble) = &found.trouble {
            troubles.entry(format!("not listed to the end: {trouble}")).or_default().push(content_type.to_string());
        }
    }
    lines.extend(troubles.into_iter().map(|(told, of)| format!("{}: {told}", of.join(", "))));
    let Found { found, known, queued, .. } = all;
    lines.push(format!("{} found, {known} known, {queued} queued", count(found, "blob")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Trouble;

    fn backfilled(trouble: Option<Trouble>) -> Backfilled {
        let found = Found { found: 5, known: 3, queued: 2, refused: 0, trouble: None };
        let broken = Found { trouble, ..Found::default() };
        Backfilled {
            since: "2026-11-15T12:40:00Z".parse().unwrap(),
            until: "2026-11-22T12:34:53Z".parse().unwrap(),
            content: [(ContentType::Exchange, found), (ContentType::General, broken)].into(),
        }
    }

    #[test]
    fn it_says_what_was_found_and_what_was_not_listed() {
        let text = render("contoso", &backfilled(Some(Trouble::passing("http_503", "the service answers 503"))));
        assert!(text.starts_with("`contoso` from 2026-11-15 12:40:00 UTC to 2026-11-22 12:34:53 UTC\n"), "{text}");
        assert!(text.contains("Audit.General: not listed to the end: the service answers 503\n"), "{text}");
        assert!(text.ends_with("\n5 blobs found, 3 known, 2 queued\n"), "{text}");
    }

    #[test]
    fn the_exit_code_says_who_must_act() {
        assert_eq!(listed(&backfilled(None)), Exit::Done);
        assert_eq!(listed(&backfilled(Some(Trouble::passing("http_503", "503")))), Exit::TryAgain);
        assert_eq!(listed(&backfilled(Some(Trouble::for_operator("role", "none", "consent")))), Exit::Failed);
        let hour = Hour { lost: 2, ..Hour::default() };
        assert_eq!((stored(&hour, 2), stored(&hour, 1)), (None, Some(Exit::Failed)));
        assert_eq!(stored(&Hour { waiting: 1, ..hour }, 2), Some(Exit::TryAgain));
    }
}
