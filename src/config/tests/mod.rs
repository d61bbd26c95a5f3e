//! The configuration from outside: files in, settings or problems out.

mod federated;
mod listener;
mod network;
mod public;
mod refusals;
mod shipped;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
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
    assert_eq!(settings.operator, Operator::default());
    let tenant = settings.tenants.values().next().unwrap();
    assert_eq!(tenant.name, "11111111-2222-3333-4444-555555555555");
    assert_eq!(tenant.cloud.name, "worldwide");
    assert_eq!(tenant.content_types, ContentType::AUDIT.into());
    let line = APP.lines().count() + 1;
    assert_eq!((&tenant.origin, tenant.line), (&Origin::File(folder.path().join("t.toml")), Some(line)));
    assert!(tenant.enabled);
    assert_eq!(settings.apps[""].client_id, "aaaaaaaa-1111-2222-3333-444444444444");
    let Credential::Secret(secret) = &settings.apps[""].credential else { panic!("{:?}", settings.apps) };
    assert_eq!(secret.expose(), "hunter2", "without the line's end");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn every_problem_of_every_source_is_reported_at_once() {
    let folder = Folder::with(&format!(
        "colour = \"red\"\n{APP}publisher = \"x\"\n[collect]\npoll_interval = \"1s\"\nbackfill = \"9d\"\n{TENANT}"
    ));
    folder.write("conf.d/b.toml", "[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\ncloud = \"mars\"\n");
    folder.write("conf.d/a.toml", "[[tenants]]\nid = \"x\"\n[log]\nlevel = 3\n");
    folder.write("conf.d/c.toml", "[daemon]\ndran = 1\n[store\n");
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
            "t.toml:1: colour: unknown section; the sections are `app`, `apps`, `tenants`, `clouds`, `network`, `token`, \
             `collect`, `dlp`, `health`, `store`, `log`, `daemon`, `operator` and `public`",
            "t.toml:5: app.publisher: unknown key; did you mean `publisher_id`?",
            "t.toml:7: collect.poll_interval: 1s is too low: each poll is a request per tenant and content type, and \
             the service throttles the tenant; set at least 10s",
            "t.toml:8: collect.backfill: 9d is too high: the service keeps content for seven days, there is nothing \
             older to collect; set at most 7d",
            "conf.d/a.toml:2: tenants[0].id: `x` is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`",
            "conf.d/a.toml:4: log.level: it is a number; write a text in quotes",
            "conf.d/b.toml:2: tenants[0].id: tenant `11111111-2222-3333-4444-555555555555` is in t.toml:10 already; \
             remove one of the two",
            "conf.d/c.toml:2: daemon.dran: unknown key; did you mean `drain`?",
            "conf.d/c.toml:3:7: this is not TOML: unclosed table, expected `]`",
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
fn ten_thousand_customers_have_a_file_each() {
    let folder = Folder::with(APP);
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    for number in 0..10_000 {
        let text =
            format!("[[tenants]]\nid = \"11111111-2222-3333-4444-{number:012}\"\nname = \"customer {number}\"\n");
        std::fs::write(folder.path().join(format!("conf.d/{number:05}.toml")), text).unwrap();
    }
    let settings = folder.load().unwrap();
    assert_eq!((settings.tenants.len(), settings.sources.len()), (10_000, 10_001));
    assert_eq!(settings.warnings, []);
}

#[test]
fn names_in_variables_are_those_of_the_files_whatever_their_case() {
    let id = "client_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n";
    let folder = Folder::with(&format!("[apps.Contoso]\n{id}{TENANT}app = \"Contoso\"\n"));
    let secret = [("TENANTRY__APPS__CONTOSO__CLIENT_SECRET", "hunter2"), ("TENANTRY__APPS__CONTOSO__SIGNING", "")];
    let settings = folder.load_with(&secret).unwrap();
    let Credential::Secret(found) = &settings.apps["Contoso"].credential else { panic!("{:?}", settings.apps) };
    assert_eq!((found.expose(), settings.apps.len()), ("hunter2", 1));
    assert_eq!(settings.variables.into_iter().collect::<Vec<_>>(), ["TENANTRY__APPS__CONTOSO__CLIENT_SECRET"]);

    folder.write("conf.d/a.toml", format!("[apps.contoso]\n{id}client_secret_file = \"../secret\"\n"));
    let problems = folder.load_with(&secret[..1]).unwrap_err();
    assert!(
        problems.iter().any(|problem| problem
            == "environment variable TENANTRY__APPS__CONTOSO__CLIENT_SECRET: apps.contoso.client_secret: it could be any of \
                `Contoso` and `contoso`, since variables are read without regard to case; rename all but one, or set it \
                in a file"),
        "{problems:#?}"
    );
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    assert_eq!(
        folder
            .load_with(&[("TENANTRY__LOG__LEVEL", "info"), ("tenantry__log__level", "debug"), ("TENANTRY__", "x")])
            .unwrap_err(),
        [
            "environment variable TENANTRY__: name a section and a key, such as `TENANTRY__COLLECT__POLL_INTERVAL`",
            "environment variable tenantry__log__level: log.level: `TENANTRY__LOG__LEVEL` sets the same; remove one of the \
             two",
        ]
    );
}

#[test]
fn a_variable_that_is_nearly_right_is_a_warning() {
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    let settings = folder.load_with(&[("TENANTRY_LOG__LEVEL", "hunter2"), ("TENANTRY_TEST_LOG_LEVEL", "x")]).unwrap();
    assert_eq!(
        settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["environment variable TENANTRY_LOG__LEVEL: it is not read; did you mean `TENANTRY__LOG__LEVEL`?"]
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
    assert_eq!(second.origin, Origin::File(folder.path().join("conf.d/1.toml")));
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
    // Whoever reads no credentials knows as much.
    assert_eq!(load_client(&folder.path().join("t.toml")).outline, settings.outline());
}

#[test]
fn parts_of_an_own_cloud_default_to_its_hosts() {
    let folder = Folder::with(&format!(
        "{APP}[clouds.own]\nauthority = \"https://login.example/\"\nmanagement = \"https://manage.example:8443\"\n\
         {TENANT}cloud = \"own\"\n"
    ));
    let cloud = folder.load().unwrap().clouds["own"].clone();
    let management = cloud.management.as_ref().unwrap();
    assert_eq!(cloud.graph, management.host);
    assert_eq!(management.audience, "https://manage.example:8443");
    assert_eq!(cloud.graph_audience, "https://manage.example:8443");
}

#[test]
fn a_cloud_without_an_activity_api_has_tenants_without_audit_records() {
    let own = "[clouds.own]\nauthority = \"https://login.example\"\ngraph = \"https://graph.example\"\n";
    for cloud in ["own", "china"] {
        for types in ["", "content_types = []\n"] {
            let tenant = format!("{TENANT}cloud = \"{cloud}\"\n{types}");
            let folder = Folder::with(&format!("{APP}[health]\nenabled = true\n{own}{tenant}"));
            let settings = folder.load().unwrap();
            let tenant = settings.tenants.values().next().unwrap();
            assert_eq!((&tenant.cloud.management, tenant.content_types.len()), (&None, 0));
            assert_eq!(load_client(&folder.path().join("t.toml")).outline, settings.outline());
            let off = Folder::with(&format!("{APP}{own}{TENANT}cloud = \"{cloud}\"\nenabled = false\n{types}"));
            assert!(off.load().is_ok(), "one that is switched off collects nothing anyway");
        }
    }
    let shown = Folder::with(&format!("{APP}{own}")).load().unwrap().to_toml(jiff::Timestamp::UNIX_EPOCH);
    assert!(shown.contains("graph_audience = \"https://graph.example\"") && !shown.contains("management"), "{shown}");
}

#[test]
fn short_intervals_are_for_simulated_clouds_only() {
    let collect = "[collect]\npoll_interval = \"1s\"\nsweep_interval = \"10s\"\nrecent_interval = \"5s\"\n";
    let cloud = "[clouds.sim]\nauthority = \"http://localhost:1\"\nmanagement = \"http://127.0.0.1:2\"\n";
    let folder = Folder::with(&format!("{APP}{collect}{cloud}{TENANT}cloud = \"sim\"\n"));
    assert_eq!(folder.load().unwrap().collect.poll_interval, Duration::from_secs(1));
    folder.write("conf.d/real.toml", "[[tenants]]\nid = \"22222222-2222-3333-4444-555555555555\"\n");
    assert_eq!(folder.problems().len(), 3, "{:#?}", folder.problems());

    // Where no file names a tenant, those that came otherwise are to be in the simulated cloud.
    let folder = Folder::with(&format!("{APP}{collect}{cloud}"));
    let too_fast = folder.load().unwrap().outline().too_fast;
    assert_eq!((too_fast.get("worldwide"), too_fast.get("sim")), (Some(&"collect.poll_interval"), None));
    assert!(!Folder::with(&format!("{APP}{cloud}")).load().unwrap().outline().too_fast.contains_key("worldwide"));

    // What is wrong with the only tenant does not make Microsoft's of its cloud.
    let tenant = TENANT.replace("11111111", "zzz");
    let folder = Folder::with(&format!("{APP}{collect}{cloud}{tenant}cloud = \"sim\"\n"));
    assert_eq!(folder.problems().len(), 1, "{:#?}", folder.problems());
}

#[test]
fn warnings_name_what_should_be_looked_at() {
    let folder = Folder::with(APP);
    folder.mode("secret", 0o644);
    assert_eq!(
        folder.warnings(),
        ["t.toml:3: app.client_secret_file: every user of this host can read `secret`; `chmod o-r secret`",]
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
fn a_secret_that_looks_wrong_is_told_and_not_shown() {
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    for (secret, expected) in [
        ("hunter2 \r\n\n", "the secret in `secret` begins or ends with a blank; is that meant?"),
        (
            "aaaaaaaa-1111-2222-3333-444444444444\r\n",
            "the secret is a GUID: that is its id in the portal; write its value",
        ),
    ] {
        folder.private("secret", secret);
        assert_eq!(folder.warnings(), [format!("t.toml:3: app.client_secret_file: {expected}")]);
    }
}

#[test]
fn what_editors_add_to_a_secret_is_not_part_of_it() {
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    for text in ["hunter2", "hunter2\n", "\u{feff}hunter2\r\n\r\n\n"] {
        folder.private("secret", text);
        let settings = folder.load().unwrap();
        let Credential::Secret(secret) = &settings.apps[""].credential else { panic!("{:?}", settings.apps) };
        assert_eq!((secret.expose(), settings.warnings.as_slice()), ("hunter2", &[][..]), "{text:?}");
    }
    for (bytes, expected) in [
        (&b"\n\n"[..], "`secret` is empty; write the secret into it"),
        (b"\xEF\xBB\xBF \t\n", "`secret` holds nothing but blanks; write the secret into it"),
        (b"\xFF\xFEh\0", "`secret` is UTF-16; write the secret as text in UTF-8"),
        (b"h\xFF", "`secret` is not UTF-8; write the secret as text in UTF-8"),
    ] {
        folder.private("secret", bytes);
        assert_eq!(folder.problems(), [format!("t.toml:3: app.client_secret_file: {expected}")]);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_told_and_not_shown() {
    const ID: &str = "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n";
    let folder = Folder::new();
    folder.private("good.crt", &GOOD.certificate);
    folder.private("app.pfx", &*ARCHIVE);
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let pem = GOOD.key.replace('\n', "\\n");
    let long = "M".repeat(300);
    let instead = "there is no file of the name that is written here (it starts from `FOLDER`); correct the path, or put \
                   the file there; if it is the secret itself, write it to a file and name that";
    for (keys, expected) in [
        (
            format!("certificate_file = \"good.crt\"\nprivate_key_file = \"{pem}\""),
            "app.private_key_file: this is the content of a PEM file, not its path: write it to a file and name that".to_owned(),
        ),
        (
            format!("certificate_file = [\"good.crt\", \"{pem}\"]"),
            "app.certificate_file: this is the content of a PEM file, not its path: write it to a file and name that".to_owned(),
        ),
        (
            format!("certificate_file = \"{long}\""),
            "app.certificate_file: it is too long to be the path of a file; if it is the file's content, write it to a \
             file and name that".to_owned(),
        ),
        (
            "client_secret_file = \"S3cr3t~VALUE\"".to_owned(),
            format!("app.client_secret_file: {instead}, or set `client_secret`"),
        ),
        (
            "client_secret_file = \"S3cr3t/VALUE\"".to_owned(),
            format!("app.client_secret_file: {instead}, or set `client_secret`"),
        ),
        (
            "client_secret_file = \"secret/S3cr3t\"".to_owned(),
            format!("app.client_secret_file: {instead}, or set `client_secret`"),
        ),
        (
            "client_secret_file = \"more/none\"".to_owned(),
            "app.client_secret_file: there is no file `more/none`; correct the path, or put the file there".to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"S3cr3t\"".to_owned(),
            format!("app.pkcs12_password_file: {instead}"),
        ),
        (
            "client_secret_file = \"secret\"\nsigning = \"S3cr3t\"".to_owned(),
            "app.signing: it is not one of `PS256` and `RS256`".to_owned(),
        ),
        (
            "client_secret_file = \"secret\"\n[clouds.own]\nmanagement = \"https://m.example\"\n\
             authority = \"https://user:S3cr3t@ex ample.com\"".to_owned(),
            "clouds.own.authority: there is a user name in it (an `@`); leave it out and write `https://HOST`".to_owned(),
        ),
    ] {
        folder.write("t.toml", format!("{ID}{keys}\n{TENANT}"));
        let problems = folder.load().unwrap_err();
        assert_eq!(problems.len(), 1, "{keys}: {problems:#?}");
        let told = problems[0].replace(&folder.path().display().to_string(), "FOLDER");
        assert!(told.ends_with(&expected), "{told}\n{expected}");
        assert!(!told.contains("S3cr3t") && !told.contains("BEGIN") && !told.contains("MMM"), "{told}");
    }
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = Folder::new();
    let fifo = |name: &str| {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap().success());
    };
    fifo("t.toml");
    assert_eq!(folder.problems(), ["t.toml: it is a FIFO; a configuration is a file"]);
    std::fs::remove_file(folder.path().join("t.toml")).unwrap();
    fifo("conf.d/a.toml");
    std::fs::create_dir(folder.path().join("conf.d/b.toml")).unwrap();
    std::os::unix::fs::symlink("none", folder.path().join("conf.d/c.toml")).unwrap();
    fifo("pipe");
    folder.write("t.toml", format!("{}{TENANT}", APP.replace("\"secret\"", "\"pipe\"")));
    assert_eq!(
        folder.problems(),
        [
            "t.toml:3: app.client_secret_file: `pipe` is a FIFO; name a file",
            "conf.d/a.toml: it is a FIFO; a configuration is a file",
            "conf.d/b.toml: it is a folder; a configuration is a file",
            "conf.d/c.toml: it is a link to a file that is not there; put the file there, or remove the link",
        ]
    );
}

/// Lines of all kinds, good ones and bad ones.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = schema::SECTIONS.iter().flat_map(|section| section.keys.iter().copied()).collect();
    let headers: Vec<String> = schema::SECTIONS.iter().map(schema::Section::header).collect();
    let value = prop_oneof![
        Just("\"hunter2\"".to_owned()),
        Just("[\"hunter2\", 7]".to_owned()),
        Just("{ hunter2 = true }".to_owned()),
        Just("\"hunter2".to_owned()),
        Just("hunter2".to_owned()),
        Just("\"45m\"".to_owned()),
        Just("2026-11-22".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "\\PC{0,12}",
    ];
    prop_oneof![
        proptest::sample::select(headers),
        (proptest::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}")),
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_is_answered_and_no_secret_is_shown(
        lines in proptest::collection::vec(line(), 0..12), secret in "[a-z]{8}hunter2[a-z]{8}"
    ) {
        let folder = Folder::with(&lines.join("\n"));
        folder.write("conf.d/secret.toml", format!("[app]\nclient_secret = \"{secret}\"\n[apps.x]\nclient_secret = [\"{secret}\"]\n"));
        let problems = folder.problems();
        prop_assert!(problems.iter().all(|problem| !problem.contains(&secret)), "{problems:#?}");
        prop_assert!(problems.iter().all(|problem| !problem.contains('\n')), "one line each: {problems:#?}");
    }
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
    folder.private("older.pem", {
        let older = pair(2018..2019, "older");
        format!("{}{}", older.certificate, older.key)
    });
    folder.write("t.toml", config("[\"older.pem\", \"expired.pem\"]"));
    let told = &folder.load().unwrap().expiries(now)[0];
    assert!(folder.told(told).starts_with("expired.pem: app.certificate_file: the certificate `CN=expired`"), "{told}");
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
        "{}{}[clouds.gcc]\napp = \"two\"\n[clouds.own]\napp = \"two\"\nauthority = \"https://login.example\"\nmanagement = \"https://manage.example\"\n\
         [collect]\npoll_interval = \"90s\"\n[log]\nlevel = \"info,tenantry=debug\"\n",
        APP.replace("client_secret_file = \"secret\"", "client_secret = \"hunter2\""),
        "[apps.two]\nclient_id = \"bbbbbbbb-1111-2222-3333-444444444444\"\ncertificate_file = [\"a.pem\", \"b.pem\"]\n"
    ));
    folder.private("a.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    folder.private("b.pem", format!("{}{}", OTHER.certificate, OTHER.key));
    let settings = folder.load().unwrap();
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let text = settings.to_toml(now);
    let lines: Vec<_> = text.lines().filter(|line| line.ends_with("(signs first)")).collect();
    assert_eq!((lines.len(), lines[0].starts_with("# CN=other, ")), (1, true), "{text}");
    assert!(
        text.contains("[clouds.gcc]\napp = \"two\"\n\n") && text.contains("[clouds.own]\napp = \"two\"\n"),
        "{text}"
    );
    assert!(!text.contains("hunter2") && text.contains("client_secret = \"[redacted]\""), "{text}");
    let Credential::Certificates { list, .. } = &settings.apps["two"].credential else { panic!() };
    assert_eq!(list[0].subject(), "CN=other", "the newest first");
    for certificate in list {
        assert!(text.contains(certificate.sha1_hex()) && text.contains(certificate.sha256_hex()), "{text}");
    }

    let again = Folder::with(&text);
    let again = again.load().unwrap();
    assert_eq!(again.to_toml(now), text);
    assert_eq!((again.collect, again.log, again.clouds), (settings.collect, settings.log, settings.clouds));
    assert_eq!(again.apps["two"], settings.apps["two"]);
}
