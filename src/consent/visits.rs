//! Browsers on their way through sign-in and consent.
//!
//! What is known of one is in memory only and bound to a cookie that nobody else has: a restart of the daemon, or an hour,
//! sends the administrator back to the link. What must last is in the store: the invite, and the tenant.
//!
//! **Invariants:** a way back from Microsoft is good once, for the browser that was sent there, with the state that it was
//! given, at the address of the cloud that it was sent to. A wrong one changes nothing. Memory is bounded, and one invite
//! cannot take it all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::address::Challenge;
use crate::content::TenantId;
use crate::secret::Secret;
use crate::store::InviteId;

/// How long a browser may take from one step to the next.
const LIFE: Duration = Duration::from_hours(1);
/// How many are known at a time.
const MOST: usize = 10_000;
/// How many of one invite.
const MOST_OF_ONE: usize = 20;

/// A browser, by what its cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct VisitId([u8; 32]);

impl VisitId {
    fn of(cookie: &str) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
        Self(id)
    }
}

/// Where a browser is on its way.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) invite: InviteId,
    /// Where it was sent.
    pub(super) cloud: String,
    /// What the person who signed in is called there.
    pub(super) account: Option<String>,
    pub(super) step: Step,
    at: Instant,
}

/// What is expected of it next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// That it comes back from signing in.
    SignIn(Challenge),
    /// That it comes back from consenting for this tenant, which was signed for.
    Consent { state: Secret, tenant: TenantId },
    /// Nothing: it watches the tenant come alive.
    Watch,
    /// Nothing: it has come back, and what follows is under way or has failed.
    Over,
}

impl Step {
    fn state(&self) -> Option<&Secret> {
        match self {
            Self::SignIn(challenge) => Some(&challenge.state),
            Self::Consent { state, .. } => Some(state),
            Self::Watch | Self::Over => None,
        }
    }
}

/// The browsers that are on their way.
#[derive(Debug, Default)]
pub(super) struct Visits(Mutex<HashMap<VisitId, Visit>>);

impl Visits {
    /// A browser is sent to sign in; the answer is its cookie.
    pub(super) fn begin(&self, invite: InviteId, cloud: &str, challenge: Challenge) -> Secret {
        let cookie = Secret::random();
        let mut visits = self.visits();
        visits.retain(|_, visit| visit.at.elapsed() < LIFE);
        let of_invite = |visit: &Visit| visit.invite == invite;
        make_room(&mut visits, MOST_OF_ONE, of_invite);
        make_room(&mut visits, MOST, |_| true);
        let visit =
            Visit { invite, cloud: cloud.to_owned(), account: None, step: Step::SignIn(challenge), at: Instant::now() };
        visits.insert(VisitId::of(cookie.expose()), visit);
        cookie
    }

    /// A browser comes back to the address of `cloud` with `state`: what it was about, if it is the one that was sent, and
    /// comes back for the first time.
    pub(super) fn come_back(&self, cookie: Option<&str>, cloud: &str, state: Option<&str>) -> Option<(VisitId, Visit)> {
        let id = VisitId::of(cookie?);
        let mut visits = self.visits();
        let visit = visits.get_mut(&id).filter(|visit| visit.at.elapsed() < LIFE && visit.cloud == cloud)?;
        if !visit.step.state()?.is(state?) {
            return None;
        }
        let before = visit.clone();
        visit.step = Step::Over;
        Some((id, before))
    }

    /// It goes on to another step.
    pub(super) fn go_on(&self, id: VisitId, step: Step, account: Option<String>) {
        if let Some(visit) = self.visits().get_mut(&id) {
            visit.step = step;
            visit.account = account.or_else(|| visit.account.take());
            visit.at = Instant::now();
        }
    }

    /// What a browser watches, and as whom it has signed in.
    pub(super) fn watched(&self, cookie: Option<&str>) -> Option<(InviteId, Option<String>)> {
        let mut visits = self.visits();
        let visit = visits.get_mut(&VisitId::of(cookie?)).filter(|visit| visit.at.elapsed() < LIFE)?;
        if !matches!(visit.step, Step::Watch) {
            return None;
        }
        // Who watches is there.
        visit.at = Instant::now();
        Some((visit.invite, visit.account.clone()))
    }

    fn visits(&self) -> MutexGuard<'_, HashMap<VisitId, Visit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the one that moved longest ago, if there are as many as there may be.
fn make_room(visits: &mut HashMap<VisitId, Visit>, most: usize, of: impl Fn(&Visit) -> bool) {
    let among = || visits.iter().filter(|(_, visit)| of(visit));
    if among().count() < most {
        return;
    }
    let oldest = among().min_by_key(|(_, visit)| visit.at).map(|(id, _)| *id);
    if let Some(oldest) = oldest {
        visits.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(number: u8) -> InviteId {
        InviteId::of(&[number])
    }

    fn state(challenge: &Challenge) -> &str {
        challenge.state.expose()
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_back_is_good_once_for_whom_it_was_given() {
        let visits = Visits::default();
        let (mine, other) = (Challenge::new(), Challenge::new());
        let cookie = visits.begin(invite(1), "worldwide", mine.clone());
        let stranger = visits.begin(invite(1), "worldwide", other.clone());
        let cookie = Some(cookie.expose());
        for (whose, cloud, with) in [
            (None, "worldwide", Some(state(&mine))),
            (Some("made up"), "worldwide", Some(state(&mine))),
            (Some(stranger.expose()), "worldwide", Some(state(&mine))),
            (cookie, "worldwide", Some(state(&other))),
            (cookie, "worldwide", Some("")),
            (cookie, "worldwide", None),
            (cookie, "gcc_high", Some(state(&mine))),
        ] {
            assert!(visits.come_back(whose, cloud, with).is_none(), "{cloud} {with:?}");
        }
        let (id, visit) =
            visits.come_back(cookie, "worldwide", Some(state(&mine))).expect("the wrong ones changed nothing");
        assert!(matches!(visit.step, Step::SignIn(of) if of.nonce == mine.nonce));
        assert!(visits.come_back(cookie, "worldwide", Some(state(&mine))).is_none(), "once");
        assert!(visits.watched(cookie).is_none());

        let consent = Step::Consent { state: Secret::from("next".to_owned()), tenant: TenantId::from_bytes([7; 16]) };
        visits.go_on(id, consent, Some("admin@contoso.example".to_owned()));
        assert!(visits.come_back(cookie, "worldwide", Some(state(&mine))).is_none(), "its own state has gone");
        assert!(visits.come_back(cookie, "worldwide", Some("next")).is_some());
        visits.go_on(id, Step::Watch, None);
        assert_eq!(visits.watched(cookie), Some((invite(1), Some("admin@contoso.example".to_owned()))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_too_long_begins_anew_and_who_watches_does_not() {
        let visits = Visits::default();
        let challenge = Challenge::new();
        let cookie = visits.begin(invite(1), "gcc", challenge.clone());
        let cookie = Some(cookie.expose());
        tokio::time::advance(LIFE.checked_sub(Duration::from_secs(1)).unwrap()).await;
        let (id, _) = visits.come_back(cookie, "gcc", Some(state(&challenge))).expect("in time");
        visits.go_on(id, Step::Watch, None);
        for _ in 0..3 {
            tokio::time::advance(LIFE.checked_sub(Duration::from_secs(1)).unwrap()).await;
            assert!(visits.watched(cookie).is_some());
        }
        tokio::time::advance(LIFE).await;
        assert!(visits.watched(cookie).is_none());
        let late = Challenge::new();
        let cookie = visits.begin(invite(1), "gcc", late.clone());
        assert_eq!(visits.visits().len(), 1, "what is over is forgotten");
        tokio::time::advance(LIFE).await;
        assert!(visits.come_back(Some(cookie.expose()), "gcc", Some(state(&late))).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_invite_pushes_out_its_own_browsers_only() {
        let visits = Visits::default();
        let first = visits.begin(invite(1), "gcc", Challenge::new());
        let other = visits.begin(invite(2), "gcc", Challenge::new());
        for _ in 0..MOST_OF_ONE {
            tokio::time::advance(Duration::from_secs(1)).await;
            visits.begin(invite(1), "gcc", Challenge::new());
        }
        let known = |cookie: &Secret| visits.visits().contains_key(&VisitId::of(cookie.expose()));
        assert!(!known(&first) && known(&other));
        assert_eq!(visits.visits().len(), MOST_OF_ONE + 1);
    }
}
