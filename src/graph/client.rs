//! The requests to Graph, one method each, and what every answer has in common.
//!
//! No encoding is asked for: what an answer takes on the wire is what it takes in memory.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use tokio::time::timeout;
use url::Url;

use super::address::Address;
use super::error::{GraphError, Operation};
use super::file::{self, Attachment, File};
use super::list::List;
use super::page::{self, Page, PageLink};
use super::refusal::{self, Refusal};
use crate::clock::ServiceTime;
use crate::cloud::Cloud;
use crate::http::headers::{date, retry_after};
use crate::http::room::{Place, SMALL, Share};
use crate::http::{Http, Pool, host_of};
use crate::token::AccessToken;

/// The largest page: a hundred posts of the Message Center have a megabyte or two.
const PAGE: u64 = 16 << 20;
/// How long an answer may take to come once it has a place, and again once it has one for a large answer.
const WITHIN: Duration = Duration::from_secs(30);

/// One tenant's service communications. Cheap to make and to clone; holds no token.
#[derive(Debug, Clone)]
pub struct GraphClient {
    address: Address,
    http: Http,
    time: Arc<ServiceTime>,
    share: Share,
}

impl GraphClient {
    /// That of a tenant of this cloud; `time` measures waits that are told as moments.
    #[must_use]
    pub fn new(cloud: Arc<Cloud>, http: Http, time: Arc<ServiceTime>) -> Self {
        Self { address: Address(cloud), http, time, share: Share::default() }
    }

    /// The address of a list.
    #[must_use]
    pub fn address_of(&self, list: List) -> String {
        self.address.list(list, None).into()
    }

    /// The first page of a list: of all its items, or of those that have changed at or after `since`.
    pub async fn list(&self, token: &AccessToken, list: List, since: Option<Timestamp>) -> Result<Page, GraphError> {
        self.page(token, list, self.address.list(list, since), Vec::new()).await
    }

    /// A further page.
    pub async fn next(&self, token: &AccessToken, link: &PageLink) -> Result<Page, GraphError> {
        let operation = Operation::List(link.list);
        let url = self.address.next(link.list, &link.text);
        let url = url.map_err(|why| GraphError::foreign(operation, &link.text, why))?;
        if link.is_endless() {
            return Err(GraphError::PageLoop { operation, page: link.page() });
        }
        self.page(token, link.list, url, link.trail.clone()).await
    }

    async fn page(
        &self,
        token: &AccessToken,
        list: List,
        url: Url,
        mut trail: Vec<String>,
    ) -> Result<Page, GraphError> {
        let operation = Operation::List(list);
        trail.push(url.as_str().to_owned());
        let response = self.send(operation, &self.http.control, url, token).await?;
        let date = date(response.headers());
        let (bytes, place) = self.read(operation, response).await?;
        let (items, next) =
            page::read(&bytes, list, trail).map_err(|source| GraphError::Malformed { operation, source })?;
        Ok(Page { items, next, date, _place: place })
    }

    /// The post-incident review of an issue, as a file.
    pub async fn report(&self, token: &AccessToken, issue: &str) -> Result<File, GraphError> {
        self.file(Operation::Report, &["issues", issue, "incidentReport"], token).await
    }

    /// The attachments of a post: what they are called, and how large they are.
    pub async fn attachments(&self, token: &AccessToken, message: &str) -> Result<Vec<Attachment>, GraphError> {
        let operation = Operation::Attachments;
        let url = self.address.of(&["messages", message, "attachments"]);
        let response = self.send(operation, &self.http.control, url, token).await?;
        let (bytes, _place) = self.read(operation, response).await?;
        file::attachments(&bytes).map_err(|source| GraphError::Malformed { operation, source })
    }

    /// One attachment of a post.
    pub async fn attachment(&self, token: &AccessToken, message: &str, id: &str) -> Result<File, GraphError> {
        self.file(Operation::Attachment, &["messages", message, "attachments", id, "content"], token).await
    }

    /// All attachments of a post, as one file.
    pub async fn archive(&self, token: &AccessToken, message: &str) -> Result<File, GraphError> {
        self.file(Operation::Archive, &["messages", message, "attachmentsArchive"], token).await
    }

    /// Files may be large, so that they have no limit in time but that of each part, and use the pool of blobs.
    async fn file(&self, operation: Operation, path: &[&str], token: &AccessToken) -> Result<File, GraphError> {
        let response = self.send(operation, &self.http.blobs, self.address.of(path), token).await?;
        Ok(File::new(operation, response))
    }

    /// The whole answer, and the room that it takes: no more than [`SMALL`] bytes before it has one for a large answer.
    async fn read(&self, operation: Operation, mut response: Response) -> Result<(Vec<u8>, Place), GraphError> {
        let mut received = 0;
        let mut bytes = Vec::new();
        // Who announces an answer and sends nothing of it holds no place.
        let Some(first) = chunk(operation, &mut response, &mut received, PAGE).await? else {
            return Ok((bytes, self.http.room.take().await));
        };
        let mut place = self.http.room.take().await;
        bytes.extend_from_slice(&first);
        for most in [SMALL, usize::MAX] {
            let reading = async {
                while bytes.len() < most {
                    match chunk(operation, &mut response, &mut received, PAGE).await? {
                        Some(chunk) => bytes.extend_from_slice(&chunk),
                        None => return Ok(true),
                    }
                }
                Ok(false)
            };
            match timeout(WITHIN, reading).await {
                Ok(Ok(true)) => break,
                Ok(Ok(false)) => self.http.room.grow(&mut place, &self.share).await,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(GraphError::TooSlow { operation, within: WITHIN }),
            }
        }
        Ok((bytes, place))
    }

    /// Sends the request; an answer that is not a success becomes an error.
    async fn send(
        &self,
        operation: Operation,
        pool: &Pool,
        url: Url,
        token: &AccessToken,
    ) -> Result<Response, GraphError> {
        let accept = match operation {
            Operation::List(_) | Operation::Attachments => HeaderValue::from_static("application/json"),
            Operation::Report | Operation::Attachment | Operation::Archive => HeaderValue::from_static("*/*"),
        };
        let response = pool
            .request(reqwest::Method::GET, url)
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, const { HeaderValue::from_static("identity") })
            .header(AUTHORIZATION, token.authorization())
            .send()
            .await
            .map_err(|error| GraphError::transport(operation, error, false))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let status = status.as_u16();
        if (300..400).contains(&status) {
            let to = response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
            return Err(GraphError::Redirected { operation, status, to: host_of(&to.unwrap_or_default()) });
        }
        let (wait, id) = (retry_after(response.headers(), self.time.now()), request_id(response.headers()));
        let body = read_leniently(operation, response).await;
        Err(GraphError::Refused(Box::new(Refusal::read(operation, status, &body, wait, id))))
    }
}

/// The next bytes of an answer, within the limit.
pub(super) async fn chunk(
    operation: Operation,
    response: &mut Response,
    received: &mut u64,
    limit: u64,
) -> Result<Option<bytes::Bytes>, GraphError> {
    let next = response.chunk().await.map_err(|error| GraphError::transport(operation, error, true))?;
    *received += next.as_ref().map_or(0, |chunk| chunk.len() as u64);
    if *received > limit { Err(GraphError::TooLarge { operation, limit }) } else { Ok(next) }
}

/// As much of an error's body as comes in time and is not too much.
async fn read_leniently(operation: Operation, mut response: Response) -> Vec<u8> {
    let (mut all, mut received) = (Vec::new(), 0);
    let reading = async {
        while let Ok(Some(chunk)) = chunk(operation, &mut response, &mut received, refusal::BODY as u64).await {
            all.extend_from_slice(&chunk);
        }
    };
    // What came until then is what there is.
    let _ = timeout(WITHIN, reading).await;
    all
}

/// Microsoft's id of the request.
fn request_id(headers: &HeaderMap) -> Option<String> {
    headers.get("request-id").and_then(|value| value.to_str().ok()).map(str::to_owned)
}
