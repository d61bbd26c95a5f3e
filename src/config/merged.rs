//! All sources together, and a reader of their tables that reports instead of failing.
//!
//! Tables are merged key by key by the `config` crate, later sources over earlier ones. Lists of tables are joined
//! here, since there the last source would replace the whole list.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, ConfigError, Map, Source, Value, ValueKind};

use super::problem::{Findings, Place};
use super::schema;
use super::written::Written;
use super::{duration, environment, file, size};

/// The sources, merged.
pub(super) struct Merged {
    files: Vec<Arc<Path>>,
    root: Map<String, Value>,
    entries: Vec<(String, Value)>,
    headers: BTreeMap<String, Place>,
}

/// A file's sections as a source of the `config` crate.
#[derive(Clone)]
struct FileSource(Map<String, Value>);

impl std::fmt::Debug for FileSource {
    /// The values may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Source for FileSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Merges `written`, which are the files that could be read with their numbers in `files`, and `environment`.
pub(super) fn merge(
    files: Vec<Arc<Path>>,
    written: Vec<(usize, Written)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    findings: &mut Findings,
) -> Merged {
    let mut builder = Config::builder();
    let mut entries = Vec::new();
    let mut headers = BTreeMap::new();
    let variables = environment::sections(environment, &written, findings);
    for (number, file) in written {
        for (path, line) in file.headers {
            headers.entry(path).or_insert_with(|| Place::file(&files[number], Some(line)));
        }
        entries.extend(file.entries);
        builder = builder.add_source(FileSource(file.sections));
    }
    builder = builder.add_source(FileSource(variables));
    let root = match builder.build().map(|config| config.cache.kind) {
        Ok(ValueKind::Table(root)) => root,
        // Tables of strings cannot fail to merge; if they do, that is the one thing to say.
        other => {
            let message = format!("the sources cannot be merged: {:?}", other.err().map(|error| error.to_string()));
            findings.problem(&Place::file(&files[0], None), "", message);
            Map::new()
        }
    };
    Merged { files, root, entries, headers }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A table of the merged sources.
pub(super) struct Table<'m> {
    merged: &'m Merged,
    /// Its path, such as `collect` or `tenants[3]`.
    pub(super) path: String,
    /// Where it begins; where one of its keys stands, if it has no header.
    pub(super) place: Place,
    values: Option<&'m Map<String, Value>>,
}

impl Merged {
    /// The section `name`, empty if no source has it.
    pub(super) fn section(&self, name: &str) -> Table<'_> {
        self.table(name.to_owned(), self.root.get(name))
    }

    /// Whether any source has the section.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.contains_key(name)
    }

    /// The tables `[section.NAME]` by their names.
    pub(super) fn named<'m>(&'m self, section: &str) -> BTreeMap<&'m str, Table<'m>> {
        let Some(ValueKind::Table(tables)) = self.root.get(section).map(|value| &value.kind) else {
            return BTreeMap::new();
        };
        tables
            .iter()
            .map(|(name, value)| (name.as_str(), self.table(format!("{section}.{name}"), Some(value))))
            .collect()
    }

    /// The tables `[[section]]` of all files, in order.
    pub(super) fn entries<'m>(&'m self, section: &'m str) -> impl Iterator<Item = Table<'m>> {
        self.entries
            .iter()
            .filter(move |(path, _)| path.split('[').next() == Some(section))
            .map(|(path, value)| self.table(path.clone(), Some(value)))
    }

    /// The first file, for what concerns the configuration as a whole.
    pub(super) fn whole(&self) -> Place {
        Place::file(&self.files[0], None)
    }

    fn table<'m>(&'m self, path: String, value: Option<&'m Value>) -> Table<'m> {
        let values = value.and_then(|value| match &value.kind {
            ValueKind::Table(values) => Some(values),
            _ => None,
        });
        let own = value.filter(|value| value.origin().is_some()).map(|value| self.place(value, &path));
        let place = own.or_else(|| self.headers.get(&path).cloned()).or_else(|| {
            let (key, value) = values?.iter().min_by_key(|(key, _)| key.as_str())?;
            Some(self.place(value, &format!("{path}.{key}")))
        });
        Table { merged: self, place: place.unwrap_or_else(|| self.whole()), path, values }
    }

    /// Where `value`, which is at `path`, was written.
    fn place(&self, value: &Value, path: &str) -> Place {
        let origin = value.origin().unwrap_or_default();
        if let Some(variable) = environment::variable_of(origin) {
            return Place::Environment { variable: variable.to_owned() };
        }
        let in_file = origin.split_once(':').and_then(|(file, line)| {
            let path = self.files.get(file.parse::<usize>().ok()?)?;
            Some(Place::file(path, line.parse().ok()))
        });
        // A table that several sources share has no place of its own; where it begins is the next best.
        in_file.or_else(|| self.headers.get(path).cloned()).unwrap_or_else(|| self.whole())
    }
}

impl Table<'_> {
    /// The path of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Where `key` stands, or the table if it has no such key.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.value(key).map_or_else(|| self.place.clone(), |value| value.place)
    }

    /// Whether the key is set, be it wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(key))
    }

    /// Whether the key is set to this word.
    pub(super) fn is_word(&self, key: &str, word: &str) -> bool {
        self.value(key).is_some_and(|value| matches!(&value.value.kind, ValueKind::String(text) if text == word))
    }

    fn value(&self, key: &str) -> Option<At<&Value>> {
        let value = self.values?.get(key)?;
        Some(At { value, place: self.merged.place(value, &self.key(key)) })
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str, findings: &mut Findings) -> Option<At<String>> {
        self.read(key, findings, "a text in quotes", |value| match &value.kind {
            ValueKind::String(text) if !text.trim().is_empty() => Ok(text.clone()),
            ValueKind::String(_) => Err(Wrong::Said("it is empty; set it, or leave the key out")),
            _ => Err(Wrong::Kind),
        })
    }

    /// A text that `parse` makes something of.
    pub(super) fn parsed<T, E: ToString>(
        &self,
        key: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let text = self.text(key, findings)?;
        match parse(&text.value) {
            Ok(value) => Some(At { value, place: text.place }),
            Err(error) => {
                findings.problem(&text.place, &self.key(key), error.to_string());
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], findings: &mut Findings) -> Option<At<T>> {
        self.parsed(key, findings, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let valid = || words.iter().map(|(word, _)| *word);
                match schema::nearest(text, valid()) {
                    Some(near) => {
                        format!("`{text}` is not one of {}; did you mean `{near}`?", schema::list(valid()))
                    }
                    // Not shown: what is like none of them may be a secret in the wrong place.
                    None => format!("it is not one of {}", schema::list(valid())),
                }
            })
        })
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, findings: &mut Findings) -> Option<At<bool>> {
        self.read(key, findings, "`true` or `false`, without quotes", |value| match &value.kind {
            ValueKind::Boolean(flag) => Ok(*flag),
            _ => Err(Wrong::Kind),
        })
    }

    /// A text or a list of them.
    pub(super) fn texts(&self, key: &str, findings: &mut Findings) -> Option<At<Vec<At<String>>>> {
        self.texts_or(key, "a list of texts, such as `[\"a\", \"b\"]`", findings)
    }

    fn texts_or(&self, key: &str, wanted: &str, findings: &mut Findings) -> Option<At<Vec<At<String>>>> {
        let merged = self.merged;
        let path = self.key(key);
        self.read(key, findings, wanted, |value| {
            let items = match &value.kind {
                ValueKind::Array(items) => items.as_slice(),
                _ => std::slice::from_ref(value),
            };
            let text = |item: &Value| match &item.kind {
                ValueKind::String(text) if !text.trim().is_empty() => {
                    Ok(At { value: text.clone(), place: merged.place(item, &path) })
                }
                ValueKind::String(_) => Err(Wrong::Said("a text in it is empty; set it, or leave it out")),
                _ => Err(Wrong::Kind),
            };
            items.iter().map(text).collect()
        })
    }

    /// A path; a relative one starts from the file that names it.
    pub(super) fn path(&self, key: &str, findings: &mut Findings) -> Option<At<PathBuf>> {
        let text = self.text(key, findings)?;
        self.resolve(key, text, findings)
    }

    /// A path or a list of them; relative ones start from the file that names them.
    pub(super) fn paths(&self, key: &str, findings: &mut Findings) -> Option<At<Vec<PathBuf>>> {
        let texts = self.texts_or(key, "a path in quotes, or a list of them", findings)?;
        if texts.value.is_empty() {
            findings.problem(&texts.place, &self.key(key), "the list is empty; name a file, or leave the key out");
            return None;
        }
        let paths: Vec<_> = texts.value.into_iter().map(|text| self.resolve(key, text, findings)).collect();
        let paths: Option<Vec<_>> = paths.into_iter().collect();
        Some(At { value: paths?.into_iter().map(|path| path.value).collect(), place: texts.place })
    }

    fn resolve(&self, key: &str, text: At<String>, findings: &mut Findings) -> Option<At<PathBuf>> {
        if let Some(message) = file::not_a_path(&text.value) {
            findings.problem(&text.place, &self.key(key), message);
            return None;
        }
        let path = text.place.base().join(text.value);
        // Without a working directory a relative path is left as it is: what uses it says that it is not there.
        Some(At { value: std::path::absolute(&path).unwrap_or(path), place: text.place })
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, key: &str, range: &Range<u64>, findings: &mut Findings) -> Option<At<u64>> {
        let number = self.read(key, findings, "a whole number without quotes", |value| match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).map_err(|_| negative(*number)),
            ValueKind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Err(Wrong::Told(format!("write it without a fraction: {number:.0}")))
            }
            // Variables have no types.
            ValueKind::String(text) if environment::is_of(value) => match text.trim().parse() {
                Ok(number) => Ok(number),
                Err(_) => Err(outsized(text.trim(), range.most).unwrap_or_else(|| Wrong::Value(text.clone()))),
            },
            // A number that no integer can hold.
            ValueKind::String(text) => Err(outsized(text, range.most).unwrap_or(Wrong::Kind)),
            _ => Err(Wrong::Kind),
        })?;
        self.within(key, number, range, u64::to_string, findings)
    }

    /// A span of time within `range`.
    pub(super) fn duration(&self, key: &str, range: &Range<Duration>, findings: &mut Findings) -> Option<At<Duration>> {
        let span = self.read(key, findings, duration::WANTED, |value| match &value.kind {
            ValueKind::String(text) => duration::parse(text).map_err(|_| match duration::meant(text) {
                Some(told) => Wrong::Told(told),
                None => Wrong::Value(text.clone()),
            }),
            _ => Err(Wrong::Kind),
        })?;
        self.within(key, span, range, |span| duration::display(*span), findings)
    }

    /// A number of bytes within `range`.
    pub(super) fn size(&self, key: &str, range: &Range<u64>, findings: &mut Findings) -> Option<At<u64>> {
        let bytes = self.read(key, findings, size::WANTED, |value| match &value.kind {
            ValueKind::String(text) => size::parse(text).map_err(|_| Wrong::Value(text.clone())),
            _ => Err(Wrong::Kind),
        })?;
        self.within(key, bytes, range, |bytes| size::display(*bytes), findings)
    }

    /// Reads a value; what is wrong with it is reported together with what is `wanted`.
    fn read<T>(
        &self,
        key: &str,
        findings: &mut Findings,
        wanted: &str,
        read: impl FnOnce(&Value) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let At { value, place } = self.value(key)?;
        if value.kind == ValueKind::Nil {
            // What stands there was reported when the file was read.
            return None;
        }
        let message = match read(value) {
            Ok(value) => return Some(At { value, place }),
            Err(Wrong::Kind) => format!("it is {}; write {wanted}", kind(&value.kind)),
            Err(Wrong::Value(text)) => format!("it is `{text}`; write {wanted}"),
            Err(Wrong::Said(text)) => text.to_owned(),
            Err(Wrong::Told(text)) => text,
        };
        findings.problem(&place, &self.key(key), message);
        None
    }

    fn within<T: PartialOrd>(
        &self,
        key: &str,
        found: At<T>,
        range: &Range<T>,
        display: impl Fn(&T) -> String,
        findings: &mut Findings,
    ) -> Option<At<T>> {
        let text = display(&found.value);
        let message = if found.value < range.least {
            format!("{text} is too low: {}; set at least {}", range.below, display(&range.least))
        } else if found.value > range.most {
            format!("{text} is too high: {}; set at most {}", range.above, display(&range.most))
        } else {
            return Some(found);
        };
        findings.problem(&found.place, &self.key(key), message);
        None
    }
}

/// Why a value cannot be read.
enum Wrong {
    /// It is of another kind.
    Kind,
    /// It is of the right kind and means nothing; it is shown, so this is not for secrets.
    Value(String),
    /// This is all there is to say.
    Said(&'static str),
    /// The same, in words that depend on the value.
    Told(String),
}

fn negative(number: impl std::fmt::Display) -> Wrong {
    Wrong::Told(format!("`{number}` is negative; write a whole number from 0 on"))
}

/// What is wrong with a text that is a whole number, if it is one that is negative or larger than any.
fn outsized(text: &str, most: u64) -> Option<Wrong> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || text.parse::<u32>().is_ok() {
        None
    } else if text.starts_with('-') {
        Some(negative(text))
    } else {
        Some(Wrong::Told(format!("the number is too large; set at most {most}")))
    }
}

/// The values that make sense, and what would happen beyond them.
pub(super) struct Range<T> {
    pub(super) least: T,
    pub(super) most: T,
    pub(super) below: &'static str,
    pub(super) above: &'static str,
}

/// The kind only: a value that is of the wrong kind may still be a secret.
fn kind(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::String(_) => "a text",
        ValueKind::Array(_) => "a list",
        ValueKind::Table(_) => "a table",
        _ => "a number",
    }
}
