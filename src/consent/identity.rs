//! Who has signed in: the code that a browser brought is traded at the authority, and what that signed is validated.

use super::address::Challenge;
use super::callback::Callback;
use super::case::Case;
use super::desk::Desk;
use super::ending::Ending;
use super::id_token::{self, Expected, SignedIn, Untrusted};
use super::legacy;
use crate::cloud::TokenEndpoint;
use crate::report::Trouble;
use crate::secret::Secret;
use crate::token::{Redeemed, Redemption, TokenError};

impl Desk {
    pub(super) async fn redeem(
        &self,
        case: &Case,
        callback: &Callback,
        challenge: &Challenge,
    ) -> Result<Redeemed, Ending> {
        let code = callback.code().map_err(|refused| Ending::of_refusal(&refused, &case.subject(None)))?;
        let code = code.ok_or(Ending::NotBegunHere)?;
        let redirect_uri = case.redirect_uri();
        let mut fields = vec![("grant_type", "authorization_code"), ("redirect_uri", redirect_uri.as_str())];
        match case.flow() {
            TokenEndpoint::V2 => fields.push(("scope", "openid profile")),
            TokenEndpoint::V1 => fields.push(("resource", case.cloud.audience())),
        }
        let secrets = [("code", &code), ("code_verifier", &challenge.verifier)];
        let what = Redemption { endpoint: case.flow(), tenant: None, fields: &fields, secrets: &secrets };
        self.redeemer.redeem(&case.applicant(), what).await.map_err(|error| of_token_error(&error))
    }

    /// Whose administrator has signed in, by what the authority signed.
    pub(super) async fn identify(
        &self,
        case: &Case,
        token: Option<&Secret>,
        challenge: &Challenge,
    ) -> Result<SignedIn, Ending> {
        let untrusted = |untrusted: &Untrusted| of_untrusted(untrusted);
        let Some(token) = token else { return Err(untrusted(&Untrusted::Malformed)) };
        let key = id_token::key_id(token).map_err(|error| untrusted(&error))?;
        let keys = self
            .keys
            .with(&case.cloud, &key)
            .await
            .map_err(|error| Ending::Unavailable(Box::new(Trouble::passing("signing_keys", error.to_string()))))?;
        let expected = Expected {
            cloud: &case.cloud,
            client_id: &case.app.client_id,
            nonce: &challenge.nonce,
            now: self.with.time.now(),
        };
        id_token::validate(token, &keys, &expected).map_err(|error| untrusted(&error))
    }

    /// The same with the flow of 2019, by the access token that the authority gave.
    pub(super) fn identify_by_access(&self, case: &Case, token: Option<&Secret>) -> Result<SignedIn, Ending> {
        let expected = legacy::Expected {
            client_id: &case.app.client_id,
            audience: case.cloud.audience(),
            now: self.with.time.now(),
        };
        legacy::read(token, &expected).map_err(|untrusted| of_untrusted(&untrusted))
    }
}

fn of_untrusted(untrusted: &Untrusted) -> Ending {
    match untrusted {
        Untrusted::Personal => Ending::Personal,
        other => Ending::Untrusted { why: other.to_string() },
    }
}

fn of_token_error(error: &TokenError) -> Ending {
    let trouble = Box::new(error.trouble());
    if trouble.needs_operator { Ending::Refused(trouble) } else { Ending::Unavailable(trouble) }
}
