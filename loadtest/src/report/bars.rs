//! Performance targets, read from `bars.jsonl` and compared with the measurements.
//!
//! A line names a target, its scenario, the values that select a result, and the measured field. The
//! field must be at most `most` or at least `least`. The field may also be a trend with the margin in
//! the field `margin`: a trend passes if it falls or cannot be distinguished from zero.

use super::{
    results::{Results, has, lines, number},
    table::Table,
};
use serde_json::Value;

const BARS: &str = include_str!("bars.jsonl");

/// Returns the targets for which results exist, with their verdicts.
pub(super) fn table(results: &Results) -> Table {
    let bars = BARS.lines().filter_map(|bar| serde_json::from_str(bar).ok());
    Table {
        columns: ["what", "bar", "measured", ""].map(Into::into).into(),
        rows: bars.filter_map(|bar| judge(&bar, results)).collect(),
    }
}

fn judge(bar: &Value, results: &Results) -> Option<Vec<String>> {
    let text = |field: &str| bar[field].as_str();
    let mut of = lines(results, text("scenario")?).iter();
    let line = of.find(|line| has(line, &bar["where"]))?;
    let value = number(line, text("field")?)?;
    let (limit, measured, met) = if let Some(most) = bar["most"].as_f64() {
        (format!("≤ {most}"), value.to_string(), value <= most)
    } else if let Some(least) = bar["least"].as_f64() {
        (format!("≥ {least}"), value.to_string(), value >= least)
    } else {
        let margin = number(line, text("margin")?).unwrap_or_default();
        let measured = format!("{value} ± {margin} an hour");
        (
            "0 within its margin, or falling".into(),
            measured,
            value <= margin,
        )
    };
    let verdict = if met { "met" } else { "missed" };
    Some(vec![text("what")?.into(), limit, measured, verdict.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use clap::ValueEnum as _;

    #[test]
    fn each_bar_names_a_scenario_a_field_and_one_limit() {
        for line in BARS.lines() {
            let bar: Value = serde_json::from_str(line).unwrap();
            let texts = ["what", "scenario", "field"].map(|field| bar[field].as_str());
            assert!(
                texts.iter().all(Option::is_some) && bar["where"].is_object(),
                "{line}"
            );
            Scenario::from_str(texts[1].unwrap(), false).unwrap();
            let numbers = ["most", "least"].map(|limit| bar[limit].is_number());
            let limits = [numbers[0], numbers[1], bar["margin"].is_string()];
            assert_eq!(limits.iter().filter(|given| **given).count(), 1, "{line}");
        }
    }
}
