//! What people and programs read on standard output.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use super::table::{Cell, Table};
use super::{Failure, Format, Outcome};
use crate::admin::api::{Origin, Standing};

/// Writes a text and a line break to standard output.
pub(super) fn say(text: &str) -> Outcome {
    write(&format!("{text}\n"))
}

/// Writes to standard output.
pub(super) fn write(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `… | head` has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::failed),
    }
}

/// Writes a line to standard error.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

pub(super) fn say_json<T: Serialize>(value: &T) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    say(&text)
}

/// Writes a list: as JSON, or as a table.
pub(super) fn say_list<T: Serialize>(
    format: Format,
    list: &[T],
    head: &[&'static str],
    row: impl Fn(&T) -> Vec<Cell>,
) -> Outcome {
    if format.json {
        return say_json(&list);
    }
    let mut table = Table::new(head);
    for item in list {
        table.push(row(item));
    }
    write(&table.render(colours()))
}

/// Whether standard output is a terminal that shall have colours (<https://no-color.org>).
pub(super) fn colours() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// An instant as people read it, in UTC.
pub(super) fn instant(at: Timestamp) -> String {
    let text = Timestamp::from_second(at.as_second()).unwrap_or(at).to_string();
    match text.strip_suffix("T00:00:00Z") {
        Some(date) => date.to_owned(),
        None => text.replace('T', " "),
    }
}

pub(super) fn end(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), instant)
}

pub(super) fn standing(standing: Standing) -> Cell {
    let cell = Cell::text(standing.label());
    match standing {
        Standing::Valid => cell.good(),
        Standing::NotStarted => cell.warning(),
        Standing::Expired | Standing::Revoked | Standing::Missing => cell.bad(),
    }
}

pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Store {} => "store".to_owned(),
        Origin::File { file, line } => format!("{file}:{line}"),
    }
}
