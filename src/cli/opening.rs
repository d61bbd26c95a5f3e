//! How the commands come by the store: the daemon for itself, the others while no daemon runs.
//!
//! A command that root runs first becomes the store's owner, so that it leaves no file behind that the service cannot
//! open. It gives way when a daemon waits for the store.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use tokio_util::sync::CancellationToken;

use super::{Ended, Exit};
use crate::clock::{Clock as _, ServiceTime, SystemClock};
use crate::config::Settings;
use crate::report::{ContentStatus, StatusSnapshot, TenantState, TenantStatus, TroubleStatus};
use crate::store::lock::{Holder, LockRequest};
use crate::store::{Options, Store, StoreError};

/// How long the daemon waits for a held lock.
const DAEMON_WAITS: Duration = Duration::from_secs(30);
/// How long a command waits for one: another command gives way to a daemon, not to us.
const COMMAND_WAITS: Duration = Duration::from_secs(5);
/// How long a command may go on once a daemon waits.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(8);

fn options(settings: &Settings, path: PathBuf, lock_wait: Duration, purpose: &'static str) -> Options {
    Options { path, partition_bytes: settings.store.partition_bytes, lock_wait, purpose }
}

/// Opens the store for the daemon.
pub(super) async fn for_daemon(settings: &Settings, time: Arc<ServiceTime>) -> anyhow::Result<Store> {
    let options = options(settings, settings.store.path.clone(), DAEMON_WAITS, "tenantry run");
    blocking(move || Store::open(&options, time)).await
}

/// Opens the store for a command, while no daemon runs. Changes the working directory and, if root runs it, the user
/// of the whole process.
pub(super) async fn to_read(settings: &Settings, purpose: &'static str) -> anyhow::Result<Store> {
    let path = settings.store.path.clone();
    if !path.is_dir() {
        return Err(Ended {
            exit: Exit::Failed,
            message: format!("there is no store at `{}` yet: nothing was collected", path.display()),
        }
        .into());
    }
    become_owner(&path)?;
    let options = options(settings, PathBuf::from("."), COMMAND_WAITS, purpose);
    let time = Arc::new(ServiceTime::new(Arc::new(SystemClock)));
    blocking(move || Store::open_to_read(&options, time)).await
}

/// How a command asks for the lock of a store that it does not open.
pub(super) fn lock_request(purpose: &str) -> LockRequest {
    let holder = Holder { pid: std::process::id(), purpose: purpose.to_owned(), since: SystemClock.now() };
    LockRequest { holder, wait: COMMAND_WAITS, urgent: false }
}

/// The directories above the store may be closed to its owner (systemd keeps private state behind a directory of
/// root's), so the way in is walked as root, and the rest is done from inside.
fn become_owner(path: &Path) -> anyhow::Result<()> {
    std::env::set_current_dir(path).with_context(|| format!("cannot enter the store at `{}`", path.display()))?;
    let meta = std::fs::metadata(".")?;
    if !Uid::effective().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    let become_it = || {
        setgroups(&[gid])?;
        setgid(gid)?;
        setuid(uid)
    };
    become_it().with_context(|| format!("cannot become user {uid}, who owns the store at `{}`", path.display()))
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

/// What the store knows while no daemon runs.
pub(super) async fn stopped_status(settings: &Settings) -> anyhow::Result<StatusSnapshot> {
    let mut snapshot = StatusSnapshot {
        running: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: ServiceTime::new(Arc::new(SystemClock)).now(),
        started: None,
        host_ahead_by_seconds: None,
        sentence: "the daemon does not run; this is what the store knows".to_owned(),
        tenants: Vec::new(),
    };
    let store = if settings.store.path.is_dir() {
        Some(to_read(settings, "tenantry status").await?)
    } else {
        "the daemon does not run, and nothing was collected yet".clone_into(&mut snapshot.sentence);
        None
    };
    let notes = match &store {
        Some(store) => store.notes().await?,
        None => BTreeMap::new(),
    };
    for tenant in settings.tenants.values() {
        let mut status = TenantStatus::new(
            tenant.id,
            &tenant.name,
            if tenant.enabled { TenantState::Stopped } else { TenantState::Disabled },
        );
        if let Some(store) = &store {
            for (content_type, watermark) in store.watermarks(tenant.id).await? {
                let content = ContentStatus { last_listed: watermark.listed_to, ..ContentStatus::default() };
                status.last_poll = status.last_poll.max(watermark.listed_to);
                status.content.insert(content_type, content);
            }
            status.trouble =
                notes.get(&tenant.id).filter(|_| tenant.enabled).and_then(|note| TroubleStatus::from_note(note));
            status.queue = store.queue_depth(tenant.id);
            status.stored_today = store.stored_today(tenant.id);
            status.dead_letters = store.dead_letters(tenant.id).await?;
        }
        snapshot.tenants.push(status);
    }
    if let Some(store) = store {
        store.close().await?;
    }
    Ok(snapshot)
}
