//! Records as text: NDJSON, a JSON array, or CSV.
//!
//! The daemon and the command line share this, so that an export is the same bytes whether or not the daemon runs.
//! NDJSON and JSON carry each record with its string and number literals untouched; only white space between tokens
//! goes, so that a record is one line. CSV names the columns that an investigator filters by and ends with the record
//! as JSON, so that nothing is lost in it either.

use std::io;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::store::{Query, Record, Store, StoreError, minify};

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

/// The CSV columns: where the record was found, then the fields of the common schema, then the whole record.
const COLUMNS: [&str; 14] = [
    "tenant",
    "content_type",
    "duplicate",
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
    "record",
];

/// Turns records into bytes. The caller takes the bytes whenever it likes.
#[derive(Debug)]
pub struct Formatter {
    format: Format,
    written: u64,
    line: Vec<u8>,
}

/// The fields of the common schema, each left as it stands in the record.
#[derive(Deserialize)]
struct Common<'a> {
    #[serde(borrow, rename = "Id")]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "CreationTime")]
    creation_time: Option<&'a RawValue>,
    #[serde(borrow, rename = "Workload")]
    workload: Option<&'a RawValue>,
    #[serde(borrow, rename = "RecordType")]
    record_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "Operation")]
    operation: Option<&'a RawValue>,
    #[serde(borrow, rename = "ResultStatus")]
    result_status: Option<&'a RawValue>,
    #[serde(borrow, rename = "UserId")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "UserType")]
    user_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "ClientIP")]
    client_ip: Option<&'a RawValue>,
    #[serde(borrow, rename = "ObjectId")]
    object_id: Option<&'a RawValue>,
}

impl Formatter {
    /// Nothing written yet.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, written: 0, line: Vec::new() }
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
            Format::Csv => csv_row(out, |row| row.write_record(COLUMNS)),
        }
    }

    /// One record.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match self.format {
            Format::Ndjson => {
                minify(record.json, out);
                out.push(b'\n');
            }
            Format::Json => {
                out.extend_from_slice(if self.written == 0 { b"[\n" } else { b",\n" });
                minify(record.json, out);
            }
            Format::Csv => {
                self.line.clear();
                minify(record.json, &mut self.line);
                let line = &self.line;
                let fields: Common<'_> = serde_json::from_slice(line)?;
                csv_row(out, |row| {
                    row.write_field(record.tenant.to_string())?;
                    row.write_field(record.content_type.as_str())?;
                    row.write_field(if record.duplicate { "true" } else { "false" })?;
                    for field in [
                        fields.id,
                        fields.creation_time,
                        fields.workload,
                        fields.record_type,
                        fields.operation,
                        fields.result_status,
                        fields.user_id,
                        fields.user_type,
                        fields.client_ip,
                        fields.object_id,
                    ] {
                        row.write_field(cell(field).map_err(io::Error::from)?)?;
                    }
                    row.write_field(line)?;
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
    format: Format,
    mut take: impl FnMut(&mut Vec<u8>, u64) -> ControlFlow<()>,
) -> Result<u64, ExportError> {
    let mut formatter = Formatter::new(format);
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

/// A string's text, `null` as nothing, anything else as it is written in the record.
fn cell(value: Option<&RawValue>) -> serde_json::Result<String> {
    match value.map(RawValue::get) {
        None | Some("null") => Ok(String::new()),
        Some(text) if text.starts_with('"') => serde_json::from_str(text),
        Some(text) => Ok(text.to_owned()),
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
    use crate::content::{ContentId, ContentType, TenantId};

    fn format(format: Format, records: &[&str]) -> String {
        let content_id = ContentId::from("blob");
        let mut formatter = Formatter::new(format);
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
        let text = format(Format::Csv, &[RECORD]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(&row[0], "11111111-1111-1111-1111-111111111111");
        assert_eq!(&row[1], "Audit.Exchange");
        assert_eq!(&row[3], "a/A");
        assert_eq!(&row[9], "a, \"b\"");
        assert_eq!(&row[13], format(Format::Ndjson, &[RECORD]).trim_end());
    }
}
