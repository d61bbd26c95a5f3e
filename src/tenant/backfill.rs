//! Listing a span again because an operator wants it: what is not stored yet is queued, and retrieved as anything else.
//!
//! It is the sweep of a tenant's tasks, over another span and at another time: with the tenant's own token, through its own
//! gate, queued durably page by page. So it may be asked for again, and queues nothing twice.
//!
//! **Invariants:** no watermark moves by it; a wait that the service asked for holds here too, and is not waited for when it is
//! longer than a person waits for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::plan;
use super::poll;
use super::roster::{Member, Refusal};
use super::tree::Tree;
use crate::activity::Window;
use crate::content::{ContentType, Tier};
use crate::report::{Trouble, span};
use crate::store::{StoreError, WaitKey};

/// "The start time is no more than 7 days in the past" ("List available content", activity API reference).
const LISTED_FOR: Duration = Duration::from_hours(7 * 24);
/// What was meant as seven days ago is a little longer ago when it is read, and clocks differ.
const LEEWAY: Duration = Duration::from_mins(5);
/// A wait that is longer than this is told and not waited for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often it is looked for one.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is to be listed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// From when on content was available.
    pub since: Timestamp,
    /// Until when; until now if nothing is said.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Which content types; all that are collected if none is named.
    #[serde(default)]
    pub content_types: BTreeSet<ContentType>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfilled {
    /// From when on it was listed: windows begin at multiples of five minutes.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By content type.
    pub content: BTreeMap<ContentType, Found>,
}

/// What was found of one content type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Blobs that are listed.
    pub found: u64,
    /// How many of them were stored, queued or given up before.
    pub known: u64,
    /// How many of them are queued now.
    pub queued: u64,
    /// Entries that are listed so that they cannot be retrieved.
    pub refused: u64,
    /// Why not all of it was listed, if it was not.
    pub trouble: Option<Trouble>,
}

/// Why nothing was listed.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Nobody knows the tenant.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody collects it, so that nobody would retrieve what is found.
    #[error("`{name}` is not collected, so that nobody would retrieve what is listed: {why}")]
    NotCollected {
        /// What the tenant is called.
        name: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A content type is not collected.
    #[error("{content_type} of `{name}` is not collected: add it to the tenant's `content_types`")]
    NotWanted {
        /// What the tenant is called.
        name: String,
        /// Which.
        content_type: ContentType,
    },
    /// It is too long ago.
    #[error(
        "Microsoft lists what became available in the last seven days, so that nothing before {} can be had any more: ask for \
         that or later", written(*earliest)
    )]
    TooOld {
        /// The earliest that is listed.
        earliest: Timestamp,
    },
    /// There is nothing between the two times.
    #[error("there is nothing to list between {} and {}: the first must be before the second, and in the past", written(*since), written(*until))]
    Empty {
        /// From when on.
        since: Timestamp,
        /// Until when.
        until: Timestamp,
    },
    /// The waits that outlive the process cannot be read.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Lists for one tenant.
#[derive(Debug, Clone)]
pub struct Backfill {
    pub(super) tree: Arc<Tree>,
}

impl Backfill {
    /// Lists the span, type after type. What one type meets keeps none of the others.
    pub async fn list(&self, wish: &Wish) -> Result<Backfilled, BackfillError> {
        let tree = &self.tree;
        let name = || tree.report.name();
        if let Some(strange) = wish.content_types.difference(&tree.content_types).next() {
            return Err(BackfillError::NotWanted { name: name(), content_type: *strange });
        }
        let now = tree.time.now();
        let windows = windows(wish, now)?;
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
            return Err(BackfillError::Empty { since: wish.since, until: wish.until.unwrap_or(now) });
        };
        // The tenant's tasks may not have begun.
        tree.restore_waits().await?;
        let wanted = if wish.content_types.is_empty() { &tree.content_types } else { &wish.content_types };
        let mut content = BTreeMap::new();
        for content_type in wanted {
            content.insert(*content_type, self.list_type(*content_type, &windows).await);
        }
        let sum = |number: fn(&Found) -> u64| content.values().map(number).sum::<u64>();
        info!(
            tenant = %tree.tenant,
            name = name(),
            since = %first.start,
            until = %last.end,
            found = sum(|found| found.found),
            queued = sum(|found| found.queued),
            "listed again for an operator"
        );
        Ok(Backfilled { since: first.start, until: last.end, content })
    }

    async fn list_type(&self, content_type: ContentType, windows: &[Window]) -> Found {
        let tree = &self.tree;
        let mut found = Found::default();
        for planned in windows {
            // Windows may have waited for those before them.
            let Some(window) = plan::still_listable(*planned, tree.time.now()) else { continue };
            let listed = tokio::select! {
                biased;
                wait = self.long_wait() => {
                    self.remember_wait().await;
                    found.trouble = Some(wait);
                    return found;
                }
                listed = poll::list_window(tree, content_type, Tier::Sweep, window) => listed,
            };
            match listed {
                Ok((_, listed, date)) => {
                    tree.report.listed(content_type, Tier::Sweep, date.unwrap_or_else(|| tree.time.now()), listed.new);
                    found.queued += listed.new as u64;
                    found.known += listed.known as u64;
                    found.refused += listed.refused as u64;
                    found.found = found.queued + found.known;
                }
                Err(failure) => {
                    found.trouble = Some(failure.trouble());
                    return found;
                }
            }
        }
        found
    }

    /// Whoever was about to write it down was broken off.
    async fn remember_wait(&self) {
        let tree = &self.tree;
        if let Some(until) = tree.gate.closed_until()
            && let Err(error) = tree.waits.extend(WaitKey::Throttled, until).await
        {
            debug!(tenant = %tree.tenant, %error, "wait not remembered");
        }
    }

    /// Resolves when the service wants to be left alone for longer than a person waits.
    async fn long_wait(&self) -> Trouble {
        loop {
            let left = self.tree.gate.closed_until().map(|until| until.saturating_duration_since(Instant::now()));
            if let Some(left) = left.filter(|left| *left > LONGEST_WAIT) {
                let left = span(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
                let told = format!("Microsoft has asked to be left alone for another {left}: ask again then");
                return Trouble::passing("throttled", told);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Nothing of a member is collected.
#[must_use]
pub fn not_collected(member: &Member) -> BackfillError {
    BackfillError::NotCollected { name: member.name.clone(), why: member.why_not_collected() }
}

/// The windows of what is wished for.
fn windows(wish: &Wish, now: Timestamp) -> Result<Vec<Window>, BackfillError> {
    if wish.since < plan::earlier(plan::earlier(now, LISTED_FOR), LEEWAY) {
        return Err(BackfillError::TooOld { earliest: plan::earlier(now, plan::OLDEST) });
    }
    Ok(plan::between(wish.since, wish.until.unwrap_or(now), now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn wish(since: &str, until: Option<&str>) -> Wish {
        Wish { since: at(since), until: until.map(at), content_types: BTreeSet::new() }
    }

    #[test]
    fn what_microsoft_does_not_list_any_more_is_refused_and_seven_days_are_not() {
        let now = at("2026-11-22T12:34:56Z");
        let week = windows(&wish("2026-11-15T12:34:50Z", None), now).unwrap();
        assert_eq!(
            (week.len(), week[0].start, week[6].end),
            (7, at("2026-11-15T12:40:00Z"), at("2026-11-22T12:34:53Z"))
        );
        let error = windows(&wish("2026-11-15T12:00:00Z", None), now).unwrap_err();
        assert!(error.to_string().contains("before 2026-11-15 12:39 UTC"), "{error}");
        let hour = windows(&wish("2026-11-20T08:02:00Z", Some("2026-11-20T09:00:00Z")), now).unwrap();
        assert_eq!(hour, [Window { start: at("2026-11-20T08:00:00Z"), end: at("2026-11-20T09:00:00Z") }]);
        for nothing in [wish("2026-11-22T13:00:00Z", None), wish("2026-11-20T09:00:00Z", Some("2026-11-20T08:00:00Z"))]
        {
            assert_eq!(windows(&nothing, now).unwrap(), []);
        }
    }
}
