//! The three lists of service communications.

use std::fmt;

use crate::content::ContentType;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// `healthOverviews`: every service and its state now.
    Services,
    /// `issues`: incidents and advisories.
    Issues,
    /// `messages`: posts of the Message Center.
    Messages,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Services, Self::Issues, Self::Messages];

    /// Its name in the path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Services => "healthOverviews",
            Self::Issues => "issues",
            Self::Messages => "messages",
        }
    }

    /// As what it is stored.
    #[must_use]
    pub const fn content_type(self) -> ContentType {
        match self {
            Self::Services => ContentType::HealthServices,
            Self::Issues => ContentType::HealthIssues,
            Self::Messages => ContentType::HealthMessages,
        }
    }

    /// The application permission that it needs.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::Services | Self::Issues => "ServiceHealth.Read.All",
            Self::Messages => "ServiceMessage.Read.All",
        }
    }

    /// Whether its items say when they were changed, so that it can be asked for what has changed since. The overview of
    /// services says nothing of time and is always listed whole.
    #[must_use]
    pub const fn has_times(self) -> bool {
        !matches!(self, Self::Services)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Services => "service health",
            Self::Issues => "service issues",
            Self::Messages => "the Message Center",
        })
    }
}
