//! Signals, reloads, and what the operator reads.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tenantry_simulator::{Effect, Endpoint, Fault, Feed, Scenario, When};

use crate::world::{World, tenant, tenant_id};

fn tenant_named<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["tenants"].as_array()?.iter().find(|tenant| tenant["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_removes_and_disables_tenants_without_touching_the_others() {
    let world = World::new((1..=4).fold(Scenario::new(11), |s, n| s.tenant(tenant(n, 5, 1.0))), "");
    let named = |numbers: &[u32]| numbers.iter().map(|n| (tenant_id(*n), format!("tenant-{n}"))).collect::<Vec<_>>();
    world.configure(&named(&[1, 2, 3]), "");
    let mut daemon = world.run();
    daemon
        .wait("three tenants are collected", |status| {
            status["tenants"].as_array().is_some_and(|all| all.len() == 3)
                && [1, 2, 3].iter().all(|n| {
                    tenant_named(status, &format!("tenant-{n}")).is_some_and(|t| t["stored_today"]["blobs"] == 20)
                })
        })
        .await;
    let tokens = world.cloud.ledger().requests(tenant_id(1), Endpoint::Token);

    // One goes, one comes, one is switched off.
    world.configure(&named(&[1, 4]), "");
    let text = fs::read_to_string(&world.config).unwrap();
    let third = tenant_id(3);
    let text =
        format!("{text}[[tenants]]\nid = \"{third}\"\nname = \"tenant-3\"\ncloud = \"simulated\"\nenabled = false\n");
    fs::write(&world.config, text).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon
        .wait("the new tenant is collected, the old one gone, the third disabled", |status| {
            tenant_named(status, "tenant-2").is_none()
                && tenant_named(status, "tenant-3").is_some_and(|t| t["state"] == "disabled")
                && tenant_named(status, "tenant-4").is_some_and(|t| t["stored_today"]["blobs"] == 20)
        })
        .await;
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::Token), tokens, "the first was not restarted");
    assert_eq!(
        world.exported(&["--tenant", &tenant_id(2).to_string()]).len(),
        world.cloud.ledger().expected_ids(tenant_id(2)).len()
    );

    // A file that is wrong changes nothing and says where it is wrong.
    let good = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, good.replace("poll_interval", "poll_intervall")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("the configuration stays as it was").await;
    assert!(daemon.log().contains("poll_intervall"), "{}", daemon.log());
    assert!(tenant_named(&daemon.status().await.unwrap(), "tenant-4").is_some());
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_loses_many_tenants_is_refused_unless_it_is_allowed() {
    let scenario = (1..=12).fold(Scenario::new(12), |s, n| s.tenant(tenant(n, 0, 1.0)));
    let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    let daemon = world.run();
    daemon.wait_log("started").await;
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], "[daemon]\nstart_spread = \"0s\"\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("--allow-removal").await;
    assert_eq!(daemon.status().await.unwrap()["tenants"].as_array().unwrap().len(), 12);
    assert!(daemon.stop().await.success());

    let all: Vec<_> = (1..=12).map(|n| (tenant_id(n), format!("tenant-{n}"))).collect();
    world.configure(&all, "[daemon]\nstart_spread = \"0s\"\n");
    let mut daemon = world.run_with(|command| {
        command.arg("--allow-removal");
    });
    daemon.wait("all are there", |status| status["tenants"].as_array().is_some_and(|all| all.len() == 12)).await;
    world.configure(&all[..1], "[daemon]\nstart_spread = \"0s\"\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait("one is left", |status| status["tenants"].as_array().is_some_and(|all| all.len() == 1)).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_what_the_first_one_lets_finish() {
    let world = World::new(Scenario::new(13).tenant(tenant(1, 5, 1.0)), "[daemon]\ndrain = \"60s\"\n");
    // Slow, but it comes: an orderly end waits for it.
    let stall = Effect::Drip { bytes: 200, every_ms: 400 };
    world.cloud.control().add_fault(Fault {
        tenant: None,
        on: vec![Endpoint::Blob],
        content_type: None,
        when: When::Always,
        effect: stall,
    });
    let mut daemon = world.run();
    daemon.wait("it is fetching", |_| world.cloud.summary().requests(tenant_id(1), Endpoint::Blob) > 0).await;
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("stopping").await;
    daemon.signal(Signal::SIGTERM);
    let start = std::time::Instant::now();
    let status = daemon.ended().await;
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(start.elapsed().as_secs() < 20, "the second signal did not end it at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_waited_for_and_then_reported_with_its_holder() {
    let world = World::new(Scenario::new(14).tenant(tenant(1, 1, 1.0)), "");
    let mut first = world.run();
    first.wait_collected(&world).await;
    let mut second = world.run_with(|command| {
        command.stderr(Stdio::piped());
    });
    let start = std::time::Instant::now();
    let status = second.ended().await;
    assert_eq!(status.code(), Some(75));
    assert!(start.elapsed().as_secs() >= 29, "it did not wait for the store");
    assert!(second.stderr().contains(&first.pid().to_string()), "it names the holder");
    assert!(first.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_shown() {
    let world = World::new(Scenario::new(15).tenant(tenant(1, 10, 1.0)), "[log]\nlevel = \"trace\"\n");
    let control = world.cloud.control();
    for effect in [Effect::Denied, Effect::Entra { code: 90033, retry_after_s: None }] {
        control.add_fault(Fault { tenant: None, on: Vec::new(), content_type: None, when: When::Every(7), effect });
    }
    let mut daemon = world.run();
    daemon
        .wait("something is stored", |status| status["tenants"][0]["stored_today"]["blobs"].as_u64() >= Some(20))
        .await;
    let status = serde_json::to_string(&daemon.status().await.unwrap()).unwrap();
    let log = daemon.log();
    assert!(daemon.stop().await.success());
    let check = world.tenantry(&["check"]);
    let told = [log, status, String::from_utf8_lossy(&check.stdout).into_owned()].concat();
    // Every JSON web token, assertion and bearer alike, begins with `{"` in base64.
    for secret in ["eyJ", "PRIVATE KEY", "client_assertion=", "Bearer "] {
        let at = told.find(secret);
        assert!(at.is_none(), "`{secret}` in: {}", &told[at.unwrap_or(0).saturating_sub(200)..][..400]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_is_told_in_the_same_words_everywhere() {
    let mut off = tenant(1, 3, 1.0).audit_log_off();
    off.feeds.push(Feed::new(tenantry_simulator::ContentType::Dlp));
    let world = World::new(Scenario::new(16).tenant(off).tenant(tenant(2, 3, 1.0)), "");
    let mut daemon = world.run();
    let status = daemon
        .wait("the trouble shows and the other tenant is collected", |status| {
            tenant_named(status, "tenant-1").is_some_and(|t| !t["trouble"].is_null())
                && tenant_named(status, "tenant-2").is_some_and(|t| t["stored_today"]["blobs"] == 12)
        })
        .await;
    let trouble = &tenant_named(&status, "tenant-1").unwrap()["trouble"];
    let (cause, remedy) = (trouble["cause"].as_str().unwrap(), trouble["remedy"].as_str().unwrap());
    assert!(remedy.contains("Set-AdminAuditLogConfig"), "{trouble:#}");
    assert!(daemon.log().contains(cause) && daemon.log().contains(remedy), "{}", daemon.log());
    let shown = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(shown.contains(cause) && shown.contains(remedy), "{shown}");
    let lines = daemon.log().lines().filter(|line| line.contains(cause)).count();
    assert!(lines <= 2, "one line, not one per attempt: {}", daemon.log());
    assert!(daemon.stop().await.success());

    // Without the daemon, the store tells of it, with its age; and of a tenant that is well, nothing.
    let shown = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(shown.contains("does not run") && shown.contains("audit_log_off"), "{shown}");
    assert!(shown.contains(cause) && shown.contains(remedy), "{shown}");
    let age = shown.lines().find(|line| line.trim_start().starts_with("since ")).unwrap_or_default();
    assert!(age.contains("s ago, ") && age.contains(" attempt"), "{shown}");
    let stopped: Value = serde_json::from_slice(&world.tenantry(&["status", "--json"]).stdout).unwrap();
    assert_eq!(tenant_named(&stopped, "tenant-1").unwrap()["trouble"]["since"], trouble["since"]);
    assert_eq!(tenant_named(&stopped, "tenant-2").unwrap()["trouble"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_on_this_host_is_never_asked_through_a_proxy() {
    let world = World::new(Scenario::new(18).tenant(tenant(1, 3, 1.0)), "");
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut daemon = world.run_with(|command| {
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env(name, &address).env(name.to_uppercase(), &address);
        }
        command.env_remove("no_proxy").env_remove("NO_PROXY");
    });
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    assert!(proxy.accept().is_err(), "an assertion left the host in the clear");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_is_told_until_it_is_replaced() {
    let world = World::new(Scenario::new(19).tenant(tenant(1, 1, 1.0)), "");
    let (good, key) = (world.dir.path().join("app.crt"), world.dir.path().join("app.key"));
    let kept = fs::read(&good).unwrap();
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "too old");
    params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    fs::write(&good, params.self_signed(&key).unwrap().pem()).unwrap();

    let daemon = world.run();
    let told = "expired at 2020-02-03";
    daemon.wait_log(told).await;
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains(told)).unwrap();
    for part in [" WARN ", "app.crt", "app.certificate_file", "thumbprint", "make a new one"] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
    let times = |daemon: &crate::world::Daemon| daemon.log().matches(told).count();
    let before = times(&daemon);
    assert!(world.tenantry(&["reload"]).status.success());
    let start = std::time::Instant::now();
    while times(&daemon) == before {
        assert!(start.elapsed() < crate::world::PATIENCE, "a reload tells it again: {}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fs::write(&good, kept).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    let before = times(&daemon);
    daemon.wait_log(" INFO collecting ").await;
    assert_eq!(times(&daemon), before, "what was replaced is not told");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn few_tenants_are_told_one_by_one_and_many_in_one_line() {
    for (tenants, each, together) in [(2, 2, 0), (21, 0, 1)] {
        let scenario = (1..=tenants).fold(Scenario::new(17), |s, n| s.tenant(tenant(n, 1, 1.0)));
        let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
        let mut daemon = world.run();
        let all = |status: &Value| {
            status["tenants"].as_array().is_some_and(|all| {
                all.len() == tenants as usize && all.iter().all(|tenant| tenant["state"] == "collecting")
            })
        };
        daemon.wait("all tenants collect", all).await;
        if together > 0 {
            daemon.wait_log("the tenants have started").await;
        }
        let log = daemon.log();
        assert!(daemon.stop().await.success());
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!((lines(" INFO collecting "), lines("the tenants have started")), (each, together), "{log}");
        let named = log.lines().filter(|line| line.contains("tenant-")).count();
        assert_eq!(named, each, "a healthy tenant is silent: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_it_by_hand_need_not_make_a_folder_for_the_socket() {
    let world = World::new(Scenario::new(17).tenant(tenant(1, 1, 1.0)), "[daemon]\n");
    let folder = world.dir.path().join("run").join("tenantry");
    world.set("daemon", "socket", &format!("\"{}\"", folder.join("admin.sock").display()));
    let daemon = world.run();
    daemon.wait_log("started").await;
    let status = world.tenantry(&["status", "--json"]);
    assert!(status.status.success(), "{status:?}");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(daemon.stop().await.success());
    // Where it cannot be made, the path is named.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let daemon = world.run();
    daemon.wait_log("cannot start").await;
    assert!(daemon.log().contains("admin.sock"), "{}", daemon.log());
}
