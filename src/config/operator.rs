//! `[operator]`: where operators and their monitoring ask, and what they must show.
//!
//! **Invariant:** who can reach the listener from another host must show something: without it, an address that is not
//! loopback is refused here.

use std::net::SocketAddr;

use super::credentials::secret_file;
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
    let place = table.place_of("listen");
    let listen = value_or(table.parsed("listen", findings, address), default.listen);
    if let Some(address) = listen.filter(|address| !address.ip().to_canonical().is_loopback()) {
        let key = table.key("listen");
        if table.has("token_file") {
            let message = format!(
                "the token crosses the network to `{address}` in the clear; that is for networks that you trust"
            );
            findings.warn(&place, &key, message);
        } else {
            let message = format!(
                "`{address}` can be reached from other hosts, and nothing says who may ask; set `token_file`, or \
                 listen on `127.0.0.1:{}`",
                address.port()
            );
            findings.problem(&place, &key, message);
        }
    }
    let labels =
        Range { least: 0, most: 10_000, below: "", above: "each of them is some thirty time series for Prometheus" };
    let tenant_labels = number_or(table.count("tenant_labels", &labels, findings), default.tenant_labels);
    Operator { listen, token, tenant_labels }
}

/// An address with its port, or `off`.
fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = || format!("`{text}` is no address; write one with its port, such as `127.0.0.1:9464`, or `off`");
    text.parse().map(Some).map_err(|_| wrong())
}
