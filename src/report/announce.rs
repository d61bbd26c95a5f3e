//! When a trouble is worth a line in the journal: at once when it is new, then at growing intervals, and once when it
//! is over. Pure: time comes in, a decision goes out.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::trouble::Trouble;

/// The waits between two lines about the same trouble; the last one repeats.
const INTERVALS: [Duration; 5] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(6),
];
/// A trouble that comes back within this time is the old one: what flaps does not fill the journal.
const SAME_TROUBLE: Duration = Duration::from_mins(10);

/// What to write to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Nothing.
    Quiet,
    /// A new trouble.
    New,
    /// It goes on.
    Still,
    /// It is over.
    Over,
}

/// The history of one stage's trouble.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) trouble: Trouble,
    pub(crate) since: Timestamp,
    pub(crate) attempts: u64,
    open: bool,
    came_back: bool,
    end_told: bool,
    step: usize,
    next: Instant,
    last: Instant,
}

/// Takes note that `trouble` was met at `now` and says what to write.
pub(crate) fn met(history: &mut Option<Announced>, trouble: &Trouble, now: Instant, time: Timestamp) -> Line {
    match history {
        Some(known) if known.trouble.is_same(trouble) && (known.open || now - known.last < SAME_TROUBLE) => {
            known.trouble = trouble.clone();
            known.attempts += 1;
            known.open = true;
            known.last = now;
            if now < known.next {
                return Line::Quiet;
            }
            known.step = (known.step + 1).min(INTERVALS.len() - 1);
            known.next = now + INTERVALS[known.step];
            Line::Still
        }
        _ => {
            *history = Some(Announced {
                trouble: trouble.clone(),
                since: time,
                attempts: 1,
                open: true,
                came_back: false,
                end_told: false,
                step: 0,
                next: now + INTERVALS[0],
                last: now,
            });
            Line::New
        }
    }
}

/// Takes note that the stage works at `now` and says what to write. The first end of a trouble is told at once; of one
/// that came back soon, only when it has stayed away, or the end would be told each time.
pub(crate) fn well(history: &mut Option<Announced>, now: Instant) -> Line {
    let Some(known) = history else { return Line::Quiet };
    if known.open {
        known.open = false;
        known.last = now;
        let first = !known.came_back;
        known.came_back = true;
        known.end_told = first;
        return if first { Line::Over } else { Line::Quiet };
    }
    if now - known.last < SAME_TROUBLE {
        return Line::Quiet;
    }
    let line = if known.end_told { Line::Quiet } else { Line::Over };
    *history = None;
    line
}

impl Announced {
    /// Whether it is going on.
    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: &str) -> Trouble {
        Trouble::passing(kind, "cause")
    }

    /// Lines written for a trouble met every `every` seconds for `hours`.
    fn lines(every: u64, hours: u64, each: impl Fn(&mut Option<Announced>, Instant) -> Vec<Line>) -> Vec<Line> {
        let start = Instant::now();
        let mut history = None;
        (0..hours * 3600 / every)
            .flat_map(|turn| each(&mut history, start + Duration::from_secs(turn * every)))
            .filter(|line| *line != Line::Quiet)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_of_the_same_trouble_is_a_handful_of_lines() {
        let told = lines(10, 24, |history, now| vec![met(history, &trouble("http_503"), now, Timestamp::UNIX_EPOCH)]);
        assert_eq!(told[0], Line::New);
        assert_eq!(told.len(), 8, "at 0, 1 min, 6 min, 36 min, 2.6 h, 8.6 h, 14.6 h, 20.6 h: {told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_flaps_does_not_fill_the_journal() {
        let told = lines(60, 24, |history, now| {
            vec![
                met(history, &trouble("reset"), now, Timestamp::UNIX_EPOCH),
                well(history, now + Duration::from_secs(30)),
            ]
        });
        assert_eq!(told.iter().filter(|line| **line == Line::New).count(), 1);
        assert!(told.len() <= 10, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_told_once_and_what_comes_back_later_is_new() {
        let now = Instant::now();
        let mut history = None;
        assert_eq!(well(&mut history, now), Line::Quiet);
        assert_eq!(met(&mut history, &trouble("reset"), now, Timestamp::UNIX_EPOCH), Line::New);
        assert_eq!(met(&mut history, &trouble("other"), now, Timestamp::UNIX_EPOCH), Line::New, "another trouble");
        assert_eq!(well(&mut history, now), Line::Over);
        assert_eq!(well(&mut history, now), Line::Quiet);
        let later = now + SAME_TROUBLE;
        assert_eq!(well(&mut history, later), Line::Quiet);
        assert_eq!(met(&mut history, &trouble("other"), later, Timestamp::UNIX_EPOCH), Line::New);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_what_flapped_is_told_when_it_stays_away() {
        let now = Instant::now();
        let mut history = None;
        met(&mut history, &trouble("reset"), now, Timestamp::UNIX_EPOCH);
        assert_eq!(well(&mut history, now), Line::Over);
        assert_eq!(met(&mut history, &trouble("reset"), now, Timestamp::UNIX_EPOCH), Line::Quiet);
        assert_eq!(well(&mut history, now), Line::Quiet);
        assert_eq!(well(&mut history, now + SAME_TROUBLE), Line::Over);
        assert_eq!(well(&mut history, now + SAME_TROUBLE), Line::Quiet);
    }
}
