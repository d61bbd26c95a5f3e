//! What a tenant is told: services, issues, messages, and which of their revisions were handed out.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::with_millis;

/// A list of service communications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Board {
    /// `healthOverviews`.
    Services,
    /// `issues`.
    Issues,
    /// `messages`.
    Messages,
}

impl Board {
    /// Its name in the path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Services => "healthOverviews",
            Self::Issues => "issues",
            Self::Messages => "messages",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Services, Self::Issues, Self::Messages].into_iter().find(|board| board.name() == name)
    }
}

/// A revision of an issue or a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Announced {
    /// Whom it was announced to.
    pub tenant: Uuid,
    /// Where.
    pub board: Board,
    /// The item.
    pub id: String,
    /// `lastModifiedDateTime` as sent.
    pub modified: String,
    /// How often it was sent whole.
    pub served: u64,
    /// Whether it is how the item stands: of an earlier one that nobody was sent, nobody can know.
    pub current: bool,
}

#[derive(Debug)]
struct Item {
    board: Board,
    id: String,
    modified: Timestamp,
    json: Value,
    /// Its number among the revisions.
    number: u64,
}

/// The boards of one tenant.
#[derive(Debug)]
pub(crate) struct Boards {
    tenant: Uuid,
    services: Vec<Value>,
    /// In the order of their last changes.
    items: Vec<Item>,
    pub(crate) revisions: Vec<Announced>,
}

impl Boards {
    /// Three services that work, and nothing else to tell.
    pub(crate) fn new(tenant: Uuid) -> Self {
        let services = [
            ("Exchange", "Exchange Online"),
            ("SharePoint", "SharePoint Online"),
            ("microsoftteams", "Microsoft Teams"),
        ];
        let service = |(id, name): (&str, &str)| json!({"service": name, "status": "serviceOperational", "id": id});
        let services = services.into_iter().map(service).collect();
        Self { tenant, services, items: Vec::new(), revisions: Vec::new() }
    }

    /// Changes a service's state.
    pub(crate) fn set_service(&mut self, id: &str, status: &str) {
        if let Some(service) = self.services.iter_mut().find(|service| service["id"] == id) {
            service["status"] = status.into();
        } else {
            self.services.push(json!({"service": id, "status": status, "id": id}));
        }
    }

    /// Announces an item or changes it: `fields` are merged into what it was. It was changed `ago`, and never at the
    /// moment of its last change.
    pub(crate) fn announce(&mut self, board: Board, fields: &Value, now: Timestamp, ago: SignedDuration) {
        let Some(id) = fields["id"].as_str().map(str::to_owned) else { return };
        let mut modified = now.checked_sub(ago).unwrap_or(now);
        let mut json = json!({});
        if let Some(place) = self.items.iter().position(|item| item.board == board && item.id == id) {
            let before = self.items.remove(place);
            let after = before.modified.checked_add(SignedDuration::from_millis(1)).unwrap_or(modified);
            modified = modified.max(after);
            json = before.json;
            if let Some(revision) = self.revisions.get_mut(usize::try_from(before.number).unwrap_or(usize::MAX)) {
                revision.current = false;
            }
        }
        if let (Some(json), Some(fields)) = (json.as_object_mut(), fields.as_object()) {
            json.extend(fields.clone());
            json.insert("lastModifiedDateTime".to_owned(), with_millis(modified).into());
        }
        let number = self.revisions.len() as u64;
        let modified_text = with_millis(modified);
        self.revisions.push(Announced {
            tenant: self.tenant,
            board,
            id: id.clone(),
            modified: modified_text,
            served: 0,
            current: true,
        });
        let place = self.items.partition_point(|item| item.modified <= modified);
        self.items.insert(place, Item { board, id, modified, json, number });
    }

    /// Takes an item away, as Graph does with what is long over.
    pub(crate) fn withdraw(&mut self, board: Board, id: &str) {
        self.items.retain(|item| item.board != board || item.id != id);
        for revision in self.revisions.iter_mut().filter(|of| of.board == board && of.id == id) {
            revision.current = false;
        }
    }

    /// An item as it stands.
    pub(super) fn item(&self, board: Board, id: &str) -> Option<Value> {
        if board == Board::Services {
            return self.services.iter().find(|service| service["id"] == id).cloned();
        }
        self.items.iter().find(|item| item.board == board && item.id == id).map(|item| item.json.clone())
    }

    /// A page of a list, with the numbers of the revisions, and whether there are more.
    pub(super) fn page(
        &self,
        board: Board,
        since: Option<Timestamp>,
        skip: usize,
        size: usize,
    ) -> (Vec<(Value, Option<u64>)>, bool) {
        let all: Vec<_> = if board == Board::Services {
            self.services.iter().map(|service| (service.clone(), None)).collect()
        } else {
            self.matching(board, since).map(|item| (item.json.clone(), Some(item.number))).collect()
        };
        let more = all.len() > skip + size;
        (all.into_iter().skip(skip).take(size).collect(), more)
    }

    /// Changes the first item of the page that begins at `skip`: it moves to the end, and whatever stood behind that page
    /// slips into it.
    pub(super) fn touch(&mut self, board: Board, since: Option<Timestamp>, skip: usize, now: Timestamp) -> bool {
        let Some(id) = self.matching(board, since).nth(skip).map(|item| item.id.clone()) else { return false };
        self.announce(board, &json!({"id": id, "touched": now.to_string()}), now, SignedDuration::ZERO);
        true
    }

    /// Takes the first item of the page that begins at `skip` away: whatever stood behind that page slips into it.
    pub(super) fn withdraw_first(&mut self, board: Board, since: Option<Timestamp>, skip: usize) -> bool {
        let Some(id) = self.matching(board, since).nth(skip).map(|item| item.id.clone()) else { return false };
        self.withdraw(board, &id);
        true
    }

    fn matching(&self, board: Board, since: Option<Timestamp>) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.board == board && since.is_none_or(|since| item.modified >= since))
    }
}

/// The requests of the last hour.
#[derive(Debug, Default)]
pub(crate) struct Quota(VecDeque<Duration>);

impl Quota {
    /// Counts a request at `uptime`; the limit that it exceeds, if it does.
    pub(crate) fn spend(&mut self, uptime: Duration) -> Option<&'static str> {
        while self.0.front().is_some_and(|sent| uptime.saturating_sub(*sent).as_secs() >= 3600) {
            self.0.pop_front();
        }
        self.0.push_back(uptime);
        let minute = self.0.iter().rev().take_while(|sent| uptime.saturating_sub(**sent).as_secs() < 60).count();
        match (minute, self.0.len()) {
            (241.., _) => Some("240 requests a minute"),
            (_, 801..) => Some("800 requests an hour"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_moves_an_item_to_the_end_and_hides_its_neighbour_from_who_pages() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let mut boards = Boards::new(Uuid::from_u128(1));
        for (id, hours) in [("EX1", 4), ("EX2", 3), ("EX3", 2), ("EX4", 1)] {
            boards.announce(Board::Issues, &json!({"id": id}), now, SignedDuration::from_hours(hours));
        }
        let ids = |boards: &Boards, skip| {
            let (page, more) = boards.page(Board::Issues, None, skip, 2);
            (page.iter().map(|(item, _)| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "), more)
        };
        assert_eq!(ids(&boards, 0), ("EX1 EX2".to_owned(), true));
        assert!(boards.touch(Board::Issues, None, 0, now));
        assert_eq!(ids(&boards, 2), ("EX4 EX1".to_owned(), false), "EX3 is nowhere");
        let standing = |boards: &Boards, id| {
            boards.revisions.iter().filter(|of| of.id == id).map(|of| of.current).collect::<Vec<_>>()
        };
        assert_eq!((standing(&boards, "EX1"), standing(&boards, "EX3")), (vec![false, true], vec![true]));
        assert!(boards.withdraw_first(Board::Issues, None, 0));
        assert_eq!(ids(&boards, 2), ("EX1".to_owned(), false), "EX4 is nowhere either");
        assert_eq!((standing(&boards, "EX2"), standing(&boards, "EX4")), (vec![false], vec![true]));
        let recent = boards.page(Board::Issues, Some(now - SignedDuration::from_mins(61)), 0, 9).0;
        assert_eq!(recent.len(), 2);
    }

    #[test]
    fn who_asks_too_often_exceeds_a_limit() {
        let mut quota = Quota::default();
        let at = Duration::from_secs;
        assert!((0..240).all(|_| quota.spend(at(0)).is_none()));
        assert_eq!(quota.spend(at(59)), Some("240 requests a minute"));
        assert!((0..559).all(|n| quota.spend(at(100 + n * 6)).is_none()));
        assert_eq!(quota.spend(at(3500)), Some("800 requests an hour"));
        assert_eq!(quota.spend(at(9000)), None);
    }
}
