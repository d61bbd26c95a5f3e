//! `tenantry ledger`: what was available hour by hour, and what became of it; and when nobody listed it, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use url::form_urlencoded;

use super::count::span;
use super::moment::Moment;
use super::out::{print, print_outcome};
use super::selection::{self, Selection};
use super::sheet::{number, sheet};
use super::socket::{Place, SocketArgs, Source};
use super::{Exit, opening};
use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, TenantId};
use crate::report::TenantState;
use crate::store::{Gap, GapLine, Hour, LedgerLine, StoreError, TimeBasis};
use crate::web::tenants::ListedTenant;

/// From little to much, of records in an hour.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// In an hour in which nothing was available.
const NOTHING: char = '·';
/// In one of which something waits.
const WAITS: char = '…';
/// In one of which something was lost or refused.
const LOST: char = '✗';
/// Content types whose listing was interrupted within so long of each other were interrupted together.
const NEAR: SignedDuration = SignedDuration::from_mins(15);

/// The arguments of `tenantry ledger`.
#[derive(Debug, Args)]
#[command(
    after_help = "A day is a row, an hour (UTC) of availability is a sign: ▁ to █ for few to many records of what is stored, \
                        · where nothing was available, … where something waits to be retrieved, ✗ where something was lost \
                        or cannot be retrieved. Late is what only a later listing found. Below stand the gaps: the spans of an \
                        hour or more in which nothing was listed (the daemon did not run, Microsoft refused, a clock was \
                        corrected), and when and by what they were filled later.\n\n\
                        Examples:\n  tenantry ledger\n  tenantry ledger --tenant contoso --content-type Audit.Exchange --since 30d\n  \
                        tenantry ledger --json | jq '.[] | select(.lost > 0)'\n  \
                        tenantry ledger --since 90d --json | jq '.[].gap | select(. != null)'"
)]
pub struct LedgerArgs {
    /// Which tenants and types.
    #[command(flatten)]
    pub selection: Selection,
    /// Only what was available at or after this time
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub since: Moment,
    /// Only what was available before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Print JSON: a line for each hour in which anything was available, and one with `gap` for each gap
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// A line of the JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Hour(&'a LedgerLine),
    Gap(&'a GapLine),
}

/// Prints the ledger. What was lost is a finding.
pub async fn ledger(config: &Path, args: LedgerArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let query = args.selection.query(&names)?;
    let times = (Some(args.since), args.until);
    let query = selection::between(query, TimeBasis::Available, times, SystemClock.now())?;
    let collected = collected(place.tenants(&source).await?);
    let (lines, mut gaps): (Vec<LedgerLine>, Vec<GapLine>) = match &source {
        Source::Daemon(daemon) => {
            let query = serde_json::to_string(&query)?;
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
            let lines = daemon.work_out(&format!("store/ledger?{query}")).await?;
            (lines, daemon.work_out(&format!("store/gaps?{query}")).await?)
        }
        Source::Store => match opening::to_read(&place.client, "tenantry ledger").await? {
            Some(store) => {
                let read = async {
                    Ok::<_, StoreError>((store.ledger(query.clone()).await?, store.gaps(query, false).await?))
                };
                let read = read.await;
                store.close().await?;
                read?
            }
            None => (Vec::new(), Vec::new()),
        },
    };
    gaps.retain(|line| !line.gap.goes_on || collected.contains(&(line.tenant, line.content_type)));
    let lost = lines.iter().any(|line| line.what.lost + line.what.refused > 0) || gaps.iter().any(|line| line.gap.lost);
    if args.json {
        let all: Vec<_> = lines.iter().map(Line::Hour).chain(gaps.iter().map(Line::Gap)).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else if lines.is_empty() && gaps.is_empty() {
        print_outcome("nothing was available in that time\n")?;
    } else {
        print(&render(&lines, &gaps, &names))?;
    }
    Ok(if lost { Exit::Findings } else { Exit::Done })
}

type Days = BTreeMap<Date, [Hour; 24]>;

/// What somebody is to collect: that nothing of anything else is listed is no gap.
fn collected(tenants: Vec<ListedTenant>) -> BTreeSet<(TenantId, ContentType)> {
    let wanted = tenants.into_iter().filter(|tenant| tenant.state != TenantState::Disabled);
    wanted.flat_map(|tenant| tenant.content_types.into_iter().map(move |of| (tenant.id, of))).collect()
}

/// A block for each tenant, with a row for each day of each content type, and a line for each gap.
fn render(lines: &[LedgerLine], gaps: &[GapLine], names: &BTreeMap<TenantId, String>) -> String {
    let mut tenants: BTreeMap<TenantId, BTreeMap<ContentType, Days>> = BTreeMap::new();
    for line in lines {
        let at = line.hour.to_zoned(TimeZone::UTC);
        let days = tenants.entry(line.tenant).or_default().entry(line.content_type).or_default();
        let hour = usize::try_from(at.hour()).unwrap_or_default();
        days.entry(at.date()).or_insert([Hour::default(); 24])[hour].add(&line.what);
    }
    let mut text = String::new();
    for of in gaps {
        tenants.entry(of.tenant).or_default();
    }
    for (tenant, types) in tenants {
        let name = names.get(&tenant).map_or_else(|| tenant.to_string(), |name| format!("{name} ({tenant})"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}{name}", if text.is_empty() { "" } else { "\n" });
        let any = !types.is_empty();
        let mut table = sheet([
            "content type",
            "day",
            "00    06    12    18",
            "blobs",
            "records",
            "copies",
            "late",
            "waiting",
            "lost",
        ]);
        for (content_type, days) in types {
            let most = days.values().flatten().map(|hour| hour.records).max().unwrap_or_default();
            for (day, hours) in days {
                let mut sum = Hour::default();
                for hour in &hours {
                    sum.add(hour);
                }
                table.add_row([
                    content_type.as_str().into(),
                    day.to_string().into(),
                    hours.iter().map(|hour| sign(hour, most)).collect::<String>().into(),
                    number(sum.stored.to_string()),
                    number(sum.records.to_string()),
                    number(sum.duplicates.to_string()),
                    number((sum.late_recent + sum.late_sweep).to_string()),
                    number(sum.waiting.to_string()),
                    number((sum.lost + sum.refused).to_string()),
                ]);
            }
        }
        if any {
            let _ = writeln!(text, "{table}");
        }
        let gaps: Vec<_> = gaps.iter().filter(|line| line.tenant == tenant).collect();
        if !gaps.is_empty() {
            text.push_str("not listed when it should have been:\n");
            for (gap, types) in together(&gaps) {
                let types: Vec<_> = types.iter().map(|content_type| content_type.as_str()).collect();
                let _ = writeln!(text, "  {}: {}", types.join(", "), annotated(gap));
            }
        }
    }
    text
}

/// What has interrupted several content types at once is one gap to a person; marks differ by moments.
fn together<'a>(gaps: &[&'a GapLine]) -> Vec<(&'a Gap, Vec<ContentType>)> {
    let near = |one: Timestamp, other: Timestamp| one.duration_since(other).abs() < NEAR;
    let mut groups: Vec<(&Gap, Vec<ContentType>)> = Vec::new();
    for line in gaps {
        let gap = &line.gap;
        let same = |of: &Gap| {
            let filled = (of.filled.map(|filled| filled.by), of.lost, of.goes_on);
            near(of.from, gap.from)
                && near(of.to, gap.to)
                && of.why == gap.why
                && filled == (gap.filled.map(|filled| filled.by), gap.lost, gap.goes_on)
        };
        match groups.iter_mut().find(|(of, types)| same(of) && !types.contains(&line.content_type)) {
            Some((_, types)) => types.push(line.content_type),
            None => groups.push((gap, vec![line.content_type])),
        }
    }
    groups
}

/// From when to when, why, and what became of it.
fn annotated(gap: &Gap) -> String {
    let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    let long = span(gap.to.duration_since(gap.from).as_secs());
    let to = if gap.goes_on { "now".to_owned() } else { minute(gap.to) };
    let fate = match (gap.filled, gap.lost, gap.goes_on) {
        (Some(filled), ..) => format!("filled {} by the {}", minute(filled.at), filled.by.as_str()),
        (None, true, _) => "never filled: Microsoft had ceased to list it".to_owned(),
        (None, false, true) => "goes on".to_owned(),
        (None, false, false) => "not filled yet".to_owned(),
    };
    format!("{} to {to} ({long}): {}; {fate}", minute(gap.from), gap.cause)
}

/// An hour at a glance: what is worst of it.
fn sign(hour: &Hour, most: u64) -> char {
    if hour.lost + hour.refused > 0 {
        LOST
    } else if hour.waiting > 0 {
        WAITS
    } else if hour.listed() == 0 {
        NOTHING
    } else {
        // Rounded up, so that the most is the highest and a single record is not nothing.
        let step = (hour.records * BARS.len() as u64).div_ceil(most.max(1)).max(1);
        BARS[usize::try_from(step - 1).unwrap_or_default().min(BARS.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Tier;
    use crate::store::{Filled, Why};

    #[test]
    fn an_hour_shows_what_is_worst_of_it_and_else_how_much_it_is() {
        let hour = |stored, records, waiting, lost| Hour { stored, records, waiting, lost, ..Hour::default() };
        for (hour, sign_of_it) in [
            (hour(0, 0, 0, 0), '·'),
            (hour(1, 0, 0, 0), '▁'),
            (hour(1, 1, 0, 0), '▁'),
            (hour(9, 100, 0, 0), '▁'),
            (hour(9, 101, 0, 0), '▂'),
            (hour(9, 701, 0, 0), '█'),
            (hour(9, 800, 0, 0), '█'),
            (hour(9, 800, 1, 0), '…'),
            (hour(9, 800, 1, 1), '✗'),
        ] {
            assert_eq!(sign(&hour, 800), sign_of_it, "{hour:?}");
        }
    }

    #[test]
    fn a_day_is_a_row_of_its_content_type() {
        let tenant = TenantId::from_bytes([1; 16]);
        let line = |at: &str, content_type, records, lost| LedgerLine {
            tenant,
            content_type,
            hour: at.parse().unwrap(),
            what: Hour { stored: 1, records, lost, late_sweep: 1, ..Hour::default() },
        };
        let lines = [
            line("2026-11-22T00:00:00Z", ContentType::Exchange, 8, 0),
            line("2026-11-22T23:00:00Z", ContentType::Exchange, 1, 0),
            line("2026-11-23T05:00:00Z", ContentType::Exchange, 4, 0),
            line("2026-11-22T06:00:00Z", ContentType::General, 1, 2),
        ];
        let text = render(&lines, &[], &[(tenant, "contoso".to_owned())].into());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["contoso", "(01010101-0101-0101-0101-010101010101)"]);
        for row in [
            ["Audit.Exchange", "2026-11-22", "█······················▁", "2", "9", "0", "2", "0", "0"],
            ["Audit.Exchange", "2026-11-23", "·····▄··················", "1", "4", "0", "1", "0", "0"],
            ["Audit.General", "2026-11-22", "······✗·················", "1", "1", "0", "1", "0", "2"],
        ] {
            assert!(rows.contains(&row.to_vec()), "{row:?} is not in\n{text}");
        }
    }
    #[test]
    fn a_gap_is_a_line_with_its_cause_and_what_became_of_it() {
        let tenant = TenantId::from_bytes([1; 16]);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let gap = |from: &str, to: &str, why, cause: &str| Gap::new(at(from), at(to), why, cause);
        let line = |content_type, gap: &Gap| GapLine { tenant, content_type, gap: gap.clone() };
        let slept = gap("2026-11-22T03:00:10Z", "2026-11-22T06:10:00Z", Why::NotRunning, "the daemon did not run");
        let slept = Gap { filled: Some(Filled { at: at("2026-11-22T06:11:00Z"), by: Tier::Poll }), ..slept };
        let later = Gap { from: at("2026-11-22T03:05:00Z"), ..slept.clone() };
        let lost = gap("2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z", Why::NotRunning, "the daemon did not run");
        let lost = Gap { lost: true, ..lost };
        let now = gap("2026-11-22T09:00:00Z", "2026-11-22T12:00:00Z", Why::Trouble, "Microsoft refuses the app");
        let now = Gap { goes_on: true, ..now };
        let gaps = [
            line(ContentType::Exchange, &lost),
            line(ContentType::Exchange, &slept),
            line(ContentType::General, &later),
            line(ContentType::Exchange, &now),
        ];
        let text = render(&[], &gaps, &[(tenant, "contoso".to_owned())].into());
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "not listed when it should have been:",
                "  Audit.Exchange: 2026-11-01 00:00 to 2026-11-15 00:00 (14d 0h): the daemon did not run; never filled: \
                 Microsoft had ceased to list it",
                "  Audit.Exchange, Audit.General: 2026-11-22 03:00 to 2026-11-22 06:10 (3h 9m): the daemon did not run; filled \
                 2026-11-22 06:11 by the poll",
                "  Audit.Exchange: 2026-11-22 09:00 to now (3h 0m): Microsoft refuses the app; goes on",
            ]
        );
    }
}
