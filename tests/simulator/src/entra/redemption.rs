//! Redeeming an authorization code, or the refresh token that came of one: tokens for somebody who has signed in.

use serde_json::json;
use uuid::Uuid;

use super::Directory;
use super::access_token::Claims;
use super::code::{Code, Redeemer};
use super::id_token::{self, Statement};
use super::refusal::Refusal;
use super::registration::Registration;
use super::token::{Asked, Proof, answered, is_resource};
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
        self.tokens(world, &code, app_id, &app, proof)
    }

    /// New tokens without anybody signing in.
    pub(super) fn refresh(&mut self, world: &World, directory: Directory) -> Result<Response, Refusal> {
        let (client_id, app_id, app) = self.client(world, directory)?;
        let text = self.required("refresh_token")?;
        let proof = self.authenticate(world, &client_id, &app)?;
        let code = world.lock().refreshed(&text, app_id)?;
        self.tokens(world, &code, app_id, &app, proof)
    }

    fn tokens(
        &mut self,
        world: &World,
        code: &Code,
        app_id: Uuid,
        app: &Registration,
        proof: Proof,
    ) -> Result<Response, Refusal> {
        self.note.tenant = Some(code.account.tenant);
        let (resource, scope) = self.delegated(code, app);
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
            app,
            nonce: code.nonce.as_deref(),
            version: self.version,
            authority: &self.authority,
            now: self.now.as_second(),
            wids: entra.wids,
            signed: self.version != 1 || entra.v1_signs,
        };
        let has_identity = self.version == 1 || scope.split_whitespace().any(|part| part == "openid");
        let id_token = has_identity.then(|| id_token::write(&world.keys, &statement, entra.forgery));
        let mut body = self.body(world, &claims);
        body["scope"] = json!(scope);
        if let Some(id_token) = id_token {
            body["id_token"] = json!(id_token);
        }
        if self.version == 1 || scope.split_whitespace().any(|part| part == "offline_access") {
            body["refresh_token"] = json!(world.lock().issue_refresh_token(code));
        }
        Ok(answered(&body))
    }

    /// Resource and scope of a token for a person.
    fn delegated(&self, code: &Code, app: &Registration) -> (String, String) {
        if self.version == 1 {
            let resource = self.form.get("resource").filter(|text| !text.is_empty()).or(code.resource.as_ref());
            let scope = app.required_roles.iter().filter(|role| !role.ends_with(".All")).cloned().collect::<Vec<_>>();
            return (resource.cloned().unwrap_or_else(|| GRAPH.to_owned()), scope.join(" "));
        }
        // "The scopes requested in this leg must be equivalent to or a subset of the scopes requested in the first leg."
        let scope = self.form.get("scope").filter(|text| !text.is_empty()).unwrap_or(&code.scope);
        let named = scope.split_whitespace().filter(|part| part.contains("://"));
        let resource = named.clone().find_map(|part| part.rsplit_once('/')).map_or(GRAPH, |(resource, _)| resource);
        (resource.to_owned(), scope.clone())
    }
}
