//! What is wrong with a configuration, where, and what to change.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, counted from one, if it is known.
        line: Option<usize>,
        /// The column, counted from one, if it matters.
        column: Option<usize>,
    },
    /// In the environment.
    Environment {
        /// The variable's name.
        variable: String,
    },
}

impl Place {
    /// A line of a file, or the file as a whole.
    #[must_use]
    pub fn file(path: &Path, line: Option<usize>) -> Self {
        Self::File { path: path.into(), line, column: None }
    }

    /// The directory that relative paths written here start from: the file's; for the environment, the process's.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        match self {
            Self::File { path, .. } => path.parent().unwrap_or(Path::new("")).to_owned(),
            Self::Environment { .. } => PathBuf::new(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let Some(column) = column {
                    write!(f, ":{column}")?;
                }
                Ok(())
            }
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
        }
    }
}

/// One thing that is wrong, or (as a warning) doubtful. `Display` is one line: place, key, what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key's path, such as `collect.poll_interval`; empty if the whole file is meant.
    pub key: String,
    /// What is wrong and what to change; never a secret's value.
    pub message: String,
    /// Whether the operating system refused access, which has an exit code of its own.
    pub permission: bool,
}

impl Problem {
    /// A problem with the value of `key` at `place`.
    #[must_use]
    pub fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, key: key.into(), message: message.into(), permission: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        // It may quote what was written, which must neither break the line nor steer a terminal.
        for c in format!("{}: {key}{}", self.place, self.message).chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Every problem of a configuration that cannot be used, in the order of its sources; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// `problems` in the order given.
    #[must_use]
    pub const fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// Whether nothing is wrong except that files may not be read: another exit code, another person to ask.
    #[must_use]
    pub fn only_permissions(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|problem| problem.permission)
    }
}

/// One problem a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What is found while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// A source could not be read at all. What is missing may stand in it, so that nothing is reported as missing.
    pub(super) incomplete: bool,
}

impl Findings {
    pub(super) fn problem(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(place.clone(), key, message));
    }

    /// Something that should be there is not.
    pub(super) fn missing(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        if !self.incomplete {
            self.problem(place, key, message);
        }
    }

    pub(super) fn warn(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        self.warnings.push(Problem::new(place.clone(), key, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_harmless_line() {
        let place = Place::File { path: Path::new("/etc/t.toml").into(), line: Some(3), column: Some(7) };
        let problem = Problem::new(place, "tenants[0].cloud", "there is no cloud `a\n\u{1b}[2Jü`");
        assert_eq!(problem.to_string(), "/etc/t.toml:3:7: tenants[0].cloud: there is no cloud `a\\n\\u{1b}[2Jü`");
    }
}
