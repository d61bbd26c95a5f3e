//! Who may see a credential: access tokens are for the Activity API or Graph, client credentials, authorization codes and refresh
//! tokens for the token endpoint, and none belongs into an address of the cloud, which proxies and servers write down.
//!
//! A test that looks for secrets where they must not be can have all of them kept.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::http::{Body, Request, Response};
use crate::world::State;

/// What stands under these names is secret, in a form, a query or the JSON of an answer. A `state` and a `nonce` bind a
/// sign-in to its browser.
const SECRET: [&str; 9] = [
    "client_secret",
    "client_assertion",
    "code",
    "code_verifier",
    "refresh_token",
    "access_token",
    "id_token",
    "state",
    "nonce",
];

/// Who gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// The token endpoint, and what else an authority has.
    Authority,
    /// The Activity API.
    Activity,
    /// Graph.
    Graph,
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
            Self::Graph => "the Graph host",
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

    /// Keeps what a request shows of secrets, if a test wants them.
    pub(crate) fn keep_asked(&mut self, request: &Request) {
        let Some(kept) = &mut self.credentials else { return };
        let fields = request.parameters().into_iter().chain(request.form());
        kept.extend(fields.filter(|(name, _)| SECRET.contains(&name.as_str())).map(|(_, value)| value));
        if let Some((_, credential)) = request.header("authorization").and_then(|value| value.split_once(' ')) {
            kept.insert(credential.trim().to_owned());
        }
    }

    /// Keeps what an answer hands out.
    pub(crate) fn keep_answered(&mut self, response: &Response) {
        let Some(kept) = &mut self.credentials else { return };
        let Body::Whole(body) = &response.body else { return };
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return };
        let secret = fields.into_iter().filter(|(name, _)| SECRET.contains(&name.as_str()));
        kept.extend(secret.filter_map(|(_, value)| Some(value.as_str()?.to_owned())));
    }

    /// Keeps all of them from now on.
    pub(crate) fn keep_credentials(&mut self) {
        self.credentials = Some(BTreeSet::new());
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
        if scheme("bearer") && !matches!(receiver, Receiver::Activity | Receiver::Graph) {
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
