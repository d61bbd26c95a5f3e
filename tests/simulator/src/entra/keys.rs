//! The keys that sign `id_token`s, and the documents that publish them.
//!
//! Keys are made when somebody first needs them: most clouds never sign anybody in. Those of work accounts name their
//! issuer as a template (`{tenantid}`), the one of personal accounts names its tenant, and one more is published nowhere.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::scenario::{CONSUMERS, Jwk};

/// A signing key.
pub(crate) struct SigningKey {
    pair: RsaKeyPair,
    certificate: Vec<u8>,
    /// The public key as PKCS#8 `SubjectPublicKeyInfo`.
    spki: Vec<u8>,
    /// The name of the key: the certificate's SHA-1 thumbprint, as Entra has it.
    pub(crate) kid: String,
    pub(crate) jwk: Jwk,
}

impl SigningKey {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .expect("the library makes keys of this kind");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "accounts.accesscontrol.windows.net");
        let certificate = parameters.self_signed(&key).expect("a key signs its own certificate").der().to_vec();
        let (_, read) = X509Certificate::from_der(&certificate).expect("the library's own certificate");
        let Ok(PublicKey::RSA(public)) = read.public_key().parsed() else { unreachable!("the key is RSA") };
        let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate));
        Self {
            pair: RsaKeyPair::from_pkcs8(&key.serialize_der()).expect("the same key"),
            jwk: Jwk::rsa(&kid, public.modulus, public.exponent),
            spki: read.public_key().raw.to_vec(),
            kid,
            certificate,
        }
    }

    /// RS256 over `signed`.
    pub(crate) fn sign(&self, signed: &str) -> String {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("the buffer has the size of the modulus");
        URL_SAFE_NO_PAD.encode(signature)
    }

    /// The public key as PEM.
    pub(crate) fn pem(&self) -> String {
        let text = STANDARD.encode(&self.spki);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn published(&self, issuer: &str) -> Value {
        json!({
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": self.jwk.n,
            "e": self.jwk.e,
            "x5c": [STANDARD.encode(&self.certificate)],
            "cloud_instance_name": "microsoftonline.com",
            "issuer": issuer,
        })
    }
}

/// The keys of a cloud.
#[derive(Default)]
pub(crate) struct Keyring {
    /// Of work accounts, the current one last.
    work: Mutex<Vec<Arc<SigningKey>>>,
    consumers: OnceLock<SigningKey>,
    stranger: OnceLock<SigningKey>,
}

impl Keyring {
    /// The key that signs the tokens of work accounts.
    pub(crate) fn current(&self) -> Arc<SigningKey> {
        let mut keys = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            keys.push(Arc::new(SigningKey::new()));
        }
        Arc::clone(&keys[keys.len() - 1])
    }

    /// The key of personal accounts.
    pub(crate) fn consumers(&self) -> &SigningKey {
        self.consumers.get_or_init(SigningKey::new)
    }

    /// A key that is published nowhere.
    pub(crate) fn stranger(&self) -> &SigningKey {
        self.stranger.get_or_init(SigningKey::new)
    }

    /// Makes a new current key.
    pub(crate) fn roll(&self, keep_old: bool) {
        // The old key is made if there is none, so that whoever asks for the keys next sees what has changed.
        self.current();
        let new = Arc::new(SigningKey::new());
        let mut keys = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if !keep_old {
            keys.clear();
        }
        keys.push(new);
    }

    /// The public keys of work accounts.
    pub(crate) fn jwks(&self) -> Vec<Jwk> {
        self.current();
        self.work.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|key| key.jwk.clone()).collect()
    }

    /// The document that publishes the keys.
    pub(super) fn document(&self, authority: &str) -> Value {
        self.current();
        let template = format!("{authority}/{{tenantid}}/v2.0");
        let mut keys: Vec<_> = self
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|key| key.published(&template))
            .collect();
        keys.push(self.consumers().published(&format!("{authority}/{CONSUMERS}/v2.0")));
        json!({ "keys": keys })
    }
}

/// Puts keys among others that are of no use for an `id_token`, or that lack what such a key should have.
pub(crate) fn add_odd_keys(keys: &mut Vec<Value>) {
    let mut nameless = keys.first().cloned().unwrap_or_default();
    let mut unowned = nameless.clone();
    if let (Some(nameless), Some(unowned)) = (nameless.as_object_mut(), unowned.as_object_mut()) {
        nameless.remove("kid");
        unowned.remove("issuer");
        unowned.insert("kid".to_owned(), json!("unowned"));
    }
    let curve = json!({ "kty": "EC", "use": "sig", "crv": "P-256", "kid": "curve", "x": "AA", "y": "AA" });
    let unknown = json!({ "kty": "unheard-of", "kid": 7 });
    keys.splice(0..0, [unknown, curve, nameless, unowned]);
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;

    #[test]
    fn what_a_key_signs_its_published_half_confirms() {
        let ring = Keyring::default();
        let key = ring.current();
        let document = ring.document("https://login.example");
        let published = &document["keys"][0];
        let number = |name: &str| URL_SAFE_NO_PAD.decode(published[name].as_str().unwrap()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(key.sign("text")).unwrap();
        let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
        public.verify(&RSA_PKCS1_2048_8192_SHA256, b"text", &signature).unwrap();
        assert_eq!(published["issuer"], "https://login.example/{tenantid}/v2.0");
        let personal = &document["keys"][1];
        assert_eq!(personal["issuer"], "https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0");
        assert_ne!(personal["kid"], published["kid"]);
    }

    #[test]
    fn a_new_key_replaces_the_old_one_or_joins_it() {
        let ring = Keyring::default();
        let first = ring.current().kid.clone();
        ring.roll(true);
        let kids = || ring.jwks().into_iter().map(|k| k.kid).collect::<Vec<_>>();
        let second = ring.current().kid.clone();
        assert_eq!(kids(), [first, second.clone()]);
        ring.roll(false);
        assert!(kids().len() == 1 && kids()[0] != second);
    }
}
