//! Listing content, its pages, and fetching blobs.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::Call;
use super::answers::{error, usual_message};
use super::encoding;
use super::window::{Allowed, Refused, Window, window};
use crate::blob::Blob;
use crate::clock::{with_millis, with_ticks};
use crate::content_type::ContentType;
use crate::http::{Body, Request, Response};
use crate::records;
use crate::world::{State, SubscriptionStatus, World};

/// Bodies up to about this size are made whole and sent with their length.
const WHOLE_RECORDS: u32 = 4_000;

/// An entry of a listing.
#[derive(Serialize)]
struct Entry {
    #[serde(rename = "contentUri")]
    uri: String,
    #[serde(rename = "contentId")]
    id: String,
    #[serde(rename = "contentType")]
    content_type: ContentType,
    #[serde(rename = "contentCreated")]
    created: String,
    #[serde(rename = "contentExpiration")]
    expiration: String,
}

/// `subscriptions/content`.
pub(super) fn list(call: &Call<'_>) -> Response {
    let (content_type, window) = match asked(call) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let mut state = call.world.lock();
    if let Err(response) = subscribed(&state, call, content_type) {
        return *response;
    }
    let after = match call.parameters.get("nextpage") {
        None => None,
        Some(token) => match read_token(token) {
            Some(place) => Some(place),
            None => return error(400, "AF20031", &format!("Invalid nextPage Input: {token}.")),
        },
    };
    let size = state.service.page_size.max(1);
    let numbers = available(&state, call, content_type, window, after, size + 1);
    let page = &numbers[..numbers.len().min(size)];
    let (mut entries, mut named) = (Vec::with_capacity(page.len()), Vec::with_capacity(page.len()));
    for number in page {
        let listed = state.listed_as(*number, window.start, window.end);
        let Some(blob) = listed.and_then(|listed| state.blob(listed)) else {
            continue;
        };
        named.push(blob.number);
        entries.push(entry(blob, &call.world.hosts.management));
    }
    let mut response = Response { lists: named, ..Response::json(200, &entries) };
    if let Some(last) = page.last().filter(|_| numbers.len() > size).and_then(|n| state.blob(*n)) {
        let link = next_page(call, &state, content_type, window, &token(last.visible_from, last.number));
        response = response.header(&state.service.next_page_header.clone(), link);
    }
    response
}

/// The link to the page after the place `token` names.
fn next_page(call: &Call<'_>, state: &State, content_type: ContentType, window: Window, token: &str) -> String {
    let (url, tenant) = (&call.world.hosts.management, call.tenant);
    if state.service.rewritten_next_page {
        format!(
            "{url}/api/v1.0/{tenant}/activity/feed/subscriptions/content?contenttype={content_type}&endtime={}&starttime={}&nextpage={token}",
            with_ticks(window.end),
            with_ticks(window.start)
        )
    } else {
        let time = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        format!(
            "{url}/api/v1/{tenant}/activity/feed/subscriptions/content?contentType={content_type}&startTime={}&endTime={}&nextPage={token}",
            time(window.start),
            time(window.end)
        )
    }
}

/// A next-page link that leads to what the request itself asks for.
pub(crate) fn link_to_same(world: &World, request: &Request) -> String {
    let parameters = request.parameters();
    let mut link = format!("{}{}?", world.hosts.management, request.path);
    for name in ["contenttype", "endtime", "starttime"] {
        if let Some(value) = parameters.get(name) {
            link.push_str(name);
            link.push('=');
            link.push_str(value);
            link.push('&');
        }
    }
    link.push_str("nextpage=");
    link.push_str(&parameters.get("nextpage").map_or_else(|| token(Timestamp::UNIX_EPOCH, 0), |token| another(token)));
    link
}

/// The blobs that a window holds now, in the order in which they became available, after a place in it; at most so many.
fn available(
    state: &State,
    call: &Call<'_>,
    content_type: ContentType,
    window: Window,
    after: Option<(Timestamp, u64)>,
    most: usize,
) -> Vec<u64> {
    let Some(feed) = state.tenants.get(&call.tenant).and_then(|t| t.feeds.get(&content_type)) else {
        return Vec::new();
    };
    let place = |n: &u64| state.blob(*n).map(|b| (b.visible_from, b.number));
    let first = after.map_or(0, |after| feed.order.partition_point(|n| place(n) <= Some(after)));
    feed.order[first..]
        .iter()
        .filter_map(|n| state.blob(*n))
        .take_while(|b| b.visible_from <= call.now)
        .filter(|b| window.start <= b.content_created && b.range_from.unwrap_or(b.content_created) < window.end)
        .filter(|b| !b.withheld && b.content_expiration > call.now)
        .take(most)
        .map(|b| b.number)
        .collect()
}

/// Content type and window of a request, or why it is refused.
fn asked(call: &Call<'_>) -> Result<(ContentType, Window), Box<Response>> {
    let content_type = call.content_type()?;
    let (grace, long_partial) = {
        let service = &call.world.lock().service;
        (SignedDuration::from_secs(i64::try_from(service.window_grace_s).unwrap_or(0)), service.long_windows_partial)
    };
    let text = |name: &str| call.parameters.get(name).map(String::as_str).filter(|t| !t.is_empty());
    let (start, end) = (text("starttime"), text("endtime"));
    let (window, wrong) = match window(start, end, call.now, grace, long_partial) {
        Ok(Allowed { window, tolerated }) => (Ok(window), tolerated),
        Err(refused) => (Err(refused), Some(refused)),
    };
    if let Some(refused) = wrong {
        let text =
            format!("tenant {}: a window the reference forbids ({refused:?}): {}", call.tenant, call.request.line());
        call.world.lock().book.violation(call.now, text);
    }
    let refusal = |refused| {
        let code = match refused {
            Refused::Unreadable(name) => {
                return Box::new(error(
                    400,
                    "AF20002",
                    &format!("Invalid parameter type: {name}. Expected type: datetime"),
                ));
            }
            Refused::OneEnd | Refused::TooLong => "AF20030",
            Refused::Backwards | Refused::TooOld => "AF20055",
        };
        let message = format!(
            "{} StartTime:{}, EndTime:{}",
            usual_message(code),
            start.unwrap_or_default(),
            end.unwrap_or_default()
        );
        Box::new(error(400, code, &message))
    };
    Ok((content_type, window.map_err(refusal)?))
}

fn subscribed(state: &State, call: &Call<'_>, content_type: ContentType) -> Result<(), Box<Response>> {
    let status = state.tenants.get(&call.tenant).and_then(|t| t.subscriptions.get(&content_type)).map_or(
        SubscriptionStatus::None,
        |s| match s.limps_until {
            Some(until) if s.status == SubscriptionStatus::Enabled && call.now < until => SubscriptionStatus::Disabled,
            _ => s.status,
        },
    );
    match status {
        SubscriptionStatus::Enabled => Ok(()),
        SubscriptionStatus::None => Err(error(400, "AF20022", usual_message("AF20022")).into()),
        SubscriptionStatus::Disabled => Err(error(400, "AF20023", usual_message("AF20023")).into()),
    }
}

/// An entry of a history of notifications.
#[derive(Serialize)]
struct Notified {
    #[serde(flatten)]
    entry: Entry,
    #[serde(rename = "notificationSent")]
    sent: String,
    #[serde(rename = "notificationStatus")]
    status: &'static str,
}

/// `subscriptions/notifications`: the attempts to tell a webhook, in their order.
pub(super) fn notifications(call: &Call<'_>) -> Response {
    let (content_type, window) = match asked(call) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let state = call.world.lock();
    if let Err(response) = subscribed(&state, call, content_type) {
        return *response;
    }
    let after = match call.parameters.get("nextpage").map(|token| token.parse::<usize>()) {
        None => 0,
        Some(Ok(place)) => place,
        Some(Err(_)) => return error(400, "AF20031", "Invalid nextPage Input."),
    };
    let size = state.service.page_size.max(1);
    let attempts = state.tenants.get(&call.tenant).and_then(|t| t.subscriptions.get(&content_type));
    let attempts = attempts.into_iter().flat_map(|subscription| &subscription.attempts);
    let attempts: Vec<_> =
        attempts.filter(|attempt| attempt.at >= window.start && attempt.at < window.end).skip(after).collect();
    let page: Vec<Notified> = attempts
        .iter()
        .take(size)
        .filter_map(|attempt| {
            let entry = entry(state.blob(attempt.blob)?, &call.world.hosts.management);
            let status = if attempt.reached { "success" } else { "failed" };
            Some(Notified { entry, sent: with_millis(attempt.at), status })
        })
        .collect();
    let response = Response::json(200, &page);
    if attempts.len() <= size {
        return response;
    }
    let link = format!(
        "{}/api/v1.0/{}/activity/feed/subscriptions/notifications?contenttype={content_type}&endtime={}&starttime={}&nextpage={}",
        call.world.hosts.management,
        call.tenant,
        with_ticks(window.end),
        with_ticks(window.start),
        after + size
    );
    response.header(&state.service.next_page_header.clone(), link)
}

/// A blob as lists name it.
fn entry(blob: &Blob, management: &str) -> Entry {
    Entry {
        uri: format!("{management}/api/v1.0/{}/activity/feed/audit/{}", blob.tenant, blob.content_id),
        id: blob.content_id.clone(),
        content_type: blob.content_type,
        created: with_millis(blob.content_created),
        expiration: with_millis(blob.content_expiration),
    }
}

/// `audit/{contentId}`.
pub(super) fn blob(call: &Call<'_>) -> Response {
    let id = &call.route.content_id;
    let state = call.world.lock();
    let Some(blob) = state.blob_named(call.tenant, id) else {
        let shaped = id.split('$').count() >= 4;
        let (code, text) = if shaped {
            ("AF20050", format!("The specified content ({id}) does not exist."))
        } else {
            ("AF20052", format!("Content ID {id} in the URL is invalid."))
        };
        return error(if shaped { 404 } else { 400 }, code, &text);
    };
    if let Err(response) = subscribed(&state, call, blob.content_type) {
        return *response;
    }
    if blob.content_expiration <= call.now {
        return error(
            400,
            "AF20051",
            &format!(
                "Content requested with the key {id} has already expired. Content older than 7 days cannot be retrieved."
            ),
        );
    }
    if blob.visible_from > call.now {
        return error(404, "AF20050", &format!("The specified content ({id}) does not exist."));
    }
    let partial = blob.partial_until.is_some_and(|until| call.now < until);
    let number = blob.number;
    let recipe = blob.recipe.clone();
    let prepared = state.prepared.get(&number).cloned().filter(|_| !partial);
    let gzip = state.service.gzip == crate::scenario::Gzip::WhenAccepted && encoding::accepts_gzip(call.request);
    drop(state);

    let mut response = Response::new(200, "application/json; charset=utf-8", Bytes::new());
    response.delivers = (!partial).then_some(number);
    let limit = if partial { recipe.records / 2 } else { u32::MAX };
    match prepared {
        Some(prepared) if gzip => {
            response.body = Body::Whole(prepared);
            response.set_header("Content-Encoding", "gzip");
            return response;
        }
        Some(prepared) => response.body = encoding::inflate(&prepared),
        None if recipe.records <= WHOLE_RECORDS => {
            let whole: Vec<u8> = recipe.chunks(limit).fold(Vec::new(), |mut all, chunk| {
                all.extend_from_slice(&chunk);
                all
            });
            response.body = Body::Whole(whole.into());
        }
        None => response.body = Body::Stream(Box::new(recipe.chunks(limit))),
    }
    if gzip {
        encoding::compress(&mut response);
    }
    response
}

/// `resources/dlpSensitiveTypes`.
pub(super) fn sensitive_types(call: &Call<'_>) -> Response {
    let language = call.request.header("accept-language").unwrap_or_default();
    if language.contains(',') {
        return error(400, "AF20053", "Only one language may be present in the Accept-Language header.");
    }
    if !language.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return error(400, "AF20054", "Invalid syntax in Accept-Language header.");
    }
    let own = call.world.lock().tenants.get(&call.tenant).and_then(|tenant| tenant.sensitive_types.clone());
    let types: Vec<_> = match own {
        Some(types) => types.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect(),
        None => records::sensitive_types(language).map(|(id, name)| json!({ "id": id, "name": name })).collect(),
    };
    Response::json(200, &types)
}

/// A place between two pages, shaped like those seen: `20200220001806300068349$20200219104642000000000$na0022`.
fn token(visible: Timestamp, number: u64) -> String {
    let time = visible.strftime("%Y%m%d%H%M%S%3f");
    format!("{time}{:06}{number:09}${time}000000$na0022", visible.subsec_nanosecond() % 1_000_000)
}

/// Another token for the same place: a link back to its own page would be a circle.
fn another(token: &str) -> String {
    let mut parts: Vec<_> = token.split('$').map(str::to_owned).collect();
    if let Some(time) = parts.get_mut(1) {
        time.push('1');
    }
    parts.join("$")
}

fn read_token(token: &str) -> Option<(Timestamp, u64)> {
    let mut parts = token.split('$');
    let (place, _, partition) = (parts.next()?, parts.next()?, parts.next()?);
    if place.len() != 32 || partition != "na0022" || parts.next().is_some() {
        return None;
    }
    let (time, number) = (place.get(..23)?, place.get(23..)?);
    let part = |range: std::ops::Range<usize>| time.get(range);
    let text = format!(
        "{}-{}-{}T{}:{}:{}.{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?,
        part(14..23)?
    );
    Some((text.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_leads_back_to_its_place() {
        let time: Timestamp = "2026-02-20T00:18:06.300068349Z".parse().unwrap();
        let text = token(time, 4711);
        assert_eq!(text, "20260220001806300068349000004711$20260220001806300000000$na0022");
        assert_eq!(read_token(&text), Some((time, 4711)));
        assert!(another(&text) != text && read_token(&another(&text)) == read_token(&text));
        for bad in ["", "x$y$na0022", "20260220001806300068349000004711$1", "20261320001806300068349000004711$1$na0022"]
        {
            assert_eq!(read_token(bad), None, "{bad}");
        }
    }
}
