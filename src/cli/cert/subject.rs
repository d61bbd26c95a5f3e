//! Whose certificate it is: `CN=NAME`, and what may follow.

use rcgen::{DistinguishedName, DnType, DnValue};

/// The longest common name ("RFC 5280", upper bounds).
const LONGEST: usize = 64;

/// The parts of a subject, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Vec<(Part, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    CommonName,
    Organization,
    Unit,
    Locality,
    State,
    Country,
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "CN" => Self::CommonName,
            "O" => Self::Organization,
            "OU" => Self::Unit,
            "L" => Self::Locality,
            "ST" => Self::State,
            "C" => Self::Country,
            _ => return None,
        })
    }

    const fn kind(self) -> DnType {
        match self {
            Self::CommonName => DnType::CommonName,
            Self::Organization => DnType::OrganizationName,
            Self::Unit => DnType::OrganizationalUnitName,
            Self::Locality => DnType::LocalityName,
            Self::State => DnType::StateOrProvinceName,
            Self::Country => DnType::CountryName,
        }
    }
}

impl Subject {
    /// `tenantry` on a host of this name.
    pub(super) fn of_host(name: &str) -> Self {
        let name: String = name.chars().filter(char::is_ascii_graphic).collect();
        let text: String = format!("tenantry {name}").trim_end().chars().take(LONGEST).collect();
        Self(vec![(Part::CommonName, text)])
    }

    /// `CN=collector, O=Example, C=CH`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').map(part).collect::<Result<_, _>>()?;
        match parts.iter().filter(|(part, _)| *part == Part::CommonName).count() {
            1 => Ok(Self(parts)),
            0 => Err("there is no `CN=NAME` in it".to_owned()),
            _ => Err("there are several `CN=` in it; write one".to_owned()),
        }
    }

    /// The same, to be signed.
    pub(super) fn to_name(&self) -> Result<DistinguishedName, rcgen::Error> {
        let mut name = DistinguishedName::new();
        for (part, value) in &self.0 {
            let value = match part {
                // The one part whose encoding the standard prescribes.
                Part::Country => DnValue::PrintableString(value.as_str().try_into()?),
                _ => DnValue::Utf8String(value.clone()),
            };
            name.push(part.kind(), value);
        }
        Ok(name)
    }
}

fn part(text: &str) -> Result<(Part, String), String> {
    let text = text.trim();
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("`{text}` has no `=`; write it as `CN={text}`"));
    };
    let part = Part::named(name.trim().to_uppercase().as_str())
        .ok_or_else(|| format!("`{name}` is none of `CN`, `O`, `OU`, `L`, `ST` and `C`"))?;
    let value = value.trim();
    let wrong = if value.is_empty() {
        "is empty"
    } else if value.chars().any(|one| one.is_control() || "+\\\"<>;=".contains(one)) {
        "has a character that means something else in a subject"
    } else if value.chars().count() > LONGEST {
        "is longer than 64 characters"
    } else if part == Part::Country && !(value.len() == 2 && value.bytes().all(|one| one.is_ascii_alphabetic())) {
        "is no country's code of two letters"
    } else {
        return Ok((part, value.to_owned()));
    };
    Err(format!("what follows `{name}=` {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_common_name_and_known_parts() {
        for text in ["CN=collector", " cn = collector , O=Example Ltd,OU=ops, L=Zürich, ST=ZH, C=CH"] {
            Subject::parse(text).unwrap().to_name().unwrap();
        }
        for (text, expected) in [
            ("collector", "`collector` has no `=`; write it as `CN=collector`"),
            ("", "has no `=`"),
            ("O=Example", "there is no `CN=NAME` in it"),
            ("CN=a,CN=b", "there are several `CN=` in it"),
            ("CN=", "what follows `CN=` is empty"),
            ("CN=a,DC=b", "`DC` is none of"),
            ("CN=a\u{7}", "means something else"),
            ("CN=a\\,b", "means something else"),
            ("CN=a,C=CHE", "is no country's code"),
            (&format!("CN={}", "a".repeat(65)), "longer than 64"),
        ] {
            let error = Subject::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_hosts_name_makes_a_subject_whatever_it_is() {
        for (host, expected) in [("h1.example", "tenantry h1.example"), ("", "tenantry"), ("a\n b", "tenantry ab")] {
            assert_eq!(Subject::of_host(host), Subject(vec![(Part::CommonName, expected.to_owned())]));
        }
        let Subject(parts) = Subject::of_host(&"h".repeat(200));
        assert_eq!(parts[0].1.len(), LONGEST);
    }
}
