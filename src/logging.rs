//! The journal, or text, or JSON.
//!
//! `auto` writes native journal fields when stderr is the journal (`JOURNAL_STREAM` names it), and text otherwise.
//! Field names are those of the log statements in upper case: `TENANT`, `CONTENT_TYPE`, `ERROR_CODE`, `CORRELATION_ID`,
//! `ATTEMPT`. What is worth a filter or an alert has a `MESSAGE_ID` of its own ([`event`](crate::event)).

use std::fmt;
use std::io::{self, IsTerminal as _};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor, Writer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `journald` if stderr is the journal, else `text`.
    #[default]
    Auto,
    /// Native journal fields.
    Journald,
    /// One JSON object a line on stderr.
    Json,
    /// A line for people on stderr.
    Text,
}

/// Changes the level while the daemon runs.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Switches to `directives`.
    pub fn set(&self, directives: &str) -> Result<(), ParseError> {
        let filter = filter(directives)?;
        // The handle outlives the subscriber only while the process ends.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Reads a level such as `info`, or directives such as `info,tenantry::tenant=debug`. Libraries speak up from
/// warnings on unless they are named.
pub fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    // What sled meets, the store says itself, once and with a remedy; sled has a line for every attempt.
    let quiet = "sled=off,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,h2=warn";
    let all = if directives.trim().is_empty() { format!("info,{quiet}") } else { format!("{quiet},{directives}") };
    EnvFilter::builder().parse(all)
}

/// Starts logging for the whole process. Once.
pub fn start(format: LogFormat, directives: &str) -> Result<LogLevel, ParseError> {
    start_to(format, directives, BoxMakeWriter::new(io::stderr))
}

/// The same; what would go to standard error goes to `writer`, which may share it with something that is drawn there.
pub fn start_to(format: LogFormat, directives: &str, writer: BoxMakeWriter) -> Result<LogLevel, ParseError> {
    let (filter, level) = reload::Layer::new(filter(directives)?);
    let layer: Box<dyn Layer<_> + Send + Sync> = match resolve(format) {
        Resolved::Journald(layer) => layer.boxed(),
        Resolved::Json => tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
        Resolved::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .with_writer(writer);
            layer.fmt_fields(ForPeople).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    Ok(LogLevel(level))
}

enum Resolved {
    Journald(tracing_journald::Layer),
    Json,
    Text,
}

fn resolve(format: LogFormat) -> Resolved {
    let wanted = match format {
        LogFormat::Auto => stderr_is_the_journal(),
        LogFormat::Journald => true,
        LogFormat::Json => return Resolved::Json,
        LogFormat::Text => false,
    };
    // Without a journal socket there is still stderr.
    if wanted && let Ok(layer) = journald() { Resolved::Journald(layer) } else { Resolved::Text }
}

fn journald() -> io::Result<tracing_journald::Layer> {
    // The crate's own mapping makes info a notice, which journal filters take for something out of the ordinary.
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    Ok(tracing_journald::layer()?
        .with_field_prefix(None)
        .with_syslog_identifier("tenantry".to_owned())
        .with_priority_mappings(priorities))
}

/// The fields of a line of text: all but the event's identity, which says nothing to a reader.
struct ForPeople;

impl<'a> MakeVisitor<Writer<'a>> for ForPeople {
    type Visitor = WithoutIdentity<'a>;

    fn make_visitor(&self, target: Writer<'a>) -> Self::Visitor {
        WithoutIdentity(DefaultFields::new().make_visitor(target))
    }
}

struct WithoutIdentity<'a>(DefaultVisitor<'a>);

impl Visit for WithoutIdentity<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message_id" {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

impl VisitOutput<fmt::Result> for WithoutIdentity<'_> {
    fn finish(self) -> fmt::Result {
        self.0.finish()
    }
}

impl VisitFmt for WithoutIdentity<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        self.0.writer()
    }
}

/// `JOURNAL_STREAM` holds the device and inode of the stream that systemd connected; a redirected stderr differs.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_checked() {
        for good in ["info", "debug", "info,tenantry::tenant=trace", ""] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("info,tenantry=louder").is_err());
    }
}
