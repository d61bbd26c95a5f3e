//! The cloud's door: routes requests, lets faults strike, keeps the books.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::activity;
use crate::content_type::ContentType;
use crate::control;
use crate::entra;
use crate::faults::{BadEntry, BadJson, Effect, Endpoint, ErrorBody, Point, Question};
use crate::http::{Body, Handler, Request, Response, Sent, Wire};
use crate::ledger::{Scope, Seen, TokenRequest, Wait};
use crate::world::World;

/// The cloud as a handler of requests.
pub(crate) struct Front {
    pub(crate) world: Arc<World>,
}

/// What is noted about a request.
pub(crate) enum Ticket {
    /// Of the control interface.
    Control,
    /// Of the cloud.
    Request { place: u64, endpoint: Endpoint, tenant: Option<Uuid> },
}

enum Route {
    Entra(entra::Route),
    Activity(activity::Route),
    Unknown,
}

impl Handler for Front {
    type Ticket = Ticket;

    fn connected(&self) {
        self.world.lock().book.connections += 1;
    }

    fn answer(&self, request: &Request) -> (Response, Ticket) {
        let world = &self.world;
        if let Some(rest) = request.path.strip_prefix("/_sim/") {
            return (control::over_http(world, rest, request), Ticket::Control);
        }
        let route = entra::Route::of(&request.path)
            .map(Route::Entra)
            .or_else(|| activity::Route::of(&request.path).map(Route::Activity))
            .unwrap_or(Route::Unknown);
        let question = question(world, request, &route);
        let place = self.note(request, &route, &question);
        let uptime = world.clock.uptime();
        let effect = world.lock().faults.strike(&question, uptime);
        let mut response = respond(world, request, &route, &question, effect);
        if question.endpoint.is_activity() {
            response.latency += Duration::from_millis(world.lock().service.latency_ms);
        }
        (response, Ticket::Request { place, endpoint: question.endpoint, tenant: question.tenant })
    }

    fn told(&self, wait: Wait) {
        let uptime = self.world.clock.uptime();
        self.world.lock().book.told_to_wait(wait, uptime);
    }

    fn sent(&self, ticket: Ticket, sent: Sent) {
        let Ticket::Request { place, endpoint, tenant } = ticket else { return };
        let mut state = self.world.lock();
        state.book.answered(place, tenant, endpoint, sent.status, sent.bytes);
        if let Some(blob) = sent.delivered.and_then(|n| state.blob_mut(n)) {
            blob.fetched += 1;
        }
    }

    fn date(&self) -> String {
        self.world.clock.date_header()
    }
}

impl Front {
    fn note(&self, request: &Request, route: &Route, question: &Question) -> u64 {
        let world = &self.world;
        let at = world.clock.now();
        match route {
            Route::Activity(route) => activity::remark(world, request, route, question.content_type),
            Route::Entra(_) | Route::Unknown => {}
        }
        let uptime = world.clock.uptime();
        let mut state = world.lock();
        if let (Endpoint::Token, Some(tenant)) = (question.endpoint, question.tenant)
            && let Some(left) = state.book.disregarded(Scope::Entra(tenant), uptime)
        {
            state.book.violation(
                at,
                format!("tenant {tenant}: a token request {:.1} s before a delivered wait ended", left.as_secs_f64()),
            );
        }
        state.book.arrived(Seen {
            at,
            endpoint: question.endpoint,
            tenant: question.tenant,
            request: request.line(),
            status: None,
        })
    }
}

fn question(world: &World, request: &Request, route: &Route) -> Question {
    match route {
        Route::Entra(route) => Question {
            endpoint: route.endpoint(),
            tenant: entra::tenant_named(world, &route.tenant),
            content_type: None,
        },
        Route::Activity(route) => {
            let tenant = route.tenant_id();
            let named = request.parameters().get("contenttype").and_then(|t| ContentType::parse(t));
            let of_blob = || tenant.and_then(|t| world.lock().blob_named(t, &route.content_id).map(|b| b.content_type));
            Question { endpoint: route.endpoint, tenant, content_type: named.or_else(of_blob) }
        }
        Route::Unknown => Question { endpoint: Endpoint::Unknown, tenant: None, content_type: None },
    }
}

/// The sound answer.
fn sound(world: &World, request: &Request, route: &Route) -> Response {
    match route {
        Route::Entra(route) => entra::answer(world, request, route),
        Route::Activity(route) => activity::answer(world, request, route),
        Route::Unknown => Response::new(404, "text/html", "<html><body>Not found</body></html>"),
    }
}

fn respond(world: &World, request: &Request, route: &Route, question: &Question, effect: Option<Effect>) -> Response {
    let Some(effect) = effect else {
        return sound(world, request, route);
    };
    match instead(world, request, question, &effect) {
        Some(response) => {
            note_token_fault(world, request, question, &effect);
            response
        }
        None => spoil(world, request, sound(world, request, route), effect),
    }
}

/// A fault at the token endpoint leaves a line in the book too.
fn note_token_fault(world: &World, request: &Request, question: &Question, effect: &Effect) {
    if question.endpoint != Endpoint::Token {
        return;
    }
    let form = request.form();
    let text = |name: &str| form.get(name).cloned().unwrap_or_default();
    let note = TokenRequest {
        at: world.clock.now(),
        tenant: question.tenant,
        client_id: text("client_id"),
        audience: if form.contains_key("resource") {
            text("resource")
        } else {
            text("scope").trim_end_matches("/.default").to_owned()
        },
        version: if request.path.ends_with("/v2.0/token") { 2 } else { 1 },
        credential: String::new(),
        refused: Some(if let Effect::Entra { code, .. } = effect { *code } else { 0 }),
    };
    world.lock().book.token_requests.push(note);
}

/// The answer that a fault gives in place of the sound one, if it does.
fn instead(world: &World, request: &Request, question: &Question, effect: &Effect) -> Option<Response> {
    let entra = !question.endpoint.is_activity();
    let scope = question.tenant.map(|t| if entra { Scope::Entra(t) } else { Scope::Activity(t) });
    let seconds = |mut response: Response, retry_after: Option<u64>| {
        if let Some(seconds) = retry_after {
            response.set_header("Retry-After", seconds.to_string());
            response.wait = scope.map(|scope| Wait { scope, time: Duration::from_secs(seconds) });
        }
        response
    };
    Some(match effect {
        Effect::Status { status, body, retry_after_s } => {
            let response = match body {
                ErrorBody::Json if entra => {
                    let mut response =
                        entra::Refusal::new(90033).response(world.clock.now(), request.header("client-request-id"));
                    response.status = *status;
                    response
                }
                ErrorBody::Json => activity::error(*status, "AF50000", activity::usual_message("AF50000")),
                ErrorBody::Html => Response::new(
                    *status,
                    "text/html; charset=us-ascii",
                    format!(
                        "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"><HTML><HEAD><TITLE>Service Unavailable</TITLE></HEAD><BODY><h2>Service Unavailable</h2><hr><p>HTTP Error {status}. The service is unavailable.</p></BODY></HTML>"
                    ),
                ),
                ErrorBody::Empty => Response::empty(*status),
                ErrorBody::Text => Response::new(*status, "text/plain", "The service is unavailable."),
            };
            seconds(response, *retry_after_s)
        }
        Effect::Throttled(throttle) => {
            let publisher = request.parameters().get("publisheridentifier").cloned().unwrap_or_default();
            activity::throttled(
                *throttle,
                scope.unwrap_or(Scope::Activity(Uuid::nil())),
                &request.method,
                &publisher,
                &world.clock,
            )
        }
        Effect::Af { code, status, message } => {
            activity::error(*status, code, message.as_deref().unwrap_or_else(|| activity::usual_message(code)))
        }
        Effect::Entra { code, retry_after_s } => seconds(
            entra::Refusal::new(*code).response(world.clock.now(), request.header("client-request-id")),
            *retry_after_s,
        ),
        Effect::Denied => activity::denied(),
        Effect::Redirect { status } => {
            Response::empty(*status).header("Location", format!("{}{}", world.foreign_url, request.path))
        }
        Effect::Reset(Point::BeforeHeaders) => {
            Response { wire: Wire::Reset(Point::BeforeHeaders), ..Response::empty(200) }
        }
        Effect::Stall { at: Point::BeforeHeaders, for_ms: None } => {
            Response { wire: Wire::Stall(Point::BeforeHeaders, None), ..Response::empty(200) }
        }
        _ => return None,
    })
}

/// Spoils a sound answer.
fn spoil(world: &World, request: &Request, mut response: Response, effect: Effect) -> Response {
    match effect {
        Effect::Reset(point) => response.wire = Wire::Reset(point),
        Effect::Truncate { chunked } => response.wire = Wire::Truncate { chunked },
        Effect::Stall { at, for_ms } => response.wire = Wire::Stall(at, for_ms.map(Duration::from_millis)),
        Effect::Drip { bytes, every_ms } => response.wire = Wire::Drip(bytes, Duration::from_millis(every_ms)),
        Effect::ContentType(name) => response.set_header("Content-Type", name),
        _ if response.status != 200 => {}
        Effect::BadJson(how) => replace(&mut response, |plain| malformed(plain, how)),
        Effect::Encoding { gzip } => {
            replace(&mut response, |plain| plain);
            if gzip {
                activity::compress(&mut response);
            }
        }
        Effect::DamagedGzip => {
            replace(&mut response, |plain| plain);
            activity::compress(&mut response);
            let mut bytes = response.whole().to_vec();
            let half = bytes.len() / 2;
            for byte in &mut bytes[half..] {
                *byte ^= 0x5a;
            }
            response.body = Body::Whole(bytes.into());
            response.delivers = None;
        }
        Effect::GzipBomb { mib } => {
            response.body = activity::bomb(mib);
            response.set_header("Content-Encoding", "gzip");
            response.delivers = None;
        }
        Effect::ForeignContentUri => {
            let (own, foreign) =
                (format!("\"contentUri\":\"{}/", world.url), format!("\"contentUri\":\"{}/", world.foreign_url));
            let text = String::from_utf8_lossy(&response.whole()).replace(&own, &foreign);
            response.body = Body::Whole(text.into());
        }
        Effect::BadEntry(how) => {
            if let Ok(mut entries) = serde_json::from_slice::<Vec<serde_json::Value>>(&response.whole())
                && let Some(entry) = entries.first_mut()
            {
                bad_entry(entry, how);
                response.body = Body::Whole(serde_json::Value::from(entries).to_string().into());
            }
        }
        Effect::ForeignNextPage => {
            let link = next_page(world, &response).unwrap_or_else(|| format!("{}/api/v1.0/next?nextpage=1", world.url));
            let name = next_page_header(world);
            response.set_header(&name, link.replacen(&world.url, &world.foreign_url, 1));
        }
        Effect::EmptyPage => {
            let name = next_page_header(world);
            response.set_header(&name, activity::link_to_same(world, request));
            response.body = Body::Whole(Bytes::from_static(b"[]"));
            response.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("content-encoding"));
        }
        Effect::NextPageHeader(name) => {
            if let Some(link) = next_page(world, &response) {
                let old = next_page_header(world);
                response.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(&old));
                response = response.header(&name, link);
            }
        }
        _ => {}
    }
    response
}

fn next_page_header(world: &World) -> String {
    world.lock().service.next_page_header.clone()
}

fn next_page(world: &World, response: &Response) -> Option<String> {
    let name = next_page_header(world);
    response.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
}

/// Replaces the body by another made from it, uncompressed; the blob then does not count as delivered unless it is the
/// same.
fn replace(response: &mut Response, make: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let compressed = response.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-encoding"));
    let bytes = response.whole();
    let plain = if compressed { activity::expand(&bytes) } else { bytes.to_vec() };
    let changed = make(plain.clone());
    if changed != plain {
        response.delivers = None;
    }
    response.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("content-encoding"));
    response.body = Body::Whole(Bytes::from(changed));
}

fn bad_entry(entry: &mut serde_json::Value, how: BadEntry) {
    let longer = |value: &serde_json::Value| format!("{}{}", value.as_str().unwrap_or_default(), "x".repeat(40 << 10));
    match how {
        BadEntry::LongUri => entry["contentUri"] = longer(&entry["contentUri"]).into(),
        BadEntry::LongId => entry["contentId"] = longer(&entry["contentId"]).into(),
        BadEntry::NoId => _ = entry.as_object_mut().and_then(|fields| fields.remove("contentId")),
    }
}

fn malformed(mut plain: Vec<u8>, how: BadJson) -> Vec<u8> {
    match how {
        BadJson::Cut => {
            plain.truncate(plain.len() / 2);
            plain
        }
        BadJson::Garbage => b"\x00\xff[{\"CreationTime\":garbage}} not json".to_vec(),
        BadJson::NotAnArray => br#"{"value":[],"note":"an object where an array belongs"}"#.to_vec(),
    }
}

/// The foreign host: answers everything with an empty list and notes whatever it should not have got.
pub(crate) struct Foreign {
    pub(crate) world: Arc<World>,
}

impl Handler for Foreign {
    type Ticket = ();

    fn connected(&self) {
        self.world.lock().book.connections += 1;
    }

    fn answer(&self, request: &Request) -> (Response, ()) {
        let now = self.world.clock.now();
        let mut state = self.world.lock();
        state.book.foreign_requests += 1;
        if request.header("authorization").is_some() {
            state.book.violation(now, format!("a bearer token reached the foreign host: {}", request.line()));
        }
        let form = request.form();
        if form.contains_key("client_assertion") || form.contains_key("client_secret") {
            state.book.violation(now, format!("a credential reached the foreign host: {}", request.line()));
        }
        (Response::new(200, "application/json; charset=utf-8", "[]"), ())
    }

    fn told(&self, _: Wait) {}

    fn sent(&self, (): (), _: Sent) {}

    fn date(&self) -> String {
        self.world.clock.date_header()
    }
}
