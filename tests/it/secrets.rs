//! What is secret is nowhere to be seen, however much is told: a whole onboarding and its accidents, with everything that
//! can be logged, and a search through all that was said and kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use tenantry_simulator::{App, Effect, Endpoint, ErrorBody, Fault};
use uuid::Uuid;

use crate::browser::client;
use crate::consent::{CONTOSO, FABRIKAM, House, started};
use crate::world::{PATIENCE, tenant_id};

/// An app that proves itself by a client secret.
const OWN: Uuid = Uuid::from_u128(0x0a99_0000_0000_4000_8000_0000_0000_0002);
const CLIENT_SECRET: &str = "Zq8~Only-the-authority-may-see-this";
const OPERATOR_TOKEN: &str = "operators-token-of-the-secrets-test";

/// Of shorter ones, chance has its own.
const TELLING: usize = 12;

/// What of a secret must not be seen: all of it, and of a JSON web token each part.
fn needles(secrets: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let parts = secrets.into_iter().flat_map(|secret| {
        let mut parts: Vec<_> = secret.split('.').map(str::to_owned).collect();
        parts.push(secret);
        parts
    });
    parts.filter(|part| part.len() >= TELLING).collect()
}

/// The files below a directory, with their names.
fn files(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
        }
    }
}

/// A customer's administrator without a browser, as far as consent goes: every page that the daemon showed, and the cookie.
pub(crate) async fn consent(house: &House, link: &str) -> (Vec<(String, Vec<u8>)>, String) {
    let http = client();
    let mut pages = Vec::new();
    let page = http.get(link).send().await.unwrap();
    pages.push(("the welcome page".to_owned(), page.bytes().await.unwrap().to_vec()));
    let begun = http.post(link).header("origin", &house.url).send().await.unwrap();
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_str().unwrap().to_owned()
    };
    let mut cookie = header(&begun, "set-cookie").split(';').next().unwrap().to_owned();
    let mut next = header(&begun, "location");
    // Sign-in and consent at Microsoft, and the way back from each.
    let fields = [("account", "admin@contoso.example"), ("decision", "accept")];
    for fields in [&fields[..1], &fields[..]] {
        let answer = http.post(&next).form(fields).send().await.unwrap();
        let back = http.get(header(&answer, "location")).header("cookie", &cookie).send().await.unwrap();
        if let Some(set) = back.headers().get("set-cookie") {
            cookie = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        next = header(&back, "location");
        pages.push(("the way back".to_owned(), back.bytes().await.unwrap().to_vec()));
    }
    (pages, cookie)
}

/// The pages of the progress, to its end.
async fn progress(house: &House, cookie: &str) -> Vec<(String, Vec<u8>)> {
    let (http, start, mut pages) = (client(), Instant::now(), Vec::new());
    loop {
        let page = http.get(format!("{}/onboard", house.url)).header("cookie", cookie).send().await.unwrap();
        let page = page.text().await.unwrap();
        let done = page.contains(">Done<");
        pages.push(("a page of the progress".to_owned(), page.clone().into_bytes()));
        if done {
            return pages;
        }
        assert!(start.elapsed() < PATIENCE, "{page}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_told_or_kept_at_the_most_talkative_level() {
    let house = House::new(&format!(
        "[log]\nlevel = \"trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,h2=trace,sled=trace\"\n\
         [apps.own]\nclient_id = \"{OWN}\"\nclient_secret_file = \"own.secret\"\n\
         [operator]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"operator.token\"\n"
    ));
    let (world, control) = (&house.world, house.world.cloud.control());
    fs::write(world.dir.path().join("own.secret"), CLIENT_SECRET).unwrap();
    fs::write(world.dir.path().join("operator.token"), OPERATOR_TOKEN).unwrap();
    control.keep_credentials();
    control.set_app(App::new(OWN).secret(CLIENT_SECRET));
    control.grant(tenant_id(FABRIKAM), OWN, &["ActivityFeed.Read", "ServiceHealth.Read"]);
    // Accidents at every stage, each with what the service says about it.
    let status = Effect::Status { status: 500, body: ErrorBody::Json, retry_after_s: None };
    for (effect, endpoint) in [
        (Effect::Entra { code: 90_033, retry_after_s: None }, Endpoint::Token),
        (status, Endpoint::List),
        (Effect::Denied, Endpoint::Blob),
    ] {
        control.add_fault(Fault::new(effect).on([endpoint]).first(1));
    }
    let mut daemon = started(world).await;
    let link = house.invite(&[]);
    let (mut said, cookie) = consent(&house, &link).await;
    said.extend(progress(&house, &cookie).await);
    let fabrikam = tenant_id(FABRIKAM).to_string();
    let added =
        world.tenantry(&["tenant", "add", &fabrikam, "--name", "fabrikam", "--cloud", "simulated", "--app", "own"]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    daemon
        .wait("all of them are collected", |status| {
            let tenants = status["tenants"].as_array().unwrap();
            tenants.len() == 3 && tenants.iter().all(|tenant| tenant["state"] == "collecting")
        })
        .await;

    // What no credential can mend is told too, with what the authority said.
    control.set_app(App::new(OWN).secret("another one"));
    control.revoke_tokens(tenant_id(FABRIKAM));
    daemon.wait("the secret is refused", |status| status.to_string().contains("AADSTS7000215")).await;
    assert!(!world.tenantry(&["reload"]).stdout.is_empty());
    for command in [
        &["check"][..],
        &["status", "--json"],
        &["status"],
        &["doctor"],
        &["doctor", "--json"],
        &["tenant", "list", "--json"],
        &["tenant", "show", "contoso", "--json"],
        &["tenant", "show", "fabrikam"],
        &["tenant", "invites", "--json"],
        &["tenant", "invites"],
        &["cert", "show", "--json"],
        &["cert", "manifest"],
        &["store", "stats", "--json"],
        &["verify", "--store-only", "--json"],
        &["export"],
    ] {
        let output = world.tenantry(command);
        said.push((format!("{command:?}"), [output.stdout, output.stderr].concat()));
    }
    let url = daemon.operator().await;
    for path in ["/metrics", "/v1/status", "/readyz", "/v1/info"] {
        let answer = client().get(format!("{url}{path}")).bearer_auth(OPERATOR_TOKEN).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}");
        said.push((path.to_owned(), answer.bytes().await.unwrap().to_vec()));
    }
    let log = daemon.log();
    assert!(log.contains("TRACE") && log.contains("reuse idle connection"), "the log tells less than it can: {log}");
    said.push(("the log".to_owned(), log.into_bytes()));
    assert!(daemon.stop().await.success());
    files(&world.store(), &mut said);

    let key = fs::read_to_string(world.dir.path().join("app.key")).unwrap();
    let key = key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned);
    let (_, cookie) = cookie.split_once('=').unwrap();
    assert!(cookie.len() >= TELLING);
    let own = [CLIENT_SECRET, OPERATOR_TOKEN, link.rsplit('/').next().unwrap()].map(str::to_owned);
    let seen = control.credentials();
    assert!(seen.contains(CLIENT_SECRET) && seen.len() > 10, "{seen:?}");
    let needles = needles(key.chain(own).chain([cookie.to_owned()]).chain(seen));
    for (what, text) in &said {
        let text = String::from_utf8_lossy(text);
        for needle in &needles {
            assert!(!text.contains(needle.as_str()), "{needle} is in {what}: …{}…", around(&text, needle));
        }
    }
    assert!(tenant_id(CONTOSO).to_string().len() > TELLING && said.len() > 20);
}

/// Where it stands.
fn around(text: &str, needle: &str) -> String {
    let at = text.find(needle).unwrap_or_default();
    let before = text[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
    let after = text[at..].char_indices().nth(needle.len() + 100).map_or(text.len(), |(more, _)| at + more);
    text[before..after].to_owned()
}
