//! What a simulated cloud holds when it starts: apps, tenants, their content, the service's habits and faults.
//!
//! A scenario is plain data (JSON through serde, every field optional) with builder methods for Rust. Everything
//! random is derived from [`Scenario::seed`]: the same scenario offers the same records, ids and faults, apart from
//! times, which are relative to the moment of the start.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::content_type::ContentType;
use crate::faults::{Fault, Throttle};

mod build;
mod identity;

pub use identity::{
    CONSUMERS, ConsentError, Federated, Forgery, Issuer, Jwk, ManagedIdentity, PERSONAL_ACCOUNT, Person, Replication,
    TOKEN_EXCHANGE,
};

/// Role of the Management APIs that every reader needs ("Get started with Office 365 Management APIs").
pub const ACTIVITY_READ: &str = "ActivityFeed.Read";
/// Role that `DLP.All` needs in addition.
pub const ACTIVITY_READ_DLP: &str = "ActivityFeed.ReadDlp";

/// A simulated cloud as it starts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Source of everything random.
    pub seed: u64,
    /// App registrations.
    pub apps: Vec<App>,
    /// Tenants with their content.
    pub tenants: Vec<Tenant>,
    /// The token endpoint's settings.
    pub entra: Entra,
    /// The Activity API's settings.
    pub service: Service,
    /// Those whose tokens apps may trust ([`App::federated`]), besides this cloud itself.
    pub issuers: Vec<Issuer>,
    /// The managed identities of the machine that asks the metadata service, or of the app that asks App Service.
    pub managed_identities: Vec<ManagedIdentity>,
    /// What App Service wants to see in `X-IDENTITY-HEADER`; empty: `simulated`.
    pub identity_header: String,
    /// Whether authority and management host are two hosts, each with its own port; then the only audience of the
    /// management host is [`Service::audience`].
    pub apart: bool,
    /// Faults from the start; more can be added while running.
    pub faults: Vec<Fault>,
    /// Memory, in MiB, for bodies generated and compressed before the cloud starts to listen, so that serving costs
    /// next to nothing. Compressed size counts: 1 GB of JSON needs about 200. What does not fit is made on demand.
    pub precompress_mib: u32,
}

/// An app registration: what Entra knows about a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Application (client) id.
    pub client_id: Uuid,
    /// Certificates whose public keys are uploaded.
    #[serde(default)]
    pub certificates: Vec<Der>,
    /// Client secrets.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Accepted signature algorithms of client assertions.
    #[serde(default = "both_algorithms")]
    pub algorithms: Vec<String>,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Where people may be sent back to, to the letter.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// The application permissions that it asks for, Microsoft Graph's included.
    #[serde(default = "both_roles")]
    pub required_roles: Vec<String>,
    /// The tenant that it is registered in, if it is for that one only.
    #[serde(default)]
    pub only_in: Option<Uuid>,
    /// Whether personal accounts may sign in too.
    #[serde(default)]
    pub personal_accounts: bool,
    /// Whose tokens it takes in place of an assertion.
    #[serde(default)]
    pub federated: Vec<Federated>,
}

/// A DER-encoded X.509 certificate; base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

/// A client secret of an app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The value the client sends.
    pub value: String,
    /// Whether it has run out (AADSTS7000222).
    #[serde(default)]
    pub expired: bool,
}

/// A tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Directory (tenant) id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// Initial domain; people and mailboxes are named under it.
    pub domain: String,
    /// Those who can sign in; empty: one administrator, `admin@` the domain.
    #[serde(default)]
    pub people: Vec<Person>,
    /// Apps an administrator has consented to, with the granted roles. `None`: every app, with both roles.
    #[serde(default)]
    pub consents: Option<Vec<Consent>>,
    /// Content by type.
    #[serde(default)]
    pub feeds: Vec<Feed>,
    /// Whether unified audit logging is on; if not, starting a subscription fails.
    #[serde(default = "yes")]
    pub audit_log: bool,
    /// Content types whose subscription is enabled from the start.
    #[serde(default)]
    pub subscribed: Vec<ContentType>,
    /// Requests a minute before AF429; `None`: the service's default.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
}

/// One app's roles in one tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The app.
    pub client_id: Uuid,
    /// The granted roles; may be empty.
    pub roles: Vec<String>,
}

/// The content of one type in one tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Which type.
    pub content_type: ContentType,
    /// Blobs that exist at the start.
    #[serde(default)]
    pub backlog: u32,
    /// Days before the start over which the backlog is spread.
    #[serde(default = "one")]
    pub backlog_days: f64,
    /// A new blob every so many milliseconds while the cloud runs.
    #[serde(default)]
    pub live_every_ms: Option<u64>,
    /// Fewest and most records of a blob.
    #[serde(default = "few_records")]
    pub records: (u32, u32),
    /// Body size to aim at, in bytes of JSON, instead of `records`.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// Departures from the tidy case.
    #[serde(default)]
    pub quirks: Quirks,
}

/// What may be odd about the blobs of a feed. Shares are between 0 and 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// Share of blobs that can be listed only `late_hours` after their `contentCreated`.
    pub late: f64,
    /// See `late`.
    pub late_hours: f64,
    /// New blobs can be listed only up to this long after their `contentCreated` (uniformly distributed), so that a
    /// window listed at once is incomplete.
    pub listed_within_ms: u64,
    /// A blob fetched less than this long after its `contentCreated` has fewer records than later.
    pub partial_for_ms: u64,
    /// Share of blobs that stand for a range of time of `range_ms` up to their `contentCreated`. A window that begins or
    /// ends inside the range lists a part of the blob under another id. (Other collectors have found that the service
    /// answers so when a listing starts at the time that a blob was created.)
    pub ranges: f64,
    /// See `ranges`.
    pub range_ms: u64,
    /// Share of records that repeat one of an earlier blob of the feed, `Id` and all.
    pub duplicates: f64,
    /// Share of blobs with a record whose `OrganizationId` is another tenant's.
    pub foreign_organization: f64,
    /// Share of blobs whose `contentCreated` is that of the blob before.
    pub same_instant: f64,
    /// Share of blobs with a record that carries `"TenantryFaultPoint":"panic"`.
    pub fault_point: f64,
    /// Share of the backlog that expires `expires_in_ms` after the start.
    pub expiring: f64,
    /// See `expiring`.
    pub expires_in_ms: u64,
}

/// The token endpoint's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entra {
    /// Lifetime of access tokens, in seconds.
    pub lifetime_s: u64,
    /// `refresh_in` of the v2 answer, in seconds.
    pub refresh_in_s: Option<u64>,
    /// Tolerance for the times in assertions, in seconds.
    pub leeway_s: u64,
    /// Further authority hosts (as `https://host`) that assertions may name in `aud`.
    pub authorities: Vec<String>,
    /// Lifetime of authorization codes, in seconds ("Authorization codes are short lived, typically expiring after about
    /// 10 minutes").
    pub code_lifetime_s: u64,
    /// Whether the v1 endpoint signs its `id_token`s. The documentation of that endpoint shows one that is not signed.
    pub v1_signs: bool,
    /// Whether `id_token`s say which administrator roles somebody has (`wids`).
    pub wids: bool,
    /// What is wrong with the `id_token`s.
    pub forgery: Option<Forgery>,
    /// How a refused admin consent comes back.
    pub consent_error: ConsentError,
    /// How long a consent takes to be known everywhere, in milliseconds.
    pub replication_ms: u64,
    /// How it shows meanwhile.
    pub replication: Replication,
}

impl Default for Entra {
    fn default() -> Self {
        Self {
            lifetime_s: 3599,
            refresh_in_s: None,
            leeway_s: 300,
            authorities: Vec::new(),
            code_lifetime_s: 600,
            v1_signs: false,
            wids: false,
            forgery: None,
            consent_error: ConsentError::default(),
            replication_ms: 0,
            replication: Replication::default(),
        }
    }
}

/// When bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gzip {
    /// If the client says it accepts gzip.
    #[default]
    WhenAccepted,
    /// Not at all.
    Never,
}

/// What happens when the tenant in the path is not the token's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantMismatch {
    /// AF20010, as documented.
    #[default]
    Refuse,
    /// The token's tenant is served, as other collectors have found.
    ServeTokenTenant,
}

/// The Activity API's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a settings file")]
pub struct Service {
    /// The audience that tokens must have; a cloud of one host takes its own URL too.
    pub audience: String,
    /// Entries of a listing page.
    pub page_size: usize,
    /// Header that carries the next page's address, spelled exactly so.
    pub next_page_header: String,
    /// Whether next-page links are rewritten as seen in practice: lower-case names, times with seven fraction digits,
    /// no `PublisherIdentifier`. If not, they look like the reference's sample (still without `PublisherIdentifier`).
    pub rewritten_next_page: bool,
    /// Compression of bodies.
    pub gzip: Gzip,
    /// The `PublisherIdentifier` every request should carry; `None`: any.
    pub publisher: Option<Uuid>,
    /// Requests a minute that all requests without `PublisherIdentifier` share.
    pub unidentified_per_minute: Option<u32>,
    /// Requests a minute and tenant, unless the tenant says otherwise.
    pub requests_per_minute: Option<u32>,
    /// How exceeding a budget is answered.
    pub throttle: Throttle,
    /// Wait between two starts of a subscription, in seconds ("Start a subscription": 15 minutes).
    pub start_cooldown_s: u64,
    /// How a start within the cool-down is answered: true is a 403 with code `429`, false a 429.
    pub cooldown_as_403: bool,
    /// For how many milliseconds a subscription that is started after it was stopped or disabled is enabled in name only:
    /// it is listed as enabled, a start finds it so, and its content is refused with AF20023.
    pub limp_after_restart_ms: u64,
    /// How much older than 7 days a start time is tolerated, in seconds. The service was found to allow an hour.
    pub window_grace_s: u64,
    /// Whether a window of more than 24 hours gives partial results (its first 24 hours) instead of an error.
    pub long_windows_partial: bool,
    /// What happens when the tenant in the path is not the token's.
    pub tenant_mismatch: TenantMismatch,
    /// Whether `subscriptions/list` leaves out `status` where it can, as the reference's sample does.
    pub sparse_list: bool,
    /// Milliseconds by which the service's time, its `Date` header included, differs from this machine's.
    pub clock_offset_ms: i64,
    /// Milliseconds by which the `Date` header differs from the service's time.
    pub date_offset_ms: i64,
    /// Milliseconds every answer of the Activity API takes.
    pub latency_ms: u64,
    /// How long after a wait was delivered requests may still arrive that were under way, in milliseconds. A machine
    /// that is short of processors needs more than the usual 300.
    pub wait_grace_ms: u64,
    /// Items of a page of Graph's lists.
    pub graph_page_size: usize,
    /// So many times yet, an item of a page that was given out is changed before the next page is.
    pub graph_shifts_while_paging: u64,
    /// So many times yet, an item of a page that was given out is withdrawn before the next page is.
    pub graph_withdrawals_while_paging: u64,
    /// Most requests remembered one by one in the ledger; counts have no limit.
    pub request_log: usize,
    /// How webhooks are notified.
    pub notices: Notices,
}

/// How webhooks are notified.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notices {
    /// The authorities whose certificates a webhook may show; without one, no webhook is reached.
    pub roots: Vec<Der>,
    /// Whether all notifications are lost.
    pub lose: bool,
    /// By how many milliseconds notifications come later than their content.
    pub late_ms: u64,
    /// How often a notification is sent that is not answered with 200.
    pub attempts: u32,
    /// How long before the second time, in milliseconds; twice as long before the next, and so on.
    pub retry_ms: u64,
    /// What is listed in the place of auth ids.
    pub hidden_auth_id: Option<String>,
    /// After so many notifications in a row that did not reach it a webhook is disabled.
    pub failures: u32,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            lose: false,
            late_ms: 0,
            attempts: 3,
            retry_ms: 500,
            hidden_auth_id: None,
            failures: 3,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            audience: "https://manage.office.com".to_owned(),
            page_size: 100,
            next_page_header: "NextPageUri".to_owned(),
            rewritten_next_page: true,
            gzip: Gzip::default(),
            publisher: None,
            unidentified_per_minute: None,
            requests_per_minute: None,
            throttle: Throttle::default(),
            start_cooldown_s: 15 * 60,
            cooldown_as_403: false,
            limp_after_restart_ms: 0,
            window_grace_s: 3600,
            long_windows_partial: false,
            tenant_mismatch: TenantMismatch::default(),
            sparse_list: false,
            clock_offset_ms: 0,
            date_offset_ms: 0,
            latency_ms: 0,
            wait_grace_ms: 300,
            graph_page_size: 100,
            graph_shifts_while_paging: 0,
            graph_withdrawals_while_paging: 0,
            request_log: 20_000,
            notices: Notices::default(),
        }
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text.trim()).map(Der).map_err(serde::de::Error::custom)
    }
}

fn both_algorithms() -> Vec<String> {
    vec!["PS256".to_owned(), "RS256".to_owned()]
}

fn both_roles() -> Vec<String> {
    vec![ACTIVITY_READ.to_owned(), ACTIVITY_READ_DLP.to_owned()]
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn few_records() -> (u32, u32) {
    (5, 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_survives_json() {
        let scenario = Scenario::demo().app(App::new(Uuid::from_u128(7)).certificate(vec![1, 2, 3]).secret("s"));
        let text = serde_json::to_string(&scenario).unwrap();
        let back: Scenario = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert_eq!(back.apps[0].certificates[0], Der(vec![1, 2, 3]));
    }

    #[test]
    fn an_empty_object_is_a_scenario_and_an_unknown_key_is_not() {
        assert!(serde_json::from_str::<Scenario>("{}").is_ok());
        assert!(serde_json::from_str::<Scenario>(r#"{"sede":1}"#).is_err());
    }
}
