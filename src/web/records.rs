//! Records as the body of an answer: a blocking reader on one side, a stream on the other, a few pieces in between.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::content::{ContentType, TenantId};
use crate::export::{self, Format};
use crate::store::{Heads, Query, Store};

/// How many pieces of about 64 KiB may wait for a slow reader.
pub(super) const WAITING: usize = 4;

pub(super) type Piece = io::Result<Bytes>;

/// The pieces of an answer. An error cuts the answer off, so that the reader knows that it is not whole.
pub(super) fn pieces(mut receiver: mpsc::Receiver<Piece>) -> impl Stream<Item = Piece> + Send + 'static {
    poll_fn(move |context| receiver.poll_recv(context))
}

/// Everything stored that `query` asks for.
pub fn export(
    store: &Store,
    query: Query,
    format: Format,
    stop: &CancellationToken,
) -> impl Stream<Item = Piece> + Send + 'static + use<> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (store, stop) = (store.clone(), stop.clone());
    tokio::task::spawn_blocking(move || {
        let sent = export::run(&store, &query, format, |piece, _| {
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

/// How far a reader has come, as it is told and as it comes back: the last number of each tenant and content type.
pub type Cursor = Vec<(TenantId, ContentType, u64)>;

/// What `query` asks for of all that is stored after `from`; without it, of what was stored since `query.since`, or
/// from now on. Whenever the reader has everything, a line beginning with [`CURSOR_MARK`] tells it the [`Cursor`] to
/// come back with.
pub fn tail(
    store: &Store,
    query: Query,
    from: Option<Cursor>,
    stop: &CancellationToken,
) -> impl Stream<Item = Piece> + Send + 'static + use<> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (store, stop) = (store.clone(), stop.clone());
    tokio::spawn(async move {
        let mut changes = store.changes();
        let mut cursors: Result<Heads, _> = match (from, query.since) {
            (Some(from), _) => {
                Ok(from.into_iter().map(|(tenant, content_type, seq)| ((tenant, content_type), seq)).collect())
            }
            (None, Some(since)) => store.heads_at(since).await,
            (None, None) => Ok(store.heads()),
        };
        loop {
            let read = match cursors {
                Ok(cursors) => advance(&store, &query, cursors, &sender).await,
                Err(error) => Err(io::Error::other(error)),
            };
            cursors = match read {
                Ok(cursors) => Ok(cursors),
                Err(error) => {
                    // The reader may have hung up, which is the usual end.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            tokio::select! {
                more = changes.changed() => if more.is_err() { return },
                () = sender.closed() => return,
                () = stop.cancelled() => return,
            }
        }
    });
    pieces(receiver)
}

/// Sends what was stored after `cursors`, and answers where they stand then.
async fn advance(store: &Store, query: &Query, mut cursors: Heads, sender: &mpsc::Sender<Piece>) -> io::Result<Heads> {
    let wanted = |tenant, content_type| {
        (query.tenants.is_empty() || query.tenants.contains(&tenant))
            && (query.content_types.is_empty() || query.content_types.contains(&content_type))
    };
    let moved: Vec<_> = store
        .heads()
        .into_iter()
        .filter(|((tenant, content_type), _)| wanted(*tenant, *content_type))
        .filter_map(|(key, head)| {
            let from = cursors.get(&key).copied().unwrap_or(0);
            (head > from).then_some((key, from))
        })
        .collect();
    for ((tenant, content_type), from) in moved {
        let (store, sender, among) = (store.clone(), sender.clone(), query.content_types.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut formatter = export::Formatter::new(Format::Ndjson);
            let mut piece = Vec::new();
            let mut failed = Ok(());
            let to = store.for_each_record_after(tenant, content_type, from, &among, |record| {
                failed = if record.duplicate { Ok(()) } else { formatter.record(&record, &mut piece) };
                if failed.is_err() {
                    return ControlFlow::Break(());
                }
                if piece.len() < 64 * 1024 {
                    return ControlFlow::Continue(());
                }
                match sender.blocking_send(Ok(Bytes::from(std::mem::take(&mut piece)))) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            let to = to.map_err(io::Error::other)?;
            failed?;
            if !piece.is_empty() {
                // Nobody listens any more: the caller notices too.
                let _ = sender.blocking_send(Ok(Bytes::from(piece)));
            }
            io::Result::Ok(to)
        });
        cursors.insert((tenant, content_type), read.await.map_err(io::Error::other)??);
    }
    let cursor: Cursor = cursors.iter().map(|((tenant, content_type), seq)| (*tenant, *content_type, *seq)).collect();
    let mut line = vec![CURSOR_MARK];
    serde_json::to_writer(&mut line, &cursor)?;
    line.push(b'\n');
    sender.send(Ok(Bytes::from(line))).await.map_err(io::Error::other)?;
    Ok(cursors)
}
