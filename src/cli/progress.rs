//! How far a long command has come, for the person at the terminal: on standard error, and only if nobody is disturbed.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::export::Format;

/// How often it turns.
const TICK: Duration = Duration::from_millis(120);

/// A line that is drawn again and again.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    lines: u64,
}

impl Progress {
    /// Records, bytes and speed of an export; hidden unless `visible`.
    pub(super) fn of_records(visible: bool) -> Self {
        Self::new(visible, "{spinner} {msg} records, {bytes} at {bytes_per_sec}, {elapsed}", "0")
    }

    /// That `what` is going on, and for how long.
    pub(super) fn of_work(what: &'static str) -> Self {
        Self::new(true, "{spinner} {msg}, {elapsed}", what)
    }

    fn new(visible: bool, template: &str, message: &'static str) -> Self {
        let visible = visible && io::stderr().is_terminal();
        let bar = if visible { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message);
        if visible {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, lines: 0 }
    }

    /// So much more was written.
    pub(super) fn add(&mut self, piece: &[u8], format: Format) {
        self.lines += memchr::memchr_iter(b'\n', piece).count() as u64;
        self.bar.set_message(self.records(format).to_string());
        self.bar.inc(piece.len() as u64);
    }

    /// How many records that were: a line each, but for the header of CSV and the brackets of JSON. Texts in CSV may have
    /// line breaks of their own, so that there it is no less than this.
    pub(super) const fn records(&self, format: Format) -> u64 {
        match format {
            Format::Ndjson => self.lines,
            Format::Csv => self.lines.saturating_sub(1),
            Format::Json => self.lines.saturating_sub(2),
        }
    }

    /// It is done; what it came to stays to be read.
    pub(super) fn finish(&self) {
        self.bar.finish();
    }

    /// It is over.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
