//! Who may see a credential: access tokens are for the Activity API, client credentials, authorization codes and refresh
//! tokens for the token endpoint, and none belongs into an address of the cloud, which proxies and servers write down.

use crate::http::Request;
use crate::world::State;

/// Who gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// The token endpoint, and what else an authority has.
    Authority,
    /// The Activity API.
    Activity,
    /// The authority, asked for something it does not have.
    StrangeToAuthority,
    /// The management host, asked for something it does not have.
    StrangeToManagement,
    /// A host of others.
    Foreign,
}

impl Receiver {
    const fn name(self) -> &'static str {
        match self {
            Self::Authority | Self::StrangeToAuthority => "the authority",
            Self::Activity | Self::StrangeToManagement => "the management host",
            Self::Foreign => "the foreign host",
        }
    }
}

impl State {
    /// Notes each credential that the receiver of a request may not see.
    pub(crate) fn note_leaks(&mut self, request: &Request, receiver: Receiver, now: jiff::Timestamp) {
        for what in self.leaks(request, receiver) {
            self.book.violation(now, format!("{what} reached {}: {}", receiver.name(), request.line()));
        }
    }

    fn leaks(&self, request: &Request, receiver: Receiver) -> Vec<&'static str> {
        let (query, form) = (request.parameters(), request.form());
        let authorization = request.header("authorization").unwrap_or_default();
        let scheme = |name: &str| authorization.split(' ').next().is_some_and(|s| s.eq_ignore_ascii_case(name));
        let is_secret = |text: &str| {
            self.apps
                .values()
                .flat_map(|app| &app.secrets)
                .any(|secret| !secret.value.is_empty() && text == secret.value)
        };
        let credential_in = |fields: &std::collections::HashMap<String, String>| {
            fields.iter().any(|(name, value)| {
                matches!(name.as_str(), "client_secret" | "client_assertion" | "code_verifier")
                    || is_secret(value)
                    || self.codes.contains_key(value)
                    || self.refresh_tokens.contains_key(value)
            })
        };
        let bearer = authorization.split_once(' ').map_or("", |(_, token)| token.trim());
        let mut leaks = Vec::new();
        if scheme("bearer") && receiver != Receiver::Activity {
            leaks.push("a bearer token");
        }
        let credential = credential_in(&form) || scheme("basic");
        if (credential && receiver != Receiver::Authority) || is_secret(bearer) || is_secret(authorization) {
            leaks.push("a client credential");
        }
        if credential_in(&query) || query.contains_key("access_token") || query.contains_key("id_token") {
            leaks.push("an address with a credential in it");
        }
        leaks
    }
}
