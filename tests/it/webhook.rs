//! Notifications: they make content come earlier, and nothing depends on them; whoever forges one achieves nothing.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use reqwest::tls::Certificate;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tenantry_simulator::{BlobSpec, ContentType, Der, Endpoint, HookChange, HookSeen, Host, Scenario};
use uuid::Uuid;

use crate::world::{APP, Daemon, PATIENCE, World, tenant, tenant_id};

const CONTOSO: u32 = 1;
const FABRIKAM: u32 = 2;
const EXCHANGE: ContentType = ContentType::Exchange;
/// Nothing is listed again within a test.
pub(crate) const SLOW: &str = "[collect]\npoll_interval = \"1h\"\noverlap = \"1m\"\nrecent_interval = \"6h\"\nrecent_span = \"24h\"\nsweep_interval = \"3d\"\n";
const KEY: &str = "5f0c1b7a9d3e4826a1c4f7b2e8d6039c";

/// A cloud whose tenants are subscribed, and a daemon that it can notify.
pub(crate) struct House {
    pub(crate) world: World,
    pub(crate) url: String,
    certificate: String,
}

impl House {
    pub(crate) fn new(seed: u64, tenants: u32, collect: &str) -> Self {
        Self::with(seed, tenants, collect, |_| {})
    }

    /// The same in a cloud that `change` has changed.
    fn with(seed: u64, tenants: u32, collect: &str, change: impl FnOnce(&mut Scenario)) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("https://localhost:{port}");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut scenario = (1..=tenants)
            .fold(Scenario::new(seed), |scenario, number| scenario.tenant(tenant(number, 2, 0.1).subscribed()));
        scenario.service.notices.roots = vec![Der(certificate.der().to_vec())];
        // A second is enough to see that it is heeded.
        scenario.service.start_cooldown_s = 1;
        change(&mut scenario);
        let extra = format!(
            "{collect}[operator]\nlisten = \"127.0.0.1:0\"\n[public]\nlisten = \"127.0.0.1:{port}\"\nurl = \"{url}\"\n\
             certificate_file = \"hook.pem\"\nwebhook_key_file = \"hook.key\"\n"
        );
        let world = World::new(scenario, &extra);
        fs::write(world.dir.path().join("hook.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
        fs::write(world.dir.path().join("hook.key"), KEY).unwrap();
        Self { world, url, certificate: certificate.pem() }
    }

    pub(crate) fn hook(&self, number: u32, content_type: ContentType) -> Option<HookSeen> {
        self.world.cloud.control().hook(tenant_id(number), content_type).filter(|hook| hook.status == "enabled")
    }

    /// Starts the daemon and waits until all is collected and all is hooked.
    pub(crate) async fn run(&self, tenants: u32) -> Daemon {
        let mut daemon = self.world.run();
        daemon.wait_collected(&self.world).await;
        daemon
            .wait("every subscription has its webhook", |_| {
                (1..=tenants).all(|number| ContentType::AUDIT.iter().all(|of| self.hook(number, *of).is_some()))
            })
            .await;
        daemon
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the ban keeps requests to Microsoft in one place; this is a test's own"
    )]
    pub(crate) fn client(&self) -> Client {
        let trusted = Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([trusted]).build().unwrap()
    }

    async fn post(&self, client: &Client, auth_id: Option<&str>, body: String) -> (StatusCode, String) {
        let mut request = client.post(format!("{}/webhook", self.url)).body(body);
        if let Some(auth_id) = auth_id {
            request = request.header("Webhook-AuthID", auth_id);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// An entry as Microsoft would write it.
    fn entry(&self, id: &str) -> Value {
        self.entry_of(CONTOSO, id)
    }

    pub(crate) fn entry_of(&self, number: u32, id: &str) -> Value {
        let tenant = tenant_id(number);
        let management = self.world.cloud.url();
        json!({
            "tenantId": tenant,
            "clientId": APP,
            "contentType": "Audit.Exchange",
            "contentId": id,
            "contentUri": format!("{management}/api/v1.0/{tenant}/activity/feed/audit/{id}"),
            "contentCreated": self.world.cloud.ledger().at,
            "contentExpiration": "2099-01-01T00:00:00.000Z",
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
pub(crate) async fn counted(daemon: &Daemon, outcome: &str) -> u64 {
    let url = format!("{}/metrics", daemon.operator().await);
    let text = Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap().text().await.unwrap();
    let name = format!("tenantry_notifications_total{{outcome=\"{outcome}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .unwrap_or_else(|| panic!("no {name}\n{text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn content_comes_by_notification_long_before_it_is_listed() {
    let house = House::new(61, 1, SLOW);
    let mut daemon = house.run(1).await;
    let listings = |house: &House| house.world.cloud.ledger().tenants[&tenant_id(CONTOSO)].requests[&Endpoint::List];
    let listed = listings(&house);
    for content_type in ContentType::AUDIT {
        house.world.cloud.control().add_blobs(BlobSpec::new(tenant_id(CONTOSO), content_type).count(3).records(2));
    }
    daemon.wait_collected(&house.world).await;
    assert_eq!(listings(&house), listed, "nothing was listed meanwhile");
    assert_eq!(counted(&daemon, "queued").await, 12);
    assert_eq!(counted(&daemon, "validation").await, 4);
    let log = daemon.log();
    let hook = house.hook(CONTOSO, EXCHANGE).unwrap();
    let (_, tag) = hook.auth_id.as_deref().unwrap().split_once('.').unwrap();
    assert!(!log.contains(tag) && !log.contains(KEY), "a secret is in the log");
    // What listings find afterwards is known.
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn losing_every_notification_loses_no_record() {
    let house = House::new(62, 1, "[collect]\npoll_interval = \"1s\"\n");
    let mut daemon = house.run(1).await;
    house.world.cloud.control().set_notices(true, Duration::ZERO);
    for content_type in ContentType::AUDIT {
        house.world.cloud.control().add_blobs(BlobSpec::new(tenant_id(CONTOSO), content_type).count(5).records(3));
    }
    daemon.wait_collected(&house.world).await;
    assert_eq!(counted(&daemon, "queued").await, 0);
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn late_notifications_of_what_polling_has_found_store_nothing_twice() {
    let house = House::new(63, 1, "[collect]\npoll_interval = \"1s\"\n");
    let mut daemon = house.run(1).await;
    house.world.cloud.control().set_notices(true, Duration::ZERO);
    let numbers =
        house.world.cloud.control().add_blobs(BlobSpec::new(tenant_id(CONTOSO), EXCHANGE).count(5).records(3));
    let ledger = daemon.wait_collected(&house.world).await;
    let (client, auth_id) = (house.client(), house.hook(CONTOSO, EXCHANGE).unwrap().auth_id.unwrap());
    let named = |number: &u64| house.entry(&ledger.blobs[usize::try_from(*number).unwrap()].content_id);
    let notification = Value::from(numbers.iter().map(named).collect::<Vec<_>>()).to_string();
    for times in 1..=2 {
        let (status, _) = house.post(&client, Some(&auth_id), notification.clone()).await;
        assert_eq!((status, counted(&daemon, "known").await), (StatusCode::OK, 5 * times));
    }
    assert_eq!(counted(&daemon, "queued").await, 0);
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn when_all_notifications_come_late_nothing_is_lost_or_stored_twice() {
    let house = House::new(69, 1, "[collect]\npoll_interval = \"1s\"\n");
    let mut daemon = house.run(1).await;
    let control = house.world.cloud.control();
    control.set_notices(false, Duration::from_hours(1));
    for content_type in ContentType::AUDIT {
        control.add_blobs(BlobSpec::new(tenant_id(CONTOSO), content_type).count(3).records(3));
    }
    // Polling has all of it before the first of them comes.
    daemon.wait_collected(&house.world).await;
    control.set_notices(false, Duration::ZERO);
    let start = Instant::now();
    while counted(&daemon, "known").await < 12 {
        assert!(start.elapsed() < PATIENCE, "they do not come\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(counted(&daemon, "queued").await, 0, "polling was earlier");
    let status = daemon.status().await.unwrap();
    assert_eq!(status["tenants"][0]["queue"]["entries"], 0, "{status:#}");
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn an_auth_id_that_is_not_shown_as_it_is_does_not_have_the_webhook_registered_again_and_again() {
    let hasty = "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"1s\"\nsweep_interval = \"1s\"\n";
    for (seed, shown) in [(701, "7e4a****"), (702, "0f3c9b5d7a")] {
        let house = House::with(seed, 1, hasty, |scenario| {
            scenario.service.notices.hidden_auth_id = Some(shown.to_owned());
        });
        let asked = |on| house.world.cloud.ledger().tenants[&tenant_id(CONTOSO)].requests[&on];
        let mut daemon = house.run(1).await;
        let looked = asked(Endpoint::Subscriptions);
        daemon.wait("it looks again and again", |_| asked(Endpoint::Subscriptions) >= looked + 5).await;
        assert_eq!(asked(Endpoint::Start), 4, "one for each content type, where `{shown}` is shown");
        house.world.cloud.control().change_hook(tenant_id(CONTOSO), EXCHANGE, HookChange::Null);
        daemon.wait("the webhook is back", |_| house.hook(CONTOSO, EXCHANGE).is_some()).await;
        assert!(daemon.stop().await.success());
        house.world.assert_collected();
    }
}

#[tokio::test]
async fn a_start_that_never_reached_microsoft_may_be_asked_for_again_at_once() {
    let house = House::new(703, 1, SLOW);
    let daemon = house.run(1).await;
    let start = || {
        let output = house.world.tenantry(&["subscription", "start", "tenant-1", "DLP.All"]);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let control = house.world.cloud.control();
    for _ in 0..2 {
        control.set_reachable(Host::Management, false);
        let (code, told) = start();
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("Microsoft did not do it"), "{told}");
        control.set_reachable(Host::Management, true);
    }
    let (code, told) = start();
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = start();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("15 minutes between two"), "{told}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_webhook_that_was_nulled_disabled_or_has_ended_is_asked_for_again() {
    // The hourly look and the quarter of an hour between two starts are as short as a sweep's interval, on loopback.
    let hasty = "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"3s\"\nsweep_interval = \"3s\"\n";
    let house = House::new(64, 1, hasty);
    let mut daemon = house.run(1).await;
    for change in [HookChange::Null, HookChange::Disable, HookChange::Expire] {
        house.world.cloud.control().change_hook(tenant_id(CONTOSO), EXCHANGE, change);
        assert_eq!(house.hook(CONTOSO, EXCHANGE), None);
        // Nobody is told of these.
        house.world.cloud.control().add_blobs(BlobSpec::new(tenant_id(CONTOSO), EXCHANGE).count(3).records(2));
        daemon.wait("the webhook is back", |_| house.hook(CONTOSO, EXCHANGE).is_some()).await;
    }
    daemon.wait_collected(&house.world).await;
    assert!(daemon.log().contains("before=\"disabled\""), "{}", daemon.log());
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn whoever_forges_a_notification_finds_nothing_there() {
    let house = House::new(65, 2, SLOW);
    let mut daemon = house.run(2).await;
    let client = house.client();
    let auth_id = house.hook(CONTOSO, EXCHANGE).unwrap().auth_id.unwrap();
    let other = house.hook(FABRIKAM, EXCHANGE).unwrap().auth_id.unwrap();
    let (_, tag) = auth_id.split_once('.').unwrap();
    let nobody = format!("{}.{tag}", Uuid::from_u128(7));
    let swapped = format!("{}.{tag}", tenant_id(FABRIKAM));
    let id = "20261126000000000000001$20261126000000000000001$audit_exchange$Audit_Exchange$emea0001";
    let good = || house.entry(id);
    let with = |name: &str, value: Value| {
        let mut entry = good();
        entry[name] = value;
        json!([good(), entry]).to_string()
    };
    let (management, foreign) = (house.world.cloud.url(), house.world.cloud.foreign_url());
    let uri = good()["contentUri"].as_str().unwrap().to_owned();
    let of_other = uri.replace(&tenant_id(CONTOSO).to_string(), &tenant_id(FABRIKAM).to_string());
    let plain = json!([good()]).to_string();
    let cases = [
        ("unproven", None, plain.clone()),
        ("unproven", Some(""), plain.clone()),
        ("unproven", Some("o365activityapinotification"), plain.clone()),
        ("unproven", Some(nobody.as_str()), plain.clone()),
        ("unproven", Some(swapped.as_str()), plain.clone()),
        ("stranger", Some(other.as_str()), plain.clone()),
        ("stranger", Some(auth_id.as_str()), with("tenantId", json!(tenant_id(FABRIKAM)))),
        ("stranger", Some(&auth_id), with("tenantId", json!(Uuid::from_u128(7)))),
        ("stranger", Some(&auth_id), with("clientId", json!(Uuid::from_u128(7)))),
        ("stranger", Some(&auth_id), with("clientId", Value::Null)),
        ("foreign_uri", Some(&auth_id), with("contentUri", json!(uri.replace(&management, &foreign)))),
        ("foreign_uri", Some(&auth_id), with("contentUri", json!(uri.replace("http://", "http://x@")))),
        ("foreign_uri", Some(&auth_id), with("contentUri", json!(of_other))),
        ("foreign_uri", Some(&auth_id), with("contentUri", json!(uri.replace("$emea", "$na")))),
        ("malformed", Some(&auth_id), with("contentCreated", json!("2020-01-01T00:00:00Z"))),
        ("malformed", Some(&auth_id), with("contentId", Value::Null)),
        ("malformed", Some(&auth_id), format!("[{}]", vec![good().to_string(); 1001].join(","))),
        ("malformed", Some(&auth_id), format!("[{}]", " ".repeat(600 << 10))),
        ("malformed", Some(&auth_id), plain[..plain.len() - 1].to_owned()),
        ("malformed", Some(&auth_id), good().to_string()),
        ("malformed", Some(&auth_id), json!({"validationCode": "x"}).to_string()),
    ];
    let nothing = client.get(format!("{}/no-such-page", house.url)).send().await.unwrap().text().await.unwrap();
    for (outcome, auth_id, body) in &cases {
        let before = counted(&daemon, outcome).await;
        let (status, text) = house.post(&client, *auth_id, body.clone()).await;
        assert_eq!((status, &text), (StatusCode::NOT_FOUND, &nothing), "{outcome}: {auth_id:?} {body:.200}");
        assert_eq!(counted(&daemon, outcome).await, before + 1, "{outcome}: {auth_id:?} {body:.200}");
    }
    let got = client.get(format!("{}/webhook", house.url)).send().await.unwrap();
    assert_eq!(got.status(), StatusCode::NOT_FOUND);
    let status = daemon.status().await.unwrap();
    for tenant in status["tenants"].as_array().unwrap() {
        assert_eq!((&tenant["queue"]["entries"], &tenant["dead_letters"]), (&json!(0), &json!(0)), "{status:#}");
    }
    assert_eq!(counted(&daemon, "queued").await, 0);
    let ledger = house.world.cloud.ledger();
    assert_eq!(ledger.foreign_requests, 0);
    assert!(!ledger.requests.iter().any(|seen| seen.request.contains(&id[..23])), "it was asked for");

    // Content of a type that is not collected is passed over, and Microsoft is told that all is well.
    let mut dlp = good();
    dlp["contentType"] = json!("DLP.All");
    let (status, _) = house.post(&client, Some(&auth_id), json!([dlp]).to_string()).await;
    assert_eq!((status, counted(&daemon, "not_collected").await), (StatusCode::OK, 1));
    daemon.wait("it is still well", |status| status["tenants"][0]["state"] == "collecting").await;
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test]
async fn what_only_a_notification_names_is_dropped_without_a_dead_letter() {
    let house = House::new(66, 1, SLOW);
    let mut daemon = house.run(1).await;
    let client = house.client();
    let auth_id = house.hook(CONTOSO, EXCHANGE).unwrap().auth_id.unwrap();
    let id = "20261126000000000000002$20261126000000000000002$audit_exchange$Audit_Exchange$emea0002";
    let (status, text) = house.post(&client, Some(&auth_id), json!([house.entry(id)]).to_string()).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, ""));
    daemon.wait("it was queued", |status| status["tenants"][0]["queue"]["entries"] == 1).await;
    // What is acknowledged is durable: the next process knows of it.
    daemon.kill();
    let mut daemon = house.world.run();
    daemon.wait("it is dropped", |status| status["tenants"][0]["queue"]["entries"] == 0).await;
    let start = Instant::now();
    while counted(&daemon, "unlisted").await == 0 {
        assert!(start.elapsed() < PATIENCE, "it is not counted\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.status().await.unwrap()["tenants"][0]["dead_letters"], 0);
    assert!(!daemon.log().contains("given up"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_notifications_takes_no_memory_and_keeps_nobody_waiting() {
    let house = House::new(67, 2, SLOW);
    let mut daemon = house.run(2).await;
    let client = house.client();
    let auth_id = house.hook(CONTOSO, EXCHANGE).unwrap().auth_id.unwrap();
    let before = resident_mib(&daemon);
    let flood = |proof: Option<String>, number: u64| {
        let (client, url, entry) = (client.clone(), format!("{}/webhook", house.url), house.entry("ID"));
        tokio::spawn(async move {
            let mut statuses = std::collections::BTreeMap::<u16, u64>::new();
            let text = entry.to_string();
            for turn in 0_u64.. {
                let named = |of: u64| {
                    let name = format!("{number}x{turn}x{of}");
                    text.replace("ID\"", &format!("{name}$a$audit_exchange$Audit_Exchange\""))
                };
                let body = format!("[{}]", (0..100).map(named).collect::<Vec<_>>().join(","));
                let mut request = client.post(&url).body(body);
                if let Some(proof) = &proof {
                    request = request.header("Webhook-AuthID", proof);
                }
                let Ok(answer) = request.send().await else { break };
                *statuses.entry(answer.status().as_u16()).or_default() += 1;
            }
            statuses
        })
    };
    let floods: Vec<_> = (0..6).map(|number| flood((number < 4).then(|| auth_id.clone()), number)).collect();
    let other = tenant_id(FABRIKAM);
    let start = Instant::now();
    // At least three times, the last of them while notifications are put off.
    for round in 0.. {
        let put_off = counted(&daemon, "busy").await > 0;
        assert!(start.elapsed() < PATIENCE, "nothing was put off\n{}", daemon.log());
        house.world.cloud.control().add_blobs(BlobSpec::new(other, EXCHANGE).count(3).records(2));
        let expected = house.world.cloud.ledger().offered(other).count();
        daemon
            .wait("the other tenant's content comes", |status| {
                let tenants = status["tenants"].as_array().unwrap();
                let of = tenants.iter().find(|tenant| tenant["id"] == other.to_string()).unwrap();
                of["stored_today"]["blobs"] == json!(expected)
            })
            .await;
        if round >= 2 && put_off {
            break;
        }
    }
    let after = resident_mib(&daemon);
    assert!(after < before + 150, "from {before} MiB to {after} MiB");
    let status = daemon.status().await.unwrap();
    let queued = status["tenants"][0]["queue"]["entries"].as_u64().unwrap();
    assert!(queued <= 12_000, "{queued} entries are queued");
    assert!(counted(&daemon, "unproven").await > 0);
    for flood in floods {
        flood.abort();
    }
    daemon.kill();
}

#[tokio::test]
async fn an_operator_looks_after_subscriptions_and_reads_the_history() {
    let house = House::new(68, 1, "[collect]\npoll_interval = \"1s\"\n");
    let ends = |arguments: &[&str], code: i32, told: &str| {
        let output = house.world.tenantry(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(told), "{arguments:?}: {text}");
        text
    };
    ends(&["subscription", "list", "tenant-1"], 69, "no daemon is running");
    let mut daemon = house.run(1).await;
    let listed = ends(&["subscription", "list", "tenant-1", "--json"], 0, "serves");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 4);
    for subscription in listed.as_array().unwrap() {
        let (webhook, of) = (&subscription["webhook"], &subscription["content_type"]);
        assert_eq!((&subscription["enabled"], &subscription["collected"]), (&json!(true), &json!(true)), "{of}");
        assert_eq!((&webhook["serves"], &webhook["status"]), (&json!(true), &json!("enabled")), "{of}");
        assert!(webhook.get("auth_id").is_none(), "a secret is shown: {webhook}");
    }
    ends(&["subscription", "list", "tenant-1"], 0, "enabled, ours");

    // What is collected is neither stopped nor started again at once; what is not is in the operator's hand.
    ends(&["subscription", "stop", "tenant-1", "Audit.Exchange"], 1, "since its content is collected");
    ends(&["subscription", "start", "tenant-1", "Audit.Exchange"], 1, "15 minutes between two");
    ends(&["subscription", "stop", "tenant-1", "DLP.All"], 1, "Microsoft did not do it");
    ends(&["subscription", "start", "tenant-1", "DLP.All", "--webhook"], 0, "is started");
    assert!(house.hook(CONTOSO, ContentType::Dlp).is_some());
    ends(&["subscription", "start", "tenant-1", "DLP.All"], 1, "15 minutes between two");
    ends(&["subscription", "stop", "tenant-1", "DLP.All"], 0, "is stopped");
    ends(&["subscription", "start", "nobody", "DLP.All"], 64, "nobody");
    ends(&["subscription", "start", "tenant-1", "Audit.Everything"], 64, "is not a content type");

    ends(&["notifications", "tenant-1", "Audit.Exchange"], 0, "no such attempts");
    house.world.cloud.control().add_blobs(BlobSpec::new(tenant_id(CONTOSO), EXCHANGE).count(3).records(1));
    daemon.wait_collected(&house.world).await;
    let start = Instant::now();
    let history = loop {
        let text = ends(&["notifications", "tenant-1", "Audit.Exchange", "--json"], 0, "");
        let history: Value = serde_json::from_str(&text).unwrap();
        if history.as_array().unwrap().len() == 3 {
            break history;
        }
        assert!(start.elapsed() < PATIENCE, "{history:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(history.as_array().unwrap().iter().all(|attempt| attempt["status"] == "success"), "{history:#}");
    ends(&["notifications", "tenant-1", "Audit.Exchange", "--failed"], 0, "no such attempts");
    ends(&["notifications", "tenant-1", "Audit.Exchange", "--since", "7d"], 0, "success");
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

/// The resident memory of the daemon.
fn resident_mib(daemon: &Daemon) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}
