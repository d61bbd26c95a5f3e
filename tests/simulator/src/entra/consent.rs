//! Admin consent, v1 and v2: an administrator lets an app have its roles in the tenant, and the directory takes its time
//! to know it everywhere.

use std::time::Duration;

use uuid::Uuid;

use super::asking::{Asking, Decision, Mode, Step, missing, signed_in};
use super::page;
use super::people::Account;
use super::refusal::Refusal;
use super::token::is_resource;
use crate::http::{Request, Response};
use crate::ledger::{ConsentAsked, Verdict};
use crate::scenario::{ACTIVITY_READ, ACTIVITY_READ_DLP, Consent, ConsentError, Replication};
use crate::world::{State, World, every_role};

/// Permissions that an app can ask for. What is not here is outdated, as `ActivityReports.Read`.
const PERMISSIONS: [&str; 5] =
    [ACTIVITY_READ, ACTIVITY_READ_DLP, "ServiceHealth.Read", "ServiceHealth.Read.All", "ServiceMessage.Read.All"];

/// Answers a browser.
pub(super) fn answer(world: &World, request: &Request, segment: &str, version: u8) -> Response {
    let mut note = ConsentAsked {
        at: world.clock.now(),
        directory: segment.to_owned(),
        version,
        client_id: request.parameters().get("client_id").cloned().unwrap_or_default(),
        person: None,
        tenant: None,
        roles: Vec::new(),
        verdict: Verdict::Accepted,
    };
    let asked = if version == 2 && segment == "common" {
        // "Do not use common, as personal accounts can't provide admin consent."
        Err(Refusal::with(900_023, "Specified tenant identifier 'common' is not valid for admin consent."))
    } else {
        Asking::of(world, request, segment, version).and_then(|asking| sensible(world, &asking).map(|()| asking))
    };
    let (response, ended) = match asked {
        Ok(asking) => attend(world, request, &asking, &mut note),
        Err(refusal) => dead_end(&refusal, world),
    };
    if let Some((verdict, roles)) = ended {
        world.lock().book.consents.push(ConsentAsked { roles, verdict, ..note });
    }
    response
}

/// An answer, and how it ended if it did, with the roles granted.
type Attended = (Response, Option<(Verdict, Vec<String>)>);

fn dead_end(refusal: &Refusal, world: &World) -> Attended {
    (page::refused(refusal, world.clock.now()), Some((Verdict::Refused(refusal.code), Vec::new())))
}

fn sensible(world: &World, asking: &Asking) -> Result<(), Refusal> {
    if asking.version == 1 {
        return Ok(());
    }
    for part in asking.given("scope").ok_or_else(|| missing("scope"))?.split_whitespace() {
        let resource = part.rsplit_once('/').map_or("", |(resource, _)| resource);
        if !is_resource(world, resource) {
            return Err(Refusal::with(
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {}.",
                    asking.segment
                ),
            ));
        }
    }
    Ok(())
}

fn attend(world: &World, request: &Request, asking: &Asking, note: &mut ConsentAsked) -> Attended {
    let (account, decision) = match asking.step(world, request) {
        Err(refusal) => return dead_end(&refusal, world),
        Ok(Step::Choose) => return (asking.accounts(world), None),
        Ok(Step::Cancelled) => {
            let answer = asking.back(Mode::Query, declined(world, asking, None, &Refusal::new(65004)));
            return (answer, Some((Verdict::Cancelled, Vec::new())));
        }
        Ok(Step::Chosen(account, decision)) => (account, decision),
    };
    note.person = Some(account.upn.clone());
    note.tenant = Some(account.tenant);
    if let Err(refusal) = account.fits(asking.directory, &asking.app) {
        return dead_end(&refusal, world);
    }
    // Application permissions are consented to by `/.default` only.
    let all = asking.version == 1 || asking.given("scope").is_some_and(|scope| scope.contains("/.default"));
    let consenting = consenting(world, asking, &account, decision, all);
    let ended = consenting.ended();
    let back = |fields| asking.back(Mode::Query, fields);
    let tenant = Some(account.tenant);
    let response = match consenting {
        Consenting::Pending(page) | Consenting::NotAdmin(page, _) => page,
        Consenting::DeadEnd(refusal) => return dead_end(&refusal, world),
        Consenting::Returned(refusal) => back(declined(world, asking, tenant, &refusal)),
        Consenting::Cancelled => back(declined(world, asking, tenant, &Refusal::new(65004))),
        Consenting::Accepted(roles) => back(granted(asking, account.tenant, &roles)),
    };
    (signed_in(response, &account), ended)
}

/// Sends the browser back with a refusal.
pub(super) fn told(world: &World, asking: &Asking, refusal: &Refusal) -> Response {
    asking.back(Mode::Query, declined(world, asking, None, refusal))
}

/// The fields of a consent that was given.
fn granted(asking: &Asking, tenant: Uuid, roles: &[String]) -> Vec<(&'static str, String)> {
    let mut fields = vec![("admin_consent", "True".to_owned()), ("tenant", tenant.to_string())];
    if asking.version == 2 {
        let scope = asking.given("scope").unwrap_or_default();
        let resource = scope.split_whitespace().find_map(|part| part.strip_suffix("/.default"));
        let scope = resource.map_or_else(
            || scope.to_owned(),
            |resource| roles.iter().map(|role| format!("{resource}/{role}")).collect::<Vec<_>>().join(" "),
        );
        fields.push(("scope", scope));
    }
    fields
}

/// The fields of a consent that was not.
fn declined(world: &World, asking: &Asking, tenant: Option<Uuid>, refusal: &Refusal) -> Vec<(&'static str, String)> {
    let admin_consent = ("admin_consent", "True".to_owned());
    if asking.version == 1 {
        let text = if refusal.code == 65004 { "The admin canceled the request" } else { "The admin did not consent" };
        return vec![("error", "permission_denied".to_owned()), ("error_description", text.to_owned()), admin_consent];
    }
    let [error, description, uri]: [_; 3] = asking.error(refusal).try_into().unwrap_or_default();
    let subcode = (refusal.code == 65004).then(|| ("error_subcode", "cancel".to_owned()));
    let shape = world.lock().entra.consent_error;
    match shape {
        ConsentError::Seen => [error].into_iter().chain(subcode).chain([description, uri, admin_consent]).collect(),
        ConsentError::Bare => [error].into_iter().chain(subcode).chain([admin_consent]).collect(),
        ConsentError::Documented => {
            let error = ("error", "consent_required".to_owned());
            let tenant = tenant.map(|tenant| ("tenant", tenant.to_string()));
            [admin_consent, error, description, uri].into_iter().chain(tenant).collect()
        }
    }
}

/// How far somebody has got with consenting.
pub(super) enum Consenting {
    /// This page asks for a decision.
    Pending(Response),
    /// The roles are granted.
    Accepted(Vec<String>),
    Cancelled,
    /// This page tells somebody that only an administrator can.
    NotAdmin(Response, Refusal),
    /// Such a person goes back to the app.
    Returned(Refusal),
    DeadEnd(Refusal),
}

impl Consenting {
    /// How it ended, if it did, with the roles granted.
    pub(super) fn ended(&self) -> Option<(Verdict, Vec<String>)> {
        match self {
            Self::Pending(_) => None,
            Self::Accepted(roles) => Some((Verdict::Accepted, roles.clone())),
            Self::Cancelled => Some((Verdict::Cancelled, Vec::new())),
            Self::NotAdmin(_, refusal) | Self::Returned(refusal) | Self::DeadEnd(refusal) => {
                Some((Verdict::Refused(refusal.code), Vec::new()))
            }
        }
    }
}

/// Lets somebody who has signed in consent; `all` to what the app asks for, or to none of its roles.
pub(super) fn consenting(
    world: &World,
    asking: &Asking,
    account: &Account,
    decision: Decision,
    all: bool,
) -> Consenting {
    let (app, own) = (&asking.app, &asking.own);
    if !account.admin {
        let refusal = Refusal::new(90094);
        return match decision {
            Decision::Return | Decision::Cancel => Consenting::Returned(refusal),
            _ => Consenting::NotAdmin(page::approval(own, &app.name, account, &refusal, asking.now), refusal),
        };
    }
    if app.required_roles.is_empty() {
        return Consenting::DeadEnd(Refusal::with(
            650_056,
            "Misconfigured application. This could be due to one of the following: the client has not listed any permissions for the requested resource in the client's application registration.",
        ));
    }
    if let Some(outdated) = app.required_roles.iter().find(|role| !PERMISSIONS.contains(&role.as_str())) {
        return Consenting::DeadEnd(Refusal::with(
            650_051,
            format!(
                "Application '{}' is requesting permission '{outdated}' that is either invalid or out of date.",
                app.name
            ),
        ));
    }
    match decision {
        Decision::Pending => Consenting::Pending(page::consent(own, &app.name, account, &app.required_roles)),
        Decision::Cancel | Decision::Return => Consenting::Cancelled,
        Decision::Accept => {
            let roles = if all { app.required_roles.clone() } else { Vec::new() };
            world.lock().consent(account.tenant, asking.app_id, roles.clone(), world.clock.uptime());
            Consenting::Accepted(roles)
        }
    }
}

/// A consent that the directory does not know everywhere yet.
#[derive(Clone, Debug)]
pub(crate) struct Replicating {
    consent: Consent,
    /// As time since the start.
    from: Duration,
    until: Duration,
}

impl State {
    /// An administrator consents.
    fn consent(&mut self, tenant: Uuid, client_id: Uuid, roles: Vec<String>, uptime: Duration) {
        let lasts = Duration::from_millis(self.entra.replication_ms);
        let Some(known) = self.tenants.get_mut(&tenant) else { return };
        // Who has consented to every app has nothing to add.
        if known.consents.is_none() {
            return;
        }
        let consent = Consent { client_id, roles };
        if lasts.is_zero() {
            return self.set_consent(tenant, client_id, Some(consent));
        }
        known.replicating.retain(|waiting| waiting.consent.client_id != client_id);
        known.replicating.push(Replicating { consent, from: uptime, until: uptime + lasts });
    }

    /// Whether a tenant knows an app, replicated or not.
    pub(super) fn knows(&self, tenant: Uuid, client_id: Uuid) -> bool {
        self.tenants.get(&tenant).is_some_and(|tenant| {
            tenant.consents.as_ref().is_none_or(|consents| consents.iter().any(|c| c.client_id == client_id))
                || tenant.replicating.iter().any(|waiting| waiting.consent.client_id == client_id)
        })
    }

    /// The roles that an app has in a tenant by now, or the code of the refusal.
    pub(super) fn roles(&mut self, tenant: Uuid, client_id: Uuid, uptime: Duration) -> Result<Vec<String>, u32> {
        let stages = self.entra.replication;
        let Some(known) = self.tenants.get_mut(&tenant) else { return Err(90002) };
        let waiting = known.replicating.iter().find(|waiting| waiting.consent.client_id == client_id).cloned();
        if let Some(waiting) = &waiting
            && uptime >= waiting.until
        {
            known.replicating.retain(|other| other.consent.client_id != client_id);
            self.set_consent(tenant, client_id, Some(waiting.consent.clone()));
            return Ok(waiting.consent.roles.clone());
        }
        match (&known.consents, waiting) {
            (None, _) => Ok(every_role()),
            (Some(consents), waiting) => match (consents.iter().find(|c| c.client_id == client_id), waiting) {
                (Some(consent), _) => Ok(consent.roles.clone()),
                (None, None) => Err(7_000_229),
                (None, Some(waiting)) => match (stages, waiting.third(uptime)) {
                    (Replication::UnknownApp, _) | (Replication::InStages, 0) => Err(700_016),
                    (Replication::NoPrincipal, _) | (Replication::InStages, 1) => Err(7_000_229),
                    _ => Ok(Vec::new()),
                },
            },
        }
    }
}

impl Replicating {
    /// Which third of its time has come: 0, 1 or 2.
    fn third(&self, uptime: Duration) -> u128 {
        let lasts = self.until.saturating_sub(self.from).as_millis().max(1);
        uptime.saturating_sub(self.from).as_millis() * 3 / lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{App, Scenario, Tenant};

    #[test]
    fn a_consent_is_known_in_stages() {
        let (tenant, app) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut scenario = Scenario::new(1).app(App::new(app));
        scenario.entra.replication_ms = 300;
        let mut state = State::new(scenario);
        let roles = vec![ACTIVITY_READ.to_owned()];
        state.add_tenant(Tenant::new(tenant, "T").without_consent(), jiff::Timestamp::UNIX_EPOCH, 0);
        let at = Duration::from_millis;
        assert_eq!(state.roles(tenant, app, at(0)), Err(7_000_229));
        state.consent(tenant, app, roles.clone(), at(1000));
        assert!(state.knows(tenant, app));
        assert_eq!(state.roles(tenant, app, at(1000)), Err(700_016));
        assert_eq!(state.roles(tenant, app, at(1150)), Err(7_000_229));
        assert_eq!(state.roles(tenant, app, at(1250)), Ok(Vec::new()));
        assert_eq!(state.roles(tenant, app, at(1300)), Ok(roles.clone()));
        // A second consent leaves the first in force until it is known.
        state.consent(tenant, app, Vec::new(), at(2000));
        assert_eq!(state.roles(tenant, app, at(2000)), Ok(roles));
        assert_eq!(state.roles(tenant, app, at(2300)), Ok(Vec::new()));
    }
}
