//! What the cloud has offered and seen.
//!
//! The [`Ledger`] is a snapshot to compare a collector's result with; it can be sent as JSON and makes bodies and record
//! ids again from their recipes. Violations are only what Microsoft's documents forbid or what gives a token away;
//! warnings are bad manners.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::blob::Blob;
use crate::content_type::ContentType;
use crate::faults::Endpoint;
use crate::graph::Announced;

/// Violations and warnings kept each; more are only counted.
const KEPT: usize = 10_000;

/// Whoever asks again so soon after a 5xx has not backed off.
const AT_ONCE: Duration = Duration::from_millis(250);

/// A snapshot of a cloud's books.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// When it was taken, in the service's time.
    pub at: Timestamp,
    /// All blobs by number.
    pub blobs: Vec<Blob>,
    /// What each tenant's requests were.
    pub tenants: BTreeMap<Uuid, TenantBook>,
    /// The last requests, oldest first (up to `Service::request_log`).
    pub requests: Vec<Seen>,
    /// All token requests.
    pub token_requests: Vec<TokenRequest>,
    /// Everybody who was sent to sign in and chose an account, or was turned away.
    #[serde(default)]
    pub sign_ins: Vec<SignIn>,
    /// Authorization codes brought to the token endpoint.
    #[serde(default)]
    pub redemptions: Vec<Redemption>,
    /// Admin consents that were asked for and decided, or turned away.
    #[serde(default)]
    pub consents: Vec<ConsentAsked>,
    /// What the documents forbid.
    pub violations: Vec<Remark>,
    /// What is only bad manners.
    pub warnings: Vec<Remark>,
    /// Violations not kept because there were too many.
    pub violations_dropped: u64,
    /// Requests that reached the foreign host.
    pub foreign_requests: u64,
    /// Connections accepted, the foreign host's included.
    pub connections: u64,
    /// What Graph has told of issues and messages, revision by revision.
    #[serde(default)]
    pub announced: Vec<Announced>,
    /// Faults by number: how often asked and how often they struck.
    pub faults: Vec<(u64, u64, u64)>,
}

/// What a tenant's requests were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TenantBook {
    /// Requests by kind.
    pub requests: BTreeMap<Endpoint, u64>,
    /// Answers by kind and status; 0 is an answer that never began.
    pub statuses: BTreeMap<Endpoint, BTreeMap<u16, u64>>,
    /// Most requests under way at once.
    pub most_in_flight: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Body bytes sent, as on the wire.
    pub sent_bytes: u64,
    /// Tokens issued.
    pub tokens: u64,
    /// `PublisherIdentifier`s seen, as sent; the empty string for requests without one.
    pub publishers: BTreeMap<String, u64>,
}

/// A request, as far as it is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// When its last byte arrived, in the service's time.
    pub at: Timestamp,
    /// What it was.
    pub endpoint: Endpoint,
    /// The tenant in its path.
    pub tenant: Option<Uuid>,
    /// Its method and target.
    pub request: String,
    /// The status of the answer, when known; 0 if it never began.
    pub status: Option<u16>,
}

/// A request for a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRequest {
    /// When it arrived, in the service's time.
    pub at: Timestamp,
    /// The tenant, if it is one.
    pub tenant: Option<Uuid>,
    /// `client_id` as sent.
    pub client_id: String,
    /// Resource asked for.
    pub audience: String,
    /// 1 or 2.
    pub version: u8,
    /// `grant_type` as sent.
    #[serde(default)]
    pub grant: String,
    /// How the client proved itself: `PS256`, `RS256`, `federated`, `secret` or nothing.
    pub credential: String,
    /// The AADSTS code of a refusal.
    pub refused: Option<u32>,
}

/// How something asked of a person ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Done.
    Accepted,
    /// The person did not want to.
    Cancelled,
    /// The cloud refused, with the number after AADSTS.
    Refused(u32),
}

/// Somebody who was sent to sign in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignIn {
    /// When it ended, in the service's time.
    pub at: Timestamp,
    /// The first part of the path: `organizations`, `common` or a tenant.
    pub directory: String,
    /// 1 or 2.
    pub version: u8,
    /// `client_id` as sent.
    pub client_id: String,
    /// `redirect_uri` as sent.
    pub redirect_uri: String,
    /// The account that was chosen, if any.
    pub person: Option<String>,
    /// That account's tenant.
    pub tenant: Option<Uuid>,
    /// How it ended.
    pub verdict: Verdict,
}

/// An authorization code brought to the token endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Redemption {
    /// When, in the service's time.
    pub at: Timestamp,
    /// The first part of the path.
    pub directory: String,
    /// 1 or 2.
    pub version: u8,
    /// `client_id` as sent.
    pub client_id: String,
    /// Who signed in, if the code is known.
    pub person: Option<String>,
    /// That account's tenant.
    pub tenant: Option<Uuid>,
    /// Whether the code is bound by PKCE.
    pub pkce: bool,
    /// How the client proved itself.
    pub credential: String,
    /// The AADSTS code of a refusal.
    pub refused: Option<u32>,
}

/// An admin consent that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsentAsked {
    /// When it ended, in the service's time.
    pub at: Timestamp,
    /// The first part of the path.
    pub directory: String,
    /// 1 or 2.
    pub version: u8,
    /// `client_id` as sent.
    pub client_id: String,
    /// The account that was chosen, if any.
    pub person: Option<String>,
    /// That account's tenant.
    pub tenant: Option<Uuid>,
    /// The roles granted.
    pub roles: Vec<String>,
    /// How it ended.
    pub verdict: Verdict,
}

/// Something remarkable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remark {
    /// When, in the service's time.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

impl Ledger {
    /// The distinct record ids that a collector of `tenant` can have by now: of all blobs that could be listed, except
    /// those that expired without ever having been fetched whole.
    #[must_use]
    pub fn expected_ids(&self, tenant: Uuid) -> BTreeSet<String> {
        self.offered(tenant).flat_map(Blob::record_ids).collect()
    }

    /// How often each record id of `tenant` was offered, counting every blob once.
    #[must_use]
    pub fn occurrences(&self, tenant: Uuid) -> HashMap<String, u32> {
        let mut counts = HashMap::new();
        for id in self.offered(tenant).flat_map(Blob::record_ids) {
            *counts.entry(id).or_insert(0) += 1;
        }
        counts
    }

    /// The blobs of `tenant` that a collector can have by now, without the parts that some windows make of them.
    pub fn offered(&self, tenant: Uuid) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().filter(move |b| {
            let lost = b.content_expiration <= self.at && b.fetched == 0;
            b.tenant == tenant && b.part_of.is_none() && !b.withheld && b.visible_from <= self.at && !lost
        })
    }

    /// The blobs of `tenant` that were listed, then expired without ever having been fetched whole: a collector must
    /// report each of them as lost.
    pub fn lost(&self, tenant: Uuid) -> impl Iterator<Item = &Blob> {
        let expired = |b: &&Blob| b.content_expiration <= self.at && b.fetched == 0 && b.listed > 0;
        self.blobs.iter().filter(move |b| b.tenant == tenant).filter(expired)
    }

    /// The body of a blob, made again.
    ///
    /// # Panics
    /// If there is no blob with this number.
    #[must_use]
    pub fn body(&self, blob: u64) -> Vec<u8> {
        usize::try_from(blob)
            .ok()
            .and_then(|n| self.blobs.get(n))
            .unwrap_or_else(|| panic!("no blob {blob} in the ledger"))
            .body()
    }

    /// The blob with this `contentId` in `tenant`.
    #[must_use]
    pub fn blob_named(&self, tenant: Uuid, content_id: &str) -> Option<&Blob> {
        self.blobs.iter().find(|b| b.tenant == tenant && b.content_id == content_id)
    }

    /// Requests of a kind by a tenant.
    #[must_use]
    pub fn requests(&self, tenant: Uuid, endpoint: Endpoint) -> u64 {
        self.tenants.get(&tenant).and_then(|t| t.requests.get(&endpoint)).copied().unwrap_or(0)
    }

    /// Answers of a kind to a tenant with this status.
    #[must_use]
    pub fn answers(&self, tenant: Uuid, endpoint: Endpoint, status: u16) -> u64 {
        self.tenants
            .get(&tenant)
            .and_then(|t| t.statuses.get(&endpoint))
            .and_then(|s| s.get(&status))
            .copied()
            .unwrap_or(0)
    }
}

/// Whom a wait concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The tenant's token requests.
    Entra(Uuid),
    /// The tenant's Activity API requests.
    Activity(Uuid),
    /// The tenant's requests to Graph.
    Graph(Uuid),
    /// Starts of one subscription of the tenant.
    Start(Uuid, ContentType),
}

/// A wait that an answer asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) scope: Scope,
    pub(crate) time: Duration,
}

/// What fails.
#[derive(Default)]
struct Failing {
    /// When it did last, as time since the start.
    since: Duration,
    /// How often it was asked for at once, one time after the other.
    hurried: u32,
}

/// The books while the cloud runs.
pub(crate) struct Book {
    /// Requests that were under way when a wait was delivered may still arrive for so long.
    grace: Duration,
    log_limit: usize,
    log: VecDeque<Seen>,
    logged: u64,
    tenants: BTreeMap<Uuid, TenantBook>,
    pub(crate) token_requests: Vec<TokenRequest>,
    pub(crate) sign_ins: Vec<SignIn>,
    pub(crate) redemptions: Vec<Redemption>,
    pub(crate) consents: Vec<ConsentAsked>,
    violations: Vec<Remark>,
    violations_dropped: u64,
    warnings: Vec<Remark>,
    /// Delivered waits: from when, until when, as time since the start.
    waits: BTreeMap<Scope, (Duration, Duration)>,
    pub(crate) assertions_seen: HashMap<String, u64>,
    /// What was answered with a 5xx when it was asked for last.
    failing: HashMap<String, Failing>,
    pub(crate) foreign_requests: u64,
    pub(crate) connections: u64,
}

impl Book {
    pub(crate) fn new(log_limit: usize, grace: Duration) -> Self {
        Self {
            grace,
            log_limit,
            log: VecDeque::new(),
            logged: 0,
            tenants: BTreeMap::new(),
            token_requests: Vec::new(),
            sign_ins: Vec::new(),
            redemptions: Vec::new(),
            consents: Vec::new(),
            violations: Vec::new(),
            violations_dropped: 0,
            warnings: Vec::new(),
            waits: BTreeMap::new(),
            assertions_seen: HashMap::new(),
            failing: HashMap::new(),
            foreign_requests: 0,
            connections: 0,
        }
    }

    pub(crate) fn ledger(&self, at: Timestamp, blobs: &[Blob], log: bool, faults: Vec<(u64, u64, u64)>) -> Ledger {
        Ledger {
            at,
            blobs: blobs.to_vec(),
            tenants: self.tenants.clone(),
            requests: self.log.iter().filter(|_| log).cloned().collect(),
            token_requests: self.token_requests.clone(),
            sign_ins: self.sign_ins.clone(),
            redemptions: self.redemptions.clone(),
            consents: self.consents.clone(),
            violations: self.violations.clone(),
            warnings: self.warnings.clone(),
            violations_dropped: self.violations_dropped,
            foreign_requests: self.foreign_requests,
            connections: self.connections,
            announced: Vec::new(),
            faults,
        }
    }

    pub(crate) fn violation(&mut self, at: Timestamp, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(Remark { at, what });
        } else {
            self.violations_dropped += 1;
        }
    }

    pub(crate) fn warning(&mut self, at: Timestamp, what: String) {
        if self.warnings.len() < KEPT {
            self.warnings.push(Remark { at, what });
        }
    }

    pub(crate) fn forget(&mut self) {
        self.violations.clear();
        self.warnings.clear();
        self.violations_dropped = 0;
    }

    pub(crate) fn tenant(&mut self, tenant: Uuid) -> &mut TenantBook {
        self.tenants.entry(tenant).or_default()
    }

    /// Notes a request and returns its place in the log.
    pub(crate) fn arrived(&mut self, seen: Seen) -> u64 {
        if let Some(tenant) = seen.tenant {
            let book = self.tenant(tenant);
            *book.requests.entry(seen.endpoint).or_insert(0) += 1;
            book.in_flight += 1;
            book.most_in_flight = book.most_in_flight.max(book.in_flight);
        }
        self.log.push_back(seen);
        if self.log.len() > self.log_limit {
            self.log.pop_front();
        }
        self.logged += 1;
        self.logged - 1
    }

    /// Notes how a request was answered.
    pub(crate) fn answered(&mut self, place: u64, tenant: Option<Uuid>, endpoint: Endpoint, status: u16, sent: u64) {
        if let Some(tenant) = tenant {
            let book = self.tenant(tenant);
            *book.statuses.entry(endpoint).or_default().entry(status).or_insert(0) += 1;
            book.in_flight = book.in_flight.saturating_sub(1);
            book.sent_bytes += sent;
        }
        let oldest = self.logged - self.log.len() as u64;
        if let Some(seen) =
            place.checked_sub(oldest).and_then(|n| usize::try_from(n).ok()).and_then(|n| self.log.get_mut(n))
        {
            seen.status = Some(status);
        }
    }

    /// Notes that a client has been told to wait.
    pub(crate) fn told_to_wait(&mut self, wait: Wait, uptime: Duration) {
        let until = uptime + wait.time;
        let entry = self.waits.entry(wait.scope).or_insert((uptime, until));
        if uptime >= entry.1 {
            *entry = (uptime, until);
        }
        entry.1 = entry.1.max(until);
    }

    /// Notes that `what` was answered with this status.
    pub(crate) fn answered_with(&mut self, what: String, status: u16, uptime: Duration) {
        if status >= 500 {
            self.failing.entry(what).or_default().since = uptime;
        } else {
            self.failing.remove(&what);
        }
    }

    /// How often `what` has been asked for at once after a 5xx, this time included, if that is too often. Once may be
    /// two askers that do not know of each other.
    pub(crate) fn hurried(&mut self, what: &str, uptime: Duration) -> Option<u32> {
        let failing = self.failing.get_mut(what)?;
        let hurried = uptime.saturating_sub(failing.since) < AT_ONCE;
        failing.hurried = if hurried { failing.hurried + 1 } else { 0 };
        (failing.hurried > 1).then_some(failing.hurried)
    }

    /// How much of a wait was left when a request came that should not have come.
    pub(crate) fn disregarded(&self, scope: Scope, uptime: Duration) -> Option<Duration> {
        let (from, until) = self.waits.get(&scope)?;
        until.checked_sub(uptime).filter(|left| uptime > *from + self.grace && !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_within_a_wait_is_noticed() {
        let mut book = Book::new(10, Duration::from_millis(300));
        let scope = Scope::Activity(Uuid::from_u128(1));
        let at = Duration::from_millis;
        book.told_to_wait(Wait { scope, time: at(2000) }, at(1000));
        assert_eq!(book.disregarded(scope, at(1200)), None, "may have been under way");
        assert_eq!(book.disregarded(scope, at(1500)), Some(at(1500)));
        assert_eq!(book.disregarded(scope, at(3000)), None);
        assert_eq!(book.disregarded(Scope::Entra(Uuid::from_u128(1)), at(1500)), None);
        // A second wait delivered meanwhile does not renew the grace.
        book.told_to_wait(Wait { scope, time: at(2000) }, at(1400));
        assert_eq!(book.disregarded(scope, at(1500)), Some(at(1900)));
        book.told_to_wait(Wait { scope, time: at(1000) }, at(5000));
        assert_eq!(book.disregarded(scope, at(5100)), None);
    }

    #[test]
    fn who_does_not_back_off_is_noticed_the_second_time() {
        let mut book = Book::new(0, Duration::ZERO);
        let at = Duration::from_millis;
        let mut ask = |answer: u16, asked: u64| {
            let told = book.hurried("a blob", at(asked));
            book.answered_with("a blob".to_owned(), answer, at(asked + 10));
            told
        };
        assert_eq!([ask(503, 0), ask(500, 100), ask(500, 200), ask(500, 300)], [None, None, Some(2), Some(3)]);
        assert_eq!([ask(503, 1300), ask(500, 1400), ask(200, 1500)], [None, None, Some(2)], "a pause, and again");
        assert_eq!([ask(200, 1600), ask(503, 1700), ask(200, 1800)], [None; 3], "nothing fails");
    }

    #[test]
    fn the_log_keeps_the_last_requests() {
        let mut book = Book::new(2, Duration::ZERO);
        let seen = |n: u8| Seen {
            at: Timestamp::UNIX_EPOCH,
            endpoint: Endpoint::List,
            tenant: None,
            request: n.to_string(),
            status: None,
        };
        let places: Vec<u64> = (0..4).map(|n| book.arrived(seen(n))).collect();
        book.answered(places[3], None, Endpoint::List, 200, 0);
        book.answered(places[0], None, Endpoint::List, 500, 0);
        let ledger = book.ledger(Timestamp::UNIX_EPOCH, &[], true, Vec::new());
        let log: Vec<_> = ledger.requests.iter().map(|s| (s.request.as_str(), s.status)).collect();
        assert_eq!(log, [("2", None), ("3", Some(200))]);
    }
}
