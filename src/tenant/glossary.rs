//! What the tenant's sensitive information types are called, in the languages that are configured, kept in the store for
//! whoever reads records of `DLP.All`.
//!
//! The list is asked for with the tenant's token ("Retrieve resource friendly names", activity API reference): an
//! organisation has types of its own beside Microsoft's, so that one tenant's list is not another's. It is asked for once in
//! `[dlp] refresh_interval`, and sooner when a record has an id that is not in it: what was stored is looked through at most
//! [`LOOKS`] times in that interval, so that ids which nobody can name cost no more than that.
//!
//! **Invariants:** nothing here delays, stops or fails the collection of records: it has a supervisor and waits of its own,
//! and only the gate and the token are the tenant's. A language that is refused leaves the others alone. What was known
//! stays until something else is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, debug, error, info_span};
use uuid::Uuid;

use super::driver::Panicked;
use super::failure::Failure;
use super::supervisor::restarting;
use super::tree::Tree;
use crate::activity::{ActivityError, DlpSensitiveType, Operation};
use crate::config::Dlp;
use crate::content::ContentType;
use crate::event;
use crate::language::Language;
use crate::report::Trouble;
use crate::retry::{Backoff, Stage, jittered};
use crate::sensitive;
use crate::store::{SensitiveTypes, StoreError};

/// So often within the refresh interval, what was stored is looked through for ids without a name.
const LOOKS: u32 = 24;
/// Types that are kept of one list: Microsoft has some 300, and an organisation may add 500.
const MOST: usize = 4_000;
/// Bytes of a name.
const LONGEST_NAME: usize = 256;
/// Ids that are remembered as those that no list has.
const NAMELESS: usize = 1_000;
const DLP: Option<ContentType> = Some(ContentType::Dlp);

/// One language's place in time.
struct Turn {
    due: Instant,
    failing: Backoff,
}

/// Keeps the names until the tenant is stopped, and starts again after a panic; ends at once if none are wanted.
pub(super) async fn supervise(tree: Arc<Tree>, delay: Duration) {
    let Some(dlp) = tree.dlp.clone() else { return };
    let stop = tree.stop.clone();
    tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(delay) => {}
    }
    restarting(
        &stop,
        || {
            let (tree, dlp) = (Arc::clone(&tree), dlp.clone());
            async move {
                let span = info_span!("tenant.names", tenant = %tree.tenant);
                tokio::select! {
                    () = tree.stop.cancelled() => {}
                    () = keep(&tree, &dlp).instrument(span) => {}
                }
                Ok(())
            }
        },
        |Panicked(message), wait| {
            let (tenant, seconds) = (tree.tenant, wait.as_secs_f64());
            error!(message_id = event::TENANT_PANICKED, %tenant, error = message, seconds, "the names of sensitive information types panicked and start again; please report this");
            let cause = format!("fetching the names of sensitive information types panicked and starts again: {message}");
            tree.troubled(Stage::Names, DLP, &Trouble::passing("panic", cause));
        },
    )
    .await;
}

async fn keep(tree: &Arc<Tree>, dlp: &Dlp) {
    // What is stored from now on is looked through. What was stored before has had its names when it was new.
    let mut seen = head(tree);
    let mut turns = BTreeMap::new();
    for language in &dlp.languages {
        let due = due(tree, language, dlp.refresh_interval).await;
        turns.insert(language.clone(), Turn { due, failing: Backoff::new(Stage::Names) });
    }
    let mut nameless = BTreeSet::new();
    let mut missing = BTreeSet::new();
    let mut next_look = Instant::now();
    let mut unread = false;
    loop {
        let mut fetched = false;
        for (language, turn) in turns.iter_mut().filter(|(_, turn)| turn.due <= Instant::now()) {
            turn.due = match fetch(tree, language).await {
                Ok(count) => {
                    debug!(%language, types = count, "names of sensitive information types fetched");
                    turn.failing.succeeded();
                    fetched = true;
                    Instant::now() + jittered(dlp.refresh_interval, 0.05)
                }
                Err(Failure::Stopping) => return,
                Err(failure) => {
                    debug!(%language, error = %failure.trouble().cause, "names of sensitive information types not fetched");
                    tree.failed(Stage::Names, DLP, &failure);
                    Instant::now() + turn.failing.failed(None)
                }
            };
        }
        if fetched && turns.values().all(|turn| turn.failing.attempts() == 0) {
            tree.works(Stage::Names, DLP);
            // What this list does not have either, the next one need not be asked for.
            nameless.append(&mut missing);
            if nameless.len() > NAMELESS {
                nameless.clear();
            }
        }
        let due = turns.values().map(|turn| turn.due).min().unwrap_or_else(Instant::now);
        tokio::select! {
            () = sleep_until(due) => {}
            () = tree.dlp_stored.notified(), if !unread => unread = true,
            () = sleep_until(next_look), if unread => {
                unread = false;
                next_look = Instant::now() + jittered(dlp.refresh_interval / LOOKS, 0.05);
                let language = dlp.languages.first().cloned().unwrap_or_default();
                match look(tree, language, seen, nameless.clone()).await {
                    Ok((to, found)) => {
                        seen = to;
                        missing = found;
                    }
                    Err(error) => {
                        debug!(error = %error.trouble().cause, "what was stored is not looked through for names");
                        unread = true;
                    }
                }
                if !missing.is_empty() {
                    debug!(ids = missing.len(), "records name sensitive information types without a name");
                    turns.values_mut().filter(|turn| turn.failing.attempts() == 0).for_each(|turn| turn.due = Instant::now());
                }
            }
        }
    }
}

/// The number of the last blob.
fn head(tree: &Tree) -> u64 {
    tree.store.heads().get(&(tree.tenant, ContentType::Dlp)).copied().unwrap_or_default()
}

/// When a language is to be fetched, by what was fetched before.
async fn due(tree: &Arc<Tree>, language: &Language, interval: Duration) -> Instant {
    let now = Instant::now();
    let Ok(Some(known)) = known(tree, language.clone()).await else { return now };
    let age = tree.time.now().duration_since(known.fetched_at);
    // What was fetched in the future was fetched by another clock.
    if age < SignedDuration::ZERO {
        return now;
    }
    now + interval.saturating_sub(age.unsigned_abs())
}

async fn known(tree: &Arc<Tree>, language: Language) -> Result<Option<SensitiveTypes>, StoreError> {
    let tree = Arc::clone(tree);
    let read = spawn_blocking(move || tree.store.sensitive_types(tree.tenant, &language)).await;
    read.unwrap_or(Err(StoreError::Closed))
}

/// Fetches the names in one language, and keeps them.
async fn fetch(tree: &Tree, language: &Language) -> Result<usize, Failure> {
    let client = &tree.client;
    let request = |token| async move { client.dlp_sensitive_types(&token, Some(language.as_str())).await };
    let listed = tree.ask(DLP, request).await?;
    let names = names(listed);
    if names.is_empty() {
        // Microsoft's own types are always there: it is not the service that says so.
        let operation = Operation::DlpSensitiveTypes;
        let error = ActivityError::Malformed { operation, expected: "a list of sensitive types", source: None };
        return Err(Failure::Service(Box::new(error)));
    }
    let types = SensitiveTypes { fetched_at: tree.time.now(), names };
    tree.store.keep_sensitive_types(tree.tenant, language, &types).await.map_err(Failure::Store)?;
    Ok(types.names.len())
}

/// What can be used of a list. Pure.
fn names(listed: Vec<DlpSensitiveType>) -> BTreeMap<Uuid, String> {
    let named = listed.into_iter().filter_map(|listed| {
        let id = Uuid::try_parse(&listed.id).ok()?;
        let name = listed.name.trim();
        (!name.is_empty() && name.len() <= LONGEST_NAME).then(|| (id, name.to_owned()))
    });
    named.take(MOST).collect()
}

/// Looks through what was stored after `seen`: up to where that is, and which ids have no name, save those that are known
/// to have none.
async fn look(
    tree: &Arc<Tree>,
    language: Language,
    seen: u64,
    nameless: BTreeSet<Uuid>,
) -> Result<(u64, BTreeSet<Uuid>), StoreError> {
    let known = known(tree, language).await?.map(|types| types.names).unwrap_or_default();
    let tree = Arc::clone(tree);
    let work = move || {
        let mut missing = BTreeSet::new();
        let to = tree.store.for_each_record_after(tree.tenant, ContentType::Dlp, seen, &[], |record| {
            sensitive::each(record.json, |_, id| {
                if missing.len() < NAMELESS && !known.contains_key(&id) && !nameless.contains(&id) {
                    missing.insert(id);
                }
            });
            if tree.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((to.max(seen), missing))
    };
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_or_no_name_is_left_out() {
        let listed = |id: &str, name: &str| DlpSensitiveType { id: id.to_owned(), name: name.to_owned() };
        let card = "50842eb7-edc8-4019-85dd-5a5c1f2bb085";
        let kept = names(vec![
            listed(card, " Credit Card Number "),
            listed("50842eb7", "short"),
            listed("0e9b3178-9678-47dd-a509-37222ca96b42", " "),
            listed("1e9b3178-9678-47dd-a509-37222ca96b42", &"x".repeat(LONGEST_NAME + 1)),
        ]);
        assert_eq!(kept, BTreeMap::from([(card.parse().unwrap(), "Credit Card Number".to_owned())]));
        let many = (0..=MOST as u128).map(|n| listed(&Uuid::from_u128(n).to_string(), "x")).collect();
        assert_eq!(names(many).len(), MOST);
    }
}
