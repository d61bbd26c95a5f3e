//! Who may ask the operators' listener for what.
//!
//! | asked for | without a token configured | with one |
//! |---|---|---|
//! | `/healthz`, `/readyz` | anyone | anyone |
//! | metrics, state | anyone who can reach the address, which then is loopback | who shows it |
//! | records | nobody: any user of the host could read them | who shows it |
//!
//! Where callers must show a certificate, nobody else gets as far as this, and they need not show more unless a token is
//! configured too.
//!
//! A web page that somebody on this host looks at can send requests to loopback under a name of its own that leads
//! there. Such a request carries that name as `Host`, so that whoever shows nothing must ask by number or `localhost`.
//! Over TLS the browser sees that the certificate is for another name, so that any name will do.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::secret::Secret;
use crate::tls::Tls;

/// What a caller must show.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) token: Option<Secret>,
    pub(super) channel: Channel,
}

/// What is known of a caller from its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Nothing.
    Plain,
    /// It has seen our certificate.
    Encrypted,
    /// It has shown one itself.
    Certified,
}

impl Channel {
    pub(super) fn of(tls: Option<&Tls>) -> Self {
        match tls {
            None => Self::Plain,
            Some(tls) if tls.authorities().is_none() => Self::Encrypted,
            Some(_) => Self::Certified,
        }
    }
}

/// How much a path gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    Health,
    State,
    Records,
}

impl Worth {
    fn of(path: &str) -> Self {
        match path {
            "/healthz" | "/readyz" => Self::Health,
            "/v1/export" | "/v1/tail" => Self::Records,
            // What Microsoft has told a tenant: an export of it is guarded alike.
            path if path.starts_with("/api/") => Self::Records,
            _ => Self::State,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It shows nothing, or something wrong.
    Nobody,
    /// Nobody can show anything.
    Records,
    /// It was sent here under a name that is not ours.
    Misdirected,
}

impl Access {
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.is_shown(headers) {
            return Ok(());
        }
        if self.channel == Channel::Plain && !is_numeric(headers) {
            return Err(Refusal::Misdirected);
        }
        match (Worth::of(path), &self.token) {
            (Worth::Health, _) | (Worth::State, None) => Ok(()),
            (Worth::Records, None) if self.channel == Channel::Certified => Ok(()),
            (Worth::Records, None) => Err(Refusal::Records),
            (_, Some(_)) => Err(Refusal::Nobody),
        }
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return false };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, shown) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(shown)
        });
        shown.is_some_and(|shown| verify_slices_are_equal(shown, token.expose().as_bytes()).is_ok())
    }
}

/// Whether the request names this host by an address or as `localhost`.
fn is_numeric(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Nobody => {
                let ask = [(header::WWW_AUTHENTICATE, "Bearer realm=\"tenantry\"")];
                (StatusCode::UNAUTHORIZED, ask, "send the token of `[operator] token_file` as `Authorization: Bearer`")
                    .into_response()
            }
            Self::Records => {
                let text = "records are handed out to who shows a token or a certificate: set `[operator] token_file` or \
                            `client_ca_file`, or use `tenantry export` and `tenantry tail` on the host itself";
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Self::Misdirected => {
                let text = "without a token, ask by the listener's address or as `localhost`";
                (StatusCode::MISDIRECTED_REQUEST, text).into_response()
            }
        }
    }
}

/// Refuses, or lets pass.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(host: &str, authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !host.is_empty() {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        headers
    }

    #[test]
    fn records_need_a_token_and_state_does_where_there_is_one() {
        let open = Access { token: None, channel: Channel::Plain };
        let closed = Access { token: Some(TOKEN.to_owned().into()), channel: Channel::Plain };
        let right = Some("Bearer 0123456789abcdef");
        for (access, path, shown, expected) in [
            (&open, "/healthz", None, Ok(())),
            (&open, "/metrics", None, Ok(())),
            (&open, "/v1/status", None, Ok(())),
            (&open, "/v1/export", None, Err(Refusal::Records)),
            (&open, "/v1/tail", right, Err(Refusal::Records)),
            (&open, "/api/v1.0/contoso/ServiceComms/Services", None, Err(Refusal::Records)),
            (&closed, "/api/v1.0/contoso/ServiceComms/Services", None, Err(Refusal::Nobody)),
            (&closed, "/api/v1.0/contoso/ServiceComms/Services", right, Ok(())),
            (&closed, "/healthz", None, Ok(())),
            (&closed, "/readyz", None, Ok(())),
            (&closed, "/metrics", None, Err(Refusal::Nobody)),
            (&closed, "/metrics", right, Ok(())),
            (&closed, "/metrics", Some("bearer 0123456789abcdef"), Ok(())),
            (&closed, "/metrics", Some("Bearer 0123456789abcdeg"), Err(Refusal::Nobody)),
            (&closed, "/metrics", Some("Bearer 0123456789abcde"), Err(Refusal::Nobody)),
            (&closed, "/metrics", Some("Bearer "), Err(Refusal::Nobody)),
            (&closed, "/metrics", Some("Basic 0123456789abcdef"), Err(Refusal::Nobody)),
            (&closed, "/v1/export", None, Err(Refusal::Nobody)),
            (&closed, "/v1/export", right, Ok(())),
            (&closed, "/unknown", None, Err(Refusal::Nobody)),
        ] {
            let checked = access.check(path, &headers("127.0.0.1:9464", shown));
            assert_eq!(checked, expected, "{path} {shown:?} {access:?}");
        }
    }

    #[test]
    fn a_name_that_leads_here_is_refused_unless_a_token_is_shown() {
        let open = Access { token: None, channel: Channel::Plain };
        let closed = Access { token: Some(TOKEN.to_owned().into()), channel: Channel::Plain };
        for host in ["127.0.0.1", "127.0.0.1:9464", "[::1]:9464", "[::1]", "localhost", "LOCALHOST:1", "192.0.2.1:80"] {
            assert_eq!(open.check("/metrics", &headers(host, None)), Ok(()), "{host}");
        }
        for host in ["", "attacker.example", "attacker.example:9464", "127.0.0.1.attacker.example", "localhost.example"]
        {
            assert_eq!(open.check("/metrics", &headers(host, None)), Err(Refusal::Misdirected), "{host}");
            assert_eq!(closed.check("/healthz", &headers(host, None)), Err(Refusal::Misdirected), "{host}");
            assert_eq!(closed.check("/metrics", &headers(host, Some("Bearer 0123456789abcdef"))), Ok(()), "{host}");
        }
    }

    #[test]
    fn over_tls_any_name_will_do_and_a_certificate_opens_records() {
        let access =
            |token: Option<&str>, channel| Access { token: token.map(|token| token.to_owned().into()), channel };
        let right = Some("Bearer 0123456789abcdef");
        for (access, path, shown, expected) in [
            (access(None, Channel::Encrypted), "/metrics", None, Ok(())),
            (access(None, Channel::Encrypted), "/v1/export", None, Err(Refusal::Records)),
            (access(None, Channel::Certified), "/v1/export", None, Ok(())),
            (access(Some(TOKEN), Channel::Encrypted), "/metrics", None, Err(Refusal::Nobody)),
            (access(Some(TOKEN), Channel::Certified), "/metrics", None, Err(Refusal::Nobody)),
            (access(Some(TOKEN), Channel::Certified), "/v1/export", None, Err(Refusal::Nobody)),
            (access(Some(TOKEN), Channel::Certified), "/v1/export", right, Ok(())),
        ] {
            assert_eq!(access.check(path, &headers("tenantry.example", shown)), expected, "{path} {access:?}");
        }
    }
}
