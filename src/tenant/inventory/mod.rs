//! Takes a tenant's inventory: lists once more all that Microsoft still holds and compares it with what is stored, queued or
//! given up. Nothing of what the collection remembers is believed: neither watermarks nor the tiers.
//!
//! It asks as the tenant's own tasks do, with their token, at their gate and within their limits, and next pages are checked as
//! theirs are. What is missing is queued as if a sweep had found it. Of the blobs that were fetched so early that they may be
//! parts, some are fetched again and their bodies compared.
//!
//! **Invariants:** content that the next poll lists anyway is not missing, nor is anything before it was looked for twice; a
//! part of the listing that fails is told, and the rest is taken all the same; what is named takes a bounded room.

mod finding;
mod sample;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;
use tracing::{Instrument as _, info, info_span, warn};

use super::failure::{Failure, Reaction};
use super::plan::{self, earlier};
use super::poll::{self, BEGINNINGS};
use super::retrieve;
use super::roster::Member;
use super::tree::Tree;
use crate::activity::{Page, PageLink, Window};
use crate::content::{ContentBlob, ContentType, Tier};
use crate::event;
use crate::report::Trouble;
use crate::store::{Fate, StoreError};

pub use self::finding::{Behind, Inventory, Named, NamedBlob, Unlisted};
use self::sample::Sample;

/// How long one answer is waited for, with all the waits that Microsoft asks for. Throttling passes within minutes.
const PATIENCE: Duration = Duration::from_mins(15);
/// What waits for so long is no longer on its way, and what was not listed for so long is not up to date.
const OVERDUE: SignedDuration = SignedDuration::from_mins(30);
/// So much that is missing is looked for again and queued at a time.
const AT_ONCE: usize = 500;
/// So many of what the next poll will list are looked for again.
const AWAITED: usize = 10_000;

/// A tenant whose inventory can be taken.
#[derive(Debug, Clone)]
pub struct Stocktaker {
    pub(super) tree: Arc<Tree>,
    /// It belongs to nobody's tasks: what outlived the last process is yet to be read.
    pub(super) apart: bool,
}

impl Stocktaker {
    /// Takes it. It takes as long as listing seven days, and some waits that Microsoft asks for.
    pub async fn take(&self) -> Result<Inventory, StoreError> {
        let tree = &self.tree;
        if self.apart {
            // Whoever is paused is asked all the same, since a person wants to know.
            tree.restore().await?;
        }
        let span = info_span!("tenant.verify", tenant = %tree.tenant);
        let inventory = Taking::new(tree).take().instrument(span).await?;
        let (tenant, name) = (inventory.tenant, inventory.name.as_str());
        if inventory.is_sound() {
            info!(%tenant, name, "verified at Microsoft: {}", inventory.told());
        } else {
            warn!(message_id = event::TENANT_INCOMPLETE, %tenant, name, "verified at Microsoft: {}", inventory.told());
        }
        Ok(inventory)
    }
}

/// Of one of the roster that is not to be collected, or cannot be.
pub(super) fn not_taken(member: &Member, now: Timestamp) -> Option<Inventory> {
    let name = member.name.clone();
    match (&member.trouble, member.enabled, member.held) {
        (Some(trouble), true, None) => {
            Some(Inventory::unable(member.id, name, now, member.content_types.iter().copied(), trouble))
        }
        (_, false, _) => {
            Some(Inventory::idle(member.id, name, now, "its configuration says that it is not to be collected"))
        }
        (_, true, Some(_)) => Some(Inventory::idle(member.id, name, now, "an operator has paused it")),
        (None, true, None) if member.content_types.is_empty() => {
            Some(Inventory::idle(member.id, name, now, "its cloud has no Management Activity API"))
        }
        (None, true, None) => None,
    }
}

/// Of one whose app or cloud is not there.
pub(super) fn not_configured(member: &Member, now: Timestamp) -> Inventory {
    let trouble = Trouble::for_operator(
        "app_unknown",
        "its app or its cloud is not configured",
        "run `tenantry check`, which says what is missing",
    );
    Inventory::unable(member.id, member.name.clone(), now, member.content_types.iter().copied(), &trouble)
}

/// What one window brought; counted when all of its pages are there, since it may be begun again.
#[derive(Debug, Default)]
struct Tally {
    listed: u64,
    stored: u64,
    waiting: u64,
    overdue: Named,
    lost: Named,
    refused: Named,
    missing: Vec<ContentBlob>,
    awaited: Vec<ContentBlob>,
    /// How many more there are.
    awaited_too: u64,
}

struct Taking<'t> {
    tree: &'t Arc<Tree>,
    inventory: Inventory,
    awaited: Vec<ContentBlob>,
    sample: Sample,
    /// Nothing more is asked: patience is spent.
    spent: Option<Trouble>,
}

/// Why a listing ended.
enum Broken {
    Listing {
        trouble: Trouble,
        /// Another window may fare better.
        of_window: bool,
    },
    Store(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => Self::Store(error),
            failure => Self::Listing { trouble: failure.trouble(), of_window: poll::is_of_window(&failure) },
        }
    }
}

impl<'t> Taking<'t> {
    fn new(tree: &'t Arc<Tree>) -> Self {
        let now = tree.time.now();
        Self {
            tree,
            inventory: Inventory::new(tree.tenant, tree.report.name(), now),
            awaited: Vec::new(),
            sample: Sample::new(now),
            spent: None,
        }
    }

    async fn take(mut self) -> Result<Inventory, StoreError> {
        for &content_type in &self.tree.content_types {
            let trouble = match self.spent.clone() {
                Some(trouble) => Some(trouble),
                None => self.content_type(content_type).await?,
            };
            self.inventory.unlisted.extend(trouble.map(|trouble| Unlisted { content_type, trouble }));
        }
        self.look_again_for_awaited().await?;
        if self.spent.is_none() {
            self.compare().await;
        }
        Ok(self.inventory)
    }

    /// Lists the whole span of one content type, and answers what kept it from some of that.
    async fn content_type(&mut self, content_type: ContentType) -> Result<Option<Trouble>, StoreError> {
        let tree = self.tree;
        let mut met = None;
        for planned in plan::plan(Tier::Sweep, None, None, tree.time.now(), &tree.collect) {
            // It may have waited for those before it.
            let Some(window) = plan::still_listable(planned, tree.time.now()) else { continue };
            match self.window(content_type, window).await {
                Ok(tally) => self.add(content_type, tally).await?,
                Err(Broken::Store(error)) => return Err(error),
                // The second one says that it is not of the window.
                Err(Broken::Listing { trouble, of_window: true }) if met.is_none() && self.spent.is_none() => {
                    met = Some(trouble);
                }
                Err(Broken::Listing { trouble, .. }) => return Ok(Some(met.unwrap_or(trouble))),
            }
        }
        Ok(met)
    }

    /// Lists one window to its last page, from its beginning again when the service accepts a link no more.
    async fn window(&mut self, content_type: ContentType, mut window: Window) -> Result<Tally, Broken> {
        let tree = self.tree;
        let mut beginnings = 0;
        'window: loop {
            beginnings += 1;
            let mut tally = Tally::default();
            let mut next: Option<PageLink> = None;
            loop {
                let page = match self.page(content_type, window, next.as_ref()).await {
                    Ok(page) => page,
                    Err(failure) if beginnings < BEGINNINGS && failure.reaction() == Reaction::Relist => {
                        match plan::still_listable(window, tree.time.now()) {
                            Some(listable) => window = listable,
                            None => return Err(failure.into()),
                        }
                        continue 'window;
                    }
                    Err(failure) => return Err(failure.into()),
                };
                next = self.sort_out(content_type, page, &mut tally).await?;
                if next.is_none() {
                    return Ok(tally);
                }
            }
        }
    }

    async fn page(
        &mut self,
        content_type: ContentType,
        window: Window,
        link: Option<&PageLink>,
    ) -> Result<Page, Failure> {
        if let Ok(page) = timeout(PATIENCE, poll::page(self.tree, content_type, window, link)).await {
            return page;
        }
        self.spent = Some(Failure::Held.trouble());
        Err(Failure::Held)
    }

    /// Finds out what became of a page's entries, and answers where the next page is.
    async fn sort_out(
        &mut self,
        content_type: ContentType,
        page: Page,
        tally: &mut Tally,
    ) -> Result<Option<PageLink>, Broken> {
        let (tree, now) = (self.tree, self.tree.time.now());
        let told = page.refused.iter().map(|refused| {
            let blob = poll::as_blob(refused, content_type, now);
            (blob, poll::told(refused))
        });
        let refused: Vec<_> = told.collect();
        if !refused.is_empty() {
            poll::refuse(tree, content_type, Tier::Sweep, page.refused).await?;
        }
        let mut seen = HashSet::new();
        let entries = page.entries.into_iter().filter(|blob| seen.insert(blob.content_id.clone()));
        let mut blobs: Vec<_> = entries.collect();
        let whole = blobs.len();
        blobs.extend(refused.iter().map(|(blob, _)| blob.clone()));
        if blobs.is_empty() {
            return Ok(page.next);
        }
        // Before it is looked for: a poll that comes in between has queued it.
        let polled_from = tree.mark(content_type).listed_to.map(|to| earlier(to, tree.collect.overlap));
        let fates = tree.store.fates(tree.tenant, blobs.clone()).await?;
        for (at, (blob, fate)) in blobs.into_iter().zip(fates).enumerate() {
            tally.listed += 1;
            match fate {
                Fate::Stored { young } => {
                    tally.stored += 1;
                    if young {
                        self.sample.offer(blob);
                    }
                }
                Fate::Queued { since, last_error } => {
                    tally.waiting += 1;
                    if now.duration_since(since) > OVERDUE {
                        let why = last_error.unwrap_or_else(|| "its turn has not come".to_owned());
                        tally.overdue.add(&blob, why);
                    }
                }
                Fate::GivenUp(reason) => tally.lost.add(&blob, reason),
                _ if at >= whole => {
                    let told = refused.get(at - whole).map(|(_, told)| told.clone());
                    tally.refused.add(&blob, told.unwrap_or_default());
                }
                Fate::SetAside(reason) if tree.strikes().is_aside(&blob.content_id) => tally.lost.add(&blob, reason),
                Fate::SetAside(_) | Fate::Unknown if polled_from.is_none_or(|from| blob.content_created >= from) => {
                    if tally.awaited.len() < AWAITED {
                        tally.awaited.push(blob);
                    } else {
                        tally.awaited_too += 1;
                    }
                }
                Fate::SetAside(_) | Fate::Unknown => tally.missing.push(blob),
            }
        }
        if tally.missing.len() >= AT_ONCE {
            // If the window is begun again, these are found waiting.
            self.queue(content_type, std::mem::take(&mut tally.missing)).await?;
        }
        Ok(page.next)
    }

    /// Adds what a window brought, after looking again for what seems to be missing in it.
    async fn add(&mut self, content_type: ContentType, tally: Tally) -> Result<(), StoreError> {
        let Tally { listed, stored, waiting, overdue, lost, refused, missing, awaited, awaited_too } = tally;
        let inventory = &mut self.inventory;
        inventory.listed += listed;
        inventory.stored += stored;
        inventory.waiting += waiting;
        inventory.overdue.join(overdue);
        inventory.lost.join(lost);
        inventory.refused.join(refused);
        let room = AWAITED.saturating_sub(self.awaited.len());
        inventory.awaited += awaited_too + awaited.len().saturating_sub(room) as u64;
        self.awaited.extend(awaited.into_iter().take(room));
        self.queue(content_type, missing).await
    }

    /// Queues what is neither stored nor queued after all.
    async fn queue(&mut self, content_type: ContentType, missing: Vec<ContentBlob>) -> Result<(), StoreError> {
        let tree = self.tree;
        let still = self.look_again(missing).await?;
        if still.is_empty() {
            return Ok(());
        }
        let ids = still.iter().map(|blob| blob.content_id.clone()).collect();
        let enqueued = tree.store.enqueue(tree.tenant, Tier::Sweep, still.clone()).await?;
        if enqueued.new > 0 {
            tree.queued();
            tree.report.listed(content_type, Tier::Sweep, tree.time.now(), enqueued.new);
        }
        for id in tree.store.withdraw(tree.tenant, ids).await? {
            tree.report.letter_withdrawn(content_type, &id);
        }
        for blob in &still {
            self.inventory.missing.add(blob, String::new());
        }
        Ok(())
    }

    /// Counts what has come since, and answers the rest.
    async fn look_again(&mut self, blobs: Vec<ContentBlob>) -> Result<Vec<ContentBlob>, StoreError> {
        let fates = self.tree.store.fates(self.tree.tenant, blobs.clone()).await?;
        let mut still = Vec::new();
        for (blob, fate) in blobs.into_iter().zip(fates) {
            match fate {
                Fate::Stored { .. } => self.inventory.stored += 1,
                Fate::Queued { .. } => self.inventory.waiting += 1,
                Fate::GivenUp(reason) => self.inventory.lost.add(&blob, reason),
                Fate::SetAside(_) | Fate::Unknown => still.push(blob),
            }
        }
        Ok(still)
    }

    /// What the next poll is to list: most of it has been listed by now.
    async fn look_again_for_awaited(&mut self) -> Result<(), StoreError> {
        let mut awaited = std::mem::take(&mut self.awaited);
        let mut late = BTreeSet::new();
        while !awaited.is_empty() {
            let some = awaited.split_off(awaited.len().saturating_sub(AT_ONCE));
            let still = self.look_again(some).await?;
            self.inventory.awaited += still.len() as u64;
            late.extend(still.iter().map(|blob| blob.content_type));
        }
        let marks = late.into_iter().map(|content_type| self.tree.mark(content_type).listed_to);
        self.inventory.behind = marks.filter_map(|listed_to| Behind::of(listed_to, self.inventory.at)).min();
        Ok(())
    }

    /// Fetches the sample again.
    async fn compare(&mut self) {
        for blob in std::mem::replace(&mut self.sample, Sample::new(self.inventory.at)).blobs() {
            match timeout(PATIENCE, retrieve::compare(self.tree, &blob)).await {
                Ok(Ok(stored)) => {
                    self.inventory.compared += 1;
                    if stored.new {
                        let why = format!("it has {} records now", stored.records);
                        self.inventory.grown.add(&blob, why);
                    }
                }
                // It is stored, and can be compared the next time.
                Ok(Err(_)) | Err(_) => self.inventory.uncompared += 1,
            }
        }
    }
}
