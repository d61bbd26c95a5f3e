//! Compression of bodies: on demand, in advance, and as an attack.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::http::{Body, Request, Response};
use crate::records::Recipe;
use crate::world::World;

/// Whether the client accepts gzip.
pub(super) fn accepts_gzip(request: &Request) -> bool {
    let accepted = request.header("accept-encoding").unwrap_or_default();
    accepted.split(',').map(str::trim).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "gzip" | "*") && weight.trim() != "q=0"
    })
}

/// Compresses an answer's body, as it is sent if it is a stream.
pub(crate) fn compress(response: &mut Response) {
    response.body = match std::mem::replace(&mut response.body, Body::Whole(Bytes::new())) {
        Body::Whole(bytes) => Body::Whole(gzip([bytes])),
        Body::Stream(chunks) => Body::Stream(Box::new(GzipChunks { chunks, encoder: Some(encoder()) })),
    };
    response.set_header("Content-Encoding", "gzip");
}

/// A small gzip body of `mib` MiB of white space between brackets: valid JSON, if it is ever read to the end.
pub(crate) fn bomb(mib: u64) -> Body {
    let spaces = Bytes::from(vec![b' '; 1024 * 1024]);
    let count = usize::try_from(mib).unwrap_or(usize::MAX);
    let pieces = std::iter::once(Bytes::from_static(b"["))
        .chain(std::iter::repeat_n(spaces, count))
        .chain([Bytes::from_static(b"]")]);
    Body::Stream(Box::new(GzipChunks {
        chunks: Box::new(pieces),
        encoder: Some(GzEncoder::new(Vec::new(), Compression::best())),
    }))
}

/// A prepared body, plain.
pub(super) fn inflate(prepared: &[u8]) -> Body {
    Body::Whole(expand(prepared).into())
}

/// What a gzip body of this cloud expands to.
pub(crate) fn expand(gzip: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // It was compressed by this process.
    let _ = GzDecoder::new(gzip).read_to_end(&mut plain);
    plain
}

/// Makes bodies in advance, on two threads, until `mib` MiB are used.
pub(crate) fn prepare(world: &World, mib: u32) {
    let recipes: Vec<(u64, Recipe)> = {
        let state = world.lock();
        state.blobs.iter().map(|b| (b.number, b.recipe.clone())).collect()
    };
    let budget = u64::from(mib) * 1024 * 1024;
    let used = std::sync::atomic::AtomicU64::new(0);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                use std::sync::atomic::Ordering::Relaxed;
                while used.load(Relaxed) < budget {
                    let Some((number, recipe)) = recipes.get(next.fetch_add(1, Relaxed)) else {
                        return;
                    };
                    let gzip = gzip(recipe.chunks(u32::MAX));
                    used.fetch_add(gzip.len() as u64, Relaxed);
                    world.lock().prepared.insert(*number, gzip);
                }
            });
        }
    });
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

fn gzip(chunks: impl IntoIterator<Item = Bytes>) -> Bytes {
    let mut encoder = encoder();
    for chunk in chunks {
        // Writing to a Vec cannot fail.
        let _ = encoder.write_all(&chunk);
    }
    encoder.finish().unwrap_or_default().into()
}

struct GzipChunks {
    chunks: Box<dyn Iterator<Item = Bytes> + Send>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for GzipChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        for chunk in self.chunks.by_ref() {
            let _ = encoder.write_all(&chunk);
            if encoder.get_ref().len() >= 16 * 1024 {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
        self.encoder.take()?.finish().ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(body: Body) -> Vec<u8> {
        let mut response = Response::empty(200);
        response.body = body;
        let mut out = Vec::new();
        GzDecoder::new(&response.whole()[..]).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn streams_and_whole_bodies_expand_to_what_they_were() {
        let pieces: Vec<Bytes> = (0..500_u32).map(|n| Bytes::from(format!("{n:>200}"))).collect();
        let all: Vec<u8> = pieces.concat();
        assert_eq!(plain(Body::Whole(gzip(pieces.clone()))), all);
        let mut response = Response::empty(200);
        response.body = Body::Stream(Box::new(pieces.into_iter()));
        compress(&mut response);
        assert_eq!(plain(response.body), all);
    }

    #[test]
    fn a_bomb_is_small_outside_and_big_inside() {
        let mut response = Response::empty(200);
        response.body = bomb(20);
        let outside = response.whole();
        assert!(outside.len() < 40_000, "{}", outside.len());
        assert_eq!(plain(Body::Whole(outside)).len(), 20 * 1024 * 1024 + 2);
    }
}
