//! The settings in effect, written as a configuration again, and what time does to them.
//!
//! **Invariant:** no secret is written; a secret that stands in a file leads to the file's name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::network::{ENVIRONMENT, OFF};
use super::problem::{Place, Problem};
use super::sections::{FOREVER, UNLIMITED};
use super::settings::{App, ConsentFlow, CredentialFile, Dlp, Health, LogFormat, Settings, Tenant};
use super::{ListenerTls, Proxy, Setting, duration, size};
use crate::cloud::{PRESETS, TokenEndpoint};
use crate::store::Keep;
use crate::tls::Authorities;
use crate::token::{Certificate, Credential, Federated, Signing};

/// How long before its end a certificate is worth a warning: enough for two people in two organisations.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

impl Settings {
    /// Everything that is in effect except the tenants, as TOML: apps with their certificates described in
    /// comments (which of them signs depends on `now`), clouds, and every other key with its value.
    #[must_use]
    pub fn to_toml(&self, now: Timestamp) -> String {
        let mut text = String::new();
        // A `String` takes everything that is written to it.
        let _ = self.write(now, &mut text);
        text
    }

    fn write(&self, now: Timestamp, out: &mut String) -> std::fmt::Result {
        for app in self.apps.values() {
            write_app(app, now, out)?;
        }
        for cloud in self.clouds.values() {
            let is_preset = PRESETS.contains(&cloud.name.as_str());
            let app = self.cloud_apps.get(&cloud.name);
            if is_preset && app.is_none() {
                continue;
            }
            writeln!(out, "[clouds.{}]", cloud.name)?;
            if let Some(app) = app {
                writeln!(out, "app = {}", quoted(app))?;
            }
            if is_preset {
                writeln!(out)?;
                continue;
            }
            let management = cloud.management.as_ref();
            for (key, value) in [
                ("authority", Some(cloud.authority.as_str())),
                ("management", management.map(|management| management.host.as_str())),
                ("graph", Some(cloud.graph.as_str())),
                ("management_audience", management.map(|management| management.audience.as_str())),
                ("graph_audience", Some(cloud.graph_audience.as_str())),
            ] {
                if let Some(value) = value {
                    writeln!(out, "{key} = {}", quoted(value))?;
                }
            }
            writeln!(out)?;
        }
        self.write_network(out)?;
        let endpoint = match self.token.endpoint {
            TokenEndpoint::V2 => "v2",
            TokenEndpoint::V1 => "v1",
        };
        let span = |span| quoted(&duration::display(span));
        writeln!(out, "[token]")?;
        writeln!(out, "endpoint = {}", quoted(endpoint))?;
        writeln!(out, "renew_after = {}\n", span(self.token.renew_after))?;

        let collect = &self.collect;
        writeln!(out, "[collect]")?;
        writeln!(out, "poll_interval = {}", span(collect.poll_interval))?;
        writeln!(out, "overlap = {}", span(collect.overlap))?;
        writeln!(out, "recent_interval = {}", span(collect.recent_interval))?;
        writeln!(out, "recent_span = {}", span(collect.recent_span))?;
        writeln!(out, "sweep_interval = {}", span(collect.sweep_interval))?;
        writeln!(out, "backfill = {}", span(collect.backfill))?;
        writeln!(out, "concurrency_per_tenant = {}", collect.concurrency_per_tenant)?;
        writeln!(out, "concurrency = {}", collect.concurrency)?;
        writeln!(out, "max_blob_size = {}\n", quoted(&size::display(collect.max_blob_bytes)))?;

        write_dlp(&self.dlp, out)?;
        write_health(&self.health, out)?;
        writeln!(out, "[store]")?;
        writeln!(out, "path = {}", quoted_path(&self.store.path))?;
        writeln!(out, "partition_size = {}", quoted(&size::display(self.store.partition_bytes)))?;
        writeln!(out, "reserve = {}", quoted(&size::display(self.store.reserve_bytes)))?;
        let Keep { time, bytes } = self.store.keep;
        writeln!(out, "keep_for = {}", time.map_or_else(|| quoted(FOREVER), span))?;
        writeln!(out, "keep_at_most = {}", quoted(&bytes.map_or_else(|| UNLIMITED.to_owned(), size::display)))?;
        writeln!(out)?;

        let format = match self.log.format {
            LogFormat::Auto => "auto",
            LogFormat::Journald => "journald",
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        writeln!(out, "[log]")?;
        writeln!(out, "format = {}", quoted(format))?;
        writeln!(out, "level = {}\n", quoted(&self.log.level))?;

        writeln!(out, "[daemon]")?;
        writeln!(out, "drain = {}", span(self.daemon.drain))?;
        writeln!(out, "socket = {}", quoted_path(&self.admin_socket()))?;
        writeln!(out, "start_spread = {}\n", span(self.daemon.start_spread))?;

        let operator = &self.operator;
        let listen = operator.listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
        writeln!(out, "[operator]")?;
        writeln!(out, "listen = {}", quoted(&listen))?;
        if let Some((_, file)) = &operator.token {
            writeln!(out, "token_file = {}", quoted_path(file))?;
        }
        if let Some(tls) = &operator.tls {
            write_tls(tls, out)?;
        }
        writeln!(out, "tenant_labels = {}\n", operator.tenant_labels)?;

        self.write_public(out)
    }

    fn write_public(&self, out: &mut String) -> std::fmt::Result {
        let public = &self.public;
        let listen = public.listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
        writeln!(out, "[public]")?;
        writeln!(out, "listen = {}", quoted(&listen))?;
        let words = [("organisation", &public.organisation), ("contact", &public.contact)];
        let url = public.url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        for (key, value) in std::iter::once(("url", &url)).chain(words) {
            if let Some(value) = value {
                writeln!(out, "{key} = {}", quoted(value))?;
            }
        }
        if let Some(tls) = &public.tls {
            write_tls(tls, out)?;
        }
        let flow = match public.flow {
            ConsentFlow::V2 => "v2",
            ConsentFlow::V1 => "v1",
        };
        writeln!(out, "flow = {}", quoted(flow))?;
        match &public.webhook_key {
            Some((_, file)) => writeln!(out, "webhook_key_file = {}", quoted_path(file)),
            None => Ok(()),
        }
    }

    /// `[network]`, and how each of the hosts is reached that tenants have to do with.
    fn write_network(&self, out: &mut String) -> std::fmt::Result {
        let network = &self.network;
        let own = network.proxy.as_ref().filter(|proxy| matches!(proxy.from, Setting::Key(_)));
        let named = own.map_or(if network.off { OFF } else { ENVIRONMENT }, Proxy::shown);
        writeln!(out, "[network]\nproxy = {}", quoted(named))?;
        for (key, file) in network.files() {
            writeln!(out, "{key} = {}", quoted_path(file))?;
        }
        if let Some(Proxy { direct, direct_from: Setting::Key(_), .. }) = &network.proxy {
            let hosts: Vec<_> = direct.iter().map(|host| quoted(host)).collect();
            writeln!(out, "no_proxy = [{}]", hosts.join(", "))?;
        }
        for root in network.roots.iter().flat_map(|roots| roots.authorities.subjects()) {
            writeln!(out, "# believes {}", one_line(root))?;
        }
        for (variable, key) in &network.overruled {
            writeln!(out, "# {variable} of the environment is not used, since `{key}` is set")?;
        }
        let of = |tenant: &Tenant| {
            let management = tenant.cloud.management.as_ref().map(|management| management.host.clone());
            let graph = (self.health.enabled || management.is_none()).then(|| tenant.cloud.graph.clone());
            [Some(tenant.cloud.authority.clone()), management, graph].into_iter().flatten()
        };
        let hosts: BTreeSet<_> = self.tenants.values().filter(|tenant| tenant.enabled).flat_map(of).collect();
        for host in hosts {
            let route = one_line(&network.route(&host).to_string());
            writeln!(out, "# {} is reached {route}", host.as_str().trim_end_matches('/'))?;
        }
        writeln!(out)
    }

    /// The apps' certificates that need a person at `now`: expired, about to expire, or not valid yet. An app that has a
    /// certificate which outlasts them is not mentioned. An expired certificate is not an error of the
    /// configuration: it concerns one app, and the others go on.
    #[must_use]
    pub fn expiries(&self, now: Timestamp) -> Vec<Problem> {
        self.apps.values().filter_map(|app| app.expiry(now)).collect()
    }
}

impl App {
    /// The same of this app alone.
    #[must_use]
    pub fn expiry(&self, now: Timestamp) -> Option<Problem> {
        let Credential::Certificates { list, .. } = &self.credential else { return None };
        let told = |certificate: &Certificate| {
            let name = format!("`{}` (SHA-1 thumbprint {})", certificate.subject(), certificate.sha1_hex());
            let renew = "make a new one, add it to the app registration, and name it here";
            ending(&name, (certificate.not_before(), certificate.not_after()), now, renew)
        };
        if list.iter().any(|certificate| told(certificate).is_none()) {
            return None;
        }
        let certificate = self.credential.certificate(now)?;
        let message = told(certificate)?;
        let thumbprint = certificate.sha256_hex();
        let own = self.files.iter().find(|file| file.certificate.as_deref() == Some(thumbprint));
        let CredentialFile { key, path, .. } = own.or_else(|| self.files.first())?;
        Some(Problem::new(Place::file(path, None), format!("{}.{key}", self.section()), message))
    }
}

impl ListenerTls {
    /// The same of the listener's certificate, without which collection goes on too.
    #[must_use]
    pub fn expiry(&self, now: Timestamp) -> Option<Problem> {
        let certificate = self.tls().certificate();
        let name = format!("`{}` (SHA-256 thumbprint {})", certificate.subject(), certificate.sha256_hex());
        let told = ending(
            &name,
            (certificate.not_before(), certificate.not_after()),
            now,
            "put a new one in its place, which is noticed by itself",
        )?;
        let (place, key) = self.certificate_file();
        Some(Problem::new(place, key, told))
    }
}

/// What a person has to do about a certificate of this validity, if anything; `renew` is for one that ends.
fn ending(name: &str, (begins, ends): (Timestamp, Timestamp), now: Timestamp, renew: &str) -> Option<String> {
    let soon = now.checked_add(SOON).unwrap_or(Timestamp::MAX);
    if ends < now {
        Some(format!("the certificate {name} expired at {ends}; {renew}"))
    } else if begins > now {
        Some(format!("the certificate {name} is not valid before {begins}; wait, or correct this host's clock"))
    } else if ends <= soon {
        let days = ends.duration_since(now).as_hours() / 24;
        Some(format!("the certificate {name} expires at {ends}, in {days} days; {renew}"))
    } else {
        None
    }
}

fn write_app(app: &App, now: Timestamp, out: &mut String) -> std::fmt::Result {
    writeln!(out, "[{}]", app.section())?;
    // Where a value comes from that no file of ours has.
    let origin = |key: &str| {
        let variable = app.variables.iter().find(|(filled, _)| *filled == key);
        variable.map_or_else(String::new, |(_, variable)| format!(" # from the environment variable {variable}"))
    };
    writeln!(out, "client_id = {}{}", quoted(&app.client_id), origin("client_id"))?;
    if let Some(publisher_id) = app.publisher_id {
        writeln!(out, "publisher_id = {}{}", quoted(&publisher_id.to_string()), origin("publisher_id"))?;
    }
    match &app.credential {
        Credential::Certificates { signing, .. } => {
            let signing = match signing {
                Signing::Ps256 => "PS256",
                Signing::Rs256 => "RS256",
            };
            writeln!(out, "signing = {}", quoted(signing))?;
        }
        Credential::Secret(_) if app.files.is_empty() => writeln!(out, "client_secret = \"[redacted]\"")?,
        Credential::Federated(Federated::Identity(identity)) => {
            writeln!(out, "managed_identity = {}", quoted(&identity.name()))?;
            let variable = app.variables.iter().find(|(key, _)| *key == "managed_identity");
            let named = variable.map_or_else(String::new, |(_, name)| format!(" (environment variable {name})"));
            writeln!(out, "# its tokens come from {}{named}", identity.service())?;
        }
        Credential::Secret(_) | Credential::Federated(Federated::File(_)) => {}
    }
    for key in [
        "certificate_file",
        "private_key_file",
        "pkcs12_file",
        "pkcs12_password_file",
        "client_secret_file",
        "federated_token_file",
    ] {
        let files: Vec<_> =
            app.files.iter().filter(|file| file.key == key).map(|file| quoted_path(&file.path)).collect();
        match files.as_slice() {
            [] => {}
            [file] => writeln!(out, "{key} = {file}{}", origin(key))?,
            files => writeln!(out, "{key} = [{}]", files.join(", "))?,
        }
    }
    if let Credential::Certificates { list, .. } = &app.credential {
        let first = app.credential.certificate(now);
        for certificate in list {
            let signs = if list.len() > 1 && Some(certificate) == first { " (signs first)" } else { "" };
            writeln!(
                out,
                "# {}, RSA with {} bits, valid from {} to {}{signs}\n#   SHA-1   {}\n#   SHA-256 {}",
                one_line(certificate.subject()),
                certificate.key_bits(),
                certificate.not_before(),
                certificate.not_after(),
                certificate.sha1_hex(),
                certificate.sha256_hex()
            )?;
        }
    }
    writeln!(out)
}

fn write_dlp(dlp: &Dlp, out: &mut String) -> std::fmt::Result {
    let languages: Vec<_> = dlp.languages.iter().map(|language| quoted(language.as_str())).collect();
    writeln!(out, "[dlp]")?;
    writeln!(out, "languages = [{}]", languages.join(", "))?;
    writeln!(out, "refresh_interval = {}\n", quoted(&duration::display(dlp.refresh_interval)))
}

fn write_health(health: &Health, out: &mut String) -> std::fmt::Result {
    let span = |span| quoted(&duration::display(span));
    writeln!(out, "[health]")?;
    writeln!(out, "enabled = {}", health.enabled)?;
    writeln!(out, "poll_interval = {}", span(health.poll_interval))?;
    writeln!(out, "overlap = {}", span(health.overlap))?;
    writeln!(out, "sweep_interval = {}\n", span(health.sweep_interval))
}

fn write_tls(tls: &ListenerTls, out: &mut String) -> std::fmt::Result {
    for (key, path) in tls.named() {
        writeln!(out, "{key} = {}", quoted_path(path))?;
    }
    let certificate = tls.tls().certificate();
    let names = if certificate.names().is_empty() { "no host".to_owned() } else { certificate.names().join(", ") };
    writeln!(
        out,
        "# {} for {}, valid from {} to {}\n#   SHA-256 {}",
        one_line(certificate.subject()),
        one_line(&names),
        certificate.not_before(),
        certificate.not_after(),
        certificate.sha256_hex()
    )?;
    for authority in tls.tls().authorities().into_iter().flat_map(Authorities::subjects) {
        writeln!(out, "# callers by {}", one_line(authority))?;
    }
    Ok(())
}

/// A subject comes from a file; in a comment it must stay one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
