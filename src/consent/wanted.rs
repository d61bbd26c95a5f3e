//! The invite that an operator asks for, and what becomes of it: a link.
//!
//! **Invariant:** the link's secret is in the answer and nowhere else. The store has its hash.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use url::Url;

use super::address;
use crate::config::Settings;
use crate::content::{ContentType, NotSubscribable, TenantId, subscribable};
use crate::report::Trouble;
use crate::secret::Secret;
use crate::store::{Invite, InviteId, InviteStage, StoreError};

/// How long a link is good unless told otherwise: over a weekend.
pub const USUAL_LIFE: Duration = Duration::from_hours(72);
/// How short that may be,
const SHORTEST: Duration = Duration::from_mins(5);
/// and how long: whoever finds the link later should find it dead.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// What tables have room for.
const LONGEST_NAME: usize = 100;

/// The cloud of a tenant that does not say where it lives.
const USUAL_CLOUD: &str = "worldwide";

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What the tenant will be called.
    pub name: String,
    /// The only tenant that may follow the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Where it lives; `worldwide` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// The app that is consented to; that of the cloud, or `[app]`, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What will be collected; the four `Audit` types if nothing is said.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub content_types: BTreeSet<ContentType>,
    /// For how many seconds the link is good; 72 hours if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// An invite that was made. There is no `Debug`: the link is a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invited {
    /// By which it is listed and withdrawn.
    pub id: InviteId,
    /// What the customer opens. It is shown once.
    pub link: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// How an invite stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteStatus {
    /// By which it is withdrawn.
    pub id: InviteId,
    /// What the tenant is, or will be, called.
    pub name: String,
    /// Whose it has become, or the only tenant that may follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Where it lives.
    pub cloud: String,
    /// The app that is consented to; empty for `[app]`.
    pub app: String,
    /// When it was made.
    pub made: Timestamp,
    /// Until when the link is good.
    pub expires: Timestamp,
    /// What has become of it.
    pub state: InviteState,
    /// Why its tenant is not taken in so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// What has become of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InviteState {
    /// The link is good.
    Open,
    /// The link was not followed in time.
    Expired,
    /// Consent was given, and the proof is asked for.
    Proving,
    /// The tenant was taken in.
    Done,
}

impl InviteState {
    /// The word for tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Expired => "expired",
            Self::Proving => "proving",
            Self::Done => "done",
        }
    }
}

impl InviteStatus {
    pub(super) fn of(trouble: Option<Trouble>, invite: Invite, now: Timestamp) -> Self {
        let (state, tenant) = match invite.stage {
            InviteStage::Open if invite.expires <= now => (InviteState::Expired, invite.tenant),
            InviteStage::Open => (InviteState::Open, invite.tenant),
            InviteStage::Proving { tenant, .. } => (InviteState::Proving, Some(tenant)),
            InviteStage::Done { tenant, .. } => (InviteState::Done, Some(tenant)),
        };
        let Invite { id, name, cloud, app, made, expires, .. } = invite;
        Self { id, name, tenant, cloud, app, made, expires, state, trouble }
    }
}

/// Why there is no invite.
#[derive(Debug, thiserror::Error)]
pub enum Unwanted {
    /// There are no pages to lead to.
    #[error("there are no pages that a link could lead to; set `[public] listen` and `url`, and reload")]
    NoPages,
    /// The name says nothing.
    #[error("the name must be a line of at most {LONGEST_NAME} characters")]
    Name,
    /// The life is none.
    #[error("a link is good for 5 minutes to 30 days")]
    Life,
    /// No such cloud.
    #[error("there is no cloud `{0}`; `tenantry check` lists those that there are")]
    Cloud(String),
    /// Nothing of what is asked for can be collected there.
    #[error(
        "the cloud `{0}` has no Management Activity API, so that no audit records can be collected there: leave the content \
         types out, and set `enabled = true` under `[health]` for service health and the Message Center"
    )]
    NoAudit(String),
    /// No such app.
    #[error("there is no `{0}` in the configuration; name another app, or write it")]
    App(String),
    /// A content type that nobody can subscribe to.
    #[error(transparent)]
    Type(#[from] NotSubscribable),
    /// The tenant is collected already.
    #[error("the tenant {0} is collected already, or about to be; `tenantry tenant list` says how it came")]
    Bound(TenantId),
    /// The store fails.
    #[error("the invite cannot be kept")]
    Store(#[from] StoreError),
}

/// Makes what is kept of an invite, and the link.
pub(super) fn make(wanted: Wanted, settings: &Settings, now: Timestamp) -> Result<(Invite, Url), Unwanted> {
    let public = &settings.public;
    let base = public.url.as_ref().filter(|_| public.listen.is_some()).ok_or(Unwanted::NoPages)?;
    let name = wanted.name.trim().to_owned();
    if name.is_empty() || name.chars().any(char::is_control) || name.chars().count() > LONGEST_NAME {
        return Err(Unwanted::Name);
    }
    let life = wanted.expires_in.map_or(USUAL_LIFE, Duration::from_secs);
    if !(SHORTEST..=LONGEST).contains(&life) {
        return Err(Unwanted::Life);
    }
    let life = SignedDuration::try_from(life).map_err(|_| Unwanted::Life)?;
    let cloud = wanted.cloud.unwrap_or_else(|| USUAL_CLOUD.to_owned());
    if !settings.clouds.contains_key(&cloud) {
        return Err(Unwanted::Cloud(cloud));
    }
    let app = wanted.app.or_else(|| settings.cloud_apps.get(&cloud).cloned()).unwrap_or_default();
    if !settings.apps.contains_key(&app) {
        return Err(Unwanted::App(if app.is_empty() { "[app]".to_owned() } else { format!("[apps.{app}]") }));
    }
    for wanted in &wanted.content_types {
        subscribable(wanted.as_str())?;
    }
    let has_audit = settings.clouds.get(&cloud).is_some_and(|cloud| cloud.management.is_some());
    if !has_audit && (!wanted.content_types.is_empty() || !settings.health.enabled) {
        return Err(Unwanted::NoAudit(cloud));
    }
    let usual: BTreeSet<_> = if has_audit { ContentType::AUDIT.into() } else { BTreeSet::new() };
    let types = Some(wanted.content_types).filter(|types| !types.is_empty());
    let secret = Secret::random();
    let invite = Invite {
        id: InviteId::of(secret.expose().as_bytes()),
        name,
        tenant: wanted.tenant,
        cloud,
        app,
        content_types: types.unwrap_or(usual),
        made: now,
        expires: now.checked_add(life).map_err(|_| Unwanted::Life)?,
        stage: InviteStage::Open,
    };
    Ok((invite, address::link(base, &secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn settings(public: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let text = format!(
            "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\nclient_secret = \"x\"\n[clouds.gcc_high]\napp = \"us\"\n\
             [apps.us]\nclient_id = \"bbbbbbbb-1111-2222-3333-444444444444\"\nclient_secret = \"y\"\n[public]\n{public}"
        );
        std::fs::write(&file, text).unwrap();
        let none: [(std::ffi::OsString, std::ffi::OsString); 0] = [];
        config::load_with(&file, none).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            tenant: None,
            cloud: None,
            app: None,
            content_types: BTreeSet::new(),
            expires_in: None,
        }
    }

    #[test]
    fn a_link_opens_what_is_kept_of_it() {
        let settings = settings("listen = \"127.0.0.1:0\"\nurl = \"https://collector.example\"\n");
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let (invite, link) = make(wanted(" Contoso "), &settings, now).unwrap_or_else(|error| panic!("{error}"));
        let secret = link.path().strip_prefix("/onboard/").unwrap().to_owned();
        assert_eq!(invite.id, InviteId::of(secret.as_bytes()));
        assert_eq!((invite.name.as_str(), invite.cloud.as_str(), invite.app.as_str()), ("Contoso", "worldwide", ""));
        assert_eq!(invite.expires.to_string(), "2026-11-25T12:00:00Z");
        assert!(!format!("{invite:?}").contains(&secret));
        let (other, _) = make(wanted("Contoso"), &settings, now).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(other.id, invite.id);
        let us = Wanted { cloud: Some("gcc_high".to_owned()), ..wanted("US") };
        assert_eq!(make(us, &settings, now).unwrap_or_else(|error| panic!("{error}")).0.app, "us");
    }

    #[test]
    fn what_could_lead_nowhere_is_refused() {
        let with = "listen = \"127.0.0.1:0\"\nurl = \"https://collector.example\"\n";
        let text = |text: &str| Some(text.to_owned());
        for (public, wanted, expected) in [
            ("", wanted("a"), "there are no pages"),
            ("url = \"https://collector.example\"\n", wanted("a"), "there are no pages"),
            (with, wanted(" "), "the name must be"),
            (with, wanted("a\nb"), "the name must be"),
            (with, Wanted { expires_in: Some(299), ..wanted("a") }, "5 minutes to 30 days"),
            (with, Wanted { expires_in: Some(u64::MAX), ..wanted("a") }, "5 minutes to 30 days"),
            (with, Wanted { cloud: text("mars"), ..wanted("a") }, "there is no cloud `mars`"),
            (with, Wanted { cloud: text("china"), ..wanted("a") }, "no Management Activity API"),
            (with, Wanted { app: text("none"), ..wanted("a") }, "there is no `[apps.none]`"),
        ] {
            let refused = make(wanted, &settings(public), Timestamp::UNIX_EPOCH).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
