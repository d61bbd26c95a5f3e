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
    of_it: Option<String>,
}

impl Route {
    /// The route of a path, if it belongs to service communications.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1.0/admin/serviceAnnouncement/")?;
        let mut parts = rest.split('/').map(percent_decoded);
        let board = Board::named(&parts.next()?)?;
        Some(Self { board, id: parts.next(), of_it: parts.next() })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match (&self.of_it, self.board) {
            (Some(_), _) => Endpoint::GraphFile,
            (None, Board::Services) => Endpoint::GraphServices,
            (None, Board::Issues) => Endpoint::GraphIssues,
            (None, Board::Messages) => Endpoint::GraphMessages,
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
    match (id, of_it.as_deref()) {
        (None, _) => listed(world, request, *board, tenant),
        (Some(id), None) => match world.lock().boards(tenant).and_then(|boards| boards.item(*board, id)) {
            Some(item) => Response::json(200, &item),
            None => unknown(id),
        },
        (Some(id), Some(name)) => file(world, *board, tenant, id, name),
    }
}

fn unknown(id: &str) -> Response {
    error(404, "ResourceNotFound", &format!("Resource '{id}' does not exist."))
}

/// The report of an incident that is over, or the archive of a post's attachments.
fn file(world: &World, board: Board, tenant: Uuid, id: &str, name: &str) -> Response {
    let item = world.lock().boards(tenant).and_then(|boards| boards.item(board, id));
    let Some(item) = item else { return unknown(id) };
    let reviewed = item["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("postIncidentReviewPublished"));
    match (board, name) {
        (Board::Issues, "incidentReport") if reviewed => {
            Response::new(200, "application/octet-stream", format!("PIR of {id} \u{0}\u{1}"))
        }
        (Board::Messages, "attachmentsArchive") if item["hasAttachments"] == true => {
            Response::new(200, "application/zip", format!("PK\u{3}\u{4} attachments of {id}"))
        }
        (Board::Issues, "incidentReport") | (Board::Messages, "attachmentsArchive") => unknown(id),
        _ => error(400, "BadRequest", &format!("Resource not found for the segment '{name}'.")),
    }
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
