//! One question to Entra that is asked again and again: a token for a tenant's data.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use super::answer::{self, Grant, Unusable};
use super::applicant::{self, Applicant, Question, Wire};
use super::endpoint::Transport;
use super::entra::Subject;
use super::rollover::Rollover;
use super::{Credential, TokenError};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::TenantId;

/// What is asked for, and by whom.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Where the tenant lives.
    pub cloud: Arc<Cloud>,
    /// Whose data the token opens.
    pub tenant: TenantId,
    /// What the token is for: the cloud's management or Graph audience.
    pub audience: String,
    /// Which of the two token endpoints.
    pub endpoint: TokenEndpoint,
    /// The app's name in the configuration; empty for `[app]`.
    pub app: String,
    /// The app's client id.
    pub client_id: String,
    /// What the app proves itself with.
    pub credential: Credential,
    /// The longest time that a token is used before a new one is asked for.
    pub renew_after: Duration,
}

impl TokenRequest {
    /// Scheme and host of the authority, without the slash that an address ends with.
    pub(super) fn authority(&self) -> String {
        applicant::authority(&self.cloud)
    }

    /// Whether a token that answers the one also answers the other: it opens the same data at the same host.
    pub(super) fn is_for_what(&self, other: &Self) -> bool {
        self.cloud == other.cloud && self.tenant == other.tenant && self.audience == other.audience
    }

    /// Whether Entra is also asked in the same way, by the same app.
    pub(super) fn asks_as(&self, other: &Self) -> bool {
        self.is_for_what(other)
            && self.endpoint == other.endpoint
            && self.app == other.app
            && self.client_id == other.client_id
            && self.credential == other.credential
    }

    fn applicant(&self) -> Applicant {
        Applicant {
            cloud: Arc::clone(&self.cloud),
            app: self.app.clone(),
            client_id: self.client_id.clone(),
            credential: self.credential.clone(),
        }
    }

    /// The field that says what the token is for.
    fn purpose(&self) -> (&'static str, String) {
        match self.endpoint {
            TokenEndpoint::V2 => ("scope", format!("{}/.default", self.audience)),
            TokenEndpoint::V1 => ("resource", self.audience.clone()),
        }
    }
}

/// Asks the same question whenever it is told to.
#[derive(Debug)]
pub(super) struct Asker {
    request: TokenRequest,
    who: Applicant,
    url: Url,
    wire: Wire,
}

impl Asker {
    pub(super) fn new(
        request: TokenRequest,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        time: Arc<ServiceTime>,
    ) -> Self {
        Self::on(Wire { transport, clock, time }, request)
    }

    /// One that asks another question in the same way.
    pub(super) fn with(&self, request: TokenRequest) -> Self {
        Self::on(self.wire.clone(), request)
    }

    fn on(wire: Wire, request: TokenRequest) -> Self {
        let url = request.cloud.token_endpoint(request.tenant, request.endpoint);
        Self { who: request.applicant(), request, url, wire }
    }

    pub(super) const fn request(&self) -> &TokenRequest {
        &self.request
    }

    pub(super) const fn time(&self) -> &Arc<ServiceTime> {
        &self.wire.time
    }

    pub(super) const fn tenant(&self) -> TenantId {
        self.request.tenant
    }

    /// The service's time.
    pub(super) fn now(&self) -> Timestamp {
        self.wire.time.now()
    }

    /// A token was granted that cannot be put into a header.
    pub(super) fn cannot_send(&self) -> TokenError {
        let TokenRequest { cloud, client_id, audience, tenant, .. } = &self.request;
        let subject = Subject {
            tenant: Some(*tenant),
            client: client_id,
            cloud: &cloud.name,
            authority: &self.who.authority(),
            audience,
            thumbprint: "",
        };
        TokenError::unusable(Unusable::OddToken, &subject)
    }

    /// Asks Entra for a token; `rollover` says which of the app's certificates signs.
    pub(super) async fn ask(&self, rollover: &Rollover) -> Result<Grant, TokenError> {
        let (name, purpose) = self.request.purpose();
        let fields = [("grant_type", "client_credentials"), (name, purpose.as_str())];
        let question = Question {
            url: &self.url,
            fields: &fields,
            concealed: &[],
            tenant: Some(self.request.tenant),
            audience: &self.request.audience,
        };
        self.wire.ask(&self.who, question, rollover, answer::read).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::token::testing;

    #[test]
    fn each_endpoint_has_its_own_word_for_what_a_token_is_for() {
        let request = testing::request(1, Credential::Secret(Secret::from("s".to_owned())));
        let purpose = |endpoint| TokenRequest { endpoint, ..request.clone() }.purpose();
        assert_eq!(purpose(TokenEndpoint::V2), ("scope", "https://manage.office.com/.default".to_owned()));
        assert_eq!(purpose(TokenEndpoint::V1), ("resource", "https://manage.office.com".to_owned()));
    }
}
