//! Accepts connections and answers the requests on each, in order.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::door::closed;
use super::request::Request;
use super::response::{Body, Response, Wire, reason};
use crate::faults::Point;
use crate::ledger::Wait;

/// Answers up to this size go in one packet with their header section.
const ONE_PACKET: usize = 16 * 1024;

/// Bodies are written in pieces of this size.
const PIECE: usize = 128 * 1024;

/// Who answers.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What is kept about a request between its answer's making and sending.
    type Ticket: Send;
    /// A connection was accepted.
    fn connected(&self);
    /// Answers a request.
    fn answer(&self, request: &Request) -> (Response, Self::Ticket);
    /// The header section of an answer that asks for a wait has been sent.
    fn told(&self, wait: Wait);
    /// The answer has been sent, as far as it was. Called just before its last byte is, so that whoever has the whole
    /// answer finds it in the books.
    fn sent(&self, ticket: Self::Ticket, sent: Sent);
    /// The `Date` header.
    fn date(&self) -> String;
}

/// How far an answer got.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Its status; 0 if its header section was not sent.
    pub(crate) status: u16,
    /// The blob that it delivered whole.
    pub(crate) delivered: Option<u64>,
    /// The blobs that it named, if it got to the end.
    pub(crate) listed: Vec<u64>,
    /// The revisions that it told of.
    pub(crate) announced: Vec<u64>,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

/// Serves connections until dropped, each until the door is closed.
pub(super) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, open: &watch::Receiver<bool>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                handler.connected();
                let (handler, open) = (Arc::clone(&handler), open.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        // The client sees whatever went wrong; there is nobody else to tell.
                        _ = converse(stream, &*handler) => {}
                        () = closed(open) => {}
                    }
                });
            }
            // Out of descriptors, say: later ones may succeed.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn converse<H: Handler>(mut stream: TcpStream, handler: &H) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8192);
    while let Some(request) = Request::read(&mut stream, &mut buffer).await? {
        let (mut response, ticket) = handler.answer(&request);
        let mut sending = Sending {
            stream: &mut stream,
            handler,
            ticket: Some(ticket),
            wire: response.wire,
            status: response.status,
            delivers: response.delivers,
            lists: std::mem::take(&mut response.lists),
            announces: std::mem::take(&mut response.announces),
            begun: false,
            bytes: 0,
        };
        sending.send(response, &request).await?;
        drop(sending);
        if !request.keep_alive {
            break;
        }
    }
    stream.shutdown().await
}

/// An answer on its way. Wherever it ends, it is in the books then.
struct Sending<'a, H: Handler> {
    stream: &'a mut TcpStream,
    handler: &'a H,
    /// Gone once the answer is in the books.
    ticket: Option<H::Ticket>,
    wire: Wire,
    status: u16,
    delivers: Option<u64>,
    lists: Vec<u64>,
    announces: Vec<u64>,
    begun: bool,
    bytes: u64,
}

impl<H: Handler> Drop for Sending<'_, H> {
    fn drop(&mut self) {
        self.account(false);
    }
}

fn head(response: &Response, request: &Request, date: &str, length: Option<usize>) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nDate: {date}\r\nServer: Microsoft-IIS/10.0\r\n",
        response.status,
        reason(response.status)
    );
    for (name, value) in &response.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    match length {
        Some(length) => {
            head.push_str("Content-Length: ");
            head.push_str(&length.to_string());
        }
        None => head.push_str("Transfer-Encoding: chunked"),
    }
    head.push_str(if request.keep_alive { "\r\n\r\n" } else { "\r\nConnection: close\r\n\r\n" });
    head.into_bytes()
}

impl<H: Handler> Sending<'_, H> {
    async fn send(&mut self, mut response: Response, request: &Request) -> io::Result<()> {
        if !response.latency.is_zero() {
            until_closed(self.stream, tokio::time::sleep(response.latency)).await?;
        }
        self.pause(Point::BeforeHeaders).await?;
        if let Wire::Truncate { chunked } = self.wire {
            return self.truncated(response, chunked, request).await;
        }
        let date = self.handler.date();
        match std::mem::replace(&mut response.body, Body::Whole(Bytes::new())) {
            Body::Whole(bytes) => {
                let head = head(&response, request, &date, Some(bytes.len()));
                let bytes = if request.method == "HEAD" { Bytes::new() } else { bytes };
                self.whole(head, &bytes, response.wait).await
            }
            Body::Stream(chunks) => {
                self.begin(&head(&response, request, &date, None), response.wait).await?;
                self.stream(chunks).await
            }
        }
    }

    async fn whole(&mut self, mut head: Vec<u8>, bytes: &[u8], wait: Option<Wait>) -> io::Result<()> {
        if matches!(self.wire, Wire::Sound) && bytes.len() < ONE_PACKET {
            head.extend_from_slice(bytes);
            self.bytes += bytes.len() as u64;
            self.begun = true;
            self.account(true);
            return self.begin(&head, wait).await;
        }
        self.begin(&head, wait).await?;
        self.pause(Point::AfterHeaders).await?;
        let half = bytes.len() / 2;
        self.write(&bytes[..half], false, false).await?;
        self.pause(Point::MidBody).await?;
        self.write(&bytes[half..], false, true).await
    }

    async fn stream(&mut self, chunks: Box<dyn Iterator<Item = Bytes> + Send>) -> io::Result<()> {
        self.pause(Point::AfterHeaders).await?;
        let mut first = true;
        for chunk in chunks.filter(|c| !c.is_empty()) {
            self.write(&chunk, true, false).await?;
            if std::mem::take(&mut first) {
                self.pause(Point::MidBody).await?;
            }
        }
        self.account(true);
        self.stream.write_all(b"0\r\n\r\n").await
    }

    /// Sends half of the body under framing that promises all of it, then closes.
    async fn truncated(&mut self, mut response: Response, chunked: bool, request: &Request) -> io::Result<()> {
        let bytes = response.whole();
        let half = &bytes[..bytes.len() / 2];
        let length = (!chunked).then_some(bytes.len().max(1));
        self.begin(&head(&response, request, &self.handler.date(), length), response.wait).await?;
        self.write(half, chunked && !half.is_empty(), false).await?;
        self.account(false);
        self.stream.shutdown().await?;
        Err(io::Error::other("truncated on purpose"))
    }

    /// Enters the answer in the books, once.
    fn account(&mut self, complete: bool) {
        if let Some(ticket) = self.ticket.take() {
            let status = if self.begun { self.status } else { 0 };
            let delivered = self.delivers.filter(|_| complete);
            let listed = if complete { std::mem::take(&mut self.lists) } else { Vec::new() };
            let announced = if complete { std::mem::take(&mut self.announces) } else { Vec::new() };
            self.handler.sent(ticket, Sent { status, delivered, listed, announced, bytes: self.bytes });
        }
    }

    async fn begin(&mut self, head: &[u8], wait: Option<Wait>) -> io::Result<()> {
        self.stream.write_all(head).await?;
        self.begun = true;
        if let Some(wait) = wait {
            self.handler.told(wait);
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], chunked: bool, last: bool) -> io::Result<()> {
        let (size, pause) = match self.wire {
            Wire::Drip(size, pause) => (size.max(1), pause),
            _ => (PIECE, Duration::ZERO),
        };
        let mut pieces = bytes.chunks(size).peekable();
        while let Some(piece) = pieces.next() {
            self.bytes += piece.len() as u64;
            if last && pieces.peek().is_none() {
                self.account(true);
            }
            self.piece(piece, chunked).await?;
            if !pause.is_zero() {
                until_closed(self.stream, tokio::time::sleep(pause)).await?;
            }
        }
        Ok(())
    }

    async fn piece(&mut self, bytes: &[u8], chunked: bool) -> io::Result<()> {
        if !chunked {
            return self.stream.write_all(bytes).await;
        }
        self.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
        self.stream.write_all(bytes).await?;
        self.stream.write_all(b"\r\n").await
    }

    /// Resets or stalls if this is the point to.
    async fn pause(&mut self, here: Point) -> io::Result<()> {
        match self.wire {
            Wire::Reset(point) if point == here => {
                self.account(false);
                // Closing with linger 0 sends RST.
                self.stream.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Wire::Stall(point, time) if point == here => match time {
                Some(time) => until_closed(self.stream, tokio::time::sleep(time)).await,
                None => until_closed(self.stream, std::future::pending()).await,
            },
            _ => Ok(()),
        }
    }
}

/// Waits for `pause` unless the client closes first, so that a stalled connection does not outlive its client.
async fn until_closed(stream: &mut TcpStream, pause: impl Future<Output = ()>) -> io::Result<()> {
    tokio::pin!(pause);
    let mut byte = [0; 1];
    tokio::select! {
        biased;
        () = &mut pause => Ok(()),
        read = stream.peek(&mut byte) => {
            if read? == 0 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // A pipelined request: keep it for later.
            pause.await;
            Ok(())
        }
    }
}
