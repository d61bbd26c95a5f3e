//! `tenantry status`: a line per tenant, and what to do about trouble.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::socket::RunningDaemon;
use super::{Exit, opening};
use crate::config::{self, Settings};
use crate::report::{StatusSnapshot, TenantState, TenantStatus};

/// The arguments of `tenantry status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry status\n  tenantry status --watch\n  \
                        tenantry status --json | jq '.tenants[] | select(.trouble)'")]
pub struct StatusArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Show it again and again until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Prints the status of the running daemon, or what the store knows if it does not run.
pub async fn status(config: &Path, args: StatusArgs) -> anyhow::Result<Exit> {
    let settings = config::load(config)?;
    loop {
        let snapshot = read(&settings).await?;
        let text =
            if args.json { format!("{}\n", serde_json::to_string_pretty(&snapshot)?) } else { render(&snapshot) };
        let mut out = io::stdout().lock();
        if args.watch && !args.json && out.is_terminal() {
            // Home, then clear what the last one left below.
            out.write_all(b"\x1b[H\x1b[2J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Asks the daemon, or the store without one.
async fn read(settings: &Settings) -> anyhow::Result<StatusSnapshot> {
    match RunningDaemon::find(settings).await? {
        Some(daemon) => daemon.get("status").await,
        None => opening::stopped_status(settings).await,
    }
}

/// The sentence, the table, and a paragraph for each trouble.
pub(super) fn render(snapshot: &StatusSnapshot) -> String {
    // Writing to a string cannot fail.
    let mut text = format!("{}\n", snapshot.sentence);
    if let Some(ahead) = snapshot.host_ahead_by_seconds.filter(|ahead| ahead.abs() >= 60) {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let by = span(ahead.abs());
        let _ = writeln!(text, "this host's clock is {by} {side} Microsoft's: set it right");
    }
    if snapshot.tenants.is_empty() {
        return text;
    }
    text.push('\n');
    text.push_str(&table(snapshot).to_string());
    text.push('\n');
    for tenant in &snapshot.tenants {
        let Some(trouble) = &tenant.trouble else { continue };
        let _ = writeln!(text, "\n{}: {}", tenant.name, trouble.trouble.cause);
        if !trouble.trouble.remedy.is_empty() {
            let _ = writeln!(text, "  to do: {}", trouble.trouble.remedy);
        }
        let mut facts =
            vec![format!("since {}", moment(snapshot.at, trouble.since)), format!("{} attempts", trouble.attempts)];
        facts.extend(trouble.trouble.code.clone());
        facts.extend(trouble.trouble.correlation_id.as_ref().map(|id| format!("correlation id {id}")));
        let _ = writeln!(text, "  {}", facts.join(", "));
    }
    text
}

fn table(snapshot: &StatusSnapshot) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "tenant",
        "state",
        "token until",
        "last poll",
        "lag",
        "queue",
        "stored today",
        "last problem",
    ]);
    for tenant in &snapshot.tenants {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(&tenant.name),
            state_cell(tenant),
            Cell::new(tenant.token_until.map_or_else(dash, clock)),
            Cell::new(tenant.last_poll.map_or_else(dash, |at| moment(snapshot.at, at))),
            number(tenant.lag_seconds.map_or_else(dash, span)),
            number(tenant.queue.entries.to_string()),
            number(format!("{} records", tenant.stored_today.records)),
            Cell::new(tenant.trouble.as_ref().map_or_else(dash, |trouble| trouble.trouble.kind.clone())),
        ]);
    }
    table
}

fn state_cell(tenant: &TenantStatus) -> Cell {
    let color = match tenant.state {
        TenantState::Collecting => Color::Green,
        TenantState::Starting | TenantState::CatchingUp | TenantState::Waiting | TenantState::Throttled => {
            Color::Yellow
        }
        TenantState::Paused | TenantState::Failing | TenantState::Restarting => Color::Red,
        TenantState::Disabled | TenantState::Stopped => Color::DarkGrey,
    };
    let cell = Cell::new(tenant.state.as_str()).fg(color);
    if tenant.trouble.is_some() { cell.add_attribute(Attribute::Bold) } else { cell }
}

fn dash() -> String {
    "-".to_owned()
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

/// `12 s ago`, or the date when that is long ago.
fn moment(now: Timestamp, at: Timestamp) -> String {
    match now.duration_since(at).as_secs() {
        ago if ago < 0 => clock(at),
        ago if ago < 48 * 3600 => format!("{} ago", span(ago)),
        _ => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    }
}

/// The two largest units.
fn span(seconds: i64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m {}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        s => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}
