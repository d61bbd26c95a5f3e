//! Records as the body of an answer: a blocking reader on one side, a stream on the other, a few pieces in between.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::content::{ContentType, TenantId};
use crate::export::{self, Form};
use crate::language::Language;
use crate::store::{Heads, Query, Record, Store};

/// How many pieces of about 64 KiB may wait for a slow reader.
pub(super) const WAITING: usize = 4;
/// A tail hands its reader pieces of about this size.
const PIECE: usize = 64 * 1024;

pub(super) type Piece = io::Result<Bytes>;

/// The pieces of an answer. An error cuts the answer off, so that the reader knows that it is not whole.
pub(super) fn pieces(mut receiver: mpsc::Receiver<Piece>) -> impl Stream<Item = Piece> + Send + 'static {
    poll_fn(move |context| receiver.poll_recv(context))
}

/// Everything stored that `query` asks for.
pub fn export(
    store: &Store,
    query: Query,
    form: Form,
    stop: &CancellationToken,
) -> impl Stream<Item = Piece> + Send + 'static + use<> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (store, stop) = (store.clone(), stop.clone());
    tokio::task::spawn_blocking(move || {
        let sent = export::run(&store, &query, form, |piece, _| {
            if stop.is_cancelled() {
                let _ = sender.blocking_send(Err(io::Error::other("the daemon is stopping")));
                return ControlFlow::Break(());
            }
            match sender.blocking_send(Ok(Bytes::from(std::mem::take(piece)))) {
                Ok(()) => ControlFlow::Continue(()),
                // The reader has hung up.
                Err(_) => ControlFlow::Break(()),
            }
        });
        if let Err(error) = sent {
            tracing::warn!(error = &error as &dyn std::error::Error, "an export ended early");
            let _ = sender.blocking_send(Err(io::Error::other(error)));
        }
    });
    pieces(receiver)
}

/// Begins a line of a tail that is no record but says how far the reader has come: no JSON text can begin with it.
pub const CURSOR_MARK: u8 = 0x1E;

/// How far a reader has come, of some tenants and content types: the number of the blob that is next, and how many of its
/// records it has been sent.
pub type Cursor = Vec<(TenantId, ContentType, u64, u32)>;

/// A [`Cursor`], by whose it is.
pub type Places = BTreeMap<(TenantId, ContentType), (u64, u32)>;

/// When a tail ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When everything that is stored has been sent.
    CaughtUp,
    /// When it is stopped, or nobody reads it any more.
    Stopped,
}

/// What `query` asks for of all that is stored after `from`; without it, of what was stored since `query.since`, or
/// from now on. It begins with the whole [`Cursor`]; after that each piece ends with the part of it that the piece has
/// moved, on a line that begins with [`CURSOR_MARK`]; `dlp_names` is the language of names beside ids. A reader that keeps nothing but whole pieces and comes back with its
/// cursor neither reads a record twice nor misses one.
pub fn tail(
    store: &Store,
    query: Query,
    dlp_names: Option<Language>,
    from: Option<Places>,
    until: Until,
    stop: &CancellationToken,
) -> impl Stream<Item = Piece> + Send + 'static + use<> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let tail = Tail { store: store.clone(), query, dlp_names, sender, stop: stop.clone() };
    tokio::spawn(async move {
        if let Err(error) = tail.run(from, until).await {
            // The reader may have hung up, which is the usual end.
            let _ = tail.sender.send(Err(error)).await;
        }
    });
    pieces(receiver)
}

/// A tail and its reader.
struct Tail {
    store: Store,
    query: Query,
    dlp_names: Option<Language>,
    sender: mpsc::Sender<Piece>,
    stop: CancellationToken,
}

impl Tail {
    async fn run(&self, from: Option<Places>, until: Until) -> io::Result<()> {
        let mut changes = self.store.changes();
        let mut places = match (from, self.query.since) {
            (Some(from), _) => from,
            (None, Some(since)) => self.places(self.store.heads_at(since).await.map_err(io::Error::other)?),
            (None, None) => self.places(self.store.heads()),
        };
        let mut line = Vec::new();
        tell(&places, &mut line)?;
        let _ = self.sender.send(Ok(Bytes::from(line))).await;
        loop {
            self.advance(&mut places).await?;
            if until == Until::CaughtUp {
                return Ok(());
            }
            tokio::select! {
                more = changes.changed() => if more.is_err() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    fn form(&self) -> Form {
        Form { dlp_names: self.dlp_names.clone(), ..Form::default() }
    }

    fn wants(&self, tenant: TenantId, content_type: ContentType) -> bool {
        let Query { tenants, content_types, .. } = &self.query;
        let wants_type =
            if content_types.is_empty() { !content_type.is_health() } else { content_types.contains(&content_type) };
        (tenants.is_empty() || tenants.contains(&tenant)) && wants_type
    }

    /// Whoever has everything up to these numbers is there.
    fn places(&self, heads: Heads) -> Places {
        let wanted = heads.into_iter().filter(|((tenant, content_type), _)| self.wants(*tenant, *content_type));
        wanted.map(|(of, head)| (of, (head + 1, 0))).collect()
    }

    /// Sends what is stored from `places` on, and moves them.
    async fn advance(&self, places: &mut Places) -> io::Result<()> {
        for (of, (next, _)) in self.places(self.store.heads()) {
            let place = places.entry(of).or_insert((1, 0));
            if place.0 >= next {
                continue;
            }
            if self.stop.is_cancelled() || self.sender.is_closed() {
                return Ok(());
            }
            let reading = Reading {
                of,
                among: self.query.content_types.clone(),
                place: *place,
                formatter: export::Formatter::new(self.form(), Some(&self.store)),
                piece: Vec::new(),
                sender: self.sender.clone(),
            };
            let (store, stop) = (self.store.clone(), self.stop.clone());
            let read = tokio::task::spawn_blocking(move || reading.run(&store, &stop));
            *place = read.await.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

/// One content type of a tenant, being read. Blocking.
struct Reading {
    of: (TenantId, ContentType),
    /// The types of which copies are left out; empty: all.
    among: Vec<ContentType>,
    place: (u64, u32),
    formatter: export::Formatter,
    piece: Vec<u8>,
    sender: mpsc::Sender<Piece>,
}

impl Reading {
    /// Reads to the end, or until it is stopped or nobody listens any more; answers the place that was reached.
    fn run(mut self, store: &Store, stop: &CancellationToken) -> io::Result<(u64, u32)> {
        let (tenant, content_type) = self.of;
        let (first, passed) = self.place;
        let mut ended = Ok(ControlFlow::Continue(()));
        let among = std::mem::take(&mut self.among);
        let to = store.for_each_record_after(tenant, content_type, first - 1, &among, |record| {
            if record.seq == first && record.index < passed {
                return ControlFlow::Continue(());
            }
            ended = self.record(&record, stop);
            if let Ok(flow) = ended { flow } else { ControlFlow::Break(()) }
        });
        let to = to.map_err(io::Error::other)?;
        if ended?.is_continue() {
            self.place = self.place.max((to + 1, 0));
            // Whoever does not listen any more is noticed by the caller.
            let _ = self.send()?;
        }
        Ok(self.place)
    }

    fn record(&mut self, record: &Record<'_>, stop: &CancellationToken) -> io::Result<ControlFlow<()>> {
        if !record.duplicate {
            self.formatter.record(record, &mut self.piece)?;
        }
        self.place = (record.seq, record.index + 1);
        if self.piece.len() < PIECE {
            return Ok(ControlFlow::Continue(()));
        }
        let sent = self.send()?;
        Ok(if stop.is_cancelled() { ControlFlow::Break(()) } else { sent })
    }

    /// Sends what has been read, and the place that it leads to.
    fn send(&mut self) -> io::Result<ControlFlow<()>> {
        tell(&Places::from([(self.of, self.place)]), &mut self.piece)?;
        let sent = self.sender.blocking_send(Ok(Bytes::from(std::mem::take(&mut self.piece))));
        Ok(if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

/// The line that says so.
fn tell(places: &Places, line: &mut Vec<u8>) -> io::Result<()> {
    let cursor: Cursor = places.iter().map(|((tenant, of), (next, sent))| (*tenant, *of, *next, *sent)).collect();
    line.push(CURSOR_MARK);
    serde_json::to_writer(&mut *line, &cursor)?;
    line.push(b'\n');
    Ok(())
}
