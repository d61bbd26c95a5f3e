//! Variables such as `TENANTRY__COLLECT__POLL_INTERVAL=2m` as a source of the configuration.
//!
//! Names of variables are written in capitals, names of apps and clouds are not: they are matched without regard to case
//! against those that the files have. A value's *origin* is the variable's name behind a `$`, which leads each later
//! problem back to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use config::{Map, Value};

use super::problem::{Findings, Place};
use super::schema::{self, SECTIONS, Section, Shape};
use super::written::Written;

/// What variables begin with.
const PREFIX: &str = "TENANTRY";

/// The variable that a value of this origin comes from.
pub(super) fn variable_of(origin: &str) -> Option<&str> {
    origin.strip_prefix('$')
}

/// Whether it comes from a variable.
pub(super) fn is_of(value: &Value) -> bool {
    value.origin().is_some_and(|origin| variable_of(origin).is_some())
}

/// The sections that the variables among `all` set: `TENANTRY__COLLECT__POLL_INTERVAL` is `collect.poll_interval`. An
/// empty variable is none.
pub(super) fn sections(
    all: impl IntoIterator<Item = (OsString, OsString)>,
    written: &[(usize, Written)],
    findings: &mut Findings,
) -> Map<String, Value> {
    // In the order of their names, so that the same environment is always read in the same way.
    let all: BTreeMap<OsString, OsString> = all.into_iter().collect();
    let mut sections: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut named: BTreeMap<String, BTreeMap<String, Map<String, Value>>> = BTreeMap::new();
    let mut places: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (name, value) in all {
        let Some(variable) = name.to_str() else { continue };
        let place = Place::Environment { variable: variable.to_owned() };
        let Some(path) = path(variable) else {
            if let Some(right) = misspelt(variable) {
                findings.warn(&place, "", format!("it is not read; did you mean `{right}`?"));
            }
            continue;
        };
        let shown = path.join(".");
        let Ok(value) = value.into_string() else {
            findings.problem(&place, "", "its value is not UTF-8");
            continue;
        };
        let path = match known(&path, written) {
            Ok(path) => path,
            Err(message) => {
                findings.problem(&place, &shown, message);
                continue;
            }
        };
        if value.is_empty() {
            continue;
        }
        if let Some(other) = places.insert(path.clone(), variable.to_owned()) {
            findings.problem(&place, &path.join("."), format!("`{other}` sets the same; remove one of the two"));
        }
        let value = Value::new(Some(&format!("${variable}")), value);
        match path.as_slice() {
            [section, key] => drop(sections.entry(section.clone()).or_default().insert(key.clone(), value)),
            [section, name, key] => {
                let tables = named.entry(section.clone()).or_default();
                drop(tables.entry(name.clone()).or_default().insert(key.clone(), value));
            }
            _ => {}
        }
    }
    let named = named.into_iter().map(|(section, tables)| {
        let tables: Map<String, Value> = tables.into_iter().map(|(name, table)| (name, table.into())).collect();
        (section, Value::from(tables))
    });
    sections.into_iter().map(|(section, table)| (section, table.into())).chain(named).collect()
}

/// The names of the variables among `all` that the configuration reads.
pub(super) fn used<'a>(all: impl IntoIterator<Item = (&'a OsString, &'a OsString)>) -> BTreeSet<String> {
    let read = all.into_iter().filter(|(_, value)| !value.is_empty());
    read.filter_map(|(name, _)| name.to_str().filter(|name| path(name).is_some()).map(str::to_owned)).collect()
}

/// The parts of the name of a variable that is meant for the configuration.
fn path(variable: &str) -> Option<Vec<String>> {
    let mut parts = variable.split("__");
    if !parts.next()?.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    let path: Vec<String> = parts.map(str::to_lowercase).collect();
    (!path.is_empty()).then_some(path)
}

/// The path of the key that the variable sets; names are as the files write them.
fn known(path: &[String], written: &[(usize, Written)]) -> Result<Vec<String>, String> {
    let [name, rest @ ..] = path else { return Err(String::new()) };
    if name.is_empty() {
        return Err(format!("name a section and a key, such as `{PREFIX}__COLLECT__POLL_INTERVAL`"));
    }
    let section = Section::named(name).ok_or_else(|| schema::unknown_section(name))?;
    match (section.shape, rest) {
        (Shape::List, _) => Err(format!("`{}` cannot be set in the environment; write it in a file", section.header())),
        (Shape::Table, [key]) | (Shape::Named, [_, key]) if !section.keys.contains(&key.as_str()) => {
            Err(section.unknown_key(key))
        }
        (Shape::Table, [_]) => Ok(path.to_vec()),
        (Shape::Named, [table, key]) => Ok(vec![name.clone(), as_written(name, table, written)?, key.clone()]),
        (Shape::Table, _) => Err(format!("write it as `{PREFIX}__{}__KEY`", name.to_uppercase())),
        (Shape::Named, _) => Err(format!("write it as `{PREFIX}__{}__NAME__KEY`", name.to_uppercase())),
    }
}

/// The name of a table of the section as the files write it, or `table` if they have none.
fn as_written(section: &str, table: &str, written: &[(usize, Written)]) -> Result<String, String> {
    let tables = written.iter().filter_map(|(_, file)| match &file.sections.get(section)?.kind {
        config::ValueKind::Table(tables) => Some(tables.keys()),
        _ => None,
    });
    let names: BTreeSet<&String> = tables.flatten().filter(|name| name.to_lowercase() == table).collect();
    match names.into_iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(table.to_owned()),
        [name] => Ok((*name).clone()),
        several => Err(format!(
            "it could be any of {}, since variables are read without regard to case; rename all but one, or set it in a \
             file",
            schema::list(several.iter().map(|name| name.as_str()))
        )),
    }
}

/// The right form of a variable that names a section and a key, but not as it should. Others begin the same way and mean
/// something else: an orchestrator's, a test's.
fn misspelt(variable: &str) -> Option<String> {
    let lower = variable.to_lowercase();
    let rest = lower.strip_prefix("tenantry")?.trim_start_matches('_');
    if rest.starts_with("test_") {
        return None;
    }
    SECTIONS.iter().filter(|section| section.shape != Shape::List).find_map(|section| {
        let rest = rest.strip_prefix(section.name)?.strip_prefix('_')?.trim_start_matches('_');
        let (name, key) = match section.shape {
            Shape::Named => section.keys.iter().find_map(|key| {
                let name = rest.strip_suffix(key)?.trim_end_matches('_');
                (!name.is_empty() && rest != *key).then(|| (format!("{name}__"), *key))
            })?,
            _ => (String::new(), schema::nearest(rest, section.keys.iter().copied())?),
        };
        Some(format!("{PREFIX}__{}__{}", section.name.to_uppercase(), (name + key).to_uppercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_nearly_right_is_noticed() {
        for (variable, right) in [
            ("TENANTRY_LOG__LEVEL", Some("TENANTRY__LOG__LEVEL")),
            ("TENANTRY_COLLECT_POLL_INTERVAL", Some("TENANTRY__COLLECT__POLL_INTERVAL")),
            ("TENANTRY_COLLECT__POLL_INTERVALL", Some("TENANTRY__COLLECT__POLL_INTERVAL")),
            ("TENANTRY_APP_CLIENT_SECRET", Some("TENANTRY__APP__CLIENT_SECRET")),
            ("TENANTRY_APPS_CONTOSO_CLIENT_SECRET_FILE", Some("TENANTRY__APPS__CONTOSO__CLIENT_SECRET_FILE")),
            ("TENANTRY_CONFIG", None),
            ("TENANTRY_PORT_9464_TCP", None),
            ("TENANTRY_SERVICE_HOST", None),
            ("TENANTRY_TEST_LOG_LEVEL", None),
            ("OTHER_LOG__LEVEL", None),
        ] {
            assert_eq!(misspelt(variable).as_deref(), right, "{variable}");
        }
    }
}
