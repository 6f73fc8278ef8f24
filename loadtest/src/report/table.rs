//! Results as tables. Results of one scenario with the same fields share a table.

use super::{
    html::escaped,
    results::{KEYS, Line, SAID_ONCE},
};
use crate::stats::round;
use serde_json::Value;

/// A table of results.
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// Returns whether a table shows the value. Data of pictures is left out.
fn is_told(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(entries) => entries.iter().all(Value::is_number),
        _ => true,
    }
}

/// Returns the names of a result's fields, the keys first. Results with the same names share a table.
pub(super) fn shape(line: &Line) -> Vec<String> {
    let told = |name: &str| line.get(name).is_some_and(is_told) && !SAID_ONCE.contains(&name);
    let measured = line
        .keys()
        .map(String::as_str)
        .filter(|name| !KEYS.contains(name));
    let names = KEYS.into_iter().chain(measured).filter(|name| told(name));
    names.map(Into::into).collect()
}

/// Formats a value briefly: a spread as two values, a number with at most three decimals.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" – "),
        Value::Number(number) => match number.as_f64() {
            Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
            Some(value) => round(value).to_string(),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Returns the tables of one scenario.
pub(super) fn parts(lines: &[Line]) -> Vec<Table> {
    let mut tables = Vec::<Table>::new();
    for line in lines {
        let columns = shape(line);
        let row = columns.iter().map(|name| text(&line[name])).collect();
        match tables.iter_mut().find(|table| table.columns == columns) {
            Some(table) => table.rows.push(row),
            None if columns.is_empty() => {}
            None => tables.push(Table {
                columns,
                rows: vec![row],
            }),
        }
    }
    tables
}

impl Table {
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.columns.len()));
        let rows = self.rows.iter().map(|row| line(row));
        [line(&self.columns), rule].into_iter().chain(rows).collect()
    }

    /// Returns the table as HTML. The verdicts `met` and `missed` are classes of their cells.
    pub(super) fn html(&self) -> String {
        let cell = |tag: &str, cell: &String| match cell.as_str() {
            "met" | "missed" => format!("<{tag} class=\"{cell}\">{cell}"),
            _ => format!("<{tag}>{}", escaped(cell)),
        };
        let line = |tag, cells: &[String]| -> String { cells.iter().map(|text| cell(tag, text)).collect() };
        let rows = self.rows.iter().map(|row| format!("<tr>{}\n", line("td", row)));
        let (head, rows) = (line("th", &self.columns), rows.collect::<String>());
        format!("<div class=\"scroll\"><table><tr>{head}\n{rows}</table></div>\n")
    }
}
