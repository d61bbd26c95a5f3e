//! The operators' listener: health, metrics and the reading half of the admin API over TCP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200: the process answers |
//! | `GET /readyz` | 200, or 503 with what is missing ([`health`]) |
//! | `GET /metrics` | the numbers, for Prometheus ([`metrics`]) |
//! | `GET /api/v1.0/{tenant}/ServiceComms/…` | service health in the form of the retired API ([`servicecomms`](super::servicecomms)) |
//! | `GET /v1/…` | what the [admin socket](super::admin) answers; what changes anything is only there |
//!
//! It listens before the store is open, so that a long start can be told from a hang; until then only health answers.
//! How it listens, [`listener`](super::listener) says; who may ask for what, [`access`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::{self, Access, Channel};
use super::admin::{self, Service};
use super::connections::Allowance;
use super::health;
use super::listener::{Listener, Offer};
use super::metrics::{self, Certificates, Metrics};
use super::public::Shown;
use super::servicecomms::ServiceComms;
use crate::config::{ListenerTls, Operator, Settings};
use crate::tls::Tls;

/// The listener and its connections, in a task of their own.
#[derive(Debug)]
pub struct OperatorListener(Listener<Serving>);

/// What is served, and how.
#[derive(Debug, Clone)]
struct Serving {
    settings: Operator,
    certificates: Certificates,
    /// `None` until the store is open.
    service: Option<Arc<Service>>,
    /// What the customers' listener shows.
    public: Option<Shown>,
    /// Who answers in the old form.
    comms: Option<ServiceComms>,
}

impl OperatorListener {
    /// Listens until `stop`. Must be called within a runtime.
    #[must_use]
    pub fn start(settings: &Settings, stop: CancellationToken) -> Self {
        let certificates = Certificates::of(settings);
        Self(Listener::start(
            Serving { settings: settings.operator.clone(), certificates, service: None, public: None, comms: None },
            stop,
        ))
    }

    /// The settings in effect, with the certificate that is shown now.
    #[must_use]
    pub fn settings(&self) -> Operator {
        self.0.offer().settings.clone()
    }

    /// The store is open: from now on there is more to tell than health.
    pub fn open(&self, service: Arc<Service>, public: Shown, comms: ServiceComms) {
        self.0.change(|serving| {
            serving.service = Some(service);
            serving.public = Some(public);
            serving.comms = Some(comms);
            true
        });
    }

    /// Goes on with these settings.
    pub fn follow(&self, settings: &Settings) {
        let certificates = Certificates::of(settings);
        self.0.change(|serving| {
            let differs = serving.settings != settings.operator || serving.certificates != certificates;
            serving.settings.clone_from(&settings.operator);
            serving.certificates = certificates;
            differs
        });
    }

    /// Resolves when the task has ended, which it does when it is stopped. Cancel safe.
    pub async fn ended(&mut self) {
        self.0.ended().await;
    }
}

impl Offer for Serving {
    const ALLOWANCE: Allowance =
        Allowance { of: "operators' listener", connections: 64, stall: Duration::from_secs(30) };
    const SECTION: &'static str = "operator";
    const MISSED: &'static str = "metrics and health";

    fn listen(&self) -> Option<SocketAddr> {
        self.settings.listen
    }

    fn tls(&self) -> Option<&ListenerTls> {
        self.settings.tls.as_ref()
    }

    fn tls_mut(&mut self) -> Option<&mut ListenerTls> {
        self.settings.tls.as_mut()
    }

    fn is_like(&self, other: &Self) -> bool {
        let rest = |serving: &Self| Operator { tls: None, ..serving.settings.clone() };
        rest(self) == rest(other)
            && self.certificates == other.certificates
            && self.service.as_ref().map(Arc::as_ptr) == other.service.as_ref().map(Arc::as_ptr)
    }

    fn router(&self, shown: Option<watch::Receiver<Tls>>) -> Router {
        let router = match &self.service {
            None => Router::new().route("/readyz", get(health::not_yet)).fallback(health::not_yet),
            Some(service) => {
                let metrics = Metrics {
                    service: Arc::clone(service),
                    certificates: self.certificates.clone(),
                    tls: shown,
                    public: self.public.clone(),
                    tenant_labels: self.settings.tenant_labels,
                };
                let metrics = Router::new().route("/metrics", get(metrics::metrics)).with_state(Arc::new(metrics));
                admin::reading()
                    .merge(admin::records_of_tenants())
                    .route("/readyz", get(health::readyz))
                    .with_state(Arc::clone(service))
                    .merge(metrics)
                    .merge(self.comms.as_ref().map_or_else(Router::new, ServiceComms::routes))
            }
        };
        let token = self.settings.token.as_ref().map(|(token, _)| token.clone());
        let channel = Channel::of(self.settings.tls.as_ref().map(ListenerTls::tls));
        let guard = axum::middleware::from_fn_with_state(Arc::new(Access { token, channel }), access::guard);
        router.route("/healthz", get(health::healthz)).layer(guard)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use rcgen::{CertificateParams, KeyPair};

    use super::super::listener::{another, renew};
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
            Serving {
                certificates: Certificates::of(&settings),
                settings: settings.operator,
                service: None,
                public: None,
                comms: None,
            }
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
            let mut other = pin!(another(&current, &mut changes, Some(&shown)));
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
            assert!(another(&current, &mut changes, Some(&shown)).now_or_never().is_some(), "they must leave");
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
