//! The simulated Entra ID: sign-in, admin consent, token endpoint v1 and v2, the metadata that client libraries read
//! first, and the token services of Azure's machines.
//!
//! Follows "Microsoft identity platform and the OAuth 2.0 client credentials flow", "… authorization code flow", "Admin
//! consent on the Microsoft identity platform", "Microsoft identity platform application authentication certificate
//! credentials" and "Microsoft Entra authentication and authorization error codes", and accepts every variant of an
//! assertion that Microsoft's own libraries send.
//!
//! # Driving the pages
//!
//! A browser is sent to one of these; `{in}` is `organizations`, `common`, `consumers`, a tenant's GUID or its domain:
//!
//! | path | what it is |
//! |---|---|
//! | `GET /{in}/oauth2/v2.0/authorize?…` | sign-in, v2 |
//! | `GET /{in}/oauth2/authorize?…` | sign-in, v1 (`resource=`, `prompt=admin_consent`) |
//! | `GET /{in}/v2.0/adminconsent?…` | admin consent, v2 |
//! | `GET /{in}/adminconsent?…` | admin consent, v1 |
//!
//! Each page is a form that posts to the very address that it was got from. A test with a browser clicks; one without
//! posts the fields itself, and needs no page before: `account=admin@contoso.example` at a sign-in, that and
//! `decision=accept` at an admin consent, are answered with the redirect to the app.
//!
//! | page (`id` of `body`) | what there is to click (element `id`) | posts |
//! |---|---|---|
//! | `accounts` | `account-admin-contoso-example` (the account's name with a hyphen for whatever is neither letter nor digit) | `account=NAME` |
//! | | `cancel` | `decision=cancel` |
//! | `consent` | `accept`, `cancel`, `switch` (to `accounts`) | `decision=…`, `account=NAME` |
//! | `approval` (AADSTS90094: no administrator) | `return` (to the app, with the error), `switch` | `decision=…`, `account=NAME` |
//! | `refused` | nothing: a dead end, whose element `error` has the text and `data-code` the number after AADSTS | |
//! | `post` | nothing: posts itself to the app (`response_mode=form_post`) | |
//!
//! Whoever has chosen an account stays signed in by a cookie (`ESTSAUTH`) and skips `accounts` from then on, unless
//! `prompt=select_account` or `login` asks for it. The ledger has what came of it (`sign_ins`, `consents`, and
//! `redemptions` of the codes).

mod access_token;
mod assertion;
mod asking;
mod authorize;
mod code;
mod consent;
mod federated;
mod id_token;
mod keys;
mod machine;
mod metadata;
mod page;
mod people;
mod redemption;
mod refusal;
pub(crate) mod registration;
mod token;

pub(crate) use access_token::{Claims, read as read_access_token};
pub(crate) use code::Code;
pub(crate) use consent::Replicating;
pub(crate) use keys::{Keyring, add_odd_keys};
pub(crate) use machine::{Service as MachineService, answer as answer_machine};
pub(crate) use refusal::Refusal;

use asking::Asking;
use uuid::Uuid;

use crate::faults::Endpoint;
use crate::http::{Request, Response};
use crate::scenario::CONSUMERS;
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
    Authorize(u8),
    AdminConsent(u8),
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
            "oauth2/v2.0/authorize" => Document::Authorize(2),
            "oauth2/authorize" => Document::Authorize(1),
            "v2.0/adminconsent" => Document::AdminConsent(2),
            "adminconsent" => Document::AdminConsent(1),
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
        match self.document {
            Document::Authorize(_) => Endpoint::SignIn,
            Document::AdminConsent(_) => Endpoint::AdminConsent,
            Document::Token(_) => Endpoint::Token,
            Document::Keys => Endpoint::Keys,
            Document::OpenidConfiguration(_) | Document::InstanceDiscovery => Endpoint::Metadata,
        }
    }
}

/// Whose accounts a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directory {
    Tenant(Uuid),
    Organizations,
    Common,
    Consumers,
}

impl Directory {
    /// The directory that a path segment names.
    pub(crate) fn named(world: &World, segment: &str) -> Result<Self, Refusal> {
        match segment {
            "organizations" => return Ok(Self::Organizations),
            "common" => return Ok(Self::Common),
            "consumers" => return Ok(Self::Consumers),
            _ => {}
        }
        match tenant_named(world, segment) {
            Some(CONSUMERS) => Ok(Self::Consumers),
            Some(id) if world.lock().tenants.contains_key(&id) => Ok(Self::Tenant(id)),
            Some(_) => Err(not_found(segment)),
            None if segment.contains('.') => Err(not_found(segment)),
            None => Err(Refusal::with(
                900_023,
                format!(
                    "Specified tenant identifier '{segment}' is neither a valid DNS name, nor a valid external domain."
                ),
            )),
        }
    }
}

/// There is no such tenant.
pub(crate) fn not_found(segment: &str) -> Refusal {
    Refusal::with(
        90002,
        format!(
            "Tenant '{segment}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
        ),
    )
}

/// The app is not known there.
pub(crate) fn unknown_app(client_id: &str, segment: &str) -> Refusal {
    Refusal::with(
        700_016,
        format!(
            "Application with identifier '{client_id}' was not found in the directory '{segment}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant."
        ),
    )
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
        Document::Authorize(version) => authorize::answer(world, request, &route.tenant, version),
        Document::AdminConsent(version) => consent::answer(world, request, &route.tenant, version),
        Document::Token(version) => token::answer(world, request, &route.tenant, version),
        Document::OpenidConfiguration(version) => {
            metadata::openid_configuration(world, request, &route.tenant, version)
        }
        Document::Keys => Response::json(200, &world.keys.document(&metadata::authority(world, request))),
        Document::InstanceDiscovery => metadata::instances(world, request),
    }
}

/// Sends a browser back to the app with an error; a dead end if the app is not to be told.
pub(crate) fn turned_away(world: &World, request: &Request, refusal: &Refusal) -> Response {
    let route = Route::of(&request.path);
    let asking = route.as_ref().map(|route| match route.document {
        Document::AdminConsent(version) => (&route.tenant, version, true),
        _ => (&route.tenant, 2, false),
    });
    let asked = asking.map(|(segment, version, consent)| (Asking::of(world, request, segment, version), consent));
    match asked {
        Some((Ok(asking), true)) => consent::told(world, &asking, refusal),
        Some((Ok(asking), false)) => asking.back(asking.mode(), asking.error(refusal)),
        _ => page::refused(refusal, world.clock.now()),
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
        assert_eq!(document("/organizations/oauth2/v2.0/authorize"), Some(Document::Authorize(2)));
        assert_eq!(document("/common/adminconsent"), Some(Document::AdminConsent(1)));
        assert_eq!(document("/api/v1.0/t/activity/feed/subscriptions/list"), None);
    }
}
