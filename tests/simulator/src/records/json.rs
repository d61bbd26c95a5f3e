//! Writes JSON the way the service does: no white space, slashes escaped.

use std::io::Write;

use uuid::Uuid;

/// An object (or list) being written.
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    end: u8,
}

impl<'a> Json<'a> {
    /// Begins an object.
    pub(crate) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true, end: b'}' }
    }

    /// Ends it.
    pub(crate) fn close(self) {
        self.out.push(self.end);
    }

    /// A string member.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    /// An integer member.
    pub(crate) fn number(&mut self, key: &str, value: i64) {
        self.raw(key, &value.to_string());
    }

    /// A boolean member.
    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.raw(key, if value { "true" } else { "false" });
    }

    /// A GUID member.
    pub(crate) fn guid(&mut self, key: &str, value: Uuid) {
        self.key(key);
        let mut buffer = Uuid::encode_buffer();
        let text = value.hyphenated().encode_lower(&mut buffer);
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// A member given as JSON text.
    pub(crate) fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
    }

    /// A member that is an object.
    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Json<'_>)) {
        self.key(key);
        self.nested(b'{', b'}', fill);
    }

    /// A member that is a list.
    pub(crate) fn list(&mut self, key: &str, fill: impl FnOnce(&mut Json<'_>)) {
        self.key(key);
        self.nested(b'[', b']', fill);
    }

    /// An object in a list.
    pub(crate) fn item(&mut self, fill: impl FnOnce(&mut Json<'_>)) {
        self.separate();
        self.nested(b'{', b'}', fill);
    }

    /// A string in a list.
    pub(crate) fn item_text(&mut self, value: &str) {
        self.separate();
        self.string(value);
    }

    /// A `{"Name":…,"Value":…}` in a list.
    pub(crate) fn pair(&mut self, name: &str, value: &str) {
        self.item(|j| {
            j.text("Name", name);
            j.text("Value", value);
        });
    }

    /// A `{"Name":…,"NewValue":…,"OldValue":…}` in a list.
    pub(crate) fn change(&mut self, name: &str, new: &str, old: &str) {
        self.item(|j| {
            j.text("Name", name);
            j.text("NewValue", new);
            j.text("OldValue", old);
        });
    }

    fn nested(&mut self, begin: u8, end: u8, fill: impl FnOnce(&mut Json<'_>)) {
        self.out.push(begin);
        let mut inner = Json { out: &mut *self.out, first: true, end };
        fill(&mut inner);
        inner.close();
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }

    fn string(&mut self, value: &str) {
        self.out.push(b'"');
        let bytes = value.as_bytes();
        let mut plain = 0;
        for (n, byte) in bytes.iter().enumerate() {
            if !matches!(byte, b'"' | b'\\' | b'/' | 0..=0x1f) {
                continue;
            }
            self.out.extend_from_slice(&bytes[plain..n]);
            plain = n + 1;
            if *byte < 0x20 {
                // Writing to a Vec cannot fail.
                let _ = write!(self.out, "\\u{byte:04x}");
            } else {
                self.out.extend_from_slice(&[b'\\', *byte]);
            }
        }
        self.out.extend_from_slice(&bytes[plain..]);
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_the_service_does() {
        let mut out = Vec::new();
        let mut json = Json::open(&mut out);
        json.text("Path", "https://a/b\r\n\"ü\\");
        json.list("L", |l| {
            l.item_text("x");
            l.pair("n", "v");
        });
        json.list("E", |_| ());
        json.close();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"Path":"https:\/\/a\/b\u000d\u000a\"ü\\","L":["x",{"Name":"n","Value":"v"}],"E":[]}"#
        );
    }
}
