//! A thousand notifications a second: of many tenants that are honest, of one that knows no measure, and forged ones.
//!
//! Honest ones are all taken, whoever else calls; nothing that is forged is stored or asked for; nothing is lost; memory
//! does not grow with the flood. By default for a few seconds; `TENANTRY_TEST_FLOOD_SECONDS=60` is the whole of it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tenantry_simulator::{BlobSpec, ContentType};
use uuid::Uuid;

use crate::skip;
use crate::webhook::{House, SLOW, counted};
use crate::world::{Daemon, PATIENCE, tenant_id};

const EXCHANGE: ContentType = ContentType::Exchange;
const VARIABLE: &str = "TENANTRY_TEST_FLOOD_SECONDS";
/// Without the variable.
const SHORT: u64 = 8;
/// Notifications a second, all in all.
const RATE: u64 = 1_000;
/// Callers, each with a connection of its own.
const CALLERS: u64 = 96;
/// Tenants whose notifications are honest, the first of all: 15 a second each.
const HONEST: u32 = 40;
/// One that notifies far more than it may.
const GREEDY: u32 = HONEST + 1;
/// One in whose name everything is wrong.
const FORGED: u32 = HONEST + 2;
/// One that is quiet, and expects its content all the same.
const QUIET: u32 = HONEST + 3;
/// New blobs a second, of all honest tenants together; the other honest notifications say again what is known, as Microsoft
/// does that retries.
const NEW: u64 = 100;
/// MiB that the flood may add.
const MEMORY: u64 = 96;

/// What one notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Honest,
    Greedy,
    /// Without a proof, or with one that is nobody's.
    Unproven,
    /// With the proof of one tenant, and wrong in some way.
    Forged,
}

impl Kind {
    /// Of a thousand in a row, 590 are honest, 200 of the greedy tenant, 200 unproven and 10 forged with a proof.
    fn of(number: u64) -> Self {
        match number % 100 {
            0 => Self::Forged,
            n if n % 5 < 3 => Self::Honest,
            n if n % 5 == 3 => Self::Greedy,
            _ => Self::Unproven,
        }
    }
}

/// What all callers share.
struct Flood {
    client: Client,
    /// Whoever is refused or put off loses its connection with the rest of its body, and whoever shares it loses a request.
    others: Client,
    url: String,
    /// The proof of each tenant, by its number.
    proofs: BTreeMap<u32, String>,
    /// For each honest tenant, the entries of its blobs so far.
    honest: Mutex<BTreeMap<u32, Vec<String>>>,
    /// Entries of what the greedy tenant has, and of what it makes up.
    greedy: Mutex<Vec<String>>,
    forged: Vec<String>,
    begun: Instant,
    seconds: u64,
    next: AtomicU64,
    answers: Mutex<BTreeMap<(Kind, u16), u64>>,
}

impl Flood {
    /// Sends what is due, one after the other, until the time is over.
    async fn call(self: Arc<Self>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= RATE * self.seconds {
                return;
            }
            let due = self.begun + Duration::from_micros(number * 1_000_000 / RATE);
            tokio::time::sleep_until(due.into()).await;
            let kind = Kind::of(number);
            let (proof, body) = self.notification(kind, number);
            let client = if kind == Kind::Honest { &self.client } else { &self.others };
            let mut request = client.post(&self.url).body(body);
            if let Some(proof) = proof {
                request = request.header("Webhook-AuthID", proof);
            }
            // Status 0 is none at all.
            let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
            *self.answers.lock().unwrap().entry((kind, status)).or_default() += 1;
        }
    }

    fn notification(&self, kind: Kind, number: u64) -> (Option<String>, String) {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let one_of = |entries: &[String]| entries[usize::try_from(scattered).unwrap() % entries.len()].clone();
        match kind {
            Kind::Honest => {
                let nth = number / 5 * 3 + number % 5;
                let tenant = 1 + u32::try_from(nth % u64::from(HONEST)).unwrap();
                let honest = self.honest.lock().unwrap();
                // The newest is told of soon, and all of them again and again.
                let entries = &honest[&tenant];
                let entry = if scattered.is_multiple_of(3) { one_of(entries) } else { entries.last().unwrap().clone() };
                (Some(self.proofs[&tenant].clone()), format!("[{entry}]"))
            }
            Kind::Greedy => (Some(self.proofs[&GREEDY].clone()), format!("[{}]", one_of(&self.greedy.lock().unwrap()))),
            Kind::Forged => (Some(self.proofs[&FORGED].clone()), one_of(&self.forged)),
            Kind::Unproven => {
                let proof = match number % 4 {
                    0 => None,
                    1 => Some("o365activityapinotification".to_owned()),
                    // That of one tenant in the name of another, and of nobody.
                    2 => Some(self.proofs[&QUIET].replace(&tenant_id(QUIET).to_string(), &tenant_id(1).to_string())),
                    _ => Some(self.proofs[&QUIET].replace(&tenant_id(QUIET).to_string(), &Uuid::nil().to_string())),
                };
                (proof, format!("[{}]", one_of(&self.greedy.lock().unwrap())))
            }
        }
    }
}

/// Bodies that are wrong, each in its way, in the name of a tenant that has a proof.
fn forged(house: &House) -> Vec<String> {
    let id = "20261126999999999999999$20261126999999999999999$audit_exchange$Audit_Exchange$emea0009";
    let good = || house.entry_of(FORGED, id);
    let with = |name: &str, value: Value| {
        let mut entry = good();
        entry[name] = value;
        json!([good(), entry]).to_string()
    };
    let uri = good()["contentUri"].as_str().unwrap().to_owned();
    let cloud = &house.world.cloud;
    vec![
        with("contentUri", json!(uri.replace(&cloud.url(), &cloud.foreign_url()))),
        with("contentUri", json!(uri.replace(&tenant_id(FORGED).to_string(), &tenant_id(1).to_string()))),
        with("tenantId", json!(tenant_id(1))),
        with("clientId", json!(Uuid::nil())),
        with("contentCreated", json!("2020-01-01T00:00:00Z")),
        with("contentId", Value::Null),
        format!("[{}]", vec![good().to_string(); 1_001].join(",")),
        format!("[{}]", " ".repeat(600 << 10)),
        good().to_string(),
        "[{".to_owned(),
    ]
}

/// Memory of the daemon in KiB: resident, and what of it is no file's.
fn memory(daemon: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    (of("VmRSS:"), of("RssAnon:"))
}

/// Looks at the daemon's memory until it is told to end; answers the peaks.
fn watch_memory(daemon: u32, end: Arc<AtomicBool>) -> std::thread::JoinHandle<(u64, u64)> {
    std::thread::spawn(move || {
        let mut peak = (0, 0);
        while !end.load(Ordering::Relaxed) {
            let now = memory(daemon);
            peak = (now.0.max(peak.0), now.1.max(peak.1));
            std::thread::park_timeout(Duration::from_millis(100));
        }
        peak
    })
}

fn status_of(status: &Value, number: u32) -> &Value {
    let tenants = status["tenants"].as_array().unwrap();
    tenants.iter().find(|tenant| tenant["id"] == tenant_id(number).to_string()).unwrap()
}

/// For how long it is flooded.
fn seconds() -> u64 {
    if let Ok(text) = std::env::var(VARIABLE) {
        return text.parse().unwrap();
    }
    skip::not_here(&format!("a flood of {SHORT} s and not of 60: set {VARIABLE}"));
    SHORT
}

/// Each was answered as such a one is, save the few of whom a refused one before took the connection along.
#[track_caller]
fn assert_answered(answers: &BTreeMap<(Kind, u16), u64>, seconds: u64) {
    let answered = |kind, status| answers.get(&(kind, status)).copied().unwrap_or_default();
    let all_of = |kind| answers.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum::<u64>();
    assert_eq!(answered(Kind::Honest, 200), all_of(Kind::Honest), "every honest one is taken: {answers:?}");
    for (kind, expected) in [(Kind::Unproven, &[404][..]), (Kind::Forged, &[404]), (Kind::Greedy, &[200, 503])] {
        let as_expected: u64 = expected.iter().map(|status| answered(kind, *status)).sum();
        assert_eq!(as_expected + answered(kind, 0), all_of(kind), "{kind:?}: {answers:?}");
        assert!(answered(kind, 0) * 100 <= all_of(kind), "{kind:?}: {answers:?}");
    }
    let pace = 200 + 20 * (seconds + 1);
    assert!((pace / 2..=pace).contains(&answered(Kind::Greedy, 200)), "at its pace, which is {pace}: {answers:?}");
}

/// Adds a blob; answers its entry.
fn new_blob(house: &House, number: u32) -> String {
    let control = house.world.cloud.control();
    let blobs = control.add_blobs(BlobSpec::new(tenant_id(number), EXCHANGE).count(1).records(2));
    house.entry_of(number, &control.content_id(blobs[0])).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figures are what it is run for")]
async fn a_thousand_notifications_a_second_lose_nothing_and_store_nothing_that_should_not_be() {
    let seconds = seconds();
    let house = House::new(77, QUIET, SLOW);
    let mut daemon = house.run(QUIET).await;
    // Only those come that are sent here.
    house.world.cloud.control().set_notices(true, Duration::ZERO);
    let proof = |number| (number, house.hook(number, EXCHANGE).unwrap().auth_id.unwrap());
    let proofs: BTreeMap<_, _> = (1..=QUIET).map(proof).collect();
    let made_up = |number: u32| {
        let id = format!("2026112600000000000{number:04}$2026112600$audit_exchange$Audit_Exchange$emea0009");
        house.entry_of(GREEDY, &id).to_string()
    };
    let greedy = std::iter::once(new_blob(&house, GREEDY)).chain((0..50).map(made_up)).collect();
    let flood = Arc::new(Flood {
        client: house.client(),
        others: house.client(),
        url: format!("{}/webhook", house.url),
        honest: Mutex::new((1..=HONEST).map(|number| (number, vec![new_blob(&house, number)])).collect()),
        greedy: Mutex::new(greedy),
        forged: forged(&house),
        proofs: proofs.clone(),
        begun: Instant::now(),
        seconds,
        next: AtomicU64::new(0),
        answers: Mutex::default(),
    });
    let before = memory(daemon.pid());
    let end = Arc::new(AtomicBool::new(false));
    let watching = watch_memory(daemon.pid(), Arc::clone(&end));
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(Arc::clone(&flood).call())).collect();

    // Meanwhile there is new content: of the honest ones, and now and then of the quiet one, which is told of it once.
    let mut lags = Vec::new();
    let (mut made, mut rounds) = (0_u64, 0);
    while flood.begun.elapsed() < Duration::from_secs(seconds) {
        while made < NEW * u64::try_from(flood.begun.elapsed().as_millis()).unwrap() / 1_000 {
            let number = 1 + u32::try_from(made % u64::from(HONEST)).unwrap();
            let entry = new_blob(&house, number);
            flood.honest.lock().unwrap().get_mut(&number).unwrap().push(entry);
            made += 1;
        }
        if flood.begun.elapsed() >= Duration::from_secs(2 * rounds) {
            rounds += 1;
            lags.push(lag(&house, &mut daemon, &flood, proofs[&QUIET].clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let took = flood.begun.elapsed();
    end.store(true, Ordering::Relaxed);
    let peak = watching.join().unwrap();

    // Whatever was not told of is told of now, once: Microsoft does not forget what was not taken.
    let rest: Vec<_> = flood.honest.lock().unwrap().clone().into_iter().collect();
    for (number, entries) in rest {
        for some in entries.chunks(500) {
            let body = format!("[{}]", some.join(","));
            let sent = flood.client.post(&flood.url).header("Webhook-AuthID", &proofs[&number]).body(body).send();
            assert_eq!(sent.await.unwrap().status(), 200);
        }
    }
    daemon.wait_collected(&house.world).await;
    daemon
        .wait("nothing waits any more", |status| {
            status["tenants"].as_array().unwrap().iter().all(|tenant| tenant["queue"]["entries"] == 0)
        })
        .await;
    let answers = flood.answers.lock().unwrap().clone();
    let sent: u64 = answers.values().sum();
    lags.sort();
    let (median, longest) = (lags[lags.len() / 2], *lags.last().unwrap());
    eprintln!(
        "{sent} notifications in {:.1} s, {:.0} a second, {made} new blobs\n{answers:?}\nresident {} MiB before, {} MiB at \
         the peak; anonymous {} MiB before, {} MiB at the peak\nthe quiet tenant's content came in {median:?} (median), {longest:?} at the longest",
        took.as_secs_f64(),
        f64::from(u32::try_from(sent).unwrap()) / took.as_secs_f64(),
        before.0 >> 10,
        peak.0 >> 10,
        before.1 >> 10,
        peak.1 >> 10,
    );
    assert_answered(&answers, took.as_secs());
    assert!(peak.0 < before.0 + (MEMORY << 10), "from {} KiB to {} KiB", before.0, peak.0);
    assert!(longest < Duration::from_secs(30), "the quiet tenant waited for {longest:?}");

    let status = daemon.status().await.unwrap();
    for number in 1..=QUIET {
        assert_eq!(status_of(&status, number)["dead_letters"], 0, "tenant {number}: {:#}", status_of(&status, number));
    }
    assert!(counted(&daemon, "unlisted").await > 0, "what was made up is dropped, and counted");
    let ledger = house.world.cloud.ledger();
    assert_eq!(ledger.foreign_requests, 0);
    let forged = "20261126999999999999999$";
    assert!(!ledger.requests.iter().any(|seen| seen.request.contains(forged)), "what was forged was asked for");
    assert!(daemon.stop().await.success());
    house.world.assert_collected();
}

/// How long the quiet tenant's content takes from its notification to the store.
async fn lag(house: &House, daemon: &mut Daemon, flood: &Flood, proof: String) -> Duration {
    let entry = new_blob(house, QUIET);
    let expected = house.world.cloud.ledger().offered(tenant_id(QUIET)).count();
    let start = Instant::now();
    let sent = flood.client.post(&flood.url).header("Webhook-AuthID", proof).body(format!("[{entry}]")).send().await;
    assert_eq!(sent.unwrap().status(), 200);
    daemon
        .wait_within(PATIENCE, "the quiet tenant's content comes", |status| {
            status_of(status, QUIET)["stored_today"]["blobs"] == json!(expected)
        })
        .await;
    start.elapsed()
}
