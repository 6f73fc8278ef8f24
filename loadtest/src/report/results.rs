//! Results as read back for the reports, and how to find one among them.

use serde_json::{Map, Value};

/// A result: one line of `results.jsonl`.
pub(super) type Line = Map<String, Value>;
/// Results by scenario, in the order of their first run.
pub(super) type Results = Vec<(String, Vec<Line>)>;

/// Fields that identify a variant within a scenario; all other fields are measurements.
pub(super) const KEYS: [&str; 19] = [
    "trial",
    "brokers",
    "fault",
    "leads",
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

/// Returns whether a result has these values. Numbers are compared as such: 20 is 20.0.
pub(super) fn has(line: &Line, values: &Value) -> bool {
    let mut values = values.as_object().into_iter().flatten();
    values.all(|(field, wanted)| match wanted.as_f64() {
        Some(wanted) => number(line, field) == Some(wanted),
        None => line.get(field) == Some(wanted),
    })
}

/// Returns the results of a scenario.
pub(super) fn lines<'a>(results: &'a Results, scenario: &str) -> &'a [Line] {
    let found = results.iter().find(|(name, _)| name == scenario);
    found.map_or(&[], |(_, lines)| lines)
}
