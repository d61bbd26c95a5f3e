//! What a command needs that asks the daemon or reads the store: where they are, and what the tenants are called.
//!
//! No credential is read, so that whoever may use the socket needs no access to keys; and whatever else is wrong with the
//! configuration is the daemon's business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::problem::Findings;
use super::sections::{self, Pace};
use super::settings::admin_socket;
use super::{ConfigErrors, StoreSettings, in_order, sources};
use crate::content::TenantId;

/// The part of the configuration that such a command goes by.
#[derive(Debug, Clone)]
pub struct Client {
    /// `[store]`.
    pub store: StoreSettings,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// The tenants of all files that could be read.
    pub tenants: BTreeMap<TenantId, KnownTenant>,
    /// What is wrong with this part, if anything is: then all of the above may be too.
    pub problems: Option<ConfigErrors>,
}

/// A tenant that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTenant {
    /// What it is called.
    pub name: String,
    /// Whether it is collected.
    pub enabled: bool,
}

/// Reads that part of `file`, `conf.d/*.toml` beside it and the environment. Blocks on the file system.
#[must_use]
pub fn load_client(file: &Path) -> Client {
    let mut findings = Findings::default();
    let (merged, files) = sources(file, std::env::vars_os().collect(), &mut findings);
    let store = sections::store(&merged, Pace::Loopback, &mut findings);
    let socket = merged.section("daemon").path("socket", &mut findings).map(|socket| socket.value);
    let mut tenants = BTreeMap::new();
    // What is wrong with a tenant keeps nobody from asking about the others.
    let mut ignored = Findings::default();
    for table in merged.entries("tenants") {
        let Some(id) = table.parsed("id", &mut ignored, str::parse::<TenantId>) else { continue };
        // It is printed in tables.
        let name = table.text("name", &mut ignored).filter(|name| !name.value.chars().any(char::is_control));
        let name = name.map_or_else(|| id.value.to_string(), |name| name.value.trim().to_owned());
        let enabled = table.flag("enabled", &mut ignored).is_none_or(|enabled| enabled.value);
        tenants.entry(id.value).or_insert(KnownTenant { name, enabled });
    }
    let problems = (!findings.problems.is_empty()).then(|| in_order(findings.problems, &files));
    Client { socket: admin_socket(&store, socket.as_deref()), store, tenants, problems }
}
