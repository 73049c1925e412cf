//! What a check found, and how it is told.

use std::io::IsTerminal as _;

use serde::Serialize;

use crate::cli::output::{colours, say, say_json};
use crate::cli::table::harmless;
use crate::cli::{Failure, Outcome};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warning => 33,
            Self::Error => 31,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    /// What to do; none where all is well.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), mend: None }
    }

    pub(super) fn warning(
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let (message, mend) = (message.into(), Some(mend.into()));
        Self { check, level: Level::Warning, message, mend }
    }

    pub(super) fn error(
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { level: Level::Error, ..Self::warning(check, message, mend) }
    }
}

/// All findings; told as they come.
#[derive(Debug)]
pub(super) struct Findings {
    json: bool,
    list: Vec<Finding>,
}

/// How wide the names of checks are.
const WIDTH: usize = 17;

impl Findings {
    pub(super) fn new(json: bool) -> Self {
        Self { json, list: Vec::new() }
    }

    /// Says on a terminal what is being looked at: some of it takes seconds.
    pub(super) fn begin(&self, what: &str) {
        if !self.json && std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
            eprint_over(&format!("… {what}"));
        }
    }

    /// Tells and keeps findings.
    pub(super) fn add(&mut self, found: Vec<Finding>) -> Outcome {
        for finding in found {
            if !self.json {
                if std::io::stderr().is_terminal() {
                    eprint_over("");
                }
                say(&render(&finding, colours()))?;
            }
            self.list.push(finding);
        }
        Ok(())
    }

    fn count(&self, level: Level) -> usize {
        self.list.iter().filter(|finding| finding.level == level).count()
    }

    /// The end: a failure if anything is an error.
    pub(super) fn finish(self) -> Outcome {
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warning));
        if self.json {
            say_json(&serde_json::json!({
                "checks": self.list, "errors": errors, "warnings": warnings,
            }))?;
        } else {
            say(&format!("\n{errors} error(s), {warnings} warning(s)"))?;
        }
        match errors {
            0 => Ok(()),
            // What is wrong was told already.
            _ => Err(Failure { code: crate::cli::FAILED, message: String::new() }),
        }
    }
}

fn eprint_over(text: &str) {
    use std::io::Write as _;
    let _ = write!(std::io::stderr(), "\r\u{1b}[K{text}");
}

fn render(finding: &Finding, colours: bool) -> String {
    let Finding { check, level, message, mend } = finding;
    let word = format!("{:<8}", level.word());
    let word = match colours {
        true => format!("\u{1b}[{}m{word}\u{1b}[0m", level.colour()),
        false => word,
    };
    let indent = " ".repeat(8 + WIDTH + 1);
    let lines = |text: &str| {
        let lines: Vec<String> = text.lines().map(harmless).collect();
        lines.join(&format!("\n{indent}"))
    };
    let mut text = format!("{word}{check:<WIDTH$} {}", lines(message));
    if let Some(mend) = mend {
        text.push_str(&format!("\n{indent}mend: {}", lines(mend)));
    }
    text
}
