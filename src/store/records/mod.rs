//! Finds the records in a body: a JSON array of objects that arrives in pieces.
//!
//! The service says "a JSON array of objects", so that is what is accepted: exactly one array, every element an
//! object, white space anywhere, a UTF-8 byte order mark before it. Everything else is [`Malformed`], with the byte
//! where it stops being one: `null`, an object, a second array, text behind it, an end before the end.
//!
//! Each record is checked in one pass that takes out the few [`Fields`] the store needs and skips the rest without
//! building anything: a [`quick`] one, which is nearly always sure of its case, or else `serde_json`'s, which judges.
//! When a record does not end within the bytes at hand, [`Brackets`] looks for its end as bytes arrive. A record is
//! so read a few times at most, however small the pieces are.
//!
//! **Invariant:** what is accepted does not depend on where the body is cut into pieces; and a record is accepted
//! exactly if it is one JSON object (RFC 8259, depth and size of numbers unlimited) in valid UTF-8 of at most
//! [`MAX_RECORD`] bytes.

pub(crate) mod fields;
pub(crate) mod minify;
mod quick;
pub(crate) mod reader;

use std::borrow::Cow;

use memchr::memchr2;

use self::fields::Fields;
use super::IntakeError;

/// The longest record that is read, in bytes. The service's records are a few kilobytes; the limit is what keeps
/// memory bounded, since a record is read as a whole.
pub(crate) const MAX_RECORD: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body that is not a JSON array of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a JSON array of records (byte {at}: {what})")]
pub(crate) struct Malformed {
    /// Where it stops being one, in bytes from its start.
    pub at: u64,
    /// What is wrong there.
    pub what: Cow<'static, str>,
}

impl From<Malformed> for IntakeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed { at: malformed.at, what: malformed.what.into_owned() }
    }
}

/// A record and what the store needs to know of it.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// The object, first to last brace.
    pub json: &'a [u8],
    /// Its fields.
    pub fields: Fields<'a>,
}

/// The bytes of a body on their way through: appended at the end, read in the middle, released at the front.
#[derive(Debug)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    /// Bytes of the body before `bytes`.
    released: u64,
    /// Bytes of `bytes` that are read.
    at: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing but white space came yet.
    Start,
    /// Behind the opening bracket.
    First,
    /// Behind a comma.
    Next,
    /// Inside the record that starts at this place in `bytes`, and whose end was not there.
    Inside(usize, Brackets),
    /// Behind a record.
    Behind,
    /// Behind the closing bracket.
    End,
}

impl Records {
    /// Begins a body; `buffer` is emptied and used.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, released: 0, at: 0, state: State::Start }
    }

    /// Appends the body's next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that are neither released nor to come.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many of [`bytes`](Self::bytes) are read and belong to no unfinished record.
    pub(crate) fn complete(&self) -> usize {
        match self.state {
            State::Inside(start, _) => start,
            _ => self.at,
        }
    }

    /// Forgets the first `count` of [`bytes`](Self::bytes), which must be [`complete`](Self::complete).
    pub(crate) fn release(&mut self, count: usize) {
        debug_assert!(count <= self.complete(), "bytes of an unfinished record are needed");
        self.bytes.drain(..count);
        self.released += count as u64;
        self.at -= count;
        if let State::Inside(start, _) = &mut self.state {
            *start -= count;
        }
    }

    /// Takes everything that is there as read, whatever it is: for a body that is not read as records.
    pub(crate) fn skip(&mut self) {
        self.at = self.bytes.len();
    }

    /// Gives the buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// The next record, checked; `None` when more bytes are needed or the body is over.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, Malformed> {
        let Some((start, end)) = self.seek()? else { return Ok(None) };
        let at = self.released + start as u64;
        let rest = &self.bytes[start..end.unwrap_or(self.bytes.len())];
        let quick = quick::read(rest).filter(|&(_, length)| end.is_none() || length == rest.len());
        let (fields, length) = if let Some(found) = quick {
            found
        } else {
            // Cut short, malformed or unusual: the brackets tell where it is over, if it is.
            let mut brackets = Brackets::default();
            let Some(length) = end.map(|end| end - start).or_else(|| brackets.end(rest)) else {
                if rest.len() > MAX_RECORD {
                    return Err(too_long(at));
                }
                self.at = self.bytes.len();
                self.state = State::Inside(start, brackets);
                return Ok(None);
            };
            let record = &rest[..length];
            Fields::judge(record).map_err(|error| {
                let what = format!("in the record that starts at byte {at}: {error}");
                self.malformed(start + fields::offset(record, &error), what)
            })?
        };
        let json = &rest[..length];
        if length > MAX_RECORD {
            return Err(too_long(at));
        }
        if let Err(error) = std::str::from_utf8(json) {
            return Err(not_utf8(at + error.valid_up_to() as u64));
        }
        self.at = start + length;
        self.state = State::Behind;
        Ok(Some(Record { json, fields }))
    }

    /// The body is over: was it one array, seen whole?
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        let what = match self.state {
            State::End => return Ok(()),
            State::Start if self.at == 0 => "it is empty",
            State::Start => "it holds no array",
            State::Inside(..) => "it ends inside a record",
            State::First | State::Next | State::Behind => "it ends before the array does",
        };
        Err(self.malformed(self.bytes.len(), what))
    }

    /// Goes to the next record: where it starts and, if that took more than one piece to find out, where it ends.
    fn seek(&mut self) -> Result<Option<(usize, Option<usize>)>, Malformed> {
        loop {
            if let State::Inside(start, brackets) = &mut self.state {
                let start = *start;
                let end = brackets.end(&self.bytes[self.at..]).map(|length| self.at + length);
                self.at = end.unwrap_or(self.bytes.len());
                if self.at - start > MAX_RECORD {
                    return Err(too_long(self.released + start as u64));
                }
                return Ok(end.map(|end| (start, Some(end))));
            }
            let Some(&byte) = self.bytes.get(self.at) else { return Ok(None) };
            match (byte, &self.state) {
                (b' ' | b'\t' | b'\n' | b'\r', _) => self.at += 1,
                (b'{', State::First | State::Next) => return Ok(Some((self.at, None))),
                (b',', State::Behind) => self.step(State::Next),
                (b'[', State::Start) => self.step(State::First),
                (b']', State::First | State::Behind) => self.step(State::End),
                (0xef, State::Start) if self.released == 0 && self.at == 0 => {
                    let mark = &self.bytes[..self.bytes.len().min(BYTE_ORDER_MARK.len())];
                    if mark == BYTE_ORDER_MARK {
                        self.at = mark.len();
                    } else if BYTE_ORDER_MARK.starts_with(mark) {
                        return Ok(None);
                    } else {
                        return Err(self.malformed(0, "expected `[`, found a byte that is no text"));
                    }
                }
                (byte, state) => {
                    let expected = match state {
                        State::Start => "`[`",
                        State::First => "`{` or `]`",
                        State::Next => "`{`",
                        State::Behind | State::Inside(..) => "`,` or `]`",
                        State::End => "the end",
                    };
                    return Err(
                        self.malformed(self.at, format!("expected {expected}, found `{}`", byte.escape_ascii()))
                    );
                }
            }
        }
    }

    fn step(&mut self, state: State) {
        self.at += 1;
        self.state = state;
    }

    fn malformed(&self, at: usize, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed { at: self.released + at as u64, what: what.into() }
    }
}

fn too_long(at: u64) -> Malformed {
    Malformed { at, what: format!("the record is longer than {MAX_RECORD} bytes").into() }
}

fn not_utf8(at: u64) -> Malformed {
    Malformed { at, what: "the record is not valid UTF-8".into() }
}

/// Where a record ends, by brackets and strings alone; keeps its place from piece to piece.
#[derive(Debug, Default)]
struct Brackets {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Brackets {
    /// How many of these bytes belong to the value that began with the first byte ever given here, if it ends
    /// among them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.in_string {
                at += memchr2(b'"', b'\\', &bytes[at..])? + 1;
                self.in_string = bytes[at - 1] != b'"';
                self.escaped = self.in_string;
            } else {
                match bytes[at] {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth <= 1 => return Some(at + 1),
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
