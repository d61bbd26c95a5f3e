//! `tenantry cert`: what it makes is what openssl and the simulated Entra take, and nothing of anybody's is written over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_simulator::{App, BlobSpec, Cloud, ContentType, Scenario};

use crate::skip::skip;
use crate::world::{APP, AUDIENCE, PUBLISHER, World, tenant, tenant_id};

fn tenantry(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("TENANTRY_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What openssl answers; `None` where there is none.
#[track_caller]
fn openssl(folder: &Path, arguments: &str) -> Option<String> {
    let run = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null()).output();
    let Ok(output) = run else {
        skip("there is no openssl");
        return None;
    };
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn openssl_reads_what_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bits, arguments) in [
        ("tenantry", 3072, &["cert", "new"][..]),
        ("small", 2048, &["cert", "new", "--name", "small", "--bits", "2048", "--days", "30"]),
        ("large", 4096, &["cert", "new", "--name", "large", "--bits", "4096", "--subject", "CN=a b, O=Ü Ltd, C=CH"]),
    ] {
        let told = done(&tenantry(folder.path(), arguments));
        let (file, key) = (format!("{name}.crt"), format!("{name}.key"));
        for (file, mode) in [(&file, 0o644), (&key, 0o600)] {
            let there = fs::metadata(folder.path().join(file)).unwrap();
            assert_eq!(there.permissions().mode() & 0o777, mode, "{file}");
            assert!(told.contains(file.as_str()), "{told}");
        }
        let Some(checked) = openssl(folder.path(), &format!("pkey -in {key} -check -noout")) else { return };
        assert!(checked.contains("valid"), "{checked}");
        let of_key = openssl(folder.path(), &format!("pkey -in {key} -pubout"));
        assert_eq!(of_key, openssl(folder.path(), &format!("x509 -in {file} -pubkey -noout")), "they belong together");
        let text = openssl(folder.path(), &format!("x509 -in {file} -noout -text -purpose")).unwrap();
        for words in [&format!("({bits} bit)")[..], "sha256WithRSAEncryption", "CA:FALSE", "SSL client : Yes"] {
            assert!(text.contains(words), "`{words}` is not in\n{text}");
        }
        // It is its own issuer, and good now.
        openssl(folder.path(), &format!("verify -CAfile {file} {file}"));
        for digest in ["sha1", "sha256"] {
            let theirs = openssl(folder.path(), &format!("x509 -in {file} -noout -fingerprint -{digest}")).unwrap();
            let theirs = theirs.trim().split_once('=').unwrap().1.replace(':', "");
            assert!(told.contains(&theirs), "{digest} {theirs} is not in\n{told}");
        }
    }
    let subject = openssl(folder.path(), "x509 -in large.crt -noout -subject -nameopt utf8,sep_comma_plus").unwrap();
    assert_eq!(subject.trim(), "subject=CN=a b,O=Ü Ltd,C=CH");
    // Thirty days, less the seconds since.
    openssl(folder.path(), &format!("x509 -in small.crt -noout -checkend {}", 30 * 86_400 - 600));
    let late = Command::new("openssl")
        .args(["x509", "-in", "small.crt", "-noout", "-checkend", &(30 * 86_400 + 1).to_string()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!late.status.success(), "no longer than asked for");
}

#[test]
fn nothing_is_written_over_and_no_half_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    done(&tenantry(folder.path(), &["cert", "new", "--bits", "2048"]));
    let before = fs::read(folder.path().join("tenantry.key")).unwrap();
    let again = tenantry(folder.path(), &["cert", "new", "--bits", "2048"]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("are there already; nothing was written: choose another `--name`"), "{said}");
    assert_eq!(fs::read(folder.path().join("tenantry.key")).unwrap(), before);
    fs::remove_file(folder.path().join("tenantry.crt")).unwrap();
    let again = tenantry(folder.path(), &["cert", "new", "--bits", "2048"]);
    assert_eq!(again.status.code(), Some(1), "the key alone is somebody's too");
    assert_eq!(names(), ["tenantry.key"]);
    for arguments in [
        &["--days", "0"][..],
        &["--days", "3651"],
        &["--bits", "1024"],
        &["--name", "../a"],
        &["--subject", "collector"],
    ] {
        let output = tenantry(folder.path(), &[&["cert", "new"], arguments].concat());
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    let output = tenantry(folder.path(), &["cert", "new", "--output", "none"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(), ["tenantry.key"]);
}

/// A folder with two made certificates, the newer one called `new`, for an app of two tenants.
fn two_certificates(folder: &Path) {
    for (name, days) in [("old", "20"), ("new", "400")] {
        done(&tenantry(folder, &["cert", "new", "--bits", "2048", "--name", name, "--days", days]));
    }
    fs::write(
        folder.join("tenantry.toml"),
        "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n\
         certificate_file = [\"old.crt\", \"new.crt\"]\nprivate_key_file = [\"old.key\", \"new.key\"]\n\
         [apps.other]\nclient_id = \"bbbbbbbb-1111-2222-3333-444444444444\"\nclient_secret_file = \"secret\"\n\
         [clouds.gcc_high]\napp = \"other\"\n\
         [[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\nname = \"contoso\"\n\
         [[tenants]]\nid = \"11111111-2222-3333-4444-666666666666\"\nname = \"fabrikam\"\ncloud = \"gcc\"\n\
         [[tenants]]\nid = \"11111111-2222-3333-4444-777777777777\"\nname = \"agency\"\ncloud = \"gcc_high\"\n",
    )
    .unwrap();
    fs::write(folder.join("secret"), "s3cret\n").unwrap();
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
}

const CONFIG: [&str; 2] = ["--config", "tenantry.toml"];

#[test]
fn certificates_are_shown_as_entra_shows_them_with_who_uses_them() {
    let folder = tempfile::tempdir().unwrap();
    two_certificates(folder.path());
    let shown = done(&tenantry(folder.path(), &[&CONFIG[..], &["cert", "show", "--json"]].concat()));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let certificates = shown["certificates"].as_array().unwrap();
    let told: Vec<_> = certificates
        .iter()
        .map(|one| {
            let names: Vec<_> = one["tenants"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
            (one["file"].as_str().unwrap().rsplit('/').next().unwrap(), one["signs_first"].clone(), Value::from(names))
        })
        .collect();
    let both = json!(["contoso", "fabrikam"]);
    assert_eq!(told, [("new.crt", json!(true), both.clone()), ("old.crt", json!(false), both)]);
    assert_eq!((&certificates[1]["days_left"], &certificates[1]["rsa_bits"]), (&json!(19), &json!(2048)));
    assert_eq!(certificates[0]["app"], "app");
    if let Some(theirs) = openssl(folder.path(), "x509 -in new.crt -noout -fingerprint -sha1") {
        let theirs = theirs.trim().split_once('=').unwrap().1.replace(':', "");
        assert_eq!(certificates[0]["sha1"], theirs);
    }

    let text = done(&tenantry(folder.path(), &[&CONFIG[..], &["cert", "show"]].concat()));
    for words in ["issuer   itself", "RSA, 2048 bits", "(19 days left)", "tenants  contoso, fabrikam", "(signs first)"]
    {
        assert!(text.contains(words), "`{words}` is not in\n{text}");
    }
    let file = done(&tenantry(folder.path(), &["cert", "show", "old.crt"]));
    assert!(file.contains(certificates[1]["sha256"].as_str().unwrap()) && !file.contains("tenants"), "{file}");
    let export = "pkcs12 -export -inkey old.key -in old.crt -out old.pfx -passout pass:right";
    if openssl(folder.path(), export).is_some() {
        let output = tenantry(folder.path(), &["cert", "show", "old.pfx"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("`old.pfx` has a password"), "{output:?}");
        fs::write(folder.path().join("password"), "right\n").unwrap();
        let archive = done(&tenantry(folder.path(), &["cert", "show", "old.pfx", "--password-file", "password"]));
        assert_eq!(archive, file.replace("old.crt", "old.pfx"));
    }
    for (name, words) in [("none.crt", "cannot be read"), ("old.key", "there is no certificate in it")] {
        let output = tenantry(folder.path(), &["cert", "show", name]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(name) && said.contains(words), "{said}");
    }
}

#[test]
fn the_manifest_asks_for_what_is_needed_and_nothing_that_breaks_consent() {
    let folder = tempfile::tempdir().unwrap();
    two_certificates(folder.path());
    let run = |arguments: &[&str]| {
        let output = tenantry(folder.path(), &[&CONFIG[..], &["cert", "manifest"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (serde_json::from_str::<Value>(&done(&output)).unwrap(), said)
    };
    let (management, graph) = ("c5393580-f805-4401-95e8-94b7a6ef2fc2", "00000003-0000-0000-c000-000000000000");
    let (feed, dlp) = ("594c1fb6-4f81-4475-ae41-0c394909246c", "4807a72c-ad38-4250-94c9-4eabfe26cd55");
    let (health, messages) = ("79c261e0-fe76-4144-aad5-bdc68fbe4037", "1b620472-6534-4fe6-9df2-4680e8aa28ec");
    let access = |kind: &str, ids: &[&str]| ids.iter().map(|id| json!({"id": id, "type": kind})).collect::<Vec<_>>();
    let only = |first: Vec<Value>| json!([{"resourceAppId": management, "resourceAccess": first}]);
    let resources = |first: Vec<Value>, second: Vec<Value>| json!([{"resourceAppId": management, "resourceAccess": first}, {"resourceAppId": graph, "resourceAccess": second}]);

    let (plain, said) = run(&["--url", "https://c.example/base/", "--redirect-uri", "http://localhost:8080/back"]);
    let graph_roles = access("Role", &[health, messages]);
    assert_eq!(plain["requiredResourceAccess"], only(access("Role", &[feed])), "nothing of Graph is read");
    let (with_health, _) = run(&["--health"]);
    assert_eq!(with_health["requiredResourceAccess"], resources(access("Role", &[feed]), graph_roles.clone()));
    assert_eq!(plain["signInAudience"], "AzureADMultipleOrgs");
    assert_eq!(
        plain["web"]["redirectUris"],
        json!([
            "http://localhost:8080/back",
            "https://c.example/base/consent/callback/gcc",
            "https://c.example/base/consent/callback/worldwide"
        ])
    );
    assert!(
        said.contains("each certificate's `key` is called `value`") && said.contains("`gcc`, `worldwide`"),
        "{said}"
    );
    let keys = plain["keyCredentials"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert_eq!((&key["type"], &key["usage"]), (&json!("AsymmetricX509Cert"), &json!("Verify")));
        assert!(key["key"].as_str().unwrap().starts_with("MII") && key.get("value").is_none(), "{key}");
    }
    assert_ne!(keys[0]["keyId"], keys[1]["keyId"]);
    assert_eq!(run(&["--url", "https://c.example/base/", "--redirect-uri", "http://localhost:8080/back"]).0, plain);

    let (with_dlp, _) = run(&["--dlp"]);
    assert_eq!(with_dlp["requiredResourceAccess"], only(access("Role", &[feed, dlp])));
    let (v1, said) = run(&["--flow", "v1", "--health"]);
    let delegated = access(
        "Scope",
        &[
            "55896846-df78-47a7-aa94-8d3d4442ca7f",
            "eda39fa6-f8cf-4c3c-a909-432c683e4c9b",
            "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
        ],
    );
    let expected =
        resources([access("Role", &[feed]), access("Scope", &[feed])].concat(), [graph_roles, delegated].concat());
    assert_eq!(v1["requiredResourceAccess"], expected);
    assert!(said.contains("there is no redirect URI"), "{said}");
    for manifest in [&plain, &with_dlp, &v1] {
        for obsolete in ["b3b78c39", "17f1c501", "e2cea78f", "e765c9fd"] {
            assert!(!manifest.to_string().contains(obsolete), "{obsolete}");
        }
    }

    let (file, _) = run(&["--certificate", "old.crt"]);
    assert_eq!(file["keyCredentials"], json!([keys[1]]), "the same id, wherever it is read from");
    let (other, said) = run(&["--app", "other", "--url", "https://c.example"]);
    assert_eq!(other["keyCredentials"], json!([]));
    assert!(said.contains("proves itself without a certificate"), "{said}");
    assert_eq!(other["web"]["redirectUris"], json!(["https://c.example/consent/callback/gcc_high"]));
    for (arguments, words) in [
        (&["--app", "othr"][..], "no `[apps.othr]`; choose from `other`"),
        (&["--url", "http://c.example"], "plain http is only for this host"),
        (&["--redirect-uri", "https://*.example"], "no `*`"),
    ] {
        let output = tenantry(folder.path(), &[&CONFIG[..], &["cert", "manifest"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && said.contains(words) && output.stdout.is_empty(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_collected_with_a_certificate_that_was_made_here() {
    let folder = tempfile::TempDir::with_prefix("tenantry-it-").unwrap();
    done(&tenantry(folder.path(), &["cert", "new", "--name", "app"]));
    let manifest = done(&tenantry(folder.path(), &["cert", "manifest", "--certificate", "app.crt"]));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let key = manifest["keyCredentials"][0]["key"].as_str().unwrap();
    // What Entra gets is what the manifest says.
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, key).unwrap();
    let scenario =
        Scenario::new(141).tenant(tenant(1, 1, 1.0)).app(App::new(APP).certificate(der)).publisher(PUBLISHER);
    let cloud = Cloud::start(scenario.apart().audience(AUDIENCE)).unwrap();
    let config = folder.path().join("tenantry.toml");
    let world = World { cloud, dir: folder, config };
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_goes_on_while_one_certificate_takes_the_place_of_another() {
    let world = World::new(Scenario::new(142).tenant(tenant(1, 1, 1.0)).token_lifetime(Duration::from_secs(50)), "");
    let folder = world.dir.path();
    let der = |name: &str| {
        let file = fs::read(folder.join(name)).unwrap();
        tenantry::token::PublicCertificate::read(&file).unwrap().remove(0).der().to_vec()
    };
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;

    // As an operator does it: make one, upload it beside the old one, name both, reload.
    done(&tenantry(folder, &["cert", "new", "--name", "new", "--bits", "2048"]));
    world.cloud.control().set_app(App::new(APP).certificate(der("app.crt")).certificate(der("new.crt")));
    let text = fs::read_to_string(&world.config).unwrap();
    let text =
        text.replace("\"app.crt\"", "[\"app.crt\", \"new.crt\"]").replace("\"app.key\"", "[\"app.key\", \"new.key\"]");
    fs::write(&world.config, text).unwrap();
    let shown = done(&world.tenantry(&["cert", "show", "--json"]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["certificates"][0]["file"].as_str().unwrap().ends_with("new.crt"), "the newest signs first: {shown}");
    done(&world.tenantry(&["reload"]));
    let before = world.cloud.ledger().token_requests.len();
    daemon.wait("a token by the new one", |_| world.cloud.ledger().token_requests.len() > before).await;

    // The old one is withdrawn; the tokens that it got end within a minute.
    world.cloud.control().set_app(App::new(APP).certificate(der("new.crt")));
    let before = world.cloud.ledger().token_requests.len();
    daemon.wait("another token by the new one", |_| world.cloud.ledger().token_requests.len() > before).await;
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(2));
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let refused = world.cloud.ledger().token_requests.iter().filter_map(|request| request.refused).collect::<Vec<_>>();
    assert_eq!(refused, <[u32; 0]>::default());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_soon_is_told_by_status_metrics_and_journal() {
    let world = World::new(Scenario::new(143).tenant(tenant(1, 1, 1.0)), "[operator]\nlisten = \"127.0.0.1:0\"\n");
    let folder = world.dir.path();
    done(&tenantry(folder, &["cert", "new", "--name", "short", "--bits", "2048", "--days", "29"]));
    let file = fs::read(folder.join("short.crt")).unwrap();
    let short = tenantry::token::PublicCertificate::read(&file).unwrap().remove(0);
    world.cloud.control().set_app(App::new(APP).certificate(short.der()));
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, text.replace("app.crt", "short.crt").replace("app.key", "short.key")).unwrap();
    let mut daemon = world.run();
    let status = daemon.wait("the warning", |status| status["warnings"][0].is_string()).await;
    let told = status["warnings"][0].as_str().unwrap().to_owned();
    for words in ["short.crt", "app.certificate_file", short.sha1_hex(), "in 28 days", "make a new one"] {
        assert!(told.contains(words), "`{words}` is not in {told}");
    }
    let shown = done(&world.tenantry(&["status"]));
    assert!(shown.replace('\n', " ").contains("warning: ") && shown.contains(short.sha1_hex()), "{shown}");
    daemon.wait_log("expires at").await;
    assert!(daemon.log().contains(&told), "the journal has the same words: {}", daemon.log());
    let metrics = metrics(&daemon.operator().await).await;
    let line =
        format!("tenantry_certificate_expiry_timestamp_seconds{{app=\"app\"}} {}", short.not_after().as_second());
    assert!(metrics.contains(&line), "`{line}` is not in\n{metrics}");
    // Once it is replaced, nothing is told any more.
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, text.replace("short.crt", "app.crt").replace("short.key", "app.key")).unwrap();
    done(&world.tenantry(&["reload"]));
    daemon.wait("the end of the warning", |status| status["warnings"].as_array().is_some_and(Vec::is_empty)).await;
    assert!(daemon.stop().await.success());
}

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
async fn metrics(operator: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{operator}/metrics")).send().await.unwrap().text().await.unwrap()
}
