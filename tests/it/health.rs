//! Service health and the Message Center by Graph, with the real binary: what is kept, what is refused, what disturbs nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_simulator::{
    ACTIVITY_READ, Announced, Board, Effect, Endpoint, Fault, HEALTH_READ, Ledger, MESSAGES_READ, Scenario, Throttle,
    ThrottleShape,
};

use crate::tenants::{add, ends, running};
use crate::world::{APP, Daemon, PATIENCE, World, assert_no_violations, tenant, tenant_id};

/// Fast, and with tokens that are renewed soon enough for a test to wait for the next one.
const ON: &str = "[health]\nenabled = true\npoll_interval = \"300ms\"\n[daemon]\nstart_spread = \"0s\"\n";

const TENANT: &str = "tenant-1";

fn world(seed: u64, change: impl FnOnce(Scenario) -> Scenario) -> World {
    World::new(change(Scenario::new(seed).tenant(tenant(1, 2, 0.5))), ON)
}

/// So many issues and as many messages, changed in the last days.
fn announce(world: &World, count: u64) {
    let control = world.cloud.control();
    for n in 0..count {
        let ago = Duration::from_mins(n * 37 + 90);
        let issue = json!({
            "id": format!("EX{n:04}"), "title": format!("Issue {n}"), "service": "Exchange Online",
            "status": "investigating", "classification": "incident", "isResolved": false, "posts": [],
        });
        let message = json!({
            "id": format!("MC{n:04}"), "title": format!("Post {n}"), "category": "stayInformed", "severity": "normal",
            "services": ["Exchange Online"], "body": {"contentType": "html", "content": "x".repeat(400)},
        });
        control.announced_ago(tenant_id(1), Board::Issues, issue, ago);
        control.announced_ago(tenant_id(1), Board::Messages, message, ago);
    }
}

/// The health that the program shows.
#[track_caller]
fn shown(world: &World, arguments: &[&str]) -> Value {
    let output = world.tenantry(&[&["health", "--json", "--tenant", TENANT], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].take()
}

/// Every revision that is exported: the item and the time of its change.
#[track_caller]
fn stored(world: &World, content_type: &str) -> Vec<(String, String)> {
    let output = world.tenantry(&["export", "--content-type", content_type, "--include-duplicates"]);
    assert!(output.status.success(), "{output:?}");
    let revision = |line: &str| {
        let item: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        (text("id"), text("lastModifiedDateTime"))
    };
    String::from_utf8(output.stdout).unwrap().lines().map(revision).collect()
}

/// Every revision that a list was sent, or stands in now, is stored, and none twice.
#[track_caller]
fn assert_kept(world: &World, ledger: &Ledger) {
    for (board, content_type) in [(Board::Issues, "Health.Issues"), (Board::Messages, "Health.Messages")] {
        let all = stored(world, content_type);
        let kept: BTreeSet<_> = all.iter().cloned().collect();
        assert_eq!(kept.len(), all.len(), "{content_type}: revisions are stored twice");
        let expected = ledger.announced.iter().filter(|of| of.board == board && (of.served > 0 || of.current));
        let missing: Vec<_> = expected.filter(|of| !kept.contains(&(of.id.clone(), of.modified.clone()))).collect();
        assert!(missing.is_empty(), "{content_type}: {} revisions are missing: {missing:?}", missing.len());
    }
}

/// Waits until the program shows that.
async fn wait_shown(world: &World, daemon: &mut Daemon, what: &str, done: impl Fn(&Value) -> bool) -> Value {
    // Until it answers, it holds a store that nobody else may open.
    daemon.wait("it answers", |_| true).await;
    let start = std::time::Instant::now();
    loop {
        let health = shown(world, &["--history"]);
        if done(&health) {
            return health;
        }
        assert!(start.elapsed() < PATIENCE, "not shown: {what}; last {health:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until every revision that stands has been handed out.
async fn wait_served(world: &World, daemon: &Daemon) -> Ledger {
    let start = std::time::Instant::now();
    loop {
        let ledger = world.cloud.ledger();
        let of = |endpoint| ledger.answers(tenant_id(1), endpoint, 200);
        let unserved = ledger.announced.iter().filter(|of| of.current && of.served == 0);
        if unserved.count() == 0 && of(Endpoint::GraphIssues) > 0 && of(Endpoint::GraphMessages) > 0 {
            return ledger;
        }
        assert!(start.elapsed() < PATIENCE, "not all was asked for\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_how_services_stand_and_what_changed_with_the_daemon_and_without() {
    let world = world(701, |scenario| scenario);
    let control = world.cloud.control();
    announce(&world, 2);
    let mut daemon = world.run();
    let all = |health: &Value| ids(&health["issues"]).len() == 2 && ids(&health["messages"]).len() == 2;
    let health =
        wait_shown(&world, &mut daemon, "two of each", |health| all(health) && ids(&health["services"]).len() == 3)
            .await;
    assert_eq!(health["services"][0]["status"], "serviceOperational", "{health:#}");
    control.set_service(tenant_id(1), "Exchange", "serviceDegradation");
    control.announce(
        tenant_id(1),
        Board::Issues,
        json!({"id": "EX0001", "status": "serviceRestored", "isResolved": true}),
    );
    let ill = |health: &Value| {
        ids(&health["issues"]) == ["EX0000"] && health["services"][0]["status"] == "serviceDegradation"
    };
    let health = wait_shown(&world, &mut daemon, "one resolved and a service that is ill", ill).await;
    let changed = |field: &str| {
        let changes =
            health["changes"].as_array().unwrap().iter().flat_map(|change| change["fields"].as_array().unwrap());
        changes.filter(|one| one["name"] == field).map(|one| one["to"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(changed("isResolved"), ["true"], "{health:#}");
    assert_eq!(
        changed("status").into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["serviceDegradation".to_owned(), "serviceRestored".to_owned()])
    );
    // A tenant that nobody knows, and text for people.
    assert_eq!(world.tenantry(&["health", "--tenant", "nobody"]).status.code(), Some(64));
    let text = String::from_utf8(world.tenantry(&["health"]).stdout).unwrap();
    assert!(text.contains("serviceDegradation since ") && text.contains("2 of 3 services work"), "{text}");

    // Audit records are collected as ever, and an export that nobody asked for health has none of it.
    daemon.wait_collected(&world).await;
    world.assert_collected();
    assert!(daemon.stop().await.success());
    assert_eq!(shown(&world, &["--history"]), Value::clone(&health), "the same without the daemon");
    assert_kept(&world, &world.cloud.ledger());
    let verified = world.tenantry(&["verify", "--store-only"]);
    assert!(verified.status.success(), "{verified:?}");
    assert_no_violations(&world.cloud.ledger());

    // The next daemon finds what is stored: nothing is stored twice, the overview of services included.
    let overviews = || world.tenantry(&["export", "--content-type", "Health.Services"]).stdout;
    let before = overviews();
    let mut daemon = world.run();
    let asked = world.cloud.ledger().answers(tenant_id(1), Endpoint::GraphServices, 200);
    daemon
        .wait("it has asked again", |_| {
            world.cloud.ledger().answers(tenant_id(1), Endpoint::GraphServices, 200) > asked + 2
        })
        .await;
    assert!(daemon.stop().await.success());
    assert_eq!(overviews(), before);
    assert_kept(&world, &world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_pages_are_read_is_not_lost() {
    // Of 30 items in pages of 4, each change between two pages makes one slip into a page that was read.
    let world = world(702, |mut scenario| {
        (scenario.service.graph_page_size, scenario.service.graph_shifts_while_paging) = (4, 9);
        scenario
    });
    announce(&world, 30);
    let mut daemon = world.run();
    wait_served(&world, &daemon).await;
    daemon.wait("audit records are collected", |status| status["tenants"][0]["state"] == "collecting").await;
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    let superseded = ledger.announced.iter().filter(|of: &&Announced| !of.current).count();
    assert!(superseded >= 5, "items were changed between pages: {superseded}");
    assert_kept(&world, &ledger);
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_while_pages_are_read_hides_nothing_else() {
    // Of 30 items in pages of 4, each that is taken away between two pages makes one slip into a page that was read.
    let world = world(709, |mut scenario| {
        (scenario.service.graph_page_size, scenario.service.graph_withdrawals_while_paging) = (4, 9);
        scenario
    });
    announce(&world, 30);
    let mut daemon = world.run();
    wait_served(&world, &daemon).await;
    daemon.wait("audit records are collected", |status| status["tenants"][0]["state"] == "collecting").await;
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    let gone: Vec<_> = ledger.announced.iter().filter(|of| !of.current).collect();
    assert_eq!(gone.len(), 9, "items were withdrawn between pages");
    assert!(gone.iter().all(|of| of.served > 0), "each had been sent: {gone:?}");
    // What was sent is kept, whether or not it stands, and what stands was not overlooked.
    assert_kept(&world, &ledger);
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_page_on_another_host_is_told_and_gets_no_token() {
    let foreign = Fault::new(Effect::ForeignNextPage).on([Endpoint::GraphIssues]);
    let world = world(703, |scenario| scenario.fault(foreign));
    announce(&world, 3);
    let mut daemon = world.run();
    let told = |status: &Value| status["tenants"][0]["trouble"]["kind"] == "graph_foreign_link";
    let status = daemon.wait("it is told", told).await;
    let cause = status["tenants"][0]["trouble"]["cause"].as_str().unwrap();
    assert!(cause.contains(&world.cloud.foreign_url()) && cause.contains("not on the Graph host"), "{cause}");
    // What the page held is not lost with the link, and the other lists go on.
    let health = wait_shown(&world, &mut daemon, "issues and messages", |health| {
        ids(&health["issues"]).len() == 3 && ids(&health["messages"]).len() == 3
    })
    .await;
    assert_eq!(health["troubles"][0]["kind"], "graph_foreign_link", "{health:#}");
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    assert_eq!(ledger.foreign_requests, 0);
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_role_for_health_messages_go_on_and_the_reason_is_told() {
    let one = tenant(1, 2, 0.5).consent(APP, &[ACTIVITY_READ, MESSAGES_READ]);
    let world = World::new(Scenario::new(704).tenant(one), ON);
    announce(&world, 2);
    let mut daemon = world.run();
    let told = |status: &Value| status["tenants"][0]["trouble"]["kind"] == "graph_role_missing";
    let status = daemon.wait("it is told", told).await;
    let trouble = &status["tenants"][0]["trouble"];
    assert!(trouble["cause"].as_str().unwrap().contains(HEALTH_READ) && trouble["needs_operator"] == true, "{trouble}");
    let health = wait_shown(&world, &mut daemon, "messages", |health| ids(&health["messages"]).len() == 2).await;
    assert_eq!((&health["issues"], &health["services"]), (&json!([]), &json!([])));
    assert!(
        health["troubles"].as_array().unwrap().iter().all(|known| known["kind"] == "graph_role_missing"),
        "{health:#}"
    );
    daemon.wait_collected(&world).await;
    let doctor = world.tenantry(&["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!((doctor.status.code(), &diagnosis["findings"][0]["kind"]), (Some(2), &json!("graph_role_missing")));
    // Graph's trouble is its own: every link of the audit records before it holds.
    let links = diagnosis["tenants"][0]["links"].as_array().unwrap();
    let of = |state: &str| {
        links
            .iter()
            .filter(|link| link["state"] == state)
            .map(|link| link["link"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((of("broken"), of("not_reached")), (vec!["health"], vec!["collection"]), "{links:?}");
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    // A list that is refused is not asked for at the pace of those that are not.
    let (refused, good) = (
        ledger.answers(tenant_id(1), Endpoint::GraphIssues, 403),
        ledger.answers(tenant_id(1), Endpoint::GraphMessages, 200),
    );
    // The doctor asked too, once, and stopped where it was refused.
    assert!(refused == 1 && good >= 1, "refused {refused} times, messages listed {good} times");
    world.assert_collected();
    // Nobody but the doctor looks, and finds the same.
    let doctor = world.tenantry(&["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let found: Vec<_> =
        diagnosis["findings"].as_array().unwrap().iter().map(|of| (of["link"].clone(), of["kind"].clone())).collect();
    assert_eq!(found, [(json!("health"), json!("graph_role_missing"))], "{diagnosis:#}");
    assert_eq!(diagnosis["daemon"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_obeyed_and_stops_no_audit_records() {
    let throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(4) };
    let throttled = Fault::new(Effect::Throttled(throttle)).on([Endpoint::GraphMessages]).first(1);
    let world = world(705, |scenario| scenario.fault(throttled));
    announce(&world, 2);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let ledger = world.cloud.ledger();
    assert_eq!(ledger.answers(tenant_id(1), Endpoint::GraphMessages, 200), 0, "audit records did not wait for Graph");
    // The simulated cloud holds whoever asks too early for a violation, of the next process as well.
    daemon
        .wait("the wait was read", |_| world.cloud.ledger().answers(tenant_id(1), Endpoint::GraphMessages, 429) == 1)
        .await;
    assert!(daemon.stop().await.success());
    let mut daemon = world.run();
    wait_shown(&world, &mut daemon, "messages", |health| ids(&health["messages"]).len() == 2).await;
    daemon.wait("no trouble is left", |status| status["tenants"][0]["trouble"].is_null()).await;
    assert!(daemon.stop().await.success());
    assert_no_violations(&world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_loses_no_revision_and_stores_none_twice() {
    let world = world(706, |mut scenario| {
        scenario.service.graph_page_size = 7;
        scenario
    });
    announce(&world, 40);
    let mut random = fastrand::Rng::with_seed(706);
    let mut partly = 0;
    for round in 0..6 {
        let mut daemon = world.run();
        let before = world.cloud.ledger().answers(tenant_id(1), Endpoint::GraphMessages, 200);
        // Some pages further, it is killed.
        let pages = random.u64(0..5);
        daemon
            .wait("it lists", |_| {
                world.cloud.ledger().answers(tenant_id(1), Endpoint::GraphMessages, 200) > before + pages
            })
            .await;
        daemon.kill();
        let kept = stored(&world, "Health.Messages");
        partly += usize::from(!kept.is_empty() && kept.len() < 40);
        assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), kept.len(), "stored twice");
        let changed = json!({"id": format!("MC{round:04}"), "title": "changed"});
        world.cloud.control().announce(tenant_id(1), Board::Messages, changed);
    }
    assert!(partly > 0, "no kill met a listing that was half stored");
    let mut daemon = world.run();
    wait_served(&world, &daemon).await;
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    // What was on its way when it was killed was sent and not kept, unless it still stands.
    let mut standing = ledger.clone();
    standing.announced.retain(|of| of.current);
    assert_kept(&world, &standing);
    assert!(world.tenantry(&["verify", "--store-only"]).status.success());
    assert_no_violations(&ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_it_asks_nothing_of_graph() {
    let scenario = Scenario::new(707).tenant(tenant(1, 2, 0.5));
    let world = World::new(scenario, "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let text = String::from_utf8(world.tenantry(&["health"]).stdout).unwrap();
    assert!(text.contains("not collected; set `enabled = true` under `[health]`"), "{text}");
    assert!(daemon.stop().await.success());
    let ledger = world.cloud.ledger();
    assert!(ledger.token_requests.iter().all(|asked| !asked.audience.contains("graph")));
    assert_eq!(ledger.requests(tenant_id(1), Endpoint::GraphServices), 0);
    let text = String::from_utf8(world.tenantry(&["health"]).stdout).unwrap();
    assert!(text.contains("not collected; set `enabled = true` under `[health]`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_erases_what_was_told_to_that_tenant_and_nothing_else() {
    let scenario = Scenario::new(708).tenant(tenant(1, 1, 0.5)).tenant(tenant(2, 1, 0.5));
    let world = crate::tenants::world(scenario, ON);
    for number in [1, 2] {
        let issue = json!({"id": format!("EX{number}"), "title": "t", "service": "s", "isResolved": false});
        world.cloud.control().announce(tenant_id(number), Board::Issues, issue);
    }
    let mut daemon = running(&world).await;
    ends(&add(&world, 2, "Second"), 0, "is added");
    let both = |_: &Value| stored(&world, "Health.Issues").len() == 2;
    daemon.wait("the issues of both are kept", both).await;
    daemon.wait_collected(&world).await;
    ends(&world.tenantry(&["tenant", "remove", "second", "--purge", "--yes"]), 0, "it is being erased");
    let ids = || stored(&world, "Health.Issues").into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(), ["EX1"], "hidden at once");
    let receipt = world.tenantry(&["tenant", "purges", "--wait", "--json"]);
    let receipt: Value = serde_json::from_slice(&receipt.stdout).unwrap();
    // A blob of each of four audit types, an overview of services, and an issue.
    assert_eq!((&receipt[0]["blobs"], &receipt[0]["left"]), (&json!(6), &json!(0)), "{receipt:#}");
    assert!(daemon.stop().await.success());
    assert_eq!(ids(), ["EX1"]);
    assert!(world.tenantry(&["verify", "--store-only"]).status.success());
}
