//! From a request to what was queued of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::debug;

use super::body;
use super::pace::Pace;
use crate::content::{ContentBlob, TenantId};
use crate::report::{NotificationFate as Fate, Report};
use crate::tenant::{Hooks, Registry, Subscriber};

/// Bytes of a body.
pub const LARGEST: usize = 512 << 10;
/// A tenant with so many blobs to retrieve is told of no others: they are listed when their time comes.
pub const MOST_WAITING: u64 = 10_000;
/// Bodies that are read at a time.
const READERS: usize = 16;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What it names is durable, or it was a question whether we are there.
    Taken,
    /// As if there were nothing at this address.
    Refused,
    /// It should come again later.
    Busy,
}

/// Receives notifications. One for the process.
#[derive(Debug)]
pub struct Receiver {
    registry: Arc<Registry>,
    report: Arc<Report>,
    pace: Pace,
    readers: Arc<Semaphore>,
}

/// Who has proved to speak for a tenant's subscriptions, and may send a body.
#[derive(Debug)]
pub struct Caller {
    tenant: TenantId,
    subscriber: Subscriber,
    _reader: OwnedSemaphorePermit,
}

impl Receiver {
    /// For the tenants that `registry` collects.
    #[must_use]
    pub fn new(registry: Arc<Registry>, report: Arc<Report>) -> Arc<Self> {
        Arc::new(Self { registry, report, pace: Pace::default(), readers: Arc::new(Semaphore::new(READERS)) })
    }

    /// Who calls, by what the head of the request says; else how it is answered.
    pub fn recognise(&self, hooks: &Hooks, auth_id: Option<&str>) -> Result<Caller, Answer> {
        let Some(tenant) = auth_id.and_then(|auth_id| hooks.tenant_of(auth_id)) else {
            return Err(self.refuse(Fate::Unproven));
        };
        let Some(subscriber) = self.registry.subscriber(tenant) else { return Err(self.refuse(Fate::Stranger)) };
        if !self.pace.admits(tenant, Instant::now()) {
            return Err(self.put_off());
        }
        match Arc::clone(&self.readers).try_acquire_owned() {
            Ok(reader) => Ok(Caller { tenant, subscriber, _reader: reader }),
            Err(_) => Err(self.put_off()),
        }
    }

    /// Takes in a body; `None` is one that was too large, too slow or broke off. `validation` is the code of a question
    /// whether we are there, which stands in the body too.
    pub async fn receive(&self, caller: Caller, validation: Option<&str>, body: Option<&[u8]>) -> Answer {
        let Some(body) = body else { return self.refuse(Fate::Malformed) };
        if let Some(code) = validation {
            if !body::validates(body, code) {
                return self.refuse(Fate::Malformed);
            }
            debug!(tenant = %caller.tenant, "webhook validated");
            self.report.notified(Fate::Validation, 1);
            return Answer::Taken;
        }
        let (blobs, not_collected) = match read(&caller, body) {
            Ok(read) => read,
            Err(fate) => {
                debug!(tenant = %caller.tenant, fate = fate.as_str(), "notification refused");
                return self.refuse(fate);
            }
        };
        if caller.subscriber.waiting() >= MOST_WAITING {
            return self.put_off();
        }
        if !blobs.is_empty() {
            match caller.subscriber.queue(blobs).await {
                Ok(queued) => {
                    debug!(tenant = %caller.tenant, new = queued.new, known = queued.known, "notified");
                    self.report.notified(Fate::Queued, queued.new);
                    self.report.notified(Fate::Known, queued.known);
                }
                Err(error) => {
                    // Whoever writes the store says what is wrong with it.
                    debug!(tenant = %caller.tenant, %error, "notification not queued");
                    return self.put_off();
                }
            }
        }
        self.report.notified(Fate::NotCollected, not_collected);
        Answer::Taken
    }

    fn refuse(&self, fate: Fate) -> Answer {
        self.report.notified(fate, 1);
        Answer::Refused
    }

    fn put_off(&self) -> Answer {
        self.report.notified(Fate::Busy, 1);
        Answer::Busy
    }
}

/// The blobs that a body names and how many others it names that are of no interest; or what is wrong with it.
fn read(caller: &Caller, body: &[u8]) -> Result<(Vec<ContentBlob>, usize), Fate> {
    let Caller { tenant, subscriber, .. } = caller;
    let entries = body::entries(body).ok_or(Fate::Malformed)?;
    let (mut blobs, mut not_collected) = (Vec::new(), 0);
    for entry in &entries {
        let text = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
        let own = text("tenantId").and_then(|id| id.parse().ok()) == Some(*tenant);
        if !own || !text("clientId").is_some_and(|id| subscriber.is_of(id)) {
            return Err(Fate::Stranger);
        }
        match subscriber.read(entry) {
            Ok(blob) if !subscriber.content_types().contains(&blob.content_type) => not_collected += 1,
            Ok(blob) => blobs.push(blob),
            Err("unknown_content_type") => not_collected += 1,
            Err("foreign_uri") => return Err(Fate::ForeignUri),
            Err(_) => return Err(Fate::Malformed),
        }
    }
    Ok((blobs, not_collected))
}
