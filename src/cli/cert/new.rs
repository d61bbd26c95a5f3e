//! `tenantry cert new`: a key and a self-signed certificate, and what to do with them.
//!
//! The key is RSA, because Entra takes nothing else. What was made is read back as the daemon reads it before it is
//! written, so that no file is left that could not be used.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
    date_time_ymd,
};
use zeroize::Zeroizing;

use super::pair::Place;
use super::subject::Subject;
use crate::cli::Exit;
use crate::cli::out::print_outcome;
use crate::clock::{Clock as _, SystemClock};
use crate::token::Certificate;

/// The beginning lies a little before now, so that a host whose clock runs ahead makes a certificate that is good at once.
const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

/// The arguments of `tenantry cert new`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes NAME.crt, which everyone may read, and NAME.key, which only its owner may (PKCS#8, not \
                        encrypted). Files that are there are never written over. Nothing is sent anywhere.\n\n\
                        Examples:\n  tenantry cert new --output /etc/tenantry/credentials\n  \
                        tenantry cert new --name tenantry-2027 --days 180 --subject 'CN=collector, O=Example'"
)]
pub struct NewArgs {
    /// Whose certificate it is: `CN=NAME`, and `O=`, `OU=`, `L=`, `ST=`, `C=` after commas; this host by default
    #[arg(long, value_parser = Subject::parse)]
    pub subject: Option<Subject>,
    /// For how many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// The length of the RSA key
    #[arg(long, value_enum, default_value_t = Bits::B3072)]
    pub bits: Bits,
    /// The folder to write into
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
    /// What the files are called, without what follows the dot
    #[arg(long, default_value = "tenantry", value_parser = file_name)]
    pub name: String,
}

/// The lengths of key that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    /// The least that Microsoft takes.
    #[value(name = "2048")]
    B2048,
    /// What is advised for keys that are used beyond 2030 ("NIST SP 800-57").
    #[value(name = "3072")]
    B3072,
    /// More, at the price of slower signing.
    #[value(name = "4096")]
    B4096,
}

impl From<Bits> for RsaKeySize {
    fn from(bits: Bits) -> Self {
        match bits {
            Bits::B2048 => Self::_2048,
            Bits::B3072 => Self::_3072,
            Bits::B4096 => Self::_4096,
        }
    }
}

fn file_name(text: &str) -> Result<String, &'static str> {
    let is_plain = |one: char| one.is_alphanumeric() || "._-@+".contains(one);
    if text.is_empty() || text.starts_with(['.', '-']) || text.len() > 200 || !text.chars().all(is_plain) {
        return Err("write a name for the files, of letters, digits, `.`, `_` and `-`; a folder belongs to `--output`");
    }
    Ok(text.to_owned())
}

/// A certificate and its key, in PEM.
struct Made {
    certificate: String,
    key: Zeroizing<String>,
}

/// Makes both files and says what to do next.
pub(super) fn new(args: &NewArgs) -> anyhow::Result<Exit> {
    let place = Place::free(&args.output, &args.name)?;
    let made = make(args, SystemClock.now()).context("the certificate cannot be made")?;
    let certificate = Certificate::from_pem(made.certificate.as_bytes(), Some(made.key.as_bytes()))
        .context("the certificate that was made cannot be used")?;
    place.fill(&made.certificate, &made.key)?;
    print_outcome(&told(&place, &certificate, args.days))?;
    Ok(Exit::Done)
}

fn make(args: &NewArgs, now: Timestamp) -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, args.bits.into())?;
    let subject = args.subject.clone().unwrap_or_else(|| {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Subject::of_host(&host.to_string_lossy())
    });
    let since_1970 = |at: Timestamp| date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
    let days = SignedDuration::from_hours(24 * i64::from(args.days));
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.to_name()?;
    params.not_before = since_1970(now.saturating_sub(BACKDATED).unwrap_or(now));
    params.not_after = since_1970(now.saturating_add(days).unwrap_or(now));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key)?;
    Ok(Made { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn told(place: &Place, certificate: &Certificate, days: u32) -> String {
    let quoted = |path: &std::path::Path| toml::Value::from(path.to_string_lossy().as_ref()).to_string();
    let (file, key) = (&place.certificate, &place.key);
    let mut text = String::new();
    // A `String` takes everything that is written to it.
    let _ = write!(
        text,
        "certificate  {}\nprivate key  {}\nsubject      {}\nkey          RSA, {} bits\n\
         valid        until {} ({days} days)\nSHA-1        {}\nSHA-256      {}\n\n\
         1. Upload the certificate to the app registration in Entra: Certificates & secrets, Certificates, Upload \
         certificate.\n   Entra then shows the SHA-1 thumbprint above. Or paste what this prints into its manifest:\n\n\
         tenantry cert manifest --certificate {}\n\n\
         2. Name both files in the configuration, and reload it:\n\n\
         [app]\ncertificate_file = {}\nprivate_key_file = {}\n\n\
         While it takes the place of another certificate, write lists of both, in the same order: the newest one that \
         Entra knows signs.\n",
        file.display(),
        key.display(),
        certificate.subject(),
        certificate.key_bits(),
        certificate.not_after().strftime("%Y-%m-%d %H:%M UTC"),
        certificate.sha1_hex(),
        certificate.sha256_hex(),
        shell_quoted(&file.to_string_lossy()),
        quoted(file),
        quoted(key),
    );
    text
}

/// A word for a shell.
fn shell_quoted(text: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "/._-+@".contains(one);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_files_are_plain() {
        for name in ["tenantry", "tenantry-2027.old", "ü"] {
            assert_eq!(file_name(name).as_deref(), Ok(name));
        }
        for name in ["", "a/b", "../a", ".hidden", "-rf", "a b", "a\nb"] {
            assert!(file_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_is_printed_can_be_pasted() {
        assert_eq!(shell_quoted("/etc/tenantry/a-1.crt"), "/etc/tenantry/a-1.crt");
        assert_eq!(shell_quoted("/it's here"), r"'/it'\''s here'");
    }
}
