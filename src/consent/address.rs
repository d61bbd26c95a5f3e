//! The addresses that a browser is sent to, and the one at which Microsoft sends it back.
//!
//! Sources: "OAuth 2.0 authorization code flow", "Admin consent on the Microsoft identity platform", "Get started with
//! Office 365 Management APIs" (v1). Each cloud has a redirect URI of its own, because Entra's answers do not say which
//! authority they come from: a code cannot be brought to another one than the one it was made for.
//!
//! **Invariant:** hosts come from the table of clouds and from `[public] url`, never from a request.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use crate::cloud::{Cloud, TokenEndpoint};
use crate::content::TenantId;
use crate::secret::Secret;

/// Where the pages are, beneath `[public] url`.
pub const ONBOARD: &str = "/onboard";
/// Where Microsoft sends browsers back to; the cloud's name follows.
pub const CALLBACK: &str = "/consent/callback";

/// One sign-in: what only the browser that began it can bring back, and what only we can redeem.
#[derive(Debug, Clone)]
pub(super) struct Challenge {
    /// Comes back with the browser.
    pub(super) state: Secret,
    /// Comes back in the `id_token`.
    pub(super) nonce: Secret,
    /// Redeems the code ("Proof Key for Code Exchange", RFC 7636).
    pub(super) verifier: Secret,
}

impl Challenge {
    pub(super) fn new() -> Self {
        Self { state: Secret::random(), nonce: Secret::random(), verifier: Secret::random() }
    }

    /// What is told of the verifier beforehand.
    fn of_verifier(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.expose().as_bytes()))
    }
}

/// The link of an invite.
#[must_use]
pub fn link(base: &Url, secret: &Secret) -> Url {
    beneath(base, &[ONBOARD.trim_start_matches('/'), secret.expose()])
}

/// The redirect URI of a cloud, as the app registration must have it.
#[must_use]
pub fn redirect_uri(base: &Url, cloud: &str) -> Url {
    let mut segments: Vec<_> = CALLBACK.split('/').skip(1).collect();
    segments.push(cloud);
    beneath(base, &segments)
}

fn beneath(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Where the administrator signs in. With v1 the consent is asked for in the same step.
pub(super) fn sign_in(
    cloud: &Cloud,
    flow: TokenEndpoint,
    client_id: &str,
    redirect_uri: &Url,
    challenge: &Challenge,
) -> Url {
    let mut url = cloud.authorize(flow);
    {
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", redirect_uri.as_str())
            .append_pair("response_mode", "query");
        match flow {
            TokenEndpoint::V2 => query.append_pair("scope", "openid profile").append_pair("prompt", "select_account"),
            TokenEndpoint::V1 => query.append_pair("resource", cloud.audience()).append_pair("prompt", "admin_consent"),
        };
        query
            .append_pair("state", challenge.state.expose())
            .append_pair("nonce", challenge.nonce.expose())
            .append_pair("code_challenge", &challenge.of_verifier())
            .append_pair("code_challenge_method", "S256");
    }
    url
}

/// Where the administrator of this very tenant consents to all that the app registration asks for.
pub(super) fn admin_consent(
    cloud: &Cloud,
    tenant: TenantId,
    client_id: &str,
    redirect_uri: &Url,
    state: &Secret,
) -> Url {
    let mut url = cloud.admin_consent(tenant);
    url.query_pairs_mut()
        .append_pair("client_id", client_id)
        .append_pair("scope", &format!("{}/.default", cloud.audience()))
        .append_pair("redirect_uri", redirect_uri.as_str())
        .append_pair("state", state.expose());
    url
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn secret(text: &str) -> Secret {
        text.to_owned().into()
    }

    fn query(url: &Url) -> BTreeMap<String, String> {
        url.query_pairs().into_owned().collect()
    }

    #[test]
    fn a_browser_is_sent_where_the_documents_say() {
        let cloud = Cloud::preset("gcc_high").unwrap();
        let base = Url::parse("https://collector.example:8443/").unwrap();
        let redirect = redirect_uri(&base, &cloud.name);
        assert_eq!(redirect.as_str(), "https://collector.example:8443/consent/callback/gcc_high");
        assert_eq!(link(&base, &secret("abc-_")).as_str(), "https://collector.example:8443/onboard/abc-_");
        // The example of RFC 7636, appendix B.
        let challenge = Challenge {
            state: secret("s"),
            nonce: secret("n"),
            verifier: secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        };
        let v2 = sign_in(&cloud, TokenEndpoint::V2, "app", &redirect, &challenge);
        assert!(v2.as_str().starts_with("https://login.microsoftonline.us/organizations/oauth2/v2.0/authorize?"));
        let expected = [
            ("client_id", "app"),
            ("response_type", "code"),
            ("redirect_uri", "https://collector.example:8443/consent/callback/gcc_high"),
            ("response_mode", "query"),
            ("scope", "openid profile"),
            ("prompt", "select_account"),
            ("state", "s"),
            ("nonce", "n"),
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(query(&v2), expected);
        let v1 = sign_in(&cloud, TokenEndpoint::V1, "app", &redirect, &challenge);
        assert!(v1.as_str().starts_with("https://login.microsoftonline.us/common/oauth2/authorize?"));
        let query_v1 = query(&v1);
        assert_eq!(query_v1["resource"], "https://manage.office365.us");
        assert_eq!(query_v1["prompt"], "admin_consent");
        assert!(!query_v1.contains_key("scope") && !v1.as_str().contains(challenge.verifier.expose()));

        let tenant = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        let consent = admin_consent(&cloud, tenant, "app", &redirect, &secret("t"));
        assert_eq!(
            consent.as_str(),
            "https://login.microsoftonline.us/11111111-2222-3333-4444-555555555555/v2.0/adminconsent?client_id=app\
             &scope=https%3A%2F%2Fmanage.office365.us%2F.default\
             &redirect_uri=https%3A%2F%2Fcollector.example%3A8443%2Fconsent%2Fcallback%2Fgcc_high&state=t"
        );
    }

    #[test]
    fn a_clouds_name_stays_one_part_of_the_path() {
        let base = Url::parse("https://collector.example").unwrap();
        assert_eq!(redirect_uri(&base, "a/../b c").path(), "/consent/callback/a%2F..%2Fb%20c");
    }
}
