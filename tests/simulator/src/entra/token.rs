//! The token endpoint, v1 and v2.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access_token::{Claims, write};
use super::assertion::{Accepted, Expectation, check};
use super::metadata::authority;
use super::refusal::Refusal;
use super::registration::Registration;
use super::{Directory, federated, not_found, unknown_app};
use crate::http::{Request, Response, percent_decoded};
use crate::ledger::TokenRequest;
use crate::scenario::Jwk;
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
        authority: authority(world, request),
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
            grant: String::new(),
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

/// Whether every tenant has the principal of a resource.
pub(super) fn is_resource(world: &World, resource: &str) -> bool {
    let bare = resource.trim_end_matches('/');
    RESOURCES.contains(&bare) || world.is_management_audience(&world.lock().service, bare)
}

/// A request to the token endpoint.
pub(super) struct Asked<'a> {
    pub(super) segment: &'a str,
    /// The authority's address as the client knows it.
    pub(super) authority: String,
    /// The address that the request was sent to: what an assertion's `aud` should be.
    endpoint: String,
    pub(super) version: u8,
    pub(super) form: HashMap<String, String>,
    basic: Option<(String, String)>,
    pub(super) now: Timestamp,
    pub(super) note: TokenRequest,
}

impl Asked<'_> {
    fn grant(&mut self, world: &World) -> Result<Response, Refusal> {
        let directory = Directory::named(world, self.segment)?;
        if let Directory::Tenant(tenant) = directory {
            self.note.tenant = Some(tenant);
        }
        let grant = self.form.get("grant_type").cloned().unwrap_or_default();
        self.note.grant.clone_from(&grant);
        match (grant.as_str(), directory) {
            ("authorization_code", _) => self.authorization_code(world, directory),
            ("refresh_token", _) => self.refresh(world, directory),
            (_, Directory::Tenant(tenant)) => {
                if self.required("grant_type")? != "client_credentials" {
                    let text = format!("The app requested an unsupported grant type '{grant}'.");
                    return Err(Refusal::with(70003, text));
                }
                self.client_credentials(world, tenant)
            }
            _ => Err(Refusal::new(9_001_023)),
        }
    }

    /// A token for the app itself.
    fn client_credentials(&mut self, world: &World, tenant: Uuid) -> Result<Response, Refusal> {
        let (client_id, app_id, app) = self.client(world, Directory::Tenant(tenant))?;
        let resource = self.resource()?;
        self.note.audience.clone_from(&resource);
        let proof = self.authenticate(world, &client_id, &app)?;
        let roles = self.roles(world, tenant, app_id, &resource)?;
        let claims = self.claims(world, tenant, app_id, &resource, proof);
        Ok(self.token(world, &Claims { roles, ..claims }))
    }

    /// The client that asks, and what is known of it.
    pub(super) fn client(
        &mut self,
        world: &World,
        directory: Directory,
    ) -> Result<(String, Uuid, Arc<Registration>), Refusal> {
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
        let (Some(app_id), Some(app)) = (app_id, app) else { return Err(unknown_app(&client_id, self.segment)) };
        app.usable_in(directory, &client_id, self.segment)?;
        Ok((client_id, app_id, app))
    }

    pub(super) fn required(&self, name: &str) -> Result<String, Refusal> {
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

    /// How the client proved itself.
    pub(super) fn authenticate(
        &mut self,
        world: &World,
        client_id: &str,
        app: &Registration,
    ) -> Result<Proof, Refusal> {
        if let Some(assertion) = self.form.get("client_assertion") {
            if self.form.get("client_assertion_type").map(String::as_str) != Some(ASSERTION_TYPE) {
                return Err(Refusal::with(50027, format!("The 'client_assertion_type' must be '{ASSERTION_TYPE}'.")));
            }
            let (leeway, audiences) = self.audiences(world);
            let now = self.now.as_second();
            if federated::is_foreign(assertion) {
                "federated".clone_into(&mut self.note.credential);
                federated::check(assertion, &app.federated, |issuer| keys_of(world, issuer), now, leeway)?;
                return Ok(Proof::Assertion);
            }
            let expected = Expectation { client_id, app, audiences: &audiences, now, leeway };
            let accepted = check(assertion, &expected)?;
            self.remark(world, &accepted);
            self.note.credential = accepted.algorithm;
            return Ok(Proof::Assertion);
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
            Some(_) => Ok(Proof::Secret),
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
    fn audiences(&self, world: &World) -> (i64, Vec<String>) {
        let entra = world.lock().entra.clone();
        let own = &world.hosts.authority;
        let port = own.rsplit(':').next().unwrap_or_default();
        let mut hosts = vec![own.clone(), format!("http://localhost:{port}")];
        hosts.extend(
            ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]
                .map(|h| format!("https://{h}")),
        );
        hosts.extend(entra.authorities);
        let mut segments: Vec<_> = self.note.tenant.map(|tenant| tenant.to_string()).into_iter().collect();
        if segments.first().is_none_or(|tenant| self.segment != tenant) {
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

    fn remark(&self, world: &World, accepted: &Accepted) {
        let tenant = self.note.tenant.map_or_else(|| self.segment.to_owned(), |tenant| tenant.to_string());
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
        if !is_resource(world, resource) {
            return Err(Refusal::with(
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
                    self.segment
                ),
            ));
        }
        let granted = world.lock().roles(tenant, app, world.clock.uptime()).map_err(|code| match code {
            700_016 => unknown_app(&app.to_string(), self.segment),
            7_000_229 => Refusal::with(
                code,
                format!("The client application {app} is missing service principal in the tenant {tenant}."),
            ),
            _ => not_found(self.segment),
        })?;
        // Roles are granted on a resource; Graph's end in `.All`.
        let graph = resource.trim_end_matches('/') == "https://graph.microsoft.com";
        Ok(granted.into_iter().filter(|r| r.ends_with(".All") == graph).collect())
    }

    /// The claims of a token without roles.
    pub(super) fn claims(&self, world: &World, tenant: Uuid, app: Uuid, resource: &str, proof: Proof) -> Claims {
        let state = world.lock();
        let lifetime = i64::try_from(state.entra.lifetime_s).unwrap_or(i64::MAX / 4);
        let now = self.now.as_second();
        Claims {
            aud: resource.to_owned(),
            iss: format!("https://sts.windows.net/{tenant}/"),
            iat: now,
            nbf: now - 300,
            exp: now + lifetime,
            appid: app.to_string(),
            appidacr: if proof == Proof::Assertion { "2" } else { "1" }.to_owned(),
            oid: guid(tenant.as_u64_pair().0, app.as_u64_pair().0),
            roles: Vec::new(),
            scp: None,
            tid: tenant,
            uti: state.tenants.get(&tenant).map_or(0, |t| t.token_generation),
            ver: "1.0".to_owned(),
        }
    }

    fn token(&self, world: &World, claims: &Claims) -> Response {
        answered(&self.body(world, claims))
    }

    pub(super) fn body(&self, world: &World, claims: &Claims) -> Value {
        let token = write(claims, &world.token_key);
        let lifetime = claims.exp - claims.iat;
        if self.version == 1 {
            return json!({
                "token_type": "Bearer",
                "expires_in": lifetime.to_string(),
                "ext_expires_in": lifetime.to_string(),
                "expires_on": claims.exp.to_string(),
                "not_before": claims.nbf.to_string(),
                "resource": claims.aud,
                "access_token": token,
            });
        }
        let mut body = json!({ "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token });
        if let Some(refresh_in) = world.lock().entra.refresh_in_s {
            body["refresh_in"] = json!(refresh_in);
        }
        body
    }
}

/// How a client proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Secret,
    /// Its own, or somebody else's.
    Assertion,
}

pub(super) fn answered(body: &Value) -> Response {
    Response::json(200, body).header("Cache-Control", "no-store, no-cache").header("Pragma", "no-cache")
}

/// The keys of somebody whose tokens apps may trust: the scenario's issuers, and this cloud for its own tenants.
fn keys_of(world: &World, issuer: &str) -> Option<Vec<Jwk>> {
    let own = issuer.strip_prefix(&world.hosts.authority).is_some_and(|rest| rest.ends_with("/v2.0"));
    if own {
        return Some(world.keys.jwks());
    }
    world.lock().issuers.iter().find(|known| known.issuer == issuer).map(|known| known.keys.clone())
}

/// Client id and secret from HTTP Basic, percent-decoded as RFC 6749 section 2.3.1 says.
fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((percent_decoded(&id.replace('+', " ")), percent_decoded(&secret.replace('+', " "))))
}
