//! What an access token says of itself, for a person who looks for a cause.
//!
//! By contract an access token is opaque to the one who presents it, so that nothing is decided by this: a token that
//! cannot be read here is as good as any.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// What is looked for in a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The application permissions that it carries.
    #[serde(default)]
    pub roles: Vec<String>,
    /// For whom it is.
    #[serde(default)]
    pub aud: Option<String>,
    /// Whose data it opens.
    #[serde(default)]
    pub tid: Option<String>,
}

/// Reads them from a token that is a JWT; `None` if it is none.
pub(super) fn read(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_is_read_and_the_rest_is_opaque() {
        let token = |payload: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload));
        let claims = read(&token(r#"{"aud":"a","tid":"t","roles":["ActivityFeed.Read"],"ver":"1.0"}"#)).unwrap();
        assert_eq!((claims.aud.as_deref(), claims.tid.as_deref()), (Some("a"), Some("t")));
        assert_eq!(claims.roles, ["ActivityFeed.Read"]);
        assert_eq!(read(&token("{}")), Some(Claims::default()), "a token without a role is a token");
        for opaque in ["", "EwBwA8l6", "a.b.c", "a.b", &token("1"), &token(r#"{"roles":"x"}"#)] {
            assert_eq!(read(opaque), None, "{opaque}");
        }
    }
}
