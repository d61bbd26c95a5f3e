//! The customers' listener: the pages of consent and the webhook, and nothing else.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | what this is |
//! | `GET /onboard/SECRET` | who asks, for what ([`pages::welcome`]) |
//! | `POST /onboard/SECRET` | to Microsoft, with a cookie |
//! | `GET /consent/callback/CLOUD?…` | back from Microsoft: onwards, or why not |
//! | `GET /onboard` | how the tenant comes alive, for the browser that has consented |
//! | `POST /webhook/KEY` | Microsoft notifies of new content ([`webhook`]): 200, 503, or as of what is not here |
//! | `GET /assets/style.css`, `progress.js` | the style sheet; the script that keeps the page of progress up to date |
//!
//! How it listens, [`listener`](super::listener) says.
//!
//! **Invariants:** no answer is kept by anybody (`no-store`), framed, or told of by a `Referer`; nothing is loaded from
//! elsewhere, no page but that of the progress may run a script, and forms lead here or to an authority of the
//! configuration. The cookie is for this host alone, not for scripts, and worth nothing without the state that Microsoft
//! brings back. A query is never logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next as Rest};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use jiff::Timestamp;
use maud::Markup;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::Allowance;
use super::listener::{Listener, Offer};
use super::pages;
use crate::config::{ListenerTls, Public, Settings};
use crate::consent::address::{CALLBACK, ONBOARD};
use crate::consent::{Desk, Ending, Next};
use crate::secret::Secret;
use crate::tenant::{Hooks, hook};
use crate::tls::Tls;
use crate::webhook::{self, Answer, Receiver};

/// How long the body of a notification may take.
const READ: Duration = Duration::from_secs(10);
/// No page takes a body.
const LARGEST_BODY: usize = 1024;
/// How long a browser keeps the cookie, in seconds; the desk forgets it after an hour of rest.
const COOKIE_AGE: u32 = 24 * 3600;

/// The listener and its connections, in a task of their own.
#[derive(Debug)]
pub struct PublicListener(Listener<Serving>);

#[derive(Clone)]
struct Serving {
    settings: Public,
    desk: Arc<Desk>,
    receiver: Arc<Receiver>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The certificate that the customers' listener shows, for those who watch it.
#[derive(Debug, Clone)]
pub struct Shown(Arc<watch::Sender<Serving>>);

impl Shown {
    /// When it expires; `None` if there is none.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.0.borrow().settings.tls.as_ref().map(|tls| tls.tls().certificate().not_after())
    }
}

impl PublicListener {
    /// Listens until `stop`. Must be called within a runtime.
    #[must_use]
    pub fn start(settings: &Settings, desk: Arc<Desk>, receiver: Arc<Receiver>, stop: CancellationToken) -> Self {
        Self(Listener::start(Serving { settings: settings.public.clone(), desk, receiver }, stop))
    }

    /// The settings in effect, with the certificate that is shown now.
    #[must_use]
    pub fn settings(&self) -> Public {
        self.0.offer().settings.clone()
    }

    /// The certificate that is shown, whenever that is asked.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown(self.0.shared())
    }

    /// Goes on with these settings.
    pub fn follow(&self, settings: &Settings) {
        self.0.change(|serving| {
            let differs = serving.settings != settings.public;
            serving.settings.clone_from(&settings.public);
            differs
        });
    }

    /// Resolves when the task has ended, which it does when it is stopped. Cancel safe.
    pub async fn ended(&mut self) {
        self.0.ended().await;
    }
}

impl Offer for Serving {
    const ALLOWANCE: Allowance =
        Allowance { of: "customers' listener", connections: 256, stall: Duration::from_secs(30) };
    const SECTION: &'static str = "public";
    const MISSED: &'static str = "the pages of consent and the webhook";

    fn listen(&self) -> Option<SocketAddr> {
        self.settings.listen
    }

    fn tls(&self) -> Option<&ListenerTls> {
        self.settings.tls.as_ref()
    }

    fn tls_mut(&mut self) -> Option<&mut ListenerTls> {
        self.settings.tls.as_mut()
    }

    fn is_like(&self, other: &Self) -> bool {
        let rest = |serving: &Self| Public { tls: None, ..serving.settings.clone() };
        rest(self) == rest(other)
    }

    fn router(&self, _: Option<watch::Receiver<Tls>>) -> Router {
        let house = Arc::new(House {
            desk: Arc::clone(&self.desk),
            settings: self.settings.clone(),
            receiver: Arc::clone(&self.receiver),
            hooks: Hooks::of(&self.settings),
        });
        let onboard = format!("{ONBOARD}/{{secret}}");
        let callback = format!("{CALLBACK}/{{cloud}}");
        Router::new()
            .route("/", get(front))
            .route(ONBOARD, get(progress))
            .route(&onboard, get(welcome).post(begin))
            .route(&callback, get(come_back))
            .route(hook::PATH, any(notified))
            .route(&format!("{}/{{key}}", hook::PATH), any(notified))
            .route("/assets/style.css", get(style))
            .route("/assets/progress.js", get(script))
            .fallback(nothing)
            .layer(middleware::from_fn_with_state(Arc::clone(&house), headers))
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(house)
    }
}

/// What the answers are made of.
struct House {
    desk: Arc<Desk>,
    settings: Public,
    receiver: Arc<Receiver>,
    /// What notifications must show, if there are any.
    hooks: Option<Hooks>,
}

impl House {
    fn is_https(&self) -> bool {
        self.settings.url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// A name that browsers take for this host alone and over TLS only; without TLS, on loopback, there is none such.
    fn cookie_name(&self) -> &'static str {
        if self.is_https() { "__Host-tenantry" } else { "tenantry" }
    }

    fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie_name()).map(|(_, value)| value)
    }

    fn set_cookie(&self, value: &Secret) -> Option<HeaderValue> {
        let secure = if self.is_https() { "; Secure" } else { "" };
        let name = self.cookie_name();
        // Lax: Microsoft sends the browser back by a link, and nothing else from elsewhere needs it.
        let text = format!("{name}={}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}", value.expose());
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether a form was sent from one of our own pages. Browsers say so; what is none need not.
    fn is_ours(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let ours = self.settings.url.as_ref().map(|url| url.origin().ascii_serialization());
        // A page that tells nobody where it is, as ours do, sends `null`; then where it came from is said apart.
        let same = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        origin.to_str().is_ok_and(|origin| ours.as_deref() == Some(origin) || (origin == "null" && same))
    }

    fn ended(&self, ending: &Ending) -> Response {
        let (organisation, contact) = (self.settings.organisation.as_deref(), self.settings.contact.as_deref());
        page(ending.status(), pages::ending(ending, organisation, contact))
    }
}

fn page(status: u16, page: Markup) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (status, media, page.into_string()).into_response()
}

async fn front(State(house): State<Arc<House>>) -> Response {
    page(200, pages::front(house.settings.organisation.as_deref(), house.settings.contact.as_deref()))
}

async fn nothing(State(house): State<Arc<House>>) -> Response {
    page(404, pages::nothing(house.settings.organisation.as_deref(), house.settings.contact.as_deref()))
}

/// Whoever is not Microsoft finds nothing here.
async fn notified(State(house): State<Arc<House>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let answer = match house.hooks.as_ref().filter(|_| head.method == Method::POST) {
        None => Answer::Refused,
        Some(hooks) => match house.receiver.recognise(hooks, text("webhook-authid"), length).await {
            Err(answer) => answer,
            Ok(caller) => {
                let body = timeout(READ, to_bytes(body, webhook::LARGEST)).await.ok().and_then(Result::ok);
                let code = text("webhook-validationcode");
                house.receiver.receive(caller, code, body.as_deref()).await
            }
        },
    };
    match answer {
        Answer::Taken => StatusCode::OK.into_response(),
        Answer::Busy => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")]).into_response(),
        Answer::Refused => nothing(State(house)).await,
    }
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], pages::STYLE).into_response()
}

async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], pages::SCRIPT).into_response()
}

async fn welcome(State(house): State<Arc<House>>, Path(secret): Path<String>) -> Response {
    match house.desk.welcome(&secret).await {
        Ok(welcome) => page(200, pages::welcome(&welcome)),
        Err(ending) => house.ended(&ending),
    }
}

async fn begin(State(house): State<Arc<House>>, Path(secret): Path<String>, headers: HeaderMap) -> Response {
    if !house.is_ours(&headers) {
        return house.ended(&Ending::NotBegunHere);
    }
    match house.desk.begin(&secret).await {
        Ok((url, cookie)) => {
            let mut response = see(url.as_str());
            response.headers_mut().extend(house.set_cookie(&cookie).map(|cookie| (header::SET_COOKIE, cookie)));
            response
        }
        Err(ending) => house.ended(&ending),
    }
}

async fn come_back(
    State(house): State<Arc<House>>,
    Path(cloud): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match house.desk.come_back(house.cookie(&headers), &cloud, &query.unwrap_or_default()).await {
        Ok(Next::Microsoft(url)) => see(url.as_str()),
        Ok(Next::Progress) => see(ONBOARD),
        Err(ending) => house.ended(&ending),
    }
}

async fn progress(State(house): State<Arc<House>>, headers: HeaderMap) -> Response {
    match house.desk.progress(house.cookie(&headers)).await {
        Ok(journey) => {
            let mut response = page(200, pages::progress(&journey));
            response.extensions_mut().insert(Scripted);
            response
        }
        Err(ending) => house.ended(&ending),
    }
}

/// What was asked for is to be looked at elsewhere.
fn see(location: &str) -> Response {
    match HeaderValue::try_from(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An answer with a script of ours, which asks nobody but us.
#[derive(Debug, Clone, Copy)]
struct Scripted;

/// What every answer says to the browser.
async fn headers(State(house): State<Arc<House>>, request: Request, rest: Rest) -> Response {
    let mut response = rest.run(request).await;
    let forms = house.desk.authorities().join(" ");
    let scripts = match response.extensions().get::<Scripted>() {
        Some(Scripted) => " script-src 'self'; connect-src 'self';",
        None => "",
    };
    let policy = format!(
        "default-src 'none'; style-src 'self';{scripts} form-action 'self' {forms}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let fixed = [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=()"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if house.is_https() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}
