//! `tenantry export`: collected records, to a file or a pipe.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::moment::Moment;
use super::selection::Selection;
use super::socket::RunningDaemon;
use super::{Ended, Exit, opening};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Settings};
use crate::content::ContentType;
use crate::export::{self, Format};
use crate::store::{Query, TimeBasis};
use crate::web::admin::ExportRequest;

/// The arguments of `tenantry export`.
#[derive(Debug, Args)]
#[command(after_help = "Without --since and --until everything that is stored is written. Times are RFC 3339 \
                        (2026-11-22T08:00:00Z), a date (2026-11-22, its midnight in UTC) or a span of time ago \
                        (2h, 7d).\n\nExamples:\n  \
                        tenantry export --tenant contoso --since 7d > contoso.ndjson\n  \
                        tenantry export --content-type Audit.Exchange --since 2026-11-22 --until 2026-11-23 \
                        --format csv --output exchange.csv\n  \
                        tenantry export --since 2h | jq -c 'select(.Operation == \"MailItemsAccessed\")'")]
pub struct ExportArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// Only this content type, such as Audit.Exchange; may be repeated [default: all]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Vec<ContentType>,
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
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
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
    let settings = config::load(config)?;
    let selection = Selection {
        tenants: &args.tenant,
        content_types: &args.content_type,
        since: args.since,
        until: args.until,
        by: args.by.into(),
        include_duplicates: args.include_duplicates,
    };
    let query = selection.query(&settings, SystemClock.now())?;
    // Opened first: where the output goes is the caller's right, even if the store is another user's.
    let mut output = Output::open(args.output.as_deref())?;
    let progress = Progress::new(output.is_file());
    let mut sink = |piece: &[u8]| -> io::Result<()> {
        progress.add(piece, args.format);
        output.write(piece)
    };
    let done = match RunningDaemon::find(&settings).await? {
        Some(daemon) => from_daemon(&daemon, &query, args.format, &mut sink).await,
        None => from_store(&settings, query, args.format, &mut sink).await,
    };
    progress.finish();
    match done {
        Ok(()) => {
            output.commit()?;
            Ok(Exit::Done)
        }
        // Whoever read the pipe has seen enough.
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Done),
        Err(error) => Err(error),
    }
}

type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send);

async fn from_daemon(daemon: &RunningDaemon, query: &Query, format: Format, sink: Sink<'_>) -> anyhow::Result<()> {
    let request = ExportRequest { query: serde_json::to_string(query)?, format };
    let mut answer = daemon.stream("export", &request).await?;
    while let Some(piece) = answer.chunk().await.context("the export is not complete: the daemon broke off")? {
        sink(&piece)?;
    }
    Ok(())
}

/// Reads on a thread of its own and writes here, so that a daemon that waits for the store is noticed in between.
async fn from_store(settings: &Settings, query: Query, format: Format, sink: Sink<'_>) -> anyhow::Result<()> {
    if !settings.store.path.is_dir() {
        // An empty export of the right form: nothing was collected.
        let (formatter, mut piece) = (export::Formatter::new(format), Vec::new());
        formatter.begin(&mut piece)?;
        formatter.end(&mut piece);
        return Ok(sink(&piece)?);
    }
    let store = opening::to_read(settings, "tenantry export").await?;
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
    let reader = store.clone();
    let reading = tokio::task::spawn_blocking(move || {
        export::run(&reader, &query, format, |piece, _| match sender.blocking_send(std::mem::take(piece)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    let writing = async {
        while let Some(piece) = pieces.recv().await {
            sink(&piece)?;
        }
        anyhow::Ok(())
    };
    let written = tokio::select! {
        written = writing => written,
        () = opening::gives_way(&store) => Err(Ended {
            exit: Exit::TryAgain,
            message: "the export is not complete: a daemon is starting and needs the store; run it again, the daemon \
                      will answer"
                .to_owned(),
        }
        .into()),
    };
    drop(pieces);
    let read = reading.await.context("reading the store panicked")?;
    store.close().await?;
    written?;
    read?;
    Ok(())
}

/// Whether somebody has stopped reading: a quiet end.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe))
}

/// Where the records go. A file appears under its name only when it is complete.
enum Output {
    Standard(io::Stdout),
    File { file: File, partial: PathBuf, path: PathBuf },
}

impl Output {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Standard(io::stdout())) };
        let path = std::path::absolute(path)?;
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| format!("cannot write `{}`", partial.display()))?;
        Ok(Self::File { file, partial, path })
    }

    const fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard(out) => {
                out.write_all(piece)?;
                out.flush()
            }
            Self::File { file, .. } => file.write_all(piece),
        }
    }

    fn commit(self) -> anyhow::Result<()> {
        if let Self::File { file, partial, path } = self {
            file.sync_all()?;
            std::fs::rename(&partial, &path).with_context(|| format!("cannot name the export `{}`", path.display()))?;
        }
        Ok(())
    }
}

/// Records, bytes and speed, on a terminal only, and only if the records themselves go elsewhere.
struct Progress {
    bar: ProgressBar,
    records: AtomicU64,
}

impl Progress {
    fn new(to_file: bool) -> Self {
        let visible = io::stderr().is_terminal() && (to_file || !io::stdout().is_terminal());
        let bar = if visible { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} records, {bytes} at {bytes_per_sec}, {elapsed}")
        {
            bar.set_style(style);
        }
        Self { bar, records: AtomicU64::new(0) }
    }

    fn add(&self, piece: &[u8], format: Format) {
        // A line is a record, but for the header of CSV and the brackets of JSON.
        let lines = memchr::memchr_iter(b'\n', piece).count() as u64;
        let total = self.records.fetch_add(lines, Relaxed) + lines;
        self.bar.set_message(total.saturating_sub(u64::from(format != Format::Ndjson)).to_string());
        self.bar.inc(piece.len() as u64);
    }

    fn finish(&self) {
        self.bar.finish();
    }
}
