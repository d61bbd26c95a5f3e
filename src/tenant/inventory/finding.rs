//! What came of an inventory, as numbers, as names, and as one sentence: the same on the command line and in the journal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::OVERDUE;
use crate::content::{ContentBlob, ContentId, ContentType, TenantId};
use crate::report::{Trouble, span};

/// So many of a kind are named; the others are counted.
const NAMED: usize = 1000;
/// So many of these in a sentence.
const IN_A_SENTENCE: usize = 10;
/// How much of a reason there.
const LONGEST_REASON: usize = 160;

/// What Microsoft lists of a tenant's last seven days, and what became of it here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Whose.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// When it was begun, in the service's time.
    pub at: Timestamp,
    /// Why it was not taken, if nobody is to collect the tenant.
    pub idle: Option<String>,
    /// Blobs that are listed.
    pub listed: u64,
    /// Those of them that are stored.
    pub stored: u64,
    /// Those that wait to be retrieved.
    pub waiting: u64,
    /// Those that became available since the last poll, and are listed by the next one.
    pub awaited: u64,
    /// Since when nothing was listed, if that is too long ago and something is awaited.
    pub behind: Option<Behind>,
    /// Those of the waiting ones that have waited for more than half an hour, and what kept them.
    pub overdue: Named,
    /// Those that were neither stored nor queued nor given up. They are queued now.
    pub missing: Named,
    /// Those that were given up: dead letters, with their reasons.
    pub lost: Named,
    /// Those that are listed so that they cannot be retrieved.
    pub refused: Named,
    /// Blobs that were fetched within two minutes of their creation, and were fetched again for comparison.
    pub compared: u64,
    /// Those that could not be.
    pub uncompared: u64,
    /// Those whose body was another one. It is stored as a further revision.
    pub grown: Named,
    /// What could not be listed, in whole or in part.
    pub unlisted: Vec<Unlisted>,
}

/// Blobs by name, as far as they fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub blobs: Vec<NamedBlob>,
}

/// A blob by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBlob {
    /// What it holds.
    pub content_type: ContentType,
    /// The service's name for it.
    pub content_id: ContentId,
    /// When it became available.
    pub content_created: Timestamp,
    /// Why it is named, unless that is plain.
    pub why: String,
}

/// A content type that could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// Which.
    pub content_type: ContentType,
    /// Why not.
    pub trouble: Trouble,
}

/// Nothing was listed for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Behind {
    /// Until then it was; `None`: nothing was ever listed.
    pub listed_to: Option<Timestamp>,
}

impl Behind {
    /// Where listing stands at `now`, if that is too far behind.
    pub(super) fn of(listed_to: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let is_behind = listed_to.is_none_or(|to| now.duration_since(to) > OVERDUE);
        is_behind.then_some(Self { listed_to })
    }
}

impl Named {
    pub(super) fn add(&mut self, blob: &ContentBlob, why: String) {
        let ContentBlob { content_type, content_id, content_created, .. } = blob.clone();
        self.count += 1;
        if self.blobs.len() < NAMED {
            self.blobs.push(NamedBlob { content_type, content_id, content_created, why });
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.count += other.count;
        let room = NAMED.saturating_sub(self.blobs.len());
        self.blobs.extend(other.blobs.into_iter().take(room));
    }

    /// `2 blobs of Audit.Exchange`, `3 blobs`; with the first of their names and, if wanted, reasons.
    fn told(&self, verb: (&str, &str), reasons: bool) -> Option<String> {
        let first = self.blobs.first()?;
        let one_type = self.blobs.iter().all(|blob| blob.content_type == first.content_type);
        let of = if one_type { format!(" of {}", first.content_type) } else { String::new() };
        let verb = if self.count == 1 { verb.0 } else { verb.1 };
        let mut text = format!("{}{of} {verb}: ", blobs(self.count));
        for (at, blob) in self.blobs.iter().take(IN_A_SENTENCE).enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{}", if at == 0 { "" } else { ", " }, blob.content_id);
            if reasons && !blob.why.is_empty() {
                let end = blob.why.floor_char_boundary(LONGEST_REASON);
                let _ = write!(text, " ({}{})", &blob.why[..end], if end < blob.why.len() { "…" } else { "" });
            }
        }
        let more = self.count.saturating_sub(self.blobs.len().min(IN_A_SENTENCE) as u64);
        if more > 0 {
            let _ = write!(text, " and {more} more (`--json` names up to {NAMED})");
        }
        Some(text)
    }
}

fn blobs(count: u64) -> String {
    format!("{count} blob{}", if count == 1 { "" } else { "s" })
}

impl Inventory {
    pub(super) fn new(tenant: TenantId, name: String, at: Timestamp) -> Self {
        Self {
            tenant,
            name,
            at,
            idle: None,
            listed: 0,
            stored: 0,
            waiting: 0,
            awaited: 0,
            behind: None,
            overdue: Named::default(),
            missing: Named::default(),
            lost: Named::default(),
            refused: Named::default(),
            compared: 0,
            uncompared: 0,
            grown: Named::default(),
            unlisted: Vec::new(),
        }
    }

    /// Of a tenant that nobody is to collect, for this reason.
    #[must_use]
    pub(in crate::tenant) fn idle(tenant: TenantId, name: String, at: Timestamp, why: impl Into<String>) -> Self {
        Self { idle: Some(why.into()), ..Self::new(tenant, name, at) }
    }

    /// Of a tenant that cannot be collected, for this reason.
    #[must_use]
    pub(in crate::tenant) fn unable(
        tenant: TenantId,
        name: String,
        at: Timestamp,
        content_types: impl IntoIterator<Item = ContentType>,
        trouble: &Trouble,
    ) -> Self {
        let unlisted = |content_type| Unlisted { content_type, trouble: trouble.clone() };
        Self { unlisted: content_types.into_iter().map(unlisted).collect(), ..Self::new(tenant, name, at) }
    }

    /// Whether all that is listed is stored or about to be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let named = [&self.overdue, &self.missing, &self.lost, &self.refused, &self.grown];
        named.iter().all(|named| named.count == 0) && self.unlisted.is_empty() && self.behind.is_none()
    }

    /// The tenant's name, and [`told`](Self::told).
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.name, self.told())
    }

    /// Whether it is complete, or what is missing and why, in one sentence.
    #[must_use]
    pub fn told(&self) -> String {
        if let Some(why) = &self.idle {
            return format!("not verified at Microsoft: {why}");
        }
        let mut parts = vec![self.counted()];
        parts.extend(self.missing.told(
            (
                "was listed and neither stored nor queued, and is queued now",
                "were listed and neither stored nor queued, and are queued now",
            ),
            false,
        ));
        parts.extend(self.overdue.told(("waits for more than half an hour", "wait for more than half an hour"), true));
        parts.extend(self.lost.told(("was given up", "were given up"), true));
        parts.extend(
            self.refused.told(
                ("is listed so that it cannot be retrieved", "are listed so that they cannot be retrieved"),
                true,
            ),
        );
        parts.extend(self.grown.told(
            (
                "was stored in part, and its new body is stored besides",
                "were stored in part, and their new bodies are stored besides",
            ),
            true,
        ));
        parts.extend(self.behind.map(|behind| match behind.listed_to {
            Some(to) => format!(
                "nothing was listed since {} ({} ago): see `tenantry status`",
                to.strftime("%Y-%m-%d %H:%M:%S UTC"),
                span(self.at.duration_since(to).max(SignedDuration::ZERO).as_secs())
            ),
            None => "nothing was listed so far: see `tenantry status`".to_owned(),
        }));
        // What is the same for several is said once.
        let mut causes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for Unlisted { content_type, trouble } in &self.unlisted {
            causes.entry(trouble.to_string()).or_default().push(content_type.as_str());
        }
        parts.extend(
            causes.into_iter().map(|(cause, types)| format!("{} cannot be listed in full: {cause}", types.join(", "))),
        );
        format!("{}: {}", if self.is_sound() { "complete" } else { "not complete" }, parts.join("; "))
    }

    fn counted(&self) -> String {
        let mut text = format!("{} listed", blobs(self.listed));
        match self.listed {
            0 => {}
            listed if listed == self.stored => text.push_str(", all stored"),
            _ => drop(write!(text, ", {} stored", self.stored)),
        }
        for (count, what) in [(self.waiting, "waiting to be retrieved"), (self.awaited, "newer than the last poll")] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        if self.compared > 0 {
            let _ = write!(text, ", {} fetched again and compared", self.compared);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn blob(id: &str, content_type: ContentType) -> ContentBlob {
        ContentBlob {
            content_id: id.into(),
            content_type,
            content_uri: String::new(),
            content_created: at(),
            content_expiration: at(),
        }
    }

    fn inventory() -> Inventory {
        let new = Inventory::new(TenantId::from_bytes([1; 16]), "contoso".to_owned(), at());
        Inventory { listed: 1204, stored: 1204, ..new }
    }

    fn named(ids: &[&str], why: &str) -> Named {
        let mut named = Named::default();
        for id in ids {
            named.add(&blob(id, ContentType::Exchange), why.to_owned());
        }
        named
    }

    #[test]
    fn a_tenant_is_complete_when_all_is_stored_or_on_its_way() {
        assert_eq!(inventory().sentence(), "contoso: complete: 1204 blobs listed, all stored");
        let on_the_way = Inventory { stored: 1200, waiting: 3, awaited: 1, compared: 8, ..inventory() };
        assert_eq!(
            on_the_way.sentence(),
            "contoso: complete: 1204 blobs listed, 1200 stored, 3 waiting to be retrieved, 1 newer than the last poll, \
             8 fetched again and compared"
        );
        assert!(inventory().is_sound() && on_the_way.is_sound());
        let idle =
            Inventory::idle(TenantId::from_bytes([1; 16]), "contoso".to_owned(), at(), "an operator has paused it");
        assert_eq!(idle.sentence(), "contoso: not verified at Microsoft: an operator has paused it");
        assert!(idle.is_sound());
    }

    #[test]
    fn what_is_missing_is_named_with_its_reason() {
        let two = Inventory { stored: 1202, missing: named(&["a$1", "b$2"], ""), ..inventory() };
        assert_eq!(
            two.sentence(),
            "contoso: not complete: 1204 blobs listed, 1202 stored; 2 blobs of Audit.Exchange were listed and neither stored \
             nor queued, and are queued now: a$1, b$2"
        );
        let mut lost = named(&["c$3"], "it expired before it could be retrieved");
        lost.add(&blob("d$4", ContentType::General), "x".repeat(200));
        let told = Inventory { stored: 1202, lost, ..inventory() }.told();
        let reason =
            format!("2 blobs were given up: c$3 (it expired before it could be retrieved), d$4 ({}…)", "x".repeat(160));
        assert!(told.ends_with(&reason), "{told}");
        let trouble = Trouble::for_operator("secret_expired", "the secret has expired", "make a new one");
        let types = [ContentType::Exchange, ContentType::General];
        let unable = Inventory::unable(TenantId::from_bytes([1; 16]), "contoso".to_owned(), at(), types, &trouble);
        assert_eq!(
            unable.told(),
            "not complete: 0 blobs listed; Audit.Exchange, Audit.General cannot be listed in full: the secret has expired: \
             make a new one"
        );
        let behind = Behind::of(Some(at() - SignedDuration::from_hours(3)), at());
        let told = Inventory { stored: 1200, awaited: 4, behind, ..inventory() }.told();
        assert!(
            told.ends_with("; nothing was listed since 2026-11-22 09:00:00 UTC (3h 0m ago): see `tenantry status`"),
            "{told}"
        );
        assert_eq!(Behind::of(Some(at() - SignedDuration::from_mins(30)), at()), None);
    }

    #[test]
    fn only_so_many_are_named() {
        let ids: Vec<_> = (0..1500).map(|number| format!("blob-{number}")).collect();
        let mut many = named(&ids.iter().map(String::as_str).collect::<Vec<_>>(), "");
        assert_eq!((many.count, many.blobs.len()), (1500, 1000));
        let told = many.told(("is", "are"), false).unwrap();
        assert!(told.ends_with("blob-8, blob-9 and 1490 more (`--json` names up to 1000)"), "{told}");
        many.join(named(&["one more"], ""));
        assert_eq!((many.count, many.blobs.len()), (1501, 1000));
    }
}
