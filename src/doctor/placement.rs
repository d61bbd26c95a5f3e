//! At which link an error belongs. The words stay the error's own.

use super::chain::{Link, Verdict};
use crate::activity::{ActivityError, Reason};
use crate::token::TokenError;
use crate::token::entra::Scope;

/// Where a failed request for a token belongs.
pub(super) fn of_token(error: &TokenError) -> Link {
    match (error.kind(), error.scope()) {
        ("clock", _) => Link::Clock,
        ("dns", _) => Link::Dns,
        ("proxy", _) => Link::Proxy,
        ("tls", _) => Link::Tls,
        ("authority_unknown", _) => Link::Authority,
        ("certificate_refused", _) | (_, Scope::App) => Link::Credential,
        ("too_soon" | "asked_to_wait" | "ended" | "token_unusable", _) | (_, Scope::Tenant) => Link::Token,
        (_, Scope::Passing) => Link::Authority,
    }
}

/// Where a request to the API that failed at `asked` belongs.
pub(super) fn of_service(error: &ActivityError, asked: Link) -> Link {
    let Some(refusal) = error.refusal() else { return asked };
    match refusal.reason {
        Reason::PermissionMissing => Link::Roles,
        Reason::TokenRefused | Reason::OtherTenant | Reason::TenantInvalid => Link::Token,
        Reason::AuditLogOff | Reason::TenantUnknown | Reason::TenantMisconfigured => Link::AuditLog,
        Reason::NotSubscribed | Reason::SubscriptionDisabled | Reason::ContentTypeInvalid => Link::Subscriptions,
        Reason::Throttled | Reason::StartCooldown => Link::Quota,
        Reason::AlreadySubscribed
        | Reason::ParameterMissing
        | Reason::ParameterInvalid
        | Reason::ExpirationPast
        | Reason::WebhookInvalid
        | Reason::WindowInvalid
        | Reason::PageInvalid
        | Reason::ContentUnknown
        | Reason::ContentExpired
        | Reason::ContentIdInvalid
        | Reason::LanguageInvalid
        | Reason::ServiceFailed
        | Reason::Unavailable
        | Reason::RequestTimedOut
        | Reason::Forbidden
        | Reason::NotFound
        | Reason::Unknown => asked,
    }
}

/// The verdict that a failed request for a token leads to.
pub(super) fn no_token(error: &TokenError) -> Verdict {
    Verdict::Broken(of_token(error), error.trouble())
}

/// The verdict that a request leads to which failed at `asked`.
pub(super) fn refused(error: &ActivityError, asked: Link) -> Verdict {
    Verdict::Broken(of_service(error, asked), error.trouble())
}
