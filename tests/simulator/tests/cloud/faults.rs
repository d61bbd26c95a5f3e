//! Each fault, as a client sees it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use std::io::Read;
use tenantry_simulator::{
    BadEntry, BadJson, Cloud, ContentType, Effect, Endpoint, ErrorBody, Fault, Feed, LeftOut, Point, Tenant, Throttle,
    ThrottleShape, When,
};

use crate::activity::wait_until;
use crate::client::*;

const EXCHANGE: ContentType = ContentType::Exchange;

struct Setting {
    cloud: Cloud,
    client: Client,
    uri: String,
    body: Vec<u8>,
}

impl Setting {
    fn new() -> Self {
        let feed = Feed::new(EXCHANGE).backlog(3, 0.9).records(30, 30);
        let tenant = Tenant::new(TENANT, "C").feed(feed).subscribed();
        let cloud = Cloud::start(scenario().page_size(2).tenant(tenant).tenant(Tenant::new(OTHER, "D"))).unwrap();
        let client = Client::new(&cloud, TENANT);
        let uri = client.list(EXCHANGE, "").json()[0]["contentUri"].as_str().unwrap().to_owned();
        let body = cloud.ledger().body(0);
        Self { cloud, client, uri, body }
    }

    /// The answer to a blob request that this effect strikes.
    fn blob(&self, effect: Effect) -> std::io::Result<Answer> {
        self.one(effect, Endpoint::Blob, &self.uri)
    }

    fn listing(&self, effect: Effect) -> Answer {
        self.one(
            effect,
            Endpoint::List,
            &format!("{}/subscriptions/content?contentType=Audit.Exchange", self.client.root()),
        )
        .unwrap()
    }

    fn one(&self, effect: Effect, endpoint: Endpoint, url: &str) -> std::io::Result<Answer> {
        let before = self.cloud.ledger().blobs[0].fetched;
        let whole = !matches!(
            effect,
            Effect::Drip { .. }
                | Effect::ContentType(_)
                | Effect::Encoding { .. }
                | Effect::Stall { for_ms: Some(_), .. }
        );
        let fault = self.cloud.control().add_fault(Fault::new(effect).tenant(TENANT).on([endpoint]));
        let answer = self.client.try_get(url);
        self.cloud.control().remove_fault(fault);
        if whole {
            assert_eq!(self.cloud.ledger().blobs[0].fetched, before, "a spoilt body does not count as fetched");
        }
        answer
    }
}

#[test]
fn errors_come_with_json_html_text_or_nothing() {
    let setting = Setting::new();
    for (status, body, start) in [
        (500, ErrorBody::Json, "{\"error\":{\"code\":\"AF50000\""),
        (503, ErrorBody::Html, "<!DOCTYPE HTML"),
        (408, ErrorBody::Empty, ""),
        (502, ErrorBody::Text, "The service"),
    ] {
        let answer = setting.blob(Effect::Status { status, body, retry_after_s: Some(9) }).unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (status, Some("9")));
        assert!(String::from_utf8_lossy(&answer.body).starts_with(start), "{answer:?}");
    }
    let af = setting.blob(Effect::Af { code: "AF20051".to_owned(), status: 400, message: None }).unwrap();
    assert_eq!(af.code(), "AF20051");
    assert_eq!(setting.blob(Effect::Denied).unwrap().status, 401);
}

#[test]
fn throttling_has_five_shapes() {
    let setting = Setting::new();
    let ask = |shape, retry_after_s| setting.blob(Effect::Throttled(Throttle { shape, retry_after_s })).unwrap();
    let forbidden = ask(ThrottleShape::Forbidden, None);
    assert_eq!((forbidden.status, forbidden.code().as_str(), forbidden.header("retry-after")), (403, "AF429", None));
    assert!(
        forbidden.json()["error"]["message"]
            .as_str()
            .unwrap()
            .ends_with(&format!("Method=GetBlob, PublisherId={PUBLISHER}"))
    );
    let many = ask(ThrottleShape::TooManyRequests, Some(3));
    assert_eq!((many.status, many.code().as_str(), many.header("retry-after")), (429, "AF429", Some("3")));
    let sentence = ask(ThrottleShape::Sentence, Some(526));
    assert_eq!((sentence.status, sentence.code().as_str(), sentence.header("retry-after")), (403, "429", None));
    assert!(sentence.json()["error"]["message"].as_str().unwrap().contains("8m 46s"));
    assert_eq!(ask(ThrottleShape::PlainText, None).body, b"Too Many Requests");
    let dated = ask(ThrottleShape::Dated, Some(3600));
    let [until, date] = ["retry-after", "date"].map(|name| dated.header(name).unwrap().to_owned());
    let read = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).unwrap();
    let wait = read(&until).duration_since(read(&date)).as_secs();
    assert!((3599..=3600).contains(&wait), "{until} after {date}");
    wait_until(|| {
        // The wait of 526 s has been delivered: going on is a violation once the grace is over.
        setting.client.get(&setting.uri);
        !setting.cloud.ledger().violations.is_empty()
    });
}

#[test]
fn connections_are_reset_at_three_points() {
    let setting = Setting::new();
    for point in [Point::BeforeHeaders, Point::AfterHeaders, Point::MidBody] {
        let error = setting.blob(Effect::Reset(point)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{point:?}");
    }
    let ledger = setting.cloud.ledger();
    assert_eq!((ledger.answers(TENANT, Endpoint::Blob, 0), ledger.answers(TENANT, Endpoint::Blob, 200)), (1, 2));
}

#[test]
fn bodies_are_truncated_in_both_framings() {
    let setting = Setting::new();
    for chunked in [false, true] {
        let error = setting.blob(Effect::Truncate { chunked }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn answers_stall_and_drip() {
    let setting = Setting::new();
    let begun = Instant::now();
    for at in [Point::BeforeHeaders, Point::AfterHeaders, Point::MidBody] {
        assert_eq!(setting.blob(Effect::Stall { at, for_ms: Some(150) }).unwrap().plain(), setting.body);
    }
    assert!(begun.elapsed() >= Duration::from_millis(450));
    let begun = Instant::now();
    let dripped = setting.blob(Effect::Drip { bytes: 1000, every_ms: 30 }).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(30 * (dripped.body.len() as u64 / 1000)));
    assert_eq!(dripped.plain(), setting.body);
}

#[test]
fn a_stall_for_ever_ends_with_the_client() {
    let setting = Setting::new();
    for at in [Point::BeforeHeaders, Point::MidBody] {
        let fault =
            setting.cloud.control().add_fault(Fault::new(Effect::Stall { at, for_ms: None }).on([Endpoint::Blob]));
        let bearer = format!("Bearer {}", setting.client.token);
        let limit = Duration::from_millis(300);
        let error = send_within(limit, "GET", &setting.uri, &[("Authorization", &bearer)], &[]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        setting.cloud.control().remove_fault(fault);
    }
    wait_until(|| setting.cloud.ledger().tenants[&TENANT].in_flight == 0);
}

#[test]
fn bodies_are_malformed_in_three_ways() {
    let setting = Setting::new();
    let cut = setting.blob(Effect::BadJson(BadJson::Cut)).unwrap();
    assert_eq!((cut.status, &cut.body[..]), (200, &setting.body[..setting.body.len() / 2]));
    assert!(
        serde_json::from_slice::<serde_json::Value>(&setting.blob(Effect::BadJson(BadJson::Garbage)).unwrap().body)
            .is_err()
    );
    assert!(setting.blob(Effect::BadJson(BadJson::NotAnArray)).unwrap().json().is_object());
    let typed = setting.blob(Effect::ContentType("text/html".to_owned())).unwrap();
    assert_eq!((typed.header("content-type"), typed.plain()), (Some("text/html"), setting.body.clone()));
}

#[test]
fn encodings_are_forced_damaged_and_abused() {
    let setting = Setting::new();
    let plain = setting.blob(Effect::Encoding { gzip: false }).unwrap();
    assert_eq!((plain.header("content-encoding"), &plain.body), (None, &setting.body));
    let fault = setting.cloud.control().add_fault(Fault::new(Effect::Encoding { gzip: true }).on([Endpoint::Blob]));
    let forced = setting.client.request("GET", &setting.uri, &[], &[]).unwrap();
    setting.cloud.control().remove_fault(fault);
    assert_eq!((forced.header("content-encoding"), forced.plain()), (Some("gzip"), setting.body.clone()));
    let damaged = setting.blob(Effect::DamagedGzip).unwrap();
    assert!(GzDecoder::new(&damaged.body[..]).read_to_end(&mut Vec::new()).is_err());
    let bomb = setting.blob(Effect::GzipBomb { mib: 64 }).unwrap();
    assert!(bomb.body.len() < 100_000);
    assert_eq!(bomb.plain().len(), 64 * 1024 * 1024 + 2);
}

#[test]
fn foreign_addresses_are_offered_and_visits_noted() {
    let setting = Setting::new();
    let foreign = setting.cloud.foreign_url();
    let listing = setting.listing(Effect::ForeignContentUri);
    let uri = listing.json()[0]["contentUri"].as_str().unwrap().to_owned();
    assert!(uri.starts_with(&foreign), "{uri}");
    let next = setting.listing(Effect::ForeignNextPage).header("NextPageUri").unwrap().to_owned();
    assert!(next.starts_with(&foreign), "{next}");
    let redirect = setting.blob(Effect::Redirect { status: 302 }).unwrap();
    assert!(redirect.status == 302 && redirect.header("location").unwrap().starts_with(&foreign));
    assert!(setting.cloud.ledger().violations.is_empty());
    send("GET", &uri, &[], &[]).unwrap();
    assert!(setting.cloud.ledger().violations.is_empty(), "without a token it is only a visit");
    setting.client.get(&uri);
    let ledger = setting.cloud.ledger();
    assert_eq!(ledger.foreign_requests, 2);
    assert!(ledger.violations[0].what.contains("a bearer token reached the foreign host"));
}

#[test]
fn pages_can_be_empty_and_links_named_otherwise() {
    let setting = Setting::new();
    setting
        .cloud
        .control()
        .add_fault(Fault::new(Effect::EmptyPage).on([Endpoint::List]).when(When::Requests(vec![1, 3])));
    assert_eq!(setting.client.list_all(EXCHANGE, "").len(), 3, "empty pages hide nothing");
    assert_eq!(setting.cloud.ledger().answers(TENANT, Endpoint::List, 200), 1 + 4);
    setting.cloud.control().clear_faults();
    let renamed = setting.listing(Effect::NextPageHeader("nextpageurl".to_owned()));
    assert!(renamed.headers.iter().any(|(n, _)| n == "nextpageurl") && renamed.header("NextPageUri").is_none());
}

#[test]
fn a_token_outage_leaves_the_other_tenants_alone() {
    let setting = Setting::new();
    let outage = Effect::Status { status: 503, body: ErrorBody::Json, retry_after_s: None };
    setting.cloud.control().add_fault(Fault::new(outage).tenant(TENANT).on([Endpoint::Token]));
    let scope = "https://manage.office.com/.default";
    let refused = token_by_secret(&setting.cloud, TENANT, SECRET, scope);
    assert_eq!((refused.status, refused.json()["error"].as_str().unwrap()), (503, "temporarily_unavailable"));
    assert_eq!(token_by_secret(&setting.cloud, OTHER, SECRET, scope).status, 200);
}

#[test]
fn huge_bodies_stream_without_being_held() {
    let setting = Setting::new();
    let number =
        setting.cloud.control().add_blobs(tenantry_simulator::BlobSpec::new(TENANT, EXCHANGE).body_bytes(12_000_000))
            [0];
    let ledger = setting.cloud.ledger();
    let blob = &ledger.blobs[usize::try_from(number).unwrap()];
    let answer = setting.client.get(&format!("{}/audit/{}", setting.client.root(), blob.content_id));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let plain = answer.plain();
    assert!((9_000_000..15_000_000).contains(&plain.len()), "{}", plain.len());
    assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&plain).unwrap().len(), blob.record_ids().len());
    assert_eq!(setting.cloud.ledger().blobs[usize::try_from(number).unwrap()].fetched, 1);
}

#[test]
fn a_refusal_may_be_silent_after_its_head() {
    let setting = Setting::new();
    setting
        .cloud
        .control()
        .add_fault(Fault::new(Effect::ThrottledThenSilent { retry_after_s: 60 }).on([Endpoint::Blob]).first(1));
    let bearer = format!("Bearer {}", setting.client.token);
    let uri = format!("{}?PublisherIdentifier={PUBLISHER}", setting.uri);
    let limit = Duration::from_millis(600);
    let error = send_within(limit, "GET", &uri, &[("Authorization", &bearer)], &[]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    wait_until(|| setting.cloud.ledger().answers(TENANT, Endpoint::Blob, 429) == 1);
    setting.client.get(&setting.uri);
    let violations = setting.cloud.ledger().violations;
    assert!(violations[0].what.contains("before a delivered wait ended"), "the head was told: {violations:?}");
}

#[test]
fn a_proxy_may_answer_for_a_while_and_a_body_may_be_empty() {
    let setting = Setting::new();
    let page = setting.blob(Effect::ProxyPage).unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.starts_with(b"<!DOCTYPE html>"));
    let empty = setting.blob(Effect::BadJson(BadJson::Empty)).unwrap();
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    setting
        .cloud
        .control()
        .add_fault(Fault::new(Effect::ProxyPage).on([Endpoint::Token, Endpoint::List]).when(When::Between(0, 400)));
    let token = || token_by_secret(&setting.cloud, TENANT, SECRET, "https://manage.office.com/.default");
    assert_eq!((token().status, token().body.starts_with(b"<!DOCTYPE")), (200, true));
    wait_until(|| token().body.starts_with(b"{"));
}

#[test]
fn entries_are_repeated_left_out_or_senseless() {
    let setting = Setting::new();
    let ids = |answer: &Answer| -> Vec<String> {
        let entries = answer.json();
        entries.as_array().unwrap().iter().map(|entry| entry["contentId"].as_str().unwrap().to_owned()).collect()
    };
    let twice = ids(&setting.listing(Effect::RepeatedEntry));
    assert!(twice.len() == 3 && twice[0] == twice[2] && twice[0] != twice[1], "{twice:?}");
    let senseless = setting.listing(Effect::BadEntry(BadEntry::NoExpiration)).json();
    assert_eq!(senseless[0]["contentExpiration"], "0001-01-01T00:00:00");
    let listed = setting.cloud.ledger().blobs.iter().map(|blob| blob.listed).collect::<Vec<_>>();
    assert_eq!(listed[2], 0, "the second page was not asked for");
    assert_eq!(ids(&setting.listing(Effect::LeaveOut(LeftOut::Half))), twice[..1]);
    assert_eq!(setting.cloud.ledger().blobs[1].listed, listed[1], "what is left out is not listed");
    assert_eq!(ids(&setting.listing(Effect::LeaveOut(LeftOut::Listed))), [""; 0]);
    setting.cloud.control().expire_blobs([0, 1, 2]);
    assert_eq!(setting.listing(Effect::BadEntry(BadEntry::LongUri)).json(), serde_json::json!([]), "there is none");
    let setting = Setting::new();
    setting.cloud.control().add_fault(Fault::new(Effect::LeaveOut(LeftOut::Listed)).on([Endpoint::List]));
    assert_eq!(setting.client.list_all(EXCHANGE, "").len(), 1, "only what no listing has named");
}

#[test]
fn a_link_may_have_no_host() {
    let setting = Setting::new();
    let link = setting.listing(Effect::RelativeNextPage).header("NextPageUri").unwrap().to_owned();
    assert!(link.starts_with("/api/v1.0/"), "{link}");
    assert_eq!(setting.client.get(&format!("{}{link}", setting.client.url)).status, 200);
}

#[test]
fn a_fault_may_be_that_of_one_blob() {
    let setting = Setting::new();
    let disabled = Effect::Af { code: "AF20023".to_owned(), status: 400, message: None };
    setting.cloud.control().add_fault(Fault::new(disabled).when(When::Blob(0)));
    assert_eq!(setting.client.get(&setting.uri).code(), "AF20023");
    assert_eq!(setting.client.get(&setting.uri).code(), "AF20023", "each time");
    let entries = setting.client.list_all(EXCHANGE, "");
    assert_eq!(setting.client.get(entries[1]["contentUri"].as_str().unwrap()).status, 200);
}

#[test]
fn asking_again_at_once_after_a_5xx_is_noticed() {
    let setting = Setting::new();
    let outage = Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None };
    setting.cloud.control().add_fault(Fault::new(outage).on([Endpoint::Blob]).first(2));
    setting.client.get(&setting.uri);
    setting.client.get(&setting.uri);
    assert_eq!(setting.cloud.ledger().warnings.len(), 0, "once may be chance");
    setting.client.get(&setting.uri);
    setting.client.get(&setting.uri);
    let warnings = setting.cloud.ledger().warnings;
    assert!(warnings.len() == 1 && warnings[0].what.contains("at once after a 5xx"), "{warnings:?}");
}
