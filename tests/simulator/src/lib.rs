//! A simulated Microsoft cloud: Entra ID with sign-in, admin consent and tokens, the token services of Azure's machines,
//! the whole Office 365 Management Activity API and Graph's service communications, faults and quirks included.
//!
//! It stands in for Microsoft in Tenantry's tests, its demo and its benchmarks, and shares no protocol code with the
//! daemon, so that one misunderstanding cannot hide in both.
//!
//! - [`Scenario`]: what the cloud holds when it starts; plain data.
//! - [`Cloud`]: a running cloud on loopback ports, with its own threads.
//! - [`Control`]: changes the running cloud: blobs, tenants, people, keys, [`Fault`]s, [`Forgery`], consent, clocks.
//! - [`Ledger`]: what it has offered and seen, to compare a collector's result with.
//!
//! Inside: `http` (a server that can misbehave at any byte), `entra`, `activity`, `graph` (the three services), `records` (made-up
//! audit records), `world` and `feeds` (the state and its content), `front` (routing, books), `hooks` (notifications), `spoil` (what faults do to
//! answers), `custody` (who may see a credential).
//!
//! **Guarantees.** Bodies are functions of the scenario's seed and the blob's place in its feed. Memory does not grow
//! with them: up to 4,000 records are made whole on demand, bigger bodies are streamed, and only what
//! [`Scenario::precompress_mib`] asks for is kept. Nothing listens on other than loopback addresses unless the binary is
//! told to. Whatever a whole answer changes in the ledger is there before the client has its last byte.
//!
//! ```
//! use tenantry_simulator::{App, Cloud, ContentType, Feed, Scenario, Tenant};
//! use uuid::Uuid;
//!
//! let tenant = Uuid::from_u128(0x7c1d);
//! let cloud = Cloud::start(
//!     Scenario::new(1)
//!         .app(App::new(Uuid::from_u128(0xa99)).secret("s3cret"))
//!         .tenant(Tenant::new(tenant, "Contoso").feed(Feed::new(ContentType::Exchange).backlog(10, 2.0).records(5, 20))),
//! )?;
//! assert_eq!(cloud.ledger().offered(tenant).count(), 10);
//! # Ok::<(), std::io::Error>(())
//! ```

mod activity;
mod blob;
mod clock;
mod content_type;
mod control;
mod custody;
mod entra;
mod faults;
mod feeds;
mod front;
mod hooks;
mod graph;
mod http;
mod ledger;
mod records;
mod scenario;
mod seed;
mod spoil;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use blob::{Blob, BlobSpec};
pub use content_type::ContentType;
pub use control::{Command, Control, Outcome};
pub use faults::{
    BadEntry, BadJson, Effect, Endpoint, ErrorBody, Fault, LeftOut, Point, Throttle, ThrottleShape, When,
};
pub use graph::{Announced, Board, HEALTH_READ, MESSAGES_READ};
pub use hooks::{HookChange, HookSeen};
pub use ledger::{ConsentAsked, Ledger, Redemption, Remark, Seen, SignIn, TenantBook, TokenRequest, Verdict};
pub use records::{Departure, Insert, Recipe};
pub use scenario::{
    ACTIVITY_READ, ACTIVITY_READ_DLP, App, CONSUMERS, Consent, ConsentError, Der, Entra, Federated, Feed, Forgery,
    Gzip, Issuer, Jwk, ManagedIdentity, Notices, PERSONAL_ACCOUNT, Person, Quirks, Replication, Scenario, Secret,
    Service, TOKEN_EXCHANGE, Tenant, TenantMismatch,
};
pub use world::{Host, SubscriptionStatus};

use front::{Foreign, Front, Serves};
use http::Door;
use world::{Hosts, World};

/// A running cloud. Dropping it closes its ports.
pub struct Cloud {
    world: Arc<World>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Cloud {
    /// Starts a cloud on free loopback ports.
    pub fn start(scenario: Scenario) -> io::Result<Cloud> {
        Self::start_at(scenario, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts a cloud at an address; its other hosts get free ports beside it.
    pub fn start_at(scenario: Scenario, address: SocketAddr) -> io::Result<Cloud> {
        let beside = SocketAddr::from((address.ip(), 0));
        let management = Door::new(address)?;
        let authority = if scenario.apart { Some(Door::new(beside)?) } else { None };
        let (graph, foreign) = (Door::new(beside)?, Door::new(beside)?);
        let hosts = Hosts::new(&management, authority.as_ref().unwrap_or(&management), &graph, &foreign);
        let precompress = scenario.precompress_mib;
        let world = Arc::new(World::new(scenario, hosts));
        if precompress > 0 {
            activity::prepare(&world, precompress);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("simulator")
            .enable_all()
            .build()?;
        {
            let _context = runtime.enter();
            let front = |serves| Arc::new(Front { world: Arc::clone(&world), serves });
            let serves = if authority.is_some() { Serves::Management } else { Serves::Both };
            runtime.spawn(management.serve(front(serves))?);
            if let Some(authority) = authority {
                runtime.spawn(authority.serve(front(Serves::Authority))?);
            }
            runtime.spawn(graph.serve(front(Serves::Graph))?);
            runtime.spawn(foreign.serve(Arc::new(Foreign { world: Arc::clone(&world) }))?);
            runtime.spawn(make_live_content(Arc::clone(&world)));
            runtime.spawn(hooks::notify(Arc::clone(&world)));
        }
        Ok(Cloud { world, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:PORT`: the management host, and the authority too unless [`Scenario::apart`].
    #[must_use]
    pub fn url(&self) -> String {
        self.world.hosts.management.clone()
    }

    /// The same of the authority.
    #[must_use]
    pub fn authority_url(&self) -> String {
        self.world.hosts.authority.clone()
    }

    /// The same of Microsoft Graph, whose audience is `https://graph.microsoft.com`.
    #[must_use]
    pub fn graph_url(&self) -> String {
        self.world.hosts.graph.clone()
    }

    /// Another host, which records whatever reaches it.
    #[must_use]
    pub fn foreign_url(&self) -> String {
        self.world.hosts.foreign.clone()
    }

    /// A snapshot of what the cloud has offered and seen.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.world.ledger()
    }

    /// The ledger without its blobs and requests, for asking often while there are many.
    #[must_use]
    pub fn summary(&self) -> Ledger {
        self.world.summary()
    }

    /// The handle that changes the cloud while it runs.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.world))
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A thread of its own may wait for the end even if this is another runtime's task. It takes milliseconds,
            // and afterwards the ports are free again.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2))).join();
        }
    }
}

/// Adds live blobs as they fall due.
async fn make_live_content(world: Arc<World>) {
    loop {
        let now = world.clock.now();
        let uptime = world.uptime_ms();
        let next = world.lock().add_due(now, uptime);
        let pause = next
            .map_or(Duration::from_hours(1), |at| Duration::from_millis(at.saturating_sub(world.uptime_ms()).max(1)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = world.wake.notified() => {}
        }
    }
}
