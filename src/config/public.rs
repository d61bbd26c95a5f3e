//! `[public]`: the pages on which customers consent, the address at which Microsoft sends them back, and the webhook.
//!
//! **Invariant:** links and redirect URIs are made of `url` alone, never of what a request says of itself; and nothing is
//! served in the clear but on loopback, where a reverse proxy may stand in front.

use std::path::PathBuf;

use url::Url;

use super::credentials::secret_file;
use super::listener;
use super::merged::{Merged, Table};
use super::operator::address;
use super::problem::Findings;
use super::sections::value_or;
use super::settings::{ConsentFlow, Public};
use crate::secret::Secret;

/// What a name or a contact may have, to fit on a phone.
const LONGEST_NAME: usize = 100;
/// A key of fewer characters than this can be guessed by who has seen a proof.
const WEBHOOK_KEY_LENGTH: usize = 32;

pub(super) fn public(merged: &Merged, findings: &mut Findings) -> Public {
    let table = merged.section("public");
    let default = Public::default();
    let tls = listener::tls(&table, findings);
    let place = table.place_of("listen");
    let listen = value_or(table.parsed("listen", findings, |text| address(text, "127.0.0.1:8443")), default.listen);
    let url = table.parsed("url", findings, base).map(|url| url.value);
    if let Some(address) = listen {
        let key = table.key("listen");
        if !table.has("url") {
            let message = "the pages have no address that a customer could open; set `url`, such as \
                           `https://collector.example`";
            findings.missing(&place, &table.key("url"), message);
        }
        if !address.ip().to_canonical().is_loopback() && !table.has("certificate_file") {
            let message = format!(
                "`{address}` can be reached from other hosts, and what crosses the network would be in the clear; set \
                 `certificate_file`, or listen on `127.0.0.1:{}` behind a reverse proxy that speaks TLS",
                address.port()
            );
            findings.problem(&place, &key, message);
        }
    }
    let webhook_key = webhook_key(&table, url.as_ref(), listen.is_some(), findings);
    let words = |key: &str, findings: &mut Findings| table.parsed(key, findings, short).map(|text| text.value);
    Public {
        listen,
        url,
        tls,
        organisation: words("organisation", findings),
        contact: words("contact", findings),
        flow: value_or(table.word("flow", &[("v2", ConsentFlow::V2), ("v1", ConsentFlow::V1)], findings), default.flow),
        webhook_key,
    }
}

/// The key that the proofs of notifications are made of. Microsoft notifies over HTTPS alone.
fn webhook_key(
    table: &Table<'_>,
    url: Option<&Url>,
    listens: bool,
    findings: &mut Findings,
) -> Option<(Secret, PathBuf)> {
    let file = table.path("webhook_key_file", findings)?;
    let key = table.key("webhook_key_file");
    if !listens || url.is_none_or(|url| url.scheme() != "https") {
        let message = "Microsoft sends notifications to an `https` address only: set `listen`, and `url` to one such as \
                       `https://collector.example`";
        findings.problem(&file.place, &key, message);
    }
    let secret = secret_file(&file.value, &file.place, &key, findings)?;
    if secret.expose().len() < WEBHOOK_KEY_LENGTH {
        let message = format!(
            "the key in `{}` must be {WEBHOOK_KEY_LENGTH} characters or more; make one with `openssl rand -hex 32`",
            file.value.display()
        );
        findings.problem(&file.place, &key, message);
    }
    Some((secret, file.value))
}

/// Where customers find the pages: no path, no query, and `http` on this host alone.
fn base(text: &str) -> Result<Url, String> {
    let Ok(url) = Url::parse(text) else {
        return Err(format!("`{text}` is no address; write one such as `https://collector.example`"));
    };
    let is_bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_bare {
        return Err(format!("`{text}` must be scheme and host alone, such as `https://collector.example`"));
    }
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err(format!(
            "`{text}` must begin with `https://`: Microsoft sends browsers back to nothing else, save on localhost"
        )),
    }
}

/// A line for people.
fn short(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("write a line of text".to_owned());
    }
    if text.chars().count() > LONGEST_NAME {
        return Err(format!("it has more than {LONGEST_NAME} characters; write less"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_of_scheme_and_host() {
        for good in [
            "https://collector.example",
            "https://collector.example:8443/",
            "http://localhost:8080",
            "http://127.0.0.1:1",
        ] {
            assert!(base(good).is_ok(), "{good}");
        }
        for (wrong, why) in [
            ("collector.example", "is no address"),
            ("http://collector.example", "must begin with `https://`"),
            ("http://127.0.0.1.collector.example", "must begin with `https://`"),
            ("ftp://collector.example", "must begin with `https://`"),
            ("https://collector.example/tenantry", "scheme and host alone"),
            ("https://collector.example/?a=b", "scheme and host alone"),
            ("https://user@collector.example", "scheme and host alone"),
            ("https://collector.example/#x", "scheme and host alone"),
        ] {
            let told = base(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }

    #[test]
    fn what_people_read_is_a_line() {
        assert_eq!(short("  Fabrikam Security "), Ok("Fabrikam Security".to_owned()));
        for wrong in ["", " ", "a\nb", &"x".repeat(101)] {
            assert!(short(wrong).is_err(), "{wrong:?}");
        }
    }
}
