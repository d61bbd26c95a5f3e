//! When which list is listed, and what becomes of a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, error};

use super::{Failure, Station};
use crate::event;
use crate::graph::List;
use crate::report::{TenantState, Trouble};
use crate::retry::{Advice, Backoff, Stage};
use crate::tenant::course::Reach;
use crate::tenant::driver::Panicked;
use crate::tenant::supervisor::restarting;

/// One list's place in time.
struct Turn {
    due: Instant,
    failing: Backoff,
    refused: Backoff,
    /// A person must act: or the next token brings the role.
    awaits_token: bool,
    /// Where the tenant would stand if there were no other list.
    state: TenantState,
    /// Its last failure stays until a person acts.
    needs_operator: bool,
    /// It was listed, and that is all that it was to be.
    over: bool,
}

impl Station {
    /// Shows where the tenant stands, if nobody else does: it is collected as long as one list is.
    fn tell(&self, states: impl Iterator<Item = TenantState>) {
        if self.alone {
            self.report.token(self.line.token().status().valid_until);
            let rank = |state: &TenantState| match state {
                TenantState::Collecting => 0,
                TenantState::Starting => 1,
                TenantState::Throttled => 2,
                TenantState::Failing => 3,
                _ => 4,
            };
            self.report.state(states.min_by_key(rank).unwrap_or(TenantState::Starting));
        }
    }
}

impl Turn {
    fn reach(&self, now: Instant) -> Reach {
        if self.over {
            Reach::Had
        } else if self.needs_operator {
            Reach::Refused
        } else if self.due > now {
            Reach::Again(self.due, self.failing.attempts())
        } else {
            Reach::UnderWay
        }
    }
}

/// How long nothing is due where all is over.
const NEVER: Duration = Duration::from_hours(24);

/// Collects a tenant's health until it is stopped, and starts again after a panic.
pub(in crate::tenant) async fn supervise(station: Arc<Station>, delay: Duration) {
    let stop = station.stop.clone();
    if station.unless_stopped(tokio::time::sleep(delay)).await.is_err() {
        return;
    }
    restarting(
        &stop,
        || watch(Arc::clone(&station)),
        |Panicked(message), wait| {
            let (tenant, seconds) = (station.tenant, wait.as_secs_f64());
            error!(message_id = event::TENANT_PANICKED, %tenant, error = message, seconds, "the tenant's health panicked and starts again; please report this");
            let cause = format!("the collection of the tenant's health panicked and starts again: {message}");
            station.report.troubled(Stage::Health, None, &Trouble::passing("panic", cause));
        },
    )
    .await;
}

async fn watch(station: Arc<Station>) -> Result<(), Panicked> {
    tokio::select! {
        () = station.stop.cancelled() => {}
        never = station.line.token().renew() => match never {},
        () = take_turns(&station) => {}
    }
    Ok(())
}

async fn take_turns(station: &Station) {
    let mut restoring = Backoff::new(Stage::Store);
    while let Err(failed) = station.restore().await {
        station.report.troubled(Stage::Health, None, &failed.trouble());
        tokio::time::sleep(restoring.failed(None)).await;
    }
    let mut tokens = station.line.token().changes();
    let new = |list| {
        let (failing, refused) = (Backoff::new(Stage::Health), Backoff::new(Stage::Paused));
        let (due, state) = (Instant::now(), TenantState::Starting);
        (list, Turn { due, failing, refused, awaits_token: false, state, needs_operator: false, over: false })
    };
    let mut turns: BTreeMap<_, _> = List::ALL.into_iter().map(new).collect();
    loop {
        for (list, turn) in &mut turns {
            if !turn.over && turn.due <= Instant::now() {
                take(station, *list, turn).await;
            }
            station.course.tell_list(list.content_type(), turn.reach(Instant::now()));
        }
        station.tell(turns.values().map(|turn| turn.state));
        // The token that was got to list with is none that brings another role.
        tokens.mark_unchanged();
        station.line.forget_over().await;
        let next = turns.values().filter(|turn| !turn.over).map(|turn| turn.due).min();
        let next = next.unwrap_or_else(|| Instant::now() + NEVER);
        tokio::select! {
            () = sleep_until(next) => {}
            changed = tokens.changed() => {
                // The source lives as long as the station.
                if changed.is_ok() {
                    turns.values_mut().filter(|turn| turn.awaits_token).for_each(|turn| turn.due = Instant::now());
                }
            }
        }
    }
}

async fn take(station: &Station, list: List, turn: &mut Turn) {
    let of = Some(list.content_type());
    let collected = {
        // Nobody closes it.
        let _place = station.places.acquire().await;
        station.collect(list).await
    };
    let now = Instant::now();
    turn.awaits_token = false;
    turn.needs_operator = false;
    let failure = match collected {
        Ok(()) => {
            turn.due = now + station.poll();
            turn.over = station.course.ends();
            turn.failing.succeeded();
            turn.refused.succeeded();
            turn.state = TenantState::Collecting;
            if station.alone {
                station.report.polled(station.time.now());
            }
            station.report.works(Stage::Health, None);
            station.report.works(Stage::Health, of);
            return;
        }
        Err(failure) => failure,
    };
    debug!(tenant = %station.tenant, %list, error = %failure, "not listed");
    if let Some(trouble) = failure.trouble() {
        station.report.troubled(Stage::Health, of, &trouble);
        turn.needs_operator = trouble.needs_operator;
    }
    turn.state = match &failure {
        Failure::Stopping => turn.state,
        Failure::Held(_) => TenantState::Throttled,
        Failure::Graph(error) if matches!(error.advice(), Advice::Throttled { .. }) => TenantState::Throttled,
        _ if turn.needs_operator => TenantState::Paused,
        _ => TenantState::Failing,
    };
    turn.due = match failure {
        // Whoever stops it ends this at the next await.
        Failure::Stopping => now + station.poll(),
        Failure::Held(until) => until.max(now + Duration::from_millis(100)),
        Failure::Token(_) | Failure::Store(_) => {
            turn.awaits_token = matches!(failure, Failure::Token(_));
            now + turn.failing.failed(None)
        }
        Failure::Graph(error) => match error.advice() {
            Advice::PauseTenant | Advice::RenewToken => {
                turn.awaits_token = true;
                now + turn.refused.failed(None)
            }
            // The gate says when.
            Advice::Throttled { .. } => station.line.closed_until().unwrap_or(now),
            _ => now + turn.failing.failed(error.refusal().and_then(|refusal| refusal.wait)),
        },
    };
}
