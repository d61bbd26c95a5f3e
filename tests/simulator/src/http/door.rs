//! A port that can be closed for a while, so that connections are refused, and stays this cloud's meanwhile.

use std::io;
use std::net::{SocketAddr, TcpListener as PlainListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::connection::{Handler, serve};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A port.
pub(crate) struct Door {
    address: SocketAddr,
    /// Bound and never listening: while nothing listens, nobody else gets the port.
    _held: TcpSocket,
    latch: Latch,
}

/// Opens and closes a door.
pub(crate) type Latch = watch::Sender<bool>;

impl Door {
    /// Takes a port; 0 is a free one.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        if address.port() != 0 {
            // Ports are taken for sharing below; that somebody else has this one must be an error all the same.
            drop(PlainListener::bind(address)?);
        }
        let held = socket(address)?;
        let address = held.local_addr()?;
        Ok(Self { address, _held: held, latch: Latch::new(true) })
    }

    pub(crate) fn latch(&self) -> Latch {
        self.latch.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Listens, within a runtime; what it answers serves whoever comes while the door is open. Closing it ends the
    /// connections too.
    pub(crate) fn serve<H: Handler>(self, handler: Arc<H>) -> io::Result<impl Future<Output = ()> + Send> {
        let mut listener = self.listen()?;
        let mut open = self.latch.subscribe();
        Ok(async move {
            loop {
                tokio::select! {
                    () = serve(listener, Arc::clone(&handler), &open) => {}
                    () = closed(open.clone()) => {}
                }
                if open.wait_for(|open| *open).await.is_err() {
                    return;
                }
                listener = loop {
                    match self.listen() {
                        Ok(listener) => break listener,
                        // Out of descriptors, say: later there may be some.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
            }
        })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        socket(self.address)?.listen(BACKLOG)
    }
}

/// Ends when the door is closed.
pub(super) async fn closed(mut open: watch::Receiver<bool>) {
    // An error is the end of the cloud.
    let _ = open.wait_for(|open| !*open).await;
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}
