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
use super::headers::LONGEST_WAIT;

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
        Self { operation, status, reason, code: said.code(), message: said.message(), wait, correlation_id }
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
        if let Some(known) = known {
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
