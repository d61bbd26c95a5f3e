//! Listing one list: page after page, what is new is stored, and then the watermark moves.
//!
//! Graph's pages are not stable: an item that is changed while they are read can make another one slip into a page that
//! was read already. So a listing of more than one page is repeated until a pass brings nothing new; until then the
//! watermark stays where it is, and the next listing reaches as far back.

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info};

use super::reach::Reach;
use super::{Failure, Station};
use crate::content::{ContentBlob, ContentId, Tier};
use crate::graph::{Item, List, Page};
use crate::store::{Fetched, IntakeError};

/// So often a listing is repeated at once; one that does not come to rest goes on with the next poll.
const MOST_PASSES: usize = 5;
/// So many revisions are handed to the store at a time, which writes as many in one batch.
const AT_ONCE: usize = 32;
/// What was stored within this time is known at once; of older revisions the headers are read.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(8 * 24);

/// What one pass over the pages of a list came to.
struct Pass {
    pages: usize,
    new: usize,
    /// When it began, as the first answer says.
    date: Option<Timestamp>,
}

impl Station {
    /// Lists one list and stores what is new of it.
    pub(super) async fn collect(&self, list: List) -> Result<(), Failure> {
        let reach = Reach::of(&self.mark(list), &self.settings, self.time.now());
        let (mut new, mut date) = (0, None);
        for passes in 1.. {
            let pass = self.pass(list, reach).await?;
            new += pass.new;
            if passes == 1 {
                date = pass.date;
            }
            if pass.pages == 1 || pass.new == 0 {
                self.set_mark(list, reach.moved(self.mark(list), date));
                break;
            }
            if passes == MOST_PASSES {
                debug!(tenant = %self.tenant, %list, "the list changes while it is read: the next poll goes on");
                break;
            }
        }
        if new > 0 {
            info!(tenant = %self.tenant, content_type = %list.content_type(), revisions = new, "service communications stored");
        }
        Ok(())
    }

    async fn pass(&self, list: List, reach: Reach) -> Result<Pass, Failure> {
        let first = self.ask(|token| async move { self.line.client().list(&token, list, reach.since).await }).await?;
        let date = first.date;
        let (mut pages, mut new, mut overview) = (1, 0, Vec::new());
        let mut page = first;
        loop {
            let Page { items, next, .. } = page;
            if list.has_times() {
                new += self.store_new(list, items).await?;
            } else {
                overview.extend(items);
            }
            let Some(link) = next else { break };
            page = self
                .ask(|token| {
                    let link = &link;
                    async move { self.line.client().next(&token, link).await }
                })
                .await?;
            pages += 1;
        }
        if !list.has_times() {
            new = usize::from(self.store_overview(overview).await?);
        }
        Ok(Pass { pages, new, date })
    }

    /// Stores the revisions that are not stored yet; answers how many that were.
    async fn store_new(&self, list: List, items: Vec<Item>) -> Result<usize, Failure> {
        let now = self.time.now();
        let ids: Vec<_> = items.iter().map(|item| id_of(list, &item.revision())).collect();
        let old = |item: &Item| item.modified.is_none_or(|modified| now.duration_since(modified) > REMEMBERED);
        let wanted = ids.iter().cloned().zip(items.iter().map(old)).collect();
        let known = self.store.are_kept(self.tenant, list.content_type(), wanted).await?;
        let mut new: Vec<_> = items.into_iter().zip(ids).zip(known).filter(|(_, known)| !known).collect();
        // A page may name a revision twice.
        new.sort_by(|((_, one), _), ((_, other), _)| one.cmp(other));
        new.dedup_by(|((_, one), _), ((_, other), _)| one == other);
        new.sort_by_key(|((item, _), _)| item.modified);
        for some in new.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|((item, id), _)| self.keep(list, id, [item.json.get()]))).await?;
        }
        Ok(new.len())
    }

    /// Stores the state of all services, if it is another one than that stored last.
    async fn store_overview(&self, mut items: Vec<Item>) -> Result<bool, Failure> {
        if items.is_empty() {
            return Ok(false);
        }
        items.sort_by(|one, other| (&one.id, one.json.get()).cmp(&(&other.id, other.json.get())));
        items.dedup_by(|one, other| one.json.get() == other.json.get());
        let body = body(items.iter().map(|item| item.json.get()));
        let last = self.store.newest_body(self.tenant, List::Services.content_type()).await?;
        if last.is_some_and(|last| last == body) {
            return Ok(false);
        }
        let id = id_of(List::Services, &format!("all@{}", self.time.now()));
        self.keep(List::Services, &id, items.iter().map(|item| item.json.get())).await?;
        Ok(true)
    }

    /// Stores what makes up one blob, durably. An item that is no object is kept as bytes.
    async fn keep<'a>(
        &self,
        list: List,
        id: &ContentId,
        items: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let body = body(items);
        match self.receive(list, id, &body, None).await {
            Err(IntakeError::Malformed { what, .. }) => Ok(self.receive(list, id, &body, Some(what)).await?),
            done => Ok(done?),
        }
    }

    async fn receive(
        &self,
        list: List,
        id: &ContentId,
        body: &[u8],
        defect: Option<String>,
    ) -> Result<(), IntakeError> {
        let at = self.time.now();
        let from = self.line.client().address_of(list);
        let blob = ContentBlob {
            content_id: id.clone(),
            content_type: list.content_type(),
            content_uri: from.clone(),
            content_created: at,
            content_expiration: at,
        };
        let mut writer = self.store.receive(self.tenant, &blob, Fetched { at, from, tier: Tier::Poll }, defect);
        writer.push(body).await?;
        writer.finish().await.map(drop)
    }
}

/// The name of a revision in the store.
fn id_of(list: List, revision: &str) -> ContentId {
    ContentId::from(format!("{}/{revision}", list.path()))
}

/// Items as one JSON array.
fn body<'a>(items: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut body = vec![b'['];
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.as_bytes());
    }
    body.push(b']');
    body
}
