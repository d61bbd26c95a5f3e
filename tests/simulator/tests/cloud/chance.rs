//! Everything random comes from the seed.

use tenantry_simulator::{BlobSpec, Cloud, ContentType, Feed, Quirks, Scenario, Tenant};

use crate::activity::{SECOND, wait_until};
use crate::client::*;

fn odd(seed: u64) -> Cloud {
    let quirks = Quirks {
        duplicates: 0.05,
        foreign_organization: 0.3,
        same_instant: 0.2,
        late: 0.1,
        late_hours: 500.0,
        fault_point: 0.1,
        ..Quirks::default()
    };
    let feed = Feed::new(ContentType::SharePoint).backlog(60, 3.0).records(10, 30).quirks(quirks);
    Cloud::start(Scenario { seed, ..scenario() }.tenant(Tenant::new(TENANT, "C").feed(feed))).unwrap()
}

#[test]
fn the_same_seed_offers_the_same_and_another_does_not() {
    let (one, same, other) = (odd(5).ledger(), odd(5).ledger(), odd(6).ledger());
    assert_eq!(one.expected_ids(TENANT), same.expected_ids(TENANT));
    assert!(one.expected_ids(TENANT).is_disjoint(&other.expected_ids(TENANT)));
}

#[test]
fn young_content_appears_with_delay_and_is_partial_at_first() {
    let quirks = Quirks { listed_within_ms: 60_000, partial_for_ms: 3_600_000, ..Quirks::default() };
    let feed = Feed::new(ContentType::General).records(20, 20).live_every_ms(5).quirks(quirks);
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").feed(feed).subscribed())).unwrap();
    wait_until(|| cloud.ledger().blobs.len() > 60);
    let ledger = cloud.ledger();
    let hidden = ledger.blobs.iter().filter(|b| b.visible_from > ledger.at).count();
    assert!(hidden > 40, "{hidden} hidden of {}", ledger.blobs.len());
    let visible = cloud.control().add_blobs(BlobSpec::new(TENANT, ContentType::General).created_ago(SECOND));
    assert_eq!(cloud.ledger().blobs[usize::try_from(visible[0]).unwrap()].partial_until, None);
    let client = Client::new(&cloud, TENANT);
    wait_until(|| client.list(ContentType::General, "").json().as_array().unwrap().len() > 1);
    let entries = client.list_all(ContentType::General, "");
    let sizes: Vec<usize> = entries
        .iter()
        .map(|e| client.get(e["contentUri"].as_str().unwrap()).json().as_array().unwrap().len())
        .collect();
    assert!(sizes.contains(&10), "half of the records at first: {sizes:?}");
}

#[test]
fn some_of_the_backlog_expires() {
    let quirks = Quirks { expiring: 0.5, expires_in_ms: 2500, ..Quirks::default() };
    let feed = Feed::new(ContentType::General).backlog(40, 0.9).quirks(quirks);
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").feed(feed).subscribed())).unwrap();
    assert_eq!(Client::new(&cloud, TENANT).list_all(ContentType::General, "").len(), 40);
    wait_until(|| cloud.ledger().lost(TENANT).count() > 0);
    let ledger = cloud.ledger();
    let lost = ledger.lost(TENANT).count();
    assert!((8..=32).contains(&lost), "{lost} of 40");
    assert_eq!(ledger.offered(TENANT).count(), 40 - lost);
}

#[test]
fn quirks_happen_about_as_often_as_wished() {
    let ledger = odd(5).ledger();
    let late = ledger.blobs.iter().filter(|b| b.visible_from > ledger.at).count();
    assert!((1..=14).contains(&late), "{late} late of 60");
    assert_eq!(ledger.offered(TENANT).count(), 60 - late);
    let records: usize = ledger.blobs.iter().map(|b| b.record_ids().len()).sum();
    let repeated = ledger.occurrences(TENANT).values().filter(|n| **n > 1).count();
    assert!((records / 60..records / 10).contains(&repeated), "{repeated} repeated of {records}");
    let bodies: String = ledger.blobs.iter().map(|b| String::from_utf8(b.body()).unwrap()).collect();
    assert!(bodies.contains("TenantryFaultPoint"));
    assert!(
        bodies.matches("\"OrganizationId\"").count()
            > bodies.matches(&format!("\"OrganizationId\":\"{TENANT}\"")).count()
    );
    let instants: std::collections::BTreeSet<_> = ledger.blobs.iter().map(|b| b.content_created).collect();
    assert!(instants.len() < 60, "some share their contentCreated");
    let ids: std::collections::BTreeSet<_> = ledger.blobs.iter().map(|b| &b.content_id).collect();
    assert_eq!(ids.len(), 60);
}
