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
//! **Invariant:** nobody who connects can hold up anything else: connections are bounded, each has seconds to send a
//! request and to take a piece of its answer.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::access::{self, Access};
use super::admin::{self, Service};
use super::health;
use super::metrics::{self, Certificates, Metrics};
use crate::config::{Operator, Settings};
use crate::event;

/// How many callers are connected at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a caller may take to send the head of a request, the time between two requests included.
const HEAD: Duration = Duration::from_secs(15);
/// How long a caller may not take a byte of its answer.
const STALL: Duration = Duration::from_secs(30);
/// How large the head of a request may be.
const HEAD_SIZE: usize = 64 * 1024;
/// How long answers under way have when the settings change or the daemon ends.
const LEAVE: Duration = Duration::from_secs(1);
/// How often an address that cannot be used is tried again, and how long to wait when no connection can be accepted.
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
            () = serve(serving, &mut listening, &leave) => unreachable!("it has no end"),
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
    let router = router(&serving);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, leave) = (router.clone(), leave.clone());
                tokio::spawn(async move {
                    answer(stream, router, leave).await;
                    drop(place);
                });
            }
            // The caller has gone, or there are no file descriptors left.
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
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

/// Answers one caller until it hangs up, stalls, or must leave.
async fn answer(stream: TcpStream, router: Router, leave: CancellationToken) {
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(STALL));
    let stream = TokioIo::new(Box::pin(stream));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_SIZE);
    let mut connection = pin!(http.serve_connection(stream, TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = leave.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(LEAVE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a caller of the operators' listener has gone");
    }
}
