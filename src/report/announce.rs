//! When a trouble is worth a line in the journal: at once when it is new, then at growing intervals, and once when it
//! is over. Pure: time comes in, a decision goes out.
//!
//! Of each stage there is a slot for each content type, which says what the trouble is now, since when, and how often it
//! was met; and of the last kinds of trouble when the next line is due, since two that alternate are two and not many,
//! and one that several content types meet is one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::trouble::Trouble;
use crate::content::ContentType;

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
/// So many kinds of a stage's trouble are told apart.
const KINDS: usize = 16;

/// What to write to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Nothing.
    Quiet,
    /// A new trouble.
    New,
    /// It goes on.
    Still,
}

/// The history of one stage's troubles.
#[derive(Debug, Default)]
pub(crate) struct History {
    slots: BTreeMap<Option<ContentType>, Slot>,
    /// Of the kinds met last; the very last is the last.
    paces: Vec<Pace>,
    /// When it last began to work, if it has.
    ended: Option<Instant>,
    came_back: bool,
    end_told: bool,
}

/// The trouble with one content type, or with all.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// As it was met last.
    pub(crate) trouble: Trouble,
    /// Since when there is trouble, of whatever kind.
    pub(crate) since: Timestamp,
    /// How often trouble was met since then.
    pub(crate) attempts: u64,
    open: bool,
    last: Instant,
}

/// When to write of one kind of trouble.
#[derive(Debug)]
struct Pace {
    kind: String,
    code: Option<String>,
    step: usize,
    next: Instant,
}

impl History {
    /// Takes note that `trouble` was met at `now` and says what to write.
    pub(crate) fn met(
        &mut self,
        content_type: Option<ContentType>,
        trouble: &Trouble,
        now: Instant,
        time: Timestamp,
    ) -> Line {
        if self.stayed_away(now) {
            *self = Self::default();
        }
        let line = self.due(trouble, now);
        if line == Line::New {
            (self.came_back, self.end_told) = (false, false);
        }
        let new = || Slot { trouble: trouble.clone(), since: time, attempts: 0, open: true, last: now };
        let slot = self.slots.entry(content_type).or_insert_with(new);
        if !slot.open && now - slot.last >= SAME_TROUBLE {
            *slot = new();
        }
        slot.trouble.clone_from(trouble);
        slot.attempts += 1;
        slot.open = true;
        line
    }

    /// Takes note that the stage works with this content type at `now`, and says of what to write that it is over. The
    /// first end of a trouble is told at once; of one that came back soon, only when it has stayed away, or the end would
    /// be told each time.
    pub(crate) fn well(&mut self, content_type: Option<ContentType>, now: Instant) -> Option<Slot> {
        if let Some(slot) = self.slots.get_mut(&content_type).filter(|slot| slot.open) {
            (slot.open, slot.last) = (false, now);
            let slot = slot.clone();
            if self.is_open() {
                return None;
            }
            self.ended = Some(now);
            let first = !std::mem::replace(&mut self.came_back, true);
            self.end_told = first;
            return first.then_some(slot);
        }
        if !self.stayed_away(now) {
            return None;
        }
        let before = std::mem::take(self);
        let last = before.slots.into_values().max_by_key(|slot| slot.last);
        last.filter(|_| !before.end_told)
    }

    /// The same, each with the content type that it is about.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Option<ContentType>, &Slot)> {
        self.slots.iter().filter(|(_, slot)| slot.open).map(|(content_type, slot)| (*content_type, slot))
    }

    /// The troubles that go on.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(|slot| slot.open)
    }

    /// Whether there is one that goes on.
    pub(crate) fn is_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// How often the trouble with this content type was met.
    pub(crate) fn attempts(&self, content_type: Option<ContentType>) -> u64 {
        self.slots.get(&content_type).map_or(0, |slot| slot.attempts)
    }

    /// Whether it has worked for so long that what comes is new.
    fn stayed_away(&self, now: Instant) -> bool {
        !self.is_open() && self.ended.is_some_and(|ended| now - ended >= SAME_TROUBLE)
    }

    /// Whether a line about this kind of trouble is due.
    fn due(&mut self, trouble: &Trouble, now: Instant) -> Line {
        let is_same = |pace: &Pace| pace.kind == trouble.kind && pace.code == trouble.code;
        let (mut pace, line) = if let Some(at) = self.paces.iter().position(is_same) {
            let mut pace = self.paces.remove(at);
            let due = now >= pace.next;
            if due {
                pace.step = (pace.step + 1).min(INTERVALS.len() - 1);
            }
            (pace, if due { Line::Still } else { Line::Quiet })
        } else {
            let pace = Pace { kind: trouble.kind.clone(), code: trouble.code.clone(), step: 0, next: now };
            (pace, Line::New)
        };
        if line != Line::Quiet {
            pace.next = now + INTERVALS[pace.step];
        }
        if self.paces.len() == KINDS {
            self.paces.remove(0);
        }
        self.paces.push(pace);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: &str) -> Trouble {
        Trouble::passing(kind, "cause")
    }

    const ALL: Option<ContentType> = None;

    fn met(history: &mut History, kind: &str, now: Instant) -> Line {
        history.met(ALL, &trouble(kind), now, Timestamp::UNIX_EPOCH)
    }

    fn well(history: &mut History, now: Instant) -> bool {
        history.well(ALL, now).is_some()
    }

    /// Lines written for what happens every `every` seconds for `hours`: how many of each kind there are.
    fn lines(
        every: u64,
        hours: u64,
        each: impl Fn(&mut History, u64, Instant) -> Vec<&'static str>,
    ) -> Vec<&'static str> {
        let start = Instant::now();
        let mut history = History::default();
        (0..hours * 3600 / every)
            .flat_map(|turn| each(&mut history, turn, start + Duration::from_secs(turn * every)))
            .filter(|line| !line.is_empty())
            .collect()
    }

    fn word(line: Line) -> &'static str {
        match line {
            Line::Quiet => "",
            Line::New => "new",
            Line::Still => "still",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_of_the_same_trouble_is_a_handful_of_lines() {
        let told = lines(10, 24, |history, _, now| vec![word(met(history, "http_503", now))]);
        assert_eq!(told[0], "new");
        assert_eq!(told.len(), 8, "at 0, 1 min, 6 min, 36 min, 2.6 h, 8.6 h, 14.6 h, 20.6 h: {told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_that_alternate_are_two_and_not_one_an_attempt() {
        for every in [10, 3600] {
            let told = lines(every, 24, |history, turn, now| {
                vec![word(met(history, if turn % 2 == 0 { "http_503" } else { "reset" }, now))]
            });
            assert_eq!(told.iter().filter(|line| **line == "new").count(), 2);
            assert!(told.len() <= 16, "every {every} s: {told:?}");
        }
        // Content types that meet different troubles, and those that meet the same.
        let told = lines(10, 24, |history, turn, now| {
            let [exchange, general, dlp] = [ContentType::Exchange, ContentType::General, ContentType::Dlp].map(Some);
            let at = Timestamp::UNIX_EPOCH;
            match turn % 3 {
                0 => vec![word(history.met(exchange, &trouble("http_503"), now, at))],
                1 => vec![word(history.met(general, &trouble("http_503"), now, at))],
                _ => vec![word(history.met(dlp, &trouble("role"), now, at))],
            }
        });
        assert!(told.len() <= 16, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn alternation_does_not_make_a_trouble_young() {
        let start = Instant::now();
        let mut history = History::default();
        for minute in 0..60 {
            let kind = if minute % 2 == 0 { "http_503" } else { "reset" };
            let time = Timestamp::from_second(minute * 60).unwrap();
            history.met(ALL, &trouble(kind), start + Duration::from_secs(minute.unsigned_abs() * 60), time);
        }
        let slot = history.open().next().unwrap();
        assert_eq!((slot.since, slot.attempts, slot.trouble.kind.as_str()), (Timestamp::UNIX_EPOCH, 60, "reset"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_it_is_over_for_all_content_types() {
        let (now, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut history = History::default();
        let [exchange, general] = [ContentType::Exchange, ContentType::General].map(Some);
        assert_eq!(history.met(exchange, &trouble("reset"), now, at), Line::New);
        assert_eq!(history.met(general, &trouble("reset"), now, at), Line::Quiet);
        assert!(history.well(exchange, now).is_none() && history.is_open());
        assert_eq!(history.well(general, now).unwrap().attempts, 1);
        assert!(!history.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn what_flaps_does_not_fill_the_journal() {
        let told = lines(60, 24, |history, _, now| {
            let line = word(met(history, "reset", now));
            vec![line, if well(history, now + Duration::from_secs(30)) { "over" } else { "" }]
        });
        assert_eq!(told.iter().filter(|line| **line == "new").count(), 1);
        assert!(told.len() <= 10, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_told_once_and_what_comes_back_later_is_new() {
        let now = Instant::now();
        let mut history = History::default();
        assert!(!well(&mut history, now));
        assert_eq!(met(&mut history, "reset", now), Line::New);
        assert_eq!(met(&mut history, "other", now), Line::New, "another trouble");
        assert!(well(&mut history, now));
        assert!(!well(&mut history, now));
        let later = now + SAME_TROUBLE;
        assert!(!well(&mut history, later));
        assert_eq!(met(&mut history, "other", later), Line::New);
        assert!(well(&mut history, later));
        assert_eq!(met(&mut history, "other", later + SAME_TROUBLE), Line::New, "nobody said meanwhile that it works");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_what_flapped_is_told_when_it_stays_away() {
        let now = Instant::now();
        let mut history = History::default();
        met(&mut history, "reset", now);
        assert!(well(&mut history, now));
        assert_eq!(met(&mut history, "reset", now), Line::Quiet);
        assert!(!well(&mut history, now));
        assert!(well(&mut history, now + SAME_TROUBLE));
        assert!(!well(&mut history, now + SAME_TROUBLE));
    }
}
