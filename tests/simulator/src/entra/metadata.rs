//! The documents that client libraries read before they ask for a token.

use serde_json::json;

use super::{Directory, not_found};
use crate::http::{Request, Response};
use crate::scenario::CONSUMERS;
use crate::world::World;

/// The authority's base address as the client knows it: a library that was told `https://login.microsoftonline.com`
/// and is rewired to this cloud must find that host again in what it reads.
pub(crate) fn authority(world: &World, request: &Request) -> String {
    match request.header("host") {
        Some(host)
            if !host.starts_with("127.0.0.1") && !host.starts_with("localhost") && !host.starts_with("[::1]") =>
        {
            format!("https://{host}")
        }
        Some(host) => format!("http://{host}"),
        None => world.hosts.authority.clone(),
    }
}

/// `/.well-known/openid-configuration`.
pub(crate) fn openid_configuration(world: &World, request: &Request, segment: &str, version: u8) -> Response {
    let authority = authority(world, request);
    let tenant = match Directory::named(world, segment) {
        Ok(Directory::Common | Directory::Organizations) => "{tenantid}".to_owned(),
        Ok(Directory::Consumers) => CONSUMERS.to_string(),
        Ok(Directory::Tenant(id)) => id.to_string(),
        Err(_) => return not_found(segment).response(world.clock.now(), None),
    };
    let (path, issuer) = match version {
        2 => ("/oauth2/v2.0", format!("{authority}/{tenant}/v2.0")),
        _ => ("/oauth2", format!("https://sts.windows.net/{tenant}/")),
    };
    let named = if tenant.starts_with('{') { segment } else { &tenant };
    Response::json(
        200,
        &json!({
            "token_endpoint": format!("{authority}/{named}{path}/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{authority}/{named}/discovery{}/keys", if version == 2 { "/v2.0" } else { "" }),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": issuer,
            "request_uri_parameter_supported": false,
            "authorization_endpoint": format!("{authority}/{named}{path}/authorize"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{authority}/{named}{path}/logout"),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "tid", "ver"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
        }),
    )
}

/// Instance discovery.
pub(crate) fn instances(world: &World, request: &Request) -> Response {
    let authority = authority(world, request);
    Response::json(
        200,
        &json!({
            "tenant_discovery_endpoint": format!("{authority}/organizations/v2.0/.well-known/openid-configuration"),
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": "login.microsoftonline.com",
                "preferred_cache": "login.windows.net",
                "aliases": ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"],
            }],
        }),
    )
}
