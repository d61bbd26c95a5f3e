//! The pages that people see.

use std::fmt::Write;

use jiff::Timestamp;

use super::people::Account;
use super::refusal::Refusal;
use crate::http::Response;

const STYLE: &str = "body{font:16px system-ui,sans-serif;max-width:27rem;margin:4rem auto;padding:0 1rem}button{display:block;width:100%;margin:.5rem 0;padding:.7rem;text-align:left;font:inherit}small{color:#555}";

/// Lets somebody choose an account.
pub(super) fn accounts(own: &str, app: &str, accounts: &[Account], hint: Option<&str>) -> Response {
    let mut buttons = String::new();
    for account in accounts {
        let focus = hint.is_some_and(|hint| hint.eq_ignore_ascii_case(&account.upn));
        // Writing to a String cannot fail.
        let _ = write!(
            buttons,
            "<button id=\"account-{}\" name=\"account\" value=\"{}\"{}>{}<br><small>{} · {}</small></button>",
            slug(&account.upn),
            escaped(&account.upn),
            if focus { " autofocus" } else { "" },
            escaped(&account.name),
            escaped(&account.upn),
            escaped(&account.organization),
        );
    }
    let form = form(own, &format!("{buttons}<button id=\"cancel\" name=\"decision\" value=\"cancel\">Cancel</button>"));
    page(200, "accounts", "Pick an account", &format!("<p>to continue to {}</p>{form}", escaped(app)))
}

/// Asks an administrator to consent.
pub(super) fn consent(own: &str, app: &str, account: &Account, roles: &[String]) -> Response {
    let roles = roles.iter().map(|role| escaped(role)).collect::<Vec<_>>().join("</li><li>");
    let form = form(
        own,
        &format!(
            "{}<button id=\"accept\" name=\"decision\" value=\"accept\">Accept</button><button id=\"cancel\" name=\"decision\" value=\"cancel\">Cancel</button><button id=\"switch\" name=\"decision\" value=\"switch\">Use another account</button>",
            chosen(account)
        ),
    );
    let body = format!(
        "<p>{}</p><p>{} would like to, for everybody in {}:</p><ul id=\"roles\"><li>{roles}</li></ul>{form}",
        escaped(&account.upn),
        escaped(app),
        escaped(&account.organization)
    );
    page(200, "consent", "Permissions requested: review for your organization", &body)
}

/// Tells somebody who is no administrator so.
pub(super) fn approval(own: &str, app: &str, account: &Account, refusal: &Refusal, now: Timestamp) -> Response {
    let form = form(
        own,
        &format!(
            "{}<button id=\"switch\" name=\"decision\" value=\"switch\">Have an admin account? Sign in with that account</button><button id=\"return\" name=\"decision\" value=\"return\">Return to the application without granting consent</button>",
            chosen(account)
        ),
    );
    let body = format!(
        "<p>{}</p><p>{} needs permission to access resources in your organization that only an admin can grant.</p>{}{form}",
        escaped(&account.upn),
        escaped(app),
        error(refusal, now)
    );
    page(200, "approval", "Need admin approval", &body)
}

/// A dead end.
pub(super) fn refused(refusal: &Refusal, now: Timestamp) -> Response {
    let body = format!("<p>Sorry, but we’re having trouble signing you in.</p>{}", error(refusal, now));
    page(400, "refused", "Sign in", &body)
}

/// Posts itself to the app.
pub(super) fn post(to: &str, fields: &[(&str, String)]) -> Response {
    let mut inputs = String::new();
    for (name, value) in fields {
        // Writing to a String cannot fail.
        let _ = write!(inputs, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escaped(value));
    }
    let body = format!(
        "<form method=\"post\" name=\"hiddenform\" action=\"{}\">{inputs}<noscript><button>Submit</button></noscript></form><script>document.forms[0].submit()</script>",
        escaped(to)
    );
    page(200, "post", "Working...", &body)
}

fn page(status: u16, id: &str, title: &str, body: &str) -> Response {
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body id=\"{id}\"><h1>{title}</h1>{body}</body></html>"
    );
    Response::new(status, "text/html; charset=utf-8", html)
        .header("Cache-Control", "no-store, no-cache")
        .header("X-Frame-Options", "DENY")
}

fn form(own: &str, fields: &str) -> String {
    format!("<form method=\"post\" action=\"{}\">{fields}</form>", escaped(own))
}

fn chosen(account: &Account) -> String {
    format!("<input type=\"hidden\" name=\"account\" value=\"{}\">", escaped(&account.upn))
}

fn error(refusal: &Refusal, now: Timestamp) -> String {
    format!(
        "<p id=\"error\" data-code=\"{}\">{}</p>",
        refusal.code,
        escaped(&refusal.description(now)).replace("\r\n", "<br>")
    )
}

/// A name as part of an element's id.
fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        let mut page = refused(&Refusal::with(50011, "'<script>\"&"), Timestamp::UNIX_EPOCH);
        let html = String::from_utf8(page.whole().to_vec()).unwrap();
        assert!(html.contains("AADSTS50011: &#39;&lt;script&gt;&quot;&amp;<br>Trace ID"), "{html}");
        assert_eq!(slug("a.b@c-d.example"), "a-b-c-d-example");
    }
}
