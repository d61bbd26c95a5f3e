//! The validated configuration: what the rest of the crate works with.
//!
//! **Invariant:** an invalid `Settings` is not built by [`load`](super::load): names lead to things that exist,
//! hosts are safe to send a token to, spans are what the service can answer. A reload compares values by `==`;
//! credentials are compared by thumbprint or secret, not by the file that they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::{ListenerTls, Network, Origin, Problem};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::{ContentType, TenantId, WHOLE_AFTER};
use crate::language::Language;
pub use crate::logging::LogFormat;
use crate::secret::Secret;
use crate::store::Keep;
use crate::token::Credential;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// For how long the service keeps content ("List available content", activity API reference).
pub(super) const KEPT_BY_SERVICE: Duration = Duration::from_hours(7 * 24);

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The app registrations by name; `""` is `[app]`, the others are `[apps.NAME]`.
    pub apps: BTreeMap<String, Arc<App>>,
    /// The tenants of all files.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// The presets and the `[clouds.NAME]` with hosts of their own.
    pub clouds: BTreeMap<String, Arc<Cloud>>,
    /// `[network]`.
    pub network: Network,
    /// `[token]`.
    pub token: TokenSettings,
    /// `[collect]`.
    pub collect: Collect,
    /// `[dlp]`.
    pub dlp: Dlp,
    /// `[health]`.
    pub health: Health,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[log]`.
    pub log: Log,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[operator]`.
    pub operator: Operator,
    /// `[public]`.
    pub public: Public,
    /// The apps that the tenants of a cloud use unless they name one.
    pub cloud_apps: BTreeMap<String, String>,
    /// The files that were read, in order.
    pub sources: Vec<PathBuf>,
    /// The variables that were read after them.
    pub variables: BTreeSet<String>,
    /// What can be used but should be looked at. What depends on the time of day, such as a certificate's expiry,
    /// is not here but in [`Settings::expiries`].
    pub warnings: Vec<Problem>,
}

/// An app registration in Entra.
#[derive(Debug, Clone)]
pub struct App {
    /// `""` for `[app]`.
    pub name: String,
    /// The application (client) id.
    pub client_id: String,
    /// What requests carry as `PublisherIdentifier`; the tenant's own id if `None`.
    pub publisher_id: Option<Uuid>,
    /// How it proves who it is.
    pub credential: Credential,
    /// The files that the credential was read from, in order.
    pub files: Vec<CredentialFile>,
    /// The keys that the platform's variables filled in, and their names.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// A file that a credential was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFile {
    /// The key that names it.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// The SHA-256 thumbprint of the certificate in it.
    pub certificate: Option<String>,
}

impl CredentialFile {
    pub(super) const fn new(key: &'static str, path: PathBuf) -> Self {
        Self { key, path, certificate: None }
    }
}

impl App {
    /// The section that describes it: `app` or `apps.NAME`.
    #[must_use]
    pub fn section(&self) -> String {
        if self.name.is_empty() { "app".to_owned() } else { format!("apps.{}", self.name) }
    }
}

/// The files do not count: a certificate that was moved is still the same.
impl PartialEq for App {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.client_id == other.client_id
            && self.publisher_id == other.publisher_id
            && self.credential == other.credential
    }
}

impl Eq for App {}

/// A tenant to collect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its directory id.
    pub id: TenantId,
    /// What logs and tables call it; the id unless the configuration names it.
    pub name: String,
    /// A key of [`Settings::apps`].
    pub app: String,
    /// Where it lives.
    pub cloud: Arc<Cloud>,
    /// What is collected; never empty.
    pub content_types: BTreeSet<ContentType>,
    /// Whether it is collected at all.
    pub enabled: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// The line of the file that names it.
    pub line: Option<usize>,
}

/// `[token]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSettings {
    /// Which of Entra's token endpoints is asked.
    pub endpoint: TokenEndpoint,
    /// A token is renewed this long after it was issued, or earlier if it lives shorter.
    pub renew_after: Duration,
}

impl Default for TokenSettings {
    /// 45 minutes is what "Get started with Office 365 Management APIs" advises.
    fn default() -> Self {
        Self { endpoint: TokenEndpoint::V2, renew_after: 45 * MINUTE }
    }
}

/// `[collect]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collect {
    /// How often the newest content is listed.
    pub poll_interval: Duration,
    /// How much of what was listed before each poll lists again.
    pub overlap: Duration,
    /// How often the recent span is listed again.
    pub recent_interval: Duration,
    /// How far back it reaches.
    pub recent_span: Duration,
    /// How often all that the service still keeps is listed again.
    pub sweep_interval: Duration,
    /// How far back a new tenant starts.
    pub backfill: Duration,
    /// How many blobs of one tenant are retrieved at once, at most.
    pub concurrency_per_tenant: usize,
    /// How many blobs are retrieved at once in all, at most.
    pub concurrency: usize,
    /// The largest blob that is accepted, in bytes after decompression.
    pub max_blob_bytes: u64,
}

impl Collect {
    /// How long after its `contentCreated` a blob that was fetched sooner is looked at again. No sweep is as near as that,
    /// save on loopback, where what waits for it need not take minutes.
    #[must_use]
    pub fn whole_after(&self) -> Duration {
        WHOLE_AFTER.min(self.sweep_interval)
    }
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            poll_interval: MINUTE,
            overlap: 10 * MINUTE,
            recent_interval: 15 * MINUTE,
            recent_span: 3 * HOUR,
            sweep_interval: 6 * HOUR,
            backfill: 7 * DAY,
            concurrency_per_tenant: 8,
            concurrency: 64,
            max_blob_bytes: 4 << 30,
        }
    }
}

/// `[dlp]`: what the sensitive information types are called that records of `DLP.All` name by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dlp {
    /// The languages in which the names are fetched, without repetition; the first one is that of an export that names none.
    pub languages: Vec<Language>,
    /// How often they are fetched.
    pub refresh_interval: Duration,
}

impl Default for Dlp {
    fn default() -> Self {
        Self { languages: vec![Language::default()], refresh_interval: DAY }
    }
}

/// `[health]`: the state of Microsoft 365's services, and the Message Center.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Whether it is collected.
    pub enabled: bool,
    /// How often what has changed is listed.
    pub poll_interval: Duration,
    /// How far back before the last listing each one reaches.
    pub overlap: Duration,
    /// How often all that Graph still lists is listed again.
    pub sweep_interval: Duration,
}

impl Default for Health {
    /// Off: it needs roles of Microsoft Graph that customers have to consent to.
    fn default() -> Self {
        Self { enabled: false, poll_interval: 5 * MINUTE, overlap: HOUR, sweep_interval: 7 * DAY }
    }
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The directory that holds what was collected.
    pub path: PathBuf,
    /// A new partition is started when one has this many bytes on disk.
    pub partition_bytes: u64,
    /// Nothing is retrieved while its file system has less than this many bytes left.
    pub reserve_bytes: u64,
    /// What is kept of what was stored.
    pub keep: Keep,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/tenantry"),
            partition_bytes: 2 << 30,
            reserve_bytes: 1 << 30,
            keep: Keep::default(),
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where the log goes and what it looks like.
    pub format: LogFormat,
    /// A `tracing` filter directive.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// How long an orderly stop may take.
    pub drain: Duration,
    /// The admin socket, if it is not where [`Settings::admin_socket`] puts it.
    pub socket: Option<PathBuf>,
    /// The first requests of all tenants are spread over this long, at most.
    pub start_spread: Duration,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { drain: Duration::from_secs(20), socket: None, start_spread: MINUTE }
    }
}

/// `[operator]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Where metrics, health and the admin API are served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// What a caller must show, and the file that it stands in.
    pub token: Option<(Secret, PathBuf)>,
    /// How it speaks TLS; `None` for plain HTTP.
    pub tls: Option<ListenerTls>,
    /// How many tenants have metrics of their own, at most.
    pub tenant_labels: usize,
}

impl Default for Operator {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))), token: None, tls: None, tenant_labels: 200 }
    }
}

/// `[public]`: where customers consent, and Microsoft notifies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Public {
    /// Where the pages are served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Scheme and host under which customers open them, and to which Microsoft sends them back.
    pub url: Option<Url>,
    /// How they are served over TLS; `None` for plain HTTP.
    pub tls: Option<ListenerTls>,
    /// Who asks for consent, as customers know them.
    pub organisation: Option<String>,
    /// Whom customers can ask.
    pub contact: Option<String>,
    /// How consent is asked for.
    pub flow: ConsentFlow,
    /// What proves that a notification is one that we have asked for, and the file that it stands in; with it, Microsoft
    /// is asked to notify of new content.
    pub webhook_key: Option<(Secret, PathBuf)>,
}

/// How consent is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsentFlow {
    /// A sign-in that tells whose administrator this is, then admin consent at that very tenant.
    #[default]
    V2,
    /// The form of Microsoft's 2019 page: one authorization request that asks for the administrator's consent too.
    V1,
}

/// A reload that would remove suspiciously many tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the new configuration has {removed} of {before} tenants less; if that is meant, say `tenantry reload --allow-removal`"
)]
pub struct Removal {
    /// How many tenants would go.
    pub removed: usize,
    /// How many there are.
    pub before: usize,
}

impl Settings {
    /// Refuses to go on to these settings from `current` if more than 10 tenants and more than 10 % of them would
    /// be gone: a file that is missing or cut short looks like that.
    pub fn removal_guard(&self, current: &Self) -> Result<(), Removal> {
        let before = current.tenants.len();
        let removed = current.tenants.keys().filter(|id| !self.tenants.contains_key(id)).count();
        if removed > 10 && removed * 10 > before { Err(Removal { removed, before }) } else { Ok(()) }
    }

    /// The keys whose new value only a restart applies; the others take effect with a reload.
    #[must_use]
    pub fn needs_restart(&self, current: &Self) -> Vec<&'static str> {
        [
            ("store.path", self.store.path != current.store.path),
            ("store.partition_size", self.store.partition_bytes != current.store.partition_bytes),
            ("log.format", self.log.format != current.log.format),
            ("daemon.socket", self.admin_socket() != current.admin_socket()),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// These settings as a reload puts them in effect over `current`: what only a restart applies is as it was, so that
    /// the next reload names it again.
    #[must_use]
    pub fn keep_what_needs_restart(mut self, current: &Self) -> Self {
        self.daemon.socket = Some(current.admin_socket());
        self.store.path.clone_from(&current.store.path);
        self.store.partition_bytes = current.store.partition_bytes;
        self.log.format = current.log.format;
        self
    }

    /// The socket that the command line talks to the daemon through.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.store, self.daemon.socket.as_deref())
    }
}

/// Where the admin socket is: the configured one; else in `/run/tenantry` for the store at its default place, which is how
/// the packages install it; else in the store's directory. Both sides follow the same rule, so that they meet without
/// either being told.
pub(super) fn admin_socket(store: &StoreSettings, configured: Option<&Path>) -> PathBuf {
    match configured {
        Some(path) => path.to_owned(),
        None if store.path == StoreSettings::default().path => Path::new("/run/tenantry/admin.sock").into(),
        None => store.path.join("admin.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(tenants: u8) -> Settings {
        let cloud = Arc::new(Cloud::preset("worldwide").unwrap());
        let tenant = |n| Tenant {
            id: TenantId::from_bytes([n; 16]),
            name: n.to_string(),
            app: String::new(),
            cloud: cloud.clone(),
            content_types: ContentType::AUDIT.into(),
            enabled: true,
            origin: Origin::File(PathBuf::from("t.toml")),
            line: None,
        };
        Settings {
            apps: BTreeMap::new(),
            tenants: (1..=tenants).map(tenant).map(|tenant| (tenant.id, tenant)).collect(),
            clouds: BTreeMap::new(),
            network: Network::default(),
            token: TokenSettings::default(),
            collect: Collect::default(),
            dlp: Dlp::default(),
            health: Health::default(),
            store: StoreSettings::default(),
            log: Log::default(),
            daemon: Daemon::default(),
            operator: Operator::default(),
            public: Public::default(),
            cloud_apps: BTreeMap::new(),
            sources: Vec::new(),
            variables: BTreeSet::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_removal_is_suspicious_above_ten_tenants_and_ten_percent() {
        for (before, after, refused) in [
            (11, 0, true),
            (10, 0, false),
            (111, 100, false),
            (110, 99, false),
            (109, 98, true),
            (100, 100, false),
            (0, 5, false),
        ] {
            let guard = settings(after).removal_guard(&settings(before));
            assert_eq!(guard.is_err(), refused, "{before} to {after}: {guard:?}");
        }
        assert_eq!(
            settings(0).removal_guard(&settings(20)).unwrap_err().to_string(),
            "the new configuration has 20 of 20 tenants less; if that is meant, say `tenantry reload --allow-removal`"
        );
    }

    #[test]
    fn the_socket_follows_the_store_unless_it_is_named() {
        let mut settings = settings(0);
        assert_eq!(settings.admin_socket(), Path::new("/run/tenantry/admin.sock"));
        settings.store.path = "/data".into();
        assert_eq!(settings.admin_socket(), Path::new("/data/admin.sock"));
        settings.daemon.socket = Some("/tmp/s".into());
        assert_eq!(settings.admin_socket(), Path::new("/tmp/s"));
    }

    #[test]
    fn what_a_reload_cannot_apply_is_named() {
        let old = settings(0);
        let mut new = settings(3);
        new.collect.poll_interval = HOUR;
        assert_eq!(new.needs_restart(&old), <[&str; 0]>::default());
        new.store.path = "/data".into();
        new.log.level = "debug".to_owned();
        assert_eq!(new.needs_restart(&old), ["store.path", "daemon.socket"]);
    }
}
