//! The kernel's figures for a process.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Clock ticks a second in `/proc`: 100 on every Linux that runs this.
const TICKS: u64 = 100;

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) wall: Duration,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
    pub(crate) peak_mib: f64,
    pub(crate) resident_mib: f64,
}

impl Figures {
    /// Reads them for `pid`, which was started at `start`.
    pub(crate) fn of(pid: u32, start: Instant) -> anyhow::Result<Self> {
        let wall = start.elapsed();
        let times = fs::read_to_string(format!("/proc/{pid}/stat")).context("the measured process is gone")?;
        // The command's name is in parentheses and may hold anything; the numbers follow the last one.
        let fields: Vec<&str> = times.rsplit_once(')').context("odd stat")?.1.split_whitespace().collect();
        let ticks = |index: usize| -> anyhow::Result<u64> { Ok(fields.get(index).context("short stat")?.parse()?) };
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |key: &str| -> anyhow::Result<f64> {
            let line = status.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
            let kib: u32 = line.split_whitespace().nth(1).context("odd status")?.parse()?;
            Ok(f64::from(kib) / 1024.0)
        };
        Ok(Self { wall, cpu, peak_mib: mib("VmHWM:")?, resident_mib: mib("VmRSS:")? })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        write!(f, "{wall:6.2} s, CPU {cpu:6.2} s, peak {:6.1} MiB", self.peak_mib)
    }
}

/// The middle value.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
