//! Serving connections one by one, the same over TCP, with TLS or without, and over the admin socket.
//!
//! **Invariant:** nobody who connects can hold up anything for ever: connections are bounded in number, and each has a
//! time in which to shake hands, to send a request and to take a piece of its answer. One that takes longer is ended, and with it what
//! was read for its answer. When all places are taken, those who were answered, and only keep their connection for another
//! request, leave: what they keep is worth less than a place for whoever comes next.

use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::tls::shake_hands;
use crate::tls::Tls;

/// How long a caller may take to send the head of a request, the time between two requests included.
const HEAD: Duration = Duration::from_secs(15);
/// How large the head of a request may be.
const HEAD_SIZE: usize = 64 * 1024;
/// How long answers under way have when they must leave.
const LEAVE: Duration = Duration::from_secs(1);
/// How often those who do not need their places are asked to leave, while none is free.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What callers are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Who they are, for the journal.
    pub(super) of: &'static str,
    /// How many are connected at a time; more wait in the kernel's queue.
    pub(super) connections: u32,
    /// How long one may not take a byte of its answer.
    pub(super) stall: Duration,
}

/// Serves whoever connects, until `leave`; then what is under way has a moment to end. With `tls` by what it holds when
/// somebody connects, without it in the clear.
pub(super) async fn serve<L: Listener>(
    listener: &mut L,
    tls: Option<&watch::Receiver<Tls>>,
    router: Router,
    allowance: Allowance,
    leave: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(allowance.connections as usize));
    let crowd = Arc::new(Notify::new());
    loop {
        // Nobody is let in before there is a place: whoever waits in the kernel's queue is still there if this is broken off.
        let accepted = async {
            let place = place(&places, &crowd).await;
            (place, listener.accept().await.0)
        };
        let (place, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = leave.cancelled() => break,
        };
        let caller = Caller { router: router.clone(), allowance, crowd: Arc::clone(&crowd), leave: leave.clone() };
        let tls = tls.map(|tls| tls.borrow().clone());
        tokio::spawn(async move {
            caller.receive(stream, tls).await;
            drop(place);
        });
    }
    // All places are free when the last caller has gone.
    let _ = places.acquire_many(allowance.connections).await;
}

/// A place for whoever comes next. While there is none, whoever does not need its place is asked to leave, again and again, since
/// some may only just have come to rest.
async fn place(places: &Arc<Semaphore>, crowd: &Notify) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    let mut place = pin!(Arc::clone(places).acquire_owned());
    loop {
        crowd.notify_waiters();
        if let Ok(place) = timeout(ASK_AGAIN, &mut place).await {
            // Nobody closes the semaphore.
            return place.ok();
        }
    }
}

/// What one caller is answered by, and what ends it.
struct Caller {
    router: Router,
    allowance: Allowance,
    /// Tells that no place is free.
    crowd: Arc<Notify>,
    leave: CancellationToken,
}

impl Caller {
    /// Receives it, and answers it once hands are shaken.
    async fn receive(self, stream: impl AsyncRead + AsyncWrite + Send + 'static, tls: Option<Tls>) {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.allowance.stall));
        let stream = Box::pin(stream);
        let Some(tls) = tls else { return self.answer(stream).await };
        let shaken = tokio::select! {
            shaken = shake_hands(stream, &tls, self.allowance.of) => shaken,
            () = self.leave.cancelled() => return,
        };
        if let Some(stream) = shaken {
            self.answer(stream).await;
        }
    }

    /// Answers it until it hangs up, stalls, or must leave.
    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self { router, allowance, crowd, leave } = self;
        let stream = TokioIo::new(stream);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_SIZE);
        // Who has only just come in has not been answered yet, and is not sent away.
        let asked = Arc::new(AtomicBool::new(false));
        let (asks, router) = (Arc::clone(&asked), TowerToHyperService::new(router));
        let service = service_fn(move |request| {
            asks.store(true, Ordering::Relaxed);
            router.call(request)
        });
        let mut connection = pin!(http.serve_connection(stream, service));
        let mut wanted = pin!(crowd.notified());
        let mut keeps = true;
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                // What is being answered is answered; after that, or at once, it goes.
                () = &mut wanted, if keeps => {
                    if asked.load(Ordering::Relaxed) {
                        connection.as_mut().graceful_shutdown();
                        keeps = false;
                    } else {
                        wanted.set(crowd.notified());
                    }
                }
                () = leave.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    match timeout(LEAVE, connection).await {
                        Ok(ended) => break ended,
                        Err(_) => return,
                    }
                }
            }
        };
        let Err(error) = ended else { return };
        let of = allowance.of;
        if error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(is_stall) {
            let seconds = allowance.stall.as_secs();
            warn!(seconds, "a caller of the {of} took nothing of its answer for too long and was disconnected");
        } else {
            debug!(%error, "a caller of the {of} has gone");
        }
    }
}

fn is_stall(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::task::JoinHandle;

    use super::*;

    /// Counts the answers under way: what an export holds is held by its stream.
    struct UnderWay(Arc<AtomicUsize>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct World {
        path: std::path::PathBuf,
        under_way: Arc<AtomicUsize>,
        leave: CancellationToken,
        serving: JoinHandle<()>,
        _dir: tempfile::TempDir,
    }

    /// A socket with an answer that has no end.
    fn world(allowance: Allowance) -> World {
        world_with(None, allowance)
    }

    fn world_with(tls: Option<Tls>, allowance: Allowance) -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut listener = UnixListener::bind(&path).unwrap();
        let under_way = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&under_way);
        let endless = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let held = UnderWay(Arc::clone(&counter));
            let pieces =
                stream::unfold(held, async |held| Some((Ok::<_, io::Error>(Bytes::from(vec![b'x'; 65_536])), held)));
            std::future::ready(Body::from_stream(pieces))
        };
        let router = Router::new().route("/", get(endless));
        let leave = CancellationToken::new();
        let left = leave.clone();
        let tls = tls.map(|tls| watch::Sender::new(tls).subscribe());
        let serving = tokio::spawn(async move { serve(&mut listener, tls.as_ref(), router, allowance, &left).await });
        World { path, under_way, leave, serving, _dir: dir }
    }

    impl World {
        async fn ask(&self) -> UnixStream {
            let mut caller = UnixStream::connect(&self.path).await.unwrap();
            caller.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            caller
        }

        async fn until(&self, under_way: usize) {
            let start = tokio::time::Instant::now();
            while self.under_way.load(Ordering::SeqCst) != under_way {
                assert!(
                    start.elapsed() < Duration::from_mins(1),
                    "{} under way",
                    self.under_way.load(Ordering::SeqCst)
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_disconnected_and_holds_nothing() {
        let world = world(Allowance { of: "test", connections: 4, stall: Duration::from_millis(200) });
        let mut caller = world.ask().await;
        world.until(1).await;
        world.until(0).await;
        // What was sent before can be read; then comes the end, not the rest of the answer.
        let mut answer = Vec::new();
        let _ = caller.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        assert!(!answer.ends_with(b"0\r\n\r\n"), "a cut answer does not look whole");
        world.leave.cancel();
        world.serving.await.unwrap();
    }

    #[tokio::test]
    async fn more_callers_than_allowed_wait_for_their_turn_and_all_leave_at_the_end() {
        let world = world(Allowance { of: "test", connections: 2, stall: Duration::from_hours(1) });
        let callers = (world.ask().await, world.ask().await, world.ask().await);
        world.until(2).await;
        drop(callers.0);
        drop(callers.1);
        world.until(1).await;
        world.leave.cancel();
        world.serving.await.unwrap();
        assert_eq!(world.under_way.load(Ordering::SeqCst), 0, "nobody is left");
        drop(callers.2);
    }

    #[tokio::test]
    async fn who_only_keeps_a_connection_leaves_when_somebody_else_knocks() {
        let world = world(Allowance { of: "test", connections: 2, stall: Duration::from_hours(1) });
        let ask = async || {
            let mut caller = UnixStream::connect(&world.path).await.unwrap();
            caller.write_all(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            caller.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 404");
            caller
        };
        let start = tokio::time::Instant::now();
        let mut kept = Vec::new();
        for _ in 0..20 {
            kept.push(ask().await);
        }
        assert!(start.elapsed() < HEAD, "nobody waits until the connections of others have rested for too long");
        // Whoever is being answered stays.
        let reading = [world.ask().await, world.ask().await];
        world.until(2).await;
        let waiting = world.ask().await;
        tokio::time::sleep(3 * ASK_AGAIN).await;
        world.until(2).await;
        world.leave.cancel();
        world.serving.await.unwrap();
        drop((kept, reading, waiting));
    }

    #[tokio::test]
    async fn over_tls_it_is_the_same() {
        let (tls, client) = crate::tls::testing::pair("localhost");
        let world = world_with(Some(tls), Allowance { of: "test", connections: 1, stall: Duration::from_millis(200) });
        let name = "localhost".try_into().unwrap();
        let stream = UnixStream::connect(&world.path).await.unwrap();
        let mut caller = tokio_rustls::TlsConnector::from(client).connect(name, stream).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        caller.flush().await.unwrap();
        world.until(1).await;
        world.until(0).await;
        // Who is in the middle of its handshake must leave too.
        let silent = UnixStream::connect(&world.path).await.unwrap();
        world.leave.cancel();
        world.serving.await.unwrap();
        drop((caller, silent));
    }
}
