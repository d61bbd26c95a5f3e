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
use super::entra::{self, CERTIFICATE_REFUSED, OUTSIDE_TIME_RANGE, Scope, Subject, Verdict};
use super::rollover::Rollover;
use super::{Certificate, Credential, TokenError, assertion};
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

    /// One that asks another question in the same way.
    pub(super) fn with(&self, request: TokenRequest) -> Self {
        Self::new(request, Arc::clone(&self.transport), Arc::clone(&self.clock), Arc::clone(&self.time))
    }

    pub(super) const fn request(&self) -> &TokenRequest {
        &self.request
    }

    pub(super) const fn time(&self) -> &Arc<ServiceTime> {
        &self.time
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

    /// Asks Entra for a token; `rollover` says which of the app's certificates signs.
    pub(super) async fn ask(&self, rollover: &Rollover) -> Result<Grant, TokenError> {
        let request = &self.request;
        let confirmed = self.time.confirmed();
        // The service's time signs, so that a host with a wrong clock still gets a token; the first time of all,
        // and after an hour without any answer, there is only the host's.
        let signed_at = confirmed.unwrap_or_else(|| self.clock.now());
        let certificate = rollover.choose(&request.credential, signed_at);
        let thumbprint = certificate.as_ref().map_or("", |certificate| certificate.sha1_hex());
        let subject = self.subject(thumbprint);

        let assertion;
        let proof = match &request.credential {
            Credential::Secret(secret) => Proof::Secret(secret),
            Credential::Certificates { signing, .. } => {
                let certificate = certificate.as_ref().ok_or_else(TokenError::no_certificate)?;
                assertion = assertion::sign(certificate, *signing, &request.client_id, &self.url, signed_at)
                    .map_err(TokenError::unsigned)?;
                Proof::Assertion(&assertion)
            }
        };
        let (endpoint, audience, client) = (request.endpoint, &request.audience, &request.client_id);
        let outgoing = Outgoing::new(self.url.clone(), endpoint, audience, client, &proof, self.time.now());
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
        let no_grant = match answer {
            Ok(grant) => {
                if let Some(certificate) = &certificate {
                    rollover.accepted(certificate, &request.app, &request.client_id);
                }
                return Ok(grant);
            }
            Err(no_grant) => no_grant,
        };
        let error = match no_grant {
            NoGrant::Unusable(unusable) => TokenError::unusable(unusable, &subject),
            NoGrant::Refused(refusal) => {
                let verdict = entra::judge(refusal.status, refusal.json, refusal.error.as_deref(), &refusal.codes);
                match (verdict.scope, verdict.code, certificate.as_deref()) {
                    (Scope::App, Some(OUTSIDE_TIME_RANGE), _) => {
                        self.outside_time(refusal, &verdict, &incoming, &subject, (signed_at, confirmed.is_some()))
                    }
                    (Scope::App, Some(code), Some(certificate)) if CERTIFICATE_REFUSED.contains(&code) => {
                        let signed = (certificate, signed_at);
                        self.certificate_refused(refusal, &verdict, &incoming, &subject, signed, rollover)
                    }
                    _ => TokenError::refused(refusal, &verdict, &subject, incoming.retry_after),
                }
            }
        };
        Err(error.or_correlation_id(request_id))
    }

    /// Entra does not know the certificate that signed: the app's trouble if there is no other one to sign with.
    fn certificate_refused(
        &self,
        refusal: Box<Refusal>,
        verdict: &Verdict,
        incoming: &Incoming,
        subject: &Subject<'_>,
        (certificate, signed_at): (&Certificate, Timestamp),
        rollover: &Rollover,
    ) -> TokenError {
        let TokenRequest { credential, app, client_id, .. } = &self.request;
        let Some(instead) = rollover.refused(certificate, credential, signed_at) else {
            return TokenError::refused(refusal, verdict, subject, incoming.retry_after);
        };
        let error =
            TokenError::certificate_refused(refusal, verdict, subject, instead.sha1_hex(), incoming.retry_after);
        rollover.tell(certificate, app, client_id, &error.trouble(), signed_at);
        error
    }

    /// Entra found the assertion outside its time: by whose clock it was signed tells whether that can be helped.
    fn outside_time(
        &self,
        refusal: Box<Refusal>,
        verdict: &Verdict,
        incoming: &Incoming,
        subject: &Subject<'_>,
        (signed_at, signed_by_service): (Timestamp, bool),
    ) -> TokenError {
        let cause = self.clock_trouble(signed_at, signed_by_service, incoming.date);
        let off = self.time.host_ahead_by().is_some_and(|ahead| ahead.abs() > CLOCK_IS_OFF);
        if off && !signed_by_service && self.time.confirmed().is_some() {
            return TokenError::clock_was_off(refusal, cause);
        }
        TokenError::refused(refusal, verdict, subject, incoming.retry_after).because(cause)
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
