//! gzip undone in bounded steps: the caller gives the room for the output, and no step writes more.
//!
//! A body may consist of several members (RFC 1952); each one's checksum and length are verified. Anything after
//! the last member is an error, and so is an end before it.

use flate2::{Decompress, DecompressError, FlushDecompress, Status};

/// gzip's window is 2^15 bytes, always.
const WINDOW_BITS: u8 = 15;

/// A body that is not what gzip made.
#[derive(Debug, thiserror::Error)]
pub enum GunzipError {
    /// A header, block or checksum is wrong.
    #[error("the gzip data is damaged")]
    Damaged(#[source] DecompressError),
    /// The body ends inside a member.
    #[error("the gzip data ends too early")]
    Truncated,
}

/// The decoder of one body.
#[derive(Debug)]
pub(super) struct Gunzip {
    member: Decompress,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a member, or before the first.
    Inside,
    /// A member has ended with its checksum in order; the body may end here.
    Between,
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self { member: Decompress::new_gzip(WINDOW_BITS), state: State::Inside }
    }

    /// Decodes from `input` into the spare capacity of `output`, and says how much of the input was used. Either
    /// the input is used up or the output is full afterwards; if the output is full, more may follow without
    /// further input.
    pub(super) fn inflate(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, GunzipError> {
        let mut used = 0;
        loop {
            if self.state == State::Between {
                if used == input.len() {
                    return Ok(used);
                }
                self.member = Decompress::new_gzip(WINDOW_BITS);
                self.state = State::Inside;
            }
            if output.len() == output.capacity() {
                return Ok(used);
            }
            let (before_in, before_out) = (self.member.total_in(), self.member.total_out());
            let status = self
                .member
                .decompress_vec(&input[used..], output, FlushDecompress::None)
                .map_err(GunzipError::Damaged)?;
            // What was used is at most what was given, which is a `usize`.
            used += usize::try_from(self.member.total_in() - before_in).unwrap_or(usize::MAX);
            let still = self.member.total_in() == before_in && self.member.total_out() == before_out;
            match status {
                Status::StreamEnd => self.state = State::Between,
                Status::Ok | Status::BufError if used == input.len() || still => return Ok(used),
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Whether the body may end here.
    pub(super) fn finish(&self) -> Result<(), GunzipError> {
        match self.state {
            State::Between => Ok(()),
            State::Inside => Err(GunzipError::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// Decodes `chunks` with room for `room` bytes at a time.
    fn gunzip<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, room: usize) -> Result<Vec<u8>, GunzipError> {
        let (mut decoder, mut all) = (Gunzip::new(), Vec::new());
        for chunk in chunks {
            let mut rest = chunk;
            loop {
                let mut output = Vec::with_capacity(room);
                let used = decoder.inflate(rest, &mut output)?;
                rest = &rest[used..];
                let full = output.len() == output.capacity();
                all.extend_from_slice(&output);
                if rest.is_empty() && !full {
                    break;
                }
            }
        }
        decoder.finish().map(|()| all)
    }

    #[test]
    fn a_bomb_fills_only_the_room_it_is_given() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 17);
        let mut decoder = Gunzip::new();
        let mut output = Vec::with_capacity(1 << 16);
        let used = decoder.inflate(&bomb, &mut output).unwrap();
        assert_eq!((output.len(), output.capacity()), (1 << 16, 1 << 16));
        assert!(used < bomb.len());
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let plain: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
        let packed = gzip(&plain);
        for end in 0..packed.len() {
            assert!(gunzip([&packed[..end]], 4096).is_err(), "cut at {end} of {}", packed.len());
        }
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            // Some bits mean nothing: the header's time and system, the padding before the checksum.
            assert!(gunzip([&damaged[..]], 4096).map_or(true, |out| out == plain), "flipped at {at}");
        }
    }

    #[test]
    fn what_follows_the_last_member_must_be_a_member() {
        let mut packed = gzip(b"one");
        packed.extend(gzip(b""));
        packed.extend(gzip(b"two"));
        assert_eq!(gunzip([&packed[..]], 2).unwrap(), b"onetwo");
        packed.extend(b"garbage");
        assert!(matches!(gunzip([&packed[..]], 4096), Err(GunzipError::Damaged(_))));
        assert!(matches!(gunzip([], 4096), Err(GunzipError::Truncated)), "nothing at all is no gzip");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_gives_the_plain_text(
            members in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..5000), 1..4),
            cuts in proptest::collection::vec(1usize..700, 1..20),
            room in 1usize..3000,
        ) {
            let packed: Vec<u8> = members.iter().flat_map(|plain| gzip(plain)).collect();
            let mut rest = &packed[..];
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            prop_assert_eq!(gunzip(chunks, room).unwrap(), members.concat());
        }

        #[test]
        fn arbitrary_bytes_are_an_error_at_worst(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            header in any::<bool>(),
        ) {
            let mut input = if header { gzip(b"x")[..10].to_vec() } else { Vec::new() };
            input.extend(bytes);
            let _ = gunzip([&input[..]], 512);
        }
    }
}
