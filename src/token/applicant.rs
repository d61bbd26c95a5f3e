//! An app at an authority: it proves itself at one address, sends what it asks for, and says what a refusal means.
//!
//! It knows nothing of what is asked for: the client-credentials grant of the tenants' sources and the authorization code
//! of a sign-in go the same way, with the same proof, the same table of refusals, and the same clock.
//!
//! **Invariant:** this is the only place that holds a proof (a secret or a fresh assertion) beside an answer, and what
//! leaves it is what was asked for, or an error in which the proof does not occur.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::answer::{NoGrant, Refusal};
use super::endpoint::{Incoming, Outgoing, Proof, Transport};
use super::entra::{self, CERTIFICATE_REFUSED, OUTSIDE_TIME_RANGE, Scope, Subject, Verdict};
use super::federated::Claims;
use super::rollover::Rollover;
use super::{Certificate, Credential, Federated, TokenError, assertion};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::Cloud;
use crate::content::TenantId;

/// A host's clock that is off by less than this is not why an assertion was refused: Entra allows five minutes.
const CLOCK_IS_OFF: SignedDuration = SignedDuration::from_mins(1);

/// Who asks: an app as an authority knows it.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// Whose authority is asked.
    pub cloud: Arc<Cloud>,
    /// The app's name in the configuration; empty for `[app]`.
    pub app: String,
    /// The app's client id.
    pub client_id: String,
    /// What the app proves itself with.
    pub credential: Credential,
}

/// What is asked for, and how the trouble with it is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The address that is asked, for which alone an assertion is good.
    pub(super) url: &'a Url,
    /// The fields of the form beside `client_id` and the proof.
    pub(super) fields: &'a [(&'a str, &'a str)],
    /// Which of their values no error repeats.
    pub(super) concealed: &'a [&'a str],
    /// The tenant, if it is known.
    pub(super) tenant: Option<TenantId>,
    /// What the answer is good for.
    pub(super) audience: &'a str,
}

/// What proves the app at one address, once.
struct Proven {
    proof: Proof,
    /// What signed it.
    certificate: Option<Arc<Certificate>>,
    /// What it says of itself, if it is somebody else's.
    claims: Option<Claims>,
    signed_at: Timestamp,
    /// Whether that is the service's time, and not this host's.
    by_service: bool,
}

/// How an authority is reached, and by which time.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) clock: SharedClock,
    pub(super) time: Arc<ServiceTime>,
}

impl Applicant {
    /// Scheme and host of the authority, without the slash that an address ends with.
    pub(super) fn authority(&self) -> String {
        authority(&self.cloud)
    }

    /// What proves the app at `url`, by the time that `wire` has; `rollover` says which of its certificates signs.
    async fn prove(&self, url: &Url, wire: &Wire, rollover: &Rollover) -> Result<Proven, TokenError> {
        let confirmed = wire.time.confirmed();
        // The service's time signs, so that a host with a wrong clock still gets a token; the first time of all,
        // and after an hour without any answer, there is only the host's.
        let signed_at = confirmed.unwrap_or_else(|| wire.clock.now());
        let certificate = rollover.choose(&self.credential, signed_at);
        let mut claims = None;
        let proof = match &self.credential {
            Credential::Secret(secret) => Proof::Secret(secret.clone()),
            Credential::Certificates { signing, .. } => {
                let certificate = certificate.as_ref().ok_or_else(TokenError::no_certificate)?;
                let assertion = assertion::sign(certificate, *signing, &self.client_id, url, signed_at);
                Proof::Assertion(assertion.map_err(TokenError::unsigned)?)
            }
            Credential::Federated(federated) => {
                let borrowed = federated.token(self.cloud.exchange_audience(), signed_at).await?;
                claims = Some(borrowed.claims);
                Proof::Assertion(borrowed.token)
            }
        };
        Ok(Proven { proof, certificate, claims, signed_at, by_service: confirmed.is_some() })
    }
}

/// Scheme and host of the cloud's authority, without the slash that an address ends with.
pub(super) fn authority(cloud: &Cloud) -> String {
    cloud.authority.as_str().trim_end_matches('/').to_owned()
}

impl Wire {
    /// Asks in the name of `who`; `read` takes the answer, with the service's time and what no error may repeat.
    pub(super) async fn ask<T>(
        &self,
        who: &Applicant,
        question: Question<'_>,
        rollover: &Rollover,
        read: impl FnOnce(&Incoming, Timestamp, &[&str]) -> Result<T, NoGrant>,
    ) -> Result<T, TokenError> {
        let proven = who.prove(question.url, self, rollover).await?;
        let authority = who.authority();
        let thumbprint = proven.certificate.as_ref().map_or("", |certificate| certificate.sha1_hex());
        let subject = Subject {
            tenant: question.tenant,
            client: &who.client_id,
            cloud: &who.cloud.name,
            authority: &authority,
            audience: question.audience,
            thumbprint,
        };
        let url = question.url.clone();
        let outgoing = Outgoing::new(url, &who.client_id, question.fields, &proven.proof, self.time.now());
        let request_id = outgoing.request_id;
        let incoming = self
            .transport
            .post(outgoing)
            .await
            .map_err(|error| TokenError::unreachable(error, &subject).or_correlation_id(request_id))?;
        let concealed = [&[proven.proof.text().expose()], question.concealed].concat();
        let answer = read(&incoming, self.time.now(), &concealed);
        // A proxy's page has a proxy's clock.
        let is_entras = !matches!(&answer, Err(NoGrant::Refused(refusal)) if !refusal.json);
        if let Some(date) = incoming.date.filter(|_| is_entras) {
            self.time.observe(date);
        }
        let no_grant = match answer {
            Ok(granted) => {
                if let Some(certificate) = &proven.certificate {
                    rollover.accepted(certificate, &who.app, &who.client_id);
                }
                return Ok(granted);
            }
            Err(no_grant) => no_grant,
        };
        let error = match no_grant {
            NoGrant::Unusable(unusable) => TokenError::unusable(unusable, &subject),
            NoGrant::Refused(refusal) => {
                let verdict = entra::judge(refusal.status, refusal.json, refusal.error.as_deref(), &refusal.codes);
                if let (Credential::Federated(federated), Some(claims)) = (&who.credential, &proven.claims) {
                    let error = foreign_token(who, (federated, claims), refusal, verdict, &incoming, &subject).await;
                    return Err(error.or_correlation_id(request_id));
                }
                match (verdict.scope, verdict.code, &proven.certificate) {
                    (Scope::App, Some(OUTSIDE_TIME_RANGE), _) => {
                        self.outside_time(refusal, &verdict, &incoming, &subject, &proven)
                    }
                    (Scope::App, Some(code), Some(certificate)) if CERTIFICATE_REFUSED.contains(&code) => {
                        let signed = (certificate.as_ref(), proven.signed_at);
                        certificate_refused(who, refusal, &verdict, &incoming, &subject, signed, rollover)
                    }
                    _ => TokenError::refused(refusal, &verdict, &subject, incoming.retry_after),
                }
            }
        };
        Err(error.or_correlation_id(request_id))
    }

    /// Entra found the assertion outside its time: by whose clock it was signed tells whether that can be helped.
    fn outside_time(
        &self,
        refusal: Box<Refusal>,
        verdict: &Verdict,
        incoming: &Incoming,
        subject: &Subject<'_>,
        proven: &Proven,
    ) -> TokenError {
        let cause = self.clock_trouble(proven, incoming.date);
        let off = self.time.host_ahead_by().is_some_and(|ahead| ahead.abs() > CLOCK_IS_OFF);
        if off && !proven.by_service && self.time.confirmed().is_some() {
            return TokenError::clock_was_off(refusal, cause);
        }
        TokenError::refused(refusal, verdict, subject, incoming.retry_after).because(cause)
    }

    /// Both clocks, for the one who has to set one of them.
    fn clock_trouble(&self, proven: &Proven, date: Option<Timestamp>) -> String {
        let Proven { signed_at, by_service, .. } = proven;
        let by = if *by_service { "Microsoft's time" } else { "this host's clock" };
        let until = signed_at.saturating_add(assertion::LIFE).unwrap_or(*signed_at);
        let theirs = date.map_or_else(|| "not told".to_owned(), |date| format!("{date:.0}"));
        format!(
            "Entra found the client assertion outside its time range: by {by} it was good from {signed_at:.0} to \
             {until:.0}; this host's clock says {:.0}, Entra's clock {theirs}",
            self.clock.now()
        )
    }
}

/// Entra refuses, and what proved the app is somebody else's token: if that is why, what it says of itself is told.
async fn foreign_token(
    who: &Applicant,
    (federated, claims): (&Federated, &Claims),
    refusal: Box<Refusal>,
    verdict: Verdict,
    incoming: &Incoming,
    subject: &Subject<'_>,
) -> TokenError {
    let verdict = verdict.of_foreign_token();
    let error = TokenError::refused(refusal, &verdict, subject, incoming.retry_after);
    if !verdict.kind.starts_with("federated_") {
        return error;
    }
    federated.refused().await;
    let mut cause = error.trouble().cause;
    let wanted = who.cloud.exchange_audience();
    // A `String` takes everything that is written to it.
    let _ = match verdict.kind {
        "federated_expired" => {
            let theirs = incoming.date.map_or_else(|| "not told".to_owned(), |date| format!("{date:.0}"));
            let (validity, origin) = (claims.validity(), federated.origin());
            write!(cause, ": {validity}, and Entra's clock says {theirs}; it comes from {origin}")
        }
        // An identity's tokens name their audience by another of its names; it was asked for rightly.
        _ if claims.is_for(wanted) || matches!(federated, Federated::Identity(_)) => write!(cause, "; it has {claims}"),
        _ => write!(cause, "; it has {claims}, and this cloud wants the audience `{wanted}`"),
    };
    error.because(cause)
}

/// Entra does not know the certificate that signed: the app's trouble if there is no other one to sign with.
fn certificate_refused(
    who: &Applicant,
    refusal: Box<Refusal>,
    verdict: &Verdict,
    incoming: &Incoming,
    subject: &Subject<'_>,
    (certificate, signed_at): (&Certificate, Timestamp),
    rollover: &Rollover,
) -> TokenError {
    let Some(instead) = rollover.refused(certificate, &who.credential, signed_at) else {
        return TokenError::refused(refusal, verdict, subject, incoming.retry_after);
    };
    let error = TokenError::certificate_refused(refusal, verdict, subject, instead.sha1_hex(), incoming.retry_after);
    rollover.tell(certificate, &who.app, &who.client_id, &error.trouble(), signed_at);
    error
}
