//! The operators' listener: health, metrics and the reading half of the admin API over TCP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200: the process answers |
//! | `GET /readyz` | 200, or 503 with what is missing ([`health`]) |
//! | `GET /metrics` | the numbers, for Prometheus ([`metrics`]) |
//! | `GET /v1/…` | what the [admin socket](super::admin) answers; what changes anything is only there |
//!
//! It listens before the store is open, so that a long start can be told from a hang; until then only health answers.
//! A reload that changes `[operator]` takes effect at once: connections under the old settings end with the answer that
//! is under way. An address that cannot be used is an error line and is tried again: monitoring must not stop what it
//! watches.
//!
//! **Invariant:** nobody who connects can hold up anything else ([`connections`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::access::{self, Access};
use super::admin::{self, Service};
use super::connections::{self, Allowance};
use super::health;
use super::metrics::{self, Certificates, Metrics};
use crate::config::{Operator, Settings};
use crate::event;

/// What callers are allowed.
const ALLOWANCE: Allowance = Allowance { of: "operators' listener", connections: 64, stall: Duration::from_secs(30) };
/// How often an address that cannot be used is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The listener and its connections, in a task of their own.
#[derive(Debug)]
pub struct OperatorListener {
    serving: watch::Sender<Serving>,
    task: JoinHandle<()>,
}

/// What is served, and how.
#[derive(Debug, Clone)]
struct Serving {
    settings: Operator,
    certificates: Certificates,
    /// `None` until the store is open.
    service: Option<Arc<Service>>,
}

impl OperatorListener {
    /// Listens until `stop`. Must be called within a runtime.
    #[must_use]
    pub fn start(settings: &Settings, stop: CancellationToken) -> Self {
        let certificates = Certificates::of(settings);
        let (serving, changes) =
            watch::channel(Serving { settings: settings.operator.clone(), certificates, service: None });
        Self { serving, task: tokio::spawn(run(changes, stop)) }
    }

    /// The store is open: from now on there is more to tell than health.
    pub fn open(&self, service: Arc<Service>) {
        self.serving.send_modify(|serving| serving.service = Some(service));
    }

    /// Goes on with these settings.
    pub fn follow(&self, settings: &Settings) {
        let certificates = Certificates::of(settings);
        self.serving.send_if_modified(|serving| {
            let differs = serving.settings != settings.operator || serving.certificates != certificates;
            serving.settings.clone_from(&settings.operator);
            serving.certificates = certificates;
            differs
        });
    }

    /// Resolves when the task has ended, which it does when it is stopped. Cancel safe.
    pub async fn ended(&mut self) {
        // A task's outcome can be had once only, and a panic is an end too.
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

async fn run(mut changes: watch::Receiver<Serving>, stop: CancellationToken) {
    // Kept while the address stays the same, so that a reload refuses nobody.
    let mut listening = None;
    loop {
        let serving = changes.borrow_and_update().clone();
        let leave = CancellationToken::new();
        let _leave = leave.clone().drop_guard();
        tokio::select! {
            () = serve(serving, &mut listening, &leave) => unreachable!("nobody has asked it to leave"),
            followed = changes.changed() => if followed.is_err() { return },
            () = stop.cancelled() => break,
        }
    }
}

async fn serve(serving: Serving, listening: &mut Option<(SocketAddr, TcpListener)>, leave: &CancellationToken) {
    let Some(address) = serving.settings.listen else {
        *listening = None;
        return std::future::pending().await;
    };
    if listening.as_ref().is_none_or(|(current, _)| *current != address) {
        *listening = None;
        *listening = Some((address, bind(address).await));
    }
    let Some((_, listener)) = listening else { return };
    connections::serve(listener, router(&serving), ALLOWANCE, leave).await;
}

/// Listens at `address` as soon as that can be had.
async fn bind(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%address, "operators' listener");
                return listener;
            }
            Err(error) if !told => {
                error!(
                    message_id = event::LISTENER_CLOSED,
                    %address,
                    %error,
                    "metrics and health cannot be served at this address: choose another one with `[operator] listen`, or free it; it is tried again"
                );
                told = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

fn router(serving: &Serving) -> Router {
    let router = match &serving.service {
        None => Router::new().route("/readyz", get(health::not_yet)).fallback(health::not_yet),
        Some(service) => {
            let metrics =
                Metrics::new(Arc::clone(service), serving.certificates.clone(), serving.settings.tenant_labels);
            let metrics = Router::new().route("/metrics", get(metrics::metrics)).with_state(Arc::new(metrics));
            admin::reading()
                .merge(admin::records_of_tenants())
                .route("/readyz", get(health::readyz))
                .with_state(Arc::clone(service))
                .merge(metrics)
        }
    };
    let token = serving.settings.token.as_ref().map(|(token, _)| token.clone());
    let guard = axum::middleware::from_fn_with_state(Arc::new(Access { token }), access::guard);
    router.route("/healthz", get(health::healthz)).layer(guard)
}
