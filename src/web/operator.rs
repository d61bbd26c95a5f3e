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
//! With a certificate it speaks TLS ([`tls`]). A renewed one is shown to whoever connects from then on, and ends no
//! connection; other CAs for callers do. New files that cannot be used are an error line, and the old certificate stays.
//!
//! **Invariant:** nobody who connects can hold up anything else ([`connections`]).

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::access::{self, Access, Channel};
use super::admin::{self, Service};
use super::connections::{self, Allowance};
use super::health;
use super::metrics::{self, Certificates, Metrics};
use super::tls::{self, Renewal};
use crate::config::{ListenerTls, Operator, Settings};
use crate::event;
use crate::tls::Tls;

/// What callers are allowed.
const ALLOWANCE: Allowance = Allowance { of: "operators' listener", connections: 64, stall: Duration::from_secs(30) };
/// How often an address that cannot be used is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The listener and its connections, in a task of their own.
#[derive(Debug)]
pub struct OperatorListener {
    serving: Arc<watch::Sender<Serving>>,
    task: AbortOnDropHandle<()>,
}

/// What is served, and how.
#[derive(Debug, Clone)]
struct Serving {
    settings: Operator,
    certificates: Certificates,
    /// `None` until the store is open.
    service: Option<Arc<Service>>,
}

impl Serving {
    /// Whether callers can notice no difference but the certificate that is shown.
    fn differs_by_certificate_only(&self, new: &Self) -> bool {
        let demands = |serving: &Self| serving.settings.tls.as_ref().map(|tls| tls.tls().authorities().cloned());
        let rest = |serving: &Self| Operator { tls: None, ..serving.settings.clone() };
        demands(self) == demands(new)
            && rest(self) == rest(new)
            && self.certificates == new.certificates
            && self.service.as_ref().map(Arc::as_ptr) == new.service.as_ref().map(Arc::as_ptr)
    }
}

impl OperatorListener {
    /// Listens until `stop`. Must be called within a runtime.
    #[must_use]
    pub fn start(settings: &Settings, stop: CancellationToken) -> Self {
        let certificates = Certificates::of(settings);
        let serving = Serving { settings: settings.operator.clone(), certificates, service: None };
        let serving = Arc::new(watch::Sender::new(serving));
        let task = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&serving), stop)));
        Self { serving, task }
    }

    /// The settings in effect, with the certificate that is shown now.
    #[must_use]
    pub fn settings(&self) -> Operator {
        self.serving.borrow().settings.clone()
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

async fn run(serving: Arc<watch::Sender<Serving>>, stop: CancellationToken) {
    let mut changes = serving.subscribe();
    let mut renewals = pin!(renewals(&serving));
    // Kept while the address stays the same, so that a reload refuses nobody.
    let mut listening = None;
    loop {
        let current = changes.borrow_and_update().clone();
        let shown = current.settings.tls.as_ref().map(|tls| watch::Sender::new(tls.tls().clone()));
        let leave = CancellationToken::new();
        let _leave = leave.clone().drop_guard();
        tokio::select! {
            () = serve(&current, shown.as_ref(), &mut listening, &leave) => unreachable!("nobody has asked it to leave"),
            () = other_settings(&current, &mut changes, shown.as_ref()) => {}
            () = &mut renewals => unreachable!("they have no end"),
            () = stop.cancelled() => break,
        }
    }
}

async fn serve(
    serving: &Serving,
    shown: Option<&watch::Sender<Tls>>,
    listening: &mut Option<(SocketAddr, TcpListener)>,
    leave: &CancellationToken,
) {
    let Some(address) = serving.settings.listen else {
        *listening = None;
        return std::future::pending().await;
    };
    if listening.as_ref().is_none_or(|(current, _)| *current != address) {
        *listening = None;
        *listening = Some((address, bind(address).await));
    }
    let Some((_, listener)) = listening else { return };
    let shown = shown.map(watch::Sender::subscribe);
    connections::serve(listener, shown.as_ref(), router(serving, shown.clone()), ALLOWANCE, leave).await;
}

/// Resolves when there are settings by which `current` connections cannot go on. A certificate is no such setting: it is
/// `shown` to whoever comes.
async fn other_settings(current: &Serving, changes: &mut watch::Receiver<Serving>, shown: Option<&watch::Sender<Tls>>) {
    while changes.changed().await.is_ok() {
        let new = changes.borrow_and_update().clone();
        match (shown, &new.settings.tls) {
            (Some(shown), Some(tls)) if current.differs_by_certificate_only(&new) => {
                shown.send_replace(tls.tls().clone());
            }
            _ => return,
        }
    }
}

/// Goes on with what the certificate's files hold whenever they have changed, and tells it.
async fn renewals(serving: &watch::Sender<Serving>) {
    let mut renewal = Renewal::default();
    // They are tried again, which is no news as long as the cause is the same.
    let mut told = None;
    let mut looks = interval(tls::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(current) = serving.borrow().settings.tls.clone() else { continue };
        match renewal.look(&current).await {
            Some(Ok((read, warnings))) => {
                for warning in warnings {
                    warn!(message_id = event::SETTING_WARNING, "{warning}");
                }
                renew(serving, read);
                told = None;
            }
            Some(Err(problems)) => {
                let problems = problems.to_string().replace('\n', "; ");
                if told.as_ref() != Some(&problems) {
                    error!(
                        message_id = event::LISTENER_CERTIFICATE_REFUSED,
                        "the operators' listener keeps the certificate that it has, until what changed is mended: {problems}"
                    );
                    told = Some(problems);
                }
            }
            None => {}
        }
    }
}

/// Goes on with what was read, unless a reload has turned to other files meanwhile.
fn renew(serving: &watch::Sender<Serving>, read: ListenerTls) {
    serving.send_if_modified(|serving| {
        let Some(tls) = serving.settings.tls.as_mut().filter(|tls| tls.has_files_of(&read)) else { return false };
        let differs = *tls != read;
        if differs {
            let certificate = read.tls().certificate();
            info!(
                certificate = certificate.subject(),
                expires = %certificate.not_after(),
                "the operators' listener goes on with the certificates that its files hold now"
            );
        }
        *tls = read;
        differs
    });
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

fn router(serving: &Serving, shown: Option<watch::Receiver<Tls>>) -> Router {
    let router = match &serving.service {
        None => Router::new().route("/readyz", get(health::not_yet)).fallback(health::not_yet),
        Some(service) => {
            let metrics = Metrics {
                service: Arc::clone(service),
                certificates: serving.certificates.clone(),
                tls: shown,
                tenant_labels: serving.settings.tenant_labels,
            };
            let metrics = Router::new().route("/metrics", get(metrics::metrics)).with_state(Arc::new(metrics));
            admin::reading()
                .merge(admin::records_of_tenants())
                .route("/readyz", get(health::readyz))
                .with_state(Arc::clone(service))
                .merge(metrics)
        }
    };
    let token = serving.settings.token.as_ref().map(|(token, _)| token.clone());
    let channel = Channel::of(serving.settings.tls.as_ref().map(ListenerTls::tls));
    let guard = axum::middleware::from_fn_with_state(Arc::new(Access { token, channel }), access::guard);
    router.route("/healthz", get(health::healthz)).layer(guard)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config;

    struct Files(tempfile::TempDir);

    impl Files {
        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.0.path().join(name), content).unwrap();
        }

        /// A certificate with its key under this name.
        fn renew(&self, name: &str) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            self.write(name, &[certificate.pem(), key.serialize_pem()].concat());
        }

        fn serving(&self) -> Serving {
            let none: [(std::ffi::OsString, std::ffi::OsString); 0] = [];
            let settings = config::load_with(&self.0.path().join("t.toml"), none).unwrap();
            Serving { certificates: Certificates::of(&settings), settings: settings.operator, service: None }
        }
    }

    #[tokio::test]
    async fn a_renewed_certificate_disturbs_nobody_and_everything_else_does() {
        let files = Files(tempfile::tempdir().unwrap());
        let config =
            "[operator]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"l.pem\"\nclient_ca_file = \"ca.pem\"\n";
        files.write("t.toml", config);
        files.renew("l.pem");
        files.renew("ca.pem");
        let current = files.serving();
        let tls = |serving: &Serving| serving.settings.tls.as_ref().unwrap().tls().clone();
        let (sender, mut changes) = watch::channel(current.clone());
        let shown = watch::Sender::new(tls(&current));

        files.renew("l.pem");
        let renewed = files.serving();
        {
            let mut other = pin!(other_settings(&current, &mut changes, Some(&shown)));
            sender.send_replace(renewed.clone());
            assert!(other.as_mut().now_or_never().is_none(), "they stay connected");
            assert_eq!(*shown.borrow(), tls(&renewed));
            assert_ne!(tls(&renewed), tls(&current));
        }
        files.renew("ca.pem");
        let demanding = files.serving();
        files.write("t.toml", &format!("{config}tenant_labels = 7\n"));
        for serving in [demanding, files.serving()] {
            sender.send_replace(serving);
            assert!(other_settings(&current, &mut changes, Some(&shown)).now_or_never().is_some(), "they must leave");
        }
    }

    #[test]
    fn what_was_read_from_files_that_a_reload_has_left_is_dropped() {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("t.toml", "[operator]\ncertificate_file = \"l.pem\"\n");
        files.renew("l.pem");
        files.renew("other.pem");
        let old = files.serving().settings.tls.unwrap();
        let serving = watch::Sender::new(files.serving());
        let mut changes = serving.subscribe();
        renew(&serving, old.read_again().unwrap().0);
        assert!(!changes.has_changed().unwrap(), "nothing is new");
        files.renew("l.pem");
        renew(&serving, old.read_again().unwrap().0);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        files.write("t.toml", "[operator]\ncertificate_file = \"other.pem\"\n");
        serving.send_replace(files.serving());
        changes.mark_unchanged();
        renew(&serving, old);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(serving.borrow().settings, files.serving().settings);
    }
}
