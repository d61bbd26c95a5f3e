//! An app registration, prepared for checking credentials.

use aws_lc_rs::digest;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::scenario::{App, Federated, Secret};

/// An app registration.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) algorithms: Vec<String>,
    pub(crate) name: String,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) required_roles: Vec<String>,
    pub(crate) only_in: Option<Uuid>,
    pub(crate) personal_accounts: bool,
    pub(crate) federated: Vec<Federated>,
}

/// A certificate whose public key is uploaded.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// SHA-1 of the DER form, for `x5t`.
    pub(crate) sha1: Vec<u8>,
    /// SHA-256 of the DER form, for `x5t#S256`.
    pub(crate) sha256: Vec<u8>,
    /// The key as PKCS#1 `RSAPublicKey`.
    pub(crate) public_key: Vec<u8>,
    /// End of validity, in Unix seconds.
    pub(crate) not_after: i64,
}

impl Registration {
    /// Takes an app as the scenario has it. What is no certificate is left out, as the portal would refuse it.
    pub(crate) fn new(app: &App) -> Self {
        let certificates = app.certificates.iter().filter_map(|c| Certificate::new(&c.0)).collect();
        Self {
            certificates,
            secrets: app.secrets.clone(),
            algorithms: app.algorithms.clone(),
            name: if app.name.is_empty() { app.client_id.to_string() } else { app.name.clone() },
            redirect_uris: app.redirect_uris.clone(),
            required_roles: app.required_roles.clone(),
            only_in: app.only_in,
            personal_accounts: app.personal_accounts,
            federated: app.federated.clone(),
        }
    }
}

impl Certificate {
    fn new(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            sha1: digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().to_vec(),
            sha256: digest::digest(&digest::SHA256, der).as_ref().to_vec(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}
