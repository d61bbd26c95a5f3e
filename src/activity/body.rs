//! A body as a stream of decoded bytes, with limits on both sides of the compression and on its pace.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use tokio::time::Instant;

use super::error::{ActivityError, Operation, Side};
use super::gunzip::{Gunzip, GunzipError};

/// What is handed on at a time, at most. Small enough for a processor's cache, large enough that the work around
/// it does not count.
pub(super) const CHUNK: usize = 128 * 1024;

/// A body may be slow, but after this long ...
const GRACE: Duration = Duration::from_mins(2);
/// ... it must have come at this pace on average, in bytes per second.
const PACE: u64 = 1024;

/// How many bytes a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// On the wire.
    pub max_compressed: u64,
    /// Decoded.
    pub max_decompressed: u64,
}

/// How a body is encoded.
#[derive(Debug)]
enum Coding {
    Identity,
    Gzip(Box<Gunzip>),
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, String> {
        let mut gunzip = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            let Ok(text) = value.to_str() else { return Err(String::from_utf8_lossy(value.as_bytes()).into_owned()) };
            for coding in text.split(',').map(str::trim) {
                match coding.to_ascii_lowercase().as_str() {
                    "" | "identity" => {}
                    // Twice encoded was never asked for.
                    "gzip" | "x-gzip" if gunzip.is_none() => gunzip = Some(Box::new(Gunzip::new())),
                    _ => return Err(text.chars().take(60).collect()),
                }
            }
        }
        Ok(gunzip.map_or(Self::Identity, Self::Gzip))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    operation: Operation,
    coding: Coding,
    limits: Limits,
    /// Received and not decoded yet.
    input: Bytes,
    /// What `chunk` hands on of a body that is not encoded.
    plain: Bytes,
    /// What it hands on of one that is. Kept here, so that dropping its future loses nothing.
    output: Output,
    /// `output` has been handed on.
    handed_on: bool,
    /// The end of the body was seen and verified.
    ended: bool,
    received: u64,
    decoded: u64,
    /// Time spent waiting for the network; what the consumer takes is not the service's fault.
    waited: Duration,
}

impl Body {
    pub(super) fn new(response: Response, operation: Operation, limits: Limits) -> Result<Self, ActivityError> {
        let coding =
            Coding::of(response.headers()).map_err(|encoding| ActivityError::Encoding { operation, encoding })?;
        let body = Self {
            operation,
            coding,
            limits,
            input: Bytes::new(),
            plain: Bytes::new(),
            output: Output::default(),
            handed_on: false,
            ended: false,
            received: 0,
            decoded: 0,
            waited: Duration::ZERO,
            response,
        };
        // No need to read what is announced as too much.
        if let Some(length) = body.response.content_length() {
            body.check(Side::Compressed, length)?;
        }
        Ok(body)
    }

    /// Bytes received so far, as they came over the wire.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes handed on so far.
    pub(super) fn decoded(&self) -> u64 {
        self.decoded
    }

    /// The next decoded bytes, at most [`CHUNK`]; `None` once the end was seen and verified.
    ///
    /// Dropping the future of this call loses nothing: what was received stays here.
    pub(super) async fn chunk(&mut self) -> Result<Option<&[u8]>, ActivityError> {
        // A small input can hold a large output: between two reads, others get their turn too.
        tokio::task::coop::consume_budget().await;
        let decoded = match self.coding {
            Coding::Identity => self.next_plain().await?,
            Coding::Gzip(_) => self.gunzip().await?,
        };
        self.decoded += decoded as u64;
        self.check(Side::Decompressed, self.decoded)?;
        if decoded == 0 {
            return Ok(None);
        }
        Ok(Some(match self.coding {
            Coding::Identity => &self.plain,
            Coding::Gzip(_) => &self.output.0,
        }))
    }

    /// Waits until something of the body has come, or its end.
    pub(super) async fn begin(&mut self) -> Result<(), ActivityError> {
        while self.input.is_empty() {
            match self.receive().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return self.empty_needs_no_coding(error).map(drop),
            }
        }
        Ok(())
    }

    /// Adds what comes next to `all` until that has `most` bytes or more; true once the end was seen and verified.
    pub(super) async fn read_on(&mut self, all: &mut Vec<u8>, most: usize) -> Result<bool, ActivityError> {
        while all.len() < most {
            match self.chunk().await {
                Ok(Some(chunk)) => all.extend_from_slice(chunk),
                Ok(None) => return Ok(true),
                Err(error) => return self.empty_needs_no_coding(error),
            }
        }
        Ok(false)
    }

    /// An empty body is at its end, whatever coding its header names.
    fn empty_needs_no_coding(&self, error: ActivityError) -> Result<bool, ActivityError> {
        match error {
            ActivityError::Gzip { source: GunzipError::Truncated, .. } if self.received == 0 => Ok(true),
            error => Err(error),
        }
    }

    /// As much of the body as comes before an error or `most` bytes: for the bodies of errors.
    pub(super) async fn read_leniently(mut self, most: usize, within: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        let reading = async {
            while let Ok(Some(chunk)) = self.chunk().await {
                let room = most - all.len();
                all.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if all.len() == most {
                    break;
                }
            }
        };
        // What came until then is what there is.
        let _ = tokio::time::timeout(within, reading).await;
        all
    }

    /// How many bytes come next; none at the end.
    async fn next_plain(&mut self) -> Result<usize, ActivityError> {
        while self.input.is_empty() {
            if !self.receive().await? {
                return Ok(0);
            }
        }
        self.plain = self.input.split_to(self.input.len().min(CHUNK));
        Ok(self.plain.len())
    }

    /// The same, decoded. Full chunks, so that the work around each is worth it; only the last may be shorter.
    async fn gunzip(&mut self) -> Result<usize, ActivityError> {
        if std::mem::take(&mut self.handed_on) {
            self.output.0.clear();
        }
        loop {
            let output = self.output.room();
            if let Coding::Gzip(gunzip) = &mut self.coding {
                let operation = self.operation;
                let used =
                    gunzip.inflate(&self.input, output).map_err(|source| ActivityError::Gzip { operation, source })?;
                let _ = self.input.split_to(used);
            }
            if output.len() == output.capacity() || !self.receive().await? {
                self.handed_on = true;
                return Ok(self.output.0.len());
            }
        }
    }

    /// Reads from the network into `input`; false at the verified end.
    async fn receive(&mut self) -> Result<bool, ActivityError> {
        if self.ended {
            return Ok(false);
        }
        let asked = Instant::now();
        let received = self.response.chunk().await;
        self.waited += asked.elapsed();
        let Some(input) = received.map_err(|error| ActivityError::receiving(self.operation, error))? else {
            if let Coding::Gzip(gunzip) = &self.coding {
                let operation = self.operation;
                gunzip.finish().map_err(|source| ActivityError::Gzip { operation, source })?;
            }
            self.ended = true;
            return Ok(false);
        };
        self.received += input.len() as u64;
        self.check(Side::Compressed, self.received)?;
        if too_slow(self.received, self.waited) {
            let (operation, received, waited) = (self.operation, self.received, self.waited);
            return Err(ActivityError::TooSlow { operation, received, waited });
        }
        self.input = input;
        Ok(true)
    }

    fn check(&self, side: Side, bytes: u64) -> Result<(), ActivityError> {
        let limit = match side {
            Side::Compressed => self.limits.max_compressed,
            Side::Decompressed => self.limits.max_decompressed,
        };
        if bytes <= limit { Ok(()) } else { Err(ActivityError::TooLarge { operation: self.operation, side, limit }) }
    }
}

/// Room for what is decoded. It is used again for later bodies: the allocator gives so much memory back to the system
/// at once, and to have it anew for each body was most of the page faults of the threads that retrieve.
#[derive(Debug, Default)]
struct Output(Vec<u8>);

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// How many are kept.
const KEPT: usize = 16;

impl Output {
    fn room(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
            self.0 = spare.unwrap_or_else(|| Vec::with_capacity(CHUNK));
        }
        &mut self.0
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.0);
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if room.capacity() > 0 && spare.len() < KEPT {
            room.clear();
            spare.push(room);
        }
    }
}

/// Whether a body that brought `received` bytes in this time would hold its place for too long.
fn too_slow(received: u64, waited: Duration) -> bool {
    waited > GRACE && received < waited.as_secs().saturating_mul(PACE)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn codings_that_were_not_asked_for_are_refused() {
        let coding = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            Coding::of(&headers).map(|coding| matches!(coding, Coding::Gzip(_)))
        };
        for (values, gzip) in [
            (&[][..], Ok(false)),
            (&[""], Ok(false)),
            (&["identity"], Ok(false)),
            (&["gzip"], Ok(true)),
            (&["GZip"], Ok(true)),
            (&["x-gzip"], Ok(true)),
            (&["identity, gzip"], Ok(true)),
            (&["gzip, gzip"], Err("gzip, gzip")),
            (&["gzip", "gzip"], Err("gzip")),
            (&["br"], Err("br")),
            (&["deflate"], Err("deflate")),
            (&["gzip;q=1"], Err("gzip;q=1")),
        ] {
            assert_eq!(coding(values), gzip.map_err(str::to_owned), "{values:?}");
        }
    }

    #[test]
    fn a_drip_is_too_slow_after_two_minutes() {
        let seconds = Duration::from_secs;
        assert!(!too_slow(0, seconds(120)));
        assert!(!too_slow(121 * 1024, seconds(121)));
        assert!(too_slow(121 * 1024 - 1, seconds(121)));
        assert!(too_slow(10, seconds(200)));
        assert!(!too_slow(4 << 30, seconds(86_400)));
    }

    /// A body whose parts come as the stream gives them; with time paused, waiting costs none.
    fn body(parts: impl futures_util::Stream<Item = Bytes> + Send + 'static, limits: Limits) -> Body {
        let parts = futures_util::StreamExt::map(parts, Ok::<_, std::io::Error>);
        let response = axum::http::Response::new(reqwest::Body::wrap_stream(parts));
        Body::new(response.into(), Operation::FetchBlob, limits).unwrap()
    }

    /// Ten bytes every thirty seconds, without end.
    fn drip() -> impl futures_util::Stream<Item = Bytes> {
        futures_util::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(30)).await;
            Some((Bytes::from_static(b"0123456789"), ()))
        })
    }

    const WIDE: Limits = Limits { max_compressed: 1 << 30, max_decompressed: 1 << 30 };

    #[tokio::test(start_paused = true)]
    async fn a_drip_does_not_hold_its_place_for_ever() {
        let mut body = body(drip(), WIDE);
        let error = loop {
            match body.chunk().await {
                Ok(chunk) => assert!(chunk.is_some()),
                Err(error) => break error,
            }
        };
        let ActivityError::TooSlow { received: 50, waited, .. } = error else { panic!("{error:?}") };
        assert_eq!(waited.as_secs(), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_reader_takes_is_not_the_services() {
        let parts = futures_util::stream::iter((0..10).map(|_| Bytes::from_static(b"x")));
        let mut body = body(parts, WIDE);
        let mut read = 0;
        while let Some(chunk) = body.chunk().await.unwrap() {
            read += chunk.len();
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        assert_eq!((read, body.received(), body.decoded()), (10, 10, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_of_an_error_is_what_came_in_time_and_in_size() {
        let read = |most, seconds| body(drip(), WIDE).read_leniently(most, Duration::from_secs(seconds));
        assert_eq!(read(1000, 100).await, b"012345678901234567890123456789");
        assert_eq!(read(15, 100).await, b"012345678901234");
        assert_eq!(read(1000, 10).await, b"");
        let narrow = Limits { max_compressed: 25, max_decompressed: 25 };
        let body = body(drip(), narrow).read_leniently(1000, Duration::from_hours(1)).await;
        assert_eq!(body, b"01234567890123456789");
    }
}
