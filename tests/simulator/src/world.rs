//! The state of a running cloud, behind one lock.
//!
//! **Invariant:** nothing slow happens under the lock: no body is made, no signature checked, nothing sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::blob::Blob;
use crate::clock::Clock;
use crate::content_type::ContentType;
use crate::entra::registration::Registration;
use crate::entra::{Code, Keyring, Replicating};
use crate::faults::Faults;
use crate::graph::{Boards, HEALTH_READ, MESSAGES_READ, Quota};
use crate::hooks::{Attempts, Hook};
use crate::http::{Door, Latch};
use crate::ledger::{Book, Ledger};
use crate::scenario::{
    ACTIVITY_READ, ACTIVITY_READ_DLP, Consent, Entra, Feed, Issuer, ManagedIdentity, Person, Scenario, Service, Tenant,
};
use crate::seed::mix;

/// A running cloud.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) hosts: Hosts,
    /// Key of the access tokens' codes.
    pub(crate) token_key: aws_lc_rs::hmac::Key,
    /// Keys of the `id_token`s.
    pub(crate) keys: Keyring,
    /// Wakes the maker of live content when there is a new feed.
    pub(crate) wake: tokio::sync::Notify,
    state: Mutex<State>,
}

/// The hosts of a cloud, each as `http://127.0.0.1:PORT`.
pub(crate) struct Hosts {
    /// The Activity API's.
    pub(crate) management: String,
    /// Entra's; the same one unless the scenario keeps them apart.
    pub(crate) authority: String,
    /// Microsoft Graph's.
    pub(crate) graph: String,
    /// Nobody's who may see a credential.
    pub(crate) foreign: String,
    management_latch: Latch,
    authority_latch: Latch,
}

impl Hosts {
    pub(crate) fn new(management: &Door, authority: &Door, graph: &Door, foreign: &Door) -> Self {
        Self {
            management: management.url(),
            authority: authority.url(),
            graph: graph.url(),
            foreign: foreign.url(),
            management_latch: management.latch(),
            authority_latch: authority.latch(),
        }
    }

    /// Lets a host take connections, or refuse them.
    pub(crate) fn set_reachable(&self, host: Host, reachable: bool) {
        let latch = match host {
            Host::Management => &self.management_latch,
            Host::Authority => &self.authority_latch,
        };
        latch.send_replace(reachable);
    }

    pub(crate) fn are_apart(&self) -> bool {
        self.management != self.authority
    }
}

/// A host of a running cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// The Activity API's.
    Management,
    /// Entra's.
    Authority,
}

/// What changes.
pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) entra: Entra,
    pub(crate) service: Service,
    pub(crate) apps: HashMap<Uuid, Arc<Registration>>,
    pub(crate) tenants: BTreeMap<Uuid, TenantState>,
    /// Authorization codes given out.
    pub(crate) codes: HashMap<String, Code>,
    /// Refresh tokens given out.
    pub(crate) refresh_tokens: HashMap<String, Code>,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) managed_identities: Vec<ManagedIdentity>,
    pub(crate) identity_header: String,
    pub(crate) blobs: Vec<Blob>,
    /// Bodies made and compressed in advance.
    pub(crate) prepared: HashMap<u64, Bytes>,
    pub(crate) by_content_id: HashMap<(Uuid, String), u64>,
    /// How many blobs each feed has had, so that a tenant added again gets new ones.
    pub(crate) made: HashMap<(Uuid, ContentType), u64>,
    pub(crate) faults: Faults,
    pub(crate) book: Book,
    pub(crate) unidentified: Budget,
    pub(crate) paused: bool,
    /// Feeds with live content and when each is due, as time since the start in milliseconds.
    pub(crate) due: BTreeSet<(u64, Uuid, ContentType)>,
    /// Every secret that was shown or handed out, if a test wants them.
    pub(crate) credentials: Option<BTreeSet<String>>,
}

/// A tenant while the cloud runs.
pub(crate) struct TenantState {
    pub(crate) name: String,
    pub(crate) domain: String,
    pub(crate) people: Vec<Person>,
    pub(crate) consents: Option<Vec<Consent>>,
    /// Consents that the directory does not know everywhere yet.
    pub(crate) replicating: Vec<Replicating>,
    pub(crate) audit_log: bool,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) budget: Budget,
    pub(crate) subscriptions: BTreeMap<ContentType, Subscription>,
    pub(crate) feeds: BTreeMap<ContentType, FeedState>,
    /// Tokens of an earlier generation are no longer accepted.
    pub(crate) token_generation: u64,
    /// Its sensitive information types, by id and name, if it has others than everybody.
    pub(crate) sensitive_types: Option<Vec<(String, String)>>,
    /// What Graph tells it.
    pub(crate) boards: Boards,
    /// What was asked of Graph.
    pub(crate) graph_quota: Quota,
}

/// A subscription.
#[derive(Default)]
pub(crate) struct Subscription {
    pub(crate) status: SubscriptionStatus,
    pub(crate) webhook: Option<Hook>,
    /// What the webhooks that it has had were told.
    pub(crate) attempts: Attempts,
    pub(crate) last_start: Option<Timestamp>,
    /// Since when it has been stopped.
    pub(crate) stopped: Option<Timestamp>,
    /// Until when it is enabled in name only: its content is refused as if it were disabled.
    pub(crate) limps_until: Option<Timestamp>,
}

/// Whether a subscription gives content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// There is none (AF20022).
    #[default]
    None,
    /// It gives content.
    Enabled,
    /// Somebody has disabled it (AF20023).
    Disabled,
}

/// The content of one type.
pub(crate) struct FeedState {
    /// What it is told to make.
    pub(crate) plan: Option<Feed>,
    pub(crate) last_created: Option<Timestamp>,
    /// Numbers of the blobs in the order in which they become available.
    pub(crate) order: Vec<u64>,
}

/// The requests of the last minute.
#[derive(Default)]
pub(crate) struct Budget {
    recent: VecDeque<std::time::Duration>,
}

impl Budget {
    /// Counts a request at `uptime`; whether it is within `limit` a minute.
    pub(crate) fn spend(&mut self, limit: Option<u32>, uptime: std::time::Duration) -> bool {
        let Some(limit) = limit else { return true };
        while self.recent.front().is_some_and(|t| uptime.saturating_sub(*t).as_secs() >= 60) {
            self.recent.pop_front();
        }
        let within = self.recent.len() < limit as usize;
        if within {
            self.recent.push_back(uptime);
        }
        within
    }
}

impl World {
    pub(crate) fn new(mut scenario: Scenario, hosts: Hosts) -> Self {
        let clock = Clock::new(scenario.service.clock_offset_ms, scenario.service.date_offset_ms);
        let now = clock.now();
        let mut key = [0; 32];
        for (n, part) in (0..).zip(key.chunks_mut(8)) {
            part.copy_from_slice(&mix(&[scenario.seed, 77, n]).to_be_bytes());
        }
        let tenants = std::mem::take(&mut scenario.tenants);
        let mut state = State::new(scenario);
        for tenant in tenants {
            state.add_tenant(tenant, now, 0);
        }
        Self {
            clock,
            hosts,
            token_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key),
            keys: Keyring::default(),
            wake: tokio::sync::Notify::new(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of one request leaves counts at worst; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token for this audience is for the Activity API. Hosts that are apart have names of their own for it; a
    /// cloud of one host goes by its address too, which is what a client takes that knows nothing else.
    pub(crate) fn is_management_audience(&self, service: &Service, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        audience == service.audience.trim_end_matches('/')
            || (!self.hosts.are_apart() && audience == self.hosts.management)
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.clock.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let now = self.clock.now();
        let state = self.lock();
        let announced = state.tenants.values().flat_map(|tenant| tenant.boards.revisions.clone()).collect();
        Ledger { announced, ..state.book.ledger(now, &state.blobs, true, state.faults.counts()) }
    }

    pub(crate) fn summary(&self) -> Ledger {
        let now = self.clock.now();
        let state = self.lock();
        state.book.ledger(now, &[], false, state.faults.counts())
    }
}

/// What a tenant grants that has consented to every app and everything that it may ask for.
pub(crate) fn every_role() -> Vec<String> {
    [ACTIVITY_READ, ACTIVITY_READ_DLP, HEALTH_READ, MESSAGES_READ].map(str::to_owned).into()
}

impl State {
    /// The scenario's, without its tenants.
    pub(crate) fn new(scenario: Scenario) -> Self {
        let mut faults = Faults::new(scenario.seed);
        for fault in scenario.faults {
            faults.add(fault, std::time::Duration::ZERO);
        }
        State {
            seed: scenario.seed,
            entra: scenario.entra,
            apps: scenario.apps.iter().map(|a| (a.client_id, Arc::new(Registration::new(a)))).collect(),
            tenants: BTreeMap::new(),
            codes: HashMap::new(),
            refresh_tokens: HashMap::new(),
            issuers: scenario.issuers,
            managed_identities: scenario.managed_identities,
            identity_header: if scenario.identity_header.is_empty() {
                "simulated".to_owned()
            } else {
                scenario.identity_header
            },
            blobs: Vec::new(),
            prepared: HashMap::new(),
            by_content_id: HashMap::new(),
            made: HashMap::new(),
            faults,
            book: Book::new(
                scenario.service.request_log,
                std::time::Duration::from_millis(scenario.service.wait_grace_ms),
            ),
            service: scenario.service,
            unidentified: Budget::default(),
            paused: false,
            due: BTreeSet::new(),
            credentials: None,
        }
    }

    /// Adds a tenant with its backlog. Of a present one the settings are replaced; content and subscriptions stay.
    pub(crate) fn add_tenant(&mut self, tenant: Tenant, now: Timestamp, uptime_ms: u64) {
        let id = tenant.id;
        let present = self.tenants.remove(&id);
        let (token_generation, subscriptions, feeds, told) = present.map_or_else(Default::default, |t| {
            (t.token_generation, t.subscriptions, t.feeds, Some((t.boards, t.graph_quota)))
        });
        let (boards, graph_quota) = told.unwrap_or_else(|| (Boards::new(id), Quota::default()));
        let people = if tenant.people.is_empty() {
            vec![Person::admin(&format!("admin@{}", tenant.domain))]
        } else {
            tenant.people
        };
        let state = TenantState {
            name: tenant.name,
            domain: tenant.domain,
            people,
            consents: tenant.consents,
            replicating: Vec::new(),
            audit_log: tenant.audit_log,
            requests_per_minute: tenant.requests_per_minute,
            budget: Budget::default(),
            subscriptions,
            feeds,
            token_generation,
            sensitive_types: None,
            boards,
            graph_quota,
        };
        self.tenants.insert(id, state);
        for content_type in tenant.subscribed {
            self.set_subscription(id, content_type, SubscriptionStatus::Enabled, now);
        }
        for feed in tenant.feeds {
            self.add_feed(id, feed, now, uptime_ms);
        }
    }

    pub(crate) fn boards(&self, tenant: Uuid) -> Option<&Boards> {
        self.tenants.get(&tenant).map(|tenant| &tenant.boards)
    }

    pub(crate) fn boards_mut(&mut self, tenant: Uuid) -> Option<&mut Boards> {
        self.tenants.get_mut(&tenant).map(|tenant| &mut tenant.boards)
    }

    pub(crate) fn blob(&self, number: u64) -> Option<&Blob> {
        self.blobs.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn blob_mut(&mut self, number: u64) -> Option<&mut Blob> {
        self.blobs.get_mut(usize::try_from(number).ok()?)
    }

    pub(crate) fn blob_named(&self, tenant: Uuid, content_id: &str) -> Option<&Blob> {
        self.blob(*self.by_content_id.get(&(tenant, content_id.to_owned()))?)
    }

    /// Grants or withdraws; a tenant that had consented to every app then has consented to those it had but this.
    pub(crate) fn set_consent(&mut self, tenant: Uuid, client_id: Uuid, consent: Option<Consent>) {
        let apps: Vec<Uuid> = self.apps.keys().copied().collect();
        let Some(tenant) = self.tenants.get_mut(&tenant) else {
            return;
        };
        let both = every_role;
        let consents = tenant
            .consents
            .get_or_insert_with(|| apps.into_iter().map(|client_id| Consent { client_id, roles: both() }).collect());
        consents.retain(|c| c.client_id != client_id);
        consents.extend(consent);
    }

    /// Changes a subscription's status as the service or an administrator does.
    pub(crate) fn set_subscription(
        &mut self,
        tenant: Uuid,
        content_type: ContentType,
        status: SubscriptionStatus,
        now: Timestamp,
    ) {
        let Some(tenant) = self.tenants.get_mut(&tenant) else {
            return;
        };
        let subscription = tenant.subscriptions.entry(content_type).or_default();
        match status {
            SubscriptionStatus::Enabled => subscription.stopped = None,
            _ if subscription.status == SubscriptionStatus::Enabled => subscription.stopped = Some(now),
            _ => {}
        }
        subscription.status = status;
    }
}
