//! What an app registration asks customers for: the permissions that collecting needs, by Microsoft's ids.
//!
//! Sources: "Get started with Office 365 Management APIs", "Microsoft Graph permissions reference", and published
//! manifests that agree. Deliberately absent: `ActivityReports.Read` and `ThreatIntelligence.Read` of the Management APIs,
//! which no longer exist and break consent with AADSTS650051, and `ServiceHealth.Read`, whose API has been retired.

use uuid::{Uuid, uuid};

use crate::cloud::TokenEndpoint;

/// A permission of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// Its name, as the portal shows it.
    pub name: &'static str,
    /// Its id as an application permission; `None` if it is only for a person who signs in.
    pub role: Option<Uuid>,
    /// Its id as a delegated permission.
    pub scope: Uuid,
}

/// An API and what is needed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Its name, as the portal shows it.
    pub name: &'static str,
    /// Its application id, the same in every tenant and cloud.
    pub id: Uuid,
    /// The permissions.
    pub permissions: Vec<Permission>,
}

const fn both(name: &'static str, role: Uuid, scope: Uuid) -> Permission {
    Permission { name, role: Some(role), scope }
}

const FEED: Uuid = uuid!("594c1fb6-4f81-4475-ae41-0c394909246c");
const FEED_DLP: Uuid = uuid!("4807a72c-ad38-4250-94c9-4eabfe26cd55");
const HEALTH: Permission = both(
    "ServiceHealth.Read.All",
    uuid!("79c261e0-fe76-4144-aad5-bdc68fbe4037"),
    uuid!("55896846-df78-47a7-aa94-8d3d4442ca7f"),
);
const MESSAGES: Permission = both(
    "ServiceMessage.Read.All",
    uuid!("1b620472-6534-4fe6-9df2-4680e8aa28ec"),
    uuid!("eda39fa6-f8cf-4c3c-a909-432c683e4c9b"),
);
/// What v1's sign-in wants of an app before it lets a person in.
const SIGN_IN: Permission =
    Permission { name: "User.Read", role: None, scope: uuid!("e1fe6dd8-ba31-4d61-89e7-88639da4683d") };

/// What is needed, by API. `dlp` adds the sensitive content of DLP events, `health` the state of services and the Message
/// Center. In the `flow` of 2019 (v1) a person's sign-in consents to delegated permissions.
#[must_use]
pub fn needed(dlp: bool, health: bool, flow: TokenEndpoint) -> Vec<Api> {
    let mut management = vec![both("ActivityFeed.Read", FEED, FEED)];
    management.extend(dlp.then_some(both("ActivityFeed.ReadDlp", FEED_DLP, FEED_DLP)));
    let mut graph = if health { vec![HEALTH, MESSAGES] } else { Vec::new() };
    graph.extend((flow == TokenEndpoint::V1).then_some(SIGN_IN));
    let all = [
        Api {
            name: "Office 365 Management APIs",
            id: uuid!("c5393580-f805-4401-95e8-94b7a6ef2fc2"),
            permissions: management,
        },
        Api { name: "Microsoft Graph", id: uuid!("00000003-0000-0000-c000-000000000000"), permissions: graph },
    ];
    all.into_iter().filter(|api| !api.permissions.is_empty()).collect()
}
