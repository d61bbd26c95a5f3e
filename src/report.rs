//! What the operator is told: one state per tenant, and the same words for a trouble in the journal, in `status`, in
//! `doctor` and on the page.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that went wrong, as the operator reads it.
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
