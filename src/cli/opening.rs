//! How the commands come by the store: the daemon for itself, the others while no daemon runs.
//!
//! A command that root runs is the store's owner meanwhile ([`AsOwner`]). It gives way when a daemon waits for the store.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::owner::AsOwner;
use super::{Ended, Exit};
use crate::clock::{Clock as _, ServiceTime, SystemClock};
use crate::config::{Client, Settings, StoreSettings};
use crate::content::TenantId;
use crate::report::{ContentStatus, StatusSnapshot, TenantState, TenantStatus, TroubleStatus};
use crate::store::lock::{Holder, LockRequest};
use crate::store::{Options, Store, StoreError};
use crate::tenant::Roster;
use crate::tenant::roster::Member;
use tracing::warn;

/// How long the daemon waits for a held lock.
const DAEMON_WAITS: Duration = Duration::from_secs(30);
/// How long a command waits for one: another command gives way to a daemon, not to us.
const COMMAND_WAITS: Duration = Duration::from_secs(5);
/// How long a command may go on once a daemon waits.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(8);

/// What a command says that has given way.
pub(super) const GIVEN_WAY: &str = "a daemon is starting and needs the store; run it again, the daemon will answer";

fn options(store: &StoreSettings, path: PathBuf, lock_wait: Duration, purpose: &'static str) -> Options {
    Options { path, partition_bytes: store.partition_bytes, lock_wait, purpose }
}

/// Opens the store for the daemon.
pub(super) async fn for_daemon(settings: &Settings, time: Arc<ServiceTime>) -> anyhow::Result<Store> {
    let path = settings.store.path.clone();
    warn_of_readers(&path);
    let options = options(&settings.store, path, DAEMON_WAITS, "tenantry run");
    blocking(move || Store::open(&options, time)).await
}

/// What is made from now on is its owner's alone, but an older store may not be.
fn warn_of_readers(path: &Path) {
    let Ok(there) = std::fs::metadata(path) else { return };
    let mode = there.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        warn!(
            store = %path.display(),
            mode = format_args!("{mode:04o}"),
            "the store is open to every user of this host, records included: `chmod 0700 {}` closes it",
            path.display()
        );
    }
}

/// How a command asks for the lock of a store that it does not open.
pub(super) fn lock_request(purpose: &str) -> LockRequest {
    let holder = Holder { pid: std::process::id(), purpose: purpose.to_owned(), since: SystemClock.now() };
    LockRequest { holder, wait: COMMAND_WAITS, urgent: false }
}

/// The store, open for a command.
#[derive(Debug)]
pub(super) struct Reading {
    /// Where it is, as whoever has opened it gets there.
    path: PathBuf,
    // Dropped in this order.
    store: Store,
    _owner: AsOwner,
}

impl Deref for Reading {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Reading {
    /// Its directory, for whoever looks at that: the one above may be closed.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the store; the process is who it was before.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.store.close().await?)
    }
}

/// Opens the store for a command, while no daemon runs; `None` if there is none. Changes the working directory and, if
/// root runs it, for as long as the store is open, the user of the whole process.
pub(super) async fn to_read(client: &Client, purpose: &'static str) -> anyhow::Result<Option<Reading>> {
    enter(&client.store, purpose, own_time(), Store::open_to_read).await
}

/// The same for a command that does what else the daemon does: it can do with the store whatever the daemon can.
pub(super) async fn to_write(client: &Client, purpose: &'static str) -> anyhow::Result<Option<Reading>> {
    enter(&client.store, purpose, own_time(), Store::open).await
}

/// The same for a command that collects, by the time that its answers tell. A store that is not there yet is made. Of two
/// that collect, the second does not make the first give way.
pub(super) async fn to_collect(
    store: &StoreSettings,
    purpose: &'static str,
    time: Arc<ServiceTime>,
) -> anyhow::Result<Reading> {
    if let Some(opened) = enter(store, purpose, Arc::clone(&time), Store::open_in_turn).await? {
        return Ok(opened);
    }
    let path = store.path.clone();
    let options = options(store, path.clone(), COMMAND_WAITS, purpose);
    Ok(Reading {
        path,
        store: blocking(move || Store::open_in_turn(&options, time)).await?,
        _owner: AsOwner::nobody_else(),
    })
}

fn own_time() -> Arc<ServiceTime> {
    Arc::new(ServiceTime::new(Arc::new(SystemClock)))
}

async fn enter(
    settings: &StoreSettings,
    purpose: &'static str,
    time: Arc<ServiceTime>,
    open: fn(&Options, Arc<ServiceTime>) -> Result<Store, StoreError>,
) -> anyhow::Result<Option<Reading>> {
    let path = &settings.path;
    // The directories above the store may be closed to its owner (systemd keeps private state behind a directory of
    // root's), so the way in is walked as root, and the rest is done from inside.
    let entered = std::env::set_current_dir(path).and_then(|()| std::fs::metadata("."));
    let entered = match entered {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let exit = if error.kind() == ErrorKind::PermissionDenied { Exit::Permission } else { Exit::TryAgain };
            let message = format!(
                "cannot enter the store at `{}`: {error}; run this as root or as the store's owner, or ask the daemon",
                path.display()
            );
            return Err(Ended { exit, message }.into());
        }
        Ok(entered) => entered,
    };
    let owner = AsOwner::become_it(path, &entered)?;
    let options = options(settings, PathBuf::from("."), COMMAND_WAITS, purpose);
    let store = blocking(move || open(&options, time)).await?;
    Ok(Some(Reading { path: PathBuf::from("."), store, _owner: owner }))
}

/// Cancelled when a daemon has waited for the store long enough.
pub(super) fn giving_way(store: &Store) -> CancellationToken {
    let (store, token) = (store.clone(), CancellationToken::new());
    let wanted = token.clone();
    tokio::spawn(async move {
        gives_way(&store).await;
        wanted.cancel();
    });
    token
}

/// Resolves when a daemon has waited for the store long enough.
pub(super) async fn gives_way(store: &Store) {
    while !store.someone_waits() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(GIVES_WAY_AFTER).await;
}

async fn blocking(open: impl FnOnce() -> Result<Store, StoreError> + Send + 'static) -> anyhow::Result<Store> {
    Ok(tokio::task::spawn_blocking(open).await.context("opening the store panicked")??)
}

/// Who is known while no daemon runs.
pub(super) async fn roster(client: &Client, store: Option<&Store>) -> anyhow::Result<Roster> {
    let (enrolments, held) = match store {
        Some(store) => (store.enrolments().await?, store.held().await?),
        None => (Vec::new(), BTreeMap::new()),
    };
    Ok(Roster::join(&client.outline, &enrolments, &held))
}

/// What the tenants are called, while no daemon runs.
pub(super) async fn stopped_names(client: &Client) -> anyhow::Result<BTreeMap<TenantId, String>> {
    Ok(stopped_roster(client).await?.names())
}

/// Who is known, while no daemon runs. What is written or read next may be a file beside which the command was started: it
/// stays there.
pub(super) async fn stopped_roster(client: &Client) -> anyhow::Result<Roster> {
    let here = std::env::current_dir();
    let store = to_read(client, "tenantry").await?;
    let roster = roster(client, store.as_deref()).await;
    if let Some(store) = store {
        store.close().await?;
    }
    if let Ok(here) = here {
        std::env::set_current_dir(&here).with_context(|| format!("cannot go back to `{}`", here.display()))?;
    }
    roster
}

/// What the store knows while no daemon runs.
pub(super) async fn stopped_status(client: &Client) -> anyhow::Result<StatusSnapshot> {
    let mut snapshot = StatusSnapshot {
        running: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: ServiceTime::new(Arc::new(SystemClock)).now(),
        started: None,
        host_ahead_by_seconds: None,
        sentence: "the daemon does not run; this is what the store knows".to_owned(),
        pause: None,
        warnings: Vec::new(),
        tenants: Vec::new(),
    };
    let store = to_read(client, "tenantry status").await?;
    if store.is_none() {
        "the daemon does not run, and nothing was collected yet".clone_into(&mut snapshot.sentence);
    }
    let notes = match &store {
        Some(store) => store.notes().await?,
        None => BTreeMap::new(),
    };
    let now = snapshot.at;
    for member in roster(client, store.as_deref()).await?.members() {
        let note = notes.get(&member.id).map(Vec::as_slice);
        snapshot.tenants.push(stopped_tenant(member, store.as_deref(), note, now).await?);
    }
    if let Some(store) = store {
        store.close().await?;
    }
    Ok(snapshot)
}

/// What is known of a tenant while no daemon runs.
pub(super) async fn stopped_tenant(
    member: &Member,
    store: Option<&Store>,
    note: Option<&[u8]>,
    now: Timestamp,
) -> anyhow::Result<TenantStatus> {
    let id = member.id;
    let state = match (member.enabled, member.held) {
        (false, _) => TenantState::Disabled,
        (true, Some(_)) => TenantState::Held,
        (true, None) => TenantState::Stopped,
    };
    let mut status = TenantStatus::new(id, &member.name, state);
    status.cloud.clone_from(&member.cloud);
    status.app = member.section();
    status.origins.clone_from(&member.origins);
    status.held = member.held;
    status.content = member.content_types.iter().map(|of| (*of, ContentStatus::default())).collect();
    // It would be found again at the start; when it began is not known.
    let unable = member.trouble.clone().map(|trouble| TroubleStatus { trouble, since: now, attempts: 1 });
    if let Some(store) = store {
        let is_all = member.content_types.is_empty();
        for (content_type, watermark) in store.watermarks(id).await? {
            // Of a tenant that has nothing else, they are what is listed.
            if is_all || !content_type.is_health() {
                status.last_poll = status.last_poll.max(watermark.listed_to);
            }
            if content_type.is_health() {
                continue;
            }
            status.content.entry(content_type).or_default().last_listed = watermark.listed_to;
        }
        status.trouble = note.filter(|_| !state.is_off()).and_then(TroubleStatus::from_note);
        status.queue = store.queue_depth(id);
        status.stored_today = store.stored_today(id);
        status.dead_letters = store.dead_letters(id).await?;
    }
    status.trouble = unable.or(status.trouble);
    Ok(status)
}
