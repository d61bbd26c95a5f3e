//! A listener's certificate, with its chain and its private key.
//!
//! The file may hold the chain in any order: the certificate that the key belongs to is shown first, and the others
//! follow as they stand. An expired certificate is *not* refused: a service that collects must start whatever its
//! monitoring has come to, and callers say soon enough that they do not trust it.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::{Block, TlsError, blocks};

/// A certificate that can be shown. Two are equal if callers see no difference.
pub struct ListenerCertificate {
    key: Arc<CertifiedKey>,
    subject: String,
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    sha256: String,
}

impl ListenerCertificate {
    /// Reads a PEM certificate, alone or in a chain, and its key from `key_pem` or from the same file.
    pub fn from_pem(certificate_pem: &[u8], key_pem: Option<&[u8]>) -> Result<Self, TlsError> {
        let PemFile { mut certificates, mut keys } = PemFile::read(certificate_pem)?;
        if let Some(key_pem) = key_pem {
            // A key file that also holds the certificate is common; only its key counts.
            let file = PemFile::read(key_pem)?;
            if certificates.is_empty() && !keys.is_empty() && file.keys.is_empty() && !file.certificates.is_empty() {
                return Err(TlsError::Exchanged);
            }
            keys = file.keys;
        }
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = only(keys)?;
        let own = position(&certificates, key.as_ref())?;
        let shown = certificates.remove(own);
        certificates.insert(0, shown);
        Self::new(certificates, key)
    }

    /// `chain` begins with the certificate of `key`.
    fn new(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<Self, TlsError> {
        let parsed = parsed(&chain[0])?;
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| TlsError::BadValidity)
        };
        let mut sha256 = String::new();
        for byte in digest::digest(&digest::SHA256, &chain[0]).as_ref() {
            _ = write!(sha256, "{byte:02X}");
        }
        Ok(Self {
            subject: parsed.subject().to_string(),
            names: names(&parsed),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            sha256,
            key: Arc::new(CertifiedKey::new(chain, key)),
        })
    }

    /// Whose certificate it is, as the certificate says.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The names and addresses of the hosts that it is for; callers go by these and not by the subject.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The beginning of its validity.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The end of its validity.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The SHA-256 thumbprint in upper-case hexadecimal.
    #[must_use]
    pub fn sha256_hex(&self) -> &str {
        &self.sha256
    }

    /// Chain and key, for handshakes.
    pub(super) const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl PartialEq for ListenerCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl Eq for ListenerCertificate {}

impl fmt::Debug for ListenerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerCertificate")
            .field("subject", &self.subject)
            .field("sha256", &self.sha256)
            .field("not_after", &self.not_after)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// What a PEM file holds, as far as it concerns us.
struct PemFile {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<Block>,
}

impl PemFile {
    fn read(bytes: &[u8]) -> Result<Self, TlsError> {
        let mut file = Self { certificates: Vec::new(), keys: Vec::new() };
        for block in blocks(bytes)? {
            if block.is_certificate() {
                file.certificates.push(block.der.to_vec().into());
            } else if block.label.ends_with("PRIVATE KEY") {
                file.keys.push(block);
            }
        }
        Ok(file)
    }
}

/// The one key there must be. The same key twice (a chain file beside a key file) is one.
fn only(mut keys: Vec<Block>) -> Result<Arc<dyn SigningKey>, TlsError> {
    keys.dedup();
    let Block { label, der } = match keys.as_slice() {
        [] => return Err(TlsError::NoKey),
        [key] => key,
        several => return Err(TlsError::SeveralKeys(several.len())),
    };
    let der = der.as_slice();
    let key = match label.as_str() {
        "PRIVATE KEY" => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::from(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::from(PrivateSec1KeyDer::from(der)),
        "ENCRYPTED PRIVATE KEY" => return Err(TlsError::EncryptedKey),
        _ => return Err(TlsError::BrokenKey),
    };
    any_supported_type(&key).map_err(|_| TlsError::BrokenKey)
}

/// The whole of it, and nothing behind it.
fn parsed<'a>(der: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(TlsError::BrokenCertificate),
    }
}

/// Which of the certificates the key belongs to. Callers read each of them, and some stop at the first that is odd: all
/// must be right.
fn position(certificates: &[CertificateDer<'static>], key: &dyn SigningKey) -> Result<usize, TlsError> {
    let public = key.public_key().ok_or(TlsError::BrokenKey)?;
    let certificates: Vec<_> = certificates.iter().map(parsed).collect::<Result<_, _>>()?;
    certificates
        .iter()
        .position(|certificate| certificate.public_key().raw == public.as_ref())
        .ok_or_else(|| TlsError::Mismatch { subject: certificates[0].subject().to_string() })
}

/// What the certificate calls the hosts that it is for.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(|bytes| Ipv4Addr::from(bytes).to_string())
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string()))
            .ok(),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}
