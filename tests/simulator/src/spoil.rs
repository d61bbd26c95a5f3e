//! What faults do to answers.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::activity;
use crate::blob::Blob;
use crate::entra;
use crate::faults::{
    BadEntry, BadJson, Effect, Endpoint, ErrorBody, LeftOut, Point, Question, Throttle, ThrottleShape,
};
use crate::graph;
use crate::http::{Body, Request, Response, Wire};
use crate::ledger::{Scope, Wait};
use crate::world::World;

/// The answer that a fault gives in place of the sound one, if it does.
pub(crate) fn instead(world: &World, request: &Request, question: &Question, effect: &Effect) -> Option<Response> {
    if question.endpoint.is_graph()
        && let Some(response) = graph::instead(world, question, effect)
    {
        return Some(response);
    }
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
                question.endpoint,
                &publisher,
                &world.clock,
            )
        }
        Effect::ThrottledThenSilent { retry_after_s } => {
            let throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(*retry_after_s) };
            let scope = scope.unwrap_or(Scope::Activity(Uuid::nil()));
            let response = activity::throttled(throttle, scope, question.endpoint, "", &world.clock);
            Response { wire: Wire::Stall(Point::AfterHeaders, None), ..response }
        }
        Effect::ProxyPage => Response::new(
            200,
            "text/html; charset=utf-8",
            "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Network access</form></body></html>",
        ),
        Effect::Af { code, status, message } => {
            activity::error(*status, code, message.as_deref().unwrap_or_else(|| activity::usual_message(code)))
        }
        Effect::Entra { code, retry_after_s } => {
            let refusal = entra::Refusal::new(*code);
            let response = match question.endpoint {
                Endpoint::SignIn | Endpoint::AdminConsent => entra::turned_away(world, request, &refusal),
                _ => refusal.response(world.clock.now(), request.header("client-request-id")),
            };
            seconds(response, *retry_after_s)
        }
        Effect::Denied => activity::denied(),
        Effect::Redirect { status } => {
            Response::empty(*status).header("Location", format!("{}{}", world.hosts.foreign, request.path))
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
pub(crate) fn spoil(
    world: &World,
    request: &Request,
    question: &Question,
    mut response: Response,
    effect: Effect,
) -> Response {
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
            let (own, foreign) = (
                format!("\"contentUri\":\"{}/", world.hosts.management),
                format!("\"contentUri\":\"{}/", world.hosts.foreign),
            );
            let text = String::from_utf8_lossy(&response.whole()).replace(&own, &foreign);
            response.body = Body::Whole(text.into());
        }
        Effect::ForeignMetadata => {
            let mut document: serde_json::Value = serde_json::from_slice(&response.whole()).unwrap_or_default();
            for name in ["jwks_uri", "token_endpoint"] {
                if let Some(own) = document[name].as_str() {
                    let path = own.splitn(4, '/').nth(3).unwrap_or_default();
                    document[name] = format!("{}/{path}", world.hosts.foreign).into();
                }
            }
            response.body = Body::Whole(document.to_string().into());
        }
        Effect::OddKeys => {
            let mut document: serde_json::Value = serde_json::from_slice(&response.whole()).unwrap_or_default();
            if let Some(keys) = document["keys"].as_array_mut() {
                entra::add_odd_keys(keys);
            }
            response.body = Body::Whole(document.to_string().into());
        }
        Effect::BadEntry(how) => {
            change_entries(&mut response, |entries| entries.iter_mut().take(1).for_each(|entry| bad_entry(entry, how)));
        }
        Effect::ForeignNextPage if question.endpoint.is_graph() => return graph::spoil(world, response, &effect),
        Effect::ForeignNextPage => {
            let link = next_page(world, &response)
                .unwrap_or_else(|| format!("{}/api/v1.0/next?nextpage=1", world.hosts.management));
            let name = next_page_header(world);
            response.set_header(&name, link.replacen(&world.hosts.management, &world.hosts.foreign, 1));
        }
        Effect::RepeatedEntry => {
            change_entries(&mut response, |entries| entries.extend(entries.first().cloned()));
        }
        Effect::LeaveOut(left_out) => {
            leave_out(world, question, &mut response, |place, entries, blob| match left_out {
                LeftOut::Listed => blob.listed > 0,
                LeftOut::Half => place >= entries.div_ceil(2),
            });
        }
        Effect::RelativeNextPage => {
            if let Some(link) = next_page(world, &response) {
                let name = next_page_header(world);
                response.set_header(&name, link.replacen(&world.hosts.management, "", 1));
            }
        }
        Effect::EmptyPage => {
            leave_out(world, question, &mut response, |_, _, _| true);
            let name = next_page_header(world);
            response.set_header(&name, activity::link_to_same(world, request));
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
        response.lists.clear();
    }
    response.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("content-encoding"));
    response.body = Body::Whole(Bytes::from(changed));
}

/// Takes entries out of a listing: then it has not named them.
fn leave_out(
    world: &World,
    question: &Question,
    response: &mut Response,
    is_left_out: impl Fn(usize, usize, &Blob) -> bool,
) {
    let Some(tenant) = question.tenant else { return };
    let state = world.lock();
    let mut left_out = Vec::new();
    change_entries(response, |entries| {
        let (count, mut place) = (entries.len(), 0..);
        entries.retain(|entry| {
            let blob = entry["contentId"].as_str().and_then(|id| state.blob_named(tenant, id));
            let place = place.next().unwrap_or_default();
            let out = blob.filter(|blob| is_left_out(place, count, blob));
            left_out.extend(out.map(|blob| blob.number));
            out.is_none()
        });
    });
    response.lists.retain(|number| !left_out.contains(number));
}

/// Changes the entries of a listing.
fn change_entries(response: &mut Response, change: impl FnOnce(&mut Vec<serde_json::Value>)) {
    let bytes = response.whole();
    response.body = Body::Whole(match serde_json::from_slice::<Vec<serde_json::Value>>(&bytes) {
        Ok(mut entries) => {
            change(&mut entries);
            serde_json::Value::from(entries).to_string().into()
        }
        Err(_) => bytes,
    });
}

fn bad_entry(entry: &mut serde_json::Value, how: BadEntry) {
    let longer = |value: &serde_json::Value| format!("{}{}", value.as_str().unwrap_or_default(), "x".repeat(40 << 10));
    match how {
        BadEntry::LongUri => entry["contentUri"] = longer(&entry["contentUri"]).into(),
        BadEntry::LongId => entry["contentId"] = longer(&entry["contentId"]).into(),
        BadEntry::NoExpiration => entry["contentExpiration"] = "0001-01-01T00:00:00".into(),
        BadEntry::NoId => _ = entry.as_object_mut().and_then(|fields| fields.remove("contentId")),
    }
}

fn malformed(mut plain: Vec<u8>, how: BadJson) -> Vec<u8> {
    match how {
        BadJson::Cut => {
            plain.truncate(plain.len() / 2);
            plain
        }
        BadJson::Empty => Vec::new(),
        BadJson::Garbage => b"\x00\xff[{\"CreationTime\":garbage}} not json".to_vec(),
        BadJson::NotAnArray => br#"{"value":[],"note":"an object where an array belongs"}"#.to_vec(),
    }
}
