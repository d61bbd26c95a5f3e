//! `tenantry tenant …`: who is collected changes by command, and outlives whatever happens to the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Scenario};
use uuid::Uuid;

use crate::world::{APP, Daemon, PATIENCE, World, assert_no_violations, tenant, tenant_id};

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
pub(crate) fn ends(output: &Output, code: i32, told: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(told), "`{told}` is not in: {}", said(output));
    assert!(!said(output).contains("panicked"), "{}", said(output));
}

/// A world whose file names the first tenant only; the others of the scenario are there to be added.
pub(crate) fn world(scenario: Scenario, extra: &str) -> World {
    let world = World::new(scenario, extra);
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], extra);
    world
}

/// A daemon that answers.
pub(crate) async fn running(world: &World) -> Daemon {
    let mut daemon = world.run();
    assert_eq!(daemon.started_or_ended().await, None, "{}", daemon.log());
    daemon
}

pub(crate) fn add(world: &World, number: u32, name: &str) -> Output {
    let id = tenant_id(number).to_string();
    world.tenantry(&["tenant", "add", &id, "--name", name, "--cloud", "simulated"])
}

fn list(world: &World) -> Vec<Value> {
    let output = world.tenantry(&["tenant", "list", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn listed(world: &World, number: u32) -> Value {
    let id = tenant_id(number).to_string();
    list(world).into_iter().find(|tenant| tenant["id"] == id.as_str()).unwrap_or(Value::Null)
}

/// From where the tenant comes: the kinds, in order.
fn origins(tenant: &Value) -> Vec<String> {
    let origins = tenant["origins"].as_array().unwrap();
    origins.iter().map(|origin| origin["from"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn of(status: &Value, id: Uuid) -> &Value {
    let id = id.to_string();
    let mut tenants = status["tenants"].as_array().unwrap().iter();
    tenants.find(|tenant| tenant["id"] == id.as_str()).unwrap_or(&Value::Null)
}

/// All requests of a tenant so far.
pub(crate) fn requests(world: &World, number: u32) -> u64 {
    let summary = world.cloud.summary();
    summary.tenants.get(&tenant_id(number)).map_or(0, |book| book.requests.values().sum())
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "{caller}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The tenant has nothing under way, and sends nothing while the first one is polled several times.
pub(crate) async fn is_left_alone(world: &World, number: u32) {
    let in_flight = || world.cloud.summary().tenants.get(&tenant_id(number)).map_or(0, |book| book.in_flight);
    until("what is under way ends", || in_flight() == 0).await;
    let before = requests(world, number);
    let polls = || world.cloud.summary().requests(tenant_id(1), Endpoint::List);
    let polled = polls();
    until("the first tenant is polled", || polls() >= polled + 16).await;
    assert_eq!(requests(world, number), before, "requests of a tenant that is not collected");
}

fn lose_the_state(world: &World) {
    for entry in fs::read_dir(world.store()).unwrap().map(Result::unwrap) {
        match entry.file_name().to_string_lossy() {
            name if name == "state" => fs::remove_file(entry.path()).unwrap(),
            name if name.starts_with("state-") => fs::remove_dir_all(entry.path()).unwrap(),
            _ => {}
        }
    }
}

pub(crate) fn exported(world: &World, number: u32) -> BTreeSet<String> {
    world.exported(&["--tenant", &tenant_id(number).to_string()]).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_added_paused_killed_resumed_and_removed() {
    let world = world(Scenario::new(401).tenant(tenant(1, 2, 1.0)).tenant(tenant(2, 3, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait("the first is collected", |status| of(status, tenant_id(1))["state"] == "collecting").await;
    assert_eq!(requests(&world, 2), 0);

    ends(&add(&world, 2, "Second"), 0, "`Second` (");
    daemon.wait_collected(&world).await;
    let second = listed(&world, 2);
    assert_eq!((origins(&second), second["name"].as_str()), (vec!["command".to_owned()], Some("Second")));
    assert_eq!((second["cloud"].as_str(), second["app"].as_str()), (Some("simulated"), Some("app")));
    assert_eq!(origins(&listed(&world, 1)), ["file"]);
    let table = world.tenantry(&["tenant", "list"]);
    for told in ["Second", "command", "tenantry.toml:", &tenant_id(2).to_string()] {
        ends(&table, 0, told);
    }
    ends(&world.tenantry(&["tenant", "show", "second"]), 0, "listed up to 20");

    ends(&world.tenantry(&["tenant", "pause", "second"]), 0, "`Second` is paused");
    let status = daemon.wait("it is held", |status| of(status, tenant_id(2))["state"] == "held").await;
    let since = of(&status, tenant_id(2))["held"].clone();
    assert!(since.is_string(), "{status:#}");
    ends(&world.tenantry(&["tenant", "pause", "second"]), 0, "is paused");
    ends(&world.tenantry(&["status"]), 0, "Second: paused by an operator since");
    assert_eq!(listed(&world, 2)["held"], since, "since then, and not since the second word");
    is_left_alone(&world, 2).await;

    // Neither a reload nor a sudden end changes that.
    ends(&world.tenantry(&["reload"]), 0, "2 tenants (0 added, 0 removed, 0 changed)");
    daemon.kill();
    let mut daemon = world.run();
    daemon.wait("the first is collected", |status| of(status, tenant_id(1))["state"] == "collecting").await;
    assert_eq!(listed(&world, 2)["held"], since);
    is_left_alone(&world, 2).await;

    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(2), ContentType::Exchange).count(2).records(3));
    ends(&world.tenantry(&["tenant", "resume", &tenant_id(2).to_string()]), 0, "not paused any more");
    daemon.wait_collected(&world).await;

    let kept = exported(&world, 2);
    assert_eq!(kept, world.cloud.ledger().expected_ids(tenant_id(2)));
    ends(&world.tenantry(&["tenant", "remove", "second"]), 64, "add `--yes`");
    ends(
        &world.tenantry(&["tenant", "remove", "second", "--yes"]),
        0,
        &format!("its {} records in 14 blobs", kept.len()),
    );
    assert_eq!(listed(&world, 2), Value::Null);
    is_left_alone(&world, 2).await;
    assert_eq!(exported(&world, 2), kept, "what was collected stays");
    ends(&world.tenantry(&["tenant", "show", "second"]), 64, "no tenant is named `second`");
    for told in ["tenant enrolled", "tenant paused by an operator", "tenant resumed by an operator", "tenant removed"] {
        assert!(daemon.log().contains(told), "{}", daemon.log());
    }
    assert_eq!(world.cloud.summary().requests(tenant_id(2), Endpoint::Stop), 0, "nobody asked for that");

    // It comes back, and nothing is fetched twice.
    ends(&add(&world, 2, "Second"), 0, "is added");
    daemon.wait("it is collected again", |status| of(status, tenant_id(2))["state"] == "collecting").await;
    assert!(daemon.stop().await.success());
    assert_eq!(world.cloud.ledger().requests(tenant_id(2), Endpoint::Blob), 14);
    assert_no_violations(&world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolments_and_pauses_are_there_again_when_the_state_is_lost() {
    let scenario = (1..=3).fold(Scenario::new(402), |scenario, number| scenario.tenant(tenant(number, 2, 1.0)));
    let world = world(scenario, "");
    let mut daemon = running(&world).await;
    ends(&add(&world, 2, "Second"), 0, "is added");
    ends(&add(&world, 3, "Third"), 0, "is added");
    daemon.wait_collected(&world).await;
    ends(&world.tenantry(&["tenant", "pause", "tenant-1"]), 0, "is paused");
    ends(&world.tenantry(&["tenant", "pause", "third"]), 0, "is paused");
    ends(&world.tenantry(&["tenant", "remove", "third", "--yes"]), 0, "is removed");
    let before = list(&world);
    assert!(daemon.stop().await.success());
    lose_the_state(&world);

    let mut daemon = world.run();
    daemon.wait("the second is collected", |status| of(status, tenant_id(2))["state"] == "collecting").await;
    assert!(daemon.log().contains("1 enrolled tenants, 1 paused"), "{}", daemon.log());
    let fixed = |tenants: Vec<Value>| {
        let fixed = |tenant: Value| {
            (tenant["id"].clone(), tenant["name"].clone(), tenant["origins"].clone(), tenant["held"].clone())
        };
        tenants.into_iter().map(fixed).collect::<Vec<_>>()
    };
    assert_eq!(fixed(list(&world)), fixed(before));
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_what_holds_and_only_it_can_be_edited() {
    let world = world(Scenario::new(403).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait("it is collected", |status| of(status, tenant_id(1))["state"] == "collecting").await;
    let line = fs::read_to_string(&world.config).unwrap().lines().position(|line| line == "[[tenants]]").unwrap() + 1;
    let place = format!("{}:{line}", world.config.display());
    ends(&add(&world, 1, "Other"), 1, &format!("is there already: `tenant-1`, from {place}"));
    ends(&world.tenantry(&["tenant", "remove", "tenant-1", "--yes"]), 1, &format!("is named in {place}: remove its"));

    ends(&add(&world, 2, "Second"), 0, "is added");
    ends(&add(&world, 2, "Second"), 1, "is there already: `Second`, from command");
    daemon.wait_collected(&world).await;
    let both = [1, 2].map(|number| (tenant_id(number), format!("tenant-{number}")));
    world.configure(&both, "");
    ends(&world.tenantry(&["reload"]), 0, "2 tenants (0 added, 0 removed, 0 changed)");
    let second = listed(&world, 2);
    assert_eq!((origins(&second), second["name"].as_str()), (vec!["file".into(), "command".into()], Some("tenant-2")));
    ends(
        &world.tenantry(&["tenant", "remove", "tenant-2", "--yes", "--stop-subscriptions"]),
        1,
        "goes on being collected, since it is named in",
    );
    // It goes from the file again, and is still enrolled.
    world.configure(&both[..1], "");
    ends(&world.tenantry(&["reload"]), 0, "2 tenants (0 added, 0 removed, 0 changed)");
    assert_eq!(origins(&listed(&world, 2)), ["command"]);
    world.configure(&both, "");
    ends(&world.tenantry(&["reload"]), 0, "2 tenants");
    ends(&world.tenantry(&["tenant", "remove", "tenant-2", "--yes"]), 0, "it is collected as ");
    assert_eq!(origins(&listed(&world, 2)), ["file"]);
    assert!(daemon.stop().await.success());
    assert_eq!(world.cloud.summary().requests(tenant_id(2), Endpoint::Token), 1, "nothing of this restarted it");
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_whose_app_is_gone_is_told_and_comes_back_with_it() {
    let extra = format!(
        "[apps.own]\nclient_id = \"{APP}\"\npublisher_id = \"{}\"\ncertificate_file = \"app.crt\"\n\
         private_key_file = \"app.key\"\n",
        crate::world::PUBLISHER
    );
    let world = world(Scenario::new(404).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), &extra);
    let id = tenant_id(2).to_string();
    let mut daemon = running(&world).await;
    let with_app =
        |app| world.tenantry(&["tenant", "add", &id, "--name", "Second", "--cloud", "simulated", "--app", app]);
    ends(&with_app("other"), 64, "there is no `[apps.other]` in the configuration; the apps are `[app]`, `[apps.own]`");
    ends(&world.tenantry(&["tenant", "add", &id, "--cloud", "moon"]), 64, "there is no cloud `moon`");
    ends(&world.tenantry(&["tenant", "add", &id]), 64, "is for simulated clouds");
    ends(&with_app("own"), 0, "is added");
    daemon.wait_collected(&world).await;

    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], "");
    ends(&world.tenantry(&["reload"]), 0, "2 tenants (0 added, 0 removed, 1 changed)");
    let status = daemon.wait("it is told", |status| !of(status, tenant_id(2))["trouble"].is_null()).await;
    let second = of(&status, tenant_id(2));
    assert_eq!((second["state"].as_str(), second["trouble"]["kind"].as_str()), (Some("paused"), Some("app_unknown")));
    assert_eq!(of(&status, tenant_id(1))["trouble"], Value::Null);
    for command in [&["status"][..], &["tenant", "list"], &["tenant", "show", "second"]] {
        ends(&world.tenantry(command), 0, "write `[apps.own]` and run `tenantry reload`");
    }
    assert!(
        daemon.log().contains("for the app `[apps.own]`, which the configuration does not have"),
        "{}",
        daemon.log()
    );
    is_left_alone(&world, 2).await;
    ends(&world.tenantry(&["tenant", "remove", "second", "--stop-subscriptions", "--yes"]), 1, "nothing was removed");
    daemon.kill();

    // Neither a restart forgets it, nor is it a reason not to start.
    let mut daemon = world.run();
    daemon.wait("it is told", |status| of(status, tenant_id(2))["trouble"]["kind"] == "app_unknown").await;
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], &extra);
    ends(&world.tenantry(&["reload"]), 0, "2 tenants");
    daemon.wait("it is collected again", |status| of(status, tenant_id(2))["state"] == "collecting").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_register_is_changed_all_the_same() {
    let world = world(Scenario::new(405).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    ends(&add(&world, 2, "Second"), 1, "start the daemon once");
    let mut daemon = world.run();
    daemon.wait("it is collected", |status| of(status, tenant_id(1))["state"] == "collecting").await;
    assert!(daemon.stop().await.success());

    ends(&add(&world, 2, "Second"), 0, "the daemon collects it when it starts");
    ends(&add(&world, 2, "Second"), 1, "is there already: `Second`, from command");
    ends(&add(&world, 1, "Other"), 1, "is there already: `tenant-1`, from ");
    ends(&world.tenantry(&["tenant", "pause", "second"]), 0, "is paused");
    let second = listed(&world, 2);
    assert_eq!((origins(&second), second["state"].as_str()), (vec!["command".to_owned()], Some("held")));
    ends(&world.tenantry(&["tenant", "show", "second"]), 0, "by an operator since");
    ends(&world.tenantry(&["status"]), 0, "Second");
    ends(&world.tenantry(&["tenant", "resume", "second"]), 0, "not paused any more");

    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let kept = exported(&world, 2);
    assert_eq!(kept.len(), world.exported(&["--tenant", "second", "--output", "-"]).len(), "its name leads there too");
    ends(&world.tenantry(&["tenant", "remove", "second", "--yes", "--stop-subscriptions"]), 69, "no daemon is running");
    ends(&world.tenantry(&["tenant", "remove", "tenant-1", "--yes"]), 1, "is named in ");
    ends(&world.tenantry(&["tenant", "remove", "second", "--yes"]), 0, "stay for ever");
    assert_eq!(listed(&world, 2), Value::Null);
    assert_eq!(exported(&world, 2), kept);
    let mut daemon = world.run();
    daemon.wait("the first is collected", |status| of(status, tenant_id(1))["state"] == "collecting").await;
    assert_eq!(of(&daemon.status().await.unwrap(), tenant_id(2)), &Value::Null);
    assert!(daemon.stop().await.success());
}

/// The statuses of a tenant's subscriptions' answers.
fn stops(world: &World, number: u32) -> u64 {
    world.cloud.summary().requests(tenant_id(number), Endpoint::Stop)
}

pub(crate) async fn collecting(daemon: &mut Daemon, number: u32) {
    daemon.wait("it is collected", |status| of(status, tenant_id(number))["state"] == "collecting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_stopped_before_a_tenant_goes_or_nothing_is_removed() {
    let world = world(Scenario::new(406).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    let mut daemon = running(&world).await;
    ends(&add(&world, 2, "Second"), 0, "is added");
    daemon.wait_collected(&world).await;
    collecting(&mut daemon, 2).await;

    let broken = Effect::Status { status: 500, body: ErrorBody::Json, retry_after_s: None };
    let fault = Fault::new(broken).tenant(tenant_id(2)).on([Endpoint::Stop]).content_type(ContentType::Exchange);
    world.cloud.control().add_fault(fault);
    let remove = || world.tenantry(&["tenant", "remove", "second", "--stop-subscriptions", "--yes"]);
    let refused = remove();
    ends(&refused, 1, "nothing was removed");
    for told in ["Audit.General: stopped", "Audit.Exchange: stopping a subscription: the service failed"] {
        ends(&refused, 1, told);
    }
    assert_eq!(origins(&listed(&world, 2)), ["command"]);
    assert_eq!(listed(&world, 2)["held"], Value::Null, "it goes on");

    world.cloud.control().clear_faults();
    let before = stops(&world, 2);
    let done = remove();
    ends(&done, 0, "`Second` (");
    ends(&done, 0, "the subscription to Audit.Exchange is stopped");
    assert!(stops(&world, 2) > before);
    assert_eq!(listed(&world, 2), Value::Null);
    is_left_alone(&world, 2).await;
    let started = world.cloud.summary().requests(tenant_id(2), Endpoint::Start);
    assert!(started >= 4, "{started}");
    collecting(&mut daemon, 1).await;
    assert!(daemon.stop().await.success());
    assert_eq!(stops(&world, 1), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_reloads_at_once_lose_nothing() {
    const TENANTS: u32 = 9;
    let scenario = (1..=TENANTS).fold(Scenario::new(407), |scenario, number| scenario.tenant(tenant(number, 1, 1.0)));
    let world = world(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    let daemon = running(&world).await;
    std::thread::scope(|scope| {
        for number in 2..=TENANTS {
            let world = &world;
            scope.spawn(move || {
                ends(&add(world, number, &format!("added-{number}")), 0, "is added");
                if number % 2 == 0 {
                    ends(&world.tenantry(&["tenant", "pause", &tenant_id(number).to_string()]), 0, "is paused");
                }
                ends(&world.tenantry(&["reload"]), 0, "0 removed");
            });
        }
    });
    let expected: Vec<_> =
        (1..=TENANTS).map(|number| (tenant_id(number).to_string(), number > 1 && number % 2 == 0)).collect();
    let there = || {
        let of = |tenant: Value| (tenant["id"].as_str().unwrap().to_owned(), tenant["held"].is_string());
        list(&world).into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(there(), expected);
    daemon.kill();
    assert_eq!(there(), expected, "as the store has it");
    let daemon = running(&world).await;
    assert_eq!(there(), expected);
    assert!(daemon.stop().await.success());
}
