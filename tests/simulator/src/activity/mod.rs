//! The simulated Office 365 Management Activity API.
//!
//! Follows the "Office 365 Management Activity API reference" and, where the service is known to differ from it, what
//! has been seen: lower-cased next-page links, AF429 inside a 403, sentences in `error.code`.

mod answers;
mod content;
mod encoding;
mod subscriptions;
mod window;

pub(crate) use answers::{denied, error, throttled, usual_message};
pub(crate) use content::link_to_same;
pub(crate) use encoding::{bomb, compress, expand, prepare};

use jiff::Timestamp;
use uuid::Uuid;

use crate::content_type::ContentType;
use crate::entra::{Claims, read_access_token};
use crate::faults::{Endpoint, Throttle};
use crate::http::{Request, Response, percent_decoded};
use crate::ledger::Scope;
use crate::scenario::{ACTIVITY_READ, ACTIVITY_READ_DLP, TenantMismatch};
use crate::world::World;

/// What a path of the API asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The tenant segment as sent.
    pub(crate) tenant: String,
    pub(crate) endpoint: Endpoint,
    /// The rest of a blob's path, decoded.
    pub(crate) content_id: String,
}

impl Route {
    /// The route of a path, if it belongs to the API.
    pub(crate) fn of(path: &str) -> Option<Route> {
        let rest = path.strip_prefix("/api/v1.0/").or_else(|| path.strip_prefix("/api/v1/"))?;
        let (tenant, operation) = rest.split_once("/activity/feed/").unwrap_or((rest, ""));
        let mut content_id = String::new();
        let endpoint = match operation {
            "subscriptions/start" => Endpoint::Start,
            "subscriptions/stop" => Endpoint::Stop,
            "subscriptions/list" => Endpoint::Subscriptions,
            "subscriptions/content" => Endpoint::List,
            "subscriptions/notifications" => Endpoint::Notifications,
            "resources/dlpSensitiveTypes" => Endpoint::SensitiveTypes,
            other => match other.strip_prefix("audit/") {
                Some(id) => {
                    content_id = percent_decoded(id);
                    Endpoint::Blob
                }
                None => Endpoint::Unknown,
            },
        };
        Some(Route { tenant: tenant.to_owned(), endpoint, content_id })
    }

    /// The tenant in the path, if it is a GUID.
    pub(crate) fn tenant_id(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.tenant).ok()
    }
}

/// A request that may be answered: its token is good.
pub(crate) struct Call<'a> {
    pub(crate) world: &'a World,
    pub(crate) request: &'a Request,
    pub(crate) parameters: std::collections::HashMap<String, String>,
    /// The token's tenant.
    pub(crate) tenant: Uuid,
    pub(crate) claims: Claims,
    pub(crate) now: Timestamp,
    pub(crate) route: &'a Route,
}

/// Answers a request to the API.
pub(crate) fn answer(world: &World, request: &Request, route: &Route) -> Response {
    match admit(world, request, route) {
        Ok(call) => match route.endpoint {
            Endpoint::Start => subscriptions::start(&call),
            Endpoint::Stop => subscriptions::stop(&call),
            Endpoint::Subscriptions => subscriptions::list(&call),
            Endpoint::List => content::list(&call),
            Endpoint::Notifications => content::notifications(&call),
            Endpoint::Blob => content::blob(&call),
            Endpoint::SensitiveTypes => content::sensitive_types(&call),
            // The others are Entra's, which a route of the API never is.
            _ => Response::empty(404),
        },
        Err(response) => *response,
    }
}

/// Notes what is wrong with a request before it is answered, faults or not.
pub(crate) fn remark(world: &World, request: &Request, route: &Route, content_type: Option<ContentType>) {
    let now = world.clock.now();
    let uptime = world.clock.uptime();
    let publisher = request.parameters().get("publisheridentifier").cloned();
    let bearer = bearer(request).and_then(|t| read_access_token(t, &world.token_key));
    let mut state = world.lock();
    let line = request.line();
    match (&publisher, state.service.publisher) {
        (None, _) => state.book.violation(now, format!("no PublisherIdentifier: {line}")),
        (Some(sent), Some(wanted)) if Uuid::try_parse(sent) != Ok(wanted) => {
            state.book.violation(now, format!("PublisherIdentifier `{sent}` is not {wanted}: {line}"));
        }
        _ => {}
    }
    let times = request.times_named("publisheridentifier");
    if times > 1 {
        state.book.violation(now, format!("PublisherIdentifier {times} times: {line}"));
    }
    let Some(tenant) = route.tenant_id() else {
        return;
    };
    *state.book.tenant(tenant).publishers.entry(publisher.unwrap_or_default()).or_insert(0) += 1;
    if let Some(claims) = bearer.as_ref().filter(|c| c.aud.trim_end_matches('/') == crate::graph::AUDIENCE) {
        state.book.violation(now, format!("a token for `{}` reached the management host: {line}", claims.aud));
    }
    if let Some(claims) = bearer.filter(|c| c.tid != tenant) {
        state.book.violation(now, format!("a token of tenant {} was used for tenant {tenant}: {line}", claims.tid));
    }
    let mut scopes = vec![Scope::Activity(tenant)];
    if let (Endpoint::Start, Some(content_type)) = (route.endpoint, content_type) {
        scopes.push(Scope::Start(tenant, content_type));
    }
    for scope in scopes {
        if let Some(left) = state.book.disregarded(scope, uptime) {
            state.book.violation(
                now,
                format!("tenant {tenant}: a request {:.1} s before a delivered wait ended: {line}", left.as_secs_f64()),
            );
        }
    }
}

/// Checks token, tenant, publisher and budget, in this order.
fn admit<'a>(world: &'a World, request: &'a Request, route: &'a Route) -> Result<Call<'a>, Box<Response>> {
    let now = world.clock.now();
    let claims =
        bearer(request).and_then(|t| read_access_token(t, &world.token_key)).ok_or_else(|| Box::new(denied()))?;
    let parameters = request.parameters();
    let publisher = parameters.get("publisheridentifier").cloned();
    let mut state = world.lock();
    let Some(generation) = state.tenants.get(&claims.tid).map(|t| t.token_generation) else {
        return Err(denied().into());
    };
    if now.as_second() >= claims.exp || claims.uti != generation {
        return Err(denied().into());
    }
    if !world.is_management_audience(&state.service, &claims.aud) {
        return Err(permission("", ACTIVITY_READ).into());
    }
    if !claims.roles.iter().any(|r| r == ACTIVITY_READ) {
        return Err(permission(&claims.roles.join(","), ACTIVITY_READ).into());
    }
    let named = parameters.get("contenttype").and_then(|t| ContentType::parse(t));
    let content_type = named.or_else(|| state.blob_named(claims.tid, &route.content_id).map(|b| b.content_type));
    if content_type == Some(ContentType::Dlp) && !claims.roles.iter().any(|r| r == ACTIVITY_READ_DLP) {
        return Err(permission(&claims.roles.join(","), ACTIVITY_READ_DLP).into());
    }
    match route.tenant_id() {
        Some(tenant) if tenant == claims.tid => {}
        _ if state.service.tenant_mismatch == TenantMismatch::ServeTokenTenant => {}
        Some(tenant) => {
            let text = format!(
                "The tenant ID passed in the URL ({tenant}) does not match the tenant ID passed in the access token ({}).",
                claims.tid
            );
            return Err(error(400, "AF20010", &text).into());
        }
        None => {
            return Err(error(
                400,
                "AF20013",
                &format!("The tenant ID passed in the URL ({}) is not a valid GUID.", route.tenant),
            )
            .into());
        }
    }
    if publisher.as_ref().is_some_and(|p| Uuid::try_parse(p).is_err()) {
        return Err(error(400, "AF20002", "Invalid parameter type: PublisherIdentifier. Expected type: guid").into());
    }
    let uptime = world.clock.uptime();
    let service = state.service.clone();
    let refuse = |throttle: Throttle, publisher: &str| {
        Box::new(throttled(throttle, Scope::Activity(claims.tid), route.endpoint, publisher, &world.clock))
    };
    if publisher.is_none() && !state.unidentified.spend(service.unidentified_per_minute, uptime) {
        return Err(refuse(service.throttle, ""));
    }
    let tenant = state.tenants.get_mut(&claims.tid).expect("looked up under the same lock");
    let limit = tenant.requests_per_minute.or(service.requests_per_minute);
    if !tenant.budget.spend(limit, uptime) {
        return Err(refuse(service.throttle, publisher.as_deref().unwrap_or_default()));
    }
    drop(state);
    Ok(Call { world, request, parameters, tenant: claims.tid, claims, now, route })
}

fn permission(roles: &str, wanted: &str) -> Response {
    error(
        401,
        "AF10001",
        &format!("The permission set ({roles}) sent in the request does not include the expected permission {wanted}."),
    )
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.header("authorization")?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl Call<'_> {
    /// The `contentType` parameter.
    fn content_type(&self) -> Result<ContentType, Box<Response>> {
        match self.parameters.get("contenttype") {
            None => Err(error(400, "AF20001", "Missing parameter: contentType.").into()),
            Some(name) => ContentType::parse(name)
                .ok_or_else(|| error(400, "AF20020", "The specified content type is not valid.").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_are_known() {
        let id = "7c1d94a2-6b3e-4f05-9a48-2d1e50c7b311";
        let route = Route::of(&format!("/api/v1.0/{id}/activity/feed/audit/2020%241$audit_exchange")).unwrap();
        assert_eq!((route.endpoint, route.content_id.as_str()), (Endpoint::Blob, "2020$1$audit_exchange"));
        assert_eq!(route.tenant_id().unwrap().to_string(), id);
        assert_eq!(
            Route::of(&format!("/api/v1/{id}/activity/feed/subscriptions/content")).unwrap().endpoint,
            Endpoint::List
        );
        assert_eq!(Route::of("/api/v1.0/nobody/activity/feed/x").unwrap().endpoint, Endpoint::Unknown);
        assert_eq!(Route::of("/other"), None);
    }
}
