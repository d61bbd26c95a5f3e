//! When which tier of which content type is listed next. Pure: moments in, decisions out.
//!
//! Each content type is a *feed* with a lane per tier. A lane runs at most once at a time; the poll keeps its cadence
//! while a sweep of the same feed takes its time. A feed without an enabled subscription has no due lane, one that the
//! service refuses is blocked for a growing while, and neither delays another feed. One sweep at a time per tenant.
//!
//! In a run that ends by itself ([`Assignment`]) a lane that has listed its span is over: the poll comes first, which moves the
//! watermark, and the sweep after it, unless the poll was one.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::course::Assignment;
use super::plan;
use crate::config::Collect;
use crate::content::{ContentType, TenantId, Tier};
use crate::retry::{Backoff, Stage};
use crate::store::Watermark;

/// The lanes of all content types of one tenant.
#[derive(Debug)]
pub(super) struct Schedule {
    feeds: Vec<Feed>,
    collect: Collect,
    assignment: Assignment,
}

#[derive(Debug)]
struct Feed {
    content_type: ContentType,
    /// Its subscription is enabled, as far as is known.
    ready: bool,
    blocked_until: Option<Instant>,
    /// How long the service's refusals block it.
    pause: Backoff,
    lanes: [Lane; 3],
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "signs that do not depend on each other, each with its sentence")]
struct Lane {
    tier: Tier,
    running: bool,
    due: Instant,
    /// The start of the window at which the last activation failed.
    resume: Option<Timestamp>,
    backoff: Backoff,
    /// It failed because the token was refused.
    refused: bool,
    /// Its span was listed in this run.
    listed: bool,
    /// It is not due any more.
    over: bool,
}

impl Lane {
    fn new(tier: Tier, due: Instant) -> Self {
        Self {
            tier,
            running: false,
            due,
            resume: None,
            backoff: Backoff::new(Stage::List),
            refused: false,
            listed: false,
            over: false,
        }
    }
}

/// How a feed stands in a run that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// All that it was to list is listed.
    Over,
    /// A lane runs.
    Running,
    /// Its subscription is not enabled, as far as is known.
    NotReady,
    /// The service refuses it in a way that only a person can end.
    Blocked,
    /// It is listed from then on, after so many failures in a row.
    Due(Instant, u32),
}

/// A lane whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) content_type: ContentType,
    pub(super) tier: Tier,
    pub(super) resume: Option<Timestamp>,
}

impl Feed {
    fn outlook(&self, now: Instant) -> Outlook {
        if self.lanes.iter().all(|lane| lane.over) {
            Outlook::Over
        } else if self.lanes.iter().any(|lane| lane.running) {
            Outlook::Running
        } else if !self.ready {
            Outlook::NotReady
        } else if self.blocked_until.is_some_and(|until| until > now) {
            Outlook::Blocked
        } else {
            // The sweep waits for the poll.
            let next = self.lanes.iter().find(|lane| !lane.over);
            next.map_or(Outlook::Over, |lane| Outlook::Due(lane.due, lane.backoff.attempts()))
        }
    }
}

impl Schedule {
    /// `now` is the moment, `time` the service's time then. A feed that was listed before is presumed to be
    /// subscribed still; a new one waits for [`set_ready`](Self::set_ready).
    pub(super) fn new(
        tenant: TenantId,
        marks: impl IntoIterator<Item = (ContentType, Watermark)>,
        collect: Collect,
        assignment: Assignment,
        (now, time): (Instant, Timestamp),
    ) -> Self {
        let feed = |(content_type, mark): (ContentType, Watermark)| {
            let spread = plan::spread(tenant, Some(content_type), collect.recent_interval);
            let first = |last, interval| now + plan::first_due(last, interval, time, spread);
            let lane = |tier, due| Lane { over: !assignment.lists(tier), ..Lane::new(tier, due) };
            let sweep = match assignment {
                Assignment::Always => first(mark.sweep_at, collect.sweep_interval),
                Assignment::Once | Assignment::Queue | Assignment::Nothing => now,
            };
            Feed {
                content_type,
                ready: mark.listed_to.is_some(),
                blocked_until: None,
                pause: Backoff::new(Stage::Paused),
                lanes: [
                    lane(Tier::Poll, now),
                    lane(Tier::Recent, first(mark.recent_at, collect.recent_interval)),
                    lane(Tier::Sweep, sweep),
                ],
            }
        };
        Self { feeds: marks.into_iter().map(feed).collect(), collect, assignment }
    }

    /// The moment at which the next lane is due; `None` if none ever is.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let sweeping = self.is_sweeping();
        let idle = self.feeds.iter().filter(|feed| feed.ready).flat_map(|feed| {
            let lanes = feed.lanes.iter().filter(move |lane| {
                let waits = sweeping || self.is_early(feed);
                !(lane.running || lane.over || waits && lane.tier == Tier::Sweep)
            });
            lanes.map(|lane| feed.blocked_until.map_or(lane.due, |until| until.max(lane.due)))
        });
        idle.min()
    }

    /// A lane that is due at `now`; it counts as running from here on.
    pub(super) fn start(&mut self, now: Instant) -> Option<Due> {
        let sweeping = self.is_sweeping();
        let early: Vec<_> = self.feeds.iter().map(|feed| sweeping || self.is_early(feed)).collect();
        for (feed, no_sweep) in self.feeds.iter_mut().zip(early) {
            if !feed.ready || feed.blocked_until.is_some_and(|until| until > now) {
                continue;
            }
            for lane in &mut feed.lanes {
                if lane.running || lane.over || lane.due > now || (no_sweep && lane.tier == Tier::Sweep) {
                    continue;
                }
                lane.running = true;
                lane.refused = false;
                return Some(Due { content_type: feed.content_type, tier: lane.tier, resume: lane.resume });
            }
        }
        None
    }

    /// The activation listed its span. `whole`: and all that a sweep would.
    pub(super) fn succeeded(&mut self, content_type: ContentType, tier: Tier, whole: bool, now: Instant) {
        let (collect, ends) = (self.collect, self.assignment != Assignment::Always);
        let Some(feed) = self.feed(content_type) else { return };
        feed.pause.succeeded();
        feed.blocked_until = None;
        for lane in &mut feed.lanes {
            let interval = match lane.tier {
                Tier::Poll | Tier::Webhook => collect.poll_interval,
                Tier::Recent => collect.recent_interval,
                Tier::Sweep => collect.sweep_interval,
            };
            if lane.tier == tier {
                lane.running = false;
                lane.listed = true;
                lane.over = ends;
                lane.resume = None;
                // The cadence is kept, and turns that were missed are left out.
                lane.due = (lane.due + interval).max(now);
                lane.backoff.succeeded();
            } else if whole {
                lane.due = lane.due.max(now + interval);
                lane.over |= ends;
            }
        }
    }

    /// Something was listed that could not be collected: all is listed again within the recent interval.
    pub(super) fn sweep_soon(&mut self, content_type: ContentType, now: Instant) {
        let soon = now + self.collect.recent_interval;
        if let Some(lane) = self.lane(content_type, Tier::Sweep) {
            lane.due = lane.due.min(soon);
        }
    }

    /// The activation failed; it is tried again, no sooner than `asked`.
    pub(super) fn failed(
        &mut self,
        content_type: ContentType,
        tier: Tier,
        resume: Option<Timestamp>,
        asked: Option<Duration>,
        now: Instant,
    ) {
        let Some(lane) = self.lane(content_type, tier) else { return };
        lane.running = false;
        lane.resume = resume.or(lane.resume);
        lane.due = now + lane.backoff.failed(asked);
    }

    /// The activation that failed did so because the token was refused.
    pub(super) fn refused(&mut self, content_type: ContentType, tier: Tier) {
        if let Some(lane) = self.lane(content_type, tier) {
            lane.refused = true;
        }
    }

    /// There is another token.
    pub(super) fn retry_refused(&mut self, now: Instant) {
        for lane in self.feeds.iter_mut().flat_map(|feed| &mut feed.lanes).filter(|lane| lane.refused) {
            lane.due = lane.due.min(now);
            lane.backoff.succeeded();
        }
    }

    /// The activation did not take place: it is due again as soon as what kept it from that is over.
    pub(super) fn put_off(&mut self, content_type: ContentType, tier: Tier, resume: Option<Timestamp>, now: Instant) {
        let Some(lane) = self.lane(content_type, tier) else { return };
        lane.running = false;
        lane.resume = resume.or(lane.resume);
        lane.due = now;
    }

    /// The service refuses this content type in a way that only a person can end.
    pub(super) fn block(&mut self, content_type: ContentType, now: Instant) {
        let Some(feed) = self.feed(content_type) else { return };
        // Lanes that ran together meet the same refusal.
        if feed.blocked_until.is_none_or(|until| until <= now) {
            feed.blocked_until = Some(now + feed.pause.failed(None));
        }
    }

    /// Whether the feed's subscription is enabled.
    pub(super) fn set_ready(&mut self, content_type: ContentType, ready: bool) {
        if let Some(feed) = self.feed(content_type) {
            feed.ready = ready;
        }
    }

    /// Time has stepped back: what was listed by the time before may not be all.
    pub(super) fn list_all_again(&mut self, content_type: ContentType, now: Instant) {
        let assignment = self.assignment;
        if let Some(feed) = self.feed(content_type) {
            for lane in &mut feed.lanes {
                lane.due = lane.due.min(now);
                lane.over = !assignment.lists(lane.tier);
            }
        }
    }

    /// Whether no feed can be listed for want of a subscription or by the service's refusal.
    pub(super) fn is_idle_by_refusal(&self, now: Instant) -> bool {
        self.feeds.iter().all(|feed| !feed.ready || feed.blocked_until.is_some_and(|until| until > now))
    }

    /// Whether a feed is still being polled for the first time, and nothing has gone wrong with that.
    pub(super) fn is_fresh(&self) -> bool {
        self.feeds.iter().filter(|feed| feed.ready && feed.blocked_until.is_none()).any(|feed| {
            let poll = &feed.lanes[0];
            !poll.listed && poll.backoff.attempts() == 0
        })
    }

    /// Whether the polls of all feeds fail.
    pub(super) fn is_failing(&self) -> bool {
        self.feeds.iter().all(|feed| feed.lanes[0].backoff.attempts() > 0)
    }

    /// How each feed stands at `now`.
    pub(super) fn outlooks(&self, now: Instant) -> impl Iterator<Item = (ContentType, Outlook)> {
        self.feeds.iter().map(move |feed| (feed.content_type, feed.outlook(now)))
    }

    /// Whether the feed's sweep waits for its poll, which may list as much.
    fn is_early(&self, feed: &Feed) -> bool {
        self.assignment == Assignment::Once && !feed.lanes[0].over
    }

    fn is_sweeping(&self) -> bool {
        self.feeds.iter().any(|feed| feed.lanes.iter().any(|lane| lane.running && lane.tier == Tier::Sweep))
    }

    fn feed(&mut self, content_type: ContentType) -> Option<&mut Feed> {
        self.feeds.iter_mut().find(|feed| feed.content_type == content_type)
    }

    fn lane(&mut self, content_type: ContentType, tier: Tier) -> Option<&mut Lane> {
        self.feed(content_type)?.lanes.iter_mut().find(|lane| lane.tier == tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: ContentType = ContentType::Exchange;
    const GENERAL: ContentType = ContentType::General;

    fn time() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn listed(minutes: i64) -> Watermark {
        let at = Some(time() - jiff::SignedDuration::from_mins(minutes));
        Watermark { listed_to: at, recent_at: at, sweep_at: at }
    }

    fn schedule(marks: &[(ContentType, Watermark)], now: Instant) -> Schedule {
        assigned(marks, Assignment::Always, now)
    }

    fn assigned(marks: &[(ContentType, Watermark)], assignment: Assignment, now: Instant) -> Schedule {
        let tenant = TenantId::from_bytes([1; 16]);
        Schedule::new(tenant, marks.iter().copied(), Collect::default(), assignment, (now, time()))
    }

    fn outlook(schedule: &Schedule, now: Instant) -> Vec<Outlook> {
        schedule.outlooks(now).map(|(_, outlook)| outlook).collect()
    }

    fn started(schedule: &mut Schedule, now: Instant) -> Vec<(ContentType, Tier)> {
        std::iter::from_fn(|| schedule.start(now)).map(|due| (due.content_type, due.tier)).collect()
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_feed_waits_for_its_subscription_and_a_known_one_does_not() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1)), (GENERAL, Watermark::default())], now);
        assert!(schedule.is_fresh());
        assert_eq!(started(&mut schedule, now), [(EXCHANGE, Tier::Poll)]);
        schedule.set_ready(GENERAL, true);
        assert_eq!(started(&mut schedule, now), [(GENERAL, Tier::Poll)]);
        assert_eq!(started(&mut schedule, now), [], "once at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_poll_keeps_its_cadence_and_leaves_out_turns_that_were_missed() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1))], now);
        started(&mut schedule, now);
        schedule.succeeded(EXCHANGE, Tier::Poll, false, after(now, 20));
        assert_eq!(schedule.next_due(), Some(after(now, 60)));
        assert!(!schedule.is_fresh());
        started(&mut schedule, after(now, 60));
        schedule.succeeded(EXCHANGE, Tier::Poll, false, after(now, 400));
        assert_eq!(schedule.next_due(), Some(after(now, 400)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wider_tiers_are_due_an_interval_after_they_were_last_listed() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(10))], now);
        started(&mut schedule, now);
        assert_eq!(started(&mut schedule, after(now, 5 * 60 - 1)), []);
        assert_eq!(started(&mut schedule, after(now, 5 * 60)), [(EXCHANGE, Tier::Recent)]);
        assert_eq!(started(&mut schedule, after(now, 350 * 60)), [(EXCHANGE, Tier::Sweep)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_poll_of_all_seven_days_stands_for_the_first_sweep() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, Watermark::default())], now);
        schedule.set_ready(EXCHANGE, true);
        assert_eq!(started(&mut schedule, now), [(EXCHANGE, Tier::Poll)]);
        schedule.succeeded(EXCHANGE, Tier::Poll, true, after(now, 30));
        started(&mut schedule, after(now, 60));
        assert_eq!(started(&mut schedule, after(now, 15 * 60)), []);
        assert_eq!(started(&mut schedule, after(now, 15 * 60 + 30)), [(EXCHANGE, Tier::Recent)]);
        assert_eq!(started(&mut schedule, after(now, 6 * 3600 + 30)), [(EXCHANGE, Tier::Sweep)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_sweep_at_a_time() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(600)), (GENERAL, listed(600))], now);
        let later = after(now, 3600);
        let begun = started(&mut schedule, later);
        assert_eq!(begun.iter().filter(|(_, tier)| *tier == Tier::Sweep).count(), 1, "{begun:?}");
        schedule.succeeded(EXCHANGE, Tier::Sweep, false, later);
        assert_eq!(started(&mut schedule, later), [(GENERAL, Tier::Sweep)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_delays_its_lane_and_keeps_the_start_of_its_window() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1)), (GENERAL, listed(1))], now);
        started(&mut schedule, now);
        schedule.succeeded(GENERAL, Tier::Poll, false, now);
        schedule.failed(EXCHANGE, Tier::Poll, Some(time()), Some(Duration::from_secs(30)), now);
        schedule.failed(EXCHANGE, Tier::Poll, None, Some(Duration::from_secs(30)), now);
        assert_eq!(started(&mut schedule, after(now, 29)), []);
        let due = schedule.start(after(now, 34)).unwrap();
        assert_eq!(due, Due { content_type: EXCHANGE, tier: Tier::Poll, resume: Some(time()) });
        assert!(!schedule.is_failing(), "the other feed is well");
        schedule.succeeded(EXCHANGE, Tier::Poll, false, after(now, 34));
        let due = schedule.start(after(now, 100)).unwrap();
        assert_eq!(due.resume, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_feed_is_blocked_for_growing_whiles_and_no_other() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1)), (GENERAL, listed(1))], now);
        let mut at = now;
        let mut waits = Vec::new();
        for _ in 0..4 {
            started(&mut schedule, at);
            schedule.succeeded(GENERAL, Tier::Poll, false, at);
            schedule.put_off(EXCHANGE, Tier::Poll, None, at);
            schedule.block(EXCHANGE, at);
            schedule.block(EXCHANGE, at);
            assert!(!schedule.is_idle_by_refusal(at));
            let mut until = at;
            while !started(&mut schedule, until).contains(&(EXCHANGE, Tier::Poll)) {
                schedule.succeeded(GENERAL, Tier::Poll, false, until);
                until += Duration::from_secs(10);
            }
            waits.push((until - at).as_secs());
            at = until;
            schedule.put_off(EXCHANGE, Tier::Poll, None, at);
        }
        assert!(waits[0] >= 240 && waits[0] <= 370 && waits[3] > 3 * waits[0], "{waits:?}");
        schedule.block(GENERAL, at);
        schedule.block(EXCHANGE, at);
        assert!(schedule.is_idle_by_refusal(at));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refused_token_put_off_is_due_with_the_next_token() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1)), (GENERAL, listed(1))], now);
        started(&mut schedule, now);
        for content_type in [EXCHANGE, GENERAL] {
            schedule.failed(content_type, Tier::Poll, None, Some(Duration::from_mins(2)), now);
        }
        schedule.refused(EXCHANGE, Tier::Poll);
        schedule.retry_refused(after(now, 1));
        assert_eq!(started(&mut schedule, after(now, 1)), [(EXCHANGE, Tier::Poll)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_back_of_time_makes_every_tier_due() {
        let now = Instant::now();
        let mut schedule = schedule(&[(EXCHANGE, listed(1))], now);
        started(&mut schedule, now);
        schedule.list_all_again(EXCHANGE, now);
        assert_eq!(started(&mut schedule, now), [(EXCHANGE, Tier::Recent), (EXCHANGE, Tier::Sweep)]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_ever_due_without_a_subscription() {
        let schedule = schedule(&[(EXCHANGE, Watermark::default())], Instant::now());
        assert_eq!(schedule.next_due(), None);
        assert!(schedule.is_idle_by_refusal(Instant::now()) && !schedule.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_ends_polls_then_sweeps_and_then_nothing_is_due() {
        let now = Instant::now();
        let mut schedule = assigned(&[(EXCHANGE, listed(1)), (GENERAL, Watermark::default())], Assignment::Once, now);
        assert_eq!(outlook(&schedule, now), [Outlook::Due(now, 0), Outlook::NotReady]);
        assert_eq!(started(&mut schedule, now), [(EXCHANGE, Tier::Poll)]);
        assert_eq!(schedule.next_due(), None, "the sweep waits for the poll");
        schedule.failed(EXCHANGE, Tier::Poll, None, Some(Duration::from_secs(2)), now);
        assert!(matches!(outlook(&schedule, now)[0], Outlook::Due(due, 1) if due > now));
        let now = after(now, 5);
        started(&mut schedule, now);
        schedule.succeeded(EXCHANGE, Tier::Poll, false, now);
        assert_eq!(started(&mut schedule, now), [(EXCHANGE, Tier::Sweep)]);
        schedule.set_ready(GENERAL, true);
        assert_eq!(started(&mut schedule, now), [(GENERAL, Tier::Poll)]);
        schedule.succeeded(GENERAL, Tier::Poll, true, now);
        assert_eq!(outlook(&schedule, now), [Outlook::Running, Outlook::Over]);
        schedule.succeeded(EXCHANGE, Tier::Sweep, false, now);
        assert_eq!(outlook(&schedule, now), [Outlook::Over, Outlook::Over]);
        assert_eq!((started(&mut schedule, after(now, 100_000)), schedule.next_due()), (Vec::new(), None));
        schedule.list_all_again(GENERAL, now);
        assert_eq!(started(&mut schedule, now), [(GENERAL, Tier::Poll)], "time has stepped back");
        schedule.block(GENERAL, now);
        schedule.put_off(GENERAL, Tier::Poll, None, now);
        assert_eq!(outlook(&schedule, now)[1], Outlook::Blocked);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_works_off_the_queue_lists_nothing() {
        let now = Instant::now();
        let mut schedule = assigned(&[(EXCHANGE, listed(1))], Assignment::Queue, now);
        schedule.list_all_again(EXCHANGE, now);
        assert_eq!((started(&mut schedule, after(now, 100_000)), schedule.next_due()), (Vec::new(), None));
        assert_eq!(outlook(&schedule, now), [Outlook::Over]);
    }
}
