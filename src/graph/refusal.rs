//! An answer that is an error: what Graph says in it, and what that means.
//!
//! The documented body is `{"error":{"code":"…","message":"…","innerError":{"request-id":"…"}}}` ("Microsoft Graph error
//! responses"). A missing role is 403 `AccessDenied`; a gateway in between answers HTML. So the status is looked at first.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::error::Operation;

/// How much of an error's body is read; what is longer is not for people.
pub(super) const BODY: usize = 64 * 1024;
/// How much of a message is kept.
const MESSAGE: usize = 400;

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The token lacks the role that the list needs.
    RoleMissing,
    /// It is forbidden for another reason.
    Forbidden,
    /// The token is not accepted.
    TokenRefused,
    /// Too many requests.
    Throttled,
    /// There is no such thing.
    NotFound,
    /// Graph is out of order.
    Unavailable,
    /// Something else.
    Unknown,
}

impl Reason {
    /// The stable label.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::RoleMissing => "graph_role_missing",
            Self::Forbidden => "graph_forbidden",
            Self::TokenRefused => "graph_token_refused",
            Self::Throttled => "graph_throttled",
            Self::NotFound => "graph_not_found",
            Self::Unavailable => "graph_unavailable",
            Self::Unknown => "graph_refused",
        }
    }

    fn of(status: u16, said: &Said) -> Self {
        let code = said.code.to_ascii_lowercase();
        match status {
            429 => Self::Throttled,
            _ if matches!(code.as_str(), "toomanyrequests" | "activitylimitreached") => Self::Throttled,
            401 => Self::TokenRefused,
            403 if said.message.to_ascii_lowercase().contains("role") => Self::RoleMissing,
            403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            408 | 500..=599 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// What Graph refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub operation: Operation,
    /// The status of the answer.
    pub status: u16,
    /// What it means.
    pub reason: Reason,
    /// Graph's code, such as `AccessDenied`.
    pub code: Option<String>,
    /// Graph's words: one line, at most 400 characters, possibly none.
    pub message: String,
    /// How long Graph wants us to wait.
    pub wait: Option<Duration>,
    /// Microsoft's id of the request.
    pub request_id: Option<String>,
}

impl Refusal {
    /// Reads an answer's status and body; `wait` and `request_id` come from its headers.
    pub(super) fn read(
        operation: Operation,
        status: u16,
        body: &[u8],
        wait: Option<Duration>,
        request_id: Option<String>,
    ) -> Self {
        let said = Said::read(body);
        Self {
            operation,
            status,
            reason: Reason::of(status, &said),
            code: Some(line(&said.code)).filter(|code| !code.is_empty()),
            message: line(&said.message),
            wait,
            request_id: request_id.or(said.inner.request_id).map(|id| line(&id)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::RoleMissing => {
                write!(f, "the app lacks the role `{}` of Microsoft Graph", self.operation.role())?;
            }
            Reason::Forbidden => f.write_str("Microsoft Graph forbids it")?,
            Reason::TokenRefused => f.write_str("Microsoft Graph does not accept the token")?,
            Reason::Throttled => f.write_str("Microsoft Graph throttles the app")?,
            Reason::NotFound => f.write_str("Microsoft Graph does not know it")?,
            Reason::Unavailable => f.write_str("Microsoft Graph is out of order")?,
            Reason::Unknown => f.write_str("Microsoft Graph refuses it")?,
        }
        write!(f, " (status {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, ", {code}")?;
        }
        f.write_str(")")?;
        // Our own words are enough where they are sure.
        if !matches!(self.reason, Reason::RoleMissing | Reason::Throttled) && !self.message.is_empty() {
            write!(f, ": `{}`", self.message)?;
        }
        Ok(())
    }
}

/// A body's words; none if it is no JSON of the documented form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    code: String,
    message: String,
    #[serde(rename = "innerError", alias = "innererror")]
    inner: Inner,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inner {
    #[serde(rename = "request-id")]
    request_id: Option<String>,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Whole {
            error: Said,
        }
        serde_json::from_slice::<Whole>(body).map(|whole| whole.error).unwrap_or_default()
    }
}

/// One line that can be shown.
fn line(text: &str) -> String {
    let words: Vec<_> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::super::list::List;
    use super::*;

    #[test]
    fn statuses_and_words_lead_to_reasons() {
        let error = |code: &str, message: &str| {
            serde_json::json!({"error": {"code": code, "message": message, "innerError": {"request-id": "r-1"}}})
                .to_string()
        };
        for (status, body, reason) in [
            (403, error("AccessDenied", "Required roles claim values are not provided."), Reason::RoleMissing),
            (403, error("AccessDenied", "Tenant is blocked."), Reason::Forbidden),
            (403, "<html>".to_owned(), Reason::Forbidden),
            (
                401,
                error("UnknownError", "The identity of the calling application could not be established."),
                Reason::TokenRefused,
            ),
            (429, error("TooManyRequests", "Too many"), Reason::Throttled),
            (429, String::new(), Reason::Throttled),
            (503, error("activityLimitReached", "…"), Reason::Throttled),
            (404, error("ResourceNotFound", "x"), Reason::NotFound),
            (504, "<html>".to_owned(), Reason::Unavailable),
            (400, error("BadRequest", "x"), Reason::Unknown),
        ] {
            let refusal = Refusal::read(Operation::List(List::Issues), status, body.as_bytes(), None, None);
            assert_eq!(refusal.reason, reason, "{status} {body}");
            assert_eq!(refusal.request_id.is_some(), body.starts_with('{'), "{body}");
        }
    }

    #[test]
    fn a_missing_role_is_named() {
        let body = br#"{"error":{"code":"AccessDenied","message":"Required roles claim values are not provided."}}"#;
        let told = |list| Refusal::read(Operation::List(list), 403, body, None, None).to_string();
        assert_eq!(
            told(List::Messages),
            "the app lacks the role `ServiceMessage.Read.All` of Microsoft Graph (status 403, AccessDenied)"
        );
        assert!(told(List::Services).contains("`ServiceHealth.Read.All`"));
    }
}
