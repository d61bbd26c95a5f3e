//! Whole trees against the simulated service: what it offers is what the store holds, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tenantry_simulator as simulator;
use tenantry_simulator::{BlobSpec, Endpoint, Feed, Ledger, Scenario};
use uuid::Uuid;

use super::{Changes, Registry, Roster, Shared};
use crate::clock::{ServiceTime, SharedClock, SystemClock};
use crate::cloud::{Cloud, Management, TokenEndpoint};
use crate::config::{
    App, Collect, Daemon, Log, Network, Operator, Origin, Public, Settings, StoreSettings, Tenant, TokenSettings,
};
use crate::content::{ContentType, TenantId};
use crate::http::{Http, Timeouts};
use crate::report::{Report, TenantState, TenantStatus};
use crate::secret::Secret;
use crate::store::{BlobHeader, Options, Store};
use crate::token::{AppAlarms, Credential};

mod asking;
mod blobs;
mod collecting;
mod failing;
mod following;
mod inventory;
mod keeping;
mod young;

const APP: Uuid = Uuid::from_u128(0x0a99_0000_0000_4000_8000_0000_0000_0001);
const PUBLISHER: Uuid = Uuid::from_u128(0x0b15_0000_0000_4000_8000_0000_0000_0001);
/// Nothing that a test waits for takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);
const FEEDS: [simulator::ContentType; 4] = simulator::ContentType::AUDIT;

fn tenant(number: u128) -> Uuid {
    Uuid::from_u128(0x7e4a_0000_0000_4000_8000_0000_0000_0000 + number)
}

/// A tenant with the same backlog in each of the four audit types.
fn offering(number: u128, blobs: u32, days: f64) -> simulator::Tenant {
    FEEDS
        .into_iter()
        .fold(simulator::Tenant::new(tenant(number), &format!("tenant {number}")), |tenant, content_type| {
            tenant.feed(Feed::new(content_type).backlog(blobs, days).records(2, 9))
        })
}

fn scenario() -> Scenario {
    Scenario::new(7).publisher(PUBLISHER)
}

/// A simulated cloud, a store, and a registry between them.
struct World {
    cloud: simulator::Cloud,
    settings: Settings,
    registry: Arc<Registry>,
    shared: Shared,
    dir: TempDir,
}

impl World {
    /// Collects from all tenants of the scenario; `change` has the last word on the settings.
    fn new(scenario: Scenario, change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(scenario, TempDir::with_prefix("tenantry-tree-").unwrap(), change)
    }

    fn at(scenario: Scenario, dir: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        Self::with(scenario, dir, Arc::new(SystemClock), change)
    }

    fn with(scenario: Scenario, dir: TempDir, clock: SharedClock, change: impl FnOnce(&mut Settings)) -> Self {
        let tenants: Vec<_> = scenario.tenants.iter().map(|tenant| tenant.id).collect();
        let cloud = simulator::Cloud::start(scenario.app(simulator::App::new(APP).secret("s3cret"))).unwrap();
        let mut settings = settings(&cloud.url(), &tenants);
        change(&mut settings);
        let (registry, shared) = registry_by(&dir, clock);
        let world = Self { cloud, settings, registry, shared, dir };
        world.apply(&world.settings);
        world
    }

    /// Follows these settings, in which all tenants are.
    fn apply(&self, settings: &Settings) -> Changes {
        self.registry.apply(settings, &Roster::join(&settings.outline(), &[], &BTreeMap::new()))
    }

    fn status(&self, tenant: Uuid) -> TenantStatus {
        let snapshot = self.shared.report.snapshot();
        let found = snapshot.tenants.into_iter().find(|status| status.id == TenantId::from(tenant));
        found.unwrap_or_else(|| panic!("no status of {tenant}"))
    }

    /// Waits until `condition` holds.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "{what} did not come; {:#?}", self.shared.report.snapshot());
    }

    /// Waits until everything that is offered is stored.
    async fn collected(&self) {
        self.until("all that is offered", |world| {
            let ledger = world.cloud.ledger();
            world.settings.tenants.keys().all(|id| offered(&ledger, id.uuid()) == world.stored(id.uuid()))
        })
        .await;
    }

    /// Offers the first tenant new blobs, now and two hours ago, and waits for them.
    async fn new_blobs_are_stored(&self) {
        let control = self.cloud.control();
        control.add_blobs(BlobSpec::new(tenant(1), FEEDS[0]).count(3).records(2));
        let ago = Duration::from_hours(2);
        control.add_blobs(BlobSpec::new(tenant(1), FEEDS[1]).count(2).records(2).created_ago(ago));
        let ledger = self.cloud.ledger();
        let new: BTreeSet<_> = ledger.blobs.iter().rev().take(5).map(|blob| blob.content_id.clone()).collect();
        self.until("the new blobs", |world| world.stored(tenant(1)).is_superset(&new)).await;
    }

    /// The headers of a tenant's blobs.
    fn headers(&self, tenant: Uuid) -> Vec<BlobHeader> {
        let read = |content_type| self.shared.store.read_after(tenant.into(), content_type, 0, 100_000).unwrap();
        ContentType::ALL.into_iter().flat_map(read).map(|(_, header)| header.unwrap()).collect()
    }

    /// The ids of the stored blobs; each was stored once.
    fn stored(&self, tenant: Uuid) -> BTreeSet<String> {
        let headers = self.headers(tenant);
        let ids: BTreeSet<_> = headers.iter().map(|header| header.content_id.to_string()).collect();
        assert_eq!(ids.len(), headers.len(), "a blob was stored twice");
        ids
    }

    /// Every stored body is the one that was offered, and the service saw nothing that Microsoft forbids.
    fn assert_faithful(&self) {
        self.assert_stored_as_offered();
        let ledger = self.cloud.ledger();
        assert!(ledger.violations.is_empty(), "{:#?}", ledger.violations);
        assert_eq!(ledger.foreign_requests, 0);
    }

    /// Every stored body is the one that was offered.
    fn assert_stored_as_offered(&self) {
        let ledger = self.cloud.ledger();
        for id in self.settings.tenants.keys() {
            for header in self.headers(id.uuid()) {
                let blob = ledger.blob_named(id.uuid(), header.content_id.as_str()).unwrap();
                let sha256 = blob.sha256();
                let bytes = |at: usize| u8::from_str_radix(&sha256[2 * at..2 * at + 2], 16).unwrap();
                assert_eq!(header.sha256, std::array::from_fn(bytes), "{}", header.content_id);
                assert_eq!(header.records as usize, blob.record_ids().len());
                assert_eq!(header.defect, None);
            }
        }
    }

    /// Stops as the daemon does.
    async fn stop(self) -> TempDir {
        self.registry.drain(Duration::from_secs(20)).await;
        drop(self.registry);
        self.shared.store.close().await.unwrap();
        self.dir
    }
}

fn offered(ledger: &Ledger, tenant: Uuid) -> BTreeSet<String> {
    ledger.offered(tenant).map(|blob| blob.content_id.clone()).collect()
}

fn registry(dir: &TempDir) -> (Arc<Registry>, Shared) {
    registry_by(dir, Arc::new(SystemClock))
}

fn registry_by(dir: &TempDir, clock: SharedClock) -> (Arc<Registry>, Shared) {
    let time = Arc::new(ServiceTime::new(Arc::clone(&clock)));
    let options = Options {
        path: dir.path().join("store"),
        partition_bytes: 2 << 30,
        lock_wait: Duration::from_secs(10),
        purpose: "a test",
    };
    let shared = Shared {
        store: Store::open(&options, Arc::clone(&time)).unwrap(),
        report: Report::new(Arc::clone(&time)),
        http: Http::direct(Timeouts { stall: Duration::from_secs(3), ..Timeouts::default() }).unwrap(),
        time,
        clock,
        apps: AppAlarms::new(),
    };
    (Arc::new(Registry::new(shared.clone())), shared)
}

fn settings(url: &str, tenants: &[Uuid]) -> Settings {
    let url: url::Url = url.parse().unwrap();
    let cloud = Arc::new(Cloud {
        name: "simulated".to_owned(),
        authority: url.clone(),
        management: Some(Management { host: url.clone(), audience: "https://manage.office.com".to_owned() }),
        graph: url,
        graph_audience: "https://graph.microsoft.com".to_owned(),
    });
    let app = App {
        name: String::new(),
        client_id: APP.to_string(),
        publisher_id: Some(PUBLISHER),
        credential: Credential::Secret(Secret::from("s3cret".to_owned())),
        files: Vec::new(),
        variables: Vec::new(),
    };
    let tenant = |id: &Uuid| Tenant {
        id: (*id).into(),
        name: format!("tenant {id}"),
        app: String::new(),
        cloud: Arc::clone(&cloud),
        content_types: ContentType::AUDIT.into(),
        enabled: true,
        origin: Origin::File(PathBuf::from("test.toml")),
        line: None,
    };
    Settings {
        apps: BTreeMap::from([(String::new(), Arc::new(app))]),
        tenants: tenants.iter().map(tenant).map(|tenant| (tenant.id, tenant)).collect(),
        clouds: BTreeMap::from([("simulated".to_owned(), Arc::clone(&cloud))]),
        network: Network::default(),
        token: TokenSettings { endpoint: TokenEndpoint::V2, ..TokenSettings::default() },
        collect: Collect { poll_interval: Duration::from_millis(300), ..Collect::default() },
        dlp: crate::config::Dlp::default(),
        health: crate::config::Health::default(),
        store: StoreSettings::default(),
        log: Log::default(),
        daemon: Daemon { drain: Duration::from_secs(5), ..Daemon::default() },
        operator: Operator::default(),
        public: Public::default(),
        cloud_apps: BTreeMap::new(),
        sources: Vec::new(),
        variables: BTreeSet::new(),
        warnings: Vec::new(),
    }
}
