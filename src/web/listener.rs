//! A listener over TCP whose settings change while it listens: the operators' and the customers'.
//!
//! What is served, and how, is an [`Offer`]. A change of it takes effect at once: connections under the old one end with
//! the answer that is under way. An address that cannot be used is an error line and is tried again: what others ask for
//! must not stop collecting.
//!
//! With a certificate it speaks TLS ([`tls`]). A renewed one is shown to whoever connects from then on, and ends no
//! connection; other CAs for callers do. New files that cannot be used are an error line, and the old certificate stays.
//!
//! **Invariant:** nobody who connects can hold up anything else ([`connections`]).

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::connections::{self, Allowance};
use super::tls::{self, Renewal};
use crate::config::ListenerTls;
use crate::event;
use crate::tls::Tls;

/// How often an address that cannot be used is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What is served, and how.
pub(super) trait Offer: Clone + Send + Sync + 'static {
    /// What callers are allowed, and what they are callers of.
    const ALLOWANCE: Allowance;
    /// The section that describes it.
    const SECTION: &'static str;
    /// What is missing while its address cannot be used.
    const MISSED: &'static str;

    /// Where; `None` for nowhere.
    fn listen(&self) -> Option<SocketAddr>;

    /// How it speaks TLS; `None` for plain HTTP.
    fn tls(&self) -> Option<&ListenerTls>;

    /// The same, to be replaced.
    fn tls_mut(&mut self) -> Option<&mut ListenerTls>;

    /// Whether callers could tell this one from the other by nothing but the certificate.
    fn is_like(&self, other: &Self) -> bool;

    /// Who answers; `shown` is what is shown at the moment, if it speaks TLS.
    fn router(&self, shown: Option<watch::Receiver<Tls>>) -> Router;
}

/// The listener and its connections, in a task of their own.
#[derive(Debug)]
pub(super) struct Listener<O> {
    offer: Arc<watch::Sender<O>>,
    task: AbortOnDropHandle<()>,
}

impl<O: Offer> Listener<O> {
    /// Listens until `stop`. Must be called within a runtime.
    pub(super) fn start(offer: O, stop: CancellationToken) -> Self {
        let offer = Arc::new(watch::Sender::new(offer));
        let task = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&offer), stop)));
        Self { offer, task }
    }

    /// What is in effect, with the certificate that is shown now.
    pub(super) fn offer(&self) -> watch::Ref<'_, O> {
        self.offer.borrow()
    }

    /// The same, for whoever looks again later.
    pub(super) fn shared(&self) -> Arc<watch::Sender<O>> {
        Arc::clone(&self.offer)
    }

    /// Changes it; `change` says whether it did.
    pub(super) fn change(&self, change: impl FnOnce(&mut O) -> bool) {
        self.offer.send_if_modified(change);
    }

    /// Resolves when the task has ended, which it does when it is stopped. Cancel safe.
    pub(super) async fn ended(&mut self) {
        // A task's outcome can be had once only, and a panic is an end too.
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

async fn run<O: Offer>(offer: Arc<watch::Sender<O>>, stop: CancellationToken) {
    let mut changes = offer.subscribe();
    let mut renewals = pin!(renewals(&offer));
    // Kept while the address stays the same, so that a reload refuses nobody.
    let mut listening = None;
    loop {
        let current = changes.borrow_and_update().clone();
        let shown = current.tls().map(|tls| watch::Sender::new(tls.tls().clone()));
        let leave = CancellationToken::new();
        let _leave = leave.clone().drop_guard();
        tokio::select! {
            () = serve(&current, shown.as_ref(), &mut listening, &leave) => unreachable!("nobody has asked it to leave"),
            () = another(&current, &mut changes, shown.as_ref()) => {}
            () = &mut renewals => unreachable!("they have no end"),
            () = stop.cancelled() => break,
        }
    }
}

async fn serve<O: Offer>(
    offer: &O,
    shown: Option<&watch::Sender<Tls>>,
    listening: &mut Option<(SocketAddr, TcpListener)>,
    leave: &CancellationToken,
) {
    let Some(address) = offer.listen() else {
        *listening = None;
        return std::future::pending().await;
    };
    if listening.as_ref().is_none_or(|(current, _)| *current != address) {
        *listening = None;
        *listening = Some((address, bind::<O>(address).await));
    }
    let Some((_, listener)) = listening else { return };
    let shown = shown.map(watch::Sender::subscribe);
    connections::serve(listener, shown.as_ref(), offer.router(shown.clone()), O::ALLOWANCE, leave).await;
}

/// Resolves when there is an offer under which `current` connections cannot go on. A certificate is no such thing: it is
/// `shown` to whoever comes.
pub(super) async fn another<O: Offer>(
    current: &O,
    changes: &mut watch::Receiver<O>,
    shown: Option<&watch::Sender<Tls>>,
) {
    let demands = |offer: &O| offer.tls().map(|tls| tls.tls().authorities().cloned());
    while changes.changed().await.is_ok() {
        let new = changes.borrow_and_update().clone();
        match (shown, new.tls()) {
            (Some(shown), Some(tls)) if demands(current) == demands(&new) && current.is_like(&new) => {
                shown.send_replace(tls.tls().clone());
            }
            _ => return,
        }
    }
}

/// Goes on with what the certificate's files hold whenever they have changed, and tells it.
async fn renewals<O: Offer>(offer: &watch::Sender<O>) {
    let mut renewal = Renewal::default();
    // They are tried again, which is no news as long as the cause is the same.
    let mut told = None;
    let mut looks = interval(tls::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(current) = offer.borrow().tls().cloned() else { continue };
        match renewal.look(&current).await {
            Some(Ok((read, warnings))) => {
                for warning in warnings {
                    warn!(message_id = event::SETTING_WARNING, "{warning}");
                }
                renew(offer, read);
                told = None;
            }
            Some(Err(problems)) => {
                let problems = problems.to_string().replace('\n', "; ");
                if told.as_ref() != Some(&problems) {
                    error!(
                        message_id = event::LISTENER_CERTIFICATE_REFUSED,
                        "the {} keeps the certificate that it has, until what changed is mended: {problems}",
                        O::ALLOWANCE.of
                    );
                    told = Some(problems);
                }
            }
            None => {}
        }
    }
}

/// Goes on with what was read, unless a reload has turned to other files meanwhile.
pub(super) fn renew<O: Offer>(offer: &watch::Sender<O>, read: ListenerTls) {
    offer.send_if_modified(|offer| {
        let Some(tls) = offer.tls_mut().filter(|tls| tls.has_files_of(&read)) else { return false };
        let differs = *tls != read;
        if differs {
            let certificate = read.tls().certificate();
            info!(
                certificate = certificate.subject(),
                expires = %certificate.not_after(),
                "the {} goes on with the certificates that its files hold now",
                O::ALLOWANCE.of
            );
        }
        *tls = read;
        differs
    });
}

/// Listens at `address` as soon as that can be had.
async fn bind<O: Offer>(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%address, "{}", O::ALLOWANCE.of);
                return listener;
            }
            Err(error) if !told => {
                error!(
                    message_id = event::LISTENER_CLOSED,
                    %address,
                    %error,
                    "{} cannot be served at this address: choose another one with `[{}] listen`, or free it; it is tried again",
                    O::MISSED,
                    O::SECTION
                );
                told = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}
