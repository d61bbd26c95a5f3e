//! The simulated Entra ID: token endpoint v1 and v2 and the metadata that client libraries read first.
//!
//! Follows "Microsoft identity platform and the OAuth 2.0 client credentials flow", "Microsoft identity platform
//! application authentication certificate credentials" and "Microsoft Entra authentication and authorization error
//! codes", and accepts every variant of an assertion that Microsoft's own libraries send.

mod access_token;
mod assertion;
mod metadata;
mod refusal;
pub(crate) mod registration;
mod token;

pub(crate) use access_token::{Claims, read as read_access_token};
pub(crate) use refusal::Refusal;

use uuid::Uuid;

use crate::faults::Endpoint;
use crate::http::{Request, Response};
use crate::world::World;

/// What a path of the authority asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The tenant segment as sent.
    pub(crate) tenant: String,
    pub(crate) document: Document,
}

/// A document of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Token(u8),
    OpenidConfiguration(u8),
    Keys,
    InstanceDiscovery,
}

impl Route {
    /// The route of a path, if it belongs to the authority.
    pub(crate) fn of(path: &str) -> Option<Route> {
        let (tenant, rest) = path.strip_prefix('/')?.split_once('/')?;
        let document = match rest {
            "oauth2/v2.0/token" => Document::Token(2),
            "oauth2/token" => Document::Token(1),
            "v2.0/.well-known/openid-configuration" => Document::OpenidConfiguration(2),
            ".well-known/openid-configuration" => Document::OpenidConfiguration(1),
            "discovery/v2.0/keys" | "discovery/keys" => Document::Keys,
            "discovery/instance" => Document::InstanceDiscovery,
            _ => return None,
        };
        Some(Route { tenant: tenant.to_owned(), document })
    }

    /// The kind of request, for faults and counts.
    pub(crate) fn endpoint(&self) -> Endpoint {
        if matches!(self.document, Document::Token(_)) { Endpoint::Token } else { Endpoint::Metadata }
    }
}

/// The tenant a path segment names: a GUID or a domain.
pub(crate) fn tenant_named(world: &World, segment: &str) -> Option<Uuid> {
    Uuid::try_parse(segment).ok().or_else(|| {
        let state = world.lock();
        state.tenants.iter().find(|(_, t)| t.domain.eq_ignore_ascii_case(segment)).map(|(id, _)| *id)
    })
}

/// Answers a request to the authority.
pub(crate) fn answer(world: &World, request: &Request, route: &Route) -> Response {
    match route.document {
        Document::Token(version) => token::answer(world, request, &route.tenant, version),
        Document::OpenidConfiguration(version) => {
            metadata::openid_configuration(world, request, &route.tenant, version)
        }
        Document::Keys => metadata::keys(),
        Document::InstanceDiscovery => metadata::instances(world, request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_authority_are_known() {
        let document = |path: &str| Route::of(path).map(|r| r.document);
        assert_eq!(document("/t/oauth2/v2.0/token"), Some(Document::Token(2)));
        assert_eq!(document("/t/oauth2/token"), Some(Document::Token(1)));
        assert_eq!(document("/t/v2.0/.well-known/openid-configuration"), Some(Document::OpenidConfiguration(2)));
        assert_eq!(document("/common/discovery/instance"), Some(Document::InstanceDiscovery));
        assert_eq!(document("/api/v1.0/t/activity/feed/subscriptions/list"), None);
    }
}
