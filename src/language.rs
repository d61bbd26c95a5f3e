//! The languages in which names are asked for.
//!
//! A tag is what a header `Accept-Language` takes, one of them: `en-US`, `es`, `zh-Hans`. It is kept in the form in which
//! such tags are usually written (RFC 5646, section 2.1.1), so that `EN-us` and `en-US` are the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a tag: that much must be possible ("Considerations for the Use of Language Tags", RFC 5646, section 4.4.1).
const LONGEST: usize = 35;

/// One language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(String);

/// What is no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no language tag; write one such as `en-US`, `de-DE` or `es`")]
pub struct NotALanguage(String);

impl Language {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Language {
    /// That in which the service answers whoever asks for none.
    fn default() -> Self {
        Self("en-US".to_owned())
    }
}

impl FromStr for Language {
    type Err = NotALanguage;

    fn from_str(text: &str) -> Result<Self, NotALanguage> {
        let refused = || NotALanguage(text.chars().take(LONGEST).filter(|c| !c.is_control()).collect());
        let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let first = text.split('-').next().unwrap_or_default();
        let named = (2..=8).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_alphabetic());
        if text.len() > LONGEST || !named || !text.split('-').all(part) {
            return Err(refused());
        }
        let usual = |(place, part): (usize, &str)| match part.len() {
            2 if place > 0 => part.to_ascii_uppercase(),
            4 if place > 0 && !part.starts_with(|c: char| c.is_ascii_digit()) => {
                part[..1].to_ascii_uppercase() + &part[1..].to_ascii_lowercase()
            }
            _ => part.to_ascii_lowercase(),
        };
        Ok(Self(text.split('-').enumerate().map(usual).collect::<Vec<_>>().join("-")))
    }
}

impl TryFrom<String> for Language {
    type Error = NotALanguage;

    fn try_from(text: String) -> Result<Self, NotALanguage> {
        text.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.0
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_kept_as_they_are_usually_written() {
        for (text, tag) in [
            ("en-US", "en-US"),
            ("EN-us", "en-US"),
            ("es", "es"),
            ("ZH-HANS-cn", "zh-Hans-CN"),
            ("sr-latn", "sr-Latn"),
            ("es-419", "es-419"),
        ] {
            assert_eq!(text.parse::<Language>().unwrap().as_str(), tag, "{text}");
        }
        assert_eq!(Language::default(), "en-us".parse().unwrap());
    }

    #[test]
    fn what_no_header_takes_is_no_language() {
        let long = "en-".to_owned() + &"abcdefgh-".repeat(4) + "x";
        for text in ["", "e", "en_US", "en-", "-en", "en-US, de", "de;q=0.5", "*", "en\n", "Deutsch (DE)", "12", &long]
        {
            assert!(text.parse::<Language>().is_err(), "{text}");
        }
        let told = "en\r\nX: y".parse::<Language>().unwrap_err().to_string();
        assert_eq!(told, "`enX: y` is no language tag; write one such as `en-US`, `de-DE` or `es`");
    }
}
