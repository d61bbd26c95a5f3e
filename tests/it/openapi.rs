//! The description of the admin API, against the program: a validator reads it, and a tester makes up requests by it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use reqwest::header::{CONTENT_TYPE, HOST};
use serde_json::json;
use tenantry_simulator::Scenario;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};

use crate::skip::skip;
use crate::world::{PATIENCE, World, tenant};

const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/openapi.yaml");
const TOKEN: &str = "a-token-for-the-tester";
const WITH_TOKEN: &str = "[operator]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";

/// The programs of `tests/fixtures/api-requirements.txt`.
fn tools() -> Option<PathBuf> {
    let tools = std::env::var_os("TENANTRY_TEST_API_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        skip("TENANTRY_TEST_API_TOOLS names no folder with the programs of tests/fixtures/api-requirements.txt");
    }
    tools
}

#[track_caller]
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The paths that the description holds.
fn described() -> BTreeSet<String> {
    let text = std::fs::read_to_string(DESCRIPTION).unwrap();
    let paths = text.lines().filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':'));
    paths.map(|path| format!("/{path}")).collect()
}

#[test]
fn the_description_is_valid_and_holds_every_path() {
    // As the modules' headers list them; a path that is served and not described is found by reading those two.
    let served = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/info",
        "/v1/openapi.yaml",
        "/v1/status",
        "/v1/export",
        "/v1/tail",
        "/v1/reload",
        "/v1/doctor",
        "/v1/store/verify",
        "/v1/store/stats",
        "/v1/store/ledger",
        "/v1/store/gaps",
        "/v1/store/purges",
        "/v1/store/backup",
        "/v1/tenants",
        "/v1/tenants/{id}",
        "/v1/tenants/{id}/backfill",
        "/v1/tenants/{id}/content",
        "/v1/tenants/{id}/health",
        "/v1/tenants/{id}/health/issues/{issue}/report",
        "/v1/tenants/{id}/health/messages/{message}/attachments",
        "/v1/tenants/{id}/health/messages/{message}/attachments/{attachment}",
        "/v1/tenants/{id}/health/messages/{message}/archive",
        "/api/v1.0/{tenant}/ServiceComms/Services",
        "/api/v1.0/{tenant}/ServiceComms/CurrentStatus",
        "/api/v1.0/{tenant}/ServiceComms/HistoricalStatus",
        "/api/v1.0/{tenant}/ServiceComms/Messages",
        "/v1/tenants/{id}/pause",
        "/v1/tenants/{id}/resume",
        "/v1/tenants/{id}/subscriptions",
        "/v1/tenants/{id}/subscriptions/{type}/start",
        "/v1/tenants/{id}/subscriptions/{type}/stop",
        "/v1/tenants/{id}/notifications",
        "/v1/tenants/{id}/inventory",
        "/v1/invites",
        "/v1/invites/{id}",
    ];
    assert_eq!(described(), served.into_iter().map(str::to_owned).collect());
    if let Some(tools) = tools() {
        must(Command::new(tools.join("openapi-spec-validator")).arg(DESCRIPTION));
    }
}

/// The codes of the answers that the description holds for an operation.
fn codes(path: &str, method: &str) -> BTreeSet<u16> {
    let text = std::fs::read_to_string(DESCRIPTION).unwrap();
    let of_path = text.lines().skip_while(|line| *line != format!("  {path}:")).skip(1);
    let of_path = of_path.take_while(|line| line.starts_with("    "));
    let of_method = of_path.skip_while(|line| *line != format!("    {method}:")).skip(1);
    let of_method = of_method.take_while(|line| line.starts_with("      "));
    of_method.filter_map(|line| line.strip_prefix("        \"")?.split('"').next()?.parse().ok()).collect()
}

/// Sends it, and expects this refusal, in the program and in the description.
#[track_caller]
fn refused(request: reqwest::RequestBuilder, code: u16) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        // A name in braces stands for whatever is asked for.
        let path = request.url().path().replace("%7B", "{").replace("%7D", "}");
        let method = request.method().as_str().to_lowercase();
        let answer = client.execute(request).await.unwrap();
        let media = answer.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or("").to_owned();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        let asked = format!("{method} {path}, asked at {caller}");
        assert_eq!(status, code, "{asked}: {text}");
        assert!(codes(&path, &method).contains(&code), "{code} is not described: {asked}");
        assert!(media.starts_with("text/plain"), "{media}: {asked}");
    }
}

#[expect(clippy::disallowed_methods, reason = "the ban keeps requests to Microsoft in one place; this is a test's own")]
fn stranger() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_socket_refuses_is_described() {
    let world = World::new(Scenario::new(92).tenant(tenant(1, 1, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let client = tenantry::http::admin_client(&world.store().join("admin.sock")).unwrap();
    let posted = [
        ("/v1/reload", 2),
        ("/v1/store/backup", 2),
        ("/v1/tenants", 2),
        ("/v1/doctor", 2),
        ("/v1/invites", 2),
        ("/v1/tail", 64),
    ];
    for (path, longest) in posted.map(|(path, mebibytes)| (path, mebibytes << 20)) {
        let send = |media, body: Vec<u8>| {
            // Nobody looks at the name there.
            let request = client.post(format!("http://rebound.example{path}"));
            request.header(CONTENT_TYPE, media).body(body)
        };
        refused(send("application/json", b"{".to_vec()), 400).await;
        refused(send("application/json", vec![b' '; longest + 1]), 413).await;
        refused(send("text/plain", b"{}".to_vec()), 415).await;
        refused(send("application/json", b"{\"have\": 1, \"query\": 2}".to_vec()), 422).await;
    }
    world.set("collect", "poll_interval", "\"never\"");
    refused(client.post("http://tenantry/v1/reload").json(&json!({})), 409).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_listener_refuses_is_described() {
    let world = World::new(Scenario::new(93).tenant(tenant(1, 1, 1.0)), "[operator]\nlisten = \"127.0.0.1:0\"\n");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let url = daemon.operator().await;
    let (client, tail) = (stranger(), json!({"query": "{}"}));
    let on_the_socket = |path: &str| {
        ["/v1/store/", "/v1/tenants", "/v1/invites", "/v1/doctor", "/v1/reload"]
            .iter()
            .any(|only| path.starts_with(only))
    };
    let served = || described().into_iter().filter(|path| !on_the_socket(path));
    for path in served() {
        refused(client.get(format!("{url}{path}")).header(HOST, "rebound.example"), 421).await;
    }
    refused(client.post(format!("{url}/v1/tail")).json(&tail).header(HOST, "rebound.example"), 421).await;
    for path in served().filter(|path| path.starts_with("/api/") || ["/v1/export", "/v1/tail"].contains(&path.as_str()))
    {
        refused(client.get(format!("{url}{path}")), 403).await;
    }
    refused(client.post(format!("{url}/v1/tail")).json(&tail), 403).await;
    // What is the same for every path is said once.
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(client.get(format!("{url}/v1/reload"))).await, 404);
    // Who is collected is changed on the socket, by whoever may open it, and here by nobody.
    let tenants = format!("{url}/v1/tenants");
    let one = format!("{tenants}/{}", crate::world::tenant_id(1));
    for request in [
        client.get(&tenants),
        client.post(&tenants).json(&json!({"id": crate::world::tenant_id(2)})),
        client.get(&one),
        client.delete(&one),
        client.post(format!("{one}/pause")),
        client.post(format!("{one}/resume")),
        client.post(format!("{one}/content")).json(&json!({"content_uri": "https://manage.office.com/"})),
        client.get(format!("{one}/subscriptions")),
        client.get(format!("{one}/health/issues/EX1/report")),
        client.get(format!("{one}/health/messages/MC1/attachments")),
        client.post(format!("{one}/backfill")).json(&json!({"since": "2026-11-26T00:00:00Z"})),
        client.post(format!("{one}/subscriptions/DLP.All/start")),
        client.post(format!("{one}/subscriptions/DLP.All/stop")),
        client.post(format!("{one}/inventory")),
        client.get(format!("{one}/notifications?content_type=DLP.All&since=2026-11-26T00:00:00Z")),
    ] {
        assert_eq!(status(request).await, 404);
    }
    assert_eq!(status(client.delete(format!("{url}/v1/info"))).await, 405);
    assert!(daemon.stop().await.success());

    let world = World::new(Scenario::new(94).tenant(tenant(1, 1, 1.0)), WITH_TOKEN);
    std::fs::write(world.dir.path().join("token"), TOKEN).unwrap();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let url = daemon.operator().await;
    for path in served().filter(|path| path != "/healthz" && path != "/readyz") {
        refused(client.get(format!("{url}{path}")).bearer_auth("another"), 401).await;
    }
    refused(client.post(format!("{url}/v1/tail")).json(&tail).bearer_auth("another"), 401).await;
    assert!(daemon.stop().await.success());
}

/// Lets the tester make up requests for `url`, and answers what it says.
async fn made_up(tools: PathBuf, url: String, arguments: &'static [&'static str]) -> String {
    let tested = tokio::task::spawn_blocking(move || {
        let mut tester = Command::new(tools.join("schemathesis"));
        tester.args(["run", DESCRIPTION, "--url", &url, "--header", &format!("Authorization: Bearer {TOKEN}")]);
        // What has no end: a tail is read until its reader hangs up. What is posted for one is no query of anything.
        tester.args(["--exclude-operation-id", "followRecords"]).args(arguments);
        tester.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
        tester.args(["--checks", "response_schema_conformance", "--max-examples", "60", "--seed", "1"]);
        // Examples of it must not end up in the tree.
        tester.args(["--generation-database", "none", "--warnings", "off"]).current_dir(std::env::temp_dir());
        must(&mut tester)
    });
    tested.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_request_makes_the_listener_fail_or_answer_otherwise_than_described() {
    let Some(tools) = tools() else { return };
    let world = World::new(Scenario::new(91).tenant(tenant(1, 3, 1.0)), WITH_TOKEN);
    std::fs::write(world.dir.path().join("token"), TOKEN).unwrap();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let said = made_up(tools, daemon.operator().await, &["--exclude-tag", "socket"]).await;
    assert!(said.contains("Tested: 12"), "{said}");
    assert!(daemon.stop().await.success());
}

/// Where TCP leads to this socket, for a tester that knows no Unix sockets.
async fn forwarded(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut daemon = UnixStream::connect(&socket).await.unwrap();
            // Either may hang up at any time.
            tokio::spawn(async move { copy_bidirectional(&mut caller, &mut daemon).await.ok() });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_request_makes_the_socket_fail_or_answer_otherwise_than_described() {
    let Some(tools) = tools() else { return };
    let world = World::new(Scenario::new(95).tenant(tenant(1, 3, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let url = forwarded(world.store().join("admin.sock")).await;
    // Health and metrics are the listener's.
    let only = &["--exclude-tag", "health", "--exclude-tag", "compatible", "--exclude-path", "/metrics"];
    let said = made_up(tools, url, only).await;
    assert!(said.contains("Tested: 34"), "{said}");
    assert!(daemon.stop().await.success());
}
