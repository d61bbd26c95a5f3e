//! The requests of the Activity API, one method each, and what every answer has in common.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    LOCATION,
};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::address::Address;
use super::blob::BlobBody;
use super::body::Body;
pub use super::body::Limits;
use super::codes::Reason;
use super::content::{self, DlpSensitiveType, Entries, Listed, Notification, Page};
use super::error::{self, ActivityError, Operation};
use super::headers;
use super::link::{PageLink, Trail};
use super::refusal::{self, Refusal};
use super::subscriptions::{Subscription, Webhook};
use super::whole::{LIST, PAGE, Whole};
use super::window::Window;
use crate::clock::ServiceTime;
use crate::cloud::Management;
use crate::content::{ContentBlob, ContentType, TenantId};
use crate::http::Http;
use crate::http::headers::{date, retry_after};
use crate::http::room::Share;
use crate::token::AccessToken;

/// How long the body of an error may take.
const ERROR_BODY: Duration = Duration::from_secs(30);
/// The same if the head names a wait: what else the body says can be done without.
const WAIT_BODY: Duration = Duration::from_secs(1);

/// One tenant's Activity API. Cheap to make and to clone; holds no token.
#[derive(Debug, Clone)]
pub struct ActivityClient {
    address: Address,
    http: Http,
    time: Arc<ServiceTime>,
    limits: Limits,
    share: Share,
    waits: WaitHook,
}

/// Who is told of a wait as soon as the head of an answer names it: the body may take its time, and other requests must
/// not be sent meanwhile.
#[derive(Clone, Default)]
struct WaitHook(Option<Arc<dyn Fn(Duration) + Send + Sync>>);

impl std::fmt::Debug for WaitHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "WaitHook" } else { "no WaitHook" })
    }
}

/// A request that is about to be sent.
struct Request<'a> {
    operation: Operation,
    method: Method,
    url: Url,
    token: &'a AccessToken,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// The head of a successful answer.
struct Answer {
    response: Response,
    date: Option<Timestamp>,
    arrived: Instant,
}

impl ActivityClient {
    /// `publisher` goes with every request: the vendor's tenant id, or the tenant's own. `limits` are those of
    /// blobs.
    #[must_use]
    pub fn new(
        management: Management,
        tenant: TenantId,
        publisher: Uuid,
        http: Http,
        time: Arc<ServiceTime>,
        limits: Limits,
    ) -> Self {
        Self {
            address: Address { management, tenant, publisher },
            http,
            time,
            limits,
            share: Share::default(),
            waits: WaitHook::default(),
        }
    }

    /// The same, telling `hook` of a wait before the rest of the answer is read. That between two start requests is not
    /// among them: it holds for these only.
    #[must_use]
    pub fn telling(self, hook: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { waits: WaitHook(Some(Arc::new(hook))), ..self }
    }

    /// The tenant whose API this is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.address.tenant
    }

    /// "List current subscriptions". Content types that are not known here are left out.
    pub async fn list_subscriptions(&self, token: &AccessToken) -> Result<Vec<Subscription>, ActivityError> {
        let operation = Operation::ListSubscriptions;
        let url = self.address.operation("subscriptions/list", &[]);
        let answer = self.send(Request::get(operation, url, token)).await?;
        let value = self.read_json(operation, answer, "a list of subscriptions").await?;
        match value {
            Value::Array(entries) => Ok(entries
                .iter()
                .filter_map(|entry| {
                    let subscription = Subscription::read(entry);
                    if subscription.is_none() {
                        tracing::debug!(tenant = %self.address.tenant, %entry, "a subscription of a kind not known here");
                    }
                    subscription
                })
                .collect()),
            _ => Err(ActivityError::Malformed { operation, expected: "a list of subscriptions", source: None }),
        }
    }

    /// "Start a subscription". That it is enabled already (AF20024) is success.
    ///
    /// The service wants 15 minutes between two start requests of a tenant: list first, start what is missing.
    pub async fn start_subscription(
        &self,
        token: &AccessToken,
        content_type: ContentType,
        webhook: Option<&Webhook>,
    ) -> Result<Subscription, ActivityError> {
        let operation = Operation::StartSubscription;
        let url = self.address.operation("subscriptions/start", &[("contentType", content_type.as_str())]);
        let body = webhook.map(Webhook::body).unwrap_or_default();
        let request = Request::post(operation, url, token, body);
        let answer = match self.send(request).await {
            Ok(answer) => answer,
            Err(ActivityError::Refused(refusal)) if refusal.reason == Reason::AlreadySubscribed => {
                return Ok(Subscription::enabled(content_type));
            }
            Err(error) => return Err(error),
        };
        match self.read_json(operation, answer, "a subscription").await? {
            // An empty answer with a good status is an answer too.
            Value::Null => Ok(Subscription::enabled(content_type)),
            value => Subscription::read(&value).ok_or(ActivityError::Malformed {
                operation,
                expected: "a subscription",
                source: None,
            }),
        }
    }

    /// "Stop a subscription". What becomes available until it is started again can never be retrieved.
    pub async fn stop_subscription(&self, token: &AccessToken, content_type: ContentType) -> Result<(), ActivityError> {
        let operation = Operation::StopSubscription;
        let url = self.address.operation("subscriptions/stop", &[("contentType", content_type.as_str())]);
        let answer = self.send(Request::post(operation, url, token, Vec::new())).await?;
        // The answer has no meaning; its end makes the connection good for the next request.
        self.read_whole(operation, answer.response, LIST).await.map(drop)
    }

    /// "List available content": the first page of a window.
    pub async fn list_content(
        &self,
        token: &AccessToken,
        content_type: ContentType,
        window: Window,
    ) -> Result<Page, ActivityError> {
        self.first_page(token, content_type, window).await
    }

    /// A further page of a listing of content.
    pub async fn next_page(&self, token: &AccessToken, link: &PageLink) -> Result<Page, ActivityError> {
        self.further_page(token, link).await
    }

    /// "List notifications": the first page of a webhook's notifications.
    pub async fn list_notifications(
        &self,
        token: &AccessToken,
        content_type: ContentType,
        window: Window,
    ) -> Result<Page<Notification>, ActivityError> {
        self.first_page(token, content_type, window).await
    }

    /// One blob of a notification, if it is one of this tenant's that may be fetched; else a label of what is wrong with it
    /// (`malformed`, `unknown_content_type`, `foreign_uri`).
    pub fn read_notified(&self, entry: &Value) -> Result<ContentBlob, &'static str> {
        content::read_notified(entry, &self.address).map_err(|(label, why)| {
            tracing::debug!(tenant = %self.address.tenant, why, "a notification of what cannot be fetched");
            label
        })
    }

    /// A further page of a listing of notifications.
    pub async fn next_notifications(
        &self,
        token: &AccessToken,
        link: &PageLink,
    ) -> Result<Page<Notification>, ActivityError> {
        self.further_page(token, link).await
    }

    /// "Retrieve resource friendly names": the sensitive types that DLP records name by GUID, in `language` (such
    /// as `en-US`, which is also the default).
    pub async fn dlp_sensitive_types(
        &self,
        token: &AccessToken,
        language: Option<&str>,
    ) -> Result<Vec<DlpSensitiveType>, ActivityError> {
        let operation = Operation::DlpSensitiveTypes;
        let url = self.address.operation("resources/dlpSensitiveTypes", &[]);
        let mut request = Request::get(operation, url, token);
        // A language that is no header is none: the service answers in its default.
        if let Some(language) = language.and_then(|language| language.parse().ok()) {
            request.headers.insert(ACCEPT_LANGUAGE, language);
        }
        let answer = self.send(request).await?;
        match self.read_json(operation, answer, "a list of sensitive types").await? {
            Value::Array(entries) => {
                Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
            }
            _ => Err(ActivityError::Malformed { operation, expected: "a list of sensitive types", source: None }),
        }
    }

    /// "Retrieve content". The body is received as it is read.
    pub async fn fetch_blob(&self, token: &AccessToken, blob: &ContentBlob) -> Result<BlobBody, ActivityError> {
        let operation = Operation::FetchBlob;
        let url = self
            .address
            .given(&blob.content_uri)
            .map_err(|why| ActivityError::foreign(operation, &blob.content_uri, why))?;
        let from = url.as_str().to_owned();
        let answer = self.send(Request::get(operation, url, token)).await?;
        let says_json = headers::says_json(answer.response.headers());
        if says_json {
            self.observe(answer.date, answer.arrived);
        }
        Ok(BlobBody::new(Body::new(answer.response, operation, self.limits)?, answer.date, from, says_json))
    }

    /// Whether the tenant's token may go to this address of a blob.
    pub fn may_be_asked(&self, content_uri: &str) -> Result<(), ActivityError> {
        let given = self.address.given(content_uri);
        given.map(drop).map_err(|why| ActivityError::foreign(Operation::FetchBlob, content_uri, why))
    }

    /// The address that a link leads to, if it may be followed.
    fn follow(&self, link: &PageLink) -> Result<Url, ActivityError> {
        let operation = Operation::NextPage;
        let url =
            self.address.given(link.as_str()).map_err(|why| ActivityError::foreign(operation, link.as_str(), why))?;
        if link.trail().step(link.before(), url.as_str()) {
            Ok(url)
        } else {
            Err(ActivityError::PageLoop { operation, page: link.page() })
        }
    }

    async fn first_page<T: Listed>(
        &self,
        token: &AccessToken,
        content_type: ContentType,
        window: Window,
    ) -> Result<Page<T>, ActivityError> {
        let (start, end) = window.wire();
        let parameters = [("contentType", content_type.as_str()), ("startTime", &start), ("endTime", &end)];
        let url = self.address.operation(T::PATH, &parameters);
        let trail = Trail::default();
        // The first page is the first step of every listing.
        trail.step(0, url.as_str());
        self.page(Request::get(T::OPERATION, url, token), content_type, 1, trail).await
    }

    async fn further_page<T: Listed>(&self, token: &AccessToken, link: &PageLink) -> Result<Page<T>, ActivityError> {
        let url = self.follow(link)?;
        let request = Request::get(Operation::NextPage, url, token);
        self.page(request, link.content_type(), link.page(), link.trail().clone()).await
    }

    async fn page<T: Listed>(
        &self,
        request: Request<'_>,
        content_type: ContentType,
        number: usize,
        trail: Trail,
    ) -> Result<Page<T>, ActivityError> {
        let (operation, asked) = (request.operation, request.url.clone());
        let answer = self.send(request).await?;
        let next = headers::next_page(answer.response.headers());
        let Answer { date, arrived, response } = answer;
        let whole = self.read_whole(operation, response, PAGE).await?;
        let entries = Entries::read(&whole.bytes, content_type, &self.address)
            .map_err(|source| ActivityError::Malformed { operation, expected: T::EXPECTED, source: Some(source) })?;
        self.observe(date, arrived);
        let next = next.map(|text| PageLink::new(text, &asked, content_type, number, trail));
        let Entries { good: entries, refused } = entries;
        // Most pages of an idle tenant are empty, and take no room.
        let place = Some(whole.place).filter(|_| !(entries.is_empty() && refused.is_empty()));
        Ok(Page { entries, refused, next, date, _place: place })
    }

    /// The whole answer as JSON; `null` if it is empty.
    async fn read_json(
        &self,
        operation: Operation,
        answer: Answer,
        expected: &'static str,
    ) -> Result<Value, ActivityError> {
        let Answer { date, arrived, response } = answer;
        let whole = self.read_whole(operation, response, LIST).await?;
        let body = whole.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&whole.bytes).trim_ascii();
        if body.is_empty() {
            return Ok(Value::Null);
        }
        let value = serde_json::from_slice(body).map_err(|source| ActivityError::Malformed {
            operation,
            expected,
            source: Some(source),
        })?;
        self.observe(date, arrived);
        Ok(value)
    }

    async fn read_whole(
        &self,
        operation: Operation,
        response: Response,
        limits: Limits,
    ) -> Result<Whole, ActivityError> {
        Whole::read(Body::new(response, operation, limits)?, operation, &self.http.room, &self.share).await
    }

    /// The answer is the service's, and so is the time that it tells: a page of something on the way has its own.
    fn observe(&self, date: Option<Timestamp>, arrived: Instant) {
        if let Some(date) = date {
            self.time.observe_at(date, arrived);
        }
    }

    /// Sends the request; an answer that is not a success becomes an error.
    async fn send(&self, request: Request<'_>) -> Result<Answer, ActivityError> {
        let operation = request.operation;
        let client = if operation == Operation::FetchBlob { &self.http.blobs } else { &self.http.control };
        let response = client
            .request(request.method, request.url)
            .headers(request.headers)
            .header(AUTHORIZATION, request.token.authorization())
            .body(request.body)
            .send()
            .await
            .map_err(|error| ActivityError::sending(operation, error))?;
        let arrived = Instant::now();
        let date = date(response.headers());
        let status = response.status();
        if status.is_success() {
            return Ok(Answer { response, date, arrived });
        }
        let asked = retry_after(response.headers(), self.time.now());
        if let (Some(wait), Some(hook)) = (asked, &self.waits.0)
            && operation != Operation::StartSubscription
        {
            hook(wait);
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
            let to = error::host_of(&to.unwrap_or_default());
            return Err(ActivityError::Redirected { operation, status: status.as_u16(), to, wait: asked });
        }
        let correlation_id = headers::correlation_id(response.headers());
        let limits = Limits { max_compressed: refusal::BODY as u64, max_decompressed: refusal::BODY as u64 };
        let within = if asked.is_some_and(|wait| !wait.is_zero()) { WAIT_BODY } else { ERROR_BODY };
        let body = match Body::new(response, operation, limits) {
            Ok(body) => body.read_leniently(refusal::BODY, within).await,
            Err(_) => Vec::new(),
        };
        let refusal = Refusal::read(operation, status.as_u16(), &body, asked, correlation_id);
        if refusal.json {
            self.observe(date, arrived);
        }
        Err(ActivityError::Refused(Box::new(refusal)))
    }
}

impl<'a> Request<'a> {
    /// A POST; one without a body says so, because servers answer 411 to one that does not say how long it is.
    fn post(operation: Operation, url: Url, token: &'a AccessToken, body: Vec<u8>) -> Self {
        let mut request = Self { method: Method::POST, body, ..Self::get(operation, url, token) };
        if request.body.is_empty() {
            request.headers.insert(CONTENT_LENGTH, const { HeaderValue::from_static("0") });
        } else {
            let json = const { HeaderValue::from_static("application/json; charset=utf-8") };
            request.headers.insert(CONTENT_TYPE, json);
        }
        request
    }

    fn get(operation: Operation, url: Url, token: &'a AccessToken) -> Self {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(ACCEPT, const { HeaderValue::from_static("application/json") });
        headers.insert(ACCEPT_ENCODING, const { HeaderValue::from_static("gzip") });
        Self { operation, method: Method::GET, url, token, headers, body: Vec::new() }
    }
}
