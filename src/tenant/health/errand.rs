//! What an operator has fetched of Graph by hand: the review of an incident, the attachments of a post.
//!
//! **Invariant:** it is asked over the tenant's own [`Line`], within its quota, and stops where Graph has asked for a wait.

use tracing::info;

use super::line::{Line, Unanswered};
use crate::content::TenantId;
use crate::graph::{Attachment, File};
use crate::tenant::errand::ErrandError;
use crate::tenant::roster::Refusal;

/// Ids of Microsoft's have some ten characters, or are GUIDs.
const LONGEST: usize = 64;

/// Speaks for one tenant.
#[derive(Debug)]
pub struct HealthErrand {
    line: Line,
    tenant: TenantId,
    name: String,
}

impl HealthErrand {
    pub(in crate::tenant) const fn new(line: Line, tenant: TenantId, name: String) -> Self {
        Self { line, tenant, name }
    }

    /// The post-incident review of an issue.
    pub async fn report(&self, issue: &str) -> Result<File, ErrandError> {
        checked(issue)?;
        let client = self.line.client();
        let file = self.line.ask(|token| async move { client.report(&token, issue).await }).await;
        self.told("a post-incident review", issue, file)
    }

    /// The attachments of a post.
    pub async fn attachments(&self, message: &str) -> Result<Vec<Attachment>, ErrandError> {
        checked(message)?;
        let client = self.line.client();
        let listed = self.line.ask(|token| async move { client.attachments(&token, message).await }).await;
        listed.map_err(|unanswered| self.not_done(&unanswered))
    }

    /// One of them.
    pub async fn attachment(&self, message: &str, id: &str) -> Result<File, ErrandError> {
        checked(message)?;
        checked(id)?;
        let client = self.line.client();
        let file = self.line.ask(|token| async move { client.attachment(&token, message, id).await }).await;
        self.told("an attachment", message, file)
    }

    /// All of them in one file.
    pub async fn archive(&self, message: &str) -> Result<File, ErrandError> {
        checked(message)?;
        let client = self.line.client();
        let file = self.line.ask(|token| async move { client.archive(&token, message).await }).await;
        self.told("all attachments", message, file)
    }

    fn told(&self, what: &str, of: &str, file: Result<File, Unanswered>) -> Result<File, ErrandError> {
        let file = file.map_err(|unanswered| self.not_done(&unanswered))?;
        info!(tenant = %self.tenant, name = self.name, of, "{what} is fetched for an operator");
        Ok(file)
    }

    fn not_done(&self, unanswered: &Unanswered) -> ErrandError {
        ErrandError::NotDone { name: self.name.clone(), trouble: Box::new(unanswered.trouble()) }
    }
}

/// What is no id is not sent.
fn checked(id: &str) -> Result<(), Refusal> {
    let is_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !id.is_empty() && id.len() <= LONGEST && id.chars().all(is_one) {
        return Ok(());
    }
    let message = "it is no id of Microsoft's: one has letters, digits and hyphens, like `EX226792` or `MC172851`";
    Err(Refusal::Impossible(message.to_owned()))
}
