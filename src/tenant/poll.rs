//! One activation of a tier: lists its windows through all their pages, queues what is new, moves the watermark.
//!
//! Each page is queued durably before the next one is asked for; the watermark moves when all pages of a window are.
//! A page that fails is asked for again a few times; then the activation ends, and the next one begins with the start
//! of the window that failed. What was queued meanwhile is known to the queue and not queued twice.
//!
//! **Invariants:** the watermark never passes content that is not queued; an empty page with a link is followed; a
//! listing that leads in a circle ends with an error; an entry that cannot be collected is a dead letter before the
//! watermark passes it, and no more once it is listed rightly.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{Instrument as _, debug, info_span};

use super::failure::{Failure, ODD_ANSWERS, Reaction};
use super::gaps;
use super::plan::{self, Gap};
use super::tree::Tree;
use crate::activity::{Page, PageLink, RefusedEntry, Window};
use crate::content::{ContentBlob, ContentType, Tier};
use crate::retry::{Backoff, Stage};
use crate::store::Watermark;

/// How often a page is asked for before the activation fails: half a minute of waits, within which most troubles of
/// the service pass.
const ATTEMPTS: u32 = 5;
/// At which attempt the operator is told.
const TELLING: u32 = 3;
/// How often a window is begun again because the service no longer accepts a link to one of its pages.
pub(super) const BEGINNINGS: u32 = 3;

/// What an activation found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Blobs queued.
    pub(super) new: usize,
    /// Blobs that were queued or stored before.
    pub(super) known: usize,
    /// Entries that cannot be collected as they are listed, and were not collected before.
    pub(super) refused: usize,
    /// A first poll that has listed all that a sweep would.
    pub(super) whole: bool,
    /// The service's time turned out to be earlier than the plan took it for: the span that is wanted was not listed.
    pub(super) astray: bool,
}

/// An activation that failed.
#[derive(Debug)]
pub(super) struct Setback {
    pub(super) failure: Failure,
    /// The start of the window that failed: the next activation of the tier keeps it.
    pub(super) resume: Option<Timestamp>,
}

/// Runs one activation.
pub(super) async fn list(
    tree: Arc<Tree>,
    content_type: ContentType,
    tier: Tier,
    resume: Option<Timestamp>,
) -> Result<Listed, Setback> {
    #[cfg(test)]
    fault_point(tree.tenant);
    let span = info_span!("tenant.poll", tenant = %tree.tenant, %content_type, tier = tier.as_str());
    activate(&tree, content_type, tier, resume).instrument(span).await
}

async fn activate(
    tree: &Tree,
    content_type: ContentType,
    tier: Tier,
    resume: Option<Timestamp>,
) -> Result<Listed, Setback> {
    let begun = tree.time.now();
    let mark = tree.mark(content_type);
    let windows = plan::plan(tier, mark.listed_to, resume, begun, &tree.collect);
    let reach = gaps::reach(&windows);
    let planned_to = reach.map(|(_, to)| to);
    let mut all = Listed::default();
    let mut dates = Dates::default();
    let mut setback: Option<Setback> = None;
    let mut first = true;
    for planned in windows {
        // Windows may have waited for those before them.
        let Some(window) = plan::still_listable(planned, tree.time.now()) else { continue };
        let (window, found, date) = match list_window(tree, content_type, tier, window).await {
            Ok(found) => found,
            // One window that the service cannot list does not keep the content of the later ones from being found;
            // the watermark stays before it.
            Err(failure) if setback.is_none() && is_of_window(&failure) => {
                debug!(start = %window.start, error = %failure.trouble().cause, "window failed, going on with the next");
                setback = Some(Setback { failure, resume: Some(window.start) });
                continue;
            }
            Err(failure) => return Err(setback.unwrap_or(Setback { failure, resume: Some(window.start) })),
        };
        all.new += found.new;
        all.known += found.known;
        all.refused += found.refused;
        dates.add(date);
        if setback.is_none() {
            tree.works(Stage::List, Some(content_type));
        }
        tree.report.listed(content_type, tier, date.unwrap_or_else(|| tree.time.now()), found.new);
        if tier == Tier::Poll {
            // Later windows go on from where the first one ends.
            let plan_end = planned_to.filter(|_| first && setback.is_none());
            move_mark(tree, content_type, window, date, plan_end).await;
        }
        first = false;
    }
    if let Some(setback) = setback {
        return Err(setback);
    }
    // Until when the span was listed: not later than the first answer.
    let at = dates.earliest().map_or(begun, |date| date.min(begun));
    all.astray = planned_to.is_some_and(|end| plan::is_astray(end, dates.earliest()));
    if let Some(reach) = reach.filter(|_| !all.astray) {
        tree.interruptions.listed(content_type, tier, reach, tree.time.now());
        tree.interruptions.keep(tree).await;
    }
    match tier {
        // The next activation is planned by the time that these answers told.
        _ if all.astray => {}
        Tier::Poll if mark == Watermark::default() && resume.is_none() && tree.collect.backfill >= plan::OLDEST => {
            all.whole = true;
            tree.set_mark(content_type, |mark| (mark.recent_at, mark.sweep_at) = (Some(at), Some(at)));
        }
        Tier::Poll | Tier::Webhook => {}
        Tier::Recent => tree.set_mark(content_type, |mark| mark.recent_at = Some(at)),
        Tier::Sweep => tree.set_mark(content_type, |mark| mark.sweep_at = Some(at)),
    }
    if all.new > 0 {
        debug!(new = all.new, known = all.known, "queued");
    } else {
        debug!(known = all.known, "nothing new");
    }
    Ok(all)
}

/// Whether another window may fare better.
pub(super) fn is_of_window(failure: &Failure) -> bool {
    match failure.reaction() {
        Reaction::Again { .. } | Reaction::AwaitOtherToken | Reaction::Relist => true,
        Reaction::Stop
        | Reaction::AwaitToken
        | Reaction::AwaitStore
        | Reaction::AwaitGate
        | Reaction::CheckSubscription
        | Reaction::Pause { .. }
        | Reaction::Gone { .. }
        | Reaction::TooLarge
        | Reaction::Readdress => false,
    }
}

/// The window is queued: the watermark moves as far as the answers justify. Of the first window of a plan it is known where the
/// plan ends: if the watermark has stood still for long, that is on record before it moves.
async fn move_mark(
    tree: &Tree,
    content_type: ContentType,
    window: Window,
    date: Option<Timestamp>,
    plan_end: Option<Timestamp>,
) {
    let before = tree.mark(content_type).listed_to;
    let Some(moved) = plan::moved(window, before, date, &tree.collect) else {
        debug!(start = %window.start, end = %window.end, ?date, "the answers do not justify moving the watermark");
        return;
    };
    if let Some(stood) = before {
        tree.interruptions.stepped_back(content_type, moved.listed_to, stood);
    }
    if let (Some(stood), Some(end), Some(date)) = (before, plan_end, date) {
        tree.interruptions.goes_on(tree, content_type, (stood, end.min(date)), moved.lost);
        tree.interruptions.keep(tree).await;
    }
    if let Some(Gap { from, to }) = moved.lost {
        tree.report.lost(content_type, from, to);
    }
    tree.set_mark(content_type, |mark| mark.listed_to = Some(moved.listed_to));
}

/// Lists one window to its last page. Answers which one that was: if the service does not accept it, it is cut to what
/// the service lists by the time that its refusal told.
pub(super) async fn list_window(
    tree: &Tree,
    content_type: ContentType,
    tier: Tier,
    mut window: Window,
) -> Result<(Window, Listed, Option<Timestamp>), Failure> {
    let mut beginnings = 0;
    let mut all = Listed::default();
    'window: loop {
        beginnings += 1;
        let mut dates = Dates::default();
        let mut next: Option<PageLink> = None;
        loop {
            let page = match page(tree, content_type, window, next.as_ref()).await {
                Ok(page) => page,
                Err(failure) if beginnings < BEGINNINGS && failure.reaction() == Reaction::Relist => {
                    debug!(error = %failure.trouble().cause, "beginning the window again");
                    match plan::still_listable(window, tree.time.now()) {
                        Some(listable) => window = listable,
                        None => return Err(failure),
                    }
                    continue 'window;
                }
                Err(failure) => return Err(failure),
            };
            tree.course.advance();
            dates.add(page.date);
            all.refused += refuse(tree, content_type, tier, page.refused).await?;
            let (aside, blobs): (Vec<_>, Vec<_>) = {
                let strikes = tree.strikes();
                page.entries.into_iter().partition(|blob| strikes.is_aside(&blob.content_id))
            };
            all.known += aside.len();
            // Most pages of an idle tenant are empty, and cost the store nothing.
            if !blobs.is_empty() {
                let ids = tree.has_letters().then(|| blobs.iter().map(|blob| blob.content_id.clone()).collect());
                let enqueued = tree.store.enqueue(tree.tenant, tier, blobs).await.map_err(Failure::Store)?;
                tree.works(Stage::Store, None);
                all.new += enqueued.new;
                all.known += enqueued.known;
                if enqueued.new > 0 {
                    tree.queued();
                }
                // After it is queued: between the two, a crash leaves a dead letter too many, until the next listing.
                for id in tree.store.withdraw(tree.tenant, ids.unwrap_or_default()).await.map_err(Failure::Store)? {
                    tree.report.letter_withdrawn(content_type, &id);
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok((window, all, dates.earliest()));
            }
        }
    }
}

/// One page, asked for again while its trouble may pass.
pub(super) async fn page(
    tree: &Tree,
    content_type: ContentType,
    window: Window,
    link: Option<&PageLink>,
) -> Result<Page, Failure> {
    let mut backoff = Backoff::new(Stage::List);
    loop {
        let client = &tree.client;
        let answer = match link {
            None => {
                let first = |token| async move { client.list_content(&token, content_type, window).await };
                tree.ask(Some(content_type), first).await
            }
            Some(link) => {
                let next = |token| async move { client.next_page(&token, link).await };
                tree.ask(Some(content_type), next).await
            }
        };
        let failure = match answer {
            Ok(page) => return Ok(page),
            Err(failure) => failure,
        };
        let wait = match failure.reaction() {
            Reaction::Again { after } => backoff.failed(after),
            Reaction::AwaitOtherToken | Reaction::AwaitStore => backoff.failed(None),
            Reaction::Pause { odd: true } if backoff.attempts() < ODD_ANSWERS => backoff.failed(None),
            // The gate knows how long.
            Reaction::AwaitGate => {
                backoff.failed(None);
                Duration::ZERO
            }
            Reaction::Stop
            | Reaction::AwaitToken
            | Reaction::Relist
            | Reaction::CheckSubscription
            | Reaction::Pause { .. }
            | Reaction::Gone { .. }
            | Reaction::TooLarge
            | Reaction::Readdress => return Err(failure),
        };
        if backoff.attempts() >= ATTEMPTS {
            return Err(failure);
        }
        // A stumble is no news; what goes on for several attempts is.
        if backoff.attempts() >= TELLING {
            tree.failed(Stage::List, Some(content_type), &failure);
        }
        debug!(attempt = backoff.attempts(), error = %failure.trouble().cause, "page failed");
        sleep(wait).await;
    }
}

/// The service lists entries that cannot be collected as they are listed. What was not collected before is a dead letter
/// from now on; since another listing may name it rightly, the whole span is listed again before long. Answers how many
/// there are of those.
pub(super) async fn refuse(
    tree: &Tree,
    content_type: ContentType,
    tier: Tier,
    refused: Vec<RefusedEntry>,
) -> Result<usize, Failure> {
    if refused.is_empty() {
        return Ok(0);
    }
    tree.note_letters();
    let now = tree.time.now();
    let letters = refused.iter().map(|refused| (as_blob(refused, content_type, now), told(refused))).collect();
    let answer = tree.store.refuse(tree.tenant, tier, letters).await.map_err(Failure::Store)?;
    for refused in refused.iter().filter(|refused| answer.new.contains(&refused.content_id)) {
        tree.report.listed_wrongly(content_type, &refused.content_id, refused.kind, &refused.reason, &refused.entry);
    }
    Ok(answer.standing)
}

/// What the dead letter says: why, and of what, since that may be all that is known of it.
pub(super) fn told(refused: &RefusedEntry) -> String {
    format!(
        "it is listed in a way that it cannot be collected ({}): {}; as listed: {}",
        refused.kind, refused.reason, refused.entry
    )
}

pub(super) fn as_blob(refused: &RefusedEntry, content_type: ContentType, now: Timestamp) -> ContentBlob {
    ContentBlob {
        content_id: refused.content_id.clone(),
        content_type,
        content_uri: refused.content_uri.clone(),
        content_created: refused.content_created.unwrap_or(now),
        content_expiration: refused.content_expiration.unwrap_or(now),
    }
}

/// The earliest `Date` of several answers; none if one of them has none.
#[derive(Debug, Clone, Copy, Default)]
struct Dates {
    earliest: Option<Timestamp>,
    missing: bool,
}

impl Dates {
    fn add(&mut self, date: Option<Timestamp>) {
        match date {
            Some(date) => self.earliest = Some(self.earliest.map_or(date, |before| before.min(date))),
            None => self.missing = true,
        }
    }

    fn earliest(&self) -> Option<Timestamp> {
        self.earliest.filter(|_| !self.missing)
    }
}

/// The tenants whose next listing panics, in tests: what a bug here would do.
#[cfg(test)]
static PANICS: std::sync::Mutex<std::collections::BTreeSet<crate::content::TenantId>> =
    std::sync::Mutex::new(std::collections::BTreeSet::new());

#[cfg(test)]
pub(super) fn panic_once_for(tenant: crate::content::TenantId) {
    PANICS.lock().unwrap().insert(tenant);
}

#[cfg(test)]
fn fault_point(tenant: crate::content::TenantId) {
    let asked = PANICS.lock().unwrap().remove(&tenant);
    assert!(!asked, "the test asked for it");
}
