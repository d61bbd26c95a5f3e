//! `tenantry tail`: new records as they are stored.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::Exit;
use super::export::is_closed_pipe;
use super::moment::Moment;
use super::selection::Selection;
use super::socket::RunningDaemon;
use crate::clock::{Clock as _, SystemClock};
use crate::config;
use crate::content::ContentType;
use crate::store::TimeBasis;
use crate::web::admin::TailRequest;
use crate::web::records::CURSOR_MARK;

/// The arguments of `tenantry tail`.
#[derive(Debug, Args)]
#[command(after_help = "Records are written one a line as JSON, in the order in which they are stored.\n\n\
                        Examples:\n  tenantry tail --tenant contoso\n  \
                        tenantry tail --since 10m --content-type Audit.AzureActiveDirectory | jq .Operation")]
pub struct TailArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Only this content type, such as Audit.Exchange; may be repeated [default: all]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Vec<ContentType>,
    /// Begin with what was stored since this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
}

/// How often a daemon that does not run is looked for.
const LOOKS_AGAIN: Duration = Duration::from_secs(2);

/// Follows the store until it is interrupted or its output is closed.
pub async fn tail(config: &Path, args: TailArgs) -> anyhow::Result<Exit> {
    let settings = config::load(config)?;
    let selection = Selection {
        tenants: &args.tenant,
        content_types: &args.content_type,
        since: args.since,
        until: None,
        by: TimeBasis::Stored,
        include_duplicates: false,
    };
    let query = selection.query(&settings, SystemClock.now())?;
    let mut follower = Follower { query: serde_json::to_string(&query)?, from: None };
    let mut said = false;
    loop {
        if let Some(daemon) = RunningDaemon::find(&settings).await? {
            match follower.follow(&daemon).await {
                Ok(()) => {}
                Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
                Err(error) => notice(&format!("{error:#}")),
            }
            said = false;
        }
        if !said {
            notice("the daemon does not run; waiting for it");
            said = true;
        }
        tokio::time::sleep(LOOKS_AGAIN).await;
    }
}

/// Remembers where it is, so that a restart of the daemon neither repeats a record nor leaves one out.
struct Follower {
    query: String,
    from: Option<String>,
}

impl Follower {
    async fn follow(&mut self, daemon: &RunningDaemon) -> anyhow::Result<()> {
        let request = TailRequest { query: self.query.clone(), from: self.from.clone() };
        let mut answer = daemon.stream("tail", &request).await?;
        let mut pending = Vec::new();
        let mut out = io::stdout();
        while let Some(piece) = answer.chunk().await.context("the daemon broke off")? {
            pending.extend_from_slice(&piece);
            let Some(end) = memchr::memrchr(b'\n', &pending) else { continue };
            for line in pending[..=end].split_inclusive(|byte| *byte == b'\n') {
                match line.split_first() {
                    Some((&CURSOR_MARK, cursor)) => self.from = Some(String::from_utf8(cursor.to_owned())?),
                    _ => out.write_all(line)?,
                }
            }
            out.flush()?;
            pending.drain(..=end);
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "a word to the person at the terminal; standard output carries records only")]
fn notice(text: &str) {
    eprintln!("tenantry: {text}");
}
