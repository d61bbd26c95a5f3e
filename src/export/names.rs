//! The names of sensitive information types, put into one record after the other.
//!
//! Of each tenant its own are used, read when its first record with an id comes: memory holds those of one tenant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, mem};

use uuid::Uuid;

use crate::content::TenantId;
use crate::language::Language;
use crate::sensitive;
use crate::store::{Store, StoreError};

/// Between two names in one cell.
const BETWEEN: &str = "; ";

type Known = BTreeMap<Uuid, String>;

/// Where a tenant's names come from. Blocking.
type Lookup = Arc<dyn Fn(TenantId) -> Result<Known, StoreError> + Send + Sync>;

/// Puts names into records.
pub(super) struct TypeNames {
    lookup: Lookup,
    known: Option<(TenantId, Known)>,
    /// Those of the last record, each once.
    of_record: String,
    line: Vec<u8>,
}

impl fmt::Debug for TypeNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypeNames").finish_non_exhaustive()
    }
}

impl TypeNames {
    /// Those in a language that a store has; without a store there are none.
    pub(super) fn of(store: Option<Store>, language: Language) -> Self {
        Self::by(Arc::new(move |tenant| {
            let read = store.as_ref().map(|store| store.sensitive_types(tenant, &language)).transpose()?;
            Ok(read.flatten().map(|types| types.names).unwrap_or_default())
        }))
    }

    fn by(lookup: Lookup) -> Self {
        Self { lookup, known: None, of_record: String::new(), line: Vec::new() }
    }

    /// Puts the names of one tenant beside the ids in one of its records.
    pub(super) fn add(&mut self, tenant: TenantId, record: &mut Vec<u8>) -> Result<(), StoreError> {
        self.of_record.clear();
        if !sensitive::may_have_ids(record) {
            return Ok(());
        }
        if self.known.as_ref().is_none_or(|(of, _)| *of != tenant) {
            self.known = Some((tenant, (self.lookup)(tenant)?));
        }
        let Some((_, known)) = &self.known else { return Ok(()) };
        self.line.clear();
        let mut named = Vec::new();
        let name_of = |id| {
            let name = known.get(&id)?.as_str();
            if !named.contains(&name) {
                named.push(name);
            }
            Some(name)
        };
        sensitive::add_names(record, name_of, &mut self.line);
        self.of_record = named.join(BETWEEN);
        mem::swap(record, &mut self.line);
        Ok(())
    }

    /// The names that the last record was given.
    pub(super) fn of_record(&self) -> &str {
        &self.of_record
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Form, Format, Formatter};
    use super::*;
    use crate::content::{ContentId, ContentType};
    use crate::store::Record;

    const CARD: &str = "50842eb7-edc8-4019-85dd-5a5c1f2bb085";

    fn tenant(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    /// Each tenant calls the type by a name of its own; the third cannot be read.
    fn written(format: Format, records: &[(u8, &str)]) -> std::io::Result<String> {
        let mut formatter = Formatter::new(Form { format, ..Form::default() }, None);
        formatter.types = Some(TypeNames::by(Arc::new(|of| match of.as_bytes()[0] {
            3 => Err(StoreError::Closed),
            number => Ok([(CARD.parse().unwrap(), format!("Card {number}, \"credit\""))].into()),
        })));
        let content_id = ContentId::from("blob");
        let mut out = Vec::new();
        formatter.begin(&mut out)?;
        for (index, (of, json)) in (0..).zip(records) {
            let (tenant, content_type, json) = (tenant(*of), ContentType::Dlp, json.as_bytes());
            let record =
                Record { tenant, content_type, content_id: &content_id, seq: 1, index, json, duplicate: false };
            formatter.record(&record, &mut out)?;
        }
        formatter.end(&mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_tenant_s_records_have_its_own_names_and_literals_stay() {
        let record = format!("{{ \"n\": 1.0,\n \"x\": {{\"SensitiveType\": \"{CARD}\", \"e\": \"\\u00e9\"}} }}");
        let expected = |number: u8| {
            format!(
                r#"{{"n":1.0,"x":{{"SensitiveType":"{CARD}","e":"\u00e9","SensitiveTypeName":"Card {number}, \"credit\""}}}}"#
            )
        };
        let both = [(1, record.as_str()), (2, &record), (1, "{}")];
        assert_eq!(written(Format::Ndjson, &both).unwrap(), format!("{}\n{}\n{{}}\n", expected(1), expected(2)));
        assert_eq!(written(Format::Json, &both[..1]).unwrap(), format!("[\n{}\n]\n", expected(1)));
        let csv = written(Format::Csv, &both).unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let columns: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        assert_eq!(columns[columns.len() - 2..], ["SensitiveTypeNames", "record"]);
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        let last = |row: usize, from_end: usize| rows[row][columns.len() - from_end].to_owned();
        assert_eq!(
            (last(0, 2), last(1, 2), last(2, 2)),
            ("Card 1, \"credit\"".into(), "Card 2, \"credit\"".into(), String::new())
        );
        assert_eq!(last(1, 1), expected(2));
    }

    #[test]
    fn a_name_that_comes_twice_is_one_in_the_cell_and_names_that_cannot_be_read_are_an_error() {
        let twice = format!(r#"[{{"SensitiveType":"{CARD}"}},{{"SensitiveInfoTypeId":"{CARD}"}}]"#);
        let csv = written(Format::Csv, &[(1, &twice)]).unwrap();
        let row = csv::Reader::from_reader(csv.as_bytes()).records().next().unwrap().unwrap();
        assert_eq!(&row[row.len() - 2], "Card 1, \"credit\"");
        assert!(written(Format::Ndjson, &[(3, "{}")]).is_ok(), "nothing is read of a record without ids");
        assert!(written(Format::Ndjson, &[(3, &twice)]).is_err());
    }
}
