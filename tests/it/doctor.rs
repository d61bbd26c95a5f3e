//! `tenantry doctor` from outside: by the daemon and without it, one thing wrong at a time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry_simulator::{
    ACTIVITY_READ, App, BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Ledger, Point, Scenario,
    SubscriptionStatus, Tenant, Throttle, ThrottleShape,
};
use uuid::Uuid;

use crate::network;
use crate::snapshot::assert_kept;
use crate::way::{Proxy, Rule, authority};
use crate::world::{APP, PATIENCE, World, assert_no_violations, tenant, tenant_id};

/// What a doctor's visit printed as JSON, with its exit code.
#[track_caller]
fn visit(world: &World, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = world.tenantry(&[&["doctor", "--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?} {said}"));
    (output.status.code(), value)
}

fn findings(diagnosis: &Value) -> &[Value] {
    diagnosis["findings"].as_array().unwrap()
}

/// The one finding: its link, its kind and its words.
#[track_caller]
fn only(diagnosis: &Value) -> (&str, &str, String) {
    let [finding] = findings(diagnosis) else { panic!("not one finding: {diagnosis:#}") };
    (finding["link"].as_str().unwrap(), finding["kind"].as_str().unwrap(), words(finding))
}

/// Cause and remedy, of a finding or of a trouble in `status`.
fn words(trouble: &Value) -> String {
    let text = |name: &str| trouble[name].as_str().unwrap_or_default();
    format!("{}\n  to do: {}", text("cause"), text("remedy"))
}

fn starts(ledger: &Ledger) -> u64 {
    ledger.tenants.values().filter_map(|book| book.requests.get(&Endpoint::Start)).sum()
}

/// Nothing that must never be seen.
#[track_caller]
fn assert_silent(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for secret in ["eyJ", "Bearer", "PRIVATE KEY"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_with_the_daemon_and_without() {
    let scenario = (1..=4).fold(Scenario::new(601), |scenario, number| scenario.tenant(tenant(number, 3, 0.5)));
    let world = World::new(scenario, "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let before = world.cloud.ledger();
    let (code, diagnosis) = visit(&world, &[]);
    assert_eq!((code, findings(&diagnosis)), (Some(0), &[][..]), "{diagnosis:#}");
    assert_eq!((&diagnosis["daemon"], diagnosis["tenants"].as_array().unwrap().len()), (&Value::Bool(true), 4));
    for tenant in diagnosis["tenants"].as_array().unwrap() {
        let states: Vec<_> =
            tenant["links"].as_array().unwrap().iter().map(|seen| (&seen["link"], &seen["state"])).collect();
        assert!(states.len() == 18 && states.iter().all(|(_, state)| *state == "sound"), "{tenant:#}");
    }
    let after = world.cloud.ledger();
    assert_eq!(after.token_requests.len(), before.token_requests.len(), "it takes the tokens that there are");
    assert_eq!(starts(&after), starts(&before));

    // One tenant, as a person reads it.
    let one = world.tenantry(&["doctor", "--tenant", "tenant-2"]);
    assert_silent(&one);
    let text = String::from_utf8(one.stdout).unwrap();
    assert!(
        text.starts_with("1 tenant, all well\n\ntenant-2:\n  ok      clock         right within a minute\n"),
        "{text}"
    );
    assert!(text.contains("  ok      roles         ActivityFeed.Read") && text.contains("4 of 4 enabled\n"), "{text}");
    let unknown = world.tenantry(&["doctor", "--tenant", "tenant-22"]);
    assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
    assert!(daemon.stop().await.success());

    // By itself, each tenant costs one token, and nothing is started.
    let (before, (code, diagnosis)) = (world.cloud.ledger(), visit(&world, &[]));
    assert_eq!(
        (code, findings(&diagnosis), &diagnosis["daemon"]),
        (Some(0), &[][..], &Value::Bool(false)),
        "{diagnosis:#}"
    );
    let after = world.cloud.ledger();
    assert_eq!(after.token_requests.len() - before.token_requests.len(), 4);
    assert_eq!(starts(&after), starts(&before));
    assert_no_violations(&after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_credential_is_one_finding_and_a_few_requests() {
    let scenario = (1..=20).fold(Scenario::new(602), |scenario, number| scenario.tenant(tenant(number, 1, 0.5)));
    let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    world.cloud.control().set_app(App::new(APP).secret("another"));
    let (code, diagnosis) = visit(&world, &[]);
    assert_eq!((code, only(&diagnosis).1), (Some(2), "certificate_unknown"));
    assert_eq!(findings(&diagnosis)[0]["tenants"].as_array().unwrap().len(), 20);
    let asked = world.cloud.ledger().token_requests.len();
    assert!(asked <= 4, "the app's alarm holds for all: {asked} requests");

    let mut daemon = world.run();
    let troubled = |status: &Value| {
        status["tenants"].as_array().unwrap().iter().all(|tenant| tenant["trouble"]["kind"] == "certificate_unknown")
    };
    let status = daemon.wait("all tenants are troubled", troubled).await;
    let before = world.cloud.ledger().token_requests.len();
    let (code, diagnosis) = visit(&world, &[]);
    let (link, _, told) = only(&diagnosis);
    assert_eq!((code, link, &told), (Some(2), "credential", &words(&status["tenants"][7]["trouble"])));
    assert_eq!(findings(&diagnosis)[0]["tenants"].as_array().unwrap().len(), 20);
    assert!(world.cloud.ledger().token_requests.len() <= before + 1);
    let text = String::from_utf8(world.tenantry(&["doctor"]).stdout).unwrap();
    assert!(text.starts_with("20 tenants: 0 well, 20 with trouble, 1 finding\n\ncredential: "), "{text}");
    assert!(text.contains("\n  AADSTS700027, correlation id ") && text.contains(" 10 more\n"), "{text}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_one_finding() {
    let scenario = (1..=3).fold(Scenario::new(603), |scenario, number| scenario.tenant(tenant(number, 1, 0.5)));
    let world = World::new(scenario, "");
    world.cloud.control().set_clock_offset_ms(-7_200_000);
    let (code, diagnosis) = visit(&world, &[]);
    let (link, kind, told) = only(&diagnosis);
    assert_eq!((code, link, kind), (Some(2), "clock", "clock"));
    assert!(
        told.starts_with("this host's clock is ") && told.contains(" ahead of Microsoft's\n  to do: set it right"),
        "{told}"
    );
    assert_eq!(findings(&diagnosis)[0]["tenants"].as_array().unwrap().len(), 3);
    assert!(world.cloud.ledger().token_requests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_on_the_way_is_one_finding_in_the_words_of_status() {
    let (ca, other) = (authority("Private Root"), authority("Corporate Inspection"));
    let (world, front) = network::world(604, &ca).await;
    let own = world.cloud.authority_url().strip_prefix("http://").unwrap().parse().unwrap();
    let between = crate::way::front(&other, network::LOGIN, own).await;
    let proxies =
        [("proxy", Proxy::start(front, Rule::Refuse).await), ("tls", Proxy::start(between, Rule::Lead).await)];
    let text = fs::read_to_string(&world.config).unwrap();
    let (code, diagnosis) = visit(&world, &[]);
    assert_eq!((code, only(&diagnosis).0), (Some(2), "dns"), "nobody knows that name: {diagnosis:#}");
    for (link, proxy) in &proxies {
        let named = format!("[network]\nproxy = \"http://{}\"\n", proxy.address);
        fs::write(&world.config, text.replace("[network]\n", &named)).unwrap();
        let (code, alone) = visit(&world, &[]);
        assert_eq!((code, only(&alone).0, only(&alone).1), (Some(2), *link, *link));
        let mut daemon = world.run();
        let status = daemon.wait("the trouble", |status| status["tenants"][0]["trouble"]["kind"] == *link).await;
        let (code, diagnosis) = visit(&world, &[]);
        assert_eq!((code, only(&diagnosis)), (Some(2), only(&alone)));
        assert_eq!(only(&diagnosis).2, words(&status["tenants"][0]["trouble"]));
        assert!(daemon.stop().await.success());
        fs::remove_dir_all(world.store()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_shows_half_a_minute_later_and_collecting_goes_on() {
    let world = World::new(Scenario::new(608).tenant(tenant(1, 2, 0.5)), "");
    let id: Uuid = tenant_id(1);
    world.cloud.control().withdraw_consent(id, APP);
    let mut daemon = world.run();
    daemon.wait("the consent is missing", |status| status["tenants"][0]["trouble"].is_object()).await;
    let (code, diagnosis) = visit(&world, &[]);
    assert_eq!((code, only(&diagnosis).0), (Some(2), "token"));
    world.cloud.control().grant(id, APP, &[ACTIVITY_READ]);
    // By itself the daemon would pause for five minutes.
    let start = Instant::now();
    while findings(&visit(&world, &[]).1).iter().any(|finding| finding["link"] == "token") {
        assert!(start.elapsed() < Duration::from_mins(1), "{}", daemon.log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    daemon.wait_collected(&world).await;
    let requests = world.cloud.ledger().token_requests;
    let gaps: Vec<_> = requests.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).as_secs()).collect();
    assert!(gaps.iter().all(|gap| *gap >= 29), "the floor holds for a doctor too: {gaps:?}");
    // Whoever catches up is behind, and the doctor says so.
    daemon
        .wait("nothing waits, and nothing is wrong", |status| {
            let tenant = &status["tenants"][0];
            tenant["queue"]["entries"] == 0 && tenant["trouble"].is_null()
        })
        .await;
    let (code, diagnosis) = visit(&world, &[]);
    assert_eq!(code, Some(0), "{diagnosis:#}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_daemon_meets_is_told_too() {
    let world = World::new(Scenario::new(610).tenant(tenant(1, 1, 0.5)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let control = world.cloud.control();
    let status = Effect::Status { status: 500, body: ErrorBody::Json, retry_after_s: None };
    control.add_fault(Fault::new(status).on([Endpoint::Blob]).content_type(ContentType::Exchange));
    control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).count(1).records(1));
    let status = daemon.wait("it is in trouble", |status| status["tenants"][0]["trouble"].is_object()).await;
    // The youngest blob, of which the doctor looks at the beginning, is of another content type.
    control.add_blobs(BlobSpec::new(tenant_id(1), ContentType::General).count(1).records(1));
    let (code, diagnosis) = visit(&world, &[]);
    let (link, _, told) = only(&diagnosis);
    assert_eq!((code, link), (Some(2), "collection"), "{diagnosis:#}");
    assert_eq!(told, words(&status["tenants"][0]["trouble"]));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_frees_the_doctor_and_a_stop_ends_the_visit() {
    let scenario = (1..=2).fold(Scenario::new(609), |scenario, number| scenario.tenant(tenant(number, 1, 0.5)));
    let world = World::new(scenario, "[daemon]\ndrain = \"1s\"\n");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let silence = Effect::Stall { at: Point::BeforeHeaders, for_ms: None };
    world.cloud.control().add_fault(Fault::new(silence).tenant(tenant_id(1)).on([Endpoint::Subscriptions]));
    let until = async |in_flight: u64| {
        let start = Instant::now();
        while world.cloud.ledger().tenants[&tenant_id(1)].in_flight != in_flight {
            assert!(start.elapsed() < PATIENCE, "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(0).await;
    let mut gone = world.command(&["doctor"]).stdout(Stdio::null()).spawn().unwrap();
    until(1).await;
    gone.kill().unwrap();
    gone.wait().unwrap();
    let start = Instant::now();
    until(0).await;
    assert_eq!(visit(&world, &["--tenant", "tenant-2"]).0, Some(0));
    assert!(start.elapsed() < Duration::from_secs(30), "a stalled answer is given up after a minute");

    let visitor = world.command(&["doctor"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until(1).await;
    assert!(daemon.stop().await.success());
    let output = visitor.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_collected_is_not_asked_and_who_cannot_be_is_named() {
    let scenario = (1..=3).fold(Scenario::new(610), |scenario, number| scenario.tenant(tenant(number, 1, 0.5)));
    let world = World::new(scenario, "");
    let named = |number: u32| (tenant_id(number), format!("tenant-{number}"));
    let other = format!("[apps.other]\nclient_id = \"{APP}\"\nclient_secret = \"s\"\n");
    world.configure(&[named(1), named(2)], &other);
    let mut daemon = world.run();
    daemon.wait("up to date", |status| status["tenants"][0]["stored_today"]["blobs"] == 4).await;
    let third = tenant_id(3).to_string();
    for arguments in [
        vec!["tenant", "pause", "tenant-2"],
        vec!["tenant", "add", &third, "--name", "third", "--cloud", "simulated", "--app", "other"],
    ] {
        let done = world.tenantry(&arguments);
        assert!(done.status.success(), "{done:?}");
    }
    // The app that it was added for goes.
    world.configure(&[named(1), named(2)], "");
    assert!(world.tenantry(&["reload"]).status.success());
    let check = |by_daemon: bool| {
        let (code, diagnosis) = visit(&world, &[]);
        assert_eq!((code, &diagnosis["daemon"]), (Some(2), &Value::Bool(by_daemon)), "{diagnosis:#}");
        let tenants = diagnosis["tenants"].as_array().unwrap();
        let enabled: Vec<_> = tenants.iter().map(|tenant| tenant["enabled"].as_bool().unwrap()).collect();
        assert_eq!((enabled, &diagnosis["tenants"][2]["id"]), (vec![true, false, false], &Value::from(third.as_str())));
        let (link, _, told) = only(&diagnosis);
        assert_eq!(link, "collection");
        assert!(told.contains("other"), "{told}");
        let text = String::from_utf8(world.tenantry(&["doctor"]).stdout).unwrap();
        assert!(
            text.starts_with("2 tenants: 1 well, 1 with trouble, 1 finding, 1 not collected\n\ncollection: "),
            "{text}"
        );
        assert!(text.contains("\ntenant-2: not collected\n"), "{text}");
    };
    check(true);
    assert!(daemon.stop().await.success());
    check(false);
}

/// One thing that is wrong with a tenant.
struct Case {
    name: String,
    tenant: Tenant,
    faults: Vec<Fault>,
    /// What the daemon has no trouble with, since it acts on it or waits it out.
    quiet: bool,
}

impl Case {
    /// Number and tenant go together.
    fn new(number: u32, name: impl Into<String>) -> Self {
        Self { name: name.into(), tenant: tenant(number, 2, 0.5).subscribed(), faults: Vec::new(), quiet: false }
    }

    fn fault(mut self, on: Endpoint, effect: Effect) -> Self {
        self.faults.push(Fault::new(effect).on([on]).tenant(self.tenant.id));
        self
    }

    fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    fn changed(self, change: impl FnOnce(Tenant) -> Tenant) -> Self {
        Self { tenant: change(self.tenant), ..self }
    }
}

/// Every code of the table in `src/token/entra.rs`, and what has none.
fn entra() -> Vec<Case> {
    #[rustfmt::skip]
    const CODES: [u32; 61] = [
        // The app's.
        7_000_215, 7_000_222, 700_027, 50_012, 700_030, 700_024, 50_027, 700_021, 700_023, 7_000_218, 7_000_216, 650_051,
        650_056, 50_194, 50_011, 700_211, 700_212, 700_213, 7_002_137, 7_002_138, 70_021, 70_011, 1_002_012, 901_002, 50_049,
        // The tenant's.
        700_016, 70_001, 1_000_031, 7_000_229, 65_001, 90_002, 900_023, 90_038, 900_382, 900_432, 500_011, 50_001, 650_052,
        65_004, 90_094, 53_003, 530_032, 530_034, 53_011, 7_000_112, 50_034, 50_020, 50_059, 54_005, 70_008, 700_005, 501_481,
        // Nobody's for long.
        90_033, 50_033, 90_006, 90_012, 90_024, 90_090, 90_091, 50_087, 90_055,
    ];
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let codes = (1..).zip(CODES).map(|(number, code)| {
        let effect = Effect::Entra { code, retry_after_s: None };
        Case::new(number, format!("AADSTS{code}")).fault(Endpoint::Token, effect)
    });
    let others = [
        ("AADSTS50196", Effect::Entra { code: 50_196, retry_after_s: None }),
        ("a code that is in no table", Effect::Entra { code: 99_999, retry_after_s: None }),
        ("429 in plain text", Effect::Throttled(Throttle { shape: ThrottleShape::PlainText, retry_after_s: Some(60) })),
        ("503 with HTML", status(503, ErrorBody::Html)),
        ("502 without a body", status(502, ErrorBody::Empty)),
        ("a page of something on the way", Effect::ProxyPage),
        ("a redirect", Effect::Redirect { status: 302 }),
    ];
    let others =
        (101..).zip(others).map(|(number, (name, effect))| Case::new(number, name).fault(Endpoint::Token, effect));
    codes.chain(others).collect()
}

/// Each situation of the Activity API that was seen, by status and code.
fn activity() -> Vec<Case> {
    use Endpoint::{Blob, List, Start, Subscriptions};
    let af = |code: &str, status, message: Option<&str>| Effect::Af {
        code: code.to_owned(),
        status,
        message: message.map(str::to_owned),
    };
    let usual = |code: &str| af(code, 400, None);
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let throttled = |shape| Effect::Throttled(Throttle { shape, retry_after_s: Some(20) });
    let cooldown = "Too many frequent subscription start requests. Please retry again after 8m 46s";
    let off = |number: u32| {
        let exception = "Microsoft.Office.Compliance.Audit.DataServiceException";
        let told = format!("{exception}: Tenant {} does not exist.\r\n   at X", tenant_id(number));
        af(
            "StartSubscription [CorrId=6d4f8a6e-d3e5-4c8b-9d39-aaaaaaaaaaaa] failed. Exception: Micros",
            400,
            Some(&told),
        )
    };
    let unsubscribed = |tenant: Tenant| Tenant { subscribed: Vec::new(), ..tenant };
    vec![
        Case::new(201, "AF20024, already enabled").fault(Start, usual("AF20024")).quiet(),
        Case::new(202, "cool-down, 429").changed(unsubscribed).fault(Start, af("AF429", 429, Some(cooldown))).quiet(),
        Case::new(203, "cool-down, 403").changed(unsubscribed).fault(Start, af("429", 403, Some(cooldown))).quiet(),
        Case::new(204, "AF429 in 403").fault(List, throttled(ThrottleShape::Forbidden)),
        Case::new(205, "AF429 in 429").fault(List, throttled(ThrottleShape::TooManyRequests)),
        Case::new(206, "429 in words").fault(List, throttled(ThrottleShape::Sentence)),
        Case::new(207, "AF20022").fault(List, usual("AF20022")).fault(Start, af("AF429", 429, Some(cooldown))),
        Case::new(208, "AF20023").fault(List, usual("AF20023")).fault(Start, af("AF429", 429, Some(cooldown))),
        Case::new(209, "audit log off, at the start")
            .changed(unsubscribed)
            .changed(|tenant| Tenant { audit_log: false, ..tenant }),
        Case::new(210, "audit log off, at once").fault(Subscriptions, off(210)),
        Case::new(211, "AF10001, no role").changed(|tenant| tenant.consent(APP, &[])),
        Case::new(212, "401 without a code").fault(Subscriptions, Effect::Denied),
        Case::new(213, "AF20010").fault(Subscriptions, usual("AF20010")),
        Case::new(214, "AF20011").fault(Subscriptions, usual("AF20011")),
        Case::new(215, "AF20012").fault(Subscriptions, usual("AF20012")),
        Case::new(216, "AF20013").fault(Subscriptions, usual("AF20013")),
        Case::new(217, "AF20001").fault(Subscriptions, usual("AF20001")),
        Case::new(218, "AF20002").fault(Subscriptions, usual("AF20002")),
        Case::new(219, "AF20020").fault(List, usual("AF20020")),
        Case::new(220, "AF20030").fault(List, usual("AF20030")),
        Case::new(221, "AF20055").fault(List, usual("AF20055")),
        Case::new(222, "AF20031").fault(List, usual("AF20031")),
        Case::new(223, "AF20050").fault(Blob, usual("AF20050")).quiet(),
        Case::new(224, "AF20051").fault(Blob, usual("AF20051")).quiet(),
        Case::new(225, "404 on a blob").fault(Blob, status(404, ErrorBody::Html)),
        Case::new(226, "AF50000").fault(Subscriptions, af("AF50000", 500, None)),
        Case::new(227, "AF50005").fault(List, af("AF50005", 500, None)),
        Case::new(228, "AF50006 on a blob").fault(Blob, af("AF50006", 500, None)),
        Case::new(229, "408").fault(Subscriptions, status(408, ErrorBody::Empty)),
        Case::new(230, "503 with HTML").fault(Subscriptions, status(503, ErrorBody::Html)),
        Case::new(231, "503 on a blob").fault(Blob, status(503, ErrorBody::Empty)),
        Case::new(232, "403 without a code").fault(Subscriptions, status(403, ErrorBody::Html)),
        Case::new(233, "404").fault(Subscriptions, status(404, ErrorBody::Html)),
        Case::new(234, "a page of something on the way").fault(Subscriptions, Effect::ProxyPage),
        Case::new(235, "a redirect").fault(List, Effect::Redirect { status: 302 }),
        Case::new(236, "a code that is in no table").fault(Subscriptions, usual("AF29999")),
    ]
}

/// A world in which each case's tenant has an app registration of its own, so that none speaks for another.
fn world_of(seed: u64, cases: &[Case]) -> World {
    let scenario = cases.iter().fold(Scenario::new(seed), |scenario, case| scenario.tenant(case.tenant.clone()));
    let scenario =
        cases.iter().flat_map(|case| &case.faults).fold(scenario, |scenario, fault| scenario.fault(fault.clone()));
    let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    let mut text = fs::read_to_string(&world.config).unwrap();
    for case in cases {
        let name = format!("name = \"{}\"\n", case.tenant.name);
        text = text.replace(&name, &format!("{name}app = \"{}\"\n", case.tenant.name));
        let publisher = crate::world::PUBLISHER;
        write!(
            text,
            "[apps.{}]\nclient_id = \"{APP}\"\npublisher_id = \"{publisher}\"\ncertificate_file = \"app.crt\"\n\
             private_key_file = \"app.key\"\n",
            case.tenant.name
        )
        .unwrap();
    }
    fs::write(&world.config, text).unwrap();
    world
}

/// Of each tenant, by its id, what is wrong with it.
fn by_tenant(diagnosis: &Value) -> BTreeMap<String, Value> {
    let of = |finding: &Value| {
        let tenants: Vec<_> = finding["tenants"].as_array().unwrap().clone();
        tenants.into_iter().map(|tenant| tenant["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    findings(diagnosis).iter().flat_map(|finding| of(finding).into_iter().map(|id| (id, finding.clone()))).collect()
}

/// What the doctor says of a case.
fn told_of(case: &Case, found: &BTreeMap<String, Value>) -> String {
    let Some(finding) = found.get(&case.tenant.id.to_string()) else { return "  all well\n".to_owned() };
    let passing = if finding["needs_operator"] == false { "\n  may pass by itself" } else { "" };
    let code = finding["code"].as_str().map_or_else(String::new, |code| format!("\n  {code}"));
    format!("  {}: {}{code}{passing}\n", finding["link"].as_str().unwrap(), words(finding))
}

/// Of each case, what the doctor says by the daemon, and without it where that is something else. What differs from run
/// to run is left out.
fn told(world: &World, cases: &[Case], by_daemon: &BTreeMap<String, Value>, alone: &BTreeMap<String, Value>) -> String {
    let checked = String::from_utf8(world.tenantry(&["check"]).stdout).unwrap();
    let thumbprint = checked.lines().find_map(|line| line.strip_prefix("#   SHA-1   ")).unwrap();
    let plain = |text: String| {
        let text = text.replace(&world.cloud.authority_url(), "https://authority").replace(thumbprint, "THUMBPRINT");
        let text = text.replace(&world.cloud.foreign_url(), "https://foreign");
        // By whose clock it is signed depends on whether an answer came before.
        without_times(&text).replace("by this host's clock it was good", "by Microsoft's time it was good")
    };
    let mut text = String::new();
    for case in cases {
        let (with, without) = (plain(told_of(case, by_daemon)), plain(told_of(case, alone)));
        writeln!(text, "{}\n{with}", case.name).unwrap();
        if with != without {
            writeln!(text, "{}, without the daemon\n{without}", case.name).unwrap();
        }
    }
    text
}

/// The text with `TIME` for each `2026-11-22T12:00:00Z` in it.
fn without_times(text: &str) -> String {
    let shape = |part: &str| {
        let like = "0000-00-00T00:00:00Z";
        part.len() == like.len()
            && part.chars().zip(like.chars()).all(|(c, like)| if like == '0' { c.is_ascii_digit() } else { c == like })
    };
    let mut plain = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.get(..20).is_some_and(shape) {
            plain.push_str("TIME");
            rest = &rest[20..];
        } else {
            let next = rest.chars().next().unwrap();
            plain.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    plain
}

/// The doctor names what is wrong, without a daemon and by it, and `status` has the same words.
async fn assert_named(seed: u64, cases: Vec<Case>, kept: &str) {
    let world = world_of(seed, &cases);
    let (code, alone) = visit(&world, &[]);
    assert_eq!(code, Some(2));
    let alone = by_tenant(&alone);
    let mut daemon = world.run();
    let loud = |case: &&Case| !case.quiet;
    let ids: Vec<_> = cases.iter().filter(loud).map(|case| case.tenant.id.to_string()).collect();
    let troubles = |status: &Value| -> BTreeMap<String, Value> {
        let tenants = status["tenants"].as_array().unwrap().iter();
        let troubled = tenants.filter(|tenant| tenant["trouble"].is_object());
        troubled.map(|tenant| (tenant["id"].as_str().unwrap().to_owned(), tenant["trouble"].clone())).collect()
    };
    let status = daemon
        .wait("every tenant has its trouble", |status| {
            let troubles = troubles(status);
            ids.iter().all(|id| troubles.contains_key(id))
        })
        .await;
    let (code, by_daemon) = visit(&world, &[]);
    assert_eq!(code, Some(2));
    let (by_daemon, status) = (by_tenant(&by_daemon), troubles(&status));
    let mut wrong = Vec::new();
    for case in cases.iter().filter(loud) {
        let id = case.tenant.id.to_string();
        let [doctor, status] = [&by_daemon, &status].map(|told| told.get(&id).map(words).unwrap_or_default());
        let (doctor, status) = (without_times(&doctor), without_times(&status));
        if doctor != status {
            wrong.push(format!("{}:\nthe doctor {doctor}\nstatus {status}\n", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(daemon.stop().await.success());
    assert_kept(kept, &told(&world, &cases, &by_daemon, &alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_entra_is_named() {
    assert_named(605, entra(), "doctor-entra.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_situation_of_the_activity_api_is_named() {
    assert_named(606, activity(), "doctor-activity.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_disabled_at_microsoft_is_named_with_its_content_type() {
    let world = World::new(Scenario::new(607).tenant(tenant(1, 2, 0.5).subscribed()), "");
    let id: Uuid = tenant_id(1);
    world.cloud.control().set_subscription(id, ContentType::General, SubscriptionStatus::Disabled);
    let (code, diagnosis) = visit(&world, &[]);
    let (link, kind, told) = only(&diagnosis);
    assert_eq!((code, link, kind), (Some(2), "subscriptions", "subscription_disabled"));
    assert!(told.starts_with("Audit.General: the subscription for this content type was disabled"), "{told}");
    assert_eq!(starts(&world.cloud.ledger()), 0);
}
