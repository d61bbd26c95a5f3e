//! Error answers of Graph, and what faults do to its answers.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::{Effect, ErrorBody, Question, ThrottleShape};
use crate::http::{Body, Response};
use crate::ledger::{Scope, Wait};
use crate::world::World;

/// The documented shape ("Microsoft Graph error responses and resource types").
pub(super) fn error(status: u16, code: &str, message: &str) -> Response {
    let id = Uuid::new_v4().to_string();
    let inner = json!({"date": "2026-11-26T00:00:00", "request-id": id, "client-request-id": id});
    Response::json(status, &json!({"error": {"code": code, "message": message, "innerError": inner}}))
        .header("request-id", id)
}

/// The answer to a token that is missing, unknown, expired or for somebody else.
pub(super) fn denied() -> Response {
    error(401, "UnknownError", "The identity of the calling application could not be established.")
}

/// The answer that a fault gives in place of the sound one, if it does.
pub(crate) fn instead(world: &World, question: &Question, effect: &Effect) -> Option<Response> {
    let waiting = |mut response: Response, retry_after: Option<u64>| {
        if let Some(seconds) = retry_after {
            response.set_header("Retry-After", seconds.to_string());
            let wait = |tenant| Wait { scope: Scope::Graph(tenant), time: Duration::from_secs(seconds) };
            response.wait = question.tenant.map(wait);
        }
        response
    };
    Some(match effect {
        Effect::Throttled(throttle) => {
            let response = match throttle.shape {
                ThrottleShape::PlainText => Response::new(429, "text/plain", "Too Many Requests"),
                _ => error(429, "TooManyRequests", "Too many requests have been sent."),
            };
            waiting(response, throttle.retry_after_s)
        }
        Effect::Status { status, body, retry_after_s } => {
            let response = match body {
                ErrorBody::Json => error(*status, "UnknownError", ""),
                ErrorBody::Html => Response::new(*status, "text/html", "<html><body>Bad gateway</body></html>"),
                ErrorBody::Empty => Response::empty(*status),
                ErrorBody::Text => Response::new(*status, "text/plain", "The service is unavailable."),
            };
            waiting(response, *retry_after_s)
        }
        Effect::Denied => denied(),
        Effect::Redirect { status } => {
            Response::empty(*status).header("Location", format!("{}/v1.0/elsewhere", world.hosts.foreign))
        }
        _ => return None,
    })
}

/// A list whose next page is on the foreign host, whether or not there is one.
pub(crate) fn spoil(world: &World, mut response: Response, effect: &Effect) -> Response {
    if let Effect::ForeignNextPage = effect
        && response.status == 200
        && let Ok(mut document) = serde_json::from_slice::<Value>(&response.whole())
    {
        let context = document["@odata.context"].as_str().unwrap_or_default();
        let name = context.rsplit('/').next().unwrap_or_default().to_owned();
        let link = format!("{}/v1.0/admin/serviceAnnouncement/{name}?$skip=100", world.hosts.foreign);
        document["@odata.nextLink"] = link.into();
        response.body = Body::Whole(document.to_string().into());
    }
    response
}
