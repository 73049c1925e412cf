//! A file's text, parsed, with the place of everything; and the report that all files share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::errors::{ConfigError, ConfigErrors, ConfigWarning, Problem};
use super::files::Folders;
use super::settings::{Place, SignedBy};

/// More errors than this are counted, not told: a file of rubbish has millions.
const MOST_ERRORS: usize = 500;

/// Where errors and warnings are collected, over all files.
#[derive(Default)]
pub(super) struct Report {
    errors: RefCell<Vec<ConfigError>>,
    left_out: Cell<usize>,
    warnings: RefCell<Vec<ConfigWarning>>,
    /// The files in the order of reading: errors are told in it.
    files: RefCell<Vec<PathBuf>>,
}

impl Report {
    fn error(&self, error: ConfigError) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < MOST_ERRORS {
            errors.push(error);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    fn warn(&self, place: Place, key: String, message: String) {
        self.warnings.borrow_mut().push(ConfigWarning { place, key, message });
    }

    /// The warnings, or all errors if there is any.
    pub(super) fn finish(self) -> Result<Vec<ConfigWarning>, ConfigErrors> {
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        let files = self.files.into_inner();
        let rank = |file: &Path| files.iter().position(|known| known == file);
        errors.sort_by_cached_key(|error| (rank(&error.file), error.line, error.column));
        Err(ConfigErrors::new(errors, self.left_out.get()))
    }
}

/// A file's text.
pub(super) struct Source {
    file: PathBuf,
    text: String,
    line_starts: Vec<usize>,
    signed: Option<SignedBy>,
}

impl Source {
    pub(super) fn new(file: PathBuf, text: String) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { file, text, line_starts, signed: None }
    }

    /// The text that was signed in `file`. Its own lines are none of the file's.
    pub(super) fn signed(file: PathBuf, text: String, by: SignedBy) -> Self {
        Self { file, text, line_starts: vec![0], signed: Some(by) }
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    fn column(&self, offset: usize) -> usize {
        let start = self.line(offset).checked_sub(1).and_then(|line| self.line_starts.get(line));
        let before = start.and_then(|start| self.text.get(*start..offset));
        before.map_or(1, |text| text.chars().count() + 1)
    }
}

const MISSING_COMMA: &str = "missing comma between array elements";

fn mend(reason: &str) -> &'static str {
    if reason == "duplicate key" {
        "keep one of the two"
    } else if reason.starts_with(MISSING_COMMA) {
        "put it there, or close the list with ] before this"
    } else {
        "texts, durations and sizes stand in quotes, lists in [ ]"
    }
}

/// A file that is being read.
pub(super) struct Document<'a> {
    source: &'a Source,
    report: &'a Report,
    folders: Folders<'a>,
    /// Lines with syntax errors. What was recovered there is a guess, so nothing more is said of it.
    broken: BTreeSet<usize>,
}

impl<'a> Document<'a> {
    /// Parses a file and reports its syntax errors; what could be read of it comes back.
    ///
    /// `folders` are where the paths in it lead to.
    pub(super) fn parse(
        source: &'a Source,
        folders: Folders<'a>,
        report: &'a Report,
    ) -> (Self, Spanned<DeTable<'a>>) {
        report.files.borrow_mut().push(source.file.clone());
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        let mut document = Self { source, report, folders, broken: BTreeSet::new() };
        let mut last = String::new();
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let reason = error.message().to_owned();
            // One mistake makes a parser complain several times, and a list that is not closed
            // makes it complain of every line after it; the first time is the best.
            let new_line = document.broken.insert(source.line(offset));
            let again = reason == last && reason.starts_with(MISSING_COMMA);
            if new_line && !again {
                let mend = mend(&reason);
                document.push(
                    offset,
                    String::new(),
                    Problem::Syntax { reason: reason.clone(), mend },
                );
            }
            last = reason;
        }
        (document, root)
    }

    fn push(&self, offset: usize, key: String, problem: Problem) {
        self.report.error(ConfigError {
            file: self.source.file.clone(),
            line: Some(self.source.line(offset)),
            column: Some(self.source.column(offset)),
            key,
            problem,
        });
    }

    /// Reports a problem, unless the line could not be read anyway.
    pub(super) fn fail(&self, offset: usize, key: String, problem: Problem) {
        if !self.broken.contains(&self.source.line(offset)) {
            self.push(offset, key, problem);
        }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        Place { file: self.source.file.clone(), line: self.source.line(offset) }
    }

    pub(super) fn warn(&self, place: Place, key: String, message: String) {
        self.report.warn(place, key, message);
    }

    /// Whether the file has no syntax error.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// Who signed the file.
    pub(super) fn signed(&self) -> Option<&SignedBy> {
        self.source.signed.as_ref()
    }

    /// Where the paths in the file lead to.
    pub(super) fn folders(&self) -> Folders<'a> {
        self.folders
    }
}
