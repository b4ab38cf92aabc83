//! Aligned text for people: tables, and lists of named fields.
//!
//! Knows nothing of what it shows. Text that came from elsewhere (folder names, messages) is cleaned of
//! control characters here, so that no name can move the cursor of a terminal.

use std::fmt;

/// Space between columns.
const GAP: usize = 2;

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers and sizes.
    Right,
}

/// A table with a header line.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, cells beyond the last column are dropped.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().take(self.columns.len()).map(|c| clean(&c)).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count());
        cells.max().unwrap_or(0).max(self.columns[column].0.chars().count())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let widths: Vec<usize> = (0..self.columns.len()).map(|c| self.width(c)).collect();
        let body = self.rows.iter().map(|row| row.iter().map(String::as_str).collect());
        for row in std::iter::once(header).chain(body) {
            let mut line = String::new();
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).copied().unwrap_or("");
                match self.columns[column].1 {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
                line.push_str(&" ".repeat(GAP));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Named fields, one a line, values in one column. Fields without a value are left out.
pub(crate) fn fields(list: &[(&str, Option<String>)]) -> String {
    let width = list.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (name, value) in list {
        if let Some(value) = value {
            let label = format!("{name}:");
            text.push_str(format!("{label:<width$} {}", clean(value)).trim_end());
            text.push('\n');
        }
    }
    text
}

/// `text` with every control character shown as an escape.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// `-` for nothing.
pub(crate) fn or_dash(text: Option<String>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| String::from("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("STATE", Align::Left)]);
        table.row(["web01".into(), "20 GiB".into(), "running".into()]);
        table.row(["a".into(), "512 B".into(), String::new()]);
        table.row(["long-name".into(), "1 B".into()]);
        let expected = "NAME         SIZE  STATE\n\
                        web01      20 GiB  running\n\
                        a           512 B\n\
                        long-name     1 B\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(&[("A", Align::Left), ("B", Align::Left)]).to_string(), "A  B\n");
    }

    #[test]
    fn control_characters_cannot_reach_a_terminal() {
        let mut table = Table::new(&[("NAME", Align::Left)]);
        table.row(["a\u{1b}[2J\nb\u{9b}".into()]);
        assert_eq!(table.to_string(), "NAME\na\\u{1b}[2J\\nb\\u{9b}\n");
        assert_eq!(fields(&[("x", Some("a\rb".into()))]), "x: a\\rb\n");
    }

    #[test]
    fn fields_are_aligned_and_absent_ones_left_out() {
        let text = fields(&[
            ("name", Some("web01".into())),
            ("home", None),
            ("datastore", Some("d".into())),
        ]);
        assert_eq!(text, "name:      web01\ndatastore: d\n");
    }
}
