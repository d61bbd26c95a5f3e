//! Authorization codes: what they are bound to, and what is checked when one is redeemed.

use std::time::Duration;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use super::Directory;
use super::asking::Asking;
use super::people::Account;
use super::refusal::Refusal;
use crate::world::State;

/// Bytes of a code; those of Entra have some hundred characters.
const SIZE: usize = 480;

/// What a code stands for.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(super) account: Account,
    pub(super) nonce: Option<String>,
    /// Of the v1 endpoint.
    pub(super) resource: Option<String>,
    /// Of the v2 endpoint.
    pub(super) scope: String,
    pub(super) version: u8,
    client: Uuid,
    directory: Directory,
    redirect_uri: String,
    /// The PKCE challenge, and whether it is a digest.
    challenge: Option<(String, bool)>,
    issued: Timestamp,
    redeemed: bool,
}

/// How a code is redeemed.
pub(super) struct Redeemer<'a> {
    pub(super) client: Uuid,
    pub(super) directory: Directory,
    pub(super) redirect_uri: &'a str,
    pub(super) verifier: Option<&'a str>,
    pub(super) now: Timestamp,
}

impl Code {
    /// The code for somebody who has signed in.
    pub(super) fn new(asking: &Asking, account: &Account) -> Self {
        let text = |name: &str| asking.given(name).map(str::to_owned);
        let digested = asking.given("code_challenge_method") == Some("S256");
        Self {
            account: account.clone(),
            nonce: text("nonce"),
            resource: text("resource"),
            scope: text("scope").unwrap_or_default(),
            version: asking.version,
            client: asking.app_id,
            directory: asking.directory,
            redirect_uri: asking.redirect_uri.clone(),
            challenge: text("code_challenge").map(|challenge| (challenge, digested)),
            issued: asking.now,
            redeemed: false,
        }
    }

    pub(super) fn has_challenge(&self) -> bool {
        self.challenge.is_some()
    }

    /// What Entra would find wrong, in its order.
    fn check(&self, redeemer: &Redeemer<'_>, lifetime: Duration) -> Result<(), Refusal> {
        if self.client != redeemer.client {
            return Err(Refusal::with(
                70000,
                "The provided value for the 'code' parameter was issued to another client.",
            ));
        }
        if self.directory != redeemer.directory {
            return Err(Refusal::with(
                700_005,
                "The provided Authorization Code is intended to be used against another tenant. It must be redeemed against the tenant it was acquired for (/common or /{tenant-ID} as appropriate).",
            ));
        }
        if self.redeemed {
            return Err(Refusal::with(
                54005,
                "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.",
            ));
        }
        if redeemer.now.duration_since(self.issued).unsigned_abs() >= lifetime {
            return Err(Refusal::with(
                70008,
                format!(
                    "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource. It was issued on {}.",
                    self.issued
                ),
            ));
        }
        if self.redirect_uri != redeemer.redirect_uri {
            return Err(Refusal::with(
                500_112,
                format!(
                    "The reply address '{}' does not match the reply address '{}' provided when requesting Authorization code.",
                    redeemer.redirect_uri, self.redirect_uri
                ),
            ));
        }
        let fits = match (&self.challenge, redeemer.verifier) {
            (None, None) => true,
            (Some((challenge, true)), Some(verifier)) => *challenge == digested(verifier),
            (Some((challenge, false)), Some(verifier)) => challenge == verifier,
            _ => false,
        };
        if fits { Ok(()) } else { Err(Refusal::new(501_481)) }
    }
}

fn digested(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Text that nobody can guess, as long as a code of Entra.
fn opaque() -> String {
    let mut bytes = [0; SIZE];
    // The library fails only where the system has no randomness at all.
    rand::fill(&mut bytes).expect("the system gives random bytes");
    format!("1.{}", URL_SAFE_NO_PAD.encode(bytes))
}

impl State {
    /// Gives out a code.
    pub(super) fn issue(&mut self, code: Code) -> String {
        let text = opaque();
        self.codes.insert(text.clone(), code);
        text
    }

    /// Takes a code, once.
    pub(super) fn redeem(&mut self, text: &str, redeemer: &Redeemer<'_>) -> Result<Code, Refusal> {
        let lifetime = Duration::from_secs(self.entra.code_lifetime_s);
        let code = self.codes.get_mut(text).ok_or_else(|| Refusal::new(70000))?;
        code.check(redeemer, lifetime)?;
        code.redeemed = true;
        Ok(code.clone())
    }

    /// Gives out a refresh token for what a code stood for.
    pub(super) fn issue_refresh_token(&mut self, code: &Code) -> String {
        let text = opaque();
        // The nonce was for the one sign-in.
        self.refresh_tokens.insert(text.clone(), Code { nonce: None, ..code.clone() });
        text
    }

    /// What a client's refresh token stands for.
    pub(super) fn refreshed(&self, text: &str, client: Uuid) -> Result<Code, Refusal> {
        let known = self.refresh_tokens.get(text).filter(|code| code.client == client);
        known.cloned().ok_or_else(|| Refusal::new(70000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::people::personal;

    const CLIENT: Uuid = Uuid::from_u128(1);

    fn code() -> Code {
        Code {
            account: personal(),
            nonce: None,
            resource: None,
            scope: "openid".to_owned(),
            version: 2,
            client: CLIENT,
            directory: Directory::Organizations,
            redirect_uri: "https://app.example/back".to_owned(),
            // RFC 7636, appendix B.
            challenge: Some(("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(), true)),
            issued: Timestamp::UNIX_EPOCH,
            redeemed: false,
        }
    }

    fn redeemer() -> Redeemer<'static> {
        Redeemer {
            client: CLIENT,
            directory: Directory::Organizations,
            redirect_uri: "https://app.example/back",
            verifier: Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            now: Timestamp::from_second(599).unwrap(),
        }
    }

    #[test]
    fn a_code_is_taken_only_as_it_was_given() {
        let refused = |code: &Code, redeemer: &Redeemer<'_>| {
            code.check(redeemer, Duration::from_mins(10)).err().map_or(0, |refusal| refusal.code)
        };
        assert_eq!(refused(&code(), &redeemer()), 0);
        assert_eq!(refused(&code(), &Redeemer { client: Uuid::from_u128(2), ..redeemer() }), 70000);
        assert_eq!(refused(&code(), &Redeemer { directory: Directory::Common, ..redeemer() }), 700_005);
        assert_eq!(refused(&code(), &Redeemer { redirect_uri: "https://app.example/", ..redeemer() }), 500_112);
        assert_eq!(refused(&code(), &Redeemer { verifier: None, ..redeemer() }), 501_481);
        assert_eq!(refused(&code(), &Redeemer { verifier: Some("guess"), ..redeemer() }), 501_481);
        assert_eq!(refused(&Code { challenge: None, ..code() }, &redeemer()), 501_481, "a challenge taken away");
        assert_eq!(refused(&Code { redeemed: true, ..code() }, &redeemer()), 54005);
        let late = Redeemer { now: Timestamp::from_second(600).unwrap(), ..redeemer() };
        assert_eq!(refused(&code(), &late), 70008);
    }
}
