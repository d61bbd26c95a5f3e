//! `[clouds.NAME]`: clouds beside the presets, and the app that a cloud's tenants use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use url::{Host, Url};

use super::merged::{At, Merged, Table};
use super::problem::Findings;
use super::schema;
use crate::cloud::{Cloud, Management, PRESETS};

/// The clouds, and what of them is not part of [`Cloud`].
pub(super) struct Clouds {
    pub(super) known: BTreeMap<String, Arc<Cloud>>,
    /// The app of a cloud's tenants that name none.
    pub(super) apps: BTreeMap<String, At<String>>,
    /// Those that are written but wrong, so that nobody is told that they do not exist.
    pub(super) broken: Vec<String>,
}

impl Clouds {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().chain(&self.broken).map(String::as_str)
    }

    /// Those that have no Activity API.
    pub(super) fn without_audit(&self) -> BTreeSet<String> {
        without_audit(&self.known)
    }
}

/// Of these clouds, the names of those that have no Activity API.
pub(super) fn without_audit(clouds: &BTreeMap<String, Arc<Cloud>>) -> BTreeSet<String> {
    clouds.values().filter(|cloud| cloud.management.is_none()).map(|cloud| cloud.name.clone()).collect()
}

const HOSTS: [&str; 5] = ["authority", "management", "graph", "management_audience", "graph_audience"];

pub(super) fn clouds(merged: &Merged, findings: &mut Findings) -> Clouds {
    let mut clouds = Clouds {
        known: PRESETS.into_iter().filter_map(|name| Some((name.to_owned(), Arc::new(Cloud::preset(name)?)))).collect(),
        apps: BTreeMap::new(),
        broken: Vec::new(),
    };
    for (name, table) in merged.named("clouds") {
        if let Some(app) = table.text("app", findings) {
            clouds.apps.insert(name.to_owned(), app);
        }
        if PRESETS.contains(&name) {
            for key in HOSTS.into_iter().filter(|key| table.has(key)) {
                let message =
                    format!("`{name}` is Microsoft's and its hosts are fixed; give a cloud of your own another name");
                findings.problem(&table.place_of(key), &table.key(key), message);
            }
        } else {
            match cloud(name, &table, findings) {
                Some(cloud) => drop(clouds.known.insert(name.to_owned(), Arc::new(cloud))),
                None => clouds.broken.push(name.to_owned()),
            }
        }
    }
    clouds
}

fn cloud(name: &str, table: &Table<'_>, findings: &mut Findings) -> Option<Cloud> {
    let named = valid_name(name, table, findings);
    if !table.has("authority") {
        let message =
            format!("`{}` has no `authority`; set it, a cloud of your own takes nothing from another", table.path);
        findings.missing(&table.place, &table.key("authority"), message);
    }
    if !table.has("management") && !table.has("graph") {
        let message = format!(
            "`{}` has no `management`; set it, a cloud of your own takes nothing from another; or set `graph` alone, for a \
             cloud without audit records",
            table.path
        );
        findings.missing(&table.place, &table.key("management"), message);
    }
    if table.has("management_audience") && !table.has("management") {
        let message = "there is no `management` whose audience it could be; set that, or remove this";
        findings.problem(&table.place_of("management_audience"), &table.key("management_audience"), message);
    }
    let authority = table.parsed("authority", findings, host);
    let management = table.parsed("management", findings, host);
    let graph = table.parsed("graph", findings, host);
    let management_audience = table.parsed("management_audience", findings, audience);
    let graph_audience = table.parsed("graph_audience", findings, audience);
    let wrong = |key, found: bool| table.has(key) && !found;
    if !named
        || (table.has("management_audience") && !table.has("management"))
        || wrong("graph", graph.is_some())
        || wrong("management", management.is_some())
        || wrong("management_audience", management_audience.is_some())
        || wrong("graph_audience", graph_audience.is_some())
    {
        return None;
    }
    let (authority, management) = (authority?.value, management.map(|management| management.value));
    let graph = graph.map(|graph| graph.value).or_else(|| management.clone())?;
    let origin = |url: &Url| url.origin().ascii_serialization();
    let management = management.map(|host| Management {
        audience: management_audience.map_or_else(|| origin(&host), |found| found.value),
        host,
    });
    Some(Cloud {
        name: name.to_owned(),
        graph_audience: graph_audience.map_or_else(|| origin(&graph), |found| found.value),
        authority,
        management,
        graph,
    })
}

/// Names of apps and clouds are written in commands, variables and labels.
pub(super) fn valid_name(name: &str, table: &Table<'_>, findings: &mut Findings) -> bool {
    let valid =
        !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !valid {
        findings.problem(&table.place, &table.path, "a name has 1 to 64 letters, digits, `_` and `-`; choose another");
    }
    valid
}

/// A scheme and a host that a token may be sent to.
fn host(text: &str) -> Result<Url, String> {
    // Not shown: there may be a password before it.
    if text.contains('@') {
        return Err("there is a user name in it (an `@`); leave it out and write `https://HOST`".to_owned());
    }
    let url = match Url::parse(text) {
        Ok(url) if url.has_host() => url,
        _ => return Err(format!("`{text}` is no address; write it as `https://HOST`")),
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("there is more than a host in it; write `{}`", url.origin().ascii_serialization()));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(format!(
            "`{text}` would send tokens unencrypted; write `https://`, plain http is only for loopback hosts"
        )),
        scheme => Err(format!("`{scheme}` is no scheme for it; write `https://HOST`")),
    }
}

fn audience(text: &str) -> Result<String, String> {
    match text.strip_suffix("/.default") {
        Some(audience) => Err(format!("leave `/.default` out: write `{audience}`")),
        None => Ok(text.to_owned()),
    }
}

/// Whether nothing sent there leaves this host.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether the cloud is on this host altogether.
pub(super) fn on_loopback(cloud: &Cloud) -> bool {
    let management = cloud.management.as_ref().map(|management| &management.host);
    [&cloud.authority, &cloud.graph].into_iter().chain(management).all(is_loopback)
}

/// What to tell someone who named a cloud that does not exist.
pub(super) fn unknown(name: &str, clouds: &Clouds) -> String {
    let near = schema::nearest(name, clouds.names()).map(|near| format!("did you mean `{near}`? "));
    format!(
        "there is no cloud `{name}`; {}the clouds are {}, others are made by `[clouds.NAME]`",
        near.unwrap_or_default(),
        schema::list(clouds.names())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_that_a_token_may_be_sent_to() {
        for text in [
            "https://login.example",
            "https://login.example/",
            "https://10.0.0.1:8443",
            "http://localhost:1",
            "http://127.1.2.3:80",
            "http://[::1]:9",
        ] {
            assert!(host(text).is_ok(), "{text}");
        }
        for (text, message) in [
            (
                "http://login.example",
                "`http://login.example` would send tokens unencrypted; write `https://`, plain http is only for loopback hosts",
            ),
            (
                "http://localhost.example",
                "`http://localhost.example` would send tokens unencrypted; write `https://`, plain http is only for loopback hosts",
            ),
            (
                "http://127.0.0.1.example",
                "`http://127.0.0.1.example` would send tokens unencrypted; write `https://`, plain http is only for loopback hosts",
            ),
            (
                "https://a:hunter2@login.example",
                "there is a user name in it (an `@`); leave it out and write `https://HOST`",
            ),
            (
                "https://a:hunter2@login exam ple",
                "there is a user name in it (an `@`); leave it out and write `https://HOST`",
            ),
            ("https://login.example/?key=hunter2", "there is more than a host in it; write `https://login.example`"),
            ("https://login.example/common", "there is more than a host in it; write `https://login.example`"),
            ("ftp://login.example", "`ftp` is no scheme for it; write `https://HOST`"),
            ("login.example", "`login.example` is no address; write it as `https://HOST`"),
            ("https://", "`https://` is no address; write it as `https://HOST`"),
        ] {
            assert_eq!(host(text), Err(message.to_owned()), "{text}");
        }
    }
}
