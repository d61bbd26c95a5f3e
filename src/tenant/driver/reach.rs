//! How far a tree has come, for whoever waits for its end ([`course`](crate::tenant::course)).

use tokio::time::Instant;

use super::Driver;
use crate::content::ContentType;
use crate::retry::Stage;
use crate::tenant::course::Reach;
use crate::tenant::schedule::Outlook;

impl Driver {
    /// Tells it, if somebody waits.
    pub(super) fn tell_headway(&self) {
        let course = &self.tree.course;
        if !course.ends() {
            return;
        }
        let now = Instant::now();
        let hold = self.hold(now);
        let lists = self.schedule.outlooks(now).map(|(of, outlook)| (of, self.reach(of, outlook, hold, now)));
        course.tell(lists, self.queue_reach(hold), &self.awaited);
    }

    /// What keeps the whole tenant from being asked, if anything does.
    fn hold(&self, now: Instant) -> Option<Reach> {
        let later = |until: Option<Instant>| until.filter(|until| *until > now);
        if later(self.paused_until).is_some() {
            return Some(Reach::Refused);
        }
        if let Some(until) = later(self.tokenless_until) {
            let trouble = self.tree.token.status().last_error;
            let person = trouble.is_some_and(|trouble| trouble.needs_operator);
            return Some(if person { Reach::Refused } else { Reach::Again(until, 0) });
        }
        self.tree.gate.closed_until().map(|until| Reach::Again(until, 0))
    }

    fn reach(&self, of: ContentType, outlook: Outlook, hold: Option<Reach>, now: Instant) -> Reach {
        let at = |due: Instant, failures| if due > now { Reach::Again(due, failures) } else { Reach::UnderWay };
        match (outlook, hold) {
            (Outlook::Over, _) => Reach::Had,
            // What runs waits at the gate, and ends when there is no token.
            (_, Some(hold)) => hold,
            (Outlook::Running, None) => Reach::UnderWay,
            (Outlook::Blocked, None) => Reach::Refused,
            (Outlook::NotReady, None) => match self.check_due {
                Some(due) if due > now && self.is_refused(of) => Reach::Refused,
                Some(due) => at(due, 0),
                None => Reach::UnderWay,
            },
            (Outlook::Due(due, failures), None) => at(due, failures),
        }
    }

    /// Whether a subscription is not started for a reason that only a person can end.
    fn is_refused(&self, of: ContentType) -> bool {
        let troubles = self.tree.report.troubles();
        troubles.iter().any(|(stage, concerned, trouble)| {
            *stage == Stage::Subscribe && concerned.is_none_or(|concerned| concerned == of) && trouble.needs_operator
        })
    }

    /// Whether something waits is known to the store, and asked of it when somebody asks.
    fn queue_reach(&self, hold: Option<Reach>) -> Reach {
        match (hold, self.backlog.next_try()) {
            (Some(hold), _) => hold,
            (None, Some(next)) if !self.backlog.is_busy() => Reach::Again(next, 0),
            (None, _) => Reach::UnderWay,
        }
    }
}
