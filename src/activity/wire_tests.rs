//! The client against a server that sends exactly the bytes it is told to, and then hangs, closes or resets.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::{ServiceTime, SetClock};
use crate::cloud::{Cloud, Management, TokenEndpoint};
use crate::content::{ContentBlob, ContentType};
use crate::http::{Http, Timeouts};
use crate::retry::Advice;
use crate::secret::Secret;
use crate::token::{AccessToken, AppAlarms, Credential, TokenRequest, TokenSource};

const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";
const PUBLISHER: &str = "46b472a7-c68e-4adf-8ade-3db49497518e";
const DATE: &str = "Sun, 22 Nov 2026 12:00:00 GMT";
const LIMITS: Limits = Limits { max_compressed: 64 << 20, max_decompressed: 64 << 20 };

/// A step of an answer. After the last one the connection stays open for the next request.
enum Do {
    Send(Vec<u8>),
    Hang,
    Close,
    Reset,
}

struct Server {
    address: SocketAddr,
    /// Heads and bodies of the requests to the Activity API.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<Do> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move { serve(connection, &*answer, &log).await });
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn feed(&self) -> String {
        format!("{}/api/v1.0/{TENANT}/activity/feed", self.url())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn blob(&self) -> ContentBlob {
        ContentBlob {
            content_id: "a$b$na0030".into(),
            content_type: ContentType::Exchange,
            content_uri: format!("{}/audit/a$b$na0030", self.feed()),
            content_created: at("2026-11-22T11:00:00Z"),
            content_expiration: at("2026-11-29T11:00:00Z"),
        }
    }
}

async fn serve(mut connection: TcpStream, answer: &(impl Fn(&str) -> Vec<Do> + ?Sized), seen: &Mutex<Vec<String>>) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if connection.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let length = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let end = head + length.unwrap_or(0);
        while buffer.len() < end {
            assert!(connection.read_buf(&mut buffer).await.unwrap() > 0, "the request broke off");
        }
        let request = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let steps = if request.contains("/oauth2/") {
            ok("", br#"{"token_type":"Bearer","expires_in":3599,"access_token":"t0ken"}"#)
        } else {
            seen.lock().unwrap().push(request.clone());
            answer(&request)
        };
        for step in steps {
            match step {
                Do::Send(bytes) => {
                    // The client may have had enough.
                    let _ = connection.write_all(&bytes).await;
                }
                Do::Hang => {
                    let _ = connection.read_buf(&mut buffer).await;
                    return;
                }
                Do::Close => return,
                Do::Reset => {
                    connection.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

/// An answer of this status; `headers` are whole lines.
fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Do> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nDate: {DATE}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    vec![Do::Send(bytes)]
}

fn ok(headers: &str, body: &[u8]) -> Vec<Do> {
    answer("200 OK", headers, body)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

struct Setup {
    client: ActivityClient,
    token: AccessToken,
    time: Arc<ServiceTime>,
}

async fn setup(server: &Server) -> Setup {
    setup_with(server, Timeouts::default(), LIMITS).await
}

async fn setup_with(server: &Server, timeouts: Timeouts, limits: Limits) -> Setup {
    let cloud = cloud(server);
    let tenant = TENANT.parse().unwrap();
    let clock = SetClock::new(at("2026-11-22T09:00:00Z"));
    let http = Http::direct(timeouts).unwrap();
    let request = TokenRequest {
        cloud: Arc::clone(&cloud),
        tenant,
        audience: cloud.audience().to_owned(),
        endpoint: TokenEndpoint::V2,
        app: String::new(),
        client_id: "a6099727-6b7b-482c-b509-1df309acc563".to_owned(),
        credential: Credential::Secret(Secret::from("s3cret".to_owned())),
        renew_after: Duration::from_mins(45),
    };
    // A time of its own for the token: what is asserted about `time` comes from the Activity API alone.
    let token_time = Arc::new(ServiceTime::new(clock.clone()));
    let source = TokenSource::new(request, http.control.clone(), clock.clone(), token_time, &AppAlarms::new());
    let token = source.token().await.unwrap();
    let time = Arc::new(ServiceTime::new(clock));
    let publisher = PUBLISHER.parse().unwrap();
    let management = cloud.management.clone().unwrap();
    let client = ActivityClient::new(management, tenant, publisher, http, Arc::clone(&time), limits);
    Setup { client, token, time }
}

fn cloud(server: &Server) -> Arc<Cloud> {
    let url: url::Url = server.url().parse().unwrap();
    Arc::new(Cloud {
        name: "test".to_owned(),
        authority: url.clone(),
        management: Some(Management { host: url.clone(), audience: "https://manage.office.com".to_owned() }),
        graph: url,
        graph_audience: "https://graph.microsoft.com".to_owned(),
    })
}

fn window() -> Window {
    Window { start: at("2026-11-22T11:00:00Z"), end: at("2026-11-22T11:59:57Z") }
}

/// A short stall limit, for tests in which the answer stands still.
fn impatient() -> Timeouts {
    Timeouts { stall: Duration::from_millis(300), ..Timeouts::default() }
}

async fn read(mut body: BlobBody) -> Result<Vec<u8>, ActivityError> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        assert!(!chunk.is_empty() && chunk.len() <= 256 << 10, "{} bytes at once", chunk.len());
        all.extend_from_slice(chunk);
    }
    assert!(body.chunk().await?.is_none(), "the end stays the end");
    assert_eq!(body.decoded(), all.len() as u64);
    Ok(all)
}

async fn fetch(setup: &Setup, server: &Server) -> Result<Vec<u8>, ActivityError> {
    read(setup.client.fetch_blob(&setup.token, &server.blob()).await?).await
}

#[tokio::test]
async fn every_request_is_addressed_signed_and_authorised() {
    let server = Server::start(|request| {
        if request.contains("dlpSensitiveTypes") {
            ok("", br#"[{"id":"50842eb7-edc8-4019-85dd-5a5c1f2bb085","name":"CreditCardNumber"},{}]"#)
        } else if request.contains("/start") {
            ok("", br#"{"contentType":"Audit.Exchange","status":"enabled","webhook":null}"#)
        } else if request.contains("/stop") {
            answer("204 No Content", "", b"")
        } else {
            ok("", b"[]")
        }
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let exchange = ContentType::Exchange;
    let webhook = Webhook { address: "https://hook.example/".parse().unwrap(), auth_id: None, expiration: None };
    assert_eq!(client.list_subscriptions(&token).await.unwrap(), []);
    assert!(client.start_subscription(&token, exchange, None).await.unwrap().enabled);
    assert!(client.start_subscription(&token, exchange, Some(&webhook)).await.unwrap().enabled);
    client.stop_subscription(&token, exchange).await.unwrap();
    assert_eq!(client.list_content(&token, exchange, window()).await.unwrap().next, None);
    assert_eq!(client.list_notifications(&token, exchange, window()).await.unwrap().entries, []);
    assert_eq!(client.dlp_sensitive_types(&token, Some("es")).await.unwrap()[0].name, "CreditCardNumber");
    read(client.fetch_blob(&token, &server.blob()).await.unwrap()).await.unwrap();

    let span = "startTime=2026-11-22T11:00:00&endTime=2026-11-22T11:59:57";
    let seen = server.seen();
    let lines = [
        format!("GET /api/v1.0/{TENANT}/activity/feed/subscriptions/list?PublisherIdentifier={PUBLISHER} HTTP/1.1"),
        format!(
            "POST /api/v1.0/{TENANT}/activity/feed/subscriptions/start?contentType=Audit.Exchange&PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!(
            "POST /api/v1.0/{TENANT}/activity/feed/subscriptions/start?contentType=Audit.Exchange&PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!(
            "POST /api/v1.0/{TENANT}/activity/feed/subscriptions/stop?contentType=Audit.Exchange&PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!(
            "GET /api/v1.0/{TENANT}/activity/feed/subscriptions/content?contentType=Audit.Exchange&{span}&PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!(
            "GET /api/v1.0/{TENANT}/activity/feed/subscriptions/notifications?contentType=Audit.Exchange&{span}&PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!(
            "GET /api/v1.0/{TENANT}/activity/feed/resources/dlpSensitiveTypes?PublisherIdentifier={PUBLISHER} HTTP/1.1"
        ),
        format!("GET /api/v1.0/{TENANT}/activity/feed/audit/a$b$na0030?PublisherIdentifier={PUBLISHER} HTTP/1.1"),
    ];
    assert_eq!(seen.len(), lines.len());
    for (request, line) in seen.iter().zip(&lines) {
        assert_eq!(request.lines().next(), Some(&line[..]));
        let head = request.to_ascii_lowercase();
        assert!(head.contains("authorization: bearer t0ken\r\n"), "{request}");
        assert!(head.contains("accept-encoding: gzip\r\n"), "{request}");
        assert!(head.contains("user-agent: tenantry/"), "{request}");
        if line.starts_with("POST") {
            // Some servers answer 411 to a POST that does not say how long it is.
            assert!(head.contains("content-length: "), "{request}");
        } else {
            assert!(!head.contains("content-length: ") && !head.contains("transfer-encoding"), "{request}");
        }
    }
    assert!(seen[1].ends_with("\r\n\r\n"));
    assert!(seen[2].contains(r#""address":"https://hook.example/""#) && seen[2].contains("application/json"));
    assert!(seen[6].to_ascii_lowercase().contains("accept-language: es\r\n"));
}

#[tokio::test]
async fn pages_are_followed_with_the_publisher_and_as_given() {
    let server = Server::start(|request| {
        // As the service does it: lower-case names, other times, no publisher.
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let link = |page: u8| {
            format!("http://{host}/api/v1.0/{TENANT}/activity/feed/subscriptions/content?contenttype=Audit.Exchange&endtime=2026-11-22T11:59:57.0000000Z&nextpage={page}$2026$na0022")
        };
        let entry = |name: &str| {
            json!([{"contentType": "Audit.Exchange", "contentId": name, "contentUri": format!("http://{host}/api/v1.0/{TENANT}/activity/feed/audit/{name}"), "contentCreated": "2026-11-22T11:00:00Z"}]).to_string()
        };
        if request.contains("nextpage=2$") {
            ok(&format!("nextpageuri: {}\r\n", link(3)), b"[]")
        } else if request.contains("nextpage=3$") {
            ok("", entry("third").as_bytes())
        } else {
            ok(&format!("NextPageUrl: {}\r\n", link(2)), entry("first").as_bytes())
        }
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let first = client.list_content(&token, ContentType::Exchange, window()).await.unwrap();
    assert_eq!(first.entries[0].content_id.as_str(), "first");
    assert_eq!(first.entries[0].content_expiration, at("2026-11-29T11:00:00Z"));
    assert_eq!(first.date, Some(at("2026-11-22T12:00:00Z")));
    let link = first.next.unwrap();
    assert_eq!((link.page(), link.content_type()), (2, ContentType::Exchange));
    let second = client.next_page(&token, &link).await.unwrap();
    assert!(second.entries.is_empty(), "an empty page can have a next one");
    let again = client.next_page(&token, &link).await.unwrap();
    assert_eq!(again.next, second.next, "a second try is no circle");
    let third = client.next_page(&token, &second.next.unwrap()).await.unwrap();
    assert_eq!(third.entries[0].content_id.as_str(), "third");
    assert_eq!(third.next, None);
    for request in &server.seen()[1..] {
        let asked = request.lines().next().unwrap();
        assert!(asked.contains("contenttype=Audit.Exchange&endtime=2026-11-22T11:59:57.0000000Z&nextpage="), "{asked}");
        assert!(asked.ends_with(&format!("$2026$na0022&PublisherIdentifier={PUBLISHER} HTTP/1.1")), "{asked}");
    }
}

#[tokio::test]
async fn a_listing_that_runs_in_a_circle_is_noticed() {
    let server = Server::start(|request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let next = if request.contains("nextpage=a") { "b" } else { "a" };
        let link = format!("http://{host}/api/v1.0/{TENANT}/activity/feed/subscriptions/content?nextpage={next}");
        ok(&format!("NextPageUri: {link}\r\n"), b"[]")
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let mut page = client.list_content(&token, ContentType::Exchange, window()).await.unwrap();
    for _ in 0..2 {
        page = client.next_page(&token, &page.next.unwrap()).await.unwrap();
    }
    let error = client.next_page(&token, &page.next.unwrap()).await.unwrap_err();
    assert!(matches!(error, ActivityError::PageLoop { page: 4, .. }), "{error:?}");
    assert_eq!((error.kind(), error.advice()), ("page_loop", Advice::RelistWindow));
    assert_eq!(server.seen().len(), 3, "the circle is not gone round");
}

#[tokio::test]
async fn no_request_goes_to_a_foreign_host() {
    let foreign = Server::start(|_| ok("", b"[]")).await;
    let (there, elsewhere) = (foreign.feed(), foreign.url());
    let server = Server::start(move |request| {
        let entry = json!([{"contentId": "x", "contentUri": format!("{there}/audit/x"), "contentCreated": "2026-11-22T11:00:00Z"}]);
        if request.contains("/content?") {
            ok(&format!("NextPageUri: {there}/subscriptions/content?nextPage=2\r\n"), entry.to_string().as_bytes())
        } else {
            answer("302 Found", &format!("Location: {elsewhere}/sign-in\r\n"), b"")
        }
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let page = client.list_content(&token, ContentType::Exchange, window()).await.unwrap();
    assert_eq!((page.entries.len(), page.refused.len(), page.refused[0].kind), (0, 1, "foreign_uri"));
    let error = client.next_page(&token, &page.next.unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("foreign_uri", Advice::RelistWindow));
    assert!(error.to_string().contains(&foreign.url()), "{error}");

    let blob = ContentBlob { content_uri: format!("{}/audit/x", foreign.feed()), ..server.blob() };
    let error = client.fetch_blob(&token, &blob).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("foreign_uri", Advice::GiveUp));

    let error = client.fetch_blob(&token, &server.blob()).await.unwrap_err();
    assert!(matches!(&error, ActivityError::Redirected { status: 302, to, .. } if *to == foreign.url()), "{error:?}");
    assert!(error.trouble().needs_operator);
    let error = client.list_subscriptions(&token).await.unwrap_err();
    assert_eq!(error.kind(), "redirected");
    assert_eq!(foreign.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn errors_are_read_with_their_wait_date_and_correlation_id() {
    let server = Server::start(|request| {
        let headers = "mise-correlation-id: 0000aaaa-11bb\r\nRetry-After: Sun, 22 Nov 2026 12:02:00 GMT\r\n";
        if request.contains("/start") {
            answer(
                "400 Bad Request",
                "",
                br#"{"error":{"code":"AF20024","message":"The subscription is already enabled. No property change."}}"#,
            )
        } else if request.contains("/content") {
            let body = gzip(br#"{"error":{"code":"AF429","message":"Too many requests. Method=x, PublisherId=y"}}"#);
            answer("403 Forbidden", &format!("{headers}Content-Encoding: gzip\r\n"), &body)
        } else {
            answer("503 Service Unavailable", "", &vec![b'x'; 1 << 20])
        }
    })
    .await;
    let Setup { client, token, time } = setup(&server).await;
    assert_eq!(time.confirmed(), None);
    let started = client.start_subscription(&token, ContentType::Exchange, None).await.unwrap();
    assert!(started.enabled, "what is enabled already is enabled");
    assert!(time.confirmed().is_some_and(|now| now.duration_since(at("2026-11-22T12:00:00Z")).as_secs() < 60));

    let error = client.list_content(&token, ContentType::Exchange, window()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.advice()),
        ("throttled", Advice::Throttled { after: Some(Duration::from_mins(2)) })
    );
    let trouble = error.trouble();
    assert_eq!(trouble.code.as_deref(), Some("AF429"));
    assert_eq!(trouble.correlation_id.as_deref(), Some("0000aaaa-11bb"));
    assert!(!trouble.needs_operator);

    let error = client.list_subscriptions(&token).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("unavailable", Advice::Retry { after: None }));
    assert_eq!(error.operation(), Operation::ListSubscriptions);
}

#[tokio::test]
async fn a_connection_that_fails_says_how() {
    for (steps, kind) in [
        (vec!["reset"], "broken_off"),
        (vec!["close"], "broken_off"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Le", "close"], "broken_off"),
        (vec!["hang"], "no_answer"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Le", "hang"], "no_answer"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "hang"], "stalled"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[12345", "hang"], "stalled"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[12345", "close"], "broken_off"),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[12345", "reset"], "broken_off"),
        (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "close"], "broken_off"),
        (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "reset"], "broken_off"),
        (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "hang"], "stalled"),
        (vec!["SSH-2.0-OpenSSH_9.6\r\n", "hang"], "protocol"),
    ] {
        let script = steps.clone();
        let server = Server::start(move |_| {
            let step = |step: &&str| match *step {
                "reset" => Do::Reset,
                "close" => Do::Close,
                "hang" => Do::Hang,
                bytes => Do::Send(bytes.as_bytes().to_vec()),
            };
            script.iter().map(step).collect()
        })
        .await;
        let setup = setup_with(&server, impatient(), LIMITS).await;
        let blob = fetch(&setup, &server).await.unwrap_err();
        let list = setup.client.list_content(&setup.token, ContentType::Exchange, window()).await.unwrap_err();
        for error in [blob, list] {
            assert_eq!((error.kind(), error.advice()), (kind, Advice::Retry { after: None }), "{steps:?}: {error:?}");
            assert!(!error.trouble().needs_operator);
            assert!(!format!("{error:?} {error}").contains("t0ken"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_no_connection_and_an_unknown_name_is_dns() {
    let server = Server::start(|_| Vec::new()).await;
    let Setup { token, time, .. } = setup(&server).await;
    // A port that was just free: nothing listens there.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    // One where something other than TLS answers.
    let plain = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = plain.accept().await.unwrap();
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = connection.read_buf(&mut Vec::new()).await;
    });
    for (management, kind) in [
        (format!("http://{free}"), "connect"),
        ("https://manage.invalid".to_owned(), "dns"),
        (format!("https://{plain_address}"), "tls"),
    ] {
        let host = management.parse().unwrap();
        let management_api = Management { host, audience: "https://manage.office.com".to_owned() };
        let http = Http::direct(Timeouts::default()).unwrap();
        let (tenant, publisher) = (TENANT.parse().unwrap(), PUBLISHER.parse().unwrap());
        let client = ActivityClient::new(management_api, tenant, publisher, http, Arc::clone(&time), LIMITS);
        let error = client.list_subscriptions(&token).await.unwrap_err();
        assert_eq!((error.kind(), error.advice()), (kind, Advice::Retry { after: None }), "{management}: {error:?}");
        assert!(!error.trouble().remedy.is_empty());
    }
}

#[tokio::test]
async fn bodies_arrive_as_they_were_sent_whatever_their_coding_and_framing() {
    let plain: Vec<u8> = (0..400_000u32).flat_map(|n| format!("{n:x},").into_bytes()).collect();
    let packed = gzip(&plain);
    let mut chunked = Vec::new();
    for piece in packed.chunks(7777) {
        chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let chunked =
        [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-encoding: GZIP\r\n\r\n"[..], &chunked].concat();
    let (identity, gzipped) = (plain.clone(), packed.clone());
    let server = Server::start(move |request| {
        if request.contains("/audit/identity") {
            ok("", &identity)
        } else if request.contains("/audit/gzip") {
            ok("Content-Encoding: gzip\r\n", &gzipped)
        } else {
            vec![Do::Send(chunked.clone())]
        }
    })
    .await;
    let setup = setup(&server).await;
    for (name, received) in [("identity", plain.len()), ("gzip", packed.len()), ("chunked", packed.len())] {
        let blob = ContentBlob { content_uri: format!("{}/audit/{name}", server.feed()), ..server.blob() };
        let mut body = setup.client.fetch_blob(&setup.token, &blob).await.unwrap();
        assert_eq!(body.from(), format!("{}?PublisherIdentifier={PUBLISHER}", blob.content_uri));
        assert_eq!(body.date().is_some(), name != "chunked");
        let mut all = Vec::new();
        while let Some(chunk) = body.chunk().await.unwrap() {
            all.extend_from_slice(chunk);
        }
        assert!(all == plain, "{name}");
        assert_eq!((body.received(), body.decoded()), (received as u64, plain.len() as u64), "{name}");
    }
}

#[tokio::test]
async fn limits_hold_on_both_sides_of_the_compression() {
    let bomb = gzip(&vec![b' '; 32 << 20]);
    let random: Vec<u8> = (0..300_000).map(|_| fastrand::u8(..)).collect();
    let server = Server::start(move |request| {
        if request.contains("/content?") || request.contains("/audit/bomb") {
            ok("Content-Encoding: gzip\r\n", &bomb)
        } else if request.contains("/audit/announced") {
            // Nothing is read that is announced as too much: the body never comes.
            vec![Do::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 200001\r\n\r\n".to_vec()), Do::Hang]
        } else {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in random.chunks(1000) {
                bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            vec![Do::Send(bytes)]
        }
    })
    .await;
    let limits = Limits { max_compressed: 200_000, max_decompressed: 1 << 20 };
    let setup = setup_with(&server, Timeouts::default(), limits).await;
    for (name, side, most) in [
        ("bomb", Side::Decompressed, 1 << 20),
        ("announced", Side::Compressed, 0),
        ("unannounced", Side::Compressed, 200_000),
    ] {
        let blob = ContentBlob { content_uri: format!("{}/audit/{name}", server.feed()), ..server.blob() };
        let mut handed_out = 0;
        let error = match setup.client.fetch_blob(&setup.token, &blob).await {
            Err(error) => error,
            Ok(mut body) => loop {
                match body.chunk().await {
                    Ok(chunk) => handed_out += chunk.expect("the limit comes before the end").len(),
                    Err(error) => break error,
                }
            },
        };
        assert!(matches!(&error, ActivityError::TooLarge { side: found, .. } if *found == side), "{name}: {error:?}");
        assert!(handed_out <= most, "{name}: {handed_out}");
        assert_eq!((error.kind(), error.advice()), ("too_large", Advice::GiveUp));
        assert!(error.trouble().needs_operator);
    }
    // A listing has a limit of its own.
    let error = setup.client.list_content(&setup.token, ContentType::Exchange, window()).await.unwrap_err();
    assert!(matches!(error, ActivityError::TooLarge { side: Side::Decompressed, limit: 8_388_608, .. }), "{error:?}");
    assert_eq!(error.advice(), Advice::Retry { after: None });
}

#[tokio::test]
async fn damaged_and_unknown_codings_are_errors() {
    let packed = gzip(&vec![b'x'; 100_000]);
    let mut damaged = packed.clone();
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    let cases = [
        ("gzip", packed[..packed.len() / 2].to_vec(), "bad_gzip"),
        ("gzip", packed[..packed.len() - 1].to_vec(), "bad_gzip"),
        ("gzip", damaged, "bad_gzip"),
        ("gzip", b"[]".to_vec(), "bad_gzip"),
        ("gzip", [&packed[..], b"\0\0\0"].concat(), "bad_gzip"),
        ("gzip", Vec::new(), "bad_gzip"),
        ("br", packed.clone(), "unknown_encoding"),
        ("gzip, gzip", packed, "unknown_encoding"),
    ];
    for (coding, body, kind) in cases {
        let length = body.len();
        let server = Server::start(move |_| ok(&format!("Content-Encoding: {coding}\r\n"), &body)).await;
        let setup = setup(&server).await;
        let error = fetch(&setup, &server).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.advice()),
            (kind, Advice::Retry { after: None }),
            "{coding} {length}: {error:?}"
        );
        let started = setup.client.start_subscription(&setup.token, ContentType::Exchange, None).await;
        // Nothing at all needs no coding, where an empty answer has a meaning.
        assert_eq!(started.is_ok(), length == 0, "{coding} {length}: {started:?}");
        let listed = setup.client.list_content(&setup.token, ContentType::Exchange, window()).await.unwrap_err();
        assert_eq!(listed.kind(), if length == 0 { "malformed_answer" } else { kind }, "{coding} {length}: {listed:?}");
    }
}

#[tokio::test]
async fn a_good_answer_that_is_not_what_was_asked_for_is_an_error() {
    for body in ["<html>Sign in</html>", "{}", "[", "\"x\"", "7"] {
        let server = Server::start(move |_| ok("Content-Type: application/json\r\n", body.as_bytes())).await;
        let Setup { client, token, .. } = setup(&server).await;
        let errors = [
            client.list_content(&token, ContentType::Exchange, window()).await.unwrap_err(),
            client.list_notifications(&token, ContentType::Exchange, window()).await.unwrap_err(),
            client.list_subscriptions(&token).await.unwrap_err(),
            client.start_subscription(&token, ContentType::Exchange, None).await.unwrap_err(),
            client.dlp_sensitive_types(&token, None).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                (error.kind(), error.advice()),
                ("malformed_answer", Advice::Retry { after: None }),
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn dropping_a_read_loses_nothing() {
    let plain: Vec<u8> = (0..60_000u32).flat_map(|n| format!("{n},").into_bytes()).collect();
    let packed = gzip(&plain);
    let (expected, start) = (plain.clone(), Arc::new(tokio::sync::Notify::new()));
    let go = Arc::clone(&start);
    // The body comes in two halves; in between the reader gives up and comes back.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let other = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        connection.read_buf(&mut request).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
        let half = packed.len() / 2;
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&packed[..half]).await.unwrap();
        go.notified().await;
        connection.write_all(&packed[half..]).await.unwrap();
        let _ = connection.read_buf(&mut request).await;
    });
    let server = Server::start(|_| Vec::new()).await;
    let setup = setup(&server).await;
    let host = format!("http://{other}").parse().unwrap();
    let management = Management { host, audience: "https://manage.office.com".to_owned() };
    let (tenant, publisher) = (TENANT.parse().unwrap(), PUBLISHER.parse().unwrap());
    let http = Http::direct(Timeouts::default()).unwrap();
    let client = ActivityClient::new(management, tenant, publisher, http, setup.time, LIMITS);
    let uri = format!("http://{other}/api/v1.0/{TENANT}/activity/feed/audit/x");
    let blob = ContentBlob { content_uri: uri, ..server.blob() };
    let mut body = client.fetch_blob(&setup.token, &blob).await.unwrap();
    let mut all = Vec::new();
    let mut dropped = 0;
    loop {
        let patience = if dropped < 20 { Duration::from_millis(5) } else { Duration::from_secs(30) };
        match tokio::time::timeout(patience, body.chunk()).await {
            Ok(Ok(Some(chunk))) => all.extend_from_slice(chunk),
            Ok(end) => break assert!(end.unwrap().is_none()),
            Err(_) => {
                dropped += 1;
                if dropped == 20 {
                    start.notify_one();
                }
            }
        }
    }
    assert!(all == expected);
}

/// Status line, and body.
const NOTHING: [(&str, &[u8]); 5] =
    [("200 OK", b""), ("200 OK", b"\xef\xbb\xbf"), ("200 OK", b" \r\n"), ("200 OK", b"null"), ("204 No Content", b"")];

#[tokio::test]
async fn nothing_is_no_list() {
    for (status, body) in NOTHING {
        let server = Server::start(move |_| {
            // A 204 has no length.
            let length =
                if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let head = format!("HTTP/1.1 {status}\r\nDate: {DATE}\r\n{length}\r\n");
            vec![Do::Send([head.as_bytes(), body].concat())]
        })
        .await;
        let Setup { client, token, .. } = setup(&server).await;
        let errors = [
            client.list_content(&token, ContentType::Exchange, window()).await.unwrap_err(),
            client.list_notifications(&token, ContentType::Exchange, window()).await.unwrap_err(),
            client.list_subscriptions(&token).await.unwrap_err(),
            client.dlp_sensitive_types(&token, None).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                (error.kind(), error.advice()),
                ("malformed_answer", Advice::Retry { after: None }),
                "{status} {body:?}: {error:?}"
            );
        }
        assert!(client.start_subscription(&token, ContentType::Exchange, None).await.unwrap().enabled);
    }
}

#[tokio::test]
async fn a_wait_is_told_although_its_answer_does_not_end() {
    let server = Server::start(|request| {
        let head = if request.contains("/content?") {
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 1000\r\n\r\n{"
        } else {
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://busy.example/\r\nRetry-After: 60\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n"
        };
        vec![Do::Send(head.as_bytes().to_vec()), Do::Hang]
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let began = tokio::time::Instant::now();
    let error = client.list_content(&token, ContentType::Exchange, window()).await.unwrap_err();
    let after = Some(Duration::from_mins(2));
    assert_eq!((error.kind(), error.advice(), error.wait()), ("throttled", Advice::Throttled { after }, after));
    assert!(began.elapsed() < Duration::from_secs(20), "the body was waited for");

    let error = client.list_subscriptions(&token).await.unwrap_err();
    let after = Some(Duration::from_secs(90));
    assert_eq!((error.kind(), error.advice(), error.wait()), ("redirected", Advice::Retry { after }, after));
}

#[tokio::test]
async fn only_the_services_own_answers_tell_the_time() {
    const PAGE: &[u8] = b"<html><title>Bad Gateway</title></html>";
    let blob = "/audit/";
    for (status, body, tells) in [
        ("502 Bad Gateway", PAGE, false),
        ("503 Service Unavailable", b"", false),
        ("302 Found", b"", false),
        ("200 OK", PAGE, false),
        ("200 OK", b"{}", false),
        ("500 Internal Server Error", br#"{"error":{"code":"AF50000","message":"x"}}"#, true),
        ("200 OK", b"[]", true),
    ] {
        let server = Server::start(move |_| answer(status, "", body)).await;
        let Setup { client, token, time } = setup(&server).await;
        let _ = client.list_content(&token, ContentType::Exchange, window()).await;
        assert_eq!(time.confirmed().is_some(), tells, "{status} {body:?}");
    }
    let server = Server::start(move |request| if request.contains(blob) { ok("", b"[]") } else { Vec::new() }).await;
    let setup = setup(&server).await;
    fetch(&setup, &server).await.unwrap();
    assert!(setup.time.confirmed().is_some());
}

#[tokio::test]
async fn a_link_may_be_relative_and_stays_on_its_host() {
    let server = Server::start(|request| {
        if request.contains("nextPage=3") {
            ok("NextPageUri: //attacker.example/api\r\n", b"[]")
        } else if request.contains("nextPage=2") {
            ok("NextPageUri:\r\nNextPageUri: content?nextPage=3\r\n", b"[]")
        } else {
            ok("NextPageUri: ?nextPage=2\r\n", b"[]")
        }
    })
    .await;
    let Setup { client, token, .. } = setup(&server).await;
    let mut page = client.list_content(&token, ContentType::Exchange, window()).await.unwrap();
    for _ in 0..2 {
        page = client.next_page(&token, &page.next.unwrap()).await.unwrap();
    }
    let error = client.next_page(&token, &page.next.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), "foreign_uri");
    let seen = server.seen();
    for (request, page) in seen[1..].iter().zip(2..) {
        let path = format!("GET /api/v1.0/{TENANT}/activity/feed/subscriptions/content?nextPage={page}&Publisher");
        assert!(request.starts_with(&path), "{request}");
    }
}

#[tokio::test]
async fn hostile_pages_of_many_tenants_take_no_more_than_the_room_there_is() {
    use crate::http::room::{LARGE, SMALL};

    // Each page begins, becomes large, and then does not end.
    let sent = SMALL * 4;
    let server = Server::start(move |_| {
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n[", sent * 2).into_bytes();
        bytes.resize(bytes.len() + sent, b' ');
        vec![Do::Send(bytes), Do::Hang]
    })
    .await;
    let Setup { token, time, .. } = setup(&server).await;
    let http = Http::direct(Timeouts::default()).unwrap();
    let client = |server| {
        let (tenant, publisher) = (TENANT.parse().unwrap(), PUBLISHER.parse().unwrap());
        let management = cloud(server).management.clone().unwrap();
        ActivityClient::new(management, tenant, publisher, http.clone(), Arc::clone(&time), LIMITS)
    };
    let tenants: Vec<_> = (0..LARGE * 3).map(|_| client(&server)).collect();
    let twice = tenants.iter().flat_map(|tenant| [tenant.clone(), tenant.clone()]);
    let listings: Vec<_> = twice
        .map(|client| {
            let token = token.clone();
            tokio::spawn(async move { client.list_content(&token, ContentType::Exchange, window()).await.map(drop) })
        })
        .collect();
    let start = tokio::time::Instant::now();
    while server.seen().len() < listings.len() || http.room.large_free() > 0 {
        assert!(start.elapsed() < Duration::from_mins(2), "{} of {}", server.seen().len(), listings.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A page that is small is read all the same.
    let other = Server::start(|_| ok("", b"[]")).await;
    client(&other).list_content(&token, ContentType::Exchange, window()).await.unwrap();
    assert_eq!(http.room.large_free(), 0);
    for listing in listings {
        listing.abort();
        let _ = listing.await;
    }
    assert_eq!(http.room.large_free(), LARGE, "what is dropped makes room");
}
