//! A trouble, as the operator reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that went wrong, in the words that every view shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// A stable label, for metrics and filters.
    pub kind: String,
    /// What happened, in one sentence without a full stop.
    pub cause: String,
    /// What to do about it, in the next sentence; empty if there is nothing to do but wait.
    pub remedy: String,
    /// Microsoft's code, such as `AADSTS700027` or `AF20022`.
    pub code: Option<String>,
    /// Microsoft's correlation id, for a support request.
    pub correlation_id: Option<String>,
    /// Whether it stays until a person acts.
    pub needs_operator: bool,
    /// Whether it is an app's trouble, which the journal hears of once and not from each tenant that it affects.
    #[serde(default)]
    pub shared: bool,
}

impl Trouble {
    /// Trouble that is expected to pass by itself.
    #[must_use]
    pub fn passing(kind: &str, cause: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            cause: cause.into(),
            remedy: String::new(),
            code: None,
            correlation_id: None,
            needs_operator: false,
            shared: false,
        }
    }

    /// Trouble that stays until a person does what `remedy` says.
    #[must_use]
    pub fn for_operator(kind: &str, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), needs_operator: true, ..Self::passing(kind, cause) }
    }
}

/// A host's clock that is off by less than this is right enough.
const CLOCK_IS_OFF: u64 = 60;

/// What is wrong with the clock of a host that is so many seconds ahead of Microsoft's, or behind it.
#[must_use]
pub fn clock_trouble(ahead: i64) -> Option<Trouble> {
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let cause = || format!("this host's clock is {} {side} Microsoft's", span(ahead.saturating_abs()));
    (ahead.unsigned_abs() >= CLOCK_IS_OFF)
        .then(|| Trouble::for_operator("clock", cause(), "set it right (chrony or systemd-timesyncd)"))
}

/// The two largest units of a span of seconds.
#[must_use]
pub fn span(seconds: i64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m {}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        s => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}
