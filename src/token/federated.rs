//! Tokens of somebody else that prove the app ("Workload identity federation"): the app registration trusts an issuer's
//! statement about a subject, and no secret of the app exists.
//!
//! The statement is a JWT that Kubernetes, a CI system or Azure's managed identity signs. It goes to the token endpoint in
//! the place of the app's own assertion. What signs it is none of our business; what it says of itself is told when Entra
//! does not accept it, because that has to be compared, letter by letter, with what the app registration trusts.
//!
//! **Invariant:** a token's claims may be shown, the token never is.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::TokenError;
use super::identity::ManagedIdentity;
use crate::secret::Secret;

/// Far more than any issuer's tokens have.
const LARGEST: u64 = 64 * 1024;
/// How long reading a file may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A claim is shown up to this many characters.
const LONGEST_CLAIM: usize = 200;

/// Where the tokens of an app come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Federated {
    /// A file that somebody else keeps fresh. It is read for each request, since it is replaced without a word.
    File(PathBuf),
    /// A user-assigned managed identity of this host.
    Identity(Arc<ManagedIdentity>),
}

impl Federated {
    /// A token for `audience`, which Entra's authority takes in place of an assertion; `now` is the service's time.
    pub(super) async fn token(&self, audience: &str, now: Timestamp) -> Result<Borrowed, TokenError> {
        match self {
            Self::File(path) => {
                let from = path.clone();
                // A file system that hangs must not hold the tenant's requests for ever.
                let reading = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || read(&from)));
                let read = match reading.await {
                    Ok(Ok(read)) => read,
                    Ok(Err(ended)) => Err(Unfit::Failed(io::Error::other(ended))),
                    Err(_) => Err(Unfit::Failed(io::ErrorKind::TimedOut.into())),
                };
                read.map_err(|unfit| TokenError::federated_file(path, unfit))
            }
            Self::Identity(identity) => identity.token(audience, now).await,
        }
    }

    /// What keeps the tokens fresh, for whoever has to look after it.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::File(path) => format!("what writes `{}`", path.display()),
            Self::Identity(identity) => format!("the managed identity {}", identity.name()),
        }
    }

    /// Entra did not take the last one: it is not used again.
    pub(super) async fn refused(&self) {
        match self {
            Self::File(_) => {}
            Self::Identity(identity) => identity.forget().await,
        }
    }
}

/// A token of somebody else, and what it says of itself.
#[derive(Debug, Clone)]
pub(super) struct Borrowed {
    pub(super) token: Secret,
    pub(super) claims: Claims,
}

impl Borrowed {
    /// Takes a text for a token; what surrounds it is left out.
    pub(super) fn new(text: &str) -> Result<Self, Unfit> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        if text.is_empty() {
            return Err(Unfit::Empty);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(seal), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Unfit::NoJwt);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Unfit::NoJwt);
        serde_json::from_slice::<serde_json::Map<String, Value>>(&decode(header)?).map_err(|_| Unfit::NoJwt)?;
        decode(seal)?;
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Unfit::NoJwt)?;
        Ok(Self { token: Secret::from(text.to_owned()), claims })
    }
}

/// What Entra compares with the app registration. Not verified: it is Entra that must believe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    iss: Option<Value>,
    sub: Option<Value>,
    aud: Option<Value>,
    nbf: Option<Value>,
    exp: Option<Value>,
}

impl Claims {
    /// Whether the token is for `audience` and nobody else.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Some(Value::String(aud)) => aud == audience,
            Some(Value::Array(all)) => all.as_slice() == [Value::from(audience)],
            _ => false,
        }
    }

    /// From when to when it is good, as far as it says.
    pub(super) fn validity(&self) -> String {
        let at = |claim: &Option<Value>| {
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough, and a cast saturates")]
            let seconds = claim.as_ref()?.as_f64()? as i64;
            Some(format!("{:.0}", Timestamp::from_second(seconds).ok()?))
        };
        match (at(&self.nbf), at(&self.exp)) {
            (Some(from), Some(until)) => format!("it is good from {from} to {until}"),
            (None, Some(until)) => format!("it is good until {until}"),
            _ => "it does not say until when it is good".to_owned(),
        }
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |claim: &Option<Value>| {
            let text = match claim {
                None => return "none".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            let short: String = text.chars().filter(|one| !one.is_control()).take(LONGEST_CLAIM).collect();
            format!("`{short}`")
        };
        let Self { iss, sub, aud, .. } = self;
        write!(f, "issuer {}, subject {}, audience {}", shown(iss), shown(sub), shown(aud))
    }
}

/// Why there is no token in a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("is not there")]
    Missing,
    #[error("may not be read")]
    Denied,
    #[error("is no file")]
    Special,
    #[error("cannot be read")]
    Failed(#[source] io::Error),
    #[error("is empty")]
    Empty,
    #[error("is larger than 64 KiB")]
    TooLarge,
    #[error("holds no JWT")]
    NoJwt,
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Failed(error),
        }
    }
}

/// Reads the token in a file. A FIFO or a device would never end.
fn read(path: &Path) -> Result<Borrowed, Unfit> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unfit::Special);
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > LARGEST => Err(Unfit::TooLarge),
        Ok(_) => Borrowed::new(&text),
        // What is no UTF-8 is no JWT.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Unfit::NoJwt),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwt(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{}", part(&json!({"alg": "RS256"})), part(claims), URL_SAFE_NO_PAD.encode("signature"))
    }

    #[test]
    fn a_token_says_of_itself_what_entra_compares() {
        let text = jwt(&json!({"iss": "https://k8s.example", "sub": "system:serviceaccount:a:b",
                               "aud": ["api://AzureADTokenExchange"], "nbf": 1_795_348_800, "exp": 1_795_352_400.5}));
        let borrowed = Borrowed::new(&format!("\u{feff}{text}\r\n")).unwrap();
        assert_eq!(borrowed.token.expose(), text, "without what editors add");
        assert_eq!(
            borrowed.claims.to_string(),
            "issuer `https://k8s.example`, subject `system:serviceaccount:a:b`, audience `[\"api://AzureADTokenExchange\"]`"
        );
        assert!(borrowed.claims.is_for("api://AzureADTokenExchange") && !borrowed.claims.is_for("api://other"));
        assert_eq!(borrowed.claims.validity(), "it is good from 2026-11-22T12:00:00Z to 2026-11-22T13:00:00Z");
        assert!(!format!("{borrowed:?}").contains(&text[20..40]), "{borrowed:?}");
        let silent = Borrowed::new(&jwt(&json!({"sub": "a\u{1b}[2Jb"}))).unwrap();
        assert_eq!(silent.claims.to_string(), "issuer none, subject `a[2Jb`, audience none");
        assert_eq!(silent.claims.validity(), "it does not say until when it is good");
    }

    #[test]
    fn a_file_without_a_token_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let told = |path: &Path| read(path).unwrap_err().to_string();
        assert_eq!(told(&path), "is not there");
        assert_eq!(told(&path.join("below")), "is not there");
        assert_eq!(told(folder.path()), "is no file");
        let large = "x".repeat(64 * 1024 + 1);
        for (content, expected) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"hunter2", "holds no JWT"),
            (b"a.b.c", "holds no JWT"),
            (b"\xFF\xFE", "holds no JWT"),
            (large.as_bytes(), "is larger than 64 KiB"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(told(&path), expected);
        }
        std::fs::write(&path, jwt(&json!({"iss": "i"}))).unwrap();
        read(&path).unwrap();
    }
}
