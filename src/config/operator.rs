//! `[operator]`: where operators and their monitoring ask, and what they must show.
//!
//! **Invariant:** who can reach the listener from another host must show something, a token or a certificate: without
//! it, an address that is not loopback is refused here.

use std::net::SocketAddr;

use super::credentials::secret_file;
use super::listener;
use super::merged::{Merged, Range};
use super::problem::Findings;
use super::sections::{number_or, value_or};
use super::settings::Operator;

/// A token of fewer characters than this can be guessed.
const TOKEN_LENGTH: usize = 16;

pub(super) fn operator(merged: &Merged, findings: &mut Findings) -> Operator {
    let table = merged.section("operator");
    let default = Operator::default();
    let token = table.path("token_file", findings).and_then(|file| {
        let key = table.key("token_file");
        let token = secret_file(&file.value, &file.place, &key, findings)?;
        if token.expose().len() < TOKEN_LENGTH || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!(
                "the token in `{}` must be {TOKEN_LENGTH} characters or more, letters, digits and signs; make one with \
                 `openssl rand -hex 32`",
                file.value.display()
            );
            findings.problem(&file.place, &key, message);
        }
        Some((token, file.value))
    });
    let tls = listener::tls(&table, findings);
    let place = table.place_of("listen");
    let listen = value_or(table.parsed("listen", findings, |text| address(text, "127.0.0.1:9464")), default.listen);
    if let Some(address) = listen.filter(|address| !address.ip().to_canonical().is_loopback()) {
        let key = table.key("listen");
        // What is named and cannot be used is a problem of its own.
        if !table.has("token_file") && !table.has("client_ca_file") {
            let message = format!(
                "`{address}` can be reached from other hosts, and nothing says who may ask; set `token_file`, or \
                 `client_ca_file` (with `certificate_file`), or listen on `127.0.0.1:{}`",
                address.port()
            );
            findings.problem(&place, &key, message);
        } else if !table.has("certificate_file") && table.has("token_file") {
            let message = format!(
                "the token and what it opens cross the network to `{address}` in the clear; set `certificate_file`, \
                 unless something else encrypts the whole way"
            );
            findings.warn(&place, &key, message);
        }
    }
    let labels =
        Range { least: 0, most: 10_000, below: "", above: "each of them is some thirty time series for Prometheus" };
    let tenant_labels = number_or(table.count("tenant_labels", &labels, findings), default.tenant_labels);
    Operator { listen, token, tls, tenant_labels }
}

/// An address with its port, or `off`.
pub(super) fn address(text: &str, such_as: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = || format!("`{text}` is no address; write one with its port, such as `{such_as}`, or `off`");
    text.parse().map(Some).map_err(|_| wrong())
}
