//! What an app asks of somebody's browser, as far as it is checked before anybody has signed in, and how the browser is
//! sent back.
//!
//! **Invariant:** nobody is sent to an address that is not registered for the app, whatever else is wrong.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::people::Account;
use super::refusal::Refusal;
use super::registration::Registration;
use super::{Directory, page, unknown_app};
use crate::http::{Request, Response, percent_decoded};
use crate::world::World;

/// Keeps somebody signed in.
const SESSION: &str = "ESTSAUTH";

/// What is asked.
pub(super) struct Asking {
    pub(super) segment: String,
    pub(super) directory: Directory,
    pub(super) version: u8,
    pub(super) app_id: Uuid,
    pub(super) app: Arc<Registration>,
    pub(super) redirect_uri: String,
    pub(super) now: Timestamp,
    /// Where the pages post to: where they were got from.
    pub(super) own: String,
    parameters: HashMap<String, String>,
}

/// How far somebody has got.
pub(super) enum Step {
    /// Nobody has chosen an account.
    Choose,
    /// Somebody has, and may have decided something.
    Chosen(Account, Decision),
    /// Somebody went away from the choice.
    Cancelled,
}

/// What somebody clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Pending,
    Accept,
    Cancel,
    /// Back to the app, without the consent that only an administrator can give.
    Return,
}

/// How an answer gets back to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Query,
    Fragment,
    FormPost,
}

impl Asking {
    /// What a request asks, if there is somebody to send back to.
    pub(super) fn of(world: &World, request: &Request, segment: &str, version: u8) -> Result<Self, Refusal> {
        let parameters = request.parameters();
        let directory = Directory::named(world, segment)?;
        let given = |name: &str| parameters.get(name).filter(|value| !value.is_empty()).cloned();
        let client_id = given("client_id").ok_or_else(|| missing("client_id"))?;
        let app_id = Uuid::try_parse(&client_id).ok();
        let app = app_id.and_then(|id| world.lock().apps.get(&id).cloned());
        let (Some(app_id), Some(app)) = (app_id, app) else { return Err(unknown_app(&client_id, segment)) };
        let redirect_uri = given("redirect_uri").ok_or_else(|| Refusal::new(900_971))?;
        if !app.redirect_uris.contains(&redirect_uri) {
            return Err(Refusal::with(
                50011,
                format!(
                    "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured for the application '{client_id}'. Make sure the redirect URI sent in the request matches one added to your application in the Azure portal."
                ),
            ));
        }
        app.usable_in(directory, &client_id, segment)?;
        let own = format!("{}?{}", request.path, request.query);
        let segment = segment.to_owned();
        Ok(Self { segment, directory, version, app_id, app, redirect_uri, now: world.clock.now(), own, parameters })
    }

    /// A parameter that is there and not empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// How far somebody has got, by what the browser sends.
    pub(super) fn step(&self, world: &World, request: &Request) -> Result<Step, Refusal> {
        if request.method == "POST" {
            let form = request.form();
            let decision = match form.get("decision").map(String::as_str) {
                None => Decision::Pending,
                Some("accept") => Decision::Accept,
                Some("cancel") => Decision::Cancel,
                Some("return") => Decision::Return,
                // `switch`, and what no page sends.
                Some(_) => return Ok(Step::Choose),
            };
            return match form.get("account") {
                Some(upn) => match world.lock().account(upn) {
                    Some(account) => Ok(Step::Chosen(account, decision)),
                    None => Err(Refusal::with(
                        50034,
                        format!("The user account {upn} does not exist in the {} directory.", self.segment),
                    )),
                },
                None if decision == Decision::Cancel => Ok(Step::Cancelled),
                None => Ok(Step::Choose),
            };
        }
        let again = matches!(self.given("prompt"), Some("login" | "select_account"));
        let signed_in = session(request).filter(|_| !again).and_then(|upn| world.lock().account(&upn));
        match signed_in.filter(|account| account.fits(self.directory, &self.app).is_ok()) {
            Some(account) => Ok(Step::Chosen(account, Decision::Pending)),
            None => Ok(Step::Choose),
        }
    }

    /// The page that lets somebody choose an account.
    pub(super) fn accounts(&self, world: &World) -> Response {
        let accounts = world.lock().accounts();
        page::accounts(&self.own, &self.app.name, &accounts, self.given("login_hint"))
    }

    /// How the app wants its answer.
    pub(super) fn mode(&self) -> Mode {
        match self.given("response_mode") {
            Some("form_post") => Mode::FormPost,
            Some("fragment") => Mode::Fragment,
            _ => Mode::Query,
        }
    }

    /// Sends the browser back to the app with these fields and the app's `state`.
    pub(super) fn back(&self, mode: Mode, mut fields: Vec<(&str, String)>) -> Response {
        if let Some(state) = self.parameters.get("state") {
            fields.push(("state", state.clone()));
        }
        if mode == Mode::FormPost {
            return page::post(&self.redirect_uri, &fields);
        }
        let joint = match mode {
            Mode::Fragment => '#',
            _ if self.redirect_uri.contains('?') => '&',
            _ => '?',
        };
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let location = format!("{}{joint}{}", self.redirect_uri, fields.join("&"));
        Response::empty(302).header("Location", location).header("Cache-Control", "no-store, no-cache")
    }

    /// The fields of an error.
    pub(super) fn error(&self, refusal: &Refusal) -> Vec<(&'static str, String)> {
        vec![
            ("error", refusal.error().to_owned()),
            ("error_description", refusal.description(self.now)),
            ("error_uri", format!("https://login.microsoftonline.com/error?code={}", refusal.code)),
        ]
    }
}

impl Registration {
    /// Whether people of a directory can use the app.
    pub(super) fn usable_in(&self, directory: Directory, client_id: &str, segment: &str) -> Result<(), Refusal> {
        match (self.only_in, directory) {
            (None, _) => Ok(()),
            (Some(home), Directory::Tenant(tenant)) if home == tenant => Ok(()),
            (Some(_), Directory::Tenant(_)) => Err(unknown_app(client_id, segment)),
            (Some(_), _) => Err(Refusal::with(
                50194,
                format!(
                    "Application '{client_id}' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps created after '10/15/2018'. Use a tenant-specific endpoint or configure the application to be multi-tenant."
                ),
            )),
        }
    }
}

/// A parameter is missing.
pub(super) fn missing(name: &str) -> Refusal {
    Refusal::with(900_144, format!("The request body must contain the following parameter: '{name}'."))
}

/// Keeps an account signed in.
pub(super) fn signed_in(response: Response, account: &Account) -> Response {
    let cookie = format!("{SESSION}={}; Path=/; HttpOnly; SameSite=Lax", encoded(&account.upn));
    response.header("Set-Cookie", cookie)
}

fn session(request: &Request) -> Option<String> {
    let cookies = request.header("cookie")?;
    let value = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(SESSION)?.strip_prefix('='))?;
    Some(percent_decoded(value))
}

/// Percent-encodes as Entra does: lower-case digits, a plus for a space.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'!' | b'*' | b'(' | b')' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_entra_does() {
        assert_eq!(encoded("AADSTS65004: no\r\nü@x/y"), "AADSTS65004%3a+no%0d%0a%c3%bc%40x%2fy");
        assert_eq!(percent_decoded(&encoded("a+b c").replace('+', " ")), "a+b c");
    }
}
