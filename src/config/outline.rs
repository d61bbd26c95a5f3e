//! What a configuration says of tenants, and of what they need: as much as is joined with those that came by consent or
//! by command.
//!
//! The daemon has it from its settings; a command that reads no credentials has it from what is written
//! ([`Client`](super::Client)). Names are all there is, so that both join in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Settings, clouds, sections};
use crate::content::{ContentType, TenantId};

/// Where a tenant comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file of the configuration names it; of the environment, the path is empty.
    File(PathBuf),
    /// Its administrator has consented.
    Consent,
    /// An operator has added it.
    Command,
}

impl Origin {
    /// The file that names it.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Consent | Self::Command => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) if path.as_os_str().is_empty() => f.write_str("the environment"),
            Self::File(path) => path.display().fmt(f),
            Self::Consent => f.write_str("consent"),
            Self::Command => f.write_str("command"),
        }
    }
}

/// A tenant that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTenant {
    /// What it is called.
    pub name: String,
    /// Whether it is collected.
    pub enabled: bool,
    /// The name of its cloud.
    pub cloud: String,
    /// The name of its app; `""` is `[app]`.
    pub app: String,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// The file that names it.
    pub origin: Origin,
    /// The line there.
    pub line: Option<usize>,
}

/// The tenants, and the names of what they need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The tenants of all files.
    pub tenants: BTreeMap<TenantId, KnownTenant>,
    /// The apps; `""` is `[app]`.
    pub apps: BTreeSet<String>,
    /// The clouds.
    pub clouds: BTreeSet<String>,
    /// The apps that the tenants of a cloud use unless they name one.
    pub cloud_apps: BTreeMap<String, String>,
    /// The clouds that have no Activity API.
    pub without_audit: BTreeSet<String>,
    /// Whether service health is collected.
    pub health: bool,
    /// The clouds that are not on this host, and the key whose interval is too short for them.
    pub too_fast: BTreeMap<String, &'static str>,
}

impl Outline {
    /// The app of a cloud's tenants that name none.
    #[must_use]
    pub fn app_of(&self, cloud: &str) -> &str {
        self.cloud_apps.get(cloud).map_or("", String::as_str)
    }
}

impl Settings {
    /// What these settings say of tenants, and of what they need.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let tenants = self.tenants.iter().map(|(id, tenant)| {
            let known = KnownTenant {
                name: tenant.name.clone(),
                enabled: tenant.enabled,
                cloud: tenant.cloud.name.clone(),
                app: tenant.app.clone(),
                content_types: tenant.content_types.clone(),
                origin: tenant.origin.clone(),
                line: tenant.line,
            };
            (*id, known)
        });
        let too_fast =
            sections::too_fast(&self.token, &self.collect, &self.dlp, &self.health).into_iter().flat_map(|key| {
                let others = self.clouds.values().filter(|cloud| !clouds::on_loopback(cloud));
                others.map(move |cloud| (cloud.name.clone(), key))
            });
        Outline {
            too_fast: too_fast.collect(),
            tenants: tenants.collect(),
            apps: self.apps.keys().cloned().collect(),
            clouds: self.clouds.keys().cloned().collect(),
            without_audit: clouds::without_audit(&self.clouds),
            health: self.health.enabled,
            cloud_apps: self.cloud_apps.clone(),
        }
    }
}
