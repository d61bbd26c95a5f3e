//! A stream whose reader hears why it is not whole.
//!
//! HTTP can only cut an answer off. So each piece of a framed answer is preceded by its length (four bytes, big endian);
//! a length of zero says that no piece follows: the answer is whole, or the rest of it is the reason why it is not.
//!
//! **Invariant:** an answer without that last frame was cut off, whatever HTTP says.

use std::error::Error;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};

use crate::store::StoreError;

/// The pieces, each in its frame, and the last frame.
pub(super) fn frames(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(Box::pin(pieces)), async |pieces| {
        let mut pieces = pieces?;
        loop {
            match pieces.next().await {
                // That would end it.
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => return Some((frame(&piece), Some(pieces))),
                Some(Err(error)) => return Some((Ok(last(&reason(&error))), None)),
                None => return Some((Ok(last("")), None)),
            }
        }
    })
}

fn frame(piece: &[u8]) -> io::Result<Bytes> {
    let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
    Ok(Bytes::from([&length.to_be_bytes(), piece].concat()))
}

fn last(reason: &str) -> Bytes {
    Bytes::from([&[0; 4], reason.as_bytes()].concat())
}

/// The error with its causes, and what to do about it if the store knows.
fn reason(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        if let Some(remedy) = error.downcast_ref().map(StoreError::remedy).filter(|remedy| !remedy.is_empty()) {
            text.push_str("; ");
            text.push_str(remedy);
        }
        cause = error.source();
    }
    text
}

/// Takes the frames away again.
#[derive(Debug, Default)]
pub struct Frames {
    pending: BytesMut,
    ended: bool,
}

impl Frames {
    /// More of the answer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next piece, if it has come whole.
    pub fn piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let length = u32::from_be_bytes(*self.pending.first_chunk()?) as usize;
        if self.pending.len() - 4 < length {
            return None;
        }
        self.pending.advance(4);
        self.ended = length == 0;
        (!self.ended).then(|| self.pending.split_to(length).freeze())
    }

    /// The end of the answer: `Ok` if it was whole, else the reason, if it tells one.
    pub fn finish(self) -> Result<(), Option<String>> {
        match (self.ended, self.pending.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(Some(String::from_utf8_lossy(&self.pending).into_owned())),
            (false, _) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn framed(pieces: Vec<io::Result<Bytes>>) -> Vec<u8> {
        frames(stream::iter(pieces)).map(Result::unwrap).collect::<Vec<_>>().await.concat()
    }

    /// What a reader makes of `bytes` that come `step` at a time.
    fn read(bytes: &[u8], step: usize) -> (String, Result<(), Option<String>>) {
        let (mut frames, mut text) = (Frames::default(), Vec::new());
        for bytes in bytes.chunks(step) {
            frames.push(bytes);
            while let Some(piece) = frames.piece() {
                text.extend_from_slice(&piece);
            }
        }
        (String::from_utf8(text).unwrap(), frames.finish())
    }

    #[tokio::test]
    async fn a_reader_knows_whether_an_answer_is_whole_and_why_not() {
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let whole = framed(vec![piece("one "), piece(""), piece("two")]).await;
        let failed = framed(vec![piece("one "), Err(io::Error::other("the disk")), piece("two")]).await;
        for step in [1, 3, 1000] {
            assert_eq!(read(&whole, step), ("one two".to_owned(), Ok(())));
            assert_eq!(read(&failed, step), ("one ".to_owned(), Err(Some("the disk".to_owned()))));
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut], step).1, Err(None), "cut at {cut}");
            }
        }
        assert_eq!(read(&framed(Vec::new()).await, 1), (String::new(), Ok(())));
    }
}
