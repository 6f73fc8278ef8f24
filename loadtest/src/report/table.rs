//! Results as tables. Results of one scenario with the same fields share a table.

use super::{
    html::escaped,
    results::{KEYS, Line, SAID_ONCE, text},
};
use serde_json::Value;

/// A table of results.
pub(super) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Returns whether a table shows the value. Data of pictures is left out.
fn is_told(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(entries) => entries.iter().all(Value::is_number),
        _ => true,
    }
}

fn fields(line: &Line) -> impl Iterator<Item = &String> {
    let told = line
        .iter()
        .filter(|(name, value)| is_told(value) && !SAID_ONCE.contains(&name.as_str()));
    told.map(|(name, _)| name)
}

/// Returns the names of a result's fields, which identify its table.
pub(super) fn shape(line: &Line) -> String {
    fields(line).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the tables of one scenario.
pub(super) fn parts(lines: &[Line]) -> Vec<Table> {
    let mut shapes: Vec<String> = lines.iter().map(shape).collect();
    shapes.dedup();
    let mut seen = Vec::new();
    shapes.retain(|shape| {
        let new = !shape.is_empty() && !seen.contains(shape);
        seen.push(shape.clone());
        new
    });
    let table = |wanted: &String| {
        let lines: Vec<&Line> = lines.iter().filter(|line| shape(line) == *wanted).collect();
        Table::of(&lines)
    };
    shapes.iter().map(table).collect()
}

impl Table {
    fn of(lines: &[&Line]) -> Self {
        let names: Vec<&String> = lines
            .first()
            .map(|line| fields(line).collect())
            .unwrap_or_default();
        let keys = KEYS.iter().filter(|key| names.iter().any(|name| name == *key));
        let measured = names.iter().filter(|name| !KEYS.contains(&name.as_str()));
        let columns: Vec<String> = keys
            .map(ToString::to_string)
            .chain(measured.map(ToString::to_string))
            .collect();
        let row = |line: &&Line| columns.iter().map(|name| text(&line[name])).collect();
        Self {
            rows: lines.iter().map(row).collect(),
            columns,
        }
    }

    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.columns.len()));
        let rows = self.rows.iter().map(|row| line(row));
        [line(&self.columns), rule].into_iter().chain(rows).collect()
    }

    pub(super) fn html(&self) -> String {
        let line = |tag: &str, cells: &[String]| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}", escaped(cell)));
            format!("<tr>{}\n", cells.collect::<String>())
        };
        let rows: String = self.rows.iter().map(|row| line("td", row)).collect();
        format!("<table>{}{rows}</table>", line("th", &self.columns))
    }
}
