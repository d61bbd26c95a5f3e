//! The configuration from outside: files in, settings or problems out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd};

use super::*;
use crate::content::ContentType;
use crate::token::Credential;

/// A certificate and its key, both PEM.
struct Pair {
    certificate: String,
    key: String,
}

fn pair(years: std::ops::Range<i32>, name: &str) -> Pair {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.start, 1, 1);
    params.not_after = date_time_ymd(years.end, 1, 1);
    Pair { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

static GOOD: LazyLock<Pair> = LazyLock::new(|| pair(2020..2100, "good"));
static OTHER: LazyLock<Pair> = LazyLock::new(|| pair(2021..2101, "other"));
static EXPIRED: LazyLock<Pair> = LazyLock::new(|| pair(2019..2020, "expired"));

/// The good certificate as PKCS#12.
static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
    let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    let chain = PrivateKeyChain::new(
        b"id".as_slice(),
        PrivateKey::from_der(&der(&GOOD.key)).unwrap(),
        [Certificate::from_der(&der(&GOOD.certificate)).unwrap()],
    );
    let mut store = KeyStore::new();
    store.add_entry("app", KeyStoreEntry::PrivateKeyChain(chain));
    store.writer("right").write().unwrap()
});

const APP: &str = "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\nclient_secret_file = \"secret\"\n";
const TENANT: &str = "[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\n";

/// A folder with configuration files; `secret` is in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.private("secret", "hunter2\n");
        folder
    }

    fn with(text: &str) -> Self {
        let folder = Self::new();
        folder.write("t.toml", text);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn private(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write(name, content);
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(self.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Settings, Vec<String>> {
        self.load_with(&[])
    }

    fn load_with(&self, environment: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        load_with(&self.path().join("t.toml"), environment)
            .map_err(|errors| errors.problems().iter().map(|problem| self.told(problem)).collect())
    }

    /// The problem without the folder's path.
    fn told(&self, problem: &Problem) -> String {
        problem.to_string().replace(&format!("{}/", self.path().display()), "")
    }

    fn problems(&self) -> Vec<String> {
        self.load().expect_err("this configuration has problems")
    }

    fn warnings(&self) -> Vec<String> {
        self.load().unwrap().warnings.iter().map(|warning| self.told(warning)).collect()
    }
}

#[test]
fn the_least_configuration_has_the_defaults() {
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    let settings = folder.load().unwrap();
    assert_eq!(settings.warnings, []);
    assert_eq!(settings.collect, Collect::default());
    assert_eq!(settings.token, TokenSettings::default());
    assert_eq!(settings.store, StoreSettings::default());
    assert_eq!(settings.log, Log::default());
    assert_eq!(settings.daemon, Daemon::default());
    let tenant = settings.tenants.values().next().unwrap();
    assert_eq!(tenant.name, "11111111-2222-3333-4444-555555555555");
    assert_eq!(tenant.cloud.name, "worldwide");
    assert_eq!(tenant.content_types, ContentType::AUDIT.into());
    assert_eq!(tenant.origin, folder.path().join("t.toml"));
    assert!(tenant.enabled);
    assert_eq!(settings.apps[""].client_id, "aaaaaaaa-1111-2222-3333-444444444444");
    let Credential::Secret(secret) = &settings.apps[""].credential else { panic!("{:?}", settings.apps) };
    assert_eq!(secret.expose(), "hunter2", "without the line's end");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn bad_values_are_refused_with_what_to_change() {
    let app = |more: &str| format!("{APP}{more}{TENANT}");
    let tenant = |more: &str| format!("{APP}{TENANT}{more}");
    let cloud = |more: &str| format!("{APP}[clouds.own]\n{more}{TENANT}cloud = \"own\"\n");
    let guid = "it is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`";
    for (text, expected) in [
        // Apps.
        (
            format!("[app]\nclient_secret_file = \"secret\"\n{TENANT}"),
            "t.toml:1: app.client_id: it is missing; set it to the *Application (client) ID* of the app registration's \
             overview page"
                .to_owned(),
        ),
        (
            format!("[app]\nclient_id = \"hunter2\"\nclient_secret_file = \"secret\"\n{TENANT}"),
            format!("t.toml:2: app.client_id: {guid}"),
        ),
        (
            format!("[app]\nclient_id = 7\nclient_secret_file = \"secret\"\n{TENANT}"),
            "t.toml:2: app.client_id: it is a number; write a text in quotes".to_owned(),
        ),
        (app("publisher_id = \"me\"\n"), format!("t.toml:4: app.publisher_id: {guid}")),
        (
            app("publisher_id = \"00000000-0000-0000-0000-000000000000\"\n"),
            "t.toml:4: app.publisher_id: it is all zeros; write the real one".to_owned(),
        ),
        (
            app("signing = \"RS256\"\n"),
            "t.toml:4: app.signing: a client secret signs nothing; remove this key, or set a certificate".to_owned(),
        ),
        (
            app("signing = \"PS265\"\n"),
            "t.toml:4: app.signing: `PS265` is not one of `PS256` and `RS256`; did you mean `PS256`?".to_owned(),
        ),
        (
            app("client_secret = \"hunter2\"\n"),
            "t.toml:4: app: set either `client_secret` (t.toml:4) or `client_secret_file` (t.toml:3), not both"
                .to_owned(),
        ),
        (
            app("pkcs12_file = \"x\"\n"),
            "t.toml:1: app: there are a PKCS#12 file (t.toml:4) and a client secret (t.toml:3); leave only one of them"
                .to_owned(),
        ),
        (
            format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{TENANT}"),
            "t.toml:1: app: there is no credential; set `certificate_file` (and `private_key_file` if the key is \
             apart), `pkcs12_file` or `client_secret_file`"
                .to_owned(),
        ),
        (
            app("[apps.\"a b\"]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\nclient_secret_file = \"secret\"\n"),
            "t.toml:4: apps.a b: a name has 1 to 64 letters, digits, `_` and `-`; choose another".to_owned(),
        ),
        // Tenants.
        (
            format!("{APP}[[tenants]]\nname = \"x\"\n"),
            "t.toml:4: tenants[0].id: it is missing; set it to the customer's *Directory (tenant) ID*".to_owned(),
        ),
        (
            format!("{APP}[[tenants]]\nid = \"contoso.example\"\n"),
            "t.toml:5: tenants[0].id: `contoso.example` is not a GUID; it looks like \
             `12345678-90ab-cdef-1234-567890abcdef`"
                .to_owned(),
        ),
        (
            tenant("cloud = \"gccc\"\n"),
            "t.toml:6: tenants[0].cloud: there is no cloud `gccc`; did you mean `gcc`? the clouds are `dod`, `gcc`, \
             `gcc_high` and `worldwide`, others are made by `[clouds.NAME]`"
                .to_owned(),
        ),
        (
            tenant("app = \"special\"\n"),
            "t.toml:6: tenants[0].app: there is no `[apps.special]`; write it, or leave the key out to use `[app]`"
                .to_owned(),
        ),
        (
            TENANT.to_owned(),
            "t.toml:1: tenants[0].app: it names no `app` and there is no `[app]`; write the one or the other".to_owned(),
        ),
        (
            tenant("content_types = [\"Audit.Exchange\", \"Audit.Sharepiont\"]\n"),
            "t.toml:6: tenants[0].content_types: `Audit.Sharepiont` is no content type; did you mean \
             `Audit.SharePoint`? the types are `Audit.AzureActiveDirectory`, `Audit.Exchange`, `Audit.SharePoint`, \
             `Audit.General` and `DLP.All`"
                .to_owned(),
        ),
        (
            tenant("content_types = []\n"),
            "t.toml:6: tenants[0].content_types: the list is empty, so that nothing would be collected; leave the key \
             out for the four `Audit` types, or set `enabled = false`"
                .to_owned(),
        ),
        (
            tenant("enabled = \"no\"\n"),
            "t.toml:6: tenants[0].enabled: it is a text; write `true` or `false`, without quotes".to_owned(),
        ),
        (
            tenant("name = \" \"\n"),
            "t.toml:6: tenants[0].name: it is empty; set it, or leave the key out".to_owned(),
        ),
        (
            tenant("[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\n"),
            "t.toml:7: tenants[1].id: tenant `11111111-2222-3333-4444-555555555555` is in t.toml:5 already; remove \
             one of the two"
                .to_owned(),
        ),
        // Clouds.
        (
            cloud("authority = \"https://a.example\"\n"),
            "t.toml:4: clouds.own.management: `clouds.own` has no `management`; set it, a cloud of your own takes \
             nothing from another"
                .to_owned(),
        ),
        (
            cloud("authority = \"http://a.example\"\nmanagement = \"https://m.example\"\n"),
            "t.toml:5: clouds.own.authority: `http://a.example` would send tokens unencrypted; write `https://`, plain \
             http is only for loopback hosts"
                .to_owned(),
        ),
        (
            cloud("authority = \"https://a.example\"\nmanagement = \"https://m.example\"\ngraph_audience = \"https://m.example/.default\"\n"),
            "t.toml:7: clouds.own.graph_audience: leave `/.default` out: write `https://m.example`".to_owned(),
        ),
        (
            cloud("authority = \"https://a.example\"\nmanagement = \"https://m.example\"\napp = \"us\"\n"),
            "t.toml:7: clouds.own.app: there is no `[apps.us]`; write it, or leave the key out to use `[app]`".to_owned(),
        ),
        (
            tenant("[clouds.gcc]\nmanagement = \"https://m.example\"\n"),
            "t.toml:7: clouds.gcc.management: `gcc` is Microsoft's and its hosts are fixed; give a cloud of your own \
             another name"
                .to_owned(),
        ),
        // Spans, numbers and words.
        (
            tenant("[collect]\npoll_interval = \"5s\"\n"),
            "t.toml:7: collect.poll_interval: 5s is too low: each poll is a request per tenant and content type, and \
             the service throttles the tenant; set at least 10s"
                .to_owned(),
        ),
        (
            tenant("[collect]\npoll_interval = \"61m\"\n"),
            "t.toml:7: collect.poll_interval: 1h1m is too high: records would arrive hours late; set at most 1h"
                .to_owned(),
        ),
        (
            tenant("[collect]\npoll_interval = 60\n"),
            "t.toml:7: collect.poll_interval: it is a number; write a span of time with its unit, such as `90s`, \
             `45m`, `6h` or `7d`"
                .to_owned(),
        ),
        (
            tenant("[collect]\nsweep_interval = \"daily\"\n"),
            "t.toml:7: collect.sweep_interval: it is `daily`; write a span of time with its unit, such as `90s`, \
             `45m`, `6h` or `7d`"
                .to_owned(),
        ),
        (
            tenant("[collect]\nrecent_span = \"7d\"\n"),
            "t.toml:7: collect.recent_span: 7d is too high: the service keeps content for seven days and refuses to \
             list what is older; set at most 6d23h55m"
                .to_owned(),
        ),
        (
            tenant("[collect]\nbackfill = \"8d\"\n"),
            "t.toml:7: collect.backfill: 8d is too high: the service keeps content for seven days, there is nothing \
             older to collect; set at most 7d"
                .to_owned(),
        ),
        (
            tenant("[collect]\noverlap = \"5h\"\n"),
            "t.toml:7: collect.overlap: `recent_span` (3h) is shorter than `overlap` (5h), so that it would find \
             nothing that a poll does not; make it longer"
                .to_owned(),
        ),
        (
            tenant("[collect]\nrecent_interval = \"6h\"\n"),
            "t.toml:7: collect.recent_interval: `recent_span` (3h) is shorter than `recent_interval` (6h), so that it \
             leaves gaps; make it longer"
                .to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = 0\n"),
            "t.toml:7: collect.concurrency: 0 is too low: nothing would be retrieved; set at least 1".to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = 4\n"),
            "t.toml:7: collect.concurrency: `concurrency_per_tenant` (8) is more than `concurrency` (4), so that one \
             tenant could hold all of it; lower the one or raise the other"
                .to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = -4\n"),
            "t.toml:7: collect.concurrency: it is `-4`; write a whole number without quotes".to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = \"4\"\n"),
            "t.toml:7: collect.concurrency: it is a text; write a whole number without quotes".to_owned(),
        ),
        (
            tenant("[collect]\nmax_blob_size = 4\n"),
            "t.toml:7: collect.max_blob_size: it is a number; write a number of bytes with its unit, such as `512 MiB` \
             or `4 GiB`"
                .to_owned(),
        ),
        (
            tenant("[store]\npartition_size = \"1 KiB\"\n"),
            "t.toml:7: store.partition_size: 1 KiB is too low: a day would have hundreds of partitions, and opening \
             the store would take long; set at least 64 MiB"
                .to_owned(),
        ),
        (
            tenant("[token]\nrenew_after = \"10s\"\n"),
            "t.toml:7: token.renew_after: 10s is too low: Entra locks out clients that ask for tokens in a loop; set \
             at least 1m"
                .to_owned(),
        ),
        (
            tenant("[token]\nendpoint = \"v3\"\n"),
            "t.toml:7: token.endpoint: `v3` is not one of `v2` and `v1`; did you mean `v2`?".to_owned(),
        ),
        (
            tenant("[log]\nlevel = \"inof\"\n"),
            "t.toml:7: log.level: `inof` is not one of `error`, `warn`, `info`, `debug`, `trace` and `off`; did you \
             mean `info`?"
                .to_owned(),
        ),
        (
            tenant("[log]\nlevel = \"tenantry=loud\"\n"),
            "t.toml:7: log.level: `tenantry=loud` is no filter; write a level such as `info`, or \
             `info,tenantry::tenant=debug`"
                .to_owned(),
        ),
        (
            tenant("[log]\nformat = \"yaml\"\n"),
            "t.toml:7: log.format: `yaml` is not one of `auto`, `journald`, `json` and `text`".to_owned(),
        ),
        (
            tenant("[daemon]\ndrain = \"0s\"\n"),
            "t.toml:7: daemon.drain: 0s is too low: what is under way could not even be written; set at least 1s"
                .to_owned(),
        ),
        (
            tenant(&format!("[daemon]\nsocket = \"/run/{}\"\n", "s".repeat(110))),
            format!(
                "t.toml:7: daemon.socket: `/run/{}` has 115 bytes, and a socket's path has room for 107; choose a \
                 shorter one",
                "s".repeat(110)
            ),
        ),
    ] {
        assert_eq!(Folder::with(&text).problems(), [expected], "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn bad_certificates_are_refused_with_their_file() {
    let folder = Folder::new();
    folder.private("good.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    folder.write("good.crt", &GOOD.certificate);
    folder.private("other.key", &OTHER.key);
    folder.private("weak.pem", include_bytes!("../../tests/fixtures/weak-1024-bits.pem"));
    folder.private("app.pfx", &*ARCHIVE);
    folder.private("right", "right\n");
    folder.private("wrong", "wrong\n");
    folder.private("empty", "\n");
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let subject_and_thumbprint = {
        let good = crate::token::Certificate::from_pem(GOOD.certificate.as_bytes(), Some(GOOD.key.as_bytes())).unwrap();
        format!("`{}` (SHA-1 thumbprint {})", good.subject(), good.sha1_hex())
    };
    for (keys, expected) in [
        (
            "certificate_file = \"weak.pem\"",
            "t.toml:3: app.certificate_file: `weak.pem`: the key has 1024 bits, and Microsoft takes no fewer than 2048; \
             make a new key and certificate"
                .to_owned(),
        ),
        (
            "certificate_file = \"good.crt\"\nprivate_key_file = \"other.key\"",
            format!(
                "t.toml:3: app.certificate_file: `good.crt` with `other.key`: the private key does not belong to the \
                 certificate {subject_and_thumbprint}; name the key that this certificate was made with"
            ),
        ),
        (
            "certificate_file = \"good.crt\"",
            "t.toml:3: app.certificate_file: `good.crt`: there is no private key with the certificate; add it to the \
             file, or name its own file in `private_key_file`"
                .to_owned(),
        ),
        (
            "certificate_file = \"missing.pem\"",
            "t.toml:3: app.certificate_file: there is no file `missing.pem`; correct the path, or put the file there"
                .to_owned(),
        ),
        (
            "certificate_file = \"good.crt\"\nprivate_key_file = \"missing.key\"",
            "t.toml:4: app.private_key_file: there is no file `missing.key`; correct the path, or put the file there"
                .to_owned(),
        ),
        (
            "private_key_file = \"other.key\"",
            "t.toml:3: app.certificate_file: there is a `private_key_file` without its certificate; set \
             `certificate_file`"
                .to_owned(),
        ),
        (
            "certificate_file = [\"good.pem\", \"good.crt\"]\nprivate_key_file = [\"other.key\"]",
            "t.toml:4: app.private_key_file: it names 1 of them, and `certificate_file` names 2; write one for each, in the same \
             order"
                .to_owned(),
        ),
        (
            "certificate_file = []",
            "t.toml:3: app.certificate_file: the list is empty; name a file, or leave the key out".to_owned(),
        ),
        (
            "certificate_file = \"app.pfx\"",
            "t.toml:3: app.certificate_file: `app.pfx`: this is a binary file, not PEM; if it is a PKCS#12 file (.pfx, \
             .p12), set `pkcs12_file` instead"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"wrong\"",
            "t.toml:3: app.pkcs12_file: `app.pfx`: the password of the PKCS#12 file is wrong; correct \
             `pkcs12_password_file` (an empty password is none)"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"",
            "t.toml:3: app.pkcs12_file: `app.pfx`: the password of the PKCS#12 file is wrong; correct \
             `pkcs12_password_file` (an empty password is none)"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"empty\"",
            "t.toml:4: app.pkcs12_password_file: `empty` is empty; write the secret into it".to_owned(),
        ),
        (
            "client_secret_file = \"folder\"",
            "t.toml:3: app.client_secret_file: `folder` cannot be read: Is a directory (os error 21)".to_owned(),
        ),
    ] {
        folder.write(
            "t.toml",
            format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{keys}\n{TENANT}"),
        );
        assert_eq!(folder.problems(), [expected], "{keys}");
    }
    for keys in [
        "certificate_file = \"good.pem\"",
        "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"right\"",
        "pkcs12_file = [\"app.pfx\", \"app.pfx\"]\npkcs12_password_file = \"right\"",
    ] {
        folder
            .write("t.toml", format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{keys}\n{TENANT}"));
        assert_eq!(folder.warnings(), <[&str; 0]>::default(), "{keys}");
    }
}

#[test]
fn every_problem_of_every_source_is_reported_at_once() {
    let folder = Folder::with(&format!(
        "colour = \"red\"\n{APP}publisher = \"x\"\n[collect]\npoll_interval = \"1s\"\nbackfill = \"9d\"\n{TENANT}"
    ));
    folder.write("conf.d/b.toml", "[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\ncloud = \"mars\"\n");
    folder.write("conf.d/a.toml", "[[tenants]]\nid = \"x\"\n[log]\nlevel = 3\n");
    folder.write("conf.d/c.toml", "[store\n");
    folder.write("conf.d/.hidden.toml", "]]]");
    folder.write("conf.d/notes.txt", "]]]");
    let environment = [
        ("TENANTRY__DAEMON__DRAIN", "1h"),
        ("TENANTRY__LOG__LEVLE", "info"),
        ("TENANTRY__TENANTS__0__ID", "x"),
        ("TENANTRY__COLLECT", "x"),
        ("TENANTRY_CONFIG", "not a key"),
        ("OTHER__COLLECT__OVERLAP", "x"),
    ];
    let problems = folder.load_with(&environment).unwrap_err();
    assert_eq!(
        problems,
        [
            "t.toml:1: colour: unknown section; the sections are `app`, `apps`, `tenants`, `clouds`, `token`, \
             `collect`, `store`, `log` and `daemon`",
            "t.toml:5: app.publisher: unknown key; did you mean `publisher_id`?",
            "t.toml:7: collect.poll_interval: 1s is too low: each poll is a request per tenant and content type, and \
             the service throttles the tenant; set at least 10s",
            "t.toml:8: collect.backfill: 9d is too high: the service keeps content for seven days, there is nothing \
             older to collect; set at most 7d",
            "conf.d/a.toml:2: tenants[0].id: `x` is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`",
            "conf.d/a.toml:4: log.level: it is a number; write a text in quotes",
            "conf.d/b.toml:2: tenants[0].id: tenant `11111111-2222-3333-4444-555555555555` is in t.toml:10 already; \
             remove one of the two",
            "conf.d/c.toml:1:7: this is not TOML: unclosed table, expected `]`",
            "environment variable TENANTRY__COLLECT: collect: write it as `TENANTRY__COLLECT__KEY`",
            "environment variable TENANTRY__DAEMON__DRAIN: daemon.drain: 1h is too high: service managers kill a \
             service that takes that long to stop; set at most 10m",
            "environment variable TENANTRY__LOG__LEVLE: log.levle: unknown key; did you mean `level`?",
            "environment variable TENANTRY__TENANTS__0__ID: tenants.0.id: `[[tenants]]` cannot be set in the \
             environment; write it in a file",
        ]
    );
}

#[test]
fn what_may_stand_in_an_unreadable_source_is_not_called_missing() {
    let folder = Folder::with(TENANT);
    folder.write("conf.d/app.toml", "[app\n");
    assert_eq!(folder.problems(), ["conf.d/app.toml:1:5: this is not TOML: unclosed table, expected `]`"]);
}

#[test]
fn a_missing_file_is_named_with_the_remedy() {
    let folder = Folder::new();
    assert_eq!(
        folder.problems(),
        ["t.toml: there is no such file; name the configuration with `--config FILE`, or begin with a copy of \
          `config/tenantry.toml`, which has every key at its default"]
    );
    folder.write("t.toml", b"[log]\nlevel = \"\xFF\"\n");
    assert_eq!(folder.problems(), ["t.toml:2: there are bytes that are not UTF-8; save the file as UTF-8"]);
    folder.write("t.toml", b"\xFF\xFE[\0l\0");
    assert_eq!(folder.problems(), ["t.toml: it is UTF-16; save it as UTF-8"]);
    folder.write("t.toml", "");
    folder.write("conf.d", "a file");
    assert_eq!(folder.problems(), ["conf.d: the folder cannot be read: Not a directory (os error 20)"]);
}

#[test]
fn sources_are_merged_in_their_order_and_tenants_are_joined() {
    let folder = Folder::with(&format!(
        "{APP}[collect]\npoll_interval = \"20s\"\noverlap = \"20m\"\nbackfill = \"1d\"\n{TENANT}"
    ));
    folder.write("conf.d/2.toml", "[collect]\npoll_interval = \"40s\"\n");
    folder.write(
        "conf.d/1.toml",
        "[collect]\npoll_interval = \"30s\"\noverlap = \"30m\"\n[store]\npath = \"data\"\n\
         [[tenants]]\nid = \"22222222-2222-3333-4444-555555555555\"\ncontent_types = [\"dlp.all\"]\n",
    );
    let settings = folder
        .load_with(&[
            ("TENANTRY__COLLECT__BACKFILL", "2d"),
            ("TENANTRY__COLLECT__CONCURRENCY", "100"),
            ("TENANTRY__APP__PUBLISHER_ID", "99999999-2222-3333-4444-555555555555"),
            ("TENANTRY__LOG__LEVEL", ""),
            ("TENANTRY__APPS__OTHER__CLIENT_ID", "bbbbbbbb-1111-2222-3333-444444444444"),
            ("TENANTRY__APPS__OTHER__CLIENT_SECRET", "12345"),
        ])
        .unwrap();
    assert_eq!(settings.collect.poll_interval, Duration::from_secs(40), "the last file's");
    assert_eq!(settings.collect.overlap, Duration::from_mins(30), "the first of conf.d's");
    assert_eq!(settings.collect.backfill, Duration::from_hours(48), "the environment's");
    assert_eq!(settings.collect.concurrency, 100);
    assert_eq!(settings.log.level, "info", "an empty variable is none");
    assert_eq!(settings.store.path, folder.path().join("conf.d/data"), "relative to the file that names it");
    assert_eq!(settings.apps[""].publisher_id.unwrap().to_string(), "99999999-2222-3333-4444-555555555555");
    assert_eq!(settings.apps["other"].client_id, "bbbbbbbb-1111-2222-3333-444444444444");
    let Credential::Secret(secret) = &settings.apps["other"].credential else { panic!("{:?}", settings.apps) };
    assert_eq!(secret.expose(), "12345");
    let ids: Vec<_> = settings.tenants.keys().map(ToString::to_string).collect();
    assert_eq!(ids, ["11111111-2222-3333-4444-555555555555", "22222222-2222-3333-4444-555555555555"]);
    let second = settings.tenants.values().last().unwrap();
    assert_eq!(second.origin, folder.path().join("conf.d/1.toml"));
    assert_eq!(second.content_types, BTreeSet::from([ContentType::Dlp]));
    assert_eq!(settings.sources, ["t.toml", "conf.d/1.toml", "conf.d/2.toml"].map(|name| folder.path().join(name)));
}

#[test]
fn a_variable_that_is_not_text_is_named_and_not_shown() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    let variable = (OsString::from("TENANTRY__LOG__LEVEL"), OsString::from_vec(b"hunter2\xFF".to_vec()));
    let errors = load_with(&folder.path().join("t.toml"), [variable]).unwrap_err();
    assert_eq!(errors.to_string(), "environment variable TENANTRY__LOG__LEVEL: its value is not UTF-8");
}

#[test]
fn a_tenant_uses_its_own_app_else_its_clouds_else_the_default() {
    let app = |name: &str| APP.replace("[app]", &format!("[apps.{name}]"));
    let tenant = |digit: &str, more: &str| {
        format!("[[tenants]]\nid = \"{}-2222-3333-4444-555555555555\"\n{more}", digit.repeat(8))
    };
    let tenants = [
        tenant("1", ""),
        tenant("2", "cloud = \"gcc_high\"\n"),
        tenant("3", "cloud = \"gcc_high\"\napp = \"own\"\n"),
        tenant("4", "app = \"own\"\n"),
    ]
    .concat();
    let folder = Folder::with(&format!("{APP}{}{}[clouds.gcc_high]\napp = \"us\"\n{tenants}", app("us"), app("own")));
    let settings = folder.load().unwrap();
    let apps: Vec<_> = settings.tenants.values().map(|tenant| tenant.app.as_str()).collect();
    assert_eq!(apps, ["", "us", "own", "own"]);
}

#[test]
fn parts_of_an_own_cloud_default_to_its_hosts() {
    let folder = Folder::with(&format!(
        "{APP}[clouds.own]\nauthority = \"https://login.example/\"\nmanagement = \"https://manage.example:8443\"\n\
         {TENANT}cloud = \"own\"\n"
    ));
    let cloud = folder.load().unwrap().clouds["own"].clone();
    assert_eq!(cloud.graph, cloud.management);
    assert_eq!(cloud.management_audience, "https://manage.example:8443");
    assert_eq!(cloud.graph_audience, "https://manage.example:8443");
}

#[test]
fn short_intervals_are_for_simulated_clouds_only() {
    let collect = "[collect]\npoll_interval = \"1s\"\nsweep_interval = \"10s\"\nrecent_interval = \"5s\"\n";
    let cloud = "[clouds.sim]\nauthority = \"http://localhost:1\"\nmanagement = \"http://127.0.0.1:2\"\n";
    let folder = Folder::with(&format!("{APP}{collect}{cloud}{TENANT}cloud = \"sim\"\n"));
    assert_eq!(folder.load().unwrap().collect.poll_interval, Duration::from_secs(1));
    folder.write("conf.d/real.toml", "[[tenants]]\nid = \"22222222-2222-3333-4444-555555555555\"\n");
    assert_eq!(folder.problems().len(), 3, "{:#?}", folder.problems());
}

#[test]
fn warnings_name_what_should_be_looked_at() {
    let folder = Folder::with(APP);
    folder.mode("secret", 0o644);
    assert_eq!(
        folder.warnings(),
        [
            "t.toml:3: app.client_secret_file: every user of this host can read `secret`; `chmod o-r secret`",
            "t.toml: tenants: there are no tenants, so that nothing is collected; add `[[tenants]]` with an `id`",
        ]
    );
    let folder = Folder::with(&format!(
        "{}{TENANT}name = \"Contoso\"\n[[tenants]]\nid = \"22222222-2222-3333-4444-555555555555\"\nname = \"contoso\"\n",
        APP.replace("client_secret_file = \"secret\"", "client_secret = \"hunter2\"")
    ));
    assert_eq!(
        folder.warnings(),
        [
            "t.toml:3: app.client_secret: it stands in `t.toml`, which every user of this host can read; `chmod o-r` \
             the file, or use `client_secret_file`",
            "t.toml:8: tenants.name: `contoso` is also the name of the tenant in t.toml:5; commands will ask for the id instead",
        ]
    );
}

#[test]
fn an_expired_certificate_is_told_and_not_refused() {
    let folder = Folder::new();
    folder.private("expired.pem", format!("{}{}", EXPIRED.certificate, EXPIRED.key));
    folder.private("good.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    let config = |files: &str| {
        format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\ncertificate_file = {files}\n{TENANT}")
    };
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    folder.write("t.toml", config("\"expired.pem\""));
    let settings = folder.load().unwrap();
    let told: Vec<_> = settings.expiries(now).iter().map(|problem| folder.told(problem)).collect();
    let Credential::Certificates { list, .. } = &settings.apps[""].credential else { panic!() };
    assert_eq!(
        told,
        [format!(
            "expired.pem: app.certificate_file: the certificate `{}` (SHA-1 thumbprint {}) expired at \
             2020-01-01T00:00:00Z; make a new one, add it to the app registration, and name it here",
            list[0].subject(),
            list[0].sha1_hex()
        )]
    );
    let told = |at: &str| settings.expiries(at.parse().unwrap()).iter().map(ToString::to_string).collect::<String>();
    assert!(told("2019-12-22T00:00:00Z").contains("expires at 2020-01-01T00:00:00Z, in 10 days"));
    assert!(told("2018-12-22T00:00:00Z").contains("is not valid before 2019-01-01T00:00:00Z"));
    assert_eq!(told("2019-11-01T00:00:00Z"), "");

    folder.write("t.toml", config("[\"expired.pem\", \"good.pem\"]"));
    assert_eq!(folder.load().unwrap().expiries(now), []);
}

#[test]
fn the_2019_form_signs_as_its_page_says() {
    let folder = Folder::new();
    folder.private("good.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    for (more, expected) in [
        ("", Signing::Ps256),
        ("[token]\nendpoint = \"v1\"\n", Signing::Rs256),
        ("signing = \"PS256\"\n[token]\nendpoint = \"v1\"\n", Signing::Ps256),
        ("signing = \"RS256\"\n", Signing::Rs256),
    ] {
        folder.write(
            "t.toml",
            format!(
                "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\ncertificate_file = \"good.pem\"\n{more}{TENANT}"
            ),
        );
        let settings = folder.load().unwrap();
        let Credential::Certificates { signing, .. } = &settings.apps[""].credential else { panic!() };
        assert_eq!(*signing, expected, "{more}");
    }
}

#[test]
fn equal_credentials_from_other_files_are_no_change() {
    let folder = Folder::new();
    for name in ["a.pem", "b.pem"] {
        folder.private(name, format!("{}{}", GOOD.certificate, GOOD.key));
    }
    folder.private("other.pem", format!("{}{}", OTHER.certificate, OTHER.key));
    let app = |file: &str| {
        folder.write(
            "t.toml",
            format!(
                "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\ncertificate_file = \"{file}\"\n{TENANT}"
            ),
        );
        folder.load().unwrap().apps[""].clone()
    };
    assert_eq!(app("a.pem"), app("b.pem"));
    assert_ne!(app("a.pem"), app("other.pem"));
}

#[test]
fn the_effective_settings_are_a_configuration_without_secrets() {
    let folder = Folder::with(&format!(
        "{}{}[clouds.own]\nauthority = \"https://login.example\"\nmanagement = \"https://manage.example\"\n\
         [collect]\npoll_interval = \"90s\"\n[log]\nlevel = \"info,tenantry=debug\"\n",
        APP.replace("client_secret_file = \"secret\"", "client_secret = \"hunter2\""),
        "[apps.two]\nclient_id = \"bbbbbbbb-1111-2222-3333-444444444444\"\ncertificate_file = [\"a.pem\", \"b.pem\"]\n"
    ));
    folder.private("a.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    folder.private("b.pem", format!("{}{}", OTHER.certificate, OTHER.key));
    let settings = folder.load().unwrap();
    let text = settings.to_toml();
    assert!(!text.contains("hunter2") && text.contains("client_secret = \"[redacted]\""), "{text}");
    let Credential::Certificates { list, .. } = &settings.apps["two"].credential else { panic!() };
    assert_eq!(list[0].subject(), "CN=other", "the newest first");
    for certificate in list {
        assert!(text.contains(certificate.sha1_hex()) && text.contains(certificate.sha256_hex()), "{text}");
    }

    let again = Folder::with(&text);
    let again = again.load().unwrap();
    assert_eq!(again.to_toml(), text);
    assert_eq!((again.collect, again.log, again.clouds), (settings.collect, settings.log, settings.clouds));
    assert_eq!(again.apps["two"], settings.apps["two"]);
}

/// The text with every key switched on that stands behind a `#`.
fn switched_on(text: &str) -> String {
    let key = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
            .map(str::to_owned)
    };
    text.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn the_shipped_file_has_every_key_at_its_default() {
    let text = std::fs::read_to_string(shipped().join("tenantry.toml")).unwrap();
    let folder = Folder::with(&text);
    assert_eq!(folder.load().unwrap().collect, Collect::default(), "as it is shipped, it changes nothing");

    let all: toml::Table = switched_on(&text).parse().unwrap();
    let keys = |value: &toml::Value| value.as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut found = BTreeMap::new();
    for (name, value) in &all {
        let keys = match value {
            toml::Value::Array(entries) => keys(&entries[0]),
            table if table.get("NAME").is_some() => keys(&table["NAME"]),
            table => keys(table),
        };
        found.insert(name.as_str(), keys);
    }
    let known: BTreeMap<_, _> = schema::SECTIONS
        .iter()
        .map(|section| (section.name, section.keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>()))
        .collect();
    assert_eq!(found, known);

    // Apps, tenants and clouds have no defaults to compare; the rest is loaded with every key set.
    let how: toml::Table = all
        .into_iter()
        .filter(|(name, _)| ["token", "collect", "store", "log", "daemon"].contains(&name.as_str()))
        .collect();
    let folder = Folder::with(&how.to_string());
    let settings = folder.load().unwrap();
    assert_eq!(settings.token, TokenSettings::default());
    assert_eq!(settings.collect, Collect::default());
    assert_eq!(settings.store, StoreSettings::default());
    assert_eq!(settings.log, Log::default());
    let socket = settings.admin_socket();
    assert_eq!(Daemon { socket: None, ..settings.daemon }, Daemon::default());
    let empty = Folder::with("");
    assert_eq!(socket, empty.load().unwrap().admin_socket(), "the socket's default is the rule's");
}

#[test]
fn every_shipped_example_is_valid_where_its_files_are() {
    let mut seen = 0;
    let mut folders = vec![shipped().join("examples")];
    let mut examples = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                examples.push(path);
            } else if path.file_name().is_some_and(|name| name != "conf.d") {
                folders.push(path);
            }
        }
    }
    examples.sort();
    for example in examples {
        let folder = Folder::new();
        let mut files = vec![(example.clone(), "t.toml".to_owned())];
        if let Ok(entries) = std::fs::read_dir(example.with_file_name("conf.d")) {
            for entry in entries {
                let path = entry.unwrap().path();
                let name = format!("conf.d/{}", path.file_name().unwrap().to_str().unwrap());
                files.push((path, name));
            }
        }
        for (path, name) in &files {
            let text = std::fs::read_to_string(path).unwrap();
            folder.write(name, &text);
            // What the example names, beside the file that names it.
            let here = Path::new(name).parent().unwrap().to_path_buf();
            for word in text
                .lines()
                .filter(|line| line.contains("_file = "))
                .flat_map(|line| line.split('"').skip(1).step_by(2))
            {
                let content = match Path::new(word).extension().unwrap().to_str().unwrap() {
                    "pem" => format!("{}{}", GOOD.certificate, GOOD.key).into_bytes(),
                    "crt" => GOOD.certificate.clone().into_bytes(),
                    "key" => GOOD.key.clone().into_bytes(),
                    "pfx" => ARCHIVE.clone(),
                    "password" => b"right\n".to_vec(),
                    "secret" => b"hunter2".to_vec(),
                    other => panic!("{}: what is a .{other}?", path.display()),
                };
                folder.private(here.join(word).to_str().unwrap(), content);
            }
        }
        let settings = folder.load().unwrap_or_else(|problems| panic!("{}: {problems:#?}", example.display()));
        assert_eq!(settings.warnings, [], "{}", example.display());
        assert!(!settings.tenants.is_empty(), "{}", example.display());
        seen += 1;
    }
    assert!(seen >= 8, "{seen} examples");
}
