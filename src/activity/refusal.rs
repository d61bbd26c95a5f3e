//! An answer that is an error: what the service says in it, and what that means.
//!
//! The documented body is `{"error":{"code":"AF50000","message":"…"}}` ("Errors", activity API reference). Beside it
//! come `code: "429"`, sentences in place of codes, `{"Message":"…"}`, HTML, plain text and nothing at all. So the
//! status is looked at first, then a code if there is one, then the text.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::codes::Reason;
use super::error::Operation;
use crate::http::headers::LONGEST_WAIT;

/// How much of an error's body is read; what is longer is not for people.
pub(super) const BODY: usize = 64 * 1024;
/// How much of a message is kept.
const MESSAGE: usize = 400;

/// What the service refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub operation: Operation,
    /// The status of the answer.
    pub status: u16,
    /// What it means.
    pub reason: Reason,
    /// Microsoft's code, such as `AF20022`; none if the answer carries none of that form.
    pub code: Option<String>,
    /// Microsoft's words: one line, at most 400 characters, possibly none.
    pub message: String,
    /// How long the service wants us to wait.
    pub wait: Option<Duration>,
    /// Microsoft's id of the request.
    pub correlation_id: Option<String>,
    /// The body is JSON: the service's own word, and not that of something before it.
    pub json: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {}", self.reason.row().cause, self.status)?;
        if let Some(code) = &self.code {
            write!(f, ", {code}")?;
        }
        f.write_str(")")?;
        // The table's words are enough where they are sure.
        if matches!(self.reason, Reason::Unknown | Reason::Forbidden | Reason::NotFound | Reason::Unavailable)
            && !self.message.is_empty()
        {
            write!(f, ": `{}`", self.message)?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Reads an answer's status and body; `asked` and `correlation_id` come from its headers.
    pub(super) fn read(
        operation: Operation,
        status: u16,
        body: &[u8],
        asked: Option<Duration>,
        correlation_id: Option<String>,
    ) -> Self {
        let said = Said::read(body);
        let reason = said.reason(operation, status);
        let wait = match reason {
            // The longer one counts: the sentence names the cool-down, the header may name a throttle.
            Reason::StartCooldown | Reason::Throttled => asked.max(read_wait(&said.text())),
            _ => asked,
        };
        let correlation_id = correlation_id.or_else(|| said.correlation_id());
        let (code, message, json) = (said.code(), said.message(), said.json);
        Self { operation, status, reason, code, message, wait, correlation_id, json }
    }
}

/// A body's words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// What stands where a code should.
    code: String,
    message: String,
    /// Whether this is JSON, that is: the service's own word, not that of something before it.
    json: bool,
    empty: bool,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.is_empty() {
            return Self { empty: true, ..Self::default() };
        }
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Self { message: String::from_utf8_lossy(body).into_owned(), ..Self::default() };
        };
        // `error` is an object as a rule, and sometimes the whole body is what it should hold.
        let error = field(&value, "error").filter(|error| error.is_object()).unwrap_or(&value);
        let text = |names: &[&str]| {
            names.iter().find_map(|name| match field(error, name)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
        };
        Self {
            code: text(&["code", "error"]).unwrap_or_default().trim().to_owned(),
            message: text(&["message", "error_description"]).unwrap_or_else(|| match &value {
                Value::String(text) => text.clone(),
                _ => String::new(),
            }),
            json: true,
            empty: false,
        }
    }

    /// Everything in which a sentence may be found.
    fn text(&self) -> String {
        format!("{} {}", self.code, self.message)
    }

    /// The code, if it is one: `AF` and digits.
    fn code(&self) -> Option<String> {
        if is_code(&self.code) {
            return Some(self.code.to_ascii_uppercase());
        }
        // A message may start with the code that is missing where it belongs.
        let first = self.message.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        is_code(first).then(|| first.to_ascii_uppercase())
    }

    fn reason(&self, operation: Operation, status: u16) -> Reason {
        let text = self.text().to_ascii_lowercase();
        let code = self.code();
        let known = code.as_deref().and_then(Reason::of_code);
        let throttled = status == 429
            || known == Some(Reason::Throttled)
            || self.code == "429"
            || (text.contains("too many") && text.contains("request"));
        if throttled {
            // Only starting has a cool-down, and its sentence names it.
            let cooldown = operation == Operation::StartSubscription && text.contains("start request");
            return if cooldown { Reason::StartCooldown } else { Reason::Throttled };
        }
        if status == 401 {
            return if known == Some(Reason::PermissionMissing) {
                Reason::PermissionMissing
            } else {
                Reason::TokenRefused
            };
        }
        // A server that fails is not believed when it says that content is gone: giving up is for good.
        let gone = matches!(known, Some(Reason::ContentUnknown | Reason::ContentExpired | Reason::ContentIdInvalid));
        if let Some(known) = known.filter(|_| !(gone && status >= 500)) {
            return known;
        }
        if code.is_none() && says_tenant_does_not_exist(&text) {
            return Reason::AuditLogOff;
        }
        match status {
            403 => Reason::Forbidden,
            // The service's own 404 is final for a blob; a page of HTML is the word of something in between.
            404 | 410 if operation == Operation::FetchBlob && (self.json || self.empty) => Reason::ContentUnknown,
            404 | 410 => Reason::NotFound,
            408 => Reason::RequestTimedOut,
            500..=599 => Reason::Unavailable,
            _ => Reason::Unknown,
        }
    }

    /// One line that can be shown: no control characters, no markup, not long.
    fn message(&self) -> String {
        let text = if self.code.is_empty() || is_code(&self.code) || self.code == "429" {
            self.message.clone()
        } else {
            // A sentence in the code's place is part of what was said.
            format!("{} {}", self.code, self.message)
        };
        let text = if self.json { text } else { without_markup(&text) };
        let mut line = String::new();
        for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
            let room = MESSAGE.saturating_sub(line.chars().count());
            if room == 0 {
                break;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word.chars().take(room));
        }
        line.trim_end().chars().take(MESSAGE).collect()
    }

    /// `StartSubscription [CorrId=…]…`: the id that a sentence names.
    fn correlation_id(&self) -> Option<String> {
        let text = self.text();
        let at = text.find("CorrId=")? + "CorrId=".len();
        let id: String = text[at..].chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').take(40).collect();
        (id.len() >= 8).then_some(id)
    }
}

/// A field of an object, whatever the case of its name.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(name).or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn is_code(text: &str) -> bool {
    let digits = text.strip_prefix("AF").or_else(|| text.strip_prefix("af")).unwrap_or_default();
    (3..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `tenant {guid} does not exist`, in a text of lower case.
fn says_tenant_does_not_exist(text: &str) -> bool {
    text.match_indices("tenant ").any(|(at, found)| {
        let rest = text[at + found.len()..].trim_start();
        rest.get(..36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
            && rest[36..].trim_start().starts_with("does not exist")
    })
}

/// The text between the tags, without styles and scripts.
fn without_markup(text: &str) -> String {
    if !text.contains('<') {
        return text.to_owned();
    }
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        plain.push_str(&rest[..start]);
        plain.push(' ');
        rest = &rest[start..];
        // What stands between these tags is for machines.
        let skipped = ["style", "script"]
            .iter()
            .find(|tag| rest.get(1..=tag.len()).is_some_and(|name| name.eq_ignore_ascii_case(tag)));
        let end = match skipped {
            Some(tag) => rest.to_ascii_lowercase().find(&format!("</{tag}")),
            None => rest.find('>').map(|end| end + 1),
        };
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    plain.push_str(rest);
    plain
}

/// The wait that a sentence names: "Please retry again after 14m 56s", "in 2 hours", "after 00:14:56".
fn read_wait(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    ["after ", " in ", "wait "]
        .iter()
        .find_map(|lead| text.match_indices(lead).find_map(|(at, _)| read_span(&text[at + lead.len()..])))
}

/// A span at the beginning of `text`.
fn read_span(text: &str) -> Option<Duration> {
    let mut seconds: Option<u64> = None;
    let mut words = text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '(' | ')'))
        .map(|word| word.trim_end_matches(['.', '!', '"', '\'']))
        .filter(|word| !word.is_empty() && *word != "and" && *word != "about")
        .peekable();
    while let Some(word) = words.next() {
        if let Some(clock) = read_clock(word) {
            seconds = Some(seconds.unwrap_or(0).saturating_add(clock));
            break;
        }
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = word.split_at(digits);
        let number = match number {
            "" if matches!(word, "a" | "an" | "one") => 1,
            "" => break,
            // Twelve digits are 30,000 years: far over what is believed, and no overflow.
            _ => number.get(..12).unwrap_or(number).parse::<u64>().ok()?,
        };
        let unit = match unit {
            "" | "a" | "an" | "one" => words.next_if(|next| unit_seconds(next).is_some()).unwrap_or("s"),
            unit if digits == 0 => words.next_if(|next| unit_seconds(next).is_some()).unwrap_or(unit),
            unit => unit,
        };
        let Some(each) = unit_seconds(unit) else { break };
        seconds = Some(seconds.unwrap_or(0).saturating_add(number.saturating_mul(each)));
    }
    // One second more than said, for what the sentence rounds off.
    seconds.map(|seconds| Duration::from_secs(seconds.saturating_add(1)).min(LONGEST_WAIT))
}

/// `hh:mm:ss`, with or without a fraction.
fn read_clock(word: &str) -> Option<u64> {
    let mut parts = word.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let seconds = seconds.split('.').next()?;
    let number = |text: &str| (1..=2).contains(&text.len()).then(|| text.parse::<u64>().ok()).flatten();
    let all = number(hours)? * 3600 + number(minutes)? * 60 + number(seconds)?;
    parts.next().is_none().then_some(all)
}

fn unit_seconds(unit: &str) -> Option<u64> {
    match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600),
        "d" | "day" | "days" => Some(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retry::Advice;

    fn read(operation: Operation, status: u16, body: &str, asked: Option<u64>) -> Refusal {
        Refusal::read(operation, status, body.as_bytes(), asked.map(Duration::from_secs), None)
    }

    fn af(code: &str, message: &str) -> String {
        serde_json::json!({"error": {"code": code, "message": message}}).to_string()
    }

    const AUDIT_LOG_OFF: &str = "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant 11111111-2222-3333-4444-555555555555 does not exist.\r\n   at Microsoft.Office.Compliance.Audit.API.AzureManager.<GetSubscriptionTableClientForTenantAsync>d__52.MoveNext()";
    const COOLDOWN: &str = "Too many frequent subscription start requests. Please retry again after 14m 56s";

    /// Each row: operation, status, body, `Retry-After`; the reason, and what is to be done.
    #[expect(clippy::too_many_lines, reason = "a table: one row for each shape")]
    #[test]
    fn what_was_seen_and_what_it_means() {
        use Operation::{FetchBlob, ListContent, ListSubscriptions, NextPage, StartSubscription};
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let retry = Advice::Retry { after: None };
        let throttled = |wait| Advice::Throttled { after: wait };
        let html = "<html><head><title>Service Unavailable</title></head><body><h2>503</h2></body></html>";
        for (operation, status, body, asked, reason, advice) in [
            // Subscriptions.
            (
                StartSubscription,
                400,
                af("AF20024", "The subscription is already enabled. No property change."),
                None,
                Reason::AlreadySubscribed,
                Advice::CheckSubscription,
            ),
            (
                StartSubscription,
                429,
                af("AF429", COOLDOWN),
                None,
                Reason::StartCooldown,
                Advice::Retry { after: seconds(14 * 60 + 57) },
            ),
            (
                StartSubscription,
                403,
                af("429", "Too many frequent subscription start requests. Please retry again after 8m 46s."),
                None,
                Reason::StartCooldown,
                Advice::Retry { after: seconds(8 * 60 + 47) },
            ),
            (
                StartSubscription,
                429,
                COOLDOWN.to_owned(),
                None,
                Reason::StartCooldown,
                Advice::Retry { after: seconds(14 * 60 + 57) },
            ),
            (
                StartSubscription,
                429,
                af("AF429", "Too many frequent subscription start requests."),
                None,
                Reason::StartCooldown,
                Advice::Retry { after: seconds(900) },
            ),
            (
                StartSubscription,
                403,
                af("AF429", COOLDOWN),
                Some(3600),
                Reason::StartCooldown,
                Advice::Retry { after: seconds(3600) },
            ),
            (
                StartSubscription,
                429,
                af("AF429", "Too many requests. Method=StartSubscription, PublisherId=x"),
                Some(7),
                Reason::Throttled,
                throttled(seconds(7)),
            ),
            (
                StartSubscription,
                400,
                af(
                    "StartSubscription [CorrId=6d4f8a6e-d3e5-4c8b-9d39-aaaaaaaaaaaa] [TenantId=11111111-2222-3333-4444-555555555555,ContentType=Audit.Exchange,ApplicationId=x,PublisherId=y][AppId=z] failed. Exception: Micros",
                    AUDIT_LOG_OFF,
                ),
                None,
                Reason::AuditLogOff,
                Advice::PauseTenant,
            ),
            (ListSubscriptions, 400, af("", AUDIT_LOG_OFF), None, Reason::AuditLogOff, Advice::PauseTenant),
            (ListSubscriptions, 500, AUDIT_LOG_OFF.to_owned(), None, Reason::AuditLogOff, Advice::PauseTenant),
            (
                ListSubscriptions,
                400,
                af(
                    "AF20011",
                    "Specified tenant ID (11111111-2222-3333-4444-555555555555) does not exist in the system or has been deleted.",
                ),
                None,
                Reason::TenantUnknown,
                Advice::PauseTenant,
            ),
            (
                StartSubscription,
                400,
                af("AF20020", "The specified content type is not valid."),
                None,
                Reason::ContentTypeInvalid,
                retry,
            ),
            (
                ListContent,
                400,
                af("AF20022", "No subscription found for the specified content type."),
                None,
                Reason::NotSubscribed,
                Advice::CheckSubscription,
            ),
            (
                ListContent,
                400,
                af("AF20023", "The subscription was disabled."),
                None,
                Reason::SubscriptionDisabled,
                Advice::CheckSubscription,
            ),
            // Throttling, in its many shapes.
            (
                FetchBlob,
                403,
                af("AF429", "Too many requests. Method=GetBlob, PublisherId=00000000-0000-0000-0000-000000000000"),
                None,
                Reason::Throttled,
                throttled(None),
            ),
            (
                FetchBlob,
                429,
                af("AF429", "Too many requests. Method=GetBlob, PublisherId=x"),
                Some(30),
                Reason::Throttled,
                throttled(seconds(30)),
            ),
            (FetchBlob, 403, af("af429", "Too many requests."), None, Reason::Throttled, throttled(None)),
            (
                ListContent,
                403,
                af("429", "Too many requests. Please retry again after 8m 46s."),
                None,
                Reason::Throttled,
                throttled(seconds(8 * 60 + 47)),
            ),
            (
                ListContent,
                403,
                r#"{"error":{"code":429,"message":"slow down"}}"#.to_owned(),
                None,
                Reason::Throttled,
                throttled(None),
            ),
            (ListContent, 429, "Too Many Requests".to_owned(), Some(60), Reason::Throttled, throttled(seconds(60))),
            (ListContent, 429, String::new(), None, Reason::Throttled, throttled(None)),
            (ListContent, 429, html.to_owned(), None, Reason::Throttled, throttled(None)),
            (
                ListContent,
                400,
                af("BadRequest", "Too many requests, please wait 2 minutes"),
                None,
                Reason::Throttled,
                throttled(seconds(121)),
            ),
            // Tokens.
            (
                ListContent,
                401,
                af("AF10001", "The permission set () sent in the request does not include the expected permission."),
                None,
                Reason::PermissionMissing,
                Advice::RenewToken,
            ),
            (
                ListContent,
                403,
                af("AF10001", "The permission set () sent in the request does not include the expected permission."),
                None,
                Reason::PermissionMissing,
                Advice::RenewToken,
            ),
            (
                ListContent,
                401,
                r#"{"Message":"Authorization has been denied for this request."}"#.to_owned(),
                None,
                Reason::TokenRefused,
                Advice::RenewToken,
            ),
            (FetchBlob, 401, String::new(), None, Reason::TokenRefused, Advice::RenewToken),
            (FetchBlob, 401, html.to_owned(), None, Reason::TokenRefused, Advice::RenewToken),
            // Parameters.
            (
                ListContent,
                400,
                af("AF20001", "Missing parameter: x."),
                None,
                Reason::ParameterMissing,
                Advice::PauseTenant,
            ),
            (
                ListContent,
                400,
                af("AF20002", "Invalid parameter type: PublisherIdentifier. Expected type: guid"),
                None,
                Reason::ParameterInvalid,
                Advice::PauseTenant,
            ),
            (
                ListContent,
                400,
                af(
                    "AF20010",
                    "The tenant ID passed in the URL (a) does not match the tenant ID passed in the access token (b).",
                ),
                None,
                Reason::OtherTenant,
                Advice::PauseTenant,
            ),
            (ListContent, 400, af("AF20012", "x"), None, Reason::TenantMisconfigured, Advice::PauseTenant),
            (ListContent, 400, af("AF20013", "x"), None, Reason::TenantInvalid, Advice::PauseTenant),
            // Windows and pages.
            (
                ListContent,
                400,
                af(
                    "AF20030",
                    "Start time and end time must both be specified. StartTime:2020-01-01T00:00:00, EndTime:2020-01-03T00:00:00",
                ),
                None,
                Reason::WindowInvalid,
                Advice::RelistWindow,
            ),
            (
                ListContent,
                400,
                af("AF20055", "Start time and end time must both be specified."),
                None,
                Reason::WindowInvalid,
                Advice::RelistWindow,
            ),
            (
                NextPage,
                400,
                af("AF20031", "Invalid nextPage Input: x."),
                None,
                Reason::PageInvalid,
                Advice::RelistWindow,
            ),
            // Content.
            (
                FetchBlob,
                400,
                af("AF20050", "The specified content (x) does not exist."),
                None,
                Reason::ContentUnknown,
                Advice::GiveUp,
            ),
            (
                FetchBlob,
                404,
                af("AF20051", "Content requested with the key x has already expired."),
                None,
                Reason::ContentExpired,
                Advice::GiveUp,
            ),
            (
                FetchBlob,
                400,
                af("AF20052", "Content ID x in the URL is invalid."),
                None,
                Reason::ContentIdInvalid,
                Advice::GiveUp,
            ),
            (FetchBlob, 500, af("AF20050", "x"), None, Reason::Unavailable, retry),
            (ListContent, 400, af("AF20050", "x"), None, Reason::ContentUnknown, retry),
            (FetchBlob, 400, af("AF20031", "x"), None, Reason::PageInvalid, retry),
            (FetchBlob, 404, String::new(), None, Reason::ContentUnknown, Advice::GiveUp),
            (
                FetchBlob,
                404,
                r#"{"Message":"No HTTP resource was found."}"#.to_owned(),
                None,
                Reason::ContentUnknown,
                Advice::GiveUp,
            ),
            (FetchBlob, 404, html.to_owned(), None, Reason::NotFound, retry),
            (ListContent, 404, html.to_owned(), None, Reason::NotFound, Advice::PauseTenant),
            // The service in trouble.
            (
                ListContent,
                500,
                af("AF50000", "An internal server error occurred. Retry the request."),
                None,
                Reason::ServiceFailed,
                retry,
            ),
            (
                ListContent,
                500,
                af("AF50000", "An internal error occurred. Retry in an hour."),
                None,
                Reason::ServiceFailed,
                retry,
            ),
            (ListContent, 500, af("AF50005", "x"), None, Reason::ServiceFailed, retry),
            (ListContent, 503, af("AF50006", "x"), Some(9), Reason::ServiceFailed, throttled(seconds(9))),
            (ListContent, 500, "[]".to_owned(), None, Reason::Unavailable, retry),
            (ListContent, 502, html.to_owned(), None, Reason::Unavailable, retry),
            (ListContent, 503, String::new(), Some(120), Reason::Unavailable, throttled(seconds(120))),
            (FetchBlob, 504, "\u{feff}{}".to_owned(), None, Reason::Unavailable, retry),
            (ListContent, 408, String::new(), None, Reason::RequestTimedOut, retry),
            (ListContent, 408, html.to_owned(), Some(5), Reason::RequestTimedOut, throttled(seconds(5))),
            // What nobody has described.
            (ListContent, 403, html.to_owned(), None, Reason::Forbidden, Advice::PauseTenant),
            (FetchBlob, 403, html.to_owned(), None, Reason::Forbidden, retry),
            (ListContent, 400, af("AF99999", "x"), None, Reason::Unknown, Advice::PauseTenant),
            (FetchBlob, 418, "teapot".to_owned(), None, Reason::Unknown, retry),
            (ListContent, 400, r#"{"error":"invalid_request"}"#.to_owned(), None, Reason::Unknown, Advice::PauseTenant),
            (
                ListContent,
                400,
                r#"{"code":"AF20022","message":"bare"}"#.to_owned(),
                None,
                Reason::NotSubscribed,
                Advice::CheckSubscription,
            ),
            (
                ListContent,
                400,
                r#"{"Error":{"Code":"AF20022","Message":"other case"}}"#.to_owned(),
                None,
                Reason::NotSubscribed,
                Advice::CheckSubscription,
            ),
            (
                ListContent,
                400,
                r#"{"error":{"message":"AF20022: No subscription found"}}"#.to_owned(),
                None,
                Reason::NotSubscribed,
                Advice::CheckSubscription,
            ),
        ] {
            let refusal = read(operation, status, &body, asked);
            let got = (refusal.reason, refusal.reason.advice(operation, refusal.wait));
            assert_eq!(got, (reason, advice), "{operation} {status} {body}");
        }
    }

    #[test]
    fn codes_are_codes_and_messages_are_one_plain_line() {
        let refusal = read(Operation::ListContent, 400, &af("AF20022", "No\r\n  subscription\u{1b}[31m found"), None);
        assert_eq!(refusal.code.as_deref(), Some("AF20022"));
        assert_eq!(refusal.message, "No subscription [31m found");

        let sentence = "StartSubscription [CorrId=6d4f8a6e-d3e5-4c8b-9d39-aaaaaaaaaaaa] failed";
        let refusal = read(Operation::StartSubscription, 400, &af(sentence, "why"), None);
        assert_eq!(refusal.code, None);
        assert_eq!(refusal.message, format!("{sentence} why"));
        assert_eq!(refusal.correlation_id.as_deref(), Some("6d4f8a6e-d3e5-4c8b-9d39-aaaaaaaaaaaa"));
        assert_eq!(refusal.to_string(), format!("{} (status 400): `{sentence} why`", Reason::Unknown.row().cause));

        let html = "<html><head><style>p { color: red }</style><script>alert('<p>')</script><title>Bad\nGateway</title></head><body>Sorry &amp; bye</body>";
        assert_eq!(read(Operation::ListContent, 502, html, None).message, "Bad Gateway Sorry &amp; bye");
        assert_eq!(read(Operation::ListContent, 502, "a < b", None).message, "a");
        assert_eq!(read(Operation::ListContent, 400, &af("X", &"ä ".repeat(5000)), None).message.chars().count(), 400);
        assert_eq!(read(Operation::ListContent, 400, "", None).message, "");
    }

    #[test]
    fn waits_named_in_sentences() {
        for (text, seconds) in [
            ("Please retry again after 14m 56s", Some(14 * 60 + 56)),
            ("Please retry again after 8m 46s.", Some(8 * 60 + 46)),
            ("retry after 59s", Some(59)),
            ("Please retry again after 1h 2m 3s!", Some(3723)),
            ("Please retry again after 2 hours, 5 minutes and 1 second", Some(7501)),
            ("Try again in an hour", Some(3600)),
            ("Try again in one minute.", Some(60)),
            ("Please wait 30 seconds", Some(30)),
            ("Please wait 30", Some(30)),
            ("Please retry again after 00:14:56.1234567", Some(14 * 60 + 56)),
            ("After all, please retry after 5m", Some(300)),
            ("after 0s", Some(0)),
            ("after 99999999999999999999 hours", Some(86_399)),
            ("after 10 days", Some(86_399)),
            ("after the deadline", None),
            ("in vain", None),
            ("", None),
            ("retry later", None),
            ("after 5x", None),
        ] {
            let meant = seconds.map(|seconds| Duration::from_secs(seconds + 1));
            assert_eq!(read_wait(text), meant, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(
            status in 400u16..600,
            body in proptest::collection::vec(any::<u8>(), 0..300),
            text in ".{0,200}",
            code in "(AF[0-9]{0,6}|[0-9]{3}|.{0,20})",
        ) {
            for operation in [Operation::FetchBlob, Operation::StartSubscription, Operation::ListContent] {
                for body in [&body[..], text.as_bytes(), af(&code, &text).as_bytes()] {
                    let refusal = Refusal::read(operation, status, body, None, None);
                    prop_assert!(refusal.message.chars().count() <= MESSAGE);
                    prop_assert!(!refusal.message.contains(char::is_control));
                    let _ = (refusal.to_string(), refusal.reason.advice(operation, refusal.wait));
                }
            }
        }

        #[test]
        fn any_sentence_names_a_wait_or_none(text in "(after|wait|Please retry in) ([0-9]{0,25} ?[a-zé:.]{0,8} ?){0,5}") {
            if let Some(wait) = read_wait(&text) {
                prop_assert!(wait <= LONGEST_WAIT);
            }
        }
    }
}
