//! A certificate and its private key: read from PEM or PKCS#12, checked, and ready to sign.
//!
//! What is refused here is refused when the configuration is read, with what to change, and not by Entra in the
//! middle of the night: a key that is no RSA key or shorter than 2048 bits ("Get started with Office 365 Management
//! APIs"), a key that belongs to another certificate, a key that is encrypted. An expired certificate is *not*
//! refused: another one may be valid, and the caller decides by [`is_valid`](Certificate::is_valid).
//!
//! A file may hold a chain in any order and several certificates; the one that counts is the one that the key
//! belongs to. The `rsa` crate only takes the key's wrapping off; signing is done by `aws-lc-rs`, which also has
//! the last word on whether the key is sound: it signs and verifies a sample before the certificate is accepted.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey};
use jiff::Timestamp;
use jsonwebtoken::EncodingKey;
use p12_keystore::Pkcs12Archive;
use rsa::pkcs1::ObjectIdentifier;
use rsa::pkcs1::der::asn1::{AnyRef, SequenceOf};
use rsa::pkcs1::der::{Decode as _, Encode as _, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::PublicCertificate;
use crate::secret::Secret;

/// The shortest key that Microsoft takes ("Get started with Office 365 Management APIs").
pub const LEAST_BITS: usize = 2048;
/// The longest key that the signing library takes.
pub const MOST_BITS: usize = 8192;

/// rsaEncryption, as keys and certificates name it.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// id-RSASSA-PSS, as keys that sign in no other way name it.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// How a PEM block of the old form says that it is encrypted.
const ENCRYPTED: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Why a certificate or its key cannot be used. The caller knows the file and names it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The bytes are DER, PKCS#12 most likely, where PEM was expected.
    #[error("this is a binary file, not PEM; if it is a PKCS#12 file (.pfx, .p12), set `pkcs12_file` instead")]
    NotPem,
    /// The bytes are a certificate in DER where PEM was expected.
    #[error(
        "this is a certificate as DER, not PEM; convert it with `openssl x509 -inform der -in FILE.der -out FILE.pem`"
    )]
    DerCertificate,
    /// The bytes are a private key in DER where PEM was expected.
    #[error(
        "this is a private key as DER, not PEM; convert it with `openssl pkey -inform der -in KEY.der -out KEY.pem`"
    )]
    DerKey,
    /// The text is PEM in an encoding that nothing else reads.
    #[error("this is UTF-16; save it as UTF-8")]
    Utf16,
    /// The bytes are PEM where PKCS#12 was expected.
    #[error("this is PEM, not PKCS#12; set `certificate_file` (and `private_key_file` if the key is apart) instead")]
    NotPkcs12,
    /// A PEM block is damaged.
    #[error("a PEM block is damaged (cut off, or not base64); export the file again")]
    BrokenPem,
    /// There is no certificate.
    #[error("there is no certificate in it; it must hold a `BEGIN CERTIFICATE` block (PEM) or a certificate (PKCS#12)")]
    NoCertificate,
    /// There is a key where the certificate should be, and the other way round.
    #[error(
        "the one holds a private key and no certificate, the other a certificate and no private key; are \
         `certificate_file` and `private_key_file` exchanged?"
    )]
    Exchanged,
    /// There is a key where the certificate should be.
    #[error(
        "it holds a private key and no certificate; name the certificate's file, and this one in `private_key_file`"
    )]
    OnlyKey,
    /// A certificate cannot be read.
    #[error("a certificate in it cannot be read; export it again as X.509")]
    BrokenCertificate,
    /// There is no private key.
    #[error(
        "there is no private key with the certificate; add it to the file, or name its own file in `private_key_file`"
    )]
    NoKey,
    /// There is more than one private key.
    #[error("there are {0} private keys; leave only the one that belongs to the certificate")]
    SeveralKeys(usize),
    /// The private key of a PEM file is encrypted.
    #[error(
        "the private key is encrypted; decrypt it with `openssl pkey -in ENCRYPTED.pem -out PLAIN.pem`, or keep it \
         protected in a PKCS#12 file with `pkcs12_file` and `pkcs12_password_file`"
    )]
    EncryptedKey,
    /// The private key is of another kind.
    #[error("the private key is not an RSA key, and Entra takes only RSA; make one with `openssl genrsa 2048`")]
    NotRsa,
    /// The private key is bound to one way of signing, by which its certificate says so too.
    #[error("the private key is an RSASSA-PSS key; Entra needs a plain RSA key, as `openssl genrsa 2048` makes it")]
    PssKey,
    /// The private key cannot be read.
    #[error(
        "the private key cannot be read; it must be PKCS#8 (`BEGIN PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`)"
    )]
    BrokenKey,
    /// The key is too short.
    #[error("the key has {0} bits, and Microsoft takes no fewer than {LEAST_BITS}; make a new key and certificate")]
    WeakKey(usize),
    /// The key is too long.
    #[error("the key has {0} bits, and more than {MOST_BITS} cannot be used; make a new key and certificate")]
    LongKey(usize),
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate `{subject}` (SHA-1 thumbprint {sha1}); name the key that \
         this certificate was made with"
    )]
    Mismatch {
        /// The certificate's subject.
        subject: String,
        /// The certificate's SHA-1 thumbprint, as Entra shows it.
        sha1: String,
    },
    /// The key's parts do not fit together.
    #[error("the private key is damaged (it cannot sign); export it again")]
    UnsoundKey,
    /// The password of a PKCS#12 file is wrong.
    #[error("the password of the PKCS#12 file is wrong; correct `pkcs12_password_file`")]
    WrongPassword,
    /// The PKCS#12 file has a password, or was made without one in a way that cannot be told from that.
    #[error(
        "the PKCS#12 file has a password; name its file in `pkcs12_password_file`, or if it has none, convert it with \
         `openssl pkcs12 -in FILE.pfx -passin pass: -nodes -out FILE.pem` and set `certificate_file`"
    )]
    NeedsPassword,
    /// The bytes are something else.
    #[error("this is no PKCS#12 file, or it is cut off ({0}); name a .pfx or .p12 file, or export it again")]
    OtherThanPkcs12(String),
    /// The PKCS#12 file cannot be read.
    #[error("the PKCS#12 file cannot be read ({0}); export it again with AES-256 and SHA-256")]
    BrokenPkcs12(String),
    /// The certificate's validity is not a time that can be handled.
    #[error("the certificate's validity cannot be read; make a new certificate")]
    BadValidity,
}

/// A certificate with its private key. Two are equal if they have the same SHA-256 thumbprint.
pub struct Certificate {
    public: PublicCertificate,
    key: EncodingKey,
    key_bits: usize,
}

impl Certificate {
    /// Reads a PEM certificate, alone or in a chain, and its key from `key_pem` or from the same file.
    pub fn from_pem(cert_pem: &[u8], key_pem: Option<&[u8]>) -> Result<Self, CertificateError> {
        let PemFile { certificates, mut keys } = PemFile::read(cert_pem)?;
        let has_key = !keys.is_empty();
        let mut is_exchanged = false;
        if let Some(key_pem) = key_pem {
            // A key file that also holds the certificate is common; only its key counts.
            let file = PemFile::read(key_pem)?;
            is_exchanged = file.keys.is_empty() && !file.certificates.is_empty();
            keys = file.keys;
        }
        if certificates.is_empty() {
            return Err(match (has_key, key_pem) {
                (true, Some(_)) if is_exchanged => CertificateError::Exchanged,
                (true, None) => CertificateError::OnlyKey,
                _ => CertificateError::NoCertificate,
            });
        }
        Self::pair(certificates, &only(keys.into_iter().collect::<Result<_, _>>()?)?)
    }

    /// Reads a PKCS#12 file; `password` is empty where there is none.
    pub fn from_pkcs12(bytes: &[u8], password: &Secret) -> Result<Self, CertificateError> {
        let archive = open_pkcs12(bytes, password)?;
        if archive.certs.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let certificates = archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
        let keys = archive.keys.iter().map(|bag| unwrap_pkcs8(bag.key.as_der())).collect::<Result<Vec<_>, _>>()?;
        Self::pair(certificates, &only(keys)?)
    }

    /// Finds the certificate that the key (PKCS#1) belongs to.
    fn pair(certificates: Vec<Vec<u8>>, key: &[u8]) -> Result<Self, CertificateError> {
        let parts = rsa::pkcs1::RsaPrivateKey::from_der(key).map_err(|_| CertificateError::BrokenKey)?;
        let modulus = unsigned(parts.modulus.as_bytes());
        let exponent = unsigned(parts.public_exponent.as_bytes());
        let bits = bit_length(modulus);
        if bits < LEAST_BITS {
            return Err(CertificateError::WeakKey(bits));
        }
        if bits > MOST_BITS {
            return Err(CertificateError::LongKey(bits));
        }

        let mut best: Option<Self> = None;
        let mut first_other: Option<CertificateError> = None;
        for der in certificates {
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::BrokenCertificate)?;
            let ours = matches!(
                parsed.public_key().parsed(),
                Ok(PublicKey::RSA(rsa)) if unsigned(rsa.modulus) == modulus && unsigned(rsa.exponent) == exponent
            );
            if !ours {
                let other = PublicCertificate::of(&parsed, der.clone())?;
                let (subject, sha1) = (other.subject().to_owned(), other.sha1_hex().to_owned());
                first_other.get_or_insert(CertificateError::Mismatch { subject, sha1 });
                continue;
            }
            let public = PublicCertificate::of(&parsed, der.clone())?;
            // The same key in several certificates: a renewal that kept it. The one that lasts counts.
            if best.as_ref().is_some_and(|best| best.not_after() >= public.not_after()) {
                continue;
            }
            best = Some(Self { public, key: EncodingKey::from_rsa_der(key), key_bits: bits });
        }
        let best = best.ok_or_else(|| first_other.unwrap_or(CertificateError::NoCertificate))?;
        prove(key)?;
        Ok(best)
    }

    /// What it says to everyone.
    #[must_use]
    pub const fn public(&self) -> &PublicCertificate {
        &self.public
    }

    /// The certificate itself, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.public.der()
    }

    /// Whose certificate it is, as the certificate says.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.public.subject()
    }

    /// The length of the key in bits.
    #[must_use]
    pub const fn key_bits(&self) -> usize {
        self.key_bits
    }

    /// The beginning of its validity.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.public.not_before()
    }

    /// The end of its validity.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.public.not_after()
    }

    /// Whether `now` lies within its validity.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before() <= now && now <= self.not_after()
    }

    /// The SHA-1 thumbprint in upper-case hexadecimal: what Entra's page *Certificates & secrets* shows.
    #[must_use]
    pub fn sha1_hex(&self) -> &str {
        self.public.sha1_hex()
    }

    /// The SHA-256 thumbprint in upper-case hexadecimal.
    #[must_use]
    pub fn sha256_hex(&self) -> &str {
        self.public.sha256_hex()
    }

    /// The SHA-1 thumbprint as `x5t` has it: base64url without padding.
    #[must_use]
    pub fn x5t(&self) -> &str {
        self.public.x5t()
    }

    /// The SHA-256 thumbprint as `x5t#S256` has it: base64url without padding.
    #[must_use]
    pub fn x5t_s256(&self) -> &str {
        self.public.x5t_s256()
    }

    /// The key, for the one place that signs.
    pub(super) const fn key(&self) -> &EncodingKey {
        &self.key
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("sha256", &self.sha256_hex())
            .field("not_after", &self.not_after())
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// What a PEM file holds, as far as it concerns us.
struct PemFile {
    certificates: Vec<Vec<u8>>,
    /// PKCS#1, or why it is not: of no interest where another file has the key.
    keys: Vec<Result<Zeroizing<Vec<u8>>, CertificateError>>,
}

impl PemFile {
    fn read(bytes: &[u8]) -> Result<Self, CertificateError> {
        // Windows editors like to put a byte order mark before the first line.
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(CertificateError::Utf16);
        }
        if !looks_like_pem(bytes) && std::str::from_utf8(bytes).is_err() {
            return Err(not_pem(bytes));
        }
        // The old form of encryption says so in lines before the base64, which would only look damaged.
        let has_encrypted = memchr::memmem::find(bytes, ENCRYPTED).is_some();
        let without_headers: Zeroizing<Vec<u8>>;
        let blocks = if has_encrypted {
            let is_header = |line: &&[u8]| line.starts_with(b"Proc-Type:") || line.starts_with(b"DEK-Info:");
            let is_empty = |line: &&[u8]| line.trim_ascii().is_empty();
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            without_headers =
                Zeroizing::new(lines.filter(|line| !is_header(line) && !is_empty(line)).flatten().copied().collect());
            &without_headers
        } else {
            bytes
        };
        let mut file = Self { certificates: Vec::new(), keys: Vec::new() };
        for block in Pem::iter_from_buffer(blocks) {
            let Pem { label, contents } = block.map_err(|_| CertificateError::BrokenPem)?;
            let contents = Zeroizing::new(contents);
            let is_plain = || rsa::pkcs1::RsaPrivateKey::from_der(&contents).is_ok();
            match label.as_str() {
                "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
                    file.certificates.push(contents.to_vec());
                }
                "PRIVATE KEY" => file.keys.push(unwrap_pkcs8(&contents)),
                "RSA PRIVATE KEY" if has_encrypted && !is_plain() => {
                    file.keys.push(Err(CertificateError::EncryptedKey));
                }
                "RSA PRIVATE KEY" => file.keys.push(Ok(contents)),
                "ENCRYPTED PRIVATE KEY" => file.keys.push(Err(CertificateError::EncryptedKey)),
                "EC PRIVATE KEY" | "DSA PRIVATE KEY" | "OPENSSH PRIVATE KEY" => {
                    file.keys.push(Err(CertificateError::NotRsa));
                }
                _ => {}
            }
        }
        Ok(file)
    }
}

/// What a binary file is that should be PEM.
fn not_pem(bytes: &[u8]) -> CertificateError {
    let is_key =
        rsa::pkcs8::PrivateKeyInfo::from_der(bytes).is_ok() || rsa::pkcs1::RsaPrivateKey::from_der(bytes).is_ok();
    if X509Certificate::from_der(bytes).is_ok() {
        CertificateError::DerCertificate
    } else if is_key {
        CertificateError::DerKey
    } else {
        CertificateError::NotPem
    }
}

fn looks_like_pem(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"-----BEGIN ").is_some()
}

/// Opens a PKCS#12 file; `password` is empty where there is none.
pub(super) fn open_pkcs12(bytes: &[u8], password: &Secret) -> Result<Pkcs12Archive, CertificateError> {
    use p12_keystore::error::Error::{DerError, MacError, Pkcs5Error, UnpadError};
    if looks_like_pem(bytes) {
        return Err(CertificateError::NotPkcs12);
    }
    Pkcs12Archive::from_pkcs12(bytes, password.expose()).or_else(|error| match error {
        // "No password" has two encodings, and the library knows only the empty string. .NET keys the integrity check with
        // nothing at all; the newer encryption is the same for both. Without a password the check proves nothing anyway.
        MacError(_) if password.expose().is_empty() => without_check(bytes)
            .and_then(|unchecked| Pkcs12Archive::from_pkcs12(&unchecked, "").ok())
            .ok_or(CertificateError::NeedsPassword),
        // The integrity check is keyed with the password; files without one fail when they are decrypted.
        UnpadError | Pkcs5Error(_) if password.expose().is_empty() => Err(CertificateError::NeedsPassword),
        MacError(_) | UnpadError | Pkcs5Error(_) => Err(CertificateError::WrongPassword),
        DerError(error) => Err(CertificateError::OtherThanPkcs12(error.to_string())),
        other => Err(CertificateError::BrokenPkcs12(other.to_string())),
    })
}

/// A PKCS#12 file without its integrity check: its version and its content.
fn without_check(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let parts = AnyRef::from_der(bytes).ok()?.decode_as::<SequenceOf<AnyRef<'_>, 3>>().ok()?;
    let mut content = Zeroizing::new(Vec::new());
    for part in parts.iter().take(2) {
        content.extend(part.to_der().ok()?);
    }
    AnyRef::new(Tag::Sequence, &content).ok()?.to_der().ok().map(Zeroizing::new)
}

/// The one key there must be. The same key twice (a chain file beside a key file) is one.
fn only(mut keys: Vec<Zeroizing<Vec<u8>>>) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    keys.dedup();
    match keys.len() {
        0 => Err(CertificateError::NoKey),
        1 => Ok(keys.swap_remove(0)),
        several => Err(CertificateError::SeveralKeys(several)),
    }
}

/// The PKCS#1 key inside a PKCS#8 wrapping: the form that signing takes.
fn unwrap_pkcs8(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let info = rsa::pkcs8::PrivateKeyInfo::from_der(der).map_err(|_| CertificateError::BrokenKey)?;
    if info.algorithm.oid == RSASSA_PSS {
        return Err(CertificateError::PssKey);
    }
    if info.algorithm.oid != RSA_ENCRYPTION {
        return Err(CertificateError::NotRsa);
    }
    Ok(Zeroizing::new(info.private_key.to_vec()))
}

/// An ASN.1 integer without its sign byte.
pub(super) fn unsigned(integer: &[u8]) -> &[u8] {
    let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len());
    integer.get(start..).unwrap_or_default()
}

pub(super) fn bit_length(unsigned: &[u8]) -> usize {
    unsigned.first().map_or(0, |first| unsigned.len() * 8 - first.leading_zeros() as usize)
}

/// Signs a sample and verifies it with the public key: the certificate's, since the two have been compared.
fn prove(key: &[u8]) -> Result<(), CertificateError> {
    let sample = b"tenantry";
    let pair = RsaKeyPair::from_der(key).map_err(|_| CertificateError::UnsoundKey)?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), sample, &mut signature)
        .map_err(|_| CertificateError::UnsoundKey)?;
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, pair.public_key().as_ref())
        .verify(sample, &signature)
        .map_err(|_| CertificateError::UnsoundKey)
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
