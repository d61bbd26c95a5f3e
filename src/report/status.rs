//! What `status` shows, as data: the daemon writes it, the command reads it, `status --json` prints it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::trouble::Trouble;
use crate::content::{ContentType, TenantId};
use crate::retry::Stage;
use crate::store::QueueDepth;

/// What a tenant's collection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Not yet listed for the first time.
    Starting,
    /// Up to date.
    Collecting,
    /// Working through a backlog.
    CatchingUp,
    /// The service asked for a wait.
    Throttled,
    /// Subscribed, and the service has nothing yet: the first content takes up to 12 hours.
    Waiting,
    /// Nothing is asked, or nothing is retrieved, until a person has acted.
    Paused,
    /// Switched off in the configuration.
    Disabled,
    /// Paused by an operator.
    Held,
    /// Trouble that is being retried.
    Failing,
    /// Its tasks ended by a panic and start again soon.
    Restarting,
    /// Read from the store while no daemon runs.
    Stopped,
}

impl TenantState {
    /// The word for tables and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Collecting => "collecting",
            Self::CatchingUp => "catching up",
            Self::Throttled => "throttled",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Held => "held",
            Self::Failing => "failing",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
        }
    }

    /// Whether it is not collected because somebody wants that.
    #[must_use]
    pub const fn is_off(self) -> bool {
        matches!(self, Self::Disabled | Self::Held)
    }
}

/// Where a tenant comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum TenantOrigin {
    /// A file of the configuration names it.
    File {
        /// The file; of the environment, nothing.
        path: PathBuf,
        /// The line there.
        line: Option<usize>,
    },
    /// Its administrator has consented.
    Consent {
        /// When.
        at: Timestamp,
    },
    /// An operator has added it.
    Command {
        /// When.
        at: Timestamp,
    },
}

impl TenantOrigin {
    /// When it was enrolled, if it was.
    #[must_use]
    pub const fn enrolled(&self) -> Option<Timestamp> {
        match self {
            Self::File { .. } => None,
            Self::Consent { at } | Self::Command { at } => Some(*at),
        }
    }
}

impl fmt::Display for TenantOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } if path.as_os_str().is_empty() => f.write_str("the environment"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => path.display().fmt(f),
            Self::Consent { .. } => f.write_str("consent"),
            Self::Command { .. } => f.write_str("command"),
        }
    }
}

/// What became of notifications and of the blobs that they named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotificationFate {
    /// The service asked whether we are there.
    Validation,
    /// A blob was queued.
    Queued,
    /// A blob was known: queued, stored or given up before.
    Known,
    /// A blob is of a content type that is not collected.
    NotCollected,
    /// A blob that no listing named could not be retrieved, and was dropped.
    Unlisted,
    /// A request did not prove where it comes from.
    Unproven,
    /// A request was too large, too slow or no notification.
    Malformed,
    /// A request was about another tenant or app than it may be, or one that is not collected.
    Stranger,
    /// A request named an address that may not see the tenant's token.
    ForeignUri,
    /// A request came while the tenant had too much to retrieve or was notified too often, or nothing could be queued.
    Busy,
}

impl NotificationFate {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Validation,
        Self::Queued,
        Self::Known,
        Self::NotCollected,
        Self::Unlisted,
        Self::Unproven,
        Self::Malformed,
        Self::Stranger,
        Self::ForeignUri,
        Self::Busy,
    ];

    /// The word for labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Queued => "queued",
            Self::Known => "known",
            Self::NotCollected => "not_collected",
            Self::Unlisted => "unlisted",
            Self::Unproven => "unproven",
            Self::Malformed => "malformed",
            Self::Stranger => "stranger",
            Self::ForeignUri => "foreign_uri",
            Self::Busy => "busy",
        }
    }
}

/// All tenants, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusSnapshot {
    /// Whether a daemon told this; else it was read from the store.
    pub running: bool,
    /// The daemon's version.
    pub version: String,
    /// When, in the service's time.
    pub at: Timestamp,
    /// Since when the daemon runs.
    pub started: Option<Timestamp>,
    /// How many seconds the host's clock is ahead of the service's; `null` before the first answer.
    pub host_ahead_by_seconds: Option<i64>,
    /// The sentence that systemd shows.
    pub sentence: String,
    /// Why nothing is retrieved, from any tenant.
    #[serde(default)]
    pub pause: Option<TroubleStatus>,
    /// What a person should do before it becomes a trouble: certificates that expire soon, or have expired.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// In the order of their ids.
    pub tenants: Vec<TenantStatus>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantStatus {
    /// Its directory id.
    pub id: TenantId,
    /// Its name in the configuration.
    pub name: String,
    /// The cloud it lives in.
    #[serde(default)]
    pub cloud: String,
    /// The section of the configuration that holds its app: `app` or `apps.NAME`.
    #[serde(default)]
    pub app: String,
    /// Where it comes from; the first says what holds.
    #[serde(default)]
    pub origins: Vec<TenantOrigin>,
    /// Since when an operator holds it.
    #[serde(default)]
    pub held: Option<Timestamp>,
    /// What it is doing.
    pub state: TenantState,
    /// Until when its token is valid.
    pub token_until: Option<Timestamp>,
    /// When a listing last succeeded.
    pub last_poll: Option<Timestamp>,
    /// Seconds from availability to stored: of the oldest blob that waits, else of the last one stored that became
    /// available while the daemon ran.
    pub lag_seconds: Option<i64>,
    /// What waits to be retrieved.
    pub queue: QueueDepth,
    /// Since midnight UTC.
    pub stored_today: StoredToday,
    /// Blobs that were given up, or cannot be collected as they are listed.
    pub dead_letters: u64,
    /// How many retrievals may run at a time.
    pub concurrency: Option<usize>,
    /// How often its tasks were restarted after a panic.
    pub restarts: u64,
    /// How often the service has throttled it since the daemon started.
    #[serde(default)]
    pub throttled: u64,
    /// How often each stage has met a trouble since the daemon started.
    #[serde(default)]
    pub failures: BTreeMap<Stage, u64>,
    /// The worst trouble that goes on.
    pub trouble: Option<TroubleStatus>,
    /// By content type: those that are collected.
    pub content: BTreeMap<ContentType, ContentStatus>,
}

impl TenantStatus {
    /// A tenant of which nothing is known but its state.
    #[must_use]
    pub fn new(id: TenantId, name: &str, state: TenantState) -> Self {
        Self {
            id,
            name: name.to_owned(),
            cloud: String::new(),
            app: String::new(),
            origins: Vec::new(),
            held: None,
            state,
            token_until: None,
            last_poll: None,
            lag_seconds: None,
            queue: QueueDepth::default(),
            stored_today: StoredToday::default(),
            dead_letters: 0,
            concurrency: None,
            restarts: 0,
            throttled: 0,
            failures: BTreeMap::new(),
            trouble: None,
            content: BTreeMap::new(),
        }
    }
}

/// Counts of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToday {
    /// Content blobs.
    pub blobs: u64,
    /// Records in them.
    pub records: u64,
    /// How many of those are flagged as copies.
    pub duplicates: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A trouble with its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TroubleStatus {
    /// What and what to do.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// Since when.
    pub since: Timestamp,
    /// How many attempts met it.
    pub attempts: u64,
}

/// Bytes of a text in a note; the store takes 16 KiB, and JSON can make six of one.
const NOTE_TEXT: usize = 1000;

impl TroubleStatus {
    /// What the store keeps for a `status` without a daemon.
    #[must_use]
    pub fn to_note(&self) -> Option<Vec<u8>> {
        let cut = |text: &str| text[..text.floor_char_boundary(NOTE_TEXT)].to_owned();
        let trouble =
            Trouble { cause: cut(&self.trouble.cause), remedy: cut(&self.trouble.remedy), ..self.trouble.clone() };
        serde_json::to_vec(&Self { trouble, ..self.clone() }).ok()
    }

    /// Undoes [`to_note`](Self::to_note); a note of another version is none.
    #[must_use]
    pub fn from_note(note: &[u8]) -> Option<Self> {
        serde_json::from_slice(note).ok()
    }
}

/// One content type of a tenant, or of all tenants. The numbers are those since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentStatus {
    /// When a listing last succeeded.
    pub last_listed: Option<Timestamp>,
    /// When a blob was last stored.
    pub last_stored: Option<Timestamp>,
    /// Windows of time that were listed in full.
    #[serde(default)]
    pub listings: u64,
    /// Blobs stored.
    pub blobs: u64,
    /// Records in them.
    #[serde(default)]
    pub records: u64,
    /// How many of those are flagged as copies.
    #[serde(default)]
    pub duplicates: u64,
    /// How many of those name another tenant.
    #[serde(default)]
    pub foreign: u64,
    /// Bytes of their bodies.
    #[serde(default)]
    pub bytes: u64,
    /// Blobs found only by listing the last hours again.
    pub late_recent: u64,
    /// Blobs found only by the sweep.
    pub late_sweep: u64,
    /// Blobs that had another body when they were looked at again: they had been fetched within two minutes of their
    /// creation, and in part.
    #[serde(default)]
    pub grown: u64,
    /// Blobs given up, or listed in a way that they cannot be collected.
    #[serde(default)]
    pub dead_letters: u64,
    /// Spans of time that were not listed before the service ceased to list them.
    #[serde(default)]
    pub gaps: u64,
}

/// What happened since the daemon started, of all tenants together, those that are gone included: no number ever falls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// By content type.
    pub content: BTreeMap<ContentType, ContentStatus>,
    /// How often each stage has met a trouble.
    pub failures: BTreeMap<Stage, u64>,
    /// How often the service has throttled a tenant.
    pub throttled: u64,
    /// How often a tenant's tasks were restarted after a panic.
    pub restarts: u64,
    /// What became of notifications and of the blobs that they named.
    pub notifications: BTreeMap<NotificationFate, u64>,
}
