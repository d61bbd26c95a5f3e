//! `tenantry cert show`: certificates as Entra shows them, and who uses them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{User, users};
use crate::cli::out::print_outcome;
use crate::cli::{Ended, Exit};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, App};
use crate::secret::Secret;
use crate::token::{CertificateError, Credential, PublicCertificate};

/// Chains of certificates are a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// The arguments of `tenantry cert show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is sent anywhere. Which certificates Entra refuses is known to the daemon: see `tenantry \
                        status` and its journal.\n\n\
                        Examples:\n  tenantry cert show\n  tenantry cert show old.pem new.pfx --password-file pfx.password\n  \
                        tenantry cert show --json | jq '.certificates[] | select(.days_left < 30)'"
)]
pub struct ShowArgs {
    /// Certificates as PEM, DER or PKCS#12; without any, those of the configuration
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A file with the password of the PKCS#12 files
    #[arg(long, value_name = "FILE", requires = "files")]
    pub password_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    certificates: Vec<One>,
}

/// A certificate, as it is shown.
#[derive(Debug, Serialize)]
struct One {
    subject: String,
    issuer: String,
    rsa_bits: Option<usize>,
    not_before: Timestamp,
    not_after: Timestamp,
    /// Whole days; negative if it has expired.
    days_left: i64,
    sha1: String,
    sha256: String,
    file: Option<PathBuf>,
    #[serde(flatten)]
    used: Option<Used>,
}

/// Who uses it.
#[derive(Debug, Serialize)]
struct Used {
    /// `app` or `apps.NAME`.
    app: String,
    client_id: String,
    signs_first: bool,
    tenants: Vec<Tenant>,
}

#[derive(Debug, Serialize)]
struct Tenant {
    id: String,
    name: String,
}

/// Prints them.
pub(super) async fn show(config: &Path, args: &ShowArgs) -> anyhow::Result<Exit> {
    let now = SystemClock.now();
    let certificates = if args.files.is_empty() {
        let settings = config::load(config)?;
        let users = users(config, &settings).await;
        settings.apps.values().flat_map(|app| of_app(app, &users, now)).collect()
    } else {
        let password = args.password_file.as_deref().map(password).transpose()?;
        let mut certificates = Vec::new();
        for file in &args.files {
            let read = read(file, password.as_ref())?;
            certificates.extend(read.iter().map(|one| one_of(one, Some(file.clone()), None, now)));
        }
        certificates
    };
    let shown = Shown { certificates };
    if args.json {
        print_outcome(&format!("{}\n", serde_json::to_string_pretty(&shown)?))?;
    } else if shown.certificates.is_empty() {
        print_outcome("no app of the configuration proves itself with a certificate\n")?;
    } else {
        print_outcome(&shown.certificates.iter().map(|one| render(one, now)).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Exit::Done)
}

/// An app's certificates, in the order in which they would sign.
fn of_app(app: &App, users: &[User], now: Timestamp) -> Vec<One> {
    let Credential::Certificates { list, .. } = &app.credential else { return Vec::new() };
    let first = app.credential.certificate(now);
    let tenants = || users.iter().filter(|user| user.app == app.section());
    list.iter()
        .map(|certificate| {
            let own = |file: &&config::CredentialFile| file.certificate.as_deref() == Some(certificate.sha256_hex());
            let used = Used {
                app: app.section(),
                client_id: app.client_id.clone(),
                signs_first: Some(certificate) == first,
                tenants: tenants().map(|one| Tenant { id: one.id.to_string(), name: one.name.clone() }).collect(),
            };
            let file = app.files.iter().find(own).map(|file| file.path.clone());
            one_of(certificate.public(), file, Some(used), now)
        })
        .collect()
}

fn one_of(certificate: &PublicCertificate, file: Option<PathBuf>, used: Option<Used>, now: Timestamp) -> One {
    One {
        subject: certificate.subject().to_owned(),
        issuer: certificate.issuer().to_owned(),
        rsa_bits: certificate.rsa_bits(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        days_left: certificate.not_after().duration_since(now).as_secs().div_euclid(24 * 60 * 60),
        sha1: certificate.sha1_hex().to_owned(),
        sha256: certificate.sha256_hex().to_owned(),
        file,
        used,
    }
}

fn render(one: &One, now: Timestamp) -> String {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let state = match one.days_left {
        _ if one.not_before > now => "not valid yet".to_owned(),
        left if left < 0 => "expired".to_owned(),
        1 => "1 day left".to_owned(),
        left => format!("{left} days left"),
    };
    let issuer = if one.issuer == one.subject { "itself" } else { &one.issuer };
    let key =
        one.rsa_bits.map_or_else(|| "not RSA: Entra does not take it".to_owned(), |bits| format!("RSA, {bits} bits"));
    // It comes from a file, and must not steer a terminal.
    let plain = |text: &str| text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect::<String>();
    let mut text = format!("{}\n", plain(&one.subject));
    let mut line = |name: &str, value: &str| {
        // A `String` takes everything that is written to it.
        let _ = writeln!(text, "  {name:<9}{value}");
    };
    line("issuer", &plain(issuer));
    line("key", &key);
    line("valid", &format!("{} to {} ({state})", day(one.not_before), day(one.not_after)));
    line("SHA-1", &one.sha1);
    line("SHA-256", &one.sha256);
    if let Some(file) = &one.file {
        line("file", &file.display().to_string());
    }
    if let Some(used) = &one.used {
        let signs = if used.signs_first { "signs first" } else { "signs if Entra does not take those before it" };
        line("app", &format!("[{}] {} ({signs})", used.app, used.client_id));
        let names: Vec<_> = used.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        line("tenants", if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str());
    }
    text
}

/// Every certificate in a file, whatever its form.
pub(super) fn read(path: &Path, password: Option<&Secret>) -> anyhow::Result<Vec<PublicCertificate>> {
    let bytes = bytes(path)?;
    let read = match PublicCertificate::read(&bytes) {
        Err(CertificateError::BrokenCertificate) => {
            let none = Secret::from(String::new());
            match PublicCertificate::from_pkcs12(&bytes, password.unwrap_or(&none)) {
                Err(CertificateError::NeedsPassword) => {
                    let message = format!(
                        "`{}` has a password; name a file that holds it with `--password-file`",
                        path.display()
                    );
                    return Err(Ended { exit: Exit::Failed, message }.into());
                }
                Err(CertificateError::OtherThanPkcs12(_)) => Err(CertificateError::BrokenCertificate),
                read => read,
            }
        }
        read => read,
    };
    read.with_context(|| format!("`{}`", path.display()))
}

fn password(path: &Path) -> anyhow::Result<Secret> {
    let text = String::from_utf8(bytes(path)?).with_context(|| format!("`{}` is not UTF-8", path.display()))?;
    Ok(Secret::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("`{}` cannot be read", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).with_context(cannot)?;
    anyhow::ensure!(bytes.len() as u64 <= LARGEST, "`{}` is larger than 1 MiB; is it the right file?", path.display());
    Ok(bytes)
}
