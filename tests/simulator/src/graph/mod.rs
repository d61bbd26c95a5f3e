//! The simulated service communications of Microsoft Graph: health overviews, issues, Message Center.
//!
//! Follows "Working with service communications API in Microsoft Graph" and the pages of its lists. Paging by `$skip` is
//! what Graph does, and like Graph's it is not stable while items change: a list is in the order of its last changes, so
//! that an item which is changed moves to the end, and one behind it slips into a page that was given out already.
//!
//! Quotas ("Microsoft Graph service-specific throttling limits"): 240 requests a minute and 800 an hour of an app for a
//! tenant. Whoever sends more is a violation in the ledger.

mod answers;
mod board;

pub(crate) use answers::{instead, spoil};
pub use board::{Announced, Board};
pub(crate) use board::{Boards, Quota};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use self::answers::{denied, error};
use crate::entra::read_access_token;
use crate::faults::Endpoint;
use crate::http::{Request, Response, percent_decoded};
use crate::ledger::Scope;
use crate::world::World;

/// Graph's role for overviews and issues.
pub const HEALTH_READ: &str = "ServiceHealth.Read.All";
/// Graph's role for the Message Center.
pub const MESSAGES_READ: &str = "ServiceMessage.Read.All";

/// Graph's audience, as every cloud of this simulator knows it.
pub(crate) const AUDIENCE: &str = "https://graph.microsoft.com";

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) board: Board,
    /// The item, if one is named.
    id: Option<String>,
    /// What of it, if something.
    of_it: Vec<String>,
}

impl Route {
    /// The route of a path, if it belongs to service communications.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1.0/admin/serviceAnnouncement/")?;
        let mut parts = rest.split('/').map(percent_decoded);
        let board = Board::named(&parts.next()?)?;
        Some(Self { board, id: parts.next(), of_it: parts.collect() })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self.board {
            _ if !self.of_it.is_empty() => Endpoint::GraphFile,
            Board::Services => Endpoint::GraphServices,
            Board::Issues => Endpoint::GraphIssues,
            Board::Messages => Endpoint::GraphMessages,
        }
    }
}

/// The tenant of the token that a request carries: nothing else in it says whose it is.
pub(crate) fn tenant_of(world: &World, request: &Request) -> Option<Uuid> {
    Some(read_access_token(bearer(request)?, &world.token_key)?.tid)
}

/// Notes what a request should not be like.
pub(crate) fn remark(world: &World, request: &Request) {
    let (now, uptime) = (world.clock.now(), world.clock.uptime());
    let Some(claims) = bearer(request).and_then(|token| read_access_token(token, &world.token_key)) else { return };
    let line = request.line();
    let mut state = world.lock();
    if claims.aud.trim_end_matches('/') != AUDIENCE {
        state.book.violation(now, format!("a token for `{}` reached Graph: {line}", claims.aud));
    }
    if let Some(left) = state.book.disregarded(Scope::Graph(claims.tid), uptime) {
        let left = left.as_secs_f64();
        let tenant = claims.tid;
        state.book.violation(
            now,
            format!("tenant {tenant}: a request to Graph {left:.1} s before a delivered wait ended: {line}"),
        );
    }
    let exceeded = state.tenants.get_mut(&claims.tid).and_then(|tenant| tenant.graph_quota.spend(uptime));
    if let Some(limit) = exceeded {
        state.book.violation(now, format!("tenant {}: more than {limit} by Graph: {line}", claims.tid));
    }
}

/// Answers a request.
pub(crate) fn answer(world: &World, request: &Request, route: &Route) -> Response {
    match admit(world, request, route) {
        Ok(tenant) => given(world, request, route, tenant),
        Err(response) => *response,
    }
}

/// Checks the token and its roles.
fn admit(world: &World, request: &Request, route: &Route) -> Result<Uuid, Box<Response>> {
    let claims = bearer(request).and_then(|token| read_access_token(token, &world.token_key));
    let claims = claims.ok_or_else(|| Box::new(denied()))?;
    let state = world.lock();
    let generation = state.tenants.get(&claims.tid).map(|tenant| tenant.token_generation);
    let is_good = generation == Some(claims.uti) && world.clock.now().as_second() < claims.exp;
    if !is_good || claims.aud.trim_end_matches('/') != AUDIENCE {
        return Err(denied().into());
    }
    let wanted = if route.board == Board::Messages { MESSAGES_READ } else { HEALTH_READ };
    if claims.roles.iter().any(|role| role == wanted) {
        Ok(claims.tid)
    } else {
        Err(error(403, "AccessDenied", "Required roles claim values are not provided.").into())
    }
}

fn given(world: &World, request: &Request, route: &Route, tenant: Uuid) -> Response {
    if request.method != "GET" {
        return error(405, "MethodNotAllowed", "The request uses a method that is not supported.");
    }
    let Route { board, id, of_it } = route;
    let parts: Vec<_> = of_it.iter().map(String::as_str).collect();
    match (id, &parts[..]) {
        (None, _) => listed(world, request, *board, tenant),
        (Some(id), []) => match world.lock().boards(tenant).and_then(|boards| boards.item(*board, id)) {
            Some(item) => Response::json(200, &item),
            None => unknown(id),
        },
        (Some(id), parts) => file(world, *board, tenant, id, parts),
    }
}

fn unknown(id: &str) -> Response {
    error(404, "ResourceNotFound", &format!("Resource '{id}' does not exist."))
}

/// The report of an incident that is over, and a post's attachments, one by one or in an archive.
fn file(world: &World, board: Board, tenant: Uuid, id: &str, parts: &[&str]) -> Response {
    let item = world.lock().boards(tenant).and_then(|boards| boards.item(board, id));
    let Some(item) = item else { return unknown(id) };
    let reviewed = item["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("postIncidentReviewPublished"));
    let attached = item["hasAttachments"] == true;
    match (board, parts) {
        (Board::Issues, ["incidentReport"]) if reviewed => {
            Response::new(200, "application/octet-stream", format!("PIR of {id} \u{0}\u{1}"))
        }
        (Board::Messages, ["attachmentsArchive"]) if attached => {
            Response::new(200, "application/zip", format!("PK\u{3}\u{4} attachments of {id}"))
        }
        (Board::Messages, ["attachments"]) => {
            let all = if attached { attachments(id) } else { Vec::new() };
            let all: Vec<_> = all.iter().map(|(about, _)| about).collect();
            Response::json(200, &json!({ "value": all }))
        }
        (Board::Messages, ["attachments", one, rest @ ..]) if attached => {
            match (attachments(id).into_iter().find(|(about, _)| about["id"] == *one), rest) {
                (Some((about, _)), []) => Response::json(200, &about),
                (Some((_, content)), ["content" | "$value"]) => Response::new(200, "application/octet-stream", content),
                _ => unknown(one),
            }
        }
        (Board::Issues, ["incidentReport"]) | (Board::Messages, ["attachmentsArchive" | "attachments", ..]) => {
            unknown(id)
        }
        _ => error(400, "BadRequest", &format!("Resource not found for the segment '{}'.", parts.join("/"))),
    }
}

/// Two attachments of a post, and what is in them: one is called as Microsoft's documentation shows it, by a sentence, and
/// one as nobody should call a file.
fn attachments(message: &str) -> Vec<(Value, String)> {
    let one = |number: u32, name: &str, media: &str| {
        let content = format!("attachment {number} of {message}\n");
        let about = json!({
            "id": format!("30356a46-ffad-47e1-acf6-{number:012}"), "name": name, "contentType": media, "isInline": false,
            "lastModifiedDateTime": "2021-09-21T04:07:15.9720778Z", "size": content.len(),
        });
        (about, content)
    };
    vec![
        one(1, "A table for this message is within the Message Center.", "application/csv"),
        one(2, "../../.outside", "text/plain"),
    ]
}

/// A page of a list.
fn listed(world: &World, request: &Request, board: Board, tenant: Uuid) -> Response {
    let parameters = request.parameters();
    let number = |name: &str| parameters.get(name).and_then(|text| text.parse::<usize>().ok());
    let since = match parameters.get("$filter").map(|filter| since(filter)) {
        Some(None) => return error(400, "BadRequest", "Invalid filter clause"),
        Some(Some(_)) if board == Board::Services => return error(400, "BadRequest", "Invalid filter clause"),
        since => since.flatten(),
    };
    let now = world.clock.now();
    let mut state = world.lock();
    let preferred = request.header("prefer").and_then(|text| text.strip_prefix("odata.maxpagesize=")?.parse().ok());
    let size = number("$top").or(preferred).unwrap_or(state.service.graph_page_size).clamp(1, 1000);
    let skip = number("$skip").unwrap_or(0);
    let shift = state.service.graph_shifts_while_paging;
    let withdrawals = state.service.graph_withdrawals_while_paging;
    let host = &world.hosts.graph;
    let Some(boards) = state.boards_mut(tenant) else { return denied() };
    let (page, more) = boards.page(board, since, skip, size);
    let name = board.name();
    let mut body = json!({
        "@odata.context": format!("{host}/v1.0/$metadata#admin/serviceAnnouncement/{name}"),
        "value": page.iter().map(|(item, _)| item).collect::<Vec<_>>(),
    });
    if more {
        let filter = parameters.get("$filter").map(|filter| format!("$filter={}&", filter.replace(' ', "%20")));
        let filter = filter.unwrap_or_default();
        let next = format!("{host}{}?{filter}$skip={}", request.path, skip + size);
        body["@odata.nextLink"] = Value::from(next);
        // Between this page and the next one.
        if withdrawals > 0 && boards.withdraw_first(board, since, skip) {
            state.service.graph_withdrawals_while_paging -= 1;
            return Response {
                announces: page.into_iter().filter_map(|(_, number)| number).collect(),
                ..Response::json(200, &body)
            };
        }
        if shift > 0 && boards.touch(board, since, skip, now) {
            state.service.graph_shifts_while_paging -= 1;
        }
    }
    Response { announces: page.into_iter().filter_map(|(_, number)| number).collect(), ..Response::json(200, &body) }
}

/// `lastModifiedDateTime ge 2025-01-25T00:00:00Z`, the one filter that is known here.
fn since(filter: &str) -> Option<Timestamp> {
    filter.strip_prefix("lastModifiedDateTime ge ")?.parse().ok()
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_filters_are_known() {
        let base = "/v1.0/admin/serviceAnnouncement";
        let endpoint = |path: &str| Route::of(&format!("{base}{path}")).map(|route| route.endpoint());
        for (path, expected) in [
            ("/healthOverviews", Some(Endpoint::GraphServices)),
            ("/issues", Some(Endpoint::GraphIssues)),
            ("/issues/EX1/incidentReport", Some(Endpoint::GraphFile)),
            ("/messages/MC1", Some(Endpoint::GraphMessages)),
            ("/other", None),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
        }
        assert!(since("lastModifiedDateTime ge 2025-01-25T00:00:00Z").is_some());
        assert_eq!((since("isResolved eq false"), since("lastModifiedDateTime ge now")), (None, None));
    }
}
