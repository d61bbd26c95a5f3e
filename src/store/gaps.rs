//! Spans of time in which a content type was not listed when it should have been: when, why, and whether and how they were
//! filled later. They annotate the [ledger](super::ledger), in which an hour that was filled looks like any other.
//!
//! An interruption is noted once, when it ends, and once more when its span has been listed: nothing is written per poll. What
//! has not ended is not noted but seen: the watermark stands still. Of each content type the newest [`MOST`] are kept.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::facade::Store;
use super::{Query, Watermark};
use crate::content::{ContentType, TenantId, Tier};
use crate::report::TroubleStatus;

/// How many are kept of a tenant's content type.
const MOST: usize = 50;
/// A shorter interruption is none: the ledger counts by hours. A watermark, which may become durable ten minutes late, is
/// never as old as that by a restart alone.
pub const LEAST: SignedDuration = SignedDuration::from_hours(1);
/// How much of a cause is kept.
const LONGEST_CAUSE: usize = 500;

/// Why nobody listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The daemon did not run.
    NotRunning,
    /// The tenant was not to be collected, or could not be with its configuration.
    NotCollected,
    /// Microsoft refused, throttled, or could not be reached, or the store failed: the cause says it.
    Trouble,
    /// A clock was corrected, so that a span of time did not pass, or passed twice.
    Clock,
    /// Nothing tells.
    Unknown,
}

impl Why {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::NotRunning, Self::NotCollected, Self::Trouble, Self::Clock, Self::Unknown];
}

/// How a gap was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// When its span had been listed, in the service's time.
    pub at: Timestamp,
    /// By what.
    pub by: Tier,
}

/// A span that was not listed when it should have been. All times are the service's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Until then all had been listed.
    pub from: Timestamp,
    /// When listing went on; of one that goes on, the time of asking.
    pub to: Timestamp,
    /// What kept it.
    pub why: Why,
    /// The same in words.
    pub cause: String,
    /// When and by what the span was listed after all.
    pub filled: Option<Filled>,
    /// Microsoft had ceased to list the span by then: it will never be filled.
    pub lost: bool,
    /// It has not ended.
    #[serde(default)]
    pub goes_on: bool,
}

impl Gap {
    /// One that has just ended, and is to be filled.
    #[must_use]
    pub fn new(from: Timestamp, to: Timestamp, why: Why, cause: impl Into<String>) -> Self {
        let mut cause: String = cause.into();
        cause.truncate(cause.floor_char_boundary(LONGEST_CAUSE));
        Self { from, to, why, cause, filled: None, lost: false, goes_on: false }
    }

    /// Whether it may yet be filled.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.filled.is_none() && !self.lost
    }
}

/// Those of a tenant's content type, by when they were noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// Notes one, unless it is known. One that begins within an open one is what is left of that: the listing was interrupted
    /// again before it was through.
    pub fn note(&mut self, gap: Gap) -> bool {
        let within = |known: &&mut Gap| known.lost == gap.lost && known.from <= gap.from && gap.from <= known.to;
        let open = |known: &Gap| known.filled.is_none();
        if let Some(known) = self.0.iter_mut().rev().find(|known| open(known) && within(known)) {
            let grows = gap.to > known.to;
            known.to = known.to.max(gap.to);
            return grows;
        }
        self.0.push(gap);
        let over = self.0.len().saturating_sub(MOST);
        self.0.drain(..over);
        true
    }

    /// All was listed that the poll had to list, up to `to`: it goes on where it stood, so that it leaves no hole.
    pub fn polled(&mut self, to: Timestamp, at: Timestamp) -> bool {
        self.fill(|gap| gap.to <= to, Filled { at, by: Tier::Poll })
    }

    /// All that the service holds since `from` was listed by now. Of what a clock that was set back has counted ahead, that is
    /// all there is.
    pub fn swept(&mut self, from: Timestamp, at: Timestamp) -> bool {
        self.fill(|gap| gap.from >= from && gap.from <= at, Filled { at, by: Tier::Sweep })
    }

    fn fill(&mut self, is_in: impl Fn(&Gap) -> bool, filled: Filled) -> bool {
        let mut any = false;
        for gap in self.0.iter_mut().filter(|gap| gap.is_open() && is_in(gap)) {
            gap.filled = Some(filled);
            any = true;
        }
        any
    }

    /// Whether one may yet be filled.
    #[must_use]
    pub fn any_open(&self) -> bool {
        self.0.iter().any(Gap::is_open)
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Gap] {
        &self.0
    }
}

impl FromIterator<Gap> for Gaps {
    fn from_iter<T: IntoIterator<Item = Gap>>(gaps: T) -> Self {
        Self(gaps.into_iter().collect())
    }
}

/// A gap, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapLine {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub content_type: ContentType,
    /// When and why.
    pub gap: Gap,
}

impl Store {
    /// Those of a tenant.
    pub async fn gaps_of(&self, tenant: TenantId) -> Result<BTreeMap<ContentType, Gaps>, StoreError> {
        self.state().gaps(tenant).await
    }

    /// Keeps them, durably, in the place of those that were there.
    pub async fn keep_gaps(&self, tenant: TenantId, content_type: ContentType, gaps: &Gaps) -> Result<(), StoreError> {
        self.state().put_gaps(tenant, content_type, gaps).await
    }

    /// The gaps of what `query` asks for, which meet its times; the oldest first. Those that go on are among them, as they look
    /// from here: whether somebody is to list at all, only the configuration says. `runs`: a daemon does.
    pub async fn gaps(&self, query: Query, runs: bool) -> Result<Vec<GapLine>, StoreError> {
        let now = self.now();
        let (held, notes) = (self.held().await?, self.notes().await?);
        let mut lines = Vec::new();
        for tenant in self.state().listed_tenants().await? {
            if !query.tenants.is_empty() && !query.tenants.contains(&tenant) {
                continue;
            }
            for (content_type, gaps) in self.gaps_of(tenant).await? {
                lines.extend(gaps.0.into_iter().map(|gap| GapLine { tenant, content_type, gap }));
            }
            let trouble = notes.get(&tenant).and_then(|note| TroubleStatus::from_note(note));
            let why = match (held.contains_key(&tenant), trouble) {
                (true, _) => (Why::NotCollected, "an operator has paused the tenant".to_owned()),
                (_, Some(of)) if runs => (Why::Trouble, of.trouble.cause),
                (_, Some(of)) => {
                    (Why::NotRunning, format!("the daemon does not run; when it did last: {}", of.trouble.cause))
                }
                (_, None) if runs => (Why::Unknown, "no listing succeeds, and nothing says why".to_owned()),
                (_, None) => (Why::NotRunning, "the daemon does not run".to_owned()),
            };
            for (content_type, mark) in self.watermarks(tenant).await? {
                let goes_on = going_on(mark, now, &why).filter(|_| !content_type.is_health());
                lines.extend(goes_on.map(|gap| GapLine { tenant, content_type, gap }));
            }
        }
        let is_asked = |line: &GapLine| {
            let GapLine { content_type, gap, .. } = line;
            let meets =
                query.since.is_none_or(|since| gap.to >= since) && query.until.is_none_or(|until| gap.from < until);
            meets && (query.content_types.is_empty() || query.content_types.contains(content_type))
        };
        lines.retain(is_asked);
        lines.sort_by_key(|line| (line.gap.from, line.tenant, line.content_type));
        Ok(lines)
    }
}

/// The gap that goes on, if nothing has been listed for so long.
fn going_on(mark: Watermark, now: Timestamp, (why, cause): &(Why, String)) -> Option<Gap> {
    let from = mark.listed_to.filter(|to| now.duration_since(*to) >= LEAST)?;
    Some(Gap { goes_on: true, ..Gap::new(from, now, *why, cause.as_str()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + hour * 3600).unwrap()
    }

    fn gap(from: i64, to: i64, why: Why) -> Gap {
        Gap::new(at(from), at(to), why, "a test")
    }

    fn filled(gaps: &Gaps) -> Vec<Option<Tier>> {
        gaps.list().iter().map(|gap| gap.filled.map(|filled| filled.by)).collect()
    }

    #[test]
    fn what_is_left_of_an_interruption_is_the_same_one() {
        let mut gaps = Gaps::default();
        assert!(gaps.note(gap(0, 10, Why::NotRunning)));
        assert!(!gaps.note(gap(4, 10, Why::NotRunning)), "it is known");
        assert!(gaps.note(gap(6, 12, Why::Trouble)));
        assert_eq!(gaps.list(), [gap(0, 12, Why::NotRunning)]);
        assert!(gaps.polled(at(12), at(13)));
        assert_eq!(filled(&gaps), [Some(Tier::Poll)], "what came before its start was listed, says the watermark");
        assert!(gaps.note(gap(6, 15, Why::Trouble)), "one that was filled is over");
        assert_eq!((gaps.list().len(), gaps.any_open()), (2, true));
    }

    #[test]
    fn a_poll_does_not_fill_what_it_has_not_listed() {
        let mut gaps: Gaps =
            [gap(6, 9, Why::Trouble), gap(10, 12, Why::Unknown), gap(10, 30, Why::Clock)].into_iter().collect();
        gaps.note(Gap { lost: true, ..gap(-300, -200, Why::NotRunning) });
        assert!(gaps.polled(at(11), at(11)));
        assert_eq!(filled(&gaps), [Some(Tier::Poll), None, None, None]);
        assert!(!gaps.polled(at(11), at(11)), "nothing changes");
        assert!(gaps.swept(at(-100), at(20)));
        assert_eq!(filled(&gaps), [Some(Tier::Poll), Some(Tier::Sweep), Some(Tier::Sweep), None]);
        assert!(!gaps.any_open(), "what is lost stays lost");
    }

    #[test]
    fn only_so_many_are_kept_and_only_so_much_of_a_cause() {
        let mut gaps = Gaps::default();
        for hour in 0..60 {
            gaps.note(gap(3 * hour, 3 * hour + 2, Why::Trouble));
        }
        assert_eq!((gaps.list().len(), gaps.list()[0].from), (50, at(30)));
        let long = Gap::new(at(0), at(1), Why::Trouble, "ä".repeat(400));
        assert_eq!(long.cause.len(), 500);
    }

    #[test]
    fn what_was_listed_within_the_hour_is_no_gap() {
        let mark = |listed_to| Watermark { listed_to, ..Watermark::default() };
        let why = (Why::NotRunning, "the daemon does not run".to_owned());
        assert_eq!(going_on(mark(None), at(5), &why), None);
        assert_eq!(going_on(mark(Some(at(4) + SignedDuration::from_secs(1))), at(5), &why), None);
        assert_eq!(going_on(mark(Some(at(9))), at(5), &why), None, "a clock that was set back");
        let gap = going_on(mark(Some(at(4))), at(5), &why).unwrap();
        assert_eq!((gap.from, gap.to, gap.goes_on, gap.is_open()), (at(4), at(5), true, true));
    }
}
