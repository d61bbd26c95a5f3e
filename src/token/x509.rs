//! What a certificate says to everyone: whose it is, for how long it is good, and the thumbprints that name it.
//!
//! Entra's pages show the SHA-1 thumbprint in upper-case hexadecimal; assertions name a certificate by either thumbprint in
//! base64url.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use p12_keystore::Pkcs12Archive;
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::CertificateError;
use super::certificate::{bit_length, open_pkcs12, unsigned};
use crate::secret::Secret;

/// A certificate without its key. Two are equal if they have the same SHA-256 thumbprint.
#[derive(Debug, Clone)]
pub struct PublicCertificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    rsa_bits: Option<usize>,
    not_before: Timestamp,
    not_after: Timestamp,
    sha1: Thumbprint,
    sha256: Thumbprint,
}

#[derive(Debug, Clone)]
struct Thumbprint {
    bytes: Vec<u8>,
    hex: String,
    base64: String,
}

impl Thumbprint {
    fn new(algorithm: &'static digest::Algorithm, der: &[u8]) -> Self {
        let digest = digest::digest(algorithm, der);
        let mut hex = String::with_capacity(2 * digest.as_ref().len());
        for byte in digest.as_ref() {
            _ = write!(hex, "{byte:02X}");
        }
        Self { bytes: digest.as_ref().to_vec(), hex, base64: URL_SAFE_NO_PAD.encode(digest) }
    }
}

impl PublicCertificate {
    /// Reads a certificate as DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::BrokenCertificate)?;
        Self::of(&parsed, der.to_vec())
    }

    /// Every certificate in a file, PEM or DER, in the order in which they stand there.
    pub fn read(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if memchr::memmem::find(bytes, b"-----BEGIN ").is_none() {
            return Ok(vec![Self::from_der(bytes)?]);
        }
        let mut certificates = Vec::new();
        for block in Pem::iter_from_buffer(bytes) {
            let block = block.map_err(|_| CertificateError::BrokenPem)?;
            if matches!(&*block.label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
                certificates.push(Self::from_der(&block.contents)?);
            }
        }
        if certificates.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(certificates) }
    }

    /// Every certificate in a PKCS#12 file; `password` is empty where there is none.
    pub fn from_pkcs12(bytes: &[u8], password: &Secret) -> Result<Vec<Self>, CertificateError> {
        let Pkcs12Archive { certs, .. } = open_pkcs12(bytes, password)?;
        let certificates: Vec<_> =
            certs.iter().map(|bag| Self::from_der(bag.cert.as_der())).collect::<Result<_, _>>()?;
        if certificates.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(certificates) }
    }

    /// What `parsed`, which was read from `der`, says.
    pub(super) fn of(parsed: &X509Certificate<'_>, der: Vec<u8>) -> Result<Self, CertificateError> {
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| CertificateError::BadValidity)
        };
        let rsa_bits = match parsed.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) => Some(bit_length(unsigned(rsa.modulus))),
            _ => None,
        };
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            rsa_bits,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            sha1: Thumbprint::new(&digest::SHA1_FOR_LEGACY_USE_ONLY, &der),
            sha256: Thumbprint::new(&digest::SHA256, &der),
            der,
        })
    }

    /// The certificate itself, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose certificate it is, as it says itself.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who vouches for that; the same for a self-signed one.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The length of its RSA key in bits; `None` if the key is of another kind.
    #[must_use]
    pub const fn rsa_bits(&self) -> Option<usize> {
        self.rsa_bits
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

    /// The SHA-1 thumbprint in upper-case hexadecimal: what Entra's page *Certificates & secrets* shows.
    #[must_use]
    pub fn sha1_hex(&self) -> &str {
        &self.sha1.hex
    }

    /// The SHA-256 thumbprint in upper-case hexadecimal.
    #[must_use]
    pub fn sha256_hex(&self) -> &str {
        &self.sha256.hex
    }

    /// The SHA-1 thumbprint as `x5t` has it: base64url without padding.
    #[must_use]
    pub fn x5t(&self) -> &str {
        &self.sha1.base64
    }

    /// The SHA-256 thumbprint as `x5t#S256` has it: base64url without padding.
    #[must_use]
    pub fn x5t_s256(&self) -> &str {
        &self.sha256.base64
    }

    /// The SHA-1 thumbprint as a manifest's `customKeyIdentifier` has it: base64.
    #[must_use]
    pub fn custom_key_identifier(&self) -> String {
        STANDARD.encode(&self.sha1.bytes)
    }

    /// An id for the certificate in a manifest: always the same one, so that a manifest that is printed twice names one
    /// key and not two.
    #[must_use]
    pub fn key_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.sha256.bytes[..16]);
        // Of the usual form, since it is not known whether Entra takes others.
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl PartialEq for PublicCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.sha256.hex == other.sha256.hex
    }
}

impl Eq for PublicCertificate {}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::token::testing::{some_pair, with_key};

    #[test]
    fn certificates_are_read_without_their_keys() {
        let pair = some_pair();
        let elliptic = with_key(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), "elliptic");
        let both = format!("text\n{}{}{}", pair.certificate, pair.key, elliptic.certificate);
        let read = PublicCertificate::read(both.as_bytes()).unwrap();
        let told: Vec<_> = read.iter().map(|one| (one.subject(), one.issuer(), one.rsa_bits())).collect();
        assert_eq!(
            told,
            [("CN=some pair", "CN=some pair", Some(2048)), ("CN=elliptic", "CN=elliptic", None)],
            "in order, whatever the key"
        );
        assert_eq!(PublicCertificate::read(read[0].der()).unwrap(), [read[0].clone()], "DER");
        for (bytes, expected) in [
            (pair.key.as_bytes(), "there is no certificate in it"),
            (b"\x30\x03\x02\x01\x05", "a certificate in it cannot be read"),
            (&pair.certificate.as_bytes()[..300], "a PEM block is damaged"),
        ] {
            let error = PublicCertificate::read(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_manifest_names_a_certificate_by_the_same_id_every_time() {
        let read = || PublicCertificate::read(some_pair().certificate.as_bytes()).unwrap().remove(0);
        let (one, again) = (read(), read());
        assert_eq!(one.key_id(), again.key_id());
        assert_eq!((one.key_id().get_version_num(), one.key_id().get_variant()), (4, uuid::Variant::RFC4122));
        let thumbprint = STANDARD.decode(one.custom_key_identifier()).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(thumbprint), one.x5t());
    }
}
