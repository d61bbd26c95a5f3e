//! What a browser brought is traded for what the authority says: an authorization code for an `id_token`.
//!
//! The trade goes to the authority's endpoint for all organisations, since whose code it is becomes known only by it. Its
//! answer is not judged here: whoever asked for it validates the `id_token`.
//!
//! A person waits, so that a certificate which Entra does not know yet, and a host's clock that Entra's answer has just
//! set right, are overcome at once; everything else is the caller's decision ([`TokenError::advice`]).

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::answer::{self, NoGrant, Unusable};
use super::applicant::{Applicant, Question, Wire};
use super::endpoint::{Incoming, Transport};
use super::{AppAlarms, TokenError};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::TokenEndpoint;
use crate::content::TenantId;
use crate::http::Pool;
use crate::secret::Secret;

/// An app has two certificates while one replaces another, and a clock is set right once.
const ATTEMPTS: usize = 4;

/// What is traded.
#[derive(Debug, Clone, Copy)]
pub struct Redemption<'a> {
    /// v2: `/organizations/oauth2/v2.0/token`; v1: `/common/oauth2/token`.
    pub endpoint: TokenEndpoint,
    /// The tenant that is expected, for the words of a refusal.
    pub tenant: Option<TenantId>,
    /// The fields of the form beside `client_id` and what proves the app: `grant_type`, `redirect_uri`, `scope`.
    pub fields: &'a [(&'a str, &'a str)],
    /// Those that no error may repeat: `code`, `code_verifier`.
    pub secrets: &'a [(&'a str, &'a Secret)],
}

/// What the authority gave.
pub struct Redeemed {
    /// Who signed in, not validated.
    pub id_token: Option<Secret>,
    /// A token of the person who signed in.
    pub access_token: Option<Secret>,
    /// What it may be used for.
    pub scope: Option<String>,
}

impl fmt::Debug for Redeemed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redeemed").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Trades in the name of apps; cheap to clone.
#[derive(Debug, Clone)]
pub struct Redeemer {
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    time: Arc<ServiceTime>,
    apps: Arc<AppAlarms>,
}

impl Redeemer {
    /// `http` is [`Http::control`](crate::http::Http::control), `time` the process's: each cloud has its own in it.
    #[must_use]
    pub fn new(http: Pool, clock: SharedClock, time: Arc<ServiceTime>, apps: Arc<AppAlarms>) -> Self {
        Self { transport: Arc::new(http), clock, time, apps }
    }

    #[cfg(test)]
    pub(super) fn with_transport(
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        time: Arc<ServiceTime>,
        apps: Arc<AppAlarms>,
    ) -> Self {
        Self { transport, clock, time, apps }
    }

    /// Trades once.
    ///
    /// # Errors
    /// As a token request's: refused, unreachable, or an answer without a token.
    pub async fn redeem(&self, who: &Applicant, what: Redemption<'_>) -> Result<Redeemed, TokenError> {
        let wire = Wire {
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            time: who.cloud.time(&self.time),
        };
        let url = who.cloud.shared_token_endpoint(what.endpoint);
        let secrets = what.secrets.iter().map(|(name, secret)| (*name, secret.expose()));
        let fields: Vec<_> = what.fields.iter().copied().chain(secrets.clone()).collect();
        let concealed: Vec<_> = secrets.map(|(_, secret)| secret).collect();
        let question = Question {
            url: &url,
            fields: &fields,
            concealed: &concealed,
            tenant: what.tenant,
            audience: who.cloud.audience(),
        };
        let rollover = self.apps.rollover(who);
        let mut attempts = 1;
        loop {
            match wire.ask(who, question, &rollover, read).await {
                Err(error) if error.is_overcome() && attempts < ATTEMPTS => attempts += 1,
                outcome => return outcome,
            }
        }
    }
}

#[derive(Deserialize)]
struct Fields {
    id_token: Option<String>,
    access_token: Option<String>,
    scope: Option<String>,
    error: Option<serde_json::Value>,
}

fn read(incoming: &Incoming, _now: jiff::Timestamp, concealed: &[&str]) -> Result<Redeemed, NoGrant> {
    let refused = || NoGrant::Refused(Box::new(answer::refusal(incoming, concealed)));
    if incoming.status != 200 {
        return Err(refused());
    }
    let Ok(fields) = serde_json::from_slice::<Fields>(&incoming.body) else { return Err(refused()) };
    let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::from);
    let redeemed =
        Redeemed { id_token: text(fields.id_token), access_token: text(fields.access_token), scope: fields.scope };
    match (&redeemed, fields.error) {
        (Redeemed { id_token: None, access_token: None, .. }, Some(_)) => Err(refused()),
        (Redeemed { id_token: None, access_token: None, .. }, None) => Err(NoGrant::Unusable(Unusable::NoToken)),
        _ => Ok(redeemed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::SharedClock;
    use crate::cloud::Cloud;
    use crate::token::testing::{self, Bench, Seen, answered, refused};
    use crate::token::{Certificate, Credential, Signing};

    const CODE: &str = "0.AXoA-the-code";

    fn applicant(credential: Credential) -> Applicant {
        Applicant {
            cloud: Arc::new(Cloud::preset("worldwide").unwrap()),
            app: String::new(),
            client_id: "client".to_owned(),
            credential,
        }
    }

    fn redeemer(bench: &Bench) -> Redeemer {
        let clock = Arc::clone(&bench.clock) as SharedClock;
        let transport = Arc::clone(&bench.entra) as Arc<dyn Transport>;
        Redeemer::with_transport(transport, clock, Arc::clone(&bench.time), Arc::clone(&bench.apps))
    }

    async fn redeem(bench: &Bench, who: &Applicant, endpoint: TokenEndpoint) -> Result<Redeemed, TokenError> {
        let fields = [("grant_type", "authorization_code"), ("redirect_uri", "https://c.example/consent/callback/w")];
        let (code, verifier) = (Secret::from(CODE.to_owned()), Secret::from("the verifier".to_owned()));
        let secrets = [("code", &code), ("code_verifier", &verifier)];
        redeemer(bench).redeem(who, Redemption { endpoint, tenant: None, fields: &fields, secrets: &secrets }).await
    }

    fn pair(subject: &str) -> Arc<Certificate> {
        let pair = testing::pair(subject);
        Arc::new(Certificate::from_pem(pair.certificate.as_bytes(), Some(pair.key.as_bytes())).unwrap())
    }

    /// The thumbprint in the assertion's header.
    fn signer(seen: &Seen) -> String {
        use base64::Engine as _;
        let header = seen.field("client_assertion").unwrap().split('.').next().unwrap().to_owned();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["x5t#S256"].as_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_is_traded_at_the_endpoint_for_all_organisations() {
        let bench = Bench::new(|_, _| {
            answered(
                200,
                &json!({"token_type": "Bearer", "expires_in": "3599", "scope": "openid", "access_token": "eyJ.a",
                        "id_token": "eyJ.i", "refresh_token": "never kept"}),
            )
        });
        let who = applicant(Credential::Secret(Secret::from(testing::SECRET.to_owned())));
        for (endpoint, path) in
            [(TokenEndpoint::V2, "/organizations/oauth2/v2.0/token"), (TokenEndpoint::V1, "/common/oauth2/token")]
        {
            let redeemed = redeem(&bench, &who, endpoint).await.unwrap();
            assert_eq!(redeemed.id_token.as_ref().unwrap().expose(), "eyJ.i");
            assert_eq!(redeemed.access_token.as_ref().unwrap().expose(), "eyJ.a");
            assert_eq!(format!("{redeemed:?}"), "Redeemed { scope: Some(\"openid\"), .. }");
            let seen = bench.seen().pop().unwrap();
            assert_eq!(seen.path, path);
            for (field, value) in [
                ("client_id", "client"),
                ("grant_type", "authorization_code"),
                ("code", CODE),
                ("code_verifier", "the verifier"),
                ("client_secret", testing::SECRET),
            ] {
                assert_eq!(seen.field(field), Some(value), "{field}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_certificate_proves_the_app_while_someone_waits() {
        let (old, new) = (pair("old"), pair("new"));
        let known = old.x5t_s256().to_owned();
        let bench = Bench::new(move |_, seen| {
            if signer(seen) == known { answered(200, &json!({"id_token": "eyJ.i"})) } else { refused(700_027) }
        });
        // Both begin in the same second, so that either may be first.
        let who = applicant(Credential::certificates(vec![new, Arc::clone(&old)], Signing::Ps256).unwrap());
        redeem(&bench, &who, TokenEndpoint::V2).await.unwrap();
        assert!(bench.requests() <= 2, "{}", bench.requests());
        let unknown = applicant(Credential::certificates(vec![pair("a"), pair("b")], Signing::Ps256).unwrap());
        let before = bench.requests();
        let error = redeem(&bench, &unknown, TokenEndpoint::V2).await.unwrap_err();
        assert_eq!((error.kind(), bench.requests() - before), ("certificate_unknown", 2), "each of them, once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_what_to_do_and_repeats_nothing() {
        let bench = Bench::new(|number, _| match number {
            0 => answered(
                400,
                &json!({"error": "invalid_grant", "error_codes": [70_008],
                        "error_description": format!("AADSTS70008: the code {CODE} has expired")}),
            ),
            1 => answered(400, &json!({"error": "novelty", "error_description": format!("{CODE} the verifier")})),
            2 => answered(200, &json!({"token_type": "Bearer"})),
            _ => answered(400, &json!({"error": "invalid_grant", "error_codes": [50_034]})),
        });
        let who = applicant(Credential::Secret(Secret::from(testing::SECRET.to_owned())));
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let error = redeem(&bench, &who, TokenEndpoint::V2).await.unwrap_err();
            let told = format!("{error:?} {}", error.trouble());
            for secret in [CODE, "the verifier", testing::SECRET, "{"] {
                assert!(!error.trouble().to_string().contains(secret), "{told}");
            }
            assert!(!told.contains(CODE) && !told.contains("the verifier"), "{told}");
            kinds.push(error.kind());
        }
        assert_eq!(kinds, ["code_spent", "entra_unknown", "token_unusable", "sign_in_account"]);
    }
}
