//! Certificates and keys as people write them into files.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm, date_time_ymd,
};

use super::*;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate by `issuer` and its key, both PEM.
fn issued(issuer: &CertifiedIssuer<'static, KeyPair>, key: &KeyPair) -> (String, String) {
    let mut params = CertificateParams::new(["tenantry.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "listener");
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2035, 1, 1));
    (params.signed_by(key, issuer).unwrap().pem(), key.serialize_pem())
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

#[test]
fn a_chain_in_any_order_begins_with_the_certificate_of_the_key() {
    let ca = authority("ca");
    let (leaf, key) = issued(&ca, &key(&PKCS_ECDSA_P256_SHA256));
    let chain = [ca.pem(), leaf.clone()].concat();
    let read = ListenerCertificate::from_pem(chain.as_bytes(), Some(key.as_bytes())).unwrap();
    assert_eq!(read.subject(), "CN=listener");
    assert_eq!(read.names(), ["tenantry.example", "192.0.2.1"]);
    assert_eq!(read.not_after(), "2035-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(read.key().cert.len(), 2);
    let together = [leaf, ca.pem(), key.clone()].concat();
    let same = ListenerCertificate::from_pem(together.as_bytes(), None).unwrap();
    assert_eq!(read, same);
    let tls = Tls::new(read, Some(Authorities::from_pem(ca.pem().as_bytes()).unwrap())).unwrap();
    assert_eq!(tls.authorities().unwrap().subjects(), ["CN=ca"]);
    let told = format!("{tls:?}");
    assert!(told.contains("[redacted]") && !key.lines().any(|line| told.contains(line)), "{told}");
}

#[test]
fn keys_of_every_usual_kind_are_taken() {
    let ca = authority("ca");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    for key in [key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P384_SHA384), key(&PKCS_ED25519), rsa] {
        let (leaf, pem) = issued(&ca, &key);
        let read = ListenerCertificate::from_pem(leaf.as_bytes(), Some(pem.as_bytes()));
        assert!(Tls::new(read.unwrap(), None).is_ok(), "{:?}", key.algorithm());
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    let ca = authority("ca");
    let (leaf, own) = issued(&ca, &key(&PKCS_ECDSA_P256_SHA256));
    let (_, other) = issued(&ca, &key(&PKCS_ECDSA_P256_SHA256));
    let der = x509_parser::pem::parse_x509_pem(leaf.as_bytes()).unwrap().1.contents;
    let encrypted = own.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let openssh = own.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY");
    let both = [own.clone(), other.clone()].concat();
    let certificate = |text: &str| text.as_bytes().to_vec();
    let mismatch = TlsError::Mismatch { subject: "CN=listener".to_owned() };
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let damaged = leaf[..leaf.len() / 2].to_owned();
    for (bytes, key, expected) in [
        (der, Some(own.as_str()), TlsError::NotPem),
        (b"\xFF\xFE-\0".to_vec(), Some(&own), TlsError::Utf16),
        (certificate(&damaged), Some(&own), TlsError::BrokenPem),
        (certificate("nothing of the kind"), Some(&own), TlsError::NoCertificate),
        (certificate(&own), None, TlsError::NoCertificate),
        (certificate(&own), Some(&leaf), TlsError::Exchanged),
        (certificate(&leaf), None, TlsError::NoKey),
        (certificate(&leaf), Some(&leaf), TlsError::NoKey),
        (certificate(&leaf), Some(&both), TlsError::SeveralKeys(2)),
        (certificate(&leaf), Some(&encrypted), TlsError::EncryptedKey),
        (certificate(&leaf), Some(old), TlsError::EncryptedKey),
        (certificate(&leaf), Some(&openssh), TlsError::BrokenKey),
        (certificate(&leaf), Some(&other), mismatch),
        (certificate(odd), Some(&own), TlsError::BrokenCertificate),
        (certificate(&(leaf.clone() + odd)), Some(&own), TlsError::BrokenCertificate),
        (certificate(&leaf.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), Some(&own), TlsError::NoCertificate),
    ] {
        let read = ListenerCertificate::from_pem(&bytes, key.map(str::as_bytes));
        assert_eq!(read.unwrap_err(), expected);
    }
    for (text, expected) in [(own, TlsError::NoCertificate), (damaged, TlsError::BrokenPem)] {
        assert_eq!(Authorities::from_pem(text.as_bytes()).unwrap_err(), expected);
    }
}

#[test]
fn others_to_show_or_to_demand_are_another_tls() {
    let (ca, other) = (authority("ca"), authority("other"));
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let (leaf, pem) = issued(&ca, &key);
    let (renewed, _) = issued(&ca, &key);
    let tls = |leaf: &str, of: Option<&CertifiedIssuer<'static, KeyPair>>| {
        let certificate = ListenerCertificate::from_pem(leaf.as_bytes(), Some(pem.as_bytes())).unwrap();
        Tls::new(certificate, of.map(|of| Authorities::from_pem(of.pem().as_bytes()).unwrap())).unwrap()
    };
    assert_eq!(tls(&leaf, Some(&ca)), tls(&leaf, Some(&ca)));
    assert_ne!(tls(&leaf, Some(&ca)), tls(&renewed, Some(&ca)));
    assert_ne!(tls(&leaf, Some(&ca)), tls(&leaf, Some(&other)));
    assert_ne!(tls(&leaf, Some(&ca)), tls(&leaf, None));
}
