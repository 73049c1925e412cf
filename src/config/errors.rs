//! What can be wrong with a configuration, and how it is told.
//!
//! Every error names file, line and key, says what is wrong, and says the mend. Nothing here ever
//! holds a secret's value: the readers pass on types, names and ranges, and only the values of keys
//! that are not confidential.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::settings::Place;
use crate::signed::SignedError;

/// Everything that is wrong with a configuration, told at once.
///
/// Displayed as one line per error: `file:line:column: key: what is wrong; mend`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.lines())]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    left_out: usize,
}

impl ConfigErrors {
    pub(super) fn new(errors: Vec<ConfigError>, left_out: usize) -> Self {
        Self { errors, left_out }
    }

    /// The errors, file by file and each file from top to bottom.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// How many errors there are, those included that [`Self::iter`] leaves out because there are
    /// too many to read.
    pub fn count(&self) -> usize {
        self.errors.len() + self.left_out
    }

    fn lines(&self) -> String {
        let mut lines: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        if self.left_out > 0 {
            lines.push(format!("and {} more errors", self.left_out));
        }
        lines.join("\n")
    }
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigError {
    pub file: PathBuf,
    /// 1-based; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// 1-based, in characters.
    pub column: Option<usize>,
    /// Such as `[document_server] command_body_limit` or `[[tenant]] #2 hosts`; empty for a syntax
    /// error or a whole file.
    pub key: String,
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("cannot read {}: {reason}; {mend}", .path.display())]
    Unreadable { path: PathBuf, reason: String, mend: &'static str },
    #[error("not valid TOML: {reason}; {mend}")]
    Syntax { reason: String, mend: &'static str },
    #[error("unknown key; {}", suggest(.suggestion, .known))]
    UnknownKey { suggestion: Option<&'static str>, known: Vec<&'static str> },
    #[error("{found} where {wanted} belongs; {mend}")]
    WrongType { wanted: &'static str, found: &'static str, mend: &'static str },
    #[error("this key is missing; {mend}")]
    Missing { mend: &'static str },
    #[error("{what}; {mend}")]
    Invalid { what: String, mend: String },
    #[error("{what} is there already, in {first}; {mend}")]
    Twice { what: String, first: Place, mend: &'static str },
    #[error("{}: {error}", .path.display())]
    Untrusted { path: PathBuf, error: SignedError },
    #[error("{what} not available in this release; {mend}")]
    Unavailable { what: &'static str, mend: &'static str },
}

fn suggest(suggestion: &Option<&'static str>, known: &[&'static str]) -> String {
    match suggestion {
        Some(key) => format!("did you mean \"{key}\"?"),
        None => format!("remove it, the keys here are: {}", known.join(", ")),
    }
}

/// Something that is allowed but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    pub place: Place,
    /// As in [`ConfigError::key`].
    pub key: String,
    /// What is odd, and the mend.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.message)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}
