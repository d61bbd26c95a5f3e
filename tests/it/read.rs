//! `export`, `tail` and `status`, while the daemon runs and while it does not.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

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
    assert!(!world.dir.path().join("out.ndjson.partial").exists());
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
    let mut tail = world
        .command(&["tail", "--tenant", "tenant-1", "--since", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let mut reader = BufReader::new(tail.stdout.take().unwrap());
    std::thread::spawn(move || {
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    let next = || {
        let line = lines.recv_timeout(crate::world::PATIENCE).expect("tail writes a line");
        serde_json::from_str::<Value>(&line).unwrap()["Id"].as_str().unwrap().to_owned()
    };
    let mut expected = world.cloud.ledger().expected_ids(tenant_id(1));
    while !expected.is_empty() {
        let id = next();
        assert!(expected.remove(&id), "{id} is not of the tenant, or came twice");
    }
    let add = |number| {
        let body = format!("[{{\"Id\":\"new-{number}\",\"CreationTime\":\"2026-11-20T01:02:03\"}}]");
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(2), ContentType::Exchange).records(2));
        world.cloud.control().add_blobs(BlobSpec::new(tenant_id(1), ContentType::Exchange).body(&body));
    };
    add(1);
    assert_eq!(next(), "new-1");
    assert!(daemon.stop().await.success());
    let daemon = world.run();
    add(2);
    assert_eq!(next(), "new-2");
    tail.kill().unwrap();
    tail.wait().unwrap();
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
    for word in [
        "collecting from 1 tenant, all well",
        "tenant-1",
        "token until",
        "last poll",
        "lag",
        "queue",
        "stored today",
        "last problem",
    ] {
        assert!(table.contains(word), "`{word}` is missing in\n{table}");
    }
    let json: Value = serde_json::from_slice(&world.tenantry(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["running"], true);
    assert_eq!(json["tenants"][0]["stored_today"]["blobs"], 12);
    assert!(daemon.stop().await.success());
    let after = String::from_utf8(world.tenantry(&["status"]).stdout).unwrap();
    assert!(after.contains("does not run") && after.contains("stopped"), "{after}");
}
