//! Interruptions of a tenant's listing: found when the watermark moves again after standing still for an hour, and noted
//! with their cause in the [store](crate::store::Gaps), so that the ledger can say of a hole in the past when it was filled.
//!
//! **Invariants:** an interruption is on record, durably, before the watermark passes it; only answers with a `Date`
//! say that there was one; nothing is written while listing goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::debug;

use super::plan;
use super::tree::Tree;
use crate::activity::Window;
use crate::content::{ContentType, Tier};
use crate::report::{Trouble, TroubleStatus, span};
use crate::retry::Stage;
use crate::store::{Gap, Gaps, LEAST_GAP, StoreError, Why};

/// What is known of a tenant's interruptions.
#[derive(Debug)]
pub(super) struct Interruptions {
    books: Mutex<Books>,
    /// Held by who writes.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Books {
    gaps: BTreeMap<ContentType, Gaps>,
    /// Those that differ from what the store has.
    changed: BTreeSet<ContentType>,
    /// When each was last listed by a poll.
    listed: BTreeMap<ContentType, Instant>,
    /// What has kept each, or all of them, from being listed since.
    troubles: BTreeMap<Option<ContentType>, String>,
    /// Since when this process may list.
    since: Instant,
    /// What the process before had met.
    before: Option<String>,
}

impl Default for Interruptions {
    fn default() -> Self {
        let books = Books {
            gaps: BTreeMap::new(),
            changed: BTreeSet::new(),
            listed: BTreeMap::new(),
            troubles: BTreeMap::new(),
            since: Instant::now(),
            before: None,
        };
        Self { books: Mutex::new(books), writing: tokio::sync::Mutex::default() }
    }
}

impl Interruptions {
    /// Reads what is on record, and what the process before had met last.
    pub(super) async fn restore(&self, tree: &Tree) -> Result<(), StoreError> {
        let gaps = match tree.store.gaps_of(tree.tenant).await {
            // A note that cannot be read keeps nobody from collecting.
            Err(error @ StoreError::Undecodable { .. }) => {
                debug!(tenant = %tree.tenant, %error, "the gaps on record cannot be understood");
                BTreeMap::new()
            }
            gaps => gaps?,
        };
        let note = tree.store.note(tree.tenant).await?;
        let before = note.and_then(|note| TroubleStatus::from_note(&note)).map(|status| status.trouble.cause);
        let mut books = self.books();
        // What could not be written is newer.
        for (content_type, gaps) in gaps {
            if !books.changed.contains(&content_type) {
                books.gaps.insert(content_type, gaps);
            }
        }
        books.before = before;
        Ok(())
    }

    /// Something keeps one content type, or all, from being listed.
    pub(super) fn troubled(&self, stage: Stage, content_type: Option<ContentType>, trouble: &Trouble) {
        match stage {
            Stage::Retrieve | Stage::Health | Stage::Names => {}
            Stage::Token | Stage::Subscribe | Stage::List | Stage::Store | Stage::Paused | Stage::Restart => {
                self.books().troubles.insert(content_type, trouble.cause.clone());
            }
        }
    }

    /// The service's time has stepped back to `now` from where the watermark stood: what is between passes twice.
    pub(super) fn stepped_back(&self, content_type: ContentType, now: Timestamp, stood: Timestamp) {
        let back = stood.duration_since(now);
        if back >= LEAST_GAP {
            let cause = format!("the service's clock was set back by {}", span(back.as_secs()));
            self.books().note(content_type, Gap::new(now, stood, Why::Clock, cause));
        }
    }

    /// Answers have justified that the watermark goes on from `stood`, by a plan that reaches up to `to`. What was lost of the
    /// span, since Microsoft lists it no more, is a gap that stays.
    pub(super) fn goes_on(
        &self,
        tree: &Tree,
        content_type: ContentType,
        (stood, to): (Timestamp, Timestamp),
        lost: Option<plan::Gap>,
    ) {
        let passed = to.duration_since(stood);
        if passed < LEAST_GAP {
            return;
        }
        let mut books = self.books();
        let (why, cause) = books.why(content_type, passed, tree.is_mended());
        if let Some(lost) = lost {
            books.note(content_type, Gap { lost: true, ..Gap::new(lost.from, lost.to, why, cause.as_str()) });
        }
        books.note(content_type, Gap::new(lost.map_or(stood, |lost| lost.to), to, why, cause));
    }

    /// A tier has listed all that it had to, from `from` to `to`.
    pub(super) fn listed(
        &self,
        content_type: ContentType,
        tier: Tier,
        (from, to): (Timestamp, Timestamp),
        at: Timestamp,
    ) {
        let mut books = self.books();
        if tier == Tier::Poll {
            books.listed.insert(content_type, Instant::now());
            books.troubles.remove(&Some(content_type));
            books.troubles.remove(&None);
        }
        let Some(gaps) = books.gaps.get_mut(&content_type) else { return };
        let changed = match tier {
            Tier::Poll => gaps.polled(to, at),
            Tier::Sweep => gaps.swept(from, at),
            Tier::Recent | Tier::Webhook => false,
        };
        if changed {
            books.changed.insert(content_type);
        }
    }

    /// Writes what has changed. What cannot be written is kept, and tried the next time.
    pub(super) async fn keep(&self, tree: &Tree) {
        if self.books().changed.is_empty() {
            return;
        }
        let _one = self.writing.lock().await;
        let changed = std::mem::take(&mut self.books().changed);
        for content_type in changed {
            let gaps = self.books().gaps.get(&content_type).cloned().unwrap_or_default();
            if let Err(error) = tree.store.keep_gaps(tree.tenant, content_type, &gaps).await {
                debug!(tenant = %tree.tenant, %content_type, %error, "a gap is not noted");
                self.books().changed.insert(content_type);
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn note(&mut self, content_type: ContentType, gap: Gap) {
        if self.gaps.entry(content_type).or_default().note(gap) {
            self.changed.insert(content_type);
        }
    }

    fn why(&self, content_type: ContentType, passed: SignedDuration, mended: bool) -> (Why, String) {
        let now = Instant::now();
        let trouble = [Some(content_type), None].iter().find_map(|about| self.troubles.get(about));
        let ran = self.listed.get(&content_type).copied();
        let seen = Seen {
            here: now.saturating_duration_since(ran.unwrap_or(self.since)),
            listed: ran.is_some(),
            trouble: trouble.map(String::as_str),
            mended,
            before: self.before.as_deref(),
        };
        why(passed, &seen)
    }
}

/// What can be told of an interruption at its end.
struct Seen<'a> {
    /// How long this process has been there without listing it, by a clock that never steps.
    here: Duration,
    /// Whether it has listed it before.
    listed: bool,
    /// What has kept it since.
    trouble: Option<&'a str>,
    /// The tenant was known to this process before its tasks were started.
    mended: bool,
    /// What the process before had met.
    before: Option<&'a str>,
}

/// Why nobody listed while so much of the service's time passed.
fn why(passed: SignedDuration, seen: &Seen<'_>) -> (Why, String) {
    let mostly_here = SignedDuration::try_from(seen.here).unwrap_or(SignedDuration::MAX) >= passed / 2;
    match (seen.trouble, mostly_here, seen.listed) {
        (Some(trouble), true, _) => (Why::Trouble, trouble.to_owned()),
        (None, true, _) => (Why::Unknown, "no listing succeeded, and nothing says why".to_owned()),
        (_, false, true) => {
            let (passed, here) = (span(passed.as_secs()), span(i64::try_from(seen.here.as_secs()).unwrap_or(i64::MAX)));
            let cause = format!(
                "the service's clock went on by {passed} while this host saw {here} pass: a clock was corrected, or the host \
                 slept"
            );
            (Why::Clock, cause)
        }
        (_, false, false) => match seen.before {
            Some(before) => (Why::Trouble, format!("{before}; after that nobody collected")),
            None if seen.mended => (Why::NotCollected, "the tenant was paused, disabled or without an app".to_owned()),
            None => (Why::NotRunning, "the daemon did not run".to_owned()),
        },
    }
}

/// From when to when windows reach.
pub(super) fn reach(windows: &[Window]) -> Option<(Timestamp, Timestamp)> {
    Some((windows.first()?.start, windows.last()?.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn who_was_there_all_the_time_knows_what_kept_him_and_who_was_not_knows_that() {
        let seen = |here, listed, trouble, mended, before| Seen { here, listed, trouble, mended, before };
        let refused = Some("Microsoft refuses the app");
        let (moment, all) = (HOUR / 60, 10 * HOUR);
        for (seen, is, told) in [
            (seen(all, true, refused, false, None), Why::Trouble, "Microsoft refuses the app"),
            (seen(all, false, refused, false, None), Why::Trouble, "Microsoft refuses the app"),
            (seen(all, true, None, false, None), Why::Unknown, "nothing says why"),
            (seen(moment, true, None, false, None), Why::Clock, "went on by 10h 0m while this host saw 1m 0s pass"),
            (seen(moment, true, refused, true, refused), Why::Clock, "a clock was corrected"),
            (seen(moment, false, None, false, None), Why::NotRunning, "the daemon did not run"),
            (seen(moment, false, refused, false, None), Why::NotRunning, "the daemon did not run"),
            (seen(moment, false, None, false, refused), Why::Trouble, "refuses the app; after that nobody collected"),
            (seen(moment, false, None, true, None), Why::NotCollected, "paused"),
        ] {
            let (why, cause) = why(SignedDuration::from_hours(10), &seen);
            assert_eq!(why, is, "{cause}");
            assert!(cause.contains(told), "{cause}");
        }
    }
}
