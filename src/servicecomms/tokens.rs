//! The words of a `$filter`.

/// A word, or a mark.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Open,
    Close,
    /// A name, a keyword, or a time without quotes.
    Bare(String),
    /// In quotes, or a value of an enumeration.
    Quoted(String),
}

impl Word {
    pub(super) fn told(&self) -> &str {
        match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::Bare(text) | Self::Quoted(text) => text,
        }
    }

    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(text) if text.eq_ignore_ascii_case(keyword))
    }
}

/// The words of a filter.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '(' | ')' => {
                words.push(if first == '(' { Word::Open } else { Word::Close });
                &rest[1..]
            }
            '\'' => {
                let (quoted, rest) = quoted(&rest[1..])?;
                words.push(Word::Quoted(quoted));
                rest
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()',".contains(c)).unwrap_or(rest.len());
                if end == 0 {
                    return Err(format!("`{first}` is not expected there"));
                }
                // `Some.Name'Value'`: the value counts, whatever the enumeration is called.
                if rest[end..].starts_with('\'') {
                    let (quoted, rest) = quoted(&rest[end + 1..])?;
                    words.push(Word::Quoted(quoted));
                    rest
                } else {
                    words.push(Word::Bare(rest[..end].to_owned()));
                    &rest[end..]
                }
            }
        }
        .trim_start();
    }
    Ok(words)
}

/// The text up to the closing quote, in which two quotes are one, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let Some(end) = rest.find('\'') else { return Err("a quote is not closed".to_owned()) };
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Ok((value, rest)),
        }
    }
}
