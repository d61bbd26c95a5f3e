//! The simulator as a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::send;

#[test]
fn the_binary_prints_its_address_and_ends_with_its_standard_input() {
    let directory = std::env::temp_dir().join(format!("simulator-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("scenario.json");
    std::fs::write(&file, json!({ "seed": 3, "tenants": [{ "id": "7c1d94a2-6b3e-4f05-9a48-2d1e50c7b311", "name": "C", "domain": "c.example", "feeds": [{ "content_type": "DLP.All", "backlog": 2 }] }] }).to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenantry-simulator"))
        .arg("--scenario")
        .arg(&file)
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let ledger = send("GET", &format!("{}/_sim/ledger", said["url"].as_str().unwrap()), &[], &[]).unwrap().json();
    assert_eq!(ledger["blobs"].as_array().unwrap().len(), 2);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    std::fs::write(&file, r#"{"sede":3}"#).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_tenantry-simulator")).arg("--scenario").arg(&file).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown field `sede`"), "{refused:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}
