//! `export`, `tail` and `status`, while the daemon runs and while it does not.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;
use tenantry_simulator::{BlobSpec, ContentType, Scenario};

use crate::world::{World, tenant, tenant_id};

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_selection_holds_the_same_records_with_and_without_the_daemon() {
    let world = World::new(Scenario::new(61).tenant(tenant(1, 10, 3.0)).tenant(tenant(2, 10, 3.0)), "");
    // Literals that a reader could spoil, white space and all.
    let odd = "[ {\"Id\":\"11111111-0000-4000-8000-000000000001\",\r\n \"CreationTime\":\"2026-11-20T01:02:03\",\n\
               \"Big\": 12345678901234567890.1230, \"Path\":\"a\\/b\\u00e9\", \"UserId\":\"x,\\\"y\\\"\"} ]";
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(odd));
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let selections: [&[&str]; 6] = [
        &[],
        &["--tenant", "tenant-1"],
        &["--tenant", "tenant-2", "--content-type", "Audit.General", "--content-type", "Audit.Exchange"],
        &["--since", "36h"],
        &["--until", "36h ago", "--by", "available"],
        &["--since", "1h", "--by", "stored", "--include-duplicates"],
    ];
    let export = |extra: &[&str]| {
        let output = world.tenantry(&[&["export"], extra].concat());
        assert!(output.status.success(), "{extra:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{extra:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let running: Vec<_> = selections.iter().map(|selection| export(selection)).collect();
    let whole = &running[0];
    assert!(
        whole.contains("{\"Id\":\"11111111-0000-4000-8000-000000000001\",\"CreationTime\":\"2026-11-20T01:02:03\",\"Big\":12345678901234567890.1230,\"Path\":\"a\\/b\\u00e9\",\"UserId\":\"x,\\\"y\\\"\"}\n"),
        "literals are untouched"
    );
    let json: Value = serde_json::from_str(&export(&["--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), whole.lines().count());
    let table = export(&["--format", "csv"]);
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(rows.records().map(Result::unwrap).count(), whole.lines().count());
    for (part, name) in [(1, "tenant-1"), (2, "two types of tenant-2"), (3, "36 h"), (4, "before 36 h")] {
        let lines = running[part].lines().count();
        assert!(lines > 0 && lines < whole.lines().count(), "{name}: {lines} of {}", whole.lines().count());
    }

    assert!(daemon.stop().await.success());
    let stopped: Vec<_> = selections.iter().map(|selection| export(selection)).collect();
    for (number, selection) in selections.iter().enumerate() {
        assert_eq!(running[number], stopped[number], "{selection:?}");
    }
    let file = world.dir.path().join("out.ndjson");
    export(&["--output", file.to_str().unwrap()]);
    assert_eq!(&std::fs::read_to_string(&file).unwrap(), whole);
    let partial = std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!partial.into_iter().any(|name| name.to_string_lossy().contains("partial")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_an_export_quietly() {
    let world = World::new(Scenario::new(62).tenant(tenant(1, 60, 3.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    for running in [true, false] {
        let mut export = world.command(&["export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = export.stdout.take().unwrap();
        pipe.read_exact(&mut [0; 10]).unwrap();
        drop(pipe);
        let output = export.wait_with_output().unwrap();
        assert!(output.status.success(), "running {running}: {}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "running {running}");
        if running {
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            assert!(daemon.ended().await.success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_what_is_stored_and_survives_a_restart_of_the_daemon() {
    let world = World::new(Scenario::new(63).tenant(tenant(1, 3, 1.0)).tenant(tenant(2, 3, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let mut tail = Tail::start(&world, &["--tenant", "tenant-1", "--since", "1h"]);
    let mut expected = world.cloud.ledger().expected_ids(tenant_id(1));
    while !expected.is_empty() {
        let id = tail.next();
        assert!(expected.remove(&id), "{id} is not of the tenant, or came twice");
    }
    let add = |number| {
        let body = format!("[{{\"Id\":\"new-{number}\",\"CreationTime\":\"2026-11-20T01:02:03\"}}]");
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(2), ContentType::Exchange).records(2));
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(&body));
    };
    add(1);
    assert_eq!(tail.next(), "new-1");
    assert!(daemon.stop().await.success());
    let daemon = world.run();
    add(2);
    assert_eq!(tail.next(), "new-2");
    drop(tail);
    assert!(daemon.stop().await.success());
}

/// `tenantry tail`, and the ids that it writes.
struct Tail {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Tail {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let log = world.dir.path().join("tail.log");
        let mut command = world.command(&[&["tail"], arguments].concat());
        let mut process = command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, log }
    }

    /// Waits until it has said `text`.
    async fn wait_said(&self, text: &str) {
        let start = std::time::Instant::now();
        while !std::fs::read_to_string(&self.log).unwrap().contains(text) {
            assert!(start.elapsed() < crate::world::PATIENCE, "`{text}` is not said");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn next(&mut self) -> String {
        let line = self.lines.next().expect("tail writes a line").unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["Id"].as_str().unwrap().to_owned()
    }

    /// So many ids, none of them twice.
    fn take(&mut self, count: usize) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for _ in 0..count {
            let id = self.next();
            assert!(!ids.contains(&id), "{id} came twice");
            ids.insert(id);
        }
        ids
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_reads_what_is_stored_and_goes_on_there_with_the_next_daemon() {
    let world = World::new(Scenario::new(65).tenant(tenant(1, 3, 1.0)), "");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    let expected = world.cloud.ledger().expected_ids(tenant_id(1));
    // Without a daemon.
    let mut since = Tail::start(&world, &["--since", "1h"]);
    assert_eq!(since.take(expected.len()), expected);
    since.wait_said("waiting for it").await;
    let mut from_now = Tail::start(&world, &[]);
    from_now.wait_said("waiting for it").await;
    let body = r#"[{"Id":"new","CreationTime":"2026-11-20T01:02:03"}]"#;
    world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(body));
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    assert_eq!((since.next().as_str(), from_now.next().as_str()), ("new", "new"));
    drop((since, from_now));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_begun_before_there_is_a_store_misses_nothing() {
    let world = World::new(Scenario::new(66).tenant(tenant(1, 3, 1.0)), "");
    let mut tail = Tail::start(&world, &[]);
    tail.wait_said("waiting for it").await;
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let expected = world.cloud.ledger().expected_ids(tenant_id(1));
    assert_eq!(tail.take(expected.len()), expected);
    drop(tail);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_repeats_nothing_when_the_daemon_is_killed_in_a_backlog() {
    let world = World::new(Scenario::new(67).tenant(tenant(1, 3, 1.0)), "");
    // More than all pipes and sockets between the two hold, in one blob.
    let large = BlobSpec::new(tenant_id(1), ContentType::General).count(1).body_bytes(8_000_000);
    world.cloud.control().add_blobs(large);
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let expected = world.cloud.ledger().expected_ids(tenant_id(1));
    let mut tail = Tail::start(&world, &["--since", "1h"]);
    let mut ids = tail.take(1);
    // It waits for its reader, in the middle of what it was sent.
    daemon.kill();
    let daemon = world.run();
    while ids.len() < expected.len() {
        let id = tail.next();
        assert!(!ids.contains(&id), "{id} came twice");
        ids.insert(id);
    }
    assert_eq!(ids, expected);
    drop(tail);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_table_for_people_and_json_for_programs() {
    let world = World::new(Scenario::new(64).tenant(tenant(1, 3, 1.0)), "");
    let before = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(before.contains("nothing was collected yet"), "{before}");
    let mut daemon = world.run();
    daemon.wait_collected(&world).await;
    let table = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    for word in
        ["1 tenant, all well", "tenant-1", "token until", "last poll", "lag", "queue", "stored today", "last problem"]
    {
        assert!(table.contains(word), "`{word}` is missing in\n{table}");
    }
    let json: Value = serde_json::from_slice(&world.tenantry(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["running"], true);
    assert_eq!(json["tenants"][0]["stored_today"]["blobs"], 12);
    assert!(daemon.stop().await.success());
    let after = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(after.contains("does not run") && after.contains("stopped"), "{after}");
}
