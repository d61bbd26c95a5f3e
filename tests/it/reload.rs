//! `tenantry reload`, and many reloads in a row.

use std::fs;

use serde_json::Value;
use tenantry_simulator::{ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, Point, Scenario, When};

use crate::world::{World, tenant, tenant_id};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_what_came_of_it() {
    let scenario = (1..=12).fold(Scenario::new(21), |s, n| s.tenant(tenant(n, 0, 1.0)));
    let world = World::new(scenario, "[daemon]\nstart_spread = \"0s\"\n");
    let none = world.tenantry(&["reload"]);
    assert_eq!(none.status.code(), Some(69), "{none:?}");
    assert!(said(&none).contains("no daemon is running"), "{none:?}");

    let daemon = world.run();
    daemon.wait_log("started").await;
    let good = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, good.replace("name = \"tenant-2\"", "name = \"tenant-2\"\nenabled = false")).unwrap();
    let done = world.tenantry(&["reload"]);
    assert!(done.status.success(), "{done:?}");
    assert!(said(&done).contains("12 tenants (0 added, 0 removed, 1 changed)"), "{done:?}");

    // What is wrong is named with its place, and nothing changes; with the socket told, it is the daemon that says so.
    fs::write(&world.config, good.replace("poll_interval", "poll_intervall")).unwrap();
    let socket = world.store().join("admin.sock");
    for arguments in [vec!["reload"], vec!["reload", "--socket", socket.to_str().unwrap()]] {
        let refused = world.tenantry(&arguments);
        assert_eq!(refused.status.code(), Some(78), "{refused:?}");
        assert!(said(&refused).contains("tenantry.toml:") && said(&refused).contains("poll_intervall"), "{refused:?}");
    }
    assert!(daemon.log().contains("the configuration stays as it was"), "{}", daemon.log());
    assert!(!daemon.log().contains("message_id"), "an identity is nothing for people: {}", daemon.log());

    // A key that needs a restart is named, each time until it is done.
    fs::write(&world.config, good.replace("[store]", "[log]\nformat = \"json\"\n[store]\npartition_size = \"1 GiB\""))
        .unwrap();
    for _ in 0..2 {
        let restart = said(&world.tenantry(&["reload"]));
        assert!(restart.contains("`store.partition_size` takes effect with a restart"), "{restart}");
        assert!(restart.contains("`log.format` takes effect with a restart"), "{restart}");
    }

    // Losing many tenants must be meant.
    world.configure(&[(tenant_id(1), "tenant-1".to_owned())], "[daemon]\nstart_spread = \"0s\"\n");
    let refused = world.tenantry(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(said(&refused).contains("--allow-removal"), "{refused:?}");
    let meant = world.tenantry(&["reload", "--allow-removal"]);
    assert!(meant.status.success() && said(&meant).contains("1 tenant (0 added, 11 removed"), "{meant:?}");
    assert!(daemon.stop().await.success());
}

/// Kilobytes of the process's memory that are resident.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reloads_loses_nothing_and_takes_no_memory() {
    const RELOADS: u32 = 100;
    let mut scenario = Scenario::new(22).page_size(20);
    for number in 1..=4 {
        let mut one = tenant(number, 0, 1.0);
        one.feeds = ContentType::AUDIT
            .map(|content_type| Feed::new(content_type).backlog(60, 6.0).records(2, 9).live_every_ms(700))
            .to_vec();
        scenario = scenario.tenant(one);
    }
    for (on, every, effect) in [
        (Endpoint::Token, 5, Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None }),
        (Endpoint::List, 9, Effect::Reset(Point::MidBody)),
        (Endpoint::Blob, 7, Effect::Truncate { chunked: true }),
        (Endpoint::Blob, 11, Effect::Drip { bytes: 400, every_ms: 5 }),
    ] {
        scenario =
            scenario.fault(Fault { tenant: None, on: vec![on], content_type: None, when: When::Every(every), effect });
    }
    let world = World::new(scenario, "[collect]\npoll_interval = \"1s\"\nrecent_interval = \"5s\"\n");
    let good = fs::read_to_string(&world.config).unwrap();
    let mut daemon = world.run();
    daemon.wait("it collects", |status| stored(status) > 20).await;

    // The most that is resident in a quarter of the reloads.
    let mut most = [0; 4];
    for round in 0..RELOADS {
        let text = match round % 5 {
            0 => good.replace("poll_interval = \"1s\"", &format!("poll_interval = \"{}ms\"", 1000 + round)),
            1 => good.replace("client_id", "client_idd"),
            2 => good.replace("name = \"tenant-2\"", "name = \"tenant-2\"\nenabled = false"),
            3 => good[..good.len() / 2].to_owned(),
            _ => good.clone(),
        };
        fs::write(&world.config, text).unwrap();
        let outcome = world.tenantry(&["reload"]);
        let expected = if matches!(round % 5, 1 | 3) { 78 } else { 0 };
        assert_eq!(outcome.status.code(), Some(expected), "round {round}: {outcome:?}");
        let quarter = &mut most[(4 * round / RELOADS) as usize];
        *quarter = resident(daemon.pid()).max(*quarter);
    }
    fs::write(&world.config, &good).unwrap();
    assert!(world.tenantry(&["reload"]).status.success());
    world.cloud.control().clear_faults();
    let ledger = daemon.wait_collected(&world).await;
    assert!(daemon.stop().await.success());
    world.assert_collected_by(&ledger);
    world.assert_store_is_sound().await;
    // What is being collected takes now more and now less; a copy of a tree for each reload would take more each time.
    assert!(most[3] <= most[1] + most[1] / 10 + 4096, "{most:?} kB");
}

fn stored(status: &Value) -> u64 {
    let tenants = status["tenants"].as_array().map(Vec::as_slice).unwrap_or_default();
    tenants.iter().filter_map(|tenant| tenant["stored_today"]["blobs"].as_u64()).sum()
}
