//! The certificate of a listener, and what it demands.

use super::*;

/// For `tenantry.example`, with an ECDSA key as renewing programs make it.
fn listener(years: std::ops::Range<i32>) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["tenantry.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "listener");
    params.not_before = date_time_ymd(years.start, 1, 1);
    params.not_after = date_time_ymd(years.end, 1, 1);
    Pair { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// With a good pair in `l.crt` and `l.key`, both in `l.pem`, the key of another in `other.key`, a CA in `ca.pem`.
fn folder() -> Folder {
    let folder = Folder::new();
    let (pair, other) = (listener(2020..2100), listener(2020..2100));
    folder.write("l.crt", &pair.certificate);
    folder.private("l.key", &pair.key);
    folder.private("l.pem", [pair.certificate, pair.key].concat());
    folder.private("other.key", &other.key);
    folder.write("ca.pem", &GOOD.certificate);
    folder.private("token", "0123456789abcdef");
    folder
}

impl Folder {
    fn operator(&self, keys: &str) -> Vec<String> {
        self.write("t.toml", format!("{APP}{TENANT}[operator]\n{keys}\n"));
        match self.load() {
            Ok(settings) => settings.warnings.iter().map(|warning| self.told(warning)).collect(),
            Err(problems) => problems,
        }
    }
}

#[test]
fn what_is_wrong_with_its_files_is_told_with_file_and_key() {
    let folder = folder();
    folder.write("nothing.pem", "");
    folder
        .private("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    folder.private("nameless.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    folder.private("open.key", std::fs::read(folder.path().join("l.key")).unwrap());
    folder.mode("open.key", 0o644);
    for (keys, expected) in [
        ("certificate_file = \"l.pem\"", None),
        ("certificate_file = \"l.crt\"\nprivate_key_file = \"l.key\"", None),
        ("certificate_file = \"l.pem\"\nprivate_key_file = \"l.key\"\nclient_ca_file = \"ca.pem\"", None),
        (
            "certificate_file = \"none.crt\"",
            Some("certificate_file: there is no file of the name that is written here"),
        ),
        (
            "certificate_file = \"none.crt\"\nprivate_key_file = \"l.key\"",
            Some("certificate_file: there is no file `none.crt`; correct the path, or put the file there"),
        ),
        (
            "certificate_file = \"l.crt\"",
            Some(
                "certificate_file: `l.crt`: there is no private key with the certificate; add it to the file, or name",
            ),
        ),
        (
            "certificate_file = \"l.crt\"\nprivate_key_file = \"other.key\"",
            Some(
                "certificate_file: `l.crt` with `other.key`: the private key does not belong to the certificate \
                 `CN=listener`; name the key that this certificate was made with",
            ),
        ),
        (
            "certificate_file = \"l.key\"\nprivate_key_file = \"l.crt\"",
            Some("are `certificate_file` and `private_key_file` exchanged?"),
        ),
        (
            "certificate_file = \"l.crt\"\nprivate_key_file = \"encrypted.key\"",
            Some("the private key is encrypted; decrypt it with"),
        ),
        (
            "certificate_file = \"l.crt\"\nprivate_key_file = \"open.key\"",
            Some("private_key_file: every user of this host can read `open.key`; `chmod o-r open.key`"),
        ),
        (
            "certificate_file = \"nameless.pem\"",
            Some("certificate_file: `nameless.pem`: the certificate names no host as a subject alternative name"),
        ),
        (
            "private_key_file = \"l.key\"",
            Some("private_key_file: there is a `private_key_file` without its certificate; set `certificate_file`"),
        ),
        (
            "client_ca_file = \"ca.pem\"",
            Some("client_ca_file: there is a `client_ca_file`, and callers show certificates only to who shows one"),
        ),
        (
            "certificate_file = \"l.pem\"\nclient_ca_file = \"nothing.pem\"",
            Some(
                "client_ca_file: `nothing.pem`: there is no certificate in it; it must hold a `BEGIN CERTIFICATE` block",
            ),
        ),
        ("certificate_file = [\"l.pem\"]", Some("certificate_file: it is a list; write a text in quotes")),
        ("certificate = \"l.pem\"", Some("operator.certificate: unknown key; did you mean `certificate_file`?")),
    ] {
        let told = folder.operator(keys);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{keys}: {told:?}");
        if let Some(expected) = expected {
            assert!(told[0].contains(expected), "{keys}: {}", told[0]);
            assert!(told[0].contains("t.toml:") && told[0].contains("operator."), "{}", told[0]);
        }
    }
}

#[test]
fn a_key_in_the_place_of_its_path_is_told_and_not_shown() {
    let folder = folder();
    let pem = std::fs::read_to_string(folder.path().join("l.key")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let whole = pem.replace('\n', "\\n");
    for pasted in [&whole, &base64, &base64[..64]] {
        for keys in [
            format!("certificate_file = \"l.crt\"\nprivate_key_file = \"{pasted}\""),
            format!("certificate_file = \"{pasted}\""),
        ] {
            let told = folder.operator(&keys);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(!told[0].contains(&base64[..16]), "a key is told: {}", told[0]);
        }
    }
}

#[test]
fn an_address_that_others_can_reach_needs_a_token_or_certificates_of_its_callers() {
    let folder = folder();
    let nobody = "operator.listen: `192.0.2.1:80` can be reached from other hosts, and nothing says who may ask; set \
                  `token_file`, or `client_ca_file` (with `certificate_file`), or listen on `127.0.0.1:80`";
    for (keys, expected) in [
        ("certificate_file = \"l.pem\"", Some(nobody)),
        ("", Some(nobody)),
        ("certificate_file = \"l.pem\"\nclient_ca_file = \"ca.pem\"", None),
        ("certificate_file = \"l.pem\"\ntoken_file = \"token\"", None),
        ("certificate_file = \"l.pem\"\nclient_ca_file = \"ca.pem\"\ntoken_file = \"token\"", None),
        (
            "token_file = \"token\"",
            Some(
                "operator.listen: the token and what it opens cross the network to `192.0.2.1:80` in the clear; set \
                 `certificate_file`, unless something else encrypts the whole way",
            ),
        ),
        ("client_ca_file = \"ca.pem\"", Some("operator.client_ca_file: there is a `client_ca_file`")),
    ] {
        let told = folder.operator(&format!("listen = \"192.0.2.1:80\"\n{keys}"));
        assert_eq!(told.len(), usize::from(expected.is_some()), "{keys}: {told:?}");
        if let Some(expected) = expected {
            assert!(told[0].contains(expected), "{keys}: {}", told[0]);
        }
    }
}

#[test]
fn it_is_shown_without_its_key_and_its_expiry_is_told() {
    let folder = folder();
    let keys = "certificate_file = \"l.crt\"\nprivate_key_file = \"l.key\"\nclient_ca_file = \"ca.pem\"";
    assert_eq!(folder.operator(keys), [""; 0]);
    let settings = folder.load().unwrap();
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let text = settings.to_toml(now);
    let tls = settings.operator.tls.clone().unwrap();
    let sha256 = tls.tls().certificate().sha256_hex();
    assert!(
        text.contains(&format!(
            "# CN=listener for tenantry.example, valid from 2020-01-01T00:00:00Z to 2100-01-01T00:00:00Z\n#   SHA-256 \
             {sha256}\n# callers by CN=good\n"
        )),
        "{text}"
    );
    let key = std::fs::read_to_string(folder.path().join("l.key")).unwrap();
    let told = format!("{text}{settings:?}");
    assert!(!key.lines().any(|line| told.contains(line)), "{told}");
    folder.write("t.toml", &text);
    assert_eq!(folder.load().unwrap().operator, settings.operator);

    let told = |at: &str| tls.expiry(at.parse().unwrap()).map(|problem| folder.told(&problem)).unwrap_or_default();
    assert_eq!(told("2099-11-01T00:00:00Z"), "");
    assert_eq!(
        told("2099-12-22T00:00:00Z"),
        format!(
            "l.crt: operator.certificate_file: the certificate `CN=listener` (SHA-256 thumbprint {sha256}) expires at \
             2100-01-01T00:00:00Z, in 10 days; put a new one in its place, which is noticed by itself"
        )
    );
    assert!(told("2100-01-02T00:00:00Z").contains("expired at 2100-01-01T00:00:00Z"));
    assert!(told("2019-12-31T00:00:00Z").contains("is not valid before 2020-01-01T00:00:00Z"));
}

#[test]
fn its_files_are_read_again_by_the_same_rules() {
    let folder = folder();
    assert_eq!(folder.operator("certificate_file = \"l.crt\"\nprivate_key_file = \"l.key\""), [""; 0]);
    let tls = folder.load().unwrap().operator.tls.unwrap();
    assert_eq!(*tls.stamps(), tls.look());
    assert_eq!(tls.read_again().unwrap(), (tls.clone(), vec![]));

    let renewed = listener(2021..2101);
    folder.write("l.crt", &renewed.certificate);
    assert_ne!(*tls.stamps(), tls.look());
    let problems = tls.read_again().unwrap_err();
    let told: Vec<_> = problems.problems().iter().map(|problem| folder.told(problem)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("t.toml:7: operator.certificate_file: `l.crt` with `l.key`: the private key does not"));
    folder.private("l.key", &renewed.key);
    folder.mode("l.key", 0o644);
    let (read, warnings) = tls.read_again().unwrap();
    assert!(warnings[0].message.starts_with("every user of this host can read"), "{warnings:?}");
    folder.mode("l.key", 0o600);
    assert_ne!(read, tls);
    assert!(read.has_files_of(&tls));
    // The new one is moved there by a link, as renewing programs do, with the times of the old one.
    folder.private("new.key", &renewed.key);
    let modified = std::fs::metadata(folder.path().join("l.key")).unwrap().modified().unwrap();
    std::fs::File::open(folder.path().join("new.key")).unwrap().set_modified(modified).unwrap();
    std::fs::remove_file(folder.path().join("l.key")).unwrap();
    assert_ne!(*read.stamps(), read.look());
    std::os::unix::fs::symlink("new.key", folder.path().join("l.key")).unwrap();
    assert_ne!(*read.stamps(), read.look());
    assert_eq!(read.read_again().unwrap().0, read);
}
