//! Reads a record in one quick pass, if there is nothing unusual about it.
//!
//! Taking in a body spends most of its time here, so this does by hand what [`Fields::judge`] does with
//! `serde_json`, at about three times its speed. It says yes or "not sure", never no: whatever is malformed, cut
//! short, nested deeply or has an escape in a top-level key is left to the judge. So a mistake here could not refuse a
//! record; that it does not accept what `serde_json` refuses is what the property tests are for.

use super::fields::{Fields, Name};

/// Nesting that is followed.
const DEEPEST: u32 = 64;

/// The fields and the length of the object that `bytes` begin with, all of it checked, save that strings are valid
/// UTF-8. `None`: not sure that there is one.
pub(super) fn read(bytes: &[u8]) -> Option<(Fields<'_>, usize)> {
    let mut json = Json { bytes, at: 0 };
    let mut fields = Fields::default();
    json.take(b'{')?;
    if json.next()? == b'}' {
        return Some((fields, json.at + 1));
    }
    loop {
        let key = json.at;
        let escaped = json.string()?;
        let name = Name::of(&bytes[key + 1..json.at - 1]);
        if escaped {
            return None;
        }
        json.colon()?;
        let value = json.at;
        json.value(DEEPEST)?;
        fields.set(name, &bytes[value..json.at]);
        if json.next()? == b'}' {
            return Some((fields, json.at + 1));
        }
        json.take(b',')?;
        json.next()?;
    }
}

/// Each method moves over what it is named after, or gives up.
struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

#[expect(clippy::inline_always, reason = "measured: the record reader takes a third less time")]
impl Json<'_> {
    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then(|| self.at += 1)
    }

    /// White space, of which there is rarely any; the byte behind it stays.
    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        match self.byte()? {
            byte if byte > b' ' => Some(byte),
            _ => self.space(),
        }
    }

    #[inline(never)]
    fn space(&mut self) -> Option<u8> {
        loop {
            match self.byte()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// A colon, with the white space around it.
    #[inline(always)]
    fn colon(&mut self) -> Option<()> {
        self.next()?;
        self.take(b':')?;
        self.next().map(drop)
    }

    #[inline(always)]
    fn value(&mut self, depth: u32) -> Option<()> {
        match self.byte()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: u32) -> Option<()> {
        self.at += 1;
        if self.next()? != b'}' {
            loop {
                self.string()?;
                self.colon()?;
                self.value(depth)?;
                if self.next()? == b'}' {
                    break;
                }
                self.take(b',')?;
                self.next()?;
            }
        }
        self.at += 1;
        Some(())
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        self.at += 1;
        if self.next()? != b']' {
            loop {
                self.value(depth)?;
                if self.next()? == b']' {
                    break;
                }
                self.take(b',')?;
                self.next()?;
            }
        }
        self.at += 1;
        Some(())
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(literal).then(|| self.at += literal.len())
    }

    fn number(&mut self) -> Option<()> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        match self.byte()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte()? == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte()?, b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.byte()?.is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// A string; says whether it holds an escape.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        self.take(b'"')?;
        let mut escaped = false;
        loop {
            self.plain();
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }

    /// A run of plain characters in a string, eight bytes at a time as long as there are eight.
    #[inline(always)]
    fn plain(&mut self) {
        let (eights, _) = self.bytes[self.at..].as_chunks::<8>();
        for eight in eights {
            let special = special(u64::from_le_bytes(*eight));
            self.at += (special.trailing_zeros() / 8) as usize;
            if special != 0 {
                return;
            }
        }
        while self.byte().is_some_and(|byte| !matches!(byte, 0..=0x1f | b'"' | b'\\')) {
            self.at += 1;
        }
    }

    #[inline(never)]
    fn escape(&mut self) -> Option<()> {
        let rest = &self.bytes[self.at + 1..];
        self.at += match rest.first()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if rest.get(1..5)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        Some(())
    }
}

/// The top bit of every byte that ends a run of plain characters in a string: a quotation mark, a backslash or a
/// control character. Bits above the lowest that is set may be set wrongly; eight plain bytes give zero.
fn special(bytes: u64) -> u64 {
    const EACH: u64 = u64::MAX / 255;
    const TOP: u64 = EACH << 7;
    let equal_to = |byte: u8| {
        let zero_if_equal = bytes ^ (EACH * u64::from(byte));
        zero_if_equal.wrapping_sub(EACH) & !zero_if_equal
    };
    let control = bytes.wrapping_sub(EACH * 0x20) & !bytes;
    (control | equal_to(b'"') | equal_to(b'\\')) & TOP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::records::tests::{array, json};

    #[test]
    fn ordinary_records_are_read() {
        for record in [
            &b"{}"[..],
            br#"{ "Id" : "a\"\u00e9" , "n":[1,-0.5e+3,0,{"x":[]},[ ],{ }], "t":true,"f":false,"z":null }"#,
            "{\"Id\":\"zwölf Zeichen und mehr\",\"\u{7f}\":\"\"}".as_bytes(),
        ] {
            let (fields, length) = read(record).unwrap();
            assert_eq!((Ok((fields, length)), length), (Fields::judge(record).map_err(|_| ()), record.len()));
            for end in 0..record.len() {
                assert!(read(&record[..end]).is_none(), "{}", record[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn every_byte_that_ends_a_run_is_found_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut eight = *b"abc\xc3\xa4!#]";
                eight[place] = byte;
                let found = special(u64::from_le_bytes(eight));
                if byte < 0x20 || byte == b'"' || byte == b'\\' {
                    assert_eq!(found.trailing_zeros() as usize / 8, place, "{byte} at {place}");
                } else {
                    assert_eq!(found, 0, "{byte} at {place}");
                }
            }
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_judge() {
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(deep(DEEPEST as usize).as_bytes()).is_some());
        assert!(read(deep(DEEPEST as usize + 1).as_bytes()).is_none());
        assert!(read(br#"{"\u0049d":"a"}"#).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

        #[test]
        fn what_is_accepted_is_what_the_judge_accepts(
            value in json(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<u8>())), 0..3),
        ) {
            let mut bytes = serde_json::to_vec(&serde_json::json!({ "a": value, "Id": "x" })).unwrap();
            for (at, edit) in edits {
                match edit {
                    Some(byte) => *at.get_mut(&mut bytes) = byte,
                    None => { bytes.remove(at.index(bytes.len())); }
                }
            }
            let read = read(&bytes).filter(|&(_, length)| std::str::from_utf8(&bytes[..length]).is_ok());
            if let Some((fields, length)) = read {
                prop_assert_eq!(Fields::judge(&bytes).map_err(|error| error.to_string()), Ok((fields, length)));
            }
        }

        #[test]
        fn it_is_nearly_always_sure(body in array()) {
            let records: Vec<&serde_json::value::RawValue> = serde_json::from_slice(&body).unwrap();
            for record in records {
                let sure = read(record.get().as_bytes()).is_some();
                prop_assert!(sure || record.get().contains('\\'), "{}", record);
            }
        }
    }
}
