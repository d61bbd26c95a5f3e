//! What is asked for: the operation, and the options that the reference has for it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::MOST;
use super::entities::{kind, properties};
use super::filter::{Filter, Operand, Property};
use crate::content::ContentType;

/// How far back the answer goes where no filter says it: "default: ge `CurrentTime` - 7 days".
const USUAL: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far back it goes at most.
const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// What the old API could be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Which services there are.
    Services,
    /// How they stand.
    CurrentStatus,
    /// How they stood, day by day.
    HistoricalStatus,
    /// Incidents and posts of the Message Center.
    Messages,
}

impl Operation {
    /// The operation of this name, whatever its case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            ("Services", Self::Services),
            ("CurrentStatus", Self::CurrentStatus),
            ("HistoricalStatus", Self::HistoricalStatus),
            ("Messages", Self::Messages),
        ];
        all.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, operation)| operation)
    }

    /// By what it can be filtered.
    const fn filters(self) -> &'static [Property] {
        match self {
            Self::Services => &[],
            Self::CurrentStatus => &[Property::Workload],
            Self::HistoricalStatus => &[Property::Workload, Property::StatusTime],
            Self::Messages => {
                &[Property::Workload, Property::StartTime, Property::EndTime, Property::MessageType, Property::Id]
            }
        }
    }
}

/// A request that makes no sense, and what about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub String);

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    filter: Option<Filter>,
    select: Option<Vec<String>>,
    top: Option<usize>,
    skip: usize,
}

impl Request {
    /// Reads the query of an address. Parameters that are no options of `OData` are nobody's business.
    pub fn read(operation: Operation, query: &str) -> Result<Self, BadRequest> {
        let mut request = Self { operation, filter: None, select: None, top: None, skip: 0 };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let bad = |why: String| BadRequest(format!("{name}: {why}"));
            let number = || value.trim().parse::<usize>().map_err(|_| bad(format!("`{value}` is no number")));
            match name.to_ascii_lowercase().as_str() {
                "$filter" if !operation.filters().is_empty() => {
                    request.filter = Some(Filter::read(&value, operation.filters()).map_err(bad)?);
                }
                "$select" => request.select = Some(selected(operation, &value).map_err(bad)?),
                "$top" => {
                    let top = number()?;
                    if operation == Operation::Messages && top > MOST {
                        return Err(bad(format!(
                            "{top} are too many; {MOST} is the most, and `$skip` leads to the next ones"
                        )));
                    }
                    request.top = Some(top);
                }
                "$skip" => request.skip = number()?,
                option if option.starts_with('$') => {
                    return Err(bad("this operation has no such option".to_owned()));
                }
                _ => {}
            }
        }
        if operation == Operation::Messages {
            request.top = request.top.or(Some(MOST));
        }
        Ok(request)
    }

    /// The content types without which the answer would leave something out.
    #[must_use]
    pub fn needs(&self) -> Vec<ContentType> {
        if self.operation != Operation::Messages {
            return vec![ContentType::HealthServices];
        }
        let kinds = [ContentType::HealthIssues, ContentType::HealthMessages];
        let asks = |of: &ContentType| self.filter.as_ref().is_none_or(|filter| filter.can(kind(*of)).0);
        kinds.into_iter().filter(asks).collect()
    }

    /// Whether something with these properties is asked for.
    pub(super) fn wants(&self, of: &impl Fn(Property) -> Operand) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(of))
    }

    /// Since when messages are asked for, unless the filter says which.
    pub(super) fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let says = [Property::StartTime, Property::EndTime, Property::Id];
        let said = self.filter.as_ref().is_some_and(|filter| filter.mentions(&says));
        now.checked_sub(USUAL).ok().filter(|_| !said)
    }

    /// The first day that is asked for.
    pub(super) fn first_day(&self, now: Timestamp) -> Date {
        let said = self.filter.as_ref().is_some_and(|filter| filter.mentions(&[Property::StatusTime]));
        let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
        match now.checked_sub(if said { LONGEST } else { USUAL }) {
            // Of the day on which those days began, no midnight is after that.
            Ok(since) => day(since).tomorrow().unwrap_or_else(|_| day(now)),
            Err(_) => day(now),
        }
    }

    /// The rows that `$skip` and `$top` leave.
    pub(super) fn page<T>(&self, rows: Vec<T>) -> Vec<T> {
        rows.into_iter().skip(self.skip).take(self.top.unwrap_or(usize::MAX)).collect()
    }

    /// A row with the properties that `$select` leaves.
    pub(super) fn selected(&self, mut row: Map<String, Value>) -> Map<String, Value> {
        if let Some(select) = &self.select {
            row.retain(|name, _| select.contains(name));
        }
        row
    }
}

fn selected(operation: Operation, text: &str) -> Result<Vec<String>, String> {
    let known = properties(operation);
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut select = Vec::new();
    for name in names {
        if name == "*" {
            return Ok(known);
        }
        match known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(known) => select.push(known.clone()),
            None => return Err(format!("there is no property `{name}`")),
        }
    }
    Ok(select)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: Operation, query: &str) -> String {
        Request::read(operation, query).unwrap_err().to_string()
    }

    #[test]
    fn options_are_those_of_the_reference() {
        let request = Request::read(Operation::Messages, "%24filter=Workload+eq+%27Exchange%27&$select=Id,title&api=1");
        let request = request.unwrap();
        assert_eq!((request.top, request.select), (Some(MOST), Some(vec!["Id".to_owned(), "Title".to_owned()])));
        assert!(request.filter.is_some());
        assert_eq!(Request::read(Operation::Services, "").unwrap().top, None);
        for (operation, query, told) in [
            (Operation::Messages, "$top=101", "100 is the most"),
            (Operation::Messages, "$top=-1", "no number"),
            (Operation::Messages, "$select=Nothing", "no property `Nothing`"),
            (Operation::Messages, "$filter=StatusTime eq 1", "cannot be filtered by"),
            (Operation::Messages, "$orderby=Id", "no such option"),
            (Operation::Services, "$filter=Id eq 'x'", "no such option"),
        ] {
            assert!(refused(operation, query).contains(told), "{query}: {}", refused(operation, query));
        }
        for name in ["Services", "currentstatus", "HISTORICALSTATUS", "Messages"] {
            assert!(Operation::named(name).is_some(), "{name}");
        }
        assert_eq!(Operation::named("Other"), None);
    }

    #[test]
    fn seven_days_are_meant_where_nobody_says_more() {
        let now: Timestamp = "2026-11-27T13:00:00Z".parse().unwrap();
        let request = |query: &str| Request::read(Operation::HistoricalStatus, query).unwrap();
        assert_eq!(request("").first_day(now).to_string(), "2026-11-21");
        assert_eq!(request("$filter=StatusTime ge 2026-01-01").first_day(now).to_string(), "2025-11-27");
        let messages = |query: &str| Request::read(Operation::Messages, query).unwrap().since(now);
        assert_eq!(messages("$filter=Workload eq 'x'").unwrap().to_string(), "2026-11-20T13:00:00Z");
        assert_eq!(messages("$filter=Id eq 'x'"), None);
    }
}
