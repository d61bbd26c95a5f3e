//! The state of a running cloud, behind one lock.
//!
//! **Invariant:** nothing slow happens under the lock: no body is made, no signature checked, nothing sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use crate::blob::{Blob, BlobSpec};
use crate::clock::{Clock, shift};
use crate::content_type::ContentType;
use crate::entra::registration::Registration;
use crate::faults::Faults;
use crate::ledger::{Book, Ledger};
use crate::records::{Departure, Insert, MEAN_BYTES, Recipe};
use crate::scenario::{ACTIVITY_READ, ACTIVITY_READ_DLP, Consent, Entra, Feed, Quirks, Scenario, Service, Tenant};
use crate::seed::{guid, mix};

const DAY_MS: i64 = 86_400_000;

/// A running cloud.
pub(crate) struct World {
    pub(crate) clock: Clock,
    /// `http://127.0.0.1:PORT` of the cloud.
    pub(crate) url: String,
    /// The same of the foreign host.
    pub(crate) foreign_url: String,
    /// Key of the access tokens' codes.
    pub(crate) token_key: aws_lc_rs::hmac::Key,
    /// Wakes the maker of live content when there is a new feed.
    pub(crate) wake: tokio::sync::Notify,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) entra: Entra,
    pub(crate) service: Service,
    pub(crate) apps: HashMap<Uuid, Arc<Registration>>,
    pub(crate) tenants: BTreeMap<Uuid, TenantState>,
    pub(crate) blobs: Vec<Blob>,
    /// Bodies made and compressed in advance.
    pub(crate) prepared: HashMap<u64, Bytes>,
    by_content_id: HashMap<(Uuid, String), u64>,
    /// How many blobs each feed has had, so that a tenant added again gets new ones.
    made: HashMap<(Uuid, ContentType), u64>,
    pub(crate) faults: Faults,
    pub(crate) book: Book,
    pub(crate) unidentified: Budget,
    pub(crate) paused: bool,
    /// Feeds with live content and when each is due, as time since the start in milliseconds.
    pub(crate) due: BTreeSet<(u64, Uuid, ContentType)>,
}

/// A tenant while the cloud runs.
pub(crate) struct TenantState {
    pub(crate) domain: String,
    pub(crate) consents: Option<Vec<Consent>>,
    pub(crate) audit_log: bool,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) budget: Budget,
    pub(crate) subscriptions: BTreeMap<ContentType, Subscription>,
    pub(crate) feeds: BTreeMap<ContentType, FeedState>,
    /// Tokens of an earlier generation are no longer accepted.
    pub(crate) token_generation: u64,
}

/// A subscription.
#[derive(Default)]
pub(crate) struct Subscription {
    pub(crate) status: SubscriptionStatus,
    pub(crate) webhook: Option<serde_json::Value>,
    pub(crate) last_start: Option<Timestamp>,
    /// Since when it has been stopped.
    pub(crate) stopped: Option<Timestamp>,
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
    plan: Option<Feed>,
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
    pub(crate) fn new(scenario: Scenario, url: String, foreign_url: String) -> Self {
        let clock = Clock::new(scenario.service.clock_offset_ms, scenario.service.date_offset_ms);
        let now = clock.now();
        let mut faults = Faults::new(scenario.seed);
        for fault in scenario.faults {
            faults.add(fault, clock.uptime());
        }
        let mut key = [0; 32];
        for (n, part) in (0..).zip(key.chunks_mut(8)) {
            part.copy_from_slice(&mix(&[scenario.seed, 77, n]).to_be_bytes());
        }
        let mut state = State {
            seed: scenario.seed,
            entra: scenario.entra,
            apps: scenario.apps.iter().map(|a| (a.client_id, Arc::new(Registration::new(a)))).collect(),
            tenants: BTreeMap::new(),
            blobs: Vec::new(),
            prepared: HashMap::new(),
            by_content_id: HashMap::new(),
            made: HashMap::new(),
            faults,
            book: Book::new(scenario.service.request_log),
            service: scenario.service,
            unidentified: Budget::default(),
            paused: false,
            due: BTreeSet::new(),
        };
        for tenant in scenario.tenants {
            state.add_tenant(tenant, now, 0);
        }
        Self {
            clock,
            url,
            foreign_url,
            token_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key),
            wake: tokio::sync::Notify::new(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of one request leaves counts at worst; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.clock.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let now = self.clock.now();
        let state = self.lock();
        state.book.ledger(now, &state.blobs, true, state.faults.counts())
    }

    pub(crate) fn summary(&self) -> Ledger {
        let now = self.clock.now();
        let state = self.lock();
        state.book.ledger(now, &[], false, state.faults.counts())
    }
}

impl State {
    /// Adds a tenant with its backlog. Of a present one the settings are replaced; content and subscriptions stay.
    pub(crate) fn add_tenant(&mut self, tenant: Tenant, now: Timestamp, uptime_ms: u64) {
        let id = tenant.id;
        let present = self.tenants.remove(&id);
        let (token_generation, subscriptions, feeds) =
            present.map_or_else(Default::default, |t| (t.token_generation, t.subscriptions, t.feeds));
        let state = TenantState {
            domain: tenant.domain,
            consents: tenant.consents,
            audit_log: tenant.audit_log,
            requests_per_minute: tenant.requests_per_minute,
            budget: Budget::default(),
            subscriptions,
            feeds,
            token_generation,
        };
        self.tenants.insert(id, state);
        for content_type in tenant.subscribed {
            self.set_subscription(id, content_type, SubscriptionStatus::Enabled, now);
        }
        for feed in tenant.feeds {
            self.add_feed(id, feed, now, uptime_ms);
        }
    }

    fn add_feed(&mut self, tenant: Uuid, feed: Feed, now: Timestamp, uptime_ms: u64) {
        let content_type = feed.content_type;
        self.due.retain(|(_, t, c)| (*t, *c) != (tenant, content_type));
        if let Some(every) = feed.live_every_ms {
            self.due.insert((uptime_ms + every.max(1), tenant, content_type));
        }
        let backlog = feed.backlog;
        let span = feed.backlog_days * 86_400_000.0;
        let mut rng = Rng::with_seed(mix(&[self.seed, guid_seed(tenant), content_type as u64, 5]));
        let mut times: Vec<i64> = (0..backlog)
            .map(|n| {
                let place = (f64::from(n) + rng.f64()) / f64::from(backlog);
                #[expect(clippy::cast_possible_truncation, reason = "a few days in milliseconds")]
                let ago = (span * (1.0 - place)) as i64;
                now.as_millisecond() - ago.max(1)
            })
            .collect();
        times.sort_unstable();
        for time in times {
            let created = Timestamp::from_millisecond(time).unwrap_or(now);
            self.add_planned(tenant, &feed, created, now, true);
        }
        self.feed(tenant, content_type).plan = Some(feed);
    }

    fn feed(&mut self, tenant: Uuid, content_type: ContentType) -> &mut FeedState {
        let fresh = || FeedState { plan: None, last_created: None, order: Vec::new() };
        self.tenants.get_mut(&tenant).expect("callers know the tenant").feeds.entry(content_type).or_insert_with(fresh)
    }

    /// Adds the live blobs that are due and returns when the next one is, in milliseconds since the start.
    pub(crate) fn add_due(&mut self, now: Timestamp, uptime_ms: u64) -> Option<u64> {
        while let Some((at, tenant, content_type)) = self.due.first().copied().filter(|(at, ..)| *at <= uptime_ms) {
            self.due.pop_first();
            let plan = self.tenants.get(&tenant).and_then(|t| t.feeds.get(&content_type)).and_then(|f| f.plan.clone());
            let Some(feed) = plan else { continue };
            // After a pause the missed ones are not made up for.
            let every = feed.live_every_ms.unwrap_or(1000).max(1);
            let next = (at + every).max(uptime_ms.saturating_sub(every * 20));
            self.due.insert((next, tenant, content_type));
            if !self.paused {
                self.add_planned(tenant, &feed, now, now, false);
            }
        }
        self.due.first().map(|(at, ..)| *at)
    }

    /// Adds a blob as a feed's plan has it.
    fn add_planned(&mut self, tenant: Uuid, feed: &Feed, created: Timestamp, now: Timestamp, backlog: bool) {
        let quirks = &feed.quirks;
        let state = self.feed(tenant, feed.content_type);
        let previous = state.last_created;
        let number = self.made.get(&(tenant, feed.content_type)).copied().unwrap_or(0);
        let mut rng = Rng::with_seed(mix(&[self.seed, guid_seed(tenant), feed.content_type as u64, number, 6]));
        let records =
            feed.body_bytes.map_or_else(|| rng.u32(feed.records.0..=feed.records.1.max(feed.records.0)), records_for);
        let created = previous.filter(|_| rng.f64() < quirks.same_instant).unwrap_or(created);
        let mut visible = created;
        if rng.f64() < quirks.late {
            #[expect(clippy::cast_possible_truncation, reason = "a few hours in milliseconds")]
            let late = (quirks.late_hours * 3_600_000.0) as i64;
            visible = shift(created, late);
        } else if quirks.listed_within_ms > 0 && !backlog {
            visible = shift(created, rng.i64(0..=i64::try_from(quirks.listed_within_ms).unwrap_or(0)));
        }
        let expires = (backlog && rng.f64() < quirks.expiring)
            .then(|| shift(now, i64::try_from(quirks.expires_in_ms).unwrap_or(0)));
        let partial =
            (quirks.partial_for_ms > 0).then(|| shift(created, i64::try_from(quirks.partial_for_ms).unwrap_or(0)));
        let inserts = self.departures(tenant, feed.content_type, quirks, records, &mut rng);
        self.push(tenant, feed.content_type, created, visible, expires, partial, records, inserts, None);
    }

    fn departures(
        &self,
        tenant: Uuid,
        content_type: ContentType,
        quirks: &Quirks,
        records: u32,
        rng: &mut Rng,
    ) -> Vec<Insert> {
        let mut inserts = Vec::new();
        let earlier = &self.tenants[&tenant].feeds[&content_type].order;
        if quirks.duplicates > 0.0 && !earlier.is_empty() {
            for at in 0..records {
                if rng.f64() < quirks.duplicates {
                    let recipe = &self.blobs[usize::try_from(earlier[rng.usize(..earlier.len())]).unwrap_or(0)].recipe;
                    inserts.extend(repeat(recipe, rng.u32(..recipe.records.max(1)), at));
                }
            }
        }
        if records > 0 && rng.f64() < quirks.foreign_organization {
            place(&mut inserts, rng.u32(..records), Departure::Organization(guid(self.seed, 0xf0e)));
        }
        if records > 0 && rng.f64() < quirks.fault_point {
            place(&mut inserts, rng.u32(..records), Departure::FaultPoint("panic".to_owned()));
        }
        inserts
    }

    /// Adds the blobs a test asks for and returns their numbers; none if the tenant is unknown.
    pub(crate) fn add_blobs(&mut self, spec: &BlobSpec, now: Timestamp) -> Vec<u64> {
        if !self.tenants.contains_key(&spec.tenant) {
            return Vec::new();
        }
        let records = spec.body_bytes.map_or(spec.records, records_for);
        let mut numbers = Vec::new();
        for n in 0..spec.count {
            let created = shift(now, i64::from(n) * spec.apart_ms - spec.created_ago_ms);
            let mut inserts = Vec::new();
            for (at, other) in (0..records).zip(&spec.repeats) {
                if let Some(blob) = usize::try_from(*other).ok().and_then(|i| self.blobs.get(i)) {
                    inserts.extend(repeat(&blob.recipe, 0, at));
                }
            }
            if let (Some(organization), 1..) = (spec.foreign_organization, records) {
                place(&mut inserts, records - 1, Departure::Organization(organization));
            }
            if let (Some(value), 1..) = (&spec.fault_point, records) {
                place(&mut inserts, records / 2, Departure::FaultPoint(value.clone()));
            }
            let visible = shift(now, spec.visible_in_ms).max(created);
            let expires = spec.expires_in_ms.map(|ms| shift(now, ms));
            let partial = spec.partial_for_ms.map(|ms| shift(now, ms));
            numbers.push(self.push(
                spec.tenant,
                spec.content_type,
                created,
                visible,
                expires,
                partial,
                records,
                inserts,
                spec.body.clone(),
            ));
        }
        numbers
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a blob, given by two callers")]
    fn push(
        &mut self,
        tenant: Uuid,
        content_type: ContentType,
        created: Timestamp,
        visible: Timestamp,
        expires: Option<Timestamp>,
        partial: Option<Timestamp>,
        records: u32,
        inserts: Vec<Insert>,
        literal: Option<String>,
    ) -> u64 {
        let number = self.blobs.len() as u64;
        let domain = self.tenants[&tenant].domain.clone();
        let withheld = self.tenants[&tenant]
            .subscriptions
            .get(&content_type)
            .is_some_and(|s| s.stopped.is_some_and(|t| created >= t));
        let feed = self.feed(tenant, content_type);
        feed.last_created = Some(created);
        let made = self.made.entry((tenant, content_type)).or_insert(0);
        let local = *made;
        *made += 1;
        let key = mix(&[self.seed, guid_seed(tenant), content_type as u64, local, 8]);
        let content_id = content_id(content_type, created, number);
        let blob = Blob {
            number,
            tenant,
            content_type,
            content_id: content_id.clone(),
            content_created: created,
            content_expiration: expires.unwrap_or_else(|| shift(created, 7 * DAY_MS)),
            visible_from: visible,
            partial_until: partial,
            withheld,
            listed: 0,
            fetched: 0,
            recipe: Recipe { key, tenant, domain, content_type, created, records, inserts, literal },
        };
        self.blobs.push(blob);
        self.by_content_id.insert((tenant, content_id), number);
        let blobs = &self.blobs;
        let order = &mut self
            .tenants
            .get_mut(&tenant)
            .expect("looked up above")
            .feeds
            .get_mut(&content_type)
            .expect("made above")
            .order;
        let place = order.partition_point(|n| blobs[usize::try_from(*n).unwrap_or(0)].visible_from <= visible);
        order.insert(place, number);
        number
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
        let both = || vec![ACTIVITY_READ.to_owned(), ACTIVITY_READ_DLP.to_owned()];
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

fn records_for(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MEAN_BYTES)).unwrap_or(u32::MAX)
}

fn repeat(recipe: &Recipe, index: u32, at: u32) -> Option<Insert> {
    // A repetition of a repetition is one of the first copy.
    let what = match recipe.inserts.iter().find(|i| i.at == index).map(|i| &i.what) {
        Some(repeats @ Departure::Repeats { .. }) => repeats.clone(),
        Some(_) => return None,
        None if recipe.literal.is_some() || index >= recipe.records => return None,
        None => Departure::Repeats { key: recipe.key, created: recipe.created, index },
    };
    Some(Insert { at, what })
}

fn place(inserts: &mut Vec<Insert>, at: u32, what: Departure) {
    inserts.retain(|i| i.at != at);
    let n = inserts.partition_point(|i| i.at < at);
    inserts.insert(n, Insert { at, what });
}

fn guid_seed(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    mix(&[high, low])
}

/// Shaped like those seen: two times, the feed's name twice, a partition.
fn content_id(content_type: ContentType, created: Timestamp, number: u64) -> String {
    let time = format!("{}{:06}", created.strftime("%Y%m%d%H%M%S%3f"), number % 1_000_000);
    match content_type {
        ContentType::AzureActiveDirectory => {
            format!("{time}${time}$audit_azureactivedirectory$Audit_AzureActiveDirectory$emea{:04}", number % 41)
        }
        ContentType::Exchange => format!("{time}${time}$audit_exchange$Audit_Exchange$emea{:04}", number % 37),
        ContentType::SharePoint => format!("{time}${time}$audit_sharepoint$Audit_SharePoint$emea{:04}", number % 31),
        ContentType::General => {
            format!("{time}${time}$audit_general$Audit_General$na{:04}$na{:04}", number % 30, number % 30)
        }
        ContentType::Dlp => format!("{time}${time}$dlp_all$DLP_All$emea{:04}", number % 29),
    }
}
