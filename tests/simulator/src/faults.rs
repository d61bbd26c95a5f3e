//! Faults: what goes wrong, where and when.
//!
//! A [`Fault`] names the requests it concerns (tenant, endpoint, content type), when it strikes ([`When`]) and what then
//! happens ([`Effect`]). For each request the faults are asked in order; the first that strikes decides. Chance is
//! drawn from the scenario's seed, the fault's number and its own count of requests, never from the system.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::content_type::ContentType;
use crate::seed::mix;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Token endpoint of Entra.
    Token,
    /// Metadata documents of Entra.
    Metadata,
    /// Entra's signing keys.
    Keys,
    /// Entra's sign-in pages.
    SignIn,
    /// Entra's pages for admin consent.
    AdminConsent,
    /// A machine's own token service (IMDS or App Service).
    ManagedIdentity,
    /// `subscriptions/start`.
    Start,
    /// `subscriptions/stop`.
    Stop,
    /// `subscriptions/list`.
    Subscriptions,
    /// `subscriptions/content`, next pages included.
    List,
    /// `subscriptions/notifications`.
    Notifications,
    /// `audit/{contentId}`.
    Blob,
    /// `resources/dlpSensitiveTypes`.
    SensitiveTypes,
    /// Graph's `healthOverviews`.
    GraphServices,
    /// Graph's `issues`, next pages included.
    GraphIssues,
    /// Graph's `messages`, next pages included.
    GraphMessages,
    /// A file that hangs on an issue or a message.
    GraphFile,
    /// A path the service does not know.
    Unknown,
}

impl Endpoint {
    /// Whether it belongs to the Activity API.
    #[must_use]
    pub fn is_activity(self) -> bool {
        let other = matches!(
            self,
            Self::Token | Self::Metadata | Self::Keys | Self::SignIn | Self::AdminConsent | Self::ManagedIdentity
        );
        !other && !self.is_graph()
    }

    /// Whether it belongs to Graph.
    #[must_use]
    pub fn is_graph(self) -> bool {
        matches!(self, Self::GraphServices | Self::GraphIssues | Self::GraphMessages | Self::GraphFile)
    }
}

/// One fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The tenant in the path; `None`: every tenant.
    #[serde(default)]
    pub tenant: Option<Uuid>,
    /// The kinds of request; empty: all of them, Entra's included.
    #[serde(default)]
    pub on: Vec<Endpoint>,
    /// The content type of a start, list or blob request; `None`: every type.
    #[serde(default)]
    pub content_type: Option<ContentType>,
    /// When it strikes.
    #[serde(default)]
    pub when: When,
    /// What happens.
    pub effect: Effect,
}

/// When a fault strikes, counted over the requests it concerns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Each time.
    #[default]
    Always,
    /// With this probability, 0 to 1.
    Chance(f64),
    /// The first so many requests.
    First(u64),
    /// Each n-th request.
    Every(u64),
    /// The requests with these numbers, counted from 1.
    Requests(Vec<u64>),
    /// From the first until the second number of milliseconds after the fault was added.
    Between(u64, u64),
    /// Each request for the blob with this number.
    Blob(u64),
}

/// The body of an error answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// JSON as the service documents it (AF50000 or, at the token endpoint, AADSTS90033).
    #[default]
    Json,
    /// An HTML page.
    Html,
    /// Nothing.
    Empty,
    /// Plain text.
    Text,
}

/// How "too many requests" is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The shape of the answer.
    #[serde(default)]
    pub shape: ThrottleShape,
    /// `Retry-After`, in seconds.
    #[serde(default)]
    pub retry_after_s: Option<u64>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { shape: ThrottleShape::Forbidden, retry_after_s: Some(5) }
    }
}

/// The shape of a "too many requests" answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleShape {
    /// 403 with code AF429.
    #[default]
    Forbidden,
    /// 429 with code AF429.
    TooManyRequests,
    /// 403 whose code is `429` and whose message names the wait in words (`8m 46s`; the wait is `retry_after_s`, no header).
    Sentence,
    /// 429 with the plain text `Too Many Requests`.
    PlainText,
    /// 429 with code AF429 whose `Retry-After` is a date.
    Dated,
}

/// Where in an answer something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Before any byte is sent.
    BeforeHeaders,
    /// After the header section.
    AfterHeaders,
    /// After half of the body.
    MidBody,
}

/// How a body is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadJson {
    /// Well framed, but the JSON ends half way.
    Cut,
    /// Bytes that are no JSON.
    Garbage,
    /// A JSON object where an array belongs.
    NotAnArray,
    /// Nothing at all.
    Empty,
}

/// What is wrong with an entry of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadEntry {
    /// A `contentUri` of 40 KiB.
    LongUri,
    /// A `contentId` of 40 KiB.
    LongId,
    /// No `contentId`.
    NoId,
    /// A `contentExpiration` that is no moment anybody lives in: `0001-01-01T00:00:00`.
    NoExpiration,
}

/// What a listing leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// What an earlier listing has named.
    Listed,
    /// The second half of each page.
    Half,
}

/// What happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// An HTTP error, 5xx or 408 usually.
    Status {
        /// The status.
        status: u16,
        /// The body.
        #[serde(default)]
        body: ErrorBody,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// Too many requests.
    Throttled(Throttle),
    /// Too many requests, with `Retry-After`, and then nothing: the body never comes.
    ThrottledThenSilent {
        /// `Retry-After`, in seconds.
        retry_after_s: u64,
    },
    /// What a proxy says that wants somebody to sign in: an HTML page with status 200.
    ProxyPage,
    /// An error of the Activity API.
    Af {
        /// `error.code`: AF and digits, or anything else.
        code: String,
        /// The status.
        status: u16,
        /// `error.message`; `None`: the documented one.
        #[serde(default)]
        message: Option<String>,
    },
    /// An error of the token endpoint, with the status and `error` that go with the code. On the way to a page it is
    /// what the app is told by the browser.
    Entra {
        /// The number after AADSTS.
        code: u32,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// 401 with `{"Message":"Authorization has been denied for this request."}`.
    Denied,
    /// The connection is reset (RST).
    Reset(Point),
    /// The answer announces more than it sends and the connection closes.
    Truncate {
        /// Whether the framing is chunked (no last chunk) or `Content-Length` (too big).
        chunked: bool,
    },
    /// The answer pauses.
    Stall {
        /// Where.
        at: Point,
        /// For how long; `None`: until the client gives up.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// The body comes in small pieces.
    Drip {
        /// Bytes a piece.
        bytes: usize,
        /// Milliseconds between pieces.
        every_ms: u64,
    },
    /// The right status with a malformed body.
    BadJson(BadJson),
    /// The right body under this `Content-Type`.
    ContentType(String),
    /// The right body, compressed or not whatever the client accepts.
    Encoding {
        /// Whether to compress.
        gzip: bool,
    },
    /// A gzip body, cut or damaged half way.
    DamagedGzip,
    /// A small gzip body that expands to this many MiB of JSON white space.
    GzipBomb {
        /// Expanded size.
        mib: u64,
    },
    /// Listings name the foreign host in every `contentUri`.
    ForeignContentUri,
    /// The first entry of a listing is spoiled.
    BadEntry(BadEntry),
    /// The first entry of a listing is there twice.
    RepeatedEntry,
    /// Listings leave entries out, which they name another time.
    LeaveOut(LeftOut),
    /// Listings name the foreign host in their next-page link (and have one in any case).
    ForeignNextPage,
    /// Listings have no entries but a next-page link to what they would have held.
    EmptyPage,
    /// The next-page link comes under this header name.
    NextPageHeader(String),
    /// The next-page link has neither scheme nor host.
    RelativeNextPage,
    /// Metadata name the foreign host's keys and token endpoint.
    ForeignMetadata,
    /// The signing keys have others among them: of another kind, without a name, without an issuer.
    OddKeys,
    /// A redirect to the foreign host.
    Redirect {
        /// The status.
        status: u16,
    },
}

impl Fault {
    /// A fault that strikes each request of every tenant.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self { tenant: None, on: Vec::new(), content_type: None, when: When::Always, effect }
    }

    /// Concerns one tenant only.
    #[must_use]
    pub fn tenant(mut self, tenant: Uuid) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Concerns these kinds of request only.
    #[must_use]
    pub fn on(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.on.extend(endpoints);
        self
    }

    /// Concerns one content type only.
    #[must_use]
    pub fn content_type(mut self, content_type: ContentType) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// Sets when it strikes.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Strikes with this probability.
    #[must_use]
    pub fn chance(self, probability: f64) -> Self {
        self.when(When::Chance(probability))
    }

    /// Strikes the first so many requests.
    #[must_use]
    pub fn first(self, requests: u64) -> Self {
        self.when(When::First(requests))
    }

    fn concerns(&self, question: &Question) -> bool {
        self.tenant.is_none_or(|t| Some(t) == question.tenant)
            && (self.on.is_empty() || self.on.contains(&question.endpoint))
            && self.content_type.is_none_or(|t| Some(t) == question.content_type)
    }
}

/// What a request is, as far as faults ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) endpoint: Endpoint,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) content_type: Option<ContentType>,
    /// The blob's number, if one is asked for that there is.
    pub(crate) blob: Option<u64>,
}

/// The faults of a running cloud, with their counts.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    seed: u64,
    next: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    added: Duration,
    seen: u64,
    struck: u64,
    fault: Fault,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a fault at `uptime` and returns its number.
    pub(crate) fn add(&mut self, fault: Fault, uptime: Duration) -> u64 {
        self.next += 1;
        self.entries.push(Entry { id: self.next, added: uptime, seen: 0, struck: 0, fault });
        self.next
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.entries.retain(|e| e.id != id);
    }

    /// Removes the faults of one tenant, or all.
    pub(crate) fn clear(&mut self, tenant: Option<Uuid>) {
        self.entries.retain(|e| tenant.is_some() && e.fault.tenant != tenant);
    }

    /// How often each fault was asked and struck.
    pub(crate) fn counts(&self) -> Vec<(u64, u64, u64)> {
        self.entries.iter().map(|e| (e.id, e.seen, e.struck)).collect()
    }

    /// The effect of the first fault that strikes.
    pub(crate) fn strike(&mut self, question: &Question, uptime: Duration) -> Option<Effect> {
        let seed = self.seed;
        let mut concerned = self.entries.iter_mut().filter(|e| e.fault.concerns(question));
        concerned.find_map(|e| e.strikes(question, seed, uptime).then(|| e.fault.effect.clone()))
    }
}

impl Entry {
    fn strikes(&mut self, question: &Question, seed: u64, uptime: Duration) -> bool {
        self.seen += 1;
        let age = u64::try_from(uptime.saturating_sub(self.added).as_millis()).unwrap_or(u64::MAX);
        let strikes = match &self.fault.when {
            When::Always => true,
            When::Chance(p) => fastrand::Rng::with_seed(mix(&[seed, self.id, self.seen])).f64() < *p,
            When::First(n) => self.seen <= *n,
            When::Every(n) => *n > 0 && self.seen.is_multiple_of(*n),
            When::Requests(numbers) => numbers.contains(&self.seen),
            When::Between(from, to) => (*from..*to).contains(&age),
            When::Blob(number) => question.blob == Some(*number),
        };
        self.struck += u64::from(strikes);
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: Question = Question {
        endpoint: Endpoint::Blob,
        tenant: Some(Uuid::from_u128(1)),
        content_type: Some(ContentType::Exchange),
        blob: Some(7),
    };

    fn pattern(when: When, requests: u64) -> Vec<u64> {
        let mut faults = Faults::new(1);
        faults.add(Fault::new(Effect::Denied).when(when), Duration::ZERO);
        (1..=requests).filter(|n| faults.strike(&BLOB, Duration::from_millis(*n * 10)).is_some()).collect()
    }

    #[test]
    fn schedules_strike_the_requests_they_name() {
        assert_eq!(pattern(When::Always, 3), [1, 2, 3]);
        assert_eq!(pattern(When::First(2), 5), [1, 2]);
        assert_eq!(pattern(When::Every(2), 5), [2, 4]);
        assert_eq!(pattern(When::Requests(vec![1, 4]), 5), [1, 4]);
        assert_eq!(pattern(When::Between(20, 40), 6), [2, 3]);
        assert_eq!((pattern(When::Blob(7), 2), pattern(When::Blob(8), 2)), (vec![1, 2], Vec::new()));
        let struck = pattern(When::Chance(0.3), 1000).len();
        assert!((220..380).contains(&struck), "{struck} of 1000 at 0.3");
        assert_eq!(pattern(When::Chance(0.3), 50), pattern(When::Chance(0.3), 50));
    }

    #[test]
    fn a_fault_keeps_to_its_tenant_endpoint_and_type() {
        let mut faults = Faults::new(1);
        let fault = Fault::new(Effect::Denied)
            .tenant(Uuid::from_u128(1))
            .on([Endpoint::Blob])
            .content_type(ContentType::Exchange);
        faults.add(fault, Duration::ZERO);
        assert!(faults.strike(&BLOB, Duration::ZERO).is_some());
        assert!(faults.strike(&Question { tenant: Some(Uuid::from_u128(2)), ..BLOB }, Duration::ZERO).is_none());
        assert!(faults.strike(&Question { endpoint: Endpoint::List, ..BLOB }, Duration::ZERO).is_none());
        assert!(faults.strike(&Question { content_type: None, ..BLOB }, Duration::ZERO).is_none());
        faults.clear(Some(Uuid::from_u128(2)));
        assert!(faults.strike(&BLOB, Duration::ZERO).is_some());
        faults.clear(None);
        assert!(faults.strike(&BLOB, Duration::ZERO).is_none());
    }
}
