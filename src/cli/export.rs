//! `tenantry export`: collected records, to a file or a pipe.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Exit;
use super::moment::Moment;
use crate::content::ContentType;
use crate::store::TimeBasis;

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

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// One JSON object a line, strings and numbers as received
    #[default]
    Ndjson,
    /// One JSON array
    Json,
    /// Common fields as columns, and the whole record as the last one
    Csv,
}

/// Writes the records that the arguments select.
pub async fn export(_config: &Path, _args: ExportArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("`tenantry export` is not built yet")
}
