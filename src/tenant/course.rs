//! A run that ends by itself: what it is to do, and whether that is done, or cannot be done now.
//!
//! A tree tells its [`Course`] how far it has come; [`Headway::judge`] decides. What fails is tried again at the pace that the tree has in
//! any case, and only whether somebody still waits for that is decided here: not for what a person must act on, nor for what
//! has its next chance after the patience is over, nor for what has failed too often. All of it is durable, and the next run
//! goes on with it.
//!
//! **Invariant:** a run comes to its end. It is waited only while something was achieved lately, and what can be achieved is
//! finite: the spans are listed once, and each blob is stored or given up once. What fails again and again while something is
//! achieved each time is left after [`ENOUGH`] times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::content::{ContentType, Tier};

/// A listing that has failed so often in a row is left to the next run. Each time a page was asked for several times.
const ENOUGH: u32 = 5;

/// What a tree is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Assignment {
    /// Collects until it is stopped.
    #[default]
    Always,
    /// Lists all that the service holds, once, and retrieves it.
    Once,
    /// Looks after the subscriptions and retrieves what is queued; lists nothing by itself.
    Queue,
    /// Asks for nothing by itself: its token and its gate are there for whoever asks for something.
    Nothing,
}

impl Assignment {
    /// Whether this tier is listed.
    pub(super) const fn lists(self, tier: Tier) -> bool {
        match self {
            Self::Always => true,
            Self::Once => matches!(tier, Tier::Poll | Tier::Sweep),
            Self::Queue | Self::Nothing => false,
        }
    }
}

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All of it was had.
    Had,
    /// It is being worked on, or waits for its turn.
    UnderWay,
    /// It is tried again at this moment, after so many failures in a row.
    Again(Instant, u32),
    /// It cannot be had until a person has acted.
    Refused,
}

/// How far one tenant has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headway {
    /// The listing of each content type.
    pub lists: BTreeMap<ContentType, Reach>,
    /// What waits to be retrieved.
    pub queue: Reach,
    /// Subscribed by this run, and nothing was listed yet.
    pub awaited: BTreeSet<ContentType>,
    /// Entries that are listed so that they cannot be collected.
    pub refused: BTreeMap<ContentType, usize>,
    /// Blobs that were fetched so young that they are to be looked at again.
    pub young: u64,
    /// Blobs that were put aside, since these settings do not let them be retrieved.
    pub aside: u64,
    /// When something was achieved last.
    pub advanced: Instant,
}

/// Whether there is something to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is.
    Working,
    /// All that the tenant has was had.
    Complete,
    /// Something is left that cannot be had now.
    Left,
}

impl Headway {
    /// Of a tenant that has not begun by `since`.
    #[must_use]
    pub fn none(content_types: &BTreeSet<ContentType>, since: Instant) -> Self {
        Self {
            lists: content_types.iter().map(|content_type| (*content_type, Reach::UnderWay)).collect(),
            queue: Reach::Had,
            awaited: BTreeSet::new(),
            refused: BTreeMap::new(),
            young: 0,
            aside: 0,
            advanced: since,
        }
    }

    /// Decides at `now`. `others`: when something was achieved last for whatever tenant; who waits for its turn waits for
    /// others.
    #[must_use]
    pub fn judge(&self, now: Instant, others: Instant, patience: Duration) -> Verdict {
        let mut left = self.lists.values().chain([&self.queue]).filter(|reach| **reach != Reach::Had).peekable();
        if left.peek().is_none() {
            let complete = self.awaited.is_empty() && self.refused.is_empty();
            return if complete { Verdict::Complete } else { Verdict::Left };
        }
        let hopeful = left.any(|reach| match *reach {
            Reach::Had | Reach::Refused => false,
            Reach::UnderWay => now < self.advanced.max(others) + patience,
            Reach::Again(at, failures) => {
                failures < ENOUGH && at < self.advanced + patience && now < self.advanced + patience
            }
        });
        if hopeful { Verdict::Working } else { Verdict::Left }
    }
}

/// What a tree tells of itself while it runs. Of a tree that runs until it is stopped nobody asks.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) assignment: Assignment,
    headway: Mutex<Headway>,
}

impl Default for Course {
    /// Of a tree that runs until it is stopped.
    fn default() -> Self {
        Self::new(Assignment::Always, &BTreeSet::new())
    }
}

impl Course {
    /// Of a tree that is to list these content types.
    pub(super) fn new(assignment: Assignment, content_types: &BTreeSet<ContentType>) -> Self {
        Self { assignment, headway: Mutex::new(Headway::none(content_types, Instant::now())) }
    }

    /// Whether somebody waits for its end.
    pub(super) fn ends(&self) -> bool {
        self.assignment != Assignment::Always
    }

    /// Whether the tree asks for nothing by itself.
    pub(super) fn is_idle(&self) -> bool {
        self.assignment == Assignment::Nothing
    }

    /// Something was achieved.
    pub(super) fn advance(&self) {
        if self.ends() {
            self.lock().advanced = Instant::now();
        }
    }

    /// A blob was fetched so young that it is to be looked at again.
    pub(super) fn took_young(&self) {
        self.lock().young += 1;
    }

    /// A blob was put aside.
    pub(super) fn put_aside(&self) {
        self.lock().aside += 1;
    }

    /// The service lists so many entries of a content type so that they cannot be collected.
    pub(super) fn refused(&self, content_type: ContentType, entries: usize) {
        let refused = &mut self.lock().refused;
        if entries > 0 {
            refused.insert(content_type, entries);
        } else {
            refused.remove(&content_type);
        }
    }

    /// How the listings stand, those of other content types as they were told last, and what waits.
    pub(super) fn tell(
        &self,
        lists: impl IntoIterator<Item = (ContentType, Reach)>,
        queue: Reach,
        awaited: &BTreeSet<ContentType>,
    ) {
        let mut headway = self.lock();
        headway.lists.extend(lists);
        headway.queue = queue;
        awaited.clone_into(&mut headway.awaited);
    }

    /// How one listing stands.
    pub(super) fn tell_list(&self, content_type: ContentType, reach: Reach) {
        self.lock().lists.insert(content_type, reach);
    }

    /// How far it has come, with so much in its queue. That becomes less after the tree has told.
    pub(super) fn headway(&self, waiting: u64) -> Headway {
        let mut headway = self.lock().clone();
        if waiting == 0 {
            headway.queue = Reach::Had;
        } else if headway.queue == Reach::Had {
            headway.queue = Reach::UnderWay;
        }
        headway
    }

    fn lock(&self) -> MutexGuard<'_, Headway> {
        self.headway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(2);
    const EXCHANGE: ContentType = ContentType::Exchange;

    fn headway(list: Reach, queue: Reach, advanced: Instant) -> Headway {
        let lists = [(EXCHANGE, list), (ContentType::General, Reach::Had)].into();
        Headway { lists, queue, ..Headway::none(&BTreeSet::new(), advanced) }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_what_may_come_within_the_patience() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let at = |seconds, failures| Reach::Again(after(seconds), failures);
        for (list, queue, now, others, verdict) in [
            (Reach::Had, Reach::Had, 0, 0, Verdict::Complete),
            (Reach::UnderWay, Reach::Had, 119, 0, Verdict::Working),
            (Reach::UnderWay, Reach::Had, 120, 0, Verdict::Left),
            (Reach::Had, Reach::UnderWay, 200, 100, Verdict::Working),
            (Reach::Refused, Reach::Had, 0, 0, Verdict::Left),
            (Reach::Refused, Reach::UnderWay, 0, 0, Verdict::Working),
            (at(60, 0), Reach::Had, 0, 0, Verdict::Working),
            (at(121, 0), Reach::Had, 0, 0, Verdict::Left),
            // Others do not make it come sooner.
            (at(121, 0), Reach::Had, 0, 100, Verdict::Left),
            (at(60, 0), Reach::Had, 120, 120, Verdict::Left),
            (at(60, ENOUGH), Reach::Had, 0, 0, Verdict::Left),
            (Reach::Had, at(60, 0), 0, 0, Verdict::Working),
            (Reach::Refused, at(600, 0), 0, 0, Verdict::Left),
        ] {
            let judged = headway(list, queue, begun).judge(after(now), after(others), PATIENCE);
            assert_eq!(judged, verdict, "{list:?} {queue:?} {now} {others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_listed_wrongly_or_awaited_is_left() {
        let now = Instant::now();
        let had = headway(Reach::Had, Reach::Had, now);
        let awaited = Headway { awaited: [EXCHANGE].into(), ..had.clone() };
        let refused = Headway { refused: [(EXCHANGE, 1)].into(), ..had };
        for left in [awaited, refused] {
            assert_eq!(left.judge(now, now, PATIENCE), Verdict::Left, "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_course_tells_of_a_queue_what_is_true_when_it_is_asked() {
        let course = Course::new(Assignment::Once, &[EXCHANGE].into());
        let begun = Instant::now();
        assert_eq!(course.headway(0).lists[&EXCHANGE], Reach::UnderWay);
        course.tell([(EXCHANGE, Reach::Had)], Reach::Had, &BTreeSet::new());
        assert_eq!(course.headway(1).queue, Reach::UnderWay);
        course.tell([], Reach::Again(begun, 1), &BTreeSet::new());
        assert_eq!((course.headway(1).queue, course.headway(0).queue), (Reach::Again(begun, 1), Reach::Had));
        assert_eq!(course.headway(0).lists[&EXCHANGE], Reach::Had, "as it was told");
        tokio::time::advance(Duration::from_secs(1)).await;
        course.advance();
        assert_eq!(course.headway(0).advanced, begun + Duration::from_secs(1));
        course.refused(EXCHANGE, 2);
        course.refused(EXCHANGE, 0);
        assert!(course.headway(0).refused.is_empty());
    }
}
