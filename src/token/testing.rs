//! What the tests of this folder share: keys and certificates that live as long as the test, a tenant's request, and
//! an Entra whose answers a test decides.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::json;
use tokio::time::Instant;
use url::form_urlencoded;

use super::endpoint::{Incoming, Outgoing, Transport, TransportError};
use super::{AppAlarms, Credential, TokenRequest, TokenSource};
use crate::clock::{ServiceTime, SetClock, SharedClock};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::TenantId;
use crate::secret::Secret;

/// A certificate with its key, in PEM.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    /// PKCS#8.
    pub(super) key: String,
    pub(super) public: String,
}

/// A new RSA key of 2048 bits with a self-signed certificate; takes a moment.
pub(super) fn pair(subject: &str) -> Pair {
    with_key(&KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), subject)
}

/// The same pair for every test that does not care which.
pub(super) fn some_pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| pair("some pair"))
}

/// A self-signed certificate for `key`.
pub(super) fn with_key(key: &KeyPair, subject: &str) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    let certificate = params.self_signed(key).unwrap();
    Pair { certificate: certificate.pem(), key: key.serialize_pem(), public: key.public_key_pem() }
}

/// The secret that [`Bench::source`] proves itself with; no output may ever contain it.
pub(super) const SECRET: &str = "hunter2~correct/horse";
/// The bearer tokens that [`granted`] grants begin with this.
pub(super) const TOKEN: &str = "eyJ0b2tlbg";

/// One request as Entra saw it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) path: String,
    pub(super) form: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// What a test's Entra does with a request.
pub(super) enum Reply {
    After(Duration, Incoming),
    Never,
    Broken,
    Panic,
}

type Script = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// An Entra that a test decides about: the script gets the number of the request, from 0, and the request.
pub(super) struct Scripted {
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Transport for Scripted {
    fn post(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, TransportError>> {
        let form = form_urlencoded::parse(outgoing.form.expose().as_bytes()).into_owned().collect();
        let request = Seen { at: Instant::now(), path: outgoing.url.path().to_owned(), form };
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let reply = (self.script)(number, &request);
        Box::pin(async move {
            match reply {
                Reply::After(latency, incoming) => {
                    tokio::time::sleep(latency).await;
                    Ok(incoming)
                }
                Reply::Never => std::future::pending().await,
                Reply::Broken => Err(TransportError::TooLong),
                Reply::Panic => panic!("the test asked for it"),
            }
        })
    }
}

/// A token for `life` seconds, after a tenth of a second.
pub(super) fn granted(life: u64) -> Reply {
    answered(200, &json!({"token_type": "Bearer", "expires_in": life, "access_token": format!("{TOKEN}.{life}")}))
}

/// A refusal with this code.
pub(super) fn refused(code: u32) -> Reply {
    answered(
        401,
        &json!({"error": "invalid_client", "error_codes": [code], "error_description": format!("AADSTS{code}: no"),
                "correlation_id": "c0ffee", "trace_id": "7ace"}),
    )
}

/// Any JSON.
pub(super) fn answered(status: u16, body: &serde_json::Value) -> Reply {
    let incoming = Incoming { status, body: body.to_string().into_bytes().into(), ..Incoming::default() };
    Reply::After(Duration::from_millis(100), incoming)
}

/// Everything that a source needs, shared by the sources of one test.
pub(super) struct Bench {
    pub(super) clock: Arc<SetClock>,
    pub(super) time: Arc<ServiceTime>,
    pub(super) apps: Arc<AppAlarms>,
    pub(super) entra: Arc<Scripted>,
}

impl Bench {
    pub(super) fn new(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let clock = SetClock::new("2026-11-22T12:00:00Z".parse().unwrap());
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let entra = Scripted { seen: Mutex::default(), script: Box::new(script) };
        Self { clock, time: Arc::new(ServiceTime::new(shared)), apps: AppAlarms::new(), entra: Arc::new(entra) }
    }

    /// The source of tenant number `tenant`, with a client secret.
    pub(super) fn source(&self, tenant: u8) -> TokenSource {
        self.source_with(tenant, Credential::Secret(Secret::from(SECRET.to_owned())))
    }

    pub(super) fn source_with(&self, tenant: u8, credential: Credential) -> TokenSource {
        let request = request(tenant, credential);
        let transport = Arc::clone(&self.entra) as Arc<dyn Transport>;
        let clock = Arc::clone(&self.clock) as SharedClock;
        TokenSource::with_transport(request, transport, clock, Arc::clone(&self.time), &self.apps)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.entra.seen.lock().unwrap().clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.entra.seen.lock().unwrap().len()
    }

    /// The times between one request and the next.
    pub(super) fn gaps(&self) -> Vec<Duration> {
        self.seen().windows(2).map(|two| two[1].at - two[0].at).collect()
    }
}

/// Tenant number `tenant`'s request.
pub(super) fn request(tenant: u8, credential: Credential) -> TokenRequest {
    let cloud = Arc::new(Cloud::preset("worldwide").unwrap());
    TokenRequest {
        audience: cloud.audience().to_owned(),
        cloud,
        tenant: TenantId::from_bytes([tenant; 16]),
        endpoint: TokenEndpoint::V2,
        app: String::new(),
        client_id: "client".to_owned(),
        credential,
        renew_after: Duration::from_mins(45),
    }
}

/// A source for whoever uses one, whose Entra grants every request or refuses it with a code, and how many there were.
pub(crate) fn source(refusing: Option<u32>) -> (TokenSource, impl Fn() -> usize) {
    let bench = Bench::new(move |_, _| refusing.map_or_else(|| granted(3600), refused));
    (bench.source(1), move || bench.requests())
}

/// What is written to the log at `level` and above on this thread, until the guard is dropped.
pub(super) fn listening(level: tracing::Level) -> (Lines, impl Drop) {
    struct Listening {
        _ours: tracing::subscriber::DefaultGuard,
        _second: tracing::Dispatch,
    }
    impl Drop for Listening {
        fn drop(&mut self) {}
    }
    // With one dispatcher in the process, tracing lets whichever thread meets a log line first decide whether anyone
    // is interested, and other tests' threads are not. A second one makes it ask both.
    let second = tracing::Dispatch::new(tracing_subscriber::registry());
    let lines = Lines::default();
    let ours = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(lines.clone()).finish();
    (lines, Listening { _ours: tracing::subscriber::set_default(ours), _second: second })
}

/// Log lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
