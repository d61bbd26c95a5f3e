//! Error answers of the API in their several shapes.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::clock::Clock;
use crate::faults::{Endpoint, Throttle, ThrottleShape};
use crate::http::Response;
use crate::ledger::{Scope, Wait};

/// The documented shape.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Response {
    Response::json(status, &json!({ "error": { "code": code, "message": message } }))
        .header("mise-correlation-id", Uuid::new_v4().to_string())
}

/// The answer to a token that is missing, unknown or expired.
pub(crate) fn denied() -> Response {
    Response::json(401, &json!({ "Message": "Authorization has been denied for this request." }))
        .header("WWW-Authenticate", "Bearer")
}

/// Too many requests, in the wished shape. A client is held to the wait only if the answer names one.
pub(crate) fn throttled(throttle: Throttle, scope: Scope, of: Endpoint, publisher: &str, clock: &Clock) -> Response {
    let publisher = Uuid::try_parse(publisher).unwrap_or_default();
    let message = format!("Too many requests. Method={}, PublisherId={publisher}", method(of));
    let seconds = throttle.retry_after_s;
    let mut response = match throttle.shape {
        ThrottleShape::Forbidden => error(403, "AF429", &message),
        ThrottleShape::TooManyRequests | ThrottleShape::Dated => error(429, "AF429", &message),
        ThrottleShape::PlainText => Response::new(429, "text/plain", "Too Many Requests"),
        ThrottleShape::Sentence => {
            let wait = in_words(seconds.unwrap_or(60));
            let mut response = error(403, "429", &format!("Too many requests. Please retry again after {wait}."));
            response.wait = Some(Wait { scope, time: Duration::from_secs(seconds.unwrap_or(60)) });
            return response;
        }
    };
    if let Some(seconds) = seconds {
        let (text, least) = match throttle.shape {
            // A date has whole seconds: the moment that it names may be almost a second nearer.
            ThrottleShape::Dated => (clock.date_in(seconds), seconds.saturating_sub(1)),
            _ => (seconds.to_string(), seconds),
        };
        response = response.header("Retry-After", text);
        response.wait = Some(Wait { scope, time: Duration::from_secs(least) });
    }
    response
}

/// What the service calls an operation. Only `GetBlob` has been seen; the others are made up after it.
fn method(of: Endpoint) -> &'static str {
    match of {
        Endpoint::Blob => "GetBlob",
        Endpoint::List => "GetContent",
        Endpoint::Subscriptions => "GetSubscriptions",
        Endpoint::Start => "StartSubscription",
        Endpoint::Stop => "StopSubscription",
        Endpoint::Notifications => "GetNotifications",
        Endpoint::SensitiveTypes => "GetDlpSensitiveTypes",
        Endpoint::Token
        | Endpoint::Metadata
        | Endpoint::Keys
        | Endpoint::SignIn
        | Endpoint::AdminConsent
        | Endpoint::ManagedIdentity
        | Endpoint::GraphServices
        | Endpoint::GraphIssues
        | Endpoint::GraphMessages
        | Endpoint::GraphFile
        | Endpoint::Unknown => "Unknown",
    }
}

/// `14m 56s`.
pub(super) fn in_words(seconds: u64) -> String {
    format!("{}m {}s", seconds / 60, seconds % 60)
}

/// The reference's message for a code.
pub(crate) fn usual_message(code: &str) -> &'static str {
    match code {
        "AF10001" => "The permission set () sent in the request does not include the expected permission.",
        "AF20001" => "Missing parameter: contentType.",
        "AF20002" => "Invalid parameter type: startTime. Expected type: datetime",
        "AF20010" => "The tenant ID passed in the URL does not match the tenant ID passed in the access token.",
        "AF20011" => "Specified tenant ID does not exist in the system or has been deleted.",
        "AF20012" => "Specified tenant ID is incorrectly configured in the system.",
        "AF20013" => "The tenant ID passed in the URL is not a valid GUID.",
        "AF20020" => "The specified content type is not valid.",
        "AF20021" => "The webhook endpoint could not be validated. The endpoint did not return HTTP 200.",
        "AF20022" => "No subscription found for the specified content type.",
        "AF20023" => "The subscription was disabled by a tenant admin.",
        "AF20024" => "The subscription is already enabled. No property change.",
        "AF20030" => {
            "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours apart, with the start time no more than 7 days in the past."
        }
        "AF20031" => "Invalid nextPage Input.",
        "AF20050" => "The specified content does not exist.",
        "AF20051" => "Content requested has already expired. Content older than 7 days cannot be retrieved.",
        "AF20052" => "Content ID in the URL is invalid.",
        "AF20055" => {
            "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours apart, with the start time prior to end time and start time no more than 7 days in the past."
        }
        "AF429" => "Too many requests. Method=GetBlob, PublisherId=00000000-0000-0000-0000-000000000000",
        _ => "An internal server error occurred. Retry the request.",
    }
}
