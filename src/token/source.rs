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
//!   there, it is still handed out while it is valid: the refusal may have been an error of one server. If the
//!   replacement is refused as well, another token is not the remedy: the regular renewal brings the next one.
//! - A source [follows](TokenSource::follow) the configuration: with another credential, client id or endpoint it keeps
//!   its token and what Entra asked for, and asks in the new way next.
//!
//! **Invariants:** at least [`FLOOR`] between two requests, and no request before Entra wants one; time is monotonic and
//! counts from before the request was sent; the token is in memory only.

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
use super::claims::{self, Claims};
use super::endpoint::Transport;
use super::entra::Scope;
use super::renewal::{self, FLOOR, LONGEST_ASKED, LONGEST_REMEMBERED};
use super::request::{Asker, TokenRequest};
use crate::clock::{ServiceTime, SharedClock};
use crate::http::Pool;
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

    /// What it says of itself, for diagnosis only; `None` if it is opaque.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        claims::read(self.authorization.to_str().ok()?.strip_prefix("Bearer ")?)
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
    /// How many requests have failed since the source was made, or were not sent because the app's alarm said so.
    pub failures: u64,
}

/// The token of one tenant, for one audience; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Something moved the next request forward.
    hurry: Notify,
    changes: watch::Sender<u64>,
    /// Until when no request may be made, also by the next process.
    waits: watch::Sender<Option<Instant>>,
}

/// How Entra is asked, and for which app.
#[derive(Debug)]
struct Link {
    asker: Asker,
    member: Member,
}

impl Link {
    fn new(asker: Asker, apps: &Arc<AppAlarms>) -> Arc<Self> {
        let request = asker.request();
        let key = AppKey {
            app: request.app.clone(),
            client_id: request.client_id.clone(),
            authority: request.authority(),
            audience: request.audience.clone(),
            credential: request.credential.clone(),
        };
        let member = apps.join(&key, asker.time());
        Arc::new(Self { asker, member })
    }
}

type Outcome = Result<AccessToken, TokenError>;
type Flight = watch::Receiver<Option<Outcome>>;

#[derive(Debug)]
struct State {
    link: Arc<Link>,
    renew_after: Duration,
    current: Option<Current>,
    generation: u64,
    flight: Option<Flight>,
    /// No request before this moment,
    not_before: Instant,
    /// nor before this one whatever happens: [`FLOOR`] after the last, or when Entra wants one again.
    floor: Instant,
    /// Nothing was asked for yet, so that an earlier process may know more.
    is_new: bool,
    last_error: Option<TokenError>,
    failures: u64,
    app: AppTrouble,
    passing: Backoff,
    paused: Backoff,
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
    life: Duration,
    refresh_in: Option<Duration>,
    jitter: f64,
    renew_at: Instant,
    usable_until: Instant,
    /// When it was refused first.
    refused: Option<Instant>,
    /// It was asked for because the one before it was refused.
    is_replacement: bool,
}

impl Current {
    /// When it is due by itself.
    fn due(&self, renew_after: Duration) -> Instant {
        self.token.issued + renewal::renew_in(self.life, self.refresh_in, renew_after, self.jitter)
    }

    /// Whether it is refused, and another one may be the remedy.
    const fn wants_replacement(&self) -> bool {
        self.refused.is_some() && !self.is_replacement
    }

    /// Whether the service refuses tokens, this one and the one before it, each soon after it was issued.
    fn is_in_vain(&self) -> bool {
        self.is_replacement && self.refused.is_some_and(|moment| moment < self.token.issued + renewal::SETTLED)
    }
}

impl State {
    /// The earliest moment at which the next request is both wanted and allowed.
    fn next_request(&self) -> Instant {
        match &self.current {
            Some(current) if !current.wants_replacement() => current.renew_at.max(self.not_before),
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
        http: Pool,
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
        let renew_after = request.renew_after;
        let state = State {
            link: Link::new(Asker::new(request, transport, clock, time), apps),
            renew_after,
            current: None,
            generation: 0,
            flight: None,
            not_before: Instant::now(),
            floor: Instant::now(),
            is_new: true,
            last_error: None,
            failures: 0,
            app: AppTrouble::None,
            passing: Backoff::new(Stage::Token),
            paused: Backoff::new(Stage::Paused),
        };
        let inner = Inner {
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
            state.follow_app();
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

    /// The token for somebody who looks whether what was wrong still is: as [`token`](Self::token), save that after a failure
    /// it is asked again without the pause that collecting makes, as soon as [`FLOOR`] and Entra allow. An app's alarm
    /// still lets one probe through at a time.
    pub async fn look_again(&self) -> Result<AccessToken, TokenError> {
        let flight = {
            let mut state = self.inner.state();
            let now = Instant::now();
            match (&state.last_error, &state.flight) {
                (None, _) => None,
                (Some(_), Some(flight)) => Some(flight.clone()),
                (Some(_), None) if now >= state.floor => Some(self.start(&mut state)),
                (Some(error), None) => {
                    return Err(error.clone().waiting(state.not_before.saturating_duration_since(now)));
                }
            }
        };
        match flight {
            Some(flight) => arrival(flight).await,
            None => self.token().await,
        }
    }

    /// A 401: renews once for this token's generation, at once if enough time has passed since it was asked for,
    /// else as soon as it has; a token that replaces a refused one is not replaced in turn. Waits for a renewal that is
    /// in flight; later calls for the same generation do no more than that. Answers whether tokens are refused whatever
    /// is asked for, so that the caller need not hope for the next one.
    pub async fn refused(&self, token: &AccessToken) -> bool {
        let mut in_vain = false;
        let flight = {
            let mut state = self.inner.state();
            let now = Instant::now();
            let mut wanted = false;
            if let Some(current) = &mut state.current {
                if current.token.generation == token.generation && current.refused.is_none() {
                    current.refused = Some(now);
                    self.inner.hurry.notify_one();
                }
                in_vain = current.token.generation == token.generation && current.is_in_vain();
                wanted = current.wants_replacement();
            }
            let wanted = wanted && now >= state.not_before;
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
        in_vain
    }

    /// Goes on as `request` says, if that is about the same tenant's data at the same cloud: with the token that there
    /// is, and with the next request no sooner than the last one and Entra allow. Else nothing happens, and the answer
    /// is `false`: a token must not go to another host than the one it was issued for.
    pub fn follow(&self, request: &TokenRequest, apps: &Arc<AppAlarms>) -> bool {
        let mut state = self.inner.state();
        let before = Arc::clone(&state.link);
        if !before.asker.request().is_for_what(request) {
            return false;
        }
        // All tenants of an app are due at once.
        let mut spread = before.member.spread();
        if !before.asker.request().asks_as(request) {
            state.link = Link::new(before.asker.with(request.clone()), apps);
            spread = spread.max(state.link.member.spread());
            state.passing.succeeded();
            state.paused.succeeded();
            state.app = AppTrouble::None;
            state.last_error = None;
            state.not_before = state.floor.max(Instant::now() + spread);
            let next = state.not_before;
            if let Some(current) = &mut state.current {
                current.renew_at = next;
            }
        } else if state.renew_after != request.renew_after
            && let Some(current) = &mut state.current
        {
            current.renew_at = current.due(request.renew_after).max(Instant::now() + spread);
        }
        state.renew_after = request.renew_after;
        self.inner.hurry.notify_one();
        true
    }

    /// Renews the token for ever; a task of the tenant's tree.
    pub async fn renew(&self) -> ! {
        loop {
            let (mut turns, next) = {
                let mut state = self.inner.state();
                let turns = state.link.member.turns();
                state.follow_app();
                let next = state.next_request();
                let next = match &state.flight {
                    Some(flight) => Err(flight.clone()),
                    None if Instant::now() >= next => Err(self.start(&mut state)),
                    None => Ok((next, state.app != AppTrouble::None)),
                };
                (turns, next)
            };
            match next {
                Err(flight) => _ = arrival(flight).await,
                Ok((next, app_troubled)) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.inner.hurry.notified() => {}
                    // If the sender is gone, we belong to another app by now.
                    _ = turns.changed(), if app_troubled => {}
                },
            }
        }
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        let mut state = self.inner.state();
        let (now, time) = (Instant::now(), state.link.asker.now());
        let at = |moment: Instant| {
            let ahead = SignedDuration::try_from(moment.saturating_duration_since(now)).ok()?;
            let behind = SignedDuration::try_from(now.saturating_duration_since(moment)).ok()?;
            time.checked_add(ahead).ok()?.checked_sub(behind).ok()
        };
        state.follow_app();
        TokenStatus {
            valid_until: state.current.as_ref().and_then(|current| at(current.token.valid_until)),
            renews_at: at(state.next_request().max(now)),
            last_error: state.last_error.as_ref().map(TokenError::trouble),
            failures: state.failures,
        }
    }

    /// The moment before which no request may be made whatever happens: a moment after the last one, or when Entra wants one
    /// again. A pause of our own is not in it.
    #[must_use]
    pub fn earliest(&self) -> Instant {
        self.inner.state().floor
    }

    /// The generation of the current token, and when it changes; 0 before the first.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Until when no request may be made after one that failed, and when that changes: whoever has a memory that survives
    /// the process tells the next one by [`hold`](Self::hold). What Entra asked for is in it up to 24 hours, a pause of
    /// our own up to five minutes.
    #[must_use]
    pub fn waits(&self) -> watch::Receiver<Option<Instant>> {
        self.inner.waits.subscribe()
    }

    /// No request for so long: an earlier process was told to wait, or failed a moment ago. A source that has asked for
    /// itself knows better.
    pub fn hold(&self, wait: Duration) {
        let mut state = self.inner.state();
        let until = Instant::now() + wait.min(LONGEST_ASKED);
        if state.is_new && until > state.floor {
            state.floor = until;
            state.not_before = state.not_before.max(until);
            state.last_error.get_or_insert_with(TokenError::asked_to_wait);
        }
    }

    /// Starts the one request. A task of its own: it ends within the transport's time limits.
    fn start(&self, state: &mut State) -> Flight {
        let (landing, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let inner = Arc::clone(&self.inner);
        let link = Arc::clone(&state.link);
        let span = debug_span!("token.renew", tenant = %link.asker.tenant());
        tokio::spawn(
            async move {
                // Clears the flight also if the request panics: those who wait see `landing` go.
                let cleared = Cleared(&inner);
                let outcome = inner.fly(&link).await;
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
            state.failures += 1;
        }
    }
}

async fn arrival(mut flight: Flight) -> Outcome {
    match flight.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(TokenError::ended())),
        Err(_) => Err(TokenError::ended()),
    }
}

impl State {
    /// Follows the app's alarm: a tenant that complained first joins it once it is raised; when it has ended, those
    /// who waited ask again, spread out.
    fn follow_app(&mut self) {
        match (self.app, self.link.member.is_bad()) {
            (AppTrouble::Suspected, true) => {
                self.app = AppTrouble::Believed;
                self.not_before = self.floor;
                self.last_error = self.last_error.take().map(TokenError::of_app);
            }
            (AppTrouble::Believed, false) => {
                self.app = AppTrouble::None;
                self.not_before = (Instant::now() + self.link.member.spread()).max(self.floor);
            }
            _ => {}
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, from leave to send it to what it changes.
    async fn fly(&self, link: &Arc<Link>) -> Outcome {
        let mut turns = link.member.turns();
        let permit = loop {
            turns.mark_unchanged();
            match link.member.admit() {
                Admission::Go(permit) => break permit,
                Admission::Turn(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    _ = turns.changed() => {}
                },
                Admission::Wait(error, until) => {
                    let now = Instant::now();
                    let mut state = self.state();
                    if !Arc::ptr_eq(&state.link, link) {
                        return Err(TokenError::too_soon().waiting(state.not_before.saturating_duration_since(now)));
                    }
                    state.not_before = state.not_before.max(until);
                    state.app = AppTrouble::Believed;
                    state.last_error = Some(error.clone());
                    state.failures += 1;
                    return Err(error.waiting(until - now));
                }
            }
        };
        let sent = Instant::now();
        {
            let mut state = self.state();
            if !Arc::ptr_eq(&state.link, link) {
                // The next one asks in the new way.
                return Err(TokenError::too_soon().waiting(state.not_before.saturating_duration_since(sent)));
            }
            state.is_new = false;
            state.floor = sent + FLOOR;
            state.not_before = state.floor;
        }
        match link.asker.ask(link.member.rollover()).await {
            Ok(grant) => {
                permit.granted();
                self.keep(link, &grant, sent)
            }
            Err(error) => Err(self.wait_after(link, permit.failed(error))),
        }
    }

    fn keep(&self, link: &Arc<Link>, grant: &Grant, sent: Instant) -> Outcome {
        let Ok(mut authorization) = HeaderValue::try_from(format!("Bearer {}", grant.token.expose())) else {
            // The answer was checked for this; a token that cannot be sent is still no reason to panic.
            return Err(self.wait_after(link, link.asker.cannot_send()));
        };
        authorization.set_sensitive(true);
        let mut state = self.state();
        state.generation += 1;
        let token =
            AccessToken { authorization, issued: sent, valid_until: sent + grant.life, generation: state.generation };
        let mut current = Current {
            token: token.clone(),
            life: grant.life,
            refresh_in: grant.refresh_in,
            jitter: fastrand::f64(),
            // As planned when another way to ask was configured meanwhile.
            renew_at: state.not_before,
            usable_until: sent + renewal::usable_for(grant.life),
            refused: None,
            is_replacement: state.current.as_ref().is_some_and(Current::wants_replacement),
        };
        if Arc::ptr_eq(&state.link, link) {
            current.renew_at = current.due(state.renew_after);
        }
        let renew_in = current.renew_at.saturating_duration_since(sent);
        state.current = Some(current);
        state.last_error = None;
        state.app = AppTrouble::None;
        state.passing.succeeded();
        state.paused.succeeded();
        drop(state);
        debug!(generation = token.generation, life = ?grant.life, renew_in = ?renew_in, "token granted");
        self.waits.send_if_modified(|wait| wait.take().is_some_and(|until| until > Instant::now()));
        self.changes.send_replace(token.generation);
        Ok(token)
    }

    /// Takes note of a failure and of how long to wait after it.
    fn wait_after(&self, link: &Arc<Link>, error: TokenError) -> TokenError {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(asked) = error.asked() {
            state.floor = state.floor.max(now + asked);
        }
        if !Arc::ptr_eq(&state.link, link) {
            // What is wrong with the old way says nothing about the new one.
            state.not_before = state.not_before.max(state.floor);
            self.waits.send_replace(Some(state.floor));
            return error.waiting(state.not_before.saturating_duration_since(now));
        }
        let wait = match error.scope() {
            Scope::Passing => state.passing.failed(error.asked()),
            // The alarm says when; asking it for leave costs no request.
            Scope::App if error.is_shared() => Duration::ZERO,
            Scope::App | Scope::Tenant => state.paused.failed(error.asked()),
        };
        state.not_before = (now + wait).max(state.floor);
        state.app = match error.scope() {
            Scope::App if error.is_shared() => AppTrouble::Believed,
            Scope::App => AppTrouble::Suspected,
            Scope::Tenant | Scope::Passing => AppTrouble::None,
        };
        self.waits.send_replace(Some(state.not_before.min(now + LONGEST_REMEMBERED).max(state.floor)));
        let error = error.waiting(state.not_before - now);
        state.last_error = Some(error.clone());
        state.failures += 1;
        debug!(kind = error.kind(), wait = ?state.not_before - now, "no token");
        error
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
