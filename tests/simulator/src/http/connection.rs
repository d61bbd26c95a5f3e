//! Accepts connections and answers the requests on each, in order.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::request::Request;
use super::response::{Body, Response, Wire, reason};
use crate::faults::Point;
use crate::ledger::Wait;

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
    /// The answer has been sent, as far as it was.
    fn sent(&self, ticket: Self::Ticket, response: &Response, sent: Sent);
    /// The `Date` header.
    fn date(&self) -> String;
}

/// How far an answer got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Whether its header section was sent.
    pub(crate) begun: bool,
    /// Whether everything was.
    pub(crate) complete: bool,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

/// Serves connections until dropped.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                handler.connected();
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    // The client sees whatever went wrong; there is nobody else to tell.
                    let _ = converse(stream, &*handler).await;
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
        let mut sending = Sending { stream: &mut stream, begun: false, bytes: 0 };
        let result = send(&mut sending, &mut response, &request, handler).await;
        let sent = Sent { begun: sending.begun, complete: result.is_ok(), bytes: sending.bytes };
        handler.sent(ticket, &response, sent);
        result?;
        if !request.keep_alive {
            break;
        }
    }
    stream.shutdown().await
}

struct Sending<'a> {
    stream: &'a mut TcpStream,
    begun: bool,
    bytes: u64,
}

async fn send<H: Handler>(
    out: &mut Sending<'_>,
    response: &mut Response,
    request: &Request,
    handler: &H,
) -> io::Result<()> {
    if !response.latency.is_zero() {
        until_closed(out.stream, tokio::time::sleep(response.latency)).await?;
    }
    out.pause(response.wire, Point::BeforeHeaders).await?;
    let body = match (response.wire, std::mem::replace(&mut response.body, Body::Whole(Bytes::new()))) {
        (Wire::Truncate { chunked }, body) => {
            return truncated(out, response, body, chunked, request, handler).await;
        }
        (_, body) => body,
    };
    match body {
        Body::Whole(bytes) => {
            let mut head = head(response, request, &handler.date(), Some(bytes.len()));
            let silent = request.method == "HEAD";
            let sound = matches!(response.wire, Wire::Sound);
            if sound && bytes.len() < 16 * 1024 && !silent {
                // One packet for small answers.
                head.extend_from_slice(&bytes);
                out.begin(&head, response.wait, handler).await?;
                out.bytes += bytes.len() as u64;
                return Ok(());
            }
            out.begin(&head, response.wait, handler).await?;
            if silent {
                return Ok(());
            }
            out.pause(response.wire, Point::AfterHeaders).await?;
            let half = bytes.len() / 2;
            out.write(&bytes[..half], response.wire, false).await?;
            out.pause(response.wire, Point::MidBody).await?;
            out.write(&bytes[half..], response.wire, false).await
        }
        Body::Stream(chunks) => {
            out.begin(&head(response, request, &handler.date(), None), response.wait, handler).await?;
            out.pause(response.wire, Point::AfterHeaders).await?;
            let mut begun = false;
            for chunk in chunks.filter(|c| !c.is_empty()) {
                out.write(&chunk, response.wire, true).await?;
                if !begun {
                    out.pause(response.wire, Point::MidBody).await?;
                    begun = true;
                }
            }
            out.stream.write_all(b"0\r\n\r\n").await
        }
    }
}

/// Sends half of the body under framing that promises all of it, then closes.
async fn truncated<H: Handler>(
    out: &mut Sending<'_>,
    response: &mut Response,
    body: Body,
    chunked: bool,
    request: &Request,
    handler: &H,
) -> io::Result<()> {
    response.body = body;
    let bytes = response.whole();
    let half = &bytes[..bytes.len() / 2];
    let length = (!chunked).then_some(bytes.len().max(1));
    out.begin(&head(response, request, &handler.date(), length), response.wait, handler).await?;
    out.write(half, Wire::Sound, chunked && !half.is_empty()).await?;
    out.stream.shutdown().await?;
    Err(io::Error::other("truncated on purpose"))
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

impl Sending<'_> {
    async fn begin<H: Handler>(&mut self, head: &[u8], wait: Option<Wait>, handler: &H) -> io::Result<()> {
        self.stream.write_all(head).await?;
        self.begun = true;
        if let Some(wait) = wait {
            handler.told(wait);
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], wire: Wire, chunked: bool) -> io::Result<()> {
        let Wire::Drip(piece, pause) = wire else {
            return self.piece(bytes, chunked).await;
        };
        for piece in bytes.chunks(piece.max(1)) {
            self.piece(piece, chunked).await?;
            until_closed(self.stream, tokio::time::sleep(pause)).await?;
        }
        Ok(())
    }

    async fn piece(&mut self, bytes: &[u8], chunked: bool) -> io::Result<()> {
        if chunked {
            self.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
        }
        self.stream.write_all(bytes).await?;
        self.bytes += bytes.len() as u64;
        if chunked {
            self.stream.write_all(b"\r\n").await?;
        }
        Ok(())
    }

    /// Resets or stalls if this is the point to.
    async fn pause(&mut self, wire: Wire, here: Point) -> io::Result<()> {
        match wire {
            Wire::Reset(point) if point == here => {
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
