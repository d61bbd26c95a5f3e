//! How far a run has come, on standard error: a line for each tenant that is drawn again and again, or, where nobody sees a
//! terminal, lines of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;
use tracing::info;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::cli::count::count;
use crate::cli::single::Look;
use crate::content::TenantId;
use crate::report::TenantStatus;
use crate::tenant::course::Reach;
use crate::tenant::{Headway, Verdict};

/// Up to this many tenants get a line of their own.
const LINES: usize = 20;
/// How often a line of the log tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often what is drawn turns.
const TICK: Duration = Duration::from_millis(120);

/// Shows a run.
#[derive(Debug)]
pub(super) enum Display {
    /// On a terminal.
    Drawn { all: MultiProgress, bars: BTreeMap<Option<TenantId>, ProgressBar> },
    /// In the log.
    Logged { told: Instant, over: BTreeSet<TenantId> },
}

impl Display {
    pub(super) fn new() -> Self {
        if io::stderr().is_terminal() {
            Self::Drawn { all: MultiProgress::new(), bars: BTreeMap::new() }
        } else {
            Self::Logged { told: Instant::now(), over: BTreeSet::new() }
        }
    }

    /// Where lines of the log go that are not to be drawn over.
    pub(super) fn log(&self) -> BoxMakeWriter {
        match self {
            Self::Drawn { all, .. } => {
                let all = all.clone();
                BoxMakeWriter::new(move || Above(all.clone()))
            }
            Self::Logged { .. } => BoxMakeWriter::new(io::stderr),
        }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, look: &Look) {
        let tenants = look.status.tenants.iter();
        let collected: Vec<_> = tenants.filter_map(|status| Some((status, look.tenants.get(&status.id)?))).collect();
        match self {
            Self::Drawn { all, bars } => {
                if collected.len() > LINES {
                    bar(all, bars, None).set_message(sum(&collected));
                    return;
                }
                for (status, (headway, verdict)) in collected {
                    let bar = bar(all, bars, Some(status.id));
                    let message = format!("{}: {}", plain(&status.name), sentence(status, headway, *verdict));
                    if *verdict == Verdict::Working {
                        bar.set_message(message);
                    } else {
                        bar.abandon_with_message(message);
                    }
                }
            }
            Self::Logged { told, over } => {
                let due = told.elapsed() >= TELL_EVERY;
                if due {
                    *told = Instant::now();
                }
                if collected.len() > LINES {
                    if due {
                        info!("{}", sum(&collected));
                    }
                    return;
                }
                for (status, (headway, verdict)) in collected {
                    let ended = *verdict != Verdict::Working && over.insert(status.id);
                    if due && *verdict == Verdict::Working || ended {
                        let (tenant, name) = (status.id, &status.name);
                        info!(%tenant, name, "{}", sentence(status, headway, *verdict));
                    }
                }
            }
        }
    }

    /// Nothing is drawn any more.
    pub(super) fn clear(&mut self) {
        if let Self::Drawn { all, bars } = self {
            bars.values().for_each(ProgressBar::finish_and_clear);
            // The terminal may be gone; then nothing is left on it.
            let _ = all.clear();
        }
    }
}

fn bar<'a>(
    all: &MultiProgress,
    bars: &'a mut BTreeMap<Option<TenantId>, ProgressBar>,
    of: Option<TenantId>,
) -> &'a ProgressBar {
    bars.entry(of).or_insert_with(|| {
        let bar = all.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        bar
    })
}

/// One tenant: `3 of 4 listed, 120 blobs and 3456 records stored, 17 waiting`.
fn sentence(status: &TenantStatus, headway: &Headway, verdict: Verdict) -> String {
    let listed = headway.lists.values().filter(|reach| **reach == Reach::Had).count();
    let stored = |number: fn(&crate::report::ContentStatus) -> u64| status.content.values().map(number).sum::<u64>();
    let (blobs, records) = (stored(|of| of.blobs), stored(|of| of.records));
    let waiting = status.queue.entries;
    let end = match verdict {
        Verdict::Working => "",
        Verdict::Complete => "; complete",
        Verdict::Left => "; not complete",
    };
    format!(
        "{listed} of {} listed, {} and {} stored, {waiting} waiting{end}",
        count(headway.lists.len() as u64, "content type"),
        count(blobs, "blob"),
        count(records, "record"),
    )
}

/// All of many tenants.
fn sum(tenants: &[(&TenantStatus, &(Headway, Verdict))]) -> String {
    let done = tenants.iter().filter(|(_, (_, verdict))| *verdict != Verdict::Working).count();
    let content = || tenants.iter().flat_map(|(status, _)| status.content.values());
    let (blobs, records) = (content().map(|of| of.blobs).sum(), content().map(|of| of.records).sum());
    let waiting: u64 = tenants.iter().map(|(status, _)| status.queue.entries).sum();
    format!(
        "{done} of {} done, {} and {} stored, {waiting} waiting",
        count(tenants.len() as u64, "tenant"),
        count(blobs, "blob"),
        count(records, "record"),
    )
}

/// A name must not steer a terminal.
fn plain(name: &str) -> String {
    name.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// Standard error, above what is drawn there.
struct Above(MultiProgress);

impl Write for Above {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
