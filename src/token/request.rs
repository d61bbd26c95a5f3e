//! One question to Entra: who asks, for what, and how the answer is taken.
//!
//! **Invariant:** this is the only place that holds a proof (a secret or a fresh assertion) beside an answer, and what
//! leaves it is a token or an error in which the proof does not occur.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::answer::{self, Grant, NoGrant, Refusal, Unusable};
use super::endpoint::{Incoming, Outgoing, Proof, Transport};
use super::entra::{self, OUTSIDE_TIME_RANGE, Scope, Subject};
use super::{Credential, TokenError, assertion};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::TenantId;

/// A host's clock that is off by less than this is not why an assertion was refused: Entra allows five minutes.
const CLOCK_IS_OFF: SignedDuration = SignedDuration::from_mins(1);

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
        self.cloud.authority.as_str().trim_end_matches('/').to_owned()
    }
}

/// Asks the same question whenever it is told to.
#[derive(Debug)]
pub(super) struct Asker {
    request: TokenRequest,
    authority: String,
    url: Url,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    time: Arc<ServiceTime>,
}

impl Asker {
    pub(super) fn new(
        request: TokenRequest,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        time: Arc<ServiceTime>,
    ) -> Self {
        let url = request.cloud.token_endpoint(request.tenant, request.endpoint);
        Self { authority: request.authority(), request, url, transport, clock, time }
    }

    pub(super) const fn tenant(&self) -> TenantId {
        self.request.tenant
    }

    /// The service's time.
    pub(super) fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// A token was granted that cannot be put into a header.
    pub(super) fn cannot_send(&self) -> TokenError {
        TokenError::unusable(Unusable::OddToken, &self.subject(""))
    }

    /// Asks Entra for a token.
    pub(super) async fn ask(&self) -> Result<Grant, TokenError> {
        let request = &self.request;
        let confirmed = self.time.confirmed();
        // The service's time signs, so that a host with a wrong clock still gets a token; the first time of all,
        // and after an hour without any answer, there is only the host's.
        let signed_at = confirmed.unwrap_or_else(|| self.clock.now());
        let thumbprint = request.credential.certificate(signed_at).map_or("", |certificate| certificate.sha1_hex());
        let subject = self.subject(thumbprint);

        let assertion;
        let proof = match &request.credential {
            Credential::Secret(secret) => Proof::Secret(secret),
            Credential::Certificates { signing, .. } => {
                let certificate = request.credential.certificate(signed_at).ok_or_else(TokenError::no_certificate)?;
                assertion = assertion::sign(certificate, *signing, &request.client_id, &self.url, signed_at)
                    .map_err(TokenError::unsigned)?;
                Proof::Assertion(&assertion)
            }
        };
        let outgoing = Outgoing::new(self.url.clone(), request.endpoint, &request.audience, &request.client_id, &proof);
        let request_id = outgoing.request_id;
        let incoming = self
            .transport
            .post(outgoing)
            .await
            .map_err(|error| TokenError::unreachable(error, &subject).or_correlation_id(request_id))?;
        let answer = answer::read(&incoming, self.time.now(), proof.text());
        // A proxy's page has a proxy's clock.
        let is_entras = !matches!(&answer, Err(NoGrant::Refused(refusal)) if !refusal.json);
        if let Some(date) = incoming.date.filter(|_| is_entras) {
            self.time.observe(date);
        }
        answer
            .map_err(|no_grant| match no_grant {
                NoGrant::Unusable(unusable) => TokenError::unusable(unusable, &subject),
                NoGrant::Refused(refusal) => self.refusal(refusal, &incoming, &subject, signed_at, confirmed.is_some()),
            })
            .map_err(|error| error.or_correlation_id(request_id))
    }

    fn refusal(
        &self,
        refusal: Box<Refusal>,
        incoming: &Incoming,
        subject: &Subject<'_>,
        signed_at: Timestamp,
        signed_by_service: bool,
    ) -> TokenError {
        let verdict = entra::judge(refusal.status, refusal.json, refusal.error.as_deref(), &refusal.codes);
        if verdict.code != Some(OUTSIDE_TIME_RANGE) || verdict.scope == Scope::Passing {
            return TokenError::refused(refusal, &verdict, subject, incoming.retry_after);
        }
        let cause = self.clock_trouble(signed_at, signed_by_service, incoming.date);
        let off = self.time.host_ahead_by().is_some_and(|ahead| ahead.abs() > CLOCK_IS_OFF);
        if off && !signed_by_service && self.time.confirmed().is_some() {
            return TokenError::clock_was_off(refusal, cause);
        }
        TokenError::refused(refusal, &verdict, subject, incoming.retry_after).because(cause)
    }

    /// Both clocks, for the one who has to set one of them.
    fn clock_trouble(&self, signed_at: Timestamp, signed_by_service: bool, date: Option<Timestamp>) -> String {
        let by = if signed_by_service { "Microsoft's time" } else { "this host's clock" };
        let until = signed_at.saturating_add(assertion::LIFE).unwrap_or(signed_at);
        let theirs = date.map_or_else(|| "not told".to_owned(), |date| format!("{date:.0}"));
        format!(
            "Entra found the client assertion outside its time range: by {by} it was good from {signed_at:.0} to \
             {until:.0}; this host's clock says {:.0}, Entra's clock {theirs}",
            self.clock.now()
        )
    }

    fn subject<'a>(&'a self, thumbprint: &'a str) -> Subject<'a> {
        let TokenRequest { cloud, client_id, audience, tenant, .. } = &self.request;
        Subject {
            tenant: *tenant,
            client: client_id,
            cloud: &cloud.name,
            authority: &self.authority,
            audience,
            thumbprint,
        }
    }
}
