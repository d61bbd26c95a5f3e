//! `tenantry cert manifest`: the app registration as Entra takes it, in the form of Microsoft Graph.
//!
//! Standard output is JSON and nothing else; what there is to know about it goes to standard error. The same
//! configuration gives the same text, so that a manifest that was pasted before can be compared.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use serde::Serialize;
use url::Url;
use uuid::Uuid;

use super::{show, users};
use crate::cli::out::print_outcome;
use crate::cli::{Ended, Exit};
use crate::cloud::TokenEndpoint;
use crate::config::{self, App, ConsentFlow, Public, Settings};
use crate::consent::address::redirect_uri as redirect_uri_of;
use crate::permissions::{self, Api};
use crate::token::{Credential, PublicCertificate};

/// The arguments of `tenantry cert manifest`.
#[derive(Debug, Args)]
#[command(
    after_help = "In the Entra admin center: App registrations, the app, Manifest, Microsoft Graph App Manifest; \
                        replace the fields that are printed here, and add to `keyCredentials` those that must stay. \
                        In the older AAD Graph form of the manifest, a certificate stands under `value` and not \
                        `key`.\n\n\
                        ActivityFeed.ReadDlp opens the sensitive content of DLP events and is printed with --dlp only; the \
                        roles of Microsoft Graph where `[health]` is enabled, or with --health.\n\n\
                        Examples:\n  tenantry cert manifest --url https://collector.example\n  \
                        tenantry cert manifest --certificate tenantry.crt > manifest.json"
)]
pub struct ManifestArgs {
    /// The app of `[apps.NAME]`; `[app]` without it
    #[arg(long, value_name = "NAME", conflicts_with = "certificates")]
    pub app: Option<String>,
    /// A certificate's file, instead of those of the configuration; may be given several times
    #[arg(long = "certificate", value_name = "FILE")]
    pub certificates: Vec<PathBuf>,
    /// Where Entra sends people back to after a sign-in; may be given several times
    #[arg(long = "redirect-uri", value_name = "URI", value_parser = redirect_uri)]
    pub redirect_uris: Vec<Url>,
    /// The public address of the collector, for the redirect URI of each cloud; that of `[public]` without it
    #[arg(long, value_name = "URL", value_parser = public_url)]
    pub url: Option<Url>,
    /// A cloud whose customers are invited; without it, those of the app's tenants
    #[arg(long = "cloud", value_name = "NAME")]
    pub clouds: Vec<String>,
    /// Ask for ActivityFeed.ReadDlp too, for the content type DLP.All
    #[arg(long)]
    pub dlp: bool,
    /// Ask for the roles of Microsoft Graph too, whether or not `[health]` is enabled
    #[arg(long)]
    pub health: bool,
    /// How customers consent: v1 is the flow of Microsoft's page of 2019, with delegated permissions; that of `[public]`
    /// without it
    #[arg(long, value_enum)]
    pub flow: Option<Flow>,
}

/// The ways of consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flow {
    /// Application permissions only.
    V2,
    /// Delegated permissions as well.
    V1,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    sign_in_audience: &'static str,
    web: Web,
    required_resource_access: Vec<Required>,
    key_credentials: Vec<Uploaded>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Web {
    redirect_uris: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    resource_app_id: Uuid,
    resource_access: Vec<Access>,
}

#[derive(Debug, Serialize)]
struct Access {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Uploaded {
    custom_key_identifier: String,
    key_id: Uuid,
    #[serde(rename = "type")]
    kind: &'static str,
    usage: &'static str,
    key: String,
    display_name: String,
}

/// Prints the manifest.
pub(super) async fn manifest(config: &Path, args: &ManifestArgs) -> anyhow::Result<Exit> {
    let (certificates, clouds, public, health) = if args.certificates.is_empty() {
        let settings = config::load(config)?;
        let app = app(&settings, args.app.as_deref().unwrap_or_default())?;
        let users = users(config, &settings).await.into_iter();
        let clouds = users.filter(|user| user.app == app.section()).map(|user| user.cloud).collect();
        (of_app(app), clouds, settings.public.clone(), settings.health.enabled)
    } else {
        let mut certificates = Vec::new();
        for file in &args.certificates {
            certificates.extend(show::read(file, None)?);
        }
        (certificates, BTreeSet::new(), Public::default(), false)
    };
    let clouds = if args.clouds.is_empty() { clouds } else { args.clouds.iter().cloned().collect() };
    let flow = match (args.flow, public.flow) {
        (Some(Flow::V1), _) | (None, ConsentFlow::V1) => TokenEndpoint::V1,
        (Some(Flow::V2), _) | (None, ConsentFlow::V2) => TokenEndpoint::V2,
    };
    let base = args.url.as_ref().or(public.url.as_ref());
    let manifest = Manifest {
        sign_in_audience: "AzureADMultipleOrgs",
        web: Web { redirect_uris: redirect_uris(args, base, &clouds) },
        required_resource_access: permissions::needed(args.dlp, args.health || health, flow)
            .iter()
            .map(|api| resource(api, flow))
            .collect(),
        key_credentials: certificates.iter().map(key).collect(),
    };
    let mut errors = io::stderr().lock();
    for note in notes(&manifest, &clouds) {
        // A note that nobody can see changes nothing about the manifest.
        let _ = writeln!(errors, "note: {note}");
    }
    print_outcome(&format!("{}\n", serde_json::to_string_pretty(&manifest)?))?;
    Ok(Exit::Done)
}

fn app<'s>(settings: &'s Settings, name: &str) -> Result<&'s App, Ended> {
    settings.apps.get(name).map(Arc::as_ref).ok_or_else(|| {
        let names: Vec<_> =
            settings.apps.keys().filter(|name| !name.is_empty()).map(|name| format!("`{name}`")).collect();
        let message = match (name, names.is_empty()) {
            ("", true) => "the configuration has no `[app]`; name a certificate with `--certificate`".to_owned(),
            ("", false) => format!("the configuration has no `[app]`; choose with `--app` from {}", names.join(", ")),
            (_, true) => format!("the configuration has no `[apps.{name}]`; leave `--app` out for `[app]`"),
            (_, false) => format!("the configuration has no `[apps.{name}]`; choose from {}", names.join(", ")),
        };
        Ended { exit: Exit::Usage, message }
    })
}

fn of_app(app: &App) -> Vec<PublicCertificate> {
    match &app.credential {
        Credential::Certificates { list, .. } => list.iter().map(|certificate| certificate.public().clone()).collect(),
        _ => Vec::new(),
    }
}

fn redirect_uris(args: &ManifestArgs, base: Option<&Url>, clouds: &BTreeSet<String>) -> Vec<String> {
    let mut uris: Vec<_> = args.redirect_uris.iter().map(Url::to_string).collect();
    if let Some(base) = base {
        let default = ["worldwide".to_owned()].into();
        let clouds = if clouds.is_empty() { &default } else { clouds };
        uris.extend(clouds.iter().map(|cloud| redirect_uri_of(base, cloud).into()));
    }
    uris
}

fn resource(api: &Api, flow: TokenEndpoint) -> Required {
    let roles = api.permissions.iter().filter_map(|one| Some(Access { id: one.role?, kind: "Role" }));
    let scopes = api.permissions.iter().map(|one| Access { id: one.scope, kind: "Scope" });
    let scopes = scopes.filter(|_| flow == TokenEndpoint::V1);
    Required { resource_app_id: api.id, resource_access: roles.chain(scopes).collect() }
}

fn key(certificate: &PublicCertificate) -> Uploaded {
    Uploaded {
        custom_key_identifier: certificate.custom_key_identifier(),
        key_id: certificate.key_id(),
        kind: "AsymmetricX509Cert",
        usage: "Verify",
        key: STANDARD.encode(certificate.der()),
        display_name: certificate.subject().to_owned(),
    }
}

fn notes(manifest: &Manifest, clouds: &BTreeSet<String>) -> Vec<String> {
    let mut notes = Vec::new();
    if manifest.key_credentials.is_empty() {
        notes.push("the app proves itself without a certificate, so that there are no `keyCredentials`".to_owned());
    } else {
        notes.push(
            "this is the Microsoft Graph form; in the older AAD Graph form, each certificate's `key` is called `value`"
                .to_owned(),
        );
    }
    if manifest.web.redirect_uris.is_empty() {
        notes.push("there is no redirect URI; consent by link needs one: add --url or --redirect-uri".to_owned());
    }
    if clouds.len() > 1 {
        let names: Vec<_> = clouds.iter().map(|name| format!("`{name}`")).collect();
        notes.push(format!(
            "the app serves the clouds {}; each national cloud needs an app registration of its own, and GCC shares the \
             worldwide one",
            names.join(", ")
        ));
    }
    notes
}

/// An address that Entra takes: https, or http on this very host.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("`{text}` is no address; write it as `https://HOST`"))?;
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" if url.has_host() => {}
        "http" if local => {}
        _ => return Err(format!("`{text}` is not encrypted; write `https://`, plain http is only for this host")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("there is a user name or a `#` in it; leave it out".to_owned());
    }
    Ok(url)
}

fn redirect_uri(text: &str) -> Result<Url, String> {
    if text.contains('*') {
        return Err("Entra takes no `*` in the redirect URI of an app for several organisations".to_owned());
    }
    address(text)
}

fn public_url(text: &str) -> Result<Url, String> {
    let url = address(text)?;
    if url.query().is_some() { Err("there is a `?` in it; leave it out".to_owned()) } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_entra_takes_is_a_redirect_uri() {
        for text in ["https://c.example/consent/callback/w", "http://localhost:8080/x", "http://127.0.0.1/x"] {
            assert_eq!(redirect_uri(text).unwrap().as_str(), text);
        }
        for text in ["http://c.example/", "c.example", "https://u:p@c.example/", "https://*.example/", "javascript:1"] {
            let error = redirect_uri(text).unwrap_err();
            assert!(!error.ends_with('.'), "{error}");
        }
        assert!(public_url("https://c.example/?a=b").is_err());
    }
}
