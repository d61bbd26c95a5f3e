//! A request as received.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const MOST_HEAD: usize = 64 * 1024;
const MOST_BODY: usize = 1024 * 1024;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path as sent, still percent-encoded.
    pub(crate) path: String,
    /// Query as sent, without the question mark.
    pub(crate) query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

impl Request {
    /// Reads the next request, `None` when the client has closed. `buffer` keeps what came after it.
    pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
        let (mut request, head, length, chunked) = loop {
            if let Some(parsed) = parse(buffer)? {
                break parsed;
            }
            if buffer.len() > MOST_HEAD {
                return Err(invalid("request head too long"));
            }
            if io.read_buf(buffer).await? == 0 {
                return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        buffer.drain(..head);
        if chunked {
            request.body = read_chunked(io, buffer).await?;
        } else {
            fill(io, buffer, length).await?;
            request.body = buffer.drain(..length).collect();
        }
        Ok(Some(request))
    }

    /// A header's value, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The query's parameters, names in lower case.
    pub(crate) fn parameters(&self) -> HashMap<String, String> {
        pairs(&self.query).map(|(n, v)| (n.to_lowercase(), v)).collect()
    }

    /// How often the query names a parameter, in any case.
    pub(crate) fn times_named(&self, name: &str) -> usize {
        pairs(&self.query).filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    /// The body's form fields.
    pub(crate) fn form(&self) -> HashMap<String, String> {
        pairs(&String::from_utf8_lossy(&self.body)).collect()
    }

    /// Method and target.
    pub(crate) fn line(&self) -> String {
        if self.query.is_empty() {
            format!("{} {}", self.method, self.path)
        } else {
            format!("{} {}?{}", self.method, self.path, self.query)
        }
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize, usize, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let size = match head.parse(buffer).map_err(|e| invalid(&e.to_string()))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(size) => size,
    };
    let target = head.path.unwrap_or("/");
    // Absolute form, as a client sends to a proxy.
    let target = target.strip_prefix("http://").map_or(target, |t| t.find('/').map_or("/", |n| &t[n..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<_> =
        head.headers.iter().map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect();
    let request = Request {
        method: head.method.unwrap_or("GET").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        keep_alive: true,
    };
    let closing = request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    let keep_alive = head.version == Some(1) && !closing;
    let length = match request.header("content-length") {
        Some(text) => text.trim().parse().map_err(|_| invalid("content-length is no number"))?,
        None => 0,
    };
    if length > MOST_BODY {
        return Err(invalid("request body too long"));
    }
    let chunked = request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    Ok(Some((Request { keep_alive, ..request }, size, length, chunked)))
}

async fn fill(io: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        if io.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn read_chunked(io: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (head, size) = loop {
            match httparse::parse_chunk_size(buffer).map_err(|_| invalid("bad chunk size"))? {
                httparse::Status::Complete(found) => break found,
                httparse::Status::Partial => fill(io, buffer, buffer.len() + 1).await?,
            }
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if body.len().saturating_add(size) > MOST_BODY {
            return Err(invalid("request body too long"));
        }
        fill(io, buffer, head + size + 2).await?;
        body.extend_from_slice(&buffer[head..head + size]);
        buffer.drain(..head + size + 2);
        if size == 0 {
            return Ok(body);
        }
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(&name.replace('+', " ")), percent_decoded(&value.replace('+', " ")))
    })
}

/// Undoes percent-encoding; what is no valid escape stays.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |n: usize| bytes.get(n).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(bytes.len());
    let mut n = 0;
    while n < bytes.len() {
        match (bytes[n], digit(n + 1), digit(n + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                n += 3;
            }
            (byte, ..) => {
                out.push(byte);
                n += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> Request {
        Request::read(&mut text.as_bytes(), &mut Vec::new()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn requests_are_read_with_their_bodies() {
        let request = read("POST /a/b?X=1%24&y=a+b HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nk=v%20w").await;
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.query.as_str()),
            ("POST", "/a/b", "X=1%24&y=a+b")
        );
        assert_eq!(request.parameters()["x"], "1$");
        assert_eq!(request.parameters()["y"], "a b");
        assert_eq!(request.form()["k"], "v w");
        assert!(request.keep_alive);
        let request = read("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
        assert_eq!(request.body, b"abcde");
        assert!(!request.keep_alive);
    }

    #[tokio::test]
    async fn two_requests_in_one_packet_stay_apart() {
        let mut buffer = Vec::new();
        let mut io: &[u8] = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        assert_eq!(Request::read(&mut io, &mut buffer).await.unwrap().unwrap().path, "/1");
        assert_eq!(Request::read(&mut io, &mut buffer).await.unwrap().unwrap().path, "/2");
        assert!(Request::read(&mut io, &mut buffer).await.unwrap().is_none());
    }
}
