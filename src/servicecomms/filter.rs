//! `$filter`: comparisons of the documented properties, joined by `and`, `or`, `not` and parentheses ("`OData` Version 4.0.
//! Part 2: URL Conventions"). Texts are compared without case.
//!
//! **Invariant:** whoever sends a filter cannot make this panic or recurse without end.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::tokens::{Word, words};

/// A longer filter is nobody's.
const LONGEST: usize = 4096;
/// How deep parentheses and `not` may go.
const DEEPEST: usize = 32;

/// A property that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    Workload,
    StatusTime,
    StartTime,
    EndTime,
    MessageType,
    Id,
}

impl Property {
    const ALL: [Self; 6] =
        [Self::Workload, Self::StatusTime, Self::StartTime, Self::EndTime, Self::MessageType, Self::Id];

    const fn name(self) -> &'static str {
        match self {
            Self::Workload => "Workload",
            Self::StatusTime => "StatusTime",
            Self::StartTime => "StartTime",
            Self::EndTime => "EndTime",
            Self::MessageType => "MessageType",
            Self::Id => "Id",
        }
    }

    const fn is_time(self) -> bool {
        matches!(self, Self::StatusTime | Self::StartTime | Self::EndTime)
    }
}

/// What a property is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Time(Timestamp),
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

impl Comparison {
    fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "lt" => Self::Lt,
            "le" => Self::Le,
            _ => return None,
        })
    }

    /// Null is equal to null and to nothing else, and neither more nor less than anything.
    fn holds(self, left: &Operand, right: &Operand) -> bool {
        let order = match (left, right) {
            (Operand::Text(left), Operand::Text(right)) => Some(left.to_lowercase().cmp(&right.to_lowercase())),
            (Operand::Time(left), Operand::Time(right)) => Some(left.cmp(right)),
            (Operand::Null, Operand::Null) => return matches!(self, Self::Eq),
            _ => None,
        };
        match (self, order) {
            (Self::Eq, order) => order == Some(Ordering::Equal),
            (Self::Ne, order) => order != Some(Ordering::Equal),
            (Self::Gt, Some(order)) => order.is_gt(),
            (Self::Ge, Some(order)) => order.is_ge(),
            (Self::Lt, Some(order)) => order.is_lt(),
            (Self::Le, Some(order)) => order.is_le(),
            (_, None) => false,
        }
    }
}

/// A filter that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    Compare(Property, Comparison, Operand),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

impl Comparison {
    const fn turned(self) -> Self {
        match self {
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            same => same,
        }
    }
}

impl Filter {
    /// Reads a filter of these properties.
    pub(super) fn read(text: &str, allowed: &[Property]) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let mut reader = Reader { words: words(text)?, at: 0, deep: 0, allowed };
        let filter = reader.either()?;
        match reader.next() {
            None => Ok(filter),
            Some(word) => Err(format!("`{}` is not expected there", word.told())),
        }
    }

    /// Whether something with these properties is meant.
    pub(super) fn holds(&self, of: &impl Fn(Property) -> Operand) -> bool {
        match self {
            Self::Compare(property, comparison, operand) => comparison.holds(&of(*property), operand),
            Self::And(one, other) => one.holds(of) && other.holds(of),
            Self::Or(one, other) => one.holds(of) || other.holds(of),
            Self::Not(not) => !not.holds(of),
        }
    }

    /// Whether it can hold, and whether it can fail, for messages of this type, whatever else they are.
    pub(super) fn can(&self, message_type: &str) -> (bool, bool) {
        match self {
            Self::Compare(Property::MessageType, comparison, operand) => {
                let holds = comparison.holds(&Operand::Text(message_type.to_owned()), operand);
                (holds, !holds)
            }
            Self::Compare(..) => (true, true),
            Self::And(one, other) => {
                let (one, other) = (one.can(message_type), other.can(message_type));
                (one.0 && other.0, one.1 || other.1)
            }
            Self::Or(one, other) => {
                let (one, other) = (one.can(message_type), other.can(message_type));
                (one.0 || other.0, one.1 && other.1)
            }
            Self::Not(not) => {
                let (holds, fails) = not.can(message_type);
                (fails, holds)
            }
        }
    }

    /// Whether it says something of one of these.
    pub(super) fn mentions(&self, properties: &[Property]) -> bool {
        match self {
            Self::Compare(property, ..) => properties.contains(property),
            Self::And(one, other) | Self::Or(one, other) => one.mentions(properties) || other.mentions(properties),
            Self::Not(not) => not.mentions(properties),
        }
    }
}

struct Reader<'a> {
    words: Vec<Word>,
    at: usize,
    deep: usize,
    allowed: &'a [Property],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let takes = self.words.get(self.at).is_some_and(|word| word.is(keyword));
        self.at += usize::from(takes);
        takes
    }

    fn either(&mut self) -> Result<Filter, String> {
        let mut filter = self.both()?;
        while self.takes("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.both()?));
        }
        Ok(filter)
    }

    fn both(&mut self) -> Result<Filter, String> {
        let mut filter = self.one()?;
        while self.takes("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.one()?));
        }
        Ok(filter)
    }

    fn one(&mut self) -> Result<Filter, String> {
        self.deep += 1;
        if self.deep > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        let filter = if self.takes("not") {
            Filter::Not(Box::new(self.one()?))
        } else if self.words.get(self.at) == Some(&Word::Open) {
            self.at += 1;
            let filter = self.either()?;
            match self.next() {
                Some(Word::Close) => filter,
                _ => return Err("a parenthesis is not closed".to_owned()),
            }
        } else {
            self.comparison()?
        };
        self.deep -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        let ended = || "it ends where a comparison is expected: write `Property eq value`".to_owned();
        let left = self.next().ok_or_else(ended)?;
        let word = self.next().ok_or_else(ended)?;
        let comparison = Comparison::named(word.told()).filter(|_| matches!(word, Word::Bare(_)));
        let comparison = comparison
            .ok_or_else(|| format!("`{}` is no comparison; those are eq, ne, gt, ge, lt and le", word.told()))?;
        let right = self.next().ok_or_else(ended)?;
        match (self.property(&left), self.property(&right)) {
            (Ok(property), _) => Ok(Filter::Compare(property, comparison, operand(property, &right)?)),
            (Err(_), Ok(property)) => Ok(Filter::Compare(property, comparison.turned(), operand(property, &left)?)),
            (Err(unknown), Err(_)) => Err(unknown),
        }
    }

    fn property(&self, word: &Word) -> Result<Property, String> {
        let known = Property::ALL.into_iter().filter(|property| self.allowed.contains(property));
        let found = known.clone().find(|property| word.is(property.name()));
        found.ok_or_else(|| {
            let names: Vec<_> = known.map(Property::name).collect();
            format!("`{}` cannot be filtered by; it can be by {}", word.told(), names.join(", "))
        })
    }
}

fn operand(property: Property, word: &Word) -> Result<Operand, String> {
    match word {
        word if word.is("null") => Ok(Operand::Null),
        Word::Bare(text) | Word::Quoted(text) if property.is_time() => match moment(text) {
            Some(time) => Ok(Operand::Time(time)),
            None => Err(format!("`{text}` is no time; write it as 2026-11-22T08:00:00Z")),
        },
        Word::Quoted(text) => Ok(Operand::Text(text.clone())),
        other => Err(format!("`{}` is no text; write it in single quotes", other.told())),
    }
}

/// A time, with or without its zone, or a day: UTC is meant unless something else is said.
fn moment(text: &str) -> Option<Timestamp> {
    let in_utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    let date = || text.parse::<Date>().ok().and_then(|date| in_utc(date.to_datetime(jiff::civil::Time::midnight())));
    text.parse().ok().or_else(|| text.parse::<DateTime>().ok().and_then(in_utc)).or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Property] = &Property::ALL;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn message(property: Property) -> Operand {
        match property {
            Property::Workload => Operand::Text("Exchange".to_owned()),
            Property::MessageType => Operand::Text("Incident".to_owned()),
            Property::Id => Operand::Text("EX1".to_owned()),
            Property::StartTime => Operand::Time(at("2026-11-20T10:00:00Z")),
            Property::EndTime | Property::StatusTime => Operand::Null,
        }
    }

    #[test]
    fn what_scripts_send_is_understood() {
        for (text, holds) in [
            ("Workload eq 'Exchange'", true),
            ("workload eq 'exchange'", true),
            ("Workload ne 'Exchange'", false),
            ("ID eq 'EX1'", true),
            ("'EX1' eq Id", true),
            ("MessageType eq 'Incident'", true),
            ("MessageType eq Microsoft.Office365ServiceComms.ExposedContracts.MessageType'Incident'", true),
            ("MessageType eq Microsoft.Office365ServiceComms.ExposedContracts.MessageType'MessageCenter'", false),
            ("StartTime ge 2026-11-20T10:00:00Z", true),
            ("StartTime gt 2026-11-20T10:00:00.0000000Z", false),
            ("StartTime ge 2026-11-20 and StartTime lt 2026-11-21", true),
            ("StartTime ge '2026-11-20T09:59:59'", true),
            ("2026-11-20T11:00:00+01:00 le StartTime", true),
            ("EndTime eq null", true),
            ("EndTime ne null", false),
            ("EndTime le 2026-11-21", false),
            ("not (EndTime ne null) and Workload eq 'Exchange' or Workload eq 'Lync'", true),
            ("Workload eq 'Lync' and (Id eq 'EX1' or Id eq 'EX2')", false),
            ("Workload eq 'It''s'", false),
        ] {
            let filter = Filter::read(text, ALL).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.holds(&message), holds, "{text}");
        }
    }

    #[test]
    fn the_types_that_a_filter_leaves_are_known() {
        for (text, incidents, posts) in [
            ("MessageType eq 'Incident'", true, false),
            ("not (MessageType eq 'Incident')", false, true),
            ("Workload eq 'x' and MessageType ne 'Incident'", false, true),
            ("Workload eq 'x' or MessageType eq 'Incident'", true, true),
            ("not (Workload eq 'x' or MessageType eq 'Incident')", false, true),
            ("Id eq 'EX1'", true, true),
            ("MessageType eq 'PlannedMaintenance'", false, false),
        ] {
            let filter = Filter::read(text, ALL).unwrap();
            assert_eq!((filter.can("Incident").0, filter.can("MessageCenter").0), (incidents, posts), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (text, told) in [
            ("", "it ends where"),
            ("Workload", "it ends where"),
            ("Workload is 'x'", "`is` is no comparison"),
            ("Title eq 'x'", "`Title` cannot be filtered by"),
            ("Workload eq Exchange", "write it in single quotes"),
            ("StartTime ge yesterday", "is no time"),
            ("Workload eq 'x", "a quote is not closed"),
            ("(Workload eq 'x'", "a parenthesis is not closed"),
            ("Workload eq 'x')", "`)` is not expected"),
            ("Workload eq 'x' Id eq 'y'", "`Id` is not expected"),
            ("contains(Title,'x')", "`,` is not expected"),
            ("contains(Title)", "is no comparison"),
            (", eq 'x'", "`,` is not expected"),
            (&"(".repeat(4000), "nested deeper"),
            (&"not ".repeat(1000), "nested deeper"),
            (&"x".repeat(5000), "longer than"),
        ] {
            let error = Filter::read(text, ALL).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(Filter::read("StartTime ge 2026-11-20", &[Property::Workload]).unwrap_err().contains("by Workload"));
    }
}
