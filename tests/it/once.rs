//! `tenantry collect-once`: all that there is, without a daemon, whatever goes wrong, and the end.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tenantry_simulator::{
    BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, LeftOut, Point, Scenario, Tenant, Throttle,
    ThrottleShape, When,
};

use crate::crash::{checked_after_a_kill, rounds};
use crate::world::{APP, PATIENCE, World, assert_no_violations, tenant, tenant_id};

/// The end of a run, and what it says.
#[track_caller]
fn outcome(output: &Output, code: i32) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}\n{told}", String::from_utf8_lossy(&output.stdout));
    assert!(!told.contains("panicked"), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs it to its end.
#[track_caller]
fn once(world: &World, arguments: &[&str], code: i32) -> Value {
    outcome(&world.tenantry(&[&["collect-once", "--json"], arguments].concat()), code)
}

fn of<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    let tenants = outcome["tenants"].as_array().unwrap();
    tenants.iter().find(|tenant| tenant["name"] == name).unwrap_or_else(|| panic!("no {name} in {outcome:#}"))
}

fn blobs(outcome: &Value) -> u64 {
    outcome["tenants"].as_array().unwrap().iter().map(|tenant| tenant["stored"]["blobs"].as_u64().unwrap()).sum()
}

/// What is said of what is left, all in one.
fn left(tenant: &Value) -> String {
    tenant["left"].to_string()
}

fn begin(world: &World) -> Child {
    world.command(&["collect-once", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until `done`, while the run goes on.
#[track_caller]
fn meanwhile(child: &mut Child, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        assert!(child.try_wait().unwrap().is_none(), "it has ended before {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn fault(on: &[Endpoint], when: When, effect: Effect) -> Fault {
    Fault { tenant: None, on: on.to_vec(), content_type: None, when, effect }
}

/// So many blobs that became available an hour ago, and not in the last seconds, which nobody lists yet.
fn new_blobs(number: u32, blobs: u32) -> BlobSpec {
    let new = BlobSpec::new(tenant_id(number), ContentType::Exchange).count(blobs).records(3);
    new.created_ago(Duration::from_hours(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_collects_all_there_is_and_the_next_one_only_what_is_new() {
    let scenario = (1..=3).fold(Scenario::new(201), |scenario, number| scenario.tenant(tenant(number, 12, 6.5)));
    let world = World::new(scenario.page_size(7), "");
    let first = once(&world, &["--tenant", "tenant-1"], 0);
    assert_eq!((&first["complete"], blobs(&first)), (&Value::Bool(true), 48));
    let second = once(&world, &[], 0);
    assert_eq!((blobs(&second), of(&second, "tenant-1")["stored"]["blobs"].as_u64()), (96, Some(0)));
    world.assert_collected();
    let starts =
        |world: &World| (1..=3).map(|n| world.cloud.ledger().requests(tenant_id(n), Endpoint::Start)).sum::<u64>();
    assert_eq!(starts(&world), 12);

    // What became available long before the watermark is found all the same: each run lists the seven days.
    let late =
        BlobSpec::new(tenant_id(2), ContentType::General).count(2).records(3).created_ago(Duration::from_hours(70));
    world.cloud.control().add_blobs(late);
    let third = once(&world, &[], 0);
    assert_eq!((blobs(&third), of(&third, "tenant-2")["stored"]["records"].as_u64()), (2, Some(6)));
    world.assert_collected();
    // Nor does it matter that a listing leaves out what there is: the next one has it.
    world.cloud.control().add_blobs(new_blobs(3, 6));
    let half = Fault::new(Effect::LeaveOut(LeftOut::Half)).on([Endpoint::List]).tenant(tenant_id(3));
    let half = world.cloud.control().add_fault(half);
    let fourth = once(&world, &[], 0);
    world.cloud.control().remove_fault(half);
    assert_eq!(blobs(&fourth) + blobs(&once(&world, &[], 0)), 6);
    world.assert_collected();
    assert_eq!(starts(&world), 12, "the subscriptions are as they were");
    world.assert_store_is_sound().await;

    // For people: a table and a sentence; and in the log how far each tenant came.
    let told = world.tenantry(&["collect-once"]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        text.contains("complete: all that Microsoft holds of 3 tenants is in the store; 0 blobs and 0 records"),
        "{text}"
    );
    let log = String::from_utf8_lossy(&told.stderr);
    assert!(log.contains("4 of 4 content types listed, 0 blobs and 0 records stored, 0 waiting; complete"), "{log}");
    // The daemon goes on from there.
    let mut daemon = world.run();
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(3), ContentType::Exchange).count(1).records(3));
    daemon.wait("the new blob is stored", |status| status["tenants"][2]["stored_today"]["blobs"] == 55).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_collects_all_there_is_through_what_passes() {
    use Endpoint::{Blob, List, Start, Subscriptions, Token};
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let throttled = |shape, retry_after_s| Effect::Throttled(Throttle { shape, retry_after_s });
    let faults = [
        fault(&[Token], When::First(1), status(503, ErrorBody::Html)),
        fault(&[Subscriptions], When::First(1), status(500, ErrorBody::Empty)),
        fault(&[Start], When::Requests(vec![2]), status(503, ErrorBody::Json)),
        fault(&[List], When::Every(11), status(503, ErrorBody::Html)),
        fault(&[List], When::Every(7), Effect::EmptyPage),
        fault(&[List], When::Requests(vec![13]), Effect::Denied),
        fault(&[List], When::Requests(vec![17]), throttled(ThrottleShape::Forbidden, Some(2))),
        fault(&[Blob], When::Requests(vec![9]), throttled(ThrottleShape::TooManyRequests, Some(1))),
        fault(&[Blob], When::Requests(vec![20]), throttled(ThrottleShape::Sentence, Some(1))),
        fault(&[Blob], When::Requests(vec![25]), Effect::Denied),
        fault(&[Blob], When::Every(13), status(500, ErrorBody::Json)),
        fault(&[Blob], When::Every(17), Effect::Reset(Point::MidBody)),
        fault(&[Blob], When::Every(19), Effect::Truncate { chunked: true }),
    ];
    let scenario = Scenario::new(202).tenant(tenant(1, 20, 6.0)).page_size(9);
    let world = World::new(faults.into_iter().fold(scenario, Scenario::fault), "");
    let all = once(&world, &["--patience", "5m"], 0);
    assert_eq!(blobs(&all), 80);
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_told_with_its_reason_and_keeps_nobody_else() {
    let scenario = Scenario::new(203)
        .tenant(tenant(1, 3, 1.0))
        .tenant(tenant(2, 3, 1.0).without_consent())
        .tenant(tenant(3, 3, 1.0).audit_log_off());
    let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    let began = Instant::now();
    let run = once(&world, &[], 1);
    assert!(began.elapsed() < Duration::from_mins(1), "a person must act, which is not waited for");
    assert_eq!((&run["complete"], &of(&run, "tenant-1")["state"]), (&Value::Bool(false), &Value::from("complete")));
    let (second, third) = (of(&run, "tenant-2"), of(&run, "tenant-3"));
    assert_eq!(second["state"], "incomplete");
    assert!(left(second).contains("AADSTS") && left(second).contains("consent"), "{second:#}");
    assert!(left(third).contains("audit log"), "{third:#}");
    // `status` says the same, in the same words.
    let status = world.tenantry(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["tenants"][1]["trouble"]["cause"], second["left"][0]["trouble"]["cause"]);
    let told = String::from_utf8(world.tenantry(&["collect-once", "--tenant", "tenant-2"]).stdout).unwrap();
    let cause = second["left"][0]["trouble"]["cause"].as_str().unwrap();
    assert!(told.contains("not complete: 1 of 1 tenant with something left"), "{told}");
    assert!(told.split_whitespace().collect::<Vec<_>>().join(" ").contains(cause), "{told}");

    // One that an operator pauses is left alone, and is no reason to fail.
    for name in ["tenant-2", "tenant-3"] {
        assert!(world.tenantry(&["tenant", "pause", name]).status.success());
    }
    let run = once(&world, &[], 0);
    assert_eq!(of(&run, "tenant-2")["state"], "not_collected");
    for name in ["tenant-2", "tenant-3"] {
        assert!(world.tenantry(&["tenant", "resume", name]).status.success());
    }
    world.cloud.control().grant(tenant_id(2), APP, &["ActivityFeed.Read", "ActivityFeed.ReadDlp"]);
    assert_eq!(of(&once(&world, &["--tenant", "tenant-2"], 0), "tenant-2")["stored"]["blobs"], 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_too_long_is_left_to_the_next_run() {
    let down = |on| Fault::new(Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None }).on([on]);
    let world = World::new(Scenario::new(204).tenant(tenant(1, 3, 1.0)), "");
    world.cloud.control().add_fault(down(Endpoint::Blob).content_type(ContentType::Exchange));
    let run = once(&world, &["--patience", "3s"], 75);
    let first = of(&run, "tenant-1");
    assert_eq!((first["stored"]["blobs"].as_u64(), first["waiting"].as_u64()), (Some(9), Some(3)), "{first:#}");
    assert!(left(first).contains("3 listed blobs not retrieved yet"), "{first:#}");
    world.cloud.control().clear_faults();

    // A wait that is longer than the patience is not begun.
    let wait = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(600) };
    world.cloud.control().add_fault(Fault::new(Effect::Throttled(wait)).on([Endpoint::List]).first(1));
    let began = Instant::now();
    let run = once(&world, &[], 75);
    assert!(began.elapsed() < Duration::from_mins(1), "{run:#}");
    assert!(left(of(&run, "tenant-1")).contains("not listed to the end"), "{run:#}");
    // Nor does the next run break it.
    let asked = world.cloud.ledger().requests(tenant_id(1), Endpoint::List);
    once(&world, &[], 75);
    assert_eq!(world.cloud.ledger().requests(tenant_id(1), Endpoint::List), asked);
    assert_no_violations(&world.cloud.ledger());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_content_of_a_new_subscription_is_not_waited_for() {
    let quiet = Tenant::new(tenant_id(1), "tenant-1").feed(Feed::new(ContentType::Exchange));
    let world = World::new(Scenario::new(205).tenant(quiet), "");
    let run = once(&world, &[], 75);
    let told = left(of(&run, "tenant-1"));
    assert!(told.contains("subscribed by this run") && told.contains("12 hours"), "{told}");
    world.cloud.control().add_blobs(new_blobs(1, 2));
    assert_eq!(blobs(&once(&world, &[], 0)), 2);
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stopped_is_gone_on_with_by_the_next() {
    let world = World::new(Scenario::new(206).tenant(tenant(1, 60, 6.0)), "");
    let slow = Fault::new(Effect::Stall { at: Point::BeforeHeaders, for_ms: Some(300) }).on([Endpoint::Blob]);
    world.cloud.control().add_fault(slow);
    for end in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = begin(&world);
        let before = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
        meanwhile(&mut child, "blobs come", || {
            world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob) > before + 10
        });
        signal(&child, end);
        let output = child.wait_with_output().unwrap();
        let run = outcome(&output, 75);
        assert!(blobs(&run) > 0 && of(&run, "tenant-1")["waiting"].as_u64() > Some(0), "{run:#}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("stopped before all was collected"));
    }
    world.cloud.control().clear_faults();
    once(&world, &[], 0);
    let fetched = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    assert_eq!(fetched, 240, "what was under way when it was stopped was finished, and nothing was fetched twice");
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_request_that_was_sent_is_heard_before_the_end() {
    let mut scenario = Scenario::new(209).tenant(tenant(1, 2, 1.0));
    scenario.service.latency_ms = 700;
    let failing = Effect::Status { status: 503, body: ErrorBody::Json, retry_after_s: None };
    let world = World::new(scenario.fault(Fault::new(failing).on([Endpoint::Start]).first(1)), "");
    let mut child = begin(&world);
    meanwhile(&mut child, "a start is asked for", || world.cloud.ledger().requests(tenant_id(1), Endpoint::Start) > 0);
    signal(&child, Signal::SIGTERM);
    outcome(&child.wait_with_output().unwrap(), 75);
    // It was not carried out. Who did not hear that would have to wait for the quarter of an hour between two starts.
    assert_eq!(blobs(&once(&world, &[], 0)), 8);
    world.assert_collected();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_loses_nothing_and_stores_nothing_twice() {
    let scenario = (1..=2).fold(Scenario::new(207), |scenario, number| scenario.tenant(tenant(number, 120, 6.0)));
    let world = World::new(scenario.page_size(11), "[daemon]\nstart_spread = \"0s\"\n");
    world.set("store", "partition_size", crate::phases::PARTITION);
    let mut random = fastrand::Rng::with_seed(207);
    let mut exported = BTreeSet::new();
    let requests = |world: &World| {
        let ledger = world.cloud.ledger();
        (1..=2).map(|n| ledger.requests(tenant_id(n), Endpoint::Blob)).sum::<u64>()
    };
    for _ in 0..rounds(6) {
        let mut child = begin(&world);
        let enough = requests(&world) + random.u64(0..100);
        // The last rounds may find nothing left to do.
        let start = Instant::now();
        while requests(&world) < enough && child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(random.u64(1..20)));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(9) || status.success(), "{status}");
        exported = checked_after_a_kill(&world, exported).await;
    }
    once(&world, &[], 0);
    world.assert_collected();
    world.assert_store_is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_daemon_it_does_nothing_and_it_gives_way_to_one() {
    let world = World::new(Scenario::new(208).tenant(tenant(1, 40, 6.0)), "[daemon]\ndrain = \"1s\"\n");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let beside = world.tenantry(&["collect-once"]);
    let told = String::from_utf8_lossy(&beside.stderr);
    assert_eq!(beside.status.code(), Some(75), "{told}");
    assert!(told.contains("a daemon keeps the store at") && told.contains("tenantry backfill"), "{told}");
    assert!(daemon.stop().await.success());

    world.cloud.control().add_blobs(new_blobs(1, 120));
    let slow = Fault::new(Effect::Stall { at: Point::BeforeHeaders, for_ms: Some(2500) }).on([Endpoint::Blob]);
    let slow = world.cloud.control().add_fault(slow);
    let mut child = begin(&world);
    let before = world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob);
    meanwhile(&mut child, "blobs come", || world.cloud.ledger().requests(tenant_id(1), Endpoint::Blob) > before);
    // A second one waits for a while and makes the first give way to nobody.
    let second = world.tenantry(&["collect-once"]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{told}");
    assert!(told.contains("`tenantry collect-once` (process"), "{told}");
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    let mut daemon = world.run();
    let output = child.wait_with_output().unwrap();
    outcome(&output, 75);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("a daemon is starting and needs the store"), "{told}");
    world.cloud.control().remove_fault(slow);
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected();
}
