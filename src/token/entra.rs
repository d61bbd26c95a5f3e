//! What Entra's refusals mean: the table of AADSTS codes, and the order in which an answer is judged.
//!
//! Source of the codes: "Microsoft Entra authentication and authorization error codes", and answers seen in public
//! threads. The `error` text and the HTTP status that come with a code vary, so a code is matched by its number
//! alone. An answer is judged in this order:
//!
//! 1. what is not JSON, or has status 408, 429 or 5xx, or says `temporarily_unavailable`, will pass;
//! 2. else the first of its `error_codes` that is in the table decides;
//! 3. else its `error` decides;
//! 4. else it is a refusal we do not know: it is asked again, seldom, and the operator reads Entra's own words.
//!
//! **Invariant:** only a code in the table is an app's trouble. What the table does not know is the tenant's alone:
//! a mistake about it must not stop the other tenants of the app.

use std::time::Duration;

use crate::content::TenantId;

/// The assertion was used before or after its time.
pub const OUTSIDE_TIME_RANGE: u32 = 700_024;
/// The certificate is not registered, or not yet known to the site of Entra that was asked; another one may be.
pub const CERTIFICATE_REFUSED: [u32; 3] = [700_027, 50_012, 700_030];
/// The tenant does not know the app: no consent, or a client id that no tenant knows.
pub const APP_UNKNOWN: &str = "app_unknown";

/// Whom a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The app registration, its credential, or this host: every tenant of the app.
    App,
    /// This tenant.
    Tenant,
    /// Nobody for long.
    Passing,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whom it concerns.
    pub scope: Scope,
    /// A stable label.
    pub kind: &'static str,
    /// What happened; with `{placeholders}`, see [`fill`].
    pub cause: &'static str,
    /// What to do about it; with `{placeholders}`.
    pub remedy: &'static str,
    /// The code that decided, or the first one of the answer.
    pub code: Option<u32>,
    /// Entra wants to be left alone for at least this long.
    pub least_wait: Duration,
}

struct Entry {
    codes: &'static [u32],
    scope: Scope,
    kind: &'static str,
    cause: &'static str,
    remedy: &'static str,
    least_wait: Duration,
}

const fn entry(
    codes: &'static [u32],
    scope: Scope,
    kind: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry { codes, scope, kind, cause, remedy, least_wait: Duration::ZERO }
}

const fn passing(codes: &'static [u32], kind: &'static str, cause: &'static str, least_wait: u64) -> Entry {
    Entry { codes, scope: Scope::Passing, kind, cause, remedy: "", least_wait: Duration::from_secs(least_wait) }
}

const CONSENT: &str = "let an administrator of the tenant open {consent} and consent; Microsoft may need half an hour to \
                       replicate it";
const CLOUD: &str = "check the tenant's `id` and its `cloud` (now `{cloud}`); another national cloud also needs an app \
                     registration of its own";
const LICENCE: &str = "check that the tenant has an Office 365 subscription with the unified audit log, and that \
                       `cloud` (now `{cloud}`) is the plan it is on";
const UPLOAD: &str = "upload the public certificate with the SHA-1 thumbprint {thumbprint} to the app registration \
                      {client} (Certificates & secrets), or configure the certificate that is registered there; \
                      after an upload allow some minutes";
const SIGN_IN_LOG: &str = "let the tenant's administrator look up the correlation id in the sign-in log (service \
                           principal sign-ins) and lift what blocks the app {client}";
const OURS: &str = "report this as a fault of Tenantry, unless the audience or the authority is your own, in a \
                    `[clouds.*]` section: then correct it there";
const FEDERATED: &str = "compare issuer, subject and audience of the federated token with the federated credentials \
                         of the app registration {client}, letter by letter; a new one needs some minutes";

/// The table.
const TABLE: &[Entry] = &[
    // The app: its credential, its registration, this host.
    entry(
        &[7_000_215],
        Scope::App,
        "secret_invalid",
        "Entra does not know the client secret of the app {client}",
        "configure the secret's value, not its id, and look for a stray space or line end; or make a new secret, or \
         better a certificate",
    ),
    entry(
        &[7_000_222],
        Scope::App,
        "secret_expired",
        "the client secret of the app {client} has expired",
        "make a new secret in the app registration (Certificates & secrets), or better a certificate, and configure it",
    ),
    entry(
        &[CERTIFICATE_REFUSED[0]],
        Scope::App,
        "certificate_unknown",
        "Entra does not accept the certificate of the app {client}: it is not registered, or another key has signed",
        UPLOAD,
    ),
    entry(
        &[CERTIFICATE_REFUSED[1], CERTIFICATE_REFUSED[2]],
        Scope::App,
        "assertion_invalid",
        "Entra does not accept the client assertion of the app {client}",
        UPLOAD,
    ),
    entry(
        &[OUTSIDE_TIME_RANGE],
        Scope::App,
        "clock",
        "Entra found the client assertion outside its time range",
        "set this host's clock (chrony or systemd-timesyncd)",
    ),
    entry(
        &[50_027, 50_013, 700_021, 700_023],
        Scope::App,
        "assertion_malformed",
        "Entra takes the client assertion of the app {client} for malformed, or for another app's or another authority's",
        OURS,
    ),
    entry(
        &[7_000_218, 7_000_216],
        Scope::App,
        "credential_missing",
        "Entra says that the request carried no client secret or assertion",
        "look for a proxy that changes requests; if there is none, report this as a fault of Tenantry",
    ),
    entry(
        &[650_051],
        Scope::App,
        "permission_invalid",
        "the app {client} requests a permission that no longer exists",
        "remove it from the app registration (API permissions; often it is ActivityReports.Read)",
    ),
    entry(
        &[650_056],
        Scope::App,
        "permissions_missing",
        "the app registration {client} requests no permission of {audience}",
        "add Office 365 Management APIs, ActivityFeed.Read, as an application permission to the app registration",
    ),
    entry(
        &[50_194],
        Scope::App,
        "app_single_tenant",
        "the app {client} is for one tenant only",
        "set its supported account types to `accounts in any organizational directory` (AzureADMultipleOrgs)",
    ),
    entry(
        &[50_011],
        Scope::App,
        "redirect_uri",
        "the redirect URI is not registered with the app {client}",
        "register it in the app registration (Authentication)",
    ),
    entry(
        &[700_211, 700_212, 700_213, 7_002_137, 7_002_138, 70_021],
        Scope::App,
        "federated_mismatch",
        "no federated credential of the app {client} matches the token that was presented",
        FEDERATED,
    ),
    entry(
        &[70_011, 1_002_012, 901_002],
        Scope::App,
        "scope_malformed",
        "Entra does not understand what the token is for ({audience})",
        OURS,
    ),
    entry(&[50_049], Scope::App, "authority_unknown", "Entra does not know the authority {authority}", OURS),
    // The tenant.
    entry(
        &[700_016, 70_001, 1_000_031],
        Scope::Tenant,
        APP_UNKNOWN,
        "the tenant {tenant} does not know the app {client}",
        "check the client id and the tenant's `id`, and that the app is registered for any organizational directory; \
         if they are right, the tenant has not consented yet: let its administrator open {consent}",
    ),
    entry(
        &[7_000_229, 65_001],
        Scope::Tenant,
        "consent_missing",
        "the tenant {tenant} has not consented to the app {client}",
        CONSENT,
    ),
    entry(
        &[90_002],
        Scope::Tenant,
        "tenant_unknown",
        "{authority} has no tenant {tenant}: the id is mistyped, the tenant was deleted, or it lives in another cloud",
        CLOUD,
    ),
    entry(
        &[900_023],
        Scope::Tenant,
        "tenant_malformed",
        "Entra does not take {tenant} for a tenant's id",
        "correct the tenant's `id`",
    ),
    entry(
        &[90_038, 900_382, 900_432],
        Scope::Tenant,
        "wrong_cloud",
        "the tenant {tenant} lives in another national cloud",
        "set the tenant's `cloud` (now `{cloud}`), with an app that is registered in that cloud",
    ),
    entry(
        &[500_011, 50_001],
        Scope::Tenant,
        "resource_unknown",
        "the tenant {tenant} does not know {audience}",
        LICENCE,
    ),
    entry(
        &[650_052],
        Scope::Tenant,
        "resource_unsubscribed",
        "the tenant {tenant} has no subscription for {audience}",
        LICENCE,
    ),
    entry(
        &[65_004],
        Scope::Tenant,
        "consent_declined",
        "the administrator of the tenant {tenant} declined to consent",
        CONSENT,
    ),
    entry(
        &[90_094],
        Scope::Tenant,
        "consent_needs_admin",
        "the person who tried to consent is no administrator of the tenant {tenant}",
        CONSENT,
    ),
    entry(
        &[53_003],
        Scope::Tenant,
        "conditional_access",
        "a Conditional Access policy of the tenant {tenant} blocks the app {client}",
        "let the tenant's administrator exclude the app from the policy for workload identities, or allow the public \
         address that this host's requests come from",
    ),
    entry(
        &[530_032, 530_034, 53_011],
        Scope::Tenant,
        "blocked",
        "a security policy of the tenant {tenant} blocks the app {client}",
        SIGN_IN_LOG,
    ),
    entry(
        &[7_000_112],
        Scope::Tenant,
        "app_disabled",
        "the app {client} is disabled in the tenant {tenant}",
        "let the tenant's administrator enable it (Enterprise applications, the app, Properties, `Enabled for users to \
         sign in`)",
    ),
    entry(
        &[50_034, 50_020, 50_059],
        Scope::Tenant,
        "sign_in_account",
        "the account that signed in is not one of the tenant {tenant}",
        "sign in with an administrator's account of that tenant",
    ),
    entry(
        &[54_005, 70_008, 700_005, 501_481],
        Scope::Tenant,
        "code_spent",
        "the sign-in's code was used before, has expired, or belongs to another sign-in",
        "start the consent again",
    ),
    // It will pass.
    passing(
        &[90_033, 50_033, 90_006, 90_012, 90_024, 90_090, 90_091, 50_087],
        "entra_transient",
        "Entra had a passing error",
        0,
    ),
    // "Back off at least a minute" where Entra names no time itself.
    passing(&[90_055], "entra_throttled", "Entra throttles the tenant {tenant}", 60),
    // Loop detection wants to see the asking stop.
    passing(&[50_196], "entra_loop", "Entra says that the app {client} asks for the same token too often", 10 * 60),
];

/// What refusals of an assertion mean where it was somebody else's token.
const FOREIGN_TOKEN: [&str; 3] = ["certificate_unknown", "assertion_invalid", "assertion_malformed"];

const fn verdict(scope: Scope, kind: &'static str, cause: &'static str, remedy: &'static str) -> Verdict {
    Verdict { scope, kind, cause, remedy, code: None, least_wait: Duration::ZERO }
}

const THROTTLED: Verdict = verdict(Scope::Passing, "entra_throttled", "Entra asks for fewer requests (429)", "");
const UNAVAILABLE: Verdict = verdict(Scope::Passing, "entra_unavailable", "Entra is unavailable for the moment", "");
const NOT_ENTRA: Verdict = verdict(
    Scope::Passing,
    "entra_not_json",
    "the answer is not Entra's (no JSON)",
    "if it stays, look for a proxy or a captive portal between this host and {authority}",
);
const UNKNOWN: Verdict = verdict(
    Scope::Tenant,
    "entra_unknown",
    "Entra refuses a token for the tenant {tenant}",
    "look the code up at https://login.microsoftonline.com/error, and the correlation id in the tenant's sign-in log",
);

/// Judges an answer that is not a token. `error` is `None` if the body is not JSON.
#[must_use]
pub fn judge(status: u16, json: bool, error: Option<&str>, codes: &[u32]) -> Verdict {
    let known = codes
        .iter()
        .find_map(|code| TABLE.iter().find(|entry| entry.codes.contains(code)).map(|entry| (*code, entry)))
        .map(|(code, entry)| {
            let Entry { scope, kind, cause, remedy, least_wait, .. } = *entry;
            Verdict { scope, kind, cause, remedy, code: Some(code), least_wait }
        });
    let first = codes.first().copied();
    let passes =
        matches!(status, 408 | 429) || status >= 500 || matches!(error, Some("temporarily_unavailable")) || !json;
    if passes {
        // The code may still say how long to wait.
        let by_status = match status {
            429 => THROTTLED,
            408 | 500.. => UNAVAILABLE,
            _ if !json => NOT_ENTRA,
            _ => UNAVAILABLE,
        };
        return match known {
            Some(known) if known.scope == Scope::Passing => known,
            _ => Verdict { code: first, ..by_status },
        };
    }
    known.unwrap_or_else(|| Verdict { code: first, ..by_error(error) })
}

impl Verdict {
    /// The same, if what proved the app was somebody else's token and not an assertion of its own.
    #[must_use]
    pub fn of_foreign_token(self) -> Self {
        if FOREIGN_TOKEN.contains(&self.kind) {
            let cause = "Entra does not accept the federated token of the app {client}";
            return Self { kind: "federated_refused", cause, remedy: FEDERATED, ..self };
        }
        if self.code == Some(OUTSIDE_TIME_RANGE) {
            let cause = "Entra found the federated token of the app {client} outside its time range";
            let remedy = "see to it that the token is renewed in time, and that this host's clock is right";
            return Self { kind: "federated_expired", cause, remedy, ..self };
        }
        self
    }
}

/// The second best: OAuth's own `error` (RFC 6749, section 5.2). It never makes an app's trouble of it, because the
/// same text comes with codes of either kind.
fn by_error(error: Option<&str>) -> Verdict {
    match error {
        Some("invalid_client") => verdict(
            Scope::Tenant,
            "entra_invalid_client",
            "Entra does not accept the app {client} or its credential for the tenant {tenant}",
            UNKNOWN.remedy,
        ),
        Some("unauthorized_client" | "access_denied" | "consent_required") => verdict(
            Scope::Tenant,
            "entra_unauthorized_client",
            "the tenant {tenant} does not let the app {client} have a token",
            CONSENT,
        ),
        Some("invalid_grant" | "interaction_required") => verdict(
            Scope::Tenant,
            "entra_invalid_grant",
            "a policy of the tenant {tenant} does not let the app {client} have a token",
            SIGN_IN_LOG,
        ),
        Some("invalid_resource" | "invalid_scope") => verdict(
            Scope::Tenant,
            "entra_invalid_resource",
            "Entra knows no {audience} for the tenant {tenant}",
            LICENCE,
        ),
        Some("invalid_tenant") => {
            verdict(Scope::Tenant, "entra_invalid_tenant", "{authority} has no tenant {tenant}", CLOUD)
        }
        Some("server_error") => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// What the table's sentences are about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The tenant's id; `None` before a sign-in has told whose it is.
    pub tenant: Option<TenantId>,
    /// The app's client id.
    pub client: &'a str,
    /// The cloud's name in the configuration.
    pub cloud: &'a str,
    /// The authority, scheme and host.
    pub authority: &'a str,
    /// What the token is for.
    pub audience: &'a str,
    /// The SHA-1 thumbprint of the certificate that signed; empty for a secret.
    pub thumbprint: &'a str,
}

/// A sentence of the table with its `{placeholders}` filled in.
#[must_use]
pub fn fill(sentence: &str, subject: &Subject<'_>) -> String {
    let Subject { tenant, client, cloud, authority, audience, thumbprint } = subject;
    // "Grant tenant-wide admin consent to an application": the address that needs no redirect URI.
    let path = tenant.map_or_else(|| "organizations".to_owned(), |tenant| tenant.to_string());
    let consent = format!("{authority}/{path}/adminconsent?client_id={client}");
    let tenant = tenant.map_or_else(|| "of the account that signed in".to_owned(), |tenant| tenant.to_string());
    [
        ("{tenant}", tenant.as_str()),
        ("{client}", client),
        ("{cloud}", cloud),
        ("{authority}", authority),
        ("{audience}", audience),
        ("{thumbprint}", thumbprint),
        ("{consent}", &consent),
    ]
    .into_iter()
    .fold(sentence.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        tenant: Some(TenantId::from_bytes([0x11; 16])),
        client: "client",
        cloud: "worldwide",
        authority: "https://login.microsoftonline.com",
        audience: "https://manage.office.com",
        thumbprint: "0A1B",
    };

    #[test]
    fn every_entry_says_what_happened_and_what_to_do() {
        let mut seen = BTreeSet::new();
        for entry in TABLE {
            for code in entry.codes {
                assert!(seen.insert(*code), "{code} is in the table twice");
            }
            for sentence in [entry.cause, entry.remedy] {
                let filled = fill(sentence, &SUBJECT);
                assert!(!filled.contains(['{', '}']), "{filled}");
                assert!(!filled.ends_with('.'), "{filled}");
            }
            assert!(!entry.cause.is_empty(), "{:?}", entry.codes);
            assert_eq!(entry.remedy.is_empty(), entry.scope == Scope::Passing, "{:?}", entry.codes);
        }
        for verdict in [THROTTLED, UNAVAILABLE, NOT_ENTRA, UNKNOWN] {
            assert!(!fill(verdict.remedy, &SUBJECT).contains('{'));
        }
    }

    #[test]
    fn codes_decide_for_whom() {
        for (scope, codes) in [
            (
                Scope::App,
                &[
                    7_000_215, 7_000_222, 700_027, 700_024, 50_012, 700_030, 7_000_218, 7_000_216, 650_051, 650_056,
                    50_194, 50_011, 50_027, 50_013, 700_021, 700_023, 70_011, 1_002_012, 901_002, 50_049, 700_211,
                    700_212, 700_213, 7_002_137, 7_002_138, 70_021,
                ][..],
            ),
            (
                Scope::Tenant,
                &[
                    700_016, 7_000_229, 90_002, 900_023, 90_038, 900_382, 900_432, 500_011, 50_001, 650_052, 65_001,
                    65_004, 90_094, 53_003, 530_032, 530_034, 53_011, 7_000_112, 70_001, 1_000_031, 50_034, 50_020,
                    50_059, 54_005, 70_008, 700_005, 501_481,
                ],
            ),
            (Scope::Passing, &[90_033, 50_033, 90_006, 90_012, 90_024, 90_090, 90_091, 50_087, 90_055, 50_196]),
        ] {
            for code in codes {
                let verdict = judge(400, true, Some("whatever"), &[*code]);
                assert_eq!((verdict.scope, verdict.code), (scope, Some(*code)), "{code}");
            }
        }
    }

    #[test]
    fn the_order_of_judging() {
        let all = [
            (
                "a page with a permanent code",
                503,
                true,
                Some("temporarily_unavailable"),
                &[7_000_222][..],
                "entra_unavailable",
            ),
            (
                "what Entra sends when it is ill",
                503,
                true,
                Some("temporarily_unavailable"),
                &[90_033],
                "entra_transient",
            ),
            ("temporarily unavailable with 400", 400, true, Some("temporarily_unavailable"), &[], "entra_unavailable"),
            ("plain text", 429, false, None, &[], "entra_throttled"),
            ("429 with loop detection", 429, true, Some("invalid_grant"), &[50_196], "entra_loop"),
            ("HTML", 502, false, None, &[], "entra_unavailable"),
            ("a captive portal", 302, false, None, &[], "entra_not_json"),
            ("a proxy's refusal", 403, false, None, &[], "entra_not_json"),
            ("a request timeout", 408, true, Some("invalid_client"), &[], "entra_unavailable"),
            (
                "the first code that is known",
                401,
                true,
                Some("invalid_client"),
                &[123, 7_000_222, 700_016],
                "secret_expired",
            ),
            ("expired password is not throttling", 400, true, Some("invalid_grant"), &[50_055], "entra_invalid_grant"),
            ("an unknown code", 401, true, Some("invalid_client"), &[123], "entra_invalid_client"),
            ("an error we do not know", 400, true, Some("novelty"), &[123], "entra_unknown"),
            ("JSON, but not Entra's", 403, true, None, &[], "entra_unknown"),
        ];
        for (what, status, json, error, codes, kind) in all {
            assert_eq!(judge(status, json, error, codes).kind, kind, "{what}");
        }
        assert_eq!(judge(400, true, Some("novelty"), &[123]).code, Some(123), "an unknown code is still shown");
        assert_eq!(judge(429, true, None, &[50_196]).least_wait, Duration::from_mins(10));
        assert_eq!(judge(400, true, None, &[90_055]).least_wait, Duration::from_mins(1));
    }

    #[test]
    fn a_foreign_token_is_not_taken_for_a_certificate() {
        for (code, kind) in [
            (700_027, "federated_refused"),
            (50_012, "federated_refused"),
            (50_027, "federated_refused"),
            (50_013, "federated_refused"),
            (700_024, "federated_expired"),
            (700_213, "federated_mismatch"),
            (90_002, "tenant_unknown"),
        ] {
            let verdict = judge(401, true, Some("invalid_client"), &[code]).of_foreign_token();
            assert_eq!((verdict.kind, verdict.code), (kind, Some(code)));
            let told = fill(verdict.cause, &SUBJECT) + &fill(verdict.remedy, &SUBJECT);
            assert!(!told.contains("thumbprint") && !told.contains('{'), "{told}");
        }
    }

    #[test]
    fn only_the_table_makes_an_apps_trouble() {
        for error in [
            "invalid_client",
            "unauthorized_client",
            "invalid_grant",
            "invalid_scope",
            "invalid_tenant",
            "invalid_request",
        ] {
            assert_ne!(judge(400, true, Some(error), &[424_242]).scope, Scope::App, "{error}");
        }
    }

    #[test]
    fn sentences_name_what_they_are_about() {
        let unknown = Subject { tenant: None, ..SUBJECT };
        assert_eq!(
            fill("the tenant {tenant} has not consented", &unknown),
            "the tenant of the account that signed in has not consented"
        );
        assert!(fill(CONSENT, &unknown).contains("https://login.microsoftonline.com/organizations/adminconsent?"));
        assert!(fill(UPLOAD, &SUBJECT).contains("thumbprint 0A1B to the app registration client"));
        assert!(fill(CONSENT, &SUBJECT).contains(
            "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/adminconsent?client_id=client"
        ));
    }
}
