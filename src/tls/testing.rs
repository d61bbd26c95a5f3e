//! A listener's side of TLS and a caller's that trusts it, for the tests of others.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{ListenerCertificate, Tls};

/// For a host of this name.
pub(crate) fn pair(name: &str) -> (Tls, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = [certificate.pem(), key.serialize_pem()].concat();
    let tls = Tls::new(ListenerCertificate::from_pem(pem.as_bytes(), None).unwrap(), None).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (tls, Arc::new(client))
}
