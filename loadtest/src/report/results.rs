//! Results as read back for the reports, and how to find one among them.

use serde_json::{Map, Value};

/// A result: one line of `results.jsonl`.
pub(super) type Line = Map<String, Value>;
/// Results by scenario, in the order of their first run.
pub(super) type Results = Vec<(String, Vec<Line>)>;

/// Fields that identify a variant within a scenario; all other fields are measurements.
pub(super) const KEYS: [&str; 16] = [
    "brokers",
    "queue",
    "rate",
    "verify",
    "added_rtt_ms",
    "hops",
    "provers",
    "prove_ms",
    "ahead",
    "queued",
    "service",
    "load",
    "what",
    "wide",
    "profile",
    "seed",
];
/// Fields with the same value in every line of a run, which tables omit.
pub(super) const SAID_ONCE: [&str; 3] = ["scenario", "profile", "seed"];

/// Returns the number in a field, if there is one.
pub(super) fn number(line: &Line, field: &str) -> Option<f64> {
    line.get(field)?.as_f64()
}

/// Returns whether a result has these values: numbers, booleans and texts as they are written.
pub(super) fn has(line: &Line, values: &[(&str, &str)]) -> bool {
    values.iter().all(|(field, wanted)| {
        line.get(*field).is_some_and(|value| match wanted.parse::<f64>() {
            Ok(wanted) => value.as_f64() == Some(wanted),
            Err(_) => text(value) == *wanted,
        })
    })
}

/// Returns the results of a scenario.
pub(super) fn lines<'a>(results: &'a Results, scenario: &str) -> &'a [Line] {
    let found = results.iter().find(|(name, _)| name == scenario);
    found.map_or(&[], |(_, lines)| lines)
}

/// Formats a value briefly: a spread as two values, a number with at most three decimals.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" – "),
        Value::Number(number) => match number.as_f64() {
            Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
            Some(value) => format!("{}", (value * 1000.0).round() / 1000.0),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}
