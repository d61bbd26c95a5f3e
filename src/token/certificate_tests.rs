//! Certificates and keys in every wrapping that operators have.

use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p12_keystore::{EncryptionAlgorithm, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rsa::pkcs1::der::asn1::{AnyRef, SequenceOf, UintRef};
use rsa::pkcs1::der::pem::LineEnding;
use rsa::pkcs1::der::{Encode as _, EncodePem as _, Tag};

use super::*;
use crate::token::testing::{Pair, pair, some_pair, with_key};
use crate::token::{Credential, Signing};

fn read(certificate: &str, key: &str) -> Result<Certificate, CertificateError> {
    Certificate::from_pem(certificate.as_bytes(), Some(key.as_bytes()))
}

/// The key of a pair as PKCS#1.
fn pkcs1(pair: &Pair) -> String {
    let block = Pem::iter_from_buffer(pair.key.as_bytes()).next().unwrap().unwrap();
    let key = unwrap_pkcs8(&block.contents).unwrap();
    rsa::pkcs1::RsaPrivateKey::from_der(&key).unwrap().to_pem(LineEnding::LF).unwrap()
}

/// The DER inside a PEM text.
fn der(pem: &str) -> Vec<u8> {
    Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap().contents
}

/// Runs openssl with files in a directory of its own, and returns what it writes to `out`; `None`, with a word on
/// why, where there is no openssl.
fn openssl(files: &[(&str, &str)], arguments: &str) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let run =
        Command::new("openssl").args(arguments.split(' ')).current_dir(directory.path()).stdin(Stdio::null()).output();
    let Ok(output) = run else {
        // CI installs what is needed and says so.
        assert!(std::env::var_os("TENANTRY_TEST_NO_SKIP").is_none(), "skipped in CI: there is no openssl");
        eprintln!("SKIPPED: there is no openssl on this machine");
        return None;
    };
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(directory.path().join("out")).unwrap())
}

#[test]
fn a_pair_in_pem_however_it_is_laid_out() {
    let pair = some_pair();
    let Pair { certificate, key, .. } = pair;
    let expected = read(certificate, key).unwrap();
    assert_eq!(expected.subject(), "CN=some pair");
    assert_eq!(expected.key_bits(), 2048);
    let old = pkcs1(pair);
    assert!(old.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    for (what, file) in [
        ("certificate first", format!("{certificate}{key}")),
        ("key first", format!("{key}{certificate}")),
        ("PKCS#1", format!("{certificate}{old}")),
        ("Windows line ends", format!("{certificate}{key}").replace("\r\n", "\n").replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{certificate}{key}")),
        (
            "openssl's attributes",
            format!(
                "Bag Attributes\n    friendlyName: ü\nsubject=CN = x\n{certificate}\nKey Attributes: <No Attributes>\n{key}"
            ),
        ),
        (
            "other blocks",
            format!("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n{certificate}{key}"),
        ),
        ("the same key twice", format!("{certificate}{key}{key}")),
    ] {
        let certificate =
            Certificate::from_pem(file.as_bytes(), None).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(certificate, expected, "{what}");
    }
    let both = format!("{certificate}{key}");
    assert_eq!(read(certificate, &both).unwrap(), expected, "a key file that holds the certificate too");
    assert_eq!(read(&both, key).unwrap(), expected, "both files hold the key");
}

#[test]
fn the_certificate_of_the_key_is_found_in_a_chain() {
    let root_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let leaf_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    let leaf = params.signed_by(&leaf_key, &issuer).unwrap();

    let key = leaf_key.serialize_pem();
    for chain in [format!("{}{}", leaf.pem(), root.pem()), format!("{}{}", root.pem(), leaf.pem())] {
        let certificate = read(&chain, &key).unwrap();
        assert_eq!(certificate.der(), leaf.der().as_ref());
        assert!(certificate.subject().contains("CN=leaf"), "{}", certificate.subject());
    }
}

#[test]
fn of_certificates_with_the_same_key_the_one_that_lasts_counts() {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let until = |year| {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    for file in [format!("{}{}", until(2030), until(2031)), format!("{}{}", until(2031), until(2030))] {
        let certificate = read(&file, &key.serialize_pem()).unwrap();
        assert_eq!(certificate.not_after(), "2031-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(certificate.not_before(), "2020-01-01T00:00:00Z".parse().unwrap());
        assert!(certificate.is_valid("2026-11-22T12:00:00Z".parse().unwrap()));
        assert!(!certificate.is_valid("2031-01-01T00:00:01Z".parse().unwrap()), "expired, and read all the same");
        assert!(!certificate.is_valid("2019-12-31T23:59:59Z".parse().unwrap()));
    }
}

#[test]
fn thumbprints_in_every_notation() {
    let certificate = read(&some_pair().certificate, &some_pair().key).unwrap();
    for (hex, base64, length) in
        [(certificate.sha1_hex(), certificate.x5t(), 20), (certificate.sha256_hex(), certificate.x5t_s256(), 32)]
    {
        assert_eq!(hex.len(), 2 * length);
        let bytes = URL_SAFE_NO_PAD.decode(base64).unwrap();
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat(), hex);
    }
    for (digest, ours) in [("sha1", certificate.sha1_hex()), ("sha256", certificate.sha256_hex())] {
        let arguments = format!("x509 -in c.pem -noout -fingerprint -{digest} -out out");
        let Some(theirs) = openssl(&[("c.pem", &some_pair().certificate)], &arguments) else { return };
        let theirs = String::from_utf8(theirs).unwrap();
        assert_eq!(theirs.trim().split_once('=').unwrap().1.replace(':', ""), ours);
    }
}

/// A key of `bits` bits that is none, and a real certificate beside it: the length is looked at first.
fn key_of(bits: usize) -> String {
    let mut modulus = vec![0xFF; bits / 8];
    modulus[0] = 0x80;
    let integer = UintRef::new(&modulus).unwrap();
    let small = UintRef::new(&[3]).unwrap();
    let key = rsa::pkcs1::RsaPrivateKey {
        modulus: integer,
        public_exponent: small,
        private_exponent: small,
        prime1: small,
        prime2: small,
        exponent1: small,
        exponent2: small,
        coefficient: small,
        other_prime_infos: None,
    };
    key.to_pem(LineEnding::LF).unwrap()
}

#[test]
fn what_is_wrong_is_said_with_what_to_change() {
    let pair = some_pair();
    let Pair { certificate, key, .. } = pair;
    let other = self::pair("another");
    let elliptic = with_key(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), "elliptic");
    let both = format!("{certificate}{key}");
    let cut = &certificate[..certificate.len() / 2];
    let unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted_long_ago = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for (certificate, key, expected) in [
        (&certificate[..], &other.key[..], "the private key does not belong to the certificate `CN=some pair`"),
        (certificate, &key_of(1024), "the key has 1024 bits, and Microsoft takes no fewer than 2048"),
        (certificate, &key_of(2040), "the key has 2040 bits"),
        (certificate, &key_of(16_384), "the key has 16384 bits, and more than 8192 cannot be used"),
        (certificate, &elliptic.key, "the private key is not an RSA key"),
        (certificate, sec1, "the private key is not an RSA key"),
        (&elliptic.certificate, key, "does not belong to the certificate"),
        (certificate, encrypted, "decrypt it with `openssl pkey -in ENCRYPTED.pem -out PLAIN.pem`"),
        (certificate, encrypted_long_ago, "decrypt it with `openssl pkey"),
        (certificate, nonsense, "the private key cannot be read"),
        (certificate, certificate, "there is no private key"),
        (certificate, "", "there is no private key"),
        (certificate, &format!("{key}{}", other.key), "there are 2 private keys"),
        (key, key, "there is no certificate in it"),
        (key, certificate, "are `certificate_file` and `private_key_file` exchanged?"),
        ("", key, "there is no certificate in it"),
        (unreadable, key, "a certificate in it cannot be read"),
        (cut, key, "a PEM block is damaged"),
        (&both.replace("MII", "M?I"), key, "a PEM block is damaged"),
    ] {
        let error = read(certificate, key).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(&pair.key[60..80]) && !error.ends_with('.'), "{error}");
    }
    let error = Certificate::from_pem(key.as_bytes(), None).unwrap_err().to_string();
    assert!(error.contains("name the certificate's file, and this one in `private_key_file`"), "{error}");
    let binary = der(certificate);
    let utf16: Vec<u8> = format!("\u{feff}{certificate}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, expected) in [
        (&binary[..], "`openssl x509 -inform der -in FILE.der -out FILE.pem`"),
        (&der(key), "`openssl pkey -inform der -in KEY.der -out KEY.pem`"),
        (&der(&pkcs1(pair)), "`openssl pkey -inform der -in KEY.der -out KEY.pem`"),
        (b"\x30\x82\xFF", "set `pkcs12_file` instead"),
        (&utf16, "this is UTF-16; save it as UTF-8"),
    ] {
        let error = Certificate::from_pem(bytes, Some(key.as_bytes())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Certificate::from_pkcs12(both.as_bytes(), &String::new().into()).unwrap_err().to_string();
    assert!(error.contains("set `certificate_file`"), "{error}");
    let error = Certificate::from_pkcs12(&binary, &String::new().into()).unwrap_err();
    assert!(matches!(error, CertificateError::OtherThanPkcs12(_)), "{error}");
}

#[test]
fn a_key_of_no_use_beside_the_certificate_does_not_matter_if_another_file_has_the_key() {
    let pair = some_pair();
    let Pair { certificate, key, .. } = pair;
    let expected = read(certificate, key).unwrap();
    for useless in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        for file in [format!("{certificate}{useless}"), format!("{useless}{certificate}")] {
            assert_eq!(read(&file, key).unwrap(), expected, "{useless}");
            Certificate::from_pem(file.as_bytes(), None).expect_err("there is no other key");
        }
    }
}

#[test]
fn a_key_for_one_way_of_signing_is_recognised() {
    let Some(pss) = openssl(&[], "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out out") else { return };
    let error = Certificate::from_pem(some_pair().certificate.as_bytes(), Some(&pss)).unwrap_err();
    assert!(matches!(error, CertificateError::PssKey), "{error}");
}

#[test]
fn a_key_whose_parts_do_not_fit_is_found_out() {
    let block = der(&some_pair().key);
    let mut key = unwrap_pkcs8(&block).unwrap();
    let parts = rsa::pkcs1::RsaPrivateKey::from_der(&key).unwrap();
    let wrong = rsa::pkcs1::RsaPrivateKey { prime1: parts.prime2, prime2: parts.prime1, ..parts }.to_der().unwrap();
    key.copy_from_slice(&wrong);
    let error = Certificate::pair(vec![der(&some_pair().certificate)], &key).unwrap_err();
    assert!(matches!(error, CertificateError::UnsoundKey), "{error}");
}

fn keystore(pair: &Pair) -> KeyStore {
    let key = PrivateKey::from_der(&der(&pair.key)).unwrap();
    let certificate = p12_keystore::Certificate::from_der(&der(&pair.certificate)).unwrap();
    let mut store = KeyStore::new();
    store.add_entry("app", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("id", key, [certificate])));
    store
}

#[test]
fn pkcs12_of_our_own_making() {
    let pair = some_pair();
    let expected = read(&pair.certificate, &pair.key).unwrap();
    let store = keystore(pair);
    for algorithm in
        [EncryptionAlgorithm::PbeWithHmacSha256AndAes256, EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc]
    {
        for password in ["", "p", "pässwörd with spaces"] {
            let bytes = store
                .writer(password)
                .encryption_algorithm(algorithm)
                .encryption_iterations(100)
                .mac_iterations(100)
                .write()
                .unwrap();
            let certificate = Certificate::from_pkcs12(&bytes, &password.to_owned().into()).unwrap();
            assert_eq!(certificate, expected, "{algorithm:?} `{password}`");
            let error = Certificate::from_pkcs12(&bytes, &"wrong".to_owned().into()).unwrap_err();
            assert!(matches!(error, CertificateError::WrongPassword), "{error}");
            assert!(error.to_string().contains("correct `pkcs12_password_file`"), "{error}");
            if !password.is_empty() {
                let error = Certificate::from_pkcs12(&bytes, &String::new().into()).unwrap_err();
                assert!(matches!(error, CertificateError::NeedsPassword), "{error}");
            }
        }
    }
    let cut = store.writer("p").write().unwrap();
    let error = Certificate::from_pkcs12(&cut[..cut.len() / 2], &"p".to_owned().into()).unwrap_err();
    assert!(matches!(error, CertificateError::OtherThanPkcs12(_)), "{error}");
    let mut trusted = KeyStore::new();
    let certificate = p12_keystore::Certificate::from_der(&der(&pair.certificate)).unwrap();
    trusted.add_entry("trusted", KeyStoreEntry::Certificate(certificate));
    let bytes = trusted.writer("p").write().unwrap();
    let error = Certificate::from_pkcs12(&bytes, &"p".to_owned().into()).unwrap_err();
    assert!(matches!(error, CertificateError::NoKey), "{error}");
}

/// The same file with its integrity check keyed with nothing at all, as .NET does where there is no password ("PKCS #12",
/// appendix B.2, with a password of no bytes).
fn checked_as_dotnet_does(bytes: &[u8]) -> Vec<u8> {
    use aws_lc_rs::{digest, hmac};
    let parts = |any: AnyRef<'_>| -> Vec<Vec<u8>> {
        let parts = any.decode_as::<SequenceOf<AnyRef<'_>, 4>>().unwrap();
        parts.iter().map(|part| part.to_der().unwrap()).collect()
    };
    let any = |der: &[u8]| -> (Tag, Vec<u8>) {
        let any = AnyRef::from_der(der).unwrap();
        (rsa::pkcs1::der::Tagged::tag(&any), any.value().to_vec())
    };
    let sequence = |parts: &[Vec<u8>]| AnyRef::new(Tag::Sequence, &parts.concat()).unwrap().to_der().unwrap();
    let mut file = parts(AnyRef::from_der(bytes).unwrap());
    let explicit = any(&parts(AnyRef::from_der(&file[1]).unwrap())[1]).1;
    let (_, content) = any(&explicit);
    let mut check = parts(AnyRef::from_der(&file[2]).unwrap());
    let (_, salt) = any(&check[1]);
    let (_, iterations) = any(&check[2]);
    let iterations = iterations.iter().fold(0, |sum, byte| sum * 256 + u32::from(*byte));
    let salted: Vec<_> = salt.iter().copied().cycle().take(salt.len().div_ceil(64) * 64).collect();
    let mut key = digest::digest(&digest::SHA256, &[&[3; 64][..], &salted].concat());
    for _ in 1..iterations {
        key = digest::digest(&digest::SHA256, key.as_ref());
    }
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), &content);
    let mut info = parts(AnyRef::from_der(&check[0]).unwrap());
    info[1] = AnyRef::new(Tag::OctetString, tag.as_ref()).unwrap().to_der().unwrap();
    check[0] = sequence(&info);
    file[2] = sequence(&check);
    sequence(&file)
}

#[test]
fn pkcs12_without_a_password_as_dotnet_makes_it() {
    let pair = some_pair();
    let modern = EncryptionAlgorithm::PbeWithHmacSha256AndAes256;
    let write = |password: &str| {
        let store = keystore(pair);
        let writer = store.writer(password).encryption_algorithm(modern).encryption_iterations(100).mac_iterations(100);
        writer.write().unwrap()
    };
    let none = Secret::from(String::new());
    let bytes = checked_as_dotnet_does(&write(""));
    assert_ne!(bytes, write(""));
    assert_eq!(Certificate::from_pkcs12(&bytes, &none).unwrap(), read(&pair.certificate, &pair.key).unwrap());
    // With a password, the check that fails still says so.
    let error = Certificate::from_pkcs12(&checked_as_dotnet_does(&write("p")), &"p".to_owned().into()).unwrap_err();
    assert!(matches!(error, CertificateError::WrongPassword), "{error}");
    let error = Certificate::from_pkcs12(&write("p"), &none).unwrap_err();
    assert!(matches!(error, CertificateError::NeedsPassword), "{error}");

    // Whoever knows both encodings takes it for a sound file.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("net.pfx");
    std::fs::write(&file, &bytes).unwrap();
    openssl(&[], &format!("pkcs12 -in {} -passin pass: -nodes -out out", file.display()));
}

#[test]
fn pkcs12_as_openssl_makes_it() {
    let pair = some_pair();
    let other = self::pair("elsewhere");
    let expected = read(&pair.certificate, &pair.key).unwrap();
    let files = [("k.pem", &pair.key[..]), ("c.pem", &pair.certificate), ("chain.pem", &other.certificate)];
    for (arguments, password) in [
        ("-passout pass:secret", "secret"),
        ("-passout pass:", ""),
        ("-legacy -passout pass:secret", "secret"),
        ("-legacy -passout pass:", ""),
        ("-certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES -macalg sha1 -passout pass:secret", "secret"),
        ("-certpbe NONE -keypbe NONE -passout pass:secret", "secret"),
        ("-certfile chain.pem -name app -passout pass:secret", "secret"),
        ("-nomac -passout pass:secret", "secret"),
    ] {
        let arguments = format!("pkcs12 -export -inkey k.pem -in c.pem -out out {arguments}");
        let Some(bytes) = openssl(&files, &arguments) else { return };
        let certificate = Certificate::from_pkcs12(&bytes, &password.to_owned().into())
            .unwrap_or_else(|error| panic!("{arguments}: {error}"));
        assert_eq!(certificate, expected, "{arguments}");
        let wrong = Certificate::from_pkcs12(&bytes, &"wrong".to_owned().into());
        assert!(matches!(wrong, Err(CertificateError::WrongPassword)), "{arguments}: {wrong:?}");
    }
}

#[test]
fn keys_that_openssl_encrypted_are_recognised() {
    let key = &some_pair().key;
    for arguments in [
        "pkcs8 -topk8 -in k.pem -passout pass:secret -out out",
        "rsa -in k.pem -traditional -aes256 -passout pass:secret -out out",
    ] {
        let Some(encrypted) = openssl(&[("k.pem", key)], arguments) else { return };
        let error = Certificate::from_pem(some_pair().certificate.as_bytes(), Some(&encrypted)).unwrap_err();
        assert!(matches!(error, CertificateError::EncryptedKey), "{arguments}: {error}");

        // The command that the message names does what it says.
        let encrypted = String::from_utf8(encrypted).unwrap();
        let arguments = "pkey -in ENCRYPTED.pem -passin pass:secret -out out";
        let plain = openssl(&[("ENCRYPTED.pem", &encrypted)], arguments).unwrap();
        Certificate::from_pem(some_pair().certificate.as_bytes(), Some(&plain)).unwrap();
    }
}

#[test]
fn nothing_secret_in_debug_and_equality_by_thumbprint() {
    let pair = some_pair();
    let certificate = read(&pair.certificate, &pair.key).unwrap();
    let text = format!("{certificate:?}");
    assert!(text.contains("CN=some pair") && text.contains("key: \"[redacted]\""), "{text}");
    let inner = format!("{:?}", certificate.key());
    assert!(!inner.contains(&format!("{:?}", &certificate.key().as_bytes()[10..20])), "{inner}");
    assert_eq!(certificate, read(&pair.certificate, &pair.key).unwrap());
    assert_ne!(certificate, {
        let other = self::pair("other");
        read(&other.certificate, &other.key).unwrap()
    });
}

#[test]
fn the_newest_valid_certificate_signs() {
    let between = |from: i32, to: i32| {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        std::sync::Arc::new(read(&certificate, &key.serialize_pem()).unwrap())
    };
    let (old, new, next) = (between(2024, 2027), between(2026, 2028), between(2027, 2029));
    let list = vec![old.clone(), next.clone(), new.clone()];
    let credential = Credential::certificates(list, Signing::Ps256).unwrap();
    let at = |time: &str| credential.certificate(time.parse().unwrap()).unwrap().clone();
    assert_eq!(at("2025-06-01T00:00:00Z"), old);
    assert_eq!(at("2026-11-22T12:00:00Z"), new);
    assert_eq!(at("2027-06-01T00:00:00Z"), next);
    assert_eq!(at("2035-01-01T00:00:00Z"), next, "all have expired: the newest, so that Entra's answer names it");
    assert_eq!(Credential::certificates(Vec::new(), Signing::Ps256), None);
    assert_eq!(Credential::Secret("s".to_owned().into()).certificate(old.not_after()), None);
}

#[test]
fn the_way_around_a_missing_password_works() {
    let pair = some_pair();
    let files = [("k.pem", &pair.key[..]), ("c.pem", &pair.certificate)];
    let Some(bytes) = openssl(&files, "pkcs12 -export -inkey k.pem -in c.pem -out out -passout pass:") else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("FILE.pfx");
    std::fs::write(&file, bytes).unwrap();
    let arguments = format!("pkcs12 -in {} -passin pass: -nodes -out out", file.display());
    let plain = openssl(&[], &arguments).unwrap();
    let expected = read(&pair.certificate, &pair.key).unwrap();
    assert_eq!(Certificate::from_pem(&plain, None).unwrap(), expected, "with the attributes that openssl writes");
}
