//! Which windows to list, and how far a listing's answer moves the watermark. Pure: values in, values out.
//!
//! Three tiers list each content type of a tenant. The *poll* lists from a little before the watermark to now; the
//! *recent* tier lists the last hours again, because blobs become listed later than their `contentCreated` says; the
//! *sweep* lists all that the service still holds. All times are the service's.
//!
//! **Invariants** ("List available content", activity API reference, and what its answers have shown):
//!
//! - a window starts on a five-minute grid, because the service answers with partial blobs for other starts, and keeps
//!   its start when it is resumed;
//! - it spans at most 24 hours, starts at most seven days less five minutes ago, and ends three seconds ago or earlier;
//! - the windows of one plan adjoin: they leave nothing out and overlap nowhere;
//! - the watermark moves only over what has been listed, or what the service no longer lists (a [`Gap`], which is
//!   reported), and never past the `Date` of an answer that justified it.

use std::time::Duration;

use jiff::Timestamp;

use crate::activity::Window;
use crate::config::Collect;
use crate::content::{ContentType, TenantId, Tier};
use crate::store::Watermark;

/// Windows start at multiples of this.
pub const GRID: Duration = Duration::from_mins(5);
/// "The start and end times must be within 24 hours of each other."
pub const LONGEST: Duration = Duration::from_hours(24);
/// "The start time is no more than 7 days in the past", less what a request may take to arrive.
pub const OLDEST: Duration = Duration::from_mins(7 * 24 * 60 - 5);
/// Listings of the last moments are not stable yet.
pub const UNSTABLE: Duration = Duration::from_secs(3);
/// A watermark further ahead of the service's time than this says that time has stepped back.
const STEP: Duration = Duration::from_mins(1);

/// A span that was never listed and that the service does not list any more: its content is lost to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
}

/// A step of the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Where it stands now.
    pub listed_to: Timestamp,
    /// What it stepped over because the service no longer lists it.
    pub lost: Option<Gap>,
}

/// Plans one activation of `tier`: adjoining windows, oldest first. `resume` is the start of the window at which an earlier activation failed.
#[must_use]
pub fn plan(
    tier: Tier,
    watermark: Option<Timestamp>,
    resume: Option<Timestamp>,
    now: Timestamp,
    collect: &Collect,
) -> Vec<Window> {
    let horizon = horizon(now);
    let wanted = match (resume, tier) {
        // A start in the future was planned before time stepped back.
        (Some(start), _) if start < now => start,
        // A notification lists nothing: whoever asks for its windows means those of a poll.
        (_, Tier::Poll | Tier::Webhook) => match watermark {
            Some(listed_to) => floor(earlier(listed_to.min(now), collect.overlap)),
            None => floor(earlier(now, collect.backfill)),
        },
        (_, Tier::Recent) => floor(earlier(now, collect.recent_span)),
        (_, Tier::Sweep) => horizon,
    };
    split(wanted.max(horizon), whole_second(earlier(now, UNSTABLE)))
}

/// The windows of a span that somebody asks for, cut to what the service lists at `now`; none if nothing is left of it.
#[must_use]
pub fn between(since: Timestamp, until: Timestamp, now: Timestamp) -> Vec<Window> {
    // Adjoining, from the start on the grid on; requests carry whole seconds, and what is in the last one is asked for too.
    let until =
        Timestamp::from_second(until.as_millisecond().div_euclid(1000) + i64::from(until.subsec_nanosecond() > 0));
    let end = until.unwrap_or(now).min(whole_second(earlier(now, UNSTABLE)));
    if since < end { split(floor(since).max(horizon(now)), end) } else { Vec::new() }
}

/// A planned window when its turn comes: what the service has ceased to list meanwhile is cut off its start.
/// `None` if nothing is left of it.
#[must_use]
pub fn still_listable(window: Window, now: Timestamp) -> Option<Window> {
    let start = window.start.max(horizon(now));
    (start < window.end).then_some(Window { start, end: window.end })
}

/// Where the watermark stands after all pages of `window` were queued; `None`: where it stood.
///
/// `date` is the earliest `Date` among the answers. Without one nothing moves: the content is queued, and the next poll
/// lists the same again. An answer that shows the window to have started too late, because it was planned by a clock
/// that ran ahead, moves nothing either. The mark moves back when time has stepped back.
#[must_use]
pub fn moved(
    window: Window,
    listed_to: Option<Timestamp>,
    date: Option<Timestamp>,
    collect: &Collect,
) -> Option<Moved> {
    let date = date?;
    // One step of the grid more: the plan's time and the answer's differ by moments.
    let reachable = match listed_to {
        Some(listed_to) => listed_to.max(later(horizon(date), GRID)),
        None => later(horizon(date).max(floor(earlier(date, collect.backfill))), GRID),
    };
    let lost = listed_to
        .filter(|listed_to| *listed_to < window.start)
        .map(|listed_to| Gap { from: listed_to, to: window.start });
    (window.start <= reachable).then_some(Moved { listed_to: window.end.min(date), lost })
}

/// Whether a plan whose last window ends at `end` was made by a time ahead of the answers' `Date`: then it began too late.
#[must_use]
pub fn is_astray(end: Timestamp, date: Option<Timestamp>) -> bool {
    date.is_some_and(|date| end > later(date, STEP))
}

/// Whether the service's time has stepped back behind what is on record. What became available while it was ahead
/// may have been listed by no poll: the recent tier and the sweep are due at once.
#[must_use]
pub fn stepped_back(watermark: &Watermark, now: Timestamp) -> bool {
    let latest = [watermark.listed_to, watermark.recent_at, watermark.sweep_at].into_iter().flatten().max();
    latest.is_some_and(|latest| latest > later(now, STEP))
}

/// How long after the start of a tenant's tree a tier is due first, given when it was last listed in full.
/// What is overdue waits for `spread`, so that a thousand tenants do not sweep at once after a downtime.
#[must_use]
pub fn first_due(last: Option<Timestamp>, interval: Duration, now: Timestamp, spread: Duration) -> Duration {
    match last {
        Some(last) if last <= now => {
            let due = later(last, interval);
            if due > now { Duration::try_from(due.duration_since(now)).unwrap_or(spread) } else { spread }
        }
        _ => spread,
    }
}

/// This tenant's share of `over`: the same at every start, even over all tenants and content types.
#[must_use]
pub fn spread(tenant: TenantId, content_type: Option<ContentType>, over: Duration) -> Duration {
    let (high, low) = tenant.uuid().as_u64_pair();
    let salt = u64::from(content_type.map_or(0, ContentType::code));
    let hash = mix(mix(high ^ salt) ^ low);
    // The upper half of the hash as a fraction of 2³².
    over.mul_f64(f64::from((hash >> 32) as u32) / 4_294_967_296.0)
}

/// Scrambles so that neighbouring numbers end up far apart (the finaliser of the `SplitMix64` generator).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The earliest start on the grid that the service accepts.
fn horizon(now: Timestamp) -> Timestamp {
    let oldest = earlier(now, OLDEST);
    let floor = floor(oldest);
    if floor < oldest { later(floor, GRID) } else { floor }
}

fn split(mut start: Timestamp, end: Timestamp) -> Vec<Window> {
    let mut windows = Vec::new();
    while start < end {
        let stop = later(start, LONGEST).min(end);
        windows.push(Window { start, end: stop });
        start = stop;
    }
    windows
}

fn floor(time: Timestamp) -> Timestamp {
    let grid = GRID.as_secs().cast_signed();
    Timestamp::from_second(time.as_second().div_euclid(grid) * grid).unwrap_or(time)
}

/// Requests carry whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_millisecond().div_euclid(1000)).unwrap_or(time)
}

/// `time` less `by`, or the beginning of time.
pub(super) fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// `time` plus `by`, or the end of time.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn collect() -> Collect {
        Collect::default()
    }

    fn windows(plan: &[Window]) -> Vec<(String, String)> {
        plan.iter().map(|window| (window.start.to_string(), window.end.to_string())).collect()
    }

    #[test]
    fn a_poll_lists_from_before_the_watermark_to_three_seconds_ago() {
        let now = at("2026-11-22T12:34:56.789Z");
        let plan = plan(Tier::Poll, Some(at("2026-11-22T12:33:53Z")), None, now, &collect());
        assert_eq!(windows(&plan), [("2026-11-22T12:20:00Z".into(), "2026-11-22T12:34:53Z".into())]);
    }

    #[test]
    fn the_first_poll_lists_all_that_the_service_holds_or_as_much_as_is_wanted() {
        let now = at("2026-11-22T12:34:56Z");
        let all = plan(Tier::Poll, None, None, now, &collect());
        assert_eq!(all.len(), 7);
        assert_eq!(all[0].start, at("2026-11-15T12:40:00Z"), "the first start on the grid within 7 d - 5 min");
        assert_eq!(all[6].end, at("2026-11-22T12:34:53Z"));
        let moved = moved(all[0], None, Some(now), &collect()).unwrap();
        assert_eq!(moved, Moved { listed_to: all[0].end, lost: None }, "what was never ours is no loss");

        let two_hours = plan(Tier::Poll, None, None, now, &Collect { backfill: 2 * HOUR, ..collect() });
        assert_eq!(windows(&two_hours), [("2026-11-22T10:30:00Z".into(), "2026-11-22T12:34:53Z".into())]);
    }

    #[test]
    fn the_recent_tier_and_the_sweep_list_their_spans_whatever_the_watermark() {
        let now = at("2026-11-22T12:34:56Z");
        let recent = plan(Tier::Recent, Some(now), None, now, &collect());
        assert_eq!(windows(&recent), [("2026-11-22T09:30:00Z".into(), "2026-11-22T12:34:53Z".into())]);
        let sweep = plan(Tier::Sweep, Some(now), None, now, &collect());
        assert_eq!(sweep.len(), 7);
        assert_eq!(sweep[0].start, at("2026-11-15T12:40:00Z"));
    }

    #[test]
    fn catching_up_lists_day_after_day_and_names_what_is_lost() {
        let now = at("2026-11-22T12:00:00Z");
        let two_days = plan(Tier::Poll, Some(at("2026-11-20T11:00:00Z")), None, now, &collect());
        assert_eq!(
            windows(&two_days),
            [
                ("2026-11-20T10:50:00Z".into(), "2026-11-21T10:50:00Z".into()),
                ("2026-11-21T10:50:00Z".into(), "2026-11-22T10:50:00Z".into()),
                ("2026-11-22T10:50:00Z".into(), "2026-11-22T11:59:57Z".into()),
            ]
        );
        let first = moved(two_days[0], Some(at("2026-11-20T11:00:00Z")), Some(now), &collect());
        assert_eq!(first, Some(Moved { listed_to: two_days[0].end, lost: None }));

        let stood = at("2026-11-01T00:00:00Z");
        let long_ago = plan(Tier::Poll, Some(stood), None, now, &collect());
        let lost = Some(Gap { from: stood, to: at("2026-11-15T12:05:00Z") });
        assert_eq!(long_ago[0].start, at("2026-11-15T12:05:00Z"));
        assert_eq!(
            moved(long_ago[0], Some(stood), Some(now), &collect()),
            Some(Moved { listed_to: long_ago[0].end, lost })
        );

        let stood = at("2026-11-15T12:07:00Z");
        let just_in_time = plan(Tier::Poll, Some(stood), None, now, &collect());
        let moved = moved(just_in_time[0], Some(stood), Some(now), &collect()).unwrap();
        assert_eq!(moved.lost, None, "only the overlap is out of reach");
    }

    #[test]
    fn a_resumed_window_keeps_its_start() {
        let start = at("2026-11-22T09:25:00Z");
        let resumed = plan(Tier::Recent, None, Some(start), at("2026-11-22T12:40:00Z"), &collect());
        assert_eq!(resumed[0].start, start);
        let too_old = plan(Tier::Sweep, None, Some(at("2026-11-15T12:40:00Z")), at("2026-11-22T13:00:00Z"), &collect());
        assert_eq!(too_old[0].start, at("2026-11-15T13:05:00Z"));
        let from_the_future = plan(Tier::Recent, None, Some(start), at("2026-11-22T08:00:00Z"), &collect());
        assert_eq!(from_the_future[0].start, at("2026-11-22T05:00:00Z"));
    }

    #[test]
    fn when_time_steps_back_the_next_windows_start_at_the_earlier_time() {
        let now = at("2026-11-22T11:00:00Z");
        let ahead = at("2026-11-22T12:00:00Z");
        let poll = plan(Tier::Poll, Some(ahead), None, now, &collect());
        assert_eq!(windows(&poll), [("2026-11-22T10:50:00Z".into(), "2026-11-22T10:59:57Z".into())]);
        assert_eq!(moved(poll[0], Some(ahead), Some(now), &collect()).unwrap().listed_to, at("2026-11-22T10:59:57Z"));

        let on_record = |listed_to| Watermark { listed_to: Some(listed_to), ..Watermark::default() };
        assert!(stepped_back(&on_record(ahead), now));
        assert!(!stepped_back(&on_record(now), now));
        assert!(!stepped_back(&Watermark::default(), now));
    }

    #[test]
    fn the_watermark_never_passes_the_date_of_the_answer() {
        let window = Window { start: at("2026-11-22T11:50:00Z"), end: at("2026-11-22T12:00:00Z") };
        let listed_to = Some(at("2026-11-22T11:59:00Z"));
        for (date, mark) in [
            (Some("2026-11-22T12:00:03Z"), Some("2026-11-22T12:00:00Z")),
            (Some("2026-11-22T11:59:30Z"), Some("2026-11-22T11:59:30Z")),
            (None, None),
        ] {
            let moved = moved(window, listed_to, date.map(at), &collect());
            assert_eq!(moved.map(|moved| moved.listed_to), mark.map(at), "{date:?}");
        }
    }

    #[test]
    fn a_window_that_a_fast_clock_planned_too_late_moves_nothing() {
        // The plan was made by a clock three days ahead: everything before its first window still is to be listed.
        let planned = plan(Tier::Poll, Some(at("2026-11-16T00:00:00Z")), None, at("2026-11-25T12:00:00Z"), &collect());
        let date = Some(at("2026-11-22T12:00:00Z"));
        for window in &planned {
            assert_eq!(moved(*window, Some(at("2026-11-16T00:00:00Z")), date, &collect()), None);
            assert_eq!(moved(*window, None, date, &collect()), None);
        }
    }

    #[test]
    fn a_plan_that_a_fast_clock_made_is_told_by_the_answers() {
        let now = at("2026-11-22T12:00:00Z");
        let end = |now| plan(Tier::Sweep, None, None, now, &collect()).last().unwrap().end;
        assert!(!is_astray(end(now), Some(now)) && !is_astray(end(now), None));
        assert!(!is_astray(end(later(now, STEP)), Some(now)), "the service's servers differ by moments");
        assert!(is_astray(end(later(now, 5 * MINUTE)), Some(now)));
    }

    #[test]
    fn a_window_that_has_waited_is_cut_to_what_is_still_listed() {
        let window = Window { start: at("2026-11-15T12:05:00Z"), end: at("2026-11-16T12:05:00Z") };
        assert_eq!(still_listable(window, at("2026-11-22T12:00:00Z")), Some(window));
        assert_eq!(
            still_listable(window, at("2026-11-22T14:00:00Z")),
            Some(Window { start: at("2026-11-15T14:05:00Z"), ..window })
        );
        assert_eq!(still_listable(window, at("2026-11-24T14:00:00Z")), None);
    }

    #[test]
    fn due_times() {
        let now = at("2026-11-22T12:00:00Z");
        let spread = Duration::from_secs(7);
        for (last, due) in [
            (None, spread),
            (Some("2026-11-22T11:50:00Z"), 5 * MINUTE),
            (Some("2026-11-22T11:45:00Z"), spread),
            (Some("2026-11-01T00:00:00Z"), spread),
            (Some("2026-12-01T00:00:00Z"), spread),
        ] {
            assert_eq!(first_due(last.map(at), 15 * MINUTE, now, spread), due, "{last:?}");
        }
    }

    #[test]
    fn tenants_with_neighbouring_ids_spread_evenly() {
        let mut tenths = [0; 10];
        for number in 0..1000_u32 {
            let mut bytes = [0; 16];
            bytes[12..].copy_from_slice(&number.to_be_bytes());
            let tenant = TenantId::from_bytes(bytes);
            let offset = spread(tenant, None, Duration::from_secs(10));
            assert_eq!(offset, spread(tenant, None, Duration::from_secs(10)));
            tenths[usize::try_from(offset.as_secs()).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|&count| (60..=140).contains(&count)), "{tenths:?}");
    }

    /// Moments of one month, to the millisecond.
    fn moment() -> impl Strategy<Value = Timestamp> {
        (1_795_000_000_000_i64..1_797_600_000_000).prop_map(|ms| Timestamp::from_millisecond(ms).unwrap())
    }

    fn tier() -> impl Strategy<Value = Tier> {
        prop_oneof![Just(Tier::Poll), Just(Tier::Recent), Just(Tier::Sweep)]
    }

    /// Milliseconds between two polls: mostly minutes, sometimes a downtime of up to twelve days.
    fn passing() -> impl Strategy<Value = i64> {
        prop_oneof![8 => 1_i64..200_000, 2 => 1_i64..90_000_000, 1 => 1_i64..1_036_800_000]
    }

    fn settings() -> impl Strategy<Value = Collect> {
        (0_u64..7200, 60_u64..86_400, 60_u64..604_800).prop_map(|(overlap, recent_span, backfill)| Collect {
            overlap: Duration::from_secs(overlap),
            recent_span: Duration::from_secs(recent_span),
            backfill: Duration::from_secs(backfill),
            ..collect()
        })
    }

    proptest! {
        #[test]
        fn every_plan_keeps_the_services_rules(
            tier in tier(),
            watermark in proptest::option::of(moment()),
            resume in proptest::option::of(moment().prop_map(floor)),
            now in moment(),
            collect in settings(),
        ) {
            let plan = plan(tier, watermark, resume, now, &collect);
            for window in &plan {
                prop_assert_eq!(window.start.as_second() % 300, 0, "on the grid");
                prop_assert_eq!(window.start.subsec_nanosecond(), 0);
                prop_assert!(window.start < window.end);
                prop_assert!(window.end.duration_since(window.start) <= LONGEST.try_into().unwrap());
                prop_assert!(window.start >= earlier(now, OLDEST));
                prop_assert!(window.end <= earlier(now, UNSTABLE));
                prop_assert_eq!(still_listable(*window, now), Some(*window));
            }
            for pair in plan.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start, "neither gap nor overlap");
            }
            if let Some(last) = plan.last() {
                prop_assert!(earlier(now, UNSTABLE).duration_since(last.end).as_secs_f64() < 1.0);
            }
            if let (Tier::Poll, None, Some(listed_to), Some(first)) = (tier, resume, watermark, plan.first()) {
                prop_assert!(first.start <= listed_to.min(now) || first.start == horizon(now), "nothing is left out");
            }
        }

        /// Polls at random moments, some failing, some at a wrong time, downtimes included: every moment that the
        /// watermark has passed was listed, by a window that was asked when that moment had passed, or was reported.
        #[test]
        fn whatever_the_watermark_passes_was_listed_or_reported(
            steps in proptest::collection::vec((passing(), -864_000_000_i64..864_000_000, 0_u8..8), 1..60),
            collect in settings(),
        ) {
            let mut truth = 1_795_000_000_000_i64;
            // The first window that set the mark: from there on, nothing may be missing.
            let mut begin = None;
            let mut listed_to = None;
            let mut listed: Vec<(Timestamp, Timestamp)> = Vec::new();
            for (pass, skew, kind) in steps {
                truth += pass;
                let date = Timestamp::from_millisecond(truth).unwrap();
                // One poll in eight is planned by a wrong clock; the answer's `Date` is the truth.
                let now = Timestamp::from_millisecond(truth + if kind == 0 { skew } else { 0 }).unwrap();
                let plan = plan(Tier::Poll, listed_to, None, now, &collect);
                for (number, window) in plan.into_iter().enumerate() {
                    if kind == 1 && number == 1 {
                        break;
                    }
                    // The service lists what is available at the moment of the answer.
                    listed.push((window.start, window.end.min(date)));
                    if let Some(moved) = moved(window, listed_to, Some(date), &collect) {
                        prop_assert!(moved.listed_to <= date);
                        if let Some(gap) = moved.lost {
                            prop_assert!(gap.to <= later(horizon(date), GRID), "a loss that is none");
                            listed.push((gap.from, gap.to));
                        }
                        begin.get_or_insert(window.start);
                        listed_to = Some(moved.listed_to);
                    }
                }
            }
            let (Some(listed_to), Some(begin)) = (listed_to, begin) else { return Ok(()) };
            listed.sort_unstable();
            let mut covered = begin;
            for (from, to) in listed {
                prop_assert!(from <= covered || covered >= listed_to, "hole from {covered} to {from}");
                covered = covered.max(to);
            }
            prop_assert!(covered >= listed_to, "covered to {covered}, watermark {listed_to}");
        }
    }
}
