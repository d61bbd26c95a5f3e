//! One tenant's trouble never delays another.

use std::time::Duration;

use tenantry_simulator::{ContentType, Effect, Fault, Feed, Point, Quirks, Scenario, Tenant, When};
use uuid::Uuid;

use crate::skip::not_here;
use crate::world::{World, tenant_id};

const LIVE: u32 = 20;
const BACKLOG: u32 = 101;
const STALLS: u32 = 102;
const PANICS: u32 = 103;

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
    assert!(daemon.stop().await.success());
    let ids: Vec<Uuid> = (1..=LIVE).map(tenant_id).collect();
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
        .tenant(Tenant::new(tenant_id(STALLS), "stalls").feed(Feed::new(ContentType::General).backlog(100, 1.0)))
        .tenant(Tenant::new(tenant_id(PANICS), "panics").feed(panics))
        .fault(Fault {
            tenant: Some(tenant_id(STALLS)),
            on: Vec::new(),
            content_type: None,
            when: When::Always,
            effect: Effect::Stall { at: Point::BeforeHeaders, for_ms: None },
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
}
