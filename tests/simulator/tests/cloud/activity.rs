//! Subscriptions, listings and blobs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tenantry_simulator::{
    BlobSpec, Cloud, Command, ContentType, Endpoint, Feed, Gzip, Quirks, SubscriptionStatus, Tenant, TenantMismatch,
    Throttle, ThrottleShape,
};

use crate::client::*;

const EXCHANGE: ContentType = ContentType::Exchange;
/// A window ends before now: what is created in the same millisecond is not in it yet.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

fn contoso() -> Tenant {
    Tenant::new(TENANT, "Contoso").domain("contoso.example")
}

fn with_backlog(blobs: u32, days: f64) -> Cloud {
    Cloud::start(scenario().tenant(contoso().feed(Feed::new(EXCHANGE).backlog(blobs, days)).subscribed())).unwrap()
}

#[test]
fn a_subscription_is_started_listed_stopped_and_started_again() {
    let cloud = Cloud::start(scenario().tenant(contoso())).unwrap();
    let client = Client::new(&cloud, TENANT);
    let list = || client.get(&format!("{}/subscriptions/list", client.root())).json();
    assert_eq!(list(), json!([]));
    assert_eq!(client.list(EXCHANGE, "").code(), "AF20022");
    let started = client.start(EXCHANGE);
    assert_eq!((started.status, started.json()["status"].clone()), (200, json!("enabled")));
    assert_eq!(list(), json!([{ "contentType": "Audit.Exchange", "status": "enabled", "webhook": null }]));
    assert_eq!(client.list(EXCHANGE, "").json(), json!([]));
    let again = client.start(EXCHANGE);
    assert_eq!(again.status, 429);
    assert!(again.json()["error"]["message"].as_str().unwrap().contains("Please retry again after 1"), "{again:?}");
    assert_eq!(cloud.ledger().violations.len(), 1, "a start within the cool-down");
    cloud.control().apply(Command::SetStartCooldown(0));
    assert_eq!((client.start(EXCHANGE).status, client.start(EXCHANGE).code().as_str()), (400, "AF20024"));
    assert_eq!(client.post("subscriptions/stop?contentType=Audit.Exchange", "").status, 200);
    assert_eq!(list(), json!([]));
    // What is created meanwhile is never listed.
    let withheld = cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE))[0];
    assert_eq!(client.start(EXCHANGE).status, 200);
    let kept = cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE).created_ago(SECOND))[0];
    let entries = client.list_all(EXCHANGE, "");
    let ledger = cloud.ledger();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["contentId"], ledger.blobs[usize::try_from(kept).unwrap()].content_id);
    assert!(ledger.blobs[usize::try_from(withheld).unwrap()].withheld);
    assert_eq!(ledger.offered(TENANT).map(|b| b.number).collect::<Vec<_>>(), [kept]);
}

#[test]
fn odd_starts_are_answered_as_documented() {
    let cloud = Cloud::start(scenario().tenant(contoso().audit_log_off())).unwrap();
    let client = Client::new(&cloud, TENANT);
    assert_eq!(client.post("subscriptions/start?x=1", "").code(), "AF20001");
    assert_eq!(client.post("subscriptions/start?contentType=Audit.Everything", "").code(), "AF20020");
    let off = client.start(EXCHANGE);
    assert_eq!(off.status, 400);
    assert!(off.code().starts_with("StartSubscription [") && off.code().contains("failed. Exception: "), "{off:?}");
    assert!(off.json()["error"]["message"].as_str().unwrap().contains(&format!("Tenant {TENANT} does not exist")));
    cloud.control().set_audit_log(TENANT, true);
    cloud.control().apply(Command::SetStartCooldown(0));
    let start = "subscriptions/start?contentType=Audit.Exchange";
    let plain = client.post(start, r#"{"webhook":{"address":"http://hook.example/"}}"#);
    assert_eq!(plain.code(), "AF20021");
    assert_eq!(client.start(EXCHANGE).status, 200);
    cloud.control().set_subscription(TENANT, EXCHANGE, SubscriptionStatus::Disabled);
    assert_eq!(client.list(EXCHANGE, "").code(), "AF20023");
}

#[test]
fn the_cooldown_can_be_told_as_a_403() {
    let mut scenario = scenario().tenant(contoso());
    scenario.service.cooldown_as_403 = true;
    let cloud = Cloud::start(scenario).unwrap();
    let client = Client::new(&cloud, TENANT);
    client.start(EXCHANGE);
    let again = client.start(EXCHANGE);
    assert_eq!((again.status, again.code().as_str()), (403, "429"));
}

#[test]
fn pages_lead_through_everything_exactly_once() {
    let cloud =
        Cloud::start(scenario().page_size(7).tenant(contoso().feed(Feed::new(EXCHANGE).backlog(40, 0.9)).subscribed()))
            .unwrap();
    let client = Client::new(&cloud, TENANT);
    let first = client.list(EXCHANGE, "");
    assert_eq!(first.json().as_array().unwrap().len(), 7);
    assert!(first.headers.iter().any(|(n, _)| n == "NextPageUri"), "the name's case is kept");
    let link = first.header("NextPageUri").unwrap();
    let query = link.split_once('?').unwrap().1;
    assert!(link.starts_with(&format!("{}/api/v1.0/{TENANT}/activity/feed/subscriptions/content?", cloud.url())));
    assert!(
        query.starts_with("contenttype=Audit.Exchange&endtime=") && !query.to_lowercase().contains("publisher"),
        "{query}"
    );
    let time = query.split("starttime=").nth(1).unwrap().split('&').next().unwrap();
    assert_eq!(time.len(), "2020-02-20T10:46:42.0000000Z".len(), "{time}");
    let ids: Vec<String> =
        client.list_all(EXCHANGE, "").iter().map(|e| e["contentId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 40);
    let created: Vec<_> = client.list_all(EXCHANGE, "").iter().map(|e| e["contentCreated"].to_string()).collect();
    assert!(created.is_sorted(), "in the order of availability");
    let bad =
        client.get(&format!("{}/subscriptions/content?contentType=Audit.Exchange&nextPage=nonsense", client.root()));
    assert_eq!(bad.code(), "AF20031");
    assert_eq!(cloud.ledger().violations.len(), 0, "{:?}", cloud.ledger().violations);
}

#[test]
fn links_and_their_header_have_other_forms() {
    let mut scenario = scenario().page_size(1).tenant(contoso().feed(Feed::new(EXCHANGE).backlog(3, 0.5)).subscribed());
    scenario.service.rewritten_next_page = false;
    scenario.service.next_page_header = "NextPageUrl".to_owned();
    let cloud = Cloud::start(scenario).unwrap();
    let client = Client::new(&cloud, TENANT);
    let first = client.list(EXCHANGE, "");
    let link = first.header("NextPageUrl").unwrap();
    assert!(
        link.contains("/api/v1/")
            && link.contains("contentType=Audit.Exchange&startTime=")
            && link.contains("&nextPage="),
        "{link}"
    );
    assert_eq!(client.get(link).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_window_takes_its_start_and_leaves_its_end() {
    let cloud = Cloud::start(scenario().tenant(contoso().subscribed())).unwrap();
    let client = Client::new(&cloud, TENANT);
    client.start(EXCHANGE);
    let numbers = cloud.control().add_blobs(
        BlobSpec::new(TENANT, EXCHANGE).count(3).created_ago(Duration::from_hours(2)).apart(Duration::from_mins(10)),
    );
    let blobs = cloud.ledger().blobs;
    let created = |n: usize| {
        blobs[usize::try_from(numbers[n]).unwrap()].content_created.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string()
    };
    let ids = |start: &str, end: &str| client.list_all(EXCHANGE, &format!("&startTime={start}&endTime={end}")).len();
    assert_eq!(ids(&created(0), &created(2)), 2);
    assert_eq!(ids(&created(1), &created(2)), 1);
    assert_eq!(ids(&format!("{}Z", created(0)), &format!("{}0000Z", created(1))), 1);
}

#[test]
fn forbidden_windows_are_refused_and_noted() {
    let cloud = with_backlog(3, 6.0);
    let client = Client::new(&cloud, TENANT);
    let now = cloud.ledger().at;
    let time =
        |hours_ago: i64| (now - jiff::SignedDuration::from_hours(hours_ago)).strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let code = |window: &str| client.list(EXCHANGE, window).code();
    assert_eq!(code(&format!("&startTime={}", time(3))), "AF20030");
    assert_eq!(code(&format!("&startTime={}&endTime={}", time(30), time(3))), "AF20030");
    assert_eq!(code(&format!("&startTime={}&endTime={}", time(3), time(30))), "AF20055");
    assert_eq!(code(&format!("&startTime={}&endTime={}", time(170), time(169))), "AF20055");
    assert_eq!(code("&startTime=soon&endTime=later"), "AF20002");
    let tolerated = client.list(
        EXCHANGE,
        &format!(
            "&startTime={}&endTime={}",
            (now - jiff::SignedDuration::from_mins(7 * 24 * 60 + 30)).strftime("%Y-%m-%dT%H:%M:%S"),
            time(167)
        ),
    );
    assert_eq!(tolerated.status, 200);
    assert_eq!(cloud.ledger().violations.len(), 6, "{:?}", cloud.ledger().violations);
    let text = client.list(EXCHANGE, &format!("&startTime={}", time(3))).json()["error"]["message"].to_string();
    assert!(text.contains(&format!("StartTime:{}", time(3))), "{text}");
}

#[test]
fn bodies_come_as_the_ledger_has_them() {
    let cloud = with_backlog(12, 5.0);
    let client = Client::new(&cloud, TENANT);
    let ledger = cloud.ledger();
    let mut ids = BTreeSet::new();
    for (n, blob) in ledger.blobs.iter().enumerate() {
        let url = format!(
            "{}/audit/{}",
            client.root(),
            if n % 2 == 0 { blob.content_id.clone() } else { blob.content_id.replace('$', "%24") }
        );
        let answer = client.get(&url);
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert_eq!(answer.plain(), ledger.body(blob.number));
        ids.extend(answer.json().as_array().unwrap().iter().map(|r| r["Id"].as_str().unwrap().to_owned()));
        let plain = client.request("GET", &format!("{url}?PublisherIdentifier={PUBLISHER}"), &[], &[]).unwrap();
        assert_eq!((plain.header("content-encoding"), &plain.body), (None, &ledger.body(blob.number)));
    }
    assert_eq!(ids, ledger.expected_ids(TENANT));
    let ledger = cloud.ledger();
    assert!(ledger.blobs.iter().all(|b| b.fetched == 2));
    assert_eq!(ledger.requests(TENANT, Endpoint::Blob), 24);
    assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
    assert_eq!(client.get(&format!("{}/audit/2020$1$audit_exchange$x$y", client.root())).code(), "AF20050");
    assert_eq!(client.get(&format!("{}/audit/what", client.root())).code(), "AF20052");
}

#[test]
fn bodies_made_in_advance_are_the_same() {
    let tenant = || contoso().feed(Feed::new(EXCHANGE).backlog(6, 1.0).records(50, 90)).subscribed();
    let cloud = Cloud::start(scenario().precompress_mib(50).tenant(tenant())).unwrap();
    let plain = Cloud::start(scenario().gzip(Gzip::Never).tenant(tenant())).unwrap();
    for cloud in [&cloud, &plain] {
        let client = Client::new(cloud, TENANT);
        let ledger = cloud.ledger();
        for blob in &ledger.blobs {
            let url = format!("{}/audit/{}", client.root(), blob.content_id);
            assert_eq!(client.get(&url).plain(), ledger.body(blob.number));
            assert_eq!(client.request("GET", &url, &[], &[]).unwrap().body, ledger.body(blob.number));
        }
    }
    let ids = |cloud: &Cloud| cloud.ledger().expected_ids(TENANT);
    assert_eq!(ids(&cloud), ids(&plain), "the same seed gives the same records");
}

#[test]
fn late_blobs_appear_late_in_old_windows() {
    let cloud = with_backlog(0, 1.0);
    let client = Client::new(&cloud, TENANT);
    let number = cloud.control().add_blobs(
        BlobSpec::new(TENANT, EXCHANGE).created_ago(Duration::from_hours(3)).visible_in(Duration::from_millis(400)),
    )[0];
    assert_eq!(client.list_all(EXCHANGE, "").len(), 0);
    assert_eq!(cloud.ledger().offered(TENANT).count(), 0);
    let url = format!("{}/audit/{}", client.root(), cloud.ledger().blobs[usize::try_from(number).unwrap()].content_id);
    assert_eq!(client.get(&url).status, 404);
    wait_until(|| client.list_all(EXCHANGE, "").len() == 1);
    assert_eq!(cloud.ledger().offered(TENANT).count(), 1);
}

#[test]
fn young_blobs_can_be_partial() {
    let cloud = with_backlog(0, 1.0);
    let client = Client::new(&cloud, TENANT);
    cloud.control().add_blobs(
        BlobSpec::new(TENANT, EXCHANGE).created_ago(SECOND).records(20).partial_for(Duration::from_millis(400)),
    );
    let uri = client.list_all(EXCHANGE, "")[0]["contentUri"].as_str().unwrap().to_owned();
    assert_eq!(client.get(&uri).json().as_array().unwrap().len(), 10);
    assert_eq!(cloud.ledger().blobs[0].fetched, 0);
    wait_until(|| client.get(&uri).json().as_array().unwrap().len() == 20);
    assert!(cloud.ledger().blobs[0].fetched > 0);
}

#[test]
fn windows_that_cut_a_range_list_parts_that_make_a_whole() {
    let quirks = Quirks { ranges: 1.0, range_ms: 600_000, ..Quirks::default() };
    let feed = Feed::new(EXCHANGE).backlog(1, 0.01).records(40, 40).quirks(quirks);
    let cloud = Cloud::start(scenario().tenant(contoso().feed(feed).subscribed())).unwrap();
    let client = Client::new(&cloud, TENANT);
    let whole = cloud.ledger().blobs[0].clone();
    let time =
        |before: i64| (whole.content_created - jiff::SignedDuration::from_secs(before)).strftime("%FT%T").to_string();
    let list = |from: i64, to: i64| {
        let window = format!("&startTime={}&endTime={}", time(from), time(to));
        let entries = client.list_all(EXCHANGE, &window);
        let ids: Vec<_> = entries.iter().map(|entry| entry["contentId"].as_str().unwrap().to_owned()).collect();
        let ledger = cloud.ledger();
        let records = ids.iter().flat_map(|id| ledger.blob_named(TENANT, id).unwrap().record_ids());
        (ids.clone(), records.collect::<Vec<_>>())
    };
    assert_eq!(list(3600, -60), (vec![whole.content_id.clone()], whole.record_ids()));
    let (head, tail) = (list(3600, 300), list(300, -60));
    assert!(head.0.len() == 1 && tail.0.len() == 1 && head.0 != tail.0);
    assert!(!head.1.is_empty() && !tail.1.is_empty());
    assert_eq!([head.1, tail.1.clone()].concat(), whole.record_ids());
    assert_eq!(list(300, -60), tail, "the same window, the same part");
    assert_eq!(list(3600, 900).0, [""; 0]);
    assert_eq!(cloud.ledger().offered(TENANT).count(), 1, "a part is not offered besides the whole");
    let uri = format!("{}/api/v1.0/{TENANT}/activity/feed/audit/{}", client.url, tail.0[0]);
    let body: serde_json::Value = client.get(&uri).json();
    assert_eq!(body.as_array().unwrap().len(), tail.1.len());
}

#[test]
fn expired_blobs_are_gone_and_no_longer_expected() {
    let cloud = with_backlog(2, 1.0);
    let client = Client::new(&cloud, TENANT);
    let uri = client.list_all(EXCHANGE, "")[0]["contentUri"].as_str().unwrap().to_owned();
    cloud.control().expire_blobs([0]);
    let gone = client.get(&uri);
    assert_eq!((gone.status, gone.code().as_str()), (400, "AF20051"));
    assert_eq!(client.list_all(EXCHANGE, "").len(), 1);
    assert_eq!(cloud.ledger().offered(TENANT).count(), 1);
}

#[test]
fn repeated_foreign_and_faulty_records_are_in_their_blobs() {
    let cloud = with_backlog(1, 1.0);
    let client = Client::new(&cloud, TENANT);
    cloud.control().add_blobs(
        BlobSpec::new(TENANT, EXCHANGE)
            .created_ago(SECOND)
            .repeats([0])
            .foreign_organization(OTHER)
            .fault_point("panic"),
    );
    cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE).created_ago(SECOND).body(r#"[{"Id":"own-id"}]"#));
    let ledger = cloud.ledger();
    let first = ledger.blobs[0].record_ids()[0].clone();
    assert_eq!(ledger.occurrences(TENANT)[&first], 2);
    let entries = client.list_all(EXCHANGE, "");
    let records = client.get(entries[1]["contentUri"].as_str().unwrap()).json();
    assert_eq!(records[0]["Id"], first);
    assert!(records.as_array().unwrap().iter().any(|r| r["OrganizationId"] == OTHER.to_string()));
    assert!(records.as_array().unwrap().iter().any(|r| r["TenantryFaultPoint"] == "panic"));
    assert_eq!(client.get(entries[2]["contentUri"].as_str().unwrap()).plain(), br#"[{"Id":"own-id"}]"#);
    assert!(ledger.expected_ids(TENANT).contains("own-id"));
}

#[test]
fn tokens_open_only_their_own_tenant() {
    let cloud = Cloud::start(scenario().tenant(contoso()).tenant(Tenant::new(OTHER, "Other"))).unwrap();
    let mut client = Client::new(&cloud, TENANT);
    let list = |client: &Client| client.get(&format!("{}/subscriptions/list", client.root()));
    assert_eq!(list(&client).status, 200);
    client.tenant = OTHER;
    assert_eq!(list(&client).code(), "AF20010");
    assert!(cloud.ledger().violations[0].what.contains("a token of tenant"), "{:?}", cloud.ledger().violations);
    client.tenant = TENANT;
    cloud.control().revoke_tokens(TENANT);
    let denied = list(&client);
    assert_eq!(
        (denied.status, denied.json()),
        (401, json!({ "Message": "Authorization has been denied for this request." }))
    );
    client.token = "nonsense".to_owned();
    assert_eq!(list(&client).status, 401);
    cloud.control().set_token_lifetime(Duration::from_secs(1), None);
    let short = Client::new(&cloud, TENANT);
    wait_until(|| list(&short).status == 401);
    let wrong = token_by_secret(&cloud, TENANT, SECRET, "https://manage-gcc.office.com/.default").json();
    client.token = wrong["access_token"].as_str().unwrap().to_owned();
    assert_eq!(list(&client).code(), "AF10001", "an audience of another cloud");
}

#[test]
fn a_service_that_trusts_the_token_serves_its_tenant() {
    let mut scenario = scenario()
        .tenant(contoso().feed(Feed::new(EXCHANGE).backlog(2, 1.0)).subscribed())
        .tenant(Tenant::new(OTHER, "O"));
    scenario.service.tenant_mismatch = TenantMismatch::ServeTokenTenant;
    let cloud = Cloud::start(scenario).unwrap();
    let mut client = Client::new(&cloud, TENANT);
    client.tenant = OTHER;
    let uri = client.list(EXCHANGE, "").json()[0]["contentUri"].as_str().unwrap().to_owned();
    assert!(uri.contains(&TENANT.to_string()));
    assert_eq!(client.get(&uri).status, 200);
}

#[test]
fn publishers_are_noted_and_budgets_kept() {
    let mut scenario = scenario().tenant(contoso().requests_per_minute(3));
    scenario.service.unidentified_per_minute = Some(1);
    scenario.service.throttle = Throttle { shape: ThrottleShape::Forbidden, retry_after_s: Some(2) };
    let cloud = Cloud::start(scenario).unwrap();
    let client = Client::new(&cloud, TENANT);
    let url = format!("{}/subscriptions/list", client.root());
    let anonymous = || client.request("GET", &url, &[], &[]).unwrap();
    assert_eq!(anonymous().status, 200);
    let refused = anonymous();
    assert_eq!((refused.status, refused.code().as_str()), (403, "AF429"));
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .ends_with("PublisherId=00000000-0000-0000-0000-000000000000")
    );
    assert_eq!(client.get(&url).status, 200);
    assert_eq!(client.get(&url).status, 200);
    let over = client.get(&url);
    assert_eq!((over.status, over.header("retry-after")), (403, Some("2")));
    let bad = client.request("GET", &format!("{url}?PublisherIdentifier=us"), &[], &[]).unwrap();
    assert_eq!(bad.code(), "AF20002");
    let ledger = cloud.ledger();
    let told: Vec<&str> = ledger
        .violations
        .iter()
        .map(|v| v.what.as_str())
        .filter(|w| w.contains("PublisherIdentifier"))
        .filter(|w| !w.contains("wait"))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(ledger.tenants[&TENANT].publishers[&PUBLISHER.to_string()], 3);
    assert_eq!(ledger.tenants[&TENANT].publishers[""], 2);
}

#[test]
fn a_request_during_a_wait_is_a_violation() {
    let cloud = Cloud::start(scenario().tenant(contoso().requests_per_minute(1))).unwrap();
    cloud.control().set_budget(TENANT, Some(1));
    let client = Client::new(&cloud, TENANT);
    let url = format!("{}/subscriptions/list", client.root());
    assert_eq!(client.get(&url).status, 200);
    assert_eq!(client.get(&url).status, 403);
    assert_eq!(cloud.ledger().violations.len(), 0);
    wait_until(|| {
        client.get(&url);
        !cloud.ledger().violations.is_empty()
    });
    assert!(cloud.ledger().violations[0].what.contains("before a delivered wait ended"));
}

#[test]
fn live_content_comes_by_itself_until_paused() {
    let cloud =
        Cloud::start(scenario().tenant(contoso().feed(Feed::new(EXCHANGE).live_every_ms(20)).subscribed())).unwrap();
    wait_until(|| cloud.ledger().offered(TENANT).count() >= 5);
    cloud.control().pause();
    let still = cloud.ledger().blobs.len();
    let paused = std::time::Instant::now();
    wait_until(|| paused.elapsed() > Duration::from_millis(120));
    assert_eq!(cloud.ledger().blobs.len(), still);
    cloud.control().resume();
    wait_until(|| cloud.ledger().blobs.len() > still);
    cloud.control().add_tenant(Tenant::new(OTHER, "O").feed(Feed::new(ContentType::General).live_every_ms(20)));
    wait_until(|| cloud.ledger().offered(OTHER).count() > 2);
}

#[test]
fn the_rest_of_the_api_answers() {
    let cloud = with_backlog(1, 1.0);
    let client = Client::new(&cloud, TENANT);
    let types = client.get(&format!("{}/resources/dlpSensitiveTypes", client.root())).json();
    assert!(types.as_array().unwrap().iter().all(|t| t["id"].is_string() && t["name"].is_string()));
    let asked = |language: &str| {
        let url = format!("{}/resources/dlpSensitiveTypes?PublisherIdentifier={PUBLISHER}", client.root());
        client.request("GET", &url, &[("accept-language", language)], b"").unwrap()
    };
    assert_eq!(asked("de-DE").json()[0]["name"], "Zahlungskartennummer");
    for english in ["en-US", "fr"] {
        assert_eq!(asked(english).json(), types, "{english}");
    }
    assert_eq!((asked("de, en").code(), asked("de;q=1").code()), ("AF20053".to_owned(), "AF20054".to_owned()));
    cloud.control().set_sensitive_types(TENANT, &[("a", "Badge")]);
    assert_eq!(asked("de").json(), json!([{ "id": "a", "name": "Badge" }]));
    let notifications =
        client.get(&format!("{}/subscriptions/notifications?contentType=Audit.Exchange", client.root()));
    assert_eq!(notifications.json(), json!([]));
    assert_eq!(client.get(&format!("{}/subscriptions/other", client.root())).status, 404);
    let date = notifications.header("date").unwrap();
    assert!(date.ends_with(" GMT") && date.len() == "Sun, 22 Nov 2026 14:22:07 GMT".len(), "{date}");
}

#[test]
fn a_publisher_is_named_once() {
    let cloud = with_backlog(0, 1.0);
    let client = Client::new(&cloud, TENANT);
    let list = format!("{}/subscriptions/list?publisheridentifier={PUBLISHER}", client.root());
    client.get(&list);
    client.get(&format!("{list}&PublisherIdentifier={OTHER}"));
    let told: Vec<_> = cloud.ledger().violations.into_iter().map(|remark| remark.what).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("PublisherIdentifier 2 times") && told[1].starts_with("PublisherIdentifier 3 times"));
}

#[test]
fn a_subscription_that_is_started_again_may_limp() {
    let mut scenario = scenario().tenant(contoso().feed(Feed::new(EXCHANGE).backlog(2, 0.5)).subscribed());
    scenario.service.limp_after_restart_ms = 500;
    scenario.service.start_cooldown_s = 0;
    let cloud = Cloud::start(scenario).unwrap();
    let client = Client::new(&cloud, TENANT);
    let uri = client.list_all(EXCHANGE, "")[0]["contentUri"].as_str().unwrap().to_owned();
    assert_eq!(client.post("subscriptions/stop?contentType=Audit.Exchange", "").status, 200);
    assert_eq!(client.start(EXCHANGE).json()["status"], "enabled");
    assert_eq!(client.get(&format!("{}/subscriptions/list", client.root())).json()[0]["status"], "enabled");
    assert_eq!((client.list(EXCHANGE, "").code().as_str(), client.get(&uri).code().as_str()), ("AF20023", "AF20023"));
    assert_eq!(client.start(EXCHANGE).code(), "AF20024");
    wait_until(|| client.list(EXCHANGE, "").status == 200);
    assert_eq!(client.get(&uri).status, 200);
}

#[test]
fn the_blobs_of_dlp_want_its_role_too() {
    let tenant = contoso().consent(APP, &["ActivityFeed.Read"]).feed(Feed::new(ContentType::Dlp).backlog(1, 0.5));
    let cloud = Cloud::start(scenario().tenant(tenant.subscribed())).unwrap();
    let client = Client::new(&cloud, TENANT);
    let uri = format!("{}/audit/{}", client.root(), cloud.ledger().blobs[0].content_id);
    let refused = client.get(&uri);
    assert_eq!((refused.status, refused.code().as_str()), (401, "AF10001"));
    cloud.control().grant(TENANT, APP, &["ActivityFeed.Read", "ActivityFeed.ReadDlp"]);
    assert_eq!(Client::new(&cloud, TENANT).get(&uri).status, 200);
}

/// Waits for a condition, up to twenty seconds.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the condition did not come true");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
