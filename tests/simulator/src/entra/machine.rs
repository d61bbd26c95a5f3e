//! The token services of Azure's machines: the instance metadata service (IMDS) and that of App Service, which give out
//! tokens of managed identities to whoever asks from the machine itself.
//!
//! A token for [`TOKEN_EXCHANGE`] is one that an app can trust as a federated credential; any other is an access token
//! of the identity's own tenant.

use std::collections::HashMap;

use serde_json::json;

use super::access_token::{Claims, write};
use super::id_token::{header, sealed};
use super::refusal::Refusal;
use super::token::is_resource;
use crate::http::{Request, Response};
use crate::scenario::{ManagedIdentity, TOKEN_EXCHANGE};
use crate::world::World;

/// The application id of the token exchange in the public cloud, by which tokens name their audience.
pub(super) const EXCHANGE_ID: &str = "fb60f99c-7a34-4190-8149-302f77469936";

/// How long a token is good for.
const LIFETIME_S: i64 = 86_399;

/// A token service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// `/metadata/identity/oauth2/token`.
    Instance,
    /// `/msi/token`: what `IDENTITY_ENDPOINT` names.
    App,
}

impl Service {
    /// The service of a path, if it is one's.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/metadata/identity/oauth2/token" => Some(Self::Instance),
            "/msi/token" => Some(Self::App),
            _ => None,
        }
    }
}

/// Answers a request to a token service.
pub(crate) fn answer(world: &World, request: &Request, service: Service) -> Response {
    let parameters = request.parameters();
    match admit(world, request, service, &parameters) {
        Ok((identity, resource)) => match token(world, &identity, &resource) {
            Ok((token, exp)) => granted(service, &identity, &resource, &token, exp),
            Err(refusal) => refusal.response(world.clock.now(), None),
        },
        Err(response) => *response,
    }
}

fn bad(error: &str, description: &str) -> Box<Response> {
    Box::new(Response::json(400, &json!({ "error": error, "error_description": description })))
}

/// Which identity a token is for, and for what.
fn admit(
    world: &World,
    request: &Request,
    service: Service,
    parameters: &HashMap<String, String>,
) -> Result<(ManagedIdentity, String), Box<Response>> {
    if request.method != "GET" {
        return Err(Box::new(Response::empty(405)));
    }
    let version = parameters.get("api-version").map(String::as_str);
    match service {
        Service::Instance => {
            if !request.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                return Err(bad("bad_request_102", "Required metadata header not specified"));
            }
            // Whatever came through a proxy did not come from this machine.
            if request.header("x-forwarded-for").is_some() {
                return Err(bad("bad_request", "X-Forwarded-For header is not allowed"));
            }
            if version.is_none_or(|version| version < "2018-02-01") {
                return Err(bad("bad_request_100", "The requested api-version is missing or not supported"));
            }
        }
        Service::App => {
            let wanted = world.lock().identity_header.clone();
            if request.header("x-identity-header") != Some(wanted.as_str()) {
                let body = json!({ "statusCode": 401, "message": "No valid X-IDENTITY-HEADER" });
                return Err(Box::new(Response::json(401, &body)));
            }
            if version != Some("2019-08-01") {
                return Err(bad("bad_request", "The requested api-version is missing or not supported"));
            }
        }
    }
    let resource = parameters
        .get("resource")
        .filter(|resource| !resource.is_empty())
        .ok_or_else(|| bad("invalid_request", "Invalid Request. Resource parameter missing"))?;
    let identity = identity(&world.lock().managed_identities, service, parameters)?;
    Ok((identity, resource.clone()))
}

fn identity(
    known: &[ManagedIdentity],
    service: Service,
    parameters: &HashMap<String, String>,
) -> Result<ManagedIdentity, Box<Response>> {
    let (object, resource) = match service {
        Service::Instance => ("object_id", "msi_res_id"),
        Service::App => ("principal_id", "mi_res_id"),
    };
    let is = |identity: &ManagedIdentity| {
        let same = |name: &str, value: &str| parameters.get(name).is_none_or(|given| given.eq_ignore_ascii_case(value));
        same("client_id", &identity.client_id.to_string())
            && same(object, &identity.object_id.to_string())
            && same(resource, &identity.resource_id)
    };
    let mut fitting = known.iter().filter(|identity| is(identity));
    match (fitting.next(), fitting.next()) {
        (Some(identity), None) => Ok(identity.clone()),
        (None, _) => Err(bad("invalid_request", "Identity not found")),
        (Some(_), Some(_)) => Err(bad(
            "invalid_request",
            "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
        )),
    }
}

/// A token, and when it runs out.
fn token(world: &World, identity: &ManagedIdentity, resource: &str) -> Result<(String, i64), Refusal> {
    let now = world.clock.now().as_second();
    let exp = now + LIFETIME_S;
    let bare = resource.trim_end_matches('/');
    if bare.starts_with(TOKEN_EXCHANGE) {
        let key = world.keys.current();
        let claims = json!({
            "aud": if bare == TOKEN_EXCHANGE { EXCHANGE_ID } else { bare },
            "iss": format!("{}/{}/v2.0", world.hosts.authority, identity.tenant),
            "iat": now - 300,
            "nbf": now - 300,
            "exp": exp,
            "azp": identity.client_id,
            "oid": identity.object_id,
            "sub": identity.object_id,
            "tid": identity.tenant,
            "ver": "2.0",
        });
        return Ok((sealed(&header("RS256", &key.kid), &claims, &key), exp));
    }
    if !is_resource(world, resource) {
        return Err(Refusal::new(500_011));
    }
    let mut state = world.lock();
    let claims = Claims {
        aud: resource.to_owned(),
        iss: format!("https://sts.windows.net/{}/", identity.tenant),
        iat: now,
        nbf: now - 300,
        exp,
        appid: identity.client_id.to_string(),
        appidacr: "2".to_owned(),
        oid: identity.object_id,
        // In its own tenant an identity needs no consent, but somebody must have given it the roles.
        roles: state.roles(identity.tenant, identity.client_id, world.clock.uptime()).unwrap_or_default(),
        scp: None,
        tid: identity.tenant,
        uti: state.tenants.get(&identity.tenant).map_or(0, |tenant| tenant.token_generation),
        ver: "1.0".to_owned(),
    };
    Ok((write(&claims, &world.token_key), exp))
}

fn granted(service: Service, identity: &ManagedIdentity, resource: &str, token: &str, exp: i64) -> Response {
    let body = match service {
        Service::Instance => json!({
            "access_token": token,
            "refresh_token": "",
            "client_id": identity.client_id,
            "expires_in": LIFETIME_S.to_string(),
            "expires_on": exp.to_string(),
            "not_before": (exp - LIFETIME_S - 300).to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }),
        Service::App => json!({
            "access_token": token,
            "client_id": identity.client_id,
            "expires_on": exp.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }),
    };
    Response::json(200, &body).header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_identity_is_found_by_any_of_its_names() {
        let number = |n: u128| ManagedIdentity {
            tenant: Uuid::from_u128(9),
            client_id: Uuid::from_u128(n),
            object_id: Uuid::from_u128(n + 10),
            resource_id: format!("/subscriptions/{n}"),
        };
        let known = [number(1), number(2)];
        let find = |service, name: &str, value: String| {
            let parameters = HashMap::from([(name.to_owned(), value)]);
            identity(&known, service, &parameters).ok().map(|found| found.client_id.as_u128())
        };
        assert_eq!(find(Service::Instance, "client_id", Uuid::from_u128(2).to_string()), Some(2));
        assert_eq!(find(Service::Instance, "object_id", Uuid::from_u128(11).to_string()), Some(1));
        assert_eq!(find(Service::App, "principal_id", Uuid::from_u128(11).to_string()), Some(1));
        assert_eq!(find(Service::App, "mi_res_id", "/subscriptions/2".to_owned()), Some(2));
        assert_eq!(find(Service::Instance, "client_id", Uuid::from_u128(3).to_string()), None);
        assert_eq!(find(Service::Instance, "other", String::new()), None, "either would do");
    }
}
