//! `tenantry ledger`: what was available hour by hour, and what became of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use url::form_urlencoded;

use super::moment::Moment;
use super::out::{print, print_outcome};
use super::selection::{self, Selection};
use super::sheet::{number, sheet};
use super::socket::{Place, SocketArgs, Source};
use super::{Exit, opening};
use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, TenantId};
use crate::store::{Hour, LedgerLine, TimeBasis};

/// From little to much, of records in an hour.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// In an hour in which nothing was available.
const NOTHING: char = '·';
/// In one of which something waits.
const WAITS: char = '…';
/// In one of which something was lost or refused.
const LOST: char = '✗';

/// The arguments of `tenantry ledger`.
#[derive(Debug, Args)]
#[command(
    after_help = "A day is a row, an hour (UTC) of availability is a sign: ▁ to █ for few to many records of what is stored, \
                        · where nothing was available, … where something waits to be retrieved, ✗ where something was lost \
                        or cannot be retrieved. Late is what only a later listing found.\n\n\
                        Examples:\n  tenantry ledger\n  tenantry ledger --tenant contoso --content-type Audit.Exchange --since 30d\n  \
                        tenantry ledger --json | jq '.[] | select(.lost > 0)'"
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
    /// Print JSON: a line for each hour in which anything was available
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Prints the ledger. What was lost is a finding.
pub async fn ledger(config: &Path, args: LedgerArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let query = args.selection.query(&names)?;
    let times = (Some(args.since), args.until);
    let query = selection::between(query, TimeBasis::Available, times, SystemClock.now())?;
    let lines: Vec<LedgerLine> = match &source {
        Source::Daemon(daemon) => {
            let query = serde_json::to_string(&query)?;
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
            daemon.work_out(&format!("store/ledger?{query}")).await?
        }
        Source::Store => match opening::to_read(&place.client, "tenantry ledger").await? {
            Some(store) => {
                let lines = store.ledger(query).await;
                store.close().await?;
                lines?
            }
            None => Vec::new(),
        },
    };
    let lost = lines.iter().any(|line| line.what.lost + line.what.refused > 0);
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&lines)?))?;
    } else if lines.is_empty() {
        print_outcome("nothing was available in that time\n")?;
    } else {
        print(&render(&lines, &names))?;
    }
    Ok(if lost { Exit::Findings } else { Exit::Done })
}

type Days = BTreeMap<Date, [Hour; 24]>;

/// A block for each tenant, with a row for each day of each content type.
fn render(lines: &[LedgerLine], names: &BTreeMap<TenantId, String>) -> String {
    let mut tenants: BTreeMap<TenantId, BTreeMap<ContentType, Days>> = BTreeMap::new();
    for line in lines {
        let at = line.hour.to_zoned(TimeZone::UTC);
        let days = tenants.entry(line.tenant).or_default().entry(line.content_type).or_default();
        let hour = usize::try_from(at.hour()).unwrap_or_default();
        days.entry(at.date()).or_insert([Hour::default(); 24])[hour].add(&line.what);
    }
    let mut text = String::new();
    for (tenant, types) in tenants {
        let name = names.get(&tenant).map_or_else(|| tenant.to_string(), |name| format!("{name} ({tenant})"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}{name}", if text.is_empty() { "" } else { "\n" });
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
        let _ = writeln!(text, "{table}");
    }
    text
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
        let text = render(&lines, &[(tenant, "contoso".to_owned())].into());
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
}
