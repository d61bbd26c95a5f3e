//! One file as written: TOML, each value with the place that it stands at.
//!
//! The values are the `config` crate's, so that it can merge them; a value's *origin* there is `FILE:LINE` with the
//! file as a number, which survives the merge and leads each later problem back to its line. Syntax errors, sections
//! of the wrong shape and unknown keys are found here, file by file, because after the merge one of two misspelt
//! keys would hide the other.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{self, Unread};
use super::problem::{Findings, Place, Problem};
use super::schema::{Section, Shape, unknown_section};

/// 10,000 tenants are two megabytes; what is larger is not a configuration.
const LARGEST: u64 = 64 << 20;

/// A file's content.
pub(super) struct Written {
    /// The sections that are merged key by key.
    pub(super) sections: Map<String, Value>,
    /// The entries of the sections that are joined, each with its path in this file.
    pub(super) entries: Vec<(String, Value)>,
    /// Where each table begins, by its path.
    pub(super) headers: Vec<(String, usize)>,
}

/// Reads the file. What is wrong with it goes to `findings`; `None` if nothing of it can be used.
pub(super) fn read(path: &Arc<Path>, number: usize, findings: &mut Findings) -> Option<Written> {
    match text(path) {
        Ok(text) => Some(parse(&text, path, number, findings)),
        Err(problem) => {
            findings.incomplete = true;
            findings.problems.push(problem);
            None
        }
    }
}

fn text(path: &Arc<Path>) -> Result<String, Problem> {
    let problem = |message: String| Problem::new(Place::file(path, None), "", message);
    let bytes = file::read(path, LARGEST).map_err(|unread| match unread {
        Unread::Missing => problem(
            "there is no such file; name the configuration with `--config FILE`, or begin with a copy of \
             `config/tenantry.toml`, which has every key at its default"
                .to_owned(),
        ),
        Unread::Dangling => {
            problem("it is a link to a file that is not there; put the file there, or remove the link".to_owned())
        }
        Unread::Denied => Problem {
            permission: true,
            ..problem("it may not be read; let the user that runs tenantry read it".to_owned())
        },
        Unread::Special(kind) => problem(format!("it is {kind}; a configuration is a file")),
        Unread::TooLarge => problem(format!("it is larger than {} MiB; is it the configuration?", LARGEST >> 20)),
        Unread::Failed(error) => problem(format!("it cannot be read: {error}")),
    })?;
    if file::is_utf16(&bytes) {
        return Err(problem("it is UTF-16; save it as UTF-8".to_owned()));
    }
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|error| {
        let line = memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count() + 1;
        Problem::new(Place::file(path, Some(line)), "", "there are bytes that are not UTF-8; save the file as UTF-8")
    })
}

/// Reads the text of the file `path`, which is the `number`th, as far as it is understood.
pub(super) fn parse(text: &str, path: &Arc<Path>, number: usize, findings: &mut Findings) -> Written {
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut known_until = text.len();
    for error in &errors {
        let span = error.span();
        let (line, column) = span.clone().map_or((None, None), |span| {
            let (line, column) = lines.position(span.start);
            (Some(line), Some(column))
        });
        let place = Place::File { path: path.clone(), line, column };
        // Only the parser's own words: the line itself, which it could show too, may hold a secret.
        let message = match &span {
            Some(span) if error.message() == "duplicate key" => twice(&lines, span, document.get_ref(), path),
            _ => {
                // What the parser guessed the rest to mean is not worth reporting on.
                known_until = known_until.min(span.map_or(0, |span| lines.start_of(span.start)));
                findings.incomplete = true;
                format!("this is not TOML: {}", error.message())
            }
        };
        findings.problems.push(Problem::new(place, "", message));
    }
    let mut file = Reading { path, number, lines, known_until, findings, headers: Vec::new() };
    let mut written = Written { sections: Map::new(), entries: Vec::new(), headers: Vec::new() };
    for (name, value) in document.get_ref().iter().filter(|(name, _)| name.span().start < known_until) {
        file.section(name, value, &mut written);
    }
    written.headers = file.headers;
    written
}

/// What to tell about a key that is written again at `span`. The parser keeps what was written first.
fn twice(lines: &Lines<'_>, span: &Range<usize>, document: &DeTable<'_>, path: &Arc<Path>) -> String {
    let key = lines.text.get(span.clone()).unwrap_or_default();
    let mut first = None;
    each_key(document, &mut |at, name| {
        if name == key.trim_matches(['"', '\'']) && at < span.start {
            first = first.max(Some(at));
        }
    });
    // A section keeps the place of its last header only; the one before is found by its line.
    let first = first.or_else(|| {
        let header = lines.text[lines.start_of(span.start)..].lines().next()?.trim();
        let before = &lines.text[..lines.start_of(span.start)];
        let line = before.lines().position(|line| line.trim() == header && header.starts_with('['))?;
        Some(line.checked_sub(1).map_or(0, |last| lines.ends[last] + 1))
    });
    let first = first.map(|at| format!(" in {} already", Place::file(path, Some(lines.position(at).0))));
    format!("`{key}` is written{}; remove one of the two", first.unwrap_or_else(|| " twice".to_owned()))
}

/// Calls `told` for every key of the table and of the tables in it, with the byte at which it is written.
fn each_key(table: &DeTable<'_>, told: &mut impl FnMut(usize, &str)) {
    for (key, value) in table {
        told(key.span().start, key.get_ref());
        match value.get_ref() {
            DeValue::Table(table) => each_key(table, told),
            DeValue::Array(array) => {
                for entry in array {
                    if let DeValue::Table(table) = entry.get_ref() {
                        each_key(table, told);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    ends: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, ends: memchr::memchr_iter(b'\n', text.as_bytes()).collect() }
    }

    /// The first byte of the line that a byte is in.
    fn start_of(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        self.ends.partition_point(|end| *end < at).checked_sub(1).map_or(0, |before| self.ends[before] + 1)
    }

    /// Line and column of a byte, both from one.
    fn position(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let line = self.ends.partition_point(|end| *end < at);
        (line + 1, self.text.get(self.start_of(at)..at).map_or(1, |before| before.chars().count() + 1))
    }
}

struct Reading<'r> {
    path: &'r Arc<Path>,
    number: usize,
    lines: Lines<'r>,
    /// The first byte that the parser did not understand.
    known_until: usize,
    findings: &'r mut Findings,
    headers: Vec<(String, usize)>,
}

type Name<'d> = Spanned<toml::de::DeString<'d>>;
type Content<'d> = Spanned<DeValue<'d>>;

impl Reading<'_> {
    fn section(&mut self, name: &Name<'_>, value: &Content<'_>, written: &mut Written) {
        let line = self.line(name.span().start);
        let Some(section) = Section::named(name.get_ref()) else {
            self.problem(line, name.get_ref(), unknown_section(name.get_ref()));
            return;
        };
        let known_until = self.known_until;
        match (section.shape, value.get_ref()) {
            (Shape::Table, DeValue::Table(table)) => {
                let table = self.table(section, section.name, line, table);
                written.sections.insert(section.name.to_owned(), table);
            }
            (Shape::Named, DeValue::Table(table)) => {
                let mut named = Map::new();
                for (name, value) in table.iter().filter(|(name, _)| name.span().start < known_until) {
                    let path = format!("{}.{}", section.name, name.get_ref());
                    let line = self.line(name.span().start);
                    match value.get_ref() {
                        DeValue::Table(table) => {
                            let table = self.table(section, &path, line, table);
                            named.insert(name.get_ref().to_string(), table);
                        }
                        _ => self.problem(
                            line,
                            &path,
                            format!("write `{}` with a name of your choice", section.header()),
                        ),
                    }
                }
                written.sections.insert(section.name.to_owned(), self.value(line, named));
            }
            (Shape::List, DeValue::Array(array)) => {
                for (index, entry) in array.iter().enumerate().filter(|(_, entry)| entry.span().start < known_until) {
                    let path = format!("{}[{index}]", section.name);
                    let line = self.line(entry.span().start);
                    match entry.get_ref() {
                        DeValue::Table(table) => {
                            let table = self.table(section, &path, line, table);
                            written.entries.push((path, table));
                        }
                        _ => self.problem(line, &path, format!("write it as `{}` with keys below", section.header())),
                    }
                }
            }
            _ => self.problem(line, section.name, format!("write it as `{}` with keys below", section.header())),
        }
    }

    /// The values of a table whose keys are those of `section`.
    fn table(&mut self, section: &Section, path: &str, line: usize, table: &DeTable<'_>) -> Value {
        self.headers.push((path.to_owned(), line));
        let mut values = Map::new();
        for (key, value) in table {
            if key.span().start >= self.known_until {
                continue;
            }
            let line = self.line(key.span().start);
            let key_path = format!("{path}.{}", key.get_ref());
            if !section.keys.contains(&key.get_ref().as_ref()) {
                self.problem(line, &key_path, section.unknown_key(key.get_ref()));
            } else if matches!(value.get_ref(), DeValue::Table(_)) {
                self.problem(line, &key_path, "it is a table; write a single value after `=`".to_owned());
                // It is there, so that nobody is told that it is missing.
                values.insert(key.get_ref().to_string(), self.value(line, ValueKind::Nil));
            } else if value.span().end <= self.known_until {
                values.insert(key.get_ref().to_string(), self.content(line, value.get_ref()));
            }
        }
        self.value(line, values)
    }

    fn content(&self, line: usize, content: &DeValue<'_>) -> Value {
        match content {
            DeValue::String(text) => self.value(line, text.to_string()),
            DeValue::Boolean(value) => self.value(line, *value),
            // A number that fits no integer fits no key either: as a text it is refused with what is wanted.
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => self.value(line, number),
                Err(_) => self.value(line, number.to_string().replace('_', "")),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) => self.value(line, number),
                Err(_) => self.value(line, number.to_string()),
            },
            DeValue::Datetime(time) => self.value(line, time.to_string()),
            DeValue::Array(array) => {
                let values: Vec<_> =
                    array.iter().map(|item| self.content(self.line(item.span().start), item.get_ref())).collect();
                self.value(line, values)
            }
            DeValue::Table(table) => {
                let values: Map<_, _> = table
                    .iter()
                    .map(|(key, value)| {
                        (key.get_ref().to_string(), self.content(self.line(key.span().start), value.get_ref()))
                    })
                    .collect();
                self.value(line, values)
            }
        }
    }

    fn value(&self, line: usize, kind: impl Into<ValueKind>) -> Value {
        Value::new(Some(&format!("{}:{line}", self.number)), kind)
    }

    fn line(&self, at: usize) -> usize {
        self.lines.position(at).0
    }

    fn problem(&mut self, line: usize, key: &str, message: String) {
        self.findings.problems.push(Problem::new(Place::file(self.path, Some(line)), key, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        parse(text, &Path::new("t.toml").into(), 0, &mut findings);
        findings.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_syntax_error_hides_nothing_that_comes_before_it() {
        assert_eq!(
            problems("colour = 1\n[app]\nclientid = \"x\"\n[store]\npath = /var\n[collect]\npol = 1\n"),
            [
                "t.toml:5:8: this is not TOML: string values must be quoted, expected literal string",
                "t.toml:3: app.clientid: unknown key; did you mean `client_id`?",
                "t.toml:1: colour: unknown section; the sections are `app`, `apps`, `tenants`, `clouds`, `network`, \
                 `token`, `collect`, `dlp`, `health`, `store`, `log`, `daemon`, `operator` and `public`",
            ]
        );
        let mut findings = Findings::default();
        let text = "[app]\nclient_id = \"a\"\n[[tenants]]\nid = \"b\"\nname = \"c\ncloud = \"gcc\"\n";
        let written = parse(text, &Path::new("t.toml").into(), 0, &mut findings);
        assert!(findings.incomplete, "what is missing may stand where nothing was understood");
        assert_eq!(written.sections["app"].clone().into_table().unwrap().len(), 1);
        assert_eq!(written.entries[0].1.clone().into_table().unwrap().len(), 1, "the id only");
        let mut findings = Findings::default();
        let text = "[app]\nclient_id = \"a\"\ncertificate_file = [\n\"b\",\nc,\n]\n";
        let written = parse(text, &Path::new("t.toml").into(), 0, &mut findings);
        assert_eq!(written.sections["app"].clone().into_table().unwrap().len(), 1, "half of a value is none");
    }

    #[test]
    fn what_is_written_twice_is_named_with_both_places() {
        assert_eq!(
            problems(
                "[app]\nclient_id = \"x\"\n[[tenants]]\nid = \"1\"\n[[tenants]]\nid = \"2\"\n'id' = \"3\"\nnam = 1\n\
                 [app]\nclient_id = \"y\"\nsecret = 1\n"
            ),
            [
                "t.toml:7:1: `'id'` is written in t.toml:6 already; remove one of the two",
                "t.toml:9:2: `app` is written in t.toml:1 already; remove one of the two",
                "t.toml:10:1: `client_id` is written in t.toml:2 already; remove one of the two",
                "t.toml:11: app.secret: unknown key; the keys of `[app]` are `client_id`, `publisher_id`, `signing`, \
                 `certificate_file`, `private_key_file`, `pkcs12_file`, `pkcs12_password_file`, `client_secret_file`, \
                 `client_secret`, `federated_token_file` and `managed_identity`",
                "t.toml:8: tenants[1].nam: unknown key; did you mean `name`?",
            ]
        );
    }

    #[test]
    fn a_table_is_no_value() {
        assert_eq!(
            problems("[collect]\npoll_interval = { a = 1 }\n[log.level]\nx = 1\n"),
            [
                "t.toml:2: collect.poll_interval: it is a table; write a single value after `=`",
                "t.toml:3: log.level: it is a table; write a single value after `=`",
            ]
        );
    }

    #[test]
    fn every_syntax_error_is_reported_without_showing_the_line() {
        assert_eq!(
            problems("[app\nclient_id = \"x\"\n[store]\npath = /var\n"),
            [
                "t.toml:1:5: this is not TOML: unclosed table, expected `]`",
                "t.toml:4:8: this is not TOML: string values must be quoted, expected literal string",
            ]
        );
        for text in
            ["client_secret = \"hunter2\n", "client_secret = hunter2\n", "client_secret = \"\\hunter2\"\n", "hunter2"]
        {
            let found = problems(text);
            assert!(found[0].starts_with("t.toml:1:"), "{found:#?}");
            assert!(!found.concat().contains("hunter2"), "{found:#?}");
        }
    }

    #[test]
    fn every_unknown_key_and_wrong_shape_is_reported_with_its_line() {
        assert_eq!(
            problems(
                "colour = 1\n\
                 [app]\nclientid = \"x\"\n\
                 [[store]]\n\
                 [apps]\nclient_id = \"x\"\n\
                 [apps.one]\nsigning_key = 1\n\
                 [[tenants]]\nid = \"x\"\n\
                 [[tenants]]\n# a comment\n\nclod = \"gcc\"\n"
            ),
            [
                "t.toml:3: app.clientid: unknown key; did you mean `client_id`?",
                "t.toml:6: apps.client_id: write `[apps.NAME]` with a name of your choice",
                "t.toml:8: apps.one.signing_key: unknown key; the keys of `[apps.NAME]` are `client_id`, `publisher_id`, \
                 `signing`, `certificate_file`, `private_key_file`, `pkcs12_file`, `pkcs12_password_file`, \
                 `client_secret_file`, `client_secret`, `federated_token_file` and `managed_identity`",
                "t.toml:1: colour: unknown section; the sections are `app`, `apps`, `tenants`, `clouds`, `network`, \
                 `token`, `collect`, `dlp`, `health`, `store`, `log`, `daemon`, `operator` and `public`",
                "t.toml:4: store: write it as `[store]` with keys below",
                "t.toml:14: tenants[1].clod: unknown key; did you mean `cloud`?",
            ]
        );
        assert_eq!(
            problems("[tenants]\nid = \"x\"\n"),
            ["t.toml:1: tenants: write it as `[[tenants]]` with keys below"]
        );
        assert_eq!(problems("tenants = [1]\n"), ["t.toml:1: tenants[0]: write it as `[[tenants]]` with keys below"]);
    }

    #[test]
    fn values_know_their_line() {
        let text = "\u{feff}[app]\r\n\r\nclient_id = \"a\"\r\ncertificate_file = [\r\n  \"b\",\r\n  \"c\",\r\n]\r\n[[tenants]]\r\nid = 7\r\n";
        let mut findings = Findings::default();
        let written = parse(text, &Path::new("t.toml").into(), 3, &mut findings);
        assert_eq!(findings.problems, []);
        let app = written.sections["app"].clone().into_table().unwrap();
        assert_eq!(app["client_id"].origin(), Some("3:3"));
        let files = app["certificate_file"].clone().into_array().unwrap();
        assert_eq!(files[1].origin(), Some("3:6"));
        assert_eq!(written.headers, [("app".to_owned(), 1), ("tenants[0]".to_owned(), 8)]);
    }
}
