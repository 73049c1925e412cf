//! Tables for people: aligned columns, colours where they are wanted.
//!
//! What stands in a cell may come from anybody: control characters never reach the terminal.

use unicode_width::UnicodeWidthStr as _;

const GAP: &str = "  ";

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    /// An ANSI colour.
    colour: Option<u8>,
    right: bool,
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self { text: harmless(text.as_ref()), colour: None, right: false }
    }

    /// A number: aligned to the right.
    pub(super) fn number(number: impl ToString) -> Self {
        Self { right: true, ..Self::text(number.to_string()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn good(self) -> Self {
        Self { colour: Some(32), ..self }
    }

    pub(super) fn warning(self) -> Self {
        Self { colour: Some(33), ..self }
    }

    pub(super) fn bad(self) -> Self {
        Self { colour: Some(31), ..self }
    }
}

/// A text without what a terminal would obey.
pub(super) fn harmless(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Rows under a head.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(head: &[&'static str]) -> Self {
        let head: Vec<Cell> = head.iter().map(Cell::text).collect();
        Self { rows: if head.is_empty() { Vec::new() } else { vec![head] } }
    }

    pub(super) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(super) fn render(&self, colours: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                if !line.is_empty() {
                    line.push_str(GAP);
                }
                let space = " ".repeat(width.saturating_sub(cell.text.width()));
                let text = match cell.colour {
                    Some(colour) if colours => format!("\u{1b}[{colour}m{}\u{1b}[0m", cell.text),
                    _ => cell.text.clone(),
                };
                let (before, after) = if cell.right { (&*space, "") } else { ("", &*space) };
                line.extend([before, &text, after]);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(&["NAME", "SEATS", "LAST"]);
        table.push(vec![Cell::text("公司"), Cell::number(5), Cell::text("x").bad()]);
        table.push(vec![Cell::text("a\u{1b}[31m"), Cell::number(1234567), Cell::text("")]);
        let plain = "NAME    SEATS    LAST\n\
                     公司          5  x\n\
                     a\u{fffd}[31m  1234567\n";
        assert_eq!(table.render(false), plain);
        assert!(table.render(true).contains("\u{1b}[31mx\u{1b}[0m\n"));
        assert_eq!(Table::new(&[]).render(true), "");
    }
}
