//! Webhooks: their validation, notifications of content as it becomes available, and what becomes of a hook that does
//! not answer ("Webhook validation", "Receive notifications" and "List notifications", activity API reference).
//!
//! A hook is told of what becomes available after it was registered, each blob in one notification at least. One that
//! is not answered with 200 is repeated with waits that double; a hook that several in a row did not reach is disabled,
//! and nobody is told. Notifications may be lost or late as a test wants it, and a hook nulled, disabled or expired.
//!
//! **Invariant:** nothing is sent to other than this host: an address elsewhere is one that does not answer.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;

use crate::blob::Blob;
use crate::clock::with_millis;
use crate::content_type::ContentType;
use crate::scenario::{Der, Notices};
use crate::world::{State, SubscriptionStatus, World};

/// How often it is looked for what is to be told.
const LOOK: Duration = Duration::from_millis(25);
/// How long a hook may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Blobs in one notification.
const BATCH: usize = 20;
/// Attempts that are remembered of a subscription.
const REMEMBERED: usize = 5_000;

/// A registered webhook.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) address: String,
    pub(crate) auth_id: Option<String>,
    pub(crate) expiration: Option<Timestamp>,
    pub(crate) disabled: bool,
    /// The app that registered it.
    pub(crate) client_id: String,
    /// When.
    since: Timestamp,
    /// What it was told of, or is on its way.
    told: BTreeSet<u64>,
    /// Notifications in a row that did not reach it.
    failures: u32,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) address: String,
    pub(crate) auth_id: Option<String>,
    pub(crate) expiration: Option<Timestamp>,
}

impl Hook {
    pub(crate) fn new(wanted: Wanted, client_id: String, now: Timestamp) -> Self {
        let Wanted { address, auth_id, expiration } = wanted;
        Self {
            address,
            auth_id,
            expiration,
            disabled: false,
            client_id,
            since: now,
            told: BTreeSet::new(),
            failures: 0,
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.expiration.is_some_and(|expiration| expiration <= now)
    }

    /// Whether a start that asks for this would change nothing.
    pub(crate) fn is(&self, wanted: &Wanted, now: Timestamp) -> bool {
        !self.disabled
            && !self.is_over(now)
            && self.address == wanted.address
            && self.auth_id == wanted.auth_id
            && self.expiration == wanted.expiration
    }

    /// As `subscriptions/list` shows it.
    pub(crate) fn shown(&self, now: Timestamp) -> Value {
        let status = if self.disabled {
            "disabled"
        } else if self.is_over(now) {
            "expired"
        } else {
            "enabled"
        };
        json!({
            "status": status,
            "address": self.address,
            "authId": self.auth_id,
            "expiration": self.expiration.map(with_millis),
        })
    }
}

/// A webhook, for tests that send notifications of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSeen {
    /// Where notifications go.
    pub address: String,
    /// What they carry as `Webhook-AuthID`.
    pub auth_id: Option<String>,
    /// `enabled`, `disabled` or `expired`.
    pub status: String,
    /// How many blobs it was told of since it was registered, those included whose notification was lost.
    pub told: usize,
}

/// What befalls a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookChange {
    /// It is gone, and nobody is told.
    Null,
    /// It is disabled.
    Disable,
    /// Its time is over.
    Expire,
}

/// One attempt to tell of a blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) blob: u64,
    pub(crate) at: Timestamp,
    pub(crate) reached: bool,
}

/// The attempts of a subscription, the last ones.
pub(crate) type Attempts = VecDeque<Attempt>;

/// A notification on its way.
struct Delivery {
    tenant: Uuid,
    content_type: ContentType,
    blobs: Vec<u64>,
    address: String,
    auth_id: Option<String>,
    body: Vec<u8>,
}

impl State {
    /// The hook of a subscription, for a test.
    pub(crate) fn hook(&self, tenant: Uuid, content_type: ContentType, now: Timestamp) -> Option<HookSeen> {
        let hook = self.tenants.get(&tenant)?.subscriptions.get(&content_type)?.webhook.as_ref()?;
        let status = hook.shown(now)["status"].as_str().unwrap_or_default().to_owned();
        Some(HookSeen { address: hook.address.clone(), auth_id: hook.auth_id.clone(), status, told: hook.told.len() })
    }

    /// Does to a hook what a test wants.
    pub(crate) fn change_hook(&mut self, tenant: Uuid, content_type: ContentType, change: HookChange, now: Timestamp) {
        let subscription = self.tenants.get_mut(&tenant).and_then(|t| t.subscriptions.get_mut(&content_type));
        let Some(webhook) = subscription.map(|subscription| &mut subscription.webhook) else { return };
        match (change, webhook.as_mut()) {
            (HookChange::Null, _) => *webhook = None,
            (HookChange::Disable, Some(hook)) => hook.disabled = true,
            (HookChange::Expire, Some(hook)) => hook.expiration = Some(now),
            (HookChange::Disable | HookChange::Expire, None) => {}
        }
    }

    /// What the hooks are to be told now; it counts as told from here on.
    fn due_notifications(&mut self, management: &str, now: Timestamp) -> Vec<Delivery> {
        let mut due = Vec::new();
        let (lose, blobs) = (self.service.notices.lose, &self.blobs);
        for (tenant, of) in &mut self.tenants {
            for (content_type, subscription) in &mut of.subscriptions {
                let Some(hook) = subscription.webhook.as_mut() else { continue };
                if subscription.status != SubscriptionStatus::Enabled || hook.disabled || hook.is_over(now) {
                    continue;
                }
                let Some(feed) = of.feeds.get(content_type) else { continue };
                let of_number = |number: &u64| usize::try_from(*number).ok().and_then(|number| blobs.get(number));
                let young = feed.order.iter().rev().filter_map(of_number).take_while(|b| b.visible_from > hook.since);
                let new: Vec<&Blob> =
                    young.filter(|b| b.visible_from <= now && !b.withheld && !hook.told.contains(&b.number)).collect();
                hook.told.extend(new.iter().map(|blob| blob.number));
                if lose {
                    continue;
                }
                for batch in new.chunks(BATCH) {
                    let entries: Vec<Value> =
                        batch.iter().map(|blob| notification(blob, &hook.client_id, management)).collect();
                    due.push(Delivery {
                        tenant: *tenant,
                        content_type: *content_type,
                        blobs: batch.iter().map(|blob| blob.number).collect(),
                        address: hook.address.clone(),
                        auth_id: hook.auth_id.clone(),
                        body: Value::from(entries).to_string().into_bytes(),
                    });
                }
            }
        }
        due
    }

    /// Notes how an attempt went; true if it is to be repeated, should it have failed.
    fn attempted(&mut self, delivery: &Delivery, at: Timestamp, reached: bool, last: bool) -> bool {
        let limit = self.service.notices.failures;
        let subscription =
            self.tenants.get_mut(&delivery.tenant).and_then(|t| t.subscriptions.get_mut(&delivery.content_type));
        let Some(subscription) = subscription else { return false };
        for blob in &delivery.blobs {
            subscription.attempts.push_back(Attempt { blob: *blob, at, reached });
        }
        let surplus = subscription.attempts.len().saturating_sub(REMEMBERED);
        subscription.attempts.drain(..surplus);
        let Some(hook) = subscription.webhook.as_mut().filter(|hook| hook.address == delivery.address) else {
            return false;
        };
        if reached {
            hook.failures = 0;
        } else if last {
            hook.failures += 1;
            hook.disabled |= hook.failures >= limit;
        }
        !hook.disabled
    }
}

/// One blob in a notification.
fn notification(blob: &Blob, client_id: &str, management: &str) -> Value {
    json!({
        "tenantId": blob.tenant,
        "clientId": client_id,
        "contentType": blob.content_type,
        "contentId": blob.content_id,
        "contentUri": format!("{management}/api/v1.0/{}/activity/feed/audit/{}", blob.tenant, blob.content_id),
        "contentCreated": with_millis(blob.content_created),
        "contentExpiration": with_millis(blob.content_expiration),
    })
}

/// Tells hooks of content as it becomes available, for ever.
pub(crate) async fn notify(world: Arc<World>) {
    loop {
        sleep(LOOK).await;
        let now = world.clock.now();
        let due = world.lock().due_notifications(&world.hosts.management, now);
        for delivery in due {
            tokio::spawn(deliver(Arc::clone(&world), delivery));
        }
    }
}

async fn deliver(world: Arc<World>, delivery: Delivery) {
    let begun = Instant::now();
    // Asked again and again, so that a test can hold notifications back until something has happened.
    while begun.elapsed() < Duration::from_millis(world.lock().service.notices.late_ms) {
        sleep(LOOK).await;
    }
    let Notices { attempts, retry_ms, roots, .. } = world.lock().service.notices.clone();
    for attempt in 1..=attempts.max(1) {
        let auth_id = delivery.auth_id.as_deref().map(|auth_id| ("Webhook-AuthID", auth_id));
        let answer = post(&roots, &delivery.address, auth_id, None, &delivery.body).await;
        let reached = matches!(answer, Ok(200));
        let now = world.clock.now();
        let again = world.lock().attempted(&delivery, now, reached, attempt == attempts.max(1));
        if reached || !again {
            return;
        }
        sleep(Duration::from_millis(retry_ms << (attempt - 1).min(10))).await;
    }
}

/// Asks a hook whether it is there; why not, in words.
pub(crate) async fn validate(roots: &[Der], wanted: &Wanted) -> Result<(), String> {
    let code = Uuid::new_v4().simple().to_string();
    let auth_id = wanted.auth_id.as_deref().map(|auth_id| ("Webhook-AuthID", auth_id));
    let body = json!({ "validationCode": code }).to_string();
    match post(roots, &wanted.address, auth_id, Some(("Webhook-ValidationCode", &code)), body.as_bytes()).await {
        Ok(200) => Ok(()),
        Ok(status) => Err(format!("The endpoint did not return HTTP 200, but {status}.")),
        Err(error) => Err(format!("The endpoint could not be reached: {error}.")),
    }
}

/// Posts JSON and answers the status.
async fn post(
    roots: &[Der],
    address: &str,
    auth_id: Option<(&str, &str)>,
    validation: Option<(&str, &str)>,
    body: &[u8],
) -> io::Result<u16> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
    timeout(ANSWER, send(roots, address, auth_id.into_iter().chain(validation), body)).await.map_err(|_| silent())?
}

async fn send<'a>(
    roots: &[Der],
    address: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> io::Result<u16> {
    let (host, port, path) = parts(address).ok_or_else(|| io::Error::other("it is no address"))?;
    let ip = match host {
        "localhost" => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        host => host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback),
    };
    let ip = ip.ok_or_else(|| io::Error::other("no such host is known"))?;
    let stream = TcpStream::connect(SocketAddr::from((ip, port))).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut stream = connector(roots)?.connect(name, stream).await?;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.contains(&b'\n') {
        match stream.read(&mut piece).await? {
            0 => break,
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let status = head.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// Host, port and path of `https://…`.
fn parts(address: &str) -> Option<(&str, u16, &str)> {
    let rest = address.strip_prefix("https://")?;
    let (authority, path) = rest.split_once('/').map_or((rest, "/"), |(host, _)| (host, &rest[host.len()..]));
    match authority.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?, path)),
        None => Some((authority, 443, path)),
    }
}

fn connector(roots: &[Der]) -> io::Result<TlsConnector> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.0.clone())).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(parts("https://localhost:8443/webhook"), Some(("localhost", 8443, "/webhook")));
        assert_eq!(parts("https://hook.example"), Some(("hook.example", 443, "/")));
        assert_eq!(parts("http://localhost/"), None);
        assert_eq!(parts("https://localhost:port/"), None);
    }
}
