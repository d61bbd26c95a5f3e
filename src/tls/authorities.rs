//! The CAs of which a caller must have a certificate.

use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{Block, TlsError, blocks};

/// At least one. Two are equal if they are the same certificates in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    subjects: Vec<String>,
}

impl Authorities {
    /// Reads all certificates of a PEM file.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let (mut certificates, mut subjects) = (Vec::new(), Vec::new());
        for block in blocks(bytes)?.into_iter().filter(Block::is_certificate) {
            let der = CertificateDer::from(block.der.to_vec());
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| TlsError::BrokenCertificate)?;
            subjects.push(parsed.subject().to_string());
            roots.add(der.clone()).map_err(|_| TlsError::BrokenCertificate)?;
            certificates.push(der);
        }
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        Ok(Self { certificates, subjects })
    }

    /// What each of them is called.
    #[must_use]
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// The certificates themselves.
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// As the judge of handshakes wants them.
    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        // Each was taken when it was read.
        roots.add_parsable_certificates(self.certificates.iter().cloned());
        Arc::new(roots)
    }
}
