//! `tenantry check` and the exit codes, through the real binary.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};

const APP: &str = "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n";
const TENANT: &str = "[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\nname = \"contoso\"\n";

/// A key and a certificate that belong together.
static GOOD: LazyLock<(KeyPair, rcgen::Certificate)> = LazyLock::new(|| {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "good");
    let certificate = params.self_signed(&key).unwrap();
    (key, certificate)
});

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with certificates, secrets, and `text` as the configuration.
    fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let (key, certificate) = &*GOOD;
        let other = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        folder.private("good.pem", certificate.pem() + &key.serialize_pem());
        folder.private("other.key", other.serialize_pem());
        folder.private("weak.pem", include_bytes!("../fixtures/weak-1024-bits.pem"));
        folder.private("good.pfx", archive(key, certificate));
        folder.private("secret", "hunter2\n");
        folder.private("t.toml", text);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn private(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs `tenantry check` on the configuration.
    fn check(&self) -> Ended {
        ended(tenantry(&["check", "--config"]).arg(self.path("t.toml")), self.0.path())
    }
}

fn archive(key: &KeyPair, certificate: &rcgen::Certificate) -> Vec<u8> {
    use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
    let chain = PrivateKeyChain::new(
        b"id".as_slice(),
        PrivateKey::from_der(&key.serialize_der()).unwrap(),
        [Certificate::from_der(certificate.der()).unwrap()],
    );
    let mut store = KeyStore::new();
    store.add_entry("app", KeyStoreEntry::PrivateKeyChain(chain));
    store.writer("right").write().unwrap()
}

/// How a process ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tenantry(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end; the texts are without the path of `folder`.
fn ended(command: &mut Command, folder: &Path) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&format!("{}/", folder.display()), "");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn a_valid_configuration_is_shown_without_its_secrets() {
    let folder = Folder::with(&format!("{APP}client_secret_file = \"secret\"\n{TENANT}"));
    folder.private(
        "conf.d/two.toml",
        "[apps.two]\nclient_id = \"bbbbbbbb-1111-2222-3333-444444444444\"\ncertificate_file = \"../good.pem\"\n\
         [[tenants]]\nid = \"22222222-2222-3333-4444-555555555555\"\nname = \"fabrikam\"\napp = \"two\"\n\
         cloud = \"gcc_high\"\nenabled = false\n",
    );
    let ended = folder.check();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(!ended.out.contains("hunter2"), "{}", ended.out);
    let shown: toml::Table = ended.out.parse().unwrap();
    assert_eq!(shown["collect"]["poll_interval"].as_str(), Some("1m"));
    assert_eq!(shown["app"]["client_secret_file"].as_str(), Some("secret"));
    assert_eq!(shown["apps"]["two"]["signing"].as_str(), Some("PS256"));

    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, GOOD.1.der());
    let thumbprint = thumbprint.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}"));
    assert!(ended.out.contains(&format!("#   SHA-256 {thumbprint}\n")), "{}", ended.out);
    let rows: Vec<Vec<&str>> = ended
        .out
        .lines()
        .filter(|line| line.contains("-2222-3333-4444-555555555555"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            vec![
                "#",
                "contoso",
                "11111111-2222-3333-4444-555555555555",
                "[app]",
                "worldwide",
                "Audit.*",
                "yes",
                "t.toml"
            ],
            vec![
                "#",
                "fabrikam",
                "22222222-2222-3333-4444-555555555555",
                "two",
                "gcc_high",
                "Audit.*",
                "no",
                "conf.d/two.toml"
            ],
        ]
    );
    assert!(ended.out.ends_with("\n# valid: 2 tenants (1 not enabled), 2 apps, 0 warnings\n"), "{}", ended.out);
}

#[test]
fn what_is_doubtful_is_told_and_still_valid() {
    let folder = Folder::with("");
    let ended = folder.check();
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (
            Some(0),
            "warning: t.toml: tenants: no file names a tenant, so that only those are collected that came by consent or by \
             `tenantry tenant add`; add `[[tenants]]` with an `id`\n"
        )
    );
}

#[test]
fn a_wrong_configuration_ends_with_78_and_all_its_problems() {
    let secret = "client_secret_file = \"secret\"\n";
    for (text, problems) in [
        (
            format!("{APP}{secret}secrets = 1\n{TENANT}clod = \"gcc\"\n"),
            "t.toml:4: app.secrets: unknown key; the keys of `[app]` are `client_id`, `publisher_id`, `signing`, \
             `certificate_file`, `private_key_file`, `pkcs12_file`, `pkcs12_password_file`, `client_secret_file`, \
             `client_secret`, `federated_token_file` and `managed_identity`\n\
             t.toml:8: tenants[0].clod: unknown key; did you mean `cloud`?\n\
             tenantry: the configuration has 2 problems\n",
        ),
        (
            format!("{APP}{secret}[[tenants]]\nid = \"contoso\"\n"),
            "t.toml:5: tenants[0].id: `contoso` is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`\n\
             tenantry: the configuration has 1 problem\n",
        ),
        (
            format!("{APP}certificate_file = \"weak.pem\"\n{TENANT}"),
            "t.toml:3: app.certificate_file: `weak.pem`: the key has 1024 bits, and Microsoft takes no fewer than 2048; \
             make a new key and certificate\n\
             tenantry: the configuration has 1 problem\n",
        ),
        (
            format!("{APP}pkcs12_file = \"good.pfx\"\npkcs12_password_file = \"secret\"\n{TENANT}"),
            "t.toml:3: app.pkcs12_file: `good.pfx`: the password of the PKCS#12 file is wrong; correct \
             `pkcs12_password_file`\n\
             tenantry: the configuration has 1 problem\n",
        ),
        (
            format!(
                "{APP}{secret}[clouds.own]\nauthority = \"http://login.example\"\nmanagement = \"https://manage.example\"\n\
                 {TENANT}cloud = \"own\"\n"
            ),
            "t.toml:5: clouds.own.authority: `http://login.example` would send tokens unencrypted; write `https://`, \
             plain http is only for loopback hosts\n\
             tenantry: the configuration has 1 problem\n",
        ),
    ] {
        let ended = Folder::with(&text).check();
        assert_eq!((ended.code, ended.err.as_str(), ended.out.as_str()), (Some(78), problems, ""), "{text}");
    }
}

#[test]
fn what_is_pasted_in_the_wrong_place_is_not_printed() {
    let key = GOOD.0.serialize_pem();
    let line = key.lines().nth(1).unwrap();
    for keys in [
        format!("certificate_file = \"good.pem\"\nprivate_key_file = \"\"\"\n{key}\"\"\"\n"),
        format!("certificate_file = \"\"\"\n{key}\"\"\"\n"),
        format!("certificate_file = \"good.pem\"\nprivate_key_file = \"{}\"\n", key.replace('\n', "")),
        format!("client_secret_file = \"{line}\"\n"),
        format!("pkcs12_file = \"good.pfx\"\npkcs12_password_file = \"{line}\"\n"),
        format!("client_secret_file = \"secret\"\nsigning = \"{line}\"\n"),
    ] {
        let ended = Folder::with(&format!("{APP}{keys}{TENANT}")).check();
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(!ended.err.contains(&line[..12]) && ended.out.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_key_of_another_certificate_ends_with_78() {
    let folder =
        Folder::with(&format!("{APP}certificate_file = \"good.pem\"\nprivate_key_file = \"other.key\"\n{TENANT}"));
    let ended = folder.check();
    assert_eq!(ended.code, Some(78), "{ended:?}");
    let line = ended.err.lines().next().unwrap();
    assert!(
        line.starts_with(
            "t.toml:3: app.certificate_file: `good.pem` with `other.key`: the private key does not belong to the \
             certificate `CN=good` (SHA-1 thumbprint "
        ),
        "{line}"
    );
}

#[test]
fn one_tenant_in_two_files_ends_with_78_and_names_both() {
    let folder = Folder::with(&format!("{APP}client_secret_file = \"secret\"\n{TENANT}"));
    folder.private("conf.d/again.toml", format!("\n{TENANT}"));
    let ended = folder.check();
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (
            Some(78),
            "conf.d/again.toml:3: tenants[0].id: tenant `11111111-2222-3333-4444-555555555555` is in t.toml:5 already; \
             remove one of the two\n\
             tenantry: the configuration has 1 problem\n"
        )
    );
}

#[test]
fn a_missing_file_ends_with_78() {
    let folder = Folder::with("");
    for command in ["check", "status", "export", "tail"] {
        let ended = ended(tenantry(&[command, "--config"]).arg(folder.path("no.toml")), folder.0.path());
        assert_eq!(
            (ended.code, ended.err.as_str()),
            (
                Some(78),
                "no.toml: there is no such file; name the configuration with `--config FILE`, or begin with a copy of \
                 `config/tenantry.toml`, which has every key at its default\n\
                 tenantry: the configuration has 1 problem\n"
            ),
            "{command}"
        );
    }
}

#[test]
fn a_file_that_may_not_be_read_ends_with_77() {
    let folder = Folder::with(&format!("{APP}client_secret_file = \"secret\"\n{TENANT}"));
    // Root may read everything, so that as root the test runs the program, from a place that all may enter, as nobody.
    let root = rustix::process::geteuid().is_root();
    let program = folder.path("tenantry");
    std::fs::copy(env!("CARGO_BIN_EXE_tenantry"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let check = || {
        let mut command = Command::new(&program);
        command.args(["check", "--config"]).arg(folder.path("t.toml")).env_clear().current_dir("/");
        if root {
            command.uid(65534).gid(65534);
        }
        ended(&mut command, folder.0.path())
    };
    let mode = |name: &str, mode| {
        std::fs::set_permissions(folder.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };

    mode("t.toml", 0o000);
    let unreadable = check();
    assert_eq!(
        (unreadable.code, unreadable.err.as_str()),
        (
            Some(77),
            "t.toml: it may not be read; let the user that runs tenantry read it\n\
             tenantry: the configuration has 1 problem\n"
        )
    );
    mode("t.toml", 0o644);
    mode("secret", 0o000);
    let unreadable = check();
    assert_eq!(
        (unreadable.code, unreadable.err.as_str()),
        (
            Some(77),
            "t.toml:3: app.client_secret_file: `secret` may not be read; let the user that runs tenantry read it\n\
             tenantry: the configuration has 1 problem\n"
        )
    );
    // A listener's key is no exception.
    mode("secret", 0o644);
    let listener = "[operator]\ncertificate_file = \"app.crt\"\nprivate_key_file = \"l.key\"\n";
    folder.private("t.toml", format!("{APP}client_secret_file = \"secret\"\n{TENANT}{listener}"));
    folder.private("app.crt", "");
    folder.private("l.key", "");
    mode("t.toml", 0o644);
    mode("app.crt", 0o644);
    mode("l.key", 0o000);
    let unreadable = check();
    assert_eq!(unreadable.code, Some(77), "{}", unreadable.err);
    assert!(unreadable.err.contains("operator.private_key_file: `l.key` may not be read; let the user that runs"));
    // Something else is wrong too: that is the configuration's fault.
    mode("secret", 0o000);
    folder.private("t.toml", format!("{APP}client_secret_file = \"secret\"\ncolour = 1\n{TENANT}"));
    mode("t.toml", 0o644);
    assert_eq!(check().code, Some(78));
}

#[test]
fn the_environment_names_the_file_and_replaces_keys() {
    let folder = Folder::with(&format!("{APP}client_secret_file = \"secret\"\n{TENANT}"));
    let check = |name: &str, value: &str| {
        let mut command = tenantry(&["check"]);
        command.env("TENANTRY_CONFIG", folder.path("t.toml")).env(name, value);
        ended(&mut command, folder.0.path())
    };
    let replaced = check("TENANTRY__COLLECT__POLL_INTERVAL", "2m");
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert!(replaced.out.contains("poll_interval = \"2m\"\n"), "{}", replaced.out);
    assert!(
        replaced
            .out
            .starts_with("# In effect, from\n#   t.toml\n#   environment variable TENANTRY__COLLECT__POLL_INTERVAL\n"),
        "{}",
        replaced.out
    );
    let nearly = check("TENANTRY_COLLECT__POLL_INTERVAL", "2m");
    assert_eq!(
        (nearly.code, nearly.err.as_str()),
        (
            Some(0),
            "warning: environment variable TENANTRY_COLLECT__POLL_INTERVAL: it is not read; did you mean \
             `TENANTRY__COLLECT__POLL_INTERVAL`?\n"
        )
    );
    let wrong = check("TENANTRY__COLLECT__POLL_INTERVALL", "2m");
    assert_eq!(
        (wrong.code, wrong.err.as_str()),
        (
            Some(78),
            "environment variable TENANTRY__COLLECT__POLL_INTERVALL: collect.poll_intervall: unknown key; did you mean \
             `poll_interval`?\n\
             tenantry: the configuration has 1 problem\n"
        )
    );
}

#[test]
fn the_command_line_ends_with_64_if_it_is_wrong_and_0_if_it_asks_for_help() {
    let here = Path::new("/");
    for wrong in [
        &[][..],
        &["chekc"],
        &["check", "--colour"],
        &["export", "--since", "yesterday"],
        &["export", "--format", "xml"],
    ] {
        let ended = ended(&mut tenantry(wrong), here);
        assert_eq!((ended.code, ended.out.as_str()), (Some(64), ""), "{wrong:?}");
        assert!(!ended.err.is_empty(), "{wrong:?}");
    }
    for help in [&["--help"][..], &["--version"], &["check", "--help"], &["help", "export"]] {
        let ended = ended(&mut tenantry(help), here);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{help:?}");
        assert!(!ended.out.is_empty(), "{help:?}");
    }
    let help = ended(&mut tenantry(&["--help"]), here).out;
    for command in ["run", "check", "status", "export", "tail"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let folder = Folder::with(&format!("{APP}client_secret_file = \"secret\"\n{TENANT}"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tenantry(&["check", "--config"]).arg(folder.path("t.toml")).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
