//! Sign-in, v1 and v2: somebody chooses an account, the app gets an authorization code.
//!
//! At the v1 endpoint that includes consent, as the Management APIs' documentation of 2019 has it: for an app that the
//! tenant does not know yet, or with `prompt=admin_consent`.

use super::asking::{Asking, Decision, Step, missing, signed_in};
use super::code::Code;
use super::consent::{Consenting, consenting};
use super::page;
use super::people::Account;
use super::refusal::Refusal;
use crate::http::{Request, Response};
use crate::ledger::{ConsentAsked, SignIn, Verdict};
use crate::world::World;

/// Fewest and most characters of a PKCE challenge or verifier (RFC 7636).
const PKCE_LENGTH: std::ops::RangeInclusive<usize> = 43..=128;

/// Answers a browser.
pub(super) fn answer(world: &World, request: &Request, segment: &str, version: u8) -> Response {
    let parameters = request.parameters();
    let text = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let mut note = SignIn {
        at: world.clock.now(),
        directory: segment.to_owned(),
        version,
        client_id: text("client_id"),
        redirect_uri: text("redirect_uri"),
        person: None,
        tenant: None,
        verdict: Verdict::Accepted,
    };
    let (response, verdict) = match Asking::of(world, request, segment, version) {
        Ok(asking) => attend(world, request, &asking, &mut note),
        Err(refusal) => dead_end(&refusal, world),
    };
    if let Some(verdict) = verdict {
        world.lock().book.sign_ins.push(SignIn { verdict, ..note });
    }
    response
}

/// An answer, and how it ended if it did.
type Attended = (Response, Option<Verdict>);

fn dead_end(refusal: &Refusal, world: &World) -> Attended {
    (page::refused(refusal, world.clock.now()), Some(Verdict::Refused(refusal.code)))
}

fn attend(world: &World, request: &Request, asking: &Asking, note: &mut SignIn) -> Attended {
    let mode = asking.mode();
    let back = |refusal: &Refusal| (asking.back(mode, asking.error(refusal)), Some(Verdict::Refused(refusal.code)));
    if let Err(refusal) = sensible(asking) {
        return back(&refusal);
    }
    match asking.step(world, request) {
        Err(refusal) => dead_end(&refusal, world),
        Ok(Step::Choose) if asking.given("prompt") == Some("none") => back(&Refusal::new(50058)),
        Ok(Step::Choose) => (asking.accounts(world), None),
        Ok(Step::Cancelled) => (asking.back(mode, cancelled(asking)), Some(Verdict::Cancelled)),
        Ok(Step::Chosen(account, decision)) => {
            note.person = Some(account.upn.clone());
            note.tenant = Some(account.tenant);
            match account.fits(asking.directory, &asking.app) {
                Ok(()) => {
                    let (response, verdict) = chosen(world, asking, &account, decision);
                    (signed_in(response, &account), verdict)
                }
                Err(refusal) => dead_end(&refusal, world),
            }
        }
    }
}

/// What is wrong in a way that the app can be told.
fn sensible(asking: &Asking) -> Result<(), Refusal> {
    match asking.given("response_type") {
        None => return Err(missing("response_type")),
        Some("code") => {}
        Some(other) => {
            return Err(Refusal::with(700_054, format!("response_type '{other}' is not enabled for the application.")));
        }
    }
    match (asking.version, asking.given("prompt")) {
        (_, None | Some("login" | "none" | "consent" | "select_account")) | (1, Some("admin_consent")) => {}
        (_, Some(other)) => return Err(Refusal::with(90023, format!("Unsupported 'prompt' value: '{other}'."))),
    }
    if asking.version == 2 {
        if asking.given("resource").is_some() {
            return Err(Refusal::with(901_002, "The 'resource' request parameter is not supported."));
        }
        asking.given("scope").ok_or_else(|| missing("scope"))?;
    }
    match (asking.given("code_challenge"), asking.given("code_challenge_method")) {
        (Some(challenge), None | Some("S256" | "plain")) if PKCE_LENGTH.contains(&challenge.len()) => Ok(()),
        (None, _) => Ok(()),
        (Some(_), _) => Err(Refusal::new(501_491)),
    }
}

fn cancelled(asking: &Asking) -> Vec<(&'static str, String)> {
    let mut fields = asking.error(&Refusal::new(65004));
    fields.insert(1, ("error_subcode", "cancel".to_owned()));
    fields
}

fn chosen(world: &World, asking: &Asking, account: &Account, decision: Decision) -> Attended {
    let mode = asking.mode();
    let admin_consent = asking.given("prompt") == Some("admin_consent");
    let known = world.lock().knows(account.tenant, asking.app_id);
    if asking.version == 1 && (admin_consent || (asking.given("resource").is_some() && !known)) {
        let consenting = consenting(world, asking, account, decision, true);
        note_consent(world, asking, account, &consenting);
        match consenting {
            Consenting::Pending(page) => return (page, None),
            Consenting::NotAdmin(page, refusal) => return (page, Some(Verdict::Refused(refusal.code))),
            Consenting::DeadEnd(refusal) => return dead_end(&refusal, world),
            Consenting::Returned(refusal) => {
                return (asking.back(mode, asking.error(&refusal)), Some(Verdict::Refused(refusal.code)));
            }
            Consenting::Cancelled => return (asking.back(mode, cancelled(asking)), Some(Verdict::Cancelled)),
            Consenting::Accepted(_) => {}
        }
    } else if decision == Decision::Cancel {
        return (asking.back(mode, cancelled(asking)), Some(Verdict::Cancelled));
    }
    let code = world.lock().issue(Code::new(asking, account));
    let mut fields = vec![("code", code), ("session_state", uuid::Uuid::new_v4().to_string())];
    if admin_consent {
        fields.push(("admin_consent", "True".to_owned()));
    }
    (asking.back(mode, fields), Some(Verdict::Accepted))
}

/// Enters a consent in the books, if something came of it.
fn note_consent(world: &World, asking: &Asking, account: &Account, consenting: &Consenting) {
    if let Some((verdict, roles)) = consenting.ended() {
        world.lock().book.consents.push(ConsentAsked {
            at: asking.now,
            directory: asking.segment.clone(),
            version: asking.version,
            client_id: asking.app_id.to_string(),
            person: Some(account.upn.clone()),
            tenant: Some(account.tenant),
            roles,
            verdict,
        });
    }
}
