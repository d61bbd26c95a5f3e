//! What a listener of ours shows to its callers, and what it demands of them: TLS as a server.
//!
//! - [`certificate`]: a listener's certificate with its chain and key, read from PEM and checked.
//! - [`authorities`]: the CAs of which a caller must have a certificate.
//!
//! Here are bytes and what they mean: the configuration reads the files, and `web` shakes hands.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 only. No session is resumed, so that each connection is judged by what is demanded now;
//! those who ask often keep theirs.
//!
//! **Invariant:** nothing that is wrong with certificate, key or CAs is left for a handshake to find: what makes a
//! [`Tls`] can be served. No key appears in `Debug` or an error.

pub mod authorities;
pub mod certificate;

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

pub use authorities::Authorities;
pub use certificate::ListenerCertificate;

/// Why a certificate, its key or a CA cannot be used. The caller knows the file and names it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TlsError {
    /// The bytes are DER or PKCS#12, most likely, where PEM was expected.
    #[error(
        "this is a binary file, not PEM; convert it with `openssl x509 -inform der`, `openssl pkey -inform der` or \
         `openssl pkcs12 -nodes`, whichever it is"
    )]
    NotPem,
    /// The text is PEM in an encoding that nothing else reads.
    #[error("this is UTF-16; save it as UTF-8")]
    Utf16,
    /// A PEM block is damaged.
    #[error("a PEM block is damaged (cut off, or not base64); write the file again")]
    BrokenPem,
    /// There is no certificate.
    #[error("there is no certificate in it; it must hold a `BEGIN CERTIFICATE` block")]
    NoCertificate,
    /// There is a key where the certificate should be, and the other way round.
    #[error(
        "the one holds a private key and no certificate, the other a certificate and no private key; are \
         `certificate_file` and `private_key_file` exchanged?"
    )]
    Exchanged,
    /// A certificate cannot be read.
    #[error("a certificate in it cannot be read; write it again as X.509")]
    BrokenCertificate,
    /// There is no private key.
    #[error(
        "there is no private key with the certificate; add it to the file, or name its own file in `private_key_file`"
    )]
    NoKey,
    /// There is more than one private key.
    #[error("there are {0} private keys; leave only the one that belongs to the certificate")]
    SeveralKeys(usize),
    /// The private key is encrypted.
    #[error("the private key is encrypted; decrypt it with `openssl pkey -in ENCRYPTED.pem -out PLAIN.pem`")]
    EncryptedKey,
    /// The private key cannot be used.
    #[error(
        "the private key cannot be used; it must be RSA with 2048 to 8192 bits, ECDSA (P-256, P-384, P-521) or Ed25519, \
         as PKCS#8, PKCS#1 or SEC1"
    )]
    BrokenKey,
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate `{subject}`; name the key that this certificate was made with"
    )]
    Mismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// The certificate's validity is not a time that can be handled.
    #[error("the certificate's validity cannot be read; make a new certificate")]
    BadValidity,
}

/// A listener's side of TLS. Two are equal if they show the same certificate and demand the same.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<ListenerCertificate>,
    authorities: Option<Arc<Authorities>>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Shows `certificate`; of the callers, one by any of the `authorities` is demanded, if there are any.
    pub fn new(certificate: ListenerCertificate, authorities: Option<Authorities>) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let builder: ConfigBuilder<ServerConfig, WantsVerifier> =
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap_or_else(|_| unreachable!("this provider has suites for both versions"));
        let builder = match &authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities.roots(), provider).build();
                // There is a root, or they were no authorities.
                builder.with_client_cert_verifier(verifier.map_err(|_| TlsError::NoCertificate)?)
            }
        };
        let shown = SingleCertAndKey::from(Arc::clone(certificate.key()));
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            certificate: Arc::new(certificate),
            authorities: authorities.map(Arc::new),
            config: Arc::new(config),
        })
    }

    /// What is shown.
    #[must_use]
    pub fn certificate(&self) -> &ListenerCertificate {
        &self.certificate
    }

    /// Of whom a caller must have a certificate.
    #[must_use]
    pub fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_deref()
    }

    /// For the one place that shakes hands.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.authorities == other.authorities
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

/// A block of a PEM file. What is in it may be secret.
#[derive(PartialEq, Eq)]
struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
}

fn blocks(bytes: &[u8]) -> Result<Vec<Block>, TlsError> {
    // Windows editors like to put a byte order mark before the first line.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(TlsError::Utf16);
    }
    if std::str::from_utf8(bytes).is_err() {
        return Err(TlsError::NotPem);
    }
    // The old form of encryption says so in lines before the base64, which would only look damaged.
    if memchr::memmem::find(bytes, b"Proc-Type: 4,ENCRYPTED").is_some() {
        return Err(TlsError::EncryptedKey);
    }
    let block = |Pem { label, contents }| Block { label, der: Zeroizing::new(contents) };
    Pem::iter_from_buffer(bytes).map(|pem| pem.map(block).map_err(|_| TlsError::BrokenPem)).collect()
}

impl Block {
    fn is_certificate(&self) -> bool {
        matches!(self.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE")
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
