//! The Activity API client against the simulated service: every endpoint, every fault, and the service's books.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tenantry::activity::{ActivityClient, ActivityError, Limits, Page, Window};
use tenantry::clock::{Clock as _, ServiceTime, SystemClock};
use tenantry::cloud::{Cloud, Management, TokenEndpoint};
use tenantry::content::{ContentBlob, ContentType};
use tenantry::http::{Http, Timeouts};
use tenantry::retry::Advice;
use tenantry::secret::Secret;
use tenantry::token::{AccessToken, AppAlarms, Credential, TokenRequest, TokenSource};
use tenantry_simulator::{
    ACTIVITY_READ, App, BadJson, Effect, Endpoint, ErrorBody, Fault, Feed, Gzip, Point, Scenario, SubscriptionStatus,
    Tenant, Throttle, ThrottleShape,
};
use uuid::Uuid;

const APP: Uuid = Uuid::from_u128(0xa609_9727_6b7b_482c_b509_1df3_09ac_c563);
const TENANT: Uuid = Uuid::from_u128(0x4146_3f53_8812_40f4_890f_865b_f6e3_5190);
const PUBLISHER: Uuid = Uuid::from_u128(0x46b4_72a7_c68e_4adf_8ade_3db4_9749_518e);
const TYPE: ContentType = ContentType::Exchange;

/// The service's name for [`TYPE`].
const FEED: tenantry_simulator::ContentType = tenantry_simulator::ContentType::Exchange;

struct Setup {
    cloud: tenantry_simulator::Cloud,
    client: ActivityClient,
    time: Arc<ServiceTime>,
    token: AccessToken,
}

/// One tenant with 25 blobs of the last two hours, subscribed.
fn scenario() -> Scenario {
    Scenario::new(7)
        .app(App::new(APP).secret("s3cret"))
        .tenant(Tenant::new(TENANT, "Contoso").feed(Feed::new(FEED).backlog(25, 0.08).records(5, 60)).subscribed())
        .publisher(PUBLISHER)
}

async fn setup(scenario: Scenario) -> Setup {
    let limits = Limits { max_compressed: 16 << 20, max_decompressed: 16 << 20 };
    // The stall limit is short: the simulated service answers at once or, where told so, not at all.
    let timeouts = Timeouts { stall: Duration::from_secs(2), ..Timeouts::default() };
    let simulator = tenantry_simulator::Cloud::start(scenario).unwrap();
    let url: url::Url = simulator.url().parse().unwrap();
    let cloud = Arc::new(Cloud {
        name: "simulated".to_owned(),
        authority: url.clone(),
        management: Some(Management { host: url.clone(), audience: "https://manage.office.com".to_owned() }),
        graph: url,
        graph_audience: "https://graph.microsoft.com".to_owned(),
    });
    let http = Http::direct(timeouts).unwrap();
    let clock = Arc::new(SystemClock);
    let time = Arc::new(ServiceTime::new(clock.clone()));
    let request = TokenRequest {
        cloud: Arc::clone(&cloud),
        tenant: TENANT.into(),
        audience: cloud.audience().to_owned(),
        endpoint: TokenEndpoint::V2,
        app: String::new(),
        client_id: APP.to_string(),
        credential: Credential::Secret(Secret::from("s3cret".to_owned())),
        renew_after: Duration::from_mins(45),
    };
    let source = TokenSource::new(request, http.control.clone(), clock, Arc::clone(&time), &AppAlarms::new());
    let token = source.token().await.unwrap();
    let management = cloud.management.clone().unwrap();
    let client = ActivityClient::new(management, TENANT.into(), PUBLISHER, http, Arc::clone(&time), limits);
    Setup { cloud: simulator, client, time, token }
}

impl Setup {
    async fn list(&self) -> Result<Page, ActivityError> {
        let now = SystemClock.now();
        let window = Window { start: now - SignedDuration::from_hours(23), end: now + SignedDuration::from_secs(1) };
        self.client.list_content(&self.token, TYPE, window).await
    }

    /// Every page of the listing, and how many there were.
    async fn list_all(&self) -> (Vec<ContentBlob>, usize) {
        let mut page = self.list().await.unwrap();
        let (mut all, mut pages) = (Vec::new(), 1);
        loop {
            assert_eq!(page.refused, []);
            all.append(&mut page.entries);
            let Some(link) = page.next.take() else { return (all, pages) };
            page = self.client.next_page(&self.token, &link).await.unwrap();
            pages += 1;
        }
    }

    async fn fetch(&self, blob: &ContentBlob) -> Result<Vec<u8>, ActivityError> {
        let mut body = self.client.fetch_blob(&self.token, blob).await?;
        let mut all = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            assert!(chunk.len() <= 256 << 10);
            all.extend_from_slice(chunk);
        }
        Ok(all)
    }

    /// What the service holds against us, and what reached the host that it wanted to lead us to.
    fn assert_clean(&self) {
        let ledger = self.cloud.ledger();
        assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
        assert_eq!(ledger.foreign_requests, 0);
    }
}

#[tokio::test]
async fn everything_offered_is_listed_and_arrives_byte_for_byte() {
    // Page links as the service writes them: lower-case names, without a publisher, and its `$`.
    for (gzip, header) in [(Gzip::WhenAccepted, "NextPageUri"), (Gzip::Never, "nextpageurl")] {
        let mut scenario = scenario().page_size(10).gzip(gzip);
        scenario.service.next_page_header = header.to_owned();
        let setup = setup(scenario).await;
        let (listed, pages) = setup.list_all().await;
        assert_eq!((listed.len(), pages), (25, 3));
        let ledger = setup.cloud.ledger();
        for blob in &listed {
            let offered = ledger.blob_named(TENANT, blob.content_id.as_str()).unwrap();
            assert!(setup.fetch(blob).await.unwrap() == offered.body(), "{}", blob.content_id);
            assert_eq!(blob.content_type, TYPE);
            assert_eq!(blob.content_expiration.as_second(), offered.content_expiration.as_second());
        }
        assert!(setup.time.confirmed().is_some());
        setup.assert_clean();
        let publishers = &setup.cloud.ledger().tenants[&TENANT].publishers;
        assert_eq!(publishers.keys().collect::<Vec<_>>(), [&PUBLISHER.to_string()]);
    }
}

#[tokio::test]
async fn the_life_of_a_subscription() {
    let mut scenario = scenario();
    scenario.tenants[0].subscribed.clear();
    let Setup { cloud, client, token, .. } = setup(scenario).await;
    assert_eq!(client.list_subscriptions(&token).await.unwrap(), []);
    let started = client.start_subscription(&token, TYPE, None).await.unwrap();
    assert_eq!((started.content_type, started.enabled, started.webhook), (TYPE, true, None));
    let listed = client.list_subscriptions(&token).await.unwrap();
    assert!(listed.iter().any(|subscription| subscription.content_type == TYPE && subscription.enabled));

    for as_403 in [false, true] {
        let other = ContentType::SharePoint;
        let mut scenario = self::scenario();
        scenario.service.cooldown_as_403 = as_403;
        let Setup { client, token, cloud: _kept, .. } = setup(scenario).await;
        client.start_subscription(&token, other, None).await.unwrap();
        let error = client.start_subscription(&token, other, None).await.unwrap_err();
        assert_eq!(error.kind(), "start_cooldown", "{error:?}");
        let Advice::Retry { after: Some(wait) } = error.advice() else { panic!("{:?}", error.advice()) };
        assert!(wait > Duration::from_mins(14) && wait <= Duration::from_secs(901), "{wait:?}");
        // It is enabled from the start, and was never started: AF20024.
        assert!(client.start_subscription(&token, TYPE, None).await.unwrap().enabled);
    }

    client.stop_subscription(&token, TYPE).await.unwrap();
    cloud.control().set_subscription(TENANT, FEED, SubscriptionStatus::Disabled);
    let now = SystemClock.now();
    let window = Window { start: now - SignedDuration::from_hours(1), end: now };
    let error = client.list_content(&token, TYPE, window).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("subscription_disabled", Advice::CheckSubscription));
    let error = client.list_content(&token, ContentType::General, window).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("not_subscribed", Advice::CheckSubscription));

    cloud.control().set_audit_log(TENANT, false);
    let error = client.start_subscription(&token, ContentType::General, None).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("audit_log_off", Advice::PauseTenant));
    let trouble = error.trouble();
    assert!(trouble.needs_operator && trouble.remedy.contains("Set-AdminAuditLogConfig"), "{trouble}");
    assert_eq!(trouble.code, None);
    assert!(trouble.correlation_id.is_some());
}

#[tokio::test]
async fn notifications_and_sensitive_types_can_be_read() {
    let setup = setup(scenario()).await;
    let now = SystemClock.now();
    let window = Window { start: now - SignedDuration::from_hours(1), end: now };
    let page = setup.client.list_notifications(&setup.token, TYPE, window).await.unwrap();
    assert_eq!((page.refused, page.next), (Vec::new(), None));
    let types = setup.client.dlp_sensitive_types(&setup.token, Some("en-US")).await.unwrap();
    assert!(types.iter().all(|kind| kind.id.parse::<Uuid>().is_ok() && !kind.name.is_empty()) && !types.is_empty());
    setup.assert_clean();
}

#[tokio::test]
async fn tokens_that_are_not_good_enough() {
    let setup = setup(scenario()).await;
    let now = SystemClock.now();
    let window = Window { start: now - SignedDuration::from_hours(1), end: now };
    setup.cloud.control().revoke_tokens(TENANT);
    let error = setup.list().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("token_refused", Advice::RenewToken));
    assert!(!error.trouble().needs_operator);

    // Without a role a token is issued all the same.
    let mut scenario = scenario();
    scenario.tenants[0] = scenario.tenants[0].clone().consent(APP, &[]);
    let bare = self::setup(scenario).await;
    let error = bare.list().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("permission_missing", Advice::RenewToken));
    assert!(error.trouble().needs_operator && error.trouble().code.as_deref() == Some("AF10001"));

    let mut scenario = self::scenario();
    scenario.tenants[0] = scenario.tenants[0].clone().consent(APP, &[ACTIVITY_READ]);
    let reader = self::setup(scenario).await;
    reader.list().await.unwrap();
    let error = reader.client.list_content(&reader.token, ContentType::Dlp, window).await.unwrap_err();
    assert_eq!(error.kind(), "permission_missing");
}

/// Each row: the fault, and the kind of error that a listing and a blob then end with.
fn faults() -> Vec<(Effect, &'static str)> {
    let status = |status, body| Effect::Status { status, body, retry_after_s: None };
    let throttled = |shape, retry_after_s| Effect::Throttled(Throttle { shape, retry_after_s });
    let af = |code: &str, status| Effect::Af { code: code.to_owned(), status, message: None };
    vec![
        (status(500, ErrorBody::Json), "service_failed"),
        (status(502, ErrorBody::Html), "unavailable"),
        (status(503, ErrorBody::Empty), "unavailable"),
        (status(504, ErrorBody::Text), "unavailable"),
        (status(408, ErrorBody::Empty), "request_timed_out"),
        (status(401, ErrorBody::Html), "token_refused"),
        (Effect::Denied, "token_refused"),
        (throttled(ThrottleShape::Forbidden, None), "throttled"),
        (throttled(ThrottleShape::TooManyRequests, None), "throttled"),
        (throttled(ThrottleShape::PlainText, None), "throttled"),
        (throttled(ThrottleShape::Sentence, None), "throttled"),
        (af("AF20010", 400), "tenant_mismatch"),
        (af("AF20022", 400), "not_subscribed"),
        (af("AF20023", 400), "subscription_disabled"),
        (af("AF20031", 400), "page_invalid"),
        (af("AF20050", 400), "content_unknown"),
        (af("AF20051", 400), "content_expired"),
        (af("AF20052", 400), "content_id_invalid"),
        (af("AF20055", 400), "window_invalid"),
        (af("AF50005", 500), "service_failed"),
        (Effect::Reset(Point::BeforeHeaders), "broken_off"),
        (Effect::Reset(Point::AfterHeaders), "broken_off"),
        (Effect::Reset(Point::MidBody), "broken_off"),
        (Effect::Truncate { chunked: false }, "broken_off"),
        (Effect::Truncate { chunked: true }, "broken_off"),
        (Effect::Stall { at: Point::BeforeHeaders, for_ms: None }, "no_answer"),
        (Effect::Stall { at: Point::AfterHeaders, for_ms: None }, "stalled"),
        (Effect::Stall { at: Point::MidBody, for_ms: None }, "stalled"),
        (Effect::DamagedGzip, "bad_gzip"),
        (Effect::Redirect { status: 302 }, "redirected"),
        (Effect::Redirect { status: 308 }, "redirected"),
    ]
}

#[tokio::test]
async fn every_fault_ends_in_an_error_that_names_it() {
    let setup = setup(scenario()).await;
    let (listed, _) = setup.list_all().await;
    for (effect, kind) in faults() {
        let fault = setup.cloud.control().add_fault(Fault::new(effect.clone()).on([Endpoint::List, Endpoint::Blob]));
        let errors = [setup.list().await.unwrap_err(), setup.fetch(&listed[0]).await.unwrap_err()];
        setup.cloud.control().remove_fault(fault);
        for error in errors {
            assert_eq!(error.kind(), kind, "{effect:?}: {error:?}");
            let shown = format!("{error} {error:?} {}", error.trouble());
            assert!(!shown.contains("Bearer") && !shown.contains("eyJ"), "{shown}");
        }
    }
    // The connections are good for more.
    assert!(!setup.fetch(&listed[0]).await.unwrap().is_empty());
    assert_eq!(setup.cloud.ledger().foreign_requests, 0);
}

#[tokio::test]
async fn waits_are_read_from_headers_and_sentences() {
    let setup = setup(scenario()).await;
    for (effect, wait) in [
        (Effect::Throttled(Throttle { shape: ThrottleShape::Forbidden, retry_after_s: Some(5) }), 5),
        (Effect::Throttled(Throttle { shape: ThrottleShape::PlainText, retry_after_s: Some(70) }), 70),
        (Effect::Throttled(Throttle { shape: ThrottleShape::Sentence, retry_after_s: Some(526) }), 527),
        (Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: Some(9) }, 9),
    ] {
        let fault = setup.cloud.control().add_fault(Fault::new(effect.clone()).on([Endpoint::List]));
        let error = setup.list().await.unwrap_err();
        setup.cloud.control().remove_fault(fault);
        let meant = Advice::Throttled { after: Some(Duration::from_secs(wait)) };
        assert_eq!(error.advice(), meant, "{effect:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_listing_that_is_not_json_is_an_error_and_a_body_is_handed_on_as_it_is() {
    let setup = setup(scenario()).await;
    let (listed, _) = setup.list_all().await;
    for bad in [BadJson::Cut, BadJson::Garbage, BadJson::NotAnArray] {
        let effect = Effect::BadJson(bad);
        let fault = setup.cloud.control().add_fault(Fault::new(effect).on([Endpoint::List, Endpoint::Blob]));
        let error = setup.list().await.unwrap_err();
        assert_eq!((error.kind(), error.advice()), ("malformed_answer", Advice::Retry { after: None }), "{bad:?}");
        // What a body means is for the store to say.
        setup.fetch(&listed[0]).await.unwrap();
        setup.cloud.control().remove_fault(fault);
    }
    let odd = Effect::ContentType("text/plain".to_owned());
    setup.cloud.control().add_fault(Fault::new(odd).on([Endpoint::List, Endpoint::Blob]));
    assert_eq!(setup.list().await.unwrap().entries.len(), 25);
}

#[tokio::test]
async fn codings_do_not_depend_on_what_was_asked_for_and_a_bomb_is_defused() {
    let setup = setup(scenario()).await;
    let (listed, _) = setup.list_all().await;
    let offered = setup.cloud.ledger().blob_named(TENANT, listed[0].content_id.as_str()).unwrap().body();
    for gzip in [true, false] {
        let fault = setup.cloud.control().add_fault(Fault::new(Effect::Encoding { gzip }).on([Endpoint::Blob]));
        assert!(setup.fetch(&listed[0]).await.unwrap() == offered, "gzip: {gzip}");
        setup.cloud.control().remove_fault(fault);
    }
    setup.cloud.control().add_fault(Fault::new(Effect::GzipBomb { mib: 512 }).on([Endpoint::Blob, Endpoint::List]));
    let error = setup.fetch(&listed[0]).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("too_large", Advice::GiveUp));
    let error = setup.list().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("too_large", Advice::Retry { after: None }));
}

#[tokio::test]
async fn no_token_reaches_a_foreign_host() {
    let setup = setup(scenario()).await;
    let control = setup.cloud.control();
    let fault = control.add_fault(Fault::new(Effect::ForeignContentUri).on([Endpoint::List]));
    let page = setup.list().await.unwrap();
    assert_eq!((page.entries.len(), page.refused.len()), (0, 25));
    assert!(page.refused.iter().all(|entry| entry.kind == "foreign_uri" && entry.content_id.as_str().contains('$')));
    control.remove_fault(fault);

    let fault = control.add_fault(Fault::new(Effect::ForeignNextPage).on([Endpoint::List]));
    let page = setup.list().await.unwrap();
    assert_eq!(page.entries.len(), 25, "a bad link does not cost the page that names it");
    let error = setup.client.next_page(&setup.token, &page.next.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), "foreign_uri");
    control.remove_fault(fault);

    let page = setup.list().await.unwrap();
    let uri = page.entries[0].content_uri.replace(&setup.cloud.url(), &setup.cloud.foreign_url());
    assert_ne!(uri, page.entries[0].content_uri);
    let error = setup.fetch(&ContentBlob { content_uri: uri, ..page.entries[0].clone() }).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("foreign_uri", Advice::GiveUp));
    setup.assert_clean();
}

#[tokio::test]
async fn empty_pages_lead_on_and_the_date_is_the_services() {
    let mut scenario = scenario();
    // An hour ahead in its `Date` headers.
    scenario.service.date_offset_ms = 3_600_000;
    let setup = setup(scenario).await;
    setup.cloud.control().add_fault(Fault::new(Effect::EmptyPage).on([Endpoint::List]).first(1));
    let before: Timestamp = SystemClock.now();
    let page = setup.list().await.unwrap();
    assert!(page.entries.is_empty());
    assert!(page.date.unwrap().duration_since(before) > SignedDuration::from_mins(59));
    assert!(setup.time.now().duration_since(before) > SignedDuration::from_mins(59));
    let next = setup.client.next_page(&setup.token, &page.next.unwrap()).await.unwrap();
    assert_eq!(next.entries.len(), 25);
}
