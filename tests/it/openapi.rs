//! The description of the admin API, against the program: a validator reads it, and a tester makes up requests by it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use tenantry_simulator::Scenario;

use crate::skip::skip;
use crate::world::{World, tenant};

const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/openapi.yaml");
const TOKEN: &str = "a-token-for-the-tester";

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
        "/v1/store/verify",
        "/v1/store/stats",
        "/v1/store/backup",
    ];
    assert_eq!(described(), served.into_iter().map(str::to_owned).collect());
    if let Some(tools) = tools() {
        must(Command::new(tools.join("openapi-spec-validator")).arg(DESCRIPTION));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_request_makes_it_fail_or_answer_otherwise_than_described() {
    let Some(tools) = tools() else { return };
    let world = World::new(
        Scenario::new(91).tenant(tenant(1, 3, 1.0)),
        "[operator]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n",
    );
    std::fs::write(world.dir.path().join("token"), TOKEN).unwrap();
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let url = daemon.operator().await;
    let tested = tokio::task::spawn_blocking(move || {
        let mut tester = Command::new(tools.join("schemathesis"));
        tester.args(["run", DESCRIPTION, "--url", &url, "--header", &format!("Authorization: Bearer {TOKEN}")]);
        // What has no end, and what only the socket serves.
        tester.args(["--exclude-path", "/v1/tail", "--exclude-tag", "socket"]);
        tester.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
        tester.args(["--checks", "response_schema_conformance", "--max-examples", "60", "--seed", "1"]);
        // Examples of it must not end up in the tree.
        tester.args(["--generation-database", "none", "--warnings", "off"]).current_dir(std::env::temp_dir());
        must(&mut tester)
    });
    let said = tested.await.unwrap();
    assert!(said.contains("Tested: 7"), "{said}");
    assert!(daemon.stop().await.success());
}
