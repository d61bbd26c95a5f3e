//! What the tests of this folder share: keys and certificates that live as long as the test.

use std::sync::OnceLock;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

/// A certificate with its key, in PEM.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    /// PKCS#8.
    pub(super) key: String,
    pub(super) public: String,
}

/// A new RSA key of 2048 bits with a self-signed certificate; takes a moment.
pub(super) fn pair(subject: &str) -> Pair {
    with_key(&KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), subject)
}

/// The same pair for every test that does not care which.
pub(super) fn some_pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| pair("some pair"))
}

/// A self-signed certificate for `key`.
pub(super) fn with_key(key: &KeyPair, subject: &str) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    let certificate = params.self_signed(key).unwrap();
    Pair { certificate: certificate.pem(), key: key.serialize_pem(), public: key.public_key_pem() }
}
