//! What a command needs that asks the daemon or reads the store: where they are, and which tenants, apps and clouds there
//! are.
//!
//! No credential is read, so that whoever may use the socket needs no access to keys; and whatever else is wrong with the
//! configuration is the daemon's business.

use std::path::{Path, PathBuf};

use super::problem::Findings;
use super::sections::{self, Pace};
use super::settings::{Dlp, admin_socket};
use super::{ConfigErrors, KnownTenant, Outline, StoreSettings, clouds, in_order, merged, sources, tenants};
use crate::content::{ContentType, TenantId};

/// The part of the configuration that such a command goes by.
#[derive(Debug, Clone)]
pub struct Client {
    /// `[store]`.
    pub store: StoreSettings,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// `[dlp]`.
    pub dlp: Dlp,
    /// The tenants, apps and clouds of all files that could be read, as they are written.
    pub outline: Outline,
    /// What is wrong with this part, if anything is: then all of the above may be too.
    pub problems: Option<ConfigErrors>,
}

/// Reads that part of `file`, `conf.d/*.toml` beside it and the environment. Blocks on the file system.
#[must_use]
pub fn load_client(file: &Path) -> Client {
    let mut findings = Findings::default();
    let (merged, files) = sources(file, std::env::vars_os().collect(), &mut findings);
    let store = sections::store(&merged, Pace::Loopback, &mut findings);
    let socket = merged.section("daemon").path("socket", &mut findings).map(|socket| socket.value);
    // What is wrong with it is the daemon's business.
    let dlp = sections::dlp(&merged, Pace::Loopback, &mut Findings::default());
    let problems = (!findings.problems.is_empty()).then(|| in_order(findings.problems, &files));
    Client { socket: admin_socket(&store, socket.as_deref()), store, dlp, outline: outline(&merged), problems }
}

/// What is wrong with a tenant, or with what it needs, keeps nobody from asking about the others.
fn outline(merged: &merged::Merged) -> Outline {
    let mut ignored = Findings::default();
    let clouds = clouds::clouds(merged, &mut ignored);
    let mut outline = Outline {
        apps: merged.named("apps").into_keys().map(str::to_owned).collect(),
        clouds: clouds.names().map(str::to_owned).collect(),
        without_audit: clouds.without_audit(),
        health: sections::health(merged, Pace::Loopback, &mut ignored).enabled,
        cloud_apps: clouds.apps.into_iter().map(|(cloud, app)| (cloud, app.value)).collect(),
        ..Outline::default()
    };
    if merged.has("app") {
        outline.apps.insert(String::new());
    }
    for table in merged.entries("tenants") {
        let Some(id) = table.parsed("id", &mut ignored, str::parse::<TenantId>) else { continue };
        // It is printed in tables.
        let name = table.text("name", &mut ignored).filter(|name| !name.value.chars().any(char::is_control));
        let name = name.map_or_else(|| id.value.to_string(), |name| name.value.trim().to_owned());
        let enabled = table.flag("enabled", &mut ignored).is_none_or(|enabled| enabled.value);
        let cloud = table.text("cloud", &mut ignored).map(|cloud| cloud.value);
        let cloud = cloud.unwrap_or_else(|| tenants::DEFAULT_CLOUD.to_owned());
        let app = table.text("app", &mut ignored).map(|app| app.value);
        let app = app.or_else(|| outline.cloud_apps.get(&cloud).cloned()).unwrap_or_default();
        let has_audit = !outline.without_audit.contains(&cloud);
        let content_types =
            tenants::content_types(&table, has_audit, &mut ignored).unwrap_or(ContentType::AUDIT.into());
        let (origin, line) = tenants::origin(&table.place);
        let known = KnownTenant { name, enabled, cloud, app, content_types, origin, line };
        outline.tenants.entry(id.value).or_insert(known);
    }
    outline
}
