//! The domain's words for what Microsoft lists and the store keeps.
//!
//! A *tenant* has *subscriptions* to *content types*; the service aggregates audit records into *content
//! blobs*; a blob is listed with an id, a URI and two times, and holds a JSON array of records. These types are
//! what [`activity`](crate::activity) reads off the wire and what [`store`](crate::store) keeps; they do no I/O.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A tenant's directory id, a GUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// The id with these sixteen bytes, in the order in which the text form is written.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes, in the order of the text form; the store's keys start with them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id as a GUID.
    #[must_use]
    pub const fn uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for TenantId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for TenantId {
    type Err = NotAGuid;

    /// Accepts the hyphenated form only: it is what the portal shows and what the service's paths carry.
    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
            _ => Err(NotAGuid(text.to_owned())),
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that should have been a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`")]
pub struct NotAGuid(pub String);

/// The kinds of content: those of audit records, which can be subscribed to ("Working with the Office 365 Management
/// Activity API"), and those of Microsoft 365's own state, which Graph lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ContentType {
    /// Entra ID.
    #[serde(rename = "Audit.AzureActiveDirectory")]
    AzureActiveDirectory = 1,
    /// Exchange.
    #[serde(rename = "Audit.Exchange")]
    Exchange = 2,
    /// `SharePoint` and `OneDrive`.
    #[serde(rename = "Audit.SharePoint")]
    SharePoint = 3,
    /// Every workload not in the others.
    #[serde(rename = "Audit.General")]
    General = 4,
    /// Data loss prevention events; needs the role `ActivityFeed.ReadDlp`.
    #[serde(rename = "DLP.All")]
    Dlp = 5,
    /// The state of every service; needs Graph's role `ServiceHealth.Read.All`.
    #[serde(rename = "Health.Services")]
    HealthServices = 6,
    /// Incidents and advisories of services; the same role.
    #[serde(rename = "Health.Issues")]
    HealthIssues = 7,
    /// Posts of the Message Center; needs Graph's role `ServiceMessage.Read.All`.
    #[serde(rename = "Health.Messages")]
    HealthMessages = 8,
}

impl ContentType {
    /// Those that can be subscribed to, in the order of their codes: what is meant where nobody names a type.
    pub const ALL: [Self; 5] = [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General, Self::Dlp];
    /// The four that need only `ActivityFeed.Read`: what a tenant collects unless told otherwise.
    pub const AUDIT: [Self; 4] = [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General];

    /// Those that Graph lists, in the order of their codes. They are collected for whoever has health switched on, and read
    /// by whoever asks for them.
    pub const HEALTH: [Self; 3] = [Self::HealthServices, Self::HealthIssues, Self::HealthMessages];
    /// All that the store can hold, in the order of their codes.
    pub const STORED: [Self; 8] = [
        Self::AzureActiveDirectory,
        Self::Exchange,
        Self::SharePoint,
        Self::General,
        Self::Dlp,
        Self::HealthServices,
        Self::HealthIssues,
        Self::HealthMessages,
    ];

    /// Whether it is Graph's, and cannot be subscribed to.
    #[must_use]
    pub const fn is_health(self) -> bool {
        matches!(self, Self::HealthServices | Self::HealthIssues | Self::HealthMessages)
    }

    /// Microsoft's name; ours for what Graph lists, which has none.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AzureActiveDirectory => "Audit.AzureActiveDirectory",
            Self::Exchange => "Audit.Exchange",
            Self::SharePoint => "Audit.SharePoint",
            Self::General => "Audit.General",
            Self::Dlp => "DLP.All",
            Self::HealthServices => "Health.Services",
            Self::HealthIssues => "Health.Issues",
            Self::HealthMessages => "Health.Messages",
        }
    }

    /// The number that the store's keys hold; it never changes its meaning.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The content type with this [`code`](Self::code).
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::STORED.into_iter().find(|content_type| content_type.code() == code)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ContentType {
    type Err = UnknownContentType;

    fn from_str(text: &str) -> Result<Self, UnknownContentType> {
        Self::STORED
            .into_iter()
            .find(|content_type| content_type.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownContentType(text.to_owned()))
    }
}

/// A text that names no content type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a content type; the types are Audit.AzureActiveDirectory, Audit.Exchange, Audit.SharePoint, Audit.General and DLP.All; and, where health is collected, Health.Services, Health.Issues and Health.Messages"
)]
pub struct UnknownContentType(pub String);

/// The service's name for a content blob: opaque, unique within a tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentId(Arc<str>);

impl ContentId {
    /// The id as the service wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ContentId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for ContentId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// So long after its `contentCreated` a blob is whole; one that is fetched sooner may be a part (seen by several clients,
/// documented nowhere).
pub const WHOLE_AFTER: Duration = Duration::from_mins(2);

/// A content blob as the service lists it ("List available content", activity API reference).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentBlob {
    /// The blob's name.
    pub content_id: ContentId,
    /// What it holds.
    pub content_type: ContentType,
    /// Where it is fetched from; checked for scheme and host before a token goes there.
    pub content_uri: String,
    /// When it became available: not when its records were made, and no order of arrival.
    pub content_created: Timestamp,
    /// When the service deletes it, seven days later as a rule.
    pub content_expiration: Timestamp,
}

/// A text that names no content type which can be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be subscribed to; the types are Audit.AzureActiveDirectory, Audit.Exchange, Audit.SharePoint, Audit.General and DLP.All"
)]
pub struct NotSubscribable(pub String);

/// The content type that a text names, if it can be subscribed to.
///
/// # Errors
/// If the text names none, or one that Graph lists.
pub fn subscribable(text: &str) -> Result<ContentType, NotSubscribable> {
    let named = text.parse().ok().filter(|of: &ContentType| !of.is_health());
    named.ok_or_else(|| NotSubscribable(text.to_owned()))
}

/// What named a blob first: a tier of listing, or a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Tier {
    /// The listing of the last minutes at every poll, a first backfill and catching up included.
    Poll = 1,
    /// The listing of the last hours.
    Recent = 2,
    /// The listing of all that the service still holds.
    Sweep = 3,
    /// A notification, and no listing so far: it is no promise that there is such a blob.
    Webhook = 4,
}

impl Tier {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Poll, Self::Recent, Self::Sweep, Self::Webhook];

    /// The tier with this code, which is what the store's values hold.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| *tier as u8 == code)
    }

    /// The word for labels and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Recent => "recent",
            Self::Sweep => "sweep",
            Self::Webhook => "webhook",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_their_content_type() {
        for content_type in ContentType::STORED {
            assert_eq!(ContentType::from_code(content_type.code()), Some(content_type));
            assert_eq!(content_type.as_str().parse(), Ok(content_type));
            assert_eq!(serde_json::to_value(content_type).unwrap(), content_type.as_str());
        }
        assert_eq!(ContentType::from_code(0), None);
        let (subscribed, listed): (Vec<_>, Vec<_>) = ContentType::STORED.into_iter().partition(|of| !of.is_health());
        assert_eq!((&*subscribed, &*listed), (&ContentType::ALL[..], &ContentType::HEALTH[..]));
        assert!("Audit.Everything".parse::<ContentType>().is_err());
    }

    #[test]
    fn a_tenant_id_is_a_hyphenated_guid() {
        let id: TenantId = "11111111-2222-3333-4444-55555555AAAA".parse().unwrap();
        assert_eq!(id.to_string(), "11111111-2222-3333-4444-55555555aaaa");
        assert_eq!(TenantId::from_bytes(*id.as_bytes()), id);
        for bad in ["", "contoso", "{11111111-2222-3333-4444-55555555aaaa}", "1111111122223333444455555555aaaa"] {
            assert_eq!(bad.parse::<TenantId>(), Err(NotAGuid(bad.to_owned())));
        }
    }
}
