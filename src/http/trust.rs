//! Whose certificates are believed: those of whom this host believes, and of whom the configuration names beside them.
//!
//! The judgement is that of rustls and of this host's roots. What is added here are words: who issued what was shown,
//! since that names the thing which opens TLS on the way.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::config::Roots;

/// TLS as a client that believes this host's roots and `roots`.
pub(super) fn client(roots: Option<&Roots>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let own = roots.map_or(&[][..], |roots| roots.authorities.certificates());
    let verifier = Verifier::new_with_extra_roots(own.iter().cloned(), Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // What rustls calls dangerous is that somebody else judges; here it is the same judge, with more words.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Naming(verifier)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Judges as the other does, and names the issuer of what is refused.
#[derive(Debug)]
struct Naming(Verifier);

/// A certificate that was shown and is not accepted.
#[derive(Debug)]
pub(super) struct Unaccepted {
    /// Whose it should have been.
    host: String,
    issuer: String,
    why: CertificateError,
}

impl fmt::Display for Unaccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, issuer, why } = self;
        write!(f, "the certificate that is shown for `{host}`, issued by `{issuer}`, ")?;
        let at = |time: &UnixTime| {
            let second = i64::try_from(time.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
            second.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string())
        };
        match why {
            CertificateError::UnknownIssuer => {
                f.write_str("is by a CA that neither this host nor `root_certificates_file` knows")
            }
            CertificateError::ExpiredContext { time, not_after } => {
                write!(f, "expired at {}; by this host's clock it is {}", at(not_after), at(time))
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                write!(f, "is not valid before {}; by this host's clock it is {}", at(not_before), at(time))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                f.write_str("is another host's")
            }
            other => write!(f, "cannot be accepted: {other}"),
        }
    }
}

impl Error for Unaccepted {}

impl Unaccepted {
    /// The one that `error` carries, if it does.
    pub(super) fn within<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        match error.downcast_ref()? {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(told))) => told.downcast_ref(),
            _ => None,
        }
    }
}

impl ServerCertVerifier for Naming {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(why) => {
                let host = server_name.to_str().into_owned();
                let issuer = issuer(intermediates.last().unwrap_or(end_entity));
                CertificateError::Other(OtherError(Arc::new(Unaccepted { host, issuer, why }))).into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The issuer of the last certificate that was shown. It comes from the network: one line, not long.
fn issuer(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return "nobody that can be read".to_owned() };
    parsed.issuer().to_string().chars().filter(|c| !c.is_control() && *c != '`').take(200).collect()
}
