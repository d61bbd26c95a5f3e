//! What a platform says in the environment, under names that are not ours: who the app is and where its tokens are.
//!
//! The names are those of the workload identity webhook for Kubernetes and of Azure's hosts, which every Azure library reads.
//! They count only where the configuration says nothing, so that a file is never overruled by where it is read.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::problem::Place;

/// The file of the federated token.
pub(super) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// The app's client id.
pub(super) const CLIENT_ID: &str = "AZURE_CLIENT_ID";
/// The tenant that the app is registered in.
pub(super) const TENANT_ID: &str = "AZURE_TENANT_ID";
/// The authority that takes the token.
pub(super) const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";
/// Where the instance metadata service is, if a pod has one of its own.
pub(super) const METADATA_HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
/// Where App Service and Container Apps hand out tokens of managed identities,
pub(super) const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";
/// and what they want to be shown.
pub(super) const IDENTITY_HEADER: &str = "IDENTITY_HEADER";

const NAMES: [&str; 7] =
    [TOKEN_FILE, CLIENT_ID, TENANT_ID, AUTHORITY_HOST, METADATA_HOST, IDENTITY_ENDPOINT, IDENTITY_HEADER];

/// The variables that are set. One of them is secret: there is no `Debug`.
#[derive(Default)]
pub(super) struct Ambient(BTreeMap<&'static str, String>);

impl Ambient {
    /// Those among `environment`; empty ones count as unset.
    pub(super) fn of<'e>(environment: impl IntoIterator<Item = (&'e OsString, &'e OsString)>) -> Self {
        let known = |name: &OsString| NAMES.into_iter().find(|known| name == known);
        let set = environment.into_iter().filter_map(|(name, value)| {
            let value = value.to_str().map(str::trim).filter(|value| !value.is_empty())?;
            Some((known(name)?, value.to_owned()))
        });
        Self(set.collect())
    }

    /// The value of one of the names above.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether the platform alone says who the app is and how it proves that.
    pub(super) fn is_whole(&self) -> bool {
        self.get(CLIENT_ID).is_some() && self.get(TOKEN_FILE).is_some()
    }

    /// Where the value of `name` was written.
    pub(super) fn place(name: &str) -> Place {
        Place::Environment { variable: name.to_owned() }
    }
}
