//! `tenantry tail`: new records as they are stored.
//!
//! What comes is written up to the last cursor line in it and no further; so a daemon that ends in the middle, or is
//! started again, neither repeats a record nor leaves one out. While no daemon runs, what is stored is read once, and the
//! place that it leads to is where the next daemon goes on.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::moment::Moment;
use super::out::{self, OutputError, notice};
use super::output::Output;
use super::selection::{self, Selection};
use super::socket::{Place, RunningDaemon, SocketArgs, Source, broke_off};
use super::{Exit, opening};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::language::Language;
use crate::store::{Query, TimeBasis};
use crate::web::admin::TailRequest;
use crate::web::records::{self, CURSOR_MARK, Cursor, Places, Until};

/// The arguments of `tenantry tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Records are written one a line as JSON, in the order in which they are stored. A daemon that does \
                        not run is waited for.\n\n\
                        Examples:\n  tenantry tail --tenant contoso\n  \
                        tenantry tail --since 10m --content-type Audit.AzureActiveDirectory | jq .Operation"
)]
pub struct TailArgs {
    /// Which tenants and types.
    #[command(flatten)]
    pub selection: Selection,
    /// Begin with what was stored since this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// How often a daemon that does not run is looked for.
const LOOKS_AGAIN: Duration = Duration::from_secs(2);

/// Follows the store until it is interrupted or its output is closed.
pub async fn tail(config: &Path, args: TailArgs) -> anyhow::Result<Exit> {
    tokio::select! {
        followed = follow(config, args) => followed,
        () = out::closed() => Ok(Exit::Done),
    }
}

async fn follow(config: &Path, args: TailArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let query = args.selection.query(&names)?;
    let query = selection::between(query, TimeBasis::Stored, (args.since, None), SystemClock.now())?;
    for id in selection::strangers(&query, &names) {
        notice(&format!("tenant `{id}` is not configured; waiting for it all the same"));
    }
    let dlp_names = args.selection.language(&place.client)?;
    let mut follower = Follower { query, dlp_names, places: None, pending: Vec::new(), output: Output::standard()? };
    if matches!(source, Source::Store) {
        follower.begin_without_daemon(&place.client).await?;
    }
    let mut said = String::new();
    loop {
        let waits = match place.source().await {
            Ok(Source::Daemon(daemon)) => {
                said.clear();
                match follower.follow(&daemon).await {
                    Ok(()) => "the daemon has ended; waiting for the next one".to_owned(),
                    Err(error) if error.downcast_ref::<OutputError>().is_some() => return Err(error),
                    Err(error) => format!("{error:#}; waiting for the daemon"),
                }
            }
            Ok(Source::Store) if said.is_empty() => "the daemon does not run; waiting for it".to_owned(),
            Ok(Source::Store) => said.clone(),
            Err(error) if Exit::of(&error).may_pass() => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if said != waits {
            notice(&waits);
            said = waits;
        }
        tokio::time::sleep(LOOKS_AGAIN).await;
    }
}

/// Remembers where it is.
struct Follower {
    query: Query,
    dlp_names: Option<Language>,
    places: Option<Places>,
    /// What came after the last cursor.
    pending: Vec<u8>,
    output: Output,
}

impl Follower {
    async fn follow(&mut self, daemon: &RunningDaemon) -> anyhow::Result<()> {
        let dlp_names = self.dlp_names.clone();
        let request = TailRequest { query: serde_json::to_string(&self.query)?, from: self.cursor()?, dlp_names };
        let mut answer = daemon.tail(&request).await?;
        self.pending.clear();
        while let Some(piece) = answer.chunk().await.map_err(|error| broke_off(&error))? {
            self.take(&piece).await?;
        }
        Ok(())
    }

    /// Reads what is stored already, or finds out where that ends: the next daemon goes on from there. If the store cannot
    /// be had, the next daemon is asked for what was stored since now.
    async fn begin_without_daemon(&mut self, client: &Client) -> anyhow::Result<()> {
        let now = SystemClock.now();
        let read = match opening::to_read(client, "tenantry tail").await {
            Ok(Some(store)) => self.read(store).await,
            // Whatever will be stored is new.
            Ok(None) => {
                self.places = Some(Places::new());
                Ok(())
            }
            Err(error) => Err(error),
        };
        if self.places.is_none() {
            self.query.since.get_or_insert(now);
        }
        match read {
            Err(error) if error.downcast_ref::<OutputError>().is_some() => Err(error),
            Err(error) => {
                notice(&format!("{error:#}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn read(&mut self, store: opening::Reading) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let mut pieces =
            Box::pin(records::tail(&store, self.query.clone(), self.dlp_names.clone(), None, Until::CaughtUp, &stop));
        let copy = async {
            while let Some(piece) = pieces.next().await {
                self.take(&piece?).await?;
            }
            anyhow::Ok(())
        };
        let copied = tokio::select! {
            copied = copy => copied,
            // The daemon sends the rest.
            () = opening::gives_way(&store) => Ok(()),
        };
        stop.cancel();
        while pieces.next().await.is_some() {}
        store.close().await?;
        copied
    }

    /// Writes the records up to the last cursor, and remembers that.
    async fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.pending.extend_from_slice(bytes);
        let (records, places, taken) = split(&self.pending)?;
        if taken == 0 {
            return Ok(());
        }
        self.pending.drain(..taken);
        if !records.is_empty() {
            self.output.write(records.into()).await?;
        }
        self.places.get_or_insert_default().extend(places);
        Ok(())
    }

    fn cursor(&self) -> anyhow::Result<Option<String>> {
        let Some(places) = &self.places else { return Ok(None) };
        let cursor: Cursor = places.iter().map(|((tenant, of), (next, sent))| (*tenant, *of, *next, *sent)).collect();
        Ok(Some(serde_json::to_string(&cursor)?))
    }
}

/// The records before the last cursor line, what the cursors say, and how many bytes that was.
fn split(bytes: &[u8]) -> anyhow::Result<(Vec<u8>, Places, usize)> {
    let (mut records, mut complete, mut places, mut taken) = (Vec::new(), 0, Places::new(), 0);
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        at += line.len();
        match line.split_first() {
            Some((&CURSOR_MARK, cursor)) => {
                let cursor: Cursor = serde_json::from_slice(cursor)?;
                places.extend(cursor.into_iter().map(|(tenant, of, next, sent)| ((tenant, of), (next, sent))));
                (complete, taken) = (records.len(), at);
            }
            _ => records.extend_from_slice(line),
        }
    }
    records.truncate(complete);
    Ok((records, places, taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentType, TenantId};

    #[test]
    fn what_comes_after_the_last_cursor_waits_for_the_next_one() {
        let id = TenantId::from_bytes([1; 16]);
        let cursor = |next: u64, sent: u32| format!("\u{1e}[[\"{id}\",\"Audit.Exchange\",{next},{sent}]]\n");
        let text = format!("{}{{}}\n{{1}}\n{}{{2}}\n{{3", cursor(1, 0), cursor(4, 7));
        let whole = text.len() - "{2}\n{3".len();
        for cut in 0..=text.len() {
            let (records, places, taken) = split(&text.as_bytes()[..cut]).unwrap();
            let expected = if cut >= whole { ("{}\n{1}\n", (4, 7), whole) } else { ("", (1, 0), cursor(1, 0).len()) };
            if cut < cursor(1, 0).len() {
                assert_eq!((records.len(), places.len(), taken), (0, 0, 0));
                continue;
            }
            assert_eq!(String::from_utf8(records).unwrap(), expected.0, "cut at {cut}");
            assert_eq!(places, Places::from([((id, ContentType::Exchange), expected.1)]));
            assert_eq!(taken, expected.2);
        }
    }
}
