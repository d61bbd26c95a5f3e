//! Redeeming an authorization code: tokens for somebody who has signed in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use uuid::Uuid;

use super::Directory;
use super::access_token::Claims;
use super::code::{Code, Redeemer};
use super::id_token::{self, Statement};
use super::refusal::Refusal;
use super::registration::Registration;
use super::token::{Asked, answered, is_resource};
use crate::http::Response;
use crate::ledger::Redemption;
use crate::world::World;

/// What a token without a resource is for.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

impl Asked<'_> {
    /// Tokens for somebody who has signed in.
    pub(super) fn authorization_code(&mut self, world: &World, directory: Directory) -> Result<Response, Refusal> {
        let mut redemption = Redemption {
            at: self.now,
            directory: self.segment.to_owned(),
            version: self.version,
            client_id: String::new(),
            person: None,
            tenant: None,
            pkce: false,
            credential: String::new(),
            refused: None,
        };
        let result = self.redeem(world, directory, &mut redemption);
        redemption.client_id.clone_from(&self.note.client_id);
        redemption.credential.clone_from(&self.note.credential);
        redemption.refused = result.as_ref().err().map(|refusal| refusal.code);
        world.lock().book.redemptions.push(redemption);
        result
    }

    fn redeem(
        &mut self,
        world: &World,
        directory: Directory,
        redemption: &mut Redemption,
    ) -> Result<Response, Refusal> {
        let (client_id, app_id, app) = self.client(world, directory)?;
        let text = self.required("code")?;
        if let Some(code) = world.lock().codes.get(&text) {
            redemption.person = Some(code.account.upn.clone());
            redemption.tenant = Some(code.account.tenant);
            redemption.pkce = code.has_challenge();
        }
        let redirect_uri = self.required("redirect_uri")?;
        let proof = self.authenticate(world, &client_id, &app)?;
        let verifier = self.form.get("code_verifier").map(String::as_str).filter(|text| !text.is_empty());
        let redeemer = Redeemer { client: app_id, directory, redirect_uri: &redirect_uri, verifier, now: self.now };
        let code = world.lock().redeem(&text, &redeemer)?;
        if code.version != self.version {
            let text = format!("a code of the v{} endpoint, redeemed at v{}", code.version, self.version);
            world.lock().book.warning(self.now, text);
        }
        self.note.tenant = Some(code.account.tenant);
        let (resource, scope) = self.delegated(&code, &app);
        if resource != GRAPH && !is_resource(world, &resource) {
            return Err(Refusal::new(500_011));
        }
        self.note.audience.clone_from(&resource);
        let claims = self.claims(world, code.account.tenant, app_id, &resource, proof);
        let claims = Claims { scp: Some(scope.clone()), oid: code.account.object_id(), ..claims };
        let entra = world.lock().entra.clone();
        let statement = Statement {
            account: &code.account,
            client: app_id,
            app: &app,
            nonce: code.nonce.as_deref(),
            version: self.version,
            authority: &self.authority,
            now: self.now.as_second(),
            wids: entra.wids,
            signed: self.version != 1 || entra.v1_signs,
        };
        let has_identity = self.version == 1 || code.scope.split_whitespace().any(|part| part == "openid");
        let id_token = has_identity.then(|| id_token::write(&world.keys, &statement, entra.forgery));
        Ok(self.with_person(world, &claims, &scope, id_token))
    }

    /// Resource and scope of a token for a person.
    fn delegated(&self, code: &Code, app: &Registration) -> (String, String) {
        if self.version == 1 {
            let resource = self.form.get("resource").filter(|text| !text.is_empty()).or(code.resource.as_ref());
            let scope = app.required_roles.iter().filter(|role| !role.ends_with(".All")).cloned().collect::<Vec<_>>();
            return (resource.cloned().unwrap_or_else(|| GRAPH.to_owned()), scope.join(" "));
        }
        let named = code.scope.split_whitespace().filter(|part| part.contains("://"));
        let resource = named.clone().find_map(|part| part.rsplit_once('/')).map_or(GRAPH, |(resource, _)| resource);
        (resource.to_owned(), code.scope.clone())
    }

    /// The answer to a code.
    fn with_person(&self, world: &World, claims: &Claims, scope: &str, id_token: Option<String>) -> Response {
        let mut body = self.body(world, claims);
        body["scope"] = json!(scope);
        if let Some(id_token) = id_token {
            body["id_token"] = json!(id_token);
        }
        if self.version == 1 || scope.split_whitespace().any(|part| part == "offline_access") {
            body["refresh_token"] = json!(format!("1.{}", STANDARD.encode(Uuid::new_v4())));
        }
        answered(&body)
    }
}
