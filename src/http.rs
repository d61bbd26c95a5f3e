//! The one place where HTTP clients are built.
//!
//! **Invariants:** redirects are never followed (a token goes only where it was meant to go); nothing is
//! decompressed behind our back (the activity module counts bytes on both sides); blobs use another connection
//! pool than tokens and listings, so that a flood of one cannot starve the other; HTTP/1.1 only, one answer per
//! connection at a time, because the streams of one HTTP/2 connection share a flow-control window and one dead
//! peer: a tenant that stalls there would hold up all the others; plain HTTP and this very host are never reached
//! through a proxy, since what such a request carries (an assertion, a secret, a token) would leave the host in the
//! clear.

pub mod headers;
pub mod room;

use std::time::Duration;

use reqwest::{NoProxy, Proxy};

use self::room::Room;

/// The user agent that Microsoft sees.
pub const USER_AGENT: &str = concat!("tenantry/", env!("CARGO_PKG_VERSION"));

/// How long an answer may stand still: five seconds are too few for busy tenants.
pub const STALL: Duration = Duration::from_mins(1);

/// How long a token request, a subscription request or a page of a listing may take as a whole.
pub const TOTAL: Duration = Duration::from_mins(2);

/// This very host, whatever it is called.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// The limits in time of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For name resolution, TCP and TLS together.
    pub connect: Duration,
    /// How long an answer may stand still, its headers and each part of its body.
    pub stall: Duration,
    /// The whole of a request on [`Http::control`]; blobs have a minimum pace instead.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(15), stall: STALL, total: TOTAL }
    }
}

/// Why there are no clients.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A proxy's address cannot be read. It is not repeated, nor is what the parser says of it: it may hold a password.
    #[error("the environment variable `{variable}` is not the address of a proxy: write it as `http://host:port`")]
    Proxy {
        /// Which variable.
        variable: &'static str,
    },
    /// TLS cannot be set up.
    #[error("the HTTP client cannot be built ({0}): are the host's CA certificates installed?")]
    Client(#[from] reqwest::Error),
}

/// The two pools, and the room for what is read as a whole.
#[derive(Debug, Clone)]
pub struct Http {
    /// For tokens, subscriptions and listings.
    pub control: reqwest::Client,
    /// For blobs.
    pub blobs: reqwest::Client,
    /// For the answers that are read as a whole.
    pub room: Room,
}

impl Http {
    /// Both clients with the usual limits, through the proxy that the environment names for HTTPS.
    pub fn new() -> Result<Self, HttpError> {
        Self::through(proxy(|name| std::env::var(name).ok())?.as_ref(), Timeouts::default())
    }

    /// Both clients without a proxy.
    pub fn direct(timeouts: Timeouts) -> Result<Self, HttpError> {
        Self::through(None, timeouts)
    }

    fn through(proxy: Option<&Proxy>, timeouts: Timeouts) -> Result<Self, HttpError> {
        let builder = || match proxy {
            Some(proxy) => builder(timeouts).proxy(proxy.clone()),
            None => builder(timeouts).no_proxy(),
        };
        let control = builder().timeout(timeouts.total).build()?;
        Ok(Self { control, blobs: builder().build()?, room: Room::default() })
    }
}

/// The proxy for HTTPS as curl and others read it from the environment. `HTTP_PROXY` has no meaning here: plain HTTP is
/// for clouds on this very host.
fn proxy(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>, HttpError> {
    let first = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, variable(name)?)));
    let named = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
    let Some((variable, address)) = named.filter(|(_, address)| !address.trim().is_empty()) else { return Ok(None) };
    let proxy = Proxy::https(address.trim()).map_err(|_| HttpError::Proxy { variable })?;
    let (_, direct) = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
    Ok(Some(proxy.no_proxy(NoProxy::from_string(&format!("{direct},{LOOPBACK}")))))
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
fn builder(timeouts: Timeouts) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        // No referer: there is nobody whom it concerns.
        .referer(false)
        .http1_only()
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.stall)
        .pool_idle_timeout(Duration::from_secs(90))
        // As many as there are places for blobs by default and then some: a handshake costs more than an idle socket.
        .pool_max_idle_per_host(96)
        .retry(reqwest::retry::never())
}

/// A client for the daemon's admin socket at `path`. Answers may take as long as they like: `tail` never ends.
#[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
pub fn admin_client(path: &std::path::Path) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().user_agent(USER_AGENT).unix_socket(path).no_proxy().build()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Says no to whoever connects, and remembers the first line that it was sent.
    async fn listen() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let length = connection.read(&mut bytes).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned();
                log.lock().unwrap().push(line);
                let _ = connection.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        (address, seen)
    }

    #[tokio::test]
    async fn only_https_to_other_hosts_goes_through_the_proxy() {
        let (proxy_address, proxied) = listen().await;
        let (own_address, own) = listen().await;
        // As a host has it where everything goes through a proxy.
        let environment = |name: &str| match name {
            "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY" => Some(format!("http://user:pass@{proxy_address}")),
            "NO_PROXY" => Some("internal.example".to_owned()),
            _ => None,
        };
        let proxy = proxy(environment).unwrap();
        let http = Http::through(proxy.as_ref(), Timeouts::default()).unwrap();
        let port = own_address.port();
        for client in [&http.control, &http.blobs] {
            let answer = client.post(format!("http://127.0.0.1:{port}/token")).body("assertion").send().await.unwrap();
            assert_eq!(answer.status(), 403);
            for host in ["127.0.0.1", "127.1.2.3", "localhost"] {
                // No TLS there: that it is asked at all is the point.
                client.get(format!("https://{host}:{port}/")).send().await.unwrap_err();
            }
            client.get("http://manage.invalid/").send().await.unwrap_err();
            client.get("https://internal.example.invalid/").send().await.unwrap_err();
        }
        assert_eq!(*proxied.lock().unwrap(), ["CONNECT internal.example.invalid:443 HTTP/1.1"; 2]);
        assert_eq!(own.lock().unwrap().iter().filter(|line| line.starts_with("POST /token ")).count(), 2);
    }

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_secrets() {
        let only =
            |wanted: &'static str, value: &'static str| move |name: &str| (name == wanted).then(|| value.to_owned());
        assert!(proxy(|_| None).unwrap().is_none());
        assert!(proxy(only("HTTPS_PROXY", " ")).unwrap().is_none());
        assert!(proxy(only("HTTP_PROXY", "http://proxy.example:3128")).unwrap().is_none());
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            assert!(proxy(only(name, "http://proxy.example:3128")).unwrap().is_some(), "{name}");
            assert!(proxy(only(name, "proxy.example:3128")).unwrap().is_some(), "{name}");
        }
        let error = proxy(only("https_proxy", "http://user:s3cret@:no")).unwrap_err();
        assert!(error.to_string().contains("`https_proxy`"), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}
