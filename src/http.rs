//! The one place where HTTP clients are built.
//!
//! **Invariants:** redirects are never followed (a token goes only where it was meant to go); nothing is
//! decompressed behind our back (the activity module counts bytes on both sides); blobs use another connection
//! pool than tokens and listings, so that a flood of one cannot starve the other; HTTP/1.1 only, one answer per
//! connection at a time, because the streams of one HTTP/2 connection share a flow-control window and one dead
//! peer: a tenant that stalls there would hold up all the others; plain HTTP and this very host are never reached
//! through a proxy, since what such a request carries (an assertion, a secret, a token) would leave the host in the
//! clear.

pub mod fault;
pub mod headers;
pub mod room;
mod trust;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Method, NoProxy, RequestBuilder};
use tokio_rustls::rustls;
use url::Url;

use self::room::Room;
use crate::config::{self, Network, ProxyCredentials};

/// The user agent that Microsoft sees.
pub const USER_AGENT: &str = concat!("tenantry/", env!("CARGO_PKG_VERSION"));

/// How long an answer may stand still: five seconds are too few for busy tenants.
pub const STALL: Duration = Duration::from_mins(1);

/// How long a token request, a subscription request or a page of a listing may take as a whole.
pub const TOTAL: Duration = Duration::from_mins(2);

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
    /// There is nobody to believe, or TLS cannot be set up for another reason.
    #[error("TLS cannot be set up ({0}): are the host's CA certificates installed?")]
    Tls(#[from] rustls::Error),
    /// The client cannot be built.
    #[error("the HTTP client cannot be built ({0})")]
    Client(#[from] reqwest::Error),
}

/// A pool of connections, which goes by the network's settings of the day: what is under way ends as it began.
#[derive(Debug, Clone)]
pub struct Pool(Arc<RwLock<Ways>>);

/// A client, and the settings that it was built by.
#[derive(Debug, Clone)]
struct Ways {
    client: Client,
    network: Arc<Network>,
}

impl Pool {
    fn new(ways: Ways) -> Self {
        Self(Arc::new(RwLock::new(ways)))
    }

    /// The client for the next request.
    #[must_use]
    pub fn client(&self) -> Client {
        self.ways().client
    }

    /// The network's settings that the next request goes by.
    #[must_use]
    pub fn network(&self) -> Arc<Network> {
        self.ways().network
    }

    fn ways(&self) -> Ways {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request that is to be sent.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client().request(method, url)
    }

    fn go_on_with(&self, ways: Ways) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ways;
    }
}

/// The two pools, and the room for what is read as a whole.
#[derive(Debug, Clone)]
pub struct Http {
    /// For tokens, subscriptions and listings.
    pub control: Pool,
    /// For blobs.
    pub blobs: Pool,
    /// For the answers that are read as a whole.
    pub room: Room,
}

impl Http {
    /// Both pools with the usual limits, on the ways of `network`. Blocks on the file system: this host's roots are read.
    pub fn new(network: &Network) -> Result<Self, HttpError> {
        Self::through(network, Timeouts::default())
    }

    /// Both pools without a proxy.
    pub fn direct(timeouts: Timeouts) -> Result<Self, HttpError> {
        Self::through(&Network::default(), timeouts)
    }

    /// Goes on with the ways of `network`, for all clones. Blocks as [`new`](Self::new) does; on an error all is as it was.
    pub fn follow(&self, network: &Network) -> Result<(), HttpError> {
        let [control, blobs] = ways(network, Timeouts::default())?;
        self.control.go_on_with(control);
        self.blobs.go_on_with(blobs);
        Ok(())
    }

    fn through(network: &Network, timeouts: Timeouts) -> Result<Self, HttpError> {
        let [control, blobs] = ways(network, timeouts)?.map(Pool::new);
        Ok(Self { control, blobs, room: Room::default() })
    }
}

/// Those for what is small, and those for blobs.
fn ways(network: &Network, timeouts: Timeouts) -> Result<[Ways; 2], HttpError> {
    let tls = trust::client(network.roots.as_ref())?;
    let proxy = network.proxy.as_ref().map(proxy).transpose()?;
    let builder = || {
        let builder = builder(timeouts).tls_backend_preconfigured(tls.clone());
        match &proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder.no_proxy(),
        }
    };
    let network = Arc::new(network.clone());
    let ways = |client| Ways { client, network: Arc::clone(&network) };
    Ok([ways(builder().timeout(timeouts.total).build()?), ways(builder().build()?)])
}

/// For HTTPS only: plain HTTP is for clouds on this very host.
fn proxy(proxy: &config::Proxy) -> Result<reqwest::Proxy, reqwest::Error> {
    let through = reqwest::Proxy::https(proxy.address.clone())?.no_proxy(NoProxy::from_string(&proxy.past()));
    Ok(match &proxy.credentials {
        Some(ProxyCredentials { user, password, .. }) => through.basic_auth(user.expose(), password.expose()),
        None => through,
    })
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

/// The host of an address, for people; the rest of it may be long, and is nobody's business.
#[must_use]
pub fn host_of(address: &str) -> String {
    match Url::parse(address) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        _ => address.chars().filter(|c| !c.is_control()).take(60).collect(),
    }
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

    fn through(address: SocketAddr, direct: &[&str]) -> Network {
        let secret = |text: &str| crate::secret::Secret::from(text.to_owned());
        let proxy = config::Proxy {
            address: format!("http://{address}").parse().unwrap(),
            credentials: Some(ProxyCredentials { user: secret("user"), password: secret("pass"), file: None }),
            from: config::Setting::Key("proxy"),
            direct: direct.iter().map(|host| (*host).to_owned()).collect(),
            direct_from: config::Setting::Key("no_proxy"),
        };
        Network { proxy: Some(proxy), ..Network::default() }
    }

    #[tokio::test]
    async fn only_https_to_other_hosts_goes_through_the_proxy() {
        let (proxy_address, proxied) = listen().await;
        let (own_address, own) = listen().await;
        let network = through(proxy_address, &["internal.example"]);
        let http = Http::new(&network).unwrap();
        let port = own_address.port();
        for client in [&http.control, &http.blobs] {
            let answer =
                client.client().post(format!("http://127.0.0.1:{port}/token")).body("assertion").send().await.unwrap();
            assert_eq!(answer.status(), 403);
            for host in ["127.0.0.1", "127.1.2.3", "localhost"] {
                // No TLS there: that it is asked at all is the point.
                client.client().get(format!("https://{host}:{port}/")).send().await.unwrap_err();
            }
            client.client().get("http://manage.invalid/").send().await.unwrap_err();
            client.client().get("https://internal.example.invalid/").send().await.unwrap_err();
        }
        assert_eq!(*proxied.lock().unwrap(), ["CONNECT internal.example.invalid:443 HTTP/1.1"; 2]);
        assert_eq!(own.lock().unwrap().iter().filter(|line| line.starts_with("POST /token ")).count(), 2);
    }

    #[tokio::test]
    async fn clones_follow_to_another_proxy() {
        let ((first, _first_seen), (second, second_seen)) = (listen().await, listen().await);
        let http = Http::new(&through(first, &[])).unwrap();
        let control = http.control.clone();
        http.follow(&through(second, &[])).unwrap();
        control.client().get("https://manage.invalid/").send().await.unwrap_err();
        assert_eq!(*second_seen.lock().unwrap(), ["CONNECT manage.invalid:443 HTTP/1.1"]);
        http.follow(&Network::default()).unwrap();
        control.client().get("https://manage.invalid/").send().await.unwrap_err();
        assert_eq!(second_seen.lock().unwrap().len(), 1);
    }
}
