//! The configuration: as written → merged → validated.
//!
//! - As written (`written`): each file is TOML; each value keeps the line that it stands on. Not deserialised by
//!   serde, which would stop at the first error and forget the line.
//! - Merged (`merged`): built-in defaults, then `--config FILE`, then `conf.d/*.toml` beside it in name order, then
//!   `TENANTRY__SECTION__KEY` from the environment. A later source replaces single keys of an earlier one;
//!   `[[tenants]]` of all files are joined. Names of the platform's (`ambient`) fill in what none of them says.
//! - Validated: [`Settings`], the only type that the rest of the crate sees. Its values cannot be wrong: hosts are
//!   checked, certificates are loaded and match their keys, each tenant's app and cloud exist.
//!
//! **Guarantees:** a problem never hides another: [`load`] reports all of them, each with its file, line, key and
//! what to change. A secret's value is in no problem, no warning and no `Debug` output.
//!
//! On an error nothing is applied: at start the daemon ends with exit code 78 (77 if the files may not be read), at
//! a reload it keeps the configuration that it has.

mod ambient;
mod client;
mod clouds;
mod credentials;
pub mod duration;
mod environment;
mod file;
mod listener;
mod merged;
mod network;
mod operator;
mod outline;
mod problem;
mod public;
mod schema;
mod sections;
mod settings;
mod show;
pub mod size;
mod tenants;
#[cfg(test)]
mod tests;
mod written;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

pub use client::{Client, load_client};
pub use listener::{ListenerTls, Stamps};
pub use network::{Network, Proxy, ProxyCredentials, Roots, Route, Setting};
pub use outline::{KnownTenant, Origin, Outline};
pub use problem::{ConfigErrors, Place, Problem};
pub use settings::{
    App, Collect, ConsentFlow, CredentialFile, Daemon, Dlp, Health, Log, LogFormat, Operator, Public, Removal,
    Settings, StoreSettings, Tenant, TokenSettings,
};

use crate::cloud::TokenEndpoint;
use crate::token::Signing;
use ambient::Ambient;
use problem::Findings;
use sections::Pace;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/tenantry/tenantry.toml";

/// Reads, merges and validates `file`, `conf.d/*.toml` beside it and the environment. Blocks on the file system.
///
/// # Errors
/// Every problem in every source, in one go.
pub fn load(file: &Path) -> Result<Settings, ConfigErrors> {
    load_with(file, std::env::vars_os())
}

/// [`load`] with another environment.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    file: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, ConfigErrors> {
    let mut findings = Findings::default();
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let mut variables = environment::used(environment.iter().map(|(name, value)| (name, value)));
    let ambient = Ambient::of(environment.iter().map(|(name, value)| (name, value)));
    let proxies = network::Variables::of(&environment);
    let (merged, files) = sources(file, environment, &mut findings);
    let settings = validate(&merged, &ambient, &files, &mut findings);
    let read = settings.apps.values().flat_map(|app| app.variables.iter().map(|(_, variable)| (*variable).to_owned()));
    variables.extend(read);
    let settings = Settings { variables, network: network::network(&merged, &proxies, &mut findings), ..settings };
    let Findings { problems, warnings, .. } = findings;
    if problems.is_empty() {
        return Ok(Settings { warnings, ..settings });
    }
    Err(in_order(problems, &files))
}

/// Reads and merges all sources.
fn sources(
    file: &Path,
    environment: Vec<(OsString, OsString)>,
    findings: &mut Findings,
) -> (merged::Merged, Vec<Arc<Path>>) {
    let files = files(file, findings);
    let written = files
        .iter()
        .enumerate()
        .filter_map(|(number, path)| Some((number, written::read(path, number, findings)?)))
        .collect();
    (merged::merge(files.clone(), written, environment, findings), files)
}

/// The problems in the order of their sources.
fn in_order(mut problems: Vec<Problem>, files: &[Arc<Path>]) -> ConfigErrors {
    let numbers: HashMap<&Path, usize> = files.iter().map(AsRef::as_ref).zip(0..).collect();
    let order = |problem: &Problem| match &problem.place {
        Place::File { path, line, column } => (numbers.get(path.as_ref()).copied(), *line, *column, String::new()),
        Place::Environment { variable } => (Some(usize::MAX), None, None, variable.clone()),
    };
    problems.sort_by_cached_key(order);
    problems.dedup();
    ConfigErrors::new(problems)
}

/// The files in the order in which they are read.
fn files(file: &Path, findings: &mut Findings) -> Vec<Arc<Path>> {
    let mut files: Vec<Arc<Path>> = vec![file.into()];
    let folder = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let problem = |error: &std::io::Error| Problem {
        permission: error.kind() == std::io::ErrorKind::PermissionDenied,
        ..Problem::new(Place::file(&folder, None), "", format!("the folder cannot be read: {error}"))
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                findings.incomplete = true;
                findings.problems.push(problem(&error));
            }
            return files;
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        match entry.map(|entry| entry.path()) {
            // Editors and package managers leave hidden copies.
            Ok(path)
                if path.extension().is_some_and(|extension| extension == "toml")
                    && !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) =>
            {
                found.push(path);
            }
            Ok(_) => {}
            Err(error) => {
                findings.incomplete = true;
                findings.problems.push(problem(&error));
            }
        }
    }
    found.sort();
    files.extend(found.into_iter().map(Into::into));
    files
}

/// What the merged sources mean. Worth something only if there are no problems in the end.
fn validate(merged: &merged::Merged, ambient: &Ambient, files: &[Arc<Path>], findings: &mut Findings) -> Settings {
    let clouds = clouds::clouds(merged, findings);
    // Which pace is allowed depends on the tenants, whose apps' signing depends on the token endpoint.
    let endpoint = sections::token(merged, Pace::Loopback, &mut Findings::default()).endpoint;
    let signing = match endpoint {
        TokenEndpoint::V2 => Signing::Ps256,
        TokenEndpoint::V1 => Signing::Rs256,
    };
    let apps = tenants::apps(merged, ambient, signing, findings);
    tenants::check_clouds(&apps, &clouds, findings);
    // What is wrong with that section is told below.
    let health = sections::health(merged, Pace::Loopback, &mut Findings::default()).enabled;
    let tenants = tenants::tenants(merged, &apps, &clouds, health, findings);
    tenants::check_authority(ambient, &apps, &tenants, findings);
    let pace = if tenants::are_local(merged, &clouds) { Pace::Loopback } else { Pace::Microsoft };
    Settings {
        apps: apps.into_iter().filter_map(|(name, app)| Some((name, app?))).collect(),
        tenants,
        cloud_apps: clouds.apps.into_iter().map(|(cloud, app)| (cloud, app.value)).collect(),
        clouds: clouds.known,
        network: Network::default(),
        token: sections::token(merged, pace, findings),
        collect: sections::collect(merged, pace, findings),
        dlp: sections::dlp(merged, pace, findings),
        health: sections::health(merged, pace, findings),
        store: sections::store(merged, pace, findings),
        log: sections::log(merged, findings),
        daemon: sections::daemon(merged, findings),
        operator: operator::operator(merged, findings),
        public: public::public(merged, findings),
        sources: files.iter().map(|path| path.to_path_buf()).collect(),
        variables: BTreeSet::new(),
        warnings: Vec::new(),
    }
}
