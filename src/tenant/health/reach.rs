//! How far back a list is listed, and how far a listing moves its watermark. Pure.
//!
//! All times are Graph's own: those of its items, and the `Date` of its answers. A host's clock that is wrong makes no item
//! be passed over.

use jiff::{SignedDuration, Timestamp};

use crate::config::Health;
use crate::store::Watermark;

/// What a listing is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Only what was changed at or after this time; `None`: everything.
    pub(super) since: Option<Timestamp>,
}

impl Reach {
    /// By the watermark: everything at first and every `sweep_interval`, else what has changed since the last listing, and
    /// a little before it.
    pub(super) fn of(mark: &Watermark, settings: &Health, now: Timestamp) -> Self {
        let (Some(listed), Some(swept)) = (mark.listed_to, mark.sweep_at) else { return Self { since: None } };
        let age = now.duration_since(swept);
        let sweep = SignedDuration::try_from(settings.sweep_interval).unwrap_or(SignedDuration::MAX);
        let overlap = SignedDuration::try_from(settings.overlap).unwrap_or(SignedDuration::ZERO);
        // A sweep of the future is one by a clock that has been set back since.
        let is_due = age >= sweep || age < -overlap;
        Self { since: listed.checked_sub(overlap).ok().filter(|_| !is_due) }
    }

    /// The watermark after a listing that was complete, whose first answer said it was `date`. Without that nothing is
    /// known of Graph's time, and the next listing reaches as far back as this one.
    pub(super) fn moved(self, mark: Watermark, date: Option<Timestamp>) -> Watermark {
        let Some(date) = date else { return mark };
        let sweep_at = if self.since.is_none() { Some(date) } else { mark.sweep_at };
        Watermark { listed_to: Some(date), sweep_at, ..mark }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn everything_is_listed_at_first_and_in_sweeps_and_else_what_has_changed() {
        let settings =
            Health { overlap: Duration::from_mins(10), sweep_interval: Duration::from_hours(24), ..Health::default() };
        let now = at("2026-11-26T12:00:00Z");
        let swept = |listed: Option<&str>, swept: Option<&str>| {
            let mark = Watermark { listed_to: listed.map(at), sweep_at: swept.map(at), recent_at: None };
            Reach::of(&mark, &settings, now).since
        };
        let (recent, old) = ("2026-11-26T11:50:00Z", "2026-11-25T12:00:00Z");
        assert_eq!(swept(None, None), None);
        assert_eq!(swept(Some(recent), None), None, "what content was lost, so that there was no sweep");
        assert_eq!(swept(Some(recent), Some(old)), None, "a day is over");
        assert_eq!(swept(Some(recent), Some(recent)), Some(at("2026-11-26T11:40:00Z")));
        assert_eq!(swept(Some(recent), Some("2026-11-26T12:05:00Z")), Some(at("2026-11-26T11:40:00Z")));
        assert_eq!(swept(Some(recent), Some("2026-11-27T12:00:00Z")), None, "it was swept in the future");
    }

    #[test]
    fn only_graphs_date_moves_a_watermark() {
        let now = at("2026-11-26T12:00:00Z");
        let mark = Watermark { listed_to: Some(now), sweep_at: Some(now), recent_at: None };
        let later = at("2026-11-26T12:05:00Z");
        let part = Reach { since: Some(now) };
        assert_eq!(part.moved(mark, None), mark);
        assert_eq!(part.moved(mark, Some(later)), Watermark { listed_to: Some(later), ..mark });
        let whole = Reach { since: None };
        let expected = Watermark { listed_to: Some(later), sweep_at: Some(later), ..mark };
        assert_eq!(whole.moved(mark, Some(later)), expected);
    }
}
