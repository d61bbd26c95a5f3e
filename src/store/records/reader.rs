//! Reads the records of a stored body, part by part.

use super::{Malformed, Records};

/// The records of a body whose parts come from an iterator, decompressed. A record may begin in one part and end
/// in another; memory holds one part and the record that is under way.
#[derive(Debug)]
pub(crate) struct RecordReader<I> {
    parts: I,
    records: Records,
    index: u32,
}

/// Why a stored body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError<E: std::error::Error + 'static> {
    /// A part cannot be had.
    #[error(transparent)]
    Part(E),
    /// The parts are not the array of records that was stored.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl<I, B, E> RecordReader<I>
where
    I: Iterator<Item = Result<B, E>>,
    B: AsRef<[u8]>,
    E: std::error::Error + 'static,
{
    /// Reads these parts, in order, all of them.
    pub(crate) fn new(parts: I) -> Self {
        Self { parts, records: Records::new(Vec::new()), index: 0 }
    }

    /// The next record and its index from 0; `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, &[u8])>, ReadError<E>> {
        let span = loop {
            if let Some(length) = self.records.next()?.map(|record| record.json.len()) {
                break self.records.complete() - length..self.records.complete();
            }
            self.records.release(self.records.complete());
            let Some(part) = self.parts.next() else {
                self.records.finish()?;
                return Ok(None);
            };
            self.records.push(part.map_err(ReadError::Part)?.as_ref());
        };
        let index = self.index;
        self.index += 1;
        Ok(Some((index, &self.records.bytes()[span])))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use proptest::prelude::*;

    use super::*;
    use crate::store::records::tests::array;

    #[test]
    fn a_part_that_cannot_be_had_and_an_end_too_early_are_errors() {
        let parts = [Ok(&b"[{},{\"a\":"[..]), Err(io::Error::other("gone"))];
        let mut reader = RecordReader::new(parts.into_iter());
        assert_eq!(reader.next().unwrap(), Some((0, &b"{}"[..])));
        assert!(matches!(reader.next(), Err(ReadError::Part(_))));
        let mut reader = RecordReader::new([Ok::<_, Infallible>(b"[{}")].into_iter());
        reader.next().unwrap();
        assert!(matches!(reader.next(), Err(ReadError::Malformed(Malformed { at: 3, .. }))));
    }

    proptest! {
        #[test]
        fn the_records_come_out_whatever_the_parts(body in array(), cut in 1_usize..60) {
            let expected: Vec<&serde_json::value::RawValue> = serde_json::from_slice(&body).unwrap();
            let mut reader = RecordReader::new(body.chunks(cut).map(Ok::<_, Infallible>));
            for (index, record) in expected.iter().enumerate() {
                let expected = (u32::try_from(index).unwrap(), record.get().as_bytes());
                prop_assert_eq!(reader.next().unwrap(), Some(expected));
            }
            prop_assert_eq!(reader.next().unwrap(), None);
            prop_assert_eq!(reader.next().unwrap(), None);
        }
    }
}
