//! Refusals of the token endpoint: codes, their status and `error`, and the body's shape.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::http::Response;
use crate::seed::guid;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The number after AADSTS.
    pub(crate) code: u32,
    /// The text after the code; empty: the usual one.
    pub(crate) text: String,
}

/// Code, `error`, status and usual text of what the token endpoint refuses.
const TABLE: &[(u32, &str, u16, &str)] = &[
    (50001, "invalid_resource", 400, "The resource principal is disabled or was not found in the tenant."),
    (
        50011,
        "invalid_client",
        400,
        "The redirect URI specified in the request does not match the redirect URIs configured for the application.",
    ),
    (50012, "invalid_client", 401, "Authentication failed: the assertion could not be verified."),
    (50013, "invalid_client", 401, "Assertion failed signature validation."),
    (50020, "invalid_grant", 400, "The user account from the identity provider does not exist in the tenant."),
    (50027, "invalid_request", 400, "JWT token is invalid or malformed."),
    (50033, "temporarily_unavailable", 503, "A retryable error has occurred."),
    (50034, "invalid_grant", 400, "The user account does not exist in the directory."),
    (50049, "invalid_instance", 400, "Unknown or invalid instance."),
    (50058, "login_required", 400, "A silent sign-in request was sent but no user is signed in."),
    (
        50059,
        "invalid_request",
        400,
        "No tenant-identifying information found in either the request or implied by any provided credentials.",
    ),
    (50087, "temporarily_unavailable", 503, "A transient error has occurred during sign-out."),
    (
        50194,
        "invalid_request",
        400,
        "The application is not configured as a multi-tenant application. Usage of the /common endpoint is not supported.",
    ),
    (50196, "invalid_request", 400, "The server terminated an operation because it encountered a client request loop."),
    (
        53003,
        "invalid_grant",
        400,
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
    ),
    (53011, "invalid_grant", 400, "Blocked by the identity's risk."),
    (54005, "invalid_grant", 400, "The OAuth2 authorization code was already redeemed."),
    (65001, "invalid_grant", 400, "The user or administrator has not consented to use the application."),
    (65004, "access_denied", 400, "User declined to consent to access the app."),
    (70000, "invalid_grant", 400, "Provided grant is invalid or malformed."),
    (70001, "unauthorized_client", 400, "The application is not supported or was not found in the tenant."),
    (70003, "unsupported_grant_type", 400, "The app requested an unsupported grant type."),
    (70008, "invalid_grant", 400, "The provided authorization code or refresh token has expired due to inactivity."),
    (70011, "invalid_scope", 400, "The provided value for the input parameter 'scope' is not valid."),
    (70021, "invalid_client", 401, "No matching federated identity record found for presented assertion."),
    (
        90002,
        "invalid_request",
        400,
        "Tenant not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
    ),
    (90006, "temporarily_unavailable", 503, "External server retryable error."),
    (90012, "temporarily_unavailable", 503, "The request has timed out."),
    (90014, "invalid_request", 400, "The required field is missing from the credential."),
    (90023, "invalid_request", 400, "Unsupported 'prompt' value."),
    (90024, "temporarily_unavailable", 503, "A transient error has occurred. Please try again."),
    (90033, "temporarily_unavailable", 503, "A transient error has occurred. Please try again."),
    (90038, "invalid_request", 400, "The tenant is in another national cloud."),
    (90055, "temporarily_unavailable", 429, "There are too many incoming requests for the tenant."),
    (90090, "temporarily_unavailable", 503, "A transient error has occurred in the directory."),
    (90091, "temporarily_unavailable", 503, "A transient error has occurred in the directory."),
    (
        90094,
        "access_denied",
        400,
        "Administrator consent is required for the permissions requested by this application.",
    ),
    (500_011, "invalid_resource", 400, "The resource principal was not found in the tenant."),
    (
        500_112,
        "invalid_client",
        401,
        "The reply address does not match the reply address provided when requesting Authorization code.",
    ),
    (
        500_200,
        "invalid_request",
        400,
        "The user account is a personal Microsoft account. Personal Microsoft accounts are not supported for this application unless explicitly invited to an organization.",
    ),
    (
        501_481,
        "invalid_grant",
        400,
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
    ),
    (501_491, "invalid_request", 400, "Invalid size of Code_Challenge parameter."),
    (530_032, "invalid_grant", 400, "Blocked by security policy of the tenant."),
    (530_034, "invalid_grant", 400, "A delegated administrator was blocked from accessing the tenant."),
    (650_051, "invalid_client", 400, "The requested permission is invalid or outdated."),
    (
        650_052,
        "invalid_client",
        400,
        "The organization lacks a service principal for the service, or has not subscribed to it.",
    ),
    (650_056, "invalid_client", 400, "Misconfigured application."),
    (700_005, "invalid_grant", 400, "The provided authorization code is intended to be used against another tenant."),
    (
        700_016,
        "unauthorized_client",
        400,
        "Application was not found in the directory. This can happen if the application has not been installed by the administrator of the tenant.",
    ),
    (
        700_021,
        "invalid_client",
        401,
        "Client assertion application identifier does not match the 'client_id' parameter.",
    ),
    (700_023, "invalid_client", 401, "Client assertion audience claim does not match the realm issuer."),
    (700_024, "invalid_client", 401, "Client assertion is not within its valid time range."),
    (
        700_027,
        "invalid_client",
        401,
        "The certificate with identifier used to sign the client assertion is not registered on the application.",
    ),
    (700_030, "invalid_client", 401, "Invalid certificate: the subject name in the certificate is not authorized."),
    (700_054, "unsupported_response_type", 400, "The response_type is not enabled for the application."),
    (700_211, "invalid_client", 401, "No matching federated identity record found for presented assertion issuer."),
    (700_212, "invalid_client", 401, "No matching federated identity record found for presented assertion audience."),
    (700_213, "invalid_client", 401, "No matching federated identity record found for presented assertion subject."),
    (
        900_023,
        "invalid_request",
        400,
        "The specified tenant identifier is neither a valid DNS name, nor a valid external domain.",
    ),
    (900_144, "invalid_request", 400, "The request body must contain a required parameter."),
    (900_382, "invalid_client", 400, "Confidential Client is not supported in Cross Cloud request."),
    (900_432, "invalid_client", 400, "Confidential Client is not supported in Cross Cloud request."),
    (900_971, "invalid_request", 400, "No reply address provided."),
    (901_002, "invalid_request", 400, "The 'resource' request parameter is not supported."),
    (1_000_031, "unauthorized_client", 400, "The application is not available for the tenant."),
    (
        1_002_012,
        "invalid_scope",
        400,
        "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.",
    ),
    (7_000_112, "unauthorized_client", 400, "The application is disabled."),
    (
        7_000_215,
        "invalid_client",
        401,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.",
    ),
    (
        7_000_216,
        "invalid_client",
        401,
        "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
    ),
    (
        7_000_218,
        "invalid_client",
        401,
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    (7_000_222, "invalid_client", 401, "The provided client secret keys are expired."),
    (7_000_229, "invalid_client", 401, "The client application is missing service principal in the tenant."),
    (
        7_002_137,
        "invalid_client",
        401,
        "No matching federated identity record found: the issuer matches only when case is ignored.",
    ),
    (
        7_002_138,
        "invalid_client",
        401,
        "No matching federated identity record found: the subject matches only when case is ignored.",
    ),
    (
        9_001_023,
        "invalid_request",
        400,
        "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint.",
    ),
];

impl Refusal {
    /// The refusal with the usual text.
    pub(crate) fn new(code: u32) -> Self {
        Self { code, text: String::new() }
    }

    /// The refusal with its own text.
    pub(crate) fn with(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn entry(&self) -> (&'static str, u16, &'static str) {
        TABLE
            .iter()
            .find(|(code, ..)| *code == self.code)
            .map_or(("invalid_request", 400, "The request was refused."), |(_, e, s, t)| (*e, *s, *t))
    }

    /// `error`, as OAuth has it.
    pub(crate) fn error(&self) -> &'static str {
        self.entry().0
    }

    /// `error_description`.
    pub(crate) fn description(&self, now: Timestamp) -> String {
        let nanos = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        self.described(guid(nanos, 1), &guid(nanos, 2).to_string(), &time(now))
    }

    fn described(&self, trace: Uuid, correlation: &str, time: &str) -> String {
        let text = if self.text.is_empty() { self.entry().2 } else { &self.text };
        format!(
            "AADSTS{}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
            self.code
        )
    }

    /// The answer, in the documented shape.
    pub(crate) fn response(&self, now: Timestamp, correlation: Option<&str>) -> Response {
        let (error, status, _) = self.entry();
        let nanos = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        let trace = guid(nanos, 1);
        let correlation = correlation.map_or_else(|| guid(nanos, 2).to_string(), str::to_owned);
        let time = time(now);
        let code = self.code;
        let mut body = json!({
            "error": error,
            "error_description": self.described(trace, &correlation, &time),
            "error_codes": [code],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        if code == 53003 {
            body["suberror"] = json!("message_only");
            body["claims"] = json!(
                "{\"access_token\":{\"capolids\":{\"essential\":true,\"values\":[\"0b1c9a55-6a4e-4f1e-8f0a-0f3f7a2f7a10\"]}}}"
            );
        }
        Response::json(status, &body)
            .header("Cache-Control", "no-store, no-cache")
            .header("x-ms-request-id", trace.to_string())
    }
}

fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_documented_shape() {
        let mut response = Refusal::new(700_027).response("2026-11-22T01:02:03Z".parse().unwrap(), Some("abc"));
        assert_eq!(response.status, 401);
        let body: serde_json::Value = serde_json::from_slice(&response.whole()).unwrap();
        assert_eq!(body["error"], "invalid_client");
        assert_eq!(body["error_codes"], serde_json::json!([700_027]));
        assert_eq!(body["timestamp"], "2026-11-22 01:02:03Z");
        assert_eq!(body["correlation_id"], "abc");
        let description = body["error_description"].as_str().unwrap();
        assert!(
            description.starts_with("AADSTS700027: ") && description.ends_with("\r\nTimestamp: 2026-11-22 01:02:03Z"),
            "{description}"
        );
    }

    #[test]
    fn transient_codes_have_transient_statuses() {
        for code in [90033, 50033, 90006, 90012, 90024, 90090, 90091, 50087] {
            assert_eq!(Refusal::new(code).response(Timestamp::UNIX_EPOCH, None).status, 503, "{code}");
        }
        assert_eq!(Refusal::new(90055).response(Timestamp::UNIX_EPOCH, None).status, 429);
    }

    #[test]
    fn every_code_that_a_daemon_sorts_is_known() {
        assert!(TABLE.is_sorted_by_key(|(code, ..)| *code));
        let permanent = [
            7_000_215, 7_000_222, 700_027, 700_024, 50012, 700_030, 7_000_218, 7_000_216, 700_016, 7_000_229, 90002,
            900_023, 90038, 900_382, 900_432, 500_011, 50001, 650_052, 650_051, 650_056, 65001, 65004, 90094, 53003,
            530_032, 530_034, 53011, 7_000_112, 70001, 1_000_031, 50034, 50020, 50059, 50194, 50011, 54005, 70008,
            700_005, 501_481, 70011, 1_002_012, 901_002, 50049, 700_211, 700_212, 700_213, 7_002_137, 7_002_138, 70021,
        ];
        let transient = [90033, 50033, 90006, 90012, 90024, 90090, 90091, 50087, 90055, 50196];
        for code in permanent.into_iter().chain(transient) {
            assert!(TABLE.iter().any(|(known, ..)| *known == code), "{code}");
        }
    }
}
