//! Records as text: NDJSON, a JSON array, or CSV.
//!
//! The daemon and the command line share this, so that an export is the same bytes whether or not the daemon runs.
//! NDJSON and JSON carry each record with its string and number literals untouched; only white space between tokens
//! goes, so that a record is one line. CSV names the columns that an investigator filters by and ends with the record
//! as JSON, so that nothing is lost in it either.
//!
//! Where names of sensitive information types are asked for, they are put beside the ids ([`sensitive`](crate::sensitive)),
//! and CSV has a column [`NAMES`] of them. Nothing else about a record differs.
//!
//! **Invariant:** no record is refused. Whatever was stored is written: of a key that is repeated the last value counts, and
//! a text that stands for no characters is written as it stands in the record.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use self::names::TypeNames;
use crate::content::TenantId;
use crate::language::Language;
use crate::store::{Query, Record, Store, StoreError, minify};

mod names;

/// Bytes are handed on in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One record a line.
    #[default]
    Ndjson,
    /// One JSON array.
    Json,
    /// A header and a row per record (RFC 4180).
    Csv,
}

/// What tenants are called: those that are configured.
pub type Names = Arc<BTreeMap<TenantId, String>>;

/// What records are written like.
#[derive(Debug, Clone, Default)]
pub struct Form {
    /// How they are written.
    pub format: Format,
    /// What their tenants are called, for CSV.
    pub tenants: Names,
    /// In which language the names of sensitive information types are put beside their ids; `None`: in none.
    pub dlp_names: Option<Language>,
}

/// The CSV column of the names of sensitive information types, where they are asked for: before the record.
const NAMES: &str = "SensitiveTypeNames";

/// The first CSV columns: where the record was found. Then come the [`FIELDS`], then the whole record.
const FOUND: [&str; 4] = ["tenant", "tenant_name", "content_type", "duplicate"];

/// The fields of the common schema that are columns.
const FIELDS: [&str; 10] = [
    "Id",
    "CreationTime",
    "Workload",
    "RecordType",
    "Operation",
    "ResultStatus",
    "UserId",
    "UserType",
    "ClientIP",
    "ObjectId",
];

/// Turns records into bytes. The caller takes the bytes whenever it likes.
#[derive(Debug)]
pub struct Formatter {
    format: Format,
    tenants: Names,
    types: Option<TypeNames>,
    written: u64,
    line: Vec<u8>,
}

impl Formatter {
    /// Nothing written yet. The names of types are read from `store`, which one without them can do without.
    #[must_use]
    pub fn new(form: Form, store: Option<&Store>) -> Self {
        let types = form.dlp_names.map(|language| TypeNames::of(store.cloned(), language));
        Self { format: form.format, tenants: form.tenants, types, written: 0, line: Vec::new() }
    }

    /// How many records were written.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// What stands before the first record.
    pub fn begin(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.format {
            Format::Ndjson | Format::Json => Ok(()),
            Format::Csv => {
                let names = self.types.as_ref().map(|_| &NAMES);
                csv_row(out, |row| row.write_record(FOUND.iter().chain(&FIELDS).chain(names).chain(&["record"])))
            }
        }
    }

    /// One record.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        self.line.clear();
        minify(record.json, &mut self.line);
        if let Some(types) = &mut self.types {
            types.add(record.tenant, &mut self.line).map_err(io::Error::other)?;
        }
        match self.format {
            Format::Ndjson => {
                out.extend_from_slice(&self.line);
                out.push(b'\n');
            }
            Format::Json => {
                out.extend_from_slice(if self.written == 0 { b"[\n" } else { b",\n" });
                out.extend_from_slice(&self.line);
            }
            Format::Csv => {
                let names = self.types.as_ref().map(TypeNames::of_record);
                let line = String::from_utf8_lossy(&self.line);
                let fields = Fields::read(&line);
                csv_row(out, |row| {
                    row.write_field(record.tenant.to_string())?;
                    row.write_field(self.tenants.get(&record.tenant).map_or("", String::as_str))?;
                    row.write_field(record.content_type.as_str())?;
                    row.write_field(if record.duplicate { "true" } else { "false" })?;
                    for field in fields.0 {
                        row.write_field(&*field.map_or(Cow::Borrowed(""), cell))?;
                    }
                    if let Some(names) = names {
                        row.write_field(names)?;
                    }
                    row.write_field(&self.line)?;
                    row.write_record(None::<&[u8]>)
                })?;
            }
        }
        self.written += 1;
        Ok(())
    }

    /// What stands after the last record.
    pub fn end(&self, out: &mut Vec<u8>) {
        match (self.format, self.written) {
            (Format::Ndjson | Format::Csv, _) => {}
            (Format::Json, 0) => out.extend_from_slice(b"[]\n"),
            (Format::Json, _) => out.extend_from_slice(b"\n]\n"),
        }
    }
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A record cannot be written in the format.
    #[error("a record cannot be written")]
    Format(#[from] io::Error),
}

/// Reads what `query` asks for and hands it on in pieces, with the number of records so far, until `take` breaks off.
/// Blocking.
pub fn run(
    store: &Store,
    query: &Query,
    form: Form,
    mut take: impl FnMut(&mut Vec<u8>, u64) -> ControlFlow<()>,
) -> Result<u64, ExportError> {
    let mut formatter = Formatter::new(form, Some(store));
    let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
    let mut failed = None;
    let mut broken_off = false;
    formatter.begin(&mut piece)?;
    store.for_each_record(query, |record| {
        if let Err(error) = formatter.record(&record, &mut piece) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if piece.len() < PIECE {
            return ControlFlow::Continue(());
        }
        let flow = take(&mut piece, formatter.written());
        piece.clear();
        broken_off = flow.is_break();
        flow
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !broken_off {
        formatter.end(&mut piece);
        let _ = take(&mut piece, formatter.written());
    }
    Ok(formatter.written())
}

/// The values of the [`FIELDS`], as they stand in a record.
#[derive(Default)]
struct Fields<'a>([Option<&'a RawValue>; FIELDS.len()]);

impl<'a> Fields<'a> {
    /// None if it is no object.
    fn read(record: &'a str) -> Self {
        serde_json::from_str(record).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                // Raw, because a key may hold an escape that stands for no character.
                while let Some(key) = map.next_key::<&RawValue>()? {
                    let value = map.next_value()?;
                    if let Some(at) = FIELDS.iter().position(|field| *field == cell(key)) {
                        fields.0[at] = Some(value);
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A string's text, `null` as nothing, anything else as it is written in the record: a string too, without its quotes, if
/// an escape in it stands for no character (half a surrogate pair).
fn cell(value: &RawValue) -> Cow<'_, str> {
    let json = value.get();
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None if json == "null" => Cow::Borrowed(""),
        None => Cow::Borrowed(json),
        Some(written) if !written.contains('\\') => Cow::Borrowed(written),
        Some(written) => serde_json::from_str(json).map_or(Cow::Borrowed(written), Cow::Owned),
    }
}

fn csv_row(out: &mut Vec<u8>, write: impl FnOnce(&mut csv::Writer<&mut Vec<u8>>) -> csv::Result<()>) -> io::Result<()> {
    let mut row = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
    write(&mut row)?;
    row.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentId, ContentType};

    fn format(format: Format, records: &[&str]) -> String {
        let content_id = ContentId::from("blob");
        let names = BTreeMap::from([(TenantId::from_bytes([0x11; 16]), "contoso".to_owned())]);
        let form = Form { format, tenants: Arc::new(names), dlp_names: None };
        let mut formatter = Formatter::new(form, None);
        let mut out = Vec::new();
        formatter.begin(&mut out).unwrap();
        for (index, json) in (0..).zip(records) {
            let record = Record {
                tenant: TenantId::from_bytes([0x11; 16]),
                content_type: ContentType::Exchange,
                content_id: &content_id,
                seq: 1,
                index,
                json: json.as_bytes(),
                duplicate: false,
            };
            formatter.record(&record, &mut out).unwrap();
        }
        formatter.end(&mut out);
        assert_eq!(formatter.written(), records.len() as u64);
        String::from_utf8(out).unwrap()
    }

    const RECORD: &str =
        "{\n  \"Id\": \"a\\/\\u0041\",\r\n  \"Big\": 12345678901234567890.10,\n  \"UserId\": \"a, \\\"b\\\"\" }";

    #[test]
    fn ndjson_is_one_line_a_record_with_its_literals_untouched() {
        assert_eq!(
            format(Format::Ndjson, &[RECORD, "{}"]),
            "{\"Id\":\"a\\/\\u0041\",\"Big\":12345678901234567890.10,\"UserId\":\"a, \\\"b\\\"\"}\n{}\n"
        );
    }

    #[test]
    fn json_is_an_array_of_the_same_lines() {
        assert_eq!(format(Format::Json, &[]), "[]\n");
        assert_eq!(format(Format::Json, &["{\"a\": 1}", "{}"]), "[\n{\"a\":1},\n{}\n]\n");
    }

    #[test]
    fn csv_has_a_header_and_quotes_what_needs_it() {
        let row = row(RECORD);
        assert_eq!(row.len(), FOUND.len() + FIELDS.len() + 1);
        assert_eq!(&row["tenant"], "11111111-1111-1111-1111-111111111111");
        assert_eq!(&row["tenant_name"], "contoso");
        assert_eq!(&row["content_type"], "Audit.Exchange");
        assert_eq!(&row["Id"], "a/A");
        assert_eq!(&row["UserId"], "a, \"b\"");
        assert_eq!(&row["record"], format(Format::Ndjson, &[RECORD]).trim_end());
    }

    /// The CSV row of one record, by column.
    fn row(record: &str) -> BTreeMap<String, String> {
        let text = format(Format::Csv, &[record, "{}"]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns = reader.headers().unwrap().clone();
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2, "the record after it is there too");
        columns.iter().zip(&rows[0]).map(|(column, cell)| (column.to_owned(), cell.to_owned())).collect()
    }

    #[test]
    fn csv_refuses_no_record() {
        for (record, column, expected) in [
            (r#"{"UserId":"bad\ud800name"}"#, "UserId", r"bad\ud800name"),
            (r#"{"UserId":"first","Other":1,"UserId":"last"}"#, "UserId", "last"),
            (r#"{"\ud800":1,"UserId":"x"}"#, "UserId", "x"),
            (r#"{"User\u0049d":"x"}"#, "UserId", "x"),
            (r#"{"UserId":{"a":[1, 2]}}"#, "UserId", r#"{"a":[1,2]}"#),
            (r#"{"UserId":null,"UserType":0}"#, "UserType", "0"),
            (r#"["no object"]"#, "UserId", ""),
            (r#""no object""#, "record", r#""no object""#),
        ] {
            let row = row(record);
            assert_eq!(row[column], expected, "{record}");
            assert_eq!(row["record"], format(Format::Ndjson, &[record]).trim_end(), "{record}");
        }
    }
}
