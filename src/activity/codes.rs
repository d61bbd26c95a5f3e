//! What the service's refusals mean, as a table: the codes of the activity API reference ("Errors"), those seen
//! beside them, and the shapes that carry no code at all.
//!
//! Which row an answer belongs to is decided in [`refusal`](super::refusal); what to do next, in
//! [`Reason::advice`].

use std::time::Duration;

use super::error::Operation;
use crate::retry::Advice;

/// "Wait 15 minutes between two start requests" ("Working with the Office 365 Management Activity API"): what a
/// refused start waits for if the service does not say how long.
pub const START_COOLDOWN: Duration = Duration::from_mins(15);

/// Why the service refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The token lacks the role.
    PermissionMissing,
    /// The token was not accepted, without a code.
    TokenRefused,
    /// A parameter is missing.
    ParameterMissing,
    /// A parameter has the wrong form.
    ParameterInvalid,
    /// A webhook's expiration is past.
    ExpirationPast,
    /// The tenant of the path is not the token's.
    OtherTenant,
    /// The service does not know the tenant.
    TenantUnknown,
    /// The service knows the tenant, but not rightly.
    TenantMisconfigured,
    /// The path's tenant is no GUID.
    TenantInvalid,
    /// Unified audit logging is off: the tenant "does not exist" where audit records are kept.
    AuditLogOff,
    /// No such content type.
    ContentTypeInvalid,
    /// The webhook did not answer the test message.
    WebhookInvalid,
    /// There is no subscription.
    NotSubscribed,
    /// There was one; it was disabled.
    SubscriptionDisabled,
    /// There is one already: a start request has nothing to do.
    AlreadySubscribed,
    /// Too soon after the last start request.
    StartCooldown,
    /// The window is longer than 24 hours or starts more than seven days ago.
    WindowInvalid,
    /// The page link is no longer good.
    PageInvalid,
    /// There is no such content.
    ContentUnknown,
    /// The content was there, and is deleted.
    ContentExpired,
    /// The content's id is none.
    ContentIdInvalid,
    /// The wanted language was not understood.
    LanguageInvalid,
    /// Too many requests.
    Throttled,
    /// The service failed, and says so in its own words.
    ServiceFailed,
    /// The service or something before it failed (5xx).
    Unavailable,
    /// The service waited for the request in vain (408).
    RequestTimedOut,
    /// Forbidden, and not by throttling.
    Forbidden,
    /// There is nothing at this address (404), and not of the service's own words.
    NotFound,
    /// None of these.
    Unknown,
}

/// What the operator is told about a reason.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) reason: Reason,
    /// The codes that mean it.
    pub(super) codes: &'static [&'static str],
    /// The stable label.
    pub(super) kind: &'static str,
    /// What happened, after "starting the subscription: …".
    pub(super) cause: &'static str,
    /// What to do, or nothing.
    pub(super) remedy: &'static str,
    /// Whether it stays until a person acts.
    pub(super) needs_operator: bool,
}

/// Shorter to read, row by row.
const fn row(
    reason: Reason,
    codes: &'static [&'static str],
    kind: &'static str,
    needs_operator: bool,
    cause: &'static str,
    remedy: &'static str,
) -> Row {
    Row { reason, codes, kind, cause, remedy, needs_operator }
}

/// A bug of ours, in the operator's view.
const REPORT: &str = "report this with the log around it: the request was built wrongly";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Reason::PermissionMissing, &["AF10001"], "permission_missing", true,
        "the token does not carry the permission that this request needs",
        "grant the application permission ActivityFeed.Read (for DLP.All also ActivityFeed.ReadDlp) of the Office 365 Management APIs, give admin consent in this tenant, and check that the tenant's `cloud` is right; a fresh grant takes some minutes"),
    row(Reason::TokenRefused, &[], "token_refused", false,
        "the token was not accepted", ""),
    row(Reason::ParameterMissing, &["AF20001"], "parameter_missing", true,
        "the service misses a parameter", REPORT),
    row(Reason::ParameterInvalid, &["AF20002"], "parameter_invalid", true,
        "the service does not accept the form of a parameter",
        "check that the app's `publisher_id` is a GUID; if it is, report this with the log around it"),
    row(Reason::ExpirationPast, &["AF20003"], "webhook_expiration_past", true,
        "the webhook's expiration is in the past", "set a later expiration, or none"),
    row(Reason::OtherTenant, &["AF20010"], "tenant_mismatch", true,
        "the tenant of the request is not the tenant of the token",
        "check the tenant's `id`: it must be the directory id of the tenant that gave consent"),
    row(Reason::TenantUnknown, &["AF20011"], "tenant_unknown", true,
        "the service does not know this tenant, or it has been deleted",
        "check the tenant's `id` and `cloud`, and that unified audit logging is turned on there"),
    row(Reason::TenantMisconfigured, &["AF20012"], "tenant_misconfigured", true,
        "the service says that this tenant is set up incorrectly on its side",
        "open a support request with Microsoft and name the correlation id"),
    row(Reason::TenantInvalid, &["AF20013"], "tenant_invalid", true,
        "the service does not accept the tenant's id as a GUID", "correct the tenant's `id`"),
    row(Reason::AuditLogOff, &[], "audit_log_off", true,
        "unified audit logging is off in this tenant, so that the service knows no audit records of it",
        "let an administrator of the tenant run `Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true` in Exchange Online PowerShell; it takes up to 60 minutes to work"),
    row(Reason::ContentTypeInvalid, &["AF20020"], "content_type_invalid", true,
        "the service does not know this content type",
        "remove the content type from the tenant's `content_types`: its cloud does not offer it"),
    row(Reason::WebhookInvalid, &["AF20021"], "webhook_invalid", true,
        "the service could not validate the webhook",
        "make the webhook's address reachable from the internet over HTTPS, and its test message answered with 200"),
    row(Reason::NotSubscribed, &["AF20022"], "not_subscribed", false,
        "there is no subscription for this content type", ""),
    row(Reason::SubscriptionDisabled, &["AF20023"], "subscription_disabled", true,
        "the subscription for this content type was disabled, by an administrator of the tenant or by the service",
        "if it is not enabled again by itself within the hour, ask the tenant's administrator who disabled it"),
    row(Reason::AlreadySubscribed, &["AF20024"], "already_subscribed", false,
        "the subscription is enabled already", ""),
    row(Reason::StartCooldown, &[], "start_cooldown", false,
        "the service accepts no further start request yet", ""),
    // The reference lists AF20030; AF20055 is seen with the same text.
    row(Reason::WindowInvalid, &["AF20030", "AF20055"], "window_invalid", false,
        "the service does not accept the window of time: it is longer than 24 hours or starts more than seven days ago",
        "if this repeats, check this host's clock"),
    row(Reason::PageInvalid, &["AF20031"], "page_invalid", false,
        "the service no longer accepts the link to the next page", ""),
    row(Reason::ContentUnknown, &["AF20050"], "content_unknown", false,
        "the service does not know this content any more", ""),
    row(Reason::ContentExpired, &["AF20051"], "content_expired", false,
        "the content has expired: the service deletes it seven days after it became available", ""),
    row(Reason::ContentIdInvalid, &["AF20052"], "content_id_invalid", false,
        "the service does not accept the content id that it listed itself", ""),
    row(Reason::LanguageInvalid, &["AF20053", "AF20054"], "language_invalid", true,
        "the service does not accept the language", "name one language, such as `en-US`"),
    row(Reason::Throttled, &["AF429", "429"], "throttled", false,
        "the service throttles this tenant", ""),
    // AF50005 and AF50006 are not in the reference, but seen.
    row(Reason::ServiceFailed, &["AF50000", "AF50005", "AF50006"], "service_failed", false,
        "the service failed internally", ""),
    row(Reason::Unavailable, &[], "unavailable", false,
        "the service is not available", ""),
    row(Reason::RequestTimedOut, &[], "request_timed_out", false,
        "the service timed out", ""),
    row(Reason::Forbidden, &[], "forbidden", true,
        "the request was forbidden, and not by throttling",
        "check that the app has admin consent in this tenant and that no proxy answers in the service's place"),
    row(Reason::NotFound, &[], "not_found", true,
        "there is no Activity API at this address",
        "check the tenant's `cloud` and, if it is one of your own, its `management` address"),
    row(Reason::Unknown, &[], "refused", true,
        "the service refused the request for a reason not known here",
        "look the code and the message up, or open a support request with Microsoft and name the correlation id"),
];

impl Reason {
    /// The reason that a code stands for. Codes of the 5xxxx family that are not listed are failures of the service.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Self> {
        let listed = TABLE.iter().find(|row| row.codes.iter().any(|listed| listed.eq_ignore_ascii_case(code)));
        listed.map(|row| row.reason).or_else(|| {
            let digits = code.get(..2).filter(|letters| letters.eq_ignore_ascii_case("AF")).and(code.get(2..))?;
            let failure =
                digits.len() == 5 && digits.starts_with('5') && digits.bytes().all(|byte| byte.is_ascii_digit());
            failure.then_some(Self::ServiceFailed)
        })
    }

    /// What is said about it.
    pub(super) fn row(self) -> &'static Row {
        // A test sees to it that every reason has its row.
        TABLE.iter().find(|row| row.reason == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }

    /// What happened, and what to do about it or nothing: for whoever met it in another way than by a refusal.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        (self.row().cause, self.row().remedy)
    }

    /// The stable label, for metrics and filters.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.row().kind
    }

    /// What to do next; `wait` is what the service asked for.
    #[must_use]
    pub fn advice(self, operation: Operation, wait: Option<Duration>) -> Advice {
        let fetching = operation == Operation::FetchBlob;
        match self {
            Self::PermissionMissing | Self::TokenRefused => Advice::RenewToken,
            Self::Throttled => Advice::Throttled { after: wait },
            // A wait that the service names outside of its throttling holds for the tenant all the same.
            Self::ServiceFailed | Self::Unavailable | Self::RequestTimedOut if wait.is_some() => {
                Advice::Throttled { after: wait }
            }
            Self::ServiceFailed | Self::Unavailable | Self::RequestTimedOut => Advice::Retry { after: None },
            Self::StartCooldown => Advice::Retry { after: wait.or(Some(START_COOLDOWN)) },
            Self::NotSubscribed | Self::SubscriptionDisabled | Self::AlreadySubscribed => Advice::CheckSubscription,
            Self::WindowInvalid | Self::PageInvalid if !fetching => Advice::RelistWindow,
            Self::ContentUnknown | Self::ContentExpired | Self::ContentIdInvalid if fetching => Advice::GiveUp,
            // An answer to another question than was asked, or one that concerns one content type or one webhook only:
            // the tenant's other work goes on.
            Self::WindowInvalid
            | Self::PageInvalid
            | Self::ContentUnknown
            | Self::ContentExpired
            | Self::ContentIdInvalid
            | Self::ContentTypeInvalid
            | Self::WebhookInvalid
            | Self::ExpirationPast
            | Self::LanguageInvalid => Advice::Retry { after: wait },
            // One blob that is refused without a known reason says nothing about the tenant: it is tried until it
            // expires.
            Self::Forbidden | Self::NotFound | Self::Unknown if fetching => Advice::Retry { after: wait },
            Self::OtherTenant
            | Self::TenantUnknown
            | Self::TenantMisconfigured
            | Self::TenantInvalid
            | Self::AuditLogOff
            | Self::ParameterMissing
            | Self::ParameterInvalid
            | Self::Forbidden
            | Self::NotFound
            | Self::Unknown => Advice::PauseTenant,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_one_row_and_every_row_its_own_label_and_codes() {
        let reasons: HashSet<_> = TABLE.iter().map(|row| row.reason).collect();
        assert_eq!(reasons.len(), TABLE.len());
        assert_eq!(TABLE.len(), 29, "a new reason needs a row");
        assert_eq!(TABLE.iter().map(|row| row.kind).collect::<HashSet<_>>().len(), TABLE.len());
        let codes: Vec<_> = TABLE.iter().flat_map(|row| row.codes).collect();
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), codes.len());
        assert_eq!(TABLE[TABLE.len() - 1].reason, Reason::Unknown);
        for row in TABLE {
            assert!(!row.cause.is_empty() && !row.cause.ends_with('.') && !row.remedy.ends_with('.'), "{row:?}");
            assert!(!row.needs_operator || !row.remedy.is_empty(), "a person needs to be told what to do: {row:?}");
        }
    }

    #[test]
    fn every_documented_code_is_known() {
        for code in [
            "AF10001", "AF20001", "AF20002", "AF20003", "AF20010", "AF20011", "AF20012", "AF20013", "AF20020",
            "AF20021", "AF20022", "AF20023", "AF20024", "AF20030", "AF20031", "AF20050", "AF20051", "AF20052",
            "AF20053", "AF20054", "AF20055", "AF429", "AF50000", "AF50005", "AF50006", "af50099", "429",
        ] {
            assert!(Reason::of_code(code).is_some(), "{code}");
        }
        for code in ["", "AF", "AF2", "AF99999", "AF5000", "AF500000", "AF5000x", "50000", "Zürich", "ÄF50000"] {
            assert_eq!(Reason::of_code(code), None, "{code}");
        }
    }
}
