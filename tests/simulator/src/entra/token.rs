//! The token endpoint, v1 and v2.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::access_token::{Claims, write};
use super::assertion::{Accepted, Expectation, check};
use super::metadata::authority;
use super::refusal::Refusal;
use super::registration::Registration;
use super::tenant_named;
use crate::http::{Request, Response, percent_decoded};
use crate::ledger::TokenRequest;
use crate::scenario::{ACTIVITY_READ, ACTIVITY_READ_DLP};
use crate::seed::guid;
use crate::world::World;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Management API hosts of the national clouds and other resources whose principal every tenant has.
const RESOURCES: [&str; 6] = [
    "https://manage.office.com",
    "https://manage-gcc.office.com",
    "https://manage.office365.us",
    "https://manage.protection.apps.mil",
    "https://graph.microsoft.com",
    "c5393580-f805-4401-95e8-94b7a6ef2fc2",
];

/// "5–10 minutes after nbf at most", with a little for clocks.
const LONGEST_ASSERTION_S: i64 = 600 + 60;

/// Answers a request to the token endpoint.
pub(super) fn answer(world: &World, request: &Request, segment: &str, version: u8) -> Response {
    let now = world.clock.now();
    let mut asked = Asked {
        segment,
        endpoint: format!("{}{}", authority(world, request), request.path),
        version,
        form: request.form(),
        now,
        basic: basic(request),
        note: TokenRequest {
            at: now,
            tenant: None,
            client_id: String::new(),
            audience: String::new(),
            version,
            credential: String::new(),
            refused: None,
        },
    };
    let result = if request.method == "POST" {
        asked.grant(world)
    } else {
        Err(Refusal::with(900_144, "The request must be a POST."))
    };
    let mut note = asked.note;
    note.refused = result.as_ref().err().map(|r| r.code);
    let mut state = world.lock();
    if let (Ok(_), Some(tenant)) = (&result, note.tenant) {
        state.book.tenant(tenant).tokens += 1;
    }
    state.book.token_requests.push(note);
    drop(state);
    match result {
        Ok(response) => response,
        Err(refusal) => refusal.response(now, request.header("client-request-id")),
    }
}

struct Asked<'a> {
    segment: &'a str,
    /// The address that the request was sent to: what an assertion's `aud` should be.
    endpoint: String,
    version: u8,
    form: HashMap<String, String>,
    basic: Option<(String, String)>,
    now: Timestamp,
    note: TokenRequest,
}

impl Asked<'_> {
    fn grant(&mut self, world: &World) -> Result<Response, Refusal> {
        let tenant = self.tenant(world)?;
        self.note.tenant = Some(tenant);
        match self.required("grant_type")?.as_str() {
            "client_credentials" => {}
            other => {
                return Err(Refusal::with(70003, format!("The app requested an unsupported grant type '{other}'.")));
            }
        }
        let client_id = match (&self.basic, self.form.get("client_id")) {
            (Some((id, _)), _) => id.clone(),
            (None, Some(id)) if !id.is_empty() => id.clone(),
            _ => {
                return Err(Refusal::with(
                    900_144,
                    "The request body must contain the following parameter: 'client_id'.",
                ));
            }
        };
        self.note.client_id.clone_from(&client_id);
        let app_id = Uuid::try_parse(&client_id).ok();
        let app = app_id.and_then(|id| world.lock().apps.get(&id).cloned());
        let (Some(app_id), Some(app)) = (app_id, app) else {
            return Err(Refusal::with(
                700_016,
                format!(
                    "Application with identifier '{client_id}' was not found in the directory '{}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
                    self.segment
                ),
            ));
        };
        let resource = self.resource()?;
        self.note.audience.clone_from(&resource);
        let by_certificate = self.authenticate(world, tenant, &client_id, &app)?;
        let roles = self.roles(world, tenant, app_id, &resource)?;
        Ok(self.token(world, tenant, app_id, &resource, roles, by_certificate))
    }

    fn tenant(&self, world: &World) -> Result<Uuid, Refusal> {
        let segment = self.segment;
        if matches!(segment, "common" | "organizations" | "consumers") {
            return Err(Refusal::new(9_001_023));
        }
        match tenant_named(world, segment) {
            Some(id) if world.lock().tenants.contains_key(&id) => Ok(id),
            Some(_) => Err(not_found(segment)),
            None if segment.contains('.') => Err(not_found(segment)),
            None => Err(Refusal::with(
                900_023,
                format!(
                    "Specified tenant identifier '{segment}' is neither a valid DNS name, nor a valid external domain."
                ),
            )),
        }
    }

    fn required(&self, name: &str) -> Result<String, Refusal> {
        match self.form.get(name) {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => {
                Err(Refusal::with(900_144, format!("The request body must contain the following parameter: '{name}'.")))
            }
        }
    }

    /// The one resource asked for.
    fn resource(&self) -> Result<String, Refusal> {
        if self.version == 1 {
            return self.required("resource");
        }
        if self.form.contains_key("resource") {
            return Err(Refusal::with(901_002, "The 'resource' request parameter is not supported."));
        }
        let scope = self.required("scope")?;
        let mut resources = Vec::new();
        for part in scope.split_whitespace() {
            match part.strip_suffix("/.default") {
                Some(resource) => resources.push(resource),
                None => {
                    return Err(Refusal::with(
                        1_002_012,
                        format!(
                            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
                        ),
                    ));
                }
            }
        }
        match resources[..] {
            [one] => Ok(one.to_owned()),
            _ => Err(Refusal::with(
                70011,
                format!(
                    "The provided value for the input parameter 'scope' is not valid. The scope '{scope}' names more than one resource."
                ),
            )),
        }
    }

    /// Whether the client proved itself by a certificate (else by a secret).
    fn authenticate(
        &mut self,
        world: &World,
        tenant: Uuid,
        client_id: &str,
        app: &Arc<Registration>,
    ) -> Result<bool, Refusal> {
        if let Some(assertion) = self.form.get("client_assertion") {
            if self.form.get("client_assertion_type").map(String::as_str) != Some(ASSERTION_TYPE) {
                return Err(Refusal::with(50027, format!("The 'client_assertion_type' must be '{ASSERTION_TYPE}'.")));
            }
            let (leeway, audiences) = self.audiences(world, tenant);
            let expected = Expectation { client_id, app, audiences: &audiences, now: self.now.as_second(), leeway };
            let accepted = check(assertion, &expected)?;
            self.remark(world, tenant, &accepted);
            self.note.credential = accepted.algorithm;
            return Ok(true);
        }
        let secret = match (&self.basic, self.form.get("client_secret")) {
            (_, Some(secret)) | (Some((_, secret)), None) if !secret.is_empty() => secret,
            _ => {
                return Err(Refusal::with(
                    7_000_218,
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
                ));
            }
        };
        "secret".clone_into(&mut self.note.credential);
        match app.secrets.iter().find(|s| s.value == *secret) {
            Some(known) if known.expired => Err(Refusal::with(
                7_000_222,
                format!("The provided client secret keys for app '{client_id}' are expired."),
            )),
            Some(_) => Ok(false),
            None => Err(Refusal::with(
                7_000_215,
                format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client_id}'."
                ),
            )),
        }
    }

    /// The leeway for times and the accepted audiences: both token endpoints and the issuer, under any of the
    /// authority's names.
    fn audiences(&self, world: &World, tenant: Uuid) -> (i64, Vec<String>) {
        let entra = world.lock().entra.clone();
        let own = &world.hosts.authority;
        let port = own.rsplit(':').next().unwrap_or_default();
        let mut hosts = vec![own.clone(), format!("http://localhost:{port}")];
        hosts.extend(
            ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]
                .map(|h| format!("https://{h}")),
        );
        hosts.extend(entra.authorities);
        let mut segments = vec![tenant.to_string()];
        if self.segment != segments[0] {
            segments.push(self.segment.to_owned());
        }
        let mut audiences = Vec::new();
        for host in &hosts {
            for segment in &segments {
                audiences.extend(
                    ["/oauth2/v2.0/token", "/oauth2/token", "/v2.0"].map(|end| format!("{host}/{segment}{end}")),
                );
            }
        }
        (i64::try_from(entra.leeway_s).unwrap_or(0), audiences)
    }

    fn remark(&self, world: &World, tenant: Uuid, accepted: &Accepted) {
        let book = &mut world.lock().book;
        if let Some(seconds) = accepted.lifetime.filter(|s| *s > LONGEST_ASSERTION_S) {
            book.warning(self.now, format!("tenant {tenant}: an assertion lives {seconds} s, more than 10 minutes"));
        }
        // Entra takes several; which of them for how long, nobody knows.
        if accepted.audience != self.endpoint {
            let text = format!("tenant {tenant}: an assertion for {}, sent to {}", accepted.audience, self.endpoint);
            book.warning(self.now, text);
        }
        match &accepted.jti {
            None => book.warning(self.now, format!("tenant {tenant}: an assertion has no jti")),
            Some(jti) => {
                let times = book.assertions_seen.entry(jti.clone()).or_insert(0);
                *times += 1;
                if *times > 1 {
                    book.warning(self.now, format!("tenant {tenant}: jti {jti} was used again"));
                }
            }
        }
    }

    fn roles(&self, world: &World, tenant: Uuid, app: Uuid, resource: &str) -> Result<Vec<String>, Refusal> {
        let state = world.lock();
        let bare = resource.trim_end_matches('/');
        if !world.is_management_audience(&state.service, bare) && !RESOURCES.contains(&bare) {
            return Err(Refusal::with(
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
                    self.segment
                ),
            ));
        }
        let granted = match state.tenants.get(&tenant).map(|t| &t.consents) {
            Some(None) => vec![ACTIVITY_READ.to_owned(), ACTIVITY_READ_DLP.to_owned()],
            Some(Some(consents)) => match consents.iter().find(|c| c.client_id == app) {
                Some(consent) => consent.roles.clone(),
                None => {
                    return Err(Refusal::with(
                        7_000_229,
                        format!("The client application {app} is missing service principal in the tenant {tenant}."),
                    ));
                }
            },
            None => return Err(not_found(self.segment)),
        };
        // Roles are granted on a resource; Graph's end in `.All`.
        let graph = bare == "https://graph.microsoft.com";
        Ok(granted.into_iter().filter(|r| r.ends_with(".All") == graph).collect())
    }

    fn token(
        &self,
        world: &World,
        tenant: Uuid,
        app: Uuid,
        resource: &str,
        roles: Vec<String>,
        by_certificate: bool,
    ) -> Response {
        let (entra, generation) = {
            let state = world.lock();
            (state.entra.clone(), state.tenants.get(&tenant).map_or(0, |t| t.token_generation))
        };
        let lifetime = i64::try_from(entra.lifetime_s).unwrap_or(i64::MAX / 4);
        let now = self.now.as_second();
        let claims = Claims {
            aud: resource.to_owned(),
            iss: format!("https://sts.windows.net/{tenant}/"),
            iat: now,
            nbf: now - 300,
            exp: now + lifetime,
            appid: app.to_string(),
            appidacr: if by_certificate { "2" } else { "1" }.to_owned(),
            oid: guid(tenant.as_u64_pair().0, app.as_u64_pair().0),
            roles,
            tid: tenant,
            uti: generation,
            ver: "1.0".to_owned(),
        };
        let token = write(&claims, &world.token_key);
        let body = if self.version == 1 {
            json!({
                "token_type": "Bearer",
                "expires_in": lifetime.to_string(),
                "ext_expires_in": lifetime.to_string(),
                "expires_on": claims.exp.to_string(),
                "not_before": claims.nbf.to_string(),
                "resource": resource,
                "access_token": token,
            })
        } else {
            let mut body = json!({ "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token });
            if let Some(refresh_in) = entra.refresh_in_s {
                body["refresh_in"] = json!(refresh_in);
            }
            body
        };
        Response::json(200, &body).header("Cache-Control", "no-store, no-cache").header("Pragma", "no-cache")
    }
}

fn not_found(segment: &str) -> Refusal {
    Refusal::with(
        90002,
        format!(
            "Tenant '{segment}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
        ),
    )
}

/// Client id and secret from HTTP Basic, percent-decoded as RFC 6749 section 2.3.1 says.
fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((percent_decoded(&id.replace('+', " ")), percent_decoded(&secret.replace('+', " "))))
}
