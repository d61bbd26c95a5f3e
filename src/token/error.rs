//! Why there is no token: what to do next, and what the operator reads.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Service;
use super::answer::{Refusal, Unusable};
use super::assertion::AssertionError;
use super::endpoint::TransportError;
use super::entra::{Scope, Subject, Verdict, fill};
use super::federated::Unfit;
use super::identity::IdentityError;
use super::renewal::LONGEST_ASKED;
use crate::http::fault::{Fault, root_cause};
use crate::report::Trouble;
use crate::retry::Advice;

/// There is no token. Cheap to clone: everyone who waited for the same request gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no token for the tenant")]
pub struct TokenError {
    #[source]
    problem: Arc<Problem>,
    kind: &'static str,
    scope: Scope,
    advice: Advice,
    /// What Entra asked for at least.
    asked: Option<Duration>,
    trouble: Arc<Trouble>,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Transport(TransportError),
    #[error(transparent)]
    Assertion(AssertionError),
    #[error("the token endpoint answered {} {}", .0.status, .0.description.as_deref().or(.0.error.as_deref()).unwrap_or("without an error's text"))]
    Refused(Box<Refusal>),
    #[error("the token endpoint's answer cannot be used: {0}")]
    Unusable(Unusable),
    #[error("there is no certificate to sign with")]
    NoCertificate,
    #[error("the federated token cannot be used")]
    File(#[source] Unfit),
    #[error("the managed identity has no token")]
    Identity(#[source] IdentityError),
    #[error("the last request was less than half a minute ago")]
    TooSoon,
    #[error("the request ended without a result")]
    Ended,
}

impl TokenError {
    /// A stable label, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// What the caller does next. `Retry` names the time that is left until the next request may be made.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        self.advice
    }

    /// What the operator reads.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        Trouble::clone(&self.trouble)
    }

    /// Entra's id of its own handling of the request, for a support request.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        match &*self.problem {
            Problem::Refused(refusal) => refusal.trace_id.as_deref(),
            _ => None,
        }
    }

    /// Whether it is believed to be the whole app's.
    pub(super) fn is_shared(&self) -> bool {
        self.trouble.shared
    }

    /// The same error, with the whole app's account of it: none of its tenants knows the app.
    #[must_use]
    pub(super) fn known_to_none(mut self, client_id: &str) -> Self {
        self.scope = Scope::App;
        self.because(format!("none of the tenants that were asked for knows the app {client_id}"))
    }

    /// Whether the same question can be asked again at once: another certificate signs, or by the right time.
    pub(super) fn is_overcome(&self) -> bool {
        self.scope == Scope::Passing && matches!(self.kind, "certificate_refused" | "clock") && self.asked.is_none()
    }

    /// Whether it was found out on this host, so that trying again costs nobody anything.
    pub(super) fn is_local(&self) -> bool {
        matches!(&*self.problem, Problem::File(_) | Problem::Identity(_))
    }

    /// Whom it concerns.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// What Entra asked for at least.
    pub(super) const fn asked(&self) -> Option<Duration> {
        self.asked
    }

    /// The same error, told to someone who must wait for `left` yet.
    #[must_use]
    pub(super) fn waiting(mut self, left: Duration) -> Self {
        if let Advice::Retry { after } = &mut self.advice {
            *after = Some(left);
        }
        self
    }

    /// The same error, believed to be the whole app's.
    #[must_use]
    pub(super) fn of_app(mut self) -> Self {
        self.advice = Advice::PauseApp;
        Arc::make_mut(&mut self.trouble).shared = true;
        self
    }

    /// The same error, with another account of what happened.
    #[must_use]
    pub(super) fn because(mut self, cause: String) -> Self {
        Arc::make_mut(&mut self.trouble).cause = cause;
        self
    }

    /// Entra refused, and this is what it means. `after` is its `Retry-After`.
    pub(super) fn refused(
        refusal: Box<Refusal>,
        verdict: &Verdict,
        subject: &Subject<'_>,
        after: Option<Duration>,
    ) -> Self {
        let mut cause = fill(verdict.cause, subject);
        if verdict.code.is_none() || verdict.kind.starts_with("entra_") {
            // The table has no words for it: Entra's own are better than none.
            match (&refusal.description, &refusal.redirect) {
                (Some(words), _) => _ = write!(cause, "; it says: {words}"),
                (None, Some(host)) => _ = write!(cause, "; status {}, redirected to `{host}`", refusal.status),
                (None, None) => _ = write!(cause, "; status {}", refusal.status),
            }
        }
        let trouble = Trouble {
            code: verdict.code.map(|code| format!("AADSTS{code}")),
            correlation_id: refusal.correlation_id.clone(),
            needs_operator: verdict.scope != Scope::Passing,
            ..Trouble::for_operator(verdict.kind, cause, fill(verdict.remedy, subject))
        };
        let after = after.max((!verdict.least_wait.is_zero()).then_some(verdict.least_wait));
        Self::new(Problem::Refused(refusal), verdict.kind, verdict.scope, after, trouble)
    }

    /// Entra refused one certificate, and another one signs from now on.
    pub(super) fn certificate_refused(
        refusal: Box<Refusal>,
        verdict: &Verdict,
        subject: &Subject<'_>,
        instead: &str,
        after: Option<Duration>,
    ) -> Self {
        let cause = format!(
            "Entra does not accept the certificate with the SHA-1 thumbprint {} of the app {}; the one with the \
             thumbprint {instead} signs in its place",
            subject.thumbprint, subject.client
        );
        let trouble = Trouble {
            remedy: fill(verdict.remedy, subject),
            code: verdict.code.map(|code| format!("AADSTS{code}")),
            correlation_id: refusal.correlation_id.clone(),
            ..Trouble::passing("certificate_refused", cause)
        };
        Self::new(Problem::Refused(refusal), "certificate_refused", Scope::Passing, after, trouble)
    }

    /// Entra refused the assertion for its time, and the reason was this host's clock, which is known now.
    pub(super) fn clock_was_off(refusal: Box<Refusal>, cause: String) -> Self {
        let trouble = Trouble {
            remedy: "signing by Microsoft's time from now on; set this host's clock all the same (chrony or \
                     systemd-timesyncd)"
                .to_owned(),
            code: Some("AADSTS700024".to_owned()),
            correlation_id: refusal.correlation_id.clone(),
            ..Trouble::passing("clock", cause)
        };
        Self::new(Problem::Refused(refusal), "clock", Scope::Passing, None, trouble)
    }

    /// Entra cannot be reached, or its answer cannot be read to the end.
    pub(super) fn unreachable(error: TransportError, subject: &Subject<'_>) -> Self {
        let fault = match &error {
            TransportError::NoAnswer(source) => Some(Fault::of(source, false)),
            TransportError::BrokeOff(_) | TransportError::TooLong => None,
        };
        let (kind, what) = match (fault, &error) {
            (Some(Fault::Dns), _) => ("dns", "cannot be found by its name"),
            (Some(Fault::Proxy), _) => ("proxy", "cannot be reached, since the proxy does not connect us"),
            (Some(Fault::Tls), _) => ("tls", "cannot be spoken to by TLS"),
            (Some(Fault::Connect), _) => ("unreachable", "cannot be reached"),
            (Some(Fault::NoAnswer | Fault::Stalled), _) => ("timeout", "did not answer in time"),
            (Some(Fault::BrokenOff | Fault::Protocol), _) => ("connection", "gave no answer"),
            (None, TransportError::TooLong) => ("too_long", "sent an answer that is too long to be Entra's"),
            (None, _) => ("broken_off", "broke its answer off"),
        };
        let mut cause = format!("{} {what}", subject.authority);
        if let Some(root) = root_cause(&error) {
            _ = write!(cause, " ({root})");
        }
        let remedy = fault.map(Fault::remedy).filter(|remedy| !remedy.is_empty());
        let remedy =
            remedy.unwrap_or("if it does not pass, check the network and what is on the way (proxy, firewall)");
        let trouble = Trouble { remedy: remedy.to_owned(), ..Trouble::passing(kind, cause) };
        Self::new(Problem::Transport(error), kind, Scope::Passing, None, trouble)
    }

    pub(super) fn unusable(unusable: Unusable, subject: &Subject<'_>) -> Self {
        let cause = format!("the token that {} granted cannot be used: {unusable}", subject.authority);
        let trouble = Trouble::passing("token_unusable", cause);
        Self::new(Problem::Unusable(unusable), "token_unusable", Scope::Passing, None, trouble)
    }

    pub(super) fn unsigned(error: AssertionError) -> Self {
        let cause = format!("{error} ({})", error.source().map(ToString::to_string).unwrap_or_default());
        let trouble = Trouble::for_operator("assertion_unsigned", cause, "configure another certificate and key");
        Self::new(Problem::Assertion(error), "assertion_unsigned", Scope::App, None, trouble)
    }

    pub(super) fn no_certificate() -> Self {
        let trouble =
            Trouble::for_operator("certificate_missing", "the app has no certificate to sign with", "configure one");
        Self::new(Problem::NoCertificate, "certificate_missing", Scope::App, None, trouble)
    }

    /// There is no token in the file that should have one.
    pub(super) fn federated_file(path: &Path, unfit: Unfit) -> Self {
        let (kind, remedy) = match &unfit {
            Unfit::Missing => (
                "federated_token_missing",
                "see to it that the platform puts the token there (a projected volume), or correct `federated_token_file`",
            ),
            Unfit::Denied | Unfit::Special | Unfit::Failed(_) => (
                "federated_token_unreadable",
                "let the user that runs tenantry read it, or correct `federated_token_file`",
            ),
            Unfit::Empty | Unfit::TooLarge | Unfit::NoJwt => (
                "federated_token_malformed",
                "see to it that the file holds the issuer's token (a JWT) and nothing else",
            ),
        };
        let mut cause = format!("the federated token file `{}` {unfit}", path.display());
        if let Unfit::Failed(error) = &unfit {
            _ = write!(cause, " ({error})");
        }
        let trouble = Trouble::for_operator(kind, cause, remedy);
        Self::new(Problem::File(unfit), kind, Scope::App, None, trouble)
    }

    /// The host's managed identity has no token for us.
    pub(super) fn managed_identity(error: IdentityError, name: &str, service: &Service) -> Self {
        let what = match &error {
            IdentityError::Transport(TransportError::NoAnswer(_)) => "is not reached",
            IdentityError::Refused(refusal, _) if refusal.status == 404 || refusal.status == 410 => "is not ready",
            IdentityError::Refused(refusal, _) if refusal.status == 429 => "asks for fewer requests",
            IdentityError::Refused(refusal, _) if refusal.status >= 500 => "is unavailable for the moment",
            IdentityError::Refused(refusal, _) if !refusal.json => "did not answer as it should",
            IdentityError::Refused(..) => "refuses a token",
            _ => "gave no token",
        };
        let mut cause = format!("{service} {what} for the managed identity {name}");
        match (&error, root_cause(&error)) {
            (IdentityError::Refused(..) | IdentityError::Unusable(_) | IdentityError::NoJwt, _) => {
                _ = write!(cause, ": {error}");
            }
            (_, Some(root)) => _ = write!(cause, " ({root})"),
            _ => {}
        }
        let (kind, scope, after, remedy) = match (&error, error.advice()) {
            (IdentityError::Transport(TransportError::NoAnswer(_)) | IdentityError::Client(_), _) => (
                "managed_identity_unreachable",
                Scope::App,
                None,
                "run this on an Azure host, let it reach that address without a proxy, or choose another credential",
            ),
            (_, Advice::Retry { after }) => {
                ("managed_identity_busy", Scope::Passing, after, "if it stays, look at the host's agent")
            }
            _ => (
                "managed_identity_refused",
                Scope::App,
                None,
                "assign this user-assigned identity to the host, and check the id in `managed_identity`",
            ),
        };
        let trouble = Trouble { needs_operator: scope == Scope::App, ..Trouble::for_operator(kind, cause, remedy) };
        Self::new(Problem::Identity(error), kind, scope, after, trouble)
    }

    pub(super) fn too_soon() -> Self {
        let trouble = Trouble::passing("too_soon", "the last request for a token was less than half a minute ago");
        Self::new(Problem::TooSoon, "too_soon", Scope::Passing, None, trouble)
    }

    /// The token endpoint asked an earlier process, or an earlier source, for a wait.
    pub(super) fn asked_to_wait() -> Self {
        let trouble = Trouble::passing("asked_to_wait", "the token endpoint asked for a wait that is not over yet");
        Self::new(Problem::TooSoon, "asked_to_wait", Scope::Passing, None, trouble)
    }

    pub(super) fn ended() -> Self {
        let trouble = Trouble::passing("ended", "the request for a token ended without a result");
        Self::new(Problem::Ended, "ended", Scope::Passing, None, trouble)
    }

    fn new(problem: Problem, kind: &'static str, scope: Scope, after: Option<Duration>, trouble: Trouble) -> Self {
        let advice = match scope {
            Scope::Passing => Advice::Retry { after },
            // Until another tenant has met the same, an app's trouble is believed to be this tenant's.
            Scope::App | Scope::Tenant => Advice::PauseTenant,
        };
        let asked = after.map(|asked| asked.min(LONGEST_ASKED));
        Self { problem: Arc::new(problem), kind, scope, advice, asked, trouble: Arc::new(trouble) }
    }

    /// The correlation id that we chose, where Entra's answer brought none.
    #[must_use]
    pub(super) fn or_correlation_id(mut self, id: Uuid) -> Self {
        let trouble = Arc::make_mut(&mut self.trouble);
        trouble.correlation_id.get_or_insert_with(|| id.to_string());
        self
    }
}
