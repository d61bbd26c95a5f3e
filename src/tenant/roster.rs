//! Who is to be collected, and where each comes from: the tenants of the files joined with those that were enrolled, and
//! with those that an operator holds. Pure.
//!
//! - A tenant in a file and enrolled: the file says what holds, the roster says both. When it goes from the file, the
//!   enrolment holds.
//! - A tenant that was enrolled in a cloud, or for an app, that the configuration has no longer is on the roster with that
//!   trouble: it is neither collected nor forgotten.
//! - A hold outlives the tenant's way onto the roster: one that is in no file today and in one tomorrow is held still.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Origin, Outline, Settings, Tenant};
use crate::content::{ContentType, TenantId, subscribable};
use crate::report::{TenantOrigin, Trouble};
use crate::store::{Enrolled, Enrolment};

/// Characters that a name may have: it stands in tables.
const LONGEST_NAME: usize = 200;

/// All tenants that are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roster {
    members: BTreeMap<TenantId, Member>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its directory id.
    pub id: TenantId,
    /// What it is called.
    pub name: String,
    /// The name of its cloud.
    pub cloud: String,
    /// The name of its app; `""` is `[app]`.
    pub app: String,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// Whether the configuration lets it be collected.
    pub enabled: bool,
    /// Where it comes from. Never empty; the first says what holds.
    pub origins: Vec<TenantOrigin>,
    /// Since when an operator holds it.
    pub held: Option<Timestamp>,
    /// Why it cannot be collected, whoever wants it.
    pub trouble: Option<Trouble>,
}

impl Member {
    /// Whether it was enrolled, whatever files say.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.origins.iter().any(|origin| !matches!(origin, TenantOrigin::File { .. }))
    }

    /// The file that names it.
    #[must_use]
    pub fn file(&self) -> Option<&TenantOrigin> {
        self.origins.iter().find(|origin| matches!(origin, TenantOrigin::File { .. }))
    }

    /// The section of the configuration that holds its app.
    #[must_use]
    pub fn section(&self) -> String {
        section(&self.app)
    }

    /// Why nothing of it is collected, of one that is not, and what to do.
    #[must_use]
    pub fn why_not_collected(&self) -> String {
        match (&self.trouble, self.held) {
            (Some(trouble), _) => trouble.to_string(),
            (None, Some(_)) => format!("an operator has paused it; `tenantry tenant resume '{}'`", self.name),
            (None, None) => "it is switched off in the configuration".to_owned(),
        }
    }

    /// What it is in these settings; `None` if it cannot be collected with them.
    #[must_use]
    pub fn tenant(&self, settings: &Settings) -> Option<Tenant> {
        let (origin, line) = match self.origins.first()? {
            TenantOrigin::File { path, line } => (Origin::File(path.clone()), *line),
            TenantOrigin::Consent { .. } => (Origin::Consent, None),
            TenantOrigin::Command { .. } => (Origin::Command, None),
        };
        if self.trouble.is_some() || !settings.apps.contains_key(&self.app) {
            return None;
        }
        Some(Tenant {
            id: self.id,
            name: self.name.clone(),
            app: self.app.clone(),
            cloud: settings.clouds.get(&self.cloud)?.clone(),
            content_types: self.content_types.clone(),
            enabled: self.enabled,
            origin,
            line,
        })
    }
}

/// A tenant that an operator adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its directory id.
    pub id: TenantId,
    /// What it is to be called; its id if nothing is said.
    #[serde(default)]
    pub name: Option<String>,
    /// Its cloud; `worldwide` if nothing is said.
    #[serde(default)]
    pub cloud: Option<String>,
    /// Its app; its cloud's if nothing is said.
    #[serde(default)]
    pub app: Option<String>,
    /// What is to be collected; the four `Audit` types if nothing is said.
    #[serde(default)]
    pub content_types: BTreeSet<ContentType>,
}

/// How a tenant is to be removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Removal {
    /// Stop its subscriptions at Microsoft first.
    pub stop_subscriptions: bool,
    /// Erase what is stored of it.
    pub purge: bool,
}

/// Why something is not done to a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows it.
    #[error(
        "no file names the tenant `{id}`, and it was not enrolled; `tenantry tenant list` shows those that are known"
    )]
    Unknown {
        /// Which.
        id: TenantId,
    },
    /// It is there already.
    #[error("the tenant `{id}` is there already: `{name}`, from {origin}")]
    Known {
        /// Which.
        id: TenantId,
        /// What it is called.
        name: String,
        /// Where it comes from.
        origin: TenantOrigin,
    },
    /// A file names it, so that no command can remove it.
    #[error(
        "the tenant `{name}` is named in {origin}: remove its `[[tenants]]` there, and run `tenantry reload`; what was \
         collected stays"
    )]
    InFile {
        /// What it is called.
        name: String,
        /// Where.
        origin: TenantOrigin,
    },
    /// A file goes on naming it.
    #[error(
        "the tenant `{name}` goes on being collected, since it is named in {origin}: its subscriptions are not stopped"
    )]
    StillInFile {
        /// What it is called.
        name: String,
        /// Where.
        origin: TenantOrigin,
    },
    /// A file names it, so that what is erased would be collected again.
    #[error(
        "the tenant `{name}` is named in {origin}, so that what Microsoft still holds of it would be collected again: \
         remove its `[[tenants]]` there, run `tenantry reload`, and then `tenantry tenant remove --purge {id}`"
    )]
    NotPurgedInFile {
        /// Which.
        id: TenantId,
        /// What it is called.
        name: String,
        /// Where.
        origin: TenantOrigin,
    },
    /// There is nothing to erase.
    #[error(
        "no file names the tenant `{id}`, it was not enrolled, and nothing of it is stored; `tenantry tenant purges` shows \
         those that were purged"
    )]
    NothingToPurge {
        /// Which.
        id: TenantId,
    },
    /// It cannot be collected.
    #[error("{0}")]
    Impossible(String),
}

impl Roster {
    /// Joins what the configuration, the store's enrolments and its holds say.
    #[must_use]
    pub fn join(outline: &Outline, enrolments: &[Enrolment], held: &BTreeMap<TenantId, Timestamp>) -> Self {
        let mut members: BTreeMap<_, _> = enrolments.iter().map(|of| (of.tenant, enrolled(outline, of))).collect();
        for (id, known) in &outline.tenants {
            let path = known.origin.file().map(ToOwned::to_owned).unwrap_or_default();
            let mut origins = vec![TenantOrigin::File { path, line: known.line }];
            origins.extend(members.remove(id).into_iter().flat_map(|member| member.origins));
            let member = Member {
                id: *id,
                name: known.name.clone(),
                cloud: known.cloud.clone(),
                app: known.app.clone(),
                content_types: known.content_types.clone(),
                enabled: known.enabled,
                origins,
                held: None,
                trouble: None,
            };
            members.insert(*id, member);
        }
        for (id, member) in &mut members {
            member.held = held.get(id).copied();
        }
        Self { members }
    }

    /// Only these of them.
    #[must_use]
    pub fn only(self, ids: &BTreeSet<TenantId>) -> Self {
        Self { members: self.members.into_iter().filter(|(id, _)| ids.contains(id)).collect() }
    }

    /// All of them, in the order of their ids.
    #[must_use]
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// One of them.
    pub fn member(&self, id: TenantId) -> Result<&Member, Refusal> {
        self.members.get(&id).ok_or(Refusal::Unknown { id })
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, id: TenantId) -> bool {
        self.members.contains_key(&id)
    }

    /// What they are called.
    #[must_use]
    pub fn names(&self) -> BTreeMap<TenantId, String> {
        self.members.iter().map(|(id, member)| (*id, member.name.clone())).collect()
    }

    /// The others of this name: commands cannot tell them apart by it.
    #[must_use]
    pub fn namesakes(&self, id: TenantId, name: &str) -> Vec<TenantId> {
        let others = self.members.values().filter(|member| member.id != id);
        others.filter(|member| member.name.to_lowercase() == name.to_lowercase()).map(|member| member.id).collect()
    }

    /// What is to be kept of a tenant that an operator adds, if it may be added.
    pub fn add(&self, outline: &Outline, new: NewTenant, at: Timestamp) -> Result<Enrolment, Refusal> {
        let NewTenant { id, name, cloud, app, content_types } = new;
        if id.uuid().is_nil() {
            return Err(Refusal::Impossible("the id is all zeros; give the tenant's own".to_owned()));
        }
        if let Some(member) = self.members.get(&id)
            && let Some(origin) = member.origins.first()
        {
            return Err(Refusal::Known { id, name: member.name.clone(), origin: origin.clone() });
        }
        for wanted in &content_types {
            subscribable(wanted.as_str()).map_err(|error| Refusal::Impossible(error.to_string()))?;
        }
        let cloud = cloud.unwrap_or_else(|| "worldwide".to_owned());
        let usual: BTreeSet<_> =
            if outline.without_audit.contains(&cloud) { BTreeSet::new() } else { ContentType::AUDIT.into() };
        let app = app.unwrap_or_else(|| outline.app_of(&cloud).to_owned());
        let enrolment = Enrolment {
            tenant: id,
            name: name.map_or_else(|| Ok(id.to_string()), |name| checked(&name))?,
            cloud,
            app,
            content_types: if content_types.is_empty() { usual } else { content_types },
            how: Enrolled::Command,
            at,
        };
        match lacking(outline, &enrolment) {
            Some(lacking) => Err(Refusal::Impossible(lacking.told(outline))),
            None => Ok(enrolment),
        }
    }

    /// Whether a tenant may be removed by command. `None`: it is on no roster, but what is stored of it can be erased.
    pub fn remove(&self, id: TenantId, how: Removal) -> Result<Option<&Member>, Refusal> {
        let Some(member) = self.members.get(&id) else {
            let only_purged = how.purge && !how.stop_subscriptions;
            return if only_purged { Ok(None) } else { Err(Refusal::Unknown { id }) };
        };
        let (name, file) = (member.name.clone(), member.file().cloned());
        match file {
            Some(origin) if how.purge => Err(Refusal::NotPurgedInFile { id, name, origin }),
            Some(origin) if !member.is_enrolled() => Err(Refusal::InFile { name, origin }),
            Some(origin) if how.stop_subscriptions => Err(Refusal::StillInFile { name, origin }),
            _ => Ok(Some(member)),
        }
    }
}

/// `app` or `apps.NAME`.
fn section(app: &str) -> String {
    if app.is_empty() { "app".to_owned() } else { format!("apps.{app}") }
}

fn checked(name: &str) -> Result<String, Refusal> {
    let name = name.trim();
    let refused = if name.is_empty() {
        "the name is empty; give another"
    } else if name.chars().any(char::is_control) {
        "there is a control character in the name; give another"
    } else if name.chars().count() > LONGEST_NAME {
        "the name is longer than 200 characters; give a shorter one"
    } else {
        return Ok(name.to_owned());
    };
    Err(Refusal::Impossible(refused.to_owned()))
}

fn enrolled(outline: &Outline, enrolment: &Enrolment) -> Member {
    let Enrolment { tenant, name, cloud, app, content_types, how, at } = enrolment.clone();
    let again = match how {
        Enrolled::Consent => "remove the tenant and invite it again",
        Enrolled::Command => "remove the tenant and add it again",
    };
    Member {
        id: tenant,
        name,
        cloud,
        app,
        content_types,
        enabled: true,
        origins: vec![match how {
            Enrolled::Consent => TenantOrigin::Consent { at },
            Enrolled::Command => TenantOrigin::Command { at },
        }],
        held: None,
        trouble: lacking(outline, enrolment).map(|lacking| lacking.trouble(again)),
    }
}

/// What an enrolment needs and the configuration does not have.
#[derive(Debug)]
enum Lacking<'a> {
    Cloud(&'a str),
    App(&'a str),
    /// An Activity API: its audit records are to be collected.
    Audit(&'a str),
    /// Anything to collect: its cloud has no Activity API, and health is off.
    Content(&'a str),
    /// Patience: the intervals of this key are for simulated clouds.
    Patience(&'a str, &'static str),
}

fn lacking<'a>(outline: &Outline, enrolment: &'a Enrolment) -> Option<Lacking<'a>> {
    let Enrolment { cloud, app, .. } = enrolment;
    if !outline.clouds.contains(cloud) {
        Some(Lacking::Cloud(cloud))
    } else if !outline.apps.contains(app) {
        Some(Lacking::App(app))
    } else if outline.without_audit.contains(cloud) && !enrolment.content_types.is_empty() {
        Some(Lacking::Audit(cloud))
    } else if outline.without_audit.contains(cloud) && !outline.health {
        Some(Lacking::Content(cloud))
    } else {
        outline.too_fast.get(cloud).map(|key| Lacking::Patience(cloud, key))
    }
}

impl Lacking<'_> {
    /// Of a tenant that was enrolled. `again`: another way to mend it.
    fn trouble(&self, again: &str) -> Trouble {
        match self {
            Self::Cloud(cloud) => Trouble::for_operator(
                "cloud_unknown",
                format!("the tenant was enrolled in the cloud `{cloud}`, which the configuration does not have"),
                format!("write `[clouds.{cloud}]` and run `tenantry reload`, or {again} in another cloud"),
            ),
            Self::App(app) => {
                let section = section(app);
                Trouble::for_operator(
                    "app_unknown",
                    format!("the tenant was enrolled for the app `[{section}]`, which the configuration does not have"),
                    format!("write `[{section}]` and run `tenantry reload`, or {again} for another app"),
                )
            }
            Self::Audit(cloud) => Trouble::for_operator(
                "no_activity_api",
                format!(
                    "the cloud `{cloud}` has no Management Activity API, so that no audit records can be collected there"
                ),
                format!("{again} without content types: service health is collected if `[health]` says so"),
            ),
            Self::Content(cloud) => Trouble::for_operator(
                "nothing_to_collect",
                format!("the cloud `{cloud}` has no Management Activity API, and service health is not collected"),
                "set `enabled = true` under `[health]` and run `tenantry reload`".to_owned(),
            ),
            Self::Patience(cloud, key) => Trouble::for_operator(
                "too_fast",
                format!("the interval of `{key}` is for simulated clouds, and the tenant is in the cloud `{cloud}`"),
                format!("make `{key}` longer (`config/tenantry.toml` has the default) and run `tenantry reload`"),
            ),
        }
    }

    /// Of a tenant that is to be added.
    fn told(&self, outline: &Outline) -> String {
        match self {
            Self::Cloud(cloud) => {
                let clouds: Vec<_> = outline.clouds.iter().map(|cloud| format!("`{cloud}`")).collect();
                format!("there is no cloud `{cloud}`; the clouds are {}", clouds.join(", "))
            }
            Self::App(app) => {
                let apps: Vec<_> = outline.apps.iter().map(|app| format!("`[{}]`", section(app))).collect();
                let there = match apps[..] {
                    [] => "the configuration has no app".to_owned(),
                    [..] => format!("the apps are {}", apps.join(", ")),
                };
                format!("there is no `[{}]` in the configuration; {there}", section(app))
            }
            Self::Audit(cloud) => format!(
                "the cloud `{cloud}` has no Management Activity API, so that no audit records can be collected there: leave \
                 the content types out"
            ),
            Self::Content(cloud) => format!(
                "the cloud `{cloud}` has no Management Activity API, and service health is not collected, so that nothing \
                 would be: set `enabled = true` under `[health]` and run `tenantry reload` first"
            ),
            Self::Patience(cloud, key) => format!(
                "the interval of `{key}` is for simulated clouds: make it longer before a tenant in the cloud `{cloud}` is \
                 added"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::KnownTenant;

    fn id(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    fn at() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    fn known(number: u8, name: &str) -> (TenantId, KnownTenant) {
        let known = KnownTenant {
            name: name.to_owned(),
            enabled: true,
            cloud: "worldwide".to_owned(),
            app: String::new(),
            content_types: [ContentType::General].into(),
            origin: Origin::File(PathBuf::from("t.toml")),
            line: Some(usize::from(number)),
        };
        (id(number), known)
    }

    /// Tenants 1 and 2 are in a file.
    fn outline() -> Outline {
        Outline {
            tenants: [known(1, "contoso"), known(2, "fabrikam")].into(),
            apps: ["", "own"].map(str::to_owned).into(),
            clouds: ["gcc", "worldwide"].map(str::to_owned).into(),
            cloud_apps: [("gcc".to_owned(), "own".to_owned())].into(),
            without_audit: ["china".to_owned()].into(),
            health: false,
            too_fast: BTreeMap::new(),
        }
    }

    fn enrolment(number: u8, cloud: &str, app: &str) -> Enrolment {
        Enrolment {
            tenant: id(number),
            name: format!("enrolled-{number}"),
            cloud: cloud.to_owned(),
            app: app.to_owned(),
            content_types: ContentType::AUDIT.into(),
            how: if number.is_multiple_of(2) { Enrolled::Consent } else { Enrolled::Command },
            at: at(),
        }
    }

    fn file(line: u8) -> TenantOrigin {
        TenantOrigin::File { path: PathBuf::from("t.toml"), line: Some(line.into()) }
    }

    fn kind(member: &Member) -> Option<&str> {
        member.trouble.as_ref().map(|trouble| trouble.kind.as_str())
    }

    #[test]
    fn files_and_enrolments_are_joined_and_the_file_says_what_holds() {
        let enrolments = [enrolment(2, "gcc", "gone"), enrolment(3, "gcc", "own")];
        let held = [(id(2), at()), (id(9), at())].into();
        let roster = Roster::join(&outline(), &enrolments, &held);
        let names: Vec<_> = roster.members().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["contoso", "fabrikam", "enrolled-3"]);
        let [one, two, three] = [1, 2, 3].map(|number| roster.member(id(number)).unwrap());
        assert_eq!(one.origins, [file(1)]);
        assert_eq!(two.origins, [file(2), TenantOrigin::Consent { at: at() }]);
        assert_eq!((two.cloud.as_str(), two.app.as_str(), kind(two)), ("worldwide", "", None));
        assert_eq!((one.held, two.held), (None, Some(at())));
        assert_eq!(three.origins, [TenantOrigin::Command { at: at() }]);
        assert!(three.is_enrolled() && two.is_enrolled() && !one.is_enrolled());
        assert!(!roster.contains(id(9)), "a hold makes no tenant");

        // It goes from the file: the enrolment holds, and the hold lasts.
        let mut without = outline();
        without.tenants.remove(&id(2));
        let roster = Roster::join(&without, &enrolments, &held);
        let two = roster.member(id(2)).unwrap();
        assert_eq!((two.name.as_str(), two.held, kind(two)), ("enrolled-2", Some(at()), Some("app_unknown")));
    }

    #[test]
    fn what_the_configuration_does_not_have_is_a_trouble_with_its_remedy() {
        let fast = Outline { too_fast: [("worldwide".to_owned(), "collect.poll_interval")].into(), ..outline() };
        for (outline, enrolment, kind, told) in [
            (
                outline(),
                enrolment(3, "moon", "own"),
                "cloud_unknown",
                "the tenant was enrolled in the cloud `moon`, which the configuration does not have: write `[clouds.moon]` \
                 and run `tenantry reload`, or remove the tenant and add it again in another cloud",
            ),
            (
                outline(),
                enrolment(4, "gcc", "gone"),
                "app_unknown",
                "the tenant was enrolled for the app `[apps.gone]`, which the configuration does not have: write \
                 `[apps.gone]` and run `tenantry reload`, or remove the tenant and invite it again for another app",
            ),
            (
                fast,
                enrolment(3, "worldwide", ""),
                "too_fast",
                "the interval of `collect.poll_interval` is for simulated clouds, and the tenant is in the cloud \
                 `worldwide`: make `collect.poll_interval` longer (`config/tenantry.toml` has the default) and run \
                 `tenantry reload`",
            ),
        ] {
            let roster = Roster::join(&outline, std::slice::from_ref(&enrolment), &BTreeMap::new());
            let trouble = roster.member(enrolment.tenant).unwrap().trouble.as_ref().unwrap();
            assert_eq!((trouble.kind.as_str(), trouble.to_string().as_str()), (kind, told));
            assert!(trouble.needs_operator);
        }
    }

    fn new(number: u8) -> NewTenant {
        NewTenant { id: id(number), name: None, cloud: None, app: None, content_types: BTreeSet::new() }
    }

    #[test]
    fn what_is_added_has_defaults_and_is_refused_where_it_could_not_be_collected() {
        let roster = Roster::join(&outline(), &[enrolment(3, "gcc", "own")], &BTreeMap::new());
        let added = roster.add(&outline(), new(5), at()).unwrap();
        assert_eq!((added.name, added.cloud.as_str(), added.app.as_str()), (id(5).to_string(), "worldwide", ""));
        assert_eq!((added.content_types, added.how, added.at), (ContentType::AUDIT.into(), Enrolled::Command, at()));
        let in_gcc = NewTenant { cloud: Some("gcc".to_owned()), name: Some(" Łódź ".to_owned()), ..new(5) };
        let added = roster.add(&outline(), in_gcc, at()).unwrap();
        assert_eq!((added.name.as_str(), added.app.as_str()), ("Łódź", "own"), "its cloud's app");
        assert_eq!(roster.namesakes(id(5), "CONTOSO"), [id(1)]);
        assert_eq!(roster.namesakes(id(1), "contoso"), []);

        let fast = Outline { too_fast: [("worldwide".to_owned(), "collect.poll_interval")].into(), ..outline() };
        let named = |name: &str| NewTenant { name: Some(name.to_owned()), ..new(5) };
        for (outline, new, told) in [
            (outline(), new(0), "the id is all zeros".to_owned()),
            (outline(), new(1), format!("the tenant `{}` is there already: `contoso`, from t.toml:1", id(1))),
            (outline(), new(3), format!("the tenant `{}` is there already: `enrolled-3`, from command", id(3))),
            (outline(), named("  "), "the name is empty".to_owned()),
            (outline(), named("a\nb"), "there is a control character in the name".to_owned()),
            (outline(), named(&"é".repeat(201)), "the name is longer than 200 characters".to_owned()),
            (
                outline(),
                NewTenant { cloud: Some("moon".to_owned()), ..new(5) },
                "there is no cloud `moon`; the clouds are `gcc`, `worldwide`".to_owned(),
            ),
            (
                outline(),
                NewTenant { app: Some("gone".to_owned()), ..new(5) },
                "there is no `[apps.gone]` in the configuration; the apps are `[app]`, `[apps.own]`".to_owned(),
            ),
            (fast, new(5), "the interval of `collect.poll_interval` is for simulated clouds".to_owned()),
        ] {
            let refusal = roster.add(&outline, new, at()).unwrap_err().to_string();
            assert!(refusal.starts_with(&told), "{refusal}");
        }
    }

    #[test]
    fn only_an_enrolment_can_be_removed_by_command() {
        let roster =
            Roster::join(&outline(), &[enrolment(2, "gcc", "own"), enrolment(3, "gcc", "own")], &BTreeMap::new());
        let (plain, stop, purge) = (Removal::default(), (true, false), (false, true));
        let how = |(stop_subscriptions, purge)| Removal { stop_subscriptions, purge };
        let name = |number, how| roster.remove(id(number), how).unwrap().map(|member| member.name.as_str());
        assert_eq!(name(3, how(stop)), Some("enrolled-3"));
        assert_eq!(name(2, plain), Some("fabrikam"), "the file goes on naming it");
        assert_eq!(name(3, how(purge)), Some("enrolled-3"));
        assert_eq!(name(9, how(purge)), None, "only what is stored of it tells");
        let in_file = "so that what Microsoft still holds of it would be collected again";
        for (number, how, told) in [
            (1, plain, "the tenant `contoso` is named in t.toml:1: remove its `[[tenants]]` there"),
            (2, how(stop), "the tenant `fabrikam` goes on being collected, since it is named in t.toml:2"),
            (1, how(purge), &format!("the tenant `contoso` is named in t.toml:1, {in_file}")),
            (2, how(purge), &format!("the tenant `fabrikam` is named in t.toml:2, {in_file}")),
            (9, plain, "no file names the tenant `09090909"),
            (9, how((true, true)), "no file names the tenant `09090909"),
        ] {
            let refusal = roster.remove(id(number), how).unwrap_err().to_string();
            assert!(refusal.starts_with(told), "{refusal}");
        }
    }
}
