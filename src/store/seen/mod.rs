//! Answers "was this record, or this content blob, stored before?"

mod key;

pub(crate) use self::key::{SeenHash, SeenKey};
