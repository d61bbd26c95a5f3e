//! Takes the white space out of JSON so that a record fits on one line.
//!
//! Only the four characters of white space between tokens go. Every literal stays as it was written: `1.0` does not
//! become `1`, `\u00e9` does not become `é`.

use memchr::memchr2;

/// Removes white space outside strings from JSON that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Minify {
    in_string: bool,
    escaped: bool,
}

impl Minify {
    /// Appends what remains of these bytes to `out`.
    pub(crate) fn push(&mut self, json: &[u8], out: &mut Vec<u8>) {
        let mut rest = json;
        while !rest.is_empty() {
            let kept = if self.escaped {
                self.escaped = false;
                1
            } else if self.in_string {
                match memchr2(b'"', b'\\', rest) {
                    None => rest.len(),
                    Some(at) => {
                        self.in_string = rest[at] != b'"';
                        self.escaped = self.in_string;
                        at + 1
                    }
                }
            } else {
                match rest.iter().position(|byte| matches!(byte, b'"' | b' ' | b'\t' | b'\n' | b'\r')) {
                    None => rest.len(),
                    Some(at) if rest[at] == b'"' => {
                        self.in_string = true;
                        at + 1
                    }
                    Some(at) => {
                        out.extend_from_slice(&rest[..at]);
                        rest = &rest[at + 1..];
                        continue;
                    }
                }
            };
            out.extend_from_slice(&rest[..kept]);
            rest = &rest[kept..];
        }
    }
}

/// Appends the JSON value to `out` without the white space between its tokens.
pub fn minify(json: &[u8], out: &mut Vec<u8>) {
    Minify::default().push(json, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::records::tests::json;

    #[test]
    fn literals_stay_as_they_are_written() {
        let mut out = Vec::new();
        minify(b"{ \"a b\\\" \\\\\" :\r\n\t[ 1.0 , -0 , 1E400 , \"\\u00e9 \" , true ] }", &mut out);
        assert_eq!(out, b"{\"a b\\\" \\\\\":[1.0,-0,1E400,\"\\u00e9 \",true]}");
    }

    proptest! {
        #[test]
        fn the_pretty_form_minifies_to_the_compact_one(value in json(), cut in 1_usize..40) {
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let mut out = Vec::new();
            let mut minify = Minify::default();
            pretty.chunks(cut).for_each(|piece| minify.push(piece, &mut out));
            prop_assert_eq!(out, serde_json::to_vec(&value).unwrap());
        }
    }
}
