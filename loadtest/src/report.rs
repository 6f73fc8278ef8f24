//! `target/bench/report.md` and `report.html`: the newest result of each kind, as tables and bars.

use crate::record::results;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write, fs};

/// What tells results of one scenario apart; all other fields are measured.
const KEYS: [&str; 11] = [
    "rate",
    "verify",
    "added_rtt_ms",
    "provers",
    "prove_ms",
    "queued",
    "service",
    "load",
    "profile",
    "wide",
    "seconds",
];
/// Scenario, what is shown of it, and what stands beside it.
const BARS: [(&str, &str, &str); 5] = [
    ("overhead", "p50_ms", "floor_p50_ms"),
    ("throughput", "blocks_per_s", "floor_blocks_per_s"),
    ("scaling", "efficiency", "efficiency_nominal"),
    ("burst", "drain_s", "ideal_s"),
    ("realtime", "hit_rate", "hit_rate_hedged"),
];

type Results = BTreeMap<String, BTreeMap<String, Map<String, Value>>>;

/// Writes both from the results so far.
pub(crate) fn write() -> anyhow::Result<()> {
    let path = results();
    let newest = newest(&fs::read_to_string(&path)?);
    fs::write(path.with_file_name("report.md"), markdown(&newest)?)?;
    fs::write(path.with_file_name("report.html"), html(&newest)?)?;
    Ok(())
}

/// By scenario and by what was varied, the last line wins.
fn newest(lines: &str) -> Results {
    let mut found = Results::new();
    for line in lines.lines() {
        let Ok(Value::Object(result)) = serde_json::from_str(line) else {
            continue;
        };
        let scenario = result
            .get("scenario")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned();
        let parts = KEYS
            .iter()
            .filter_map(|key| Some(format!("{key} {}", text(result.get(*key)?))));
        let variant = parts.collect::<Vec<_>>().join(", ");
        found.entry(scenario).or_default().insert(variant, result);
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn measured(result: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let skipped = |name: &str| KEYS.contains(&name) || name == "scenario";
    result.iter().filter(move |(name, _)| !skipped(name))
}

fn markdown(results: &Results) -> Result<String, std::fmt::Error> {
    let mut out = String::from("# Load test\n");
    for (scenario, variants) in results {
        writeln!(out, "\n## {scenario}\n")?;
        for (variant, result) in variants {
            let fields: Vec<String> = measured(result)
                .map(|(name, value)| format!("{name} {}", text(value)))
                .collect();
            writeln!(out, "- {variant}: {}", fields.join(", "))?;
        }
    }
    Ok(out)
}

fn html(results: &Results) -> Result<String, std::fmt::Error> {
    let mut out = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>push0 load test</title>\
         <style>body{font:14px sans-serif;margin:2em;max-width:70em}td,th{padding:.2em .6em;text-align:left;\
         border-bottom:1px solid #ddd}</style><h1>Load test</h1>\n",
    );
    for (scenario, variants) in results {
        writeln!(out, "<h2>{scenario}</h2>")?;
        for (_, ours, beside) in BARS.iter().filter(|(name, ..)| name == scenario) {
            plot(&mut out, variants, ours, beside)?;
        }
        writeln!(out, "<table>")?;
        for (variant, result) in variants {
            write!(out, "<tr><th>{}", escaped(variant))?;
            for (name, value) in measured(result) {
                write!(out, "<td>{} {}", escaped(name), escaped(&text(value)))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "</table>")?;
    }
    Ok(out)
}

/// Two bars for each variant: what was measured, and what it is compared with.
fn plot(
    out: &mut String,
    variants: &BTreeMap<String, Map<String, Value>>,
    ours: &str,
    beside: &str,
) -> std::fmt::Result {
    const WIDTH: f64 = 400.0;
    let number =
        |result: &Map<String, Value>, name| result.get(name).and_then(Value::as_f64).unwrap_or_default();
    let all = variants
        .values()
        .flat_map(|result| [number(result, ours), number(result, beside)]);
    let most = all.fold(f64::MIN_POSITIVE, f64::max);
    writeln!(out, "<svg width=\"900\" height=\"{}\">", variants.len() * 44 + 20)?;
    writeln!(out, "<text x=\"0\" y=\"12\">blue: {ours}; grey: {beside}</text>")?;
    for (at, (variant, result)) in variants.iter().enumerate() {
        let top = at * 44 + 20;
        writeln!(
            out,
            "<text x=\"0\" y=\"{}\" font-size=\"11\">{}</text>",
            top + 20,
            escaped(variant)
        )?;
        for (value, colour, y) in [
            (number(result, ours), "#36c", top + 4),
            (number(result, beside), "#999", top + 20),
        ] {
            let length = WIDTH * value / most;
            writeln!(
                out,
                "<rect x=\"380\" y=\"{y}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"11\">{value}</text>",
                385.0 + length,
                y + 11
            )?;
        }
    }
    writeln!(out, "</svg>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_result_of_each_kind_is_shown() {
        let lines = "{\"scenario\":\"overhead\",\"rate\":20,\"p50_ms\":3}\n{\"scenario\":\"overhead\",\"rate\":20,\"p50_ms\":2}\n";
        let shown = markdown(&newest(lines)).unwrap();
        assert!(
            shown.contains("- rate 20: p50_ms 2") && !shown.contains("p50_ms 3"),
            "{shown}"
        );
        assert!(html(&newest(lines)).unwrap().contains("<svg"));
    }
}
