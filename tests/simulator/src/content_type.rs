//! The five content types of the Management Activity API.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A content type ("Working with the Office 365 Management Activity API", activity API reference).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContentType {
    /// Entra ID sign-ins and directory changes.
    #[serde(rename = "Audit.AzureActiveDirectory")]
    AzureActiveDirectory,
    /// Mailbox and administrator audit of Exchange.
    #[serde(rename = "Audit.Exchange")]
    Exchange,
    /// `SharePoint` and `OneDrive`.
    #[serde(rename = "Audit.SharePoint")]
    SharePoint,
    /// Everything else: Teams, Power BI, the compliance centre.
    #[serde(rename = "Audit.General")]
    General,
    /// Data loss prevention events of all workloads.
    #[serde(rename = "DLP.All")]
    Dlp,
}

impl ContentType {
    /// All five.
    pub const ALL: [ContentType; 5] =
        [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General, Self::Dlp];
    /// The four `Audit.*` types.
    pub const AUDIT: [ContentType; 4] = [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General];

    /// The name in URLs and bodies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AzureActiveDirectory => "Audit.AzureActiveDirectory",
            Self::Exchange => "Audit.Exchange",
            Self::SharePoint => "Audit.SharePoint",
            Self::General => "Audit.General",
            Self::Dlp => "DLP.All",
        }
    }

    /// The type called `name`, in any case: the next-page links of the service are lower-cased.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
