//! `tenantry status`: a line per tenant, and what to do about trouble.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::out::{self, print};
use super::socket::{Place, SocketArgs, Source};
use super::table::{self, Room};
use super::{Exit, opening};
use crate::lifecycle::Lifecycle;
use crate::report::StatusSnapshot;

/// The arguments of `tenantry status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry status\n  tenantry status --watch\n  \
                        tenantry status --json | jq '.tenants[] | select(.trouble)'")]
pub struct StatusArgs {
    /// Print JSON instead of a table; with --watch, one line each time
    #[arg(long)]
    pub json: bool,
    /// Show it again and again until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// How often it is shown again.
const AGAIN: Duration = Duration::from_secs(2);

/// Prints the status of the running daemon, or what the store knows if it does not run.
pub async fn status(config: &Path, args: StatusArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    match (args.watch, args.json, out::screen()) {
        (false, json, screen) => {
            let snapshot = read(&place).await?;
            print(&if json {
                format!("{}\n", serde_json::to_string_pretty(&snapshot)?)
            } else {
                let columns = screen.map_or(usize::MAX, |(columns, _)| columns);
                format!("{}\n", table::render(&snapshot, Room { columns, ..Room::UNLIMITED }))
            })?;
        }
        (true, false, Some(_)) => watch_screen(&place).await?,
        (true, json, _) => loop {
            let snapshot = read(&place).await?;
            print(&if json {
                format!("{}\n", serde_json::to_string(&snapshot)?)
            } else {
                format!("{}\n\n", table::render(&snapshot, Room::UNLIMITED))
            })?;
            sleep(AGAIN).await;
        },
    }
    Ok(Exit::Done)
}

/// Asks the daemon, or the store without one.
async fn read(place: &Place) -> anyhow::Result<StatusSnapshot> {
    match place.source().await? {
        Source::Daemon(daemon) => daemon.get("status").await,
        Source::Store => opening::stopped_status(&place.client).await,
    }
}

/// Until it is interrupted; what was on the screen before comes back.
async fn watch_screen(place: &Place) -> anyhow::Result<()> {
    let mut lifecycle = Lifecycle::start()?;
    let _screen = Alternate::enter()?;
    loop {
        let shown = async {
            let snapshot = read(place).await?;
            let (columns, lines) = out::screen().unwrap_or((80, 24));
            let text = table::render(&snapshot, Room { columns, lines });
            // Home; each line over the one that was there; nothing below.
            print(&format!("\x1b[H{}\x1b[K\x1b[J", text.replace('\n', "\x1b[K\r\n")))?;
            sleep(AGAIN).await;
            anyhow::Ok(())
        };
        tokio::select! {
            shown = shown => shown?,
            _ = lifecycle.next() => return Ok(()),
        }
    }
}

/// The terminal's other screen, without a cursor.
struct Alternate;

impl Alternate {
    fn enter() -> anyhow::Result<Self> {
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = print("\x1b[?25h\x1b[?1049l");
    }
}
