//! From a request to what was queued of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::body;
use super::pace::{Pace, Turn};
use crate::content::{ContentBlob, TenantId};
use crate::report::{NotificationFate as Fate, Report};
use crate::tenant::{Hooks, Registry, Subscriber};

/// Bytes of a body.
pub const LARGEST: usize = 512 << 10;
/// A tenant with so many blobs to retrieve is told of no others: they are listed when their time comes.
pub const MOST_WAITING: u64 = 10_000;
/// KiB of all bodies that are read, or whose blobs are on their way into the queue, at a time.
const ROOM: u32 = 32 << 10;
/// For how long a notification waits for room. Microsoft waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

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
    room: Arc<Semaphore>,
}

/// Who has proved to speak for a tenant's subscriptions, and may send a body.
#[derive(Debug)]
pub struct Caller {
    tenant: TenantId,
    subscriber: Subscriber,
    /// Room for the body.
    room: OwnedSemaphorePermit,
    _turn: Turn,
}

impl Caller {
    /// The body is no longer than this.
    fn gives_back(&mut self, length: usize) {
        let rest = self.room.num_permits().saturating_sub(kib(length) as usize);
        drop(self.room.split(rest));
    }
}

/// The room that so many bytes take.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.min(LARGEST) / 1024 + 1).unwrap_or(ROOM)
}

impl Receiver {
    /// For the tenants that `registry` collects.
    #[must_use]
    pub fn new(registry: Arc<Registry>, report: Arc<Report>) -> Arc<Self> {
        Arc::new(Self { registry, report, pace: Pace::default(), room: Arc::new(Semaphore::new(ROOM as usize)) })
    }

    /// Who calls, by what the head of the request says; else how it is answered. A body that says how long it is takes no
    /// more room than that.
    pub async fn recognise(
        &self,
        hooks: &Hooks,
        auth_id: Option<&str>,
        length: Option<usize>,
    ) -> Result<Caller, Answer> {
        let Some(tenant) = auth_id.and_then(|auth_id| hooks.tenant_of(auth_id)) else {
            return Err(self.refuse(Fate::Unproven));
        };
        let Some(subscriber) = self.registry.subscriber(tenant) else { return Err(self.refuse(Fate::Stranger)) };
        let Some(turn) = self.pace.admits(tenant, Instant::now()) else { return Err(self.put_off()) };
        let room = Arc::clone(&self.room).acquire_many_owned(kib(length.unwrap_or(LARGEST)));
        match timeout(PATIENCE, room).await {
            Ok(Ok(room)) => Ok(Caller { tenant, subscriber, room, _turn: turn }),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(self.put_off()),
        }
    }

    /// Takes in a body; `None` is one that was too large, too slow or broke off. `validation` is the code of a question
    /// whether we are there, which stands in the body too.
    pub async fn receive(&self, mut caller: Caller, validation: Option<&str>, body: Option<&[u8]>) -> Answer {
        let Some(body) = body else { return self.refuse(Fate::Malformed) };
        caller.gives_back(body.len());
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
