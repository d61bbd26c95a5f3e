//! `tenantry export`: collected records, to a file or a pipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::moment::Moment;
use super::output::{Interruption, Output};
use super::pieces::Pieces;
use super::progress::Progress;
use super::selection::{self, Selection};
use super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::{Ended, Exit, opening};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Client;
use crate::content::TenantId;
use crate::export::{Form, Format, Formatter};
use crate::language::Language;
use crate::store::{Query, TimeBasis};
use crate::web::admin::ExportRequest;
use crate::web::records;

/// The arguments of `tenantry export`.
#[derive(Debug, Args)]
#[command(after_help = "Without --since and --until everything that is stored is written. Times are RFC 3339 \
                        (2026-11-22T08:00:00Z), a date (2026-11-22, its midnight in UTC) or a span of time ago \
                        (2h, 7d).\n\nCSV cells hold what was recorded, whatever that is: a program that takes a text which \
                        begins with `=` for a formula should be told to import texts.\n\nRecords are written as they were \
                        received. With --dlp-names each object in a record that has the id of a sensitive information \
                        type (`SensitiveType`) is given one more member, `SensitiveTypeName`, and CSV a column \
                        `SensitiveTypeNames`.\n\nExamples:\n  \
                        tenantry export --tenant contoso --since 7d > contoso.ndjson\n  \
                        tenantry export --content-type Audit.Exchange --since 2026-11-22 --until 2026-11-23 \
                        --format csv --output exchange.csv\n  \
                        tenantry export --content-type DLP.All --since 7d --dlp-names=de-DE > dlp.ndjson\n  \
                        tenantry export --since 2h | jq -c 'select(.Operation == \"MailItemsAccessed\")'")]
pub struct ExportArgs {
    /// Which tenants and types.
    #[command(flatten)]
    pub selection: Selection,
    /// Only records at or after this time
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only records before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// The time that --since and --until mean
    #[arg(long, value_enum, default_value_t)]
    pub by: By,
    /// How records are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write the copies too that the service delivered more than once
    #[arg(long)]
    pub include_duplicates: bool,
    /// Write to this file instead of standard output (which is `-`); it appears under its name when it is complete
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The time that a range of records means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum By {
    /// When what the record tells of happened: its `CreationTime`
    #[default]
    Created,
    /// When the service made the record available: its blob's `contentCreated`
    Available,
    /// When the record was stored here
    Stored,
}

impl From<By> for TimeBasis {
    fn from(by: By) -> Self {
        match by {
            By::Created => Self::Created,
            By::Available => Self::Available,
            By::Stored => Self::Stored,
        }
    }
}

/// Writes the records that the arguments select.
pub async fn export(config: &Path, args: ExportArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket)?;
    let source = place.source().await?;
    let names = place.names(&source).await?;
    let query = args.selection.query(&names)?;
    let query = selection::between(query, args.by.into(), (args.since, args.until), SystemClock.now())?;
    let query = Query { include_duplicates: args.include_duplicates, ..query };
    let dlp_names = args.selection.language(&place.client)?;
    let strangers = selection::strangers(&query, &names);
    // Opened first: nothing is read if it cannot be written.
    let (output, interruption) = Output::open(args.output.as_deref())?;
    let mut export =
        Export { format: args.format, dlp_names, progress: Progress::of_records(output.is_file()), output };
    let done = match &source {
        Source::Daemon(daemon) => export.ask(daemon, &query, interruption).await,
        Source::Store => export.read(&place.client, query, names, interruption).await,
    };
    let Export { output, progress, .. } = export;
    match (done, strangers.first()) {
        (Ok(()), Some(id)) if progress.records(args.format) == 0 => {
            progress.clear();
            let message = format!("tenant `{id}` is not configured and has no records of what was asked for");
            Err(Ended { exit: Exit::Failed, message }.into())
        }
        (Ok(()), _) => {
            progress.finish();
            output.commit().await?;
            Ok(Exit::Done)
        }
        (Err(error), _) => {
            progress.clear();
            Err(error)
        }
    }
}

/// An export that is going on.
struct Export {
    format: Format,
    dlp_names: Option<Language>,
    output: Output,
    progress: Progress,
}

impl Export {
    async fn write(&mut self, piece: bytes::Bytes) -> anyhow::Result<()> {
        self.progress.add(&piece, self.format);
        self.output.write(piece).await
    }

    async fn ask(
        &mut self,
        daemon: &RunningDaemon,
        query: &Query,
        mut interruption: Interruption,
    ) -> anyhow::Result<()> {
        let dlp_names = self.dlp_names.clone();
        let request =
            ExportRequest { query: serde_json::to_string(query)?, format: self.format, dlp_names, framed: true };
        let mut pieces = Pieces::of(daemon.stream("export", &request).await?);
        let copy = async {
            while let Some(piece) = pieces.next().await.map_err(|why| incomplete(&why))? {
                self.write(piece).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            copied = copy => copied,
            interrupted = interruption.comes() => Err(interrupted.into()),
        }
    }

    /// A daemon that waits for the store gets it within seconds, whether or not somebody reads what is written here.
    async fn read(
        &mut self,
        client: &Client,
        query: Query,
        names: BTreeMap<TenantId, String>,
        mut interruption: Interruption,
    ) -> anyhow::Result<()> {
        let form = Form { format: self.format, tenants: Arc::new(names), dlp_names: self.dlp_names.clone() };
        let Some(store) = opening::to_read(client, "tenantry export").await? else {
            // An empty export of the right form: nothing was collected.
            let (formatter, mut piece) = (Formatter::new(form, None), Vec::new());
            formatter.begin(&mut piece)?;
            formatter.end(&mut piece);
            return self.write(piece.into()).await;
        };
        let stop = CancellationToken::new();
        let mut pieces = Box::pin(records::export(&store, query, form, &stop));
        let copy = async {
            while let Some(piece) = pieces.next().await {
                self.write(piece.context("the export is not complete")?).await?;
            }
            anyhow::Ok(())
        };
        let copied = tokio::select! {
            copied = copy => copied,
            () = opening::gives_way(&store) => Err(incomplete(&opening::GIVEN_WAY).into()),
            interrupted = interruption.comes() => Err(interrupted.into()),
        };
        // The store is closed when nothing reads it any more.
        stop.cancel();
        while pieces.next().await.is_some() {}
        store.close().await?;
        copied
    }
}

fn incomplete(why: &dyn std::fmt::Display) -> Ended {
    Ended { exit: Exit::TryAgain, message: format!("the export is not complete: {why}") }
}
