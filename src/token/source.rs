//! The token of one tenant: held, renewed, replaced when it is refused.
//!
//! Everything that speaks for the tenant asks [`TokenSource::token`] before each request; one task runs
//! [`TokenSource::renew`]. All of them share one request in flight. It runs to its end even if nobody waits any
//! more, so that a cancelled caller wastes no token.
//!
//! - A token is handed out until a minute before its end, whatever becomes of its renewal.
//! - After a failure the next request waits: for passing trouble at the pace of [`Stage::Token`] and no sooner than
//!   Entra asked; for a tenant's trouble at the pace of [`Stage::Paused`]; for an app's trouble until the app's
//!   [alarm](super::app) lets a probe through or ends. Until then callers without a token get the last error.
//! - A refused token (401) is replaced once, at once if it was asked for long enough ago. Until the replacement is
//!   there, it is still handed out while it is valid: the refusal may have been an error of one server. A caller
//!   whose second request is refused as well waits by its own pace.
//!
//! **Invariants:** at least [`FLOOR`] between two requests; time is monotonic and counts from before the request was
//! sent; the token is in memory only.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, debug, debug_span};

use super::TokenError;
use super::answer::Grant;
use super::app::{Admission, AppAlarms, AppKey, Member};
use super::endpoint::{LONGEST_RETRY_AFTER, Transport};
use super::entra::Scope;
use super::renewal::{self, FLOOR};
use super::request::{Asker, TokenRequest};
use crate::clock::{ServiceTime, SharedClock};
use crate::report::Trouble;
use crate::retry::{Backoff, Stage};

/// A bearer token.
#[derive(Clone)]
pub struct AccessToken {
    authorization: HeaderValue,
    issued: Instant,
    valid_until: Instant,
    generation: u64,
}

impl AccessToken {
    /// The value of the `Authorization` header, marked sensitive.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// The moment before it was asked for.
    #[must_use]
    pub const fn issued(&self) -> Instant {
        self.issued
    }

    /// When it ends, counted from [`issued`](Self::issued).
    #[must_use]
    pub const fn valid_until(&self) -> Instant {
        self.valid_until
    }

    /// Counts the tokens of its source, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// How the source of a token fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenStatus {
    /// When the current token ends.
    pub valid_until: Option<Timestamp>,
    /// When the next request for a token is planned.
    pub renews_at: Option<Timestamp>,
    /// Why the last request failed; `None` after one that succeeded.
    pub last_error: Option<Trouble>,
}

/// The token of one tenant, for one audience; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    asker: Asker,
    renew_after: Duration,
    member: Member,
    state: Mutex<State>,
    /// A refusal moved the next request forward.
    hurry: Notify,
    changes: watch::Sender<u64>,
    /// Until when Entra wants no request, as far as it has said so.
    waits: watch::Sender<Option<Instant>>,
}

type Outcome = Result<AccessToken, TokenError>;
type Flight = watch::Receiver<Option<Outcome>>;

#[derive(Debug)]
struct State {
    current: Option<Current>,
    generation: u64,
    flight: Option<Flight>,
    /// No request before this moment,
    not_before: Instant,
    /// nor before this one, which is [`FLOOR`] after the last.
    floor: Instant,
    last_error: Option<TokenError>,
    app: AppTrouble,
    passing: Backoff,
    paused: Backoff,
    /// Tokens in a row that were refused soon after they had been issued.
    refusals: u32,
}

/// What the last error had to do with the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AppTrouble {
    /// Nothing.
    None,
    /// It would be the app's, but no other tenant has said so yet.
    Suspected,
    /// It is the app's: its alarm decides when to ask again.
    Believed,
}

#[derive(Debug)]
struct Current {
    token: AccessToken,
    renew_at: Instant,
    usable_until: Instant,
    refused: bool,
}

impl State {
    /// The earliest moment at which the next request is both wanted and allowed.
    fn next_request(&self) -> Instant {
        match &self.current {
            Some(current) if !current.refused => current.renew_at.max(self.not_before),
            _ => self.not_before,
        }
    }

    fn usable(&self, now: Instant) -> Option<&AccessToken> {
        self.current.as_ref().filter(|current| now < current.usable_until).map(|current| &current.token)
    }
}

impl TokenSource {
    /// A source that has asked for nothing yet. `http` is [`Http::control`](crate::http::Http::control).
    #[must_use]
    pub fn new(
        request: TokenRequest,
        http: reqwest::Client,
        clock: SharedClock,
        time: Arc<ServiceTime>,
        apps: &Arc<AppAlarms>,
    ) -> Self {
        Self::with_transport(request, Arc::new(http), clock, time, apps)
    }

    pub(super) fn with_transport(
        request: TokenRequest,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        time: Arc<ServiceTime>,
        apps: &Arc<AppAlarms>,
    ) -> Self {
        let key = AppKey {
            app: request.app.clone(),
            client_id: request.client_id.clone(),
            authority: request.authority(),
            audience: request.audience.clone(),
            credential: request.credential.clone(),
        };
        let member = apps.join(&key, &time);
        let renew_after = request.renew_after;
        let state = State {
            current: None,
            generation: 0,
            flight: None,
            not_before: Instant::now(),
            floor: Instant::now(),
            last_error: None,
            app: AppTrouble::None,
            passing: Backoff::new(Stage::Token),
            paused: Backoff::new(Stage::Paused),
            refusals: 0,
        };
        let inner = Inner {
            asker: Asker::new(request, transport, clock, time),
            renew_after,
            member,
            state: Mutex::new(state),
            hurry: Notify::new(),
            changes: watch::Sender::new(0),
            waits: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The current token while it is valid; else waits for the one request in flight, or makes it. While no request
    /// may be made yet, it is the last error, with the time that is left.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        let flight = {
            let mut state = self.inner.state();
            let now = Instant::now();
            if let Some(token) = state.usable(now) {
                return Ok(token.clone());
            }
            self.inner.follow_app(&mut state);
            match &state.flight {
                Some(flight) => flight.clone(),
                None if now < state.not_before => {
                    let error = state.last_error.clone().unwrap_or_else(TokenError::too_soon);
                    return Err(error.waiting(state.not_before - now));
                }
                None => self.start(&mut state),
            }
        };
        arrival(flight).await
    }

    /// A 401: renews once for this token's generation, at once if enough time has passed since it was asked for,
    /// else as soon as it has. Waits for a renewal that is in flight; later calls for the same generation do no more
    /// than that.
    pub async fn refused(&self, token: &AccessToken) {
        let flight = {
            let mut state = self.inner.state();
            let now = Instant::now();
            let State { current, refusals, not_before, .. } = &mut *state;
            if let Some(current) = current
                && current.token.generation == token.generation
                && !current.refused
            {
                current.refused = true;
                let soon = now < current.token.issued + renewal::SETTLED;
                *refusals = if soon { refusals.saturating_add(1) } else { 0 };
                *not_before = (*not_before).max(current.token.issued + renewal::replace_refused_in(*refusals));
                self.inner.hurry.notify_one();
            }
            let wanted = state.current.as_ref().is_some_and(|current| current.refused) && now >= state.not_before;
            match &state.flight {
                Some(flight) => Some(flight.clone()),
                None if wanted => Some(self.start(&mut state)),
                None => None,
            }
        };
        if let Some(flight) = flight {
            // Whatever came of it, the caller asks for the token again.
            _ = arrival(flight).await;
        }
    }

    /// Renews the token for ever; a task of the tenant's tree.
    pub async fn renew(&self) -> ! {
        let mut turns = self.inner.member.turns();
        loop {
            let next = {
                turns.mark_unchanged();
                let mut state = self.inner.state();
                self.inner.follow_app(&mut state);
                let next = state.next_request();
                match &state.flight {
                    Some(flight) => Err(flight.clone()),
                    None if Instant::now() >= next => Err(self.start(&mut state)),
                    None => Ok((next, state.app != AppTrouble::None)),
                }
            };
            match next {
                Err(flight) => _ = arrival(flight).await,
                Ok((next, app_troubled)) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.inner.hurry.notified() => {}
                    // The sender lives as long as we are a member.
                    _ = turns.changed(), if app_troubled => {}
                },
            }
        }
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        let (now, time) = (Instant::now(), self.inner.asker.now());
        let at = |moment: Instant| {
            let ahead = SignedDuration::try_from(moment.saturating_duration_since(now)).ok()?;
            let behind = SignedDuration::try_from(now.saturating_duration_since(moment)).ok()?;
            time.checked_add(ahead).ok()?.checked_sub(behind).ok()
        };
        let mut state = self.inner.state();
        self.inner.follow_app(&mut state);
        TokenStatus {
            valid_until: state.current.as_ref().and_then(|current| at(current.token.valid_until)),
            renews_at: at(state.next_request().max(now)),
            last_error: state.last_error.as_ref().map(TokenError::trouble),
        }
    }

    /// The generation of the current token, and when it changes; 0 before the first.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Until when Entra has asked to be left alone, and when that changes: whoever has a memory that survives the process
    /// tells the next one by [`hold`](Self::hold).
    #[must_use]
    pub fn waits(&self) -> watch::Receiver<Option<Instant>> {
        self.inner.waits.subscribe()
    }

    /// No request for so long: Entra asked an earlier process for this wait.
    pub fn hold(&self, wait: Duration) {
        let mut state = self.inner.state();
        let until = Instant::now() + wait.min(LONGEST_RETRY_AFTER);
        if until > state.not_before {
            state.not_before = until;
            state.last_error.get_or_insert_with(TokenError::asked_to_wait);
        }
    }

    /// Starts the one request. A task of its own: it ends within the transport's time limits.
    fn start(&self, state: &mut State) -> Flight {
        let (landing, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let inner = Arc::clone(&self.inner);
        let span = debug_span!("token.renew", tenant = %inner.asker.tenant());
        tokio::spawn(
            async move {
                // Clears the flight also if the request panics: those who wait see `landing` go.
                let cleared = Cleared(&inner);
                let outcome = inner.fly().await;
                drop(cleared);
                landing.send_replace(Some(outcome));
            }
            .instrument(span),
        );
        flight
    }
}

struct Cleared<'a>(&'a Inner);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.flight.take().is_some() && std::thread::panicking() {
            state.not_before = Instant::now() + state.passing.failed(None).max(FLOOR);
            state.last_error = Some(TokenError::ended());
        }
    }
}

async fn arrival(mut flight: Flight) -> Outcome {
    match flight.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(TokenError::ended())),
        Err(_) => Err(TokenError::ended()),
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the app's alarm: a tenant that complained first joins it once it is raised; when it has ended, those
    /// who waited ask again, spread out.
    fn follow_app(&self, state: &mut State) {
        match (state.app, self.member.is_bad()) {
            (AppTrouble::Suspected, true) => {
                state.app = AppTrouble::Believed;
                state.not_before = state.floor;
                state.last_error = state.last_error.take().map(TokenError::of_app);
            }
            (AppTrouble::Believed, false) => {
                state.app = AppTrouble::None;
                state.not_before = (Instant::now() + self.member.spread()).max(state.floor);
            }
            _ => {}
        }
    }

    /// One request, from leave to send it to what it changes.
    async fn fly(&self) -> Outcome {
        let mut turns = self.member.turns();
        let permit = loop {
            turns.mark_unchanged();
            match self.member.admit() {
                Admission::Go(permit) => break permit,
                Admission::Turn(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    _ = turns.changed() => {}
                },
                Admission::Wait(error, until) => {
                    let now = Instant::now();
                    let mut state = self.state();
                    state.not_before = state.not_before.max(until);
                    state.app = AppTrouble::Believed;
                    state.last_error = Some(error.clone());
                    return Err(error.waiting(until - now));
                }
            }
        };
        let sent = Instant::now();
        {
            let mut state = self.state();
            state.floor = sent + FLOOR;
            state.not_before = state.floor;
        }
        match self.asker.ask().await {
            Ok(grant) => {
                permit.granted();
                self.keep(&grant, sent)
            }
            Err(error) => Err(self.wait_after(permit.failed(error))),
        }
    }

    fn keep(&self, grant: &Grant, sent: Instant) -> Outcome {
        let Ok(mut authorization) = HeaderValue::try_from(format!("Bearer {}", grant.token.expose())) else {
            // The answer was checked for this; a token that cannot be sent is still no reason to panic.
            return Err(self.wait_after(self.asker.cannot_send()));
        };
        authorization.set_sensitive(true);
        let renew_in = renewal::renew_in(grant.life, grant.refresh_in, self.renew_after, fastrand::f64());
        let mut state = self.state();
        state.generation += 1;
        let token =
            AccessToken { authorization, issued: sent, valid_until: sent + grant.life, generation: state.generation };
        state.current = Some(Current {
            token: token.clone(),
            renew_at: sent + renew_in,
            usable_until: sent + renewal::usable_for(grant.life),
            refused: false,
        });
        state.last_error = None;
        state.app = AppTrouble::None;
        state.passing.succeeded();
        state.paused.succeeded();
        drop(state);
        debug!(generation = token.generation, life = ?grant.life, renew_in = ?renew_in, "token granted");
        self.changes.send_replace(token.generation);
        Ok(token)
    }

    /// Takes note of a failure and of how long to wait after it.
    fn wait_after(&self, error: TokenError) -> TokenError {
        let now = Instant::now();
        let mut state = self.state();
        let wait = match error.scope() {
            Scope::Passing => state.passing.failed(error.asked()),
            // The alarm says when; asking it for leave costs no request.
            Scope::App if error.is_shared() => Duration::ZERO,
            Scope::App | Scope::Tenant => state.paused.failed(None),
        };
        state.not_before = (now + wait).max(state.floor);
        state.app = match error.scope() {
            Scope::App if error.is_shared() => AppTrouble::Believed,
            Scope::App => AppTrouble::Suspected,
            Scope::Tenant | Scope::Passing => AppTrouble::None,
        };
        if let Some(asked) = error.asked() {
            self.waits.send_replace(Some(now + asked));
        }
        let error = error.waiting(state.not_before - now);
        state.last_error = Some(error.clone());
        debug!(kind = error.kind(), wait = ?state.not_before - now, "no token");
        error
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
