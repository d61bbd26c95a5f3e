//! One tenant's trouble never delays another.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{ContentType, Effect, Endpoint, Fault, Feed, Point, Quirks, Scenario, Tenant};
use uuid::Uuid;

use crate::skip::not_here;
use crate::world::{World, assert_no_violations, offered, tenant_id};

const LIVE: u32 = 20;
const BACKLOG: u32 = 101;
const STALLS: u32 = 102;
const PANICS: u32 = 103;
const SILENT: u32 = 104;
const BREAKS_OFF: u32 = 105;

fn live(number: u32) -> Tenant {
    Tenant::new(tenant_id(number), &format!("live-{number}"))
        .feed(Feed::new(ContentType::Exchange).records(2, 8).live_every_ms(500))
}

/// For how long lags are measured; `None` if this run is not for measuring.
fn measured() -> Option<Duration> {
    let seconds = std::env::var("TENANTRY_TEST_ISOLATION_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().unwrap()))
}

/// The 99th percentile, in milliseconds, of the time from a live blob's availability until it was stored.
async fn lag_p99(scenario: Scenario, measured: Duration) -> (u64, World) {
    let world = World::new(scenario, "[collect]\npoll_interval = \"1s\"\n[daemon]\nstart_spread = \"0s\"\n");
    let mut daemon = world.run();
    daemon
        .wait("every live tenant has stored something", |status| {
            status["tenants"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|tenant| {
                    tenant["name"].as_str().unwrap().starts_with("live-")
                        && tenant["stored_today"]["blobs"].as_u64() > Some(0)
                })
                .count()
                == LIVE as usize
        })
        .await;
    let begin = world.cloud.ledger().at;
    tokio::time::sleep(measured).await;
    let end = world.cloud.ledger().at;
    let ids: BTreeSet<Uuid> = (1..=LIVE).map(tenant_id).collect();
    // The lag is right only if nothing is missing.
    world.cloud.control().pause();
    let ledger = world.cloud.ledger();
    daemon
        .wait("all of the live tenants' content is stored", |status| {
            ids.iter().all(|id| {
                let named = |tenant: &&Value| tenant["id"] == id.to_string().as_str();
                let stored = status["tenants"].as_array().unwrap().iter().find(named);
                stored.and_then(|tenant| tenant["stored_today"]["blobs"].as_u64()) >= Some(offered(&ledger, *id))
            })
        })
        .await;
    assert!(daemon.stop().await.success());
    world.assert_collected_of(ids.clone(), &ledger);
    assert_no_violations(&world.cloud.ledger());
    let mut lags: Vec<u64> = world
        .stored_blobs()
        .into_iter()
        .filter(|blob| ids.contains(&blob.tenant) && blob.content_created >= begin && blob.stored_at <= end)
        .map(|blob| u64::try_from(blob.stored_at.duration_since(blob.content_created).as_millis().max(0)).unwrap())
        .collect();
    lags.sort_unstable();
    assert!(lags.len() >= LIVE as usize * 5, "only {} blobs were stored", lags.len());
    (lags[lags.len() * 99 / 100], world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_a_staller_and_a_panicking_parser_do_not_delay_the_others() {
    let Some(measured) = measured() else {
        return not_here("a measurement, for a quiet machine: .ci/long runs it");
    };
    let alone = (1..=LIVE).map(live).fold(Scenario::new(41), Scenario::tenant);
    let (alone_ms, _) = lag_p99(alone.clone(), measured).await;

    let backlog = Feed::new(ContentType::SharePoint).backlog(50_000, 6.0).records(20, 60);
    let panics = Feed::new(ContentType::General)
        .backlog(20, 1.0)
        .live_every_ms(300)
        .quirks(Quirks { fault_point: 1.0, ..Quirks::default() });
    let beside = alone
        .tenant(Tenant::new(tenant_id(BACKLOG), "backlog").feed(backlog))
        .tenant(Tenant::new(tenant_id(PANICS), "panics").feed(panics));
    // One gets no answer at all and never comes to list; the others stall where slots, memory and connections are held.
    let endless = |at| Effect::Stall { at, for_ms: None };
    let content = [Endpoint::List, Endpoint::Blob];
    let beside = [
        (STALLS, "stalls", Fault::new(endless(Point::BeforeHeaders))),
        (SILENT, "silent", Fault::new(endless(Point::BeforeHeaders)).on([Endpoint::Blob])),
        (BREAKS_OFF, "breaks-off", Fault::new(endless(Point::MidBody)).on(content)),
    ]
    .into_iter()
    .fold(beside, |scenario, (number, name, fault)| {
        let feed = Feed::new(ContentType::General).backlog(100, 1.0).live_every_ms(500);
        scenario.tenant(Tenant::new(tenant_id(number), name).feed(feed)).fault(fault.tenant(tenant_id(number)))
    });
    let (beside_ms, world) = lag_p99(beside, measured).await;
    let ratio = f64::from(u32::try_from(beside_ms).unwrap()) / f64::from(u32::try_from(alone_ms).unwrap());
    #[expect(clippy::print_stderr, reason = "the figure belongs to the test's output")]
    {
        eprintln!("p99 lag of the {LIVE}: alone {alone_ms} ms, beside the others {beside_ms} ms, ratio {ratio:.2}");
    }
    assert!(ratio <= 2.0, "alone {alone_ms} ms, beside the others {beside_ms} ms");
    let log = std::fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("panic"), "the fault point did not strike");
    let ledger = world.cloud.ledger();
    for (number, stage) in [(STALLS, Endpoint::Token), (SILENT, Endpoint::Blob), (BREAKS_OFF, Endpoint::List)] {
        assert!(ledger.requests(tenant_id(number), stage) > 0, "tenant {number} never came to {stage:?}");
    }
}
