//! What sensitive information types are called: fetched per tenant and language, put beside the ids by export and tail, and
//! never into what is stored.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, Scenario, Tenant, When};

use crate::world::{Daemon, PATIENCE, World, tenant_id};

const DLP: ContentType = ContentType::Dlp;
/// The types that the simulated records name.
const TYPES: [(&str, &str, &str); 4] = [
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a001", "Payment Card Number", "Zahlungskartennummer"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a002", "EU Passport Number", "EU-Reisepassnummer"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a003", "IBAN", "IBAN"),
    ("5a1c66c4-7d0a-4b0e-9a54-0d2f5be8a004", "German Tax Identification Number", "Steuer-Identifikationsnummer"),
];

/// Tenants with so many blobs of `DLP.All`, which is collected of the first one only.
fn world(seed: u64, blobs: u32, dlp: &str) -> World {
    let with = |number: u32| {
        let of = |content_type| Feed::new(content_type).backlog(blobs, 0.1).records(8, 12);
        let one = Tenant::new(tenant_id(number), &format!("tenant-{number}"));
        one.feed(of(ContentType::Exchange)).feed(of(DLP)).subscribed()
    };
    let scenario = Scenario::new(seed).tenant(with(1)).tenant(with(2));
    let world = World::new(scenario, &format!("[dlp]\n{dlp}\n[collect]\npoll_interval = \"1s\"\n"));
    let text = fs::read_to_string(&world.config).unwrap();
    let name = "name = \"tenant-1\"\n";
    let types = format!("{name}content_types = [\"Audit.Exchange\", \"DLP.All\"]\n");
    fs::write(&world.config, text.replace(name, &types)).unwrap();
    world
}

/// How often a tenant's names were asked for.
fn asked(world: &World, number: u32) -> u64 {
    let ledger = world.cloud.ledger();
    let book = ledger.tenants.get(&tenant_id(number));
    book.and_then(|book| book.requests.get(&Endpoint::SensitiveTypes)).copied().unwrap_or_default()
}

async fn until(what: &str, daemon: &Daemon, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn export(world: &World, arguments: &[&str]) -> String {
    let all = [&["export", "--tenant", "tenant-1", "--content-type", "DLP.All"], arguments].concat();
    let output = world.tenantry(&all);
    assert!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The ids and the names that stand beside them in a record.
fn named(value: &Value, found: &mut BTreeSet<(String, Option<String>)>) {
    match value {
        Value::Object(members) => {
            if let Some(id) = members.get("SensitiveType") {
                let name = members.get("SensitiveTypeName").map(|name| name.as_str().unwrap().to_owned());
                found.insert((id.as_str().unwrap().to_owned(), name));
            }
            members.values().for_each(|value| named(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, found)),
        _ => {}
    }
}

fn names(ndjson: &str) -> BTreeSet<(String, Option<String>)> {
    let mut found = BTreeSet::new();
    ndjson.lines().for_each(|line| named(&serde_json::from_str(line).unwrap(), &mut found));
    found
}

fn expected(name: impl Fn(&(&str, &str, &str)) -> Option<String>) -> BTreeSet<(String, Option<String>)> {
    TYPES.iter().map(|of| (of.0.to_owned(), name(of))).collect()
}

/// The text without the members that were added.
fn without_names(ndjson: &str) -> String {
    let mut text = ndjson.to_owned();
    for name in TYPES.iter().flat_map(|(_, english, german)| [english, german]) {
        text = text.replace(&format!(",\"SensitiveTypeName\":\"{name}\""), "");
    }
    text
}

#[tokio::test]
async fn names_stand_beside_the_ids_in_each_language_and_never_in_what_is_stored() {
    let world = world(71, 4, "languages = [\"en-US\", \"de-DE\"]");
    let mut daemon = world.run();
    // Of the other tenant DLP.All is not collected.
    let all = |status: &Value| {
        let stored = |tenant: &Value, of: &str| tenant["content"][of]["blobs"].as_u64().unwrap_or_default();
        let tenants = status["tenants"].as_array().unwrap();
        let (one, other) = (&tenants[0], &tenants[1]);
        stored(one, "DLP.All") == 4 && stored(one, "Audit.Exchange") == 4 && stored(other, "Audit.Exchange") == 4
    };
    daemon.wait("everything is stored", all).await;
    until("the names", &daemon, || asked(&world, 1) == 2).await;
    until("names in German", &daemon, || export(&world, &["--dlp-names=de-de"]).contains("SensitiveTypeName")).await;
    let plain = export(&world, &[]);
    assert_eq!(names(&plain), expected(|_| None), "as it was received, unless names are asked for");
    let english = export(&world, &["--dlp-names"]);
    let german = export(&world, &["--dlp-names=de-DE"]);
    assert_eq!(names(&english), expected(|of| Some(of.1.to_owned())), "the first language");
    assert_eq!(names(&german), expected(|of| Some(of.2.to_owned())));
    assert_eq!((without_names(&english), without_names(&german)), (plain.clone(), plain.clone()));

    let csv = export(&world, &["--format", "csv", "--dlp-names=de-DE"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let column = columns.iter().position(|column| column == "SensitiveTypeNames").unwrap();
    let cells: BTreeSet<_> = reader.records().map(|row| row.unwrap()[column].to_owned()).collect();
    assert_eq!(cells, TYPES.iter().map(|of| of.2.to_owned()).collect());
    assert!(!export(&world, &["--format", "csv"]).contains("SensitiveTypeNames"));

    let tail = ["tail", "--tenant", "tenant-1", "--content-type", "DLP.All", "--since", "1d", "--dlp-names"];
    let mut tail = world.command(&tail).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().unwrap()));
    let followed: Vec<_> = (0..english.lines().count()).map(|_| lines.next().unwrap().unwrap() + "\n").collect();
    assert_eq!(followed.concat(), english);
    tail.kill().unwrap();
    tail.wait().unwrap();

    let refused = world.tenantry(&["export", "--dlp-names=fr"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{told}");
    assert!(told.contains("no names are fetched in `fr`; `[dlp] languages` has `en-US`, `de-DE`"), "{told}");

    // They outlive the process, and are not fetched again before their time.
    assert!(daemon.stop().await.success());
    assert_eq!((export(&world, &["--dlp-names=de-DE"]), export(&world, &[])), (german, plain));
    let mut daemon = world.run();
    daemon.wait("it collects", |status| status["tenants"][0]["state"] == "collecting").await;
    assert_eq!((asked(&world, 1), asked(&world, 2)), (2, 0), "nor of a tenant without DLP.All");
    assert!(daemon.stop().await.success());
    let verified = world.tenantry(&["verify", "--store-only"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn an_id_without_a_name_has_the_names_fetched_again_but_not_for_ever() {
    let world = world(72, 0, "languages = [\"en-US\"]\nrefresh_interval = \"1h\"");
    let control = world.cloud.control();
    let own = |names: &[&str]| {
        let types: Vec<_> = TYPES.iter().zip(names).map(|(of, name)| (of.0, *name)).collect();
        control.set_sensitive_types(tenant_id(1), &types);
    };
    own(&["One", "Two"]);
    let mut daemon = world.run();
    daemon.wait("it collects", |status| status["tenants"][0]["state"] == "collecting").await;
    until("the first names", &daemon, || asked(&world, 1) == 1).await;
    own(&["One", "Two", "Three", "Four"]);
    control.add_blobs(BlobSpec::new(tenant_id(1), DLP).count(3).records(12));
    let all: BTreeSet<_> = ["One", "Two", "Three", "Four"]
        .iter()
        .zip(TYPES)
        .map(|(name, of)| (of.0.to_owned(), Some((*name).to_owned())))
        .collect();
    until("the names of all", &daemon, || names(&export(&world, &["--dlp-names"])) == all).await;
    assert_eq!(asked(&world, 1), 2);

    // The next look is minutes away, whatever comes.
    own(&["One"]);
    control.add_blobs(BlobSpec::new(tenant_id(1), DLP).count(3).records(12));
    daemon.wait("more is stored", |status| status["tenants"][0]["content"]["DLP.All"]["blobs"] == 6).await;
    assert_eq!(asked(&world, 1), 2);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn names_that_cannot_be_had_are_missing_and_nothing_else_is() {
    let world = world(73, 3, "languages = [\"en-US\"]");
    let fault = |number| Fault {
        tenant: Some(tenant_id(number)),
        on: vec![Endpoint::SensitiveTypes],
        content_type: None,
        when: When::Always,
        effect: Effect::Status { status: 500, retry_after_s: None, body: ErrorBody::Html },
    };
    world.cloud.control().add_fault(fault(1));
    let mut daemon = world.run();
    let status = daemon
        .wait("everything is stored and the trouble is told", |status| {
            let one = &status["tenants"][0];
            let (dlp, exchange) = (&one["content"]["DLP.All"]["blobs"], &one["content"]["Audit.Exchange"]["blobs"]);
            (dlp == 3) && (exchange == 3) && one["trouble"].is_object() && (one["state"] == "collecting")
        })
        .await;
    let one = &status["tenants"][0];
    assert!(one["trouble"].to_string().contains("reading the sensitive types"), "{one:#}");
    let doctor = world.tenantry(&["doctor", "--tenant", "tenant-1"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(2), "{told}");
    assert!(told.contains("reading the sensitive types"), "{told}");
    assert_eq!(export(&world, &["--dlp-names"]), export(&world, &[]));

    world.cloud.control().clear_faults();
    until("the names", &daemon, || export(&world, &["--dlp-names"]).contains("SensitiveTypeName")).await;
    daemon.wait("all is well", |status| status["tenants"][0]["trouble"].is_null()).await;
    assert!(daemon.stop().await.success());
}
